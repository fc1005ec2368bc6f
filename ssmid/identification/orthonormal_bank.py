"""Which elements of a bank lose digits as partial fractions, and their states in an orthonormal basis instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import prod

import numpy as np

from ssmid._array import from_numpy, in_threads, quiet, to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.analysis.realization import minimal_realization
from ssmid.identification.orthonormal_fit import States, orthonormal_states, poles_apart, with_fewer_poles
from ssmid.identification.padding import with_states
from ssmid.identification.partial_fractions import fit_residues, reflected
from ssmid.identification.samples import Samples
from ssmid.systems import Modal, StateSpace

_ROUNDING, _CANCELLING = 1e-13, 1e3
_LOSS = 1e3 * float(np.finfo(float).eps)
"""Of the terms of a sum that cancel, the error that their rounding, and that of their poles, may be the reason of."""
_SINGULAR = 1e10
_EXACT, _FAR = 1e-12, 1e-8

Problem = tuple[Host, Host, Host]
"""Points ``(k,)``, values ``(c, k)`` and weights ``(c, k)`` of one element, scaled."""


@quiet
def cancelling(modal: Modal, error: Host, condition: Host, *, exact: bool = False) -> Host:
    """Indices of the elements of a scaled bank whose error may be that of terms which cancel.

    modal : poles ``(b, 1, d)``, residues ``(b, c, d)``   error : ``(b, c)`` of the largest value   condition : ``(b,)`` of the residues
    exact : those too whose terms cancel without an error, as poles that are too many may do

    Terms are measured where they are largest, at the boundary of stability beside their pole: of modes apart they are as large as the
    values, of those a small gap apart far larger. Poles that (nearly) coincide have residues that rounding makes up, or none.
    """
    lost = error <= _EXACT if exact else np.zeros(error.shape, bool)
    lost |= ~(error <= _ROUNDING)
    if not np.any(lost):
        return np.zeros(0, int)
    poles, residues = to_numpy(modal.poles), to_numpy(modal.residues)
    edge = np.abs(1 - np.abs(poles)) if modal.is_discrete else np.abs(np.real(poles))
    terms = np.sum(np.abs(residues) / np.where(residues == 0, 1.0, edge), axis=-1)
    explained = ((terms > _CANCELLING) & (error < _LOSS * terms)) | ~(condition < _SINGULAR)[:, None]
    return np.flatnonzero(np.any(lost & explained, axis=-1) & np.isfinite(poles).all(axis=(1, 2)))


@dataclasses.dataclass(frozen=True, eq=False)
class Refit:
    """states : of the elements that are better off with them, by their index   errors : ``(c,)`` of these, each of its largest value
    modal : the bank, with poles apart and residues where elements have fewer poles than they had, or no partial fractions that are near
    """

    states: dict[int, States]
    errors: dict[int, Host]
    modal: Modal

    def put(self, error: Host, condition: Host, converged: Host, orders: Host) -> None:
        """Writes what the elements' states say into ``(b, c)`` errors and ``(b,)`` conditions, convergence and orders."""
        for i, found in self.states.items():
            error[i], condition[i], orders[i] = self.errors[i], found.condition, len(found.poles)
            converged[i] |= bool(np.max(self.errors[i], initial=0.0) <= _EXACT)

    def into(
        self, system: StateSpace, batch: tuple[int, ...], channels: tuple[int, ...], scale: float, size: Host, *, mimo: bool
    ) -> StateSpace:
        """``system``, in the units and the shape of the data, with these states in their elements. size : ``(b, c)`` of the values"""
        if not self.states:
            return system
        b, c = prod(batch), prod(channels)
        own = {i: _restored(s, scale, size[i], channels if mimo else None) for i, s in self.states.items()}
        chosen = np.zeros((b, c), bool)
        chosen[list(own)] = True
        shape = batch if mimo else (*batch, *channels)
        chosen = np.reshape(chosen.any(-1) if mimo else chosen, shape)
        n = max(system.order, max(A.shape[-1] for A, *_ in own.values()))
        # states that fill up decay
        filled = 0.0 if system.is_discrete else -scale
        whole = [np.zeros((*chosen.shape, *core)) for core in ((n, n), (n, system.inputs), (system.outputs, n), system.D.shape[-2:])]
        whole[0] += filled * np.eye(n)
        flat = [M.reshape(b, *((c,) if not mimo else ()), *M.shape[-2:]) for M in whole]
        for i, (A, B, C, D) in own.items():
            d = A.shape[-1]
            flat[0][i, ..., :d, :d], flat[1][i, ..., :d, :], flat[2][i, ..., :d], flat[3][i] = A, B, C, D
        arrays = [from_numpy(M, system.A) for M in whole]
        return with_states(system, from_numpy(chosen, system.A), *arrays)


