"""What a job is: written into its folder before any work, so that it can be taken up again and is never mixed with another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from ssmid import __version__
from ssmid.io.files import about, parsing, write_bytes
from ssmid.jobs.sources import Source

NAME = "job.json"
ADVICE = "to start anew, give another folder or delete this one"


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Filters ``first`` to ``first + count`` of the flat batch of a layer: what one file of results holds. Counted from 0 over the job."""

    index: int
    layer: int
    first: int
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Manifest:
    """source : its name, the sizes and times of its files, and the sha256 once it is known   options : as they were asked for
    layers : of each its name and shape, and how many filters a chunk of it has   version : of ssmid
    """

    source: dict[str, Any]
    options: dict[str, Any]
    layers: list[dict[str, Any]]
    version: str = __version__

    @classmethod
    def of(cls, source: Source, options: Mapping[str, Any], sizes: list[int]) -> Manifest:
        layers = [{"name": x.name, "shape": list(x.shape), "chunk": n} for x, n in zip(source.layers, sizes, strict=True)]
        given = json.loads(json.dumps({name: value for name, value in options.items() if value is not None}))
        return cls({"name": source.title, "files": source.stamps(), "sha256": None}, given, layers)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """That of a folder; None where there is none. ValueError for one that is damaged."""
        path = folder / NAME
        if not path.exists():
            return None
        with about(path), parsing("JSON"):
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(content["source"], content["options"], content["layers"], content["version"])

    def write(self, folder: Path) -> None:
        write_bytes(folder / NAME, json.dumps(dataclasses.asdict(self), indent=2).encode() + b"\n")

    @property
    def identity(self) -> str:
        """What every chunk carries, so that none of another job is taken for one of this."""
        content = [self.options, self.layers, self.version]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """In their order, the same each time."""
        index = 0
        for layer, facts in enumerate(self.layers):
            count, size = prod(facts["shape"][:-1]), facts["chunk"]
            for first in range(0, count, size):
                yield Chunk(index, layer, first, min(size, count - first))
                index += 1

    def expect_same(self, new: Manifest) -> None:
        """ValueError that says what differs, unless ``new`` asks for the same work. Of sources see :func:`settled`."""
        words = [f"ssmid {self.version} there, {new.version} here"] if self.version != new.version else []
        for name in dict.fromkeys((*self.options, *new.options)):
            if self.options.get(name) != new.options.get(name):
                words.append(f"{name} {_said(self.options.get(name))} there, {_said(new.options.get(name))} here")
        if not words and self.layers != new.layers:
            words.append(f"layers {_shapes(self.layers)} there, {_shapes(new.layers)} here")
        if words:
            raise ValueError(f"expected the same job as the one begun here, got {'; '.join(words)} ({ADVICE})")


class Digest:
    """The sha256 of a source, found beside the work: 8 GB take seconds, which several GPUs would spend waiting."""

    def __init__(self, source: Source, folder: Path, manifest: Manifest) -> None:
        self._found: list[str | Exception] = []
        self._thread = threading.Thread(target=self._find, args=(source, folder, manifest), daemon=True)
        self._thread.start()

    def _find(self, source: Source, folder: Path, manifest: Manifest) -> None:
        try:
            digest = source.sha256()
            dataclasses.replace(manifest, source={**manifest.source, "sha256": digest}).write(folder)
            self._found.append(digest)
        except Exception as error:  # raised where it is waited for
            self._found.append(error)

    def result(self) -> str:
        self._thread.join()
        if isinstance(self._found[0], Exception):
            raise self._found[0]
        return self._found[0]


def settled(folder: Path, new: Manifest, source: Source) -> tuple[Manifest, Digest | str]:
    """The manifest of the job in ``folder``, written where there was none, and the sha256 of the source, under way where it is not known.

    Files of the same size and time are taken to be the same, as make and rsync do; of others the sha256 decides.
    Raises ValueError where another job was begun there.
    """
    old = Manifest.read(folder)
    if old is None:
        new.write(folder)
        return new, Digest(source, folder, new)
    old.expect_same(new)
    known = old.source["sha256"]
    if old.source["files"] != new.source["files"] and known != (digest := source.sha256()):
        there = f"sha256 {known[:12]}..." if known else "files of other sizes or times"
        raise ValueError(f"expected the source of the job begun here, {there}, got {source.title} with sha256 {digest[:12]}... ({ADVICE})")
    return old, known or Digest(source, folder, old)


def _said(value: Any) -> str:
    return "not given" if value is None else str(value)


def _shapes(layers: list[dict[str, Any]]) -> str:
    shown = [f"{x['name']} {tuple(x['shape'])} in chunks of {x['chunk']}" for x in layers[:3]]
    return ", ".join([*shown, "..."] if len(layers) > 3 else shown)
