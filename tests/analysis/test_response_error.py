"""Norms of response minus model: beside a difference written out until nothing is left of it."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import ssmid
from ssmid.analysis.fir_peak import fir_peak
from ssmid.analysis.response_error import response_error

module = importlib.import_module("ssmid.analysis.response_error")
KINDS = ("h2", "hankel", "hinf", "l1")


def model(rng, batch=(), outputs=1, inputs=1, states=5, radius=0.96) -> ssmid.StateSpace:
    A = rng.standard_normal((*batch, states, states))
    A = radius * A / np.abs(np.linalg.eigvals(A)).max(-1)[..., None, None]
    B, C = rng.standard_normal((*batch, states, inputs)), rng.standard_normal((*batch, outputs, states))
    return ssmid.StateSpace(A, B, C, rng.standard_normal((*batch, outputs, inputs)))


def written_out(taps, system, kind, length, mimo=False):
    pad = [(0, 0)] * (taps.ndim - 1) + [(0, length - taps.shape[-1])]
    return ssmid.norm(ssmid.ImpulseResponse(np.pad(taps, pad) - ssmid.impulse_response(system, length).taps), kind, mimo=mimo)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 40, 300])
@pytest.mark.parametrize("mimo", [False, True])
def test_the_same_as_of_the_whole_difference(rng, kind, length, mimo):
    """The model still rings strongly after 40 taps: what is not written out counts."""
    taps = rng.standard_normal((2, 2, 3, length) if mimo else (2, length)) * 0.97 ** np.arange(length) * 3e5
    system = model(rng, (2,), *((2, 3) if mimo else (1, 1)))
    if mimo and kind == "hinf":  # to 1e-6 it takes minutes
        whole = np.pad(taps, [(0, 0)] * 3 + [(0, 900 - length)]) - ssmid.impulse_response(system, 900).taps
        expected = np.linalg.svd(np.moveaxis(np.fft.rfft(whole, 2**14), -1, 1), compute_uv=False).max((1, 2))
        np.testing.assert_allclose(response_error(ssmid.ImpulseResponse(taps), system, kind, rtol=1e-2), expected, rtol=1e-2)
        return
    expected = written_out(taps, system, kind, 900, mimo)
    error = response_error(ssmid.ImpulseResponse(taps), system, kind)
    assert error.shape == (2,)
    np.testing.assert_allclose(error, expected, rtol=1e-6 if kind == "hinf" else 1e-10)
    np.testing.assert_allclose(response_error(ssmid.ImpulseResponse(taps), system, kind, rtol=1e-2), expected, rtol=1e-2)


def test_a_model_that_rings_for_a_million_steps_needs_no_more_taps(rng, monkeypatch):
    """Closed forms of a single pole: h = 0 but for zeros, the error is the model itself."""
    pole, silence = 1 - 1e-6, ssmid.ImpulseResponse(np.zeros(50))
    lengths = []
    markov = module.markov_parameters
    monkeypatch.setattr(module, "markov_parameters", lambda A, B, C, n: lengths.append(n) or markov(A, B, C, n))
    system = ssmid.ss(pole, 1.0, 1.0, 0.0)
    assert response_error(silence, system, "h2") == pytest.approx((1 - pole**2) ** -0.5, rel=1e-9)
    assert response_error(silence, system, "l1") == pytest.approx(1 / (1 - pole), rel=1e-9)
    assert response_error(silence, system, "hankel") == pytest.approx(1 / (1 - pole**2), rel=1e-9)
    assert max(lengths) <= 2 * 50


def test_the_bound_of_a_tail_too_long_to_follow_is_added():
    """The gain of a real positive pole is its sum, and so is the bound of what comes after the longest difference, twice."""
    pole = 1 - 1e-6
    gain = float(response_error(ssmid.ImpulseResponse(np.zeros(50)), ssmid.ss(pole, 1.0, 1.0, 0.0), "hinf"))
    assert 1 / (1 - pole) <= gain <= 2 / (1 - pole)


@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_and_precision(xp, rng, kind):
    taps, system = rng.standard_normal((3, 30)), model(rng, (3,), radius=0.9)
    expected = written_out(taps, system, kind, 600)
    converted = system.map(xp.asarray)
    error = response_error(ssmid.ImpulseResponse(xp.asarray(taps)), converted, kind)
    np.testing.assert_allclose(xp.numpy(error), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_unstable_or_broken_does_not_spoil_the_others(rng, kind):
    taps, system = rng.standard_normal((4, 30)), model(rng, (4,), radius=0.9)
    expected = response_error(ssmid.ImpulseResponse(taps), system, kind)
    A, broken = system.A.copy(), taps.copy()
    A[1] *= 1.2
    A[2, 0, 0] = np.nan
    broken[3, 4] = np.inf
    error = response_error(ssmid.ImpulseResponse(broken), ssmid.StateSpace(A, system.B, system.C, system.D), kind)
    np.testing.assert_allclose(error, [expected[0], np.inf, np.nan, np.nan], rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-290, 1e290])
@pytest.mark.parametrize("kind", KINDS)
def test_any_scale(rng, kind, scale):
    taps, system = rng.standard_normal(30), model(rng, radius=0.9)
    scaled = ssmid.StateSpace(system.A, system.B * scale**0.5, system.C * scale**0.5, system.D * scale)
    error = response_error(ssmid.ImpulseResponse(taps * scale), scaled, kind)
    np.testing.assert_allclose(error / scale, response_error(ssmid.ImpulseResponse(taps), system, kind), rtol=1e-6)


def test_a_forecast_is_not_held_against_the_model(rng):
    taps, system = rng.standard_normal(30), model(rng, radius=1.01)
    modelled = ssmid.impulse_response(system, 30).taps
    error = response_error(ssmid.ImpulseResponse(taps), system, "h2", extrapolates=True)
    np.testing.assert_allclose(error, np.linalg.norm(taps - modelled), rtol=1e-12)


def test_the_peak_of_long_taps_by_pieces(rng, monkeypatch):
    """The coarse grid and the pieces that long responses take give the same peak."""
    taps = rng.standard_normal((2, 1, 1, 3000)) * 0.999 ** np.arange(3000)
    expected, _ = fir_peak(taps)
    peak = importlib.import_module("ssmid.analysis.fir_peak")
    monkeypatch.setattr(peak, "_LARGEST_GRID", 0)
    monkeypatch.setattr(peak, "_CHUNK", 2**14)
    np.testing.assert_allclose(fir_peak(taps)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(fir_peak(taps, 1e-2)[0], expected, rtol=1e-2)
