"""l2-optimal approximation under weights: against brute force, and against the unweighted search where the weights say nothing."""

from __future__ import annotations

import numpy as np
import pytest

import ssmid


def decaying(rng, *batch: int, length: int = 80, dtype: type = float) -> np.ndarray:
    noise = rng.standard_normal((*batch, length)) + (1j * rng.standard_normal((*batch, length)) if dtype is complex else 0)
    return noise * 0.94 ** np.arange(length)


@pytest.mark.parametrize("dtype", [float, complex])
def test_equal_weights_over_frequency_are_none(rng, dtype):
    response = ssmid.ImpulseResponse(decaying(rng, 2, dtype=dtype))
    points = 2048
    weights = 3.0 * np.ones(points if dtype is complex else points // 2 + 1)
    plain = ssmid.h2_approximation(response, 4)
    fit = ssmid.h2_approximation(response, 4, frequency_weights=weights, start=plain)
    np.testing.assert_allclose(fit.error, plain.error, rtol=1e-10)
    assert (fit.interpolation_residual < 1e-7).all()


@pytest.mark.parametrize("dtype", [float, complex])
def test_weights_on_a_short_grid_are_interpolated(rng, dtype):
    response, gain = ssmid.ImpulseResponse(decaying(rng, dtype=dtype)), rng.uniform(0.5, 2, 96 if dtype is complex else 49)
    ends = np.append(gain, gain[0]) if dtype is complex else gain
    finer = np.interp(np.arange(2 * len(ends) - 1) / 2, np.arange(len(ends)), ends)[: 192 if dtype is complex else None]
    short, long = (ssmid.h2_approximation(response, 4, frequency_weights=weights) for weights in (gain, finer))
    np.testing.assert_allclose(short.error, long.error, rtol=1e-12)
    np.testing.assert_allclose(short.history[-1], long.history[-1], rtol=1e-12)


def test_weights_over_time_against_a_grid(rng):
    taps, weights = decaying(rng), np.linspace(1, 0.1, 80) ** 2
    starts = [ssmid.ss(pole, 1, 1) for pole in (0.8, -0.8, 0.2)]
    fit = ssmid.h2_approximation(ssmid.ImpulseResponse(taps), 1, weights=weights, start=starts)
    target = (weights * taps)[1:]
    grid = np.tanh(np.linspace(-4, 4, 4001))[:, None]
    modes = weights[1:] * grid ** np.arange(79)
    captured = (modes @ target) ** 2 / (modes**2).sum(-1)
    best = np.sqrt(1 - captured.max() / (target @ target))
    assert best - 1e-6 < fit.history[-1] < best + 1e-9
    model = ssmid.impulse_response(fit.system, 80).taps
    np.testing.assert_allclose(np.linalg.norm((weights * (taps - model))[1:]) / np.linalg.norm(target), fit.history[-1], rtol=1e-10)


@pytest.mark.parametrize("dtype", [float, complex])
def test_no_point_nearby_is_better(rng, dtype):
    taps, weights = decaying(rng, dtype=dtype), 1 / (1 + np.arange(80.0))
    fit = ssmid.h2_approximation(ssmid.ImpulseResponse(taps), 3, weights=weights, max_iterations=300)
    assert fit.converged
    assert (np.diff(fit.history) <= 0).all()
    poles, target = np.linalg.eigvals(fit.system.A), (weights * taps)[1:]

    def error(poles: np.ndarray) -> float:
        modes = weights[1:, None] * poles ** np.arange(79)[:, None]
        return np.linalg.norm(target - modes @ np.linalg.lstsq(modes, target + 0j, rcond=None)[0])

    for _ in range(20):
        step = 1e-3 * (rng.standard_normal(3) + 1j * rng.standard_normal(3))
        moved = poles + (step if dtype is complex else np.where(poles.imag == 0, step.real, step))
        if dtype is float:
            moved = np.concatenate([moved[poles.imag > 0], moved[poles.imag > 0].conj(), moved[poles.imag == 0]])
        assert error(moved) > error(poles) - 1e-12


def test_a_filter_draws_the_error_out_of_its_band(rng):
    response = ssmid.ImpulseResponse(decaying(rng))
    low = ssmid.tf([0.05], [1, -0.95])
    plain = ssmid.h2_approximation(response, 4)
    fit = ssmid.h2_approximation(response, 4, frequency_weights=low, start=plain)
    gain = np.abs(ssmid.frequency_response(low, points=4096).values)

    def weighted(system: ssmid.System) -> float:
        difference = ssmid.frequency_response(response, points=4096).values - ssmid.frequency_response(system, points=4096).values
        return np.linalg.norm(gain * difference)

    assert weighted(fit.system) < 0.9 * weighted(plain.system)
    assert fit.error > plain.error


def test_known_systems_are_recovered_under_any_weights(rng):
    t = np.arange(600)
    taps = np.append(1.0, 0.95**t * np.cos(0.4 * t) - 0.7**t)
    for options in ({"weights": rng.uniform(0.5, 2, 601)}, {"frequency_weights": rng.uniform(0.5, 2, 1025)}):
        fit = ssmid.h2_approximation(ssmid.ImpulseResponse(taps), 3, **options)
        assert fit.error < 1e-9


def test_batches_kinds_and_bad_elements(xp, rng):
    taps = decaying(rng, 3)
    weights = np.linspace(1, 0.2, 80)
    alone = [ssmid.h2_approximation(ssmid.ImpulseResponse(x), 2, weights=weights).error for x in taps[[0, 2]]]
    taps[1] = np.nan
    fit = ssmid.h2_approximation(ssmid.ImpulseResponse(xp.asarray(taps)), 2, weights=weights)
    assert xp.owns(fit.system.A)
    assert xp.owns(fit.history)
    np.testing.assert_allclose(xp.numpy(fit.error)[[0, 2]], alone, rtol=1e-9)
    assert np.isnan(xp.numpy(fit.system.A)[1]).all()
    assert not xp.numpy(fit.converged)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.ones(79)}, "weights: expected"),
        ({"weights": -np.ones(80)}, "not negative"),
        ({"weights": np.zeros(80)}, "not all zero"),
        ({"weights": np.full(80, np.nan)}, "finite"),
        ({"frequency_weights": np.ones(20)}, "at least 80 points"),
        ({"weights": np.ones(80), "frequency_weights": np.ones(65)}, "got both"),
        ({"weights": np.ones((2, 80))}, "broadcasts"),
        ({"weights": np.ones(80), "restarts": 2}, "no restarts"),
        ({"weights": np.ones(80), "mimo": True}, "without mimo"),
    ],
)
def test_wrong_weights_are_refused(rng, options, message):
    with pytest.raises(ValueError, match=message):
        ssmid.h2_approximation(ssmid.ImpulseResponse(decaying(rng)), 2, **options)
