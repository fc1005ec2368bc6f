"""A checkpoint as layers of linear systems, ready to be distilled: ``read_checkpoint``."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ssmid.checkpoints.layouts import LAYOUTS, REQUIRED, Context, Layout, Match, Miss, as_given, find_layers, resolved
from ssmid.checkpoints.tensors import TENSORS, Progress, StoredTensor, TensorFiles, open_tensors, sha256_of, taps_fit
from ssmid.io import read
from ssmid.io.files import about
from ssmid.io.models import is_model
from ssmid.systems import FrequencyResponse, ImpulseResponse, System

PLAIN = "plain"
"""The name of the layout of plain banks: a tensor ``(*batch, length)`` is the filters."""

_FILTERS = re.compile(r"(.*_)?(filters?|kernels?|taps|impulse_responses?)")
_FEWEST_TAPS = 16
"""Shorter rows under such names are the short convolutions that most of these models have beside the long ones."""
_ANOTHER_KIND = 0.5
"""A place with no more than this share of a layout is a layer of another kind, and not a damaged one of this."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """A layer of a checkpoint.

    name : its prefix, "backbone.layers.3.mixer"   layout : the name of its :class:`ssmid.checkpoints.Layout`
    batch : the axes of channels, heads or filters   length : the number of taps; 0 where the layer is a model of few states
    tensors : the names it is made of
    """

    name: str
    layout: str
    batch: tuple[int, ...]
    length: int
    tensors: tuple[str, ...]
    make: Callable[[], System] = dataclasses.field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*batch, length)``"""
        return (*self.batch, self.length)

    def load(self) -> System:
        """The systems of the layer, in float64: an ImpulseResponse, Modal, StateSpace or TransferFunction of batch shape ``batch``.

        The tensors are read now. ValueError where they are damaged, or where the filters do not fit into the memory.
        """
        if self.length:
            with _of_layer(self.name):
                taps_fit(self.shape)
        system = self.make()
        if system.batch_shape != self.batch:
            raise ValueError(f"{self.name}: expected systems of batch {self.batch} from layout {self.layout!r}, got {system.batch_shape}")
        return system

    def __repr__(self) -> str:
        return f"Layer({self.name!r}, {self.layout!r}, batch={self.batch}, length={self.length})"


class LeftOutWarning(UserWarning):
    """Places of a checkpoint that are nearly a layer like the others, and are not read."""


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """What :func:`read_checkpoint` found.

    path : as given   files : all that it is made of, an index first and ``config.json`` last   layers : at least one, by names in the
    order of their numbers   skipped : of places that are nearly a layer of a layout found elsewhere, what they lack
    """

    path: Path
    files: tuple[Path, ...]
    layers: tuple[Layer, ...]
    skipped: tuple[str, ...] = ()
    stage: Progress | None = dataclasses.field(default=None, repr=False)

    @property
    def layouts(self) -> tuple[str, ...]:
        """The names of the layouts found, each once."""
        return tuple(dict.fromkeys(layer.layout for layer in self.layers))

    @cached_property
    def sha256(self) -> str:
        """Of one file what ``sha256sum FILE`` says; of several, the sum of the lines that it says of them. Computed on first use."""
        return sha256_of(self.files, self.stage)


def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    length: int | None = None,
    prefix: str | None = None,
    key: str | None = None,
    settings: Mapping[str, Any] | None = None,
    stage: Progress | None = None,
) -> Checkpoint:
    """The long filters and state-space layers of a trained model, or plain banks of filters.

    path : a ``.safetensors`` or ``.npz`` file, a file of torch.save (``.pt .pth .bin .ckpt``, read with ``weights_only=True``; no pickle
        is ever executed), an index of shards (``*.index.json``), a folder that holds one of these, or anything that
        :func:`ssmid.read` takes. A ``config.json`` beside it is read for settings that no tensor says
    layout : the name of the only layout to look for; all of :data:`ssmid.checkpoints.LAYOUTS` that are automatic if None, and where there
        are none, "plain": tensors ``(*batch, length)`` named like filters or kernels, or the only one
    length : taps per filter; where a filter is made by a formula it may be longer than in training, where it is stored it is cut
    prefix : only layers whose names begin so   key : names of plain banks, with commas between several and ``*`` for any part
    settings : what neither tensors nor ``config.json`` say, by name   stage : called with the progress

    Raises ValueError that names the file: for one that is missing, damaged or would have to be unpickled, for settings or lengths that a
    layout does not take, and for a checkpoint without known layers, with the nearest candidates and what they lack. A place that nearly is
    a layer like the others is left out with a :class:`LeftOutWarning` (``skipped``).

    >>> import tempfile, numpy as np
    >>> path = os.path.join(tempfile.mkdtemp(), "filters.npz")
    >>> np.savez(path, filters=np.ones((3, 2, 100)))
    >>> checkpoint = read_checkpoint(path)
    >>> checkpoint.layers
    (Layer('filters', 'plain', batch=(3, 2), length=100),)
    >>> checkpoint.layers[0].load()
    ImpulseResponse(length=100, batch=(3, 2), dt=1, float64)
    """
    path = Path(path)
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ValueError(f"length: expected a number of taps, at least 1, got {length!r}")
    if layout is not None and layout not in LAYOUTS and layout != PLAIN:
        raise ValueError(f"layout: expected one of {', '.join((*LAYOUTS, PLAIN))}, got {layout!r}")
    with about(path):
        if not path.exists():
            raise ValueError("expected a file or a folder, got none of that name")
        if _is_data(path):
            if layout not in (None, PLAIN):
                raise ValueError(f"layout: expected none for a file without named tensors, or of a model of ours, got {layout!r}")
            expect_no_settings(settings)
            return Checkpoint(path, (path,), (_measured(path, key, length),), stage=stage)
        tensors = open_tensors(path, stage)
        layers, skipped = _layers(tensors, layout, length, key, dict(settings or {}))
        if all(layer.layout == PLAIN for layer in layers):
            expect_no_settings(settings)
        kept = [layer for layer in layers if prefix is None or layer.name.startswith(prefix)]
        if not kept:
            raise ValueError(f"prefix: expected the beginning of {_few([layer.name for layer in layers])}, got {prefix!r}")
    files = tensors.files
    if tensors.config_file is not None and any(layer.layout != PLAIN for layer in kept):
        files = (*files, tensors.config_file)  # it has a say in what these layers are
    lacking = tuple(miss.words() for miss in skipped if prefix is None or miss.prefix.startswith(prefix))
    if lacking:
        text = f"{path}: left out: {'; and '.join(lacking[:3])}{' and others' if len(lacking) > 3 else ''}"
        warnings.warn(text, LeftOutWarning, stacklevel=2)
    return Checkpoint(path, files, tuple(sorted(kept, key=lambda layer: _natural(layer.name))), lacking, stage)


