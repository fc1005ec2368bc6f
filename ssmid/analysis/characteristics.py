"""Poles, zeros, dc gain, damping, stability."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import singledispatch
from math import prod

import numpy as np

from ssmid._array import (
    Array,
    as_complex,
    astype_width,
    double,
    from_numpy,
    is_complex,
    namespace,
    quiet,
    to_numpy,
    width,
)
from ssmid.analysis.barycentric_form import barycentric_poles
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.polynomial import polynomial_roots
from ssmid.analysis.transmission_zeros import transmission_zeros
from ssmid.linalg import eigvals, principal_log
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
from ssmid.systems.base import not_a_system, sample_time
from ssmid.systems.sparse import to_dense

_NO_MODEL = "a FrequencyResponse has no poles or zeros: fit a model to it first (ssmid.identification)"


@singledispatch
def poles(system: System) -> Array:
    """The poles, complex, ``(*batch, n)``: eigenvalues of A, roots of the denominator; zero for every tap after the first.

    Poles that a batch shares are returned once, and a :class:`Modal` bank gives those that it holds, be it one of each pair or both.
    Not differentiable but for factored forms. Raises ValueError for a sampled spectrum.

    >>> poles(TransferFunction([1.0], [1.0, -0.75, 0.125])).real
    array([0.5 , 0.25])
    """
    raise not_a_system(system)


@poles.register
def _(system: StateSpace) -> Array:
    return eigvals(system.A)


@poles.register
def _(system: SparseStateSpace) -> Array:
    return eigvals(to_dense(system).A)


poles.register(Barycentric, barycentric_poles)


@poles.register(Modal)
@poles.register(ZerosPolesGain)
def _(system: Modal | ZerosPolesGain) -> Array:
    return system.poles


@poles.register
def _(system: TransferFunction) -> Array:
    return _roots(system.den)


@poles.register
def _(system: SecondOrderSections) -> Array:
    return _section_roots(system.sections[..., 3:])


@poles.register
def _(system: ImpulseResponse) -> Array:
    taps = as_complex(system.taps)
    return 0 * taps[..., 1:]


@poles.register
def _(system: FrequencyResponse) -> Array:
    raise ValueError(_NO_MODEL)


@singledispatch
def zeros(system: System) -> Array:
    """The finite zeros, complex, ``(*batch, q)``; elements of a batch with fewer end in NaN. Not differentiable.

    Of a state space the invariant zeros (transmission zeros of a minimal one), for any numbers of inputs and outputs, by
    Emami-Naeini and Van Dooren's reduction and generalized eigenvalues (Automatica 18, 1982). Raises ValueError for a sampled
    spectrum.

    >>> import numpy as np
    >>> from ssmid import ss
    >>> zeros(ss(np.diag([0.5, 0.25]), [1.0, 1.0], [1.0, 1.0])).real
    array([0.375])
    """
    raise not_a_system(system)


@zeros.register
def _(system: SparseStateSpace) -> Array:
    return zeros(to_dense(system))


@zeros.register
def _(system: StateSpace) -> Array:
    batch, n = system.batch_shape, system.order
    hosts = (np.broadcast_to(to_numpy(double(M)), (*batch, *M.shape[-2:])) for M in (system.A, system.B, system.C, system.D))
    flat = [h.reshape(int(np.prod(batch)), *h.shape[-2:]) for h in hosts]
    return _ragged([transmission_zeros(*one) for one in zip(*flat, strict=True)], batch, n, system.A)


@zeros.register
def _(system: Modal) -> Array:
    batch, n = system.batch_shape, system.order
    p, r = (np.broadcast_to(to_numpy(double(x)), (*batch, n)).reshape(prod(batch), n) for x in (system.poles, system.residues))
    D = np.broadcast_to(to_numpy(double(system.feedthrough)), batch).reshape(-1)
    found = []
    for one, residues, d in zip(p, r, D, strict=True):
        if not (np.isfinite(one).all() and np.isfinite(residues).all() and np.isfinite(d)):
            found.append(np.full(n, np.nan, complex))
            continue
        # by itself, so that no element is padded with states of others: those would count as zeros
        blocks = modal_state_space(Modal(one, residues, d, system.dt, system.real))
        found.append(transmission_zeros(blocks.A, blocks.B, blocks.C, blocks.D))
    return _ragged(found, batch, n, system.poles)


@zeros.register
def _(system: TransferFunction) -> Array:
    roots = _roots(system.num)
    return _finite_rows(to_numpy(roots), roots)


@zeros.register
def _(system: ZerosPolesGain) -> Array:
    return system.zeros


@zeros.register
def _(system: SecondOrderSections) -> Array:
    return _finite_rows(to_numpy(_section_roots(system.sections[..., :3])), system.sections)


@zeros.register
def _(system: ImpulseResponse) -> Array:
    return zeros(TransferFunction(system.taps, _monomial(system), system.dt))


@zeros.register
def _(system: FrequencyResponse) -> Array:
    raise ValueError(_NO_MODEL)


def _monomial(system: ImpulseResponse) -> Array:
    xp = namespace(system.taps)
    return xp.astype(xp.asarray(np.eye(1, system.length)[0], device=system.taps.device), system.taps.dtype)


def _roots(coefficients: Array) -> Array:
    return astype_width(as_complex(polynomial_roots(coefficients)), width(coefficients))


def _section_roots(quadratics: Array) -> Array:
    roots = _roots(quadratics)
    return namespace(roots).reshape(roots, (*roots.shape[:-2], 2 * roots.shape[-2]))


def _finite_rows(roots: np.ndarray, like: Array) -> Array:
    *batch, n = roots.shape
    return _ragged([row[~np.isinf(row)] for row in roots.reshape(prod(batch), n)], tuple(batch), n, like)


def _ragged(rows: list[np.ndarray], batch: tuple[int, ...], most: int, like: Array) -> Array:
    """Rows of different lengths as one array, NaN at their ends."""
    most = max((len(r) for r in rows), default=most)
    table = np.full((len(rows), most), np.nan, complex)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return astype_width(from_numpy(table.reshape(*batch, most), like), width(like))


# ---------------------------------------------------------------- gain, damping, stability


def dc_gain(system: System) -> Array:
    """``H`` at frequency zero, ``(*batch,)`` or ``(*batch, p, m)``: z = 1 or s = 0. Infinite for a pole there. Differentiable.

    A sampled spectrum must hold frequency 0, or a ValueError.

    >>> dc_gain(TransferFunction([1.0], [1.0, -0.5]))
    array(2.)
    """
    if isinstance(system, FrequencyResponse):
        at_zero = np.flatnonzero((to_numpy(system.omega) == 0).reshape(-1, system.points).all(0))
        if not len(at_zero):
            raise ValueError(f"expected a response that holds frequency 0, got omega from {float(to_numpy(system.omega).min()):.6g} rad/s")
        return system.values[..., int(at_zero[0])]
    if not isinstance(system, System):
        raise not_a_system(system)
    first = next(iter(system.arrays.values()))
    xp = namespace(first)
    if isinstance(system, ImpulseResponse):
        return xp.sum(system.taps, axis=-1)
    point = xp.asarray([1.0 + 0j if system.is_discrete else 0j], dtype=xp.complex128, device=first.device)
    gain = quiet(evaluate)(system, point)[..., 0]
    gain = gain if system.is_complex else xp.real(gain)
    sound = system.is_finite()
    sound = xp.reshape(sound, (*sound.shape, *(1,) * (gain.ndim - sound.ndim)))
    infinite = ~(xp.isfinite(xp.real(gain)) & xp.isfinite(xp.imag(gain))) if is_complex(gain) else ~xp.isfinite(gain)
    return astype_width(xp.where(infinite & sound, xp.full_like(gain, float("inf")), gain), width(first))


@dataclasses.dataclass(frozen=True, eq=False)
class Damping:
    """The damping table, one row a pole, ``(*batch, n)`` each; discrete poles through ``s = log(z) / dt``.

    poles : as given   frequency : natural frequency ``|s|`` in rad/s   ratio : damping ratio ``-Re s / |s|`` (1: no oscillation,
    0: no decay, negative: growing, NaN for a pole at dc)   time_constant : ``-1 / Re s`` in seconds (infinite: no decay)
    """

    poles: Array
    frequency: Array
    ratio: Array
    time_constant: Array


def damping(system: System) -> Damping:
    """Natural frequency, damping ratio and time constant of every pole, ``(*batch, n)`` each. Errors: those of :func:`poles`.

    >>> from ssmid import tf
    >>> table = damping(tf([4.0], [1.0, 0.4, 4.0], dt=0))
    >>> table.frequency, table.ratio
    (array([2., 2.]), array([0.1, 0.1]))
    """
    own = poles(system)
    xp = namespace(own)
    s = double(own)
    with np.errstate(divide="ignore", invalid="ignore"):
        if system.is_discrete:
            s = principal_log(s) / sample_time(system)
        decay, frequency = 0 - xp.real(s), xp.abs(s)
        ratio = xp.where(xp.isinf(decay) & (decay > 0), xp.ones_like(decay), decay / frequency)
        time_constant = 1 / decay
    return Damping(own, *(astype_width(x, width(own)) for x in (frequency, ratio, time_constant)))


def spectral_radius(system: System) -> Array:
    """``(*batch,)`` the largest modulus of a pole; 0 without poles. Errors: those of :func:`poles`.

    >>> float(spectral_radius(ZerosPolesGain([], [0.5, -0.9], 1.0)))
    0.9
    """
    return _largest(poles(system), abs, 0.0, system)


def spectral_abscissa(system: System) -> Array:
    """``(*batch,)`` the largest real part of a pole; minus infinity without poles. Errors: those of :func:`poles`.

    >>> float(spectral_abscissa(ZerosPolesGain([], [-2.0, -0.5], 1.0, dt=0)))
    -0.5
    """
    return _largest(poles(system), namespace(next(iter(system.arrays.values()))).real, -float("inf"), system)


def _largest(own: Array, measure: Callable[[Array], Array], none: float, system: System) -> Array:
    """``(*batch,)`` the largest ``measure`` of the poles, ``none`` without poles; poles that a batch shares count for each."""
    xp = namespace(own)
    size = measure(own)
    found = xp.max(size, axis=-1) if own.shape[-1] else xp.full(own.shape[:-1], none, dtype=size.dtype, device=own.device)
    return xp.broadcast_to(found, np.broadcast_shapes(tuple(found.shape), system.batch_shape))


def is_stable(system: System) -> Array:
    """``(*batch,)`` whether all poles lie inside the unit circle, or in the open left half plane. Elements with NaN are not.

    Errors: those of :func:`poles`.

    >>> bool(is_stable(ZerosPolesGain([], [0.5, -0.9], 1.0)))
    True
    """
    if not isinstance(system, System):
        raise not_a_system(system)
    return spectral_radius(system) < 1 if system.is_discrete else spectral_abscissa(system) < 0
