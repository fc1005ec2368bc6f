"""Associative recall and induction heads: look up in the sequence what followed something before.

As published for H3 (Fu et al. 2023, section 3) and Hyena (Poli et al. 2023, section 4.1), with the sizes of the authors' configurations.
The last two tokens of the vocabulary are the prompt ("=>") and the blank, the answer where there is none (".").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ssmid.experiments.tasks.task import Batch, DrawnTokens, Split, checked, stream


@dataclass(frozen=True)
class AssociativeRecall(DrawnTokens):
    """Pairs of a key and a value, a prompt, one of the keys; to say: its value.

    tokens : size of the vocabulary, prompt and blank included; half of the others are keys, half values (of an odd number one more)
    context : tokens before the prompt, ``context // (keys + 1)`` pairs   keys : tokens of a key
    blank : also ask for keys that were not there; the answer is then the blank   train, held_out : examples of each split

    Each example draws a table with a value for every key, and its pairs from it, with repetition: a key has one value throughout. An input
    ends with the key asked for. Training counts every position (a language model of the sequence, as published), the other splits the
    answer alone.
    Published: 20 tokens and 40 before the prompt; 10 and 20; Hyena's 30 and up to 131072.

    >>> AssociativeRecall(context=8).batch("valid", [0])["inputs"].tolist()
    [[7, 17, 2, 9, 3, 15, 2, 9, 18, 3]]
    """

    tokens: int = 20
    context: int = 40
    keys: int = 1
    blank: bool = False
    train: int = 5000
    held_out: int = 500
    seed: int = 0

    name: ClassVar[str] = "associative-recall"
    fresh: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.tokens < 4:
            raise ValueError(f"tokens: expected at least 4 (a key, a value, prompt and blank), got {self.tokens}")
        if self.keys < 1 or self.context < self.keys + 1:
            raise ValueError(f"expected a context of at least one pair of keys and a value, got {self.context} with {self.keys} keys")

    @property
    def length(self) -> int:
        return self.context // (self.keys + 1) * (self.keys + 1) + 1 + self.keys

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index = checked(split, indices, self.size(split))
        rows = [self._example(stream(self.name, self.seed, split, int(i))) for i in index]
        return _shifted(rows, self.length + 1, split, answers=1)

    def _example(self, random: np.random.Generator) -> np.ndarray:
        """A sequence with its answer: ``(length + 1,)``. A key is a number in base ``kinds``, one digit a token."""
        kinds = (self.tokens - 2) // 2
        pairs = self.context // (self.keys + 1)
        drawn = random.integers(kinds, size=(pairs, self.keys))
        if self.blank:
            asked = random.integers(kinds, size=self.keys)
        else:
            # every key that is there is as likely, however often it is
            there = np.unique(drawn, axis=0)
            asked = there[random.integers(len(there))]
        # values of keys that occur: equal keys share the draw of the first
        values = random.integers(kinds, self.tokens - 2, size=pairs)
        _, first, which = np.unique(drawn, axis=0, return_index=True, return_inverse=True)
        values = values[first[which.reshape(-1)]]
        found = np.flatnonzero((drawn == asked).all(axis=1))
        answer = values[found[0]] if found.size else self.tokens - 1
        return np.r_[np.column_stack([drawn, values]).ravel(), self.tokens - 2, asked, answer]


@dataclass(frozen=True)
class InductionHeads(DrawnTokens):
    """Random tokens with the prompt once among them, and once more at the end; to say: what followed it.

    tokens : size of the vocabulary, prompt and blank included   context : tokens before the last prompt
    copied : tokens to say after it   triggers : times that the prompt stands in the context, at most, each followed by the same tokens
        (half of the examples have one, and places too near to the one before are left out)
    train, held_out : examples of each split

    Training counts every position, the other splits the copied tokens alone. Published: 20 tokens, 30 before the last prompt.

    >>> InductionHeads(context=8).batch("valid", [0])["inputs"].tolist()
    [[10, 9, 18, 5, 2, 5, 16, 8, 18]]
    """

    tokens: int = 20
    context: int = 30
    copied: int = 1
    triggers: int = 1
    train: int = 5000
    held_out: int = 500
    seed: int = 0

    name: ClassVar[str] = "induction-heads"
    fresh: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.tokens < 3:
            raise ValueError(f"tokens: expected at least 3 (prompt, blank, and one to copy), got {self.tokens}")
        if self.copied < 1 or self.triggers < 1 or self.context < self.copied + 2:
            got = f"{self.copied}, {self.triggers} and {self.context}"
            raise ValueError(f"expected copied and triggers of at least 1 and a context of at least copied + 2, got {got}")

    @property
    def length(self) -> int:
        return self.context + self.copied

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index = checked(split, indices, self.size(split))
        rows = [self._example(stream(self.name, self.seed, split, int(i))) for i in index]
        return _shifted(rows, self.length + 1, split, answers=self.copied)

    def _example(self, random: np.random.Generator) -> np.ndarray:
        """A sequence with its answer: ``(length + 1,)``."""
        prompt = self.tokens - 2
        sequence = random.integers(prompt, size=self.context + 1 + self.copied)
        sequence[self.context] = prompt
        count = self.triggers if self.triggers > 1 and random.random() >= 0.5 else 1
        places: list[int] = []
        for place in np.sort(random.integers(self.context - 1 - self.copied, size=count)).tolist():
            if not places or place - places[-1] > self.copied:
                places.append(place)
        answer = sequence[places[0] + 1 : places[0] + 1 + self.copied].copy()
        for place in [*places, self.context]:
            sequence[place] = prompt
            sequence[place + 1 : place + 1 + self.copied] = answer
        return sequence


def _shifted(rows: list[np.ndarray], length: int, split: str, *, answers: int) -> Batch:
    """Next-token targets of the sequences; all count in training, the last ``answers`` elsewhere."""
    tokens = np.array(rows, dtype=np.int64).reshape(-1, length)
    mask = np.zeros((len(tokens), length - 1), dtype=bool)
    mask[:, 0 if split == "train" else -answers :] = True
    return {"inputs": tokens[:, :-1].copy(), "targets": tokens[:, 1:].copy(), "mask": mask}
