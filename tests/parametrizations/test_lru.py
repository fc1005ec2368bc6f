"""LRU, against its recurrence run step by step."""

import numpy as np
import pytest

import ssmid
from ssmid.parametrizations.lru import lru

N, WIDTH = 5, 3
SHAPES = {
    "nu_log": (N,), "theta_log": (N,), "gamma_log": (N,), "B_re": (N, WIDTH), "B_im": (N, WIDTH), "C_re": (WIDTH, N), "C_im": (WIDTH, N),
    "D": (WIDTH,),
}  # fmt: skip


@pytest.fixture
def layer(rng):
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("length", [1, 2, 15])
def test_recurrence(xp, layer, rng, length):
    system = lru(**{name: xp.asarray(value) for name, value in layer.items()})
    assert (system.order, system.inputs, system.outputs) == (2 * N, WIDTH, WIDTH)
    u = rng.standard_normal((WIDTH, length))
    B = (layer["B_re"] + 1j * layer["B_im"]) * np.exp(layer["gamma_log"])[:, None]
    C = layer["C_re"] + 1j * layer["C_im"]
    poles, x, y = np.exp(-np.exp(layer["nu_log"]) + 1j * np.exp(layer["theta_log"])), np.zeros(N, complex), []
    for t in range(length):
        x = poles * x + B @ u[:, t]
        y.append((C @ x).real + layer["D"] * u[:, t])
    taps = xp.numpy(ssmid.impulse_response(system, length).taps)
    convolved = [sum(taps[:, :, t - s] @ u[:, s] for s in range(t + 1)) for t in range(length)]
    np.testing.assert_allclose(convolved, y, rtol=1e-11, atol=1e-12)


def test_width_and_batch(layer):
    layers = {name: np.stack([value, 2 * value]).astype(np.float32) for name, value in layer.items()}
    system = lru(**layers)
    assert system.batch_shape == (2,)
    assert system.A.dtype == np.float32
    np.testing.assert_allclose(system.B[0], lru(**layer).B, rtol=1e-5)


def test_bypass_of_another_width(layer):
    with pytest.raises(ValueError, match=r"D: expected one number for each of equal inputs and outputs, got \(2,\)"):
        lru(**{**layer, "D": np.zeros(2)})


def test_gradient(layer):
    import torch

    values = [torch.tensor(value, requires_grad=True) for value in layer.values()]
    assert torch.autograd.gradcheck(lambda *p: lru(*p).C @ lru(*p).A @ lru(*p).B + lru(*p).D, values)
