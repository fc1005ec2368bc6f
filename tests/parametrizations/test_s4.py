"""S4, against its kernel on the unit circle and as dense matrices."""

import numpy as np
import pytest

import ssmid
from ssmid.parametrizations.s4 import s4

H, N, HEADS = 4, 3, 2


@pytest.fixture(params=[1, 2], ids=["rank1", "rank2"])
def layer(request, rng):
    """Parameters as version 4 of the state-spaces code stores them, two sets for four channels."""
    return {
        "C": rng.standard_normal((HEADS, H, N, 2)),
        "B": rng.standard_normal((1, 2, N, 2)),
        "P": 0.5 * rng.standard_normal((request.param, 2, N, 2)),
        "step": rng.uniform(-4, -1, (H, 1)),
        "A_real": np.log(rng.uniform(0.2, 1, (2, N))),
        "A_imag": 6 * rng.uniform(0, 1, (2, N)),
        "D": rng.standard_normal((HEADS, H)),
    }


def dense(layer, h, sign=-1):
    """Sampled matrices of a channel over all 2 N complex states, conjugates after the others."""
    a = -np.exp(layer["A_real"][h % 2]) + sign * 1j * layer["A_imag"][h % 2]
    P = layer["P"][:, h % 2, :, 0] + 1j * layer["P"][:, h % 2, :, 1]
    B = layer["B"][0, h % 2, :, 0] + 1j * layer["B"][0, h % 2, :, 1]
    a, B, P = np.concatenate([a, a.conj()]), np.concatenate([B, B.conj()]), np.concatenate([P, P.conj()], axis=-1)
    dt = np.exp(np.concatenate([np.broadcast_to(layer["step"][h], N)] * 2))
    A = dt[:, None] * (np.diag(a) - P.T @ P.conj())
    eye = np.eye(2 * N)
    return np.linalg.solve(eye - A / 2, eye + A / 2), np.linalg.solve(eye - A / 2, dt * B)


def outputs(layer, c, h):
    C = layer["C"][c, h, :, 0] + 1j * layer["C"][c, h, :, 1]
    return np.concatenate([C, C.conj()])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("length", [1, 2, 11, 12])
def test_kernel_with_c_as_it_is(xp, layer, length, sign):
    system = s4(**{name: xp.asarray(value) for name, value in layer.items()}, imaginary_sign=sign)
    assert (system.batch_shape, system.order) == ((HEADS, H), 2 * N)
    taps = xp.numpy(ssmid.impulse_response(system, length).taps)
    for c, h in np.ndindex(HEADS, H):
        A, B = dense(layer, h, sign)
        C = outputs(layer, c, h)
        expected = np.array([C @ np.linalg.matrix_power(A, t) @ B for t in range(length)]).real
        expected[0] += layer["D"][c, h]
        np.testing.assert_allclose(taps[c, h], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 15, 16])
def test_kernel_of_a_trained_c(xp, layer, length):
    """What the layer computes: C~ (I - w Ad)^-1 Bd on the points w of the unit circle, transformed back."""
    system = s4(**{name: xp.asarray(value) for name, value in layer.items()}, trained_length=length)
    taps = xp.numpy(ssmid.impulse_response(system, length).taps)
    points = np.exp(-2j * np.pi * np.arange(length) / length)
    for c, h in np.ndindex(HEADS, H):
        A, B = dense(layer, h)
        spectrum = [outputs(layer, c, h) @ np.linalg.solve(np.eye(2 * N) - w * A, B) for w in points]
        expected = np.fft.ifft(spectrum).real
        expected[0] += layer["D"][c, h]
        np.testing.assert_allclose(taps[c, h], expected, rtol=1e-10, atol=1e-11)


def test_steps_of_every_mode(layer, rng):
    layer["step"] = rng.uniform(-4, -1, (H, N))
    taps = ssmid.impulse_response(s4(**layer), 5).taps
    A, B = dense(layer, 3)
    expected = [(outputs(layer, 1, 3) @ np.linalg.matrix_power(A, t) @ B).real for t in range(1, 5)]
    np.testing.assert_allclose(taps[1, 3, 1:], expected, rtol=1e-11)


def test_hippo_is_recovered(rng):
    """The state matrix of HiPPO-LegS, from its normal-plus-low-rank form as the layer stores it, has the kernel of the real matrix."""
    n = 8
    q = np.sqrt(2 * np.arange(n) + 1.0)
    real = -np.tril(np.outer(q, q), -1) - np.diag(np.arange(n) + 1.0)
    P = np.sqrt(np.arange(n) + 0.5)
    # the matrix plus P P^T is -1/2 plus a skew-symmetric one
    values, V = np.linalg.eigh(1j * (real + np.outer(P, P) + 0.5 * np.eye(n)))
    half = values > 0
    a = -0.5 - 1j * values[half]
    B, P, C = (V[:, half].conj().T @ x for x in (q, P, rng.standard_normal(n)))
    pairs = {name: np.stack([x.real, x.imag], axis=-1)[None, None] for name, x in (("B", B), ("P", P), ("C", C))}
    system = s4(**pairs, step=np.log([0.05]), A_real=np.log(-a.real)[None], A_imag=-a.imag[None])
    dt, eye = 0.05, np.eye(n)
    A = np.linalg.solve(eye - dt / 2 * real, eye + dt / 2 * real)
    inputs = np.linalg.solve(eye - dt / 2 * real, dt * q)
    c = 2 * (C @ V[:, half].conj().T).real
    expected = [c @ np.linalg.matrix_power(A, t) @ inputs for t in range(40)]
    np.testing.assert_allclose(ssmid.impulse_response(system, 40).taps[0, 0], expected, rtol=1e-10, atol=1e-11)


def test_gradient(rng):
    import torch

    shapes = {"C": (1, 2, 2, 2), "B": (1, 2, 2, 2), "P": (1, 2, 2, 2), "step": (2,), "A_real": (2, 2), "A_imag": (2, 2)}
    values = [torch.tensor(0.5 * rng.standard_normal(shape), requires_grad=True) for shape in shapes.values()]
    assert torch.autograd.gradcheck(lambda *p: ssmid.impulse_response(s4(*p, trained_length=5), 3).taps, values)
