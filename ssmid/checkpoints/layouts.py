"""Layouts of layers in checkpoints: which tensors under which names, of which shapes, and the formula that makes a system of them.

A layout is a small table. :func:`register_layout` adds one, and :func:`ssmid.read_checkpoint` then knows it:

>>> import os, tempfile, numpy as np, ssmid
>>> from safetensors.numpy import save_file
>>> from ssmid.checkpoints import Layout, TensorSpec, register_layout
>>> def decay(given, context):
...     return ssmid.ImpulseResponse(given["taps"] * np.exp(-given["rate"][:, None] * np.arange(context.sizes["L"])))
>>> decaying = Layout(
...     name="decaying",
...     words="taps times exp(-rate t)",
...     source="here",
...     tensors={"taps": TensorSpec("conv.taps", ("channels", "L")), "rate": TensorSpec("conv.rate", ("channels",))},
...     formula=decay,
...     batch=("channels",),
...     length="L",
... )
>>> register_layout(decaying)
>>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
>>> save_file({"blocks.0.conv.taps": np.ones((3, 8)), "blocks.0.conv.rate": np.zeros(3), "head": np.zeros(5)}, path)
>>> layer, = ssmid.read_checkpoint(path).layers
>>> layer, layer.load()
(Layer('blocks.0', 'decaying', batch=(3,), length=8), ImpulseResponse(length=8, batch=(3,), dt=1, float64))
>>> forget_layout("decaying")
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias

import numpy as np

from ssmid.checkpoints.tensors import StoredTensor
from ssmid.systems import System

REQUIRED = object()
"""The default of a setting that has none: what a checkpoint does not store and nobody can guess."""

Given: TypeAlias = "dict[str, Any]"
"""Arrays by role, float64 (complex128, integers) in NumPy; under a name with ``*`` a dict of such arrays by what stood there."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """A tensor of a layer.

    name : behind the prefix of the layer, "filter_fn.bias"; ``*`` is any one part between dots, and stands for all that fit
    shape : of sizes: integers, names that mean the same size in the whole layer, "3*d_model" multiples of these, None for any;
        a list of several such tuples where there are variants; None for any shape at all
    optional : whether the layer also is one without it
    """

    name: str
    shape: tuple[int | str | None, ...] | list[tuple[int | str | None, ...]] | None
    optional: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What a formula knows beside tensors.

    sizes : by the names in the shapes   settings : those of the layout, from its defaults, ``config.json`` and the caller
    length : as asked for, or None   prefix : of the layer, "backbone.layers.3.mixer."
    """

    sizes: Mapping[str, int]
    settings: Mapping[str, Any]
    length: int | None
    prefix: str

    def number(self, setting: str) -> float:
        """A setting as a number; ValueError for what is none."""
        value = self.settings[setting]
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(f"{setting}: expected a number, got {value!r}")
        return value

    def flag(self, setting: str) -> bool:
        """A setting as true or false; ValueError for what is neither."""
        value = self.settings[setting]
        if not isinstance(value, bool):
            raise ValueError(f"{setting}: expected true or false, got {value!r}")
        return value

    def taps(self, setting: str) -> int:
        """A setting as a number of taps; ValueError for what is none."""
        value = self.settings[setting]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{setting}: expected a number of taps, at least 1, got {value!r}")
        return value


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """How a kind of layer is stored.

    name : of the layout   words : what it is   source : the public code whose names and shapes these are
    tensors : by role   formula : ``formula(given, context)`` -> the system of the layer, :data:`Given` by the same roles
    batch : names of sizes (or integers) that are the batch axes of the system, or ``batch(context)`` -> integers
    length : the name of the size that is the number of taps, an integer, or ``length(context)``; 0 where the formula gives a model
    settings : what the formula needs and no tensor says, with defaults (:data:`REQUIRED` where nothing is right for all); looked up in
        ``config.json`` beside the checkpoint, at any depth, and given by the caller as ``settings=``
    accepts : of sizes and settings, where shapes alone do not tell layouts apart
    least : taps, where ``length`` is the name of a size; shorter ones are the short convolutions that stand beside the long ones, and
        are passed over
    automatic : whether it is tried unasked; else it must be named, ``layout=``
    """

    name: str
    words: str
    source: str
    tensors: Mapping[str, TensorSpec]
    formula: Callable[[Given, Context], System]
    batch: tuple[int | str, ...] | Callable[[Context], tuple[int, ...]]
    length: int | str | Callable[[Context], int] = 0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    accepts: Callable[[Mapping[str, int], Mapping[str, Any]], bool] | None = None
    least: int = 0
    automatic: bool = True

    def batch_of(self, context: Context) -> tuple[int, ...]:
        if callable(self.batch):
            return tuple(self.batch(context))
        return tuple(context.sizes[axis] if isinstance(axis, str) else axis for axis in self.batch)

    def length_of(self, context: Context) -> int:
        if callable(self.length):
            return self.length(context)
        own = context.sizes[self.length] if isinstance(self.length, str) else self.length
        return own if context.length is None or own == 0 else min(own, context.length)

    def too_short(self, sizes: Mapping[str, int]) -> bool:
        """Whether it is a short convolution beside the long ones."""
        return isinstance(self.length, str) and sizes[self.length] < self.least


