"""Vector fitting: systems recovered from their samples, banks as their elements, peers' errors on real data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid import FrequencyResponse, vector_fitting
from ssmid.identification.pole_relocation import Bank, _step, initial_poles, slot_basis, slots
from ssmid.identification.stable_poles import held_inside


def random_poles(rng, order, discrete=False, damping=(-3, -1)):
    """Poles spread over (0, 1) and residues that make peaks of one height; an odd order has a real one."""
    pairs = order // 2
    omega = np.linspace(0.25, 0.95, pairs) + rng.uniform(-0.2, 0.2, pairs) * 0.7 / max(pairs, 1)
    upper = omega * (1j - 10 ** rng.uniform(*damping, pairs))
    real = -rng.uniform(0.05, 1, order % 2)
    residues = (rng.standard_normal(pairs) + 1j * rng.standard_normal(pairs)) * abs(upper.real)
    poles = np.concatenate([upper, upper.conj(), real])
    residues = np.concatenate([residues, residues.conj(), abs(real)])
    return np.exp(np.pi * poles) if discrete else poles, residues


def values_at(points, poles, residues, feedthrough=0.7):
    return (residues / (points[..., None] - poles)).sum(-1) + feedthrough


def samples_of(rng, order, count, discrete=False):
    poles, residues = random_poles(rng, order, discrete)
    omega = np.linspace(0.002, 1, count)
    points = np.exp(1j * np.pi * omega) if discrete else 1j * omega
    return points, values_at(points, poles, residues), poles


def distance(found, expected):
    """The largest relative distance of an expected pole to the nearest one found."""
    return (np.abs(np.asarray(found)[:, None] - expected).min(axis=0) / np.abs(expected)).max()


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 7, 12, 25, 40, 60])
def test_a_system_is_recovered_from_its_samples(order, discrete):
    points, values, poles = samples_of(np.random.default_rng(order), order, max(100, 12 * order), discrete)
    fit = vector_fitting(points, values, order, dt=1 if discrete else 0)
    assert fit.converged
    assert fit.stable
    assert fit.error < 1e-12
    assert distance(fit.modal.poles, poles) < 1e-10
    assert not fit.system.is_complex
    assert fit.order == fit.system.order == order


def test_clustered_and_very_lightly_damped_poles():
    upper = np.array([0.4, 0.4004, 0.4008, 0.7]) * (1j - np.array([1e-3, 1e-3, 1e-3, 1e-6]))
    poles = np.concatenate([upper, upper.conj()])
    residues = np.abs(poles.real) * np.array([1, -1, 1, 1] * 2)
    points = 1j * np.sort(np.concatenate([np.linspace(0.01, 1, 400), np.linspace(0.39, 0.41, 100), np.linspace(0.69999, 0.70001, 20)]))
    fit = vector_fitting(points, values_at(points, poles, residues), 8)
    assert distance(fit.modal.poles, poles) < 1e-10
    assert fit.stable


def test_a_double_real_pole_does_not_stop_the_iteration():
    points = 1j * np.geomspace(0.01, 100, 80)
    fit = vector_fitting(points, 1 / (points + 1) ** 2 + 1 / (points + 20), 3)
    assert fit.error < 1e-13
    assert distance(fit.modal.poles, np.array([-20.0])) < 1e-6


def test_real_poles_over_eleven_decades():
    poles, residues = -np.array([3e-6, 0.1, 4e4]), np.array([1e-6, 0.2, -1e4])
    points = 1j * np.geomspace(1e-6, 1e5, 120)
    fit = vector_fitting(points, values_at(points, poles, residues), 3)
    assert distance(fit.modal.poles, poles) < 1e-10


def test_unstable_poles_are_mirrored_and_said():
    points = 1j * np.linspace(0.01, 2, 100)
    values = 1 / ((points - 0.05) ** 2 + 1)
    fit = vector_fitting(points, values, 2)
    assert fit.stable
    assert [c.action for c in fit.changes] == ["reflected"]
    assert all(p.real > 0 for p in fit.changes[0].poles)
    assert "mirrored at the boundary of stability" in fit.explain()
    free = vector_fitting(points, values, 2, stable=False)
    assert not free.stable
    assert free.changes == ()
    np.testing.assert_allclose(np.sort(free.modal.poles.imag), [-1, 1], atol=1e-10)
    np.testing.assert_allclose(free.modal.poles.real, 0.05, atol=1e-10)


@pytest.mark.parametrize("discrete", [False, True])
def test_noise_costs_what_the_cramer_rao_bound_says(discrete):
    rng = np.random.default_rng(5)
    points, clean, poles = samples_of(rng, 4, 200, discrete)
    level = 1e-4
    noise = level * (rng.standard_normal((60, 200)) + 1j * rng.standard_normal((60, 200)))
    fit = vector_fitting(points, clean + noise, 4, dt=1 if discrete else 0)
    found = np.asarray(fit.modal.poles)
    nearest = np.abs(found[:, :, None] - poles).argmin(axis=1)
    errors = np.take_along_axis(found, nearest, axis=1) - poles
    spread = np.sqrt(np.mean(np.abs(errors) ** 2, axis=0))
    bound = _cramer_rao(points, poles, clean, level)
    assert (spread < 1.6 * bound).all()
    assert (spread > 0.6 * bound).all()


def _cramer_rao(points, poles, clean, level):
    """Standard deviations of two pairs of poles, from the Jacobian by differences of the model in real parameters."""
    upper = poles[poles.imag > 0]
    basis = np.concatenate([1 / (points[:, None] - p) + 1 / (points[:, None] - p.conj()) for p in upper], 1)
    turned = np.concatenate([1j / (points[:, None] - p) - 1j / (points[:, None] - p.conj()) for p in upper], 1)
    columns = np.concatenate([basis, turned, np.ones((len(points), 1))], 1)
    stacked = np.concatenate([columns.real, columns.imag])
    x = np.linalg.lstsq(stacked, np.concatenate([clean.real, clean.imag]), rcond=None)[0]
    residues = x[: len(upper)] + 1j * x[len(upper) : 2 * len(upper)]
    square = [(r / (points - p) ** 2, np.conj(r) / (points - p.conj()) ** 2) for p, r in zip(upper, residues, strict=True)]
    slopes = [a + b for a, b in square] + [1j * (a - b) for a, b in square]
    J = np.concatenate([columns, np.stack(slopes, 1)], 1)
    J = np.concatenate([J.real, J.imag])
    variance = level**2 * np.diag(np.linalg.inv(J.T @ J))[columns.shape[1] :]
    per_pole = np.sqrt(variance[: len(upper)] + variance[len(upper) :])
    return per_pole[np.abs(poles[:, None] - np.concatenate([upper, upper.conj()])).argmin(1) % len(upper)]


# ---------------------------------------------------------------- laws


def test_units_of_time_and_of_values_do_not_matter(rng):
    points, values, _ = samples_of(rng, 5, 90)
    values = values + 1e-3 * rng.standard_normal(90)
    fit = vector_fitting(points, values, 5)
    for time, size in [(1e-12, 1e-300), (1e9, 1e290), (3.0, -2.0)]:
        other = vector_fitting(points * time, values * size, 5)
        np.testing.assert_allclose(other.modal.poles / time, fit.modal.poles, rtol=1e-7)
        np.testing.assert_allclose(other.modal.residues / time / size, fit.modal.residues, rtol=1e-6)
        np.testing.assert_allclose(other.error, fit.error, rtol=1e-9)


def test_samples_below_the_axis_are_those_of_the_conjugate(rng):
    points, values, _ = samples_of(rng, 4, 80)
    values = values + 1e-3 * rng.standard_normal(80)
    fit, mirrored = vector_fitting(points, values, 4), vector_fitting(points.conj(), values.conj(), 4)
    np.testing.assert_allclose(mirrored.modal.poles, fit.modal.poles, rtol=1e-9)


@pytest.mark.parametrize("count", [3, 40])
def test_a_batch_is_its_elements(rng, count):
    points = 1j * np.linspace(0.002, 1, 120)
    values = np.stack([values_at(points, *random_poles(rng, 6)) for _ in range(count)]) + 1e-3 * rng.standard_normal((count, 120))
    fit = vector_fitting(points, values, 6)
    for i in range(0, count, 7):
        one = vector_fitting(points, values[i], 6)
        np.testing.assert_allclose(fit.error[i], one.error, rtol=1e-3)
        assert distance(fit.modal.poles[i], np.asarray(one.modal.poles)) < 1e-2


def test_each_element_may_have_its_own_points(rng):
    first, second = 1j * np.linspace(0.002, 1, 120), 1j * np.linspace(0.01, 1.2, 120)
    poles = [random_poles(rng, 4) for _ in range(2)]
    points = np.stack([first, second])
    fit = vector_fitting(points, np.stack([values_at(x, *p) for x, p in zip(points, poles, strict=True)]), 4)
    for i in range(2):
        assert distance(fit.modal.poles[i], poles[i][0]) < 1e-10


def test_one_bad_element_leaves_the_others_alone(rng):
    points = 1j * np.linspace(0.002, 1, 120)
    systems = [random_poles(rng, 4) for _ in range(40)]
    values = np.stack([values_at(points, *s) for s in systems])
    values[3, 10], values[5] = np.nan, 0
    fit = vector_fitting(points, values, 4)
    assert not fit.converged[3]
    assert np.isnan(fit.error[3])
    assert np.isnan(np.asarray(fit.system.A[3])).all()
    assert fit.error[5] == 0
    for i in (0, 4, 6, 39):
        assert distance(fit.modal.poles[i], systems[i][0]) < 1e-10


def test_channels_of_one_system_share_their_poles(rng):
    points, _, poles = samples_of(rng, 6, 150)
    residues = rng.standard_normal((2, 3, 3)) + 1j * rng.standard_normal((2, 3, 3))
    residues = np.concatenate([residues, residues.conj()], axis=-1) * abs(poles.real)
    D = rng.standard_normal((2, 3))
    values = values_at(points, poles, residues[..., None, :], D[..., None])
    fit = vector_fitting(points, values, 6, mimo=True)
    assert (fit.system.outputs, fit.system.inputs) == (2, 3)
    assert fit.order == fit.system.order == 12
    assert fit.modal.poles.shape == (1, 1, 6)
    assert fit.error.shape == fit.converged.shape == ()
    assert fit.error < 1e-13
    assert distance(fit.modal.poles[0, 0], poles) < 1e-10
    np.testing.assert_allclose(fit.system.D, D, atol=1e-10)
    shared = vector_fitting(points, values, 6, shared=2)
    assert shared.error.shape == shared.system.batch_shape == (2, 3)
    assert distance(shared.modal.poles[0, 0], poles) < 1e-10
    rank_one = vector_fitting(points, values[:, :1] * np.array([1.0, 2.0, -1.0])[:, None], 6, mimo=True)
    assert rank_one.order == 6


def test_many_channels_in_pieces_are_the_same(rng, monkeypatch):
    points, _, poles = samples_of(rng, 4, 60)
    residues = rng.standard_normal((7, 4)) * abs(poles.real)
    values = values_at(points, poles, (residues + residues[:, [2, 3, 0, 1]])[:, None, :]) + 1e-3 * rng.standard_normal((7, 60))
    whole = vector_fitting(points, values, 4, shared=1)
    monkeypatch.setattr("ssmid.identification.pole_relocation._CHUNK_BYTES", 2 * 16 * 60 * 5)
    pieces = vector_fitting(points, values, 4, shared=1)
    np.testing.assert_allclose(pieces.modal.poles, whole.modal.poles, rtol=1e-8)


def test_kind_and_precision_are_kept(xp, rng):
    points, values, poles = samples_of(rng, 4, 100)
    values = np.stack([values, 2 * values])
    for bits in (64, 128):
        fit = vector_fitting(xp.asarray(points, f"complex{bits}"), xp.asarray(values, f"complex{bits}"), 4)
        for array in (*fit.system.arrays.values(), fit.modal.poles):
            assert xp.owns(array)
            assert xp.numpy(array).dtype == (f"float{bits // 2}" if array is not fit.modal.poles else f"complex{bits}")
        assert xp.owns(fit.error)
        assert distance(xp.numpy(fit.modal.poles)[1], poles) < (1e-10 if bits == 128 else 1e-3)


# ---------------------------------------------------------------- options


def test_weights_say_which_points_matter(rng):
    points, values, _ = samples_of(rng, 6, 200)
    weights = np.where(np.abs(points) < 0.4, 1.0, 1e-3)
    plain, weighted = (vector_fitting(points, values, 4, weights=w) for w in (None, weights))
    inner = weights == 1
    error = [np.abs(ssmid.analysis.evaluation.evaluate(f.modal, points[inner]) - values[inner]).max() for f in (plain, weighted)]
    assert error[1] < 0.5 * error[0]
    np.testing.assert_allclose(vector_fitting(points, values, 4, weights=7.0 * np.ones(200)).modal.poles, plain.modal.poles, rtol=1e-8)


def test_without_feedthrough_there_is_none(rng):
    points, values, poles = samples_of(rng, 4, 100)
    fit = vector_fitting(points, values - 0.7, 4, feedthrough=False)
    assert fit.system.D == 0
    assert distance(fit.modal.poles, poles) < 1e-10


@pytest.mark.parametrize("relaxed", [True, False])
def test_both_normalizations_recover_a_system(rng, relaxed):
    points, values, poles = samples_of(rng, 6, 100)
    assert distance(vector_fitting(points, values, 6, relaxed=relaxed).modal.poles, poles) < 1e-10


def test_initial_poles_of_the_caller(rng):
    points, values, poles = samples_of(rng, 5, 100)
    fit = vector_fitting(points, values, poles=poles * (1 + 1e-9), iterations=2)
    assert fit.order == 5
    assert distance(fit.modal.poles, poles) < 1e-10


def test_a_tolerance_gives_the_smallest_order(rng):
    points = 1j * np.linspace(0.002, 1, 200)
    systems = [random_poles(rng, n) for n in (2, 5, 8)]
    values = np.stack([values_at(points, *s) for s in systems])
    fit = vector_fitting(points, values, tol=1e-9)
    assert fit.order.tolist() == [2, 5, 8]
    assert (fit.error < 1e-9).all()
    assert fit.stable.all()
    assert fit.converged.all()
    for i, (poles, _) in enumerate(systems):
        assert distance(fit.modal.poles[i], poles) < 1e-8
    assert vector_fitting(points, values[0], tol=1e-9).order == 2
    missed = vector_fitting(points, values, tol=1e-9, max_order=4)
    assert missed.converged.tolist() == [True, False, False]


@pytest.mark.parametrize("order", [1, 3, 6])
def test_noisy_data_are_given_their_order(order):
    rng = np.random.default_rng(order)
    points, values, _ = samples_of(rng, order, 500)
    noise = 1e-4 * np.abs(values).max() * (rng.standard_normal(500) + 1j * rng.standard_normal(500)) / np.sqrt(2)
    fit = vector_fitting(points, values + noise)
    assert fit.order == order
    assert fit.stable


def test_constants_and_zeros():
    points = 1j * np.linspace(0.1, 1, 30)
    for value in (0.0, 3.0):
        fit = vector_fitting(points, np.full(30, value), 2)
        assert fit.error < 1e-14
        assert fit.stable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 0}, "order: expected 1 to 9 for 10 points, got 0"),
        ({"order": 10}, "order: expected 1 to 9 for 10 points, got 10"),
        ({"order": 2, "tol": 1e-3}, "expected order or tol, got both"),
        ({"tol": 0.0}, "tol: expected a positive number"),
        ({"order": 2, "weights": -np.ones(10)}, "weights: expected 10 positive numbers"),
        ({"order": 2, "weights": np.ones(9)}, "weights: expected 10 positive numbers"),
        ({"poles": [-1 + 1j, -2.0]}, "poles: expected a set closed under conjugation"),
        ({"order": 3, "poles": [-1.0, -2.0]}, "poles: expected shape .3,. or .3,., got .2,."),
        ({"order": 2, "mimo": True}, "expected values"),
        ({"order": 2, "mimo": True, "shared": 1}, "expected mimo=True or shared"),
        ({"order": 2, "iterations": 0}, "iterations: expected a positive integer"),
    ],
)
def test_wrong_arguments_are_quoted(arguments, message):
    points = 1j * np.linspace(0.1, 1, 10)
    with pytest.raises(ValueError, match=message):
        vector_fitting(points, 1 / (points + 1), **arguments)


# ---------------------------------------------------------------- the step


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), order=st.integers(1, 9), real=st.integers(0, 9))
def test_slots_hold_the_poles_and_their_basis_spans_the_partial_fractions(seed, order, real):
    rng = np.random.default_rng(seed)
    pairs = max(0, order - real) // 2
    upper = -rng.uniform(0.01, 1, pairs) + 1j * rng.uniform(0.1, 1, pairs)
    poles = rng.permutation(np.concatenate([upper, upper.conj(), -rng.uniform(0.01, 1, order - 2 * pairs)]))
    row = slots(poles[None])
    np.testing.assert_array_equal(np.sort_complex(row[0]), np.sort_complex(poles))
    assert (row[0, : order // 2].imag == -row[0, order // 2 : order // 2 * 2].imag).all()
    omega = np.linspace(0.05, 2, 40)
    rows = slot_basis(np.stack([0 * omega, omega])[None], row)[0]
    basis = (rows[:, :40] + 1j * rows[:, 40:]).T
    fractions = 1 / (1j * omega[:, None] - poles)
    expected = np.linalg.lstsq(fractions, basis, rcond=None)[0]
    np.testing.assert_allclose(fractions @ expected, basis, atol=1e-8 * np.abs(basis).max())


def test_the_denominator_of_1999_is_that_of_the_full_problem(rng):
    """One step without relaxation against the dense least-squares problem of Gustavsen & Semlyen 1999, eq. 8, unreduced."""
    points, values, _ = samples_of(rng, 4, 50)
    values = (values + 1e-2 * rng.standard_normal(50)) / np.abs(values).max()
    grid, data = (np.stack([x.real, x.imag])[None] for x in (points, values))
    start = initial_poles(grid, 4, False)
    bank = Bank(grid, data[None], None, 0, relaxed=False, stable=False)
    fractions = 1 / (points[:, None] - start[0])
    system = np.concatenate([fractions, np.ones((50, 1)), -values[:, None] * fractions], axis=1)
    # the conjugate points have the conjugate rows, with the columns of a pair exchanged
    mirrored = system[:, [2, 3, 0, 1, 4, 7, 8, 5, 6]].conj()
    x = np.linalg.lstsq(np.concatenate([system, mirrored]), np.concatenate([values, values.conj()]), rcond=None)[0]
    zeros = np.linalg.eigvals(np.diag(start[0]) - np.ones((4, 1)) @ x[None, 5:])
    found, _ = _step(bank, start)
    assert distance(zeros, found[0]) < 1e-8


def test_poles_are_moved_inside():
    continuous = held_inside(np.array([[1 + 2j, -1.0, 1e-30j + 0, 3.0]]), False)
    assert (continuous.real < 0).all()
    np.testing.assert_allclose(continuous[0, [0, 1, 3]], [-1 + 2j, -1, -3])
    discrete = held_inside(np.array([[2 * np.exp(0.3j), 0.5, 1.0, np.exp(1j)]]), True)
    assert (np.abs(discrete) < 1).all()
    np.testing.assert_allclose(discrete[0, :2], [0.5 * np.exp(0.3j), 0.5])


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize(
    ("name", "order", "error"),
    [  # scikit-rf 2.2: vector_fit and auto_fit at the same order
        ("skrf_ring_slot.s2p", 3, 1.338e-5),
        ("skrf_ring_slot.s2p", 4, 9.421e-6),
        ("skrf_ring_slot.s2p", 6, 8.383e-7),
        ("milan_3port.s3p", 4, 5.493e-3),
        ("milan_3port.s3p", 6, 1.879e-4),
        ("milan_3port.s3p", 9, 5.2e-15),
    ],
)
def test_measured_and_simulated_ports_beat_scikit_rf(shared_data, name, order, error):
    ports = ssmid.read(shared_data / "freq" / name)
    fit = vector_fitting(FrequencyResponse(ports.values[0, 0], ports.omega, dt=0), order=order)
    assert fit.error <= 1.0003 * error  # the last of the four digits
    assert fit.stable
    assert not fit.system.is_complex


def test_four_measured_ports(shared_data):
    ports = ssmid.read(shared_data / "freq" / "skrf_Agilent_E5071B.s4p")
    fit = vector_fitting(ports, order=40, mimo=True)
    assert fit.error < 1.92e-2  # scikit-rf 2.2 at the same order
    assert fit.stable
