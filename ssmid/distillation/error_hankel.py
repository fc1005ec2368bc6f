"""The Hankel norm of the difference between a filter and a model, from both sides, many at once: Lanczos with FFT products.

The infinite Hankel matrix of the difference is symmetric. Its first N rows and columns are N taps and more; all others together
are as many as the model has poles, in orthonormal real functions of these (error_norms.py), and of them only the few through which
something comes: ``[[H, B], [B^T, K]]``. What is left out is small, and adds to the norm with its square.

A largest Ritz value is a lower bound, but a small residual does not say that no larger value was missed. The Lanczos polynomials do
(van Dorsselaer, Hochstenbach & van der Vorst, SIAM J. Matrix Anal. Appl. 22, 2000): the k-th next vector is ``p_k(H) v``, of length 1,
so that ``|p_k(lambda)| <= 1 / |u* v|`` for the eigenvector u of the largest value, and a random start v is all but never nearer
than ``delta`` to orthogonal to u: with probability ``delta sqrt(2 n / pi)``. Beyond all zeros p_k grows fast; where it reaches
``1 / delta`` is an upper bound. No vectors are kept and nothing is orthogonalized again: the recurrence is all that is needed.
"""

from __future__ import annotations

import dataclasses
from math import pi

import numpy as np

from ssmid._array import (
    Array,
    astype_width,
    double,
    fft_of,
    from_numpy,
    namespace,
    next_fast_length,
    on_gpu,
    one_blas_thread,
    quiet,
    replaced,
    to_numpy,
)
from ssmid.distillation.error_norms import ACCURACY, Difference, integer_power, rounded_up
from ssmid.kernels.compiler import fused
from ssmid.kernels.lanczos_bounds import POINTS, lanczos_bounds
from ssmid.linalg import transpose, vandermonde_product

DOUBT = 1e-6
"""Probability, of each filter, over the draw of the one start vector, that an upper bound is none."""
_DROPPED = 0.01
"""What may be left out of the tail, relative to a lower bound of the norm: it adds its square, 1e-4."""
_FIRST, _GROWTH, _LEAST, _MOST = 24, 1.25, 64, 1000
"""Steps before the first look, from look to look, and at most: twice the rows, which is more than exact arithmetic needs."""
_ROUNDING = 64
_MEMORY = {"host": 2**24, "gpu": 2**33}


