"""What other orders would cost and bring: the error over the order above its bound, and tables of states."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ssmid._array import to_numpy
from ssmid.distillation.curves import order_curves
from ssmid.distillation.overview import Layer, bound_at, complete, joined, least_orders, spread
from ssmid.report import page_svg as draw
from ssmid.report.page_charts import figure
from ssmid.report.page_filters import Filters
from ssmid.report.page_svg import Scale
from ssmid.report.page_words import plural, share, size, table, times
from ssmid.report.progress import Stage

_SAMPLE = 32
"""Filters whose error is followed over the order, at least one of each layer."""
_LARGEST = 128
_TOLERANCES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4)
_LEFT, _RIGHT, _TOP, _GROUND, _WIDTH = 44, 512, 26, 280, 520


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """A few filters of each layer, evenly chosen by the size of their error.

    stands_for : ``(n,)`` how many filters of the model each is there for
    l2, bound : ``(n, K + 1)`` relative l2 error of balanced truncation, and relative Hankel bound, at the orders 0 to K
    """

    stands_for: np.ndarray
    l2: np.ndarray
    bound: np.ndarray

    @property
    def words(self) -> str:
        return f"a sample of {plural(len(self.l2), 'filter')}"


def sampled(layers: list[Layer], filters: Filters, stage: Stage | None = None) -> Sample | None:
    """Errors over the order up to twice the largest that was chosen; None where nothing was distilled.

    Coupled channels are left out: the curve of one of them is not that of the system.
    """
    ranked = [layer.ranked()[:0] if layer.channels else layer.ranked() for layer in layers]
    total = sum(len(places) for places in ranked)
    if not total:
        return None
    most = int(min(max(2 * max(layer.order.max(initial=0) for layer in layers), 16), _LARGEST))
    parts = []
    for number, (layer, places) in enumerate(zip(layers, ranked, strict=True)):
        if stage is not None:
            stage("errors over the order", number, len(layers))
        count = min(len(places), max(1, round(_SAMPLE * len(places) / total)))
        if count:
            chosen = places[((np.arange(count) + 0.5) / count * len(places)).astype(int)]
            taps = [np.asarray(to_numpy(filters(layer.name, layer.index(int(place)))), float).reshape(-1) for place in chosen]
            curves = order_curves(np.stack(taps), most)
            parts.append((np.full(count, len(places) / count), *(_padded(to_numpy(c), most + 1) for c in (curves.l2, curves.bound))))
    return Sample(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _padded(curve: np.ndarray, count: int) -> np.ndarray:
    """Of filters with fewer taps than orders: beyond, nothing changes."""
    return np.pad(curve, ((0, 0), (0, count - curve.shape[1])), mode="edge")


# ---------------------------------------------------------------- charts


def charts(layers: list[Layer], sample: Sample | None) -> str:
    """In Hankel norm, where a bound is known; with a sample in l2 norm too, where none is but balanced truncation is at hand."""
    sigma, order, reached, error = (joined(layers, field) for field in ("sigma", "order", "hankel", "l2"))
    known = spread(complete(sigma))
    if not known.size:
        lacking = "the Hankel values of some filters are not known" if len(order) else "no filter has a recurrence"
        return f"<p>There is nothing to choose from: {lacking}.</p>"
    ahead = None if sample is None else np.concatenate([known[:, -1:], known[:, -1:] * _decline(sample, known.shape[1])], axis=1)
    parts = [_chart("In Hankel norm, with the bound under it", "bound", known, ahead, _groups(order, reached))]
    if sample is not None:
        parts.append(_chart("In l2 norm, beside balanced truncation", "truncated", spread(sample.l2), None, _groups(order, error)))
    return "".join(parts)


def _decline(sample: Sample, count: int) -> np.ndarray:
    """How far the bounds of the sample fall, in the median, from the last of the first ``count`` orders to each that follows."""
    last = sample.bound[:, count - 1 : count]
    (fall,) = spread(sample.bound[:, count:] / np.where(last > 0, last, np.nan), (0.5,))
    return fall


def _groups(order: np.ndarray, reached: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Each order that was chosen, by how many filters, and what they reached: 10 %, median, 90 %."""
    return [(int(r), int((order == r).sum()), spread(reached[order == r])) for r in np.unique(order)]


