"""B, D, initial states and levels of given A and C: one linear least-squares problem of the simulated outputs.

McKelvey and Helmersson (Automatica 33, 1997): regressors are the states of ``A^T`` driven through ``C^T``, as many simulations as
there are outputs times inputs. What is minimized is the error of the free simulation itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssmid._array import quiet
from ssmid.analysis.polynomial import Host
from ssmid.analysis.simulation import causal_product
from ssmid.identification.initial_state import free_motion
from ssmid.identification.least_squares import least_squares
from ssmid.linalg import triangular_factor


@dataclasses.dataclass(frozen=True)
class InputFit:
    """B, D, ``states`` ``(records, n)``, ``levels`` ``(records, p, degree + 1)`` of powers of time from -1 to 1 over the record, the sum
    of squares of what is left, and the condition of the problem."""

    B: Host
    D: Host
    states: Host
    levels: Host
    squares: float
    condition: float


@quiet
def fit_inputs(A: Host, C: Host, records: Sequence[tuple[Host, Host]], degree: int, feedthrough: bool) -> InputFit:
    """The B, D, initial state of each record and polynomial of time of each output nearest to the outputs in simulation.

    records : inputs ``(m, T)`` and outputs ``(p, T)``   degree : of the polynomials, -1 for none; a level (0) is shared by all records
    """
    n, p, m, count = len(A), len(C), len(records[0][0]), len(records)
    drift = 0 if degree < 0 else 1 if degree == 0 else count * (degree + 1)
    width = n * m + p * m * feedthrough + count * n + p * drift
    R = np.zeros((0, width + 1))
    for index, (inputs, outputs) in enumerate(records):
        length = inputs.shape[-1]
        free = free_motion(A, C, length)
        driven = _driven(free, inputs)
        time = np.vander(np.linspace(-1, 1, length), degree + 1, increasing=True) if degree >= 0 else np.zeros((length, 0))
        for row in range(p):
            columns = np.zeros((length, width + 1))
            columns[:, : n * m] = driven[row].reshape(m * n, length).T
            place = n * m
            if feedthrough:
                columns[:, place + row * m : place + (row + 1) * m] = inputs.T
                place += p * m
            columns[:, place + index * n : place + (index + 1) * n] = free[:, row]
            place += count * n + row * drift + (index * (degree + 1) if degree > 0 else 0)
            columns[:, place : place + degree + 1] = time
            columns[:, -1] = outputs[row]
            R = np.concatenate([R, columns])
            if len(R) > 8 * width:
                R = triangular_factor(R) if np.isfinite(R).all() else np.full((width + 1, width + 1), np.nan)
    x, condition = least_squares(R[:, :-1], R[:, -1:])
    left = R[:, -1] - R[:, :-1] @ x[:, 0]
    B, D, states, levels = np.split(x[:, 0], np.cumsum([n * m, p * m * feedthrough, count * n]))
    levels = levels.reshape(p, count if degree > 0 else min(drift, 1), -1) if drift else np.zeros((p, 1, 0))
    return InputFit(
        B.reshape(m, n).T,
        D.reshape(p, m) if feedthrough else np.zeros((p, m)),
        states.reshape(count, n),
        np.broadcast_to(np.moveaxis(levels, 1, 0), (count, p, levels.shape[-1])),
        float(left @ left),
        condition,
    )


def _driven(free: Host, inputs: Host) -> Host:
    """``(p, m, n, T)`` states of ``A^T`` driven from rest by input j through row l of C: what output l owes to B of input j.

    That is the convolution of the inputs with the free motion ``(T, p, n)``, a sample later.
    """
    states = causal_product(np.moveaxis(free, 0, -1)[:, None], inputs[None, :, None])
    return np.concatenate([np.zeros_like(states[..., :1]), states[..., :-1]], -1)
