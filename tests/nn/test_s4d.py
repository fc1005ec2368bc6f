"""S4D: taps against the published sum, its beginnings against HiPPO's matrix, the law of its recurrence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ssmid
from ssmid.nn import S4D, S4DFilter, convert
from ssmid.parametrizations.initializations import diagonal_spectrum, hippo_legs, legs_normal_plus_low_rank, log_steps
from tests.nn.laws import DEVICES, DTYPES, compiles, gradients_are_right, layer_laws, state_dict_travels, taps_are_the_response

INITS = ("lin", "inv", "legs", "real")


def kernel(filter: S4DFilter, length: int) -> np.ndarray:
    """One number after another, from the parameters."""
    p = {name: x.detach().double().numpy() for name, x in filter.named_parameters()}
    taps = np.zeros((filter.channels, length))
    for h, t in np.ndindex(filter.channels, length):
        s = h % p["A_real"].shape[0]
        dt = np.exp(p["inv_dt"][h, 0])
        for n in range(p["A_real"].shape[1]):
            A = -np.exp(p["A_real"][s, n]) - (0 if filter.real else 1j * p["A_imag"][s, n])
            C, B = ((x[n] if filter.real else complex(*x[n])) for x in (p["C"][0, h], p["B"][0, s]))
            if filter.discretization == "zoh":
                pole, into = np.exp(A * dt), (np.exp(A * dt) - 1) / A
            else:
                pole, into = (1 + A * dt / 2) / (1 - A * dt / 2), dt / (1 - A * dt / 2)
            taps[h, t] += 2 * (C * B * into * pole**t).real
        taps[h, t] += p["D"][0, h] * (t == 0)
    return taps


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("sets", [None, 2])
def test_taps(init, discretization, sets):
    filter = S4DFilter(4, 6, init, discretization=discretization, sets=sets).double()
    for length in (1, 2, 17, 18):
        np.testing.assert_allclose(filter(length).detach().numpy(), kernel(filter, length), rtol=1e-11, atol=1e-13)
    taps_are_the_response(filter)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("init", "sets", "discretization"), [("lin", None, "zoh"), ("legs", 1, "zoh"), ("real", 3, "zoh"), ("inv", 1, "bilinear")]
)
def test_single_precision(device, init, sets, discretization):
    """On a GPU this is the fused kernel beside the formula: by the hold from the parameters on, else the sums."""
    filter = S4DFilter(3, 32, init, sets=sets, discretization=discretization).to(device)
    assert filter(2048).dtype == torch.float32
    exact = S4DFilter(3, 32, init, sets=sets, discretization=discretization).double().to(device)
    exact.load_state_dict(filter.state_dict())
    found, expected = filter(2048), exact(2048)
    assert float((found - expected).abs().max() / expected.abs().max()) < 2e-6
    gradient = torch.randn(3, 2048, device=device)
    found.backward(gradient)
    expected.backward(gradient.double())
    for one, other in zip(filter.parameters(), exact.parameters(), strict=True):
        assert float((one.grad - other.grad).abs().max()) <= 1e-4 * float(other.grad.abs().max())


def test_beginnings():
    n = np.arange(8)
    np.testing.assert_allclose(diagonal_spectrum(16, "lin")[0], -0.5 - 1j * np.pi * n)
    np.testing.assert_allclose(diagonal_spectrum(16, "inv")[0], -0.5 - 1j * 16 / np.pi * (16 / (2 * n + 1) - 1))
    np.testing.assert_allclose(diagonal_spectrum(16, "real")[0], -np.arange(1.0, 17))
    A, B = hippo_legs(16)
    P = np.sqrt(np.arange(16) + 0.5)
    normal = np.linalg.eigvals(A + np.outer(P, P))
    legs, inputs = diagonal_spectrum(16, "legs")
    np.testing.assert_allclose(np.sort(normal[normal.imag < 0].imag), np.sort(legs.imag), rtol=1e-10)
    np.testing.assert_allclose(legs.real, -0.5)
    np.testing.assert_allclose((np.abs(inputs) ** 2).sum(), (B**2).sum() / 2, rtol=1e-12)
    # the real spectrum is that of HiPPO's matrix itself
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(A).real), np.sort(diagonal_spectrum(16, "real")[0]), rtol=1e-6)


@pytest.mark.parametrize("order", [2, 8, 64])
def test_legs_is_hippo(order):
    """``v = V* x`` and its conjugate carry the matrix and the inputs of HiPPO: the same Markov parameters."""
    A, B = hippo_legs(order)
    a, P, b = legs_normal_plus_low_rank(order)
    a, P, b = (np.concatenate([x, x.conj()]) for x in (a, P, b))
    whole = np.diag(a) - np.outer(P, P.conj())
    # P itself as the output: P^T A^k B in the one basis is P* whole^k b in the other
    for k in range(4):
        left = np.sqrt(np.arange(order) + 0.5) @ np.linalg.matrix_power(A, k) @ B
        np.testing.assert_allclose(P.conj() @ np.linalg.matrix_power(whole, k) @ b, left, rtol=1e-9)


def test_steps_are_uniform_in_the_logarithm():
    filter = S4DFilter(4000, 2, dt_min=0.01, dt_max=1.0)
    steps = filter.inv_dt.detach().numpy()
    assert np.log(0.01) <= steps.min() < steps.max() <= 0
    assert abs(steps.mean() - np.log(0.1)) < 0.1
    with pytest.raises(ValueError, match=r"expected 0 < dt_min <= dt_max, got 1 and 0\.1"):
        log_steps(3, 1, 0.1, np.random.default_rng(0))


def test_the_seed_is_torchs():
    torch.manual_seed(1)
    first = S4DFilter(2, 4)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), S4DFilter(2, 4).parameters(), strict=True))


def test_always_stable():
    filter = S4DFilter(5, 8)
    with torch.no_grad():
        for parameter in filter.parameters():
            parameter.normal_(0, 4)
        filter.inv_dt.normal_(0, 1)
    assert float(filter.system().poles.abs().max()) <= 1
    assert torch.isfinite(filter(300)).all()


@pytest.mark.parametrize("init", ["lin", "real"])
def test_gradients(init):
    gradients_are_right(S4DFilter(2, 4, init), function=lambda f: f(9))
    gradients_are_right(S4D(2, 4, init), torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_laws_of_its_recurrence(device, dtype):
    filter = S4DFilter(3, 8).double()
    layer = convert(S4D(3, 8).double(), lambda system, **_: filter.system())
    layer_laws(layer, device, dtype)


def test_bidirectional():
    layer = S4D(2, 4, bidirectional=True).double()
    u = torch.randn(1, 7, 2, dtype=torch.float64)
    ahead, back = layer.filter(7), layer.backward_filter(7)
    expected = torch.zeros_like(u)
    for t in range(7):
        expected[0, t] = sum((ahead[:, t - s] if s <= t else back[:, s - t - 1]) * u[0, s] for s in range(7))
    torch.testing.assert_close(layer(u), expected)
    assert {name.split(".")[0] for name in layer.state_dict()} == {"filter", "backward_filter"}


def test_state_dict(tmp_path):
    state_dict_travels(lambda: S4D(2, 4), tmp_path, lambda layer: layer(torch.ones(1, 5, 2)))
    shapes = {name: tuple(x.shape) for name, x in S4DFilter(6, 8, sets=3).state_dict().items()}
    assert shapes == {"C": (1, 6, 4, 2), "B": (1, 3, 4, 2), "inv_dt": (6, 1), "A_real": (3, 4), "A_imag": (3, 4), "D": (1, 6)}


def test_its_tensors_are_those_of_a_checkpoint(tmp_path):
    """What ssmid.checkpoints takes for S4D of version 4 has the response of the layer."""
    from safetensors.torch import save_file

    filter = S4DFilter(3, 8)
    tensors = {f"layer.{'' if name == 'D' else 'kernel.'}{name}": x for name, x in filter.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (layer,) = ssmid.checkpoints.read_checkpoint(tmp_path / "model.safetensors").layers
    taps = np.asarray(ssmid.impulse_response(layer.load(), 20).taps)[0]
    np.testing.assert_allclose(taps, filter(20).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_compiles():
    u = torch.randn(1, 8, 2, dtype=torch.float64)
    for layer in (S4D(2, 4), S4D(2, 4, "legs", discretization="bilinear"), S4D(2, 3, "real")):
        compiles(layer.double(), u)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 5}, "order: expected an even number of real states, two for each pair of conjugates, got 5"),
        ({"order": 0}, "order: expected an even number"),
        ({"order": 0, "init": "real"}, "order: expected at least 1, got 0"),
        ({"init": "fourier"}, "init: expected one of lin, inv, legs, real, got 'fourier'"),
        ({"sets": 4}, "sets: expected a divisor of the 6 channels, got 4"),
        ({"discretization": "dss"}, "discretization: expected 'zoh' or 'bilinear', got 'dss'"),
        ({"channels": 0}, "channels: expected at least 1, got 0"),
        ({"dt_min": 0.0}, "dt: expected 0 < dt_min <= dt_max, got 0.0 and 0.1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        S4DFilter(**{"channels": 6, "order": 4, **arguments})
