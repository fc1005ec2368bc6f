"""Byte-level language models of equal size, data and seeds: Hyena, Hyena with rational filters, MultiHyena and a Transformer.

What the papers compare on WikiText-103 (Parnichkun et al., ICML 2024) and The Pile (Massaroli et al., NeurIPS 2023), on text that every
machine with Python has. Differences between models mean something here; bits per byte beside perplexities of word pieces do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import torch

from ssmid.experiments.experiment import Experiment, Results, Run, trainings
from ssmid.experiments.models import model_of
from ssmid.experiments.tasks.corpus import Corpus
from ssmid.experiments.training.configuration import Configuration
from ssmid.nn.filter import Filter
from ssmid.report.tables import Table

MODELS: dict[str, dict[str, Any]] = {
    "transformer": {"mixer": "attention", "heads": 4, "hidden": 640},
    "hyena": {"mixer": "hyena", "hidden": 512},
    "hyena-rtf": {"mixer": "rtf", "order": 64, "denominator": "montel", "hidden": 568},
    "multihyena": {"mixer": "multihyena", "heads": 64, "hidden": 536},
    "hyena-rtf-8": {"mixer": "rtf", "order": 8, "hidden": 624},
    "hyena-hankel-8": {"mixer": "hyena", "hidden": 512},
}
"""Arguments of the models, 256 wide and six blocks deep; ``hidden`` makes their parameters equal within a per cent."""
TRAINED: dict[str, dict[str, Any]] = {
    "hyena-rtf": {"kernel_rate": 1e-2},
    "hyena-rtf-8": {"kernel_rate": 3e-2},
    "hyena-hankel-8": {"hankel_order": 8},
}
"""What is particular to the training of some: coefficients have no network in front of them, and hardly leave their start at the common
rate, which is the best for Hyena; Hyena that pays for what order 8 cannot hold."""
SEEDS: dict[str, tuple[int, ...]] = {name: (0,) if name[-1].isdigit() else (0, 1, 2) for name in MODELS}
PUBLISHED = {"transformer": 18.6, "hyena": 18.5, "hyena-rtf": 18.0}
"""Perplexities of word pieces on WikiText-103 with 12 blocks 768 wide."""

PARTS: tuple[str, ...] = ("embedding", "filters", "rest of mixers", "feed-forward", "norms")


def language_run(name: str, seed: int = 0, *, quick: bool = False) -> Run:
    """The training of one model; ``quick``: a toy. Raises ValueError for a name that is not in ``MODELS``."""
    if name not in MODELS:
        raise ValueError(f"model: expected one of {', '.join(MODELS)}, got {name!r}")
    model: dict[str, Any] = {**MODELS[name], "width": 256, "depth": 6}
    if quick:
        heads = {"heads": {"attention": 2, "multihyena": 4}[model["mixer"]]} if "heads" in model else {}
        model |= {"width": 16, "depth": 1, "hidden": 32, **heads}
    configuration = Configuration(
        model=model,
        steps=20 if quick else 1500,
        batch=8 if quick else 64,
        rate=4e-3 if quick else 1e-3,
        weight_decay=0.1,
        clip=1.0,
        warmup=2 if quick else 75,
        final=0.1,
        precision="float32" if quick else "bf16",
        seed=seed,
        evaluate_every=10 if quick else 150,
        evaluate_on=16 if quick else 128,
        checkpoint_every=20 if quick else 750,
        **TRAINED.get(name, {}),
    )
    task: Any = Corpus(length=64, train=256, held_out=0.01) if quick else Corpus(length=1024)
    return Run(f"{name}-{seed}", task, configuration, {"model": name, "seed": seed})


def language(*, quick: bool = False) -> Experiment:
    """Three seeds of each, and one of those whose name says an order: 98 million bytes, nine and a half epochs; ``quick``: toys."""
    runs = tuple(language_run(name, seed, quick=quick) for name in MODELS for seed in (SEEDS[name][:1] if quick else SEEDS[name]))
    return Experiment("language", runs, tables)


def tables(results: Results) -> Sequence[Table]:
    """Bits per byte of each model and its distance from Hyena of the same seed, with their spread; cost; what was published of such models.

    A seed draws the order of the data too, which models of one seed share: their differences spread less than they do.
    """
    first: dict[str, tuple[Run, Mapping[str, Any]]] = {}
    bits: dict[str, dict[int, float | None]] = {}
    for run, result in trainings(results):
        first.setdefault(run.labels["model"], (run, result))
        bits.setdefault(run.labels["model"], {})[run.labels["seed"]] = result["test"].get("bits")
    if not first:
        return []
    seeds = sorted({seed for found in bits.values() for seed in found})
    quality, cost = [], []
    for name, (run, result) in first.items():
        found = [value for value in bits[name].values() if value is not None]
        over = _per_cent_over(bits[name], bits.get("hyena", {})) if name != "hyena" else []
        quality.append([name, len(found), *_mean_and_deviation(found), *_mean_and_deviation(over)])
        seen = result["steps"] * run.configuration.batch * run.task.length
        cost.append([name, result["parameters"], seen, result["seconds"], round(result["tokens_per_second"])])
    columns = ["model", "seeds", "bits per byte", "deviation", "% over hyena", "deviation of that"]
    each = [[name, *(of.get(seed) for seed in seeds)] for name, of in bits.items()]
    parts = [[name, *_by_part(run).values()] for name, (run, _) in first.items()]
    published = [[name, perplexity, 100 * (perplexity / PUBLISHED["hyena"] - 1)] for name, perplexity in PUBLISHED.items()]
    return [
        Table("Bits per byte on held-out files: means over seeds, standard deviations", columns, quality),
        Table("Bits per byte of each seed", ["model", *(f"seed {seed}" for seed in seeds)], each),
        Table("Size and cost, of the first seed", ["model", "parameters", "bytes seen", "seconds", "bytes/s in training"], cost),
        Table("Parameters by part; the embedding is the head too", ["model", *PARTS], parts),
        Table("Published, of another corpus: WikiText-103", ["model", "perplexity", "% over hyena"], published),
    ]


def _per_cent_over(mine: Mapping[int, float | None], other: Mapping[int, float | None]) -> list[float]:
    """Seed by seed, those that both have."""
    pairs = [(value, other.get(seed)) for seed, value in mine.items()]
    return [100 * (value / beside - 1) for value, beside in pairs if value is not None and beside is not None]


def _mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    return mean(values) if values else None, stdev(values) if len(values) > 1 else None


def _by_part(run: Run) -> dict[str, int]:
    """Parameters of each of ``PARTS``, of a model that is never filled."""
    with torch.device("meta"):
        model = model_of(run.task, run.configuration.model)
    long = {id(p) for module in model.modules() if isinstance(module, Filter) for p in module.parameters()}
    embedding, filters, mixers, feed_forward, norms = PARTS
    parts: dict[str, int] = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        names = {"embedding": embedding, "mixer": mixers, "mlp": feed_forward}
        known = next((part for key, part in names.items() if key in name.split(".")), norms)
        parts[filters if id(parameter) in long else known] += parameter.numel()
    return parts
