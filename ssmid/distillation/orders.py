"""Orders of a bank as they can be had: what each filter carries, what stands above the noise, and fits of many orders together."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssmid._array import Array, as_complex, namespace, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.fitted import Fitted, taken_fits
from ssmid.distillation.methods import Method
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace, leading_subspace
from ssmid.identification.order import order_above_noise


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Fits of a bank at the orders that were chosen.

    sigma : ``(n, K)`` Hankel values from below, NaN where they were not sought
    met : ``(n,)`` on the host, whether a tolerance is met; all True where there is none
    """

    fitted: Fitted
    sigma: Array
    met: np.ndarray


def fit_at_orders(bank: Bank, wanted: np.ndarray | int | str, subspace: Subspace | None, method: Method, options: Options) -> Found:
    """Fits at the orders ``wanted``, one or ``(n,)``, rounded up to multiples, or "noise"; ``subspace`` if it is known already."""
    found_here = isinstance(wanted, str)
    if subspace is None:
        largest = options.max_order if found_here or options.budget is not None else rounded_up(np.max(wanted, initial=1), options.multiple)
        subspace = leading_subspace(bank, int(largest), method.subspace or "loose")
    if found_here:
        orders = orders_above_noise(bank, subspace, options)
    else:
        orders = held(bank, subspace, rounded_up(np.asarray(wanted), options.multiple))
    fitted = fit_by_order(method, bank, orders, subspace, options)
    return Found(fitted, subspace.sigma, np.ones(bank.count, bool))


def orders_of_each(orders: Array, batch: tuple[int, ...]) -> np.ndarray:
    """``(n,)`` on the host: an array of orders over the whole ``batch``. Raises ValueError where it does not broadcast."""
    found = to_numpy(orders).astype(int)
    try:
        return np.broadcast_to(found, batch).reshape(-1)
    except ValueError:
        raise ValueError(f"order: expected shapes that broadcast to {batch}, got {found.shape}") from None


def held(bank: Bank, subspace: Subspace, orders: np.ndarray | int) -> np.ndarray:
    """``(n,)`` the ``orders``, or as many states as each filter carries to rounding, or the subspace has, where that is less; of
    neighbours that share poles as many as all of them carry together. 0 for filters without recurrence."""
    # where poles are held to a region, more of them than the rank are of use
    rank = subspace.rank if not bank.constrained else np.full(bank.count, bank.length)
    carried = np.where(bank.empty, 0, rank).reshape(-1, bank.group).sum(axis=1)
    carried = np.repeat(np.minimum(carried, subspace.shift.shape[-1]), bank.group)
    return np.where(bank.empty, 0, np.minimum(_of_groups(np.broadcast_to(orders, bank.count), bank.group), carried))


def rounded_up(orders: Any, multiple: int) -> Any:
    """The next multiples."""
    return -(-orders // multiple) * multiple


def orders_above_noise(bank: Bank, subspace: Subspace, options: Options) -> np.ndarray:
    """``(n,)`` how many Hankel values stand above white noise of a level that is read off the others, at most ``max_order``.

    As :func:`ssmid.identification.order.order_above_noise`, for the matrix with zeros beyond the last tap: it is part of a circulant
    one of twice its size, of which noise fills half, which leaves the threshold where it is. Of noise alone one filter in fifty of 30
    taps has states, and one in seven of 12.
    """
    xp = namespace(bank.strict)
    times = xp.arange(1, bank.length + 1, dtype=xp.float64, device=bank.strict.device)
    energy = xp.sum(bank.strict**2 * times, axis=-1)  # the tap t stands t times in the Hankel matrix
    size = bank.length
    found = to_numpy(order_above_noise(subspace.sigma, size, size, energy=energy, noise="hankel", may_be_exact=False))
    wanted = np.minimum(rounded_up(found, options.multiple), options.max_order // options.multiple * options.multiple)
    return held(bank, subspace, wanted)


def fit_by_order(method: Method, bank: Bank, orders: np.ndarray, subspace: Subspace, options: Options) -> Fitted:
    """``method.fit`` of the filters of each order together: what is found does not depend on the orders of the others."""
    together = _of_groups(orders, bank.group)
    rows = [np.flatnonzero(together == order) for order in np.unique(together)]
    if len(rows) < 2:
        return method.fit(bank, orders, subspace, options)
    parts = [method.fit(bank.take(r), orders[r], subspace.take(r), options) for r in rows]
    return taken_fits(joined_fits(parts), np.argsort(np.concatenate(rows)))


def joined_fits(parts: list[Fitted]) -> Fitted:
    """Several fits as one, of the width of the widest."""
    xp = namespace(parts[0].poles)
    poles, residues = (widened([getattr(part, name) for part in parts]) for name in ("poles", "residues"))
    rest = (xp.concat([getattr(part, name) for part in parts], axis=0) for name in ("converged", "condition"))
    return Fitted(poles, residues, np.concatenate([part.orders for part in parts]), *rest)


def no_states(bank: Bank) -> Fitted:
    """What is left of a bank where nothing is fitted."""
    xp = namespace(bank.strict)
    none = as_complex(bank.strict[:, :0])
    return Fitted(none, none, np.zeros(bank.count, int), bank.scale > 0, xp.ones_like(bank.scale))


def widened(arrays: list[Array], known: bool = True) -> Array:
    """``(n_i, k_i)`` one below the other, filled up with zeros; with NaN where what follows is not ``known``, the last not being 0."""
    xp, most = namespace(arrays[0]), max(a.shape[1] for a in arrays)
    padded = []
    for a in arrays:
        filler = xp.zeros((a.shape[0], most - a.shape[1]), dtype=a.dtype, device=a.device)
        if not known and a.shape[1]:
            filler = xp.where(a[:, -1:] == 0, filler, xp.full_like(filler, float("nan")))
        padded.append(xp.concat([a, filler], axis=-1))
    return xp.concat(padded, axis=0)


def of_width(fitted: Fitted, width: int) -> Fitted:
    """With zeros up to ``width`` poles where there are fewer."""
    xp, missing = namespace(fitted.poles), max(0, width - fitted.poles.shape[-1])
    zeros = xp.zeros((fitted.poles.shape[0], missing), dtype=fitted.poles.dtype, device=fitted.poles.device)
    poles, residues = (xp.concat([x, zeros], axis=-1) for x in (fitted.poles, fitted.residues))
    return dataclasses.replace(fitted, poles=poles, residues=residues)


def _of_groups(values: np.ndarray, group: int) -> np.ndarray:
    """``(n,)`` the largest of each group of neighbours."""
    return np.repeat(values.reshape(-1, group).max(axis=1), group) if group > 1 else values
