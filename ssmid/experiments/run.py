"""``ssmid experiment``: the jobs of an experiment one after another, resumable, and JSON that the documentation renders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ssmid.experiments.copying_and_delay import copying_and_delay
from ssmid.experiments.distillation import distillation
from ssmid.experiments.experiment import Experiment, Job, Measurement, Results, Run, outcome_of, trainings
from ssmid.experiments.language import language
from ssmid.experiments.long_range import long_range
from ssmid.experiments.small_models import small_models
from ssmid.experiments.throughput import throughput
from ssmid.experiments.training.log import NAME as LOG
from ssmid.experiments.training.log import read
from ssmid.experiments.training.result import Outcome
from ssmid.io.files import about, parsing, write_bytes
from ssmid.jobs.workers import device_of, workers
from ssmid.report.progress import Stage
from ssmid.report.tables import Report

EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    "copying-and-delay": copying_and_delay,
    "distillation": distillation,
    "language": language,
    "long-range": long_range,
    "small-models": small_models,
    "throughput": throughput,
}
CURVES = "curves"


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

    quick : toy sizes   device : "cpu" or "cuda"   only : patterns of names of jobs, as of files: ``copying/rtf-*,delay/*``
    overrides : ``key=value`` of every run, ``task.key=value`` of its task

    Each job has a folder of its own (:func:`ssmid.experiments.training.train`). After each, ``NAME.json``, of all jobs that are over, is
    written anew, and after a training a figure of the curves of each task: so several calls, each of its own ``only`` and GPU, may fill
    one folder. What an earlier call did with other ``overrides`` or ``quick`` is another job, and not in it. ``machine`` there is that of
    most jobs; those of another have it beside their result. Experiments that train the same find it done there.
    Under torchrun the processes share every batch; None is returned in all but the first.
    Raises ValueError for wrong input: before any training, but for options of a model, which are checked where its turn comes.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: expected one of {', '.join(EXPERIMENTS)}, got {name!r}")
    stage = stage or (lambda description, done=None, total=None: None)
    experiment = EXPERIMENTS[name](quick=quick).with_overrides(overrides)
    chosen = _chosen(experiment, only)
    for job in chosen:
        if isinstance(job, Measurement):
            job.expect_options()
    mine, facts, here = device_of(device), {"quick": quick, "overrides": list(overrides)}, _machine(device)
    with workers(mine) as team:
        for number, run in enumerate(chosen, 1):
            words = f"{run.name} ({number} of {len(chosen)})"
            told = _prefixed(stage, words)
            told("starting")
            run.perform(folder, mine, team, told, here)
            if team.rank == 0:
                _write(folder, experiment, facts, here, draw=isinstance(run, Run))
        return _report(experiment, _results(_over(experiment, folder)), folder) if team.rank == 0 else None


def _chosen(experiment: Experiment, only: str | None) -> list[Job]:
    """Those that a pattern of ``only`` matches; ValueError for a pattern that matches none."""
    if only is None:
        return list(experiment.runs)
    patterns = only.split(",")
    for pattern in patterns:
        if not any(fnmatch(job.name, pattern) for job in experiment.runs):
            raise ValueError(f"only: expected a pattern of {', '.join(job.name for job in experiment.runs)}, got {pattern!r}")
    return [job for job in experiment.runs if any(fnmatch(job.name, pattern) for pattern in patterns)]


Over = list[tuple[Job, Outcome]]
"""Jobs that are over, by this call or another."""


def _over(experiment: Experiment, folder: Path) -> Over:
    found = [(run, outcome_of(run, folder)) for run in experiment.runs]
    return [(run, outcome) for run, outcome in found if outcome is not None]


def _results(over: Over) -> Results:
    return [(run, outcome.result) for run, outcome in over]


def _prefixed(stage: Stage, words: str) -> Stage:
    return lambda description, done=None, total=None: stage(f"{words}: {description}", done, total)


def _report(experiment: Experiment, results: Results, folder: Path) -> Report:
    diverged = [run.name for run, result in results if result.get("diverged")]
    words = [f"The loss was not finite any more in: {', '.join(diverged)}."] if diverged else []
    facts = {
        "runs": f"{len(results)} of {len(experiment.runs)}",
        "seconds of training": sum(result["seconds"] for _, result in trainings(results)),
        "written to": str(folder / f"{experiment.name}.json"),
    }
    return Report(experiment.name, facts, experiment.tables(results), words)


def _write(folder: Path, experiment: Experiment, facts: dict[str, Any], here: Mapping[str, Any], *, draw: bool) -> None:
    """All that is over, also by a call that ended a job while this one wrote: whoever writes last has looked after that."""
    over: Over = []
    while (found := _over(experiment, folder)) != over:
        over, results = found, _results(found)
        curves = {run.name: read(folder / run.name / LOG) for run, _ in trainings(results)}
        _write_these(folder, experiment, over, curves, facts, here)
        if draw:
            _draw(folder, results, curves)


Curves = dict[str, list[dict[str, Any]]]
"""Of each training by name the lines of its log."""


def _write_these(
    folder: Path, experiment: Experiment, over: Over, curves: Curves, facts: dict[str, Any], here: Mapping[str, Any]
) -> None:
    path, results = folder / f"{experiment.name}.json", _results(over)
    machine, others = _machines(over, path, here)
    runs = [
        {"name": run.name, "labels": dict(run.labels), **run.as_dict(), "result": result}
        | {"curve": _evaluations(curves.get(run.name, []))}
        | ({"machine": others[run.name]} if run.name in others else {})
        for run, result in results
    ]
    report = _report(experiment, results, folder)
    tables = {table.title: _rows(table) for table in report.tables}
    content = {"experiment": experiment.name, **facts, "machine": machine, "runs": runs, "tables": tables, "words": list(report.words)}
    write_bytes(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def _evaluations(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a log what was measured on held-out examples."""
    return [{name: value for name, value in line.items() if name != "split"} for line in lines if line["split"] == "valid"]


