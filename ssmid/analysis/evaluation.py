"""Transfer functions and their derivatives at any complex points, for each form in the arithmetic that suits it."""

from __future__ import annotations

from functools import singledispatch
from math import isqrt, prod

import numpy as np
import scipy.linalg

from ssmid._array import Array, as_complex, batched_on_host, double, namespace, needs_gradient, on_gpu, quiet
from ssmid.analysis.sparse_pencil import Pencil
from ssmid.analysis.state_units import like_units
from ssmid.linalg import cauchy_product, powers, solve, transpose
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

_CHUNK_BYTES = 2**27
_BLOCK = 32
_FEW_POINTS = 16


@singledispatch
def evaluate(system: System, points: Array, derivative: int = 0) -> Array:
    """``H`` at complex ``points`` ``(k,)`` or ``(*batch, k)`` of z (discrete time) or s: ``(*batch, k)``, in double precision.

    ``derivative=1`` gives ``H'`` instead. A state space of several inputs or outputs gives ``(*batch, p, m, k)``.
    A point on a pole gives infinity or NaN. Factored forms are evaluated as products; no polynomial is formed. Differentiable.
    """
    raise not_a_system(system)


@evaluate.register
def _(system: FrequencyResponse, points: Array, derivative: int = 0) -> Array:
    raise ValueError("a FrequencyResponse has values at its own frequencies only: fit a model to it first (ssmid.identification)")


@evaluate.register
@quiet
def _(system: Modal, points: Array, derivative: int = 0) -> Array:
    """The real part in time is half the sum over the poles and half that over their conjugates."""
    xp = namespace(system.poles)
    points, poles, residues = double(as_complex(points)), double(system.poles), double(system.residues)
    sums = _cauchy_square if derivative else cauchy_product
    values = sums(points, poles, residues)
    if system.real:
        values = (values + xp.conj(sums(xp.conj(points), poles, residues))) / 2
    if derivative:
        return -values
    return values + as_complex(double(system.feedthrough))[..., None]


