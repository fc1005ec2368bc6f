"""The impulse response of every representation."""

from __future__ import annotations

from functools import singledispatch
from math import ceil, isqrt, pi
from typing import Literal

import numpy as np

from ssmid._array import (
    Array,
    astype_width,
    batched_on_host,
    double,
    fft_of,
    is_complex,
    namespace,
    quiet,
    real_dtype,
    same_field,
    to_numpy,
    width,
)
from ssmid.analysis.cascade import cascade, cascade_filter
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.rational_kernel import power_series, rational_spectrum
from ssmid.linalg import solve, transpose, vandermonde_product
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
from ssmid.systems.base import computed, not_a_system, sample_time

Wrap = Literal["causal", "periodic"]


def impulse_response(system: System, length: int | None = None, wrap: Wrap = "causal") -> ImpulseResponse:
    """The response of a discrete-time system to an impulse of unit height: taps ``(*batch, length)``.

    A state space with one input and one output gives a bank of scalars; any other gives channels ``(*batch, p, m, length)``.
    ``length`` may be left out where the system has one (taps, samples of a spectrum on the FFT grid).

    ``wrap="causal"`` is the response itself. ``wrap="periodic"`` is the response wrapped around ``length``,
    ``sum_j h[t + j length]``: the inverse FFT of the frequency response on the grid of ``length`` points. A spectrum sampled
    on N points (:class:`FrequencyResponse`) knows only the response wrapped around N: "causal" gives its first taps, true
    where the response has faded out by then.

    Differentiable, but for second-order sections and zeros, poles and gain, which run through SciPy's cascade on the host.
    Raises ValueError for continuous time, a length below 1, and spectra that are not on a full FFT grid.

    >>> impulse_response(TransferFunction([1.0], [1.0, -0.5]), 4).taps
    array([0. , 1. , 0.5 , 0.25])
    """
    if wrap not in ("causal", "periodic"):
        raise ValueError(f'wrap: expected "causal" or "periodic", got {wrap!r}')
    if not isinstance(system, System):
        raise not_a_system(system)
    if not system.is_discrete:
        raise ValueError('expected a discrete-time system, got dt=0: discretize it first with ssmid.c2d(system, dt, method="impulse")')
    if length is None:
        if not isinstance(system, (ImpulseResponse, FrequencyResponse)):
            raise ValueError(f"length: expected a number of taps for a {type(system).__name__}, got None")
        length = system.length if isinstance(system, ImpulseResponse) else grid_length(system)
    if int(length) != length or length < 1:
        raise ValueError(f"length: expected a whole number >= 1, got {length}")
    return computed(ImpulseResponse, taps=quiet(_taps)(system, int(length), wrap == "periodic"), dt=system.dt)


@singledispatch
def _taps(system: System, length: int, periodic: bool) -> Array:
    raise not_a_system(system)


@_taps.register
def _(system: Modal, length: int, periodic: bool) -> Array:
    """Eq. 3.1 of Massaroli et al. (arXiv 2310.18780); wrapped, each residue is that of a geometric series, r / (1 - pole^L)."""
    xp = namespace(system.poles)
    poles, residues = double(system.poles), double(system.residues)
    if periodic:
        nonzero = xp.where(poles == 0, xp.ones_like(poles), poles)
        turn = xp.where(poles == 0, -xp.ones_like(poles), xp.expm1(length * xp.log(nonzero)))
        residues = residues / -turn
    later = vandermonde_product(poles, residues, length, real=system.real)
    return astype_width(assemble(double(system.feedthrough), later, periodic), width(system.poles))


@_taps.register
def _(system: StateSpace, length: int, periodic: bool) -> Array:
    A, B, C, D = same_field(*(double(M) for M in (system.A, system.B, system.C, system.D)))
    if periodic:
        xp = namespace(A)
        eye = xp.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        C = transpose(solve(transpose(eye - xp.linalg.matrix_power(A, length)), transpose(C)))
    taps = assemble(D, markov_parameters(A, B, C, length), periodic)
    taps = astype_width(taps, width(system.A))
    return taps[..., 0, 0, :] if system.outputs == system.inputs == 1 else taps


