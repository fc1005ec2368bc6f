"""Records nobody would call good: every verb gives a model that says what it is worth, or one clear ValueError."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from ssmid import Record, armax, arx, box_jenkins, cva, fit_percent, moesp, n4sid, oe, okid, pem, predict, response_confidence

T = 120
MODELS = {
    "n4sid": lambda r: n4sid(r, 2),
    "moesp": lambda r: moesp(r, 2, center="mean"),
    "cva": lambda r: cva(r, 2, center="trend", stable=True),
    "arx": lambda r: arx(r, 2, 2),
    "armax": lambda r: armax(r, 2, 2, 2, stable=True, iterations=5),
    "oe": lambda r: oe(r, 2, 2, drift=1, iterations=5),
    "box_jenkins": lambda r: box_jenkins(r, 2, 1, 1, 2, iterations=5),
    "pem": lambda r: pem(r, 2, iterations=3),
}


@pytest.fixture
def signals(rng) -> tuple[np.ndarray, np.ndarray]:
    u = rng.standard_normal(T)
    return u, lfilter([0, 1.0, 0.5], [1, -1.2, 0.6], u) + 0.05 * rng.standard_normal(T)


def worth(fit, record) -> float:
    return float(np.min(fit_percent(record.outputs, predict(fit, record, None))))


@pytest.mark.parametrize("verb", MODELS)
def test_outputs_that_are_zero(signals, verb):
    record = Record(signals[0], np.zeros(T))
    fit = MODELS[verb](record)
    assert float(fit.error) == 0
    np.testing.assert_array_equal(predict(fit, record, 3), np.zeros((1, T)))


@pytest.mark.parametrize("verb", MODELS)
def test_nothing_in_and_nothing_out(verb):
    record = Record(np.zeros(T), np.zeros(T))
    np.testing.assert_array_equal(predict(MODELS[verb](record), record, 1), np.zeros((1, T)))


@pytest.mark.parametrize("verb", MODELS)
@pytest.mark.parametrize("unit", [(1.0, 1e300), (1.0, 1e-300), (1e-300, 1.0), (1e150, 1e-100)])
def test_units(signals, verb, unit):
    u, y = signals
    plain, scaled = Record(u, y), Record(unit[0] * u, unit[1] * y)
    fit, same = MODELS[verb](scaled), MODELS[verb](plain)
    assert float(fit.error) == pytest.approx(float(same.error), rel=1e-6)
    assert worth(fit, scaled) == pytest.approx(worth(same, plain), abs=1e-4)


@pytest.mark.parametrize("verb", ["arx", "armax", "oe", "pem"])
def test_confidence_where_variances_are_beyond_numbers(signals, verb):
    u, y = signals
    # squares of 1e300 are not numbers: unknown, without a warning
    known = response_confidence(MODELS[verb](Record(u, y)), [0.5])
    large = response_confidence(MODELS[verb](Record(u, 1e300 * y)), [0.5])
    np.testing.assert_allclose(large.values / 1e300, known.values, rtol=1e-5)
    assert np.isnan(large.modulus).all() or np.allclose(large.modulus / 1e300, known.modulus, rtol=1e-4)
    small = response_confidence(MODELS[verb](Record(u.astype(np.float32), y.astype(np.float32))), [0.5])
    assert small.axes.dtype == small.modulus.dtype == np.float32
    assert small.values.dtype == np.complex64


@pytest.mark.parametrize("verb", MODELS)
def test_one_bad_experiment_spoils_its_element_only(signals, verb):
    u, y = signals
    inputs, outputs = np.stack([u, u, u])[:, None], np.stack([y, y, y])[:, None]
    # in the second of two experiments, where Python's max of the errors would not see it
    outputs[1, 0, 90] = np.nan
    fit = MODELS[verb]([Record(inputs[..., :70], outputs[..., :70]), Record(inputs[..., 70:], outputs[..., 70:])])
    alone = MODELS[verb]([Record(u[:70], y[:70]), Record(u[70:], y[70:])])
    np.testing.assert_array_equal(np.isnan(fit.error), [False, True, False])
    assert not fit.converged[1]
    assert np.isnan(fit.system.A[1]).all()
    np.testing.assert_allclose(fit.system.A[0], alone.system.A, atol=1e-6)


@pytest.mark.parametrize("verb", [*MODELS, "okid"])
def test_batches_of_none(signals, verb):
    u, y = (np.zeros((0, 1, T)) for _ in range(2))
    with pytest.raises(ValueError, match=r"at least one output of one system, got outputs \(0, 1, 120\)"):
        (MODELS | {"okid": lambda r: okid(r, 5)})[verb](Record(u, y))


@pytest.mark.parametrize("verb", ["oe", "box_jenkins", "armax", "arx"])
def test_outputs_that_stand_still(signals, verb):
    # a pole on the circle is where the start of these lies: it ends inside
    record = Record(signals[0], np.full(T, 3.0))
    fit = (MODELS | {"oe": lambda r: oe(r, 2, 2)})[verb](record)
    assert fit.system.A.shape[-1] >= 2
    if verb == "oe":
        assert fit.stable


@pytest.mark.parametrize("verb", MODELS)
def test_time_without_unit_and_numbers_that_are_whole(signals, verb):
    u, y = signals
    record = Record((u > 0).astype(int), np.round(100 * y).astype(int), True)
    fit = MODELS[verb](record)
    assert fit.system.dt is True
    assert np.isfinite(float(fit.error))


@pytest.mark.parametrize("verb", MODELS)
def test_more_inputs_than_samples(rng, verb):
    with pytest.raises(ValueError, match="samples"):
        MODELS[verb](Record(rng.standard_normal((30, 20)), rng.standard_normal(20)))


@pytest.mark.parametrize("verb", MODELS)
def test_time_series(signals, verb):
    record = Record(None, signals[1])
    fit = MODELS[verb](record)
    assert fit.system.inputs == 0
    assert predict(fit, record, 2).shape == (1, T)
