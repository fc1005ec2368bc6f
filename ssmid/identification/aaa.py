"""The AAA algorithm for linear systems: rational functions of sampled transfer functions, real, of the right order, nothing spurious.

Greedy barycentric interpolation (aaa_greedy.py), then the poles that the data ask for, moved to a minimum of the squared error
(aaa_cleanup.py, pole_refinement.py), then residues by least squares. With ``minimax`` Lawson's weights at the end (aaa_lawson.py).
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ssmid._array import Array, astype_width, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.barycentric_form import denominator_zeros
from ssmid.analysis.polynomial import Host
from ssmid.identification.aaa_cleanup import Cleanup
from ssmid.identification.aaa_greedy import Steps, greedy, joined
from ssmid.identification.aaa_scaling import Task
from ssmid.identification.arguments import checked_orders, checked_stable
from ssmid.identification.orthonormal_bank import refitted
from ssmid.identification.partial_fractions import RationalFit, as_state_space, closed
from ssmid.identification.pole_refinement import Problem, project, refine
from ssmid.identification.result import told_if_unstable
from ssmid.identification.samples import RMS, Samples, samples
from ssmid.reduction.result import Change
from ssmid.systems import Barycentric

_TOL = 1e-13
_PATIENCE = 2
_MOST = 100
_WHITE = 4.0
"""Standard deviations of the autocorrelation of white noise."""
_LOUD = 10.0
"""How far, in units of the mean power and beyond its logarithm of the number of samples, the loudest sample of noise may be."""
_FAR = 1e3
_PIECE = 2**14
"""Samples of a piece of a batch: its dozens of arrays stay in the cache."""

Found: TypeAlias = tuple[Steps, Host, list[Host], Host, tuple[Change, ...], list[Array | None]]
"""The greedy steps and how many each element takes; poles, whether they settled, what was done to them, weights of the points."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AAAFit(RationalFit):
    """A rational fit and the barycentric interpolant that its poles were taken from.

    barycentric : interpolates the samples at its support points; of channels that share poles, values ``(*batch, *channels, n)`` over
        support and weights with ones for the axes of channels. Not cleaned, and not made stable: ``system`` is
    history : ``(steps, *batch)`` rms error of each interpolant on the way, of the largest value; NaN after the last of an element
    condition : of the least-squares problem of the residues
    """

    barycentric: Barycentric
    history: Array


