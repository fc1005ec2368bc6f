"""Errors over the order for several methods of reduction, above what no method gets below."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ssmid.plot.style import GREY, drawing, legend, logarithmic
from ssmid.reduction.comparison import Comparison

_MARKERS = "osD^vP*X"
_LABELS = {"h2": "H2 error / norm", "hinf": "H∞ error / largest gain", "hankel": "Hankel-norm error / $\\sigma_1$"}


def comparison(found: Comparison, kind: str = "hankel", *, ax: Axes | None = None) -> Axes:
    """The error of each method over the order, with the Hankel lower bound ``sigma_{r+1}`` under it.

    found : of :func:`ssmid.compare`   kind : "hankel", "hinf" (the same bound holds) or "h2" (no bound)

    Unstable results have open markers; orders that a method refused are left out.

    >>> from ssmid import compare, zpk
    >>> found = compare(zpk([-0.5], [0.9, 0.1, 0.11], 1.0), [1, 2], ["balanced", "hankel"])
    >>> [line.get_label() for line in comparison(found).get_lines()]
    ['balanced', 'hankel', 'lower bound $\\\\sigma_{r+1}$']
    """
    if not isinstance(found, Comparison):
        raise TypeError(f"found: expected what ssmid.compare returns, got {type(found).__name__}")
    if kind not in _LABELS:
        raise ValueError(f'kind: expected "hankel", "hinf" or "h2", got {kind!r}')
    names = list(dict.fromkeys(row.method for row in found))
    with drawing(ax) as ax:
        for name, marker in zip(names, _MARKERS * (1 + len(names) // len(_MARKERS)), strict=False):
            rows = sorted((row for row in found if row.method == name and not row.failure), key=lambda row: row.states)
            values = np.array([getattr(row, kind) for row in rows], float)
            shown = np.isfinite(values) & (values > 0)
            (line,) = ax.plot(np.array([row.states for row in rows])[shown], values[shown], marker=marker, label=name)
            for row, value in zip(rows, values, strict=True):
                if not row.stable and np.isfinite(value) and value > 0:
                    ax.plot(row.states, value, marker=marker, color=line.get_color(), markerfacecolor="white", linestyle="none")
        if kind != "h2":
            scale = found.peak if kind == "hinf" else found.sigma[0] if len(found.sigma) else 1.0
            orders = np.arange(0, min(max(row.order for row in found), len(found.sigma) - 1) + 1)
            ax.plot(orders[1:], found.sigma[orders][1:] / scale, color=GREY, linestyle=":", label=r"lower bound $\sigma_{r+1}$")
        logarithmic(ax)
        ax.set_xlabel("Order r")
        ax.set_ylabel(_LABELS[kind])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        legend(ax)
    return ax
