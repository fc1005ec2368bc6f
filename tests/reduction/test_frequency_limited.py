"""Band- and time-limited balanced truncation: Gramians by quadrature, limits, and that what counts gets better."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

from ssmid import StateSpace, balanced_truncation, c2d, frequency_response, impulse_response, ss
from ssmid.reduction import frequency_limited
from ssmid.reduction.frequency_limited import frequency_limited_truncation, time_limited_truncation
from tests.analysis.test_hinf import benchmark
from tests.reduction.test_balanced import random_system

pytestmark = pytest.mark.filterwarnings("ignore:.*unstable:UserWarning")


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("defective", [False, True])
def test_the_share_of_a_band_by_quadrature(rng, discrete, defective):
    """``S Wc + Wc S^H`` is the integral of the resolvents' outer product over the band."""
    n, omega = 4, 1.3
    A = random_system(rng, discrete, n).A
    if defective:
        A = (0.5 if discrete else -0.7) * np.eye(n) + np.eye(n, k=1)
    B = rng.standard_normal((n, 2))
    gramian = scipy.linalg.solve_discrete_lyapunov(A, B @ B.T) if discrete else scipy.linalg.solve_continuous_lyapunov(A, -B @ B.T)

    def outer(nu: float) -> np.ndarray:
        x = np.linalg.solve((np.exp(1j * nu) if discrete else 1j * nu) * np.eye(n) - A, B)
        return np.real(x @ x.conj().T) / np.pi

    expected = scipy.integrate.quad_vec(outer, 0, omega, epsrel=1e-10)[0]
    S = frequency_limited._share(A, omega, discrete)
    np.testing.assert_allclose(S @ gramian + gramian @ S.T, expected, atol=1e-8 * np.abs(gramian).max())


@pytest.mark.parametrize("discrete", [False, True])
def test_the_whole_axis_and_all_time_are_balanced_truncation(rng, discrete):
    system = random_system(rng, discrete, 7, 2, 2)
    plain = balanced_truncation(system, 4)
    omega = np.linspace(0.01, 3, 7)
    expected = frequency_response(plain.system, omega).values
    for fit in (frequency_limited_truncation(system, 4, (0, np.pi if discrete else np.inf)), time_limited_truncation(system, 4, 1e9)):
        np.testing.assert_allclose(frequency_response(fit.system, omega).values, expected, rtol=1e-6, atol=1e-8)
        assert fit.converged
        np.testing.assert_allclose(fit.error, plain.error, rtol=1e-6)


def test_a_band_gets_what_it_asked_for(shared_data):
    system = benchmark(shared_data, "build")
    band = (3.0, 12.0)
    omega = np.linspace(*band, 200)
    exact = frequency_response(system, omega).values

    def energy(reduced) -> float:
        return float(np.linalg.norm(frequency_response(reduced, omega).values - exact) / np.linalg.norm(exact))

    fit = frequency_limited_truncation(system, 8, band)
    assert energy(fit.system) < 0.2 * energy(balanced_truncation(system, 8).system)
    assert fit.error >= balanced_truncation(system, 8).error


def test_the_beginning_gets_what_it_asked_for(shared_data):
    system = benchmark(shared_data, "build")
    sampled = c2d(StateSpace(system.A, system.B, system.C, dt=0), 0.01)
    exact = impulse_response(sampled, 100).taps

    def early(reduced) -> float:
        return float(np.linalg.norm(impulse_response(reduced, 100).taps - exact))

    assert early(time_limited_truncation(sampled, 8, 1.0).system) < 0.6 * early(balanced_truncation(sampled, 8).system)


def test_two_steps_need_two_states():
    """Only two taps count: what is left is a system of two states that has them."""
    system = ss(np.diag([0.9, -0.5, 0.3]), np.ones((3, 1)), np.array([[1.0, 2.0, -1.0]]))
    fit = time_limited_truncation(system, 2, 2.0)
    np.testing.assert_allclose(impulse_response(fit.system, 3).taps, impulse_response(system, 3).taps, rtol=1e-8, atol=1e-12)


def test_an_unstable_result_says_so():
    """The beginning of t exp(-t) grows, and one state goes on growing."""
    system = ss(np.array([[-1.0, 0.0], [1.0, -1.2]]), [1.0, 0.0], [0.0, 1.0], dt=0)
    with pytest.warns(UserWarning, match="time-limited balanced truncation: the reduced system is unstable; take a later end"):
        fit = time_limited_truncation(system, 1, 0.5)
    assert not fit.converged
    assert not fit.stable
    assert time_limited_truncation(system, 1, 2.0).converged


def test_bad_bands_and_times():
    continuous, discrete = ss(-1.0, 1, 1, dt=0), ss(0.5, 1, 1, dt=0.1)
    for band in ((2.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (0.0, np.nan)):
        with pytest.raises(ValueError, match=r"band: expected 0 <= low < high <= inf \(rad/s\), got"):
            frequency_limited_truncation(continuous, 1, band)
    with pytest.raises(ValueError, match=r"band: expected 0 <= low < high <= 31.4159 \(rad/s\), got"):
        frequency_limited_truncation(discrete, 1, (0, 40.0))
    for end in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="end: expected a positive time, got"):
            time_limited_truncation(continuous, 1, end)
    with pytest.raises(ValueError, match=r"end: expected a positive time of at least one step of 0\.1, got 0\.01"):
        time_limited_truncation(discrete, 1, 0.01)


@pytest.mark.parametrize("discrete", [False, True])
def test_limited_hankel_values_and_the_projection_by_textbook_gramians(rng, discrete):
    """By the Gramians themselves: eigenvectors of their product, as Gawronski & Juang have it."""
    system = random_system(rng, discrete, 5, 2, 2)
    A, B, C = system.A, system.B, system.C
    solver = scipy.linalg.solve_discrete_lyapunov if discrete else lambda M, Q: scipy.linalg.solve_continuous_lyapunov(M, -Q)
    Wc, Wo = solver(A, B @ B.T), solver(A.T, C.T @ C)
    S = frequency_limited._share(A, 1.1, discrete) - frequency_limited._share(A, 0.2, discrete)
    F = np.linalg.matrix_power(A, 4) if discrete else scipy.linalg.expm(4 * A)
    band, early = frequency_limited_truncation(system, 2, (0.2, 1.1)), time_limited_truncation(system, 2, 4.0)
    pairs = ((band, S @ Wc + Wc @ S.T, S.T @ Wo + Wo @ S), (early, Wc - F @ Wc @ F.T, Wo - F.T @ Wo @ F))
    for fit, inputs, outputs in pairs:
        squares, X = np.linalg.eig(inputs @ outputs)
        order = np.argsort(-squares.real)
        np.testing.assert_allclose(fit.condition, np.sqrt(squares.real[order[0]] / squares.real[order[1]]), rtol=1e-6)
        X = X.real[:, order]
        left = np.linalg.inv(X)[:2]
        expected = StateSpace(left @ A @ X[:, :2], left @ B, C @ X[:, :2], system.D, system.dt)
        omega = np.array([0.1, 0.5, 1.0])
        np.testing.assert_allclose(
            frequency_response(fit.system, omega).values, frequency_response(expected, omega).values, rtol=1e-6, atol=1e-9
        )
