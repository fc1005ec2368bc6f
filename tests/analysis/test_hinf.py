"""H-infinity norms: level sets against closed forms and dense grids, FIR peaks against long transforms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmid import ImpulseResponse, Modal, StateSpace, norm, ss, tf, to_state_space
from ssmid.analysis.fir_peak import fir_peak

from .test_gramians import stable_matrix


def gains(system: StateSpace, omegas: np.ndarray) -> np.ndarray:
    points = np.exp(1j * omegas) if system.is_discrete else 1j * omegas
    inputs = np.broadcast_to(system.B + 0j, (len(points), *system.B.shape))
    states = np.linalg.solve(points[:, None, None] * np.eye(system.order) - system.A, inputs)
    return np.linalg.norm(system.C @ states + system.D, 2, axis=(1, 2))


@pytest.mark.parametrize("zeta", [0.5, 1e-3, 1e-7])
def test_a_resonance_in_closed_form(zeta):
    """``1 / (s^2 + 2 zeta s + 1)`` peaks at ``1 / (2 zeta sqrt(1 - zeta^2))``; a grid would need 1e8 points for the last."""
    gain, omega = norm(tf([1.0], [1.0, 2 * zeta, 1.0], dt=0), "hinf", return_frequency=True)
    assert abs(gain * 2 * zeta * np.sqrt(1 - zeta**2) - 1) < 1e-6
    assert abs(omega - np.sqrt(1 - 2 * zeta**2)) < 1e-3 * max(zeta, 1e-4)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(("n", "m", "p"), [(1, 1, 1), (4, 2, 3), (20, 3, 2)])
@pytest.mark.parametrize("sign", [1, -1])
def test_against_a_dense_grid(rng, n, m, p, discrete, sign):
    A = stable_matrix(rng, n, discrete) * (sign if discrete else 1)
    system = StateSpace(A, rng.standard_normal((n, m)), rng.standard_normal((p, n)), rng.standard_normal((p, m)), dt=int(discrete))
    gain, omega = norm(system, "hinf", return_frequency=True)
    grid = np.linspace(0, np.pi, 20001) if discrete else np.append(np.geomspace(1e-3, 1e3, 20000), 0.0)
    near = omega * (1 + np.linspace(-1e-2, 1e-2, 201)) if np.isfinite(omega) else np.array([1e9])
    best = gains(system, np.concatenate([grid, near, [omega] if np.isfinite(omega) else []])).max()
    assert best * (1 - 1e-6) <= gain <= best * (1 + 1e-6)


def test_complex_systems_have_no_mirror_image(rng):
    A = stable_matrix(rng, 5, False, True)
    system = StateSpace(A, rng.standard_normal((5, 1)) + 0j, rng.standard_normal((1, 5)) + 0j, dt=0)
    both = np.concatenate([-np.geomspace(1e-3, 1e3, 20000), np.geomspace(1e-3, 1e3, 20000)])
    gain, omega = norm(system, "hinf", return_frequency=True)
    assert gain >= gains(system, both).max() * (1 - 1e-9)
    np.testing.assert_allclose(gains(system, np.array([omega]))[0], gain, rtol=1e-6)


def test_a_gain_that_is_only_approached():
    gain, omega = norm(ss(-1.0, 1.0, -1.0, 2.0, dt=0), "hinf", return_frequency=True)  # 2 - 1/(s + 1) rises from 1 to 2
    assert gain == pytest.approx(2.0, rel=1e-6)
    assert np.isinf(omega)
    assert norm(ss(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), 3.0, dt=0), "hinf") == 3.0


def test_frequency_follows_the_sample_time(rng):
    A, B, C = stable_matrix(rng, 4, True), rng.standard_normal((4, 1)), rng.standard_normal((1, 4))
    slow, fast = (norm(StateSpace(A, B, C, dt=dt), "hinf", return_frequency=True) for dt in (1, 0.01))
    assert slow[0] == pytest.approx(fast[0], rel=1e-9)
    assert fast[1] == pytest.approx(100 * slow[1], rel=1e-6)


@pytest.mark.parametrize("name", ["build", "CDplayer", "heat-cont", "iss_siso", "MRdemo2M"])
def test_benchmarks_against_a_grid_round_every_resonance(shared_data, name):
    system = benchmark(shared_data, name)
    gain, omega = norm(system, "hinf", return_frequency=True)
    poles = np.linalg.eigvals(system.A)
    grid = np.unique(np.concatenate([[0.0, omega], np.abs(poles), np.abs(poles.imag)]))
    best = gains(system, grid).max()
    assert best * (1 - 1e-9) <= gain
    assert abs(gains(system, omega * (1 + np.linspace(-1e-3, 1e-3, 21))).max() / gain - 1) < 1e-6


def benchmark(folder, name: str) -> StateSpace:
    data = scipy.io.loadmat(folder / "mor" / f"{name}.mat")
    matrices = [data[key] if key in data else data[key.lower()] for key in "ABC"]
    A, B, C = ((M.toarray() if hasattr(M, "toarray") else M).astype(float) for M in matrices)
    return StateSpace(A, B, C, data.get("d"), dt=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 80), st.booleans(), st.integers(0, 2**31))
def test_fir_peaks_to_a_millionth(length, complex_, seed):
    rng = np.random.default_rng(seed)
    taps = rng.standard_normal((2, length)) + (1j * rng.standard_normal((2, length)) if complex_ else 0)
    gain, omega = fir_peak(taps[..., None, None, :])
    fine = np.abs(np.fft.fft(taps, 2000 * length, axis=-1)).max(-1)
    assert (gain >= fine * (1 - 1e-6)).all()
    direct = np.abs((taps * np.exp(-1j * omega[:, None] * np.arange(length))).sum(-1))
    np.testing.assert_allclose(direct, gain, rtol=1e-12)


def test_fir_peaks_of_flat_and_pointed_gains(rng):
    delay = np.zeros(500)
    delay[7] = -2.5
    allpass = np.fft.ifft(np.exp(1j * rng.uniform(0, 2 * np.pi, 256))).astype(complex)
    pointed = np.cos(0.3 * np.arange(3000))
    assert norm(ImpulseResponse(delay), "hinf") == pytest.approx(2.5, rel=1e-12)
    assert norm(ImpulseResponse(allpass), "hinf") == pytest.approx(np.abs(np.fft.fft(allpass, 2**20)).max(), rel=1e-6)
    gain, omega = norm(ImpulseResponse(pointed, dt=0.5), "hinf", return_frequency=True)
    assert gain == pytest.approx(np.abs(np.fft.fft(pointed, 2**23)).max(), rel=1e-6)
    assert omega == pytest.approx(0.6, rel=1e-4)


def test_batches_are_loops_and_bad_elements_stay_alone(xp, rng):
    taps = rng.standard_normal((3, 2, 50))
    taps[1, 1, 3] = np.nan
    bank = ImpulseResponse(xp.asarray(taps))
    gain = norm(bank, "hinf")
    assert xp.owns(gain)
    expected = [[norm(ImpulseResponse(t), "hinf") if np.isfinite(t).all() else np.nan for t in row] for row in taps]
    np.testing.assert_allclose(xp.numpy(gain), expected, rtol=1e-12)
    poles = np.array([[0.5, -0.2], [np.nan, 0.1], [1.5, 0.2]])
    gain, omega = norm(Modal(xp.asarray(poles), xp.asarray(np.ones((3, 2)))), "hinf", return_frequency=True)
    np.testing.assert_allclose(xp.numpy(gain), [1 / 0.5 + 1 / 1.2, np.nan, np.inf], rtol=1e-6)
    assert xp.owns(omega)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_any_scale(scale):
    assert norm(ss(-1.0, scale, 1 / scale, dt=0), "hinf") == pytest.approx(1.0, rel=1e-6)
    assert norm(ss(0.5, scale, 1.0), "hinf") == pytest.approx(2 * scale, rel=1e-6)
    assert norm(ImpulseResponse(np.array([scale, scale])), "hinf") == pytest.approx(2 * scale, rel=1e-6)


@pytest.mark.parametrize(("p", "m"), [(2, 3), (1, 2), (2, 2)])
def test_coupled_taps_have_the_norm_of_their_state_space(xp, rng, p, m):
    taps = rng.standard_normal((3, p, m, 12)) * 1e5
    taps[1, 0, 0, 3] = np.nan
    response = ImpulseResponse(xp.asarray(taps), dt=0.5)
    gain, omega = (xp.numpy(x) for x in norm(response, "hinf", mimo=True, return_frequency=True))
    assert np.isnan(gain[1])
    for k in (0, 2):
        whole = to_state_space(ImpulseResponse(taps[k], dt=0.5), mimo=True)
        assert gain[k] == pytest.approx(norm(whole, "hinf"), rel=2e-6)
        at = (taps[k] * np.exp(-0.5j * omega[k] * np.arange(12))).sum(-1)
        assert np.linalg.norm(at, 2) == pytest.approx(gain[k], rel=1e-12)
        for kind in ("h2", "hankel", "l1"):
            assert xp.numpy(norm(response, kind, mimo=True))[k] == pytest.approx(norm(whole, kind), rel=1e-9)
