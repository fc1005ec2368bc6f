"""Impulse responses against loops, mpmath and scipy."""

from __future__ import annotations

import tracemalloc

import mpmath
import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

import ssmid
from ssmid.analysis.impulse import impulse_response


def stepped(A, B, C, D, length: int) -> np.ndarray:
    """Markov parameters one product at a time, ``(p, m, length)``."""
    taps, x = [D], B
    for _ in range(length - 1):
        taps.append(C @ x)
        x = A @ x
    return np.stack(taps, -1)


def stable(rng, n: int, radius: float = 0.97) -> np.ndarray:
    A = rng.standard_normal((n, n))
    return A * radius / np.abs(np.linalg.eigvals(A)).max()


@pytest.mark.parametrize("n", [1, 10, 30, 100])
def test_state_space_equals_steps(rng, n):
    A, B, C, D = stable(rng, n), rng.standard_normal((n, 2)), rng.standard_normal((3, n)), rng.standard_normal((3, 2))
    expected = stepped(A, B, C, D, 1000)
    taps = impulse_response(ssmid.ss(A, B, C, D), 1000).taps
    np.testing.assert_allclose(taps, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 15, 16, 17, 64, 65])
def test_every_length_is_cut_right(rng, length):
    A, B, C, D = stable(rng, 4), rng.standard_normal((4, 1)), rng.standard_normal((1, 4)), rng.standard_normal((1, 1))
    np.testing.assert_allclose(impulse_response(ssmid.ss(A, B, C, D), length).taps, stepped(A, B, C, D, length)[0, 0], atol=1e-13)


@pytest.mark.parametrize(("b", "c"), [(1e300, 1e-300), (1e-300, 1e300), (1e-160, 1e300), (0.0, 1.0)])
def test_state_space_of_extreme_scales(b, c):
    taps = impulse_response(ssmid.ss([[0.5, 0.0], [0.0, 0.25]], [[b], [b]], [[c, c]]), 60).taps
    t = np.arange(59)
    np.testing.assert_allclose(taps[1:], b * c * (0.5**t + 0.25**t), rtol=1e-13)


def test_modal_against_mpmath():
    """A lightly damped pair over 2000 samples: relative to the peak, rounding grows with the number of samples only."""
    pole, residue = complex(0.9995 * np.exp(0.3j)), 1 - 2j
    with mpmath.workdps(40):
        exact = [float((2 * mpmath.mpc(residue) * mpmath.mpc(pole) ** t).real) for t in range(1999)]
    modal = ssmid.Modal(np.array([pole, pole.conjugate()]), np.array([residue, residue.conjugate()]), 0.25)
    taps = impulse_response(modal, 2000).taps
    assert taps[0] == 0.25
    np.testing.assert_allclose(taps[1:], exact, rtol=0, atol=1e-12)
    # the complex sum itself where the bank is not said to be real
    half = ssmid.Modal(modal.poles[:1], modal.residues[:1], 0.25 + 1j, real=False)
    np.testing.assert_allclose(impulse_response(half, 50).taps[1:], residue * pole ** np.arange(49), rtol=1e-13)


def test_a_hundred_thousand_modes_in_small_memory(rng):
    """The whole Vandermonde matrix would take 6.5 GB."""
    poles = rng.uniform(0.5, 0.999, 100_000) * np.exp(1j * rng.uniform(0, np.pi, 100_000))
    residues = rng.standard_normal(100_000) + 1j * rng.standard_normal(100_000)
    tracemalloc.start()
    taps = impulse_response(ssmid.Modal(poles, residues), 4096).taps
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6e9
    for t in (1, 2, 77, 4095):
        exact = np.sum(residues * poles ** (t - 1)).real
        assert abs(taps[t] - exact) < 1e-11 * np.abs(residues).sum()


def test_shared_poles_give_channels(rng):
    poles = np.array([0.9, -0.5])[None, None]
    residues = rng.standard_normal((3, 2, 2))
    taps = impulse_response(ssmid.Modal(poles, residues, rng.standard_normal((3, 2))), 9).taps
    assert taps.shape == (3, 2, 9)
    np.testing.assert_allclose(taps[..., 4], (residues * poles**3).sum(-1), rtol=1e-13)


def test_high_order_transfer_function_from_spread_poles():
    """Order 64, poles evenly on a circle: the taps are those of 1 / (1 - r z^-64), known exactly."""
    den = np.zeros(65)
    den[0], den[64] = 1.0, -(0.98**64)
    taps = impulse_response(ssmid.tf([1.0] + [0.0] * 64, den), 2000).taps
    expected = np.where(np.arange(2000) % 64 == 0, 0.98 ** np.arange(2000.0), 0.0)
    np.testing.assert_allclose(taps, expected, atol=1e-13)


