"""Attention against a loop over tokens, and its cache against the whole sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssmid.nn import Attention
from tests.nn.laws import DEVICES, DTYPES, compiles, gradients_are_right, layer_laws, state_dict_travels


def by_definition(layer: Attention, u: torch.Tensor, turned: int) -> np.ndarray:
    """Token by token and head by head; the rotation of a pair is a product of complex numbers."""
    x, H = u.detach().numpy(), layer.heads
    qkv = x @ layer.Wqkv.weight.detach().numpy().T + layer.Wqkv.bias.detach().numpy()
    d, half = layer.width // H, turned // 2
    y = np.zeros_like(x)
    for n in range(x.shape[0]):
        for h in range(H):
            q, k, v = (qkv[n, :, i * layer.width + h * d : i * layer.width + (h + 1) * d] for i in range(3))
            for rows in (q, k):
                for t in range(x.shape[1]):
                    pairs = (rows[t, :half] + 1j * rows[t, half:turned]) * np.exp(1j * t * 10_000.0 ** (-np.arange(half) / max(half, 1)))
                    rows[t, :turned] = np.concatenate([pairs.real, pairs.imag])
            for t in range(x.shape[1]):
                weights = np.exp(k[: t + 1] @ q[t] / np.sqrt(d))
                y[n, t, h * d : (h + 1) * d] = weights @ v[: t + 1] / weights.sum()
    return y @ layer.out_proj.weight.detach().numpy().T + layer.out_proj.bias.detach().numpy()


@pytest.mark.parametrize(("rotary", "turned"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_definition(rotary: float, turned: int) -> None:
    layer = Attention(16, 2, max_length=12, rotary=rotary).double()
    u = torch.randn(2, 9, 16, dtype=torch.float64)
    np.testing.assert_allclose(layer(u).detach().numpy(), by_definition(layer, u, turned), atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_laws(device: str, dtype: torch.dtype) -> None:
    layer_laws(Attention(16, 2, max_length=40), device, dtype)


def test_a_state_of_less_room() -> None:
    layer = Attention(16, 2, max_length=40)
    u = torch.randn(3, 6, 16)
    y, state = layer.prefill(u[:, :5], layer.initial_state(3, 6))
    assert state["keys"].shape == (3, 2, 6, 8)
    last = layer.step_(u[:, 5], state)
    torch.testing.assert_close(torch.cat([y, last[:, None]], 1), layer(u))
    assert layer.step_(u[:, 5], state).isnan().all()


def test_gradients() -> None:
    gradients_are_right(Attention(4, 2, max_length=6), torch.randn(2, 5, 4, requires_grad=True))


def test_compiles_and_travels(tmp_path: Path) -> None:
    layer, u = Attention(8, 2, max_length=8).double(), torch.randn(2, 6, 8, dtype=torch.float64)
    compiles(layer, u)
    state_dict_travels(lambda: Attention(8, 2, max_length=8), tmp_path, lambda layer: layer(u.float()))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="heads: expected a number that divides the width 8, got 3"):
        Attention(8, 3)
    layer = Attention(8, 2, max_length=4)
    with pytest.raises(ValueError, match="at most max_length=4 tokens, got 5"):
        layer(torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match="at most max_length=4 tokens, got 6"):
        layer.initial_state(1, 6)
    _, state = layer.prefill(torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match="at most 1 tokens after the 3 in a state of room for 4, got 2"):
        layer.prefill(torch.zeros(1, 2, 8), state)
    with pytest.raises(ValueError, match="'valid' among its names"):
        layer.step(torch.zeros(1, 8), {"keys": state["keys"], "values": state["values"]})
