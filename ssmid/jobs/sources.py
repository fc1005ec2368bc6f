"""What is distilled: layers of filters, read some at a time from files of any size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ssmid._array import namespace, to_numpy
from ssmid.analysis.characteristics import spectral_radius
from ssmid.checkpoints.reading import PLAIN, expect_no_settings, read_checkpoint
from ssmid.checkpoints.tensors import sha256_of
from ssmid.distillation.model_norms import natural_length
from ssmid.io.files import about, expect_content, parsing
from ssmid.io.tensors import entries, mapped, numbers
from ssmid.systems import ImpulseResponse, System


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Filters, or small systems, of one shape.

    shape : ``(*batch, length)`` of taps; length is 0 for models   take : ``(first, count)`` -> those of the flat batch, as a system of
    NumPy arrays   natural_length : of models, the taps until the slowest mode of the layer has fallen to a thousandth
    """

    name: str
    shape: tuple[int, ...]
    take: Callable[[int, int], System]
    natural_length: Callable[[], int] = lambda: 0

    @property
    def batch(self) -> tuple[int, ...]:
        return self.shape[:-1]

    @property
    def count(self) -> int:
        return prod(self.batch)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """title : the name of the file or folder   files : all that it is made of   layers : at least one, of different names
    skipped : what damaged layers lack, which are none of these"""

    title: str
    files: tuple[Path, ...]
    layers: tuple[Layer, ...]
    skipped: tuple[str, ...] = ()

    def stamps(self) -> list[dict[str, str | int]]:
        """Names, sizes and times: as long as these are the same, so is the content."""
        found = [(path, path.stat()) for path in self.files]
        return [{"name": path.name, "size": s.st_size, "modified": s.st_mtime_ns} for path, s in found]

    def sha256(self) -> str:
        """Of one file what ``sha256sum FILE`` says; of several, the sum of the lines that it says of them."""
        return sha256_of(self.files)


def open_source(
    path: Path,
    *,
    key: str | None = None,
    layout: str | None = None,
    length: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Source:
    """The layers of a file of filters, or of a checkpoint.

    key, layout, length, settings : those of :func:`ssmid.read_checkpoint`

    Of plain arrays in npy and safetensors files what is asked for is read; of all else one layer is held at a time. Raises ValueError
    that names the file for what holds no real filters.
    """
    if path.suffix.lower() == ".npy" and layout in (None, PLAIN):
        with about(path):
            expect_no_settings(settings)
            return Source(path.name, (path,), (_of_npy(path, key, length),))
    checkpoint = read_checkpoint(path, key=key, layout=layout, length=length, settings=settings)
    # chunks come in the order of the layers; a config.json beside a checkpoint has a say in what its layers are
    load = lru_cache(maxsize=1)(lambda place: checkpoint.layers[place].load().map(to_numpy))

    def layer_at(place: int) -> Layer:
        layer = checkpoint.layers[place]
        if layer.layout == PLAIN and path.suffix.lower() == ".safetensors":
            with about(path):
                entry = entries(path)[0][layer.tensors[0]]
            rows = _rows_at(path, mapped(path, entry).dtype, entry.start, entry.shape[-1])
            return _of_rows(layer.name, layer.shape, lambda first, count: numbers(rows(first, count), entry))
        length = cache(lambda: _length_of(load(place)))
        return Layer(layer.name, layer.shape, lambda first, count: elements(load(place), first, count), length)

    beside = (path if path.is_dir() else path.parent) / "config.json"
    files = (*checkpoint.files, *([beside] if beside.exists() and checkpoint.layouts != (PLAIN,) else []))
    layers = tuple(layer_at(place) for place in range(len(checkpoint.layers)))
    return Source(path.name, tuple(dict.fromkeys(files)), layers, checkpoint.skipped)


def _length_of(system: System) -> int:
    radius = to_numpy(spectral_radius(system))
    return natural_length(float(radius[radius < 1].max(initial=0.0)))


Rows: TypeAlias = "Callable[[int, int], np.ndarray]"


def _of_npy(path: Path, key: str | None, length: int | None) -> Layer:
    if key is not None:
        raise ValueError(f"key: expected none for a file of one array, got {key!r}")
    if length is not None and length < 1:
        raise ValueError(f"length: expected at least 1, got {length}")
    expect_content(path, "NPY", signed=True)
    with parsing("NPY"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "biuf" or array.ndim == 0 or array.size == 0:
        raise ValueError(f"expected real filters of shape (*batch, length), at least one, got {array.dtype} of shape {array.shape}")
    kept = array.shape[-1] if length is None else min(length, array.shape[-1])
    if array.flags.c_contiguous:
        rows = _rows_at(path, array.dtype, array.offset, array.shape[-1])
    else:  # rows that lie apart are gathered from the mapped file
        batch = array.shape[:-1]
        rows = lambda first, count: np.array(array[np.unravel_index(np.arange(first, first + count), batch)])  # noqa: E731
    return _of_rows("filters", (*array.shape[:-1], kept), rows)


def _rows_at(path: Path, dtype: np.dtype, start: int, length: int) -> Rows:
    """Rows that follow each other in a file from a place in bytes on. Read, not mapped: where a mapped file is cut short meanwhile, the
    process is killed without a word."""

    def rows(first: int, count: int) -> np.ndarray:
        found = np.fromfile(path, dtype, count * length, offset=start + first * length * dtype.itemsize)
        if found.size != count * length:
            raise ValueError(f"{path}: expected the source to stay as it was, got one that became shorter during the work")
        return found.reshape(count, length)

    return rows


def _of_rows(name: str, shape: tuple[int, ...], rows: Rows) -> Layer:
    return Layer(name, shape, lambda first, count: ImpulseResponse(rows(first, count)[:, : shape[-1]]))


def elements(system: System, first: int, count: int) -> System:
    """Some elements of the flat batch."""

    def some(name: str, array: np.ndarray) -> np.ndarray:
        core = array.shape[array.ndim - system.core_ndim[name] :]
        return namespace(array).reshape(array, (prod(system.batch_shape), *core))[first : first + count, ...]

    return dataclasses.replace(system, **{name: some(name, a) for name, a in system.broadcast_arrays().items()})
