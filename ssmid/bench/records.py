"""What one run of a benchmark says: cases of tools side by side, and the bars that were set for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ssmid.bench.timing import Timing

OURS = "ssmid"
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Row:
    """One tool on one case.

    scaled_from : rounds of a loop that were timed, where that was not all of them
    order, right : of the model, and whether it is real and stable, where tools end with different ones
    columns : further figures by the heading of their column, units in the heading
    """

    tool: str
    timing: Timing
    error: float | None = None
    scaled_from: int | None = None
    order: int | None = None
    right: bool | None = None
    columns: dict[str, float | str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Case:
    """One job given to several tools.

    error_kind : what ``Row.error`` is   rounding : errors up to this are the arithmetic's, not the tool's
    floor : the seconds that the machine itself needs at least, and ``floor_kind`` why
    """

    section: str
    name: str
    rows: tuple[Row, ...]
    error_kind: str
    order: int | None = None
    count: int = 1
    rounding: float = 1e-10
    floor: float | None = None
    floor_kind: str = ""

    def row(self, tool: str) -> Row | None:
        return next((row for row in self.rows if row.tool == tool), None)

    def ratio(self, tool: str) -> float | None:
        """How many times longer ``tool`` took than we did."""
        ours, other = self.row(OURS), self.row(tool)
        return other.timing.seconds / ours.timing.seconds if ours and other else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "section": self.section,
            "case": self.name,
            "order": self.order,
            "count": self.count,
            "error_kind": self.error_kind,
            "rounding": self.rounding,
            "floor_seconds": self.floor,
            "floor_kind": self.floor_kind,
            "tools": [
                {
                    "tool": row.tool,
                    **dataclasses.asdict(row.timing),
                    "times_ours": self.ratio(row.tool),
                    "error": row.error,
                    "scaled_from": row.scaled_from,
                    "order": row.order,
                    "real_and_stable": row.right,
                    "columns": row.columns,
                }
                for row in self.rows
            ],
        }


@dataclasses.dataclass(frozen=True)
class Bar:
    """A requirement on one case: ``tool`` must have taken at least ``required`` times as long as we did."""

    case: str
    tool: str
    required: float
    reached: float
    errors_no_worse: bool | None

    @property
    def met(self) -> bool:
        return self.reached >= self.required and self.errors_no_worse is not False

    def as_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "met": self.met}


def bars(cases: list[Case], required: dict[str, float]) -> list[Bar]:
    """The bars of ``required`` (tool -> times our seconds) on ``cases``.

    An error is no worse when it is at most 1.05 times the other tool's, or no more than rounding. A tool whose model is not real and
    stable sets no bar; one of a smaller order none for the error, and one of a larger order only where ours is as near already.
    """
    found = []
    for case in cases:
        ours = case.row(OURS)
        for row in case.rows:
            reached = case.ratio(row.tool)
            if ours is None or reached is None or row.tool not in required or row.right is False:
                continue
            found.append(Bar(f"{case.section}: {case.name}", row.tool, required[row.tool], reached, _no_worse(case, ours, row)))
    return found


def _no_worse(case: Case, ours: Row, other: Row) -> bool | None:
    if ours.error is None or other.error is None:
        return None
    more = (other.order or 0) - (ours.order or 0) if None not in (ours.order, other.order) else 0
    near = ours.error <= max(1.05 * other.error, case.rounding)
    return None if more < 0 or (more > 0 and not near) else near


def result(
    name: str, quick: bool, facts: dict[str, Any], ceilings: dict[str, float], cases: list[Case], checked: list[Bar]
) -> dict[str, Any]:
    """What goes into the JSON file; ``facts``: of the machine, taken before the run."""
    return {
        "benchmark": name,
        "quick": quick,
        "machine": facts,
        "limits": ceilings,
        "cases": [case.as_dict() for case in cases],
        "bars": [bar.as_dict() for bar in checked],
    }
