"""A whole model distilled: its layers by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ssmid.distillation.result import Distillation


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DistilledModel(Mapping[str, Distillation]):
    """What ``ssmid distill`` wrote, as :func:`ssmid.load` gives it back: a mapping from names of layers to :class:`Distillation`.

    ``model["layers.3.filter"].system`` is the :class:`Modal` bank ``(*batch, d)`` of a layer, ``.order`` and ``.certificate`` beside it.
    A layer is read from the disk each time it is asked for, so that a model larger than the memory can be opened.

    metadata : source and its sha256, options, version, and of each layer a summary of its certificates

    >>> import numpy as np, ssmid
    >>> bank = ssmid.distill(0.9 ** np.arange(32)[None, :], 1)
    >>> model = DistilledModel({"layers.0": bank}, {"source": {"name": "filters.npy"}})
    >>> model, model["layers.0"].system
    (DistilledModel(1 layer: layers.0), Modal(order=1, batch=(1,), dt=1, complex128))
    """

    layers: Mapping[str, Distillation]
    metadata: Mapping[str, Any]

    def __getitem__(self, name: str) -> Distillation:
        if name not in self.layers:
            raise KeyError(f"expected the name of a layer ({_few(self.layers)}), got {name!r}")
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return f"DistilledModel({len(self)} {'layer' if len(self) == 1 else 'layers'}: {_few(self.layers)})"

    def explain(self) -> str:
        """Of each layer what :meth:`Distillation.explain` says."""
        return "\n\n".join(f"{name}\n{layer.explain()}" for name, layer in self.items())


def _few(names: Mapping[str, Any]) -> str:
    """The first and the last of many."""
    shown = list(names)
    return ", ".join(shown if len(shown) <= 6 else [*shown[:4], "...", shown[-1]])
