"""For methods that work at one order: the orders of a bank in turn, and what they give put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ssmid._array import Array, as_complex, from_numpy, namespace, replaced, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.fitted import Fitted


@dataclasses.dataclass(frozen=True, eq=False)
class AtOrder:
    """poles, residues : ``(k, r)``, conjugate pairs side by side; of a filter that carries fewer states the residues of the others are 0
    converged, condition : ``(k,)``"""

    poles: Array
    residues: Array
    converged: Array
    condition: Array


def fit_by_order(bank: Bank, orders: np.ndarray, fit: Callable[[Bank, int], AtOrder]) -> Fitted:
    """``fit(filters, order)`` of all filters of each order. Orders of the result are those of states that carry something."""
    xp, size = namespace(bank.strict), int(orders.max(initial=0))
    groups = [np.flatnonzero(orders == order) for order in np.unique(orders)]
    parts = [_packed(fit(bank.take(rows), int(orders[rows[0]])) if orders[rows[0]] else nothing(bank.take(rows))) for rows in groups]
    parts = [(_widened(part, size), found) for part, found in parts]
    back = from_numpy(np.argsort(np.concatenate([*groups, np.zeros(0, int)])), bank.strict)
    if not parts:
        return stateless(bank)
    arrays = [
        xp.take(xp.concat([getattr(part, f.name) for part, _ in parts], axis=0), back, axis=0) for f in dataclasses.fields(AtOrder)
    ]
    found = np.concatenate([found for _, found in parts])[to_numpy(back)]
    return Fitted(arrays[0], arrays[1], found, arrays[2], arrays[3])


def replaced_fits(fitted: Fitted, rows: np.ndarray, better: Fitted) -> Fitted:
    """``fitted`` with the filters at ``rows`` from ``better``, whose arrays are not wider."""
    part = _widened(AtOrder(better.poles, better.residues, better.converged, better.condition), fitted.poles.shape[-1])
    arrays = {f.name: replaced(getattr(fitted, f.name), rows, getattr(part, f.name)) for f in dataclasses.fields(AtOrder)}
    return Fitted(**arrays, orders=replaced(fitted.orders, rows, better.orders))


def stateless(bank: Bank) -> Fitted:
    """No state for any filter."""
    part = nothing(bank)
    return Fitted(part.poles, part.residues, np.zeros(bank.count, int), part.converged, part.condition)


def nothing(bank: Bank) -> AtOrder:
    """No state, which is all that filters of zeros need."""
    xp = namespace(bank.strict)
    none = as_complex(bank.strict[:, :0])
    return AtOrder(none, none, xp.all(bank.strict == 0, axis=-1), xp.ones_like(bank.scale))


def _packed(part: AtOrder) -> tuple[AtOrder, np.ndarray]:
    """Poles that carry something first, and how many."""
    xp = namespace(part.poles)
    live = part.residues != 0
    place = xp.argsort(xp.astype(~live, xp.int64), axis=-1, stable=True)
    poles, residues = (xp.take_along_axis(xp.where(live, x, xp.zeros_like(x)), place, axis=-1) for x in (part.poles, part.residues))
    residues = closed_residues(poles, residues)
    return dataclasses.replace(part, poles=poles, residues=residues), to_numpy(live).sum(-1)


def closed_residues(poles: Array, residues: Array) -> Array:
    """Residues of a pair as exact conjugates, those of real poles real: what rounding on the way to them left is taken away."""
    xp, imag = namespace(poles), namespace(poles).imag(poles)
    second = xp.conj(xp.roll(residues, 1, axis=-1))
    return xp.where(imag < 0, second, xp.where(imag == 0, as_complex(xp.real(residues)), residues))


def _widened(part: AtOrder, size: int) -> AtOrder:
    xp, (count, r) = namespace(part.poles), part.poles.shape
    zeros = xp.zeros((count, size - r), dtype=part.poles.dtype, device=part.poles.device)
    return dataclasses.replace(part, poles=xp.concat([part.poles, zeros], axis=-1), residues=xp.concat([part.residues, zeros], axis=-1))
