"""The command line: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.io.wavfile
import scipy.signal

import ssmid
from ssmid.cli import main
from ssmid.report.methods import METHODS, MODEL, RECORD, SAMPLES, TAPS

DECAY = np.concatenate([[0.25], 0.9 ** np.arange(200) * np.cos(0.5 * np.arange(200)) + 0.3 * (-0.6) ** np.arange(200)])


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder of its own to work in, with a response, a bank and a model."""
    monkeypatch.chdir(tmp_path)
    np.save("h.npy", DECAY)
    np.save("bank.npy", np.stack([DECAY, 0.5 * DECAY[::-1] * 0.98 ** np.arange(201), 0.7 ** np.arange(201)]))
    scipy.io.wavfile.write("stereo.wav", 8000, (2**14 * np.stack([DECAY, 0.5 * DECAY], axis=1)).astype(np.int16))
    ssmid.save(ssmid.zpk(*scipy.signal.butter(4, 0.2, output="zpk"), dt=1 / 8000), "butter.json")
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def same(a: ssmid.System, b: ssmid.System) -> bool:
    pairs = [(a.arrays[name], b.arrays[name]) for name in a.arrays]
    return type(a) is type(b) and a.dt == b.dt and all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


# ---------------------------------------------------------------- fit


@pytest.mark.parametrize("method", ["balanced", "era"])
def test_fit_writes_a_model_twice_a_report_and_prints_what_it_wrote(here, capsys, method):
    status, out, err = run(capsys, "fit", "h.npy", "--order", "3", "--method", method, "--fs", "1000", "-o", "out", "--no-figures")
    assert (status, err) == (0, "")
    assert sorted(p.name for p in (here / "out").iterdir()) == ["model.json", "model.safetensors", "report.json"]
    model = ssmid.load("out/model.safetensors")
    assert same(model, ssmid.load("out/model.json"))
    assert model.dt == 1e-3
    np.testing.assert_allclose(ssmid.impulse_response(model, 201).arrays["taps"], DECAY, atol=1e-6)
    for path in ("out/model.safetensors", "out/model.json", "out/report.json"):
        assert path in out
    assert "times the best" in out or "exact to rounding" in out
    assert ssmid.io.metadata("out/model.json")["order"] == [3]


def test_json_is_the_report_file_and_the_only_output(here, capsys):
    status, out, err = run(capsys, "fit", "h.npy", "--order", "2", "-o", "out", "--json", "--no-figures")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report == json.loads(Path("out/report.json").read_text())
    assert report["errors"][0]["order"] == 2
    assert report["errors"][0]["times_best"] >= 1 - 1e-9
    assert 0 < report["errors"][0]["relative_l2_error"] < 1


def test_quiet_says_nothing(here, capsys):
    assert run(capsys, "fit", "h.npy", "--order", "2", "-o", "out", "--quiet", "--no-figures") == (0, "", "")
    assert Path("out/model.json").exists()


def test_a_tolerance_is_met_by_the_smallest_order(here, capsys):
    status, out, _ = run(capsys, "fit", "h.npy", "--tol", "0.1", "-o", "out", "--json", "--no-figures")
    (row,) = json.loads(out)["errors"]
    assert status == 0
    assert row["relative_l2_error"] <= 0.1
    smaller = ssmid.balanced_truncation(ssmid.ImpulseResponse(DECAY), row["order"] - 1)
    assert float(smaller.error) > 0.1


def test_figures_are_drawn_and_named(here, capsys):
    status, out, _ = run(capsys, "fit", "bank.npy", "--order", "3", "-o", "out")
    drawn = sorted(Path("out").glob("*.png"))
    assert status == 0
    assert len(drawn) >= 3
    for path in drawn:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.name in out.replace("\n", "")


def test_the_default_folder_is_named_after_the_file(here, capsys):
    assert run(capsys, "fit", "h.npy", "--order", "2", "-q", "--no-figures")[0] == 0
    assert Path("h-model/model.safetensors").exists()


def test_several_channels_are_a_bank_and_one_can_be_chosen(here, capsys):
    run(capsys, "fit", "stereo.wav", "--order", "3", "-o", "both", "-q", "--no-figures")
    run(capsys, "fit", "stereo.wav", "--order", "3", "-o", "right", "-q", "--no-figures", "--channel", "1")
    both, right = ssmid.load("both/model.json"), ssmid.load("right/model.json")
    assert (both.batch_shape, right.batch_shape) == ((2,), ())
    np.testing.assert_allclose(
        ssmid.impulse_response(both, 50).arrays["taps"][1], ssmid.impulse_response(right, 50).arrays["taps"], atol=1e-12
    )


