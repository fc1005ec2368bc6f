"""Real block-diagonal form with a bound on the condition of the transform: what stands where a diagonal form does not.

Bavely and Stewart, "An algorithm for computing reducing subspaces by block diagonalization", SIAM J. Numer. Anal. 16, 1979.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from scipy.linalg.lapack import get_lapack_funcs

from ssmid.analysis.polynomial import Host


def block_diagonalize(A: Host, max_condition: float) -> tuple[Host, Host]:
    """``X`` and block-diagonal ``D`` with ``A X = X D`` and condition of ``X`` at most ``max_condition``.

    From the Schur form, blocks are split off one by one with the Sylvester equation ``T11 P - P T22 = -T12``. Where ``P`` is large
    the eigenvalue of ``T22`` nearest to those of ``T11`` joins the block first, so that defective and clustered eigenvalues end
    up together. The bound on ``P`` starts at the square root of ``max_condition`` and falls until the whole transform keeps it.
    """
    bound = np.sqrt(max_condition)
    while True:
        D, X = _split(A, bound)
        if bound < 1 or not X.size or np.linalg.cond(X) <= max_condition:
            break
        bound /= 10
    normal, scaled = _normal_pairs(D, X)
    return (scaled, normal) if X.size and np.linalg.cond(scaled) <= max_condition else (X, D)


def block_sizes(A: Host) -> list[int]:
    """Sizes of the diagonal blocks that a square matrix falls into: the finest split with zeros all around.

    >>> block_sizes(np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]]))
    [2, 1]
    """
    sizes, start, n = [], 0, len(A)
    reach = np.arange(n)
    rows, columns = np.nonzero(A)
    np.maximum.at(reach, np.minimum(rows, columns), np.maximum(rows, columns))
    furthest = -1
    for i in range(n):
        furthest = max(furthest, reach[i])
        if furthest == i:
            sizes.append(i + 1 - start)
            start = i + 1
    return sizes


def _split(A: Host, bound: float) -> tuple[Host, Host]:
    n = len(A)
    T, X = scipy.linalg.schur(A, output="complex" if np.iscomplexobj(A) else "real")[:2]
    trexc, trsyl = get_lapack_funcs(("trexc", "trsyl"), (T,))
    D = np.zeros_like(T)
    start = 0
    while start < n:
        end = start + _size(T, start)
        while end < n:
            rest, scale, info = trsyl(T[start:end, start:end], T[end:, end:], -T[start:end, end:], isgn=-1)
            if info == 0 and np.linalg.norm(rest) <= bound * scale:
                X[:, end:] += X[:, start:end] @ (rest / scale)
                T[start:end, end:] = 0
                break
            nearest = _nearest(T, start, end)
            grown = _size(T, nearest)
            if nearest > end:
                T, X, info = trexc(T, X, nearest + 1, end + 1)
                if info:  # two blocks too close to be exchanged belong together: all between them joins
                    grown = nearest + _size(T, nearest) - end
            end += grown
        D[start:end, start:end] = T[start:end, start:end]
        start = end
    scale, start = np.ones(n), 0
    for size in block_sizes(D):  # one scale a block, which leaves the block as it is
        own = slice(start, start + size)
        scale[own] = 1 / np.linalg.norm(X[:, own], 2)
        start += size
    return D, X * scale


def _normal_pairs(D: Host, X: Host) -> tuple[Host, Host]:
    """Single pairs as ``[[a, b], [-b, a]]``, b > 0, by a scaling of the second vector; those nearly defective stay as they are."""
    scale, start = np.ones(len(D)), 0
    for size in block_sizes(D):
        upper, lower = (D[start, start + 1], D[start + 1, start]) if size == 2 and not np.iscomplexobj(D) else (0.0, 0.0)
        if upper * lower < 0 and 1e-6 < abs(lower / upper) < 1e6:
            scale[start + 1] = np.sign(upper) * np.sqrt(np.abs(lower)) / np.sqrt(np.abs(upper))
        start += size
    return D * scale / scale[:, None], X * scale


def _size(T: Host, i: int) -> int:
    return 2 if i + 1 < len(T) and T[i + 1, i] != 0 else 1


def _nearest(T: Host, start: int, end: int) -> int:
    """Where the block of T22 begins whose eigenvalue is nearest to the mean of those of T11."""
    center = np.mean(np.diag(T)[start:end])
    height = np.mean([_height(T, i) for i in _starts(T, start, end)])
    starts = _starts(T, end, len(T))
    distances = [abs(T[i, i] + 1j * _height(T, i) - center - 1j * height) for i in starts]
    return starts[int(np.argmin(distances))]


def _starts(T: Host, start: int, end: int) -> list[int]:
    starts = []
    while start < end:
        starts.append(start)
        start += _size(T, start)
    return starts


def _height(T: Host, i: int) -> float:
    """The imaginary part of a standardized 2 x 2 block's upper eigenvalue; 0 of a real one."""
    return float(np.sqrt(np.abs(T[i, i + 1])) * np.sqrt(np.abs(T[i + 1, i]))) if _size(T, i) == 2 else 0.0
