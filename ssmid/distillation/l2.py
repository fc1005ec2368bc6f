"""The l2 optimum of every filter: Newton's method over poles, all filters at once, from the poles of balanced truncation.

There are many local minima. Pole pairs that do little change places for some that do more (:mod:`ssmid.reduction.h2_exchange`), which
costs less than a second start and finds more.
"""

from __future__ import annotations

import numpy as np

from ssmid._array import from_numpy, namespace, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.fitted import Fitted, optimal_residues
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace
from ssmid.reduction.h2_exchange import exchanged, replaced
from ssmid.reduction.h2_newton import Optimum, optimal_poles, search
from ssmid.reduction.h2_request import prepared
from ssmid.reduction.h2_sources import TapsSource

_USUAL_ORDER = 16
_NEGLIGIBLE = 1e-2
"""The share of the accuracy that is asked for that rounding may take."""
_FIRST, _AFTER = 8, 8
"""Newton steps before pairs are exchanged, and after each exchange."""


def fit_l2(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """Poles and residues of least squared error over all time."""
    assert subspace is not None
    start = prepared(_pairs_first(subspace.poles(orders)), orders, bank.strict, real=True)
    size = int(orders.max(initial=0))
    first = min(_FIRST, options.max_iterations)
    # the more poles the flatter the way to the minimum
    gtol = options.gtol * min(1.0, (_USUAL_ORDER / max(size, 1)) ** 2)
    source = TapsSource.of(bank.strict, real=True, doubtful=_NEGLIGIBLE * gtol)
    rounds = max(2, (size - 8) // 5) if options.exchanges is None else options.exchanges

    def refined(source: TapsSource, optimum: Optimum) -> Optimum:
        optimum = exchanged(source, optimum, rounds if first else 0, max_iterations=_AFTER, gtol=gtol)
        return finished(source, optimum, options.max_iterations - first, gtol)

    optimum = search(source, [start], options.restarts, real=True, max_iterations=first, gtol=gtol, then=refined)
    residues = optimal_residues(bank, optimum.poles, optimum.live)
    xp = namespace(residues)
    poles = xp.where(optimum.live, optimum.poles, xp.zeros_like(optimum.poles))
    return Fitted(poles[:, :size], residues[:, :size], orders, optimum.converged | (source.energy == 0), optimum.condition)


def finished(source: TapsSource, optimum: Optimum, max_iterations: int, gtol: float) -> Optimum:
    """The optimum with the elements that have not converged taken further."""
    xp = namespace(optimum.poles)
    places = np.flatnonzero(to_numpy(~optimum.converged & xp.isfinite(optimum.error)))
    if len(places) == 0 or max_iterations == 0:
        return optimum
    rows = from_numpy(places, optimum.poles)
    poles, live = (xp.take(x, rows, axis=0) for x in (optimum.poles, optimum.live))
    found = optimal_poles(source.take(rows), poles, live, real=True, max_iterations=max_iterations, gtol=gtol)
    return replaced(optimum, found, places)


def _pairs_first(poles: np.ndarray) -> np.ndarray:
    """``(n, d)`` eigenvalues of real matrices, whose pairs are exact neighbours, with the real ones, and zeros, behind them."""
    order = np.argsort(np.imag(poles) == 0, axis=-1, kind="stable")
    return np.take_along_axis(poles, order, axis=-1)
