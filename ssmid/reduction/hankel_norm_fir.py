"""Optimal Hankel-norm approximation of FIR filters from one Schmidt pair (Adamjan, Arov & Krein, Math. USSR Sbornik 15, 1971).

The Hankel matrix H of a scalar response is symmetric: ``H v = sigma conj(v)`` at the value ``sigma = sigma_{r+1}``. With
``w = conj(v)`` and the delay ``q`` the difference of the response and its best approximations, stable and not, is
``e(q) = sigma q w(q) / conj(w(q))`` on the circle: all-pass, and its causal part is the error. So the approximation is known tap by
tap, by two FFTs on a grid fine enough for the zeros of ``v`` that lie nearest to the circle; the Hankel matrix of these taps has
rank r to rounding, and a realization of them is exact. No polynomial of the filter's length is ever factored.
"""

from __future__ import annotations

import dataclasses
from math import prod

import numpy as np

from ssmid._array import Array, astype_width, detach, double, fft_of, from_numpy, is_complex, namespace, on_gpu, to_numpy, width
from ssmid.analysis.hankel import Triplets, hankel_triplets, normalized
from ssmid.analysis.impulse import markov_parameters
from ssmid.linalg import adjoint, block_hankel_products, eigvals, orthonormalize, solve, svd, transpose
from ssmid.reduction.arguments import checked_order
from ssmid.reduction.fir import sum_beyond
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse, StateSpace

_LEADING_BY_TOLERANCE = 64
METHOD = "optimal Hankel-norm approximation"
_RTOL, _TAIL_RTOL = 1e-12, 1e-9
_POLISHING = 2
_FIRST_GRID, _LAST_GRID = 64, 2**23
_FOLDED = 1e-7
_EQUAL = 1e-6
_ZERO = 0.05
"""Of the neighbours' sum: a point of the grid that is this much nearer to a zero than to them is the zero itself."""
_ATTAINED = 1e-2
_MEMORY = {"host": 2**27, "gpu": 2**33}
_EPS = float(np.finfo(float).eps)


@dataclasses.dataclass(frozen=True, eq=False)
class _Approximation:
    """Systems of one order, and how well they are known.

    excess : ``(batch,)`` an upper bound of the error's Hankel norm over ``sigma``   folded : ``(batch,)`` whether the grid was too coarse
    """

    A: Array
    B: Array
    C: Array
    D: Array
    excess: Array
    folded: Array


