"""The greedy part of AAA: support points one by one, weights from the smallest singular vector of the Loewner matrix.

Nakatsukasa, Sete & Trefethen (SIAM J. Sci. Comput. 40, 2018), for real systems: a support point brings its conjugate, with conjugate
value and weight, so that the unknowns are real and the samples at conjugate points are fitted unseen. The Loewner matrix has an
orthogonal factorization that is updated, as Hochman (IEEE EPEPS, 2017) does with its Gram matrix, but without squaring its condition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ssmid._array import Array, as_complex, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.identification.pole_refinement import Problem
from ssmid.linalg import adjoint, eigh, svd, triangular_factor

_LOST = 1e-2
"""Smallest eigenvalue of what is left of the orthonormal columns at which they are made anew."""
_FEW = 12
"""Columns of one matrix up to which QR is quicker than its update."""


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """What each step found, on the host, zero or (errors) NaN for elements that were done before.

    support : ``(b, n)`` indices of points   weights : for each step ``(b, unknowns)``   rms : ``(n, b)`` errors
    """

    support: Host
    weights: list[Host]
    rms: Host

    @property
    def count(self) -> int:
        return len(self.weights)

    def nodes(self, rows: Host, n: int, *, real: bool) -> Host:
        """The complex weights ``(rows, n)`` of step n."""
        found = self.weights[n - 1][rows]
        return found[:, 0::2] + 1j * found[:, 1::2] if real else found


def joined(parts: list[Steps]) -> Steps:
    """The steps of the pieces of a batch as one."""
    n = max(p.count for p in parts)
    support = np.concatenate([np.pad(p.support, ((0, 0), (0, n - p.count))) for p in parts])
    rms = np.concatenate([np.pad(p.rms, ((0, n - p.count), (0, 0)), constant_values=np.nan) for p in parts], axis=1)
    width = parts[0].weights[0].shape[-1]
    weights = [
        np.concatenate([p.weights[i] if i < p.count else np.zeros((len(p.support), width * (i + 1))) for p in parts]) for i in range(n)
    ]
    return Steps(support, weights, rms)


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """L : ``(b, rows, n)`` the Loewner matrix, zero in rows of support points   basis : ``(b, k, n)`` its denominators
    Q, R : L = Q R, Q with orthonormal columns but for the rows lost since, whose Gram matrix is G
    free : ``(b, k)`` points that are no support   allowed : ``(b, k)`` that may become one   error : ``(b, k)``
    """

    L: Array
    basis: Array
    Q: Array
    R: Array
    G: Array
    free: Array
    allowed: Array
    error: Array


@quiet
def greedy(problem: Problem, most: int, stop: Callable[[Host, Steps], Host]) -> Steps:
    """Up to ``most`` support points (pairs, of real systems).

    stop : called with the indices of the elements at work and the steps so far, says which of them are done
    """
    xp = namespace(problem.values)
    state, total = _start(problem), problem.values.shape[0]
    repeated = _has_repeated_points(problem)
    active = np.arange(total)
    support, weights, rms = np.zeros((total, most), int), [], np.full((most, total), np.nan)
    for n in range(most):
        state, chosen = _extended(problem, state, repeated)
        beta, state = _weights(problem, state)
        full = np.zeros((total, beta.shape[-1]), to_numpy(beta).dtype)
        full[active] = to_numpy(beta)
        weights.append(full)
        support[active, n] = to_numpy(chosen)
        rms[n, active] = to_numpy(xp.sqrt(xp.mean(state.error**2, axis=-1) / problem.values.shape[1]))
        exhausted = ~to_numpy(xp.any(state.allowed, axis=-1))
        done = stop(active, Steps(support[:, : n + 1], weights, rms[: n + 1])) | exhausted | ~np.isfinite(rms[n, active])
        if done.all():
            break
        if done.any():
            keep = from_numpy(np.flatnonzero(~done), problem.values)
            problem = problem.take(keep)
            state = _State(*(xp.take(getattr(state, f.name), keep, axis=0) for f in dataclasses.fields(state)))
            active = active[~done]
    n = len(weights)
    return Steps(support[:, :n], weights, rms[:n])


def _start(problem: Problem) -> _State:
    xp, F = namespace(problem.values), problem.values
    b, c, k = F.shape
    mean = xp.mean(F, axis=-1, keepdims=True)
    if problem.real:
        mean = as_complex(xp.real(mean))
    error = xp.sqrt(xp.sum(xp.abs(F - mean) ** 2, axis=1))
    if problem.weights is not None:
        error = error * problem.weights
    like = xp.real(F) if problem.real else F
    rows = 2 * c * k if problem.real else c * k
    L = xp.zeros((b, rows, 0), dtype=like.dtype, device=F.device)
    square = xp.zeros((b, 0, 0), dtype=like.dtype, device=F.device)
    free = xp.ones((b, k), dtype=xp.bool, device=F.device)
    # a point on the real axis is its own conjugate: it stays a sample
    allowed = xp.abs(xp.imag(problem.points)) > 1e-12 if problem.real else free
    return _State(L, xp.zeros((b, k, 0), dtype=F.dtype, device=F.device), L, square, square, free, allowed, error)


def _has_repeated_points(problem: Problem) -> bool:
    points = np.sort(to_numpy(problem.points), axis=-1)
    return bool((points[..., 1:] == points[..., :-1]).any())


def _extended(problem: Problem, state: _State, repeated: bool) -> tuple[_State, Array]:
    """The state with the point of largest error as support point, and its index."""
    xp, x, F = namespace(problem.values), problem.points, problem.values
    b, c, k = F.shape
    score = xp.where(state.allowed & xp.isfinite(state.error), state.error, -xp.ones_like(state.error))
    chosen = xp.argmax(score, axis=-1)
    z = xp.take_along_axis(x, chosen[:, None], axis=-1)
    f = xp.take_along_axis(F, xp.broadcast_to(chosen[:, None, None], (b, c, 1)), axis=-1)
    same = x == z
    free, allowed = state.free & ~same, state.allowed & ~same
    u = xp.where(same, xp.zeros_like(x), 1 / xp.where(same, xp.ones_like(x), x - z))
    left = (F - f) * u[:, None, :]
    if problem.real:
        v = 1 / (x - xp.conj(z))
        right = (F - xp.conj(f)) * v[:, None, :]
        new = xp.stack([left + right, 1j * (left - right)], axis=-1)
        basis = xp.stack([u + v, 1j * (u - v)], axis=-1)
    else:
        new, basis = left[..., None], u[..., None]
    scale = xp.astype(free, xp.float64) if problem.weights is None else xp.where(free, problem.weights, xp.zeros_like(problem.weights))
    new = new * as_complex(scale)[:, None, :, None]
    new = xp.stack([xp.real(new), xp.imag(new)], axis=1) if problem.real else new
    new = xp.reshape(new, (b, state.L.shape[1], new.shape[-1]))
    L, Q, G = state.L, state.Q, state.G
    n = L.shape[-1]
    keep = xp.astype(free, L.dtype)[:, None, :, None]
    L = xp.reshape(xp.reshape(L, (b, L.shape[1] // k, k, n)) * keep, L.shape)
    if Q.shape[-1]:
        G = G - _gram_of_rows(Q, chosen, k)
        Q = xp.reshape(xp.reshape(Q, (b, L.shape[1] // k, k, n)) * keep, Q.shape)
    L, basis = xp.concat([L, new], axis=-1), xp.concat([state.basis, basis], axis=-1)
    small = b == 1 and L.shape[-1] <= _FEW
    Q, R, G = _factors(L, small) if repeated or small or Q.shape[-1] < n or n < 2 else _appended(L, Q, state.R, G)
    return _State(L, basis, Q, R, G, free, allowed, state.error), chosen


def _gram_of_rows(Q: Array, chosen: Array, k: int) -> Array:
    """``q* q`` of the rows of ``Q`` that belong to the ``chosen`` points."""
    xp = namespace(Q)
    b, rows, n = Q.shape
    index = xp.broadcast_to(chosen[:, None, None, None], (b, rows // k, 1, n))
    q = xp.take_along_axis(xp.reshape(Q, (b, rows // k, k, n)), index, axis=2)[:, :, 0, :]
    return adjoint(q) @ q


def _factors(L: Array, small: bool = False) -> tuple[Array, Array, Array]:
    """The factors made anew; of a ``small`` matrix, which is quicker than to update it, without Q."""
    xp = namespace(L)
    if small:
        return L[..., :0], triangular_factor(L), L[..., :0, :0]
    Q, R = xp.linalg.qr(L, mode="reduced")
    return Q, R, xp.zeros_like(R) + xp.eye(R.shape[-1], dtype=R.dtype, device=R.device)


def _appended(L: Array, Q: Array, R: Array, G: Array) -> tuple[Array, Array, Array]:
    """The factors of ``L`` from those of all but its last columns: Gram and Schmidt, twice, in the inner product that the lost rows
    have left."""
    xp = namespace(Q)
    new = L[..., Q.shape[-1] :]
    values, vectors = eigh(G)
    if float(xp.min(values)) < _LOST:
        return _factors(L)
    inverse = (vectors / xp.astype(values, vectors.dtype)[:, None, :]) @ adjoint(vectors)
    first = inverse @ (adjoint(Q) @ new)
    rest = new - Q @ first
    second = inverse @ (adjoint(Q) @ rest)
    q, r = xp.linalg.qr(rest - Q @ second, mode="reduced")
    n, m = Q.shape[-1], new.shape[-1]
    b = Q.shape[0]
    corner = xp.zeros((b, m, n), dtype=R.dtype, device=R.device)
    R = xp.concat([xp.concat([R, first + second], axis=-1), xp.concat([corner, r], axis=-1)], axis=-2)
    eye = xp.zeros_like(r) + xp.eye(m, dtype=R.dtype, device=R.device)
    G = xp.concat([xp.concat([G, xp.matrix_transpose(corner)], axis=-1), xp.concat([corner, eye], axis=-1)], axis=-2)
    return xp.concat([Q, q], axis=-1), R, G


def _weights(problem: Problem, state: _State) -> tuple[Array, _State]:
    """The weights ``(b, n)`` of least linearized error, and the state with the errors that they leave."""
    xp = namespace(state.L)
    small = state.R
    if state.G.shape[-1]:
        values, vectors = eigh(state.G)
        root = xp.sqrt(xp.maximum(values, xp.zeros_like(values)))
        small = xp.astype(root, vectors.dtype)[:, :, None] * (adjoint(vectors) @ small)
    beta = adjoint(svd(small)[2])[..., -1]
    denominator = (state.basis @ as_complex(beta)[..., None])[..., 0]
    left = (state.L @ beta[..., None])[..., 0]
    b, c, k = problem.values.shape
    if problem.real:
        left = xp.reshape(left, (b, 2, c, k))
        size = xp.sum(left**2, axis=(1, 2))
    else:
        size = xp.sum(xp.abs(xp.reshape(left, (b, c, k))) ** 2, axis=1)
    error = xp.where(state.free, xp.sqrt(size) / xp.abs(denominator), xp.zeros_like(size))
    return beta, dataclasses.replace(state, error=error)
