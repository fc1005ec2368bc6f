"""CUDA C++ compiled for the device that it runs on, by NVRTC, which comes with torch; without it the plain functions do the work.

Sources lie beside this file and include nothing, so that no CUDA toolkit is needed. A kernel is compiled on first use, in a second or
less, and kept for the life of the process; a graph capture must therefore be preceded by one call of the same shape.
"""

from __future__ import annotations

import ctypes
import struct
import sys
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
    """Runs ``kernel`` of the file ``source``, or of several read as one, on the device and current stream of its first argument, a tensor.

    kernel : its name, with the arguments of a template   blocks, threads : of the grid (one axis) and of a block (two axes)
    arguments : tensors, as pointers, and integers, as ints   shared : bytes of dynamic shared memory
    CannotCompile : nothing was launched; :func:`can_compile` is False from then on
    """
    import torch

    device = arguments[0].device.index
    with _context(device):
        function = _compiled(source, kernel, device, shared)
        # torch's own launcher takes several times as long as the kernels of a small layer
        kinds = "".join("P" if isinstance(a, torch.Tensor) else "i" for a in arguments)
        packed = struct.pack(kinds, *[a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments])
        size = ctypes.c_size_t(len(packed))
        extra = (ctypes.c_void_p * 5)(1, ctypes.cast(ctypes.c_char_p(packed), ctypes.c_void_p), 2, ctypes.addressof(size), 0)
        stream = ctypes.c_void_p(torch._C._cuda_getCurrentRawStream(device))
        _check(_driver().cuLaunchKernel(function, blocks, 1, 1, *threads, 1, shared, stream, None, extra))


@cache
def multiprocessors(device: Any) -> int:
    import torch

    return torch.cuda.get_device_properties(device).multi_processor_count


@cache
def shared_memory(device: Any) -> int:
    """Bytes that a block may have."""
    import torch

    return getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", _STATIC_SHARED_MEMORY)


@cache
def has_clusters(device: Any) -> bool:
    """Whether blocks of a cluster can write into each other's shared memory: Hopper and later."""
    import torch

    return torch.cuda.get_device_capability(device) >= (9, 0)


_refused: list[str] = []


@cache
def _compiled(source: str | tuple[str, ...], kernel: str, device: int, shared: int) -> Any:
    """The driver's handle of the function, loaded on ``device``, allowed ``shared`` bytes."""
    import torch

    text = "\n".join(files("ssmid.kernels").joinpath(name).read_text() for name in ((source,) if isinstance(source, str) else source))
    try:
        with _headers(), torch.cuda.device(device):
            function = torch.cuda._compile_kernel(text, kernel)
            if shared >= _STATIC_SHARED_MEMORY:
                function.set_shared_memory_config(shared)
            handle = function.func
    except (RuntimeError, OSError, ImportError, AttributeError) as error:
        if not _refused:
            first = str(error).strip().splitlines()[:3]
            warnings.warn(f"{source}: {kernel} cannot be compiled, the plain functions run in its place: {' '.join(first)}", stacklevel=2)
        _refused.append(kernel)
        raise CannotCompile(kernel) from error
    return handle


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


@contextmanager
def _context(device: int) -> Iterator[None]:
    """The context of ``device`` current in this thread: autograd runs backward passes in threads that may not have one yet."""
    current = ctypes.c_int(-1)
    if _driver().cuCtxGetDevice(ctypes.byref(current)) == 0 and current.value == device:
        yield
        return
    _check(_driver().cuCtxPushCurrent_v2(_primary(device)))
    try:
        yield
    finally:
        _check(_driver().cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())))


@cache
def _primary(device: int) -> ctypes.c_void_p:
    """The context that torch uses; held for the life of the process."""
    ordinal, context = ctypes.c_int(), ctypes.c_void_p()
    _check(_driver().cuDeviceGet(ctypes.byref(ordinal), device))
    _check(_driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), ordinal))
    return context


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _check(status: int) -> None:
    if status:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(status, ctypes.byref(text))
        raise RuntimeError(f"CUDA: {(text.value or b'unknown error').decode()} ({status})")
