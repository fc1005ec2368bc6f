"""Rational functions from samples by the Loewner framework: no start, no iteration, the order read off singular values.

Mayo & Antoulas, Linear Algebra Appl. 425, 2007; Antoulas, Lefteriu & Ionita, in Model Reduction and Approximation, SIAM 2017,
ch. 8. The pencil (:mod:`.loewner_pencil`) gives the poles alone: residues and feedthrough are fitted to all samples afterwards,
which is what noise and an order below the true one ask for.
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, astype_width, from_numpy, namespace, to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.identification.arguments import checked_order, checked_orders, checked_stable, refuse_both
from ssmid.identification.loewner_pencil import Pencil, loewner_pencil, pencil_poles, tangents
from ssmid.identification.loewner_states import States, pencil_states
from ssmid.identification.padding import with_states
from ssmid.identification.partial_fractions import RationalFit, as_state_space
from ssmid.identification.result import told_if_unstable
from ssmid.identification.samples import RMS, Samples, samples
from ssmid.identification.stable_poles import are_unstable, held_inside
from ssmid.identification.tangential import Directions, fit_directions
from ssmid.reduction.result import Change
from ssmid.systems import Modal

_MOST = 40
_PATIENCE = 8
_UNEXPLAINED, _LONGER = 0.2, 24
_ROUNDING = 1e-13
_SLACK = 0.05
_CLUSTERED = 1e-3
_INSIDE = 1e-12


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LoewnerFit(RationalFit):
    """A rational function from the Loewner pencil.

    sigma : ``(*batch, k)`` the singular values of ``[L, sL]``   condition : of the least squares of residues and feedthrough
    repeated : ``(*batch,)`` whether poles stand so near to each other that partial fractions do not carry the fit to rounding:
        ``system`` then has the states of the pencil itself, and ``modal`` is the nearest with its poles apart
    """

    repeated: Array


def loewner(
    data: Any,
    values: Any = None,
    order: int | None = None,
    *,
    tol: float | None = None,
    max_order: int | None = None,
    dt: float | bool | None = None,
    mimo: bool = False,
    stable: bool = True,
    real: bool = True,
    partition: Any = "alternate",
    directions: Any = "ports",
) -> LoewnerFit:
    """A rational function near samples of a transfer function, from the Loewner pencil. Not differentiable.

    data, values, dt : points of s, or of z where ``dt`` is not 0, and ``(*batch, k)`` values; or a :class:`FrequencyResponse` alone
    order : real states. None with ``tol``: the smallest order whose error is at most ``tol``. None without: that with the least
        description length (Rissanen 1978, of white noise and 2 parameters a state), which stops at the floor of the noise.
        Both try orders up to ``max_order`` (40).
    mimo : the last two batch axes are outputs and inputs of one system; of each pole one residue matrix of rank one
    partition : of the points into left and right ones: "alternate", "half", or (left, right) indices
    directions : with ``mimo``: "ports" takes every port at every point, "cycle" one port after the other; or real arrays
        ``(left points, p)`` and ``(right points, m)``
    real : the system is real, its values at the conjugate points are known too. False: a complex system
    stable : unstable poles are reflected at the boundary of stability before the residues are fitted, and ``changes`` lists them;
        False leaves them, with a warning

    Many points: 256 real columns at most are made, each of all other points. ``sigma`` are the singular values of ``[L, sL]``, points
    divided by their largest modulus in continuous time. The eigenvalue of the pencil that stands for the feedthrough is left out;
    the pencil without such an eigenvalue is tried as well, and the fit that is nearer is taken. ``condition`` is that of the
    residues' least squares. Elements of a batch that are not finite give NaN. Raises ValueError for an order that the points do not
    tell, and wrong partitions, directions or shapes.

    >>> import numpy as np
    >>> s = 1j * np.linspace(0.1, 3, 20)
    >>> fit = loewner(s, 2 + 1 / (s**2 + 0.2 * s + 1))
    >>> fit.order, float(fit.modal.feedthrough.round(9)), fit.modal.poles.real.round(9)
    (2, 2.0, array([-0.1, -0.1]))
    """
    found = samples(data, values, dt=dt)
    checked_stable(stable)
    batch, ports = found.batch_of_channels(mimo)
    core = (*(ports or (1, 1)), found.count)
    refuse_both(order, tol=tol, max_order=max_order)
    # what order the points can tell depends on their partition
    checked_orders(None, tol, max_order, least=1, most=2 * found.count, of=f"{found.count} points")
    host = to_numpy(found.values)
    flat = host.reshape(prod(batch), *core)
    points = to_numpy(found.points) / found.scale
    eps = 2.0**-52 if found.bits == 64 else 2.0**-23
    task = _Task(found.dt, real, stable, partition, directions if mimo else "ports", order, tol, max_order or _MOST, eps)
    if points.ndim == 1:
        fits = _fit(points, flat, task)
    else:
        p, m, k = core
        each = np.broadcast_to(points, host.shape).reshape(len(flat), p * m, k)
        if not ((each == each[:, :1]) | np.isnan(each)).all():
            raise ValueError("points: expected the same for all channels of one system, got points that differ")
        fits = [_fit(x, v[None], task)[0] for x, v in zip(each[:, 0], flat, strict=True)]
    fit = _assembled(fits, found, data if values is None else found, batch, core, task, mimo)
    return fit if stable else told_if_unstable(fit, "loewner", "stable=True gives stable ones")


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """What a caller wants of every element."""

    dt: float | bool
    real: bool
    stable: bool
    partition: Any
    directions: Any
    order: int | None
    tol: float | None
    most: int
    eps: float

    @property
    def discrete(self) -> bool:
        return self.dt is True or self.dt != 0


@dataclasses.dataclass(frozen=True, eq=False)
class _Element:
    """The fit of one element in the unit of the scaled points and of the values."""

    poles: Host
    residues: Host
    feedthrough: Host
    reflected: Host
    condition: float
    sigma: Host
    states: States | None


def _fit(points: Host, values: Host, task: _Task) -> list[_Element]:
    """The fits of ``values`` ``(batch, p, m, k)`` at common points."""
    sound = np.isfinite(values).all((1, 2, 3)) & np.isfinite(points).all()
    if not np.isfinite(points).all():
        points = np.exp(1j * np.linspace(0.1, 3, len(points)))  # any, for a result that is NaN
    values = np.where(sound[:, None, None, None], values, 0)
    size = np.abs(values).max((1, 2, 3), initial=0)
    size = np.where(size > 0, size, 1.0)
    values = values / size[:, None, None, None]
    if task.real:
        below = points.imag < 0
        points, values = np.where(below, points.conj(), points), np.where(below, values.conj(), values)
    distinct, means = _distinct(points, values) if isinstance(task.partition, str) else (points, values)
    p, m = values.shape[1:3]
    sides = tangents(len(distinct), p, m, task.partition, task.directions)
    most = min(_rows(distinct[sides.left], task.real), _rows(distinct[sides.right], task.real))
    if task.order is not None:
        checked_order("order", task.order, 1, most, f"{len(distinct)} distinct points")
    largest = min(most, task.most) if task.order is None else task.order
    pencil = loewner_pencil(distinct, means, sides, task.real, min(most, largest + min(p, m)))
    if task.order is not None:
        chosen = _at_order(pencil, points, values, task.order, task)
    else:
        chosen = _search(pencil, points, values, largest, task)
    elements = []
    for i, choice in enumerate(chosen):
        fit, row, scale, none = choice.fits, choice.row, size[i] if sound[i] else np.nan, 0.0 if sound[i] else np.nan
        residues = fit.left[row][:, None, :] * np.moveaxis(fit.right[row], -1, -2)[None]
        facts = (fit.reflected[row] + none, float(fit.condition[row]) + none, pencil.sigma[i] * scale, choice.scaled(scale))
        elements.append(_Element(fit.poles[row] + none, residues * scale, fit.feedthrough[row] * scale, *facts))
    return elements


def _distinct(points: Host, values: Host) -> tuple[Host, Host]:
    """Points in the order of their angle or height, those given more than once as one with the mean of their values."""
    order = np.lexsort((points.real, points.imag)) if np.ptp(np.abs(points)) > 1e-9 * np.abs(points).max() else np.argsort(np.angle(points))
    points, values = points[order], values[..., order]
    new = np.concatenate([[True], np.abs(np.diff(points)) > 1e-13 * np.abs(points).max()])
    start = np.flatnonzero(new)
    return points[new], np.add.reduceat(values, start, axis=-1) / np.diff(np.append(start, len(points)))


def _rows(points: Host, real: bool) -> int:
    return int(np.sum(np.where(points.imag == 0, 1, 2))) if real else len(points)


# ---------------------------------------------------------------- one order, and which


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    """Fits of one order of all elements.

    squares : ``(batch,)`` the mean square of the error   rounding : ``(batch,)`` what the modes round off where they cancel
    """

    poles: Host
    left: Host
    right: Host
    feedthrough: Host
    reflected: Host
    condition: Host
    squares: Host
    rounding: Host


@dataclasses.dataclass(frozen=True, eq=False)
class _Choice:
    """One element's fit: a row of the fits of its order, or states where these are nearer. squares : the mean square of its error"""

    fits: _Candidate
    row: int
    squares: float
    states: States | None = None

    def scaled(self, scale: float) -> States | None:
        if self.states is None:
            return None
        return dataclasses.replace(self.states, B=self.states.B * scale, D=self.states.D * scale)


