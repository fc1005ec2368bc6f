"""``ssmid demo``: the main job on data that the package brings along, without a network, in under a minute."""

from __future__ import annotations

from pathlib import Path

from ssmid import datasets
from ssmid.report import Report, fit_into
from ssmid.report.progress import Stage

ROOM_ORDER = 96
ROOM_RATE, ROOM_LENGTH = 1000, 512
"""Hz and taps: the modes of a room below 500 Hz, where it resounds; above them an echo of noise begins, which no small model holds."""
FILTER_ORDER = 16


def run(folder: Path, stage: Stage | None = None) -> tuple[Report, bool]:
    """Fits a simulated room response and 64 filters of a trained language model into ``folder``; the report, and whether all is well."""
    response = datasets.room(fs=ROOM_RATE, length=ROOM_LENGTH)
    room, room_good = fit_into(folder / "room", response, "room response below 500 Hz", order=ROOM_ORDER, stage=stage)
    bank, bank_good = fit_into(folder / "filters", datasets.hyena_filters(), "64 Hyena filters", order=FILTER_ORDER, stage=stage)
    return Report("ssmid demo", {"folder": str(folder.resolve())}, parts=(room, bank)), room_good and bank_good
