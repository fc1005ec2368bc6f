"""Balanced stochastic truncation: the relative bound on a grid, the phase system by its factor, floors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from ssmid import balanced_truncation, frequency_response, ss, zeros, zpk
from ssmid.reduction.stochastic import stochastic_truncation
from tests.analysis.test_hinf import benchmark
from tests.reduction.test_balanced import random_system


def relative_error(original, reduced, omega: np.ndarray) -> float:
    """The largest singular value of ``H^-1 (H - H_r)`` (of the right or left inverse) over the frequencies."""
    values = (np.asarray(frequency_response(s, omega).values).reshape(s.outputs, s.inputs, -1) for s in (original, reduced))
    H, G = (np.moveaxis(v, -1, 0) for v in values)
    H, G = (H.swapaxes(1, 2), G.swapaxes(1, 2)) if original.outputs > original.inputs else (H, G)
    # H = W U with U U* = I: the error counts through the square root of H H*, Green's generalization to wide systems
    return max(np.linalg.norm(np.linalg.solve(scipy.linalg.sqrtm(h @ h.conj().T), h - g), 2) for h, g in zip(H, G, strict=True))


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 2), (3, 2), (2, 3)])
def test_the_relative_bound_holds(rng, discrete, m, p):
    system = random_system(rng, discrete, 8, m, p)
    omega = np.linspace(0, np.pi, 200) if discrete else np.concatenate([[0], np.geomspace(1e-2, 1e3, 300)])
    for order in (2, 5, 7):
        fit = stochastic_truncation(system, order)
        assert fit.stable
        assert relative_error(system, fit.system, omega) <= fit.relative_bound * (1 + 1e-6)
        assert (np.diff(fit.phase_sigma) <= 1e-12).all()
        assert fit.phase_sigma[0] <= 1


def test_first_order_phase_system_in_closed_form():
    """H = (s + b) / (s + a), a, b > 0: W = H, the phase system H~^-1 H = (b + s)(a - s) / ((b - s)(a + s)) has the stable part of
    one pole -a with the residue 2 a (b - a) / (a + b) and so the Hankel value |b - a| / (a + b)."""
    a, b = 1.0, 7.0
    fit = stochastic_truncation(zpk([-b], [-a], 1.0, dt=0), 1)
    np.testing.assert_allclose(fit.phase_sigma, [(b - a) / (a + b)], rtol=1e-10)


def test_zeros_beyond_the_boundary_count_as_phase_one():
    """An all-pass factor cannot be approximated with a relative error below one: as many phase values as such zeros are 1."""
    system = zpk([2.0, -3.0, 5.0], [-1.0, -4.0, -6.0], 1.0, dt=0)
    fit = stochastic_truncation(system, 2)
    np.testing.assert_allclose(fit.phase_sigma[:2], 1.0, rtol=1e-8)
    assert fit.phase_sigma[2] < 0.9
    own = zeros(fit.system)
    assert (own.real > 0).sum() == 2


def test_relative_errors_are_smaller_than_those_of_balanced_truncation(shared_data):
    """Balanced truncation is ten times the system wrong where the system's gain is small."""
    system = benchmark(shared_data, "build")
    omega = np.geomspace(0.1, 1e3, 200)
    relative, plain = stochastic_truncation(system, 6).system, balanced_truncation(system, 6).system
    assert relative_error(system, relative, omega) < 0.25 * relative_error(system, plain, omega)


@pytest.mark.parametrize(("name", "order"), [("build", 20), ("CDplayer", 20), ("heat-cont", 5)])
def test_benchmarks_without_feedthrough_get_a_floor(shared_data, name, order):
    system = benchmark(shared_data, name)
    fit = stochastic_truncation(system, order, floor=0.1)
    assert fit.stable
    assert np.isfinite(fit.relative_bound)
    omega = np.geomspace(1e-2, 1e4, 200)
    H, G = (np.asarray(frequency_response(s, omega).values) for s in (system, fit.system))
    H, G = (np.moveaxis(v.reshape(system.outputs, system.inputs, -1), -1, 0) for v in (H, G))
    floor = 0.1 * fit.sigma[0]
    for h, g in zip(H, G, strict=True):
        root = scipy.linalg.sqrtm(h @ h.conj().T + floor**2 * np.eye(len(h)))
        assert np.linalg.norm(np.linalg.solve(root, h - g), 2) <= fit.relative_bound * (1 + 1e-6)


def test_large_floors_give_balanced_truncation():
    system = zpk([-3.0, -20.0], [-1.0, -2.0, -30.0], 2.0, dt=0)
    fit, plain = stochastic_truncation(system, 1, floor=1e4), balanced_truncation(system, 1)
    omega = np.geomspace(0.01, 100, 20)
    np.testing.assert_allclose(frequency_response(fit.system, omega).values, frequency_response(plain.system, omega).values, rtol=1e-5)


def test_bad_floors():
    strictly_proper = ss(np.diag([-1.0, -2.0]), np.ones((2, 1)), np.ones((1, 2)), dt=0)
    with pytest.raises(ValueError, match="floor: expected a positive number for a system whose feedthrough has not full rank, got 0"):
        stochastic_truncation(strictly_proper, 1, floor=0)
    assert stochastic_truncation(strictly_proper, 1).stable
    with pytest.raises(ValueError, match="floor: expected a number >= 0, got -1"):
        stochastic_truncation(strictly_proper, 1, floor=-1)
