"""Copying and Delay over the size of the state: RTF beside S4 and S4D (Parnichkun et al., ICML 2024, table 3).

Tasks, depth, rates, steps and seeds are the same for all layers. Copying has four blocks 64 wide, as the configurations ``rtf-copying`` and
``s4-copying`` of ruke1ire/RTF have (the paper says 1024), with their one denominator a layer and their first steps of S4, depth / memorize.
What differs from them: 40 % of the steps; a rate of 3e-3 for all filters, where theirs is 1e-3 for RTF and 1e-4 for S4; a cosine after a
warm-up and a clipped gradient; HiPPO-LegS of rank 1 for S4 where theirs is Fourier of rank 2; and Montel's draws for RTF, as the paper has
them, where their code drops that option and begins at zero. Delay is one layer of four linear filters, so that what it learns is a response
of 4000 taps and no more; their first steps of S4, 2 / lag, are those here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssmid.experiments.experiment import Experiment, Job, Measurement, Results, Run, measurements, trainings
from ssmid.experiments.measures.rational_poles import rational_poles
from ssmid.experiments.tasks.copying import Copying
from ssmid.experiments.tasks.delay import Delay
from ssmid.experiments.training.configuration import Configuration
from ssmid.experiments.training_speed import training_speed
from ssmid.report.tables import Table

LAYERS: dict[str, dict[str, Any]] = {"rtf": {"init": "montel"}, "s4": {}, "s4d": {}}
"""The options of their filters: RTF's first coefficients are U(-1/n, 1/n), as published."""
PUBLISHED_STEPS = {"copying": 62_500, "delay": 5120}
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
    """25,000 steps of Copying, two fifths of the published ones (``steps=62500`` is all), or fewer where it is solved before; Delay for all
    of them; and of Copying the poles of the rational filters. ``quick``: toys."""
    if quick:
        copying, delay, orders = Copying(memorize=12, tokens=8, train=1024, held_out=64), Delay(length=256, lag=64, held_out=32), (8, 32)
        sizes = {"copying": ({"width": 32, "depth": 1}, 160, 16, 1e-2), "delay": ({"width": 4}, 120, 16, 1e-2)}
    else:
        copying, delay, orders = Copying(), Delay(), ORDERS
        sizes = {"copying": ({"width": 64, "depth": 4}, 25_000, 8, 1e-3), "delay": ({"width": 4}, 5120, 64, 1e-3)}
    linear = {"depth": 1, "mixing": "none", "norm": "none", "residual": False}
    tasks: dict[str, Any] = {"copying": copying, "delay": delay}
    runs: list[Job] = []
    for name, task in tasks.items():
        size, steps, batch, rate = sizes[name]
        ends = linear if name == "delay" else {}
        more: dict[str, Any] = {}
        if name == "copying" and not quick:
            more = {"kernel_rate": 3e-3, "weight_decay": 0.0, "evaluate_every": 1000, "evaluate_on": 200, "solved": 0.9999}
        for order in orders:
            for layer, options in LAYERS.items():
                step = size["depth"] / copying.memorize if name == "copying" else 2 / delay.lag
                first = {"num_a": 1} if layer == "rtf" else {"dt_min": step, "dt_max": step}
                model = {"layer": layer, "order": order, **size, **ends, "filter": options | first}
                configuration = Configuration(model=model, steps=steps, batch=batch, rate=rate, warmup=steps // 20, clip=1.0, **more)
                run = Run(f"{name}/{layer}-{order}", task, configuration, {"layer": layer, "state": order})
                runs.append(run)
                if (name, layer) == ("copying", "rtf"):
                    runs.append(Measurement(f"poles/{layer}-{order}", rational_poles, run.labels, (run,), {"lag": None}))
    return Experiment("copying-and-delay", tuple(runs), tables)


def tables(results: Results) -> Sequence[Table]:
    """One of each task: state sizes down, layers across, and what was published beside them; the steps of each training; the speed of
    those of Copying, as Delay waits for its signals to be made; the poles of its rational filters."""
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
        states = sorted({state for _, state in values})
        published = PUBLISHED[name] if as_published(here[0][0]) else {}
        columns = ["state", *LAYERS, *(f"{layer} published" for layer in published)]
        rows = [[n, *(values.get((x, n)) for x in LAYERS), *(known.get(n) for known in published.values())] for n in states]
        found.append(Table(title, columns, rows))
        if published:
            found.append(_budget(name, here))
    copying = [(run, result) for run, result in trainings(results) if run.task.name == "copying"]
    return [*found, *([training_speed(copying)] if copying else []), *_poles(results)]


def _poles(results: Results) -> list[Table]:
    """Block by block, of each state size; energy is that of the taps after tap 0."""
    measured = [(job.labels["state"], result) for job, result in measurements(results, rational_poles)]
    columns = ["state", "block", "poles outside the unit circle", "of", "largest modulus", "lag", "share of the energy there, median"]
    columns += ["at most, by its order", "largest tap most often at lag", "in channels", "of all"]
    rows = []
    for state, r in measured:
        for b in r["blocks"]:
            row = [state, b["block"] + 1, b["outside"], b["poles"], b["largest_modulus"], r["lag"], b["share"], r["bound"]]
            rows.append([*row, b["mostly_at"], b["mostly"], b["channels"]])
    return [Table("Copying: poles of the trained filters", columns, rows)] * bool(rows)


def _budget(name: str, here: Sequence[tuple[Run, Any]]) -> Table:
    """How long each trained, and from which step on Copying was solved."""
    rows = []
    for run, result in here:
        model, steps = run.configuration.model, result["steps"]
        share = 100 * steps / PUBLISHED_STEPS[name]
        of = [*run.labels.values(), model["width"], steps, share]
        rows.append([*of, result.get("solved"), round(result["seconds"])])
    return Table(f"{name.capitalize()}: steps", ["layer", "state", "width", "steps", "% of the published", "solved at", "seconds"], rows)
