"""Continuous time to discrete time and back, by hold, substitution or matching of the impulse response or of the roots.

With ``phi1(x) = (e^x - 1) / x`` and ``phi2(x) = (phi1(x) - 1) / x`` (Higham, Functions of Matrices, 2008, sec. 10.7.4) and
``X = A dt``, a continuous ``(A, B, C, D)`` becomes

    zoh      e^X, dt phi1(X) B,    C, D
    foh      e^X, dt phi1(X)^2 B,  C, D + dt C phi2(X) B        (inputs linear between samples; Franklin, Powell, Workman 1998)
    impulse  e^X, dt e^X B,        C, D + dt C B                (taps are dt times samples of the response, as in scipy)

and by the substitution ``s = (z - 1) / (dt (alpha z + 1 - alpha))``, with ``W = (I - alpha X)^-1``,

    euler (alpha 0), tustin (1/2), backward_euler (1)    W (I + (1 - alpha) X), dt W B, C W, D + alpha dt C W B.

Each is undone in the same terms: ``X = log(A_d)``, or ``W = alpha A_d + (1 - alpha) I``.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import singledispatch
from math import factorial, isfinite, pi, tan
from typing import Any, Literal

import numpy as np
import scipy.linalg

from ssmid._array import Array, as_complex, astype_width, batched_on_host, double, is_complex, namespace, quiet, same_field, to_numpy, width
from ssmid.analysis.conversion import to_state_space, to_transfer_function, to_zpk
from ssmid.analysis.state_units import uneven_scales
from ssmid.analysis.substitution import (
    ALPHA,
    NO_LOG,
    ROUNDING,
    map_roots,
    no_inverse,
    phi1,
    reject,
    restore_fraction,
    restore_roots,
    sent_away,
    substitute_fraction,
    where_log_fails,
)
from ssmid.linalg import principal_log, solve, transpose
from ssmid.systems import ConversionWarning, Modal, SecondOrderSections, StateSpace, System, TransferFunction, ZerosPolesGain
from ssmid.systems.base import not_a_system, sample_time

Method = Literal["zoh", "foh", "tustin", "impulse", "euler", "backward_euler", "matched"]
_METHODS = ("zoh", "foh", "tustin", "impulse", "euler", "backward_euler", "matched")


def c2d(system: System, dt: float, method: Method = "zoh", *, prewarp: float | None = None) -> Any:
    """The discrete-time system with step ``dt`` of a continuous one, in the same representation. :func:`d2c` undoes it.

    ``"zoh"``, ``"foh"``: exact for inputs constant, or linear, between samples. ``"tustin"``: bilinear, exact at ``prewarp`` rad/s
    where that is given. ``"impulse"``: ``h_d[t] = dt h(t dt)``, tap 0 with all of ``dt h(0+)``, as in scipy, and D beside it.
    ``"euler"``, ``"backward_euler"``: differences. ``"matched"``: roots by ``exp(s dt)``, zeros at infinity but one to -1, equal
    dc gain (or leading behaviour at dc), as in MATLAB.

    Takes StateSpace (not by "matched"), Modal ("matched" neither), TransferFunction and ZerosPolesGain. The substitutions are
    differentiable, and all methods on Modal are. Raises ValueError for systems that are discrete already, and where a
    substitution has a pole at the point that it sends to infinity.

    >>> import numpy as np
    >>> c2d(Modal(np.array([-1.0]), np.array([1.0]), dt=0), np.log(2), "zoh").poles.real
    array([0.5])
    """
    _check(system, method)
    if system.is_discrete:
        raise ValueError(f"expected a continuous-time system (dt=0), got dt={system.dt}")
    if isinstance(dt, bool) or not isinstance(dt, (int, float, np.number)) or not isfinite(dt) or dt <= 0:
        raise ValueError(f"dt: expected a positive sample time in seconds, got {dt!r}")
    return quiet(_discrete)(system, method, _step(float(dt), method, prewarp), float(dt))


def d2c(system: System, method: Method = "zoh", *, prewarp: float | None = None) -> Any:
    """The continuous-time system of which :func:`c2d` by the same method gives ``system``; the principal logarithm for poles.

    Second-order sections come back as zeros, poles and gain. In a batch, elements that have no such system give NaN; a single one
    raises ValueError: a logarithm (zoh, foh, impulse, matched) of a pole at 0, or of a real system's pole on the negative real
    axis, or of a matrix whose powers overflow; Tustin of a pole at -1; backward Euler of a pole at 0. Emits
    :class:`ConversionWarning` where the exponential of a logarithm is off by more than 1e-6.

    >>> import numpy as np
    >>> d2c(c2d(Modal(np.array([-1.0]), np.array([1.0]), dt=0), 0.5)).poles.real
    array([-1.])
    """
    _check(system, method)
    dt = sample_time(system)
    if isinstance(system, SecondOrderSections):
        system = to_zpk(system)
    return quiet(_continuous)(system, method, _step(dt, method, prewarp), dt)


def _check(system: System, method: str) -> None:
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {method!r}")
    if not isinstance(system, (StateSpace, Modal, TransferFunction, ZerosPolesGain, SecondOrderSections)):
        raise not_a_system(system, "StateSpace, Modal, TransferFunction, ZerosPolesGain, SecondOrderSections")
    if method == "matched" and isinstance(system, (StateSpace, Modal)):
        raise ValueError(f'"matched" maps zeros and poles: expected a ZerosPolesGain or TransferFunction, got {type(system).__name__}')


def _step(dt: float, method: str, prewarp: float | None) -> float:
    """The step that the substitution works with: for a pre-warped Tustin ``2 tan(w dt / 2) / w``."""
    if prewarp is None:
        return dt
    if method != "tustin" or not 0 < prewarp * dt < pi:
        raise ValueError(f'prewarp: expected method="tustin" and a frequency from 0 to pi / dt = {pi / dt:.6g}, got {method} and {prewarp}')
    return 2 * tan(prewarp * dt / 2) / prewarp


def phi2(x: Array) -> Array:
    """``(e^x - 1 - x) / x^2``, by its series where that cancels."""
    xp = namespace(x)
    near = xp.abs(x) < 1
    small = xp.where(near, x, xp.zeros_like(x))
    series = xp.zeros_like(x)
    for k in range(20, 1, -1):
        series = series * small + 1 / factorial(k)
    large = xp.where(near, xp.ones_like(x), x)
    return xp.where(near, series, (xp.expm1(large) - large) / large**2)


# ---------------------------------------------------------------- modal


@singledispatch
def _discrete(system: Any, method: str, step: float, dt: float) -> System:
    raise not_a_system(system, "StateSpace, Modal, TransferFunction, ZerosPolesGain, SecondOrderSections")


@singledispatch
def _continuous(system: Any, method: str, step: float, dt: float) -> System:
    raise not_a_system(system, "StateSpace, Modal, TransferFunction, ZerosPolesGain, SecondOrderSections")


@_discrete.register
def _(system: Modal, method: str, step: float, dt: float) -> Modal:
    xp = namespace(system.poles)
    x, residues = double(system.poles) * step, double(system.residues) * step
    if method in ALPHA:
        alpha = ALPHA[method]
        (x,) = reject((np.abs(1 - alpha * to_numpy(x)) <= ROUNDING).any(-1), sent_away(alpha * step), x)
        w = 1 / (1 - alpha * x)
        return _modal(system, w * (1 + (1 - alpha) * x), residues * w**2, alpha * w * residues, dt)
    poles = xp.exp(x)
    if method == "zoh":
        return _modal(system, poles, residues * phi1(x), None, dt)
    if method == "foh":
        return _modal(system, poles, residues * phi1(x) ** 2, residues * phi2(x), dt)
    return _modal(system, poles, residues * poles, residues, dt)


@_continuous.register
def _(system: Modal, method: str, step: float, dt: float) -> Modal:
    poles, residues = double(system.poles), double(system.residues)
    if method in ALPHA:
        alpha = ALPHA[method]
        w = alpha * poles + (1 - alpha)
        poles, w = reject((np.abs(to_numpy(w)) <= ROUNDING).any(-1), no_inverse(alpha), poles, w)
        return _modal(system, (poles - 1) / (w * step), residues / (step * w**2), -alpha * residues / w, 0)
    (poles,) = reject(where_log_fails(to_numpy(poles), system.real), NO_LOG, poles)
    x = principal_log(poles)
    if method == "zoh":
        return _modal(system, x / dt, residues / (dt * phi1(x)), None, 0)
    if method == "foh":
        residues = residues / (dt * phi1(x) ** 2)
        return _modal(system, x / dt, residues, -dt * residues * phi2(x), 0)
    return _modal(system, x / dt, residues / (dt * poles), -residues / poles, 0)


def _modal(system: Modal, poles: Array, residues: Array, through: Array | None, dt: float) -> Modal:
    """A bank with these poles and residues, and with the sum of ``through`` added to the feedthrough."""
    xp = namespace(poles)
    feedthrough = double(system.feedthrough)
    if through is not None:
        added = xp.sum(through, axis=-1)
        added = xp.real(added) if system.real else added
        if is_complex(added) != is_complex(feedthrough):
            added, feedthrough = as_complex(added), as_complex(feedthrough)
        feedthrough = feedthrough + added
    bits = width(system.poles)
    return Modal(*(astype_width(a, bits) for a in (poles, residues, feedthrough)), dt=dt, real=system.real)


# ---------------------------------------------------------------- state space


@_discrete.register
def _(system: StateSpace, method: str, step: float, dt: float) -> StateSpace:
    A, B, C, D, units = _in_like_units(system)
    xp = namespace(A)
    if method in ALPHA:
        alpha = ALPHA[method]
        eye = xp.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        M = eye - alpha * step * A
        (M,) = reject(_singular(M), sent_away(alpha * step), M)
        later = step * solve(M, B)
        return _state_space(system, units, solve(M, eye + (1 - alpha) * step * A), later, _right_solve(C, M), D + alpha * C @ later, dt)
    E, first, second = batched_on_host(_exponentials, A * dt)
    if method == "zoh":
        return _state_space(system, units, E, dt * (first @ B), C, D, dt)
    if method == "foh":
        return _state_space(system, units, E, dt * (first @ (first @ B)), C, D + dt * (C @ (second @ B)), dt)
    return _state_space(system, units, E, dt * (E @ B), C, D + dt * (C @ B), dt)


@_continuous.register
def _(system: StateSpace, method: str, step: float, dt: float) -> StateSpace:
    A, B, C, D, units = _in_like_units(system)
    xp = namespace(A)
    if method in ALPHA:
        alpha = ALPHA[method]
        eye = xp.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        W = alpha * A + (1 - alpha) * eye
        (W,) = reject(_singular(W), no_inverse(alpha), W)
        C = _right_solve(C, W)
        return _state_space(system, units, solve(W, A - eye) / step, solve(W, B) / step, C, D - alpha * (C @ B), 0)
    eigenvalues = np.linalg.eigvals(np.where(np.isfinite(to_numpy(A)), to_numpy(A), 0.5))
    (A,) = reject(where_log_fails(eigenvalues, not is_complex(A)), NO_LOG, A)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)  # from an error of 1e-13 on
        X = batched_on_host(_logarithm, A)
    lost = ~np.isfinite(to_numpy(X)).all((-2, -1)) & np.isfinite(to_numpy(A)).all((-2, -1))
    (X,) = reject(lost, "expected poles whose logarithm can be computed, got a matrix too far from a normal one; try method='tustin'", X)
    E, first, second = batched_on_host(_exponentials, X)
    _warn_of_logarithm(to_numpy(A), to_numpy(E))
    if method == "impulse":
        B = solve(A, B) / dt
        return _state_space(system, units, X / dt, B, C, D - dt * (C @ B), 0)
    B = solve(first, B) / dt
    if method == "foh":
        B = solve(first, B)
        D = D - dt * (C @ (second @ B))
    return _state_space(system, units, X / dt, B, C, D, 0)


def _in_like_units(system: StateSpace) -> tuple[Array, Array, Array, Array, Array]:
    """The matrices for states scaled by ``units`` ``(*batch, n, 1)``, without which exponentials of uneven states lose the small ones."""
    A, B, C, D = same_field(*(double(M) for M in (system.A, system.B, system.C, system.D)))
    units = uneven_scales(A, B, C, least=float(system.is_discrete))[..., None]
    return A * transpose(units) / units, B / units, C * transpose(units), D, units


def _state_space(system: StateSpace, units: Array, A: Array, B: Array, C: Array, D: Array, dt: float) -> StateSpace:
    A, B, C = A * units / transpose(units), B * units, C / transpose(units)
    return StateSpace(*(astype_width(M, width(system.A)) for M in (A, B, C, D)), dt=dt)


def _right_solve(C: Array, M: Array) -> Array:
    """``C M^-1``."""
    return transpose(solve(transpose(M), transpose(C)))


@quiet
def _exponentials(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``e^X, phi1(X), phi2(X)`` as the first row of the exponential of one block matrix (Van Loan, IEEE TAC 23, 1978)."""
    n = len(X)
    if n == 0 or not np.isfinite(X).all():
        return X, X, X
    block = np.zeros((3 * n, 3 * n), X.dtype)
    block[:n, :n] = X
    block[: 2 * n, n:] += np.eye(2 * n)
    row = scipy.linalg.expm(block)[:n]
    return row[:, :n], row[:, n : 2 * n], row[:, 2 * n :]


