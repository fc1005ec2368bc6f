"""Copying and Delay over the size of the state: RTF beside S4 and S4D (Parnichkun et al., ICML 2024, table 3).

The layer alone differs: tasks, width, depth, rates, steps and seeds are the same. Copying has four blocks 1024 wide; Delay is one layer of
four linear filters, so that what it learns is a response of 4000 taps and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssmid.experiments.experiment import Experiment, Results, Run, trainings
from ssmid.experiments.tasks.copying import Copying
from ssmid.experiments.tasks.delay import Delay
from ssmid.experiments.training.configuration import Configuration
from ssmid.report.tables import Table

LAYERS: dict[str, dict[str, Any]] = {"rtf": {"init": "montel"}, "s4": {}, "s4d": {}}
"""The options of their filters: RTF's first coefficients are U(-1/n, 1/n), as published."""
ORDERS = (64, 128, 256, 512, 1024)
PUBLISHED: dict[str, dict[str, dict[int, float]]] = {
    "copying": {
        "s4": {64: 0.293, 128: 0.342, 256: 0.350, 512: 0.331, 1024: 0.332},
        "rtf": {64: 0.221, 128: 0.933, 256: 1.0, 512: 1.0, 1024: 1.0},
    },
    "delay": {
        "s4": {64: 0.41, 128: 0.39, 256: 0.33, 512: 0.22, 1024: 0.029},
        "rtf": {64: 0.45, 128: 0.45, 256: 0.44, 512: 0.38, 1024: 0.006},
    },
}
"""Accuracy of Copying and RMSE of Delay, by layer and state size."""


def copying_and_delay(*, quick: bool = False) -> Experiment:
    """Published sizes: Copying for a fifth of the published steps (``steps=62500`` is all), Delay for all; ``quick``: toys."""
    if quick:
        copying, delay, orders = Copying(memorize=12, tokens=8, train=1024, held_out=64), Delay(length=256, lag=64, held_out=32), (8, 32)
        sizes = {"copying": ({"width": 32, "depth": 1}, 160, 16, 1e-2), "delay": ({"width": 4}, 120, 16, 1e-2)}
    else:
        copying, delay, orders = Copying(), Delay(), ORDERS
        sizes = {"copying": ({"width": 1024, "depth": 4}, 12_500, 8, 1e-3), "delay": ({"width": 4}, 5120, 64, 1e-3)}
    linear = {"depth": 1, "mixing": "none", "norm": "none", "residual": False}
    tasks: dict[str, Any] = {"copying": copying, "delay": delay}
    runs = []
    for name, task in tasks.items():
        size, steps, batch, rate = sizes[name]
        ends = linear if name == "delay" else {}
        for order in orders:
            for layer, options in LAYERS.items():
                model = {"layer": layer, "order": order, **size, **ends, "filter": options}
                configuration = Configuration(model=model, steps=steps, batch=batch, rate=rate, warmup=steps // 20, clip=1.0)
                runs.append(Run(f"{name}/{layer}-{order}", task, configuration, {"layer": layer, "state": order}))
    return Experiment("copying-and-delay", tuple(runs), tables)


def tables(results: Results) -> Sequence[Table]:
    """One of each task: state sizes down, layers across, and what was published beside them."""
    titles = {
        "copying": ("Copying: accuracy", "accuracy", lambda run: run.task.facts()["memorize"] == 1024),
        "delay": ("Delay: RMSE", "rmse", lambda run: run.task.facts()["length"] == 4000),
    }
    found = []
    for name, (title, metric, as_published) in titles.items():
        here = [(run, result) for run, result in trainings(results) if run.task.name == name]
        if not here:
            continue
        values = {(run.labels["layer"], run.labels["state"]): result["test"].get(metric) for run, result in here}
        speeds = {(run.labels["layer"], run.labels["state"]): result["tokens_per_second"] for run, result in here}
        states = sorted({state for _, state in values})
        published = PUBLISHED[name] if as_published(here[0][0]) else {}
        columns = ["state", *LAYERS, *(f"{layer} published" for layer in published)]
        rows = [[n, *(values.get((x, n)) for x in LAYERS), *(known.get(n) for known in published.values())] for n in states]
        found.append(Table(title, columns, rows))
        fast = [[n, *(None if (s := speeds.get((x, n))) is None else round(s) for x in LAYERS)] for n in states]
        found.append(Table(f"{name.capitalize()}: tokens a second in training", ["state", *LAYERS], fast))
    return found
