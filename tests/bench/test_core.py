"""The benchmark's machinery: times, scaling, references and bars are what they say; the whole of it runs small."""

from __future__ import annotations

import json
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ssmid import bench
from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.spectrum import frequency_response
from ssmid.bench import banks, page, peers, singles
from ssmid.bench.records import OURS, Case, Row, bars
from ssmid.bench.timing import Timing, measure
from ssmid.systems import StateSpace, TransferFunction

DOCS = Path(__file__).parents[2] / "docs"


def fake_clock(seconds):
    """A clock on which the k-th call of anything takes ``seconds[k]``."""
    ticks = iter(seconds)
    return lambda function: (next(ticks), function())


# ---------------------------------------------------------------- timing


def test_measure_takes_the_median_after_a_warm_up_in_turns():
    calls = []
    tools = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timed = measure(tools, 3, 100.0, fake_clock([9, 9, 1, 10, 2, 30, 5, 20]))
    assert calls == ["a", "b"] * 4
    assert timed["a"][0] == Timing(2, 1, 5, 3)
    assert timed["b"][0] == Timing(20, 10, 30, 3)


def test_measure_keeps_a_slow_warm_up_and_calls_no_more():
    calls = []
    timed = measure({"slow": lambda: calls.append(1) or "answer"}, 5, 4.0, fake_clock([7.0]))
    assert timed["slow"] == (Timing(7.0, 7.0, 7.0, 1), "answer")
    assert len(calls) == 1


def test_measure_stops_at_its_budget():
    timed = measure({"tool": lambda: None}, 100, 1.0, fake_clock([0.3] * 101))
    assert timed["tool"][0].repeats == 3


def test_measure_reads_the_wall_clock():
    timing = measure({"sleep": lambda: time.sleep(0.02)}, 2, 1.0)["sleep"][0]
    assert 0.02 <= timing.fastest < 0.2


# ---------------------------------------------------------------- rows and bars


def a_case(ours, other, errors=(1e-3, 1e-3)):
    rows = (Row(OURS, Timing(ours, ours, ours, 1), errors[0]), Row("pyMOR", Timing(other, other, other, 1), errors[1]))
    return Case("balanced truncation", "beam", rows, "H-infinity error", 348)


def test_ratio_says_how_many_times_longer_the_other_took():
    assert a_case(0.2, 0.5).ratio("pyMOR") == pytest.approx(2.5)
    assert a_case(0.2, 0.5).ratio("slycot") is None


def test_rounding_is_the_condition_of_the_slowest_pole():
    """A pole at -2 and one at -8 + 1e6 i: rounding moves them by eps 1e6, and 2 is the distance."""
    A = np.array([[-2.0, 0, 0], [0, -8.0, 1e6], [0, -1e6, -8.0]])
    system = StateSpace(A, np.ones((3, 1)), np.ones((1, 3)), dt=0)
    assert singles._rounding(system) == pytest.approx(np.finfo(float).eps * 1e6 / 2)


@pytest.mark.parametrize(
    ("case", "met"),
    [
        (a_case(0.2, 0.5), True),
        (a_case(0.5, 0.2), False),
        (a_case(0.2, 0.5, (2e-3, 1e-3)), False),
        (a_case(0.2, 0.5, (1e-13, 1e-15)), True),  # both rounding
        (a_case(0.2, 0.5, (None, 1e-15)), True),
    ],
)
def test_a_bar_needs_speed_and_accuracy(case, met):
    (bar,) = bars([case], {"pyMOR": 1.0})
    assert bar.met is met


def test_a_loop_is_scaled_to_the_whole_bank_and_says_so():
    timing = Timing(2.0, 1.0, 3.0, 5)
    assert banks._row("SciPy lfilter, loop", timing, 0.1, 1000, 100) == Row("SciPy lfilter, loop", Timing(20.0, 10.0, 30.0, 5), 0.1, 100)
    assert banks._row(OURS, timing, 0.1, 1000, 100) == Row(OURS, timing, 0.1)


# ---------------------------------------------------------------- systems and references


def test_the_banks_are_one_bank_in_three_forms():
    modal = banks.modal_bank(6, 16)
    num, den = banks._polynomials(modal)
    taps = impulse_response(modal, 200).taps
    for other in (banks.block_modal(modal), banks.state_space_bank(modal), TransferFunction(num, den)):
        np.testing.assert_allclose(impulse_response(other, 200).taps, taps, atol=1e-8)


def test_extended_precision_references_agree_with_the_modes():
    modal = banks.modal_bank(6, 8)
    exact = banks._exact_taps(modal, 300)
    written_out = peers.vandermonde_taps(modal.poles[: len(exact)], modal.residues[: len(exact)], 300)
    np.testing.assert_allclose(exact.astype(float), written_out, atol=1e-12)
    length = 4096  # long enough for every mode to fade: the spectrum is the FFT of the taps
    faded = np.fft.rfft(banks._exact_taps(modal, length).astype(float))
    np.testing.assert_allclose(banks._exact_spectrum(modal, length).astype(complex), faded, atol=1e-10)


def test_scipy_loops_agree_with_each_other():
    modal = banks.modal_bank(3, 6)
    num, den = banks._polynomials(modal)
    states = banks.block_modal(modal)
    np.testing.assert_allclose(peers.lfilter_taps(num, den, 100), peers.dimpulse_taps(states, 100), atol=1e-10)
    np.testing.assert_allclose(peers.freqz_spectra(num, den, 64), peers.dfreqresp_spectra(states, 64), atol=1e-8)