def test_mimo_couples_outputs_and_inputs(here, capsys):
    h = np.stack([[DECAY, 2 * DECAY], [DECAY, -DECAY]])
    np.save("mimo.npy", h)
    status, _, err = run(capsys, "fit", "mimo.npy", "--order", "6", "--mimo", "-o", "out", "-q")
    model = ssmid.load("out/model.json")
    assert (status, err) == (0, "")
    assert isinstance(model, ssmid.StateSpace)
    assert (model.order, model.outputs, model.inputs, model.batch_shape) == (6, 2, 2, ())
    np.testing.assert_allclose(ssmid.impulse_response(model, 201).taps, h, atol=1e-6)


def test_a_large_continuous_model_is_reduced(here, capsys):
    poles = -np.logspace(0, 2, 12)
    scipy.io.savemat("plant.mat", {"A": np.diag(poles), "B": np.ones((12, 1)), "C": np.ones((1, 12))})
    status, out, _ = run(capsys, "fit", "plant.mat", "--order", "4", "-o", "out", "--json")
    model = ssmid.load("out/model.json")
    assert status == 0
    assert model.dt == 0
    (row,) = json.loads(out)["errors"]
    assert row["best_possible"] * (1 - 1e-9) <= row["hankel_error"] <= row["bound"] * (1 + 1e-9)


def test_silence_is_order_0_and_no_error(here, capsys):
    np.save("zero.npy", np.zeros(50))
    status, out, err = run(capsys, "fit", "zero.npy", "--order", "3", "-o", "out")
    assert (status, err) == (0, "")
    assert "order 0 holds it exactly" in out


def test_one_bad_channel_is_named_and_the_status_is_1(here, capsys):
    bank = np.load("bank.npy")
    bank[1, 5] = np.nan
    np.save("bad.npy", bank)
    status, out, err = run(capsys, "fit", "bad.npy", "--order", "3", "-o", "out")
    assert (status, err) == (1, "")
    assert "1 of 3 channels failed or have not converged: 1. The others stand." in out
    taps = ssmid.impulse_response(ssmid.load("out/model.safetensors"), 201).arrays["taps"]
    np.testing.assert_allclose(taps[0], bank[0], atol=1e-6)


def test_a_tolerance_out_of_reach_is_status_1(here, capsys):
    status, out, _ = run(capsys, "fit", "h.npy", "--tol", "1e-30", "-o", "out", "--no-figures")
    assert status == 1
    assert "The tolerance 1e-30 is not met" in out


TAPS_METHODS = [name for name, m in METHODS.items() if TAPS in m.takes and SAMPLES not in m.takes]


@pytest.mark.parametrize("method", TAPS_METHODS)
def test_every_method_fits_taps_of_three_modes(here, capsys, method):
    status, out, err = run(capsys, "fit", "h.npy", "--order", "3", "--method", method, "-o", "out", "--no-figures", "--json")
    assert (status, err) == (0, "")
    model = ssmid.to_state_space(ssmid.load("out/model.safetensors"))
    assert model.order == 3
    np.testing.assert_allclose(np.ravel(ssmid.impulse_response(model, 201).taps), DECAY, atol=1e-5, err_msg=out)


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if SAMPLES in m.takes])
def test_every_method_fits_a_network(here, capsys, method):
    """Through its file; the model meets every value."""
    s = 2j * np.pi * np.linspace(1e8, 2e9, 60)
    upper = 2 * np.pi * np.array([-0.05 + 0.6j, -0.03 + 1.4j]) * 1e9
    values = np.sum([r / (s - p) + np.conj(r) / (s - p.conjugate()) for r, p in zip([2e8, -1e8 + 1e8j], upper, strict=True)], 0) + 0.1
    rows = "\n".join(f"{f:.17g} {v.real:.17g} {v.imag:.17g}" for f, v in zip(s.imag / (2 * np.pi), values, strict=True))
    Path("ring.s1p").write_text(f"# Hz S RI R 50\n{rows}\n")
    status, out, err = run(capsys, "fit", "ring.s1p", "--order", "4", "--method", method, "-o", "out")
    assert (status, err) == (0, ""), out
    model = ssmid.load("out/model.safetensors")
    fitted = ssmid.frequency_response(model, s.imag).values
    np.testing.assert_allclose(np.ravel(fitted), values, atol=1e-8 * np.abs(values).max())
    assert (here / "out" / "spectrum.png").stat().st_size > 10_000
    assert "Stable, real" in out


