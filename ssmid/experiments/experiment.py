"""An experiment: trainings that differ in a few things, what is measured of them, and the tables of what came out."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssmid._array import cores
from ssmid.experiments.options import called, expect_known, expect_types, override, place
from ssmid.experiments.tasks.task import Task
from ssmid.experiments.training.configuration import Configuration
from ssmid.experiments.training.log import strict
from ssmid.experiments.training.loop import train
from ssmid.experiments.training.result import Outcome, read_result, write_result
from ssmid.jobs.store import only_here
from ssmid.jobs.workers import Alone
from ssmid.report.progress import Stage
from ssmid.report.tables import Table

MEASURE = "measure."
"""What the overrides of a measurement's options begin with."""
_OPTION = "an option of the measurement"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training. ``name`` is a path within the folder of the experiment; ``labels`` are what tells it from the others in tables."""

    name: str
    task: Task
    configuration: Configuration
    labels: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """All that it is, as JSON has it."""
        return json.loads(json.dumps({"task": self.task.facts(), "configuration": self.configuration.as_dict()}))

    def with_overrides(self, overrides: Iterable[str]) -> Run:
        """``key=value`` of the configuration, and ``task.key=value`` of the task."""
        pairs = [override(text) for text in overrides]
        facts: Any = self.task
        fields = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts) if field.init}
        values = self.configuration.as_dict()
        for key, value in pairs:
            place(fields if key.startswith("task.") else values, key.removeprefix("task."), value)
        task = called(type(facts), fields, "task.", f"a key of the task {self.task.name}")
        return dataclasses.replace(self, task=task, configuration=Configuration.of(values))

    def perform(
        self, folder: Path, device: str, team: Alone, stage: Stage, machine: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """What :func:`ssmid.experiments.training.train` gives, in a folder of its own within that of the experiment.

        What the task makes before, the first process makes with all cores.
        """
        if team.rank == 0 and result_of(self, folder) is None:
            self.task.prepare(workers=cores(), stage=stage)
        team.wait()
        return train(self.task, self.configuration, folder / self.name, device=device, team=team, stage=stage, machine=machine)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is measured of trainings that are over, or of nothing but a device. ``name`` and ``labels`` as of a :class:`Run`.

    measure : called with the folders of the trainings in ``of``, in their order, ``device=`` and ``stage=``, and ``options`` by name; where
    it takes them also with ``here=``, its own folder, and, of a single training, ``task=`` and the options of its ``model=``. Gives what
    JSON holds
    """

    name: str
    measure: Callable[..., Mapping[str, Any]]
    labels: Mapping[str, Any]
    of: tuple[Run, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All that it is, as JSON has it."""
        return json.loads(json.dumps({"of": {run.name: run.as_dict() for run in self.of}, "options": self.options}))

    def with_overrides(self, overrides: Iterable[str]) -> Measurement:
        """``measure.key=value`` of the options; the others are those of its trainings."""
        options, mine = json.loads(json.dumps(self.options)), [text for text in overrides if text.startswith(MEASURE)]
        for text in mine:
            key, value = override(text)
            place(options, key.removeprefix(MEASURE), value)
        others = [text for text in overrides if text not in mine]
        return dataclasses.replace(self, options=options, of=tuple(run.with_overrides(others) for run in self.of))

    def expect_options(self) -> None:
        """ValueError for options that ``measure`` does not take, or not of this type; asked before what it is of is trained."""
        expect_known(self.measure, self.options, MEASURE, _OPTION, len(self.of), {"device", "stage", *self._known(Path())})
        expect_types(self.measure, self.options, MEASURE)

    def perform(
        self, folder: Path, device: str, team: Alone, stage: Stage, machine: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """What was measured, by the first process, kept as that of a training is.

        Raises ValueError where one of its trainings is not over, and for a measurement that is at work.
        """
        for run in self.of:
            if result_of(run, folder) is None:
                raise ValueError(f"{self.name}: expected {run.name} trained in {str(folder)!r}, got nothing (--only leaves it out)")
        found = None
        if team.rank == 0:
            with only_here(folder / self.name):
                found = result_of(self, folder)
                if found is None:
                    found = self._measured(folder, device, stage)
                    write_result(folder / self.name, Outcome(self.as_dict(), found, machine))
        return team.agree(found)

    def _measured(self, folder: Path, device: str, stage: Stage) -> dict[str, Any]:
        places, known = [folder / run.name for run in self.of], self._known(folder)
        measured = called(self.measure, self.options, MEASURE, _OPTION, *places, device=device, stage=stage, **known)
        return strict(json.loads(json.dumps(measured)))

    def _known(self, folder: Path) -> dict[str, Any]:
        """What ``measure`` takes of its own folder and its one training."""
        known: dict[str, Any] = {"here": folder / self.name}
        if len(self.of) == 1:
            known |= {"task": self.of[0].task, "model": self.of[0].configuration.model}
        taken = inspect.signature(self.measure).parameters
        return {name: value for name, value in known.items() if name in taken}


Job = Run | Measurement
Results = Sequence[tuple[Job, Mapping[str, Any]]]
"""Jobs that are over, each with what it gave."""


def trainings(results: Results) -> list[tuple[Run, Mapping[str, Any]]]:
    """Those of them that are trainings."""
    return [(job, result) for job, result in results if isinstance(job, Run)]


def measurements(results: Results, measure: Callable[..., Any]) -> list[tuple[Measurement, Mapping[str, Any]]]:
    """Those of them that are measured by ``measure``."""
    return [(job, result) for job, result in results if isinstance(job, Measurement) and job.measure == measure]


def result_of(job: Job, folder: Path) -> Mapping[str, Any] | None:
    """What ``job`` gave within ``folder``; None where it is not over, or another was there."""
    there = outcome_of(job, folder)
    return None if there is None else there.result


def outcome_of(job: Job, folder: Path) -> Outcome | None:
    """As :func:`result_of`, with what is kept beside the result."""
    there = read_result(folder / job.name)
    return there if there is not None and _given(there.identity) == _given(job.as_dict()) else None


def _given(identity: Any) -> Any:
    """Without what is null: a result from before a key was known does not have it, and is still that of the job, as to ``train``."""
    if isinstance(identity, Mapping):
        return {key: _given(value) for key, value in identity.items() if value is not None}
    return identity


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Jobs by name, and what their results say: ``tables`` is asked after each, with those that are over.

    A measurement stands behind the trainings that it is of.
    """

    name: str
    runs: tuple[Job, ...]
    tables: Callable[[Results], Sequence[Table]]

    def with_overrides(self, overrides: Sequence[str]) -> Experiment:
        """The same of each job; ValueError for a key that tells runs apart or that labels name, which would not be true any more."""
        jobs = [_told_apart(job) for job in self.runs]
        named = {label for job in self.runs if isinstance(job, Run) for label in job.labels}
        trained = any(isinstance(job, Run) or job.of for job in self.runs)
        for text in overrides:
            key = override(text)[0]
            if not (trained or key.startswith(MEASURE)):
                raise ValueError(f"{key}: expected a key that begins with {MEASURE}, as nothing is trained, got another")
            # runs of one task are told apart within it
            for kind in {kind for kind, _ in jobs}:
                each = [{k: v for k, v in of.items() if k == key or k.startswith(f"{key}.")} for other, of in jobs if other == kind]
                if len({json.dumps(values) for values in each if values}) > 1 or (key in named and any(each)):
                    raise ValueError(f"{key}: expected a key that all runs share, got one that tells them apart (--only chooses runs)")
        # what is of measurements is refused by trainings where there are none
        measured = any(isinstance(job, Measurement) for job in self.runs)
        of_trainings = [text for text in overrides if not (measured and text.startswith(MEASURE))]
        runs = [job.with_overrides(overrides if isinstance(job, Measurement) else of_trainings) for job in self.runs]
        return dataclasses.replace(self, runs=tuple(runs))


def _told_apart(job: Job) -> tuple[Any, dict[str, Any]]:
    """Within what a job is told from others, and what may do so by the keys of overrides: of a measurement what its labels say."""
    if isinstance(job, Measurement):
        return job.measure, {MEASURE + name: value for name, value in job.options.items() if name in job.labels}
    given = job.as_dict()
    return job.task.name, _flat(given["configuration"] | {"task": given["task"]})


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found
