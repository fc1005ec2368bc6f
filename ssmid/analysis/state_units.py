"""States in like units: scales by powers of two, exact both ways, for systems of volts beside amperes or of 1e9 rad/s."""

from __future__ import annotations

from math import prod

import numpy as np

from ssmid._array import Array, from_numpy, namespace, real_dtype, to_numpy
from ssmid.linalg import state_scales

_UNEVEN = 2.0**10
_PASSES = 10


def uneven_scales(A: Array, B: Array, C: Array, least: float = 0.0) -> Array:
    """:func:`state_scales` ``(*batch, n)`` of systems whose states are in units apart by more than 2^10; ones of all others.

    Volts beside amperes, or a companion matrix at 1e9 rad/s: orthogonal transformations round every state to the largest one's last
    bit. States in like units gain nothing, and keep their bits. ``least`` as for :func:`like_units`. Not differentiable.
    """
    hosts = [to_numpy(M) for M in (A, B, C)]
    batch = np.broadcast_shapes(*(M.shape[:-2] for M in hosts))
    flat = [np.broadcast_to(M, (*batch, *M.shape[-2:])).reshape(prod(batch), *M.shape[-2:]) for M in hosts]
    scales = np.ones((prod(batch), A.shape[-1]))
    for index in np.flatnonzero(_look_uneven(*flat)):
        found = like_units(A=flat[0][index], B=flat[1][index], C=flat[2][index], least=least, poles_first=True)
        scales[index] = found if found.max() > _UNEVEN * found.min() else 1.0
    return namespace(A).astype(from_numpy(scales.reshape(*batch, A.shape[-1]), A), real_dtype(A))


def _look_uneven(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """``(elements,)`` whether a row is 3 times its column or the reverse, of A or of all: to balance a bank takes as long as its poles."""
    a, b, c = (np.abs(M) for M in (A, B, C))
    largest = a.max((-2, -1), initial=0.0)
    diagonal = np.diagonal(a, axis1=-2, axis2=-1)
    rows, columns = a.sum(-1) - diagonal, a.sum(-2) - diagonal
    with np.errstate(all="ignore"):
        b, c = (M.sum(k) * (largest / M.max((-2, -1), initial=0.0))[:, None] for M, k in ((b, -1), (c, -2)))
        ratios = np.stack([rows / columns, (rows + np.nan_to_num(b)) / (columns + np.nan_to_num(c))])
    # without a row or without a column there is nothing to balance
    uneven = ((ratios > 3) | ((ratios < 1 / 3) & (ratios > 0))) & np.isfinite(ratios)
    return np.isfinite(largest) & uneven.any((0, -1))


def like_units(A: np.ndarray, B: np.ndarray, C: np.ndarray, least: float = 0.0, *, poles_first: bool = False) -> np.ndarray:
    """:func:`state_scales` ``(n,)`` of one system on the host, in whatever units its states, inputs, outputs and time are.

    B and C count as much as A, whose size is that of its poles: its largest entry may be nothing but units, 1e36 in a companion
    matrix of four poles at 1e9 rad/s. ``least``: where the system is looked at if its poles are smaller, 1 in discrete time.
    ``poles_first``: A is made even first wherever its poles are, for what is computed of the poles themselves.
    """
    if not (A.any() and all(np.isfinite(M).all() for M in (A, B, C))):
        return np.ones(len(A))
    size, total, passes = np.abs(A).max(), np.ones(len(A)), 1
    if _look_uneven(A[None], B[None], C[None])[0]:
        radius, passes = np.abs(np.linalg.eigvals(A)).max(), _PASSES
        size = max(radius, least) or size
        if poles_first or radius > least:  # else a delay, say: what stands in A beside the ones is rounding, and not to be made as large
            total = state_scales(A, 0 * B, 0 * C)
    for _ in range(passes):
        b, c = B / total[:, None], C * total
        b, c = (M * (size / (np.abs(M).max(initial=0.0) or 1.0)) for M in (b, c))
        more = state_scales(A * total / total[:, None], b, c)
        total = total * more
        if (more == 1).all():
            break
    return total
