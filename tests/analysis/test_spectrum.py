"""Frequency responses, phase and group delay against definitions, scipy and finite differences."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

import ssmid
from ssmid.analysis.evaluation import evaluate, horner, ratio
from ssmid.analysis.spectrum import frequency_response, group_delay, magnitude_db, phase


def resolvent(A, B, C, D, x) -> np.ndarray:
    """``(p, m, k)`` by one dense solve a point."""
    return np.stack([C @ np.linalg.solve(z * np.eye(len(A)) - A, B) + D for z in x], -1)


@pytest.mark.parametrize("points", [3, 40])
@pytest.mark.parametrize("n", [0, 1, 5, 70])
@pytest.mark.parametrize("dt", [0, 0.25])
def test_state_space(xp, rng, n, points, dt):
    """Few points go by dense solves, many by one Schur form."""
    A = rng.standard_normal((2, n, n)) / max(1, n) ** 0.5
    B, C, D = rng.standard_normal((2, n, 3)), rng.standard_normal((2, 2, n)), rng.standard_normal((2, 2, 3))
    omega = np.linspace(0.1, 3, points)
    got = frequency_response(ssmid.StateSpace(*(xp.asarray(M) for M in (A, B, C, D)), dt=dt), xp.asarray(omega))
    assert xp.owns(got.values)
    x = np.exp(1j * omega * dt) if dt else 1j * omega
    for i in range(2):
        expected = resolvent(A[i], B[i], C[i], D[i], x)
        np.testing.assert_allclose(xp.numpy(got.values)[i], expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_stiff_state_space_keeps_its_small_scales():
    """Poles from 1e-4 to 1e9 rad/s: balancing keeps each at its own relative accuracy."""
    rates = np.logspace(-4, 9, 27)
    system = ssmid.ss(-np.diag(rates), np.ones(27), rates, dt=0)
    omega = np.logspace(-5, 10, 50)
    expected = (rates / (1j * omega[:, None] + rates)).sum(-1)
    np.testing.assert_allclose(frequency_response(system, omega).values, expected, rtol=1e-12)


def test_badly_scaled_states_do_no_harm(rng):
    """States in units twelve decades apart, as in circuits: balancing undoes what the units did, whichever way points are taken."""
    A, B, C = rng.standard_normal((20, 20)) - 6 * np.eye(20), rng.standard_normal((20, 1)), rng.standard_normal((1, 20))
    units = 2.0 ** rng.integers(-20, 20, 20)
    for omega in (np.linspace(0.1, 3, 5), np.linspace(0.1, 3, 40)):
        expected = resolvent(A, B, C, 0, 1j * omega)[0, 0]
        got = frequency_response(ssmid.ss(A * units / units[:, None], B / units[:, None], C * units, dt=0), omega).values
        np.testing.assert_allclose(got, expected, atol=1e-12 * np.abs(expected).max())


def test_one_pole_of_each_pair_is_the_same_real_bank():
    pole, residue = 0.8 * np.exp(0.5j), 0.3 - 0.4j
    closed = ssmid.Modal(np.array([pole, pole.conjugate()]), np.array([residue, residue.conjugate()]), 2.0)
    half = ssmid.Modal(np.array([pole]), np.array([2 * residue]), 2.0)
    x = np.exp(1j * np.linspace(0, 3, 9))
    for derivative in (0, 1):
        np.testing.assert_allclose(evaluate(half, x, derivative), evaluate(closed, x, derivative), rtol=1e-13)


def test_modal_against_mpmath_beside_a_pole():
    pole, residue, omega = 0.9999 * np.exp(0.5j), 0.3 - 0.4j, np.array([0.0, 0.5, 0.50001, 3.0])
    modal = ssmid.Modal(np.array([pole, pole.conjugate()]), np.array([residue, residue.conjugate()]), 2.0)
    with mpmath.workdps(40):
        p, r = mpmath.mpc(complex(pole)), mpmath.mpc(residue)
        zs = [mpmath.expj(mpmath.mpf(float(w))) for w in omega]
        exact = [complex(2 + r / (z - p) + mpmath.conj(r) / (z - mpmath.conj(p))) for z in zs]
    # a point's own rounding, eps, is enlarged by 1 / |z - p| = 1e4 at the resonance
    np.testing.assert_allclose(frequency_response(modal, omega).values, exact, rtol=1e-11)


@given(
    n=st.integers(0, 9), lower=st.integers(0, 9), dt=st.sampled_from([0, 0.1, 2.0]), exponent=st.integers(-6, 6), seed=st.integers(0, 2**31)
)
def test_transfer_functions_at_any_scale(n, lower, dt, exponent, seed):
    rng = np.random.default_rng(seed)
    num, den = rng.standard_normal(max(1, n + 1 - lower)), np.r_[1.0, rng.standard_normal(n)]
    omega = rng.uniform(0.1, 3, 5) * 10.0 ** (0 if dt else exponent)
    x = np.exp(1j * omega * dt) if dt else 1j * omega
    bottom = np.polyval(den, x)
    size = np.polyval(np.abs(num), np.abs(x)) / np.abs(bottom) * np.polyval(np.abs(den), np.abs(x)) / np.abs(bottom)
    got = frequency_response(ssmid.TransferFunction(num, den, dt), omega).values
    assert np.all(np.abs(got - np.polyval(num, x) / bottom) <= 1e-13 * size)


def test_far_frequencies_do_not_overflow():
    system = ssmid.tf([1.0], np.poly(np.full(12, -1.0)), dt=0)
    np.testing.assert_allclose(frequency_response(system, [1e25]).values[0], 1e-300, rtol=1e-12)
    all_pass = ssmid.tf(np.poly(np.full(12, 2.0)), np.poly(np.full(12, -2.0)), dt=0)
    np.testing.assert_allclose(frequency_response(all_pass, [1e30]).values[0], 1, rtol=1e-12)
    assert ratio(np.array([2.0 + 0j]), np.array([1.0 + 0j]), np.array([1e200j]))[0] == 2


def test_factored_forms_stay_factored():
    """butter(16, 0.05) in the stop band, where polynomials have lost every digit."""
    z, p, k = scipy.signal.butter(16, 0.05, output="zpk")
    omega = np.array([0.01, 0.1, 0.15, 1.0, 3.0])
    with mpmath.workdps(40):
        exact = []
        for w in omega:
            x = mpmath.expj(mpmath.mpf(w))
            value = mpmath.mpf(float(k))
            for zero, pole in zip(z, p, strict=True):
                value *= (x - mpmath.mpc(complex(zero))) / (x - mpmath.mpc(complex(pole)))
            exact.append(complex(value))
    np.testing.assert_allclose(frequency_response(ssmid.zpk(z, p, k), omega).values, exact, rtol=1e-12)
    np.testing.assert_allclose(frequency_response(ssmid.SecondOrderSections(scipy.signal.zpk2sos(z, p, k)), omega).values, exact, rtol=1e-9)


@pytest.mark.parametrize("points", [1, 2, 5, 6, 20, 33])
def test_taps_on_the_grid_are_exact_samples(xp, rng, points):
    """Longer taps are wrapped, shorter ones continued with zeros."""
    taps = rng.standard_normal((2, 20))
    got = frequency_response(ssmid.ImpulseResponse(xp.asarray(taps), dt=0.5), points=points)
    omega = 2 * np.pi * np.arange(points // 2 + 1) / (0.5 * points)
    np.testing.assert_allclose(xp.numpy(got.omega), omega, rtol=1e-15)
    np.testing.assert_allclose(xp.numpy(got.values), taps @ np.exp(-0.5j * np.arange(20)[:, None] * omega), atol=1e-13)
    loose = frequency_response(ssmid.ImpulseResponse(xp.asarray(taps), dt=0.5), omega)
    np.testing.assert_allclose(xp.numpy(loose.values), xp.numpy(got.values), atol=1e-13)


@pytest.mark.parametrize(("length", "points"), [(1, 1), (20, 7), (7, 20), (1000, 333)])
def test_zoom_by_chirp_z(xp, rng, length, points):
    taps = rng.standard_normal((2, length))
    got = frequency_response(ssmid.ImpulseResponse(xp.asarray(taps), dt=0.5), band=(0.7, 1.9), points=points)
    assert xp.owns(got.values)
    np.testing.assert_allclose(xp.numpy(got.omega), np.linspace(0.7, 1.9, points))
    expected = taps @ np.exp(-0.5j * np.arange(length)[:, None] * np.linspace(0.7, 1.9, points))
    np.testing.assert_allclose(xp.numpy(got.values), expected, atol=1e-12 * np.abs(expected).max())
    if points > 1:
        scipy_zoom = scipy.signal.zoom_fft(taps, [0.35, 0.95], m=points, fs=2 * np.pi, endpoint=True)
        np.testing.assert_allclose(xp.numpy(got.values), scipy_zoom, atol=1e-10 * np.abs(expected).max())


def test_zoom_of_a_model_is_evaluation():
    system = ssmid.tf([1.0], [1.0, -0.5])
    np.testing.assert_array_equal(
        frequency_response(system, band=(0.1, 0.2), points=5).values, frequency_response(system, np.linspace(0.1, 0.2, 5)).values
    )


def test_complex_systems_have_the_whole_circle(rng):
    taps = rng.standard_normal(6) + 1j * rng.standard_normal(6)
    got = frequency_response(ssmid.ImpulseResponse(taps))
    np.testing.assert_allclose(got.values, np.fft.fft(taps), atol=1e-13)
    assert got.points == 6
    modal = ssmid.Modal(np.array([0.5j]), np.array([1.0]), real=False)
    assert frequency_response(modal, points=6).points == 6
    np.testing.assert_allclose(ssmid.impulse_response(modal, 60).taps, np.fft.ifft(frequency_response(modal, points=60).values), atol=1e-14)


def test_sampled_spectra_are_selected():
    response = ssmid.frd([1, 2j, 3], [0.0, 1.0, 2.0], dt=0)
    np.testing.assert_array_equal(frequency_response(response, [2.0, 0.0]).values, [3, 1])
    assert frequency_response(response) is response
    with pytest.raises(ValueError, match=r"omega: expected frequencies of the response itself.* got 0.5"):
        frequency_response(response, [0.5])


@pytest.mark.parametrize("omega_kind", ["list", "numpy"])
def test_frequencies_may_be_of_another_kind(xp, omega_kind):
    omega = [0.1, 0.2] if omega_kind == "list" else np.array([0.1, 0.2])
    system = ssmid.TransferFunction(xp.asarray([1.0]), xp.asarray([1.0, -0.5]))
    assert xp.owns(frequency_response(system, omega).values)


@pytest.mark.parametrize(
    ("system", "arguments", "match"),
    [
        (ssmid.tf([1.0], [1.0, 0.5], dt=0), {"points": 8}, "c2d"),
        (ssmid.tf([1.0], [1.0, 0.5]), {}, "expected omega .* got neither"),
        (ssmid.tf([1.0], [1.0, 0.5]), {"omega": [1.0], "points": 8}, "either omega or points, got both"),
        (ssmid.tf([1.0], [1.0, 0.5]), {"points": 0}, "points: expected .* got 0"),
        (ssmid.tf([1.0], [1.0, 0.5]), {"omega": [np.inf]}, "omega: expected finite frequencies, got inf"),
        (ssmid.tf([1.0], [1.0, 0.5]), {"omega": []}, "omega: expected finite frequencies, got none"),
        (ssmid.tf([1.0], [1.0, 0.5]), {"omega": [1j]}, "omega: expected real frequencies"),
        (ssmid.tf([1.0], [1.0, 0.5]), {"band": (2, 1), "points": 4}, "band: expected .* got"),
    ],
)
def test_what_it_refuses(system, arguments, match):
    with pytest.raises(ValueError, match=match):
        frequency_response(system, **arguments)


def test_a_pole_on_the_contour_is_infinite_and_stops_nothing():
    A = np.array([[[1.0]], [[0.5]]])
    for points in ([0.0, 1.0], np.linspace(0, 3, 40)):
        values = frequency_response(ssmid.StateSpace(A, np.ones((1, 1)), np.ones((1, 1))), points).values
        assert not np.isfinite(values[0, 0])
        np.testing.assert_allclose(values[1], 1 / (np.exp(1j * np.asarray(points)) - 0.5), rtol=1e-13)


# ---------------------------------------------------------------- phase and delay


def test_phase_and_magnitude(rng):
    delay = frequency_response(ssmid.ImpulseResponse(np.eye(1, 12, 9)[0]), points=64)
    np.testing.assert_allclose(phase(delay), -9 * delay.omega, atol=1e-12)
    values = rng.standard_normal((3, 40)) + 1j * rng.standard_normal((3, 40))
    response = ssmid.frd(values, np.arange(40.0))
    np.testing.assert_allclose(phase(response), np.unwrap(np.angle(values)), atol=1e-12)
    np.testing.assert_allclose(magnitude_db(response), 20 * np.log10(np.abs(values)), rtol=1e-12)


def systems(dt: float):
    scale = 1.0 if dt else 3.0
    z = np.array([0.4 + 0.3j, 0.4 - 0.3j, -1.7]) - (0 if dt else 1)
    p = np.array([0.5 + 0.6j, 0.5 - 0.6j, -0.3, 0.2]) - (0 if dt else 1)
    zpk = ssmid.zpk(z, p, scale, dt)
    num, den = scale * np.poly(z).real, np.poly(p).real
    A, B, C, D = scipy.signal.tf2ss(num, den)
    r, poles, _ = scipy.signal.residue(num, den)
    yield from (zpk, ssmid.tf(num, den, dt), ssmid.ss(A, B, C, D, dt), ssmid.Modal(poles, r, 0.0, dt))
    if dt:
        yield ssmid.to_sos(zpk)


@pytest.mark.parametrize("dt", [0, 0.5])
def test_group_delay_is_minus_the_slope_of_the_phase(dt):
    omega, step = np.linspace(0.2, 2.5, 7), 1e-5
    for system in systems(dt):
        values = [frequency_response(system, omega + s * step).values for s in (-1, 1)]
        expected = -np.angle(values[1] / values[0]) / (2 * step)
        np.testing.assert_allclose(group_delay(system, omega), expected, rtol=1e-6, atol=1e-8, err_msg=repr(system))


def test_group_delay_of_taps_equals_scipy(rng):
    taps = rng.standard_normal((2, 30))
    got = group_delay(ssmid.ImpulseResponse(taps, dt=0.25), points=64)
    for i in range(2):
        _, expected = scipy.signal.group_delay((taps[i], [1.0]), w=2 * np.pi * np.arange(33) / 64)
        np.testing.assert_allclose(got[i], 0.25 * expected, rtol=1e-9)


def test_group_delay_at_zeros_on_the_circle():
    """Each of butter's 8 zeros at -1 delays by half a sample, at Nyquist too, where H is zero."""
    z, p, k = scipy.signal.butter(8, 0.5, output="zpk")
    omega = np.pi * np.array([0.5, 0.999, 1.0])
    expected = [np.sum((w := np.exp(1j * x)) / (w - p)).real - 4 for x in omega]
    np.testing.assert_allclose(group_delay(ssmid.zpk(z, p, k), omega), expected, rtol=1e-12)


