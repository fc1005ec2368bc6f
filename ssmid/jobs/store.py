"""Results on the way: one file a chunk, and all of them joined into one at the end without holding them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ssmid.io.distilled import COMPLEX
from ssmid.io.files import about, write_bytes
from ssmid.io.tensors import Entry, Tensor, entries, mapped, write_tensors
from ssmid.jobs.manifest import Chunk, Manifest

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

CHUNKS = "chunks"
_HALF_WRITTEN = tuple(f".*.*.{suffix}" for suffix in ("safetensors", "json", "jsonl", "csv", "png", "html"))
"""Names that files have before they are whole."""
_BYTES_OF_A_FILTER = 200
"""Of the certificate, beside poles, residues and Hankel values."""


class Store:
    """The chunks of one job, in a folder of their own within that of the job."""

    def __init__(self, folder: Path, manifest: Manifest, kind: str = "") -> None:
        """``kind``: of files that are no results, such as the error curves from which a budget is shared out."""
        self.folder = folder / CHUNKS
        self._manifest = manifest
        self._kind = kind
        self._identity = f"{manifest.identity} {kind}"

    def path(self, chunk: Chunk) -> Path:
        return self.folder / f"{self._kind}{chunk.index:08d}.safetensors"

    def missing(self) -> list[Chunk]:
        """What is still to do. Files of another job and damaged ones are taken away."""
        self.folder.mkdir(exist_ok=True)
        return [chunk for chunk in self._manifest.chunks() if not self._is_there(chunk)]

    def _is_there(self, chunk: Chunk) -> bool:
        path = self.path(chunk)
        with suppress(ValueError):
            if path.exists() and entries(path)[1].get("job") == self._identity:
                return True
        path.unlink(missing_ok=True)
        return False

    def write(self, chunk: Chunk, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """``facts``: what JSON can hold."""
        import safetensors.numpy

        write_bytes(self.path(chunk), safetensors.numpy.save(arrays, {"job": self._identity, "facts": json.dumps(facts)}))

    def facts(self) -> dict[str, list[dict[str, Any]]]:
        """Of each layer, by name, those of its chunks."""
        found: dict[str, list[dict[str, Any]]] = {layer["name"]: [] for layer in self._manifest.layers}
        for chunk in self._manifest.chunks():
            found[self._manifest.layers[chunk.layer]["name"]].append(json.loads(entries(self.path(chunk))[1]["facts"]))
        return found

    def read(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """The arrays of a chunk, mapped."""
        path = self.path(chunk)
        with about(path):
            return {name: mapped(path, entry) for name, entry in entries(path)[0].items()}

    def merge(self, path: Path) -> None:
        """All chunks as one file of tensors ``<layer>.<name>`` of the shape ``(*batch, ...)``, written whole or not at all.

        Where chunks differ in the number of poles, zeros fill up to the largest of the layer; of filters without a result, NaN. So do
        Hankel values that are not known.
        """
        places: list[list[dict[str, Entry]]] = [[] for _ in self._manifest.layers]
        paths: list[list[Path]] = [[] for _ in self._manifest.layers]
        for chunk in self._manifest.chunks():
            with about(self.path(chunk)):
                places[chunk.layer].append(entries(self.path(chunk))[0])
            paths[chunk.layer].append(self.path(chunk))
        known = self.facts()
        tensors = []
        for facts, where, found in zip(self._manifest.layers, paths, places, strict=True):
            for name in sorted(found[0]) if found else ():
                lost = name in COMPLEX and not (name == "poles" and known[facts["name"]][0].get("shared"))
                tensors.append(_joined(facts["name"], tuple(facts["shape"][:-1]), name, where, found, lost))
        # the largest numbers first, so that all of them stand where processors like them; names in order beyond that
        tensors.sort(key=lambda tensor: -tensor.dtype.itemsize)
        head = {"format": "ssmid", "version": 1, "class": "DistilledModel", "complex": list(COMPLEX)}
        write_tensors(path, tensors, {"ssmid": json.dumps(head)})

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _joined(
    layer: str, batch: tuple[int, ...], name: str, paths: Sequence[Path], found: Sequence[dict[str, Entry]], lost: bool
) -> Tensor:
    """lost : whether filters without a result have NaN in this array."""
    core = tuple(max(sizes) for sizes in zip(*(places[name].shape[1:] for places in found), strict=True))

    def pieces() -> Iterator[np.ndarray]:
        for path, places in zip(paths, found, strict=True):
            part = mapped(path, places[name])
            missing = [(0, size - own) for size, own in zip(core, part.shape[1:], strict=True)]
            if any(after for _, after in missing):
                part = np.pad(part, [(0, 0), *missing])
                if name == "certificate.sigma":
                    own = part.shape[1] - missing[0][1]
                    part[part[:, own - 1] != 0, own:] = np.nan  # none is larger than the one before
                if lost:
                    part[np.isnan(mapped(path, places["certificate.l2"])), ..., 0] = np.nan
            yield part

    return Tensor(f"{layer}.{name}", mapped(paths[0], found[0][name]).dtype, (*batch, *core), pieces)


def expect_room(folder: Path, filters: int, order: int) -> None:
    """ValueError where the disk has no room for results of ``filters`` of ``order``, once as chunks and once joined."""
    needed = 2 * filters * (_BYTES_OF_A_FILTER + 40 * order)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"{folder}: expected {_size(needed)} of free disk space for results, got {_size(free)}")


def _writable(folder: Path) -> int:
    """A file in the folder, opened for writing."""
    with about(folder):
        if folder.exists() and not folder.is_dir():
            raise ValueError("expected a folder, got a file")
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    return handle


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Makes the folder, and works in it alone; ValueError where files cannot be written there, or another job is at work in it.

    The lock goes with the process, however it ends. What a killed job has left half written is taken away.
    """
    handle = _writable(folder)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{folder}: expected a folder that no other job works in, got one that is at work there now") from None
        for pattern in (*_HALF_WRITTEN, f"{CHUNKS}/.*.*.safetensors"):
            for left in folder.glob(pattern):
                left.unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
