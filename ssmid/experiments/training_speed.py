"""How fast layers train beside S4 and S4D: the same table of every experiment that compares them."""

from __future__ import annotations

from ssmid.experiments.experiment import Results, trainings
from ssmid.report.tables import Table

BESIDE = ("s4", "s4d")
_TITLES = {"s4": "times S4", "s4d": "times S4D"}


def training_speed(results: Results) -> Table:
    """Tokens a second of each training, and how many times those of S4 and S4D of the same task, state and precision; None without them.

    The median over the lines of the log: evaluations and what comes before the first step are not in it.
    """
    found = {}
    for run, result in trainings(results):
        model = run.configuration.model
        found[run.task.name, model["order"], run.configuration.precision, model["layer"]] = result["tokens_per_second"]
    rows = []
    for (*same, layer), speed in found.items():
        others = (found.get((*same, other)) for other in BESIDE)
        rows.append([same[0], layer, same[1], round(speed), *(speed / other if other else None for other in others)])
    return Table("Throughput of training", ["task", "layer", "state", "tokens/s in training", *(_TITLES[x] for x in BESIDE)], rows)
