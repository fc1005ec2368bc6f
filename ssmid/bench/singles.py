"""One system at a time: Hankel values and balanced truncation of the benchmark systems of the model-reduction literature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssmid import datasets
from ssmid.analysis.hankel import hankel_singular_values
from ssmid.analysis.spectrum import frequency_response
from ssmid.bench import peers
from ssmid.bench.measured import published_systems
from ssmid.bench.records import OURS, Case, Progress, Row
from ssmid.bench.timing import measure
from ssmid.reduction.balanced import balanced_truncation
from ssmid.systems import StateSpace, System

_REFERENCE = "SLICOT AB09AD"


def single_systems(quick: bool, data: Path | None, progress: Progress) -> list[Case]:
    """Hankel values, then balanced truncation, of each benchmark system."""
    cases = []
    for name, (system, order) in _benchmark_systems(quick, data).items():
        repeats, budget = (2, 0.3) if quick else (7, 3.0)
        progress(f"Hankel values, {name}, n = {system.order}")
        cases.append(_hankel_values(name, system, repeats, budget))
        progress(f"balanced truncation, {name}, n = {system.order} to {order}")
        cases.append(_balanced_truncation(name, system, order, repeats, budget, 40 if quick else 200))
    return cases


def _hankel_values(name: str, system: StateSpace, repeats: int, budget: float) -> Case:
    tools: dict[str, Callable[[], np.ndarray]] = {OURS: lambda: hankel_singular_values(system, system.order), **peers.hankel_tools(system)}
    timed = measure(tools, repeats, budget)
    against = _REFERENCE if _REFERENCE in timed else OURS
    rows = [Row(tool, timing, None if tool == against else _deviation(v, timed[against][1])) for tool, (timing, v) in timed.items()]
    kind = f"largest deviation from the values of {against}, of the largest"
    return Case("Hankel values", name, tuple(rows), kind, system.order, rounding=_rounding(system))


def _balanced_truncation(name: str, system: StateSpace, order: int, repeats: int, budget: float, points: int) -> Case:
    tools: dict[str, Callable[[], Any]] = {OURS: lambda: balanced_truncation(system, order).system, **peers.balanced_tools(system, order)}
    timed = measure(tools, repeats, budget)
    omega = _telling_frequencies(system, points)
    full = frequency_response(system, omega).values
    rows = [Row(tool, timing, hinf_error(full, reduced, omega)) for tool, (timing, reduced) in timed.items()]
    kind = "H-infinity error at the resonances and on a logarithmic grid, of the largest gain"
    return Case("balanced truncation", f"{name}, to {order}", tuple(rows), kind, system.order, rounding=_rounding(system))


def hinf_error(full: np.ndarray, reduced: System, omega: np.ndarray) -> float:
    """Largest gain of the difference over ``omega``, relative to that of ``full``; of a bank the median."""
    difference = full - frequency_response(reduced, omega).values
    coupled = isinstance(reduced, StateSpace) and (reduced.outputs, reduced.inputs) != (1, 1)
    return float(np.median(_largest_gain(difference, coupled) / _largest_gain(full, coupled)))


def _largest_gain(values: np.ndarray, coupled: bool) -> np.ndarray:
    """Largest singular value over the frequencies, the last axis; the two before it are outputs and inputs where coupled."""
    gains = np.linalg.norm(np.moveaxis(values, -1, 0), 2, axis=(-2, -1)) if coupled else np.moveaxis(np.abs(values), -1, 0)
    return np.asarray(gains.max(0))


def _deviation(values: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference relative to the largest reference value; imaginary parts count, missing values are zeros."""
    ordered = np.sort_complex(np.asarray(values, complex))[::-1]
    length = max(len(ordered), len(reference))
    return float(np.abs(np.pad(ordered, (0, length - len(ordered))) - np.pad(reference, (0, length - len(reference)))).max() / reference[0])


def _rounding(system: StateSpace) -> float:
    """How far rounding A moves the slowest pole, relative to its distance from instability: the condition of what is asked for."""
    return float(np.finfo(float).eps * np.linalg.norm(system.A, 2) / np.abs(np.linalg.eigvals(system.A).real).min())


def _telling_frequencies(system: StateSpace, count: int) -> np.ndarray:
    """A logarithmic grid over the spectrum of A, and the frequencies of its least damped modes, where errors peak."""
    poles = np.linalg.eigvals(system.A)
    sizes = np.abs(poles)
    resonances = poles[poles.imag > 0]
    sharpest = resonances[np.argsort(-resonances.real / np.abs(resonances))][:count]
    return np.unique(np.r_[np.geomspace(sizes.min() / 10, sizes.max() * 10, count), np.abs(sharpest.imag)])


def _benchmark_systems(quick: bool, data: Path | None) -> dict[str, tuple[StateSpace, int]]:
    """Name -> (system, order to reduce it to); the published ones where their files are."""
    if quick:
        return {"heat": (datasets.heat(100), 6), "beam": (datasets.beam(100), 20)}
    made = {"fom": (datasets.fom(), 12), "heat": (datasets.heat(), 6), "beam": (datasets.beam(), 24)}
    return {**made, **published_systems(data, {"build": 16, "CDplayer": 20, "heat-cont": 6, "iss_siso": 24})}
