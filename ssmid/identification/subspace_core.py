"""What all subspace methods share: the LQ factor of past and future data, the observability matrix in it, and what follows from that.

Van Overschee and De Moor, Subspace Identification for Linear Systems (Kluwer, 1996); Verhaegen, Automatica 30 (1994). The methods
differ in the weights of one singular value decomposition and in nothing else. NumPy on the host, one system at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.linalg

from ssmid.analysis.polynomial import Host
from ssmid.identification.partial_fractions import reflected
from ssmid.linalg import triangular_factor

_CHUNK = 8
"""Data are compressed by QR when this many times the width of the factor has gathered."""


@dataclasses.dataclass(frozen=True)
class DataFactor:
    """The lower triangular factor L of the data ``[U_f; W_p; Y_f]`` in rows, with what the deterministic rows explain taken out.

    inputs : ``(f m, f m)`` of the future inputs   past : ``(i (m + p), .)``   future : ``(f p, .)``, all in the coordinates of the
    orthonormal rows Q: first those of U_f, ``split`` of them, then those that the past adds, up to ``end``, then the rest
    columns : the number of columns of data, of which squares are sums
    """

    inputs: Host
    past: Host
    future: Host
    split: int
    end: int
    columns: int
    condition: float


def factorize(records: Sequence[tuple[Host, Host]], past: int, rows: int, degree: int) -> DataFactor:
    """The LQ factor of all ``records`` (inputs ``(m, T)``, outputs ``(p, T)``) with ``past`` and ``rows`` block rows of past and future.

    degree : polynomials of time up to this degree are projected out of each record, -1 for none: levels and trends, exactly.
    Data are compressed block by block, so that no more is held than a few times the factor.
    """
    m, p = len(records[0][0]), len(records[0][1])
    width = (past + rows) * (m + p)
    R, gathered, height, columns = np.zeros((0, width)), [], 0, 0
    for inputs, outputs in records:
        count = inputs.shape[-1] - past - rows + 1
        time = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, count), degree) if degree >= 0 else np.zeros((count, 0))
        basis = np.linalg.qr(time)[0]
        table = _Table(inputs, outputs, past, rows)
        means = _products(table, basis, count, width)
        columns += count - basis.shape[-1]
        step = max(1, _CHUNK * width)
        for start in range(0, count, step):
            piece = slice(start, min(start + step, count))
            gathered.append(table[piece] - basis[piece] @ means)
            height += len(gathered[-1])
            if height >= _CHUNK * width:
                R, gathered, height = triangular_factor(np.concatenate([R, *gathered])), [], 0
    R = triangular_factor(np.concatenate([R, *gathered]))
    if len(R) < width:
        R = np.concatenate([R, np.zeros((width - len(R), width))])
    return _blocks(R.T, rows * m, past * (m + p), columns)


class _Table:
    """The data matrix transposed, ``(columns, width)``, of which slices of rows are made when they are needed."""

    def __init__(self, inputs: Host, outputs: Host, past: int, rows: int):
        window = np.lib.stride_tricks.sliding_window_view
        self._parts = (
            (window(inputs[:, past:], rows, axis=-1), rows),
            (window(inputs[:, : inputs.shape[-1] - rows], past, axis=-1), past),
            (window(outputs[:, : outputs.shape[-1] - rows], past, axis=-1), past),
            (window(outputs[:, past:], rows, axis=-1), rows),
        )

    def __getitem__(self, piece: slice) -> Host:
        # (channels, columns, block rows) -> (columns, block rows of channels)
        parts = [np.moveaxis(part[:, piece], 0, -1).reshape(piece.stop - piece.start, -1) for part, _ in self._parts]
        return np.concatenate(parts, -1)


def _products(table: _Table, basis: Host, count: int, width: int) -> Host:
    """``basis^T table``: what polynomials of time explain."""
    total = np.zeros((basis.shape[-1], width))
    if basis.shape[-1]:
        for start in range(0, count, _CHUNK * width):
            piece = slice(start, min(start + _CHUNK * width, count))
            total += basis[piece].T @ table[piece]
    return total


def _blocks(L: Host, a: int, b: int, columns: int) -> DataFactor:
    """L in blocks. Directions that the future inputs do not excite are left to the past, not to chance."""
    _, s, Vh = np.linalg.svd(L[:a, :a])
    rank = int(np.sum(s > a * np.finfo(float).eps * s.max(initial=0)))
    condition = 1.0 if a == 0 else np.inf if rank < a else float(s[0] / s[-1])
    if rank < a:
        L = L.copy()
        L[:, :a] = L[:, :a] @ Vh.T
        Q = np.linalg.qr(L[a : a + b, rank : a + b].T, mode="complete")[0]
        L[:, rank : a + b] = L[:, rank : a + b] @ Q
        return DataFactor(L[:a], L[a : a + b], L[a + b :], rank, min(rank + b, L.shape[-1]), columns, condition)
    return DataFactor(L[:a], L[a : a + b], L[a + b :], a, a + b, columns, condition)


# ---------------------------------------------------------------- the observability matrix


def observability(factor: DataFactor, weighting: str) -> tuple[Host, Host]:
    """An orthonormal basis ``(f p, k)`` whose leading n columns span the observability matrix of order n, and singular values ``(k,)``.

    weighting : "moesp", the projection of the future on the past, of inputs and outputs, beside the future inputs (PO-MOESP, Verhaegen
    1994); "n4sid", the oblique projection of the future along the future inputs on the past (Van Overschee and De Moor 1994); "cva",
    the canonical correlations of past and future beside the future inputs (Larimore 1990). Theorem 4.1 and section 4.3 of the book.
    """
    projection = factor.future[:, factor.split : factor.end]
    if weighting == "moesp":
        basis, sigma, _ = np.linalg.svd(projection, full_matrices=False)
        return basis, sigma / max(1, factor.columns) ** 0.5
    if weighting == "n4sid":
        basis, sigma, _ = np.linalg.svd(oblique_projection(factor), full_matrices=False)
        return basis, sigma / max(1, factor.columns) ** 0.5
    U, s, Vh = np.linalg.svd(factor.future[:, factor.split :], full_matrices=False)
    kept = s > _rank_tolerance(factor) * s.max(initial=0)
    whitened, sigma, _ = np.linalg.svd(Vh[kept, : projection.shape[-1]], full_matrices=False)
    return np.linalg.qr((U[:, kept] * s[kept]) @ whitened)[0], sigma


def oblique_projection(factor: DataFactor) -> Host:
    """The future along its inputs on the past, ``(f p, end)`` in the coordinates of the factor: ``Gamma X``, nothing but states."""
    past = factor.past[:, factor.split : factor.end]
    U, s, Vh = np.linalg.svd(past, full_matrices=False)
    kept = s > _rank_tolerance(factor) * s.max(initial=0)
    on_past = (factor.future[:, factor.split : factor.end] @ Vh[kept].T / s[kept]) @ U[:, kept].T
    return on_past @ factor.past[:, : factor.end]


def _rank_tolerance(factor: DataFactor) -> float:
    """Relative size of singular values that rounding makes: without noise the past has no full rank."""
    return 100 * max(len(factor.past), len(factor.future)) * np.finfo(float).eps


def shift_invariant(basis: Host, outputs: int) -> tuple[Host, Host]:
    """``A, C`` whose observability matrix is ``basis``, the shift equation solved in the least-squares sense."""
    A = np.linalg.lstsq(basis[:-outputs], basis[outputs:], rcond=None)[0]
    return A, basis[:outputs]


def stabilized(A: Host, dt: float | bool) -> tuple[Host, tuple[complex, ...]]:
    """``A`` with unstable eigenvalues mirrored at the boundary of stability, and those as they were."""
    values, vectors = np.linalg.eig(A)
    inside = reflected(values, dt)
    outside = inside != values
    if not outside.any():
        return A, ()
    # the part that changes alone, so that all else keeps its digits
    change = (vectors * np.where(outside, inside - values, 0)) @ np.linalg.inv(vectors)
    return A + change.real, tuple(complex(value) for value in values[outside])


# ---------------------------------------------------------------- noise


def kalman_gain(factor: DataFactor, gamma: Host, A: Host, B: Host, C: Host, D: Host) -> tuple[Host, Host]:
    """The gain ``(n, p)`` and the covariance ``(p, p)`` of the innovation, from the residuals of the state equations.

    States are what the oblique projections of two neighbouring splits into past and future say in the orthonormal ``gamma``
    ``(f p, n)`` (the book, section 4.4.3, with B and D known); their residuals have a covariance that is positive semidefinite always,
    and a Riccati equation gives the gain. Both covariances are given a floor of rounding, so that a record without noise has a gain too.
    """
    n, p, m = len(A), len(C), B.shape[-1]
    full = factor.future.shape[-1]
    state = _widened(gamma.T @ oblique_projection(factor), full)
    following = np.linalg.lstsq(gamma[:-p], _shifted(factor, m, p), rcond=None)[0]
    inputs, outputs = _widened(factor.inputs[:m], full), factor.future[:p]
    residual = np.concatenate([following - A @ state - B @ inputs, outputs - C @ state - D @ inputs]) / max(1, factor.columns) ** 0.5
    covariance = residual @ residual.T
    power = np.concatenate([state, outputs]) / max(1, factor.columns) ** 0.5
    floor = np.finfo(float).eps * np.maximum((power**2).sum(-1), np.finfo(float).tiny)
    return riccati_gain(A, C, covariance + np.diag(floor[: n + p]))


def riccati_gain(A: Host, C: Host, covariance: Host) -> tuple[Host, Host]:
    """The stationary Kalman gain and innovation covariance for the ``covariance`` of process and measurement noise; NaN where none is."""
    n = len(A)
    if n == 0 or not np.isfinite(covariance).all():
        return np.full((n, len(C)), np.nan), covariance[n:, n:]
    scale = np.trace(covariance[n:, n:])
    Q, S, R = (block / scale for block in (covariance[:n, :n], covariance[:n, n:], covariance[n:, n:]))
    try:
        P = scipy.linalg.solve_discrete_are(A.T, C.T, Q, R, s=S)
        innovation = C @ P @ C.T + R
        return np.linalg.solve(innovation, (A @ P @ C.T + S).T).T, innovation * scale
    except (np.linalg.LinAlgError, ValueError):
        return np.full((n, len(C)), np.nan), np.full(R.shape, np.nan)


def _shifted(factor: DataFactor, m: int, p: int) -> Host:
    """The oblique projection with one block row moved from the future to the past, in the coordinates of ``factor``."""
    full = factor.future.shape[-1]
    inputs, past = _widened(factor.inputs, full), _widened(factor.past, full)
    i = len(past) // (m + p)
    past = np.concatenate([past[: i * m], inputs[:m], past[i * m :], factor.future[:p]])
    inputs, future = inputs[m:], factor.future[p:]
    # rows of orthonormal coordinates: what the inputs span is taken out
    Q = np.linalg.qr(inputs.T)[0] if np.isfinite(factor.condition) else scipy.linalg.orth(inputs.T)
    outside, target = past - (past @ Q) @ Q.T, future - (future @ Q) @ Q.T
    U, s, Vh = np.linalg.svd(outside, full_matrices=False)
    kept = s > _rank_tolerance(factor) * s.max(initial=0)
    return ((target @ Vh[kept].T / s[kept]) @ U[:, kept].T) @ past


def _widened(rows: Host, full: int) -> Host:
    """``rows`` with coordinates of zero up to ``full``."""
    return np.concatenate([rows, np.zeros((len(rows), full - rows.shape[-1]))], -1)
