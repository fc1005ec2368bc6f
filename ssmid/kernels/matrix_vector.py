"""A matrix times one vector, with the norm before it and the gelu behind it: what the layers of a language model are at batch 1.

Such a product is as fast as the matrix can be read. Every program reads a few rows, all of it in flight at once, and while they come adds
and normalizes the vector for itself, which is a few kilobytes from the cache: the residual stream needs no launch of its own.
"""

from __future__ import annotations

from ssmid._array import Array, namespace
from ssmid.kernels.add_norm import plain_add_norm
from ssmid.kernels.compiler import ceil_power_of_two, fused, jit, tl

_LONGEST = 4096
"""Columns that a program holds at once."""
_ROWS = 4


def fits_one_vector(u: Array, weight: Array) -> bool:
    """Whether ``u`` is one row, of a precision that the kernel sums in float32, and the matrix in one piece."""
    xp = namespace(u)
    same = u.dtype == weight.dtype and u.dtype != xp.float64
    return fused(u) and same and u.numel() == u.shape[-1] == weight.shape[1] and weight.is_contiguous()


def matrix_vector(weight: Array, u: Array, bias: Array = None, *, gelu: bool = False) -> Array:
    """``weight u + bias``, of it the gelu by its tanh formula where asked for: ``(*ones, rows)``, without a gradient.

    weight : ``(rows, columns)``   u : ``(*ones, columns)``, for which :func:`fits_one_vector` holds   bias : ``(rows,)`` or None
    """
    rows, columns = weight.shape
    y = u.new_empty((*u.shape[:-1], rows))
    block = min(_LONGEST, ceil_power_of_two(columns))
    flags = {"BIAS": bias is not None, "GELU": gelu, "NORM": False, "ROWS": _ROWS, "BLOCK": block}
    u, given = u.contiguous(), weight if bias is None else bias
    if rows:
        _product[(-(-rows // _ROWS),)](weight, u, given, y, u, u, u, y, rows, columns, 0.0, num_warps=max(1, block // 512), **flags)
    return y


def normed_matrix_vector(
    weight: Array, u: Array, y: Array, norm_weight: Array, norm_bias: Array, eps: float, bias: Array = None, *, gelu: bool = False
) -> tuple[Array, Array]:
    """``s = u + y``, and :func:`matrix_vector` of the layer norm of s, as of :func:`ssmid.kernels.add_norm.add_norm`."""
    rows, columns = weight.shape
    if columns > _LONGEST or y.dtype != u.dtype or not rows:
        total, normed = plain_add_norm(u, y, norm_weight, norm_bias, eps)
        return total, matrix_vector(weight, normed, bias, gelu=gelu)
    total, out = u.new_empty(u.shape), u.new_empty((*u.shape[:-1], rows))
    block = ceil_power_of_two(columns)
    flags = {"BIAS": bias is not None, "GELU": gelu, "NORM": True, "ROWS": _ROWS, "BLOCK": block}
    arrays = weight, u.contiguous(), weight if bias is None else bias, out, y.contiguous(), norm_weight, norm_bias, total
    _product[(-(-rows // _ROWS),)](*arrays, rows, columns, eps, num_warps=max(1, block // 512), **flags)
    return total, out


@jit
def _product(
    weight, u, bias, out, added, norm_weight, norm_bias, total, rows, columns, eps,
    BIAS: tl.constexpr, GELU: tl.constexpr, NORM: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    start = weight + row.to(tl.int64)[:, None] * columns
    sums = tl.zeros((ROWS,), dtype=tl.float32)
    for first in range(0, columns, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < columns
        part = tl.load(start + column[None, :], (row < rows)[:, None] & inside[None, :], 0.0)
        x = tl.load(u + column, inside, 0.0).to(tl.float32)
        if NORM:
            rounded = (x + tl.load(added + column, inside, 0.0).to(tl.float32)).to(total.dtype.element_ty)
            if tl.program_id(0) == 0:
                tl.store(total + column, rounded, inside)
            x = rounded.to(tl.float32)
            x = tl.where(inside, x - tl.sum(x, axis=0) / columns, 0.0)
            x = x / tl.sqrt(tl.sum(x * x, axis=0) / columns + eps)
            w, b = tl.load(norm_weight + column, inside, 0.0), tl.load(norm_bias + column, inside, 0.0)
            x = (x * w.to(tl.float32) + b.to(tl.float32)).to(total.dtype.element_ty).to(tl.float32)
        sums += tl.sum(part.to(tl.float32) * x[None, :], axis=1)
    if BIAS:
        sums += tl.load(bias + row, row < rows, 0.0).to(tl.float32)
    if GELU:
        # 1 / 2 + tanh(z) / 2 is the sigmoid of 2 z
        sums = sums * tl.sigmoid(1.5957691216057308 * (sums + 0.044715 * sums * sums * sums))
    tl.store(out + row, sums.to(out.dtype.element_ty), row < rows)
