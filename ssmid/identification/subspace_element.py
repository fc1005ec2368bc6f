"""One system by a subspace method: units, delays, order, matrices, and what is said about them. NumPy on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssmid._array import quiet
from ssmid.analysis.polynomial import Host
from ssmid.identification.initial_state import estimate_initial_state, free_simulation
from ssmid.identification.record import Record
from ssmid.identification.subspace_core import DataFactor, factorize, kalman_gain, observability, shift_invariant, stabilized
from ssmid.identification.subspace_inputs import InputFit, fit_inputs
from ssmid.reduction.result import Change
from ssmid.systems import StateSpace

DEGREES = {None: -1, "mean": 0, "trend": 1}
"""Polynomials of time that are taken off the outputs."""
SELECTIONS = ("criterion", "fit", "validation", "gap")

_ROUNDING = 1e-13
"""Relative error of a simulation that counts as none."""

Records = Sequence[tuple[Host, Host]]


@dataclasses.dataclass(frozen=True)
class Options:
    method: str
    order: int | None
    max_order: int
    rows: int
    past: int
    degree: int
    selection: str
    delays: tuple[int, ...]
    feedthrough: bool
    stable: bool


@dataclasses.dataclass(frozen=True)
class Element:
    """What :class:`SubspaceFit` holds, of one system."""

    A: Host
    B: Host
    C: Host
    D: Host
    K: Host
    covariance: Host
    states: Host
    levels: Host
    input_line: Host
    output_line: Host
    sigma: Host
    error: float
    condition: float
    converged: bool
    changes: tuple[Change, ...] = ()

    @property
    def radius(self) -> float:
        if not np.isfinite(self.A).all():
            return np.nan
        return float(np.abs(np.linalg.eigvals(self.A)).max(initial=0))


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A model of one order in units of the deviations of the channels."""

    A: Host
    C: Host
    inputs: InputFit
    changes: tuple[Change, ...]


@quiet
def identify(records: Records, options: Options) -> Element:
    """The model of ``records``, inputs ``(m, T)`` and outputs ``(p, T)`` each."""
    if not all(np.isfinite(u).all() and np.isfinite(y).all() for u, y in records):
        return _nothing(records, options)
    input_level, input_unit = _units([u for u, _ in records], options.degree)
    output_level, output_unit = _units([y for _, y in records], options.degree)
    scaled = [((u - input_level) / input_unit, (y - output_level) / output_unit) for u, y in records]
    late = [_delayed(u, y, options.delays) for u, y in scaled]
    factor = factorize(late, options.past, options.rows, options.degree)
    basis, sigma = observability(factor, options.method.lower())
    shown = int(np.sum(sigma > 1e-12 * max(sigma.max(initial=0), np.finfo(float).tiny)))
    if options.order is None and options.selection == "validation":
        order = _validated(late, min(shown, options.max_order), options)
        found = _candidate(basis, late, order, options)
    elif options.order is None and options.selection == "gap":
        found = _candidate(basis, late, _gap(sigma, min(shown, options.max_order)), options)
    elif options.order is None:
        found = _selected(basis, late, min(shown, options.max_order), options)
    else:
        found = _candidate(basis, late, min(shown, options.order), options)
    missing = 0 if options.order is None else options.order - len(found.A)
    lost = (Change("dropped", (0j,) * missing, "the data show no more states"),) if missing > 0 else ()
    gamma = basis[:, : len(found.A)]
    return _finished(found, factor, gamma, scaled, (input_level, input_unit), (output_level, output_unit), sigma, options, lost)


# ---------------------------------------------------------------- order


def _candidate(basis: Host, records: Records, order: int, options: Options) -> _Candidate:
    p = len(records[0][1])
    A, C = shift_invariant(basis[:, :order], p)
    changes: tuple[Change, ...] = ()
    if options.stable:
        A, moved = stabilized(A, 1)
        if moved:
            changes = (Change("reflected", moved, "outside the unit circle"),)
    return _Candidate(A, C, fit_inputs(A, C, records, options.degree, options.feedthrough), changes)


