"""Hyena of any order against loops over time, and the laws of layers, with any filter in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ssmid
from ssmid.nn import CachedConvolution, ExplicitFilter, Hyena, HyenaFilter, ModalFilter
from ssmid.nn.filter import Filter
from ssmid.nn.recurrence import ModalRecurrence
from tests.nn.laws import DEVICES, DTYPES, close, compiles, gradients_are_right, layer_laws, state_dict_travels


def modal_bank(channels: int) -> Filter:
    """Pairs of poles that ring for some ten samples, and a feedthrough."""
    rng = np.random.default_rng(channels)
    poles = rng.uniform(0.3, 0.9, (channels, 2)) * np.exp(1j * rng.uniform(0.1, 3.0, (channels, 2)))
    residues = rng.standard_normal((channels, 2)) + 1j * rng.standard_normal((channels, 2))
    both = (np.stack([x, x.conj()], -1).reshape(channels, 4) for x in (poles, residues))
    return ModalRecurrence(ssmid.Modal(*both, rng.standard_normal(channels)))


def by_definition(layer: Hyena, u: torch.Tensor) -> np.ndarray:
    x, D = u.detach().numpy(), layer.width
    W, b = layer.in_proj.weight.detach().numpy(), layer.in_proj.bias.detach().numpy()
    w, c = layer.short_filter.weight.detach().numpy()[:, 0], layer.short_filter.bias.detach().numpy()
    projected, length = x @ W.T + b, x.shape[1]
    short = np.zeros_like(projected)
    for t in range(length):
        short[:, t] = c + sum(w[:, 2 - i] * projected[:, t - i] for i in range(min(t + 1, 3)))
    streams = [short[..., i * D : (i + 1) * D] for i in range(layer.order + 1)]
    v = streams[-1]
    for level, filter in enumerate(layer.filters):
        taps, z, y = filter(length).detach().numpy(), streams[layer.order - 1 - level] * v, np.zeros_like(v)
        for t in range(length):
            for s in range(t + 1):
                y[:, t] += taps[:, s] * z[:, t - s]
        v = y
    return (streams[0] * v) @ layer.out_proj.weight.detach().numpy().T + layer.out_proj.bias.detach().numpy()


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 9, 14])
def test_definition(order: int, length: int) -> None:
    """14 is longer than trained."""
    layer = Hyena(3, order, trained_length=9, hidden=8).double()
    u = torch.randn(2, length, 3, dtype=torch.float64)
    expected = by_definition(layer, u)
    np.testing.assert_allclose(layer(u).detach().numpy(), expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [2, 3])
def test_laws(device: str, dtype: torch.dtype, order: int) -> None:
    layer_laws(Hyena(5, order, filter=modal_bank), device, dtype, lengths=(1, 2, 7, 16))


@pytest.mark.parametrize("order", [2, 3])
def test_laws_of_exact_decoding(order: int) -> None:
    def make(channels: int) -> Filter:
        return CachedConvolution(HyenaFilter(channels, 40, hidden=8), 40)

    layer_laws(Hyena(5, order, filter=make), lengths=(1, 5, 12))


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_in_one_kernel(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """The way of a GPU, on which the function in the place of the kernel is the plain one."""
    monkeypatch.setattr("ssmid.nn.hyena.fused", lambda *_: True)
    layer_laws(Hyena(5, filter=modal_bank), "cpu", dtype, lengths=())
    layer_laws(Hyena(5, filter=modal_bank, taps=4), "cpu", dtype, lengths=())
    layer_laws(Hyena(5, filter=lambda channels: ModalFilter(channels, 4)), "cpu", dtype, lengths=())


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_sequences_without_a_gradient(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """The way of a GPU, on which the functions in the place of the kernels are the plain ones."""
    layer, u = Hyena(5, filter=modal_bank).to(dtype), torch.randn(2, 9, 5, dtype=dtype)
    torch.nn.init.normal_(layer.in_proj.bias)
    mask = torch.tensor([[True] * 9, [False] * 3 + [True] * 6])
    u[1, :3] = torch.nan

    def results() -> list[torch.Tensor]:
        first, state = layer.prefill(u[:, :4], None, mask[:, :4])
        second, after = layer.prefill(u[:, 4:], state, mask[:, 4:])
        return [layer(u, mask)[mask], torch.cat([first, second], 1)[mask], *after.values()]

    expected = results()
    monkeypatch.setattr("ssmid.nn.hyena.without_gradient", lambda *_: True)
    for found, exact in zip(results(), expected, strict=True):
        assert found.dtype == exact.dtype
        close(found, exact, dtype)
    _, state = layer.prefill(u[:1])
    with pytest.raises(ValueError, match=r"last inputs, of shape \(2, 15, 2\), got \(1, 15, 2\)"):
        layer.prefill(u, state)


def test_states_that_do_not_fit_reach_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssmid.nn.hyena.fused", lambda *_: True)
    layer, u = Hyena(5, filter=modal_bank).double(), torch.zeros(2, 5, dtype=torch.float64)
    one, two = layer.initial_state(1), layer.initial_state(2)
    with pytest.raises(ValueError, match=r"complex128 of shape \(2, 5, 2\), got complex128 of shape \(1, 5, 2\)"):
        layer.step_(u, {**two, "long": one["long"]})
    with pytest.raises(ValueError, match=r"last inputs, of shape \(2, 15, 2\), got \(1, 15, 2\)"):
        layer.step_(u, {**two, "short": one["short"]})


def test_padding_may_hold_anything() -> None:
    """NaN under the padding, too."""
    layer = Hyena(4, trained_length=16, hidden=8)
    u = torch.randn(1, 10, 4)
    u[:, :3] = torch.nan
    mask = torch.arange(10)[None] >= 3
    torch.testing.assert_close(layer(u, mask)[:, 3:], layer(u[:, 3:]))


@pytest.mark.parametrize("order", [2, 3])
def test_gradients(order: int) -> None:
    layer = Hyena(2, order, filter=lambda channels: ExplicitFilter(torch.randn(channels, 5)))
    gradients_are_right(layer, torch.randn(2, 6, 2, requires_grad=True))


def test_compiles_and_travels(tmp_path: Path) -> None:
    layer = Hyena(4, trained_length=8, hidden=4).double()
    u = torch.randn(2, 6, 4, dtype=torch.float64)
    compiles(layer, u)
    state_dict_travels(lambda: Hyena(4, trained_length=8, hidden=4), tmp_path, lambda layer: layer(u.float()))


def test_bf16_keeps_the_filter_in_single_precision() -> None:
    layer = Hyena(4, trained_length=16, hidden=8)
    before = layer.filter_fn(16)
    layer = layer.bfloat16()
    assert layer.in_proj.weight.dtype == torch.bfloat16
    assert torch.equal(layer.filter_fn(16), before)
    assert layer(torch.randn(1, 5, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="expected at least 1 and 2, got 4 and 1"):
        Hyena(4, 1)
    with pytest.raises(ValueError, match=r"filter: expected 2 of 4 channels, got channels \[4\]"):
        Hyena(4, 3, filter=ExplicitFilter(torch.zeros(4, 3)))
    with pytest.raises(ValueError, match="options of the implicit filter"):
        Hyena(4, filter=ExplicitFilter(torch.zeros(4, 3)), hidden=3)
    with pytest.raises(ValueError, match=r"expected shape \(batch, length, 4\), got \(2, 5, 3\)"):
        Hyena(4, trained_length=4)(torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match=r"convert\(model"):
        Hyena(4, trained_length=4).prefill(torch.zeros(2, 5, 4))
    layer = Hyena(4, filter=modal_bank)
    with pytest.raises(ValueError, match="'long' among its names, got short"):
        layer.step(torch.zeros(1, 4), {"short": torch.zeros(1, 12, 2)})
