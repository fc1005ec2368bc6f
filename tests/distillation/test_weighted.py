"""Weights over time and frequency: derivatives, optima found by other means, and what the weights mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
from scipy.optimize import least_squares

import ssmid
from ssmid.datasets import hyena_filters, trained_filters
from ssmid.distillation.pipeline import distill
from ssmid.distillation.projected import Projected, Spectrum, Taps
from ssmid.distillation.weighted import input_spectrum, largest_resolved


def noisy(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    t = np.arange(length)
    modes = rng.uniform(0.8, 0.97, (count, 3, 1)) ** t * np.cos(rng.uniform(0.1, 3, (count, 3, 1)) * t)
    return modes.sum(1) + 0.1 * rng.standard_normal((count, length)) * 0.95**t


def model(poles: Any, residues: Any, length: int) -> np.ndarray:
    modes = np.asarray(poles)[..., None] ** np.arange(length - 1)
    return np.real(np.sum(np.asarray(residues)[..., None] * modes, axis=-2))


@pytest.mark.parametrize("kind", ["taps", "weighted taps", "spectrum"])
def test_derivatives_are_those_of_the_error(rng: np.random.Generator, kind: str) -> None:
    taps = noisy(rng, 2, 61)[:, 1:]
    rows = {
        "taps": Taps.of(taps),
        "weighted taps": Taps.of(taps, rng.uniform(0.5, 2, (2, 60))),
        "spectrum": Spectrum.of(taps, rng.uniform(0.5, 2, (1, 65))),
    }[kind]
    problem = Projected.of(rows)
    poles = np.array([[0.8 + 0.3j, 0.8 - 0.3j, 0.5, -0.2, 0.7, 0.0], [0.7 + 0.2j, 0.7 - 0.2j, 0.9, -0.4, 0.6, 0.0]])
    live = np.arange(6) < np.array([5, 5])[:, None]
    directions = np.array([[1, 1, 0, 0, 0, 0], [1j, -1j, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]])
    found, h = problem(poles, live), 1e-5
    for u in directions:
        above, below = problem(poles + h * u, live), problem(poles - h * u, live)
        assert np.allclose((found.first @ u).real, (above.error - below.error) / (2 * h), rtol=1e-5, atol=1e-6)
        assert np.allclose(((found.second @ u) @ directions.T).real, ((above.first - below.first) @ directions.T).real / (2 * h), atol=1e-4)


def test_residues_are_those_of_least_squares(rng: np.random.Generator) -> None:
    taps, weights = noisy(rng, 1, 50)[:, 1:], rng.uniform(0.1, 3, (1, 49))
    poles = np.array([[0.8 + 0.3j, 0.8 - 0.3j, 0.5, -0.2]])
    modes = poles[0] ** np.arange(49)[:, None]
    columns = np.stack([modes[:, 0].real, modes[:, 0].imag, modes[:, 2].real, modes[:, 3].real], -1) * weights[0][:, None]
    x, cost = np.linalg.lstsq(columns, taps[0] * weights[0], rcond=None)[:2]
    problem = Projected.of(Taps.of(taps, weights))
    residues = problem.residues(poles, np.ones((1, 4), bool))[0]
    assert np.allclose(residues, [(x[0] - 1j * x[1]) / 2, (x[0] + 1j * x[1]) / 2, x[2], x[3]])
    assert np.allclose(problem(poles, np.ones((1, 4), bool)).error, cost)


def test_optimum_under_weights_over_time(rng: np.random.Generator) -> None:
    taps, weights = noisy(rng, 3, 100), np.exp(-np.arange(100) / 20.0)
    found = distill(taps, 2, weights=weights, gtol=1e-7)
    assert found.converged.all()

    def residual(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        modes = (x[0] * np.exp(1j * x[1])) ** np.arange(99)
        columns = np.stack([modes.real, modes.imag], -1) * weights[1:, None]
        return weights[1:] * g - columns @ np.linalg.lstsq(columns, weights[1:] * g, rcond=None)[0]

    for k in range(3):
        upper = found.system.poles[k, 0]
        if upper.imag == 0:
            continue
        start = [abs(upper), abs(np.angle(upper))]
        end = least_squares(residual, start, args=(taps[k, 1:],), bounds=([0, 0], [1, np.pi]), xtol=1e-14, ftol=1e-14)
        own = weights[1:] * (model(found.system.poles[k], found.system.residues[k], 100) - taps[k, 1:])
        assert own @ own <= 2 * end.cost * (1 + 1e-8)


def test_no_worse_than_the_search_one_by_one() -> None:
    taps, weights = np.asarray(hyena_filters().taps, float)[:6, :400], np.linspace(2, 0.5, 400)
    found = distill(taps, 6, weights=weights)
    other = ssmid.h2_approximation(ssmid.ImpulseResponse(taps), 6, weights=weights)
    reference = np.linalg.norm((ssmid.impulse_response(other.system, 400).taps - taps)[:, 1:] * weights[1:], axis=-1)
    own = np.linalg.norm((model(found.system.poles, found.system.residues, 400) - taps[:, 1:]) * weights[1:], axis=-1)
    assert (own <= reference * 1.02).all()
    assert np.median(own / reference) <= 1 + 1e-6


def test_what_weighs_nothing_does_not_count(rng: np.random.Generator) -> None:
    poles = np.array([0.9 * np.exp(0.5j), 0.9 * np.exp(-0.5j), 0.7, -0.6])
    taps = np.concatenate([[5.0], model(poles, [1 + 1j, 1 - 1j, 2, -1], 200)])
    spoiled = taps.copy()
    spoiled[120:] += rng.standard_normal(80)
    weights = (np.arange(200) < 120).astype(float)
    weights[0] = 1e6  # tap 0 is kept whatever it weighs
    found = distill(spoiled, 4, weights=weights, gtol=1e-9)
    assert np.allclose(model(found.system.poles, found.system.residues, 120), taps[1:120], atol=1e-9)
    assert found.system.feedthrough == 5


def test_scales_of_weights_and_taps_change_nothing(rng: np.random.Generator) -> None:
    taps, weights = noisy(rng, 2, 128), rng.uniform(0.2, 1, 128)
    one = distill(taps, 3, weights=weights)
    other = distill(taps * 2.0**800, 3, weights=weights * 2.0**-900)
    assert np.allclose(one.system.poles, other.system.poles, rtol=1e-9)


def test_even_weights_over_frequency_are_none() -> None:
    taps = np.asarray(hyena_filters().taps, float)[:6]
    taps = taps * np.exp(-np.arange(2048) / 150)
    plain, even = distill(taps, 8, gtol=1e-7), distill(taps, 8, frequency_weights=np.ones(4097), gtol=1e-7)
    assert np.allclose(plain.error, even.error, rtol=1e-4)


def test_no_pole_hides_between_the_points_of_a_grid() -> None:
    """Of trained filters on grids of as many points as taps: what rings on is seen, so that even weights are none there too."""
    taps = np.asarray(trained_filters().taps, float)[[132, 264, 390]]
    plain, even = distill(taps, 16), distill(taps, 16, frequency_weights=np.ones(257))
    assert np.allclose(plain.error, even.error, rtol=2e-3)
    assert (np.abs(even.system.poles) ** 1024 <= 1 / 3).all()
    held = distill(taps, 16, frequency_weights=np.ones(257), max_modulus=0.9)
    assert np.isclose(np.abs(held.system.poles).max(), 0.9, rtol=1e-3)


@pytest.mark.parametrize("points", [60, 100, 1000])
def test_modes_on_a_grid_have_their_energy_as_far_as_it_resolves(points: int) -> None:
    turn = 2 * np.pi * np.arange(points) / points
    largest = largest_resolved(points)
    for modulus, factor in ((largest, 2), (largest**3, 1.08)):
        for angle in (0, np.pi / points, 1.0):
            on_grid = np.mean(np.abs(np.exp(1j * turn) - modulus * np.exp(1j * angle)) ** -2.0)
            assert 1 / factor - 1e-9 <= on_grid * (1 - modulus**2) <= factor + 1e-9


def test_what_a_layer_sees_is_what_is_weighed(rng: np.random.Generator) -> None:
    """Of coloured noise through filter and model, the difference is smaller for the model that knows the colour."""
    taps = np.asarray(hyena_filters().taps, float)[:4, :512]
    shaping = scipy.signal.butter(4, 0.2)
    signals = scipy.signal.lfilter(*shaping, rng.standard_normal((6, 4, 1 << 14)))
    weights = input_spectrum(signals[:4], 512, keep=1)
    assert weights.shape == (4, 257)
    outputs = []
    for options in ({}, {"frequency_weights": weights}):
        found = distill(taps, 6, **options)
        difference = np.zeros((4, 512))
        difference[:, 1:] = model(found.system.poles, found.system.residues, 512) - taps[:, 1:]
        heard = scipy.signal.fftconvolve(signals[4:], difference[None], axes=-1)[..., 512 : 1 << 14]
        outputs.append(np.sqrt(np.mean(heard**2, axis=(0, 2))))
    assert (outputs[1] < outputs[0]).all()
    assert np.median(outputs[1] / outputs[0]) < 0.95


def test_spectrum_of_shaped_noise(rng: np.random.Generator, xp: Any) -> None:
    signals = scipy.signal.lfilter([1.0], [1.0, -0.9], rng.standard_normal((8, 1 << 15)))
    found = xp.numpy(input_spectrum(xp.asarray(signals), 100))
    gain = 1 / np.abs(1 - 0.9 * np.exp(-2j * np.pi * np.arange(65) / 128))
    whole = np.concatenate([found, found[-2:0:-1]])
    assert np.isclose(np.mean(whole**2), 1)
    inner = slice(2, None)
    assert np.allclose(found[inner] / found[30], (gain / gain[30])[inner], rtol=0.05)


def test_filters_with_weights_of_their_own(rng: np.random.Generator) -> None:
    taps, weights = noisy(rng, 6, 100).reshape(2, 3, 100), rng.uniform(0.1, 1, (3, 100))
    found = distill(taps, 2, weights=weights, chunk=4)
    for i, j in np.ndindex(2, 3):
        alone = distill(taps[i, j], 2, weights=weights[j])
        assert np.allclose(np.sort_complex(found.system.poles[i, j]), np.sort_complex(alone.system.poles), rtol=1e-4)


def test_bad_filters_stay_alone(rng: np.random.Generator) -> None:
    taps = noisy(rng, 4, 80)
    taps[1, 3], taps[2] = np.nan, 0
    for options in ({"weights": np.ones(80)}, {"frequency_weights": np.ones(65)}):
        found = distill(taps, 3, **options)
        assert np.isnan(found.error[1])
        assert found.order[2] == 0
        assert np.isfinite(found.system.residues[[0, 3]]).all()
        assert list(found.converged) == [True, False, True, True]


def test_kinds_are_kept(xp: Any) -> None:
    if xp.name == "strict":
        pytest.skip("the Hankel subspace of a bank is worked on in place")
    taps = np.asarray(hyena_filters().taps[:3, :200])
    for options in ({"weights": np.ones(200)}, {"frequency_weights": np.ones((3, 129))}):
        found = distill(xp.asarray(taps), 4, **{name: xp.asarray(value) for name, value in options.items()})
        assert xp.owns(found.system.poles)
        assert "complex64" in str(found.system.poles.dtype)
        assert (xp.numpy(found.error) < 1).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": np.ones((3, 50))}, "weights: expected a batch shape that broadcasts to"),
        ({"weights": np.ones(49)}, "weights: expected"),
        ({"weights": -np.ones(50)}, "not negative"),
        ({"weights": np.eye(1, 50)[0]}, "not all zero"),
        ({"frequency_weights": np.ones(20)}, "frequency_weights: expected"),
        ({"weights": np.ones(50), "frequency_weights": np.ones(33)}, "got both"),
    ],
)
def test_bad_weights(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        distill(np.ones((2, 50)), 2, **options)


@pytest.mark.parametrize(
    ("signals", "length", "keep", "words"),
    [
        (np.zeros((2, 50)), 10, 0, "not all zero"),
        (np.ones(1), 10, 0, "at least two samples"),
        (np.ones((2, 50)), 0, 0, "length"),
        (np.ones((2, 50)), 10, 2, "keep"),
        (np.full((2, 50), np.nan), 10, 0, "finite"),
    ],
)
def test_bad_signals(signals: np.ndarray, length: int, keep: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        input_spectrum(signals, length, keep=keep)
