"""Sparse systems made small: their balanced realization to rounding, from low-rank Gramian factors, which every dense method takes on."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TypeVar

import numpy as np
import scipy.linalg

from ssmid._array import Array, astype_width, double, width
from ssmid.analysis.adi import low_rank_gramians
from ssmid.analysis.characteristics import is_stable
from ssmid.analysis.sparse_pencil import Pencil
from ssmid.reduction.result import Reduction
from ssmid.systems import SparseStateSpace, StateSpace
from ssmid.systems.sparse import to_dense

DENSE = 300
"""States up to which dense Gramians take less time than low-rank ones."""
_ROUNDING = 1e-14

AnyReduction = TypeVar("AnyReduction", bound="SparseReduction")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SparseReduction(Reduction):
    """A :class:`Reduction` of a :class:`SparseStateSpace`.

    compressed : the original's balanced realization as far as its Hankel values are more than rounding, from which errors are measured
    residual : of the Lyapunov equations that the Gramian factors solve, relative to their right-hand sides (0 where these were dense)
    """

    compressed: StateSpace
    residual: float

    @cached_property
    def _small(self) -> Reduction:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(Reduction)}
        return Reduction(**{**fields, "original": self.compressed})

    @cached_property
    def error(self) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Relative l2 (H2) error: ``norm(compressed - system) / norm(compressed)``; 0 where both are zero."""
        return self._small.error

    def measured(self, kind: str) -> Array:
        """The norm ``kind`` ("h2", "hankel", "hinf", "l1") of ``compressed - system``, absolute."""
        return self._small.measured(kind)


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """A sparse system without the states that are rounding.

    system : dense, balanced   left, right : ``(n, k)``, ``left^T E right = I``; None where the system was made dense
    sigma : Hankel values, all that the factors carry   residual : of the Lyapunov equations
    """

    system: StateSpace
    left: np.ndarray | None
    right: np.ndarray | None
    sigma: np.ndarray
    residual: float

    def certified(self, fit: Reduction, original: SparseStateSpace, kind: type[AnyReduction], **further: object) -> AnyReduction:
        """``fit``, a reduction of ``system``, as one of the ``original``, in its precision."""
        fields = {field.name: getattr(fit, field.name) for field in dataclasses.fields(Reduction)}
        bits = width(original.B)
        for name in ("sigma", "bound", "lower_bound", "condition"):
            fields[name] = astype_width(np.asarray(fields[name]), bits)
        fields |= {"original": original, "system": fit.system.map(lambda a: astype_width(a, bits))}
        return kind(**fields, compressed=self.system, residual=self.residual, **further)  # pyright: ignore[reportArgumentType]


def compressed(system: SparseStateSpace) -> Compressed:
    """The balanced realization of a stable sparse system up to the Hankel values that are rounding.

    By the square-root method on low-rank factors (Li & White, SIAM J. Matrix Anal. Appl. 24, 2002; Gugercin & Li 2005), or on
    dense ones of a small system, which may then be unstable. Raises ValueError for an unstable large one.
    """
    if system.order <= DENSE:
        return Compressed(to_dense(system), None, None, np.zeros(0), 0.0)
    found = low_rank_gramians(system)
    mass = Pencil(system.A, system.E).apply_mass
    U, sigma, Vh = scipy.linalg.svd(found.L.T @ mass(found.R), full_matrices=False, check_finite=False)
    level = _ROUNDING
    while True:
        k = int(np.sum(sigma > level * sigma.max(initial=0.0)))
        root = np.sqrt(sigma[:k])
        left, right = found.L @ (U[:, :k] / root), found.R @ (Vh[:k].T / root)
        A, B, C = left.T @ (system.A @ right), left.T @ double(system.B), double(system.C) @ right
        small = StateSpace(A, B, C, double(system.D), system.dt)
        if k == 0 or bool(is_stable(small)):
            return Compressed(small, left, right, sigma, max(found.residuals))
        level *= 10  # the last states are known to the accuracy of the factors only
