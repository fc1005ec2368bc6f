"""Distillation without loss: trained language models with every filter a small recurrence, by each method and at each order.

The trainings are those of the experiment ``language``, found done where both are given the same folder. The bar is what Massaroli et al.
(NeurIPS 2023) claim: at order 16 no loss of quality, here bits per byte within 0.1 % of the teacher's on held-out files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssmid.experiments.experiment import Experiment, Job, Measurement, Results, measurements
from ssmid.experiments.language import MODELS, language_run
from ssmid.experiments.measures.distilled import distilled, noise_floor
from ssmid.experiments.measures.filters import BALANCED, ERRORS, EXACT, L2, METHODS, WEIGHTED
from ssmid.experiments.measures.noise import PHASES, SIGNS
from ssmid.experiments.measures.tuning import tuned
from ssmid.report.tables import Table

ORDERS = (4, 8, 16, 32, 64)
TEACHERS = {"hyena": ORDERS, "multihyena": ORDERS, "hyena-rtf": ORDERS, "hyena-hankel-8": ORDERS[:3], "hyena-rtf-8": ORDERS[:2]}
"""At which orders: rational filters at none above their own."""
TUNED = ("hyena", "multihyena", "hyena-rtf")
"""Whose noise floor is looked into, and which are trained on."""
BAR_ORDER, BAR = 16, 0.1
"""Per cent of the teacher's bits that the bar allows to be lost at this order."""
STEPS = 3000
"""Of gradient descent; the paper takes many more and a smaller rate."""


def distillation(*, quick: bool = False) -> Experiment:
    """Every teacher of seed 0, what each method makes of it, its noise floor, and some trained on; ``quick``: three toys."""
    names = TUNED if quick else TEACHERS
    jobs = [job for name in names for job in _jobs(name, (2, 4) if quick else TEACHERS[name], quick)]
    return Experiment("distillation", tuple(jobs), tables)


def _jobs(name: str, orders: tuple[int, ...], quick: bool) -> Iterator[Job]:
    teacher, labels, at = language_run(name, quick=quick), {"model": name, "seed": 0}, f"distillation/{name}"
    yield teacher
    windows, heard = (4, 4) if quick else (None, 32)
    sizes = {"prompts": 3, "prompt": 24, "new": 8, "steps": 40} if quick else {"prompts": 64, "prompt": 256, "new": 64, "steps": STEPS}
    for method in (*METHODS, EXACT) if MODELS[name]["mixer"] == "rtf" else METHODS:
        options = {"method": method, "orders": () if method == EXACT else orders, "windows": windows, **sizes, "heard": heard}
        yield Measurement(f"{at}/{method}", distilled, {**labels, "method": method}, (teacher,), options)
    if name in TUNED:
        options = {"orders": (2,) if quick else (8, 32), "cuts": (8, 32) if quick else (32, 128, 512), "windows": windows}
        yield Measurement(f"{at}/noise-floor", noise_floor, {**labels, "method": "noise floor"}, (teacher,), options)
        options = {"order": 4 if quick else 8, "methods": (BALANCED, L2, WEIGHTED), "steps": 10 if quick else 300, "rate": 2e-4}
        options |= {"windows": windows, "heard": heard, "control": name == "hyena"}
        yield Measurement(f"{at}/tuned", tuned, {**labels, "method": "tuned"}, (teacher,), options)


# ---------------------------------------------------------------- tables

Found = Sequence[tuple[str, Mapping[str, Any]]]
"""Names of teachers, each with what one measurement of it gave."""


def tables(results: Results) -> Sequence[Table]:
    """All of it, the bar, order 8 of the models side by side, noise floors, and training on; those of which something is over."""
    by_method, floors, ends = (
        [(job.labels["model"], result) for job, result in measurements(results, measure)] for measure in (distilled, noise_floor, tuned)
    )
    made = [_all(by_method), _filters(by_method), _bar(by_method), _least(by_method), _floor(floors), _follows(floors), _tuned(ends)]
    return [table for table in made if table.rows]


def _loss(bits: float, teacher: float) -> float:
    """In per cent of the teacher's bits."""
    return 100 * (bits / teacher - 1)


def _all(found: Found) -> Table:
    columns = ["teacher", "method", "order", "bits per byte", "teacher's", "loss, %", "KL, bits per byte", "same likeliest byte"]
    columns += ["equal bytes of continuations", "equal continuations", "logits: steps beside convolution", "seconds to distill"]
    keys = ("kl", "same", "tokens", "whole", "steps_differ", "seconds")
    rows = [
        [name, r["method"], o["order"], o["bits"], r["bits"], _loss(o["bits"], r["bits"]), *(o[key] for key in keys)]
        for name, r in found
        for o in r["orders"]
    ]
    return Table("Distilled models beside their teachers, on held-out files", columns, rows, limit=120)


def _filters(found: Found) -> Table:
    columns = ["teacher", "method", "order", "filters", "relative l2 error, median", "l2, worst"]
    columns += ["Hankel error / sigma_1, median", "Hankel, worst", "bound sigma_(order+1) / sigma_1, median", "bound, worst", "converged"]
    keys = (*ERRORS, "converged")
    rows = [[name, r["method"], o["order"], r["filters"], *(o[key] for key in keys)] for name, r in found for o in r["orders"]]
    return Table("Errors of the filters", columns, rows, limit=120)


