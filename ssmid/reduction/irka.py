"""IRKA: the H2-optimal interpolation conditions met by fixed-point iteration on the poles, for dense and sparse systems."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from ssmid._array import Array, astype_width, double, width
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.interconnection import subtract
from ssmid.analysis.norms import norm
from ssmid.analysis.sparse_pencil import Pencil
from ssmid.reduction.low_rank import SparseReduction, compressed
from ssmid.reduction.modal_truncation import dominant_part
from ssmid.reduction.one_by_one import Element, Reduced, reduce_one_by_one, truncated
from ssmid.reduction.result import Reduction
from ssmid.reduction.tangential import Iterate, Matrices, biorthogonal, fixed_point, modes, optimality, real_and_imaginary, schur_solvers
from ssmid.systems import SparseStateSpace, StateSpace, System

_ROUNDS = 4
"""How often the small model of a sparse system is widened by what the system is at the points of interpolation."""
_SMALLEST = 1e-14
"""A discrete-time pole in place of one at zero, whose mirror image is at infinity."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class InterpolatoryReduction(Reduction):
    """A :class:`Reduction` that knows how well it meets the conditions of H2 optimality.

    conditions : ``(*batch,)`` the largest residual of the Meier-Luenberger interpolation conditions, each relative to its own terms
    iterations : ``(*batch,)`` steps that were taken, from both starts together
    """

    conditions: Array
    iterations: Array


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SparseInterpolatoryReduction(SparseReduction, InterpolatoryReduction):
    """An :class:`InterpolatoryReduction` of a sparse system, whose ``conditions`` are those of the sparse system itself."""


def irka(system: System, order: int, *, tol: float = 1e-8, max_iterations: int = 100) -> InterpolatoryReduction:
    """The system of ``order`` states that interpolates ``system`` at its own mirrored poles: a stationary point of the H2 error.

    system : StateSpace (single or batch, real or complex, continuous or discrete), or what :func:`ssmid.to_state_space` takes, or a
        stable SparseStateSpace (:class:`SparseInterpolatoryReduction`)
    tol : of the Meier-Luenberger conditions (``conditions``), at which the iteration stops and is ``converged``
    max_iterations : after which the best iterate so far is returned, with ``converged`` False

    With poles ``lambda_i`` and residues ``c_i b_i^H`` of the reduced system, the optimum satisfies ``H(s) b_i = H_r(s) b_i``,
    ``c_i^H H(s) = c_i^H H_r(s)`` and ``c_i^H H'(s) b_i = c_i^H H_r'(s) b_i`` at the mirror image ``s = -conj(lambda_i)``
    (``1 / conj(lambda_i)`` in discrete time). The iteration starts from balanced truncation, and once more from the dominant poles
    (:func:`ssmid.modal_truncation`); the better end is taken. The error, known at each step up to a constant, need not fall, so that
    of each run the best stable iterate counts: not worse than balanced truncation in H2, to 1e-6 of the norm of the original.

    Of a sparse system the small model that balanced truncation leaves without
    rounding is iterated; where the sparse system, solved at the points that are found, does not meet the conditions, the model is
    widened by these solutions and iterated again (confined IRKA: Castagnotto & Lohmann, Math. Comput. Model. Dyn. Syst. 24, 2018).
    Real systems are projected on real bases. The unstable part is kept. ``bound`` is NaN: no bound is known beforehand.
    Not differentiable. Sources: Meier & Luenberger, IEEE Trans. Automat. Control 12, 1967; Gugercin, Antoulas & Beattie, SIAM J.
    Matrix Anal. Appl. 30, 2008; Bunse-Gerstner et al., J. Comput. Appl. Math. 233, 2010 (discrete time, several channels).

    Raises ValueError for an order below 1, below the number of unstable poles, or above what the system carries to rounding.

    >>> from ssmid import balanced_truncation, ss
    >>> import numpy as np
    >>> system = ss(np.diag([-1.0, -2.0, -5.0]), [1.0, 1.0, 2.0], [1.0, -0.5, 1.0], dt=0)
    >>> fit = irka(system, 1)
    >>> bool(fit.error < balanced_truncation(system, 1).error), bool(fit.conditions < 1e-8)
    (True, True)
    """
    if isinstance(system, SparseStateSpace):
        return _of_sparse(system, order, tol, max_iterations)
    reduce = partial(_of_element, tol=tol, max_iterations=max_iterations)
    return reduce_one_by_one(system, order, "IRKA", reduce, InterpolatoryReduction)


