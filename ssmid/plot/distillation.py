"""A distilled model in figures: its channels as a map, spectra, filters before and after, poles, and what other orders would cost."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from ssmid._array import Array, to_numpy
from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.spectrum import frequency_response
from ssmid.distillation.curves import OrderCurves
from ssmid.distillation.overview import complete, joined, memory, overview, short_names, spread
from ssmid.distillation.result import Distillation
from ssmid.plot.style import BLACK, BLUE, GREEN, GREY, RED, SKY, decibel, drawing, frequency_axis, legend, limit_span, logarithmic
from ssmid.plot.time import impulse
from ssmid.systems import ImpulseResponse, Modal

_FEW = 4000
"""Poles that are drawn one by one; of more the density is."""
Model = Mapping[str, Distillation] | Distillation
_NAMES = {
    "error": ("l2", "relative l2 error"), "order": ("order", "order"), "ratio": ("ratio", "Hankel error / $\\sigma_{\\mathrm{order}+1}$"),
}  # fmt: skip


def distilled_channels(model: Model, of: str = "error", *, ax: Axes | None = None) -> Axes:
    """Layers by channels, a cell for each filter.

    model : distillations by the names of their layers, or a single one
    of : "error" (relative l2, logarithmic colours), "order", or "ratio" (Hankel error over what no system of that order gets below)

    Grey cells took no recurrence, or nothing is known of them.
    """
    if of not in _NAMES:
        raise ValueError(f'of: expected "error", "order" or "ratio", got {of!r}')
    field, words = _NAMES[of]
    layers = overview(model)
    values = np.full((len(layers), max(layer.count for layer in layers)), np.nan)
    for row, layer in zip(values, layers, strict=True):
        row[: layer.count] = np.where(layer.fitted, getattr(layer, field), np.nan)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    linear = Normalize(1.0 if of == "ratio" else low, max(high, low + 1e-9))
    norm = LogNorm(max(low, 1e-16 * high), high) if of == "error" and high > 0 else linear
    with drawing(ax) as ax:
        mesh = ax.pcolormesh(np.ma.masked_invalid(values), norm=norm, rasterized=True)
        mesh.cmap = mesh.get_cmap().with_extremes(bad=GREY)
        ax.set_ylim(len(layers), 0)
        ax.set_yticks(np.arange(len(layers)) + 0.5, _sparse(short_names([layer.name for layer in layers])[0]))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        ax.set_xlabel("Channel")
        ax.set_ylabel("Layer")
        ax.grid(False)
        bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
        bar.set_label(words)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return ax


def _sparse(labels: list[str]) -> list[str]:
    """Of many layers only some are named."""
    step = -(-len(labels) // 24)
    return [label if i % step == 0 else "" for i, label in enumerate(labels)]


def distilled_spectrum(model: Model, *, ax: Axes | None = None) -> Axes:
    """Hankel values relative to the first of each filter, as many as are known of all: the median, the middle 80 %, the orders chosen."""
    layers = overview(model)
    sigma, order = complete(joined(layers, "sigma")), joined(layers, "order")
    with drawing(ax) as ax:
        if len(sigma):
            index = np.arange(1, sigma.shape[1] + 1)
            _band(ax, index, spread(sigma), BLUE, f"Hankel values, median of {len(sigma)}", marker="o")
            low, middle, high = spread(order.astype(float), (0.0, 0.5, 1.0))
            ax.axvspan(low + 0.5, high + 0.5, color=GREY, alpha=0.15, linewidth=0, zorder=0) if low < high else None
            name = f"order {low:.0f}" if low == high else f"orders {low:.0f} to {high:.0f}, median {middle:.3g}"
            ax.axvline(middle + 0.5, color=BLACK, linewidth=1.0, linestyle="--", label=name)
            logarithmic(ax)
        ax.set_xlabel("Index")
        ax.set_ylabel("Hankel singular value / largest")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        legend(ax)
    return ax


def distilled_filter(
    taps: Array, distillation: Distillation, index: int | tuple[int, ...] = (), *, of: str = "taps", scale: str = "linear",
    span: float = 60.0, ax: Axes | None = None,
) -> Axes:
    """One filter before and after, and the residual.

    taps : ``(L,)`` of the filter   index : of the filter in the batch   of : "taps" or "spectrum"   scale : "linear" or "db", of the taps
    span : dB shown of a spectrum

    Raises ValueError for other words and for taps that are not those of one filter, TypeError where what stands second is no distillation.
    """
    if not isinstance(distillation, Distillation):
        raise TypeError(f"distillation: expected what ssmid.distill returns, after the taps of a filter, got {type(distillation).__name__}")
    if of not in ("taps", "spectrum"):
        raise ValueError(f'of: expected "taps" or "spectrum", got {of!r}')
    place = index if isinstance(index, tuple) else (index,)
    batch = distillation.system.batch_shape
    if len(place) > len(batch) or not all(-size <= i < size for i, size in zip(place, batch, strict=False)):
        raise ValueError(f"index: expected a place in the batch {batch}, got {index}")
    arrays = {name: to_numpy(array)[place] for name, array in distillation.system.broadcast_arrays().items()}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError(f"index: expected a filter that took a recurrence, got {index}, of which the filter or its model is not finite")
    model, before = Modal(**arrays, dt=distillation.system.dt), ImpulseResponse(to_numpy(taps).astype(float), distillation.system.dt)
    if before.batch_shape or model.batch_shape:
        raise ValueError(f"expected taps and an index of one filter, got taps {before.taps.shape} and recurrences {model.batch_shape}")
    if of == "taps":
        return impulse(before, model, ax=ax, scale=scale, labels=("filter", "recurrence"))
    after = impulse_response(model, before.length)
    residual = ImpulseResponse(before.taps - after.taps, before.dt)
    looks = {"filter": (before, SKY, 2.4), "recurrence": (after, RED, 0.9), "residual": (residual, BLACK, 0.6)}
    with drawing(ax) as ax:
        for name, (response, color, width) in looks.items():
            spectrum = frequency_response(response, points=2 * before.length)
            omega = to_numpy(spectrum.omega)[1:]
            x = frequency_axis(ax, omega, before, None, "log")
            level = decibel(np.abs(to_numpy(spectrum.values))[1:])
            ax.plot(x, level, color=color, linestyle="-", linewidth=width, label=name, zorder=1.5 if name == "residual" else 2)
        ax.set_ylabel("Magnitude (dB)")
        limit_span(ax, span)
        legend(ax)
    return ax


def distilled_poles(model: Model, *, of: str = "plane", ax: Axes | None = None) -> Axes:
    """All poles as a density: in the upper half of the unit disk, or by memory and frequency.

    of : "plane", or "memory" for the time constant -1 / ln|p| over the angle, where what crowds at the circle lies apart
    """
    if of not in ("plane", "memory"):
        raise ValueError(f'of: expected "plane" or "memory", got {of!r}')
    p: np.ndarray = np.concatenate([layer.poles[np.isfinite(layer.poles)] for layer in overview(model)])
    p = p[np.imag(p) >= 0]
    with drawing(ax) as ax:
        if of == "plane":
            angle = np.linspace(0, pi, 181)
            ax.plot(np.cos(angle), np.sin(angle), color=GREY, linewidth=1.0, linestyle="-", zorder=1)
            ax.set_aspect("equal", adjustable="box")
            ax.set_xlim(-1.04, 1.04)
            ax.set_ylim(-0.02, 1.04)
            x, y, edges = np.real(p), np.imag(p), (np.linspace(-1.04, 1.04, 261), np.linspace(-0.02, 1.04, 131))
            ax.set_xlabel("Real part")
            ax.set_ylabel("Imaginary part")
        else:
            p = p[np.isfinite(memory(p))]
            x, y = np.abs(np.angle(p)), np.maximum(memory(p), 0.1)
            edges = np.linspace(0, pi, 261), np.geomspace(y.min(initial=1.0), y.max(initial=10.0) * 1.001, 131)
            ax.set_yscale("log")
            ax.set_xlabel("Angular frequency (rad/sample)")
            ax.set_ylabel("Memory $-1/\\ln|p|$ (samples)")
        if len(p) < _FEW:
            ax.plot(x, y, ".", color=BLUE, alpha=0.45, markersize=4, markeredgewidth=0)
        else:
            counts, across, up = np.histogram2d(x, y, bins=edges)
            mesh = ax.pcolormesh(across, up, np.where(counts > 0, counts, np.nan).T, norm=LogNorm(1, counts.max()), rasterized=True)
            ax.figure.colorbar(mesh, ax=ax, pad=0.02).set_label("poles in a cell")
    return ax


def distilled_orders(model: Model, curves: OrderCurves | None = None, *, of: str = "hankel", ax: Axes | None = None) -> Axes:
    """The error over the order: what was reached, and the bound under it or, in l2 norm, balanced truncation beside it.

    curves : of the filters, from :func:`ssmid.order_curves`; needed for ``of="l2"``, and for bounds beyond the orders of the run
    of : "hankel", relative to the Hankel norm of the filter, or "l2"

    The median and the middle 80 % of the filters; of a model with several orders what was reached at each.
    """
    if of not in ("hankel", "l2") or (of == "l2" and curves is None):
        raise ValueError(f'of: expected "hankel", or "l2" and curves, got {of!r}{"" if curves is not None else " without curves"}')
    layers = overview(model)
    order, reached = joined(layers, "order"), joined(layers, of)
    with drawing(ax) as ax:
        if of == "hankel":
            bound = complete(joined(layers, "sigma")) if curves is None else to_numpy(curves.bound).reshape(-1, len(curves.orders))
            _band(ax, np.arange(bound.shape[1]), spread(bound), BLUE, "bound $\\sigma_{r+1} / \\sigma_1$")
        elif curves is not None:
            truncated = to_numpy(curves.l2).reshape(-1, len(curves.orders))
            _band(ax, np.arange(truncated.shape[1]), spread(truncated), GREEN, "balanced truncation")
        for number, r in enumerate(np.unique(order)):
            low, middle, high = spread(reached[order == r])
            reach = [[middle - low], [high - middle]]
            ax.errorbar([r], [middle], reach, fmt="o", color=RED, capsize=2.0, label="reached" if number == 0 else None)
        logarithmic(ax)
        ax.set_xlabel("Order r")
        ax.set_ylabel("Hankel norm of the error / of the filter" if of == "hankel" else "Relative l2 error")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        legend(ax)
    return ax


def distilled_cost(curves: OrderCurves, *, ax: Axes | None = None) -> Axes:
    """What a tighter or a looser tolerance would cost: the state of all filters over the relative l2 error that each is held to.

    The orders are those of balanced truncation, which an l2-optimal fit needs at most. Where filters do not reach an error at the
    largest order of the curves, the line is dotted: the true cost is above it.
    """
    l2 = to_numpy(curves.l2).reshape(-1, len(curves.orders))
    tolerances = np.geomspace(max(float(np.nanmin(l2[:, 1:], initial=1.0)), 1e-12), 1.0, 200)
    states = np.array([curves.total_states(tol) for tol in tolerances], float)
    sure = np.array([(np.nanmin(l2, axis=1, initial=1.0) <= tol).all() for tol in tolerances])
    with drawing(ax) as ax:
        shown = states > 0
        for mask, line, name in ((shown & sure, "-", "all filters reach it"), (shown & ~sure, ":", "some do not: at least")):
            if mask.any():
                ax.plot(tolerances[mask], 4 * states[mask], color=BLUE, linestyle=line, label=name)
        ax.set_xscale("log")
        ax.invert_xaxis()
        logarithmic(ax)
        ax.set_xlabel("Relative l2 error of each filter at most")
        ax.set_ylabel("State of a sequence (bytes at float32)")
        legend(ax)
    return ax


def _band(ax: Axes, x: np.ndarray, quantiles: np.ndarray, color: str, name: str, marker: str | None = None) -> None:
    low, middle, high = np.where(quantiles > 0, quantiles, np.nan)
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0, label="middle 80 %")
    ax.plot(x, middle, color=color, linestyle="-", marker=marker, markersize=3, label=name)
