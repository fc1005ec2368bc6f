"""Hankel singular values with bounds, and errors over the order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import MaxNLocator

from ssmid._array import to_numpy
from ssmid.analysis import hankel
from ssmid.analysis.hankel import HankelSpectrum
from ssmid.distillation.result import Distillation
from ssmid.plot.style import BLUE, GREY, RED, drawing, legend, logarithmic
from ssmid.reduction.result import Reduction
from ssmid.systems import System


def hankel_spectrum(source: Any, order: int | None = None, *, count: int | None = None, ax: Axes | None = None) -> Axes:
    """Hankel singular values on a logarithmic axis, with the truncation order, the error bound and error bars.

    source : a :class:`Reduction` (its order and bound are drawn), a :class:`HankelSpectrum` (error bars; open markers where it has
        not converged), a system, or an array of values
    order : where the spectrum is cut   count : how many values to compute of a system

    The bound over the order is ``2 sum(tail)`` (Enns 1984, Glover 1984). Of a long response the tail is itself bounded; the line is
    left out where that bound outweighs all that is known, and says nothing.
    A batch is drawn relative to each first value: the median and the range of the middle 80 %.
    """
    if isinstance(source, Distillation):
        raise TypeError("source: expected a reduction, a spectrum, a system, values, got a Distillation: plot.distilled_spectrum draws it")
    bound = None
    if isinstance(source, System):
        source = hankel.hankel_spectrum(source, count)
    if isinstance(source, Reduction):
        order = source.order if order is None and isinstance(source.order, int) else order
        bound = np.atleast_1d(to_numpy(source.bound)) if isinstance(source.order, int) and order == source.order else None
    sigma = to_numpy(source.sigma if isinstance(source, (Reduction, HankelSpectrum)) else source)
    if 0 in sigma.shape[:-1]:
        raise ValueError(f"expected at least one spectrum to draw, got batch {sigma.shape[:-1]}")
    with drawing(ax) as ax:
        if sigma.ndim > 1 and sigma.size > sigma.shape[-1]:
            _quantiles(ax, np.arange(1, sigma.shape[-1] + 1), _relative(sigma.reshape(-1, sigma.shape[-1])), "Hankel values")
            ax.set_ylabel("Hankel singular value / largest")
        else:
            sigma = sigma.reshape(-1).astype(float)
            _values(ax, sigma, source if isinstance(source, HankelSpectrum) else None)
            if bound is not None and order is not None and bound.reshape(-1)[0] <= 2 * sigma.sum():
                _bound(ax, sigma, order, float(bound.reshape(-1)[0]))
            ax.set_ylabel("Hankel singular value")
        logarithmic(ax)
        ax.set_xlabel("Index")
        if order is not None:
            ax.axvspan(order + 0.5, sigma.shape[-1] + 0.5, color=GREY, alpha=0.15, linewidth=0, label="truncated", zorder=0)
            ax.axvline(order + 0.5, color=GREY, linewidth=1.0, linestyle="-", zorder=1)
            place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center", "fontsize": 9}
            ax.annotate(f"order {order}", (order + 0.5, 1.0), (0, 3), **place)
        ax.set_xlim(0.5, sigma.shape[-1] + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        legend(ax)
    return ax


def error_vs_order(reductions: Iterable[Reduction], kind: str = "hinf", *, ax: Axes | None = None) -> Axes:
    """The measured error over the order, between the lower bound sigma_{r+1} and the a-priori bound 2 sum(tail).

    reductions : of one original, of different orders   kind : "hinf" or "hankel" (absolute, with both bounds), "h2" (relative)

    Batches are drawn as the median and the range of the middle 80 %.
    """
    made = list(reductions)
    for other in (r for r in made if not isinstance(r, Reduction)):
        raise TypeError(f"reductions: expected results of reductions, which know their bounds, got {type(other).__name__}")
    made.sort(key=lambda r: int(np.max(to_numpy(r.order) if not isinstance(r.order, int) else r.order)))
    if not made:
        raise ValueError("expected at least one Reduction, got none")
    if kind not in ("hinf", "hankel", "h2"):
        raise ValueError(f'kind: expected "hinf", "hankel" or "h2", got {kind!r}')
    orders = [int(np.max(to_numpy(r.order) if not isinstance(r.order, int) else r.order)) for r in made]
    curves = {"measured": ([r.error if kind == "h2" else r.measured(kind) for r in made], BLUE, "-", "o")}
    if kind != "h2":
        curves |= {
            r"upper bound $2\,\sum_{i>r}\sigma_i$": ([r.bound for r in made], RED, "--", None),
            r"lower bound $\sigma_{r+1}$": ([r.lower_bound for r in made], GREY, ":", None),
        }
    with drawing(ax) as ax:
        for name, (values, color, line, marker) in curves.items():
            table = np.stack([to_numpy(v).reshape(-1) for v in values], -1).astype(float)
            if len(table) > 1:
                _quantiles(ax, np.array(orders), table, name, color, line)
            else:
                ax.plot(orders, _positive(table[0]), color=color, linestyle=line, marker=marker, label=name)
        logarithmic(ax)
        ax.set_xlabel("Order r")
        ax.set_ylabel({"hinf": "H∞ error", "hankel": "Hankel-norm error", "h2": "Relative l2 error"}[kind])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        legend(ax)
    return ax


def _values(ax: Axes, sigma: np.ndarray, spectrum: HankelSpectrum | None) -> None:
    index = np.arange(1, len(sigma) + 1)
    done = np.ones(len(sigma), bool) if spectrum is None else to_numpy(spectrum.converged).reshape(-1)
    shown = sigma > 0
    if spectrum is not None:
        error = to_numpy(spectrum.error).reshape(-1)
        reach = np.stack([np.minimum(error, sigma * (1 - 1e-3)), error])[:, shown]
        ax.errorbar(index[shown], sigma[shown], reach, fmt="none", ecolor=BLUE, elinewidth=0.9, capsize=2.0)
    size = 5 if len(sigma) <= 80 else 3
    ax.plot(index[shown & done], sigma[shown & done], "o", color=BLUE, markersize=size, label="Hankel singular values")
    if (shown & ~done).any():
        open_marker = {"color": BLUE, "markersize": size, "markerfacecolor": "white"}
        ax.plot(index[shown & ~done], sigma[shown & ~done], "o", label="not converged", **open_marker)


def _bound(ax: Axes, sigma: np.ndarray, order: int, bound: float) -> None:
    """The bound over the order, anchored at the given one, which holds the tail beyond the values that are known."""
    total = np.concatenate([[0.0], np.cumsum(sigma)])
    orders = np.arange(min(order, len(sigma)) + 1)
    curve = bound + 2 * (total[min(order, len(sigma))] - total[orders])
    ax.plot(orders[1:], _positive(curve[1:]), color=RED, linestyle="--", linewidth=1.1, label="error bound of each order")
    if bound > 0:
        ax.plot([order], [bound], marker="D", color=RED, linestyle="none", label=f"bound, order {order}: {bound:.3g}")


def _quantiles(ax: Axes, x: np.ndarray, table: np.ndarray, name: str, color: str = BLUE, line: str = "-") -> None:
    low, middle, high = np.nanquantile(np.where(np.isfinite(table), table, np.nan), [0.1, 0.5, 0.9], axis=0)
    first = not any(isinstance(band, PolyCollection) for band in ax.collections)
    ax.fill_between(x, _positive(low), _positive(high), color=color, alpha=0.2, linewidth=0, label="middle 80 %" if first else None)
    ax.plot(x, _positive(middle), color=color, linestyle=line, label=f"{name}, median of {len(table)}")


def _relative(sigma: np.ndarray) -> np.ndarray:
    return sigma / np.where(sigma[:, :1] > 0, sigma[:, :1], np.nan)


def _positive(values: np.ndarray) -> np.ndarray:
    """Zeros as NaN: a logarithmic axis has no place for them."""
    return np.where(values > 0, values, np.nan)
