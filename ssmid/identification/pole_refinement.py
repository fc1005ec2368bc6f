"""Poles moved to where the partial fractions over them are nearest to samples, and what each pole is worth to the fit.

Variable projection (Golub & Pereyra, SIAM J. Numer. Anal. 10, 1973): residues are eliminated, and only poles remain to be found. The
Jacobian is that of Kaufman (BIT 15, 1975), the iteration Levenberg's and Marquardt's, vectorized over a batch. Channels may share
poles. All of it is for samples that are scaled: points and values of modulus up to one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, as_complex, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.identification.conjugate_pairs import complex_coefficients, real_columns, real_rows
from ssmid.identification.stable_poles import held_inside
from ssmid.linalg import adjoint, orthonormalize, solve

_SETTLED = 1e-3
_STUCK = 1e8
_DAMPING = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Samples of channels that share poles, flat and scaled, one batch axis.

    points : ``(b, k)`` complex   values : ``(b, c, k)`` complex   weights : ``(b, k)`` positive, or None
    real : of real systems, all points in the upper half plane or real   dt : as of a system
    """

    points: Array
    values: Array
    weights: Array | None
    real: bool
    dt: float | bool

    def take(self, index: Array) -> Problem:
        """The elements at ``index``."""
        xp = namespace(self.values)
        weights = None if self.weights is None else xp.take(self.weights, index, axis=0)
        return Problem(xp.take(self.points, index, axis=0), xp.take(self.values, index, axis=0), weights, self.real, self.dt)

    @property
    def paired(self) -> bool:
        """Whether points stand for their conjugates, too: of a real system, and not all on the real axis."""
        return self.real and bool(np.any(np.imag(to_numpy(self.points)) != 0))

    @property
    def along(self) -> Host:
        """``(b, k)`` the order of the points along the axis or the circle."""
        at = to_numpy(self.points)
        discrete = self.dt is True or self.dt != 0
        return np.lexsort((np.real(at), np.angle(at) if discrete else np.imag(at)), axis=-1)

    @property
    def equations(self) -> int:
        """The number of real equations of one element."""
        return 2 * self.values.shape[-1] * self.values.shape[-2]

    def rows(self, columns: Array) -> Array:
        """Weighted equations ``(b, 2 k, n)`` of ``(b, k, n)``, real ones where the system is."""
        if self.weights is not None:
            columns = columns * as_complex(self.weights)[..., None]
        return real_rows(columns) if self.real else columns


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """The least-squares fit over given poles.

    Q, R : factors of the columns, scaled to length one   x : ``(b, d + 1, c)`` their coefficients   length : ``(b, 1, d + 1)``
    residual : ``(b, rows, c)``   cost : ``(b,)`` its sum of squares
    """

    Q: Array
    R: Array
    x: Array
    length: Array
    residual: Array
    cost: Array

    def take(self, index: Array) -> Projection:
        """That of the elements at ``index``."""
        xp = namespace(self.cost)
        return Projection(*(xp.take(getattr(self, f.name), index, axis=0) for f in dataclasses.fields(self)))

    def where(self, mask: Array, other: Projection) -> Projection:
        """This where ``mask`` ``(b,)`` is set, the other elsewhere."""
        xp = namespace(self.cost)
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return Projection(*(xp.where(mask[(slice(None), *(None,) * (a.ndim - 1))], a, b) for a, b in pairs))


def project(problem: Problem, poles: Array) -> Projection:
    """The partial fractions and feedthrough over ``poles`` ``(b, d)`` that are nearest to the samples."""
    xp = namespace(poles)
    columns = 1 / (problem.points[..., None] - poles[..., None, :])
    columns = real_columns(columns, poles[..., None, :]) if problem.real else columns
    columns = problem.rows(xp.concat([columns, xp.ones_like(problem.points)[..., None]], axis=-1))
    right = problem.rows(xp.matrix_transpose(problem.values))
    length = xp.linalg.vector_norm(columns, axis=-2, keepdims=True)
    sound = xp.all(xp.isfinite(length), axis=-1, keepdims=True)
    columns = xp.where(sound, columns / xp.astype(length, columns.dtype), xp.ones_like(columns))
    Q = orthonormalize(columns)
    R = adjoint(Q) @ columns
    inner = adjoint(Q) @ right
    residual = right - Q @ inner
    cost = xp.sum(xp.abs(residual) ** 2, axis=(-2, -1))
    cost = xp.where(sound[:, 0, 0], cost, xp.full_like(cost, float("inf")))
    return Projection(Q, R, solve(R, inner), length, residual, cost)


