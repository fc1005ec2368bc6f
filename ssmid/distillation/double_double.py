"""Sums of modes far larger than what is left of them, to twice the digits of double precision, many at once.

A number is the unevaluated sum of two (Dekker, Numer. Math. 18, 1971); what a sum or a product of two numbers loses is itself a number
(Knuth, The Art of Computer Programming 2, section 4.2.2; Dekker's product, which needs no fused multiply-add). About thirty times the
work of the plain sum.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import TypeAlias

from ssmid._array import Array, namespace, on_gpu

UNIT = 2.0**-100
"""What a product of complex numbers loses of itself at most."""
_SPLIT = 2.0**27 + 1
_BLOCK = {"host": 2**15, "gpu": 2**24}
"""Taps that are worked on at once: a processor's cache holds them, a GPU is left waiting by few."""

Pair: TypeAlias = "tuple[Array, Array]"
"""A number, and what it is short of."""
Complex: TypeAlias = "tuple[Pair, Pair]"
"""Real and imaginary part."""


def without_modes(taps: Array, poles: Array, residues: Array) -> Array:
    """``taps_t - Re sum_k residues_k poles_k^t``, ``(n, N)``, of taps ``(n, N)`` and poles and residues ``(n, d)``."""
    xp, rows = namespace(taps), max(1, _BLOCK["gpu" if on_gpu(taps) else "host"] // taps.shape[-1])
    parts = []
    for start in range(0, taps.shape[0], rows):
        block = slice(start, min(start + rows, taps.shape[0]))
        parts.append(_without_modes(taps[block, :], poles[block, :], residues[block, :]))
    return xp.concat(parts, axis=0)


def _without_modes(taps: Array, poles: Array, residues: Array) -> Array:
    """By powers in two levels, as :func:`ssmid.linalg.vandermonde_product` has them, mode by mode."""
    xp, (count, length) = namespace(taps), taps.shape
    inner = 1 + isqrt(max(length - 1, 0))
    outer = -(-length // inner)
    nodes = _complex(poles)
    fine = _powers(nodes, inner + 1)
    coarse = _times(_powers(_each(lambda x: x[..., inner], fine), outer), _each(lambda x: x[..., None], _complex(residues)))
    filler = xp.zeros((count, outer * inner - length), dtype=taps.dtype, device=taps.device)
    left = xp.reshape(xp.concat([taps, filler], axis=-1), (count, outer, inner))
    total = (left, xp.zeros_like(left))
    for mode in range(poles.shape[-1]):
        re, im = _each(lambda x, mode=mode: x[:, mode, :, None], coarse)
        x, y = _each(lambda x, mode=mode: x[:, mode, None, :inner], fine)
        total = _plus(total, _plus(_product(im, y), _minus(_product(re, x))))
    return xp.reshape(total[0] + total[1], (count, outer * inner))[:, :length]


# ---------------------------------------------------------------- real numbers


def _exact_sum(a: Array, b: Array) -> Pair:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _halves(a: Array) -> Pair:
    c = _SPLIT * a
    high = c - (c - a)
    return high, a - high


def _exact_product(a: Array, b: Array) -> Pair:
    p, (a, a_low), (b, b_low) = a * b, _halves(a), _halves(b)
    return p, ((a * b - p) + a * b_low + a_low * b) + a_low * b_low


def _settled(s: Array, low: Array) -> Pair:
    high = s + low
    return high, low - (high - s)


def _plus(x: Pair, y: Pair) -> Pair:
    s, low = _exact_sum(x[0], y[0])
    return _settled(s, low + (x[1] + y[1]))


def _minus(x: Pair) -> Pair:
    return -x[0], -x[1]


def _product(x: Pair, y: Pair) -> Pair:
    p, low = _exact_product(x[0], y[0])
    return _settled(p, low + (x[0] * y[1] + x[1] * y[0]))


# ---------------------------------------------------------------- complex numbers


def _complex(z: Array) -> Complex:
    xp = namespace(z)
    re, im = xp.real(z), xp.imag(z)
    return (re, xp.zeros_like(re)), (im, xp.zeros_like(im))


def _times(a: Complex, b: Complex) -> Complex:
    (x, y), (u, v) = a, b
    return _plus(_product(x, u), _minus(_product(y, v))), _plus(_product(x, v), _product(y, u))


def _each(change: Callable[[Array], Array], a: Complex) -> Complex:
    (re, re_low), (im, im_low) = a
    return (change(re), change(re_low)), (change(im), change(im_low))


def _powers(nodes: Complex, count: int) -> Complex:
    """``nodes^s`` for ``s = 0 .. count-1`` along a new last axis, by doubling."""
    step = _each(lambda x: x[..., None], nodes)
    xp, zero = namespace(step[0][0]), 0 * step[0][0]
    table: Complex = ((zero + 1, zero), (zero, zero))
    while table[0][0].shape[-1] < count:
        (re, re_low), (im, im_low) = _times(table, step)
        (a, a_low), (b, b_low) = table
        joined = [xp.concat(two, axis=-1) for two in ((a, re), (a_low, re_low), (b, im), (b_low, im_low))]
        table = (joined[0], joined[1]), (joined[2], joined[3])
        step = _times(step, step)
    return _each(lambda x: x[..., :count], table)
