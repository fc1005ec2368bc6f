"""The states of a Loewner pencil whose poles (nearly) repeat: no partial fractions, the finite part of the pencil itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg

from ssmid.analysis.polynomial import Host
from ssmid.identification.conjugate_pairs import real_rows
from ssmid.identification.loewner_pencil import Pencil
from ssmid.linalg import scaled_least_squares


@dataclasses.dataclass(frozen=True, eq=False)
class States:
    """``C (x I - A)^-1 B + D`` of one element. squares : the mean square of its error"""

    A: Host
    B: Host
    C: Host
    D: Host
    squares: float


def pencil_states(pencil: Pencil, element: int, order: int, infinite: int, points: Host, values: Host, real: bool) -> States | None:
    """The states of ``order`` finite eigenvalues, with B and D by least squares of ``values`` ``(p, m, k)``; None where there are none.

    A deflating subspace of the QZ form parts the ``infinite`` largest eigenvalues from the others, whatever their Jordan blocks.
    """
    n = order + infinite
    if n > pencil.E.shape[-1] or order == 0:
        return None
    E, A, C = pencil.E[element, :n, :n], pencil.A[element, :n, :n], pencil.C[element, :, :n]
    try:
        if infinite:
            alpha, beta = np.asarray(scipy.linalg.eigvals(A, E, homogeneous_eigvals=True))
            sizes = np.sort(np.abs(beta) / np.hypot(np.abs(alpha), np.abs(beta)))[::-1]
            middle = (sizes[order - 1] + sizes[order]) / 2
            form = scipy.linalg.ordqz(A, E, sort=_smaller_than(middle), output="real" if real else "complex")
            A, E, C = form[0][:order, :order], form[1][:order, :order], C @ form[5][:, :order]
        A = np.linalg.solve(E, A)
        rows = np.linalg.solve(points[:, None, None] * np.eye(order) - A.T, np.broadcast_to(C.T, (len(points), order, len(C))))
    except (np.linalg.LinAlgError, ValueError):  # singular, or eigenvalues that cannot be reordered: partial fractions stand
        return None
    p, m, k = values.shape
    columns = np.concatenate([np.moveaxis(rows, -1, 0), np.broadcast_to(np.eye(p)[:, None, :], (p, k, p))], axis=-1).reshape(p * k, -1)
    right = np.moveaxis(values, -1, 1).reshape(p * k, m)
    if not np.isfinite(columns).all():
        return None
    if real:
        columns, right = real_rows(columns), real_rows(right)
    x, _ = scaled_least_squares(columns, right)
    squares = float(np.sum(np.abs(columns @ x - right) ** 2) / values.size)
    return States(A, x[:order], C, x[order:], squares)


def _smaller_than(middle: float) -> Any:
    """Of homogeneous eigenvalues ``a / b``, whether they belong to the finite ones."""
    return lambda a, b: np.abs(b) > middle * np.hypot(np.abs(a), np.abs(b))
