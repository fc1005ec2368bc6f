"""A training from its seed to its metrics. Killed at any moment and started again, it ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ssmid.experiments.models import model_of
from ssmid.experiments.tasks.task import SPLITS, Split, Task
from ssmid.experiments.training import checkpoint
from ssmid.experiments.training.batches import Batches, step_seed
from ssmid.experiments.training.configuration import Configuration
from ssmid.experiments.training.distributed import replicated, summed
from ssmid.experiments.training.hankel_penalty import HankelPenalty
from ssmid.experiments.training.log import NAME as LOG
from ssmid.experiments.training.log import Log, strict
from ssmid.experiments.training.objective import metrics, score, sums
from ssmid.experiments.training.optimizer import optimizer_of, set_rates
from ssmid.experiments.training.recording import Recorded
from ssmid.experiments.training.result import Outcome, read_result, write_result
from ssmid.jobs.store import only_here
from ssmid.jobs.workers import Alone
from ssmid.nn.filter import Filter
from ssmid.report.progress import Stage

WEIGHTS = "model.safetensors"
_BASIS = "hankel_basis"
_IN_A_ROW = 3
"""Evaluations that must be as good as ``solved``: one alone may be luck."""


def train(
    task: Task,
    configuration: Configuration,
    folder: Path,
    *,
    device: str = "cpu",
    team: Alone | None = None,
    stage: Stage | None = None,
    start: Path | None = None,
    machine: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Trains what ``configuration`` describes on ``task``; its metrics on the splits "valid" and "test", and what they cost.

    folder : gets ``model.safetensors`` (the weights that were kept), ``result.json``, ``log.jsonl``, ``curves.png`` and, on the way, a
    checkpoint, from which the same call goes on; of a training that has ended it gives the result   device : of this process
    team : the processes of :func:`ssmid.jobs.workers.workers`, each of which calls this; the batch is shared by them
    start : weights of this model to begin with in place of drawn ones, such as another training or :func:`ssmid.save_model` left
    machine : what this is done on, kept beside the result

    The order of data and dropout are functions of the seed, the step and the process; the first weights of the seed and the kind of the
    device, which draws them. On a CPU, and with deterministic kernels on a GPU,
    the weights do not depend on where a run was interrupted. A loss that is not finite ends the training; ``diverged`` says so.
    Raises ValueError for a folder of another training or one at work, a batch that the processes cannot share, and a split that is empty.
    """
    with torch.random.fork_rng(devices=[] if device == "cpu" else [torch.device(device)]):
        team, said = team or Alone(), stage or (lambda description, done=None, total=None: None)
        trainer = _Trainer(task, configuration, folder, device, team, said, start, machine)
        with only_here(folder) if team.rank == 0 else nullcontext():
            return trainer.run()


