"""A sum and its layer norm in one pass, as between the parts of a residual stream; where no gradient is asked for."""

from __future__ import annotations

from ssmid._array import Array, namespace
from ssmid.kernels.compiler import ceil_power_of_two, fused, jit, tl

_WIDEST = 16384
"""Numbers of a row that a program holds."""


def add_norm(
    u: Array, y: Array, weight: Array, bias: Array, eps: float, *, over_u: bool = False, over_y: bool = False
) -> tuple[Array, Array]:
    """``s = u + y`` and ``weight (s - mean) / sqrt(variance + eps) + bias`` over the last axis, both of the dtype of ``u``.

    u, y : ``(*batch, n)``   weight, bias : ``(n,)``   over_u, over_y : whether the sum may be written over ``u``, and its norm over ``y``,
    which saves their memory. Moments are float32 at least, of the sum as it is rounded. The kernel reads two rows and writes two; it has
    no gradient.
    """
    n = u.shape[-1]
    if not fused(u) or u.dtype != y.dtype or u.dtype == namespace(u).float64 or n > _WIDEST:
        return plain_add_norm(u, y, weight, bias, eps)
    u, y = u.contiguous(), y.contiguous()
    total, normed = (x if over else x.new_empty(x.shape) for x, over in ((u, over_u), (y, over_y)))
    rows = u.numel() // n if n else 0
    if rows:
        block = ceil_power_of_two(n)
        _add_norm[(rows,)](u, y, weight, bias, total, normed, n, eps, BLOCK=block, num_warps=min(16, max(1, block // 512)))
    return total, normed


def plain_add_norm(u: Array, y: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Array]:
    """:func:`add_norm` in array operations."""
    xp = namespace(u)
    total = xp.astype(u + y, u.dtype)
    wide = xp.astype(total, xp.float64 if u.dtype == xp.float64 else xp.float32)
    centred = wide - xp.mean(wide, axis=-1, keepdims=True)
    scaled = centred / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    return total, xp.astype(scaled * xp.astype(weight, wide.dtype) + xp.astype(bias, wide.dtype), u.dtype)


@jit
def _add_norm(u, y, weight, bias, total, normed, n, eps, BLOCK: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    column = tl.arange(0, BLOCK)
    inside = column < n
    row = tl.program_id(0).to(tl.int64) * n
    w, b = tl.load(weight + column, inside, 0.0).to(tl.float32), tl.load(bias + column, inside, 0.0).to(tl.float32)
    added = tl.load(u + row + column, inside, 0.0).to(tl.float32) + tl.load(y + row + column, inside, 0.0).to(tl.float32)
    rounded = added.to(total.dtype.element_ty)
    # of a short row several threads hold the same number: none may write over what another one has yet to read
    tl.debug_barrier()
    tl.store(total + row + column, rounded, inside)
    s = rounded.to(tl.float32)
    mean = tl.sum(s, axis=0) / n
    centred = tl.where(inside, s - mean, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, axis=0) / n + eps)
    tl.store(normed + row + column, (centred * scale * w + b).to(normed.dtype.element_ty), inside)