def _best(found: Found, order: int) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Of each teacher the method of the fewest bits at an order; "exact" is none, as it distills nothing."""
    best: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for name, result in found:
        for row in result["orders"]:
            counts = result["method"] != EXACT and row["order"] == order and row["bits"] is not None
            if counts and (name not in best or row["bits"] < best[name][1]["bits"]):
                best[name] = (result, row)
    return best


def _bar(found: Found) -> Table:
    columns = ["teacher", "method", "order", "bits per byte", "teacher's", "loss, %", "allowed, %", "met"]
    rows = []
    for name, (result, row) in _best(found, BAR_ORDER).items():
        loss = _loss(row["bits"], result["bits"])
        rows.append([name, result["method"], BAR_ORDER, row["bits"], result["bits"], loss, BAR, "met" if loss <= BAR else "MISSED"])
    return Table(f"The bar: order {BAR_ORDER} within {BAR} % of the teacher's bits, by the best method", columns, rows)


def _least(found: Found) -> Table:
    """The smallest order that any method loses no more at than the bar allows."""
    rows = []
    for name in dict.fromkeys(name for name, _ in found):
        own = [(n, r) for n, r in found if n == name and r["method"] != EXACT]
        if not own:
            continue
        losses: dict[int, tuple[float, str]] = {}
        for order in sorted({o["order"] for _, r in own for o in r["orders"]}):
            if name in (best := _best(own, order)):
                result, row = best[name]
                losses[order] = (_loss(row["bits"], result["bits"]), result["method"])
        fit = next((order for order, (loss, _) in losses.items() if loss <= BAR), None)
        at_8 = losses.get(8, (None, None))
        rows.append([name, own[0][1]["bits"], *at_8, fit, losses[fit][1] if fit else None])
    columns = ["teacher", "bits per byte", "loss at order 8, %", "by", f"smallest order within {BAR} %", "by this method"]
    return Table("Order 8 of each model, and the order that suffices", columns, rows)


def _floor(found: Found) -> Table:
    columns = ["teacher", "what is changed", "at", "share of the filters' energy", "bits per byte", "loss, %", "KL, bits per byte"]
    words = {"cut": "taps cut off after", "left out": "all but order"}
    words |= {how: f"residual with {how}, order" for how in (SIGNS, PHASES)}
    rows = [
        [name, words[c["what"]], c["at"], c["energy"], c["bits"], _loss(c["bits"], r["bits"]), c["kl"]]
        for name, r in found
        for c in r["changes"]
    ]
    return Table("What part of its filters a model uses", columns, rows, limit=80)


def _follows(found: Found) -> Table:
    """What the changes say of the residual: left out, does it cost; and does noise as large in its place cost more than that?"""
    rows = []
    for name, result in found:
        losses = {(c["what"], c["at"]): _loss(c["bits"], result["bits"]) for c in result["changes"] if c["bits"] is not None}
        energies = {c["at"]: c["energy"] for c in result["changes"] if c["what"] == "left out"}
        for order, energy in energies.items():
            out, noise = losses.get(("left out", order)), [losses[how, order] for how in (SIGNS, PHASES) if (how, order) in losses]
            if out is not None and noise:
                rows.append([name, order, energy, out, min(noise), max(noise), _in_words(out, min(noise), max(noise))])
    columns = ["teacher", "order", "residual's share of energy", "loss without it, %"]
    columns += ["loss with noise for it, at least, %", "at most, %", "so"]
    return Table("What follows for the residual", columns, rows, limit=60)


def _in_words(out: float, least: float, most: float) -> str:
    """Of the loss without the residual, and with the kinds of noise in its place. What noise disturbs is what it costs more than nothing
    in its place does, of which a model may be the better."""
    if out > BAR:
        if least < out:
            return "the model uses the residual's energy more than its shape: noise in its place costs less than nothing in its place"
        return "the model uses the residual as it is: other noise of its size is worse than none"
    if most - out <= BAR:
        return "the model does not use the residual, and noise of its size disturbs hardly"
    if least - out <= BAR:
        return "the model does not use the residual; one kind of noise in its place disturbs, another hardly"
    return "the model does not use the residual, but noise in its place disturbs: the model relies on its being small where it is"


def _tuned(found: Found) -> Table:
    columns = ["teacher", "method", "order", "steps", "teacher's bits per byte", "distilled", "loss, %", "trained on", "loss after, %"]
    columns += ["teacher trained on", "modes", "states after, largest", "median"]
    rows = []
    for name, r in found:
        losses = [_loss(r[key], r["teacher"]) if r[key] is not None else None for key in ("before", "after")]
        ends = [r["before"], losses[0], r["after"], losses[1], r.get("control"), r["modes"], r["states"], r["states_median"]]
        rows.append([name, r["method"], r["order"], r["steps"], r["teacher"], *ends])
    return Table("Distilled models trained on, poles and residues too", columns, rows)
