"""Optimal Hankel-norm approximation: no stable system of its order is nearer, and how near it is is known beforehand.

Adamjan, Arov and Krein (Math. USSR Sbornik 15, 1971) proved that a stable system of order r comes as near as ``sigma_{r+1}``; Glover
(Int. J. Control 39, 1984) constructed it in state space. Balanced truncation, with the same Hankel values, is promised no more
than twice the sum of all that follow.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import scipy.linalg

from ssmid.analysis.conversion import to_modal
from ssmid.analysis.hinf import to_continuous
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.analysis.splitting import Triple
from ssmid.reduction.arguments import order_or_tolerance
from ssmid.reduction.hankel_norm_dilation import Matrices, dilation, equal_values, stable_and_antistable
from ssmid.reduction.hankel_norm_feedthrough import best_feedthrough
from ssmid.reduction.hankel_norm_fir import METHOD, hankel_norm_fir
from ssmid.reduction.one_by_one import Element, Reduced, reduce_one_by_one, truncated
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse, Modal, System

_EPS = float(np.finfo(float).eps)
_NEGLIGIBLE = 1e-9
_CLOSE, _ATTAINED = 1e-7, 1e-3
_SPREADS = (1e-8, 1e-6, 1e-4)


def hankel_norm_approximation(
    system: System, order: int | None = None, *, tol: float | None = None, feedthrough: str = "hinf", mimo: bool = False
) -> Reduction:
    """The stable system of ``order`` states that is nearest in Hankel norm: at ``sigma_{order+1}``. One system or a whole batch.

    system : a StateSpace gives a StateSpace, a Modal bank a Modal bank (each channel for itself), other representations go through
        :func:`ssmid.to_state_space`. Continuous or discrete time, any inputs and outputs. An ImpulseResponse is taken as the finite
        response that it is, by its Schmidt pair (:mod:`ssmid.reduction.hankel_norm_fir`);
        with ``mimo`` it goes through its state space, which is dense work for up to about a thousand states.
    order : states, unstable ones included, or
    tol : the largest Hankel-norm error as a fraction of ``sigma_1``; the smallest order with ``sigma_{order+1} <= tol * sigma_1`` is
        taken, for each element by itself (smaller ones are padded with states that no input reaches).
    feedthrough : "hinf" chooses the feedthrough, which the Hankel norm does not see, for a small H-infinity error; it is then at
        most ``bound``, the sum of the Hankel values beyond the order: half of what balanced truncation is promised. "keep" leaves
        the feedthrough as it is, at the bound ``2 sum_{i > order} sigma_i``.
    mimo : the last two batch axes of a Modal bank or of taps are outputs and inputs of one system.

    Where ``sigma_order = sigma_{order+1}`` a smaller order is as near, and that one is returned. Unstable parts, poles on the boundary
    included, are split off and kept; ``sigma`` belongs to the stable part. ``lower_bound`` is ``sigma_{order+1}``, and ``converged`` says
    whether the measured Hankel norm of the error is that to a thousandth; of taps, whether a bound of that norm is, to a hundredth, or
    to 1e-12 of ``sigma_1`` where that is more. ``condition`` is ``sigma_1 / sigma_{order+1}``, by which
    rounding grows in the error.

    From a balanced realization without the states whose Hankel values sum to less than 1e-9 of ``sigma_{order+1}``, by the all-pass
    dilation of Glover 1984 in scaled coordinates (:mod:`ssmid.reduction.hankel_norm_dilation`); discrete time by the bilinear map,
    which keeps Hankel values. Not differentiable.

    Raises ValueError for an order below 1 or below the number of unstable poles, for one above what a single system carries to
    rounding (quoting it), for both or neither of ``order`` and ``tol``, for a tolerance that is not positive and an unknown
    ``feedthrough``. In a batch such elements get what they carry, or NaN, and ``converged`` False.

    >>> from ssmid import zpk
    >>> fit = hankel_norm_approximation(zpk([-0.5], [0.9, 0.1, 0.11], 1.0), order=1)
    >>> fit.system
    StateSpace(order=1, outputs=1, inputs=1, batch=(), dt=1, float64)
    >>> round(float(fit.measured("hankel") / fit.lower_bound), 6), bool(fit.measured("hinf") <= fit.bound)
    (1.0, True)
    """
    order_or_tolerance(order, tol)
    if feedthrough not in ("hinf", "keep"):
        raise ValueError(f"feedthrough: expected 'hinf' or 'keep', got {feedthrough!r}")
    if isinstance(system, ImpulseResponse) and not mimo:
        return hankel_norm_fir(system, order, tol, keep=feedthrough == "keep")
    keep = feedthrough == "keep"
    wanted = order if tol is None or order is not None else partial(_order_within, tol)
    assert wanted is not None
    result = reduce_one_by_one(system, wanted, METHOD, partial(_of_element, keep=keep), Reduction, least=0, mimo=mimo)
    if isinstance(system, Modal) and not mimo:
        result = dataclasses.replace(result, system=dataclasses.replace(to_modal(result.system), real=system.real))
    return result


def _order_within(tol: float, sigma: np.ndarray) -> int:
    return int(np.sum(sigma > max(tol, len(sigma) * _EPS) * sigma.max(initial=0.0)))


# ---------------------------------------------------------------- one system


def _of_element(element: Element, order: int, *, keep: bool) -> Reduced:
    sigma, degree = element.sigma, element.degree
    level = sigma[order] if order < degree else 0.0
    tails = np.append(np.cumsum(sigma[::-1])[::-1], 0.0)
    cut = degree if order >= degree else min(degree, max(order + 1, int(np.argmax(tails <= _NEGLIGIBLE * level))))
    G, flipped = (element.A, element.B, element.C, element.D), False
    if element.discrete:
        G, flipped = to_continuous(*G)
    balanced = truncated(Element(*G, discrete=False), *element.balanced, cut)
    stable, attained = (balanced, True) if order >= degree else _nearest(balanced, sigma[:cut], order, tails[order], keep=keep)
    if element.discrete:
        stable = _to_discrete(*stable, flipped)
    if keep or order >= degree:
        stable = (*stable[:3], element.D)
    promised = float(tails[order]) * (2 if keep else 1)
    condition = float(sigma[0] / level) if level > 0 else 1.0
    return Reduced(stable, bound=promised, lower_bound=float(level), converged=attained, condition=condition)


def _nearest(G: Matrices, sigma: np.ndarray, order: int, tail: float, *, keep: bool) -> tuple[Matrices, bool]:
    """The approximation of a balanced system and whether it attains ``sigma[order]``.

    Values that differ by a little more than rounding are tried as equal where their difference has spoilt the result.
    """
    best, least = None, np.inf
    groups = [equal_values(sigma, order, spread) for spread in _SPREADS]
    for k, group in enumerate(groups):
        if group in groups[:k]:
            continue
        *states, D = dilation(*G, sigma, group)
        try:
            reduced, rest = stable_and_antistable(states[0], states[1], states[2], np.delete(sigma, np.arange(len(sigma))[group]))
        except np.linalg.LinAlgError:
            continue
        error = _hankel_error(G, reduced)
        if error < least and len(reduced[0]) <= order:
            best, least = (reduced, rest, D), error
        if least <= (1 + _CLOSE) * sigma[order]:
            break
    if best is None:
        A, B, C, D = G
        return (A[:order, :order], B[:order], C[:, :order], D), False
    reduced, rest, D = best
    chosen = G[3] if keep else best_feedthrough(G, sigma, reduced, rest, D, tail)
    return (*reduced, chosen), bool(least <= (1 + _ATTAINED) * sigma[order])


def _hankel_error(G: Matrices, reduced: Triple) -> float:
    (A, B, C, _), (A2, B2, C2) = G, reduced
    R, L = schur_gramian_factors(_diagonal(A, A2), np.vstack([B, B2]), np.hstack([C, -C2]), discrete=False)
    return float(np.linalg.norm(L.conj().T @ R, 2)) if np.isfinite(R).all() else np.inf


def _to_discrete(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, flipped: bool) -> Matrices:
    """The inverse of :func:`ssmid.analysis.hinf.to_continuous`: ``s = (z - 1) / (z + 1)``, then ``z -> -z`` where ``flipped``."""
    inverse = np.linalg.inv(np.eye(len(A)) - A)
    A, B, C, D = (np.eye(len(A)) + A) @ inverse, np.sqrt(2) * inverse @ B, np.sqrt(2) * C @ inverse, D + C @ inverse @ B
    return (-A, B, -C, D) if flipped else (A, B, C, D)


def _diagonal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.linalg.block_diag(first, second))
