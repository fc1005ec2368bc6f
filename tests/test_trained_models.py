"""The bundled language models: what is said of them is so, they know Python, and distilled they say the same."""

from __future__ import annotations

import json
import lzma
from importlib.resources import files

import numpy as np
import pytest
import torch

import ssmid
from ssmid.nn import CachedConvolution, LanguageModel, convert
from ssmid.nn.filter import Filter

DATA = files("ssmid").joinpath("data")
NAMES = ("hyena", "multihyena", "hyena-rtf")
KNOWN = json.loads(DATA.joinpath("small_models.json").read_bytes())
WINDOW, PROMPT = 512, 64


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name) -> LanguageModel:
    return ssmid.datasets.trained_model(name)


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    text = np.frombuffer(ssmid.datasets.sample_text(), np.uint8)
    return torch.from_numpy(text[: len(text) // WINDOW * WINDOW].astype(np.int64)).view(-1, WINDOW)


@torch.no_grad()
def bits(model, windows: torch.Tensor) -> float:
    """A byte, of all but the first of every window."""
    logs = model(windows).log_softmax(-1)[:, :-1]
    return float(-logs.gather(-1, windows[:, 1:, None]).mean() / np.log(2))


@torch.no_grad()
def greedy(model, prompts: torch.Tensor, n: int) -> torch.Tensor:
    """Each token from the whole sequence, by the convolutions."""
    sequences = prompts
    for _ in range(n):
        sequences = torch.cat([sequences, model(sequences)[:, -1:].argmax(-1)], 1)
    return sequences[:, prompts.shape[1] :]


def running_of(name: str, model: LanguageModel) -> torch.nn.Module:
    """As it is decoded: exactly where filters are rational already, else at order 16."""
    return convert(model, "exact") if name == "hyena-rtf" else convert(model, ssmid.distill, order=16, method="balanced")


def test_what_is_said_of_a_model_is_so(name, model):
    known = KNOWN[name]
    asked = known["configuration"]["model"]
    assert {key: model.configuration[key] for key in asked} == asked
    assert (model.configuration["length"], model.vocabulary) == (known["task"]["length"], 256)
    assert sum(p.numel() for p in model.parameters()) == known["parameters"]
    assert {x.dtype for x in model.parameters()} == {torch.float32}
    assert known["steps"] == known["configuration"]["steps"]
    assert known["task"]["source"].startswith("the standard library of Python 3.")
    assert abs(known["rounding"]["bits_after"] - known["rounding"]["bits_before"]) < 1e-3
    assert known["test"]["bits"] == pytest.approx(known["rounding"]["bits_before"], rel=1e-3), "in bf16 on a GPU, and in float32"
    assert len(DATA.joinpath(f"{name}.safetensors").read_bytes()) < 2_000_000


def test_it_predicts_python_better_than_a_compressor_packs_it(model, windows):
    text = bytes(windows.flatten().tolist())
    packed = 8 * len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}])) / len(text)
    assert bits(model, windows) < packed
    shuffled = windows[:, torch.randperm(WINDOW, generator=torch.Generator().manual_seed(0))]
    assert bits(model, shuffled) > 2 * bits(model, windows), "the order of bytes is what it knows"


def test_its_filters_are_those_of_its_layers(name, model):
    taps = ssmid.datasets.trained_filters(name).taps
    assert taps.dtype == np.float32
    assert taps.shape == (4 * (32 if name == "multihyena" else 128), WINDOW)
    last = [m for m in model.modules() if isinstance(m, Filter)][-1]
    impulse = torch.zeros(1, last.channels, WINDOW)
    impulse[..., 0] = 1
    with torch.no_grad():
        np.testing.assert_allclose(taps[-last.channels :], last.convolve(impulse)[0], atol=1e-5 * np.abs(taps).max())


@pytest.mark.parametrize(("of", "loss"), [("multihyena", 1e-2), ("hyena-rtf", 1e-4)])
def test_distilled_it_says_the_same(of, loss, windows):
    """Bits per byte over what was not trained on, and greedy text by steps of the recurrence beside that of the whole convolution."""
    model = ssmid.datasets.trained_model(of)
    running = running_of(of, model)
    assert not [m for m in running.modules() if type(m) in {type(f) for f in model.modules() if isinstance(f, Filter)}]
    before, after = bits(model, windows), bits(running, windows)
    assert after == pytest.approx(before, rel=loss)
    prompts = windows[::4, :PROMPT]
    theirs = greedy(model, prompts, 16)
    mine = running.generate(prompts, 16, temperature=0)
    same = float((mine == theirs).double().mean())
    assert same == 1 if of == "hyena-rtf" else same >= 0.9
    exact = convert(model, CachedConvolution, max_length=PROMPT + 16).generate(prompts, 16, temperature=0)
    assert torch.equal(exact, theirs)


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="name: expected one of hyena, multihyena, hyena-rtf, got 'transformer'"):
        ssmid.datasets.trained_model("transformer")


def test_the_text_is_source_that_python_reads():
    text = ssmid.datasets.sample_text()
    assert text.isascii()
    assert 15_000 < len(text) < 25_000
    # several files one after another: statements about the future stand at the top of each
    compile(text.replace(b"from __future__ import annotations", b""), "sample", "exec")
