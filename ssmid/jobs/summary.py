"""What is said of a distilled model: of each layer a row, and which filters are special."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ssmid._array import to_numpy
from ssmid.distillation.bank import KINDS
from ssmid.distillation.overview import relative_error
from ssmid.distillation.result import Distillation
from ssmid.distillation.rounding import Cost, worst
from ssmid.report.tables import Report, Table, plain

_NAMED = 8
"""Filters of a kind that are named; the others are counted."""


def facts_of(layer: Distillation, norm: str = "l2", tol: float | None = None) -> dict[str, Any]:
    """The certificates of a layer in a few numbers, as ``model.json`` has them."""
    certificate = layer.certificate
    kind, l2 = certificate.kind.reshape(-1), to_numpy(certificate.l2).reshape(-1)
    order = np.broadcast_to(to_numpy(layer.order) if not isinstance(layer.order, int) else layer.order, certificate.kind.shape)
    sound = np.isfinite(l2)
    missed = ~(relative_error(certificate, norm).reshape(-1) <= tol) & sound if tol is not None else np.zeros(kind.size, bool)
    failed = ~to_numpy(certificate.converged).reshape(-1) & ~missed
    special = {name: kind == i for i, name in enumerate(KINDS) if i}
    special["out of range"] = np.isnan(l2) & ~special["not finite"] & ~special["unstable"]
    facts: dict[str, Any] = {
        "shape": list(certificate.kind.shape),
        "length": layer.length,
        "dt": layer.system.dt,
        "method": layer.method,
        "filters": kind.size,
        "states": int(order.sum()),
        "order": _spread(order.reshape(-1)),
        "relative_l2_error": _spread(l2),
        "times_best": _spread(to_numpy(certificate.ratio).reshape(-1)),
        "spectral_radius": _spread(to_numpy(certificate.spectral_radius).reshape(-1)),
        "tail_energy": _spread(to_numpy(certificate.tail_energy).reshape(-1)),
        "not_converged": int(np.sum(failed)),
        "named": {name: int(np.sum(which)) for name, which in special.items() if which.any()},
        "which": {name: np.flatnonzero(which)[:_NAMED].tolist() for name, which in special.items() if which.any()},
    }
    if tol is not None:
        facts["over_tolerance"] = int(np.sum(missed))
    return facts


def of_chunks(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What is known of a layer from its chunks: the same of all, but for what single precision costs, which is the worst of them."""
    cost = worst([Cost(**part["single_precision"]) for part in parts if "single_precision" in part])
    return parts[0] | ({} if cost is None else {"single_precision": dataclasses.asdict(cost)})


Layers: TypeAlias = "Mapping[str, dict[str, Any]]"
"""What :func:`facts_of` says of each layer, by name."""


def report_of(title: str, layers: Layers, facts: Mapping[str, Any], norm: str, tol: float | None) -> tuple[Report, bool]:
    """The report that is printed, and whether every filter converged and met the tolerance."""
    failed = sum(f["not_converged"] for f in layers.values())
    lost = sum(_without(f) for f in layers.values())
    missed = sum(f.get("over_tolerance", 0) for f in layers.values())
    total, states = sum(f["filters"] for f in layers.values()), sum(f["states"] for f in layers.values())
    words = []
    if lost:
        words.append(f"NO RESULT for {lost} of {_filters(total)}: named above. The others stand.")
    if failed > lost:
        where = [name for name, f in layers.items() if f["not_converged"] > _without(f)]
        words.append(f"NOT CONVERGED: {failed - lost} of {_filters(total)}{_in(where, layers)}. The errors are measured all the same.")
    if missed:
        words.append(f"The tolerance {tol:g} ({norm}) IS NOT MET by {missed} of {_filters(total)}: allow a larger --max-order.")
    cost = worst([Cost(**f["single_precision"]) for f in layers.values() if "single_precision" in f])
    if cost is not None:
        words.append(f"{cost.words}.")
    tables = [Table("layers", COLUMNS, [_row(name, f) for name, f in layers.items()], limit=40)]
    named = [
        (name, kind, count, _few(f["which"][kind], count), DONE[kind]) for name, f in layers.items() for kind, count in f["named"].items()
    ]
    if named:
        tables.append(Table("named filters", ("layer", "kind", "filters", "which", "what was done"), named))
    return Report(title, {"filters": total, "states": states, **facts}, tables, words), not failed and not missed


COLUMNS = ("layer", "filters", "taps", "order", "states", "l2 median", "l2 worst", "times best")
"""Of the table on a terminal. Errors are relative; ``times best``: the worst Hankel error over what no system of that order gets below."""
DONE = {
    "not finite": "left out: NaN in its place",
    "zero": "no state: exact",
    "tap 0 only": "no state: exact",
    "constant": "approximated as it is",
    "delayed": "approximated as it is; a delay costs states",
    "extreme scale": "scaled by a power of two meanwhile",
    "unstable": "left out: NaN in its place",
    "out of range": "its model does not fit the precision: NaN in its place",
}


def _row(name: str, facts: Mapping[str, Any]) -> tuple[Any, ...]:
    order, l2 = facts["order"], facts["relative_l2_error"]
    orders = order["largest"] if order["smallest"] == order["largest"] else f"{order['smallest']} to {order['largest']}"
    shown = [np.nan if value is None else value for value in (l2["median"], l2["largest"], facts["times_best"]["largest"])]
    return (name, facts["filters"], facts["length"], orders, facts["states"], *shown)


def table_of(layers: Layers) -> bytes:
    """``layers.csv``: a row a layer, numbers in full, empty where there are none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    spreads = ("order", "relative_l2_error", "times_best", "spectral_radius", "tail_energy")
    kinds = KINDS[1:]
    named = (kind.replace(" ", "_") for kind in kinds)
    measured = [f"{spread}_{size}" for spread in spreads for size in ("smallest", "median", "largest")]
    writer.writerow(("layer", "filters", "taps", "states", *measured, "not_converged", "over_tolerance", *named))
    for name, facts in layers.items():
        numbers = [value for spread in spreads for value in facts[spread].values()]
        rest = (facts["not_converged"], facts.get("over_tolerance"), *(facts["named"].get(kind, 0) for kind in kinds))
        writer.writerow((name, facts["filters"], facts["length"], facts["states"], *numbers, *rest))
    return text.getvalue().encode()


def _spread(values: np.ndarray) -> dict[str, Any]:
    """Of the finite ones; None where there are none."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return {"smallest": None, "median": None, "largest": None}
    return {"smallest": plain(finite.min()), "median": plain(np.median(finite)), "largest": plain(finite.max())}


def _without(facts: Mapping[str, Any]) -> int:
    """Filters of a layer that have no result, and are not said to have converged."""
    return sum(facts["named"].get(kind, 0) for kind in ("not finite", "unstable", "out of range"))


def _filters(count: int) -> str:
    return f"{count} {'filter' if count == 1 else 'filters'}"


def _in(names: list[str], layers: Layers) -> str:
    """Which layers, where there are several."""
    shown = ", ".join(names if len(names) <= _NAMED else [*names[:_NAMED], "..."])
    return f" ({shown})" if len(layers) > 1 else ""


def _few(places: list[int], count: int) -> str:
    return ", ".join(map(str, places)) + (", ..." if count > len(places) else "")
