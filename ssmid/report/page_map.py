"""The whole model in one picture: layers by channels, the error and the order of each filter as colour."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
from collections.abc import Callable
from html import escape

import numpy as np

from ssmid.distillation.bank import KINDS
from ssmid.distillation.overview import Layer, joined, spread
from ssmid.report.page_svg import Scale
from ssmid.report.page_words import channel, plural, share, times

COLUMNS = 1024
"""Cells in a row, at most: of more channels each cell is the worst of a few neighbours."""
_GREY = (0.54, 0.54, 0.54, 1.0)


@dataclasses.dataclass(frozen=True)
class _Colour:
    """field : of a layer   title, words : what the map is called, what its colours are   scale : onto 0 to 1   name : of a value"""

    field: str
    title: str
    words: str
    scale: Scale
    name: Callable[[float], str]


def maps(layers: list[Layer], labels: list[str]) -> str:
    """The maps, a line that says what the pointer is at, and the numbers that it reads them from."""
    group = -(-max(layer.count for layer in layers) // COLUMNS)
    cells = [_cells(layer, group) for layer in layers]
    colours = _colours(layers)
    figures = [_map(colour, layers, labels, cells) for colour in colours]
    data = [_numbers(layer, label, places, group) for layer, label, places in zip(layers, labels, cells, strict=True)]
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    each = "" if group == 1 else f" Each cell is the worst of {group} neighbouring channels."
    return (
        f'<div class="maps">{"".join(figures)}</div><p class="readout"><output id="readout" aria-live="polite">'
        f"One row a layer, one cell a filter.{each} Grey: nothing to distil.</output></p>"
        f'<script type="application/json" id="cells">{text}</script>'
    )


def _colours(layers: list[Layer]) -> list[_Colour]:
    error, order, ratio = (joined(layers, field) for field in ("l2", "order", "ratio"))
    found = []
    positive = error[np.isfinite(error) & (error > 0)]
    if positive.size:
        low, high = _round_ends(float(np.quantile(positive, 0.01)), float(positive.max()))
        found.append(_Colour("l2", "Error", "relative l2 error", Scale(low, high, 0, 1, log=True), share))
    if order.size and order.min() < order.max():
        scale = Scale(float(order.min()), float(order.max()), 0, 1)
        found.append(_Colour("order", "Order", "states of each filter", scale, lambda value: f"{value:.0f}"))
    known = ratio[np.isfinite(ratio)]
    if known.size:
        high = max(1.1, math.ceil(10 * float(spread(known, (0.99,))[0])) / 10)
        title, words = "Distance from the best possible", "Hankel error over its bound"
        found.append(_Colour("ratio", title, words, Scale(1.0, high, 0, 1), lambda value: f"{times(value)}×"))
    return found


def _round_ends(low: float, high: float) -> tuple[float, float]:
    """Ends of a logarithmic scale at 1, 2 or 5 times a power of ten, at least a factor of five apart and not below rounding."""
    low = max(low, 1e-15 * high, 1e-300)
    steps = [m * 10.0**e for e in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2) for m in (1, 2, 5)]
    top = next(s for s in steps if s >= high * 0.999)
    return min(max(s for s in steps if s <= low * 1.001), top / 5), top


def _cells(layer: Layer, group: int) -> np.ndarray:
    """The place of the worst filter of each group of neighbours; one without an error where there is no other."""
    error = np.where(np.isfinite(layer.l2) & layer.fitted, layer.l2, -1.0)
    padded = np.pad(error, (0, -layer.count % group), constant_values=-2.0).reshape(-1, group)
    return padded.argmax(axis=1) + group * np.arange(len(padded))


def _map(colour: _Colour, layers: list[Layer], labels: list[str], cells: list[np.ndarray]) -> str:
    most = max(len(places) for places in cells)
    rows = []
    for number, (layer, label, places) in enumerate(zip(layers, labels, cells, strict=True)):
        values = np.where(layer.fitted, getattr(layer, colour.field).astype(float), np.nan)
        words = escape(_words_of_row(colour, layer, label, values))
        width = f"calc((100% - var(--label)) * {len(places) / most:.4g})"
        said = f'data-layer="{number}" alt="{words}" title="{words}" style="width:{width}"'
        picture = f'<img {said} src="{_image(colour.scale(values[places]))}">' if len(places) else ""
        rows.append(f'<div class="row"><span aria-hidden="true">{escape(label)}</span>{picture}</div>')
    height = min(34, max(5, 420 // len(layers)))
    sparse = " sparse" if height < 11 else ""
    width = min(9, max(len(label) for label in labels))
    return (
        f'<figure class="map"><figcaption><strong>{colour.title}</strong> <span>{colour.words}</span>{_legend(colour)}</figcaption>'
        f'<div class="rows{sparse}" style="--row:{height}px;--label:{0.62 * width + 0.6:.2f}em">{"".join(rows)}</div></figure>'
    )


def _words_of_row(colour: _Colour, layer: Layer, label: str, values: np.ndarray) -> str:
    if not np.isfinite(values).any():
        return f"Layer {label}: {colour.words} is not known"
    low, middle, high = spread(values, (0.0, 0.5, 1.0))
    ends = f"{colour.name(low)} to {colour.name(high)} ({channel(layer, int(np.nanargmax(values)))})"
    return f"Layer {label}, {plural(layer.count, 'filter')}: {colour.words} {colour.name(middle)} in the median, {ends}"


def _image(shares: np.ndarray) -> str:
    """One row of pixels as a PNG in a data URI."""
    import matplotlib
    from matplotlib.image import imsave

    pixels = matplotlib.colormaps["viridis"](np.clip(np.nan_to_num(shares), 0, 1)[None, :])
    pixels[0, ~np.isfinite(shares)] = _GREY
    file = io.BytesIO()
    imsave(file, pixels, format="png", metadata={"Software": "ssmid"})
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _legend(colour: _Colour) -> str:
    import matplotlib
    from matplotlib.colors import to_hex

    stops = ",".join(to_hex(matplotlib.colormaps["viridis"](i / 8)) for i in range(9))
    low, high = colour.scale.low, colour.scale.high
    strip = f'<i style="background:linear-gradient(90deg,{stops})"></i>'
    return f'<span class="bar"><span>{colour.name(low)}</span>{strip}<span>{colour.name(high)}</span></span>'


def _numbers(layer: Layer, label: str, places: np.ndarray, group: int) -> dict:
    """What the pointer reads: of each cell its error, order, distance from the bound and, where it is special, its kind."""

    def short(values: np.ndarray) -> list:
        return [float(f"{v:.3g}") if math.isfinite(v) else None for v in values.tolist()]

    found = {
        "layer": label, "shape": list(layer.batch), "l2": short(layer.l2[places]), "ratio": short(layer.ratio[places]),
        "order": layer.order[places].tolist(), "kind": {str(i): KINDS[layer.kind[p]] for i, p in enumerate(places) if layer.kind[p]},
    }  # fmt: skip
    return found | ({"place": places.tolist()} if group > 1 else {})
