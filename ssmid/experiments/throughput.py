"""Throughput of language models of 1.3B parameters, prompts and answers end to end (Massaroli et al., NeurIPS 2023).

Weights are random and bf16, states of recurrences float32: no time depends on what is in the weights. Every system answers prompts of 512
tokens with 256 over batches, all of it timed, three times where it is over soon; then longer prompts and other answers at one batch, where
the steps of long answers are composed of a few. The tables say how a time came about.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ssmid.bench.decode_answers import EndToEnd, answered, warm_up
from ssmid.bench.decode_sizes import CACHED, DISTILLED, FILLED, MULTI, TRANSFORMER, Sizes, System
from ssmid.experiments.experiment import Experiment, Measurement, Results
from ssmid.report.progress import Stage
from ssmid.report.tables import Table

BATCHES: dict[str, tuple[int, ...]] = {
    DISTILLED: (1, 16, 64, 256, 1024, 2048),
    MULTI: (1, 16, 64, 256, 512),
    TRANSFORMER: (1, 16, 64, 256, 384, 512),
    CACHED: (1, 16, 64, 512),
    FILLED: (128,),
}
"""Of each system, up to where more sequences bring no more tokens or do not fit into 140 GB."""
NAMES = {DISTILLED: "hyena", TRANSFORMER: "transformer", MULTI: "multihyena", CACHED: "cached-convolution", FILLED: "future-fill"}
PUBLISHED = {TRANSFORMER: 10.0, CACHED: 1.5}
"""Times the tokens a second of these that a distilled model of 1.3B is said to make, prompt 512 and 256 generated, on one A100 of 80 GB."""
_PATIENCE = 3.0
"""Seconds of steps, from which on those of longer prompts and answers are composed of a few."""

_SOON, _SAMPLES = 1.5, 3
"""Answers that take less than so many seconds end to end are made so many times; what is said of them is said of the median one."""

OUT_OF_MEMORY = "-"


def throughput(*, quick: bool = False) -> Experiment:
    """A measurement for each system; ``quick``: models of a few thousand parameters."""
    common: dict[str, Any] = {"prompt": 512, "new": 256, "prompts": (2048, 8192), "answers": (64, 1024), "batch": 64, "small": quick}
    batches = BATCHES
    if quick:
        common |= {"prompt": 8, "new": 4, "prompts": (16,), "answers": (2, 40), "batch": 2}
        batches = dict.fromkeys(BATCHES, (1, 2))
    jobs = []
    for system, name in NAMES.items():
        options = {"system": system, "batches": batches[system], **common, "patience": _PATIENCE}
        if system == FILLED:  # beside the other exact way only where that is at its best
            options |= {"prompts": (), "answers": ()}
        jobs.append(Measurement(f"throughput/{name}", answers, {"system": system}, options=options))
    return Experiment("throughput", tuple(jobs), tables)


# ---------------------------------------------------------------- measuring


@dataclasses.dataclass(frozen=True)
class _Point:
    """``over``: what is varied."""

    over: str
    batch: int
    prompt: int
    new: int


def answers(
    *,
    system: str,
    batches: Sequence[int],
    prompts: Sequence[int],
    answers: Sequence[int],
    prompt: int,
    new: int,
    batch: int,
    patience: float,
    small: bool,
    device: str,
    stage: Stage,
) -> dict[str, Any]:
    """Answers of one system: ``new`` tokens after ``prompt`` ones over ``batches``, then ``prompts`` and ``answers`` of other lengths.

    These are at ``batch`` sequences, or at the largest half, quarter, ... of it that fits; where their steps would take longer than
    ``patience`` seconds their time is composed, see :func:`ssmid.bench.decode_answers.answered`. Answers that are over in less than
    1.5 seconds are made three times, and are the median one. Bytes at the peak are torch's
    allocator's, weights included, None where there is no GPU. Raises ValueError for an unknown system, and for sizes less than 1.
    """
    if (least := min(batch, prompt, new, *batches, *prompts, *answers)) < 1:
        raise ValueError(f"measure: expected batches, prompts and answers of at least 1, got {least}")
    points = [_Point("batch", size, prompt, new) for size in batches]
    points += [_Point("prompt", batch, length, new) for length in prompts]
    points += [_Point("generated", batch, prompt, length) for length in answers]
    # models of exact ways are made for a length
    points.sort(key=lambda point: (point.prompt + point.new, point.batch))
    made = _system(system, max(point.prompt + point.new for point in points), small, device)
    found: list[dict[str, Any]] = []
    for number, point in enumerate(points):
        stage(f"batch {point.batch}, prompt {point.prompt}, {point.new} generated", number, len(points))
        model = made.model(point.prompt + point.new)
        rest = math.inf if point.over == "batch" or made.steps_differ else patience
        tried = [point.batch] if point.over == "batch" else _halves(point.batch)
        found.append(_answer(model, point, tried, rest, device))
    made.forget()
    return {"answers": sorted(found, key=lambda a: (a["over"], a["prompt"], a["new"], a["batch"]))}


def _system(name: str, length: int, small: bool, device: str) -> System:
    """Filters and places of tokens reach over ``length``."""
    from ssmid.bench.decode_systems import systems

    sizes = dataclasses.replace(Sizes.tiny() if small else Sizes(), trained_length=length, contexts=(length,))
    known = {system.name: system for system in systems(sizes, device)}
    if name not in known:
        raise ValueError(f"system: expected one of {', '.join(known)}, got {name!r}")
    return known[name]


def _halves(batch: int) -> Iterator[int]:
    while batch:
        yield batch
        batch //= 2


def _answer(model: Any, point: _Point, tried: Iterator[int] | Sequence[int], patience: float, device: str) -> dict[str, Any]:
    """At the first batch of ``tried`` that fits."""
    from ssmid.bench.replay import unless_out_of_memory
    from ssmid.nn import memory_per_sequence

    facts = {"over": point.over, "prompt": point.prompt, "new": point.new, "of_batch": point.batch}
    state = memory_per_sequence(model, point.prompt + point.new)
    for batch in tried:

        def run(batch: int = batch) -> EndToEnd:
            return answered(model, batch, point.prompt, point.new, device, patience=patience)

        def samples(batch: int = batch, run: Callable[[], EndToEnd] = run) -> tuple[list[EndToEnd], int | None]:
            warm_up(model, batch, point.prompt, device, length=point.prompt + point.new)
            first, peak = _with_peak(run, device)
            soon = first.composed_of is None and first.timing.seconds < _SOON
            return [first, *(run() for _ in range(_SAMPLES - 1 if soon else 0))], peak

        found = unless_out_of_memory(samples, device)
        if found is not None:
            ends, peak = found
            end = sorted(ends, key=lambda end: end.timing.seconds)[len(ends) // 2]
            times = {"seconds": end.timing.seconds, "reading": end.reading, "tokens_per_second": end.rate, "composed_of": end.composed_of}
            several = {"samples": len(ends), "slowest": max(end.timing.seconds for end in ends)}
            return {**facts, "batch": batch, **times, **several, "peak_bytes": peak, "state_bytes": state}
    return {**facts, "batch": point.batch, "out_of_memory": True, "state_bytes": state}


def _with_peak(run: Callable[[], EndToEnd], device: str) -> tuple[EndToEnd, int | None]:
    """What ``run`` gave, and the most bytes that were allocated within it, weights included; None where there is no GPU."""
    import torch

    from ssmid.bench.replay import peak_bytes

    if not device.startswith("cuda"):
        return run(), None
    found: list[EndToEnd] = []
    before, more = torch.cuda.memory_allocated(device), peak_bytes(lambda: found.append(run()), device)
    return found[0], None if more is None else before + more


# ---------------------------------------------------------------- tables

Answer = Mapping[str, Any]


def tables(results: Results) -> Sequence[Table]:
    """By batch, side by side; each at its best batch; by prompt and by answer; memory."""
    found = {str(job.labels["system"]): result["answers"] for job, result in results}
    if not found:
        return []
    return [_by_batch(found), _at_best(found), _by_length(found, "prompt"), _by_length(found, "generated"), _memory(found)]


def _by_batch(found: Mapping[str, Sequence[Answer]]) -> Table:
    over = {name: {a["batch"]: a for a in answers if a["over"] == "batch"} for name, answers in found.items()}
    rows = [[batch, *(_rate(of.get(batch)) for of in over.values())] for batch in sorted({b for of in over.values() for b in of})]
    return Table(f"Tokens a second by batch, end to end: {_task(found)}", ["batch", *over], rows)


def _task(found: Mapping[str, Sequence[Answer]]) -> str:
    first = next(a for answers in found.values() for a in answers if a["over"] == "batch")
    return f"prompt {first['prompt']}, {first['new']} generated"


def _rate(answer: Answer | None) -> Any:
    """None where it was not measured."""
    return None if answer is None else OUT_OF_MEMORY if answer.get("out_of_memory") else round(answer["tokens_per_second"])


def best(answers: Sequence[Answer]) -> Answer | None:
    """Of those over batches the one of the most tokens a second; None where nothing fits."""
    fit = [a for a in answers if a["over"] == "batch" and not a.get("out_of_memory")]
    return max(fit, key=lambda a: a["tokens_per_second"], default=None)


def _at_best(found: Mapping[str, Sequence[Answer]]) -> Table:
    ends = {name: end for name, answers in found.items() if (end := best(answers)) is not None}
    columns = ["system", "batch", "tokens/s", "of it reading, s", "seconds", "how"]
    columns += [f"times {other}" for other in PUBLISHED] + [f"published: times {other}" for other in PUBLISHED]
    rows = []
    for name, end in ends.items():
        ratios = [end["tokens_per_second"] / ends[other]["tokens_per_second"] if other in ends else None for other in PUBLISHED]
        published = list(PUBLISHED.values()) if name in (DISTILLED, MULTI) else [None] * len(PUBLISHED)
        rows.append([name, end["batch"], _rate(end), end["reading"], end["seconds"], _how(end), *ratios, *published])
    return Table(f"Each at its best batch, end to end: {_task(found)} (published: one A100 of 80 GB)", columns, rows)


def _by_length(found: Mapping[str, Sequence[Answer]], over: str) -> Table:
    """With those over batches that are of the same batch."""
    rows = []
    for name, answers in found.items():
        sweep = [a for a in answers if a["over"] == over]
        sweep += [a for a in answers if a["over"] == "batch" and sweep and a["batch"] == sweep[0]["of_batch"]]
        for a in sorted(sweep, key=lambda a: (a["prompt"], a["new"])):
            rows.append([name, a["prompt"], a["new"], a["batch"], _rate(a), a.get("reading"), a.get("seconds"), _how(a)])
    columns = ["system", "prompt", "generated", "batch", "tokens/s", "of it reading, s", "seconds", "how"]
    return Table(f"Tokens a second by tokens {'of the prompt' if over == 'prompt' else over}", columns, rows, limit=40)


def _how(answer: Answer) -> str:
    if answer.get("out_of_memory"):
        return "out of memory"
    steps = answer["composed_of"]
    if steps is not None:
        return f"composed: prompt read, {steps} of {answer['new'] - 1} steps timed"
    samples = answer.get("samples", 1)  # results from before it was kept are of one
    return "end to end, once" if samples == 1 else f"end to end, median of {samples}"


def _memory(found: Mapping[str, Sequence[Answer]]) -> Table:
    rows = []
    for name, answers in found.items():
        for a in answers:
            peak = OUT_OF_MEMORY if a.get("out_of_memory") else None if a["peak_bytes"] is None else a["peak_bytes"] / 2**30
            rows.append([name, a["prompt"], a["new"], a["batch"], peak, a["state_bytes"] / 2**20])
    columns = ["system", "prompt", "generated", "batch", "peak, GiB, weights included", "state, MiB a sequence"]
    return Table("Memory", columns, rows, limit=60)
