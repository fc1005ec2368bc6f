"""Balanced truncation of impulse responses: the Hankel matrix of a FIR filter is its whole theory.

In the realization whose state is the output to come (hankel_projection.py) the observability Gramian is the identity and the
controllability Gramian ``H H*``, so that projecting on the leading left singular vectors U of the Hankel matrix H is balanced
truncation. The state matrix ``U* Z U`` is the compression of a contraction: stable whatever orthonormal U the iteration returns.
"""

from __future__ import annotations

import numpy as np

from ssmid._array import Array, from_numpy, namespace
from ssmid.analysis.hankel import hankel_shape
from ssmid.linalg import transpose
from ssmid.reduction.hankel_projection import Matrices, Projection, Request, coordinates, kept, realize
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse


def balanced_truncation_fir(
    response: ImpulseResponse,
    order: int | None = None,
    *,
    tol: float | None = None,
    max_order: int | None = None,
    match_dc: bool = False,
    mimo: bool = False,
) -> Reduction:
    """Balanced truncation of a FIR filter, or of each filter of a bank, to a stable :class:`StateSpace`. Not differentiable.

    order : states to keep, 1 to the number of taps beyond the feedthrough.
    tol : instead, the largest relative l2 error; each element gets the smallest order whose measured error meets it (found by
        bisection), smaller ones are padded with states that are zero. Orders up to ``max_order`` (256 when left out) are tried;
        where none meets ``tol`` the best is returned with ``converged`` False and a warning.
    match_dc : keep the gain at frequency zero by singular perturbation (Liu and Anderson, Int. J. Control 50, 1989) instead of
        the feedthrough; stable by the same argument.
    mimo : the last two batch axes are the outputs and inputs of one system.

    Memory O(taps x order), time O(taps log(taps) order). The feedthrough is tap 0. A response that is zero beyond it gives order 0.
    A batch element that carries fewer states than asked for gets those it carries, padded with zero states, and ``order`` is an
    array; a single response raises ValueError with the number. Elements that are not finite are NaN and not converged; so is the
    part of ``sigma`` that was not needed for an element.

    ``bound`` is ``2 sum_{i > order} sigma_i``, an upper bound of the H-infinity error (Glover, Int. J. Control 39, 1984); where
    only k values are known the sum of the others is bounded by the Frobenius norm of H, which is exact:
    ``sum_{i > k} sigma_i <= sqrt((N - k) (|H|_F^2 - sum_{i <= k} sigma_i^2))``, or by ``(N - k) sigma_k`` where that is less.

    >>> import numpy as np
    >>> h = ImpulseResponse(np.concatenate([[1.0], 0.9 ** np.arange(200) * np.cos(np.arange(200))]))
    >>> fit = balanced_truncation_fir(h, tol=1e-6)
    >>> fit.order, fit.system.D
    (2, array([[1.]]))
    """
    rows, columns = hankel_shape(response.length, "zero")
    request = Request(order, tol, max_order, rows, columns, residualized if match_dc else truncated, a_priori_bound)
    return realize(response, request, "balanced truncation", mimo=mimo)


def truncated(projection: Projection, orders: np.ndarray) -> Matrices:
    """The leading states; the others are cut off."""
    keep = kept(projection, orders)
    A, B, C = keep[:, :, None] * projection.A * keep[:, None, :], keep[:, :, None] * projection.B, projection.C * keep[:, None, :]
    return A, B, C, projection.taps[..., 0]


def residualized(projection: Projection, orders: np.ndarray) -> Matrices:
    """The leading states; the others follow without delay, which keeps the gain at frequency zero.

    The leading block of an inverse is the inverse of a Schur complement, and a Schur complement is what singular perturbation
    forms: ``I - A_r = (U* (I - Z)^-1 U)^-1`` without ever forming the states that go. ``(I - Z)^-1`` sums what is to come, and
    its symmetric part is at least I / 2 on any U, so that the inverse is well-conditioned and A_r a contraction.
    """
    xp = namespace(projection.A)

    def to_come(x: Array) -> Array:
        return xp.flip(xp.cumulative_sum(xp.flip(x, axis=-1), axis=-1), axis=-1)

    keep, vectors, taps = kept(projection, orders), projection.vectors, projection.taps
    rows, columns = keep[:, :, None], keep[:, None, :]
    summed = to_come(vectors)
    eye = xp.eye(keep.shape[-1], dtype=keep.dtype, device=keep.device)
    inverse = xp.linalg.inv(rows * coordinates(vectors, summed) * columns + eye * (1 - rows))
    inputs = rows * coordinates(vectors, to_come(xp.moveaxis(taps[..., 1 : vectors.shape[-1] + 1], -2, -3)))
    C = (transpose(summed[..., 0]) * columns) @ inverse
    return eye - inverse, inverse @ inputs, C, xp.sum(taps, axis=-1) - C @ inputs


def a_priori_bound(projection: Projection, orders: np.ndarray) -> Array:
    """``(batch,)`` twice the sum of all Hankel values beyond ``orders``, or an upper bound of it where not all are known."""
    return 2 * sum_beyond(projection.taps, projection.sigma, projection.error, orders)


def sum_beyond(taps: Array, sigma: Array, error: Array, orders: np.ndarray) -> Array:
    """``(batch,)`` the sum of all Hankel values of ``taps`` ``(batch, p, m, length)`` beyond ``orders``, or an upper bound of it.

    The squares of those that are not among the ``sigma`` ``(batch, count)`` sum to ``|H|_F^2 - |sigma|^2``, and none is larger than
    the last that is known.
    """
    xp = namespace(taps)
    length, count = taps.shape[-1], sigma.shape[-1]
    unknown = max(0, min(taps.shape[-3:-1]) * (length - 1) - count)
    # h[t] stands t times in H
    weights = xp.arange(length, dtype=sigma.dtype, device=sigma.device)
    frobenius = xp.sum(xp.abs(taps) ** 2 * weights, axis=(-3, -2, -1))
    squares = xp.clip(frobenius - xp.sum(sigma**2, axis=-1), min=0.0) + 8 * float(xp.finfo(sigma.dtype).eps) * frobenius
    rest = xp.minimum((unknown * squares) ** 0.5, unknown * (sigma[:, -1] + error[:, -1]))
    beyond = from_numpy(np.arange(count) >= orders[:, None], sigma)
    return xp.sum(xp.where(beyond, sigma + error, xp.zeros_like(sigma)), axis=-1) + rest
