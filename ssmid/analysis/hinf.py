"""H-infinity norms of state-space models by level sets: a number with a proof, not the largest of a grid.

The gain reaches a level exactly at the imaginary eigenvalues of a Hamiltonian matrix (Boyd, Balakrishnan & Kabamba 1989). From a
lower bound, the frequencies where the gain crosses a level just above it are found; the gain between them is a better lower
bound, and convergence is quadratic (Bruinsma & Steinbuch, Systems & Control Letters 14, 1990). The system is balanced first and
cut where the a-priori bound of the cut is 1e-9 of the norm, so that a thousand states cost as much as the few that matter.
Discrete time goes through the bilinear map, which keeps the norm.
"""

from __future__ import annotations

import numpy as np

from ssmid.analysis.lyapunov import balanced_cut

_NEGLIGIBLE = 1e-9
_LEVEL = 1e-7
_ITERATIONS = 40


def hinf_norm(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, *, discrete: bool) -> tuple[np.ndarray, np.ndarray]:
    """The largest singular value of ``G`` over all frequencies, to a relative 1e-6, and the frequency where it stands.

    One system of NumPy matrices ``(n, n)``, ``(n, m)``, ``(p, n)``, ``(p, m)``. Frequency in rad/s, or rad/sample where
    ``discrete``. Infinity (at the frequency of the outermost pole) where a pole is on or outside the boundary; NaN for NaN.
    """
    if not all(np.isfinite(M).all() for M in (A, B, C, D)):
        return np.array(np.nan), np.array(np.nan)
    poles = np.linalg.eigvals(A) if len(A) else np.zeros(0)
    outer = np.abs(poles) - 1 if discrete else poles.real
    b, c = (np.abs(M).max(initial=0.0) or 1.0 for M in (B, C))
    try:
        if (outer >= 0).any():
            raise np.linalg.LinAlgError
        A, B, C, _ = balanced_cut(A, B / b, C / c, discrete=discrete, negligible=_NEGLIGIBLE)
    except np.linalg.LinAlgError:
        worst = poles[np.argmax(outer)]
        return np.array(np.inf), np.array(abs(np.angle(worst) if discrete else worst.imag))
    G = A, B, C, D / b / c
    flipped = False
    if discrete:
        G, flipped = to_continuous(*G)
    gain, omega = _level_set(*G)
    if discrete:
        omega = abs(2 * np.arctan(omega) - (np.pi * np.sign(omega or 1.0) if flipped else 0.0))
    return np.array(gain * b * c), np.array(omega)


def to_continuous(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> tuple[tuple[np.ndarray, ...], bool]:
    """``G(s)`` with ``z = (1 + s)/(1 - s)``, or of ``G(-z)`` (second result True) where the poles keep farther from z = -1 so."""
    poles = np.linalg.eigvals(A) if len(A) else np.zeros(0)
    flipped = bool(np.abs(poles + 1).min(initial=2.0) < np.abs(poles - 1).min(initial=2.0))
    if flipped:
        A, C = -A, -C
    eye = np.eye(len(A))
    X = np.linalg.solve(A + eye, np.hstack([A - eye, B]))
    mapped, inner = X[:, : len(A)], X[:, len(A) :]
    outer = np.linalg.solve((A + eye).T, C.T).T
    return (mapped, np.sqrt(2) * inner, np.sqrt(2) * outer, D - C @ inner), flipped


def _level_set(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> tuple[float, float]:
    """The largest gain on the imaginary axis and its frequency (may be infinite)."""
    gain, omega = float(np.linalg.norm(D, 2)) if D.size else 0.0, np.inf
    if not len(A):
        return gain, omega
    real = not any(np.iscomplexobj(M) for M in (A, B, C, D))
    poles = np.linalg.eigvals(A)
    resonances = np.sqrt(np.abs(poles.imag**2 - poles.real**2)) * np.where(poles.imag < 0, -1, 1)
    start = np.unique(np.concatenate([[0.0], poles.imag, resonances, np.abs(poles), [] if real else -np.abs(poles)]))
    gain, omega = _best(A, B, C, D, start[start >= 0] if real else start, gain, omega)
    for _ in range(_ITERATIONS):
        level = gain * (1 + _LEVEL)
        if level == 0:
            break
        crossings = _crossings(A, B, C, D, level)
        if real:
            crossings = np.unique(np.abs(crossings))
        between = (crossings[1:] + crossings[:-1]) / 2
        gain, omega = _best(A, B, C, D, np.concatenate([crossings, between]), gain, omega)
        if gain <= level:
            break
    return gain, omega


def _crossings(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, level: float) -> np.ndarray:
    """Frequencies, ascending, where ``level`` is a singular value of ``G(i omega)``: imaginary eigenvalues of the Hamiltonian.

    Eigenvalues near the axis are taken too: a frequency too many costs an evaluation, one too few would cost the proof.
    """
    B, C, D = B / np.sqrt(level), C / np.sqrt(level), D / level
    inside = D.conj().T @ D - np.eye(D.shape[1])
    outside = D @ D.conj().T - np.eye(D.shape[0])
    K = np.linalg.solve(inside, np.hstack([D.conj().T @ C, B.conj().T]))
    n = len(A)
    F = A - B @ K[:, :n]
    H = np.block([[F, -B @ K[:, n:]], [C.conj().T @ np.linalg.solve(outside, C), -F.conj().T]])
    values = np.linalg.eigvals(H)
    near = np.abs(values.real) <= 1e-4 * np.abs(values.imag) + 1e-8 * np.abs(values).max()
    return np.sort(values[near].imag)


def _best(
    A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, omegas: np.ndarray, gain: float, omega: float
) -> tuple[float, float]:
    """The largest gain among ``omegas`` and the one known, with its frequency."""
    n = len(A)
    for part in np.array_split(omegas, max(1, len(omegas) * n * n // 2**22)):
        if not len(part):
            continue
        states = np.linalg.solve(1j * part[:, None, None] * np.eye(n) - A, np.broadcast_to(B + 0j, (len(part), *B.shape)))
        gains = np.linalg.norm(C @ states + D, 2, axis=(-2, -1))
        k = int(np.argmax(gains))
        if gains[k] > gain:
            gain, omega = float(gains[k]), float(part[k])
    return gain, omega
