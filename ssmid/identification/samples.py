"""Samples of a transfer function: what rational fits are made to. Complex points of z or s, and the values there."""

from __future__ import annotations

import dataclasses
from numbers import Integral
from typing import Any

import numpy as np

from ssmid._array import Array, as_complex, broadcast_batch, double, harmonize, namespace, to_numpy, width
from ssmid.analysis.evaluation import evaluate
from ssmid.systems import FrequencyResponse, StateSpace, System
from ssmid.systems.base import checked_dt, sample_time

RMS = "rms error over the points, of the largest value"
"""The kind of error of a rational fit."""
_NARROWEST = 1e-100


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Values of a transfer function, in double precision. Made by :func:`samples`.

    points : ``(k,)`` or ``(*batch, k)`` complex, of z (discrete time) or s   values : ``(*batch, k)`` complex   dt : as of a system
    bits : 32 or 64, the precision in which they were given
    """

    points: Array
    values: Array
    dt: float | bool
    bits: int = 64

    @property
    def count(self) -> int:
        """The number of points."""
        return self.values.shape[-1]

    @property
    def distinct(self) -> int:
        """The number of different points, of that element which has the fewest. NaN counts as one."""
        points = np.sort(to_numpy(self.points), axis=-1)
        return int((1 + (points[..., 1:] != points[..., :-1]).sum(-1)).min(initial=self.count))

    @property
    def is_discrete(self) -> bool:
        """Whether points are of z."""
        return self.dt is True or self.dt != 0

    @property
    def scale(self) -> float:
        """The largest modulus of the points of s, 1 in discrete time: fits in ``points / scale`` do not know the unit of time."""
        if self.is_discrete:
            return 1.0
        size = np.abs(to_numpy(self.points))
        return float(size.max(initial=0, where=np.isfinite(size))) or 1.0

    def batch_of_channels(self, mimo: bool, shared: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of the batch of systems, and that of the channels of each: outputs and inputs, or what shares poles.

        Raises ValueError for ``mimo`` together with ``shared``, for fewer batch axes than that takes, and for axes of no channels.
        """
        if isinstance(shared, bool) or not isinstance(shared, Integral) or int(shared) < 0:
            raise ValueError(f"shared: expected a number of batch axes, got {shared!r}")
        if mimo and shared:
            raise ValueError(f"expected mimo=True or shared, got both (shared={shared})")
        own, batch = 2 if mimo else int(shared), tuple(self.values.shape[:-1])
        if own > len(batch) or 0 in batch[len(batch) - own :]:
            needed = "mimo: expected values (*batch, outputs, inputs, k)" if mimo else f"shared: expected {own} batch axes of channels"
            raise ValueError(f"{needed}, got shape {tuple(self.values.shape)}")
        return batch[: len(batch) - own], batch[len(batch) - own :]

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
    Raises ValueError for lengths that differ, fewer than two different points, points of s more than a factor of 1e100 apart, values
    beside a FrequencyResponse; TypeError for other systems.

    >>> samples([1j, 2j, 3j], [1.0, 0.5, 0.3]).count
    3
    """
    if isinstance(data, FrequencyResponse):
        if values is not None or dt is not None:
            raise ValueError("expected a FrequencyResponse alone (it has values and dt of its own), got values or dt too; name order=")
        if data.values.shape[-1] < 2:
            raise ValueError(f"expected a FrequencyResponse of at least two points, got {data.values.shape[-1]}")
        omega = double(data.omega)
        points = 1j * as_complex(omega)
        if data.is_discrete:
            points = namespace(omega).exp(points * sample_time(data))
        return _told_apart(Samples(points, double(data.values), data.dt, width(data.values)))
    if isinstance(data, System):
        kind = type(data).__name__
        raise TypeError(f"expected (points, values) or a FrequencyResponse, got a {kind}: ssmid.frequency_response samples it")
    if values is None:
        raise ValueError("values: expected one for each point, got none (a FrequencyResponse alone carries both)")
    points, values = (as_complex(a) for a in harmonize(points=data, values=values))
    bits, points, values = width(values), double(points), double(values)
    if points.ndim == 0 or values.ndim == 0 or points.shape[-1] != values.shape[-1] or points.shape[-1] < 2:
        shapes = f"values {tuple(values.shape)}, points {tuple(points.shape)}"
        raise ValueError(f"expected values (*batch, k) at points (k,), k >= 2, got {shapes}")
    batch = broadcast_batch(points=points.shape[:-1], values=values.shape[:-1])
    values = namespace(values).broadcast_to(values, (*batch, values.shape[-1]))
    for name, array in (("points", points), ("values", values)):
        host = to_numpy(array)
        if array.ndim == 1 and not np.isfinite(host).all():
            bad = int(np.argmin(np.isfinite(host)))
            raise ValueError(f"{name}: expected finite numbers, got {host[bad]} at index {bad}")
    # infinite points, of elements of a batch, are NaN: complex infinities make warnings wherever they are divided
    points = namespace(points).where(namespace(points).isfinite(points), points, namespace(points).full_like(points, float("nan")))
    return _told_apart(Samples(points, values, 0 if dt is None else checked_dt(dt), bits))


def _told_apart(given: Samples) -> Samples:
    """``given``; ValueError for one grid whose points are all the same, or further apart than the squares of their ratios have digits."""
    points = to_numpy(given.points)
    if points.ndim == 1:
        size = np.abs(points[points != 0])
        if (points == points[0]).all():
            raise ValueError(f"points: expected at least two different ones, got {len(points)} times {points[0]}")
        if not given.is_discrete and size.min() < _NARROWEST * size.max():
            raise ValueError(f"points: expected moduli within a factor of {1 / _NARROWEST:.0e}, got {size.min()} and {size.max()}")
    return given
