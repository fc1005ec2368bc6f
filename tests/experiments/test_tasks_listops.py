"""ListOps: values by a stack machine of its own, shapes beside a plain recursion, the published splits."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
import scipy.stats

from ssmid.experiments.tasks import listops
from ssmid.experiments.tasks.listops import WORDS, ListOps

RULES = {"[MIN": min, "[MAX": max, "[MED": lambda a: int(statistics.median(a)), "[SM": lambda a: sum(a) % 10}


def walked(words: list[str]) -> tuple[int, int, list[int], list[str]]:
    """Value, depth (of digits too), numbers of arguments and operators of an expression."""
    stack: list[tuple[str, list[int]]] = []
    depth, counts, operators = 0, [], []
    for i, word in enumerate(words):
        if word.startswith("["):
            stack.append((word, []))
            operators.append(word)
            depth = max(depth, len(stack))
            continue
        value = int(word) if word != "]" else None
        if value is None:
            operator, arguments = stack.pop()
            counts.append(len(arguments))
            value = RULES[operator](arguments)
            if not stack:
                assert i == len(words) - 1
                return value, depth + 1, counts, operators
        stack[-1][1].append(value)
    raise AssertionError("brackets left open")


@pytest.fixture(scope="module")
def trees():
    """One chunk of the published task: about 2700 expressions."""
    tokens, starts, values = listops._chunk(ListOps(), 0)
    return [[WORDS[t] for t in row] for row in np.split(tokens, starts[1:-1])], values


def test_values_are_those_of_a_stack_machine(trees):
    rows, values = trees
    assert len(rows) > 2000
    for words, value in zip(rows, values, strict=True):
        assert 500 < len(words) < 2000
        found, depth, counts, _ = walked(words)
        assert found == value
        assert depth <= 10
        assert min(counts) >= 2
        assert max(counts) <= 10


def test_trees_are_those_of_the_published_recursion(trees):
    """Lengths, depths and how many are kept beside a recursion that knows nothing of levels."""
    draw = random.Random(5)

    def grow(depth: int) -> int:
        if depth == 10 or draw.random() > 0.25:
            return 1
        return 2 + sum(grow(depth + 1) for _ in range(draw.randint(2, 10)))

    lengths = []
    roots = 3000
    for _ in range(roots):
        length = 2 + sum(grow(2) for _ in range(draw.randint(2, 10)))
        if 500 < length < 2000:
            lengths.append(length)
    rows, _ = trees
    assert len(rows) / 8192 == pytest.approx(len(lengths) / roots, abs=0.035)
    assert scipy.stats.ks_2samp([len(words) for words in rows], lengths).pvalue > 1e-3


def test_operators_arguments_and_digits_are_uniform(trees):
    rows, values = trees
    some = rows[:400]
    operators = np.unique([op for words in some for op in walked(words)[3]], return_counts=True)[1]
    digits = np.unique([word for words in some for word in words if word.isdigit()], return_counts=True)[1]
    assert len(operators) == 4
    assert len(digits) == 10
    assert scipy.stats.chisquare(operators).pvalue > 1e-4
    assert scipy.stats.chisquare(digits).pvalue > 1e-4
    # MIN and MAX pull to the ends: 0 and 9 are the two most frequent answers
    shares = np.bincount(values, minlength=10) / len(values)
    assert set(np.argsort(shares)[-2:].tolist()) == {0, 9}
    assert shares.min() > 0.05


def test_batches_hold_the_expressions_with_an_end():
    task = ListOps(shortest=10, longest=40, train=200, held_out=30)
    assert task.vocabulary == 18
    seen = set()
    for split in ("train", "valid", "test"):
        batch = task.batch(split, range(task.size(split)))
        for inputs, value, mask in zip(batch["inputs"], batch["targets"], batch["mask"], strict=True):
            words = [WORDS[t] for t in inputs[mask]]
            assert words.pop() == "<eos>"
            assert walked(words)[0] == value
            assert task.text(inputs) == " ".join(words)
            assert not inputs[~mask].any()
            seen.add(" ".join(words))
    assert len(seen) == 260


def test_no_tree_comes_twice_where_there_are_few():
    """One operator and two digits: there are four hundred of these."""
    task = ListOps(shortest=3, longest=8, depth=2, arguments=2, train=300, held_out=50)
    made = listops._make(task, 1, None)
    rows = {row.tobytes() for row in np.split(made["tokens"], made["starts"][1:-1])}
    assert len(rows) == 400


def test_workers_and_folder_change_nothing(tmp_path):
    task = ListOps(shortest=10, longest=40, depth=3, train=9000, held_out=20)
    stages = []
    parallel = listops._make(task, 2, lambda *stage: stages.append(stage))
    for name, array in listops._make(task, 1, None).items():
        np.testing.assert_array_equal(parallel[name], array)
    assert stages[-1] == ("listops", 9040, 9040)
    stored = ListOps(shortest=10, longest=40, depth=3, train=9000, held_out=20, folder=str(tmp_path))
    stored.prepare()
    assert len(list(tmp_path.iterdir())) == 4
    np.testing.assert_array_equal(stored.batch("test", [19])["inputs"], task.batch("test", [19])["inputs"])


def test_published_sizes():
    task = ListOps()
    assert [task.size(split) for split in ("train", "valid", "test")] == [96_000, 2000, 2000]
    assert task.length == 2000


@pytest.mark.parametrize("options", [{"depth": 1}, {"arguments": 1}, {"probability": 0.0}, {"longest": 504}])
def test_bad_parameters_are_named(options):
    with pytest.raises(ValueError, match="expected"):
        ListOps(**options)
