"""``ssmid experiment``: from seed to table, gone on with, and refused where something is wrong."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ssmid import cli
from ssmid.experiments import experiment, run
from ssmid.experiments.copying_and_delay import copying_and_delay
from ssmid.experiments.experiment import Experiment, Measurement, Run
from ssmid.experiments.training import Configuration, loop
from ssmid.experiments.training.result import expect_result, write_result
from ssmid.jobs.store import only_here
from tests.experiments.toy_tasks import MODEL, Toy


@pytest.fixture
def small(monkeypatch) -> None:
    """An experiment of two runs that take no time, with the tables of Copying and Delay left out."""
    from ssmid.report.tables import Table

    def of_state(order: int) -> Run:
        return Run(f"toy/{order}", Toy(), Configuration(model={**MODEL, "order": order}, steps=4, batch=8), {"state": order})

    def tables(found):
        return [Table("Toy", ["state", "loss"], [[r.labels["state"], result["test"]["loss"]] for r, result in found])]

    def two(*, quick: bool = False) -> Experiment:
        return Experiment("small", (of_state(2), of_state(4)), tables)

    monkeypatch.setattr(run, "EXPERIMENTS", {"copying-and-delay": copying_and_delay, "small": two})


def test_from_the_command_line_to_json_and_on_where_it_was(small, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert cli.main(["experiment", "small", "steps=5", "task.length=8", "-o", str(out), "--only", "toy/2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == "1 of 2"
    trained = []
    train = experiment.train
    monkeypatch.setattr(experiment, "train", lambda *args, **more: trained.append(args[1].model["order"]) or train(*args, **more))
    before = (out / "toy" / "2" / "model.safetensors").stat().st_mtime_ns
    assert cli.main(["experiment", "small", "steps=5", "task.length=8", "-o", str(out)]) == 0
    assert trained == [2, 4]
    assert (out / "toy" / "2" / "model.safetensors").stat().st_mtime_ns == before, "what is done is not done again"
    found = json.loads((out / "small.json").read_text())
    assert [r["name"] for r in found["runs"]] == ["toy/2", "toy/4"]
    assert {r["configuration"]["steps"] for r in found["runs"]} == {r["result"]["steps"] for r in found["runs"]} == {5}
    assert found["runs"][0]["task"]["length"] == 8
    assert [row["loss"] for row in found["tables"]["Toy"]] == [r["result"]["test"]["loss"] for r in found["runs"]]
    assert (out / "curves-toy-token.png").exists()


def test_what_another_call_ends_while_this_one_writes_is_not_lost(small, tmp_path, monkeypatch):
    """Nor which machine it was on."""
    other = tmp_path / "other"
    monkeypatch.setattr(run, "_machine", lambda device: {"processor": "other"})
    run.run_experiment("small", other, only="toy/4")
    monkeypatch.setattr(run, "_machine", lambda device: {"processor": "this"})
    draw, ended = run._draw, other / "toy" / "4"

    def ended_meanwhile(folder, *rest):
        draw(folder, *rest)
        if ended.exists():
            ended.rename(folder / "toy" / "4")

    monkeypatch.setattr(run, "_draw", ended_meanwhile)
    run.run_experiment("small", tmp_path, only="toy/2")
    found = json.loads((tmp_path / "small.json").read_text())
    assert [(r["name"], r.get("machine")) for r in found["runs"]] == [("toy/2", None), ("toy/4", {"processor": "other"})]
    assert found["machine"] == {"processor": "this"}


def test_jobs_of_other_overrides_are_others_and_come_back_with_their_own(small, tmp_path, monkeypatch):
    def call(processor: str, only: str, *overrides: str) -> tuple[list[str], list[str], str]:
        monkeypatch.setattr(run, "_machine", lambda device: {"processor": processor})
        run.run_experiment("small", tmp_path, only=only, overrides=overrides)
        found = json.loads((tmp_path / "small.json").read_text())
        return found["overrides"], [job["name"] for job in found["runs"]], found["machine"]["processor"]

    assert call("A", "toy/2", "steps=5") == (["steps=5"], ["toy/2"], "A")
    assert call("B", "toy/4") == ([], ["toy/4"], "B")
    assert call("B", "toy/2", "steps=5") == (["steps=5"], ["toy/2"], "A"), "found done, on the machine that did it"


def test_results_from_before_a_key_was_known_are_those_of_its_default(small, tmp_path):
    run.run_experiment("small", tmp_path, only="toy/2")
    path = tmp_path / "toy" / "2" / "result.json"
    content = json.loads(path.read_text())
    assert content["identity"]["configuration"].pop("hankel_order") is None
    path.write_text(json.dumps(content))
    job = run.EXPERIMENTS["small"]().runs[0]
    assert experiment.result_of(job, tmp_path) == content["result"]
    assert experiment.result_of(job.with_overrides(["hankel_order=2"]), tmp_path) is None
    content["identity"]["configuration"]["rate"] = 0.5
    path.write_text(json.dumps(content))
    assert experiment.result_of(job, tmp_path) is None


def test_a_measurement_follows_its_trainings_and_is_kept(small, tmp_path, monkeypatch):
    asked = []

    def measure(weights, *, factor, device, stage):
        asked.append((weights / "model.safetensors").exists())
        return {"steps": json.loads((weights / "result.json").read_text())["result"]["steps"] * factor, "none": float("nan")}

    def measured(*, quick: bool = False) -> Experiment:
        runs = run.EXPERIMENTS["small"]().runs
        return Experiment("measured", (*runs, Measurement("toy/measured", measure, {}, runs[:1], {"factor": 10})), lambda found: [])

    monkeypatch.setitem(run.EXPERIMENTS, "measured", measured)
    with pytest.raises(ValueError, match="expected toy/2 trained"):
        run.run_experiment("measured", tmp_path, only="toy/m*")
    run.run_experiment("measured", tmp_path, only="toy/2")
    drawn = (tmp_path / "curves-toy-token.png").stat().st_mtime_ns
    run.run_experiment("measured", tmp_path, only="toy/m*")
    assert (tmp_path / "curves-toy-token.png").stat().st_mtime_ns == drawn, "a measurement changes no curve"
    run.run_experiment("measured", tmp_path, only="toy/m*,toy/4")
    assert (tmp_path / "curves-toy-token.png").stat().st_mtime_ns > drawn
    found = {r["name"]: r for r in json.loads((tmp_path / "measured.json").read_text())["runs"]}
    assert list(found) == ["toy/2", "toy/4", "toy/measured"], "all that is over, whichever call did it"
    assert found["toy/measured"]["result"] == {"steps": 40, "none": None}
    assert asked == [True], "what is done is not done again"
    run.run_experiment("measured", tmp_path / "other", overrides=["steps=5", "measure.factor=2"])
    found = {r["name"]: r for r in json.loads((tmp_path / "other" / "measured.json").read_text())["runs"]}
    assert found["toy/measured"]["result"]["steps"] == 10
    assert found["toy/2"]["curve"][-1]["step"] == 5


def test_a_measurement_is_called_with_what_it_takes(small, tmp_path, monkeypatch):
    def of_one(weights, *, task, model, here, device, stage):
        assert here.is_dir()
        return {"task": task.name, "order": model["order"], "of": weights.name, "here": here.name}

    def of_both(first, second, *, here, device, stage):
        return {"of": [first.name, second.name], "here": here.name}

    def of_none(first, second, *, task, device, stage):
        return {}

    def measured(*, quick: bool = False) -> Experiment:
        two, four = run.EXPERIMENTS["small"]().runs
        one = Measurement("toy/one", of_one, {}, (four,))
        both, none = (Measurement(f"toy/{name}", measure, {}, (two, four)) for name, measure in (("both", of_both), ("none", of_none)))
        return Experiment("measured", (two, four, one, both, none), lambda found: [])

    monkeypatch.setitem(run.EXPERIMENTS, "measured", measured)
    run.run_experiment("measured", tmp_path, only="toy/?,toy/one,toy/both")
    found = {r["name"]: r["result"] for r in json.loads((tmp_path / "measured.json").read_text())["runs"]}
    assert found["toy/one"] == {"task": "toy-token", "order": 4, "of": "4", "here": "one"}
    assert found["toy/both"] == {"of": ["2", "4"], "here": "both"}
    with pytest.raises(ValueError, match=r"measure\.task: expected a value, got none"):
        run.run_experiment("measured", tmp_path, only="toy/none")


def test_each_job_keeps_the_machine_that_did_it(small, tmp_path, monkeypatch):
    def call(processor: str, load: float, only: str, *overrides: str) -> tuple[str, dict[str, str]]:
        monkeypatch.setattr(run, "_machine", lambda device: {"processor": processor, "load": load})
        run.run_experiment("three", tmp_path, only=only, overrides=overrides)
        found = json.loads((tmp_path / "three.json").read_text())
        others = {job["name"]: job["machine"]["processor"] for job in found["runs"] if "machine" in job}
        return found["machine"]["processor"], others

    def three(*, quick: bool = False) -> Experiment:
        runs = run.EXPERIMENTS["small"]().runs
        return Experiment("three", (*runs, measurement), lambda found: [])

    measurement = Measurement("toy/measured", lambda *, value, device, stage: {"value": value}, {}, options={"value": 1})
    monkeypatch.setitem(run.EXPERIMENTS, "three", three)
    assert call("A", 1.0, "toy/4") == ("A", {})
    assert call("B", 1.0, "toy/2,toy/4") == ("B", {"toy/4": "A"}), "of as many the first; what was over is still another's"
    assert call("A", 2.0, "toy/measured") == ("A", {"toy/2": "B"}), "the load tells no machines apart"
    assert call("C", 1.0, "toy/*") == ("A", {"toy/2": "B"}), "who looks on did nothing"
    assert call("C", 1.0, "toy/*", "measure.value=2") == ("B", {"toy/4": "A", "toy/measured": "C"}), "what is done anew is of who does it"
    monkeypatch.setitem(run.EXPERIMENTS, "four", lambda quick: dataclasses.replace(three(), name="four"))
    run.run_experiment("four", tmp_path, only="toy/2")
    assert json.loads((tmp_path / "four.json").read_text())["machine"]["processor"] == "B", "another experiment finds that out too"
    for name in ("toy/2", "toy/4"):
        write_result(tmp_path / name, expect_result(tmp_path / name)._replace(machine=None))
    assert call("C", 1.0, "toy/*") == ("B", {"toy/4": "A", "toy/measured": "C"}), "before it was kept with results it was here alone"
    (tmp_path / "three.json").write_text("{}")
    with pytest.raises(ValueError, match=r"three\.json: expected JSON data, got a damaged"):
        call("C", 1.0, "toy/4")


@pytest.mark.parametrize("name", ["toy/2", "toy/measured"])
def test_a_kill_right_after_the_result_leaves_its_machine(name, small, tmp_path, monkeypatch):
    def writing(*arguments):
        write_result(*arguments)
        raise KeyboardInterrupt

    measurement = Measurement("toy/measured", lambda *, device, stage: {"value": 3}, {})
    both = Experiment("both", (*run.EXPERIMENTS["small"]().runs, measurement), lambda found: [])
    monkeypatch.setitem(run.EXPERIMENTS, "both", lambda quick: both)
    with monkeypatch.context() as patched:
        patched.setattr(run, "_machine", lambda device: {"processor": "A"})
        for module in (loop, experiment):
            patched.setattr(module, "write_result", writing)
        with pytest.raises(KeyboardInterrupt):
            run.run_experiment("both", tmp_path, only=name)
    monkeypatch.setattr(run, "_machine", lambda device: {"processor": "B"})
    run.run_experiment("both", tmp_path, only=name)
    assert json.loads((tmp_path / "both.json").read_text())["machine"] == {"processor": "A"}


def test_options_of_measurements_are_refused_before_anything_is_trained(small, tmp_path, monkeypatch):
    def measure(weights, *, factor: int, device, stage):
        return {"factor": factor}

    runs = run.EXPERIMENTS["small"]().runs
    job = Measurement("toy/measured", measure, {}, runs[:1], {"factor": 10})
    monkeypatch.setitem(run.EXPERIMENTS, "measured", lambda quick: Experiment("measured", (*runs, job), lambda found: []))
    wrong = {"factr=3": "factr: expected an option of the measurement, got an", "factor=x": "factor: expected a whole number, got 'x'"}
    for given, message in wrong.items():
        with pytest.raises(ValueError, match=rf"measure\.{message}"):
            run.run_experiment("measured", tmp_path, overrides=[f"measure.{given}"])
        assert not (tmp_path / "toy").exists()
    run.run_experiment("measured", tmp_path, only="toy/2", overrides=["measure.factr=3"])  # what is not chosen asks for nothing
    alone = dataclasses.replace(job, of=(), measure=lambda *, factor, device, stage: {})
    nothing = Experiment("nothing", (alone,), lambda found: [])
    with pytest.raises(ValueError, match=r"steps: expected a key that begins with measure\., as nothing is trained, got another"):
        nothing.with_overrides(["steps=1"])
    assert nothing.with_overrides(["measure.factor=1"]).runs[0].options == {"factor": 1}  # pyright: ignore[reportAttributeAccessIssue]


def test_what_a_label_says_is_not_overridden():
    one = Run("toy-0", Toy(), Configuration(model=MODEL, steps=4), {"model": "toy", "seed": 0})
    alone = Experiment("alone", (one,), lambda found: [])
    with pytest.raises(ValueError, match="seed: expected a key that all runs share, got one that tells them apart"):
        alone.with_overrides(["seed=1"])
    assert alone.with_overrides(["model.width=16", "task.seed=1"]).runs[0].name == "toy-0"


def test_no_override_makes_a_name_untrue():
    def measure(*, method, windows, device, stage):
        return {}

    configuration = Configuration(model=MODEL, steps=4)
    trained = [Run(f"toy/{length}", Toy(length=length), configuration, {"length": length}) for length in (8, 16)]
    windows = {"balanced": 3, "l2": 4}
    measured = [Measurement(f"toy/{x}", measure, {"method": x}, (), {"method": x, "windows": windows[x]}) for x in windows]
    both = Experiment("both", (*trained, *measured), lambda found: [])
    for given in ("task.length=12", "measure.method=l2"):
        with pytest.raises(ValueError, match=f"{given.partition('=')[0]}: expected a key that all runs share, got one that tells"):
            both.with_overrides([given])
    changed = both.with_overrides(["task.train=20", "measure.windows=5", 'model={"layer": "s4d"}'])
    assert [job.name for job in changed.runs] == [job.name for job in both.runs]
    assert [job.options["windows"] for job in changed.runs if isinstance(job, Measurement)] == [5, 5]
    assert {job.configuration.model["layer"] for job in changed.runs if isinstance(job, Run)} == {"s4d"}


@pytest.mark.parametrize("name", ["toy/2", "toy/measured"])
def test_a_job_at_work_is_not_done_by_a_second_call(name, small, tmp_path, monkeypatch):
    """Another open file has the lock, as another process would; where the job is over by then, the second call gives its result."""
    asked = []

    def measure(*, device, stage):
        asked.append(device)
        return {"value": 3}

    def measured(*, quick: bool = False) -> Experiment:
        return Experiment("measured", (*run.EXPERIMENTS["small"]().runs, Measurement("toy/measured", measure, {})), lambda found: [])

    monkeypatch.setitem(run.EXPERIMENTS, "measured", measured)
    with only_here(tmp_path / name), pytest.raises(ValueError, match=f"{name}: expected a folder that no other job works in, got one"):
        run.run_experiment("measured", tmp_path, only=name)
    assert not asked
    first, again = (run.run_experiment("measured", tmp_path, only=name) for _ in range(2))
    assert first == again
    assert len(asked) == (name == "toy/measured")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["larger"], "experiment: expected one of copying-and-delay, small, got 'larger'"),
        (["small", "stepz=3"], "stepz: expected a key of a configuration, got an unknown one; did you mean steps?"),
        (["small", "task.lenght=3"], "task.lenght: expected a key of the task toy-token, got an unknown one; did you mean task.length?"),
        (["small", "model.order=3"], "model.order: expected a key that all runs share, got one that tells them apart"),
        (["small", "model={}"], "model: expected a key that all runs share, got one that tells them apart"),
        (["small", "measure.x=3"], "measure: expected a key of a configuration, got an unknown one"),
        (["small", "task.length=long"], "task.length: expected a whole number, got 'long'"),
        (["small", "task.fresh=3"], "task.fresh: expected true or false, got 3"),
        (["small", "task.held_out=0"], "task: expected examples in every split, got none of toy-token in valid, test"),
        (["small", "--only", "toy/3"], "only: expected a pattern of toy/2, toy/4, got 'toy/3'"),
        (["small", "--only", "toy/2,toy/5,toy/*"], "only: expected a pattern of toy/2, toy/4, got 'toy/5'"),
        (["small", "--device", "tpu"], "device: expected 'cpu' or 'cuda', got 'tpu'"),
    ],
)
def test_wrong_input_is_one_line(small, arguments, message, tmp_path, capsys):
    assert cli.main(["experiment", *arguments, "-o", str(tmp_path / "out")]) == cli.WRONG_INPUT
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "small.json").exists()