def markov_parameters(A: Array, B: Array, C: Array, count: int) -> Array:
    """``C A^t B`` for t = 0 .. count-1 as ``(*batch, p, m, count)``. B and C are scaled to unit size first.

    Where powers of A stay small (:func:`has_tame_powers`): with K a power of two about sqrt(count) and ``t = q K + s``, rows
    ``C A^s`` and columns ``A^(qK) B`` by repeated squares of A, O(n^3 log count + n^2 sqrt(count)). Elsewhere, a companion matrix
    say, one step at a time, O(n^2 count): a rounding of ``A^K`` is enlarged by the square of its norm, one of a state is not.
    """
    xp = namespace(A, B, C)
    (B, b), (C, c) = _unit_size(B), _unit_size(C)
    p, m = C.shape[-2], B.shape[-1]
    inner = 1 << max(0, (isqrt(count).bit_length() - 1))
    outer = ceil(count / inner)
    if not has_tame_powers(A, count):
        return _stepped(A, B, C, count) * (b * c)[..., None]
    rows, power = power_rows(A, C, inner, then=outer > 1)
    columns = transpose(power_rows(transpose(power), transpose(B), outer)[0])
    blocks = rows @ columns  # (*batch, K p, Q m)
    axes = blocks.ndim - 2
    blocks = xp.reshape(blocks, (*blocks.shape[:-2], inner, p, outer, m))
    blocks = xp.permute_dims(blocks, (*range(axes), axes + 1, axes + 3, axes + 2, axes))
    return xp.reshape(blocks, (*blocks.shape[:-2], outer * inner))[..., :count] * (b * c)[..., None]


def _stepped(A: Array, B: Array, C: Array, count: int) -> Array:
    """``C A^t B`` from the thinner side: the state from B, or from C."""
    xp = namespace(A, B, C)
    if C.shape[-2] < B.shape[-1]:
        return xp.moveaxis(_stepped(transpose(A), transpose(C), transpose(B), count), -3, -2)
    state, taps = B, []
    for _ in range(count):
        taps.append(C @ state)
        state = A @ state
    return xp.stack(taps, axis=-1)


def has_tame_powers(A: Array, count: int) -> bool:
    """Whether ``A, A^2, A^4, ...`` up to about ``A^count`` have a root mean square gain below 4, in every element that is finite."""
    n, square = A.shape[-1], A
    for _ in range(max(1, count.bit_length())):
        gain = to_numpy(namespace(A).linalg.matrix_norm(square)) if n else np.zeros(())
        if (gain[np.isfinite(gain)] > 4 * n**0.5).any() or np.isinf(gain).any():
            return False
        square = square @ square
    return True


def power_rows(A: Array, C: Array, count: int, *, then: bool = False) -> tuple[Array, Array]:
    """``[C; C A; ...; C A^(count-1)]`` as ``(*batch, count p, n)`` by doubling; ``then``: with ``A^count``, count a power of two."""
    xp = namespace(A, C)
    batch = np.broadcast_shapes(A.shape[:-2], C.shape[:-2])
    rows, power = xp.broadcast_to(C, (*batch, *C.shape[-2:])), A
    wanted = count * C.shape[-2]
    while rows.shape[-2] < wanted:
        rows = xp.concat([rows, rows @ power], axis=-2)
        if then or rows.shape[-2] < wanted:
            power = power @ power
    return rows[..., :wanted, :], power


@_taps.register
def _(system: TransferFunction, length: int, periodic: bool) -> Array:
    num, den = in_delays(system)
    if not periodic:
        return power_series(num, den, length)
    spectrum = rational_spectrum(num, den, length)
    transform = fft_of(spectrum)
    return (transform.ifft if is_complex(num) or is_complex(den) else transform.irfft)(spectrum, n=length, axis=-1)


def in_delays(system: TransferFunction) -> tuple[Array, Array]:
    """Numerator and denominator in powers of 1/z: the numerator with zeros in front, to the length of the denominator."""
    xp = namespace(system.num)
    lacking = system.den.shape[-1] - system.num.shape[-1]
    if not lacking:
        return system.num, system.den
    zeros = xp.zeros((*system.num.shape[:-1], lacking), dtype=system.num.dtype, device=system.num.device)
    return xp.concat([zeros, system.num], axis=-1), system.den


@_taps.register
def _(system: ImpulseResponse, length: int, periodic: bool) -> Array:
    taps = system.taps
    return wrapped(taps, length) if periodic else fitted(taps, length)


def fitted(taps: Array, length: int) -> Array:
    """``taps`` cut, or continued with zeros, to ``length``."""
    if taps.shape[-1] >= length:
        return taps[..., :length]
    xp = namespace(taps)
    return xp.concat([taps, xp.zeros((*taps.shape[:-1], length - taps.shape[-1]), dtype=taps.dtype, device=taps.device)], axis=-1)


