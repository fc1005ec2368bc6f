"""Linear least squares of columns of any scale that may depend on each other: what all fits of records end in. NumPy on the host."""

from __future__ import annotations

import numpy as np

from ssmid.analysis.polynomial import Host
from ssmid.linalg import triangular_factor


def least_squares(columns: Host, right: Host) -> tuple[Host, float]:
    """The smallest solution ``(k, r)`` of ``columns x = right`` in the least-squares sense, and the condition of the columns.

    Columns are scaled to length one, so that neither units nor decaying states count as dependence; singular values at the level
    of rounding are taken as zero, which :func:`ssmid.linalg.scaled_least_squares`, for independent columns, does not ask for.
    NaN throughout where an entry is not finite.

    >>> x, condition = least_squares(np.array([[1.0, 1e9], [1.0, 1e9], [1.0, 1e9]]), np.array([[2.0], [2.0], [2.0]]))
    >>> x.ravel().round(12) * [1, 1e9], condition > 1e15
    (array([1., 1.]), True)
    """
    k = columns.shape[-1]
    if not (np.isfinite(columns).all() and np.isfinite(right).all()):
        return np.full((k, right.shape[-1]), np.nan), np.nan
    length = column_lengths(columns)
    R = triangular_factor(np.concatenate([columns / length, right], -1))
    U, s, Vh = np.linalg.svd(R[:, :k], full_matrices=False)
    sound = s > max(columns.shape) * np.finfo(float).eps * s.max(initial=0)
    x = Vh.T @ (np.divide(1, s, out=np.zeros_like(s), where=sound)[:, None] * (U.T @ R[:, k:]))
    return x / length[:, None], condition_of(s) if len(s) == k else np.inf


def column_lengths(columns: Host) -> Host:
    """``(k,)`` Euclidean lengths of columns of any scale, 1 for a column of zeros."""
    largest = np.abs(columns).max(axis=0, initial=0)
    largest = np.where(largest > 0, largest, 1.0)
    length = largest * np.linalg.norm(columns / largest, axis=0)
    return np.where(length > 0, length, 1.0)


def condition_of(sigma: Host) -> float:
    """The largest over the smallest of descending singular values ``(k,)``: infinite where that is zero, 1 of none."""
    if not len(sigma):
        return 1.0
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return float(sigma[0] / sigma[-1]) if sigma[0] > 0 else np.inf
