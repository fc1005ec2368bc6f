"""Figures of a distilled model: what the artists hold is what the certificates say; the style stays inside."""

from __future__ import annotations

import dataclasses

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import ssmid
from ssmid import Distillation, ImpulseResponse, Modal, plot
from ssmid.distillation.curves import OrderCurves, order_curves

pytestmark = pytest.mark.usefixtures("style_left_as_it_was")


@pytest.fixture(scope="module")
def filters() -> np.ndarray:
    rng = np.random.default_rng(5)
    t = np.arange(80)
    decay, angle = rng.uniform(0.85, 0.97, (5, 3, 1)), rng.uniform(0, 3, (5, 3, 1))
    h = (decay**t * np.cos(angle * t)).sum(1) + 0.02 * rng.standard_normal((5, 80)) * 0.95**t
    h[3] = 0
    return h


@pytest.fixture(scope="module")
def model(filters) -> dict[str, Distillation]:
    return {"net.0.h": ssmid.distill(filters[:2], 4), "net.1.h": ssmid.distill(filters, 2)}


@pytest.fixture(scope="module")
def curves(filters) -> OrderCurves:
    return order_curves(filters[[0, 1, 2, 4]], 8)


def labels(ax) -> list[str]:
    return ax.get_legend_handles_labels()[1]


def lines(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in ax.get_lines()}


@pytest.mark.parametrize("of", ["error", "order", "ratio"])
def test_layers_by_channels(model, of):
    ax = plot.distilled_channels(model, of)
    values = np.ma.getdata(ax.collections[0].get_array()).reshape(2, 5)
    mask = np.ma.getmaskarray(ax.collections[0].get_array()).reshape(2, 5)
    np.testing.assert_array_equal(mask, [[False, False, True, True, True], [False, False, False, True, False]])
    first, second = (d.certificate for d in model.values())
    expected = {"error": (first.l2, second.l2), "order": ([4, 4], [2] * 5), "ratio": (first.ratio, second.ratio)}[of]
    np.testing.assert_array_equal(values[0, :2], expected[0])
    np.testing.assert_array_equal(values[1, [0, 1, 2, 4]], np.asarray(expected[1])[[0, 1, 2, 4]])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0", "1"]
    assert ax.get_ylim() == (2, 0)
    ax.figure.canvas.draw()


def test_a_map_of_what_is_not_there(model):
    with pytest.raises(ValueError, match='of: expected "error", "order" or "ratio", got \'hinf\''):
        plot.distilled_channels(model, "hinf")


def test_hankel_values_and_the_orders_chosen(model):
    ax = plot.distilled_spectrum(model["net.1.h"])
    sigma = model["net.1.h"].certificate.sigma[[0, 1, 2, 4]]
    values, cut = ax.get_lines()
    np.testing.assert_allclose(values.get_ydata(), np.median(sigma / sigma[:, :1], axis=0))
    assert labels(ax) == ["middle 80 %", "Hankel values, median of 4", "order 2"]
    assert cut.get_xdata()[0] == 2.5
    assert labels(plot.distilled_spectrum(model))[2] == "orders 2 to 4, median 2"


def test_one_filter_before_and_after(model, filters):
    ax = plot.distilled_filter(filters[2], model["net.1.h"], 2)
    found = lines(ax)
    np.testing.assert_array_equal(found["filter"], filters[2])
    system = model["net.1.h"].system
    after = np.real(np.sum(system.residues[2] * system.poles[2] ** np.arange(79)[:, None], axis=-1))
    np.testing.assert_allclose(found["recurrence"], np.r_[filters[2, 0], after], atol=1e-12)
    (residual,) = (values for name, values in found.items() if name.startswith("residual"))
    np.testing.assert_allclose(residual, found["filter"] - found["recurrence"], atol=1e-12)
    spectrum = lines(plot.distilled_filter(filters[2], model["net.1.h"], 2, of="spectrum"))
    assert list(spectrum) == ["filter", "recurrence", "residual"]
    expected = 20 * np.log10(np.abs(np.fft.rfft(residual, 160)))[1:]
    np.testing.assert_allclose(spectrum["residual"], expected, atol=1e-6)
    with pytest.raises(ValueError, match='of: expected "taps" or "spectrum", got \'phase\''):
        plot.distilled_filter(filters[2], model["net.1.h"], 2, of="phase")
    for of in ("taps", "spectrum"):
        with pytest.raises(ValueError, match=r"expected taps and an index of one filter, got taps \(80,\) and recurrences \(5,\)"):
            plot.distilled_filter(filters[2], model["net.1.h"], of=of)
        with pytest.raises(ValueError, match=r"of one filter, got taps \(5, 80\)"):
            plot.distilled_filter(filters, model["net.1.h"], 2, of=of)


def test_filters_that_are_not_there_or_took_no_recurrence(filters):
    broken = filters.copy()
    broken[1, 3] = np.nan
    fit = ssmid.distill(broken, 2)
    with pytest.raises(ValueError, match="index: expected a filter that took a recurrence, got 1, of which"):
        plot.distilled_filter(broken[1], fit, 1)
    for index in (5, (-6,), (0, 0)):
        with pytest.raises(ValueError, match=r"index: expected a place in the batch \(5,\), got"):
            plot.distilled_filter(filters[0], fit, index)


