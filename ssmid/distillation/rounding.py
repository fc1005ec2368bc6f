"""Poles and residues as the precision of the result has them, and what single precision costs.

A result comes in the precision of its filters. What is certified is what is returned: rounding comes before every measurement, and
before orders are chosen by errors. On trained filters at the orders 8 to 64 it changes an error by 2e-8 of itself at most.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, as_complex, astype_width, double, namespace, quiet, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.by_order import replaced_fits
from ssmid.distillation.certificate import Certificate
from ssmid.distillation.constraints import OverAllTime, pairs_first
from ssmid.distillation.error_norms import Difference
from ssmid.distillation.fitted import Fit, Fitted, taken_fits
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace
from ssmid.reduction.h2_request import prepared

SAMPLE = 64
"""Filters on which the cost of single precision is measured."""
_FELT = 1e-4
"""Of the norm of a filter: what the rounding of residues may make of a model as it stands."""
_ILL = 1e8
"""The condition of a problem from which on its solution is looked at."""
_INSIDE = 1 - 2.0**-22
"""A modulus that stays below 1 when both parts of a pole, and the modulus itself, are rounded to single precision."""


def in_its_precision(fit: Fit) -> Fit:
    """The method with poles and residues rounded to the precision that a bank's result will have.

    Where residues are so large that their rounding alone is felt, or a badly conditioned problem has left less than half of the filter,
    they are replaced by those of least error and rounding together, if that brings the model nearer: of the poles that were found, or of
    those of a delay line, which no optimum has but models of filters that end, or of as many states as taps, come near.
    """

    def rounded_fit(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
        found = rounded(fit(bank, orders, subspace, options), bank.scale, bank.bits, options.max_modulus or 1.0)
        plain = options.beyond == "zero" and not options.weighted and not bank.constrained and bank.group == 1
        return _relieved(bank, found) if plain else found

    return rounded_fit


@quiet
def _relieved(bank: Bank, fitted: Fitted) -> Fitted:
    xp = namespace(bank.strict)
    loss = xp.sum((_unit(bank) * xp.abs(fitted.residues)) ** 2 * _lasting(bank, fitted.poles), axis=-1)
    energy = xp.sum(bank.strict**2, axis=-1)
    lost = to_numpy(~(loss <= _FELT**2 * energy))
    bad = np.flatnonzero(to_numpy(~(fitted.condition <= _ILL)) & ~lost)
    if bad.size:
        part = bank.take(bad)
        lost[bad] = to_numpy(~(_error(part, taken_fits(fitted, bad)) <= 0.5 * xp.sum(part.strict**2, axis=-1) ** 0.5))
    rows = np.flatnonzero(lost & to_numpy(xp.all(xp.isfinite(fitted.poles), axis=-1)) & ~bank.empty & (fitted.orders > 0))
    if not rows.size:
        return fitted
    part, found = bank.take(rows), taken_fits(fitted, rows)
    delay_line = _of_a_delay_line(found.orders, found.poles.shape[-1], _unit(bank))
    least = to_numpy(_error(part, found))
    for poles in (pairs_first(to_numpy(found.poles), found.orders), delay_line):
        new = _eased(part, dataclasses.replace(found, poles=poles))
        error = to_numpy(_error(part, new))
        better = ~(least <= error) & np.isfinite(error)
        places, least = np.flatnonzero(better), np.where(better, error, least)
        found = replaced_fits(found, places, taken_fits(new, places)) if places.size else found
    return replaced_fits(fitted, rows, found)


def _eased(bank: Bank, fitted: Fitted) -> Fitted:
    """With the residues of least error and rounding together."""
    xp = namespace(bank.strict)
    poles, live = prepared(fitted.poles, fitted.orders, bank.strict, real=True)
    new = rounded(dataclasses.replace(fitted, poles=poles, residues=0 * poles), bank.scale, bank.bits)
    residues, _ = OverAllTime.of(bank).eased(new.poles, live, _unit(bank) * _lasting(bank, new.poles) ** 0.5)
    poles, residues = (xp.where(live, x, xp.zeros_like(x))[:, : fitted.poles.shape[-1]] for x in (new.poles, residues))
    return rounded(dataclasses.replace(new, poles=poles, residues=residues), bank.scale, bank.bits)


def _of_a_delay_line(orders: np.ndarray, width: int, unit: float) -> np.ndarray:
    """``(n, width)`` the roots of ``z^order = -radius^order``, conjugates as neighbours: what ends after ``order`` taps is a sum of them.

    Of a filter that does, ``radius^order`` of itself is missed, and residues as large as ``radius^(1 - order)`` are rounded to a
    ``unit``: the radius at which both are the same. Poles nearer to 0, where an optimum has all of them, cancel each other.
    """
    poles = np.zeros((len(orders), width), complex)
    for order in np.unique(orders[orders > 0]):
        radius = unit ** (1 / (2 * order - 1))
        above = radius * np.exp(1j * np.pi * np.arange(1, order, 2) / order)
        ring = np.concatenate([np.stack([above, above.conj()], -1).ravel()[: order - order % 2], [-radius] * (order % 2)])
        poles[orders == order, :order] = ring
    return poles


def _error(bank: Bank, fitted: Fitted) -> Array:
    """``(n,)`` over all time, infinite or NaN where that is not known."""
    error = Difference.between(bank.strict, fitted.poles, fitted.residues)
    return error.measured(error.energy**0.5, "l2")


def _lasting(bank: Bank, poles: Array) -> Array:
    xp = namespace(poles)
    return xp.clip(1 / (1 - xp.abs(poles) ** 2), max=float(bank.length))


def _unit(bank: Bank) -> float:
    return 4 * (2.0**-25 if bank.bits == 32 else 2.0**-53)


@quiet
def rounded(fitted: Fitted, scale: Array, bits: int, radius: float = 1.0) -> Fitted:
    """``fitted`` as ``bits`` hold it: poles, and residues times ``scale`` ``(n,)``; infinite where there are no such numbers.

    A pole that rounding would put on the circle of ``radius`` or beyond is moved in by 2e-7.
    """
    residues = _divided(double(astype_width(fitted.residues * as_complex(scale)[:, None], bits)), scale[:, None])
    if bits == 64:
        return dataclasses.replace(fitted, residues=residues)
    xp, size = namespace(fitted.poles), namespace(fitted.poles).abs(fitted.poles)
    poles, most = double(astype_width(fitted.poles, bits)), _INSIDE * radius
    held = fitted.poles * as_complex(most / xp.where(size > 0, size, xp.ones_like(size)))
    poles = xp.where((xp.abs(poles) > most) & (size <= radius), double(astype_width(held, bits)), poles)
    return dataclasses.replace(fitted, poles=poles, residues=residues)


def _divided(values: Array, by: Array) -> Array:
    """Complex by real numbers, which may be too small for an inverse of their own."""
    xp = namespace(values)
    return as_complex(xp.real(values) / by) + 1j * as_complex(xp.imag(values) / by)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What single precision changed, measured on so many ``filters`` spread over the bank, which were distilled in float64 too.

    l2, hankel, hinf, l1 : the largest differences of the errors, each relative to the filter's own norm without tap 0
    """

    filters: int
    l2: float
    hankel: float
    hinf: float
    l1: float

    @property
    def words(self) -> str:
        count = f"{self.filters} filter{'' if self.filters == 1 else 's'}"
        sizes = f"{self.l2:.2g} in l2, {self.hankel:.2g} in Hankel, {self.hinf:.2g} in H-infinity, {self.l1:.2g} in l1 norm"
        return f"Single precision changes relative errors by at most {sizes}, measured on {count}"


