"""Balanced truncation of impulse responses: the Hankel matrix of a FIR filter is its whole theory.

A FIR filter of N taps beyond the feedthrough has the exact realization ``x <- Z x + g u, y = first block row of x`` whose state is
the output to come: Z shifts it, g holds the taps. Its observability Gramian is the identity and its controllability Gramian
``H H*``, so that projecting on the leading left singular vectors U of the Hankel matrix H is balanced truncation. ``U* Z U`` is
the compression of a contraction: stable whatever orthonormal U the iteration returns. Nothing larger than N x order is stored.
"""

from __future__ import annotations

import dataclasses
import warnings
from math import prod

import numpy as np

from ssmid._array import Array, astype_width, from_numpy, is_complex, namespace, to_numpy, width
from ssmid.analysis.hankel import channels, hankel_triplets, normalized
from ssmid.linalg import transpose
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse, StateSpace

_LARGEST_BY_TOLERANCE = 256
_RTOL = 1e-10


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
        where none meets ``tol`` the largest is returned with ``converged`` False and a warning.
    match_dc : keep the gain at frequency zero by singular perturbation (Liu and Anderson, Int. J. Control 50, 1989) instead of
        the feedthrough; stable by the same argument.
    mimo : the last two batch axes are the outputs and inputs of one system.

    The feedthrough is tap 0. A response that is zero beyond it gives order 0. A batch element that carries fewer states than asked
    for gets those it carries, padded with zero states, and ``order`` is an array; a single response raises ValueError with the
    number. Elements that are not finite are NaN and not converged.

    ``bound`` is ``2 sum_{i > order} sigma_i``, an upper bound of the H-infinity error (Glover 1984) for exact singular vectors;
    where only k values are known the sum of the others is bounded from the Frobenius norm of H, which is exact:
    ``sum_{i > k} sigma_i <= sqrt((N - k) (|H|_F^2 - sum_{i <= k} sigma_i^2))``. ``lower_bound`` is sigma_{order+1}.

    >>> import numpy as np
    >>> h = ImpulseResponse(np.concatenate([[1.0], 0.9 ** np.arange(200) * np.cos(np.arange(200))]))
    >>> fit = balanced_truncation_fir(h, tol=1e-6)
    >>> fit.order, fit.system.D
    (2, array([[1.]]))
    """
    taps = channels(response, mimo)
    *batch, p, m, length = taps.shape
    available = min(p, m) * (length - 1)
    check_request(order, tol, max_order, available)
    xp = namespace(taps)
    taps, sound, scale = normalized(xp.reshape(taps, (prod(batch), p, m, length)))
    if tol is not None:
        pieces = _by_tolerance(taps, tol, min(max_order or _LARGEST_BY_TOLERANCE, max(1, available)), match_dc)
    else:
        projection = _project(taps, order)
        if not batch and 0 < projection.rank[0] < order:
            raise ValueError(f"order: expected 1 to {projection.rank[0]}, which is what the response carries to rounding, got {order}")
        orders = np.minimum(order, projection.rank)
        pieces = [_Piece.of(projection, np.arange(len(orders)), orders, np.ones(len(orders), dtype=bool), match_dc)]
    return _assembled(pieces, response, tuple(batch), sound, scale)


# ---------------------------------------------------------------- what is asked for, what is said


def check_request(order: int | None, tol: float | None, max_order: int | None, available: int) -> None:
    """ValueError unless exactly one of ``order`` and ``tol`` asks for something that can be had."""
    if (order is None) == (tol is None):
        raise ValueError(f"expected either order or tol, got order={order} and tol={tol}")
    if tol is not None and not tol > 0:
        raise ValueError(f"tol: expected a positive number, got {tol}")
    for name, value in (("order", order), ("max_order", max_order)):
        if value is not None and (int(value) != value or value < 1):
            raise ValueError(f"{name}: expected a positive integer, got {value}")
    if order is not None and order > max(1, available):
        raise ValueError(f"order: expected 1 to {available} (the taps beyond the feedthrough), got {order}")


def as_order(orders: np.ndarray, like: Array) -> int | Array:
    """One integer where all elements agree, an array ``(*batch,)`` otherwise."""
    return int(orders.flat[0]) if orders.size and (orders == orders.flat[0]).all() else from_numpy(orders, like)


def rank_of(sigma: Array, order: int, size: int) -> np.ndarray:
    """``(*batch,)`` how many of the ``order`` leading values of a matrix of ``size`` rows are more than rounding."""
    sigma = to_numpy(sigma)
    return (sigma[..., :order] > 4 * np.finfo(np.float64).eps * max(1, size) ** 0.5 * sigma[..., :1]).sum(-1)


def settled(found: Array, orders: np.ndarray) -> np.ndarray:
    """Whether all values up to ``order + 1`` have converged."""
    found = to_numpy(found)
    return (found | (np.arange(found.shape[-1]) > orders[..., None])).all(-1)


def at(values: Array, places: np.ndarray) -> Array:
    """``values[..., places]``, one of the last axis for each element."""
    xp = namespace(values)
    return xp.take_along_axis(values, from_numpy(np.maximum(places, 0)[..., None], values), axis=-1)[..., 0]


def tail_sum(taps: Array, sigma: Array, error: Array, orders: np.ndarray) -> Array:
    """``(*batch,)`` an upper bound of the sum of all Hankel values of ``taps`` beyond ``orders``, of which ``sigma`` are the leading.

    The squares of those that are not known sum to ``|H|_F^2 - |sigma|^2``, and none is larger than the last that is known.
    """
    xp = namespace(taps)
    length, count = taps.shape[-1], sigma.shape[-1]
    unknown = max(0, min(taps.shape[-3:-1]) * (length - 1) - count)
    # h[t] stands t times in H
    weights = xp.arange(length, dtype=sigma.dtype, device=sigma.device)
    frobenius = xp.sum(xp.abs(taps) ** 2 * weights, axis=(-3, -2, -1))
    squares = xp.clip(frobenius - xp.sum(sigma**2, axis=-1), min=0.0) + 8 * float(xp.finfo(sigma.dtype).eps) * frobenius
    rest = xp.minimum((unknown * squares) ** 0.5, unknown * (sigma[..., -1] + error[..., -1]))
    beyond = from_numpy(np.arange(count) >= orders[..., None], sigma)
    return xp.sum(xp.where(beyond, sigma + error, xp.zeros_like(sigma)), axis=-1) + rest


# ---------------------------------------------------------------- results


@dataclasses.dataclass(frozen=True, eq=False)
class _Piece:
    """Reduced elements, all of one size, in the scale of the normalized taps; ``places`` says where they stand in the batch."""

    places: np.ndarray
    orders: np.ndarray
    converged: np.ndarray
    system: tuple[Array, Array, Array, Array]
    sigma: Array
    bound: Array
    lower_bound: Array
    condition: Array

    @classmethod
    def of(cls, projection: _Projection, places: np.ndarray, orders: np.ndarray, met: np.ndarray, match_dc: bool) -> _Piece:
        xp = namespace(projection.A)
        A, B, C, D = _truncated(projection, orders, match_dc)
        size = int(orders.max(initial=0))
        sigma = projection.sigma
        last = at(sigma, orders - 1)
        return cls(
            places,
            orders,
            met & settled(projection.found, orders),
            balance(A[:, :size, :size], B[:, :size, :], C[:, :, :size], D, sigma),
            sigma,
            2 * tail_sum(projection.taps, sigma, projection.error, orders),
            at(sigma, orders),
            xp.where(last > 0, sigma[:, 0] / xp.where(last > 0, last, xp.ones_like(last)), xp.ones_like(last)),
        )


def _assembled(pieces: list[_Piece], response: ImpulseResponse, batch: tuple[int, ...], sound: Array, scale: Array) -> Reduction:
    """One result in the order, shape, scale and precision of the response's batch."""
    xp = namespace(scale)
    order = np.argsort(np.concatenate([piece.places for piece in pieces]))

    def whole(arrays: list[Array], power: float, fill: float = 0.0) -> Array:
        shape = [max(sizes) for sizes in zip(*(a.shape[1:] for a in arrays), strict=True)]
        array = xp.take(xp.concat([_grown(a, shape, fill) for a in arrays], axis=0), from_numpy(order, scale), axis=0)
        ones = (1,) * (array.ndim - 1)
        array = array * xp.astype(xp.reshape(scale, (-1, *ones)) ** power, array.dtype)
        array = xp.where(xp.reshape(sound, (-1, *ones)), array, xp.full_like(array, float("nan")))
        return astype_width(xp.reshape(array, (*batch, *array.shape[1:])), width(response.taps))

    A, B, C, D = (whole([piece.system[i] for piece in pieces], power) for i, power in enumerate((0, 0.5, 0.5, 1)))
    orders, converged = (np.concatenate(parts)[order].reshape(batch) for parts in ([p.orders for p in pieces], [p.converged for p in pieces]))
    return Reduction(
        system=StateSpace(A, B, C, D, response.dt),
        original=response,
        method="balanced truncation",
        order=as_order(orders, scale),
        sigma=whole([piece.sigma for piece in pieces], 1, float("nan")),
        bound=whole([piece.bound for piece in pieces], 1),
        lower_bound=whole([piece.lower_bound for piece in pieces], 1),
        converged=from_numpy(np.asarray(converged), scale) & xp.reshape(sound, batch),
        condition=whole([piece.condition for piece in pieces], 0),
    )


