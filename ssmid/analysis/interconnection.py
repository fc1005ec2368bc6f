"""Systems wired together: in series, in parallel, in a feedback loop, and the difference that error norms are taken of.

Two systems of one kind keep their kind where that loses nothing (modal sums, products of factored forms, sums and
convolutions of taps, values at common frequencies). Every other mixture meets in state space, and anything discrete meets an
impulse response as an impulse response. Formulas: Zhou, Doyle and Glover, Robust and Optimal Control, 1996, sec. 3.6.
"""

from __future__ import annotations

from math import ceil, log
from operator import truediv
from typing import Any

import numpy as np

from ssmid._array import (
    Array,
    astype_width,
    broadcast_batch,
    double,
    fft_of,
    finite_elements,
    harmonize,
    is_complex,
    namespace,
    next_fast_length,
    quiet,
    same_field,
    to_numpy,
    width,
)
from ssmid.analysis.characteristics import poles
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.spectrum import frequency_response
from ssmid.linalg import solve, svd
from ssmid.systems import FrequencyResponse, ImpulseResponse, Modal, SecondOrderSections, StateSpace, System, ZerosPolesGain
from ssmid.systems.base import computed, not_a_system, same_time


def series(first: System, second: System) -> System:
    """The input passes ``first``, then ``second``: ``H = H_second H_first``.

    Batch axes broadcast. For MIMO state spaces the outputs of ``first`` must be as many as the inputs of ``second``.
    Raises ValueError for different sample times or sizes that do not fit.

    >>> from ssmid import zpk
    >>> series(zpk([], [0.5], 2.0), zpk([], [0.1], 3.0)).gain
    array(6.)
    """
    kind, dt = _common_kind(first, second), same_time(first, second)
    match kind:
        case "frequency":
            a, b, omega = _at_common_frequencies(first, second)
            return FrequencyResponse(_channel_product(b, a) if _coupled(first, second) else a * b, omega, dt)
        case "taps":
            a, b = _taps_with_tails(first, second)
            return ImpulseResponse(_convolve(a, b, _coupled(first, second)), dt)
        case "zpk":
            return _zpk_product(first, second, dt)
        case "sos":
            return SecondOrderSections(_concat(first.sections, second.sections, axis=-2), dt)  # pyright: ignore[reportAttributeAccessIssue]
    s1, s2 = _both_state_spaces(first, second)
    if s1.outputs != s2.inputs:
        raise ValueError(f"expected as many outputs of the first system as inputs of the second, got {s1.outputs} and {s2.inputs}")
    A1, B1, C1, D1, A2, B2, C2, D2 = _uniform(s1, s2)
    A = _blocks([[A1, None], [B2 @ C1, A2]])
    return StateSpace(A, _concat(B1, B2 @ D1, axis=-2), _concat(D2 @ C1, C2, axis=-1), D2 @ D1, dt)


def parallel(first: System, second: System) -> System:
    """The sum ``H_first + H_second`` of two systems with the same inputs and outputs; batch axes broadcast.

    Mixtures of representations, and errors: :func:`subtract`.

    >>> import numpy as np
    >>> from ssmid import Modal
    >>> parallel(Modal(np.array([0.5]), np.array([1.0])), Modal(np.array([0.25]), np.array([2.0]))).order
    2
    """
    return _sum(first, second, 1)


def subtract(first: System, second: System, *, length: int | None = None) -> System:
    """The difference ``H_first - H_second``, the error system of a reduction.

    Two modal banks give a modal bank of both sets of poles. With an impulse response on either side the result is an impulse
    response of ``length`` taps: when left out, as long as the response itself plus the time in which the slowest pole of the
    other system falls to rounding (2^-52), at most 16 times the length of the response or 65,536 taps, whichever is more. A
    frequency response gives the values at its frequencies. All else gives the state space of both sets of states.
    Raises ValueError for different sample times or sizes that do not fit.

    >>> from ssmid import ImpulseResponse
    >>> subtract(ImpulseResponse([1.0, 0.5]), ImpulseResponse([1.0, 0.5, 0.25])).taps
    array([ 0.  ,  0.  , -0.25])
    """
    return _sum(first, second, -1, length)


