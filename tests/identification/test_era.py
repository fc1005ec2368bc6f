"""The eigensystem realization algorithm: exact on systems of finite order, honest about instability."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid import ImpulseResponse, era
from tests.reduction.test_fir import decaying, relative_error, scalar_taps_of, taps_of


def modes(poles, residues, length):
    """Taps of a sum of modes and their conjugates, with feedthrough 0.5."""
    t = np.arange(length - 1)
    return np.concatenate([[0.5], (np.asarray(residues)[:, None] * np.asarray(poles)[:, None] ** t).sum(0).real])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), length=st.sampled_from([60, 61, 900]))
def test_a_system_of_finite_order_is_recovered_from_a_response_that_has_not_ended(seed, length):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0.2, 2.9, 3)) + np.array([0, 0.0, 0.0])
    poles = rng.uniform(0.97, 0.999, 3) * np.exp(1j * (angles * 0.3 + np.array([0.2, 1.0, 1.8])))
    taps = modes(poles, rng.uniform(0.5, 2, 3), length)
    fit = era(ImpulseResponse(taps), 6)
    expected = np.sort_complex(np.concatenate([poles, poles.conj()]))
    np.testing.assert_allclose(np.sort_complex(np.linalg.eigvals(fit.system.A)), expected, atol=1e-8)
    np.testing.assert_allclose(scalar_taps_of(fit.system, length), taps, atol=1e-8)
    assert fit.stable
    assert fit.spectral_radius == pytest.approx(np.abs(poles).max(), abs=1e-9)


def test_zero_padding_is_the_balanced_truncation_of_the_fir(rng):
    h = ImpulseResponse(decaying(rng, 400))
    fit, truncation = era(h, 5, padding="zero"), ssmid.balanced_truncation(h, 5)
    np.testing.assert_allclose(scalar_taps_of(fit.system, 400), scalar_taps_of(truncation.system, 400), atol=1e-12)
    assert fit.bound == truncation.bound
    assert fit.method == "ERA"


def test_an_unstable_model_is_never_silent():
    growing = ImpulseResponse(modes([1.01 * np.exp(0.4j)], [1.0], 300))
    with pytest.warns(UserWarning, match="era: the model is unstable .largest pole modulus 1.01"):
        fit = era(growing, 2)
    assert not fit.stable
    np.testing.assert_allclose(scalar_taps_of(fit.system, 300), growing.taps, rtol=1e-6, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert era(growing, 2, stable=True).stable
        assert era(growing, 2, padding="zero").stable


def test_in_a_bank_only_unstable_elements_are_made_stable(rng):
    taps = np.stack([modes([0.98 * np.exp(0.4j)], [1.0], 300), modes([1.01 * np.exp(0.4j)], [1.0], 300)])
    with pytest.warns(UserWarning, match="1 of 2 models are unstable"):
        assert era(ImpulseResponse(taps), 2).stable.tolist() == [True, False]
    fit = era(ImpulseResponse(taps), 2, stable=True)
    assert fit.stable.all()
    np.testing.assert_allclose(scalar_taps_of(fit.system, 300)[0], taps[0], atol=1e-9)


def test_the_shift_equation_is_solved_in_least_squares(rng):
    taps = decaying(rng, 60)
    U, s, _ = np.linalg.svd(scipy.linalg.hankel(taps[1:31], taps[30:60]))
    U = U[:, :5]
    A = np.linalg.lstsq(U[:-1], U[1:], rcond=None)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = era(ImpulseResponse(taps), 5)
    np.testing.assert_allclose(np.sort_complex(np.linalg.eigvals(fit.system.A)), np.sort_complex(np.linalg.eigvals(A)), atol=1e-10)
    np.testing.assert_allclose(fit.sigma[:6], s[:6], rtol=1e-10)
    assert fit.lower_bound == pytest.approx(s[5])
    assert np.isinf(fit.bound)


def test_rows_and_columns_choose_the_matrix(rng):
    taps = modes([0.99 * np.exp(0.3j)], [1.0], 200)
    taps[100:] = rng.standard_normal(100)  # not to be read
    fit = era(ImpulseResponse(taps), 2, rows=60, columns=40)
    np.testing.assert_allclose(scalar_taps_of(fit.system, 100), taps[:100], atol=1e-10)
    assert era(ImpulseResponse(taps[:100]), 2, rows=10).order == 2


@pytest.mark.parametrize("length", [80, 600])
def test_a_tolerance_gives_the_smallest_order(rng, length):
    taps = np.stack([modes([0.98 * np.exp(0.4j)], [1.0], length), modes([0.98 * np.exp(0.4j), 0.99 * np.exp(1j)], [1.0, 0.3], length)])
    fit = era(ImpulseResponse(taps), tol=1e-6)
    assert fit.order.tolist() == [2, 4]
    assert fit.converged.all()
    np.testing.assert_allclose(scalar_taps_of(fit.system, length), taps, atol=1e-6)


@pytest.mark.parametrize(("p", "m"), [(2, 2), (3, 1), (1, 2)])
@pytest.mark.parametrize("length", [40, 400])
def test_coupled_channels(rng, p, m, length):
    A = scipy.linalg.block_diag(*[0.97 * np.array([[np.cos(w), -np.sin(w)], [np.sin(w), np.cos(w)]]) for w in (0.5, 1.4)])
    system = ssmid.StateSpace(A, rng.standard_normal((4, m)), rng.standard_normal((p, 4)), rng.standard_normal((p, m)))
    taps = taps_of(system, length)
    fit = era(ImpulseResponse(taps), 4, mimo=True)
    assert (fit.system.outputs, fit.system.inputs) == (p, m)
    np.testing.assert_allclose(taps_of(fit.system, length), taps, atol=1e-8)


def test_kind_and_precision_are_kept(xp, rng):
    taps = np.stack([modes([0.98 * np.exp(0.4j)], [1.0], 700), modes([0.95 * np.exp(1j)], [1.0], 700)])
    for bits in (32, 64):
        fit = era(ImpulseResponse(xp.asarray(taps, f"float{bits}")), 2)
        for array in fit.system.arrays.values():
            assert xp.owns(array)
            assert xp.numpy(array).dtype == f"float{bits}"
        assert xp.owns(fit.stable)
        system = fit.system.map(lambda a: xp.numpy(a).astype(np.float64))
        np.testing.assert_allclose(scalar_taps_of(system, 700), taps, atol=1e-4 if bits == 32 else 1e-9)


def test_one_bad_response_leaves_the_others_alone(rng):
    taps = np.stack([modes([0.98 * np.exp(0.4j)], [1.0], 300)] * 3)
    taps[1, 40] = np.nan
    fit = era(ImpulseResponse(taps), 2)
    assert np.isnan(fit.system.A[1]).all()
    assert fit.converged.tolist() == [True, False, True]
    assert fit.stable.tolist() == [True, False, True]
    np.testing.assert_allclose(scalar_taps_of(fit.system, 300)[[0, 2]], taps[[0, 2]], atol=1e-9)


def test_a_room_response_beats_randomized_era(shared_data):
    from scipy.io import wavfile

    _, samples = wavfile.read(shared_data / "ir" / "openair_living_room_1.wav")
    h = ImpulseResponse(samples.astype(np.float64))
    fit = era(h, 32, padding="zero")
    assert fit.stable
    assert fit.converged
    # pyMOR's RandomizedERA reaches 0.751 at this order (two power iterations)
    assert fit.error < 0.74


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 2, "padding": "mirror"}, "padding: expected 'zero' or 'none', got 'mirror'"),
        ({"order": 2, "rows": 15, "columns": 10}, "sum of at most 20 samples, got 15 and 10"),
        ({"order": 2, "rows": 0}, "expected positive numbers"),
        ({"order": 2, "rows": 5, "padding": "zero"}, "padding 'zero' uses all samples"),
        ({"order": 11}, "order: expected 1 to 10"),
        ({}, "expected either order or tol"),
    ],
)
def test_wrong_arguments_are_quoted(rng, arguments, message):
    with pytest.raises(ValueError, match=message):
        era(ImpulseResponse(rng.standard_normal(20)), **arguments)


def test_a_zero_response_has_order_zero():
    fit = era(ImpulseResponse(np.zeros(30)), 3)
    assert fit.order == 0
    assert fit.stable
    assert relative_error(fit.system, np.concatenate([[1.0], np.zeros(9)])) == 1.0
