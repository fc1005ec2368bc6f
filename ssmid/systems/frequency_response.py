"""Frequency responses: complex values at frequencies in rad/s."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ssmid._array import Array, as_complex, broadcast_batch, check_finite, harmonize
from ssmid.systems.base import System, checked_dt, expect_shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FrequencyResponse(System):
    """Values of ``H`` at ``exp(i omega dt)`` (discrete) or ``i omega`` (continuous): a bank of scalar channels.

    values : ``(*batch, k)`` complex   omega : ``(k,)`` or ``(*batch, k)`` real, rad/s

    Where a verb couples channels (``mimo=True``) the last two batch axes are outputs and inputs: ``(*batch, p, m, k)``.
    Raises ValueError for lengths that differ, complex frequencies, or NaN in a single response.

    >>> FrequencyResponse([1 + 0j, 0.5 - 0.5j], [0.0, 1.0], dt=0)
    FrequencyResponse(points=2, batch=(), dt=0, complex128)
    """

    values: Array
    omega: Array
    dt: float | bool = 1  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        values, omega = harmonize(values=self.values, omega=self.omega)
        for name, array in (("values", values), ("omega", omega)):
            expect_shape(name, array, 1, "(*batch, points)")
            check_finite(array, name, 1)
        if values.shape[-1] != omega.shape[-1] or values.shape[-1] == 0:
            raise ValueError(f"expected one value for each frequency, got values {tuple(values.shape)} and omega {tuple(omega.shape)}")
        if as_complex(omega) is omega:
            raise ValueError(f"omega: expected real frequencies in rad/s, got dtype {omega.dtype}")
        broadcast_batch(values=values.shape[:-1], omega=omega.shape[:-1])
        object.__setattr__(self, "values", as_complex(values))
        object.__setattr__(self, "omega", omega)
        object.__setattr__(self, "dt", checked_dt(self.dt))

    @property
    def points(self) -> int:
        """The number of frequencies."""
        return self.omega.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return broadcast_batch(values=self.values.shape[:-1], omega=self.omega.shape[:-1])

    def _describe(self) -> Iterator[str]:
        yield f"points={self.points}"


def frd(values: Any, omega: Any, dt: float | bool = 0) -> FrequencyResponse:
    """A :class:`FrequencyResponse` in control's words; continuous unless ``dt`` says otherwise.

    >>> frd([1.0, 0.5], [0.0, 1.0], dt=0.1).points
    2
    """
    return FrequencyResponse(values, omega, dt)