def _chart(title: str, kind: str, curve: np.ndarray, ahead: np.ndarray | None, groups: list[tuple[int, int, np.ndarray]]) -> str:
    """curve : ``(3, orders)`` 10 %, median and 90 % from order 0 on   ahead : the same, estimated, from the last of these orders on"""
    values = np.concatenate([curve.ravel(), *(reached for _, _, reached in groups), *([] if ahead is None else [ahead.ravel()])])
    values = values[np.isfinite(values) & (values > 1e-16)]
    start = curve.shape[1] - 1
    last = max(start + (0 if ahead is None else ahead.shape[1] - 1), *(r for r, _, _ in groups), 1)
    x = Scale(0.0, last + 0.5, _LEFT, _RIGHT)
    y = Scale(_low_end(float(values.min())), max(1.0, float(values.max())), _GROUND, _TOP, log=True)
    low = 0.999 * y.low
    parts = [draw.axes(x, y, "order (states of a filter)", "error, relative to the filter", x_ticks=8, y_ticks=5)]
    if ahead is not None and ahead.shape[1] > 1:
        small, middle, large = y(np.where(ahead >= low, ahead, [[y.low], [np.nan], [y.low]]))
        at = x(np.arange(start, start + ahead.shape[1]))
        parts.append(draw.band(at, small, large, "band ahead") + draw.line(at, middle, f"{kind} ahead"))
    small, middle, large = y(np.where(curve >= low, curve, [[y.low], [np.nan], [y.low]]))
    at = x(np.arange(start + 1))
    parts.append(draw.band(at, small, large, f"band {kind}-band") + draw.line(at, middle, kind))
    if last <= 40:
        parts += [_point(at[r], middle[r], r, curve[1, r], kind) for r in range(start + 1)]
    parts += [_reached(x, y, *group, many=len(groups) > 12) for group in groups]
    told = f"{title}: in the median the curve falls from {share(float(curve[1, 0]))} to {share(float(curve[1, -1]))} at order {start}"
    return figure(title, draw.svg(_GROUND + 38, told, *parts, width=_WIDTH, kind="wide"))


def _low_end(value: float) -> float:
    """1, 2 or 5 times a power of ten below ``value``, at most 0.2."""
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return min(0.2, power * max(m for m in (1, 2, 5) if m * power <= value * 1.001))


def _point(x: float, y: float, order: int, value: float, kind: str) -> str:
    words = "no recurrence gets below" if kind == "bound" else "balanced truncation leaves"
    return draw.marker(x, y, f"{kind}-point", f"order {order}: {words} {share(float(value))}, in the median", 2.6)


def _reached(x: Scale, y: Scale, order: int, count: int, reached: np.ndarray, many: bool) -> str:
    if not np.isfinite(reached[1]):
        return ""
    best, middle, worst = np.maximum(reached, y.low)
    place = float(x(order))
    words = f"order {order}, {plural(count, 'filter')}: {share(float(reached[1]))} reached in the median"
    whisker = draw.rule(place, float(y(best)), place, float(y(worst)), "whisker")
    return whisker + draw.marker(place, float(y(middle)), "reached", words, 3 if many else 4.5)


# ---------------------------------------------------------------- tables


def tables(layers: list[Layer], sample: Sample | None) -> str:
    """The same order for all filters, and the least orders for an error."""
    order = joined(layers, "order")
    if not order.any():
        return ""
    now = int(order.sum())
    return _by_order(layers, order, sample) + (_by_bound(joined(layers, "sigma"), now) if sample is None else _by_error(sample, now))


