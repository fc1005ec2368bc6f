"""The l1 norm of state-space models: the largest output peak that any input of peak 1 can cause.

Discrete time: a sum of moduli, cut where the tail is bounded. Continuous time: the total variation of the step response, which is
known exactly at any grid; only the intervals where the impulse response may change its sign need a look inside.
The tail beyond any time is at most twice the sum of its Hankel singular values (Boyd & Doyle, Systems & Control Letters 9, 1987).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ssmid.analysis.lyapunov import balanced_cut

_TAIL_DISCRETE = 1e-12
_TAIL_CONTINUOUS = 1e-10
_STEP = 0.1
_DOUBLINGS = 10
_LARGEST_BLOCK = 2**21
_PIECES = 16


def l1_norm(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, *, discrete: bool) -> np.ndarray:
    """``max_i sum_j (|D_ij| + ||h_ij||_1)`` of one stable system of NumPy matrices; infinite if unstable, NaN for NaN.

    Discrete: to 1e-12 of itself. Continuous: about 1e-8, from steps of a tenth of the fastest mode still alive.
    """
    if not all(np.isfinite(M).all() for M in (A, B, C, D)):
        return np.array(np.nan)
    poles = np.linalg.eigvals(A) if len(A) else np.zeros(0)
    if _unstable(poles, discrete=discrete):
        return np.array(np.inf)
    b, c = (np.abs(M).max(initial=0.0) or 1.0 for M in (B, C))
    relative = _TAIL_DISCRETE if discrete else _TAIL_CONTINUOUS
    # the Hankel values of what is cut are at most its H-infinity norm, so that its l1 norm is at most 2 * 2 n times that
    try:
        A, B, C, sigma = balanced_cut(A, B / b, C / c, discrete=discrete, negligible=relative / max(1, 8 * len(A)))
    except np.linalg.LinAlgError:
        return np.array(np.inf)
    k = _meaningful(A, discrete=discrete)
    moduli = 2 * sigma[k:].sum()
    if k:
        moduli = moduli + (_sum if discrete else _integral)(A[:k, :k], B[:k], C[:, :k], np.sqrt(sigma[:k]), relative)
    return np.array((np.abs(D) + moduli * b * c).sum(axis=1).max(initial=0.0))


def _meaningful(A: np.ndarray, *, discrete: bool) -> int:
    """How many of the leading states of a balanced realization are more than rounding.

    Every leading part of one is stable (Pernebo & Silverman, IEEE Trans. Automatic Control 27, 1982). Where two systems all but cancel,
    Hankel values are rounding, states made of them are not, and their powers would grow for ever.
    """
    k = len(A)
    while k and (not np.isfinite(A[:k, :k]).all() or _unstable(np.linalg.eigvals(A[:k, :k]), discrete=discrete)):
        k -= 1
    return k


def _unstable(poles: np.ndarray, *, discrete: bool) -> bool:
    return bool((np.abs(poles) >= 1 if discrete else np.real(poles) >= 0).any())


def _sum(A: np.ndarray, B: np.ndarray, C: np.ndarray, root: np.ndarray, relative: float) -> np.ndarray:
    """``sum_t |C A^t B|``, by blocks of taps: the rows ``C A^t`` of a block are made once, by doubling."""
    p, m = C.shape[0], B.shape[1]
    radius = np.abs(np.linalg.eigvals(A)).max()
    horizon = np.log(relative) / np.log(np.clip(radius, 1e-300, 1 - 1e-15))
    block = max(1.0, min(horizon / 4, _LARGEST_BLOCK / (len(A) * p)))
    rows, jump = C[None], A
    for _ in range(int(np.log2(block))):
        rows, jump = np.concatenate([rows, rows @ jump]), jump @ jump
    total, X = np.zeros((p, m)), np.hstack([B, np.diag(root)])
    while True:
        total = total + np.abs(rows @ X[:, :m]).sum(axis=0)
        X = jump @ X
        if _died_out(root, X[:, m:], relative * total.sum(axis=1).max()):
            return total


def _integral(A: np.ndarray, B: np.ndarray, C: np.ndarray, root: np.ndarray, relative: float) -> np.ndarray:
    """``int_0^inf |C exp(A t) B| dt``: the step between grid points follows the fastest mode that has not died out."""
    poles, V = np.linalg.eig(A)
    m, lasting = B.shape[1], np.abs(np.real(poles))
    weight = np.abs(C @ V).max(axis=0) * np.abs(np.linalg.solve(V, B + 0j)).max(axis=1) / lasting
    total, X, time = np.zeros((C.shape[0], m)), np.hstack([B, np.diag(root)]), 0.0
    outputs = np.stack([np.linalg.solve(A.T, C.T).T, C, C @ A])
    step, points, jump = 0.0, outputs[:, None], A
    while True:
        alive = weight * np.exp(-lasting * time) > relative / 100 * weight.max()
        wanted = _STEP / np.abs(poles[alive] if alive.any() else poles[np.argmin(lasting)]).max()
        if step == 0 or wanted > 1.5 * step:
            step = wanted
            points, jump = outputs[:, None], scipy.linalg.expm(A * step)
            for _ in range(_DOUBLINGS):
                points, jump = np.concatenate([points, points @ jump], axis=1), jump @ jump
        following = jump @ X
        samples = np.concatenate([points @ X[:, :m], outputs[:, None] @ following[:, :m]], axis=1)
        total = total + (_modulus if np.iscomplexobj(samples) else _variation)(*samples, step)
        X, time = following, time + step * points.shape[1]
        if _died_out(root, X[:, m:], relative * total.sum(axis=1).max()):
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


def _tail(root: np.ndarray, states: np.ndarray) -> float:
    """Twice the sum of the Hankel values of what is left, in balanced coordinates."""
    return 2 * float(np.linalg.svd(root[:, None] * states, compute_uv=False).sum())


def _died_out(root: np.ndarray, states: np.ndarray, limit: float) -> bool:
    """Whether the tail is within the limit; the Frobenius norm, which is less, is asked first because it is cheap."""
    return 2 * float(np.linalg.norm(root[:, None] * states)) <= limit and _tail(root, states) <= limit
