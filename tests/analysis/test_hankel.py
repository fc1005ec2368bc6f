"""Hankel singular values against dense and exact decompositions, and against the Gramians of known systems."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid import ImpulseResponse, hankel_singular_values, hankel_spectrum
from ssmid.analysis import hankel


def dense(taps, rows=None, columns=None):
    """The Hankel matrix of the taps beyond the feedthrough, zero-padded where no shape is given."""
    g = taps[1:]
    rows = rows or len(g)
    columns = columns or len(g)
    padded = np.concatenate([g, np.zeros(rows + columns)])
    return scipy.linalg.hankel(padded[:rows], padded[rows - 1 : rows + columns - 1])


def exact(taps, **shape):
    return np.linalg.svd(dense(taps, **shape), compute_uv=False)


def noisy(rng, length, *batch):
    """Slowly decaying spectra: noise under an envelope."""
    return rng.standard_normal((*batch, length)) * np.exp(-np.arange(length) / (length / 3))


@given(length=st.integers(2, 40), seed=st.integers(0, 2**31), padding=st.sampled_from(["zero", "none"]), is_complex=st.booleans())
def test_short_responses_have_the_singular_values_of_their_matrix(length, seed, padding, is_complex):
    rng = np.random.default_rng(seed)
    taps = rng.standard_normal(length) + (1j * rng.standard_normal(length) if is_complex else 0)
    shape = {} if padding == "zero" else {"rows": length // 2, "columns": length - length // 2}
    np.testing.assert_allclose(hankel_singular_values(ImpulseResponse(taps), padding=padding), exact(taps, **shape), atol=1e-13 * length)


def test_a_small_response_against_50_digits():
    taps = [0.0, 1.0, -0.75, 0.5, 0.0625, -0.125]
    with mpmath.workdps(50):
        H = mpmath.matrix(dense(np.array(taps)).tolist())
        values = sorted((abs(v) for v in mpmath.eigsy(H, eigvals_only=True)), reverse=True)
    np.testing.assert_allclose(hankel_singular_values(ImpulseResponse(taps)), [float(v) for v in values], rtol=1e-14)


@pytest.mark.parametrize("length", [1000, 1001])
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("padding", ["zero", "none"])
def test_long_responses_with_slow_spectra_converge(rng, length, is_complex, padding):
    taps = noisy(rng, length) + (1j * noisy(rng, length) if is_complex else 0)
    rows, columns = (length - 1, length - 1) if padding == "zero" else (length // 2, length - length // 2)
    spectrum = hankel_spectrum(ImpulseResponse(taps), 12, padding=padding)
    true = exact(taps, rows=rows, columns=columns)
    assert spectrum.products > 0, "the iteration is what is tested"
    assert spectrum.converged.all()
    assert (np.abs(spectrum.sigma - true[:12]) <= spectrum.error).all()
    np.testing.assert_allclose(spectrum.sigma, true[:12], atol=1e-8 * true[0])
    H = dense(taps, rows, columns)
    np.testing.assert_allclose(H @ spectrum.right, spectrum.left * spectrum.sigma, atol=2e-8 * true[0])
    np.testing.assert_allclose(H.conj().T @ spectrum.left, spectrum.right * spectrum.sigma, atol=2e-8 * true[0])


def test_65536_samples_need_no_matrix():
    # h[t] = sum of 40 decaying modes: the exact values come from the Gramians of the modal form
    rng = np.random.default_rng(5)
    poles = np.exp(-(10.0 ** rng.uniform(-3, -1.5, 20)) + 1j * rng.uniform(0, 3, 20))
    residues = rng.standard_normal(20) * 10 ** rng.uniform(-4, 0, 20)
    modal = ssmid.Modal(np.concatenate([poles, poles.conj()]), np.concatenate([residues, residues]) + 0j)
    spectrum = hankel_spectrum(ssmid.impulse_response(modal, 65_536), 64)
    assert spectrum.converged.all()
    true = np.zeros(64)
    true[:40] = hankel_singular_values(modal)
    np.testing.assert_allclose(spectrum.sigma, true, atol=1e-8 * true[0])
    assert spectrum.products < 500


def test_trained_filters_converge(shared_data):
    taps = np.load(shared_data / "hyena_d256_l2048.npz")["filters"][::3, 17].astype(np.float64)
    spectrum = hankel_spectrum(ImpulseResponse(taps), 16, rtol=1e-7)
    true = np.stack([exact(h)[:16] for h in taps])
    assert spectrum.converged.all()
    np.testing.assert_allclose(spectrum.sigma / true[:, :1], true / true[:, :1], atol=1e-7)


def test_what_has_not_converged_says_so(rng):
    taps = noisy(rng, 1200)
    spectrum = hankel_spectrum(ImpulseResponse(taps), 16, max_products=100)
    true = exact(taps)
    assert not spectrum.converged.all()
    assert (np.abs(spectrum.sigma[:, None] - true).min(-1) <= spectrum.error).all()
    assert (spectrum.error > 1e-8 * true[0])[~spectrum.converged].all()


@pytest.mark.parametrize("length", [30, 700])
def test_kind_precision_and_batch_are_kept(xp, rng, length):
    taps = noisy(rng, length, 2, 3)
    for bits in (32, 64):
        spectrum = hankel_spectrum(ImpulseResponse(xp.asarray(taps, f"float{bits}")), 5)
        assert tuple(spectrum.sigma.shape) == (2, 3, 5)
        assert tuple(spectrum.left.shape) == tuple(spectrum.right.shape) == (2, 3, length - 1, 5)
        for array in (spectrum.sigma, spectrum.error, spectrum.left, spectrum.right):
            assert xp.owns(array)
            assert xp.numpy(array).dtype == f"float{bits}"
        true = np.stack([exact(h)[:5] for h in taps.reshape(6, -1)]).reshape(2, 3, 5)
        np.testing.assert_allclose(xp.numpy(spectrum.sigma), true, rtol=1e-5 if bits == 32 else 1e-8)


@pytest.mark.parametrize("length", [40, 700])
def test_one_bad_element_leaves_the_others_alone(rng, length):
    taps = noisy(rng, length, 4)
    clean = hankel_spectrum(ImpulseResponse(taps), 5)
    bad = taps.copy()
    bad[1, 7], bad[2] = np.nan, 0.0
    spectrum = hankel_spectrum(ImpulseResponse(bad), 5)
    assert np.isnan(spectrum.sigma[1]).all()
    assert np.isnan(spectrum.left[1]).all()
    assert not spectrum.converged[1].any()
    assert (spectrum.sigma[2] == 0).all()
    assert spectrum.converged[[0, 2, 3]].all()
    np.testing.assert_allclose(spectrum.sigma[[0, 3]], clean.sigma[[0, 3]], rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e300])
@pytest.mark.parametrize("length", [20, 600])
def test_any_scale(rng, scale, length):
    taps = noisy(rng, length)
    got = hankel_singular_values(ImpulseResponse(taps * scale), 6) / scale
    np.testing.assert_allclose(got, exact(taps)[:6], rtol=1e-8)


def test_chunks_of_a_bank_are_the_bank(rng, monkeypatch):
    taps = noisy(rng, 600, 7)
    whole = hankel_spectrum(ImpulseResponse(taps), 4)
    monkeypatch.setitem(hankel._MEMORY, "host", 8 * 2 * 70 * 2 * 599)
    parts = hankel_spectrum(ImpulseResponse(taps), 4)
    np.testing.assert_allclose(parts.sigma, whole.sigma, rtol=1e-11)


@pytest.mark.parametrize("length", [12, 500])
@pytest.mark.parametrize(("p", "m"), [(2, 3), (3, 1), (1, 2)])
@pytest.mark.parametrize("padding", ["zero", "none"])
def test_coupled_channels_form_a_block_hankel_matrix(rng, length, p, m, padding):
    taps = noisy(rng, length, p, m)
    rows, columns = (length - 1, length - 1) if padding == "zero" else (length // 2, length - length // 2)
    H = np.block([[dense(taps[a, b], rows, columns) for b in range(m)] for a in range(p)])
    spectrum = hankel_spectrum(ImpulseResponse(taps), 5, mimo=True, padding=padding)
    assert spectrum.left.shape == (p, rows, 5)
    assert spectrum.right.shape == (m, columns, 5)
    np.testing.assert_allclose(spectrum.sigma, np.linalg.svd(H)[1][:5], rtol=1e-8)
    left, right = spectrum.left.reshape(-1, 5), spectrum.right.reshape(-1, 5)
    np.testing.assert_allclose(H @ right, left * spectrum.sigma, atol=1e-7 * spectrum.sigma[0])


def test_channels_are_a_bank_unless_coupled(rng):
    taps = noisy(rng, 30, 2, 2)
    assert hankel_singular_values(ImpulseResponse(taps)).shape == (2, 2, 29)
    assert hankel_singular_values(ImpulseResponse(taps), mimo=True).shape == (58,)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), order=st.integers(1, 6))
def test_state_space_and_its_impulse_response_agree(seed, order):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((order, order))
    A *= 0.8 / np.abs(np.linalg.eigvals(A)).max()
    system = ssmid.StateSpace(A, rng.standard_normal((order, 1)), rng.standard_normal((1, order)))
    sigma = hankel_singular_values(system)
    # 0.8 ** 200 is below rounding: the FIR is the system
    np.testing.assert_allclose(hankel_singular_values(ssmid.impulse_response(system, 200), order), sigma, atol=1e-12 * sigma[0])


def test_first_order_in_closed_form():
    # sigma = |b c| / (1 - a^2)
    np.testing.assert_allclose(hankel_singular_values(ssmid.ss(0.6, 2, 3)), [6 / 0.64], rtol=1e-14)
    np.testing.assert_allclose(hankel_singular_values(ssmid.tf([6.0], [1, -0.6])), [6 / 0.64], rtol=1e-14)
    np.testing.assert_allclose(hankel_singular_values(ssmid.Modal([0.6 + 0j], [6.0 + 0j]), 3), [6 / 0.64, 0, 0], rtol=1e-14)


def test_an_unstable_or_broken_element_of_a_bank_is_marked():
    A = np.array([0.5, 1.5, np.nan, 0.25])[:, None, None]
    spectrum = hankel_spectrum(ssmid.StateSpace(A, np.ones((1, 1)), np.ones((1, 1))), 2)
    np.testing.assert_allclose(spectrum.sigma, [[4 / 3, 0], [np.nan] * 2, [np.nan] * 2, [16 / 15, 0]])
    np.testing.assert_array_equal(spectrum.converged[:, 0], [True, False, False, True])
    with pytest.raises(ValueError, match="stable"):
        hankel_spectrum(ssmid.ss(1.5, 1, 1))


def test_values_beyond_the_order_are_zero():
    spectrum = hankel_spectrum(ImpulseResponse([1.0, 0.0, 2.0]), 4)
    np.testing.assert_allclose(spectrum.sigma, [2, 2, 0, 0], atol=1e-15)
    assert (spectrum.left[:, 2:] == 0).all()
    assert (hankel_singular_values(ImpulseResponse([3.0]), 2) == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count: expected a positive integer, got 0"),
        ({"count": 2.5}, "count: expected a positive integer, got 2.5"),
        ({"padding": "wrap"}, "padding: expected 'zero' or 'none', got 'wrap'"),
        ({"mimo": True}, r"mimo: expected taps of shape \(\*batch, outputs, inputs, length\), got \(3,\)"),
    ],
)
def test_wrong_arguments_are_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        hankel_spectrum(ImpulseResponse([1.0, 2.0, 3.0]), **arguments)


def test_wrong_objects_are_named():
    with pytest.raises(TypeError, match=r"wrap taps in ssmid\.ImpulseResponse"):
        hankel_spectrum(np.ones(4))
    with pytest.raises(TypeError, match="impulse_response"):
        hankel_spectrum(ssmid.frd([1.0, 0.5], [0.0, 1.0], dt=1))
    with pytest.raises(ValueError, match="only an impulse response has a choice"):
        hankel_spectrum(ssmid.ss(0.5, 1, 1), padding="none")