def _grown(array: Array, shape: list[int], fill: float) -> Array:
    """``array`` ``(k, ...)`` filled up at the ends to ``(k, *shape)``."""
    xp = namespace(array)
    for axis, size in enumerate(shape, 1):
        missing = (*array.shape[:axis], size - array.shape[axis], *array.shape[axis + 1 :])
        array = xp.concat([array, xp.full(missing, fill, dtype=array.dtype, device=array.device)], axis=axis)
    return array


# ---------------------------------------------------------------- projection


@dataclasses.dataclass(frozen=True, eq=False)
class _Projection:
    """The exact realization of ``taps`` seen from the K leading left singular vectors U of its Hankel matrix.

    A, B, C : ``U* Z U``, ``U* g`` and the first block row of U; the systems of all smaller orders are leading blocks
    resolvent : ``U* (I - Z)^-1 [U, g]`` and the first block row of ``(I - Z)^-1 U``, likewise
    sigma, error, found : ``(*batch, K + 1)`` Hankel values, error bars, convergence   rank : ``(*batch,)``
    """

    taps: Array
    A: Array
    B: Array
    C: Array
    resolvent: tuple[Array, Array, Array]
    sigma: Array
    error: Array
    found: Array
    rank: np.ndarray

    def take(self, places: np.ndarray) -> _Projection:
        """The projection of some batch elements."""
        xp, indices = namespace(self.A), from_numpy(places, self.A)
        taps, A, B, C, M, b, c, sigma, error, found = (
            xp.take(a, indices, axis=0) for a in (self.taps, self.A, self.B, self.C, *self.resolvent, self.sigma, self.error, self.found)
        )
        return _Projection(taps, A, B, C, (M, b, c), sigma, error, found, self.rank[places])