def _of_element(element: Element, order: int, *, tol: float, max_iterations: int) -> Reduced:
    """On the balanced realization without the states that are rounding, which is smaller and well scaled."""
    left, right, sigma = element.balanced
    A, B, C, D = truncated(element, left, right, sigma, element.degree)
    if order == element.degree:
        return Reduced((A, B, C, D), bound=2 * float(np.sum(sigma[order:])))
    best, _ = best_fixed_point(Element(A, B, C, D, element.discrete), order, tol=tol, most=max_iterations)
    return Reduced(
        (*best.matrices, D),
        converged=best.conditions <= tol,
        condition=best.condition,
        numbers={"conditions": best.conditions, "iterations": float(best.steps)},
    )


def best_fixed_point(balanced: Element, order: int, *, tol: float, most: int) -> tuple[Iterate, float]:
    """The better end of the iterations from balanced truncation and from the dominant poles, and its H2 error; steps of both.

    balanced : in balanced coordinates, of more states than ``order``
    """
    A, B, C, discrete = balanced.A, balanced.B, balanced.C, balanced.discrete
    solvers = schur_solvers(A, discrete=discrete)
    starts = (A[:order, :order], B[:order], C[:, :order]), dominant_part(balanced, order).matrices[:3]
    ends = [
        fixed_point(*solvers, A, B, C, start, discrete=discrete, tol=tol, most=most) for start in starts if len(start[0]) == order
    ]
    errors = [h2_error(balanced, end.matrices) for end in ends]
    k = int(np.argmin(errors))
    return dataclasses.replace(ends[k], steps=sum(end.steps for end in ends)), errors[k]


def h2_error(element: Element, reduced: Matrices) -> float:
    """The H2 norm of the difference, without feedthrough; infinite for an unstable reduction."""
    whole, small = (StateSpace(*matrices, dt=int(element.discrete)) for matrices in ((element.A, element.B, element.C), reduced))
    return float(norm(subtract(whole, small), "h2"))


# ---------------------------------------------------------------- sparse systems


def _of_sparse(system: SparseStateSpace, order: int, tol: float, max_iterations: int) -> SparseInterpolatoryReduction:
    small = compressed(system)
    fit = irka(small.system, order, tol=tol, max_iterations=max_iterations)
    states = to_state_space(fit.system)
    reduced: Matrices = (states.A, states.B, states.C)
    conditions, steps = float(fit.conditions), int(fit.iterations)
    if small.left is not None and small.right is not None and fit.order == order:
        reduced, conditions, further = _confirmed(system, small.left, small.right, reduced, tol, max_iterations)
        steps += further
    fit = dataclasses.replace(
        fit,
        system=StateSpace(reduced[0], reduced[1], reduced[2], states.D, system.dt),
        converged=np.asarray(conditions <= tol),
        conditions=conditions,
        iterations=steps,
    )
    numbers = (astype_width(np.asarray(float(value)), width(system.B)) for value in (conditions, steps))
    return small.certified(fit, system, SparseInterpolatoryReduction, **dict(zip(("conditions", "iterations"), numbers, strict=True)))


def _confirmed(
    system: SparseStateSpace, left: np.ndarray, right: np.ndarray, reduced: Matrices, tol: float, most: int
) -> tuple[Matrices, float, int]:
    """The iterate that meets the conditions of the sparse system itself, their residual, and the steps taken to it."""
    pencil, B, C, discrete = Pencil(system.A, system.E), double(system.B), double(system.C), system.is_discrete
    conditions, steps = np.inf, 0
    for _ in range(_ROUNDS):
        found = modes(*reduced, discrete=discrete)
        if found is None:
            break
        points, b, c, _ = found
        V, W = _solutions(pencil, points, B @ b, C.T @ c, discrete)
        conditions = optimality(V, W, B, C, reduced, points, b, c, discrete=discrete, mass=pencil.apply_mass)[0]
        if conditions <= tol:
            break
        right, left = (np.hstack([X, real_and_imaginary(Y, points)]) for X, Y in ((right, V), (left, W)))
        right, left, _ = biorthogonal(right, left, mass=pencil.apply_mass, rtol=1e-13)
        A, inputs, outputs = left.T @ (system.A @ right), left.T @ B, C @ right
        best = fixed_point(*schur_solvers(A, discrete=discrete), A, inputs, outputs, reduced, discrete=discrete, tol=tol, most=most)
        reduced, steps = best.matrices, steps + best.steps
    return reduced, conditions, steps


def _solutions(pencil: Pencil, points: np.ndarray, X: np.ndarray, Y: np.ndarray, discrete: bool) -> tuple[np.ndarray, np.ndarray]:
    """As the two solvers of :func:`fixed_point`, both sides from one decomposition a point."""
    V, W = X.astype(complex), Y.astype(complex)
    for i, point in enumerate(points):
        if discrete:
            point = point if abs(point) > _SMALLEST else _SMALLEST
            factored, scale = pencil.factored(1 / point), point
        else:
            factored, scale = pencil.factored(point), 1.0
        V[:, i], W[:, i] = factored.solve(X[:, i]) / scale, factored.adjoint_solve(Y[:, i]) / np.conj(scale)
    return V, W
