"""The modes of an S4D layer from its parameters, and the gradient by the parameters, in one launch each.

The plain function is ``s4d_exponentials`` of :mod:`ssmid.parametrizations.diagonal`, by the hold: of its hundred small launches, with those
of their gradients, each does less than it costs to start. Double precision inside, single precision in and out.
"""

from __future__ import annotations

from math import pi

from ssmid._array import Array, count
from ssmid.kernels.compiler import ceil_power_of_two, jit, tl


def diagonal_modes(C: Array, B: Array, inv_dt: Array, A_real: Array, A_imag: Array) -> tuple[Array, Array]:
    """Weights ``(H, N, 2)`` float32, and decay and turns a sample ``(H, N, 2)`` float64, as the sums of exponentials take them.

    C : ``(1, H, N, 2)``   B : ``(1, S, N, 2)``   inv_dt : ``(H, 1)``   A_real, A_imag : ``(S, N)``; float32, S dividing H.
    Of real modes C and B lack the last axis, and A_imag is None.
    """
    C, B, inv_dt, A_real, A_imag = (x if x is None else x.contiguous() for x in (C, B, inv_dt, A_real, A_imag))
    channels, n = C.shape[1], C.shape[2]
    weight, exponent = C.new_empty((channels, n, 2)), inv_dt.new_empty((channels, n, 2)).double()
    if count(weight):
        real = A_imag is None
        _modes[(channels,)](
            C, B, inv_dt, A_real, A_real if real else A_imag, weight, exponent, n, A_real.shape[0],
            BLOCK=ceil_power_of_two(n), REAL=real, TURN=2 * pi, num_warps=4 if n <= 512 else 8,
        )  # fmt: skip
    return weight, exponent