def hankel_norm_fir(response: ImpulseResponse, order: int | None, tol: float | None, *, keep: bool) -> Reduction:
    """The reduction of every filter of a bank, each a scalar system. Arguments: :func:`ssmid.hankel_norm_approximation`."""
    xp = namespace(response.taps)
    batch, length = response.batch_shape, response.length
    if order is not None:
        order = checked_order(order, length - 1)
    taps, sound, scale = normalized(xp.reshape(detach(double(response.taps)), (prod(batch), 1, 1, length)))
    if length == 1:
        taps = xp.concat([taps, xp.zeros_like(taps)], axis=-1)
    triplets, orders, met = _spectrum(taps, order, tol, single=not batch)
    size, parts = int(orders.max(initial=0)), []
    queue = []
    for r in np.unique(orders):
        points = _FIRST_GRID * (length + _rows(int(r)))
        queue.append((int(r), np.flatnonzero(orders == r), 1 << (points - 1).bit_length()))
    while queue:
        r, members, grid = queue.pop()
        step = max(1, _MEMORY["gpu" if on_gpu(taps) else "host"] // (64 * grid))
        if len(members) > step:
            queue.append((r, members[step:], grid))
        chosen = members[:step]
        index = from_numpy(chosen, taps)
        part = _approximations(xp.take(taps[:, 0, 0, :], index, axis=0), _taken(triplets, index), r, grid, keep)
        coarse = to_numpy(part.folded) & (4 * grid <= _LAST_GRID)
        if coarse.any():
            queue.append((r, chosen[coarse], 4 * grid))
        parts.append((chosen, _grown(part, size), ~coarse))
    return _assembled(parts, response, taps, triplets, orders, met, sound, scale, keep)


def _grown(part: _Approximation, size: int) -> _Approximation:
    """With states that are zero."""
    xp, (batch, r) = namespace(part.A), part.A.shape[:2]

    def zeros(rows: int, columns: int) -> Array:
        return xp.zeros((batch, rows, columns), dtype=part.A.dtype, device=part.A.device)

    A = xp.concat([xp.concat([part.A, zeros(r, size - r)], axis=-1), zeros(size - r, size)], axis=-2)
    B, C = xp.concat([part.B, zeros(size - r, 1)], axis=-2), xp.concat([part.C, zeros(1, size - r)], axis=-1)
    return dataclasses.replace(part, A=A, B=B, C=C)


def _assembled(
    parts: list[tuple[np.ndarray, _Approximation, np.ndarray]],
    response: ImpulseResponse,
    taps: Array,
    triplets: Triplets,
    orders: np.ndarray,
    met: np.ndarray,
    sound: Array,
    scale: Array,
    keep: bool,
) -> Reduction:
    """One result in the order, shape, scale and precision of the response's batch."""
    xp, batch = namespace(taps), response.batch_shape

    def shaped(array: Array, power: float = 0.0) -> Array:
        ones = (1,) * (array.ndim - 1)
        array = array * xp.astype(xp.reshape(scale**power, (-1, *ones)), array.dtype)
        array = xp.where(xp.reshape(sound, (-1, *ones)), array, xp.full_like(array, float("nan")))
        return astype_width(xp.reshape(array, (*batch, *array.shape[1:])), width(response.taps))

    if parts:
        fine = np.flatnonzero(np.concatenate([fine for _, _, fine in parts]))
        index = from_numpy(fine[np.argsort(np.concatenate([places[fine] for places, _, fine in parts]))], taps)
        A, B, C, D, excess = (
            xp.take(xp.concat([getattr(part, name) for _, part, _ in parts], axis=0), index, axis=0)
            for name in ("A", "B", "C", "D", "excess")
        )
    else:
        A, B, C, D, excess = taps[:, 0, :0, :0], taps[:, 0, :0, :1], taps[:, 0, :1, :0], taps[:, 0, :1, :1], triplets.sigma[:, 0]
    sigma = xp.concat([triplets.sigma, xp.zeros_like(triplets.sigma[:, :1])], axis=-1)
    following = xp.take_along_axis(sigma, from_numpy(orders[:, None], taps), axis=-1)[:, 0]
    found = to_numpy(triplets.converged) | (np.arange(triplets.sigma.shape[-1]) > orders[:, None])
    converged = from_numpy(met & found.all(-1), taps) & sound & (excess <= 1 + _ATTAINED)
    return Reduction(
        system=StateSpace(shaped(A), shaped(B, 0.5), shaped(C, 0.5), shaped(D, 1), response.dt),
        original=response,
        method=METHOD,
        order=int(orders[0]) if len(orders) and (orders == orders[0]).all() else from_numpy(orders.reshape(batch), taps),
        sigma=shaped(triplets.sigma, 1),
        bound=shaped((2 if keep else 1) * sum_beyond(taps, triplets.sigma, triplets.error, orders), 1),
        lower_bound=shaped(following, 1),
        converged=xp.reshape(converged, batch),
        condition=shaped(xp.where(following > 0, sigma[:, 0] / xp.where(following > 0, following, 1.0), xp.ones_like(following))),
    )


# ---------------------------------------------------------------- Schmidt pairs


def _spectrum(taps: Array, order: int | None, tol: float | None, *, single: bool) -> tuple[Triplets, np.ndarray, np.ndarray]:
    """Triplets of ``taps`` ``(batch, 1, 1, length)``, the order of each element, and whether it is what was asked for."""
    n = taps.shape[-1] - 1
    count = _LEADING_BY_TOLERANCE if order is None else order + 1
    while True:
        triplets = hankel_triplets(taps[..., 1:], n, n, min(count, n + 1), rtol=_RTOL, tail_rtol=_TAIL_RTOL)
        sigma = to_numpy(triplets.sigma)
        largest = sigma[:, :1]
        if tol is None or count > n or (sigma[:, -1:] <= tol * largest).all():
            break
        count *= 4
    rank = (sigma > 4 * _EPS * n**0.5 * largest).sum(-1)
    if order is None:
        assert tol is not None
        return triplets, np.minimum(rank, (sigma > tol * largest).sum(-1)), np.ones(len(sigma), dtype=bool)
    if single and 0 < rank[0] < order:
        raise ValueError(f"order: expected 1 to {rank[0]}, which is what the response carries to rounding, got {order}")
    orders = np.minimum(order, rank)
    following = np.take_along_axis(np.pad(sigma, ((0, 0), (0, 1))), orders[:, None], axis=-1)
    # as near as any of this order is one of fewer states where Hankel values are equal
    orders = np.minimum(orders, (sigma > following * (1 + _EQUAL)).sum(-1))
    # a response of fewer states than asked for is met exactly by these
    return triplets, orders, np.ones(len(sigma), dtype=bool)


def _taken(triplets: Triplets, index: Array) -> Triplets:
    xp = namespace(index)
    arrays = {name: xp.take(getattr(triplets, name), index, axis=0) for name in ("sigma", "error", "converged", "left", "right")}
    return dataclasses.replace(triplets, **arrays)


def _schmidt_vector(taps: Array, triplets: Triplets, r: int) -> tuple[Array, Array, Array]:
    """``w``, ``H conj(w)`` and ``sigma`` of each element, with ``H conj(w) = sigma w`` up to the sign of a real w.

    The iteration leaves a little of neighbours in a vector. Those of the same symmetry only mix all-pass functions of nearly equal
    height; those of the other would spoil the modulus and are taken away by ``v <- v + conj(H v) / sigma``.
    """
    xp = namespace(taps)
    n = taps.shape[-1]
    product, _ = block_hankel_products(taps[:, None, None, :], n, n)

    def symmetric(v: Array) -> Array:
        y = product(v[:, None, :])[:, 0, :]
        return xp.conj(y) if is_complex(y) else y

    v, sigma = triplets.right[:, r, :], triplets.sigma[:, r]
    size = xp.where(sigma > 0, sigma, xp.ones_like(sigma))[:, None]
    overlap = xp.sum(symmetric(v) * v, axis=-1) if not is_complex(v) else xp.sum(xp.conj(symmetric(v)) * v, axis=-1)
    if is_complex(v):
        v = v * xp.exp(-0.5j * xp.astype(xp.atan2(xp.imag(overlap), xp.real(overlap)), v.dtype))[:, None]
        sign = xp.ones_like(sigma)[:, None]
    else:
        sign = xp.where(overlap < 0, -xp.ones_like(sigma), xp.ones_like(sigma))[:, None]
    larger = triplets.right[:, :r, :]
    for _ in range(_POLISHING):
        v = v + xp.astype(sign / size, v.dtype) * symmetric(v)
        # H enlarges what rounding left of larger values
        v = v - (transpose(larger) @ ((xp.conj(larger) if is_complex(v) else larger) @ v[:, :, None]))[:, :, 0]
        length = xp.linalg.vector_norm(v, axis=-1, keepdims=True)
        v = v / xp.astype(xp.where(length > 0, length, xp.ones_like(length)), v.dtype)
    w, image = (xp.conj(v), xp.conj(symmetric(v))) if is_complex(v) else (v, symmetric(v))
    return w, image, sigma


# ---------------------------------------------------------------- the all-pass error


def _error_taps(taps: Array, triplets: Triplets, r: int, grid: int, count: int) -> tuple[Array, Array, Array, Array]:
    """``count`` taps from 1 on of the best stable approximation's error and its values, its largest modulus with the antistable
    part over ``sigma``, and whether more than 1e-7 of that folds over from the far side of the grid.
    """
    xp, n = namespace(taps), taps.shape[-1]
    if r == 0:
        return _of_order_zero(taps, triplets, grid, count)
    w, image, sigma = _schmidt_vector(taps, triplets, r)
    # a value of rounding leaves nothing over
    image = xp.where((sigma > 4 * _EPS * n**0.5 * triplets.sigma[:, 0])[:, None], image, xp.zeros_like(image))
    size = xp.where(sigma > 0, sigma, xp.ones_like(sigma))
    transform = fft_of(taps)
    forward, inverse = (transform.fft, transform.ifft) if is_complex(taps) else (transform.rfft, transform.irfft)
    below = forward(w, n=grid, axis=-1)
    below = xp.where(below == 0, xp.ones_like(below), below)
    omega = 2 * np.pi / grid * xp.arange(below.shape[-1], dtype=xp.float64, device=taps.device)
    error = forward(image, n=grid, axis=-1) / xp.conj(below) * xp.exp(-1j * xp.astype(omega, below.dtype))
    error = _continued(error, xp.abs(below), half=not is_complex(taps))
    whole = inverse(error, n=grid, axis=-1)
    folded = xp.max(xp.abs(whole[..., grid // 2 - grid // 16 : grid // 2 + grid // 16]), axis=-1) > _FOLDED * size
    peak = xp.max(xp.abs(error), axis=-1) / size
    causal = whole[..., : grid // 2]
    causal = xp.concat([xp.zeros_like(causal[..., :1]), causal[..., 1:]], axis=-1)
    return causal[..., 1 : count + 1], forward(causal, n=grid // 2, axis=-1), peak, folded


def _of_order_zero(taps: Array, triplets: Triplets, grid: int, count: int) -> tuple[Array, Array, Array, Array]:
    """What :func:`_error_taps` returns where no state is left: the error is the response, however many values equal ``sigma_1``."""
    xp, transform = namespace(taps), fft_of(taps)
    forward = transform.fft if is_complex(taps) else transform.rfft
    error = xp.concat([taps, xp.zeros((taps.shape[0], count - taps.shape[1]), dtype=taps.dtype, device=taps.device)], axis=-1)
    values = forward(xp.concat([xp.zeros_like(taps[:, :1]), taps], axis=-1), n=grid // 2, axis=-1)
    attained = xp.ones_like(triplets.sigma[:, 0])
    return error, values, attained, attained < 0


def _continued(error: Array, below: Array, *, half: bool) -> Array:
    """``error`` with the mean of its neighbours where ``w`` has a zero on the grid: with equal Hankel values, which leave w and its
    mirror image a common factor on the circle, the quotient is 0 / 0 there and smooth.
    """
    xp = namespace(error)

    def neighbours(x: Array) -> Array:
        if not half:
            return xp.roll(x, 1, axis=-1) + xp.roll(x, -1, axis=-1)
        edge = [xp.conj(x[:, 1:2]), xp.conj(x[:, -2:-1])] if is_complex(x) else [x[:, 1:2], x[:, -2:-1]]
        extended = xp.concat([edge[0], x, edge[1]], axis=-1)
        return extended[:, :-2] + extended[:, 2:]

    return xp.where(below < _ZERO * neighbours(below), neighbours(error) / 2, error)


def _approximations(taps: Array, triplets: Triplets, r: int, grid: int, keep: bool) -> _Approximation:
    """The approximations of order r of ``taps`` ``(batch, length)``."""
    xp = namespace(taps)
    through, taps = taps[:, 0], taps[:, 1:]
    batch, n = taps.shape
    rows = max(n, _rows(r))
    best = xp.concat([taps, xp.zeros((batch, 2 * rows - 1 - n), dtype=taps.dtype, device=taps.device)], axis=-1)
    error, values, peak, folded = _error_taps(taps, triplets, r, grid, best.shape[-1])
    best = best - error
    A, B, C = _realized(best, r, rows)
    D = xp.reshape(through, (batch, 1, 1))
    if not keep:
        D = D + xp.astype(_centre(values), D.dtype)[:, None, None]
    modelled = markov_parameters(A, B, C, best.shape[-1])[:, 0, 0, :] if r else xp.zeros_like(best)
    missed = xp.sum(xp.abs(modelled - best), axis=-1)
    radius = xp.max(xp.abs(eigvals(A)), axis=-1) if r else xp.zeros_like(missed)
    sigma = triplets.sigma[:, r]
    floor = 1e-12 * triplets.sigma[:, 0]
    excess = peak + missed / xp.where(sigma > floor, sigma, xp.where(floor > 0, floor / _ATTAINED, xp.ones_like(floor)))
    return _Approximation(A, B, C, D, xp.where((radius < 1) & ~folded, excess, xp.full_like(excess, float("inf"))), folded)


def _rows(r: int) -> int:
    """Rows of the approximation's Hankel matrix, at least: it rings on, and of a window hardly longer than r its shift is not known."""
    return 4 * r + 64


def _realized(taps: Array, r: int, n: int) -> tuple[Array, Array, Array]:
    """``A, B, C`` of ``taps`` ``(batch, 2 n - 1)`` whose Hankel matrix ``(n, n)`` has rank r: the range by products with it alone.

    The state matrix solves the shift equation of the range, of which all rows are known (Kung 1978).
    """
    xp, batch = namespace(taps), taps.shape[0]
    if r == 0:
        empty = xp.zeros((batch, 0, 0), dtype=taps.dtype, device=taps.device)
        column = xp.zeros((batch, 0, 1), dtype=taps.dtype, device=taps.device)
        return empty, column, transpose(column)
    product, adjoint_product = block_hankel_products(taps[:, None, None, :], n, n)
    start = from_numpy(np.random.default_rng(0).standard_normal((1, r, n)), taps)
    rows = xp.astype(xp.broadcast_to(start, (batch, r, n)), taps.dtype)
    for _ in range(2):
        rows = transpose(orthonormalize(transpose(product(transpose(orthonormalize(transpose(adjoint_product(rows))))))))
    image = adjoint_product(rows)
    P, values, _ = svd(image @ adjoint(image))  # squares of the Hankel values of the approximation
    U = transpose(rows) @ xp.conj(P) if is_complex(P) else transpose(rows) @ P
    last = U[:, -1:, :]
    shifted = adjoint(U[:, :-1, :]) @ U[:, 1:, :]
    eye = xp.eye(r, dtype=taps.dtype, device=taps.device)
    A = solve(eye - adjoint(last) @ last, shifted)
    B, C = adjoint(U) @ taps[:, :n, None], U[:, :1, :]
    root = xp.astype(xp.where(values > 0, values, xp.ones_like(values)) ** 0.25, A.dtype)
    return A / root[:, :, None] * root[:, None, :], B / root[:, :, None], C * root[:, None, :]


def _centre(values: Array) -> Array:
    """``(batch,)`` the d that minimizes ``max_k |values_k - d|``, real where the response is: half of a spectrum is given then.

    ``|x + i y - d|^2 = d^2 + (x^2 + y^2 - 2 x d)``: the largest of straight lines beside a parabola. The minimum lies where the
    steepest line known to fall meets the steepest known to rise, or at the foot of one of them; each step looks up a new line.
    """
    xp = namespace(values)
    x, q = xp.real(values), xp.abs(values) ** 2

    def line(d: Array) -> tuple[Array, Array]:
        k = xp.argmax(q - 2 * x * d[:, None], axis=-1, keepdims=True)
        return xp.take_along_axis(x, k, axis=-1)[:, 0], xp.take_along_axis(q, k, axis=-1)[:, 0]

    right, left = line(-xp.max(xp.abs(values), axis=-1)), line(xp.max(xp.abs(values), axis=-1))
    d = xp.zeros_like(right[0])
    for _ in range(16):
        gap = right[0] - left[0]
        meet = (right[1] - left[1]) / (2 * xp.where(gap == 0, xp.ones_like(gap), gap))
        d = xp.where(gap == 0, left[0], xp.clip(meet, min=xp.minimum(left[0], right[0]), max=xp.maximum(left[0], right[0])))
        new = line(d)
        falls = new[0] > d
        right = tuple(xp.where(falls, a, b) for a, b in zip(new, right, strict=True))
        left = tuple(xp.where(falls, b, a) for a, b in zip(new, left, strict=True))
    return d
