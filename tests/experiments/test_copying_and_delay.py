"""Copying and Delay: set-ups as published but for what the docstring names, and tables that say the share of the budget."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ssmid.experiments.copying_and_delay import LAYERS, PUBLISHED, copying_and_delay, tables
from ssmid.experiments.experiment import Experiment, Run
from ssmid.experiments.measures.rational_poles import largest_share, rational_poles
from ssmid.experiments.models import model_of
from ssmid.experiments.run import run_experiment
from ssmid.experiments.tasks.copying import Copying
from ssmid.experiments.training.checkpoint import load_weights, save_weights
from ssmid.experiments.training.loop import WEIGHTS
from ssmid.nn import RTFFilter


def trainings_of(experiment: Experiment) -> list[Run]:
    return [job for job in experiment.runs if isinstance(job, Run)]


def test_tasks_widths_and_budgets():
    experiment = copying_and_delay()
    assert len(trainings_of(experiment)) == 2 * 3 * 5
    for r in trainings_of(experiment):
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
    for r in trainings_of(quick):
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
        return [(r, {**result, "tokens_per_second": speeds[r.labels["layer"]]}) for r in trainings_of(experiment)]

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
    assert report.facts["runs"] == "7 of 14"
    speed, poles = report.tables[-2:]
    assert [row[:2] for row in speed.rows] == [["copying", name] for name in LAYERS]
    row = dict(zip(poles.columns, poles.rows[0], strict=True))
    run = next(r for r in copying_and_delay(quick=True).runs if r.name == "copying/rtf-8")
    model = model_of(run.task, run.configuration.model)
    load_weights(tmp_path / run.name / WEIGHTS, model)
    (rational,) = (m for m in model.modules() if isinstance(m, RTFFilter))
    modulus = np.abs(np.roots([1, *rational.coefficients()[1][0].tolist()]))
    assert (row["state"], row["block"], row["of"], row["lag"], row["of all"]) == (8, 1, 8, 12, 32)
    assert row["largest modulus"] == pytest.approx(modulus.max(), rel=1e-9)
    assert row["poles outside the unit circle"] == (modulus > 1).sum()
    assert 0 < row["share of the energy there, median"] < row["at most, by its order"] == 1 / (2 - 8 / 12)


def test_tables_are_of_what_was_measured_not_of_how_a_result_looks():
    run = next(r for r in copying_and_delay(quick=True).runs if r.name == "poles/rtf-8")
    block = dict.fromkeys(("block", "outside", "poles", "largest_modulus", "share", "mostly_at", "mostly", "channels"), 1)
    found = {"blocks": [block], "lag": 12, "bound": 0.5}
    (table,) = tables([(run, found)])
    assert len(table.rows) == 1
    other = dataclasses.replace(run, measure=lambda folder, *, device, stage: found)
    assert list(tables([(other, found)])) == []


TOY = Copying(memorize=12, tokens=8, train=64, held_out=8)


def measured(folder, denominators: list[list[float]], delay: int | None, **options):
    """Of a model whose blocks have these denominators, and, where ``delay`` is given, channels of which two are delays by so much."""
    options = {"device": "cpu", "stage": lambda *a: None, **options}
    sizes = {"order": len(denominators[0]), "width": 3, "depth": len(denominators)}
    given = {"layer": "rtf", **sizes, "filter": {"num_a": 1, "init": "montel"}}
    torch.manual_seed(0)
    model = model_of(TOY, given)
    with torch.no_grad():
        for rational, a in zip([m for m in model.modules() if isinstance(m, RTFFilter)], denominators, strict=True):
            rational.denominator.copy_(torch.tensor(a))
            rational.feedthrough.fill_(100)
            if delay is not None:
                rational.numerator[:2] = 0
                rational.numerator[:2, delay - 1] = torch.tensor([0.5, -2.0])
    save_weights(folder / WEIGHTS, model, {})
    return rational_poles(folder, task=TOY, model=given, **options)


def test_poles_are_the_roots_that_a_denominator_was_made_of(tmp_path):
    roots = [[0.5, -0.25, 0.9j, -0.9j], [1.25, -0.5, 0.8 + 0.9j, 0.8 - 0.9j], [1.0 - 1e-3, 0.0, 0.0, -1.0 - 1e-3]]
    found = measured(tmp_path, [np.poly(r).real[1:].tolist() for r in roots], None)
    for block, r in zip(found["blocks"], roots, strict=True):
        assert block["largest_modulus"] == pytest.approx(np.abs(r).max(), rel=1e-6), "coefficients are kept in float32"
        assert (block["poles"], block["outside"]) == (4, (np.abs(r) > 1).sum())
    assert [block["block"] for block in found["blocks"]] == [0, 1, 2]
    assert (found["lag"], found["bound"]) == (12, 1 / (2 - 4 / 12))


def test_taps_are_those_of_the_trained_length_without_the_first(tmp_path):
    (block,) = measured(tmp_path, [[0.0] * 16], 12)["blocks"]
    assert (block["share"], block["there"], block["channels"], block["mostly_at"], block["mostly"]) == (1.0, 2, 3, 12, 2)
    found = measured(tmp_path, [[0.0] * 16], 12, lag=7)
    (block,) = found["blocks"]
    assert (found["lag"], block["there"], block["mostly_at"]) == (7, 0, 12)
    assert block["share"] < 1e-30
    with pytest.raises(ValueError, match="lag: expected 1 to 23, got 24"):
        measured(tmp_path, [[0.0] * 16], 12, lag=24)


def test_the_order_is_that_of_the_filters_and_a_model_has_to_have_them(tmp_path):
    def of(layer: str):
        given = {"layer": layer, "width": 3, "depth": 1}
        save_weights(tmp_path / WEIGHTS, model_of(TOY, given), {})
        return rational_poles(tmp_path, task=TOY, model=given, device="cpu", stage=lambda *a: None)

    found = of("rtf")
    assert (found["order"], found["blocks"][0]["poles"], found["bound"]) == (64, 3 * 64, 1)
    with pytest.raises(ValueError, match="model: expected one with rational filters, got one without"):
        of("s4d")


def test_no_recurrence_has_more_of_its_energy_at_one_lag():
    """Sharp where the order is the lag; random and nearly periodic recurrences, unstable ones among them, stay below."""
    generator = np.random.default_rng(0)
    for order, lag, length in ((1, 2, 4), (3, 5, 10), (3, 7, 10), (6, 8, 20), (8, 8, 16)):
        bound = largest_share(order, lag, length)
        radii = np.concatenate([generator.uniform(0.5, 1.2, (500, order)), np.ones((500, order))])
        poles = radii * np.exp(1j * generator.uniform(0, 2 * np.pi, (1000, order)))
        states = poles[:, None, :] ** np.arange(length - 1)[:, None]
        # the recurrence of these poles whose share is largest: the response at the lag, projected on what they span
        basis = np.linalg.qr(states)[0]
        best = (np.abs(basis[:, lag - 1]) ** 2).sum(-1)
        assert best.max() <= bound
        assert best.max() > 0.3 * bound, "no bound that says nothing"
    delay = np.eye(16)[8]
    assert largest_share(8, 8, 16) == delay[8] ** 2 / (delay[1:] ** 2).sum() == 1