def aaa(
    data: Any,
    values: Any = None,
    order: int | None = None,
    *,
    tol: float | None = None,
    max_order: int | None = None,
    dt: float | bool | None = None,
    weights: Any = None,
    mimo: bool = False,
    shared: int = 0,
    stable: bool | str = False,
    real: bool = True,
    minimax: bool = False,
) -> AAAFit:
    """A rational function for each set of samples of a transfer function. Not differentiable.

    data, values, dt : ``(points, values)`` of s (of z where ``dt`` is not 0), or a FrequencyResponse alone; values ``(*batch, k)``
    order : the number of poles. Left out, it is the smallest that brings the rms error to ``tol`` (1e-13) of the largest value, or, where
        the data have noise, the one beyond which poles follow the noise (residuals are white, and the Bayesian information criterion
        does not pay for more), at most ``max_order`` (100, or what the points can tell). Data of a smaller order than asked for
        get that one.
    weights : ``(k,)`` or ``(*batch, k)`` positive, of the errors
    real : of real systems. Samples on one side of the real axis are enough; those below it are taken as the conjugates that they are.
    mimo : the last two batch axes are outputs and inputs of one system. ``order`` is the number of its poles, ``fit.order`` that of
        its states: each pole has as many as its residue matrix has rank.
    shared : the last ``shared`` batch axes are scalar systems with one set of poles
    stable : False leaves poles where they are best, and warns of unstable ones; "reflect" (or True) mirrors unstable poles at the
        boundary of stability, "drop" leaves them out; the others then move to a minimum within stability, and residues are fitted again
    minimax : the largest error is minimized, not the sum of squares

    AAA is that of Nakatsukasa, Sete & Trefethen (SIAM J. Sci. Comput. 40, 2018), set-valued (Lietaert et al., IMA J. Numer. Anal. 42,
    2022) and real; its interpolant stays in ``fit.barycentric``. The fit itself has the poles after cleaning and refinement
    (aaa_cleanup.py); ``fit.changes`` lists what was dropped or mirrored, and why. ``error`` is the rms error over the points, of the
    largest value. The result does not depend on the units of time and of the values.

    Raises ValueError for an order that the points cannot determine, points that channels of one system do not share, weights that
    are not positive, an unknown ``stable``.

    >>> s = 1j * np.linspace(0.1, 10, 50)
    >>> fit = aaa(s, (s + 3) / (s**2 + 0.2 * s + 4))
    >>> fit.modal.poles.round(9), bool(fit.error < 1e-12)
    (array([-0.1+1.99749844j, -0.1-1.99749844j]), True)
    """
    given = samples(data, values, dt=dt)
    checked_stable(stable, "reflect", "drop")
    task = Task.of(given, weights, mimo, shared, real)
    most = given.distinct - 1 if real else (given.distinct - 1) // 2
    checked_orders(order, tol, max_order, least=0, most=most, of=f"{given.distinct} points")
    limit = order if order is not None else min(most, _MOST) if max_order is None else max_order
    kept = stable if isinstance(stable, str) else "reflect" if stable else ""
    steps, taken, poles, settled, changes, lawson_weights = _in_pieces(task.problem, tol or _TOL, order, limit, kept, minimax)
    modal, condition = task.fitted(poles, lawson_weights)
    error = to_numpy(Samples(task.problem.points[:, None, :], task.problem.values, given.dt).error(modal)).copy()
    condition = to_numpy(condition).copy()
    orders = np.array([len(p) for p in poles], int)
    refit = refitted(
        modal, error, condition, lambda i: task.element(i, lawson_weights[i]), feedthrough=True, stable=bool(stable), fewer=order is None
    )
    refit.put(error, condition, settled, orders)
    restored = task.restored(refit.modal)
    system = refit.into(as_state_space(restored, mimo=mimo), task.batch, task.channels, task.scale, to_numpy(task.size), mimo=mimo)
    fit = AAAFit(
        system=system.map(lambda a: astype_width(a, given.bits)),
        method="AAA-Lawson" if minimax else "AAA",
        order=task.order(system, orders),
        converged=task.spread(settled & task.sound),
        condition=task.spread(condition),
        changes=tuple(task.stated(c) for c in changes),
        data=data if values is None else given,
        error=task.errors(error),
        error_kind=RMS,
        modal=restored.map(lambda a: astype_width(a, given.bits)),
        barycentric=_barycentric(task, steps, taken, given.bits),
        history=from_numpy(steps.rms.reshape(steps.count, *task.batch), given.values),
    )
    return fit if stable else told_if_unstable(fit, "aaa", "stable=True gives stable ones")


