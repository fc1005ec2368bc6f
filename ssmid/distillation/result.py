"""What distilling returns: a bank of recurrences and its certificate."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from ssmid._array import Array, to_numpy
from ssmid.distillation.certificate import Certificate
from ssmid.reduction.result import Result


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Distillation(Result):
    """A :class:`Modal` bank in the place of filters.

    system : Modal, poles and residues ``(*batch, d)``, feedthrough ``(*batch,)``; smaller orders are padded with zeros.
        ``ssmid.to_transfer_function(system)`` has the companion (RTF) coefficients, ``ssmid.to_state_space(system)`` real blocks
    order : int, or ``(*batch,)`` integers   converged, condition : ``(*batch,)``   length : taps of the filters
    certificate : :class:`Certificate`, ``(*batch,)``
    """

    certificate: Certificate
    length: int
    error_kind: ClassVar[str] = "relative l2 error"  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def error(self) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(*batch,)`` relative l2 error of the taps after tap 0, which is kept exactly."""
        return self.certificate.l2

    def _words_of_bound(self) -> str:
        ratio = to_numpy(self.certificate.ratio)
        known = ratio[np.isfinite(ratio)]
        if known.size == 0:
            return ""
        return f"; in Hankel norm at most {known.max():.3g} times sigma_(order+1), which no stable system of that order gets below"
