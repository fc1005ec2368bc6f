"""Trained poles and residues: taps against sums written out, the law, gradients, and no value of a parameter that is unstable."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ssmid
from ssmid import Modal
from ssmid.nn import ModalFilter
from tests.nn.laws import DEVICES, DTYPES, compiles, gradients_are_right, recurrence_laws, state_dict_travels, taps_are_the_response


def made(channels: int = 3, order: int = 6, **options) -> ModalFilter:
    return ModalFilter(channels, order, generator=torch.Generator().manual_seed(4), **options)


def bank(channels: int = 4, seed: int = 0) -> Modal:
    """Pairs and real poles, more of one kind in some channels than in others, and one at 0."""
    rng = np.random.default_rng(seed)
    poles, residues = np.zeros((channels, 6), complex), np.zeros((channels, 6), complex)
    for c in range(channels):
        for pair in range(c % 3 + 1):
            p, r = 0.9 * rng.uniform() * np.exp(1j * rng.uniform(0.1, 3)), complex(*rng.standard_normal(2))
            poles[c, 2 * pair : 2 * pair + 2], residues[c, 2 * pair : 2 * pair + 2] = (p, p.conjugate()), (r, r.conjugate())
        if c % 3 < 2:
            poles[c, 4:], residues[c, 4:] = (-0.7, 0.0), (1.5, 0.5)
    return Modal(poles, residues, rng.standard_normal(channels))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_laws(dtype, device):
    recurrence_laws(made(), device, dtype, lengths=(1, 2, 7, 16, 33, 120))
    recurrence_laws(ModalFilter.from_system(bank()), device, dtype, batch=(2, 2))


def test_taps_are_the_sums():
    filter = made().double()
    lam, R = filter.poles().detach().numpy(), filter.residues.detach().numpy() @ [1, 1j]
    for length in (1, 2, 3, 50, 51):
        taps = filter(length).detach().numpy()
        assert taps.shape == (3, length)
        np.testing.assert_array_equal(taps[:, 0], filter.feedthrough.detach().numpy())
        for t in range(1, length):
            np.testing.assert_allclose(taps[:, t], np.sum(R * lam ** (t - 1), -1).real, atol=1e-12)
    taps_are_the_response(made())
    assert filter(0).shape == (3, 0)


def test_gradients():
    gradients_are_right(made(2, 4), function=lambda module: module(9))
    u = torch.randn(2, 2, 7, generator=torch.Generator().manual_seed(0))
    gradients_are_right(made(2, 4), u, function=lambda module, u: module.convolve(u))


def test_gradients_of_poles_at_0_are_numbers():
    filter = ModalFilter.from_system(bank())
    filter(20).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in filter.parameters())


def test_from_a_system_and_back():
    system = bank()
    filter = ModalFilter.from_system(system)
    assert filter.modulus.dtype == torch.float64
    expected = ssmid.impulse_response(system, 60).taps
    np.testing.assert_allclose(filter(60).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(ssmid.impulse_response(filter.system(), 60).taps, expected, atol=1e-12)
    assert filter.modulus.shape == (4, 4)  # as many as the channel with most, one of each pair
    slow = Modal(np.array([[1 - 1e-9, -1 + 1e-7]]), np.ones((1, 2)))
    taps = ModalFilter.from_system(slow)(2**18).detach().numpy()
    np.testing.assert_allclose(taps, ssmid.impulse_response(slow, 2**18).taps, atol=1e-6)
    narrow = ModalFilter.from_system(system.map(lambda a: a.astype("complex64" if a.dtype.kind == "c" else "float32")))
    assert narrow.modulus.dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
def test_a_distilled_bank_can_be_trained_further(device):
    h = torch.as_tensor(ssmid.datasets.hyena_filters().taps[:4, :256].astype("float64"), device=device)
    distilled = ssmid.distill(ssmid.ImpulseResponse(h), order=8, method="balanced")
    filter = ModalFilter.from_system(distilled.system)
    assert filter.modulus.device.type == device
    before = float((filter(256) - h).square().sum())
    optimizer = torch.optim.Adam(filter.parameters(), 1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        (filter(256) - h).square().sum().backward()
        optimizer.step()
    assert float((filter(256) - h).square().sum()) < before
    # what runs is what was trained last
    u = torch.randn(2, 4, 40, dtype=h.dtype, device=device)
    _, state = filter.prefill(u[..., :30])
    for t in range(30, 40):
        torch.testing.assert_close(filter.step_(u[..., t], state), filter.convolve(u)[..., t], rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [-1e30, -50.0, 0.0, 30.0, 1e30])
def test_no_modulus_is_unstable(value):
    filter = made().double()
    with torch.no_grad():
        filter.modulus.fill_(value)
    assert (filter.poles().abs() <= 1).all()
    assert filter(5000).isfinite().all()


def test_time_constants_are_spread():
    filter = made(2, 16, longest=500.0)
    decay = -1 / torch.log(filter.poles().abs())
    torch.testing.assert_close(decay[0].detach(), torch.logspace(0, np.log10(500), 8, dtype=torch.float64), rtol=1e-3, atol=0)
    energy = made(400, 16).double()(20000).detach()[:, 1:].square().sum(-1)
    assert 0.8 < float(energy.mean()) < 1.25


def test_a_state_dict_travels_and_steps_compile(tmp_path):
    state_dict_travels(made, tmp_path, lambda m: m.step(torch.ones(1, 3), m.initial_state(1))[0])
    assert list(made().state_dict()) == ["modulus", "angle", "residues", "feedthrough"]
    filter = made().double()
    state = filter.initial_state(2)
    compiles(filter.step, torch.ones(2, 3, dtype=torch.float64), state)
    compiles(filter.convolve, torch.ones(2, 3, 8, dtype=torch.float64))


def test_a_model_in_bf16_keeps_its_poles():
    filter = ModalFilter.from_system(bank()).float()
    before = filter(50)
    assert torch.equal(filter.bfloat16()(50), before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ModalFilter(0, 4), "channels: expected a whole number of at least 1, got 0"),
        (lambda: ModalFilter(2, 5), "order: expected an even number of real states"),
        (lambda: ModalFilter(2, 4, longest=0.5), "longest: expected a time of at least 1 token, got 0.5"),
        (lambda: ModalFilter.from_system(Modal(np.array([[1.1]]), np.ones((1, 1)))), "inside the unit circle, got one of modulus 1.1"),
        (lambda: ModalFilter.from_system(Modal(np.array([[np.nan], [0.1]]), np.ones((2, 1)))), "got one of modulus nan"),
        (lambda: ModalFilter.from_system(Modal(np.array([0.1]), np.ones(1))), r"expected a discrete-time bank of batch \(channels,\)"),
        (lambda: ModalFilter.from_system(Modal(np.array([[-1.0]]), np.ones((1, 1)), dt=0)), "expected a discrete-time bank"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_another_system_is_a_type_error():
    with pytest.raises(TypeError, match=r"expected a Modal, got StateSpace: ssmid\.to_modal makes one"):
        ModalFilter.from_system(ssmid.ss(0.5, 1, 1, 0))  # pyright: ignore[reportArgumentType]
