"""Low-rank factors of both Gramians of a sparse system, by alternating directions with shifts that the iteration finds itself.

The residual of ``A X E^T + E X A^T + B B^T = 0`` stays of the rank of ``B`` and is known at each step, ``W W^T``; a pair of complex
shifts costs one complex decomposition and leaves everything real (Benner, Kürschner & Saak, Numer. Algorithms 62, 2013 and Electron.
Trans. Numer. Anal. 43, 2014). One decomposition of ``A + p E`` serves both Gramians. Shifts are Ritz values on the newest columns.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import scipy.linalg
import scipy.sparse

from ssmid._array import double
from ssmid.analysis.sparse_pencil import Pencil
from ssmid.systems.sparse import SparseStateSpace

TOL, MOST_STEPS = 1e-12, 400
"""Of the residual, relative to the right-hand side; decompositions at most."""
_SUBSPACE, _BATCH = 60, 20
"""Columns on which Ritz values are taken, and shifts used before new ones are."""
_KRYLOV = 6
_LOST, _DIVERGED = 1e-2, 1e20
"""A residual that never got below is that of an unstable system, more than of a slow iteration; one of 1e20, for certain."""


@dataclasses.dataclass(frozen=True, eq=False)
class LowRankGramians:
    """``R`` ``(n, k)`` with ``Wc = R R^T`` and ``L`` with ``Wo = E^T L L^T E`` to the relative ``residuals`` of the two equations.

    The Hankel singular values are those of ``L^T E R``. ``steps`` : decompositions made   converged : ``residuals`` within ``TOL``
    """

    R: np.ndarray
    L: np.ndarray
    residuals: tuple[float, float]
    steps: int

    @property
    def converged(self) -> bool:
        return max(self.residuals) <= TOL


def low_rank_gramians(system: SparseStateSpace) -> LowRankGramians:
    """The factors of both Gramians of a stable sparse system; in discrete time by the bilinear map, which keeps both.

    Raises ValueError for an unstable system, as far as it shows: the residuals grow.
    """
    B, C = double(system.B), double(system.C)
    pencil, inputs, outputs = Pencil(system.A, system.E), B, C.T
    if system.is_discrete:
        pencil, inputs, outputs = _bilinear(system, B, C)
    size = scale_of(pencil)
    sides = [_Side.started(inputs), _Side.started(outputs)]
    shifts, steps = _first_shifts(pencil, inputs, outputs, size), 0
    while shifts and steps < MOST_STEPS and not all(side.done for side in sides):
        for shift in shifts[: MOST_STEPS - steps]:
            factored = pencil.factored(-shift)
            steps += 1
            if not sides[0].done:
                sides[0].extend(-factored.solve(sides[0].rest), pencil.apply_mass, shift)
            if not sides[1].done:  # the transposed equation has the same shift: its conjugate counts as the same step
                sides[1].extend(-factored.adjoint_solve(sides[1].rest).conj(), pencil.adjoint_mass, shift)
            if all(side.done for side in sides):
                break
            if max(side.residual for side in sides) > _DIVERGED:
                raise ValueError("expected a stable system, got one whose Lyapunov equations have residuals that grow without end")
        shifts = _ritz_shifts(pencil, np.hstack([side.newest() for side in sides]), size)
    residuals = (sides[0].residual, sides[1].residual)
    if not max(residuals) < _LOST:
        raise ValueError(f"expected a stable system, got one whose Lyapunov equations keep a relative residual of {max(residuals):.2g}")
    R, L = (side.factor() for side in sides)
    if system.is_discrete:
        L = pencil.adjoint_mass(L)
        L = L if system.E is None else -Pencil(system.E).factored(0.0).adjoint_solve(L)
    found = LowRankGramians(R, L, residuals, steps)
    if not found.converged:
        warnings.warn(f"low-rank ADI: {steps} steps left a relative residual of {max(residuals):.2g}, above {TOL}", stacklevel=4)
    return found


@dataclasses.dataclass
class _Side:
    """One Lyapunov equation: the columns of the factor so far, and the factor ``rest`` of the residual."""

    rest: np.ndarray
    start: float
    columns: list[np.ndarray]

    @staticmethod
    def started(right: np.ndarray) -> _Side:
        scale = float(np.abs(right).max(initial=0.0)) or 1.0
        return _Side(right.copy(), scale * float(np.linalg.norm(right / scale, 2)) if right.size else 0.0, [])

    @property
    def residual(self) -> float:
        if self.start == 0:
            return 0.0
        return float(np.linalg.norm(self.rest / self.start, 2)) ** 2

    @property
    def done(self) -> bool:
        return self.residual <= TOL

    def extend(self, V: np.ndarray, mass: object, shift: complex) -> None:
        """One step with a real shift, two with a complex one and its conjugate (Benner, Kürschner & Saak 2013, algorithm 3)."""
        if shift.imag == 0:
            self.columns.append(np.sqrt(-2 * shift.real) * V)
            self.rest = self.rest - 2 * shift.real * mass(V)  # pyright: ignore[reportCallIssue]
            return
        gain, ratio = 2 * np.sqrt(-shift.real), shift.real / shift.imag
        both = np.real(V) + ratio * np.imag(V)
        self.columns += [gain * both, gain * np.sqrt(ratio**2 + 1) * np.imag(V)]
        self.rest = self.rest + gain**2 * mass(both)  # pyright: ignore[reportCallIssue]

    def newest(self) -> np.ndarray:
        """The last columns, scaled to length one."""
        recent, count = [], 0
        for block in reversed(self.columns):
            recent.append(block)
            count += block.shape[1]
            if count >= _SUBSPACE // 2:
                break
        X = np.hstack(recent) if recent else self.rest
        size = np.linalg.norm(X, axis=0)
        return X[:, size > 0] / size[size > 0]

    def factor(self) -> np.ndarray:
        return np.hstack(self.columns) if self.columns else np.zeros((len(self.rest), 0))


# ---------------------------------------------------------------- shifts


def _first_shifts(pencil: Pencil, inputs: np.ndarray, outputs: np.ndarray, size: float) -> list[complex]:
    """Ritz values on a few powers of ``A^-1 E``, for the slow poles, and of ``A``, for the fast ones."""
    X = np.hstack([inputs.sum(axis=1, keepdims=True), outputs.sum(axis=1, keepdims=True)])
    if not X.any():
        return []
    blocks = [inputs[:, :4], outputs[:, :4]]
    try:
        factored = pencil.factored(0.0)
    except ValueError:
        raise ValueError("expected a stable system, got a pole at zero (at 1 in discrete time)") from None
    slow = fast = X / np.linalg.norm(X, axis=0).clip(np.finfo(float).tiny)
    for _ in range(_KRYLOV):
        slow = factored.solve(pencil.apply_mass(slow))
        slow = slow / np.linalg.norm(slow, axis=0).clip(np.finfo(float).tiny)
        blocks.append(slow)
    for _ in range(_KRYLOV // 2):
        fast = pencil.A @ fast
        fast = fast / np.linalg.norm(fast, axis=0).clip(np.finfo(float).tiny)
        blocks.append(fast)
    return _ritz_shifts(pencil, np.hstack(blocks), size)


def _ritz_shifts(pencil: Pencil, X: np.ndarray, size: float) -> list[complex]:
    """At most ``_BATCH`` Ritz values of the pencil on the columns of ``X``, in the left half plane, one of each conjugate pair.

    Chosen one by one where the product of the factors of those before is largest (Penzl, SIAM J. Sci. Comput. 21, 2000).
    """
    if X.shape[1] == 0:
        return []
    U, sizes, _ = np.linalg.svd(X, full_matrices=False)
    Q = U[:, sizes > 1e-10 * sizes.max(initial=0.0)]
    values = np.asarray(scipy.linalg.eigvals(Q.T @ (pencil.A @ Q), Q.T @ pencil.apply_mass(Q), check_finite=False))
    values = values[np.isfinite(values)]
    rates, turns = np.abs(np.real(values)), np.abs(np.imag(values))
    values = np.where(turns > 1e-8 * np.abs(values), -rates + 1j * turns, -rates)
    values = np.unique(values[rates > 1e-14 * np.abs(values)])
    if len(values) == 0:
        return [complex(-size)]
    factors, chosen = np.zeros(len(values)), []
    index = int(np.argmin(np.abs(values)))
    for _ in range(min(_BATCH, len(values))):
        shift = complex(values[index])
        chosen.append(shift)
        with np.errstate(divide="ignore"):
            for one in {shift, shift.conjugate()}:
                factors = factors + np.log(np.abs(values - one)) - np.log(np.abs(values + np.conj(one)))
        index = int(np.argmax(factors))
    return chosen


def scale_of(pencil: Pencil) -> float:
    """A number of the size of the largest poles."""
    return float(abs(pencil.A).max() / max(abs(pencil.mass).max(), np.finfo(float).tiny)) or 1.0


# ---------------------------------------------------------------- discrete time


def _bilinear(system: SparseStateSpace, B: np.ndarray, C: np.ndarray) -> tuple[Pencil, np.ndarray, np.ndarray]:
    """The continuous system of the same Gramians: ``(A + E) x' = (A - E) x + sqrt(2) B u``, ``y = sqrt(2) C (A + E)^-1 E x``.

    ``-A`` has the same Gramians, and is taken where ``A + E`` is singular.
    """
    A, E = system.A, system.mass
    try:
        factored = Pencil(A, system.E).factored(-1.0)
    except ValueError:
        A = -A
        factored = Pencil(A, system.E).factored(-1.0)
    outputs = -(E.T @ factored.adjoint_solve(C.T))
    return Pencil((A - E).tocsc(), (A + E).tocsc()), np.sqrt(2) * B, np.sqrt(2) * outputs
