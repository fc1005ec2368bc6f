"""Poles, zeros, dc gain, damping, stability."""

from __future__ import annotations

import control
import numpy as np
import pytest
import scipy.signal

import ssmid
from ssmid.analysis.characteristics import damping, dc_gain, is_stable, poles, spectral_abscissa, spectral_radius, zeros


def sort(values) -> np.ndarray:
    values = np.asarray(values)
    return values[np.lexsort((values.imag.round(9), values.real.round(9)))]


def smallest(A, B, C, D, z) -> float:
    """How far the system matrix at z is from falling in rank."""
    return np.linalg.svd(np.block([[A - z * np.eye(len(A)), B], [C, D]]))[1][-1]


@pytest.mark.parametrize(
    ("n", "m", "p", "feedthrough", "expected"),
    [(5, 1, 1, 0, 4), (5, 1, 1, 1, 5), (6, 2, 2, 0, 4), (6, 2, 2, 2, 6), (4, 2, 2, 1, 3), (6, 3, 2, 0, 0), (6, 2, 3, 2, 0)],
)
def test_generic_transmission_zeros(xp, rng, n, m, p, feedthrough, expected):
    """As many as theory says, and the rank falls at each: n less the relative degrees for square systems, none for others."""
    A, B, C = rng.standard_normal((n, n)), rng.standard_normal((n, m)), rng.standard_normal((p, n))
    D = rng.standard_normal((p, feedthrough)) @ rng.standard_normal((feedthrough, m))
    found = zeros(ssmid.StateSpace(*(xp.asarray(M) for M in (A, B, C, D))))
    assert xp.owns(found)
    found = xp.numpy(found)
    assert found.shape == (expected,)
    assert all(smallest(A, B, C, D, z) < 1e-12 for z in found)


def test_zeros_shared_by_all_channels_of_a_tall_system(rng):
    """Two outputs of one state space that both miss a mode at z = 0.3: the non-square system has that zero."""
    A = rng.standard_normal((3, 3))
    B, C = rng.standard_normal((3, 1)), rng.standard_normal((2, 3))
    lag = np.block([[np.array([[0.7]]), np.zeros((1, 3))], [B, A]])  # in front: (z - 0.3) / (z - 0.7)
    D = np.zeros((2, 1))
    series = ssmid.ss(lag, np.r_[[[0.4]], B], np.c_[D, C], D)
    np.testing.assert_allclose(zeros(series), [0.3], atol=1e-12)
    np.testing.assert_allclose(zeros(ssmid.ss(lag.T, np.c_[D, C].T, np.r_[[[0.4]], B].T, D.T)), [0.3], atol=1e-12)


def test_zeros_of_a_filter_of_every_form():
    z, p, k = scipy.signal.cheby2(6, 40, 0.3, output="zpk")
    num, den = scipy.signal.zpk2tf(z, p, k)
    r, q, d = scipy.signal.residue(num, den)
    forms = (
        ssmid.zpk(z, p, k),
        ssmid.tf(num, den),
        ssmid.ss(*scipy.signal.zpk2ss(z, p, k)),
        ssmid.Modal(q, r, d[0]),
        ssmid.SecondOrderSections(scipy.signal.zpk2sos(z, p, k)),
    )
    for system in forms:
        np.testing.assert_allclose(sort(zeros(system)), sort(z), atol=1e-7, err_msg=repr(system))
        np.testing.assert_allclose(sort(poles(system)), sort(p), atol=1e-7, err_msg=repr(system))
    # one pole of each pair with a doubled residue is the same real system
    half = ssmid.Modal(q[q.imag > 0], 2 * r[q.imag > 0], d[0])
    np.testing.assert_allclose(sort(zeros(half)), sort(z), atol=1e-7)


def test_zeros_are_those_of_python_control(rng):
    A, B, C, D = rng.standard_normal((6, 6)), rng.standard_normal((6, 2)), rng.standard_normal((2, 6)), rng.standard_normal((2, 2))
    np.testing.assert_allclose(sort(zeros(ssmid.ss(A, B, C, D))), sort(control.ss(A, B, C, D).zeros()), atol=1e-9)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_zeros_do_not_depend_on_the_scale_of_signals(rng, scale):
    A, B, C, D = rng.standard_normal((4, 4)), rng.standard_normal((4, 2)), rng.standard_normal((2, 4)), np.zeros((2, 2))
    np.testing.assert_allclose(sort(zeros(ssmid.ss(A, scale * B, C, D))), sort(zeros(ssmid.ss(A, B, C, D))), rtol=1e-9)


