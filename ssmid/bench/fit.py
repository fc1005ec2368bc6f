"""``ssmid bench fit``: models from measured data beside the tools of each trade, on the same data, in one run.

Errors stand beside times, and a model that is not real and stable is marked: it sets no bar.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssmid.bench.device import accelerator
from ssmid.bench.fit_frequency import bank_of_responses, frequency_responses
from ssmid.bench.fit_records import records
from ssmid.bench.fit_systems import reductions
from ssmid.bench.fit_taps import bank_of_taps, taps
from ssmid.bench.records import Bar, Case, Progress, bars, result
from ssmid.bench.timing import limits, machine

PEERS = {
    "scikit-rf vector_fit": 1.0, "scikit-rf auto_fit": 1.0, "pyMOR PAAA": 1.0, "SciPy AAA": 1.0, "SciPy AAA, defaults": 1.0,
    "pyMOR, randomized ERA": 1.0, "pyMOR, randomized ERA, 8 power iterations": 1.0, "pyMOR, ERA": 1.0, "python-control era": 1.0,
    "pyMOR": 1.0, "SLICOT AB09AD": 1 / 1.5, "pyMOR IRKA": 1.0, "SIPPY, search over six methods": 1.0,
    "SIPPY N4SID": 1.0, "SIPPY CVA": 1.0,
    "scikit-rf vector_fit, loop": 50.0, "SciPy AAA, loop": 50.0, "pyMOR, ERA, loop": 50.0,
}  # fmt: skip
"""How many times our seconds a tool must have taken: a bank of 1000 at least 50, SLICOT's Fortran two thirds, all others one."""


def fit(*, quick: bool = False, data: Path | None = None, progress: Progress = print, device: str = "cpu") -> dict[str, Any]:
    """All sections; ``data``: a folder with ``freq``, ``ir``, ``mor`` and ``sysid``, which adds what was measured there.

    On another ``device`` only the banks, beside loops of the other tools on its host. Raises ValueError where it is not there.
    """
    facts = machine() | accelerator(device)
    progress("limits of this machine")
    ceilings = limits(quick)
    cases: list[Case] = []
    if device == "cpu":
        for section in (frequency_responses, taps, reductions, records):
            cases += section(quick, data, progress)
    progress("banks of responses")
    cases += [bank_of_responses(quick, device), bank_of_taps(quick, device)]
    checked: list[Bar] = [] if quick else bars(cases, PEERS)
    return result("fit" if device == "cpu" else f"fit on {device.split(':')[0]}", quick, facts, ceilings, cases, checked)
