"""What decoding keeps in memory, and the largest batch of which it fits."""

from __future__ import annotations

import gc
import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from ssmid.nn.decoder import Generative

_USABLE = 0.95
"""Of free memory: the rest is lost between blocks of the allocator."""


def memory_per_sequence(model: Generative, length: int | None = None) -> int:
    """Bytes of state of one sequence of ``length`` tokens: the same for every length in recurrences, growing with it in attention.

    Counted from shapes, without making a state. The logits of a sequence come to it: ``model.vocabulary`` numbers, three times as
    float32 or float64 where tokens are drawn.
    """
    state = model.initial_state(0, length)
    tensors = [state] if isinstance(state, Tensor) else state.values()
    return sum(math.prod(tensor.shape[1:]) * tensor.element_size() for tensor in tensors if tensor.ndim)


class Memory(Protocol):
    """A device that counts."""

    def available(self) -> int:
        """Bytes that could be allocated now."""
        ...

    def peak(self, run: Callable[[], object]) -> int:
        """The most bytes that ``run`` held at a time."""
        ...


class CudaMemory:
    """The memory of a GPU as PyTorch's allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def available(self) -> int:
        self._free()
        return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)

    def peak(self, run: Callable[[], object]) -> int:
        self._free()
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        run()
        return torch.cuda.max_memory_allocated(self.device) - before

    def _free(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()


def largest_batch(run: Callable[[int, int], object], prompt: int, rows: int, memory: Memory) -> tuple[int, int]:
    """The largest batch that fits into ``memory``, and the bytes of a sequence in it.

    run : decodes ``run(batch, prompt)``; the peaks of one and of two sequences, with the prompt and with none, tell what a sequence takes
    while it is decoded, and what more while its prompt is read, ``rows`` sequences at a time. An estimate: both are taken to grow in
    proportion to the batch.
    """
    peaks: dict[tuple[int, int], int] = {}
    try:
        # Once unmeasured: libraries take their workspaces in the first call and keep them.
        for length in (0, prompt):
            run(1, length)
        for batch in (1, 2):
            for length in (0, prompt):
                peaks[batch, length] = memory.peak(lambda b=batch, n=length: run(b, n))
    except torch.OutOfMemoryError:
        return min(len(peaks), 1), memory.available()
    decoding = max(peaks[2, 0] - peaks[1, 0], 1)
    reading = max(peaks[2, prompt] - peaks[1, prompt], decoding)
    room = _USABLE * memory.available() - max(peaks[1, prompt] - reading, 0)
    if room < rows * reading:
        return max(int(room // reading), 0), reading
    return int((room - rows * (reading - decoding)) // decoding), decoding


@contextmanager
def largest_batch_named(batch: int, estimate: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """When the memory of a GPU runs out inside, an error of the same type that says how many sequences would fit.

    estimate : gives that number and the bytes of each. It is called when everything made inside is free again.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        # What the failed frames still hold would be missing from the estimate.
        traceback.clear_frames(error.__traceback__)
        reason = str(error).split(". ")[0]
        fits, bytes_each = estimate()
        advice = "a shorter prefill_chunk or a smaller model may fit" if fits == 0 else "decode that many at a time"
        raise torch.OutOfMemoryError(
            f"batch: expected at most about {fits} sequences of {bytes_each / 2**20:.1f} MiB, as this device has room for, got {batch}: "
            f"{advice} ({reason})"
        ) from None
