"""What every identification says: a system fitted to data, its measured error, and what happened to its poles."""

from __future__ import annotations

import dataclasses
from typing import Any

from ssmid._array import Array
from ssmid.reduction.result import Result


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Fit(Result):
    """A system fitted to data. Not made by users.

    data : what it was fitted to (taps, samples of a transfer function, records)
    error : ``(*batch,)`` measured   error_kind : what it is, in words
    sigma : ``(*batch, k)`` the singular values that the order was chosen by, descending, where the method has such
    lower_bound : ``(*batch,)`` of the error where one is known
    """

    data: Any
    error: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    error_kind: str = "relative l2 error"  # pyright: ignore[reportIncompatibleMethodOverride]
    sigma: Array | None = None
    lower_bound: Array | None = None

    def _words_of_bound(self) -> str:
        return "" if self.lower_bound is None else "; a lower bound is known"