def _project(taps: Array, order: int) -> _Projection:
    xp = namespace(taps)
    *batch, p, m, length = taps.shape
    if length == 1:
        return _project(xp.concat([taps, xp.zeros_like(taps)], axis=-1), order)
    rows = length - 1
    triplets = hankel_triplets(taps[..., 1:], rows, rows, order + 1, rtol=_RTOL)
    rank = rank_of(triplets.sigma, order, rows)
    vectors = xp.reshape(triplets.left[..., :order, :], (*batch, order, p, rows))
    Uh = xp.reshape(vectors, (*batch, order, p * rows))
    Uh = xp.conj(Uh) if is_complex(Uh) else Uh
    shifted = xp.concat([vectors[..., 1:], xp.zeros_like(vectors[..., :1])], axis=-1)
    g = taps[..., 1:]

    def coordinates(x: Array, columns: int) -> Array:
        """``U* x`` of vectors ``(*batch, columns, p, rows)``."""
        return Uh @ transpose(xp.reshape(x, (*batch, columns, p * rows)))

    def to_come(x: Array) -> Array:
        """``(I - Z)^-1 x``: the sum of all entries from each on."""
        return xp.flip(xp.cumulative_sum(xp.flip(x, axis=-1), axis=-1), axis=-1)

    inputs = xp.moveaxis(g, -2, -3)
    summed = to_come(vectors)
    return _Projection(
        taps,
        coordinates(shifted, order),
        coordinates(inputs, m),
        transpose(vectors[..., 0]),
        (coordinates(summed, order), coordinates(to_come(inputs), m), transpose(summed[..., 0])),
        triplets.sigma,
        triplets.error,
        triplets.converged,
        rank,
    )


def _truncated(projection: _Projection, orders: np.ndarray, match_dc: bool) -> tuple[Array, Array, Array, Array]:
    """``A, B, C, D`` of each element at its order in the orthonormal coordinates; states beyond the order are zero."""
    xp = namespace(projection.A)
    D, size = projection.taps[..., 0], projection.A.shape[-1]
    keep = from_numpy((np.arange(size) < orders[..., None]).astype(np.float64), projection.A)
    keep = xp.astype(keep, projection.A.dtype)
    rows, columns = keep[..., :, None], keep[..., None, :]
    if not match_dc:
        return rows * projection.A * columns, rows * projection.B, projection.C * columns, D
    # the leading block of an inverse is the inverse of a Schur complement, which is what singular perturbation forms:
    # I - A_r = (U* (I - Z)^-1 U)^-1. Its symmetric part is at least I / 2, so that the inverse is never ill-conditioned.
    M, b, c = projection.resolvent
    eye = xp.eye(size, dtype=M.dtype, device=M.device)
    M = rows * M * columns + eye * (1 - rows)
    inverse = xp.linalg.inv(M)
    gain = xp.sum(projection.taps, axis=-1)
    B, C = inverse @ (rows * b), (c * columns) @ inverse
    return eye - inverse, B, C, gain - C @ (rows * b)


