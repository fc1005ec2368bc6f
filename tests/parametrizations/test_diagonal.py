"""S4D and DSS, against their kernels summed term by term."""

import numpy as np
import pytest

import ssmid
from ssmid.parametrizations.diagonal import dss, s4d

H, N, HEADS = 6, 4, 2


@pytest.fixture
def layer(rng):
    """Parameters as version 4 of the state-spaces code stores them, two sets of A and B for six channels."""
    return {
        "C": rng.standard_normal((HEADS, H, N, 2)),
        "step": rng.uniform(-5, -1, (H, 1)),
        "A_real": np.log(rng.uniform(0.2, 1, (2, N))),
        "A_imag": 10 * rng.uniform(0, 1, (2, N)),
        "B": rng.standard_normal((1, 2, N, 2)),
        "D": rng.standard_normal((HEADS, H)),
    }


def as_complex(x):
    return x[..., 0] + 1j * x[..., 1]


def kernel(layer, length, discretization, sign):
    """Version 4's kernel, one number after another."""
    out = np.zeros((HEADS, H, length))
    for c, h, n in np.ndindex(HEADS, H, N):
        dt = np.exp(layer["step"][h].flat[0] if layer["step"].shape[-1] == 1 else layer["step"][h, n])
        A = -np.exp(layer["A_real"][h % 2, n]) + sign * 1j * layer["A_imag"][h % 2, n]
        weight = as_complex(layer["C"])[c, h, n] * (as_complex(layer["B"])[0, h % 2, n] if "B" in layer else 1)
        for t in range(length):
            if discretization == "zoh":
                term = 2 * weight * (np.exp(A * dt) - 1) / A * np.exp(A * dt * t)
            elif discretization == "bilinear":
                term = 2 * weight * dt / (1 - A * dt / 2) * ((1 + A * dt / 2) / (1 - A * dt / 2)) ** t
            else:
                x = A * (np.exp(A * dt * length) - 1)
                term = weight * (np.exp(A * dt) - 1) * x.conjugate() / (abs(x) ** 2 + 1e-7) * np.exp(A * dt * t)
            out[c, h, t] += term.real
    out[..., 0] += layer["D"]
    return out