def _warn_of_logarithm(A: np.ndarray, E: np.ndarray) -> None:
    """A :class:`ConversionWarning` where ``E``, the exponential of the logarithm, is off ``A`` by more than 1e-6."""
    size, difference = (np.abs(M).sum(-2).max(-1, initial=0.0) for M in (A, E - A))
    lossy = np.isfinite(size) & (difference > 1e-6 * size)
    if lossy.any():
        worst = np.max((difference / np.where(size > 0, size, 1))[lossy])
        which = f"{int(lossy.sum())} of {lossy.size} elements" if lossy.ndim else "the system"
        why = "poles whose logarithms are ill-conditioned; ssmid.to_modal(system) takes them one by one, and method='tustin' needs none"
        warnings.warn(f"d2c: {which} off by up to {worst:.1e}: {why}", ConversionWarning, stacklevel=6)


@quiet
def _logarithm(A: np.ndarray) -> np.ndarray:
    """The principal logarithm by inverse scaling and squaring; the kind of ``A``."""
    if len(A) == 0 or not np.isfinite(A).all():
        return A
    try:
        X = np.asarray(scipy.linalg.logm(A))
    except (ValueError, np.linalg.LinAlgError):  # powers of a logarithm that overflow
        return np.full_like(A, np.nan)
    return X if np.iscomplexobj(A) else np.real(X)


