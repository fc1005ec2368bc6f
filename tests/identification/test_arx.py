"""ARX: exact without noise, least squares with it, the same for banks as for each of their records."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

import ssmid
from ssmid.identification.arx import arx
from ssmid.identification.record import Record
from ssmid.identification.validation import fit_percent, predict


def polynomial(rng, order, radius=0.95):
    """A stable polynomial with roots apart."""
    angles = np.linspace(0.3, 2.8, order // 2) + rng.uniform(-0.1, 0.1, order // 2)
    pairs = rng.uniform(0.6, radius, order // 2) * np.exp(1j * angles)
    real = rng.uniform(-0.6, 0.6, order % 2)
    return np.poly(np.concatenate([pairs, pairs.conj(), real])).real


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), na=st.integers(1, 6), nb=st.integers(1, 4), delay=st.integers(0, 3))
def test_coefficients_are_recovered_without_noise(seed, na, nb, delay):
    rng = np.random.default_rng(seed)
    a, b = polynomial(rng, na), np.r_[np.zeros(delay), rng.uniform(0.5, 2, nb)]
    u = rng.standard_normal(300)
    y = lfilter(b, a, np.r_[rng.standard_normal(50), u])[50:]  # the record starts in the middle
    fit = arx(Record(u, y), na, nb, delay)
    np.testing.assert_allclose(fit.polynomials.A[0, 0], a, atol=1e-10)
    # what came before the record is in its first samples, which the regression leaves out
    np.testing.assert_allclose(fit.polynomials.B[0, 0], b, atol=1e-10)
    assert fit.error < 1e-12
    simulated = ssmid.simulate(fit.system, u, fit.initial_state, return_state=True)[0]
    np.testing.assert_allclose(simulated, y, atol=1e-9 * np.abs(y).max())


def test_matrix_polynomials_are_recovered_and_make_the_innovations_form(rng):
    A1, A2 = np.array([[-0.9, 0.2, 0.0], [0.1, -0.5, 0.0], [0.0, 0.3, 0.2]]), 0.2 * np.eye(3)
    B1 = rng.standard_normal((3, 2))
    u, e = rng.standard_normal((2, 400)), 0.1 * rng.standard_normal((3, 400))
    y = np.zeros((3, 400))
    for t in range(2, 400):
        y[:, t] = -A1 @ y[:, t - 1] - A2 @ y[:, t - 2] + B1 @ u[:, t - 1]
    fit = arx(Record(u, y), 2, 1)
    np.testing.assert_allclose(fit.polynomials.A[..., 1], A1, atol=1e-10)
    np.testing.assert_allclose(fit.polynomials.A[..., 2], A2, atol=1e-10)
    np.testing.assert_allclose(fit.polynomials.B[..., 1], B1, atol=1e-10)
    noisy = np.zeros((3, 400))
    for t in range(2, 400):
        noisy[:, t] = -A1 @ noisy[:, t - 1] - A2 @ noisy[:, t - 2] + B1 @ u[:, t - 1] + e[:, t]
    fit = arx(Record(u, noisy), 2, 1)
    A, B = fit.polynomials.A, fit.polynomials.B
    expected = -A[..., 1] @ noisy[:, 1:-1] - A[..., 2] @ noisy[:, :-2] + B[..., 1] @ u[:, 1:-1]
    np.testing.assert_allclose(predict(fit, fit.data, 1, state=fit.initial_state)[:, 2:], expected, atol=1e-10)
    np.testing.assert_allclose(fit.noise_covariance, 0.01 * np.eye(3), atol=2.5e-3)


def test_least_squares_is_that_of_the_normal_equations(rng):
    u = rng.standard_normal(200)
    y = lfilter([0, 1.0], [1, -0.7], u) + rng.standard_normal(200)
    fit = arx(Record(u, y), 2, 1)
    table = np.stack([-y[1:-1], -y[:-2], u[1:-1]], -1)
    theta, left = np.linalg.lstsq(table, y[2:], rcond=None)[:2]
    np.testing.assert_allclose(np.r_[fit.polynomials.A[0, 0, 1:], fit.polynomials.B[0, 0, 1]], theta, rtol=1e-10)
    np.testing.assert_allclose(fit.noise_covariance[0, 0], left[0] / (198 - 3), rtol=1e-10)
    order = [0, 2, 1]  # parameters stand lag by lag: a1, b1, a2
    np.testing.assert_allclose(fit.covariance[np.ix_(order, order)], np.linalg.inv(table.T @ table) * left[0] / 195, rtol=1e-8)


def test_the_order_is_the_true_one_by_both_criteria(rng):
    a, b = np.poly([0.9 * np.exp(0.5j), 0.9 * np.exp(-0.5j), 0.5]).real, [0, 1.0, 0.5, 0.3]
    u, e = rng.standard_normal((2, 2000))
    y = lfilter(b, a, u) + 0.1 * lfilter([1.0], a, e)
    assert arx(Record(u, y), max_order=12).order == 3
    assert 3 <= arx(Record(u, y), max_order=12, criterion="aic").order <= 6
    assert arx(Record(u, lfilter(b, a, u)), max_order=12).order == 3
    with pytest.raises(ValueError, match='criterion: expected "aic" or "bic", got "fpe"'.replace('"fpe"', "'fpe'")):
        arx(Record(u, y), criterion="fpe")


def test_several_experiments_count_as_one_regression(rng):
    u = rng.standard_normal(300)
    y = lfilter([0, 1.0, 0.4], [1, -1.5, 0.7], u)
    whole = Record(u, y)
    fit = arx([whole[:100], whole[130:300]], 2, 2)
    np.testing.assert_allclose(fit.polynomials.A[0, 0], [1, -1.5, 0.7], atol=1e-10)
    assert fit.initial_state.shape == (2, 2)
    np.testing.assert_allclose(predict(fit, whole[130:300], None, state=fit.initial_state[1]), whole[130:300].outputs, atol=1e-9)


def test_scales_and_units_of_time_do_not_matter(rng):
    u, e = rng.standard_normal((2, 300))
    y = lfilter([0, 1.0, 0.4], [1, -1.5, 0.7], u) + 0.1 * e
    plain = arx(Record(u, y), 2, 2)
    for size in (1e-150, 1e150):
        fit = arx(Record(u / size, size * y, dt=1e-9), 2, 2)
        np.testing.assert_allclose(fit.polynomials.A, plain.polynomials.A, rtol=1e-10)
        np.testing.assert_allclose(fit.error, plain.error, rtol=1e-10)
        assert fit.system.dt == 1e-9


def test_banks_are_loops_kinds_are_kept_and_nan_stays_where_it_is(xp, rng):
    u = rng.standard_normal((3, 2, 200))
    y = np.stack([lfilter([0, 1.0], [1, -0.8], x[0]) + lfilter([1.0], [1, -0.8], x[1]) for x in u])[:, None]
    y = y + 0.1 * rng.standard_normal(y.shape)
    y[1, 0, 20] = np.nan
    bank = arx(Record(xp.asarray(u), xp.asarray(y)), 1, 2, 0)
    assert xp.owns(bank.system.A)
    assert xp.owns(bank.parameters)
    assert np.isnan(xp.numpy(bank.system.A)[1]).all()
    assert list(xp.numpy(bank.converged)) == [True, False, True]
    for i in (0, 2):
        one = arx(Record(u[i], y[i]), 1, 2, 0)
        np.testing.assert_allclose(xp.numpy(bank.parameters)[i], one.parameters, rtol=1e-12)
        np.testing.assert_allclose(xp.numpy(bank.system.B)[i], one.system.B, rtol=1e-12)
    single = arx(Record(xp.asarray(u[0], "float32"), xp.asarray(y[0], "float32")), 1, 2, 0)
    assert "float32" in str(single.system.A.dtype)


def test_an_unstable_model_is_warned_of_or_mirrored():
    u = np.random.default_rng(0).standard_normal(60)
    record = Record(u, lfilter([0, 1.0], np.poly([1.05, 0.5]), u))
    with pytest.warns(UserWarning, match="arx: the model is unstable; stable=True"):
        assert not arx(record, 2, 1).stable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = arx(record, 2, 1, stable=True)
    assert fit.stable
    assert fit.changes[0].action == "reflected"
    np.testing.assert_allclose(fit.changes[0].poles, [1.05], rtol=1e-9)
    np.testing.assert_allclose(np.sort(np.abs(ssmid.poles(fit.system))), [0.5, 1 / 1.05], rtol=1e-8)


def test_hostile_records_give_the_smallest_coefficients_or_a_message(rng):
    constant = arx(Record(np.ones(50), np.full(50, 2.0)), 1, 1)
    np.testing.assert_allclose(predict(constant, constant.data, 1), 2.0, atol=1e-12)
    assert np.isinf(constant.condition)
    zero = arx(Record(rng.standard_normal(50), np.zeros(50)), 2, 2)
    np.testing.assert_array_equal(zero.parameters, 0)
    assert zero.error == 0
    series = arx(Record(None, lfilter([1.0], [1, -0.5], rng.standard_normal(500))), 1, 0)
    assert series.system.inputs == 0
    np.testing.assert_allclose(series.polynomials.A[0, 0, 1], -0.5, atol=0.1)
    with pytest.raises(ValueError, match="expected at least 7 samples for 4 coefficients of each output, got 6"):
        arx(Record(np.ones(6), np.ones(6)), 2, 2, 2)
    with pytest.raises(ValueError, match="na: expected an integer of at least 0, got -1"):
        arx(Record(np.ones(9), np.ones(9)), -1, 1)
    with pytest.raises(ValueError, match="na, nb: expected at least one lag"):
        arx(Record(np.ones(9), np.ones(9)), 0, 0)
    with pytest.raises(TypeError, match="expected a Record"):
        arx(np.ones(9), 1, 1)
    with pytest.raises(ValueError, match="stable: expected one output"):
        arx(Record(np.ones(9), np.ones((2, 9))), 1, 1, stable=True)


def test_centers_are_taken_off_and_put_back(rng):
    u = rng.standard_normal(400)
    y = lfilter([0, 1.0], [1, -0.8], u) + 1e-3 * rng.standard_normal(400)
    t = np.arange(400)
    plain = arx(Record(u, y), 1, 1, center="mean")
    shifted = arx(Record(u + 7, y - 30), 1, 1, center="mean")
    np.testing.assert_allclose(shifted.parameters, plain.parameters, rtol=1e-9)
    np.testing.assert_allclose(predict(shifted, Record(u + 7, y - 30), 1), predict(plain, Record(u, y), 1) - 30, atol=1e-9)
    ramp = Record(u + 0.01 * t, y + 5 - 0.1 * t)
    np.testing.assert_allclose(arx(ramp, 1, 1, center="trend").parameters, arx(Record(u, y), 1, 1, center="trend").parameters, rtol=1e-8)
    assert fit_percent(ramp.outputs, predict(arx(ramp, 1, 1, center="trend"), ramp, None))[0] > 99
    with pytest.raises(ValueError, match='center: expected "mean", "trend" or None'):
        arx(ramp, 1, 1, center="median")


def test_the_transfer_function_is_that_of_the_state_space(rng):
    u = rng.standard_normal((2, 200))
    y = lfilter([0, 0, 1.0, 0.3], [1, -0.8], u[0]) + lfilter([0, 0, 2.0], [1, -0.8], u[1])
    fit = arx(Record(u, y), 1, 2, 2)
    omega = np.linspace(0, 3, 7)
    direct = ssmid.frequency_response(fit.transfer_function, omega).values
    np.testing.assert_allclose(direct, ssmid.frequency_response(fit.system, omega).values, atol=1e-10)
