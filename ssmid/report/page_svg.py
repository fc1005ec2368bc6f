"""Charts as inline SVG: in the colours of the page they stand in, light or dark, with text that can be read, searched and enlarged."""

from __future__ import annotations

import dataclasses
import math
from html import escape

import numpy as np

WIDTH = 360
"""SVG units across a chart: about the pixels of a phone, and of a column of a wide page, so that text keeps its size."""
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclasses.dataclass(frozen=True)
class Scale:
    """From data to places on the page: ``low`` lies at ``start``, ``high`` at ``end`` (SVG units). What is outside stops half a span away.

    >>> Scale(0.01, 100.0, 0.0, 40.0, log=True)(1.0).item()
    20.0
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        low, high, at = self.low, self.high, np.asarray(values, float)
        if self.log:
            at = np.where(at > 0, at, np.where(np.isnan(at), np.nan, 1e-300))
            low, high, at = math.log10(low), math.log10(high), np.log10(at)
        share = np.clip((at - low) / ((high - low) or 1.0), -0.5, 1.5)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Places and names of about ``count`` ticks; of a linear scale with none, that of zero."""
        values = _decades(self.low, self.high, count) if self.log else _steps(self.low, self.high, count)
        return [(float(self(value)), name) for value, name in values]


def _steps(low: float, high: float, count: int) -> list[tuple[float, str]]:
    from matplotlib.ticker import MaxNLocator

    if count == 0:
        return [(0.0, "0")]
    values = MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(low, high)
    step = float(values[1] - values[0])
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    inside = [float(v) for v in values if low - 1e-9 * step <= v <= high + 1e-9 * step]
    return [(v, f"{abs(v):.{digits}f}" if abs(v) < step / 2 else f"{v:.{digits}f}".replace("-", "−")) for v in inside]


def _decades(low: float, high: float, count: int) -> list[tuple[float, str]]:
    first, last = math.log10(low), math.log10(high)
    if last - first < 1.6:
        values = [m * 10.0**e for e in range(math.floor(first), math.ceil(last) + 1) for m in (1, 2, 5)]
        return [(v, scientific(v)) for v in values if low * 0.999 <= v <= high * 1.001]
    stride = max(1, math.ceil((last - first) / count))
    exponents = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    return [(10.0**e, scientific(10.0**e)) for e in exponents if e % stride == 0]


def scientific(value: float) -> str:
    """A tick of a logarithmic axis.

    >>> scientific(0.05), scientific(2e-7), scientific(1e5)
    ('0.05', '2·10⁻⁷', '10⁵')
    """
    if 0.9e-3 < value < 1e4:
        return f"{value:g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    front = round(10 ** (math.log10(value) - exponent))
    return ("" if front == 1 else f"{front}·") + "10" + str(exponent).translate(_SUPERSCRIPT)


def line(x: np.ndarray, y: np.ndarray, kind: str) -> str:
    """A curve through places on the page; it breaks where they are not finite."""
    return f'<path class="{kind}" d="{_path(x, y)}"/>'


def band(x: np.ndarray, low: np.ndarray, high: np.ndarray, kind: str) -> str:
    """The area between two curves."""
    sound = np.isfinite(low) & np.isfinite(high)
    x, low, high = x[sound], low[sound], high[sound]
    return f'<path class="{kind}" d="{_path(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]))}z"/>' if len(x) else ""


def dots(x: np.ndarray, y: np.ndarray, kind: str) -> str:
    """Points: strokes of no length, whose round ends make them."""
    return f'<path class="{kind}" d="{"".join(f"M{_number(a)} {_number(b)}h0" for a, b in zip(x, y, strict=True))}"/>' if len(x) else ""


def marker(x: float, y: float, kind: str, words: str, radius: float = 4.0) -> str:
    """One point that says what it is."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"><title>{escape(words)}</title></circle>'


def rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def block(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"/>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def axes(x: Scale, y: Scale, x_name: str, y_name: str, *, x_ticks: int = 6, y_ticks: int = 4) -> str:
    """A grid with numbers: the name of x below its right end, that of y above its upper end, where it can be read without turning.

    Without a name the x axis has no numbers either: another one stands below.
    """
    parts = []
    for place, name in y.ticks(y_ticks):
        parts.append(rule(x.start, place, x.end, place, "grid") + text(x.start - 6, place + 3.5, name, "tick", "end"))
    for place, name in x.ticks(x_ticks) if x_name else ():
        parts.append(rule(place, y.start, place, y.start + 4, "axis") + text(place, y.start + 16, name, "tick", "middle"))
    parts.append(rule(x.start, y.start, x.end, y.start, "axis"))
    if x_name:
        parts.append(text(x.end, y.start + 29, x_name, "name", "end"))
    if y_name:
        parts.append(text(x.start - 6, y.end - 10, y_name, "name"))
    return "".join(parts)


def svg(height: float, words: str, *parts: str, width: float = WIDTH, kind: str = "") -> str:
    """The chart: ``words`` are what a reader who cannot see it is told."""
    return f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(words)}">{"".join(parts)}</svg>'


def averaged(x: np.ndarray, values: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """``(m,)`` places and root mean squares of what falls into each of at most ``columns`` columns of the chart."""
    starts, counts = _columns(x, columns)
    return np.add.reduceat(x, starts) / counts, np.sqrt(np.add.reduceat(values**2, starts) / counts)


def envelope(x: np.ndarray, values: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(m,)`` places, smallest and largest value of what falls into each of at most ``columns`` columns of the chart.

    x : places on the page, ascending. A column with one value keeps its place, so that where there is room nothing is changed.
    """
    starts, counts = _columns(x, columns)
    return np.add.reduceat(x, starts) / counts, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _columns(x: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of each column that has some begin, and how many they are."""
    starts = np.unique(np.searchsorted(x, np.linspace(x[0], x[-1], columns + 1)[:-1]))
    return starts, np.diff(np.append(starts, len(x)))


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Places to a tenth of a unit, each relative to the one before."""
    sound = np.isfinite(x) & np.isfinite(y)
    points = np.rint(10 * np.stack([np.where(sound, x, 0), np.where(sound, y, 0)], axis=-1)).astype(int)
    parts = []
    for i, (a, b) in enumerate(points.tolist()):
        if not sound[i]:
            continue
        if i == 0 or not sound[i - 1]:
            parts.append(f"M{a / 10:g} {b / 10:g}l")
        else:
            dx, dy = a - points[i - 1, 0], b - points[i - 1, 1]
            parts.append(f"{_number(dx / 10)} {_number(dy / 10)} ")
    return f"{''.join(parts)}M".replace(" M", "M").replace("lM", "h0M").removesuffix("M")


def _number(value: float) -> str:
    short = f"{value:.1f}".removesuffix(".0")
    return short.replace("0.", ".", 1) if short.startswith(("0.", "-0.")) else "0" if short == "-0" else short
