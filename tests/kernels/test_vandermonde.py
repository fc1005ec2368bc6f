"""Sums of exponentials against the definition, summed in mpmath and in dense float64."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from ssmid.kernels.vandermonde import (
    exponential_gradients,
    exponential_sums,
    fused_exponential_gradients,
    fused_exponential_sums,
)

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SHAPES = [(1, 1, 1), (2, 3, 2), (3, 5, 37), (2, 20, 300), (1, 33, 1024)]


def modes(channels: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Exponents that decay slowly and turn fast, and weights."""
    rng = np.random.default_rng(seed)
    exponents = -rng.uniform(0, 0.01, (channels, n)) + 1j * rng.uniform(-30, 30, (channels, n))
    return exponents, rng.standard_normal((channels, n)) + 1j * rng.standard_normal((channels, n))


def dense(exponents: np.ndarray, length: int) -> np.ndarray:
    return np.exp(exponents[..., None] * np.arange(length))


def relative(found, expected) -> float:
    return float(np.abs(np.asarray(found) - expected).max() / max(np.abs(expected).max(), 1e-300))


@pytest.mark.parametrize(("channels", "n", "length"), SHAPES)
def test_sums(xp, channels, n, length):
    exponents, weights = modes(channels, n)
    expected = (weights[..., None] * dense(exponents, length)).sum(1).real
    found = xp.numpy(exponential_sums(xp.asarray(weights), xp.asarray(exponents), length))
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize(("channels", "n", "length"), SHAPES)
def test_gradients(xp, channels, n, length):
    """``d h_t = Re sum_n e^{x_n t} (d w_n + w_n t d x_n)``."""
    exponents, weights = modes(channels, n)
    given = np.random.default_rng(1).standard_normal((channels, length))
    table = dense(exponents, length).conj()
    expected = (given[:, None] * table).sum(-1), weights.conj() * (given[:, None] * np.arange(length) * table).sum(-1)
    found = exponential_gradients(xp.asarray(given), xp.asarray(weights), xp.asarray(exponents))
    for one, other in zip(found, expected, strict=True):
        assert np.abs(xp.numpy(one) - other).max() <= 1e-12 * np.abs(other).max()


def test_the_phase_of_a_late_tap():
    """At t = 65,535 as good as at 0: against mpmath, whose digits are as many as are asked for."""
    exponents, weights = modes(1, 4)
    with mpmath.workdps(40):
        expected = [
            float(mpmath.re(sum(mpmath.mpc(w) * mpmath.exp(mpmath.mpc(x) * t) for w, x in zip(weights[0], exponents[0], strict=True))))
            for t in range(65530, 65536)
        ]
    slow = exponents.imag * 1j - 1e-6
    with mpmath.workdps(40):
        still = [
            float(mpmath.re(sum(mpmath.mpc(w) * mpmath.exp(mpmath.mpc(x) * t) for w, x in zip(weights[0], slow[0], strict=True))))
            for t in range(65530, 65536)
        ]
    assert np.abs(exponential_sums(weights, exponents, 65536)[0, 65530:] - expected).max() < 1e-9
    assert relative(exponential_sums(weights, slow, 65536)[0, 65530:], np.array(still)) < 1e-9


@on_gpu
@pytest.mark.parametrize(("channels", "n", "length"), [*SHAPES, (3, 512, 16384), (2, 32, 65536), (2, 2, 5000)])
def test_fused(channels, n, length):
    exponents, weights = (torch.as_tensor(x, device="cuda") for x in modes(channels, n))
    exponents = torch.complex(exponents.real * 0.1, exponents.imag)
    expected = exponential_sums(weights, exponents, length)
    found = fused_exponential_sums(weights, exponents, length)
    assert found.dtype == torch.float32
    assert relative(found.double().cpu(), expected.cpu().numpy()) < 2e-6
    given = torch.randn(channels, length, device="cuda")
    exact = exponential_gradients(given.double(), weights, exponents)
    for one, other in zip(fused_exponential_gradients(given, weights, exponents), exact, strict=True):
        assert relative(one.cpu(), other.cpu().numpy()) < 5e-6
    again = fused_exponential_gradients(given, weights, exponents)
    assert all(torch.equal(a, b) for a, b in zip(again, fused_exponential_gradients(given, weights, exponents), strict=True))