LAYOUTS: dict[str, Layout] = {}
"""All that are known, by name, in the order in which they are tried."""


def register_layout(layout: Layout) -> None:
    """Adds ``layout`` to those that :func:`ssmid.read_checkpoint` knows; one of the same name is replaced. Later ones are tried first.

    Raises TypeError for what is no Layout, ValueError for a layout without a required tensor.
    """
    if not isinstance(layout, Layout):
        raise TypeError(f"expected a Layout, got {type(layout).__name__}")
    if all(spec.optional for spec in layout.tensors.values()):
        raise ValueError(f"tensors: expected at least one that is required in layout {layout.name!r}, got none")
    known = {name: other for name, other in LAYOUTS.items() if name != layout.name}
    LAYOUTS.clear()
    LAYOUTS.update({layout.name: layout}, **known)


def forget_layout(name: str) -> None:
    """Takes a layout out again; ValueError for a name that is not known."""
    if name not in LAYOUTS:
        raise ValueError(f"expected one of {', '.join(LAYOUTS)}, got {name!r}")
    del LAYOUTS[name]


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """A layer found: ``names`` by role, of roles with ``*`` a dict by what stood there; absent optional ones are left out."""

    layout: Layout
    prefix: str
    names: Mapping[str, str | dict[str, str]]
    sizes: Mapping[str, int]

    def all_names(self) -> tuple[str, ...]:
        return tuple(name for found in self.names.values() for name in (found.values() if isinstance(found, dict) else (found,)))


@dataclasses.dataclass(frozen=True)
class Miss:
    """A prefix that looks like a layout and is not one: ``names`` are there, ``faults`` says why, ``share`` how much of it was there."""

    layout: str
    prefix: str
    names: tuple[str, ...]
    faults: tuple[str, ...]
    share: float

    def words(self) -> str:
        where = f"at {self.prefix!r}" if self.prefix else "at the top"
        found = [name.removeprefix(self.prefix) for name in self.names[:4]]
        return f"{self.layout} {where}: found {', '.join(found) or 'names alone'}; {'; '.join(self.faults)}"


def find_layers(layout: Layout, tensors: Mapping[str, StoredTensor]) -> tuple[list[Match], list[Miss]]:
    """Every prefix at which all required tensors of ``layout`` stand in consistent shapes, and those at which some do."""
    prefixes: dict[str, dict[str, dict[str, str]]] = {}
    for role, spec in layout.tensors.items():
        parts = spec.name.split(".")
        for name in _candidates(tensors, parts[-1]):
            pieces = name.split(".")
            ours = pieces[-len(parts) :]
            if len(ours) == len(parts) and all(p in ("*", o) for p, o in zip(parts, ours, strict=True)):
                prefix = "".join(f"{piece}." for piece in pieces[: -len(parts)])
                star = ".".join(o for p, o in zip(parts, ours, strict=True) if p == "*")
                prefixes.setdefault(prefix, {}).setdefault(role, {})[star] = name
    matches, misses = [], []
    for prefix, roles in prefixes.items():
        outcome = _check(layout, prefix, roles, tensors)
        (matches if isinstance(outcome, Match) else misses).append(outcome)
    return matches, misses


