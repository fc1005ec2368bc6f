"""What a job says of single precision, and of Hankel values that some chunks know and others do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ssmid
from ssmid.jobs.run import distill_into


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(7)
    taps = rng.standard_normal((6, 120)) * 0.985 ** np.arange(120)
    taps[2], taps[4] = 0, 0.5 ** np.arange(120)
    np.save(tmp_path / "h.npy", taps)
    return tmp_path


def test_the_cost_is_measured_printed_and_kept(source):
    options = {"order": 3, "precision": "float32"}
    found = distill_into(source / "out", source / "h.npy", options, chunk=6)
    assert found is not None
    cost = ssmid.distill(np.load(source / "h.npy"), **options).cost
    layer = ssmid.load(source / "out")["filters"]  # pyright: ignore[reportIndexIssue]
    assert cost is not None
    assert layer.cost.filters == cost.filters == 6
    assert layer.cost.hankel == pytest.approx(cost.hankel, abs=1e-6)
    assert any("Single precision changes relative errors by at most" in words for words in found[0].words)
    assert "measured on 6 filters" in layer.explain()
    assert np.array_equal(layer.system.poles, layer.system.poles.astype(np.complex64))
    described = json.loads((source / "out" / "model.json").read_text())
    assert described["layers"]["filters"]["single_precision"]["filters"] == 6


def test_the_cost_is_that_of_all_chunks(source):
    options = {"order": 3, "precision": "float32"}
    distill_into(source / "out", source / "h.npy", options, chunk=1)
    found = json.loads((source / "out" / "model.json").read_text())["layers"]["filters"]["single_precision"]
    cost = ssmid.distill(np.load(source / "h.npy"), **options).cost
    assert cost is not None
    assert found["filters"] == 6
    assert found["l2"] == pytest.approx(cost.l2, rel=1e-3)


def test_a_filter_that_single_precision_cannot_hold_is_named_and_stops_nothing(source):
    taps = np.load(source / "h.npy")
    taps[3] *= 1e40
    np.save(source / "h.npy", taps)
    found = distill_into(source / "out", source / "h.npy", {"order": 3, "precision": "float32"}, chunk=2)
    assert found is not None
    report, good = found
    assert not good
    assert "NO RESULT for 1 of 6 filters: named above. The others stand." in report.words
    layer = ssmid.load(source / "out")["filters"]  # pyright: ignore[reportIndexIssue]
    assert np.isnan(layer.error).tolist() == [i == 3 for i in range(6)]
    assert json.loads((source / "out" / "model.json").read_text())["layers"]["filters"]["which"]["out of range"] == [3]


def test_values_that_a_chunk_does_not_know_are_nan(source):
    """The fifth filter meets the tolerance with few values, noise needs more of them."""
    distill_into(source / "out", source / "h.npy", {"tol": 0.3, "max_order": 40}, chunk=1)
    layer = ssmid.load(source / "out")["filters"]  # pyright: ignore[reportIndexIssue]
    direct = ssmid.distill(np.load(source / "h.npy"), tol=0.3, max_order=40)
    sigma = layer.certificate.sigma
    assert np.array_equal(np.isnan(sigma), np.isnan(direct.certificate.sigma))
    assert np.isnan(sigma).any()
    assert (sigma[2] == 0).all()
