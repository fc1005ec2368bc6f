"""Long convolutions with weights for taps."""

import numpy as np
import pytest

from ssmid.parametrizations.long_convolution import long_convolution


@pytest.mark.parametrize("lam", [0.0, 0.3, 10.0])
def test_soft_threshold(xp, rng, lam):
    kernel, bypass = rng.standard_normal((2, 3, 20)), rng.standard_normal((2, 3))
    found = long_convolution(xp.asarray(kernel), xp.asarray(bypass), lam=lam)
    assert xp.owns(found.taps)
    expected = [[[0 if abs(k) <= lam else k - lam if k > 0 else k + lam for k in row] for row in rows] for rows in kernel]
    expected = np.array(expected) + bypass[..., None] * (np.arange(20) == 0)
    np.testing.assert_allclose(xp.numpy(found.taps), expected, atol=1e-14)


@pytest.mark.parametrize("window", [1, 3, 7])
def test_moving_average(xp, rng, window):
    kernel = rng.standard_normal((3, 20))
    found = long_convolution(xp.asarray(kernel), lam=0.0, window=window)
    expected = [np.convolve(row, np.full(window, 1 / window), "same") for row in kernel]
    np.testing.assert_allclose(xp.numpy(found.taps), expected, atol=1e-14)


@pytest.mark.parametrize("length", [20, 21])
def test_smoothed_spectrum(xp, rng, length):
    kernel = rng.standard_normal((3, length))
    found = long_convolution(xp.asarray(kernel), lam=0.0, window=5, smooth_spectrum=True)
    bell = np.exp(-0.5 * np.array([-2.0, -1, 0, 1, 2]) ** 2)
    expected = [np.fft.irfft(np.convolve(np.fft.rfft(row), bell, "same")) for row in kernel]
    np.testing.assert_allclose(xp.numpy(found.taps), expected, atol=1e-13)


def test_width_and_gradient(rng):
    import torch

    kernel = torch.asarray(rng.standard_normal((2, 9)))
    assert long_convolution(kernel.float(), lam=0.1).taps.dtype == torch.float32
    kernel.requires_grad_()
    for options in ({}, {"window": 3}, {"window": 3, "smooth_spectrum": True}):
        assert torch.autograd.gradcheck(lambda k, options=options: long_convolution(k, lam=0.05, **options).taps, (kernel,))


@pytest.mark.parametrize(("options", "said"), [({"lam": -1}, "lam"), ({"lam": float("nan")}, "lam"), ({"lam": 0, "window": 4}, "window")])
def test_options_that_are_none(options, said):
    with pytest.raises(ValueError, match=said):
        long_convolution(np.ones(9), **options)
