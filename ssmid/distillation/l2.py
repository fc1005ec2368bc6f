"""The l2 optimum of every filter: Newton's method over poles, all filters at once, from the poles of balanced truncation."""

from __future__ import annotations

import numpy as np

from ssmid._array import namespace
from ssmid.distillation.bank import Bank
from ssmid.distillation.fitted import Fitted, optimal_residues
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace
from ssmid.reduction.h2_newton import search
from ssmid.reduction.h2_request import prepared
from ssmid.reduction.h2_sources import TapsSource


def fit_l2(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """Poles and residues of least squared error over all time."""
    assert subspace is not None
    start = prepared(_pairs_first(subspace.poles(orders)), orders, bank.strict, real=True)
    source = TapsSource.of(bank.strict, real=True)
    optimum = search(source, [start], options.restarts, real=True, max_iterations=options.max_iterations, gtol=options.gtol)
    residues = optimal_residues(bank, optimum.poles, optimum.live)
    xp = namespace(residues)
    poles = xp.where(optimum.live, optimum.poles, xp.zeros_like(optimum.poles))
    size = int(orders.max(initial=0))
    return Fitted(poles[:, :size], residues[:, :size], orders, optimum.converged | (source.energy == 0), optimum.condition)


def _pairs_first(poles: np.ndarray) -> np.ndarray:
    """``(n, d)`` eigenvalues of real matrices, whose pairs are exact neighbours, with the real ones, and zeros, behind them."""
    order = np.argsort(poles.imag == 0, axis=-1, kind="stable")
    return np.take_along_axis(poles, order, axis=-1)
