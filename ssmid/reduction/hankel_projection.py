"""Small systems from the leading singular vectors of Hankel matrices: one projection, realized at every order it holds.

Shared by balanced truncation of FIR filters (fir.py) and the eigensystem realization algorithm (identification/era.py), which
differ in how the state matrix is read off. A FIR filter of N taps beyond the feedthrough has the exact realization
``x <- Z x + g u, y = first block of x`` whose state is the output to come: Z shifts it, g holds the taps. Projected on orthonormal
vectors U it is ``U* Z U, U* g, first block row of U``, and the systems of all smaller orders are its leading blocks.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from math import prod
from typing import TypeAlias

import numpy as np

from ssmid._array import Array, astype_width, from_numpy, is_complex, namespace, to_numpy, width
from ssmid.analysis.hankel import DENSE, channels, hankel_triplets, normalized
from ssmid.linalg import transpose
from ssmid.reduction.arguments import checked_order, order_or_tolerance
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse, StateSpace

LARGEST_BY_TOLERANCE = 256
_RTOL, _TAIL_RTOL = 1e-10, 1e-7
"""Singular vectors are as good as their residual: 1e-10 of the largest value, or 1e-7 of the last one that is asked for, because
what is cut off beyond it matters more."""

Matrices: TypeAlias = tuple[Array, Array, Array, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """The shift realization of a batch of responses on the leading K left singular vectors U of their Hankel matrices.

    taps : ``(batch, p, m, length)``, normalized   vectors : ``(batch, K, p, rows)``, the columns of U
    A, B, C : ``U* Z U``, ``U* g`` and the first block row of U
    sigma, error, found : ``(batch, k)``, k > K, Hankel values, error bars, convergence
    rank : ``(batch,)`` how many of the K values are more than rounding
    """

    taps: Array
    vectors: Array
    A: Array
    B: Array
    C: Array
    sigma: Array
    error: Array
    found: Array
    rank: np.ndarray

    def take(self, places: np.ndarray) -> Projection:
        """The projection of some batch elements."""
        indices = from_numpy(places, self.A)
        arrays = {f.name: namespace(self.A).take(getattr(self, f.name), indices, axis=0) for f in dataclasses.fields(self)[:-1]}
        return Projection(**arrays, rank=self.rank[places])


Realize: TypeAlias = Callable[[Projection, np.ndarray], Matrices]
"""``A, B, C, D`` of each element at its order, in the coordinates of U; states beyond the order are zero."""


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """What a caller wants of each response: an order or a tolerance, of the Hankel matrix of ``rows`` and ``columns`` blocks.

    certify : ``(batch,)`` the a-priori bound of the error, from a projection and the orders
    extrapolates : whether what a system does beyond the last tap is a forecast, not an error
    """

    order: int | None
    tol: float | None
    max_order: int | None
    rows: int
    columns: int
    realize: Realize
    certify: Callable[[Projection, np.ndarray], Array]
    extrapolates: bool = False

    def check(self, available: int) -> None:
        """ValueError unless exactly one of ``order`` and ``tol`` asks for something that can be had."""
        order_or_tolerance(self.order, self.tol, self.max_order)
        if self.order is not None:
            checked_order(self.order, available)


def realize(response: ImpulseResponse, request: Request, method: str, *, mimo: bool) -> Reduction:
    """The reduction of every response of the batch."""
    taps = channels(response, mimo)
    *batch, p, m, length = taps.shape
    available = min(p * request.rows, m * request.columns)
    request.check(available)
    xp = namespace(taps)
    taps, sound, scale = normalized(xp.reshape(taps, (prod(batch), p, m, length)))
    if request.order is None:
        pieces = _by_tolerance(taps, request, min(request.max_order or LARGEST_BY_TOLERANCE, max(1, available)))
    else:
        projection = project(taps, request.order, request.rows, request.columns)
        rank, order = projection.rank, request.order
        if not batch and 0 < rank[0] < order:
            raise ValueError(f"order: expected 1 to {rank[0]}, which is what the response carries to rounding, got {order}")
        everything = np.arange(len(rank))
        pieces = [_piece(projection, everything, np.minimum(order, rank), everything >= 0, request)]
    return _assembled(pieces, response, method, tuple(batch), sound, scale)


def project(
    taps: Array, order: int, rows: int, columns: int, *, rtol: float = _RTOL, tail_rtol: float = _TAIL_RTOL
) -> Projection:
    """The projection of ``taps`` ``(batch, p, m, length)`` for all orders up to ``order``."""
    xp = namespace(taps)
    if rows == 0:
        taps, rows, columns = xp.concat([taps, xp.zeros_like(taps)], axis=-1), 1, 1
    batch, p, m, _ = taps.shape
    size = min(p * rows, m * columns)
    count = size if size <= DENSE else order + 1  # a decomposition of the matrix itself gives all values at once
    triplets = hankel_triplets(taps[..., 1:], rows, columns, max(count, order + 1), rtol=rtol, tail_rtol=tail_rtol)
    vectors = xp.reshape(triplets.left[:, :order, :], (batch, order, p, rows))
    shifted = xp.concat([vectors[..., 1:], xp.zeros_like(vectors[..., :1])], axis=-1)
    sigma = to_numpy(triplets.sigma)
    rank = (sigma[:, :order] > 4 * np.finfo(np.float64).eps * rows**0.5 * sigma[:, :1]).sum(-1)
    return Projection(
        taps,
        vectors,
        coordinates(vectors, shifted),
        coordinates(vectors, xp.moveaxis(taps[..., 1 : rows + 1], -2, -3)),
        transpose(vectors[..., 0]),
        triplets.sigma,
        triplets.error,
        triplets.converged,
        rank,
    )


def coordinates(vectors: Array, x: Array) -> Array:
    """``U* x`` ``(batch, K, k)`` of vectors ``x`` ``(batch, k, p, rows)``."""
    xp = namespace(x)
    flat, x = (xp.reshape(v, (*v.shape[:2], v.shape[2] * v.shape[3])) for v in (vectors, x))
    return (xp.conj(flat) if is_complex(flat) else flat) @ transpose(x)


def kept(projection: Projection, orders: np.ndarray) -> Array:
    """``(batch, K)`` one for the states within the order, zero beyond."""
    keep = from_numpy(np.arange(projection.A.shape[-1]) < orders[:, None], projection.A)
    return namespace(keep).astype(keep, projection.A.dtype)


def _balance(A: Array, B: Array, C: Array, D: Array, sigma: Array) -> Matrices:
    """From the coordinates of U to those in which both Gramians are ``diag(sigma)``."""
    xp = namespace(A)
    values = sigma[:, : A.shape[-1]]
    root = xp.astype(xp.where(values > 0, values, xp.ones_like(values)) ** 0.5, A.dtype)
    return A / root[:, :, None] * root[:, None, :], B / root[:, :, None], C * root[:, None, :], D


# ---------------------------------------------------------------- tolerance


def _by_tolerance(taps: Array, request: Request, most: int) -> list[_Piece]:
    """Each element at the smallest order whose measured error meets the tolerance; projections grow for those that need it."""
    xp, tol = namespace(taps), request.tol
    places, pieces, size = np.arange(taps.shape[0]), [], min(16, most)
    while len(places):
        projection = project(taps, size, request.rows, request.columns)
        orders, errors = _smallest_orders(projection, request)
        met = errors <= tol
        if size == most and not met.all():
            reached = f"orders up to {most} reach {errors[~met].max():.3g}"
            missed = f"{np.sum(~met)} of {taps.shape[0]} responses"
            warnings.warn(f"tol: a relative l2 error of {tol} is not met in {missed}: {reached}", stacklevel=4)
        leave = np.flatnonzero(met | (size == most))
        if len(leave):
            pieces.append(_piece(projection.take(leave), places[leave], orders[leave], met[leave], request))
        stay = np.flatnonzero(~met & (size < most))
        taps, places, size = xp.take(taps, from_numpy(stay, taps), axis=0), places[stay], min(4 * size, most)
    return pieces


def _smallest_orders(projection: Projection, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """``(orders, errors)``: the smallest orders that meet the tolerance, or the largest of about the least error.

    Orders are doubled until the tolerance is met and bisected from there: extrapolations get worse again beyond the order of
    the system, so that the largest order says nothing.
    """
    rank, tol = projection.rank, request.tol
    size = projection.A.shape[-1]
    tried = [np.minimum(order, rank) for order in (0, *(1 << i for i in range(size.bit_length())), size)]
    errors = np.stack([relative_error(projection, orders, request) for orders in tried])
    good = errors <= tol
    near_least = errors <= 2 * np.nanmin(errors, axis=0)
    first = np.where(good.any(0), good.argmax(0), len(tried) - 1 - near_least[::-1].argmax(0))
    high = np.take_along_axis(np.stack(tried), first[None], 0)[0]
    low = np.where(good.any(0), np.take_along_axis(np.stack(tried), np.maximum(first - 1, 0)[None], 0)[0], high)
    error = np.take_along_axis(errors, first[None], 0)[0]
    while (high - low > 1).any():
        middle = np.where(high - low > 1, (low + high) // 2, high)
        new = relative_error(projection, middle, request)
        low, high, error = np.where(new <= tol, low, middle), np.where(new <= tol, middle, high), np.where(new <= tol, new, error)
        low = np.minimum(low, high)
    return high, error


def relative_error(projection: Projection, orders: np.ndarray, request: Request) -> np.ndarray:
    """``(batch,)`` relative l2 errors of the systems of the given orders; 0 for responses that are zero, infinity for overflow.

    The taps are subtracted one by one. What a system rings on after the last is at most its state there, because the
    observability Gramian of a compression of Z is at most the identity; it does not count where the request extrapolates.
    """
    taps = projection.taps
    xp = namespace(taps)
    batch, p, m, length = taps.shape
    size = int(orders.max(initial=0))
    A, B, C, D = request.realize(projection, orders)
    A, B, C = A[:, :size, :size], B[:, :size, :], C[:, :, :size]
    # h[1 + q K + s] = (C A^s) (A^(qK) B): two tables of about sqrt(length) blocks, each made by doubling
    inner = 1 << ((length - 1).bit_length() // 2)
    observed, power = C, A
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(inner.bit_length() - 1):
            observed, power = xp.concat([observed, observed @ power], axis=-2), power @ power
        reached, steps = B, 1
        while steps * inner < length - 1:
            reached, power, steps = xp.concat([reached, power @ reached], axis=-1), power @ power, 2 * steps
        modelled = xp.permute_dims(xp.reshape(observed @ reached, (batch, inner, p, steps, m)), (0, 2, 4, 3, 1))
        modelled = xp.reshape(modelled, (batch, p, m, steps * inner))
        difference = xp.concat([taps[..., :1] - D[..., None], taps[..., 1:] - modelled[..., : length - 1]], axis=-1)
        squares = xp.sum(xp.abs(difference) ** 2, axis=(-3, -2, -1))
        if not request.extrapolates:
            ringing = xp.sum(xp.abs(modelled[..., length - 1 :]) ** 2, axis=(-3, -2, -1)) + xp.sum(xp.abs(power @ B) ** 2, axis=(-2, -1))
            squares = squares + ringing
        energy = to_numpy(xp.sum(xp.abs(taps) ** 2, axis=(-3, -2, -1)))
        error = np.sqrt(to_numpy(squares) / np.where(energy > 0, energy, 1.0))
    return np.where(np.isnan(error), np.inf, error)


# ---------------------------------------------------------------- results


@dataclasses.dataclass(frozen=True, eq=False)
class _Piece:
    """Reduced elements, all of one size, in the scale of the normalized taps; ``places`` says where they stand in the batch."""

    places: np.ndarray
    orders: np.ndarray
    converged: np.ndarray
    system: Matrices
    sigma: Array
    bound: Array
    lower_bound: Array
    condition: Array


def _piece(projection: Projection, places: np.ndarray, orders: np.ndarray, met: np.ndarray, request: Request) -> _Piece:
    xp, sigma = namespace(projection.A), projection.sigma
    A, B, C, D = request.realize(projection, orders)
    size = int(orders.max(initial=0))
    found = to_numpy(projection.found) | (np.arange(sigma.shape[-1]) > orders[:, None])

    def at(index: np.ndarray) -> Array:
        return xp.take_along_axis(sigma, from_numpy(np.maximum(index, 0)[:, None], sigma), axis=-1)[:, 0]

    last = at(orders - 1)
    return _Piece(
        places,
        orders,
        met & found.all(-1),
        _balance(A[:, :size, :size], B[:, :size, :], C[:, :, :size], D, sigma),
        sigma,
        request.certify(projection, orders),
        at(orders),
        xp.where(last > 0, sigma[:, 0] / xp.where(last > 0, last, xp.ones_like(last)), xp.ones_like(last)),
    )


def _assembled(
    pieces: list[_Piece], response: ImpulseResponse, method: str, batch: tuple[int, ...], sound: Array, scale: Array
) -> Reduction:
    """One result in the order, shape, scale and precision of the response's batch."""
    xp = namespace(scale)
    places = np.argsort(np.concatenate([piece.places for piece in pieces]))

    def whole(arrays: list[Array], power: float, fill: float = 0.0) -> Array:
        shape = [max(sizes) for sizes in zip(*(a.shape[1:] for a in arrays), strict=True)]
        array = xp.take(xp.concat([_grown(a, shape, fill) for a in arrays], axis=0), from_numpy(places, scale), axis=0)
        ones = (1,) * (array.ndim - 1)
        array = array * xp.astype(xp.reshape(scale**power, (-1, *ones)), array.dtype)
        array = xp.where(xp.reshape(sound, (-1, *ones)), array, xp.full_like(array, float("nan")))
        return astype_width(xp.reshape(array, (*batch, *array.shape[1:])), width(response.taps))

    A, B, C, D = (whole([piece.system[i] for piece in pieces], power) for i, power in enumerate((0, 0.5, 0.5, 1)))
    orders = np.concatenate([piece.orders for piece in pieces])[places].reshape(batch)
    converged = np.concatenate([piece.converged for piece in pieces])[places].reshape(batch)
    same = orders.size and (orders == orders.flat[0]).all()
    return Reduction(
        system=StateSpace(A, B, C, D, response.dt),
        original=response,
        method=method,
        order=int(orders.flat[0]) if same else from_numpy(orders, scale),
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
