"""Systems on disk: safetensors for programs, JSON for people. Both give back every bit, and are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.io.files import about, expect_content, parsing, refuse_pickle, write_bytes
from ssmid.systems import (
    FrequencyResponse,
    ImpulseResponse,
    Modal,
    SecondOrderSections,
    StateSpace,
    System,
    TransferFunction,
    ZerosPolesGain,
)
from ssmid.systems.base import not_a_system

VERSION = 1
_CLASSES: dict[str, type[System]] = {
    cls.__name__: cls
    for cls in (StateSpace, Modal, TransferFunction, ZerosPolesGain, SecondOrderSections, ImpulseResponse, FrequencyResponse)
}
_DTYPES = ("float32", "float64", "complex64", "complex128")


def save(system: System, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Writes ``system`` to ``path``: ``.safetensors``, or ``.json`` to be read by people too.

    :func:`ssmid.load` gives it back bit for bit: arrays with their shapes and dtypes, ``dt``, ``real``. Tensors are moved to the host.
    ``metadata``: whatever JSON can hold; :func:`metadata` reads it. The file appears whole or not at all.
    Raises ValueError for other suffixes and folders that cannot be written, TypeError for what is not a system.

    >>> import os, tempfile, ssmid
    >>> path = os.path.join(tempfile.mkdtemp(), "model.json")
    >>> save(ssmid.ss(0.5, 1, 2, 0, dt=0.1), path, {"made by": "hand"})
    >>> ssmid.load(path), metadata(path)
    (StateSpace(order=1, outputs=1, inputs=1, batch=(), dt=0.1, float64), {'made by': 'hand'})
    """
    if not isinstance(system, tuple(_CLASSES.values())):
        raise not_a_system(system, ", ".join(_CLASSES), "save")
    write = {".safetensors": _to_safetensors, ".json": _to_json}.get(Path(path).suffix.lower())
    with about(path):
        if write is None:
            raise ValueError(f"expected the suffix .safetensors or .json for a model, got {Path(path).suffix!r}")
        arrays = {name: np.ascontiguousarray(to_numpy(a)).reshape(a.shape) for name, a in system.arrays.items()}
        head = {"format": "ssmid", "version": VERSION, "class": type(system).__name__, "dt": system.dt}
        if isinstance(system, Modal):
            head["real"] = system.real
        write_bytes(path, write(head, arrays, dict(metadata or {})))


