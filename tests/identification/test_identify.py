"""One call from a record to a model: what is chosen, by what, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.signal import lfilter

from ssmid import Record, cva, fit_percent, identify, n4sid, predict
from ssmid.io import read_record

B, A = [0, 1.0, 0.5], [1, -1.6, 0.8]


@pytest.fixture
def record(rng) -> Record:
    u = rng.standard_normal(400)
    return Record(u, lfilter(B, A, u) + 0.1 * rng.standard_normal(400))


def test_the_order_of_the_system_is_found(record):
    found = identify(record, max_order=6)
    assert found.system.order == found.chosen.order == 2
    np.testing.assert_allclose(np.sort_complex(np.linalg.eigvals(found.system.A)), np.sort_complex(np.roots(A)), atol=0.01)
    assert found.chosen in found.candidates
    assert {c.method for c in found.candidates} == {"N4SID", "CVA", "ARX", "ARMAX", "OE"}


def test_scores_are_of_samples_that_were_held_out(record):
    found = identify(record, 2, method="subspace", held_out=0.25)
    for candidate in found.candidates:
        verb = {"N4SID": n4sid, "CVA": cva}[candidate.method]
        fit = verb(record[:300], 2, center="mean", stable=True)
        assert candidate.score == pytest.approx(float(fit_percent(record[300:].outputs, predict(fit, record[300:], None))[0]), abs=1e-9)
    assert list(found.candidates) == sorted(found.candidates, key=lambda c: -c.score)
    # trained again on all of it
    assert found.fit.data is record


def test_what_is_chosen_is_the_smallest_of_those_as_good(record):
    found = identify(record, max_order=6)
    best = found.candidates[0].score
    near = [c for c in found.candidates if c.score >= best - 0.1 * (100 - best)]
    assert found.chosen.order == min(c.order for c in near)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_zeros_of_scales_do_not_matter(record, offset):
    moved = Record(record.inputs + offset, record.outputs - 3 * offset)
    found, same = identify(moved, 2, drift=False), identify(record, 2, drift=False)
    assert (found.chosen.method, found.chosen.delay) == (same.chosen.method, same.chosen.delay)
    np.testing.assert_allclose(found.chosen.score, same.chosen.score, atol=1e-6)
    simulated = np.asarray(predict(found.fit, moved, None)) + 3 * offset
    np.testing.assert_allclose(simulated, predict(same.fit, record, None), atol=1e-6)
    assert "Without the mean" in found.explain()
    assert "Without" not in identify(record, 2, center=None, method="arx").explain()


def test_drift_is_for_what_the_input_does_not_explain(rng):
    u = rng.standard_normal(500)
    wander = CubicSpline(np.arange(0, 501, 100), 20 * rng.standard_normal(6))(np.arange(500))
    y = lfilter(B, A, u) + wander + 0.1 * rng.standard_normal(500)
    with_drift, without = identify(Record(u, y), max_order=5, method="oe"), identify(Record(u, y), max_order=5, method="oe", drift=False)
    assert with_drift.chosen.drift > 0
    assert with_drift.chosen.score > without.chosen.score + 5
    assert not any(c.drift for c in without.candidates)
    assert f"with {with_drift.chosen.drift} states of drift" in with_drift.explain()


def test_prediction_wants_the_noise_model(rng):
    u, e = rng.standard_normal((2, 1000))
    y = lfilter([0, 1.0], [1, -0.5], u) + lfilter([1.0], [1, -0.95], e)
    found = identify(Record(u, y), max_order=4, focus="prediction")
    assert found.chosen.method != "OE"
    assert float(np.abs(found.fit.kalman_gain).max()) > 0.1
    # what is left is the noise that nothing before it tells of, and at most a tenth more for a lower order
    left = y - predict(found.fit, Record(u, y), 1)[0]
    assert np.std(left) == pytest.approx(np.std(e), rel=0.1)


def test_several_experiments_of_different_length(record):
    pieces = [record[:150], record[150:260], record[260:]]
    found = identify(pieces, 2)
    assert found.fit.initial_state.shape == (3, 2)
    assert found.chosen.score > 90
    # one far too short for what the others allow: the next candidate is trained on all
    short = identify([record[:395], record[395:]], max_order=3, method="subspace")
    assert short.candidates[0].order > 1
    assert short.chosen.order == short.fit.order == 1


@pytest.mark.parametrize("width", ["float32", "float64"])
def test_kinds_are_kept(xp, record, width):
    given = Record(xp.asarray(record.inputs, width), xp.asarray(record.outputs, width))
    found = identify(given, 2, method="subspace")
    assert str(found.system.A.dtype).endswith(width)
    assert xp.owns(found.system.A)
    assert found.chosen.order == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method: expected one of auto, arx"),
        ({"focus": "both"}, 'focus: expected "simulation" or "prediction"'),
        ({"held_out": 1.0}, "held_out: expected a part between 0 and 1"),
        ({"order": 0}, "order: expected 1 to"),
        ({"center": "median"}, "center: expected \"mean\", \"trend\" or None, got .median."),
    ],
)
def test_wrong_options(record, options, message):
    with pytest.raises(ValueError, match=message):
        identify(record, **options)


def test_records_that_are_none(record):
    with pytest.raises(TypeError, match="expected a Record"):
        identify(record.outputs)
    with pytest.raises(ValueError, match="at least 8 samples to train on and 8 to judge by"):
        identify(record[:12])
    batch = Record(np.stack([record.inputs] * 2), np.stack([record.outputs] * 2))
    with pytest.raises(ValueError, match=r"expected one system, got a batch of \(2,\)"):
        identify(batch)


def test_hair_dryer(shared_data):
    whole = read_record(shared_data / "sysid" / "farnn_hairdryer.mat", inputs=0, outputs=1, fs=1)
    train, test = whole[:500], whole[500:]
    found = identify(train)
    assert found.fit.stable
    # SIPPY's six methods at orders 1 to 12, the best fit in training: 85.3 %
    assert float(fit_percent(test.outputs, predict(found.fit, test, None))[0]) > 90
