"""l2 optima under constraints on the poles: no larger than a modulus, real only, or both."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssmid._array import Array, from_numpy, namespace, quiet, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.fitted import Fitted, optimal_residues
from ssmid.distillation.options import Options
from ssmid.distillation.pole_search import Found, Misfit, Region, Repelled, search
from ssmid.distillation.subspace import Subspace
from ssmid.linalg import vandermonde_product
from ssmid.reduction.h2_newton import derivatives
from ssmid.reduction.h2_request import closed, prepared
from ssmid.reduction.h2_sources import TapsSource

_EASED = 0.9
"""Share of the allowed hyperbolic reach that a start's poles keep; larger ones are squeezed into the rest, in their order."""
_REPULSIONS = (1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Shares of the squared error that keep poles apart where the modal form would lose digits, until it does not."""
_LOST = 1e-3
"""The relative rise of a squared error by rounding up to which the modal form carries it."""


def fit_constrained(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """Poles and residues of least squared error over all time among those that the constraints allow.

    Newton's method in the coordinates of the smaller disk, residues eliminated in closed form as without constraints. A pole that
    would be larger ends at the circle, to within what is left to gain there. Real poles start from several spectra; where poles
    would leave the line as a pair they meet, and are kept so far apart that their residues do not lose what they gain.
    """
    assert subspace is not None
    region = region_of(options)
    starts = [prepared(poles, orders, bank.strict, real=True) for poles in constrained_starts(bank, orders, subspace, region)]
    problem = OverAllTime.of(bank.strict)
    limits = {"max_iterations": options.max_iterations, "gtol": options.gtol}
    found = search(problem, starts, region, restarts=options.restarts, **limits)
    found, residues = carried(bank, problem, starts, region, found, limits)
    size, empty = int(orders.max(initial=0)), problem.energy == 0
    return Fitted(found.poles[:, :size], residues[:, :size], orders, found.converged | empty, found.condition)


def region_of(options: Options) -> Region:
    return Region(1.0 if options.max_modulus is None else float(options.max_modulus), options.real_poles)


@dataclasses.dataclass(frozen=True, eq=False)
class OverAllTime:
    """The squared error over all time of taps that end with the last, in closed form (h2_newton.py)."""

    source: TapsSource

    @classmethod
    def of(cls, strict: Array) -> OverAllTime:
        return cls(TapsSource.of(strict, real=True))

    @property
    def energy(self) -> Array:
        return self.source.energy

    def take(self, chosen: Array) -> OverAllTime:
        return OverAllTime(self.source.take(chosen))

    def __call__(self, poles: Array, live: Array) -> Misfit:
        local = self.source(poles, live)
        return Misfit(local.error, local.noise, *derivatives(_Unmapped(poles), local))  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True, eq=False)
class _Unmapped:
    """In the place of a chart: the poles themselves are the coordinates."""

    poles: Array
    real: bool = True

    def gradient(self, f: Array) -> Array:
        return f

    def hessian(self, f: Array, S: Array, M: Array) -> Array:
        return S


def within(poles: Array, region: Region) -> Array:
    """Poles whose modulus rounding has made larger than the radius moved back; none is left beyond."""
    xp = namespace(poles)
    size = xp.abs(poles)
    factor = xp.where(size > region.radius, region.radius * (1 - 2.0**-51) / xp.where(size > 0, size, xp.ones_like(size)), 1 + 0 * size)
    return poles * xp.astype(factor, poles.dtype)


# ---------------------------------------------------------------- starts


def balanced_start(subspace: Subspace, orders: np.ndarray) -> np.ndarray:
    """``(n, d)`` poles of balanced truncation, conjugates as neighbours, the zeros of smaller orders last."""
    poles = subspace.poles(orders)
    for order in np.unique(orders[orders > 0]):
        rows = orders == order
        poles[rows, :order] = closed(poles[rows, :order])
    return poles


def constrained_starts(bank: Bank, orders: np.ndarray, subspace: Subspace, region: Region) -> list[np.ndarray]:
    """Of balanced truncation, made to meet the constraints; for real poles also spectra of time constants from one tap to all."""
    balanced = squeezed(balanced_start(subspace, orders), region)
    if not region.real:
        return [balanced]
    longest = max(2.0, min(bank.length, 1 / (1 - region.radius) if region.radius < 1 else bank.length))
    spread, mixed = np.zeros(balanced.shape), np.zeros(balanced.shape)
    for order in np.unique(orders[orders > 0]):
        rows = orders == order
        decay = np.exp(-1 / np.geomspace(1.0, longest, order))
        spread[rows, :order] = decay
        mixed[rows, :order] = decay * np.where(np.arange(order) % 2, -1, 1)
    line = np.stack([_on_the_line(p[:order], order, balanced.shape[1]) for p, order in zip(balanced, orders, strict=True)])
    return [line.astype(complex), squeezed(spread.astype(complex), region), squeezed(mixed.astype(complex), region)]


def squeezed(poles: np.ndarray, region: Region) -> np.ndarray:
    """Poles of the unit disk in the smaller one, no two the same that were not: those near its circle and beyond give way."""
    size = np.abs(poles)
    keep = _EASED * region.radius
    if region.radius == 1 or not (size > keep).any():
        return poles
    new = np.where(size > keep, keep + (size - keep) / (1 - keep) * (region.radius - keep), size)
    return poles * np.where(size > 0, new / np.where(size > 0, size, 1), 1)


def _on_the_line(poles: np.ndarray, order: int, width: int) -> np.ndarray:
    """Real poles in the place of pairs: to both sides of the real point that is next to the pair, as far as the pair is from it."""
    upper, reals = poles[poles.imag > 0], poles[poles.imag == 0].real
    total, product = 2 * upper.real, np.abs(upper) ** 2
    middle = total / (1 + product + np.sqrt(np.maximum((1 + product) ** 2 - total**2, 0)))
    away = np.arctanh(np.minimum(np.abs((upper - middle) / (1 - middle * upper)), 0.9)) / 2
    centre = np.arctanh(middle)
    found = np.sort(np.concatenate([reals, np.tanh(centre - away), np.tanh(centre + away)]))[::-1]
    return np.pad(found[:order], (0, width - order))


# ---------------------------------------------------------------- what the modal form carries


@quiet
def carried(
    bank: Bank, problem: OverAllTime, starts: list[tuple[Array, Array]], region: Region, found: Found, limits: dict[str, Any]
) -> tuple[Found, Array]:
    """What a search found, with residues; where rounding spoils those of poles that met, found again with poles that repel."""
    xp, lower = namespace(found.error), found.error
    found = dataclasses.replace(found, poles=within(found.poles, region))
    residues = optimal_residues(bank, found.poles, found.live)
    measured = _measured(bank, found.poles, residues)
    bad = np.flatnonzero(to_numpy(_is_lost(measured, lower, bank, problem.energy)))
    for share in _REPULSIONS:
        if len(bad) == 0:
            break
        rows = from_numpy(bad, found.poles)
        own, part = bank.take(bad), problem.take(rows)
        apart = Repelled(part, share * xp.take(lower, rows, axis=0))
        again = search(apart, [(xp.take(p, rows, axis=0), xp.take(on, rows, axis=0)) for p, on in starts], region, **limits)
        again = dataclasses.replace(again, poles=within(again.poles, region))
        new = optimal_residues(own, again.poles, again.live)
        error = _measured(own, again.poles, new)
        chosen = to_numpy(~(error >= xp.take(measured, rows, axis=0)))

        def put(new: Array, old: Array, bad: np.ndarray = bad, chosen: np.ndarray = chosen) -> Array:
            """``new`` in the places of ``old`` where it is better."""
            whole = to_numpy(old).copy()
            whole[bad[chosen]] = to_numpy(new)[chosen]
            return from_numpy(whole, old)

        found = Found(*(put(getattr(again, f.name), getattr(found, f.name)) for f in dataclasses.fields(Found)))
        residues, measured = put(new, residues), put(error, measured)
        bad = bad[to_numpy(_is_lost(error, part(again.poles, again.live).error, own, part.energy))]
    return found, residues


def _is_lost(measured: Array, exact: Array, bank: Bank, energy: Array) -> Array:
    return ~(measured <= (1 + _LOST) * exact + (16 * _rounding(bank)) ** 2 * energy)


def _measured(bank: Bank, poles: Array, residues: Array) -> Array:
    """``(n,)`` squared errors of the modal form over the taps, and what rounding its residues adds to them."""
    xp = namespace(poles)
    taps = vandermonde_product(poles, residues, bank.length, real=True)
    rounding = xp.sum((_rounding(bank) * xp.abs(residues)) ** 2 / (1 - xp.abs(poles) ** 2), axis=-1)
    return xp.sum((bank.strict - taps) ** 2, axis=-1) + rounding


def _rounding(bank: Bank) -> float:
    return 2.0**-25 if bank.bits == 32 else 2.0**-53
