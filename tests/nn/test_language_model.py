"""Language models: prompts and steps against the whole sequence, padding, causality, sizes, and files that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import ssmid
from ssmid.nn import Hyena, LanguageModel, RTFFilter, convert
from tests.nn.laws import DEVICES, DTYPES, close, compiles

MIXERS: dict[str, dict[str, Any]] = {
    "hyena": {"filter": "modal", "order": 4},
    "multihyena": {"filter": "modal", "order": 4},
    "rtf": {"order": 4},
    "h3": {"order": 4},
    "attention": {"heads": 2},
}


def small(mixer: str, **options: Any) -> LanguageModel:
    """A model with larger weights than a start has, so that a mixer matters."""
    torch.manual_seed(1)
    model = LanguageModel(50, 16, 2, mixer, 24, length=32, **{**MIXERS[mixer], **options})
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("proj.weight", "Wqkv.weight", "fc1.weight", "fc2.weight")):
                weight *= 10
    return model


def running(mixer: str, device: str = "cpu", dtype: torch.dtype = torch.float64) -> LanguageModel:
    model = small(mixer).to(device, dtype).eval()
    made = convert(model, "exact") if mixer in ("rtf", "h3") else model
    assert isinstance(made, LanguageModel)
    return made


def tokens_of(batch: int, length: int, device: str = "cpu") -> Tensor:
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(length)).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mixer", MIXERS)
def test_prefill_and_steps_are_the_whole(mixer: str, dtype: torch.dtype, device: str) -> None:
    model, tokens = running(mixer, device, dtype), tokens_of(3, 11, device)
    with torch.no_grad():
        whole = model(tokens)
        assert whole.shape == (3, 11, 50)
        all_at_once, _ = model.prefill(tokens, all_logits=True)
        close(all_at_once, whole, dtype, "prefill")
        logits, state = model.prefill(tokens[:, :3])
        logits, state = model.prefill(tokens[:, 3:7], state)
        close(logits, whole[:, 6], dtype, "prefill in chunks")
        kept = {name: x.clone() for name, x in state.items()}
        for t in range(7, 11):
            in_place = model.step_(tokens[:, t], kept)
            logits, state = model.step(tokens[:, t], state)
            close(logits, whole[:, t], dtype, "step")
            close(in_place, whole[:, t], dtype, "step_")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 2])
def test_without_a_gradient_the_same_comes_out(batch: int, dtype: torch.dtype, device: str) -> None:
    """On a GPU by other kernels, for one sequence by others again."""
    model, tokens = running("hyena", device, dtype), tokens_of(batch, 11, device)
    trained = model(tokens)
    assert trained.requires_grad
    with torch.no_grad():
        close(model(tokens), trained, dtype, "forward")
        logits, state = model.prefill(tokens[:, :7])
        close(logits, trained[:, 6], dtype, "prefill")
        for t in range(7, 11):
            close(model.step_(tokens[:, t], state), trained[:, t], dtype, "step_")


@pytest.mark.parametrize("mixer", MIXERS)
def test_states_are_flat_and_travel(mixer: str, tmp_path: Path) -> None:
    model, tokens = running(mixer), tokens_of(2, 6)
    with torch.no_grad():
        _, state = model.prefill(tokens)
        assert all(name.startswith(("blocks.0.mixer.", "blocks.1.mixer.")) for name in state)
        assert {name: x.shape for name, x in state.items()} == {name: x.shape for name, x in model.initial_state(2).items()}
        real = {name: torch.view_as_real(x) if x.is_complex() else x for name, x in state.items()}
        save_file(real, tmp_path / "state.safetensors")
        loaded = load_file(tmp_path / "state.safetensors")
        again = {name: torch.view_as_complex(loaded[name]) if x.is_complex() else loaded[name] for name, x in state.items()}
        assert torch.equal(model.step(tokens[:, 0], again)[0], model.step(tokens[:, 0], state)[0])


@pytest.mark.parametrize("mixer", MIXERS)
def test_padding_on_the_left_changes_nothing(mixer: str) -> None:
    model, tokens = running(mixer), tokens_of(3, 9)
    lengths = [9, 5, 1]
    mask = torch.stack([torch.arange(9) >= 9 - n for n in lengths])
    with torch.no_grad():
        whole = model(tokens, mask)
        logits, state = model.prefill(tokens, mask=mask)
        after = model.step(torch.tensor([7, 8, 9]), state)[0]
        for i, n in enumerate(lengths):
            alone, own = model.prefill(tokens[i : i + 1, 9 - n :])
            close(logits[i : i + 1], alone, torch.float64)
            close(whole[i : i + 1, -1], alone, torch.float64)
            close(after[i : i + 1], model.step(torch.tensor([7 + i]), own)[0], torch.float64)


@pytest.mark.parametrize("mixer", MIXERS)
def test_later_tokens_change_nothing_earlier(mixer: str) -> None:
    model, tokens = small(mixer).double().eval(), tokens_of(1, 12)
    other = tokens.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 50
    with torch.no_grad():
        one, two = model(tokens), model(other)
    close(two[:, :7], one[:, :7], torch.float64)
    assert float((one - two)[:, 7:].abs().amin(1).max()) > 1e-3


@pytest.mark.parametrize("mixer", MIXERS)
def test_earlier_tokens_change_what_is_later(mixer: str) -> None:
    """The mixers mix: else everything above would hold of a model without any."""
    model, tokens = small(mixer).double().eval(), tokens_of(1, 12)
    other = tokens.clone()
    other[:, 2] = (other[:, 2] + 1) % 50
    with torch.no_grad():
        assert float((model(tokens) - model(other))[:, -1].abs().max()) > 1e-6


@pytest.mark.parametrize("mixer", MIXERS)
def test_trains(mixer: str) -> None:
    """One batch is learnt by heart, also with blocks computed twice, which gives the same gradients."""
    tokens = tokens_of(4, 16)
    model, frugal = small(mixer), small(mixer, recompute=True)
    for one in (model, frugal):
        torch.nn.functional.cross_entropy(one(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for (name, p), q in zip(model.named_parameters(), frugal.parameters(), strict=True):
        assert p.grad is not None, name
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-6)
    descent, losses = torch.optim.AdamW(model.parameters(), 3e-3), []
    for _ in range(25):
        descent.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        descent.step()
        losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]


def test_distilled_model_decodes_like_the_convolution() -> None:
    """Filters that are order 4 to rounding: what is left is the whole way through ``convert`` and the decoder."""
    from ssmid.nn import ExplicitFilter

    def ringing(channels: int) -> ExplicitFilter:
        t, decay = torch.arange(64, dtype=torch.float64), torch.linspace(0.5, 0.7, channels, dtype=torch.float64)[:, None]
        return ExplicitFilter(decay**t * torch.cos(0.3 * t) + 0.5 * (decay - 0.2) ** t)

    model = small("hyena", filter=ringing).double().eval()
    quick, tokens = convert(model, ssmid.distill, order=4), tokens_of(2, 14)
    with torch.no_grad():
        whole = model(tokens)
        logits, state = quick.prefill(tokens[:, :5])
        for t in range(5, 14):
            logits, state = quick.step(tokens[:, t], state)
        torch.testing.assert_close(logits, whole[:, -1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mixer", ["hyena", "multihyena"])
def test_checkpoints_are_read_as_banks_of_filters(mixer: str, tmp_path: Path) -> None:
    model = small(mixer, filter="implicit")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    layers = ssmid.read_checkpoint(tmp_path / "model.safetensors").layers
    assert [(layer.name, layer.layout) for layer in layers] == [(f"blocks.{i}.mixer", mixer) for i in range(2)]
    for layer, block in zip(layers, model.blocks, strict=True):
        own = block.mixer.filter_fn.double()(32).detach().numpy()
        np.testing.assert_allclose(layer.load().taps, own, rtol=0, atol=1e-9 * np.abs(own).max())


def test_checkpoints_of_higher_order(tmp_path: Path) -> None:
    """One bank a level."""
    model = LanguageModel(50, 8, 1, lambda width: Hyena(width, 3, trained_length=16))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    layers = ssmid.read_checkpoint(tmp_path / "model.safetensors").layers
    assert [layer.name for layer in layers] == ["blocks.0.mixer.filter_fn.0", "blocks.0.mixer.filter_fn.1"]
    for layer, filter in zip(layers, model.blocks[0].mixer.filters, strict=True):
        own = filter.double()(16).detach().numpy()
        np.testing.assert_allclose(layer.load().taps, own, rtol=0, atol=1e-9 * np.abs(own).max())


@pytest.mark.parametrize(
    ("size", "mixer", "millions"),
    [("125M", "hyena", 125), ("153M", "hyena", 153), ("355M", "hyena", 355), ("1.3B", "hyena", 1300), ("1.3B", "multihyena", 1300),
     ("1.3B", "rtf", 1300), ("1.3B", "h3", 1300), ("125M", "attention", 125), ("355M", "attention", 355), ("1.3B", "attention", 1300)],
)  # fmt: skip
def test_sizes(size: str, mixer: str, millions: int) -> None:
    with torch.device("meta"):
        model = LanguageModel.from_size(size, mixer)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(millions * 1e6, rel=0.03)


def test_start() -> None:
    """Standard deviations as published, and smaller into the residual stream."""
    torch.manual_seed(0)
    model = LanguageModel(200, 64, 8, length=16)
    for name, weight in model.named_parameters():
        if name.endswith("in_proj.weight") or name == "embedding.weight":
            assert float(weight.std()) == pytest.approx(0.02, rel=0.05)
        if name.endswith(("out_proj.weight", "fc2.weight")):
            assert float(weight.std()) == pytest.approx(0.02 / 4, rel=0.05)


@pytest.mark.parametrize("denominator", [None, "free", "montel", "sections", "lattice", "poles"])
@pytest.mark.parametrize("mixer", ["rtf", "hyena", "multihyena"])
def test_rational_filters_have_the_denominators_asked_for(mixer: str, denominator: str | None) -> None:
    """And are stable at an order where most draws of free coefficients by Xavier's rule are not."""
    asked: dict[str, Any] = {} if denominator is None else {"denominator": denominator}
    model = LanguageModel(50, 16, 2, mixer, length=128, filter="rtf", order=64, heads=8, **asked)
    filters = [module for module in model.modules() if isinstance(module, RTFFilter)]
    assert [(f.denominator_kind, f.order, f.length) for f in filters] == 2 * [(denominator or "sections", 64, 128)]
    assert all(bool(f.stable().all()) for f in filters)
    limit = 1 / 64 if denominator == "free" else 1 / 8
    assert all(0.9 * limit < float(f.numerator.detach().abs().max()) <= limit for f in filters), "Montel's rule or Xavier's"


