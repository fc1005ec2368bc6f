"""ListOps and Pathfinder of the Long Range Arena: RTF beside S4 and S4D, each by its published set-up (Tay et al., ICLR 2021).

Width, depth, norms, batch, directions and state are the same for all; rates, decay and dropout are those that the authors of each chose
(``rtf-listops`` and ``rtf-pathfinder`` of ruke1ire/RTF, Parnichkun et al., ICML 2024; ``s4-listops`` and ``s4-pathfinder`` of version 4 of
state-spaces/s4). What differs from them is the budget, which the tables name, bf16 outside of the filters, a gradient that is clipped,
norms and biases that do not decay, and that all parameters of S4's filters have one rate. A step is compiled by torch, which needs
Triton and a C compiler (``compile=false`` does without), and recorded: 5 to 7 ms on an H200 where launches of single operators took 15.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssmid.experiments.experiment import Experiment, Results, Run, trainings
from ssmid.experiments.tasks.listops import ListOps
from ssmid.experiments.tasks.pathfinder import Pathfinder
from ssmid.experiments.training.configuration import Configuration
from ssmid.experiments.training_speed import training_speed
from ssmid.report.tables import Table

TASKS: dict[str, dict[str, Any]] = {
    "listops": {"order": 4, "norm": "batch", "pre_norm": False},
    "pathfinder-32": {"order": 64, "norm": "batch", "pre_norm": True},
}
"""The stack of six blocks 256 wide, bidirectional, in which the filters stand."""
BATCH = {"listops": 32, "pathfinder-32": 64}
LAYERS: dict[str, dict[str, dict[str, Any]]] = {
    "rtf": {
        "listops": {"filter": {"num_a": 1, "length": 2048}, "rate": 2e-3, "weight_decay": 0.07, "kernel_decay": 0.07},
        "pathfinder-32": {"dropout": 0.1, "rate": 2e-3, "weight_decay": 0.05, "kernel_decay": 0.05},
    },
    "s4": {
        "listops": {"filter": {"sets": 1}, "rate": 1e-2, "weight_decay": 0.05, "kernel_rate": 1e-3},
        "pathfinder-32": {"rate": 4e-3, "weight_decay": 0.05, "kernel_rate": 1e-3},
    },
    "s4d": {
        "listops": {"filter": {"sets": 1}, "rate": 1e-2, "weight_decay": 0.05, "kernel_rate": 1e-3},
        "pathfinder-32": {"rate": 4e-3, "weight_decay": 0.05, "kernel_rate": 1e-3},
    },
}
"""Options of the model, ``filter`` and ``dropout``, and of the training, by layer and task."""
STEPS = {"listops": 120_000, "pathfinder-32": 500_000}
"""As published: 40 epochs of 96,000 and 200 of 160,000."""
BUDGET = {"listops": 120_000, "pathfinder-32": 125_000}
"""Steps here: all of ListOps', a quarter of Pathfinder's."""
PUBLISHED = {
    "listops": {"rtf": 0.6159, "s4": 0.6129, "s4d": 0.6074},
    "pathfinder-32": {"rtf": 0.9611, "s4": 0.9420, "s4d": 0.9542},
}
"""Accuracies, of all the steps (Parnichkun et al., ICML 2024)."""


def long_range(*, quick: bool = False) -> Experiment:
    """The published steps of ListOps, 50 epochs of Pathfinder; ``quick``: toys."""
    runs = []
    for name, task in _tasks(quick).items():
        for layer, of in LAYERS.items():
            options = dict(of[name])
            size = {"width": 8, "depth": 1} if quick else {"width": 256, "depth": 6}
            own = {key: options.pop(key) for key in ("filter", "dropout") if key in options}
            model = {"layer": layer, **size, **TASKS[name], "bidirectional": True, **own}
            model["order"] = min(model["order"], 4) if quick else model["order"]
            steps = 20 if quick else BUDGET[name]
            more = {"clip": 1.0, "keep": "best", "warmup": steps // 10}
            more |= {"precision": "float32"} if quick else {"precision": "bf16", "compile": True, "checkpoint_every": 2000}
            configuration = Configuration(model=model, steps=steps, batch=8 if quick else BATCH[name], evaluate_on=2000, **more, **options)
            runs.append(Run(f"{name}/{layer}", task, configuration, {"task": name, "layer": layer}))
    return Experiment("long-range", tuple(runs), tables)


def _tasks(quick: bool) -> dict[str, Any]:
    if quick:
        return {
            "listops": ListOps(shortest=8, longest=32, depth=4, arguments=4, train=128, held_out=16),
            "pathfinder-32": Pathfinder(train=32, held_out=8),
        }
    return {"listops": ListOps(), "pathfinder-32": Pathfinder(held_out=2000)}  # a core makes 23 images a second


def tables(results: Results) -> Sequence[Table]:
    """Accuracies beside those that were published, with the share of the steps; and how fast each layer trains beside S4."""
    found: dict[str, dict[str, tuple[Run, Mapping[str, Any]]]] = {}
    for run, result in trainings(results):
        found.setdefault(run.labels["task"], {})[run.labels["layer"]] = (run, result)
    accuracy = []
    for task, layers in found.items():
        for layer, (_, result) in layers.items():
            share = 100 * result["steps"] / STEPS[task]
            row = [task, layer, result["valid"].get("accuracy"), result["test"].get("accuracy"), PUBLISHED[task][layer]]
            accuracy.append([*row, result["steps"], share, result["parameters"], round(result["seconds"])])
    columns = ["task", "layer", "accuracy, valid", "accuracy, test", "published", "steps", "% of the published", "parameters", "seconds"]
    return [Table("Long Range Arena: accuracy", columns, accuracy), training_speed(results)] if found else []
