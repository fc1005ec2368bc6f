"""States in like units: scales by powers of two, exact both ways, for systems of volts beside amperes or of 1e9 rad/s."""

from __future__ import annotations

from math import prod

import numpy as np

from ssmid._array import Array, from_numpy, namespace, real_dtype, to_numpy
from ssmid.linalg import state_scales

_UNEVEN = 2.0**10


def uneven_scales(A: Array, B: Array, C: Array) -> Array:
    """:func:`state_scales` ``(*batch, n)`` of systems whose states are in units apart by more than 2^10; ones of all others.

    Volts beside amperes, or a companion matrix at 1e9 rad/s: orthogonal transformations round every state to the largest one's last
    bit. States in like units gain nothing, and keep their bits. Not differentiable.
    """
    hosts = [to_numpy(M) for M in (A, B, C)]
    batch = np.broadcast_shapes(*(M.shape[:-2] for M in hosts))
    flat = [np.broadcast_to(M, (*batch, *M.shape[-2:])).reshape(prod(batch), *M.shape[-2:]) for M in hosts]
    scales = np.ones((prod(batch), A.shape[-1]))
    for index in np.flatnonzero(_look_uneven(*flat)):
        scales[index] = _uneven_scales(*(M[index] for M in flat))
    return namespace(A).astype(from_numpy(scales.reshape(*batch, A.shape[-1]), A), real_dtype(A))


def _look_uneven(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """``(elements,)`` whether a row is 3 times its column or the reverse: to balance all of a bank takes as long as its eigenvalues."""
    a, b, c = (np.abs(M) for M in (A, B, C))
    largest = a.max((-2, -1), initial=0.0)
    diagonal = np.diagonal(a, axis1=-2, axis2=-1)
    with np.errstate(all="ignore"):
        b, c = (M.sum(k) * (largest / M.max((-2, -1), initial=0.0))[:, None] for M, k in ((b, -1), (c, -2)))
        ratio = (a.sum(-1) - diagonal + np.nan_to_num(b)) / (a.sum(-2) - diagonal + np.nan_to_num(c))
    return np.isfinite(largest) & ((ratio > 3) | (ratio < 1 / 3)).any(-1)


def _uneven_scales(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> np.ndarray:
    total = np.ones(len(A))
    if not (A.any() and all(np.isfinite(M).all() for M in (A, B, C))):
        return total
    for _ in range(2):  # of the first time the size of A may be nothing but its units
        scaled = A * total / total[:, None], B / total[:, None], C * total
        b, c = (np.abs(scaled[0]).max() / (np.abs(M).max(initial=0.0) or 1.0) for M in scaled[1:])
        total = total * state_scales(scaled[0], scaled[1] * b, scaled[2] * c)
    return total if total.max() > _UNEVEN * total.min() else np.ones(len(A))
