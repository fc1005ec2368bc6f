"""What a job gave, beside all that the job is: ``result.json`` in its folder, of trainings and measurements alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ssmid.io.files import about, parsing, write_bytes

RESULT = "result.json"


class Outcome(NamedTuple):
    """``identity``: all that the job is, without its name   ``machine``: what did it, where that was noted."""

    identity: Mapping[str, Any]
    result: dict[str, Any]
    machine: Mapping[str, Any] | None = None


def write_result(folder: Path, outcome: Outcome) -> None:
    """Whole or not at all; its parts as JSON has them, NaN not among them."""
    write_bytes(folder / RESULT, json.dumps(outcome._asdict(), indent=1, allow_nan=False).encode() + b"\n")


def read_result(folder: Path) -> Outcome | None:
    """None where no job is over there; ValueError for a file that is not what :func:`write_result` writes."""
    path = folder / RESULT
    if not path.exists():
        return None
    with about(path):
        with parsing("JSON"):
            content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or not {"identity", "result"} <= set(content) <= set(Outcome._fields):
            got = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"expected identity and result by name, got {got}")
        if odd := [name for name in ("identity", "result") if not isinstance(content[name], dict)]:
            raise ValueError(f"{odd[0]}: expected facts by name, got {content[odd[0]]!r:.60}")
    return Outcome(**content)


def expect_result(folder: Path) -> Outcome:
    """As :func:`read_result`, and ValueError where no job is over."""
    found = read_result(folder)
    if found is None:
        raise ValueError(f"{folder}: expected a job that is over, got none")
    return found