def resolved(layout: Layout, config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a layout: what the caller gave, else what ``config`` says, else the default (which may be REQUIRED)."""
    return {name: given.get(name, _deep(config, name, default)) for name, default in layout.settings.items()}


def _candidates(tensors: Mapping[str, StoredTensor], last: str) -> list[str]:
    return [name for name in tensors if last == "*" or name == last or name.endswith(f".{last}")]


def _check(layout: Layout, prefix: str, roles: dict[str, dict[str, str]], tensors: Mapping[str, StoredTensor]) -> Match | Miss:
    sizes: dict[str, int] = {}
    faults, found = [], []
    names: dict[str, str | dict[str, str]] = {}
    required = [role for role, spec in layout.tensors.items() if not spec.optional]
    for role, spec in layout.tensors.items():
        if role not in roles:
            if not spec.optional:
                faults.append(f"no {spec.name}")
            continue
        for name in roles[role].values():
            shape = tensors[name].shape
            fault = _bind(spec.shape, shape, sizes)
            if fault is not None:
                faults.append(f"{name[len(prefix) :]} has shape {shape} instead of {fault}")
            else:
                found.append(name)
        names[role] = roles[role] if "*" in spec.name else roles[role][""]
    if not faults:
        return Match(layout, prefix, names, sizes)
    there = sum(role in roles for role in required)
    wrong = sum(" instead of " in fault for fault in faults)
    return Miss(layout.name, prefix, tuple(found), tuple(faults), (there - wrong / 2) / len(required))


def _bind(expected: Any, shape: tuple[int, ...], sizes: dict[str, int]) -> str | None:
    """None where ``shape`` fits, with new names in ``sizes``; else what was expected, in words."""
    if expected is None:
        return None
    variants = expected if isinstance(expected, list) else [expected]
    for variant in variants:
        trial = dict(sizes)
        if len(variant) == len(shape) and all(_fits(axis, size, trial) for axis, size in zip(variant, shape, strict=True)):
            sizes.update(trial)
            return None
    return " or ".join(_shape_words(variant, sizes) for variant in variants)


def _fits(axis: int | str | None, size: int, sizes: dict[str, int]) -> bool:
    if axis is None:
        return True
    if isinstance(axis, int):
        return axis == size
    multiple = re.fullmatch(r"(\d+)\*(\w+)", axis)
    factor, name = (int(multiple[1]), multiple[2]) if multiple else (1, axis)
    if name not in sizes and size % factor == 0:
        sizes[name] = size // factor
    return sizes.get(name, -1) * factor == size


def _shape_words(variant: tuple[int | str | None, ...], sizes: Mapping[str, int]) -> str:
    def word(axis: int | str | None) -> str:
        return "any" if axis is None else f"{axis}={sizes[axis]}" if isinstance(axis, str) and axis in sizes else str(axis)

    known = [word(axis) for axis in variant]
    return f"({', '.join(known)}{',' if len(known) == 1 else ''})"


def _deep(config: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of ``name`` nearest to the top of nested dicts."""
    level: list[Any] = [config]
    while level:
        for one in level:
            if name in one:
                return one[name]
        level = [value for one in level for value in one.values() if isinstance(value, Mapping)]
    return default


def as_given(match: Match, tensors: Mapping[str, StoredTensor]) -> Given:
    """The tensors of a layer in memory, by role."""

    def numbers(name: str) -> np.ndarray:
        return tensors[name].read()

    return {
        role: {star: numbers(name) for star, name in found.items()} if isinstance(found, dict) else numbers(found)
        for role, found in match.names.items()
    }
