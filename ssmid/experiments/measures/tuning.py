"""A distilled language model trained on for a while, its poles and residues with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ssmid.experiments.measures.filters import Filters, fits
from ssmid.experiments.measures.inputs import heard_text
from ssmid.experiments.measures.predictions import Predictions
from ssmid.experiments.tasks.task import Task
from ssmid.experiments.training.configuration import Configuration
from ssmid.experiments.training.loop import WEIGHTS, train
from ssmid.experiments.training.result import expect_result
from ssmid.io.language_models import load_model, save_model
from ssmid.nn import LanguageModel, ModalFilter
from ssmid.report.progress import Stage
from ssmid.systems import Modal

START = "start.safetensors"
_GONE = 1e-6
"""The modulus of a pole below which it is the delay of one token that a mode without a pole is."""


def tuned(
    folder: Path,
    *,
    task: Task,
    here: Path,
    order: int,
    methods: Sequence[str],
    steps: int,
    rate: float,
    windows: int | None,
    heard: int,
    control: bool,
    device: str,
    stage: Stage,
) -> dict[str, Any]:
    """The model in ``folder`` distilled at ``order`` by that of ``methods`` with the fewest bits on "valid", then trained on.

    It begins with the teacher's other weights and trains ``steps`` as the teacher did, at ``rate``; checkpoints are in ``here``.
    ``control`` trains the teacher on as well, so that what more training brings is told from what distilling lost.

    The ``method`` that was taken; bits per byte on "test" of the ``teacher``, ``before``, ``after``, and of the ``control``; ``kl_before``,
    the divergence before (:class:`Predictions`); ``modes`` that each filter has room for, of which a pair of poles takes one and a real
    pole one; ``states``, real ones of the largest filter after, and ``states_median``.
    """
    teacher = load_model(folder / WEIGHTS, device).float()
    with torch.no_grad():
        filters = Filters.of(teacher, task.length)
        stage("the method")
        valid = Predictions(teacher, task, "valid", device=device, windows=windows)
        text, found = heard_text(task, heard, device), {}
        for method in methods:
            ((_, fit),) = fits(teacher, filters, method, (order,), heard=text)
            found[method] = (valid.beside(filters.within(teacher, fit.system))["bits"], fit.system)
        method = min(found, key=lambda name: found[name][0])
        system = found[method][1]
        known = Predictions(teacher, task, "test", device=device, windows=windows)
        before = known.beside(filters.within(teacher, system))
    trained = expect_result(folder)
    given = trained.identity["configuration"]
    student = with_modal_filters(teacher, filters, system)
    small = {"steps": steps, "rate": rate, "warmup": steps // 10, "keep": "last", "checkpoint_every": steps, "evaluate_every": steps}
    configuration = Configuration.of({**given, **small})
    after = _trained(student, task, configuration, here / "student", device, stage)
    ended = dataclasses.asdict(_Ended.of(after, filters))
    result = {"method": method, "order": order, "steps": steps, "teacher": known.bits, "before": before["bits"]}
    result |= {"after": known.beside(after)["bits"], "kl_before": before["kl"], **ended}
    if control:
        result["control"] = known.beside(_trained(teacher, task, configuration, here / "teacher", device, stage))["bits"]
    return result


def with_modal_filters(teacher: LanguageModel, filters: Filters, system: Modal) -> LanguageModel:
    """``teacher`` with trained poles and residues, at first those of ``system`` ``(n,)``, for filters."""
    modal = ModalFilter.from_system(system)
    mixer = {"rtf": "hyena"}.get(teacher.configuration["mixer"], teacher.configuration["mixer"])
    order = 2 * modal.modulus.shape[1]
    student = LanguageModel(**{**teacher.configuration, "mixer": mixer, "filter": "modal", "order": order})
    weights = {name: x for name, x in teacher.state_dict().items() if not name.startswith(tuple(f"{place}." for place in filters.places))}
    for place, (a, b) in filters.places.items():
        weights |= {f"{place}.{name}": x[a:b] for name, x in modal.state_dict().items()}
    student.load_state_dict(weights)
    return student.to(filters.taps.device)


def _trained(model: LanguageModel, task: Task, configuration: Configuration, folder: Path, device: str, stage: Stage) -> LanguageModel:
    start = folder / START
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, start)
    options = {name: value for name, value in model.configuration.items() if name not in ("vocabulary", "length") and value is not None}
    train(task, dataclasses.replace(configuration, model=options), folder, device=device, stage=stage, start=start)
    return load_model(folder / WEIGHTS, device).float()


@dataclasses.dataclass(frozen=True)
class _Ended:
    modes: int
    states: int
    states_median: float

    @classmethod
    @torch.no_grad()
    def of(cls, model: LanguageModel, filters: Filters) -> _Ended:
        """Real states of the filters: two of a complex mode, one of a real pole, and one of a pole at 0 with a residue."""
        counts, modes = [], 0
        for name in filters.places:
            filter = model.get_submodule(name)
            assert isinstance(filter, ModalFilter)
            poles, reached = filter.poles(), filter.residues.abs().sum(-1) > 0
            pair = (poles.imag.abs() > _GONE * poles.abs()) & (poles.abs() > _GONE)
            counts.append((reached * (1 + pair.int())).sum(-1))
            modes = max(modes, poles.shape[1])
        states = torch.cat(counts).double()
        return cls(modes, int(states.max()), float(states.median()))
