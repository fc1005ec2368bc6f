"""Killed at any step and started again a training ends with the same bytes; several processes give what one gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ssmid.experiments.models import model_of
from ssmid.experiments.training import Configuration, train
from ssmid.experiments.training.checkpoint import load_weights
from ssmid.experiments.training.log import read
from ssmid.experiments.training.result import Outcome, write_result
from tests.experiments.toy_tasks import MODEL, Toy

TASK = Toy(train=20, fresh=True)
DROPPING = {**MODEL, "dropout": 0.3, "norm": "batch"}
CONFIGURATION = Configuration(
    model=DROPPING, steps=12, batch=8, rate=0.02, warmup=3, clip=1.0, checkpoint_every=4, log_every=3, evaluate_every=6, keep="best"
)
SCRIPT = """
import os, signal, sys
from pathlib import Path
from ssmid.experiments.training import loop
from ssmid.jobs.workers import device_of, workers
from tests.experiments.{module} import CONFIGURATION, TASK, RAGGED, together
die, device = int(sys.argv[2]), device_of(sys.argv[3])
update = loop._Trainer._update
def dying(self, batch):
    if self.step == die:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, batch)
loop._Trainer._update = dying
with workers(device) as team:
    job = (TASK, CONFIGURATION) if team.count == 1 else (RAGGED, together(sys.argv[3]))
    loop.train(*job, Path(sys.argv[1]), device=device, team=team)