def expect_no_settings(settings: Mapping[str, Any] | None) -> None:
    """ValueError where there are some for filters that are stored as they are."""
    if settings:
        raise ValueError(f"settings: expected none for filters that are stored as they are, got {', '.join(settings)}")


def _is_data(path: Path) -> bool:
    """Whether ``ssmid.read`` is the reader: a model of ours, or data of a kind without named tensors."""
    suffix = path.suffix.lower()
    if path.is_dir() or path.name.endswith(".index.json"):
        return False
    return suffix not in TENSORS or (suffix == ".safetensors" and is_model(path))


def _measured(path: Path, key: str | None, length: int | None) -> Layer:
    system = read(path, key=key)
    if isinstance(system, FrequencyResponse) or (isinstance(system, ImpulseResponse) and system.is_complex):
        raise ValueError(f"expected real filters or a model, got {system!r}")
    if isinstance(system, ImpulseResponse):
        return _bank("filters", system.batch_shape, system.length, length, lambda: np.asarray(system.taps, np.float64))
    return Layer("model", type(system).__name__, system.batch_shape, 0, (), lambda: system)


# ---------------------------------------------------------------- layers


def _layers(
    tensors: TensorFiles, layout: str | None, length: int | None, key: str | None, settings: dict[str, Any]
) -> tuple[list[Layer], list[Miss]]:
    """The layers, and what nearly was one."""
    if key is not None:
        if layout not in (None, PLAIN):
            raise ValueError(f"key: expected none with layout={layout!r}, got {key!r}")
        return [_plain(name, tensors[name], length) for name in _named(tensors, key)], []
    if layout == PLAIN:
        return _plain_banks(tensors, length) or _unknown(tensors, [], PLAIN), []
    wanted = [LAYOUTS[layout]] if layout else [known for known in LAYOUTS.values() if known.automatic]
    unknown = set(settings) - {name for known in wanted for name in known.settings}
    if unknown:
        names = sorted({name for known in wanted for name in known.settings})
        raise ValueError(f"settings: expected names out of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    matches, misses = _found(tensors, wanted, settings)
    if matches:
        layers = [_layer(name, match, tensors, length, settings) for name, match in zip(_names(matches), matches, strict=True)]
        return layers, _nearly(layers, misses)
    return (_plain_banks(tensors, length) if layout is None else []) or _unknown(tensors, misses, layout), []


def _found(tensors: TensorFiles, wanted: list[Layout], settings: dict[str, Any]) -> tuple[list[Match], list[Miss]]:
    """Every tensor belongs to one layer at most: of the layout that explains the most tensors, and of equals to the first."""
    matches: list[Match] = []
    misses: list[Miss] = []
    for known in wanted:
        found, missed = find_layers(known, tensors)
        misses += missed
        for match in found:
            if known.too_short(match.sizes):
                few = f"{match.sizes[str(known.length)]} taps, of a long convolution at least {known.least}"
                misses.append(Miss(known.name, match.prefix, match.all_names(), (few,), _ANOTHER_KIND))
            elif known.accepts is None or known.accepts(match.sizes, resolved(known, tensors.config, settings)):
                matches.append(match)
            else:
                misses.append(Miss(known.name, match.prefix, match.all_names(), (f"{_words(match.sizes)} do not go together",), 1.0))
    claimed: set[str] = set()
    kept = []
    for match in sorted(matches, key=lambda match: -len(match.all_names())):
        if claimed.isdisjoint(match.all_names()):
            kept.append(match)
            claimed.update(match.all_names())
    return kept, misses


def _nearly(layers: list[Layer], misses: list[Miss]) -> list[Miss]:
    """Places that have most of what a layout found elsewhere needs, and belong to no layer: a layer damaged, not another kind."""
    layouts = {layer.layout for layer in layers}
    claimed = {name for layer in layers for name in layer.tensors}
    return [miss for miss in misses if miss.layout in layouts and miss.share > _ANOTHER_KIND and claimed.isdisjoint(miss.names)]


def _words(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def _names(matches: list[Match]) -> list[str]:
    """The prefixes; where a prefix has several layers, with the beginning of the names of their first tensors."""
    prefixes = [match.prefix for match in matches]
    names = []
    for match in matches:
        name = match.prefix.rstrip(".")
        if prefixes.count(match.prefix) > 1:
            first = next(iter(match.layout.tensors.values())).name.rpartition(".")[0] or match.layout.name
            name = f"{match.prefix}{first}"
        names.append(name or match.layout.name)
    return names


def _layer(name: str, match: Match, tensors: TensorFiles, length: int | None, settings: dict[str, Any]) -> Layer:
    layout = match.layout
    values = resolved(layout, tensors.config, settings)
    missing = [setting for setting, value in values.items() if value is REQUIRED]
    if missing:
        which = f"{', '.join(missing)} in a config.json beside the checkpoint or in settings= (--set NAME=VALUE)"
        raise ValueError(f"{name}: expected {which}: no tensor says it of layout {layout.name!r} ({layout.words})")
    context = Context(match.sizes, values, length, match.prefix)
    with _of_layer(name):
        batch, taps = layout.batch_of(context), layout.length_of(context)

    def make() -> System:
        with _of_layer(name):
            return layout.formula(as_given(match, tensors), context)

    return Layer(name, layout.name, batch, taps, match.all_names(), make)


@contextmanager
def _of_layer(name: str) -> Iterator[None]:
    """ValueErrors within name the layer."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


# ---------------------------------------------------------------- plain banks


def _plain_banks(tensors: TensorFiles, length: int | None) -> list[Layer]:
    """Tensors named like filters, with at least two axes; or the only tensor of the file."""
    real = {name: tensor for name, tensor in tensors.items() if _is_bank(tensor)}
    long = [name for name, tensor in real.items() if len(tensor.shape) >= 2 and tensor.shape[-1] >= _FEWEST_TAPS]
    named = [name for name in long if _FILTERS.fullmatch(name.split(".")[-1].lower())]
    if not named and len(tensors) == 1:
        named = list(real)
    return [_plain(name, tensors[name], length) for name in named]


def _is_bank(tensor: StoredTensor) -> bool:
    return tensor.dtype.startswith(("float", "bfloat")) and len(tensor.shape) >= 1 and prod(tensor.shape) > 0


def _named(tensors: TensorFiles, key: str) -> list[str]:
    names = []
    for one in (part.strip() for part in key.split(",")):
        found = [one] if one in tensors else fnmatch.filter(tensors, one)
        if not found:
            raise ValueError(f"key: expected names out of {_few(sorted(tensors))}, got {one!r}")
        names += found
    return list(dict.fromkeys(names))


def _plain(name: str, tensor: StoredTensor, length: int | None) -> Layer:
    if not tensor.shape or prod(tensor.shape) == 0 or tensor.dtype.startswith(("complex", "bool")):
        raise ValueError(f"{name}: expected real filters of shape (*batch, length), got {tensor.dtype} of shape {tensor.shape}")
    return _bank(name, tensor.shape[:-1], tensor.shape[-1], length, tensor.read)


def _bank(name: str, batch: tuple[int, ...], stored: int, length: int | None, taps: Callable[[], np.ndarray]) -> Layer:
    kept = stored if length is None else min(length, stored)
    return Layer(name, PLAIN, batch, kept, (name,), lambda: ImpulseResponse(np.asarray(taps(), np.float64)[..., :kept]))


# ---------------------------------------------------------------- words


def _unknown(tensors: TensorFiles, misses: list[Miss], layout: str | None) -> list[Layer]:
    """ValueError with the nearest candidates."""
    near: dict[str, Miss] = {}
    for miss in sorted(misses, key=lambda miss: -miss.share):
        near.setdefault(miss.layout, miss)
    looked = f"layout {layout!r}" if layout else "a known layout"
    candidates = "; ".join(f"({i}) {miss.words()}" for i, miss in enumerate(list(near.values())[:4], 1))
    shapes = _few([f"{name} {tensor.shape}" for name, tensor in tensors.items()])
    raise ValueError(
        f"expected layers of {looked}, got none among {len(tensors)} tensors. "
        + (f"Nearest: {candidates}. " if candidates else f"They are {shapes}. ")
        + "Filters that are stored as they are: name them, key='...' (--key). Known layouts: " + ", ".join(LAYOUTS)
        + "; others: ssmid.checkpoints.register_layout"
    )


def _few(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 6 else [*names[:5], f"... ({len(names)} in all)"])


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layers.2 before layers.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
