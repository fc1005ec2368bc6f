"""IRKA: the conditions of H2 optimality, checked by other means; never worse than balanced truncation; hostile input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from ssmid import StateSpace, balanced_truncation, frequency_response, h2_approximation, norm, poles, ss
from ssmid.analysis.evaluation import evaluate
from ssmid.datasets import heat
from ssmid.reduction.irka import irka
from tests.analysis.test_hinf import benchmark
from tests.reduction.test_balanced import random_system


def interpolation_residual(system: StateSpace, reduced: StateSpace, discrete: bool) -> float:
    """Meier & Luenberger's conditions by the resolvents of both systems, one pole at a time."""
    values, X = np.linalg.eig(reduced.A)
    c, b = reduced.C @ X, np.linalg.solve(X, reduced.B).conj().T
    worst = 0.0
    for i, pole in enumerate(values):
        s = 1 / pole.conj() if discrete else -pole.conj()
        H, G = (np.asarray(evaluate(m, np.array([s]))).reshape(m.outputs, m.inputs) for m in (system, reduced))
        dH, dG = (np.asarray(evaluate(m, np.array([s]), 1)).reshape(m.outputs, m.inputs) for m in (system, reduced))
        for full, small in ((H @ b[:, i], G @ b[:, i]), (c[:, i].conj() @ H, c[:, i].conj() @ G)):
            worst = max(worst, np.linalg.norm(full - small) / np.linalg.norm(full))
        slope = c[:, i].conj() @ dH @ b[:, i]
        worst = max(worst, abs(slope - c[:, i].conj() @ dG @ b[:, i]) / abs(slope))
    return worst


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(("m", "p", "complex_"), [(1, 1, False), (2, 3, False), (2, 1, True)])
def test_meier_luenberger_conditions_hold(rng, discrete, m, p, complex_):
    system = random_system(rng, discrete, 9, m, p)
    system = StateSpace(system.A, system.B, system.C, dt=system.dt)
    if complex_:
        A, B = system.A + 0.02j * rng.standard_normal((9, 9)), system.B + 0.3j * rng.standard_normal((9, m))
        system = StateSpace(A, B, system.C, dt=system.dt)
    fit = irka(system, 4, max_iterations=500)
    assert fit.converged
    assert fit.conditions <= 1e-8
    assert fit.system.is_complex == complex_
    assert interpolation_residual(system, fit.system, discrete) < 1e-6
    assert fit.error <= balanced_truncation(system, 4).error * (1 + 1e-9)


def test_first_order_optimum_by_brute_force():
    """Of one state, the best residue for each pole is a projection; the best pole is found by a scalar search."""
    a, g = np.array([1.0, 3.0, 10.0]), np.array([1.0, 2.0, -4.0])
    system = ss(-np.diag(a), np.ones((3, 1)), g[None], dt=0)
    energy = (g[:, None] * g / (a[:, None] + a)).sum()
    rest = scipy.optimize.minimize_scalar(
        lambda x: energy - 2 * np.exp(x) * (g / (np.exp(x) + a)).sum() ** 2, bounds=(-5, 5), method="bounded", options={"xatol": 1e-12}
    )
    fit = irka(system, 1)
    np.testing.assert_allclose(fit.system.A[0, 0], -np.exp(rest.x), rtol=1e-6)
    np.testing.assert_allclose(fit.error, np.sqrt(rest.fun / energy), rtol=1e-7)


@pytest.mark.parametrize(("name", "order"), [("build", 10), ("CDplayer", 12), ("iss_siso", 12), ("heat-cont", 5)])
def test_benchmarks(shared_data, name, order):
    system = benchmark(shared_data, name)
    fit = irka(system, order)
    assert fit.converged
    assert fit.stable
    assert fit.error <= balanced_truncation(system, order).error
    assert fit.lower_bound <= fit.measured("hankel") * (1 + 1e-6)


