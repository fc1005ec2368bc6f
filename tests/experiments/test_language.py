"""Language models of bytes: equal in size, data and seeds, and a table that says so."""

from __future__ import annotations

import pytest

from ssmid.experiments.language import MODELS, SEEDS, language, language_run, tables
from ssmid.experiments.models import model_of
from ssmid.experiments.run import run_experiment


def test_models_have_equally_many_parameters_and_the_same_data():
    runs = {run.name: run for run in language().runs}
    assert len(runs) == sum(len(seeds) for seeds in SEEDS.values()) == 14
    sizes = {}
    for name in MODELS:
        run = runs[f"{name}-0"]
        sizes[name] = sum(p.numel() for p in model_of(run.task, run.configuration.model).parameters())
    assert max(sizes.values()) < 1.01 * min(sizes.values()), sizes
    shared = [{**run.configuration.as_dict(), "model": None, "seed": None, "hankel_order": None} for run in runs.values()]
    assert all(configuration == shared[0] for configuration in shared)
    assert {run.task for run in runs.values()} == {runs["hyena-0"].task}
    assert runs["hyena-2"].configuration.seed == runs["hyena-2"].labels["seed"] == 2


def test_unknown_model():
    with pytest.raises(ValueError, match="model: expected one of transformer, hyena, .*, got 'mamba'"):
        language_run("mamba")


def test_tables_give_means_and_spread_over_seeds():
    runs = [language_run("hyena", 0), language_run("hyena", 1), language_run("hyena-rtf", 0)]
    results = [
        (run, {"test": {"bits": bits}, "parameters": 7, "tokens_per_second": 10.4}) for run, bits in zip(runs, (1.0, 3.0, 1.0), strict=True)
    ]
    hyena, rtf = tables(results)[0].rows
    seen = 1500 * 64 * 1024
    assert hyena == ["hyena", 7, seen, 2, 2.0, pytest.approx(2**0.5), 0.0, 10]
    assert rtf == ["hyena-rtf", 7, seen, 1, 1.0, None, -50.0, 10]
    assert [row[-1] for row in tables(results)[1].rows] == [1.0, 3.0, 1.0]
    assert tables([]) == []


def test_from_seed_to_table(tmp_path):
    report = run_experiment("language", tmp_path, quick=True)
    rows = {row[0]: row for row in report.tables[0].rows}
    assert list(rows) == list(MODELS)
    assert all(4 < row[4] < 8 for row in rows.values()), "better than chance, which is 8 bits"
    assert (tmp_path / "curves-corpus.png").exists()
