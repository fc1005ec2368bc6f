"""Sums of exponentials ``h[t] = Re sum_n w_n exp(x_n t)`` for t = 0, 1, .., and their gradient, in fused kernels.

The kernel of an S4D layer (Gu et al. 2022, section 3.3). With ``t = S q + s`` an exponential is one of ``S q`` times one of ``s``, and the
sum over modes a matrix product of tables that are made in registers and never written: N (Q + S) exponentials in place of N Q S.
Arguments of sine and cosine are reduced in double precision, so that the phase at t = 65,535 is as good as at 0; exponentials are single
precision, products are tensor cores' with three terms (as good as single precision).
The plain functions go the same way through tables of ``sqrt(length)`` in memory.
"""

from __future__ import annotations

from math import pi

from ssmid._array import Array, as_complex, astype_width, count, namespace
from ssmid.kernels.compiler import ceil_power_of_two, jit, tl
from ssmid.linalg import powers, vandermonde_product

_MODES = 16


def exponential_sums(weights: Array, exponents: Array, length: int) -> Array:
    """``(H, length)`` real, from ``(H, N)`` complex each. Differentiable."""
    return vandermonde_product(namespace(exponents).exp(exponents), weights, length, real=True)


def exponential_gradients(gradient: Array, weights: Array, exponents: Array) -> tuple[Array, Array]:
    """By weights and exponents ``(H, N)``, of a real function whose gradient by the sums is ``gradient`` ``(H, length)``.

    Gradients by complex numbers are ``d/d real + i d/d imaginary``, as torch has them.
    """
    xp, (channels, length) = namespace(exponents), gradient.shape
    inner, outer = _split(length)
    missing = xp.zeros((channels, inner * outer - length), dtype=gradient.dtype, device=gradient.device)
    table = as_complex(xp.reshape(xp.concat([gradient, missing], axis=-1), (channels, outer, inner)))
    times = xp.arange(inner, dtype=gradient.dtype, device=gradient.device)
    fine = xp.matrix_transpose(powers(xp.exp(exponents), inner))
    coarse = xp.matrix_transpose(powers(xp.exp(inner * exponents), outer))
    starts = as_complex(inner * xp.arange(outer, dtype=gradient.dtype, device=gradient.device))[:, None]
    within, late = table @ fine, (table * as_complex(times)) @ fine
    first = xp.sum(coarse * within, axis=-2)
    second = xp.sum(coarse * (starts * within + late), axis=-2)
    return xp.conj(first), xp.conj(weights * second)


def fused_exponential_sums(weights: Array, exponents: Array, length: int) -> Array:
    """As :func:`exponential_sums`, from double precision to single, in one kernel."""
    return sums_of_prepared(*_prepared(weights, exponents), length)


