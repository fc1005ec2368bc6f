"""Bode, Nyquist and group delay."""

from __future__ import annotations

from math import pi
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from ssmid._array import to_numpy
from ssmid.analysis import spectrum
from ssmid.analysis.characteristics import poles
from ssmid.analysis.spectrum import frequency_response
from ssmid.plot.style import GREY, RED, decibel, drawing, frequency_axis, legend, limit_span, style, time_unit
from ssmid.systems import FrequencyResponse, ImpulseResponse, StateSpace, System

_MOST_CURVES = 32

Curves = tuple[np.ndarray, np.ndarray, list[str | None]]


def bode(
    system: System, omega: Any = None, *, axes: tuple[Axes, Axes] | None = None, fs: float | bool | None = None, scale: str = "log",
    label: str | None = None, span: float = 120.0,
) -> tuple[Axes, Axes]:
    """Magnitude above phase, in a pair of axes with one frequency axis. Returns the pair.

    Arguments as for :func:`bode_magnitude`; ``axes`` is the pair to draw into.
    """
    if axes is None:
        with style():
            _, pair = plt.subplots(2, 1, sharex=True, figsize=(6.4, 4.8), layout="constrained", gridspec_kw={"height_ratios": [3, 2]})
            axes = (pair[0], pair[1])
    curves = _response(system, omega, scale)
    with style():
        _magnitudes(axes[0], system, curves, fs, scale, label, span)
        _phases(axes[1], system, curves, fs, scale, None)
    axes[0].set_xlabel("")
    if legend_below := axes[1].get_legend():
        legend_below.remove()  # the same as above
    axes[0].figure.align_ylabels(axes)  # pyright: ignore[reportAttributeAccessIssue]
    return axes


def bode_magnitude(
    system: System, omega: Any = None, *, ax: Axes | None = None, fs: float | bool | None = None, scale: str = "log",
    label: str | None = None, span: float = 120.0,
) -> Axes:
    """``20 log10 |H|`` over frequency, one curve for each channel.

    omega : rad/s; when left out the response's own frequencies, or a grid that follows the poles so that no peak is missed
    fs : axis in Hz at this sample rate (True: that of the system's dt)   scale : "log" or "linear" frequency axis
    span : dB shown below the highest point
    """
    with drawing(ax) as ax:
        _magnitudes(ax, system, _response(system, omega, scale), fs, scale, label, span)
    return ax


def bode_phase(
    system: System, omega: Any = None, *, ax: Axes | None = None, fs: float | bool | None = None, scale: str = "log",
    label: str | None = None,
) -> Axes:
    """The unwrapped phase in degrees, one curve for each channel. Arguments as for :func:`bode_magnitude`."""
    with drawing(ax) as ax:
        _phases(ax, system, _response(system, omega, scale), fs, scale, label)
    return ax


def nyquist(
    system: System, omega: Any = None, *, ax: Axes | None = None, label: str | None = None, radius: float | None = None
) -> Axes:
    """``H`` in the complex plane for rising frequency (arrow), its mirror image for negative ones (thin), and the point -1.

    radius : half the width shown; when left out all of the curve, or its inner part where a pole on the boundary makes it endless
    """
    with drawing(ax) as ax:
        values, names, endless = _locus(system, omega)
        colors: list[Any] = []
        for row, name in zip(values, names, strict=True):
            (line,) = ax.plot(np.real(row), np.imag(row), label=_joined(label, name), linestyle="-")
            if not system.is_complex:
                ax.plot(np.real(row), -np.imag(row), color=line.get_color(), linewidth=0.7, linestyle="--")
            colors.append(line.get_color())
        sizes = np.abs(values[np.isfinite(values)])
        if radius is None:
            radius = 1.5 * max(_farthest_crossing(values), 2.0) if endless else 1.08 * max(float(sizes.max(initial=0.0)), 1.15)
        for row, color in zip(values, colors, strict=True):
            _arrow(ax, row[np.abs(row) < radius], color)
        circle = np.exp(1j * np.linspace(0, 2 * pi, 361))
        ax.plot(np.real(circle), np.imag(circle), color=GREY, linewidth=0.8, linestyle=":", zorder=1)
        ax.plot([-1], [0], marker="+", color=RED, markersize=10, markeredgewidth=1.8, linestyle="none")
        ax.set_aspect("equal", adjustable="box")
        ax.set_xlim(-radius, radius)
        ax.set_ylim(-radius, radius)
        ax.set_xlabel("Real part")
        ax.set_ylabel("Imaginary part")
        legend(ax)
    return ax


