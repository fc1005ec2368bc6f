"""What stands before and behind the long convolutions of MultiHyena, where no gradient is asked for.

Before them the outer products of keys and values, laid out as convolutions read them; behind them the sum over the rows of a head, weighted
by queries (Massaroli et al. 2023, section 4). Of what is N times as large as a stream each kernel writes, or reads, every number once; in
array operations a product is written, turned, and on the way back multiplied, written and summed.
"""

from __future__ import annotations

from ssmid._array import Array, namespace
from ssmid.kernels.compiler import ceil_power_of_two, fused, jit, tl

_TILE = 1024


def outer_products(k: Array, v: Array, rows: slice) -> Array:
    """``z_rjht = k_hrt v_hjt`` ``(batch, rows, N, heads, length)`` of ``k`` and ``v`` ``(batch, heads, N, length)``, for some rows of k.

    The kernel has no gradient.
    """
    if not _taken(k, v):
        return plain_outer_products(k, v, rows)
    (batch, heads, n, length), count = k.shape, rows.stop - rows.start
    z = k.new_empty((batch, count, n, heads, length))
    if z.numel():
        tile = min(_TILE, ceil_power_of_two(length))
        grid = (batch * n * heads, -(-length // tile))
        _outer_products[grid](k, v, z, k.stride(0), v.stride(0), rows.start, count, heads, n, length, TILE=tile)
    return z


def plain_outer_products(k: Array, v: Array, rows: slice) -> Array:
    """:func:`outer_products` in array operations."""
    return k[:, :, rows].transpose(1, 2)[:, :, None] * v.transpose(1, 2)[:, None]


def contracted(q: Array, filtered: Array, rows: slice, before: Array = None) -> Array:
    """``before + sum_r q_hrt filtered_rjht`` ``(batch, heads, N, length)``, for some rows of q; it may be written over ``before``.

    q : ``(batch, heads, N, length)``   filtered : ``(batch, rows, N, heads, length)``. The kernel sums in float32 and has no gradient.
    """
    if not _taken(q, filtered) or not filtered.is_contiguous():
        return plain_contracted(q, filtered, rows, before)
    (batch, heads, n, length), count = q.shape, rows.stop - rows.start
    y = q.new_empty(q.shape) if before is None else before
    if y.numel():
        tile = min(_TILE, ceil_power_of_two(length))
        grid = (batch * n * heads, -(-length // tile))
        sizes = q.stride(0), rows.start, count, heads, n, length
        _contracted[grid](q, filtered, y, *sizes, AFTER=before is not None, TILE=tile)
    return y


def plain_contracted(q: Array, filtered: Array, rows: slice, before: Array = None) -> Array:
    """:func:`contracted` in array operations."""
    y = (q[:, :, rows].transpose(1, 2)[:, :, None] * filtered).sum(1).transpose(1, 2)
    return y if before is None else before + y


def _taken(streams: Array, other: Array) -> bool:
    """By the kernels: rows next to each other, of sequences that need not be, as parts of several streams are."""
    xp, (_, _, n, length) = namespace(streams), streams.shape
    if not fused(streams) or streams.dtype != other.dtype or streams.dtype == xp.float64:
        return False
    laid_out = (n * length, length, 1)
    return streams.stride()[1:] == laid_out and (other.ndim != 4 or other.stride()[1:] == laid_out)


# ---------------------------------------------------------------- the kernels


@jit
def _outer_products(
    k, v, z, k_sequence, v_sequence, first, count, heads, n, length, TILE: tl.constexpr  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    """One row of v against all rows of k in its head, which its neighbours find in the cache."""
    row = tl.program_id(0).to(tl.int64)
    h, j, b = row % heads, row // heads % n, row // (heads * n)
    t = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = t < length
    value = tl.load(v + b * v_sequence + (h * n + j) * length + t, inside, 0.0).to(tl.float32)
    for r in range(count):
        key = tl.load(k + b * k_sequence + (h * n + first + r) * length + t, inside, 0.0).to(tl.float32)
        place = z + (((b * count + r) * n + j) * heads + h) * length + t
        tl.store(place, (key * value).to(z.dtype.element_ty), inside)


@jit
def _contracted(
    q, filtered, y, q_sequence, first, count, heads, n, length, AFTER: tl.constexpr, TILE: tl.constexpr  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    h, j, b = row % heads, row // heads % n, row // (heads * n)
    t = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = t < length
    total = tl.zeros((TILE,), dtype=tl.float32)
    for r in range(count):
        query = tl.load(q + b * q_sequence + (h * n + first + r) * length + t, inside, 0.0).to(tl.float32)
        total += query * tl.load(filtered + (((b * count + r) * n + j) * heads + h) * length + t, inside, 0.0).to(tl.float32)
    place = y + ((b * heads + h) * n + j) * length + t
    if AFTER:
        total += tl.load(place, inside, 0.0).to(tl.float32)
    tl.store(place, total.to(y.dtype.element_ty), inside)
