"""Byte-level language modelling on the source of Python's standard library: text that every machine with an interpreter has.

Every ``.py`` file of the running interpreter's standard library, in the order of its path, but for what differs between installations
(installed packages, the configuration of the build), for tests (``test``, ``tests``, ``idle_test``), and for the generated ``pydoc_data``,
one file of prose as large as a split. Files are split, not bytes: a hash of the path says where a file goes, so it stays there when the
library grows.
"""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ssmid.experiments.tasks.task import SPLITS, Batch, Kind, Split, checked, known_split, stream
from ssmid.report.progress import Stage

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "pydoc_data"}


@dataclass(frozen=True)
class Corpus:
    """The next byte of Python source; bits per byte are the measure.

    length : of an input; targets are the bytes that follow   held_out : share of the files that each of ``"valid"`` and ``"test"`` gets
    train : windows of an epoch, drawn anywhere in the training text; as many as fit end to end when left out
    folder : another folder to read ``.py`` files from, in place of the standard library

    Files stand behind one another, each ended by a zero byte (none holds one). ``"valid"`` and ``"test"`` are cut into windows end to end,
    so that every byte but the first is predicted once; the last window is shorter, with a mask.

    >>> task = Corpus(length=16)
    >>> bytes(task.batch("valid", [0])["inputs"][0].astype("uint8")).isascii()
    True
    """

    length: int = 2048
    held_out: float = 0.05
    train: int | None = None
    seed: int = 0
    folder: str | None = None

    name: ClassVar[str] = "corpus"
    kind: ClassVar[Kind] = "language"
    inputs: ClassVar[Literal["tokens", "signals"]] = "tokens"
    vocabulary: ClassVar[int] = 256
    channels: ClassVar[int] = 0
    outputs: ClassVar[int] = 256
    sequences: ClassVar[int] = 1
    fresh: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.length < 1 or not 0 < self.held_out < 0.5:
            raise ValueError(f"expected a length of at least 1 and held_out between 0 and 0.5, got {self.length} and {self.held_out}")

    def text(self, split: Split) -> np.ndarray:
        """All bytes of a split, uint8."""
        known_split(split)
        return _texts(self.folder, self.held_out)[0][split]

    def size(self, split: Split) -> int:
        if split == "train" and self.train is not None:
            return self.train
        return -(-(len(self.text(split)) - 1) // self.length)

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index, text = checked(split, indices, self.size(split), fresh=True), self.text(split)
        if split == "train":
            last = len(text) - self.length - 1
            starts = np.array([stream(self.name, self.seed, split, int(i)).integers(last + 1) for i in index], dtype=np.int64)
        else:
            starts = index * self.length
        places = starts[:, None] + np.arange(self.length + 1)
        mask = places[:, 1:] < len(text)
        windows = np.where(places < len(text), text[np.minimum(places, len(text) - 1)], 0).astype(np.int64)
        return {"inputs": windows[:, :-1].copy(), "targets": windows[:, 1:].copy(), "mask": mask}

    def prepare(self, *, workers: int = 1, stage: Stage | None = None) -> None:
        """Reads the files."""
        self.text("train")

    def facts(self) -> dict[str, Any]:
        """With what makes figures comparable: the Python version, files, bytes, and a hash of all text in the order of the splits."""
        texts, files = _texts(self.folder, self.held_out)
        facts = {key: value for key, value in asdict(self).items() if key != "folder"}
        source = "a folder" if self.folder is not None else f"the standard library of Python {platform.python_version()}"
        sizes = {split: {"files": files[split], "bytes": len(texts[split])} for split in SPLITS}
        return {"task": self.name, **facts, "source": source, "sizes": sizes, "sha256": _hash(self.folder, self.held_out)}


@lru_cache(maxsize=4)
def _hash(folder: str | None, held_out: float) -> str:
    """Of all text in the order of the splits; asked for with the facts of every run."""
    texts, _ = _texts(folder, held_out)
    whole = hashlib.sha256()
    for split in SPLITS:
        whole.update(texts[split].tobytes())
    return whole.hexdigest()


@lru_cache(maxsize=4)
def _texts(folder: str | None, held_out: float) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The bytes of each split and how many files they come from."""
    root = Path(sysconfig.get_path("stdlib") if folder is None else folder).expanduser()
    if not root.is_dir():
        raise ValueError(f"folder: expected one that is there, got {str(root)!r}")
    found: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    # by parts, not by the separator of the system
    for path in sorted((p for p in root.rglob("*.py") if _counts(p, root)), key=lambda p: p.relative_to(root).parts):
        found[split_of(path.relative_to(root).as_posix(), held_out)].append(path.read_bytes().replace(b"\0", b" "))
    texts = {split: np.frombuffer(b"".join(part + b"\0" for part in parts), dtype=np.uint8) for split, parts in found.items()}
    short = [split for split in SPLITS if len(texts[split]) < 2]
    if short:
        raise ValueError(f"folder: expected .py files for every split, got none for {', '.join(short)} in {str(root)!r}")
    return texts, {split: len(parts) for split, parts in found.items()}


def split_of(path: str, held_out: float) -> Split:
    """Where a file goes, by a hash of its path below the folder (with ``/``).

    >>> split_of("json/decoder.py", 0.05)
    'train'
    """
    share = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") / 2**64
    if share < held_out:
        return "valid"
    return "test" if share < 2 * held_out else "train"


def _counts(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    # written by the build of each installation
    generated = parts[-1].startswith("_sysconfigdata")
    return path.is_file() and not generated and not _LEFT_OUT.intersection(parts) and not parts[0].startswith("config-")
