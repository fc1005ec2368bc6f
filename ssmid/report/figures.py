"""The figures of a fit: one channel in detail, the worst of a bank, and the bank as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.spectrum import frequency_response
from ssmid.io.files import write_whole
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse, StateSpace, System

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS = 512
"""Filters shown of a bank, evenly chosen."""
_LARGEST_GRID = 2**16
LONG = 1000
"""Taps beyond which levels in dB say more than amplitudes."""


def draw(folder: Path, reduction: Reduction, error: np.ndarray) -> list[Path]:
    """PNG files in ``folder``: responses, spectra and poles of the channel with the largest ``error``, Hankel values, and the bank.

    ``error`` : one number a channel, flat. Channels that are zero or not finite are passed over; without others nothing is drawn.
    """
    from ssmid import plot

    if not np.isfinite(error).any():
        return []
    index = worst_of(error, tuple(reduction.converged.shape))
    original, reduced = one_channel(reduction.original, reduction.system, index)
    worst, name = titles(reduction.system, index)
    hertz = True if original.dt is not True and original.dt != 1 else None
    made = [
        figure(folder / "bode.png", lambda ax: _bode(ax, original, reduced, hertz), name),
        figure(folder / "poles.png", lambda ax: plot.pole_zero(reduced, ax=ax, zeros=False), worst, (4.8, 4.8)),
        figure(folder / "hankel.png", lambda ax: plot.hankel_spectrum(reduction, ax=ax)),
    ]
    if original.is_discrete:
        long = isinstance(original, ImpulseResponse) and original.length > LONG
        options: dict[str, Any] = {"scale": "db" if long else "linear", "fs": None if hertz is None else 1 / original.dt}
        made.append(figure(folder / "impulse.png", lambda ax: plot.impulse(original, reduced, ax=ax, **options), name))
        if index and isinstance(reduction.original, ImpulseResponse):
            made.append(_bank(folder / "bank.png", reduction, reduction.original))
    return made


def worst_of(error: np.ndarray, batch: tuple[int, ...]) -> tuple[int, ...]:
    """The batch index of the largest finite ``error``, one number a channel."""
    flat = np.where(np.isfinite(error), error, -np.inf).reshape(-1)
    return tuple(int(i) for i in np.unravel_index(int(flat.argmax()), batch)) if batch else ()


def titles(system: System, index: tuple[int, ...]) -> tuple[str, str]:
    """What a figure of one channel of a bank is called, and one of the first pair of several outputs and inputs."""
    name = f"channel {','.join(str(i) for i in index)}, the worst" if index else ""
    if not isinstance(system, StateSpace) or (system.outputs, system.inputs) == (1, 1):
        return name, name
    pair = f"output 0 of {system.outputs}, input 0 of {system.inputs}"
    return name, f"{name}, {pair}" if name else pair


def figure(path: Path, onto: Callable[[Axes], object], title: str = "", size: tuple[float, float] = (6.4, 3.8)) -> Path:
    """One PNG of one axes, in the style of the package, written whole."""
    from matplotlib.figure import Figure

    from ssmid import plot

    with plot.style():
        figure = Figure(size, layout="constrained")
        ax = figure.subplots()
        onto(ax)
        ax.set_title(title)
        write_whole(path, figure.savefig)
    return path


def _bode(ax: Axes, original: System, reduced: System, hertz: bool | None) -> None:
    """Both magnitudes; beside a sampled response both on one FFT grid of at least twice its length, so that they can be compared."""
    from ssmid import plot

    if isinstance(original, ImpulseResponse):
        points = min(max(2 * original.length, 2048), _LARGEST_GRID)
        original, reduced = (frequency_response(s, points=points) for s in (original, reduced))
    plot.bode_magnitude(original, ax=ax, fs=hertz, label="original")
    plot.bode_magnitude(reduced, ax=ax, fs=hertz, label="reduced")


def _bank(path: Path, reduction: Reduction, original: ImpulseResponse) -> Path:
    """All filters before and after, a row each, in the same order: by the centre of their energy."""
    from matplotlib.figure import Figure

    from ssmid import plot

    length = original.length
    before, after = (to_numpy(impulse_response(s, length).taps).reshape(-1, length) for s in (original, reduction.system))
    energy = np.nan_to_num(before.astype(float)) ** 2
    centre = energy @ np.arange(length) / np.maximum(energy.sum(-1), np.finfo(float).tiny)
    rows = np.argsort(centre, kind="stable")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _ROWS)).astype(int))]
    with plot.style():
        figure = Figure((9.6, 4.2), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, taps, title in zip(axes, (before, after), ("original", "reduced"), strict=True):
            plot.filter_bank(ImpulseResponse(taps[rows], original.dt), ax=ax, sort=False)
            ax.set_title(title)
        axes[1].set_ylabel("")
        write_whole(path, figure.savefig)
    return path


def one_channel(original: System, system: System, index: tuple[int, ...]) -> tuple[System, System]:
    """Data or original, and model, of one batch element; of coupled channels the first output and input."""
    pair = []
    for whole in (original, system):
        one = element(whole, index)
        if isinstance(one, StateSpace):
            one = StateSpace(one.A, one.B[:, :1], one.C[:1, :], one.D[:1, :1], one.dt)
        while one.batch_shape:
            one = element(one, (0,) * len(one.batch_shape))
        pair.append(one)
    return pair[0], pair[1]


def element(system: System, index: tuple[int, ...]) -> System:
    """Element ``index`` of the leading batch axes, with NumPy arrays."""
    return dataclasses.replace(system, **{name: to_numpy(array)[index] for name, array in system.broadcast_arrays().items()})
