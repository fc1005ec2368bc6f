"""A system as the sum of its stable and its unstable part."""

from __future__ import annotations

import numpy as np
import scipy.linalg

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]


def split_unstable(A: np.ndarray, B: np.ndarray, C: np.ndarray, *, discrete: bool) -> tuple[Triple, Triple]:
    """``(A, B, C)`` of the stable and of the unstable part of one system of NumPy matrices; their responses add up to the whole.

    An ordered Schur form separates the poles, a Sylvester equation takes away their coupling (Kågström & Van Dooren 1992). Poles
    on the boundary of stability count as unstable.
    """

    def stable(pole: complex) -> bool:
        return abs(pole) < 1 if discrete else pole.real < 0

    # gees hands a complex matrix's eigenvalues over whole, a real one's in two parts
    if np.iscomplexobj(A):
        form = scipy.linalg.schur(A, output="complex", sort=stable, check_finite=False)
    else:
        form = scipy.linalg.schur(A, output="real", sort=lambda re, im: stable(complex(re, im)), check_finite=False)
    T, Q, k = form[0], form[1], int(form[-1])
    B, C = Q.conj().T @ B, C @ Q
    X = scipy.linalg.solve_sylvester(T[:k, :k], -T[k:, k:], -T[:k, k:]) if 0 < k < len(T) else np.zeros((k, len(T) - k))
    return (T[:k, :k], B[:k] - X @ B[k:], C[:, :k]), (T[k:, k:], B[k:], C[:, :k] @ X + C[:, k:])
