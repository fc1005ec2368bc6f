"""Orders given filter by filter, orders above the noise, and fits of many orders put together."""

from __future__ import annotations

import numpy as np
import pytest

import ssmid
from ssmid.distillation.bank import Bank
from ssmid.distillation.fitted import taken_fits
from ssmid.distillation.methods import method_named
from ssmid.distillation.options import Options
from ssmid.distillation.orders import fit_by_order, held, joined_fits, no_states, of_width, rounded_up
from ssmid.distillation.subspace import leading_subspace


def noisy(rng, orders, length, noise):
    """Filters of so many states each, which have died out before the end, in white noise."""
    t, rows = np.arange(length), []
    for order in orders:
        angles = np.linspace(0.3, 2.8, order // 2)[:, None]
        row = np.sum(0.9**t * np.cos(angles * t + 1), axis=0) + (order % 2) * 0.85**t
        rows.append(row + noise * rng.standard_normal(length))
    return np.array(rows)


@pytest.mark.parametrize("noise", [1e-2, 1e-5])
def test_order_where_the_noise_begins(rng, noise):
    orders = [1, 2, 3, 4, 6, 8]
    fit = ssmid.distill(noisy(rng, orders, 400, noise), "noise", max_order=24)
    assert np.asarray(fit.order).tolist() == orders
    # what is left is the noise
    size = np.linalg.norm(noisy(rng, orders, 400, 0)[:, 1:], axis=1)
    assert np.asarray(fit.error) * size == pytest.approx(np.full(6, noise * 399**0.5), rel=0.2)


def test_noise_alone_is_no_state(rng):
    orders = np.asarray(ssmid.distill(rng.standard_normal((40, 300)), "noise", max_order=16).order)
    assert (np.broadcast_to(orders, 40) > 0).sum() <= 3  # one in a hundred


@pytest.mark.parametrize("length", [30, 50, 64])
def test_noise_alone_is_no_state_where_every_hankel_value_is_known(rng, length):
    """The triangular Hankel matrix of short noise has values at rounding, which say nothing of the noise."""
    orders = np.asarray(ssmid.distill(rng.standard_normal((40, length)), "noise").order)
    assert (np.broadcast_to(orders, 40) > 0).sum() <= 3


def test_orders_above_the_noise_are_limited_and_rounded(rng):
    taps = noisy(rng, [3, 8], 300, 1e-4)
    assert np.asarray(ssmid.distill(taps, "noise", max_order=6).order).tolist() == [3, 6]
    assert np.asarray(ssmid.distill(taps, "noise", max_order=14, multiple=4).order).tolist() == [4, 8]
    assert ssmid.distill(taps, "noise", max_order=7, multiple=4).order == 4


def test_noise_is_relative_and_broken_filters_are_alone(rng):
    taps = noisy(rng, [2, 4, 4, 5], 300, 1e-3)
    taps[2, 9], taps[3] = np.inf, taps[3] * 1e-200
    fit = ssmid.distill(taps, "noise", max_order=16)
    assert np.asarray(fit.order).tolist() == [2, 4, 0, 5]
    assert np.isnan(fit.error[2])
    assert np.isfinite(fit.error[[0, 1, 3]]).all()


def test_an_order_for_each_filter(xp, rng):
    taps = 0.9 ** np.arange(80) * rng.standard_normal((2, 3, 80))
    orders = np.array([[1, 4, 0], [7, 4, 3]])
    if xp.name == "strict":
        pytest.skip("certificates index with arrays")
    fit = ssmid.distill(xp.asarray(taps), xp.asarray(orders))
    assert xp.numpy(fit.order).tolist() == orders.tolist()
    assert fit.system.poles.shape == (2, 3, 7)
    for index in np.ndindex(2, 3):
        if orders[index]:
            alone = ssmid.distill(taps[index], int(orders[index]))
            assert xp.numpy(fit.error)[index] == pytest.approx(float(alone.error), rel=2e-3)
            assert (xp.numpy(fit.system.residues)[index] != 0).sum() == orders[index]
    assert xp.numpy(fit.error)[0, 2] == pytest.approx(1)


def test_orders_broadcast_and_chunks(rng):
    taps = 0.8 ** np.arange(60) * rng.standard_normal((2, 4, 60))
    fit = ssmid.distill(taps, np.array([1, 2, 3, 4]), chunk=3)
    assert np.asarray(fit.order).tolist() == [[1, 2, 3, 4]] * 2


def test_wrong_orders():
    for values, words in (([1.5, 2], "1.5"), ([-1, 2], "-1"), ([True, False], "True"), ([4.0, np.inf], "inf")):
        with pytest.raises(ValueError, match=f"order: expected integers of at least 0, got {words}"):
            ssmid.distill(np.ones((2, 9)), np.array(values))
    with pytest.raises(ValueError, match="order: expected shapes that broadcast"):
        ssmid.distill(np.ones((2, 9)), np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="order: expected a whole number or 'noise', got 'all'"):
        ssmid.distill(np.ones((2, 9)), "all")
    with pytest.raises(ValueError, match="multiple: expected at most max_order = 4, got 8"):
        ssmid.distill(np.ones((2, 9)), tol=0.1, max_order=4, multiple=8)
    with pytest.raises(ValueError, match=r"max_modulus: expected a number between 0 and 1, got '0\.9'"):
        ssmid.distill(np.ones((2, 9)), 2, max_modulus="0.9")
    for wrong in (0, 2.5, True):
        with pytest.raises(ValueError, match="order: expected an integer of at least 1"):
            ssmid.distill(np.ones((2, 9)), wrong)


@pytest.mark.parametrize("name", ["tol", "gtol"])
@pytest.mark.parametrize("value", [0, -1, np.inf, np.nan, True, "1e-2", np.ones(2)])
def test_numbers_that_are_none(name, value):
    options = {"tol": value} if name == "tol" else {"order": 2, "gtol": value}
    with pytest.raises(ValueError, match=f"{name}: expected a positive number, got "):
        ssmid.distill(np.ones((2, 9)), **options)


@pytest.mark.parametrize("chunk", [0, -3, "2", 1.5])
def test_chunks_hold_at_least_one(rng, chunk):
    for filters in (np.ones((2, 9)), ssmid.Modal(rng.uniform(0, 0.5, (2, 3)), np.ones((2, 3)))):
        with pytest.raises(ValueError, match=f"chunk: expected an integer of at least 1, got {chunk!r}"):
            ssmid.distill(filters, 2, chunk=chunk)


def test_whole_numbers_may_be_floats(rng):
    taps = noisy(rng, [3, 8], 300, 1e-4)
    plain, floats = (ssmid.distill(taps, tol=0.1, max_order=kind(8), multiple=kind(2), chunk=kind(2)) for kind in (int, float))
    assert np.asarray(plain.order).tolist() == np.asarray(floats.order).tolist()


def test_what_filters_carry(rng):
    taps = np.zeros((4, 30))
    taps[0, 1:4], taps[1], taps[3] = 1.0, rng.standard_normal(30), np.nan
    bank = Bank.of(taps)
    subspace = leading_subspace(bank, 12)
    assert held(bank, subspace, 8).tolist() == [3, 8, 0, 0]
    assert held(bank, subspace, np.array([2, 20, 5, 5])).tolist() == [2, subspace.shift.shape[-1], 0, 0]
    shared = Bank.of(taps, group=2)
    assert held(shared, subspace, np.array([2, 6, 1, 1])).tolist() == [6, 6, 0, 0]
    assert rounded_up(np.array([0, 1, 4, 5]), 4).tolist() == [0, 4, 4, 8]


def test_fits_of_many_orders_are_those_of_each(rng):
    bank = Bank.of(0.9 ** np.arange(80) * rng.standard_normal((6, 80)))
    subspace, options, method = leading_subspace(bank, 6), Options(order=6), method_named("l2")
    orders = np.array([3, 6, 1, 3, 0, 5])
    fitted = fit_by_order(method, bank, orders, subspace, options)
    assert fitted.orders.tolist() == orders.tolist()
    assert fitted.poles.shape == (6, 6)
    for i in np.flatnonzero(orders):
        one = np.array([i])
        alone = method.fit(bank.take(one), orders[one], subspace.take(one), options)
        assert np.sort_complex(fitted.poles[i, : orders[i]]) == pytest.approx(np.sort_complex(alone.poles[0]), rel=1e-2)


def test_parts_joined_and_taken(xp, rng):
    bank = Bank.of(xp.asarray(rng.standard_normal((3, 20))))
    none = no_states(bank)
    wide = of_width(none, 4)
    both = taken_fits(joined_fits([none, wide]), np.array([5, 0]))
    assert wide.poles.shape == (3, 4)
    assert both.poles.shape == (2, 0)
    assert both.orders.tolist() == [0, 0]
    assert xp.owns(both.converged)
    assert xp.numpy(both.converged).all()
