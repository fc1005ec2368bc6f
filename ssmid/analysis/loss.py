"""What a conversion lost: two responses compared, and the warning when that is more than rounding explains."""

from __future__ import annotations

import warnings
from math import prod

import numpy as np

from ssmid._array import Array, from_numpy, to_numpy, width
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.polynomial import Host
from ssmid.systems import ConversionWarning, System

_WORST = {64: 1e-6, 32: 1e-3}
_RESONANCES = 8


def warn_of_loss(
    verb: str, system: System, result: System, poles: Array, advice: str, more: Host = False, stacklevel: int = 3
) -> None:
    """Emits :class:`ConversionWarning` where ``result`` is off ``system`` by more than 1e-6 of its peak (single precision: 1e-3).

    poles : those of the result, whose resonances are looked at   more : ``(*batch,)`` elements to warn of in any case
    """
    with np.errstate(all="ignore"):
        error = relative_error(system, result, poles)
    lossy = (error > _WORST[width(next(iter(system.arrays.values())))]) | more
    if not lossy.any():
        return
    worst = np.max(error[lossy]) if error.ndim else error
    which = f"{int(lossy.sum())} of {lossy.size} elements" if lossy.ndim else "the system"
    warnings.warn(f"{verb}: {which} off by up to {worst:.1e} of the peak response: {advice}", ConversionWarning, stacklevel)


def relative_error(system: System, other: System, poles: Array) -> Host:
    """``(*batch,)`` the largest difference of two responses, relative to the peak of the first, at 12 frequencies and beside its poles.

    Where the first is not finite it has nothing to lose; where only the second is infinite, everything is lost. NaN speaks for itself.
    """
    host = to_numpy(poles)
    host = np.broadcast_to(host, (*other.batch_shape, host.shape[-1]))
    if system.is_discrete:
        omega = (np.arange(12) + 0.37) * np.pi / 12
    else:
        radii = np.abs(host)
        radii = radii[np.isfinite(radii) & (radii > 0)]
        low, high = (radii.min(), radii.max()) if radii.size else (1.0, 1.0)
        omega = np.geomspace(low / 4, high * 4, 12)
    points = contour_points(system, other, host, omega)
    a, b = (to_numpy(evaluate(s, from_numpy(x, next(iter(s.arrays.values()))))) for s, x in zip((system, other), points, strict=True))
    known = np.isfinite(a)
    size, difference = np.abs(np.where(known, a, 0)), np.where(known, np.nan_to_num(np.abs(a - b), nan=0.0, posinf=np.inf), 0)
    channels = min(len(system.batch_shape), len(other.batch_shape)) - difference.ndim
    peak, difference = (np.max(np.broadcast_to(x, difference.shape), axis=tuple(range(channels, 0))) for x in (size, difference))
    return np.where(peak > 0, difference / np.where(peak > 0, peak, 1), difference)


def contour_points(system: System, other: System, poles: Host, omega: Host) -> tuple[Host, Host]:
    """Points of z or s for two systems of one response: at ``omega`` (rad a sample, or rad/s) and beside the poles that resonate most.

    A narrow filter loses its passband between the frequencies of any fixed grid. Beside a pole means as far from it as it is from
    the boundary of stability, but not so near that the rounding of the pole itself would count as a loss.
    poles : ``(*batch, n)`` with all batch axes of either system
    """
    shapes = sorted((system.batch_shape, other.batch_shape), key=len)
    batch, n = len(shapes[0]), poles.shape[-1]
    if n:
        # channels that the other system couples share their points, and mostly their poles
        poles = poles.reshape(*poles.shape[:batch], prod(poles.shape[batch:-1]), n)
        same = poles.shape[-2] > 0 and (poles == poles[..., :1, :]).all()
        poles = poles[..., 0, :] if same else poles.reshape(*poles.shape[:-2], poles.shape[-2] * n)
        reach = np.finfo(np.float32 if width(next(iter(system.arrays.values()))) == 32 else np.float64).eps ** 0.4
        size = np.abs(poles)
        distance = np.abs(1 - size) if system.is_discrete else np.abs(poles.real)
        with np.errstate(all="ignore"):
            damped = distance if system.is_discrete else distance / size
        nearest = np.argsort(np.where(size > 0, damped, np.inf), axis=-1)[..., :_RESONANCES]
        poles, distance, size = (np.take_along_axis(x, nearest, -1) for x in (poles, distance, size))
        centre = np.angle(poles) if system.is_discrete else poles.imag
        beside = centre + np.maximum(distance, reach * (1.0 if system.is_discrete else size))
        beside = np.where(np.isfinite(beside) & (size > 0), beside, omega[0]).astype(float)
        omega = np.concatenate([np.broadcast_to(omega, (*beside.shape[:-1], len(omega))), beside], axis=-1)
    points = np.exp(1j * omega) if system.is_discrete else 1j * omega
    return tuple(points if points.ndim == 1 or len(s.batch_shape) == batch else points[..., None, None, :] for s in (system, other))
