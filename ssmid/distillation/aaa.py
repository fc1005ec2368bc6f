"""The AAA algorithm on the spectrum of every filter (Nakatsukasa, Sete & Trefethen, SIAM J. Sci. Comput. 40, 2018)."""

from __future__ import annotations

import numpy as np

from ssmid._array import fft_of, namespace, next_fast_length
from ssmid.distillation.bank import Bank
from ssmid.distillation.by_order import AtOrder, fit_by_order
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace
from ssmid.identification.aaa import aaa


def fit_aaa(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """:func:`ssmid.aaa` with stable poles, from the spectrum on an FFT grid of twice the length.

    Its constant is left out, because tap 0 is kept as it is. What its poles then minimize is the squared error on that grid, which
    wraps the response around twice the length.
    """
    return fit_by_order(bank, orders, _at_order)


def _at_order(bank: Bank, order: int) -> AtOrder:
    xp = namespace(bank.strict)
    taps = xp.concat([xp.zeros_like(bank.strict[:, :1]), bank.strict], axis=-1)
    size = next_fast_length(2 * taps.shape[-1])
    values = fft_of(taps).rfft(taps, n=size, axis=-1)
    omega = 2 * np.pi / size * xp.arange(values.shape[-1], dtype=xp.float64, device=taps.device)
    fit = aaa(xp.exp(1j * xp.astype(omega, values.dtype)), values, order, dt=1, stable=True)
    return AtOrder(fit.modal.poles, fit.modal.residues, fit.converged, fit.condition)
