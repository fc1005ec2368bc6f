"""The worst and the median filter of each layer: before, after, and what is between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from ssmid._array import Array, to_numpy
from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.spectrum import frequency_response
from ssmid.distillation.overview import Layer
from ssmid.distillation.result import Distillation
from ssmid.report import page_svg as draw
from ssmid.report.page_svg import Scale
from ssmid.report.page_words import channel, share, times
from ssmid.systems import ImpulseResponse, Modal

Filters = Callable[[str, tuple[int, ...]], Array]
"""``filters(layer, index)``: the taps ``(L,)`` of one filter; of coupled channels the index ends with output and input."""
_TITLES = {"worst": "Worst", "median": "Median", "only": "The filter"}
_COLUMNS = 190
_LEFT, _RIGHT, _TOP, _HEIGHT, _GAP = 44, 352, 22, 176, 18


def drawn(layer: Layer, distillation: Distillation) -> dict[str, tuple[int, tuple[int, ...], Modal]]:
    """The worst and the median filter: place in the row, index, and recurrence. Of coupled channels that of the most energy."""
    ranked = layer.ranked()
    if not len(ranked):
        return {}
    chosen = {"worst": int(ranked[-1]), "median": int(ranked[(len(ranked) - 1) // 2])} if len(ranked) > 1 else {"only": int(ranked[0])}
    found = {}
    for name, place in chosen.items():
        index = layer.index(place)
        arrays = {n: to_numpy(array)[index] for n, array in distillation.system.broadcast_arrays().items()}
        if layer.channels:
            energy = (np.abs(arrays["residues"]) ** 2 / (1 - np.minimum(np.abs(arrays["poles"]), 1 - 1e-9) ** 2)).sum(-1)
            index += tuple(int(i) for i in np.unravel_index(int(energy.argmax()), layer.channels))
            arrays = {n: array[index[-len(layer.channels) :]] for n, array in arrays.items()}
        poles, residues, first = (np.array(arrays[n]) for n in ("poles", "residues", "feedthrough"))
        found[name] = (place, index, Modal(poles, residues, first, dt=distillation.system.dt))
    return found


def before_and_after(
    layer: Layer, label: str, chosen: dict[str, tuple[int, tuple[int, ...], Modal]], filters: Filters | None
) -> str:
    """Four charts: taps and spectrum of the filters that :func:`drawn` chose; of the recurrences alone without ``filters``."""
    if not chosen:
        return '<p class="quiet">No filter of this layer needed a recurrence.</p>'
    parts = []
    for name, (place, index, model) in chosen.items():
        after = to_numpy(impulse_response(model, layer.length).taps).astype(float)
        before = None if filters is None else np.asarray(to_numpy(filters(layer.name, index)), float).reshape(-1)
        if before is not None and len(before) != layer.length:
            raise ValueError(f"filters: expected {layer.length} taps of layer {layer.name}, got {len(before)}")
        ratio = "" if np.isnan(layer.ratio[place]) else f", {times(layer.ratio[place])} times the bound"
        pair = f", shown from input {index[-1]} to output {index[-2]}" if layer.channels else ""
        facts = f"{channel(layer, place)}, order {layer.order[place]}: error {share(layer.l2[place])}{ratio}{pair}"
        charts = _amplitudes(before, after, facts) + _levels(before, after, facts), _spectra(before, after, facts)
        figures = "".join(f"<figure>{chart}</figure>" for chart in charts)
        parts.append(f'<div class="filter"><h3>{_TITLES[name]} <span>{escape(facts)}</span></h3><div class="two">{figures}</div></div>')
    return f'<div class="filters">{"".join(parts)}</div>'


def _amplitudes(before: np.ndarray | None, after: np.ndarray, facts: str) -> str:
    """Amplitudes over the logarithm of time, and below them the residual in the same units."""
    unit, before, after = _readable(before, after)
    shown = after[1:] if before is None else np.concatenate([before[1:], after[1:]])
    low, high = min(0.0, float(shown.min())), max(0.0, float(shown.max()))
    residual = np.zeros(1) if before is None else (before - after)[1:]
    least, most = float(residual.min()), float(residual.max())
    extent = (high - low + most - least) or 1.0
    split = _TOP + (_HEIGHT - _GAP * (before is not None)) * (high - low) / extent
    t = np.arange(1, len(after))
    x = Scale(1, max(len(after) - 1, 2), _LEFT, _RIGHT, log=True)
    y = Scale(low, high, split, _TOP)
    places = x(t)
    if before is None:
        parts = [draw.axes(x, y, "time (samples)", f"amplitude{unit}"), _curve(places, y(after[1:]), "after")]
        return draw.svg(_TOP + _HEIGHT + 32, f"Taps of {facts}", *parts, kind="amplitude")
    z = Scale(least, most, _TOP + _HEIGHT, split + _GAP)
    grid = draw.axes(x, y, "", f"amplitude{unit}") + draw.axes(x, z, "time (samples)", "", y_ticks=0 if z.start - z.end < 44 else 3)
    parts = [grid, _curve(places, y(before[1:]), "before"), _curve(places, y(after[1:]), "after"), _curve(places, z(residual), "residual")]
    parts.append(draw.text(_RIGHT, z.end - 4, "residual, in the same units", "name", "end"))
    return draw.svg(_TOP + _HEIGHT + 32, f"Taps of {facts}", *parts, kind="amplitude")


def _readable(before: np.ndarray | None, after: np.ndarray) -> tuple[str, Any, Any]:
    """Taps in a unit in which their size is a plain number, and its name."""
    peak = max(float(np.abs(taps[1:]).max(initial=0.0)) for taps in (before, after) if taps is not None)
    if peak == 0 or 1e-3 <= peak < 1e4:
        return "", before, after
    exponent = math.floor(math.log10(peak))
    parts = 10.0 ** (exponent // 2), 10.0 ** (exponent - exponent // 2)  # one power of ten may not be a number
    small = [None if taps is None else taps / parts[0] / parts[1] for taps in (before, after)]
    return f" (× {draw.scientific(10.0**exponent)})", small[0], small[1]


def _levels(before: np.ndarray | None, after: np.ndarray, facts: str) -> str:
    """Levels below the peak over time, on which what is left at the end is seen."""
    x = Scale(0, len(after) - 1, _LEFT, _RIGHT)
    curves = {name: np.abs(taps[1:]) for name, taps in _curves(before, after).items()}
    parts = _decibels(x, np.arange(1.0, len(after)), curves, -80.0, "time (samples)", "level")
    return draw.svg(_TOP + _HEIGHT + 32, f"Levels of the taps of {facts}", *parts, kind="level")


def _spectra(before: np.ndarray | None, after: np.ndarray, facts: str) -> str:
    """Magnitudes over the logarithm of frequency."""
    responses = {
        name: frequency_response(ImpulseResponse(taps), points=max(2 * len(taps), 1024)) for name, taps in _curves(before, after).items()
    }
    omega = to_numpy(responses["after"].omega)[1:]
    x = Scale(float(omega[0]), float(np.pi), _LEFT, _RIGHT, log=True)
    curves = {name: np.abs(to_numpy(response.values))[1:] for name, response in responses.items()}
    parts = _decibels(x, omega, curves, -60.0, "angular frequency (rad/sample)", "magnitude")
    return draw.svg(_TOP + _HEIGHT + 32, f"Spectrum of {facts}", *parts)


def _curves(before: np.ndarray | None, after: np.ndarray) -> dict[str, np.ndarray]:
    """In the order in which they are drawn."""
    return {"after": after} if before is None else {"before": before, "residual": before - after, "after": after}


def _decibels(x: Scale, at: np.ndarray, curves: dict[str, np.ndarray], floor: float, x_name: str, y_name: str) -> list[str]:
    """Root mean squares of what shares a place on the page, in dB below the highest."""
    largest = max(float(values.max(initial=0.0)) for values in curves.values()) or 1.0
    lines = {name: draw.averaged(x(at), values / largest, _COLUMNS) for name, values in curves.items()}
    peak = max(float(values.max()) for _, values in lines.values()) or 1.0
    y = Scale(floor, 0, _TOP + _HEIGHT, _TOP)
    parts = [draw.axes(x, y, x_name, f"{y_name} (dB below the peak)", y_ticks=5)]
    for name, (places, values) in lines.items():
        level = 20 * np.log10(np.maximum(values / peak, 1e-300))
        parts.append(draw.line(places, np.where(level < floor, np.nan, y(level)), name))
    return parts


def _curve(x: np.ndarray, y: np.ndarray, kind: str) -> str:
    """A curve, where it has more values than places the area that it fills."""
    middle, low, high = draw.envelope(x, y, _COLUMNS)
    single = low == high
    edge = len(single) if single.all() else int(np.argmin(single))
    thin = draw.line(middle[: edge + 1], low[: edge + 1], kind) if edge else ""
    return thin + (draw.band(middle[edge:], low[edge:], high[edge:], f"{kind} area") if edge < len(middle) else "")
