"""The models that the package carries: how they are trained, and how they are packed."""

from __future__ import annotations

import json

import pytest
import torch

from ssmid.experiments.experiment import Run
from ssmid.experiments.models import model_of
from ssmid.experiments.run import run_experiment
from ssmid.experiments.small_models import MIXERS, pack, small_models
from ssmid.io.language_models import load_model


def test_they_differ_in_the_mixer_alone():
    experiment = small_models()
    found = [run for run in experiment.runs if isinstance(run, Run)]
    assert [run.name for run in found] == [f"small-models/{name}" for name in MIXERS]
    rest = [{**run.configuration.as_dict(), "model": None} for run in found]
    assert rest == [rest[0]] * 3
    sizes = [sum(p.numel() for p in model_of(run.task, run.configuration.model).parameters()) for run in found]
    assert 500_000 < min(sizes) <= max(sizes) < 750_000
    heads = model_of(found[1].task, found[1].configuration.model).blocks[0].mixer
    assert (heads.heads, heads.width // heads.heads) == (32, 4)


def test_from_a_seed_to_files_of_the_package(tmp_path):
    report = run_experiment("small-models", tmp_path / "run", quick=True)
    assert report is not None
    assert [row[0] for row in report.tables[0].rows] == list(MIXERS)
    (tmp_path / "data").mkdir()
    facts = pack(tmp_path / "run", tmp_path / "data")
    assert json.loads((tmp_path / "data" / "small_models.json").read_bytes()) == facts
    for (name, known), row in zip(facts.items(), report.tables[0].rows, strict=True):
        before = load_model(tmp_path / "run" / "small-models" / name / "model.safetensors")
        after = load_model(tmp_path / "data" / f"{name}.safetensors")
        assert after.embedding.weight.dtype == torch.float16
        assert torch.equal(after.embedding.weight, before.embedding.weight.half())
        for key, x in before.state_dict().items():
            torch.testing.assert_close(after.state_dict()[key].to(x.dtype), x, rtol=1e-3, atol=1e-6)
        assert (known["parameters"], known["steps"], known["valid"]["bits"], known["test"]["bits"]) == tuple(row[1:5])
        assert known["test"]["bits"] == pytest.approx(known["rounding"]["bits_before"], rel=1e-5)
        assert known["rounding"]["bits_after"] == pytest.approx(known["rounding"]["bits_before"], abs=1e-3)
        assert known["rounding"]["bits_after"] != known["rounding"]["bits_before"]


def test_models_of_another_text_are_refused(tmp_path):
    path = tmp_path / "small-models" / "hyena"
    path.mkdir(parents=True)
    task = {**small_models(quick=True).runs[0].as_dict()["task"], "sha256": "0"}
    (path / "result.json").write_text(json.dumps({"identity": {"task": task, "configuration": {}}, "result": {}}))
    with pytest.raises(ValueError, match=r"expected a model of the standard library of Python 3.*, got one of another text"):
        pack(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="expected a job that is over, got none"):
        pack(tmp_path / "nothing", tmp_path)
