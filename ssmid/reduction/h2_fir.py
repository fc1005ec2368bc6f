"""l2-optimal approximation of impulse responses, each channel for itself."""

from __future__ import annotations

import dataclasses
import warnings
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, as_complex, astype_width, from_numpy, is_complex, namespace, on_gpu, to_numpy, width
from ssmid.analysis.hankel import channels, hankel_shape, normalized
from ssmid.linalg import eigvals
from ssmid.reduction.fir import a_priori_bound, truncated
from ssmid.reduction.h2_exchange import exchanged
from ssmid.reduction.h2_newton import Optimum, search
from ssmid.reduction.h2_realization import cascade_realization
from ssmid.reduction.h2_request import H2Request, prepared, start_of_system
from ssmid.reduction.h2_result import H2Reduction, interpolation_residual
from ssmid.reduction.h2_sources import TapsSource
from ssmid.reduction.hankel_projection import LARGEST_BY_TOLERANCE, Projection, Request, project, relative_error
from ssmid.systems import ImpulseResponse, StateSpace

_RTOL, _TAIL_RTOL = 1e-2, 1e-1
"""Of the Hankel values of the start: what Newton's method moves need not be known well."""
_SMALL = 1e-12
"""Squared relative errors below which the start is measured too: where rounding rules, it can be the better one."""
_CHUNK_BYTES = {"host": 2**29, "gpu": 2**33}


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """Reduced elements in the scale of the normalized taps."""

    matrices: tuple[Array, Array, Array]
    poles: Array
    orders: np.ndarray
    met: np.ndarray
    sigma: Array
    lower_bound: Array
    optimum: Optimum
    relative: Array


