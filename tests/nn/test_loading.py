"""Language models on disk and back, and from a file through ``ssmid distill`` to generated tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import ssmid
from ssmid.cli import main
from ssmid.io.language_models import load_model, save_model
from ssmid.nn import CachedConvolution, ExplicitFilter, LanguageModel, ModalRecurrence, convert, generate

MIXERS = ("hyena", "multihyena", "rtf", "h3", "attention")


def small(mixer: str = "hyena", **options) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(13, width=8, depth=2, mixer=mixer, length=48, **options).eval()


def tokens(length: int = 20) -> torch.Tensor:
    return torch.randint(13, (2, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("mixer", "options"), [*((mixer, {}) for mixer in MIXERS), ("rtf", {"denominator": "montel", "order": 20})])
def test_a_model_comes_back_bit_for_bit(mixer, options, tmp_path):
    model = small(mixer, **options)
    save_model(model, tmp_path / "model.safetensors")
    torch.manual_seed(1)
    found = load_model(tmp_path / "model.safetensors")
    assert found.configuration == model.configuration
    assert not found.training
    assert torch.equal(found(tokens()), model(tokens()))
    states, expected = found.state_dict(), model.state_dict()
    assert {name: (x.dtype, x.shape) for name, x in states.items()} == {name: (x.dtype, x.shape) for name, x in expected.items()}
    assert all(torch.equal(states[name], expected[name]) for name in expected)


def test_dtypes_are_those_of_the_tensors(tmp_path):
    model = small().bfloat16()
    save_model(model, tmp_path / "model.safetensors")
    found = load_model(tmp_path / "model.safetensors")
    assert {x.dtype for x in found.parameters()} == {x.dtype for x in model.parameters()} == {torch.bfloat16, torch.float32}
    assert torch.equal(found(tokens()), model(tokens()))


def test_from_a_file_through_the_command_line_to_tokens(tmp_path, monkeypatch, capsys):
    """Layers are named after their mixers, and every number of the certificate holds in the model that runs."""
    monkeypatch.chdir(tmp_path)
    model = small()
    save_model(model, "model.safetensors")
    status = main(("distill", "model.safetensors", "-o", "out", "--order", "16", "--method", "balanced", "--quiet"))
    assert (status, capsys.readouterr().err) == (0, "")
    distilled = ssmid.load("out")
    assert isinstance(distilled, ssmid.DistilledModel)
    running = convert(load_model("model.safetensors"), distilled)
    recurrences = [(name, m) for name, m in running.named_modules() if isinstance(m, ModalRecurrence)]
    assert len(recurrences) == len(distilled) == 2
    for (path, recurrence), name in zip(recurrences, distilled, strict=True):
        assert path.startswith(name)
        h = model.get_submodule(path)(distilled[name].length).detach().double()  # pyright: ignore[reportCallIssue]
        off = torch.linalg.vector_norm((recurrence(h.shape[-1]) - h)[:, 1:], dim=-1) / torch.linalg.vector_norm(h[:, 1:], dim=-1)
        np.testing.assert_array_less(off.numpy(), distilled[name].certificate.l2 + 1e-5)
    found = generate(running, tokens(), 6, temperature=0.0)
    assert found.shape == (2, 6)
    # the same greedy tokens from whole sequences
    sequence = tokens()
    for t in range(6):
        following = running(sequence)[:, -1].argmax(-1)
        assert torch.equal(found[:, t], following)
        sequence = torch.cat([sequence, following[:, None]], 1)


def test_a_converted_model_comes_back(tmp_path):
    running = convert(small(), ssmid.distill, order=6, method="balanced")
    save_model(running, tmp_path / "running.safetensors")
    found = load_model(tmp_path / "running.safetensors")
    assert sum(isinstance(m, ModalRecurrence) for m in found.modules()) == 2
    assert torch.equal(found(tokens()), running(tokens()))
    assert torch.equal(generate(found, tokens(), 4, temperature=0.0), generate(running, tokens(), 4, temperature=0.0))


# ---------------------------------------------------------------- what cannot be


def test_exact_decoding_is_put_in_after_loading(tmp_path):
    running = convert(small(), CachedConvolution, max_length=64)
    with pytest.raises(ValueError, match="expected a filter as configured or a ModalRecurrence, got CachedConvolution: save the model"):
        save_model(running, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_other_modules_and_places(tmp_path):
    with pytest.raises(TypeError, match="model: expected a LanguageModel, got ExplicitFilter"):
        save_model(ExplicitFilter(torch.ones(2, 3)), tmp_path / "model.safetensors")  # pyright: ignore[reportArgumentType]
    for name in ("model.pt", "model"):
        with pytest.raises(ValueError, match=r"expected the suffix \.safetensors"):
            save_model(small(), tmp_path / name)
    with pytest.raises(ValueError, match="configuration: expected numbers and names, got functions for filter"):
        save_model(small(filter=lambda channels: ExplicitFilter(torch.ones(channels, 4))), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="a file that can be opened"):
        save_model(small(), tmp_path / "nowhere" / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def changed(path: Path, **facts) -> None:
    tensors = safetensors.torch.load_file(path)
    with safe_open(path, "pt") as file:
        head = json.loads(file.metadata()["language_model"])
    safetensors.torch.save_file(tensors, path, {"language_model": json.dumps(head | facts)})


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"model\.safetensors: expected a file that can be opened"):
        load_model(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.safetensors: expected safetensors data, got an empty file"):
        load_model(path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="expected safetensors data, got a pickle"):
        load_model(path)
    safetensors.torch.save_file({"x": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"expected a language model written by ssmid\.save_model, got another safetensors file"):
        load_model(path)
    save_model(small(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors: expected safetensors data, got a damaged or truncated file"):
        load_model(path)
    path.write_bytes(whole)
    changed(path, version=2)
    with pytest.raises(ValueError, match=r"of version 1, got .* of version 2: a newer ssmid wrote it"):
        load_model(path)
    path.write_bytes(whole)
    changed(path, configuration=small().configuration | {"depth": 3})
    with pytest.raises(ValueError, match=r"expected the tensors of its configuration; missing: \['blocks\.2"):
        load_model(path)
    changed(path, configuration={"colour": "blue"})
    with pytest.raises(ValueError, match="expected a language model's data, got a damaged"):
        load_model(path)
