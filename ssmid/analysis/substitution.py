"""Substitutions for s and z in rational functions, and the mapping of their roots: the algebra of :mod:`discretization`.

``s = (z - 1) / (dt (alpha z + 1 - alpha))``: alpha 0 is Euler's forward difference, 1/2 Tustin's, 1 the backward difference.
"""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np

from ssmid._array import Array, astype_width, double, from_numpy, namespace, quiet, to_numpy, width
from ssmid.analysis.polynomial import finite_roots
from ssmid.linalg import principal_log
from ssmid.systems import TransferFunction, ZerosPolesGain

ALPHA = {"euler": 0.0, "tustin": 0.5, "backward_euler": 1.0}
ROUNDING = 16 * float(np.finfo(float).eps)
NO_LOG = "expected poles with a logarithm, got one at 0 or on the negative real axis: no continuous system gives it; try method='tustin'"




def reject(bad: Any, why: str, *arrays: Array) -> list[Array]:
    """``arrays`` with NaN where ``bad`` ``(*batch,)`` is True; a ValueError for a single system."""
    if not bad.any():
        return list(arrays)
    if bad.ndim == 0:
        raise ValueError(why)
    out = []
    for a in arrays:
        xp = namespace(a)
        core = a.ndim - bad.ndim if a.ndim > bad.ndim else 0
        mask = from_numpy(bad.reshape(*bad.shape, *(1,) * core), a)
        out.append(xp.where(mask, xp.full((), float("nan"), dtype=a.dtype, device=a.device), a))
    return out


def where_log_fails(poles: np.ndarray, real: bool) -> np.ndarray:
    """``(*batch,)`` whether a pole has no logarithm: at 0, or negative real in a real system."""
    negative = (np.abs(np.imag(poles)) <= ROUNDING * np.abs(poles)) & (np.real(poles) < 0) if real else np.zeros(poles.shape, bool)
    return np.any((np.abs(poles) <= ROUNDING) | negative, axis=-1)


def no_inverse(alpha: float) -> str:
    return f"expected no pole at {-(1 - alpha) / alpha if alpha else float('inf'):.3g}, which the substitution takes to infinity, got one"


def sent_away(scaled: float) -> str:
    return f"expected no pole at {1 / (scaled or 1):.6g}, which the substitution takes to infinity, got one"


@quiet
def phi1(x: Array) -> Array:
    """``(e^x - 1) / x``, 1 at zero."""
    xp = namespace(x)
    near = xp.abs(x) < 1e-150
    return xp.where(near, xp.ones_like(x), xp.expm1(x) / xp.where(near, xp.ones_like(x), x))


# ---------------------------------------------------------------- polynomials


def substitute_fraction(system: TransferFunction, alpha: float, step: float, dt: float) -> TransferFunction:
    """Continuous to discrete: each power ``s^k`` becomes ``(z - 1)^k (alpha z + 1 - alpha)^(n - k)``. Differentiable."""
    table = _product_table(system.order, [1.0, -1.0], [alpha, 1 - alpha])
    return _substituted(system, table, 1 / step, 1.0, dt, sent_away(alpha * step))


def restore_fraction(system: TransferFunction, alpha: float, step: float) -> TransferFunction:
    """Discrete to continuous: each ``z^k`` becomes ``(1 + (1 - alpha) x)^k (1 - alpha x)^(n - k)`` with ``x = s step``. Differentiable."""
    table = _product_table(system.order, [1 - alpha, 1.0], [-alpha, 1.0])
    return _substituted(system, table, 1.0, step, 0, no_inverse(alpha))


@quiet
def _substituted(system: TransferFunction, table: np.ndarray, before: float, after: float, dt: float, why: str) -> TransferFunction:
    """Numerator and denominator in a new variable: coefficients of ``x^k`` scaled by ``before^k``, ``after^k`` around the table."""
    n = system.order
    descending = np.arange(n, -1.0, -1.0)
    table = before ** descending[:, None] * table * after**descending
    xp = namespace(system.num)
    lacking = xp.zeros((*system.num.shape[:-1], n + 1 - system.num.shape[-1]), dtype=system.num.dtype, device=system.num.device)
    num, den = double(xp.concat([lacking, system.num], axis=-1)), double(system.den)
    num, den = ((c[..., None, :] @ xp.astype(from_numpy(table, c), c.dtype))[..., 0, :] for c in (num, den))
    size = np.abs(to_numpy(den)).max(-1)
    num, den = reject(np.abs(to_numpy(den[..., 0])) <= ROUNDING * size * after**n / max(after**n, 1), why, num, den)
    lead, bits = den[..., :1], width(system.num)
    return TransferFunction(astype_width(num / lead, bits), astype_width(den / lead, bits), dt)


