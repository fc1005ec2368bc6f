"""ESPRIT, the matrix pencil and Prony: exact on exact data, at the Cramer-Rao bound in noise, calm on anything."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

import ssmid
from ssmid import ImpulseResponse, esprit, matrix_pencil, prony
from ssmid.identification.tangential import fit_directions
from tests.reduction.test_fir import taps_of

METHODS = [esprit, matrix_pencil, prony]


def modes(rng, order, length, radius, feedthrough=0.5):
    """``poles, residues, taps`` of pairs (and one real mode for an odd order) spread over the circle."""
    pairs = order // 2
    spread = np.linspace(0.15, 3.0, pairs) if pairs > 1 else np.full(pairs, 0.8)
    upper = rng.uniform(*radius, pairs) * np.exp(1j * (spread + rng.uniform(-0.02, 0.02, pairs)))
    residue = rng.uniform(0.5, 2, pairs) * np.exp(1j * rng.uniform(0, 6, pairs))
    poles = np.concatenate([np.stack([upper, upper.conj()], 1).ravel(), [0.95 + 0j] * (order % 2)])
    residues = np.concatenate([np.stack([residue, residue.conj()], 1).ravel(), [1 + 0j] * (order % 2)])
    return poles, residues, np.concatenate([[feedthrough], modelled(poles, residues, length - 1).real])


def modelled(poles, residues, length):
    return (residues[:, None] * poles[:, None] ** np.arange(length)).sum(0)


def distance(found, expected):
    """The largest distance of poles matched one to one."""
    assert found.shape == expected.shape
    table = np.abs(found[:, None] - expected)
    return table[linear_sum_assignment(table)].max(initial=0)


def cramer_rao(poles, residues, length, noise):
    """The least variance of the upper and real poles: from the Fisher matrix of real and imaginary parts, by its definition."""
    t = np.arange(length)
    columns, places = [], []
    for p, r in zip(poles, residues, strict=True):
        if p.imag < 0:
            continue
        slope, power = r * t * p ** np.maximum(t - 1, 0), p**t
        places.append((len(columns), p))
        columns += [2 * slope.real, -2 * slope.imag, 2 * power.real, -2 * power.imag] if p.imag else [slope.real, power.real]
    fisher = np.stack(columns) @ np.stack(columns).T / noise**2
    bound = np.linalg.inv(fisher)
    return np.array([p for _, p in places]), np.array([bound[i, i] + (bound[i + 1, i + 1] if p.imag else 0) for i, p in places])


# ---------------------------------------------------------------- exact data


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("order", "length"), [(1, 4), (2, 30), (5, 60), (12, 120), (40, 300), (60, 600)])
@pytest.mark.parametrize("radius", [(0.9, 0.99), (0.999, 0.99999)])
def test_poles_are_recovered(rng, method, order, length, radius):
    poles, residues, taps = modes(rng, order, length, radius)
    fit = method(ImpulseResponse(taps), order)
    assert fit.order == order
    assert fit.converged
    assert distance(fit.modal.poles, poles) < 1e-10
    assert fit.error < 1e-11
    np.testing.assert_allclose(ssmid.impulse_response(fit.system, length).taps, taps, atol=1e-9)
    order_of = np.argsort(np.abs(fit.modal.poles[:, None] - poles).argmin(1))
    np.testing.assert_allclose(fit.modal.residues[order_of], residues, atol=1e-9)
    assert fit.modal.feedthrough == fit.system.D[0, 0] == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_exact_data_is_found(rng, method):
    for order in (1, 4, 9, 20):
        fit = method(ImpulseResponse(modes(rng, order, 150, (0.95, 0.99))[2]))
        assert fit.order == order
        assert fit.error < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_a_response_is_told_from_as_few_taps_as_can_be(method):
    """2 n taps beyond tap 0 hold n poles and n residues."""
    taps = np.concatenate([[3.0], modelled(np.array([0.9, -0.5, 0.3]), np.array([1, 2, -1.0]), 6)])
    options = {"degree": 3} if method is prony else {}
    fit = method(ImpulseResponse(taps), 3, **options)
    np.testing.assert_allclose(np.sort(fit.modal.poles.real), [-0.5, 0.3, 0.9], atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3])
def test_clusters_as_far_as_their_condition_allows(method, gap):
    """Two poles a gap apart lose the square of the gap of the digits; the response loses none."""
    poles = np.array([0.9, 0.9 - gap])
    taps = np.concatenate([[0.0], modelled(poles, np.array([1, 1.0]), 200)])
    fit = method(ImpulseResponse(taps), 2)
    assert distance(np.sort(fit.modal.poles.real), np.sort(poles)) < 1e-14 / gap**2
    assert fit.error < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("taps", "order"),
    [
        (lambda t: t * 0.9**t, 2),
        (lambda t: (t**2 + t) * 0.8**t, 3),
        (lambda t: t * 0.95**t * np.cos(0.3 * t), 4),
        (lambda t: 1.0 * (t == 6), 7),
        (lambda t: np.where(t >= 4, 0.9 ** np.maximum(t - 4, 0), 0.0), 5),
    ],
    ids=["double", "triple", "double pair", "delay", "delayed decay"],
)
def test_repeated_poles_keep_a_jordan_block(method, taps, order):
    response = np.concatenate([[1.0], taps(np.arange(80.0))])
    fit = method(ImpulseResponse(response))
    assert fit.order == fit.system.order == order
    assert fit.repeated or order == 2  # a pair 1e-9 apart has exact real and imaginary parts: nothing is lost
    assert fit.error < 1e-13
    np.testing.assert_allclose(ssmid.impulse_response(fit.system, 81).taps, response, atol=1e-12 * np.abs(response).max())
    assert np.isfinite(fit.modal.residues).all()


def test_prony_against_fifty_digits():
    mpmath.mp.dps = 50
    taps = [mpmath.mpf(x) for x in ("1.0", "0.25", "-0.5", "0.75", "0.125", "-0.3")]
    H = mpmath.matrix([[taps[i + j] for j in range(3)] for i in range(3)])
    a = mpmath.lu_solve(H, -mpmath.matrix(taps[3:6]))
    roots = mpmath.polyroots([1, a[2], a[1], a[0]], maxsteps=200, extraprec=200)
    expected = np.array([complex(z) for z in roots])
    V = mpmath.matrix([[z**t for z in roots] for t in range(3)])
    residues = mpmath.lu_solve(V, mpmath.matrix(taps[:3]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for method, options in ((prony, {"degree": 3}), (esprit, {}), (matrix_pencil, {})):
            fit = method(ImpulseResponse(np.array([0.0, *map(float, taps)])), 3, **options)
            assert distance(fit.modal.poles, expected) < 1e-13
            at = np.abs(fit.modal.poles[:, None] - expected).argmin(1)
            np.testing.assert_allclose(fit.modal.residues, np.array([complex(r) for r in residues])[at], atol=1e-12)


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("order", "radius", "length", "noise"), [(4, (0.97, 0.99), 100, 0.01), (6, (0.98, 0.995), 199, 0.1)])
def test_the_variance_is_that_of_cramer_and_rao(method, order, radius, length, noise):
    rng = np.random.default_rng(7)
    poles, residues, taps = modes(rng, order, length, radius)
    taps = taps + np.concatenate([np.zeros((150, 1)), noise * rng.standard_normal((150, length - 1))], -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = method(ImpulseResponse(taps), order).modal.poles
    upper, bound = cramer_rao(poles, residues, length - 1, noise)
    variance = np.mean(np.min(np.abs(found[:, :, None] - upper), axis=1) ** 2, axis=0)
    assert np.all(variance < (2.0 if method is prony else 1.5) * bound)
    assert np.all(variance > 0.7 * bound)


def test_classical_prony_is_far_from_that_bound():
    """Which is why the long polynomial is the default."""
    rng = np.random.default_rng(7)
    poles, residues, taps = modes(rng, 4, 100, (0.97, 0.99))
    taps = taps + np.concatenate([np.zeros((50, 1)), 0.01 * rng.standard_normal((50, 99))], -1)
    upper, bound = cramer_rao(poles, residues, 99, 0.01)

    def variance(**options):
        found = prony(ImpulseResponse(taps), 4, **options).modal.poles
        return np.mean(np.min(np.abs(found[:, :, None] - upper), axis=1) ** 2, axis=0)

    assert np.all(variance(degree=4) > 5 * bound)
    assert np.all(variance() < 2 * bound)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_stops_at_the_floor_of_the_noise(rng, method):
    _, _, taps = modes(rng, 6, 199, (0.97, 0.99))
    taps = taps + np.concatenate([np.zeros((10, 1)), 0.05 * rng.standard_normal((10, 198))], -1)
    fit = method(ImpulseResponse(taps))
    assert np.all(np.broadcast_to(fit.order, 10) == 6)
    assert fit.sigma.shape[-1] > 6


def test_no_system_gets_below_the_lower_bound(rng):
    taps = rng.standard_normal((5, 61))
    for method in METHODS:
        fit = method(ImpulseResponse(taps), 4, stable=True)
        assert np.all(fit.lower_bound <= fit.error)
        assert np.all(fit.lower_bound > 0.3)
    H = scipy.linalg.hankel(taps[0, 1:31], taps[0, 30:])
    expected = np.sqrt(np.sum(np.linalg.svd(H)[1][4:] ** 2) / 30) / np.linalg.norm(taps[0])
    assert esprit(ImpulseResponse(taps[0]), 4, rows=30, stable=True).lower_bound == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------- laws


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.sampled_from([1e-300, -3.0, 1e290]), method=st.sampled_from(METHODS))
def test_scale_and_conjugation(seed, factor, method):
    rng = np.random.default_rng(seed)
    _, _, taps = modes(rng, 5, 80, (0.9, 0.98))
    fit, scaled = method(ImpulseResponse(taps), 5), method(ImpulseResponse(factor * taps), 5)
    assert distance(scaled.modal.poles, fit.modal.poles) < 1e-11
    np.testing.assert_allclose(scaled.error, fit.error, atol=1e-12)
    np.testing.assert_allclose(np.sort(np.abs(scaled.modal.residues)), np.sort(np.abs(factor * fit.modal.residues)), rtol=1e-9)
    t = np.arange(60)
    complex_taps = np.concatenate([[1j], (0.9 * np.exp(0.5j)) ** t + 1j * (0.8 * np.exp(-1.1j)) ** t])
    one, other = method(ImpulseResponse(complex_taps), 2), method(ImpulseResponse(complex_taps.conj()), 2)
    assert one.system.is_complex
    assert distance(one.modal.poles, np.array([0.9 * np.exp(0.5j), 0.8 * np.exp(-1.1j)])) < 1e-12
    assert distance(other.modal.poles, one.modal.poles.conj()) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_a_loop_and_a_bad_element_stays_alone(rng, method):
    taps = np.stack([modes(rng, n, 90, (0.9, 0.98))[2] for n in (2, 5, 3, 4)]).reshape(2, 2, 90)
    taps[1, 0, 7] = np.nan
    fit = method(ImpulseResponse(taps))
    assert fit.order.tolist() == [[2, 5], [0, 4]]
    assert fit.converged.tolist() == [[True, True], [False, True]]
    assert np.isnan(fit.error[1, 0])
    assert np.isnan(fit.system.A[1, 0]).all()
    for index in [(0, 0), (0, 1), (1, 1)]:
        alone = method(ImpulseResponse(taps[index]))
        got = ssmid.impulse_response(fit.system.map(lambda a, i=index: a[i]), 90).taps
        np.testing.assert_allclose(got, ssmid.impulse_response(alone.system, 90).taps, atol=1e-11)
        assert fit.error[index] < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [32, 64])
def test_kinds_are_kept(xp, rng, method, bits):
    taps = np.stack([modes(rng, 3, 90, (0.9, 0.98))[2], np.concatenate([[1.0], np.arange(89) * 0.9 ** np.arange(89)])])
    fit = method(ImpulseResponse(xp.asarray(taps, f"float{bits}")), 3, stable=True)
    for array in (*fit.system.arrays.values(), fit.error, fit.sigma, fit.lower_bound, fit.condition):
        assert xp.owns(array)
        assert xp.numpy(array).dtype == f"float{bits}"
    assert all(xp.owns(a) for a in (*fit.modal.arrays.values(), fit.converged, fit.repeated, fit.stable))
    assert np.all(xp.numpy(fit.error) < (1e-6 if bits == 32 else 1e-12))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("p", "m"), [(3, 2), (1, 2), (2, 1)])
def test_coupled_channels_share_poles_of_rank_one(rng, method, p, m):
    blocks = [a * np.array([[np.cos(w), -np.sin(w)], [np.sin(w), np.cos(w)]]) for w, a in ((0.4, 0.95), (1.1, 0.97), (2.0, 0.9))]
    A, B, C, D = scipy.linalg.block_diag(*blocks), rng.standard_normal((6, m)), rng.standard_normal((p, 6)), rng.standard_normal((p, m))
    taps = taps_of(ssmid.StateSpace(A, B, C, D), 61)
    fit = method(ImpulseResponse(np.stack([taps, 2 * taps])), mimo=True)
    assert fit.order == fit.system.order == 6
    assert (fit.system.outputs, fit.system.inputs) == (p, m)
    assert distance(fit.modal.poles[0, 0, 0], np.linalg.eigvals(A)) < 1e-10
    np.testing.assert_allclose(taps_of(fit.system.map(lambda a: a[1]), 61), 2 * taps, atol=1e-10)
    noisy = method(ImpulseResponse(taps + 0.01 * rng.standard_normal(taps.shape)), 6, mimo=True)
    assert noisy.system.order == 6
    assert noisy.lower_bound < noisy.error < 1.1 * 0.01 * taps.size**0.5 / np.linalg.norm(taps)


def test_directions_are_fitted_in_turn(rng):
    """From output directions that are far off, alternating least squares comes to the floor of the noise."""
    t, noise = np.arange(100), 1e-3
    poles = np.array([[0.95 * np.exp(0.5j), 0.95 * np.exp(-0.5j), 0.9]])
    upper, real = rng.standard_normal((2, 2, 3)) @ np.array([1, 1j, 0]), rng.standard_normal((2, 2, 3))[..., 0]
    left, right = np.stack([upper[0], upper[0].conj(), real[0]], -1), np.stack([upper[1], upper[1].conj(), real[1]], 0)
    table = np.moveaxis(poles[..., None] ** t, -1, -2)
    values = np.einsum("in,nj,tn->ijt", left, right, table[0]).real[None] + noise * rng.standard_normal((1, 2, 2, 100))
    off = left + 0.3 * np.abs(rng.standard_normal(left.shape))
    fit = fit_directions(table, poles, values, off[None], real=True, feedthrough=False)
    assert np.sqrt(np.mean((fit.fitted - values) ** 2)) < 1.1 * noise


# ---------------------------------------------------------------- stability, hostile inputs


@pytest.mark.parametrize("method", METHODS)
def test_unstable_poles_are_told_or_reflected(method):
    taps = np.concatenate([[0.0], 1.02 ** np.arange(60) + 0.5 ** np.arange(60)])
    with pytest.warns(UserWarning, match=f"{method.__name__}: the model is unstable; stable=True") as caught:
        fit = method(ImpulseResponse(taps), 2)
    assert caught[0].filename == __file__
    assert not fit.stable
    assert fit.error < 1e-12
    fit = method(ImpulseResponse(taps), 2, stable=True)
    assert fit.stable
    (change,) = fit.changes
    assert change.action == "reflected"
    np.testing.assert_allclose(change.poles, 1.02, rtol=1e-9)
    np.testing.assert_allclose(np.sort(fit.modal.poles.real), [0.5, 1 / 1.02], rtol=1e-9)
    assert "reflected" in fit.explain()
    constant = method(ImpulseResponse(np.ones(40)), 1, stable=True)
    assert constant.stable
    assert constant.error < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("taps", [np.zeros(30), np.eye(1, 25)[0], np.array([2.0])], ids=["zero", "impulse", "one tap"])
def test_nothing_beyond_the_feedthrough_has_order_zero(method, taps):
    for fit in (method(ImpulseResponse(taps)), method(ImpulseResponse(taps), 1)):
        assert fit.order == fit.system.order == 0
        assert fit.system.D[0, 0] == taps[0]
        assert fit.error == 0
        assert fit.stable


@pytest.mark.parametrize("method", METHODS)
def test_an_order_beyond_the_data_becomes_theirs(rng, method):
    taps = modes(rng, 3, 60, (0.9, 0.98))[2]
    fit = method(ImpulseResponse(np.stack([taps, 0 * taps])), 8)
    assert fit.order.tolist() == [3, 0]
    assert np.all(fit.error < 1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: esprit(h, 11), "order: expected 1 to 10 for 20 taps beyond tap 0, got 11"),
        (lambda h: esprit(h, 0), "order: expected 1 to 10 for 20 taps beyond tap 0, got 0"),
        (lambda h: esprit(h, 2, rows=30), "rows, pencil or degree"),
        (lambda h: esprit(h, max_order=0), "max_order: expected a positive integer, got 0"),
        (lambda h: matrix_pencil(h, 2, pencil=0), "pencil: expected a positive integer, got 0"),
        (lambda h: prony(h, 4, degree=3), "degree: expected at least the order 4, got 3"),
        (lambda h: prony(h, 4, mimo=True), "mimo: expected taps of shape"),
    ],
)
def test_wrong_arguments_are_quoted(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(ImpulseResponse(rng.standard_normal(21)))
    with pytest.raises(TypeError, match="expected an ImpulseResponse, got ndarray"):
        esprit(np.ones(5), 1)


def test_a_long_room_response(shared_data):
    from scipy.io import wavfile

    _, samples = wavfile.read(shared_data / "ir" / "openair_living_room_1.wav")
    h = ImpulseResponse(samples[:12000].astype(np.float64))
    fit = esprit(h, 16, stable=True)
    assert fit.stable
    assert fit.lower_bound <= fit.error
    V = fit.modal.poles ** np.arange(11999)[:, None]
    V = np.concatenate([V.real, V.imag], axis=1)
    rest = h.taps[1:] - V @ np.linalg.lstsq(V, h.taps[1:], rcond=None)[0]
    assert fit.error == pytest.approx(np.linalg.norm(rest) / np.linalg.norm(h.taps), rel=1e-9)


@pytest.mark.parametrize("method", [esprit, matrix_pencil, prony])
@pytest.mark.parametrize(
    ("taps", "options", "message"),
    [
        (0.5 ** np.arange(21), {"order": 2.5}, "order: expected 1 to 10 for 20 taps beyond tap 0, got 2.5"),
        (0.5 ** np.arange(21), {"order": True}, "order: expected 1 to 10 .*got True"),
        (0.5 ** np.arange(21), {"order": 2, "max_order": 3}, r"expected order or max_order, got both \(2 and 3\)"),
        (0.5 ** np.arange(21), {"max_order": 2.5}, "max_order: expected a positive integer, got 2.5"),
        (0.5 ** np.arange(21), {"order": 2, "stable": "yes"}, "stable: expected False, True, got 'yes'"),
        ([1.0, 2.0], {"order": 1}, "order: expected more than 1 taps beyond tap 0 to tell an order, got 1"),
        (np.zeros((0, 2, 21)), {"order": 1, "mimo": True}, r"mimo: expected taps of shape .*got \(0, 2, 21\)"),
    ],
)
def test_every_method_refuses_in_the_same_words(method, taps, options, message):
    with pytest.raises(ValueError, match=message):
        method(ImpulseResponse(taps), **options)


@pytest.mark.parametrize("method", [esprit, matrix_pencil, prony])
def test_unstable_models_are_told_where_the_method_is_called(method):
    with pytest.warns(UserWarning, match="the model is unstable; stable=True") as told:
        method(ImpulseResponse(1.1 ** np.arange(30)), 1)
    assert told[0].filename == __file__
