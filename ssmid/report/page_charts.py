"""Charts of a distilled model: Hankel spectra and clouds of poles."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from ssmid.distillation.overview import Layer, complete, joined, memory, spread
from ssmid.report import page_svg as draw
from ssmid.report.page_svg import Scale
from ssmid.report.page_words import plural, share, span

_LEFT, _RIGHT = 44, 352
_LEVELS = 6
"""Shades of a cloud of poles."""
_SINGLE = 100
"""So few poles are points that are seen one by one."""


def figure(title: str, chart: str, note: str = "") -> str:
    """A chart under its title, what is to be known of it beside."""
    small = f" <span>{escape(note)}</span>" if note else ""
    return f"<figure><figcaption><strong>{escape(title)}</strong>{small}</figcaption>{chart}</figure>"


# ---------------------------------------------------------------- Hankel spectra


def spectra(layers: list[Layer], labels: list[str]) -> str:
    """The Hankel values of every layer, all on the same axes."""
    values = joined(layers, "sigma")
    values = values[np.nan_to_num(values) > 0]
    if not values.size:
        return "<p>No filter has a Hankel spectrum: there was nothing to distil.</p>"
    low = max(10.0 ** math.floor(math.log10(float(np.quantile(values, 0.002)))), 1e-16)
    return "".join(_spectrum(layer, label, min(low, 0.1)) for layer, label in zip(layers, labels, strict=True))


def _spectrum(layer: Layer, label: str, low: float) -> str:
    sigma = layer.sigma[layer.fitted]
    count = layer.sigma.shape[1]
    x, y = Scale(0.5, count + 0.5, _LEFT, _RIGHT), Scale(low, 1.0, 158, 22, log=True)
    if not len(sigma):
        return figure(f"Layer {label}", draw.svg(60, "no filter to distil", draw.text(_LEFT, 30, "no filter to distil", "name")))
    known = complete(sigma).shape[1]
    small, middle, large = spread(np.fmin.accumulate(sigma, axis=1))  # beyond what is known a value is at most the last that is
    at = x(np.arange(1, count + 1))
    order = layer.order[layer.fitted]
    cut = spread(order.astype(float), (0.0, 0.5, 1.0))
    parts = [draw.axes(x, y, "index i", "σᵢ / σ₁")]
    ends = x(cut + 0.5)
    parts.append(draw.block(float(ends[1]), y.end, x.end - float(ends[1]), y.start - y.end, "cut"))
    if cut[0] < cut[2]:
        parts.append(draw.block(float(ends[0]), y.end - 2, float(ends[2] - ends[0]), 4, "chosen-span"))
    for kind, part in (("", slice(0, known)), (" ahead", slice(max(known - 1, 0), count))):
        parts += [draw.band(at[part], y(small[part]), y(large[part]), f"band{kind}"), draw.line(at[part], y(middle[part]), f"bound{kind}")]
    parts += [draw.rule(float(ends[1]), y.start, float(ends[1]), y.end, "chosen")]
    words = f"order {span(int(cut[0]), int(cut[2]))}"
    left = ends[1] > (x.start + x.end) / 2
    parts.append(draw.text(float(ends[1]) + (-5 if left else 5), y.start - 8, words, "chosen-name", "end" if left else "start"))
    parts.append("".join(_spectrum_point(at[i], float(y(middle[i])), i, middle[i]) for i in range(known) if np.isfinite(middle[i])))
    left_out = share(float(middle[min(int(cut[1]), count - 1)]))
    told = f"Hankel values of layer {label}: in the median the first that is left out is {left_out} of the largest"
    return figure(f"Layer {label}", draw.svg(194, told, *parts), plural(int(layer.fitted.sum()), "filter"))


def _spectrum_point(x: float, y: float, i: int, value: float) -> str:
    return draw.marker(x, y, "bound-point", f"value {i + 1}: {share(float(value))} of the first, in the median", 2.6)


# ---------------------------------------------------------------- poles


def poles(layers: list[Layer], labels: list[str]) -> tuple[str, str]:
    """All poles of the model in the plane and by their memory, and those of each layer in the plane."""
    everything = np.concatenate([_finite(layer) for layer in layers])
    note = plural(len(everything), "pole")
    whole = figure("All poles, upper half of the unit disk", _disk(everything, 240.0), note)
    whole += figure("The same by memory and frequency", _memory(everything))
    if len(layers) == 1:
        return whole, ""
    return whole, "".join(
        figure(f"Layer {label}", _disk(_finite(layer)), plural(int(layer.order.sum()), "pole"))
        for layer, label in zip(layers, labels, strict=True)
    )


def _finite(layer: Layer) -> np.ndarray:
    return layer.poles[np.isfinite(layer.poles)]


def _disk(p: np.ndarray, radius: float = 160.0) -> str:
    """The upper half of the unit circle; poles below the axis mirror those above."""
    middle, ground = radius + 20, radius + 16
    upper = p[np.imag(p) >= 0]
    parts = [_arc(middle, ground, radius, "disk"), _arc(middle, ground, radius / 2, "grid"), _arc(middle, ground, 0.9 * radius, "grid")]
    parts.append(draw.rule(middle - radius, ground, middle + radius, ground, "axis"))
    for value, name in ((-1, "−1"), (-0.5, "−½"), (0, "0"), (0.5, "½"), (1, "1")):
        parts.append(draw.text(middle + value * radius, ground + 17, name, "tick", "middle"))
    parts.append(_cloud(middle + radius * np.real(upper), ground - radius * np.imag(upper)))
    outside = int((np.abs(p) >= 1).sum())
    told = f"{plural(len(p), 'pole')} in the plane, {outside} of them on or outside the unit circle"
    return draw.svg(ground + 22, told, *parts, width=2 * middle, kind="wide" if radius > 200 else "")


def _arc(middle: float, ground: float, radius: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{middle - radius:g} {ground:g}a{radius:g} {radius:g} 0 0 1 {2 * radius:g} 0"/>'


def _memory(p: np.ndarray) -> str:
    """Time constants over frequencies: what crowds near the rim of the disk lies apart here."""
    upper = p[(np.imag(p) >= 0) & np.isfinite(memory(p))]
    known = memory(upper)
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 10.0)
    low, high = 10.0 ** math.floor(math.log10(max(low, 0.1))), 10.0 ** math.ceil(math.log10(max(high, 1.0)) + 1e-3)
    x, y = Scale(0.0, math.pi, _LEFT, 508), Scale(low, high, 240, 26, log=True)
    parts = [draw.axes(x, y, "frequency (rad/sample)", "memory −1/ln|p| (samples)")]
    parts.append(_cloud(x(np.abs(np.angle(upper))), y(np.maximum(known, low))))
    told = f"Time constants of the poles, {low:g} to {high:g} samples, over their frequencies"
    return draw.svg(278, told, *parts, width=520, kind="wide")


def _cloud(x: np.ndarray, y: np.ndarray) -> str:
    """Places rounded to a grid of two units and shaded by how many poles share them, so that a million poles are a small drawing too."""
    sound = np.isfinite(x) & np.isfinite(y)
    cell = 1.0 if sound.sum() < 4000 else 2.0
    grid, counts = np.unique(np.rint(np.stack([x[sound], y[sound]], -1) / cell), axis=0, return_counts=True)
    if not len(grid):
        return ""
    level = np.ceil(_LEVELS * np.log1p(counts) / np.log1p(max(counts.max(), 6))).astype(int)
    parts = [draw.dots(cell * grid[level == k, 0], cell * grid[level == k, 1], f"dot d{k}") for k in range(1, _LEVELS + 1)]
    return f'<g class="{"single" if sound.sum() < _SINGLE else "few" if sound.sum() < 4000 else "many"}">{"".join(parts)}</g>'
