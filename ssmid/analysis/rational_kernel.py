"""Rational transfer functions to taps and spectra without a state: two FFTs, a division, one inverse FFT.

The way of RTF (Parnichkun et al., "State-Free Inference of State-Space Models", arXiv 2405.06147): time O(L log L) for any
order. A kernel read off L points of the spectrum is the response wrapped around L; it equals the causal response where the
numerator is that of ``C (I - A^L)``, which is what such layers train. :func:`wrap_numerator` and :func:`unwrap_numerator`
go from the numerator of a system to that one and back.

Coefficients here are in powers of 1/z: ``b`` holds b_1 .. b_n and ``a`` holds a_1 .. a_n of

    H(z) = h0 + (b_1/z + ... + b_n/z^n) / (1 + a_1/z + ... + a_n/z^n).

Everything is differentiable, batched and keeps the precision it is given.
"""

from __future__ import annotations

from math import ceil, isqrt
from typing import Literal

import numpy as np
import scipy.signal

from ssmid._array import (
    Array,
    as_complex,
    astype_width,
    batched_on_host,
    double,
    fft_of,
    harmonize,
    is_complex,
    namespace,
    needs_gradient,
    on_gpu,
    quiet,
    same_field,
    width,
)
from ssmid.linalg import solve_triangular


def rational_kernel(
    b: Array, a: Array, length: int, feedthrough: Array = None, *, wrap: Literal["periodic", "causal"] = "periodic"
) -> Array:
    """The first ``length`` taps ``(*batch, length)`` of ``h0 + b(1/z) / (1 + a(1/z))``.

    b, a : ``(*batch, n)``   feedthrough : ``(*batch,)`` or None for zero

    ``"periodic"``: taps 1 .. L-1 are the response wrapped around L, ``h_t + h_{t+L} + ...``. Where ``b`` comes from
    :func:`wrap_numerator`, or is trained as such, that is the causal response of the system with ``unwrap_numerator(b, a, L)``.
    ``"causal"``: the response itself, by :func:`wrap_numerator` first.
    In both tap 0 is the feedthrough and nothing else: what the wrapping puts there (h_L + h_2L + ...) is left out. The
    inverse FFT of the spectrum, which keeps it, is ``impulse_response(system, length, wrap="periodic")``.

    >>> import numpy as np
    >>> rational_kernel(np.array([1.0]), np.array([-0.5]), 4, wrap="causal")
    array([0. , 1. , 0.5 , 0.25])
    """
    b, a, feedthrough = harmonize(b=b, a=a, feedthrough=feedthrough)
    if wrap not in ("periodic", "causal"):
        raise ValueError(f'wrap: expected "periodic" or "causal", got {wrap!r}')
    if wrap == "causal":
        b = wrap_numerator(b, a, length)
    spectrum = _folded_spectrum(b, length) / _advanced_denominator(a, length)
    taps = _inverse(spectrum, length, real=not (is_complex(b) or is_complex(a)))
    taps[..., 0] = 0 if feedthrough is None else feedthrough
    return taps


def rational_kernel_gradient(b: Array, a: Array, length: int, gradient: Array) -> tuple[Array, Array]:
    """Gradients in ``b`` and ``a`` of a function of the periodic kernel, from its gradient ``(*batch, length)`` in the taps.

    A coefficient moves the kernel by itself, delayed: both are correlations, products on the grid, so that one forward transform and
    two inverse ones replace all that would be recorded on the way. Where ``a`` has fewer batch elements than ``b`` (channels that share
    a denominator), its gradient is summed over the others, in the spectrum. That in the feedthrough is ``gradient[..., 0]``.

    >>> import numpy as np
    >>> rational_kernel_gradient(np.array([1.0]), np.array([0.0]), 4, np.array([5.0, 1.0, 2.0, 0.0]))
    (array([1.]), array([-2.]))
    """
    b, a, gradient = harmonize(b=b, a=a, gradient=gradient)
    xp, n = namespace(b, a), a.shape[-1]
    real = not (is_complex(b) or is_complex(a))
    inverse = 1 / _advanced_denominator(a, length)
    strict = xp.concat([xp.zeros_like(gradient[..., :1]), gradient[..., 1:]], axis=-1)
    slope = xp.conj(inverse) * _folded_spectrum(strict if real else as_complex(strict), length)
    moved = -slope * xp.conj(_folded_spectrum(b, length) * inverse)
    own = (1,) * (moved.ndim - a.ndim) + a.shape[:-1]
    shared = tuple(i for i, size in enumerate(own) if size != moved.shape[i])
    if shared:
        moved = xp.reshape(xp.sum(moved, axis=shared, keepdims=True), (*a.shape[:-1], moved.shape[-1]))
    return _around(_inverse(slope, length, real), n), _around(_inverse(moved, length, real), n)


