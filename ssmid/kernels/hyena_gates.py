"""What stands before and behind the long convolution of a Hyena operator of order 2, where no gradient is asked for.

Before it: the bias of the projection, a short convolution of three streams, the product of two of them. As one kernel that reads three
rows and writes two; in array operations these are eleven reads and seven writes. Behind it: the gate of the third stream, written with
channels last, as the matrix product that follows reads it fastest; the product has to be written in any case.
"""

from __future__ import annotations

from ssmid._array import Array, namespace
from ssmid.kernels.compiler import ceil_power_of_two, fused, jit, tl

TAPS = 3
"""Of the short convolution that the kernel takes, as published."""

_TILE = 1024
_SIDE = 64
"""Rows and columns of a tile that is turned."""


def gated_streams(
    projected: Array, offset: Array, weight: Array, bias: Array, history: Array = None, mask: Array = None
) -> tuple[Array, Array, Array]:
    """``x0`` and ``x1 v`` ``(batch, D, length)`` of the streams ``x0, x1, v = short(projected + offset)``, and the history behind them.

    projected : ``(batch, 3 D, length)``   offset : ``(3 D,)`` or None   weight : ``(3 D, taps)``, that of the latest input last
    bias : ``(3 D,)`` or None   history : ``(batch, 3 D, taps - 1)``, what ``projected + offset`` was before, the latest last; None is zeros
    mask : ``(batch, length)``; where it is False, inputs and ``x1 v`` are zeros, whatever stood there

    Sums are float32 at least; dtypes are those of ``projected`` and, of the history, of the weights. No gradient through the kernel.
    """
    (batch, rows, length), taps = projected.shape, weight.shape[-1]
    kinds = {projected.dtype, weight.dtype} if history is None else {projected.dtype, weight.dtype, history.dtype}
    if not fused(projected) or projected.dtype == namespace(projected).float64 or taps != TAPS or len(kinds) > 1 or not projected.shape[-1]:
        return plain_gated_streams(projected, offset, weight, bias, history, mask)
    channels = rows // 3
    projected, weight = projected.contiguous(), weight.contiguous()
    gate, product = (projected.new_empty((batch, channels, length)) for _ in range(2))
    last = projected.new_empty((batch, rows, TAPS - 1))
    if batch and channels:
        tile = min(_TILE, max(64, ceil_power_of_two(length)))
        numbers = [weight if x is None else x.contiguous() for x in (offset, bias)]
        masks = projected if mask is None else mask.contiguous().view(namespace(mask).uint8)
        optional = projected if history is None else history.contiguous(), masks
        given = {"OFFSET": offset is not None, "BIAS": bias is not None, "HISTORY": history is not None, "MASK": mask is not None}
        grid = (batch * channels, -(-length // tile))
        arrays = projected, numbers[0], weight, numbers[1], *optional, gate, product, last
        _gated_streams[grid](*arrays, channels, length, TILE=tile, num_warps=max(1, tile // 256), **given)
    return gate, product, last


def plain_gated_streams(
    projected: Array, offset: Array, weight: Array, bias: Array, history: Array = None, mask: Array = None
) -> tuple[Array, Array, Array]:
    """:func:`gated_streams` in array operations, of any number of taps."""
    xp, (batch, rows, length), taps = namespace(projected), projected.shape, weight.shape[-1]
    wide = xp.float64 if projected.dtype == xp.float64 else xp.float32
    u = xp.astype(projected, wide)
    if offset is not None:
        u = u + xp.astype(offset, wide)[:, None]
    if mask is not None:
        u = xp.where(mask[:, None, :], u, xp.zeros_like(u))
    zeros = xp.zeros((batch, rows, taps - 1), dtype=wide, device=u.device)
    window = xp.concat([zeros if history is None else xp.astype(history, wide), u], axis=-1)
    streams = xp.zeros((rows, 1), dtype=wide, device=u.device) if bias is None else xp.astype(bias, wide)[:, None]
    for i in range(taps):
        streams = streams + xp.astype(weight[:, i : i + 1], wide) * window[..., i : i + length]
    gate, key, value = (streams[:, i * (rows // 3) : (i + 1) * (rows // 3)] for i in range(3))
    product = key * value
    if mask is not None:
        product = xp.where(mask[:, None, :], product, xp.zeros_like(product))
    last = xp.astype(window[..., length:], weight.dtype)
    return xp.astype(gate, projected.dtype), xp.astype(product, projected.dtype), last


def product_channels_last(x: Array, y: Array) -> Array:
    """``x y`` of arrays ``(batch, channels, length)``, as ``(batch, length, channels)`` with channels next to each other."""
    xp = namespace(x)
    if not fused(x) or x.dtype != y.dtype or x.dtype == xp.float64:
        return xp.matrix_transpose(x * y)
    x, y, (batch, channels, length) = x.contiguous(), y.contiguous(), x.shape
    out = x.new_empty((batch, length, channels))
    if batch and channels and length:
        grid = (-(-length // _SIDE) * -(-channels // _SIDE), batch)
        _product_channels_last[grid](x, y, out, channels, length, SIDE=_SIDE, num_warps=8)
    return out


# ---------------------------------------------------------------- the kernels


@jit
def _short(
    u, offset, weight, bias, history, mask, last, row, c, length, t, kept, kept_before,
    OFFSET: tl.constexpr, BIAS: tl.constexpr, HISTORY: tl.constexpr, MASK: tl.constexpr, TILE: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    """One stream at times ``t`` from two loads: of the inputs there, and of those two samples before, in aligned pairs."""
    inside, behind = t < length, (t >= 2) & (t < length + 2)
    start = u + row * length
    now = tl.load(start + t, inside, 0.0).to(tl.float32)
    before = tl.load(start + t - 2, behind, 0.0).to(tl.float32)
    if OFFSET:
        by = tl.load(offset + c).to(tl.float32)
        now += by
        before = tl.where(behind, before + by, 0.0)
    if MASK:
        now, before = tl.where(kept, now, 0.0), tl.where(kept_before, before, 0.0)
    if HISTORY:
        before += tl.load(history + row * 2 + t, t < 2, 0.0).to(tl.float32)
    even, _ = tl.split(tl.reshape(now, (TILE // 2, 2)))
    _, odd = tl.split(tl.reshape(before, (TILE // 2, 2)))
    between = tl.reshape(tl.join(odd, even), (TILE,))
    if tl.program_id(1) == tl.num_programs(1) - 1:
        slot = tl.arange(0, 2)
        time = length - 2 + slot
        late = tl.load(start + time, time >= 0, 0.0).to(tl.float32)
        if OFFSET:
            late += tl.load(offset + c).to(tl.float32)
        if MASK:
            late = tl.where(tl.load(mask + time, time >= 0, 0) != 0, late, 0.0)
        if HISTORY:
            late = tl.where(time >= 0, late, tl.load(history + row * 2 + 2 + time, time < 0, 0.0).to(tl.float32))
        else:
            late = tl.where(time >= 0, late, 0.0)
        tl.store(last + row * 2 + slot, late.to(last.dtype.element_ty))
    at = weight + c * 3
    out = tl.load(at).to(tl.float32) * before + tl.load(at + 1).to(tl.float32) * between + tl.load(at + 2).to(tl.float32) * now
    if BIAS:
        out += tl.load(bias + c).to(tl.float32)
    return out


@jit
def _gated_streams(
    u, offset, weight, bias, history, mask, gate, product, last, channels, length,
    OFFSET: tl.constexpr, BIAS: tl.constexpr, HISTORY: tl.constexpr, MASK: tl.constexpr, TILE: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    b, c = program // channels, program % channels
    t = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = t < length
    kept, kept_before = inside, inside
    if MASK:
        mask += b * length
        kept = tl.load(mask + t, inside, 0) != 0
        kept_before = tl.load(mask + t - 2, (t >= 2) & (t < length + 2), 0) != 0
    row = b * 3 * channels + c
    x0 = _short(
        u, offset, weight, bias, history, mask, last, row, c, length, t, kept, kept_before, OFFSET, BIAS, HISTORY, MASK, TILE
    )  # fmt: skip
    place = (b * channels + c) * length + t
    tl.store(gate + place, x0.to(gate.dtype.element_ty), inside)
    row, c = row + channels, c + channels
    x1 = _short(
        u, offset, weight, bias, history, mask, last, row, c, length, t, kept, kept_before, OFFSET, BIAS, HISTORY, MASK, TILE
    )  # fmt: skip
    row, c = row + channels, c + channels
    v = _short(
        u, offset, weight, bias, history, mask, last, row, c, length, t, kept, kept_before, OFFSET, BIAS, HISTORY, MASK, TILE
    )  # fmt: skip
    z = x1 * v
    if MASK:
        z = tl.where(kept, z, 0.0)
    tl.store(product + place, z.to(product.dtype.element_ty), inside)


@jit
def _product_channels_last(x, y, out, channels, length, SIDE: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    across = tl.cdiv(length, SIDE)
    t = (tl.program_id(0) % across) * SIDE + tl.arange(0, SIDE)
    c = (tl.program_id(0) // across) * SIDE + tl.arange(0, SIDE)
    start = tl.program_id(1).to(tl.int64) * channels * length
    place, there = start + c[:, None] * length + t[None, :], (c < channels)[:, None] & (t < length)[None, :]
    values = tl.load(x + place, there, 0.0).to(tl.float32) * tl.load(y + place, there, 0.0).to(tl.float32)
    turned = tl.trans(values.to(out.dtype.element_ty))
    tl.store(out + start + t[:, None] * channels + c[None, :], turned, (t < length)[:, None] & (c < channels)[None, :])
