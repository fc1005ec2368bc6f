"""CUDA C++ compiled for the device that it runs on, by NVRTC, which comes with torch; without it the plain functions do the work.

Sources lie beside this file and include nothing, so that no CUDA toolkit is needed. A kernel is compiled on first use, in a second or
less, and kept for the life of the process; a graph capture must therefore be preceded by one call of the same shape.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from ssmid._array import Array, on_gpu

_STATIC_SHARED_MEMORY = 48 * 1024
"""What a block may have of shared memory without asking."""


class CannotCompile(RuntimeError):
    """There is no compiler, or it refused."""


def can_compile(array: Array) -> bool:
    """Whether kernels may be tried on ``array``: it is on an NVIDIA GPU, torch has its compiler, and no kernel has been refused."""
    if not on_gpu(array) or _refused:
        return False
    import torch

    return torch.version.hip is None and hasattr(torch.cuda, "_compile_kernel")


def launch(source: str | tuple[str, ...], kernel: str, blocks: int, threads: tuple[int, int], *arguments: Any, shared: int = 0) -> None:
    """Runs ``kernel`` of the file ``source``, or of several that are read as one, on the device and the current stream of its first
    argument, a tensor.

    kernel : its name, with the arguments of a template   blocks, threads : of the grid (one axis) and of a block (two axes)
    shared : bytes of dynamic shared memory   CannotCompile : nothing was launched; :func:`can_compile` is False from then on
    """
    import torch

    device = arguments[0].device
    with torch.cuda.device(device):
        function = _compiled(source, kernel, device.index, shared)
        function(grid=(blocks, 1, 1), block=(*threads, 1), args=list(arguments), shared_mem=shared)


@cache
def multiprocessors(device: Any) -> int:
    import torch

    return torch.cuda.get_device_properties(device).multi_processor_count


_refused: list[str] = []


@cache
def _compiled(source: str | tuple[str, ...], kernel: str, device: int, shared: int) -> Any:
    """The function, loaded on the current ``device``, allowed ``shared`` bytes."""
    import torch

    text = "\n".join(files("ssmid.kernels").joinpath(name).read_text() for name in ((source,) if isinstance(source, str) else source))
    try:
        with _headers():
            function = torch.cuda._compile_kernel(text, kernel)
        if shared >= _STATIC_SHARED_MEMORY:
            function.set_shared_memory_config(shared)
    except (RuntimeError, OSError, ImportError, AttributeError) as error:
        if not _refused:
            first = str(error).strip().splitlines()[:3]
            warnings.warn(f"{source}: {kernel} cannot be compiled, the plain functions run in its place: {' '.join(first)}", stacklevel=2)
        _refused.append(kernel)
        raise CannotCompile(kernel) from error
    return function


@contextmanager
def _headers() -> Iterator[None]:
    """torch asks where the toolkit's headers are even for a source without any, and stops where there is no toolkit."""
    from torch.utils import cpp_extension

    home = cpp_extension.CUDA_HOME
    if home is None:
        cpp_extension.CUDA_HOME = str(files("ssmid.kernels"))
    try:
        yield
    finally:
        cpp_extension.CUDA_HOME = home
