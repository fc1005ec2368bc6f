"""Rational least squares: exact functions are recovered, the minimum is one, delays are kept apart."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

import ssmid
from ssmid.identification.orthogonal import arnoldi
from ssmid.identification.partial_fractions import fit_residues, reflected
from ssmid.identification.rational_least_squares import estimate_delay, rational_least_squares
from ssmid.identification.samples import samples

OMEGA = np.linspace(0.05, 12, 80)


def exact(s, delay=0.0):
    """Poles -2, -0.1 +- 3i; zeros -1 +- 2i."""
    return np.exp(-delay * s) * 3 * ((s + 1) ** 2 + 4) / ((s + 2) * ((s + 0.1) ** 2 + 9))


def noisy(rng, *batch, size=1e-3):
    values = exact(1j * OMEGA) + size * (rng.standard_normal((*batch, 80)) + 1j * rng.standard_normal((*batch, 80)))
    return values


def test_the_basis_is_orthonormal_and_solves_for_roots(rng):
    points = 1j * OMEGA
    basis = arnoldi(points, 6, real=True)
    np.testing.assert_allclose((basis.values.conj().T @ basis.values).real, np.eye(7), atol=1e-13)
    roots = np.array([-1, 2, -0.5 + 3j, -0.5 - 3j])
    c = (basis.values[:, :5].conj().T @ np.prod(points[:, None] - roots, -1)).real
    np.testing.assert_allclose(np.sort_complex(basis.roots(c)), np.sort_complex(roots), atol=1e-11)


def test_exact_functions_are_recovered(xp):
    fit = rational_least_squares(xp.asarray(1j * OMEGA), xp.asarray(exact(1j * OMEGA)), 3, zeros=2)
    assert float(fit.error) < 1e-13
    assert xp.owns(fit.system.A)
    np.testing.assert_allclose(np.sort_complex(xp.numpy(fit.zpk.poles)), [-2, -0.1 - 3j, -0.1 + 3j], atol=1e-10)
    np.testing.assert_allclose(np.sort_complex(xp.numpy(fit.zpk.zeros)), [-1 - 2j, -1 + 2j], atol=1e-10)
    np.testing.assert_allclose(xp.numpy(fit.zpk.gain), 3, atol=1e-10)
    states = ssmid.frequency_response(fit.system, xp.asarray(OMEGA)).values
    np.testing.assert_allclose(xp.numpy(states), exact(1j * OMEGA), atol=1e-11)


@pytest.mark.parametrize("dt", [True, 0.01])
def test_discrete_functions_are_recovered(dt):
    z = np.exp(1j * np.linspace(0, np.pi, 60))
    values = (z - 0.3) / ((z - 0.9) * (z**2 - 1.2 * z + 0.8))
    fit = rational_least_squares(z, values, 3, zeros=1, dt=dt)
    np.testing.assert_allclose(np.sort_complex(fit.zpk.poles), np.sort_complex(np.r_[0.9, np.roots([1, -1.2, 0.8])]), atol=1e-11)
    assert fit.system.dt == dt


def test_noise_ends_at_the_least_squares_minimum(rng):
    """SciPy's minimizer over pole, zero and gain coordinates, started at the truth, finds nothing lower."""
    values = noisy(rng)
    fit = rational_least_squares(1j * OMEGA, values, 3, zeros=2)

    def residual(p):
        s = 1j * OMEGA
        e = (p[0] * s**2 + p[1] * s + p[2]) / (s**3 + p[3] * s**2 + p[4] * s + p[5]) - values
        return np.r_[e.real, e.imag]

    start = np.r_[3 * np.array([1, 2, 5]), np.poly([-2, -0.1 + 3j, -0.1 - 3j]).real[1:]]
    best = scipy.optimize.least_squares(residual, start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    rms = np.sqrt(2 * best.cost / 80) / np.abs(values).max()
    assert bool(fit.converged)
    assert float(fit.error) == pytest.approx(rms, rel=1e-6)
    np.testing.assert_allclose(np.sort(np.poly(fit.zpk.poles).real[1:]), np.sort(best.x[3:]), rtol=1e-4)


def test_weights_count_as_repeated_points(rng):
    """A point of weight sqrt(2) is two points."""
    values = noisy(rng)
    weights = np.where(np.arange(80) < 30, 2**0.5, 1.0)
    twice = np.r_[np.arange(80), np.arange(30)]
    weighted = rational_least_squares(1j * OMEGA, values, 3, weights=weights)
    repeated = rational_least_squares(1j * OMEGA[twice], values[twice], 3)
    np.testing.assert_allclose(np.sort_complex(weighted.zpk.poles), np.sort_complex(repeated.zpk.poles), rtol=1e-5)


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.4, 2.5])
def test_delays_are_estimated(delay):
    fit = rational_least_squares(1j * OMEGA, exact(1j * OMEGA, delay), 3, zeros=2, delay="estimate")
    assert float(fit.delay) == pytest.approx(delay, abs=1e-6)
    assert float(fit.error) < 1e-7
    known = rational_least_squares(1j * OMEGA, exact(1j * OMEGA, delay), 3, zeros=2, delay=delay)
    assert float(known.error) < 1e-12


def test_delays_of_discrete_systems_are_whole_samples():
    z = np.exp(1j * np.linspace(0, np.pi, 100))
    values = z**-9 * (z - 0.2) / (z - 0.7)
    assert float(estimate_delay(z, values, order=1, dt=0.5)) == 4.5


