"""Sparse state spaces: what they hold and refuse, and that they respond as the dense ones that they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse
import torch

from ssmid import SparseStateSpace, frequency_response, norm, poles, save, to_state_space, zeros
from ssmid.analysis.evaluation import evaluate


def grid(n: int, mass: bool = False, dt: float = 0, inputs: int = 1, outputs: int = 1) -> SparseStateSpace:
    """The heat equation on n x n points with some wind: not symmetric; with ``mass`` a consistent one; discrete by implicit Euler."""
    line = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)) * (n + 1.0) ** 2
    wind = scipy.sparse.diags_array([-1.0, 1.0], offsets=[-1, 1], shape=(n, n)) * 3.0 * (n + 1)
    eye = scipy.sparse.eye_array(n)
    A = (scipy.sparse.kron(line + wind, eye) + scipy.sparse.kron(eye, line)).tocsc()
    element = scipy.sparse.diags_array([1.0, 4.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)) / 6
    E = scipy.sparse.kron(element, element).tocsc() if mass or dt else None
    rng = np.random.default_rng(7)
    B, C = np.zeros((n, n, inputs)), np.zeros((outputs, n, n))
    B[: n // 3, : n // 3] = rng.standard_normal(inputs)
    B[0] += rng.standard_normal((n, inputs))
    C[:, n // 2 :, n // 2] = rng.standard_normal((outputs, 1))
    C[:, 0, -2:] = rng.standard_normal((outputs, 2))
    B, C = B.reshape(n * n, inputs), C.reshape(outputs, n * n)
    if dt:
        return SparseStateSpace(E, dt * B, C, E=E - dt * A, dt=dt)
    return SparseStateSpace(A, B, C, E=E)


@pytest.mark.parametrize(("mass", "dt"), [(False, 0), (True, 0), (False, 0.01)])
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3)])
def test_responds_as_the_dense_system(mass, dt, m, p):
    system = grid(7, mass, dt, m, p)
    dense = to_state_space(system)
    omega = np.array([0.0, 1.0, 30.0, 200.0])
    expected = frequency_response(dense, omega).values
    np.testing.assert_allclose(frequency_response(system, omega).values, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
    points = np.array([1.5, 2 + 1j])
    np.testing.assert_allclose(evaluate(system, points, 1), evaluate(dense, points, 1), rtol=1e-9)
    E = np.eye(49) if system.E is None else system.E.toarray()
    np.testing.assert_allclose(dense.A, np.linalg.solve(E, system.A.toarray()), atol=1e-10 * np.abs(dense.A).max())
    np.testing.assert_allclose(np.sort(poles(system).real), np.sort(poles(dense).real))
    np.testing.assert_allclose(norm(system, "h2"), norm(dense, "h2"))
    assert zeros(system).shape == zeros(dense).shape


def test_an_unsymmetric_pattern(rng):
    A = scipy.sparse.random_array((60, 60), density=0.05, rng=rng) - 3 * scipy.sparse.eye_array(60)
    system = SparseStateSpace(A, rng.standard_normal((60, 2)), rng.standard_normal((1, 60)), [[1.0, 2.0]])
    omega = np.linspace(0, 5, 4)
    np.testing.assert_allclose(frequency_response(system, omega).values, frequency_response(to_state_space(system), omega).values)


def test_small_pivots_exchange_rows():
    """Zeros on the diagonal: elimination without exchanges would fail."""
    A = scipy.sparse.csc_array(np.array([[1e-14, 1.0, 0.0], [-1.0, 1e-14, 1.0], [0.0, -1.0, -0.5]]))
    system = SparseStateSpace(A, np.ones((3, 1)), np.ones((1, 3)))
    np.testing.assert_allclose(evaluate(system, np.array([0.0])), evaluate(to_state_space(system), np.array([0.0])), rtol=1e-12)


def test_a_point_on_a_pole_is_nan():
    system = SparseStateSpace(scipy.sparse.eye_array(3) * -1.0, np.ones((3, 1)), np.ones((1, 3)))
    values = evaluate(system, np.array([-1.0, 1.0]))
    assert np.isnan(values[0])
    np.testing.assert_allclose(values[1], 1.5)


def test_what_it_says_and_keeps():
    system = grid(4)
    assert repr(system) == "SparseStateSpace(order=16, outputs=1, inputs=1, nonzeros=64, batch=(), dt=0, float64)"
    assert (system.order, system.inputs, system.outputs, system.batch_shape, system.is_complex) == (16, 1, 1, (), False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        system.dt = 2  # pyright: ignore
    single = SparseStateSpace(system.A, system.B.astype(np.float32), system.C.astype(np.float32))
    assert frequency_response(single, [1.0]).values.dtype == np.complex64


def test_bad_input():
    eye, B, C = scipy.sparse.eye_array(3), np.ones((3, 1)), np.ones((1, 3))
    with pytest.raises(ValueError, match=r"A: expected a square matrix, got shape \(2, 3\)"):
        SparseStateSpace(scipy.sparse.csr_array(np.ones((2, 3))), B, C)
    with pytest.raises(ValueError, match=r"expected matrices .*'B': \(3, 1\).* got .*'E': \(2, 2\)"):
        SparseStateSpace(eye, B, C, E=scipy.sparse.eye_array(2))
    with pytest.raises(ValueError, match="A: expected a real matrix, got dtype complex128"):
        SparseStateSpace(1j * eye, B, C)
    with pytest.raises(ValueError, match="expected real matrices for a SparseStateSpace, got complex"):
        SparseStateSpace(eye, 1j * B, C)
    with pytest.raises(ValueError, match="A: expected finite numbers, got nan"):
        SparseStateSpace(eye * np.nan, B, C)
    with pytest.raises(ValueError, match=r"B: expected finite numbers, got inf at index \(0, 0\)"):
        SparseStateSpace(eye, B * np.inf, C)
    with pytest.raises(TypeError, match="A: expected a SciPy sparse matrix, got Tensor"):
        SparseStateSpace(torch.eye(3), B, C)
    with pytest.raises(TypeError, match="B: expected a NumPy array beside sparse matrices"):
        SparseStateSpace(eye, torch.ones(3, 1), torch.ones(1, 3))
    with pytest.raises(ValueError, match="E: expected a nonsingular matrix"):
        to_state_space(SparseStateSpace(eye, B, C, E=0 * eye))
    large = SparseStateSpace(scipy.sparse.eye_array(5001) * -1.0, np.ones((5001, 1)), np.ones((1, 5001)))
    for verb in (to_state_space, poles, lambda s: norm(s, "h2")):
        with pytest.raises(ValueError, match="expected at most 5000 states for dense algebra, got 5001: reduce the system first"):
            verb(large)
    with pytest.raises(TypeError, match="expected a System"):
        save(grid(3), "model.json")
