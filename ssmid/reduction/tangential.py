"""Tangential interpolation at the mirrored poles of the reduced system itself: the fixed point that IRKA looks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

_EXCESS_ROUNDING = 1e-11
"""Squared errors are made of differences of squared norms, and are known to about this part of these."""

Solve = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``solve(points, X)``: column i is ``(points_i I - A)^-1 X_i`` in continuous time, ``(I - A / points_i)^-1 X_i`` in discrete time
with ``1 / points_i`` given in place of ``points_i``, so that a pole at zero is no exception."""

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray]


# ---------------------------------------------------------------- the iteration


@dataclasses.dataclass(frozen=True, eq=False)
class Iterate:
    """The best of the iterates: ``A, B, C``, its Meier-Luenberger residual, the condition of the projection, and all steps taken."""

    matrices: Matrices
    conditions: float
    condition: float
    steps: int


def fixed_point(
    solve: Solve,
    adjoint_solve: Solve,
    A: Any,
    B: np.ndarray,
    C: np.ndarray,
    start: Matrices,
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
        found = modes(*reduced, discrete=discrete)
        if found is None:
            break
        points, b, c, stable = found
        V, W = solve(points, B @ b), adjoint_solve(points, C.conj().T @ c)
        if stable:
            residual, excess = optimality(V, W, B, C, reduced, points, b, c, discrete=discrete)
            met = residual <= tol
            if best is None or excess < least + met * _EXCESS_ROUNDING * abs(least):
                best, least = Iterate(reduced, residual, condition, steps), excess
            if met:
                break
        reduced, condition = _projected(V, W, A, B, C, points, real=np.isrealobj(start[0]))
    if best is None:
        return Iterate(start, np.inf, 1.0, steps)
    return dataclasses.replace(best, steps=steps)


def modes(A: np.ndarray, B: np.ndarray, C: np.ndarray, *, discrete: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool] | None:
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


def optimality(
    V: np.ndarray,
    W: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    reduced: Matrices,
    points: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    *,
    discrete: bool,
    mass: Callable[[np.ndarray], np.ndarray] = lambda X: X,
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
    slope, slope_r = np.sum(W.conj() * mass(V), axis=0), np.sum(Wr.conj() * Vr, axis=0)
    residual = 0.0
    for full, small_one in ((right, right_r), (left, left_r), (slope[None], slope_r[None])):
        size = np.linalg.norm(full, axis=0)
        residual = max(residual, float((np.linalg.norm(full - small_one, axis=0) / np.where(size > 0, size, 1)).max()))
    weights = np.where(np.imag(points) != 0, 2.0, 1.0) if not np.iscomplexobj(Ar) else np.ones(len(points))
    excess = float(np.sum(weights * np.real(np.sum(c.conj() * (right_r - 2 * right), axis=0))))
    return residual, excess


def _projected(
    V: np.ndarray, W: np.ndarray, A: Any, B: np.ndarray, C: np.ndarray, points: np.ndarray, *, real: bool
) -> tuple[Matrices, float]:
    """The oblique projection on the spans of ``V`` and ``W``, by bases that are biorthogonal."""
    if real:
        V, W = real_and_imaginary(V, points), real_and_imaginary(W, points)
    V, W, condition = biorthogonal(V, W)
    return (W.conj().T @ (A @ V), W.conj().T @ B, C @ V), condition


def real_and_imaginary(X: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A real basis of the columns of ``X``, of which those at points that are not real stand for a conjugate pair."""
    return np.hstack([np.real(X), np.imag(X)[:, np.imag(points) != 0]])


def biorthogonal(
    V: np.ndarray, W: np.ndarray, *, mass: Callable[[np.ndarray], np.ndarray] = lambda X: X, rtol: float = 0.0
) -> tuple[np.ndarray, np.ndarray, float]:
    """Bases of the spans with ``W^H mass(V) = I``, and the condition of the projection; directions below ``rtol`` are left out."""
    V, W = (np.linalg.qr(X / (np.linalg.norm(X, axis=0) + (X == 0).all(axis=0)))[0] for X in (V, W))
    U, s, Zh = scipy.linalg.svd(W.conj().T @ mass(V), full_matrices=False, check_finite=False)
    s = s[s > rtol * s[0]] if rtol else np.maximum(s, np.finfo(float).tiny)
    root = np.sqrt(s)
    return V @ (Zh[: len(s)].conj().T / root), W @ (U[:, : len(s)] / root), float(s[0] / s[-1])


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
