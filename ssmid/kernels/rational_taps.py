"""Taps of rational transfer functions, and their gradients, in float32: one launch each way, all between in registers.

The plain functions are ``rational_kernel`` and ``rational_kernel_gradient`` of :mod:`ssmid.analysis.rational_kernel`. Bytes: coefficients
are read once, taps written once. Operations: three transforms of the length a channel forward, four backward. Accuracy: that of float32,
relative to ``|a|_1 / min |1 + a|`` on the circle.
"""

from __future__ import annotations

from ssmid._array import Array
from ssmid.kernels.cuda import can_compile, launch

_SOURCE = ("fft_convolution.cu", "rational_taps.cu")
_SHORTEST, _LONGEST = 64, 16384


def fused_rational_taps(b: Array, a: Array, length: int) -> bool:
    """Whether the kernels take ``b`` ``(channels, n)`` and ``a`` ``(sets, n)`` at this length: powers of two, orders below half of it."""
    fits = _SHORTEST <= length <= _LONGEST and length & (length - 1) == 0 and 2 * (b.shape[-1] + 1) <= length
    return fits and b.shape[0] > 0 and str(b.dtype) == str(a.dtype) == "torch.float32" and can_compile(b)


def rational_taps(b: Array, a: Array, feedthrough: Array, length: int) -> Array:
    """``(channels, length)`` the periodic kernel; feedthrough : ``(channels,)``"""
    taps = b.new_empty((b.shape[0], length))
    _run("rational_taps", length, b, a, feedthrough.contiguous(), taps)
    return taps


def rational_taps_gradient(b: Array, a: Array, gradient: Array) -> tuple[Array, Array, Array]:
    """Gradients ``(channels, n)``, ``(sets, n)`` and ``(channels,)`` of the coefficients, from ``(channels, length)`` of the taps."""
    db, da, through = b.new_empty(b.shape), b.new_empty(b.shape), b.new_empty(b.shape[:1])
    _run("rational_taps_gradient", gradient.shape[-1], b, a, gradient.contiguous(), db, da, through)
    if a.shape != b.shape:
        da = da.reshape(a.shape[0], -1, a.shape[1]).sum(1)
    return db, da, through


def _run(kernel: str, length: int, b: Array, a: Array, *arrays: Array) -> None:
    channels, order = b.shape
    threads = length // 16
    groups = max(1, 128 // threads)
    sizes = channels, order, channels // a.shape[0]
    shared, blocks = 8 * groups * (length + length // 16), -(-channels // groups)
    launch(_SOURCE, f"{kernel}<{length}>", blocks, (threads, groups), b.contiguous(), a.contiguous(), *arrays, *sizes, shared=shared)
