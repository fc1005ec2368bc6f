"""The error against the order, from models written out tap by tap and dense Hankel matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

import ssmid
from ssmid._array import to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.curves import error_curves, order_curves
from ssmid.distillation.l2 import fit_l2
from ssmid.distillation.options import Options
from ssmid.distillation.relative_error import relative_errors
from ssmid.distillation.subspace import leading_subspace


def decaying(rng, count, length, *, noise=0.0):
    """Filters of three pairs of poles, of falling size, with tap 0."""
    t = np.arange(length)
    decay, angle = rng.uniform(0.6, 0.9, (count, 3, 1)), rng.uniform(0.2, 2.9, (count, 3, 1))
    modes = np.array([1.0, 0.1, 0.01])[:, None] * decay**t * np.cos(angle * t + rng.uniform(0, 6, (count, 3, 1)))
    return modes.sum(1) + noise * rng.standard_normal((count, length))


def written_out(strict, A, b, c, more=4000):
    """The l2 error of c A^t b, one tap after the other, long after the last of the filter."""
    state, squares = b.copy(), 0.0
    for t in range(len(strict) + more):
        squares += ((strict[t] if t < len(strict) else 0.0) - c @ state) ** 2
        state = A @ state
    return np.sqrt(squares / np.sum(strict**2))


def test_errors_are_those_of_the_leading_blocks(xp, rng):
    bank = Bank.of(xp.asarray(decaying(rng, 2, 70, noise=1e-3)))
    subspace = leading_subspace(bank, 5)
    curves = error_curves(bank, subspace)
    A, b, c, strict = (to_numpy(x) for x in (subspace.shift, subspace.inputs, subspace.outputs, bank.strict))
    for i in range(2):
        for d in range(6):
            assert curves[i, d] == pytest.approx(written_out(strict[i], A[i, :d, :d], b[i, :d], c[i, :d]), rel=1e-6)


def test_what_rings_on_counts_for_at_most_the_state_that_is_left():
    bank = Bank.of(np.stack([0.999 ** np.arange(40), np.cos(np.arange(40))]))
    subspace = leading_subspace(bank, 4)
    curves, rings = error_curves(bank, subspace), []
    for i in range(2):
        for d in (1, 2, 4):
            A, b, c, strict = subspace.shift[i, :d, :d], subspace.inputs[i, :d], subspace.outputs[i, :d], bank.strict[i]
            left = np.linalg.norm(np.linalg.matrix_power(A, 39) @ b) / np.linalg.norm(strict)
            true = written_out(strict, A, b, c)
            assert true * (1 - 1e-12) <= curves[i, d] <= np.hypot(true, left) * (1 + 1e-12)
            rings.append(left)
    assert max(rings) > 0.1


def test_curve_is_never_below_the_optimum_from_its_poles():
    bank = Bank.of(ssmid.datasets.hyena_filters().taps[:8])
    subspace = leading_subspace(bank, 12)
    curves = error_curves(bank, subspace)
    for order in (1, 3, 6, 12):
        fitted = fit_l2(bank, np.full(8, order), subspace, Options(order=order))
        own = np.linalg.norm(to_numpy(bank.strict), axis=-1)
        assert (relative_errors(bank, fitted, "l2", own) <= curves[:, order] * (1 + 1e-9)).all()


def test_bound_is_below_the_hankel_values_and_near_them(rng):
    taps = decaying(rng, 3, 60, noise=1e-2)
    curves = order_curves(taps, 8)
    for i in range(3):
        sigma = np.linalg.svd(scipy.linalg.hankel(taps[i, 1:]), compute_uv=False)
        assert (curves.bound[i] <= sigma[:9] / sigma[0] * (1 + 1e-12)).all()
        assert curves.bound[i] == pytest.approx(sigma[:9] / sigma[0], rel=1e-6)


def test_flat_beyond_what_a_filter_carries(rng):
    taps = np.zeros((3, 40))
    taps[0, 1:4], taps[1, 5], taps[2, 1:] = [3.0, 2.0, 1.0], 2.0, 0.5 ** np.arange(39)
    curves = order_curves(taps, 10)
    assert curves.orders_for(1e-9).tolist() == [3, 5, 1]
    assert (curves.l2[0, 3:] == curves.l2[0, 3]).all()
    assert curves.total_states(1e-9) == 9
    assert curves.total_states(1.0) == 0


def test_short_filters_have_short_curves():
    curves = order_curves(np.array([1.0, 2.0, 1.0, 0.5]), 64)
    assert curves.l2.shape == curves.bound.shape == (4,)
    assert curves.l2[-1] < 1e-12
    assert curves.bound[-1] == 0


def test_empty_and_broken_filters_are_alone(rng):
    taps = decaying(rng, 5, 50)
    taps[1], taps[2, 1:], taps[3, 7] = 0.0, 0.0, np.nan
    curves, alone = order_curves(taps, 4), order_curves(taps[[0, 4]], 4)
    assert (curves.l2[[1, 2]] == 0).all()
    assert (curves.bound[[1, 2]] == 0).all()
    assert np.isnan(curves.l2[3]).all()
    assert np.isnan(curves.bound[3]).all()
    assert curves.l2[[0, 4]] == pytest.approx(alone.l2, rel=1e-9)
    assert curves.orders_for(0.0).tolist() == [4, 0, 0, 0, 4]


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_scale_changes_nothing(rng, scale):
    taps = decaying(rng, 2, 50)
    assert order_curves(scale * taps, 4).l2 == pytest.approx(order_curves(taps, 4).l2, rel=1e-6)


def test_chunks_and_batch_shapes(rng):
    taps = decaying(rng, 6, 40)
    whole, parts = order_curves(taps.reshape(2, 3, 40), 5), order_curves(taps, 5, chunk=4)
    assert whole.l2.shape == (2, 3, 6)
    assert whole.l2.reshape(6, 6) == pytest.approx(parts.l2, rel=1e-9)
    for i in range(6):
        assert order_curves(taps[i], 5).l2 == pytest.approx(parts.l2[i], rel=1e-9)


def test_kind_is_kept(xp, rng):
    curves = order_curves(xp.asarray(decaying(rng, 2, 40)), 3)
    assert all(xp.owns(x) for x in (curves.orders, curves.l2, curves.bound, curves.orders_for(0.1)))
    assert xp.numpy(curves.orders).tolist() == [0, 1, 2, 3]


def test_no_filters():
    curves = order_curves(np.zeros((0, 20)), 4)
    assert (curves.l2.shape, curves.bound.shape, curves.orders_for(0.1).shape) == ((0, 5), (0, 5), (0,))


def test_wrong_input():
    with pytest.raises(ValueError, match="max_order: expected an integer of at least 1, got 0"):
        order_curves(np.ones((2, 5)), 0)
    with pytest.raises(ValueError, match="filters: expected real taps"):
        order_curves(np.ones((2, 5)) + 1j)
