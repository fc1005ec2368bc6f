"""The smallest order of every filter whose error, as measured, meets a tolerance.

Orders are doubled until the tolerance is met and bisected from there, filter by filter but fitted many at once. What is known beforehand
spares fits: no error is below the Hankel value that follows (in any norm but l2), and none of an l2 optimum above that of the
truncation it is sought from. The orders tried do not depend on the tolerance, only which of them are fitted does: so a larger
tolerance never gives a larger order, also where the error of a method goes up in between.
"""

from __future__ import annotations

import numpy as np

from ssmid._array import from_numpy, namespace, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.curves import error_curves
from ssmid.distillation.fitted import Fitted, taken_fits
from ssmid.distillation.methods import Method
from ssmid.distillation.options import Options
from ssmid.distillation.orders import Found, fit_by_order, held, joined_fits, no_states, widened
from ssmid.distillation.relative_error import filter_norms, relative_errors
from ssmid.distillation.subspace import leading_subspace

_FIRST_SIZE = 16
"""States of the first subspace; where it does not do, four times as many."""
_HOPELESS = 4.0
"""No fit is tried where the truncation's l2 error is so many times the tolerance. On 64 trained filters and the orders up to 32 it
is at most 1.51 times that of the fit."""
_CLOSE = 1e-6
"""A truncation that meets the tolerance by less than this is fitted to see."""


