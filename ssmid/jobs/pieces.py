"""A chunk distilled in pieces that fit into memory: where they do not, in smaller ones."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
_WORDS = ("out of memory", "ALLOC_FAILED", "can't allocate memory")


class SmallerPiecesWarning(UserWarning):
    """Memory ran out; the work goes on in smaller pieces."""


class Pieces:
    """How many filters are worked on at once: ``size`` at first, halved each time memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[int], Result], count: int, least: int = 1) -> Result:
        """``work(size)`` on ``count`` filters, multiples of ``least``. Raises MemoryError where not even the smallest pieces fit.

        What is found does not depend on the size but for rounding: filters are independent of each other, and only the shapes of the
        batches change, by which BLAS and FFT libraries choose the order of their sums.
        """
        while True:
            size = min(max(self.size // least, 1) * least, max(count, 1))
            try:
                return work(size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
            # outside of the handler, whose traceback holds what the failed attempt had allocated
            _give_back()
            half = max(size // 2 // least, 1) * least
            if half >= size:
                raise MemoryError(f"{size} filters at once do not fit ({trouble})")
            self.size = half
            text = f"out of memory with {size} filters at once: going on with {half} (results agree to rounding)"
            warnings.warn(text, SmallerPiecesWarning, stacklevel=2)


def is_out_of_memory(error: Exception) -> bool:
    """On the host or a GPU: CUDA's libraries have their own words for it."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def _give_back() -> None:
    """What torch keeps of freed memory, which a smaller piece may need elsewhere."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
