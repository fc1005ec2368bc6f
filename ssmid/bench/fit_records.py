"""Records: robot arm, hair dryer, ball and beam. Fitted to the first half, judged by the free simulation of the second.

Two comparisons of each record, like with like: a search for the model, ours beside SIPPY's six methods at all orders, both timed whole;
and single models at an order given, ours beside SIPPY's. No choice looks at the second half.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssmid.analysis.characteristics import is_stable
from ssmid.bench.fit_peers import sippy
from ssmid.bench.peers import have
from ssmid.bench.records import OURS, Case, Progress, Row
from ssmid.bench.timing import measure
from ssmid.identification.arx import arx
from ssmid.identification.identify import drifts, identify
from ssmid.identification.initial_state import estimate_initial_state, free_simulation
from ssmid.identification.prediction_error import oe
from ssmid.identification.record import Record
from ssmid.identification.subspace import cva, moesp, n4sid
from ssmid.identification.validation import fit_percent, predict
from ssmid.io import read_record
from ssmid.systems import StateSpace

_FILES = {"robot arm": "robot_arm_dat.mat", "hair dryer": "farnn_hairdryer.mat", "ball and beam": "farnn_ballbeam.mat"}
_SIPPY = ("N4SID", "MOESP", "CVA", "PARSIM-K", "PARSIM-S", "PARSIM-P")
_LARGEST = 12
_KIND = "1 - fit: the part of the second half's variation that a free simulation, its initial state fitted, leaves"

Train = Callable[[Record], Any]


def records(quick: bool, data: Path | None, progress: Progress) -> list[Case]:
    """The measured records where they are, else one of a simulated motor."""
    cases = []
    for name, file in _FILES.items():
        path = data / "sysid" / file if data else None
        if path and path.is_file() and not quick:
            progress(name)
            cases += _cases(name, read_record(path, inputs=0, outputs=1, fs=1), quick)
    return cases or _cases("simulated motor", _motor(), quick)


def _cases(name: str, record: Record, quick: bool) -> list[Case]:
    half = record.length // 2
    train, test = record[:half], record[half:]
    largest = 3 if quick else _LARGEST
    search: dict[str, Train] = {OURS: lambda r: identify(r, max_order=largest).fit}
    if have("sippy_unipi"):
        search["SIPPY, search over six methods"] = lambda r: _best([_of_sippy(m, n) for m in _SIPPY for n in range(1, largest + 1)], r)[1]
    return [
        _case(f"{name}, search for a model", search, train, test, quick),
        _case(f"{name}, one model", _single_models(train, largest), train, test, quick),
    ]


def _single_models(train: Record, largest: int) -> dict[str, Train]:
    """One training of each method, at the order of the best free simulation of the record it was trained on.

    Ours is the subspace method that does best there, since those of SIPPY are such.
    """
    orders, verbs = range(1, largest + 1), (n4sid, moesp, cva)
    subspace = {
        f"ssmid, {verb.__name__}": _best([partial(verb, order=n, center="mean", stable=True) for n in orders], train)
        for verb in verbs
    }
    others = {
        "ssmid, arx": [partial(arx, na=n, nb=n + 1, delay=0, center="mean") for n in orders],
        "ssmid, oe": [partial(oe, nb=n + 1, nf=n, delay=0, center="mean") for n in orders],
        "ssmid, oe with drift": [partial(oe, nb=n - k + 1, nf=n - k, delay=0, drift=k, center="mean") for n in orders for k in drifts(n)],
    }
    found = subspace | {label: _best(candidates, train) for label, candidates in others.items()}
    if have("sippy_unipi"):
        found |= {f"SIPPY {m}": _best([_of_sippy(m, n) for n in orders], train) for m in ("N4SID", "CVA")}
    best = max(subspace, key=lambda label: _fit(subspace[label][1], train))
    return {OURS: found[best][0]} | {label: fit for label, (fit, _) in found.items() if label != best}


def _case(name: str, tools: dict[str, Train], train: Record, test: Record, quick: bool) -> Case:
    timed = measure({label: partial(fit, train) for label, fit in tools.items()}, 1 if quick else 5, 0.3 if quick else 4.0)
    rows = [
        Row(label, timing, 1 - _fit(model, test) / 100, order=model.system.order, right=bool(is_stable(model.system)))
        for label, (timing, model) in timed.items()
    ]
    return Case("records", name, tuple(rows), _KIND, None)


def _best(candidates: Sequence[Train], train: Record) -> tuple[Train, Any]:
    """The candidate of the best free simulation of the record it is trained on, and the model."""
    found: list[tuple[float, Train, Any]] = []
    for fit in candidates:
        try:
            model = fit(train)
            found.append((_fit(model, train), fit, model))
        except (ValueError, np.linalg.LinAlgError, IndexError):
            continue
    return max(found, key=lambda one: one[0])[1:]


def _of_sippy(method: str, order: int) -> Train:
    return lambda record: _centered(lambda r: sippy(method, r.inputs[0], r.outputs[0], order), record)


@dataclasses.dataclass(frozen=True)
class _Centered:
    """A model of another tool, and the means that were taken away before."""

    system: StateSpace
    means: tuple[float, float]


def _centered(fit: Callable[[Record], StateSpace], train: Record) -> _Centered:
    means = float(train.inputs.mean()), float(train.outputs.mean())
    return _Centered(fit(Record(train.inputs - means[0], train.outputs - means[1], train.dt)), means)


def _fit(model: Any, record: Record) -> float:
    """Per cent, in free simulation; minus infinity where that overflows."""
    if not isinstance(model, _Centered):
        fitted = fit_percent(record.outputs, predict(model, record, None))
    else:
        about = Record(record.inputs - model.means[0], record.outputs - model.means[1], record.dt)
        system = dataclasses.replace(model.system, dt=record.dt)
        with np.errstate(over="ignore", invalid="ignore"):
            fitted = fit_percent(about.outputs, free_simulation(system, about.inputs, estimate_initial_state(system, about)))
    return float(np.nan_to_num(np.asarray(fitted), nan=-np.inf).min())


def _motor() -> Record:
    rng = np.random.default_rng(3)
    inputs = np.repeat(rng.choice([-1.0, 1.0], 60), 10)
    system = StateSpace([[0.9, 0.2], [-0.2, 0.8]], [[0.0], [1.0]], [[1.0, 0.0]])
    outputs = free_simulation(system, inputs[None])
    return Record(inputs, outputs[0] + 0.02 * rng.standard_normal(600))
