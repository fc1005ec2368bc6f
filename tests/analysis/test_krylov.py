"""Block Golub-Kahan-Lanczos against dense decompositions of operators that have one."""

from __future__ import annotations

import numpy as np
import pytest

from ssmid.analysis.krylov import Operator, leading_triplets

ROWS, COLUMNS = 60, 50


def operator_of(A):
    """The operator of matrices ``(batch, rows, columns)``, rows being vectors."""

    def take(indices):
        return operator_of(A[indices])

    return Operator(A.shape[-2], A.shape[-1], lambda x: x @ A.mT, lambda y: y @ A.conj(), take)


def matrices_with(rng, sigma, batch, complex_=False):
    """Random matrices with the given singular values."""

    def orthonormal(n):
        X = rng.standard_normal((batch, n, len(sigma)))
        return np.linalg.qr(X + 1j * rng.standard_normal(X.shape) if complex_ else X)[0]

    return orthonormal(ROWS) * sigma @ orthonormal(COLUMNS).conj().mT


def search(A, count, **options):
    settings = {"rtol": 1e-9, "block": 2, "basis": 20, "max_products": 20_000} | options
    return leading_triplets(operator_of(A), count, A, **settings)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(
    "sigma", [0.5 ** np.arange(50), 1 / (1 + np.arange(50)), np.linspace(2, 1, 50)], ids=["geometric", "harmonic", "slow"]
)
def test_triplets_are_those_of_the_matrix_through_restarts(rng, sigma, complex_):
    A = matrices_with(rng, sigma, 3, complex_)
    found = search(A, 5)
    assert found.converged.all()
    np.testing.assert_allclose(found.sigma, np.broadcast_to(sigma[:5], (3, 5)), atol=1e-9)
    # A right = sigma left and A* left = sigma right, in rows
    np.testing.assert_allclose(found.right @ A.mT, found.sigma[..., None] * found.left, atol=1e-12)
    np.testing.assert_allclose(found.left @ A.conj(), found.sigma[..., None] * found.right, atol=3e-9)
    for vectors in (found.left, found.right):
        np.testing.assert_allclose(vectors.conj() @ vectors.mT, np.broadcast_to(np.eye(5), (3, 5, 5)), atol=1e-13)


def test_the_slow_spectrum_does_restart(rng):
    A = matrices_with(rng, np.linspace(2, 1, 50), 1)
    assert search(A, 5).products > 2 * 20  # more than both bases hold


def test_error_bars_hold_while_nothing_has_converged(rng):
    A = matrices_with(rng, np.linspace(2, 1, 50), 4)
    true = np.linalg.svd(A)[1]
    found = search(A, 5, max_products=40)
    assert not found.converged.all()
    nearest = np.abs(found.sigma[:, :, None] - true[:, None, :]).min(-1)
    assert (nearest <= found.error).all()
    assert (found.sigma <= true[:, :5] + 1e-12).all(), "Ritz values are lower bounds"


def test_converged_says_which_values_are_within_the_tolerance(rng):
    A = matrices_with(rng, np.concatenate([[100.0], np.linspace(2, 1, 49)]), 1)
    found = search(A, 5, max_products=30)
    assert found.converged[0, 0]
    assert not found.converged[0, 4]


def test_a_value_of_multiplicity_larger_than_the_block_is_found_whole(rng):
    sigma = np.concatenate([[3.0] * 4, 0.5 ** np.arange(46)])
    found = search(matrices_with(rng, sigma, 1), 5, block=2, rtol=1e-12)
    np.testing.assert_allclose(found.sigma[0], [3, 3, 3, 3, 1], atol=1e-10)


def test_operators_of_low_rank_and_zero_leave_orthonormal_vectors(rng):
    A = matrices_with(rng, np.concatenate([[1.0, 0.5], np.zeros(48)]), 2)
    A[1] = 0
    found = search(A, 5)
    np.testing.assert_allclose(found.sigma, [[1, 0.5, 0, 0, 0], [0] * 5], atol=1e-14)
    assert found.converged.all()
    for vectors in (found.left, found.right):
        np.testing.assert_allclose(vectors @ vectors.mT, np.broadcast_to(np.eye(5), (2, 5, 5)), atol=1e-12)


def test_a_batch_is_a_loop_of_singles_whatever_leaves_first(rng):
    spectra = [0.3 ** np.arange(50), np.linspace(2, 1, 50), 1 / (1 + np.arange(50.0)), 0.8 ** np.arange(50), np.linspace(1, 0.9, 50)]
    A = np.concatenate([matrices_with(rng, sigma, 1) for sigma in spectra])
    together = search(A, 5)
    for i in range(len(A)):
        alone = search(A[i : i + 1], 5)
        np.testing.assert_allclose(together.sigma[i], alone.sigma[0], rtol=1e-12)
        assert together.products >= alone.products


def test_elements_that_are_done_take_no_more_products(rng):
    A = np.concatenate([matrices_with(rng, 0.3 ** np.arange(50), 3), matrices_with(rng, np.linspace(2, 1, 50), 1)])
    seen = []

    def counting(operator):
        def apply(x):
            seen.append(len(x))
            return operator.apply(x)

        return Operator(ROWS, COLUMNS, apply, operator.adjoint, lambda indices: counting(operator.take(indices)))

    leading_triplets(counting(operator_of(A)), 5, A, rtol=1e-9, block=2, basis=20, max_products=20_000)
    assert seen[0] == 4
    assert seen[-1] == 1


def test_a_loose_tolerance_relative_to_the_last_value_takes_fewer_products(rng):
    A = matrices_with(rng, np.linspace(2, 1, 50), 1)
    loose, strict = search(A, 5, tail_rtol=1e-3), search(A, 5)
    assert loose.products < strict.products
    assert loose.converged.all()
    assert (loose.error <= 1e-3 * loose.sigma[:, -1:]).all()


def test_a_basis_that_cannot_hold_the_search_is_refused(rng):
    with pytest.raises(ValueError, match="basis: expected 9 to 50 vectors, got 8"):
        search(matrices_with(rng, np.ones(50), 1), 5, basis=8)


def test_a_few_elements_of_a_large_batch_decide_when_all_are_looked_at(rng):
    A = matrices_with(rng, 0.1 ** np.arange(50), 40)
    quick = search(A, 5, basis=40)
    assert quick.products < 2 * 40, "the bases never filled"
    A[7] = matrices_with(rng, np.linspace(2, 1, 50), 1)[0]
    mixed = search(A, 5, basis=40)
    assert mixed.converged.all()
    np.testing.assert_allclose(mixed.sigma, np.linalg.svd(A)[1][:, :5], atol=1e-9)
