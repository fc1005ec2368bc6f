"""The l2 error over all time, and starts that meet constraints on the poles: no larger than a modulus, real only, or both.

The optimum under constraints is found by Newton's method in the coordinates of the smaller disk, or of the line, with residues
eliminated in closed form as without constraints. A pole that would be larger ends at the circle, to within what is left to gain
there; real poles that would leave the line as a pair meet.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, namespace, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.fitted import optimal_residues
from ssmid.distillation.pole_search import Misfit, Region
from ssmid.distillation.projected import Projected, Taps
from ssmid.reduction.h2_newton import derivatives
from ssmid.reduction.h2_request import closed
from ssmid.reduction.h2_sources import TapsSource

_ROUNDING = 2.0**-43
"""Of thousands of powers of a pole, relative to the largest."""
_EASED = 0.9
"""Share of the allowed hyperbolic reach that a start's poles keep; larger ones are squeezed into the rest, in their order."""


@dataclasses.dataclass(frozen=True, eq=False)
class OverAllTime:
    """The squared error over all time of taps that end with the last, in closed form (h2_newton.py)."""

    bank: Bank
    source: TapsSource

    @classmethod
    def of(cls, bank: Bank) -> OverAllTime:
        return cls(bank, TapsSource.of(bank.strict, real=True))

    @property
    def energy(self) -> Array:
        return self.source.energy

    def take(self, chosen: Array) -> OverAllTime:
        return OverAllTime(self.bank.take(to_numpy(chosen)), self.source.take(chosen))

    def __call__(self, poles: Array, live: Array) -> Misfit:
        local = self.source(poles, live)
        return Misfit(local.error, local.noise + _ROUNDING**2 * self.energy, *derivatives(_Unmapped(poles), local))  # pyright: ignore[reportArgumentType]

    def residues(self, poles: Array, live: Array) -> Array:
        return optimal_residues(self.bank, poles, live)

    def eased(self, poles: Array, live: Array, ridge: Array) -> tuple[Array, Array]:
        """As :meth:`Projected.eased`, over four times the taps."""
        xp, strict = namespace(poles), self.bank.strict
        longer = xp.concat([strict, xp.zeros((strict.shape[0], 3 * strict.shape[1]), dtype=strict.dtype, device=strict.device)], axis=-1)
        return Projected.of(Taps.of(longer)).eased(poles, live, ridge)

    def joined(self, squares: Array) -> Array:
        return squares


@dataclasses.dataclass(frozen=True, eq=False)
class _Unmapped:
    """In the place of a chart: the poles themselves are the coordinates."""

    poles: Array
    real: bool = True

    def gradient(self, f: Array) -> Array:
        return f

    def hessian(self, f: Array, S: Array, M: Array) -> Array:
        return S


# ---------------------------------------------------------------- starts


def pairs_first(poles: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """``(n, d)`` poles with conjugates as neighbours, and the zeros of smaller orders last."""
    found = np.zeros_like(poles)
    for order in np.unique(orders[orders > 0]):
        rows = orders == order
        found[rows, :order] = closed(np.where(np.isfinite(poles[rows, :order]), poles[rows, :order], 0))
    return found


def constrained_starts(poles: np.ndarray, orders: np.ndarray, length: int, region: Region) -> list[np.ndarray]:
    """``(n, d)`` poles, conjugates as neighbours, made to meet the constraints; for real poles also spectra of time constants from one
    tap to all of the ``length``."""
    inside = squeezed(poles, region)
    return [inside] if not region.real else _on_the_line(inside, orders, length, region)


def _on_the_line(balanced: np.ndarray, orders: np.ndarray, length: int, region: Region) -> list[np.ndarray]:
    longest = max(2.0, min(length, 1 / (1 - region.radius)) if region.radius < 1 else length)
    spread, mixed, own = (np.zeros(balanced.shape, complex) for _ in range(3))
    for order in np.unique(orders[orders > 0]):
        rows = orders == order
        decay = np.exp(-1 / np.geomspace(1.0, longest, order))
        spread[rows, :order] = decay
        mixed[rows, :order] = decay * np.where(np.arange(order) % 2, -1, 1)
        own[rows, :order] = [_without_pairs(poles[:order]) for poles in balanced[rows]]
    return [own, squeezed(spread, region), squeezed(mixed, region)]


def squeezed(poles: np.ndarray, region: Region) -> np.ndarray:
    """Poles of the unit disk in the smaller one, no two the same that were not: those near its circle and beyond give way."""
    size = np.abs(poles)
    keep = _EASED * region.radius
    if region.radius == 1 or not (size > keep).any():
        return poles
    new = np.where(size > keep, keep + (size - keep) / (1 - keep) * (region.radius - keep), size)
    return poles * np.where(size > 0, new / np.where(size > 0, size, 1), 1)


def _without_pairs(poles: np.ndarray) -> np.ndarray:
    """Real poles in the place of pairs: to both sides of the real point that is next to the pair, half as far as the pair is from it."""
    upper, reals = poles[np.imag(poles) > 0], np.real(poles[np.imag(poles) == 0])
    total, product = 2 * np.real(upper), np.abs(upper) ** 2
    middle = total / (1 + product + np.sqrt(np.maximum((1 + product) ** 2 - total**2, 0)))
    away = np.arctanh(np.minimum(np.abs((upper - middle) / (1 - middle * upper)), 0.9)) / 2
    centre = np.arctanh(middle)
    return np.concatenate([reals, np.tanh(centre - away), np.tanh(centre + away)])
