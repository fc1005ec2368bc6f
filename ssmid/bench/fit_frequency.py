"""Frequency responses: a slot ring, an inductor, a noisy system of order 3, and a bank of a thousand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.characteristics import poles
from ssmid.analysis.spectrum import frequency_response
from ssmid.bench.fit_peers import Model, frequency_tools, scipy_aaa, scipy_aaa_default, vector_fit
from ssmid.bench.peers import have
from ssmid.bench.records import OURS, Case, Progress, Row
from ssmid.bench.timing import Timing, measure
from ssmid.identification.aaa import aaa
from ssmid.identification.rational_least_squares import rational_least_squares
from ssmid.identification.vector_fitting import vector_fitting
from ssmid.io import read
from ssmid.systems import FrequencyResponse
from ssmid.systems.base import AnySystem

_KIND = "rms error over the points, of the largest value"


def frequency_responses(quick: bool, data: Path | None, progress: Progress) -> list[Case]:
    """Every case; measured ones where their files are."""
    cases = []
    for name, file, order in (("slot ring", "skrf_ring_slot.s2p", 3), ("slot ring", "skrf_ring_slot.s2p", 4),
                              ("inductor", "milan_3port.s3p", 6), ("inductor", "milan_3port.s3p", 9)):  # fmt: skip
        path = data / "freq" / file if data else None
        if path and path.is_file():
            progress(f"{name}, order {order}")
            response = read(path, channel=(0, 0))
            assert isinstance(response, FrequencyResponse)
            cases.append(one_response(f"{name}, order {order}", response, order, quick))
    progress("noisy order 3")
    cases.append(noisy(quick))
    return cases


def one_response(name: str, response: FrequencyResponse, order: int, quick: bool) -> Case:
    """Ours by three methods, and the tools that are installed."""
    hertz, values = response.omega / (2 * np.pi), response.values
    ours = {
        OURS: lambda: vector_fitting(response, order=order),
        "ssmid, AAA": lambda: aaa(response, order=order, stable=True),
        "ssmid, rational least squares": lambda: rational_least_squares(response, order=order, stable=True),
    }
    tools: dict[str, Callable[[], Any]] = {**ours, **frequency_tools(hertz, values, order)}
    timed = measure(tools, 1 if quick else 9, 0.3 if quick else 3.0)
    rows = [_row(tool, timing, _as_model(found, response), values, response.is_discrete) for tool, (timing, found) in timed.items()]
    return Case("frequency responses", name, tuple(rows), _KIND, order, rounding=1e-12)


def noisy(quick: bool) -> Case:
    """500 points on the half circle of a system of order 3, in noise of 1e-4 of its largest value: the order is not told."""
    rng = np.random.default_rng(20261122)
    omega = np.linspace(0, np.pi, 500)
    z = np.exp(1j * omega)
    exact = np.polyval([0.1, 0.2, 0.05, 0.3], z) / np.polyval([1, -1.5, 1.1, -0.4], z)
    values = exact + 1e-4 * np.abs(exact).max() * (rng.standard_normal(500) + 1j * rng.standard_normal(500)) / 2**0.5
    response = FrequencyResponse(values, omega)
    tools: dict[str, Callable[[], Any]] = {
        OURS: lambda: aaa(response, stable=True),
        "SciPy AAA, defaults": lambda: scipy_aaa_default(z, values),
    }
    timed = measure(tools, 1 if quick else 5, 0.3 if quick else 3.0)
    rows = [_row(tool, timing, _as_model(found, response), exact, True) for tool, (timing, found) in timed.items()]
    kind = "rms difference from the system without the noise, of the largest value"
    return Case("frequency responses", "noisy order 3, 500 points, 1e-4", tuple(rows), kind, None, rounding=1e-12)


def bank_of_responses(quick: bool, device: str = "cpu") -> Case:
    """Responses of order 6 in a little noise; the loops are timed on a few and scaled."""
    count, sample, order = (20, 2, 6) if quick else (1000, 10, 6)
    rng = np.random.default_rng(7)
    omega = np.linspace(0.05, 12, 200)
    upper = -rng.uniform(0.05, 0.5, (count, 3)) + 1j * rng.uniform(1, 11, (count, 3))
    residues = rng.standard_normal((count, 3)) + 1j * rng.standard_normal((count, 3))
    s = 1j * omega[:, None]
    values = np.sum(residues[:, None] / (s - upper[:, None]) + residues[:, None].conj() / (s - upper[:, None].conj()), -1)
    values += 1e-4 * (rng.standard_normal(values.shape) + 1j * rng.standard_normal(values.shape))
    whole, part = on_device(FrequencyResponse(values, omega, 0), device), values[:sample]
    tools: dict[str, Callable[[], Any]] = {
        OURS: lambda: to_numpy(vector_fitting(whole, order=order).error),
        "ssmid, AAA": lambda: to_numpy(aaa(whole, order=order, stable=True).error),
        "SciPy AAA, loop": lambda: [scipy_aaa(1j * omega, v, order // 2 + 1) for v in part],
    }
    if have("skrf"):
        tools["scikit-rf vector_fit, loop"] = lambda: [vector_fit(omega / (2 * np.pi), v, order) for v in part]
    timed = measure(tools, 1 if quick else 3, 0.3 if quick else 5.0)
    rows = []
    for tool, (timing, found) in timed.items():
        loop = isinstance(found, list)
        errors = [rms(model.values, v) for model, v in zip(found, part, strict=True)] if loop else found
        right = all(_row(tool, timing, model, v, False).right for model, v in zip(found, part, strict=True)) if loop else None
        timing = timing.scaled(count / sample) if loop else timing
        rows.append(Row(tool, timing, float(np.median(errors)), sample if loop else None, right=right))
    return Case("banks of responses", f"{count} responses of order 6, 200 points", tuple(rows), f"median {_KIND}", order, count)


def on_device(data: AnySystem, device: str) -> AnySystem:
    """``data`` as NumPy arrays, or as torch tensors where ``device`` is another."""
    if device == "cpu":
        return data
    import torch

    return data.map(lambda array: torch.asarray(array, device=device))


def rms(fitted: np.ndarray, values: np.ndarray) -> float:
    """Root of the mean square of the difference, as a fraction of the largest value."""
    return float(np.sqrt(np.mean(np.abs(fitted - values) ** 2)) / np.abs(values).max())


def _as_model(found: Any, response: FrequencyResponse) -> Model:
    if isinstance(found, Model):
        return found
    return Model(frequency_response(found.system, response.omega).values, np.asarray(poles(found.system)))


def _row(tool: str, timing: Timing, model: Model, values: np.ndarray, discrete: bool) -> Row:
    """``right``: all poles stable, and each with its conjugate."""
    apart = np.abs(model.poles[:, None] - model.poles.conj()).min(1)
    real = bool((apart <= 1e-6 * np.abs(model.poles)).all())
    stable = bool((np.abs(model.poles) < 1).all() if discrete else (np.real(model.poles) < 0).all())
    return Row(tool, timing, rms(model.values, values), order=len(model.poles), right=real and stable)