"""
RAGGED = Toy(ragged=True, held_out=9)


def together(device: str) -> Configuration:
    """Batch norms are shared by processes on GPUs alone."""
    model = MODEL if device == "cpu" else {**MODEL, "norm": "batch"}
    return Configuration(model=model, steps=10, batch=8, rate=0.02, log_every=1, evaluate_every=5, precision="float64", clip=0.5)


@pytest.fixture(autouse=True)
def without_figures(monkeypatch) -> None:
    """Which take longer than these trainings."""
    monkeypatch.setattr("ssmid.experiments.training.log.Log.draw", lambda log, *, last: None)


def command(*arguments: str) -> list[str]:
    script = SCRIPT.format(module=Path(__file__).stem)
    return [sys.executable, "-c", script, *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}


def outcome(folder: Path) -> tuple:
    lines = [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in read(folder / "log.jsonl")]
    result = json.loads((folder / "result.json").read_text())["result"]
    return (folder / "model.safetensors").read_bytes(), lines, result["valid"], result["test"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple:
    """What an undisturbed training leaves."""
    folder = tmp_path_factory.mktemp("whole")
    train(TASK, CONFIGURATION, folder)
    return outcome(folder)


def test_killed_and_resumed_it_ends_with_the_same_bits(whole, tmp_path):
    """By kill -9: before the first checkpoint, and between two, where a line of the log was half summed."""
    for step, found in ((3, False), (11, True)):
        process = subprocess.run(command(str(tmp_path), str(step), "cpu"), env=environment(), capture_output=True, check=False)
        assert process.returncode == -signal.SIGKILL, process.stderr.decode()
        assert (tmp_path / "checkpoint.safetensors").exists() == found
        assert not (tmp_path / "result.json").exists()
    train(TASK, CONFIGURATION, tmp_path)
    assert outcome(tmp_path) == whole


@pytest.mark.parametrize("step", range(1, 12))
def test_stopped_before_any_step_it_ends_with_the_same_bits(step, whole, tmp_path, monkeypatch):
    from ssmid.experiments.training import loop

    update = loop._Trainer._update

    def stopping(self, batch):
        if self.step == step:
            raise KeyboardInterrupt
        return update(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(loop._Trainer, "_update", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(TASK, CONFIGURATION, tmp_path)
    train(TASK, CONFIGURATION, tmp_path)
    assert outcome(tmp_path) == whole


def test_dropout_and_order_of_data_are_no_constants(whole, tmp_path):
    """What the tests above could not tell from a stream that is not there."""
    torch.manual_seed(1)
    for name, changes in {"seed": {"seed": 1}, "dropout": {"model": {**DROPPING, "dropout": 0.0}}}.items():
        values = {**CONFIGURATION.as_dict(), **changes}
        train(TASK, Configuration.of(values), tmp_path / name)
        assert outcome(tmp_path / name)[1] != whole[1]


def test_what_is_done_is_given_back_and_another_training_refused(tmp_path):
    first = train(TASK, CONFIGURATION, tmp_path)
    before = outcome(tmp_path)
    assert train(TASK, CONFIGURATION, tmp_path) == first
    assert outcome(tmp_path) == before
    other = Configuration.of({**CONFIGURATION.as_dict(), "rate": 0.01})
    with pytest.raises(ValueError, match=r"expected a new folder or one of this training, got rate 0.02 there, 0.01 here"):
        train(TASK, other, tmp_path)
    with pytest.raises(ValueError, match="task length 12 there, 16 here"):
        train(Toy(train=20, fresh=True, length=16), CONFIGURATION, tmp_path)


def stopped_after_a_checkpoint(folder: Path, configuration: Configuration, monkeypatch) -> None:
    from ssmid.experiments.training import checkpoint

    def saving(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    save = checkpoint.save
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", saving)
        with pytest.raises(KeyboardInterrupt):
            train(TASK, configuration, folder)


def test_a_checkpoint_of_another_model_is_refused_before_its_weights_are_read(tmp_path, monkeypatch):
    stopped_after_a_checkpoint(tmp_path, CONFIGURATION, monkeypatch)
    wider = Configuration.of({**CONFIGURATION.as_dict(), "model": {**DROPPING, "width": 16}})
    with pytest.raises(ValueError, match=r"expected a new folder or one of this training, got model \{.*'width': 8,.* there, \{.*16"):
        train(TASK, wider, tmp_path)


def test_what_a_kill_leaves_half_written_is_taken_away(whole, tmp_path, monkeypatch):
    """In the middle of a log and a figure, and after the result, before the checkpoint was taken away."""
    stopped_after_a_checkpoint(tmp_path, CONFIGURATION, monkeypatch)
    left = (tmp_path / "checkpoint.safetensors").read_bytes()
    for name in (".log.0a1b2c3d.jsonl", ".curves.0a1b2c3d.png", ".best-6.0a1b2c3d.safetensors"):
        (tmp_path / name).write_bytes(b"half")
    train(TASK, CONFIGURATION, tmp_path)
    names = {".lock", "log.jsonl", "model.safetensors", "result.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    (tmp_path / "checkpoint.safetensors").write_bytes(left)
    (tmp_path / "best-6.safetensors").write_bytes(left)
    train(TASK, CONFIGURATION, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names
    assert outcome(tmp_path) == whole


def test_a_full_disk_is_said_in_one_line_and_the_training_goes_on_from_what_is_there(whole, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    from ssmid.experiments.training import checkpoint

    def on_a_full_disk(*arguments):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
        try:
            save(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    save = checkpoint.save
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", on_a_full_disk)
        with pytest.raises(OSError, match=r"checkpoint\.safetensors: .*(too large|space)"):
            train(TASK, CONFIGURATION, tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()
    train(TASK, CONFIGURATION, tmp_path)
    assert outcome(tmp_path) == whole


def test_a_folder_of_a_measurement_is_no_folder_of_a_training(tmp_path):
    write_result(tmp_path, Outcome({"of": {}, "options": {}}, {"value": 3}))
    with pytest.raises(ValueError, match="expected a new folder or one of this training, got one of another job, with of, options"):
        train(TASK, CONFIGURATION, tmp_path)


def test_weights_of_another_model_are_refused_in_one_line(tmp_path):
    train(TASK, Configuration.of({**CONFIGURATION.as_dict(), "steps": 4}), tmp_path / "first")
    wider = Configuration.of({**CONFIGURATION.as_dict(), "model": {**DROPPING, "width": 16}})
    weights = tmp_path / "first" / "model.safetensors"
    message = r"model.safetensors: expected the tensors of this model, got encoder.weight \(5, 8\) in place of \(5, 16\), .* and \d+ more$"
    with pytest.raises(ValueError, match=message):
        train(TASK, wider, tmp_path / "wider", start=weights)
    save_file({name: x for name, x in load_file(weights).items() if name != "head.bias"}, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"got head.bias none in place of \(5,\)$"):
        load_weights(tmp_path / "less.safetensors", model_of(TASK, DROPPING))


def test_frozen_parameters_have_no_moments_and_are_gone_on_without(tmp_path, monkeypatch):
    """The encoder keeps its first weights; stopped at a checkpoint, the training ends with the same bits."""
    from ssmid.experiments.training import loop

    def frozen(task, options):
        model = model_of(task, options)
        model.encoder.requires_grad_(False)
        return model

    monkeypatch.setattr(loop, "model_of", frozen)
    train(TASK, CONFIGURATION, tmp_path / "whole")
    stopped_after_a_checkpoint(tmp_path / "stopped", CONFIGURATION, monkeypatch)
    train(TASK, CONFIGURATION, tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_stopped_between_better_weights_and_the_checkpoint_figures_are_those_of_the_weights(tmp_path, monkeypatch):
    """What is evaluated again need not come out the same on a GPU: here it is no better than what the checkpoint knows."""
    from ssmid.experiments.training import checkpoint, loop

    accuracy, weights, save = {2: 0.8, 4: 0.9}, {}, checkpoint.save

    def measured(trainer, split):
        weights[split, trainer.step] = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        return {"loss": 0.1, "accuracy": accuracy.get(trainer.step, 0.5)}

    def stopping(path, model, optimizer, sums, facts):
        if accuracy.get(facts["step"]) == 0.9:
            raise KeyboardInterrupt
        save(path, model, optimizer, sums, facts)

    monkeypatch.setattr(loop._Trainer, "_measured", measured)
    monkeypatch.setattr(checkpoint, "save", stopping)
    often = Configuration.of({**CONFIGURATION.as_dict(), "steps": 6, "evaluate_every": 2, "checkpoint_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train(TASK, often, tmp_path)
    accuracy[4] = 0.7
    assert train(TASK, often, tmp_path)["valid"] == {"step": 2, "loss": 0.1, "accuracy": 0.8}
    kept = load_file(tmp_path / "model.safetensors")
    for name, tensor in weights["valid", 2].items():
        assert torch.equal(kept[name], tensor), name
        assert torch.equal(weights["test", 6][name], tensor), name
    assert not list(tmp_path.glob("best-*")), "what was kept on the way is taken away"


def test_best_weights_that_are_not_there_are_no_best(tmp_path, monkeypatch):
    """As of a checkpoint of an older version, which kept them under another name."""
    from ssmid.experiments.training import loop

    def stopping(trainer, batch):
        if trainer.step == 4:
            raise KeyboardInterrupt
        return update(trainer, batch)

    update = loop._Trainer._update
    often = Configuration.of({**CONFIGURATION.as_dict(), "steps": 6, "evaluate_every": 2, "checkpoint_every": 2})
    with monkeypatch.context() as patched:
        patched.setattr(loop._Trainer, "_measured", lambda trainer, split: {"loss": 0.1, "accuracy": 0.9 - 0.1 * trainer.step})
        patched.setattr(loop._Trainer, "_update", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(TASK, often, tmp_path)
        assert [path.name for path in tmp_path.glob("best-*")] == ["best-2.safetensors"]
        (tmp_path / "best-2.safetensors").unlink()
        patched.setattr(loop._Trainer, "_update", update)
        assert train(TASK, often, tmp_path)["valid"]["step"] == 6


def test_a_checkpoint_from_before_evaluations_were_counted_is_gone_on_from(whole, tmp_path, monkeypatch):
    from ssmid.experiments.training import checkpoint

    save = checkpoint.save

    def older(path, model, optimizer, sums, facts):
        save(path, model, optimizer, sums, {name: value for name, value in facts.items() if name != "perfect"})
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", older)
        with pytest.raises(KeyboardInterrupt):
            train(TASK, CONFIGURATION, tmp_path)
    train(TASK, CONFIGURATION, tmp_path)
    assert outcome(tmp_path) == whole


def test_what_was_half_written_is_taken_away(whole, tmp_path):
    (tmp_path / ".checkpoint.0a1b2c3d.safetensors").write_bytes(b"half")
    train(TASK, CONFIGURATION, tmp_path)
    assert outcome(tmp_path) == whole
    assert not list(tmp_path.glob(".checkpoint.*"))


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      rest")
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: expected"):
        train(TASK, CONFIGURATION, tmp_path)


def test_a_file_of_tensors_that_is_no_checkpoint_is_named(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: expected a file that a training wrote, got another safetensors file"):
        train(TASK, CONFIGURATION, tmp_path)


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")),
        pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")),
    ],
)
def test_two_processes_of_torchrun_give_the_curve_of_one(device, tmp_path):
    """With targets that count in unequal numbers, and an odd number of examples to evaluate on."""
    train(RAGGED, together(device), tmp_path / "one", device=device if device == "cpu" else "cuda:0")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(module=Path(__file__).stem))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run(
        [*launch, str(script), str(tmp_path / "two"), "-1", device], env=environment(), capture_output=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr.decode()
    one, two = (read(tmp_path / name / "log.jsonl") for name in ("one", "two"))
    assert [(line["step"], line["split"]) for line in one] == [(line["step"], line["split"]) for line in two]
    for key in ("loss", "accuracy"):
        np.testing.assert_allclose([line[key] for line in two], [line[key] for line in one], rtol=1e-6, atol=0)
    assert json.loads((tmp_path / "two" / "result.json").read_text())["result"]["processes"] == 2


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path):
    from ssmid.jobs.workers import Alone

    team = Alone()
    team.count = 3
    with pytest.raises(ValueError, match="batch: expected a multiple of the 3 processes, got 8"):
        train(TASK, together("cpu"), tmp_path, team=team)
    team.count = 2
    with pytest.raises(ValueError, match="norm: expected 'layer' or 'none' on several processes without GPUs, got 'batch'"):
        train(TASK, CONFIGURATION, tmp_path, team=team)