def test_taps_go_to_methods_of_the_frequency_domain_as_their_spectrum(here, capsys):
    """A response that has died away: the FFT grid samples its transfer function."""
    status, _, err = run(capsys, "fit", "h.npy", "--order", "3", "--method", "vector-fitting", "-o", "out", "-q", "--no-figures")
    assert (status, err) == (0, "")
    np.testing.assert_allclose(ssmid.impulse_response(ssmid.load("out/model.safetensors"), 201).taps, DECAY, atol=1e-6)


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if RECORD in m.takes])
def test_every_method_fits_a_record_and_tests_it_on_the_rest(here, capsys, method):
    record = ssmid.datasets.flexible_arm(400, noise=0.0)
    table = np.stack([np.arange(400) * record.dt, record.inputs[0], record.outputs[0]], 1)
    np.savetxt("arm.csv", table, delimiter=",", header="time,torque,acceleration", comments="", fmt="%.17g")
    columns = ("--inputs", "torque", "--outputs", "acceleration")
    status, out, err = run(capsys, "fit", "arm.csv", *columns, "--order", "4", "--method", method, "--center", "none", "-o", "out")
    assert (status, err) == (0, ""), out
    report = json.loads(Path("out/report.json").read_text())
    assert report["taken_off"] == "nothing"
    (row,) = report["fit_on_data_not_trained_on_in_percent"]
    assert row["free_simulation"] > 99.9
    assert {"simulation.png", "residuals.png", "poles.png"} <= {p.name for p in (here / "out").iterdir()}


def test_a_record_says_what_was_held_out_and_of_several_outputs_the_worst(here, capsys):
    rng = np.random.default_rng(0)
    u = rng.standard_normal((2, 300))
    y = ssmid.simulate(ssmid.ss(np.diag([0.5, -0.7, 0.9]), rng.standard_normal((3, 2)), rng.standard_normal((2, 3))), u)
    y += 0.01 * rng.standard_normal(y.shape)
    y[1] += 0.5 * rng.standard_normal(300)
    np.save("pairs.npy", np.concatenate([u, y + 5]))
    asked = ("fit", "pairs.npy", "--inputs", "0,1", "--outputs", "2,3", "--method", "n4sid", "--order", "3", "--fs", "4", "-o", "out")
    status, out, err = run(capsys, *asked, "--train", "0.6", "--center", "mean", "--stable")
    assert (status, err) == (0, ""), out
    report = json.loads(Path("out/report.json").read_text())
    assert (report["fitted_to"], report["held_out"]) == ("samples 0 to 179", "samples 180 to 299")
    assert (report["inputs"], report["sample_time_s"], report["taken_off"]) == (2, 0.25, "mean")
    free = [row["free_simulation"] for row in report["fit_on_data_not_trained_on_in_percent"]]
    assert free[0] > 97 > free[1]
    assert f"Of the worst output: fit {free[1]:.4g} % in free simulation" in " ".join(out.split())
    drawn = {p.name for p in (here / "out").glob("*.png")}
    assert {"simulation_0.png", "simulation_1.png", "residuals_0.png", "residuals_1.png"} <= drawn
    _, out, _ = run(capsys, *asked, "--train", "1")
    report = json.loads(Path("out/report.json").read_text())
    assert (report["fitted_to"], report["held_out"]) == ("samples 0 to 299", "nothing")


@pytest.mark.parametrize("method", ["era", "esprit", "n4sid"])
def test_unstable_models_are_said_loudly_and_stable_ones_can_be_asked_for(here, capsys, method):
    """Taps that grow; a record of the same system."""
    growing = ssmid.ss([[1.02]], [[1.0]], [[1.0]])
    np.save("up.npy", ssmid.impulse_response(growing, 60).taps.ravel())
    u = np.random.default_rng(0).standard_normal((1, 200))
    np.save("record.npy", np.concatenate([u, ssmid.simulate(growing, u)]))
    data = ("record.npy", "--inputs", "0", "--outputs", "1") if method == "n4sid" else ("up.npy",)
    asked = ("fit", *data, "--method", method, "--order", "1", "-o", "out", "--no-figures")
    status, out, _ = run(capsys, *asked)
    assert status == 1
    assert "UNSTABLE: The model is unstable" in out
    run(capsys, *asked, "--stable")
    assert bool(ssmid.is_stable(ssmid.load("out/model.json")).all())


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if MODEL in m.takes])
def test_every_method_reduces_a_model(here, capsys, method):
    status, out, err = run(capsys, "fit", "butter.json", "--method", method, "--order", "3", "-o", "out", "--json", "--no-figures")
    assert (status, err) == (0, ""), out
    model = ssmid.load("out/model.safetensors")
    (row,) = json.loads(out)["errors"]
    assert row["order"] == ssmid.to_state_space(model).order in (2, 3), "a pair of poles stays whole"
    left = ssmid.subtract(ssmid.load("butter.json"), model)
    assert row["hankel_error"] == pytest.approx(float(np.squeeze(ssmid.norm(left, "hankel"))), rel=1e-6)
    assert row["times_best"] >= 1 - 1e-9