def test_stable_when_asked_for(rng):
    """Noise beyond the order makes unstable poles; the iteration through stable systems ends below mirroring alone."""
    values = np.exp(-1.0j * OMEGA)[None] + 0.3 * rng.standard_normal((8, 80))
    with pytest.warns(UserWarning, match="unstable; stable=True"):
        free = rational_least_squares(1j * OMEGA, values, 6)
    kept = rational_least_squares(1j * OMEGA, values, 6, stable=True)
    assert kept.stable.all()
    given = samples(1j * OMEGA, values)
    mirrored = given.error(fit_residues(given, reflected(free.zpk.poles, 0))[0])
    assert (kept.error <= mirrored * (1 + 1e-9)).all()
    assert (kept.error < 0.99 * mirrored).any()
    assert {change.element for change in kept.changes} == {(i,) for i in np.flatnonzero(~free.stable)}
    assert "reflected (unstable)" in kept.explain()


@pytest.mark.parametrize("seed", range(4))
def test_systems_that_want_to_be_unstable_are_kept_stable(seed):
    """An unstable pole, and a negative delay: every step of the iteration pulls across the boundary."""
    noise = 0.01 * np.random.default_rng(seed).standard_normal((32, 80))
    values = noise + np.repeat([1 / (1j * OMEGA - 1), np.exp(0.3j * OMEGA)], 16, axis=0)
    fit = rational_least_squares(1j * OMEGA, values, 6, stable=True)
    assert fit.stable.all()
    z = np.exp(1j * np.linspace(0.1, 3, 80))
    assert rational_least_squares(z, noise + 1 / (z - 1.25), 5, stable=True, dt=1).stable.all()


def test_a_batch_equals_a_loop_and_a_bad_element_spoils_no_other(rng):
    values = noisy(rng, 5)
    values[1], values[3] = np.nan, 0
    fit = rational_least_squares(1j * OMEGA, values, 3)
    assert fit.converged.tolist() == [True, False, True, True, True]
    assert np.isnan(fit.error[1])
    assert fit.error[3] == 0
    for i in (0, 2, 4):
        alone = rational_least_squares(1j * OMEGA, values[i], 3)
        np.testing.assert_allclose(fit.error[i], alone.error, rtol=1e-9)
        np.testing.assert_allclose(np.sort_complex(fit.zpk.poles[i]), np.sort_complex(alone.zpk.poles), rtol=1e-5)


@pytest.mark.parametrize(("size", "unit"), [(1e-200, 1.0), (1e200, 1.0), (1.0, 1e-12), (1.0, 1e12)])
def test_scale_and_unit_of_time_do_not_matter(rng, size, unit):
    values = noisy(rng)
    fit = rational_least_squares(1j * OMEGA, values, 3)
    other = rational_least_squares(1j * OMEGA * unit, values * size, 3)
    np.testing.assert_allclose(other.error, fit.error, rtol=1e-9)
    np.testing.assert_allclose(np.sort_complex(other.zpk.poles / unit), np.sort_complex(fit.zpk.poles), rtol=1e-7)


def test_poles_to_start_from_are_used(rng):
    """Sanathanan and Koerner's iteration alone misses twenty modes that good poles hold."""
    z = np.exp(1j * np.linspace(0, np.pi, 500))
    upper = rng.uniform(0.9, 0.999, 20) * np.exp(1j * rng.uniform(0.05, 3.1, 20))
    poles = np.r_[upper, upper.conj()]
    values = (1 / (z[:, None] - poles)).sum(-1)
    fit = rational_least_squares(z, values, 40, zeros=39, poles=poles, dt=1)
    assert float(fit.error) < 1e-10


def test_measured_slot_ring(shared_data):
    response = ssmid.read(shared_data / "freq" / "skrf_ring_slot.s2p", channel=(0, 0))
    fit = rational_least_squares(response, order=4, stable=True)
    assert bool(fit.stable)
    assert float(fit.error) < 3e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 80}, "order: expected 0 to 79 for 80 complex values, got 80"),
        ({"order": None}, "order: expected"),
        ({"order": 2, "zeros": 3}, "zeros: expected 0 to 2 for a proper function"),
        ({"order": 2, "weights": -np.ones(80)}, "weights: expected 80 positive"),
        ({"order": 2, "delay": -1.0}, "delay: expected seconds >= 0"),
        ({"order": 2, "delay": "guess"}, 'delay: expected seconds >= 0, or "estimate"'),
        ({"order": 2, "poles": [1.0]}, "poles: expected shape .2,. or .2,., got .1,."),
    ],
)
def test_wrong_input(options, message):
    with pytest.raises(ValueError, match=message):
        rational_least_squares(1j * OMEGA, exact(1j * OMEGA), **options)


@pytest.mark.parametrize("excess", [1, 2, 3])
def test_functions_that_fall_off_keep_their_zeros(excess):
    # with as many zeros as poles those beyond the true ones are infinite: they must not spoil the others, nor the gain
    s = 1j * np.linspace(0.1, 10, 40)
    values = (s + 3) / (s**2 + 0.2 * s + 4) / (s + 1) ** (excess - 1)
    fit = rational_least_squares(s, values, 1 + excess)
    assert float(fit.error) < 1e-13
    assert np.abs(fit.zpk.zeros + 3).min() < 1e-11
    assert np.sort(np.abs(fit.zpk.zeros))[1:].min(initial=np.inf) > 1e3
    np.testing.assert_allclose(ssmid.frequency_response(fit.system, s.imag).values, values, atol=1e-12)
