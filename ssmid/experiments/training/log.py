"""The log of a training: one JSON object a line, and the curves drawn from it."""

from __future__ import annotations

import json
import time
from math import isfinite
from pathlib import Path
from typing import Any

from ssmid.io.files import about, parsing, write_bytes

NAME, FIGURE = "log.jsonl", "curves.png"
_PAUSE = 20.0
"""Seconds between two drawings, each of which takes a part of one."""


class Log:
    """Lines of ``{"step": ..., "split": ..., ...}`` at ``path``, after those up to ``step`` that are there already.

    What a killed run wrote after its last checkpoint is dropped: it will be written again.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.lines = [line for line in read(path) if line["step"] <= step]
        self._drawn = float("-inf")
        write_bytes(path, b"".join(_line(line) for line in self.lines))

    def add(self, **facts: Any) -> None:
        self.lines.append(strict(facts))
        with self.path.open("ab") as file:
            file.write(_line(self.lines[-1]))

    def draw(self, *, last: bool) -> None:
        """The curves so far, as a figure beside the log; not again at once, unless these are the ``last``."""
        if not last and time.monotonic() - self._drawn < _PAUSE:
            return
        from ssmid import plot
        from ssmid.report.figures import figure

        figure(self.path.with_name(FIGURE), lambda ax: plot.training_curves(self.lines, ax=ax))
        self._drawn = time.monotonic()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that a kill cut off is not there. ValueError for a file that is none."""
    if not path.exists():
        return []
    with about(path):
        lines = path.read_bytes().splitlines(keepends=True)
        with parsing("lines of JSON"):
            found = [json.loads(line) for line in lines if line.endswith(b"\n")]
        if odd := next((line for line in found if not (isinstance(line, dict) and {"step", "split"} <= set(line))), None):
            raise ValueError(f"expected lines with a step and a split, got {odd!r:.60}")
    return found


def strict(value: Any) -> Any:
    """As JSON has it: NaN and infinities are null."""
    if isinstance(value, dict):
        return {name: strict(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [strict(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _line(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts).encode() + b"\n"
