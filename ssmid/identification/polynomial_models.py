"""Polynomial models as state spaces in innovations form, and how those depend on the coefficients.

The observer companion form: with ``y = B/A u + C/A e`` in powers of the delay, the k-th state holds what the past adds to the output
k samples ahead of it (the transposed direct form II), so that the initial state of a record is the first coefficients of its free
motion times ``A`` (Ljung, System Identification, 2nd ed. 1999, sec. 4.3).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ssmid.analysis.polynomial import Host

Matrices = tuple[Host, ...]


def innovations_form(A: Host, B: Host, C: Host, D: Host, F: Host) -> Matrices:
    """``(A, B, C, D, K)`` of ``A y = B/F u + C/D e``; shapes as in :class:`Polynomials`. One of A, F and D has degree zero.

    ``ARX``, ``ARMAX``: ``max(na, delay+nb-1, nc)`` states for each output. With F of its own: ``max(nf, delay+nb-1)`` of the system
    and ``max(nc, nd)`` of the noise.
    """
    if F.shape[-1] == 1 and D.shape[-1] == 1:
        return _companion(A, B, C)
    system = _companion(diagonal(F), B, np.ones((*F.shape[:-1], 1)))
    noise = _companion(diagonal(D), np.zeros((*B.shape[:-1], 1)), C)
    return _side_by_side((*system[:4], np.zeros_like(system[4])), noise)


def sensitivities(polynomials: Matrices, directions: Matrices) -> Matrices:
    """First-order changes ``(*batch, k, ...)`` of the innovations form along changes ``(*batch, k, ...)`` of A, B, C, D and F.

    The form is bilinear in the coefficients, so that half the difference of two of its values is its derivative, to rounding.
    """
    here = [P[..., None, *(slice(None),) * core] for P, core in zip(polynomials, (3, 3, 2, 2, 2), strict=True)]
    ahead = innovations_form(*(P + d for P, d in zip(here, directions, strict=True)))
    behind = innovations_form(*(P - d for P, d in zip(here, directions, strict=True)))
    return tuple((a - b) / 2 for a, b in zip(ahead, behind, strict=True))


def beside_drift(matrices: Matrices, poles: Host) -> Matrices:
    """The model with states beside it that no input drives, with these poles in each output: rotations, each seen by its first state."""
    A, B, C, D, K = matrices
    p, m = len(C), B.shape[-1]
    upper = poles[poles.imag > 1e-12 * np.abs(poles.imag).max(initial=0)]
    blocks = [np.array([[abs(poles[len(poles) // 2])]])] if len(poles) % 2 else []
    blocks += [np.array([[z.real, z.imag], [-z.imag, z.real]]) for z in upper]
    block: Host = scipy.linalg.block_diag(*blocks)
    turning = np.kron(block, np.eye(p))
    seen = np.kron(np.concatenate([np.eye(len(b))[:1] for b in blocks], -1), np.eye(p))
    k = len(turning)
    return scipy.linalg.block_diag(A, turning), np.r_[B, np.zeros((k, m))], np.c_[C, seen], D, np.r_[K, np.zeros((k, p))]


def widened(changes: Matrices, states: int) -> Matrices:
    """Changes of the matrices by the parameters, with ``states`` more that none of them touches."""
    A, B, C, D, K = changes
    rows, columns = ((0, 0), (0, states), (0, 0)), ((0, 0), (0, 0), (0, states))
    return np.pad(A, ((0, 0), (0, states), (0, states))), np.pad(B, rows), np.pad(C, columns), D, np.pad(K, rows)


def diagonal(rows: Host) -> Host:
    """Coefficients ``(*batch, p, k)`` of each output as those ``(*batch, p, p, k)`` of a diagonal matrix of polynomials."""
    p = rows.shape[-2]
    return np.eye(p)[:, :, None] * rows[..., :, None, :]


def order_of(na: int, lags: int, nc: int) -> int:
    """The states of each output; ``lags`` is the number of coefficients of B from lag zero on."""
    return max(na, lags - 1, nc)


def _companion(A: Host, B: Host, C: Host) -> Matrices:
    p, m = B.shape[-3:-1]
    n = order_of(A.shape[-1] - 1, B.shape[-1], C.shape[-1] - 1)
    A, B, C = (np.concatenate([P, np.zeros((*P.shape[:-1], n + 1 - P.shape[-1]))], -1) for P in (A, B, diagonal(C)))
    feed = B[..., 0]
    batch = np.broadcast_shapes(A.shape[:-3], B.shape[:-3], C.shape[:-3])
    if n == 0:
        empty = (np.zeros((*batch, *shape)) for shape in ((0, 0), (0, m), (p, 0), (0, p)))
        state, inputs, outputs, gain = empty
        return state, inputs, outputs, np.broadcast_to(feed, (*batch, p, m)), gain
    state = np.zeros((*batch, n * p, n * p))
    state[..., :, :p] = -_tall(A, batch)
    state[..., : (n - 1) * p, p:] += np.eye((n - 1) * p)
    mixed = np.einsum("...ijk,...jl->...ilk", A, feed)
    outputs = np.zeros((*batch, p, n * p))
    outputs[..., :p] = np.eye(p)
    return state, _tall(B - mixed, batch), outputs, np.broadcast_to(feed, (*batch, p, m)), _tall(C - A, batch)


def _tall(P: Host, batch: tuple[int, ...]) -> Host:
    """Coefficients ``(*batch, p, m, n+1)`` of lags 1 to n as ``(*batch, n p, m)``."""
    p, m, count = P.shape[-3:]
    return np.broadcast_to(np.moveaxis(P, -1, -3)[..., 1:, :, :], (*batch, count - 1, p, m)).reshape(*batch, (count - 1) * p, m)


def _side_by_side(one: Matrices, two: Matrices) -> Matrices:
    A1, B1, C1, D1, K1 = one
    A2, B2, C2, _, K2 = two
    n, k = A1.shape[-1], A2.shape[-1]
    batch = np.broadcast_shapes(A1.shape[:-2], A2.shape[:-2], B1.shape[:-2])
    A = np.zeros((*batch, n + k, n + k))
    A[..., :n, :n], A[..., n:, n:] = A1, A2
    joined = [
        np.concatenate([np.broadcast_to(X, (*batch, *X.shape[-2:])), np.broadcast_to(Y, (*batch, *Y.shape[-2:]))], axis)
        for X, Y, axis in ((B1, B2, -2), (C1, C2, -1), (K1, K2, -2))
    ]
    return A, joined[0], joined[1], D1, joined[2]
