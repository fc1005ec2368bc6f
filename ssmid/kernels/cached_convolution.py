"""One token of a causal convolution over the inputs so far: a dot product with reversed taps for each sequence and channel.

The plain function is ``plain_cached_step`` of :mod:`ssmid.nn.cached_convolution`. A program takes some sequences of one channel, reads
their histories once, from the first input to the one before the token, and the taps that belong to them from the cache, once for all of
its sequences where these stand at one place: the bytes that it must move are those of the histories. How far it reads it finds in
``position`` on the device, so that a graph of one step stands for all of them.
"""

from __future__ import annotations

from math import prod

from ssmid._array import Array
from ssmid.kernels.compiler import ceil_power_of_two, jit, tl

_TILE = 4096
"""Numbers that a program holds at once."""
_BLOCK = 512
"""Inputs of a sequence that it holds at once, where it has so many sequences."""


def cached_step(history: Array, taps: Array, position: Array, u: Array) -> Array:
    """``y = taps_0 u + sum_{s < position} taps_{position - s} history_s`` ``(*batch, channels)``; ``u`` is put into the history.

    history : ``(*batch, channels, slots)``, its rows contiguous, evenly spaced   taps : ``(channels, >= slots)``, rows contiguous
    position : int64 ``(*batch,)`` or one for all ``(1,)``   u : ``(*batch, channels)``; y is as wide as taps, NaN from ``slots`` on
    """
    *batch, channels, slots = history.shape
    rows = prod(batch)
    y = taps.new_empty((*batch, channels))
    if rows and channels:
        block = min(_BLOCK, max(16, ceil_power_of_two(slots)))
        group = min(_TILE // block, ceil_power_of_two(rows))
        _step[(channels, -(-rows // group))](
            history, taps, position, u.to(history.dtype).contiguous(), y, rows, channels, slots, history.stride(-2), taps.stride(0),
            int(position.numel() > 1), ROWS=group, BLOCK=block, num_warps=4,
        )  # fmt: skip
    return y


@jit
def _step(
    history, taps, position, u, y, rows, channels, slots, spacing, taps_spacing, moving,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    channel = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    here = row < rows
    place = tl.load(position + row * moving, mask=here, other=0)
    full = place >= slots
    inputs = history + (row * channels + channel) * spacing
    response = taps + channel * taps_spacing
    reads = here & (~full)
    last = tl.max(tl.where(reads, place, 0), axis=0)
    together = tl.min(tl.where(reads, place, last), axis=0) == last
    total = tl.zeros((ROWS, BLOCK), dtype=taps.dtype.element_ty)
    if together:
        whole = last // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):  # unmasked: a mask that begins anywhere would have every number loaded alone
            s = start + tl.arange(0, BLOCK)
            past = tl.load(inputs[:, None] + s[None, :], mask=reads[:, None], other=0.0)
            total += past.to(taps.dtype.element_ty) * tl.load(response + (last - s))[None, :]
        s = whole + tl.arange(0, BLOCK)
        past = tl.load(inputs[:, None] + s[None, :], mask=reads[:, None] & (s < last)[None, :], other=0.0)
        total += past.to(taps.dtype.element_ty) * tl.load(response + (last - s), mask=s < last, other=0.0)[None, :]
    else:
        for start in range(0, last, BLOCK):
            s = start + tl.arange(0, BLOCK)
            before = reads[:, None] & (s[None, :] < place[:, None])
            past = tl.load(inputs[:, None] + s[None, :], mask=before, other=0.0)
            weight = tl.load(response + (place[:, None] - s[None, :]), mask=before, other=0.0)
            total += past.to(taps.dtype.element_ty) * weight
    new = tl.load(u + row * channels + channel, mask=here, other=0.0)
    result = tl.sum(total, axis=1) + new.to(taps.dtype.element_ty) * tl.load(response)
    tl.store(y + row * channels + channel, tl.where(full, float("nan"), result), mask=here)
    tl.store(inputs + place, new, mask=here & (~full))
