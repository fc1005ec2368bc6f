"""How many poles vector fitting takes: as many as asked for, the fewest that reach a tolerance, or as many as the data pay for."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.identification.pole_relocation import Bank, Relocation, initial_poles, relocated
from ssmid.identification.stable_poles import held_inside

_EXACT = 1e-13
"""A misfit that no further pole is asked to lower."""
_PATIENCE = 6
_UNEXPLAINED, _LONGER = 0.5, 24
"""Where the misfit is as large a part of smooth values, so many orders may lower nothing: a delay takes all of its poles at once."""


@dataclasses.dataclass
class Poles:
    """Of each element of a bank: poles in slots, where a step from them led (unreflected), the misfit, whether they came to rest."""

    poles: list[Host]
    raw: list[Host]
    misfit: Host
    converged: Host

    @staticmethod
    def none(count: int) -> Poles:
        empty = np.zeros(0, complex)
        return Poles([empty] * count, [empty] * count, np.full(count, np.inf), np.zeros(count, bool))

    def put(self, index: Host, found: Relocation, which: Host) -> None:
        """Takes over the elements ``index[which]``, which are ``found[which]``."""
        for i in np.flatnonzero(which):
            self.poles[index[i]], self.raw[index[i]] = found.poles[i], found.raw[i]
        self.misfit[index[which]], self.converged[index[which]] = found.misfit[which], found.converged[which]


@dataclasses.dataclass(frozen=True)
class Search:
    """bank : the data   iterations : of each fit   start : initial poles ``(1 or B, n)`` of a caller, or None"""

    bank: Bank
    iterations: int
    start: Host | None = None

    def run(self, order: int | None, tol: float | None, most: int) -> Poles:
        """``order`` poles, or else the fewest that reach ``tol``, or else as many as the criterion says."""
        return self.fixed(order) if order is not None else self.criterion(most) if tol is None else self.tolerance(tol, most)

    def fixed(self, order: int) -> Poles:
        """``order`` poles for each element."""
        everyone = np.arange(self.bank.values.shape[0])
        poles = Poles.none(len(everyone))
        poles.put(everyone, self._at(order, everyone), everyone >= 0)
        return poles

    def tolerance(self, tol: float, most: int) -> Poles:
        """The fewest poles with a misfit of at most ``tol``: orders grow by half until it is met, and are halved in between.

        Where ``most`` poles do not do, those with the smallest misfit stand, not converged.
        """
        B = self.bank.values.shape[0]
        best = Poles.none(B)
        failed, met, order = np.zeros(B, int), np.full(B, most + 1), 0
        while order < most and (met > most).any():
            order = min(most, max(order + 1, order * 3 // 2))
            index = np.flatnonzero(met > most)
            found = self._at(order, index)
            done = found.misfit <= tol
            best.put(index, found, done | (found.misfit < best.misfit[index]))
            met[index[done]], failed[index[~done]] = order, order
        while ((met <= most) & (met - failed > 1)).any():
            between = np.where((met <= most) & (met - failed > 1), (met + failed) // 2, 0)
            for order in np.unique(between[between > 0]):
                index = np.flatnonzero(between == order)
                found = self._at(int(order), index)
                done = found.misfit <= tol
                best.put(index, found, done)
                met[index[done]], failed[index[~done]] = order, order
        best.converged &= best.misfit <= tol
        return best

    def criterion(self, most: int) -> Poles:
        """The order with the least Bayesian information criterion (Schwarz, Ann. Statist. 6, 1978) of real and imaginary parts.

        Orders grow by one until some in a row have not lowered it, or the misfit is rounding.
        """
        B, channels, _, k = self.bank.values.shape
        best, score, waited = Poles.none(B), np.full(B, np.inf), np.zeros(B, int)
        equations, smooth = 2 * channels * k, _are_smooth(self.bank)
        for order in range(1, most + 1):
            patience = np.where((best.misfit > _UNEXPLAINED * self.bank.size) & smooth, _LONGER, _PATIENCE)
            index = np.flatnonzero((waited < patience) & ~(best.misfit <= _EXACT * self.bank.size))
            if not len(index):
                break
            found = self._at(order, index)
            parameters = order + channels * (order + self.bank.feedthrough)
            own = equations * np.log(np.maximum(found.misfit, _EXACT * self.bank.size[index])) + parameters * np.log(equations) / 2
            lower = own < score[index]
            best.put(index, found, lower)
            score[index] = np.where(lower, own, score[index])
            waited[index] = np.where(lower, 0, waited[index] + 1)
        return best

    def _at(self, order: int, index: Host) -> Relocation:
        everyone = len(index) == self.bank.values.shape[0]
        part = self.bank if everyone else self.bank.take(index)
        if self.start is None:
            poles = initial_poles(to_numpy(part.points), order, self.bank.is_discrete)
        else:
            poles = self.start if self.start.shape[0] == 1 else self.start[index]
        poles = np.broadcast_to(poles, (len(index), order))
        return relocated(part, held_inside(poles, self.bank.dt) if self.bank.stable else poles, self.iterations)


def _are_smooth(bank: Bank) -> Host:
    """``(B,)`` whether values at neighbouring points are more alike than those of noise."""
    values = to_numpy(bank.values)
    beside = np.abs(np.sum(values[..., 1:] * values[..., :-1], axis=(1, 2, 3)))
    return beside > 0.5 * np.sum(values**2, axis=(1, 2, 3))