def load_system(path: str | os.PathLike[str]) -> System:
    """The system that :func:`save` wrote to ``path``, with NumPy arrays.

    Raises ValueError for files that are damaged, of another kind, or of a newer version of the format.
    """
    with about(path):
        head, arrays, _ = _parsed(Path(path))
        cls = _CLASSES.get(str(head.get("class")))
        if head.get("class") == "DistilledModel":
            raise ValueError("expected a single system, got the arrays of a distilled model: load its folder")
        if cls is None:
            raise ValueError(f"class: expected one of {', '.join(_CLASSES)}, got {head.get('class')!r}")
        options = {"real": bool(head.get("real", True))} if cls is Modal else {}
        with parsing(f"{cls.__name__} model"):
            return cls(**arrays, dt=head.get("dt", -1), **options)  # pyright: ignore[reportCallIssue]


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What was given to :func:`save` as ``metadata``."""
    with about(path):
        return _parsed(Path(path))[2]


def is_model(path: Path) -> bool:
    """Whether ``path`` is a model file of ours, rather than tensors of somebody else."""
    if path.suffix.lower() == ".json":
        return True
    if path.suffix.lower() != ".safetensors":
        return False
    expect_content(path, "safetensors")
    return "ssmid" in _safetensors_metadata(path)


def _parsed(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    """Head, arrays and metadata of a model file."""
    refuse_pickle(path.suffix.lower())
    read = {".safetensors": _from_safetensors, ".json": _from_json}.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"expected the suffix .safetensors or .json for a model, got {path.suffix!r}: ssmid.read takes measurements")
    expect_content(path, path.suffix[1:])
    head, arrays, extra = read(path)
    if head.get("format") != "ssmid":
        raise ValueError("expected a model written by ssmid.save, got another file: ssmid.read takes plain tensors")
    if head.get("version") != VERSION:
        raise ValueError(f"expected format version {VERSION}, got {head.get('version')}: a newer ssmid wrote it")
    return head, arrays, extra


# ---------------------------------------------------------------- safetensors
# The format has no complex128, so complex arrays are stored as pairs of real numbers on a last axis of two and named in the head.


def _to_safetensors(head: dict[str, Any], arrays: dict[str, np.ndarray], extra: dict[str, Any]) -> bytes:
    import safetensors.numpy

    head = {**head, "complex": [name for name, a in arrays.items() if a.dtype.kind == "c"]}
    pairs = {name: _real_pairs(a) for name, a in arrays.items()}
    return safetensors.numpy.save(pairs, {"ssmid": json.dumps(head), "metadata": json.dumps(extra)})


def _from_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    import safetensors.numpy

    with parsing("safetensors"):
        texts = _safetensors_metadata(path)
        head, extra = json.loads(texts.get("ssmid", "{}")), json.loads(texts.get("metadata", "{}"))
        pairs = safetensors.numpy.load_file(path)
        arrays = {name: _from_pairs(a) if name in head.get("complex", ()) else a for name, a in pairs.items()}
    return head, arrays, extra


def _safetensors_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with parsing("safetensors"), safe_open(path, framework="np") as file:
        return file.metadata() or {}


def _real_pairs(array: np.ndarray) -> np.ndarray:
    """A complex array as real numbers ``(*shape, 2)``; a real one as it is."""
    if array.dtype.kind != "c":
        return array
    return array.reshape(-1).view(f"f{array.itemsize // 2}").reshape(*array.shape, 2)


def _from_pairs(pairs: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pairs).reshape(-1).view({4: np.complex64, 8: np.complex128}[pairs.dtype.itemsize]).reshape(pairs.shape[:-1])


# ---------------------------------------------------------------- JSON
# Floats are written as the shortest decimals that give back the same double; float32 goes through double, which holds it exactly.


def _to_json(head: dict[str, Any], arrays: dict[str, np.ndarray], extra: dict[str, Any]) -> bytes:
    lines = ["{", *(f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items())]
    lines += [f'  "metadata": {json.dumps(extra)},', '  "arrays": {']
    entries = []
    for name, array in arrays.items():
        data = _real_pairs(array).astype(np.float64)
        rows = _rows(_finite_or_text(data), max(data.ndim - (2 if array.dtype.kind == "c" else 1), 0), "      ")
        kind = f'"dtype": "{array.dtype.name}", "shape": {json.dumps(array.shape)}'
        entries.append(f'    {json.dumps(name)}: {{\n      {kind},\n      "data": {rows}\n    }}')
    return "\n".join([*lines, ",\n".join(entries), "  }", "}", ""]).encode()


def _from_json(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    with parsing("JSON"):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("arrays"), dict):
        raise ValueError("expected a model written by ssmid.save, got other JSON")
    arrays = {}
    for name, entry in content["arrays"].items():
        with parsing("a JSON array with dtype, shape and data, as"):
            dtype, shape = entry["dtype"], tuple(entry["shape"])
            if dtype not in _DTYPES:
                raise ValueError(f"{name}: expected a dtype of {_DTYPES}, got {dtype!r}")
            values = np.array(entry["data"], dtype=np.float64)
            if dtype.startswith("complex"):
                values = values.reshape(*shape, 2)
                arrays[name] = _from_pairs(values).astype(dtype)
            else:
                arrays[name] = values.reshape(shape).astype(dtype)
    return content, arrays, content.get("metadata", {})


def _rows(data: Any, depth: int, indent: str) -> str:
    """Nested lists with the innermost rows on one line each."""
    if depth == 0 or not data:
        return json.dumps(data)
    rows = (",\n" + indent + " ").join(_rows(row, depth - 1, indent + " ") for row in data)
    return f"[{rows}]"


def _finite_or_text(data: np.ndarray) -> Any:
    """Nested lists of floats; NaN and infinities, which JSON lacks, as the texts that float() reads."""
    if np.isfinite(data).all():
        return data.tolist()
    return np.where(np.isfinite(data), data.astype(object), data.astype(str).astype(object)).tolist()
