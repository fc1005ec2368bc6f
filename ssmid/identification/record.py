"""Records: what went into a system and what came out, sampled together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, broadcast_batch, check_finite, double, harmonize, is_complex, to_numpy
from ssmid.systems.base import checked_dt


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """Inputs and outputs of one experiment, or of a batch of separate ones.

    inputs : ``(*batch, m, T)`` or ``(T,)`` real   outputs : ``(*batch, p, T)`` or ``(T,)`` real   dt : sample time in seconds

    The axes are those of :func:`ssmid.simulate`. A single signal ``(T,)`` becomes ``(1, T)``. ``inputs=None`` is a time series.
    Several experiments on one system, which may differ in length, are a list of records.
    Raises ValueError for lengths that differ, complex numbers, continuous time, or NaN in a single record.

    >>> import numpy as np
    >>> Record(np.ones(100), np.ones((2, 100)), dt=0.1)
    Record(outputs=2, inputs=1, length=100, batch=(), dt=0.1)
    """

    inputs: Array
    outputs: Array
    dt: float | bool = 1

    def __post_init__(self) -> None:
        (outputs,) = harmonize(outputs=self.outputs)
        outputs = outputs[None, :] if outputs.ndim == 1 else outputs
        inputs = outputs[..., :0, :] if self.inputs is None else self.inputs
        inputs, outputs = harmonize(inputs=inputs, outputs=outputs)
        inputs = inputs[None, :] if inputs.ndim == 1 else inputs
        for name, array in (("inputs", inputs), ("outputs", outputs)):
            if array.ndim < 2:
                raise ValueError(f"{name}: expected shape (*batch, channels, samples), got {tuple(array.shape)}")
            if is_complex(array):
                raise ValueError(f"{name}: expected real samples, got dtype {array.dtype}")
            check_finite(array, name, 2)
        if inputs.shape[-1] != outputs.shape[-1] or outputs.shape[-1] == 0:
            raise ValueError(f"expected as many samples out as in, got inputs {tuple(inputs.shape)} and outputs {tuple(outputs.shape)}")
        if checked_dt(self.dt) == 0:
            raise ValueError(f"dt: expected a positive sample time or True, got {self.dt!r}")
        broadcast_batch(inputs=inputs.shape[:-2], outputs=outputs.shape[:-2])
        for name, value in (("inputs", inputs), ("outputs", outputs), ("dt", checked_dt(self.dt))):
            object.__setattr__(self, name, value)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return broadcast_batch(inputs=self.inputs.shape[:-2], outputs=self.outputs.shape[:-2])

    @property
    def length(self) -> int:
        """The number of samples."""
        return self.outputs.shape[-1]

    def __getitem__(self, time: slice) -> Record:
        """The samples of a slice of time: ``record[:500]`` to train on, ``record[500:]`` to test."""
        return Record(self.inputs[..., time], self.outputs[..., time], self.dt)

    def __repr__(self) -> str:
        sizes = f"outputs={self.outputs.shape[-2]}, inputs={self.inputs.shape[-2]}, length={self.length}"
        return f"Record({sizes}, batch={self.batch_shape}, dt={self.dt})"


def experiments(data: Any) -> list[Record]:
    """One record or several as a list; ValueError where they are empty or not of one system, TypeError for anything else."""
    records = [data] if isinstance(data, Record) else list(data) if isinstance(data, Sequence) else [data]
    if not records or any(not isinstance(record, Record) for record in records):
        kinds = ", ".join(sorted({type(record).__name__ for record in records})) or "none"
        raise TypeError(f"expected a Record or a list of them, got {kinds}: ssmid.Record(inputs, outputs, dt) makes one")
    sizes = {(r.outputs.shape[-2], r.inputs.shape[-2], r.dt, r.batch_shape) for r in records}
    if len(sizes) > 1:
        raise ValueError(f"expected records of one system, got (outputs, inputs, dt, batch) {sorted(sizes, key=str)}")
    if not prod(records[0].batch_shape) or not records[0].outputs.shape[-2]:
        raise ValueError(f"expected at least one output of one system, got outputs {tuple(records[0].outputs.shape)}")
    return records


def host_elements(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Inputs ``(elements, m, T)`` and outputs ``(elements, p, T)`` on the host in float64, the batch in one axis."""
    batch = record.batch_shape
    arrays = (to_numpy(double(a)) for a in (record.inputs, record.outputs))
    inputs, outputs = (np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape(prod(batch), *a.shape[-2:]) for a in arrays)
    return inputs, outputs
