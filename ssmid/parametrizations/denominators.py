"""Denominators ``1 + a_1/z + ... + a_n/z^n`` from free parameters, so that training cannot make them unstable.

RTF (arXiv 2405.06147, section 3.5) trains the coefficients themselves, which nothing holds stable, or scales them to an absolute sum
below 1 (Montel), which keeps a pair of poles at a small angle within a modulus of 0.414. Three coordinates have neither fault:

- second-order sections in the triangle ``|a_2| < 1, |a_1| < 1 + a_2`` by tanh (Jury's criterion of degree 2), which hold pairs and
  two real poles alike;
- reflection coefficients in (-1, 1) by tanh, and Levinson's recursion (Schur-Cohn): every stable polynomial, once;
- poles in polar form, modulus ``exp(-exp(nu))`` (as the LRU: Orvieto et al. 2023, section 3.3).

Each takes as many real numbers as it gives coefficients, ``(*batch, n)`` to ``(*batch, n)``. Products are trees of FFTs in float64:
O(n log^2 n) operations in log2 n levels; sections and pairs should not stand in the order of their angles (:func:`spread_order`).
All poles have moduli of at most :data:`LARGEST_MODULUS`, in exact arithmetic for every parameter: coefficients that are rounded move an
m-fold pole by the m-th root of the rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmid._array import (
    Array,
    as_complex,
    astype_width,
    batched_on_host,
    double,
    fft_of,
    harmonize,
    namespace,
    next_fast_length,
    on_host,
    width,
)
from ssmid.analysis.polynomial import conjugate_pairs

LARGEST_MODULUS = 1 - 1e-6
"""Where tanh rounds to 1, poles stand here: a memory of a million samples."""

MONTEL_MARGIN = 1e-6


def montel_denominator(a: Array, scalar: Array) -> Array:
    """``a / (|a|_1 + |scalar| + 1e-6)``: the authors' constraint. a : ``(*batch, n)``   scalar : ``(*batch,)``. Differentiable.

    An absolute sum below 1 has no root on or outside the unit circle, by Rouché's theorem.

    >>> import numpy as np
    >>> montel_denominator(np.array([2.0, -1.0]), np.array(1.0)).round(3)
    array([ 0.5 , -0.25])
    """
    a, scalar = harmonize(a=a, scalar=scalar)
    xp = namespace(a)
    return a / (xp.sum(xp.abs(a), axis=-1) + xp.abs(scalar) + MONTEL_MARGIN)[..., None]


def section_denominator(parameters: Array) -> Array:
    """Coefficients ``a_1 .. a_n`` of a product of sections ``1 + a_1/z + a_2/z^2`` with ``a_2 = tanh q``, ``a_1 = (1 + a_2) tanh p``.

    parameters : ``(*batch, n)``, ``p`` and ``q`` of one section after the other; of an odd n the last is a real pole ``-tanh p``.
    Differentiable.

    >>> import numpy as np
    >>> section_denominator(np.array([0.0, 0.5, 0.2])).round(4)
    array([0.1974, 0.4621, 0.0912])
    """
    xp, pairs = namespace(parameters), _in_pairs(parameters)
    second = xp.tanh(pairs[..., 1])
    return _product_of_sections(parameters, (1 + second) * xp.tanh(pairs[..., 0]), second, sign=1)


def polar_denominator(parameters: Array) -> Array:
    """Coefficients of the product over pairs of poles ``exp(-exp(nu) +- i theta)``.

    parameters : ``(*batch, n)``, ``nu`` and ``theta`` of one pair after the other; of an odd n the last is a real pole ``tanh p``.
    Two different real poles have no place here. Differentiable.

    >>> import numpy as np
    >>> polar_denominator(np.array([np.log(-np.log(0.5)), np.pi / 2])).round(6) + 0.0
    array([0.  , 0.25])
    """
    xp, pairs = namespace(parameters), _in_pairs(parameters)
    # beyond 7 the modulus is below the smallest number, and exp would overflow
    modulus = xp.exp(-xp.exp(xp.clip(pairs[..., 0], max=7.0)))
    return _product_of_sections(parameters, -2 * modulus * xp.cos(pairs[..., 1]), modulus * modulus, sign=-1)


def lattice_denominator(parameters: Array) -> Array:
    """Coefficients of the polynomial with reflection coefficients ``k = tanh(parameters)``, ``(*batch, n)``. Differentiable.

    Levinson's recursion ``A_m = A_{m-1} + k_m B_{m-1}/z, B_m = k_m A_{m-1} + B_{m-1}/z`` is a product of 2 x 2 matrices of
    polynomials, and that product a tree.

    >>> import numpy as np
    >>> lattice_denominator(np.arctanh([0.5, 0.2])).round(5)
    array([0.6, 0.2])
    """
    (parameters,) = harmonize(parameters=parameters)
    xp, n = namespace(parameters), parameters.shape[-1]
    k = xp.tanh(double(parameters))
    # reflections of 0 on top leave A as it is
    zeros = xp.zeros((*k.shape[:-1], _power_of_two(n) - n), dtype=k.dtype, device=k.device)
    product = _product_of_reflections(xp.concat([k, zeros], axis=-1))
    return _inside(product[..., 0, 1 : n + 1] + product[..., 1, 1 : n + 1], width(parameters))


def section_parameters(poles: Array) -> Array:
    """Parameters of :func:`section_denominator` with these poles, ``(*batch, n)`` complex, closed under conjugation.

    Real poles are paired with their neighbours. Raises ValueError for poles without a conjugate, or of moduli of 1 - 1e-6 and more.
    Not differentiable.
    """
    return _of_poles(poles, _sections_of_poles)


def polar_parameters(poles: Array) -> Array:
    """Parameters of :func:`polar_denominator` with these poles. Raises ValueError as :func:`section_parameters`, and for real poles
    (but the last of an odd number)."""
    return _of_poles(poles, _pairs_of_poles)


def lattice_parameters(a: Array) -> Array:
    """Parameters of :func:`lattice_denominator` with the coefficients ``a`` ``(*batch, n)``; ValueError where they are not stable.

    >>> import numpy as np
    >>> lattice_parameters(np.array([0.6, 0.2])).round(4)
    array([0.5493, 0.2027])
    """
    (a,) = harmonize(a=a)
    k = on_host(lambda x: _reflections(x / LARGEST_MODULUS ** np.arange(1, x.shape[-1] + 1)), double(a))
    xp = namespace(k)
    if not bool(xp.all(xp.abs(k) < 1)):
        raise ValueError("a: expected denominators with all poles inside the unit circle, got reflection coefficients of 1 or more")
    return astype_width(xp.atanh(k), width(a))


def is_stable_denominator(a: Array) -> Array:
    """``(*batch,)`` whether all roots lie inside the unit circle, by the reflection coefficients (Schur-Cohn). Not differentiable.

    >>> import numpy as np
    >>> is_stable_denominator(np.array([[-0.9], [-1.1]]))
    array([ True, False])
    """
    (a,) = harmonize(a=a)
    k = on_host(_reflections, double(a))
    xp = namespace(k)
    return xp.all(xp.abs(k) < 1, axis=-1)


STABLE = {"sections": section_denominator, "lattice": lattice_denominator, "poles": polar_denominator}
"""By name, those that are stable for every value of their parameters."""


def spread_order(count: int) -> list[int]:
    """An order of ``count`` evenly spaced things in which neighbours, pairs of neighbours and so on lie far apart (bits reversed).

    The product of 64 sections side by side on an arc has coefficients of 10^15 that the rest of the circle cancels; taken in this order
    every product on the way is as tame as the last.

    >>> spread_order(6)
    [0, 4, 2, 1, 5, 3]
    """
    bits = max(count - 1, 0).bit_length()
    every = [int(f"{i:0{bits}b}"[::-1], 2) if bits else 0 for i in range(1 << bits)]
    return [i for i in every if i < count]


# ---------------------------------------------------------------- products of many small polynomials


def _in_pairs(parameters: Array) -> Array:
    """``(*batch, n // 2, 2)`` in double precision."""
    xp, count = namespace(parameters), parameters.shape[-1] // 2
    return double(xp.reshape(parameters[..., : 2 * count], (*parameters.shape[:-1], count, 2)))


def _product_of_sections(parameters: Array, first: Array, second: Array, sign: int) -> Array:
    xp, n = namespace(parameters), parameters.shape[-1]
    if n % 2:
        last = sign * xp.tanh(double(parameters[..., n - 1 :]))
        first, second = xp.concat([first, last], axis=-1), xp.concat([second, xp.zeros_like(last)], axis=-1)
    missing = _power_of_two(first.shape[-1]) - first.shape[-1]
    ones = xp.zeros((*first.shape[:-1], missing), dtype=first.dtype, device=first.device)
    first, second = xp.concat([first, ones], axis=-1), xp.concat([second, ones], axis=-1)
    factors = xp.stack([xp.ones_like(first), first, second], axis=-1)
    transform = fft_of(factors)
    while factors.shape[-2] > 1:
        terms = 2 * factors.shape[-1] - 1
        points = next_fast_length(terms)
        spectra = transform.rfft(factors, n=points, axis=-1)
        factors = transform.irfft(spectra[..., 0::2, :] * spectra[..., 1::2, :], n=points, axis=-1)[..., :terms]
    return _inside(factors[..., 0, 1 : n + 1], width(parameters))


def _product_of_reflections(k: Array) -> Array:
    """The first row ``(*batch, 2, count + 1)`` of the product of the matrices of ``(*batch, count)`` reflections, a power of two.

    A matrix is ``[[P, Q], [Q*, P*]]`` with the reversed polynomials below, on the circle conjugates times a power of z: the first row is
    all that has to be multiplied.
    """
    xp = namespace(k)
    zero, one = xp.zeros_like(k), xp.ones_like(k)
    rows = xp.stack([xp.stack([one, zero], axis=-1), xp.stack([zero, k], axis=-1)], axis=-2)
    transform = fft_of(rows)
    while rows.shape[-3] > 1:
        degree = rows.shape[-1] - 1
        points = next_fast_length(2 * degree + 1)
        spectra = transform.rfft(rows, n=points, axis=-1)
        right, left = spectra[..., 0::2, :, :], spectra[..., 1::2, :, :]
        angles = xp.arange(points // 2 + 1, dtype=k.dtype, device=k.device) * (-2 * xp.pi * degree / points)
        below = xp.conj(right) * (as_complex(xp.cos(angles)) + 1j * as_complex(xp.sin(angles)))
        P, Q = left[..., 0, :], left[..., 1, :]
        both = [P * right[..., 0, :] + Q * below[..., 1, :], P * right[..., 1, :] + Q * below[..., 0, :]]
        rows = transform.irfft(xp.stack(both, axis=-2), n=points, axis=-1)[..., : 2 * degree + 1]
    return rows[..., 0, :, :]


def _inside(a: Array, bits: int) -> Array:
    """Coefficients whose roots are ``LARGEST_MODULUS`` times those of ``a``."""
    xp = namespace(a)
    powers = xp.arange(1, a.shape[-1] + 1, dtype=a.dtype, device=a.device)
    return astype_width(a * LARGEST_MODULUS**powers, bits)


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


# ---------------------------------------------------------------- on the host


def _reflections(a: np.ndarray) -> np.ndarray:
    """``(*batch, n)`` reflection coefficients by Levinson's recursion downwards; inf or NaN beyond one of modulus 1."""
    n, current = a.shape[-1], np.array(a)
    k = np.empty_like(current)
    with np.errstate(all="ignore"):
        for m in range(n - 1, -1, -1):
            k[..., m] = current[..., m]
            last, before = current[..., m : m + 1], current[..., :m]
            sign, size = np.where(last < 0, -1.0, 1.0), np.abs(last)
            # before - last * reversed, without the cancellation of a reflection next to 1
            turned = sign * before[..., ::-1]
            current = ((before - turned) + (1 - size) * turned) / ((1 - size) * (1 + size))
    return k


def _of_poles(poles: Array, element: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Array:
    (poles,) = harmonize(poles=poles)

    def one(p: np.ndarray) -> np.ndarray:
        halves = conjugate_pairs(np.asarray(p, complex))
        if halves is None:
            raise ValueError("poles: expected poles closed under conjugation, got some without a conjugate")
        largest = float(np.max(np.abs(p), initial=0.0))
        if not largest < LARGEST_MODULUS:
            raise ValueError(f"poles: expected moduli below {LARGEST_MODULUS}, got {largest:.9g}: a parametrization that is always stable")
        upper = halves[0][np.argsort(np.angle(halves[0]))][spread_order(len(halves[0]))]
        return element(upper / LARGEST_MODULUS, np.sort(halves[1]) / LARGEST_MODULUS)

    return batched_on_host(one, double(poles), core_ndim=1)


def _sections_of_poles(upper: np.ndarray, real: np.ndarray) -> np.ndarray:
    pairs = real[: len(real) // 2 * 2].reshape(-1, 2)
    second = np.concatenate([np.abs(upper) ** 2, pairs.prod(-1)])
    first = np.concatenate([-2 * np.real(upper), -pairs.sum(-1)])
    both = np.arctanh(np.stack([first / (1 + second), second], axis=-1)).ravel()
    return np.concatenate([both, -np.arctanh(real[len(pairs) * 2 :])])


def _pairs_of_poles(upper: np.ndarray, real: np.ndarray) -> np.ndarray:
    if len(real) > 1:
        raise ValueError(f"poles: expected conjugate pairs for polar poles, got {len(real)} real ones: sections or a lattice take them")
    both = np.stack([np.log(-np.log(np.abs(upper))), np.angle(upper)], axis=-1).ravel()
    return np.concatenate([both, np.arctanh(real)])
