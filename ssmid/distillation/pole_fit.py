"""Fits by Newton's method over poles whatever is asked of them: constraints, shared poles, weights, the taps alone.

Here the pieces meet: the squared error (constraints.py, weighted.py, free.py), those who share poles (shared.py), starts, the search
(pole_search.py), and poles that repel where residues would lose digits.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np

from ssmid._array import Array, as_complex, from_numpy, namespace, quiet, replaced, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.constraints import OverAllTime, constrained_starts, pairs_first, squeezed
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.free import free_problem, ringing_poles
from ssmid.distillation.l2 import fit_l2
from ssmid.distillation.options import Options
from ssmid.distillation.pole_search import Found, Problem, Region, Repelled, search
from ssmid.distillation.shared import Grouped, stacked_poles
from ssmid.distillation.subspace import Subspace
from ssmid.distillation.weighted import largest_resolved, weighted_problem
from ssmid.reduction.h2_request import prepared

_REPULSIONS = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
"""Shares of the squared error that keep poles apart where the modal form would lose digits, until it does not."""
_LOST = 1e-3
"""The relative rise of a squared error by the rounding of residues up to which the modal form carries it."""


class Fittable(Problem, Protocol):
    """A problem that knows the residues of given poles: ``(m, d)``, m a multiple of n where poles are shared."""

    def take(self, chosen: Array) -> Fittable: ...

    def residues(self, poles: Array, live: Array) -> Array: ...

    def joined(self, squares: Array) -> Array:
        """``(n,)`` squared errors of all ``(m,)`` filters in the unit of :attr:`energy`."""
        ...


def region_of(options: Options, bank: Bank) -> Region:
    """Where poles may be: as asked for, and under weights over frequency where their grid resolves what a pole does."""
    radius = 1.0 if options.max_modulus is None else float(options.max_modulus)
    if options.frequency_weights is not None:
        radius = min(radius, largest_resolved(2 * (bank.weights.shape[-1] - 1)))
    return Region(radius, options.real_poles)


def fit_poles(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """Poles and residues of least squared error as the options have it: over all time, under weights, or over the taps alone; poles
    in the region that they allow; shared within the groups of the bank.

    Newton's method from the l2 optimum without any of that; of real poles and of groups from balanced truncation (of groups:
    simultaneous), and over the taps alone also from shift invariance. With ``method="balanced"``, of groups only, residues at its
    poles and no search. ``orders`` ``(m,)``, of groups those that are asked for: the result has fewer where a group carries no more.
    """
    if not orders.any():
        none = as_complex(bank.strict[:, :0])
        return Fitted(none, none, orders, bank.scale > 0, namespace(none).ones_like(bank.scale))
    region, found = region_of(options, bank), None
    own = orders.reshape(-1, bank.group).max(-1, initial=0)
    if bank.group > 1:
        first, own, found = stacked_poles(bank, own, "tight" if options.method == "balanced" else "loose")
        orders = np.where(bank.empty, 0, np.repeat(own, bank.group))
    else:
        assert subspace is not None
        plain = region.real or options.method == "balanced"
        first = subspace.poles(own) if plain else to_numpy(quiet(fit_l2)(bank, own, subspace, options).poles)
    hosts = constrained_starts(pairs_first(first, own), own, bank.length, region)
    free = options.beyond == "free" and not options.weighted
    ringing = ringing_poles(bank, own) if free and not region.real and options.method != "balanced" else None
    if ringing is not None:
        hosts.append(squeezed(ringing, region))
    starts = [prepared(poles, own, bank.strict, real=True) for poles in hosts]
    problem = weighted_problem(bank, options) if options.weighted else free_problem(bank) if free else OverAllTime.of(bank)
    whole = Grouped.of(problem, bank.group) if bank.group > 1 else problem
    if options.method == "balanced":
        options = dataclasses.replace(options, max_iterations=0)
    result = _fitted(bank, whole, starts, orders, options)
    if options.method == "balanced" and found is not None:
        return dataclasses.replace(result, converged=namespace(found).repeat(found, bank.group, axis=0))
    return result


def _fitted(bank: Bank, problem: Fittable, starts: list[tuple[Array, Array]], orders: np.ndarray, options: Options) -> Fitted:
    xp, region = namespace(bank.strict), region_of(options, bank)
    found, residues = _carried(bank, problem, starts, region, options)
    size = int(orders.max(initial=0))
    live = from_numpy(np.arange(found.poles.shape[-1]) < orders[:, None], bank.strict)
    poles = xp.where(live, xp.repeat(found.poles, bank.group, axis=0), xp.zeros_like(residues))
    converged = xp.repeat(found.converged | (problem.energy == 0), bank.group, axis=0)
    return Fitted(poles[:, :size], residues[:, :size], orders, converged, xp.repeat(found.condition, bank.group, axis=0))


@quiet
def _carried(
    bank: Bank, problem: Fittable, starts: list[tuple[Array, Array]], region: Region, options: Options
) -> tuple[Found, Array]:
    """What a search found, with residues; where their rounding spoils it, as where poles met at a circle, found again with repulsion."""
    limits: dict[str, Any] = {"max_iterations": options.max_iterations, "gtol": options.gtol}
    found = _searched(problem, starts, region, limits | {"restarts": options.restarts})
    residues, exact, optimum = problem.residues(found.poles, found.live), found.error, (found.poles, found.live)
    residues, reached = _reached(bank, problem, found, residues)
    bad = np.flatnonzero(to_numpy(_is_lost(bank, problem, reached, exact)))
    xp, copies = namespace(exact), residues.shape[0] // max(1, exact.shape[0])
    for share in _REPULSIONS:
        if len(bad) == 0:
            break
        rows = from_numpy(bad, found.poles)
        part, own = problem.take(rows), [tuple(xp.take(x, rows, axis=0) for x in start) for start in [*starts, optimum]]
        again = _searched(Repelled(part, share * xp.take(exact, rows, axis=0)), own, region, limits)  # pyright: ignore[reportArgumentType]
        again = dataclasses.replace(again, error=part(again.poles, again.live).error)
        new, error = _reached(bank, part, again, part.residues(again.poles, again.live))
        better = to_numpy(~(error >= xp.take(reached, rows, axis=0)))
        values = {f.name: _put(getattr(found, f.name), getattr(again, f.name), bad, better) for f in dataclasses.fields(Found)}
        found, reached = Found(**values), _put(reached, error, bad, better)
        whole = (bad[:, None] * copies + np.arange(copies)).reshape(-1)
        residues = _put(residues, new, whole, np.repeat(better, copies))
        bad = bad[to_numpy(_is_lost(bank, part, error, again.error))]
    return found, residues


def _reached(bank: Bank, problem: Fittable, found: Found, residues: Array) -> tuple[Array, Array]:
    """Residues, and the squared error that rounding lets them reach; where that is more, residues that make the sum of both least."""
    reached = found.error + _loss(bank, problem, found.poles, residues)
    bad = np.flatnonzero(to_numpy(_is_lost(bank, problem, reached, found.error)))
    if len(bad) == 0 or not hasattr(problem, "eased"):
        return residues, reached
    xp, rows = namespace(residues), from_numpy(bad, residues)
    part, poles, live = problem.take(rows), xp.take(found.poles, rows, axis=0), xp.take(found.live, rows, axis=0)
    lasting = xp.clip(1 / (1 - xp.abs(poles) ** 2), max=float(bank.length))
    new, error = part.eased(poles, live, 4 * _rounding(bank) * lasting**0.5)  # pyright: ignore[reportAttributeAccessIssue]
    error = error + _loss(bank, part, poles, new)
    better = to_numpy(error < xp.take(reached, rows, axis=0)) | ~np.isfinite(to_numpy(xp.take(reached, rows, axis=0)))
    return _put(residues, new, bad, better), _put(reached, error, bad, better)


def _searched(problem: Problem, starts: list[tuple[Array, Array]], region: Region, limits: dict[str, Any]) -> Found:
    found = search(problem, starts, region, **limits)
    return dataclasses.replace(found, poles=_within(found.poles, region))


def _put(old: Array, new: Array, places: np.ndarray, better: np.ndarray) -> Array:
    """``new`` in ``places`` of ``old`` where it is better."""
    return replaced(old, places[better], namespace(new).take(new, from_numpy(np.flatnonzero(better), new), axis=0))


def _within(poles: Array, region: Region) -> Array:
    """Poles whose modulus rounding has made larger than the radius moved back; none is left beyond."""
    xp = namespace(poles)
    size = xp.abs(poles)
    factor = xp.where(size > region.radius, region.radius * (1 - 2.0**-51) / xp.where(size > 0, size, xp.ones_like(size)), 1 + 0 * size)
    return poles * xp.astype(factor, poles.dtype)


def _loss(bank: Bank, problem: Fittable, poles: Array, residues: Array) -> Array:
    """``(n,)`` the squared error that rounding all residues makes."""
    xp = namespace(poles)
    poles = xp.repeat(poles, residues.shape[0] // max(1, poles.shape[0]), axis=0)
    lasting = xp.clip(1 / (1 - xp.abs(poles) ** 2), max=float(bank.length))
    return problem.joined(xp.sum((4 * _rounding(bank) * xp.abs(residues)) ** 2 * lasting, axis=-1))


def _is_lost(bank: Bank, problem: Problem, reached: Array, exact: Array) -> Array:
    return ~(reached <= (1 + _LOST) * exact + (2.0**13 * _rounding(bank)) ** 2 * problem.energy)


def _rounding(bank: Bank) -> float:
    return 2.0**-25 if bank.bits == 32 else 2.0**-53
