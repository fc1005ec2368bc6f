"""Gramian factors seen through frequency weights: where in frequency a reduction shall be good."""

from __future__ import annotations

from ssmid._array import Array, broadcast_batch, double, namespace
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.gramians import gramian_factors_or_nan
from ssmid.systems import StateSpace, System
from ssmid.systems.base import same_time


def weighted_gramian_factors(system: StateSpace, input_weight: System | None, output_weight: System | None) -> tuple[Array, Array]:
    """Factors ``R``, ``L`` ``(*batch, n, k)`` of the Gramians of ``output_weight * system * input_weight`` that belong to ``system``.

    Each weight is a stable system with as many inputs and outputs as the side it stands on, or scalar where that is one.
    Raises ValueError where sizes or sample times do not fit. Source: Enns, Proc. 23rd IEEE CDC, 1984.
    """
    R, L = gramian_factors_or_nan(system)
    n = system.order
    if input_weight is not None:
        weight = _checked("input_weight", input_weight, system, system.inputs)
        R = gramian_factors_or_nan(_cascade(weight, system))[0][..., weight.order :, :]
    if output_weight is not None:
        weight = _checked("output_weight", output_weight, system, system.outputs)
        L = gramian_factors_or_nan(_cascade(system, weight))[1][..., :n, :]
    return R, L


def _checked(name: str, weight: System, system: StateSpace, channels: int) -> StateSpace:
    states = weight if isinstance(weight, StateSpace) else to_state_space(weight)
    same_time(states, system)
    if (states.outputs, states.inputs) != (channels, channels):
        raise ValueError(f"{name}: expected {channels} inputs and outputs, got {states.inputs} and {states.outputs}")
    return states


def _cascade(first: StateSpace, second: StateSpace) -> StateSpace:
    """The series connection with the states of ``first`` before those of ``second``."""
    xp = namespace(first.A, second.A)
    batch = broadcast_batch(first=first.batch_shape, second=second.batch_shape)
    n, k = first.order, second.order

    def full(M: Array) -> Array:
        return xp.broadcast_to(double(M), (*batch, *M.shape[-2:]))

    A1, B1, C1, D1, A2, B2, C2, D2 = (full(M) for s in (first, second) for M in (s.A, s.B, s.C, s.D))
    above = xp.zeros((*batch, n, k), dtype=A1.dtype, device=A1.device)
    A = xp.concat([xp.concat([A1, above], axis=-1), xp.concat([B2 @ C1, A2], axis=-1)], axis=-2)
    B = xp.concat([B1, B2 @ D1], axis=-2)
    return StateSpace(A, B, xp.concat([D2 @ C1, C2], axis=-1), D2 @ D1, first.dt)
