"""Continuous to discrete and back: against scipy, against each other, and where there is no way."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

import ssmid
from ssmid._array import to_numpy
from ssmid.analysis.discretization import c2d, d2c, phi2
from ssmid.analysis.state_units import uneven_scales
from ssmid.analysis.substitution import phi1

SCIPY = {"euler": "euler", "tustin": "bilinear", "backward_euler": "backward_diff", "zoh": "zoh", "foh": "foh", "impulse": "impulse"}
OMEGA = np.linspace(0.1, 20, 9)


def response(system) -> np.ndarray:
    return to_numpy(ssmid.frequency_response(system, OMEGA).values)


def continuous(name: str) -> ssmid.System:
    p = np.array([-1 + 2j, -1 - 2j, -0.5, -3.0])
    r = np.array([1 + 1j, 1 - 1j, 2, 3])
    if name == "modal":
        return ssmid.Modal(p, r, 0.3, dt=0)
    if name == "zpk":
        return ssmid.zpk([-1.0, -2.0], p, 5.0, dt=0)
    if name == "transfer function":
        return ssmid.tf(5 * np.poly([-1.0, -2.0]), np.poly(p).real, dt=0)
    rng = np.random.default_rng(5)
    A = rng.standard_normal((5, 5)) - 2.5 * np.eye(5)
    return ssmid.ss(A, rng.standard_normal((5, 2)), rng.standard_normal((3, 5)), rng.standard_normal((3, 2)), dt=0)


def matrices(name: str):
    system = continuous(name)
    if name == "state space":
        return system.A, system.B, system.C, system.D
    if name == "modal":
        num, den = scipy.signal.invres(system.residues, system.poles, [0.3])
        return scipy.signal.tf2ss(num.real, den.real)
    return scipy.signal.zpk2ss([-1.0, -2.0], continuous("zpk").poles, 5.0)


NAMES = ["state space", "modal", "zpk", "transfer function"]


@pytest.mark.parametrize("method", list(SCIPY))
@pytest.mark.parametrize("name", NAMES)
def test_against_scipy_and_back(xp, name, method):
    system = continuous(name).map(xp.asarray)
    A, B, C, D = matrices(name)
    # scipy refuses a feedthrough for "impulse"; ours passes as it is
    A, B, C, E, _ = scipy.signal.cont2discrete((A, B, C, 0 * D if method == "impulse" else D), 0.1, SCIPY[method])
    expected = response(ssmid.ss(A, B, C, E + D if method == "impulse" else E, 0.1))
    discrete = c2d(system, 0.1, method)
    assert type(discrete) is type(system)
    assert discrete.dt == 0.1
    assert all(xp.owns(a) for a in discrete.arrays.values())
    np.testing.assert_allclose(response(discrete), expected, atol=1e-10 * np.abs(expected).max())
    back, original = d2c(discrete, method), response(continuous(name))
    assert back.dt == 0
    np.testing.assert_allclose(response(back), original, atol=1e-10 * np.abs(original).max())
    if name in ("state space", "modal"):
        for key, value in continuous(name).arrays.items():
            np.testing.assert_allclose(xp.numpy(back.arrays[key]), value, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("name", ["zpk", "transfer function"])
def test_matched(xp, name):
    system = continuous(name).map(xp.asarray)
    discrete = c2d(system, 0.1, "matched")
    # one zero stays at infinity, the other becomes -1; the gains at dc agree
    np.testing.assert_allclose(sorted(to_numpy(ssmid.zeros(discrete)).real), sorted([np.exp(-0.1), np.exp(-0.2), -1.0]), atol=1e-9)
    np.testing.assert_allclose(to_numpy(ssmid.dc_gain(discrete)), to_numpy(ssmid.dc_gain(system)), rtol=1e-9)
    original = response(continuous(name))
    np.testing.assert_allclose(response(d2c(discrete, "matched")), original, atol=1e-10 * np.abs(original).max())


def test_matched_with_roots_at_dc():
    """A double integrator: the leading behaviour K / s^2 becomes K dt^2 / (z - 1)^2 near dc."""
    system = ssmid.zpk([-2.0], [0.0, 0.0, -3.0], 4.0, dt=0)
    discrete = c2d(system, 0.01, "matched")
    low = 1e-5
    np.testing.assert_allclose(
        ssmid.frequency_response(discrete, [low]).values, ssmid.frequency_response(system, [low]).values, rtol=1e-4
    )
    np.testing.assert_allclose(d2c(discrete, "matched").gain, 4.0, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_prewarped_tustin_is_exact_there(name):
    system = continuous(name)
    discrete = c2d(system, 0.1, "tustin", prewarp=5.0)
    pair = [ssmid.frequency_response(s, [5.0]).values for s in (discrete, system)]
    np.testing.assert_allclose(*pair, atol=1e-10 * np.abs(pair[1]).max())
    assert np.abs(ssmid.frequency_response(c2d(system, 0.1, "tustin"), [5.0]).values - pair[1]).max() > 1e-4
    np.testing.assert_allclose(response(d2c(discrete, "tustin", prewarp=5.0)), response(system), atol=1e-10)


def test_impulse_taps_are_dt_times_samples():
    system = continuous("modal")
    t = 0.1 * np.arange(30)
    expected = 0.1 * np.sum(system.residues * np.exp(system.poles * t[:, None]), -1).real
    expected[0] += 0.3
    np.testing.assert_allclose(ssmid.impulse_response(c2d(system, 0.1, "impulse"), 30).taps, expected, atol=1e-14)


def test_holds_are_exact_for_their_inputs():
    """Step and ramp responses of 1 / (s + 1) at the samples."""
    system, t = ssmid.tf([1.0], [1.0, 1.0], dt=0), 0.5 * np.arange(20)
    np.testing.assert_allclose(ssmid.simulate(c2d(system, 0.5, "zoh"), np.ones(20)), 1 - np.exp(-t), atol=1e-13)
    np.testing.assert_allclose(ssmid.simulate(c2d(system, 0.5, "foh"), t), t - 1 + np.exp(-t), atol=1e-13)


@given(
    n=st.integers(0, 5),
    method=st.sampled_from(list(SCIPY)),
    dt=st.floats(1e-3, 0.5),
    seed=st.integers(0, 2**31),
)
def test_state_spaces_return(n, method, dt, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n)) - 2 * np.eye(n)
    system = ssmid.StateSpace(A, rng.standard_normal((n, 1)), rng.standard_normal((1, n)), rng.standard_normal((1, 1)), dt=0)
    back = d2c(c2d(system, dt, method), method)
    for key, value in system.arrays.items():
        # A comes back from A dt: its rounding is that of I over dt
        np.testing.assert_allclose(back.arrays[key], value, atol=1e-12 * (1 + np.abs(A).max(initial=0.0)) / dt, err_msg=key)


def test_a_batch_equals_a_loop(rng):
    A = rng.standard_normal((3, 4, 4)) - 2 * np.eye(4)
    B, C = rng.standard_normal((3, 4, 1)), rng.standard_normal((1, 1, 4))
    for method in SCIPY:
        whole = c2d(ssmid.StateSpace(A, B, C, dt=0), 0.2, method)
        for i in range(3):
            single = c2d(ssmid.StateSpace(A[i], B[i], C[0], dt=0), 0.2, method)
            np.testing.assert_allclose(whole.A[i], single.A, atol=1e-13)
            np.testing.assert_allclose(whole.B[i], single.B, atol=1e-13)


def test_integrators_and_pure_gains():
    """A pole at s = 0 is regular in every formula."""
    for system in (ssmid.ss(0, 1, 1, 0, dt=0), ssmid.Modal(np.array([0.0]), np.array([1.0]), dt=0), ssmid.tf([1.0], [1.0, 0.0], dt=0)):
        discrete = c2d(system, 0.25, "zoh")
        np.testing.assert_allclose(response(discrete), 0.25 / (np.exp(0.25j * OMEGA) - 1), rtol=1e-12)
        np.testing.assert_allclose(response(d2c(discrete)), 1 / (1j * OMEGA), rtol=1e-12)
    for method in (*SCIPY, "matched"):
        gain = ssmid.zpk([], [], 3.0, dt=0)
        np.testing.assert_allclose(c2d(gain, 0.1, method).gain, 3.0, rtol=1e-14)


def test_phi_functions_near_zero():
    x = np.array([0, 1e-200, 1e-12, 1e-3, 0.5, 2.0, -30.0]) + 0j
    exact1 = [1, 1, 1 + 5e-13, 1.0005001667083417, 1.2974425414002564, 3.194528049465325, (1 - np.exp(-30)) / 30]
    np.testing.assert_allclose(phi1(x), exact1, rtol=1e-15)
    exact2 = [0.5, 0.5, 0.5 + 1e-12 / 6, 0.5001667083416681, 0.594885082800513, 1.0972640247326626, (1 - exact1[-1]) / 30]
    np.testing.assert_allclose(phi2(x), exact2, rtol=1e-14)
    block = scipy.linalg.expm(np.array([[0.3, 1, 0], [0, 0, 1], [0, 0, 0]]))
    np.testing.assert_allclose([phi1(np.array(0.3 + 0j)), phi2(np.array(0.3 + 0j))], block[0, 1:], rtol=1e-14)


def test_sections_come_back_as_roots():
    sections = ssmid.SecondOrderSections(scipy.signal.butter(4, 0.3, output="sos"), dt=0.5)
    back = d2c(sections, "tustin")
    assert isinstance(back, ssmid.ZerosPolesGain)
    _, p, k = scipy.signal.butter(4, 2 / 0.5 * np.tan(0.3 * np.pi / 2), analog=True, output="zpk")
    assert back.zeros.shape == (0,)
    np.testing.assert_allclose(sorted(back.poles, key=lambda x: (x.imag, x.real)), sorted(p, key=lambda x: (x.imag, x.real)), rtol=1e-9)
    np.testing.assert_allclose(back.gain, k, rtol=1e-9)


@pytest.mark.parametrize("method", ["zoh", "foh", "impulse"])
@pytest.mark.parametrize("pole", [0.0, -0.5])
def test_poles_without_a_logarithm(method, pole):
    modal = ssmid.Modal(np.array([pole]), np.array([1.0]))
    for system in (ssmid.ss(pole, 1, 1), modal, ssmid.tf([1.0], [1.0, -pole]), ssmid.zpk([], [pole], 1.0)):
        with pytest.raises(ValueError, match="expected poles with a logarithm"):
            d2c(system, method)


def test_poles_that_a_substitution_takes_to_infinity():
    makers = (
        lambda p, dt: ssmid.ss(p, 1, 1, dt=dt),
        lambda p, dt: ssmid.tf([1.0], [1.0, -p], dt),
        lambda p, dt: ssmid.zpk([], [p], 1.0, dt),
    )
    for make in makers:
        for pole, method in ((-1.0, "tustin"), (0.0, "backward_euler")):
            with pytest.raises(ValueError, match="expected no pole at"):
                d2c(make(pole, 1), method)
        with pytest.raises(ValueError, match="expected no pole at 4"):
            c2d(make(4.0, 0), 0.5, "tustin")
    with pytest.raises(ValueError, match="expected no pole at"):
        d2c(ssmid.Modal(np.array([-1.0]), np.array([1.0])), "tustin")


def test_one_impossible_element_spoils_no_other():
    A = np.array([[[0.5]], [[-0.5]], [[np.nan]]])
    for method in ("zoh", "foh", "impulse"):
        back = d2c(ssmid.StateSpace(A, np.ones((1, 1)), np.ones((1, 1))), method)
        np.testing.assert_allclose(back.A[0], np.log(0.5))
        assert np.isnan(back.A[1:]).all()
    modal = d2c(ssmid.Modal(A[..., 0], np.ones((3, 1))), "zoh")
    np.testing.assert_allclose(modal.poles[0], np.log(0.5))
    assert np.isnan(modal.poles[1:]).all()
    roots = d2c(ssmid.ZerosPolesGain(np.zeros((2, 0)), np.array([[0.5], [-1.0]]), np.ones(2)), "tustin")
    np.testing.assert_allclose(roots.poles[0], -2 / 3)
    assert np.isnan(roots.poles[1]).all()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: c2d(ssmid.ss(0.5, 1, 1), 0.1), "continuous-time system"),
        (lambda: c2d(continuous("modal"), 0), "dt: expected a positive sample time .* got 0"),
        (lambda: c2d(continuous("modal"), True), "dt: expected a positive sample time .* got True"),
        (lambda: c2d(continuous("modal"), 0.1, "magic"), "method: expected one of zoh, .* got 'magic'"),
        (lambda: c2d(continuous("modal"), 0.1, "matched"), "matched"),
        (lambda: c2d(continuous("modal"), 0.1, "zoh", prewarp=1.0), "prewarp: expected"),
        (lambda: c2d(continuous("modal"), 0.1, "tustin", prewarp=40.0), "prewarp: expected"),
        (lambda: d2c(continuous("modal")), "discrete-time system"),
    ],
)
def test_what_they_refuse(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_taps_are_not_discretized():
    with pytest.raises(TypeError, match="got ImpulseResponse"):
        d2c(ssmid.ImpulseResponse([1.0, 2.0]))


@pytest.mark.parametrize("method", list(SCIPY))
def test_gradients(method):
    generator = torch.Generator().manual_seed(4)
    poles, residues = (torch.randn(3, generator=generator, dtype=torch.float64) for _ in range(2))

    def taps(decay, frequency, residues):
        modal = ssmid.Modal(torch.complex(-decay.exp(), frequency), residues, dt=0)
        return ssmid.impulse_response(c2d(modal, 0.3, method), 6).taps

    frequency = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(taps, [x.requires_grad_() for x in (poles, frequency, residues)])


@pytest.mark.parametrize("method", SCIPY)
def test_complex_output_of_real_states(xp, method):
    """Real A and B beside a complex C, there and back, in libraries whose matrix products do not promote."""
    A, B, C = np.array([[-0.5, 1.0], [0.0, -2.0]]), np.array([[0.0], [1.0]]), np.array([[1j, 2.0]])
    discrete = c2d(ssmid.StateSpace(xp.asarray(A), xp.asarray(B), xp.asarray(C), dt=0), 0.1, method)
    parts = [c2d(ssmid.StateSpace(A, B, part, dt=0), 0.1, method) for part in (C.real, C.imag)]
    expected = response(parts[0]) + 1j * response(parts[1])
    np.testing.assert_allclose(xp.numpy(ssmid.frequency_response(discrete, OMEGA).values), expected, rtol=1e-12)
    np.testing.assert_allclose(xp.numpy(d2c(discrete, method).C), C, atol=1e-12)


def test_an_integrator_behind_a_pair_keeps_the_zeros_of_its_holds():
    """The section of the integrator was measured at 1e-12 of its frequencies and the states set 1e12 apart: a zero was lost."""
    design = ssmid.zpk([], [-4.6438 + 0.01637j, -4.6438 - 0.01637j, 0.0], 1.0, dt=0)
    assert (uneven_scales(*(getattr(ssmid.to_state_space(design), name) for name in "ABC")) == 1).all()
    exact = np.array([_sampled_ramp_response(design.poles, z) for z in np.exp(1j * np.array([1e-3, 0.1, 1.0, 3.0]))])
    held = ssmid.c2d(design, 1.0, "foh")
    assert held.zeros.shape == (3,)
    got = ssmid.frequency_response(held, np.array([1e-3, 0.1, 1.0, 3.0])).values
    np.testing.assert_allclose(got, exact, rtol=1e-9)


def _sampled_ramp_response(poles, z):
    """``sum_k H(s + 2 pi i k) / (s + 2 pi i k)^2`` with z = e^s over that of the triangle alone: the foh by its images, in 30 digits."""
    with mpmath.workdps(30):
        s = mpmath.log(mpmath.mpc(z))

        def image(k):
            x = s + 2j * mpmath.pi * k
            return 1 / (x**2 * mpmath.fprod(x - mpmath.mpc(p) for p in poles))

        terms = mpmath.nsum(lambda k: image(int(k)) + image(-int(k)), [1, mpmath.inf])
        return complex((image(0) + terms) * (z - 1) ** 2 / z)


def test_a_logarithm_that_is_good_to_a_millionth_is_no_warning(rng):
    """SciPy warns from an error of 1e-13 on; the round trip here is good to 1e-9."""
    Q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    A = Q @ (np.diag([0.9, 0.5, 0.1, 0.01, 1e-3]) + 0.5 * np.triu(np.ones((5, 5)), 1)) @ Q.T
    with pytest.warns(RuntimeWarning, match="logm result may be inaccurate"):
        scipy.linalg.logm(A)
    np.testing.assert_allclose(scipy.linalg.expm(ssmid.d2c(ssmid.StateSpace(A, np.ones((5, 1)), np.ones((1, 5)))).A), A, atol=1e-7)


def test_a_logarithm_that_is_not_is_one(rng):
    """Poles from 0.9 to 0.001 under couplings of 3, and of 100, where the powers of the logarithm overflow."""
    Q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    poles = np.diag([0.9, 0.5, 0.1, 0.01, 1e-3])
    bank = np.stack([Q @ (poles + size * np.triu(np.ones((5, 5)), 1)) @ Q.T for size in (0.0, 3.0, 100.0)])
    B, C = np.ones((5, 1)), np.ones((1, 5))
    with pytest.warns(ssmid.ConversionWarning, match="d2c: 1 of 3 elements off by up to") as record:
        back = ssmid.d2c(ssmid.StateSpace(bank, B, C))
    assert record[0].filename == __file__
    assert np.isfinite(back.A).all((-2, -1)).tolist() == [True, True, False]
    np.testing.assert_allclose(scipy.linalg.expm(back.A[0]), bank[0], atol=1e-12)
    with pytest.raises(ValueError, match=r"logarithm.*tustin"):
        ssmid.d2c(ssmid.StateSpace(bank[2], B, C))
