"""Figures of experiments: what the artists hold is what came out, and what is not known is not drawn."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest

from ssmid import plot

pytestmark = pytest.mark.usefixtures("style_left_as_it_was")


def named(ax) -> dict:
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


def test_a_sweep_draws_medians_ranges_and_what_was_published():
    series = {"rtf": {256: [0.9, 0.5, 0.6], 64: [0.3, None, 0.1]}, "s4": {64: 0.25, 256: float("nan")}, "failed": {64: None}}
    published = {"s4": {64: 0.293, 256: 0.35}, "mega": {64: 0.5}}
    ax = plot.sweep(series, published=published, levels={"chance": 0.016})
    lines = named(ax)
    assert list(lines) == ["rtf", "s4", "s4, published", "mega, published", "chance"]
    np.testing.assert_allclose(np.transpose(lines["rtf"].get_data()), [[64, 0.2], [256, 0.6]])
    np.testing.assert_array_equal(np.transpose(lines["s4"].get_data()), [[64, 0.25]])
    (ranges,) = ax.collections
    np.testing.assert_array_equal([segment[:, 1] for segment in ranges.get_segments()], [[0.1, 0.3], [0.5, 0.9]])
    assert lines["s4"].get_color() == lines["s4, published"].get_color() != lines["rtf"].get_color()
    assert lines["s4, published"].get_markerfacecolor() == "white"
    assert set(lines["chance"].get_ydata()) == {0.016}
    assert ax.get_xscale() == "log"
    assert ax.get_yscale() == "linear"
    np.testing.assert_array_equal(ax.get_xticks(), [64, 256])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["64", "256"]


def test_ticks_do_not_stand_upon_one_another():
    ax = plot.sweep({"a": dict.fromkeys((1, 16, 256, 384, 512, 1024), 1.0)})
    np.testing.assert_array_equal(ax.get_xticks(), [1, 16, 256, 512, 1024])


def test_a_sweep_of_one_size_or_of_nothing():
    ax = plot.sweep({"kl": {16: 1e-3}}, scale="log")
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert not plot.sweep({}, scale="log").get_lines()
    with pytest.raises(ValueError, match='scale: expected "linear" or "log", got \'db\''):
        plot.sweep({}, scale="db")


def test_learning_curves_have_a_colour_a_model_and_a_line_a_seed():
    def curve(rate):
        return [{"step": step, "bits": rate / step, "loss": 1.0} for step in (1, 2, 3)] + [{"step": 4, "bits": None}]

    ax = plot.learning_curves({"hyena": [curve(3), curve(2)], "rtf": [curve(1)]}, "bits", per_step={"hyena": 100, "rtf": 10})
    first, second, third = ax.get_lines()
    np.testing.assert_array_equal(first.get_xdata(), [100, 200, 300])
    np.testing.assert_array_equal(second.get_ydata(), [2, 1, 2 / 3])
    np.testing.assert_array_equal(third.get_xdata(), [10, 20, 30])
    assert first.get_color() == second.get_color() != third.get_color()
    assert ax.get_legend_handles_labels()[1] == ["hyena", "rtf"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("Tokens", "Bits", "log")
    ax = plot.learning_curves({"a": [[{"step": 5, "accuracy": 0.5}]]}, "accuracy")
    assert (ax.get_xlabel(), ax.get_yscale()) == ("Step", "linear")
