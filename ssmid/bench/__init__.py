"""Benchmarks that anyone can run: each prints a table and writes JSON; none is a timed test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

NAMES = ("core", "fit", "distill", "layers", "decode")


def run(
    name: str,
    *,
    json_path: str | Path | None = None,
    quick: bool = False,
    data: str | Path | None = None,
    device: str = "cpu",
    peers: str | Path | None = None,
    only: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Runs the benchmark ``name``, prints its tables to ``console`` (standard output when left out) and returns what JSON holds.

    json_path : where to write the figures   quick : small sizes, seconds instead of minutes: shows that it runs, proves nothing
    data : folder of measured responses and published systems; ``../shared/data`` when left out and there
    device : "cpu" compares with other tools; "cuda" measures the GPU against its own limits, and what fits banks beside
        loops of the other tools on its host; "layers" and "decode" are small on "cpu"
    peers : of "layers", a folder with checkouts of the authors' layers (:mod:`ssmid.bench.peer_layers`)   only : one part of "decode"

    Raises ValueError for an unknown name or part, a device that is not there, a folder (of data, of peers, of the JSON file) that is not
    there, and options of another benchmark.
    """
    from rich.console import Console

    from ssmid.bench.page import tables

    if name not in NAMES:
        raise ValueError(f"benchmark: expected one of {', '.join(NAMES)}, got {name!r}")
    for option, given, owner in (("peers", peers, "layers"), ("only", only, "decode")):
        if given is not None and name != owner:
            raise ValueError(f"{option}: expected with the benchmark {owner}, got it with {name}")
    if json_path is not None and not Path(json_path).absolute().parent.is_dir():
        raise ValueError(f"json: expected a file in a folder that is there, got {str(json_path)!r}")
    folder = _data_folder(data)
    console = console or Console()

    def progress(step: str) -> None:
        status.update(f"{name}: {step}")

    with console.status(f"{name}: starting") as status:
        if name == "fit":
            from ssmid.bench.fit import fit

            figures = fit(quick=quick, data=folder, progress=progress, device=device)
        elif name == "distill":
            from ssmid.bench.distill import distilling

            figures = distilling(quick=quick, data=folder, progress=progress, device=device)
        elif name == "layers":
            from ssmid.bench.layers import layers

            figures = layers(quick=quick, progress=progress, device=device, peers=None if peers is None else Path(peers))
        elif name == "decode":
            from ssmid.bench.decode import decoding

            figures = decoding(quick=quick, progress=progress, device=device, only=only)
        elif device == "cpu":
            from ssmid.bench.core import core

            figures = core(quick=quick, data=folder, progress=progress)
        else:
            from ssmid.bench.device import device_limits

            figures = device_limits(device, quick=quick, data=folder, progress=progress)
    for table in tables(figures):
        console.print(table)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _data_folder(data: str | Path | None) -> Path | None:
    if data is not None:
        if not Path(data).is_dir():
            raise ValueError(f"data: expected a folder, got {str(data)!r}")
        return Path(data)
    beside = Path(__file__).parents[3] / "shared" / "data"
    return beside if beside.is_dir() else None