def wrap_numerator(b: Array, a: Array, length: int) -> Array:
    """The numerator of ``C (I - A^L)`` from that of ``C``: ``b`` less the numerator of the response from tap L on.

    That response, ``g_t = h_{t+L}``, has the numerator ``den * g`` cut to n coefficients, so the exact taps
    ``h_{L+1} .. h_{L+n}`` are all that is needed; no power of A is formed.
    """
    b, a = harmonize(b=b, a=a)
    n = a.shape[-1]
    h = power_series(_with_lead(b, 0), _with_lead(a, 1), length + n + 1)
    return b - _numerator(h[..., length + 1 :], a)


def unwrap_numerator(b: Array, a: Array, length: int) -> Array:
    """The numerator of ``C`` from that of ``C (I - A^L)``: the inverse of :func:`wrap_numerator`.

    The periodic kernel of ``b`` is h itself on taps 1 .. L; later ones follow from ``h_{t+L} = h_t - k_t`` with k the response
    of ``b``. The numerator is ``den * h`` cut to n coefficients. Poles at the L-th roots of unity have no inverse.
    """
    b, a = harmonize(b=b, a=a)
    xp = namespace(b, a)
    n = a.shape[-1]
    real = not (is_complex(b) or is_complex(a))
    # without its factor 1/z the numerator gives taps 1 .. L in place of 0 .. L-1
    h = _inverse(_folded_spectrum(b, length) / _folded_spectrum(_with_lead(a, 1), length), length, real)
    if n > length:
        k = power_series(_with_lead(b, 0), _with_lead(a, 1), n + 1)[..., 1:]
        pieces = [h]
        for start in range(0, n - length, length):
            pieces.append(pieces[-1] - k[..., start : start + length])
        h = xp.concat(pieces, axis=-1)
    return _numerator(h[..., :n], a)


@quiet
def rational_spectrum(num: Array, den: Array, points: int) -> Array:
    """``num / den`` in powers of 1/z, ``(*batch, coefficients)`` each, at ``exp(2 pi i k / points)``.

    Real coefficients: k = 0 .. points // 2; complex ones: the whole circle. Orders above ``points`` are folded.
    """
    num, den = same_field(*harmonize(num=num, den=den))
    return _folded_spectrum(num, points) / _folded_spectrum(den, points)


def power_series(num: Array, den: Array, length: int) -> Array:
    """The first ``length`` coefficients of ``num / den`` in powers of 1/z, by forward substitution: O(length n).

    num, den : ``(*batch, coefficients)``, den[0] not zero. The taps solve a banded lower triangular Toeplitz system, and
    substitution is backward stable whatever the poles, where FFTs, or powers of the companion matrix, lose the condition squared.
    On the host that is ``scipy.signal.lfilter``; on a GPU, and where a gradient is recorded, triangular solves block by block.
    """
    num, den = harmonize(num=num, den=den)
    bits = width(num)
    num, den = double(num), double(den)
    substitute = _in_blocks if on_gpu(den) or needs_gradient(num, den) else _by_recursion
    return astype_width(substitute(num, den, length), bits)


def _by_recursion(num: Array, den: Array, length: int) -> Array:
    impulse = np.eye(1, length)[0]

    def one(b: np.ndarray, a: np.ndarray) -> np.ndarray:
        if a[0] == 0 or not (np.isfinite(b).all() and np.isfinite(a).all()):
            return np.full(length, np.nan, np.result_type(a, b))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(scipy.signal.lfilter(b / a[0], a / a[0], impulse))

    return batched_on_host(one, num, den, core_ndim=1)


