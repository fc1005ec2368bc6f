"""Balanced truncation of impulse responses: exact where it must be, certified where it cannot, stable always."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid import ImpulseResponse
from ssmid._array import astype_width
from ssmid.reduction.fir import balanced_truncation_fir


def rational(rng, length, order=3):
    """Taps of a stable system of order 2 ``order`` with poles well inside the circle, and a feedthrough."""
    poles = rng.uniform(0.3, 0.8, order) * np.exp(1j * rng.uniform(0.3, 2.8, order))
    residues = rng.standard_normal(order) + 1j * rng.standard_normal(order)
    t = np.arange(length - 1)
    return np.concatenate([[rng.standard_normal()], (residues[:, None] * poles[:, None] ** t).sum(0).real])


def decaying(rng, length, *batch):
    """A smooth part and a noise floor, as trained filters have."""
    t = np.arange(length)
    smooth = np.cos(rng.uniform(0.01, 0.3, (*batch, 1)) * t) * np.exp(-t / (length / 8))
    return smooth + 0.1 * rng.standard_normal((*batch, length)) * np.exp(-t / (length / 3))


def taps_of(system, length):
    """The impulse response by its definition, in float64."""
    A, B, C, D = (np.asarray(M, dtype=np.result_type(M, np.float64)) for M in (system.A, system.B, system.C, system.D))
    out, x = [np.broadcast_to(D, (*system.batch_shape, *D.shape[-2:]))], B
    for _ in range(length - 1):
        out.append(C @ x)
        x = A @ x
    return np.stack(out, -1)


def scalar_taps_of(system, length):
    return taps_of(system, length)[..., 0, 0, :]


def relative_error(system, taps):
    """Over four times the length, so that what rings on counts."""
    length = taps.shape[-1]
    h = np.concatenate([taps, np.zeros((*taps.shape[:-1], 3 * length))], -1)
    return np.linalg.norm(scalar_taps_of(system, 4 * length) - h, axis=-1) / np.linalg.norm(taps, axis=-1)


def hinf_error(system, taps):
    """On a fine grid: a lower bound of the norm, near it for responses this short."""
    omega = np.linspace(0, np.pi, 4 * len(taps))
    z = np.exp(1j * omega)
    H = (taps * z[:, None] ** -np.arange(len(taps))).sum(-1)
    resolvent = np.linalg.solve(z[:, None, None] * np.eye(system.order) - system.A, np.broadcast_to(system.B, (len(z), *system.B.shape)))
    return np.abs(H - (system.C @ resolvent + system.D)[:, 0, 0]).max()


def hankel_error(system, taps):
    """Largest singular value of the Hankel matrix of the difference, long enough for the tail."""
    e = scalar_taps_of(system, 4 * len(taps))
    e[: len(taps)] -= taps
    return np.linalg.norm(scipy.linalg.hankel(e[1:]), 2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), length=st.sampled_from([200, 600]))
def test_a_rational_system_comes_back_exactly(seed, length):
    taps = rational(np.random.default_rng(seed), length)
    fit = balanced_truncation_fir(ImpulseResponse(taps), tol=1e-9)
    assert fit.order <= 6
    assert fit.converged
    assert relative_error(fit.system, taps) < 1e-9
    np.testing.assert_allclose(scalar_taps_of(fit.system, length), taps, atol=2e-9 * np.linalg.norm(taps))


def test_the_sigma_of_a_rational_system_are_those_of_its_gramians(rng):
    taps = rational(rng, 400)
    fit = balanced_truncation_fir(ImpulseResponse(taps), 6)
    np.testing.assert_allclose(fit.sigma[:6], ssmid.hankel_singular_values(fit.system), rtol=1e-9)


@pytest.mark.parametrize("length", [60, 900])
def test_singular_perturbation_is_balanced(rng, length):
    # in discrete time the truncated system itself is balanced only up to what is cut off
    fit = balanced_truncation_fir(ImpulseResponse(decaying(rng, length)), 5, match_dc=True)
    Wc, Wo = ssmid.gramians(fit.system)
    np.testing.assert_allclose(Wc, np.diag(fit.sigma[:5]), atol=1e-6 * fit.sigma[0])
    np.testing.assert_allclose(Wo, np.diag(fit.sigma[:5]), atol=1e-6 * fit.sigma[0])


@pytest.mark.parametrize("match_dc", [False, True])
@pytest.mark.parametrize("order", [1, 4, 11])
@pytest.mark.parametrize("length", [40, 400])
def test_errors_lie_between_the_bounds(rng, order, length, match_dc):
    taps = decaying(rng, length)
    fit = balanced_truncation_fir(ImpulseResponse(taps), order, match_dc=match_dc)
    sigma = np.linalg.svd(scipy.linalg.hankel(taps[1:]), compute_uv=False)
    slack = 1e-6 * sigma[0]
    tail = 2 * sigma[order:].sum()
    assert fit.lower_bound == pytest.approx(sigma[order], rel=1e-6)
    assert fit.lower_bound - slack <= hankel_error(fit.system, taps) <= hinf_error(fit.system, taps) + slack <= tail + slack
    assert tail - slack <= fit.bound <= 3 * tail + slack
    assert fit.condition == pytest.approx(sigma[0] / sigma[order - 1], rel=1e-5)


def test_the_bound_of_a_short_response_is_the_sum_itself(rng):
    taps = decaying(rng, 50)
    fit = balanced_truncation_fir(ImpulseResponse(taps), 20)
    sigma = np.linalg.svd(scipy.linalg.hankel(taps[1:]), compute_uv=False)
    assert fit.sigma.shape == (49,)
    np.testing.assert_allclose(fit.bound, 2 * sigma[20:].sum(), rtol=1e-9)


@pytest.mark.parametrize("match_dc", [False, True])
def test_long_noise_gives_stable_systems(rng, match_dc):
    taps = rng.standard_normal((4, 700))
    fit = balanced_truncation_fir(ImpulseResponse(taps), 30, match_dc=match_dc)
    assert np.abs(np.linalg.eigvals(fit.system.A)).max() < 1
    assert fit.converged.all()


def test_match_dc_keeps_the_gain_at_zero(rng):
    taps = decaying(rng, 300, 3)
    dc = ssmid.dc_gain(balanced_truncation_fir(ImpulseResponse(taps), 4, match_dc=True).system)
    np.testing.assert_allclose(np.asarray(dc).reshape(3), taps.sum(-1), rtol=1e-11)
    plain = ssmid.dc_gain(balanced_truncation_fir(ImpulseResponse(taps), 4).system)
    assert np.abs(np.asarray(plain).reshape(3) - taps.sum(-1)).min() > 1e-4


@pytest.mark.parametrize("length", [50, 600])
def test_singular_perturbation_by_the_text_book(rng, length):
    # all N states in balanced coordinates, those beyond the order made to follow without delay
    taps = decaying(rng, length)
    U = np.linalg.svd(scipy.linalg.hankel(taps[1:]))[0]
    A, B, C, r = U.T @ np.eye(length - 1, k=1) @ U, U.T @ taps[1:], U[0], 4
    rest = np.linalg.inv(np.eye(length - 1 - r) - A[r:, r:])
    expected = ssmid.StateSpace(
        A[:r, :r] + A[:r, r:] @ rest @ A[r:, :r],
        (B[:r] + A[:r, r:] @ rest @ B[r:])[:, None],
        (C[:r] + C[r:] @ rest @ A[r:, :r])[None],
        np.array([[taps[0] + C[r:] @ rest @ B[r:]]]),
    )
    fit = balanced_truncation_fir(ImpulseResponse(taps), r, match_dc=True)
    np.testing.assert_allclose(scalar_taps_of(fit.system, 100), scalar_taps_of(expected, 100), atol=1e-6)


@pytest.mark.parametrize("match_dc", [False, True])
def test_a_tolerance_is_met_by_the_smallest_order(rng, match_dc):
    taps = decaying(rng, 300, 5)
    fit = balanced_truncation_fir(ImpulseResponse(taps), tol=0.2, match_dc=match_dc)
    assert fit.converged.all()
    assert (relative_error(fit.system, taps) <= 0.2).all()
    assert len(set(fit.order.tolist())) > 1, "the elements differ, which is the point"
    for i, order in enumerate(fit.order.tolist()):
        if order > 1:
            below = balanced_truncation_fir(ImpulseResponse(taps[i]), order - 1, match_dc=match_dc)
            assert relative_error(below.system, taps[i]) > 0.2
        # states beyond an element's own order are zero
        assert not fit.system.A[i, order:].any()
        assert not fit.system.B[i, order:].any()
        assert not fit.system.C[i, :, order:].any()


def test_a_tolerance_that_cannot_be_met_gives_the_full_order_and_says_so(rng):
    taps = decaying(rng, 40)
    with pytest.warns(UserWarning, match="tol: a relative l2 error of 1e-30 is not met in 1 of 1 responses"):
        fit = balanced_truncation_fir(ImpulseResponse(taps), tol=1e-30)
    assert fit.order == 39
    assert not fit.converged
    assert relative_error(fit.system, taps) < 1e-13
    with pytest.warns(UserWarning, match="orders up to 8 reach"):
        fit = balanced_truncation_fir(ImpulseResponse(taps), tol=1e-3, max_order=8)
    assert fit.order == 8
    assert not fit.converged


def test_a_delay_has_flat_singular_values_and_no_small_model():
    taps = np.zeros(21)
    taps[20] = 1.0
    fit = balanced_truncation_fir(ImpulseResponse(taps), tol=1e-10)
    assert fit.order == 20
    np.testing.assert_allclose(fit.sigma[:20], 1, atol=1e-14)
    np.testing.assert_allclose(scalar_taps_of(fit.system, 30)[:21], taps, atol=1e-13)


@pytest.mark.parametrize("request_", [{"order": 3}, {"tol": 1e-3}])
@pytest.mark.parametrize("taps", [np.zeros(10), np.array([2.0]), np.array([5.0, 0.0, 0.0])])
def test_a_response_that_is_zero_beyond_the_feedthrough_has_order_zero(taps, request_):
    if len(taps) == 1 and "order" in request_:
        request_ = {"order": 1}
    fit = balanced_truncation_fir(ImpulseResponse(taps), **({"order": 1} if "order" in request_ else request_))
    assert fit.order == 0
    assert fit.system.order == 0
    assert fit.system.D[0, 0] == taps[0]
    assert fit.bound == 0
    assert fit.converged


def test_an_order_above_what_the_data_carries_quotes_it(rng):
    taps = np.concatenate([[1.0], 0.5 ** np.arange(80)])
    with pytest.raises(ValueError, match="order: expected 1 to 1, which is what the response carries to rounding, got 5"):
        balanced_truncation_fir(ImpulseResponse(taps), 5)
    fit = balanced_truncation_fir(ImpulseResponse(np.stack([taps, decaying(rng, 81)])), 5)
    assert fit.order.tolist() == [1, 5]
    np.testing.assert_allclose(scalar_taps_of(fit.system, 81)[0], taps, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected either order or tol, got order=None and tol=None"),
        ({"order": 2, "tol": 0.1}, "expected either order or tol"),
        ({"order": 0}, "order: expected 1 to 9, got 0"),
        ({"order": 10}, "order: expected 1 to 9"),
        ({"tol": -1e-3}, "tol: expected a positive number, got -0.001"),
        ({"tol": float("nan")}, "tol: expected a positive number, got nan"),
        ({"tol": 0.1, "max_order": 0}, "max_order: expected a positive integer, got 0"),
    ],
)
def test_wrong_arguments_are_quoted(rng, arguments, message):
    with pytest.raises(ValueError, match=message):
        balanced_truncation_fir(ImpulseResponse(rng.standard_normal(10)), **arguments)


@pytest.mark.parametrize("request_", [{"order": 4}, {"tol": 0.3}])
@pytest.mark.parametrize("length", [40, 600])
def test_one_bad_filter_leaves_the_others_alone(rng, length, request_):
    taps = decaying(rng, length, 4)
    bad = taps.copy()
    bad[2, 5] = np.inf
    fit, clean = (balanced_truncation_fir(ImpulseResponse(h), **request_) for h in (bad, taps))
    for array in (fit.system.A, fit.sigma, fit.bound, fit.lower_bound):
        assert np.isnan(array[2]).all()
    np.testing.assert_array_equal(fit.converged, [True, True, False, True])
    others = [0, 1, 3]
    np.testing.assert_allclose(scalar_taps_of(fit.system, 50)[others], scalar_taps_of(clean.system, 50)[others], atol=1e-9)


@pytest.mark.parametrize("request_", [{"order": 6}, {"tol": 0.25}])
def test_a_bank_is_a_loop_of_singles(rng, request_):
    taps = decaying(rng, 500, 2, 3)
    fit = balanced_truncation_fir(ImpulseResponse(taps), **request_)
    assert fit.system.batch_shape == fit.bound.shape == fit.converged.shape == (2, 3)
    for i in np.ndindex(2, 3):
        alone = balanced_truncation_fir(ImpulseResponse(taps[i]), **request_)
        np.testing.assert_allclose(scalar_taps_of(fit.system, 100)[i], scalar_taps_of(alone.system, 100), atol=1e-8)
        np.testing.assert_allclose(fit.bound[i], alone.bound, rtol=1e-9)


@pytest.mark.parametrize("match_dc", [False, True])
@pytest.mark.parametrize("request_", [{"order": 4}, {"tol": 0.3}])
def test_kind_and_precision_are_kept(xp, rng, request_, match_dc):
    taps = decaying(rng, 350, 2)
    expected = balanced_truncation_fir(ImpulseResponse(taps), match_dc=match_dc, **request_)
    for bits in (32, 64):
        fit = balanced_truncation_fir(ImpulseResponse(xp.asarray(taps, f"float{bits}")), match_dc=match_dc, **request_)
        for array in (*fit.system.arrays.values(), fit.sigma, fit.bound, fit.lower_bound, fit.condition):
            assert xp.owns(array)
            assert xp.numpy(array).dtype == f"float{bits}"
        assert xp.owns(fit.converged)
        system = fit.system.map(lambda a: astype_width(xp.numpy(a), 64))
        np.testing.assert_allclose(scalar_taps_of(system, 350), scalar_taps_of(expected.system, 350), atol=2e-5 if bits == 32 else 1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_any_scale(rng, scale):
    taps = decaying(rng, 60)
    fit, unit = (balanced_truncation_fir(ImpulseResponse(h), 5) for h in (taps * scale, taps))
    np.testing.assert_allclose(scalar_taps_of(fit.system, 60) / scale, scalar_taps_of(unit.system, 60), atol=1e-12)
    np.testing.assert_allclose([fit.bound / scale, fit.lower_bound / scale], [unit.bound, unit.lower_bound], rtol=1e-11)
    by_tolerance, unit = (balanced_truncation_fir(ImpulseResponse(h), tol=0.2) for h in (taps * scale, taps))
    assert by_tolerance.order == unit.order


@pytest.mark.parametrize("match_dc", [False, True])
@pytest.mark.parametrize(("p", "m"), [(2, 2), (3, 1), (1, 2)])
@pytest.mark.parametrize("length", [30, 400])
def test_coupled_channels(rng, p, m, length, match_dc):
    # an order-4 system of p outputs and m inputs
    A = scipy.linalg.block_diag(*[0.7 * np.array([[np.cos(w), -np.sin(w)], [np.sin(w), np.cos(w)]]) for w in (0.5, 1.4)])
    system = ssmid.StateSpace(A, rng.standard_normal((4, m)), rng.standard_normal((p, 4)), rng.standard_normal((p, m)))
    taps = taps_of(system, length)
    fit = balanced_truncation_fir(ImpulseResponse(taps), 4, mimo=True, match_dc=match_dc)
    assert (fit.system.outputs, fit.system.inputs, fit.system.batch_shape) == (p, m, ())
    np.testing.assert_allclose(taps_of(fit.system, length), taps, atol=1e-3 if length == 30 else 1e-9)
    assert balanced_truncation_fir(ImpulseResponse(taps), tol=1e-2, mimo=True, match_dc=match_dc).order <= 4


def test_complex_filters(rng):
    poles = np.array([0.8 * np.exp(0.7j), 0.6 * np.exp(-2j)])
    taps = np.concatenate([[1j], (poles[:, None] ** np.arange(120)).sum(0)])
    fit = balanced_truncation_fir(ImpulseResponse(taps), 2)
    np.testing.assert_allclose(scalar_taps_of(fit.system, 121), taps, atol=1e-10)
    np.testing.assert_allclose(np.sort_complex(np.linalg.eigvals(fit.system.A)), np.sort_complex(poles), atol=1e-9)


def test_the_measured_error_of_the_result(rng):
    taps = decaying(rng, 300, 2)
    fit = balanced_truncation_fir(ImpulseResponse(taps), 6)
    np.testing.assert_allclose(fit.error, relative_error(fit.system, taps), rtol=1e-9)


def test_trained_filters_near_the_best_possible(shared_data):
    taps = np.load(shared_data / "hyena_d256_l2048.npz")["filters"].reshape(-1, 2048)[::211].astype(np.float64)
    fit = balanced_truncation_fir(ImpulseResponse(taps), 16)
    assert fit.converged.all()
    # in Hankel norm such truncations stand at 1.00 to 1.30 times the best of this order
    for h, system, best in zip(taps, [fit.system.map(lambda a, i=i: a[i]) for i in range(len(taps))], fit.lower_bound, strict=True):
        e = scalar_taps_of(system, 4096)
        e[:2048] -= h
        reached = ssmid.hankel_singular_values(ImpulseResponse(e), 1)[0]
        assert 1 - 1e-6 <= reached / best < 1.35


def test_errors_of_coupled_channels_are_those_of_one_system(rng):
    """One model of several channels has one error in each norm, that of the difference of the two state spaces."""
    taps = decaying(rng, 40, 2, 3)
    fit = ssmid.balanced_truncation(ImpulseResponse(taps), 4, mimo=True)
    whole = ssmid.to_state_space(ImpulseResponse(taps), mimo=True)
    difference = ssmid.subtract(whole, fit.system)
    assert float(fit.error) == pytest.approx(float(ssmid.norm(difference, "h2") / ssmid.norm(whole, "h2")), rel=1e-9)
    for kind in ("hankel", "hinf", "l1"):
        assert float(fit.measured(kind)) == pytest.approx(float(ssmid.norm(difference, kind)), rel=2e-6)
    assert float(fit.lower_bound) <= float(fit.measured("hankel")) <= float(fit.measured("hinf")) <= float(fit.bound)