def refine(
    problem: Problem, poles: Array, *, stable: bool = False, steps: int = 60, settled: float = _SETTLED, floor: float = 0.0
) -> tuple[Array, Array, Array]:
    """Poles ``(b, d)`` at a minimum of the misfit near the given ones, its sum of squares and whether the iteration settled, ``(b,)``.

    poles : those of a pair as neighbours, the upper one first, where the problem is real. Pairs stay pairs.
    stable : steps to unstable poles are mirrored at the boundary of stability
    settled : an element is done when a step lowers its cost by less than this part of it   floor : or when the cost is below
    """
    xp, like = namespace(poles), poles
    found, lowest, rested = to_numpy(poles).copy(), np.full(poles.shape[0], np.inf), np.zeros(poles.shape[0], bool)
    fit = project(problem, poles)
    cost, damping = fit.cost, xp.full_like(fit.cost, _DAMPING)
    active, settling = np.arange(len(found)), ~(cost > floor) | (poles.shape[-1] == 0)
    for step in range(steps + 1):
        done = to_numpy(settling)
        if step == steps or done.any():
            found[active], lowest[active], rested[active] = to_numpy(poles), to_numpy(cost), done
        if step == steps or done.all():
            break
        if done.any():
            active, keep = active[~done], from_numpy(np.flatnonzero(~done), like)
            problem, fit = problem.take(keep), fit.take(keep)
            poles, cost, damping = (xp.take(a, keep, axis=0) for a in (poles, cost, damping))
        trial = _moved(problem, poles, _step(problem, poles, fit, damping), stable)
        new = project(problem, trial)
        better = new.cost < cost
        settling = better & ((cost - new.cost <= settled * cost) | (new.cost <= floor)) | (damping > _STUCK)
        fit = new if bool(xp.all(better)) else new.where(better, fit)
        poles, cost = xp.where(better[:, None], trial, poles), xp.where(better, new.cost, cost)
        damping = xp.where(better, damping / 3, damping * 10)
    return tuple(from_numpy(a, like) for a in (found, lowest, rested))  # pyright: ignore[reportReturnType]


@quiet
def _step(problem: Problem, poles: Array, fit: Projection, damping: Array) -> Array:
    """``(b, d)`` the damped Gauss-Newton step: real and imaginary parts of pairs at their two places, where the problem is real."""
    xp, d = namespace(poles), poles.shape[-1]
    c = fit.x[:, :d, :] / xp.astype(xp.matrix_transpose(fit.length)[:, :d, :], fit.x.dtype)
    J = [slopes(problem, poles, c[..., i]) for i in range(c.shape[-1])]
    J = [j - fit.Q @ (adjoint(fit.Q) @ j) for j in J]
    gram: Array = sum(adjoint(j) @ j for j in J)
    right = sum(adjoint(j) @ fit.residual[..., i : i + 1] for i, j in enumerate(J))
    length = xp.sqrt(xp.real(xp.linalg.diagonal(gram)))
    length = xp.astype(xp.where(length > 0, length, xp.ones_like(length)), gram.dtype)
    gram = gram / (length[:, :, None] * length[:, None, :])
    eye = xp.eye(d, dtype=gram.dtype, device=gram.device)
    gram = gram + xp.astype(damping, gram.dtype)[:, None, None] * eye
    return solve(gram, right / length[..., None])[..., 0] / length


def slopes(problem: Problem, poles: Array, coefficients: Array) -> Array:
    """``(b, rows, d)`` derivatives of one channel by its poles; of a pair by its real part (first) and imaginary part."""
    x = problem.points[..., :, None]
    p, r = poles[..., None, :], as_complex(coefficients)
    if not problem.real:
        return problem.rows(r[..., None, :] / (x - p) ** 2)
    return problem.rows(real_columns(complex_coefficients(coefficients, poles)[..., None, :] / (x - p) ** 2, p))


def _moved(problem: Problem, poles: Array, step: Array, stable: bool) -> Array:
    """Poles after ``step``; pairs keep their order when they cross the real axis."""
    xp = namespace(poles)
    if not problem.real:
        new = poles + step
    else:
        new, imag = poles + complex_coefficients(step, poles), xp.imag(poles)
        size = xp.abs(xp.imag(new))
        new = as_complex(xp.real(new)) + 1j * as_complex(xp.where(imag > 0, size, xp.where(imag < 0, -size, xp.zeros_like(size))))
    return held_inside(new, problem.dt) if stable else new


def worth(fit: Projection, poles: Array, *, real: bool) -> Array:
    """``(b, d)`` by how much the cost rises when a pole goes and the others get new residues; of a pair at its upper member.

    The lower members of pairs have infinity. ``|x_j|^2 / ((R* R)^-1)_jj``, and the same with the 2 x 2 block of a pair: exact.
    """
    xp, d = namespace(poles), poles.shape[-1]
    eye = xp.eye(d + 1, dtype=fit.R.dtype, device=fit.R.device)
    inverse = solve(fit.R, xp.zeros_like(fit.R) + eye)
    H, x = inverse @ adjoint(inverse), fit.x
    own = xp.real(xp.linalg.diagonal(H))[..., :d]
    power = xp.sum(xp.abs(x[:, :d, :]) ** 2, axis=-1)
    single = power / own
    if not real:
        return single
    beside, cross = xp.roll(own, -1, axis=-1), xp.linalg.diagonal(H, offset=1)
    product = xp.sum(x[:, :d, :] * x[:, 1:, :], axis=-1)
    determinant = own * beside - cross**2
    pair = (power * beside + xp.roll(power, -1, axis=-1) * own - 2 * product * cross) / determinant
    pair = xp.where(determinant > 0, pair, xp.zeros_like(pair))
    imag = xp.imag(poles)
    return xp.where(imag > 0, pair, xp.where(imag < 0, xp.full_like(pair, float("inf")), single))
