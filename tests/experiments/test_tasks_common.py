"""What every generated task promises: shapes, determinism in any order and any process, splits that differ, messages."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssmid.experiments.tasks.copying import Copying
from ssmid.experiments.tasks.corpus import Corpus
from ssmid.experiments.tasks.delay import Delay
from ssmid.experiments.tasks.listops import ListOps
from ssmid.experiments.tasks.making import in_order, kept
from ssmid.experiments.tasks.pathfinder import Pathfinder
from ssmid.experiments.tasks.recall import AssociativeRecall, InductionHeads
from ssmid.experiments.tasks.task import SPLITS, Task, padded, stream

SMALL_LISTOPS = ListOps(shortest=20, longest=60, train=300, held_out=40)
TASKS: list[Task] = [
    Copying(memorize=20, noise=5, tokens=9),
    Delay(length=400, lag=50),
    AssociativeRecall(),
    InductionHeads(),
    SMALL_LISTOPS,
    Pathfinder(),
    Corpus(length=100),
]
NAMES = [task.name for task in TASKS]

# what the published parameters generate must never change unnoticed: results of different versions would not be comparable
PINNED = {
    "copying": "5e34f10370568d32",
    "associative-recall": "316808753b4c8050",
    "induction-heads": "1d45c7dfcd90442a",
    "listops": "8e4e8973dcc38474",
    "pathfinder-32": "bf707d938962bb7a",
}
PUBLISHED = (Copying(), AssociativeRecall(), InductionHeads(), SMALL_LISTOPS, Pathfinder())


def digest(task: Task) -> str:
    batch = task.batch("train", [0, 3])
    exact = [np.rint(255 * a).astype(np.int64) if a.dtype == np.float32 else a.astype(np.int64) for a in batch.values()]
    return hashlib.sha256(b"".join(a.astype("<i8").tobytes() for a in exact)).hexdigest()[:16]


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_batches_have_the_promised_shapes_and_kinds(task):
    for split in SPLITS:
        batch = task.batch(split, [0, 2, 1])
        inputs, targets, mask = batch["inputs"], batch["targets"], batch["mask"]
        assert inputs.shape[0] == 3
        assert inputs.shape[1] <= task.length
        assert mask.dtype == np.bool_
        assert mask.any(axis=1).all()
        if task.inputs == "tokens":
            assert inputs.dtype == np.int64
            assert inputs.ndim == 2
            assert inputs.min() >= 0
            assert inputs.max() < task.vocabulary
        else:
            assert inputs.dtype == np.float32
            assert inputs.shape[2:] == (task.channels,)
        if task.kind == "classify":
            assert targets.shape == (3,)
        elif task.kind == "regress":
            assert targets.shape == (3, inputs.shape[1], task.outputs)
        else:
            assert targets.shape == inputs.shape
        assert mask.shape == inputs.shape[:2]
        if task.kind != "regress":
            assert targets.dtype == np.int64
            assert targets.max() < task.outputs


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_an_example_depends_on_its_index_alone(task):
    together = task.batch("valid", [4, 0, 7])
    for row, i in enumerate((4, 0, 7)):
        alone = task.batch("valid", np.array([i]))
        width = alone["inputs"].shape[1]
        np.testing.assert_array_equal(together["inputs"][row, :width], alone["inputs"][0])
        np.testing.assert_array_equal(together["mask"][row, :width], alone["mask"][0])
        target = together["targets"][row]
        np.testing.assert_array_equal(target[:width] if target.ndim else target, alone["targets"][0])
    inputs = together["inputs"]
    assert not np.array_equal(inputs[0], inputs[1])


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_splits_and_seeds_differ(task):
    seen = [task.batch(split, [1])["inputs"] for split in SPLITS]
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])
    other = type(task)(**{**vars(task), "seed": 1})
    assert not np.array_equal(other.batch("train", [1])["inputs"], seen[0])


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_fresh_tasks_have_no_last_training_example_and_others_do(task):
    beyond = [task.size("train")]
    if task.fresh:
        assert not np.array_equal(task.batch("train", beyond)["inputs"], task.batch("train", [0])["inputs"])
    else:
        with pytest.raises(IndexError, match=f"expected 0 to {task.size('train') - 1}"):
            task.batch("train", beyond)
    with pytest.raises(IndexError):
        task.batch("valid", [task.size("valid")])
    with pytest.raises(IndexError):
        task.batch("train", [-1])
    with pytest.raises(ValueError, match="split: expected one of train, valid, test"):
        task.batch("dev", [0])


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_facts_are_json_and_name_no_folder(task):
    facts = json.loads(json.dumps(task.facts()))
    assert facts["task"] == task.name
    assert facts["seed"] == 0
    assert "folder" not in facts


def test_another_process_generates_the_same():
    code = "from tests.experiments.test_tasks_common import PUBLISHED, digest; print({task.name: digest(task) for task in PUBLISHED})"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    root = Path(__file__).parents[2]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=root)
    assert ast.literal_eval(there.stdout) == PINNED


@pytest.mark.parametrize("task", PUBLISHED, ids=[task.name for task in PUBLISHED])
def test_examples_are_those_of_every_earlier_version(task):
    assert digest(task) == PINNED[task.name]


def test_streams_of_neighbours_are_independent():
    """A correlation of 64 streams of 4096 numbers, which is 0.016 on average for independent ones."""
    draws = np.array([stream("x", 0, "train", i).standard_normal(4096) for i in range(64)])
    between = np.corrcoef(draws) - np.eye(64)
    assert np.abs(between).max() < 5.5 / np.sqrt(4096)
    assert abs(draws.mean()) < 0.01
    assert not np.array_equal(stream("x", 0, "train", 0).random(4), stream("x", 0, "valid", 0).random(4))


def test_workers_change_nothing_and_keep_the_order():
    assert list(in_order(abs, range(-20, 0), workers=2)) == list(range(20, 0, -1))


def test_what_is_kept_is_read_again_and_other_facts_are_not(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"a": np.arange(5), "b": np.eye(2)}

    first = kept(tmp_path / "new", {"task": "x", "seed": 0}, make)
    second = kept(tmp_path / "new", {"task": "x", "seed": 0}, make)
    assert len(calls) == 1
    np.testing.assert_array_equal(first["a"], second["a"])
    assert isinstance(second["b"], np.memmap)
    kept(tmp_path / "new", {"task": "x", "seed": 1}, make)
    assert len(calls) == 2
    # a run that was cut off before the seal counts for nothing
    for seal in (tmp_path / "new").glob("*.json"):
        seal.unlink()
    kept(tmp_path / "new", {"task": "x", "seed": 1}, make)
    assert len(calls) == 3


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder: expected one that can be written to"):
        kept(tmp_path / "file", {"task": "x"}, lambda: {"a": np.zeros(1)})


def test_padding_stands_behind():
    tokens, mask = padded([np.array([3, 4, 5]), np.array([6])])
    assert tokens.tolist() == [[3, 4, 5], [6, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
