"""Frequency responses: complex values at frequencies in rad/s."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from ssmid._array import Array, as_complex, harmonize
from ssmid.systems.base import System, expect_shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FrequencyResponse(System):
    """Values of ``H`` at ``exp(i omega dt)`` (discrete) or ``i omega`` (continuous): a bank of scalar channels.

    values : ``(*batch, k)`` complex   omega : ``(k,)`` or ``(*batch, k)`` real, rad/s

    Where a verb couples channels (``mimo=True``) the last two batch axes are outputs and inputs: ``(*batch, p, m, k)``.
    Raises ValueError for lengths that differ, complex frequencies, or NaN in a single response.

    >>> FrequencyResponse([1 + 0j, 0.5 - 0.5j], [0.0, 1.0], dt=0)
    FrequencyResponse(points=2, batch=(), dt=0, complex128)
    """

    core_ndim: ClassVar = {"values": 1, "omega": 1}
    values: Array
    omega: Array
    dt: float | bool = 1  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        values, omega = harmonize(values=self.values, omega=self.omega)
        for name, array in (("values", values), ("omega", omega)):
            expect_shape(name, array, 1, "(*batch, points)")
        if values.shape[-1] != omega.shape[-1] or values.shape[-1] == 0:
            raise ValueError(f"expected one value for each frequency, got values {tuple(values.shape)} and omega {tuple(omega.shape)}")
        if as_complex(omega) is omega:
            raise ValueError(f"omega: expected real frequencies in rad/s, got dtype {omega.dtype}")
        self._settle(values=as_complex(values), omega=omega)

    @property
    def points(self) -> int:
        """The number of frequencies."""
        return self.omega.shape[-1]

    @property
    def is_complex(self) -> bool:
        """False: values on half the circle do not tell, and are taken as those of a real response."""
        return False

    def _describe(self) -> Iterator[str]:
        yield f"points={self.points}"


def frd(values: Any, omega: Any, dt: float | bool = 0) -> FrequencyResponse:
    """A :class:`FrequencyResponse` in control's words; continuous unless ``dt`` says otherwise.

    >>> frd([1.0, 0.5], [0.0, 1.0], dt=0.1).points
    2
    """
    return FrequencyResponse(values, omega, dt)
