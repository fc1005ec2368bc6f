"""The bulk delay of sampled transfer functions: what no small rational function should be asked to imitate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ssmid._array import Array, from_numpy, namespace, to_numpy
from ssmid.identification.samples import Samples

_CANDIDATES = 400


def delayed(samples: Samples, seconds: Array) -> Array:
    """``(*batch, k)`` the factor of a delay of ``seconds`` ``(*batch,)`` at the points: ``exp(-s seconds)``, or ``z^(-seconds / dt)``."""
    xp = namespace(samples.points)
    return xp.exp(-laplace(samples) * xp.astype(seconds, samples.points.dtype)[..., None])


def laplace(samples: Samples) -> Array:
    """The points as values of s: ``log(z) / dt`` in discrete time."""
    if not samples.is_discrete:
        return samples.points
    return namespace(samples.points).log(samples.points) / (1.0 if samples.dt is True else float(samples.dt))


def scan_delays(samples: Samples, misfit: Callable[[Samples], Array]) -> Array:
    """``(*batch,)`` the delay in seconds, out of a grid, after whose removal ``misfit`` ``(*batch,)`` is least.

    The grid goes to twice the mean group delay, weighted by energy: poles add to it, a delay alone makes it. In discrete time
    delays are whole samples.
    """
    xp = namespace(samples.values)
    batch = samples.values.shape[:-1]
    longest = 2 * np.maximum(_mean_group_delay(samples), 0)
    if samples.is_discrete:
        step = 1.0 if samples.dt is True else float(samples.dt)
        most = int(np.max(np.ceil(longest / step), initial=0)) + 2
        grids = [np.full(batch, step * n) for n in np.unique(np.linspace(0, most, min(most + 1, _CANDIDATES)).astype(int))]
    else:
        # a quarter of a radian at the highest frequency: the valley of the right delay is some radians wide
        count = int(np.clip(np.max(longest, initial=0) * samples.scale / 0.25, 16, _CANDIDATES))
        grids = list(np.linspace(0, 1, count)[(..., *(None,) * len(batch))] * longest)
    costs = []
    for seconds in grids:
        undone = samples.values / delayed(samples, from_numpy(np.asarray(seconds), samples.values))
        costs.append(to_numpy(misfit(Samples(samples.points, undone, samples.dt))))
    cost = np.where(np.isnan(costs), np.inf, costs)
    best = np.take_along_axis(np.stack(grids), np.argmin(cost, axis=0)[None], 0)[0]
    return xp.asarray(from_numpy(np.asarray(best), samples.values))


def _mean_group_delay(samples: Samples) -> np.ndarray:
    """``(*batch,)`` seconds: the energy-weighted mean of ``-d phase / d omega`` between neighbouring points."""
    values, omega = to_numpy(samples.values), np.imag(to_numpy(laplace(samples)))
    turn = np.angle(values[..., 1:] * values[..., :-1].conj())
    steps = np.diff(omega, axis=-1)
    weight = np.abs(values[..., 1:] * values[..., :-1])
    total = np.sum(weight * steps, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        delay = -np.sum(weight * turn, -1) / total
    return np.where(np.isfinite(delay), delay, 0.0)


def checked_delay(delay: Any) -> float | None:
    """Seconds, or None for "estimate"; ValueError otherwise."""
    if isinstance(delay, str) and delay == "estimate":
        return None
    if isinstance(delay, str) or not np.isfinite(delay) or delay < 0:
        raise ValueError(f'delay: expected seconds >= 0, or "estimate", got {delay!r}')
    return float(delay)