def _product_table(n: int, first: list[float], second: list[float]) -> np.ndarray:
    """Rows for k = n .. 0: ``first^k second^(n - k)`` of two linear polynomials, descending."""

    def power(base: list[float], k: int) -> np.ndarray:
        return np.array([comb(k, j) * base[0] ** (k - j) * base[1] ** j for j in range(k + 1)])

    return np.stack([np.convolve(power(first, k), power(second, n - k)) for k in range(n, -1, -1)])


# ---------------------------------------------------------------- roots


@quiet
def map_roots(system: ZerosPolesGain, method: str, step: float, dt: float) -> ZerosPolesGain:
    """Continuous to discrete, root by root: a substitution, or "matched"."""
    z, p, k = (to_numpy(double(a)) for a in (system.zeros, system.poles, system.gain))
    lacking, poles = p.shape[-1] - z.shape[-1], np.exp(p * dt)
    if method in ALPHA:
        alpha = ALPHA[method]
        # s - r = (1 - alpha r dt) (z - r_d) / (dt (alpha z + 1 - alpha))
        wz, wp = 1 - alpha * step * z, 1 - alpha * step * p
        bad = (np.abs(wp) <= ROUNDING).any(-1)
        zeros, poles = (1 + (1 - alpha) * step * z) / wz, (1 + (1 - alpha) * step * p) / np.where(wp == 0, np.nan, wp)
        extra, at = (lacking, -(1 - alpha) / alpha) if alpha else (0, 0.0)
        gain = _product(k * (step * (alpha or 1)) ** lacking, wz, wp)
    else:
        # 1 - exp(r dt) = -r dt phi1(r dt): equal gains at dc, roots there included
        bad, zeros, extra, at = np.zeros(poles.shape[:-1], bool), np.exp(z * dt), max(0, lacking - 1), -1.0
        gain = _product(k * 0.5**extra, dt * phi1(p * dt), dt * phi1(z * dt))
    zeros = np.concatenate([zeros, np.full((*zeros.shape[:-1], extra), at)], axis=-1)
    return _factored(system, zeros, poles, gain, bad, sent_away(ALPHA.get(method, 0) * step), dt)


@quiet
def restore_roots(system: ZerosPolesGain, method: str, step: float, dt: float) -> ZerosPolesGain:
    """Discrete to continuous, the inverse of :func:`map_roots`."""
    z, p, k = (to_numpy(double(a)) for a in (system.zeros, system.poles, system.gain))
    lacking, alpha, why = p.shape[-1] - z.shape[-1], ALPHA.get(method, 0.0), NO_LOG
    if method in ALPHA:
        # z - r_d = w dt (s - r) / (1 - alpha s dt); a zero with w = 0 came from infinity and leaves 1 - r_d
        wz, wp = alpha * z + (1 - alpha), alpha * p + (1 - alpha)
        infinite, bad, why = np.abs(wz) <= ROUNDING, (np.abs(wp) <= ROUNDING).any(-1), no_inverse(alpha)
        zeros, poles = (z - 1) / (wz * step), (p - 1) / (wp * step)
        gain = _product(k * (-alpha * step if alpha else 1.0) ** lacking, np.where(infinite, 1 - z, wz * step), wp * step)
    else:
        infinite, real = np.abs(z + 1) <= ROUNDING, not np.iscomplexobj(k)
        bad = where_log_fails(p, real) | where_log_fails(np.where(infinite, 1.0, z), real)
        zeros, poles = principal_log(z) / dt, principal_log(p) / dt
        gain = _product(k, np.where(infinite, 2.0, dt * phi1(zeros * dt)), dt * phi1(poles * dt))
    zeros, share = finite_roots(np.where(infinite, np.inf, zeros), float(np.max(np.abs(poles), initial=1 / dt, where=np.isfinite(poles))))
    zeros = np.concatenate([zeros, np.full((*zeros.shape[:-1], lacking if alpha else 0), 1 / (alpha * step or 1))], axis=-1)
    return _factored(system, zeros, poles, gain * share, bad, why, 0)


def _product(gain: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """``gain prod(above) / prod(below)``, factor over factor so that neither product overflows; real where ``gain`` is."""
    common = min(above.shape[-1], below.shape[-1])
    ratio = np.prod(above[..., :common] / below[..., :common], axis=-1)
    ratio = ratio * np.prod(above[..., common:], axis=-1) / np.prod(below[..., common:], axis=-1)
    return gain * (ratio if np.iscomplexobj(gain) else ratio.real)


def _factored(system: ZerosPolesGain, z: np.ndarray, p: np.ndarray, k: np.ndarray, bad: Any, why: str, dt: float) -> ZerosPolesGain:
    arrays = [astype_width(from_numpy(np.asarray(a), system.poles), width(system.poles)) for a in (z, p, k)]
    z, p, k = arrays[0], *reject(np.broadcast_to(bad, system.batch_shape), why, *arrays[1:])
    return ZerosPolesGain(z, p, k, dt)
