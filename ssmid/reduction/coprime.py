"""Unstable systems reduced by their normalized coprime factors, near in the gap: what stabilizes one stabilizes the other."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from ssmid._array import Array
from ssmid.analysis.hinf import hinf_norm
from ssmid.reduction.one_by_one import (
    Element,
    Matrices,
    Reduced,
    has_unstable,
    reduce_one_by_one,
    truncated,
    warn_if_destabilized,
)
from ssmid.reduction.result import Reduction
from ssmid.systems import System


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CoprimeReduction(Reduction):
    """A :class:`Reduction` in the gap metric; ``sigma``, ``bound`` and ``lower_bound`` are those of the coprime factors.

    bound : ``(*batch,)`` of the gap between the closed loops, ``2 sum_{i > order} sigma_i``; more than 1 says nothing
    factor_error : ``(*batch,)`` measured H-infinity norm of the difference of the factors, at least the directed gap
    """

    factor_error: Array


def coprime_truncation(system: System, order: int) -> CoprimeReduction:
    """The system of ``order`` states whose normalized left coprime factors are the balanced truncation of those of ``system``.

    system : StateSpace (single or batch, real or complex, continuous or discrete, stable or not), stabilizable and detectable, or
        what :func:`ssmid.to_state_space` takes

    ``H = M^-1 N`` with ``N N~ + M M~ = I``; the gap metric between two systems is at most the H-infinity distance of such factors
    (Georgiou & Smith, IEEE Trans. Automat. Control 35, 1990), which balanced truncation keeps within ``bound``. Every controller
    whose margin ``b`` of robust stability exceeds the bound stabilizes both. In continuous time this is LQG balanced
    truncation (Jonckheere & Silverman, IEEE Trans. Automat. Control 28, 1983; Meyer, 31, 1986; Ober & McFarlane 1989). The gap
    weighs a gain of 1: scale the system so that this is where its loop shall cross over. Unstable poles may move, so that
    ``error`` can be infinite. A stable system can become an unstable one, with a warning: near in closed loop all the same where
    ``bound`` is below 1, and not ``converged`` elsewhere. ``condition`` is that of the factors' balancing. Not differentiable.

    Raises ValueError for an order below 1 or above that of the factors, a system that is not stabilizable or detectable, and one
    whose gain is so far from 1 that the Riccati equation of its factors has no solution in floating point.

    >>> import numpy as np
    >>> from ssmid import ss
    >>> fit = coprime_truncation(ss(np.diag([0.5, -1.0, -20.0]), [1.0, 1.0, 1.0], [1.0, 1.0, 0.2], dt=0), 2)
    >>> bool(fit.factor_error <= fit.bound * (1 + 1e-6) < 0.01), bool(fit.stable)
    (True, False)
    """
    result = reduce_one_by_one(system, order, "coprime factors", _of_element, CoprimeReduction, splits=False)
    warn_if_destabilized(result, "take a larger order, or ssmid.balanced_truncation, which keeps stability")
    return result


def _of_element(element: Element, order: int) -> Reduced:
    root = element.gain**0.5  # the gap knows the gain, which scaling took away
    plant = element.A, element.B * root, element.C * root, element.D * element.gain
    factors = Element(*_factors(*plant, discrete=element.discrete), element.discrete)
    if np.isfinite(factors.sigma).all() and not factors.degree:  # no state is both reached and seen
        none = np.zeros((0, 0))
        return Reduced((none, element.B[:0], element.C[:, :0], element.D), sigma=factors.sigma, numbers={"factor_error": 0.0})
    if not np.isfinite(factors.sigma).all():
        raise ValueError("expected a stabilizable and detectable system, got one whose coprime factors are not stable")
    if order > factors.degree:
        raise ValueError(f"order: expected 1 to {factors.degree}, which is what the coprime factors carry to rounding, got {order}")
    left, right, sigma = factors.balanced
    small = truncated(factors, left, right, sigma, order)
    error, _ = hinf_norm(*_difference(factors, small), discrete=element.discrete)
    A, B, C = _quotient(*small, inputs=element.B.shape[1])
    bound = 2 * float(np.sum(sigma[order:]))
    destabilized = has_unstable(A, element.discrete) and not has_unstable(element.A, element.discrete)
    return Reduced(
        (A, B / root, C / root, element.D),
        sigma=sigma / element.gain,
        bound=bound / element.gain,
        lower_bound=float(np.append(sigma, 0.0)[order]) / element.gain,
        converged=not destabilized or bound < 1,
        condition=float(sigma[0] / sigma[order - 1]),
        numbers={"factor_error": float(np.abs(error))},
    )


def _factors(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, *, discrete: bool) -> Matrices:
    """``[N, M]``, normalized: the observer of the Riccati equation's gain (Vidyasagar, IEEE Trans. Automat. Control 33, 1988)."""
    solver = scipy.linalg.solve_discrete_are if discrete else scipy.linalg.solve_continuous_are
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            square, noise, cross = np.eye(len(C)) + D @ D.conj().T, B @ B.conj().T, B @ D.conj().T
            Z = solver(A.conj().T, C.conj().T, noise, square, s=cross)
    except ValueError as error:  # SciPy's, LinAlgError included
        said = f"expected a stabilizable and detectable system of a gain near 1, got one whose Riccati equation fails: {error}"
        raise ValueError(said) from None
    if discrete:
        square, cross = square + C @ Z @ C.conj().T, cross + A @ Z @ C.conj().T
    else:
        cross = cross + Z @ C.conj().T
    H = -np.linalg.solve(square.conj().T, cross.conj().T).conj().T
    lower = np.linalg.cholesky((square + square.conj().T) / 2)
    weigh = scipy.linalg.solve_triangular(lower, np.hstack([C, D, np.eye(len(C))]), lower=True)
    n = len(A)
    return A + H @ C, np.hstack([B + H @ D, H]), weigh[:, :n], weigh[:, n:]


def _quotient(
    A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, *, inputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``M^-1 N`` of the state space of ``[N, M]``, but for the feedthrough, which is that of the original."""
    solved = np.linalg.solve(D[:, inputs:], np.hstack([C, D[:, :inputs]]))
    C, feedthrough = solved[:, : len(A)], solved[:, len(A) :]
    return A - B[:, inputs:] @ C, B[:, :inputs] - B[:, inputs:] @ feedthrough, C


def _difference(first: Element, second: Matrices) -> Matrices:
    A, B, C, D = second
    both = np.asarray(scipy.linalg.block_diag(first.A, A))
    return both, np.vstack([first.B, B]), np.hstack([first.C, -C]), first.D - D
