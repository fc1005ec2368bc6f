"""Pathfinder and Path-X of the Long Range Arena (Tay et al. 2021, section 2.6): does one snake join the two disks?

Pixels come one by one, row by row. Images as published (:mod:`ssmid.experiments.tasks.snakes`), in the published numbers: 200000, cut
80 / 10 / 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from ssmid.experiments.tasks.making import Arrays, in_order, kept
from ssmid.experiments.tasks.snakes import PATH_X, PATHFINDER_32, Geometry, image
from ssmid.experiments.tasks.task import SPLITS, Batch, Kind, Split, checked, stream
from ssmid.report.progress import Stage

__all__ = ["PATHFINDER_32", "PATH_X", "Pathfinder"]

_AT_ONCE = 100


@dataclass(frozen=True)
class Pathfinder:
    """Grey images as sequences of pixels in [0, 1], two classes: 1 where one snake joins the disks.

    geometry : ``PATHFINDER_32`` (1024 pixels) or ``PATH_X`` (16384)   train, held_out : images, and images of each of the two other splits
    folder : where images are kept (``prepare``); without one every image is made when asked for, which takes tens of milliseconds

    >>> Pathfinder().batch("valid", [0])["inputs"].shape, Pathfinder(PATH_X).length
    ((1, 1024, 1), 16384)
    """

    geometry: Geometry = PATHFINDER_32
    train: int = 160_000
    held_out: int = 20_000
    seed: int = 0
    folder: str | None = None

    kind: ClassVar[Kind] = "classify"
    inputs: ClassVar[Literal["tokens", "signals"]] = "signals"
    vocabulary: ClassVar[int] = 0
    channels: ClassVar[int] = 1
    outputs: ClassVar[int] = 2
    sequences: ClassVar[int] = 1
    fresh: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"pathfinder-{self.geometry.side}"

    @property
    def length(self) -> int:
        return self.geometry.side**2

    def size(self, split: Split) -> int:
        return self.train if split == "train" else self.held_out

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        images, labels = self.images(split, indices)
        pixels = images.reshape(len(images), self.length, 1).astype(np.float32) / np.float32(255)
        return {"inputs": pixels, "targets": labels, "mask": np.ones(pixels.shape[:2], dtype=bool)}

    def images(self, split: Split, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Grey levels 0 to 255, uint8 ``(n, side, side)``, and labels, int64 ``(n,)``."""
        index = checked(split, indices, self.size(split))
        if self.folder is None:
            made = _some(self, split, index)
            return made["images"], made["labels"].astype(np.int64)
        made = _all(self, split, 1, None)
        return made["images"][index], made["labels"][index].astype(np.int64)

    def prepare(self, *, workers: int = 1, stage: Stage | None = None) -> None:
        """Makes all images and keeps them in the folder, where one is named; they do not depend on the number of workers."""
        if self.folder is not None:
            for split in SPLITS:
                _all(self, split, workers, stage)

    def facts(self) -> dict[str, Any]:
        facts = asdict(self)
        del facts["folder"]
        return {"task": self.name, **facts}


_OPENED: dict[tuple[Pathfinder, str], Arrays] = {}


def _all(task: Pathfinder, split: Split, workers: int, stage: Stage | None) -> Arrays:
    """The images of a split, from the folder."""
    if (task, split) not in _OPENED:
        facts = {**task.facts(), "split": split, "examples": task.size(split)}
        _OPENED[task, split] = kept(task.folder, facts, partial(_make, task, split, workers, stage))
    return _OPENED[task, split]


def _make(task: Pathfinder, split: Split, workers: int, stage: Stage | None) -> Arrays:
    size = task.size(split)
    images = np.empty((size, task.geometry.side, task.geometry.side), dtype=np.uint8)
    labels = np.empty(size, dtype=np.uint8)
    parts = [range(start, min(start + _AT_ONCE, size)) for start in range(0, size, _AT_ONCE)]
    for part, made in zip(parts, in_order(partial(_some, task, split), parts, min(workers, len(parts))), strict=True):
        images[part.start : part.stop], labels[part.start : part.stop] = made["images"], made["labels"]
        if stage is not None:
            stage(f"{task.name} {split}", part.stop, size)
    return {"images": images, "labels": labels}


def _some(task: Pathfinder, split: Split, indices: Sequence[int] | np.ndarray) -> Arrays:
    pairs = [image(task.geometry, stream(task.name, task.seed, split, int(i))) for i in indices]
    images = np.array([drawn for drawn, _ in pairs], dtype=np.uint8).reshape(-1, task.geometry.side, task.geometry.side)
    return {"images": images, "labels": np.array([label for _, label in pairs], dtype=np.uint8)}
