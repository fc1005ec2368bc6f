"""What distilling returns: a bank of recurrences and its certificate."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from ssmid._array import Array, to_numpy
from ssmid.distillation.certificate import Certificate
from ssmid.distillation.rounding import Cost
from ssmid.reduction.result import Result


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Distillation(Result):
    """A :class:`Modal` bank in the place of filters.

    system : Modal, poles and residues ``(*batch, d)``, feedthrough ``(*batch,)``; smaller orders are padded with zeros.
        ``ssmid.to_transfer_function(system)`` has the companion (RTF) coefficients, ``ssmid.to_state_space(system)`` real blocks
    order : int, or ``(*batch,)`` integers   converged, condition : ``(*batch,)``   length : taps of the filters
    certificate : :class:`Certificate`, ``(*batch,)``
    cost : of ``precision="float32"``, where that was asked for, as measured on a sample

    The system comes in the precision of the filters, with ``precision="float32"`` in that, and it is the rounded poles and residues
    that are certified. Of trained filters rounding to float32 changes an error by 2e-8 of itself (orders 8 to 64). It costs more where
    a pole is within 2e-7 of the unit circle, which is moved in, and where large residues of close poles cancel: pass float64 there.
    """

    certificate: Certificate
    length: int
    cost: Cost | None = None
    error_kind: ClassVar[str] = "relative l2 error"  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def error(self) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(*batch,)`` relative l2 error of the taps after tap 0, which is kept exactly."""
        return self.certificate.l2

    def __repr__(self) -> str:
        """One line, also of a hundred thousand filters."""
        return f"Distillation({self._words_of_error().rstrip('.').partition(';')[0]}; {self.system!r})"

    def _words_of_bound(self) -> str:
        ratio = to_numpy(self.certificate.ratio)
        known = ratio[np.isfinite(ratio)]
        if known.size == 0:
            return ""
        return f"; in Hankel norm at most {known.max():.3g} times sigma_(order+1), which no stable system of that order gets below"

    def _words_of_trust(self) -> str:
        words = super()._words_of_trust()
        return words if self.cost is None else f"{words} {self.cost.words}."
