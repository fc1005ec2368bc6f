"""What a training is: one frozen record, whose every key is consumed or is an error."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Literal, Self, get_args

from ssmid.experiments.options import expect_known, override, place

Precision = Literal["float32", "bf16", "float64"]
Kept = Literal["last", "best"]


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One training, but for its task.

    model : arguments of :func:`ssmid.experiments.models.model_of`, by name   seed : of weights, of the order of data and of dropout
    steps, batch : updates, and examples in each, of all processes together
    rate, kernel_rate : the largest learning rate, and that of the parameters of filters (None: the same)
    weight_decay, kernel_decay : of matrices outside filters, and of the parameters of filters (None: none); norms and biases have none
    clip : the largest norm of the gradient, or None
    warmup, final : steps of the linear rise, and the share of the rate that the cosine ends at
    precision : "float32"; "bf16", autocast, with filters in float32; "float64", all of it   compile : the model by ``torch.compile``
    evaluate_every, log_every, checkpoint_every : in steps; None is a tenth of all, a hundredth, and a tenth
    hankel_order, hankel_weight : adds to the loss the weight times :class:`HankelPenalty` of that order; None is no penalty
    evaluate_on : at most so many examples of the split "valid"; None is all. Of "test" it is always all, once at the end
    keep : the "last" weights, or the "best" of all evaluations
    solved : ends the training where three evaluations in a row have at least this accuracy; None is never. Of tasks that have one

    >>> Configuration(model={"layer": "s4d"}, steps=100).with_overrides(["rate=0.01", "model.order=8"]).model
    {'layer': 's4d', 'order': 8}
    >>> Configuration(model={}, steps=100).with_overrides(["lrate=0.01"])
    Traceback (most recent call last):
    ValueError: lrate: expected a key of a configuration, got an unknown one; did you mean rate?
    """

    model: Mapping[str, Any]
    steps: int
    batch: int = 32
    rate: float = 1e-3
    kernel_rate: float | None = None
    weight_decay: float = 0.01
    kernel_decay: float | None = None
    clip: float | None = None
    warmup: int = 0
    final: float = 0.0
    precision: Precision = "float32"
    compile: bool = False
    seed: int = 0
    evaluate_every: int | None = None
    log_every: int | None = None
    checkpoint_every: int | None = None
    evaluate_on: int | None = None
    hankel_order: int | None = None
    hankel_weight: float = 1.0
    keep: Kept = "last"
    solved: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, Mapping):
            raise ValueError(f"model: expected arguments by name, got {self.model!r}")
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0), ("seed", 0)):
            _whole(name, getattr(self, name), least)
        if self.seed >= 2**63:
            raise ValueError(f"seed: expected a number of 63 bits, got {self.seed}")
        for name in ("evaluate_every", "log_every", "checkpoint_every", "evaluate_on", "hankel_order"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1)
        for name in ("rate", "weight_decay", "final", "hankel_weight"):
            _number(name, getattr(self, name))
        for name in ("kernel_rate", "kernel_decay", "clip", "solved"):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name))
        if not isinstance(self.compile, bool):
            raise ValueError(f"compile: expected true or false, got {self.compile!r}")
        if self.warmup >= self.steps:
            raise ValueError(f"warmup: expected fewer than the {self.steps} steps, got {self.warmup}")
        for name, known in (("precision", get_args(Precision)), ("keep", get_args(Kept))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From JSON; ValueError for a key that is unknown, or missing."""
        expect_known(cls, values, "", "a key of a configuration")
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return json.loads(json.dumps({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, default=dict))

    def with_overrides(self, overrides: Iterable[str]) -> Self:
        """With ``key=value`` in place of what was there; a dot leads into a mapping: ``model.order=8``. Values are JSON, or text."""
        values = self.as_dict()
        for text in overrides:
            place(values, *override(text))
        return self.of(values)

    def every(self, what: Literal["evaluate", "log", "checkpoint"]) -> int:
        given = getattr(self, f"{what}_every")
        return given or max(1, self.steps // (100 if what == "log" else 10))


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise ValueError(f"{name}: expected a number of at least 0, got {value!r}")
