"""Copying, delay, associative recall, induction heads and the corpus against what their papers say, by loops of their own."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from ssmid.experiments.tasks.copying import Copying
from ssmid.experiments.tasks.corpus import Corpus, split_of
from ssmid.experiments.tasks.delay import Delay
from ssmid.experiments.tasks.recall import AssociativeRecall, InductionHeads


def test_copying_says_the_tokens_again():
    task = Copying()
    assert (task.length, task.vocabulary, task.size("train"), task.size("valid")) == (2048, 64, 10_000, 1000)
    batch = task.batch("train", range(40))
    for inputs, targets, mask in zip(batch["inputs"], batch["targets"], batch["mask"], strict=True):
        assert np.flatnonzero(mask).tolist() == list(range(1024, 2048))
        assert targets[1024:].tolist() == inputs[:1024].tolist()
        assert set(inputs[1024:].tolist()) == {63}
    counts = np.bincount(batch["inputs"][:, :1024].ravel(), minlength=64)
    assert counts[0] == counts[63] == 0
    assert scipy.stats.chisquare(counts[1:63]).pvalue > 1e-4


def test_copying_waits_in_between():
    inputs = Copying(memorize=3, noise=4, tokens=10).batch("test", [2])["inputs"][0]
    assert inputs[3:].tolist() == [0, 0, 0, 0, 9, 9, 9]


def test_delay_is_the_noise_later_within_its_band():
    task = Delay()
    batch = task.batch("train", range(100))
    signals, targets = batch["inputs"][..., 0].astype(float), batch["targets"][..., 0]
    assert signals.shape == (100, 4000)
    assert (signals[:, 0] == 0).all()
    assert not targets[:, :1000].any()
    np.testing.assert_array_equal(targets[:, 1000:], batch["inputs"][:, :-1000, 0])
    # 4000 samples of 0.25 ms are one second: line k of the spectrum is k Hz
    power = np.abs(np.fft.rfft(signals, axis=1)) ** 2
    assert power[:, 1001:].sum() < 1e-9 * power[:, 1:1001].sum()
    inside = power[:, 1:1001].mean(axis=0)
    # flat: the power of a line is exponentially distributed, its mean over 100 has a deviation of a tenth
    assert np.abs(inside / inside.mean() - 1).max() < 0.6
    assert inside[-10:].mean() / inside.mean() == pytest.approx(1, abs=0.15)
    deviation = np.sqrt(np.mean((signals - signals.mean(axis=1, keepdims=True)) ** 2))
    assert deviation == pytest.approx(0.5, abs=0.005)
    zero = np.sqrt(np.mean(targets.astype(float) ** 2))
    assert zero == pytest.approx(0.5 * np.sqrt(2 * 0.75), abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"lag": 4000}, "lag: expected 1 to 3999"), ({"bandwidth": 2500.0}, "to 2000 Hz"), ({"bandwidth": 0.5}, "bandwidth: expected 1 Hz")],
)
def test_delay_says_what_it_cannot_do(options, message):
    with pytest.raises(ValueError, match=message):
        Delay(**options)


@pytest.mark.parametrize(("tokens", "context", "keys"), [(20, 40, 1), (10, 20, 1), (30, 90, 2)])
@pytest.mark.parametrize("blank", [False, True])
def test_recall_asks_for_what_a_dictionary_knows(tokens, context, keys, blank):
    task = AssociativeRecall(tokens, context, keys, blank)
    batch = task.batch("test", range(200))
    assert batch["mask"].sum() == 200
    kinds, blanks, answers = (tokens - 2) // 2, 0, []
    for inputs, targets in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
        assert targets[:-1] == inputs[1:]
        assert len(inputs) == task.length == context + 1 + keys
        known = {}
        for start in range(0, context, keys + 1):
            key, value = tuple(inputs[start : start + keys]), inputs[start + keys]
            assert max(key) < kinds <= value < tokens - 2
            assert known.setdefault(key, value) == value
        assert inputs[context] == tokens - 2
        asked = tuple(inputs[context + 1 :])
        assert targets[-1] == known.get(asked, tokens - 1)
        blanks += asked not in known
        answers.append(targets[-1])
    assert (blanks > 0) == blank
    counts = np.bincount([a for a in answers if a != tokens - 1], minlength=tokens - 2)[kinds:]
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_every_key_that_is_there_is_as_likely():
    """Not as often as it occurs: published code draws from the keys, not from the pairs."""
    batch = AssociativeRecall(tokens=6, context=12).batch("train", range(4000))
    often = []
    for inputs in batch["inputs"]:
        keys = inputs[:12:2]
        if sorted(np.unique(keys, return_counts=True)[1].tolist()) == [1, 5]:
            often.append(np.sum(keys == inputs[-1]) == 5)
    assert len(often) > 300
    assert np.mean(often) == pytest.approx(0.5, abs=0.1)


def test_induction_heads_copy_what_followed_the_prompt():
    task = InductionHeads()
    assert (task.length, task.vocabulary) == (31, 20)
    batch = task.batch("valid", range(400))
    places = []
    for inputs, targets, mask in zip(batch["inputs"].tolist(), batch["targets"].tolist(), batch["mask"], strict=True):
        assert targets[:-1] == inputs[1:]
        assert np.flatnonzero(mask).tolist() == [30]
        assert inputs[30] == 18
        assert inputs.count(18) == 2
        assert targets[30] == inputs[inputs.index(18) + 1]
        places.append(inputs.index(18))
    counts = np.bincount(places, minlength=28)
    assert len(counts) == 28
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_induction_heads_with_several_prompts_agree():
    task = InductionHeads(context=40, copied=2, triggers=4)
    several = 0
    for inputs, targets in zip(*(task.batch("test", range(200))[key].tolist() for key in ("inputs", "targets")), strict=True):
        whole = [*inputs, targets[-1]]
        places = [i for i, token in enumerate(whole) if token == 18]
        assert {tuple(whole[i + 1 : i + 3]) for i in places} == {tuple(whole[-2:])}
        several += len(places) > 2
    assert 40 < several < 160


def test_training_counts_every_position():
    for task in (AssociativeRecall(), InductionHeads()):
        assert task.batch("train", [0])["mask"].all()


def test_the_corpus_is_the_files_byte_for_byte(tmp_path):
    texts = {f"part{i}/file{i}.py": f"x = {i}\n".encode() * (i + 1) for i in range(60)}
    for name, text in {**texts, "test/left_out.py": b"1", "site-packages/other.py": b"2", "notes.txt": b"3"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text)
    task = Corpus(length=16, held_out=0.2, folder=str(tmp_path))
    for split in ("train", "valid", "test"):
        chosen = [name for name in sorted(texts, key=lambda n: n.split("/")) if split_of(name, 0.2) == split]
        assert task.text(split).tobytes() == b"".join(texts[name] + b"\0" for name in chosen)
        assert task.facts()["sizes"][split]["files"] == len(chosen) > 3
    held = task.batch("valid", range(task.size("valid")))
    assert bytes(held["targets"][held["mask"]].astype(np.uint8)) == task.text("valid").tobytes()[1:]
    whole = task.text("train").tobytes()
    for row, after in zip(*(task.batch("train", range(50))[key].astype(np.uint8) for key in ("inputs", "targets")), strict=True):
        assert bytes(row) + bytes(after[-1:]) in whole


def test_the_standard_library_is_there_and_split():
    task = Corpus()
    facts = task.facts()
    sizes = {split: facts["sizes"][split]["bytes"] for split in ("train", "valid", "test")}
    assert sum(sizes.values()) > 5e6
    assert 0.01 < sizes["valid"] / sum(sizes.values()) < 0.15
    assert b"def " in task.text("valid").tobytes()
    assert b"import pytest" not in task.text("train").tobytes()
    assert len(facts["sha256"]) == 64
    assert facts["source"].startswith("the standard library of Python 3.")


def test_bad_parameters_are_named():
    for task, options in (
        *((Copying, {"tokens": 2}), (Copying, {"memorize": 0}), (AssociativeRecall, {"tokens": 3}), (AssociativeRecall, {"context": 1})),
        *((InductionHeads, {"context": 2}), (Corpus, {"length": 0}), (Corpus, {"held_out": 0.5})),
    ):
        with pytest.raises(ValueError, match="expected"):
            task(**options)
    with pytest.raises(ValueError, match="folder: expected one that is there"):
        Corpus(folder="/nowhere/at/all").size("train")
