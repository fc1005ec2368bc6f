"""Zeros of the channels of a state space, by orthogonal deflation of its system matrix."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ssmid._array import Array, batched_on_host
from ssmid.linalg import transpose


def channel_zeros(A: Array, B: Array, C: Array, D: Array) -> Array:
    """Zeros of each channel ``C_i (z I - A)^-1 B_j + D_ij``: ``(*batch, p, m, n)`` complex, infinite where there are fewer.

    A channel without feedthrough forces the state that its output reads to zero. Rotating that state last and dropping it leaves
    a smaller system with the same zeros (Emami-Naeini and Van Dooren, Automatica 18, 1982, for one input and output), until there
    is feedthrough, or no state is left. What remains is a generalized eigenvalue problem whose infinite zeros are gone.
    Not differentiable.
    """
    channels = A[..., None, None, :, :], transpose(B)[..., None, :, :, None], C[..., :, None, None, :], D[..., :, :, None, None]
    return batched_on_host(_zeros, *channels)


def _zeros(A: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    n = len(A)
    found = np.full(n, np.inf, complex)
    if not all(np.isfinite(x).all() for x in (A, b, c, d)):
        return np.full(n, np.nan, complex)
    A, b, c, d, unit = _scaled(A, b[:, 0], c[0], d[0, 0])
    tolerance = 4 * max(n, 1) * np.finfo(float).eps * max(1.0, abs(d))
    while len(A) and abs(d) <= tolerance:
        row = c.conj()
        if np.linalg.norm(row) <= tolerance:
            return found  # the channel is zero
        # a reflection that carries the row c to the last coordinate
        alpha = -np.exp(1j * np.angle(row[-1])) if np.iscomplexobj(row) else -np.copysign(1.0, row[-1])
        v = row.copy()
        v[-1] -= alpha * np.linalg.norm(row)
        v /= np.linalg.norm(v)
        A = A - 2 * np.outer(v, v.conj() @ A)
        A = A - 2 * np.outer(A @ v, v.conj())
        b = b - 2 * v * (v.conj() @ b)
        A, b, c, d = A[:-1, :-1], b[:-1], A[-1, :-1], b[-1]
    if len(A):
        zeros = _finite_eigenvalues(A, b, c, d)
        found[: len(zeros)] = unit * zeros
    return found


def _finite_eigenvalues(A: np.ndarray, b: np.ndarray, c: np.ndarray, d: complex) -> np.ndarray:
    """Eigenvalues of the pencil ``[A b; c d] - z diag(I, 0)``, columns compressed so that its last row is ``[0 .. 0 x]``."""
    n = len(A)
    Q = scipy.linalg.qr(np.append(c, d).conj()[:, None])[0]
    Z = np.roll(Q, -1, axis=1)[:, :n]  # an orthonormal basis of what the last row annihilates
    alpha, beta = scipy.linalg.eigvals(np.column_stack([A, b]) @ Z, Z[:n], homogeneous_eigvals=True)  # pyright: ignore[reportAssignmentType]
    infinite = np.abs(beta) <= 4 * n * np.finfo(float).eps * np.abs(alpha)
    zeros = alpha[~infinite] / beta[~infinite]
    if not np.iscomplexobj(A):  # QZ lists conjugates as neighbours, equal to a rounding
        upper = np.flatnonzero(zeros.imag > 0)
        upper = upper[upper + 1 < len(zeros)]
        zeros[upper + 1] = zeros[upper].conj()
    return zeros


def _scaled(A: np.ndarray, b: np.ndarray, c: np.ndarray, d: complex) -> tuple[np.ndarray, np.ndarray, np.ndarray, complex, float]:
    """The balanced system in units of frequency, input and output in which ``A``, ``b`` and ``c`` have size one; and the first unit."""
    if not len(A):
        return A, b, c, d, 1.0
    A, (scale, order) = scipy.linalg.matrix_balance(A, separate=True)
    b, c = b[order] / scale, c[order] * scale
    unit, width, height = (float(np.linalg.norm(x)) or 1.0 for x in (A, b, c))
    share = np.abs(np.array([width, height, unit]))
    mantissa, exponent = np.frexp(share)
    feed = np.ldexp(np.real(d / mantissa[0] / mantissa[1] * mantissa[2]), exponent[2] - exponent[0] - exponent[1])
    if np.iscomplexobj(d):
        feed = feed + 1j * np.ldexp(np.imag(d / mantissa[0] / mantissa[1] * mantissa[2]), exponent[2] - exponent[0] - exponent[1])
    return A / unit, b / width, c / height, feed, unit
