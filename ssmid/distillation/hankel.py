"""The Hankel-norm optimum of every filter (Adamjan, Arov & Krein, Math. USSR Sbornik 15, 1971), in modal form."""

from __future__ import annotations

import warnings

import numpy as np

from ssmid._array import namespace
from ssmid.analysis.modal_form import modal_and_condition
from ssmid.distillation.bank import Bank
from ssmid.distillation.by_order import AtOrder, fit_by_order
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace
from ssmid.reduction.hankel_norm_fir import hankel_norm_fir
from ssmid.systems import ConversionWarning, ImpulseResponse


def fit_hankel(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """No stable system of as many states is nearer in Hankel norm: the error is ``sigma_{order+1}``.

    The subspace is not used: one Schmidt pair is needed, to more digits (reduction/hankel_norm_fir.py). A filter gets fewer states
    than asked for where the Hankel values beyond are equal, which makes them of no use, or rounding. ``condition`` is that of the
    poles; where they repeat the nearest that are apart are returned.
    """
    return fit_by_order(bank, orders, _at_order)


def _at_order(bank: Bank, order: int) -> AtOrder:
    xp = namespace(bank.strict)
    taps = xp.concat([xp.zeros_like(bank.strict[:, :1]), bank.strict], axis=-1)
    reduction = hankel_norm_fir(ImpulseResponse(taps), order, None, keep=True)
    with warnings.catch_warnings():
        # the certificate measures what the conversion lost
        warnings.simplefilter("ignore", ConversionWarning)
        modal, condition = modal_and_condition(reduction.system)
    # where all Hankel values up to the one asked for are equal, nothing is as good as anything
    nothing = xp.all(modal.residues == 0, axis=-1)
    return AtOrder(modal.poles, modal.residues, reduction.converged | nothing, condition)
