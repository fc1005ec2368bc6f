"""What Newton's method over poles asks of taps at a set of poles, in one kernel: series by Horner's rule, then Nevanlinna's algorithm.

The plain functions are ``power_series`` and ``local_of_values`` of :mod:`ssmid.reduction.h2_sources`; here nothing between the taps and
the answers leaves the registers. Bytes: the taps are read once. Operations: 12 multiply-adds a tap and pole.
"""

from __future__ import annotations

from ssmid._array import Array, namespace
from ssmid.kernels.compiler import ceil_power_of_two, jit, tl

_LANES = 32


def rational_local(taps: Array, poles: Array, live: Array) -> tuple[Array, Array, Array, Array, Array]:
    """``rho, alpha, slope`` complex and ``fitted, least`` real, of real ``taps`` ``(batch, N)`` at ``poles`` ``(batch, d)`` in the disk.

    live : ``(batch, d)`` boolean   fitted : ``(batch,)`` the energy of the best approximation
    least : ``(batch,)`` the least product of pseudo-hyperbolic distances of a pole to the others
    """
    xp, (batch, d) = namespace(taps), poles.shape
    taps, poles, live = taps.contiguous(), poles.contiguous(), live.contiguous()
    out = [poles.new_empty((batch, d)) for _ in range(3)]
    fitted, least = taps.new_empty((batch,)), taps.new_empty((batch,))
    width = ceil_power_of_two(d)
    rows = max(1, _LANES // width)
    if batch:
        pointers = [x.view(xp.float64) for x in (poles, *out)]
        grid = (-(-batch // rows),)
        arguments = (taps, pointers[0], live.view(xp.uint8), *pointers[1:], fitted, least, batch, taps.shape[-1], d)
        _local[grid](*arguments, WIDTH=width, ROWS=rows, num_warps=1 if width <= _LANES else 2)
    return out[0], out[1], out[2], fitted, least


@jit
def _times(a, b, c, d):
    return a * c - b * d, a * d + b * c


@jit
def _over(a, b, c, d):
    size = c * c + d * d
    return (a * c + b * d) / size, (b * c - a * d) / size


@jit
def _local(taps, poles, live, rho, alpha, slope, fitted, least, batch, N, d, WIDTH: tl.constexpr, ROWS: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    lane = tl.arange(0, WIDTH)[None, :]
    there = (row < batch) & (lane < d)
    at = row * d + lane
    pr = tl.load(poles + 2 * at, there, 0.0)
    pi = tl.load(poles + 2 * at + 1, there, 0.0)
    on = tl.load(live + at, there, 0) != 0
    xr = pr * 0
    xi, x1r, x1i, x2r, x2i = xr, xr, xr, xr, xr
    for step in range(N):
        tap = tl.load(taps + row * N + (N - 1 - step), row < batch, 0.0)
        ar, ai = _times(x2r, x2i, pr, pi)
        x2r, x2i = ar + x1r, ai + x1i
        ar, ai = _times(x1r, x1i, pr, pi)
        x1r, x1i = ar + xr, ai + xi
        ar, ai = _times(xr, xi, pr, pi)
        xr, xi = ar + tap, ai
    x2r, x2i = 2 * x2r, 2 * x2i
    energy = tl.sum(xr * 0, axis=1)[:, None]
    sr, si, fr, fi = xr * 0, xr * 0, xr * 0 + 1, xr * 0
    score = tl.where(on, tl.sqrt(pr * pr + pi * pi), tl.where(there, -1e6, -2e300))
    for k in range(d):
        own = lane == tl.argmax(score, axis=1)[:, None]
        used = tl.sum(tl.where(own & on, 1, 0), axis=1)[:, None] > 0
        zr = tl.sum(tl.where(own, pr, 0.0), axis=1)[:, None]
        zi = tl.sum(tl.where(own, pi, 0.0), axis=1)[:, None]
        tr = tl.sum(tl.where(own, xr, 0.0), axis=1)[:, None]
        ti = tl.sum(tl.where(own, xi, 0.0), axis=1)[:, None]
        inside = 1 - zr * zr - zi * zi
        # q = 1 - z* p
        qr, qi = 1 - (zr * pr + zi * pi), -(zr * pi - zi * pr)
        energy += tl.where(used, (tr * tr + ti * ti) * inside, 0.0)
        gr = tl.where(own, 1.0, pr - zr)
        gi = tl.where(own, 0.0, pi - zi)
        nr, ni = _times(xr, xi, qr, qi)
        nr, ni = nr - tr * inside, ni - ti * inside
        mr, mi = _times(x1r, x1i, qr, qi)
        ar, ai = _times(xr, xi, zr, -zi)
        mr, mi = mr - ar, mi - ai
        lr, li = _times(x2r, x2i, qr, qi)
        ar, ai = _times(x1r, x1i, zr, -zi)
        lr, li = lr - 2 * ar, li - 2 * ai
        ar, ai = _over(nr, ni, gr, gi)
        yr, yi = tl.where(own, mr, ar), tl.where(own, mi, ai)
        ar, ai = _over(mr - yr, mi - yi, gr, gi)
        y1r, y1i = tl.where(own, lr / 2, ar), tl.where(own, li / 2, ai)
        y2r, y2i = _over(lr - 2 * y1r, li - 2 * y1i, gr, gi)
        xr, xi = tl.where(used, yr, xr), tl.where(used, yi, xi)
        x1r, x1i = tl.where(used, y1r, x1r), tl.where(used, y1i, x1i)
        x2r, x2i = tl.where(used, y2r, x2r), tl.where(used, y2i, x2i)
        cr, ci = _over(pr - zr, pi - zi, qr, qi)
        cr, ci = tl.where(own, 0.0, cr), tl.where(own, 0.0, ci)
        ar, ai = _times(sr, si, cr, -ci)
        br, bi = _over(tr * inside + 0 * qr, ti * inside + 0 * qr, qr, -qi)
        sr, si = tl.where(used, ar + br, sr), tl.where(used, ai + bi, si)
        ar, ai = _times(fr, fi, cr, ci)
        fr, fi = tl.where(used & ~own, ar, fr), tl.where(used & ~own, ai, fi)
        gap = 0.5 * tl.log(tl.maximum(cr * cr + ci * ci, 1e-300))
        score = tl.where(on, tl.where(score < -1e200, score, (score if k > 0 else 0.0 * score) + gap), score)
        score = tl.where(own, -1e300, score)
    tl.store(rho + 2 * at, tl.where(on, sr, 0.0), there)
    tl.store(rho + 2 * at + 1, tl.where(on, -si, 0.0), there)
    tl.store(alpha + 2 * at, tl.where(on, xr, 0.0), there)
    tl.store(alpha + 2 * at + 1, tl.where(on, xi, 0.0), there)
    tl.store(slope + 2 * at, tl.where(on, x1r, 0.0), there)
    tl.store(slope + 2 * at + 1, tl.where(on, x1i, 0.0), there)
    one = tl.arange(0, ROWS)
    rows = tl.program_id(0) * ROWS + one
    tl.store(fitted + rows, tl.sum(energy, axis=1), rows < batch)
    closest = tl.min(tl.where(on, fr * fr + fi * fi, 1.0), axis=1)
    tl.store(least + rows, tl.sqrt(closest), rows < batch)
