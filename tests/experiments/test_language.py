"""Language models of bytes: equal in size, data and seeds, and a table that says so."""

from __future__ import annotations

import pytest

from ssmid.experiments.language import MODELS, SEEDS, language, language_run, tables
from ssmid.experiments.models import model_of
from ssmid.experiments.run import run_experiment
from ssmid.nn import RTFFilter


def test_models_have_equally_many_parameters_and_the_same_data():
    runs = {run.name: run for run in language().runs}
    assert len(runs) == sum(len(seeds) for seeds in SEEDS.values()) == 14
    sizes = {}
    for name in MODELS:
        run = runs[f"{name}-0"]
        sizes[name] = sum(p.numel() for p in model_of(run.task, run.configuration.model).parameters())
    assert max(sizes.values()) < 1.01 * min(sizes.values()), sizes
    own = dict.fromkeys(("model", "seed", "hankel_order", "kernel_rate"))
    shared = [run.configuration.as_dict() | own for run in runs.values()]
    assert all(configuration == shared[0] for configuration in shared)
    assert {run.task for run in runs.values()} == {runs["hyena-0"].task}
    assert runs["hyena-2"].configuration.seed == runs["hyena-2"].labels["seed"] == 2


def test_denominators_are_an_option_of_the_model():
    run = language_run("hyena-rtf", quick=True)
    options = run.configuration.with_overrides(["model.denominator=montel", "model.order=40"]).model
    (found,) = [module for module in model_of(run.task, options).modules() if isinstance(module, RTFFilter)]
    assert (found.denominator_kind, found.order, found.length) == ("montel", 40, run.task.length)
    with pytest.raises(ValueError, match=r"denominator: expected one of free, montel, .*, got 'stable'"):
        model_of(run.task, {**options, "denominator": "stable"})


def test_unknown_model():
    with pytest.raises(ValueError, match=r"model: expected one of transformer, hyena, .*, got 'mamba'"):
        language_run("mamba")


def test_tables_give_means_and_spread_over_seeds():
    given = [("hyena", 0, 2.0), ("hyena", 1, 4.0), ("hyena-rtf", 1, 3.0), ("hyena-rtf", 0, 2.0), ("multihyena", 2, 1.0)]
    spent = {"steps": 3, "parameters": 7, "seconds": 2.5, "tokens_per_second": 10.4}
    results = [(language_run(name, seed), {"test": {"bits": bits}, **spent}) for name, seed, bits in given]
    results.append((language_run("transformer"), {"test": {}, **spent}))
    quality, each, cost, parts, published = tables(results)
    assert [list(row) for row in quality.rows] == [
        ["hyena", 2, 3.0, pytest.approx(2**0.5), None, None],
        ["hyena-rtf", 2, 2.5, pytest.approx(0.5**0.5), -12.5, pytest.approx(25 * 0.5**0.5)],  # 0 and -25 %, seed by seed
        ["multihyena", 1, 1.0, None, None, None],  # there is no Hyena of its seed
        ["transformer", 0, None, None, None, None],  # diverged
    ]
    assert each.columns == ["model", "seed 0", "seed 1", "seed 2"]
    assert each.rows[1:3] == [["hyena-rtf", 2.0, 3.0, None], ["multihyena", None, None, 1.0]]
    assert cost.rows[0] == ["hyena", 7, 3 * 64 * 1024, 2.5, 10]
    assert parts.rows[-1] == ["transformer", 65536, 0, 6 * (4 * 256 * 256 + 4 * 256), 6 * (2 * 256 * 640 + 640 + 256), 13 * 512]
    hyena = language_run("hyena")
    assert sum(parts.rows[0][1:]) == sum(p.numel() for p in model_of(hyena.task, hyena.configuration.model).parameters())
    assert parts.rows[1][2] == 6 * 256 * (2 * 64 + 2), "numerator, denominator and its scale, bypass"
    assert [row[:2] for row in published.rows] == [["transformer", 18.6], ["hyena", 18.5], ["hyena-rtf", 18.0]]
    assert tables([]) == []


def test_from_seed_to_table(tmp_path):
    report = run_experiment("language", tmp_path, quick=True)
    rows = {row[0]: row for row in report.tables[0].rows}
    assert list(rows) == list(MODELS)
    assert all(4 < row[2] < 8 for row in rows.values()), "better than chance, which is 8 bits"
    assert (tmp_path / "curves-corpus.png").exists()
