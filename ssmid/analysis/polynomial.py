"""Polynomials and their roots, on the host in double precision, batched. The edge of the house: systems live in factored form.

Coefficients in descending powers. Not differentiable.
"""

from __future__ import annotations

import warnings
from math import prod

import numpy as np

from ssmid._array import Array, batched_on_host, double, on_host
from ssmid.analysis.evaluation import horner

_FAR = 2.0**60


def expand_roots(roots: Array, gain: Array | None = None) -> Array:
    """Coefficients ``(*batch, n+1)`` of ``gain prod (z - roots_i)``, roots ``(*batch, n)``.

    The factors are multiplied in Leja order (each root as far as possible from those before it), which keeps the intermediate
    coefficients of the size of the final ones (Calvetti and Reichel, BIT 43, 2003). Real where the roots of every element are
    closed under conjugation and ``gain`` is real.

    >>> import numpy as np
    >>> expand_roots(np.array([1j, -1j, 2.0]))
    array([ 1., -2.,  1., -2.])
    """
    if gain is None:
        return on_host(_expand, double(roots))
    return on_host(lambda z, k: np.asarray(k)[..., None] * _expand(z), double(roots), double(gain))


def polynomial_roots(coefficients: Array) -> Array:
    """Roots ``(*batch, n)`` of ``coefficients`` ``(*batch, n+1)``; a leading coefficient of zero puts a root at infinity.

    Eigenvalues of the balanced companion matrix (backward stable: Edelman and Murakami, Math. Comp. 64, 1995), then two Aberth
    steps, each kept where it lowers the residual, and all of them only where the roots multiply out nearer to the coefficients:
    the errors of clustered roots cancel each other, which roots moved one by one undo. Trailing zeros give roots at exactly 0;
    conjugate pairs are exact. A polynomial that is zero or not finite gives NaN.

    >>> import numpy as np
    >>> polynomial_roots(np.array([2.0, -3.0, 1.0, 0.0])).real
    array([1. , 0.5, 0. ])
    """
    return batched_on_host(_roots, double(coefficients), core_ndim=1)


