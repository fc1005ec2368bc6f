"""Realizations: the same response in other states, with the transform that leads there."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid._array import dtype_name
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.gramians import gramians
from ssmid.analysis.realization import (
    balanced_realization,
    companion_realization,
    minimal_realization,
    modal_realization,
    similarity,
)
from tests.analysis.test_conversion import CIRCLE, close, random_stable


def holds(system, result, T, tolerance=1e-9):
    """``A T = T A'``, ``C T = C'``, and, where T is square, ``B = T B'``."""
    A, B, C = system.A, system.B, system.C
    assert np.abs(A @ T - T @ result.A).max() <= tolerance * np.abs(A).max() * np.abs(T).max()
    assert np.abs(C @ T - result.C).max() <= tolerance * np.abs(C).max() * np.abs(T).max()
    if T.shape[-1] == T.shape[-2]:
        assert np.abs(B - T @ result.B).max() <= tolerance * max(np.abs(B).max(), np.abs(T).max() * np.abs(result.B).max())


def hidden(rng, seen=3, unreached=2, unseen=2, inputs=2, outputs=2, shift=0.0):
    """A system of ``seen`` states in which others hide, mixed by an orthogonal transform."""
    n = seen + unreached + unseen
    A = np.diag(rng.uniform(-0.9, 0.9, n)) - shift * np.eye(n)
    A[:seen, :seen] = random_stable(rng, seen).A - shift * np.eye(seen)
    A[:seen, seen : seen + unreached] = rng.standard_normal((seen, unreached))
    A[seen + unreached :, : seen + unreached] = rng.standard_normal((unseen, seen + unreached))
    B, C = rng.standard_normal((n, inputs)), rng.standard_normal((outputs, n))
    B[seen : seen + unreached] = 0
    C[:, seen + unreached :] = 0
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return ssmid.StateSpace(Q @ A @ Q.T, Q @ B, C @ Q.T, rng.standard_normal((outputs, inputs)), dt=0 if shift else 1)


# ---------------------------------------------------------------- balanced


@pytest.mark.parametrize("dt", [0, 1])
def test_balanced_gramians_are_equal_and_diagonal(rng, dt):
    system = random_stable(rng, 6, inputs=2, outputs=3)
    if dt == 0:
        system = ssmid.StateSpace(system.A - np.eye(6), system.B, system.C, system.D, 0)
    result, T = balanced_realization(system, return_transform=True)
    holds(system, result, T)
    Wc, Wo = gramians(result)
    sigma = np.diag(Wc)
    assert np.all(np.diff(sigma) <= 0)
    for W in (Wc, Wo):
        np.testing.assert_allclose(W, np.diag(sigma), atol=1e-10 * sigma[0])
    close(result, system, 1e-11, CIRCLE if dt else 1j * np.geomspace(0.01, 10, 50))


def test_balancing_batches_of_any_array_library(xp, rng):
    systems = random_stable(rng, 4, 3)
    result, T = balanced_realization(systems.map(xp.asarray), return_transform=True)
    assert xp.owns(result.A)
    assert tuple(T.shape) == (3, 4, 4)
    for i in range(3):
        one = systems.map(lambda a, i=i: a[i])
        holds(one, result.map(xp.numpy).map(lambda a, i=i: a[i]), xp.numpy(T)[i])


def test_balancing_drops_what_carries_nothing_and_refuses_the_unstable(rng):
    system = hidden(rng)
    result = balanced_realization(system)
    assert result.order == 3
    close(result, system, 1e-10)
    with pytest.raises(ValueError, match="stable"):
        balanced_realization(ssmid.ss(1.5, 1, 1))


# ---------------------------------------------------------------- minimal


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 999))
def test_minimal_keeps_what_is_reached_and_seen(seen, unreached, unseen, inputs, outputs, continuous, seed):
    rng = np.random.default_rng(seed)
    system = hidden(rng, max(seen, 1), unreached, unseen, inputs, outputs, 1.0 if continuous else 0.0)
    result, T = minimal_realization(system, 1e-9, return_transform=True)
    assert result.order == max(seen, 1)
    assert T.shape == (system.order, result.order)
    close(result, system, 1e-9, 1j * np.geomspace(0.01, 10, 30) if continuous else CIRCLE)


def test_minimal_is_unmoved_by_the_units_of_the_states(rng):
    system = hidden(rng)
    units = 10.0 ** rng.integers(-6, 7, system.order)
    scaled = similarity(system, np.diag(units))
    result = minimal_realization(scaled)
    assert result.order == 3
    close(result, system, 1e-8)


def test_minimal_batches_pad_with_zero_states(xp, rng):
    small, large = hidden(rng, 2, 1, 2), hidden(rng, 3, 1, 1)
    batch = ssmid.StateSpace(*(np.stack(pair) for pair in zip(small.arrays.values(), large.arrays.values(), strict=True)))
    result = minimal_realization(batch.map(xp.asarray)).map(xp.numpy)
    assert result.order == 3
    assert not result.A[0, 2].any()
    assert not result.B[0, 2].any()
    close(result, batch, 1e-9)


def test_minimal_of_cancelling_factors_and_of_nothing():
    assert minimal_realization(ssmid.zpk([0.3, 0.5], [0.5, 0.3, 0.1], 1.0)).order == 1
    assert minimal_realization(ssmid.ss(np.eye(2) / 2, np.zeros((2, 1)), np.ones((1, 2)), 5.0)).order == 0
    with pytest.raises(ValueError, match="tol: expected a number from 0 to 1, got -1"):
        minimal_realization(ssmid.ss(0.5, 1, 1), tol=-1)


