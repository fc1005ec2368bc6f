"""Newton's method over the poles of many filters at once, for any squared error that knows its derivatives, in any disk or on a line.

The search of h2_newton.py (its charts, its trust region) for errors other than that of one filter over all time: of filters that share
poles, under weights, or with poles held to less than the unit circle. A problem speaks of poles alone: derivatives by each as if it
were free of the others; the charts turn them into those by real coordinates.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from ssmid._array import Array, as_complex, from_numpy, namespace, quiet, to_numpy
from ssmid.linalg import eigh
from ssmid.reduction.h2_newton import step_in_region
from ssmid.reduction.h2_poles import Chart, arranged, chart

_FIRST_RADIUS, _LARGEST_RADIUS = 0.3, 2.0
_PERTURBATION = 0.3
_SETTLED, _SMALLEST = 1e-6, 1e-12
"""As in h2_newton.py."""
_SETTLED_APART = 1e-3
"""The cosine that the least gap leaves where several real poles meet."""
_LEAST_GAP = 1e-5
"""Of real poles, in the hyperbolic metric: where two would leave the line as a pair they meet."""


@dataclasses.dataclass(frozen=True, eq=False)
class Misfit:
    """Squared errors at a set of poles, residues eliminated.

    error, noise : ``(n,)``, and the rounding of it   first : ``(n, d)`` derivatives by the poles   second : ``(n, d, d)``
    """

    error: Array
    noise: Array
    first: Array
    second: Array

    def take(self, chosen: Array) -> Misfit:
        return Misfit(*(namespace(self.error).take(getattr(self, f.name), chosen, axis=0) for f in dataclasses.fields(self)))

    def where(self, chosen: Array, other: Misfit) -> Misfit:
        """This where ``chosen``, ``other`` elsewhere."""
        xp, values = namespace(self.error), []
        for field in dataclasses.fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            values.append(xp.where(xp.reshape(chosen, (-1,) + (1,) * (a.ndim - 1)), a, b))
        return Misfit(*values)


class Problem(Protocol):
    """What is to be approximated by real banks, whose poles stand in neighbouring pairs."""

    @property
    def energy(self) -> Array:
        """``(n,)`` the squared error of no model at all."""
        ...

    def take(self, chosen: Array) -> Problem: ...

    def __call__(self, poles: Array, live: Array) -> Misfit: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Repelled:
    """A problem with ``strength (n,) * -sum_(j<k) log |p_j - p_k|`` added to its squared error: poles keep apart.

    The Gram determinant of exponentials falls with the squares of those differences, and with it the digits of their residues.
    """

    problem: Problem
    strength: Array

    @property
    def energy(self) -> Array:
        return self.problem.energy

    def take(self, chosen: Array) -> Repelled:
        return Repelled(self.problem.take(chosen), namespace(self.strength).take(self.strength, chosen, axis=0))

    def __call__(self, poles: Array, live: Array) -> Misfit:
        xp, own = namespace(poles), self.problem(poles, live)
        others = live[:, :, None] & live[:, None, :] & from_numpy(~np.eye(poles.shape[-1], dtype=bool), poles)
        gap = xp.where(others, poles[:, :, None] - poles[:, None, :], xp.ones((), dtype=poles.dtype, device=poles.device))
        inverse = xp.where(others, 1 / gap, xp.zeros_like(gap))
        eye = xp.eye(poles.shape[-1], dtype=poles.dtype, device=poles.device)
        bend = eye * xp.sum(inverse**2, axis=-1)[:, :, None] - inverse**2
        strength = xp.astype(self.strength, poles.dtype)
        error = own.error - self.strength * xp.sum(xp.log(xp.abs(gap)), axis=(-2, -1)) / 2
        first = own.first - strength[:, None] * xp.sum(inverse, axis=-1)
        return Misfit(error, own.noise, first, own.second + strength[:, None, None] * bend)


@dataclasses.dataclass(frozen=True)
class Region:
    """Where poles may be: inside a circle of ``radius``, on the real line only where ``real``."""

    radius: float = 1.0
    real: bool = False

    def chart(self, poles: Array, live: Array) -> Chart:
        """Coordinates of ``poles / radius``."""
        scaled = poles / self.radius
        if self.real:
            return chart(scaled, namespace(live).zeros_like(live), real=True)
        return chart(scaled, live, real=True) if self.radius == 1 else _sliding(chart(scaled, live, real=True), self.radius)

    def moved(self, here: Chart, step: Array, live: Array) -> Array:
        xp = namespace(step)
        there = self.radius * (here.moved(step) if self.real or self.radius == 1 else _slid(here, step, self.radius))
        there = xp.where(live, there, xp.zeros_like(there))
        return self._spread(there, live) if self.real else there

    def derivatives(self, here: Chart, misfit: Misfit) -> tuple[Array, Array]:
        """Gradient and Hessian of the squared error in the coordinates of a chart."""
        first, second = self.radius * misfit.first, self.radius**2 * misfit.second
        return here.gradient(first), here.hessian(first, second, namespace(first).zeros_like(second))

    def _spread(self, poles: Array, live: Array) -> Array:
        """Real poles in ascending order, live ones first, none nearer to another than the least gap."""
        xp, d = namespace(poles), poles.shape[-1]
        x, limit = xp.real(poles) / self.radius, 1 - 1e-12
        x = xp.where(live, xp.atanh(xp.clip(x, min=-limit, max=limit)), xp.full_like(x, 1e3))
        ramp = _LEAST_GAP * xp.arange(d, dtype=x.dtype, device=x.device)
        x = xp.sort(x, axis=-1) - ramp
        tops = [x[..., :1]]
        for k in range(1, d):
            tops.append(xp.maximum(tops[-1], x[..., k : k + 1]))
        kept = _first_live(live)
        return as_complex(self.radius * xp.tanh(xp.where(kept, xp.concat(tops, axis=-1) + ramp, xp.zeros_like(x))))


# Conjugate pairs near a smaller circle than the unit circle slide along it: the angle is a coordinate, in the metric of the unit disk,
# which does not shrink there as that of the smaller disk does.


def _slides(here: Chart) -> Array:
    xp = namespace(here.poles)
    return here.pair & ~here.near & (xp.abs(here.poles[..., 0::2]) > _SLIDES)


_SLIDES = 0.5


def _sliding(here: Chart, radius: float) -> Chart:
    """The chart with the derivatives of ``tanh(s + x) exp(i (a + k y))`` for such pairs."""
    xp, upper = namespace(here.poles), here.poles[..., 0::2]
    mask, k = _slides(here)[..., None, None], as_complex(_turn(upper, radius))
    inside = as_complex(1 - xp.abs(upper) ** 2)
    outwards = upper / as_complex(xp.clip(xp.abs(upper), min=1e-3))
    first = [inside * outwards, 1j * k * upper]
    second = [-2 * inside * upper, 1j * k * inside * outwards, -(k**2) * upper]
    pairs = [xp.stack([xp.stack(rows, axis=-1), xp.conj(xp.stack(rows, axis=-1))], axis=-2) for rows in (first, second)]
    return dataclasses.replace(here, first=xp.where(mask, pairs[0], here.first), second=xp.where(mask, pairs[1], here.second))


def _slid(here: Chart, step: Array, radius: float) -> Array:
    xp, upper = namespace(step), here.poles[..., 0::2]
    size = xp.clip(xp.abs(upper), min=1e-3, max=1 - 1e-15)
    angle = _turn(upper, radius) * step[..., 1::2]
    turned = upper / as_complex(size) * (as_complex(xp.cos(angle)) + 1j * as_complex(xp.sin(angle)))
    there = as_complex(xp.tanh(xp.clip(xp.atanh(size) + step[..., 0::2], max=_FARTHEST))) * turned
    pairs = xp.reshape(xp.stack([there, xp.conj(there)], axis=-1), here.poles.shape)
    mask = _slides(here)
    return xp.where(xp.reshape(xp.stack([mask, mask], axis=-1), here.poles.shape), pairs, here.moved(step))


_FARTHEST = 16.0
"""Hyperbolic distance from the origin, 1 - 2.5e-14."""


def _turn(upper: Array, radius: float) -> Array:
    """The angle that is one step in the metric of the unit disk."""
    size = radius * namespace(upper).clip(namespace(upper).abs(upper), min=_SLIDES)
    return (1 - size**2) / size


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Where a search ended. poles, live : ``(n, d)``   error, converged, condition, iterations : ``(n,)``"""

    poles: Array
    live: Array
    error: Array
    converged: Array
    condition: Array
    iterations: Array


