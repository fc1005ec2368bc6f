"""Depthwise causal convolution of a few taps, against a loop over taps and time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmid.nn import ShortConvolution

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))]


def brute_force(layer: ShortConvolution, u: torch.Tensor) -> np.ndarray:
    w, x = layer.weight.detach().double().cpu().numpy(), u.detach().double().cpu().numpy()
    y = np.zeros_like(x)
    for t in range(x.shape[-1]):
        for i in range(min(t + 1, layer.taps)):
            y[..., t] += w[:, 0, layer.taps - 1 - i] * x[..., t - i]
    return y if layer.bias is None else y + layer.bias.detach().double().cpu().numpy()[:, None]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("taps", "bias"), [(1, True), (3, True), (3, False), (4, False)])
@pytest.mark.parametrize("length", [1, 2, 3, 8])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_whole_in_chunks_and_by_steps(device: str, taps: int, bias: bool, length: int, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(taps)
    layer = ShortConvolution(4, taps, bias).to(device, dtype)
    u = torch.randn(2, 4, length, dtype=dtype, device=device)
    expected = brute_force(layer, u)
    scale = np.abs(expected).max()

    def error(y: torch.Tensor) -> float:
        return float(np.abs(y.detach().double().cpu().numpy() - expected).max() / scale)

    assert layer(u).dtype == dtype
    assert error(layer(u)) <= tolerance
    cut = length // 2
    first, state = layer.prefill(u[..., :cut])
    second, state = layer.prefill(u[..., cut:], state)
    assert error(torch.cat([first, second], -1)) <= tolerance
    stepped, in_place, places = layer.initial_state(2), layer.initial_state(2), []
    for t in range(length):
        y, stepped = layer.step(u[..., t], stepped)
        places.append(y)
        assert torch.equal(layer.step_(u[..., t], in_place), y)
    assert error(torch.stack(places, -1)) <= tolerance
    assert torch.equal(stepped, state)
    assert torch.equal(in_place, state)


def test_states_are_left_as_they_are_and_share_no_memory() -> None:
    layer = ShortConvolution(2)
    u = torch.randn(1, 2, 4)
    _, state = layer.prefill(u)
    before = state.clone()
    layer.step(u[..., 0], state)
    layer.prefill(u, state)
    u.zero_()
    assert torch.equal(state, before)


def test_a_length_of_zero_gives_the_state_back() -> None:
    layer = ShortConvolution(2)
    _, state = layer.prefill(torch.randn(3, 2, 5))
    y, after = layer.prefill(torch.zeros(3, 2, 0), state)
    assert y.shape == (3, 2, 0)
    assert torch.equal(after, state)


def test_gradients() -> None:
    layer = ShortConvolution(3).double()
    u = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)

    def of(u: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, u)

    assert torch.autograd.gradcheck(of, (u, layer.weight, layer.bias))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("batch", "channels", "length", "taps", "bias"), [(3, 5, 40, 3, True), (2, 7, 2500, 4, False), (1, 1, 1, 3, True)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_gradients_of_every_device(
    device: str, batch: int, channels: int, length: int, taps: int, bias: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """Beside those in float64 on the host; a GPU has a kernel for them."""
    torch.manual_seed(length)
    layer = ShortConvolution(channels, taps, bias).to(device, dtype)
    u = torch.randn(batch, channels, length, device=device, dtype=dtype, requires_grad=True)
    g = torch.randn(batch, channels, length, device=device, dtype=dtype)
    exact, x = ShortConvolution(channels, taps, bias).double(), u.detach().double().cpu().requires_grad_()
    exact.load_state_dict({name: p.double().cpu() for name, p in layer.state_dict().items()})
    found = torch.autograd.grad(layer(u), [u, *layer.parameters()], g)
    for one, other in zip(found, torch.autograd.grad(exact(x), [x, *exact.parameters()], g.double().cpu()), strict=True):
        assert one.dtype == dtype
        error = torch.linalg.vector_norm(one.double().cpu() - other) / torch.linalg.vector_norm(other)
        assert float(error) <= tolerance


def test_bad_input() -> None:
    layer = ShortConvolution(2)
    with pytest.raises(ValueError, match=r"expected the last inputs, of shape \(3, 2, 2\), got \(1, 2, 2\)"):
        layer.step(torch.zeros(3, 2), layer.initial_state(1))
    with pytest.raises(ValueError, match=r"\(\*batch, 2, length\)"):
        layer(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="at least 1"):
        ShortConvolution(2, 0)
