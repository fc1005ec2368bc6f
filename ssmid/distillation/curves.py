"""Error against order: what balanced truncation leaves of each filter at every order, and what no system of that order gets below.

The leading blocks of one projection are the truncations of all smaller orders, so that one Hankel subspace gives a whole curve.
"""

from __future__ import annotations

import dataclasses
from math import isqrt, prod

import numpy as np

from ssmid._array import Array, as_array, from_numpy, is_complex, namespace, to_numpy
from ssmid.analysis.impulse import power_rows
from ssmid.distillation.bank import NOT_FINITE, Bank
from ssmid.distillation.options import whole_number
from ssmid.distillation.subspace import Subspace, leading_subspace
from ssmid.linalg import transpose
from ssmid.systems import ImpulseResponse

_BYTES = 2**28
"""Of the taps of models that are compared at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class OrderCurves:
    """What each order costs and buys, for a bank of filters.

    orders : ``(K + 1,)`` 0 to K
    l2 : ``(*batch, K + 1)`` relative l2 error of balanced truncation after tap 0. An l2-optimal fit from there is at most that
    bound : ``(*batch, K + 1)`` sigma_{order + 1} / sigma_1 of the Hankel values, from below: no stable system of this order has a smaller
        error in Hankel norm, relative to the filter's own (Adamjan, Arov & Krein, Math. USSR Sbornik 15, 1971)

    NaN for filters that are not finite, 0 for those that are zero after tap 0.
    """

    orders: Array
    l2: Array
    bound: Array

    def orders_for(self, tol: float) -> Array:
        """``(*batch,)`` integers: the smallest orders whose ``l2`` is at most ``tol``; K where none is."""
        xp = namespace(self.l2)
        met = self.l2 <= tol
        first = xp.argmax(xp.astype(met, xp.int64), axis=-1)
        last = xp.where(xp.isnan(self.l2[..., 0]), xp.zeros_like(first), xp.full_like(first, self.l2.shape[-1] - 1))
        return xp.where(xp.any(met, axis=-1), first, last)

    def total_states(self, tol: float) -> int:
        """The states of the whole bank at :meth:`orders_for` ``tol``: what a tighter or looser tolerance would cost."""
        xp = namespace(self.l2)
        return int(xp.sum(self.orders_for(tol)))


def order_curves(filters: Array | ImpulseResponse, max_order: int = 64, *, chunk: int = 4096) -> OrderCurves:
    """The error against the order of each filter ``(*batch, L)``, for the orders 0 to ``max_order``. Not differentiable.

    filters : real taps or an :class:`ImpulseResponse`   max_order : fewer where the filters have fewer taps after the first
    chunk : filters that are worked on at once

    The curve is that of the truncation (Kung 1978) on a Hankel subspace of the accuracy that :func:`ssmid.distill` starts from;
    Hankel values are Ritz values, lower bounds of the true ones. Raises ValueError for complex taps and orders below 1.

    >>> import numpy as np
    >>> t = np.arange(300)
    >>> curves = order_curves(np.stack([0.9**t, 0.9**t * np.cos(t)]), 4)
    >>> curves.l2.shape, curves.orders_for(1e-6), curves.total_states(1e-6)
    ((2, 5), array([1, 2]), 3)
    """
    taps = filters.taps if isinstance(filters, ImpulseResponse) else as_array(filters, "filters")
    if is_complex(taps) or taps.ndim == 0 or taps.shape[-1] == 0:
        raise ValueError(f"filters: expected real taps of shape (*batch, length), got {taps.dtype} of shape {tuple(taps.shape)}")
    max_order, chunk = whole_number("max_order", max_order, 1), whole_number("chunk", chunk, 1)
    *batch, length = taps.shape
    flat, count = namespace(taps).reshape(taps, (prod(batch), length)), prod(batch)
    parts = [_curves(Bank.of(flat[i : min(i + chunk, count), :]), max_order) for i in range(0, max(1, count), chunk)]
    l2, bound = (np.concatenate(both)[:count].reshape(*batch, both[0].shape[-1]) for both in zip(*parts, strict=True))
    return OrderCurves(*(from_numpy(x, taps) for x in (np.arange(l2.shape[-1]), l2, bound)))


def _curves(bank: Bank, most: int) -> tuple[np.ndarray, np.ndarray]:
    subspace = leading_subspace(bank, most)
    l2, sigma = error_curves(bank, subspace), to_numpy(subspace.sigma)
    bound = np.zeros_like(l2)  # of a filter of K taps after the first there is no Hankel value beyond the last
    bound[:, : sigma.shape[1]] = sigma / np.where(sigma[:, :1] > 0, sigma[:, :1], 1.0)
    bound[bank.kind == NOT_FINITE] = np.nan
    return l2, bound


def error_curves(bank: Bank, subspace: Subspace) -> np.ndarray:
    """``(n, K + 1)`` on the host: relative l2 errors of the leading blocks of the projected realization, of the orders 0 to K.

    The taps are subtracted one by one: the errors are exact to rounding, of whatever subspace. What a block rings on after the last
    tap counts by at most its state there, as the observability Gramian of a compression of the shift is at most the identity; so
    the curve is never below the error of balanced truncation, nor that of an optimum sought from its poles. Beyond what a filter
    carries to rounding the curve is flat.
    """
    K, n = subspace.shift.shape[-1], bank.count
    step = max(1, _BYTES // (8 * 4 * bank.length))
    curves = np.zeros((n, K + 1))
    for i in range(0, n, step):
        rows = slice(i, min(i + step, n))
        strict = bank.strict[rows, :]
        A, b, c = (x[rows, ...] for x in (subspace.shift, subspace.inputs, subspace.outputs))
        for order in range(K + 1):
            curves[rows, order] = to_numpy(_squared_error(strict, A[:, :order, :order], b[:, :order], c[:, :order]))
    energy = np.where(curves[:, :1] > 0, curves[:, :1], 1.0)
    curves = np.sqrt(curves / energy)
    curves = np.take_along_axis(curves, np.minimum(np.arange(K + 1), subspace.rank[:, None]), axis=1)
    curves[bank.kind == NOT_FINITE] = np.nan
    return curves


def _squared_error(strict: Array, A: Array, b: Array, c: Array) -> Array:
    xp, (n, N) = namespace(strict), strict.shape
    if A.shape[-1] == 0:
        return xp.sum(strict**2, axis=-1)
    # c A^s and A^(q K) b in two tables of about sqrt(N) rows, as t = q K + s; powers of a contraction are as tame as it is
    inner = 1 << (isqrt(N).bit_length() - 1)
    outer = -(-N // inner)
    rows, power = power_rows(A, c[:, None, :], inner, then=True)
    columns, _ = power_rows(transpose(power), b[:, None, :], outer)
    modelled = xp.reshape(columns @ transpose(rows), (n, outer * inner))
    inside, beyond = modelled[:, :N], modelled[:, N:]
    # the block from N to outer * inner is written out, and what comes after it is at most the state that is left
    left = (columns[:, -1:, :] @ transpose(power))[:, 0, :]
    return xp.sum((strict - inside) ** 2, axis=-1) + xp.sum(beyond**2, axis=-1) + xp.sum(left**2, axis=-1)