def search(
    problem: Problem, starts: list[tuple[Array, Array]], region: Region, *, restarts: int = 0, max_iterations: int, gtol: float
) -> Found:
    """The best end of several starts ``(poles, live)``, each with ``restarts`` perturbed copies, all of them one batch."""
    xp = namespace(starts[0][0])
    every = [s for poles, live in starts for s in [(poles, live), *(_perturbed(poles, live, region, k) for k in range(restarts))]]
    n, copies = starts[0][0].shape[0], len(every)
    poles, live = (xp.concat([s[i] for s in every], axis=0) for i in (0, 1))
    whole = problem if copies == 1 else problem.take(from_numpy(np.tile(np.arange(n), copies), poles))
    found = descend(whole, poles, live, region, max_iterations=max_iterations, gtol=gtol)
    if copies == 1:
        return found
    error = np.reshape(to_numpy(found.error), (copies, n))
    best = np.argmin(np.where(np.isfinite(error), error, np.inf), axis=0) * n + np.arange(n)
    return Found(*(xp.take(getattr(found, f.name), from_numpy(best, poles), axis=0) for f in dataclasses.fields(Found)))


def _perturbed(poles: Array, live: Array, region: Region, seed: int) -> tuple[Array, Array]:
    xp = namespace(poles)
    order = arranged(poles, live, 0)
    poles, live = (xp.take_along_axis(x, order, axis=-1) for x in (poles, live))
    steps = _PERTURBATION * np.random.default_rng(seed).standard_normal(poles.shape)
    return region.moved(region.chart(poles, live), from_numpy(steps, poles), live), live