def test_elements_with_fewer_zeros_end_in_nan():
    found = zeros(ssmid.TransferFunction([[0.0, 1.0, -0.5], [2.0, -3.0, 1.0]], [1.0, 0.0, 0.0]))
    np.testing.assert_allclose(found[0, 0], 0.5)
    assert np.isnan(found[0, 1])
    np.testing.assert_allclose(sort(found[1]), [0.5, 1.0])
    batch = ssmid.StateSpace(np.array([[[0.5]], [[np.nan]]]), np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)))
    np.testing.assert_allclose(zeros(batch)[0], [-0.5])
    assert np.isnan(zeros(batch)[1]).all()


def test_taps_have_poles_at_zero_only():
    h = ssmid.ImpulseResponse([1.0, -0.75, 0.125])
    np.testing.assert_array_equal(poles(h), [0, 0])
    np.testing.assert_allclose(sort(zeros(h)), [0.25, 0.5])
    assert is_stable(h)


def test_dc_gain(xp, rng):
    z, p, k = scipy.signal.butter(4, 0.2, output="zpk")
    num, den = scipy.signal.zpk2tf(z, p, k)
    A, B, C, D = scipy.signal.zpk2ss(z, p, k)
    for system in (ssmid.zpk(z, p, k), ssmid.tf(num, den), ssmid.ss(A, B, C, D), ssmid.SecondOrderSections(scipy.signal.zpk2sos(z, p, k))):
        gain = dc_gain(system.map(xp.asarray))
        assert xp.owns(gain)
        np.testing.assert_allclose(xp.numpy(gain), 1, rtol=1e-9)
    assert xp.numpy(dc_gain(ssmid.ImpulseResponse(xp.asarray([1.0, 2.0])))) == 3
    A, B, C, D = -np.eye(2), rng.standard_normal((2, 3)), rng.standard_normal((2, 2)), rng.standard_normal((2, 3))
    continuous = ssmid.StateSpace(*(xp.asarray(M) for M in (A, B, C, D)), dt=0)
    np.testing.assert_allclose(xp.numpy(dc_gain(continuous)), D + C @ B, rtol=1e-14)
    assert dc_gain(ssmid.frd([3.0, 1.0], [0.0, 1.0])) == 3


