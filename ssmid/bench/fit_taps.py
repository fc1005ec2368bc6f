"""Impulse responses: a room of 39,431 samples, 3000 taps of it, and filters of a bank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.characteristics import is_stable
from ssmid.analysis.impulse import impulse_response
from ssmid.bench import peers
from ssmid.bench.fit_frequency import on_device
from ssmid.bench.fit_peers import control_era, pymor_dense_era
from ssmid.bench.measured import room_response
from ssmid.bench.records import OURS, Case, Progress, Row
from ssmid.bench.timing import measure
from ssmid.identification.era import era
from ssmid.identification.exponentials import esprit
from ssmid.reduction.balanced import balanced_truncation
from ssmid.reduction.h2 import h2_approximation
from ssmid.systems import ImpulseResponse

_KIND = "relative l2 error of the taps"


def taps(quick: bool, data: Path | None, progress: Progress) -> list[Case]:
    """Every case; a simulated room where the measured one is not there."""
    name, room = room_response(quick, data)
    cases = []
    for order in (8,) if quick else (32, 64, 128):
        progress(f"{name}, order {order}")
        cases.append(_long(name, room, order, quick))
    start = ImpulseResponse(room.taps[: 300 if quick else 3000], room.dt)
    progress("3000 taps")
    cases.append(_short(f"the first {start.length} samples", start, 8 if quick else 64, quick))
    return cases


def _long(name: str, response: ImpulseResponse, order: int, quick: bool) -> Case:
    tools: dict[str, Callable[[], Any]] = {
        OURS: lambda: balanced_truncation(response, order).system,
        "ssmid, l2-optimal": lambda: h2_approximation(response, order).system,
    }
    if peers.have("pymor"):
        tools["pyMOR, randomized ERA"] = lambda: peers.pymor_era(response, order)
        if order > 32:
            tools["pyMOR, randomized ERA, 8 power iterations"] = lambda: peers.pymor_era(response, order, 8)
    return _case("long responses", f"{name}, order {order}", response, order, tools, quick)


def _short(name: str, response: ImpulseResponse, order: int, quick: bool) -> Case:
    tools: dict[str, Callable[[], Any]] = {
        OURS: lambda: balanced_truncation(response, order).system,
        "ssmid, l2-optimal": lambda: h2_approximation(response, order).system,
        "ssmid, ERA": lambda: era(response, order, stable=True).system,
    }
    if peers.have("pymor"):
        tools["pyMOR, ERA"] = lambda: pymor_dense_era(response, order)
    if peers.have("control"):
        tools["python-control era"] = lambda: control_era(response, order, (response.length - 2) // 2)
    return _case("responses of some thousand taps", f"{name}, order {order}", response, order, tools, quick)


def _case(section: str, name: str, response: ImpulseResponse, order: int, tools: dict[str, Callable[[], Any]], quick: bool) -> Case:
    timed = measure(tools, 1 if quick else 3, 0.3 if quick else 8.0)
    rows = []
    for tool, (timing, model) in timed.items():
        stable = bool(is_stable(model))
        with np.errstate(over="ignore", invalid="ignore"):
            error = _error(model, response)
        rows.append(Row(tool, timing, error, order=model.order, right=stable))
    return Case(section, name, tuple(rows), _KIND, order)


def bank_of_taps(quick: bool, device: str = "cpu") -> Case:
    """Sums of eight modes in a little noise; the loop is timed on a few and scaled."""
    count, sample, order, length = (20, 2, 16, 200) if quick else (1000, 10, 16, 400)
    rng = np.random.default_rng(11)
    upper = rng.uniform(0.9, 0.995, (count, 8)) * np.exp(1j * rng.uniform(0.1, 3.0, (count, 8)))
    residues = rng.standard_normal((count, 8)) + 1j * rng.standard_normal((count, 8))
    clean = np.real(np.sum(residues[:, None] * upper[:, None] ** np.arange(length)[:, None], -1))
    values = np.concatenate([np.ones((count, 1)), clean + 1e-4 * rng.standard_normal(clean.shape)], -1)
    bank = on_device(ImpulseResponse(values), device)
    tools: dict[str, Callable[[], Any]] = {
        OURS: lambda: era(bank, order, stable=True).system.map(to_numpy),
        "ssmid, ESPRIT": lambda: esprit(bank, order, stable=True).system.map(to_numpy),
    }
    if peers.have("pymor"):
        tools["pyMOR, ERA, loop"] = lambda: [pymor_dense_era(ImpulseResponse(v), order) for v in values[:sample]]
    timed = measure(tools, 1 if quick else 3, 0.3 if quick else 5.0)
    rows = []
    for tool, (timing, found) in timed.items():
        loop = isinstance(found, list)
        pairs = zip(found, values[:sample], strict=True) if loop else [(found, values)]
        errors = np.concatenate([np.ravel(_errors(model, ImpulseResponse(v))) for model, v in pairs])
        rows.append(Row(tool, timing.scaled(count / sample) if loop else timing, float(np.median(errors)), sample if loop else None))
    return Case("banks of responses", f"{count} responses of {length} taps, order {order}", tuple(rows), f"median {_KIND}", order, count)


def _errors(model: Any, response: ImpulseResponse) -> np.ndarray:
    difference = impulse_response(model, response.length).taps - response.taps
    return np.linalg.norm(difference, axis=-1) / np.linalg.norm(response.taps, axis=-1)


def _error(model: Any, response: ImpulseResponse) -> float:
    return float(_errors(model, response))
