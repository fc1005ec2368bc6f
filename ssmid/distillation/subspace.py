"""The leading Hankel subspace of every filter of a bank: Hankel values from below, and stable poles from the shift compressed to it."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, from_numpy, namespace, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.linalg import eigvals
from ssmid.reduction.hankel_projection import project


@dataclasses.dataclass(frozen=True, eq=False)
class Subspace:
    """Orthonormal vectors near the leading left singular vectors of the zero-padded Hankel matrix of each normalized filter.

    sigma : ``(n, K)`` Ritz values, descending: none is above the true value of its index   error : ``(n, K)`` error bars
    shift : ``(n, k, k)`` the compressed shift, k at most K: its leading blocks are stable state matrices
    inputs, outputs : ``(n, k)`` of the projected realization
    """

    sigma: Array
    error: Array
    shift: Array
    inputs: Array
    outputs: Array

    @property
    def rank(self) -> np.ndarray:
        """``(n,)`` how many of the values are more than rounding."""
        sigma = to_numpy(self.sigma)
        return (sigma > 64 * np.finfo(np.float64).eps * sigma[:, :1]).sum(-1)

    def take(self, places: np.ndarray) -> Subspace:
        index = from_numpy(places, self.sigma)
        return Subspace(*(namespace(self.sigma).take(getattr(self, f.name), index, axis=0) for f in dataclasses.fields(self)))

    def poles(self, orders: np.ndarray) -> np.ndarray:
        """``(n, max(orders))`` eigenvalues of the leading block of each order, on the host; zeros beyond."""
        found = np.zeros((len(orders), int(orders.max(initial=0))), complex)
        for order in np.unique(orders[orders > 0]):
            rows = np.flatnonzero(orders == order)
            blocks = namespace(self.shift).take(self.shift, from_numpy(rows, self.shift), axis=0)[:, :order, :order]
            found[rows, :order] = to_numpy(eigvals(blocks))
        return found


def leading_subspace(bank: Bank, count: int, *, rtol: float = 1e-2, tail_rtol: float = 1e-1) -> Subspace:
    """The subspace of ``count`` vectors of each filter, and ``count + 1`` Hankel values."""
    xp = namespace(bank.strict)
    taps = xp.concat([xp.zeros_like(bank.strict[:, :1]), bank.strict], axis=-1)
    found = project(taps[:, None, None, :], min(count, bank.length), bank.length, bank.length, rtol=rtol, tail_rtol=tail_rtol)
    return Subspace(found.sigma[:, : count + 1], found.error[:, : count + 1], found.A, found.B[..., 0], found.C[:, 0, :])
