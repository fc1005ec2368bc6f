"""The results of experiments in ``docs/reproduction.md``.

``python -m ssmid.experiments.page docs`` writes what stands there between ``<!-- results: NAME.json -->`` and ``<!-- end -->`` again from
``docs/experiments/NAME.json``, which ``ssmid experiment`` wrote.
"""

from __future__ import annotations

import html
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssmid.bench.page import line, machine_lines, render
from ssmid.experiments.run import EXPERIMENTS
from ssmid.report.tables import shown

PAGE, RESULTS, WORD = "reproduction.md", "experiments", "results"
_BUDGET = ("task", "jobs", "steps", "batch", "tokens of each", "parameters", "precision", "seeds", "seconds")
_LONG = 30
"""Rows of a table, of which one with more is opened by a click."""
_NAMED = 24
"""Jobs that are named one by one; of more the number is."""


def page(text: str, folder: Path) -> str:
    """``text`` with the results of each block made from the JSON in ``folder`` that it names."""
    return render(text, folder, markdown, WORD)


def markdown(results: Mapping[str, Any]) -> str:
    """How the results of an experiment were made, on what, at which cost, its tables, what failed and what was not run."""
    lines = [f"`{_command(results)}`", ""]
    if results["quick"]:
        lines += ["**Toy sizes**: shows that it runs, and proves nothing.", ""]
    lines += [" ".join(machine_lines(results["machine"])), *_tasks(results["runs"]), "", *_budget(results["runs"])]
    for title, rows in results["tables"].items():
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = _table(columns, [[_cell(row.get(name)) for name in columns] for row in rows])
        lines += ["", *(_folded(title, table) if len(rows) > _LONG else [f"**{title}**", "", *table])]
    words = [*results["words"], *_elsewhere(results["runs"]), *_not_run(results)]
    return "\n".join(lines + (["", *words] if words else [])) + "\n"


def _folded(title: str, table: Sequence[str]) -> list[str]:
    return ["<details>", f"<summary><b>{html.escape(title)}</b> ({len(table) - 2} rows)</summary>", "", *table, "", "</details>"]


def _command(results: Mapping[str, Any]) -> str:
    """Folders are another's; the rest is as it was given."""
    pairs = [text.partition("=") for text in results["overrides"]]
    given = [shlex.quote(f"{key}={'DIR' if key.endswith('folder') else value}") for key, _, value in pairs]
    size, device = ["--quick"] * results["quick"], ["--device", "cuda"] * ("accelerator" in results["machine"])
    return " ".join(["ssmid", "experiment", results["experiment"], *size, *device, *given, "-o", "results"])


def _elsewhere(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was not measured on the machine that is named above, for each that did; how busy it was matters to times alone."""
    by_machine: dict[str, list[str]] = {}
    for run in runs:
        if "machine" in run:
            machine = run["machine"] | ({} if _timed(run["result"]) else {"load": None})
            by_machine.setdefault(" ".join(machine_lines(machine)), []).append(run["name"])
    return [f"On another machine: {_names(names)}: {words}" for words, names in by_machine.items()]


def _timed(result: Any) -> bool:
    """Whether a time is anywhere in it."""
    if isinstance(result, Mapping):
        return "seconds" in result or any(map(_timed, result.values()))
    return isinstance(result, list) and any(map(_timed, result))


def _not_run(results: Mapping[str, Any]) -> list[str]:
    over = {run["name"] for run in results["runs"]}
    missing = [job.name for job in EXPERIMENTS[results["experiment"]](quick=results["quick"]).runs if job.name not in over]
    return [f"Not run: {_names(missing)} ({len(over)} of {len(over) + len(missing)} were)."] if missing else []


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _tasks(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the data were, by which others can tell whether theirs are the same."""
    facts = dict.fromkeys(_bracketed(run["task"], run["task"]["task"]) for run in runs if "task" in run)
    return [f"Tasks: {'; '.join(facts)}."] if facts else []


def _bracketed(facts: Mapping[str, Any], name: str) -> str:
    """Facts in a bracket behind their name; of long texts, such as hashes, the beginning.

    >>> _bracketed({"task": "delay", "lag": 100, "sizes": {"train": 16384}, "fresh": True}, "delay")
    'delay (lag 100, sizes (train 16,384), fresh yes)'
    """
    inner = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            inner.append(_bracketed(value, key))
        elif key != "task" and value is not None:
            inner.append(f"{key} {value[:12] + '...' if isinstance(value, str) and len(value) > 50 else _cell(value)}")
    return f"{name} ({', '.join(inner)})"


def _budget(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for the trainings of each task, and one for all that was measured; columns of which nothing is known are left out."""
    trainings = [run for run in runs if "configuration" in run]
    rows = []
    for task in dict.fromkeys(run["task"]["task"] for run in trainings):
        here = [run for run in trainings if run["task"]["task"] == task]
        kept = [run["configuration"] for run in here]
        tokens = [c["steps"] * c["batch"] * run["task"]["length"] for c, run in zip(kept, here, strict=True) if "length" in run["task"]]
        columns = ([c["steps"] for c in kept], [c["batch"] for c in kept], tokens, [run["result"]["parameters"] for run in here])
        words = (sorted({c["precision"] for c in kept}), sorted({c["seed"] for c in kept}))
        rows += [[task, str(len(here)), *map(_span, columns), *map(shown, words), _seconds(here)]]
    measured = [run for run in runs if "configuration" not in run]
    rows += [["measured", str(len(measured)), *[""] * (len(_BUDGET) - 3), _seconds(measured)]] * bool(measured)
    known = [i for i in range(len(_BUDGET)) if any(row[i] for row in rows)]
    return _table([_BUDGET[i] for i in known], [[row[i] for i in known] for row in rows])


def _seconds(runs: Iterable[Mapping[str, Any]]) -> str:
    """All of them together, counted once for every process; none where they did not keep it."""
    spent = [run["result"]["seconds"] * run["result"].get("processes", 1) for run in runs if run["result"].get("seconds") is not None]
    return _cell(sum(spent)) if spent else ""


def _span(values: Sequence[float]) -> str:
    """One value, or from the least to the largest.

    >>> _span([5120, 5120]), _span([12500, 64, 800]), _span([])
    ('5120', '64 to 12,500', '')
    """
    known = sorted(set(values))
    return " to ".join(_cell(value) for value in dict.fromkeys((known[0], known[-1]))) if known else ""


def _cell(value: Any) -> str:
    """Four figures, and thousands apart in what is large; nothing where nothing is known.

    >>> _cell(0.123456), _cell(1234567.8), _cell(137000), _cell(1024), _cell(True), _cell(None)
    ('0.1235', '1,234,568', '137,000', '1024', 'yes', '')
    """
    large = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 10_000
    return "" if value is None else f"{value:,.0f}" if large else shown(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Numbers to the right."""
    digits = [all(not row[i] or row[i][0] in "+-.0123456789" for row in rows) for i in range(len(columns))]
    return [line(columns), "|" + "|".join("---:" if right else "---" for right in digits) + "|", *map(line, rows)]


if __name__ == "__main__":
    docs = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    target = docs / PAGE
    target.write_text(page(target.read_text(), docs / RESULTS))
