"""Copying and Delay: set-ups as published but for what the docstring names, and tables that say the share of the budget."""

from __future__ import annotations

import pytest

from ssmid.experiments.copying_and_delay import LAYERS, PUBLISHED, copying_and_delay, tables
from ssmid.experiments.models import model_of
from ssmid.experiments.run import run_experiment


def test_tasks_widths_and_budgets():
    experiment = copying_and_delay()
    assert len(experiment.runs) == 2 * 3 * 5
    for r in experiment.runs:
        task, c = r.task.facts(), r.configuration
        if r.name.startswith("copying"):
            assert (task["memorize"], task["tokens"], task["train"], c.batch) == (1024, 64, 10_000, 8)
            assert (c.model["width"], c.model["depth"]) == (64, 4)
            assert c.steps * 5 * c.batch == 2 * 50 * task["train"], "two fifths of 50 epochs"
        else:
            assert (task["length"], task["lag"], c.batch, c.model["width"], c.model["depth"]) == (4000, 1000, 64, 4, 1)
            assert c.steps * c.batch == 20 * task["train"], "20 epochs"
        assert r.labels == {"layer": c.model["layer"], "state": c.model["order"]}
    quick = copying_and_delay(quick=True)
    assert {r.name.split("-")[0] for r in quick.runs} == {r.name.split("-")[0] for r in experiment.runs}
    for r in quick.runs:
        assert sum(p.numel() for p in model_of(r.task, r.configuration.model).parameters()) < 20_000


@pytest.mark.parametrize(("task", "step"), [("copying", 4 / 1024), ("delay", 0.002)])
def test_filters_begin_as_the_authors_have_them(task, step):
    runs = {r.name: r for r in copying_and_delay().runs}
    chosen = {name: runs[f"{task}/{name}-64"] for name in LAYERS}
    small = {name: model_of(r.task, r.configuration.model | {"depth": 1}) for name, r in chosen.items()}
    shapes = {name: parameter.shape for name, parameter in small["rtf"].named_parameters()}
    assert [shape for name, shape in shapes.items() if name.endswith("denominator")] == [(1, 64)]
    for name in ("s4", "s4d"):
        steps = next(p for key, p in small[name].named_parameters() if key.endswith("inv_dt"))
        assert (steps.exp() - step).abs().max() < 1e-8


def test_tables_put_what_was_published_and_its_share_beside_published_tasks_only():
    def results(experiment):
        speeds = {"rtf": 1000.4, "s4": 500.2, "s4d": 2000.8}
        result = {"test": {"accuracy": 0.5, "rmse": 0.25}, "steps": 5000, "solved": 3000, "seconds": 9.6}
        return [(r, {**result, "tokens_per_second": speeds[r.labels["layer"]]}) for r in experiment.runs]

    accuracy, budget, rmse, all_steps, speed = tables(results(copying_and_delay()))
    assert accuracy.columns == ["state", "rtf", "s4", "s4d", "s4 published", "rtf published"]
    assert accuracy.rows[2] == [256, 0.5, 0.5, 0.5, PUBLISHED["copying"]["s4"][256], 1.0]
    assert budget.rows[0] == ["rtf", 64, 64, 5000, 8.0, 3000, 10]
    assert rmse.rows[4] == [1024, 0.25, 0.25, 0.25, 0.029, 0.006]
    assert all_steps.rows[0][4] == 100 * 5000 / 5120
    assert speed.rows[0] == ["copying", "rtf", 64, 1000, 2.0, 0.5]
    assert [table.title for table in tables(results(copying_and_delay(quick=True)))] == [accuracy.title, rmse.title, speed.title]
    assert tables(results(copying_and_delay(quick=True)))[0].columns == ["state", "rtf", "s4", "s4d"]
    assert tables([]) == []


def test_from_seed_to_table(tmp_path):
    report = run_experiment("copying-and-delay", tmp_path, quick=True, only="*-8", overrides=["steps=30", "warmup=1"])
    assert report.facts["runs"] == "6 of 12"
    assert [row[:2] for row in report.tables[-1].rows] == [["copying", name] for name in LAYERS]
