"""AAA: exact on rational functions, right about the order of noisy ones, always real, and stable where asked for."""

from __future__ import annotations

import warnings

import mpmath as mp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid import aaa
from ssmid.analysis.evaluation import evaluate

CIRCLE = np.exp(1j * np.linspace(0, np.pi, 500))


def response(points, poles, residues, feedthrough=0.0):
    return (np.asarray(residues) / (points[:, None] - np.asarray(poles))).sum(-1) + feedthrough


def closed(poles, residues):
    poles, residues = np.asarray(poles), np.asarray(residues)
    return np.concatenate([poles, poles.conj()]), np.concatenate([residues, residues.conj()])


def discrete(rng, order, moduli=(0.7, 0.98)):
    """Poles and residues of resonances of comparable height."""
    n = order // 2
    poles = rng.uniform(*moduli, n) * np.exp(1j * np.sort(rng.uniform(0.1, 3.0, n)))
    residues = (1 - np.abs(poles)) * (rng.uniform(0.5, 2, n) * np.exp(2j * np.pi * rng.uniform(size=n)))
    poles, residues = closed(poles, residues)
    return (poles, residues) if order % 2 == 0 else (np.append(poles, 0.6), np.append(residues, 0.4))


def continuous(rng, order):
    """Lightly damped resonances over three decades: damping from 1e-4 to 0.1."""
    n = order // 2
    w = np.sort(10 ** rng.uniform(0, 3, n))
    poles = w * (1j - 10 ** rng.uniform(-4, -1, n))
    residues = np.abs(poles.real) * rng.uniform(0.5, 2, n) * np.exp(2j * np.pi * rng.uniform(size=n))
    poles, residues = closed(poles, residues)
    return (poles, residues) if order % 2 == 0 else (np.append(poles, -10.0), np.append(residues, 5.0))


def distance(found, expected):
    """The largest distance of poles matched one to one."""
    assert len(found) == len(expected)
    apart = np.abs(np.asarray(found)[:, None] - np.asarray(expected))
    return apart[scipy.optimize.linear_sum_assignment(apart)].max()


def noisy(rng, values, level):
    scale = level * np.abs(values).max(-1, keepdims=True) / np.sqrt(2)
    return values + scale * (rng.standard_normal(values.shape) + 1j * rng.standard_normal(values.shape))


# ---------------------------------------------------------------- recovery