def _singular(M: Array) -> np.ndarray:
    """``(*batch,)`` whether an eigenvalue is zero to rounding."""
    host = to_numpy(M)
    size = np.abs(host).max((-2, -1), initial=0)
    sound = np.isfinite(size)
    eigenvalues = np.linalg.eigvals(np.where(sound[..., None, None], host, np.eye(host.shape[-1])))
    return np.any(np.abs(eigenvalues) <= ROUNDING * np.minimum(1, size)[..., None], axis=-1)


# ---------------------------------------------------------------- polynomials and roots


@_discrete.register(TransferFunction)
@_discrete.register(ZerosPolesGain)
def _(system: TransferFunction | ZerosPolesGain, method: str, step: float, dt: float) -> System:
    """By substitution as they stand; by a hold through the state space, with the poles mapped one by one where they are known."""
    if isinstance(system, TransferFunction):
        if method in ALPHA:
            return substitute_fraction(system, ALPHA[method], step, dt)
        hub = to_zpk(system) if method == "matched" else to_state_space(system)
        return to_transfer_function(_discrete(hub, method, step, dt))
    if method in ALPHA or method == "matched":
        return map_roots(system, method, step, dt)
    poles = namespace(system.poles).exp(double(system.poles) * dt)
    result = to_zpk(_discrete(to_state_space(system), method, step, dt))
    return replace(result, poles=astype_width(poles, width(system.poles)))


@_continuous.register(TransferFunction)
@_continuous.register(ZerosPolesGain)
def _(system: TransferFunction | ZerosPolesGain, method: str, step: float, dt: float) -> System:
    if isinstance(system, TransferFunction):
        if method in ALPHA:
            return restore_fraction(system, ALPHA[method], step)
        hub = to_zpk(system) if method == "matched" else to_state_space(system)
        return to_transfer_function(_continuous(hub, method, step, dt))
    if method in ALPHA or method == "matched":
        return restore_roots(system, method, step, dt)
    (poles,) = reject(where_log_fails(to_numpy(system.poles), not is_complex(system.gain)), NO_LOG, double(system.poles))
    result = to_zpk(_continuous(to_state_space(system), method, step, dt))
    return replace(result, poles=astype_width(principal_log(poles) / dt, width(system.poles)))
