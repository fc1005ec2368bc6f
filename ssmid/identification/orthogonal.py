"""Polynomials on a set of points, in the basis that is orthonormal there: evaluated, multiplied and solved for roots without powers.

Arnoldi's iteration with the multiplication by the point (Brubeck, Nakatsukasa & Trefethen, SIAM Rev. 63, 2021, sec. 2). With
``real`` the inner product is the real part, which is the one over the points and their conjugates: coefficients then are real for
functions with ``f(conj x) = conj f(x)``.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from ssmid._array import Array, as_complex, batched_on_host, namespace
from ssmid.analysis.polynomial import Host
from ssmid.linalg import adjoint, eigvals

_SMALL = 1e-3
_EPS = float(np.finfo(float).eps)


@dataclasses.dataclass(frozen=True, eq=False)
class Basis:
    """The polynomials ``v_0 .. v_n`` with ``x v_j = sum_i recurrence_ij v_i``.

    values : ``(*batch, k, n + 1)`` complex, at the points   recurrence : ``(*batch, n + 1, n)`` upper Hessenberg, real where the basis is
    """

    values: Array
    recurrence: Array

    def roots(self, coefficients: Array) -> Array:
        """``(*batch, degree)`` the roots of ``sum_j coefficients_j v_j``: eigenvalues of the recurrence with its last column changed.

        The row ``(v_0 .. v_{n-1})(x)`` is a left eigenvector of it where ``v_n(x)`` is what the root makes of the others. Roots that are
        infinite but for rounding are large.
        """
        xp, degree = namespace(coefficients), coefficients.shape[-1] - 1
        square = self.recurrence[..., :degree, :degree]
        if degree == 0:
            return as_complex(coefficients[..., :0])
        last = xp.arange(degree, device=coefficients.device) == degree - 1
        below = self.recurrence[..., degree, degree - 1][..., None]
        lead = coefficients[..., degree:]
        size = xp.max(xp.abs(coefficients), axis=-1, keepdims=True)
        if bool(xp.all((xp.abs(lead) > _SMALL * size) | ~xp.isfinite(size))):
            column = below * coefficients[..., :degree] / lead
            return as_complex(eigvals(square - column[..., :, None] * xp.astype(last, column.dtype)))
        # without the division by the leading coefficient: a pencil, whose finite eigenvalues lose nothing to those near infinity
        lead, column = lead / size, below * coefficients[..., :degree] / size
        scale = xp.where(last, lead, xp.ones_like(lead))
        A = square * scale[..., None, :] - column[..., :, None] * xp.astype(last, column.dtype)
        E = scale[..., None, :] * xp.eye(degree, dtype=scale.dtype, device=scale.device)
        return as_complex(batched_on_host(_pencil_eigenvalues, A, E + xp.zeros_like(A))[..., 0])


def _pencil_eigenvalues(A: Host, E: Host) -> Host:
    """``(n, 1)`` eigenvalues of one pencil, NaN where it has NaN; infinite ones large, conjugates of a real pencil exact."""
    if not (np.isfinite(A).all() and np.isfinite(E).all()):
        return np.full((len(A), 1), np.nan + 0j)
    alpha, beta = np.asarray(scipy.linalg.eigvals(A, E, homogeneous_eigvals=True))
    beta = np.where(np.abs(beta) > _EPS * np.abs(alpha), beta, np.maximum(_EPS * np.abs(alpha), np.finfo(float).tiny))
    values = alpha / beta
    if not (np.iscomplexobj(A) or np.iscomplexobj(E)):
        lower = np.flatnonzero(values.imag < 0)
        values[lower] = values[lower - 1].conj()
    return values[:, None]


def arnoldi(points: Array, degree: int, *, real: bool, weights: Array | None = None) -> Basis:
    """The orthonormal basis up to ``degree`` on complex ``points`` ``(*batch, k)``; two passes of Gram and Schmidt a vector.

    weights : ``(*batch, k)`` positive; the values then are those of polynomials times the weights
    """
    xp = namespace(points)
    values = xp.ones_like(points)[..., None] / points.shape[-1] ** 0.5
    if weights is not None:
        first = as_complex(weights)[..., None]
        values = first / as_complex(xp.linalg.vector_norm(first, axis=-2, keepdims=True)) + xp.zeros_like(values)
    columns = []
    for j in range(degree):
        new = points[..., None] * values[..., j : j + 1]
        total = xp.zeros_like(adjoint(values) @ new)
        for _ in range(2):
            inner = adjoint(values) @ new
            if real:
                inner = as_complex(xp.real(inner))
            new, total = new - values @ inner, total + inner
        norm = as_complex(xp.linalg.vector_norm(new, axis=-2, keepdims=True))
        values = xp.concat([values, new / norm], axis=-1)
        rest = xp.zeros((*norm.shape[:-2], degree - 1 - j, 1), dtype=norm.dtype, device=norm.device)
        columns.append(xp.concat([total, norm, rest], axis=-2))
    recurrence = xp.concat(columns, axis=-1) if columns else values[..., :1, :0]
    return Basis(values, xp.real(recurrence) if real else recurrence)
