"""Modal truncation: poles stay where they are, pairs and clusters together, the bound holds."""

from __future__ import annotations

import numpy as np
import pytest

from ssmid import StateSpace, dc_gain, norm, poles, ss
from ssmid.reduction.modal_truncation import modal_truncation
from tests.analysis.test_hinf import benchmark
from tests.reduction.test_balanced import random_system


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("dominance", ["peak", "h2"])
def test_poles_stay_and_the_error_is_bounded(rng, discrete, dominance):
    system = random_system(rng, discrete, 10, 2, 2)
    fit = modal_truncation(system, 5, dominance=dominance)
    own = poles(system)
    for pole in poles(fit.system):
        assert np.abs(own - pole).min() < 1e-9 * abs(pole)
    assert fit.stable
    assert fit.measured("hinf") <= fit.bound * (1 + 1e-6)
    assert fit.lower_bound <= fit.measured("hankel") * (1 + 1e-6)
    dropped = [pole for change in fit.changes for pole in change.poles]
    assert len(dropped) == 10 - fit.system.order
    np.testing.assert_allclose(np.sort_complex([*dropped, *poles(fit.system)]), np.sort_complex(own), rtol=1e-8)
    assert {change.action for change in fit.changes} == {"dropped"}


@pytest.mark.parametrize("discrete", [False, True])
def test_dominance_is_residue_over_damping(discrete):
    """Of real poles with residues r the largest |r| / |Re pole| (2 |r| / (1 - pole^2)) are kept, or the largest energies."""
    own = np.array([0.9, 0.5, -0.2, 0.1]) if discrete else np.array([-0.1, -1.0, -4.0, -9.0])
    residues = np.array([0.3, 1.2, -2.2, 1.0]) if discrete else np.array([0.3, 2.0, -15.0, 20.0])
    system = ss(np.diag(own), np.ones((4, 1)), residues[None], dt=int(discrete))
    peaks = 2 * np.abs(residues) / (1 - own**2) if discrete else np.abs(residues) / np.abs(own)
    energies = np.abs(residues) / np.sqrt(1 - own**2) if discrete else np.abs(residues) / np.sqrt(2 * np.abs(own))
    for dominance, weights in (("peak", peaks), ("h2", energies)):
        for order in (1, 2, 3):
            kept = own[np.argsort(-weights)[:order]]
            np.testing.assert_allclose(np.sort(poles(modal_truncation(system, order, dominance=dominance).system).real), np.sort(kept))


def test_pairs_are_kept_whole():
    """A pair that does not fit gives way to the next real pole; nothing is split."""
    A = np.zeros((5, 5))
    A[:2, :2], A[2:4, 2:4], A[4, 4] = [[-0.01, 1], [-1, -0.01]], [[-0.02, 5], [-5, -0.02]], -1.0
    system = ss(A, np.ones((5, 1)), np.ones((1, 5)), dt=0)
    fit = modal_truncation(system, 3)
    np.testing.assert_allclose(np.sort_complex(poles(fit.system)), [-1, -0.01 - 1j, -0.01 + 1j])
    pair = StateSpace(A[:4, :4], system.B[:4], system.C[:, :4], dt=0)
    smaller = modal_truncation(pair, 3)
    assert smaller.order == smaller.system.order == 2
    assert modal_truncation(pair, 1).order == 0


def test_a_cluster_stays_together():
    """Three poles of one Jordan block cannot be separated: they go or stay as one."""
    A = np.diag([-1.0, -1.0, -1.0, -3.0]) + np.diag([1.0, 1.0, 0.0], 1)
    system = ss(A, np.array([[0.1], [0.2], [1.0], [1.0]]), np.array([[1.0, 0.3, 0.2, 2.0]]), dt=0)
    assert modal_truncation(system, 2).order == 1
    fit = modal_truncation(system, 3)
    np.testing.assert_allclose(poles(fit.system).real, -1.0, atol=1e-4)
    assert fit.condition < 1e7
    assert fit.measured("hinf") <= fit.bound * (1 + 1e-6)


@pytest.mark.parametrize("discrete", [False, True])
def test_dc_gain_is_kept_on_request(rng, discrete):
    system = random_system(rng, discrete, 8, 2, 3)
    fit = modal_truncation(system, 4, match_dc=True)
    np.testing.assert_allclose(dc_gain(fit.system), dc_gain(system), rtol=1e-9, atol=1e-12)
    assert np.abs(dc_gain(modal_truncation(system, 4).system) - dc_gain(system)).max() > 1e-6
    assert fit.measured("hinf") <= fit.bound * (1 + 1e-6)


@pytest.mark.parametrize(("name", "order"), [("build", 12), ("CDplayer", 20), ("iss_siso", 20)])
def test_benchmarks(shared_data, name, order):
    system = benchmark(shared_data, name)
    fit = modal_truncation(system, order)
    assert fit.order == order
    assert fit.error < 0.35
    assert fit.measured("hinf") <= fit.bound * (1 + 1e-6)
    assert norm(fit.system, "h2") < 1.1 * norm(StateSpace(system.A, system.B, system.C, dt=0), "h2")


def test_an_unknown_dominance():
    with pytest.raises(ValueError, match="dominance: expected 'peak' or 'h2', got 'size'"):
        modal_truncation(ss(0.5, 1, 1), 1, dominance="size")
