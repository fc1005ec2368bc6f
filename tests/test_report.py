"""Reports: the same content on a terminal and in JSON, and a certificate in words that are true."""

from __future__ import annotations

import importlib
import io
import json
import time

import numpy as np
import pytest
from rich.console import Console

import ssmid
from ssmid.report import Certificate, Report, Table, certificate_report, certify, inspection, progress
from ssmid.report.certificate import words
from ssmid.report.inspection import _orders
from ssmid.report.tables import percent, plain, shown

nan, inf = float("nan"), float("inf")


def printed(report: Report, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    report.show(console)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


REPORT = Report(
    "room.wav",
    {"channels": (2, 3), "sample time (s)": 0.5, "converged": np.True_, "pole": 1 - 2j, "broken": nan, "array": np.arange(2)},
    [Table("Errors, worst first", ["channel", "times best"], [["0", 1.25], ["1", inf], ["2", nan]], limit=2)],
    ["One sentence.", "[bold] is no markup"],
)


def test_json_is_strict_and_has_every_row():
    content = json.loads(REPORT.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content == {
        "title": "room.wav",
        "channels": [2, 3],
        "sample_time_s": 0.5,
        "converged": True,
        "pole": [1.0, -2.0],
        "broken": None,
        "array": [0, 1],
        "errors_worst_first": [
            {"channel": "0", "times_best": 1.25},
            {"channel": "1", "times_best": None},
            {"channel": "2", "times_best": None},
        ],
        "words": ["One sentence.", "[bold] is no markup"],
    }


def test_the_terminal_shows_the_same_and_says_what_it_leaves_out():
    text = printed(REPORT)
    for piece in (
        "room.wav",
        "sample time (s)",
        "0.5",
        "yes",
        "1 - 2i",
        "none",
        "1.25",
        "inf",
        "and 1 more: --json shows all",
        "One sentence.",
        "[bold] is no markup",
    ):
        assert piece in text
    assert "nan" not in text


def test_names_of_columns_are_broken_between_words():
    """On a terminal of 80 columns the certificate of a bank once read "H-infinit y error" and "converge d"."""
    columns = ["channel", "order", "relative l2 error", "Hankel error", "best possible", "times best", "H-infinity error", "stable"]
    columns += ["converged"]
    row = ["12", 16, 0.8779, 0.30391, 0.26661, 1.0373, 0.42841, True, True]
    head = printed(Report("bank", tables=[Table("Errors", columns, [row, row])]), 80).splitlines()[3:6]
    words = {word for line in head for word in line.split()}
    assert {"H-infinity", "converged", "possible", "channel"} <= words


def test_parts_are_nested():
    whole = Report("demo", {"folder": "x"}, parts=(Report("room response", {"order": 3}), Report("filters", {"order": 4})))
    assert whole.to_dict() == {
        "title": "demo",
        "folder": "x",
        "room_response": {"title": "room response", "order": 3},
        "filters": {"title": "filters", "order": 4},
    }
    assert printed(whole).index("room response") < printed(whole).index("filters") < printed(whole).index("demo")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-05"), (123456.0, "1.235e+05"), (3, "3"), (False, "no"), ((1, 2.5), "1, 2.5"), (None, "none"), (-inf, "-inf")],
)
def test_numbers_as_people_read_them(value, text):
    assert shown(value) == text


def test_plain_values_are_exact():
    assert plain(np.float32(0.1)) == float(np.float32(0.1))
    assert plain({"a": np.int64(3), 1: [np.array([0.5 + 1j])]}) == {"a": 3, "1": [[[0.5, 1.0]]]}


@pytest.mark.parametrize(
    ("ratio", "text"), [(1.0, "100 % (0 dB)"), (0.01, "1 % (-40 dB)"), (1e-7, "1.0e-07 (-140 dB)"), (0.0, "0"), (50.0, "5.0e+01 (34 dB)")]
)
def test_percent(ratio, text):
    assert percent(ratio) == text


# ---------------------------------------------------------------- the certificate in words


def certificate(
    order=16, error=0.032, hankel=1.4, best=1.0, peak=1.75, bound=nan, scale=10.0, converged=True, stable=True, tol=None
) -> Certificate:
    arrays = [np.atleast_1d(np.asarray(a)) for a in (order, error, hankel, best, peak, bound, scale, converged, stable)]
    arrays = np.broadcast_arrays(*arrays)
    return Certificate(list(np.ndindex(*arrays[0].shape)) if arrays[0].size > 1 else [()], *arrays, tol)


def said(**numbers) -> str:
    return " ".join(words(certificate(**numbers)))


def test_the_error_beside_the_best_possible():
    text = said()
    assert "order 16 leaves a relative l2 error of 3.2 % (-30 dB)." in text
    assert "1.4 times the best that any stable model of order 16 can reach" in text
    assert "14 % (-17 dB) of the norm of the original" in text
    assert "for a much smaller error take a larger order" in text
    assert "The largest error at any frequency is 1.75." in text
    assert "The largest error at any frequency is 1.75 (known beforehand to be at most 2.5)." in said(bound=2.5)
    assert "In that norm another method may gain up to a factor of 3.5" in said(hankel=3.5)
    assert text.index("In that norm no method gains") < text.index("The largest error"), "the factor is one of Hankel norms"


def test_exact_zero_and_broken_ones():
    assert "exact to rounding" in said(best=1e-14, hankel=1e-14)
    assert "zero beyond its first tap: order 0 holds it exactly" in said(scale=0.0, error=nan, order=0)
    assert "not finite" in said(scale=nan, error=nan)


def test_what_was_not_reached_is_said():
    assert "NOT CONVERGED: the Hankel values are lower bounds" in said(converged=False)
    assert "The tolerance 0.01 is not met:" in said(tol=0.01)
    assert "tolerance" not in said(tol=0.05)
    assert "NOT CONVERGED" not in said(tol=0.01, converged=False), "a reduction that misses its tolerance says so, not of its Hankel values"
    assert certificate(tol=0.05).good
    assert not certificate(tol=0.01).good
    assert not certificate(converged=False).good


def test_many_channels():
    text = said(error=[0.1, 0.2, nan, 0.3], hankel=[1.0, 2.0, nan, 3.0], converged=[True, True, False, True], tol=0.15)
    assert "20 % (-14 dB) in the median and 30 % (-10 dB) in the worst channel" in text
    assert "2 times (worst channel 3 times) the best" in text
    assert "1 of 4 channels failed or have not converged: 2. The others stand." in text
    assert "not met by 3 of 4 channels" in text
    assert "orders 4 to 6" in said(order=[4, 5, 6])


def test_certify_measures(rng):
    taps = rng.standard_normal((3, 60)) * 0.9 ** np.arange(60)
    fit = ssmid.balanced_truncation(ssmid.ImpulseResponse(taps), 5)
    c = certify(fit, 0.5)
    model = ssmid.impulse_response(fit.system, 4000).taps
    difference = model - np.pad(taps, ((0, 0), (0, 3940)))
    np.testing.assert_allclose(c.error, np.linalg.norm(difference, axis=-1) / np.linalg.norm(taps, axis=-1), rtol=1e-6)
    np.testing.assert_allclose(c.hankel, ssmid.hankel_singular_values(ssmid.ImpulseResponse(difference), 1)[:, 0], rtol=1e-2)
    np.testing.assert_allclose(c.peak, ssmid.norm(ssmid.ImpulseResponse(difference), "hinf"), rtol=1e-2)
    assert (c.times_best >= 1 - 1e-9).all()
    assert (c.hankel <= c.bound * (1 + 1e-9)).all()
    np.testing.assert_array_equal(c.met, c.error <= 0.5)
    report = certificate_report(fit, c, "noise")
    errors = [row["relative_l2_error"] for row in report.to_dict()["errors_worst_first"]]
    assert errors == sorted(c.error.tolist(), reverse=True)
    assert report.facts["worst relative l2 error"] == errors[0]


def test_the_bound_is_said_only_where_all_hankel_values_are_known(rng):
    taps = rng.standard_normal(1200) * 0.995 ** np.arange(1200)
    for length, sharp in ((60, True), (1200, False)):
        fit = ssmid.balanced_truncation(ssmid.ImpulseResponse(taps[:length]), 5)
        c = certify(fit)
        (row,) = certificate_report(fit, c, "noise").to_dict()["errors"]
        assert ("bound" in row) is sharp
        assert np.isfinite(c.bound[0]) == sharp
        assert row["best_possible"] <= row["hankel_error"] <= row["h_infinity_error"] * 1.01
    many = certify(ssmid.balanced_truncation(ssmid.ImpulseResponse(rng.standard_normal((2, 3, 60))), 5))
    assert np.isfinite(many.bound).all()


# ---------------------------------------------------------------- inspection


@pytest.mark.parametrize("states", [0, 1, 4])
def test_inspection_lists_no_more_values_than_there_are_states(states):
    system = ssmid.ss(np.diag(np.linspace(0.2, 0.8, states)), np.ones((states, 1)), np.ones((1, states)), np.ones((1, 1)))
    content = inspection(system, "model").to_dict()
    assert len(content["hankel_singular_values"]) == max(1, states)
    assert [row["order"] for row in content["order_to_choose"]][-1] == str(states)
    short = inspection(ssmid.ImpulseResponse(0.9 ** np.arange(6)), "taps").to_dict()
    assert len(short["hankel_singular_values"]) == 5


def test_stages_of_the_certificate_are_named(rng):
    named = []
    certify(ssmid.balanced_truncation(ssmid.ImpulseResponse(rng.standard_normal(40)), 3), stage=lambda name, *_: named.append(name))
    assert named == ["error: energy", "error: Hankel norm", "error: largest gain"]


def test_figures_of_coupled_channels_say_which_they_show(rng, tmp_path, monkeypatch):
    from ssmid.report import figures

    titles = []
    monkeypatch.setattr(figures, "figure", lambda path, onto, title="", size=(): titles.append(title) or path)
    taps = ssmid.ImpulseResponse(rng.standard_normal((2, 3, 40)) * 0.8 ** np.arange(40))
    fit = ssmid.balanced_truncation(taps, 3, mimo=True)
    figures.draw(tmp_path, fit, np.array([0.5]))
    assert [title for title in titles if title] == ["output 0 of 2, input 0 of 3"] * 2


def test_inspection_names_the_order_of_an_exact_system():
    taps = np.concatenate([[0.0], 0.8 ** np.arange(300) + 0.01 * (-0.5) ** np.arange(300)])
    report = inspection(ssmid.ImpulseResponse(taps, dt=0.5), "two modes", count=8)
    content = report.to_dict()
    assert (content["samples"], content["duration_s"], content["sampling_frequency_hz"]) == (301, 150.5, 2.0)
    orders = {row["hankel_error_relative"]: row["order"] for row in content["order_to_choose"]}
    assert (orders[1e-1], orders[1e-6]) == ("1", "2")
    sigma = [row["value"] for row in content["hankel_singular_values"]]
    np.testing.assert_allclose(sigma, ssmid.hankel_singular_values(ssmid.ImpulseResponse(taps), 8), rtol=1e-6, atol=1e-9)
    assert content["spectrum"][0]["gain_at_0_hz"] == pytest.approx(taps.sum(), rel=1e-9)
    assert "Order 2 can bring the error in Hankel norm down to 0.1 % (-60 dB); no smaller order can." in report.words


def test_inspection_of_no_channels():
    with pytest.raises(ValueError, match=r"expected at least one channel, got batch \(0,\)"):
        inspection(ssmid.ImpulseResponse(np.zeros((0, 30))), "none")


def test_an_order_is_enough_when_the_next_value_is_at_the_level():
    sigma = np.array([[1.0, 0.15, 0.1, 0.05], [1.0, 0.1, 0.0, 0.0]])
    np.testing.assert_array_equal(_orders(sigma, 0.1), [2, 1])
    np.testing.assert_array_equal(_orders(sigma, 0.01), [4, 2])


def test_inspection_of_a_bank_with_a_broken_and_a_silent_channel():
    taps = np.stack([0.9 ** np.arange(100), np.zeros(100), np.full(100, nan), np.eye(1, 100)[0]])
    content = inspection(ssmid.ImpulseResponse(taps), "bank").to_dict()
    assert content["channels_that_are_not_finite"] == [2]
    orders = {row["hankel_error_relative"]: row["order_worst_channel"] for row in content["order_to_choose"]}
    assert orders[1e-3] == "1"
    assert len(content["spectrum"]) == 4


def test_inspection_of_a_model_shows_poles_in_hertz():
    decay, frequency, dt = 2.0, 3.0, 0.01
    pole = np.exp((-decay + 2j * np.pi * frequency) * dt)
    system = ssmid.ss([[pole.real, pole.imag], [-pole.imag, pole.real]], [[1.0], [0]], [[1.0, 0]], dt=dt)
    content = inspection(system, "resonance").to_dict()
    (row,) = content["poles_slowest_first"]
    assert row["natural_frequency_hz"] == pytest.approx(np.hypot(3.0, 1 / np.pi))
    assert row["time_constant_s"] == pytest.approx(0.5)
    assert row["damping_ratio"] == pytest.approx(2 / np.hypot(2, 6 * np.pi))
    assert content["stable"] is True


def test_inspection_of_unstable_continuous_and_frequency_data():
    unstable = inspection(ssmid.ss(1.1, 1, 1), "x").to_dict()
    assert unstable["stable"] is False
    assert "hankel_singular_values" not in unstable
    continuous = inspection(ssmid.ss(-2.0, 1.0, 4.0, dt=0), "x").to_dict()
    assert continuous["time"] == "continuous"
    assert continuous["hankel_singular_values"][0]["value"] == pytest.approx(1.0)
    data = inspection(ssmid.frd([[1.0, 3.0, 2.0]], [0.0, 2 * np.pi, 4 * np.pi]), "x").to_dict()
    assert (data["lowest_hz"], data["highest_hz"], data["frequencies"]) == (0, 2, 3)
    assert data["spectrum"][0]["peak_gain"] == 3.0
    assert data["spectrum"][0]["peak_at_hz"] == pytest.approx(1.0)


# ---------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "quiet", "seconds", "shows"),
    [(True, False, 0.5, True), (True, False, 0.0, False), (True, True, 0.5, False), (False, False, 0.5, False)],
)
def test_progress_appears_after_a_while_on_a_terminal_only(monkeypatch, terminal, quiet, seconds, shows):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(importlib.import_module("ssmid.report.progress"), "PATIENCE", 0.1)
    monkeypatch.setenv("TERM", "xterm")
    with progress(quiet=quiet) as stage:
        stage("thinking", 1, 3)
        time.sleep(seconds)
    assert ("thinking" in stream.getvalue()) is shows


def test_progress_leaves_with_the_error():
    def interrupted() -> None:
        with progress() as stage:
            stage("thinking")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