def feedback(forward: System, backward: System | None = None, sign: int = -1) -> System:
    """The closed loop from ``r`` to ``y``: ``y = H_forward (r + sign H_backward y)``; unit feedback when ``backward`` is left out.

    A frequency response gives a frequency response, not finite where the closed loop has a pole, everything else a state space.
    Raises ValueError for a loop that is not well posed (``I - sign D_backward D_forward`` singular), different sample times, or
    sizes that do not fit; in a batch an element that is not well posed becomes NaN.

    >>> from ssmid import ss
    >>> feedback(ss(1.0, 1.0, 0.5)).A        # an integrator with gain 1/2 in unit feedback
    array([[0.5]])
    """
    if sign not in (1, -1):
        raise ValueError(f"sign: expected -1 (negative feedback) or 1, got {sign}")
    if _common_kind(forward, forward if backward is None else backward) == "frequency":
        dt = forward.dt if backward is None else same_time(forward, backward)
        a, b, omega = (forward.values, 1.0, forward.omega) if backward is None else _at_common_frequencies(forward, backward)  # pyright: ignore[reportAttributeAccessIssue]
        if backward is not None and _coupled(forward, backward):
            return computed(FrequencyResponse, values=_closed_channels(a, b, sign), omega=omega, dt=dt)
        return computed(FrequencyResponse, values=quiet(truediv)(a, 1 - sign * a * b), omega=omega, dt=dt)
    plant = forward if isinstance(forward, StateSpace) else to_state_space(forward)
    if backward is None:
        xp = namespace(plant.A)
        eye = xp.eye(plant.outputs, dtype=plant.D.dtype, device=plant.D.device)
        if plant.outputs != plant.inputs:
            raise ValueError(f"unit feedback: expected as many outputs as inputs, got {plant.outputs} and {plant.inputs}")
        backward = StateSpace(plant.A[..., :0, :0], eye[:0, :], eye[:, :0], eye, plant.dt)
    dt = same_time(plant, backward)
    s1, s2 = _both_state_spaces(plant, backward)
    if (s1.outputs, s1.inputs) != (s2.inputs, s2.outputs):
        raise ValueError(
            f"expected a backward system of {s1.inputs} outputs and {s1.outputs} inputs, got {s2.outputs} outputs and {s2.inputs} inputs"
        )
    A1, B1, C1, D1, A2, B2, C2, D2 = _uniform(s1, s2)
    F = _loop_inverse(D1, D2, sign)
    # u = F (r + sign C2 x2 + sign D2 C1 x1) closes the algebraic loop; everything else follows by substitution
    K1, K2 = sign * (F @ D2 @ C1), sign * (F @ C2)
    A = _blocks([[A1 + B1 @ K1, B1 @ K2], [B2 @ (C1 + D1 @ K1), A2 + B2 @ D1 @ K2]])
    return StateSpace(A, _concat(B1 @ F, B2 @ D1 @ F, axis=-2), _concat(C1 + D1 @ K1, D1 @ K2, axis=-1), D1 @ F, dt)


# ---------------------------------------------------------------- the common form


def _common_kind(first: System, second: System) -> str:
    pair = (first, second)
    for system in pair:
        if not isinstance(system, System):
            raise not_a_system(system)
    if any(isinstance(s, FrequencyResponse) for s in pair):
        return "frequency"
    if any(isinstance(s, ImpulseResponse) for s in pair):
        return "taps"
    for kind, name in ((Modal, "modal"), (ZerosPolesGain, "zpk"), (SecondOrderSections, "sos")):
        if all(isinstance(s, kind) for s in pair):
            return name
    return "state space"


