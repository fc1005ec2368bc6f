"""``ssmid distill``: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import ssmid
from ssmid.cli import main

ORDER = ("--order", "3", "--method", "balanced")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder of its own to work in, with two layers of filters of three states each."""
    monkeypatch.chdir(tmp_path)
    t, rng = np.arange(40), np.random.default_rng(0)
    modes = rng.uniform(0.3, 0.9, (2, 4, 3, 1)) ** t * rng.choice([-1, 1], (2, 4, 3, 1)) ** t
    h = np.sum(modes, 2)
    np.save("h.npy", h)
    safetensors.numpy.save_file({"layers.0.filter": h[0], "layers.1.filter": h[1].astype(np.float32)}, "model.safetensors")
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_checkpoint_becomes_a_folder_and_a_table_of_its_layers(here, capsys):
    status, out, err = run(capsys, "distill", "model.safetensors", "-o", "out", *ORDER)
    assert (status, err) == (0, "")
    assert "layers.0.filter" in out
    assert "layers.1.filter" in out
    assert "out/model.safetensors" in out.replace("\n", "")
    model = ssmid.load("out")
    assert isinstance(model, ssmid.DistilledModel)
    assert repr(model) == "DistilledModel(2 layers: layers.0.filter, layers.1.filter)"
    for name, h in zip(model, np.load("h.npy"), strict=True):
        system = model[name].system
        assert system.batch_shape == (4,)
        error = np.linalg.norm(ssmid.impulse_response(system, 40).arrays["taps"] - h, axis=-1) / np.linalg.norm(h[:, 1:], axis=-1)
        assert (error <= model[name].certificate.l2 + 1e-6).all()
        assert error.max() < 1e-3
        assert system.arrays["poles"].dtype == np.complex128
    assert len((here / "out" / "layers.csv").read_text().splitlines()) == 3


