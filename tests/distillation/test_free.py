"""Fits over the taps alone: recovery to rounding, a reference by SciPy, and what must not matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares

from ssmid.datasets import hyena_filters
from ssmid.distillation.pipeline import distill
from ssmid.distillation.result import Distillation
from ssmid.linalg import vandermonde_product

ORDER = 16


def systems(rng: np.random.Generator, *batch: int, slowest: float = 0.98) -> tuple[np.ndarray, np.ndarray]:
    """Poles and residues ``(*batch, 16)`` of stable systems, pairs side by side."""
    half = (*batch, ORDER // 2)
    upper = rng.uniform(0.5, slowest, half) * np.exp(1j * rng.uniform(0.05, np.pi - 0.05, half))
    residues = rng.standard_normal(half) + 1j * rng.standard_normal(half)
    return tuple(np.stack([x, x.conj()], -1).reshape(*batch, ORDER) for x in (upper, residues))  # pyright: ignore[reportReturnType]


def response(poles: np.ndarray, residues: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([np.ones((*poles.shape[:-1], 1)), vandermonde_product(poles, residues, length - 1, real=True)], axis=-1)


def error_over_taps(found: Distillation, taps: np.ndarray) -> np.ndarray:
    model = np.real(np.sum(found.system.residues[..., None] * found.system.poles[..., None] ** np.arange(taps.shape[-1] - 1), axis=-2))
    return np.linalg.norm(model - taps[..., 1:], axis=-1) / np.linalg.norm(taps[..., 1:], axis=-1)


def with_cluster(poles: np.ndarray, residues: np.ndarray, gap: float, kind: str) -> tuple[np.ndarray, np.ndarray]:
    poles, residues = poles.copy(), residues.copy()
    if kind == "real":
        poles[..., :4] = 0.9 + gap * np.arange(4)
        residues[..., :4] = residues[..., :4].real + np.array([1, -1, 0.5, 2])
    else:  # two pairs
        upper = 0.9 * np.exp(0.7j) + gap * np.exp(2j) * np.arange(2)
        poles[..., :4] = np.stack([upper, upper.conj()], -1).ravel()
    return poles, residues


@pytest.mark.parametrize("beyond", ["zero", "free"])
@pytest.mark.parametrize("length", [1024, 2048])
def test_four_layers_are_recovered(rng: np.random.Generator, beyond: str, length: int) -> None:
    taps = response(*systems(rng, 4, 6), length)
    found = distill(taps, ORDER, beyond=beyond)
    assert (error_over_taps(found, taps) < 1e-10).all()
    assert found.converged.all()


@pytest.mark.parametrize("modulus", [0.9999, 0.99999])
def test_filters_that_have_not_faded_out_are_recovered(rng: np.random.Generator, modulus: float) -> None:
    poles, residues = systems(rng, 6)
    poles[:, :2] *= modulus / np.abs(poles[:, :2])
    taps = response(poles, residues, 2048)
    found = distill(taps, ORDER, beyond="free")
    assert (error_over_taps(found, taps) < 1e-10).all()
    assert found.converged.all()
    assert np.allclose(np.abs(found.system.poles).max(-1), modulus, atol=1e-8)
    # with zeros beyond the last tap the same filters are others
    assert (error_over_taps(distill(taps, ORDER), taps) > 1e-3).all()


def test_slow_poles_are_recovered_where_they_fade_out(rng: np.random.Generator) -> None:
    poles, residues = systems(rng, 1)
    poles[:, :2] *= 0.9999 / np.abs(poles[:, :2])
    taps = response(poles, residues, 2**18)
    assert (distill(taps, ORDER).error < 1e-10).all()


@pytest.mark.parametrize("beyond", ["zero", "free"])
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("gap", [1e-2, 1e-3])
def test_clusters_of_four_are_recovered(rng: np.random.Generator, beyond: str, kind: str, gap: float) -> None:
    taps = response(*with_cluster(*systems(rng, 5), gap, kind), 2048)
    found = distill(taps, ORDER, beyond=beyond)
    assert (error_over_taps(found, taps) < 1e-10).all()


def test_undamped_filters_come_near(rng: np.random.Generator) -> None:
    """Poles on the circle itself are approached from within."""
    t = np.arange(511)
    taps = np.concatenate([[[0.3], [0.3]], np.stack([np.ones(511), np.cos(0.4 * t) + 0.5 * 0.9**t])], axis=-1)
    for k, order in enumerate((1, 3)):
        found = distill(taps[k], order, beyond="free")
        assert error_over_taps(found, taps[k]) < 1e-5
        assert np.abs(found.system.poles).max() < 1


def test_optimum_over_the_taps(rng: np.random.Generator) -> None:
    """SciPy finds nothing better from there, over the taps written out."""
    t = np.arange(80)
    taps = np.cos(rng.uniform(0.1, 1.5, (3, 1)) * t) * 0.99**t + 0.2 * rng.standard_normal((3, 80))
    found = distill(taps, 2, beyond="free", gtol=1e-7)
    assert found.converged.all()

    def residual(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        modes = (x[0] * np.exp(1j * x[1])) ** np.arange(len(g))
        columns = np.stack([modes.real, modes.imag], -1)
        return g - columns @ np.linalg.lstsq(columns, g, rcond=None)[0]

    for k in range(3):
        g, upper = taps[k, 1:], found.system.poles[k, 0]
        starts = [(np.abs(upper) * (1 - 1e-9), np.abs(np.angle(upper))), *((0.97, a) for a in np.linspace(0.05, 3, 40))]
        ends = [least_squares(residual, x, args=(g,), bounds=([0, 0], [1, np.pi])).cost for x in starts]
        assert error_over_taps(found, taps)[k] <= (2 * min(ends)) ** 0.5 / np.linalg.norm(g) * (1 + 1e-6)


def test_never_above_the_l2_optimum_or_the_balanced_start(rng: np.random.Generator) -> None:
    taps = np.asarray(hyena_filters().taps, float)[::8]
    free = error_over_taps(distill(taps, 12, beyond="free"), taps)
    for method in ("l2", "balanced"):
        assert (free <= error_over_taps(distill(taps, 12, method=method), taps) * (1 + 1e-9)).all()


def test_kinds_are_kept(xp: Any) -> None:
    if xp.name == "strict":
        pytest.skip("the Hankel subspace of a bank is worked on in place")
    taps = np.asarray(hyena_filters().taps[:3, :256])
    found = distill(xp.asarray(taps), 4, beyond="free")
    assert xp.owns(found.system.poles)
    assert "complex64" in str(found.system.residues.dtype)
    assert np.isfinite(xp.numpy(found.system.residues)).all()


def test_scale_batches_and_bad_filters(rng: np.random.Generator) -> None:
    taps = response(*systems(rng, 5), 300) + 0.1 * rng.standard_normal((5, 300))
    scaled = taps * 2.0 ** np.array([0, 900, -900, 0, 0])[:, None]
    scaled[3, 17] = np.inf
    scaled[4] = 0
    found = distill(scaled, 6, beyond="free")
    assert np.isnan(found.system.poles[3]).all()
    assert not found.converged[3]
    assert (found.system.poles[4] == 0).all()
    for k in range(3):
        alone = distill(taps[k], 6, beyond="free")
        assert np.allclose(np.sort_complex(alone.system.poles), np.sort_complex(found.system.poles[k]), rtol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7])
def test_short_filters(rng: np.random.Generator, length: int) -> None:
    found = distill(rng.standard_normal((2, length)), 3, beyond="free")
    assert np.isfinite(found.system.residues).all()
    assert (np.abs(found.system.poles) < 1).all()


def test_constraints_hold_here_too() -> None:
    taps = np.asarray(hyena_filters().taps, float)[:4]
    found = distill(taps, 6, beyond="free", max_modulus=0.95)
    assert (np.abs(found.system.poles) <= 0.95).all()
    line = distill(taps, 6, beyond="free", real_poles=True)
    assert (line.system.poles.imag == 0).all()
    assert (error_over_taps(line, taps) < 0.7).all()