def fit_to_tolerance(bank: Bank, method: Method, options: Options) -> Found:
    """Each filter at the smallest order, of the multiples up to ``max_order``, whose error by ``options.norm`` is at most ``options.tol``.

    An order that meets the tolerance while the one below it does not: where the error falls with the order that is the smallest. Where
    none is found, the best of the last few orders that doubling came to. Filters that share poles have one order, for the worst of them.
    """
    multiple, group = options.multiple, bank.group
    most, reach = max(1, options.max_order // multiple), max(1, _FIRST_SIZE // multiple)
    places, low, parts = np.arange(bank.count // group), 0, []
    while True:
        reach = min(reach, most)
        search = _Search(_groups(bank, places), method, options, low, reach)
        search.double()
        search.bisect()
        done = search.high > 0
        if reach == most:
            search.settle()
            done = np.ones(len(places), bool)
        parts.append((places[done], search.result(np.flatnonzero(done))))
        if done.all():
            return _joined(parts, group)
        places, low, reach = places[~done], reach, 4 * reach


class _Search:
    """Groups of filters that share poles, most often of one, at orders ``multiple * index`` with ``low < index <= reach``.

    low, high : ``(groups,)`` the largest index known to miss the tolerance and the smallest known to meet it, 0 for none
    """

    def __init__(self, bank: Bank, method: Method, options: Options, low: int, reach: int) -> None:
        self.bank, self.method, self.options, self.first, self.reach = bank, method, options, low, reach
        self.subspace = leading_subspace(bank, reach * options.multiple, method.subspace or "loose")
        count = bank.count // bank.group
        self.own = filter_norms(bank, options.norm, self.subspace.sigma)
        self.hopeless, self.certain = self._foreseen()
        self.low, self.high = np.full(count, low), np.zeros(count, int)
        self.error = np.full((count, reach + 1), np.nan)
        self.error[:, 0] = np.where(self._by_group(bank.empty).all(-1), 0.0, 1.0)
        self.place, self.fits, self.size = np.full((count, reach + 1), -1), [], 0
        # without any state the error is the filter itself
        self.without = self.error[:, 0] <= options.tol
        self.high[self.without] = reach

    def double(self) -> None:
        """Up to the first doubled index that meets the tolerance."""
        for index in _doubled(self.first, self.reach):
            rows = np.flatnonzero(self.high == 0)
            self._try(rows, np.full(len(rows), index))

    def bisect(self) -> None:
        """Between the last that missed and the first that met."""
        while True:
            rows = np.flatnonzero((self.high - self.low > 1) & ~self.without)
            if len(rows) == 0:
                return
            self._try(rows, (self.low[rows] + self.high[rows]) // 2)

    def settle(self) -> None:
        """Where no index meets the tolerance, the best of the last three that were doubled to."""
        rows = np.flatnonzero(self.high == 0)
        last = _doubled(self.first, self.reach)[:-4:-1]
        for index in last:
            new = rows[np.isnan(self.error[rows, index])]
            self._measure(new, np.full(len(new), index))
        if len(rows):
            last = np.array(last[::-1])
            self.high[rows] = last[np.argmin(self.error[rows[:, None], last], axis=1)]

    def result(self, rows: np.ndarray) -> Found:
        """What was found for some groups, of which all have an order."""
        index = np.where(self.without, 0, self.high)
        unknown = rows[(self.place[rows, index[rows]] < 0) & (index[rows] > 0)]
        self._measure(unknown, index[unknown])
        fitted = self._chosen(rows, index[rows])
        sigma = self.subspace.take(self._members(rows)).sigma
        met = self.error[rows, index[rows]] <= self.options.tol
        return Found(fitted, sigma, np.repeat(met, self.bank.group))

    def _try(self, rows: np.ndarray, index: np.ndarray) -> None:
        """Whether the groups ``rows`` meet the tolerance at ``index``; fitted where nobody knows."""
        met = self.certain[rows, index]
        open_ = ~met & ~self.hopeless[rows, index]
        self._measure(rows[open_], index[open_])
        met[open_] = self.error[rows[open_], index[open_]] <= self.options.tol
        self.high[rows[met]], self.low[rows[~met]] = index[met], index[~met]

    def _measure(self, rows: np.ndarray, index: np.ndarray) -> None:
        if len(rows) == 0:
            return
        members = self._members(rows)
        part, own = self.bank.take(members), self.subspace.take(members)
        orders = held(part, own, np.repeat(index, self.bank.group) * self.options.multiple)
        fitted = fit_by_order(self.method, part, orders, own, self.options)
        errors = relative_errors(part, fitted, self.options.norm, self.own[members], beyond=self.options.beyond)
        self.error[rows, index] = self._by_group(errors).max(-1)
        self.place[rows, index] = self.size + np.arange(len(rows))
        self.fits.append(fitted)
        self.size += len(rows)

    def _foreseen(self) -> tuple[np.ndarray, np.ndarray]:
        """``(groups, reach + 1)``: where fits cannot meet the tolerance or have no hope to, and where they meet it for certain."""
        options, tol = self.options, self.options.tol or 0.0
        orders = options.multiple * np.arange(self.reach + 1)
        if options.norm == "l2":
            curves = error_curves(self.bank, self.subspace)
            curves = curves[:, np.minimum(orders, curves.shape[1] - 1)]
            hopeless = curves > _HOPELESS * tol
            curves[:, : self.first + 1] = np.inf
            certain = np.minimum.accumulate(curves, axis=1) <= (1 - _CLOSE) * tol
            certain &= _never_above_truncation(options, self.bank)
        else:
            sigma = to_numpy(self.subspace.sigma)
            following = np.where(orders < sigma.shape[1], sigma[:, np.minimum(orders, sigma.shape[1] - 1)], 0.0)
            hopeless, certain = following > tol * self.own[:, None], np.zeros((self.bank.count, self.reach + 1), bool)
        if options.beyond == "free" or options.weighted:
            hopeless = np.zeros_like(hopeless)
        return np.any(self._by_group(hopeless), axis=1), np.all(self._by_group(certain), axis=1)

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, self.bank.group, *values.shape[1:])

    def _members(self, rows: np.ndarray) -> np.ndarray:
        return (self.bank.group * rows[:, None] + np.arange(self.bank.group)).reshape(-1)

    def _chosen(self, rows: np.ndarray, index: np.ndarray) -> Fitted:
        """The fits of ``rows`` at ``index``, which were all measured but for those without states."""
        group = self.bank.group
        whole = joined_fits([*self.fits, no_states(self.bank.take(np.arange(group)))])
        at = np.where(index > 0, self.place[rows, index], self.size)
        return taken_fits(whole, (group * at[:, None] + np.arange(group)).reshape(-1))


def _never_above_truncation(options: Options, bank: Bank) -> bool:
    """Whether a fit has at most the l2 error of the truncation at its order: what descends from it, and the truncation itself."""
    plain = not (options.constrained or options.weighted or bank.group > 1) and options.beyond == "zero"
    return plain and options.method in ("l2", "balanced")


def _doubled(first: int, reach: int) -> list[int]:
    """Indices that doubling comes to."""
    found, index = [], max(1, 2 * first)
    while index < reach:
        found.append(index)
        index *= 2
    return [*found, reach]


def _groups(bank: Bank, places: np.ndarray) -> Bank:
    return bank.take((bank.group * places[:, None] + np.arange(bank.group)).reshape(-1))


def _joined(parts: list[tuple[np.ndarray, Found]], group: int) -> Found:
    """One result in the order of the bank."""
    places = np.concatenate([p for p, _ in parts])
    back = (group * np.argsort(places)[:, None] + np.arange(group)).reshape(-1)
    sigma = widened([found.sigma for _, found in parts], known=False)
    xp = namespace(sigma)
    return Found(
        taken_fits(joined_fits([found.fitted for _, found in parts]), back),
        xp.take(sigma, from_numpy(back, sigma), axis=0),
        np.concatenate([found.met for _, found in parts])[back],
    )
