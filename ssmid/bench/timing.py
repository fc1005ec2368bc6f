"""Times that can be believed: warm-up, interleaved repeats, medians, and the machine's own limits beside them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssmid._array import cores


@dataclasses.dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of one call: the median of ``repeats``, the fastest and the slowest."""

    seconds: float
    fastest: float
    slowest: float
    repeats: int

    @classmethod
    def of(cls, samples: list[float]) -> Timing:
        return cls(float(np.median(samples)), min(samples), max(samples), len(samples))

    def scaled(self, factor: float) -> Timing:
        """Of a loop of ``factor`` times as many rounds as were timed."""
        return Timing(self.seconds * factor, self.fastest * factor, self.slowest * factor, self.repeats)


def wall_seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that ``function`` took, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def measure(
    tools: Mapping[str, Callable[[], Any]],
    repeats: int,
    budget: float,
    clock: Callable[[Callable[[], Any]], tuple[float, Any]] = wall_seconds,
) -> dict[str, tuple[Timing, Any]]:
    """Times each function of ``tools`` by ``clock``: name -> (timing, what it returned).

    Every function is called once to warm up; then, round by round, each in turn, so that a disturbance of the machine meets
    all of them. A function leaves the rounds when it has run for ``budget`` seconds; one whose warm-up alone took that long
    keeps the warm-up as its only sample.
    """
    samples: dict[str, list[float]] = {}
    spent: dict[str, float] = {}
    results: dict[str, Any] = {}
    for name, function in tools.items():
        spent[name], results[name] = clock(function)
        samples[name] = [spent[name]] if spent[name] >= budget else []
    for _ in range(repeats):
        for name, function in tools.items():
            if spent[name] < budget or not samples[name]:
                seconds, _ = clock(function)
                samples[name].append(seconds)
                spent[name] += seconds
    return {name: (Timing.of(samples[name]), results[name]) for name in tools}


# ---------------------------------------------------------------- the machine


def machine() -> dict[str, Any]:
    """What a reader needs to repeat the figures: processor, cores this process may use, load, thread settings, versions."""
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    return {
        "processor": _processor(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "threads": threads or "all cores, for every tool (one process, no setting)",
        "versions": versions("numpy", "scipy", "torch", "pymor", "control", "slycot", "scikit-rf", "sippy_unipi"),
    }


def versions(*packages: str) -> dict[str, str]:
    """The installed ones of ``packages`` and their versions."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def limits(quick: bool = False) -> dict[str, float]:
    """Measured ceilings of this machine: bytes a second of a large copy (read plus write), flops a second of a float64 product.

    Large elementwise work cannot be faster than the first, dense algebra not faster than the second.
    """
    source = np.ones(2**22 if quick else 2**25)
    target = np.empty_like(source)
    n = 512 if quick else 2048
    matrix = np.ones((n, n))
    timed = measure({"copy": lambda: np.copyto(target, source), "product": lambda: matrix @ matrix}, repeats=3 if quick else 7, budget=2.0)
    return {
        "copy_bytes_per_second": 2 * source.nbytes / timed["copy"][0].fastest,
        "product_flops_per_second": 2 * n**3 / timed["product"][0].fastest,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")