def balance(A: Array, B: Array, C: Array, D: Array, sigma: Array) -> tuple[Array, Array, Array, Array]:
    """From orthonormal to balanced coordinates, in which both Gramians are ``diag(sigma)``."""
    xp = namespace(A)
    values = sigma[..., : A.shape[-1]]
    root = xp.astype(xp.where(values > 0, values, xp.ones_like(values)) ** 0.5, A.dtype)
    return A / root[..., :, None] * root[..., None, :], B / root[..., :, None], C * root[..., None, :], D


# ---------------------------------------------------------------- tolerance


def _by_tolerance(taps: Array, tol: float, most: int, match_dc: bool) -> list[_Piece]:
    """Each element at the smallest order whose measured relative l2 error is at most ``tol``; larger projections for those that need them."""
    xp = namespace(taps)
    places, pieces, size = np.arange(taps.shape[0]), [], min(16, most)
    while len(places):
        projection = _project(taps, size)
        best = relative_error(taps, *_truncated(projection, projection.rank, match_dc))
        met = best <= tol
        if size == most and not met.all():
            message = f"tol: {tol:g} is not met by order {most}, which reaches a relative l2 error of {best.max():.3g}"
            warnings.warn(f"{message} in {np.sum(~met)} of {met.size} responses: their largest order is returned", stacklevel=4)
        leave = np.flatnonzero(met | (size == most))
        if len(leave):
            chosen = projection.take(leave)
            orders = _smallest_orders(chosen, tol, met[leave], match_dc)
            pieces.append(_Piece.of(chosen, places[leave], orders, met[leave], match_dc))
        stay = np.flatnonzero(~met & (size < most))
        taps, places, size = xp.take(taps, from_numpy(stay, taps), axis=0), places[stay], min(4 * size, most)
    return pieces


def _smallest_orders(projection: _Projection, tol: float, met: np.ndarray, match_dc: bool) -> np.ndarray:
    """By bisection between what does not meet ``tol`` and what does; the largest where nothing does."""
    high = np.array(projection.rank)
    low = np.where(met, -1, high)
    while (high - low > 1).any():
        middle = np.where(high - low > 1, (low + high) // 2, high)
        good = relative_error(projection.taps, *_truncated(projection, middle, match_dc)) <= tol
        low, high = np.where(good, low, middle), np.where(good, middle, high)
        low = np.where(met, low, high)
    return high


def relative_error(taps: Array, A: Array, B: Array, C: Array, D: Array) -> np.ndarray:
    """``(*batch,)`` relative l2 error of stable systems in coordinates of contractions; 0 for responses that are zero.

    The taps are subtracted one by one; what the system rings on after the last is bounded by its state there, because the
    observability Gramian of a compression of ``Z`` is at most the identity.
    """
    xp = namespace(taps)
    *batch, p, m, length = taps.shape
    # h[1 + q K + s] = (C A^s) (A^(qK) B): two tables of about sqrt(length) blocks, each made by doubling
    inner = 1 << max(0, (length - 1).bit_length() // 2)
    observed, power = C, A
    for _ in range(inner.bit_length() - 1):
        observed, power = xp.concat([observed, observed @ power], axis=-2), power @ power
    outer = -(-(length - 1) // inner)
    reached, steps = B, 1
    while steps < outer:
        reached, power, steps = xp.concat([reached, power @ reached], axis=-1), power @ power, 2 * steps
    n = len(batch)
    modelled = xp.reshape(observed @ reached, (*batch, inner, p, steps, m))
    modelled = xp.reshape(xp.permute_dims(modelled, (*range(n), n + 1, n + 3, n + 2, n)), (*batch, p, m, steps * inner))
    missing = xp.zeros((*batch, p, m, steps * inner - (length - 1)), dtype=taps.dtype, device=taps.device)
    difference = xp.concat([taps[..., :1] - D[..., None], xp.concat([taps[..., 1:], missing], axis=-1) - modelled], axis=-1)
    squares = xp.sum(xp.abs(difference) ** 2, axis=(-3, -2, -1)) + xp.sum(xp.abs(power @ B) ** 2, axis=(-2, -1))
    energy = to_numpy(xp.sum(xp.abs(taps) ** 2, axis=(-3, -2, -1)))
    return np.sqrt(to_numpy(squares) / np.where(energy > 0, energy, 1.0))
