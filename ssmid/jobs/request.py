"""What a job was asked to do, in words that a manifest can hold, and as arguments for each of its chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssmid.distillation.methods import method_for
from ssmid.distillation.options import Options
from ssmid.distillation.shared import group_size
from ssmid.jobs.manifest import Chunk
from ssmid.jobs.sources import Layer, Source, open_source
from ssmid.reduction.h2_weighted import Weights
from ssmid.systems import ImpulseResponse

_WEIGHTS = ("weights", "frequency_weights")
_AT_ONCE = 2**22
"""Weights that are looked at together."""
SHARED = ("layer", "head")


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """Options of :func:`ssmid.distill` as a command line has them.

    options : without arrays; ``shared`` is "layer", "head" (the filters of the last batch axis), or of how many of the last batch axes
        the filters share their poles
    weights : files in the place of the arrays ``weights`` and ``frequency_weights``, of one row for all or of one for each filter
    """

    options: dict[str, Any]
    weights: dict[str, Source]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Request:
        """Raises ValueError for what :func:`ssmid.distill` would refuse later."""
        given = {name: value for name, value in options.items() if value is not None}
        weights = {name: open_source(Path(given.pop(name))) for name in _WEIGHTS if name in given}
        if isinstance(given.get("shared"), str) and given["shared"] not in SHARED:
            if not given["shared"].isdecimal():
                raise ValueError(f"shared: expected {', '.join(SHARED)} or a whole number, got {given['shared']!r}")
            given["shared"] = int(given["shared"])
        request = cls(given, weights)
        _ = request.checked
        return request

    @property
    def checked(self) -> Options:
        """The options as the distiller checks them; in the place of weights, of which nothing can be said yet, a number."""
        plain = {name: value for name, value in self.options.items() if name != "shared"}
        shared = self.options.get("shared", 0)
        stand_ins: dict[str, Any] = dict.fromkeys(self.weights, 1.0)
        checked = Options(**plain, **stand_ins, shared=1 if isinstance(shared, str) else shared)
        method_for(checked)
        return checked

    def described(self) -> dict[str, Any]:
        """As a manifest can hold it: files by what they contain."""
        return {**self.options, **{name: f"{source.title} (sha256 {source.sha256()})" for name, source in self.weights.items()}}

    def expect_fit(self, source: Source) -> None:
        """ValueError unless weights have one row, or one for each filter of each layer, those of taps as many as each layer has, and
        all are numbers that weights can be."""
        for name, weights in self.weights.items():
            for layer in source.layers:
                rows = weights.layers[0].count
                if rows not in (1, layer.count):
                    raise ValueError(f"{name}: expected 1 row or {layer.count}, one for each filter of {layer.name}, got {rows}")
                taps, length = weights.layers[0].shape[-1], layer.shape[-1]
                if name == "weights" and length and taps != length:
                    raise ValueError(f"weights: expected one for each of the {length} taps of {layer.name}, got {taps}")
            for length in sorted({layer.shape[-1] for layer in source.layers if layer.shape[-1]}):
                _expect_weights(name, weights.layers[0], length)

    def shared_axes(self, layer: Layer) -> int:
        """How many of the last batch axes of a layer share their poles."""
        shared = self.options.get("shared", 0)
        return {"layer": len(layer.batch), "head": min(len(layer.batch), 1)}[shared] if isinstance(shared, str) else shared

    def group(self, layer: Layer) -> int:
        """How many filters in a row share their poles: chunks hold whole groups."""
        return group_size(self.shared_axes(layer), layer.batch)

    def chunk_size(self, layer: Layer, size: int) -> int:
        """``size`` as a multiple of the group, at least one."""
        group = self.group(layer)
        return max(size // group, 1) * group

    def arguments(self, layer: Layer, chunk: Chunk) -> dict[str, Any]:
        """Of :func:`ssmid.distill` for the filters of a chunk, of which those that share poles are an axis; weights as NumPy arrays."""
        arguments = dict(self.options)
        group = self.group(layer)
        if "shared" in arguments:
            arguments["shared"] = int(group > 1)
        for name, source in self.weights.items():
            weights = source.layers[0]
            own = weights.take(0, 1) if weights.count == 1 else weights.take(chunk.first, chunk.count)
            assert isinstance(own, ImpulseResponse)
            arguments[name] = own.taps[0] if weights.count == 1 else own.taps.reshape(-1, *([group] if group > 1 else []), own.length)
        return arguments


def _expect_weights(name: str, weights: Layer, length: int) -> None:
    """ValueError for what can be no weights of filters of ``length`` taps, with the row from which on it was found."""
    step = max(1, _AT_ONCE // weights.shape[-1])
    for first in range(0, weights.count, step):
        rows = weights.take(first, min(step, weights.count - first))
        assert isinstance(rows, ImpulseResponse)
        given: dict[str, Any] = {"weights": None, "frequency_weights": None, name: rows.taps[0] if weights.count == 1 else rows.taps}
        try:
            Weights.of(ImpulseResponse(np.zeros(length)), **given)
        except ValueError as error:
            raise ValueError(f"{error}{f' from row {first} on' if first else ''}") from None
