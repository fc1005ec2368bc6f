"""Coprime factors: normalized, near in the gap, stabilized by the same controllers; LQG balancing in continuous time."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from ssmid import StateSpace, feedback, frequency_response, is_stable, poles, ss
from ssmid.analysis.evaluation import evaluate
from ssmid.reduction.coprime import _factors, coprime_truncation
from tests.reduction.test_balanced import random_system


def unstable_system(rng, discrete: bool, m: int = 2, p: int = 2) -> StateSpace:
    system = random_system(rng, discrete, 6, m, p)
    return StateSpace(system.A * 1.3 if discrete else system.A + 0.6 * np.eye(6), system.B, system.C, 0.3 * system.D, system.dt)


@pytest.mark.parametrize("discrete", [False, True])
def test_factors_are_normalized_and_their_quotient_is_the_system(rng, discrete):
    system = unstable_system(rng, discrete, 2, 3)
    factors = StateSpace(*_factors(system.A, system.B, system.C, system.D, discrete=discrete), dt=system.dt)
    assert is_stable(factors)
    points = np.exp(1j * np.linspace(0.1, 3, 9)) if discrete else 1j * np.geomspace(0.1, 30, 9)
    both = np.moveaxis(evaluate(factors, points), -1, 0)
    np.testing.assert_allclose(both @ both.conj().swapaxes(1, 2), np.broadcast_to(np.eye(3), (9, 3, 3)), atol=1e-8)
    N, M = both[:, :, :2], both[:, :, 2:]
    np.testing.assert_allclose(np.linalg.solve(M, N), np.moveaxis(evaluate(system, points), -1, 0), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("discrete", [False, True])
def test_the_gap_is_within_the_bound(rng, discrete):
    system = unstable_system(rng, discrete)
    for order in (3, 4, 5):
        fit = coprime_truncation(system, order)
        assert fit.system.order == order
        assert fit.lower_bound <= fit.factor_error * (1 + 1e-6)
        assert fit.factor_error <= fit.bound * (1 + 1e-6)
        assert chordal_distance(system, fit.system) <= fit.factor_error * (1 + 1e-6)
        assert (fit.sigma < 1).all()


def chordal_distance(first: StateSpace, second: StateSpace) -> float:
    """The largest pointwise gap between graphs, at most the gap metric (Vinnicombe 1993)."""
    omega = np.linspace(0.01, 3.1, 100) if first.is_discrete else np.geomspace(1e-2, 1e2, 100)
    H, G = (np.moveaxis(np.asarray(frequency_response(s, omega).values), -1, 0) for s in (first, second))
    worst = 0.0
    for h, g in zip(H, G, strict=True):
        graphs = [np.linalg.qr(np.vstack([v, np.eye(v.shape[1])]))[0] for v in (h, g)]
        worst = max(worst, np.linalg.norm(graphs[0] @ graphs[0].conj().T - graphs[1] @ graphs[1].conj().T, 2))
    return worst


def test_lqg_characteristic_values():
    """In continuous time ``sigma^2 = mu^2 / (1 + mu^2)``, mu^2 the eigenvalues of the product of both Riccati solutions."""
    A, B, C = np.diag([1.0, -0.5, -3.0]), np.array([[1.0], [1.0], [2.0]]), np.array([[1.0, -1.0, 0.5]])
    X = scipy.linalg.solve_continuous_are(A, B, C.T @ C, np.eye(1))
    Z = scipy.linalg.solve_continuous_are(A.T, C.T, B @ B.T, np.eye(1))
    squares = np.sort(np.linalg.eigvals(X @ Z).real)[::-1]
    np.testing.assert_allclose(coprime_truncation(ss(A, B, C, dt=0), 1).sigma, np.sqrt(squares / (1 + squares)), rtol=1e-8)


def test_one_controller_stabilizes_both(rng):
    A = np.diag([0.4, -1.0, -30.0, -40.0])
    system = ss(A, np.array([[1.0], [0.5], [1.0], [1.0]]), np.array([[2.0, 0.5, 1.0, -0.7]]), dt=0)
    fit = coprime_truncation(system, 2)
    controller = ss(-50.0, 50.0, 1.0, dt=0)
    assert not fit.stable
    assert is_stable(feedback(system, controller))
    assert is_stable(feedback(fit.system, controller))
    assert np.abs(poles(fit.system) - 0.4).min() < 0.01


def test_the_gain_counts(rng):
    """A loop that is closed at another gain is another problem."""
    system = unstable_system(rng, False, 1, 1)
    loud = StateSpace(system.A, 100 * system.B, system.C, 100 * system.D, dt=0)
    one, other = coprime_truncation(system, 3), coprime_truncation(loud, 3)
    assert not np.allclose(one.sigma, other.sigma, rtol=1e-2)


def test_what_cannot_be_stabilized():
    with pytest.raises(ValueError, match="expected a stabilizable and detectable system"):
        coprime_truncation(ss(np.diag([1.0, -1.0]), np.ones((2, 1)), np.array([[0.0, 1.0]]), dt=0), 1)


@pytest.mark.parametrize(("order", "near"), [(2, False), (3, True)])
def test_a_stable_system_that_becomes_unstable_is_told(order, near):
    """Resonances that a loop of high gain damps: in closed loop a pole that changes sides can be near."""
    A = scipy.linalg.block_diag(*([[-0.01, w], [-w, -0.01]] for w in (1.0, 2.0, 3.0)))
    system = StateSpace(A, 30 * np.ones((6, 1)), np.array([[1.0, 0.3, 1.0, -0.5, 0.2, 1.0]]), dt=0)
    with pytest.warns(UserWarning, match="the reduced system is unstable; take a larger order"):
        fit = coprime_truncation(system, order)
    assert not fit.stable
    assert fit.converged == near == (fit.bound < 1)


@pytest.mark.filterwarnings("ignore:.*unstable:UserWarning")
def test_the_feedthrough_is_the_original_one_to_the_last_digit():
    """In continuous time the H2 error would be infinite otherwise."""
    for seed in range(5):
        system = random_system(np.random.default_rng(seed), False, 6, 3, 2)
        fit = coprime_truncation(system, 5)
        np.testing.assert_array_equal(fit.system.D, system.D)


@pytest.mark.parametrize("gain", [1e150, 1e300])
def test_a_gain_beyond_what_the_riccati_equation_takes_is_named(gain):
    with pytest.raises(ValueError, match="of a gain near 1, got one whose Riccati equation fails"):
        coprime_truncation(ss(np.array([[0.2, 0.5], [-0.4, 0.1]]), gain * np.ones((2, 1)), np.ones((1, 2)), 1.0), 1)
