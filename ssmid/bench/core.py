"""``ssmid bench core``: Hankel values, balanced truncation, taps, spectra and ERA beside the tools that people use for them.

Every job is given to all tools that are installed, in one process with one thread setting, and the errors stand beside the
times: a fast wrong answer is no answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

from ssmid._array import cores, next_fast_length
from ssmid.analysis.impulse import impulse_response
from ssmid.bench import peers
from ssmid.bench.banks import banks_of_small_systems, taps_and_spectra
from ssmid.bench.measured import room_response
from ssmid.bench.records import OURS, Case, Progress, Row, bars, result
from ssmid.bench.singles import single_systems
from ssmid.bench.timing import limits, machine, measure
from ssmid.identification.era import era
from ssmid.reduction.balanced import balanced_truncation

SINGLE = {"pyMOR": 1.0, "pyMOR, sparse (ADI)": 1.0, "SLICOT AB09AD": 1 / 1.5}
"""On one system of order 100 or more: never slower than pyMOR, within 1.5 times of SLICOT's Fortran."""
BANK = {"pyMOR, loop": 50.0}
"""On a bank of 1000 systems."""
ERA = {"pyMOR, randomized ERA": 1.0}
"""On a long measured response."""


def core(*, quick: bool = False, data: Path | None = None, progress: Progress = print) -> dict[str, Any]:
    """All sections; ``data``: a folder with ``mor/*.mat`` and ``ir/*.wav``, which adds the published systems and a measured room."""
    facts = machine()
    progress("limits of this machine")
    ceilings = limits(quick)
    single = single_systems(quick, data, progress)
    bank = banks_of_small_systems(quick, progress)
    spectra = taps_and_spectra(quick, ceilings, progress)
    room = era_on_a_room(quick, data, progress)
    large = [case for case in single if case.order is not None and case.order >= 100]
    checked = [] if quick else [*bars(large, SINGLE), *bars(bank, BANK), *bars(room, ERA)]
    return result("core", quick, facts, ceilings, [*single, *bank, *spectra, *room], checked)


def era_on_a_room(quick: bool, data: Path | None, progress: Progress) -> list[Case]:
    """A room response of 39,431 samples (measured where there is one, else simulated): order 32 and 64, ERA and balanced truncation.

    The floor is no limit but a unit: one FFT pair over the length that a product with the Hankel matrix takes.
    """
    name, response = room_response(quick, data)
    taps = response.taps
    pair = _fft_pair_seconds(2 * len(taps))
    cases = []
    for order in (8,) if quick else (32, 64):
        progress(f"ERA, {name}, order {order}")
        tools = {
            OURS: lambda r=order: era(response, r).system,
            "ssmid, balanced truncation": lambda r=order: balanced_truncation(response, r).system,
        }
        if peers.have("pymor"):
            tools["pyMOR, randomized ERA"] = lambda r=order: peers.pymor_era(response, r)
        timed = measure(tools, 1 if quick else 3, 0.3 if quick else 8.0)
        rows = []
        for tool, (timing, model) in timed.items():
            error = np.linalg.norm(impulse_response(model, len(taps)).taps - taps) / np.linalg.norm(taps)
            rows.append(Row(tool, timing, float(error)))
        kind = "relative l2 error of the taps"
        cases.append(Case("ERA", f"{name}, order {order}", tuple(rows), kind, order, floor=pair, floor_kind="one FFT pair"))
    return cases


def _fft_pair_seconds(length: int) -> float:
    vectors = np.ones((cores(), next_fast_length(length)))  # one a core, as a block of vectors is transformed

    def pair() -> np.ndarray:
        return np.asarray(scipy.fft.irfft(scipy.fft.rfft(vectors, workers=cores()), workers=cores()))

    return measure({"pair": pair}, 20, 1.0)["pair"][0].seconds / cores()
