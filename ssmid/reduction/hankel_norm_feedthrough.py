"""The feedthrough that brings an optimal Hankel-norm approximation nearest in H-infinity norm.

The Hankel norm does not see it, the gain at every frequency does: without a choice the H-infinity error can be twice as large.
Glover's constant holds the a-priori bound, the sum of the Hankel values left out; the one that minimizes the largest error over
frequencies, a convex problem in the few entries of D, is often far better (on the space station, order 30: 1.25 sigma, not 2.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize

from ssmid._array import as_complex
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.lyapunov import balanced_cut
from ssmid.analysis.splitting import Triple
from ssmid.reduction.hankel_norm_dilation import Matrices, constant_approximation
from ssmid.systems import StateSpace

_GAP = 5e-3
_CUTS = 60
_NEGLIGIBLE = 1e-2
_REFINEMENTS = 4
_STANDS_OUT = 0.9
_MARGIN = 0.95


def best_feedthrough(G: Matrices, sigma: np.ndarray, reduced: Triple, rest: Triple, D: np.ndarray, tail: float) -> np.ndarray:
    """D for the ``reduced`` strictly proper system.

    G : the balanced system, continuous time   sigma : its Hankel values   rest, D : the antistable part of the dilation and its
    feedthrough   tail : the a-priori bound of the error
    """
    A, B, C = rest
    A, B, C, values = balanced_cut(-A, -B, C, discrete=False, negligible=1e-12)
    proven = constant_approximation(A, B, C, D, values)
    if not np.isfinite(proven).all():
        proven = G[3]
    error_system, omega = _error_system(G, sigma, reduced, tail)
    error, chosen = _values(error_system, omega), proven
    for _ in range(_REFINEMENTS):
        chosen = least_largest(error, chosen)
        seen = np.linalg.norm(error - chosen, 2, axis=(1, 2)).max()
        omega, error = _refined(error_system, omega, error, chosen)
        if np.linalg.norm(error - chosen, 2, axis=(1, 2)).max() <= (1 + _GAP) * seen:
            break
    gains = [np.linalg.norm(error - constant, 2, axis=(1, 2)).max() for constant in (proven, chosen)]
    # between the frequencies looked at the error may be a little larger: near the bound only what is proven will do
    return chosen if gains[1] < min(gains[0], _MARGIN * tail) else proven


def _error_system(G: Matrices, sigma: np.ndarray, reduced: Triple, tail: float) -> tuple[StateSpace, np.ndarray]:
    """``G`` without its weakest states less ``reduced``, and frequencies: resonances, flanks, some between; infinity last."""
    A, B, C, D = G
    tails = 2 * np.append(np.cumsum(sigma[::-1])[::-1], 0.0)
    n = int(np.argmax(tails <= _NEGLIGIBLE * tail))
    small, (A2, B2, C2) = (A[:n, :n], B[:n], C[:, :n]), reduced
    poles = np.concatenate([np.linalg.eigvals(small[0]), np.linalg.eigvals(A2)])
    omega = np.concatenate([poles.imag, poles.imag + poles.real, poles.imag - poles.real, np.abs(poles)])
    if not any(np.iscomplexobj(M) for M in (*G, *reduced)):
        omega = np.abs(omega)
    size = np.abs(omega[omega != 0]) if omega.any() else np.ones(1)
    between = np.geomspace(size.min() / 10, 10 * size.max(), 40)
    omega = np.unique(np.concatenate([omega, between, -between if (omega < 0).any() else [0.0]]))
    both = StateSpace(scipy.linalg.block_diag(small[0], A2), np.vstack([small[1], B2]), np.hstack([small[2], -C2]), D, dt=0)
    return both, np.append(omega, np.inf)


def _values(system: StateSpace, omega: np.ndarray) -> np.ndarray:
    """``(k, p, m)`` at ``omega``, the last of which may be infinite."""
    finite = omega[np.isfinite(omega)]
    values = np.asarray(evaluate(system, as_complex(1j * finite))).reshape(*system.D.shape, len(finite))
    through = np.broadcast_to(system.D, (len(omega) - len(finite), *system.D.shape))
    return np.concatenate([np.moveaxis(values, -1, 0), through])


def _refined(system: StateSpace, omega: np.ndarray, error: np.ndarray, D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """More frequencies on both sides of those whose gain stands out."""
    gains = np.linalg.norm(error - D, 2, axis=(1, 2))
    k = np.flatnonzero(gains[:-1] > _STANDS_OUT * gains.max())
    last = len(omega) - 2
    parts = np.arange(1, 4)[:, None] / 4
    ends = [(np.maximum(k - 1, 0), k), (k, np.minimum(k + 1, last))]
    new = np.setdiff1d(np.concatenate([omega[a] + parts * (omega[b] - omega[a]) for a, b in ends]).ravel(), omega)
    if not len(new):
        return omega, error
    order = np.argsort(np.concatenate([omega, new]), kind="stable")
    return np.concatenate([omega, new])[order], np.concatenate([error, _values(system, new)])[order]


def least_largest(error: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The D that minimizes ``max_k |error_k - D|_2``, to half a percent, real where ``start`` is.

    By cutting planes (Kelley, J. SIAM 8, 1960): ``|E|_2`` is the largest of all ``Re u^* E v``, of which those that held so far
    make a linear program.
    """
    p, m = start.shape
    unit = np.abs(error - start).max() or 1.0
    error, start = error / unit, start / unit
    if p == m == 1 and not np.iscomplexobj(start):
        values, D = error[:, 0, 0], float(start[0, 0])
        found: Any = scipy.optimize.minimize_scalar(lambda d: np.abs(values - d).max(), bounds=(D - 2, D + 2), method="bounded")
        return np.array([[found.x if found.fun < np.abs(values - D).max() else D]]) * unit
    parts = 2 if np.iscomplexobj(start) else 1
    rows, sides, best, D = [], [], (np.inf, start), start
    bounds = [(-2.0, 2.0)] * (p * m * parts) + [(0.0, None)]
    for _ in range(_CUTS):
        U, values, Vh = np.linalg.svd(error - D)
        gains = values[:, 0]
        if gains.max() < best[0]:
            best = gains.max(), D
        for k in np.unique([np.argmax(gains), *np.argsort(gains)[-2 * parts * p * m :]]):
            # Re u^* (E - D) v <= t
            slope: np.ndarray = U[k, :, :1].conj() @ Vh[k, :1].conj()
            rows.append(np.concatenate([-np.real(slope).ravel(), *([np.imag(slope).ravel()] if parts == 2 else []), [-1.0]]))
            sides.append(-np.sum(slope * (error[k] - start)).real)
        found = scipy.optimize.linprog(np.append(np.zeros(p * m * parts), 1.0), np.array(rows), np.array(sides), bounds=bounds)
        if found.x is None or best[0] - found.x[-1] <= _GAP * best[0]:
            break
        step = found.x[: p * m].reshape(p, m)
        D = start + (step + 1j * found.x[p * m : 2 * p * m].reshape(p, m) if parts == 2 else step)
    return best[1] * unit
