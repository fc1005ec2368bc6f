"""Impulse responses: taps of FIR filters, measured rooms, long convolutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from ssmid._array import Array, harmonize
from ssmid.systems.base import System, expect_shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImpulseResponse(System):
    """The response to an impulse of unit height: a bank of scalar channels.

    taps : ``(*batch, length)``; ``taps[..., 0]`` is the feedthrough D, ``taps[..., t] = C A^(t-1) B``. ``dt``: discrete.

    Where a verb couples channels (``mimo=True``) the last two batch axes are outputs and inputs: ``(*batch, p, m, length)``.
    Raises ValueError for an empty response, continuous time, or NaN in a single response.

    >>> ImpulseResponse([0.0, 1.0, 0.5, 0.25])
    ImpulseResponse(length=4, batch=(), dt=1, float64)
    """

    core_ndim: ClassVar = {"taps": 1}
    taps: Array
    dt: float | bool = 1  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        (taps,) = harmonize(taps=self.taps)
        expect_shape("taps", taps, 1, "(*batch, length)")
        if taps.shape[-1] == 0:
            raise ValueError(f"taps: expected at least one sample, got shape {tuple(taps.shape)}")
        self._settle(taps=taps)
        if not self.is_discrete:
            raise ValueError("dt: expected a sample time for an impulse response, got 0 (continuous)")

    @property
    def length(self) -> int:
        """The number of taps."""
        return self.taps.shape[-1]

    @property
    def order(self) -> int:
        """The states of the exact FIR realization: the taps beyond the feedthrough."""
        return self.length - 1

    def _describe(self) -> Iterator[str]:
        yield f"length={self.length}"