@pytest.mark.parametrize(
    "system", [ssmid.tf([1.0], [1.0, -1.0]), ssmid.ss(1, 1, 1), ssmid.zpk([], [1.0], 1.0), ssmid.tf([1.0], [1.0, 0.0], 0)]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_dc_gain_of_an_integrator_is_infinite(system):
    assert dc_gain(system) == np.inf


def test_damping(xp):
    wn, ratio, dt = 3.0, 0.2, 0.05
    s = wn * (-ratio + 1j * np.sqrt(1 - ratio**2))
    table = damping(ssmid.ZerosPolesGain(xp.asarray(np.zeros(0, complex)), xp.asarray([s, s.conjugate(), -2.0]), xp.asarray(1.0), dt=0))
    np.testing.assert_allclose(xp.numpy(table.frequency), [wn, wn, 2])
    np.testing.assert_allclose(xp.numpy(table.ratio), [ratio, ratio, 1])
    np.testing.assert_allclose(xp.numpy(table.time_constant), [1 / (ratio * wn), 1 / (ratio * wn), 0.5])
    z = np.exp(np.array([s, s.conjugate(), -2.0]) * dt)
    sampled = damping(ssmid.ZerosPolesGain(xp.asarray(np.zeros(0, complex)), xp.asarray(z), xp.asarray(1.0), dt=dt))
    np.testing.assert_allclose(xp.numpy(sampled.frequency), [wn, wn, 2], rtol=1e-12)
    np.testing.assert_allclose(xp.numpy(sampled.ratio), [ratio, ratio, 1], rtol=1e-12)


def test_damping_of_slow_poles_keeps_its_digits():
    """A time constant of 1e6 samples: log(z) by log1p of what z is short of 1."""
    slow = 1 - 2.0**-20
    table = damping(ssmid.zpk([], [slow, 0.0, -1.0], 1.0))
    np.testing.assert_allclose(table.time_constant[0], -1 / np.log1p(-(2.0**-20)), rtol=1e-15)
    assert (table.time_constant[1], table.ratio[1], table.frequency[1]) == (0, 1, np.inf)
    assert (table.time_constant[2], table.ratio[2]) == (np.inf, 0)


def test_stability(xp):
    A = np.stack([np.diag([0.5, -0.9]), np.diag([0.5, 1.0]), np.full((2, 2), np.nan)])
    system = ssmid.StateSpace(xp.asarray(A), xp.asarray(np.ones((2, 1))), xp.asarray(np.ones((1, 2))))
    np.testing.assert_array_equal(xp.numpy(is_stable(system)), [True, False, False])
    np.testing.assert_allclose(xp.numpy(spectral_radius(system)), [0.9, 1.0, np.nan])
    continuous = ssmid.StateSpace(xp.asarray(A - np.eye(2)), xp.asarray(np.ones((2, 1))), xp.asarray(np.ones((1, 2))), dt=0)
    np.testing.assert_array_equal(xp.numpy(is_stable(continuous)), [True, False, False])
    np.testing.assert_allclose(xp.numpy(spectral_abscissa(continuous)), [-0.5, 0, np.nan])
    gain = ssmid.TransferFunction(xp.asarray([2.0]), xp.asarray([1.0]))
    assert bool(is_stable(gain))
    assert float(spectral_radius(gain)) == 0


def test_what_they_refuse():
    for verb in (poles, zeros):
        with pytest.raises(ValueError, match="no poles or zeros"):
            verb(ssmid.frd([1.0], [0.0]))
        with pytest.raises(TypeError, match="got ndarray"):
            verb(np.ones(3))
    with pytest.raises(TypeError, match="got ndarray"):
        dc_gain(np.ones(3))
    with pytest.raises(ValueError, match="holds frequency 0"):
        dc_gain(ssmid.frd([1.0], [0.5]))


def test_zeros_of_a_real_bank_are_those_of_its_response():
    """Of a real bank only the real part of the sum counts, however the residues say it; elements differ in their states."""
    bank = ssmid.Modal([[0.5 + 0.2j, 0.5 - 0.2j], [0.5, 0.3], [0.6j, 0.1]], [[1 + 1j, 0], [1 + 1j, 2], [1.0, 2.0]], 0.5)
    for index, found in enumerate(zeros(bank)):
        one = ssmid.Modal(bank.poles[index], bank.residues[index], 0.5)
        states = ssmid.to_state_space(one)
        assert np.isfinite(found).sum() == states.order
        for z in found[np.isfinite(found)]:
            assert smallest(states.A, states.B, states.C, states.D, z) < 1e-14


def test_stability_is_said_of_every_element_of_a_batch_that_shares_its_poles(xp):
    bank = ssmid.StateSpace(*(xp.asarray(np.ones(shape) / 2) for shape in ((1, 1), (3, 1, 1), (2, 1, 1, 1))))
    assert xp.numpy(is_stable(bank)).tolist() == [[True] * 3] * 2
    assert xp.numpy(spectral_radius(bank)).tolist() == xp.numpy(spectral_abscissa(bank)).tolist() == [[0.5] * 3] * 2
    assert spectral_radius(ssmid.ss(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)))) == 0


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("side", ["B", "C"])
def test_zeros_at_any_scale(scale, side):
    """Inputs and outputs in any unit: squares of these leave the range of the numbers."""
    sides = {"B": np.ones((2, 1)), "C": np.array([[1.0, 2.0]])}
    sides[side] = scale * sides[side]
    system = ssmid.StateSpace(np.diag([0.5, 0.3]), **sides)
    np.testing.assert_allclose(zeros(system), [1.3 / 3], rtol=1e-13)
    np.testing.assert_allclose(ssmid.to_zpk(system).gain / scale, 3.0, rtol=1e-12)


def test_zeros_do_not_depend_on_the_units_of_the_states(rng):
    """A triangular A, which no permutation and no balancing of A alone brings into like units; D is small in the scaled pencil."""
    A = np.diag([0.5, 0.3, 0.9]) + np.triu(rng.standard_normal((3, 3)), 1)
    B, C = rng.standard_normal((3, 1)), rng.standard_normal((1, 3))
    expected = np.sort_complex(zeros(ssmid.ss(A, B, C, 0.04)))
    for units in (np.array([1.0, 1.0, 1e12]), 10.0 ** np.array([-10, 3, 9])):
        odd = ssmid.ss(A * units / units[:, None], B / units[:, None], C * units, 0.04)
        np.testing.assert_allclose(np.sort_complex(zeros(odd)), expected, rtol=1e-9)
