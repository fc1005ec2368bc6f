"""Poles from the singular vectors of Hankel matrices of taps: what ESPRIT, the matrix pencil and Prony's method share.

The taps ``g[t] = C A^t B`` make a Hankel matrix of rank n whose left singular vectors U span the observability matrix. Without
their last block row and without their first they differ by the state matrix: ``U_up A = U_down``. The Gram matrices of these
equations need no more than the two rows that are left out and ``U_up* U_down``, so that the problems are small however long the
response is.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, double, from_numpy, is_complex, namespace, to_numpy
from ssmid.analysis.hankel import DENSE, hankel_triplets
from ssmid.analysis.polynomial import polynomial_roots
from ssmid.linalg import adjoint, eigh, solve, transpose

_EPS = float(np.finfo(np.float64).eps)
_TAIL_RTOL = 1e-10
"""Residual of singular vectors, of the last value that is kept: poles of exact data need all of their digits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subspace:
    """The leading left singular vectors of the Hankel matrices of taps ``(batch, p, m, length)``.

    vectors : ``(batch, n, p, rows)``   sigma : ``(batch, n)``   converged : ``(batch,)``
    rank : ``(batch,)`` how many of the values are more than rounding, on the host
    """

    vectors: Array
    sigma: Array
    converged: Array
    rank: np.ndarray


def signal_subspace(taps: Array, rows: int, order: int) -> Subspace:
    """Of the Hankel matrix of ``rows`` block rows that uses all taps."""
    xp = namespace(taps)
    batch, p, _, length = taps.shape
    rtol = 8 * _EPS * max(rows, length - rows) ** 0.5
    # few vectors of a mid-sized matrix: iterating is three times as quick as decomposing it
    limits = {"rtol": rtol, "tail_rtol": _TAIL_RTOL, "dense": min(DENSE, 16 * order)}
    triplets = hankel_triplets(taps, rows, length - rows + 1, order, **limits)
    sigma = to_numpy(triplets.sigma)
    rank = (sigma > 4 * _EPS * max(rows, length - rows) ** 0.5 * sigma[:, :1]).sum(-1)
    vectors = xp.reshape(triplets.left, (batch, order, p, rows))
    return Subspace(vectors, triplets.sigma, xp.all(triplets.converged, axis=-1), rank)


def shift_matrix(vectors: Array, *, total: bool) -> Array:
    """``A`` ``(batch, n, n)`` with ``U_up A = U_down``: in total least squares, which takes both sides as noisy, or in least squares.

    Total least squares: the n vectors that ``[U_up, U_down]`` annihilates best are ``[V_1; V_2]``, and ``A = -V_1 V_2^-1``
    (Golub & Van Loan 1980; Roy & Kailath, IEEE Trans. ASSP 37, 1989, for ESPRIT).
    """
    xp = namespace(vectors)
    batch, n, p, rows = vectors.shape
    up, down = (xp.reshape(part, (batch, n, p * (rows - 1))) for part in (vectors[..., :-1], vectors[..., 1:]))
    product = (xp.conj(up) if is_complex(up) else up) @ transpose(down)
    eye = xp.eye(n, dtype=vectors.dtype, device=vectors.device)
    # U has orthonormal columns: leaving out a block row takes its Gram matrix away
    above, below = (eye - adjoint(row) @ row for row in (transpose(vectors[..., -1]), transpose(vectors[..., 0])))
    if not total:
        return solve(above, product)
    gram = xp.concat([xp.concat([above, product], axis=-1), xp.concat([adjoint(product), below], axis=-1)], axis=-2)
    V = eigh(gram)[1][:, :, :n]
    return -transpose(solve(transpose(V[:, n:, :]), transpose(V[:, :n, :])))


def prediction_poles(taps: Array, order: int, degree: int) -> tuple[Array, Subspace]:
    """Poles ``(batch, order)`` by linear prediction of degree ``degree`` in total least squares, and the space they are judged by.

    The prediction polynomial is the vector next to the unit vector among those that the signal space of dimension ``order`` is
    orthogonal to: of least norm for its first coefficient, which parts the roots of the signal from the others (Kumaresan & Tufts,
    IEEE Trans. ASSP 30, 1982; Rahman & Yu, ibid. 35, 1987). Of its ``degree`` roots those are kept whose exponentials lie nearest
    to the signal space. With ``degree == order`` there are no others: Prony's own polynomial.
    """
    xp = namespace(taps)
    batch, p, m, length = taps.shape
    # windows of all channels are rows of one matrix: transposed, its left vectors are the windows
    space = signal_subspace(xp.reshape(taps, (batch, 1, p * m, length)), degree + 1, order)
    S = space.vectors[:, :, 0, :]
    annihilator = _least_norm(S)
    coefficients = xp.flip(annihilator, axis=-1)
    roots = polynomial_roots(coefficients)
    if degree == order:
        return roots, space
    return _nearest(roots, S, order), space


def _least_norm(S: Array) -> Array:
    """``(batch, degree + 1)`` the projection of the first unit vector, or of the last where that lies in the signal space."""
    xp = namespace(S)
    conjugate = xp.conj(S) if is_complex(S) else S
    first, last = (transpose(S) @ conjugate[:, :, k : k + 1] for k in (0, S.shape[-1] - 1))
    one = xp.arange(S.shape[-1], device=S.device)[None, :]
    first = xp.astype(one == 0, S.dtype) - first[..., 0]
    last = xp.astype(one == S.shape[-1] - 1, S.dtype) - last[..., 0]
    outside = xp.abs(first[:, :1]) > 1e-8
    chosen = xp.where(outside, first, last)
    # orthogonal to the windows without conjugation: sum_j window_j a_j = 0
    return xp.conj(chosen) if is_complex(chosen) else chosen


def _nearest(roots: Array, S: Array, order: int) -> Array:
    """The ``order`` roots ``(batch, order)`` whose exponentials make the smallest angles with the signal space, pairs kept whole."""
    host, space = to_numpy(roots), to_numpy(double(S))
    inside = np.abs(host) <= 1
    base = np.where(inside, host, 1 / np.where(inside, 1.0, host))
    table = base[:, :, None] ** np.arange(space.shape[-1])
    table = np.where(inside[:, :, None], table, table[:, :, ::-1])
    table /= np.linalg.norm(table, axis=-1, keepdims=True)
    coordinates = table @ np.swapaxes(space.conj(), -1, -2)
    distance = np.linalg.norm(table - coordinates @ space, axis=-1)
    distance = np.where(np.isfinite(distance), distance, np.inf)
    chosen = np.stack([_pairs_kept(row, far, order, not is_complex(S)) for row, far in zip(host, distance, strict=True)])
    return from_numpy(chosen, roots)


def _pairs_kept(roots: np.ndarray, distance: np.ndarray, order: int, real: bool) -> np.ndarray:
    """The nearest ``order`` roots, conjugates as neighbours, the upper one first; where a pair does not fit, a real one does."""
    chosen: list[complex] = []
    nearest = [complex(z) for z in roots[np.argsort(distance, kind="stable")]]
    for z in nearest:
        pair = real and z.imag != 0
        if (pair and z.imag < 0) or len(chosen) + 1 + pair > order:
            continue
        chosen += [z, z.conjugate()] if pair else [z]
        if len(chosen) == order:
            break
    if len(chosen) < order:  # pairs alone, of an odd order: the nearest of those that are left, made real
        rest = [z for z in nearest if z not in chosen]
        chosen += [complex(z.real) for z in rest[: order - len(chosen)]]
    return np.asarray(chosen, complex)
