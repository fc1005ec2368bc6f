"""What a conversion lost: two responses compared, and the warning when that is more than rounding explains."""

from __future__ import annotations

import warnings

import numpy as np

from ssmid._array import from_numpy, to_numpy, width
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.polynomial import Host
from ssmid.systems import ConversionWarning, System

_WORST = {64: 1e-6, 32: 1e-3}


def warn_of_loss(verb: str, system: System, result: System, advice: str, more: Host = False, stacklevel: int = 3) -> None:
    """Emits :class:`ConversionWarning` where ``result`` is off ``system`` by more than 1e-6 of its peak (single precision: 1e-3).

    ``more``: ``(*batch,)`` elements to warn of in any case.
    """
    error = relative_error(system, result)
    lossy = (error > _WORST[width(next(iter(system.arrays.values())))]) | more
    if not lossy.any():
        return
    worst = np.max(error[lossy]) if error.ndim else error
    which = f"{int(lossy.sum())} of {lossy.size} elements" if lossy.ndim else "the system"
    warnings.warn(f"{verb}: {which} off by up to {worst:.1e} of the peak response: {advice}", ConversionWarning, stacklevel)


def relative_error(system: System, other: System) -> Host:
    """``(*batch,)`` the largest difference of two responses at 12 frequencies, relative to the peak of the first there."""
    if system.is_discrete:
        points = np.exp(1j * (np.arange(12) + 0.37) * np.pi / 12)
    else:
        radii = np.abs(to_numpy(getattr(other, "poles", getattr(system, "poles", np.zeros(0)))))
        radii = radii[np.isfinite(radii) & (radii > 0)]
        low, high = (radii.min(), radii.max()) if radii.size else (1.0, 1.0)
        points = 1j * np.geomspace(low / 4, high * 4, 12)
    points = from_numpy(points, next(iter(system.arrays.values())))
    with np.errstate(all="ignore"):
        a, b = (to_numpy(evaluate(s, points)) for s in (system, other))
        channels = min(len(system.batch_shape), len(other.batch_shape)) - max(a.ndim, b.ndim)
        difference = a - b
        peak, difference = (np.max(np.abs(np.broadcast_to(x, difference.shape)), axis=tuple(range(channels, 0))) for x in (a, difference))
        return np.where(peak > 0, difference / np.where(peak > 0, peak, 1), difference)