def test_what_is_no_distillation_or_one_where_another_picture_is_meant(model, filters):
    with pytest.raises(TypeError, match=r"expected what ssmid\.distill returns, after the taps of a filter, got int"):
        plot.distilled_filter(model["net.1.h"], 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"got a Distillation: plot\.distilled_spectrum draws it"):
        plot.hankel_spectrum(model["net.1.h"])


def test_poles_one_by_one_and_as_a_density(model):
    poles = np.concatenate([model["net.0.h"].system.poles.ravel(), model["net.1.h"].system.poles[[0, 1, 2, 4]].ravel()])
    upper = poles[poles.imag >= 0]
    (points,) = (line for line in plot.distilled_poles(model).get_lines() if line.get_marker() == ".")
    drawn = np.asarray(points.get_xdata()) + 1j * np.asarray(points.get_ydata())
    np.testing.assert_allclose(np.sort_complex(drawn), np.sort_complex(upper))
    memory = plot.distilled_poles(model, of="memory")
    (points,) = memory.get_lines()
    np.testing.assert_allclose(np.exp(-1 / np.asarray(points.get_ydata(), float)), np.abs(upper))
    assert memory.get_yscale() == "log"
    rng = np.random.default_rng(0)
    many = Modal(rng.uniform(0.1, 0.99, (2500, 2)) * np.exp(1j * rng.uniform(0, 3, (2500, 2))), np.ones((2500, 2)))
    one = model["net.0.h"].certificate
    fields = {f.name: np.asarray(getattr(one, f.name))[np.zeros(2500, int)] for f in dataclasses.fields(one)}
    bank = dataclasses.replace(model["net.0.h"], system=many, order=2, certificate=type(one)(**fields), converged=np.ones(2500, bool))
    for of in ("plane", "memory"):
        ax = plot.distilled_poles(bank, of=of)
        assert np.nansum(np.ma.filled(ax.collections[0].get_array(), np.nan)) == 5000
        ax.figure.canvas.draw()
    with pytest.raises(ValueError, match='of: expected "plane" or "memory", got \'line\''):
        plot.distilled_poles(model, of="line")


def test_the_error_over_the_order_and_its_bound(model, curves):
    ax = plot.distilled_orders(model)
    sigma = [model["net.0.h"].certificate.sigma, model["net.1.h"].certificate.sigma[[0, 1, 2, 4]]]
    count = min(s.shape[1] for s in sigma)
    both = np.concatenate([s[:, :count] / s[:, :1] for s in sigma])
    bound = lines(ax)["bound $\\sigma_{r+1} / \\sigma_1$"]
    np.testing.assert_allclose(bound, np.median(both, axis=0))
    places = {float(line.get_xdata()[0]): float(line.get_ydata()[0]) for line in ax.get_lines() if line.get_marker() == "o"}
    reached = model["net.1.h"].certificate.hankel[[0, 1, 2, 4]] / model["net.1.h"].certificate.sigma[[0, 1, 2, 4], 0]
    assert places[2.0] == pytest.approx(np.median(reached))
    assert places[2.0] >= bound[2]
    assert set(places) == {2.0, 4.0}
    l2 = lines(plot.distilled_orders(model, curves, of="l2"))["balanced truncation"]
    np.testing.assert_allclose(l2, np.median(curves.l2, axis=0))
    longer = lines(plot.distilled_orders(model, curves))["bound $\\sigma_{r+1} / \\sigma_1$"]
    np.testing.assert_allclose(longer, np.median(curves.bound, axis=0))
    with pytest.raises(ValueError, match="got 'l2' without curves"):
        plot.distilled_orders(model, of="l2")


def test_what_a_tolerance_costs(curves):
    ax = plot.distilled_cost(curves)
    drawn = {}
    for line in ax.get_lines():
        drawn |= dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    for tol, cost in drawn.items():
        least = [next((r for r, e in enumerate(curve) if e <= tol), 8) for curve in curves.l2]
        assert cost == 4 * sum(least)
    names = labels(ax)
    assert names == ["all filters reach it", "some do not: at least"]
    sure = np.asarray(ax.get_lines()[0].get_xdata())
    assert sure.min() >= curves.l2.min(axis=1).max()


def test_own_axes_are_used(model, filters, curves):
    for draw in (
        lambda ax: plot.distilled_channels(model, ax=ax), lambda ax: plot.distilled_spectrum(model, ax=ax),
        lambda ax: plot.distilled_filter(filters[0], model["net.0.h"], 0, ax=ax), lambda ax: plot.distilled_poles(model, ax=ax),
        lambda ax: plot.distilled_filter(filters[0], model["net.0.h"], (0,), of="spectrum", ax=ax),
        lambda ax: plot.distilled_orders(model, ax=ax), lambda ax: plot.distilled_cost(curves, ax=ax),
    ):  # fmt: skip
        ax = plt.subplots()[1]
        assert draw(ax) is ax
        assert ax.has_data()
        plt.close("all")


@pytest.mark.parametrize("h", [np.zeros((2, 8)), np.full((1, 8), np.nan), np.array([1.0, 0.5, 0.25, 0.125])], ids=["zero", "nan", "single"])
def test_edges(h):
    bank = ssmid.distill(ImpulseResponse(h), 1)
    for draw in (plot.distilled_channels, plot.distilled_spectrum, plot.distilled_poles, plot.distilled_orders):
        draw(bank).figure.canvas.draw()
    plot.distilled_channels(bank, "order").figure.canvas.draw()
    plot.distilled_poles(bank, of="memory").figure.canvas.draw()
