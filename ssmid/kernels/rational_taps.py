"""Taps of rational transfer functions, and their gradients, in float32: one launch each way, all between in registers.

The plain functions are ``rational_kernel`` and ``rational_kernel_gradient`` of :mod:`ssmid.analysis.rational_kernel`. Bytes: coefficients
are read once, taps written once; lengths above 16384 take scratch of half their spectrum besides, and two launches forward, three back.
Operations: three transforms of the length a channel forward, four or five backward. Accuracy: that of float32, relative to
``|a|_1 / min |1 + a|`` on the circle.
"""

from __future__ import annotations

from typing import Any

from ssmid._array import Array
from ssmid.kernels.cuda import can_compile, launch

_SOURCE = ("fft_convolution.cu", "rational_taps.cu", "rational_taps_long.cu")
_SHORTEST, _LONGEST_BLOCK, _LONGEST, _POINTS = 64, 16384, 65536, 4096


def fused_rational_taps(b: Array, a: Array, length: int) -> bool:
    """Whether the kernels take ``b`` ``(channels, n)`` and ``a`` ``(sets, n)`` at this length: powers of two, orders below half of it."""
    fits = _SHORTEST <= length <= _LONGEST and length & (length - 1) == 0 and 2 * (b.shape[-1] + 1) <= length
    return fits and b.shape[0] > 0 and str(b.dtype) == str(a.dtype) == "torch.float32" and can_compile(b)


def rational_taps(b: Array, a: Array, feedthrough: Array, length: int) -> Array:
    """``(channels, length)`` the periodic kernel; feedthrough : ``(channels,)``"""
    b, a, feedthrough = b.contiguous(), a.contiguous(), feedthrough.contiguous()
    (channels, n), sharing = b.shape, b.shape[0] // a.shape[0]
    taps = b.new_empty((channels, length))
    if length <= _LONGEST_BLOCK:
        _transform(f"rational_taps<{length}>", length, channels, b, a, feedthrough, taps, channels, n, sharing)
        return taps
    kind, rows = _rows(b, length)
    _transform(f"rational_rows<{kind}>", _POINTS, rows.shape[0] * rows.shape[1], b, a, rows, channels, n, sharing)
    _pass(f"rational_join<{kind}>", channels * _POINTS, rows, feedthrough, taps, channels)
    return taps


def rational_taps_gradient(b: Array, a: Array, gradient: Array) -> tuple[Array, Array, Array]:
    """Gradients ``(channels, n)``, ``(sets, n)`` and ``(channels,)`` of the coefficients, from ``(channels, length)`` of the taps."""
    b, a, gradient = b.contiguous(), a.contiguous(), gradient.contiguous()
    (channels, n), sharing, length = b.shape, b.shape[0] // a.shape[0], gradient.shape[-1]
    db, da, through = b.new_empty(b.shape), b.new_empty(b.shape), b.new_empty(b.shape[:1])
    if length <= _LONGEST_BLOCK:
        _transform(f"rational_taps_gradient<{length}>", length, channels, b, a, gradient, db, da, through, channels, n, sharing)
    else:
        kind, rows = _rows(b, length)
        count = min(_POINTS, n + 1)
        moved = b.new_empty((*rows.shape[:2], count, 2))
        _pass(f"rational_split<{kind}>", channels * _POINTS, gradient, rows, through, channels)
        units = rows.shape[0] * rows.shape[1]
        _transform(f"rational_rows_gradient<{kind}>", _POINTS, units, b, a, rows, moved, count, channels, n, sharing)
        _pass(f"rational_join_gradient<{kind}>", channels * count, rows, moved, db, da, count, channels, n)
    if sharing > 1:
        da = da.reshape(a.shape[0], sharing, n).sum(1)
    return db, da, through


def _rows(b: Array, length: int) -> tuple[str, Array]:
    """The arguments of the templates, and scratch for half of the rows."""
    radix = length // _POINTS
    return f"{_POINTS}, {radix}", b.new_empty((b.shape[0], radix // 2 + 1, _POINTS, 2))


def _transform(kernel: str, points: int, units: int, *arguments: Any) -> None:
    threads = points // 16
    groups = max(1, 128 // threads)
    launch(_SOURCE, kernel, -(-units // groups), (threads, groups), *arguments, shared=8 * groups * (points + points // 16))


def _pass(kernel: str, items: int, *arguments: Any) -> None:
    launch(_SOURCE, kernel, -(-items // 256), (256, 1), *arguments)