def _rows(table: Any) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _draw(folder: Path, results: Results, curves: Curves) -> None:
    """The curves of all runs so far, a figure a task."""
    from ssmid import plot
    from ssmid.report.figures import figure

    runs = [run for run, _ in trainings(results)]
    for name, kind in {run.task.name: run.task.kind for run in runs}.items():
        of = {"regress": "rmse", "language": "bits"}.get(kind, "accuracy")
        lines = {run.name: curves[run.name] for run in runs if run.task.name == name}
        figure(folder / f"{CURVES}-{name}.png", lambda ax, lines=lines, of=of: plot.training_curves(lines, of, ax=ax), name, (9.0, 4.8))


def _machines(over: Over, path: Path, here: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Mapping[str, Any]]]:
    """That of most of the jobs, the first of as many, and by name those of jobs that another did.

    Of a result from before its machine was kept with it, that which was written at ``path`` before, or else ``here``.
    """
    before: dict[str, Mapping[str, Any]] = {}
    if path.exists():
        with about(path), parsing("JSON"):
            there = json.loads(path.read_bytes())
            before = {run["name"]: run.get("machine", there["machine"]) for run in there["runs"]}
    each = {run.name: outcome.machine or before.get(run.name, here) for run, outcome in over}
    alike = [_lasting(machine) for machine in each.values()]
    most = max(alike, key=alike.count)
    others = {name: machine for name, machine in each.items() if _lasting(machine) != most}
    return next(machine for machine in each.values() if _lasting(machine) == most), others


def _lasting(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Without the load, which is another at every call."""
    return {name: value for name, value in machine.items() if name != "load"}


def _machine(device: str) -> dict[str, Any]:
    """What a reader needs to repeat the figures."""
    from ssmid.bench.device import accelerator
    from ssmid.bench.timing import machine

    return machine() | accelerator(device)
