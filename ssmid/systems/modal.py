"""Modal (diagonal) form: poles and residues. The form that filters are distilled into and that runs as a recurrence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from ssmid._array import Array, as_complex, harmonize, is_complex, namespace
from ssmid.systems.base import System, expect_shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Modal(System):
    """A bank of scalar systems in diagonal form.

    poles : ``(*batch, d)`` complex   residues : ``(*batch, d)`` complex   feedthrough : ``(*batch,)`` (zero when left out)

    Discrete time: ``h[0] = feedthrough``, ``h[t] = Re sum_i residues_i poles_i^(t-1)`` for t >= 1 (Massaroli et al. 2023, eq. 3.1).
    Continuous time: ``h(t) = Re sum_i residues_i exp(poles_i t)`` and an impulse of weight ``feedthrough`` at t = 0.
    With ``real=False`` the response is the complex sum itself. Of the feedthrough, too, a real system keeps the real part.

    Every function of ssmid returns real systems with poles closed under conjugation, so that ``order`` counts real states.
    A bank may also hold one pole of each pair with a doubled residue: taking the real part makes that the same system.
    Batch axes of the three arrays broadcast, so that channels can share poles: a system of p outputs and m inputs has
    residues ``(*batch, p, m, d)`` over poles ``(*batch, 1, 1, d)``.
    Raises ValueError for counts that differ, batch axes that do not broadcast, or NaN in a single system.

    >>> import numpy as np
    >>> Modal(np.array([0.9, -0.5]), np.array([1.0, 2.0]))
    Modal(order=2, batch=(), dt=1, complex128)
    """

    core_ndim: ClassVar = {"poles": 1, "residues": 1, "feedthrough": 0}
    poles: Array
    residues: Array
    feedthrough: Array = None
    dt: float | bool = 1  # pyright: ignore[reportIncompatibleMethodOverride]
    real: bool = True

    def __post_init__(self) -> None:
        poles, residues, feedthrough = harmonize(poles=self.poles, residues=self.residues, feedthrough=self.feedthrough)
        for name, array in (("poles", poles), ("residues", residues)):
            expect_shape(name, array, 1, "(*batch, order)")
        if poles.shape[-1] != residues.shape[-1]:
            raise ValueError(f"expected as many residues as poles, got residues {tuple(residues.shape)} and poles {tuple(poles.shape)}")
        if feedthrough is None:
            xp = namespace(poles)
            dtype = xp.real(as_complex(poles)).dtype if self.real else as_complex(poles).dtype
            feedthrough = xp.zeros((), dtype=dtype, device=poles.device)
        elif self.real and is_complex(feedthrough):
            feedthrough = namespace(feedthrough).real(feedthrough)
        self._settle(poles=as_complex(poles), residues=as_complex(residues), feedthrough=feedthrough)

    @property
    def order(self) -> int:
        """The number of modes: the number of real states where poles are closed under conjugation."""
        return self.poles.shape[-1]

    @property
    def is_complex(self) -> bool:
        """Whether the response is the complex sum itself: poles and residues always are complex."""
        return not self.real

    def _describe(self) -> Iterator[str]:
        yield f"order={self.order}"
        if not self.real:
            yield "real=False"
