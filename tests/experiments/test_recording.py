"""A recorded step of training leaves the numbers as they are: of the training, and of what was tried before it was recorded."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from torch.utils._pytree import tree_leaves

from ssmid.bench import replay
from ssmid.bench.replay import emptied, replayed
from ssmid.experiments.training import Configuration, loop, recording, train
from ssmid.experiments.training.log import NAME as LOG
from ssmid.experiments.training.log import read
from ssmid.experiments.training.recording import Recorded
from tests.experiments.toy_tasks import MODEL, Toy

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Descent:
    """Two steps of a momentum, which comes to be with the first."""

    def __init__(self, device: str = "cpu", waits: bool = False, takes: int = 0) -> None:
        self.weight = torch.nn.Parameter(torch.ones(3, device=device))
        self.momentum: list[torch.Tensor] = []
        self.calls, self.waits, self.takes = 0, waits, takes

    def changed(self):
        return [self.weight, *self.momentum]

    def update(self, batch):
        self.calls += 1
        loss = (torch.nn.functional.dropout(batch["x"], 0.5) @ self.weight).square().sum()
        loss.backward()
        assert self.weight.grad is not None
        if self.waits:
            float(loss.detach())
        if self.takes and torch.cuda.is_current_stream_capturing():
            held = torch.empty(1 << 30, dtype=torch.uint8, device=loss.device)
            torch.empty(self.takes, dtype=torch.uint8, device=held.device)
        with torch.no_grad():
            if not self.momentum:
                self.momentum.append(torch.zeros_like(self.weight))
            self.momentum[0].mul_(0.9).add_(self.weight.grad)
            self.weight.sub_(0.01 * self.momentum[0])
        self.weight.grad = None
        return {"loss": loss.detach()}


def trace(update, shapes, device="cpu") -> list[float]:
    """The loss of each step, of batches of these lengths."""
    losses = []
    for step, rows in enumerate(shapes):
        x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(step))
        torch.manual_seed(step)
        losses.append(float(update({"x": x.to(device)})["loss"]))
    return losses


def test_on_a_cpu_every_step_is_called():
    descent, alone = Descent(), Descent()
    assert trace(Recorded(descent.update, descent.changed, "cpu"), [4, 4, 2]) == trace(alone.update, [4, 4, 2])
    assert descent.calls == 3


def test_what_is_tried_before_the_recording_leaves_no_trace(monkeypatch):
    current = as_on_a_gpu(monkeypatch, tried)
    descent, alone = Descent(), Descent()
    assert trace(Recorded(descent.update, descent.changed, "cuda:1"), [4, 4, 2, 4]) == trace(alone.update, [4, 4, 2, 4])
    assert descent.calls == 4 + 4
    assert current == ["cuda:1"], "what is recorded is what the current device does"


def test_a_recording_that_does_not_fit_is_done_without(monkeypatch):
    """Memory runs out on the way of the step that would be recorded, where it leaves a gradient."""

    def stopped(function, device):
        function()
        with monkeypatch.context() as patched:
            patched.setattr(torch, "no_grad", out_of_memory)
            return function(), recording.GRAPH

    given_back = []
    as_on_a_gpu(monkeypatch, stopped)
    descent, alone = Descent(), Descent()
    monkeypatch.setattr(recording, "emptied", lambda device: given_back.append((device, descent.weight.grad)))
    assert trace(Recorded(descent.update, descent.changed, "cuda:1"), [4, 4, 2, 4]) == trace(alone.update, [4, 4, 2, 4])
    assert descent.calls == 2 + 4
    assert given_back == [("cuda:1", None)], "gradients are let go of before the memory is given back"


def out_of_memory():
    raise torch.OutOfMemoryError


def test_errors_of_another_kind_are_said(monkeypatch):
    def wrong(function, device):
        raise ValueError("shape")

    as_on_a_gpu(monkeypatch, wrong)
    descent = Descent()
    with pytest.raises(ValueError, match="shape"):
        trace(Recorded(descent.update, descent.changed, "cuda"), [4])


def test_what_was_trained_is_let_go_of_without_the_collector(tmp_path, monkeypatch):
    trainers = []
    begin = loop._Trainer._begin
    monkeypatch.setattr("ssmid.experiments.training.log.Log.draw", lambda log, *, last: None)  # its imports keep frames
    monkeypatch.setattr(loop._Trainer, "_begin", lambda trainer: trainers.append(weakref.ref(trainer)) or begin(trainer))
    gc.collect()
    gc.disable()
    try:
        train(Toy(), Configuration(model=MODEL, steps=3, batch=8), tmp_path)
        assert [trainer() for trainer in trainers] == [None]
    finally:
        gc.enable()


def tried(function, device):
    """As a GPU does: some calls before, and replays that change what the first of them returned."""
    for _ in range(4):
        value = function()

    def step():
        for old, new in zip(tree_leaves(value), tree_leaves(function()), strict=True):
            old.copy_(new)
        return value

    return step, recording.GRAPH


def as_on_a_gpu(monkeypatch, replayed) -> list[str]:
    """A recording as ``replayed`` says; the devices that were the current one during it."""
    current = []
    monkeypatch.setattr(recording, "replayed", replayed)
    monkeypatch.setattr(replay, "emptied", lambda device: None)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: torch_random_kept())
    monkeypatch.setattr(torch.cuda, "device", lambda device: current.append(str(device)) or nullcontext())
    return current


class torch_random_kept(nullcontext):
    """``fork_rng`` of a machine without a GPU."""

    def __enter__(self):
        self.state = torch.get_rng_state()

    def __exit__(self, *_):
        torch.set_rng_state(self.state)


@on_gpu
@pytest.mark.parametrize("waits", [False, True])
def test_a_gpu_replays_what_it_can_record(waits):
    descent, alone = Descent("cuda", waits), Descent("cuda")
    shapes = [4, 4, 2, 4, 4]
    torch.testing.assert_close(
        trace(Recorded(descent.update, descent.changed, "cuda"), shapes, "cuda"), trace(alone.update, shapes, "cuda"), rtol=1e-6, atol=0
    )
    before = descent.calls
    trace(Recorded(descent.update, descent.changed, "cuda"), [4] * 20, "cuda")
    assert (descent.calls - before > 20) is waits, "what waits for the device is called at every step"


@on_gpu
def test_a_gpu_launches_what_it_has_no_memory_to_record():
    """What is random still is so afterwards, and the memory that the recording had taken is there again."""
    descent, alone = Descent("cuda", takes=1 << 50), Descent("cuda")
    expected = trace(alone.update, [4] * 20, "cuda")
    emptied("cuda")
    before = torch.cuda.memory_reserved()
    found = trace(Recorded(descent.update, descent.changed, "cuda"), [4] * 20, "cuda")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert descent.calls > 20, "every step is called"
    assert torch.cuda.memory_reserved() - before < 1 << 29


@on_gpu
def test_another_thread_pins_memory_during_a_recording():
    """As that which makes the next batch; what is kept is not there to be used again."""
    kept, x = [], torch.ones(3, device="cuda")
    with ThreadPoolExecutor(1) as other:

        def update():
            kept.append(other.submit(torch.empty, 1 << 20, pin_memory=True).result())
            return x.add_(1)

        replay, how = replayed(update, "cuda")
    assert how == recording.GRAPH
    before = x.clone()
    replay()
    replay()
    torch.testing.assert_close(x, before + 2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_gpu_that_is_not_the_current_one_trains_too():
    descent, alone = Descent("cuda:1"), Descent("cuda:1")
    recorded = trace(Recorded(descent.update, descent.changed, "cuda:1"), [4] * 5, "cuda:1")
    torch.testing.assert_close(recorded, trace(alone.update, [4] * 5, "cuda:1"), rtol=1e-6, atol=0)


@on_gpu
@pytest.mark.parametrize("layer", ["rtf", "s4", "s4d"])
@pytest.mark.parametrize("kind", ["token", "regress", "classify"])
def test_a_training_recorded_is_the_training_launched(layer, kind, tmp_path, monkeypatch):
    model = {**MODEL, "layer": layer, "filter": {}, "norm": "batch", "dropout": 0.2}
    configuration = Configuration(model=model, steps=30, batch=8, rate=0.02, clip=1.0, warmup=3, evaluate_every=10, log_every=5)
    recorded = train(Toy(kind), configuration, tmp_path / "recorded", device="cuda")
    monkeypatch.setattr(loop, "Recorded", lambda update, changed, device: update)
    launched = train(Toy(kind), configuration, tmp_path / "launched", device="cuda")
    for split in ("valid", "test"):
        assert recorded[split] == pytest.approx(launched[split], rel=1e-3)


@on_gpu
@pytest.mark.parametrize("layer", ["rtf", "s4", "s4d"])
def test_steps_of_every_layer_are_recorded(layer, tmp_path, how):
    configuration = Configuration(model={**MODEL, "layer": layer, "filter": {}}, steps=3, batch=8, clip=1.0)
    train(Toy(), configuration, tmp_path, device="cuda")
    assert how == [recording.GRAPH]


OTHERS = {
    "bf16": (Toy(), {"model": {**MODEL, "dropout": 0.2}, "precision": "bf16", "rate": 0.02}),
    # at a larger rate rounding in float32 alone changes these losses by a hundredth
    "language": (Toy("language"), {"model": {"mixer": "hyena", "width": 8, "depth": 1, "order": 4}, "rate": 0.005}),
}


@on_gpu
@pytest.mark.parametrize(("task", "changes"), OTHERS.values(), ids=OTHERS)
def test_other_models_recorded_are_those_launched(task, changes, tmp_path, monkeypatch, how):
    configuration = Configuration(steps=20, batch=8, clip=1.0, warmup=3, log_every=5, evaluate_every=10, **changes)
    train(task, configuration, tmp_path / "recorded", device="cuda")
    assert how == [recording.GRAPH]
    monkeypatch.setattr(loop, "Recorded", lambda update, changed, device: update)
    train(task, configuration, tmp_path / "launched", device="cuda")
    assert len(how) == 1
    recorded, launched = (losses(tmp_path / name) for name in ("recorded", "launched"))
    assert launched[-1] < 0.95 * launched[0], "it is trained"
    assert recorded == pytest.approx(launched, rel=1e-3)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_gpu)])
def test_stopped_after_a_checkpoint_a_recorded_training_goes_on_as_the_launched_one(device, tmp_path, monkeypatch, how):
    """With moments that are there before its first step, and the sums of a line of the log that is half done."""
    every = {"log_every": 5, "checkpoint_every": 4, "evaluate_every": 10}
    model = {**MODEL, "dropout": 0.2, "norm": "batch"}
    configuration = Configuration(model=model, steps=20, batch=8, rate=0.02, clip=1.0, warmup=3, **every)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "Recorded", lambda update, changed, device: update)
        train(Toy(), configuration, tmp_path / "whole", device=device)
    assert not how
    if device == "cpu":
        as_on_a_gpu(monkeypatch, lambda function, device: how.append(recording.GRAPH) or tried(function, device))
        monkeypatch.setattr(loop, "Recorded", lambda update, changed, device: Recorded(update, changed, "cuda"))
    update = loop._Trainer._update

    def stopping(trainer, batch):
        if trainer.step == 9:
            raise KeyboardInterrupt
        return update(trainer, batch)

    with monkeypatch.context() as patched:
        patched.setattr(loop._Trainer, "_update", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(Toy(), configuration, tmp_path / "stopped", device=device)
    assert len(losses(tmp_path / "stopped")) == 1, "of five steps"
    train(Toy(), configuration, tmp_path / "stopped", device=device)
    assert how == [recording.GRAPH] * 2
    assert losses(tmp_path / "stopped") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3 if device == "cuda" else 0)


def losses(folder) -> list[float]:
    """Those of the log, of training and validation."""
    return [line["loss"] for line in read(folder / LOG)]


@pytest.fixture
def how(monkeypatch) -> list[str]:
    """How the steps of every training are done."""
    found = []

    def noted(function, device):
        step, kind = replayed(function, device)
        found.append(kind)
        return step, kind

    monkeypatch.setattr(recording, "replayed", noted)
    return found
