"""Rational functions of given degrees nearest to samples of a transfer function, with a bulk delay kept apart.

What is minimized is the weighted sum of squares of ``exp(-s delay) b(s) / a(s) - H``. Sanathanan and Koerner (IEEE Trans. Autom.
Control 8, 1963) divide the linear problem by the denominator of the step before; their fixed point is near the minimum, not at it,
so that Levenberg's and Marquardt's iteration follows. Polynomials stand in a basis orthonormal on the points, never in powers of s.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssmid._array import Array, as_complex, astype_width, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.conversion import to_state_space
from ssmid.identification.arguments import checked_order, checked_poles, checked_stable, checked_weights
from ssmid.identification.conjugate_pairs import real_rows
from ssmid.identification.delay import checked_delay, delayed, laplace, scan_delays
from ssmid.identification.orthogonal import Basis, arnoldi
from ssmid.identification.result import Fit, told_if_unstable
from ssmid.identification.samples import RMS, Samples, samples
from ssmid.identification.stable_poles import held_inside
from ssmid.linalg import adjoint, orthonormalize, singular_values, solve, svd, triangular_factor
from ssmid.reduction.result import Change
from ssmid.systems import ZerosPolesGain

_SK_STEPS, _SCAN_STEPS, _LM_STEPS = 15, 2, 100
_SETTLED, _EXACT, _AT_LEAST = 1e-9, 1e-13, 1e-12
_INFINITE = 1e14
"""In units of the largest point, the modulus from which a zero makes no difference on the points."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RationalLeastSquaresFit(Fit):
    """A rational function of given degrees, and a delay before it.

    zpk : the same system in zeros, poles and gain   delay : ``(*batch,)`` seconds, not part of ``system``
    condition : of the least-squares problem of the last step, columns scaled
    """

    zpk: ZerosPolesGain
    delay: Array


def rational_least_squares(
    data: Any,
    values: Any = None,
    order: int | None = None,
    *,
    dt: float | bool | None = None,
    weights: Any = None,
    stable: bool = False,
    poles: Any = None,
    zeros: int | None = None,
    delay: float | str = 0.0,
) -> RationalLeastSquaresFit:
    """The rational function with ``order`` poles and at most ``zeros`` zeros that is nearest to samples in the least-squares sense.

    data, values, dt : ``(points, values)`` of s (or of z with ``dt``), or a :class:`FrequencyResponse`; ``(*batch, k)``
    zeros : degree of the numerator, ``order`` where left out   weights : ``(k,)`` or ``(*batch, k)`` positive, of the errors
    delay : seconds of bulk delay to take away first, or "estimate" (continuous time: part of the minimization; discrete: whole samples)
    poles : ``(order,)`` or ``(*batch, order)`` to start from (those of another fit), where they are nearer than Sanathanan and Koerner's
    stable : where the minimum has unstable poles, these are mirrored at the boundary of stability, and the iteration goes on from
        there through stable systems only

    The error is that at the points, delay included. A batch is one vectorized iteration, in which elements stop on their own.
    Not differentiable. Raises ValueError for an order that the points cannot determine, and for weights that are not positive.

    >>> omega = np.linspace(0.1, 10, 50)
    >>> fit = rational_least_squares(1j * omega, np.exp(-0.3j * omega) * 2 / (1j * omega + 3), order=1, zeros=0, delay="estimate")
    >>> fit.zpk.poles.round(6), round(float(fit.zpk.gain), 6), round(float(fit.delay), 6)
    (array([-3.+0.j]), 2.0, 0.3)
    """
    given = samples(data, values, dt=dt)
    checked_stable(stable)
    seconds = checked_delay(delay)
    problem = _Problem.of(given, order, zeros, weights)
    xp = namespace(given.values)
    lag = xp.zeros(given.values.shape[:-1], dtype=xp.float64, device=given.values.device) + (seconds or 0.0)
    if seconds is None:
        lag = scan_delays(given, lambda undelayed: quiet(_sanathanan_koerner)(problem.on(undelayed), _SCAN_STEPS)[2])
    start = problem.on(_undelayed(given, lag))
    with_lag = seconds is None and not given.is_discrete
    first = quiet(_sanathanan_koerner)(start, _SK_STEPS)
    if poles is not None:
        own = from_numpy(checked_poles(poles, problem.order, tuple(given.values.shape[:-1])) / given.scale, given.values)
        first = _better(quiet(_over)(start, own), first)
    found = quiet(_levenberg_marquardt)(start, *first, with_lag)
    changes: tuple[Change, ...] = ()
    if stable:
        found, changes = quiet(_kept_stable)(start, found, with_lag)
    lag = lag + found.lag / given.scale
    zpk = quiet(_factored)(start, found)
    undelayed = _undelayed(given, lag)
    zpk = zpk.map(lambda x: astype_width(x, given.bits))
    fit = RationalLeastSquaresFit(
        system=quiet(to_state_space)(zpk),
        method="rational least squares",
        order=problem.order,
        converged=found.converged & problem.sound,
        condition=found.condition,
        changes=changes,
        data=data if values is None else given,
        error=undelayed.error(zpk),
        error_kind=RMS,
        zpk=zpk,
        delay=lag,
    )
    return told_if_unstable(fit, "rational_least_squares", "stable=True gives stable ones")


