"""Fits over the taps alone: what the recurrence does after the last one does not count (the loss of Massaroli et al.)."""

from __future__ import annotations

import numpy as np

from ssmid._array import from_numpy, namespace, to_numpy
from ssmid.analysis.hankel import hankel_triplets
from ssmid.distillation.bank import Bank
from ssmid.distillation.projected import Projected, Taps
from ssmid.distillation.shared import of_energy_one
from ssmid.identification.signal_subspace import shift_matrix
from ssmid.linalg import eigvals
from ssmid.reduction.h2_request import closed

_RTOL, _TAIL_RTOL = 1e-13, 1e-3
"""Of the Hankel matrix of the taps: data that obey a recurrence are told from those that do not, whose vectors need not be known well."""


def free_problem(bank: Bank) -> Projected:
    """The squared error over the taps."""
    return Projected.of(Taps.of(bank.strict))


def ringing_poles(bank: Bank, orders: np.ndarray) -> np.ndarray | None:
    """``(n, d)`` poles by shift invariance of the Hankel matrix without zeros beyond the last tap (:func:`ssmid.esprit`), which knows
    a filter that has not faded out, in total least squares. Filters of a group share them: their matrices side by side.

    Poles outside the circle are mirrored into it. Zeros beyond the order. None where the taps are too few.
    """
    size, rows = int(orders.max(initial=0)), bank.length // 2
    if size == 0 or bank.length < 2 * size:
        return None
    xp, found = namespace(bank.strict), np.zeros((len(orders), size), complex)
    taps = xp.reshape(of_energy_one(bank), (len(orders), 1, bank.group, bank.length))
    vectors = hankel_triplets(taps, rows, bank.length - rows + 1, size, rtol=_RTOL, tail_rtol=_TAIL_RTOL).left
    for order in np.unique(orders[orders > 0]):
        places = np.flatnonzero(orders == order)
        own = xp.take(vectors, from_numpy(places, vectors), axis=0)[:, :order, None, :]
        poles = to_numpy(eigvals(shift_matrix(own, total=True)))
        found[places, :order] = closed(_mirrored(poles))
    return found


def _mirrored(poles: np.ndarray) -> np.ndarray:
    size = np.abs(np.where(np.isfinite(poles), poles, 0))
    return np.where(np.isfinite(poles), poles, 0) / np.where(size > 1, size, 1) ** 2
