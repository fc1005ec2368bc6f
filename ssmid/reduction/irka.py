"""IRKA: the H2-optimal interpolation conditions met by fixed-point iteration on the poles, for dense and sparse systems."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg

from ssmid._array import Array
from ssmid.reduction.one_by_one import Element, Reduced, reduce_one_by_one, truncated
from ssmid.reduction.result import Reduction
from ssmid.systems import System

_EXCESS_ROUNDING = 1e-11
"""Squared errors are made of differences of squared norms, and are known to about this part of these."""

Solve = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``solve(points, X)``: column i is ``(points_i I - A)^-1 X_i`` in continuous time, ``(I - A / points_i)^-1 X_i`` in discrete time
with ``1 / points_i`` given in place of ``points_i``, so that a pole at zero is no exception."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class InterpolatoryReduction(Reduction):
    """A :class:`Reduction` that knows how well it meets the conditions of H2 optimality.

    conditions : ``(*batch,)`` the largest residual of the Meier-Luenberger interpolation conditions, each relative to its own terms
    iterations : ``(*batch,)`` steps that were taken
    """

    conditions: Array
    iterations: Array


def irka(system: System, order: int, *, tol: float = 1e-8, max_iterations: int = 100) -> InterpolatoryReduction:
    """The system of ``order`` states that interpolates ``system`` at its own mirrored poles: a stationary point of the H2 error.

    system : StateSpace (single or batch, real or complex, continuous or discrete) or what :func:`ssmid.to_state_space` takes
    tol : of the Meier-Luenberger conditions (``conditions``), at which the iteration stops and is ``converged``
    max_iterations : after which the best iterate so far is returned, with ``converged`` False

    With poles ``lambda_i`` and residues ``c_i b_i^H`` of the reduced system, the optimum satisfies ``H(s) b_i = H_r(s) b_i``,
    ``c_i^H H(s) = c_i^H H_r(s)`` and ``c_i^H H'(s) b_i = c_i^H H_r'(s) b_i`` at the mirror image ``s = -conj(lambda_i)``
    (``1 / conj(lambda_i)`` in discrete time). The iteration starts from balanced truncation; its error, known at each step up to
    a constant, need not fall, so that the best stable iterate is what is returned: not
    worse than balanced truncation in H2, to 1e-6 of the norm of the original.
    Real systems are projected on real bases. The unstable part is kept. ``bound`` is NaN: no bound is known beforehand.
    Not differentiable. Sources: Meier & Luenberger, IEEE Trans. Automat. Control 12, 1967; Gugercin, Antoulas & Beattie, SIAM J.
    Matrix Anal. Appl. 30, 2008; Bunse-Gerstner et al., J. Comput. Appl. Math. 233, 2010 (discrete time, several channels).

    Raises ValueError for an order below 1, below the number of unstable poles, or above what the system carries to rounding.

    >>> from ssmid import balanced_truncation, ss
    >>> import numpy as np
    >>> system = ss(np.diag([-1.0, -2.0, -5.0]), [1.0, 1.0, 2.0], [1.0, -0.5, 1.0], dt=0)
    >>> fit = irka(system, 1)
    >>> bool(fit.error < balanced_truncation(system, 1).error), bool(fit.conditions < 1e-8)
    (True, True)
    """
    reduce = partial(_of_element, tol=tol, max_iterations=max_iterations)
    return reduce_one_by_one(system, order, "IRKA", reduce, InterpolatoryReduction)


def _of_element(element: Element, order: int, *, tol: float, max_iterations: int) -> Reduced:
    """On the balanced realization without the states that are rounding, which is smaller and well scaled."""
    left, right, sigma = element.balanced
    A, B, C, D = truncated(element, left, right, sigma, element.degree)
    start = A[:order, :order], B[:order], C[:, :order]
    if order == element.degree:
        return Reduced((A, B, C, D), bound=2 * float(np.sum(sigma[order:])))
    solvers = schur_solvers(A, discrete=element.discrete)
    iterates = fixed_point(*solvers, A, B, C, start, discrete=element.discrete, tol=tol, most=max_iterations)
    return Reduced(
        (*iterates.matrices, D),
        converged=iterates.conditions <= tol,
        condition=iterates.condition,
        numbers={"conditions": iterates.conditions, "iterations": float(iterates.steps)},
    )


# ---------------------------------------------------------------- the iteration


@dataclasses.dataclass(frozen=True, eq=False)
class Iterate:
    """The best of the iterates: ``A, B, C``, its Meier-Luenberger residual, the condition of the projection, and all steps taken."""

    matrices: tuple[np.ndarray, np.ndarray, np.ndarray]
    conditions: float
    condition: float
    steps: int


def fixed_point(
    solve: Solve,
    adjoint_solve: Solve,
    A: Any,
    B: np.ndarray,
    C: np.ndarray,
    start: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    discrete: bool,
    tol: float,
    most: int,
) -> Iterate:
    """IRKA from ``start``; ``A`` is whatever multiplies a matrix from the left by ``@``, and is reached by ``solve`` otherwise.

    adjoint_solve : as ``solve``, with ``A^H`` and the conjugate points
    """
    best, least = None, float("inf")
    reduced, condition, steps = start, 1.0, 0
    for steps in range(most + 1):
        modes = _modes(*reduced, discrete=discrete)
        if modes is None:
            break
        points, b, c, stable = modes
        V, W = solve(points, B @ b), adjoint_solve(points, C.conj().T @ c)
        if stable:
            residual, excess = _optimality(V, W, B, C, reduced, points, b, c, discrete=discrete)
            met = residual <= tol
            if best is None or excess < least + met * _EXCESS_ROUNDING * abs(least):
                best, least = Iterate(reduced, residual, condition, steps), excess
            if met:
                break
        reduced, condition = _projected(V, W, A, B, C, points, real=np.isrealobj(start[0]))
    if best is None:
        return Iterate(start, np.inf, 1.0, steps)
    return dataclasses.replace(best, steps=steps)


def _modes(A: np.ndarray, B: np.ndarray, C: np.ndarray, *, discrete: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool] | None:
    """Points where to interpolate and directions ``b`` ``(m, r)``, ``c`` ``(p, r)``; whether stable. None where not diagonalizable.

    Points are ``-conj(lambda)``, or ``conj(lambda)`` of poles inside the circle (the inverse of the mirror image).
    Unstable poles are taken at their mirror image. For real systems one of each conjugate pair.
    """
    poles, X = np.linalg.eig(A)
    if not np.isfinite(X).all() or np.linalg.cond(X) > 1 / np.finfo(float).eps:
        return None
    b, c = np.linalg.solve(X, B).conj().T, C @ X
    stable = bool((np.abs(poles) < 1).all() if discrete else (np.real(poles) < 0).all())
    if not np.iscomplexobj(A):
        upper = np.imag(poles) >= 0
        poles, b, c = poles[upper], b[:, upper], c[:, upper]
    if discrete:
        outside = np.abs(poles) >= 1
        points = np.where(outside, 1 / np.where(outside, poles, 1), poles.conj())
    else:
        points = np.abs(np.real(poles)) + 1j * np.imag(poles)
    return points, b, c, stable


def _optimality(
    V: np.ndarray,
    W: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    reduced: tuple[np.ndarray, np.ndarray, np.ndarray],
    points: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    *,
    discrete: bool,
) -> tuple[float, float]:
    """The residual of the Meier-Luenberger conditions, and the squared H2 error less the square of the norm of the original.

    ``<H, H_r> = sum_i c_i^H H(s_i) b_i``, so that the error costs no more than what the iteration computes anyway (Gugercin,
    Antoulas & Beattie 2008, lemma 2.4; strictly proper parts).
    """
    Ar, Br, Cr = reduced
    small, small_adjoint = schur_solvers(Ar, discrete=discrete)
    Vr, Wr = small(points, Br @ b), small_adjoint(points, Cr.conj().T @ c)
    right, right_r = C @ V, Cr @ Vr
    left, left_r = B.conj().T @ W, Br.conj().T @ Wr
    slope, slope_r = np.sum(W.conj() * V, axis=0), np.sum(Wr.conj() * Vr, axis=0)
    residual = 0.0
    for full, small_one in ((right, right_r), (left, left_r), (slope[None], slope_r[None])):
        size = np.linalg.norm(full, axis=0)
        residual = max(residual, float((np.linalg.norm(full - small_one, axis=0) / np.where(size > 0, size, 1)).max()))
    weights = np.where(np.imag(points) != 0, 2.0, 1.0) if not np.iscomplexobj(Ar) else np.ones(len(points))
    excess = float(np.sum(weights * np.real(np.sum(c.conj() * (right_r - 2 * right), axis=0))))
    return residual, excess


def _projected(
    V: np.ndarray, W: np.ndarray, A: Any, B: np.ndarray, C: np.ndarray, points: np.ndarray, *, real: bool
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], float]:
    """The oblique projection on the spans of ``V`` and ``W``, by bases that are biorthogonal."""
    if real:
        pairs = np.imag(points) != 0
        V, W = (np.hstack([np.real(X), np.imag(X)[:, pairs]]) for X in (V, W))
    V, W = (np.linalg.qr(X / np.linalg.norm(X, axis=0))[0] for X in (V, W))
    U, s, Zh = scipy.linalg.svd(W.conj().T @ V, check_finite=False)
    root = np.sqrt(np.maximum(s, np.finfo(float).tiny))
    V, W = V @ (Zh.conj().T / root), W @ (U / root)
    return (W.conj().T @ (A @ V), W.conj().T @ B, C @ V), float(s[0] / max(s[-1], np.finfo(float).tiny))


# ---------------------------------------------------------------- solves


def schur_solvers(A: np.ndarray, *, discrete: bool) -> tuple[Solve, Solve]:
    """``solve`` and ``adjoint_solve`` of a dense matrix: one Schur form, then back substitution for all points together."""
    T, Z = scipy.linalg.schur(A.astype(complex), check_finite=False)[:2]

    def solve(points: np.ndarray, X: np.ndarray) -> np.ndarray:
        return Z @ _back_substitution(T, Z.conj().T @ X, points, discrete)

    flipped = np.ascontiguousarray(T.conj().T[::-1, ::-1])

    def adjoint_solve(points: np.ndarray, X: np.ndarray) -> np.ndarray:
        return Z @ _back_substitution(flipped, (Z.conj().T @ X)[::-1], points.conj(), discrete)[::-1]

    return solve, adjoint_solve


def _back_substitution(T: np.ndarray, X: np.ndarray, points: np.ndarray, discrete: bool) -> np.ndarray:
    """Column i is ``(points_i I - T)^-1 X_i``, or ``(I - points_i T)^-1 X_i``, for upper triangular ``T``."""
    X = X.astype(complex)
    tiny = np.finfo(float).tiny
    for k in range(len(T) - 1, -1, -1):
        known = T[k, k + 1 :] @ X[k + 1 :]
        pivot = 1 - points * T[k, k] if discrete else points - T[k, k]
        X[k] = (X[k] + (points * known if discrete else known)) / np.where(pivot == 0, tiny, pivot)
    return X
