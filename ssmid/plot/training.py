"""The curves of a training, or of several beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from ssmid.plot.style import drawing, legend, logarithmic

_STYLES = {"train": {"linewidth": 0.9, "alpha": 0.7, "linestyle": "-"}, "valid": {"marker": "o", "linestyle": "-"}}
Lines = Sequence[Mapping[str, Any]]


def training_curves(lines: Lines | Mapping[str, Lines], of: str = "loss", *, ax: Axes | None = None) -> Axes:
    """A quantity over the steps, in training and where it was validated, one colour a run.

    lines : of a log of ``ssmid experiment``: mappings with ``step``, ``split`` ("train" or "valid") and numbers by name; of several runs
    by the names of these   of : which number, such as "loss", "accuracy", "bits" or "rmse"; logarithmic but for the accuracy

    >>> lines = [{"step": step, "split": "train", "loss": 1 / step} for step in (1, 2, 3)]
    >>> [line.get_label() for line in training_curves(lines).get_lines()]
    ['train']
    """
    runs = lines if isinstance(lines, Mapping) else {"": lines}
    with drawing(ax) as ax:
        for name, run in runs.items():
            color = None
            for split, look in _STYLES.items():
                points = [(line["step"], line[of]) for line in run if line["split"] == split and line.get(of) is not None]
                if points:
                    label = split if not name else name if color is None else None
                    (drawn,) = ax.plot(*zip(*points, strict=True), label=label, color=color, **look)
                    color = drawn.get_color() if name else None
        if of != "accuracy" and ax.get_lines():
            logarithmic(ax)
        ax.set_xlabel("Step")
        ax.set_ylabel(of.replace("_", " ").capitalize())
        legend(ax)
    return ax
