"""Whole signals and streams agree, for every representation, backend and split of the signal."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

import ssmid
from ssmid.analysis.simulation import simulate


def bank(name: str, rng) -> ssmid.System:
    """Three stable systems of order 4 (or taps)."""
    pair = 0.9 * np.exp(1j * rng.uniform(0.3, 2.8, (3, 2)))
    poles = np.concatenate([pair, pair.conj()], -1)
    residues = rng.standard_normal((3, 2)) + 1j * rng.standard_normal((3, 2))
    A = rng.standard_normal((3, 5, 5))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max(-1)[:, None, None]

    def random(*shape):
        return rng.standard_normal((3, *shape))

    return {
        "modal": lambda: ssmid.Modal(poles, np.concatenate([residues, residues.conj()], -1), random()),
        "complex modal": lambda: ssmid.Modal(pair, residues, random() + 1j, real=False),
        "transfer function": lambda: ssmid.TransferFunction(random(4), 2 * np.stack([np.poly(p).real for p in poles])),
        "zpk": lambda: ssmid.ZerosPolesGain(poles[:, ::2] * 0.5, poles, random()),
        "complex zpk": lambda: ssmid.ZerosPolesGain(pair[:, :1], poles, random() + 1j),
        "sections": lambda: ssmid.SecondOrderSections(np.tile([[1, 0.2, 0.3, 2, -1, 0.4], [1, 0.2, 0.3, 1, -1, 0.4]], (3, 1, 1))),
        "taps": lambda: ssmid.ImpulseResponse(random(37) * 0.8 ** np.arange(37)),
        "state space": lambda: ssmid.StateSpace(A, random(5, 1), random(1, 5), random(1, 1)),
        "several channels": lambda: ssmid.StateSpace(A, random(5, 2), random(4, 5), random(4, 2)),
    }[name]()


KINDS = ["modal", "complex modal", "transfer function", "zpk", "complex zpk", "sections", "taps", "state space", "several channels"]


def relative(a, b) -> float:
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)


@pytest.mark.parametrize("samples", [1, 7, 300, 1001])
@pytest.mark.parametrize("kind", KINDS)
def test_recurrence_streams_and_convolution_agree(xp, rng, kind, samples):
    system = bank(kind, rng).map(xp.asarray)
    u = rng.standard_normal((3, 2, samples) if kind == "several channels" else (3, samples))
    whole = simulate(system, xp.asarray(u), method="convolution")
    assert xp.owns(whole)
    assert whole.shape == ((3, 4, samples) if kind == "several channels" else (3, samples))
    assert relative(xp.numpy(simulate(system, xp.asarray(u), method="recurrence")), xp.numpy(whole)) < 1e-12
    state, pieces, start = None, [], 0
    for length in (1, 5, 90, 4, 3, 1000):
        if start < samples:
            piece, state = simulate(system, xp.asarray(u[..., start : start + length]), state, return_state=True)
            pieces.append(xp.numpy(piece))
            start += length
    assert relative(np.concatenate(pieces, -1), xp.numpy(whole)) < 1e-12


@given(order=st.integers(0, 6), splits=st.lists(st.integers(1, 40), min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_state_space_stream_equals_dlsim(order, splits, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((order, order))
    A *= 0.9 / max(1e-3, np.abs(np.linalg.eigvals(A)).max(initial=0.0))
    B, C, D = rng.standard_normal((order, 2)), rng.standard_normal((3, order)), rng.standard_normal((3, 2))
    u, x = rng.standard_normal((2, sum(splits))), rng.standard_normal(order)
    expected, state = [], x
    for sample in u.T:
        expected.append(C @ state + D @ sample)
        state = A @ state + B @ sample
    outputs, carried, start = [], x, 0
    for length in splits:
        y, carried = simulate(ssmid.ss(A, B, C, D), u[:, start : start + length], carried, return_state=True)
        outputs.append(y)
        start += length
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(np.concatenate(outputs, -1), np.array(expected).T, atol=1e-11 * scale)
    np.testing.assert_allclose(carried, state, atol=1e-11 * scale)


def test_states_are_those_of_the_representation(rng):
    """x of the state space, x' = pole x + u of a mode, lfilter's zi of a transfer function, the last inputs of taps."""
    u = rng.standard_normal(9)
    b, a = [0.5, 0.25], [2.0, -1.0, 0.5]
    y, state = simulate(ssmid.tf(b, a), u, return_state=True)
    expected, zi = scipy.signal.lfilter([0, *np.divide(b, 2)], np.divide(a, 2), u, zi=np.zeros(2))
    np.testing.assert_allclose(y, expected, atol=1e-15)
    np.testing.assert_allclose(state, zi, atol=1e-15)
    _, state = simulate(ssmid.Modal(np.array([0.5]), np.array([3.0])), u, return_state=True)
    np.testing.assert_allclose(state, [np.sum(0.5 ** np.arange(8, -1, -1) * u)])
    _, state = simulate(ssmid.ImpulseResponse([1.0, 2.0, 3.0]), u, return_state=True)
    np.testing.assert_array_equal(state, u[-2:])


def test_one_system_for_many_signals_and_the_other_way_round(rng):
    u = rng.standard_normal((4, 50))
    system = ssmid.Modal(np.array([0.5]), np.array([1.0]), 0.5)
    for method in ("recurrence", "convolution"):
        many = simulate(system, u, method=method)
        np.testing.assert_allclose(many[2], simulate(system, u[2], method=method), atol=1e-14)
    shared = simulate(bank("transfer function", rng), u[0], method="recurrence")
    assert shared.shape == (3, 50)


def test_an_unstable_recurrence_runs():
    y = simulate(ssmid.tf([1.0], [1.0, -2.0]), np.eye(1, 60)[0], method="recurrence")
    np.testing.assert_array_equal(y[1:], 2.0 ** np.arange(59))


def test_companion_matrices_run_sample_by_sample(rng):
    """Where powers of A are large, blocks of samples would lose digits: order 8, poles clustered at 1."""
    num, den = scipy.signal.butter(8, 0.1)
    system = ssmid.ss(np.vstack([-den[1:], np.eye(7, 8)]), np.eye(8, 1), (num[1:] - num[0] * den[1:])[None], num[0])
    u = rng.standard_normal(500)
    assert relative(simulate(system, u, method="recurrence"), scipy.signal.lfilter(num, den, u)) < 1e-9


def test_long_streams_of_a_hundred_states(rng):
    poles = rng.uniform(-0.99, 0.99, 100)
    system = ssmid.ss(np.diag(poles), rng.standard_normal((100, 1)), rng.standard_normal((1, 100)))
    u = rng.standard_normal(20_000)
    assert relative(simulate(system, u, method="recurrence"), simulate(system, u, method="convolution")) < 1e-12


def test_single_precision_is_kept(xp, rng):
    for kind in KINDS:
        system = bank(kind, rng)
        u = rng.standard_normal((3, 2, 40) if kind == "several channels" else (3, 40))
        exact = simulate(system, u)
        from ssmid._array import astype_width

        single = system.map(lambda a: astype_width(xp.asarray(a), 32))
        for method in ("recurrence", "convolution"):
            y = simulate(single, xp.asarray(u, "float32"), method=method)
            assert str(y.dtype).endswith(("float32", "complex64")), kind
            assert relative(xp.numpy(y), exact) < 1e-4, kind


@pytest.mark.parametrize("method", ["recurrence", "convolution"])
def test_gradients(method):
    generator = torch.Generator().manual_seed(2)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    def modal(radius, angle, u):
        return simulate(ssmid.Modal(torch.polar(radius.sigmoid(), angle), torch.ones(2, dtype=torch.complex128)), u, method=method)

    assert torch.autograd.gradcheck(modal, (random(2), random(2), random(9)))

    def state_space(A, B, u):
        return simulate(ssmid.StateSpace(0.3 * A, B, torch.ones(1, 3, dtype=torch.float64)), u, method=method)

    assert torch.autograd.gradcheck(state_space, (random(3, 3), random(3, 1), random(17)))


@pytest.mark.parametrize(
    ("system", "inputs", "options", "match"),
    [
        (ssmid.tf([1.0], [1.0, 0.5], dt=0), np.ones(4), {}, "c2d"),
        (ssmid.tf([1.0], [1.0, 0.5]), 3.0, {}, r"inputs: expected .* got \(\)"),
        (ssmid.tf([1.0], [1.0, 0.5]), [], {}, r"inputs: expected .* got \(0,\)"),
        (ssmid.ss(np.eye(2) / 2, np.eye(2), np.eye(2)), np.ones((3, 4)), {}, r"\(\*batch, 2, samples\).* got \(3, 4\)"),
        (ssmid.tf([1.0], [1.0, 0.5]), np.ones(4), {"state": np.zeros(3)}, r"state: expected shape \(1,\), got \(3,\)"),
        (ssmid.tf([1.0], [1.0, 0.5]), np.ones(4), {"state": np.zeros(1), "method": "convolution"}, "recurrence"),
        (ssmid.tf([1.0], [1.0, 0.5]), np.ones(4), {"method": "magic"}, "method: expected .* got 'magic'"),
        (ssmid.frd([1.0, 1.0], [0.0, 1.0], dt=1), np.ones(4), {}, "FrequencyResponse"),
    ],
)
def test_what_it_refuses(system, inputs, options, match):
    with pytest.raises(ValueError, match=match):
        simulate(system, inputs, **options)


def test_recurrence_of_a_batch_of_feedthroughs(xp):
    """Everything but D is shared by the batch."""
    D = xp.asarray(np.array([1.0, -2.0, 0.0])[:, None, None])
    one = xp.asarray(np.ones((1, 1)))
    bank = ssmid.StateSpace(0.5 * one, one, one, D)
    inputs = xp.asarray(np.ones(40))
    expected = xp.numpy(ssmid.simulate(bank, inputs, method="convolution"))
    np.testing.assert_allclose(xp.numpy(ssmid.simulate(bank, inputs, method="recurrence")), expected, rtol=1e-14, atol=1e-15)


def test_an_empty_batch_gives_an_empty_batch(xp):
    modal = ssmid.Modal(xp.asarray(np.zeros((0, 2), complex)), xp.asarray(np.zeros((0, 2), complex)))
    for system in (modal, ssmid.to_state_space(modal), ssmid.to_transfer_function(modal), ssmid.to_zpk(modal), ssmid.to_sos(modal)):
        assert tuple(simulate(system, np.ones(5)).shape) == (0, 5)
        assert tuple(ssmid.impulse_response(system, 7, wrap="periodic").taps.shape) == (0, 7)
        assert tuple(ssmid.frequency_response(system, points=8).values.shape) == (0, 5)
