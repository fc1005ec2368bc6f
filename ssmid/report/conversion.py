"""One conversion and what it cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.convert import FORMS, convert
from ssmid.report.tables import Report, percent
from ssmid.systems import System

_LENGTH_OF = {"impulse-response": "length", "frequency-response": "points"}


def conversion(system: System, to: str, length: int | None, title: str) -> tuple[System, Report]:
    """``system`` in the form ``to``, and the report of ``ssmid convert``.

    ``length``: the taps of an impulse response or the points of the FFT grid.
    Raises ValueError for unknown forms, and for a length that is missing or has no meaning.
    """
    if to not in FORMS:
        raise ValueError(f"--to: expected one of {', '.join(FORMS)}, got {to!r}")
    if length is not None and to not in _LENGTH_OF:
        raise ValueError(f"--length: expected none for --to {to}, got {length}")
    result = convert(system, to, **({} if length is None else {_LENGTH_OF[to]: length}))
    facts: dict[str, Any] = {"from": repr(system), "to": repr(result.system)}
    error, condition = (float(np.max(to_numpy(value), initial=0.0)) for value in (result.backward_error, result.condition))
    facts |= {"backward error": error, "condition": condition}
    words = [f"The two frequency responses agree to {percent(error)} of the peak."] if np.isfinite(error) else []
    return result.system, Report(title, facts, words=words)
