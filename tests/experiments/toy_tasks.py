"""Tasks of a few lines, one of each kind, and a training small enough for a test."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.signal import lfilter


@dataclasses.dataclass(frozen=True)
class Toy:
    """Kind "token": say the token before; "classify": which of two tokens is the more frequent; "regress": a signal smoothed;
    "language": count on. ``ragged``: targets that count are fewer in some examples than in others."""

    kind: str = "token"
    length: int = 12
    train: int = 40
    held_out: int = 10
    seed: int = 0
    fresh: bool = False
    ragged: bool = False
    sequences: int = 1

    @property
    def name(self) -> str:
        return f"toy-{self.kind}"

    @property
    def inputs(self) -> str:
        return "signals" if self.kind == "regress" else "tokens"

    @property
    def vocabulary(self) -> int:
        return 0 if self.kind == "regress" else 5

    @property
    def channels(self) -> int:
        return 2 if self.kind == "regress" else 0

    @property
    def outputs(self) -> int:
        return {"token": 5, "classify": 2, "regress": 2, "language": 5}[self.kind]

    def size(self, split: str) -> int:
        return self.train if split == "train" else self.held_out

    def prepare(self, *, workers: int = 1, stage: Any = None) -> None:
        """Nothing."""

    def facts(self) -> dict[str, Any]:
        return {"task": self.name, **dataclasses.asdict(self)}

    def batch(self, split: str, indices: Any) -> dict[str, np.ndarray]:
        draws = [np.random.default_rng([self.seed, ["train", "valid", "test"].index(split), int(i)]) for i in indices]
        shape = (self.length,) if self.sequences == 1 else (self.sequences, self.length)
        mask = np.ones((len(draws), *shape), bool)
        if self.ragged:
            for row, draw in zip(mask, draws, strict=True):
                row[..., int(draw.integers(self.length // 2, self.length)) :] = False
        if self.kind == "regress":
            signals = np.stack([draw.standard_normal((*shape, 2)) for draw in draws]).astype(np.float32)
            return {"inputs": signals, "targets": lfilter([0.3], [1, -0.7], signals, axis=1).astype(np.float32), "mask": mask}
        if self.kind == "language":
            tokens = np.stack([int(draw.integers(5)) + np.arange(self.length + 1) for draw in draws]) % 5
            return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "mask": mask}
        tokens = np.stack([draw.integers(1, 5, size=shape) for draw in draws])
        if self.kind == "classify":
            tokens = np.where(mask, 1 + tokens % 2, 0)
            counts = ((tokens == 1).sum(-1) > (tokens == 2).sum(-1)).reshape(len(draws), -1)
            return {"inputs": tokens, "targets": counts[:, 0].astype(np.int64), "mask": mask}
        return {"inputs": tokens, "targets": np.roll(tokens, 1, axis=-1) * (np.arange(self.length) > 0), "mask": mask}


MODEL: dict[str, Any] = {"layer": "rtf", "order": 4, "width": 8, "depth": 1, "filter": {"init": "montel"}}
