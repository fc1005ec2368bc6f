"""Three small language models of bytes, trained on Python's standard library: those that the package carries.

Hyena, MultiHyena and Hyena with rational filters, of the same width and depth and over the same text, in a minute of one GPU each.
``python -m ssmid.experiments.small_models DIR`` writes what ``ssmid experiment small-models -o DIR`` trained into the package's data:
weights rounded to float16, filters in float32, and ``small_models.json``, which says how they were made and what the rounding costs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ssmid.experiments.experiment import Experiment, Results, Run, trainings
from ssmid.experiments.measures.predictions import Predictions
from ssmid.experiments.tasks.corpus import Corpus
from ssmid.experiments.training.configuration import Configuration
from ssmid.experiments.training.loop import WEIGHTS
from ssmid.experiments.training.result import expect_result
from ssmid.io.files import write_bytes
from ssmid.io.language_models import load_model, save_model
from ssmid.report.progress import Stage, progress
from ssmid.report.tables import Table

MIXERS: dict[str, dict[str, Any]] = {
    "hyena": {"mixer": "hyena"},
    "multihyena": {"mixer": "multihyena"},
    "hyena-rtf": {"mixer": "rtf", "order": 16},
}
"""What tells the models apart, by the names that :func:`ssmid.datasets.trained_model` knows; heads of MultiHyena have four channels."""
FACTS = "small_models.json"
_ROWS = 4


def small_models(*, quick: bool = False) -> Experiment:
    """0.6 to 0.7 million parameters each, over windows of 512 bytes, about ten epochs; ``quick``: toys."""
    task: Any = Corpus(length=64, held_out=0.01) if quick else Corpus(length=512)
    width, depth = (8, 1) if quick else (128, 4)
    runs = []
    for name, mixer in MIXERS.items():
        heads = {"heads": width // _ROWS} if name == "multihyena" else {}
        configuration = Configuration(
            model={**mixer, **heads, "width": width, "depth": depth, "hidden": 2 * width},
            steps=20 if quick else 1600,
            batch=8 if quick else 128,
            rate=4e-3,
            kernel_rate=1e-3,
            weight_decay=0.1,
            clip=1.0,
            warmup=4 if quick else 160,
            final=0.05,
            precision="float32" if quick else "bf16",
            evaluate_every=10 if quick else 200,
            evaluate_on=16 if quick else None,
            checkpoint_every=20 if quick else 800,
        )
        runs.append(Run(f"small-models/{name}", task, configuration, {"model": name}))
    return Experiment("small-models", tuple(runs), tables)


def tables(results: Results) -> Sequence[Table]:
    """A row for each model."""
    columns = ["model", "parameters", "steps", "bits per byte, valid", "bits per byte, test", "seconds"]
    rows = [
        [run.labels["model"], result["parameters"], result["steps"], *_bits_of(result), round(result["seconds"], 1)]
        for run, result in trainings(results)
    ]
    return [Table("Small language models of bytes", columns, rows)] if rows else []


def _bits_of(result: Mapping[str, Any]) -> list[float | None]:
    return [result[split].get("bits") for split in ("valid", "test")]


def pack(folder: Path, target: Path, *, stage: Stage | None = None) -> dict[str, Any]:
    """Writes the models that were trained in ``folder`` to ``target``, each as ``NAME.safetensors``, and ``small_models.json``, given back.

    Bits per byte before and after the rounding are measured on the test split, on this CPU, in float32: a minute or two. Raises
    ValueError where a model is missing, and where the running interpreter's library is not the text that it was trained on.
    """
    said = stage or (lambda description, done=None, total=None: None)
    made: dict[str, Any] = {}
    for number, name in enumerate(MIXERS):
        said(f"{name}: rounding", number, len(MIXERS))
        path = folder / "small-models" / name
        trained = expect_result(path)
        given, found, task = trained.identity, trained.result, trained.identity["task"]
        here: Any = Corpus(length=task["length"], held_out=task["held_out"])
        if here.facts()["sha256"] != task["sha256"]:
            raise ValueError(f"{path}: expected a model of {here.facts()['source']}, got one of another text: run this with that Python")
        model, kept = load_model(path / WEIGHTS), target / f"{name}.safetensors"
        # said by the model before its numbers are rounded in place
        said_before = Predictions(model, here, "test", device="cpu", batch=16)
        save_model(model.half(), kept)
        after = {f"{key}_after": value for key, value in said_before.beside(load_model(kept).float()).items()}
        made[name] = {
            "command": f"ssmid experiment small-models --device {found['device']}",
            "task": {**task, "source": here.facts()["source"]},
            "configuration": given["configuration"],
            **{key: found[key] for key in ("steps", "parameters", "seconds", "valid", "test")},
            "rounding": {"bits_before": said_before.bits, **after},
        }
    write_bytes(target / FACTS, json.dumps(made, indent=1, allow_nan=False).encode() + b"\n")
    return made


if __name__ == "__main__":
    with progress() as stage:
        written = pack(Path(sys.argv[1]), Path(str(files("ssmid"))) / "data", stage=stage)
    for name, model in written.items():
        print(f"{name:12} {model['rounding']['bits_before']:.5f} bits a byte as trained, {model['rounding']['bits_after']:.5f} as kept")
