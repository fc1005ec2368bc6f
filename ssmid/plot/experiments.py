"""Results of experiments: what was reached over a size, and the curves of several seeds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from ssmid.plot.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, drawing, legend, logarithmic

_MARKERS = "osD^vP*X"
_DASHES = ("-", "--", "-.", ":")
_COLORS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
_APART = 0.07
"""Of the length of the axis, between two ticks."""
Values = float | None | Sequence[float | None]
Series = Mapping[float, Values]


def sweep(
    series: Mapping[str, Series], *, published: Mapping[str, Series] | None = None, levels: Mapping[str, float] | None = None,
    scale: str = "linear", ax: Axes | None = None,
) -> Axes:
    """A result over a size, such as the order: a line for each name, with open markers where its published values lie.

    series : by name the value at each size, or those of several seeds, of which the median is drawn and the range; None is left out
    published : the same for some of the names, or for others   levels : horizontal lines by name
    scale : of the results, "linear" or "log"

    Sizes stand on a logarithmic axis with a tick at each. Raises ValueError for another scale.

    >>> ax = sweep({"rtf": {64: [0.2, 0.3], 256: 1.0}}, published={"rtf": {256: 0.9}}, levels={"chance": 0.1})
    >>> [line.get_label() for line in ax.get_lines() if not line.get_label().startswith("_")]
    ['rtf', 'rtf, published', 'chance']
    """
    if scale not in ("linear", "log"):
        raise ValueError(f'scale: expected "linear" or "log", got {scale!r}')
    published, levels = published or {}, levels or {}
    names = list(dict.fromkeys([*series, *published]))
    with drawing(ax) as ax:
        for number, name in enumerate(names):
            marker, look = _MARKERS[number % len(_MARKERS)], _look(number)
            points = _known(series.get(name, {}))
            if points:
                low, middle, high = (np.array([f(v) for v in points.values()]) for f in (min, np.median, max))
                ax.plot(list(points), middle, marker=marker, label=name, **look)
                if (high > low).any():
                    ax.vlines(list(points), low, high, color=look["color"], linewidth=1.0, linestyle="-")
            elsewhere = _known(published.get(name, {}))
            if elsewhere:
                middle = [float(np.median(v)) for v in elsewhere.values()]
                look |= {"marker": marker, "markerfacecolor": "white", "linestyle": ":", "linewidth": 0.8}
                ax.plot(list(elsewhere), middle, label=f"{name}, published", zorder=1.5, **look)
        for number, (name, level) in enumerate(levels.items()):
            ax.axhline(level, color=GREY, linewidth=1.0, linestyle=_DASHES[number % len(_DASHES)], label=name, zorder=1)
        if scale == "log" and ax.get_lines():
            logarithmic(ax)
        _ticks_at(ax, sorted({size for found in (*series.values(), *published.values()) for size in _known(found)}))
        legend(ax)
    return ax


def learning_curves(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], of: str = "loss", *, per_step: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """What was measured on held-out data in the course of trainings: a colour for each name, a thin line for each seed.

    runs : by name the curves of its seeds, as ``ssmid experiment`` keeps them: mappings with ``step`` and numbers by name
    of : which number, such as "bits", "accuracy" or "rmse"   per_step : by name the tokens of a step, which puts tokens on the axis

    >>> ax = learning_curves({"hyena": [[{"step": 1, "bits": 3.0}, {"step": 2, "bits": 2.0}]] * 3}, "bits")
    >>> [line.get_label() for line in ax.get_lines()]
    ['hyena', '_child1', '_child2']
    """
    with drawing(ax) as ax:
        for number, (name, curves) in enumerate(runs.items()):
            factor = per_step[name] if per_step else 1
            for seed, curve in enumerate(curves):
                points = [(factor * line["step"], line[of]) for line in curve if line.get(of) is not None]
                if points:
                    ax.plot(*zip(*points, strict=True), label=name if seed == 0 else None, linewidth=0.9, alpha=0.8, **_look(number))
        if of != "accuracy" and ax.get_lines():
            logarithmic(ax)
        ax.set_xlabel("Tokens" if per_step else "Step")
        ax.set_ylabel(of.replace("_", " ").capitalize())
        legend(ax)
    return ax


def _look(number: int) -> dict[str, Any]:
    """Colours, and dashes where these begin again."""
    return {"color": _COLORS[number % len(_COLORS)], "linestyle": _DASHES[number // len(_COLORS) % len(_DASHES)]}


def _known(found: Series) -> dict[float, list[float]]:
    """What is a number, by rising size."""
    lists = {size: list(v) if isinstance(v, Sequence) else [v] for size, v in sorted(found.items())}
    kept = {size: [float(v) for v in values if v is not None and isfinite(v)] for size, values in lists.items()}
    return {size: values for size, values in kept.items() if values}


def _ticks_at(ax: Axes, sizes: Sequence[float]) -> None:
    """A logarithmic axis with ticks at the sizes, but where one would stand upon another, and nowhere else."""
    ticks = list(sizes)
    if len(sizes) > 1 and sizes[0] > 0:
        ax.set_xscale("log")
        apart, ticks = (sizes[-1] / sizes[0]) ** _APART, list(sizes[:1])
        for size in sizes[1:]:
            if size >= ticks[-1] * apart:
                ticks.append(size)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
