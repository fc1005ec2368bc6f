"""Whether a model can give out more energy than went in, decided by eigenvalues and not by sampling.

A scattering matrix is passive where its singular values are at most one at every frequency, an immittance (an impedance or
admittance) where its Hermitian part is nonnegative. Frequencies at which an eigenvalue of ``I - G* G`` or of ``G + G*`` passes
through a level are the imaginary eigenvalues of a Hamiltonian matrix in continuous time (Boyd, Balakrishnan & Kabamba, Math. Control
Signals Systems 2, 1989; Grivet-Talocia, IEEE Trans. Circuits Syst. I 51, 2004), and the eigenvalues on the unit circle of a
symplectic pencil in discrete time (Genin, Van Dooren & Vermaut, 1998). Between two of them nothing crosses, so that one point of each
band tells for all of it.
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize

from ssmid._array import Array, double, from_numpy, in_threads, to_numpy
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.polynomial import Host
from ssmid.identification.arguments import checked_tolerance
from ssmid.reduction.result import Result
from ssmid.systems import FrequencyResponse, StateSpace, System
from ssmid.systems.base import sample_time

KINDS = ("scattering", "immittance")
_ITERATIONS = 40
_RAISE = 1e-9
_SINGULAR = 1e8
_SAMPLES = 33

Matrices = tuple[Host, Host, Host, Host]


@dataclasses.dataclass(frozen=True)
class Violation:
    """A band where a model is not passive.

    low, high : rad/s (high may be infinite)   worst : the largest singular value, or the smallest eigenvalue of the Hermitian part, in it
    frequency : rad/s, where that stands   element : the batch index of the system
    """

    low: float
    high: float
    worst: float
    frequency: float
    element: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Passivity:
    """What :func:`passivity` found. Not made by users.

    kind : "scattering" or "immittance"   passive : ``(*batch,)`` boolean   violations : the bands where it is not, ascending
    worst : ``(*batch,)`` over all frequencies, the largest singular value, or the smallest eigenvalue of the Hermitian part
    frequency : ``(*batch,)`` rad/s, where that stands (may be infinite)
    """

    kind: str
    passive: Array
    worst: Array
    frequency: Array
    violations: tuple[Violation, ...]


def passivity(system: System | Result, kind: str = "scattering", *, tol: float = 1e-9) -> Passivity:
    """Whether each system is passive, where it is not, and by how much. Not differentiable.

    system : a StateSpace (of a MIMO fit, ``fit.system``, or the fit itself), a bank of scalars in any form
    kind : "scattering" (singular values at most 1) or "immittance" (impedances and admittances: Hermitian part nonnegative)
    tol : what rounding may add: singular values up to ``1 + tol``, eigenvalues down to ``-tol`` times the largest gain

    An unstable system is not passive; its violation is infinite, at the frequency of its outermost pole. Elements with NaN are
    not passive either. ``worst`` is certified by level sets to a relative 1e-9, as an H-infinity norm is.

    Raises TypeError for what is not a system, ValueError for samples, an unknown kind, or an immittance that is not square.

    >>> import ssmid
    >>> found = passivity(ssmid.tf([0.12], [1, 0.1, 1], dt=0))
    >>> bool(found.passive), round(float(found.worst), 4), round(float(found.frequency), 4)
    (False, 1.2015, 0.9975)
    """
    states, tol = as_states(system), checked_tolerance(tol, zero=True)
    if kind not in KINDS:
        raise ValueError(f"kind: expected 'scattering' or 'immittance', got {kind!r}")
    if kind == "immittance" and states.outputs != states.inputs:
        raise ValueError(f"expected as many outputs as inputs of an immittance, got {states.outputs} and {states.inputs}")
    if states.is_complex:
        raise ValueError("expected a real system, got a complex one")
    batch = states.batch_shape
    step = sample_time(states) if states.is_discrete else 0.0
    full = [to_numpy(double(M)) for M in states.broadcast_arrays().values()]
    flat = [M.reshape(prod(batch), *M.shape[len(batch) :]) for M in full]
    found = in_threads(lambda *matrices: element_passivity(matrices, kind, step, tol), *flat)
    passive, worst, frequency = (np.array([f[i] for f in found], dtype).reshape(batch) for i, dtype in enumerate((bool, float, float)))
    indices = list(np.ndindex(*batch))
    bands = tuple(dataclasses.replace(band, element=indices[i]) for i, f in enumerate(found) for band in f[3])
    passive, worst, frequency = (from_numpy(np.asarray(a), states.A) for a in (passive, worst, frequency))
    return Passivity(kind, passive, worst, frequency, bands)


def as_states(system: System | Result) -> StateSpace:
    """The state space of a system or of a fit; TypeError and ValueError for what has none."""
    if isinstance(system, Result):
        system = system.system
    if not isinstance(system, System):
        raise TypeError(f"expected a System or a fit, got {type(system).__name__}")
    if isinstance(system, FrequencyResponse):
        raise ValueError("a FrequencyResponse says nothing between its points: fit a model to it first (ssmid.vector_fitting)")
    return system if isinstance(system, StateSpace) else to_state_space(system)


def element_passivity(G: Matrices, kind: str, step: float, tol: float) -> tuple[bool, float, float, list[Violation]]:
    """Of one system: passive, worst, its frequency, bands. ``step`` is the sample time, 0 in continuous time."""
    if not all(np.isfinite(M).all() for M in G):
        return False, np.nan, np.nan, []
    used = used_states(G)
    poles = np.linalg.eigvals(G[0][np.ix_(used, used)]) if used.any() else np.zeros(0, complex)
    outer = np.abs(poles) - 1 if step else np.real(poles)
    if (outer >= 0).any():
        pole = poles[np.argmax(outer)]
        at = abs(np.angle(pole)) / step if step else abs(pole.imag)
        infinite = np.inf if kind == "scattering" else -np.inf
        return False, infinite, float(at), [Violation(float(at), float(at), infinite, float(at))]
    G, unit, _ = normalized(G, used, bool(step))
    measure = Measure(G, kind, bool(step))
    excess, at = measure.worst(resonances(poles / unit, bool(step)))
    size = 1.0 if kind == "scattering" else max(abs(excess), np.abs(measure.values(np.append(np.abs(np.imag(poles)) / unit, 0.0))).max())
    limit = 1 + tol if kind == "scattering" else tol * size
    bands = [] if excess <= limit else measure.bands(limit, resonances(poles / unit, bool(step)))
    sign, scale = 1.0 if kind == "scattering" else -1.0, 1 / step if step else unit
    violations = [Violation(low * scale, high * scale, sign * most, where * scale) for low, high, most, where in bands]
    return excess <= limit, sign * excess, float(at * scale), violations


def used_states(G: Matrices) -> Host:
    """Boolean ``(n,)``: zero states fill up the smaller elements of a batch, and are not poles."""
    A, B, C, _ = G
    return A.any(axis=0) | A.any(axis=1) | B.any(axis=1) | C.any(axis=0)


def normalized(G: Matrices, used: Host, discrete: bool) -> tuple[Matrices, float, float]:
    """The used states in time units of the fastest pole, with B and C of one size; the unit (rad/s), and what C is a multiple by."""
    A, B, C, D = G
    A, B, C = A[np.ix_(used, used)], B[used], C[:, used]
    unit = 1.0 if discrete or not len(A) else float(np.abs(np.linalg.eigvals(A)).max()) or 1.0
    b, c = (float(np.linalg.norm(M)) or 1.0 for M in (B, C))
    size = np.sqrt(b / unit) * np.sqrt(c)
    return (A / unit, B / b * size, C / c * size, D), unit, float(c / size)


def resonances(poles: Host, discrete: bool) -> Host:
    """Frequencies near which responses peak: those of the poles, and zero."""
    omega = np.abs(np.angle(poles)) if discrete else np.concatenate([np.abs(poles.imag), np.abs(poles)])
    return np.unique(np.append(omega, [0.0, np.pi] if discrete else [0.0]))


@dataclasses.dataclass(frozen=True)
class Measure:
    """What must stay small at every frequency: the largest singular value, or minus the smallest eigenvalue of the Hermitian part."""

    G: Matrices
    kind: str
    discrete: bool

    def values(self, omega: Host) -> Host:
        """The response ``(k, p, m)``; at infinity the feedthrough."""
        A, B, C, D = self.G
        finite = np.isfinite(omega)
        points = np.exp(1j * omega[finite]) if self.discrete else 1j * omega[finite]
        out = np.broadcast_to(D + 0j, (len(omega), *D.shape)).copy()
        if finite.any() and len(A):
            response = np.asarray(evaluate(StateSpace(A, B, C, D, dt=1 if self.discrete else 0), points + 0j))
            out[finite] = np.moveaxis(response.reshape(*D.shape, -1), -1, 0)
        return out

    def __call__(self, omega: Host) -> Host:
        values = self.values(omega)
        if self.kind == "scattering":
            return np.linalg.norm(values, 2, axis=(-2, -1))
        return -np.linalg.eigvalsh((values + np.swapaxes(values, -1, -2).conj()) / 2)[:, 0]

    def worst(self, start: Host) -> tuple[float, float]:
        """The largest value over all frequencies and where it stands, by level sets (Bruinsma & Steinbuch 1990)."""
        omega = start if self.discrete else np.append(start, np.inf)
        values = self(omega)
        best = int(np.argmax(values))
        value, at = float(values[best]), float(omega[best])
        size = np.abs(values).max()
        for _ in range(_ITERATIONS):
            level = value + _RAISE * max(abs(value), size)
            if not size:
                break
            cross = self.crossings(level)
            trial = np.concatenate([cross, (cross[1:] + cross[:-1]) / 2])
            values = self(trial) if len(trial) else np.zeros(0)
            if not len(trial) or values.max() <= value:
                break
            best = int(np.argmax(values))
            value, at = float(values[best]), float(trial[best])
            if value <= level:
                break
        return value, at

    def bands(self, level: float, inner: Host) -> list[tuple[float, float, float, float]]:
        """Low and high end, largest value and its frequency of each band above ``level``."""
        edges = np.unique(np.concatenate([[0.0], self.crossings(level), [np.pi if self.discrete else np.inf]]))
        if not self.discrete:
            edges = edges[np.isfinite(edges)]
        ends = edges[1:] if self.discrete else np.append(edges[1:], np.inf)
        lows, highs = edges[: len(ends)], ends
        middle = np.where(np.isfinite(highs), (lows + np.where(np.isfinite(highs), highs, 0)) / 2, 2 * lows + 1)
        above = self(middle) > level
        joined: list[list[float]] = []
        for low, high, bad in zip(lows, highs, above, strict=True):
            if bad and joined and joined[-1][1] == low:
                joined[-1][1] = high
            elif bad:
                joined.append([low, high])
        return [(low, high, *self._peak(low, high, inner)) for low, high in joined]

    def _peak(self, low: float, high: float, inner: Host) -> tuple[float, float]:
        """The largest value in a band, by samples and a search between the neighbours of the best."""
        ramp = np.linspace(0, 1, _SAMPLES)
        grid = low + (high - low) * ramp if np.isfinite(high) else low + (low + 1) * ramp[:-1] / (1 - ramp[:-1])
        grid = np.unique(np.concatenate([grid, inner[(inner > low) & (inner < high)]]))
        values = self(grid)
        best = int(np.argmax(values))
        left, right = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        value, at = float(values[best]), float(grid[best])
        options = {"xatol": 1e-9 * max(right, 1e-300)}
        search = scipy.optimize.minimize_scalar
        found: Any = search(lambda x: -self(np.array([x]))[0], bounds=(left, right), method="bounded", options=options)
        if -found.fun > value:
            value, at = float(-found.fun), float(found.x)
        if not np.isfinite(high):
            limit = float(self(np.array([np.inf]))[0])
            if limit > value:
                value, at = limit, np.inf
        return value, at

    def crossings(self, level: float) -> Host:
        """Frequencies, ascending, where a singular value (an eigenvalue) stands at ``level``.

        Eigenvalues near the axis or the circle are taken too: a frequency too many costs an evaluation, one too few would cost the proof.
        """
        values = (_scattering_pencil if self.kind == "scattering" else _immittance_pencil)(*self.G, level, self.discrete)
        if self.discrete:
            near = np.abs(np.abs(values) - 1) <= 1e-3
            return np.unique(np.abs(np.angle(values[near])))
        near = np.abs(values.real) <= 1e-3 * np.abs(values.imag) + 1e-7 * np.abs(values).max(initial=0.0)
        return np.unique(np.abs(values[near].imag))


def _scattering_pencil(A: Host, B: Host, C: Host, D: Host, level: float, discrete: bool) -> Host:
    """Eigenvalues of the system ``y = G u / level``, ``u = G* y / level``."""
    n, (p, m) = len(A), D.shape
    B, C, D = B / np.sqrt(level), C / np.sqrt(level), D / level
    inner = np.block([[D, -np.eye(p)], [-np.eye(m), D.T]])
    rows = scipy.linalg.block_diag(C, B.T)
    return _eigenvalues(A, np.hstack([B, np.zeros((n, p))]), np.hstack([np.zeros((n, m)), C.T]), rows, inner, discrete)


def _immittance_pencil(A: Host, B: Host, C: Host, D: Host, level: float, discrete: bool) -> Host:
    """Eigenvalues of the system ``(G + G* + 2 level) u = 0``."""
    return _eigenvalues(A, B, C.T, np.hstack([C, B.T]), D + D.T + 2 * level * np.eye(len(D)), discrete)


def _eigenvalues(A: Host, first: Host, second: Host, rows: Host, inner: Host, discrete: bool) -> Host:
    """Of ``x' = A x + first w``, of the adjoint state ``l`` driven by ``second w``, and of ``0 = rows [x; l] + inner w``.

    Where ``inner`` is well conditioned it is eliminated, which leaves a Hamiltonian matrix or a symplectic pencil; elsewhere the
    extended pencil is solved by QZ, which has infinite eigenvalues besides.
    """
    n, w = len(A), len(inner)
    zero = np.zeros((n, n))
    if np.linalg.cond(inner) < _SINGULAR:
        K = -np.linalg.solve(inner, rows)
        top = np.hstack([A, zero]) + first @ K
        if not discrete:
            return np.linalg.eigvals(np.vstack([top, np.hstack([zero, -A.T]) - second @ K]))
        left = np.vstack([top, np.hstack([zero, np.eye(n)])])
        right = np.vstack([np.hstack([np.eye(n), zero]), np.hstack([zero, A.T]) + second @ K])
    else:
        corner = np.zeros((w, w))
        if discrete:
            left = np.block([[A, zero, first], [zero, np.eye(n), np.zeros((n, w))], [rows, inner]])
            right = np.block([[np.eye(n), zero, np.zeros((n, w))], [zero, A.T, second], [np.zeros((w, 2 * n)), corner]])
        else:
            left = np.block([[A, zero, first], [zero, -A.T, -second], [rows, inner]])
            right = scipy.linalg.block_diag(np.eye(2 * n), corner)
    alpha, beta = np.asarray(scipy.linalg.eigvals(left, right, homogeneous_eigvals=True))
    finite = np.abs(beta) > 1e-12 * np.abs(alpha)
    return alpha[finite] / beta[finite]
