"""Polynomials and their roots, on the host in double precision, batched. The edge of the house: systems live in factored form.

Coefficients in descending powers. Not differentiable.
"""

from __future__ import annotations

import warnings
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ssmid._array import Array, double, on_host
from ssmid.analysis.evaluation import horner

Host: TypeAlias = Any
"""A NumPy array on the host, or a NumPy number."""

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
    return on_host(_roots, double(coefficients))


def root_condition(coefficients: Host, roots: Host) -> Host:
    """``(*batch,)`` the largest condition number of the roots, ``sum_k |c_k| |z|^k / (max(1, |z|) |p'(z)|)`` (Gautschi 1973).

    On NumPy arrays. Relative for roots outside the unit circle, absolute inside; roots at exactly zero are left out.
    """
    with np.errstate(all="ignore"):
        slope = np.abs(horner(derivative(coefficients), roots))
        magnitude = horner(np.abs(coefficients), np.abs(roots))
        condition = np.where(roots == 0, 1.0, magnitude / (np.maximum(1, np.abs(roots)) * slope))
    return np.max(condition, axis=-1, initial=1.0)


def derivative(coefficients: Host) -> Host:
    """Coefficients of the derivative, ``(*batch, n)``; one zero for a constant."""
    degree = coefficients.shape[-1] - 1
    return coefficients[..., :-1] * np.arange(degree, 0, -1) if degree else 0 * coefficients


def residues_of_product(zeros: Host, poles: Host, gain: Host) -> Host:
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
        return np.ldexp(np.real(mantissa), exponent) + 1j * np.ldexp(np.imag(mantissa), exponent)


def finite_roots(roots: Host, scale: float) -> tuple[Host, Host]:
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


def conjugate_pairs(roots: Host) -> tuple[Host, Host] | None:
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


def paired(roots: Host) -> tuple[Host, bool]:
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


# ---------------------------------------------------------------- on the host


def _neighbours(rows: Host) -> Host:
    """For each row, whether every complex number stands beside its exact conjugate, the upper one first."""
    upper, lower = rows.imag > 0, rows.imag < 0
    follows = np.zeros(rows.shape, bool)
    follows[:, 1:] = upper[:, :-1] & (rows[:, 1:] == rows[:, :-1].conj())
    return (np.sum(upper, -1) == np.sum(follows, -1)) & (lower == follows).all(-1)


def _roots(coefficients: Host) -> Host:
    """Roots of the rows of ``(*batch, n+1)``, rows with zeros at the same ends together."""
    batch, n = coefficients.shape[:-1], coefficients.shape[-1] - 1
    c = coefficients.reshape(prod(batch), n + 1)
    found = np.full((len(c), n), np.nan, complex)
    largest = np.max(np.abs(c), axis=-1, initial=0.0)
    sound = np.isfinite(largest) & (largest > 0)
    c = c / np.where(sound, largest, 1)[:, None]
    first, last = np.argmax(c != 0, axis=-1), n - np.argmax(c[:, ::-1] != 0, axis=-1)
    for start, stop in {(int(i), int(j)) for i, j in zip(first[sound], last[sound], strict=True)}:
        rows = np.flatnonzero(sound & (first == start) & (last == stop))
        core = c[rows, start : stop + 1]
        roots = _companion_roots(core)
        moved = _polished(core, roots)
        better = _product_error(core, moved) < _product_error(core, roots)
        found[rows, :start] = np.inf
        found[rows, start:stop] = np.where(better[:, None], moved, roots)
        found[rows, stop:] = 0
    return found.reshape(*batch, n)


def _companion_roots(c: Host) -> Host:
    rows, n = len(c), c.shape[-1] - 1
    if n == 0:
        return np.zeros((rows, 0), complex)
    companion = np.broadcast_to(np.eye(n, k=-1, dtype=c.dtype), (rows, n, n)).copy()
    with np.errstate(over="ignore"):
        companion[:, 0] = -c[:, 1:] / c[:, :1]
    beyond = ~np.isfinite(companion[:, 0]).all(-1)
    companion[beyond] = 0
    roots = np.linalg.eigvals(companion).astype(complex)
    if beyond.any():
        # the leading coefficient is beyond rounding of the others: the roots are the inverses of those of the reversed polynomial
        with np.errstate(all="ignore"):
            inverse = 1 / _companion_roots(c[beyond, ::-1])
        roots[beyond] = np.where(np.isfinite(inverse), inverse if np.iscomplexobj(c) else inverse.conj(), np.inf)
    return roots


def _polished(c: Host, z: Host) -> Host:
    """Two Aberth steps on the roots ``(rows, n)``, each kept where it lowers the residual."""
    upper, axis, n = z.imag > 0, z.imag == 0, z.shape[-1]
    with np.errstate(all="ignore"):
        for _ in range(2):
            newton, residual = _newton_step(c, z)
            gaps = z[:, :, None] - z[:, None, :]
            gaps[:, np.arange(n), np.arange(n)] = np.inf
            step = newton / (1 - newton * np.sum(1 / gaps, axis=-1))
            moved = np.where(np.isfinite(step), z - step, z)
            z = np.where(_newton_step(c, moved)[1] < residual, moved, z)
    if not np.iscomplexobj(c):
        # LAPACK lists conjugates as neighbours, the upper root first; the steps may have parted them by a rounding
        z = np.where(axis, z.real, z)
        rows, columns = np.nonzero(upper)
        z[rows, columns + 1] = z[rows, columns].conj()
    return z


def _product_error(c: Host, roots: Host) -> Host:
    with np.errstate(all="ignore"):
        error = np.max(np.abs(c[:, :1] * _expand(roots) - c), axis=-1)
    return np.where(np.isfinite(error), error, np.inf)


def _newton_step(c: Host, z: Host) -> tuple[Host, Host]:
    """``p / p'`` and ``|p|`` scaled by ``max(1, |z|)^n``; outside the unit circle through the reversed polynomial."""
    n = c.shape[-1] - 1
    inside = np.abs(z) <= 1
    w = np.where(inside, z, 1 / z)
    value = np.where(inside, horner(c, w), horner(c[:, ::-1], w))
    slope = np.where(inside, horner(derivative(c), w), horner(derivative(c[:, ::-1]), w))
    outside = value / (w * (n * value - w * slope))
    return np.where(inside, value / slope, outside), np.abs(value)


def _expand(roots: Host) -> Host:
    batch, n = roots.shape[:-1], roots.shape[-1]
    roots = roots.reshape(prod(batch), n)
    ordered = np.take_along_axis(roots, _leja_order(roots), -1)
    c = np.ones((len(roots), 1), complex)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(n):
            c = np.pad(c, ((0, 0), (0, 1))) - ordered[:, k, None] * np.pad(c, ((0, 0), (1, 0)))
    c = c.reshape(*batch, n + 1)
    return np.ascontiguousarray(np.real(c)) if _all_closed(roots) else c


def _all_closed(roots: Host) -> bool:
    """Whether each row of ``(elements, n)``, NaN aside, is closed under conjugation."""
    return paired(roots[np.isfinite(roots).all(-1)])[1]


def _leja_order(roots: Host) -> Host:
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


def _normalized(mantissa: Host, exponent: Host) -> tuple[Host, Host]:
    """``mantissa 2^exponent`` with the mantissa's larger part in [1/2, 1)."""
    shift = np.frexp(np.maximum(np.abs(mantissa.real), np.abs(mantissa.imag)))[1]
    return np.ldexp(mantissa.real, -shift) + 1j * np.ldexp(mantissa.imag, -shift), exponent + shift