@pytest.mark.parametrize("off", [0.0, 2.0**-52, -(2.0**-52)])
def test_zeros_within_rounding_of_the_circle_lie_on_it(off):
    zero = (1 + off) * np.exp(0.7j)
    delay = group_delay(ssmid.zpk([zero, zero.conjugate()], [0.5, 0.5], 1.0), [0.7, 0.7 + 1e-9, 1.0])
    expected = [2 * (1 / (1 - 0.5 * np.exp(-1j * w))).real - 1 for w in (0.7, 0.7 + 1e-9, 1.0)]
    np.testing.assert_allclose(delay, expected, rtol=1e-12)


def test_group_delay_of_samples():
    omega = np.linspace(0, 3, 400)
    system = ssmid.tf([1.0], [1.0, -0.5])
    sampled = frequency_response(system, omega)
    np.testing.assert_allclose(group_delay(sampled)[1:-1], group_delay(system, omega)[1:-1], atol=1e-4)


def test_derivatives_are_finite_differences(rng):
    taps = ssmid.ImpulseResponse(rng.standard_normal(40))
    x, step = np.array([1.1 + 0.3j, -0.9 + 0.8j]), 1e-6
    for system in (*systems(0.5), *systems(0), taps):
        expected = (evaluate(system, x + step) - evaluate(system, x - step)) / (2 * step)
        np.testing.assert_allclose(evaluate(system, x, 1), expected, rtol=1e-6, err_msg=repr(system))