def _sum(first: System, second: System, sign: int, length: int | None = None) -> System:
    kind, dt = _common_kind(first, second), same_time(first, second)
    match kind:
        case "frequency":
            a, b, omega = _at_common_frequencies(first, second)
            return FrequencyResponse(a + sign * b, omega, dt)
        case "taps":
            a, b = _taps_with_tails(first, second, length)
            return ImpulseResponse(a + sign * b, dt)
        case "modal" if first.real == second.real:  # pyright: ignore[reportAttributeAccessIssue]
            return _modal_sum(first, second, sign, dt)
    s1, s2 = _both_state_spaces(first, second)
    if (s1.outputs, s1.inputs) != (s2.outputs, s2.inputs):
        raise ValueError(
            f"expected systems of one size (outputs, inputs), got {(s1.outputs, s1.inputs)} and {(s2.outputs, s2.inputs)}"
        )
    A1, B1, C1, D1, A2, B2, C2, D2 = _uniform(s1, s2)
    return StateSpace(_blocks([[A1, None], [None, A2]]), _concat(B1, B2, axis=-2), _concat(C1, sign * C2, axis=-1), D1 + sign * D2, dt)


def _modal_sum(first: Any, second: Any, sign: int, dt: float | bool) -> Modal:
    poles1, poles2, residues1, residues2, d1, d2 = harmonize(
        poles1=first.poles,
        poles2=second.poles,
        residues1=first.residues,
        residues2=second.residues,
        d1=first.feedthrough,
        d2=second.feedthrough,
    )
    return Modal(_concat(poles1, poles2, axis=-1), _concat(residues1, sign * residues2, axis=-1), d1 + sign * d2, dt, first.real)


def _zpk_product(first: Any, second: Any, dt: float | bool) -> ZerosPolesGain:
    z1, z2, p1, p2, k1, k2 = harmonize(z1=first.zeros, z2=second.zeros, p1=first.poles, p2=second.poles, k1=first.gain, k2=second.gain)
    return ZerosPolesGain(_concat(z1, z2, axis=-1), _concat(p1, p2, axis=-1), k1 * k2, dt)


def _at_common_frequencies(first: System, second: System) -> tuple[Array, Array, Array]:
    omega = next(s.omega for s in (first, second) if isinstance(s, FrequencyResponse))
    a, b = (frequency_response(s, omega).values for s in (first, second))
    return a, b, omega


def _taps_with_tails(first: System, second: System, length: int | None = None) -> tuple[Array, Array]:
    measured = max(s.length for s in (first, second) if isinstance(s, ImpulseResponse))
    if length is None:
        cap = max(16 * measured, 65536)
        length = max(s.length if isinstance(s, ImpulseResponse) else min(cap, measured + _decay(s)) for s in (first, second))
    a, b = (impulse_response(s, length).taps for s in (first, second))
    a, b = harmonize(first=a, second=b)
    return a, b


def _decay(system: System) -> int:
    """Steps in which the slowest stable mode falls by 2^-52; poles on or outside the circle have no such time and are left out."""
    radii = np.abs(to_numpy(poles(system)))
    slowest = float(np.max(radii[radii < 1], initial=0.0))
    return 1 if slowest == 0 else ceil(52 * log(2) / max(-log(slowest), 1e-9))


def _convolve(a: Array, b: Array, coupled: bool) -> Array:
    """All taps of the linear convolution, ``a`` first: none of the product's tail is cut."""
    length = a.shape[-1] + b.shape[-1] - 1
    transform, size = fft_of(a, b), next_fast_length(length)
    a, b = same_field(a, b)
    forward, backward = (transform.fft, transform.ifft) if is_complex(a) else (transform.rfft, transform.irfft)
    first, second = forward(a, n=size, axis=-1), forward(b, n=size, axis=-1)
    return backward(_channel_product(second, first) if coupled else first * second, n=size, axis=-1)[..., :length]


def _coupled(first: System, second: System) -> bool:
    """Whether one is a MIMO state space: channels of the other, last two batch axes, are then its outputs and inputs."""
    return any(isinstance(s, StateSpace) and (s.outputs, s.inputs) != (1, 1) for s in (first, second))


