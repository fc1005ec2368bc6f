"""Passivity: circuits that are known to be passive or not, dense sampling, fifty digits, and enforcement that the test confirms."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid import StateSpace, enforce_passivity, passivity, vector_fitting


def random_system(rng, order, ports, discrete=False, gain=1.0):
    """Lightly damped pairs and a largest singular value of about ``gain``."""
    pairs = order // 2
    omega, damping = rng.uniform(0.2, 2, pairs), rng.uniform(0.01, 0.2, pairs)
    A = np.zeros((order, order))
    for i, (w, d) in enumerate(zip(omega, damping, strict=True)):
        block = w * np.array([[-d, 1], [-1, -d]])
        A[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
    if discrete:
        import scipy.linalg

        A = scipy.linalg.expm(A)
    B, C = rng.standard_normal((order, ports)), rng.standard_normal((ports, order))
    D = 0.1 * rng.standard_normal((ports, ports))
    system = StateSpace(A, B, C, D, dt=1 if discrete else 0)
    peak = float(ssmid.norm(StateSpace(A, B, C, 0 * D, dt=system.dt), "hinf"))
    return StateSpace(A, B * gain / peak, C, D, dt=system.dt)


def responses(system, omega):
    values = np.asarray(ssmid.frequency_response(system, omega).values)
    return np.moveaxis(values.reshape(system.outputs, system.inputs, -1), -1, 0)


def measured(system, omega, kind):
    values = responses(system, omega)
    if kind == "scattering":
        return np.linalg.norm(values, 2, axis=(1, 2))
    return np.linalg.eigvalsh((values + np.swapaxes(values, 1, 2).conj()) / 2)[:, 0]


def resonant_circuit(R, L, C):
    """The impedance of a resistance in series with a parallel resonance of quality 100."""
    G = np.sqrt(C / L) / 100
    return ssmid.to_state_space(ssmid.tf([R * L * C, L + R * L * G, R], [L * C, L * G, 1], dt=0))


# ---------------------------------------------------------------- the test


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    ports=st.integers(1, 3),
    discrete=st.booleans(),
    kind=st.sampled_from(["scattering", "immittance"]),
    gain=st.sampled_from([0.3, 0.9, 1.02, 1.5]),
)
def test_bands_are_where_dense_sampling_finds_violations(seed, ports, discrete, kind, gain):
    rng = np.random.default_rng(seed)
    system = random_system(rng, 6, ports, discrete, gain)
    if kind == "immittance":
        system = StateSpace(system.A, system.B, system.C, system.D + (1.2 - gain) * np.eye(ports), dt=system.dt)
    found = passivity(system, kind)
    omega = np.linspace(0, np.pi if discrete else 20, 2001)
    values = measured(system, omega, kind)
    bad = values > 1 + 1e-9 if kind == "scattering" else values < 0
    inside = np.zeros(len(omega), bool)
    near = np.zeros(len(omega), bool)
    for band in found.violations:
        assert band.low < band.high
        inside |= (omega > band.low) & (omega < band.high)
        near |= (np.abs(omega - band.low) < 1e-6) | (np.abs(omega - band.high) < 1e-6)
        there = measured(system, np.array([band.frequency]), kind)[0] if np.isfinite(band.frequency) else None
        assert there is None or there == pytest.approx(band.worst, rel=1e-6)
    close = np.abs(values - (1 if kind == "scattering" else 0)) < 1e-7
    assert (inside == bad)[~near & ~close].all()
    assert bool(found.passive) == (not found.violations)
    extreme = values.max() if kind == "scattering" else values.min()
    assert float(found.worst) >= extreme * (1 - 1e-8) if kind == "scattering" else float(found.worst) <= extreme + 1e-8
    if np.isfinite(found.frequency):
        assert measured(system, np.array([float(found.frequency)]), kind)[0] == pytest.approx(float(found.worst), rel=1e-6, abs=1e-9)


def test_a_violation_too_narrow_for_any_grid_is_found():
    pole = -1e-9 + 1j  # a band of 1e-9 around 1 rad/s
    system = ssmid.tf([2.2e-9, 0], [1, -2 * pole.real, abs(pole) ** 2], dt=0)
    found = passivity(system)
    assert not found.passive
    assert float(found.worst) == pytest.approx(1.1, rel=1e-6)
    (band,) = found.violations
    assert 0 < band.high - band.low < 3e-9
    assert band.frequency == pytest.approx(1, rel=1e-9)


def test_the_edges_of_a_band_to_fifty_digits():
    """|0.12 / (s^2 + 0.1 s + 1)| = 1 has roots in closed form."""
    with mpmath.workdps(50):
        b, c = -2 + mpmath.mpf("0.1") ** 2, 1 - mpmath.mpf("0.12") ** 2
        root = mpmath.sqrt(b * b - 4 * c)
        edges = [mpmath.sqrt((-b - root) / 2), mpmath.sqrt((-b + root) / 2)]
        peak = mpmath.mpf("0.12") / (mpmath.mpf("0.1") * mpmath.sqrt(1 - mpmath.mpf("0.1") ** 2 / 4))
    found = passivity(ssmid.tf([0.12], [1, 0.1, 1], dt=0), tol=0)
    (band,) = found.violations
    assert band.low == pytest.approx(float(edges[0]), rel=1e-12)
    assert band.high == pytest.approx(float(edges[1]), rel=1e-12)
    assert float(found.worst) == pytest.approx(float(peak), rel=1e-9)


def test_circuits_are_passive():
    assert passivity(resonant_circuit(1.0, 2.0, 3.0), "immittance").passive
    all_pass = StateSpace([[-1.0]], [[1.0]], [[-2.0]], [[1.0]], dt=0)  # (1 - s)/(1 + s)
    found = passivity(all_pass)
    assert found.passive
    assert float(found.worst) == pytest.approx(1, abs=1e-12)
    nearly_lossless = ssmid.tf([1, 0], [1, 1e-9, 1], dt=0)
    assert passivity(nearly_lossless, "immittance").passive
    butterworth = ssmid.tf([1], [1, 2, 2, 1], dt=0)
    assert passivity(butterworth).passive
    assert not passivity(resonant_circuit(-0.5, 2.0, 3.0), "immittance").passive


@pytest.mark.parametrize("resistance", [1e-12, 1.0, 1e12])
def test_neither_unit_matters(resistance):
    for time in (1e-12, 1.0, 1e9):
        active = ssmid.tf([-0.3 * resistance * time, resistance], [time, 1], dt=0)  # R (1 - 0.3 s) / (1 + s)
        found = passivity(active, "immittance")
        (band,) = found.violations
        assert band.low * time == pytest.approx(np.sqrt(1 / 0.3), rel=1e-6)
        assert band.high == np.inf
        assert float(found.worst) == pytest.approx(-0.3 * resistance)


def test_a_bilinear_map_keeps_passivity():
    system = random_system(np.random.default_rng(3), 6, 2, gain=1.3)
    discrete = ssmid.c2d(system, 0.5, method="tustin")
    continuous, sampled = passivity(system), passivity(discrete)
    assert float(continuous.worst) == pytest.approx(float(sampled.worst), rel=1e-8)
    assert len(continuous.violations) == len(sampled.violations)
    for a, b in zip(continuous.violations, sampled.violations, strict=True):
        assert a.low == pytest.approx(4 * np.tan(b.low * 0.25), rel=1e-6, abs=1e-9)


def test_what_is_unstable_is_not_passive():
    found = passivity(ssmid.ss(0.1, 1, 0.01, 0, dt=0))
    assert not found.passive
    assert found.worst == np.inf


def test_a_bank_is_its_elements_and_nan_stays_alone():
    systems = [random_system(np.random.default_rng(i), 4, 1, gain=g) for i, g in enumerate((0.5, 1.4, 1.1))]
    A, B, C, D = (np.stack([getattr(s, n) for s in systems]) for n in "ABCD")
    C[0] = np.nan
    found = passivity(StateSpace(A, B, C, D, dt=0))
    assert not found.passive[0]
    assert np.isnan(found.worst[0])
    for i in (1, 2):
        one = passivity(systems[i])
        assert found.worst[i] == one.worst
        assert [v.low for v in found.violations if v.element == (i,)] == [v.low for v in one.violations]


def test_kind_is_kept(xp):
    system = random_system(np.random.default_rng(1), 4, 2, gain=1.4).map(xp.asarray)
    assert xp.owns(passivity(system).worst)
    passive = enforce_passivity(system)
    assert all(xp.owns(a) for a in passive.system.arrays.values())
    assert bool(passive.after.passive)


@pytest.mark.parametrize(
    ("system", "kind", "error", "message"),
    [
        (3, "scattering", TypeError, "expected a System or a fit, got int"),
        (ssmid.frd([1.0, 2.0], [1.0, 2.0]), "scattering", ValueError, "says nothing between its points"),
        (ssmid.ss(-1, 1, 1, 0, dt=0), "hybrid", ValueError, "kind: expected 'scattering' or 'immittance', got 'hybrid'"),
        (ssmid.ss(-np.eye(2), np.eye(2), [[1, 0]], np.zeros((1, 2)), dt=0), "immittance", ValueError, "as many outputs as inputs"),
        (ssmid.ss(-1, 1j, 1, 0, dt=0), "scattering", ValueError, "expected a real system"),
    ],
)
def test_wrong_arguments_are_quoted(system, kind, error, message):
    with pytest.raises(error, match=message):
        passivity(system, kind)


# ---------------------------------------------------------------- enforcement


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("kind", ["scattering", "immittance"])
@pytest.mark.parametrize("ports", [1, 2])
def test_the_result_is_passive_with_the_same_poles(discrete, kind, ports):
    system = random_system(np.random.default_rng(ports), 8, ports, discrete, gain=1.05)
    if kind == "immittance":
        D = np.eye(ports) * 0.3
        system = StateSpace(system.A, system.B, system.C, D, dt=system.dt)
    fit = enforce_passivity(system, kind)
    assert not fit.before.passive
    assert fit.after.passive
    assert fit.converged
    np.testing.assert_array_equal(fit.system.A, system.A)
    np.testing.assert_array_equal(fit.system.B, system.B)
    np.testing.assert_array_equal(fit.system.D, system.D)
    omega = np.linspace(0, np.pi if discrete else 10, 3000)
    values = measured(fit.system, omega, kind)
    assert values.max() <= 1 + 1e-9 if kind == "scattering" else values.min() >= -1e-9
    assert 0 < fit.change < 0.5
    assert "Passive" in fit.explain()


def test_the_change_is_the_smallest():
    """One port with one resonance over the limit: no random passive change of the residues is smaller."""
    system = ssmid.to_state_space(ssmid.tf([0.12], [1, 0.1, 1], dt=0))
    fit = enforce_passivity(system)
    rng = np.random.default_rng(0)
    found = 0
    for step in rng.standard_normal((60, *system.C.shape)) * 0.5 * np.abs(fit.system.C - system.C).max():
        other = StateSpace(system.A, system.B, fit.system.C + step, system.D, dt=0)
        if passivity(other).passive:
            found += 1
            moved = ssmid.norm(ssmid.subtract(other, system), "h2") / ssmid.norm(system, "h2")
            assert moved > 0.9 * float(fit.change)
    assert found > 10


def test_a_passive_system_stays_as_it_is():
    system = random_system(np.random.default_rng(0), 6, 2, gain=0.5)
    fit = enforce_passivity(system)
    for name, array in system.arrays.items():
        np.testing.assert_array_equal(getattr(fit.system, name), array)
    assert fit.iterations == 0


def test_a_feedthrough_above_one_is_clipped():
    system = random_system(np.random.default_rng(0), 6, 2, gain=0.5)
    system = StateSpace(system.A, system.B, system.C, system.D + 1.1 * np.eye(2), dt=0)
    fit = enforce_passivity(system)
    assert fit.after.passive
    assert np.linalg.norm(fit.system.D, 2) <= 1
    assert fit.feedthrough_change > 0.05


def test_what_iterations_leave_is_taken_from_the_whole_response():
    system = random_system(np.random.default_rng(2), 8, 2, gain=1.3)
    fit = enforce_passivity(system, iterations=0)
    assert fit.after.passive
    assert float(fit.before.worst) * fit.system.C[0, 0] == pytest.approx(system.C[0, 0], rel=1e-6)


def test_a_bank_and_an_unstable_system():
    systems = [random_system(np.random.default_rng(i), 4, 1, gain=g) for i, g in enumerate((0.5, 1.4, 1.1))]
    A, B, C, D = (np.stack([getattr(s, n) for s in systems]) for n in "ABCD")
    fit = enforce_passivity(StateSpace(A, B, C, D, dt=0))
    assert fit.after.passive.all()
    np.testing.assert_array_equal(fit.system.C[0], C[0])
    np.testing.assert_allclose(fit.system.C[1], enforce_passivity(systems[1]).system.C, rtol=1e-9)
    with pytest.raises(ValueError, match="expected a stable system"):
        enforce_passivity(ssmid.ss(0.1, 1, 1, 0, dt=0))


def test_samples_say_where_a_change_costs_least():
    rng = np.random.default_rng(4)
    points = 1j * np.linspace(0.3, 1, 200)
    values = 0.998 * np.exp(-2 * points) + 0.01 * rng.standard_normal(200)
    fit = vector_fitting(points, values, 9)
    passive = enforce_passivity(fit)
    assert not passive.before.passive
    assert passive.after.passive
    assert passive.error_before == pytest.approx(float(fit.error))
    assert passive.error < 2 * fit.error
    assert passive.data is fit.data


@pytest.mark.parametrize(
    ("name", "order", "limit"),
    [  # scikit-rf 2.2 at the same order, after its passivity_enforce: 1.96e-4, 2.17e-2, and not passive (3.0e-2)
        ("milan_3port.s3p", 10, 6e-5),
        ("skrf_Agilent_E5071B.s4p", 40, 1.9e-2),
        ("skrf_resonator_36mm.s2p", 8, 4.4e-3),
    ],
)
def test_real_ports(shared_data, name, order, limit):
    ports = ssmid.read(shared_data / "freq" / name)
    fit = vector_fitting(ports, order=order, mimo=True)
    passive = enforce_passivity(fit)
    assert not passive.before.passive
    assert passive.after.passive
    assert passive.stable
    assert passive.error < limit
    omega = np.linspace(0, 3 * ports.omega[-1], 4000)
    assert measured(passive.system, omega, "scattering").max() <= 1 + 1e-9


def test_a_lossless_filter_is_passive_as_fitted(shared_data):
    ports = ssmid.read(shared_data / "freq" / "skrf_designer_bandpass.s2p")
    fit = vector_fitting(ports, order=8, mimo=True)
    assert fit.error < 1e-13
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert passivity(fit).passive


@pytest.mark.parametrize(("kind", "gain"), [("scattering", 2.0), ("immittance", -2.0)])
def test_a_gain_without_states_is_clipped(kind, gain):
    system = ssmid.ss(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), [[gain]], dt=0)
    assert not passivity(system, kind).passive
    assert enforce_passivity(system, kind).after.passive


def test_empty_batches_have_empty_results():
    system = ssmid.ss(np.zeros((0, 2, 2)), np.zeros((0, 2, 1)), np.zeros((0, 1, 2)), np.zeros((0, 1, 1)), dt=0)
    assert passivity(system).passive.shape == enforce_passivity(system).error.shape == (0,)


@pytest.mark.parametrize("tol", [-1, np.nan, "x"])
def test_tolerances_are_numbers(tol):
    with pytest.raises(ValueError, match="tol: expected a number from 0 on, got"):
        passivity(ssmid.ss(-1, 1, 1, 0, dt=0), tol=tol)


@pytest.mark.parametrize("iterations", [-1, 2.5])
def test_iterations_are_counted(iterations):
    with pytest.raises(ValueError, match="iterations: expected a whole number from 0 on, got"):
        enforce_passivity(ssmid.ss(-1, 1, 1, 0, dt=0), iterations=iterations)
