"""One conversion and what it cost."""

from __future__ import annotations

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.conversion import convert
from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.spectrum import frequency_response
from ssmid.report.tables import Report
from ssmid.systems import ImpulseResponse, System

FORMS = ("modal", "companion", "transfer-function", "zpk", "sos", "state-space", "balanced")
RESPONSES = ("impulse-response", "frequency-response")


def conversion(system: System, to: str, length: int | None, title: str) -> tuple[System, Report]:
    """``system`` in the form ``to``, and the report of ``ssmid convert``.

    ``length``: the taps of an impulse response or the points of the FFT grid; a response that is an impulse response already
    keeps its own. Raises ValueError for unknown forms, and for a length that is missing or has no meaning.
    """
    if to in FORMS:
        if length is not None:
            raise ValueError(f"--length: expected none for --to {to}, got {length}")
        result = convert(system, to)
        facts = {"from": repr(system), "to": repr(result.system)}
        for name, value in (("backward error", result.backward_error), ("condition", result.condition)):
            if value is not None:
                facts[f"{name}, worst"] = float(np.max(to_numpy(value)))
        return result.system, Report(title, facts)
    if to not in RESPONSES:
        raise ValueError(f"--to: expected one of {', '.join(FORMS + RESPONSES)}, got {to!r}")
    if length is None:
        if not isinstance(system, ImpulseResponse):
            raise ValueError(f"--length: expected the number of samples for --to {to}, got none")
        length = system.length
    response = impulse_response(system, length) if to == RESPONSES[0] else frequency_response(system, points=length)
    return response, Report(title, {"from": repr(system), "to": repr(response)})
