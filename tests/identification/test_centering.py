"""Means and trends: taken off in training, and off what is predicted later."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from ssmid import Record, arx, cva, fit_percent, n4sid, oe, predict
from ssmid.identification.centering import centering

VERBS = {
    "n4sid": lambda r, c: n4sid(r, 2, center=c),
    "cva": lambda r, c: cva(r, 2, center=c),
    "arx": lambda r, c: arx(r, 2, 2, center=c),
    "oe": lambda r, c: oe(r, 2, 2, center=c),
}


def record_of(rng, length: int, line=(0.0, 0.0), start=0.0) -> Record:
    u = rng.standard_normal(length) + 3
    y, _ = lfilter([0, 1.0, 0.5], [1, -1.6, 0.8], u - 3, zi=[start, -0.5 * start])
    return Record(u, y + line[0] + line[1] * np.arange(length))


def test_lines_of_least_squares(rng):
    y = rng.standard_normal((2, 50))
    found = centering(Record(rng.standard_normal(50), y), "trend")
    expected = np.polynomial.polynomial.polyfit(np.arange(50), y.T, 1).T
    np.testing.assert_allclose(found.outputs, expected, atol=1e-12)
    several = [Record(y[0, :20], y[1, :20]), Record(y[0, 20:], y[1, 20:])]
    np.testing.assert_allclose(centering(several, "mean").outputs, [[y[1].mean(), 0]], atol=1e-14)
    with pytest.raises(ValueError, match='center: expected "mean", "trend" or None'):
        centering(several, "median")


def test_what_is_taken_off_is_put_back(rng):
    record = record_of(rng, 60, (5.0, 0.1))
    for center in (None, "mean", "trend"):
        found = centering(record, center)
        np.testing.assert_allclose(found.restored(found.removed(record).outputs, record), record.outputs, atol=1e-12)


@pytest.mark.parametrize("verb", VERBS)
def test_a_mean_holds_for_later_records(rng, verb):
    train, test = record_of(rng, 400, (7.0, 0)), record_of(rng, 200, (7.0, 0), start=5.0)
    fit = VERBS[verb](train, "mean")
    assert float(fit_percent(test.outputs, predict(fit, test, None))[0]) > 97


@pytest.mark.parametrize("verb", ["n4sid", "cva"])
@pytest.mark.parametrize("steps", [None, 1, 3])
def test_trends_are_found_with_the_initial_state(rng, verb, steps):
    # starts far from rest: the free motion bends any line of least squares
    train = record_of(rng, 300, (5.0, 0.02), start=40.0)
    test = record_of(rng, 150, (-8.0, 0.3), start=-60.0)
    fit = VERBS[verb](train, "trend")
    for record in (train, test):
        np.testing.assert_allclose(predict(fit, record, steps), record.outputs, atol=1e-7)


@pytest.mark.parametrize("verb", ["arx", "oe"])
def test_trends_of_new_records_of_polynomial_models(rng, verb):
    train = record_of(rng, 400, (5.0, 0.02))
    fit = VERBS[verb](train, "trend")
    test = record_of(rng, 150, (-8.0, 0.3), start=-60.0)
    assert float(fit_percent(test.outputs, predict(fit, test, None))[0]) > 99
    # with a state of one's own the line is that of least squares of the record
    state = np.zeros(fit.system.order)
    np.testing.assert_allclose(predict(fit, train, None, state=state).mean(), train.outputs.mean(), atol=0.5)


def test_two_outputs_in_a_batch_each_with_its_line(rng, xp):
    one, two = record_of(rng, 200, (5.0, 0.02), 10.0), record_of(rng, 200, (-3.0, -0.1), -20.0)
    both = np.stack([np.concatenate([one.outputs, 2 * one.outputs]), np.concatenate([two.outputs, two.outputs - 4])])
    record = Record(xp.asarray(np.stack([one.inputs, two.inputs])), xp.asarray(both))
    fit = n4sid(record, 2, center="trend")
    for steps in (None, 1):
        np.testing.assert_allclose(xp.numpy(predict(fit, record, steps)), both, atol=1e-7)


def test_an_integrator_sees_the_same_inputs_in_training_and_later(rng):
    u = rng.standard_normal(300) + 0.2
    y = np.concatenate([[0.0], np.cumsum(u[:-1] - u.mean())])
    record = Record(u, y + 2)
    fit = n4sid(record, 1, center="trend", stable=True)
    np.testing.assert_allclose(predict(fit, record, None), record.outputs, atol=1e-5)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("center", ["mean", "trend"])
@pytest.mark.parametrize("level", [0.1, 3.3])
def test_a_constant_input_without_its_level_is_no_signal(rng, verb, center, level):
    """The mean of a constant is the constant to rounding; what rounding leaves is not taken for an input of 1e-16."""
    record = record_of(rng, 1000)
    held = Record(np.concatenate([record.inputs, np.full_like(record.inputs, level)]), record.outputs)
    assert not centering(held, center).removed(held).inputs[1].any()
    assert np.abs(VERBS[verb](held, center).system.B[:, 1]).max() < 1e-9
