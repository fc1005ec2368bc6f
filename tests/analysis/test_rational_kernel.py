"""The rational kernel: right at every length and order, both ways; each fault of the authors' code is a test here."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from ssmid.analysis.rational_kernel import power_series, rational_kernel, rational_spectrum, unwrap_numerator, wrap_numerator

LENGTHS = [1, 2, 3, 7, 8, 15, 16]
ORDERS = [1, 2, 5, 8, 11, 40]


def coefficients(rng, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and stable denominators ``(*shape)``, without their leading coefficients."""
    poles = 0.85 * np.exp(2j * np.pi * rng.uniform(0, 0.5, (*shape[:-1], shape[-1] // 2)))
    real = rng.uniform(-0.8, 0.8, (*shape[:-1], shape[-1] % 2))
    roots = np.concatenate([poles, poles.conj(), real], -1).reshape(-1, shape[-1])
    a = np.stack([np.poly(r).real[1:] for r in roots]).reshape(shape)
    return rng.standard_normal(shape), a


def causal(b, a, h0, length: int) -> np.ndarray:
    """By scipy's recursion: h0 + b / (1 + a)."""
    return scipy.signal.lfilter(np.r_[0.0, b], np.r_[1.0, a], np.eye(1, length)[0]) + h0 * np.eye(1, length)[0]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("n", ORDERS)
def test_causal_kernel_is_the_response(xp, rng, n, length):
    """Odd lengths, orders above the length, and tap 0 free of h_L among them."""
    b, a = coefficients(rng, 2, n)
    h0 = np.array([2.0, -3.0])
    kernel = rational_kernel(*(xp.asarray(x) for x in (b, a)), length, xp.asarray(h0), wrap="causal")
    assert xp.owns(kernel)
    for i in range(2):
        expected = causal(b[i], a[i], h0[i], length)
        np.testing.assert_allclose(xp.numpy(kernel)[i], expected, atol=1e-9 * max(1, np.abs(expected).max()))
    assert np.array_equal(xp.numpy(kernel)[:, 0], h0)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("n", [1, 4, 9, 20])
def test_wrapping_is_undone(xp, rng, n, length):
    b, a = (xp.asarray(x) for x in coefficients(rng, 3, n))
    wrapped = wrap_numerator(b, a, length)
    np.testing.assert_allclose(xp.numpy(unwrap_numerator(wrapped, a, length)), xp.numpy(b), atol=1e-8)
    np.testing.assert_allclose(xp.numpy(wrap_numerator(unwrap_numerator(b, a, length), a, length)), xp.numpy(b), atol=1e-8)


@pytest.mark.parametrize("length", [4, 5])
def test_the_wrapped_numerator_is_that_of_c_times_i_minus_a_to_the_l(rng, length):
    """In the controllable companion form C holds the numerator: b_w = b (I - A^L), with no transpose lost."""
    b, a = coefficients(rng, 6)
    A = np.vstack([-a, np.eye(5, 6)])
    expected = b @ (np.eye(6) - np.linalg.matrix_power(A, length))
    np.testing.assert_allclose(wrap_numerator(b, a, length), expected, atol=1e-12)
    assert np.abs(expected - (np.eye(6) - np.linalg.matrix_power(A, length)) @ b).max() > 0.1


@pytest.mark.parametrize("length", [5, 8])
def test_a_trained_kernel_is_the_response_of_the_deployed_system(rng, length):
    b, a = coefficients(rng, 6)
    kernel = rational_kernel(b, a, length, 0.5)
    np.testing.assert_allclose(kernel, causal(unwrap_numerator(b, a, length), a, 0.5, length), atol=1e-10)


@pytest.mark.parametrize("length", [1, 6, 9])
def test_periodic_kernel_is_the_wrapped_response_but_for_tap_zero(rng, length):
    b, a = coefficients(rng, 4)
    wrapped = causal(b, a, 0.0, 300 * length).reshape(300, length).sum(0)
    kernel = rational_kernel(b, a, length, 7.0)
    np.testing.assert_allclose(kernel[1:], wrapped[1:], atol=1e-12)
    assert kernel[0] == 7.0
    assert abs(wrapped[0]) > 1e-3


@pytest.mark.parametrize("points", [1, 2, 9, 10])
@pytest.mark.parametrize("n", [3, 12])
def test_spectrum_is_evaluation_on_the_circle(xp, rng, points, n):
    b, a = coefficients(rng, n)
    num, den = np.r_[0.5, b], np.r_[1.0, a]
    _, expected = scipy.signal.freqz(num, den, worN=2 * np.pi * np.arange(points // 2 + 1) / points)
    got = xp.numpy(rational_spectrum(xp.asarray(num), xp.asarray(den), points))
    np.testing.assert_allclose(got, expected, atol=1e-9 * np.abs(expected).max())
    whole = rational_spectrum(num + 0j, den, points)
    _, expected = scipy.signal.freqz(num, den, worN=2 * np.pi * np.arange(points) / points)
    np.testing.assert_allclose(whole, expected, atol=1e-9 * np.abs(expected).max())


def test_one_denominator_for_many_channels(rng):
    b, a = coefficients(rng, 5, 4)
    shared = rational_kernel(b, a[0], 32, wrap="causal")
    for i in range(5):
        np.testing.assert_allclose(shared[i], causal(b[i], a[0], 0, 32), atol=1e-12)


def test_single_precision_stays_single(xp, rng):
    b, a = coefficients(rng, 2, 8)
    single = rational_kernel(xp.asarray(b, "float32"), xp.asarray(a, "float32"), 64, wrap="causal")
    assert str(single.dtype).endswith("float32")
    np.testing.assert_allclose(xp.numpy(single), rational_kernel(b, a, 64, wrap="causal"), atol=1e-3 * np.abs(b).max())


def test_power_series_of_scaled_denominators(rng):
    b, a = coefficients(rng, 5)
    num, den = np.r_[1.0, b], np.r_[1.0, a]
    expected = power_series(num, den, 50)
    for scale in (1e-300, 1e300):
        np.testing.assert_allclose(power_series(num, scale * den, 50) * scale, expected, rtol=1e-12)


@pytest.mark.parametrize("wrap", ["periodic", "causal"])
@pytest.mark.parametrize("length", [6, 7])
def test_gradients(wrap, length):
    generator = torch.Generator().manual_seed(0)
    b, a, h0 = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((2, 4), (2, 4), (2,)))
    inputs = [b.requires_grad_(), (0.2 * a).requires_grad_(), h0.requires_grad_()]
    assert torch.autograd.gradcheck(lambda b, a, h0: rational_kernel(b, a, length, h0, wrap=wrap), inputs)
    assert torch.autograd.gradcheck(lambda b, a: unwrap_numerator(b, a, length), inputs[:2])


def test_an_unknown_wrap_is_refused():
    with pytest.raises(ValueError, match=r"wrap: expected .* got 'both'"):
        rational_kernel(np.ones(2), np.zeros(2), 4, wrap="both")  # pyright: ignore
