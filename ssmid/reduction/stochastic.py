"""Balanced stochastic truncation: the error is small relative to the system at each frequency, also where its gain is small."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import scipy.linalg

from ssmid._array import Array
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.reduction.one_by_one import Element, Reduced, balancing, reduce_one_by_one, truncated
from ssmid.reduction.result import Reduction
from ssmid.systems import System

_DEFAULT_FLOOR = 1e-3


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StochasticReduction(Reduction):
    """A :class:`Reduction` with a bound of the relative error.

    phase_sigma : ``(*batch, n)`` Hankel values of the phase system ``W^-~ H``, at most 1
    relative_bound : ``(*batch,)`` of ``||H^-1 (H - H_r)||_inf``, ``prod_{i > order} (1 + s_i) / (1 - s_i) - 1`` (Green 1988); with a
        ``floor``, of ``[H, floor sigma_1 I]`` in place of H
    """

    phase_sigma: Array
    relative_bound: Array


def stochastic_truncation(system: System, order: int, *, floor: float | None = None) -> StochasticReduction:
    """The system of ``order`` states by balanced stochastic truncation: its error is small relative to the gain everywhere.

    system : StateSpace (single or batch, real or complex, continuous or discrete) or what :func:`ssmid.to_state_space` takes
    floor : gain, in units of the largest Hankel value ``sigma_1``, below which the error is absolute, not relative: ``[H, floor
        sigma_1 I]`` is approximated in place of ``H``, which then needs no feedthrough. None: 0 where the feedthrough has full
        rank, else 1e-3. Below about 1e-5 the Riccati equation is solved to rounding only, which the bound does not know.

    The controllability Gramian is balanced against the solution of the Riccati equation of the spectral factor ``W`` of
    ``H H~ = W~ W`` (with more outputs than inputs, of the transposed system). Zeros in the right half plane stay there. The
    unstable part is kept and takes no part. ``bound`` is NaN, ``relative_bound`` is what is known; ``condition`` is that of the
    feedthrough's square. Not differentiable. Sources: Desai & Pal, IEEE Trans. Automat. Control 29, 1984; Green, IEEE Trans.
    Automat. Control 33, 1988 (bound); Varga & Fasol, Automatica 29, 1993 (floor).

    Raises ValueError for an order below 1 or above what the system carries to rounding, a negative floor, a floor of 0 without a
    feedthrough of full rank, and where the Riccati equation finds no solution.

    >>> from ssmid import zpk
    >>> fit = stochastic_truncation(zpk([-2.0, -40.0], [-1.0, -30.0], 1.0, dt=0), 1)
    >>> bool(fit.relative_bound < 0.25)
    True
    """
    if floor is not None and not 0 <= floor < np.inf:
        raise ValueError(f"floor: expected a number >= 0, got {floor}")
    return reduce_one_by_one(system, order, "stochastic balancing", partial(_of_element, floor=floor), StochasticReduction)


def _of_element(element: Element, order: int, *, floor: float | None) -> Reduced:
    if len(element.C) > element.B.shape[1]:
        A, B, C, D = (M.conj().T for M in (element.A, element.C, element.B, element.D))
        dual = _of_element(Element(A, B, C, D, element.discrete), order, floor=floor)
        Ar, Br, Cr, Dr = (M.conj().T for M in dual.matrices)
        return dataclasses.replace(dual, matrices=(Ar, Cr, Br, Dr))
    A, B, C, D = element.A, element.B, element.C, element.D
    size = np.linalg.svd(D, compute_uv=False)
    full = size.size > 0 and size[-1] > 1e-12 * max(size[0], float(element.sigma[0]))
    level = (0.0 if full else _DEFAULT_FLOOR) if floor is None else floor
    if level == 0 and not full:
        raise ValueError("floor: expected a positive number for a system whose feedthrough has not full rank, got 0")
    square = D @ D.conj().T + (level * float(element.sigma[0])) ** 2 * np.eye(len(C))
    R = schur_gramian_factors(A, B, C, discrete=element.discrete)[0]
    try:
        X = _spectral_riccati(A, B, C, D, R @ R.conj().T, square, element.discrete)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"expected a system with a spectral factor, got one whose Riccati equation fails: {error}") from None
    values, vectors = np.linalg.eigh((X + X.conj().T) / 2)
    left, right, phase = balancing(R, vectors * np.sqrt(np.maximum(values, 0)))
    usable = int(np.sum(phase > len(A) * np.finfo(float).eps * phase[0]))
    phase = np.minimum(phase, 1.0)
    with np.errstate(divide="ignore"):
        bound = float(np.expm1(np.sum(np.log1p(phase[order:]) - np.log1p(-phase[order:]))))
    return Reduced(
        truncated(element, left, right, phase, min(order, usable)),
        condition=float(np.linalg.cond(square)),
        numbers={"phase_sigma": phase, "relative_bound": bound},
    )


def _spectral_riccati(
    A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, gramian: np.ndarray, square: np.ndarray, discrete: bool
) -> np.ndarray:
    """The observability Gramian of the phase system: the stabilizing solution of Green's Riccati equation, (1988) eq. 2.6."""
    none = np.zeros_like(A)
    if discrete:
        inputs = A @ gramian @ C.conj().T + B @ D.conj().T
        total = C @ gramian @ C.conj().T + square
        return scipy.linalg.solve_discrete_are(A, inputs, none, -(total + total.conj().T) / 2, s=-C.conj().T)
    inputs = gramian @ C.conj().T + B @ D.conj().T
    return scipy.linalg.solve_continuous_are(A, inputs, none, -(square + square.conj().T) / 2, s=-C.conj().T)
