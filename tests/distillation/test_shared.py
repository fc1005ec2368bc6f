"""One set of poles for many filters: against dense matrices and SciPy, and what may not change them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import least_squares

import ssmid
from ssmid.datasets import hyena_filters
from ssmid.distillation.bank import Bank
from ssmid.distillation.pipeline import distill
from ssmid.distillation.shared import Grouped, stacked_poles


def model(poles: Any, residues: Any, length: int) -> np.ndarray:
    modes = np.asarray(poles)[..., None] ** np.arange(length - 1)
    return np.real(np.sum(np.asarray(residues)[..., None] * modes, axis=-2))


def noisy(rng: np.random.Generator, *batch: int, length: int = 80) -> np.ndarray:
    t = np.arange(length)
    modes = rng.uniform(0.6, 0.9, (*batch, 3, 1)) ** t * np.cos(rng.uniform(0.1, 3, (*batch, 3, 1)) * t)
    return modes.sum(-2) + 0.1 * rng.standard_normal((*batch, length)) * 0.9**t


def relative(found: ssmid.Distillation, taps: np.ndarray) -> np.ndarray:
    later, found_taps = taps[..., 1:], model(found.system.poles, found.system.residues, taps.shape[-1])
    return np.linalg.norm(found_taps - later, axis=-1) / np.linalg.norm(later, axis=-1)


@pytest.mark.parametrize("options", [{}, {"method": "balanced"}, {"beyond": "free"}])
def test_shared_poles_are_recovered_whatever_the_gains(rng: np.random.Generator, options: dict[str, Any]) -> None:
    upper = rng.uniform(0.6, 0.95, (3, 1, 4)) * np.exp(1j * rng.uniform(0.1, 3, (3, 1, 4)))
    poles = np.concatenate([upper, upper.conj()], -1)
    half = rng.standard_normal((3, 5, 4)) + 1j * rng.standard_normal((3, 5, 4))
    residues = np.concatenate([half, half.conj()], -1) * 10.0 ** rng.uniform(-6, 6, (3, 5, 1))
    taps = np.concatenate([np.ones((3, 5, 1)), model(poles, residues, 600)], -1)
    found = distill(taps, 8, shared=1, **options)
    assert found.system.poles.shape == (3, 1, 8)
    assert found.system.residues.shape == (3, 5, 8)
    assert (relative(found, taps) < 1e-10).all()
    assert found.converged.all()
    assert np.allclose(np.sort_complex(found.system.poles[:, 0]), np.sort_complex(poles[:, 0]), atol=1e-8)


def test_start_is_that_of_the_dense_matrices(rng: np.random.Generator) -> None:
    taps = noisy(rng, 4, length=41)
    poles, orders, _ = stacked_poles(Bank.of(taps, group=4), np.array([6]), "tight")
    unit = taps[:, 1:] / np.linalg.norm(taps[:, 1:], axis=-1, keepdims=True)
    stacked = np.concatenate([scipy.linalg.hankel(g) for g in unit], axis=1)
    U = np.linalg.svd(stacked)[0][:, :6]
    assert orders == 6
    assert np.allclose(np.sort_complex(poles[0]), np.sort_complex(np.linalg.eigvals(U.T @ np.eye(40, k=1) @ U)), atol=1e-7)


def test_a_group_carries_more_than_each_of_it(rng: np.random.Generator) -> None:
    """Three filters of one mode each ask for three poles."""
    own = np.array([[0.8], [-0.7], [0.5]])
    taps = np.concatenate([np.zeros((3, 1)), model(own, [[1.0], [2.0], [3.0]], 200)], -1)
    found = distill(taps, 5, shared=1)
    assert (np.asarray(found.order) == 3).all()
    assert np.allclose(np.sort(found.system.poles.real[0][:3]), [-0.7, 0.5, 0.8])
    assert (relative(found, taps) < 1e-10).all()


def test_optimum_of_the_sum(rng: np.random.Generator) -> None:
    taps = noisy(rng, 3)
    found = distill(taps, 2, shared=1, gtol=1e-7, restarts=8)
    assert found.converged.all()
    unit = taps[:, 1:] / np.linalg.norm(taps[:, 1:], axis=-1, keepdims=True)
    target = np.concatenate([unit, np.zeros((3, 300))], -1)

    def residual(x: np.ndarray) -> np.ndarray:
        modes = (x[0] * np.exp(1j * x[1])) ** np.arange(target.shape[-1])
        columns = np.stack([modes.real, modes.imag], -1)
        return (target.T - columns @ np.linalg.lstsq(columns, target.T, rcond=None)[0]).ravel()

    starts = [(0.8, angle) for angle in np.linspace(0.1, 3, 15)]
    best = min(least_squares(residual, x, bounds=([0, 0], [0.999, np.pi])).cost for x in starts)
    assert np.sum(found.error**2) <= 2 * best * (1 + 1e-6)


def test_newton_takes_off_what_the_start_leaves() -> None:
    taps = np.asarray(hyena_filters().taps, float)[::4, :1024].reshape(4, 4, 1024)
    balanced, found = (distill(taps, 12, shared=1, method=method) for method in ("balanced", "l2"))
    sums = [np.sum(np.asarray(f.error) ** 2, axis=-1) for f in (balanced, found)]
    assert (sums[1] < sums[0]).all()
    # each by itself does better, and what no system of the order gets below holds for each
    assert np.median(distill(taps, 12).error) < np.median(found.error)
    assert (found.certificate.lower_bound <= found.certificate.hankel * (1 + 1e-9)).all()


def test_groups_are_their_own(rng: np.random.Generator) -> None:
    taps = noisy(rng, 2, 3, 4)
    found = distill(taps, 3, shared=1, chunk=5)
    assert found.system.poles.shape == (2, 3, 1, 3)
    for i, j in np.ndindex(2, 3):
        alone = distill(taps[i, j], 3, shared=1)
        assert np.allclose(np.sort_complex(alone.system.poles[0]), np.sort_complex(found.system.poles[i, j, 0]), rtol=1e-4)
    assert distill(taps, 3, shared=2).system.poles.shape == (2, 1, 1, 3)
    assert distill(taps, 3, shared=3).system.poles.shape == (1, 1, 1, 3)


def test_bad_filters_leave_the_group_alone(rng: np.random.Generator) -> None:
    taps = noisy(rng, 2, 4)
    spoiled = np.concatenate([taps, np.zeros((2, 1, 80)), np.full((2, 1, 80), np.nan)], axis=1)
    spoiled[1] = np.nan
    found, alone = distill(spoiled, 3, shared=1), distill(taps[0], 3, shared=1)
    assert np.allclose(np.sort_complex(found.system.poles[0, 0]), np.sort_complex(alone.system.poles[0]), rtol=1e-4)
    assert np.isfinite(found.system.residues[0, :5]).all()
    assert (found.system.residues[0, 4] == 0).all()
    assert np.isnan(found.system.residues[0, 5]).all()
    assert np.isnan(found.system.poles[1]).all()
    assert list(found.converged[0]) == [True] * 5 + [False]
    assert not found.converged[1].any()


@pytest.mark.parametrize("options", [{"max_modulus": 0.7}, {"real_poles": True}, {"weights": np.linspace(1, 0.1, 80)}])
def test_with_everything_else(rng: np.random.Generator, options: dict[str, Any]) -> None:
    taps = noisy(rng, 2, 4)
    found = distill(taps, 4, shared=1, **options)
    assert found.system.poles.shape == (2, 1, 4)
    assert (relative(found, taps) < 1).all()
    assert (np.abs(found.system.poles) <= options.get("max_modulus", 1)).all()
    assert "real_poles" not in options or (found.system.poles.imag == 0).all()


def test_kinds_are_kept(xp: Any) -> None:
    if xp.name == "strict":
        pytest.skip("the Hankel subspace of a bank is worked on in place")
    found = distill(xp.asarray(np.asarray(hyena_filters().taps[:8, :300]).reshape(2, 4, 300)), 4, shared=1)
    assert xp.owns(found.system.poles)
    assert tuple(found.system.poles.shape) == (2, 1, 4)
    assert (xp.numpy(found.error) < 1).all()


def test_too_many_axes() -> None:
    with pytest.raises(ValueError, match="shared: expected at most 1, the batch axes of the filters, got 2"):
        distill(np.ones((3, 20)), 2, shared=2)


def test_filters_that_are_zero_do_not_count(rng: np.random.Generator) -> None:
    class Sum:
        energy = np.array([2.0, 0.0, 4.0, 1.0])

    group = Grouped.of(Sum(), 2)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(group.energy, [1.0, 2.0])
    assert np.array_equal(group.joined(np.array([1.0, 5.0, 1.0, 1.0])), [0.5, 1.25])