@pytest.mark.parametrize("order", [1, 2, 3, 5, 10, 20, 41, 60])
def test_discrete_systems_are_recovered(order):
    rng = np.random.default_rng(order)
    poles, residues = discrete(rng, order, (0.9, 0.999))
    points = np.exp(1j * np.linspace(0, np.pi, 800))
    fit = aaa(points, response(points, poles, residues, 0.3), dt=1)
    assert fit.order == order
    assert fit.error < 1e-12
    assert fit.converged
    assert fit.stable
    if order <= 20:
        assert distance(fit.modal.poles, poles) < 1e-10
    between = np.exp(1j * (np.linspace(0, np.pi, 801)[1:-1] + 1e-3))
    expected = response(between, poles, residues, 0.3)
    np.testing.assert_allclose(evaluate(fit.system, between), expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("order", [1, 2, 9, 30, 60])
def test_lightly_damped_continuous_systems_are_recovered(order):
    poles, residues = continuous(np.random.default_rng(order), order)
    points = 1j * np.geomspace(0.5, 2000, 1000)
    fit = aaa(points, response(points, poles, residues, 0.1))
    assert fit.order == order
    assert fit.error < 1e-12
    # relative to each pole's distance to the axis
    apart = np.abs(fit.modal.poles[:, None] - poles)
    rows, columns = scipy.optimize.linear_sum_assignment(apart)
    assert (apart[rows, columns] / np.abs(poles[columns])).max() < 1e-10


def test_clustered_poles_at_the_boundary_are_recovered():
    poles, residues = closed(
        [0.99999 * np.exp(0.5j), 0.9999 * np.exp(0.5003j), 0.999 * np.exp(0.503j), 0.9 * np.exp(2j)],
        np.array([1e-5, 1e-4, 1e-3, 0.1]) * (1 + 1j),
    )
    points = np.exp(1j * np.linspace(0.01, 3.1, 800))
    fit = aaa(points, response(points, poles, residues), dt=1)
    assert fit.order == 8
    assert distance(fit.modal.poles, poles) < 1e-10


def test_sharp_resonances_between_points_are_not_taken_for_noise():
    poles, residues = continuous(np.random.default_rng(30), 30)
    points = 1j * np.geomspace(0.5, 2000, 300)
    assert aaa(points, response(points, poles, residues)).order == 30


def test_the_fit_agrees_with_fifty_digits():
    """Poles of a transfer function with known roots, and its values where no sample was."""
    with mp.workdps(50):
        roots = mp.polyroots([1, mp.mpf("0.3"), 5, mp.mpf("0.7"), 2], extraprec=200)
        value = (mp.mpc(0, 1.2345) + 2) / mp.polyval([1, mp.mpf("0.3"), 5, mp.mpf("0.7"), 2], mp.mpc(0, 1.2345))
        expected = np.array([complex(r) for r in roots])
    s = 1j * np.linspace(0.01, 6, 60)
    fit = aaa(s, (s + 2) / np.polyval([1, 0.3, 5, 0.7, 2], s))
    assert distance(fit.modal.poles, expected) < 1e-12
    assert evaluate(fit.modal, np.array([1.2345j]))[0] == pytest.approx(complex(value), rel=1e-12)


def test_complex_systems_keep_their_poles_apart(rng):
    poles = rng.uniform(0.8, 0.95, 5) * np.exp(1j * np.array([0.3, 1.0, -0.8, 2.0, -2.4]))
    residues = (1 - np.abs(poles)) * np.exp(1j * rng.uniform(0, 6, 5))
    points = np.exp(2j * np.pi * np.arange(200) / 200)
    fit = aaa(points, response(points, poles, residues, 0.2j), dt=1, real=False)
    assert fit.order == 5
    assert fit.system.is_complex
    assert distance(fit.modal.poles, poles) < 1e-11
    np.testing.assert_allclose(fit.modal.feedthrough, 0.2j, atol=1e-12)


def test_real_points_give_real_systems():
    x = np.linspace(1.0, 8.0, 60)
    fit = aaa(x, 1 / (x + 2) + (x + 1) / (x**2 + 2 * x + 5))
    assert fit.order == 3
    assert not fit.system.is_complex
    assert distance(fit.modal.poles, [-2, -1 + 2j, -1 - 2j]) < 1e-7


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("level", [1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("order", [1, 3, 4, 8])
def test_the_order_is_that_of_the_system_not_of_the_noise(order, level):
    for seed in range(3):
        rng = np.random.default_rng(100 * order + seed)
        poles, residues = discrete(rng, order)
        exact = response(CIRCLE, poles, residues, 0.3)
        fit = aaa(CIRCLE, noisy(rng, exact, level), dt=1)
        assert fit.order <= order if level == 1e-2 else fit.order == order
        assert fit.stable
        assert fit.converged
        # no further from the data than noise is, and much nearer to the truth
        assert fit.error < 1.1 * level
        if level < 1e-2:
            off = evaluate(fit.modal, CIRCLE) - exact
            assert np.sqrt(np.mean(np.abs(off) ** 2)) < 0.3 * level * np.abs(exact).max()


def test_where_plain_aaa_has_a_hundred_poles(rng):
    """The order-3 case of the issue: 500 points, noise of 1e-4, of which SciPy's AAA makes 99 poles."""
    import scipy.interpolate

    poles, residues = discrete(rng, 3)
    values = noisy(rng, response(CIRCLE, poles, residues), 1e-4)
    assert aaa(CIRCLE, values, dt=1).order == 3
    if hasattr(scipy.interpolate, "AAA"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(scipy.interpolate.AAA(CIRCLE, values, max_terms=30).poles()) > 20


def test_estimates_of_poles_scatter_as_the_cramer_rao_bound_says():
    poles, residues = closed([0.95 * np.exp(0.8j)], [0.05 * np.exp(0.3j)])
    exact = response(CIRCLE, poles, residues)
    sigma = 1e-3 * np.abs(exact).max()
    slope = lambda dp, dr, dd: response(CIRCLE, *closed([poles[0]], [residues[0] * 0 + dr])) + dd + (  # noqa: E731
        residues[0] * dp / (CIRCLE - poles[0]) ** 2 + np.conj(residues[0] * dp) / (CIRCLE - poles[1]) ** 2
    )
    J = np.stack([slope(*v) for v in ((1, 0, 0), (1j, 0, 0), (0, 1, 0), (0, 1j, 0), (0, 0, 1))], axis=-1)
    J = np.concatenate([J.real, J.imag])
    bound = sigma**2 / 2 * np.linalg.inv(J.T @ J)[:2, :2].trace()
    rng = np.random.default_rng(5)
    found = aaa(CIRCLE, noisy(rng, np.broadcast_to(exact, (60, 500)), 1e-3), dt=1, order=2).modal.poles
    upper = found[found.imag > 0]
    assert len(upper) == 60
    assert 0.6 < np.mean(np.abs(upper - poles[0]) ** 2) / bound < 1.6


def test_a_tolerance_gives_a_small_order_that_meets_it():
    s = 1j * np.geomspace(0.01, 100, 200)
    values = np.sqrt((s + 1) / (s + 10))
    orders = []
    for tol in (1e-2, 1e-5, 1e-9):
        fit = aaa(s, values, tol=tol, stable=True)
        assert fit.error <= tol * 1.01
        orders.append(fit.order)
    assert orders == sorted(orders)
    assert orders[0] < orders[2] < 20


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize(
    ("name", "order", "peer"),
    [
        # scikit-rf 1.12's vector_fit with as many poles, and its auto_fit (order 3 and 9), measured on the same data
        ("skrf_ring_slot.s2p", 3, 1.34e-5),
        ("skrf_ring_slot.s2p", 4, 9.42e-6),
        ("skrf_ring_slot.s2p", 5, 3.758e-6),
        ("skrf_ring_slot.s2p", 6, 8.383e-7),
        ("milan_3port.s3p", 4, 5.494e-3),
        ("milan_3port.s3p", 5, 9.888e-4),
        ("milan_3port.s3p", 6, 1.88e-4),
        ("milan_3port.s3p", 7, 2.735e-5),
        ("milan_3port.s3p", 8, 2.104e-5),
        ("milan_3port.s3p", 9, 1e-14),
    ],
)
def test_no_peer_is_nearer_to_real_s_parameters(shared_data, name, order, peer):
    network = ssmid.read(shared_data / "freq" / name)
    fit = aaa(1j * network.omega, network.values[0, 0], order=order, stable=True)
    assert fit.order == order
    assert fit.stable
    assert not fit.system.is_complex
    assert fit.error <= peer


def test_coupled_ports_share_poles(shared_data):
    network = ssmid.read(shared_data / "freq" / "skrf_designer_bandpass.s2p")
    fit = aaa(network, mimo=True, stable=True)
    assert (fit.system.outputs, fit.system.inputs) == (2, 2)
    assert fit.order == 6
    assert fit.error < 1e-12
    assert fit.stable
    np.testing.assert_allclose(ssmid.frequency_response(fit.system, network.omega).values, network.values, atol=1e-11)


# ---------------------------------------------------------------- stability


def unstable_samples():
    poles, residues = closed([1.02 * np.exp(1j), 0.9 * np.exp(2j)], [0.05, 0.1])
    return CIRCLE, response(CIRCLE, poles, residues)


def test_an_unstable_model_is_never_silent():
    with pytest.warns(UserWarning, match="aaa: the model is unstable; stable=True"):
        fit = aaa(*unstable_samples(), dt=1)
    assert fit.order == 4
    assert not fit.stable
    assert np.abs(fit.modal.poles).max() == pytest.approx(1.02, abs=1e-10)


@pytest.mark.parametrize("stable", [True, "reflect", "drop"])
def test_asked_for_stable_models_are(stable):
    fit = aaa(*unstable_samples(), dt=1, stable=stable)
    assert fit.stable
    done = [c for c in fit.changes if c.why == "unstable"]
    assert [c.action for c in done] == ["dropped" if stable == "drop" else "reflected"]
    np.testing.assert_allclose(np.abs(done[0].poles), 1.02, atol=1e-9)
    assert "unstable" in fit.explain()


def test_stable_models_are_optimal_within_stability():
    """No stable model of the same order that SciPy finds from the same start is nearer."""
    points, values = unstable_samples()
    fit = aaa(points, values, dt=1, order=4, stable=True)

    def misfit(x):
        radius, angle = 1 / (1 + np.exp(-x[:2])), x[2:]
        poles = radius * np.exp(1j * angle)
        columns = np.stack([1 / (points - p) + s / (points - p.conj()) for p in poles for s in (1, -1)] + [np.ones_like(points)], axis=-1)
        columns[:, [1, 3]] *= 1j
        rows, right = np.concatenate([columns.real, columns.imag]), np.concatenate([values.real, values.imag])
        return rows @ np.linalg.lstsq(rows, right, rcond=None)[0] - right

    upper = fit.modal.poles[fit.modal.poles.imag > 0]
    start = np.concatenate([np.log(np.abs(upper) / (1 - np.abs(upper))).clip(-10, 10), np.angle(upper)])
    best = scipy.optimize.least_squares(misfit, start)
    own = float(fit.error) * np.abs(values).max() * np.sqrt(len(points))
    assert own <= 1.001 * np.sqrt(2 * best.cost)


# ---------------------------------------------------------------- invariances


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), time=st.sampled_from([1e-300, 1e-9, 1.0, 1e9]), size=st.sampled_from([1e-200, 1.0, -3.0, 1e200]))
def test_units_of_time_and_values_do_not_matter(seed, time, size):
    rng = np.random.default_rng(seed)
    poles, residues = continuous(rng, 5)
    s = 1j * np.geomspace(0.5, 2000, 120)
    values = noisy(rng, response(s, poles, residues, 0.2), 1e-5)
    one = aaa(s, values, order=5, stable=True)
    other = aaa(s * time, values * size, order=5, stable=True)
    np.testing.assert_allclose(other.error, one.error, rtol=1e-3)
    assert distance(other.modal.poles / time, one.modal.poles) < 1e-3 * np.abs(one.modal.poles).max()


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_the_largest_and_smallest_numbers_are_fitted(scale):
    s = 1j * np.linspace(0.1, 10, 60)
    fit = aaa(s, scale * (s + 3) / (s**2 + 0.2 * s + 4))
    assert fit.order == 2
    assert fit.error < 1e-12
    np.testing.assert_allclose(fit.modal.residues / scale, aaa(s, (s + 3) / (s**2 + 0.2 * s + 4)).modal.residues, rtol=1e-9)


def test_either_half_plane_will_do(rng):
    s = 1j * np.linspace(0.1, 10, 60)
    values = noisy(rng, (s + 3) / (s**2 + 0.2 * s + 4), 1e-4)
    upper, lower = aaa(s, values, order=2), aaa(s.conj(), values.conj(), order=2)
    np.testing.assert_allclose(upper.modal.poles, lower.modal.poles)
    mixed = np.where(np.arange(60) % 2 == 0, s, s.conj()), np.where(np.arange(60) % 2 == 0, values, values.conj())
    np.testing.assert_allclose(aaa(*mixed, order=2).modal.poles, upper.modal.poles)


def test_weights_say_which_points_matter(rng):
    s = 1j * np.linspace(0.1, 10, 100)
    values = noisy(rng, (s + 3) / (s**2 + 0.2 * s + 4), 1e-5)
    values[50:] += 0.1
    weights = np.where(np.arange(100) < 50, 1.0, 1e-9)
    fit = aaa(s, values, order=2, weights=weights)
    assert distance(fit.modal.poles, np.roots([1, 0.2, 4])) < 1e-3
    # only their ratios count
    np.testing.assert_allclose(aaa(s, values, order=2, weights=1e3 * weights).modal.poles, fit.modal.poles, rtol=1e-6)


# ---------------------------------------------------------------- banks


def test_a_bank_is_its_elements(rng):
    exact = np.stack([response(CIRCLE, *discrete(rng, order)) for order in (3, 4, 6, 2, 3, 6)]).reshape(2, 3, -1)
    values = noisy(rng, exact, 1e-4)
    bank = aaa(CIRCLE, values, dt=1)
    np.testing.assert_array_equal(bank.order, [[3, 4, 6], [2, 3, 6]])
    for i in np.ndindex(2, 3):
        one = aaa(CIRCLE, values[i], dt=1)
        assert one.order == bank.order[i]
        assert float(bank.error[i]) == pytest.approx(float(one.error), rel=1e-6)
        np.testing.assert_allclose(evaluate(bank.system, CIRCLE)[i], evaluate(one.system, CIRCLE), atol=1e-6)
        np.testing.assert_allclose(evaluate(bank.barycentric, CIRCLE)[i], evaluate(one.barycentric, CIRCLE), atol=1e-3)
    assert bank.stable.all()
    assert bank.history.shape[1:] == (2, 3)


def test_elements_may_have_their_own_points(rng):
    s = 1j * np.stack([np.linspace(0.1, 10, 60), np.geomspace(0.1, 50, 60)])
    values = (s + 3) / (s**2 + 0.2 * s + 4)
    fit = aaa(s, values)
    assert fit.order == 2
    assert (fit.error < 1e-12).all()


def test_one_bad_response_leaves_the_others_alone(rng):
    values = np.stack([response(CIRCLE, *discrete(rng, 4)) for _ in range(5)])
    values[1, 7] = np.nan
    values[2] = 0
    values[3] = 2.5
    fit = aaa(CIRCLE, values, dt=1)
    assert fit.converged.tolist() == [True, False, True, True, True]
    assert fit.order.tolist()[2:4] == [0, 0]
    assert np.isnan(fit.error[1])
    assert np.isnan(fit.system.A[1]).all()
    assert (fit.error[[0, 2, 3, 4]] < 1e-12).all()
    np.testing.assert_allclose(evaluate(fit.system, CIRCLE)[[0, 3, 4]], values[[0, 3, 4]], atol=1e-11)


def test_a_bank_shares_poles(rng):
    poles, _ = discrete(rng, 6)
    half = rng.standard_normal((2, 4, 3)) + 1j * rng.standard_normal((2, 4, 3))
    size = np.array([1e-6, 1.0, 1e3, 1e9])[:, None]  # each is fitted to its own largest value
    values = np.stack([[response(CIRCLE, poles, np.concatenate([h, h.conj()])) for h in row] for row in half * size])
    fit = aaa(CIRCLE, noisy(rng, values, 1e-6), dt=1, shared=1)
    assert fit.modal.poles.shape == (2, 1, 6)
    assert fit.system.batch_shape == (2, 4)
    assert (fit.error < 2e-6).all()
    for element in fit.modal.poles[:, 0]:
        assert distance(element, poles) < 1e-4


@pytest.mark.parametrize("orders", [4, None])
def test_coupled_channels_have_common_poles(rng, orders):
    A = np.zeros((4, 4))
    for i, p in enumerate((0.95 * np.exp(0.5j), 0.9 * np.exp(1.4j))):
        A[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[p.real, p.imag], [-p.imag, p.real]]
    system = ssmid.StateSpace(A, rng.standard_normal((4, 2)), rng.standard_normal((3, 4)), rng.standard_normal((3, 2)))
    data = ssmid.frequency_response(system, np.linspace(0, np.pi, 200))
    fit = aaa(data, order=orders, mimo=True)
    assert fit.order == 4
    assert fit.system.order == 4
    assert distance(fit.modal.poles[0, 0], np.linalg.eigvals(A)) < 1e-10
    np.testing.assert_allclose(evaluate(fit.system, CIRCLE), evaluate(system, CIRCLE), atol=1e-9)
    assert fit.barycentric.batch_shape == (3, 2)
    assert fit.error.shape == ()


def test_kind_and_precision_are_kept(xp, rng):
    values = np.stack([response(CIRCLE[::4], *discrete(rng, 4)) for _ in range(2)])
    for bits in (32, 64):
        points = xp.asarray(CIRCLE[::4], f"complex{2 * bits}")
        fit = aaa(points, xp.asarray(values, f"complex{2 * bits}"), dt=1, order=4)
        for array in (*fit.system.arrays.values(), *fit.modal.arrays.values(), *fit.barycentric.arrays.values()):
            assert xp.owns(array)
        assert xp.numpy(fit.system.A).dtype == f"float{bits}"
        for array in (fit.error, fit.converged, fit.condition, fit.history, fit.stable):
            assert xp.owns(array)
        system = fit.system.map(lambda a: xp.numpy(a).astype(np.float64))
        np.testing.assert_allclose(evaluate(system, CIRCLE)[:, ::4], values, atol=1e-3 if bits == 32 else 1e-10)


# ---------------------------------------------------------------- what the result says


def test_the_interpolant_is_kept(rng):
    values = noisy(rng, response(CIRCLE, *discrete(rng, 4)), 1e-6)
    fit = aaa(CIRCLE, values, dt=1, order=5)
    support = fit.barycentric.support
    np.testing.assert_allclose(evaluate(fit.barycentric, support), values[np.searchsorted(np.angle(CIRCLE), np.angle(support))], rtol=1e-14)
    off = np.sqrt(np.mean(np.abs(evaluate(fit.barycentric, CIRCLE) - values) ** 2)) / np.abs(values).max()
    assert off == pytest.approx(float(fit.history[-1]), rel=0.5)
    assert fit.error <= off


def test_what_was_dropped_is_said(rng):
    values = noisy(rng, response(CIRCLE, *discrete(rng, 3)), 1e-4)
    fit = aaa(CIRCLE, values, dt=1)
    dropped = sum(len(c.poles) for c in fit.changes if c.action == "dropped")
    assert dropped == fit.barycentric.order - 3
    assert f"{dropped} poles dropped" in fit.explain()
    assert "AAA, order 3: rms error over the points" in fit.explain()


def test_minimax_has_nothing_to_level_in_an_exact_fit():
    s = 1j * np.linspace(0.1, 10, 50)
    fit = aaa(s, (1 / (s[:, None] + 0.2 + np.arange(5))).sum(-1), order=5, stable=True, minimax=True)
    assert bool(fit.converged)
    assert fit.error < 1e-14


def test_minimax_levels_the_error():
    s = 1j * np.geomspace(0.1, 10, 300)
    values = np.sqrt(s + 1) / (s + 2)
    squares, level = aaa(s, values, order=4, stable=True), aaa(s, values, order=4, stable=True, minimax=True)
    errors = [np.abs(evaluate(f.modal, s) - values) for f in (squares, level)]
    assert errors[1].max() < 0.8 * errors[0].max()
    assert level.converged
    assert level.method == "AAA-Lawson"
    # a fit of 9 real parameters touches its largest error in as many points and one more, its own mirror images counted
    peaks = errors[1] > 0.97 * errors[1].max()
    assert np.sum(np.diff(np.concatenate([[0], peaks.astype(int)])) == 1) >= 5
    # no weights on these points tell a lower bound: the weighted mean of the error is as large as its maximum
    assert level.error <= errors[1].max() / np.abs(values).max()


# ---------------------------------------------------------------- hostile input


def test_constants_zeros_and_two_points():
    s = 1j * np.linspace(1, 2, 10)
    for value in (0.0, 3.0, -1e-300):
        fit = aaa(s, np.full(10, value))
        assert fit.order == 0
        assert fit.error == pytest.approx(0, abs=1e-14)
        np.testing.assert_allclose(fit.system.D, value)
    two = aaa([1j, 2j], [1 / (1j + 1), 1 / (2j + 1)])
    assert two.order == 1
    assert two.error < 1e-12


def test_repeated_points_are_samples_like_others(rng):
    s = 1j * np.repeat(np.linspace(0.1, 10, 60), 3)
    exact = (s + 3) / (s**2 + 0.2 * s + 4)
    assert aaa(s, exact).error < 1e-12
    fit = aaa(s, noisy(rng, exact, 1e-4))
    assert fit.order == 2
    assert distance(fit.modal.poles, np.roots([1, 0.2, 4])) < 1e-3


def test_points_on_the_axis_of_symmetry_are_kept():
    points = np.exp(1j * np.array([0.0, np.pi, *np.linspace(0.1, 3, 40)]))
    points[:2] = [1, -1]
    values = response(points, *closed([0.9 * np.exp(1j)], [0.3 + 0.1j]), 0.5)
    assert aaa(points, values, dt=1).error < 1e-13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 20}, "order: expected 0 to 19 for 20 points, got 20"),
        ({"order": -1}, "order: expected 0 to 19"),
        ({"max_order": 40}, "max_order: expected 0 to 19"),
        ({"tol": -1.0}, "tol: expected a positive number, got -1.0"),
        ({"stable": "mirror"}, "stable: expected False, True, 'reflect', 'drop', got 'mirror'"),
        ({"weights": np.zeros(20)}, "weights: expected 20 positive numbers"),
        ({"weights": np.ones(3)}, "weights: expected 20 positive numbers"),
        ({"mimo": True}, r"mimo: expected values \(\*batch, outputs, inputs, k\), got shape \(20,\)"),
        ({"shared": 1}, r"shared: expected 1 batch axes of channels, got shape \(20,\)"),
    ],
)
def test_wrong_arguments_are_quoted(rng, arguments, message):
    s = 1j * np.arange(1.0, 21)
    with pytest.raises(ValueError, match=message):
        aaa(s, 1 / (s + 1), **arguments)


def test_a_single_response_with_a_bad_number_is_refused():
    with pytest.raises(ValueError, match=r"values: expected finite numbers, got .* at index 1"):
        aaa([1j, 2j, 3j], [1.0, np.inf, 2.0])
    with pytest.raises(TypeError, match="frequency_response samples it"):
        aaa(ssmid.ss(0.5, 1, 2, 1))