def _cauchy_square(points: Array, poles: Array, residues: Array) -> Array:
    """``sum_i residues_i / (points_k - poles_i)^2``, in chunks of points."""
    xp = namespace(poles, residues, points)
    batch = np.broadcast_shapes(points.shape[:-1], poles.shape[:-1], residues.shape[:-1])
    chunk = max(1, _CHUNK_BYTES // (16 * max(1, poles.shape[-1] * prod(batch))))
    parts = []
    for start in range(0, points.shape[-1], chunk):
        x = points[..., start : min(start + chunk, points.shape[-1]), None]
        parts.append(xp.sum(residues[..., None, :] / (x - poles[..., None, :]) ** 2, axis=-1))
    return xp.concat(parts, axis=-1)


@evaluate.register
@quiet
def _(system: Barycentric, points: Array, derivative: int = 0) -> Array:
    """Quotient of two sums, the derivative by proposition 11 of Schneider & Werner (Math. Comp. 47, 1986); limits at support points."""
    xp = namespace(system.support)
    z, f, w = (double(a) for a in system.with_conjugates())
    points = double(as_complex(points))
    batch = np.broadcast_shapes(points.shape[:-1], system.batch_shape)
    chunk = max(1, _CHUNK_BYTES // (16 * max(1, z.shape[-1] * prod(batch))))
    parts = []
    for start in range(0, points.shape[-1], chunk):
        x = points[..., start : min(start + chunk, points.shape[-1]), None]
        difference = x - z[..., None, :]
        hit = difference == 0
        at = xp.any(hit & (w[..., None, :] != 0), axis=-1)
        terms = xp.where(hit, xp.zeros_like(difference), w[..., None, :] / xp.where(hit, xp.ones_like(difference), difference))
        value = xp.sum(terms * f[..., None, :], axis=-1) / xp.sum(terms, axis=-1)
        chosen = xp.astype(hit & (w[..., None, :] != 0), terms.dtype)
        value = xp.where(at, xp.sum(chosen * f[..., None, :], axis=-1), value)
        if derivative:
            safe = xp.where(hit, xp.ones_like(difference), difference)
            rises = terms * (value[..., None] - f[..., None, :])
            limit = -xp.sum(rises, axis=-1) / xp.sum(chosen * w[..., None, :], axis=-1)
            value = xp.where(at, limit, xp.sum(rises / safe, axis=-1) / xp.sum(terms, axis=-1))
        parts.append(value)
    return xp.concat(parts, axis=-1)


# ---------------------------------------------------------------- polynomials and products


@evaluate.register
def _(system: TransferFunction, points: Array, derivative: int = 0) -> Array:
    num, den, points = (double(as_complex(c)) for c in (system.num, system.den, points))
    if not derivative:
        return ratio(num, den, points)
    return ratio(num, den, points) * log_derivative(system, points)


@quiet
def ratio(num: Array, den: Array, points: Array) -> Array:
    """``num(x) / den(x)`` by Horner's rule, in x where ``|x| <= 1`` and in 1/x elsewhere, so that nothing overflows."""
    xp = namespace(num, den, points)
    outside = xp.abs(points) > 1
    inverse = 1 / xp.where(outside, points, xp.ones_like(points))
    lower = inverse ** (den.shape[-1] - num.shape[-1])
    inner = xp.where(outside, xp.zeros_like(points), points)
    far, near = horner(xp.flip(den, axis=-1), inverse), horner(den, inner)
    # a root of the denominator at the stand-in of the branch not taken would warn, and spoil the gradient
    far, near = xp.where(outside, far, xp.ones_like(far)), xp.where(outside, xp.ones_like(near), near)
    return xp.where(outside, lower * horner(xp.flip(num, axis=-1), inverse) / far, horner(num, inner) / near)


def horner(coefficients: Array, points: Array) -> Array:
    """The polynomial with ``coefficients`` ``(*batch, n)``, descending, at ``points``."""
    value = coefficients[..., :1] + namespace(points).zeros_like(points)
    for i in range(1, coefficients.shape[-1]):
        value = value * points + coefficients[..., i : i + 1]
    return value


@evaluate.register
@quiet
def _(system: ZerosPolesGain, points: Array, derivative: int = 0) -> Array:
    points, zeros, poles, gain = (double(as_complex(a)) for a in (points, system.zeros, system.poles, system.gain))
    value = namespace(points).ones_like(points)
    for i in range(poles.shape[-1]):
        factor = points - zeros[..., i : i + 1] if i < zeros.shape[-1] else 1
        value = value * (factor / (points - poles[..., i : i + 1]))
    value = gain[..., None] * value
    return value * log_derivative(system, points) if derivative else value


@evaluate.register
def _(system: SecondOrderSections, points: Array, derivative: int = 0) -> Array:
    points, sections = double(as_complex(points)), double(as_complex(system.sections))
    value = namespace(points).ones_like(points)
    for i in range(sections.shape[-2]):
        value = value * ratio(sections[..., i, :3], sections[..., i, 3:], points)
    return value * log_derivative(system, points) if derivative else value


@quiet
def log_derivative(system: System, points: Array) -> Array:
    """``H'(x) / H(x)``, term by term where the system is a product."""
    points = double(as_complex(points))
    if isinstance(system, ZerosPolesGain):
        xp = namespace(points)
        zeros, poles = double(system.zeros), double(system.poles)
        return cauchy_product(points, zeros, xp.ones_like(zeros)) - cauchy_product(points, poles, xp.ones_like(poles))
    if isinstance(system, SecondOrderSections):
        sections = double(as_complex(system.sections))
        rows = [_log_slope(sections[..., i, :3], points) - _log_slope(sections[..., i, 3:], points) for i in range(sections.shape[-2])]
        return sum(rows[1:], rows[0])
    if isinstance(system, TransferFunction):
        return _log_slope(double(as_complex(system.num)), points) - _log_slope(double(as_complex(system.den)), points)
    return evaluate(system, points, 1) / evaluate(system, points)


def _log_slope(coefficients: Array, points: Array) -> Array:
    """``c'(x) / c(x)`` of a polynomial with descending coefficients."""
    xp = namespace(coefficients, points)
    degree = coefficients.shape[-1] - 1
    if degree == 0:
        return xp.zeros_like(points)
    ramp = xp.asarray(np.arange(degree, 0, -1), dtype=xp.float64, device=coefficients.device)
    return ratio(coefficients[..., :degree] * xp.astype(ramp, coefficients.dtype), coefficients, points)


@evaluate.register
def _(system: ImpulseResponse, points: Array, derivative: int = 0) -> Array:
    """``sum_t taps_t x^-t`` with two-level powers: about sqrt(L) rows of K powers each, as one matrix product."""
    xp = namespace(system.taps)
    taps, inverse = double(as_complex(system.taps)), 1 / double(as_complex(points))
    if derivative:
        ramp = xp.astype(xp.asarray(np.arange(float(taps.shape[-1])), device=taps.device), taps.dtype)
        taps = -ramp * taps
    inner = isqrt(taps.shape[-1] - 1) + 1
    outer = -(-taps.shape[-1] // inner)
    padding = xp.zeros((*taps.shape[:-1], inner * outer - taps.shape[-1]), dtype=taps.dtype, device=taps.device)
    table = xp.reshape(xp.concat([taps, padding], axis=-1), (*taps.shape[:-1], outer, inner))
    chunk = max(1, _CHUNK_BYTES // (32 * inner * max(1, prod(np.broadcast_shapes(taps.shape[:-1], points.shape[:-1])))))
    parts = []
    for start in range(0, points.shape[-1], chunk):
        x = inverse[..., start : min(start + chunk, points.shape[-1])]
        fine = powers(x, inner)
        coarse = powers(fine[..., -1] * x, outer)
        parts.append(xp.sum((table @ transpose(fine)) * transpose(coarse), axis=-2) * (x if derivative else 1))
    return xp.concat(parts, axis=-1)


# ---------------------------------------------------------------- state space


@evaluate.register
def _(system: StateSpace, points: Array, derivative: int = 0) -> Array:
    """``C (x I - A)^-1 B + D``; the derivative is ``-C (x I - A)^-2 B``."""
    A, B, C, D, points = (double(M) for M in (system.A, system.B, system.C, system.D, as_complex(points)))
    if on_gpu(A) or needs_gradient(A, B, C, points):
        values = _resolvent(A, B, C, points, 1 + derivative)
    else:
        values = batched_on_host(lambda a, b, c, x: _resolvent_on_host(a, b, c, x, 1 + derivative), A, B, C, points[..., None, :])
    values = -values if derivative else values + as_complex(D)[..., None]
    return values[..., 0, 0, :] if system.outputs == system.inputs == 1 else values


def _resolvent(A: Array, B: Array, C: Array, points: Array, power: int) -> Array:
    """``C (x I - A)^-power B`` as ``(*batch, p, m, k)`` by one batched solve for a chunk of points."""
    xp = namespace(A)
    A, B, C = as_complex(A), as_complex(B), as_complex(C)
    eye = xp.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2], points.shape[:-1])
    chunk = max(1, _CHUNK_BYTES // (16 * max(1, A.shape[-1] ** 2 * prod(batch))))
    parts = []
    for start in range(0, points.shape[-1], chunk):
        x = points[..., start : min(start + chunk, points.shape[-1])]
        shifted = x[..., None, None] * eye - A[..., None, :, :]
        state = B[..., None, :, :]
        for _ in range(power):
            state = solve(shifted, xp.broadcast_to(state, (*np.broadcast_shapes(shifted.shape[:-2], state.shape[:-2]), *state.shape[-2:])))
        parts.append(xp.moveaxis(C[..., None, :, :] @ state, -3, -1))
    return xp.concat(parts, axis=-1)


@quiet
def _resolvent_on_host(A: np.ndarray, B: np.ndarray, C: np.ndarray, points: np.ndarray, power: int) -> np.ndarray:
    """One system at many points: balance, reduce once to Schur form, then back substitution for all points together.

    The reduction is unitary (Laub, IEEE Trans. Automat. Control 26, 1981, uses the Hessenberg form), so the values are those
    of a system within rounding of the given one, whatever the condition of its eigenvectors.
    """
    points = points[0]
    n, m, k = len(A), B.shape[-1], points.shape[-1]
    if not all(np.isfinite(M).all() for M in (A, B, C)):
        return np.full((len(C), m, k), np.nan, complex)
    if n == 0:
        return np.zeros((len(C), m, k), complex)
    reach = np.abs(points)
    scale = like_units(A, B, C, least=float(min(reach[(reach > 0) & (reach < np.inf)], default=0.0)))
    A, B, C = A * scale / scale[:, None], B / scale[:, None], C * scale
    state = np.broadcast_to(B[:, :, None], (n, m, k)).astype(complex)
    if k < _FEW_POINTS:
        shifted = points[:, None, None] * np.eye(n) - A
        for _ in range(power):
            state = np.moveaxis(np.asarray(solve(shifted, np.moveaxis(state, -1, 0))), 0, -1)
        return np.einsum("pn,nmk->pmk", C, state, optimize=True)
    T, Z = scipy.linalg.schur(A.astype(complex), check_finite=False)[:2]
    state = np.broadcast_to((Z.conj().T @ B)[:, :, None], (n, m, k)).astype(complex)
    for _ in range(power):
        state = _back_substitution(T, state, points)
    return ((C @ Z) @ state.reshape(n, m * k)).reshape(len(C), m, k)


def _back_substitution(T: np.ndarray, right: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``X[:, :, k]`` with ``(points_k I - T) X = right`` for upper triangular ``T``, in blocks of rows."""
    n, m, k = right.shape
    state = right.copy()
    flat = state.reshape(n, m * k)
    for stop in range(n, 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        if stop < n:
            flat[start:stop] += T[start:stop, stop:] @ flat[stop:]
        for i in range(stop - 1, start - 1, -1):
            if i + 1 < stop:
                flat[i] += T[i, i + 1 : stop] @ flat[i + 1 : stop]
            state[i] /= points - T[i, i]
    return state


# ---------------------------------------------------------------- sparse state space


@evaluate.register
def _(system: SparseStateSpace, points: Array, derivative: int = 0) -> Array:
    """``C (x E - A)^-1 B + D`` by one sparse LU decomposition a point; the derivative is ``-C (x E - A)^-1 E (x E - A)^-1 B``."""
    pencil, B, C = Pencil(system.A, system.E), double(system.B), double(system.C)
    points = double(as_complex(points))
    values = np.full((system.outputs, system.inputs, points.shape[-1]), np.nan, complex)
    for k, point in enumerate(points):
        try:
            factored = pencil.factored(complex(point))
        except ValueError:
            continue  # on a pole: NaN
        state = factored.solve(B)
        if derivative:
            state = -factored.solve(pencil.apply_mass(state))
        values[:, :, k] = C @ state
    values = values if derivative else values + double(system.D)[..., None]
    return values[0, 0] if system.outputs == system.inputs == 1 else values
