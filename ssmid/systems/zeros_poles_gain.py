"""Zeros, poles and gain, and cascades of second-order sections: the factored forms that lose nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from ssmid._array import Array, as_complex, harmonize, is_complex
from ssmid.systems.base import System, expect_shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ZerosPolesGain(System):
    """A bank of scalar systems ``gain prod(z - zeros) / prod(z - poles)``.

    zeros : ``(*batch, q)`` complex   poles : ``(*batch, n)`` complex, q <= n   gain : ``(*batch,)``

    Raises ValueError for improper systems (q > n) and NaN in a single system.

    >>> ZerosPolesGain([], [0.5], 2.0)
    ZerosPolesGain(order=1, zeros=0, batch=(), dt=1, complex128)
    """

    core_ndim: ClassVar = {"zeros": 1, "poles": 1, "gain": 0}
    zeros: Array
    poles: Array
    gain: Array
    dt: float | bool = 1  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        zeros, poles, gain = harmonize(zeros=self.zeros, poles=self.poles, gain=self.gain)
        for name, array in (("zeros", zeros), ("poles", poles)):
            expect_shape(name, array, 1, "(*batch, count)")
        if zeros.shape[-1] > poles.shape[-1]:
            raise ValueError(f"expected a proper system (zeros <= poles), got {zeros.shape[-1]} zeros and {poles.shape[-1]} poles")
        self._settle(zeros=as_complex(zeros), poles=as_complex(poles), gain=gain)

    @property
    def order(self) -> int:
        """The number of poles."""
        return self.poles.shape[-1]

    @property
    def is_complex(self) -> bool:
        """Whether the gain is complex: zeros and poles always are."""
        return is_complex(self.gain)

    def _describe(self) -> Iterator[str]:
        yield from (f"order={self.order}", f"zeros={self.zeros.shape[-1]}")


def zpk(z: Any, p: Any, k: Any, dt: float | bool = 1) -> ZerosPolesGain:
    """A :class:`ZerosPolesGain`, in the order of arguments that scipy and control use.

    >>> zpk([-1], [0.5, 0.25], 3.0, dt=0).order
    2
    """
    return ZerosPolesGain(z, p, k, dt)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SecondOrderSections(System):
    """A bank of cascades of sections ``(b0 + b1/z + b2/z^2) / (a0 + a1/z + a2/z^2)``, as scipy's ``sos``.

    sections : ``(*batch, count, 6)``, each row ``b0 b1 b2 a0 a1 a2`` with a0 not zero. Discrete time, real.
    Raises ValueError for other shapes, continuous time, or NaN in a single system.

    >>> SecondOrderSections([[1.0, 0, 0, 1, -0.5, 0]])
    SecondOrderSections(sections=1, batch=(), dt=1, float64)
    """

    core_ndim: ClassVar = {"sections": 2}
    sections: Array
    dt: float | bool = 1  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        (sections,) = harmonize(sections=self.sections)
        expect_shape("sections", sections, 2, "(*batch, count, 6)")
        if sections.shape[-1] != 6:
            raise ValueError(f"sections: expected shape (*batch, count, 6), got {tuple(sections.shape)}")
        self._settle(sections=sections)
        if not self.is_discrete:
            raise ValueError("dt: expected discrete time for second-order sections in powers of 1/z, got 0")

    @property
    def order(self) -> int:
        """Two states a section."""
        return 2 * self.sections.shape[-2]

    def _describe(self) -> Iterator[str]:
        yield f"sections={self.sections.shape[-2]}"
