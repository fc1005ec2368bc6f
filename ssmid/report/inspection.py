"""What a file holds, as a system: spectrum, Hankel singular values, poles, and the order to choose."""

from __future__ import annotations

import dataclasses
from math import pi
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.characteristics import damping, dc_gain, is_stable
from ssmid.analysis.hankel import HankelSpectrum, hankel_spectrum
from ssmid.analysis.norms import norm
from ssmid.analysis.spectrum import frequency_response
from ssmid.report.methods import check_coupling
from ssmid.report.progress import Stage
from ssmid.report.tables import Report, Table, percent
from ssmid.systems import FrequencyResponse, ImpulseResponse, StateSpace, System
from ssmid.systems.base import sample_time

LEVELS = (1e-1, 3e-2, 1e-2, 1e-3, 1e-4, 1e-6)
"""Hankel-norm errors, relative to the system's Hankel norm, for which an order is named."""
_GRID = 8192
_RTOL = 1e-6


def inspection(system: System, title: str, *, count: int = 64, mimo: bool = False, stage: Stage | None = None) -> Report:
    """The report of ``ssmid inspect``: ``count`` Hankel singular values, channels coupled with ``mimo``.

    Raises ValueError for ``count`` below 1, for a bank of no channels, and for channels to be coupled where there is one.
    """
    if count < 1:
        raise ValueError(f"count: expected a whole number of at least 1, got {count}")
    check_coupling(system, mimo)
    if 0 in system.batch_shape:
        raise ValueError(f"expected at least one channel, got batch {system.batch_shape}")
    stage = stage or (lambda description, done=None, total=None: None)
    facts = _facts(system)
    stage("spectrum")
    tables = [_spectrum_table(system)]
    if isinstance(system, FrequencyResponse):
        words = ["Frequency data have no Hankel values of their own: fit a model to them first."]
        return Report(title, facts, tables, words)
    if not isinstance(system, ImpulseResponse):
        stage("poles")
        facts["stable"] = bool(np.all(to_numpy(is_stable(system))))
        if system.batch_shape == ():
            tables.append(_pole_table(system))
        if not facts["stable"]:
            return Report(title, facts, tables, ["Hankel singular values are for stable systems: this one has poles that do not decay."])
    stage(f"{count} Hankel singular values")
    options: dict[str, Any] = {"mimo": mimo, "rtol": _RTOL} if isinstance(system, ImpulseResponse) else {}
    spectrum = hankel_spectrum(system, count, **options)
    states = _states(system, mimo)
    if states <= count:  # all there are: no zeros are listed, and no order is beyond them
        first = slice(max(1, states))
        arrays = {name: getattr(spectrum, name)[..., first] for name in ("sigma", "error", "converged")}
        spectrum, count = dataclasses.replace(spectrum, **arrays), max(1, states) + 1
    sigma, sound = _relative(spectrum)
    tables += [_hankel_table(spectrum), _order_table(sigma, count)]
    return Report(title, facts, tables, _words(spectrum, sigma, sound, count))


def _states(system: System, mimo: bool) -> int:
    """How many Hankel values a system can have that are not zero."""
    if isinstance(system, ImpulseResponse):
        return (system.length - 1) * (min(system.taps.shape[-3:-1]) if mimo else 1)
    return system.order  # pyright: ignore[reportAttributeAccessIssue]


def _facts(system: System) -> dict[str, Any]:
    facts: dict[str, Any] = {"holds": type(system).__name__, "channels": system.batch_shape or 1}
    if isinstance(system, StateSpace):
        facts |= {"outputs": system.outputs, "inputs": system.inputs}
    if isinstance(system, FrequencyResponse):
        hertz = to_numpy(system.omega) / (2 * pi)
        facts |= {"frequencies": system.points, "lowest (Hz)": hertz.min(), "highest (Hz)": hertz.max()}
    elif isinstance(system, ImpulseResponse):
        facts |= {"samples": system.length, "duration (s)": system.length * sample_time(system)}
    else:
        facts["order"] = system.order  # pyright: ignore[reportAttributeAccessIssue]
    if not system.is_discrete:
        facts["time"] = "continuous"
    elif system.dt is True:
        facts["time"] = "discrete, of unspecified step"
    else:
        facts |= {"sample time (s)": system.dt, "sampling frequency (Hz)": 1 / system.dt}
    broken = [i for i, ok in enumerate(_finite(system)) if not ok]
    return facts | ({"channels that are not finite": broken} if broken else {})


def _finite(system: System) -> np.ndarray:
    """For each channel, whether all its numbers are finite."""
    return to_numpy(system.is_finite()).reshape(-1)


