"""From the poles of an AAA approximant to those that the data ask for: spurious ones dropped, the others moved to a minimum.

Froissart doublets and poles that follow noise are told by what they are worth: how much the squared error rises without them, beside
the penalty of the Bayesian information criterion (Schwarz, Ann. Statist. 6, 1978). Elements of a batch with equal numbers of poles
are taken together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from math import comb, log

import numpy as np

from ssmid._array import Array, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.barycentric_form import denominator_zeros
from ssmid.analysis.polynomial import Host
from ssmid.identification.aaa_greedy import greedy
from ssmid.identification.aaa_lawson import lawson
from ssmid.identification.conjugate_pairs import neighbours
from ssmid.identification.pole_refinement import Problem, project, refine, worth
from ssmid.identification.pole_relocation import Bank, relocated, slots
from ssmid.identification.stable_poles import are_unstable, held_inside
from ssmid.linalg import singular_values
from ssmid.reduction.result import Change

_PENALTY = 1.5
"""Of one parameter, in units of Schwarz's: poles are placed where noise is largest, which is worth more than a fixed column."""

_SOON, _RELOCATIONS, _ESCAPES = 3, 6, 3
_DIFFERENCES, _ROUGH, _SMOOTH = 7, 1.05, 40.0
_CANCELLING = 1e6
_HOPELESS = 100.0
"""A pole whose loss multiplies the squared error by as much is not tried without."""

SPURIOUS = "worth less than the noise"
SURPLUS = "least worth, to meet the order"
UNSTABLE = "unstable"


