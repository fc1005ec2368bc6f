"""Fits over the taps alone: what the recurrence does after the last one does not count (the loss of Massaroli et al.)."""

from __future__ import annotations

import numpy as np

from ssmid._array import from_numpy, namespace, to_numpy
from ssmid.analysis.hankel import hankel_triplets
from ssmid.distillation.bank import Bank
from ssmid.distillation.constraints import constrained_starts, squeezed
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.options import Options
from ssmid.distillation.pole_fit import fit_poles, region_of
from ssmid.distillation.projected import Projected, Taps
from ssmid.distillation.subspace import Subspace
from ssmid.identification.signal_subspace import shift_matrix
from ssmid.linalg import eigvals
from ssmid.reduction.h2_request import closed, prepared

_RTOL, _TAIL_RTOL = 1e-13, 1e-3
"""Of the Hankel matrix of the taps: data that obey a recurrence are told from those that do not, whose vectors need not be known well."""


def fit_free(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """Poles and residues of least squared error over the taps, poles inside the circle.

    Starts are the poles of balanced truncation and those by shift invariance of the Hankel matrix without zeros beyond the last
    tap (:func:`ssmid.esprit`), which knows a filter that has not faded out; the better end is taken.
    """
    assert subspace is not None
    region = region_of(options)
    problem = Projected.of(Taps.of(bank.strict))
    starts = constrained_starts(bank, orders, subspace, region)
    if not region.real and bank.length >= 2 * max(1, int(orders.max(initial=0))):
        ringing = prepared(squeezed(_by_shift(bank, orders), region), orders, bank.strict, real=True)
        starts.append(ringing)
    return fit_poles(bank, problem, starts, orders, options)


def _by_shift(bank: Bank, orders: np.ndarray) -> np.ndarray:
    """``(n, d)`` poles by total least squares; those outside the circle mirrored into it. Zeros beyond the order."""
    size, rows = int(orders.max(initial=0)), bank.length // 2
    found = np.zeros((bank.count, size), complex)
    if size == 0:
        return found
    taps = bank.strict[:, None, None, :]
    vectors = hankel_triplets(taps, rows, bank.length - rows + 1, size, rtol=_RTOL, tail_rtol=_TAIL_RTOL).left
    for order in np.unique(orders[orders > 0]):
        places = np.flatnonzero(orders == order)
        own = namespace(vectors).take(vectors, from_numpy(places, vectors), axis=0)[:, :order, None, :]
        poles = to_numpy(eigvals(shift_matrix(own, total=True)))
        found[places, :order] = closed(_mirrored(poles))
    return found


def _mirrored(poles: np.ndarray) -> np.ndarray:
    size = np.abs(np.where(np.isfinite(poles), poles, 0))
    return np.where(np.isfinite(poles), poles, 0) / np.where(size > 1, size, 1) ** 2
