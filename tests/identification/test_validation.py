"""Fit, prediction and residual tests: by their definitions, and at the level that they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

import ssmid
from ssmid.identification.arx import arx
from ssmid.identification.initial_state import estimate_initial_state
from ssmid.identification.prediction_error import armax, oe
from ssmid.identification.record import Record
from ssmid.identification.validation import fit_percent, predict, residual_test, validate


def test_fit_percent_is_one_minus_the_normalized_root_of_squares(xp, rng):
    y, model = rng.standard_normal((2, 3, 40)), rng.standard_normal((2, 3, 40))
    expected = 100 * (1 - np.linalg.norm(y - model, axis=-1) / np.linalg.norm(y - y.mean(-1, keepdims=True), axis=-1))
    found = fit_percent(xp.asarray(y), xp.asarray(model))
    assert xp.owns(found)
    np.testing.assert_allclose(xp.numpy(found), expected, rtol=1e-12)


def test_fit_percent_of_what_does_not_vary_and_of_any_scale(rng):
    y = rng.standard_normal(30)
    assert fit_percent(y, y) == 100
    np.testing.assert_allclose(fit_percent(y, 0 * y + y.mean()), 0, atol=1e-12)
    for size in (1e-300, 1e300):
        np.testing.assert_allclose(fit_percent(size * y, 0.5 * size * y), fit_percent(y, 0.5 * y), rtol=1e-10)
    assert fit_percent(np.full(9, 3.0), np.full(9, 3.0)) == 100
    assert fit_percent(np.full(9, 3.0), np.zeros(9)) == -np.inf
    assert np.isnan(fit_percent(np.array([[1.0, np.nan], [1.0, 2.0]]), np.ones((2, 2)))[0])
    with pytest.raises(ValueError, match=r"of one shape, got .3,. and .4,."):
        fit_percent(np.ones(3), np.ones(4))


def test_fit_percent_is_differentiable(rng):
    torch = pytest.importorskip("torch")
    y, model = torch.tensor(rng.standard_normal(12)), torch.tensor(rng.standard_normal(12), requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: fit_percent(y, m), (model,))


def predicted_by_steps(A, B, C, D, K, u, y, x, steps):
    """Kalman predictor with measured outputs up to ``steps`` before, simulated from there, one sample at a time."""
    states = [x]
    for t in range(y.shape[-1]):
        x = A @ x + B @ u[:, t] + K @ (y[:, t] - C @ x - D @ u[:, t])
        states.append(x)
    out = []
    for t in range(y.shape[-1]):
        start = max(t - steps + 1, 0)
        x = states[start]
        for s in range(start, t):
            x = A @ x + B @ u[:, s]
        out.append(C @ x + D @ u[:, t])
    return np.stack(out, -1)


@pytest.mark.parametrize("steps", [1, 2, 5, 40, 100])
def test_prediction_is_that_of_the_recursion(rng, steps):
    m, p, T = 2, 2, 60
    u, y = rng.standard_normal((m, T)), rng.standard_normal((p, T))
    fit = armax(Record(u, y), 1, 2, 1, 0, stable=True)
    s, K = fit.system, fit.kalman_gain
    assert np.abs(s.D).min() > 0
    for state in (np.zeros(s.order), rng.standard_normal(s.order)):
        expected = predicted_by_steps(s.A, s.B, s.C, s.D, K, u, y, state, steps)
        np.testing.assert_allclose(predict(fit, Record(u, y), steps, state=state), expected, atol=1e-10)


def test_many_steps_ahead_become_the_free_simulation(rng):
    u = rng.standard_normal(80)
    fit = arx(Record(u, lfilter([0, 1.0], [1, -0.5], u) + 0.1 * rng.standard_normal(80)), 1, 1)
    state = fit.initial_state
    np.testing.assert_allclose(predict(fit, fit.data, 10**6, state=state), predict(fit, fit.data, None, state=state), atol=1e-12)
    np.testing.assert_array_equal(predict(fit, fit.data, float("inf"), state=state), predict(fit, fit.data, None, state=state))


def test_the_initial_state_is_that_of_least_squares(rng):
    system = ssmid.ss([[0.9, 0.2], [-0.2, 0.9]], [1.0, 0.0], [1.0, 0.3])
    u, state = rng.standard_normal(50), np.array([3.0, -2.0])
    y = ssmid.simulate(system, u, state) + 0.1 * rng.standard_normal(50)
    record = Record(u, y)
    least = np.sum((y - predict(system, record, None)[0]) ** 2)
    for change in np.eye(2):
        for size in (-0.01, 0.01):
            moved = predict(system, record, None, state=estimate_initial_state(system, record) + size * change)
            assert np.sum((y - moved[0]) ** 2) > least


def test_predictions_keep_kinds_batches_and_nan_apart(xp, rng):
    u = rng.standard_normal((3, 1, 60))
    y = lfilter([0, 1.0], [1, -0.8], u) + 0.1 * rng.standard_normal(u.shape)
    y[1, 0, 3] = np.nan
    fit = arx(Record(xp.asarray(u), xp.asarray(y)), 2, 1)
    for steps in (1, 3, None):
        bank = predict(fit, fit.data, steps)
        assert xp.owns(bank)
        assert np.isnan(xp.numpy(bank)[1]).all()
        alone = arx(Record(u[2], y[2]), 2, 1)
        np.testing.assert_allclose(xp.numpy(bank)[2], predict(alone, alone.data, steps), atol=1e-9)


def test_a_right_model_passes_at_its_level_and_a_wrong_one_fails(rng):
    """400 experiments at level .9: 90 % pass, within four deviations of a binomial; a model that lacks a mode never does."""
    u = rng.standard_normal((400, 1, 400))
    e = rng.standard_normal(u.shape)
    system = ssmid.ss(0.8, 1.0, 1.0)
    record = Record(u, ssmid.simulate(system, u[:, 0])[:, None] + e)
    test = residual_test(system, record, lags=20, level=0.9, state=np.zeros(1))
    for passed in (test.white, test.independent):
        assert abs(np.mean(passed) - 0.9) < 4 * (0.09 / 400) ** 0.5
    inside = np.abs(test.autocorrelation[..., 1:]) < test.bound
    assert abs(inside.mean() - 0.9) < 0.02
    lacking = residual_test(ssmid.ss(0.5, 1.0, 1.0), record, lags=20, state=np.zeros(1))
    assert np.mean(lacking.independent) < 0.01


def test_coloured_errors_of_a_right_system_are_not_white_but_independent_of_the_input(rng):
    u = rng.standard_normal((200, 1, 500))
    noise = lfilter([1.0], [1, -0.9], rng.standard_normal(u.shape))
    coloured = lfilter([1.0], [1, -0.8], u)
    system = ssmid.ss(0.8, 1.0, 1.0)
    test = residual_test(system, Record(coloured, ssmid.simulate(system, coloured[:, 0])[:, None] + noise), level=0.95, state=np.zeros(1))
    assert not test.white.any()
    assert np.mean(test.independent) > 0.85
    inside = np.abs(test.cross_correlation) < test.cross_bound[..., None]
    assert abs(inside.mean() - 0.95) < 0.03


def test_ljung_box_and_correlations_are_those_of_their_formulas(rng):
    u, y = rng.standard_normal((2, 100))
    test = residual_test(ssmid.ss(0.5, 1.0, 1.0), Record(u, y), lags=5, state=np.zeros(1))
    e = test.residuals[0] - test.residuals[0].mean()
    r = np.array([e[k:] @ e[: 100 - k] for k in range(6)]) / (e @ e)
    np.testing.assert_allclose(test.autocorrelation[0], r, atol=1e-12)
    np.testing.assert_allclose(test.ljung_box[0], 100 * 102 * np.sum(r[1:] ** 2 / (100 - np.arange(1, 6))), rtol=1e-10)
    v = u - u.mean()
    three = e[3:] @ v[:97] / np.linalg.norm(e) / np.linalg.norm(v)
    np.testing.assert_allclose(test.cross_correlation[0, 0, 5 + 3], three, atol=1e-12)


def test_validation_says_in_words_what_its_numbers_say(rng):
    u = rng.standard_normal(400)
    record = Record(u, lfilter([0, 1.0], [1, -0.8], u) + 0.1 * rng.standard_normal(400))
    said = validate(oe(record[:200], 1, 1), record[200:])
    assert said.simulation[0] > 90
    assert said.explain().endswith("Residuals white; unrelated to the inputs.")
    wrong = validate(ssmid.ss(0.2, 1.0, 1.0), record)
    assert "not white" in wrong.explain()
    assert "related to the inputs: the system is not fully described" in wrong.explain()


def test_messages_say_what_was_expected(rng):
    system, record = ssmid.ss(0.5, 1.0, 1.0), Record(rng.standard_normal(20), rng.standard_normal(20))
    with pytest.raises(ValueError, match="steps: expected a whole number of at least 1, or None"):
        predict(system, record, 0)
    with pytest.raises(TypeError, match="expected a fit of records or a StateSpace, got str"):
        predict("model", record)
    with pytest.raises(ValueError, match="expected a record of 1 outputs and 1 inputs"):
        predict(system, Record(np.ones((2, 9)), np.ones(9)))
    with pytest.raises(ValueError, match="level: expected a confidence between 0 and 1, got 95"):
        residual_test(system, record, level=95)
    with pytest.raises(ValueError, match="lags: expected 1 to 19"):
        residual_test(system, record, lags=20)
    constant = residual_test(system, Record(np.ones(20), np.zeros(20)), state=np.zeros(1))
    assert np.isfinite(constant.p_value).all()
