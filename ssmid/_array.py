"""The one file that knows NumPy from torch.

Everything above is written once over the Python array API standard. Here stand the namespace look-up, the validation of
what users pass in, and what the standard lacks: moving to the host and back, and precision by name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from math import prod
from threading import local
from typing import Any, TypeAlias, TypeVar

import array_api_compat
import array_api_compat.numpy
import numpy as np
import scipy.fft
import scipy.linalg  # BLAS must be loaded before it is limited
from threadpoolctl import ThreadpoolController

Array: TypeAlias = Any
"""A NumPy array, a torch tensor, or any other array of the Python array API standard."""

Function = TypeVar("Function", bound=Callable[..., Any])

_WIDTHS = {"float32": 32, "complex64": 32, "float64": 64, "complex128": 64}


def namespace(*arrays: Array) -> Any:
    """The array API namespace of ``arrays`` (plain Python numbers and None are passed over)."""
    for a in arrays:  # small problems notice what a generator costs
        if type(a) is not np.ndarray:
            break
    else:
        return array_api_compat.numpy
    numbers = (int, float, complex)  # NumPy's scalars are among them, and are arrays of their namespace
    known = (a for a in arrays if a is not None and (isinstance(a, np.generic) or not isinstance(a, numbers)))
    return array_api_compat.array_namespace(*known)


def is_array(value: object) -> bool:
    return array_api_compat.is_array_api_obj(value)


def device(array: Array) -> Any:
    return array_api_compat.device(array)


def on_gpu(array: Array) -> bool:
    return type(array) is not np.ndarray and array_api_compat.is_torch_array(array) and array.is_cuda


def needs_gradient(*arrays: Array) -> bool:
    """Whether a gradient is being recorded through any of ``arrays``: then nothing may go through the host."""
    return any(array_api_compat.is_torch_array(a) and a.requires_grad for a in arrays)


def detach(array: Array) -> Array:
    """``array`` outside of any gradient: for what is not differentiable."""
    return array.detach() if array_api_compat.is_torch_array(array) else array


def count(array: Array) -> int:
    """The number of elements."""
    return prod(array.shape)


def fft_of(*arrays: Array) -> Any:
    """The FFT module for ``arrays``: SciPy's for NumPy (it keeps float32 and uses all cores), the namespace's own otherwise.

    Torch's own fails for empty batches.
    """
    if array_api_compat.is_numpy_array(arrays[0]):
        return _ThreadedFFT
    return namespace(arrays[0]).fft if all(map(count, arrays)) else _EmptyFFT


def next_fast_length(n: int) -> int:
    """The smallest length >= ``n`` that has only small prime factors, for real transforms."""
    return int(scipy.fft.next_fast_len(n, real=True) or n)


class _ThreadedFFT:
    """numpy.fft's signatures over scipy.fft with every core the process may use."""

    @staticmethod
    def _with_workers(name: str) -> Callable[..., np.ndarray]:
        transform = getattr(scipy.fft, name)
        return lambda x, n=None, axis=-1: transform(x, n=n, axis=axis, workers=cores())

    rfft = staticmethod(_with_workers("rfft"))
    irfft = staticmethod(_with_workers("irfft"))
    fft = staticmethod(_with_workers("fft"))
    ifft = staticmethod(_with_workers("ifft"))


