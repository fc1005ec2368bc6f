"""Balanced truncation of every filter: the projection on its leading Hankel subspace, in modal form."""

from __future__ import annotations

import numpy as np

from ssmid._array import from_numpy, namespace
from ssmid.distillation.bank import Bank
from ssmid.distillation.by_order import closed_residues
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace
from ssmid.linalg import eig, singular_values, solve


def fit_balanced(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """Poles and residues of the leading blocks of the projected realization. ``condition`` is that of the eigenvectors.

    The blocks are compressions of a contraction, hence stable (Kung, Asilomar 1978, for the projection; docs/distilling.md).
    """
    assert subspace is not None
    xp, size = namespace(bank.strict), int(orders.max(initial=0))
    keep = from_numpy(np.arange(size) < orders[:, None], bank.strict)
    mask = xp.astype(keep, bank.strict.dtype)
    A = subspace.shift[:, :size, :size] * mask[:, :, None] * mask[:, None, :]
    b, c = subspace.inputs[:, :size] * mask, subspace.outputs[:, :size] * mask
    poles, V = eig(A)
    through = (xp.astype(c, V.dtype)[:, None, :] @ V)[:, 0, :]
    residues = through * solve(V, xp.astype(b, V.dtype)[:, :, None])[:, :, 0]
    # states that were masked are zero rows and columns: their poles are 0 and nothing reaches them
    order = xp.argsort(xp.astype(residues == 0, xp.int64), axis=-1, stable=True)
    poles, residues = (xp.take_along_axis(x, order, axis=-1) for x in (poles, residues))
    residues = closed_residues(poles, residues)
    if size == 0:  # nothing but filters without a recurrence
        return Fitted(poles, residues, orders, bank.scale > 0, xp.ones_like(bank.scale))
    sigma = singular_values(V)
    least = xp.where(sigma[:, -1] > 0, sigma[:, -1], xp.ones_like(sigma[:, -1]))
    found = xp.all(subspace.error[:, :size] <= _SETTLED * subspace.sigma[:, :1], axis=-1)
    return Fitted(poles, residues, orders, found & xp.all(xp.isfinite(residues), axis=-1), sigma[:, 0] / least)


_SETTLED = 1e-6
"""Error bars of Hankel values, relative to the largest, up to which the projection is that of balanced truncation."""
