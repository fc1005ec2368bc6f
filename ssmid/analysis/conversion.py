"""Every representation into every other. State space and modal form are the hub; polynomials stay at the edge.

Factored forms become cascades (sections.py) or residues by products (modal_form.py), modal banks real blocks (modal_blocks.py),
transfer functions companion matrices, taps shift registers (state_space_form.py). ``convert`` (convert.py) does any of them by
name and measures what it lost.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from ssmid._array import (
    Array,
    as_complex,
    astype_width,
    batched_on_host,
    double,
    from_numpy,
    is_complex,
    namespace,
    on_host,
    to_numpy,
    width,
)
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.loss import warn_of_loss
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.modal_form import SAMPLES, to_modal
from ssmid.analysis.polynomial import Host, expand_roots, finite_roots, paired, polynomial_roots
from ssmid.analysis.realization import balanced_realization, companion_realization, modal_realization
from ssmid.analysis.sections import factors_of_sections, second_order_sections
from ssmid.analysis.state_space_form import companion_state_space, natural_state_space
from ssmid.analysis.transmission_zeros import transmission_zeros
from ssmid.linalg import eigvals, transpose
from ssmid.systems import (
    FrequencyResponse,
    ImpulseResponse,
    Modal,
    SecondOrderSections,
    StateSpace,
    System,
    TransferFunction,
    ZerosPolesGain,
)
from ssmid.systems.base import not_a_system

__all__ = ["to_modal", "to_sos", "to_state_space", "to_transfer_function", "to_zpk"]


def to_state_space(system: System, *, form: str | None = None, mimo: bool = False) -> StateSpace:
    """A state space of ``system``; one with one input and one output for each element of a bank.

    form : None for what suits the representation (modal: real blocks ``[[a, b], [-b, a]]``; factored: a cascade whose computed
    eigenvalues are exactly the poles; transfer function: controllable companion; taps: a shift register), or "controllable",
    "observable", "balanced" or "modal" (:func:`ssmid.companion_realization`, :func:`ssmid.balanced_realization`,
    :func:`ssmid.modal_realization`).
    mimo : the last two batch axes of a modal bank or of taps are outputs and inputs of one system.

    Raises ValueError for frequency responses, which are fitted, not converted, and for another form.

    >>> from ssmid import Modal
    >>> to_state_space(Modal([0.5 + 0.25j, 0.5 - 0.25j], [1.0, 1.0])).A
    array([[ 0.5 ,  0.25], [-0.25,  0.5 ]])
    """
    if form not in (None, "controllable", "observable", "balanced", "modal"):
        raise ValueError(f"form: expected None, 'controllable', 'observable', 'balanced' or 'modal', got {form!r}")
    if mimo and not isinstance(system, (StateSpace, Modal, ImpulseResponse)):
        raise ValueError(f"mimo=True: expected a Modal bank or an ImpulseResponse, got {type(system).__name__}: convert it to Modal first")
    if isinstance(system, TransferFunction) and form in ("controllable", "observable"):
        return companion_state_space(system, form)
    states = natural_state_space(system, mimo)
    match form:
        case "controllable" | "observable":
            return companion_realization(states, form)
        case "balanced":
            return balanced_realization(states)
        case "modal":
            return modal_realization(states)
    return states


def to_zpk(system: System) -> ZerosPolesGain:
    """Zeros, poles and gain of every channel; MIMO state spaces and channels give ``(*batch, p, m)`` of them.

    Poles of a state space are the eigenvalues of ``A``; zeros come from orthogonal deflation of each channel's system matrix
    (Emami-Naeini and Van Dooren, Automatica 18, 1982), infinite ones are dropped, and the gain fits the response. Where elements
    of a batch have different numbers of zeros the missing ones stand so far out that they change nothing. Emits
    :class:`ConversionWarning` where more than 1e-6 of the response is lost. Raises ValueError for a sampled spectrum. Not
    differentiable.

    >>> from ssmid import ss
    >>> to_zpk(ss(0.5, 1, 2, 1)).zeros
    array([-1.5+0.j])
    """
    result = _zpk(system)
    if result is not system:
        warn_of_loss("to_zpk", system, result, result.poles, "ill-conditioned zeros or poles; state space and modal form keep all of it")
    return result


def to_transfer_function(system: System) -> TransferFunction:
    """Numerator and denominator, the products of zeros and poles multiplied out in Leja order. Denominators are monic.

    The last resort for more than a few poles: emits :class:`ConversionWarning` where more than 1e-6 of the response is lost.
    Where the degree is too high for the range of the numbers (1e308) the coefficients are infinite, a ValueError for one system.
    Not differentiable.

    >>> from ssmid import zpk
    >>> to_transfer_function(zpk([], [0.5, 0.25], 2.0)).den
    array([ 1.   , -0.75 ,  0.125])
    """
    if isinstance(system, TransferFunction):
        return system
    if isinstance(system, ImpulseResponse):
        xp = namespace(system.taps)
        return TransferFunction(system.taps, xp.concat([xp.ones_like(system.taps[..., :1]), 0 * system.taps[..., 1:]], axis=-1), system.dt)
    factors = _zpk(system)
    closed = all(paired(to_numpy(r))[1] for r in (factors.zeros, factors.poles)) and not is_complex(factors.gain)
    num, den = expand_roots(factors.zeros, factors.gain), expand_roots(factors.poles)
    if not closed:
        num, den = as_complex(num), as_complex(den)
    bits = width(factors.poles)
    result = TransferFunction(astype_width(num, bits), astype_width(den, bits), factors.dt)
    advice = f"coefficients of degree {result.order}; state space, modal and factored forms keep all of it"
    warn_of_loss("to_transfer_function", system, result, factors.poles, advice)
    return result


def to_sos(system: System) -> SecondOrderSections:
    """Second-order sections of a real discrete-time system, poles paired with the zeros nearest to them. Not differentiable.

    Raises ValueError for continuous time and for a system that is not closed under conjugation.

    >>> from ssmid import zpk
    >>> to_sos(zpk([], [0.5], 2.0)).sections        # 2 / (z - 1/2)
    array([[ 0. ,  2. ,  0. ,  1. , -0.5,  0. ]])
    """
    if isinstance(system, SecondOrderSections):
        return system
    factors = _zpk(system)
    if not factors.is_discrete:
        raise ValueError("expected a discrete-time system for second-order sections in powers of 1/z, got dt=0: use ssmid.c2d(system, dt)")
    sections = second_order_sections(factors.zeros, factors.poles, factors.gain)
    result = SecondOrderSections(astype_width(sections, width(factors.poles)), factors.dt)
    warn_of_loss("to_sos", system, result, factors.poles, "ill-conditioned zeros or poles; state space and modal form keep all of it")
    return result


# ---------------------------------------------------------------- to zeros, poles and gain


@singledispatch
def _zpk(system: System) -> ZerosPolesGain:
    raise not_a_system(system)


@_zpk.register
def _(system: ZerosPolesGain) -> ZerosPolesGain:
    return system


@_zpk.register
def _(system: SecondOrderSections) -> ZerosPolesGain:
    return ZerosPolesGain(*factors_of_sections(system.sections), system.dt)


@_zpk.register
def _(system: TransferFunction) -> ZerosPolesGain:
    bits = width(system.den)
    poles, zeros = polynomial_roots(system.den), polynomial_roots(system.num)
    scale = float(np.nanmax(np.abs(to_numpy(poles)), initial=1.0))

    def leading(num: Host, den: Host, zeros: Host) -> tuple[Host, Host]:
        first = np.take_along_axis(num, np.argmax(num != 0, axis=-1)[..., None], -1)[..., 0]
        zeros, factor = finite_roots(np.where((first == 0)[..., None], np.inf, zeros), scale)
        with np.errstate(all="ignore"):
            return zeros, first / den[..., 0] * factor

    zeros, gain = on_host(leading, double(system.num), double(system.den), zeros)
    return ZerosPolesGain(*(astype_width(x, bits) for x in (zeros, poles, gain)), dt=system.dt)


@_zpk.register
def _(system: ImpulseResponse) -> ZerosPolesGain:
    return _zpk(to_transfer_function(system))


@_zpk.register
def _(system: FrequencyResponse) -> ZerosPolesGain:
    raise ValueError(SAMPLES.format(system.points))


@_zpk.register
def _(system: Modal) -> ZerosPolesGain:
    """Zeros and gain by way of the balanced blocks; the poles themselves stay where they are."""
    blocks = modal_state_space(system)
    found = _zpk(blocks)
    own, closed = paired(to_numpy(system.poles))
    if not system.real or (closed and blocks.order == system.order):
        return ZerosPolesGain(found.zeros, from_numpy(own, system.poles), found.gain, system.dt)
    return found


@_zpk.register
def _(system: StateSpace) -> ZerosPolesGain:
    A, B, C, D = (double(M) for M in (system.A, system.B, system.C, system.D))
    poles, zeros = eigvals(A) if system.order else as_complex(namespace(A).sum(A, axis=-1)), _channel_zeros(A, B, C, D)
    if system.outputs == system.inputs == 1:
        zeros = zeros[..., 0, 0, :]
    else:
        poles = poles[..., None, None, :]
    scale = float(np.max(np.abs(to_numpy(poles)), initial=1.0, where=np.isfinite(to_numpy(poles))))
    zeros = on_host(lambda z: finite_roots(z, scale)[0], zeros)
    gain = _fitted_gain(system, zeros, poles)
    bits = width(system.A)
    return ZerosPolesGain(*(astype_width(x, bits) for x in (zeros, poles, gain)), dt=system.dt)


def _channel_zeros(A: Array, B: Array, C: Array, D: Array) -> Array:
    """Zeros of each channel, ``(*batch, p, m, n)``, infinite where there are fewer."""

    def element(A: Host, b: Host, c: Host, d: Host) -> Host:
        found = np.full(len(A), np.inf, complex)
        zeros = transmission_zeros(A, b, c, d)
        found[: len(zeros)] = zeros
        if not np.iscomplexobj(A):  # LAPACK lists conjugates as neighbours, equal to a rounding
            upper = np.flatnonzero(np.imag(found[:-1]) > 0)
            found[upper + 1] = found[upper].conj()
        return found

    channels = A[..., None, None, :, :], transpose(B)[..., None, :, :, None], C[..., :, None, None, :], D[..., :, :, None, None]
    return batched_on_host(element, *channels)


def _fitted_gain(system: StateSpace, zeros: Array, poles: Array) -> Array:
    """The gain that brings ``prod (z - zeros) / prod (z - poles)`` nearest to the response, in logarithms against overflow.

    The first Markov parameter is the gain, too, but where it is small beside the response (1e-18 in a narrow lowpass filter) it is
    lost in rounding, and the zeros, which have their own, fit another one better.
    """
    p = to_numpy(poles)
    if system.is_discrete:
        points = np.exp(1j * np.pi * (np.arange(32) + 0.5) / 32)
    else:
        radii = np.abs(p[np.isfinite(p) & (p != 0)])
        points = 1j * np.geomspace(radii.min() / 8, radii.max() * 8, 32) if radii.size else 1j * np.geomspace(0.1, 10, 32)
    response = to_numpy(evaluate(system.map(double), from_numpy(points, system.A)))
    with np.errstate(all="ignore"):
        log = sum((np.log(points - to_numpy(zeros)[..., j, None]) for j in range(zeros.shape[-1])), np.zeros(1, complex))
        log = log - sum((np.log(points - p[..., j, None]) for j in range(p.shape[-1])), np.zeros(1, complex))
        top = np.max(np.where(np.isfinite(log), np.real(log), -np.inf), axis=-1, keepdims=True)
        shape = np.exp(log - top)
        sound = np.isfinite(shape) & np.isfinite(response)
        shape, response = (np.where(sound, np.broadcast_to(x, sound.shape), 0) for x in (shape, response))
        peak = np.max(np.abs(response), axis=-1, keepdims=True)
        products = np.sum(shape.conj() * response / np.where(peak > 0, peak, 1), axis=-1) / np.sum(np.abs(shape) ** 2, axis=-1)
        gain = products * np.exp(np.log(peak) - top)[..., 0]
    bad = ~np.isfinite(p).all(-1) & (p.shape[-1] > 0)
    gain = np.where(bad, np.nan, np.where(peak[..., 0] > 0, gain, 0))
    real = not any(is_complex(M) for M in (system.A, system.B, system.C, system.D))
    return from_numpy(np.real(gain) if real else gain, system.A)
