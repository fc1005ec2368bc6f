"""LRU: the law, the system it says it is, the ring it begins with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ssmid
from ssmid.nn import LRU
from ssmid.parametrizations.initializations import lru_ring
from tests.nn.laws import DEVICES, DTYPES, LENGTHS, compiles, gradients_are_right, layer_laws, state_dict_travels


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_laws(device, dtype):
    layer_laws(LRU(3, 8), device, dtype, lengths=(*LENGTHS, 300))


@pytest.mark.parametrize("length", [1, 16, 17, 40, 273])
def test_its_system(length):
    """Convolution with the matrices of taps of :meth:`LRU.system`."""
    layer = LRU(3, 10).double()
    taps = np.asarray(ssmid.impulse_response(layer.system(), length).taps)
    u = torch.randn(2, length, 3, dtype=torch.float64)
    expected = np.zeros((2, length, 3))
    for t in range(length):
        for s in range(t + 1):
            expected[:, t] += u[:, s].numpy() @ taps[:, :, t - s].T
    np.testing.assert_allclose(layer(u).detach(), expected, rtol=1e-9, atol=1e-11)


def test_ring():
    rng = np.random.default_rng(0)
    nu, theta, gamma = lru_ring(20000, rng, 0.6, 0.9, 1.5)
    modulus, phase = np.exp(-np.exp(nu)), np.exp(theta)
    assert 0.6 <= modulus.min() < 0.61
    assert 0.89 < modulus.max() <= 0.9
    assert 0 < phase.min() < phase.max() <= 1.5
    # uniform by area: the squares of moduli are uniform
    np.testing.assert_allclose((modulus**2).mean(), (0.36 + 0.81) / 2, atol=3e-3)
    np.testing.assert_allclose(np.exp(gamma) ** 2, 1 - modulus**2, rtol=1e-12)
    assert np.isfinite(lru_ring(20000, rng)).all()


def test_white_noise_stays_as_large_as_it_is():
    """What gamma is for: states of white inputs have the variance of B u."""
    torch.manual_seed(0)
    layer = LRU(8, 32, r_min=0.9, r_max=0.99).double()
    u = torch.randn(64, 800, 8, dtype=torch.float64)
    _, state = layer.prefill(u)
    driven = (layer.B_re**2 + layer.B_im**2).sum(-1)
    assert 0.8 < float((state.abs() ** 2).mean(0).div(driven).mean()) < 1.2


def test_gradients():
    gradients_are_right(LRU(2, 4), torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True))
    # longer than a block, and than a block of blocks
    gradients_are_right(LRU(1, 2), torch.randn(1, 37, 1, dtype=torch.float64))
    state = torch.randn(1, 2, dtype=torch.complex128)
    gradients_are_right(LRU(2, 4), torch.randn(1, 19, 2, dtype=torch.float64), function=lambda layer, u: layer.prefill(u, state)[0])


def test_gradient_by_the_poles_over_a_long_sequence():
    """The scan's own backward against autograd through a loop."""
    layer = LRU(2, 6).double()
    u, weight = torch.randn(2, 300, 2, dtype=torch.float64), torch.randn(2, 300, 2, dtype=torch.float64)
    (layer(u) * weight).sum().backward()
    found = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    state, total = layer.initial_state(2), 0
    for t in range(300):
        y, state = layer.step(u[:, t], state)
        total = total + (y * weight[:, t]).sum()
    total.backward()
    for name, p in layer.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-9, atol=1e-10)


def test_always_stable():
    layer = LRU(2, 6)
    with torch.no_grad():
        layer.nu_log.normal_(0, 3)
        layer.theta_log.normal_(0, 3)
    assert float(np.abs(np.linalg.eigvals(layer.double().system().A.numpy())).max()) <= 1


def test_state_dict(tmp_path):
    state_dict_travels(lambda: LRU(2, 4), tmp_path, lambda layer: layer(torch.ones(1, 5, 2)))
    names = ["B_im", "B_re", "C_im", "C_re", "D", "gamma_log", "nu_log", "theta_log"]
    assert sorted(LRU(2, 4).state_dict()) == names
    assert LRU(2, 4).bfloat16().nu_log.dtype == torch.float32


def test_compiles():
    layer = LRU(2, 4).double()
    compiles(layer, torch.randn(1, 20, 2, dtype=torch.float64))
    compiles(layer.step, torch.randn(1, 2, dtype=torch.float64), layer.initial_state(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LRU(2, 3), "order: expected an even number of real states, two for each pair of conjugates, got 3"),
        (lambda: LRU(0, 2), "width: expected at least 1, got 0"),
        (lambda: LRU(2, 2, r_min=0.9, r_max=0.5), "r_min, r_max: expected 0 <= r_min < r_max <= 1, got 0.9 and 0.5"),
        (lambda: LRU(2, 2, max_phase=0), "max_phase: expected an angle above 0, got 0"),
        (lambda: LRU(2, 4)(torch.zeros(1, 5, 3)), r"u: expected shape \(batch, length, 2\), got \(1, 5, 3\)"),
        (lambda: LRU(2, 4).step(torch.zeros(3, 2), torch.zeros(1, 2)), r"state: expected complex64 of shape \(3, 2\)"),
        (lambda: LRU(2, 4).step(torch.zeros(3, 2), LRU(2, 4).double().initial_state(3)), "state: expected complex64 .*, got complex128"),
        (lambda: LRU(2, 4).double().step(torch.zeros(3, 2).double(), LRU(2, 4).initial_state(3)), "expected complex128 .*, got complex64"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
