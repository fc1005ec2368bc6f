"""Exchanges of pole pairs against refits written out, and what they promise: no error rises, and minima that trap Newton are left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmid.datasets import hyena_filters
from ssmid.reduction.h2_exchange import _losses, _most_gaining, _without_weakest, exchanged
from ssmid.reduction.h2_newton import optimal_poles
from ssmid.reduction.h2_sources import TapsSource


def least_squares_error(taps, poles):
    """The squared error of the best residues over a time so long that all modes are gone."""
    long = np.concatenate([taps, np.zeros(4000)])
    modes = np.asarray(poles) ** np.arange(len(long))[:, None]
    basis = np.concatenate([modes.real, modes.imag], axis=1)
    left = long - basis @ np.linalg.lstsq(basis, long, rcond=None)[0]
    return float(left @ left)


def pairs(*upper):
    return np.array([x for p in upper for x in (p, np.conj(p))])[None]


def source_of(taps):
    return TapsSource.of(np.atleast_2d(taps), real=True)


def decaying(rng, length=300):
    return rng.standard_normal(length) * 0.98 ** np.arange(length)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_loss_of_a_pair_is_what_a_refit_without_it_loses(seed):
    rng = np.random.default_rng(seed)
    taps = decaying(rng)
    upper = rng.uniform(0.3, 0.97, 3) * np.exp(1j * rng.uniform(0.1, 3.0, 3))
    poles = np.concatenate([pairs(*upper), rng.uniform(-0.9, 0.9, (1, 2)) + 0j], axis=1)
    losses = _losses(poles, source_of(taps)(poles, np.ones((1, 8), bool)))[0]
    whole = least_squares_error(taps, poles)
    for k in range(4):
        without = least_squares_error(taps, np.delete(poles, [2 * k, 2 * k + 1], axis=1))
        assert losses[k] == pytest.approx(without - whole, rel=1e-5, abs=1e-7 * whole)


def test_new_pairs_stand_where_no_other_point_of_the_grid_gains_more(rng):
    taps = decaying(rng)
    poles = pairs(0.9 * np.exp(0.5j))
    found = complex(_most_gaining(np.atleast_2d(taps), poles, np.ones((1, 2), bool), 1)[0, 0])
    reached = least_squares_error(taps, np.append(poles[0], [found, found.conjugate()]))
    for radius in 1 - np.geomspace(0.3, 2 / 300, 7):
        for omega in np.linspace(0.05, 3.09, 60):
            p = radius * np.exp(1j * omega)
            # the grid's own points lie between those tried here
            assert least_squares_error(taps, np.append(poles[0], [p, np.conj(p)])) >= reached * (1 - 1e-2)


def test_a_minimum_that_holds_newton_is_left():
    """Two resonances and a start at neither, with one pair: the smaller one is found, and holds; the larger is after an exchange."""
    t = np.arange(600)
    taps = 0.97**t * np.cos(2.0 * t) + 0.5 * 0.97**t * np.cos(0.5 * t)
    source, live = source_of(taps), np.ones((1, 2), bool)
    stuck = optimal_poles(source, pairs(0.95 * np.exp(0.52j)), live, real=True, max_iterations=50, gtol=1e-9)
    assert abs(np.angle(stuck.poles[0, 0])) == pytest.approx(0.5, abs=0.05)
    free = exchanged(source, stuck, 1, max_iterations=50, gtol=1e-9)
    assert abs(np.angle(free.poles[0, 0])) == pytest.approx(2.0, abs=0.05)
    assert free.error[0] < 0.3 * stuck.error[0]
    assert free.error[0] == pytest.approx(least_squares_error(taps, free.poles[0]), rel=1e-9)


def test_no_error_rises_and_trained_filters_gain(xp):
    if xp.name == "strict":
        pytest.skip("the search of Newton's method assigns in place")
    taps = hyena_filters().taps[::8, 1:1024].astype(float)
    source = TapsSource.of(xp.asarray(taps), real=True)
    start = np.repeat(pairs(*(0.9 * np.exp(1j * np.linspace(0.2, 2.9, 4)))), len(taps), axis=0)
    first = optimal_poles(source, xp.asarray(start), xp.asarray(np.ones(start.shape, bool)), real=True, max_iterations=15, gtol=1e-4)
    second = exchanged(source, first, 2, max_iterations=15, gtol=1e-4)
    before, after = xp.numpy(first.error), xp.numpy(second.error)
    assert (after <= before).all()
    assert np.median(after / before) < 0.97
    history = xp.numpy(second.history)
    np.testing.assert_allclose(history[:, -1], after, rtol=1e-12)


def test_single_poles_and_exact_fits_stay(rng):
    """An odd order keeps its real pole's slot; where nothing is left to gain nothing is done."""
    t = np.arange(400.0)
    poles = np.array([[0.9 * np.exp(0.4j), 0.9 * np.exp(-0.4j), 0.7, 0.0]])
    live = np.array([[True, True, True, False]])
    exact = source_of(0.9**t * np.cos(0.4 * t) + 0.7**t)
    optimum = optimal_poles(exact, poles, live, real=True, max_iterations=20, gtol=1e-9)
    assert exchanged(exact, optimum, 3, max_iterations=5, gtol=1e-9) is optimum
    noisy = source_of(decaying(rng, 400))
    start = optimal_poles(noisy, poles, live, real=True, max_iterations=20, gtol=1e-6)
    found = exchanged(noisy, start, 2, max_iterations=20, gtol=1e-6)
    assert found.live.sum() == 3
    assert found.error[0] <= start.error[0]


def test_the_weakest_pair_goes(rng):
    taps = decaying(rng)
    upper = np.array([0.5, 0.9, 0.95, 0.7]) * np.exp(1j * np.array([0.3, 1.0, 2.0, 2.9]))
    poles = pairs(*upper)
    kept, live = _without_weakest(source_of(taps), poles, np.ones((1, 8), bool))
    refits = [least_squares_error(taps, np.delete(poles, [2 * k, 2 * k + 1], axis=1)) for k in range(4)]
    np.testing.assert_array_equal(kept[0], np.delete(poles[0], [2 * np.argmin(refits), 2 * np.argmin(refits) + 1]))
    assert live.all()


def test_elements_of_several_orders_keep_theirs(rng):
    """Slots that no pole fills are not taken for pairs that do nothing."""
    taps = np.stack([decaying(rng), decaying(rng)])
    poles = np.repeat(pairs(*(0.9 * np.exp(1j * np.linspace(0.4, 2.8, 4)))), 2, axis=0)
    live = np.array([[True] * 8, [True] * 2 + [False] * 6])
    poles = np.where(live, poles, 0)
    start = optimal_poles(source_of(taps), poles, live, real=True, max_iterations=10, gtol=1e-4)
    found = exchanged(source_of(taps), start, 2, max_iterations=10, gtol=1e-4)
    np.testing.assert_array_equal(found.live.sum(-1), [8, 2])
    assert (found.error <= start.error).all()
    alone = exchanged(source_of(taps[1]), start_of(taps[1], poles[1:, :2]), 2, max_iterations=10, gtol=1e-4)
    assert found.error[1] == pytest.approx(float(alone.error[0]), rel=1e-3)


def start_of(taps, poles):
    return optimal_poles(source_of(taps), poles, np.ones(poles.shape, bool), real=True, max_iterations=10, gtol=1e-4)