def test_horner():
    x = np.array([[0.5, 2j], [1.0, -1.0]])
    np.testing.assert_allclose(horner(np.array([1.0, 2.0, 3.0]), x), np.polyval([1, 2, 3], x))


@pytest.mark.parametrize("arguments", [{"omega": torch.tensor([0.3, 1.0], dtype=torch.float64)}, {"points": 5}])
def test_gradients(arguments):
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    def values(system):
        return torch.view_as_real(frequency_response(system, **arguments).values)

    radius, angle, residues = random(2, 3), random(2, 3), random(2, 3)
    check = torch.autograd.gradcheck
    assert check(lambda r, a, c: values(ssmid.Modal(torch.polar(r.sigmoid() * 0.9, a), c)), (radius, angle, residues))
    assert check(lambda a, c: values(ssmid.StateSpace(0.3 * a, c, torch.ones(1, 3, dtype=torch.float64))), (random(3, 3), random(3, 1)))
    assert check(lambda b, a: values(ssmid.TransferFunction(b, torch.cat([torch.ones(1), 0.2 * a]).double())), (random(3), random(3)))
    assert check(lambda h: values(ssmid.ImpulseResponse(h)), (random(2, 7),))
    assert check(lambda z, k: values(ssmid.ZerosPolesGain(z, torch.tensor([0.5, 0.1, -0.2]).double(), k)), (random(2), random()))


