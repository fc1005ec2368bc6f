"""A bank of filters in one picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ssmid._array import to_numpy
from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.spectrum import frequency_response
from ssmid.plot.style import GREY, decibel, drawing, frequency_axis, time_axis
from ssmid.systems import FrequencyResponse, ImpulseResponse, System

_COLUMNS = 600


def filter_bank(
    bank: System, *, of: str = "taps", length: int | None = None, ax: Axes | None = None, fs: float | bool | None = None,
    scale: str = "linear", span: float = 60.0, sort: bool = True, relative: bool = True,
) -> Axes:
    """Hundreds of filters at once: a row for each, its level over time (``of="taps"``) or frequency (``of="spectrum"``) as colour.

    length : taps taken of systems that are not impulse responses (1024 when left out)   scale : "linear" or "log" time or frequency
    sort : by the centre of energy, early or low at the top   relative : each row in dB below its own peak, else below the highest of all
    span : dB between the two ends of the colours

    Columns are the highest level of each bin, so that narrow peaks stay visible; filters with NaN are grey. On a log axis tap 0
    is left out. Raises ValueError for a bank without filters.
    """
    if of not in ("taps", "spectrum") or scale not in ("linear", "log"):
        raise ValueError(f'expected of "taps" or "spectrum" and scale "linear" or "log", got {of!r} and {scale!r}')
    with drawing(ax) as ax:
        x, size = (_taps if of == "taps" else _spectra)(ax, bank, length, fs, scale)
        if not len(size):
            raise ValueError(f"expected at least one filter to draw, got batch {bank.batch_shape}")
        size = np.where(np.isfinite(size).all(-1, keepdims=True), size, np.nan)
        if sort:
            size = size[np.argsort(_centre(size), kind="stable")]  # NaN last
        edges, size = _binned(x, size, scale)
        peak = size.max(-1, keepdims=True) if relative else np.nanmax(size, initial=0.0)
        level = np.maximum(decibel(size / np.where(peak > 0, peak, 1.0)), -span)
        rows = np.arange(len(size) + 1) + 0.5
        mesh = ax.pcolormesh(edges, rows, np.ma.masked_invalid(level), vmin=-span, vmax=0.0, rasterized=True)
        mesh.cmap = mesh.get_cmap().with_extremes(bad=GREY)
        ax.set_xscale(scale)
        ax.set_ylim(rows[-1], rows[0])
        ax.set_xlim(edges[0], edges[-1])
        ax.grid(False)
        centre_of = "duration" if of == "taps" else "centre frequency"
        ax.set_ylabel(f"Filter (sorted by {centre_of})" if sort else "Filter")
        bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
        bar.set_label("Level (dB re peak of each filter)" if relative else "Level (dB re peak)")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return ax


def _centre(size: np.ndarray) -> np.ndarray:
    """The centre of energy of each row."""
    energy = (size / np.maximum(size.max(-1, keepdims=True), np.finfo(float).tiny)) ** 2
    return (energy * np.arange(size.shape[-1])).sum(-1) / np.where(energy.any(-1), energy.sum(-1), 1.0)


def _taps(ax: Axes, bank: System, length: int | None, fs: float | bool | None, scale: str) -> tuple[np.ndarray, np.ndarray]:
    response = bank if isinstance(bank, ImpulseResponse) and length is None else impulse_response(bank, length or 1024)
    taps = to_numpy(response.taps)
    t = time_axis(ax, taps.shape[-1], bank, fs)
    first = int(scale == "log")
    return t[first:], np.abs(taps.reshape(-1, taps.shape[-1]))[:, first:].astype(float)


def _spectra(ax: Axes, bank: System, length: int | None, fs: float | bool | None, scale: str) -> tuple[np.ndarray, np.ndarray]:
    own = isinstance(bank, (ImpulseResponse, FrequencyResponse))
    response = frequency_response(bank) if own and length is None else frequency_response(bank, points=length or 1024)
    omega, values = to_numpy(response.omega), to_numpy(response.values)
    if omega.ndim > 1:
        raise ValueError(f"expected one set of frequencies for all filters, got omega {omega.shape}")
    shown = omega > 0 if scale == "log" else np.ones(omega.shape, bool)
    x = frequency_axis(ax, omega[shown], bank, fs, scale)
    return x, np.abs(values.reshape(-1, values.shape[-1])[:, shown]).astype(float)


def _binned(x: np.ndarray, size: np.ndarray, scale: str) -> tuple[np.ndarray, np.ndarray]:
    """Edges of at most 600 columns and the largest of ``size`` in each."""
    n = len(x)
    if n < 2:
        return np.array([x[0] * 0.9, x[0] * 1.1]) if x[0] else np.array([-0.5, 0.5]), size
    starts = np.arange(n) if n <= _COLUMNS else np.linspace(0, n, _COLUMNS, endpoint=False).astype(int)
    if scale == "log" and n > 64:
        starts = np.unique(np.concatenate([[0], np.geomspace(1, n - 1, _COLUMNS).astype(int)]))
    place = np.log(x) if scale == "log" else x
    middle = (place[1:] + place[:-1]) / 2
    bounds = np.concatenate([[2 * place[0] - middle[0]], middle, [2 * place[-1] - middle[-1]]])[[*starts, n]]
    return np.exp(bounds) if scale == "log" else bounds, np.maximum.reduceat(size, starts, axis=-1)