def cost_of(single: Certificate, exact: Certificate) -> Cost:
    """Of two certificates of the same filters ``(n,)``. Those that single precision, or both, cannot hold have no error to compare."""
    held = np.isfinite(to_numpy(single.l2)) & np.isfinite(to_numpy(exact.l2))
    own = {"l2": np.ones(len(exact.kind)), "hankel": exact.sigma[:, 0], "hinf": exact.filter_hinf, "l1": exact.filter_l1}
    found = {}
    for name, size in own.items():
        a, b, unit = (to_numpy(x) for x in (getattr(single, name), getattr(exact, name), size))
        same = (a == b) | ~(np.isfinite(a) & np.isfinite(b))
        with np.errstate(invalid="ignore", divide="ignore"):
            found[name] = float(np.max(np.where(same, 0.0, np.abs(a - b) / np.where(unit > 0, unit, 1.0)), initial=0.0))
    return Cost(filters=int(np.sum(held)), **found)


def worst(costs: list[Cost]) -> Cost | None:
    """Of several chunks; None where nothing was measured."""
    if not costs:
        return None
    return Cost(
        filters=sum(cost.filters for cost in costs), **{f: max(getattr(c, f) for c in costs) for f in ("l2", "hankel", "hinf", "l1")}
    )


def sampled(start: int, stop: int, total: int, group: int) -> np.ndarray:
    """Places, counted from ``start``, of the filters from ``start`` to ``stop`` that are in the sample of ``total``: whole groups."""
    groups = total // group
    chosen = np.unique(np.linspace(0, max(groups - 1, 0), max(1, min(groups, SAMPLE // group))).astype(np.int64))
    places = (chosen[:, None] * group + np.arange(group)).reshape(-1)
    return places[(places >= start) & (places < stop)] - start