def estimate_delay(data: Any, values: Any = None, *, order: int = 4, dt: float | bool | None = None) -> Array:
    """``(*batch,)`` seconds of bulk delay of samples whose rest is near a rational function of ``order``.

    data, values, dt : as of :func:`rational_least_squares`, which this is one result of. In discrete time whole samples.

    >>> omega = np.linspace(0.1, 10, 60)
    >>> round(float(estimate_delay(1j * omega, np.exp(-0.7j * omega) / (1j * omega + 1), order=1)), 6)
    0.7
    """
    return rational_least_squares(data, values, order, dt=dt, delay="estimate").delay


@quiet
def _undelayed(given: Samples, lag: Array) -> Samples:
    """Without a delay of ``lag`` ``(*batch,)`` seconds."""
    return dataclasses.replace(given, values=given.values / delayed(given, lag))


# ---------------------------------------------------------------- the problem


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """Points and values of modulus up to one, and the basis on the points; elements that are not finite hold ones.

    scale : of the points   size : ``(*batch,)`` of the values   sound : ``(*batch,)`` boolean
    """

    samples: Samples
    order: int
    zeros: int
    weights: Array
    basis: Basis
    scale: float
    size: Array
    sound: Array

    @staticmethod
    def of(given: Samples, order: int | None, zeros: int | None, weights: Any) -> _Problem:
        xp = namespace(given.values)
        order = checked_order("order", order, 0, given.distinct - 1, f"{given.distinct} complex values")
        degree = checked_order("zeros", order if zeros is None else zeros, 0, order, "a proper function of that order")
        weight = xp.ones_like(xp.real(given.values))
        if weights is not None:
            weight = weight * checked_weights(weights, tuple(given.values.shape[:-1]), 0, given.values)
        points = given.points / given.scale
        # points that are not finite, of elements of a batch, have values that are none: their results are NaN
        points = xp.where(xp.isfinite(points), points, xp.ones_like(points))
        shaped = Samples(points, given.values, given.dt)
        basis = quiet(arnoldi)(points, order, real=True)
        ones = xp.ones_like(xp.real(given.values[..., 0]))
        empty = _Problem(shaped, order, degree, weight, basis, given.scale, ones, ones > 0)
        return empty.on(given)

    def on(self, given: Samples) -> _Problem:
        """The same problem for other values at the same points."""
        xp = namespace(given.values)
        sound = xp.all(xp.isfinite(given.values) & xp.isfinite(given.points), axis=-1)
        values = xp.where(sound[..., None], given.values, xp.ones_like(given.values))
        size = xp.max(xp.abs(values), axis=-1)
        size = xp.where(size > 0, size, xp.ones_like(size))
        values = values / xp.astype(size, values.dtype)[..., None]
        return dataclasses.replace(self, samples=Samples(self.samples.points, values, given.dt), size=size, sound=sound)