def _at_order(pencil: Pencil, points: Host, values: Host, order: int, task: _Task) -> list[_Choice]:
    """For every element the nearest fit of all that leave out infinite eigenvalues, or none."""
    ports = min(values.shape[1:3])
    left_out = range(2) if ports == 1 else (0, 1, ports)
    tries = [_candidate(pencil, points, values, order, k, task) for k in left_out]
    squares = np.stack([t.squares for t in tries])
    squares = np.where(np.isfinite(squares), squares, np.inf)
    choices = []
    for i, k in enumerate(np.argmin(squares, axis=0)):
        best = _Choice(tries[k], i, float(squares[k, i]))
        clustered = (_gap(t.poles[i], task.discrete) < _CLUSTERED and not np.isfinite(t.reflected[i]).any() for t in tries)
        lost = best.squares + tries[k].rounding[i]
        cancelling = tries[k].rounding[i] > max(best.squares, (100 * task.eps) ** 2)
        if lost > _ROUNDING**2 / 100 and (any(clustered) or cancelling):
            for q in left_out:
                states = pencil_states(pencil, i, order, q, points, values[i], task.real)
                if states is not None and states.squares < lost / 4 and (not task.stable or _stable(states.A, task.discrete)):
                    best, lost = _Choice(tries[k], i, states.squares, states), states.squares
        choices.append(best)
    return choices


