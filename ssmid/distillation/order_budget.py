"""A number of states shared out over a whole bank, where they help most.

What is made small is the sum of the squared relative errors of all filters. Each curve of squared error against order is replaced by
its lower convex hull, and the steepest pieces of all hulls are taken in turn while they fit (Everett, Operations Research 11, 1963;
Shoham & Gersho, IEEE Trans. ASSP 36, 1988, share out bits in the same way). No allocation of the same size has a smaller sum, but for
the states that the last piece would have needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

import numpy as np

from ssmid.distillation.bank import NOT_FINITE, Bank
from ssmid.distillation.curves import error_curves
from ssmid.distillation.methods import Method
from ssmid.distillation.options import Options, whole_number
from ssmid.distillation.orders import fit_by_order, held
from ssmid.distillation.relative_error import filter_norms, relative_errors
from ssmid.distillation.subspace import Subspace, leading_subspace

_ROUNDING = 1e-13
"""Relative errors below this are rounding: no state is spent on them."""
_ROWS = 16384
_KEPT_BYTES = 2**30


def allocate(curves: np.ndarray, budget: int, *, multiple: int = 1, least: int = 0) -> np.ndarray:
    """``(n,)`` orders whose sum is at most ``budget`` and whose sum of ``curves[i, order]**2`` is as small as can be.

    curves : ``(n, K + 1)`` relative errors of the orders 0 to K. A row of NaN is a filter that gets no states. Curves multiplied by the
        norms of their filters make it the sum of absolute errors
    multiple : of which all orders are   least : of each filter whose curve begins above 0, rounded up to a multiple

    States that would only remove rounding are not spent. Of equal gains the earlier filter has the first.
    Raises ValueError where ``budget`` does not reach for ``least`` states each.

    >>> allocate(np.array([[1.0, 0.5, 0.4], [1.0, 0.9, 0.0]]), 3)
    array([1, 2])
    """
    budget, multiple = whole_number("budget", budget, 0), whole_number("multiple", multiple, 1)
    curves = np.asarray(curves, dtype=float)
    K = curves.shape[1] - 1
    first = -(-whole_number("least", least, 0) // multiple)
    orders = multiple * np.arange(max(first, K // multiple) + 1)
    squares = np.nan_to_num(curves[:, np.minimum(orders, K)], nan=0.0, posinf=1e100) ** 2
    start = np.where(squares[:, 0] > _ROUNDING**2, first, 0)
    left = budget - int(orders[start].sum())
    if left < 0:
        each = f"{orders[first]} for each of {np.sum(start > 0)} filters"
        raise ValueError(f"budget: expected at least {budget - left}, {each}, got {budget}")
    rows, ends, rates, sizes = _pieces(squares, orders, start)
    turn = np.lexsort((ends, rows, -rates))
    fits = np.cumsum(sizes[turn]) <= left
    taken = turn[: int(fits.argmin()) if not fits.all() else len(fits)]
    place = start.copy()
    np.maximum.at(place, rows[taken], ends[taken])
    return orders[_filled(squares, orders, place, left - int(sizes[taken].sum()))]


def _pieces(squares: np.ndarray, orders: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of the lower convex hulls from ``start`` on: row, where it ends, what a state gains, and how many states it takes."""
    found = []
    for i in range(0, len(squares), _ROWS):
        rows = np.arange(i, min(i + _ROWS, len(squares)))
        here = start[rows]
        while len(rows):
            rate, end = _steepest(squares[rows], orders, here, orders[-1])
            on = rate > 0
            rows, here, rate, end = rows[on], here[on], rate[on], end[on]
            found.append((rows, end, rate, orders[end] - orders[here]))
            here = end
    empty = (np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0, int))
    return tuple(np.concatenate(parts) for parts in zip(empty, *found, strict=True))


