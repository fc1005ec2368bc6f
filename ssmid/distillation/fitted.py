"""What every method of the distiller gives: poles and residues of a bank, in the scale of its normalized taps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ssmid._array import Array, as_complex, from_numpy, namespace
from ssmid.distillation.bank import Bank
from ssmid.reduction.h2_newton import mirrored
from ssmid.reduction.h2_sources import TapsSource

if TYPE_CHECKING:
    from ssmid.distillation.options import Options
    from ssmid.distillation.subspace import Subspace


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """``strict[t] = Re sum_i residues_i poles_i^t`` for t >= 0, of each filter of a :class:`Bank`.

    poles, residues : ``(n, d)`` complex, closed under conjugation, pairs side by side; zeros beyond the order
    orders : ``(n,)`` on the host   converged : ``(n,)`` boolean
    condition : ``(n,)`` of the problem that was solved last; 1 where a method has none
    """

    poles: Array
    residues: Array
    orders: np.ndarray
    converged: Array
    condition: Array


Fit: TypeAlias = "Callable[[Bank, np.ndarray, Subspace | None, Options], Fitted]"
"""A method: ``fit(bank, orders (n,), subspace, options)``; orders are at most ``bank.length`` and 0 where a filter is empty."""


def taken_fits(fitted: Fitted, places: np.ndarray) -> Fitted:
    """Some of the fits, of the width of the largest order among them."""
    xp, index = namespace(fitted.poles), from_numpy(places, fitted.poles)
    orders = fitted.orders[places]
    width = int(orders.max(initial=0))
    poles, residues = (xp.take(x[:, :width], index, axis=0) for x in (fitted.poles, fitted.residues))
    return Fitted(poles, residues, orders, xp.take(fitted.converged, index, axis=0), xp.take(fitted.condition, index, axis=0))


def optimal_residues(bank: Bank, poles: Array, live: Array) -> Array:
    """``(n, d)`` those of least l2 error over all time, of taps that end with the last, at given poles (pairs side by side).

    ``r_j = rho_j / B'(p_j)`` with the Blaschke product B of the poles (h2_newton.py); zeros where a pole is not live.
    """
    return residues_of_rho(TapsSource.of(bank.strict, real=True)(poles, live).rho, poles, live)


def residues_of_rho(rho: Array, poles: Array, live: Array) -> Array:
    """``rho_j (1 - |p_j|^2) prod_k (1 - p_k* p_j) / (p_j - p_k)``, over the other live poles."""
    xp = namespace(poles)
    d = poles.shape[-1]
    apart = from_numpy(~np.eye(d, dtype=bool), poles) & live[:, None, :] & live[:, :, None]
    one = xp.ones((), dtype=poles.dtype, device=poles.device)
    gaps = xp.where(apart, poles[:, :, None] - poles[:, None, :], one)
    reach = xp.where(apart, 1 - poles[:, :, None] * xp.conj(poles)[:, None, :], one)
    found = rho * as_complex(1 - xp.abs(poles) ** 2) * xp.prod(reach / gaps, axis=-1)
    return xp.where(live, mirrored(found, True), xp.zeros_like(found))
