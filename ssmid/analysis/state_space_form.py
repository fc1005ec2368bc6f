"""The state space that suits each representation: cascades, real modal blocks, companion matrices, shift registers."""

from __future__ import annotations

from functools import singledispatch

from ssmid._array import astype_width, double, namespace, same_field, width
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.modal_form import SAMPLES, to_modal
from ssmid.analysis.sections import cascade_of_factors, cascade_of_sections
from ssmid.linalg import transpose
from ssmid.systems import (
    Barycentric,
    FrequencyResponse,
    ImpulseResponse,
    Modal,
    SecondOrderSections,
    SparseStateSpace,
    StateSpace,
    System,
    TransferFunction,
    ZerosPolesGain,
)
from ssmid.systems.base import not_a_system
from ssmid.systems.sparse import to_dense


@singledispatch
def natural_state_space(system: System, mimo: bool = False) -> StateSpace:
    """:func:`ssmid.to_state_space` without a choice of form."""
    raise not_a_system(system)


def companion_state_space(system: TransferFunction, form: str = "controllable") -> StateSpace:
    """Companion matrices of the denominator made monic; the strictly proper numerator is what enters or leaves. Differentiable."""
    xp = namespace(system.den)
    n, lead = system.order, double(system.den)[..., :1]
    a, b = double(system.den) / lead, double(system.num) / lead
    b = xp.concat([xp.zeros((*b.shape[:-1], n + 1 - b.shape[-1]), dtype=b.dtype, device=b.device), b], axis=-1)
    a, b = same_field(a, b)
    D = b[..., :1]
    proper = (b - D * a)[..., 1:]
    first = xp.asarray(xp.arange(n, device=a.device) == 0, device=a.device)
    shift = xp.eye(n, k=-1, dtype=a.dtype, device=a.device)
    A = shift + xp.where(first[:, None], -a[..., None, 1:], xp.zeros_like(a[..., None, 1:]))
    B = xp.astype(first, a.dtype)[:, None]
    C = proper[..., None, :]
    A, B, C = (transpose(A), transpose(C), transpose(B)) if form == "observable" else (A, B, C)
    bits = width(system.den)
    return StateSpace(*(astype_width(M, bits) for M in (A, B, C, D[..., None])), dt=system.dt)


@natural_state_space.register
def _(system: StateSpace, mimo: bool = False) -> StateSpace:
    return system


@natural_state_space.register
def _(system: Modal, mimo: bool = False) -> StateSpace:
    return modal_state_space(system, mimo)


@natural_state_space.register
def _(system: Barycentric, mimo: bool = False) -> StateSpace:
    return modal_state_space(to_modal(system), mimo)


@natural_state_space.register
def _(system: TransferFunction, mimo: bool = False) -> StateSpace:
    return companion_state_space(system)


@natural_state_space.register
def _(system: ZerosPolesGain, mimo: bool = False) -> StateSpace:
    matrices = cascade_of_factors(system.zeros, system.poles, system.gain, system.is_discrete)
    return StateSpace(*(astype_width(M, width(system.poles)) for M in matrices), dt=system.dt)


@natural_state_space.register
def _(system: SecondOrderSections, mimo: bool = False) -> StateSpace:
    return StateSpace(*(astype_width(M, width(system.sections)) for M in cascade_of_sections(system.sections)), dt=system.dt)


@natural_state_space.register
def _(system: ImpulseResponse, mimo: bool = False) -> StateSpace:
    """A shift register: the input of each channel (or, with fewer outputs than inputs, the output) is delayed step by step."""
    taps, xp = system.taps, namespace(system.taps)
    if not mimo:
        taps = taps[..., None, None, :]
    elif taps.ndim < 3:
        raise ValueError(f"mimo=True: expected taps of shape (*batch, outputs, inputs, length), got {tuple(taps.shape)}")
    p, m, length = taps.shape[-3:]
    if p < m:
        dual = natural_state_space(ImpulseResponse(xp.moveaxis(taps, -3, -2), system.dt), True)
        return StateSpace(transpose(dual.A), transpose(dual.C), transpose(dual.B), transpose(dual.D), dual.dt)
    states = m * (length - 1)
    A = xp.eye(states, k=-m, dtype=taps.dtype, device=taps.device)
    B = xp.eye(states, m, dtype=taps.dtype, device=taps.device)
    C = xp.reshape(transpose(taps[..., 1:]), (*taps.shape[:-3], p, states))
    return StateSpace(A, B, C, taps[..., 0], system.dt)


@natural_state_space.register
def _(system: SparseStateSpace, mimo: bool = False) -> StateSpace:
    return to_dense(system)


@natural_state_space.register
def _(system: FrequencyResponse, mimo: bool = False) -> StateSpace:
    raise ValueError(SAMPLES.format(system.points))