def _gap(poles: Host, discrete: bool) -> float:
    """The least distance between two poles, relative to their size or, in discrete time, to the circle."""
    size = np.maximum(np.abs(poles), 1.0 if discrete else 1e-300)
    distance = np.abs(poles[:, None] - poles) / np.maximum(size[:, None], size)
    return float(np.min(distance + 2 * np.eye(len(poles)), initial=2.0))


def _stable(A: Host, discrete: bool) -> bool:
    eigenvalues = np.linalg.eigvals(A)
    return bool((np.abs(eigenvalues) < 1).all() if discrete else (eigenvalues.real < 0).all())


def _candidate(pencil: Pencil, points: Host, values: Host, order: int, infinite: int, task: _Task) -> _Candidate:
    shift = 2.0 if task.discrete else 1.0
    poles, left = pencil_poles(pencil, order, infinite, shift)
    bad = ~np.isfinite(poles).all(-1)
    # stand-ins for what there is no pencil of, whose results are NaN
    poles = np.where(bad[:, None], -2.0 - np.arange(order), poles)
    left = np.where(bad[:, None, None], 1.0, left) if values.shape[1] > 1 else np.ones_like(left)
    unstable = are_unstable(poles, task.dt) & task.stable
    mirrored = np.where(unstable, held_inside(poles, task.dt, _INSIDE), poles)
    moved = np.where(unstable & ~bad[:, None], poles, np.nan)
    with np.errstate(all="ignore"):
        table = 1 / (points[None, :, None] - mirrored[:, None, :])
        stuck = ~np.isfinite(table).all((-2, -1))
        table = np.where(stuck[:, None, None], 1.0, table)
        fit: Directions = fit_directions(table, mirrored, values, left, real=task.real, feedthrough=True)
        squares = np.mean(np.abs(fit.fitted - values) ** 2, axis=(1, 2, 3))
    squares = np.where(bad | stuck, np.nan, squares)
    modes = np.abs(np.moveaxis(fit.right, 1, -1))[:, None] * np.abs(fit.left)[:, :, None]
    rounding = task.eps**2 * np.mean((modes @ np.abs(table).swapaxes(-1, -2)[:, None]) ** 2, axis=(1, 2, 3))
    return _Candidate(mirrored, fit.left, fit.right, fit.feedthrough, moved, fit.condition, squares, rounding)


def _search(pencil: Pencil, points: Host, values: Host, largest: int, task: _Task) -> list[_Choice]:
    """For every element the first order that meets the tolerance, or the one with the shortest description.

    The pencil's poles are not the best ones, and a few more can make up for that: the smallest order counts whose error is within
    ``_SLACK`` of the shortest description's. Orders are tried until no element has gained for a while, a longer one where most of the
    data is unexplained: a delay shows nothing of itself before all of its poles are there.
    """
    batch, p, m, k = values.shape
    data = (2 if task.real else 1) * p * m * k
    tried, squares, scores = [], np.zeros((0, batch)), np.zeros((0, batch))
    for n in range(largest + 1):
        tried.append(_at_order(pencil, points, values, n, task))
        new = np.maximum([choice.squares for choice in tried[-1]], _ROUNDING**2)
        squares = np.concatenate([squares, new[None]])
        scores = np.concatenate([scores, data * np.log(new[None]) + (p + m) * n * np.log(data)])
        patience = np.where(squares.min(0) > _UNEXPLAINED**2, _LONGER, _PATIENCE)
        met = (np.sqrt(squares) <= task.tol).any(0) if task.tol is not None else n - np.argmin(scores, axis=0) >= patience
        if met.all():
            break
    if task.tol is not None:
        met = np.sqrt(squares) <= task.tol
        chosen = np.where(met.any(0), np.argmax(met, axis=0), np.argmin(squares, axis=0))
    else:
        shortest = np.take_along_axis(squares, np.argmin(scores, axis=0)[None], axis=0)
        chosen = np.argmax(squares <= (1 + _SLACK) ** 2 * shortest, axis=0)
    return [tried[n][i] for i, n in enumerate(chosen)]


