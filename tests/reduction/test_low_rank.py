"""Low-rank Gramian factors and what is made of them: against dense Lyapunov solvers, with mass matrices, in both times, at scale."""

from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from ssmid import SparseStateSpace, balanced_truncation, dc_gain, frequency_response, gramian_factors, irka, to_state_space
from ssmid.analysis.adi import low_rank_gramians
from ssmid.datasets import fom
from tests.analysis.test_hinf import benchmark
from tests.reduction.test_balanced import certified
from tests.reduction.test_irka import interpolation_residual
from tests.systems.test_sparse import grid

KINDS = [(False, 0), (True, 0), (False, 0.002)]


def sparse_fom() -> SparseStateSpace:
    dense = fom()
    return SparseStateSpace(scipy.sparse.csc_array(dense.A), dense.B, dense.C)


def dense_gramians(system: SparseStateSpace) -> tuple[np.ndarray, np.ndarray]:
    A, B, C = (np.asarray(M) for M in (to_state_space(system).A, to_state_space(system).B, system.C))
    if system.is_discrete:
        return scipy.linalg.solve_discrete_lyapunov(A, B @ B.T), scipy.linalg.solve_discrete_lyapunov(A.T, C.T @ C)
    return scipy.linalg.solve_continuous_lyapunov(A, -B @ B.T), scipy.linalg.solve_continuous_lyapunov(A.T, -C.T @ C)


@pytest.mark.parametrize(("mass", "dt"), KINDS)
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3)])
def test_factors_against_dense_solvers(mass, dt, m, p):
    system = grid(8, mass, dt, m, p)
    R, L = gramian_factors(system)
    for factor, gramian in zip((R, L), dense_gramians(system), strict=True):
        np.testing.assert_allclose(factor @ factor.T, gramian, atol=1e-9 * np.abs(gramian).max())
    found = low_rank_gramians(system)
    assert found.converged
    assert found.R.dtype == np.float64


def test_a_zero_input_has_no_columns():
    system = grid(20)
    silent = SparseStateSpace(system.A, 0 * system.B, system.C)
    R, L = gramian_factors(silent)
    assert R.shape == (400, 0)
    assert L.shape[1] > 0
    fit = balanced_truncation(silent, 1)
    assert fit.order == 0
    assert fit.error == 0


@pytest.mark.parametrize(("mass", "dt"), KINDS)
def test_balanced_truncation_against_the_dense_one(mass, dt):
    system = grid(19, mass, dt, 2, 2)
    fit = balanced_truncation(system, 6)
    certified(fit)
    assert fit.stable
    assert fit.residual <= 1e-12
    assert fit.original is system
    Wc, Wo = dense_gramians(system)
    expected = np.sqrt(np.sort(np.abs(np.linalg.eigvals(Wc @ Wo)))[::-1][:6])
    np.testing.assert_allclose(fit.sigma[:6], expected, rtol=1e-5)
    omega = np.geomspace(1, 1000, 5)
    gap = frequency_response(system, omega).values - frequency_response(fit.system, omega).values
    assert np.linalg.norm(gap, 2, axis=(0, 1)).max() <= fit.bound * (1 + 1e-6)


def test_penzls_model_keeps_its_hankel_values():
    fit = balanced_truncation(sparse_fom(), 10)
    np.testing.assert_allclose(fit.sigma[:3], [50.05095592, 49.99513636, 49.9924285], rtol=1e-8)
    certified(fit)
    np.testing.assert_allclose(fit.error, 0.00291794, rtol=2e-6)  # of dense Gramians, and of pyMOR 2026.1


@pytest.mark.filterwarnings("ignore:low-rank ADI:UserWarning")
@pytest.mark.parametrize("name", ["iss_siso", "CDplayer"])
def test_lightly_damped_benchmarks(shared_data, name):
    """Small systems are made dense; their low-rank factors are right all the same."""
    dense = benchmark(shared_data, name)
    system = SparseStateSpace(scipy.sparse.csc_array(dense.A), dense.B, dense.C)
    fit, reference = balanced_truncation(system, 12), balanced_truncation(dense, 12)
    np.testing.assert_allclose(fit.error, reference.error, rtol=1e-6)
    found = low_rank_gramians(system)
    sigma = np.linalg.svd(found.L.T @ found.R, compute_uv=False)
    np.testing.assert_allclose(sigma[:20], reference.sigma[:20], rtol=1e-6)


def test_tolerance_and_dc_gain():
    system = grid(19)
    fit = balanced_truncation(system, tol=1e-4)
    assert fit.bound <= 1e-4 * fit.sigma[0]
    shorter = balanced_truncation(system, tol=1e-3, tol_norm="h2")
    assert shorter.error <= 1e-3
    kept = balanced_truncation(system, 2, match_dc=True)
    exact = frequency_response(system, [0.0]).values.real
    np.testing.assert_allclose(dc_gain(kept.system), exact, rtol=1e-8)
    assert np.abs(dc_gain(balanced_truncation(system, 2).system) - exact) > 1e-6 * abs(exact)


def test_gain_and_time_do_not_matter():
    system = grid(19)
    reference = balanced_truncation(system, 4)
    fast = balanced_truncation(SparseStateSpace(system.A * 1e9, system.B * 1e150, system.C * 1e-90), 4)
    np.testing.assert_allclose(fast.sigma[:6], reference.sigma[:6] * 1e51, rtol=1e-6)
    np.testing.assert_allclose(fast.error, reference.error, rtol=1e-4)


def test_a_hundred_by_hundred_grid_in_seconds():
    system = grid(100)
    start = time.process_time()
    fit = balanced_truncation(system, 8)
    assert time.process_time() - start < 8
    omega = np.array([0.0, 20.0, 300.0])
    gap = frequency_response(system, omega).values - frequency_response(fit.system, omega).values
    assert np.abs(gap).max() <= fit.bound * (1 + 1e-6)
    assert fit.lower_bound <= fit.measured("hankel") * (1 + 1e-6)


def test_unstable_systems_are_refused():
    system = grid(19)
    with pytest.raises(ValueError, match="expected a stable system"):
        balanced_truncation(SparseStateSpace(system.A + 200 * scipy.sparse.eye_array(361), system.B, system.C), 4)
    with pytest.raises(ValueError, match="expected a stable system"):
        gramian_factors(SparseStateSpace(-system.A, system.B, system.C))
    with pytest.raises(ValueError, match="expected a stable system, got a pole at zero"):
        gramian_factors(SparseStateSpace(scipy.sparse.diags_array([0.0, -1.0]), np.ones((2, 1)), np.ones((1, 2))))


def test_bad_requests():
    system = grid(19)
    with pytest.raises(ValueError, match=r"order: expected 1 to \d+, which is what the system carries to rounding, got 300"):
        balanced_truncation(system, 300)
    with pytest.raises(ValueError, match="expected a StateSpace for weights, got a SparseStateSpace"):
        balanced_truncation(system, 4, input_weight=to_state_space(grid(2)))


@pytest.mark.parametrize(("mass", "dt"), KINDS)
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 2)])
def test_irka_meets_its_conditions_on_the_sparse_system(mass, dt, m, p):
    system = grid(19, mass, dt, m, p)
    fit = irka(system, 3)
    assert fit.converged
    assert fit.stable
    assert interpolation_residual(system, fit.system, bool(dt)) < 1e-6
    assert fit.error <= balanced_truncation(system, 3).error


def test_irka_on_penzls_model():
    fit = irka(sparse_fom(), 10)
    assert fit.converged
    np.testing.assert_allclose(fit.error, 0.00195055, rtol=3e-6)  # as pyMOR 2026.1 finds
