"""A job of many small kernels, timed as the device runs it: recorded once as a CUDA graph, then replayed; and the memory it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GRAPH, EVENTS, CLOCK = "CUDA graph", "events", "clock"
"""How a job was timed: a graph's replay, between two events with the host launching, or by the host's clock where there is no GPU."""


def replayed(function: Callable[[], Any], device: str, *, graph: bool = True, warm_up: int = 3) -> tuple[Callable[[], Any], str]:
    """``function``, or the replay of it where it can be recorded, and how it is timed.

    What it returned when it was recorded is what its replays return, with new values in it. A job that asks the device for a value
    on its way cannot be recorded: it is launched anew each time. That is found out before, as after a recording that failed torch gives
    back the memory of no other; ``graph`` is False of a job that is known to fail for another reason.
    """
    if not device.startswith("cuda"):
        return function, CLOCK
    import traceback

    import torch

    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            function()
    torch.cuda.current_stream(device).wait_stream(side)
    torch.cuda.synchronize(device)
    if not graph or _waits_for_the_device(function):
        return function, EVENTS
    recorded = torch.cuda.CUDAGraph()
    try:
        # "global", torch's default, would forbid other threads to pin memory meanwhile, as one that makes the next batch does: either's
        # call fails, and the recording with it. What the threads of a backward pass launch goes to the stream that is recorded, whichever
        # thread it comes from; torch's streams do not wait for the legacy default one, so that other threads' work there is no part of it.
        with torch.cuda.graph(recorded, capture_error_mode="thread_local"):
            value = function()
    except RuntimeError as error:  # of CUDA: what was asked for is not allowed while a graph is recorded; or no memory
        torch.cuda.synchronize(device)
        traceback.clear_frames(error.__traceback__)  # which hold what did not fit; the next lines take some memory
        recorded.reset()
        # a recording that failed leaves torch's random numbers as within a graph; one that succeeds lets go of them
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            torch.zeros(1, device=device)
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return function, EVENTS

    def replay() -> Any:
        recorded.replay()
        return value

    return replay, GRAPH


def _waits_for_the_device(function: Callable[[], Any]) -> bool:
    """Whether the host asks for a value on the way."""
    import torch

    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        function()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return True
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return False


def peak_bytes(function: Callable[[], Any], device: str) -> int | None:
    """The most bytes that one call of ``function`` holds beside what was there before it; None where there is no GPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    kept = function()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    del kept
    return peak


def emptied(device: str) -> None:
    """What nobody holds any more goes back to the GPU."""
    if device.startswith("cuda"):
        import gc

        import torch

        gc.collect()
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def unless_out_of_memory(run: Callable[[], Any], device: str) -> Any:
    """What ``run`` returns, or None where the memory of a GPU runs out; what it held is free afterwards."""
    import traceback

    import torch

    try:
        return run()
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return None
    finally:
        emptied(device)
