"""Sums of partial fractions over conjugate pairs, ``sum_n v_n / (i y - a_n) + conj(v_n) / (i y - conj(a_n))``, and their gradient.

The kernel of an S4 layer is such sums on the imaginary axis (Gu, Goel & Re 2022, appendix C.3). The fused kernels hold nothing of the size
points x nodes: the numerators of one node share its two reciprocals. They work in single precision, but take the distance of point and
node from double precision in two parts, because slow modes lie as near to the axis as single precision resolves.
Operations: 12, two reciprocals, and 4 for each numerator, for each node and point; the gradient twice that and a half.
"""

from __future__ import annotations

import numpy as np

from ssmid._array import Array, as_complex, astype_width, count, namespace
from ssmid.kernels.compiler import ceil_power_of_two, jit, tl

_BYTES = 2**27
_POINTS = 256
"""Points of a program of the sums; of the gradient, points of a split."""
_SPLIT = 1024
_TILE = 1024


def cauchy_sums(numerators: Array, nodes: Array, points: Array) -> Array:
    """``(H, M, K)`` complex: of M numerators at each of N nodes, at the points ``i points``. Differentiable.

    numerators : ``(H, M, N)`` complex   nodes : ``(H, N)`` complex, one of each conjugate pair, off the axis   points : ``(K,)`` real
    """
    xp = namespace(numerators, nodes, points)
    chunk = max(1, _BYTES // (64 * max(1, count(numerators))))
    parts = []
    for start in range(0, points.shape[0], chunk):
        first, second = _reciprocals(nodes, points[start : min(start + chunk, points.shape[0])])
        parts.append(numerators @ first + xp.conj(numerators) @ second)
    return xp.concat(parts, axis=-1)


def cauchy_gradients(gradient: Array, numerators: Array, nodes: Array, points: Array) -> tuple[Array, Array]:
    """By numerators and nodes, of a real function whose gradient by the sums is ``gradient`` ``(H, M, K)``.

    Gradients by complex numbers are ``d/d real + i d/d imaginary``, as torch has them.
    """
    xp = namespace(gradient, numerators)
    chunk = max(1, _BYTES // (64 * max(1, count(numerators))))
    by_numerator, squared = xp.zeros_like(numerators), xp.zeros_like(numerators)
    for start in range(0, points.shape[0], chunk):
        taken = slice(start, min(start + chunk, points.shape[0]))
        first, second = _reciprocals(nodes, points[taken])
        part = gradient[..., taken]
        first, second = (xp.matrix_transpose(x) for x in (first, second))
        by_numerator = by_numerator + part @ xp.conj(first) + xp.conj(part) @ second
        squared = squared + part @ xp.conj(first * first) + xp.conj(part) @ (second * second)
    return by_numerator, xp.sum(xp.conj(numerators) * squared, axis=1)


def _reciprocals(nodes: Array, points: Array) -> tuple[Array, Array]:
    """``1 / (i y - a)`` and ``1 / (i y - conj(a))``, ``(H, N, K)``."""
    xp = namespace(nodes)
    at = 1j * as_complex(points)
    return 1 / (at - nodes[..., None]), 1 / (at - xp.conj(nodes)[..., None])


def fused_cauchy_sums(numerators: Array, nodes: Array, points: Array) -> Array:
    """As :func:`cauchy_sums`, from double precision to single, in one kernel."""
    channels, many, n = numerators.shape
    out = _single(numerators).new_empty((channels, many, points.shape[0]))
    if count(out):
        grid = (channels, -(-points.shape[0] // _POINTS))
        padded = ceil_power_of_two(many)
        _sums[grid](
            *_prepared(numerators, nodes, points), out.view(namespace(out).float32), n, points.shape[0], many,
            MANY=padded, BLOCK=_POINTS, num_warps=4,
        )  # fmt: skip
    return out


def fused_cauchy_gradients(gradient: Array, numerators: Array, nodes: Array, points: Array) -> tuple[Array, Array]:
    """As :func:`cauchy_gradients`, by numerators in single and by nodes in double precision.

    Sums over points are split among programs and joined in a fixed order: the same numbers in every run.
    """
    xp, (channels, many, n) = namespace(numerators), numerators.shape
    splits = -(-points.shape[0] // _SPLIT)
    rows = min(32, ceil_power_of_two(n))
    partial = xp.zeros((splits, channels, many, n, 4), dtype=xp.float32, device=numerators.device)
    if count(partial):
        _, node, point = _prepared(numerators, nodes, points)
        grid = (channels * many, -(-n // rows), splits)
        given = _single(gradient).contiguous().view(xp.float32)
        sizes = (channels, n, points.shape[0], many, _SPLIT)
        _gradients[grid](given, node, point, partial, *sizes, ROWS=rows, BLOCK=_TILE // rows, num_warps=4)
    parts = xp.sum(partial, axis=0)
    sums = [as_complex(parts[..., i]) + 1j * as_complex(parts[..., i + 1]) for i in (0, 2)]
    return sums[0], xp.sum(xp.conj(numerators) * astype_width(sums[1], 64), axis=1)


def _prepared(numerators: Array, nodes: Array, points: Array) -> tuple[Array, Array, Array]:
    """Single precision: numerators ``(H, M, N, 2)``, nodes ``(H, N, 3)`` as distance to the axis and height in two parts, points so too."""
    xp = namespace(nodes)
    height = _two_parts(xp.imag(nodes))
    node = xp.stack([xp.astype(-xp.real(nodes), xp.float32), *height], axis=-1)
    return _single(numerators).contiguous().view(xp.float32), node, xp.stack(_two_parts(points), axis=-1)


def _two_parts(x: Array) -> tuple[Array, Array]:
    xp = namespace(x)
    high = xp.astype(x, xp.float32)
    return high, xp.astype(x - xp.astype(high, x.dtype), xp.float32)


def _single(x: Array) -> Array:
    x = astype_width(x, 32)
    return x.resolve_conj() if hasattr(x, "resolve_conj") else np.ascontiguousarray(x)


@jit
def _sums(numerator, node, point, out, N, K, many, MANY: tl.constexpr, BLOCK: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    h = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = tl.arange(0, MANY)
    high = tl.load(point + 2 * k, k < K, 0.0)
    low = tl.load(point + 2 * k + 1, k < K, 0.0)
    real = tl.zeros((MANY, BLOCK), dtype=tl.float32)
    imag = tl.zeros((MANY, BLOCK), dtype=tl.float32)
    for n in range(N):
        at = node + 3 * (h * N + n)
        a, b, rest = tl.load(at), tl.load(at + 1), tl.load(at + 2)
        above = (high - b) + (low - rest)
        below = (high + b) + (low + rest)
        near = 1.0 / (a * a + above * above)
        far = 1.0 / (a * a + below * below)
        u, v = above * near, below * far
        place = 2 * ((h * many + m) * N + n)
        re = tl.load(numerator + place, m < many, 0.0)[:, None]
        im = tl.load(numerator + place + 1, m < many, 0.0)[:, None]
        real += re * (a * (near + far))[None, :] + im * (u - v)[None, :]
        imag += im * (a * (near - far))[None, :] - re * (u + v)[None, :]
    there = (m < many)[:, None] & (k < K)[None, :]
    place = 2 * ((h * many + m)[:, None] * K + k[None, :])
    tl.store(out + place, real, there)
    tl.store(out + place + 1, imag, there)


@jit
def _gradients(gradient, node, point, out, channels, N, K, many, split, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    row = tl.program_id(0).to(tl.int64)
    h = row // many
    n = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    at = node + 3 * (h * N + n)
    a = tl.load(at, n < N, 1.0)[:, None]
    b = tl.load(at + 1, n < N, 0.0)[:, None]
    rest = tl.load(at + 2, n < N, 0.0)[:, None]
    first_re = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    first_im = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    second_re = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    second_im = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    for start in range(0, split, BLOCK):
        k = tl.program_id(2) * split + start + tl.arange(0, BLOCK)
        high = tl.load(point + 2 * k, k < K, 0.0)[None, :]
        low = tl.load(point + 2 * k + 1, k < K, 0.0)[None, :]
        re = tl.load(gradient + 2 * (row * K + k), k < K, 0.0)[None, :]
        im = tl.load(gradient + 2 * (row * K + k) + 1, k < K, 0.0)[None, :]
        above = (high - b) + (low - rest)
        below = (high + b) + (low + rest)
        near = 1.0 / (a * a + above * above)
        far = 1.0 / (a * a + below * below)
        # the reciprocals p = pr - i pi and q = qr - i qi, then their squares
        pr, pi, qr, qi = a * near, above * near, a * far, below * far
        first_re += re * (pr + qr) - im * (pi + qi)
        first_im += re * (pi - qi) + im * (pr - qr)
        sr, si, tr, ti = pr * pr - pi * pi, 2 * pr * pi, qr * qr - qi * qi, 2 * qr * qi
        second_re += re * (sr + tr) - im * (si + ti)
        second_im += re * (si - ti) + im * (sr - tr)
    place = out + 4 * ((tl.program_id(2).to(tl.int64) * channels * many + row) * N + n)
    tl.store(place, tl.sum(first_re, axis=1), n < N)
    tl.store(place + 1, tl.sum(first_im, axis=1), n < N)
    tl.store(place + 2, tl.sum(second_re, axis=1), n < N)
    tl.store(place + 3, tl.sum(second_im, axis=1), n < N)
