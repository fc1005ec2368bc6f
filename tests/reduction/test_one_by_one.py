"""What all dense methods promise: units do not matter, a batch is its elements, kinds are kept, bad input is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ssmid import (
    StateSpace,
    balanced_truncation,
    frequency_response,
    h2_approximation,
    hankel_norm_approximation,
    irka,
    poles,
    ss,
)
from ssmid._array import astype_width, dtype_name
from ssmid.reduction.coprime import coprime_truncation
from ssmid.reduction.frequency_limited import frequency_limited_truncation, time_limited_truncation
from ssmid.reduction.modal_truncation import modal_truncation
from ssmid.reduction.stochastic import stochastic_truncation
from tests.reduction.test_balanced import random_system

OMEGA = np.array([0.05, 0.4, 1.5, 3.0])
METHODS = {
    "irka": lambda system, order, rate=1.0: irka(system, order, max_iterations=20),
    "modal": lambda system, order, rate=1.0: modal_truncation(system, order),
    "stochastic": lambda system, order, rate=1.0: stochastic_truncation(system, order, floor=0.1),
    "band": lambda system, order, rate=1.0: frequency_limited_truncation(system, order, (0.2 * rate, 1.5 * rate)),
    "time": lambda system, order, rate=1.0: time_limited_truncation(system, order, 3 / rate),
    "coprime": lambda system, order, rate=1.0: coprime_truncation(system, order),
    "hankel": lambda system, order, rate=1.0: hankel_norm_approximation(system, order, feedthrough="keep"),
    "balanced": lambda system, order, rate=1.0: balanced_truncation(system, order),
    "h2": lambda system, order, rate=1.0: h2_approximation(system, order),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
SPLITTING = {name: method for name, method in METHODS.items() if name != "coprime"}
splitting = pytest.mark.parametrize("method", SPLITTING.values(), ids=SPLITTING)
both_times = pytest.mark.parametrize("discrete", [False, True])
pytestmark = pytest.mark.filterwarnings("ignore:.*unstable:UserWarning")


def response(system) -> np.ndarray:
    return np.asarray(frequency_response(system, OMEGA).values)


@every_method
@both_times
def test_similarity_does_not_matter(rng, method, discrete):
    system = random_system(rng, discrete, 7, 2, 2)
    T = np.eye(7) + 0.3 * rng.standard_normal((7, 7))
    other = StateSpace(np.linalg.solve(T, system.A @ T), np.linalg.solve(T, system.B), system.C @ T, system.D, system.dt)
    np.testing.assert_allclose(response(method(other, 4).system), response(method(system, 4).system), rtol=1e-6, atol=1e-7)


@splitting
@pytest.mark.parametrize("gain", [1e-200, -1e200])
def test_gain_does_not_matter(rng, method, gain):
    system = random_system(rng, False, 7, 1, 1)
    root = abs(gain) ** 0.5
    loud = StateSpace(system.A, system.B * root, system.C * np.sign(gain) * root, system.D * gain, dt=0)
    one, other = method(system, 4), method(loud, 4)
    np.testing.assert_allclose(response(other.system) / gain, response(one.system), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.sigma / abs(gain), one.sigma, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(other.lower_bound / abs(gain), one.lower_bound, rtol=1e-6)


@every_method
@pytest.mark.parametrize("rate", [1e-12, 1e15])
def test_the_unit_of_time_does_not_matter(rng, method, rate):
    system = random_system(rng, False, 7, 2, 2)
    fast = StateSpace(system.A * rate, system.B * rate, system.C, system.D, dt=0)
    one, other = method(system, 4), method(fast, 4, rate)
    np.testing.assert_allclose(frequency_response(other.system, OMEGA * rate).values, response(one.system), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(poles(other.system) / rate, poles(one.system), rtol=1e-5)


@every_method
def test_a_batch_is_its_elements_and_keeps_its_kind(xp, rng, method):
    system = random_system(rng, True, 6, 2, 2, batch=(2, 2))
    fit = method(system.map(xp.asarray), 3)
    assert all(xp.owns(a) for a in (*fit.system.arrays.values(), fit.sigma, fit.bound, fit.converged, fit.condition))
    assert fit.error.shape == (2, 2)
    for index in np.ndindex(2, 2):
        single = method(system.map(lambda a, i=index: a[i] if a.ndim > 2 else a), 3)
        element = fit.system.map(lambda a, i=index: xp.numpy(a)[i])
        np.testing.assert_allclose(response(element), response(single.system), rtol=1e-8, atol=1e-10)
    narrow = method(system.map(lambda a: astype_width(xp.asarray(a), 32)), 3)
    assert {dtype_name(a) for a in (*narrow.system.arrays.values(), narrow.sigma)} == {"float32"}


@every_method
def test_one_bad_element_spoils_no_other(rng, method):
    system = random_system(rng, False, 6, 1, 1, batch=(3,))
    A = system.A.copy()
    A[1, 0, 0] = np.inf
    fit, sound = method(StateSpace(A, system.B, system.C, system.D, dt=0), 3), method(system, 3)
    assert not fit.converged[1]
    assert np.isnan(fit.system.A[1]).all()
    assert np.isnan(fit.sigma[1]).all()
    np.testing.assert_allclose(fit.system.A[[0, 2]], sound.system.A[[0, 2]])
    np.testing.assert_array_equal(fit.converged[[0, 2]], sound.converged[[0, 2]])


@every_method
def test_complex_systems(rng, method):
    real = random_system(rng, False, 6, 2, 2)
    turned = StateSpace(real.A + 0.7j * np.eye(6), real.B * (1 + 1j), real.C, real.D, dt=0)
    fit = method(turned, 3)
    assert fit.system.is_complex
    assert np.isfinite(fit.condition)
    gap = response(fit.system) - response(turned)
    assert np.abs(gap).max() < 2 * np.abs(response(turned)).max()


@splitting
def test_unstable_parts_are_kept(rng, method):
    stable = random_system(rng, False, 6, 1, 1)
    A = np.zeros((7, 7))
    A[:6, :6], A[6, 6] = stable.A, 0.25
    system = StateSpace(A, np.vstack([stable.B, [[1.0]]]), np.hstack([stable.C, [[2.0]]]), stable.D, dt=0)
    fit, rest = method(system, 4), method(stable, 3)
    np.testing.assert_allclose(response(fit.system) - 2 / (1j * OMEGA - 0.25), response(rest.system), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.bound, rest.bound, rtol=1e-6)
    np.testing.assert_allclose(fit.sigma, rest.sigma, rtol=1e-6, atol=1e-12)


@every_method
def test_bad_orders(rng, method):
    system = random_system(rng, False, 5, 1, 1)
    for order in (0, -1, 6, 1.5, True):
        with pytest.raises(ValueError, match=r"order: expected 1 to 5,.* got"):
            method(system, order)
    twice = StateSpace(np.kron(np.eye(2), -np.eye(2)) - np.diag([0, 1.0, 0, 1.0]), np.ones((4, 1)), np.ones((1, 4)), 1.0, dt=0)
    with pytest.raises(ValueError, match="order: expected 1 to 2, which is what"):
        method(twice, 3)


@every_method
@pytest.mark.parametrize("states", [0, 2])
def test_a_static_system_needs_no_states(method, states):
    fit = method(ss(-np.eye(states), np.zeros((states, 1)), np.ones((1, states)), 3.0, dt=0), 1)
    assert fit.order == 0
    assert fit.converged
    assert fit.error == 0
    assert response(fit.system)[0] == 3.0


@every_method
def test_an_empty_batch(method):
    fit = method(StateSpace(np.zeros((2, 0, 3, 3)), np.zeros((2, 0, 3, 1)), np.zeros((2, 0, 1, 3)), np.zeros((2, 0, 1, 1)), dt=0), 2)
    assert fit.error.shape == fit.converged.shape == fit.system.batch_shape == (2, 0)


@splitting
def test_the_error_of_an_unstable_system_is_relative_to_its_stable_part(rng, method):
    """The norm of the whole is infinite: an error divided by it would be zero, however bad the result."""
    stable = random_system(rng, False, 6, 1, 1)
    integrator = StateSpace(
        np.pad(stable.A, ((0, 1), (0, 1))), np.vstack([stable.B, [[1.0]]]), np.hstack([stable.C, [[2.0]]]), 0 * stable.D, dt=0
    )
    fit, rest = method(integrator, 3), method(dataclasses.replace(stable, D=0 * stable.D), 2)
    np.testing.assert_allclose(fit.error, rest.error, rtol=1e-6)
    assert fit.error > 0
    assert "Unstable as the original" in fit.explain() or not rest.stable


@every_method
def test_all_states_are_the_system_itself(rng, method):
    system = random_system(rng, True, 4, 1, 1)
    fit = method(system, 4, 0.02)
    np.testing.assert_allclose(response(fit.system), response(system), rtol=1e-6)
    assert fit.lower_bound == 0