def test_tolerance_decides_what_is_nothing():
    system = ssmid.ss(np.diag([0.5, 0.25]), [[1.0], [1e-6]], [[1.0, 1e-6]])
    assert minimal_realization(system).order == 2
    assert minimal_realization(ssmid.ss(np.diag([0.5, 0.5 + 1e-9]), [[1.0], [1.0]], [[1.0, 1.0]]), tol=1e-6).order == 1
    assert minimal_realization(ssmid.ss(np.diag([0.5, 0.5 + 1e-9]), [[1.0], [1.0]], [[1.0, 1.0]])).order == 2


# ---------------------------------------------------------------- companion


@pytest.mark.parametrize("form", ["controllable", "observable"])
def test_companions_have_the_polynomial_and_the_transform(xp, rng, form):
    system = random_stable(rng, 5, 2)
    result, T = companion_realization(system.map(xp.asarray), form, return_transform=True)
    assert xp.owns(T)
    result, T = result.map(xp.numpy), xp.numpy(T)
    for i in range(2):
        A = result.A[i] if form == "controllable" else result.A[i].T
        np.testing.assert_allclose(A[0], -np.poly(system.A[i])[1:], atol=1e-13)
        np.testing.assert_array_equal(A[1:], np.eye(5, k=-1)[1:])
        one = system.map(lambda a, i=i: a[i])
        holds(one, result.map(lambda a, i=i: a[i] if a.ndim > 2 else a), T[i])
    close(result, system, 1e-11)


@pytest.mark.parametrize("form", ["controllable", "observable"])
def test_companions_of_systems_that_are_not_minimal(rng, form):
    system = hidden(rng, inputs=1, outputs=1)
    close(companion_realization(system, form), system, 1e-8)


def test_a_companion_that_loses_the_response_says_so():
    z, p, k = scipy.signal.butter(16, 0.05, output="zpk")
    with pytest.warns(ssmid.ConversionWarning, match="coefficients of degree 16"):
        companion_realization(ssmid.zpk(z, p, k))
    with pytest.raises(ValueError, match=r"expected one input and one output .* got 2 and 1"):
        companion_realization(ssmid.ss(np.eye(2), np.eye(2), np.ones((1, 2))))
    with pytest.raises(ValueError, match="form: expected 'controllable' or 'observable', got 'modal'"):
        companion_realization(ssmid.ss(0.5, 1, 1), "modal")


# ---------------------------------------------------------------- similarity, single precision


def test_similarity_moves_states_only(xp, rng):
    system = random_stable(rng, 4, inputs=2, outputs=2)
    T = rng.standard_normal((3, 4, 4)) + 3 * np.eye(4)
    moved = similarity(system.map(xp.asarray), xp.asarray(T)).map(xp.numpy)
    for i in range(3):
        holds(system, moved.map(lambda a, i=i: a[i] if a.ndim > 2 else a), T[i])
    with pytest.raises(ValueError, match=r"T: expected shape \(\*batch, 4, 4\), got \(3, 3\)"):
        similarity(system, np.eye(3))
    with pytest.raises(ValueError, match="expected an invertible transform"):
        similarity(system, np.zeros((4, 4)))


def test_similarity_has_gradients():
    import torch

    T = torch.eye(2, dtype=torch.float64) + torch.tensor([[0.1, 0.2], [0.0, 0.3]], dtype=torch.float64)
    T.requires_grad_()
    A, B, C = torch.tensor([[0.5, 0.1], [0.0, 0.2]]).double(), torch.ones(2, 1).double(), torch.ones(1, 2).double()
    assert torch.autograd.gradcheck(lambda T: similarity(ssmid.StateSpace(A, B, C), T).A, (T,))


@pytest.mark.parametrize("function", [balanced_realization, minimal_realization, modal_realization, companion_realization])
def test_single_precision_in_and_out(rng, function):
    system = random_stable(rng, 4).map(lambda a: a.astype(np.float32))
    result, T = function(system, return_transform=True)
    assert {dtype_name(a) for a in (*result.arrays.values(), T)} == {"float32"}
    np.testing.assert_allclose(evaluate(result, CIRCLE), evaluate(system, CIRCLE), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("function", [balanced_realization, minimal_realization, modal_realization, companion_realization])
def test_complex_systems(rng, function):
    A = rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3))
    A *= 0.8 / np.abs(scipy.linalg.eigvals(A)).max()
    system = ssmid.StateSpace(A, np.ones((3, 1)) + 0j, np.ones((1, 3)) * 1j, np.zeros((1, 1)) + 0j)
    result, T = function(system, return_transform=True)
    holds(system, result, T)
    close(result, system, 1e-10)


@pytest.mark.parametrize("form", ["controllable", "observable"])
def test_companion_form_of_a_batch_that_shares_its_input(xp, rng, form):
    A, B, C = np.tril(rng.uniform(-0.5, 0.5, (3, 4, 4))), np.ones((4, 1)), np.ones((1, 4))
    states = ssmid.StateSpace(*(xp.asarray(M) for M in (A, B, C)))
    taps = xp.numpy(ssmid.impulse_response(companion_realization(states, form), 12).taps)
    np.testing.assert_allclose(taps, xp.numpy(ssmid.impulse_response(states, 12).taps), atol=1e-12)