def wrapped(taps: Array, length: int) -> Array:
    """``sum_j taps[t + j length]``."""
    if taps.shape[-1] <= length:
        return fitted(taps, length)
    turns = ceil(taps.shape[-1] / length)
    xp = namespace(taps)
    return xp.sum(xp.reshape(fitted(taps, turns * length), (*taps.shape[:-1], turns, length)), axis=-2)


@_taps.register
def _(system: FrequencyResponse, length: int, periodic: bool) -> Array:
    size = grid_length(system)
    if length > size or (periodic and size % length):
        wanted = f"a divisor of {size}" if periodic else f"at most {size}"
        raise ValueError(f"length: expected {wanted} for a spectrum on the grid of {size} points, got {length}")
    transform = fft_of(system.values)
    # one or two points are a whole circle and a half: those of a real response are real
    xp = namespace(system.values)
    whole = system.points == size and (size > 2 or bool(xp.any(xp.imag(system.values) != 0)))
    inverse = transform.ifft if whole else transform.irfft
    if periodic:
        return inverse(system.values[..., :: size // length], n=length, axis=-1)
    return inverse(system.values, n=size, axis=-1)[..., :length]


def grid_length(system: FrequencyResponse) -> int:
    """N where the frequencies are ``2 pi k / (N dt)`` for k = 0 .. N // 2 (real responses) or 0 .. N-1 (complex ones).

    Raises ValueError where they are not the whole of such a grid.
    """
    angle = to_numpy(double(system.omega)) * sample_time(system)
    angle = angle[np.isfinite(angle).all(-1)] if angle.ndim > 1 else angle
    k = system.points
    rounding = 8 * pi * np.finfo(to_numpy(system.omega).dtype).eps
    for size in (2 * k - 1, 2 * k - 2, k):
        if size > 0 and np.allclose(angle, 2 * pi * np.arange(k) / size, rtol=0, atol=min(max(rounding, 1e-6 / size), 1 / size)):
            return size
    raise ValueError(
        f"expected frequencies on the whole FFT grid, 2 pi k / (N dt) for k = 0 .. N // 2, got {k} up to "
        f"{angle.max(initial=0):.6g} radians a sample"
    )


@_taps.register(SecondOrderSections)
@_taps.register(ZerosPolesGain)
def _(system: SecondOrderSections | ZerosPolesGain, length: int, periodic: bool) -> Array:
    """Through the cascade: coefficients of the whole would lose the poles."""
    first = next(iter(system.arrays.values()))
    if not periodic:
        one = np.eye(1, length)[0]
        return astype_width(batched_on_host(lambda sections: cascade_filter(sections, one)[0], cascade(system)), width(first))
    whole = any(is_complex(a) for name, a in system.arrays.items() if name in ("gain", "sections"))
    turn = np.exp(2j * pi * np.arange(length if whole else length // 2 + 1) / length)
    spectrum = evaluate(system, namespace(first).asarray(turn, device=first.device))
    transform = fft_of(spectrum)
    return astype_width((transform.ifft if whole else transform.irfft)(spectrum, n=length, axis=-1), width(first))


def assemble(feedthrough: Array, later: Array, periodic: bool = False) -> Array:
    """Tap 0 and the taps after it, ``later[t-1]``; wrapped, the last of these comes round onto tap 0."""
    xp = namespace(later)
    first = xp.broadcast_to(feedthrough[..., None], (*np.broadcast_shapes(feedthrough.shape, later.shape[:-1]), 1))
    later = xp.broadcast_to(later, (*first.shape[:-1], later.shape[-1]))
    first, later = same_field(first, later)
    if periodic:
        first = first + later[..., -1:]
    return xp.concat([first, later[..., : later.shape[-1] - 1]], axis=-1)


def _unit_size(M: Array) -> tuple[Array, Array]:
    """``M`` over its largest entry, and that entry ``(*batch, 1, 1)`` (1 where all are zero)."""
    xp = namespace(M)
    if 0 in M.shape[-2:]:
        return M, xp.ones((*M.shape[:-2], 1, 1), dtype=real_dtype(M), device=M.device)
    size = xp.max(xp.abs(M), axis=(-2, -1), keepdims=True)
    size = xp.where(size > 0, size, xp.ones_like(size))
    return M / size, size
