"""Distilled models on disk: the folder that ``ssmid distill`` fills.

``model.safetensors`` holds of each layer ``<layer>.poles``, ``.residues``, ``.feedthrough``, ``.order``, ``.condition`` and
``.certificate.<field>``; complex numbers are pairs of reals on a last axis of two. ``model.json`` names the layers and says what they
were made from; it is written last, so that a folder that has it is complete.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.distillation.certificate import Certificate
from ssmid.distillation.model import DistilledModel
from ssmid.distillation.result import Distillation
from ssmid.distillation.rounding import Cost
from ssmid.io.files import about, parsing
from ssmid.io.models import load_system
from ssmid.io.tensors import entries, mapped
from ssmid.systems import Modal, System
from ssmid.systems.base import computed

FORMAT, VERSION = "ssmid distilled model", 1
TENSORS, DESCRIPTION = "model.safetensors", "model.json"
COMPLEX = ("poles", "residues")
"""Arrays that are stored as pairs of real numbers."""
_PREFIX = "certificate."
ARRAYS = (*COMPLEX, "feedthrough", "order", "condition", *(_PREFIX + field.name for field in dataclasses.fields(Certificate)))


def load(path: str | os.PathLike[str]) -> System | DistilledModel:
    """The system that :func:`ssmid.save` wrote to ``path``, with NumPy arrays; of a folder, the model that ``ssmid distill`` wrote there.

    Every bit comes back. Raises ValueError for files that are damaged, of another kind, or of a newer version of the format, and for
    the folder of a job that is not finished.

    >>> import tempfile, ssmid
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> ssmid.save(ssmid.zpk([], [0.9], 1, dt=1), path)
    >>> load(path)
    ZerosPolesGain(order=1, zeros=0, batch=(), dt=1, complex128)
    """
    return read_distilled(Path(path)) if Path(path).is_dir() else load_system(path)


def arrays_of(layer: Distillation) -> dict[str, np.ndarray]:
    """The arrays of a layer by name, on the host, as they are stored: of its batch in a row, each ``(n, ...)``."""
    assert isinstance(layer.system, Modal)
    batch = layer.certificate.kind.shape

    def in_a_row(a: np.ndarray) -> np.ndarray:
        core = a.shape[len(batch) :]
        return np.ascontiguousarray(np.broadcast_to(a, (*batch, *core))).reshape(prod(batch), *core)

    arrays = {name: to_numpy(a) for name, a in layer.system.arrays.items()}
    arrays |= {"order": np.asarray(to_numpy(layer.order), np.int64), "condition": to_numpy(layer.condition)}
    arrays |= {_PREFIX + field.name: to_numpy(getattr(layer.certificate, field.name)) for field in dataclasses.fields(Certificate)}
    arrays = {name: in_a_row(a) for name, a in arrays.items()}
    for name in COMPLEX:
        a = arrays[name].astype(np.complex128)
        arrays[name] = a.view(np.float64).reshape(*a.shape, 2)
    return arrays


def layer_of(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Distillation:
    """The layer of ``arrays`` ``(*batch, ...)`` and what ``model.json`` says of it."""
    parts = {name: a if name not in COMPLEX else a.view(np.complex128)[..., 0] for name, a in arrays.items()}
    certificate = Certificate(**{field.name: parts[_PREFIX + field.name] for field in dataclasses.fields(Certificate)})
    shared = facts.get("shared", 0)
    if shared:  # stored for each filter, given back once for each group
        outer = parts["poles"].shape[: certificate.kind.ndim - shared]
        parts["poles"] = parts["poles"][(*(slice(None) for _ in outer), *[slice(0, 1)] * shared)]
    order = parts["order"]
    dt = facts["dt"]
    return Distillation(
        system=computed(Modal, poles=parts["poles"], residues=parts["residues"], feedthrough=parts["feedthrough"], dt=dt, real=True),
        method=facts["method"],
        order=int(order.flat[0]) if order.size and (order == order.flat[0]).all() else order,
        converged=certificate.converged,
        condition=parts["condition"],
        certificate=certificate,
        length=facts["length"],
        cost=Cost(**facts["single_precision"]) if "single_precision" in facts else None,
    )


def read_distilled(folder: Path) -> DistilledModel:
    """The model in a folder that ``ssmid distill`` filled; its layers are read from the disk each time they are asked for.

    Raises ValueError for a folder without one, one that is not finished, and damaged files.
    """
    with about(folder):
        if not (folder / DESCRIPTION).exists():
            unfinished = (folder / "job.json").exists()
            raise ValueError(
                "expected a finished model, got a job under way: give the same `ssmid distill` command again to go on"
                if unfinished
                else f"expected the folder of a distilled model, with {DESCRIPTION} and {TENSORS}, got one without"
            )
    description = _described(folder / DESCRIPTION)
    layers = layers_in(folder / TENSORS, description["layers"])
    return DistilledModel(layers, {name: value for name, value in description.items() if name != "format"})


def layers_in(path: Path, facts: Mapping[str, Mapping[str, Any]], *, copy: bool = True) -> Mapping[str, Distillation]:
    """The layers in a file of tensors, of which ``facts`` says method, length and dt; without ``copy`` they are mapped, not read."""
    with about(path):
        found, _ = entries(path)

    def read(name: str) -> Distillation:
        with about(path), parsing("distilled"):
            arrays = {n: np.asarray(mapped(path, found[f"{name}.{n}"])) for n in ARRAYS}
            return layer_of({n: a.copy() for n, a in arrays.items()} if copy else arrays, facts[name])

    return _Layers(tuple(facts), read)


@dataclasses.dataclass(frozen=True)
class _Layers(Mapping[str, Distillation]):
    """Layers that are read when asked for."""

    names: tuple[str, ...]
    read: Callable[[str], Distillation]

    def __getitem__(self, name: str) -> Distillation:
        if name not in self.names:
            raise KeyError(name)
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names


def _described(path: Path) -> dict[str, Any]:
    with about(path):
        with parsing("JSON"):
            content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("expected a distilled model, got other JSON")
        if content.get("version") != VERSION:
            raise ValueError(f"expected format version {VERSION}, got {content.get('version')}: a newer ssmid wrote it")
        return content
