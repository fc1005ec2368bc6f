"""Prony's method on every filter: poles as roots of a prediction polynomial, residues by least squares over the taps."""

from __future__ import annotations

import numpy as np

from ssmid._array import namespace
from ssmid.distillation.bank import Bank
from ssmid.distillation.by_order import AtOrder, fit_by_order, nothing
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace
from ssmid.identification.exponentials import prony
from ssmid.systems import ImpulseResponse


def fit_prony(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """:func:`ssmid.prony` (Kumaresan & Tufts, IEEE Trans. ASSP 30, 1982), unstable poles reflected at the unit circle and residues
    fitted again. At most half as many states as there are taps after the first. Errors are those of the taps alone: what a slow pole
    does after the last one does not count."""
    return fit_by_order(bank, orders, _at_order)


def _at_order(bank: Bank, order: int) -> AtOrder:
    xp, order = namespace(bank.strict), min(order, bank.length // 2)
    if order == 0:
        return nothing(bank)
    taps = xp.concat([xp.zeros_like(bank.strict[:, :1]), bank.strict], axis=-1)
    fit = prony(ImpulseResponse(taps), order, stable=True)
    return AtOrder(fit.modal.poles, fit.modal.residues, fit.converged, fit.condition)
