"""Invariant zeros of a state space with any number of inputs and outputs, infinite ones deflated by orthogonal steps."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ssmid._array import quiet
from ssmid.analysis.state_units import uneven_scales

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def transmission_zeros(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> np.ndarray:
    """The finite zeros ``(q,)`` of one system on the host, complex: where the rank of ``[[A - zI, B], [C, D]]`` falls.

    The algorithm of Emami-Naeini and Van Dooren (Automatica 18, 1982): the pencil is compressed to one whose D has full row rank,
    then, transposed, to one whose D is square and invertible; its generalized eigenvalues are the zeros. Rank decisions by SVD at
    rounding level of the whole pencil. Uncontrollable and unobservable modes count, as in MATLAB's ``tzero``. Not finite: NaN.
    """
    if not all(np.isfinite(M).all() for M in (A, B, C, D)):
        return np.full(len(A), np.nan, complex)
    A, B, C, D = _balanced(A, B, C, D)
    # the entries of the scaled pencil that are rounding: AB08ND's default tolerance with its Frobenius norm
    pencil = np.block([[A, B], [C, D]])
    tolerance = max(1, *pencil.shape) * np.finfo(float).eps * np.linalg.norm(pencil)
    A, B, C, D = _full_row_rank(A, B, C, D, tolerance)
    A, C, B, D = (M.T for M in _full_row_rank(A.T, C.T, B.T, D.T, tolerance))
    n, m = B.shape
    if n == 0:
        return np.zeros(0, complex)
    if m == 0:
        return np.linalg.eigvals(A).astype(complex)
    # columns that [C D] does not see carry the zeros
    W = np.linalg.svd(np.hstack([C, D]))[2].conj().T[:, m:]
    zeros = scipy.linalg.eigvals(np.hstack([A, B]) @ W, W[:n])
    return zeros[np.isfinite(zeros)]


@quiet
def _balanced(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> Matrices:
    """States scaled by powers of two so that rows and columns of the pencil are alike; inputs and outputs to the size of A."""
    if len(A):
        units = uneven_scales(A, B, C)
        A, B, C = A * units / units[:, None], B / units[:, None], C * units
        A, (scale, order) = scipy.linalg.matrix_balance(A, separate=True)
        B, C = B[order] / scale[:, None], C[:, order] * scale
    # by the largest entries: their squares may leave the range of the numbers
    size, left, right = (np.abs(M).max(initial=0.0) or 1.0 for M in (A, C, B))
    # zeros do not change when inputs and outputs are scaled
    return A, B * (size / right), C * (size / left), D * (size / right) * (size / left)


def _full_row_rank(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, tolerance: float) -> Matrices:
    """The pencil with the rows of ``[C D]`` that D does not cover pushed into the state, until D has full row rank."""
    while True:
        U, rank = _row_compression(D, tolerance)
        C, D = U.conj().T @ C, (U.conj().T @ D)[:rank]
        if rank == len(C):
            return A, B, C, D
        rest, C = C[rank:], C[:rank]
        V, seen = _row_compression(rest.conj().T, tolerance)
        if seen == 0:
            return A, B, C, D
        V = np.hstack([V[:, seen:], V[:, :seen]])
        A, B, C = V.conj().T @ A @ V, V.conj().T @ B, C @ V
        kept = len(A) - seen
        if kept == 0:
            return A[:0, :0], B[:0], np.zeros((0, 0)), np.zeros((0, B.shape[1]))
        C, D = np.vstack([A[kept:, :kept], C[:, :kept]]), np.vstack([B[kept:], D])
        A, B = A[:kept, :kept], B[:kept]


def _row_compression(M: np.ndarray, tolerance: float) -> tuple[np.ndarray, int]:
    """Unitary ``U`` and the rank ``r`` of ``M``, such that ``U^H M`` is zero below row r."""
    if 0 in M.shape:
        return np.eye(len(M)), 0
    U, s, _ = np.linalg.svd(M)
    return U, int(np.sum(s > tolerance))