def diagonal_mode_gradients(sums: Array, C: Array, B: Array, inv_dt: Array, A_real: Array, A_imag: Array) -> tuple[Array, ...]:
    """By C, B, inv_dt, A_real, A_imag (None of real modes), from the sums of the gradient with the exponentials.

    sums : ``(splits, H, N, 4)`` float32, real and imaginary part of ``sum_t g_t e^{x t}`` and ``sum_t g_t t e^{x t}``, over splits of time
    """
    C, B, inv_dt, A_real, A_imag = (x if x is None else x.contiguous() for x in (C, B, inv_dt, A_real, A_imag))
    channels, n, sets = C.shape[1], C.shape[2], A_real.shape[0]
    real = A_imag is None
    by_C, by_step = C.new_empty(C.shape), inv_dt.new_empty(inv_dt.shape)
    by_B, by_A = C.new_empty(C.shape), A_real.new_empty((2, channels, n))
    if count(by_C):
        _mode_gradients[(channels,)](
            sums, C, B, inv_dt, A_real, A_real if real else A_imag, by_C, by_B, by_step, by_A, sums.shape[0], channels, n, sets,
            BLOCK=ceil_power_of_two(n), REAL=real, num_warps=4 if n <= 512 else 8,
        )  # fmt: skip
    if sets < channels:
        # channel h takes set h modulo the number of sets
        by_B = by_B.unflatten(1, (channels // sets, sets)).sum(1)
        by_A = by_A.unflatten(1, (channels // sets, sets)).sum(1)
    return by_C, by_B, by_step, by_A[0], None if real else by_A[1]


@jit
def _times(a, b, c, d):
    return a * c - b * d, a * d + b * c


@jit
def _numbers(pointer, at, there, REAL: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    if REAL:
        re = tl.load(pointer + at, there, 0.0).to(tl.float64)
        im = re * 0
    else:
        re = tl.load(pointer + 2 * at, there, 0.0).to(tl.float64)
        im = tl.load(pointer + 2 * at + 1, there, 0.0).to(tl.float64)
    return re, im


@jit
def _sampled(a, b, dt):
    """Of ``A = a + i b``: ``x = dt A``, ``e^x``, ``phi = (e^x - 1) / x`` and its derivative, by series where they cancel."""
    xr, xi = dt * a, dt * b
    size = tl.exp(xr)
    er, ei = size * tl.cos(xi), size * tl.sin(xi)
    square = xr * xr + xi * xi
    safe = tl.where(square > 0, square, 1.0)
    # 1 + x / 2 (1 + x / 3 (1 + x / 4 (1 + x / 5 (1 + x / 6))))
    sr, si = 1 + xr / 6, xi / 6
    ur, ui = _times(xr / 5, xi / 5, sr, si)
    ur, ui = _times(xr / 4, xi / 4, 1 + ur, ui)
    ur, ui = _times(xr / 3, xi / 3, 1 + ur, ui)
    ur, ui = _times(xr / 2, xi / 2, 1 + ur, ui)
    near = square < 1e-4
    pr, pi = _times(er - 1, ei, xr / safe, -xi / safe)
    pr, pi = tl.where(near, 1 + ur, pr), tl.where(near, ui, pi)
    # 1/2 + x / 3 + x^2 / 8 + x^3 / 30 + x^4 / 144 + x^5 / 840
    vr, vi = _times(xr, xi, 1 / 144 + xr / 840, xi / 840)
    vr, vi = _times(xr, xi, 1 / 30 + vr, vi)
    vr, vi = _times(xr, xi, 1 / 8 + vr, vi)
    vr, vi = _times(xr, xi, 1 / 3 + vr, vi)
    dr, di = _times(er - pr, ei - pi, xr / safe, -xi / safe)
    return xr, xi, er, ei, pr, pi, tl.where(near, 0.5 + vr, dr), tl.where(near, vi, di)


@jit
def _modes(
    C, B, inv_dt, A_real, A_imag, weight, exponent, N, sets,
    BLOCK: tl.constexpr, REAL: tl.constexpr, TURN: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    h = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    there = n < N
    own, at = h * N + n, h % sets * N + n
    cr, ci = _numbers(C, own, there, REAL)
    br, bi = _numbers(B, at, there, REAL)
    dt = tl.exp(tl.load(inv_dt + h).to(tl.float64))
    a = -tl.exp(tl.load(A_real + at, there, 0.0).to(tl.float64))
    b = a * 0 if REAL else -tl.load(A_imag + at, there, 0.0).to(tl.float64)
    xr, xi, _er, _ei, pr, pi, _dr, _di = _sampled(a, b, dt)
    wr, wi = _times(cr, ci, br, bi)
    wr, wi = _times(wr, wi, 2 * dt * pr, 2 * dt * pi)
    tl.store(weight + 2 * own, wr.to(tl.float32), there)
    tl.store(weight + 2 * own + 1, wi.to(tl.float32), there)
    tl.store(exponent + 2 * own, xr, there)
    tl.store(exponent + 2 * own + 1, xi / TURN, there)


@jit
def _mode_gradients(
    sums, C, B, inv_dt, A_real, A_imag, by_C, by_B, by_step, by_A, splits, channels, N, sets,
    BLOCK: tl.constexpr, REAL: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    h = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    there = n < N
    own, at = h * N + n, h % sets * N + n
    cr, ci = _numbers(C, own, there, REAL)
    br, bi = _numbers(B, at, there, REAL)
    dt = tl.exp(tl.load(inv_dt + h).to(tl.float64))
    a = -tl.exp(tl.load(A_real + at, there, 0.0).to(tl.float64))
    b = a * 0 if REAL else -tl.load(A_imag + at, there, 0.0).to(tl.float64)
    ur = a * 0
    ui, vr, vi = ur, ur, ur
    for split in range(splits):
        place = sums + 4 * ((split * channels + h) * N + n)
        ur += tl.load(place, there, 0.0).to(tl.float64)
        ui += tl.load(place + 1, there, 0.0).to(tl.float64)
        vr += tl.load(place + 2, there, 0.0).to(tl.float64)
        vi += tl.load(place + 3, there, 0.0).to(tl.float64)
    _xr, _xi, er, ei, pr, pi, dr, di = _sampled(a, b, dt)
    # all factors below are conjugates of gradients: products of analytic functions, conjugated once when they are stored
    pr, pi = 2 * dt * pr, 2 * dt * pi
    wr, wi = _times(cr, ci, br, bi)
    tr, ti = _times(pr, pi, ur, ui)
    fr, fi = _times(br, bi, tr, ti)
    gr, gi = _times(cr, ci, tr, ti)
    if REAL:
        tl.store(by_C + own, fr.to(tl.float32), there)
        tl.store(by_B + own, gr.to(tl.float32), there)
    else:
        tl.store(by_C + 2 * own, fr.to(tl.float32), there)
        tl.store(by_C + 2 * own + 1, (-fi).to(tl.float32), there)
        tl.store(by_B + 2 * own, gr.to(tl.float32), there)
        tl.store(by_B + 2 * own + 1, (-gi).to(tl.float32), there)
    # by x: weights times the sums with t; by the factor 2 dt phi of the weights: the product of C and B times the sums
    hr, hi = _times(wr, wi, pr, pi)
    zr, zi = _times(hr, hi, vr, vi)
    qr, qi = _times(wr, wi, 2 * ur, 2 * ui)
    kr, ki = _times(dt * dt * dr, dt * dt * di, qr, qi)
    kr, ki = kr + dt * zr, ki + dt * zi
    tl.store(by_A + own, (kr * a).to(tl.float32), there)
    tl.store(by_A + channels * N + own, ki.to(tl.float32), there)
    sr, _si = _times(er, ei, qr, qi)
    mr, _mi = _times(a, b, zr, zi)
    tl.store(by_step + h, (tl.sum(tl.where(there, sr + mr, 0.0), axis=0) * dt).to(tl.float32))
