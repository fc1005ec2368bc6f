"""Gramian factors: the Lyapunov equations, digits in small Hankel values, banks, every array library."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmid import Modal, StateSpace, ss, zpk
from ssmid.analysis.gramians import gramian_factors, gramians
from ssmid.analysis.lyapunov import schur_gramian_factors


def stable_matrix(rng: np.random.Generator, n: int, discrete: bool, complex_: bool = False) -> np.ndarray:
    A = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0)
    poles = np.linalg.eigvals(A)
    return A * 0.95 / np.abs(poles).max() if discrete else A - (poles.real.max() + 0.1) * np.eye(n)


def residual(A: np.ndarray, X: np.ndarray, B: np.ndarray, discrete: bool) -> float:
    gap = A @ X @ A.conj().T - X + B @ B.conj().T if discrete else A @ X + X @ A.conj().T + B @ B.conj().T
    return np.linalg.norm(gap) / np.linalg.norm(X) / max(1, np.linalg.norm(A))


def hankel_values(R: np.ndarray, L: np.ndarray) -> np.ndarray:
    return np.linalg.svd(np.conj(np.swapaxes(L, -1, -2)) @ R, compute_uv=False)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("n", "m", "p"), [(1, 1, 1), (2, 1, 3), (7, 2, 2), (49, 1, 1), (130, 3, 2)])
def test_the_lyapunov_equations_hold(rng, n, m, p, discrete, complex_):
    A, B, C = stable_matrix(rng, n, discrete, complex_), rng.standard_normal((n, m)), rng.standard_normal((p, n))
    for system in (StateSpace(A, B, C, dt=int(discrete)), StateSpace(A[None], B, C, dt=int(discrete))):
        R, L = gramian_factors(system)
        assert np.iscomplexobj(R) == complex_
        R, L = R.reshape(n, n), L.reshape(n, n)
        assert residual(A, R @ R.conj().T, B, discrete) < 2e-14
        assert residual(A.conj().T, L @ L.conj().T, C.conj().T, discrete) < 2e-14


@pytest.mark.parametrize("discrete", [False, True])
def test_small_hankel_values_keep_their_digits(discrete):
    """Against 60 digits: eight real poles close together, whose Gramians have condition 1e20 and more."""
    poles = np.linspace(0.5, 0.7, 8) if discrete else -np.linspace(1.0, 2.0, 8)
    with mpmath.workdps(60):
        W = mpmath.matrix(8, 8)
        for i in range(8):
            for j in range(8):
                a, b = mpmath.mpf(float(poles[i])), mpmath.mpf(float(poles[j]))
                W[i, j] = 1 / (1 - a * b) if discrete else -1 / (a + b)
        exact = np.array([float(abs(v)) for v in sorted(mpmath.eigsy(W, eigvals_only=True), reverse=True)])
    modal = hankel_values(*gramian_factors(Modal(poles, np.ones(8), dt=int(discrete))))
    states = hankel_values(*schur_gramian_factors(np.diag(poles), np.ones((8, 1)), np.ones((1, 8)), discrete=discrete))
    assert exact[7] < 1e-10 * exact[0]
    for values in (modal, states):
        np.testing.assert_allclose(values, exact, rtol=1e-10, atol=4e-16 * exact[0])


def test_a_long_shift_register_is_exact():
    """A FIR filter as a nilpotent Jordan block: no eigenvectors, Gramians known; in a batch it takes the way round."""
    taps = np.random.default_rng(3).standard_normal(30)
    A, B = np.eye(30, k=-1), np.eye(30)[:, :1]
    H = np.array([[taps[i + j] if i + j < 30 else 0.0 for j in range(30)] for i in range(30)])
    for lead in ((), (2,)):
        R, L = gramian_factors(StateSpace(np.broadcast_to(A, (*lead, 30, 30)), B, taps[None]))
        np.testing.assert_allclose(hankel_values(R, L).reshape(-1, 30)[0], np.linalg.svd(H, compute_uv=False), atol=1e-12)


@pytest.mark.parametrize("pole", [0.999999, -0.999999, 1j * 0.999999])
def test_poles_near_the_circle(pole):
    values = np.array([pole, np.conj(pole), 0.3]) if np.iscomplexobj(pole) else np.array([pole, 0.3])
    A = np.diag(np.abs(values)) if not np.iscomplexobj(pole) else np.array([[0, 0.999999, 0], [-0.999999, 0, 0], [0, 0, 0.3]])
    if not np.iscomplexobj(pole):
        A = np.diag(values)
    n = len(A)
    R, _ = schur_gramian_factors(A, np.ones((n, 1)), np.ones((1, n)), discrete=True)
    X = R @ R.T
    assert abs(X[0, 0] * (1 - 0.999999**2) - 1) < 1e-9
    assert residual(A, X, np.ones((n, 1)), True) < 1e-12


@pytest.mark.parametrize("discrete", [False, True])
def test_a_modal_bank_and_its_state_space_agree(rng, discrete):
    n = 9
    A = np.stack([stable_matrix(rng, n, discrete) for _ in range(5)])
    B, C = rng.standard_normal((5, n, 1)), rng.standard_normal((5, 1, n))
    poles, V = np.linalg.eig(A)
    residues = (C @ V)[:, 0] * np.linalg.solve(V, B)[..., 0]
    expected = hankel_values(*gramian_factors(StateSpace(A, B, C, dt=int(discrete))))
    shuffled = rng.permutation(n)
    R, L = gramian_factors(Modal(poles[:, shuffled], residues[:, shuffled], dt=int(discrete)))
    product = np.conj(np.swapaxes(L, 1, 2)) @ R
    assert np.abs(product.imag).max() < 1e-13 * expected.max()
    np.testing.assert_allclose(hankel_values(R, L), expected, atol=1e-12 * expected.max())
    for k in range(5):  # one pole of each pair with twice the residue is the same system
        upper = poles[k].imag >= 0
        half = Modal(poles[k][upper], np.where(poles[k].imag > 0, 2, 1)[upper] * residues[k][upper], dt=int(discrete))
        np.testing.assert_allclose(hankel_values(*gramian_factors(half))[:n], expected[k], atol=1e-12 * expected.max())


def test_a_batch_is_a_loop_and_bad_elements_stay_alone(rng):
    A = np.stack([stable_matrix(rng, 6, True) for _ in range(4)])
    A[1] *= 2
    A[2, 0, 0] = np.nan
    B, C = rng.standard_normal((4, 6, 2)), rng.standard_normal((4, 1, 6))
    R, L = gramian_factors(StateSpace(A, B, C))
    assert np.isnan(R[1:3]).all()
    assert np.isnan(L[1:3]).all()
    for k in (0, 3):
        np.testing.assert_allclose(R[k] @ R[k].T, gramians(StateSpace(A[k], B[k], C[k]))[0], rtol=1e-11)
    with pytest.raises(ValueError, match="expected a stable system, got the pole"):
        gramian_factors(StateSpace(A[1], B[1], C[1]))
    with pytest.raises(ValueError, match="expected a stable system, got the pole 1"):
        gramian_factors(ss(1.0, 1, 1))
    with pytest.raises(TypeError, match="to_state_space"):
        gramian_factors(zpk([], [0.5], 1.0))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.floats(-150, 150), st.booleans(), st.integers(0, 2**31))
def test_any_scale(n, exponent, discrete, seed):
    rng = np.random.default_rng(seed)
    A, B, C = stable_matrix(rng, n, discrete), rng.standard_normal((n, 2)), rng.standard_normal((1, n))
    plain = hankel_values(*gramian_factors(StateSpace(A, B, C, dt=int(discrete))))
    scale = 10.0**exponent
    scaled = [(A, B * scale, C / scale), (A, B / scale, C * scale)]
    if not discrete:
        scaled.append((A * scale, B * scale, C))
    for matrices in scaled:
        single = gramian_factors(StateSpace(*matrices, dt=int(discrete)))
        bank = gramian_factors(StateSpace(*(M[None] for M in matrices), dt=int(discrete)))
        for R, L in (single, (bank[0][0], bank[1][0])):
            np.testing.assert_allclose(hankel_values(R, L), plain, atol=1e-12 * plain[0])


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("count", [3, 200])
def test_a_bank_with_more_inputs_than_states(rng, discrete, count):
    """Real and complex, by pieces of a large bank too: each element as it is alone."""
    A = np.stack([stable_matrix(rng, 5, discrete) for _ in range(count)])
    B, C = rng.standard_normal((count, 5, 7)), rng.standard_normal((count, 2, 5))
    for field in (1, 1j):
        R, L = gramian_factors(StateSpace(A, B * field, C, dt=int(discrete)))
        assert R.shape == L.shape == A.shape
        for k in (0, count - 1):
            Wc, Wo = gramians(StateSpace(A[k], B[k], C[k], dt=int(discrete)))
            np.testing.assert_allclose(R[k] @ R[k].conj().T, Wc, atol=1e-11 * np.abs(Wc).max())
            np.testing.assert_allclose(L[k] @ L[k].conj().T, Wo, atol=1e-11 * np.abs(Wo).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_array_library(xp, rng, dtype):
    A = np.stack([stable_matrix(rng, 5, True) for _ in range(3)])
    B, C = rng.standard_normal((3, 5, 1)), rng.standard_normal((3, 1, 5))
    bank = StateSpace(*(xp.asarray(M, dtype) for M in (A, B, C)))
    single = StateSpace(*(xp.asarray(M[0], dtype) for M in (A, B, C)))
    values = np.array([[0.5 + 0.5j, 0.5 - 0.5j, -0.3]])
    modal = Modal(xp.asarray(values, "complex64" if dtype == "float32" else None), xp.asarray(np.ones(3), dtype))
    for system in (bank, single, modal):
        R, L = gramian_factors(system)
        assert xp.owns(R)
        assert xp.owns(L)
        kinds = {"float64": "complex128", "float32": "complex64"}
        assert str(R.dtype).endswith(kinds[dtype] if system is modal else dtype)
    expected = gramians(StateSpace(A, B, C))[0]
    np.testing.assert_allclose(xp.numpy(gramians(bank)[0]), expected, atol=(1e-12 if dtype == "float64" else 1e-5) * expected.max())


def test_no_states():
    R, L = gramian_factors(StateSpace(np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((1, 0))))
    assert R.shape == L.shape == (0, 0)
    assert gramian_factors(Modal(np.zeros((3, 0)), np.zeros((3, 0))))[0].shape == (3, 0, 0)


@pytest.mark.parametrize("pairs", [False, True])
def test_inputs_that_fade_below_the_smallest_square(pairs):
    """Of hundreds of alike poles what is left of the input falls below 1e-162, whose square is zero, and is divided by all the same."""
    rates = np.linspace(1.0, 1.3, 240)
    A = -np.diag(rates) + np.triu(np.full((240, 240), 1e-9), 1)
    if pairs:
        A = np.kron(A, np.eye(2)) + np.kron(np.eye(240), [[0.0, 0.1], [-0.1, 0.0]])
    B = np.ones((len(A), 1))
    R = schur_gramian_factors(A, B, B.T, discrete=False)[0]
    W = R @ R.T
    np.testing.assert_allclose(A @ W + W @ A.T, -B @ B.T, atol=1e-12)


def test_factors_without_modes_have_the_width_of_the_bank():
    bank = Modal(np.zeros((3, 0), np.complex64), np.zeros((3, 0), np.complex64), np.float32(1))
    R, L = gramian_factors(bank)
    assert R.dtype == L.dtype == np.complex64


def test_banks_of_double_poles_at_zero_overflow_in_silence():
    """Of ``[[0, 1], [0, 0]]`` LAPACK's eigenvectors have an inverse of 1e292."""
    bank = StateSpace(np.tile([[0.0, 1.0], [0.0, 0.0]], (2, 1, 1)), np.array([[0.0], [1.0]]), np.array([[1.0, 0.0]]))
    R, L = gramians(bank)
    np.testing.assert_allclose(R, np.tile(np.eye(2), (2, 1, 1)), atol=1e-15)
    np.testing.assert_allclose(L, np.tile(np.eye(2), (2, 1, 1)), atol=1e-15)