def _in_blocks(num: Array, den: Array, length: int) -> Array:
    """K about sqrt(length) taps at a time: what the last n taps leave on the right, then one triangular solve."""
    xp = namespace(num, den)
    if is_complex(num) != is_complex(den):
        num, den = as_complex(num), as_complex(den)
    num, den = num[..., : min(length, num.shape[-1])] / den[..., :1], den[..., : min(length, den.shape[-1])] / den[..., :1]
    n, block = den.shape[-1] - 1, min(length, max(16, isqrt(length)))
    triangle, history = _toeplitz(den, block, block, 0), _toeplitz(den, block, n, n)
    batch = np.broadcast_shapes(num.shape[:-1], den.shape[:-1])
    driven = xp.broadcast_to(_padded(num, 0, ceil(length / block) * block), (*batch, ceil(length / block) * block))
    past = xp.zeros((*batch, n), dtype=num.dtype, device=num.device)
    pieces = []
    for start in range(0, length, block):
        right = driven[..., start : start + block, None] - history @ past[..., None]
        pieces.append(solve_triangular(triangle, right, lower=True)[..., 0])
        both = xp.concat([past, pieces[-1]], axis=-1)
        past = both[..., both.shape[-1] - n :]
    return xp.concat(pieces, axis=-1)[..., :length]


def _toeplitz(den: Array, rows: int, columns: int, offset: int) -> Array:
    """``den[offset + i - j]`` as ``(*batch, rows, columns)``, zero outside the coefficients."""
    xp = namespace(den)
    index = offset + np.arange(rows)[:, None] - np.arange(columns)[None, :]
    low = max(0, -int(index.min(initial=0)))
    padded = _padded(den, low, low + max(den.shape[-1], int(index.max(initial=0)) + 1))
    flat = xp.asarray((index + low).ravel(), device=den.device)
    return xp.reshape(xp.take(padded, flat, axis=-1), (*den.shape[:-1], rows, columns))


def _padded(x: Array, before: int, total: int) -> Array:
    """``x`` with ``before`` zeros in front and zeros behind up to ``total``."""
    xp = namespace(x)
    zeros = [xp.zeros((*x.shape[:-1], k), dtype=x.dtype, device=x.device) for k in (before, total - before - x.shape[-1])]
    return xp.concat([zeros[0], x, zeros[1]], axis=-1) if total > x.shape[-1] else x


def _with_lead(coefficients: Array, lead: float) -> Array:
    xp = namespace(coefficients)
    first = xp.full((*coefficients.shape[:-1], 1), lead, dtype=coefficients.dtype, device=coefficients.device)
    return xp.concat([first, coefficients], axis=-1)


def _around(periodic: Array, count: int) -> Array:
    """``count`` samples of a period ``(*batch, length)``, which begins again where it ends."""
    turns = ceil(count / periodic.shape[-1])
    return (periodic if turns < 2 else namespace(periodic).concat([periodic] * turns, axis=-1))[..., :count]


def _numerator(h: Array, a: Array) -> Array:
    """Coefficients 1 .. n of ``den * h`` where ``h`` holds taps 1 .. n."""
    n = a.shape[-1]
    den = _with_lead(a, 1)
    return (_toeplitz(den, n, n, 0) @ h[..., None])[..., 0]


def _advanced_denominator(a: Array, points: int) -> Array:
    """The spectrum of ``z (1 + a(1/z))``: on a circle of samples the leading 1 goes round the corner to the last place.

    The numerator ``z b(1/z)`` over it is ``b/(1 + a)``, and neither had to be copied behind a leading coefficient.
    """
    xp = namespace(a)
    n = a.shape[-1]
    turns = n // points + 1
    samples = xp.zeros((*a.shape[:-1], turns * points), dtype=a.dtype, device=a.device)
    samples[..., :n] = a
    samples[..., turns * points - 1] += 1
    return _folded_spectrum(samples, points)


def _folded_spectrum(coefficients: Array, points: int) -> Array:
    """The transform of ``points`` samples of the polynomial: zero-padded, or wrapped around where there are more coefficients."""
    xp = namespace(coefficients)
    count = coefficients.shape[-1]
    if count > points:
        turns = ceil(count / points)
        coefficients = xp.sum(xp.reshape(_padded(coefficients, 0, turns * points), (*coefficients.shape[:-1], turns, points)), axis=-2)
    transform = fft_of(coefficients)
    return (transform.fft if is_complex(coefficients) else transform.rfft)(coefficients, n=points, axis=-1)


def _inverse(spectrum: Array, length: int, real: bool) -> Array:
    transform = fft_of(spectrum)
    return (transform.irfft if real else transform.ifft)(spectrum, n=length, axis=-1)