def h2_of_taps(response: ImpulseResponse, request: H2Request) -> H2Reduction:
    """The reduction of every response of the batch; see :func:`ssmid.h2_approximation`."""
    taps = channels(response, False)
    *batch, p, m, length = taps.shape
    xp = namespace(taps)
    rows, columns = hankel_shape(length, "zero")
    hankel = Request(request.order, request.tol, request.max_order, rows, columns, truncated, a_priori_bound)
    hankel.check(rows)
    taps, sound, scale = normalized(xp.reshape(taps, (prod(batch), p, m, length)))
    most = request.order or min(request.max_order or LARGEST_BY_TOLERANCE, max(1, rows))
    step = max(1, _CHUNK_BYTES["gpu" if on_gpu(taps) else "host"] // (8 * (most + 8) * max(1, length)))
    parts = []
    for start in range(0, taps.shape[0], step):
        places = np.arange(start, min(start + step, taps.shape[0]))
        piece = taps[start : start + len(places), ...] if len(places) < taps.shape[0] else taps
        given = [_given(s, tuple(batch), request, piece, places) for s in request.starts]
        if request.tol is None:
            parts.append(_of_order(piece, hankel, request, given, single=not batch))
        else:
            parts.append(_of_tolerance(piece, hankel, request, most))
    return _assembled(parts, response, tuple(batch), sound, scale)


def _given(start: Any, batch: tuple[int, ...], request: H2Request, taps: Array, places: np.ndarray) -> np.ndarray | None:
    if isinstance(start, str):
        return None
    assert request.order is not None
    return start_of_system(start, batch, request.order, real=not is_complex(taps))[places]


def _of_order(taps: Array, hankel: Request, request: H2Request, given: list[np.ndarray | None], *, single: bool) -> _Found:
    assert request.order is not None
    projection = project(taps, request.order, hankel.rows, hankel.columns, rtol=_RTOL, tail_rtol=_TAIL_RTOL)
    rank = projection.rank
    if single and 0 < rank[0] < request.order:
        raise ValueError(f"order: expected 1 to {rank[0]}, which is what the response carries to rounding, got {request.order}")
    orders = np.minimum(request.order, rank)
    return _solved(projection, orders, hankel, request, given, (rank >= request.order) | (rank == 0))


def _solved(
    projection: Projection, orders: np.ndarray, hankel: Request, request: H2Request, given: list[np.ndarray | None], met: np.ndarray
) -> _Found:
    taps = projection.taps[:, 0, 0, :]
    xp, real = namespace(taps), not is_complex(taps)
    source = TapsSource.of(taps[:, 1:] if taps.shape[-1] > 1 else 0 * taps, real=real)
    starts = []
    for poles in given:
        own = _balanced_poles(projection, orders) if poles is None else poles
        starts.append(prepared(own, orders, taps, real=real))
    limits = {"max_iterations": request.max_iterations, "gtol": request.gtol}
    optimum = search(source, starts, request.restarts, real=real, **limits)
    if request.exchanges:
        optimum = exchanged(source, optimum, request.exchanges, **limits)
    A, B, C = cascade_realization(optimum.poles, optimum.live, source.sections(optimum.poles, optimum.live), real=real)
    size = int(orders.max(initial=0))
    relative = optimum.history / xp.where(source.energy > 0, source.energy, xp.ones_like(source.energy))[:, None]
    found = _Found(
        (A[:, :size, :size], B[:, :size, :], C[:, :, :size]),
        optimum.poles[:, :size],
        orders,
        met,
        projection.sigma,
        xp.take_along_axis(projection.sigma, from_numpy(orders[:, None], taps), axis=-1)[:, 0],
        optimum,
        xp.sqrt(xp.clip(relative, min=0.0)),
    )
    return _or_balanced(found, projection, hankel)


def _balanced_poles(projection: Projection, orders: np.ndarray) -> np.ndarray:
    """Those of balanced truncation, whose state matrix is the leading block of the projected shift."""
    size = int(orders.max(initial=0))
    poles = np.zeros((len(orders), size), complex)
    for order in np.unique(orders):
        if order:
            rows = np.flatnonzero(orders == order)
            A = namespace(projection.A).take(projection.A, from_numpy(rows, projection.A), axis=0)[:, :order, :order]
            poles[rows, :order] = to_numpy(eigvals(A))
    return poles


def _or_balanced(found: _Found, projection: Projection, hankel: Request) -> _Found:
    """Balanced truncation where it is nearer: repeated poles, as of a delay, have no neighbours that do as well to rounding."""
    last = to_numpy(found.relative)[:, -1]
    small = np.flatnonzero((last**2 < _SMALL) | ~np.isfinite(last))
    if len(small) == 0 or found.orders.max(initial=0) == 0:
        return found
    part = projection.take(small)
    size = int(found.orders.max())
    start = relative_error(part, found.orders[small], hankel)
    places = from_numpy(small, projection.A)
    xp = namespace(projection.A)
    own = tuple(xp.take(M, places, axis=0) for M in found.matrices)
    reached = relative_error(part, found.orders[small], dataclasses.replace(hankel, realize=lambda *_: (*own, part.taps[..., 0])))
    better = np.zeros(len(found.orders), bool)
    better[small] = start < reached
    if not better.any():
        return found
    A, B, C, _ = truncated(projection, found.orders)
    chosen = from_numpy(better, projection.A)
    balanced = (A[:, :size, :size], B[:, :size, :], C[:, :, :size])
    matrices = tuple(xp.where(chosen[:, None, None], new, old) for new, old in zip(balanced, found.matrices, strict=True))
    poles = found.poles
    own_poles = from_numpy(_balanced_poles(projection, found.orders), poles)
    return dataclasses.replace(found, matrices=matrices, poles=xp.where(chosen[:, None], own_poles, poles))


def _of_tolerance(taps: Array, hankel: Request, request: H2Request, most: int) -> _Found:
    """The smallest order whose error meets the tolerance, for each element: doubled until it does, and bisected from there."""
    count = taps.shape[0]
    low, high = np.zeros(count, np.int64), np.full(count, most)
    met, order, size = np.zeros(count, bool), 1, min(16, most)
    projection = project(taps, size, hankel.rows, hankel.columns, rtol=_RTOL, tail_rtol=_TAIL_RTOL)

    def reached(places: np.ndarray, orders: np.ndarray) -> np.ndarray:
        part = projection.take(places)
        found = _solved(part, np.minimum(orders, part.rank), hankel, request, [None], orders > 0)
        return to_numpy(found.relative)[:, -1] * _strict_share(part.taps) <= request.tol

    while not met.all():
        if order > size:
            size = min(4 * size, most)
            projection = project(taps, size, hankel.rows, hankel.columns, rtol=_RTOL, tail_rtol=_TAIL_RTOL)
        waiting = np.flatnonzero(~met)
        good = reached(waiting, np.full(len(waiting), order))
        met[waiting[good]], high[waiting[good]], low[waiting[~good]] = True, order, order
        if order == most:
            break
        order = min(2 * order, most)
    while (open_ := np.flatnonzero(met & (high - low > 1))).size:
        middle = (low[open_] + high[open_]) // 2
        good = reached(open_, middle)
        high[open_[good]], low[open_[~good]] = middle[good], middle[~good]
    if not met.all():
        missed = f"{np.sum(~met)} of {count} responses"
        warnings.warn(f"tol: a relative l2 error of {request.tol} is not met in {missed} by orders up to {most}", stacklevel=4)
    orders = np.minimum(high, projection.rank)
    return _solved(projection, orders, hankel, request, [None], met)


def _strict_share(taps: Array) -> np.ndarray:
    """``(batch,)`` by which a relative error of the taps after the first is multiplied to be one of all taps."""
    squares = np.abs(to_numpy(taps)[:, 0, 0, :]) ** 2
    whole = squares.sum(-1)
    return np.sqrt(squares[:, 1:].sum(-1) / np.where(whole > 0, whole, 1))


def _assembled(parts: list[_Found], response: ImpulseResponse, batch: tuple[int, ...], sound: Array, scale: Array) -> H2Reduction:
    """One result in the order, shape, scale and precision of the response's batch."""
    xp, bits = namespace(scale), width(response.taps)

    def whole(arrays: list[Array], power: float = 0.0, last: bool = False) -> Array:
        shape = [max(sizes) for sizes in zip(*(a.shape[1:] for a in arrays), strict=True)]
        array = xp.concat([_padded(a, shape, last) for a in arrays], axis=0)
        ones = (1,) * (array.ndim - 1)
        array = array * xp.astype(xp.reshape(scale**power, (-1, *ones)), array.dtype)
        array = xp.where(xp.reshape(sound, (-1, *ones)), array, xp.full_like(array, float("nan")))
        return astype_width(xp.reshape(array, (*batch, *array.shape[1:])), bits)

    A, B, C = (whole([part.matrices[i] for part in parts], power) for i, power in enumerate((0, 0.5, 0.5)))
    orders = np.concatenate([part.orders for part in parts]).reshape(batch)
    same = orders.size and (orders == orders.flat[0]).all()
    system = StateSpace(A, B, C, response.taps[..., :1, None], response.dt)
    poles = whole([as_complex(part.poles) for part in parts])
    live = from_numpy(np.arange(poles.shape[-1]) < orders[..., None], scale)
    met = from_numpy(np.concatenate([part.met for part in parts]), scale)
    nothing = from_numpy(orders.reshape(-1) == 0, scale)  # zero beyond tap 0: no pole is needed
    converged = (xp.concat([part.optimum.converged for part in parts]) | nothing) & met & sound
    return H2Reduction(
        system=system,
        original=response,
        method="l2-optimal approximation",
        order=int(orders.flat[0]) if same else from_numpy(orders, scale),
        sigma=whole([part.sigma for part in parts], 1),
        bound=astype_width(xp.full(batch, float("nan"), dtype=scale.dtype, device=scale.device), bits),
        lower_bound=whole([part.lower_bound for part in parts], 1),
        converged=xp.reshape(converged, batch),
        condition=whole([part.optimum.condition for part in parts]),
        interpolation_residual=interpolation_residual(response, system, poles, live),
        iterations=xp.reshape(xp.concat([part.optimum.iterations for part in parts]), batch),
        history=whole([part.relative for part in parts], last=True),
    )


def _padded(array: Array, shape: list[int], last: bool) -> Array:
    """``array`` ``(k, ...)`` filled up at the ends with zeros, or with its last entry."""
    xp = namespace(array)
    for axis, size in enumerate(shape, 1):
        missing = size - array.shape[axis]
        if missing:
            if last:
                filler = xp.repeat(array[..., -1:], missing, axis=-1)
            else:
                filler = xp.zeros((*array.shape[:axis], missing, *array.shape[axis + 1 :]), dtype=array.dtype, device=array.device)
            array = xp.concat([array, filler], axis=axis)
    return array