def group_delay(
    system: System, omega: Any = None, *, ax: Axes | None = None, fs: float | bool | None = None, scale: str = "log",
    label: str | None = None,
) -> Axes:
    """The group delay over frequency, in samples (dt 1 or unspecified, and no ``fs``) or in time.

    Where the delay runs off at a zero or pole next to the boundary, the axis shows the middle 98 % of the values.
    """
    with drawing(ax) as ax:
        omega, _, names = _response(system, omega, scale)
        with np.errstate(divide="ignore", invalid="ignore"):
            delay = to_numpy(spectrum.group_delay(system, omega)).reshape(len(names), -1)
        x = frequency_axis(ax, omega, system, fs, scale)
        own = 1.0 if system.dt is True else float(system.dt)
        seconds = delay if not system.is_discrete or fs in (None, True) else delay / own / float(fs)
        in_samples = system.is_discrete and fs is None and own == 1
        unit, factor = ("samples", 1.0) if in_samples else time_unit(float(np.quantile(np.abs(np.nan_to_num(seconds)), 0.98)))
        for row, name in zip(seconds * factor, names, strict=True):
            ax.plot(x, row, label=_joined(label, name))
        _limit_to_most(ax)
        ax.set_ylabel(f"Group delay ({unit})")
        legend(ax)
    return ax


# ---------------------------------------------------------------- frequencies and curves


def _magnitudes(
    ax: Axes, system: System, curves: Curves, fs: float | bool | None, scale: str, label: str | None, span: float
) -> None:
    omega, values, names = curves
    x = frequency_axis(ax, omega, system, fs, scale)
    for row, name in zip(values, names, strict=True):
        ax.plot(x, decibel(np.abs(row)), label=_joined(label, name), **_thin(x))
    limit_span(ax, span)
    ax.set_ylabel("Magnitude (dB)")
    legend(ax)


def _phases(ax: Axes, system: System, curves: Curves, fs: float | bool | None, scale: str, label: str | None) -> None:
    omega, values, names = curves
    x = frequency_axis(ax, omega, system, fs, scale)
    for row, name in zip(values, names, strict=True):
        ax.plot(x, np.degrees(np.unwrap(np.angle(row))), label=_joined(label, name), **_thin(x))
    limit_span(ax, np.inf)
    low, high = ax.get_ylim()
    steps = [s * 10**k for k in range(8) for s in ((15, 30, 45, 90) if k == 0 else (18, 36, 90))]
    ax.yaxis.set_major_locator(MultipleLocator(next(s for s in steps if (high - low) / s <= 6)))
    ax.set_ylabel("Phase (°)")
    legend(ax)


