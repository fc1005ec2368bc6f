"""Triton where it is installed; without it, and off the GPU, the plain functions do the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssmid._array import Array, on_gpu

try:
    import triton  # pyright: ignore[reportMissingImports]
    import triton.language as language  # pyright: ignore[reportMissingImports]
except ImportError:
    triton = language = None

tl: Any = language


LARGEST_MATRIX = 32
"""Matrices that a program keeps in registers: compiling one of 128 x 128 takes minutes."""


def fused(array: Array, size: int = 0) -> bool:
    """Whether a kernel can take ``array``, with matrices of ``size`` rows and columns in it."""
    return triton is not None and on_gpu(array) and size <= LARGEST_MATRIX


def jit(function: Callable[..., Any]) -> Any:
    """``triton.jit``; without Triton the function as it is, which nothing calls."""
    return function if triton is None else triton.jit(function)


def ceil_power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()
