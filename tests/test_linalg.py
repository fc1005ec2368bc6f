"""Structured products against the matrices they stand for, decompositions against their definitions."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmid import linalg


def random_nodes(rng, *shape, radius=1.0):
    return radius * np.sqrt(rng.uniform(size=shape)) * np.exp(2j * np.pi * rng.uniform(size=shape))


def hankel_matrix(taps, rows, columns):
    padded = np.concatenate([taps, np.zeros(rows + columns)])
    return padded[np.add.outer(np.arange(rows), np.arange(columns))]


def test_vandermonde_product_is_the_sum_of_powers(xp, rng):
    nodes, weights = random_nodes(rng, 3, 5), random_nodes(rng, 3, 5)
    expected = np.einsum("bd,bdt->bt", weights, nodes[..., None] ** np.arange(37))
    got = linalg.vandermonde_product(xp.asarray(nodes), xp.asarray(weights), 37)
    assert xp.owns(got)
    np.testing.assert_allclose(xp.numpy(got), expected, atol=1e-14)


def test_vandermonde_product_at_zero_and_on_the_circle(xp):
    """0^0 is 1, and 20,000 turns on the unit circle lose no more than the conditioning t * eps allows."""
    node = np.exp(0.7j)
    got = xp.numpy(linalg.vandermonde_product(xp.asarray(np.array([0j, node])), xp.asarray(np.array([2 + 0j, 1])), 20_000))
    with mpmath.workdps(40):
        exact = [complex(mpmath.mpmathify(complex(node)) ** t) + 2 * (t == 0) for t in (0, 1, 777, 19_999)]
    np.testing.assert_allclose(got[[0, 1, 777, 19_999]], exact, atol=20_000 * 2e-16)


def test_vandermonde_product_in_chunks_of_modes(monkeypatch, rng):
    nodes, weights = random_nodes(rng, 50), random_nodes(rng, 50)
    whole = linalg.vandermonde_product(nodes, weights, 100)
    monkeypatch.setitem(linalg._CHUNK_BYTES, "host", 16 * 20 * 3)
    np.testing.assert_allclose(linalg.vandermonde_product(nodes, weights, 100), whole, atol=1e-13)


def test_cauchy_product_is_the_partial_fraction_sum(xp, rng, monkeypatch):
    monkeypatch.setitem(linalg._CHUNK_BYTES, "host", 16 * 4 * 2 * 3)
    points, nodes, weights = 2 + random_nodes(rng, 7), random_nodes(rng, 2, 4), random_nodes(rng, 2, 4)
    got = linalg.cauchy_product(xp.asarray(points), xp.asarray(nodes), xp.asarray(weights))
    expected = (weights[:, None, :] / (points[:, None] - nodes[:, None, :])).sum(-1)
    np.testing.assert_allclose(xp.numpy(got), expected, rtol=1e-13)


@given(length=st.integers(1, 30), rows=st.integers(1, 20), columns=st.integers(1, 20), is_complex=st.booleans(), seed=st.integers(0, 2**31))
def test_hankel_operator_is_the_hankel_matrix(length, rows, columns, is_complex, seed):
    rng = np.random.default_rng(seed)
    taps, x = rng.standard_normal(length), rng.standard_normal((columns, 2))
    if is_complex:
        taps, x = taps + 1j * rng.standard_normal(length), x + 1j * rng.standard_normal(x.shape)
    np.testing.assert_allclose(linalg.hankel_operator(taps, rows, columns)(x), hankel_matrix(taps, rows, columns) @ x, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_hankel_operator_over_a_batch(xp, rng, dtype):
    taps, x = rng.standard_normal((2, 9)).astype(dtype), rng.standard_normal((2, 6, 3)).astype(dtype)
    got = linalg.hankel_operator(xp.asarray(taps), 5, 6)(xp.asarray(x))
    assert xp.owns(got)
    np.testing.assert_allclose(xp.numpy(got), np.stack([hankel_matrix(t, 5, 6) @ v for t, v in zip(taps, x, strict=True)]), atol=1e-13)


def test_eig_keeps_pairs_and_reports_the_bad_element(xp, rng):
    A = rng.standard_normal((130, 4, 4))
    A[7, 0, 0] = np.nan
    values, vectors = (xp.numpy(v) for v in linalg.eig(xp.asarray(A)))
    assert np.isnan(values[7]).all()
    good = np.delete(np.arange(130), 7)
    np.testing.assert_allclose(A[good] @ vectors[good], vectors[good] * values[good][:, None, :], atol=1e-12)
    imaginary = np.sort(values[good].imag, axis=-1)
    np.testing.assert_array_equal(imaginary, -imaginary[:, ::-1])
    expected = np.sort(np.linalg.eigvals(A[good]).astype(complex))
    np.testing.assert_array_equal(np.sort(xp.numpy(linalg.eigvals(xp.asarray(A)))[good]), expected)


@pytest.mark.parametrize("condition", [1.0, 1e8, 1e14])
def test_orthonormalize_spans_and_is_orthonormal(xp, rng, condition):
    X = np.linalg.qr(rng.standard_normal((2, 40, 6)))[0] * np.geomspace(1, 1 / condition, 6) @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
    Q = xp.numpy(linalg.orthonormalize(xp.asarray(X)))
    np.testing.assert_allclose(np.swapaxes(Q, -1, -2) @ Q, np.broadcast_to(np.eye(6), (2, 6, 6)), atol=1e-13)
    np.testing.assert_allclose(Q @ (np.swapaxes(Q, -1, -2) @ X), X, atol=1e-13)


def test_triangular_solve(xp, rng):
    R, B = np.triu(rng.standard_normal((3, 5, 5))) + 5 * np.eye(5), rng.standard_normal((3, 5, 2))
    np.testing.assert_allclose(R @ xp.numpy(linalg.solve_triangular(xp.asarray(R), xp.asarray(B))), B, atol=1e-13)
    L = np.swapaxes(R, -1, -2).copy()
    np.testing.assert_allclose(L @ xp.numpy(linalg.solve_triangular(xp.asarray(L), xp.asarray(B), lower=True)), B, atol=1e-13)


@pytest.mark.parametrize("kind", ["full", "graded", "low rank", "zero", "tiny", "complex"])
@pytest.mark.parametrize("n", [33, 64, 80])
def test_block_jacobi_is_a_singular_value_decomposition(rng, n, kind):
    U, V = (np.linalg.qr(rng.standard_normal((6, n, n)))[0] for _ in range(2))
    sigma = {"graded": 0.5 ** np.arange(n), "low rank": 1.0 * (np.arange(n) < 5), "zero": np.zeros(n), "tiny": 1e-120 / np.arange(1, n + 1)}
    A = U * sigma.get(kind, 1 / np.arange(1, n + 1)) @ V
    A = A + 1j * V if kind == "complex" else A
    left, values, right = linalg.jacobi_svd(A)
    exact = np.linalg.svd(A)[1]
    np.testing.assert_allclose(values, exact, rtol=0, atol=2e-14 * exact.max())
    np.testing.assert_allclose(left * values[:, None, :] @ right, A, rtol=0, atol=2e-14 * exact.max())
    for Q in (left, right):
        np.testing.assert_allclose(Q @ Q.conj().mT, np.broadcast_to(np.eye(n), A.shape), atol=2e-14)


def test_block_jacobi_marks_what_is_not_finite(rng):
    A = rng.standard_normal((3, 40, 40))
    A[1, 2, 3] = np.nan
    values = linalg.jacobi_svd(A)[1]
    assert np.isnan(values[1]).all()
    np.testing.assert_allclose(values[[0, 2]], np.linalg.svd(A[[0, 2]])[1], rtol=1e-12)


def test_numerical_rank_counts_what_is_more_than_rounding(rng):
    """Of products of known rank, at any scale; nothing of zeros, and nothing of what is not a number."""
    matrices = rng.standard_normal((4, 30, 5)) @ rng.standard_normal((4, 5, 30)) * np.array([1.0, 1e-200, 1e150, 0.0])[:, None, None]
    sigma = np.linalg.svd(matrices)[1]
    assert linalg.numerical_rank(sigma).tolist() == [5, 5, 5, 0]
    assert linalg.numerical_rank(np.array([1.0, 1e-13, 1e-15])) == 2
    assert linalg.numerical_rank(np.full(3, np.nan)) == 0