def _response(system: System, omega: Any, scale: str) -> Curves:
    """Frequencies ``(k,)``, values ``(channels, k)`` and the channels' names, on the host. A pole on the way gives infinity."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if omega is not None or isinstance(system, FrequencyResponse):
            response = frequency_response(system, omega)
        elif isinstance(system, ImpulseResponse):
            response = frequency_response(system, points=max(system.length, 1024))
        else:
            response = frequency_response(system, _grid(system, scale))
    omega, values = to_numpy(response.omega), to_numpy(response.values)
    if omega.ndim > 1:
        raise ValueError(f"expected one set of frequencies for all curves, got omega {omega.shape}")
    shape = values.shape[:-1]
    if 0 in shape:
        raise ValueError(f"expected at least one channel to draw, got batch {shape}")
    values = values.reshape(-1, values.shape[-1])
    if len(values) > _MOST_CURVES:
        raise ValueError(f"expected at most {_MOST_CURVES} curves, got batch {shape}: ssmid.plot.filter_bank shows hundreds")
    shown = (omega > 0) if scale == "log" else np.ones(omega.shape, bool)
    if isinstance(system, StateSpace) and not system.batch_shape and len(values) > 1:
        return omega[shown], values[:, shown], [f"y{i} ← u{j}" for i in range(shape[-2]) for j in range(shape[-1])]
    return omega[shown], values[:, shown], [f"{i}" for i in range(len(values))] if len(values) > 1 else [None]


def _locus(system: System, omega: Any) -> tuple[np.ndarray, list[str | None], bool]:
    """Values ``(channels, k)`` close enough together for a smooth curve, names, and whether a pole on the boundary makes it endless."""
    omega_given = omega is not None
    omega, values, names = _response(system, omega, "log")
    if omega_given or isinstance(system, (FrequencyResponse, ImpulseResponse)):
        return values, names, False
    p = to_numpy(poles(system)).reshape(-1)
    endless = bool((np.abs(np.abs(p) - 1 if system.is_discrete else np.real(p)) < 1e-9 * np.maximum(np.abs(p), 1.0)).any())
    sizes = np.abs(values[np.isfinite(values)])
    reach = np.median(sizes) if endless else sizes.max(initial=0.0)
    for _ in range(10):
        coarse = (np.abs(np.diff(values, axis=-1)) > 0.02 * reach).any(0) & (np.abs(values[:, 1:]) < 50 * reach).any(0)
        if not coarse.any() or len(omega) > 20_000:
            break
        omega = np.sort(np.concatenate([omega, np.sqrt(omega[:-1] * omega[1:])[coarse]]))
        values = _response(system, omega, "log")[1]
    return values, names, endless


def _farthest_crossing(values: np.ndarray) -> float:
    """How far from zero the curves cross the negative real axis, which decides stability and must be in the picture."""
    above, left, size = np.imag(values) > 0, np.real(values) < 0, np.abs(np.real(values))
    crosses = (above[:, 1:] != above[:, :-1]) & left[:, 1:] & left[:, :-1]
    return float(size[:, 1:][crosses].max(initial=0.0))


def _grid(system: System, scale: str) -> np.ndarray:
    """Frequencies from a tenth of the slowest mode to the Nyquist frequency (or ten times the fastest), dense at each resonance."""
    p = to_numpy(poles(system)).reshape(-1)
    p = p[np.isfinite(p)]
    if system.is_discrete:
        step = 1.0 if system.dt is True else float(system.dt)
        p = np.log(p[p != 0].astype(complex)) / step
        top = pi / step
    else:
        top = 10 * np.abs(p).max(initial=0.1)
    speeds = np.abs(p[np.abs(p) > 1e-9 * top])
    bottom = min(max(speeds.min(initial=top) / 10, 1e-6 * top), 1e-3 * top)
    base = np.geomspace(bottom, top, 800) if scale == "log" else np.linspace(0, top, 1200)
    # a lightly damped mode is a peak of width |Re p|: between the points of any fixed grid
    sharp = p[(np.abs(np.real(p)) < 0.2 * np.abs(np.imag(p))) & (np.imag(p) > 0)]
    sharp = sharp[np.argsort(np.abs(np.real(sharp) / np.imag(sharp)))[:256]]
    half_width = np.where(np.abs(np.real(sharp)) > 1e-9 * np.imag(sharp), np.abs(np.real(sharp)), 1e-4 * np.imag(sharp))
    near = np.imag(sharp)[:, None] + half_width[:, None] * np.array([-8, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 4, 8])
    grid = np.unique(np.concatenate([base, near.reshape(-1)]))
    # on the boundary itself there is no value
    for frequency in np.unique(np.imag(p[(np.abs(np.real(p)) <= 1e-9 * np.maximum(np.abs(p), 1e-3 * top)) & (np.imag(p) >= 0)])):
        grid = grid[np.abs(grid - frequency) > 1e-9 * top]
    return grid[(grid >= base[0]) & (grid <= top)]


def _thin(x: np.ndarray) -> dict[str, Any]:
    """Measured spectra of thousands of points are drawn finer and unbroken."""
    return {"linewidth": 0.7, "linestyle": "-"} if len(x) > 2000 else {}


def _joined(label: str | None, name: str | None) -> str | None:
    return " ".join(part for part in (label, name) if part) or None


def _arrow(ax: Axes, row: np.ndarray, color: Any) -> None:
    """An arrow head half-way along the curve, pointing to rising frequency."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(row)))])
    if len(row) < 2 or along[-1] == 0:
        return
    k = int(np.clip(np.searchsorted(along, along[-1] / 2), 1, len(row) - 1))
    ends = [(np.real(row[i]), np.imag(row[i])) for i in (k, k - 1)]
    ax.annotate("", *ends, arrowprops={"arrowstyle": "-|>", "color": color, "mutation_scale": 14})


def _limit_to_most(ax: Axes) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.get_lines()])
    values = values[np.isfinite(values)]
    if not values.size:
        return
    low, high = np.quantile(values, [0.01, 0.99])
    if values.max() - values.min() < 20 * (high - low):
        low, high = values.min(), values.max()
    pad = 0.08 * (high - low) or max(0.5, 0.1 * abs(high))
    ax.set_ylim(low - pad, high + pad)