def test_random_transfer_functions_of_order_64_against_mpmath(rng):
    angles = np.pi * (np.arange(32) + 0.5) / 32
    poles = rng.uniform(0.85, 0.95, 32) * np.exp(1j * angles)
    den, num = np.poly(np.r_[poles, poles.conj()]).real, rng.standard_normal(65)
    with mpmath.workdps(50):
        a, b, h = [mpmath.mpf(x) for x in den], [mpmath.mpf(x) for x in num], []
        for t in range(600):
            h.append((b[t] if t <= 64 else 0) - mpmath.fsum(a[k] * h[t - k] for k in range(1, min(t, 64) + 1)))
    exact = np.array([float(x) for x in h])
    np.testing.assert_allclose(impulse_response(ssmid.tf(num, den), 600).taps, exact, atol=1e-9 * np.abs(exact).max())


@pytest.mark.parametrize(("order", "edge", "tolerance"), [(5, 0.02, 1e-9), (8, 0.1, 1e-9), (12, 0.3, 1e-11)])
@pytest.mark.parametrize("form", ["coefficients", "coefficients on blocks", "companion"])
def test_clustered_poles_against_mpmath(form, order, edge, tolerance):
    """Powers of these companion matrices reach 1e6: repeated squares of them would leave 1e-2 of the taps to rounding."""
    num, den = scipy.signal.butter(order, edge)
    with mpmath.workdps(60):
        a, b, h = [mpmath.mpf(x) for x in den], [mpmath.mpf(x) for x in num], []
        for t in range(600):
            h.append((b[t] if t <= order else 0) - mpmath.fsum(a[k] * h[t - k] for k in range(1, min(t, order) + 1)))
    exact = np.array([float(x) for x in h])
    system = ssmid.tf(num, den)
    if form == "companion":
        A = np.vstack([-den[1:], np.eye(order - 1, order)])
        system = ssmid.ss(A, np.eye(order, 1), (num[1:] - num[0] * den[1:])[None], num[0])
    elif form == "coefficients on blocks":
        # where a gradient is recorded nothing runs on the host
        system = system.map(lambda c: torch.asarray(c).requires_grad_())
    taps = np.asarray(impulse_response(system, 600).map(lambda h: h.detach() if torch.is_tensor(h) else h).taps)
    np.testing.assert_allclose(taps, exact, atol=tolerance * np.abs(exact).max())


def test_unstable_transfer_function_keeps_relative_accuracy():
    """Forward substitution is exact to rounding at every tap; a division by FFT would be so at the largest only."""
    taps = impulse_response(ssmid.tf([1.0], [1.0, -2.5, 1.5]), 400).taps
    exact = np.r_[0.0, 2 * (1.5 ** np.arange(399.0) - 1)]
    np.testing.assert_allclose(taps, exact, rtol=1e-12)


@given(n=st.integers(0, 12), extra=st.integers(0, 12), length=st.integers(1, 80), seed=st.integers(0, 2**31))
def test_transfer_function_equals_lfilter(n, extra, length, seed):
    rng = np.random.default_rng(seed)
    poles = rng.uniform(-0.9, 0.9, n)
    den = 3.0 * np.poly(poles) if n else np.array([3.0])
    num = rng.standard_normal(max(1, n + 1 - extra))
    expected = scipy.signal.lfilter(np.r_[np.zeros(n + 1 - len(num)), num], den, np.eye(1, length)[0])
    taps = impulse_response(ssmid.TransferFunction(num, den), length).taps
    np.testing.assert_allclose(taps, expected, rtol=0, atol=1e-10 * max(1, np.abs(expected).max()))


