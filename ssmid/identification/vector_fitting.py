"""Vector fitting: poles and residues by repeated linear least squares, for single responses, banks and coupled channels.

Gustavsen and Semlyen (IEEE Trans. Power Delivery 14, 1999): with trial poles the data are fitted as a quotient of two sums over them,
and the zeros of its denominator are better poles. The denominator is normalized over all points (relaxed: Gustavsen, IEEE Trans. Power
Delivery 21, 2006), the residues of each channel are eliminated first (fast: Deschrijver, Mrozowski, Dhaene and De Zutter, IEEE Microwave
and Wireless Components Letters 18, 2008), and the arithmetic is real. Discrete time is the same with poles in the unit circle.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ssmid._array import (
    astype_width,
    from_numpy,
    in_threads,
    namespace,
    on_gpu,
    quiet,
    to_numpy,
)
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.polynomial import Host
from ssmid.identification.aaa_scaling import Task
from ssmid.identification.arguments import checked_count, checked_orders, checked_poles, checked_stable
from ssmid.identification.conjugate_pairs import neighbours
from ssmid.identification.orthonormal_bank import refitted
from ssmid.identification.partial_fractions import RationalFit, as_state_space, fit_residues
from ssmid.identification.pole_count import Poles, Search
from ssmid.identification.pole_relocation import PIECE, Bank, slots
from ssmid.identification.samples import RMS, Samples, samples
from ssmid.identification.stable_poles import are_unstable
from ssmid.reduction.result import Change
from ssmid.systems import Modal

_ITERATIONS = 50
_REFINED = 1e-12
_MOST = 60


def vector_fitting(
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
    stable: bool = True,
    poles: Any = None,
    feedthrough: bool = True,
    relaxed: bool = True,
    iterations: int = _ITERATIONS,
) -> RationalFit:
    """Poles and residues fitted to each set of samples of a transfer function of a real system. Not differentiable.

    data, values, dt : ``(points, values)`` of s (of z where ``dt`` is not 0), or a FrequencyResponse alone; values ``(*batch, k)``
    order : the number of poles. Left out, it is the smallest found that brings the (weighted) rms error to ``tol`` of the largest value,
        or, without ``tol``, the one that the Bayesian information criterion chooses, up to ``max_order`` (60, or what the points tell).
        Each element has its own; where ``tol`` is not reached it is the one with the smallest error, and ``converged`` is False.
    poles : ``(order,)`` or ``(*batch, order)`` to start from, closed under conjugation. Left out: lightly damped pairs at quantiles of
        the frequencies, so that any grid, linear or logarithmic, gets poles where its points are.
    weights : ``(k,)`` or ``(*batch, k)`` positive, of the errors, the same for channels that share poles
    feedthrough : whether the fit has a constant   relaxed : the normalization of 2006, better with noise; False is that of 1999
    stable : unstable poles are mirrored at the boundary of stability; those asked for by the data are named in ``fit.changes``.
        False leaves them (``fit.stable`` tells).
    mimo : the last two batch axes are outputs and inputs of one system. ``order`` is the number of its poles, ``fit.order`` that of
        its states: each pole has as many as its residue matrix has rank.
    shared : the last ``shared`` batch axes are scalar systems with one set of poles
    iterations : at most; an element is done when its residual is rounding, or neither falls nor its poles move

    The iterate with the smallest residual is returned, which may be nearer than the fixed point. ``error`` is the rms error over the
    points, of the largest value. The result does not depend on the units of time and of the values. ``condition`` is that of the
    least-squares problem of the residues.

    Raises ValueError for an order that the points cannot determine, poles that are not closed under conjugation, weights that are not
    positive, points that channels of one system do not share.

    >>> s = 1j * np.linspace(0.1, 10, 50)
    >>> fit = vector_fitting(s, (s + 3) / (s**2 + 0.2 * s + 4), order=2)
    >>> fit.modal.poles.round(9), bool(fit.error < 1e-12)
    (array([-0.1+1.99749844j, -0.1-1.99749844j]), True)
    """
    given = samples(data, values, dt=dt)
    checked_stable(stable)
    checked_count("iterations", iterations)
    task = Task.of(given, weights, mimo, shared, True)
    bank = _bank(task, given.points.ndim == 1, feedthrough, relaxed, stable)
    start = None if poles is None else _start(poles, task, order)
    order = start.shape[-1] if start is not None else order
    most = _largest(bank, given)
    checked_orders(order, tol, max_order, least=1, most=most, of=f"{given.distinct} points")
    most = min(most, _MOST) if max_order is None else max_order
    found = quiet(Search(bank, iterations, start).run)(order, tol, most)
    modal, condition, error = _partial_fractions(task, bank, found)
    orders = np.array([len(p) for p in found.poles], int)
    refit = refitted(modal, error, condition, task.element, feedthrough=feedthrough, stable=stable, fewer=order is None)
    refit.put(error, condition, found.converged, orders)
    restored = task.restored(refit.modal)
    system = refit.into(as_state_space(restored, mimo=mimo), task.batch, task.channels, task.scale, to_numpy(task.size), mimo=mimo)
    return RationalFit(
        system=system if given.bits == 64 else system.map(lambda a: astype_width(a, given.bits)),
        method="vector fitting",
        order=task.order(system, orders),
        converged=task.spread(found.converged & task.sound),
        condition=task.spread(condition),
        changes=tuple(task.stated(c) for c in _reflections(found, task.sound, given.dt)) if stable else (),
        data=data if values is None else given,
        error=task.errors(error),
        error_kind=RMS,
        modal=restored if given.bits == 64 else restored.map(lambda a: astype_width(a, given.bits)),
    )


# ---------------------------------------------------------------- the problem


def _bank(task: Task, one_grid: bool, feedthrough: bool, relaxed: bool, stable: bool) -> Bank:
    """The scaled samples in real numbers."""
    problem = task.problem
    xp = namespace(problem.values)
    points, weights = problem.points, problem.weights
    if one_grid:
        points = points[:1, :]
    points = xp.stack([xp.real(points), xp.imag(points)], axis=-2)
    values = xp.stack([xp.real(problem.values), xp.imag(problem.values)], axis=-2)
    return Bank(points, values, weights, problem.dt, feedthrough, relaxed, stable)


def _largest(bank: Bank, given: Samples) -> int:
    """The largest order that the samples can determine."""
    channels, k = bank.values.shape[1], given.distinct
    im = to_numpy(bank.points)[:, 1]
    equations = int((2 * k - (np.abs(im) < 1e-14).sum(-1)).min()) if len(im) else 2 * k
    # the residues of each channel, and the denominator of all
    return min((channels * (equations - bank.feedthrough)) // (channels + 1), equations - bank.feedthrough - 1)


def _start(poles: Any, task: Task, order: int | None) -> Host:
    """Initial poles of the caller, scaled, in slots ``(b or 1, n)``."""
    host = checked_poles(poles, order, task.batch) / task.scale
    n = host.shape[-1]
    return slots(host[None] if host.ndim == 1 else np.broadcast_to(host, (*task.batch, n)).reshape(prod(task.batch), n))


def _partial_fractions(task: Task, bank: Bank, found: Poles) -> tuple[Modal, Host, Host]:
    """Residues ``(b, c, d)`` by least squares over the poles of each element, scaled; the condition ``(b,)`` and the error ``(b, c)``.

    Where elements have fewer poles than others, poles within stability with residues zero stand in. On the host, large banks go in
    pieces that stay in the cache, in threads.
    """
    problem = task.problem
    b, c, _ = problem.values.shape
    counts = np.array([len(p) for p in found.poles], int)
    d = int(counts.max(initial=0))
    poles = np.full((b, 1, d), 0 if bank.is_discrete else -1, complex)
    residues, D, condition, error = np.zeros((b, c, d), complex), np.zeros((b, c)), np.ones(b), np.zeros((b, c))

    def fitted(rows: Host) -> None:
        own = neighbours(np.stack([found.poles[i] for i in rows]))
        part = problem if len(rows) == b else problem.take(from_numpy(rows, problem.values))
        given = Samples(part.points[:, None, :], part.values, part.dt)
        fit = partial(fit_residues, poles=from_numpy(own, part.values), weights=part.weights, feedthrough=bank.feedthrough, shared=1)
        modal, cond = fit(given)
        rest = evaluate(modal, given.points) - given.values
        size = given.size(rest)
        if bool(namespace(size).any(size < _REFINED)):
            # what rounding left of an exact fit is fitted too
            change = fit(Samples(given.points, rest, given.dt))[0]
            moved = modal.residues - change.residues, modal.feedthrough - change.feedthrough
            better = dataclasses.replace(modal, residues=moved[0], feedthrough=moved[1])
            refined = given.error(better)
            less = (refined < size) & (size < _REFINED)
            pairs = ((better.residues, modal.residues, less[..., None]), (better.feedthrough, modal.feedthrough, less))
            new = [namespace(size).where(which, a, b) for a, b, which in pairs]
            modal, size = dataclasses.replace(modal, residues=new[0], feedthrough=new[1]), namespace(size).where(less, refined, size)
        poles[rows, 0, : own.shape[-1]], residues[rows, :, : own.shape[-1]] = own, to_numpy(modal.residues)
        D[rows], condition[rows], error[rows] = np.real(to_numpy(modal.feedthrough)), to_numpy(cond), to_numpy(size)

    most = b if on_gpu(problem.values) else PIECE
    groups = [np.flatnonzero(counts == n) for n in np.unique(counts)]
    in_threads(quiet(fitted), [rows for group in groups for rows in np.array_split(group, -(-len(group) // max(most, 1)))])
    for a in (poles, residues, D, condition, error):
        a[~task.sound] = np.nan
    return Modal(*(from_numpy(a, problem.values) for a in (poles, residues, D)), dt=problem.dt), condition, error


# ---------------------------------------------------------------- the result


def _reflections(found: Poles, sound: Host, dt: float | bool) -> list[Change]:
    """The unstable poles that the data ask for, of each element: those that the step from the result found."""
    changes = []
    for i in np.flatnonzero(sound):
        raw = found.raw[i]
        outside = are_unstable(raw, dt)
        if outside.any():
            was = tuple(complex(p) for p in raw[outside])
            changes.append(Change("reflected", was, "unstable: mirrored at the boundary of stability", (int(i),)))
    return changes
