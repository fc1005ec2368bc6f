"""Samples of a transfer function: what rational fits are made to. Complex points of z or s, and the values there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssmid._array import Array, as_complex, broadcast_batch, double, harmonize, namespace, to_numpy
from ssmid.analysis.evaluation import evaluate
from ssmid.systems import FrequencyResponse, StateSpace, System
from ssmid.systems.base import checked_dt, sample_time

RMS = "rms error over the points, of the largest value"
"""The kind of error of a rational fit."""


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Values of a transfer function, in double precision. Made by :func:`samples`.

    points : ``(k,)`` or ``(*batch, k)`` complex, of z (discrete time) or s   values : ``(*batch, k)`` complex   dt : as of a system
    """

    points: Array
    values: Array
    dt: float | bool

    @property
    def count(self) -> int:
        """The number of points."""
        return self.values.shape[-1]

    @property
    def scale(self) -> float:
        """The largest modulus of the points of s, 1 in discrete time: fits in ``points / scale`` do not know the unit of time."""
        if self.dt is True or self.dt != 0:
            return 1.0
        return float(np.abs(to_numpy(self.points)).max(initial=0)) or 1.0

    def error(self, system: System, coupled: bool = False) -> Array:
        """``(*batch,)`` root of the mean square of ``system - values`` over the points, as a fraction of the largest value.

        ``coupled``: the last two batch axes are outputs and inputs, and one number is for all of them.
        """
        xp = namespace(self.values)
        points = self.points if self.points.ndim == 1 else xp.broadcast_to(self.points, self.values.shape)
        fitted = evaluate(system, points)
        if isinstance(system, StateSpace) and fitted.ndim > self.values.ndim:
            fitted = fitted[..., 0, 0, :]
        return self.size(fitted - self.values, coupled)

    def size(self, difference: Array, coupled: bool = False) -> Array:
        """``(*batch,)`` root of the mean square over the points of a ``difference`` from the values, as a fraction of the largest value."""
        xp = namespace(self.values)
        axes = (-3, -2, -1) if coupled else (-1,)
        largest = xp.max(xp.abs(self.values), axis=axes)
        unit = xp.where(largest > 0, largest, xp.ones_like(largest))
        difference = xp.abs(difference) / xp.reshape(unit, (*unit.shape, *(1,) * len(axes)))
        return xp.sqrt(xp.mean(difference**2, axis=axes))


def samples(data: Any, values: Any = None, *, dt: float | bool | None = None) -> Samples:
    """``(points, values)`` with ``dt`` (0, continuous time, where left out), or a :class:`FrequencyResponse`, as :class:`Samples`.

    points : ``(k,)`` or ``(*batch, k)`` numbers of s, or of z where ``dt`` is not 0   values : ``(*batch, k)``
    Raises ValueError for lengths that differ, fewer than two points, values beside a FrequencyResponse; TypeError for other systems.

    >>> samples([1j, 2j, 3j], [1.0, 0.5, 0.3]).count
    3
    """
    if isinstance(data, FrequencyResponse):
        if values is not None or dt is not None:
            raise ValueError("expected a FrequencyResponse alone (it has values and dt of its own), got values or dt too; name order=")
        omega = double(data.omega)
        points = 1j * as_complex(omega)
        if data.is_discrete:
            points = namespace(omega).exp(points * sample_time(data))
        return Samples(points, double(data.values), data.dt)
    if isinstance(data, System):
        kind = type(data).__name__
        raise TypeError(f"expected (points, values) or a FrequencyResponse, got a {kind}: ssmid.frequency_response samples it")
    if values is None:
        raise ValueError("values: expected one for each point, got none (a FrequencyResponse alone carries both)")
    points, values = (double(as_complex(a)) for a in harmonize(points=data, values=values))
    if points.ndim == 0 or values.ndim == 0 or points.shape[-1] != values.shape[-1] or points.shape[-1] < 2:
        shapes = f"values {tuple(values.shape)}, points {tuple(points.shape)}"
        raise ValueError(f"expected values (*batch, k) at points (k,), k >= 2, got {shapes}")
    broadcast_batch(points=points.shape[:-1], values=values.shape[:-1])
    for name, array in (("points", points), ("values", values)):
        host = to_numpy(array)
        if array.ndim == 1 and not np.isfinite(host).all():
            bad = int(np.argmin(np.isfinite(host)))
            raise ValueError(f"{name}: expected finite numbers, got {host[bad]} at index {bad}")
    return Samples(points, values, 0 if dt is None else checked_dt(dt))
