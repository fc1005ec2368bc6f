"""What the benchmarks are run on where its files are: a measured room, and the published systems of model reduction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ssmid import datasets
from ssmid.io import read
from ssmid.systems import ImpulseResponse, StateSpace


def room_response(quick: bool, data: Path | None) -> tuple[str, ImpulseResponse]:
    """Name and taps of a living room, of a simulated one where the recording is not there."""
    measured = data / "ir" / "openair_living_room_1.wav" if data else None
    if measured and measured.is_file() and not quick:
        response = read(measured)
        assert isinstance(response, ImpulseResponse)
        return f"measured living room, {response.length} samples", ImpulseResponse(np.ravel(response.taps).astype(float), response.dt)
    response = datasets.room(fs=8000, length=2000) if quick else datasets.room(fs=44_100, length=39_431)
    return f"simulated room, {response.length} samples", response


def published_systems(data: Path | None, orders: Mapping[str, int]) -> dict[str, tuple[StateSpace, int]]:
    """Name -> (system, order to reduce it to) of those of ``orders`` whose files are there."""
    systems = {}
    for name, order in orders.items():
        path = data / "mor" / f"{name}.mat" if data else None
        if path and path.is_file():
            system = read(path)
            assert isinstance(system, StateSpace)
            systems[name] = system, order
    return systems
