"""One step of a decoder as a CUDA graph: hundreds of launches as one."""

from __future__ import annotations

from collections.abc import Callable

import torch


def captured(step: Callable[[], object], device: torch.device, *, warm_up: int = 3) -> Callable[[], None]:
    """What repeats ``step`` on the GPU without Python: it reads and writes the tensors that ``step`` read and wrote.

    ``step`` runs ``warm_up`` times before (Triton compiles and cuBLAS chooses kernels then, on a stream of their own as a capture
    demands), and once while it is recorded, when nothing is computed. What it changes must be put right by the caller. Randomness must
    come from tensors that ``step`` advances: the graph repeats everything else to the bit.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(stream):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph):
        step()
    return graph.replay
