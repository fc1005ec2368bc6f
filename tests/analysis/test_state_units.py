"""States in unlike units: a change of units changes no response, norm or pole, however far the units are apart."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
import scipy.signal

import ssmid
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.analysis.state_units import uneven_scales

OMEGA = np.array([1e-3, 0.1, 0.5, 1.0, 2.0, 3.0])


def plain(rng, n, p, m, dt):
    A = rng.standard_normal((n, n))
    poles = np.linalg.eigvals(A)
    A = A * 0.97 / np.abs(poles).max() if dt else A - (poles.real.max() + 0.05) * np.eye(n)
    return ssmid.ss(A, rng.standard_normal((n, m)), rng.standard_normal((p, n)), dt=dt)


def in_units(system, units):
    return ssmid.ss(system.A * units / units[:, None], system.B / units[:, None], system.C * units, system.D, system.dt)


@pytest.mark.parametrize("dt", [0, 1])
@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 3)])
def test_units_of_states_change_nothing(rng, dt, p, m):
    """Units over 20 decades: norms were off by up to 30 times, and modal forms by 8 times the peak, before states were scaled."""
    system = plain(rng, 6, p, m, dt)
    odd = in_units(system, 10.0 ** rng.uniform(-10, 10, 6))
    expected = ssmid.frequency_response(system, OMEGA).values
    for kind in ("h2", "hinf", "hankel", "l1"):
        np.testing.assert_allclose(ssmid.norm(odd, kind), ssmid.norm(system, kind), rtol=2e-6, err_msg=kind)
    values = ssmid.hankel_singular_values(system)
    np.testing.assert_allclose(ssmid.hankel_singular_values(odd), values, rtol=1e-9, atol=1e-12 * values[0])
    for form in ("modal", "block-modal", "balanced", "minimal", "zpk"):
        got = ssmid.frequency_response(ssmid.convert(odd, form).system, OMEGA).values
        np.testing.assert_allclose(got, expected, atol=1e-9 * np.abs(expected).max(), err_msg=form)
    modal, T = ssmid.modal_realization(odd, return_transform=True)
    np.testing.assert_allclose(np.linalg.solve(T, odd.A @ T), modal.A, atol=1e-9)


def test_units_of_states_change_nothing_in_a_bank(xp, rng):
    systems = [plain(rng, 5, 1, 1, 1) for _ in range(4)]
    odd = [in_units(s, 10.0 ** rng.uniform(-8, 8, 5) if i % 2 else np.ones(5)) for i, s in enumerate(systems)]
    bank = ssmid.ss(*(xp.asarray(np.stack([getattr(s, name) for s in odd])) for name in "ABCD"))
    expected = np.stack([ssmid.hankel_singular_values(s) for s in systems])
    np.testing.assert_allclose(xp.numpy(ssmid.hankel_singular_values(bank)), expected, rtol=1e-8, atol=1e-12)
    got = xp.numpy(ssmid.frequency_response(ssmid.to_modal(bank), OMEGA).values)
    expected = np.stack([ssmid.frequency_response(s, OMEGA).values for s in systems])
    np.testing.assert_allclose(got, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["zoh", "foh", "impulse", "tustin"])
def test_discretization_of_a_circuit_in_volts_and_amperes(method):
    """1 pF behind 1 nH beside a thermal state of seconds, against the matrix exponential in 60 digits."""
    L, R, C, step = 1e-9, 50.0, 1e-12, 1e-11
    A = np.array([[0, 1 / C, 0], [-1 / L, -R / L, 1e-20], [1e17, 0, -1.0]])
    system = ssmid.ss(A, [[0], [1 / L], [0]], [[1.0, 0, 1e-8]], dt=0)
    made = ssmid.c2d(system, step, method)
    with mpmath.workdps(60):
        A, B, C = (mpmath.matrix(np.asarray(M).tolist()) for M in (system.A, system.B, system.C))
        X, eye = A * mpmath.mpf(step), mpmath.eye(3)
        E = mpmath.expm(X)
        phi1 = mpmath.inverse(X) * (E - eye)
        phi2 = mpmath.inverse(X) * (phi1 - eye)
        W = mpmath.inverse(eye - X / 2)
        Ad, Bd, Cd, D = {
            "zoh": (E, step * phi1 * B, C, mpmath.mpf(0) * C * B),
            "foh": (E, step * phi1 * phi1 * B, C, step * C * phi2 * B),
            "impulse": (E, step * E * B, C, step * C * B),
            "tustin": (W * (eye + X / 2), step * W * B, C * W, step / 2 * C * W * B),
        }[method]
        expected = [complex((Cd * mpmath.lu_solve(mpmath.expj(w) * eye - Ad, Bd) + D)[0]) for w in OMEGA]
    got = ssmid.frequency_response(made, OMEGA / step).values
    np.testing.assert_allclose(got, expected, atol=1e-11 * np.abs(expected).max())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = ssmid.frequency_response(ssmid.d2c(made, method), OMEGA / step).values
    there = ssmid.frequency_response(system, OMEGA / step).values
    np.testing.assert_allclose(back, there, atol=1e-8 * np.abs(there).max())


def test_states_in_like_units_keep_their_bits(rng):
    systems = [plain(rng, n, 2, 2, dt) for n in (1, 4, 30) for dt in (0, 1)]
    for system in systems:
        assert (uneven_scales(system.A, system.B, system.C) == 1).all()
        scales = uneven_scales(*(getattr(in_units(system, 1e7 ** np.arange(system.order)), name) for name in "ABC"))
        assert (np.frexp(scales)[0] == 0.5).all()
        assert system.order == 1 or scales.max() > 1e6 * scales.min()


def test_a_pole_on_the_boundary_to_rounding_has_infinite_norms(rng):
    """One eigenvalue routine sees it inside and the next outside: that is no reason for an exception."""
    seen = 0
    for trial in range(400):
        discrete, n = bool(trial % 2), 6
        V = rng.standard_normal((n, n)) * 10.0 ** rng.uniform(-2, 2, n)
        poles = rng.uniform(-0.9, 0.9, n) - (not discrete)
        poles[0] = discrete - 10.0 ** rng.uniform(-16, -12)
        A = V @ np.diag(poles) @ np.linalg.inv(V)
        own = np.linalg.eigvals(A)
        stable = np.abs(own).max() < 1 if discrete else own.real.max() < 0
        if not stable or np.isfinite(schur_gramian_factors(A, np.ones((n, 1)), np.ones((1, n)), discrete=discrete)[0]).all():
            continue
        seen += 1
        system = ssmid.ss(A, np.ones(n), np.ones(n), dt=int(discrete))
        gain, omega = ssmid.norm(system, "hinf", return_frequency=True)
        assert gain == np.inf
        assert abs(omega) < 1e-6
        assert all(ssmid.norm(system, kind) == np.inf for kind in ("h2", "hankel", "l1"))
    assert seen > 3


@pytest.mark.parametrize("unit", [1e9, 1e-6])
@pytest.mark.parametrize("form", ["controllable", "observable"])
def test_companion_matrices_in_any_unit_of_time(unit, form):
    """Coefficients are powers of the unit, 1e36 for four poles at 1e9 rad/s: the response was off by twice its peak and more."""
    zeros, poles, gain = scipy.signal.ellip(4, 1, 60, 1, analog=True, output="zpk")
    base = ssmid.zpk(zeros, poles, gain, dt=0)
    fast = ssmid.tf(gain * np.poly(zeros) * unit ** np.arange(5.0), np.poly(poles) * unit ** np.arange(5.0), dt=0)
    system = ssmid.to_state_space(fast, form=form)
    omega = np.geomspace(0.05, 20, 30)
    expected = ssmid.frequency_response(base, omega).values
    forms = ("modal", "block-modal", "balanced", "minimal", "companion", "zpk")
    for one in (system, *(ssmid.convert(system, name).system for name in forms)):
        np.testing.assert_allclose(ssmid.frequency_response(one, omega * unit).values, expected, atol=1e-9)
    for kind in ("hinf", "hankel", "l1"):
        np.testing.assert_allclose(ssmid.norm(system, kind), ssmid.norm(base, kind), rtol=2e-6, err_msg=kind)
    slow, held = ssmid.c2d(base, 0.3, "foh"), ssmid.c2d(system, 0.3 / unit, "foh")
    np.testing.assert_allclose(
        ssmid.frequency_response(held, omega[omega < 10] * unit).values, ssmid.frequency_response(slow, omega[omega < 10]).values, atol=1e-9
    )


def test_delays_keep_their_digits_beside_rounding_in_their_states(rng):
    """Poles of rounding, ``eps^(1/9)`` in size: what is looked at is the circle, and the ones of the shift stay ones."""
    A = np.eye(9, k=-1) + 1e-16 * rng.standard_normal((9, 9))
    omega = np.linspace(0, np.pi, 40)
    got = ssmid.frequency_response(ssmid.ss(A, np.eye(9, 1), np.eye(9)[8:]), omega).values
    np.testing.assert_allclose(got, np.exp(-9j * omega), atol=3e-14)
