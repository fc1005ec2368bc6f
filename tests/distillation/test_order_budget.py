"""States shared out over a bank, against every other way to share them out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid.distillation.bank import Bank
from ssmid.distillation.curves import error_curves
from ssmid.distillation.l2 import fit_l2
from ssmid.distillation.methods import method_named
from ssmid.distillation.options import Options
from ssmid.distillation.order_budget import allocate, measured_curves, sampled_orders
from ssmid.distillation.subspace import leading_subspace


def cost(curves, orders):
    return float(np.sum(curves[np.arange(len(curves)), orders] ** 2))


def exhaustive(curves, budget, multiple=1):
    """The least sum of squares of all allocations within the budget."""
    allowed = range(0, curves.shape[1], multiple)
    return min(cost(curves, np.array(o)) for o in product(allowed, repeat=len(curves)) if sum(o) <= budget)


def falling(seed, rows, columns, *, convex):
    rng = np.random.default_rng(seed)
    gains = rng.exponential(size=(rows, columns)) ** 2
    gains = np.sort(gains, axis=1)[:, ::-1] if convex else gains
    squares = gains.sum(1, keepdims=True) * 1.05 - np.cumsum(np.concatenate([np.zeros((rows, 1)), gains], axis=1), axis=1)
    return np.sqrt(squares)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), budget=st.integers(0, 16), multiple=st.integers(1, 2))
def test_optimal_on_convex_curves(seed, budget, multiple):
    curves = falling(seed, 3, 4, convex=True)
    orders = allocate(curves, budget, multiple=multiple)
    assert orders.sum() <= budget
    assert (orders % multiple == 0).all()
    assert cost(curves, orders) == pytest.approx(exhaustive(curves, budget, multiple), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), budget=st.integers(3, 16))
def test_on_any_curves_at_most_a_piece_from_optimal(seed, budget):
    curves = falling(seed, 3, 4, convex=False)
    orders = allocate(curves, budget)
    assert orders.sum() <= budget
    best, with_less = exhaustive(curves, budget), exhaustive(curves, budget - 3)
    assert best * (1 - 1e-12) <= cost(curves, orders) <= with_less * (1 + 1e-12)


def test_error_that_goes_up_again_is_not_paid_for():
    curves = np.array([[1.0, 0.5, 0.9, 0.9], [1.0, 1.2, 1.1, 0.1]])
    assert allocate(curves, 6).tolist() == [1, 3]
    assert allocate(curves, 3).tolist() == [1, 0]
    assert allocate(curves, 2).tolist() == [1, 0]


def test_least_and_its_rounding():
    curves = np.array([[1.0, 0.9, 0.9, 0.9, 0.9], [1.0, 0.5, 0.2, 0.1, 0.0], [0.0] * 5, [np.nan] * 5])
    assert allocate(curves, 5, least=1).tolist() == [1, 4, 0, 0]
    assert allocate(curves, 7, least=1, multiple=2).tolist() == [2, 4, 0, 0]
    with pytest.raises(ValueError, match="budget: expected at least 4, 2 for each of 2 filters, got 3"):
        allocate(curves, 3, least=2)


def test_what_is_left_over_is_spent_on_what_fits():
    curves = np.sqrt(np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 0.9, 0.9, 0.9]]))
    assert allocate(curves, 2).tolist() == [0, 1]
    assert allocate(curves, 4).tolist() == [3, 1]


def test_rounding_is_worth_no_state():
    assert allocate(np.array([[1.0, 1e-14, 1e-15, 0.0]]), 3).tolist() == [1]


def test_equal_filters_and_empty_banks():
    assert allocate(np.tile([1.0, 0.5, 0.1], (3, 1)), 4).tolist() == [2, 1, 1]
    assert allocate(np.zeros((0, 5)), 4).tolist() == []
    assert allocate(np.ones((2, 1)), 4).tolist() == [0, 0]


@pytest.mark.parametrize("multiple", [1, 4])
def test_more_states_never_do_less(multiple):
    curves = falling(5, 40, 32, convex=False)
    costs = [cost(curves, allocate(curves, budget, multiple=multiple)) for budget in range(0, 1400, 60)]
    assert (np.diff(costs) <= 0).all()


def test_many_rows_in_pieces(monkeypatch):
    curves = falling(3, 50, 12, convex=False)
    expected = allocate(curves, 200)
    monkeypatch.setattr("ssmid.distillation.order_budget._ROWS", 7)
    assert (allocate(curves, 200) == expected).all()


def test_measured_curves_are_those_of_fits():
    bank = Bank.of(ssmid.datasets.hyena_filters().taps[:5])
    options = Options(budget=20, max_order=8)
    subspace = leading_subspace(bank, 8)
    curves = measured_curves(bank, subspace, np.array([4, 1, 0, 2, 4]), method_named("l2"), options)
    t = np.arange(6 * bank.length)
    padded = np.pad(bank.strict, ((0, 0), (0, len(t) - bank.length)))
    for order in (1, 4, 8):
        fitted = fit_l2(bank, np.full(5, order), subspace, options)
        model = np.real(np.sum(fitted.residues[:, :, None] * fitted.poles[:, :, None] ** t, axis=1))
        error = np.linalg.norm(padded - model, axis=1) / np.linalg.norm(padded, axis=1)
        asked = order <= np.maximum(2 * np.array([4, 1, 0, 2, 4]), 4)
        assert (curves[asked, order] <= error[asked] * (1 + 2e-3)).all()
        assert curves[asked, order] == pytest.approx(np.minimum(error, curves[:, order - 1])[asked], rel=2e-3)
    assert (curves[1, 4:] == curves[1, 4]).all()
    assert curves[1, 4] <= curves[1, 1]
    assert (np.diff(curves, axis=1) <= 0).all()


def test_sampled_orders():
    assert sampled_orders(16, 1) == [1, 2, 3, 4, 6, 8, 12, 16]
    assert sampled_orders(20, 4) == [4, 8, 12, 16, 20]
    assert sampled_orders(3, 4) == []


def test_distilled_within_a_budget_better_than_uniformly():
    taps = ssmid.datasets.hyena_filters().taps[:16]
    shared_out, uniform = ssmid.distill(taps, budget=64, max_order=32), ssmid.distill(taps, 4)
    orders = np.asarray(shared_out.order)
    assert orders.sum() <= 64
    assert orders.min() < 4 < orders.max()
    assert np.sum(shared_out.error**2) < 0.95 * np.sum(uniform.error**2)


def test_budget_is_over_all_chunks():
    taps = ssmid.datasets.hyena_filters().taps[:9]
    whole = ssmid.distill(taps, budget=40, max_order=16, method="balanced")
    parts = ssmid.distill(taps, budget=40, max_order=16, method="balanced", chunk=4)
    assert (np.asarray(whole.order) == np.asarray(parts.order)).all()
    curves = error_curves(bank := Bank.of(taps), leading_subspace(bank, 16, "tight"))
    assert (np.asarray(whole.order) == allocate(curves, 40)).all()


def test_filters_without_recurrence_get_no_states(rng):
    taps = np.stack([0.5 ** np.arange(50), np.zeros(50), np.full(50, np.nan), rng.standard_normal(50) * 0.95 ** np.arange(50)])
    fit = ssmid.distill(taps, budget=9, max_order=8)
    orders = np.asarray(fit.order)
    assert orders[0] == 1
    assert orders[1] == orders[2] == 0
    assert orders[3] == 8
    assert fit.error[0] < 1e-10
    assert np.isnan(fit.error[2])


def test_multiples_of_a_budget():
    fit = ssmid.distill(ssmid.datasets.hyena_filters().taps[:6], budget=30, multiple=4, max_order=16, method="balanced")
    orders = np.asarray(fit.order)
    assert (orders % 4 == 0).all()
    assert 24 <= orders.sum() <= 30
    assert fit.system.poles.shape[-1] % 4 == 0


def test_wrong_budgets():
    with pytest.raises(ValueError, match="budget: expected an integer of at least 1, got 0"):
        ssmid.distill(np.ones((2, 9)), budget=0)
    with pytest.raises(ValueError, match="got order and budget"):
        ssmid.distill(np.ones((2, 9)), 4, budget=8)
