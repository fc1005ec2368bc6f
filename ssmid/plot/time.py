"""Impulse responses: before, after, and what is between them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ssmid._array import to_numpy
from ssmid.analysis.characteristics import poles
from ssmid.analysis.impulse import impulse_response
from ssmid.plot.style import BLACK, BLUE, RED, SKY, decibel, drawing, legend, limit_span, time_axis
from ssmid.reduction.result import Reduction
from ssmid.systems import FrequencyResponse, ImpulseResponse, System

_STEMS = 48
_BINS = 1500


def impulse(
    original: System | Reduction, reduced: System | None = None, *, length: int | None = None, ax: Axes | None = None,
    fs: float | bool | None = None, scale: str = "linear", span: float = 80.0, labels: tuple[str, str] = ("original", "reduced"),
) -> Axes:
    """An impulse response, and with ``reduced`` (or a whole :class:`Reduction`) the smaller one and the residual.

    length : samples shown; when left out all taps of a response, or until a system has died away
    fs : time in seconds at this sample rate (True: that of dt)   scale : "linear", or "db" for levels below the peak, ``span`` dB of them

    The legend gives the residual's l2 norm relative to the original's, over the samples shown.
    """
    if scale not in ("linear", "db"):
        raise ValueError(f'scale: expected "linear" or "db", got {scale!r}')
    if isinstance(original, Reduction):
        original, reduced = original.original, original.system
    if length is None:
        length = impulse_response(original).length if isinstance(original, (ImpulseResponse, FrequencyResponse)) else _settled(original)
    before = _taps(original, length)
    curves: list[tuple[str | None, np.ndarray, dict]] = [(None, before, {"color": BLUE, "linestyle": "-", "linewidth": 1.2})]
    if reduced is not None:
        after = _taps(reduced, length)
        residual = before - after
        size = float(np.linalg.norm(before))
        share = f" ({100 * float(np.linalg.norm(residual)) / size:.2g} % in l2)" if size else ""
        # a thin line over a broad pale one shows both where they agree
        curves = [
            (labels[0], before, {"color": SKY, "linestyle": "-", "linewidth": 2.4}),
            (labels[1], after, {"color": RED, "linestyle": "-", "linewidth": 0.9}),
            (f"residual{share}", residual, {"color": BLACK, "linestyle": "-", "linewidth": 0.6, "zorder": 1.5}),
        ]
    with drawing(ax) as ax:
        t = time_axis(ax, length, original, fs)
        if scale == "db":
            _levels(ax, t, curves, float(np.abs(before).max()), span)
        else:
            for name, taps, options in curves:
                ax.plot(t, taps, label=name, marker="." if length <= _STEMS else None, **options)
            if length <= _STEMS:
                ax.vlines(t, 0, before, color=BLUE, linewidth=0.6)
            ax.axhline(0, color=BLACK, linewidth=0.5, zorder=1)
            ax.set_ylabel("Amplitude")
        ax.margins(x=0.01)
        legend(ax)
    return ax


def _levels(ax: Axes, t: np.ndarray, curves: list[tuple[str | None, np.ndarray, dict]], peak: float, span: float) -> None:
    """Levels in dB below the peak; of long responses the highest level of each bin, which is what a reader sees of them."""
    for name, taps, options in curves:
        starts = np.linspace(0, len(t), min(_BINS, len(t)), endpoint=False).astype(int)
        ax.plot(t[starts], decibel(np.maximum.reduceat(np.abs(taps), starts) / (peak or 1.0)), label=name, **options)
    limit_span(ax, span)
    ax.set_ylabel("Level (dB re peak)")


def _taps(system: System, length: int) -> np.ndarray:
    taps = to_numpy(impulse_response(system, length).taps)
    if taps.size != length:
        raise ValueError(f"expected one response, got batch {taps.shape[:-1]}: take system.map(lambda a: a[i]), or plot.filter_bank")
    if np.iscomplexobj(taps):
        raise ValueError(f"expected a real response, got dtype {taps.dtype}: plot its real and imaginary parts")
    return taps.reshape(-1).astype(float)


def _settled(system: System) -> int:
    """Samples until the response stays below a thousandth of its peak, 16 to 4096; 256 of an unstable one."""
    radius = float(np.abs(to_numpy(poles(system))).max(initial=0.0))
    if radius >= 1:
        return 256
    taps = np.abs(_taps(system, int(np.clip(np.log(1e-6) / np.log(radius), 16, 4096)) if radius > 0 else 16))
    audible = np.flatnonzero(taps > 1e-3 * taps.max(initial=0.0))
    return max(16, int(audible[-1]) + 1) if audible.size else 16
