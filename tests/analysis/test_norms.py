"""H2, Hankel and l1 norms: closed forms, sums over responses, every representation, what is infinite and what is NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmid import FrequencyResponse, ImpulseResponse, Modal, StateSpace, impulse_response, norm, ss, tf, to_modal, zpk
from ssmid.datasets import beam, heat

from .test_gramians import stable_matrix

KINDS = ("h2", "hinf", "hankel", "l1")


def test_closed_forms():
    first = ss(-0.5, 1.0, 3.0, dt=0)  # 3 exp(-t/2)
    assert [float(norm(first, kind)) for kind in KINDS] == pytest.approx([3.0, 6.0, 3.0, 6.0], rel=1e-7)
    delayed = ss(0.5, 1.0, 3.0, 1.0)  # 1, 3, 3/2, 3/4 ...
    assert [float(norm(delayed, kind)) for kind in KINDS] == pytest.approx([np.sqrt(13), 7.0, 4.0, 7.0], rel=1e-7)
    taps = ImpulseResponse(np.array([1.0, 2.0, -2.0]))
    values = [float(norm(taps, kind)) for kind in KINDS]
    assert values == pytest.approx([3.0, np.abs(np.fft.fft([1.0, 2.0, -2.0], 2**18)).max(), 1 + np.sqrt(5), 5.0], rel=1e-6)


@pytest.mark.parametrize("zeta", [0.2, 0.01])
def test_continuous_l1_in_closed_form(zeta):
    """The step response of ``1/(s^2 + 2 zeta s + 1)`` varies by ``coth(zeta pi / (2 sqrt(1 - zeta^2)))`` in total."""
    exact = 1 / np.tanh(zeta * np.pi / 2 / np.sqrt(1 - zeta**2))
    assert norm(tf([1.0], [1.0, 2 * zeta, 1.0], dt=0), "l1") == pytest.approx(exact, rel=3e-8)


@pytest.mark.parametrize("apart", [0.0, 1e-16, 1e-14, 1e-11])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("discrete", [False, True])
def test_l1_of_systems_that_all_but_cancel(discrete, channels, apart):
    """What is left is rounding, and so are the states of a balanced realization of it: unstable ones, that grow until they overflow."""
    rng = np.random.default_rng(0)  # fixed: whether rounding is stable is a matter of chance
    A = 0.95 * np.kron(np.diag(np.cos(np.arange(4))), np.eye(2)) + 0.95 * np.kron(np.diag(np.sin(np.arange(4))), [[0, 1], [-1, 0]])
    A = A if discrete else A - np.eye(8)
    B, C = rng.standard_normal((8, channels)), rng.standard_normal((channels, 8))
    zero = np.zeros((8, 8))
    pair = np.block([[A, zero], [zero, A * (1 + apart * rng.standard_normal((8, 8)))]])
    found = float(norm(StateSpace(pair, np.vstack([B, B]), np.hstack([C, -C]), np.zeros((channels, channels)), dt=int(discrete)), "l1"))
    alone = float(norm(StateSpace(A, B, C, np.zeros((channels, channels)), dt=int(discrete)), "l1"))
    assert found <= (1e4 * apart + 1e-12) * alone
    assert found >= 1e-2 * apart * alone or apart < 1e-13


def test_stiff_and_lightly_damped_systems_in_continuous_time():
    """Heat conduction never changes its sign, so that the l1 norm is the dc gain."""
    system = heat()
    gain = float(abs((system.C @ np.linalg.solve(system.A, system.B))[0, 0]))
    assert norm(system, "l1") == pytest.approx(gain, rel=1e-7)
    small = beam(40)
    assert norm(small, "hinf") <= norm(small, "l1") <= 2 * np.linalg.svd(hankel_product(small), compute_uv=False).sum() * (1 + 1e-6)


def hankel_product(system: StateSpace) -> np.ndarray:
    from ssmid.analysis.gramians import gramian_factors

    R, L = gramian_factors(system)
    return L.T @ R


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("discrete", [False, True])
def test_against_the_response_itself(rng, discrete, complex_):
    n, p, m = 6, 2, 3
    A = stable_matrix(rng, n, discrete, complex_)
    B, C, D = rng.standard_normal((n, m)), rng.standard_normal((p, n)), rng.standard_normal((p, m)) * discrete
    system = StateSpace(A, B, C, D, dt=int(discrete))
    if discrete:
        h, X = [np.abs(system.D)], system.B + 0j
        for _ in range(2000):
            h.append(np.abs(system.C @ X))
            X = A @ X
        h = np.stack(h)
        assert norm(system, "h2") == pytest.approx(np.sqrt((h**2).sum()), rel=1e-11)
        assert norm(system, "l1") == pytest.approx(h.sum(0).sum(1).max(), rel=1e-11)
    else:
        poles, V = np.linalg.eig(A)
        t = np.linspace(0, 40 / np.abs(poles.real).min(), 400001)
        step = t[1]
        h = np.abs(np.einsum("pn,tn,nm->tpm", system.C @ V, np.exp(t[:, None] * poles), np.linalg.solve(V, system.B + 0j)))
        weights = np.where(np.arange(len(t)) % 2, 4, 2) * step / 3
        assert norm(system, "h2") == pytest.approx(np.sqrt((weights[:, None, None] * h**2).sum() - step / 3 * (h[0] ** 2).sum()), rel=1e-6)
        assert norm(system, "l1") == pytest.approx(((h.sum(0) - h[0] / 2) * step).sum(1).max(), rel=1e-5)


def test_all_representations_agree(rng):
    system = zpk([-0.3, 0.2], [0.5, 0.3 + 0.6j, 0.3 - 0.6j], 2.0)
    modal = to_modal(system)
    taps = impulse_response(modal, 200)
    for kind in KINDS:
        expected = float(norm(modal, kind))
        for other in (system, taps, ss(*_matrices(system))):
            assert norm(other, kind) == pytest.approx(expected, rel=1e-6)


def _matrices(system):
    from ssmid import to_state_space

    states = to_state_space(system)
    return states.A, states.B, states.C, states.D


def test_inequalities_between_norms(rng):
    """``sigma_1 <= |H|_inf <= |h|_1 <= 2 sum(sigma)`` for strictly proper scalar systems (Boyd & Doyle 1987)."""
    for discrete in (False, True):
        system = StateSpace(stable_matrix(rng, 8, discrete), rng.standard_normal((8, 1)), rng.standard_normal((1, 8)), dt=int(discrete))
        sigma = np.linalg.svd(hankel_product(system), compute_uv=False)
        hankel, hinf, l1 = (float(norm(system, kind)) for kind in ("hankel", "hinf", "l1"))
        assert hankel == pytest.approx(sigma[0])
        assert hankel <= hinf * (1 + 1e-6)
        assert hinf <= l1 * (1 + 1e-6)
        assert l1 <= 2 * sigma.sum() * (1 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_unstable_is_infinite_and_nan_stays_alone(xp, kind):
    poles = np.array([[0.5, 0.2], [1.0, 0.2], [np.nan, 0.2], [-0.4, 0.1]])
    bank = Modal(xp.asarray(poles), xp.asarray(np.ones((4, 2))))
    values = norm(bank, kind)
    assert xp.owns(values)
    values = xp.numpy(values)
    assert values.shape == (4,)
    assert np.isinf(values[1])
    assert np.isnan(values[2])
    for k in (0, 3):
        assert values[k] == pytest.approx(float(norm(Modal(poles[k], np.ones(2)), kind)), rel=1e-9)
    states = StateSpace(*(xp.asarray(M) for M in (np.array([[[0.5]], [[-1.5]]]), np.ones((1, 1)), np.ones((1, 1)))))
    assert np.isinf(xp.numpy(norm(states, kind))[1])
    assert np.isfinite(xp.numpy(norm(states, kind))[0])


def test_feedthrough_in_continuous_time_has_infinite_energy():
    assert np.isinf(norm(ss(-1.0, 1, 1, 1, dt=0), "h2"))
    bank = Modal(np.array([[-1.0], [-2.0]]), np.ones((2, 1)), np.array([0.0, 1.0]), dt=0)
    assert np.isinf(norm(bank, "h2")[1])
    assert norm(bank, "h2")[0] == pytest.approx(np.sqrt(0.5))


@settings(max_examples=20, deadline=None)
@given(st.floats(-150, 150), st.booleans(), st.sampled_from(KINDS))
def test_any_scale(exponent, discrete, kind):
    scale, pole = 10.0**exponent, 0.5 if discrete else -0.5
    plain = float(norm(ss(pole, 1.0, 3.0, dt=int(discrete)), kind))
    assert float(norm(ss(pole, scale, 3.0, dt=int(discrete)), kind)) == pytest.approx(plain * scale, rel=1e-6)
    assert float(norm(ss(pole, 1 / scale, 3.0 * scale, dt=int(discrete)), kind)) == pytest.approx(plain, rel=1e-6)
    taps = ImpulseResponse(np.array([0.0, 3.0, 1.0, -1.0]))
    assert float(norm(ImpulseResponse(taps.taps * scale), kind)) == pytest.approx(float(norm(taps, kind)) * scale, rel=1e-6)


def test_dtype_is_kept():
    one = np.float32([[1]])
    for system in (ss(one / 2, one, one), ImpulseResponse(np.float32([1, 2])), Modal(np.complex64([0.5]), np.complex64([1]))):
        for kind in KINDS:
            assert norm(system, kind).dtype == np.float32


def test_what_is_refused():
    with pytest.raises(ValueError, match="kind: expected one of h2, hinf, hankel, l1, got 'h3'"):
        norm(ss(0.5, 1, 1), "h3")
    with pytest.raises(ValueError, match="return_frequency"):
        norm(ss(0.5, 1, 1), "h2", return_frequency=True)
    with pytest.raises(TypeError, match="got a FrequencyResponse"):
        norm(FrequencyResponse([1.0 + 0j], [0.0]), "hinf")
    with pytest.raises(TypeError, match=r"ssmid\.ImpulseResponse"):
        norm(np.ones(3), "h2")


def test_zero_and_static_systems():
    zero = StateSpace(np.eye(2) * 0.5, np.zeros((2, 1)), np.ones((1, 2)))
    static = StateSpace(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), [[-2.0]])
    for kind in KINDS:
        assert norm(zero, kind) == 0
        assert norm(static, kind) == (0 if kind == "hankel" else 2)
        assert norm(ImpulseResponse(np.zeros(5)), kind) == 0