def test_an_unstable_original_keeps_its_poles_and_the_status_is_0(here, capsys):
    ssmid.save(ssmid.ss(np.diag([1.1, 0.9, 0.1]), np.ones((3, 1)), np.ones((1, 3))), "plant.json")
    status, out, err = run(capsys, "fit", "plant.json", "--order", "2", "-o", "out", "--no-figures")
    assert (status, err) == (0, "")
    assert "its unstable poles are kept" in " ".join(out.split()) or "The unstable poles are kept" in " ".join(out.split())


def test_channels_of_one_axis_are_coupled_as_outputs(here, capsys):
    assert run(capsys, "fit", "stereo.wav", "--order", "3", "--mimo", "-o", "out", "-q", "--no-figures") == (0, "", "")
    model = ssmid.load("out/model.json")
    assert isinstance(model, ssmid.StateSpace)
    assert (model.outputs, model.inputs, model.batch_shape) == (2, 1, ())


def test_a_continuous_feedthrough_leaves_no_l2_error_but_a_model_and_figures(here, capsys):
    poles = -np.logspace(0, 2, 6)
    scipy.io.savemat("plant.mat", {"A": np.diag(poles), "B": np.ones((6, 1)), "C": np.ones((1, 6)), "D": np.ones((1, 1))})
    status, out, _ = run(capsys, "fit", "plant.mat", "--order", "2", "--method", "hankel", "-o", "out")
    assert status == 0
    assert "there is no relative l2 error" in " ".join(out.split())
    assert (here / "out" / "hankel.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h.npy", "--order", "2", "--center", "mean"), "--center: expected a record"),
        (("bank.npy", "--inputs", "0", "--outputs", "1", "--center", "sum"), "--center: expected none, mean or trend, got 'sum'"),
        (("h.npy", "--method", "n4sid", "--order", "3"), "method n4sid: expected a record .* got an impulse response"),
        (("h.npy", "--method", "magic", "--order", "3"), "method: expected one of balanced, .* got 'magic'"),
        (("h.npy",), "method balanced: expected --order or --tol, got neither"),
        (("h.npy", "--method", "esprit", "--tol", "0.1"), "method esprit: expected --order, got --tol"),
        (("h.npy", "--inputs", "0"), "--outputs: expected the channels"),
        (("bank.npy", "--inputs", "0", "--outputs", "1", "--train", "0"), "train: expected a share"),
        (("butter.json", "--method", "irka", "--order", "2", "--mimo"), "method irka: it fits each channel"),
    ],
)
def test_fit_says_which_data_a_method_takes(here, capsys, arguments, message):
    status, _, err = run(capsys, "fit", *arguments)
    assert status == 2
    assert re.search(message, err), err


# ---------------------------------------------------------------- inspect, convert, the rest


def test_inspect_a_response(here, capsys):
    status, out, err = run(capsys, "inspect", "h.npy", "--fs", "1000", "--count", "6")
    assert (status, err) == (0, "")
    for piece in ("sampling frequency (Hz)", "1000", "Hankel singular values", "Order to choose", "Spectrum"):
        assert piece in out
    status, out, err = run(capsys, "inspect", "h.npy", "--count", "6", "--json")
    assert [row["order"] for row in json.loads(out)["order_to_choose"]][-1] == "3"


def test_inspect_models_and_frequency_data(here, capsys):
    status, out, _ = run(capsys, "inspect", "butter.json", "--json")
    content = json.loads(out)
    assert (status, content["stable"], len(content["poles_slowest_first"])) == (0, True, 2)
    assert content["spectrum"][0]["gain_at_0_hz"] == pytest.approx(1.0)
    Path("x.s1p").write_text("# Hz S RI\n1 0.5 0\n2 0.25 0\n")
    status, out, _ = run(capsys, "inspect", "x.s1p", "--json")
    assert (status, json.loads(out)["spectrum"][0]["peak_gain"]) == (0, 0.5)