class _EmptyFFT:
    """numpy.fft's signatures over the last axis for arrays some of which are empty batches, of which only shape and dtype are known."""

    @staticmethod
    def _of(name: str) -> Callable[..., Array]:
        def transform(x: Array, n: int, axis: int = -1) -> Array:
            xp = namespace(x)
            if count(x):
                return getattr(xp.fft, name)(x, n=n, axis=axis)
            sample = xp.zeros(1, dtype=x.dtype, device=device(x))
            dtype = real_dtype(x) if name == "irfft" else as_complex(sample).dtype
            return xp.zeros((*x.shape[:-1], n // 2 + 1 if name == "rfft" else n), dtype=dtype, device=device(x))

        return transform

    rfft = staticmethod(_of("rfft"))
    irfft = staticmethod(_of("irfft"))
    fft = staticmethod(_of("fft"))
    ifft = staticmethod(_of("ifft"))


@cache
def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------- what users pass in


def as_array(value: Any, name: str, like: Array = None) -> Array:
    """``value`` as a float or complex array of 32 or 64 bits; lists take the kind and device of ``like``.

    Booleans and integers become float64, half precision becomes float32, long double becomes float64.
    Raises ValueError for anything that is not a rectangular array of numbers.
    """
    if not is_array(value) or isinstance(value, np.generic):
        given = type(value).__name__
        try:
            value = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name}: expected a rectangular array of numbers, got {given}: {error}") from None
        if value.dtype.kind not in "biufc":
            got = given if value.dtype == object and not value.ndim else f"dtype {value.dtype}"
            raise ValueError(f"{name}: expected an array of numbers, got {got}")
        if like is not None:
            value = from_numpy(_standard_dtype(value, name), like)
    return _standard_dtype(value, name)


def harmonize(**values: Any) -> list[Array]:
    """Arrays of one namespace, device and precision from ``values`` (name=value; None stays None).

    Real stays real and complex stays complex; the widest precision wins.
    Raises ValueError where NumPy and torch, or two devices, are mixed.
    """
    arrays = {name: value for name, value in values.items() if is_array(value) and not isinstance(value, np.generic)}
    kinds = {name: f"{_library(a)} on {device(a)}" for name, a in arrays.items()}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"expected arrays of one kind on one device, got {kinds}")
    like = next(iter(arrays.values()), None)
    out = {name: None if value is None else as_array(value, name, like) for name, value in values.items()}
    widest = max([width(a) for a in out.values() if a is not None] or [64])
    return [None if a is None else astype_width(a, widest) for a in out.values()]


def _library(array: Array) -> str:
    """The name of the array's library. What torch is, is said first: its compiler cannot trace the name of a module."""
    return "torch" if array_api_compat.is_torch_array(array) else type(array).__module__.split(".")[0]


def check_finite(array: Array, name: str, core_ndim: int) -> None:
    """Raises ValueError naming the first NaN or infinity of a single system; a batch reports for each element instead.

    A batch is left to the verbs, which mark the elements that fail, so that one bad filter never stops ten thousand. So is
    what lies on a GPU: to look at it here would wait for the device.
    """
    if array.ndim != core_ndim or on_gpu(array):
        return
    bad = ~np.isfinite(to_numpy(array))
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        value = to_numpy(array)[index]
        raise ValueError(f"{name}: expected finite numbers, got {value if value.imag else value.real} at index {index}")


def finite_elements(array: Array, core_ndim: int) -> Array:
    """Boolean array over the batch: True where all entries of the last ``core_ndim`` axes are finite."""
    xp = namespace(array)
    return xp.all(xp.isfinite(array), axis=tuple(range(array.ndim - core_ndim, array.ndim)))


def broadcast_batch(**shapes: Sequence[int]) -> tuple[int, ...]:
    """The common batch shape of ``shapes`` (name=shape), or a ValueError that quotes them."""
    try:
        return np.broadcast_shapes(*(tuple(s) for s in shapes.values()))
    except ValueError:
        raise ValueError(f"expected batch shapes that broadcast, got { {k: tuple(v) for k, v in shapes.items()} }") from None


def quiet(function: Function) -> Function:
    """``function`` without NumPy's warnings of NaN and infinities.

    They are results here: of the element of a batch that holds one, of a point on a pole. A decorator of helpers; of a function
    with a doctest it would hide that, which calls ``quiet(helper)(...)`` instead. Where torch compiles, there is nothing to silence.
    """

    @wraps(function)
    def silent(*args: Any, **kwargs: Any) -> Any:
        if compiling():
            return function(*args, **kwargs)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return function(*args, **kwargs)

    return silent  # pyright: ignore[reportReturnType]


def compiling() -> bool:
    """Whether ``torch.compile`` is tracing what runs: it cannot look into NumPy's own functions."""
    return "torch" in sys.modules and sys.modules["torch"].compiler.is_compiling()


