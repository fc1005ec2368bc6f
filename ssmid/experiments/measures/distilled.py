"""What one method of distilling leaves of a trained language model, order by order; and what its noise floor is for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssmid.experiments.measures.continuations import agreement, continuations, exact_continuations, prompts_of, step_difference
from ssmid.experiments.measures.filters import ERRORS, EXACT, L2, WEIGHTED, Filters, fits
from ssmid.experiments.measures.inputs import heard_text
from ssmid.experiments.measures.noise import PHASES, SIGNS, cut, replaced
from ssmid.experiments.measures.predictions import Predictions
from ssmid.experiments.tasks.task import Task
from ssmid.experiments.training.loop import WEIGHTS
from ssmid.io.language_models import load_model
from ssmid.nn import LanguageModel, conversions, convert
from ssmid.report.progress import Stage

STEPS_COMPARED = 16


def distilled(
    folder: Path,
    *,
    task: Task,
    method: str,
    orders: Sequence[int],
    windows: int | None,
    prompts: int,
    prompt: int,
    new: int,
    steps: int,
    heard: int,
    device: str,
    stage: Stage,
) -> dict[str, Any]:
    """The model in ``folder`` with all filters distilled by ``method`` at each of ``orders``, beside itself.

    method : as of :func:`fits`; "exact" is the recurrence that a rational filter is, of its own order

    windows : of the split "test" that predictions are compared on; None is all   prompts, prompt, new : how many, how long, and how many
    tokens are generated after each   steps : of gradient descent   heard : windows of training text that input spectra are taken from

    Of each order: errors of the filters (:meth:`Fit.errors`), ``bits``, ``kl``, ``same`` (:class:`Predictions`), ``tokens``, ``whole``
    (:func:`agreement` of greedy continuations), ``steps_differ``, the largest difference of logits between steps and convolution,
    ``teacher_logits``, the largest of these, and ``seconds`` of distilling.
    """
    with torch.no_grad():
        teacher = load_model(folder / WEIGHTS, device).float()
        stage("the teacher")
        known = Predictions(teacher, task, "test", device=device, windows=windows)
        begun = prompts_of(task, "test", prompts, prompt, device)
        own = exact_continuations(teacher, begun, new)
        filters = Filters.of(teacher, task.length)
        text = heard_text(task, heard, device) if method == WEIGHTED else None
        rows, before = [], _now(device)
        students = exact_student(teacher) if method == EXACT else _students(teacher, filters, method, tuple(orders), text, steps)
        for number, (order, student, errors) in enumerate(students):
            seconds = _now(device) - before
            stage(f"order {order}", number, len(orders))
            said = {**errors, **known.beside(student), **agreement(own, continuations(student, begun, new))}
            differ = step_difference(student, begun, min(STEPS_COMPARED, prompt - 1))
            rows.append({"order": order, **said, "steps_differ": differ, "seconds": seconds})
            before = _now(device)
        largest = float(teacher(begun).abs().max())
    facts = {"bits": known.bits, "filters": len(filters.taps), "taps": filters.taps.shape[1], "teacher_logits": largest}
    return {**facts, "method": method, "orders": rows}


def noise_floor(
    folder: Path,
    *,
    task: Task,
    orders: Sequence[int],
    cuts: Sequence[int],
    windows: int | None,
    device: str,
    stage: Stage,
) -> dict[str, Any]:
    """What the model in ``folder`` predicts when its filters end after each of ``cuts`` taps, and when what an l2-optimal recurrence of
    each of ``orders`` misses of them is left out or replaced by noise of the same energy (:func:`replaced`).

    ``energy`` is the median share of the filters' energy after tap 0 that is cut or missed.
    """
    with torch.no_grad():
        teacher = load_model(folder / WEIGHTS, device).float()
        stage("the teacher")
        known, filters = Predictions(teacher, task, "test", device=device, windows=windows), Filters.of(teacher, task.length)
        taps, rows = filters.taps, []

        def row(what: str, at: int, changed: Tensor, missed: Tensor) -> None:
            said = known.beside(filters.with_taps(teacher, changed))
            rows.append({"what": what, "at": at, "energy": _share(missed, taps), **said})

        for number, length in enumerate(cuts):
            stage(f"{length} taps", number, len(cuts))
            short = cut(taps, length)
            row("cut", length, short, taps - short)
        for number, (order, fit) in enumerate(fits(teacher, filters, L2, tuple(orders))):
            stage(f"order {order}", number, len(orders))
            smooth = filters.taps_of(filters.within(teacher, fit.system))
            for what, changed in (("left out", smooth), *((how, replaced(taps, smooth, how)) for how in (SIGNS, PHASES))):
                row(what, order, changed, taps - smooth)
    return {"bits": known.bits, "changes": rows}


def exact_student(teacher: LanguageModel) -> Iterator[tuple[int, LanguageModel, dict[str, Any]]]:
    """Of a model whose filters are small systems: these, run as recurrences. Their order, the model, and the errors of its filters."""
    student = convert(teacher, "exact").eval()
    made = conversions(student).values()
    l2 = torch.cat([conversion.error for conversion in made])
    errors = {**dict.fromkeys(ERRORS), "l2_median": float(l2.median()), "l2_worst": float(l2.max()), "converged": 1.0}
    yield max(conversion.order or 0 for conversion in made), student, errors  # pyright: ignore[reportReturnType]


def _students(
    teacher: LanguageModel, filters: Filters, method: str, orders: tuple[int, ...], heard: Tensor | None, steps: int
) -> Iterator[tuple[int, LanguageModel, dict[str, Any]]]:
    for order, fit in fits(teacher, filters, method, orders, heard=heard, steps=steps):
        yield order, filters.within(teacher, fit.system), fit.errors()


def _share(part: Tensor, whole: Tensor) -> float:
    energy, all_of_it = ((x[:, 1:].double() ** 2).sum(-1) for x in (part, whole))
    return float((energy / all_of_it.clamp(min=1e-300)).median())


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()