def _steepest(squares: np.ndarray, orders: np.ndarray, here: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """``(rate, end)`` of the step from ``here`` of at most ``most`` states that gains most a state, the longest of equal ones."""
    steps = orders - orders[here][:, None]
    now = np.take_along_axis(squares, here[:, None], axis=1)
    allowed = (steps > 0) & (steps <= most) & (now - squares > _ROUNDING**2)
    rates = np.where(allowed, (now - squares) / np.maximum(steps, 1), 0.0)
    end = rates.shape[1] - 1 - rates[:, ::-1].argmax(axis=1)
    return np.take_along_axis(rates, end[:, None], axis=1)[:, 0], end


def _filled(squares: np.ndarray, orders: np.ndarray, place: np.ndarray, left: int) -> np.ndarray:
    """What is left over spent on steps that fit, the steepest first."""
    place, rates, ends, stale = place.copy(), np.zeros(len(place)), np.zeros(len(place), int), np.arange(len(place))
    while left > 0 and len(place):
        for i in range(0, len(stale), _ROWS):
            rows = stale[i : i + _ROWS]
            rates[rows], ends[rows] = _steepest(squares[rows], orders, place[rows], left)
        row = int(rates.argmax())
        if rates[row] <= 0:
            break
        left -= int(orders[ends[row]] - orders[place[row]])
        place[row] = ends[row]
        stale = np.flatnonzero((orders[ends] - orders[place] > left) & (rates > 0))
        stale = np.union1d(stale, [row])
    return place


def orders_within_budget(banks: Callable[[], Iterable[Bank]], subspaces: Subspaces, method: Method, options: Options) -> list[np.ndarray]:
    """The orders of the filters of each bank, ``options.budget`` states in all, shared out over all banks together.

    banks : called again for each pass. The first pass reads the errors of truncations off one subspace of each filter; the second, but for
        balanced truncation, whose errors these are, measures the method's own around the orders that the first would give
    """
    curves, group = [], 1
    for i, bank in enumerate(banks()):
        curves.append(error_curves(bank, subspaces(i, bank)))
        group = bank.group
    orders = shared_out(curves, group, options)
    if method.subspace != "tight":
        curves = [measured_curves(bank, subspaces(i, bank), orders[i], method, options) for i, bank in enumerate(banks())]
        orders = shared_out(curves, group, options)
    return orders


def measured_curves(bank: Bank, subspace: Subspace, guess: np.ndarray, method: Method, options: Options) -> np.ndarray:
    """``(n, K + 1)`` relative l2 errors of the method itself at two orders an octave, up to twice the ``guess`` ``(n,)``.

    Between them, and beyond, the curve is flat, so that no state is spent on what was not measured. On 64 trained filters 8 states
    each, shared out by these curves, bring the sum of squares 12 % below that of a uniform order; by those of truncations 10 %.
    """
    most = options.max_order
    curves = np.full((bank.count, most + 1), np.inf)
    curves[:, 0] = np.where(bank.empty, np.where(bank.kind == NOT_FINITE, np.nan, 0.0), 1.0)
    limit = np.where(held(bank, subspace, most) > 0, np.maximum(2 * guess, 4 * options.multiple), 0)
    limit = np.repeat(limit.reshape(-1, bank.group).max(axis=1), bank.group)
    own = filter_norms(bank, "l2", subspace.sigma)
    for order in sampled_orders(most, options.multiple):
        rows = np.flatnonzero(limit >= order)
        if len(rows) and order < bank.length + options.multiple:
            part, basis = bank.take(rows), subspace.take(rows)
            fitted = fit_by_order(method, part, held(part, basis, order), basis, options)
            curves[rows, order] = relative_errors(part, fitted, "l2", own[rows], beyond=options.beyond)
    return np.minimum.accumulate(curves, axis=1)


def sampled_orders(most: int, multiple: int) -> list[int]:
    """Multiples up to ``most``, two an octave: 1, 2, 3, 4, 6, 8, 12, 16, ... times ``multiple``, and the last."""
    last = most // multiple
    return [multiple * size for size in sorted({min(size, last) for k in range(last.bit_length()) for size in (1 << k, 3 << k)})]


def shared_out(curves: list[np.ndarray], group: int, options: Options) -> list[np.ndarray]:
    """The orders ``(n,)`` of the filters of each bank, from their curves ``(n, K + 1)``, flat beyond their last.

    group : so many filters in a row share poles and have one order: their squared errors add up, and a state of theirs is one of each
    """
    assert options.budget is not None
    most = options.max_order + 1
    whole = np.concatenate([np.pad(c, ((0, 0), (0, most - c.shape[1])), mode="edge") for c in curves])
    together = np.sqrt(np.nansum(whole.reshape(-1, group, most) ** 2, axis=1))
    orders = np.repeat(allocate(together, options.budget // group, multiple=options.multiple), group)
    return np.split(orders, np.cumsum([len(c) for c in curves])[:-1])


class Subspaces:
    """The subspaces of banks by their places, kept while they are few enough: to find one takes longer than all else."""

    def __init__(self, method: Method, options: Options) -> None:
        self.accuracy, self.count = method.subspace or "loose", options.max_order
        self.kept: dict[int, Subspace] = {}
        self.room = _KEPT_BYTES

    def __call__(self, place: int, bank: Bank) -> Subspace:
        if place in self.kept:
            return self.kept[place]
        found = leading_subspace(bank, self.count, self.accuracy)
        size = 8 * sum(prod(a.shape) for a in found.arrays)
        if size <= self.room:
            self.kept[place], self.room = found, self.room - size
        return found
