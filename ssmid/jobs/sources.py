"""What is distilled: layers of filters, read some at a time from files of any size."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np

from ssmid._array import namespace, to_numpy
from ssmid.io import read
from ssmid.io.files import about, expect_content, parsing
from ssmid.io.models import is_model
from ssmid.io.tensors import Entry, entries, mapped, numbers
from ssmid.systems import FrequencyResponse, ImpulseResponse, System

_BLOCK = 2**22


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Filters, or small systems, of one shape.

    shape : ``(*batch, length)`` of taps   take : ``(first, count)`` -> those of the flat batch, as a system of NumPy arrays
    """

    name: str
    shape: tuple[int, ...]
    take: Callable[[int, int], System]

    @property
    def batch(self) -> tuple[int, ...]:
        return self.shape[:-1]

    @property
    def count(self) -> int:
        return prod(self.batch)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """title : the name of the file or folder   files : all that it is made of   layers : at least one, of different names"""

    title: str
    files: tuple[Path, ...]
    layers: tuple[Layer, ...]

    def stamps(self) -> list[dict[str, str | int]]:
        """Names, sizes and times: as long as these are the same, so is the content."""
        found = [(path, path.stat()) for path in self.files]
        return [{"name": path.name, "size": s.st_size, "modified": s.st_mtime_ns} for path, s in found]

    def sha256(self) -> str:
        """Of one file what ``sha256sum FILE`` says; of several, the sum of the lines that it says of them."""
        sums = []
        for path in self.files:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
            sums.append((digest.hexdigest(), path.name))
        lines = "".join(f"{digest}  {name}\n" for digest, name in sums)
        return sums[0][0] if len(sums) == 1 else hashlib.sha256(lines.encode()).hexdigest()


def open_source(path: Path, *, key: str | None = None, layout: str | None = None, length: int | None = None) -> Source:
    """The layers of a file of filters, or of a checkpoint.

    Arrays of npy and safetensors files (``key`` names them, with commas between several) are mapped, not read. ``layout``, ``length``:
    those of :func:`ssmid.read_checkpoint`, which takes all that is no plain array; ``length`` also cuts plain filters short.
    Raises ValueError that names the file for what holds no real filters.
    """
    if length is not None and length < 1:
        raise ValueError(f"length: expected at least 1, got {length}")
    suffix = path.suffix.lower()
    if layout is None and (suffix == ".npy" or (suffix in (".npz", ".safetensors") and key is not None)):
        with about(path):
            arrays = _arrays(path, suffix, key)
            layers = tuple(_array_layer(name, shape, rows, length) for name, (shape, rows) in arrays.items())
        return Source(path.name, (path,), layers)
    if layout is None and path.is_file() and (suffix in _MEASURED or (suffix == ".safetensors" and is_model(path))):
        return Source(path.name, (path,), (_system_layer("filters", read(path, key=key), length),))
    return _checkpoint(path, key, layout, length)


_MEASURED = (".wav", ".csv", ".txt", ".mat", ".json")
Rows = Callable[[int, int], np.ndarray]


def _checkpoint(path: Path, key: str | None, layout: str | None, length: int | None) -> Source:
    from ssmid.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(path, key=key, layout=layout, length=length)
    # one layer is held at a time: chunks come in their order
    load = lru_cache(maxsize=1)(lambda place: checkpoint.layers[place].load().map(to_numpy))
    layers = [
        Layer(layer.name, tuple(layer.shape), lambda first, count, place=place: elements(load(place), first, count))
        for place, layer in enumerate(checkpoint.layers)
    ]
    return Source(path.name, tuple(checkpoint.files), tuple(layers))


def _arrays(path: Path, suffix: str, key: str | None) -> dict[str, tuple[tuple[int, ...], Rows]]:
    """Shapes and rows by name."""
    if suffix == ".npy":
        if key is not None:
            raise ValueError(f"key: expected none for a file of one array, got {key!r}")
        expect_content(path, "NPY", signed=True)
        with parsing("NPY"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        return {"filters": _checked(array, _rows_of(array))}
    wanted = [name.strip() for name in (key or "").split(",")]
    if suffix == ".npz":
        expect_content(path, "NPZ", signed=True)
        with parsing("NPZ"), np.load(path, allow_pickle=False) as archive:
            _expect_names(wanted, archive.files)
            held = {name: archive[name] for name in wanted}
        return {name: _checked(array, _rows_of(array)) for name, array in held.items()}
    found, _ = entries(path)
    _expect_names(wanted, list(found))
    return {name: _mapped_rows(path, found[name]) for name in wanted}


def _expect_names(wanted: list[str], names: list[str]) -> None:
    for name in wanted:
        if name not in names:
            raise ValueError(f"key: expected names out of {sorted(names)}, got {name!r}")


def _mapped_rows(path: Path, entry: Entry) -> tuple[tuple[int, ...], Rows]:
    array = mapped(path, entry)
    rows = _rows_of(array)
    return _checked(array, lambda first, count: numbers(rows(first, count), entry))


def _checked(array: np.ndarray, rows: Rows) -> tuple[tuple[int, ...], Rows]:
    if array.dtype.kind not in "biuf" or array.ndim == 0 or array.size == 0:
        raise ValueError(f"expected real filters of shape (*batch, length), at least one, got {array.dtype} of shape {array.shape}")
    return array.shape, rows


def _rows_of(array: np.ndarray) -> Rows:
    """Rows of the flat batch, of a mapped array without reading the others."""
    batch = array.shape[:-1]
    if array.flags.c_contiguous:
        flat = array.reshape(prod(batch), array.shape[-1])
        return lambda first, count: np.array(flat[first : first + count])
    return lambda first, count: np.array(array[np.unravel_index(np.arange(first, first + count), batch)])


def _array_layer(name: str, shape: tuple[int, ...], rows: Rows, length: int | None) -> Layer:
    kept = shape[-1] if length is None else min(length, shape[-1])
    return Layer(name, (*shape[:-1], kept), lambda first, count: ImpulseResponse(rows(first, count)[:, :kept]))


def _system_layer(name: str, system: System, length: int | None) -> Layer:
    if isinstance(system, FrequencyResponse) or (isinstance(system, ImpulseResponse) and system.is_complex):
        raise ValueError(f"expected real filters or a model, got {system!r}")
    if isinstance(system, ImpulseResponse) and length is not None:
        system = ImpulseResponse(system.taps[..., :length], system.dt)
    kept = system.length if isinstance(system, ImpulseResponse) else (length or 0)
    return Layer(name, (*system.batch_shape, kept), lambda first, count: elements(system, first, count))


def elements(system: System, first: int, count: int) -> System:
    """Some elements of the flat batch."""

    def some(name: str, array: np.ndarray) -> np.ndarray:
        core = array.shape[array.ndim - system.core_ndim[name] :]
        return namespace(array).reshape(array, (prod(system.batch_shape), *core))[first : first + count, ...]

    return dataclasses.replace(system, **{name: some(name, a) for name, a in system.broadcast_arrays().items()})