def _spectrum_table(system: System) -> Table:
    """For each channel its gain at zero frequency and at the peak."""
    if isinstance(system, FrequencyResponse):
        values, hertz = to_numpy(system.values), to_numpy(system.omega) / (2 * pi)
        at_zero = np.where(hertz[..., 0] == 0, np.abs(values[..., 0]), np.nan)
    elif system.is_discrete:
        response = frequency_response(system, points=max(_GRID, system.length if isinstance(system, ImpulseResponse) else 0))
        values, hertz = to_numpy(response.values), to_numpy(response.omega) / (2 * pi)
        at_zero = np.abs(values[..., 0])
    else:
        gain, peak = np.abs(to_numpy(dc_gain(system))), to_numpy(norm(system, "hinf"))
        rows = [[_index(i), gain[i].item()] for i in np.ndindex(gain.shape)]
        return Table(f"Spectrum, H-infinity norm {np.max(peak):.6g}", ["channel", "gain at 0 Hz"], rows)
    magnitude = np.abs(values)
    top = np.argmax(magnitude, axis=-1)
    rows = []
    for i in np.ndindex(magnitude.shape[:-1]):
        peak = magnitude[i][top[i]].item()
        energy = np.sqrt(np.mean(magnitude[i] ** 2)).item()
        where = (hertz if hertz.ndim == 1 else hertz[i])[top[i]].item()
        rows.append([_index(i), energy, at_zero[i].item(), peak, _decibel(peak), where])
    return Table("Spectrum", ["channel", "rms gain", "gain at 0 Hz", "peak gain", "peak (dB)", "peak at (Hz)"], rows)


def _pole_table(system: System) -> Table:
    """The poles that decay slowest, one of each pair."""
    table = damping(system)
    p, frequency, ratio, constant = (to_numpy(a).reshape(-1) for a in (table.poles, table.frequency, table.ratio, table.time_constant))
    upper = np.flatnonzero(np.imag(p) >= 0)
    slowest = upper[np.argsort(-np.where(constant[upper] > 0, constant[upper], np.inf), kind="stable")]
    rows = [[p[i].item(), (frequency[i] / (2 * pi)).item(), ratio[i].item(), constant[i].item()] for i in slowest]
    return Table("Poles, slowest first", ["pole", "natural frequency (Hz)", "damping ratio", "time constant (s)"], rows, limit=10)


def _relative(spectrum: HankelSpectrum) -> tuple[np.ndarray, np.ndarray]:
    """Hankel values over the largest ``(channels, count)``, and which channels have any."""
    sigma = to_numpy(spectrum.sigma).astype(float)
    sigma = sigma.reshape(-1, sigma.shape[-1])
    largest = sigma[:, :1]
    sound = np.isfinite(largest[:, 0]) & (largest[:, 0] > 0)
    return sigma / np.where(sound[:, None], largest, 1.0), sound


def _hankel_table(spectrum: HankelSpectrum) -> Table:
    sigma, error, converged = (to_numpy(a) for a in (spectrum.sigma, spectrum.error, spectrum.converged))
    if sigma.ndim == 1:
        relative = sigma / sigma[0] if len(sigma) and sigma[0] else sigma
        rows = [[i + 1, *(a[i].item() for a in (sigma, relative, error, converged))] for i in range(len(sigma))]
        return Table("Hankel singular values", ["number", "value", "relative", "known to", "converged"], rows, limit=10)
    relative, sound = _relative(spectrum)
    relative = relative[sound]
    done = converged.reshape(-1, converged.shape[-1])
    rows = []
    for i in range(relative.shape[1] if len(relative) else 0):
        column = relative[:, i]
        rows.append([i + 1, np.median(column).item(), column.min().item(), column.max().item(), int(done[:, i].sum())])
    columns = ["number", "median", "least", "most", "channels converged"]
    return Table("Hankel singular values, relative to the largest", columns, rows, limit=10)


def _orders(sigma: np.ndarray, level: float) -> np.ndarray:
    """For each channel the smallest order whose next value is at most ``level``; the number of values where that is unknown."""
    return np.sum(sigma > level, axis=-1)


def _order_table(sigma: np.ndarray, count: int) -> Table:
    rows = []
    for level in LEVELS:
        orders = _orders(sigma, level)
        named = [f"> {count}" if o >= sigma.shape[-1] and o >= count else str(o) for o in (int(np.median(orders)), int(orders.max()))]
        rows.append([level, *(named[:1] if len(sigma) == 1 else named)])
    columns = ["Hankel error, relative", *(["order"] if len(sigma) == 1 else ["order, median channel", "order, worst channel"])]
    return Table("Order to choose", columns, rows)


def _words(spectrum: HankelSpectrum, sigma: np.ndarray, sound: np.ndarray, count: int) -> list[str]:
    if not sound.any():
        return ["The response is zero beyond its first tap: order 0 holds it exactly."]
    worst = sigma[sound]
    reached = {int(_orders(worst, level).max()): level for level in (1e-1, 1e-2, 1e-3)}
    words = [
        f"Order {order} can bring the error in Hankel norm down to {percent(level)}; no smaller order can."
        for order, level in reached.items()
        if order < count
    ]
    if not words:
        words.append(f"More than {count} states are needed for a Hankel error of 10 %: ask for more values, --count {4 * count}.")
    if not np.all(to_numpy(spectrum.converged).reshape(len(sound), -1)[sound]):
        words.append("Not all values have converged: those are lower bounds, and so are the orders.")
    return words


def _decibel(value: float) -> float:
    return 20 * np.log10(value).item() if value > 0 else float("-inf")


def _index(index: tuple[int, ...]) -> str:
    return ",".join(str(i) for i in index) or "0"