def test_hinf_error_is_that_of_a_known_difference():
    """1/(s + 1) against 0.9/(s + 1): a tenth of the gain at every frequency; of a bank the median."""
    omega = np.geomspace(0.01, 100, 20)
    one = StateSpace(-np.eye(1), np.eye(1), np.eye(1), dt=0)
    other = StateSpace(-np.eye(1), np.eye(1), np.array([[[0.9]], [[0.8]], [[0.2]]]), dt=0)
    assert singles.hinf_error(frequency_response(one, omega).values, other, omega) == pytest.approx(0.2)
    coupled = StateSpace(-np.eye(2), np.eye(2), np.eye(2), dt=0)
    reduced = StateSpace(-np.eye(2), np.eye(2), np.diag([1.0, 0.5]), dt=0)
    assert singles.hinf_error(frequency_response(coupled, omega).values, reduced, omega) == pytest.approx(0.5)


def test_deviation_counts_missing_and_imaginary_values():
    reference = np.array([2.0, 1.0, 0.5])
    assert singles._deviation(np.array([2.0, 1.0, 0.5]), reference) == 0
    assert singles._deviation(np.array([2.0, 1.0]), reference) == pytest.approx(0.25)
    assert singles._deviation(np.array([2.0, 1.0, 0.5 + 0.1j]), reference) == pytest.approx(0.05)


@pytest.mark.skipif(not peers.have("pymor", "slycot"), reason="needs pymor and slycot")
def test_the_peers_reduce_the_same_system_to_the_same_error():
    from ssmid import datasets

    system = datasets.heat(60)
    omega = np.geomspace(0.01, 100, 20)
    full = frequency_response(system, omega).values
    errors = {tool: singles.hinf_error(full, reduce(), omega) for tool, reduce in peers.balanced_tools(system, 4).items()}
    assert len(errors) >= 2
    np.testing.assert_allclose(list(errors.values()), min(errors.values()), rtol=1e-3)


# ---------------------------------------------------------------- the command and the page


def test_core_runs_small_and_writes_what_it_prints(tmp_path):
    out = StringIO()
    start = time.perf_counter()
    figures = bench.run("core", quick=True, json_path=tmp_path / "core.json", console=Console(file=out, width=160))
    assert time.perf_counter() - start < 60
    assert json.loads((tmp_path / "core.json").read_text()) == json.loads(json.dumps(figures))
    sections = [case["section"] for case in figures["cases"]]
    expected = ["Hankel values", "balanced truncation", "bank, balanced truncation", "bank, taps", "bank, spectrum", "ERA"]
    assert list(dict.fromkeys(sections)) == expected
    for case in figures["cases"]:
        ours = case["tools"][0]
        assert ours["tool"] == OURS
        assert ours["seconds"] > 0
        assert case["case"] in out.getvalue()
    errors = {(case["section"], case["case"]): case["tools"][0]["error"] for case in figures["cases"]}
    assert all(error < 1e-9 for (section, _), error in errors.items() if section in ("bank, taps", "bank, spectrum"))
    assert all(error < 0.2 for (section, _), error in errors.items() if "balanced truncation" in section)
    hosts = json.dumps(figures)
    assert "/" not in figures["machine"]["system"]
    assert str(Path.home()) not in hosts


def test_the_device_section_runs_on_the_host():
    from ssmid.bench.device import device_limits

    figures = device_limits("cpu", quick=True, progress=lambda step: None)
    errors = {case["section"]: case["tools"][0]["error"] for case in figures["cases"]}
    assert errors["spectrum of taps"] < 1e-6
    assert errors["transfer functions to taps"] < 1e-5
    assert errors["Hankel values"] < 1e-6
    assert all(case["floor_seconds"] > 0 for case in figures["cases"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cores"}, "benchmark: expected one of core, fit, distill, layers, decode, got 'cores'"),
        ({"name": "core", "data": "/no/such/folder"}, "data: expected a folder, got '/no/such/folder'"),
        ({"name": "core", "json_path": "/no/such/folder/f.json"}, "json: expected a file in a folder that is there"),
        ({"name": "core", "only": "prefill"}, "only: expected with the benchmark decode, got it with core"),
        ({"name": "decode", "peers": "."}, "peers: expected with the benchmark layers, got it with decode"),
        ({"name": "core", "device": "cuda:99"}, "device: expected one that is there, got 'cuda:99'"),
    ],
)
def test_run_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        bench.run(**arguments)


def test_page_is_rendered_from_the_figures():
    """docs/benchmarks.md holds what ``python -m ssmid.bench.page`` makes of docs/bench/*.json."""
    if not DOCS.is_dir():
        pytest.skip("needs a checkout")
    text = (DOCS / "benchmarks.md").read_text()
    assert text.count("<!-- figures: ") == len(list((DOCS / "bench").glob("*.json")))
    assert page.render(text, DOCS / "bench") == text


def test_render_replaces_only_what_stands_between_its_marks(tmp_path):
    figures = {
        "machine": {"processor": "P", "cores": 2, "system": "S", "python": "3", "threads": "t", "versions": {"numpy": "2"}},
        "limits": {"copy_bytes_per_second": 2e9},
        "cases": [a_case(0.2, 0.5).as_dict()],
        "bars": [bar.as_dict() for bar in bars([a_case(0.2, 0.5)], {"pyMOR": 3.0})],
    }
    (tmp_path / "f.json").write_text(json.dumps(figures))
    text = page.render("before\n<!-- figures: f.json -->\nold\n<!-- end -->\nafter", tmp_path)
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter")
    assert "old" not in text
    assert "|  | pyMOR | 500 ms | 2.5 | 1.00e-03 |  |" in text
    assert "MISSED" in text
    assert "busy" not in text
    assert page.render(text, tmp_path) == text
    figures["machine"]["load"] = 7.5
    assert "busy** (load 7.5 before the run)" in page.markdown(figures)
