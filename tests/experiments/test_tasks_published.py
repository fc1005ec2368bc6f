"""Loaders of published data, on small files in the published formats written here."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy.io import wavfile

from ssmid.experiments.tasks.published import END, WORDS, Image, Retrieval, SpeechCommands, Text, WikiText103


def test_text_reads_reviews_as_bytes(tmp_path):
    for part, mood, text in (("train", "neg", "bad"), ("train", "pos", "very good é"), ("test", "neg", "x" * 50), ("test", "pos", "fine")):
        folder = tmp_path / part / mood
        folder.mkdir(parents=True)
        (folder / "0_1.txt").write_text(text, encoding="utf-8")
    task = Text(str(tmp_path), length=20)
    batch = task.batch("train", [0, 1])
    assert batch["targets"].tolist() == [0, 1]
    assert batch["inputs"][0].tolist() == [*(b + 1 for b in b"bad"), END, *[0] * 9]
    assert batch["mask"].sum(axis=1).tolist() == [4, len("very good é".encode()) + 1]
    assert task.batch("test", [0])["inputs"].shape == (1, 20)
    assert task.batch("test", [0])["inputs"].max() == END < task.vocabulary
    assert task.size("valid") == task.size("test") == 2


def test_retrieval_reads_pairs(tmp_path):
    for name in ("train", "eval", "test"):
        with (tmp_path / f"new_aan_pairs.{name}.tsv").open("w", newline="") as file:
            rows = [["1.0", "a", "b", "first text", "second\ttext"], ["0.0", "c", "d", "z" * 200_000, "y"]]
            csv.writer(file, delimiter="\t").writerows(rows)
    task = Retrieval(str(tmp_path), length=12)
    batch = task.batch("valid", [1, 0])
    assert batch["inputs"].shape == batch["mask"].shape == (2, 2, 12)
    assert batch["targets"].tolist() == [0, 1]
    assert bytes(int(t) - 1 for t in batch["inputs"][1, 1, :11]) == b"second\ttext"
    assert batch["mask"].sum(axis=2).tolist() == [[12, 2], [11, 12]]


def test_image_reads_the_binary_version(tmp_path):
    rng = np.random.default_rng(0)
    rows = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows[name] = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
        rows[name][:, 0] %= 10
        rows[name].tofile(tmp_path / f"{name}.bin")
    task = Image(str(tmp_path))
    assert [task.size(split) for split in ("train", "valid", "test")] == [90, 10, 20]
    batch = task.batch("test", range(20))
    colours = rows["test_batch"][:, 1:].reshape(20, 3, 1024).astype(float)
    grey = np.rint(0.299 * colours[:, 0] + 0.587 * colours[:, 1] + 0.114 * colours[:, 2])
    assert np.abs(batch["inputs"][..., 0] * 61 + 122.6 - grey).max() < 1.01
    assert np.abs(batch["inputs"][..., 0] * 61 + 122.6 - grey).mean() < 0.01
    np.testing.assert_array_equal(batch["targets"], rows["test_batch"][:, 0])
    train, valid = (task.batch(split, range(task.size(split)))["inputs"] for split in ("train", "valid"))
    assert len({row.tobytes() for row in np.concatenate([train, valid])}) == 100


def test_wikitext_numbers_words(tmp_path):
    texts = {"train": " = A = \n \n the cat <unk> the dog \n", "valid": " the bird \n", "test": " cat dog \n cat \n"}
    for split, text in texts.items():
        (tmp_path / f"wiki.{split}.tokens").write_text(text)
    task = WikiText103(str(tmp_path), length=4)
    assert task.vocabulary == task.outputs == len({"<unk>", "=", "A", "<eos>", "the", "cat", "dog"})
    batch = task.batch("train", range(task.size("train")))
    # <unk> 0, = 1, A 2, <eos> 3, the 4, cat 5, dog 6
    assert batch["targets"][batch["mask"]].tolist() == [2, 1, 3, 3, 4, 5, 0, 4, 6, 3]
    assert batch["inputs"][0].tolist() == [1, 2, 1, 3]
    assert task.batch("valid", [0])["inputs"][0, :2].tolist() == [4, 0]


def test_speech_commands_are_split_by_their_lists(tmp_path):
    rng = np.random.default_rng(1)
    assert len(WORDS) == len(set(WORDS)) == 35
    sounds = {}
    for word in WORDS:
        (tmp_path / word).mkdir()
        for i in range(3):
            sounds[f"{word}/{i}.wav"] = rng.integers(-9000, 9000, 16_000 if i else 12_000).astype(np.int16)
            wavfile.write(tmp_path / word / f"{i}.wav", 16_000, sounds[f"{word}/{i}.wav"])
    (tmp_path / "validation_list.txt").write_text("".join(f"{word}/1.wav\n" for word in WORDS))
    (tmp_path / "testing_list.txt").write_text("cat/2.wav\n")
    task = SpeechCommands(str(tmp_path))
    assert [task.size(split) for split in ("train", "valid", "test")] == [69, 35, 1]
    task.prepare()
    train = task.batch("train", range(69))
    assert train["inputs"].mean() == pytest.approx(0, abs=1e-4)
    assert train["inputs"].std() == pytest.approx(1, abs=1e-4)
    one = task.batch("test", [0])
    assert WORDS[one["targets"][0]] == "cat"
    assert np.corrcoef(one["inputs"][0, :, 0], sounds["cat/2.wav"])[0, 1] > 1 - 1e-6


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        *((Text, "train/neg, train/pos"), (Retrieval, "new_aan_pairs.train.tsv")),
        *((Image, "data_batch_1.bin"), (WikiText103, "wiki.train.tokens")),
    ],
)
def test_what_is_missing_is_named(tmp_path, kind, missing):
    with pytest.raises(ValueError, match=f"folder: expected .* got .* without {missing}"):
        kind(str(tmp_path)).size("train")


def test_missing_words_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"Speech Commands 0\.02 .* without validation_list\.txt, testing_list\.txt, backward"):
        SpeechCommands(str(tmp_path)).size("train")
