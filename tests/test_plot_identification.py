"""Figures of models beside their data: what the artists hold is what was asked for; the style stays inside."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.signal import lfilter

from ssmid import FrequencyResponse, Record, StateSpace, arx, frequency_response, plot, predict, residual_test

SYSTEM = StateSpace([[0.9]], [[1.0]], [[2.0]], dt=True)


pytestmark = pytest.mark.usefixtures("style_left_as_it_was")


@pytest.fixture
def record(rng) -> Record:
    u = rng.standard_normal(200)
    return Record(u, lfilter([0, 2.0], [1, -0.9], u) + 0.1 * rng.standard_normal(200), dt=0.01)


def lines(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


# ---------------------------------------------------------------- frequency responses


def test_a_response_its_model_and_what_is_between_them():
    omega = np.linspace(0.1, 3, 30)
    truth = frequency_response(SYSTEM, omega)
    measured = FrequencyResponse(1.1 * truth.values, omega, True)
    ax = plot.frequency_fit(measured, SYSTEM)
    found = lines(ax)
    np.testing.assert_allclose(found["data"], 20 * np.log10(1.1 * np.abs(truth.values)), atol=1e-9)
    np.testing.assert_allclose(found["model, order 1"], 20 * np.log10(np.abs(truth.values)), atol=1e-9)
    # 0.1 of 1.1
    np.testing.assert_allclose(found["difference (9.1 % in l2)"], 20 * np.log10(0.1 * np.abs(truth.values)), atol=1e-9)
    assert ax.get_ylabel() == "Magnitude (dB)"


def test_the_channel_of_the_largest_error_is_shown(rng):
    omega = np.linspace(0.1, 3, 20)
    system = StateSpace([[0.5]], rng.standard_normal((1, 2)), rng.standard_normal((2, 1)), dt=True)
    values = np.array(frequency_response(system, omega).values)
    values[1, 0] += 5
    response = FrequencyResponse(values, omega, True)
    np.testing.assert_allclose(lines(plot.frequency_fit(response, system))["data"], 20 * np.log10(np.abs(values[1, 0])), atol=1e-9)
    other = lines(plot.frequency_fit(response, system, channel=(0, 1)))["data"]
    np.testing.assert_allclose(other, 20 * np.log10(np.abs(values[0, 1])), atol=1e-9)


# ---------------------------------------------------------------- records


def test_a_record_and_its_simulation(record):
    ax = plot.simulation(record, SYSTEM)
    found = lines(ax)
    np.testing.assert_array_equal(found["measured"], record.outputs[0])
    modelled = predict(SYSTEM, record, None)[0]
    (name,) = (label for label in found if label.startswith("simulation (fit "))
    np.testing.assert_array_equal(found[name], modelled)
    np.testing.assert_array_equal(found["difference"], record.outputs[0] - modelled)
    share = np.linalg.norm(record.outputs[0] - modelled) / np.linalg.norm(record.outputs[0] - record.outputs[0].mean())
    assert name == f"simulation (fit {100 * (1 - share):.1f} %)"


def test_prediction_and_time(record):
    fit = arx(record, 1, 1)
    ax = plot.simulation(record, fit, steps=1)
    (name,) = (label for label in lines(ax) if label.startswith("1-step prediction"))
    np.testing.assert_array_equal(lines(ax)[name], predict(fit, record, 1)[0])
    # 200 samples of 10 ms
    assert ax.get_xlabel() == "Time (s)"
    assert ax.get_lines()[0].get_xdata()[-1] == pytest.approx(1.99)
    assert plot.simulation(record, fit, seconds=False).get_lines()[0].get_xdata()[-1] == 199
    for unknown in (True, 1):
        assert plot.simulation(Record(record.inputs, record.outputs, unknown), SYSTEM).get_xlabel() == "Time (samples)"


def test_one_of_several_outputs(record):
    both = Record(record.inputs, np.concatenate([record.outputs, -record.outputs]), record.dt)
    system = StateSpace(SYSTEM.A, SYSTEM.B, [[2.0], [-2.0]], dt=True)
    ax = plot.simulation(both, system, output=1)
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), -record.outputs[0])
    assert ax.get_ylabel() == "Output 1"
    with pytest.raises(ValueError, match="output: expected 0 to 1, got 2"):
        plot.simulation(both, system, output=2)
    batch = Record(np.stack([record.inputs] * 3), np.stack([record.outputs] * 3))
    with pytest.raises(ValueError, match=r"one record, got a batch of \(3,\)"):
        plot.simulation(batch, SYSTEM)


@pytest.mark.parametrize("pole", [1.05, 1e10])
def test_a_diverging_model_leaves_the_record_to_be_seen(record, pole):
    ax = plot.simulation(record, StateSpace([[pole]], [[1.0]], [[1.0]], dt=True))
    low, high = ax.get_ylim()
    y = record.outputs
    assert low <= y.min()
    assert high >= y.max()
    assert high - low < 3.5 * np.ptp(y)


def test_an_output_far_from_zero_is_not_pressed_flat(record):
    warm = Record(record.inputs, record.outputs + 1e4, record.dt)
    low, high = plot.simulation(warm, arx(warm, 1, 1, center="mean")).get_ylim()
    assert high - low < 1.3 * np.ptp(record.outputs)


def test_an_output_that_does_not_change(record):
    low, high = plot.simulation(Record(record.inputs, np.full(200, 3.0)), SYSTEM).get_ylim()
    assert low < 3 < high


# ---------------------------------------------------------------- residuals


def test_what_is_left_over_lag_by_lag(record):
    test = residual_test(SYSTEM, record, lags=10)
    ax = plot.residual_correlation(test)
    (points,) = (line for line in ax.get_lines() if line.get_marker() == ".")
    np.testing.assert_array_equal(points.get_xdata(), np.arange(1, 11))
    np.testing.assert_array_equal(points.get_ydata(), test.autocorrelation[0, 1:])
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((-test.bound, test.bound))
    assert ax.get_legend_handles_labels()[1] == ["99 % of white residuals", "residuals of output 0"]
    with pytest.raises(ValueError, match="output: expected 0 to 0, got 1"):
        plot.residual_correlation(test, output=1)


def test_arguments_in_the_wrong_place(record):
    with pytest.raises(TypeError, match="record: expected a Record, and after it the model, got StateSpace"):
        plot.simulation(SYSTEM, record)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"test: expected what ssmid.residual_test\(model, record\) returns, got StateSpace"):
        plot.residual_correlation(SYSTEM)  # pyright: ignore[reportArgumentType]


def test_own_axes_are_used(record):
    ax = plt.subplots()[1]
    assert plot.simulation(record, SYSTEM, ax=ax) is ax
    assert plot.residual_correlation(residual_test(SYSTEM, record), ax=ax) is ax