def _in_pieces(problem: Problem, tol: float, order: int | None, limit: int, stable: str, minimax: bool) -> Found:
    """:func:`_found` of pieces of the batch that stay in the cache; on a GPU of all at once."""
    b, c, k = problem.values.shape
    size = max(1, _PIECE // (c * k))
    if b <= size or not isinstance(problem.values, np.ndarray):
        return _found(problem, tol, order, limit, stable, minimax)
    rows = [np.arange(i, min(i + size, b)) for i in range(0, b, size)]
    parts = [_found(problem.take(index), tol, order, limit, stable, minimax) for index in rows]
    changes = tuple(
        dataclasses.replace(x, element=(x.element[0] + int(index[0]),)) for index, p in zip(rows, parts, strict=True) for x in p[4]
    )
    steps, taken, poles, settled, _, weights = zip(*parts, strict=True)
    poles, weights = ([x for part in parts for x in part] for parts in (poles, weights))
    return joined(list(steps)), np.concatenate(taken), poles, np.concatenate(settled), changes, weights


def _found(problem: Problem, tol: float, order: int | None, limit: int, stable: str, minimax: bool) -> Found:
    steps, taken = _interpolated(problem, tol, order, limit)
    cleanup = Cleanup(problem, prod(problem.values.shape[1:]) * max(tol, 1e-15) ** 2, order, limit, stable)
    poles, settled, changes = cleanup.run(_poles(problem, steps, taken))
    weights: list[Array | None] = [None] * len(poles)
    if minimax:
        poles, weights, settled = cleanup.leveled(poles)
    return steps, taken, poles, settled, changes, weights


# ---------------------------------------------------------------- the interpolant


def _interpolated(problem: Problem, tol: float, order: int | None, limit: int) -> tuple[Steps, Host]:
    """The greedy steps, and how many of them each element takes."""
    kind = dataclasses.replace(problem, real=problem.paired)
    count = problem.values.shape[-1]
    most = min(limit // 2 + 1, max(1, count // 2)) if kind.real else min(limit + 1, max(1, count // 2))

    def stop(active: Host, steps: Steps) -> Host:
        rms = steps.rms[:, active]
        done = rms[-1] <= tol
        if order is None:
            waited = len(rms) - 1 - _first_good(rms)
            asked = np.flatnonzero(~done & (waited >= _PATIENCE) & (waited % _PATIENCE == 0))
            if len(asked):
                done[asked] = _are_noise(kind, steps, active[asked])
        return done

    steps = greedy(kind, most, stop)
    last = np.where(np.isfinite(steps.rms), np.arange(steps.count)[:, None], 0).max(axis=0)
    if order is not None:
        return steps, last + 1
    reached = np.take_along_axis(steps.rms, last[None], axis=0)[0] <= tol
    return steps, np.where(reached, last, np.minimum(last, _first_good(steps.rms) + 2)) + 1


def _first_good(rms: Host) -> Host:
    """Of each element the first step within twice the smallest error."""
    known = np.where(np.isfinite(rms), rms, np.inf)
    return np.argmax(known <= 2 * known.min(axis=0), axis=0)


@quiet
def _are_noise(problem: Problem, steps: Steps, elements: Host) -> Host:
    """Whether what the poles found so far leave of the samples, after least squares, is white along the points, and Gaussian."""
    some = problem.take(from_numpy(elements, problem.values))
    poles = _poles_of(some.real, to_numpy(some.points), steps, elements, steps.count)
    poles = from_numpy(np.where(np.isfinite(poles), poles, -_FAR), some.values)
    found = _white(some, project(some, poles).residual)
    rest = np.flatnonzero(~found)
    if len(rest):
        index = from_numpy(rest, some.values)
        some, poles = some.take(index), namespace(poles).take(poles, index, axis=0)
        found[rest] = _white(some, project(some, refine(some, poles, steps=3)[0]).residual)
    return found


def _white(problem: Problem, residual: Array) -> Host:
    """Which residuals ``(b, rows, c)`` have no correlation along the points, and none that is far louder than the others."""
    residual, k = to_numpy(residual), problem.values.shape[-1]
    if problem.real:
        residual = residual[:, :k] + 1j * residual[:, k:]
    residual = np.take_along_axis(residual, problem.along[..., None], axis=1)
    size = residual[0].size
    power = np.sum(np.abs(residual) ** 2, axis=(1, 2))
    # a sharp resonance between two points looks like one loud sample, which noise does not have
    even = np.max(np.abs(residual) ** 2, axis=(1, 2)) <= (np.log(size) + _LOUD) * power / size
    lags = [np.abs(np.sum(residual[:, lag:] * residual[:, : k - lag].conj(), axis=(1, 2))) for lag in range(1, min(4, k))]
    return ~(power > 0) | (even & (np.max(lags, axis=0) <= _WHITE / np.sqrt(size) * power))


def _poles(problem: Problem, steps: Steps, taken: Host) -> list[Host]:
    """The poles of each element's interpolant, conjugates as neighbours, the upper one first."""
    real = problem.paired
    found: list[Host] = [np.zeros(0, complex)] * len(taken)
    points = to_numpy(problem.points)
    for n in np.unique(taken):
        rows = np.flatnonzero(taken == n)
        poles = _poles_of(real, points[rows], steps, rows, int(n))
        for i, p in zip(rows, poles, strict=True):
            p = p[np.isfinite(p)]
            found[i] = closed(p) if problem.real and not real else p
    return found


def _poles_of(real: bool, points: Host, steps: Steps, rows: Host, n: int) -> Host:
    z, w = np.take_along_axis(points, steps.support[rows, :n], axis=-1), steps.nodes(rows, n, real=real)
    return denominator_zeros(z, w, real=real)


def _barycentric(task: Task, steps: Steps, taken: Host, bits: int) -> Barycentric:
    """The interpolants in the units of the samples; where elements have fewer support points than others, some of weight zero stand in."""
    points, values = to_numpy(task.problem.points), to_numpy(task.problem.values)
    real = task.problem.paired
    most = int(taken.max(initial=1))
    support = np.where(np.arange(most) < taken[:, None], steps.support[:, :most], steps.support[:, :1])
    weights = np.zeros(support.shape, complex)
    for n in np.unique(taken):
        rows = np.flatnonzero(taken == n)
        weights[rows, :n] = steps.nodes(rows, int(n), real=real)
    f = np.take_along_axis(values, support[:, None, :], axis=-1) * to_numpy(task.size)[..., None]
    z = np.take_along_axis(points, support, axis=-1) * task.scale
    weights[~task.sound] = np.nan
    ones = (1,) * len(task.channels)
    arrays = (z.reshape(*task.batch, *ones, most), f.reshape(*task.batch, *task.channels, most), weights.reshape(*task.batch, *ones, most))
    like = task.problem.values
    return Barycentric(*(astype_width(from_numpy(a, like), bits) for a in arrays), dt=task.problem.dt, real=task.problem.real)