def _selected(basis: Host, records: Records, most: int, options: Options) -> _Candidate:
    """The order of the least description length, or of the least error."""
    samples = sum(y.size for _, y in records)
    total = sum(float(np.sum(y**2)) for _, y in records)
    m, p = len(records[0][0]), len(records[0][1])
    best, least = None, np.inf
    for order in range(min(1, most), most + 1):
        found = _candidate(basis, records, order, options)
        squares = max(found.inputs.squares, _ROUNDING**2 * total, np.finfo(float).tiny)
        parameters = order * (m + p + len(records)) if options.selection == "criterion" else 0
        length = samples * np.log(squares) + parameters * np.log(samples)
        if best is None or length < least:
            best, least = found, length
    assert best is not None
    return best


def _gap(sigma: Host, most: int) -> int:
    """The order, up to ``most``, after which the singular values fall by the largest factor."""
    values = np.concatenate([sigma, [0.0]])[: most + 1]
    if most == 0:
        return 0
    floor = np.finfo(float).eps * values[0]
    return int(np.argmax(values[:-1] / np.maximum(values[1:], floor))) + 1


def _validated(records: Records, most: int, options: Options) -> int:
    """The smallest order within a hundredth of the best free simulation of the last third of the samples by models of the first two."""
    cuts = [2 * u.shape[-1] // 3 for u, _ in records]
    first = [(u[:, :cut], y[:, :cut]) for (u, y), cut in zip(records, cuts, strict=True)]
    rows, past = (min(height, (min(cuts) - options.degree - 1) // 2) for height in (options.rows, options.past))
    basis, _ = observability(factorize(first, past, rows, options.degree), options.method.lower())
    p = len(records[0][1])
    errors = []
    for order in range(1, max(1, min(most, (rows - 1) * p)) + 1):
        found = _candidate(basis, first, order, options)
        system = StateSpace(found.A, found.inputs.B, found.C, found.inputs.D) if np.isfinite(found.inputs.squares) else None
        error, lines = 0.0, _lines(found.inputs.levels, cuts, 0)
        for index, ((u, y), cut) in enumerate(zip(records, cuts, strict=True)):
            if system is None:
                error = np.inf
                break
            line = lines[index, :, :1] + lines[index, :, 1:] * np.arange(cut, y.shape[-1])
            rest = Record(u[:, cut:], y[:, cut:] - line)
            wrong = rest.outputs - free_simulation(system, rest.inputs, estimate_initial_state(system, rest))
            error += float(np.sum(wrong**2))
        errors.append(error if np.isfinite(error) else np.inf)
    floor = _ROUNDING**2 * sum(float(np.sum(y**2)) for _, y in records)
    errors = np.maximum(errors, floor)
    return int(np.argmax(errors <= 1.0201 * errors.min())) + 1


# ---------------------------------------------------------------- units and delays


def _units(signals: list[Host], degree: int) -> tuple[Host, Host]:
    """Level ``(channels, 1)``, zero unless levels are taken off, and the deviation about it, 1 for channels that stand still."""
    joined = np.concatenate(signals, -1)
    largest = np.abs(joined).max(-1, keepdims=True)
    largest = np.where(largest > 0, largest, 1.0)
    joined = joined / largest
    level = joined.mean(-1, keepdims=True) if degree >= 0 else np.zeros((len(joined), 1))
    deviation = np.sqrt(np.mean((joined - level) ** 2, -1, keepdims=True))
    return level * largest, np.where(deviation > 1e-14, deviation, 1.0) * largest


def _delayed(u: Host, y: Host, delays: tuple[int, ...]) -> tuple[Host, Host]:
    """The record from when all inputs have arrived."""
    longest = max(delays, default=0)
    if longest == 0:
        return u, y
    count = u.shape[-1] - longest
    return np.stack([row[longest - d : longest - d + count] for row, d in zip(u, delays, strict=True)]), y[:, longest:]


def _with_delays(A: Host, B: Host, C: Host, D: Host, delays: tuple[int, ...]) -> tuple[Host, Host, Host, Host]:
    """The matrices with a chain of states for each delay, last the sample that acts now."""
    n, m = B.shape
    size = n + sum(delays)
    full, inputs, outputs, through = np.zeros((size, size)), np.zeros((size, m)), np.zeros((len(C), size)), D.copy()
    full[:n, :n], inputs[:n], outputs[:, :n] = A, B, C
    place = n
    for channel, d in enumerate(delays):
        if d == 0:
            continue
        full[place + 1 : place + d, place : place + d - 1] = np.eye(d - 1)
        last = place + d - 1
        full[:n, last], outputs[:, last] = B[:, channel], D[:, channel]
        inputs[:, channel], through[:, channel] = 0, 0
        inputs[place, channel] = 1
        place += d
    return full, inputs, outputs, through


# ---------------------------------------------------------------- what is returned


def _finished(
    found: _Candidate,
    factor: DataFactor,
    gamma: Host,
    scaled: Records,
    of_inputs: tuple[Host, Host],
    of_outputs: tuple[Host, Host],
    sigma: Host,
    options: Options,
    lost: tuple[Change, ...],
) -> Element:
    """The model in the units of the records."""
    (input_level, input_unit), (output_level, output_unit) = of_inputs, of_outputs
    inputs = found.inputs
    K, covariance = kalman_gain(factor, gamma, found.A, inputs.B, found.C, inputs.D)
    A, B, C, D = _with_delays(found.A, inputs.B, found.C, inputs.D, options.delays)
    K = np.concatenate([K, np.zeros((len(A) - len(K), K.shape[-1]))])
    levels = _lines(inputs.levels, [y.shape[-1] - max(options.delays, default=0) for _, y in scaled], max(options.delays, default=0))
    states, squares = inputs.states, inputs.squares
    if len(A) > len(found.A):
        states, squares = _states_of_delays(StateSpace(A, B, C, D), scaled, levels)
    about = sum(float(np.sum((y - y.mean(-1, keepdims=True)) ** 2)) for _, y in scaled)
    error = (squares / about) ** 0.5 if about > 0 else 0.0 if squares == 0 else np.inf
    level = levels[:, :, 0].mean(0)[:, None] if options.degree == 0 else np.zeros_like(output_level)
    lines = levels * output_unit
    lines[:, :, 0] += output_level[:, 0]
    B, C, D, K = B / input_unit.T, C * output_unit, D * (output_unit / input_unit.T), K / output_unit.T
    finite = all(np.isfinite(M).all() for M in (B, C, D, K)) and bool(np.isfinite(error))
    return Element(
        A,
        B,
        C,
        D,
        K,
        covariance * output_unit * output_unit.T,
        states,
        lines,
        np.concatenate([input_level, np.zeros_like(input_level)], -1),
        np.concatenate([output_level + level * output_unit, np.zeros_like(output_level)], -1),
        sigma,
        error,
        factor.condition,
        finite and np.isfinite(factor.condition),
        (*found.changes, *lost),
    )


def _lines(levels: Host, lengths: list[int], lead: int) -> Host:
    """``(records, p, 2)`` level at the first sample and slope per sample, of polynomials of time from -1 to 1 after ``lead`` samples."""
    lines = np.zeros((*levels.shape[:-1], 2))
    for index, length in enumerate(lengths):
        if levels.shape[-1] > 1:
            slope = levels[index, :, 1] * 2 / max(1, length - 1)
            lines[index, :, 1] = slope
            lines[index, :, 0] = levels[index, :, 0] - levels[index, :, 1] - slope * lead
        elif levels.shape[-1] == 1:
            lines[index, :, 0] = levels[index, :, 0]
    return lines


def _states_of_delays(system: StateSpace, records: Records, levels: Host) -> tuple[Host, float]:
    """Initial states of the system with its delays, whose content before the record nobody has measured, and the squared error."""
    states, squares = [], 0.0
    for (u, y), line in zip(records, levels, strict=True):
        record = Record(u, y - line[:, :1] - line[:, 1:] * np.arange(y.shape[-1]))
        states.append(estimate_initial_state(system, record))
        squares += float(np.sum((record.outputs - free_simulation(system, u, states[-1])) ** 2))
    return np.stack(states), squares


def _nothing(records: Records, options: Options) -> Element:
    """NaN in the shape of the order asked for."""
    m, p = len(records[0][0]), len(records[0][1])
    n, count = (options.order or 0) + sum(options.delays), len(records)
    square, wide, tall, through = (np.full(size, np.nan) for size in ((n, n), (n, m), (p, n), (p, m)))
    gain, covariance, states = (np.full(size, np.nan) for size in ((n, p), (p, p), (count, n)))
    levels, of_inputs, of_outputs = (np.full(size, np.nan) for size in ((count, p, 2), (m, 2), (p, 2)))
    sigma = np.full(options.rows, np.nan)
    return Element(
        square, wide, tall, through, gain, covariance, states, levels, of_inputs, of_outputs, sigma, np.nan, np.nan, converged=False
    )
