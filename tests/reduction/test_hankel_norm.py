"""Optimal Hankel-norm approximation: sigma_{order+1} is attained, by every form of system, on every scale."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmid import (
    ImpulseResponse,
    Modal,
    StateSpace,
    balanced_truncation,
    frd,
    frequency_response,
    hankel_norm_approximation,
    norm,
    poles,
    ss,
    subtract,
    to_state_space,
    zpk,
)
from ssmid._array import dtype_name
from ssmid.analysis.lyapunov import balanced_cut
from ssmid.datasets import beam, heat, hyena_filters
from ssmid.reduction.hankel_norm_dilation import constant_approximation, dilation, equal_values, stable_and_antistable
from ssmid.reduction.hankel_norm_feedthrough import least_largest
from ssmid.reduction.hankel_norm_fir import _centre
from tests.analysis.test_gramians import stable_matrix
from tests.analysis.test_hinf import benchmark


def random_system(rng, discrete: bool, n: int = 9, m: int = 1, p: int = 1, batch: tuple[int, ...] = ()) -> StateSpace:
    A = np.stack([stable_matrix(rng, n, discrete) for _ in range(int(np.prod(batch)))]).reshape(*batch, n, n)
    B, C, D = rng.standard_normal((*batch, n, m)), rng.standard_normal((*batch, p, n)), rng.standard_normal((p, m))
    return StateSpace(A, B, C, D, dt=int(discrete))


def attained(fit, tolerance: float = 1e-6, slack: float = 1e-3) -> None:
    """The Hankel norm of the error is the lower bound, and the H-infinity norm lies between both bounds."""
    hankel, hinf = (np.asarray(fit.measured(kind)) for kind in ("hankel", "hinf"))
    np.testing.assert_allclose(hankel, fit.lower_bound, rtol=tolerance)
    assert (hankel <= hinf * (1 + tolerance)).all()
    assert (hinf <= fit.bound * (1 + slack)).all()
    assert np.all(fit.converged)
    assert np.all(fit.stable)


# ---------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("name", "order", "hinf"), [("build", 20, 1.39), ("heat-cont", 3, 1.03), ("MRdemo2M", 6, 1.08), ("iss_siso", 30, 1.25)]
)
def test_published_benchmarks(shared_data, name, order, hinf):
    """Where balanced truncation stands at about two sigma in H-infinity norm."""
    system = benchmark(shared_data, name)
    fit = hankel_norm_approximation(system, order)
    attained(fit)
    assert fit.measured("hinf") <= hinf * fit.lower_bound
    assert balanced_truncation(system, order).measured("hinf") >= 1.8 * fit.lower_bound


@pytest.mark.parametrize(("make", "order"), [(lambda: beam(120), 20), (lambda: heat(100), 4)], ids=["beam", "heat"])
def test_generated_benchmarks(make, order):
    attained(hankel_norm_approximation(make(), order), 1e-5)


def test_strong_slow_and_weak_fast_poles_keep_their_digits(shared_data):
    """sigma_1 is 2.5e7 sigma_31, and the poles reach from 2 to 43,000 rad/s: a split without the Cayley transform is at 1 + 1.4e-4."""
    fit = hankel_norm_approximation(benchmark(shared_data, "CDplayer"), 30)
    assert fit.measured("hankel") <= fit.lower_bound * (1 + 1e-5)
    assert fit.measured("hinf") <= 1.9 * fit.lower_bound


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 2**31), st.data())
def test_random_systems(n, m, p, discrete, complex_, seed, data):
    rng = np.random.default_rng(seed)
    system = random_system(rng, discrete, n, m, p)
    if complex_:
        system = StateSpace(stable_matrix(rng, n, discrete, True), system.B, 1j * system.C + 1, system.D, system.dt)
    degree = balanced_truncation(system, tol=1e-6).order
    order = data.draw(st.integers(1, degree))
    fit = hankel_norm_approximation(system, order)
    if fit.lower_bound > 1e-6 * fit.sigma[0]:
        attained(fit)
    assert fit.system.is_complex == complex_
    np.testing.assert_allclose(fit.bound, fit.sigma[order:].sum(), rtol=1e-9, atol=1e-12 * fit.sigma[0])


@pytest.mark.parametrize("discrete", [False, True])
def test_the_last_state_leaves_an_all_pass_error(rng, discrete):
    """Without an antistable part the error itself is sigma_n at every frequency: both bounds are one."""
    system = random_system(rng, discrete, 6)
    fit = hankel_norm_approximation(system, 5)
    omega = np.linspace(0, np.pi, 50) if discrete else np.geomspace(1e-3, 1e3, 50)
    gain = np.abs(frequency_response(subtract(system, fit.system), omega).values)
    np.testing.assert_allclose(gain, fit.sigma[5], rtol=1e-6)


def test_the_dilation_is_all_pass(rng):
    A, B, C, sigma = balanced_cut(
        stable_matrix(rng, 8, False), rng.standard_normal((8, 2)), rng.standard_normal((3, 8)), discrete=False, negligible=1e-12
    )
    group = equal_values(sigma, 3)
    A2, B2, C2, D2 = dilation(A, B, C, np.zeros((3, 2)), sigma, group)
    for omega in (0.0, 0.3, 5.0, 1e6):
        error = C @ np.linalg.solve(1j * omega * np.eye(8) - A, B) - C2 @ np.linalg.solve(1j * omega * np.eye(len(A2)) - A2, B2) - D2
        np.testing.assert_allclose(np.linalg.svd(error, compute_uv=False), sigma[3], rtol=1e-7)
    (stable, *_), (rest, *_) = stable_and_antistable(A2, B2, C2, np.delete(sigma, 3))
    assert (np.linalg.eigvals(stable).real < 0).all()
    assert len(stable) == 3
    assert (np.linalg.eigvals(rest).real > 0).all()


def test_the_constant_is_within_the_sum_of_hankel_values(rng):
    A, B, C, sigma = balanced_cut(
        stable_matrix(rng, 6, False), rng.standard_normal((6, 2)), rng.standard_normal((2, 6)), discrete=False, negligible=1e-12
    )
    D = constant_approximation(A, B, C, np.zeros((2, 2)), sigma)
    assert norm(StateSpace(A, B, C, -D, dt=0), "hinf") <= sigma.sum() * (1 + 1e-6)


def test_an_order_two_example_to_fifty_digits():
    """1/(s+1) + 1/(s+3) to order 1, by the definition: an odd all-pass error of height sigma_2, in rational numbers."""
    mpmath.mp.dps = 50
    poles_, n = [mpmath.mpf(-1), mpmath.mpf(-3)], 2
    W = mpmath.matrix(n, n)
    for i in range(n):
        for j in range(n):
            W[i, j] = -1 / (poles_[i] + poles_[j])
    values, vectors = mpmath.eigsy(W)  # symmetric system: Hankel values are the eigenvalues, vectors the Schmidt pair
    sigma, x = values[0], vectors[:, 0]
    # kernel of the approximation: sum_i x_i / (s - p_i); its zero, mirrored, is the pole
    zero = (x[0] * poles_[1] + x[1] * poles_[0]) / (x[0] + x[1])
    pole = -zero if zero > 0 else zero
    fit = hankel_norm_approximation(ss([[-1.0, 0.0], [0.0, -3.0]], [[1.0], [1.0]], [[1.0, 1.0]], dt=0), 1)
    np.testing.assert_allclose(fit.lower_bound, float(sigma), rtol=1e-12)
    np.testing.assert_allclose(fit.system.A[0, 0], float(pole), rtol=1e-10)


# ---------------------------------------------------------------- laws


def responses_agree(first, second, rtol: float = 1e-7) -> None:
    assert norm(subtract(first, second), "hinf") <= rtol * norm(first, "hinf")


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("ports", [(1, 1), (2, 3)])
def test_invariance_to_similarity_and_scale(rng, discrete, ports):
    system = random_system(rng, discrete, 7, *ports)
    T, (A, B, C, D) = rng.standard_normal((7, 7)), (system.A, system.B, system.C, system.D)
    fit = hankel_norm_approximation(system, 3, feedthrough="keep").system
    turned = StateSpace(np.linalg.solve(T, A @ T), np.linalg.solve(T, B), C @ T, D, system.dt)
    other = hankel_norm_approximation(turned, 3, feedthrough="keep")
    responses_agree(fit, other.system)
    for factor in (1e-150, -4.0, 1e150):
        scaled = hankel_norm_approximation(StateSpace(A, factor * B, C, factor * D, system.dt), 3, feedthrough="keep").system
        back = StateSpace(scaled.A, scaled.B / abs(factor) ** 0.5, scaled.C / abs(factor) ** 0.5 * np.sign(factor), D, system.dt)
        responses_agree(fit, back)


def test_invariance_to_the_unit_of_time(rng):
    system = random_system(rng, False, 7)
    fit = hankel_norm_approximation(system, 3)
    for unit in (1e-120, 1e9):
        fast = hankel_norm_approximation(StateSpace(unit * system.A, unit * system.B, system.C, system.D, dt=0), 3)
        np.testing.assert_allclose(fast.sigma, fit.sigma, rtol=1e-9, atol=1e-15 * fit.sigma[0])
        np.testing.assert_allclose(np.sort_complex(poles(fast.system) / unit), np.sort_complex(poles(fit.system)), rtol=1e-6)
        np.testing.assert_allclose(fast.system.D, fit.system.D, rtol=1e-3)


def test_conjugation(rng):
    system = StateSpace(stable_matrix(rng, 6, True, True), rng.standard_normal((6, 1)) + 1j, rng.standard_normal((1, 6)) + 0j)
    fit, other = (hankel_norm_approximation(s, 2, feedthrough="keep").system for s in (system, system.map(np.conj)))
    responses_agree(fit.map(np.conj), other)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_batch_equals_a_loop_on_every_backend(xp, rng, discrete):
    system = random_system(rng, discrete, 5, batch=(2, 2))
    fit = hankel_norm_approximation(system.map(xp.asarray), 2)
    assert xp.owns(fit.system.A)
    for name in ("sigma", "bound", "lower_bound", "condition", "converged"):
        assert xp.owns(getattr(fit, name))
    for index in np.ndindex(2, 2):
        single = hankel_norm_approximation(StateSpace(system.A[index], system.B[index], system.C[index], system.D, system.dt), 2)
        got = StateSpace(*(xp.numpy(M)[index] for M in fit.system.arrays.values()), dt=system.dt)
        responses_agree(single.system, got, 1e-5)
        np.testing.assert_allclose(xp.numpy(fit.bound)[index], single.bound, rtol=1e-9)


def test_single_precision_stays(xp, rng):
    system = random_system(rng, True, 5, batch=(3,)).map(lambda a: xp.asarray(a, "float32"))
    fit = hankel_norm_approximation(system, 2)
    assert {dtype_name(a) for a in (*fit.system.arrays.values(), fit.sigma, fit.bound)} == {"float32"}


def test_bad_elements_stay_by_themselves(rng):
    system = random_system(rng, True, 5, batch=(5,))
    A, B = system.A.copy(), system.B.copy()
    A[1, 0, 0], B[2], A[3] = np.nan, 0, np.diag([1.5, 0.3, 0.2, -0.4, 0.1])
    fit = hankel_norm_approximation(StateSpace(A, B, system.C, system.D), 3)
    clean = hankel_norm_approximation(system, 3)
    np.testing.assert_array_equal(fit.converged, [True, False, True, True, True])
    np.testing.assert_array_equal(fit.system.A[[0, 4]], clean.system.A[[0, 4]])
    assert np.isnan(fit.system.D[1]).all()
    assert np.isnan(fit.bound[1])
    assert fit.bound[2] == 0
    assert np.isclose(np.abs(np.linalg.eigvals(fit.system.A[3])).max(), 1.5)
    np.testing.assert_array_equal(fit.order, [3, 0, 0, 3, 3])


# ---------------------------------------------------------------- requests


def test_hostile_orders_and_options(rng):
    system = random_system(rng, True, 5)
    for bad in (0, 6, 2.5, -1):
        with pytest.raises(ValueError, match="order: expected 1 to 5"):
            hankel_norm_approximation(system, bad)
    with pytest.raises(ValueError, match="either order or tol"):
        hankel_norm_approximation(system)
    with pytest.raises(ValueError, match="tol: expected a positive"):
        hankel_norm_approximation(system, tol=0)
    with pytest.raises(ValueError, match="feedthrough: expected"):
        hankel_norm_approximation(system, 2, feedthrough="zero")
    with pytest.raises(ValueError, match="expected 1 to 1, which is what the system carries"):
        hankel_norm_approximation(ss(np.diag([0.5, 0.3]), [[1.0], [0.0]], [[1.0, 1.0]]), 2)
    with pytest.raises(ValueError, match="order: expected 1 to 3"):
        hankel_norm_approximation(ImpulseResponse([1.0, 0.5, 0.2, 0.1]), 4)
    with pytest.raises(ValueError, match="at least 2, the number of unstable poles"):
        hankel_norm_approximation(ss(np.diag([1.5, 2.0, 0.3]), np.ones((3, 1)), np.ones((1, 3))), 1)
    with pytest.raises(ValueError, match="frequency response"):
        hankel_norm_approximation(frd([1.0, 2.0], [0.1, 0.2]), 1)


def test_the_full_order_is_the_system(rng):
    for system in (random_system(rng, True, 5, 2, 2), random_system(rng, False, 5)):
        fit = hankel_norm_approximation(system, 5)
        responses_agree(system, fit.system, 1e-9)
        assert fit.bound == fit.lower_bound == 0
        np.testing.assert_array_equal(fit.system.D, system.D)


def test_systems_that_carry_nothing():
    for system in (ss(0.5, 0.0, 1.0, 3.0), ImpulseResponse([3.0, 0.0, 0.0]), ImpulseResponse([3.0])):
        fit = hankel_norm_approximation(system, 1)
        assert (fit.order, fit.bound, fit.lower_bound) == (0, 0, 0)
        assert fit.system.D[0, 0] == 3
        assert fit.converged


@pytest.mark.parametrize("discrete", [False, True])
def test_an_all_pass_system_has_one_hankel_value_and_needs_no_state(discrete):
    """All values are 1: a constant is as near as any smaller system."""
    a = np.array([0.5, -0.3, 0.8]) if discrete else np.array([-1.0, -2.0, -5.0])
    system = zpk(1 / a if discrete else -a, a, np.prod(-a) if discrete else 1.0, dt=int(discrete))
    fit = hankel_norm_approximation(system, 2)
    np.testing.assert_allclose(fit.sigma, 1, rtol=1e-9)
    assert fit.order == 0
    np.testing.assert_allclose(fit.measured("hankel"), 1, rtol=1e-9)
    assert fit.converged


@pytest.mark.parametrize("gap", [0.0, 1e-13, 1e-9, 1e-7, 1e-5, 1e-3])
def test_equal_and_nearly_equal_values(gap):
    """Two channels that are one system but for a gap: sigma_1 = sigma_2 and sigma_3 = sigma_4."""
    one = ss([[0.9, 0.1], [0.0, 0.3]], [[1.0], [0.5]], [[1.0, -1.0]])
    A, B, C = (np.kron(np.eye(2), M) for M in (one.A, one.B, one.C))
    system = StateSpace(A, B, C @ np.diag([1, 1, 1 + gap, 1 + gap]))
    for order in (1, 2, 3):
        fit = hankel_norm_approximation(system, order)
        np.testing.assert_allclose(fit.measured("hankel"), fit.lower_bound, rtol=5e-6)
        assert fit.order <= order
        assert fit.converged


def test_tolerances(rng):
    system = random_system(rng, False, 8)
    fit = hankel_norm_approximation(system, tol=0.05)
    assert fit.measured("hankel") <= 0.05 * fit.sigma[0]
    assert fit.sigma[fit.order - 1] > 0.05 * fit.sigma[0] >= fit.sigma[fit.order]
    assert hankel_norm_approximation(system, tol=2.0).order == 0
    bank = hankel_norm_approximation(random_system(rng, True, 6, batch=(4,)), tol=0.1)
    assert bank.system.A.shape == (4, bank.order.max(), bank.order.max())
    np.testing.assert_allclose(bank.measured("hankel"), bank.lower_bound, rtol=1e-6)


def test_unstable_parts_are_kept(rng):
    stable = random_system(rng, True, 5)
    both = StateSpace(
        np.block([[stable.A, np.zeros((5, 1))], [np.zeros((1, 5)), np.full((1, 1), 1.2)]]),
        np.vstack([stable.B, [[1.0]]]),
        np.hstack([stable.C, [[2.0]]]),
        stable.D,
    )
    fit = hankel_norm_approximation(both, 3)
    assert fit.order == 3
    np.testing.assert_allclose(np.abs(poles(fit.system)).max(), 1.2)
    np.testing.assert_allclose(fit.sigma, hankel_norm_approximation(stable, 2).sigma, rtol=1e-9)
    np.testing.assert_allclose(fit.measured("hankel"), fit.lower_bound, rtol=1e-6)


def test_keeping_the_feedthrough(rng):
    system = random_system(rng, True, 8)
    kept, chosen = (hankel_norm_approximation(system, 3, feedthrough=f) for f in ("keep", "hinf"))
    assert kept.system.D == system.D
    assert kept.bound == 2 * chosen.bound
    assert chosen.measured("hinf") <= kept.measured("hinf") * (1 + 1e-9)
    np.testing.assert_allclose(kept.measured("hankel"), chosen.measured("hankel"), rtol=1e-9)
    taps = ImpulseResponse(rng.standard_normal(20))
    assert hankel_norm_approximation(taps, 3, feedthrough="keep").system.D[0, 0] == taps.taps[0]


def test_modal_banks_stay_modal(rng):
    pair = 0.8 * np.exp(1j * np.array([0.5, 1.0, 2.0]))
    bank = Modal(np.stack([pair, pair.conj(), pair * 0 + 0.5, pair * 0 - 0.7], -1), np.array([1 + 1j, 1 - 1j, 0.5, 0.3]) + np.zeros((3, 4)))
    fit = hankel_norm_approximation(bank, 2)
    assert isinstance(fit.system, Modal)
    assert fit.system.real
    attained(fit)


# ---------------------------------------------------------------- filters


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.booleans(), st.integers(0, 2**31), st.data())
def test_short_filters(length, complex_, seed, data):
    rng = np.random.default_rng(seed)
    taps = rng.standard_normal((2, length)) + (1j * rng.standard_normal((2, length)) if complex_ else 0)
    order = data.draw(st.integers(1, length - 1))
    fit = hankel_norm_approximation(ImpulseResponse(taps), order)
    assert fit.stable.all()
    if order < length - 1:
        np.testing.assert_allclose(fit.measured("hankel"), fit.lower_bound, rtol=1e-5, atol=1e-13 * fit.sigma[:, 0].max())
    assert fit.converged.all()


def test_filters_and_their_state_space_agree(rng):
    taps = ImpulseResponse(rng.standard_normal(24) * 0.8 ** np.arange(24))
    fir, dense = (hankel_norm_approximation(s, 5, feedthrough="keep") for s in (taps, to_state_space(taps)))
    responses_agree(fir.system, dense.system, 1e-6)
    np.testing.assert_allclose(fir.sigma[:6], dense.sigma[:6], rtol=1e-9)


@pytest.mark.parametrize("order", [4, 16])
def test_trained_filters(order):
    """Noise floors, where neighbours of sigma_{order+1} lie a thousandth away."""
    taps = ImpulseResponse(hyena_filters().taps[::24, :1024].astype(float))
    fit = hankel_norm_approximation(taps, order)
    assert fit.converged.all()
    assert fit.stable.all()
    np.testing.assert_allclose(fit.measured("hankel"), fit.lower_bound, rtol=1e-5)
    assert (balanced_truncation(taps, order).measured("hankel") > 1.005 * fit.lower_bound).any()


def test_banks_of_filters_on_every_backend(xp, rng):
    taps = rng.standard_normal((4, 60)) * 0.9 ** np.arange(60)
    taps[1, 3], taps[2] = np.nan, 0
    fit = hankel_norm_approximation(ImpulseResponse(xp.asarray(taps)), 3)
    assert all(xp.owns(a) for a in (fit.system.A, fit.sigma, fit.bound, fit.converged))
    np.testing.assert_array_equal(xp.numpy(fit.converged), [True, False, True, True])
    np.testing.assert_array_equal(xp.numpy(fit.order), [3, 0, 0, 3])
    assert np.isnan(xp.numpy(fit.system.D)[1]).all()
    for k in (0, 3):
        single = hankel_norm_approximation(ImpulseResponse(taps[k]), 3)
        got = StateSpace(*(xp.numpy(M)[k] for M in fit.system.arrays.values()))
        responses_agree(single.system, got, 1e-6)
        np.testing.assert_allclose(xp.numpy(fit.bound)[k], single.bound, rtol=1e-9)


def test_filters_scale_and_have_tolerances(rng):
    taps = rng.standard_normal((3, 50)) * 0.85 ** np.arange(50)
    fit = hankel_norm_approximation(ImpulseResponse(taps), 4)
    for factor in (1e-200, -8.0, 1e200):
        scaled = hankel_norm_approximation(ImpulseResponse(factor * taps), 4)
        np.testing.assert_allclose(scaled.lower_bound / abs(factor), fit.lower_bound, rtol=1e-9)
        np.testing.assert_allclose(scaled.system.D / factor, fit.system.D, rtol=1e-6, atol=1e-9)
    loose = hankel_norm_approximation(ImpulseResponse(taps), tol=0.1)
    largest = fit.sigma[:, 0]
    assert (loose.measured("hankel") <= 0.1 * largest).all()
    assert loose.converged.all()


@pytest.mark.parametrize("dtype", [float, complex])
def test_filters_of_equal_values(xp, rng, dtype):
    """Zeros between the taps make every value double: w has a zero on the circle, on the grid. A delay has one value and no more."""
    between = rng.standard_normal(10) + (1j * rng.standard_normal(10) if dtype is complex else 0)
    taps = np.stack([np.where(np.arange(20) % 2, 0, np.repeat(between, 2)), np.eye(20)[5]])
    values = np.linalg.svd(scipy.linalg.hankel(taps[0, 1:]), compute_uv=False)
    np.testing.assert_allclose(values[2:4] / values[2], 1, rtol=1e-12)
    for order in (2, 3):
        fit = hankel_norm_approximation(ImpulseResponse(xp.asarray(taps)), order)
        assert xp.numpy(fit.converged).all()
        np.testing.assert_array_equal(xp.numpy(fit.order), [2, 0])
        np.testing.assert_allclose(xp.numpy(fit.measured("hankel")), [values[2], 1], rtol=1e-4)
        assert (xp.numpy(fit.measured("hinf")) <= xp.numpy(fit.bound)).all()


def test_coupled_filters(rng):
    taps = ImpulseResponse(rng.standard_normal((2, 3, 16)) * 0.8 ** np.arange(16))
    fit = hankel_norm_approximation(taps, 6, mimo=True)
    assert (fit.system.outputs, fit.system.inputs) == (2, 3)
    attained(fit)


# ---------------------------------------------------------------- feedthrough


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**31))
def test_the_nearest_constant(k, seed):
    """Against a fine search over the line; and that no direction improves a matrix."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((1, k)) + 1j * rng.standard_normal((1, k))
    line = np.linspace(-4, 4, 4001)
    best = np.abs(values[0][:, None] - line).max(0).min()
    assert abs(np.abs(values - _centre(values)[:, None]).max() - best) <= 2e-3
    found = least_largest(values.reshape(k, 1, 1), np.zeros((1, 1)))
    assert np.abs(values - found).max() <= best * (1 + 5e-3)
    error = rng.standard_normal((k, 2, 2)) + 1j * rng.standard_normal((k, 2, 2))
    D = least_largest(error, np.zeros((2, 2)))
    least = np.linalg.norm(error - D, 2, axis=(1, 2)).max()
    for _ in range(20):
        assert np.linalg.norm(error - D - 0.05 * rng.standard_normal((2, 2)), 2, axis=(1, 2)).max() >= least * (1 - 6e-3)


@pytest.mark.parametrize("gain", [1e300, 1e-300])
@pytest.mark.parametrize("discrete", [False, True])
def test_extreme_gains(rng, discrete, gain):
    system = random_system(rng, discrete, 6)
    loud = StateSpace(system.A, system.B * gain, system.C, 0 * system.D, system.dt)
    fit = hankel_norm_approximation(loud, 2, feedthrough="keep")
    one = hankel_norm_approximation(StateSpace(system.A, system.B, system.C, 0 * system.D, system.dt), 2, feedthrough="keep")
    assert fit.converged
    np.testing.assert_allclose(fit.lower_bound / gain, one.lower_bound, rtol=1e-9)
    np.testing.assert_allclose(poles(fit.system), poles(one.system), rtol=1e-6)
