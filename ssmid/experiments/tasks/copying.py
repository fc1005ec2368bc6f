"""Copying: say a long sequence of random tokens once more, in order.

As in the RTF paper (Parnichkun et al. 2024) and the configuration of S4 that it is taken from (Gu et al. 2022, ``s4-copying``), after
Arjovsky, Shah & Bengio (2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ssmid.experiments.tasks.task import Batch, DrawnTokens, Split, checked, stream


@dataclass(frozen=True)
class Copying(DrawnTokens):
    """``memorize`` tokens, ``noise`` blanks, then ``memorize`` markers, during which the tokens are to be said.

    tokens : size of the vocabulary; 0 is the blank and ``tokens - 1`` the marker, so ``1 ... tokens - 2`` are drawn, uniformly
    train, held_out : examples of an epoch, and of each of the two other splits
    fresh : training draws new examples every epoch, as published; the other splits are fixed

    Inputs have ``noise + 2 memorize`` tokens, and the last ``memorize`` positions count. Published: nothing in between, so the delay is
    the length of the sequence itself, and guessing gives 1 in 62.

    >>> task = Copying(memorize=3, tokens=6)
    >>> task.batch("valid", [0])["inputs"].tolist()
    [[1, 2, 3, 5, 5, 5]]
    """

    memorize: int = 1024
    noise: int = 0
    tokens: int = 64
    train: int = 10_000
    held_out: int = 1000
    seed: int = 0
    fresh: bool = True

    name: ClassVar[str] = "copying"

    def __post_init__(self) -> None:
        if self.tokens < 3:
            raise ValueError(f"tokens: expected at least 3 (a blank, a marker, and one to copy), got {self.tokens}")
        if self.memorize < 1 or self.noise < 0:
            raise ValueError(f"expected at least 1 token to memorize and noise of at least 0, got {self.memorize} and {self.noise}")

    @property
    def length(self) -> int:
        return self.noise + 2 * self.memorize

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index = checked(split, indices, self.size(split), fresh=self.fresh)
        said = np.empty((len(index), self.memorize), dtype=np.int64)
        for row, i in enumerate(index):
            said[row] = stream(self.name, self.seed, split, int(i)).integers(1, self.tokens - 1, size=self.memorize)
        blanks = np.zeros((len(index), self.noise), dtype=np.int64)
        markers = np.full_like(said, self.tokens - 1)
        targets = np.concatenate([np.zeros((len(index), self.length - self.memorize), dtype=np.int64), said], axis=1)
        mask = np.zeros(targets.shape, dtype=bool)
        mask[:, -self.memorize :] = True
        return {"inputs": np.concatenate([said, blanks, markers], axis=1), "targets": targets, "mask": mask}