@dataclasses.dataclass(frozen=True, eq=False)
class Cleanup:
    """problem : all elements   floor : squared error below which nothing is told apart   order : asked for, or None
    largest : order allowed   stable : "", "reflect" or "drop" """

    problem: Problem
    floor: float
    order: int | None
    largest: int
    stable: str

    @quiet
    def run(self, poles: list[Host]) -> tuple[list[Host], Host, tuple[Change, ...]]:
        """The poles of each element, whether their refinement settled, and what was done."""
        changes: list[Change] = []
        poles = [self._usable(p, i) for i, p in enumerate(poles)]
        if self.stable:
            poles = [self._stabilized(p, i, changes) for i, p in enumerate(poles)]
        poles = self._pruned(poles, changes)
        poles, score, settled = self._refined(poles)
        if self.order is None:
            poles, score, settled = self._fewer(poles, score, settled, changes)
        poles, settled = self._escaped(poles, score, settled)
        return poles, settled, tuple(changes)

    @quiet
    def leveled(self, poles: list[Host]) -> tuple[list[Host], list[Array | None], Host]:
        """Poles and weights of the points for the smallest largest error, and which elements came near to it."""
        poles, weights, level = list(poles), [None] * len(poles), np.zeros(len(poles), bool)
        for index, problem, P in self._groups(poles, np.arange(len(poles))):
            P, w, done = lawson(problem, P, stable=bool(self.stable))
            level[index] = to_numpy(done)
            for at, (i, p) in enumerate(zip(index, to_numpy(P), strict=True)):
                poles[i], weights[i] = p, w[at]
        return poles, weights, level

    def _usable(self, poles: Host, element: int) -> Host:
        """Without infinite poles and those on a sample, whose fractions have no values."""
        points = to_numpy(self.problem.points)[element]
        poles = poles[np.isfinite(poles)]
        on = (poles[:, None] == points).any(-1) | ((poles.conj()[:, None] == points).any(-1) & self.problem.real)
        return poles[~on]

    def _stabilized(self, poles: Host, element: int, changes: list[Change]) -> Host:
        unstable = are_unstable(poles, self.problem.dt)
        if not unstable.any():
            return poles
        action = "reflected" if self.stable == "reflect" else "dropped"
        changes.append(Change(action, tuple(poles[unstable].tolist()), UNSTABLE, (element,)))
        return held_inside(poles, self.problem.dt) if self.stable == "reflect" else poles[~unstable]

    # ------------------------------------------------------------ fewer poles

    def _groups(self, poles: list[Host], which: Host) -> Iterator[tuple[Host, Problem, Array]]:
        """Elements with equal numbers of poles: their indices, problem and poles."""
        counts = np.array([len(poles[i]) for i in which], int)
        for d in np.unique(counts):
            index = which[counts == d]
            whole = len(index) == self.problem.values.shape[0]
            problem = self.problem if whole else self.problem.take(from_numpy(index, self.problem.values))
            yield index, problem, from_numpy(np.stack([poles[i] for i in index]), self.problem.values)

    def _parameters(self, d: int) -> int:
        return d + self.problem.values.shape[1] * (d + 1)

    def _penalty(self, d: int, fewer: int) -> float:
        """What ``fewer`` poles save."""
        return _PENALTY * (self._parameters(d) - self._parameters(d - fewer)) * log(self.problem.equations)

    def _score(self, cost: Host, d: int) -> Host:
        return self.problem.equations * np.log(np.maximum(cost, self.floor)) + _PENALTY * self._parameters(d) * log(self.problem.equations)

    def _weakest(self, problem: Problem, poles: Array, allowance: Host | None) -> tuple[Host, Host, Host, Host]:
        """Of each element the position of the pole worth least, how many poles it stands for, its worth, and the cost with all."""
        fit = project(problem, poles)
        value, at = to_numpy(worth(fit, poles, real=self.problem.real)), to_numpy(poles)
        size = np.where((np.imag(at) > 0) & self.problem.real, 2, 1)
        value = np.where(np.isfinite(value), np.maximum(value, 0), np.where((np.imag(at) < 0) & self.problem.real, np.inf, 0))
        if allowance is not None:
            single = (size == 1) & (value < np.inf)
            value = np.where((size > allowance[:, None]) & single.any(-1, keepdims=True), np.inf, value)
        j = np.argmin(value, axis=-1)
        rows = np.arange(len(j))
        return j, size[rows, j], value[rows, j], to_numpy(fit.cost)

    def _pruned(self, poles: list[Host], changes: list[Change]) -> list[Host]:
        """Poles dropped one by one, the others staying where they are, while that is for the better, and down to the order."""
        poles, limit = list(poles), self.largest if self.order is None else self.order
        gone: dict[int, list[complex]] = {}
        surplus: dict[int, list[complex]] = {}
        active = np.array([i for i, p in enumerate(poles) if len(p) > (0 if self.order is None else self.order)], int)
        while len(active):
            left = []
            for index, problem, P in self._groups(poles, active):
                d = P.shape[-1]
                over = np.full(len(index), d - limit)
                j, size, value, cost = self._weakest(problem, P, over if d > limit else None)
                gain = self.problem.equations * np.log(np.maximum(cost + value, self.floor) / np.maximum(cost, self.floor))
                gain = np.where(np.isnan(gain), 0, gain)
                needless = gain < np.array([self._penalty(d, int(s)) for s in size]) if self.order is None else value <= self.floor * 1e-4
                for i, at, s, drop in zip(index, j, size, needless, strict=True):
                    if drop or d > limit:
                        (gone if drop else surplus).setdefault(int(i), []).extend(poles[i][at : at + s].tolist())
                        poles[i] = np.delete(poles[i], slice(at, at + s))
                        if len(poles[i]) > (0 if self.order is None else self.order):
                            left.append(int(i))
            active = np.array(sorted(left), int)
        for found, why in ((gone, SPURIOUS), (surplus, SURPLUS)):
            changes.extend(Change("dropped", tuple(p), why, (i,)) for i, p in sorted(found.items()))
        return poles

    def _refined(self, poles: list[Host], which: Host | None = None) -> tuple[list[Host], Host, Host]:
        """Poles at a minimum of the misfit; score and whether the iteration settled, for each element (those in ``which``)."""
        which = np.arange(len(poles)) if which is None else which
        poles, score, settled = list(poles), np.full(len(poles), np.inf), np.zeros(len(poles), bool)
        for index, problem, P in self._groups(poles, which):
            P, cost, done = self._best(problem, P)
            for i, p in zip(index, to_numpy(P), strict=True):
                poles[i] = p
            score[index], settled[index] = self._score(to_numpy(cost), P.shape[-1]), to_numpy(done)
        return poles, score, settled

    def _best(self, problem: Problem, poles: Array) -> tuple[Array, Array, Array]:
        """:func:`refine`, where it does not settle soon also from the poles that vector fitting makes of the given ones."""
        xp, stable, enough = namespace(poles), bool(self.stable), 0.5 * self.floor
        found, cost, done = refine(problem, poles, stable=stable, steps=_SOON, floor=enough)
        if bool(xp.all(done)):
            return found, cost, done
        hosts = [to_numpy(a).copy() for a in (found, cost, done)]

        def again(rest: Host, move: Callable[[Problem, Array], Array]) -> None:
            index = from_numpy(rest, poles)
            part = problem.take(index)
            other = refine(part, move(part, from_numpy(hosts[0][rest], poles)), stable=stable, floor=enough)
            better = to_numpy(other[1]) <= hosts[1][rest]
            for host, new in zip(hosts, other, strict=True):
                host[rest[better]] = to_numpy(new)[better]

        rest, start = np.flatnonzero(~hosts[2]), to_numpy(poles)
        again(rest, lambda part, _: self._relocated(part, from_numpy(start[rest], poles)))
        rest = np.flatnonzero(~hosts[2])
        if len(rest):
            again(rest, lambda _, where: where)
        return tuple(from_numpy(a, poles) for a in hosts)  # pyright: ignore[reportReturnType]

    def _relocated(self, problem: Problem, poles: Array) -> Array:
        """Poles after some steps of vector fitting, for which it is all the same whether pairs are real or conjugate."""
        if not problem.real or poles.shape[-1] == 0:
            return poles
        xp, x, F = namespace(poles), problem.points, problem.values
        x, F = (xp.stack([xp.real(a), xp.imag(a)], axis=-2) for a in (x, F))
        bank = Bank(x, F, problem.weights, problem.dt, stable=bool(self.stable))
        start = slots(to_numpy(poles))
        found = relocated(bank, held_inside(start, bank.dt) if bank.stable else start, _RELOCATIONS).poles
        sound = np.isfinite(found).all(axis=-1, keepdims=True)
        return from_numpy(neighbours(np.where(sound, found, start)), poles)

    def _fewer(self, poles: list[Host], score: Host, settled: Host, changes: list[Change]) -> tuple[list[Host], Host, Host]:
        """Without poles that a refined fit does without."""
        active = np.array([i for i, p in enumerate(poles) if len(p)], int)
        while len(active):
            trial = list(poles)
            taken: dict[int, Host] = {}
            for index, problem, P in self._groups(poles, active):
                j, size, value, cost = self._weakest(problem, P, None)
                hope = value < _HOPELESS * np.maximum(cost, self.floor)
                for i, at, s in zip(index[hope], j[hope], size[hope], strict=True):
                    taken[int(i)] = poles[i][at : at + s]
                    trial[i] = np.delete(poles[i], slice(at, at + s))
            active = np.array(sorted(taken), int)
            trial, new, done = self._refined(trial, active)
            left = []
            for i in active:
                if new[i] < score[i]:
                    changes.append(Change("dropped", tuple(taken[i].tolist()), SPURIOUS, (int(i),)))
                    poles[i], score[i], settled[i] = trial[i], new[i], done[i]
                    left += [i] if len(poles[i]) else []
            active = np.array(left, int)
        return poles, score, settled

    # ------------------------------------------------------------ other minima

    def _escaped(self, poles: list[Host], score: Host, settled: Host) -> tuple[list[Host], Host]:
        """Where the residual stands above the noise: a minimum reached with poles of the residual added and the weakest dropped again,
        if that one is deeper."""
        poles, score, settled, waiting = list(poles), score.copy(), settled.copy(), np.arange(len(poles))
        for _ in range(_ESCAPES):
            trial, which = list(poles), []
            for index, problem, P in self._groups(poles, waiting):
                residual, condition = self._residual(problem, P)
                # more poles do not help a sum that cancels, as that of repeated poles does
                told_apart = (np.sum(np.abs(residual) ** 2, axis=(1, 2)) > self.floor) & (condition < _CANCELLING)
                for at in np.flatnonzero(told_apart & _above_noise(problem, residual)):
                    one = problem.take(from_numpy(np.array([at]), P))
                    one = dataclasses.replace(one, values=from_numpy(residual[at : at + 1], P))
                    i = int(index[at])
                    added = self._usable(_poles_of_interpolant(one), i)
                    trial[i] = np.concatenate([poles[i], held_inside(added, problem.dt) if self.stable else added])
                    which.append(i)
            if not which:
                break
            some = dataclasses.replace(self, problem=self.problem.take(from_numpy(np.array(which), self.problem.values)))
            found, new, done = some._refined([trial[i] for i in which])  # before any goes, so that the new ones find their places
            found, new, done = some._refined(some._pruned(found, []))
            if self.order is None:
                found, new, done = some._fewer(found, new, done, [])
            better = np.flatnonzero(new < score[which] - 1)
            for at in better:
                poles[which[at]], score[which[at]], settled[which[at]] = found[at], new[at], done[at]
            waiting = np.array(which)[better]
        return poles, settled

    def _residual(self, problem: Problem, poles: Array) -> tuple[Host, Host]:
        """``(b, c, k)`` complex, weighted, and the condition ``(b,)`` of the fit."""
        fit, k = project(problem, poles), problem.values.shape[-1]
        residual = np.swapaxes(to_numpy(fit.residual), -1, -2)
        sigma = to_numpy(singular_values(fit.R))
        return residual[..., :k] + 1j * residual[..., k:] if problem.real else residual, sigma[..., 0] / sigma[..., -1]


def _above_noise(problem: Problem, residual: Host) -> Host:
    """Whether residuals are larger than noise, whose size high differences along the points tell, but not so much larger that they
    must be what the order cannot fit."""
    residual = np.take_along_axis(residual, problem.along[:, None, :], axis=-1)
    if residual.shape[-1] <= 2 * _DIFFERENCES:
        return np.zeros(len(residual), bool)
    rough = np.abs(np.diff(residual, _DIFFERENCES, axis=-1)) ** 2 / comb(2 * _DIFFERENCES, _DIFFERENCES)
    rough = np.sqrt(np.mean(rough, axis=(1, 2)))
    size = np.sqrt(np.mean(np.abs(residual) ** 2, axis=(1, 2)))
    return (size > _ROUGH * rough) & (size < _SMOOTH * rough)


def _poles_of_interpolant(problem: Problem) -> Host:
    """The poles of a small interpolant of one element."""
    steps = greedy(problem, 2, lambda active, _: np.zeros(len(active), bool))
    z = np.take_along_axis(to_numpy(problem.points), steps.support, axis=-1)
    return denominator_zeros(z, steps.nodes(np.array([0]), steps.count, real=problem.real), real=problem.real)[0]
