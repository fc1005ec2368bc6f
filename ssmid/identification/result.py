"""What every identification says: a system fitted to data, its measured error, and what happened to its poles."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, TypeVar

import numpy as np

from ssmid._array import Array, to_numpy
from ssmid.reduction.result import Result

AnyResult = TypeVar("AnyResult", bound=Result)


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
        """The least error that a model of that order could have, where that is known."""
        least = None if self.lower_bound is None else to_numpy(self.lower_bound)
        if least is None or not np.isfinite(least).any():
            return ""
        return f"; no model of that order gets below {np.nanmedian(least):.3g}{'' if least.ndim == 0 else ' in the median'}"


def told_if_unstable(result: AnyResult, verb: str, advice: str, depth: int = 0) -> AnyResult:
    """``result``; a warning where a model is unstable, which says how many are and what gives stable ones.

    It points to the line that called the public function, which called this one with ``depth`` functions (and decorators) between.
    """
    stable = to_numpy(result.stable)
    unstable = int(np.sum(~stable & np.isfinite(to_numpy(result.error))))
    if unstable:
        some = "the model is" if stable.ndim == 0 else f"{unstable} of {stable.size} models are"
        warnings.warn(f"{verb}: {some} unstable; {advice}", stacklevel=3 + depth)
    return result