@quiet
def descend(problem: Problem, poles: Array, live: Array, region: Region, *, max_iterations: int, gtol: float) -> Found:
    """Poles of least error from a start ``(n, d)``, d even. The error never rises; elements that are done leave the batch.

    Stops where the cosine of every tangent with the error is at most ``gtol`` and so is the part of the squared error that a step
    promises to take (at the circle, where a pole that would leave it arrives exponentially, the cosine alone says nothing), where
    rounding hides more, or after ``max_iterations``.
    """
    xp, n = namespace(poles), poles.shape[0]
    order = arranged(poles, live, 0)
    poles, live = (xp.take_along_axis(x, order, axis=-1) for x in (poles, live))
    radius = xp.full((n,), _FIRST_RADIUS * max(1, poles.shape[-1]) ** 0.5, dtype=xp.float64, device=poles.device)
    state = _State(poles, live, problem(poles, live), radius)
    places, converged, iterations, done = np.arange(n), np.zeros(n, bool), np.zeros(n, np.int64), np.zeros(n, bool)
    left: list[tuple[np.ndarray, _State]] = []
    for turn in range(max_iterations + 1):
        state = _arranged(state, turn)
        here = region.chart(state.poles, state.live)
        gradient, hessian = region.derivatives(here, state.misfit)
        step, predicted = step_in_region(gradient, hessian, state.radius)
        ready, failed = _done(problem, state, region, gradient, predicted, gtol)
        stop = ready | failed | (turn == max_iterations) | done[places]
        converged[places[ready]] = True
        iterations[places[~(ready | failed | done[places])]] += turn < max_iterations
        done[places] = stop
        if stop.all() or stop.sum() >= len(stop) / 4:
            gone, stay = (np.flatnonzero(s) for s in (stop, ~stop))
            left.append((places[gone], state.take(from_numpy(gone, poles))))
            if len(stay) == 0:
                break
            keep = from_numpy(stay, poles)
            places, state, problem = places[stay], state.take(keep), problem.take(keep)
            here = region.chart(state.poles, state.live)
            step, predicted = (xp.take(x, keep, axis=0) for x in (step, predicted))
        moved = _advanced(problem, state, region, region.moved(here, step, state.live), step, predicted)
        # who is done but has not left stays where it is: what is found does not depend on the others
        state = moved.where(from_numpy(~done[places], poles), state)
    back = from_numpy(np.argsort(np.concatenate([p for p, _ in left])), poles)

    def whole(parts: list[Array]) -> Array:
        return xp.take(xp.concat(parts, axis=0), back, axis=0)

    ends = [state for _, state in left]
    return Found(
        whole([s.poles for s in ends]),
        whole([s.live for s in ends]),
        whole([s.misfit.error for s in ends]),
        from_numpy(converged, poles),
        whole([_condition(s, region) for s in ends]),
        from_numpy(iterations, poles),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    poles: Array
    live: Array
    misfit: Misfit
    radius: Array

    def take(self, chosen: Array) -> _State:
        xp = namespace(self.poles)
        poles, live, radius = (xp.take(x, chosen, axis=0) for x in (self.poles, self.live, self.radius))
        return _State(poles, live, self.misfit.take(chosen), radius)

    def where(self, chosen: Array, other: _State) -> _State:
        """This where ``chosen``, ``other`` elsewhere."""
        xp, rows = namespace(self.poles), chosen[:, None]
        poles, live = xp.where(rows, self.poles, other.poles), xp.where(rows, self.live, other.live)
        return _State(poles, live, self.misfit.where(chosen, other.misfit), xp.where(chosen, self.radius, other.radius))


def _slope(poles: Array, misfit: Misfit, region: Region) -> Array:
    """``(n,)`` the largest change of half the error by a hyperbolic step of a pole.

    At the circle nothing is left to gain inside it: there what a step can change goes to zero however steep the error is.
    """
    xp = namespace(poles)
    inside = region.radius * (1 - xp.abs(poles / region.radius) ** 2)
    slopes = xp.abs(misfit.first) * inside / 2
    return xp.max(slopes, axis=-1) if poles.shape[-1] else xp.zeros_like(misfit.error)


def _done(
    problem: Problem, state: _State, region: Region, gradient: Array, predicted: Array, gtol: float
) -> tuple[np.ndarray, np.ndarray]:
    xp, error, energy = namespace(state.poles), state.misfit.error, problem.energy
    size = xp.sqrt(xp.clip(energy - error, min=0.0) * xp.clip(error, min=0.0))
    safe = xp.where(size > 0, size, xp.ones_like(size))
    slope = xp.max(xp.abs(gradient), axis=-1) / 4  # a step moves both poles of a pair
    cosine = xp.where(slope > 0, slope / safe, slope)
    # a radius of 0 says that rounding hides what is left to gain, and that of real poles that meet shrinks to nothing
    settled = _SETTLED if not region.real else _SETTLED_APART
    stuck = (state.radius == 0) | (region.real & (state.radius < _SMALLEST))
    hidden = stuck & ((cosine <= settled) | (error <= _NOTHING**2 * energy))
    ready = ((cosine <= gtol) & (predicted <= gtol * error)) | (error <= _EXACT**2 * energy) | (energy == 0) | hidden
    failed = (state.radius < _SMALLEST) | ~xp.isfinite(error)
    return to_numpy(ready), to_numpy(failed & ~ready)


_EXACT, _NOTHING = 2.0**-49, 1e-12
"""Relative errors that are rounding whatever the poles, and that may be where a step gains nothing."""


def _arranged(state: _State, turn: int) -> _State:
    xp = namespace(state.poles)
    order = arranged(state.poles, state.live, turn)
    poles, live, first = (xp.take_along_axis(x, order, axis=-1) for x in (state.poles, state.live, state.misfit.first))
    second = xp.take_along_axis(state.misfit.second, order[:, :, None], axis=-2)
    second = xp.take_along_axis(second, order[:, None, :], axis=-1)
    return dataclasses.replace(state, poles=poles, live=live, misfit=dataclasses.replace(state.misfit, first=first, second=second))


def _advanced(problem: Problem, state: _State, region: Region, trial: Array, step: Array, predicted: Array) -> _State:
    """One step of all elements; those whose error would rise stay, with a smaller radius."""
    xp, old = namespace(state.poles), state.misfit
    length = xp.linalg.vector_norm(step, axis=-1)
    live = state.live if not region.real else _first_live(state.live)
    new = problem(trial, live)
    drop = old.error - new.error
    ratio = drop / xp.where(predicted > 0, predicted, xp.ones_like(predicted))
    # where the change is below rounding the gradient tells: it is known to a relative accuracy that the error is not
    flat = (xp.abs(drop) <= old.noise) & (predicted <= old.noise)
    smaller = _slope(trial, new, region) < 0.5 * _slope(state.poles, old, region)
    good = xp.isfinite(new.error) & xp.where(flat, smaller, (drop > 0) & (ratio > 1e-4))
    radius = xp.where(ratio < 0.25, 0.25 * xp.minimum(length, state.radius), state.radius)
    radius = xp.where((ratio > 0.75) & (length > 0.9 * state.radius), 2 * state.radius, radius)
    radius = xp.clip(xp.where(flat, state.radius, radius), max=_LARGEST_RADIUS * trial.shape[-1] ** 0.5)
    radius = xp.where(good, radius, xp.minimum(radius, 0.25 * length))
    radius = xp.where(flat & ~good, xp.zeros_like(radius), radius)
    poles, live = (xp.where(good[:, None], a, b) for a, b in ((trial, state.poles), (live, state.live)))
    return _State(poles, live, new.where(good, old), radius)


def _first_live(live: Array) -> Array:
    xp = namespace(live)
    return xp.arange(live.shape[-1], device=live.device) < xp.sum(xp.astype(live, xp.int64), axis=-1, keepdims=True)


def _condition(state: _State, region: Region) -> Array:
    """``(n,)`` of the Hessian; infinite where it is not positive."""
    xp = namespace(state.poles)
    if state.poles.shape[-1] == 0:
        return xp.ones_like(state.misfit.error)
    _, hessian = region.derivatives(region.chart(state.poles, state.live), state.misfit)
    finite = xp.all(xp.isfinite(hessian), axis=(-2, -1))
    values, _ = eigh(xp.where(finite[:, None, None], hessian, xp.zeros_like(hessian)))
    size = xp.max(xp.abs(values), axis=-1)
    # coordinates of poles that are not live are zeros of the spectrum
    used = xp.sum(xp.astype(state.live, xp.int64), axis=-1)
    dead = xp.cumulative_sum(xp.astype(values == 0, xp.int64), axis=-1) <= (values.shape[-1] - used)[:, None]
    least = xp.min(xp.where((values == 0) & dead, size[:, None], values), axis=-1)
    positive = finite & (least > 0)
    found = xp.where(positive, size / xp.where(positive, least, xp.ones_like(least)), xp.full_like(least, float("inf")))
    return xp.where(used == 0, xp.ones_like(found), found)
