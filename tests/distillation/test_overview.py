"""A distilled model as rows of filters, and what is read off Hankel values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import ssmid
from ssmid.distillation.overview import bound_at, complete, joined, least_orders, memory, overview, relative_error, short_names, spread


@pytest.fixture(scope="module")
def filters() -> np.ndarray:
    t = np.arange(48)
    h = np.stack([0.9**t * np.cos(w * t) + 0.5 * 0.7**t for w in (0.1, 0.9, 2.0, 2.9)]).reshape(2, 2, 48)
    h[0, 1] = 0
    h[1, 0, 7] = np.inf
    return h


def test_a_layer_in_a_row(filters, xp):
    if xp.name == "strict":
        pytest.skip("fits are not made over array_api_strict")
    bank = ssmid.distill(xp.asarray(filters), 2)
    (layer,) = overview({"a.b": bank})
    certificate = bank.certificate
    assert (layer.name, layer.batch, layer.length, layer.count) == ("a.b", (2, 2), 48, 4)
    assert layer.order.tolist() == [2, 0, 0, 2]
    assert layer.fitted.tolist() == [True, False, False, True]
    assert (layer.past, layer.states, layer.padded) == (4 * 47, 4, 8)
    np.testing.assert_array_equal(layer.l2, xp.numpy(certificate.l2).ravel())
    largest = xp.numpy(certificate.sigma)[..., 0].ravel()[[0, 3]]
    np.testing.assert_allclose(layer.hankel[[0, 3]], xp.numpy(certificate.hankel).ravel()[[0, 3]] / largest)
    assert layer.index(2) == (1, 0)
    assert set(layer.ranked()) == {0, 3}
    assert (np.diff(layer.l2[layer.ranked()]) >= 0).all()
    assert np.isfinite(layer.poles).sum(-1).tolist() == [2, 0, 0, 2]
    (single,) = overview(ssmid.distill(xp.asarray(filters[0, 0]), 2))
    assert (single.batch, single.index(0), single.count) == ((), (), 1)
    np.testing.assert_allclose(single.l2, layer.l2[:1])


def test_layers_joined(filters):
    layers = overview({"a": ssmid.distill(filters, 2), "b": ssmid.distill(filters[0, 0], 5)})
    sigma = joined(layers, "sigma")
    assert len(sigma) == 3
    np.testing.assert_array_equal(sigma[:, 0], 1)
    width = layers[0].sigma.shape[1]
    assert width < layers[1].sigma.shape[1]
    assert np.isnan(sigma[:2, width:]).all()
    assert complete(sigma).shape == (3, width)
    np.testing.assert_array_equal(bound_at(sigma, 1), sigma[:, 1])
    assert np.isnan(bound_at(sigma, 99)).all()
    np.testing.assert_array_equal(joined(layers, "order"), [2, 2, 5])


def test_values_that_are_not_known_are_not_zeros(rng):
    """A tolerance is met with few Hankel values of one filter and needs many of another; so do the orders of two chunks."""
    t = np.arange(200)
    taps = np.stack([0.5**t, np.zeros(200), rng.standard_normal(200) * 0.99**t])
    bank = ssmid.distill(taps, tol=0.3, max_order=64)
    (layer,) = overview(bank)
    assert layer.sigma.shape[1] == 65
    few = np.isfinite(layer.sigma[0]).sum()
    assert layer.order[0] < few < 65
    assert np.isnan(layer.sigma[0, few:]).all()
    assert (layer.sigma[1] == 0).all()
    assert (layer.sigma[2] > 0).all()
    assert complete(layer.sigma).shape == (3, few)
    (layer,) = overview(ssmid.distill(taps, np.array([1, 1, 9]), chunk=1))
    assert np.isfinite(layer.sigma).sum(axis=1).tolist() == [2, 10, 10]


def test_which_filters_missed_the_tolerance(filters):
    bank = ssmid.distill(filters, 1)
    for norm in ("l2", "hankel", "hinf", "l1"):
        error = relative_error(bank.certificate, norm)
        largest = {"hankel": bank.certificate.sigma[..., 0], "hinf": bank.certificate.filter_hinf, "l1": bank.certificate.filter_l1}
        if norm != "l2":
            np.testing.assert_allclose(error[1, 1] * largest[norm][1, 1], getattr(bank.certificate, norm)[1, 1])
        (layer,) = overview(bank, float(error[1, 1]) * (1 - 1e-9), norm)
        np.testing.assert_array_equal(layer.missed, [error[0, 0] > error[1, 1] * (1 - 1e-9), False, False, True])
    converged = np.zeros((2, 2), bool)
    (layer,) = overview(dataclasses.replace(bank, certificate=dataclasses.replace(bank.certificate, converged=converged)), 1e-9)
    assert layer.stopped.sum() == 0
    (layer,) = overview(dataclasses.replace(bank, certificate=dataclasses.replace(bank.certificate, converged=converged)))
    assert layer.stopped.tolist() == [True, False, False, True]


def test_no_layers():
    with pytest.raises(ValueError, match="layers: expected at least one, got none"):
        overview({})


def test_memory_of_poles():
    poles = np.array([0.5, 0.9j, -0.99, 1.0, 1.2, 0.0])
    decay = np.abs(poles[:3]) ** memory(poles)[:3]
    np.testing.assert_allclose(decay, np.exp(-1))
    assert memory(poles)[3:].tolist() == [np.inf, np.inf, 0]


def test_least_orders_of_bounds(rng):
    sigma = np.sort(rng.uniform(0, 1, (20, 5)))[:, ::-1] / 1.0
    sigma[3, 2:] = np.nan
    least, known = least_orders(sigma, 0.4)
    for values, order, sure in zip(sigma, least, known, strict=True):
        values = values[np.isfinite(values)]
        below = [r for r, value in enumerate(values) if value <= 0.4]
        assert (order, sure) == ((below[0], True) if below else (len(values), False))


def test_names_of_layers():
    assert short_names(["a.0.b", "a.1.b", "a.1.1.b"]) == (["0", "1", "1.1"], "a.*.b")
    assert short_names(["x", "y"]) == (["x", "y"], "")
    assert short_names(["model.f"]) == (["model.f"], "")
    assert short_names(["h.0", "h.1"]) == (["0", "1"], "h.*")


def test_quantiles_pass_over_what_is_not_finite(rng):
    values = rng.standard_normal((50, 3))
    values[:10, 0] = np.nan
    values[:, 2] = np.nan
    found = spread(values)
    np.testing.assert_allclose(found[:, 0], np.quantile(values[10:, 0], [0.1, 0.5, 0.9]))
    np.testing.assert_allclose(found[:, 1], np.quantile(values[:, 1], [0.1, 0.5, 0.9]))
    assert np.isnan(found[:, 2]).all()
