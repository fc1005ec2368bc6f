"""The order above the noise: right on known systems, silent on noise, and indifferent to scale."""

from __future__ import annotations

import numpy as np
import pytest

from ssmid import order_above_noise


def hankel_values(taps, rows):
    index = np.add.outer(np.arange(rows), np.arange(taps.shape[-1] - rows + 1))
    return np.linalg.svd(taps[..., index], compute_uv=False)


def modes(rng, order, length, batch=()):
    """Taps of ``order`` modes well apart, all of them above the noise of the tests."""
    t = np.arange(length)
    angles = np.linspace(0.3, 2.8, order // 2)
    taps = sum(rng.uniform(1, 2, (*batch, 1)) * 0.98**t * np.cos(w * t + rng.uniform(0, 6, (*batch, 1))) for w in angles)
    return taps + (0.95**t if order % 2 else 0.0)


@pytest.mark.parametrize(("order", "length"), [(1, 41), (2, 41), (3, 99), (6, 199), (12, 399)])
@pytest.mark.parametrize("noise", [1e-6, 1e-3, 3e-2])
def test_the_order_of_noisy_modes_is_found(rng, order, length, noise):
    taps = modes(rng, order, length, (20,)) + noise * rng.standard_normal((20, length))
    rows = length // 2 + 1
    found = order_above_noise(hankel_values(taps, rows), rows, length - rows + 1, noise="hankel")
    assert (found == order).mean() >= 0.95


@pytest.mark.parametrize("length", [11, 41, 199])
def test_noise_alone_has_no_order(rng, length):
    taps = rng.standard_normal((200, length))
    rows = length // 2 + 1
    found = order_above_noise(hankel_values(taps, rows), rows, length - rows + 1, noise="hankel")
    assert (found > 0).mean() <= 0.02


@pytest.mark.parametrize("shape", [(30, 30), (20, 100)])
def test_independent_entries(rng, shape):
    noise = rng.standard_normal((100, *shape))
    low_rank = rng.standard_normal((100, shape[0], 3)) @ rng.standard_normal((100, 3, shape[1])) * 3
    sigma = np.linalg.svd(noise, compute_uv=False)
    assert (order_above_noise(sigma, *shape) > 0).mean() <= 0.02
    assert (order_above_noise(np.linalg.svd(noise + low_rank, compute_uv=False), *shape) == 3).mean() >= 0.95


def test_a_hankel_matrix_of_noise_outgrows_independent_entries(rng):
    """Why the two kinds of noise have thresholds of their own."""
    sigma = hankel_values(rng.standard_normal((50, 799)), 400)
    assert (order_above_noise(sigma, 400, 400) > 0).mean() > 0.5
    assert (order_above_noise(sigma, 400, 400, noise="hankel") > 0).mean() <= 0.02


def test_leading_values_with_the_energy_are_enough(rng):
    taps = modes(rng, 6, 199, (10,)) + 1e-2 * rng.standard_normal((10, 199))
    sigma = hankel_values(taps, 100)
    leading = order_above_noise(sigma[:, :20], 100, 100, energy=np.sum(sigma**2, -1), noise="hankel")
    assert leading.tolist() == [6] * 10
    with pytest.raises(ValueError, match="energy: expected the squared Frobenius norm beside 20 of 100"):
        order_above_noise(sigma[:, :20], 100, 100, noise="hankel")


def test_several_ports(rng):
    noise = rng.standard_normal((40, 2, 3, 80))
    rows, columns = 40, 41
    index = np.add.outer(np.arange(rows), np.arange(columns))

    def values(taps):
        blocks = np.moveaxis(taps[..., index], -3, -2)  # (batch, p, rows, m, columns)
        return np.linalg.svd(blocks.reshape(len(taps), 2 * rows, 3 * columns), compute_uv=False)

    options = {"noise": "hankel", "ports": (2, 3)}
    assert (order_above_noise(values(noise), rows, columns, **options) > 0).mean() <= 0.05
    t = np.arange(80)
    mode = rng.standard_normal((2, 3, 1)) * 0.95**t * np.cos(0.7 * t)
    assert set(order_above_noise(values(noise * 1e-2 + mode), rows, columns, **options).tolist()) <= {2, 4}


@pytest.mark.parametrize("factor", [1e-140, 1e140])
def test_scale_does_not_matter(rng, factor):
    sigma = hankel_values(modes(rng, 3, 99) + 1e-3 * rng.standard_normal(99), 50)
    assert order_above_noise(factor * sigma, 50, 50, noise="hankel") == order_above_noise(sigma, 50, 50, noise="hankel") == 3


def test_exact_data_count_to_rounding():
    sigma = np.array([1.0, 1e-3, 1e-9, 1e-17, 1e-18, 0.0])
    assert order_above_noise(sigma, 6, 6) == 3
    assert order_above_noise(np.zeros((2, 6)), 6, 6).tolist() == [0, 0]


def test_values_at_rounding_say_nothing_of_a_matrix_that_has_such_of_noise(rng):
    noise = rng.standard_normal((20, 50))
    places = np.add.outer(np.arange(50), np.arange(50))
    sigma = np.linalg.svd(np.pad(noise, [(0, 0), (0, 50)])[:, places], compute_uv=False)
    assert sigma[:, -1].min() < 1e-15 * sigma[:, 0].min()
    assert (order_above_noise(sigma, 50, 50, noise="hankel") > 40).any()
    assert (order_above_noise(sigma, 50, 50, noise="hankel", may_be_exact=False) > 0).sum() <= 2


def test_kinds_and_bad_elements(xp, rng):
    sigma = hankel_values(np.stack([modes(rng, 4, 99), modes(rng, 2, 99)]) + 1e-3 * rng.standard_normal((2, 99)), 50)
    sigma = np.stack([sigma[0], np.full(50, np.nan), sigma[1]])
    found = order_above_noise(xp.asarray(sigma), 50, 50, noise="hankel")
    assert xp.owns(found)
    assert xp.numpy(found).tolist() == [4, 0, 2]


def test_wrong_arguments_are_quoted():
    with pytest.raises(ValueError, match="noise: expected 'independent' or 'hankel', got 'pink'"):
        order_above_noise(np.ones(3), 3, 3, noise="pink")
    with pytest.raises(ValueError, match="false_alarm: expected a probability, got 2"):
        order_above_noise(np.ones(3), 3, 3, false_alarm=2)