def test_json_is_the_only_output_and_quiet_says_nothing(here, capsys):
    status, out, err = run(capsys, "distill", "h.npy", "-o", "out", *ORDER, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report["states"] == 24
    assert report["layers"][0]["layer"] == "filters"
    assert report["layers"][0]["l2_worst"] < 0.1
    assert run(capsys, "distill", "h.npy", "-o", "out", *ORDER, "--quiet") == (0, "", "")


def test_the_default_folder_is_named_after_the_file(here, capsys):
    assert run(capsys, "distill", "h.npy", *ORDER, "-q")[0] == 0
    assert Path("h-distilled/model.json").exists()


def test_a_tolerance_decides_the_orders_and_one_out_of_reach_is_status_1(here, capsys):
    status, _, err = run(capsys, "distill", "h.npy", "-o", "out", "--tol", "1e-2", "--method", "balanced", "-q")
    assert (status, err) == (0, "")
    layer = ssmid.load("out")["filters"]  # pyright: ignore[reportIndexIssue]
    assert (layer.certificate.l2 <= 1e-2).all()
    np.save("noise.npy", np.random.default_rng(0).standard_normal((2, 60)))
    few = ("--tol", "1e-3", "--max-order", "4", "--method", "balanced")
    status, out, _ = run(capsys, "distill", "noise.npy", "-o", "noise", *few)
    assert status == 1
    assert "The tolerance 0.001 (l2) IS NOT MET by 2 of 2 filters" in " ".join(out.split())


def test_a_bad_filter_is_named_and_the_status_is_1(here, capsys):
    h = np.load("h.npy")
    h[1, 2, 0] = np.inf
    np.save("bad.npy", h)
    status, out, err = run(capsys, "distill", "bad.npy", "-o", "out", *ORDER)
    assert (status, err) == (1, "")
    assert "NO RESULT for 1 of 8 filters: named above. The others stand." in out
    assert "NOT CONVERGED" not in out
    named = out[out.index("named filters") :]
    assert "not finite" in named
    assert "6" in named


def test_a_damaged_layer_is_said_at_the_beginning_and_the_end_and_the_status_is_1(here, capsys):
    state = {f"layers.{i}.{name}": x.detach().numpy() for i in range(2) for name, x in ssmid.nn.S4DFilter(3, 4).state_dict().items()}
    state["layers.1.C"] = state["layers.1.C"][..., :1]
    safetensors.numpy.save_file(state, "damaged.safetensors")
    for _ in range(2):  # the second only reads what the first has written
        status, out, err = run(capsys, "distill", "damaged.safetensors", "-o", "out", "--set", "disc=zoh", *ORDER)
        assert status == 1
        assert err.startswith("ssmid: damaged.safetensors: left out: s4d-filter at 'layers.1.'")
        assert "LEFT OUT: s4d-filter at 'layers.1.'" in out
    (lacking,) = json.loads(Path("out/model.json").read_text())["source"]["left_out"]
    assert lacking.startswith("s4d-filter at 'layers.1.'")


def test_interrupted_it_says_in_one_line_what_to_do(here, capsys, monkeypatch):
    """Ctrl-C within the second chunk; the same command goes on."""
    from ssmid.jobs import run as job

    distilled, done = job.distilled_on, []

    def interrupted(*arguments):
        if done:
            signal.raise_signal(signal.SIGINT)
        done.append(1)
        return distilled(*arguments)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what shells start in the background ignores it
    try:
        with monkeypatch.context() as patched:
            patched.setattr(job, "distilled_on", interrupted)
            status, out, err = run(capsys, "distill", "h.npy", "-o", "out", *ORDER, "--chunk", "4")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, out, err) == (130, "", "ssmid: interrupted; what is done is kept: the same command goes on from there\n")
    assert run(capsys, "distill", "h.npy", "-o", "out", *ORDER, "--chunk", "4", "-q") == (0, "", "")
    run(capsys, "distill", "h.npy", "-o", "whole", *ORDER, "--chunk", "4", "-q")
    assert Path("out/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_another_job_in_the_folder_is_one_line_that_says_what_differs(here, capsys):
    run(capsys, "distill", "h.npy", "-o", "out", *ORDER, "-q")
    status, out, err = run(capsys, "distill", "h.npy", "-o", "out", "--order", "4", "--method", "balanced")
    assert (status, out) == (2, "")
    assert err.startswith("ssmid: expected the same job as the one begun here, got order 3 there, 4 here (to start anew")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected one of order, tol and budget, got none"),
        (("--order", "few"), "order: expected a whole number or 'noise', got 'few'"),
        (("--order", "3", "--norm", "linf"), "norm: expected 'l2' or"),
        (("--order", "3", "--shared", "3"), "shared: expected at most 2, the batch axes of the filters, got 3"),
        (("--order", "3", "--method", "magic"), "method: expected one of"),
        (("--order", "3", "--weights", "absent.npy"), "absent.npy"),
        (("--order", "3", "--weights", "h.npy", "--frequency-weights", "h.npy"), "expected weights or frequency_weights, got both"),
        (("--order", "3", "--set", "L"), "--set: expected NAME=VALUE, got 'L'"),
        (("--order", "3", "--layout", "hyena"), "h.npy: layout: expected none for a file without named tensors"),
        (("--order", "3", "--set", "a=1"), "h.npy: settings: expected none for filters that are stored as they are, got a"),
        (("--tol", "inf"), "tol: expected a positive number, got inf"),
        (("--order", "3", "--length", "0"), "length: expected at least 1, got 0"),
        (("--order", "3", "--device", "abacus"), "device: expected 'cpu' or 'cuda', got 'abacus'"),
    ],
)
def test_wrong_input_is_one_line_and_status_2_and_makes_no_folder(here, capsys, arguments, words):
    status, out, err = run(capsys, "distill", "h.npy", "-o", "out", *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_a_length_cuts_filters_and_options_reach_the_distiller(here, capsys):
    options = ("--length", "30", "--multiple", "4", "--max-modulus", "0.7")
    _, _, err = run(capsys, "distill", "h.npy", "-o", "out", "--order", "2", *options, "-q")
    layer = ssmid.load("out")["filters"]  # pyright: ignore[reportIndexIssue]
    assert err == ""
    assert layer.length == 30
    assert (layer.order, layer.system.order) == (4, 4)
    assert np.abs(layer.system.arrays["poles"]).max() <= 0.7 + 1e-12


def test_what_no_tensor_says_of_a_layer_can_be_said(here, capsys):
    """The layers of RTF do not store the length that they were trained with."""
    rng = np.random.default_rng(0)
    save = safetensors.numpy.save_file
    save({"layer.ab": 0.1 * rng.standard_normal((4, 6)).astype(np.float32), "layer.h_0": np.ones(2, np.float32)}, "rtf.safetensors")
    status, _, err = run(capsys, "distill", "rtf.safetensors", "-o", "out", "--order", "1")
    assert status == 2
    assert "trunc_len" in err
    settings = ("--set", "trunc_len=16", "--set", "rtf_class=RTF")
    status, _, err = run(capsys, "distill", "rtf.safetensors", "-o", "out", "--order", "1", *settings, "-q")
    assert (status, err) == (0, "")
    assert ssmid.load("out").metadata["options"]["settings"] == {"trunc_len": 16, "rtf_class": "RTF"}  # pyright: ignore[reportAttributeAccessIssue]


def test_the_report_is_a_page_and_can_be_had_later(here, capsys):
    run(capsys, "distill", "h.npy", "-o", "out", *ORDER, "-q")
    before = Path("out/model.safetensors").read_bytes()
    status, out, err = run(capsys, "distill", "h.npy", "-o", "out", *ORDER, "--report")
    assert (status, err) == (0, "")
    assert "out/report.html" in out.replace("\n", "")
    assert Path("out/report.html").read_text().startswith("<!doctype html>")
    assert Path("out/model.safetensors").read_bytes() == before


def test_a_page_that_fails_is_said_beside_results_that_stand(here, capsys, monkeypatch):
    from ssmid.jobs import run as job

    def fails(*_, **__):
        raise IndexError("no such place")

    with monkeypatch.context() as patched:
        patched.setattr(job, "write_page", fails)
        status, out, err = run(capsys, "distill", "h.npy", "-o", "out", *ORDER, "--report")
    assert (status, err) == (1, "")
    assert "report.html WAS NOT WRITTEN (IndexError: no such place). The results stand." in " ".join(out.split())
    assert "out/report.html" not in out.replace("\n", "")
    assert len(ssmid.load("out")) == 1  # pyright: ignore[reportArgumentType]
    assert run(capsys, "distill", "h.npy", "-o", "out", *ORDER, "--report", "-q") == (0, "", "")
    assert Path("out/report.html").exists()


def test_the_page_tells_how_far_it_is(here, monkeypatch):
    from ssmid.jobs.run import distill_into

    said: list[str] = []
    options = {"order": 3, "method": "balanced"}
    distill_into(here / "out", here / "model.safetensors", options, page=True, stage=lambda words, *_: said.append(words))
    assert said.count("reading what was distilled") == 2
    assert said.count("drawing filters") == 2


def test_one_of_several_processes_speaks_and_none_is_taken_to_have_failed(here, capsys, monkeypatch):
    """torchrun takes any status but 0 for a failure; interrupted, every process would say the same."""
    from ssmid.jobs import run as job
    from ssmid.report import Report

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(job, "distill_into", lambda *_, **__: (Report("h", words=["NOT CONVERGED: 1 of 2 filters."]), False))
    status, out, _ = run(capsys, "distill", "h.npy", "-o", "out", *ORDER)
    assert status == 0
    assert "NOT CONVERGED" in out

    def interrupted(*_, **__):
        raise KeyboardInterrupt("interrupted; go on")

    monkeypatch.setattr(job, "distill_into", interrupted)
    for rank, words in (("0", "ssmid: interrupted; go on\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert run(capsys, "distill", "h.npy", "-o", "out", *ORDER) == (130, "", words)


def test_it_can_be_started_as_a_module(here):
    done = subprocess.run([sys.executable, "-m", "ssmid", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ssmid.__version__
