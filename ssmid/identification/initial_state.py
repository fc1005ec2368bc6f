"""The state that a record starts from: what a free simulation of measured data needs beside the model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssmid._array import Array, astype_width, batched_on_host, double, from_numpy, namespace, quiet, same_field, width
from ssmid.analysis.impulse import markov_parameters
from ssmid.analysis.simulation import simulate
from ssmid.identification.least_squares import least_squares
from ssmid.identification.record import Record
from ssmid.systems import StateSpace
from ssmid.systems.base import sample_time


def estimate_initial_state(system: StateSpace, record: Record) -> Array:
    """The initial state ``(*batch, n)`` from which the free simulation of ``system`` is nearest to the outputs of ``record``.

    The linear least-squares problem ``y - y_rest = [C; C A; ...] x_0`` of all samples, ``y_rest`` the output from rest; states that
    the outputs do not show are given the smallest x_0 that does as well. A bank of systems takes a batch of records alike.
    An element with NaN, or whose free motion overflows within the record, gives NaN. Not differentiable.

    Raises TypeError for anything but a StateSpace and a Record, ValueError for channels or sample times that do not fit.

    >>> system = StateSpace([[0.9]], [[1.0]], [[2.0]])
    >>> record = Record(np.ones(50), simulate(system, np.ones(50), np.array([3.0])))
    >>> estimate_initial_state(system, record).round(12)
    array([3.])
    """
    check_fits(system, record)
    residual = double(record.outputs) - free_simulation(system, record.inputs)
    A, C = same_field(double(system.A), double(system.C))
    state = batched_on_host(quiet(_nearest_state), as_kind_of(A, residual), as_kind_of(C, residual), residual)
    return astype_width(state[..., 0], width(record.outputs))


def estimate_state_and_line(system: StateSpace, record: Record, fed_back: int = 0) -> tuple[Array, Array]:
    """The initial state ``(*batch, n)`` and, in the outputs, the straight lines ``(*batch, p, T)`` that are nearest together; float64.

    fed_back : how many of the last inputs of ``system`` are measured outputs, which hold the line too: those of a predictor
    """
    residual = double(record.outputs) - free_simulation(system, record.inputs)
    xp, (p, T), axes = namespace(residual), residual.shape[-2:], residual.ndim - 2
    A, C = same_field(double(system.A), double(system.C))
    lines = np.einsum("ij,kt->jkit", np.eye(p), np.stack([np.ones(T), np.linspace(-1, 1, T)])).reshape(2 * p, p, T)
    seen = from_numpy(lines, residual)
    if fed_back:
        idle = np.zeros((2 * p, system.inputs - fed_back, T))
        driven = np.concatenate([idle, lines], 1).reshape(2 * p, *(1,) * axes, system.inputs, T)
        seen = xp.reshape(seen, (2 * p, *(1,) * axes, p, T)) - free_simulation(system, from_numpy(driven, residual))
    columns = xp.moveaxis(seen, 0, -1)
    columns = xp.reshape(columns, (*columns.shape[:-3], p * T, 2 * p))
    found = batched_on_host(quiet(_nearest_state), as_kind_of(A, residual), as_kind_of(C, residual), residual, columns)[..., 0]
    weights = found[..., system.order :]
    return found[..., : system.order], xp.reshape(weights[..., None, :] @ from_numpy(lines.reshape(2 * p, p * T), residual), residual.shape)


def free_simulation(system: StateSpace, inputs: Array, state: Array | None = None) -> Array:
    """Outputs ``(*batch, p, T)`` for ``inputs`` ``(*batch, m, T)`` from ``state`` ``(*batch, n)``, from rest when left out; float64.

    The axes of :class:`Record` whatever the number of channels. Always the recurrence, which stays exact where responses grow.
    """
    xp = namespace(inputs)
    system, inputs = system.map(lambda M: as_kind_of(double(M), inputs)), double(inputs)
    if state is not None:
        state = as_kind_of(double(state), inputs)
    if system.inputs == 0:
        # a time series: a system with an input that is zero, of which it is the free motion
        B, D = (xp.zeros((*M.shape[:-1], 1), dtype=M.dtype, device=M.device) for M in (system.B, system.D))
        system = dataclasses.replace(system, B=B, D=D)
        inputs = xp.zeros((*inputs.shape[:-2], 1, inputs.shape[-1]), dtype=inputs.dtype, device=inputs.device)
    if system.inputs == system.outputs == 1:
        return quiet(simulate)(system, inputs[..., 0, :], state, method="recurrence")[..., None, :]
    return quiet(simulate)(system, inputs, state, method="recurrence")


def free_motion(A: np.ndarray, C: np.ndarray, length: int) -> np.ndarray:
    """``[C; C A; ...; C A^(length-1)]`` as ``(length, p, n)``."""
    return np.moveaxis(markov_parameters(A, np.eye(A.shape[-1], dtype=A.dtype), C, length), -1, 0)


def check_fits(system: Any, record: Any) -> None:
    """TypeError or ValueError unless ``record`` may be one of ``system``."""
    if not isinstance(system, StateSpace):
        raise TypeError(f"expected a StateSpace, got {type(system).__name__}: ssmid.to_state_space makes one")
    if not isinstance(record, Record):
        raise TypeError(f"expected a Record, got {type(record).__name__}: ssmid.Record(inputs, outputs, dt) makes one")
    sizes = (record.outputs.shape[-2], record.inputs.shape[-2])
    if (system.outputs, system.inputs) != sizes:
        raise ValueError(f"expected a record of {system.outputs} outputs and {system.inputs} inputs, got {sizes[0]} and {sizes[1]}")
    sample_time(system)
    if system.dt is not True and record.dt is not True and system.dt != record.dt:
        raise ValueError(f"expected a record of the sample time of the system, {system.dt}, got {record.dt}")


def _nearest_state(A: np.ndarray, C: np.ndarray, residual: np.ndarray, beside: np.ndarray | None = None) -> np.ndarray:
    """The state, then the weights of the columns ``beside`` ``(p T, k)`` of the free motion."""
    motion = np.swapaxes(free_motion(A, C, residual.shape[-1]), 0, 1).reshape(residual.size, -1)
    columns = motion if beside is None else np.concatenate([motion, beside], -1)
    # largest exponents out of the sums of squares: outputs of 1e200 are outputs
    scale = np.abs(residual).max(initial=0)
    scale = scale if np.isfinite(scale) and scale > 0 else 1.0
    x, _ = least_squares(columns, residual.reshape(-1, 1) / scale)
    return x * scale


def as_kind_of(array: Array, other: Array) -> Array:
    """``array`` as the kind of ``other`` where it is a plain NumPy array."""
    return from_numpy(array, other) if isinstance(array, np.ndarray) else array
