"""Prediction errors of state-space models in innovations form and their exact derivatives, without a loop over samples.

``x' = A x + B u + K e``, ``y = C x + D u + e``. A change of the matrices drives the states of the predictor by
``(dA - K dC) x + (dB - K dD) u + dK e`` through ``A - K C``, so that all derivatives are products of few transforms: those of the
free motions of the outputs with those of x, u and e. Directions along which only the states change their coordinates do nothing
and are left out: data-driven local coordinates (McKelvey, Helmersson & Ribarits, Automatica 40, 2004).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.fft

from ssmid._array import next_fast_length, quiet
from ssmid.analysis.polynomial import Host
from ssmid.identification.initial_state import free_motion, free_simulation
from ssmid.systems.base import computed
from ssmid.systems.state_space import StateSpace

_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class Innovations:
    """The matrices, and the initial states ``(experiments, n)``."""

    A: Host
    B: Host
    C: Host
    D: Host
    K: Host
    states: Host

    @property
    def predictor(self) -> Host:
        return self.A - self.K @ self.C

    @property
    def matrices(self) -> tuple[Host, ...]:
        return self.A, self.B, self.C, self.D, self.K

    def moved(self, changes: tuple[Host, ...], states: Host) -> Innovations:
        """The model with these added to its matrices and states."""
        A, B, C, D, K = (M + d for M, d in zip(self.matrices, changes, strict=True))
        return Innovations(A, B, C, D, K, self.states + states)


def errors_of(model: Innovations, data: list[tuple[Host, Host]]) -> list[tuple[Host, Host]]:
    """States ``(n, T)`` and prediction errors ``(p, T)`` of each experiment, inputs ``(m, T)`` and outputs ``(p, T)``."""
    n, p = len(model.A), len(model.C)
    inputs = np.concatenate([model.B - model.K @ model.D, model.K], -1)
    watcher = computed(StateSpace, A=model.predictor, B=inputs, C=np.eye(n), D=np.zeros((n, inputs.shape[-1])), dt=1)
    found = []
    for (u, y), start in zip(data, model.states, strict=True):
        x = quiet(free_simulation)(watcher, np.concatenate([u, y]), start) if n else np.zeros((0, y.shape[-1]))
        found.append((x, y - model.C @ x - model.D @ u if p else y))
    return found


def directions(model: Innovations, *, gain: bool, feedthrough: bool) -> tuple[Host, ...]:
    """Orthonormal changes ``(k, ...)`` of A, B, C, D and K, orthogonal to all changes of coordinates of the states.

    gain, feedthrough : whether K and D are free. ``k = n (m + p) + n p + p m`` with both, where the system is minimal.
    """
    A, B, C, _, K = model.matrices
    n, m, p = len(A), B.shape[-1], len(C)
    E = np.eye(n * n).reshape(n * n, n, n)
    along = [E @ A - A @ E, E @ B, -C @ E]
    along += [E @ K] if gain else []
    tangent = np.concatenate([t.reshape(n * n, t.shape[-2] * t.shape[-1]) for t in along], -1).T
    Q = np.linalg.qr(tangent, mode="complete")[0][:, n * n :]
    free = p * m if feedthrough else 0
    k = Q.shape[1] + free
    sizes = np.cumsum([n * n, n * m, p * n])
    parts = np.split(Q.T, sizes, axis=-1)

    def unfolded(part: Host, rows: int, columns: int) -> Host:
        return np.concatenate([part.reshape(k - free, rows, columns), np.zeros((free, rows, columns))])

    dA, dB, dC = unfolded(parts[0], n, n), unfolded(parts[1], n, m), unfolded(parts[2], p, n)
    dK = unfolded(parts[3], n, p) if gain else np.zeros((k, n, p))
    dD = np.concatenate([np.zeros((k - free, p, m)), np.eye(free).reshape(free, p, m)]) if free else np.zeros((k, p, m))
    return dA, dB, dC, dD, dK


def jacobian(
    model: Innovations, data: list[tuple[Host, Host]], signals: list[tuple[Host, Host]], changes: tuple[Host, ...]
) -> list[Host]:
    """``(p, T, k + experiments n)`` derivatives of the errors of each experiment by the size of each change, then by the states."""
    dA, dB, dC, dD, dK = changes
    k, n = len(dA), len(model.A)
    driven = np.concatenate([dA - model.K @ dC, dB - model.K @ dD, dK], -1)
    seen = np.concatenate([dC, dD], -1)
    blocks = []
    longest = max(y.shape[-1] for _, y in data)
    motion = np.moveaxis(free_motion(model.predictor, model.C, longest), 0, -1) if n else np.zeros((len(model.C), 0, longest))
    for i, ((u, y), (x, e)) in enumerate(zip(data, signals, strict=True)):
        p, T = y.shape
        block = np.zeros((p, T, k + len(data) * n))
        block[..., k + i * n : k + (i + 1) * n] = -np.swapaxes(motion[..., :T], -1, -2)
        direct = np.moveaxis(seen @ np.concatenate([x, u]), 0, -1)
        block[..., :k] = -direct
        if n:
            block[:, 1:, :k] -= _driven(motion[..., :T], np.concatenate([x, u, e]), driven)[:, : T - 1]
        blocks.append(block)
    return blocks


def _driven(motion: Host, signals: Host, driven: Host) -> Host:
    """``(p, T, k)`` convolutions of free motions ``(p, n, T)`` with ``driven @ signals``, ``(k, n, s)`` times ``(s, T)``."""
    p, n, T = motion.shape
    k, _, s = driven.shape
    size = next_fast_length(2 * T)
    H: Host = scipy.fft.rfft(motion, n=size)
    Z: Host = scipy.fft.rfft(signals, n=size)
    table = driven.reshape(k, n * s).T
    out = np.empty((p, H.shape[-1], k), complex)
    step = max(1, _BYTES // (16 * n * s))
    for a in range(p):
        for start in range(0, H.shape[-1], step):
            piece = slice(start, start + step)
            products = (H[a, :, None, piece] * Z[None, :, piece]).reshape(n * s, -1).T
            flat = np.ascontiguousarray(products).view(float).reshape(len(products), n * s, 2)
            out[a, piece] = flat[..., 0] @ table + 1j * (flat[..., 1] @ table)
    back: Host = scipy.fft.irfft(out, n=size, axis=1)
    return back[:, :T]
