"""Repeated, clustered and delaying poles: responses to rounding where partial fractions keep half of the digits or none."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import ssmid
from ssmid import aaa, rkfit, vector_fitting
from ssmid.analysis.evaluation import evaluate
from ssmid.identification import orthonormal_bank
from ssmid.identification.orthonormal_fit import orthonormal_states, poles_apart, rational_basis, with_fewer_poles
from ssmid.identification.partial_fractions import closed

CIRCLE = np.exp(1j * np.linspace(0, np.pi, 200))
AXIS = 1j * np.linspace(0.1, 10, 120)
METHODS = [aaa, vector_fitting, rkfit]
CASES = {
    **{f"z^-{n}": (1, lambda z, n=n: z**-n, n) for n in range(1, 13)},
    **{f"(s+1)^-{n}": (0, lambda s, n=n: (s + 1) ** -n, n) for n in (2, 3, 4)},
    **{f"pair^-{n}": (0, lambda s, n=n: ((s + 0.1) ** 2 + 9.0) ** -n, 2 * n) for n in (2, 3)},
    **{f"(z-0.9)^-{n}": (1, lambda z, n=n: (z - 0.9) ** -n, n) for n in (2, 3, 4)},
    **{f"gap {g}, s": (0, lambda s, g=g: 1 / ((s + 1) * (s + 1 + g) * (s + 1 - g)), 3) for g in (1e-3, 1e-4, 1e-5, 1e-6)},
    **{f"gap {g}, z": (1, lambda z, g=g: 1 / ((z - 0.9) * (z - 0.9 - g) * (z - 0.9 + g)), 3) for g in (1e-3, 1e-6)},
}


def between(dt, count=57):
    """Points where nothing was sampled."""
    return np.exp(1j * np.linspace(0.01, 3.1, count)) if dt else 1j * np.geomspace(0.11, 9.9, count)


def response(system, points):
    """By one solve a point."""
    A, B, C, D = (np.asarray(M) for M in (system.A, system.B, system.C, system.D))
    return np.stack([C @ np.linalg.solve(x * np.eye(len(A)) - A, B) + D for x in points], -1)


def largest_error(fit, function, dt):
    points = between(dt)
    exact = function(points)
    return np.abs(response(fit.system, points)[0, 0] - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_the_response_is_exact_at_the_order_of_the_function(case, method):
    dt, function, order = CASES[case]
    points = CIRCLE if dt else AXIS
    fit = method(points, function(points), order, dt=dt)
    assert fit.order == order
    assert bool(fit.converged)
    assert bool(fit.stable)
    assert float(fit.error) < 1e-13
    assert largest_error(fit, function, dt) < 1e-12
    assert float(fit.condition) < 10
    # poles apart are near the function too, to what such sums can be
    partial = evaluate(fit.modal, points)
    assert np.abs(partial - function(points)).max() < 3e-6 * np.abs(function(points)).max()


@pytest.mark.parametrize("method", [aaa, vector_fitting])
@pytest.mark.parametrize("case", ["z^-3", "z^-5", "z^-12", "(s+1)^-2", "(s+1)^-4", "pair^-2", "gap 1e-05, s", "(z-0.9)^-3"])
def test_a_free_order_is_that_of_the_function(case, method):
    dt, function, order = CASES[case]
    points = CIRCLE if dt else AXIS
    fit = method(points, function(points), dt=dt)
    assert fit.order == fit.system.order == fit.modal.order == order
    assert bool(fit.stable)
    assert largest_error(fit, function, dt) < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("pairs", "multiple"), [(15, 2), (3, 3)])
def test_many_repeated_pairs_of_light_damping(method, pairs, multiple, rng):
    omega, points = np.linspace(0.5, 9.5, pairs), 1j * np.linspace(0.05, 10, 500)
    quadratic = (points[:, None] + 0.02 * omega) ** 2 + omega**2
    powers = (0.04 * omega**2 / quadratic)[..., None] ** np.arange(1, multiple + 1)
    fit = method(points, (rng.standard_normal((pairs, multiple)) * powers).sum((-2, -1)), 2 * pairs * multiple, stable=True)
    assert bool(fit.converged)
    assert bool(fit.stable)
    assert float(fit.error) < 1e-12


@pytest.mark.parametrize("method", [aaa, vector_fitting])
def test_elements_of_several_orders_stay_stable(method):
    five = sum(1 / (AXIS + pole) + 1 / (AXIS + np.conj(pole)) for pole in (0.1 + 2j, 0.2 + 5j)) + 1 / (AXIS + 3)
    fit = method(AXIS, np.stack([(AXIS + 1) ** -3.0, five]))
    np.testing.assert_array_equal(fit.order, [3, 5])
    assert fit.stable.all()
    assert fit.error.max() < 1e-12
    ports = method(AXIS, np.stack([(AXIS + 1) ** -3.0, five])[:, None, None], mimo=True)
    np.testing.assert_array_equal(ports.order, [3, 5])


def test_a_delay_has_its_taps():
    fit = aaa(CIRCLE, CIRCLE**-7.0, 7, dt=1)
    np.testing.assert_allclose(np.asarray(ssmid.impulse_response(fit.system, 20).taps), np.arange(20) == 7, atol=1e-13)


def test_the_matrices_are_the_function_at_fifty_digits():
    """No evaluation of ours: the matrices in mpmath, beside ``1 / (s + 1)^3``."""
    fit = vector_fitting(AXIS, (AXIS + 1) ** -3.0, 3)
    with mpmath.workdps(50):
        A, B, C = (mpmath.matrix(np.asarray(M).tolist()) for M in (fit.system.A, fit.system.B, fit.system.C))
        for omega in (0.05, 0.7, 3, 11):
            s = mpmath.mpc(0, omega)
            value = (C * mpmath.lu_solve(s * mpmath.eye(3) - A, B))[0] + fit.system.D[0, 0]
            assert abs(value - 1 / (s + 1) ** 3) < 1e-14


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("radius", [0.9999, 0.99999])
def test_double_poles_near_the_circle(method, radius):
    points, pole = np.exp(1j * np.linspace(0, np.pi, 1500)), radius * np.exp(0.5j)
    fit = method(points, ((points - pole) * (points - pole.conjugate())) ** -2, 4, dt=1)
    assert bool(fit.stable)
    assert float(fit.error) < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_system_of_several_ports_has_the_states_of_its_rank(method, transposed, rng):
    full, other, thin = rng.standard_normal((3, 2, 3, 1))
    thin = thin[:, :1] * thin[:1, :]
    delay, pole = CIRCLE**-3.0, 1 / (AXIS + 1)
    for points, values, dt, poles, states in (
        (AXIS, thin * pole**2, 0, 2, 2),
        (AXIS, full * pole**2 + other * pole + 1, 0, 2, 4),
        (CIRCLE, full * delay, 1, 3, 6),
    ):
        values = np.swapaxes(values, 0, 1) if transposed else values
        fit = method(points, values, poles, mimo=True, dt=dt)
        assert fit.order == states
        assert float(fit.error) < 1e-14
        np.testing.assert_allclose(response(fit.system, points), values, atol=1e-12 * np.abs(values).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_elements(method, rng):
    values = np.stack([(AXIS + 1) ** -3.0, 1 / (AXIS + 2) + 1 / (AXIS + 0.1), np.full(120, np.nan), np.zeros(120), (AXIS + 2) ** -3.0])
    values = np.concatenate([values, values[:1] + 1e-4 * rng.standard_normal((1, 120))])
    fit = method(AXIS, values, 3, stable=True)
    assert np.isnan(fit.error[2])
    assert not fit.converged[2]
    for i in (0, 1, 3, 4, 5):
        one = method(AXIS, values[i], 3, stable=True)
        # where they are rounding, errors are alike in size only
        np.testing.assert_allclose(fit.error[i], one.error, rtol=1e-6, atol=1e-14)
        np.testing.assert_allclose(response(fit.system.map(lambda a, i=i: a[i]), AXIS), response(one.system, AXIS), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_shared_poles_kinds_and_units(method, xp, rng):
    gains = rng.standard_normal((2, 3, 1))
    values = gains / (AXIS + 1) ** 2 + 1
    fit = method(xp.asarray(AXIS), xp.asarray(values), 2, shared=2)
    assert fit.system.batch_shape == (2, 3)
    assert all(xp.owns(a) for a in (fit.system.A, fit.system.C, fit.modal.poles, fit.error, fit.converged, fit.condition))
    assert xp.numpy(fit.error).max() < 1e-14
    for size, unit in ((1e-290, 1.0), (1e290, 1.0), (1e-200, 1e9), (1.0, 1e-12)) if xp.name == "numpy" else ():
        other = method(xp.asarray(AXIS * unit), xp.asarray(values * size), 2, shared=2)
        assert xp.numpy(other.error).max() < 1e-14
        np.testing.assert_allclose(xp.numpy(other.system.D)[..., 0, 0] / size, 1, rtol=1e-12)


def test_no_feedthrough_and_unstable_poles():
    fit = vector_fitting(AXIS, (AXIS + 1) ** -3.0, 3, feedthrough=False)
    assert float(fit.system.D[0, 0]) == 0
    assert float(fit.error) < 1e-13
    with pytest.warns(UserWarning, match="unstable"):
        fit = aaa(AXIS, (AXIS - 1) ** -3.0, 3)
    assert float(fit.error) < 1e-13
    assert not bool(fit.stable)


def test_ordinary_fits_stay_partial_fractions(monkeypatch, rng):
    """Noise, and modes apart, however lightly damped: no other basis is tried."""

    def not_asked(*_, **__):
        raise AssertionError("no terms cancel")

    monkeypatch.setattr(orthonormal_bank, "orthonormal_states", not_asked)
    poles = np.array([-1e-4 + 2j, -1e-4 - 2j, -1e-3 + 5j, -1e-3 - 5j, -3])
    values = (np.array([1e-4, 1e-4, 1e-3, 1e-3, 1]) / (AXIS[:, None] - poles)).sum(-1)
    noise = 1e-4 * rng.standard_normal(120)
    for data, order in ((values, 5), (values + noise, 5), ((AXIS + 1) ** -2.0 + noise, 2)):
        for method in METHODS:
            assert float(method(AXIS, data, order, stable=True).error) < 1e-3


def test_the_basis_of_coinciding_poles():
    poles = closed(np.array([0, 0, 0, 0.5, 0.5, 0.2 + 0.3j, 0.2 - 0.3j, 0.2 + 0.3j, 0.2 - 0.3j]) + 0j)
    V, K, H = rational_basis(CIRCLE, poles)
    np.testing.assert_allclose((V.conj().T @ V).real, np.eye(10), atol=1e-13)
    np.testing.assert_allclose(CIRCLE[:, None] * (V @ K), V @ H, atol=1e-13 * np.abs(V @ H).max())
    # all poles count: without the right order of a pair the third power of 1/z is missing
    tiny = closed(np.array([1e-6j, -1e-6j, 1e-6]))
    V = rational_basis(CIRCLE, tiny)[0]
    rest = CIRCLE**-3.0 - V @ (V.conj().T @ CIRCLE**-3.0).real
    assert np.abs(rest).max() < 1e-5


def test_surplus_poles_are_told_and_poles_taken_apart():
    values, weights = (AXIS + 1)[None] ** -2.0, np.ones((1, 120))
    seven = -np.array([1, 1, 2, 0.5, 3, 4, 7]) + 0j
    options = {"dt": 0, "feedthrough": True, "stable": True}
    found = orthonormal_states(AXIS / 10, values, weights, seven / 10, **options)
    assert found is not None
    fewer = with_fewer_poles(AXIS / 10, values, weights, found, **options)
    assert fewer is not None
    assert len(fewer.poles) == 2
    assert fewer.misfit < 1e-14
    assert with_fewer_poles(AXIS / 10, values, weights, fewer, **options) is None
    apart = poles_apart(fewer, AXIS / 10, values, weights, 0)
    assert 1e-9 < np.abs(apart[0] - apart[1]) < 1e-2
    np.testing.assert_allclose(apart, -0.1, atol=1e-2)


def test_poles_on_a_point_have_no_states():
    assert orthonormal_states(AXIS, AXIS[None] ** 0, np.ones((1, 120)), AXIS[[3, 3]] * [1, -1], 0, feedthrough=True, stable=False) is None
