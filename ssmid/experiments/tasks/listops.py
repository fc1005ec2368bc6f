"""ListOps of the Long Range Arena (Tay et al. 2021, section 2.2): nested MIN, MAX, MED and SM of lists of digits; to say: the value.

The rules are those of the published generator, after Nangia & Bowman 2018: a node at a depth under the largest is an operator with
probability 1/4, else a digit; an operator has 2 to 10 arguments; MED is the median rounded down, SM the sum modulo 10. Trees whose length
(one a digit, two an operator: its opening and its bracket) lies strictly between 500 and 2000 are kept, none twice, and cut into splits.

One tree is nothing to NumPy, so trees grow level by level, a chunk of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from ssmid.experiments.tasks.making import Arrays, in_order, kept
from ssmid.experiments.tasks.task import Batch, Kind, Split, checked, padded, stream
from ssmid.report.progress import Stage

WORDS = ("<pad>", "<unk>", "<eos>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
"""The vocabulary: 18 tokens, as in the preprocessing of S4 and RTF. Parentheses are dropped, and ``<unk>`` never comes up."""

END, DIGIT, OPERATOR, CLOSE = WORDS.index("<eos>"), WORDS.index("0"), WORDS.index("[MIN"), WORDS.index("]")
_ROOTS_PER_CHUNK = 8192


@dataclass(frozen=True)
class ListOps:
    """Expressions and their values, 10 classes; ``batch`` pads with token 0 and ends each expression with ``<eos>``.

    shortest, longest : the length lies strictly between   depth : of a digit in the deepest operator, the root having 1
    arguments : of an operator, at most (at least 2)   probability : of an operator
    train, held_out : examples of each split   folder : where they are kept (``prepare``); made anew in every process when left out

    >>> task = ListOps(shortest=8, longest=16, train=50, held_out=10)
    >>> batch = task.batch("valid", [0])
    >>> print(task.text(batch["inputs"][0]), "=", batch["targets"][0])
    [MED 6 5 [MED 0 2 ] 5 2 5 9 0 ] = 5
    """

    shortest: int = 500
    longest: int = 2000
    depth: int = 10
    arguments: int = 10
    probability: float = 0.25
    train: int = 96_000
    held_out: int = 2000
    seed: int = 0
    folder: str | None = None

    name: ClassVar[str] = "listops"
    kind: ClassVar[Kind] = "classify"
    inputs: ClassVar[Literal["tokens", "signals"]] = "tokens"
    vocabulary: ClassVar[int] = len(WORDS)
    channels: ClassVar[int] = 0
    outputs: ClassVar[int] = 10
    sequences: ClassVar[int] = 1
    fresh: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.depth < 2 or self.arguments < 2 or not 0 < self.probability < 1:
            got = f"{self.depth}, {self.arguments} and {self.probability}"
            raise ValueError(f"expected depth and arguments of at least 2 and a probability between 0 and 1, got {got}")
        if not 0 <= self.shortest < self.longest - 4:
            raise ValueError(f"longest: expected more than shortest + 4, got {self.shortest} and {self.longest}")

    @property
    def length(self) -> int:
        """The longest expression that fits, with its end."""
        return self.longest

    def size(self, split: Split) -> int:
        return self.train if split == "train" else self.held_out

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index = checked(split, indices, self.size(split))
        made = _examples(self)
        rows = index + {"train": 0, "valid": self.train, "test": self.train + self.held_out}[split]
        starts = made["starts"]
        # of one length throughout, so that a step of training is the same work each time
        inputs, mask = padded([np.append(made["tokens"][starts[i] : starts[i + 1]], END) for i in rows], self.length)
        return {"inputs": inputs, "targets": np.asarray(made["values"][rows], dtype=np.int64), "mask": mask}

    def prepare(self, *, workers: int = 1, stage: Stage | None = None) -> None:
        """Makes all examples, or reads them from the folder; the folder's files are the same whatever the number of workers."""
        _examples(self, workers, stage)

    def text(self, tokens: np.ndarray) -> str:
        return " ".join(WORDS[token] for token in tokens.tolist() if token not in (0, END))

    def facts(self) -> dict[str, Any]:
        facts = asdict(self)
        del facts["folder"]
        return {"task": self.name, **facts}


_MADE: dict[ListOps, Arrays] = {}


def _examples(task: ListOps, workers: int = 1, stage: Stage | None = None) -> Arrays:
    """``tokens`` of all expressions end to end, ``starts`` (one more than expressions), ``values``."""
    if task not in _MADE:
        _MADE[task] = kept(task.folder, task.facts(), partial(_make, task, workers, stage))
    return _MADE[task]


def _make(task: ListOps, workers: int, stage: Stage | None) -> Arrays:
    wanted = task.train + 2 * task.held_out
    # processes take longer to start than a chunk to make
    workers = workers if wanted > _ROOTS_PER_CHUNK else 1
    seen: set[bytes] = set()
    rows, values = [], []
    for tokens, starts, answers in in_order(partial(_chunk, task), count(), workers):
        for row, value in zip(np.split(tokens, starts[1:-1]), answers, strict=True):
            if len(rows) < wanted and (key := row.tobytes()) not in seen:
                seen.add(key)
                rows.append(row)
                values.append(value)
        if stage is not None:
            stage("listops", len(rows), wanted)
        if len(rows) == wanted:
            break
    starts = np.cumsum([0, *map(len, rows)])
    return {"tokens": np.concatenate(rows), "starts": starts, "values": np.array(values, dtype=np.uint8)}