@pytest.mark.parametrize("points", [2048, 2049])
def test_a_large_modal_bank_takes_the_fft_of_its_taps(xp, monkeypatch, points):
    """Both ways to the grid agree to points x rounding of the peak; poles that do not fade keep to the sums."""
    from ssmid.analysis import spectrum

    rng = np.random.default_rng(5)
    half = rng.uniform(0.5, 0.9999, (3, 4)) * np.exp(1j * rng.uniform(0.1, 3, (3, 4)))
    residues = rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4))
    bank = ssmid.Modal(xp.asarray(half), xp.asarray(residues), xp.asarray(rng.standard_normal(3)))
    sums = xp.numpy(ssmid.frequency_response(bank, points=points).values)
    monkeypatch.setattr(spectrum, "_LARGEST_SUM", 0)
    monkeypatch.setattr(spectrum, "evaluate", None)
    fast = xp.numpy(ssmid.frequency_response(bank, points=points).values)
    np.testing.assert_allclose(fast, sums, atol=points * 1e-15 * np.abs(sums).max())
    monkeypatch.undo()
    monkeypatch.setattr(spectrum, "_LARGEST_SUM", 0)
    for pole in (1.0, -1.0, 1.5):
        wild = ssmid.Modal(xp.asarray([pole + 0j]), xp.asarray([1.0 + 0j]))
        got = xp.numpy(ssmid.frequency_response(wild, points=16).values)
        z = np.exp(2j * np.pi * np.arange(9) / 16)
        away = abs(z - pole) > 1e-9
        np.testing.assert_allclose(got[away], 1 / (z[away] - pole), rtol=1e-12)


