"""Norms of systems: H2, H-infinity, Hankel and l1, for every representation, one number for each element of a batch.

An impulse response is a finite one, and its norms are those of its taps. Everything else goes by Gramian factors, level sets and
the bounded tails of its own response; representations other than state space and modal form are made state spaces first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ssmid._array import Array, astype_width, batched_on_host, double, is_complex, namespace, quiet, real_dtype, width
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.fir_peak import fir_peak
from ssmid.analysis.gramians import gramian_factors_or_nan, modal_realization
from ssmid.analysis.hankel import channels, hankel_singular_values
from ssmid.analysis.hinf import hinf_norm
from ssmid.analysis.l1 import l1_norm
from ssmid.linalg import adjoint, svd
from ssmid.systems import FrequencyResponse, ImpulseResponse, Modal, StateSpace, System
from ssmid.systems.base import not_a_system, sample_time

_KINDS = ("h2", "hinf", "hankel", "l1")


def norm(system: System, kind: str, *, mimo: bool = False, return_frequency: bool = False) -> Any:
    """The norm ``kind`` of each element: a real array ``(*batch,)``.

    "h2" : root of the energy of the impulse response, ``sqrt(sum_t ||h[t]||_F^2)`` (integral in continuous time, where a
        feedthrough makes it infinite).
    "hinf" : largest gain over all frequencies (largest singular value for several channels), to a relative 1e-6: by level sets
        for models (Bruinsma & Steinbuch 1990), by a grid with a proven bound for taps. With ``return_frequency`` the pair
        (norm, frequency in rad/s where it stands; infinity for a gain only approached).
    "hankel" : largest Hankel singular value: the most that past inputs of energy 1 can leave to come out.
    "l1" : worst-case peak of the output for inputs of peak 1, ``max_i sum_j sum_t |h_ij[t]|``; to 1e-12 in discrete time, about
        1e-8 in continuous time.

    A scalar bank (Modal, ImpulseResponse, TransferFunction, ...) has a norm for each channel; a StateSpace couples its channels, and
    ``mimo=True`` those of an impulse response ``(*batch, p, m, length)``, whose taps are all there is of it. All four norms are
    infinite where a pole is on or outside the boundary of stability, and NaN where an element holds NaN.
    Raises ValueError for an unknown ``kind`` and for ``mimo`` with another representation, TypeError for a FrequencyResponse, which
    does not say what is between its points.
    Not differentiable.

    >>> from ssmid import Modal, ss
    >>> round(float(norm(ss(0.5, 1, 1), "hinf")), 6), round(float(norm(ss(0.5, 1, 1), "l1")), 6)
    (2.0, 2.0)
    >>> round(float(norm(Modal([0.5], [1.0]), "h2")) ** 2, 6)        # 1 / (1 - 1/4)
    1.333333
    """
    if kind not in _KINDS:
        raise ValueError(f"kind: expected one of {', '.join(_KINDS)}, got {kind!r}")
    if return_frequency and kind != "hinf":
        raise ValueError(f"return_frequency: expected kind 'hinf', got {kind!r}")
    if not isinstance(system, System):
        raise not_a_system(system)
    if isinstance(system, FrequencyResponse):
        raise TypeError("expected a system, got a FrequencyResponse: fit a model to it first, or take the largest of its values")
    if mimo and not isinstance(system, ImpulseResponse):
        raise ValueError(f"mimo=True: expected an ImpulseResponse, got a {type(system).__name__}: a StateSpace couples its channels anyway")
    if isinstance(system, ImpulseResponse):
        result = _OF_TAPS[kind](system, mimo)
    elif isinstance(system, Modal) and kind in ("h2", "hankel"):
        result = (_h2_of_modal if kind == "h2" else _hankel)(system)
    else:
        result = _OF_STATES[kind](system if isinstance(system, StateSpace) else to_state_space(system))
    gain, frequency = result if isinstance(result, tuple) else (result, None)
    bits = width(next(iter(system.arrays.values())))
    return (astype_width(gain, bits), astype_width(frequency, bits)) if return_frequency else astype_width(gain, bits)


# ---------------------------------------------------------------- taps


def _h2_of_taps(system: ImpulseResponse, mimo: bool) -> Array:
    return _euclidean(channels(system, mimo), (-3, -2, -1))


def _hinf_of_taps(system: ImpulseResponse, mimo: bool) -> tuple[Array, Array]:
    gain, angle = fir_peak(channels(system, mimo))
    return gain, angle / sample_time(system)


def _hankel_of_taps(system: ImpulseResponse, mimo: bool) -> Array:
    return hankel_singular_values(system, 1, mimo=mimo)[..., 0]


def _l1_of_taps(system: ImpulseResponse, mimo: bool) -> Array:
    taps = channels(system, mimo)
    xp = namespace(taps)
    return xp.max(xp.sum(xp.abs(taps), axis=(-2, -1)), axis=-1)


_OF_TAPS: dict[str, Callable[..., Any]] = {"h2": _h2_of_taps, "hinf": _hinf_of_taps, "hankel": _hankel_of_taps, "l1": _l1_of_taps}


# ---------------------------------------------------------------- models


def _h2_of_states(system: StateSpace) -> Array:
    R, _ = gramian_factors_or_nan(system)
    C, D = double(system.C), double(system.D)
    C = namespace(R).astype(C, R.dtype) if is_complex(R) and not is_complex(C) else C
    return _with_feedthrough(_euclidean(C @ double(R), (-2, -1)), _euclidean(D, (-2, -1)), system)


def _h2_of_modal(system: Modal) -> Array:
    R, _ = gramian_factors_or_nan(system)
    _, _, outputs = modal_realization(system)
    xp = namespace(outputs)
    return _with_feedthrough(_euclidean(outputs[..., None, :] @ double(R), (-2, -1)), xp.abs(double(system.feedthrough)), system)


def _hankel(system: StateSpace | Modal) -> Array:
    R, L = gramian_factors_or_nan(system)
    xp = namespace(R)
    if R.shape[-1] == 0:
        return xp.zeros(R.shape[:-2], dtype=real_dtype(R), device=R.device)
    product = adjoint(L) @ R
    lost = ~xp.isfinite(xp.sum(xp.abs(product), axis=(-2, -1)))
    sigma = svd(xp.where(lost[..., None, None], xp.zeros_like(product), product))[1][..., 0]
    return _infinite_where_unstable(xp.where(lost, xp.nan * sigma, sigma), system)


def _hinf_of_states(system: StateSpace) -> tuple[Array, Array]:
    gain, angle = batched_on_host(partial(hinf_norm, discrete=system.is_discrete), *_matrices(system))
    return namespace(gain).abs(gain), angle / (sample_time(system) if system.is_discrete else 1.0)


def _l1_of_states(system: StateSpace) -> Array:
    return batched_on_host(partial(l1_norm, discrete=system.is_discrete), *_matrices(system))


_OF_STATES: dict[str, Callable[..., Any]] = {"h2": _h2_of_states, "hinf": _hinf_of_states, "hankel": _hankel, "l1": _l1_of_states}


def _matrices(system: StateSpace) -> list[Array]:
    return [double(M) for M in (system.A, system.B, system.C, system.D)]


@quiet
def _euclidean(values: Array, axes: tuple[int, ...]) -> Array:
    """Root of the sum of squares, scaled so that neither 1e200 overflows nor 1e-200 vanishes."""
    xp = namespace(values)
    modulus = xp.abs(values)
    if 0 in values.shape:
        return xp.sum(modulus, axis=axes)
    scale = xp.max(modulus, axis=axes, keepdims=True)
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    return xp.sqrt(xp.sum((modulus / scale) ** 2, axis=axes)) * xp.squeeze(scale, axis=axes)


def _with_feedthrough(proper: Array, feedthrough: Array, system: StateSpace | Modal) -> Array:
    xp = namespace(proper)
    if not system.is_discrete:
        proper = proper * xp.where(feedthrough == 0, 1.0, xp.inf)
        return _infinite_where_unstable(xp.where(feedthrough == 0, proper, xp.inf + feedthrough), system)
    return _infinite_where_unstable(xp.hypot(proper, feedthrough), system)


def _infinite_where_unstable(value: Array, system: StateSpace | Modal) -> Array:
    """Factors are NaN both for NaN and for unstable elements: an element that is finite but has none is unstable."""
    xp = namespace(value)
    return xp.where(xp.isnan(value) & system.is_finite(), xp.inf, value)