@pytest.mark.parametrize("discrete", [False, True])
def test_gain_similarity_and_time_do_not_matter(rng, discrete):
    system = random_system(rng, discrete, 8, 1, 1)
    reference = irka(system, 3)
    T = np.eye(8) + 0.2 * rng.standard_normal((8, 8))
    A, B = np.linalg.solve(T, system.A @ T), np.linalg.solve(T, system.B)
    other = StateSpace(A, B * 1e120, system.C @ T * 1e30, system.D * 1e150, system.dt)
    fit = irka(other, 3)
    omega = np.array([0.1, 0.7, 2.0])
    expected = frequency_response(reference.system, omega).values
    np.testing.assert_allclose(frequency_response(fit.system, omega).values / 1e150, expected, rtol=1e-6)
    np.testing.assert_allclose(fit.sigma / 1e150, reference.sigma, rtol=1e-9)
    if not discrete:
        fast = irka(StateSpace(system.A * 1e9, system.B * 1e9, system.C, system.D, dt=0), 3)
        np.testing.assert_allclose(frequency_response(fast.system, omega * 1e9).values, expected, rtol=1e-6)
        np.testing.assert_allclose(fast.error, reference.error, rtol=1e-6)


def test_batches_equal_loops_and_keep_their_kind(xp, rng):
    system = random_system(rng, True, 6, 2, 2, batch=(2, 2))
    fit = irka(system.map(xp.asarray), 2, max_iterations=20)
    assert all(xp.owns(a) for a in (*fit.system.arrays.values(), fit.sigma, fit.converged, fit.conditions))
    for index in np.ndindex(2, 2):
        single = irka(system.map(lambda a, i=index: a[i] if a.ndim > 2 else a), 2, max_iterations=20)
        np.testing.assert_allclose(xp.numpy(fit.error)[index], single.error, rtol=1e-6)


def test_one_bad_element_spoils_no_other(rng):
    system = random_system(rng, False, 6, 1, 1, batch=(3,))
    A = system.A.copy()
    A[1, 0, 0] = np.nan
    fit, sound = irka(StateSpace(A, system.B, system.C, system.D, dt=0), 2), irka(system, 2)
    assert np.isnan(fit.system.A[1]).all()
    np.testing.assert_array_equal(fit.converged, [sound.converged[0], False, sound.converged[2]])
    np.testing.assert_allclose(fit.system.A[[0, 2]], sound.system.A[[0, 2]])


def test_unstable_parts_are_kept():
    A = np.diag([0.5, -1.0, -2.0, -3.0])
    system = ss(A, np.ones((4, 1)), np.array([[1.0, 2.0, -1.0, 3.0]]), dt=0)
    fit = irka(system, 2)
    assert 0.5 in np.round(poles(fit.system).real, 12)
    assert fit.error < 0.1
    with pytest.raises(ValueError, match="order: expected at least 2, the number of unstable poles"):
        irka(ss(np.diag([0.5, 0.6, -1.0]), np.ones((3, 1)), np.ones((1, 3)), dt=0), 1)


def test_bad_orders_and_static_systems():
    system = heat(20)
    for order in (0, 21, -1, 2.5):
        with pytest.raises(ValueError, match="order: expected 1 to 20, got"):
            irka(system, order)
    with pytest.raises(ValueError, match=r"order: expected 1 to \d+, which is what the system carries to rounding, got 20"):
        irka(system, 20)
    with pytest.raises(ValueError, match="order: expected 1 to 1, got 2"):
        irka(ss(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), 2.0), 2)
    nothing = irka(ss(-np.eye(2), np.zeros((2, 1)), np.ones((1, 2)), 2.0, dt=0), 1)
    assert nothing.order == 0
    assert norm(nothing.system, "hinf") == 2.0


@pytest.mark.parametrize("reduce", [irka, h2_approximation])
def test_a_delay_of_which_the_start_sees_nothing(reduce):
    """Energy ``(1 - a^2) a^(2k)`` of a delay by k + 1 lies along a pole a; the balanced start stands at 0, its residue is 0."""
    delay = ss(np.eye(5, k=-1), np.eye(5)[:, :1], np.eye(5)[4:])
    for order in (1, 2, 3, 4):
        fit = reduce(delay, order)
        assert fit.stable
        assert float(fit.error) <= 1 + 1e-9
        if order == 1:
            assert float(fit.error) >= (1 - 0.2 * 0.8**4) ** 0.5 - 1e-9


def test_full_order_is_the_system_itself(rng):
    system = random_system(rng, False, 5, 1, 1)
    fit = irka(system, 5)
    assert fit.converged
    assert fit.error < 1e-9