def _combined(basis: Array, coefficients: Array) -> Array:
    """``(*batch, k)`` values of the polynomial with ``(*batch, n)`` coefficients."""
    return (basis[..., : coefficients.shape[-1]] @ as_complex(coefficients)[..., None])[..., 0]


# ---------------------------------------------------------------- the linear iteration


def _sanathanan_koerner(problem: _Problem, steps: int) -> tuple[Array, Array, Array]:
    """Coefficients b and a of the best of ``steps`` iterates for each element, and its misfit ``(*batch,)``."""
    xp, Q, H = namespace(problem.weights), problem.basis.values, problem.samples.values
    best: tuple[Array, Array, Array] | None = None
    divisor = xp.ones_like(xp.real(H))
    for _ in range(steps):
        weight = as_complex(problem.weights / divisor)[..., None]
        numerator, product = real_rows(weight * Q[..., : problem.zeros + 1]), real_rows(weight * Q * H[..., None])
        P = orthonormalize(numerator)
        rest = product - P @ (adjoint(P) @ product)
        span = orthonormalize(rest)
        a = svd(adjoint(span) @ rest)[2][..., -1, :]
        b = _numerator(problem, _combined(Q, a))
        misfit = _misfit(problem, b, a)
        misfit = xp.where(xp.isnan(misfit), xp.full_like(misfit, float("inf")), misfit)
        last, best = best, (b, a, misfit) if best is None else _better((b, a, misfit), best)
        if last is not None and bool(xp.all((best[2] > 0.99 * last[2]) | (best[2] <= _EXACT))):
            break
        divisor = xp.abs(_combined(Q, a))
        divisor = xp.maximum(divisor, 1e-12 * xp.max(divisor, axis=-1, keepdims=True))
    assert best is not None
    return best


def _over(problem: _Problem, poles: Array) -> tuple[Array, Array, Array]:
    """b, a and the misfit of the best function with these poles (in units of the scale)."""
    xp, basis = namespace(poles), problem.basis
    monic = xp.prod(problem.samples.points[..., None] - poles[..., None, :], axis=-1)
    a = xp.real(adjoint(basis.values) @ monic[..., None])[..., 0]
    a = xp.broadcast_to(a / xp.linalg.vector_norm(a, axis=-1, keepdims=True), (*problem.samples.values.shape[:-1], a.shape[-1]))
    b = _numerator(problem, _combined(basis.values, a))
    return b, a, _misfit(problem, b, a)


