"""The style of all figures, and what they share: new axes, legends, axes of time and frequency."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import pi
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ssmid.systems import System

BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#8A8A8A"

STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=[BLUE, RED, GREEN, ORANGE, PURPLE, SKY])
    + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))]),
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": 100,
    "figure.figsize": (6.4, 3.8),
    "font.size": 10,
    "grid.color": "#D9D9D9",
    "grid.linewidth": 0.6,
    "image.cmap": "viridis",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "savefig.dpi": 160,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


def style() -> AbstractContextManager[None]:
    """A context in which matplotlib draws in the style of this package.

    >>> with style():
    ...     matplotlib.rcParams["axes.grid"]
    True
    """
    return matplotlib.rc_context(STYLE)


@contextmanager
def drawing(ax: Axes | None) -> Iterator[Axes]:
    """The style, and ``ax`` or the axes of a new figure."""
    with style():
        yield plt.subplots(layout="constrained")[1] if ax is None else ax


def legend(ax: Axes) -> None:
    """A legend beside the axes where the figure makes room for it (constrained layout), inside at the emptiest place where not."""
    if not ax.get_legend_handles_labels()[1]:
        return
    if ax.figure.get_layout_engine() is None:  # pyright: ignore[reportAttributeAccessIssue]
        ax.legend(loc="best", frameon=True)
    else:
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def sample_step(system: System, fs: float | bool | None) -> tuple[float, bool]:
    """The step in seconds and True, or 1 and False where time is in samples: no ``fs``, and dt 1 or unspecified."""
    if fs is True:
        return (1.0 if system.dt is True else float(system.dt)), True
    if fs is not None:
        if isinstance(fs, bool) or not isinstance(fs, (int, float, np.number)) or not 0 < fs < np.inf:
            raise ValueError(f"fs: expected a sample rate in Hz, got {fs!r}")
        return 1.0 / fs, True
    return (1.0, False) if system.dt is True or system.dt == 1 else (float(system.dt), True)


def frequency_axis(ax: Axes, omega: np.ndarray, system: System, fs: float | bool | None, scale: str) -> np.ndarray:
    """``omega`` (rad/s of the system's own dt) in the unit of the axis, which is labelled and scaled.

    fs : the sample rate in Hz; True takes it from dt (and is the only choice in continuous time).
    """
    if scale not in ("log", "linear"):
        raise ValueError(f'scale: expected "log" or "linear", got {scale!r}')
    own = 1.0 if system.dt is True else float(system.dt)
    if fs is None:
        in_samples = system.is_discrete and own == 1
        ax.set_xlabel(f"Angular frequency (rad/{'sample' if in_samples else 's'})")
        x = omega
    else:
        if fs is not True and not system.is_discrete:
            raise ValueError(f"fs: expected True for a continuous-time system (Hz), got {fs!r}")
        step = sample_step(system, fs)[0]
        x = omega / (2 * pi) * (own / step if system.is_discrete else 1.0)
        ax.set_xlabel("Frequency (Hz)")
    ax.set_xscale(scale)
    ax.margins(x=0.0 if scale == "log" else 0.01)
    if fs is not None:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda f, _: hertz(f)))
        if scale == "log" and x[x > 0].max() > 10 * x[x > 0].min():
            ax.xaxis.set_minor_formatter(NullFormatter())
    return x


def hertz(frequency: float) -> str:
    """A frequency as short as it reads well.

    >>> hertz(50.0), hertz(12_500.0), hertz(4.5e8)
    ('50', '12.5k', '450M')
    """
    size = next((size for size in (1e12, 1e9, 1e6, 1e3) if abs(frequency) >= size), 1.0)
    return f"{frequency / size:.6g}" + {1.0: "", 1e3: "k", 1e6: "M", 1e9: "G", 1e12: "T"}[size]


def time_axis(ax: Axes, count: int, system: System, fs: float | bool | None) -> np.ndarray:
    """The times of ``count`` samples in the unit of the axis, which is labelled."""
    step, in_seconds = sample_step(system, fs)
    unit, factor = time_unit(count * step) if in_seconds else ("samples", 1.0)
    ax.set_xlabel(f"Time ({unit})")
    return np.arange(count) * (step * factor)


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a time reads well, and how many of it make a second."""
    return ("s", 1.0) if seconds >= 1 or seconds == 0 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)


def logarithmic(ax: Axes) -> None:
    """A logarithmic y axis that reads well: within two decades plain numbers, and no deeper than double precision."""
    ax.set_yscale("log")
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.get_lines()])
    values = values[np.isfinite(values) & (values > 0)]
    if values.size and values.max() < 100 * values.min():
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        ax.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    elif values.size:
        ax.set_ylim(bottom=max(ax.get_ylim()[0], 1e-17 * values.max()))


def decibel(magnitude: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 20 * np.log10(magnitude)


def limit_span(ax: Axes, span: float) -> None:
    """Limits that show all lines of ``ax``, down to ``span`` below the highest point."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.get_lines()])
    values = values[np.isfinite(values)]
    if values.size:
        top, bottom = values.max(), max(values.min(), values.max() - span)
        pad = 0.05 * max(top - bottom, 6.0)
        ax.set_ylim(bottom - pad, top + pad)
