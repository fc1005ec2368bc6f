"""Figures of a benchmark as tables: on the terminal with rich, in ``docs/benchmarks.md`` as Markdown.

``python -m ssmid.bench.page docs`` writes the tables of ``docs/benchmarks.md`` again from ``docs/bench/*.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

_HEADINGS = ("case", "tool", "time", "times ours", "error", "of the floor")
_END = "<!-- end -->"


def tables(figures: dict[str, Any]) -> Iterator[Table]:
    """A rich table for each section, and one for the bars."""
    for section, cases in _sections(figures).items():
        further = _further_columns(cases)
        table = _table(section, *_HEADINGS[1:], *further)
        for case in cases:
            for k, (name, *cells) in enumerate(_rows(case, further)):
                if k == 0:
                    table.add_row(Text(name, "bold"))
                table.add_row(Text("  " + cells[0]), *cells[1:])
            table.add_section()
        yield table
    if figures["bars"]:
        table = _table("bars", "tool", "required", "reached", "errors no worse", "")
        for bar in figures["bars"]:
            name, tool, *cells = _bar(bar)
            table.add_row(Text(name, "bold"))
            table.add_row(Text("  " + tool), *cells)
        yield table


def markdown(figures: dict[str, Any]) -> str:
    """The same tables for a page, with the machine they were taken on."""
    lines = [*machine_lines(figures["machine"]), f"Limits measured in the same run: {_limits(figures['limits'])}."]
    for section, cases in _sections(figures).items():
        further = _further_columns(cases)
        lines += ["", f"### {section[0].upper()}{section[1:]}", "", line([*_HEADINGS, *further])]
        lines += ["|---|---|---:|---:|---:|---:|" + "---:|" * len(further)]
        lines += [line(row) for case in cases for row in _rows(case, further)]
        lines += ["", " ".join(f"{text[0].upper()}{text[1:]}." for text in _footnotes(cases))]
    if figures["bars"]:
        lines += ["", "### Bars", "", "| case | tool | required | reached | errors no worse | met |", "|---|---|---:|---:|---|---|"]
        lines += [line(_bar(bar)) for bar in figures["bars"]]
    return "\n".join(lines) + "\n"


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """What figures were taken on, in sentences."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    device = f"{machine['accelerator']} (CUDA {machine['cuda']}), " if "accelerator" in machine else ""
    lines = [f"{device}{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; {versions}."]
    if (machine.get("load") or 0) > machine["cores"] / 2:
        lines += [f"**The machine was busy** (load {machine['load']} before the run): ratios are rough, times too long."]
    threads = machine["threads"]
    threads = threads if isinstance(threads, str) else ", ".join(f"{name} = {value}" for name, value in threads.items())
    return [*lines, f"Threads: {threads}."]


def render(page: str, folder: Path, made: Callable[[dict[str, Any]], str] = markdown, word: str = "figures") -> str:
    """``page`` with what stands between ``<!-- figures: NAME -->`` and ``<!-- end -->`` made from ``folder/NAME``.

    made : the Markdown of what the JSON holds   word : that the comment begins with
    """
    out, rest = "", page
    begin = f"<!-- {word}: "
    while begin in rest:
        before, rest = rest.split(begin, 1)
        name, rest = rest.split(" -->", 1)
        rest = rest.split(_END, 1)[1]
        out += f"{before}{begin}{name} -->\n{made(json.loads((folder / name).read_text()))}{_END}"
    return out + rest


def seconds(value: float) -> str:
    """Three figures with a unit.

    >>> seconds(0.00123), seconds(2.5), seconds(3.1e-5)
    ('1.23 ms', '2.50 s', '31.0 us')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size or unit == "us":
            scaled = value / size
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {unit}"
    raise AssertionError(value)


def line(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# ---------------------------------------------------------------- cells


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(first, title=title, title_justify="left", title_style="bold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _sections(figures: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections: dict[str, list[dict[str, Any]]] = {}
    for case in figures["cases"]:
        sections.setdefault(case["section"], []).append(case)
    return sections


def _further_columns(cases: list[dict[str, Any]]) -> list[str]:
    """Headings of the figures that only some benchmarks have."""
    return list(dict.fromkeys(name for case in cases for tool in case["tools"] for name in tool.get("columns", ())))


def _further(value: float | str) -> str:
    """Three figures, thousands whole.

    >>> _further(29396.4), _further(0.12345), _further("CUDA graph")
    ('29,396', '0.123', 'CUDA graph')
    """
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _rows(case: dict[str, Any], further: list[str]) -> Iterator[list[str]]:
    for k, tool in enumerate(case["tools"]):
        size = f", n = {case['order']}" if case["count"] == 1 and case["order"] and "order" not in case["case"] else ""
        yield [
            f"{case['case']}{size}" if k == 0 else "",
            tool["tool"] + _notes(tool),
            seconds(tool["seconds"]),
            "" if tool["times_ours"] is None or k == 0 else f"{tool['times_ours']:.3g}",
            "" if tool["error"] is None else f"{tool['error']:.2e}",
            "" if not case["floor_seconds"] else f"{tool['seconds'] / case['floor_seconds']:.3g} x",
            *(_further(tool.get("columns", {}).get(name, "")) for name in further),
        ]


def _notes(tool: dict[str, Any]) -> str:
    notes = [f"{tool['scaled_from']} timed"] if tool["scaled_from"] else []
    notes += [f"order {tool['order']}"] if tool.get("order") is not None else []
    notes += ["NOT real and stable"] if tool.get("real_and_stable") is False else []
    return f" ({', '.join(notes)})" if notes else ""


def _footnotes(cases: list[dict[str, Any]]) -> list[str]:
    notes = [f"error: {kind}" for kind in dict.fromkeys(case["error_kind"] for case in cases) if kind]
    return notes + [f"floor: {kind}" for kind in dict.fromkeys(case["floor_kind"] for case in cases) if kind]


def _bar(bar: dict[str, Any]) -> list[str]:
    no_worse = {None: "", True: "yes", False: "no"}[bar["errors_no_worse"]]
    return [bar["case"], bar["tool"], f"{bar['required']:.3g} x", f"{bar['reached']:.3g} x", no_worse, "met" if bar["met"] else "MISSED"]


def _limits(limits: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_per_second', '').replace('_', ' ')} {value / 1e9:.4g} G/s" for name, value in limits.items())


if __name__ == "__main__":
    docs = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    target = docs / "benchmarks.md"
    target.write_text(render(target.read_text(), docs / "bench"))
