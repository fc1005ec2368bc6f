"""Bounds of the largest modulus of an eigenvalue from Lanczos coefficients: recurrences of pivots at 32 points, one matrix a program.

The plain function is ``narrowed`` of :mod:`ssmid.distillation.error_hankel`, which has the mathematics; there each step of the
recurrence is half a dozen small launches.
"""

from __future__ import annotations

from ssmid._array import Array
from ssmid.kernels.compiler import jit, tl

POINTS = 32


def lanczos_bounds(alpha: Array, beta: Array, low: Array, high: Array, reach: float) -> tuple[Array, Array]:
    """``(low, high)`` ``(n,)``, narrowed by the coefficients ``(k, n)``; where polynomials reach ``reach`` they are bounds."""
    below, above = low.new_empty(low.shape), low.new_empty(low.shape)
    if low.shape[0]:
        inputs = [x.contiguous() for x in (alpha, beta, low, high)]
        _bounds[(low.shape[0],)](*inputs, below, above, reach, alpha.shape[0], low.shape[0], SIZE=POINTS, num_warps=1)
    return below, above


@jit
def _bounds(alpha, beta, low, high, below, above, reach, steps, n, SIZE: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    element = tl.program_id(0).to(tl.int64)
    least, most = tl.load(low + element), tl.load(high + element)
    share = (tl.arange(0, SIZE) + 1).to(tl.float64) / (SIZE + 1)
    t = least * tl.exp(share * tl.log(most / tl.where(least > 0, least, 1.0)))
    plus, minus = t * 0 + 1, t * 0 + 1
    grown, other = plus, minus
    under, below_other = t < -1.0, t < -1.0
    square = least * 0
    for k in range(steps):
        a, b = tl.load(alpha + k * n + element), tl.load(beta + k * n + element)
        over = 1 / tl.where(b > 0, b, 2.2250738585072014e-308)
        plus = t - a - square / plus
        minus = t + a - square / minus
        under, below_other = under | (plus <= 0), below_other | (minus <= 0)
        plus, minus = tl.where(under, 1.0, plus), tl.where(below_other, 1.0, minus)
        grown, other = grown * (plus * over), other * (minus * over)
        square = b * b
    inside = under | below_other
    outside = (~inside) & (grown >= reach) & (other >= reach)
    tl.store(below + element, tl.maximum(least, tl.max(tl.where(inside, t, least), axis=0)))
    tl.store(above + element, tl.minimum(most, tl.min(tl.where(outside, t, most), axis=0)))