def refitted(
    modal: Modal, error: Host, condition: Host, problem: Callable[[int], Problem], *, feedthrough: bool, stable: bool, fewer: bool = False
) -> Refit:
    """The elements of a scaled bank that an orthonormal basis halves the misfit of, looked for among those whose terms cancel.

    modal, error, condition : as of :func:`cancelling`   problem : of the element of an index   stable : no unstable poles; where the
    poles at hand are stable there are none either   fewer : the order is free; surplus poles of exact fits go
    """
    indices = cancelling(modal, error, condition, exact=fewer) if modal.real else np.zeros(0, int)
    if not len(indices):
        return Refit({}, {}, modal)
    poles, residues, D = (to_numpy(a).copy() for a in (modal.poles, modal.residues, modal.feedthrough))

    @quiet
    def element(i: int) -> tuple[States, Host] | None:
        points, values, weights = problem(i)
        used = np.any(residues[i] != 0, axis=0)
        if not used.any():
            return None
        own, r = poles[i, 0][used], residues[i][:, used]
        inside = stable or bool(np.all(reflected(own, modal.dt) == own))
        found = orthonormal_states(points, values, weights, own, modal.dt, feedthrough=feedthrough, stable=inside)
        if found is None:
            return None
        less = None
        if fewer and found.misfit <= _EXACT:
            less = with_fewer_poles(points, values, weights, found, modal.dt, feedthrough=feedthrough, stable=inside)
            found = found if less is None else less
        misfit = np.mean((weights * np.abs(_sum(points, own, r, D[i]) - values)) ** 2) ** 0.5
        if less is None and found.misfit >= misfit / 2:  # NaN of partial fractions that do not exist is no match
            return None
        largest = np.max(np.abs(values), axis=-1)
        rms = np.mean(np.abs(found.at(points) - values) ** 2, axis=-1) ** 0.5
        if less is not None or not misfit <= _FAR:
            own = poles_apart(found, points, values, weights, modal.dt)
            new = fit_residues(Samples(points, values, modal.dt), own, weights=weights[0], feedthrough=feedthrough, shared=1)[0]
            poles[i], residues[i], D[i] = (0 if modal.is_discrete else -1), 0, new.feedthrough
            poles[i, 0, : len(own)], residues[i, :, : len(own)] = own, new.residues
        return found, rms / np.where(largest > 0, largest, 1.0)

    results = dict(zip(indices.tolist(), in_threads(element, indices.tolist()), strict=True))
    better = {i: r for i, r in results.items() if r is not None}
    if better:
        if fewer:
            d = 1 + int(np.flatnonzero(np.any(residues != 0, axis=(0, 1)))[-1])
            poles, residues = poles[..., :d], residues[..., :d]
        modal = Modal(*(from_numpy(a, modal.poles) for a in (poles, residues, D)), dt=modal.dt, real=modal.real)
    return Refit({i: r[0] for i, r in better.items()}, {i: r[1] for i, r in better.items()}, modal)


def _sum(points: Host, poles: Host, residues: Host, feedthrough: Host) -> Host:
    """``(c, k)`` values of partial fractions."""
    return residues @ (1 / (points[None, :] - poles[:, None])) + feedthrough[:, None]


def _restored(states: States, scale: float, size: Host, ports: tuple[int, ...] | None) -> tuple[Host, Host, Host, Host]:
    """``A, B, C, D`` in the units of the data, B and C of equal norm: ``(c, ...)``, or with ``ports`` of one system.

    Channels of one system have a copy of the basis for each input, or output if these are fewer, less the states that are not needed.
    """
    A, B, C, D = states.A * scale, states.B, states.C, states.D * size
    if ports is None:
        # sizes under the root one by one: their product may be beyond what numbers hold
        norms = np.linalg.norm(B), np.linalg.norm(C, axis=-1)
        root = np.sqrt(norms[0] / np.where(norms[1] > 0, norms[1], 1.0))
        outer = np.sqrt(scale) * np.sqrt(size)
        left, right = B[None, :] * (outer / root)[:, None], C * (outer * root)[:, None]
        return np.broadcast_to(A, (len(C), *A.shape)), left[..., None], right[:, None, :], D[:, None, None]
    p, m = ports
    C = C.reshape(p, m, -1)
    n = C.shape[-1]
    if m <= p:
        A, B, C = np.kron(np.eye(m), A), np.kron(np.eye(m), B[:, None]), C.reshape(p, m * n)
    else:
        A, B, C = np.kron(np.eye(p), A.T), np.moveaxis(C, 1, 2).reshape(p * n, m), np.kron(np.eye(p), B)
    fewest = minimal_realization(StateSpace(A / scale, B, C, np.zeros((p, m))))
    A, B, C = fewest.A * scale, fewest.B, fewest.C
    norms = np.linalg.norm(B), np.linalg.norm(C)
    root = (norms[0] / norms[1]) ** 0.5 if norms[1] > 0 else 1.0
    outer = np.sqrt(scale) * np.sqrt(size.max())
    return A, B * (outer / root), C * (outer * root), D.reshape(p, m)