def test_narrow_filters_through_their_cascade():
    """butter(16, 0.05) as polynomials has a pole outside the unit circle; as a cascade its taps fade out."""
    z, p, k = scipy.signal.butter(16, 0.05, output="zpk")
    taps = impulse_response(ssmid.zpk(z, p, k), 4000).taps
    assert np.abs(taps[-100:]).max() < 1e-12
    expected = scipy.signal.sosfilt(scipy.signal.zpk2sos(z, p, k), np.eye(1, 4000)[0])
    np.testing.assert_allclose(taps, expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(impulse_response(ssmid.zpk([], [0.5], 2.0), 4).taps, [0, 2, 1, 0.5])
    np.testing.assert_allclose(impulse_response(ssmid.zpk([0.1j], [0.5j, 0.2], 1 + 0j), 4).taps, [0, 1, 0.2 + 0.4j, -0.16 + 0.08j])


def test_taps_are_cut_and_continued():
    h = ssmid.ImpulseResponse([1.0, 2.0, 3.0], dt=0.5)
    np.testing.assert_array_equal(impulse_response(h, 2).taps, [1, 2])
    np.testing.assert_array_equal(impulse_response(h, 5).taps, [1, 2, 3, 0, 0])
    np.testing.assert_array_equal(impulse_response(h, 2, wrap="periodic").taps, [4, 2])
    assert impulse_response(h).length == 3
    assert impulse_response(h).dt == 0.5


@pytest.mark.parametrize("points", [1, 2, 7, 8])
def test_spectrum_and_back(rng, points):
    taps = rng.standard_normal((2, points))
    # one or two values lie on the grid of a real response and on the whole circle alike, and are read as the first
    for h in (taps, taps + 1j * rng.standard_normal((2, points)))[: 1 if points <= 2 else 2]:
        spectrum = ssmid.frequency_response(ssmid.ImpulseResponse(h))
        np.testing.assert_allclose(impulse_response(spectrum).taps, h, atol=1e-14)


def test_modal_periodic_is_the_wrapped_sum():
    modal = ssmid.Modal(np.array([0.9, 0.3]), np.array([1.0, 2.0]), 0.5)
    whole = impulse_response(modal, 7 * 60).taps.reshape(60, 7).sum(0)
    np.testing.assert_allclose(impulse_response(modal, 7, wrap="periodic").taps, whole, rtol=1e-13)


@pytest.mark.parametrize(
    ("system", "arguments", "match"),
    [
        (ssmid.tf([1.0], [1.0, 0.5], dt=0), {"length": 4}, "c2d"),
        (ssmid.tf([1.0], [1.0, 0.5]), {"length": 0}, "length: expected .* got 0"),
        (ssmid.tf([1.0], [1.0, 0.5]), {"length": 2.5}, "length: expected .* got 2.5"),
        (ssmid.tf([1.0], [1.0, 0.5]), {}, "length: expected .* got None"),
        (ssmid.tf([1.0], [1.0, 0.5]), {"length": 4, "wrap": "round"}, "wrap: expected .* got 'round'"),
        (ssmid.frd([1.0, 0.5], [0.0, 1.0], dt=1), {"length": 2}, "whole FFT grid"),
        (ssmid.frd([1.0, 0.5], [0.0, np.pi], dt=1), {"length": 3}, "at most 2 .* got 3"),
    ],
)
def test_what_it_refuses(system, arguments, match):
    with pytest.raises(ValueError, match=match):
        impulse_response(system, **arguments)


def test_an_array_is_not_a_system():
    with pytest.raises(TypeError, match=r"got ndarray: wrap taps in ssmid\.ImpulseResponse"):
        impulse_response(np.zeros(3), 4)


@pytest.mark.parametrize("wrap", ["causal", "periodic"])
def test_gradients(wrap):
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    radius, angle, residues = random(2, 3).sigmoid() * 0.9, random(2, 3), torch.complex(random(2, 3), random(2, 3))

    def modal(radius, angle, residues, through):
        return impulse_response(ssmid.Modal(torch.polar(radius, angle), residues, through), 11, wrap).taps

    inputs = [x.requires_grad_() for x in (radius, angle, residues, random(2))]
    assert torch.autograd.gradcheck(modal, inputs)
    A, B, C, D = (x.requires_grad_() for x in (0.3 * random(3, 3), random(3, 2), random(1, 3), random(1, 2)))
    assert torch.autograd.gradcheck(lambda *M: impulse_response(ssmid.StateSpace(*M), 6, wrap).taps, (A, B, C, D))
    num, den = random(2, 3).requires_grad_(), torch.cat([torch.ones(2, 1), 0.2 * random(2, 3)], -1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda b, a: impulse_response(ssmid.TransferFunction(b, a), 9, wrap).taps, (num, den))


def test_wrapped_response_of_a_pole_at_zero():
    """A delay is wrapped like any other mode; its logarithm does not exist."""
    modal = ssmid.Modal([0.0, 0.5], [1.0, 1.0])
    expected = impulse_response(modal, 64).taps.reshape(16, 4).sum(0)
    np.testing.assert_allclose(impulse_response(modal, 4, "periodic").taps, expected, atol=1e-15)


def test_wrapped_response_of_an_integrator_spoils_no_other(xp):
    """The sum of an integrator has no limit; B and C are shared by the batch."""
    one = xp.asarray(np.ones((1, 1)))
    bank = ssmid.StateSpace(xp.asarray(np.array([[[1.0]], [[0.5]]])), one, one)
    taps = xp.numpy(impulse_response(bank, 4, "periodic").taps)
    assert not np.isfinite(taps[0, 1:]).any()
    np.testing.assert_allclose(taps[1], np.array([2, 16, 8, 4]) / 15, rtol=1e-14)


def test_complex_output_of_real_states(xp):
    """Real A and B beside a complex C, in libraries whose matrix products do not promote."""
    one = np.ones((1, 1))
    system = ssmid.StateSpace(xp.asarray(0.5 * one), xp.asarray(one), xp.asarray(2j * one))
    np.testing.assert_allclose(xp.numpy(impulse_response(system, 3).taps), [0, 2j, 1j])
    wrapped = xp.numpy(impulse_response(system, 2, "periodic").taps)
    np.testing.assert_allclose(wrapped, np.array([1j, 2j]) * 4 / 3, rtol=1e-14)


@pytest.mark.parametrize("taps", [[1 + 2j], [1 + 2j, -3j]])
def test_spectrum_of_one_or_two_complex_taps_gives_them_back(taps):
    spectrum = ssmid.frequency_response(ssmid.ImpulseResponse(taps))
    np.testing.assert_allclose(impulse_response(spectrum).taps, taps, atol=1e-15)
