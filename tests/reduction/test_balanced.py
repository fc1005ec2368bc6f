"""Balanced truncation: published Hankel values, certificates that hold, unstable parts, tolerances, weights, banks."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmid import ImpulseResponse, Modal, StateSpace, balanced_truncation, dc_gain, frequency_response, norm, poles, ss, subtract, zpk
from ssmid.analysis.splitting import split_unstable
from ssmid.datasets import beam, fom, heat
from tests.analysis.test_gramians import stable_matrix
from tests.analysis.test_hinf import benchmark


def random_system(rng: np.random.Generator, discrete: bool, n: int = 9, m: int = 2, p: int = 3, batch: tuple[int, ...] = ()) -> StateSpace:
    A = np.stack([stable_matrix(rng, n, discrete) for _ in range(int(np.prod(batch)))]).reshape(*batch, n, n)
    B, C, D = rng.standard_normal((*batch, n, m)), rng.standard_normal((*batch, p, n)), rng.standard_normal((p, m))
    return StateSpace(A, B, C, D, dt=int(discrete))


def certified(fit, slack: float = 1e-6) -> None:
    """Lower bound <= measured Hankel error <= measured H-infinity error <= a-priori bound."""
    floor = 1e-13 * np.max(fit.sigma)
    hankel, hinf = (np.asarray(fit.measured(kind)) for kind in ("hankel", "hinf"))
    assert (fit.lower_bound <= hankel * (1 + slack) + floor).all()
    assert (hankel <= hinf * (1 + slack) + floor).all()
    assert (hinf <= fit.bound * (1 + slack) + floor).all()


# ---------------------------------------------------------------- the field's benchmarks


@pytest.mark.parametrize(
    ("make", "order", "leading"),
    [
        (fom, 10, [50.05095592, 49.99513636, 49.9924285]),
        (heat, 8, [3.25545279e-02, 4.56594687e-03, 1.91937054e-04]),
        (lambda: beam(120), 20, None),
    ],
    ids=["fom", "heat", "beam"],
)
def test_generated_benchmarks(make, order, leading):
    fit = balanced_truncation(make(), order)
    if leading is not None:
        np.testing.assert_allclose(fit.sigma[:3], leading, rtol=1e-8)
    assert fit.system.order == fit.order == order
    assert (fit.sigma >= 0).all()
    certified(fit)


@pytest.mark.parametrize(
    ("name", "order", "leading"),
    [
        ("build", 12, None),
        ("heat-cont", 6, None),
        ("CDplayer", 30, [1171501.97162728, 1148304.43065571, 1738.60480415]),
        ("iss_siso", 26, [0.05777665, 0.05777402, 0.01685294]),
        ("MRdemo2M", 6, [0.31987388, 0.3196245, 0.31152999]),
    ],
)
def test_published_benchmarks(shared_data, name, order, leading):
    import scipy.io

    system = benchmark(shared_data, name)
    fit = balanced_truncation(system, order)
    if leading is None:
        published = np.sort(scipy.io.loadmat(shared_data / "mor" / f"{name}.mat")["hsv"].ravel())[::-1]
        count = int((published > 1e-7 * published[0]).sum())
        np.testing.assert_allclose(fit.sigma[:count], published[:count], rtol=1e-6)
    else:
        np.testing.assert_allclose(fit.sigma[:3], leading, rtol=1e-6)
    certified(fit)


# ---------------------------------------------------------------- certificates


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("match_dc", [False, True])
@pytest.mark.parametrize("order", [1, 4, 8])
def test_certificates_hold(rng, discrete, match_dc, order):
    system = random_system(rng, discrete)
    fit = balanced_truncation(system, order, match_dc=match_dc)
    certified(fit)
    np.testing.assert_allclose(fit.bound, 2 * fit.sigma[order:].sum())
    assert fit.lower_bound == fit.sigma[order]
    assert np.isfinite(norm(fit.system, "hankel"))
    if match_dc:
        np.testing.assert_allclose(dc_gain(fit.system), dc_gain(system), rtol=1e-9)
    else:
        np.testing.assert_array_equal(fit.system.D, system.D)


@pytest.mark.parametrize("discrete", [False, True])
def test_the_result_is_balanced_and_the_full_order_is_the_system(rng, discrete):
    from ssmid.analysis.gramians import gramians

    system = random_system(rng, discrete)
    fit = balanced_truncation(system, 5)
    if not discrete:  # a truncation is balanced again in continuous time only
        for gramian in gramians(fit.system):
            np.testing.assert_allclose(gramian, np.diag(fit.sigma[:5]), atol=1e-12 * fit.sigma[0])
    whole = balanced_truncation(system, 9)
    assert whole.bound == 0
    assert norm(subtract(system, whole.system), "hinf") < 1e-12 * fit.sigma[0]


def test_complex_systems(rng):
    system = StateSpace(stable_matrix(rng, 7, True, True), rng.standard_normal((7, 1)) + 0j, rng.standard_normal((1, 7)) + 0j)
    fit = balanced_truncation(system, 3)
    certified(fit)
    assert np.iscomplexobj(fit.system.A)


# ---------------------------------------------------------------- order and tolerance


@pytest.mark.parametrize("tol", [0.5, 0.05, 1e-3])
def test_the_smallest_order_within_the_tolerance(rng, tol):
    system = random_system(rng, True)
    fit = balanced_truncation(system, tol=tol)
    assert fit.bound <= tol * fit.sigma[0]
    assert 2 * fit.sigma[fit.order - 1 :].sum() > tol * fit.sigma[0]
    measured = balanced_truncation(system, tol=tol, tol_norm="h2")
    assert measured.error <= tol
    assert balanced_truncation(system, measured.order - 1).error > tol if measured.order > 1 else True


def test_a_tolerance_out_of_reach_gives_all_there_is(rng):
    system = random_system(rng, True, n=9)
    assert balanced_truncation(system, tol=1e-30).order == 9
    decaying = heat()
    with pytest.warns(UserWarning, match="tol: 1e-30 is not met by 1 of 1 systems"):
        fit = balanced_truncation(decaying, tol=1e-30)
    assert not fit.converged
    assert 15 <= fit.order <= 25
    with pytest.warns(UserWarning, match="is not met"):
        fit = balanced_truncation(system, tol=1e-9, max_order=4)
    assert (fit.order, bool(fit.converged)) == (4, False)


def test_orders_that_cannot_be_had(rng):
    twice = ss(np.diag([0.5, 0.5, 0.2]), np.ones((3, 1)), np.ones((1, 3)))  # McMillan degree 2
    with pytest.raises(ValueError, match="order: expected 1 to 2, which is what the system carries to rounding, got 3"):
        balanced_truncation(twice, 3)
    for order in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"order: expected 1 to 3, got {order}"):
            balanced_truncation(twice, order)
    for tol in (0.0, -1e-3, np.nan):
        with pytest.raises(ValueError, match="tol: expected a positive number"):
            balanced_truncation(twice, tol=tol)
    for wrong in ({}, {"order": 1, "tol": 0.1}):
        with pytest.raises(ValueError, match="expected either order or tol"):
            balanced_truncation(twice, **wrong)
    with pytest.raises(ValueError, match="tol_norm: expected 'bound' or 'h2'"):
        balanced_truncation(twice, tol=0.1, tol_norm="hinf")
    bank = StateSpace(np.stack([twice.A, np.diag([0.5, -0.5, 0.2])]), twice.B, twice.C)
    fit = balanced_truncation(bank, 3)
    assert fit.order.tolist() == [2, 3]
    assert fit.converged.tolist() == [False, True]
    assert (fit.measured("hinf") < 1e-12).all()


def test_nothing_to_reduce():
    zero = StateSpace(0.5 * np.eye(3), np.zeros((3, 1)), np.ones((1, 3)), [[2.0]])
    fit = balanced_truncation(zero, 2)
    assert (fit.order, fit.system.order, fit.bound, bool(fit.converged)) == (0, 0, 0, True)
    assert fit.system.D == 2
    assert fit.error == 0


# ---------------------------------------------------------------- unstable parts


@pytest.mark.parametrize("discrete", [False, True])
def test_unstable_parts_are_kept(rng, discrete):
    stable = random_system(rng, discrete, n=6, m=1, p=1)
    outside = np.array([[1.1, 0.4], [-0.4, 1.1]]) if discrete else np.array([[0.3, 2.0], [-2.0, 0.3]])
    A = np.block([[stable.A, rng.standard_normal((6, 2))], [np.zeros((2, 6)), outside]])
    T = rng.standard_normal((8, 8))
    B, C = rng.standard_normal((8, 1)), rng.standard_normal((1, 8))
    system = StateSpace(np.linalg.solve(T, A @ T), np.linalg.solve(T, B), C @ T, dt=stable.dt)
    fit = balanced_truncation(system, 5)
    assert fit.order == fit.system.order == 5
    found = poles(fit.system)
    for pole in np.linalg.eigvals(outside):
        assert np.abs(found - pole).min() < 1e-10
    omega = np.linspace(0.01, 3, 200)
    gap = np.abs(frequency_response(system, omega).values - frequency_response(fit.system, omega).values).max()
    assert gap <= fit.bound * (1 + 1e-9)
    assert gap > 0
    certified(fit)
    assert np.isinf(dataclasses.replace(fit, system=StateSpace(1.01 * system.A, system.B, system.C, dt=system.dt)).measured("hinf"))
    with pytest.raises(ValueError, match="order: expected at least 2, the number of unstable poles"):
        balanced_truncation(system, 1)
    (A1, B1, C1), (A2, B2, C2) = split_unstable(system.A, system.B, system.C, discrete=discrete)
    assert (len(A1), len(A2)) == (6, 2)
    parts = StateSpace(A1, B1, C1, dt=system.dt), StateSpace(A2, B2, C2, dt=system.dt)
    total = sum(frequency_response(part, omega).values for part in parts)
    np.testing.assert_allclose(total, frequency_response(system, omega).values, rtol=1e-9, atol=1e-9)


def test_an_integrator_is_kept():
    fit = balanced_truncation(zpk([], [1.0, 0.5, 0.1], 1.0), 2)
    assert np.abs(poles(fit.system) - 1).min() < 1e-12


# ---------------------------------------------------------------- weights


def test_a_weight_moves_the_error(rng):
    """With a low-pass weight on the input the error at low frequencies falls and the error elsewhere rises."""
    system = random_system(rng, False, n=12, m=1, p=1)
    weight = ss(-0.05, 1.0, 0.05, dt=0)
    plain, weighted = balanced_truncation(system, 4), balanced_truncation(system, 4, input_weight=weight)
    from ssmid import series

    seen = [norm(series(weight, subtract(system, fit.system)), "h2") for fit in (plain, weighted)]
    assert seen[1] < seen[0]
    assert np.isnan(weighted.bound)
    assert weighted.converged
    both = balanced_truncation(system, 4, input_weight=weight, output_weight=weight)
    assert norm(series(weight, series(subtract(system, both.system), weight)), "h2") < seen[0]
    neutral = ss(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), 1.0, dt=0)
    same = balanced_truncation(system, 4, input_weight=neutral, output_weight=neutral)
    np.testing.assert_allclose(same.sigma, plain.sigma, rtol=1e-9, atol=1e-13)
    with pytest.raises(ValueError, match="tol: expected an order"):
        balanced_truncation(system, tol=0.1, input_weight=weight)
    with pytest.raises(ValueError, match="input_weight: expected 1 inputs and outputs, got 2 and 2"):
        balanced_truncation(system, 4, input_weight=ss(-np.eye(2), np.eye(2), np.eye(2), dt=0))
    with pytest.raises(ValueError, match="sample time"):
        balanced_truncation(system, 4, input_weight=ss(0.5, 1, 1, dt=1))


# ---------------------------------------------------------------- banks


@pytest.mark.parametrize("discrete", [False, True])
def test_modal_banks_stay_modal(xp, rng, discrete):
    bank = random_system(rng, discrete, n=8, m=1, p=1, batch=(2, 3))
    values, V = np.linalg.eig(bank.A)
    residues = (bank.C @ V)[..., 0, :] * np.linalg.solve(V, bank.B)[..., 0]
    modal = Modal(xp.asarray(values), xp.asarray(residues), dt=bank.dt)
    for choice in ({"order": 3}, {"tol": 0.05}, {"order": 3, "match_dc": True}):
        fit = balanced_truncation(modal, **choice)
        expected = balanced_truncation(StateSpace(bank.A, bank.B, bank.C, dt=bank.dt), **choice)
        assert isinstance(fit.system, Modal)
        assert xp.owns(fit.system.poles)
        assert xp.owns(fit.sigma)
        np.testing.assert_allclose(xp.numpy(fit.sigma), expected.sigma, atol=1e-11 * expected.sigma.max())
        np.testing.assert_array_equal(xp.numpy(fit.order) if "tol" in choice else fit.order, expected.order)
        np.testing.assert_allclose(xp.numpy(norm(fit.system, "hinf")), norm(expected.system, "hinf"), rtol=1e-5)
        measured = xp.numpy(fit.measured("hinf"))
        assert (xp.numpy(fit.lower_bound) <= measured * (1 + 1e-6)).all()
        assert (measured <= xp.numpy(fit.bound) * (1 + 1e-6)).all()
        ordered = np.sort_complex(xp.numpy(fit.system.poles))
        np.testing.assert_allclose(ordered, np.sort_complex(ordered.conj()), atol=1e-12)


def test_a_batch_is_a_loop_and_bad_elements_stay_alone(rng):
    bank = random_system(rng, True, n=6, batch=(5,))
    A = bank.A.copy()
    A[1, 2, 2] = np.nan
    A[3] *= 1.3
    bank = StateSpace(A, bank.B, bank.C, bank.D)
    fit = balanced_truncation(bank, tol=0.2)
    assert fit.converged.tolist() == [True, False, True, True, True]
    assert np.isnan(fit.sigma[1]).all()
    assert np.isnan(fit.bound[1])
    assert np.isnan(fit.system.A[1]).all()
    omega = np.linspace(0, 3, 50)
    for k in (0, 2, 3, 4):
        alone = balanced_truncation(StateSpace(A[k], bank.B[k], bank.C[k], bank.D), tol=0.2)
        assert fit.order[k] == alone.order
        np.testing.assert_allclose(fit.bound[k], alone.bound, rtol=1e-8)
        part = StateSpace(fit.system.A[k], fit.system.B[k], fit.system.C[k], fit.system.D[k])
        np.testing.assert_allclose(
            frequency_response(part, omega).values, frequency_response(alone.system, omega).values, rtol=1e-7, atol=1e-9
        )


def test_padding_is_stable_in_continuous_time(rng):
    fit = balanced_truncation(random_system(rng, False, batch=(6,)), tol=0.1)
    assert len(set(fit.order.tolist())) > 1
    assert np.isfinite(fit.measured("hinf")).all()
    assert (fit.measured("hinf") <= fit.bound * (1 + 1e-6)).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_array_library(xp, rng, dtype):
    system = random_system(rng, True, n=5)
    fit = balanced_truncation(StateSpace(*(xp.asarray(M, dtype) for M in (system.A, system.B, system.C, system.D))), 3)
    for array in (fit.system.A, fit.system.B, fit.system.C, fit.system.D, fit.sigma, fit.bound, fit.lower_bound, fit.condition):
        assert xp.owns(array)
        assert str(array.dtype).endswith(dtype)
    expected = balanced_truncation(system, 3)
    np.testing.assert_allclose(xp.numpy(fit.sigma), expected.sigma, rtol=1e-10 if dtype == "float64" else 1e-4)


@settings(max_examples=20, deadline=None)
@given(st.floats(-150, 150), st.booleans(), st.integers(0, 2**31))
def test_any_scale(exponent, discrete, seed):
    system = random_system(np.random.default_rng(seed), discrete, n=4, m=1, p=1)
    scale = 10.0**exponent
    plain = balanced_truncation(system, 2)
    for B, C, gain in ((system.B * scale, system.C, scale), (system.B * scale, system.C / scale, 1.0)):
        fit = balanced_truncation(StateSpace(system.A, B, C, system.D, system.dt), 2)
        np.testing.assert_allclose(fit.sigma, plain.sigma * gain, rtol=1e-7, atol=1e-13 * plain.sigma[0] * gain)
        np.testing.assert_allclose(np.sort_complex(poles(fit.system)), np.sort_complex(poles(plain.system)), rtol=1e-6)


# ---------------------------------------------------------------- other representations


def test_other_representations():
    from ssmid import to_transfer_function

    filt = zpk([-1.0, -1.0, 0.2], [0.9, 0.5 + 0.5j, 0.5 - 0.5j], 0.1)
    fit = balanced_truncation(filt, 2)
    np.testing.assert_allclose(balanced_truncation(to_transfer_function(filt), 2).sigma, fit.sigma, rtol=1e-8)
    certified(fit)
    taps = ImpulseResponse(np.concatenate([[1.0], 0.8 ** np.arange(60) * np.cos(np.arange(60))]))
    assert balanced_truncation(taps, tol=1e-3).order == 2
    with pytest.raises(ValueError, match="got an ImpulseResponse"):
        balanced_truncation(taps, 2, input_weight=ss(0.5, 1, 1))
    channels = Modal(np.array([0.9, 0.5, -0.3]), np.arange(12.0).reshape(2, 2, 3) + 1)
    coupled = balanced_truncation(channels, 3, mimo=True)
    assert (coupled.system.outputs, coupled.system.inputs, coupled.system.batch_shape) == (2, 2, ())
    assert balanced_truncation(channels, 2).system.batch_shape == (2, 2)


def test_no_warnings_on_good_input(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        balanced_truncation(random_system(rng, True, batch=(3,)), 4)
        balanced_truncation(random_system(rng, False), tol=0.1, match_dc=True)


def test_one_complex_matrix_makes_a_complex_reduction(xp, rng):
    A, B, C = np.diag([0.9, -0.5, 0.1]), np.ones((3, 1)), np.array([[1 + 1j, 2.0, 0.01j]])
    system = StateSpace(xp.asarray(A), xp.asarray(B), xp.asarray(C))
    fit = balanced_truncation(system, 2)
    error = np.abs(xp.numpy(frequency_response(subtract(system, fit.system), points=64).values)).max()
    assert xp.numpy(fit.lower_bound) <= error * 1.001
    assert error <= xp.numpy(fit.bound) * 1.001
