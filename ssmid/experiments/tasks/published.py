"""Tasks whose data are published and not generated: Text, Retrieval and Image of the Long Range Arena, WikiText-103, Speech Commands.

Nothing is downloaded: each reads the files as their authors publish them from a folder that the user names, and says what it misses (a
ValueError). Preparation follows S4 and RTF (Gu et al. 2022, Parnichkun et al. 2024) but for the vocabulary of text: bytes, where they count
the characters that occur.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.io import wavfile

from ssmid.experiments.tasks.task import Batch, Kind, Split, checked, padded, stream
from ssmid.report.progress import Stage

END = 257
"""After every text of bytes; byte b is token b + 1, and 0 is padding."""


@dataclass(frozen=True)
class _Published(ABC):
    folder: str

    name: ClassVar[str]
    kind: ClassVar[Kind] = "classify"
    inputs: ClassVar[Literal["tokens", "signals"]] = "tokens"
    vocabulary: ClassVar[int] = 258
    channels: ClassVar[int] = 0
    outputs: ClassVar[int] = 2
    sequences: ClassVar[int] = 1
    fresh: ClassVar[bool] = False

    def prepare(self, *, workers: int = 1, stage: Stage | None = None) -> None:
        """Reads the files, or their names where they are read one by one."""
        for split in ("train", "valid", "test"):
            if stage is not None:
                stage(f"{self.name} {split}")
            self.size(split)

    @abstractmethod
    def size(self, split: Split) -> int: ...

    def facts(self) -> dict[str, Any]:
        facts = asdict(self)
        del facts["folder"]
        return {"task": self.name, **facts}


@dataclass(frozen=True)
class Text(_Published):
    """Is a film review good? IMDB (Maas et al. 2011) in bytes: ``train`` and ``test`` with ``pos`` and ``neg``, a ``.txt`` file a review.

    folder : ``aclImdb``. As in the published experiments the test set is also ``"valid"``: none other is there.
    """

    length: int = 4096
    name: ClassVar[str] = "text"

    def size(self, split: Split) -> int:
        return len(_reviews(self.folder, split)[1])

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index = checked(split, indices, self.size(split))
        texts, labels = _reviews(self.folder, split)
        inputs, mask = padded([_bytes(texts[i].read_bytes(), self.length) for i in index])
        return {"inputs": inputs, "targets": labels[index], "mask": mask}


@dataclass(frozen=True)
class Retrieval(_Published):
    """Does one paper cite the other? AAN (Radev et al. 2009) in bytes, pairs of texts: ``new_aan_pairs.{train,eval,test}.tsv``.

    folder : ``tsv_data``, with the columns label, first and second paper, first and second text
    """

    length: int = 4000
    name: ClassVar[str] = "retrieval"
    sequences: ClassVar[int] = 2

    def size(self, split: Split) -> int:
        return len(_pairs(self.folder, split)[0])

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index = checked(split, indices, self.size(split))
        labels, texts = _pairs(self.folder, split)
        inputs, mask = padded([_bytes(text, self.length) for i in index for text in texts[i]])
        shape = (len(index), 2, inputs.shape[1])
        return {"inputs": inputs.reshape(shape), "targets": labels[index], "mask": mask.reshape(shape)}


@dataclass(frozen=True)
class Image(_Published):
    """What is in a picture? CIFAR-10 (Krizhevsky 2009) in grey, pixel by pixel, less 122.6 and over 61, as published.

    folder : ``cifar-10-batches-bin``, the binary version: ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.
    Of the training images one in ten, drawn once for each seed, is ``"valid"``.
    """

    seed: int = 0
    name: ClassVar[str] = "image"
    inputs: ClassVar[Literal["tokens", "signals"]] = "signals"
    vocabulary: ClassVar[int] = 0
    channels: ClassVar[int] = 1
    outputs: ClassVar[int] = 10
    length: ClassVar[int] = 1024

    def size(self, split: Split) -> int:
        return len(_pictures(self.folder, self.seed, split)[1])

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index = checked(split, indices, self.size(split))
        grey, labels = _pictures(self.folder, self.seed, split)
        pixels = ((grey[index].astype(np.float32) - 122.6) / 61).astype(np.float32)[..., None]
        return {"inputs": pixels, "targets": labels[index], "mask": np.ones(pixels.shape[:2], dtype=bool)}


@dataclass(frozen=True)
class WikiText103(_Published):
    """The next word of Wikipedia (Merity et al. 2017): ``wiki.{train,valid,test}.tokens``, cut at white space, ``<eos>`` after every line.

    folder : ``wikitext-103``. The vocabulary is that of the training text in the order of its first use; ``<unk>`` stands in the files.
    Windows of ``length`` words end to end. Perplexities of models on other tokens (Hyena and RTF use GPT-2's) are not comparable.
    """

    length: int = 1024
    name: ClassVar[str] = "wikitext-103"
    kind: ClassVar[Kind] = "language"

    @property
    def vocabulary(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return len(_words(self.folder))

    @property
    def outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.vocabulary

    def size(self, split: Split) -> int:
        return -(-(len(_numbered(self.folder, split)) - 1) // self.length)

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index, text = checked(split, indices, self.size(split)), _numbered(self.folder, split)
        places = index[:, None] * self.length + np.arange(self.length + 1)
        windows = np.where(places < len(text), text[np.minimum(places, len(text) - 1)], 0).astype(np.int64)
        return {"inputs": windows[:, :-1].copy(), "targets": windows[:, 1:].copy(), "mask": places[:, 1:] < len(text)}


@dataclass(frozen=True)
class SpeechCommands(_Published):
    """Which of 35 words is said? Version 0.02 (Warden 2018): a second of raw sound, less the mean, over the deviation of the training set.

    folder : a folder of ``.wav`` files for each word, ``validation_list.txt``, ``testing_list.txt``. Files are read when they are needed;
    shorter ones end in silence. Raises ValueError for a file of another rate than 16000.
    """

    name: ClassVar[str] = "speech-commands"
    inputs: ClassVar[Literal["tokens", "signals"]] = "signals"
    vocabulary: ClassVar[int] = 0
    channels: ClassVar[int] = 1
    outputs: ClassVar[int] = 35
    length: ClassVar[int] = 16_000

    def size(self, split: Split) -> int:
        return len(_sounds(self.folder)[split][1])

    def prepare(self, *, workers: int = 1, stage: Stage | None = None) -> None:
        """Lists the files and reads the training set once, for its mean and deviation."""
        _loudness(self.folder, stage)

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index = checked(split, indices, self.size(split))
        paths, labels = _sounds(self.folder)[split]
        mean, deviation = _loudness(self.folder, None)
        sounds = np.stack([_sound(paths[i]) for i in index]) if len(index) else np.zeros((0, self.length))
        inputs = ((sounds - mean) / deviation).astype(np.float32)[..., None]
        return {"inputs": inputs, "targets": labels[index], "mask": np.ones(inputs.shape[:2], dtype=bool)}


WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy", "house", "learn"),
    *("left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop", "three", "tree", "two", "up"),
    *("visual", "wow", "yes", "zero"),
)
"""The 35 words of Speech Commands, in the order of their classes."""


def _there(folder: str, *names: str, what: str) -> list[Path]:
    """The paths of what a folder must hold; else a ValueError that says what is missing and where it comes from."""
    root = Path(folder).expanduser()
    missing = [name for name in names if not (root / name).exists()]
    if missing:
        raise ValueError(f"folder: expected {what}, which holds {', '.join(names)}; got {str(root)!r} without {', '.join(missing)}")
    return [root / name for name in names]


def _bytes(text: bytes, length: int) -> np.ndarray:
    return np.append(np.frombuffer(text[: length - 1], dtype=np.uint8).astype(np.int64) + 1, END)


@lru_cache(maxsize=4)
def _reviews(folder: str, split: str) -> tuple[list[Path], np.ndarray]:
    part = "train" if split == "train" else "test"
    what = "aclImdb, unpacked (ai.stanford.edu/~amaas/data/sentiment)"
    negative, positive = (sorted(path.glob("*.txt")) for path in _there(folder, f"{part}/neg", f"{part}/pos", what=what))
    return negative + positive, np.repeat([0, 1], [len(negative), len(positive)])


@lru_cache(maxsize=4)
def _pairs(folder: str, split: str) -> tuple[np.ndarray, list[tuple[bytes, bytes]]]:
    name = {"train": "train", "valid": "eval", "test": "test"}[split]
    what = "tsv_data of lra_release.gz (github.com/google-research/long-range-arena)"
    (path,) = _there(folder, f"new_aan_pairs.{name}.tsv", what=what)
    # a paper is longer than the 128 KiB that a field may have unasked
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(int(float(label)), first.encode(), second.encode()) for label, _, _, first, second in csv.reader(file, delimiter="\t")]
    return np.array([label for label, _, _ in rows], dtype=np.int64), [(first, second) for _, first, second in rows]


@lru_cache(maxsize=6)
def _pictures(folder: str, seed: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    names = ["test_batch.bin"] if split == "test" else [f"data_batch_{i}.bin" for i in range(1, 6)]
    paths = _there(folder, *names, what="cifar-10-batches-bin, the binary version (www.cs.toronto.edu/~kriz/cifar.html)")
    rows = np.concatenate([np.fromfile(path, dtype=np.uint8).reshape(-1, 3073) for path in paths])
    if split != "test":
        shuffled = stream("image", seed, "split", 0).permutation(len(rows))
        cut = len(rows) // 10
        rows = rows[np.sort(shuffled[:cut] if split == "valid" else shuffled[cut:])]
    red, green, blue = rows[:, 1:].reshape(-1, 3, 1024).astype(np.int64).transpose(1, 0, 2)
    # luma of ITU-R 601 in sixteenths of a bit, as Pillow's and torchvision's
    grey = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
    return grey, rows[:, 0].astype(np.int64)


def _tokens(folder: str, split: str) -> list[str]:
    (path,) = _there(folder, f"wiki.{split}.tokens", what="wikitext-103, in words (Merity et al. 2017)")
    return [word for line in path.read_text(encoding="utf-8").split("\n")[:-1] for word in (*line.split(), "<eos>")]


@lru_cache(maxsize=2)
def _words(folder: str) -> dict[str, int]:
    return {word: i for i, word in enumerate(dict.fromkeys(["<unk>", *_tokens(folder, "train")]))}


@lru_cache(maxsize=6)
def _numbered(folder: str, split: str) -> np.ndarray:
    words = _words(folder)
    return np.array([words.get(word, 0) for word in _tokens(folder, split)], dtype=np.int32)


@lru_cache(maxsize=2)
def _sounds(folder: str) -> dict[str, tuple[list[Path], np.ndarray]]:
    lists = ("validation_list.txt", "testing_list.txt")
    valid, test, *words = _there(folder, *lists, *WORDS, what="Speech Commands 0.02 (Warden 2018), unpacked")
    listed = {"valid": set(valid.read_text().split()), "test": set(test.read_text().split())}
    found: dict[str, list[tuple[Path, int]]] = {"train": [], "valid": [], "test": []}
    for label, word in enumerate(words):
        for path in sorted(word.glob("*.wav")):
            name = f"{word.name}/{path.name}"
            split = next((split for split, names in listed.items() if name in names), "train")
            found[split].append((path, label))
    return {split: ([p for p, _ in pairs], np.array([c for _, c in pairs], dtype=np.int64)) for split, pairs in found.items()}


def _sound(path: Path) -> np.ndarray:
    rate, samples = wavfile.read(path)
    if rate != SpeechCommands.length or samples.ndim != 1:
        raise ValueError(f"{path.name}: expected one channel of {SpeechCommands.length} samples a second, got {samples.shape} at {rate}")
    return np.pad(samples[: SpeechCommands.length].astype(np.float64) / 2**15, (0, max(0, SpeechCommands.length - len(samples))))


_LOUDNESS: dict[str, tuple[float, float]] = {}


def _loudness(folder: str, stage: Stage | None) -> tuple[float, float]:
    """Mean and deviation of all training samples."""
    if folder not in _LOUDNESS:
        paths = _sounds(folder)["train"][0]
        total = square = 0.0
        for done, path in enumerate(paths):
            sound = _sound(path)
            total, square = total + sound.sum(), square + (sound**2).sum()
            if stage is not None and done % 500 == 0:
                stage("speech-commands train", done, len(paths))
        count = len(paths) * SpeechCommands.length
        _LOUDNESS[folder] = total / count, float(np.sqrt(square / count - (total / count) ** 2))
    return _LOUDNESS[folder]
