"""``ssmid experiment``: the trainings of an experiment one after another, resumable, and JSON that the documentation renders."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ssmid.experiments.copying_and_delay import copying_and_delay
from ssmid.experiments.experiment import Experiment, Results
from ssmid.experiments.training.log import NAME as LOG
from ssmid.experiments.training.log import read
from ssmid.experiments.training.loop import train
from ssmid.io.files import write_bytes
from ssmid.jobs.workers import device_of, workers
from ssmid.report.progress import Stage
from ssmid.report.tables import Report

EXPERIMENTS: dict[str, Callable[..., Experiment]] = {"copying-and-delay": copying_and_delay}
RESULTS, CURVES = "results.json", "curves"


def run_experiment(
    name: str,
    folder: Path,
    *,
    quick: bool = False,
    device: str = "cpu",
    only: str | None = None,
    overrides: Sequence[str] = (),
    stage: Stage | None = None,
) -> Report | None:
    """Runs the experiment ``name`` into ``folder``; what came out. Given again after it was stopped, it goes on where it was.

    quick : toy sizes   device : "cpu" or "cuda"   only : a pattern of the names of runs, as of files: ``copying/rtf-*``
    overrides : ``key=value`` of every run, ``task.key=value`` of its task

    Each run has a folder of its own (:func:`ssmid.experiments.training.train`). After each, ``results.json`` and a figure of the curves of
    each task are written anew. Under torchrun the processes share every batch; None is returned in all but the first.
    Raises ValueError for wrong input: before any training, but for options of a model, which are checked where its turn comes.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: expected one of {', '.join(EXPERIMENTS)}, got {name!r}")
    stage = stage or (lambda description, done=None, total=None: None)
    experiment = EXPERIMENTS[name](quick=quick).with_overrides(overrides)
    chosen = [run for run in experiment.runs if only is None or fnmatch(run.name, only)]
    if not chosen:
        raise ValueError(f"only: expected a pattern of {', '.join(run.name for run in experiment.runs)}, got {only!r}")
    mine, results, facts = device_of(device), [], _machine(device)
    with workers(mine) as team:
        for number, run in enumerate(chosen, 1):
            words = f"{run.name} ({number} of {len(chosen)})"
            told = _prefixed(stage, words)
            told("starting")
            results.append((run, train(run.task, run.configuration, folder / run.name, device=mine, team=team, stage=told)))
            if team.rank == 0:
                _write(folder, experiment, results, {"quick": quick, "overrides": list(overrides), "machine": facts})
        return _report(experiment, results, folder) if team.rank == 0 else None


def _prefixed(stage: Stage, words: str) -> Stage:
    return lambda description, done=None, total=None: stage(f"{words}: {description}", done, total)


def _report(experiment: Experiment, results: Results, folder: Path) -> Report:
    diverged = [run.name for run, result in results if result["diverged"]]
    words = [f"The loss was not finite any more in: {', '.join(diverged)}."] if diverged else []
    facts = {
        "runs": f"{len(results)} of {len(experiment.runs)}",
        "seconds of training": sum(result["seconds"] for _, result in results),
        "written to": f"{folder}/{RESULTS}",
    }
    return Report(experiment.name, facts, experiment.tables(results), words)


def _write(folder: Path, experiment: Experiment, results: Results, facts: dict[str, Any]) -> None:
    runs = [{"name": run.name, "labels": dict(run.labels), **run.as_dict(), "result": result} for run, result in results]
    report = _report(experiment, results, folder).to_dict()
    content = {"experiment": experiment.name, **facts, "runs": runs, "tables": {t.title: _rows(t) for t in experiment.tables(results)}}
    content["words"] = report.get("words", [])
    write_bytes(folder / RESULTS, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
    _draw(folder, results)


def _rows(table: Any) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _draw(folder: Path, results: Results) -> None:
    """The curves of all runs so far of the task of the last."""
    from ssmid import plot
    from ssmid.report.figures import figure

    task = results[-1][0].task
    of = {"regress": "rmse", "language": "bits"}.get(task.kind, "accuracy")
    lines = {run.name: read(folder / run.name / LOG) for run, _ in results if run.task.name == task.name}
    figure(folder / f"{CURVES}-{task.name}.png", lambda ax: plot.training_curves(lines, of, ax=ax), task.name, (9.0, 4.8))


def _machine(device: str) -> dict[str, Any]:
    """What a reader needs to repeat the figures."""
    from ssmid.bench.device import accelerator
    from ssmid.bench.timing import machine

    return machine() | accelerator(device)