FORMS = {
    "modal": ssmid.Modal, "companion": ssmid.StateSpace, "transfer-function": ssmid.TransferFunction, "zpk": ssmid.ZerosPolesGain,
    "sos": ssmid.SecondOrderSections, "state-space": ssmid.StateSpace, "balanced": ssmid.StateSpace,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_convert_to_every_form_keeps_the_response(here, capsys, form, suffix):
    status, out, err = run(capsys, "convert", "butter.json", f"out.{suffix}", "--to", form)
    assert (status, err) == (0, "")
    converted = ssmid.load(f"out.{suffix}")
    assert type(converted) is FORMS[form]
    assert converted.dt == 1 / 8000
    expected = scipy.signal.sosfilt(scipy.signal.butter(4, 0.2, output="sos"), np.eye(1, 100)[0])
    np.testing.assert_allclose(ssmid.impulse_response(converted, 100).arrays["taps"], expected, atol=1e-10)
    assert "from" in out


def test_convert_to_responses(here, capsys):
    assert run(capsys, "convert", "butter.json", "h.json", "--to", "impulse-response", "--length", "64", "-q") == (0, "", "")
    assert run(capsys, "convert", "h.json", "f.json", "--to", "frequency-response", "-q") == (0, "", "")
    taps, spectrum = ssmid.load("h.json").arrays["taps"], ssmid.load("f.json")
    np.testing.assert_allclose(spectrum.arrays["values"], np.fft.rfft(taps), atol=1e-12)
    np.testing.assert_allclose(spectrum.arrays["omega"], 2 * np.pi * np.fft.rfftfreq(64, 1 / 8000), rtol=1e-12)


def test_demo_fills_the_folder_it_names(here, capsys, monkeypatch):
    """On smaller data than the bundled ones, which CI runs through the README's command."""
    filters = ssmid.datasets.hyena_filters()
    monkeypatch.setattr("ssmid.datasets.hyena_filters", lambda: ssmid.ImpulseResponse(filters.taps[:5, :200], filters.dt))
    monkeypatch.setattr("ssmid.datasets.room", lambda **_: ssmid.ImpulseResponse(DECAY, 1e-3))
    monkeypatch.setattr("ssmid.demo.ROOM_ORDER", 3)
    status, out, err = run(capsys, "demo", "-o", "there")
    assert (status, err) == (0, "")
    assert "there" in out
    for part in ("room", "filters"):
        assert {"model.json", "model.safetensors", "report.json"} < {p.name for p in Path("there", part).iterdir()}
        assert list(Path("there", part).glob("*.png"))
    assert "greedy text equal for" in out
    assert ssmid.load_model("there/multihyena.safetensors").configuration["mixer"] == "multihyena"


def test_version_and_help(here, capsys):
    assert run(capsys, "--version") == (0, f"{ssmid.__version__}\n", "")
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for command in ("inspect", "fit", "convert", "demo", "bench"):
        assert command in out


def test_help_names_every_experiment(monkeypatch, capsys):
    from ssmid.experiments.run import EXPERIMENTS

    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = run(capsys, "experiment", "--help")
    assert [name for name in EXPERIMENTS if name not in out] == []


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from ssmid.cli import main; main(['fit', '--help']);"
        "print(sorted({'numpy', 'scipy', 'torch', 'matplotlib', 'sympy', 'control'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_is_130(here, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ssmid.io.read", interrupt)
    status, out, err = run(capsys, "inspect", "h.npy")
    assert (status, out) == (130, "")
    assert err in ("", "ssmid: interrupted\n")


def test_a_fault_of_ours_is_not_called_wrong_input(here, monkeypatch):
    def fault(*_, **__):
        raise TypeError("unsupported operand")

    monkeypatch.setattr("ssmid.io.read", fault)
    with pytest.raises(TypeError, match="unsupported operand"):
        main(["inspect", "h.npy"])


def test_a_reader_that_goes_away_is_no_error(here):
    code = "import sys; from ssmid.cli import main; sys.exit(main(['inspect', 'bank.npy', '--json']))"
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    errors = program.stderr.read()
    assert (program.wait(60), errors) == (0, b"")
    program.stderr.close()
