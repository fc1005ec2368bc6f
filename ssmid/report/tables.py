"""What is said about a system: facts, tables and sentences, the same on a terminal and in JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under named columns. ``limit``: how many rows a terminal shows; JSON has them all."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    limit: int = 20


@dataclasses.dataclass(frozen=True)
class Report:
    """A title, facts by name, tables, and what they mean in words; ``parts`` are reports within this one.

    >>> report = Report("room.wav", {"channels": 2}, words=["Quiet."])
    >>> report.to_dict()
    {'title': 'room.wav', 'channels': 2, 'words': ['Quiet.']}
    """

    title: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    tables: Sequence[Table] = ()
    words: Sequence[str] = ()
    parts: Sequence[Report] = ()

    def to_dict(self) -> dict[str, Any]:
        """The whole report as JSON can hold it: names in snake_case, NaN and infinities as null."""
        tables = {_key(t.title): [{_key(c): plain(v) for c, v in zip(t.columns, row, strict=True)} for row in t.rows] for t in self.tables}
        facts = {_key(name): plain(value) for name, value in self.facts.items()}
        parts = {_key(part.title): part.to_dict() for part in self.parts}
        return {"title": self.title, **facts, **tables, **({"words": list(self.words)} if self.words else {}), **parts}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def show(self, console: Console) -> None:
        """Prints the report for people."""
        from rich.text import Text

        for part in self.parts:
            part.show(console)
            console.print()
        console.print(Text(self.title, style="bold"))
        if self.facts:
            console.print(_pairs(self.facts.items()))
        for table in self.tables:
            console.print()
            console.print(Text(table.title, style="bold"))
            drawn = _drawn(table)
            wanted = console.measure(drawn, options=console.options.update(max_width=10_000)).maximum
            console.print(drawn if wanted <= console.width else _drawn(table, stacked=True))
            if len(table.rows) > table.limit:
                console.print(Text(f"and {len(table.rows) - table.limit} more: --json shows all", style="dim"))
        if self.words:
            console.print()
        for sentence in self.words:
            console.print(Text(sentence))


def shown(value: Any) -> str:
    """A value as people read it: four significant digits, yes and no.

    >>> shown(0.000123456), shown(16), shown(True), shown(float("nan"))
    ('0.0001235', '16', 'yes', 'none')
    """
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.4g}" if math.isfinite(value) else "none" if math.isnan(value) else str(float(value))
    if isinstance(value, complex):
        return f"{value.real:.4g} {'-' if value.imag < 0 else '+'} {abs(value.imag):.4g}i"
    if isinstance(value, (tuple, list)):
        return ", ".join(shown(v) for v in value)
    return "none" if value is None else str(value)


def plain(value: Any) -> Any:
    """``value`` in the types of JSON; what is not finite becomes None, complex numbers become [re, im]."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def percent(ratio: float) -> str:
    """A relative error in words.

    >>> percent(0.0324), percent(2e-9)
    ('3.2 % (-30 dB)', '2.0e-09 (-174 dB)')
    """
    if ratio == 0:
        return "0"
    number = f"{100 * ratio:.0f} %" if 0.995 <= ratio < 10 else f"{100 * ratio:.2g} %" if 1e-4 <= ratio < 10 else f"{ratio:.1e}"
    return f"{number} ({20 * math.log10(ratio):.0f} dB)"


def _key(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _drawn(table: Table, stacked: bool = False) -> Any:
    """The table as rich draws it; a single row as a list of names and values. ``stacked``: names of several words one above the other."""
    from rich.table import Table as RichTable
    from rich.text import Text

    if len(table.rows) == 1:
        return _pairs(zip(table.columns, table.rows[0], strict=True))
    drawn = RichTable(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for i, column in enumerate(table.columns):
        numeric = all(isinstance(row[i], (int, float, np.number)) for row in table.rows)
        name = _between_words(column) if stacked else column
        drawn.add_column(Text(name), justify="right" if numeric else "left", vertical="top", overflow="fold")
    for row in table.rows[: table.limit]:
        drawn.add_row(*(Text(shown(value)) for value in row))
    return drawn


def _between_words(name: str) -> str:
    """A name in lines no wider than its longest word: where a table is too wide, rich would break the words themselves."""
    longest = max(map(len, name.split()), default=1)
    return "\n".join(textwrap.wrap(name, longest, break_long_words=False, break_on_hyphens=False))


def _pairs(items: Iterable[tuple[str, Any]]) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable.grid(padding=(0, 2))
    for name, value in items:
        grid.add_row(Text(f"  {name}", style="dim"), Text(shown(value)))
    return grid