@one_blas_thread
def hankel_norm(difference: Difference, low: Array, high: Array, precision: str = "float64") -> tuple[Array, Array]:
    """Bounds ``(n,)`` of the Hankel norms, the upper at most ``ACCURACY`` above the lower where the Lanczos process settles.

    low, high : ``(n,)`` that are known already   precision : of the products, "float32" adds its rounding to the bounds, 1e-5
    """
    d, xp = difference, namespace(difference.taps)
    energy = xp.sqrt(d.energy)
    low = xp.minimum(xp.maximum(low, energy), high)
    columns = xp.real(transpose(d.root) @ (d.later[:, :, None] * d.root))
    length = xp.linalg.vector_norm(columns, axis=-2)
    order = xp.argsort(length, axis=-1, descending=True, stable=True)
    squares = xp.take_along_axis(length, order, axis=-1) ** 2
    beyond = xp.flip(xp.cumulative_sum(xp.flip(squares, axis=-1), axis=-1), axis=-1) ** 0.5
    needed = to_numpy(xp.count_nonzero(beyond > _DROPPED * low[:, None], axis=-1))
    sizes = rounded_up(needed, order.shape[-1])
    beyond = xp.concat([beyond, xp.zeros_like(beyond[:, :1])], axis=-1)
    dropped = xp.take_along_axis(beyond, from_numpy(sizes[:, None], beyond), axis=-1)[:, 0]
    bits = 32 if precision == "float32" else 64
    lower, upper = low, high
    for size in np.unique(sizes):
        places = np.flatnonzero(sizes == size)
        rows = max(1, _MEMORY["gpu" if on_gpu(d.taps) else "host"] // (bits // 8 * (20 + int(size)) * d.length))
        for start in range(0, len(places), rows):
            chosen = places[start : start + rows]
            index = from_numpy(chosen, low)
            section = _Section.of(d.take(chosen), xp.take(order, index, axis=0)[:, : int(size)], bits)
            found = _bracketed(section, xp.take(low, index, axis=0), xp.take(high, index, axis=0))
            lower, upper = (replaced(x, chosen, y) for x, y in zip((lower, upper), found, strict=True))
    middle = (upper - dropped) / 2
    whole = upper - middle + xp.hypot(middle, dropped)
    rounding = _ROUNDING * float(xp.finfo(xp.float32 if bits == 32 else xp.float64).eps)
    return xp.maximum(low, lower * (1 - rounding)), xp.minimum(high, whole * (1 + rounding))


@dataclasses.dataclass(frozen=True, eq=False)
class _Section:
    """The matrices ``[[H, B], [B^T, K]]`` of N + q rows and columns.

    spectrum : ``(n, M/2 + 1)`` of the taps, reversed   size : M   B : ``(n, q, N)``   K : ``(n, q, q)``
    """

    spectrum: Array
    size: int
    B: Array
    K: Array

    @classmethod
    def of(cls, d: Difference, columns: Array, bits: int) -> _Section:
        """With the tail's coordinates at the indices ``columns`` ``(n, q)``."""
        xp = namespace(d.taps)
        size = next_fast_length(2 * d.length - 1)
        spectrum = fft_of(d.taps).rfft(astype_width(xp.flip(d.taps[:, : 2 * d.length - 1], axis=-1), bits), n=size, axis=-1)
        n, q, modes = *columns.shape, d.poles.shape[-1]
        index = xp.broadcast_to(columns[:, None, :], (n, modes, q))
        root = xp.take_along_axis(d.root, index, axis=-1)
        weights = transpose(d.later[:, :, None] * root)
        B = vandermonde_product(d.poles[:, None, :], weights, d.length, real=True) if q else d.taps[:, None, : d.length][:, :0, :]
        K = xp.real((weights * integer_power(d.poles, d.length)[:, None, :]) @ root)
        return cls(spectrum, size, astype_width(B, bits), astype_width(K, bits))

    @property
    def rows(self) -> int:
        return self.B.shape[-1] + self.B.shape[-2]

    def take(self, index: Array) -> _Section:
        xp = namespace(self.B)
        return _Section(xp.take(self.spectrum, index, axis=0), self.size, xp.take(self.B, index, axis=0), xp.take(self.K, index, axis=0))

    def apply(self, x: Array) -> Array:
        """``(n, rows)`` to ``(n, rows)``: with the taps reversed the product is a convolution, read backwards."""
        xp, transform, length = namespace(x), fft_of(x), self.B.shape[-1]
        y = transform.irfft(self.spectrum * transform.rfft(x[:, :length], n=self.size, axis=-1), n=self.size, axis=-1)
        y = xp.flip(y[:, length - 1 : 2 * length - 1], axis=-1)
        if self.B.shape[-2] == 0:
            return y
        inner, outer = x[:, None, :length], x[:, None, length:]
        return xp.concat([y + (outer @ self.B)[:, 0, :], (inner @ transpose(self.B) + outer @ self.K)[:, 0, :]], axis=-1)


def _bracketed(section: _Section, low: Array, high: Array) -> tuple[Array, Array]:
    """Bounds of the norms of symmetric matrices. Who is done leaves when a quarter is; what it left with does not change any more."""
    xp, n = namespace(low), low.shape[0]
    start = np.random.default_rng(0).standard_normal(section.rows)
    unit = xp.zeros_like(low)[:, None] + from_numpy(start / np.linalg.norm(start), low)
    unit = xp.astype(unit, section.B.dtype)
    before, beta = xp.zeros_like(unit), xp.zeros_like(low)
    alphas, betas = [], []
    lower, upper, places = low, high, np.arange(n)
    done = to_numpy(high <= (1 + ACCURACY / 2) * low)
    steps, look, most = 0, _FIRST, min(_MOST, max(_LEAST, 2 * section.rows))
    while not done.all():
        rest = section.apply(unit) - xp.astype(beta, unit.dtype)[:, None] * before
        alpha = _dot(rest, unit)
        rest = rest - alpha[:, None] * unit
        square = _dot(rest, rest)
        beta = double(square) ** 0.5
        scale = xp.astype(xp.where(beta > 0, 1 / xp.where(beta > 0, beta, xp.ones_like(beta)), beta), unit.dtype)
        before, unit = unit, rest * scale[:, None]
        alphas.append(double(alpha))
        betas.append(beta)
        steps += 1
        if steps < look and steps < most:
            continue
        look = max(steps + 1, int(_GROWTH * steps))
        reach = (2 * section.rows / pi) ** 0.5 / DOUBT
        new = (lanczos_bounds if fused(low) else narrowed)(xp.stack(alphas), xp.stack(betas), low, high, reach)
        finished = from_numpy(done, low)
        low, high = (xp.where(finished, old, x) for old, x in zip((low, high), new, strict=True))
        done = to_numpy(high <= (1 + ACCURACY / 2) * low) | (steps >= most)
        if 4 * done.sum() < done.size:
            continue
        leave, stay = np.flatnonzero(done), np.flatnonzero(~done)
        index = from_numpy(leave, low)
        lower, upper = (replaced(x, places[leave], xp.take(y, index, axis=0)) for x, y in ((lower, low), (upper, high)))
        if stay.size == 0:
            break
        index, places, done = from_numpy(stay, low), places[stay], done[stay]
        section, low, high, unit, before, beta = section.take(index), *(xp.take(x, index, axis=0) for x in (low, high, unit, before, beta))
        alphas, betas = ([xp.take(x, index, axis=0) for x in kept] for kept in (alphas, betas))
    return lower, upper


@quiet
def narrowed(alpha: Array, beta: Array, low: Array, high: Array, reach: float) -> tuple[Array, Array]:
    """Tighter bounds from the Lanczos coefficients ``(k, n)``, by the pivots of ``t - T`` and ``t + T`` at points between the bounds.

    Where a pivot is not positive an eigenvalue of T is at least t, and the norm with it. Where all are, ``p_k(t)`` is the product
    of pivots over ``beta``; the norm is at most t where both products are at least ``reach``, ``1 / delta``.
    """
    xp = namespace(low)
    fraction = from_numpy(np.arange(1, POINTS + 1) / (POINTS + 1), low)
    t = low[:, None] * (high / xp.where(low > 0, low, xp.ones_like(low)))[:, None] ** fraction
    t = xp.stack([t, t])
    sign = from_numpy(np.array([1.0, -1.0])[:, None, None], low)
    pivot, product = xp.ones_like(t), xp.ones_like(t)
    inside, one = xp.zeros_like(t) > 0, xp.ones((), dtype=t.dtype, device=t.device)
    signed = sign * alpha[:, None, :, None]
    nonzero = xp.where(beta > 0, beta, xp.full_like(beta, float(xp.finfo(xp.float64).smallest_normal)))
    over, square = (1 / nonzero)[:, :, None], (beta**2)[:, :, None]
    for k in range(alpha.shape[0]):
        pivot = t - signed[k, ...] if k == 0 else t - signed[k, ...] - square[k - 1, ...] / pivot
        inside = inside | (pivot <= 0)
        pivot = xp.where(inside, one, pivot)
        product = product * (pivot * over[k, ...])
    below = inside[0, ...] | inside[1, ...]
    above = ~below & (product[0, ...] >= reach) & (product[1, ...] >= reach)
    t = t[0, ...]
    return (
        xp.maximum(low, xp.max(xp.where(below, t, low[:, None]), axis=-1)),
        xp.minimum(high, xp.min(xp.where(above, t, high[:, None]), axis=-1)),
    )


def _dot(x: Array, y: Array) -> Array:
    return (x[:, None, :] @ y[:, :, None])[:, 0, 0]
