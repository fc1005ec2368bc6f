"""The benchmark of fits: what sets a bar and what does not; the whole of it runs small."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from ssmid import ImpulseResponse, StateSpace, bench
from ssmid.bench import fit_frequency, fit_taps
from ssmid.bench.fit_peers import Model, scipy_aaa_default
from ssmid.bench.records import OURS, Case, Row, bars
from ssmid.bench.timing import Timing


def a_case(**other):
    one = Timing(1.0, 1.0, 1.0, 1)
    rows = (Row(OURS, one, 1e-3, order=4, right=True), Row("peer", one, **{"error": 1e-4, "order": 4, "right": True, **other}))
    return Case("fits", "ring", rows, "rms")


def test_a_better_right_model_of_the_same_order_is_a_bar_missed():
    (bar,) = bars([a_case()], {"peer": 1.0})
    assert bar.errors_no_worse is False
    assert not bar.met


def test_wrong_models_set_no_bar_and_larger_ones_none_for_the_error():
    assert bars([a_case(right=False)], {"peer": 1.0}) == []
    (smaller,) = bars([a_case(order=3)], {"peer": 1.0})
    assert smaller.errors_no_worse is None
    (larger,) = bars([a_case(order=6)], {"peer": 1.0})
    assert larger.errors_no_worse is None
    (larger_and_worse,) = bars([a_case(order=6, error=1e-2)], {"peer": 1.0})
    assert larger_and_worse.errors_no_worse is True


def test_a_model_is_right_where_it_is_real_and_stable():
    values, timing = np.ones(3), Timing(1.0, 1.0, 1.0, 1)

    def right(poles, discrete=False):
        return fit_frequency._row("tool", timing, Model(values, np.asarray(poles, complex)), values, discrete).right

    assert right([-1, -2 + 1j, -2 - 1j])
    assert not right([-1, -2 + 1j])
    assert not right([-1, 2 + 1j, 2 - 1j])
    assert right([0.5, 0.9j, -0.9j], discrete=True)
    assert not right([1.1], discrete=True)


def test_scipy_takes_noise_for_poles():
    """The figure that the noisy case stands beside."""
    case = fit_frequency.noisy(quick=True)
    ours, theirs = case.row(OURS), case.row("SciPy AAA, defaults")
    assert (ours.order, ours.right) == (3, True)
    assert theirs.order > 50
    assert theirs.right is False
    assert ours.error < 2e-5


def test_errors_of_taps_are_relative():
    rng = np.random.default_rng(0)
    response = ImpulseResponse(rng.standard_normal(50))
    zero = StateSpace(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)))
    assert fit_taps._error(zero, response) == pytest.approx(1)


def test_the_peer_gets_the_points():
    points = np.exp(1j * np.linspace(0, 3, 40))
    model = scipy_aaa_default(points, 1 / (points - 0.5))
    np.testing.assert_allclose(model.poles, [0.5], atol=1e-10)


def test_the_whole_runs_small(tmp_path):
    path = tmp_path / "fit.json"
    console = Console(file=StringIO(), width=160)
    figures = bench.run("fit", quick=True, json_path=path, console=console)
    assert json.loads(path.read_text()) == json.loads(json.dumps(figures))
    sections = {case["section"] for case in figures["cases"]}
    assert {"frequency responses", "long responses", "banks of responses", "H2 error of reduced systems", "records"} <= sections
    ours = [tool for case in figures["cases"] for tool in case["tools"] if tool["tool"] == OURS]
    assert len(ours) == len(figures["cases"])
    assert all(tool["error"] is not None and np.isfinite(tool["error"]) for tool in ours)
    assert "noisy order 3" in console.file.getvalue()


def test_banks_run_on_a_device_that_is_there():
    case = fit_frequency.bank_of_responses(quick=True, device="cpu")
    assert {row.tool for row in case.rows} >= {OURS, "ssmid, AAA", "SciPy AAA, loop"}
    with pytest.raises(ValueError, match="device: expected one that is there, got 'cuda:99'"):
        bench.run("fit", device="cuda:99")
