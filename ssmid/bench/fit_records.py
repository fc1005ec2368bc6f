"""Records: robot arm, hair dryer, ball and beam. Fitted to the first half, judged by the free simulation of the second."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssmid.analysis.characteristics import is_stable
from ssmid.bench.fit_peers import sippy
from ssmid.bench.peers import have
from ssmid.bench.records import OURS, Case, Progress, Row
from ssmid.bench.timing import measure
from ssmid.identification.identify import identify
from ssmid.identification.initial_state import estimate_initial_state, free_simulation
from ssmid.identification.record import Record
from ssmid.identification.subspace import cva, moesp, n4sid
from ssmid.identification.validation import fit_percent, predict
from ssmid.io import read_record
from ssmid.systems import StateSpace

_FILES = {"robot arm": "robot_arm_dat.mat", "hair dryer": "farnn_hairdryer.mat", "ball and beam": "farnn_ballbeam.mat"}
_SIPPY = ("N4SID", "MOESP", "CVA", "PARSIM-K", "PARSIM-S", "PARSIM-P")
_LARGEST = 12
_KIND = "1 - fit: the part of the second half's variation that a free simulation, its initial state fitted, leaves"


def records(quick: bool, data: Path | None, progress: Progress) -> list[Case]:
    """The measured records where they are, else one of a simulated motor."""
    cases = []
    for name, file in _FILES.items():
        path = data / "sysid" / file if data else None
        if path and path.is_file() and not quick:
            progress(name)
            cases.append(_case(name, read_record(path, inputs=0, outputs=1, fs=1), quick))
    return cases or [_case("simulated motor", _motor(), quick)]


def _case(name: str, record: Record, quick: bool) -> Case:
    """The time of one tool is that of its best model alone, the search over orders beside it left out, but for ours, which includes it."""
    half = record.length // 2
    train, test = record[:half], record[half:]
    largest = 3 if quick else _LARGEST
    tools: dict[str, Callable[[], Any]] = {OURS: lambda: identify(train, max_order=largest, center="mean").fit}
    for verb in (n4sid, moesp, cva):
        order = _best_order(lambda r, v=verb: v(train, r, center="mean"), train, largest)
        tools[f"ssmid, {verb.__name__}"] = lambda v=verb, r=order: v(train, r, center="mean")
    if have("sippy_unipi"):
        method, order = _best_of_sippy(train, largest)
        tools["SIPPY, the best of six"] = lambda: _centered(lambda r: sippy(method, r.inputs[0], r.outputs[0], order), train)
    timed = measure(tools, 1 if quick else 5, 0.3 if quick else 4.0)
    rows = []
    for tool, (timing, model) in timed.items():
        left = 1 - float(np.asarray(_fit(model, test)).min()) / 100
        rows.append(Row(tool, timing, left, order=model.system.order, right=bool(is_stable(model.system))))
    return Case("records", name, tuple(rows), _KIND, None)


@dataclasses.dataclass(frozen=True)
class _Centered:
    """A model of another tool, and the means that were taken away before."""

    system: StateSpace
    means: tuple[float, float]


def _centered(fit: Callable[[Record], StateSpace], train: Record) -> _Centered:
    means = float(train.inputs.mean()), float(train.outputs.mean())
    return _Centered(fit(Record(train.inputs - means[0], train.outputs - means[1], train.dt)), means)


def _fit(model: Any, record: Record) -> np.ndarray:
    """Per cent, in free simulation."""
    if not isinstance(model, _Centered):
        return np.asarray(fit_percent(record.outputs, predict(model, record, None)))
    about = Record(record.inputs - model.means[0], record.outputs - model.means[1], record.dt)
    system = dataclasses.replace(model.system, dt=record.dt)
    with np.errstate(over="ignore", invalid="ignore"):
        simulated = free_simulation(system, about.inputs, estimate_initial_state(system, about))
        return np.nan_to_num(np.asarray(fit_percent(about.outputs, simulated)), nan=-np.inf)


def _best_order(fit: Callable[[int], Any], train: Record, largest: int) -> int:
    return max(range(1, largest + 1), key=lambda order: float(_fit(fit(order), train).min()))


def _best_of_sippy(train: Record, largest: int) -> tuple[str, int]:
    """The method and order of the best free simulation of what was trained on."""
    found: dict[tuple[str, int], float] = {}
    for method in _SIPPY:
        for order in range(1, largest + 1):
            try:
                model = _centered(lambda r, m=method, n=order: sippy(m, r.inputs[0], r.outputs[0], n), train)
                found[method, order] = float(_fit(model, train).min())
            except (ValueError, np.linalg.LinAlgError, IndexError):
                found[method, order] = -np.inf
    return max(found, key=lambda key: found[key])


def _motor() -> Record:
    rng = np.random.default_rng(3)
    inputs = np.repeat(rng.choice([-1.0, 1.0], 60), 10)
    system = StateSpace([[0.9, 0.2], [-0.2, 0.8]], [[0.0], [1.0]], [[1.0, 0.0]])
    outputs = free_simulation(system, inputs[None])
    return Record(inputs, outputs[0] + 0.02 * rng.standard_normal(600))
