"""Poles and zeros in the complex plane."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ssmid._array import to_numpy
from ssmid.analysis import characteristics
from ssmid.plot.style import BLACK, BLUE, GREY, RED, drawing, legend
from ssmid.systems import FrequencyResponse, ImpulseResponse, System


def pole_zero(system: System, *, ax: Axes | None = None, zeros: bool = True) -> Axes:
    """Poles (crosses) and zeros (circles) with the boundary of stability: the unit circle, or the imaginary axis.

    Unstable poles are red. Roots that coincide carry their number. A bank shows all of its roots.
    Raises ValueError for impulse and frequency responses: their poles come from a fit.
    """
    if isinstance(system, (ImpulseResponse, FrequencyResponse)):
        kind = type(system).__name__
        raise ValueError(f"expected a system with poles, got {kind}: fit one first, ssmid.balanced_truncation(h, order).system")
    with drawing(ax) as ax:
        p = _roots(characteristics.poles(system))
        q = _roots(characteristics.zeros(system)) if zeros else np.zeros(0, complex)
        unstable = (np.abs(p) >= 1) if system.is_discrete else (np.real(p) >= 0)
        faint = 1.0 if p.size <= 200 else 0.35
        kinds = ((q, "o", BLACK, "zeros"), (p[~unstable], "x", BLUE, "poles"), (p[unstable], "x", RED, "unstable poles"))
        for roots, marker, color, name in kinds:
            if roots.size:
                size, edge = (7, 1.6) if marker == "x" else (6.5, 1.1)
                look: dict[str, Any] = {"markersize": size, "markeredgewidth": edge}
                look |= {"marker": marker, "color": color, "markerfacecolor": "none", "alpha": faint, "linestyle": "none"}
                ax.plot(np.real(roots), np.imag(roots), label=name, **look)
                _count_repeated(ax, roots)
        _boundary(ax, np.concatenate([p, q]), system.is_discrete)
        ax.set_xlabel("Real part" if system.is_discrete else "Real part (1/s)")
        ax.set_ylabel("Imaginary part" if system.is_discrete else "Imaginary part (rad/s)")
        legend(ax)
    return ax


def _roots(roots: object) -> np.ndarray:
    roots = to_numpy(roots).reshape(-1)
    return roots[np.isfinite(roots)]


def _boundary(ax: Axes, roots: np.ndarray, discrete: bool) -> None:
    if discrete:
        angle = np.linspace(0, 2 * pi, 361)
        ax.plot(np.cos(angle), np.sin(angle), color=GREY, linewidth=1.0, linestyle="-", zorder=1)
        ax.axhline(0, color=GREY, linewidth=0.5, zorder=1)
        ax.axvline(0, color=GREY, linewidth=0.5, zorder=1)
        # a root far outside would shrink the circle, where everything happens, to a dot
        sizes = np.abs(roots)
        half = 1.12 * float(sizes[sizes <= 2.0].max(initial=1.0))
        ax.set_aspect("equal", adjustable="box")
        ax.set_xlim(-half, half)
        ax.set_ylim(-half, half)
        outside = int((np.maximum(np.abs(np.real(roots)), np.abs(np.imag(roots))) > half).sum())
    else:
        ax.axvline(0, color=GREY, linewidth=1.0, linestyle="-", zorder=1)
        ax.axhline(0, color=GREY, linewidth=0.5, zorder=1)
        ax.margins(0.1)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5))  # numbers like -50000 are wide
        outside = 0
    if outside:
        ax.annotate(f"{outside} outside", (0.99, 0.01), xycoords="axes fraction", ha="right", va="bottom", fontsize=8, color=GREY)


def _count_repeated(ax: Axes, roots: np.ndarray) -> None:
    """The number beside roots that coincide in the picture, where there are few enough to read."""
    if roots.size > 60:
        return
    left = list(roots)
    while left:
        here = [r for r in left if abs(r - left[0]) <= 1e-3 * max(1.0, abs(left[0]))]
        if len(here) > 1:
            ax.annotate(f"{len(here)}", (np.real(here[0]), np.imag(here[0])), (6, 4), textcoords="offset points", fontsize=8)
        left = [r for r in left if abs(r - left[0]) > 1e-3 * max(1.0, abs(left[0]))]
