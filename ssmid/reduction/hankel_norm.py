"""Optimal Hankel-norm approximation: no stable system of its order is nearer, and how near it is is known beforehand.

Adamjan, Arov and Krein (Math. USSR Sbornik 15, 1971) proved that a stable system of order r comes as near as ``sigma_{r+1}``; Glover
(Int. J. Control 39, 1984) constructed it in state space. Balanced truncation, with the same Hankel values, is promised no more
than twice the sum of all that follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import scipy.linalg

from ssmid._array import Array, astype_width, double, from_numpy, in_threads, same_field, to_numpy, width
from ssmid.analysis.conversion import to_modal, to_state_space
from ssmid.analysis.gramians import gramian_factors_or_nan
from ssmid.analysis.hinf import to_continuous
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.analysis.splitting import Triple, split_unstable
from ssmid.reduction.hankel_norm_dilation import Matrices, dilation, equal_values, stable_and_antistable
from ssmid.reduction.hankel_norm_feedthrough import best_feedthrough
from ssmid.reduction.hankel_norm_fir import METHOD, hankel_norm_fir
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse, Modal, StateSpace, System

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
    whether the measured Hankel norm of the error is that to a thousandth. ``condition`` is ``sigma_1 / sigma_{order+1}``, by which
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
    request = _Request(order, tol, feedthrough)
    if isinstance(system, ImpulseResponse) and not mimo:
        return hankel_norm_fir(system, order, tol, keep=feedthrough == "keep")
    modal = isinstance(system, Modal) and not mimo
    work = system if isinstance(system, StateSpace) else to_state_space(system, mimo=mimo)
    if order is not None and (int(order) != order or not 1 <= order <= max(1, work.order)):
        raise ValueError(f"order: expected 1 to {max(1, work.order)}, got {order}")
    A, B, C, D = same_field(*(double(M) for M in work.broadcast_arrays().values()))
    R, L = same_field(*gramian_factors_or_nan(StateSpace(A, B, C, D, work.dt)))
    size = prod(work.batch_shape)
    hosts = [to_numpy(M).reshape(size, *M.shape[-2:]) for M in (A, B, C, D, R, L)]
    single = not work.batch_shape

    def element(k: int) -> _Element:
        return _element(*(M[k] for M in hosts), request=request, discrete=work.is_discrete, single=single)

    return _assembled(in_threads(element, range(size)), system, work, request, modal=modal)


@dataclasses.dataclass(frozen=True)
class _Request:
    order: int | None
    tol: float | None
    feedthrough: str

    def __post_init__(self) -> None:
        if (self.order is None) == (self.tol is None):
            raise ValueError(f"expected either order or tol, got order={self.order} and tol={self.tol}")
        if self.tol is not None and not self.tol > 0:
            raise ValueError(f"tol: expected a positive number, got {self.tol}")
        if self.feedthrough not in ("hinf", "keep"):
            raise ValueError(f"feedthrough: expected 'hinf' or 'keep', got {self.feedthrough!r}")


@dataclasses.dataclass(frozen=True, eq=False)
class _Element:
    """One reduced system on the host, and what is said of it."""

    system: Matrices
    sigma: np.ndarray
    order: int
    converged: bool
    bound: float = np.nan
    lower_bound: float = np.nan
    condition: float = np.nan


# ---------------------------------------------------------------- one system


def _element(
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    D: np.ndarray,
    R: np.ndarray,
    L: np.ndarray,
    *,
    request: _Request,
    discrete: bool,
    single: bool,
) -> _Element:
    unstable: Triple = A[:0, :0], B[:0], C[:, :0]
    lost = _Element((unstable[0], unstable[1], unstable[2], np.full_like(D, np.nan)), np.zeros(0), 0, False)
    if not all(np.isfinite(M).all() for M in (A, B, C, D)):
        return lost
    if not (np.isfinite(R).all() and np.isfinite(L).all()):
        (A, B, C), unstable = split_unstable(A, B, C, discrete=discrete)
        R, L = schur_gramian_factors(A, B, C, discrete=discrete)
    kept = len(unstable[0])
    U, sigma, Vh = scipy.linalg.svd(L.conj().T @ R) if len(A) else (A, np.zeros(0), A)
    degree = int(np.sum(sigma > len(A) * _EPS * sigma.max(initial=0.0)))
    order, met = _order(sigma, degree, kept, request, single)
    if order < 0:
        return dataclasses.replace(lost, sigma=sigma)
    G = (A, B, C, D)
    level = sigma[order] if order < degree else 0.0
    tails = np.append(np.cumsum(sigma[::-1])[::-1], 0.0)
    cut = degree if order >= degree else min(degree, max(order + 1, int(np.argmax(tails <= _NEGLIGIBLE * level))))
    flipped = False
    if discrete:
        G, flipped = to_continuous(*G)
    root = np.sqrt(sigma[:cut])
    left, right = (L @ (U[:, :cut] / root)).conj().T, R @ (Vh[:cut].conj().T / root)
    balanced = (left @ G[0] @ right, left @ G[1], G[2] @ right, G[3])
    stable, attained = (balanced, True) if order >= degree else _nearest(balanced, sigma[:cut], order, tails[order], request)
    if discrete:
        stable = _to_discrete(*stable, flipped)
    A1, B1, C1, D1 = stable
    system = _diagonal(A1, unstable[0]), np.vstack([B1, unstable[1]]), np.hstack([C1, unstable[2]]), D1
    if request.feedthrough == "keep" or order >= degree:
        system = (*system[:3], D)
    promised = tails[order] * (2 if request.feedthrough == "keep" else 1)
    condition = sigma[0] / level if level > 0 else 1.0
    return _Element(system, sigma, len(A1) + kept, met and attained, promised, level, condition)


def _order(sigma: np.ndarray, degree: int, kept: int, request: _Request, single: bool) -> tuple[int, bool]:
    """States of the stable part, or -1 where the unstable ones are too many, and whether it is what was asked for."""
    if request.tol is not None:
        return min(degree, int(np.sum(sigma > request.tol * sigma.max(initial=0.0)))), True
    assert request.order is not None
    if single and request.order < kept:
        raise ValueError(f"order: expected at least {kept}, the number of unstable poles, which are kept, got {request.order}")
    if single and 0 < degree + kept < request.order:
        raise ValueError(f"order: expected 1 to {degree + kept}, which is what the system carries to rounding, got {request.order}")
    if request.order < kept:
        return -1, False
    return min(request.order - kept, degree), request.order <= degree + kept or degree + kept == 0


def _nearest(G: Matrices, sigma: np.ndarray, order: int, tail: float, request: _Request) -> tuple[Matrices, bool]:
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
    chosen = G[3] if request.feedthrough == "keep" else best_feedthrough(G, sigma, reduced, rest, D, tail)
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


# ---------------------------------------------------------------- the result


def _assembled(elements: Sequence[_Element], original: System, work: StateSpace, request: _Request, *, modal: bool) -> Reduction:
    batch, like, discrete = work.batch_shape, work.A, work.is_discrete
    bits = width(like)
    orders = np.array([e.order for e in elements], dtype=int).reshape(batch)
    size = int(orders.max(initial=0))
    padded = zip(*(_padded(e, size, discrete) for e in elements), strict=True)
    matrices = [np.stack(parts).reshape(*batch, *np.shape(parts[0])) for parts in padded]
    if not elements:
        matrices = [np.zeros((*batch, *shape)) for shape in ((0, 0), (0, work.inputs), (work.outputs, 0), (work.outputs, work.inputs))]

    def returned(values: Any) -> Array:
        return astype_width(from_numpy(np.asarray(values, order="C"), like), bits)

    def fact(name: str) -> Array:
        return returned(np.array([getattr(e, name) for e in elements], dtype=float).reshape(batch))

    count = max((len(e.sigma) for e in elements), default=0)
    sigma = [np.pad(e.sigma, (0, count - len(e.sigma)), constant_values=0.0 if len(e.sigma) else np.nan) for e in elements]
    states = StateSpace(*(returned(M) for M in matrices), dt=work.dt)
    result: System = states
    if modal and isinstance(original, Modal):
        result = dataclasses.replace(to_modal(states), real=original.real)
    converged = np.array([e.converged for e in elements], dtype=bool).reshape(batch)
    return Reduction(
        system=result,
        original=original,
        method=METHOD,
        order=int(orders.flat[0]) if orders.size and (orders == orders.flat[0]).all() else from_numpy(orders, like),
        sigma=returned(np.array(sigma, dtype=float).reshape(*batch, count)),
        bound=fact("bound"),
        lower_bound=fact("lower_bound"),
        converged=from_numpy(converged, like),
        condition=fact("condition"),
    )


def _padded(element: _Element, size: int, discrete: bool) -> Matrices:
    """With states that decay, unreached and unseen."""
    A, B, C, D = element.system
    missing = size - len(A)
    A = _diagonal(A, np.zeros((missing, missing)) - (0 if discrete else 1) * np.eye(missing))
    return A, np.pad(B, ((0, missing), (0, 0))), np.pad(C, ((0, 0), (0, missing))), D


def _diagonal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.linalg.block_diag(first, second))
