"""MultiHyena against the definition, head by head, tap by tap, and the laws of layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssmid.nn import CachedConvolution, ExplicitFilter, MultiHyena
from ssmid.nn import multihyena as module
from tests.nn.laws import DEVICES, DTYPES, compiles, gradients_are_right, layer_laws, state_dict_travels
from tests.nn.test_hyena import modal_bank


def by_definition(layer: MultiHyena, u: torch.Tensor) -> np.ndarray:
    """Every entry of every product of every head, one after the other."""
    x, taps = u.detach().numpy(), layer.filter_fn(u.shape[1]).detach().numpy()
    W, b = layer.in_proj.weight.detach().numpy(), layer.in_proj.bias.detach().numpy()
    w, c = layer.short_filter.weight.detach().numpy()[:, 0], layer.short_filter.bias.detach().numpy()
    D, M, N = layer.width, layer.heads, layer.width // layer.heads
    batch, length, _ = x.shape
    y = np.zeros((batch, length, D))
    for n in range(batch):
        projected = np.stack([W @ x[n, t] + b for t in range(length)])
        short = np.stack([c + sum(w[:, 2 - i] * projected[t - i] for i in range(min(t + 1, 3))) for t in range(length)])
        q, k, v = short[:, :D], short[:, D : 2 * D], short[:, 2 * D :]
        for m in range(M):
            for t in range(length):
                for i in range(N):
                    for j in range(N):
                        z = [k[s, m * N + i] * v[s, m * N + j] for s in range(t + 1)]
                        y[n, t, m * N + j] += q[t, m * N + i] * sum(taps[m, t - s] * z[s] for s in range(t + 1))
    return y @ layer.out_proj.weight.detach().numpy().T + layer.out_proj.bias.detach().numpy()


@pytest.mark.parametrize(("width", "heads"), [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize("at_once", [1, 2**26])
def test_definition(monkeypatch: pytest.MonkeyPatch, width: int, heads: int, at_once: int) -> None:
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", at_once)
    layer = MultiHyena(width, heads, trained_length=9, hidden=8).double()
    u = torch.randn(2, 7, width, dtype=torch.float64)
    expected = by_definition(layer, u)
    with torch.no_grad():
        np.testing.assert_allclose(layer(u).numpy(), expected, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(layer(u).detach().numpy(), expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at_once", [1, 2**26])
def test_laws(monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype, at_once: int) -> None:
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", at_once)
    layer_laws(MultiHyena(6, 2, filter=modal_bank), device, dtype, lengths=(1, 2, 7, 16))


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_in_one_kernel(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """The way of a GPU, on which the function in the place of the kernel is the plain one."""
    monkeypatch.setattr(module, "fused", lambda *_: True)
    layer_laws(MultiHyena(6, 2, filter=modal_bank), "cpu", dtype, lengths=())


def test_laws_of_exact_decoding() -> None:
    layer = MultiHyena(6, 2, filter=CachedConvolution(ExplicitFilter(torch.randn(2, 40)), 40))
    layer_laws(layer, lengths=(1, 5, 12))


def test_gradients_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = MultiHyena(4, 2, filter=lambda channels: ExplicitFilter(torch.randn(channels, 5)))
    u = torch.randn(1, 5, 4)
    gradients_are_right(layer, u.requires_grad_())
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 1)
    gradients_are_right(layer, u.requires_grad_())


def test_compiles_and_travels(tmp_path: Path) -> None:
    layer = MultiHyena(4, 2, trained_length=8, hidden=4).double()
    u = torch.randn(2, 6, 4, dtype=torch.float64)
    compiles(layer, u)
    state_dict_travels(lambda: MultiHyena(4, 2, trained_length=8, hidden=4), tmp_path, lambda layer: layer(u.float()))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="heads: expected a number that divides the width 6, got 4"):
        MultiHyena(6, 4)
    with pytest.raises(ValueError, match=r"filter: expected 1 of 2 channels, got channels \[6\]"):
        MultiHyena(6, 2, filter=ExplicitFilter(torch.zeros(6, 3)))
    with pytest.raises(ValueError, match=r"convert\(model"):
        MultiHyena(6, 2, trained_length=4).initial_state(1)
