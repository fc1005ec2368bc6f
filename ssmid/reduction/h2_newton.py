"""The l2-optimal poles of many rational approximations at once: Newton's method in a trust region, every derivative in closed form.

Residues are eliminated (variable projection: Golub and Pereyra, SIAM J. Numer. Anal. 10, 1973), which leaves the squared error
``E = |g|^2 - F`` as a function of the poles alone. With the Blaschke product B of the poles, the best approximation of given poles
leaves the error ``B eta``, eta analytic in the disk, and everything that Newton's method asks for is made of

    alpha_j = eta(p_j),   slope_j = eta'(p_j),   rho_j = r_j B'(p_j)

(r_j the residues): no Gram matrix is solved, because the inverse of a Cauchy matrix and all of its derivatives are again products
of differences of poles. The condition ``alpha = 0`` is that of Meier and Luenberger (IEEE Trans. Automat. Control 12, 1967).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ssmid._array import Array, from_numpy, namespace, quiet, to_numpy
from ssmid.kernels.compiler import fused
from ssmid.kernels.rational_derivatives import rational_derivatives
from ssmid.kernels.trust_region import shifted_step as fused_step
from ssmid.linalg import eigh
from ssmid.reduction.h2_poles import Chart, arranged, chart

_FIRST_RADIUS, _LARGEST_RADIUS = 0.3, 2.0
"""For one pole, in the hyperbolic metric; for d poles the root of d times as much."""

_PERTURBATION = 0.3
"""Standard deviation of a restart's steps, in the hyperbolic metric: .05 to .8 found the same best minima of a building's model."""
_NOTHING_EXPLAINED = 1e-9
"""The part of the squared norm, to rounding of long sums."""
_RADII = 1 - 0.25 ** np.arange(1, 9)
"""Of circles of poles that decay within 4 to 65,536 samples."""
_SETTLED = 1e-6
"""The largest cosine that still counts as converged where rounding ends the search."""


@dataclasses.dataclass(frozen=True, eq=False)
class Local:
    """What an original looks like from a set of poles ``(batch, d)``: zeros where a pole is not live.

    error : ``(batch,)`` squared   noise, blur : ``(batch,)`` the rounding of it, and of ``rho alpha`` times the distance to the circle
    """

    error: Array
    noise: Array
    blur: Array
    rho: Array
    alpha: Array
    slope: Array

    def where(self, chosen: Array, other: Local) -> Local:
        """This where ``chosen``, ``other`` elsewhere."""
        xp = namespace(self.error)
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return Local(*(xp.where(chosen if a.ndim == 1 else chosen[:, None], a, b) for a, b in pairs))


class Source(Protocol):
    """The originals of a batch, strictly proper, as power series ``g(w)`` in the unit disk; of complex banks the conjugate series."""

    @property
    def energy(self) -> Array:
        """``(batch,)`` the squared norms."""
        ...

    def take(self, chosen: Array) -> Source:
        """Those of some batch elements."""
        ...

    def __call__(self, poles: Array, live: Array) -> Local: ...

    def sections(self, poles: Array, live: Array) -> Array:
        """``(batch, K, 2)`` the coefficients of the best approximation in the all-pass cascade of the poles (h2_realization.py)."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """Where the search ended.

    poles, live : ``(batch, d)``   error : ``(batch,)`` squared   converged, iterations : ``(batch,)``
    condition : ``(batch,)`` of the Hessian, infinite where it is not positive
    energy : ``(batch,)`` of the originals   history : ``(batch, k)`` squared errors
    """

    poles: Array
    live: Array
    error: Array
    converged: Array
    iterations: Array
    condition: Array
    energy: Array
    history: Array

    def take(self, rows: Array) -> Optimum:
        """Those of some batch elements."""
        return Optimum(*(namespace(self.error).take(getattr(self, f.name), rows, axis=0) for f in dataclasses.fields(Optimum)))

    def where(self, chosen: Array, other: Optimum) -> Optimum:
        """This where ``chosen``, ``other`` elsewhere; the shorter history stays at its end."""
        xp, longest = namespace(self.error), max(o.history.shape[-1] for o in (self, other))
        mine, theirs = (
            dataclasses.replace(o, history=xp.concat([o.history] + [o.history[:, -1:]] * (longest - o.history.shape[-1]), axis=-1))
            for o in (self, other)
        )
        pairs = ((getattr(mine, f.name), getattr(theirs, f.name)) for f in dataclasses.fields(Optimum))
        return Optimum(*(xp.where(chosen if a.ndim == 1 else chosen[:, None], a, b) for a, b in pairs))


def best_of(optima: list[Optimum]) -> Optimum:
    """Of several searches of the same batch the one of least error, element by element."""
    best = optima[0]
    for other in optima[1:]:
        best = other.where((other.error < best.error) | ~namespace(best.error).isfinite(best.error), best)
    return best


def search(
    source: Source,
    starts: list[tuple[Array, Array]],
    restarts: int,
    *,
    real: bool,
    max_iterations: int,
    gtol: float,
    then: Callable[[Any, Optimum], Optimum] | None = None,
) -> Optimum:
    """The best end of several starts ``(poles, live)``, each with ``restarts`` perturbed copies, all of them one batch.

    then : what is done with the optimum of all copies of the source before the best are taken
    """
    xp = namespace(starts[0][0])
    every = [s for poles, live in starts for s in [(poles, live), *(_perturbed(poles, live, k, real) for k in range(restarts))]]
    poles, live = (xp.concat([s[i] for s in every], axis=0) for i in (0, 1))
    count, copies = starts[0][0].shape[0], len(every)
    places = from_numpy(np.tile(np.arange(count), copies), poles)
    every_source = source.take(places)
    limits = {"max_iterations": max_iterations, "gtol": gtol}
    found = optimal_poles(every_source, poles, live, real=real, **limits)
    found = _from_circles(every_source, found, real, **limits)
    found = found if then is None else then(every_source, found)
    split = []
    for k in range(copies):
        parts = {f.name: getattr(found, f.name)[k * count : (k + 1) * count, ...] for f in dataclasses.fields(Optimum)}
        split.append(Optimum(**parts))
    return best_of(split)


def _from_circles(source: Source, found: Optimum, real: bool, **limits: Any) -> Optimum:
    """``found``, searched anew from poles on circles where it explains nothing, and leaves nothing to descend along.

    Balanced truncation begins a delay with poles at zero, whose responses have no sample where its own is: the worst poles there are,
    and stationary. Those that see it stand as far from the circle as the delay is long.
    """
    xp, energy = namespace(found.poles), source.energy
    rows = np.flatnonzero(to_numpy((energy - found.error <= _NOTHING_EXPLAINED * energy) & (energy > 0) & xp.any(found.live, axis=-1)))
    if not len(rows):
        return found
    few = from_numpy(rows, found.poles)
    held, own = found.take(few), source.take(few)
    orders = to_numpy(held.live).sum(-1)
    live = np.arange(held.live.shape[-1]) < orders[:, None]
    ends = [held]
    for radius in _RADII:
        poles = np.zeros(live.shape, complex)
        for row, order in enumerate(orders):
            poles[row, :order] = radius * _roots_of_unity(int(order), real)
        ends.append(optimal_poles(own, from_numpy(poles, held.poles), from_numpy(live, held.poles), real=real, **limits))
    best, back = best_of(ends), np.zeros(found.poles.shape[0], int)
    back[rows] = np.arange(len(rows))
    chosen = np.zeros(len(back), bool)
    chosen[rows] = True
    return best.take(from_numpy(back, found.poles)).where(from_numpy(chosen, found.poles), found)


def _roots_of_unity(order: int, real: bool) -> np.ndarray:
    """Points evenly spread on the unit circle; of real banks in neighbouring conjugate pairs, with 1 at the end of an odd number."""
    if not real:
        return np.exp(2j * np.pi * np.arange(order) / order)
    upper = np.exp(1j * np.pi * (2 * np.arange(order // 2) + 1 + order % 2) / order)
    return np.concatenate([np.stack([upper, upper.conj()], axis=-1).ravel(), np.ones(order % 2)])


def _perturbed(poles: Array, live: Array, seed: int, real: bool) -> tuple[Array, Array]:
    """Each pole moved at random, by the same hyperbolic steps in every element of the batch."""
    xp = namespace(poles)
    if real:
        order = arranged(poles, live, 0)
        poles, live = (xp.take_along_axis(x, order, axis=-1) for x in (poles, live))
    here = chart(poles, live, real=real)
    steps = _PERTURBATION * np.random.default_rng(seed).standard_normal(poles.shape[-1] * (1 if real else 2))
    moved = here.moved(from_numpy(np.broadcast_to(steps, (poles.shape[0], len(steps))).copy(), xp.real(poles)))
    return xp.where(live, moved, xp.zeros_like(moved)), live


def mirrored(x: Array, real: bool) -> Array:
    """The other half of a bilinear form: itself in a bank closed under conjugation, else the conjugate."""
    return x if real else namespace(x).conj(x)


@quiet
def optimal_poles(source: Source, poles: Array, live: Array, *, real: bool, max_iterations: int, gtol: float) -> Optimum:
    """Poles of least error from a start ``(batch, d)``; d even where ``real``. The error never rises.

    Stops where the cosine of every tangent with the error is at most ``gtol``, where rounding hides more, or after
    ``max_iterations``. Elements that are done leave the batch.
    """
    xp = namespace(poles)
    count = poles.shape[0]
    if poles.shape[-1] == 0:  # one that is not live, so that there is an axis to reduce
        poles, live = (xp.concat([x] + 2 * [xp.zeros((count, 1), dtype=x.dtype, device=x.device)], axis=-1) for x in (poles, live))
    if real:
        order = arranged(poles, live, 0)
        poles, live = (xp.take_along_axis(x, order, axis=-1) for x in (poles, live))
    radius = xp.full((count,), _FIRST_RADIUS * poles.shape[-1] ** 0.5, dtype=xp.float64, device=poles.device)
    state = _State(poles, live, source(poles, live), radius)
    places, energy = np.arange(count), source.energy
    result = {"converged": np.zeros(count, bool), "iterations": np.zeros(count, np.int64)}
    history = [to_numpy(state.local.error)]
    left: list[tuple[np.ndarray, _State]] = []
    done = np.zeros(count, bool)
    for iteration in range(max_iterations + 1):
        ready, failed = _done(state, gtol, source.energy)
        done[places] |= ready | failed | (iteration == max_iterations)
        stop = done[places]
        result["converged"][places[ready]] = True
        result["iterations"][places[~(ready | failed)]] += iteration < max_iterations
        if stop.all() or stop.sum() >= len(stop) / 4:
            gone, stay = (np.flatnonzero(s) for s in (stop, ~stop))
            left.append((places[gone], state.take(from_numpy(gone, poles))))
            if len(stay) == 0:
                break
            places, keep = places[stay], from_numpy(stay, poles)
            state, source = state.take(keep), source.take(keep)
        # who is done stays as it is until it leaves: no result depends on the others of the batch
        state = _advanced(source, state, iteration, real).where(from_numpy(~done[places], poles), state)
        errors = history[-1].copy()
        errors[places] = to_numpy(state.local.error)
        history.append(errors)
    back = from_numpy(np.argsort(np.concatenate([p for p, _ in left])), poles)
    whole = _State.joined([s for _, s in left]).take(back)
    return Optimum(
        whole.poles,
        whole.live,
        whole.local.error,
        from_numpy(result["converged"], poles),
        from_numpy(result["iterations"], poles),
        _condition(whole, real),
        energy,
        from_numpy(np.stack(history, axis=-1), poles),
    )


def _condition(state: _State, real: bool) -> Array:
    xp = namespace(state.poles)
    _, hessian = derivatives(chart(state.poles, state.live, real=real), state.local)
    finite = xp.all(xp.isfinite(hessian), axis=(-2, -1))
    values, _ = eigh(xp.where(finite[:, None, None], hessian, xp.zeros_like(hessian)))
    size = xp.max(xp.abs(values), axis=-1, keepdims=True)
    live = xp.astype(xp.sum(xp.astype(state.live, xp.int64), axis=-1) * (1 if real else 2), xp.int64)
    # coordinates of poles that are not live are zeros of the spectrum
    dead = xp.cumulative_sum(xp.astype(values == 0, xp.int64), axis=-1) <= values.shape[-1] - live[:, None]
    least = xp.min(xp.where((values == 0) & dead, size, values), axis=-1)
    positive = finite & (least > 0)
    return xp.where(positive, size[:, 0] / xp.where(positive, least, xp.ones_like(least)), xp.full_like(least, float("inf")))


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    poles: Array
    live: Array
    local: Local
    radius: Array

    def take(self, chosen: Array) -> _State:
        def part(x: Array) -> Array:
            return namespace(x).take(x, chosen, axis=0)

        local = Local(*(part(getattr(self.local, f.name)) for f in dataclasses.fields(Local)))
        return _State(part(self.poles), part(self.live), local, part(self.radius))

    def where(self, chosen: Array, other: _State) -> _State:
        """This where ``chosen``, ``other`` elsewhere."""
        xp, rows = namespace(self.poles), chosen[:, None]
        poles, live = xp.where(rows, self.poles, other.poles), xp.where(rows, self.live, other.live)
        return _State(poles, live, self.local.where(chosen, other.local), xp.where(chosen, self.radius, other.radius))

    @staticmethod
    def joined(states: list[_State]) -> _State:
        xp = namespace(states[0].poles)

        def whole(get: Any) -> Array:
            return xp.concat([get(s) for s in states], axis=0)

        local = Local(*(whole(lambda s, name=f.name: getattr(s.local, name)) for f in dataclasses.fields(Local)))
        return _State(whole(lambda s: s.poles), whole(lambda s: s.live), local, whole(lambda s: s.radius))


def cosines(poles: Array, local: Local, energy: Array) -> tuple[Array, Array]:
    """``(batch,)`` the largest cosine between the error and the change by a pole, and what rounding makes of it."""
    xp = namespace(poles)
    slopes = _largest_slope(poles, local)
    fitted = xp.clip(energy - local.error, min=0.0)
    size = xp.sqrt(fitted * xp.clip(local.error, min=0.0))
    safe = xp.where(size > 0, size, xp.ones_like(size))
    return xp.where(slopes > 0, slopes / safe, slopes), local.blur / safe


def _largest_slope(poles: Array, local: Local) -> Array:
    xp = namespace(poles)
    return xp.max(xp.abs(local.rho * local.alpha) * (1 - xp.abs(poles) ** 2), axis=-1)


def _done(state: _State, gtol: float, energy: Array) -> tuple[np.ndarray, np.ndarray]:
    """Elements that have converged, and those that cannot go on."""
    xp = namespace(state.poles)
    cosine, noise = cosines(state.poles, state.local, energy)
    # a radius of 0 says that rounding hides what is left to gain
    ready = (cosine <= gtol) | (cosine <= noise) | (energy == 0) | ((state.radius == 0) & (cosine <= _SETTLED))
    failed = (state.radius < 1e-12) | ~xp.isfinite(state.local.error)
    return to_numpy(ready), to_numpy(failed & ~ready)


def _advanced(source: Source, state: _State, turn: int, real: bool) -> _State:
    """One step of all elements; those whose error would rise stay, with a smaller radius."""
    xp = namespace(state.poles)
    poles, live, local = state.poles, state.live, state.local
    if real:
        poles, live, local = _arranged(poles, live, local, turn)
    here = chart(poles, live, real=real)
    gradient, hessian = derivatives(here, local)
    step, predicted = step_in_region(gradient, hessian, state.radius)
    length = xp.linalg.vector_norm(step, axis=-1)
    trial = here.moved(step)
    trial = xp.where(live, trial, xp.zeros_like(trial))
    new = source(trial, live)
    drop = local.error - new.error
    ratio = drop / xp.where(predicted > 0, predicted, xp.ones_like(predicted))
    # where the change is below rounding the gradient tells: it is known to a relative accuracy that the error is not
    flat = (xp.abs(drop) <= local.noise) & (predicted <= local.noise)
    smaller = _largest_slope(trial, new) < 0.5 * _largest_slope(poles, local)
    good = xp.isfinite(new.error) & xp.where(flat, smaller, (drop > 0) & (ratio > 1e-4))
    radius = xp.where(ratio < 0.25, 0.25 * xp.minimum(length, state.radius), state.radius)
    radius = xp.where((ratio > 0.75) & (length > 0.9 * state.radius), 2 * state.radius, radius)
    radius = xp.clip(xp.where(flat, state.radius, radius), max=_LARGEST_RADIUS * poles.shape[-1] ** 0.5)
    radius = xp.where(good, radius, xp.minimum(radius, 0.25 * length))
    radius = xp.where(flat & ~good, xp.zeros_like(radius), radius)
    return _State(xp.where(good[:, None], trial, poles), live, new.where(good, local), radius)


def _arranged(poles: Array, live: Array, local: Local, turn: int) -> tuple[Array, Array, Local]:
    xp = namespace(poles)
    order = arranged(poles, live, turn)

    def reordered(x: Array) -> Array:
        return xp.take_along_axis(x, order, axis=-1)

    changed = dataclasses.replace(local, rho=reordered(local.rho), alpha=reordered(local.alpha), slope=reordered(local.slope))
    return reordered(poles), reordered(live), changed


def derivatives(here: Chart, local: Local) -> tuple[Array, Array]:
    """Gradient ``(batch, n)`` and Hessian ``(batch, n, n)`` of the squared error in the coordinates of a chart.

    With ``f = rho alpha`` the derivatives of F by the poles,
    ``S_jk = (rho_k alpha_j - rho_j alpha_k) / (p_j - p_k)``, ``S_jj = 2 rho_j slope_j`` and
    ``M_jk = (alpha_j alpha*_k - rho_j rho*_k) / (1 - p_j p*_k)``, the star of complex banks only. The Gram matrix of what a change
    of the poles leaves outside the span, the Gauss-Newton part, is the second term of M.
    """
    xp = namespace(here.poles)
    poles, rho, alpha = here.poles, local.rho, local.alpha
    if here.real and isinstance(here, Chart) and fused(poles, poles.shape[-1]):
        return rational_derivatives(poles, rho, alpha, local.slope, here.first, here.second)
    difference = poles[..., :, None] - poles[..., None, :]
    same = difference == 0
    S = rho[..., None, :] * alpha[..., :, None] - rho[..., :, None] * alpha[..., None, :]
    eye = xp.eye(poles.shape[-1], dtype=poles.dtype, device=poles.device)
    S = xp.where(same, xp.zeros_like(S), S / xp.where(same, xp.ones_like(S), difference)) + eye * (2 * rho * local.slope)[..., None, :]
    other = [mirrored(x, here.real) for x in (poles, rho, alpha)]
    M = alpha[..., :, None] * other[2][..., None, :] - rho[..., :, None] * other[1][..., None, :]
    M = M / (1 - poles[..., :, None] * other[0][..., None, :])
    f = rho * alpha
    if here.real:
        return -here.gradient(2 * f), -here.hessian(2 * f, 2 * (S + M), M)
    return -here.gradient(f), -here.hessian(f, S, M)


def step_in_region(gradient: Array, hessian: Array, radius: Array) -> tuple[Array, Array]:
    """The least of the quadratic model within the radius (Moré and Sorensen, SIAM J. Sci. Stat. Comput. 4, 1983) and what it promises."""
    xp = namespace(gradient)
    finite = xp.all(xp.isfinite(hessian), axis=(-2, -1)) & xp.all(xp.isfinite(gradient), axis=-1)
    hessian = xp.where(finite[:, None, None], hessian, xp.zeros_like(hessian))
    gradient = xp.where(finite[:, None], gradient, xp.zeros_like(gradient))
    values, vectors = eigh(hessian)
    return (fused_step if fused(values, values.shape[-1]) else shifted_step)(values, vectors, gradient, radius)


def shifted_step(values: Array, vectors: Array, gradient: Array, radius: Array) -> tuple[Array, Array]:
    """:func:`step_in_region` from the eigenvalues ``(batch, d)`` and eigenvectors of the Hessian: a bisection for the shift."""
    xp = namespace(values)
    along = (xp.matrix_transpose(vectors) @ gradient[..., None])[..., 0]
    size = xp.max(xp.abs(values), axis=-1, keepdims=True)
    floor = 1e-14 * size + float(xp.finfo(size.dtype).smallest_normal)
    length = xp.linalg.vector_norm(along, axis=-1, keepdims=True)
    lower = xp.clip(-values[..., :1], min=0.0) + floor
    upper = lower + length / radius[:, None] + floor
    tight = xp.linalg.vector_norm(along / (values + lower), axis=-1, keepdims=True) > radius[:, None]
    least = lower
    for _ in range(40):
        middle = xp.sqrt(lower * upper)
        long = xp.linalg.vector_norm(along / (values + middle), axis=-1, keepdims=True) > radius[:, None]
        lower, upper = xp.where(long, middle, lower), xp.where(long, upper, middle)
    shift = xp.where(tight, upper, least)
    # an unbounded model without a tight radius goes to it along the steepest curvature
    coordinates = -along / (values + shift)
    predicted = -xp.sum(coordinates * (along + values * coordinates / 2), axis=-1)
    return (vectors @ coordinates[..., None])[..., 0], predicted
