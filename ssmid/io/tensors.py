"""safetensors files larger than the memory: headers alone, tensors mapped, and files written piece by piece.

The format (huggingface.co/docs/safetensors): 8 bytes with the length of the header, little endian; the header, JSON that names of each
tensor dtype, shape and place; the bytes of the tensors, C order, one after the other. Its library writes only what it is given whole.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ssmid.io.files import expect_content, parsing, write_whole

_DTYPES = {
    "BOOL": "?", "I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8",
    "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items() if name != "BF16"}


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor to be written: ``pieces`` gives arrays whose bytes, one after the other, are those of ``shape``, first axis first."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A tensor in a file: ``dtype`` as the format names it, ``shape``, ``start`` in bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int


def entries(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors of a file by name, and its metadata; ValueError for a file that is damaged or cut short."""
    from safetensors import safe_open

    expect_content(path, "safetensors")
    with parsing("safetensors"):
        with safe_open(path, framework="np"):  # checks the places of all tensors, and the length of the file
            pass
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            head: dict[str, Any] = json.loads(file.read(size))
    metadata = head.pop("__metadata__", {})
    return {name: Entry(e["dtype"], tuple(e["shape"]), 8 + size + e["data_offsets"][0]) for name, e in head.items()}, metadata


def mapped(path: Path, entry: Entry) -> np.ndarray:
    """The tensor, mapped into memory and read where it is touched; bfloat16 as the integers that its bits are (:func:`numbers`)."""
    if entry.dtype not in _DTYPES:
        raise ValueError(f"expected a dtype of {', '.join(_DTYPES)}, got {entry.dtype}")
    dtype = np.dtype(_DTYPES[entry.dtype])
    if not prod(entry.shape):
        return np.empty(entry.shape, dtype)
    return np.memmap(path, dtype, "r", entry.start, entry.shape)


def numbers(values: np.ndarray, entry: Entry) -> np.ndarray:
    """A part of a mapped tensor in memory, bfloat16 as float32: its bits are the upper half."""
    if entry.dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.array(values)


def write_tensors(path: Path, tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file whole or not at all, holding one piece of one tensor at a time. The same tensors give the same bytes."""
    head: dict[str, Any] = {"__metadata__": dict(metadata)}
    place = 0
    for tensor in tensors:
        size = prod(tensor.shape) * tensor.dtype.itemsize
        head[tensor.name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8 bytes, as the format asks

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for tensor in tensors:
                begin = file.tell()
                for piece in tensor.pieces():
                    file.write(np.ascontiguousarray(piece, tensor.dtype).data.cast("B") if piece.size else b"")
                expected = prod(tensor.shape) * tensor.dtype.itemsize
                if file.tell() - begin != expected:
                    raise ValueError(f"{tensor.name}: expected {expected} bytes for shape {tensor.shape}, got {file.tell() - begin}")

    write_whole(path, write)