def root_condition(coefficients: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """``(*batch,)`` the largest condition number of the roots, ``sum_k |c_k| |z|^k / (max(1, |z|) |p'(z)|)`` (Gautschi 1973).

    On NumPy arrays. Relative for roots outside the unit circle, absolute inside; roots at exactly zero are left out.
    """
    with np.errstate(all="ignore"):
        slope = np.abs(horner(derivative(coefficients), roots))
        magnitude = horner(np.abs(coefficients), np.abs(roots))
        condition = np.where(roots == 0, 1.0, magnitude / (np.maximum(1, np.abs(roots)) * slope))
    return np.max(condition, axis=-1, initial=1.0)


def derivative(coefficients: np.ndarray) -> np.ndarray:
    """Coefficients of the derivative, ``(*batch, n)``; one zero for a constant."""
    degree = coefficients.shape[-1] - 1
    return coefficients[..., :-1] * np.arange(degree, 0, -1) if degree else 0 * coefficients


def residues_of_product(zeros: np.ndarray, poles: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Residues ``(*batch, n)`` of ``gain prod (z - zeros) / prod (z - poles)`` at its poles, by the product formula.

    Every factor is one difference of data, so that each residue has full relative accuracy, however small. Numerator and
    denominator factors are taken in turn: nothing overflows that does not in the end. Equal poles give infinity or NaN.
    """
    n, q = poles.shape[-1], zeros.shape[-1]
    batch = np.broadcast_shapes(zeros.shape[:-1], poles.shape[:-1], gain.shape)
    mantissa = np.broadcast_to(gain[..., None], (*batch, n)).astype(complex)
    exponent = np.zeros((*batch, n), int)
    with np.errstate(all="ignore"):
        for j in range(max(n, q)):
            if j < q:
                mantissa, exponent = _normalized(mantissa * (poles - zeros[..., j, None]), exponent)
            if j < n:
                difference = poles - poles[..., j, None]
                difference[..., j] = 1.0
                mantissa, exponent = _normalized(mantissa / difference, exponent)
        return np.ldexp(mantissa.real, exponent) + 1j * np.ldexp(mantissa.imag, exponent)


def finite_roots(roots: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Roots without the columns that are infinite in every element, and the factor ``(*batch,)`` that the gain takes for the rest.

    Elements of a batch may have different numbers of finite roots. A root at infinity beside finite ones stands at
    ``-2^60 scale`` with the gain divided by its distance: within rounding the same function for ``|z|`` up to ``scale``.
    """
    infinite = np.isinf(roots)
    order = np.argsort(infinite, axis=-1, kind="stable")
    roots, infinite = np.take_along_axis(roots, order, -1), np.take_along_axis(infinite, order, -1)
    kept = int(np.max(np.sum(~infinite, axis=-1), initial=0))
    far = _FAR * max(scale, np.finfo(float).tiny * 2)
    factor = far ** -np.sum(infinite[..., :kept], axis=-1).astype(float)
    return np.where(infinite[..., :kept], -far, roots[..., :kept]), factor


def conjugate_pairs(roots: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The members of ``roots`` ``(n,)`` in the open upper half plane, and the real ones; None where some have no conjugate.

    Partners may differ by 100 roundings, as scipy's filter designs do; the upper one stands for both.
    """
    near = 100 * np.finfo(float).eps * np.abs(roots)
    real = roots[np.abs(roots.imag) <= near].real
    upper, lower = roots[roots.imag > near], list(roots[roots.imag < -near].conj())
    if len(upper) != len(lower):
        return None
    for z in upper:
        nearest = int(np.argmin(np.abs(np.asarray(lower) - z)))
        if abs(lower.pop(nearest) - z) > 100 * np.finfo(float).eps * abs(z):
            return None
    return upper, real


def paired(roots: np.ndarray) -> tuple[np.ndarray, bool]:
    """``roots`` ``(*batch, n)`` with exact conjugates as neighbours, the upper one first, and whether all finite rows are closed.

    Rows that are not closed under conjugation stay as they are.
    """
    order = np.lexsort((-roots.imag, np.abs(roots.imag), roots.real), axis=-1)
    ordered = np.take_along_axis(roots, order, -1)
    flat, given = (x.reshape(prod(roots.shape[:-1]), roots.shape[-1]) for x in (ordered, roots))
    closed = True
    for row in np.flatnonzero(~_neighbours(flat) & np.isfinite(flat).all(-1)):
        halves = conjugate_pairs(given[row])
        closed = closed and halves is not None
        flat[row] = given[row] if halves is None else [*np.stack([halves[0], halves[0].conj()], -1).ravel(), *halves[1]]
    return flat.reshape(roots.shape), closed


# ---------------------------------------------------------------- one element


def _neighbours(rows: np.ndarray) -> np.ndarray:
    """For each row, whether every complex number stands beside its exact conjugate, the upper one first."""
    upper, lower = rows.imag > 0, rows.imag < 0
    follows = np.zeros(rows.shape, bool)
    follows[:, 1:] = upper[:, :-1] & (rows[:, 1:] == rows[:, :-1].conj())
    return (np.sum(upper, -1) == np.sum(follows, -1)) & (lower == follows).all(-1)


def _roots(c: np.ndarray) -> np.ndarray:
    n = len(c) - 1
    found = np.full(n, np.nan, complex)
    largest = np.max(np.abs(c), initial=0.0)
    if not np.isfinite(c).all() or largest == 0:
        return found
    c = c / largest
    nonzero = np.flatnonzero(c)
    first, last = nonzero[0], nonzero[-1]
    core = c[first : last + 1]
    found[:first] = np.inf
    roots = _companion_roots(core)
    found[first : first + len(core) - 1] = min(roots, _polished(core, roots), key=lambda z: _backward_error(core, z))
    found[first + len(core) - 1 :] = 0
    return found


def _companion_roots(c: np.ndarray) -> np.ndarray:
    if len(c) < 2:
        return np.zeros(0, complex)
    with np.errstate(over="ignore"):
        companion = np.diag(np.ones(len(c) - 2, c.dtype), -1)
        companion[0] = -c[1:] / c[0]
    if not np.isfinite(companion).all():
        # the leading coefficient is beyond rounding of the others: its roots are the inverses of those of the reversed polynomial
        reciprocal = _companion_roots(c[::-1])
        with np.errstate(all="ignore"):
            inverse = np.where(np.isfinite(1 / reciprocal), 1 / reciprocal, np.inf)
        return inverse if np.iscomplexobj(c) else inverse.conj()
    return np.asarray(np.linalg.eigvals(companion), complex)


def _polished(c: np.ndarray, z: np.ndarray) -> np.ndarray:
    upper, axis = z.imag > 0, z.imag == 0
    with np.errstate(all="ignore"):
        for _ in range(2):
            newton, residual = _newton_step(c, z)
            gaps = z[:, None] - z
            np.fill_diagonal(gaps, np.inf)
            step = newton / (1 - newton * np.sum(1 / gaps, axis=1))
            moved = np.where(np.isfinite(step), z - step, z)
            z = np.where(_newton_step(c, moved)[1] < residual, moved, z)
    if not np.iscomplexobj(c):
        # LAPACK lists conjugates as neighbours, the upper root first; the steps may have parted them by a rounding
        z[axis] = z[axis].real
        z[np.flatnonzero(upper) + 1] = z[upper].conj()
    return z


def _backward_error(c: np.ndarray, roots: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        error = np.max(np.abs(c[0] * _expand(roots) - c))
    return float(error) if np.isfinite(error) else np.inf


def _newton_step(c: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``p / p'`` and ``|p|`` scaled by ``max(1, |z|)^n``; outside the unit circle through the reversed polynomial."""
    n = len(c) - 1
    inside = np.abs(z) <= 1
    w = np.where(inside, z, 1 / z)
    value = np.where(inside, horner(c, w), horner(c[::-1], w))
    slope = np.where(inside, horner(derivative(c), w), horner(derivative(c[::-1]), w))
    outside = value / (w * (n * value - w * slope))
    return np.where(inside, value / slope, outside), np.abs(value)


def _expand(roots: np.ndarray) -> np.ndarray:
    batch, n = roots.shape[:-1], roots.shape[-1]
    roots = roots.reshape(prod(batch), n)
    ordered = np.take_along_axis(roots, _leja_order(roots), -1)
    c = np.ones((len(roots), 1), complex)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(n):
            c = np.pad(c, ((0, 0), (0, 1))) - ordered[:, k, None] * np.pad(c, ((0, 0), (1, 0)))
    c = c.reshape(*batch, n + 1)
    return np.ascontiguousarray(c.real) if _all_closed(roots) else c


def _all_closed(roots: np.ndarray) -> bool:
    """Whether each row of ``(elements, n)``, NaN aside, is closed under conjugation."""
    return paired(roots[np.isfinite(roots).all(-1)])[1]


def _leja_order(roots: np.ndarray) -> np.ndarray:
    """Indices ``(elements, n)`` that put each root as far as possible, in the product of distances, from those before it."""
    elements, n = roots.shape
    order = np.zeros((elements, n), int)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        score = np.log(np.abs(roots))
        taken = np.zeros(roots.shape, bool)
        for k in range(n):
            pick = np.argmax(np.where(taken, -np.inf, np.nan_to_num(score, nan=-1e300, neginf=-1e300, posinf=1e300)), axis=-1)
            order[:, k] = pick
            np.put_along_axis(taken, pick[:, None], True, -1)
            distance = np.log(np.abs(roots - np.take_along_axis(roots, pick[:, None], -1)))
            score = distance if k == 0 else score + distance
    return order


def _normalized(mantissa: np.ndarray, exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``mantissa 2^exponent`` with the mantissa's larger part in [1/2, 1)."""
    shift = np.frexp(np.maximum(np.abs(mantissa.real), np.abs(mantissa.imag)))[1]
    return np.ldexp(mantissa.real, -shift) + 1j * np.ldexp(mantissa.imag, -shift), exponent + shift
