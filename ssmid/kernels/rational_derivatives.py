"""Gradient and Hessian of the squared error in the coordinates of a chart of real banks, one matrix a program.

The plain function is ``derivatives`` of :mod:`ssmid.reduction.h2_newton`, which has the formulas; of its two dozen arrays of d x d complex
numbers none is written here but the Hessian.
"""

from __future__ import annotations

from ssmid._array import Array, namespace
from ssmid.kernels.compiler import ceil_power_of_two, jit, tl


def rational_derivatives(poles: Array, rho: Array, alpha: Array, slope: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Real ``gradient (batch, d)`` and ``hessian (batch, d, d)``; d even, poles in pairs.

    poles, rho, alpha, slope : ``(batch, d)`` complex   first, second : ``(batch, d / 2, 2, 2)`` and ``(batch, d / 2, 2, 3)`` complex
    """
    xp, (batch, d) = namespace(poles), poles.shape
    inputs = [x.resolve_conj().contiguous().view(xp.float64) for x in (poles, rho, alpha, slope, first, second)]
    real = inputs[0]
    gradient, hessian = real.new_empty((batch, d)), real.new_empty((batch, d, d))
    width = ceil_power_of_two(d)
    if batch:
        _derivatives[(batch,)](*inputs, gradient, hessian, d, WIDTH=width, num_warps=1 if width <= 16 else 4)
    return gradient, hessian


@jit
def _times(a, b, c, d):
    return a * c - b * d, a * d + b * c


@jit
def _over(a, b, c, d):
    size = c * c + d * d
    return (a * c + b * d) / size, (b * c - a * d) / size


@jit
def _complex(pointer, at, there):
    return tl.load(pointer + 2 * at, there, 0.0), tl.load(pointer + 2 * at + 1, there, 0.0)


@jit
def _derivatives(poles, rho, alpha, slope, first, second, gradient, hessian, d, WIDTH: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    element = tl.program_id(0).to(tl.int64)
    a, b = tl.arange(0, WIDTH)[:, None], tl.arange(0, WIDTH)[None, :]
    row, column = a < d, b < d
    there = row & column
    start = element * d
    total = tl.zeros((WIDTH, WIDTH), dtype=tl.float64)
    for i in tl.static_range(2):
        j_of = a // 2 * 2 + i
        pr, pi = _complex(poles, start + j_of, row)
        rr, ri = _complex(rho, start + j_of, row)
        ar, ai = _complex(alpha, start + j_of, row)
        sr, si = _complex(slope, start + j_of, row)
        # first[k, i, a]: by the a-th coordinate of the pair, the pole i of it
        jr, ji = _complex(first, 2 * (start + j_of) + a % 2, row)
        for k in tl.static_range(2):
            k_of = b // 2 * 2 + k
            qr, qi = _complex(poles, start + k_of, column)
            tr, ti = _complex(rho, start + k_of, column)
            br, bi = _complex(alpha, start + k_of, column)
            kr, ki = _complex(first, 2 * (start + k_of) + b % 2, column)
            gr, gi = pr - qr, pi - qi
            same = (gr == 0) & (gi == 0)
            ur, ui = _times(tr, ti, ar, ai)
            vr, vi = _times(rr, ri, br, bi)
            ur, ui = _over(ur - vr, ui - vi, tl.where(same, 1.0, gr), tl.where(same, 0.0, gi))
            ur, ui = tl.where(same, 0.0, ur), tl.where(same, 0.0, ui)
            vr, vi = _times(rr, ri, sr, si)
            own = j_of == k_of
            ur, ui = ur + tl.where(own, 2 * vr, 0.0), ui + tl.where(own, 2 * vi, 0.0)
            vr, vi = _times(ar, ai, br, bi)
            wr, wi = _times(rr, ri, tr, ti)
            zr, zi = _times(pr, pi, qr, qi)
            vr, vi = _over(vr - wr, vi - wi, 1 - zr, -zi)
            ur, ui = 2 * (ur + vr), 2 * (ui + vi)
            ur, ui = _times(ur, ui, jr, ji)
            vr, vi = _times(ur, ui, kr, ki)
            total += vr
        # curvature of the chart, within a pair
        fr, fi = _times(rr, ri, ar, ai)
        cr, ci = _complex(second, 3 * (start + j_of) + a % 2 + b % 2, there & (a // 2 == b // 2))
        total += tl.where(a // 2 == b // 2, 2 * (fr * cr - fi * ci), 0.0)
    tl.store(hessian + start * d + a * d + b, -total, there)
    lane = tl.arange(0, WIDTH)
    slopes = tl.zeros((WIDTH,), dtype=tl.float64)
    for i in tl.static_range(2):
        j_of = lane // 2 * 2 + i
        rr, ri = _complex(rho, start + j_of, lane < d)
        ar, ai = _complex(alpha, start + j_of, lane < d)
        jr, ji = _complex(first, 2 * (start + j_of) + lane % 2, lane < d)
        fr, fi = _times(rr, ri, ar, ai)
        slopes += 2 * (fr * jr - fi * ji)
    tl.store(gradient + start + lane, -slopes, lane < d)