# ---------------------------------------------------------------- precision


def width(array: Array) -> int:
    """32 or 64: bits of the real numbers that ``array`` is made of."""
    return _WIDTHS[dtype_name(array)]


def dtype_name(array: Array) -> str:
    """The dtype's plain name ("float32"), without the namespace."""
    return _numpy_name(array.dtype) if type(array) is np.ndarray else _name_of(array.dtype)


def _name_of(dtype: Any) -> str:
    return str(dtype).rsplit(".", 1)[-1].strip("')>")


_numpy_name = cache(_name_of)
"""NumPy takes 10 us to write the name of a dtype, which small problems notice."""


def is_complex(array: Array) -> bool:
    return dtype_name(array).startswith("complex")


def astype_width(array: Array, bits: int) -> Array:
    """``array`` with 32- or 64-bit real numbers, real or complex as before."""
    name = {(False, 32): "float32", (False, 64): "float64", (True, 32): "complex64", (True, 64): "complex128"}[is_complex(array), bits]
    if dtype_name(array) == name:
        return array
    xp = namespace(array)
    return xp.astype(array, getattr(xp, name))


def double(array: Array) -> Array:
    """``array`` in float64 or complex128, the precision of the numerics."""
    return astype_width(array, 64)


def as_complex(array: Array) -> Array:
    """``array`` as complex numbers of the same width."""
    if is_complex(array):
        return array
    xp = namespace(array)
    return xp.astype(array, xp.complex64 if width(array) == 32 else xp.complex128)


def same_field(*arrays: Array) -> list[Array]:
    """``arrays``, all complex where one of them is: matrix products do not promote in every namespace."""
    return [as_complex(a) for a in arrays] if any(is_complex(a) for a in arrays) else list(arrays)


def real_dtype(array: Array) -> Any:
    """The real dtype of the width of ``array``, in its namespace."""
    xp = namespace(array)
    return xp.float32 if width(array) == 32 else xp.float64


# ---------------------------------------------------------------- to the host and back


def to_numpy(array: Array) -> np.ndarray:
    """A NumPy array on the host, detached from any graph."""
    if array_api_compat.is_torch_array(array):
        return array.detach().cpu().resolve_conj().numpy()
    return np.asarray(array)


def from_numpy(array: np.ndarray, like: Array) -> Array:
    """``array`` as the kind and on the device of ``like``; its own dtype is kept."""
    if array_api_compat.is_numpy_array(like):
        return array
    array = np.asarray(array, order="C")
    # torch takes neither a broadcast view, nor the negative stride of an axis of length 1, which NumPy calls contiguous
    if min(array.strides, default=0) < 0 or not array.flags.writeable:
        array = array.copy()
    return namespace(like).asarray(array, device=device(like))


def replaced(values: Array, places: np.ndarray, new: Array) -> Array:
    """``values`` ``(n, ...)`` with ``new`` at some places of the first axis."""
    xp, order = namespace(values), np.arange(values.shape[0])
    order[places] = values.shape[0] + np.arange(len(places))
    return xp.take(xp.concat([values, new], axis=0), from_numpy(order, values), axis=0)


def on_host(function: Callable[..., Any], *arrays: Array) -> Any:
    """``function`` called with NumPy copies of ``arrays``; its array results return to the kind, device and width of the first.

    For dense factorizations that the standard lacks (Schur, generalized eigenvalues). Not differentiable.
    """
    like = arrays[0]

    def back(result: Any) -> Any:
        if isinstance(result, tuple):
            return tuple(back(r) for r in result)
        result = np.asarray(result)
        moved = from_numpy(result, like)
        return astype_width(moved, width(like)) if result.dtype.kind in "fc" else moved

    return back(function(*(to_numpy(a) for a in arrays)))