def _channel_product(second: Array, first: Array) -> Array:
    """The matrix product of channels ``(*batch, p, m, k)`` at each of k points."""
    for channels in (second, first):
        if channels.ndim < 3:
            got = tuple(channels.shape[:-1])
            raise ValueError(f"beside a MIMO state space: expected channels (*batch, outputs, inputs), got batch {got}")
    if second.shape[-2] != first.shape[-3]:
        raise ValueError(
            f"expected as many outputs of the first system as inputs of the second, got {first.shape[-3]} and {second.shape[-2]}"
        )
    xp = namespace(first, second)
    return xp.moveaxis(xp.moveaxis(second, -1, -3) @ xp.moveaxis(first, -1, -3), -3, -1)


def _closed_channels(forward: Array, backward: Array, sign: int) -> Array:
    """``(I - sign H_forward H_backward)^-1 H_forward`` at each point."""
    xp = namespace(forward)
    loop = xp.moveaxis(_channel_product(forward, backward), -1, -3)
    eye = xp.eye(loop.shape[-1], dtype=loop.dtype, device=loop.device)
    return xp.moveaxis(solve(eye - sign * loop, xp.moveaxis(forward, -1, -3)), -3, -1)


def _both_state_spaces(first: System, second: System) -> tuple[StateSpace, StateSpace]:
    """Scalar banks beside a MIMO state space are read as its channels (last two batch axes: outputs, inputs)."""
    coupled = _coupled(first, second)
    a, b = (s if isinstance(s, StateSpace) else to_state_space(s, mimo=coupled) for s in (first, second))
    return a, b


def _uniform(first: StateSpace, second: StateSpace) -> list[Array]:
    """The eight matrices in one namespace, precision and field (matrix products do not promote everywhere)."""
    named = {f"{name}{i}": array for i, s in ((1, first), (2, second)) for name, array in s.arrays.items()}
    return same_field(*harmonize(**named))


# ---------------------------------------------------------------- matrices


def _concat(a: Array, b: Array, axis: int) -> Array:
    """Concatenation along one of the last two axes, batch axes broadcast."""
    xp = namespace(a, b)
    core = -axis
    batch = broadcast_batch(first=a.shape[: a.ndim - core], second=b.shape[: b.ndim - core])
    a, b = (xp.broadcast_to(x, (*batch, *x.shape[x.ndim - core :])) for x in same_field(a, b))
    return xp.concat([a, b], axis=axis)


def _blocks(rows: list[list[Array]]) -> Array:
    """A 2 x 2 block matrix whose diagonal blocks are square; None is zero."""
    (a, b), (c, d) = rows
    xp = namespace(a)
    n, m = a.shape[-1], d.shape[-1]
    b = xp.zeros((n, m), dtype=a.dtype, device=a.device) if b is None else b
    c = xp.zeros((m, n), dtype=a.dtype, device=a.device) if c is None else c
    batch = broadcast_batch(**{str(i): x.shape[:-2] for i, x in enumerate((a, b, c, d))})
    a, b, c, d = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b, c, d))
    return xp.concat([xp.concat([a, b], axis=-1), xp.concat([c, d], axis=-1)], axis=-2)


def _loop_inverse(D1: Array, D2: Array, sign: int) -> Array:
    """``(I - sign D2 D1)^-1``; NaN for the elements of a batch that have none, an error for a single system."""
    xp = namespace(D1)
    E = double(xp.eye(D1.shape[-1], dtype=D1.dtype, device=D1.device) - sign * (D2 @ D1))
    eye = xp.eye(E.shape[-1], dtype=E.dtype, device=E.device)
    s = svd(xp.where(finite_elements(E, 2)[..., None, None], E, eye))[1]
    singular = ~(s[..., -1] > 64 * xp.finfo(s.dtype).eps * (1 + s[..., 0]))
    if E.ndim == 2 and bool(singular):
        raise ValueError(
            f"expected a well-posed loop, got I - sign D_backward D_forward singular (smallest singular value {float(s[-1]):.3g}): "
            "put a delay or a different gain in the loop"
        )
    inverse = xp.linalg.inv(xp.where(singular[..., None, None], eye, E))
    return astype_width(xp.where(singular[..., None, None], xp.nan * eye, inverse), width(D1))
