"""Confidence regions cover the truth as often as they say, and are what finite differences make of the parameters' covariance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.signal import lfilter

import ssmid
from ssmid.identification.arx import arx
from ssmid.identification.confidence import pole_confidence, response_confidence
from ssmid.identification.identify import identify
from ssmid.identification.pem import pem
from ssmid.identification.prediction_error import armax, box_jenkins, oe
from ssmid.identification.record import Record

F, B = [1, -1.5, 0.7], [0, 1.0, 0.5]
POLES = np.roots(F)


@pytest.fixture(scope="module")
def bank():
    """The models of two hundred experiments."""
    rng = np.random.default_rng(7)
    u = rng.standard_normal((200, 1, 400))
    return oe(Record(u, lfilter(B, F, u) + 0.5 * rng.standard_normal(u.shape)), 2, 2)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_regions_cover_the_true_poles_and_response_as_often_as_they_say(bank, level):
    poles = pole_confidence(bank, level)
    upper = np.take_along_axis(poles.contains(np.where(poles.values.imag > 0, POLES[0], POLES[1])), np.zeros((200, 1), int), -1)
    margin = 4 * (level * (1 - level) / 200) ** 0.5
    assert abs(upper.mean() - level) < margin
    omega = np.array([0.0, 0.3, 1.0, 2.5])
    truth = ssmid.frequency_response(ssmid.from_ba(B, F), omega).values
    inside = response_confidence(bank, omega, level).contains(truth)
    assert inside.shape == (200, 4)
    for k in range(4):
        assert abs(inside[:, k].mean() - level) < margin + 0.02


def test_intervals_of_the_modulus_cover_it(bank):
    poles = pole_confidence(bank, 0.9)
    off = np.abs(np.abs(poles.values[:, 0]) - np.abs(POLES[0]))
    assert abs(np.mean(off < poles.modulus[:, 0]) - 0.9) < 4 * (0.09 / 200) ** 0.5
    turned = np.abs(np.abs(np.angle(poles.values[:, 0])) - np.angle(POLES[0]))
    assert abs(np.mean(turned < poles.argument[:, 0]) - 0.9) < 4 * (0.09 / 200) ** 0.5


@pytest.mark.parametrize("method", ["arx", "armax", "oe", "box_jenkins", "pem"])
def test_covariances_are_those_of_finite_differences(rng, method):
    u = rng.standard_normal(300)
    record = Record(u, lfilter([0, 1.0, 0.5], [1, -0.9, 0.3], u) + 0.2 * rng.standard_normal(300))
    fit = {
        "arx": lambda: arx(record, 2, 2), "armax": lambda: armax(record, 2, 2, 1), "oe": lambda: oe(record, 2, 2, drift=2),
        "box_jenkins": lambda: box_jenkins(record, 2, 1, 1, 2), "pem": lambda: pem(record, 2),
    }[method]()  # fmt: skip
    omega, h = np.array([0.2, 1.5]), 1e-6
    dA, dB, dC, dD, _ = fit.sensitivity
    base = ssmid.frequency_response(fit.system, omega).values
    columns = []
    for k in range(len(dA)):
        s = fit.system
        moved = [dataclasses.replace(s, A=s.A + x * dA[k], B=s.B + x * dB[k], C=s.C + x * dC[k], D=s.D + x * dD[k]) for x in (h, -h)]
        plus, minus = (ssmid.frequency_response(m, omega).values for m in moved)
        columns.append((plus - minus) / (2 * h))
    J = np.stack(columns, -1)
    parts = np.stack([J.real, J.imag], -2)
    found = response_confidence(fit, omega)
    np.testing.assert_allclose(found.values, base, rtol=1e-10)
    expected = parts @ fit.covariance @ np.swapaxes(parts, -1, -2)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_parameters_move_the_matrices_as_the_sensitivity_says(rng):
    """The coefficients of a polynomial model, moved one by one, give the innovations form moved along its direction."""
    u = rng.standard_normal(200)
    fit = arx(Record(u, lfilter([0.3, 1.0], [1, -0.9], u) + 0.1 * rng.standard_normal(200)), 1, 2, 0)
    a, b0, b1 = fit.parameters[0], fit.parameters[1], fit.parameters[2]
    np.testing.assert_allclose(fit.system.B[0, 0], b1 - a * b0, rtol=1e-12)
    np.testing.assert_allclose(fit.sensitivity[1][:, 0, 0], [-b0, -a, 1], rtol=1e-12)
    np.testing.assert_allclose(fit.sensitivity[0][:, 0, 0], [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(fit.sensitivity[3][:, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(fit.sensitivity[4][:, 0, 0], [-1, 0, 0], atol=1e-12)


def test_pem_and_arx_agree_on_how_sure_they_are(rng):
    u = rng.standard_normal(2000)
    record = Record(u, lfilter([0, 1.0], [1, -0.8], u) + lfilter([1.0], [1, -0.8], 0.3 * rng.standard_normal(2000)))
    one, two = pole_confidence(arx(record, 1, 1)), pole_confidence(armax(record, 1, 1, 0))
    np.testing.assert_allclose(one.modulus, two.modulus, rtol=1e-3)
    three = pole_confidence(pem(record, 1, feedthrough=False))
    assert 0.9 * one.modulus[0] < three.modulus[0] < 2 * one.modulus[0]


def test_kinds_scales_nan_and_real_poles(xp, rng):
    u = rng.standard_normal((2, 1, 200))
    y = lfilter([0, 1.0], [1, -0.8], u) + 0.1 * rng.standard_normal(u.shape)
    y[1] = np.nan
    fit = arx(Record(xp.asarray(u), xp.asarray(y)), 1, 1)
    found = pole_confidence(fit)
    assert xp.owns(found.values)
    assert np.isnan(xp.numpy(found.modulus)[1]).all()
    np.testing.assert_array_equal(xp.numpy(found.argument)[0], 0)  # a real pole stays real
    np.testing.assert_array_equal(xp.numpy(found.contains(0.5 + 0.5j))[0], False)
    alone = pole_confidence(arx(Record(1e60 * u[0], 1e-40 * y[0], dt=1e-3), 1, 1))
    np.testing.assert_allclose(alone.modulus, xp.numpy(found.modulus)[0], rtol=1e-8)
    response = response_confidence(fit, [0.0, 1.0])
    assert xp.numpy(response.axes)[0, 0, 1] == 0  # at zero frequency a response is real


def test_messages_say_what_was_expected(rng):
    fit = arx(Record(rng.standard_normal(30), rng.standard_normal(30)), 1, 1)
    with pytest.raises(ValueError, match="level: expected a confidence between 0 and 1, got 95"):
        pole_confidence(fit, 95)
    with pytest.raises(TypeError, match="expected a fit with the covariance of its parameters"):
        pole_confidence(ssmid.ss(0.5, 1, 1))
    with pytest.raises(ValueError, match="omega: expected finite frequencies"):
        response_confidence(fit, [np.nan])


# ---------------------------------------------------------------- one call for all of it


def test_identify_finds_order_and_method_and_says_so(rng):
    u = rng.standard_normal(500)
    record = Record(u, lfilter([0, 1.0, 0.5], [1, -1.6, 0.8], u) + 0.2 * rng.standard_normal(500))
    found = identify(record, max_order=4)
    assert found.chosen.order == 2
    assert found.fit.stable
    assert found.explain().startswith(f"Chosen of {len(found.candidates)} by the samples held out: {found.chosen.method}, order 2")
    np.testing.assert_allclose(np.abs(ssmid.poles(found.system)), 0.8**0.5, atol=0.01)
    assert identify(record, 2, method="pem", focus="prediction").chosen.method == "PEM"
    assert identify([record[:200], record[200:350], record[350:]], max_order=3, method="oe", drift=False).chosen.order == 2


def test_identify_sees_that_a_record_drifts(rng):
    u = rng.standard_normal(400)
    slow = np.cumsum(lfilter([0.02], [1, -0.98], rng.standard_normal(400)))
    record = Record(u, lfilter([0, 1.0], [1, -0.8], u) + slow + 0.1 * rng.standard_normal(400))
    found = identify(record, 8, method="oe", center=None)
    assert found.chosen.drift >= 1
    assert np.abs(ssmid.poles(found.system) - 0.8).min() < 0.03
    assert found.chosen.score > identify(record, 8, method="oe", drift=False).chosen.score


def test_identify_says_what_it_expects(rng):
    record = Record(rng.standard_normal(30), rng.standard_normal(30))
    with pytest.raises(ValueError, match="method: expected one of auto"):
        identify(record, method="best")
    with pytest.raises(ValueError, match=r"expected one system, got a batch of .2,."):
        identify(Record(np.ones((2, 1, 9)), np.ones((2, 1, 9))))
    with pytest.raises(ValueError, match="expected at least 8 samples to train on"):
        identify(record[:9])
