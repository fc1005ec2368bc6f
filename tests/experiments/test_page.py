"""The page of results holds what the JSON of experiments says, and is no older than it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ssmid
from ssmid.experiments import page, run
from ssmid.experiments.experiment import Experiment, Measurement, Run
from ssmid.experiments.training import Configuration
from ssmid.report.tables import Table
from tests.experiments.toy_tasks import MODEL, Toy

DOCS = Path(ssmid.__file__).parents[1] / "docs"


@pytest.fixture
def results(tmp_path, monkeypatch) -> dict:
    """The JSON of an experiment of three trainings and a measurement, of which one training was not run."""

    def of_seed(seed: int) -> Run:
        return Run(f"toy/{seed}", Toy(), Configuration(model=MODEL, steps=4 + seed, batch=8, seed=seed), {"seed": seed})

    def toy(*, quick: bool = False) -> Experiment:
        runs = tuple(of_seed(seed) for seed in range(3))
        measured = Measurement("toy/measured", lambda weights, *, device, stage: {"rate": 123456.7, "seconds": 2.5}, {}, runs[:1])
        return Experiment("toy", (*runs, measured), tables)

    def tables(found):
        return [Table("Losses | all", ["name", "seed"], [[job.name, job.labels.get("seed")] for job, _ in found])]

    monkeypatch.setitem(run.EXPERIMENTS, "toy", toy)
    run.run_experiment("toy", tmp_path, only="toy/0,toy/2,toy/measured", overrides=["task.length=8"])
    return json.loads((tmp_path / "toy.json").read_text())


def test_a_page_says_how_on_what_and_what_came_out(results):
    text = page.markdown(results)
    assert text.startswith("`ssmid experiment toy task.length=8 -o results`\n")
    assert results["machine"]["processor"] in text
    assert "\nTasks: toy-token (" in text
    assert "length 8" in text.split("Tasks: ")[1].split("\n")[0]
    seconds = sum(r["result"]["seconds"] for r in results["runs"][:2])
    tokens = "256 to 384"  # 4 and 6 steps of 8 sequences of 8
    parameters = results["runs"][0]["result"]["parameters"]
    assert f"| toy-token | 2 | 4 to 6 | 8 | {tokens} | {parameters} | float32 | 0, 2 | {page.shown(seconds)} |" in text
    assert "| measured | 1 |  |  |  |  |  |  | 2.5 |" in text
    assert "**Losses | all**\n\n| name | seed |\n|---|---:|\n| toy/0 | 0 |\n| toy/2 | 2 |\n| toy/measured |  |\n" in text
    assert text.endswith("Not run: `toy/1` (3 of 4 were).\n")
    assert "Toy sizes" not in text


def test_what_failed_what_is_small_and_where_it_ran_is_said(results):
    words = ["The loss was not finite any more in: toy/2."]
    results |= {"quick": True, "overrides": ["task.folder=/home/someone", "steps=5"], "words": words}
    results["machine"] |= {"accelerator": "A GPU", "cuda": "13.0"}
    text = page.markdown(results)
    assert text.startswith("`ssmid experiment toy --quick --device cuda task.folder=DIR steps=5 -o results`\n\n**Toy sizes**")
    assert "A GPU (CUDA 13.0)" in text
    assert "\nThe loss was not finite any more in: toy/2.\nNot run:" in text
    assert "someone" not in text


def test_jobs_of_another_machine_are_named_with_it(results):
    here = results["machine"] = results["machine"] | {"load": 0.0}
    assert "another machine" not in page.markdown(results)
    for job, processor in zip(results["runs"], ("P | 1", "P2", "P2"), strict=True):
        job["machine"] = {**here, "processor": processor, "load": 0.0}
    before, first, second, last = page.markdown(results).rsplit("\n", 4)[:4]
    assert first.startswith("On another machine: `toy/0`: P | 1, ")
    assert second.startswith("On another machine: `toy/2`, `toy/measured`: P2, ")
    assert last.startswith("Not run: `toy/1`")
    assert before.endswith("\n")
    results["runs"][0]["machine"]["load"] = results["runs"][2]["machine"]["load"] = 1e6
    assert page.markdown(results).count("The machine was busy") == 2
    del results["runs"][2]["result"]["seconds"]
    assert page.markdown(results).count("The machine was busy") == 1, "what takes no time does not mind"
    results["runs"][2]["result"] = {"answers": [{"batch": 1}, {"seconds": 0.5}]}
    assert page.markdown(results).count("The machine was busy") == 2


def test_long_tables_are_folded(results):
    results["tables"] = {name: [{"order": n} for n in range(count)] for name, count in (("short", 30), ("a < b", 31))}
    text = page.markdown(results)
    assert "\n**short**\n\n| order |\n|---:|\n| 0 |" in text
    assert "\n<details>\n<summary><b>a &lt; b</b> (31 rows)</summary>\n\n| order |\n|---:|\n| 0 |" in text
    assert "| 30 |\n\n</details>\n" in text


def test_a_block_is_all_that_a_new_result_takes(results, tmp_path):
    text = page.page("before\n<!-- results: toy.json -->\n<!-- end -->\nafter <!-- figures: x --> stays", tmp_path)
    assert text == f"before\n<!-- results: toy.json -->\n{page.markdown(results)}<!-- end -->\nafter <!-- figures: x --> stays"
    assert page.page(text, tmp_path) == text
    with pytest.raises(FileNotFoundError, match=r"other\.json"):
        page.page("<!-- results: other.json --><!-- end -->", tmp_path)


def test_the_page_is_rendered_from_the_results():
    """docs/reproduction.md holds what ``python -m ssmid.experiments.page docs`` makes of docs/experiments/*.json, each of them once."""
    if not DOCS.is_dir():
        pytest.skip("needs a checkout")
    text = (DOCS / page.PAGE).read_text()
    names = [part.split(" -->")[0] for part in text.split("<!-- results: ")[1:]]
    assert sorted(names) == sorted(path.name for path in (DOCS / page.RESULTS).glob("*.json"))
    assert page.page(text, DOCS / page.RESULTS) == text, "run python -m ssmid.experiments.page docs"


def test_results_that_are_kept_are_no_toys():
    for path in (DOCS / page.RESULTS).glob("*.json"):
        results = json.loads(path.read_text())
        # of one experiment there may be results by several budgets
        assert path.stem.startswith(results["experiment"])
        assert results["quick"] is False
