"""An experiment: trainings that differ in a few things, and the tables of what came out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ssmid.experiments.options import called, override, place
from ssmid.experiments.tasks.task import Task
from ssmid.experiments.training.configuration import Configuration
from ssmid.report.tables import Table


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


Results = Sequence[tuple[Run, Mapping[str, Any]]]
"""Runs that are over, each with what :func:`ssmid.experiments.training.train` gave."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Trainings by name, and what their results say: ``tables`` is asked after each, with those that are over."""

    name: str
    runs: tuple[Run, ...]
    tables: Callable[[Results], Sequence[Table]]

    def with_overrides(self, overrides: Sequence[str]) -> Experiment:
        """The same of each run; ValueError for a key that tells runs apart, whose names would not be true any more."""
        flat = [_flat(run.as_dict()["configuration"]) for run in self.runs]
        for text in overrides:
            key = override(text)[0]
            # runs of one task are told apart within it
            for task in {run.task.name for run in self.runs}:
                values = {json.dumps(f.get(key)) for f, run in zip(flat, self.runs, strict=True) if run.task.name == task and key in f}
                if len(values) > 1:
                    raise ValueError(f"{key}: expected a key that all runs share, got one that tells them apart (--only chooses runs)")
        return dataclasses.replace(self, runs=tuple(run.with_overrides(overrides) for run in self.runs))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found
