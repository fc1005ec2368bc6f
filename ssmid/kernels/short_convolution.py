"""Depthwise causal convolutions of a few taps: each number is read once and written once, forward and backward.

The plain function is ``torch.nn.functional.conv1d`` with as many groups as channels, behind zeros or what came before. Bytes: forward u and
y; backward u, the gradient of y and that of u, in one pass. Sums are float32. The gradients of weights are summed in a fixed order.
"""

from __future__ import annotations

from ssmid._array import Array
from ssmid.kernels.compiler import ceil_power_of_two, jit, tl

_TILE = 1024
_BLOCK = 256
"""Channels of a program, of one token."""
_PROGRAMS = 2048
"""Programs that keep a GPU busy; sequences are shared out among so many."""


def short_convolution(u: Array, weight: Array, bias: Array, history: Array = None) -> Array:
    """``y_t = bias + sum_i weight_{taps-1-i} u_{t-i}`` of the shape and dtype of ``u``.

    u : ``(batch, channels, length)``, contiguous   weight : ``(channels, taps)``   bias : ``(channels,)`` or None
    history : ``(batch, channels, taps - 1)``, what came before u, contiguous; None is zeros
    """
    (batch, channels, length), taps = u.shape, weight.shape[-1]
    y, weight = u.new_empty(u.shape), weight.contiguous()
    if y.numel():
        tile = min(_TILE, ceil_power_of_two(length))
        grid = (batch * channels, -(-length // tile))
        arrays = u, weight, weight if bias is None else bias.contiguous(), u if history is None else history, y
        _forward[grid](*arrays, channels, length, TAPS=taps, BIAS=bias is not None, HISTORY=history is not None, TILE=tile)
    return y


def short_convolution_step_(u: Array, history: Array, weight: Array, bias: Array) -> Array:
    """:func:`short_convolution` of one token ``u`` ``(batch, channels)``; the history, contiguous, moves on by it in its place."""
    (batch, channels), taps = u.shape, weight.shape[-1]
    u, weight = u.contiguous(), weight.contiguous()
    y = u.new_empty(u.shape)
    if y.numel():
        block = min(_BLOCK, ceil_power_of_two(channels))
        grid = (-(-channels // block), batch)
        arrays = u, history, weight, weight if bias is None else bias.contiguous(), y
        _step[grid](*arrays, channels, TAPS=taps, BIAS=bias is not None, BLOCK=block)
    return y


def short_convolution_gradients(dy: Array, u: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Gradients of ``u``, of ``weight`` ``(channels, taps)`` and of the bias ``(channels,)``, these two in float32; no history."""
    (batch, channels, length), taps = u.shape, weight.shape[-1]
    du, weight, dy = u.new_empty(u.shape), weight.contiguous(), dy.contiguous()
    lags = ceil_power_of_two(taps)
    shares = max(1, min(batch, _PROGRAMS // max(channels, 1)))
    sums = weight.new_zeros((shares, channels, lags + 1)).float()
    if u.numel():
        tile = min(_TILE, ceil_power_of_two(length))
        sizes = batch, channels, length, -(-batch // shares)
        _backward[(channels, shares)](dy, u, weight, du, sums, *sizes, TAPS=taps, LAGS=lags, TILE=tile)
    total = sums.sum(0)
    return du, total[:, :taps].flip(-1), total[:, lags].clone()


@jit
def _forward(
    u, weight, bias, history, y, channels, length, TAPS: tl.constexpr, BIAS: tl.constexpr, HISTORY: tl.constexpr, TILE: tl.constexpr  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    c = row % channels
    t = tl.program_id(1) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE,), dtype=tl.float32)
    if BIAS:
        total += tl.load(bias + c).to(tl.float32)
    for lag in tl.static_range(TAPS):
        w = tl.load(weight + c * TAPS + (TAPS - 1 - lag)).to(tl.float32)
        x = tl.load(u + row * length + t - lag, (t >= lag) & (t < length), 0.0).to(tl.float32)
        if HISTORY:
            x += tl.load(history + row * (TAPS - 1) + (TAPS - 1 + t - lag), (t < lag) & (t < length), 0.0).to(tl.float32)
        total += w * x
    tl.store(y + row * length + t, total.to(y.dtype.element_ty), t < length)


@jit
def _step(u, history, weight, bias, y, channels, TAPS: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = c < channels
    row = tl.program_id(1).to(tl.int64) * channels + c
    token = tl.load(u + row, inside, 0.0)
    place, at = history + row * (TAPS - 1), weight + c * TAPS
    total = tl.load(at + TAPS - 1, inside, 0.0).to(tl.float32) * token.to(tl.float32)
    if BIAS:
        total += tl.load(bias + c, inside, 0.0).to(tl.float32)
    for slot in tl.static_range(TAPS - 1):
        total += tl.load(at + slot, inside, 0.0).to(tl.float32) * tl.load(place + slot, inside, 0.0).to(tl.float32)
    for slot in tl.static_range(TAPS - 1):
        later = token
        if slot < TAPS - 2:
            later = tl.load(place + slot + 1, inside, 0.0)
        # no thread may write what another one has yet to read
        tl.debug_barrier()
        tl.store(place + slot, later, inside)
    tl.store(y + row, total.to(y.dtype.element_ty), inside)


@jit
def _backward(
    dy, u, weight, du, sums, batch, channels, length, sequences, TAPS: tl.constexpr, LAGS: tl.constexpr, TILE: tl.constexpr  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    c = tl.program_id(0).to(tl.int64)
    lag = tl.arange(0, LAGS)[:, None]
    used = lag < TAPS
    w = tl.load(weight + c * TAPS + (TAPS - 1 - lag), used, 0.0).to(tl.float32)
    by_lag = tl.zeros((LAGS, TILE), dtype=tl.float32)
    by_bias = tl.zeros((TILE,), dtype=tl.float32)
    first = tl.program_id(1) * sequences
    for b in range(first, tl.minimum(first + sequences, batch)):
        row = (b * channels + c) * length
        for start in range(0, length, TILE):
            t = start + tl.arange(0, TILE)[None, :]
            flat = start + tl.arange(0, TILE)
            g = tl.load(dy + row + flat, flat < length, 0.0).to(tl.float32)
            x = tl.load(u + row + t - lag, used & (t >= lag) & (t < length), 0.0).to(tl.float32)
            later = tl.load(dy + row + t + lag, used & (t + lag < length), 0.0).to(tl.float32)
            by_lag += g[None, :] * x
            by_bias += g
            tl.store(du + row + flat, tl.sum(w * later, axis=0).to(du.dtype.element_ty), flat < length)
    place = sums + (tl.program_id(1) * channels + c) * (LAGS + 1)
    tl.store(place + tl.arange(0, LAGS), tl.sum(by_lag, axis=1))
    tl.store(place + LAGS, tl.sum(by_bias, axis=0))
