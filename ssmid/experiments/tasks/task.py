"""What a training harness may know of a task, and the random streams that make its examples.

Every example has a stream of its own: Philox (Salmon et al., SC 2011), a counter-based generator, under a key made of the task's name, the
seed, the split and the example's index. So an example is the same on every platform, in any order, and among any number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from ssmid.report.progress import Stage

SPLITS = ("train", "valid", "test")

Split = Literal["train", "valid", "test"]
Kind = Literal["classify", "token", "regress", "language"]
Batch = dict[str, np.ndarray]


class Task(Protocol):
    """A set of examples in three splits, ``"train"``, ``"valid"`` and ``"test"``; the implementations are frozen dataclasses.

    name : one word   kind : what the targets are, below   inputs : ``"tokens"`` or ``"signals"``   length : the longest input
    vocabulary : number of tokens, 0 for signals   channels : of the signals, 0 for tokens
    outputs : number of classes, of tokens to choose from, or of channels of the regressed signal
    sequences : 2 where an example is a pair of inputs, else 1
    fresh : True where training draws new examples every epoch, as the task was published: then ``batch("train", i)`` takes any index
        ``i >= 0``, and epoch e holds the indices from ``e * size("train")``

    ``batch(split, indices)`` gives arrays of ``n = len(indices)`` examples, L being the batch's longest input, or ``length``:

    ======== ================================================================= ==============================================
    key      tokens / signals                                                   says
    ======== ================================================================= ==============================================
    inputs   int64 ``(n, L)`` / float32 ``(n, L, channels)``                    what the model reads; of pairs ``(n, 2, L)``
    targets  int64 ``(n,)`` of ``"classify"``                                   the class
             int64 ``(n, L)`` of ``"token"`` and ``"language"``                 the token to say at every position
             float32 ``(n, L, outputs)`` of ``"regress"``                       the signal to give
    mask     bool, as inputs without channels, of ``"classify"``                positions that hold input (others are padding)
             bool ``(n, L)`` of the others                                      positions whose target counts
    ======== ================================================================= ==============================================

    Padding stands at the end of an input, token 0. Raises ValueError for an unknown split and IndexError for an index that is not there.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def inputs(self) -> Literal["tokens", "signals"]: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def sequences(self) -> int: ...
    @property
    def fresh(self) -> bool: ...
    def size(self, split: Split) -> int:
        """Examples of a split; of an epoch, where ``fresh``."""
        ...

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples of these indices, in this order."""
        ...

    def prepare(self, *, workers: int = 1, stage: Stage | None = None) -> None:
        """Makes or reads what takes long, before the first batch, by several processes; of most tasks nothing."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a record of results says of the task: name, published parameters, seed, sizes; JSON holds all of it."""
        ...


class Drawn:
    """What tasks have in common, dataclasses of their parameters, whose examples are made when asked for."""

    name: ClassVar[str]
    train: int
    held_out: int

    def size(self, split: Split) -> int:
        return self.train if split == "train" else self.held_out

    def prepare(self, *, workers: int = 1, stage: Stage | None = None) -> None:
        """Nothing: every example is made when asked for."""

    def facts(self) -> dict[str, Any]:
        return {"task": self.name, **asdict(self)}  # pyright: ignore[reportArgumentType]


class DrawnTokens(Drawn):
    """Those that say a token for each token they see."""

    tokens: int
    kind: ClassVar[Kind] = "token"
    inputs: ClassVar[Literal["tokens", "signals"]] = "tokens"
    channels: ClassVar[int] = 0
    sequences: ClassVar[int] = 1

    @property
    def vocabulary(self) -> int:
        return self.tokens

    @property
    def outputs(self) -> int:
        return self.tokens


def stream(name: str, seed: int, split: str, index: int) -> np.random.Generator:
    """The random numbers of one example (or one chunk of examples) of a task.

    >>> stream("copying", 0, "train", 3).integers(100, size=4).tolist() == stream("copying", 0, "train", 3).integers(100, size=4).tolist()
    True
    """
    key = hashlib.blake2b(f"{name}/{seed}/{split}".encode(), digest_size=16).digest()
    words = np.frombuffer(key, dtype="<u8").astype(np.uint64)
    # a stream takes the low words of the counter; the index stands in the highest
    return np.random.Generator(np.random.Philox(key=words, counter=[0, 0, 0, index]))


def checked(split: str, indices: Sequence[int] | np.ndarray, size: int, *, fresh: bool = False) -> np.ndarray:
    """The indices as int64 ``(n,)``; raises ValueError for an unknown split, IndexError for an index outside ``0 ... size - 1``."""
    known_split(split)
    index = np.asarray(indices, dtype=np.int64).reshape(-1)
    endless = fresh and split == "train"
    if index.size and (index.min() < 0 or (index.max() >= size and not endless)):
        raise IndexError(f"indices: expected 0 to {size - 1} in {split!r}, got {index.min()} to {index.max()}")
    return index


def known_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")


def padded(rows: Sequence[np.ndarray], length: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Token rows of unequal length as int64 ``(n, L)`` with zeros behind, and the mask of what is real; L is at least ``length``."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    mask = np.arange(lengths.max(initial=length)) < lengths[:, None]
    tokens = np.zeros(mask.shape, dtype=np.int64)
    if rows:
        tokens[mask] = np.concatenate(rows)
    return tokens, mask