def _by_order(layers: list[Layer], order: np.ndarray, sample: Sample | None) -> str:
    sigma, largest, now = joined(layers, "sigma"), int(order.max()), int(order.sum())
    uniform = int(order.min()) == largest
    tried = sorted({max(1, largest * m // 4) for m in (1, 2, 3, 4, 6, 8)})
    rows = [[f"{r}", *_cost(r * len(order), now), *_bounds(sigma, sample, r), "", *_truncated(sample, r), ""] for r in tried]
    hankel, l2 = (share(float(spread(joined(layers, field), (0.5,))[0])) for field in ("hankel", "l2"))
    if uniform:
        place = tried.index(largest)
    else:
        place = next((i for i, r in enumerate(tried) if r * len(order) > now), len(rows))
        rows.insert(place, ["as chosen", *_cost(now, now), *[""] * (len(rows[0]) - 3)])
    rows[place][5], rows[place][-1] = hankel, l2
    truncated = ["truncation, l2"] if sample is not None else []
    columns = ["Order", "State", "of now", "bound, median", "bound, worst", "reached", *truncated, "reached, l2"]
    cells = [cell for row in rows for cell in row[3:5]]
    notes = ["≈: from how the bound of a sample falls." if any("≈" in cell for cell in cells) else ""]
    notes += ["–: needs more Hankel values than this run has computed." if "–" in cells else ""]
    notes += [f"Truncation: of {sample.words}." if sample is not None else ""]
    return f'<div>{table("The same order for every filter", columns, rows, marked=place)}{_notes(notes)}</div>'


def _bounds(sigma: np.ndarray, sample: Sample | None, order: int) -> list[str]:
    """The median and the largest bound, estimated where they are not known."""
    known = complete(sigma).shape[1]
    if order < known:
        return [share(float(value)) for value in spread(bound_at(sigma, order), (0.5, 1.0))]
    if known == 0 or sample is None or order >= sample.bound.shape[1]:
        return ["–", "–"]
    fall = float(_decline(sample, known)[order - known])
    return [f"≈ {share(float(value) * fall)}" for value in spread(bound_at(sigma, known - 1), (0.5, 1.0))]


def _truncated(sample: Sample | None, order: int) -> list[str]:
    return [] if sample is None else [share(float(spread(bound_at(sample.l2, order), (0.5,))[0]))]


def _notes(notes: list[str]) -> str:
    words = " ".join(note for note in notes if note)
    return f'<p class="note">{words}</p>' if words else ""


def _cost(states: float, now: int) -> list[str]:
    return [size(states), f"{times(states / now)}×" if now else "–"]


def _by_bound(sigma: np.ndarray, now: int) -> str:
    """The least orders that the bound allows for a Hankel error."""
    rows = []
    for tol in _TOLERANCES:
        least, known = least_orders(sigma, tol)
        if least.max(initial=0) > 0 or not known.all():
            rows.append([share(tol), *_least(least, known, np.ones(len(least)), now)])
        if known.sum() * 4 < len(known):
            break
    title = "The least orders that any method needs for a Hankel error"
    return f'<div>{table(title, ["Hankel error", *_LEAST], rows)}</div>' if rows else ""


def _by_error(sample: Sample, now: int) -> str:
    """The orders at which balanced truncation meets an l2 error: refined, a filter needs at most these."""
    rows = []
    for tol in _TOLERANCES:
        met = sample.l2 <= tol
        known = np.asarray(met.any(axis=1))
        least = np.where(known, met.argmax(axis=1), met.shape[1])
        if least.max() > 0:
            rows.append([share(tol), *_least(least, known, sample.stands_for, now)])
        if known.sum() * 4 < len(known):
            break
    note = _notes([f"Orders of balanced truncation, of {sample.words}; refined, a filter needs at most these."])
    return f'<div>{table("What a tighter or a looser l2 error would take", ["l2 error", *_LEAST], rows)}{note}</div>' if rows else ""


_LEAST = ["median order", "largest", "State", "of now", "filters that reach it"]


def _least(least: np.ndarray, known: np.ndarray, stands_for: np.ndarray, now: int) -> list[str]:
    at_least = "" if known.all() else "≥ "
    middle = int(np.median(least))
    unsure = "≥ " if (~known & (least <= middle)).any() else ""
    costs = [f"{at_least}{cost}" for cost in _cost(float((least * stands_for).sum()), now)]
    reach = "all" if known.all() else f"{int(known.sum()):,} of {len(known):,}"
    return [f"{unsure}{middle}", f"{at_least}{int(least.max())}", *costs, reach]
