"""Reductions of the benchmark systems: balanced truncation, Hankel-norm optimal, H2-optimal, beside pyMOR and SLICOT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssmid import datasets
from ssmid.analysis.characteristics import is_stable
from ssmid.analysis.hankel import hankel_singular_values
from ssmid.analysis.interconnection import subtract
from ssmid.analysis.norms import norm
from ssmid.bench import peers
from ssmid.bench.fit_peers import pymor_irka
from ssmid.bench.measured import published_systems
from ssmid.bench.records import OURS, Case, Progress, Row
from ssmid.bench.timing import measure
from ssmid.reduction.balanced import balanced_truncation
from ssmid.reduction.hankel_norm import hankel_norm_approximation
from ssmid.reduction.irka import irka
from ssmid.systems import StateSpace

_SECTIONS = {
    "hankel": "Hankel error of reduced systems",
    "hinf": "H-infinity error of reduced systems",
    "h2": "H2 error of reduced systems",
}


def reductions(quick: bool, data: Path | None, progress: Progress) -> list[Case]:
    """For each system a case of Hankel errors, of H-infinity errors (both over sigma_(r+1)) and of H2 errors."""
    cases = []
    for name, (system, order) in _systems(quick, data).items():
        progress(f"{name}, n = {system.order} to {order}")
        tools: dict[str, Callable[[], Any]] = {
            "Hankel-norm optimal": lambda s=system, r=order: hankel_norm_approximation(s, r).system,
            "balanced truncation": lambda s=system, r=order: balanced_truncation(s, r).system,
            "IRKA": lambda s=system, r=order: irka(s, r).system,
        }
        if peers.have("pymor"):
            tools["pyMOR"] = lambda s=system, r=order: peers.pymor_balanced(s, r)
            tools["pyMOR IRKA"] = lambda s=system, r=order: pymor_irka(s, r)
        if peers.have("slycot"):
            tools["SLICOT AB09AD"] = lambda s=system, r=order: peers.slicot_balanced(s, r)
        timed = measure(tools, 1 if quick else 5, 0.3 if quick else 4.0)
        best = float(hankel_singular_values(system, order + 1)[order])
        for kind, section in _SECTIONS.items():
            main = {"hankel": "Hankel-norm optimal", "hinf": "balanced truncation", "h2": "IRKA"}[kind]
            scale = float(norm(system, "h2")) if kind == "h2" else best
            rows = []
            for tool, (timing, model) in sorted(timed.items(), key=lambda item: item[0] != main):
                if (tool == "Hankel-norm optimal" and kind == "h2") or (tool in ("IRKA", "pyMOR IRKA") and kind != "h2"):
                    continue
                label = _label(tool, main)
                error = float(norm(subtract(system, model), kind)) / scale
                rows.append(Row(label, timing, error, order=model.order, right=bool(is_stable(model))))
            what = "of the H2 norm" if kind == "h2" else "over sigma_(r+1), below which no model of that order gets in Hankel norm"
            cases.append(Case(section, f"{name}, to order {order}", tuple(rows), f"error {what}", system.order, rounding=1e-9))
    return cases


def _label(tool: str, main: str) -> str:
    """Other tools are named as the bars know them only where they do the same job as ours: truncation or IRKA."""
    if tool == main:
        return OURS
    if not tool.startswith(("pyMOR", "SLICOT")):
        return f"ssmid, {tool}"
    same = main == ("IRKA" if tool.endswith("IRKA") else "balanced truncation")
    return tool if same else f"{tool}, balanced truncation"


def _systems(quick: bool, data: Path | None) -> dict[str, tuple[StateSpace, int]]:
    if quick:
        return {"beam": (datasets.beam(60), 10)}
    return {"beam": (datasets.beam(), 20), **published_systems(data, {"build": 20, "CDplayer": 30, "iss_siso": 30})}
