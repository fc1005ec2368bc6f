"""Vector fitting: poles and residues by repeated linear least squares, for single responses, banks and coupled channels.

Gustavsen and Semlyen (IEEE Trans. Power Delivery 14, 1999): with trial poles the data are fitted as a quotient of two sums over them,
and the zeros of its denominator are better poles. The denominator is normalized over all points (relaxed: Gustavsen, IEEE Trans. Power
Delivery 21, 2006), the residues of each channel are eliminated first (fast: Deschrijver, Mrozowski, Dhaene and De Zutter, IEEE Microwave
and Wireless Components Letters 18, 2008), and the arithmetic is real. Discrete time is the same with poles in the unit circle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ssmid._array import (
    Array,
    as_array,
    as_complex,
    astype_width,
    double,
    from_numpy,
    in_threads,
    is_array,
    namespace,
    on_gpu,
    quiet,
    to_numpy,
    width,
)
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.polynomial import Host
from ssmid.identification.aaa_scaling import Task
from ssmid.identification.partial_fractions import RationalFit, as_state_space, fit_residues
from ssmid.identification.pole_count import Poles, Search
from ssmid.identification.pole_relocation import PIECE, Bank, neighbours, slots
from ssmid.identification.samples import RMS, Samples, samples
from ssmid.reduction.result import Change
from ssmid.systems import Modal, StateSpace

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
    poles: Any = None,
    weights: Any = None,
    feedthrough: bool = True,
    relaxed: bool = True,
    stable: bool = True,
    mimo: bool = False,
    shared: int = 0,
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
    if mimo and shared:
        raise ValueError(f"expected mimo=True or shared, got both (shared={shared})")
    if isinstance(iterations, bool) or iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")
    task = Task.of(given, weights, 2 if mimo else shared, True, each=not mimo)
    bank = _bank(task, given.points.ndim == 1, feedthrough, relaxed, stable)
    start = None if poles is None else _checked_poles(poles, task, order)
    order = start.shape[-1] if start is not None else order
    most = _limit(bank, order, tol, max_order)
    found = quiet(Search(bank, iterations, start).run)(order, tol, most)
    modal, condition, error = _partial_fractions(task, bank, found)
    bits = width(data.values if values is None else values) if is_array(values) or values is None else 64
    restored = task.restored(modal)
    system = as_state_space(restored, mimo=mimo)
    xp = namespace(given.values)
    full = task.batch if mimo else (*task.batch, *task.channels)

    def spread(host: Host) -> Array:
        return xp.broadcast_to(from_numpy(host.reshape((*task.batch, *(1,) * (len(full) - len(task.batch)))), given.values), full)

    return RationalFit(
        system=system if bits == 64 else system.map(lambda a: astype_width(a, bits)),
        method="vector fitting",
        order=_states(system, found, full, spread, mimo),
        converged=spread(found.converged & task.sound),
        condition=spread(condition),
        changes=tuple(task.stated(c) for c in _reflections(found, task.sound, bank.is_discrete)) if stable else (),
        data=data if values is None else given,
        error=from_numpy((_coupled(task, error) if mimo else error).reshape(full), given.values),
        error_kind=RMS,
        modal=restored if bits == 64 else restored.map(lambda a: astype_width(a, bits)),
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


def _limit(bank: Bank, order: int | None, tol: float | None, max_order: int | None) -> int:
    """The largest order to try; ValueError for one that the samples cannot determine."""
    if order is not None and tol is not None:
        raise ValueError(f"expected order or tol, got both ({order} and {tol})")
    if tol is not None and not tol > 0:
        raise ValueError(f"tol: expected a positive number, got {tol}")
    channels, k = bank.values.shape[1], bank.values.shape[-1]
    im = to_numpy(bank.points)[:, 1]
    equations = int((2 * k - (np.abs(im) < 1e-14).sum(-1)).min()) if len(im) else 2 * k
    # the residues of each channel, and the denominator of all
    most = min((channels * (equations - bank.feedthrough)) // (channels + 1), equations - bank.feedthrough - 1)
    for name, value in (("order", order), ("max_order", max_order)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
            raise ValueError(f"{name}: expected 1 to {most} for {k} points, got {value}")
    return order if order is not None else min(most, _MOST) if max_order is None else max_order


def _checked_poles(poles: Any, task: Task, order: int | None) -> Host:
    """Initial poles of the caller, scaled, in slots ``(b or 1, n)``."""
    host = to_numpy(as_complex(double(as_array(poles, "poles")))) / task.scale
    if host.ndim == 0 or host.shape[-1] == 0 or (order is not None and host.shape[-1] != order):
        raise ValueError(f"poles: expected {'(order,)' if order is None else f'{order} of them'}, got shape {host.shape}")
    n = host.shape[-1]
    host = np.broadcast_to(host, (*task.batch, n)).reshape(-1, n) if host.ndim > 1 else host[None]
    real = np.abs(host.imag) <= 1e-8 * np.abs(host)
    host = np.asarray(np.where(real, host.real, host))
    apart = np.abs(host[:, :, None] - host.conj()[:, None, :]).min(axis=-1)
    unpaired = (np.sum(np.imag(host) > 0, axis=-1) != np.sum(np.imag(host) < 0, axis=-1)).any()
    if not np.isfinite(host).all() or unpaired or (apart > 1e-8 * np.abs(host)).any():
        raise ValueError("poles: expected a set closed under conjugation, as the poles of real systems are")
    return slots(host + 0j)


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


def _reflections(found: Poles, sound: Host, discrete: bool) -> list[Change]:
    """The unstable poles that the data ask for, of each element: those that the step from the result found."""
    changes = []
    for i in np.flatnonzero(sound):
        raw = found.raw[i]
        outside = np.abs(raw) > 1 if discrete else raw.real > 0
        if outside.any():
            was = tuple(complex(p) for p in raw[outside])
            changes.append(Change("reflected", was, "unstable: mirrored at the boundary of stability", (int(i),)))
    return changes


def _states(system: StateSpace, found: Poles, full: tuple[int, ...], spread: Callable[[Host], Array], mimo: bool) -> int | Array:
    """The number of real states of each element."""
    if mimo:
        reached = np.any(to_numpy(system.B) != 0, axis=-1) | np.any(to_numpy(system.C) != 0, axis=-2)
        return int(reached.sum()) if not full else from_numpy(reached.sum(-1), system.A)
    counts = np.array([len(p) for p in found.poles], int)
    return int(counts[0]) if len(counts) and (counts == counts[0]).all() else spread(counts)


def _coupled(task: Task, error: Host) -> Host:
    """One error ``(b,)`` for all channels of each element, from those of the channels, each relative to its own largest value."""
    largest = to_numpy(namespace(task.problem.values).max(namespace(task.problem.values).abs(task.problem.values), axis=-1))
    square = np.mean((error * np.where(largest > 0, largest, 1.0)) ** 2, axis=-1)
    most = largest.max(axis=-1, initial=0.0)
    return np.sqrt(square) / np.where(most > 0, most, 1.0)