def sums_of_prepared(weight: Array, exponent: Array, length: int, ahead: int = 0) -> Array:
    """The sums ``(H, length)`` float32, of weights ``(H, N, 2)`` float32 and decay and turns a sample ``(H, N, 2)`` float64.

    ahead : columns in front of them that are left to the caller, any numbers
    """
    xp, (channels, n, _) = namespace(exponent), exponent.shape
    out = xp.empty((channels, ahead + length), dtype=xp.float32, device=exponent.device)
    if channels and length:
        inner, outer = _split(length)
        rows = min(outer, 128)
        grid = (channels, -(-outer // rows))
        warps = 4 if rows <= 64 else 8
        _sums[grid](weight, exponent, out[:, ahead:], n, length, ahead + length, ROWS=rows, COLUMNS=inner, MODES=_MODES, num_warps=warps)
    return out


def fused_exponential_gradients(gradient: Array, weights: Array, exponents: Array) -> tuple[Array, Array]:
    """As :func:`exponential_gradients`, in double precision from sums in single.

    Sums over time are split among programs and joined in a fixed order: the same numbers in every run.
    """
    xp = namespace(exponents)
    parts = astype_width(xp.sum(gradient_sums(gradient, _prepared(weights, exponents)[1]), axis=0), 64)
    first, second = (as_complex(parts[..., i]) - 1j * as_complex(parts[..., i + 1]) for i in (0, 2))
    return first, xp.conj(weights) * second


def gradient_sums(gradient: Array, exponent: Array) -> Array:
    """``(splits, H, N, 4)`` float32: real and imaginary part of ``sum_t g_t e^{x t}`` and ``sum_t g_t t e^{x t}`` over splits of time."""
    xp, (channels, n, _), length = namespace(exponent), exponent.shape, gradient.shape[-1]
    inner, outer = _split(length)
    rows = min(outer, 64)
    splits = -(-outer // rows)
    partial = xp.empty((splits, channels, n, 4), dtype=xp.float32, device=exponent.device)
    if count(partial):
        grid = (channels, -(-n // _MODES), splits)
        given = xp.astype(gradient, xp.float32).contiguous()
        sizes = {"ROWS": rows, "COLUMNS": inner, "MODES": _MODES, "STEP": min(inner, 32)}
        _gradients[grid](given, exponent, partial, channels, n, length, **sizes, num_warps=4)
    return partial


def _split(length: int) -> tuple[int, int]:
    """Powers of two, from 16 on, of whose product the length is at most: taps of a row, of which there are up to 128, and rows."""
    inner = min(128, max(16, ceil_power_of_two(int(length**0.5))))
    return inner, max(16, ceil_power_of_two(-(-length // inner)))


def _prepared(weights: Array, exponents: Array) -> tuple[Array, Array]:
    """Weights ``(H, N, 2)`` in single precision; decay and turns a sample ``(H, N, 2)`` in double."""
    xp = namespace(exponents)
    weight = xp.stack([xp.real(weights), xp.imag(weights)], axis=-1)
    exponent = xp.stack([xp.real(exponents), xp.imag(exponents) / (2 * pi)], axis=-1)
    return xp.astype(weight, xp.float32), astype_width(exponent, 64)


@jit
def _exponential(rate, turns, t):
    """Real and imaginary part of the exponential at times ``t``, in single precision after the reduction.

    Taylor polynomials of sine and cosine on an eighth of a turn to each side, 1e-8 from them, and the quarter turns by exchanges: those of
    the library keep a way for large arguments, with its memory, in every thread.
    """
    turn = turns * t
    quarter = tl.floor(4 * turn + 0.5)
    x = ((turn - 0.25 * quarter) * 6.283185307179586).to(tl.float32)
    quadrant = (quarter - 4 * tl.floor(0.25 * quarter)).to(tl.int32)
    y = x * x
    sine = x * (1 + y * (-1.6666667e-1 + y * (8.3333333e-3 + y * (-1.9841270e-4 + y * 2.7557319e-6))))
    cosine = 1 + y * (-0.5 + y * (4.1666667e-2 + y * (-1.3888889e-3 + y * (2.4801587e-5 - y * 2.7557319e-7))))
    odd = quadrant % 2 == 1
    size = tl.exp((rate * t).to(tl.float32))
    real, imag = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    return size * tl.where((quadrant == 1) | (quadrant == 2), -real, real), size * tl.where(quadrant >= 2, -imag, imag)


@jit
def _sums(weight, exponent, out, N, length, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr, MODES: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    h = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    starts = (row * COLUMNS).to(tl.float64)[:, None]
    times = column.to(tl.float64)[None, :]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(0, N, MODES):
        n = first + tl.arange(0, MODES)
        at = 2 * (h * N + n)
        wr = tl.load(weight + at, n < N, 0.0)[None, :]
        wi = tl.load(weight + at + 1, n < N, 0.0)[None, :]
        rate = tl.load(exponent + at, n < N, 0.0)
        turns = tl.load(exponent + at + 1, n < N, 0.0)
        er, ei = _exponential(rate[None, :], turns[None, :], starts)
        fr, fi = _exponential(rate[:, None], turns[:, None], times)
        total = tl.dot(er * wr - ei * wi, fr, total, input_precision="tf32x3")
        total = tl.dot(-(er * wi + ei * wr), fi, total, input_precision="tf32x3")
    t = row[:, None] * COLUMNS + column[None, :]
    tl.store(out + h * stride + t, total, t < length)


@jit
def _gradients(
    gradient, exponent, out, channels, N, length,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, MODES: tl.constexpr, STEP: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    h = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * MODES + tl.arange(0, MODES)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    rate = tl.load(exponent + 2 * (h * N + n), n < N, 0.0)[None, :]
    turns = tl.load(exponent + 2 * (h * N + n) + 1, n < N, 0.0)[None, :]
    zr = tl.zeros((ROWS, MODES), dtype=tl.float32)
    zi, yr, yi = zr, zr, zr
    for first in range(0, COLUMNS, STEP):
        column = first + tl.arange(0, STEP)
        t = row[:, None] * COLUMNS + column[None, :]
        given = tl.load(gradient + h * length + t, t < length, 0.0)
        late = given * column.to(tl.float32)[None, :]
        fr, fi = _exponential(rate, turns, column.to(tl.float64)[:, None])
        zr = tl.dot(given, fr, zr, input_precision="tf32x3")
        zi = tl.dot(given, fi, zi, input_precision="tf32x3")
        yr = tl.dot(late, fr, yr, input_precision="tf32x3")
        yi = tl.dot(late, fi, yi, input_precision="tf32x3")
    starts = row * COLUMNS
    er, ei = _exponential(rate, turns, starts.to(tl.float64)[:, None])
    base = out + 4 * ((tl.program_id(2).to(tl.int64) * channels + h) * N + n)
    tl.store(base, tl.sum(er * zr - ei * zi, axis=0), n < N)
    tl.store(base + 1, tl.sum(er * zi + ei * zr, axis=0), n < N)
    start = starts.to(tl.float32)[:, None]
    yr, yi = yr + start * zr, yi + start * zi
    tl.store(base + 2, tl.sum(er * yr - ei * yi, axis=0), n < N)
    tl.store(base + 3, tl.sum(er * yi + ei * yr, axis=0), n < N)
