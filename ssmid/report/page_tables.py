"""What the page says in numbers: the whole model at a glance, its layers, what is special, how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from ssmid.distillation.bank import KINDS
from ssmid.distillation.overview import Layer, joined, spread
from ssmid.report.page_words import channel, plural, share, size, span, table, times
from ssmid.report.tables import shown

_LISTED = 24
"""Special filters of one kind that are named; of more the number is told."""
_LONGEST = 300
"""Characters of a value that are shown."""


# ---------------------------------------------------------------- at a glance


def glance(layers: list[Layer], labels: list[str]) -> str:
    """A row of plain numbers, each with what it means."""
    order, error, ratio, missed = (joined(layers, field) for field in ("order", "l2", "ratio", "missed"))
    past, states = sum(layer.past for layer in layers), sum(layer.states for layer in layers)
    lengths = [layer.length for layer in layers]
    count = sum(layer.count for layer in layers)
    cards = [
        ("Filters", f"{count:,}", f"in {plural(len(layers), 'layer')}, {span(min(lengths), max(lengths))} taps each"),
        ("States a filter", span(int(order.min()), int(order.max())) if order.size else "0", _of_orders(order)),
        ("State of a sequence", size(states), f"{times(past / states)} times less than {size(past)}" if states else f"from {size(past)}"),
    ]
    if np.isfinite(error).any():
        low, middle, high = spread(error)
        if len(error) == 1:
            cards.append(("Error", share(middle), "relative l2"))
        else:
            cards.append(("Median error", share(middle), f"relative l2; eight of ten filters {share(low)} to {share(high)}"))
            cards.append(_worst(layers, labels))
    if np.isfinite(ratio).any():
        middle, most = spread(ratio, (0.5, 1.0))
        words = "in Hankel norm" if len(ratio) == 1 else f"median, in Hankel norm; {times(most)}× at the worst"
        cards.append(("Above the best possible", f"{times(middle)}×", words))
    if missed.any():
        cards.append(("Tolerance missed", f"{int(missed.sum()):,}", "at the largest order allowed; listed below"))
    failed = sum(int(layer.stopped.sum()) for layer in layers)
    cards.append(("Not converged", f"{failed:,}", "listed below" if failed else "every search came to rest"))
    cells = [f"<dt>{name}</dt><dd><b>{value}</b> <span>{words}</span></dd>" for name, value, words in cards]
    marks = [' class="warn"' if name in ("Tolerance missed", "Not converged") and value != "0" else "" for name, value, _ in cards]
    return f'<dl class="cards">{"".join(f"<div{mark}>{cell}</div>" for mark, cell in zip(marks, cells, strict=True))}</dl>'


def _of_orders(order: np.ndarray) -> str:
    if not order.size:
        return "no filter needed a recurrence"
    return "the same for every filter" if order.min() == order.max() else f"{order.mean():.3g} on average"


def _worst(layers: list[Layer], labels: list[str]) -> tuple[str, str, str]:
    ranked = [layer.ranked() for layer in layers]
    number = max((i for i, places in enumerate(ranked) if len(places)), key=lambda i: layers[i].l2[ranked[i][-1]])
    place = int(ranked[number][-1])
    where = f'<a href="#layer-{number}">layer {escape(labels[number])}, {channel(layers[number], place)}</a>'
    return "Worst error", share(float(layers[number].l2[place])), where


def verdict(layers: list[Layer]) -> str:
    """One sentence that holds the whole page."""
    ratio, error = joined(layers, "ratio"), joined(layers, "l2")
    count, past, states = (sum(getattr(layer, name) for layer in layers) for name in ("count", "past", "states"))
    if not states:
        return f"{plural(count, 'filter')} without anything to distil."
    became = "a recurrence that keeps" if count == 1 else "recurrences that keep"
    words = f"{plural(count, 'long convolution')} became {became} {size(states)} of a sequence instead of {size(past)}"
    if np.isfinite(error).any():
        words += f", with {'an' if len(error) == 1 else 'a median'} error of {share(float(spread(error, (0.5,))[0]))}"
    if np.isfinite(ratio).any():
        middle = float(spread(ratio, (0.5,))[0])
        which, their = ("it is", "its") if len(ratio) == 1 else ("half of them are", "their")
        best = f"as near as any recurrence of {their} order can come"
        near = best if middle < 1.0005 else f"within {times(middle)} times what no recurrence of {their} order gets below"
        words += f"; in Hankel norm {which} {near}"
    return f"{words}."


# ---------------------------------------------------------------- layers and special filters


def layer_table(layers: list[Layer], labels: list[str]) -> str:
    """Every layer in a row."""
    columns = [
        "Layer", "Filters", "Taps", "Order", "State before", "after", "Error, median", "90 % below", "worst", "at",
        "Times the bound, median", "worst", "Largest |pole|", "Energy beyond the last tap", "Not converged",
    ]  # fmt: skip
    rows = []
    for number, (layer, label) in enumerate(zip(layers, labels, strict=True)):
        sound, ranked = layer.fitted, layer.ranked()
        middle, high, most = spread(layer.l2[sound], (0.5, 0.9, 1.0))
        ratio, worst_ratio = spread(layer.ratio[sound], (0.5, 1.0))
        order = layer.order[sound]
        (radius,), (tail,) = spread(layer.radius[sound], (1.0,)), spread(layer.tail[sound], (1.0,))
        name = f'<a href="#layer-{number}" title="{escape(layer.name)}">{escape(label)}</a>'
        rows.append([
            name, f"{layer.count:,}", f"{layer.length:,}", span(int(order.min()), int(order.max())) if order.size else "0",
            size(layer.past), size(layer.states), share(middle), share(high), share(most),
            channel(layer, int(ranked[-1])).removeprefix("channel ") if len(ranked) else "–", times(ratio), times(worst_ratio),
            _modulus(float(radius)), share(tail), f"{int(layer.stopped.sum()):,}",
        ])  # fmt: skip
    return table("Every layer", columns, rows)


def _modulus(value: float) -> str:
    """With the digits that tell it from 1."""
    return "–" if not np.isfinite(value) else f"1 − {1 - value:.2g}" if 0 < 1 - value < 1e-4 else f"{value:.5g}"


_DONE = {
    "not finite": "NaN or infinite taps: left alone, the model has NaN in its place",
    "unstable": "poles on or outside the unit circle: left alone, the model has NaN in its place",
    "zero": "all taps are zero: no state",
    "tap 0 only": "nothing after tap 0, which is kept exactly: no state",
    "constant": "all taps are equal: a step that ends with the last tap, distilled as it is",
    "delayed": "silent after tap 0 for a while: a pure delay costs one state a tap",
    "extreme scale": "taps beyond 2⁶⁰ or below 2⁻⁶⁰: scaled to 1, distilled and scaled back",
    "tolerance missed": "over the error that was asked for, at the largest order that was allowed",
    "not converged": "the search was stopped before it came to rest; the error is measured all the same",
}


def special(layers: list[Layer], labels: list[str]) -> str:
    """Filters of every kind but the ordinary, and those whose search did not come to rest."""
    parts = []
    for kind, words in _DONE.items():
        found = {}
        for layer, label in zip(layers, labels, strict=True):
            states = {"tolerance missed": layer.missed, "not converged": layer.stopped}
            places = np.flatnonzero(states[kind] if kind in states else layer.kind == KINDS.index(kind))
            if len(places):
                found[label] = [channel(layer, int(p)).removeprefix("channel ") + _delay(layer, int(p), kind) for p in places]
        if found:
            count = sum(len(places) for places in found.values())
            parts.append(f"<div><dt>{kind}: {count:,}</dt><dd>{words}.<br><span>{_places(found)}</span></dd></div>")
    if not parts:
        return "<p>None: every filter is finite, begins at once, is of a usual scale, and its search came to rest.</p>"
    return f'<dl class="kinds">{"".join(parts)}</dl>'


def _places(found: dict[str, list[str]]) -> str:
    """Channels layer by layer, as many as are read."""
    left, parts = _LISTED, []
    for label, places in found.items():
        if not left:
            break
        parts.append(f"layer {escape(label)}: {', '.join(places[:left])}")
        left -= min(left, len(places))
    more = sum(len(places) for places in found.values()) - _LISTED
    return "; ".join(parts) + (f"; and {more:,} more" if more > 0 else "")


def _delay(layer: Layer, place: int, kind: str) -> str:
    return f" ({plural(int(layer.delay[place]), 'tap')})" if kind == "delayed" else ""


# ---------------------------------------------------------------- how it was made


def made(metadata: Mapping[str, Any]) -> str:
    """Options, version and source, name by name, but for what was left out and for what is told of each layer, which has a table."""
    told = {name: value for name, value in metadata.items() if name != "layers"}
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _flat(told))
    return f'<dl class="made">{rows}</dl>' if rows else "<p>Nothing was said about it.</p>"


def _cut(words: str) -> str:
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"


def _flat(metadata: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in metadata.items():
        if value is None:
            continue
        full = f"{before}{name}".replace("_", " ")
        found += _flat(value, f"{full}, ") if isinstance(value, Mapping) else [(full, _cut(shown(value)))]
    return found
