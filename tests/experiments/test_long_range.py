"""Long Range Arena: set-ups as published but for the steps, and tables that say by how much."""

from __future__ import annotations

import pytest

from ssmid.experiments.long_range import BATCH, LAYERS, PUBLISHED, STEPS, long_range, tables
from ssmid.experiments.models import filter_of, model_of
from ssmid.experiments.run import run_experiment
from ssmid.experiments.tasks.listops import ListOps
from ssmid.experiments.tasks.pathfinder import Pathfinder


def test_layers_differ_in_filters_rates_decay_and_dropout_alone():
    runs = {run.name: run for run in long_range().runs}
    assert set(runs) == {f"{task}/{layer}" for task in STEPS for layer in LAYERS}
    for task in STEPS:
        stripped = []
        for layer in LAYERS:
            values = runs[f"{task}/{layer}"].configuration.as_dict()
            for key in ("rate", "kernel_rate", "weight_decay", "kernel_decay"):
                del values[key]
            for key in ("filter", "layer", "dropout"):
                values["model"].pop(key, None)
            stripped.append(values)
        assert stripped[0] == stripped[1] == stripped[2]
        assert (stripped[0]["model"]["width"], stripped[0]["model"]["depth"], stripped[0]["batch"]) == (256, 6, BATCH[task])
        assert len({runs[f"{task}/{layer}"].task for layer in LAYERS}) == 1
    published = {"listops": ListOps(), "pathfinder-32": Pathfinder()}
    epochs = {task: STEPS[task] * BATCH[task] / published[task].size("train") for task in STEPS}
    assert epochs == {"listops": 40, "pathfinder-32": 200}


def test_rtf_decays_and_drops_as_its_authors_have_it():
    configurations = {run.name: run.configuration for run in long_range().runs}
    own = {name: (c.weight_decay, c.kernel_decay, c.model.get("dropout", 0.0)) for name, c in configurations.items()}
    assert (own.pop("listops/rtf"), own.pop("pathfinder-32/rtf")) == ((0.07, 0.07, 0.0), (0.05, 0.05, 0.1))
    assert set(own.values()) == {(0.05, None, 0.0)}


def test_listops_has_one_denominator_and_both_directions():
    run = next(run for run in long_range(quick=True).runs if run.name == "listops/rtf")
    names = {name: parameter.shape for name, parameter in model_of(run.task, run.configuration.model).named_parameters()}
    assert [shape[0] for name, shape in names.items() if name.endswith("denominator")] == [1, 1]


def test_listops_has_filters_of_2048_taps_as_published_and_a_step_is_compiled():
    runs = {run.name: run for run in long_range().runs}
    lengths = []
    for name in ("listops/rtf", "pathfinder-32/rtf"):
        options = runs[name].configuration.model
        lengths.append(filter_of("rtf", 2, options["order"], runs[name].task.length, options.get("filter", {}) | {"num_a": 1}).length)
        assert runs[name].configuration.compile
    assert lengths == [2048, 1024]


def test_tables_say_the_share_of_the_budget_and_who_is_faster():
    shared = {"valid": {"accuracy": 0.5}, "test": {"accuracy": 0.25}, "steps": 9000, "parameters": 3, "seconds": 1.0}
    runs = long_range().runs[:3]
    results = [(run, {**shared, "tokens_per_second": speed}) for run, speed in zip(runs, (300.0, 100.0, 200.0), strict=True)]
    accuracy, speed = tables(results)
    assert accuracy.rows[0] == ["listops", "rtf", 0.5, 0.25, PUBLISHED["listops"]["rtf"], 9000, 7.5, 3, 1]
    assert [row[3:] for row in speed.rows] == [[300, 3.0, 1.5], [100, 1.0, 0.5], [200, 2.0, 1.0]]
    assert tables([]) == []


def test_from_seed_to_table(tmp_path):
    report = run_experiment("long-range", tmp_path / "out", quick=True, overrides=[f"task.folder={tmp_path / 'kept'}"])
    assert [row[:2] for row in report.tables[0].rows] == [[task, layer] for task in STEPS for layer in LAYERS]
    assert all(0 <= row[3] <= 1 for row in report.tables[0].rows)
    assert {path.name.split("-")[0] for path in (tmp_path / "kept").iterdir()} == {"listops", "pathfinder"}
    with pytest.raises(ValueError, match="only: expected a pattern of listops/rtf"):
        run_experiment("long-range", tmp_path / "out", quick=True, only="image/*")