class _Level(NamedTuple):
    """The operators of one depth of all trees of a chunk, and their arguments; arrays end to end."""

    owner: np.ndarray
    """(operators,) the tree."""
    arguments: np.ndarray
    """(operators,) how many."""
    nested: np.ndarray
    """(arguments in all,) which of them are operators; those are the operators of the next level, in the same order."""

    @property
    def starts(self) -> np.ndarray:
        return np.cumsum(self.arguments) - self.arguments


def _chunk(task: ListOps, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The trees of one chunk that are neither too short nor too long: tokens, starts and values as in :func:`_examples`.

    Roots that are digits are left out at once: they are too short.
    """
    random = stream(task.name, task.seed, "trees", index)
    levels, kept_trees, lengths = _grown(task, random)
    levels = [_of_trees(level, kept_trees) for level in levels]
    levels = [level for level in levels if level.owner.size]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if not levels:
        return np.zeros(0, dtype=np.uint8), starts, np.zeros(0, dtype=np.int64)
    operators = [random.integers(4, size=level.owner.size, dtype=np.uint8) for level in levels]
    digits = [random.integers(10, size=level.nested.size, dtype=np.uint8) for level in levels]
    sizes, values = _folded(levels, operators, digits)
    return _written(levels, operators, digits, sizes, starts), starts, values


def _grown(task: ListOps, random: np.random.Generator) -> tuple[list[_Level], np.ndarray, np.ndarray]:
    """The shapes of the trees, which of them are kept, and the lengths of those."""
    owner = np.arange(_ROOTS_PER_CHUNK)
    length = np.zeros(_ROOTS_PER_CHUNK, dtype=np.int64)
    levels = []
    for depth in range(2, task.depth + 1):
        arguments = random.integers(2, task.arguments + 1, size=owner.size)
        nested = random.random(int(arguments.sum()), dtype=np.float32) < (task.probability if depth < task.depth else 0)
        levels.append(_Level(owner, arguments, nested))
        child = np.repeat(owner, arguments)
        length += 2 * np.bincount(owner, minlength=length.size) + np.bincount(child[~nested], minlength=length.size)
        # what is too long already need not grow further
        levels[-1] = _of_trees(levels[-1], length < task.longest)
        nested, child = levels[-1].nested, np.repeat(levels[-1].owner, levels[-1].arguments)
        owner = child[nested]
    keep = (length > task.shortest) & (length < task.longest)
    return levels, keep, length[keep]


def _of_trees(level: _Level, keep: np.ndarray) -> _Level:
    mine = keep[level.owner]
    return _Level(level.owner[mine], level.arguments[mine], level.nested[np.repeat(mine, level.arguments)])


def _folded(levels: list[_Level], operators: list[np.ndarray], digits: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """From the deepest level up: the tokens of every argument of every level, and the values of the trees."""
    sizes: list[np.ndarray] = [np.zeros(0)] * len(levels)
    deeper_size = deeper_value = np.zeros(0, dtype=np.int64)
    for depth in reversed(range(len(levels))):
        level = levels[depth]
        size, value = np.ones(level.nested.size, dtype=np.int64), digits[depth].astype(np.int64)
        size[level.nested], value[level.nested] = deeper_size, deeper_value
        sizes[depth] = size
        deeper_size = np.add.reduceat(size, level.starts) + 2
        deeper_value = _applied(level, operators[depth], value)
    return sizes, deeper_value


def _applied(level: _Level, operator: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The value of every operator of a level from those of its arguments."""
    first = level.starts
    ordered = value[np.lexsort((value, np.repeat(np.arange(first.size), level.arguments)))]
    last = first + level.arguments - 1
    median = (ordered[(first + last) // 2] + ordered[(first + last + 1) // 2]) // 2
    return np.choose(operator, [ordered[first], ordered[last], median, np.add.reduceat(value, first) % 10])


def _written(
    levels: list[_Level], operators: list[np.ndarray], digits: list[np.ndarray], sizes: list[np.ndarray], starts: np.ndarray
) -> np.ndarray:
    """From the root down: every operator knows where it begins, hence where its arguments do."""
    tokens = np.empty(starts[-1], dtype=np.uint8)
    begin = starts[:-1]
    for level, operator, digit, size in zip(levels, operators, digits, sizes, strict=True):
        before = np.cumsum(size) - size
        place = np.repeat(begin + 1 - before[level.starts], level.arguments) + before
        tokens[begin] = OPERATOR + operator
        tokens[begin + 1 + np.add.reduceat(size, level.starts)] = CLOSE
        tokens[place[~level.nested]] = DIGIT + digit[~level.nested]
        begin = place[level.nested]
    return tokens
