"""The l1 norm of state-space models: the largest output peak that any input of peak 1 can cause.

Discrete time: a sum of moduli, cut where the tail is bounded. Continuous time: the total variation of the step response, which is
known exactly at any grid; only the intervals where the impulse response may change its sign need a look inside.
The tail beyond any time is at most twice the sum of its Hankel singular values (Boyd & Doyle, Systems & Control Letters 9, 1987).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ssmid.analysis.lyapunov import schur_gramian_factors

_TAIL_DISCRETE = 1e-12
_TAIL_CONTINUOUS = 1e-10
_STEP = 0.1
_POINTS = 2048
_LARGEST_BLOCK = 2**21
_PIECES = 16


def l1_norm(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, *, discrete: bool) -> np.ndarray:
    """``max_i sum_j (|D_ij| + ||h_ij||_1)`` of one stable system of NumPy matrices; infinite if unstable, NaN for NaN.

    Discrete: to 1e-12 of itself. Continuous: about 1e-8, from steps of a tenth of the fastest mode still alive.
    """
    if not all(np.isfinite(M).all() for M in (A, B, C, D)):
        return np.array(np.nan)
    b, c = (np.abs(M).max(initial=0.0) or 1.0 for M in (B, C))
    R, L = schur_gramian_factors(A, B / b, C / c, discrete=discrete)
    if np.isnan(R).any():
        return np.array(np.inf)
    moduli = (_sum if discrete else _integral)(A, B / b, C / c, R, L) if len(A) else 0.0
    return np.array((np.abs(D) + moduli * b * c).sum(axis=1).max(initial=0.0))


def _sum(A: np.ndarray, B: np.ndarray, C: np.ndarray, R: np.ndarray, L: np.ndarray) -> np.ndarray:
    """``sum_t |C A^t B|``, by blocks of taps: the rows ``C A^t`` of a block are made once, by doubling."""
    n, p = len(A), C.shape[0]
    radius = np.abs(np.linalg.eigvals(A)).max()
    horizon = np.log(1e-14) / np.log(min(max(radius, 1e-300), 1 - 1e-15))
    doublings = int(np.clip(np.log2(max(1.0, min(horizon / 4, _LARGEST_BLOCK / (n * p)))), 0, 20))
    rows, jump = C[None], A
    for _ in range(doublings):
        rows, jump = np.concatenate([rows, rows @ jump]), jump @ jump
    total, X = np.zeros((p, B.shape[1])), np.hstack([B, R])
    m = B.shape[1]
    while True:
        total = total + np.abs(rows @ X[:, :m]).sum(axis=0)
        X = jump @ X
        if _tail(L, X[:, m:]) <= _TAIL_DISCRETE * total.sum(axis=1).max():
            return total


def _integral(A: np.ndarray, B: np.ndarray, C: np.ndarray, R: np.ndarray, L: np.ndarray) -> np.ndarray:
    """``int_0^inf |C exp(A t) B| dt``: the step between grid points follows the fastest mode that has not died out."""
    poles = np.linalg.eigvals(A)
    total, X, time, step, E = np.zeros((C.shape[0], B.shape[1])), np.hstack([B, R]), 0.0, 0.0, A
    m = B.shape[1]
    outputs = np.stack([np.linalg.solve(A.T, C.T).T, C, C @ A])
    while True:
        alive = poles.real * time > np.log(1e-16)
        wanted = _STEP / np.abs(poles[alive] if alive.any() else poles[np.argmax(poles.real)]).max()
        if wanted != step:
            step = wanted
            E = scipy.linalg.expm(A * step)
        points, jump = outputs[:, None], E
        while points.shape[1] < _POINTS:
            points, jump = np.concatenate([points, points @ jump], axis=1), jump @ jump
        samples = np.concatenate([points @ X[:, :m], outputs[:, None] @ (jump @ X[:, :m])], axis=1)
        total = total + (_modulus if np.iscomplexobj(samples) else _variation)(*samples, step)
        X = jump @ X
        time += step * points.shape[1]
        if _tail(L, X[:, m:]) <= _TAIL_CONTINUOUS * total.sum(axis=1).max():
            return total


def _variation(s: np.ndarray, h: np.ndarray, slope: np.ndarray, step: float) -> np.ndarray:
    """Total variation of the step response ``s`` given with ``h = s'`` and ``h'`` at points ``(k, p, m)``.

    Where ``h`` keeps its sign over an interval the difference of ``s`` is exact. Elsewhere ``h`` is Hermite's cubic.
    """
    exact, slope = np.abs(np.diff(s, axis=0)), slope * step
    turning = (h[:-1] * h[1:] <= 0) | ((h[:-1] * slope[:-1] < 0) & (h[1:] * slope[1:] > 0))
    k = np.nonzero(turning)
    left, right, a, b = h[:-1][k], h[1:][k], slope[:-1][k], slope[1:][k]
    cubic = np.stack([left, a, 3 * (right - left) - 2 * a - b, 2 * (left - right) + a + b])
    u = np.linspace(0, 1, _PIECES + 1)[:, None]
    value = ((cubic[3] * u + cubic[2]) * u + cubic[1]) * u + cubic[0]
    crossing = value[:-1] * value[1:] < 0
    root = u[:-1] + np.where(crossing, value[:-1] / np.where(crossing, value[:-1] - value[1:], 1), 0) / _PIECES

    def primitive(u: np.ndarray) -> np.ndarray:
        return (((cubic[3] / 4 * u + cubic[2] / 3) * u + cubic[1] / 2) * u + cubic[0]) * u

    exact[k] = (np.abs(primitive(root) - primitive(u[:-1])) + np.abs(primitive(u[1:]) - primitive(root))).sum(axis=0) * step
    return exact.sum(axis=0)


def _modulus(_: np.ndarray, h: np.ndarray, slope: np.ndarray, step: float) -> np.ndarray:
    """The integral of the modulus of a complex response: the trapezoidal rule with its first correction by the derivative."""
    modulus = np.abs(h)
    rate = np.real(np.conj(h) * slope) / np.where(modulus > 0, modulus, 1)
    return step * (modulus.sum(axis=0) - (modulus[0] + modulus[-1]) / 2) + step**2 / 12 * (rate[0] - rate[-1])


def _tail(L: np.ndarray, states: np.ndarray) -> float:
    return 2 * float(np.linalg.svd(L.conj().T @ states, compute_uv=False).sum())
