"""Means and straight trends taken off records, by one rule for training and for what is predicted later."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, astype_width, double, from_numpy, namespace, to_numpy, width
from ssmid.identification.record import Record

CENTERS = ("mean", "trend")


@dataclasses.dataclass(frozen=True, eq=False)
class Centering:
    """What a linear model sees a record without: ``level + slope t`` of each channel, t in samples. Made by :func:`centering`.

    inputs : ``(*batch, m, 2)`` level and slope   outputs : ``(*batch, p, 2)``

    A mean is the working point of the system and holds for every later record; a trend is that of one record only, so that its slope
    is taken off the record it was found in and another record has its own found: by least squares here, and what that leaves of it
    together with the initial state where a model is there (:func:`ssmid.predict`).
    level_inputs : the inputs lose their level alone, even to a trend: what the subspace methods do
    """

    inputs: Array
    outputs: Array
    center: str | None = None
    level_inputs: bool = False

    def removed(self, record: Record) -> Record:
        """``record`` about the working point."""
        if self.center is None:
            return record
        inputs, outputs = (_about(x, self._line(record, of)) for of, x in enumerate((record.inputs, record.outputs)))
        return Record(inputs, outputs, record.dt)

    def restored(self, outputs: Array, record: Record) -> Array:
        """Outputs of a model back at the level of ``record``."""
        return outputs if self.center is None else outputs + self._line(record, 1)

    def _line(self, record: Record, of: int) -> Array:
        own = self.center == "trend" and not (of == 0 and self.level_inputs)
        lines = centering(record, "trend") if own else self
        line = (lines.inputs, lines.outputs)[of]
        t = from_numpy(np.arange(record.length, dtype=float), line)
        t = namespace(line).astype(t, line.dtype)
        return line[..., :1] + line[..., 1:] * t


def centering(records: Record | list[Record], center: str | None) -> Centering:
    """The common mean of all samples of ``records``, or the straight line of least squares of a single one; zero for ``None``.

    Raises ValueError for any other ``center``.

    >>> centering(Record(np.zeros(3), np.array([1.0, 2.0, 6.0])), "mean").outputs
    array([[3., 0.]])
    """
    if center is not None and center not in CENTERS:
        raise ValueError(f'center: expected "mean", "trend" or None, got {center!r}')
    listed = [records] if isinstance(records, Record) else records
    inputs, outputs = (_lines([getattr(record, name) for record in listed], center) for name in ("inputs", "outputs"))
    return Centering(inputs, outputs, center)


def _about(signals: Array, line: Array) -> Array:
    """``signals - line``, zero in channels that lie on the line to rounding: what is left of them is no signal."""
    xp, rest = namespace(signals), signals - line
    if not signals.shape[-2]:
        return rest
    largest, left = (xp.max(xp.abs(x), axis=-1, keepdims=True) for x in (signals, rest))
    return xp.where(left <= 64 * float(xp.finfo(rest.dtype).eps) * largest, xp.zeros_like(rest), rest)


def _lines(signals: list[Array], center: str | None) -> Array:
    xp = namespace(*signals)
    joined = double(xp.concat(signals, axis=-1))
    level = xp.mean(joined, axis=-1) if joined.shape[-2] else joined[..., 0]
    if center != "trend":
        level = level if center == "mean" else xp.zeros_like(level)
        return astype_width(xp.stack([level, xp.zeros_like(level)], axis=-1), width(signals[0]))
    count = joined.shape[-1]
    t = from_numpy(np.arange(count) - (count - 1) / 2, joined)
    slope = xp.sum(joined * t, axis=-1) / max(float(to_numpy(xp.sum(t * t))), 1.0)
    return astype_width(xp.stack([level - slope * (count - 1) / 2, slope], axis=-1), width(signals[0]))