def test_compiles() -> None:
    model = small("hyena", filter="explicit").double().eval()
    compiles(model, tokens_of(2, 8))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"size: expected one of 125M, 153M, 355M, 1\.3B, got '7B'"):
        LanguageModel.from_size("7B")
    with pytest.raises(ValueError, match="the width or one of hyena, multihyena, rtf, h3, attention, got 'mamba'"):
        LanguageModel(10, 8, 1, "mamba")
    with pytest.raises(ValueError, match="filter: expected a function of the number of channels or one of implicit"):
        LanguageModel(10, 8, 1, filter="none")
    with pytest.raises(ValueError, match="denominator: expected one of free, montel, sections, lattice, poles, got 'stable'"):
        LanguageModel(10, 8, 1, "rtf", denominator="stable")
    with pytest.raises(ValueError, match="depth: expected at least 1, got 0"):
        LanguageModel(10, 8, 0)
    model = running("hyena")
    with pytest.raises(ValueError, match=r"at least one for each sequence, got shape \(2, 0\)"):
        model.prefill(torch.zeros(2, 0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"integers of shape \(batch,\), got torch.int64 of shape \(2, 1\)"):
        model.step(torch.zeros(2, 1, dtype=torch.int64), model.initial_state(2))
    with pytest.raises(ValueError, match=r"'blocks\.0\.mixer' among its names, got short"):
        model.step(torch.zeros(2, dtype=torch.int64), {"short": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"convert\(model"):
        small("rtf").prefill(tokens_of(1, 3))