class _Trainer:
    def __init__(
        self, task: Task, configuration: Configuration, folder: Path, device: str, team: Alone, stage: Stage, start: Path | None,
        machine: Mapping[str, Any] | None,
    ) -> None:
        c = configuration
        if c.batch % team.count:
            raise ValueError(f"batch: expected a multiple of the {team.count} processes, got {c.batch}")
        if c.solved is not None and task.kind == "regress":
            raise ValueError(f"solved: expected for a task that has an accuracy, got it for {task.name!r}")
        if empty := [split for split in SPLITS if task.size(split) < 1]:
            raise ValueError(f"task: expected examples in every split, got none of {task.name} in {', '.join(empty)}")
        self.task, self.c, self.folder, self.device, self.team, self.stage = task, c, folder, device, team, stage
        self.machine = machine
        self.dtype = torch.float64 if c.precision == "float64" else torch.float32
        torch.manual_seed(c.seed)
        with torch.device(device):  # S4 begins with dense matrices, which take a host minutes
            self.model = model_of(task, c.model).to(device, self.dtype)
        if start is not None:
            checkpoint.load_weights(start, self.model)
        if c.precision == "bf16":
            _filters_in_single_precision(self.model, device)
        self.penalty = None if c.hankel_order is None else HankelPenalty(self.model, c.hankel_order, task.length)
        self.called = replicated(self.model, team, device)
        if c.compile:
            torch.compiler.reset()  # the trainings before this one count against the number of models that torch compiles
            self.called = torch.compile(self.called, dynamic=False)
        self.optimizer = optimizer_of(self.model, c)
        # the steps of several processes wait for each other, and those of a penalty for what the host decides
        alone = team.count == 1 and self.penalty is None
        self.recorded = Recorded(self._descend, self._changed, device) if alone else None
        self.batches = Batches(task, c.batch, c.seed, team, device, self.dtype)
        self.sums: dict[str, Tensor] = {}  # since the last line of the log
        self.step, self.seconds, self.best = 0, 0.0, None
        self.perfect: list[int] = []  # steps of the last evaluations that were as good as ``solved``
        self.tokens = c.batch * task.length * task.sequences  # of a step
        self.identity = json.loads(json.dumps({"task": task.facts(), "configuration": c.as_dict()}))

    def run(self) -> dict[str, Any]:
        if (done := self._begin()) is not None:
            return done
        begun, before, logged, diverged = time.perf_counter(), self.seconds, (self.step, self.seconds), False
        for batch in self.batches.training(self.step, self.c.steps):
            rate, norm = self._update(batch)
            self.step += 1
            last = self.step == self.c.steps
            if last or self.step % self.c.every("log") == 0:
                found = metrics(self.task.kind, self.sums)  # waits for the device
                if self.penalty:
                    found["hankel_tail"] = float(self.sums["hankel_tail"] / self.sums["count"])
                self.seconds = before + time.perf_counter() - begun
                speed = (self.step - logged[0]) * self.tokens / (self.seconds - logged[1])
                self._log(found, rate, norm, speed)
                logged, diverged = (self.step, self.seconds), not isfinite(found["loss"])
                if diverged:
                    break
            evaluate = last or self.step % self.c.every("evaluate") == 0
            save = not last and self.step % self.c.every("checkpoint") == 0
            if evaluate or save:
                self._settle()
                pause = time.perf_counter()
                self.seconds = before + pause - begun
                if evaluate:
                    self._evaluate()
                if self._solved():
                    break
                if save:
                    self._save()
                begun += time.perf_counter() - pause  # is no part of the time that training took
        return self._finish(diverged)

    def _settle(self) -> None:
        """Waits for the device, so that what it has still to do is not counted as something else."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def _begin(self) -> dict[str, Any] | None:
        """The result, where there is one; else from the checkpoint. All processes read it before the first may write the next."""
        if done := self.team.agree(read_result(self.folder)):
            self._expect_same(done.identity)
            self._forget()  # what a kill after the result left
            return done.result
        path = self.folder / checkpoint.NAME
        if self.team.agree(path.exists()):
            self._expect_same(checkpoint.read_facts(path)["identity"])  # another model's weights do not fit into this
            self.sums, facts = checkpoint.restore(path, self.model, self.optimizer, self.device)
            if self.penalty:
                self.penalty.basis = self.sums.pop(_BASIS)
            self.step, self.seconds, self.best = (facts[name] for name in ("step", "seconds", "best"))
            self.perfect = facts.get("perfect", [])  # a checkpoint from before these were counted has none
            if self.c.keep == "best" and self.best and not checkpoint.best_weights(self.folder, self.best["step"]).exists():
                self.best = None  # what is not there is not kept
        self.team.wait()
        self.log = Log(self.folder / LOG, self.step) if self.team.rank == 0 else None
        self.model.train()
        return None

    def _expect_same(self, there: Mapping[str, Any]) -> None:
        if set(there) != set(self.identity):
            got = f"one of another job, with {', '.join(there)}"
            raise ValueError(f"{self.folder}: expected a new folder or one of this training, got {got}")
        mine, other = ({**x["configuration"], **{f"task {k}": v for k, v in x["task"].items()}} for x in (self.identity, there))
        odd = [f"{k} {other.get(k)} there, {mine.get(k)} here" for k in dict.fromkeys((*mine, *other)) if mine.get(k) != other.get(k)]
        if odd:
            raise ValueError(f"{self.folder}: expected a new folder or one of this training, got {'; '.join(odd)}")

    def _update(self, batch: dict[str, Tensor]) -> tuple[float, Tensor]:
        """One step of training; the rate, and the norm of the gradient before it was clipped."""
        torch.manual_seed(step_seed(self.c.seed, self.step, self.team.rank))
        rate = set_rates(self.optimizer, self.step, self.c)
        total, norm = (self.recorded or self._descend)(batch)
        self.sums = {name: self.sums.get(name, 0) + value for name, value in total.items()}
        return rate, norm

    def _descend(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """One step of the optimizer; what the batch added up to, and the norm of the gradient before it was clipped."""
        found = self._sums(self.called, batch)
        total = summed(found, self.team)
        # gradients are averaged over processes, whose batches may count different numbers of targets
        loss = found["loss"] * (self.team.count / total["count"]).to(found["loss"].dtype)
        if self.penalty:
            tail = self.penalty()
            loss = loss + self.c.hankel_weight * tail.to(loss.dtype)
            total["hankel_tail"] = tail.detach() * total["count"]
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.c.clip or float("inf"), foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, norm

    def _changed(self) -> Iterator[Tensor]:
        """All that a step of the optimizer changes."""
        yield from (*self.model.parameters(), *self.model.buffers())
        for state in self.optimizer.state.values():
            yield from state.values()

    def _sums(self, model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = batch["mask"] if self.task.kind == "classify" else None
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.c.precision == "bf16"):
            outputs = model(batch["inputs"], mask)
        return sums(self.task.kind, outputs, batch["targets"], batch["mask"])

    def _log(self, found: dict[str, float], rate: float, norm: Tensor, speed: float) -> None:
        """A line of the log, and of progress."""
        self.sums = {}
        left = _duration((self.c.steps - self.step) * self.tokens / speed)
        tail = f", Hankel tail {found['hankel_tail']:.2g}" if self.penalty else ""
        self.stage(f"loss {found['loss']:.4g}{tail}, rate {rate:.2g}, {speed:,.0f} tokens/s, {left} left", self.step, self.c.steps)
        if self.log:
            self.log.add(step=self.step, split="train", **found, rate=rate, gradient=float(norm), tokens_per_second=speed)

    def _evaluate(self) -> None:
        found = self._measured("valid")
        if self.c.solved is not None:
            self.perfect = [*self.perfect, self.step][-_IN_A_ROW:] if found["accuracy"] >= self.c.solved else []
        if self.log:
            self.log.add(step=self.step, split="valid", **found)
            self.log.draw(last=self.step == self.c.steps or self._solved())
        if self.c.keep == "last" or self.best is None or score(self.task.kind, found) > score(self.task.kind, self.best):
            self.best = {"step": self.step, **found}
            if self.c.keep == "best" and self.team.rank == 0:
                # under a name of its own, so that the weights of the best that the checkpoint knows stay
                checkpoint.save_weights(checkpoint.best_weights(self.folder, self.step), self.model, {"identity": self.identity})

    def _solved(self) -> bool:
        return len(self.perfect) == _IN_A_ROW

    def _measured(self, split: Split) -> dict[str, float]:
        """Metrics over a split, of which "test" is read whole: sums and counts of all processes, then one division."""
        self.model.eval()
        zero = torch.zeros((), dtype=torch.float64, device=self.device)
        total: dict[str, Tensor] = dict.fromkeys(("loss", "count") if self.task.kind == "regress" else ("loss", "count", "correct"), zero)
        with torch.no_grad():
            for batch in self.batches.evaluation(split, self.c.evaluate_on if split == "valid" else None):
                found = self._sums(self.model, batch)
                total = {name: value + found[name] for name, value in total.items()}
        self.model.train()
        return metrics(self.task.kind, summed(total, self.team))

    def _save(self) -> None:
        if self.team.rank == 0:
            facts = {"identity": self.identity} | {name: getattr(self, name) for name in ("step", "seconds", "best", "perfect")}
            held = self.sums | ({_BASIS: self.penalty.basis} if self.penalty else {})
            checkpoint.save(self.folder / checkpoint.NAME, self.model, self.optimizer, held, facts)
            checkpoint.forget_but(self.folder, self.best["step"] if self.best else None)

    def _finish(self, diverged: bool) -> dict[str, Any]:
        """The weights that are kept and the result, and after these no checkpoint."""
        step = self.step
        if self.c.keep == "best" and self.best is not None:
            step = self.best["step"]
            self.team.wait()
            checkpoint.load_weights(checkpoint.best_weights(self.folder, step), self.model)
        if self.team.rank == 0:
            checkpoint.save_weights(self.folder / WEIGHTS, self.model, {"identity": self.identity, "step": step})
        result = {
            "steps": self.step,
            "diverged": diverged,
            "solved": self.perfect[0] if self._solved() else None,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "valid": self.best or {},
            "test": {} if diverged and self.c.keep == "last" else self._measured("test"),
            "seconds": self.seconds,
            "tokens_per_second": self._speed(),
            "processes": self.team.count,
            "device": self.device.split(":")[0],
        }
        if self.team.rank == 0:
            write_result(self.folder, Outcome(self.identity, strict(result), self.machine))
        self._forget()
        return self.team.agree(strict(result))

    def _speed(self) -> float | None:
        """Tokens a second, the median over the lines of the log; where it has none yet, over all steps."""
        lines = [] if self.log is None else [x["tokens_per_second"] for x in self.log.lines if x["split"] == "train"]
        return None if self.log is None else median(lines or [self.step * self.tokens / self.seconds])

    def _forget(self) -> None:
        """What is there on the way only."""
        if self.team.rank == 0:
            (self.folder / checkpoint.NAME).unlink(missing_ok=True)
            checkpoint.forget_but(self.folder, None)


def _filters_in_single_precision(model: nn.Module, device: str) -> None:
    """Autocast would compute taps in bf16, in which a pole of modulus 0.9999 is 1."""
    for module in model.modules():
        if isinstance(module, Filter):
            module.forward = torch.autocast(torch.device(device).type, enabled=False)(module.forward)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