# ---------------------------------------------------------------- results


def _assembled(
    fits: list[_Element], found: Samples, data: Any, batch: tuple[int, ...], core: tuple[int, ...], task: _Task, mimo: bool
) -> LoewnerFit:
    like = found.values
    n = max((len(e.poles) for e in fits), default=0)
    p, m, _ = core
    poles = np.full((len(fits), n), 0j if task.discrete else -1 + 0j)
    residues: Host = np.zeros((len(fits), p, m, n), complex)
    feedthrough: Host = np.zeros((len(fits), p, m), complex)
    sigma = np.full((len(fits), max((len(e.sigma) for e in fits), default=0)), np.nan)
    changes = []
    for i, e in enumerate(fits):
        d = len(e.poles)
        poles[i, :d], residues[i, ..., :d], feedthrough[i], sigma[i, : len(e.sigma)] = e.poles, e.residues, e.feedthrough, e.sigma
        moved = tuple(complex(z) * found.scale for z in e.reflected if np.isfinite(z))
        if moved:
            element = tuple(int(j) for j in np.unravel_index(i, batch)) if batch else ()
            changes.append(Change("reflected", moved, "unstable", element))
    poles, residues = poles * found.scale, residues * found.scale
    if task.real:
        feedthrough = feedthrough.real
    shape = (*batch, p, m) if mimo else batch
    arrays = (poles.reshape(*batch, *((1, 1) if mimo else ()), n), residues.reshape(*shape, n), feedthrough.reshape(shape))
    modal = Modal(*(from_numpy(np.asarray(a), like) for a in arrays), dt=found.dt, real=task.real)
    repeated, matrices = _given_states(fits, batch, n, (p, m), found.scale, task)
    repeated = from_numpy(repeated, like)
    system = with_states(as_state_space(modal, mimo=mimo), repeated, *(from_numpy(M, like) for M in matrices))
    error = found.error(modal, coupled=mimo)
    if len(matrices[0]) and bool(np.any(to_numpy(repeated))):
        error = namespace(error).where(repeated, found.error(system, coupled=mimo), error)
    orders = np.asarray([len(e.poles) for e in fits]).reshape(batch)
    sound = np.asarray([np.isfinite(e.feedthrough).all() for e in fits], bool).reshape(batch)
    bits = found.bits
    return LoewnerFit(
        system=system.map(lambda a: astype_width(a, bits)),
        modal=modal.map(lambda a: astype_width(a, bits)),
        method="Loewner",
        order=int(orders.flat[0]) if orders.size and (orders == orders.flat[0]).all() else from_numpy(orders, like),
        converged=from_numpy(sound, like),
        condition=astype_width(from_numpy(np.asarray([e.condition for e in fits]).reshape(batch), like), bits),
        changes=tuple(changes),
        data=data,
        error=astype_width(error, bits),
        error_kind=RMS,
        sigma=astype_width(from_numpy(sigma.reshape(*batch, sigma.shape[-1]), like), bits),
        repeated=repeated,
    )


def _given_states(
    fits: list[_Element], batch: tuple[int, ...], n: int, ports: tuple[int, int], scale: float, task: _Task
) -> tuple[Host, list[Host]]:
    """Which elements have states of their own, and ``A, B, C, D`` of the batch, zero for the others; states that fill up decay."""
    p, m = ports
    kind = float if task.real else complex
    A, B = np.zeros((len(fits), n, n), kind) - (0.0 if task.discrete else scale) * np.eye(n), np.zeros((len(fits), n, m), kind)
    C, D = np.zeros((len(fits), p, n), kind), np.zeros((len(fits), p, m), kind)
    for i, e in enumerate(fits):
        if e.states is not None:
            d = len(e.states.A)
            A[i, :d, :d], B[i, :d], C[i, :, :d], D[i] = e.states.A * scale, e.states.B * scale, e.states.C, e.states.D
    own = np.asarray([e.states is not None for e in fits], bool).reshape(batch)
    return own, [M.reshape(*batch, *M.shape[1:]) for M in (A, B, C, D)]