def test_a_spectrum_on_a_pole_is_not_an_error():
    """An integrator has no finite gain at frequency zero; the other frequencies are answered."""
    integrator = ssmid.tf([1.0], [1.0, -1.0])
    values = ssmid.frequency_response(integrator, points=8).values
    assert not np.isfinite(values[0])
    np.testing.assert_allclose(values[1:], 1 / (np.exp(2j * np.pi * np.arange(1, 5) / 8) - 1), rtol=1e-12)


def test_a_delay_with_rounding_in_its_states_keeps_its_digits():
    """Balanced without B and C, the entries of 1e-6 grow by 1e5 in the coordinates of the first state, and rounding with them."""
    A = np.diag(np.ones(3), -1) + np.array([[-2e-6, -7e-12, 0, 0], [0, 0, 0, 0], [8e-11, 0, 3e-6, 0], [2e-5, -3e-6, 0, -1e-6]])
    system = ssmid.ss(A, [[1.0], [1.5e-6], [-5e-3], [7e-9]], [[-8e-9, 5e-3, 1.5e-6, 1.0]], dt=1)
    omega = np.linspace(0.0, np.pi, 40)
    exact = [system.C @ np.linalg.solve(np.exp(1j * w) * np.eye(4) - A, system.B) for w in omega]
    np.testing.assert_allclose(ssmid.frequency_response(system, omega).values, np.ravel(exact), rtol=1e-14)


def test_zeros_on_the_contour_are_answered_in_silence():
    """H(1) = 0: no delay and minus infinity in decibels, the other frequencies as ever."""
    design = ssmid.zpk([1.0], [0.5], 1.0)
    expected = ssmid.group_delay(design, [0.0, 0.5])
    assert np.isfinite(expected).all()
    for system in (ssmid.to_sos(design), ssmid.to_transfer_function(design), ssmid.to_state_space(design)):
        delay = ssmid.group_delay(system, [0.0, 0.5])
        assert not np.isfinite(delay[0])
        np.testing.assert_allclose(delay[1], expected[1], rtol=1e-12)
    assert not np.isfinite(ssmid.group_delay(ssmid.ImpulseResponse([1.0, -1.0]), points=4)[0])
    assert ssmid.magnitude_db(ssmid.frequency_response(design, [0.0]))[0] == -np.inf
