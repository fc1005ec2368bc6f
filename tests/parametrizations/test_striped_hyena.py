"""Filters of StripedHyena and Evo 2, against the sums written out."""

import mpmath
import numpy as np
import pytest

import ssmid
from ssmid.parametrizations.striped_hyena import evo2_long, evo2_taps, savanna_modal, striped_hyena


def stored(rng, *shape):
    poles = 0.8 * np.exp(rng.uniform(-3, 3, shape) * 1j)
    return np.stack([poles.real, poles.imag], axis=-1)


@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_kernel_of_striped_hyena(xp, rng, length):
    """h[t] = Re sum R p^t from t = 0 on, in arithmetic of 40 digits."""
    poles, residues = stored(rng, 3, 4, 1), rng.standard_normal((3, 4, 1, 2))
    bank = striped_hyena(xp.asarray(poles), xp.asarray(residues))
    taps = xp.numpy(ssmid.impulse_response(bank, length).taps)
    with mpmath.workdps(40):
        for g in range(3):
            for t in range(length):
                modes = (mpmath.mpc(*residues[g, i, 0]) * mpmath.mpc(*poles[g, i, 0]) ** t for i in range(4))
                assert abs(taps[g, t] - float(mpmath.re(sum(modes)))) < 1e-13


def test_groups_share_a_filter_but_not_the_bypass(rng):
    """As the layer runs it: filters repeated for neighbouring channels, plus D u."""
    poles, residues, D = stored(rng, 2, 3, 1), rng.standard_normal((2, 3, 1, 2)), rng.standard_normal(6)
    taps = ssmid.impulse_response(striped_hyena(poles, residues, D), 9).taps
    assert taps.shape == (2, 3, 9)
    alone = ssmid.impulse_response(striped_hyena(poles, residues), 9).taps
    expected = np.repeat(alone, 3, axis=0)
    expected[:, 0] += D
    np.testing.assert_allclose(taps.reshape(6, 9), expected, atol=1e-14)
    with pytest.raises(ValueError, match=r"2 equal groups, got shape \(5,\)"):
        striped_hyena(poles, residues, D[:5])


def test_one_channel_a_group(rng):
    poles, residues, D = stored(rng, 4, 3, 1), rng.standard_normal((4, 3, 1, 2)), rng.standard_normal(4)
    with_bypass, without = striped_hyena(poles, residues, D), striped_hyena(poles, residues)
    assert with_bypass.batch_shape == (4,)
    np.testing.assert_allclose(with_bypass.feedthrough - without.feedthrough, D, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_filters_of_evo2(xp, rng, dtype):
    log_poles = -np.exp(rng.uniform(-6, 0, (5, 4, 1))).astype(dtype)
    residues = rng.standard_normal((5, 4)).astype(dtype)
    bank = evo2_long(xp.asarray(log_poles), xp.asarray(residues))
    assert bank.order == 4
    taps = xp.numpy(ssmid.impulse_response(bank, 50).taps)
    assert taps.dtype == dtype
    expected = np.array([(residues * np.exp(log_poles[..., 0].astype(float) * t)).sum(-1) for t in range(50)]).T
    np.testing.assert_allclose(taps, expected, atol=2e-5 if dtype == "float32" else 1e-13)


def test_training_and_inference_code_of_evo2_store_the_same_filter(rng):
    gamma, R, p = (rng.standard_normal((3, 5)) for _ in range(3))
    trained, exported = savanna_modal(gamma, R, p), evo2_long((-np.exp(p) * np.exp(gamma))[..., None], R)
    np.testing.assert_allclose(trained.poles, exported.poles, rtol=1e-14)
    np.testing.assert_allclose(trained.residues, exported.residues, rtol=1e-14)


@pytest.mark.parametrize("length", [7, 127, 128, 130])
def test_explicit_filters_of_evo2_are_the_response_of_the_layer(rng, length):
    """Below 128 taps by torch's conv1d, which correlates; from there on by an FFT, which convolves; D gates the bypass."""
    import torch

    h, D, steps = rng.standard_normal((2, 1, length)), rng.standard_normal(4), length + 5
    impulse = torch.zeros(1, 4, steps, dtype=torch.float64)
    impulse[..., 0] = 1
    weight = torch.from_numpy(h).repeat_interleave(2, 0)
    if length < 128:
        response = torch.nn.functional.conv1d(impulse, weight, padding=length - 1, groups=4)[..., :steps]
    else:
        spectrum = torch.fft.rfft(weight[:, 0], n=2 * steps) * torch.fft.rfft(impulse, n=2 * steps)
        response = torch.fft.irfft(spectrum, n=2 * steps)[..., :steps] + impulse * torch.from_numpy(D)[:, None]
    taps = evo2_taps(h, D if length >= 128 else None).taps
    taps = np.repeat(taps, 2, axis=0) if length < 128 else taps.reshape(4, length)
    np.testing.assert_allclose(taps, response[0, :, :length].numpy(), atol=1e-12)


def test_decayed_filters_are_not_turned_round(rng):
    h, decay = rng.standard_normal((3, 10)), np.exp(-np.arange(10.0)) * np.ones((3, 1))
    np.testing.assert_array_equal(evo2_taps(h, decay=decay).taps, h * decay)


def test_wrong_pairs():
    with pytest.raises(ValueError, match=r"poles: expected real and imaginary parts in the last axis, of length 2, got shape \(2, 3\)"):
        striped_hyena(np.zeros((2, 3)), np.zeros((2, 3, 2)))


def test_gradient():
    import torch

    poles, residues = (torch.randn(2, 3, 1, 2, dtype=torch.float64, requires_grad=True) * 0.4 for _ in range(2))
    assert torch.autograd.gradcheck(lambda p, r: ssmid.impulse_response(striped_hyena(p, r), 5).taps, (poles, residues))