def _better(first: tuple[Array, Array, Array], second: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Element by element the one of two (b, a, misfit) whose misfit is less."""
    xp, less = namespace(first[2]), first[2] < second[2]
    b, a = (xp.where(less[..., None], x, y) for x, y in zip(first[:2], second[:2], strict=True))
    return b, a, xp.where(less, first[2], second[2])


def _numerator(problem: _Problem, denominator: Array) -> Array:
    """Coefficients of the numerator that is best over a denominator given by its values ``(*batch, k)``."""
    weight = as_complex(problem.weights) / denominator
    columns = real_rows(weight[..., None] * problem.basis.values[..., : problem.zeros + 1])
    right = real_rows((as_complex(problem.weights) * problem.samples.values)[..., None])
    P = orthonormalize(columns)
    return solve(adjoint(P) @ columns, adjoint(P) @ right)[..., 0]


def _misfit(problem: _Problem, b: Array, a: Array, factor: Array | float = 1.0) -> Array:
    xp, Q = namespace(b), problem.basis.values
    residual = factor * _combined(Q, b) / _combined(Q, a) - problem.samples.values
    return xp.linalg.vector_norm(problem.weights * xp.abs(residual), axis=-1)


# ---------------------------------------------------------------- the nonlinear iteration


@dataclasses.dataclass(frozen=True, eq=False)
class _Minimum:
    """Where the iteration ended.

    b, a : coefficients ``(*batch, .)``   lag : ``(*batch,)`` beyond what was taken away, in units of 1 / scale
    converged, condition : ``(*batch,)``
    """

    b: Array
    a: Array
    lag: Array
    converged: Array
    condition: Array


def _levenberg_marquardt(problem: _Problem, b: Array, a: Array, cost: Array, with_lag: bool, stable: bool = False) -> _Minimum:
    """Marquardt's iteration over b, a and, where asked for, the delay. Elements that have settled stand still.

    ``stable``: steps to an unstable system are refused, as those that do not lower the cost are.

    The common factor of b and a is a direction without effect, which damping leaves alone; a is kept at length one.
    """
    xp, size = namespace(b), b.shape[-1]
    omega = laplace(problem.samples)
    lag, damping = xp.zeros_like(cost), xp.full_like(cost, 1e-3)
    done, condition = ~xp.isfinite(cost) | (cost == 0), xp.ones_like(cost)
    J = xp.ones_like(b)[..., None, :]
    eye = xp.eye(size + a.shape[-1] + (1 if with_lag else 0), dtype=b.dtype, device=b.device)
    settled = xp.zeros_like(done)
    for _ in range(_LM_STEPS):
        factor = xp.exp(-omega * as_complex(lag)[..., None]) if with_lag else 1.0
        J, residual = _linearized(problem, b, a, factor, omega if with_lag else None)
        length = xp.linalg.vector_norm(J, axis=-2)
        length = xp.where(length > 0, length, xp.ones_like(length))
        J = J / length[..., None, :]
        gram = adjoint(J) @ J
        step = -solve(gram + damping[..., None, None] * eye, adjoint(J) @ residual[..., None])[..., 0] / length
        new_b, new_a = b + step[..., :size], a + step[..., size : size + a.shape[-1]]
        new_lag = lag + step[..., -1] if with_lag else lag
        factor = xp.exp(-omega * as_complex(new_lag)[..., None]) if with_lag else 1.0
        new_cost = _misfit(problem, new_b, new_a, factor)
        better = (new_cost <= cost) & ~done
        if stable:
            better = better & ~xp.any(_unstable(problem, new_a), axis=-1)
        small = better & (cost - new_cost <= _SETTLED * cost)
        settled = settled | (small & (damping < 1)) | (damping > 1e12)
        length = xp.linalg.vector_norm(new_a, axis=-1, keepdims=True)
        b = xp.where(better[..., None], new_b / length, b)
        a = xp.where(better[..., None], new_a / length, a)
        lag, cost = xp.where(better, new_lag, lag), xp.where(better, new_cost, cost)
        damping = xp.where(better, xp.maximum(damping / 5, xp.full_like(damping, 1e-14)), damping * 4)
        done = done | settled
        if bool(xp.all(done)):
            break
    spread = singular_values(triangular_factor(J))
    condition = spread[..., 0] / spread[..., -2]
    return _Minimum(b, a, lag, xp.isfinite(cost) & (settled | (cost <= _EXACT)), condition)


def _linearized(problem: _Problem, b: Array, a: Array, factor: Any, omega: Array | None) -> tuple[Array, Array]:
    """The Jacobian ``(*batch, 2 k, parameters)`` and the residual ``(*batch, 2 k)``."""
    xp, Q = namespace(b), problem.basis.values
    weight = as_complex(problem.weights)
    top, bottom = factor * _combined(Q, b), _combined(Q, a)
    columns = [(weight * factor / bottom)[..., None] * Q[..., : problem.zeros + 1], -(weight * top / bottom**2)[..., None] * Q]
    if omega is not None:
        columns.append((-omega * weight * top / bottom)[..., None])
    residual = weight * (top / bottom - problem.samples.values)
    return real_rows(xp.concat(columns, axis=-1)), real_rows(residual[..., None])[..., 0]


# ---------------------------------------------------------------- out of the basis


def _unstable(problem: _Problem, a: Array) -> Array:
    """``(*batch, n)`` which roots of the denominators are unstable, or nearer to that than their rounding."""
    return _distance(problem.basis.roots(a), problem.samples.dt) < _AT_LEAST


def _distance(poles: Array, dt: float | bool) -> Array:
    """How far poles are on the stable side, relative to their size in continuous time."""
    xp = namespace(poles)
    if dt is True or dt != 0:
        return 1 - xp.abs(poles)
    return -xp.real(poles) / xp.where(poles == 0, xp.ones_like(xp.abs(poles)), xp.abs(poles))


def _kept_stable(problem: _Problem, found: _Minimum, with_lag: bool) -> tuple[_Minimum, tuple[Change, ...]]:
    """The minimum again through stable systems, from the unstable ones' mirror images, and which poles were mirrored."""
    xp, basis, H = namespace(found.a), problem.basis, problem.samples
    poles, unstable = basis.roots(found.a), _unstable(problem, found.a)
    changes = _changes("reflected", to_numpy(poles) * problem.scale, to_numpy(unstable), "unstable")
    if not changes:
        return found, changes
    factor = xp.exp(-laplace(H) * as_complex(found.lag)[..., None])
    undelayed = dataclasses.replace(problem, samples=dataclasses.replace(H, values=H.values / factor))
    b, a, _ = _over(undelayed, held_inside(poles, H.dt, 1e3 * _AT_LEAST))
    touched = xp.any(unstable, axis=-1)[..., None]
    b, a = xp.where(touched, b, found.b), xp.where(touched, a, found.a)
    again = _levenberg_marquardt(undelayed, b, a, _misfit(undelayed, b, a), with_lag, stable=True)
    return dataclasses.replace(again, lag=again.lag + found.lag), changes


def _changes(action: str, poles: np.ndarray, which: np.ndarray, why: str) -> tuple[Change, ...]:
    found = [(index, poles[index][which[index]]) for index in np.ndindex(*poles.shape[:-1])]
    return tuple(Change(action, tuple(complex(p) for p in some), why, index) for index, some in found if len(some))


def _factored(problem: _Problem, found: _Minimum) -> ZerosPolesGain:
    """Zeros, poles and gain in the unit of time of the data; of values that all are zero, any stable poles and no gain."""
    xp, basis = namespace(found.b), problem.basis
    nothing = ~xp.any(problem.samples.values != 0, axis=-1)
    nan = xp.where(problem.sound, xp.zeros_like(problem.size), xp.full_like(problem.size, float("nan")))
    anywhere = 0.0 if problem.samples.is_discrete else -1.0
    zeros, poles = _finite(basis.roots(found.b)), basis.roots(found.a)
    gain = _gain(problem, found, zeros, poles) * problem.size * problem.scale ** (problem.order - zeros.shape[-1])
    zeros, poles = (
        xp.where(nothing[..., None], xp.full_like(x, anywhere), x) * problem.scale + as_complex(nan)[..., None] for x in (zeros, poles)
    )
    return ZerosPolesGain(zeros, poles, xp.where(nothing, xp.zeros_like(gain), gain) + nan, problem.samples.dt)


def _finite(zeros: Array) -> Array:
    """``(*batch, n)`` without as many zeros at infinity as every element has; what is left is closed under conjugation."""
    host = to_numpy(zeros)
    host = np.take_along_axis(host, np.argsort(np.abs(host), axis=-1, kind="stable"), axis=-1)
    n = int(np.sum(~(np.abs(host) > _INFINITE), axis=-1).max(initial=0, where=np.isfinite(host).all(-1)))
    kept = host[..., :n]
    paired = (np.sum(np.imag(kept) > 0, axis=-1) == np.sum(np.imag(kept) < 0, axis=-1)) | ~np.isfinite(host).all(-1)
    return from_numpy(kept, zeros) if host.size and paired.all() else zeros


def _gain(problem: _Problem, found: _Minimum, zeros: Array, poles: Array) -> Array:
    """``(*batch,)`` the gain with which the factors have the values that b / a has on the points.

    The quotient of leading coefficients would be that of exact roots; of a strictly proper function it is rounding.
    """
    xp, Q, x = namespace(found.b), problem.basis.values, problem.samples.points[..., None]
    factors = xp.prod(x - zeros[..., None, :], axis=-1) / xp.prod(x - poles[..., None, :], axis=-1)
    largest = xp.max(xp.abs(factors), axis=-1)
    factors = factors / as_complex(largest)[..., None]
    values = _combined(Q, found.b) / _combined(Q, found.a)
    return xp.real(xp.sum(xp.conj(factors) * values, axis=-1)) / xp.sum(xp.abs(factors) ** 2, axis=-1) / largest
