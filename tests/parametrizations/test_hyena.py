"""Hyena's implicit filters, against sums written out one tap and one channel at a time."""

import math

import numpy as np
import pytest

import ssmid
from ssmid.parametrizations.hyena import hyena_filters, hyena_positions

LENGTH, SIZE, WIDTH, CHANNELS = 12, 5, 6, 3


@pytest.fixture
def network(rng):
    """weights, biases, frequencies, deltas, bypass"""
    weights = [rng.standard_normal(shape) for shape in ((WIDTH, SIZE), (WIDTH, WIDTH), (CHANNELS, WIDTH))]
    biases, frequencies = list(rng.standard_normal((2, WIDTH))), list(rng.uniform(1, 14, (2, WIDTH)))
    return weights, biases, frequencies, rng.uniform(-15, -3, CHANNELS), rng.standard_normal(CHANNELS)


def one_by_one(network, length, trained, shift=0.0, modulate=True, normalized=False):
    weights, biases, frequencies, deltas, bypass = network
    bands = (SIZE - 1) // 2
    taps = np.zeros((CHANNELS, length))
    for n in range(length):
        t = n / (trained - 1)
        angles = [(1e-4 + k * (bands - 1 - 1e-4) / (bands - 1)) * 2 * math.pi * n / trained for k in range(bands)]
        x = [t, *(math.cos(a) for a in angles), *(-math.sin(a) for a in angles)]
        for W, b, w in zip(weights[:-1], biases, frequencies, strict=True):
            x = [math.sin(w[i] * (math.fsum(W[i, j] * x[j] for j in range(len(x))) + b[i])) for i in range(WIDTH)]
        h = [math.fsum(weights[-1][c, j] * x[j] for j in range(WIDTH)) for c in range(CHANNELS)]
        if modulate:
            h = [h[c] * (math.exp(-t * abs(deltas[c])) + shift) for c in range(CHANNELS)]
        taps[:, n] = np.array(h) / (sum(map(abs, h)) if normalized else 1)
    taps[:, 0] += bypass
    return taps


def on(xp, network):
    weights, biases, frequencies, deltas, bypass = network
    return [[xp.asarray(a) for a in some] for some in (weights, biases, frequencies)] + [xp.asarray(deltas), xp.asarray(bypass)]


@pytest.mark.parametrize("options", [{}, {"shift": 0.1}, {"modulate": False}, {"normalized": True}])
def test_filters(xp, network, options):
    z, t = hyena_positions(LENGTH, SIZE, like=xp.asarray(network[3]))
    system = hyena_filters(z, t, *on(xp, network), **options)
    assert isinstance(system, ssmid.ImpulseResponse)
    assert xp.owns(system.taps)
    np.testing.assert_allclose(xp.numpy(system.taps), one_by_one(network, LENGTH, LENGTH, **options), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 5, 30])
def test_positions_are_relative_to_the_trained_length(network, length):
    z, t = hyena_positions(length, SIZE, trained_length=LENGTH)
    np.testing.assert_allclose(hyena_filters(z, t, *network).taps, one_by_one(network, length, LENGTH), rtol=1e-11, atol=1e-11)


def test_axes_as_checkpoints_have_them(network):
    weights, biases, frequencies, deltas, bypass = network
    z, t = hyena_positions(LENGTH, SIZE)
    same = hyena_filters(z[None], t[None, :, None], weights, biases, [w[None] for w in frequencies], deltas[None, None], bypass)
    np.testing.assert_array_equal(same.taps, hyena_filters(z, t, *network).taps)


def test_one_frequency_for_all_layers(network):
    weights, biases, frequencies, deltas, _ = network
    z, t = hyena_positions(LENGTH, SIZE)
    one = hyena_filters(z, t, weights, biases, frequencies[:1], deltas)
    np.testing.assert_array_equal(one.taps, hyena_filters(z, t, weights, biases, [frequencies[0]] * 2, deltas).taps)


def test_width_is_kept(xp, network):
    z, t = hyena_positions(LENGTH, SIZE)
    network = [[a.astype(np.float32) for a in some] for some in network[:3]] + [a.astype(np.float32) for a in network[3:]]
    system = hyena_filters(xp.asarray(z, "float32"), xp.asarray(t, "float32"), *on(xp, network))
    assert "float32" in str(system.taps.dtype)
    np.testing.assert_allclose(xp.numpy(system.taps), one_by_one(network, LENGTH, LENGTH), atol=1e-4)


def test_gradients(network):
    """Of all parameters, against differences."""
    import torch

    z, t = (torch.asarray(a).requires_grad_() for a in hyena_positions(LENGTH, SIZE))
    lists = (*network[:3], *([a] for a in network[3:]))
    weights, biases, frequencies, deltas, bypass = ([torch.asarray(a).requires_grad_() for a in some] for some in lists)

    def taps(*arrays):
        z, t, *rest = arrays
        return hyena_filters(z, t, rest[:3], rest[3:5], rest[5:7], rest[7], rest[8], shift=0.1, normalized=True).taps

    assert torch.autograd.gradcheck(taps, (z, t, *weights, *biases, *frequencies, *deltas, *bypass), fast_mode=True)


def test_normalized_taps_of_nothing_are_nan_and_leave_the_others(network):
    weights, biases, frequencies, deltas, bypass = network
    z, t = hyena_positions(LENGTH, SIZE)
    nothing = [*weights[:-1], np.zeros_like(weights[-1])]
    assert np.isnan(hyena_filters(z, t, nothing, biases, frequencies, deltas, normalized=True).taps).all()
    deltas = np.where(np.arange(CHANNELS) == 1, np.nan, deltas)
    taps = hyena_filters(z, t, weights, biases, frequencies, deltas, bypass).taps
    np.testing.assert_array_equal(np.isnan(taps).all(-1), [False, True, False])


def test_positions_of_a_size(xp):
    z, t = hyena_positions(7, 33, like=xp.asarray(np.zeros(1)))
    assert (tuple(z.shape), tuple(t.shape)) == ((7, 33), (7,))
    assert xp.owns(z)
    assert xp.owns(t)


@pytest.mark.parametrize(("length", "size", "said"), [(5, 4, "size: expected an odd"), (5, 1, "size: expected"), (0, 3, "length: exp")])
def test_positions_that_are_none(length, size, said):
    with pytest.raises(ValueError, match=said):
        hyena_positions(length, size)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (0, [np.ones((WIDTH, SIZE))], r"expected n\+1 weights \(n at least 1\), n biases and n or 1 frequencies, got 1, 2 and 2"),
        (0, [np.ones((6, 4)), np.ones((6, 6)), np.ones((3, 6))], r"weights\[0\]: expected shape \(any, 5\), got \(6, 4\)"),
        (1, [np.ones(WIDTH), np.ones(7)], r"biases\[1\]: expected shape \(6,\), got \(7,\)"),
        (2, [np.ones((2, WIDTH))], r"frequencies: expected shape \(6,\), got \(2, 6\)"),
        (3, np.ones(4), r"deltas: expected shape \(3,\), got \(4,\)"),
        (4, np.ones(2), r"bypass: expected shape \(3,\), got \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit(network, place, value, said):
    changed = [value if i == place else given for i, given in enumerate(network)]
    with pytest.raises(ValueError, match=said):
        hyena_filters(*hyena_positions(LENGTH, SIZE), *changed)
    with pytest.raises(ValueError, match="t: expected the 12 times of the rows of z, got 11"):
        hyena_filters(hyena_positions(LENGTH, SIZE)[0], np.ones(11), *network)
