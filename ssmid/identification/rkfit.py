"""RKFIT: common poles of sampled transfer functions, relocated through an orthonormal basis of rational functions.

Berljafa & Güttel (SIAM J. Sci. Comput. 39, 2017): with V the rational functions over the poles at hand, orthonormal on the points, the
function v in V for which ``F v`` is nearest to V again has its zeros near the poles of F. They are the poles of the next step. It is
the fixed point of vector fitting, in a basis whose condition does not depend on the poles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ssmid._array import (
    Array,
    astype_width,
    from_numpy,
    in_threads,
    namespace,
    quiet,
    to_numpy,
)
from ssmid.analysis.polynomial import Host
from ssmid.identification.arguments import checked_count, checked_order, checked_poles, checked_stable, checked_weights
from ssmid.identification.delay import laplace
from ssmid.identification.orthonormal_bank import Refit, refitted
from ssmid.identification.orthonormal_fit import rational_basis, real_rows, relocated_poles
from ssmid.identification.padding import states_in_use
from ssmid.identification.partial_fractions import RationalFit, as_state_space, closed, fit_residues, reflected
from ssmid.identification.result import told_if_unstable
from ssmid.identification.samples import RMS, Samples, samples
from ssmid.reduction.result import Change
from ssmid.systems import Modal

_SETTLED, _EXACT = 1e-9, 1e-14


def rkfit(
    data: Any,
    values: Any = None,
    order: int | None = None,
    *,
    poles: Any = None,
    weights: Any = None,
    dt: float | bool | None = None,
    iterations: int = 20,
    stable: bool = True,
    mimo: bool = False,
    shared: int = 0,
) -> RationalFit:
    """Samples fitted by partial fractions whose poles are relocated until they stand still. Not differentiable.

    data, values, dt : ``(points, values)`` of s (or of z with ``dt``), or a :class:`FrequencyResponse`; ``(*batch, k)``
    order : the number of poles; that of ``poles`` where these are given
    poles : ``(order,)`` closed under conjugation, to start from (another fit's: ``fit.modal.poles``); lightly damped ones over the
        points where left out
    weights : ``(k,)`` or ``(*batch, k)`` positive, of the errors   stable : unstable poles are mirrored after every step
    mimo : the last two batch axes are outputs and inputs of one system with common poles
    shared : the last ``shared`` batch axes have common poles, and stay systems of their own

    Of all steps the one of least error is kept. ``converged``: no pole moves by more than 1e-9 of the largest; where data are noisy
    the fixed point of the iteration is near the least-squares fit, which :func:`ssmid.rational_least_squares` goes on to.
    Raises ValueError for orders that the points cannot determine.

    >>> omega = np.linspace(0.1, 10, 50)
    >>> fit = rkfit(1j * omega, 1 / (1j * omega + 2) + 1 / ((1j * omega + 0.1) ** 2 + 9), order=3)
    >>> np.sort_complex(fit.modal.poles.round(8)), bool(fit.converged)
    (array([-2. +0.j, -0.1-3.j, -0.1+3.j]), True)
    """
    given = samples(data, values, dt=dt)
    batch, channels = given.batch_of_channels(mimo, shared)
    xp, shared = namespace(given.values), len(channels)
    checked_stable(stable)
    checked_count("iterations", iterations)
    weight = None if weights is None else checked_weights(weights, batch, shared, given.values)
    first = _start(given, order, poles, batch)
    problems = list(_problems(given, first, weight, batch, channels))

    def relocated(problem: tuple[Host, Host, Host, Host]) -> _Relocated:
        return _relocated(*problem, dt=given.dt, iterations=iterations, stable=stable)

    results = in_threads(relocated, problems)
    moved = np.asarray([r.poles for r in results], complex).reshape(*batch, first.shape[-1])
    found = from_numpy(moved, given.values) * given.scale
    modal, condition = fit_residues(given, found, weights=_aligned(weight, batch, shared), shared=shared)
    refit, modal, size = _orthonormal(given, modal, condition, problems, batch, stable)
    system = refit.into(as_state_space(modal, mimo=mimo), batch, channels, given.scale, size, mimo=mimo)
    bits = given.bits
    changes = [
        Change("reflected", tuple((r.mirrored * given.scale).tolist()), "unstable", index)
        for index, r in zip(np.ndindex(*batch), results, strict=True)
        if len(r.mirrored)
    ]
    error, converged, told = given.error(modal, coupled=mimo), np.asarray([r.converged for r in results], bool), to_numpy(condition)
    if refit.states:
        error, told = given.error(system, coupled=mimo), told.reshape(-1).copy()
        refit.put(np.zeros(size.shape), told, converged, np.zeros(len(problems)))
    condition = from_numpy(told.reshape(batch), given.values)
    converged = from_numpy(converged.reshape(batch), given.values)
    one_a_channel = xp.zeros(error.shape, dtype=xp.bool, device=error.device)
    fit = RationalFit(
        system=system.map(lambda x: astype_width(x, bits)),
        method="RKFIT",
        order=states_in_use(system) if mimo else system.order,
        converged=converged if mimo else converged[(..., *(None,) * shared)] | one_a_channel,
        condition=condition if mimo else condition[(..., *(None,) * shared)] + xp.zeros_like(error),
        changes=tuple(changes),
        data=data if values is None else given,
        error=error,
        error_kind=RMS,
        modal=modal.map(lambda x: astype_width(x, bits)),
    )
    return told_if_unstable(fit, "rkfit", "stable=True gives stable ones")


def _start(given: Samples, order: int | None, poles: Any, batch: tuple[int, ...]) -> Host:
    """``(*batch, order)`` poles in units of the scale."""
    start = None if poles is None else checked_poles(poles, order, batch) / given.scale
    order = checked_order("order", order if start is None else start.shape[-1], 1, given.count - 1, f"{given.count} points")
    return _spread(given, order) if start is None else start


def _aligned(weights: Array | None, batch: tuple[int, ...], shared: int) -> Array | None:
    """Weights of systems with an axis for each of their channels."""
    if weights is None or weights.ndim == 1:
        return weights
    return weights[(..., *(None,) * shared, slice(None))]


def _problems(
    given: Samples, first: Host, weight: Array | None, batch: tuple[int, ...], channels: tuple[int, ...]
) -> Iterator[tuple[Host, Host, Host, Host]]:
    """Points, values of all channels, weights and poles of each element, in units of the scale and of the largest value."""
    count = prod(channels)
    values = to_numpy(given.values).reshape(*batch, count, given.count)
    points = np.broadcast_to(to_numpy(given.points) / given.scale, given.values.shape).reshape(values.shape)
    weights = np.ones(given.count) if weight is None else to_numpy(_aligned(weight, batch, len(channels)))
    weights = np.broadcast_to(weights, given.values.shape).reshape(values.shape)
    poles = np.broadcast_to(first, (*batch, first.shape[-1]))
    for index in np.ndindex(*batch):
        largest = np.abs(values[index]).max()
        size = largest if 0 < largest < np.inf else 1.0
        yield points[index][0], values[index] / size, weights[index], closed(poles[index])


def _orthonormal(
    given: Samples, modal: Modal, condition: Array, problems: list[tuple[Host, Host, Host, Host]], batch: tuple[int, ...], stable: bool
) -> tuple[Refit, Modal, Host]:
    """States in an orthonormal basis for the elements that lose digits as partial fractions, which these are then the nearest to;
    the partial fractions of all, and the size ``(b, c)`` of the values."""
    b, d, k = prod(batch), modal.poles.shape[-1], given.count
    values = to_numpy(given.values).reshape(b, prod(given.values.shape[len(batch) : -1]), k)
    size = np.abs(values).max(axis=(1, 2), initial=0.0)[:, None] + np.zeros(values.shape[:2])
    size[~(size > 0) | ~np.isfinite(size)] = 1.0
    error = to_numpy(given.error(modal)).reshape(size.shape)
    P, R, D = modal.poles, modal.residues, modal.feedthrough
    flat = (to_numpy(a).reshape(shape) for a, shape in ((P, (b, 1, d)), (R, (*size.shape, d)), (D, size.shape)))
    poles, residues, feedthrough = (a / unit for a, unit in zip(flat, (given.scale, given.scale * size[..., None], size), strict=True))
    scaled = Modal(poles, residues, feedthrough, modal.dt, modal.real)
    refit = refitted(scaled, error, to_numpy(condition).reshape(b), lambda i: problems[i][:3], feedthrough=True, stable=stable)
    if refit.states:
        m = refit.modal
        arrays = m.poles * given.scale, m.residues * size[..., None] * given.scale, m.feedthrough * size
        shaped = (from_numpy(a.reshape(old.shape), given.values) for a, old in zip(arrays, (P, R, D), strict=True))
        modal = Modal(*shaped, dt=modal.dt, real=modal.real)
    return refit, modal, size


# ---------------------------------------------------------------- one element, on the host


@dataclasses.dataclass(frozen=True)
class _Relocated:
    """poles : of the step whose error is least   mirrored : unstable ones in that step, before they were mirrored"""

    poles: Host
    mirrored: Host
    converged: bool


@quiet
def _relocated(points: Host, values: Host, weights: Host, poles: Host, dt: float | bool, iterations: int, stable: bool) -> _Relocated:
    best, mirrored, least, moved = poles, poles[:0], np.inf, np.inf
    nothing = _Relocated(np.full(len(poles), np.nan + 0j), poles[:0], False)
    if not all(np.isfinite(x).all() for x in (points, values, weights)):
        return nothing
    for _ in range(iterations):
        try:
            new = relocated_poles(points, values, weights, poles)
        except np.linalg.LinAlgError:
            break
        if not np.isfinite(new).all():
            break
        inside = reflected(new, dt) if stable else new
        moved = max(np.abs(inside[:, None] - poles).min(0).max(initial=0), np.abs(inside[:, None] - poles).min(1).max(initial=0))
        poles, error = closed(inside), _error(points, values, weights, inside)
        if error < least:
            best, mirrored, least = poles, new[inside != new], error
        if moved <= _SETTLED * np.abs(poles).max() or error <= _EXACT:
            break
    return _Relocated(best, mirrored, bool(moved <= _SETTLED * np.abs(best).max() or least <= _EXACT))


def _error(points: Host, values: Host, weights: Host, poles: Host) -> float:
    V = rational_basis(points, poles)[0]
    total = 0.0
    for value, weight in zip(values, weights, strict=True):
        Q = np.linalg.qr(real_rows(weight[:, None] * V))[0]
        right = real_rows((weight * value)[:, None])
        total += float(np.sum((right - Q @ (Q.T @ right)) ** 2))
    return (total / values.size) ** 0.5


def _spread(given: Samples, order: int) -> Host:
    """``(order,)`` lightly damped poles spread over the points as these are (their quantiles), in units of the scale."""
    angles = to_numpy(laplace(given))
    step = 0.0 if given.dt is not True and given.dt == 0 else 1.0 if given.dt is True else float(given.dt)
    omega = np.unique(np.abs(np.imag(angles)))
    omega = omega / (given.scale if step == 0 else 1.0)
    chosen = np.quantile(omega, (np.arange(order // 2) + 0.5) / max(1, order // 2))
    s = np.concatenate([(-0.01 + 1j) * np.maximum(chosen, 1e-3 * omega.max()), -np.full(order % 2, omega.max() + 0j)])
    return closed(np.exp(s * step) if step else s)