@pytest.mark.parametrize("discretization", ["zoh", "bilinear", "dss"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("length", [1, 2, 9, 10])
def test_kernel_of_s4d(xp, layer, discretization, sign, length):
    arrays = {name: xp.asarray(value) for name, value in layer.items()}
    bank = s4d(**arrays, discretization=discretization, imaginary_sign=sign, length=length)
    assert bank.batch_shape == (HEADS, H)
    assert bank.order == 2 * N
    expected = kernel(layer, length, discretization, sign)
    np.testing.assert_allclose(xp.numpy(ssmid.impulse_response(bank, length).taps), expected, rtol=1e-11, atol=1e-12)


def test_steps_of_every_mode_and_no_inputs(layer, rng):
    layer["step"] = rng.uniform(-5, -1, (H, N))
    del layer["B"]
    taps = ssmid.impulse_response(s4d(**layer), 8).taps
    np.testing.assert_allclose(taps, kernel(layer, 8, "zoh", -1), rtol=1e-11, atol=1e-12)


def test_stand_alone_file(rng):
    """C (H, N, 2) and log_dt (H,), A for every channel, the sign of A_imag as it is."""
    C, log_dt, D = rng.standard_normal((H, N, 2)), rng.uniform(-5, -1, H), rng.standard_normal(H)
    A_real, A_imag = np.log(rng.uniform(0.2, 1, (H, N))), np.pi * np.arange(N) * np.ones((H, 1))
    bank = s4d(C, log_dt, A_real, A_imag, D=D, imaginary_sign=1)
    assert bank.batch_shape == (H,)
    A, dt = -np.exp(A_real) + 1j * A_imag, np.exp(log_dt)[:, None]
    terms = as_complex(C) * (np.exp(A * dt) - 1) / A
    expected = np.array([2 * (terms * np.exp(A * dt * t)).sum(-1).real for t in range(30)]).T
    expected[:, 0] += D
    np.testing.assert_allclose(ssmid.impulse_response(bank, 30).taps, expected, rtol=1e-11, atol=1e-12)
    # the slowest mode of this initialization is real: in the place of its conjugate stands a pole that nothing reaches
    np.testing.assert_array_equal(bank.poles[:, 1], 0)
    assert (np.abs(ssmid.gramian_factors(bank)[0]).shape)[-1] == 2 * N


def test_real_modes(rng):
    """An exponential moving average: real poles, real weights, the kernel doubled all the same."""
    C, B = rng.standard_normal((1, H, N)), rng.standard_normal((1, H, N))
    step, A_real = rng.uniform(-5, -1, (H, 1)), np.log(rng.uniform(0.2, 1, (H, N)))
    bank = s4d(C, step, A_real, B=B)
    assert bank.order == N
    dt, A = np.exp(step), -np.exp(A_real)
    expected = np.array([2 * (C[0] * B[0] * (np.exp(A * dt) - 1) / A * np.exp(A * dt * t)).sum(-1) for t in range(12)]).T
    np.testing.assert_allclose(ssmid.impulse_response(bank, 12).taps[0], expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("transform", "value"), [("relu", 0.7 + 1e-4), ("softplus", np.log1p(np.exp(0.7))), ("sigmoid", 1 / (1 + np.exp(-0.7))), ("none", 0.7)]
)
def test_transforms(transform, value):
    bank = s4d(np.ones((1, 1, 2)), np.zeros(1), np.full((1, 1), 0.7), np.ones((1, 1)), transform=transform)
    np.testing.assert_allclose(np.log(bank.poles[0, 0]), -value - 1j, rtol=1e-12)


def test_bandlimit(rng):
    C, A_imag = rng.standard_normal((1, 2, 2)), np.array([[1.0, 4.0]])
    bank = s4d(C, np.zeros(1), np.zeros((1, 2)), A_imag, bandlimit=1.0)
    assert (np.abs(bank.residues[0]) > 0).tolist() == [True, True, False, False]


def test_a_layer_that_runs_backwards_too(layer):
    both = {**layer, "D": layer["D"][:1]}
    without = ssmid.impulse_response(s4d(**{**layer, "D": None}), 3).taps
    with_bypass = ssmid.impulse_response(s4d(**both), 3).taps
    np.testing.assert_allclose((with_bypass - without)[..., 0], [layer["D"][0], np.zeros(H)], atol=1e-13)


@pytest.mark.parametrize("version", ["exp", "softmax", "clip", "exp-no-scale"])
@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("length", [1, 2, 9, 10])
def test_kernel_of_dss(xp, rng, version, separate, length):
    W, log_dt = rng.standard_normal((HEADS, H, N, 2)), rng.uniform(-4, -1, (H, 2) if separate else H)
    Lambda = np.stack([rng.uniform(-1, 0.3 if version == "softmax" else 0, N), 5 * rng.standard_normal(N)], axis=-1)
    if version == "clip":
        Lambda[0, 0] = 0.5
    bank = dss(xp.asarray(W), xp.asarray(log_dt), xp.asarray(Lambda), version=version, length=length)
    assert bank.order == 2 * N
    expected = np.zeros((HEADS, H, length))
    for c, h, n in np.ndindex(HEADS, H, N):
        re, im = (min(Lambda[n, 0], 1e-4) if version == "clip" else Lambda[n, 0]), Lambda[n, 1]
        steps = np.exp(log_dt[h]) * np.ones(2)
        x, weight = re * steps[0] + 1j * im * steps[1], as_complex(W)[c, h, n]
        if version == "softmax":
            powers = np.exp(x * (np.arange(length) - (length - 1) * (re > 0)))
            y = -x if re > 0 else x
            down = (np.exp(y * length) - 1) * (re + 1j * im)
            weight *= (np.exp(y) - 1) * np.conj(down) / (abs(down) ** 2 + 1e-7)
        else:
            powers = np.exp(x * np.arange(length))
            weight *= 1 if version == "exp-no-scale" else (np.exp(x) - 1) / (re + 1j * im)
        expected[c, h] += (weight * powers).real
    np.testing.assert_allclose(xp.numpy(ssmid.impulse_response(bank, length).taps), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"discretization": "tustin"}, "discretization: expected 'zoh', 'bilinear' or 'dss', got 'tustin'"),
        ({"discretization": "dss"}, "length: expected the number of samples over which the softmax was taken, got None"),
        ({"transform": "square"}, "transform: expected 'exp'"),
        ({"D": np.zeros(5)}, r"D: expected one number for each of the channels \(2, 6\), got shape \(1, 5\)"),
    ],
)
def test_wrong_arguments(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        s4d(**{**layer, **arguments})


def test_sets_that_do_not_divide_the_channels(layer, rng):
    with pytest.raises(ValueError, match="divides the 6 channels, got 4"):
        s4d(layer["C"], layer["step"], rng.standard_normal((4, N)), rng.standard_normal((4, N)))


def test_gradient(rng):
    import torch

    C, step, A_real, A_imag = (torch.tensor(rng.standard_normal(s), requires_grad=True) for s in ((1, 2, 3, 2), (2,), (2, 3), (2, 3)))
    assert torch.autograd.gradcheck(lambda *p: ssmid.impulse_response(s4d(*p), 4).taps, (C, step, A_real, A_imag))
