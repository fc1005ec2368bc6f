"""The spectrum of an S4 layer from its parameters, and the gradient by the parameters, in two launches each way.

The plain function is ``s4_spectrum`` of :mod:`ssmid.parametrizations.s4` for a low-rank part of rank 1, by ``cauchy_sums`` of
:mod:`ssmid.kernels.cauchy`, whose numerics these are: four sums of partial fractions share the two reciprocals of a node and a point, the
Woodbury identity is taken in registers, and for the gradient its three factors are kept. Nothing of the size points x nodes is written.
"""

from __future__ import annotations

from ssmid._array import Array, count
from ssmid.kernels.compiler import ceil_power_of_two, jit, tl

_POINTS = 256
_SPLIT = 1024
_TILE = 512


def low_rank_spectrum(
    C: Array, B: Array, P: Array, inv_dt: Array, A_real: Array, A_imag: Array, points: Array
) -> tuple[Array, Array, Array]:
    """``(H, K, 2)`` float32: real and imaginary parts of the spectrum; with it ``modes`` and ``factors`` for the gradient.

    C : ``(1, H, N, 2)``   B, P : ``(1, S, N, 2)``   inv_dt : ``(H, 1)``   A_real, A_imag : ``(S, N)``; float32, S dividing H
    points : ``(K, 2)`` float32, ``2 tan(omega / 2)`` in two parts, the rounded number and what is missing
    """
    C, B, P, inv_dt, A_real, A_imag = (x.contiguous() for x in (C, B, P, inv_dt, A_real, A_imag))
    channels, n, many = C.shape[1], C.shape[2], points.shape[0]
    modes, spectrum, factors = C.new_empty((channels, n, 10)), C.new_empty((channels, many, 2)), C.new_empty((channels, many, 6))
    if count(modes):
        _modes[(channels,)](C, B, P, inv_dt, A_real, A_imag, modes, n, A_real.shape[0], BLOCK=ceil_power_of_two(n), num_warps=4)
        grid = (channels, -(-many // _POINTS))
        _spectrum[grid](modes, points, spectrum, factors, n, many, BLOCK=_POINTS, num_warps=4)
    return spectrum, modes, factors


def low_rank_spectrum_gradients(
    transformed: Array, modes: Array, factors: Array, points: Array, length: int, parameters: tuple[Array, ...]
) -> tuple[Array, ...]:
    """By C, B, P, inv_dt, A_real, A_imag (``parameters``), of a real function of the taps, the inverse transform of the spectrum.

    transformed : ``(H, K, 2)`` float32, the transform of the gradient by the ``length`` taps   modes, factors : of the spectrum
    Sums over points are split among programs and joined in a fixed order: the same numbers in every run.
    """
    C, B, P, inv_dt, A_real, A_imag = (x.contiguous() for x in parameters)
    (channels, n), sets, many = C.shape[1:3], A_real.shape[0], points.shape[0]
    splits, rows = -(-many // _SPLIT), min(32, ceil_power_of_two(n))
    partial = C.new_empty((splits, channels, n, 9))
    by_C, by_step = C.new_empty(C.shape), inv_dt.new_empty(inv_dt.shape)
    by_B, by_P, by_A = C.new_empty(C.shape), C.new_empty(C.shape), C.new_empty((2, channels, n))
    if count(by_C):
        grid = (channels, -(-n // rows), splits)
        sizes = (channels, n, many, length, _SPLIT)
        _sums[grid](transformed, modes, factors, points, partial, *sizes, ROWS=rows, BLOCK=_TILE // rows, num_warps=4)
        given = (C, B, P, inv_dt, A_real, A_imag)
        _chain[(channels,)](
            partial, *given, by_C, by_B, by_P, by_step, by_A, splits, channels, n, sets, BLOCK=ceil_power_of_two(n), num_warps=4
        )
    if sets < channels:
        # channel h takes set h modulo the number of sets
        by_B, by_P, by_A = (x.unflatten(1, (channels // sets, sets)).sum(1) for x in (by_B, by_P, by_A))
    return by_C, by_B, by_P, by_step, by_A[0], by_A[1]


@jit
def _times(a, b, c, d):
    return a * c - b * d, a * d + b * c


@jit
def _pair(pointer, at, there):
    return tl.load(pointer + 2 * at, there, 0.0).to(tl.float64), tl.load(pointer + 2 * at + 1, there, 0.0).to(tl.float64)


@jit
def _modes(C, B, P, inv_dt, A_real, A_imag, modes, N, sets, BLOCK: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    """Distance and height (in two parts) of the nodes ``dt A``; numerators ``dt`` times ``C B``, ``C P``, ``P* B``, ``P* P``."""
    h = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    there = n < N
    own, at = h * N + n, h % sets * N + n
    dt = tl.exp(tl.load(inv_dt + h).to(tl.float64))
    cr, ci = _pair(C, own, there)
    br, bi = _pair(B, at, there)
    pr, pi = _pair(P, at, there)
    height = -dt * tl.load(A_imag + at, there, 0.0).to(tl.float64)
    high = height.to(tl.float32)
    place = modes + 10 * own
    tl.store(place, (dt * tl.exp(tl.load(A_real + at, there, 0.0).to(tl.float64))).to(tl.float32), there)
    tl.store(place + 1, high, there)
    tl.store(place + 2, (height - high.to(tl.float64)).to(tl.float32), there)
    ur, ui = _times(cr, ci, br, bi)
    tl.store(place + 3, (dt * ur).to(tl.float32), there)
    tl.store(place + 4, (dt * ui).to(tl.float32), there)
    ur, ui = _times(cr, ci, pr, pi)
    tl.store(place + 5, (dt * ur).to(tl.float32), there)
    tl.store(place + 6, (dt * ui).to(tl.float32), there)
    ur, ui = _times(pr, -pi, br, bi)
    tl.store(place + 7, (dt * ur).to(tl.float32), there)
    tl.store(place + 8, (dt * ui).to(tl.float32), there)
    tl.store(place + 9, (dt * (pr * pr + pi * pi)).to(tl.float32), there)


@jit
def _spectrum(modes, points, spectrum, factors, N, K, BLOCK: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    h = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    high = tl.load(points + 2 * k, k < K, 0.0)
    low = tl.load(points + 2 * k + 1, k < K, 0.0)
    dr = tl.zeros((BLOCK,), dtype=tl.float32)
    di, sr, si, er, ei, xr, xi = dr, dr, dr, dr, dr, dr, dr
    for n in range(N):
        at = modes + 10 * (h * N + n)
        a, b, rest = tl.load(at), tl.load(at + 1), tl.load(at + 2)
        above = (high - b) + (low - rest)
        below = (high + b) + (low + rest)
        near = 1.0 / (a * a + above * above)
        far = 1.0 / (a * a + below * below)
        u, v = above * near, below * far
        even, odd = a * (near + far), a * (near - far)
        less, more = u - v, u + v
        re, im = tl.load(at + 3), tl.load(at + 4)
        dr += re * even + im * less
        di += im * odd - re * more
        re, im = tl.load(at + 5), tl.load(at + 6)
        sr += re * even + im * less
        si += im * odd - re * more
        re, im = tl.load(at + 7), tl.load(at + 8)
        er += re * even + im * less
        ei += im * odd - re * more
        re = tl.load(at + 9)
        xr += re * even
        xi -= re * more
    size = 1.0 / ((1 + xr) * (1 + xr) + xi * xi)
    wr, wi = (1 + xr) * size, -xi * size
    ur, ui = _times(sr, si, er, ei)
    ur, ui = _times(ur, ui, wr, wi)
    # 2 / (1 + exp(-i omega)) = 1 + i tan(omega / 2)
    ur, ui = _times(dr - ur, di - ui, 1.0, 0.5 * high)
    place = spectrum + 2 * (h * K + k)
    tl.store(place, ur, k < K)
    tl.store(place + 1, ui, k < K)
    place = factors + 6 * (h * K + k)
    tl.store(place, sr, k < K)
    tl.store(place + 1, si, k < K)
    tl.store(place + 2, er, k < K)
    tl.store(place + 3, ei, k < K)
    tl.store(place + 4, wr, k < K)
    tl.store(place + 5, wi, k < K)


@jit
def _sums(
    transformed, modes, factors, points, out, channels, N, K, length, split,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    h = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    at = modes + 10 * (h * N + n)
    a = tl.load(at, n < N, 1.0)[:, None]
    b = tl.load(at + 1, n < N, 0.0)[:, None]
    rest = tl.load(at + 2, n < N, 0.0)[:, None]
    br, bi = tl.load(at + 3, n < N, 0.0)[:, None], tl.load(at + 4, n < N, 0.0)[:, None]
    cr, ci = tl.load(at + 5, n < N, 0.0)[:, None], tl.load(at + 6, n < N, 0.0)[:, None]
    dr, di = tl.load(at + 7, n < N, 0.0)[:, None], tl.load(at + 8, n < N, 0.0)[:, None]
    er = tl.load(at + 9, n < N, 0.0)[:, None]
    fr = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    fi, gr, gi, hr, hi, jr, xr, xi = fr, fr, fr, fr, fr, fr, fr, fr
    for start in range(0, split, BLOCK):
        k = tl.program_id(2) * split + start + tl.arange(0, BLOCK)
        high = tl.load(points + 2 * k, k < K, 0.0)
        low = tl.load(points + 2 * k + 1, k < K, 0.0)
        # by a point of the spectrum: the points between 1 and -1 stand for two
        scale = tl.where((k == 0) | (2 * k == length), 1.0, 2.0) / length
        re = tl.load(transformed + 2 * (h * K + k), k < K, 0.0) * scale
        im = tl.load(transformed + 2 * (h * K + k) + 1, k < K, 0.0) * scale
        re, im = _times(re, im, 1.0, -0.5 * high)
        place = factors + 6 * (h * K + k)
        ur, ui = tl.load(place, k < K, 0.0), tl.load(place + 1, k < K, 0.0)
        vr, vi = tl.load(place + 2, k < K, 0.0), tl.load(place + 3, k < K, 0.0)
        wr, wi = tl.load(place + 4, k < K, 0.0), tl.load(place + 5, k < K, 0.0)
        ur, ui = _times(ur, ui, wr, wi)
        vr, vi = _times(vr, vi, wr, wi)
        # by the sums: g, -conj(v) g, -conj(u) g, conj(u v) g
        g1r, g1i = _times(re, im, -vr, vi)
        g2r, g2i = _times(re, im, -ur, ui)
        ur, ui = _times(ur, ui, vr, vi)
        g3r, g3i = _times(re, im, ur, -ui)
        g0r, g0i = re[None, :], im[None, :]
        g1r, g1i, g2r, g2i, g3r, g3i = g1r[None, :], g1i[None, :], g2r[None, :], g2i[None, :], g3r[None, :], g3i[None, :]
        above = (high[None, :] - b) + (low[None, :] - rest)
        below = (high[None, :] + b) + (low[None, :] + rest)
        near = 1.0 / (a * a + above * above)
        far = 1.0 / (a * a + below * below)
        # the reciprocals p = pr - i pi and q = qr - i qi
        pr, pi, qr, qi = a * near, above * near, a * far, below * far
        even, odd, more, less = pr + qr, pr - qr, pi + qi, pi - qi
        fr += g0r * even - g0i * more
        fi += g0r * less + g0i * odd
        gr += g1r * even - g1i * more
        gi += g1r * less + g1i * odd
        hr += g2r * even - g2i * more
        hi += g2r * less + g2i * odd
        jr += g3r * even - g3i * more
        # conj(numerators) times gradients, and times their conjugates, summed over the four
        rr = g0r * br + g1r * cr + g2r * dr + g3r * er
        ii = g0i * bi + g1i * ci + g2i * di
        ir = g0i * br + g1i * cr + g2i * dr + g3i * er
        ri = g0r * bi + g1r * ci + g2r * di
        sr, si, tr, ti = pr * pr - pi * pi, 2 * pr * pi, qr * qr - qi * qi, 2 * qr * qi
        xr += (rr + ii) * sr - (ir - ri) * si + (rr - ii) * tr - (ir + ri) * ti
        xi += (rr + ii) * si + (ir - ri) * sr - (ir + ri) * tr - (rr - ii) * ti
    place = out + 9 * ((tl.program_id(2).to(tl.int64) * channels + h) * N + n)
    tl.store(place, tl.sum(fr, axis=1), n < N)
    tl.store(place + 1, tl.sum(fi, axis=1), n < N)
    tl.store(place + 2, tl.sum(gr, axis=1), n < N)
    tl.store(place + 3, tl.sum(gi, axis=1), n < N)
    tl.store(place + 4, tl.sum(hr, axis=1), n < N)
    tl.store(place + 5, tl.sum(hi, axis=1), n < N)
    tl.store(place + 6, tl.sum(jr, axis=1), n < N)
    tl.store(place + 7, tl.sum(xr, axis=1), n < N)
    tl.store(place + 8, tl.sum(xi, axis=1), n < N)


@jit
def _chain(
    sums, C, B, P, inv_dt, A_real, A_imag, by_C, by_B, by_P, by_step, by_A, splits, channels, N, sets,
    BLOCK: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    h = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    there = n < N
    own, at = h * N + n, h % sets * N + n
    dt = tl.exp(tl.load(inv_dt + h).to(tl.float64))
    cr, ci = _pair(C, own, there)
    br, bi = _pair(B, at, there)
    pr, pi = _pair(P, at, there)
    a = -tl.exp(tl.load(A_real + at, there, 0.0).to(tl.float64))
    b = -tl.load(A_imag + at, there, 0.0).to(tl.float64)
    fr = a * 0
    fi, gr, gi, hr, hi, jr, xr, xi = fr, fr, fr, fr, fr, fr, fr, fr
    for split in range(splits):
        place = sums + 9 * ((split * channels + h) * N + n)
        fr += tl.load(place, there, 0.0).to(tl.float64)
        fi += tl.load(place + 1, there, 0.0).to(tl.float64)
        gr += tl.load(place + 2, there, 0.0).to(tl.float64)
        gi += tl.load(place + 3, there, 0.0).to(tl.float64)
        hr += tl.load(place + 4, there, 0.0).to(tl.float64)
        hi += tl.load(place + 5, there, 0.0).to(tl.float64)
        jr += tl.load(place + 6, there, 0.0).to(tl.float64)
        xr += tl.load(place + 7, there, 0.0).to(tl.float64)
        xi += tl.load(place + 8, there, 0.0).to(tl.float64)
    ur, ui = _times(br, -bi, fr, fi)
    vr, vi = _times(pr, -pi, gr, gi)
    tl.store(by_C + 2 * own, (dt * (ur + vr)).to(tl.float32), there)
    tl.store(by_C + 2 * own + 1, (dt * (ui + vi)).to(tl.float32), there)
    # by the step: what C gets, times conj(C) once more
    wr, _wi = _times(cr, -ci, ur + vr, ui + vi)
    step = wr
    ur, ui = _times(cr, -ci, fr, fi)
    vr, vi = _times(pr, pi, hr, hi)
    tl.store(by_B + 2 * own, (dt * (ur + vr)).to(tl.float32), there)
    tl.store(by_B + 2 * own + 1, (dt * (ui + vi)).to(tl.float32), there)
    wr, _wi = _times(br, -bi, vr, vi)
    step += wr + (pr * pr + pi * pi) * jr + a * xr + b * xi
    ur, ui = _times(cr, -ci, gr, gi)
    vr, vi = _times(br, bi, hr, -hi)
    tl.store(by_P + 2 * own, (dt * (ur + vr + 2 * pr * jr)).to(tl.float32), there)
    tl.store(by_P + 2 * own + 1, (dt * (ui + vi + 2 * pi * jr)).to(tl.float32), there)
    tl.store(by_A + own, (dt * xr * a).to(tl.float32), there)
    tl.store(by_A + channels * N + own, (-dt * xi).to(tl.float32), there)
    tl.store(by_step + h, (tl.sum(tl.where(there, step, 0.0), axis=0) * dt).to(tl.float32))