def batched_on_host(function: Callable[..., Any], *arrays: Array, core_ndim: int = 2) -> Any:
    """As :func:`on_host`, ``function`` called once per batch element (leading axes of all ``arrays``, broadcast), in threads."""

    def loop(*hosts: np.ndarray) -> Any:
        shape = np.broadcast_shapes(*(h.shape[: h.ndim - core_ndim] for h in hosts))
        cores_of = [h.shape[h.ndim - core_ndim :] for h in hosts]
        flat = [np.broadcast_to(h, shape + core).reshape(prod(shape), *core) for h, core in zip(hosts, cores_of, strict=True)]
        if not shape:
            return function(*(f[0] for f in flat))
        # of an empty batch the result of a made-up element tells what the others would be like
        made_up = [np.sqrt(1.0 + np.arange(prod(core))).reshape(1, *core).astype(h.dtype) for h, core in zip(hosts, cores_of, strict=True)]
        results = in_threads(function, *(flat if prod(shape) else made_up))

        def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
            return np.stack(parts)[: prod(shape)].reshape(*shape, *np.shape(parts[0]))

        return tuple(map(stacked, zip(*results, strict=True))) if isinstance(results[0], tuple) else stacked(results)

    return on_host(loop, *arrays)


def in_threads(function: Callable[..., Any], *items: Any) -> list[Any]:
    """``function`` mapped over ``items`` by as many threads as there are cores: LAPACK releases the interpreter lock.

    BLAS gets one thread meanwhile: its own threads on top of ours made 1536 SVDs on 16 cores five times slower.
    """
    count, pieces = len(items[0]), 4 * cores()
    if count < 2 or cores() < 2 or getattr(_thread, "ours", False):
        return list(map(function, *items))

    def share(start: int) -> list[Any]:
        return [function(*(x[i] for x in items)) for i in range(start * count // pieces, (start + 1) * count // pieces)]

    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(cores(), initializer=_mark_thread) as pool:
        return [result for part in pool.map(share, range(pieces)) for result in part]


def in_pieces(function: Callable[..., Any], pieces: int, *arrays: Array) -> tuple[Array, ...]:
    """The arrays that a batched ``function`` gives for ``arrays``, all ``(*batch, ., .)``: of NumPy arrays, ``pieces`` of the batch
    are taken in threads, for which what is between the calls of LAPACK stays in the cache."""
    if pieces < 2 or not isinstance(arrays[0], np.ndarray) or getattr(_thread, "ours", False):
        results = function(*arrays)
        return results if isinstance(results, tuple) else (results,)
    batch = arrays[0].shape[:-2]
    split = [np.array_split(a.reshape(prod(batch), *a.shape[-2:]), pieces) for a in arrays]
    parts = [tuple(p) if isinstance(p, tuple) else (p,) for p in in_threads(function, *split)]
    return tuple(np.concatenate(p).reshape(*batch, *p[0].shape[1:]) for p in zip(*parts, strict=True))


_thread = local()
"""``ours`` in the threads of :func:`in_threads`, which start no others."""


def _mark_thread() -> None:
    _thread.ours = True


def one_blas_thread(function: Function) -> Function:
    """``function`` with BLAS held to one thread: for many small products, or for products between FFTs.

    On two cores a second BLAS thread halves the time of a product of 1000 x 1000 and doubles that of the small ones that
    factorizations of n = 100 to 500 are made of; while it waits it spins, and takes its core from the threads of an FFT. 64 Hankel
    values of 65,536 samples of noise took 8 s of CPU with one thread and 82 s with two.
    """

    @wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        with _blas().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited  # pyright: ignore[reportReturnType]


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _standard_dtype(array: Array, name: str) -> Array:
    if array_api_compat.is_numpy_array(array) and not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    xp = namespace(array)
    kind = dtype_name(array)
    if kind in _WIDTHS:
        return array
    if kind in ("float16", "bfloat16"):
        return xp.astype(array, xp.float32)
    if kind == "bool" or kind.startswith(("int", "uint")) or kind == "longdouble" or kind == "float128":
        return xp.astype(array, xp.float64)
    if kind in ("clongdouble", "complex256"):
        return xp.astype(array, xp.complex128)
    raise ValueError(f"{name}: expected real or complex numbers, got dtype {array.dtype}")
