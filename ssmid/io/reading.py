"""Measured data and models from files of any kind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ssmid.io import signals
from ssmid.io.files import about, refuse_pickle
from ssmid.io.models import is_model, load_system
from ssmid.io.touchstone import read_touchstone
from ssmid.systems import FrequencyResponse, ImpulseResponse, StateSpace, System

_READERS: dict[str, Callable[..., System]] = {
    ".wav": signals.read_wav, ".csv": signals.read_csv, ".txt": signals.read_csv, ".npy": signals.read_npy, ".npz": signals.read_npz,
    ".mat": signals.read_mat, ".safetensors": signals.read_safetensors,
}  # fmt: skip


def read(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    channel: int | Sequence[int] | None = None,
    fs: float | None = None,
    axis: int | None = None,
) -> System:
    """The system in a file: measured data, matrices, or a model that :func:`ssmid.save` wrote.

    ====================== ===========================================================================================
    .wav                   impulse response ``(channels, samples)``, PCM scaled to +-1; ``(samples,)`` for one channel
    .csv .txt              impulse response, a column a channel; a header and a time column are understood
    .npy .npz .safetensors impulse response ``(*channels, samples)`` of the one array, or of the one named ``key``
    .mat                   the same of column signals; or a state space of the matrices A, B, C, D (also in .npz, .safetensors)
    .csv .npz .mat ...     frequency response, where frequencies stand beside complex values: a csv column f, frequency or omega (unit in
                           brackets; Hz, of omega rad/s) and pairs re, im or mag, phase or db, phase (degrees), names of channels before
                           them; an array so named beside a complex one; continuous unless ``fs`` is given
    .s1p .s2p ... .ts      frequency response ``(outputs, inputs, frequencies)`` of a Touchstone file
    .json .safetensors     a model of :func:`ssmid.save`
    ====================== ===========================================================================================

    ``channel``: an index of the first channel axis, or one index for each; ``fs``: sampling frequency in Hz, where the file does not
    say it or says it wrongly (``dt = 1 / fs``; matrices are continuous without it); ``axis``: the time axis of an array, where it is
    another. Pickles are never read. Raises ValueError that names the file for anything missing, damaged or mislabelled.

    >>> import os, tempfile, numpy as np
    >>> path = os.path.join(tempfile.mkdtemp(), "filters.npy")
    >>> np.save(path, np.ones((3, 100)))
    >>> read(path, fs=8000, channel=2)
    ImpulseResponse(length=100, batch=(), dt=0.000125, float64)
    """
    with about(path):
        file = Path(path)
        suffix = file.suffix.lower()
        refuse_pickle(suffix)
        if re.fullmatch(r"\.s\d+p|\.ts", suffix):
            signals.refuse_options(key=key, fs=fs, axis=axis)
            system = read_touchstone(file)
        elif suffix == ".json" or (suffix == ".safetensors" and is_model(file)):
            signals.refuse_options(key=key, fs=fs, axis=axis)
            system = load_system(file)
        elif suffix in _READERS:
            system = _READERS[suffix](file, key, fs, axis)
        else:
            raise ValueError(f"expected a file of kind {' '.join(_READERS)} .json .s1p .s2p ..., got {suffix or 'no suffix'}")
        return system if channel is None else _select(system, channel)


def _select(system: System, channel: int | Sequence[int]) -> System:
    """One channel, or the channels below it where axes are left."""
    index: tuple[int, ...] = (channel,) if isinstance(channel, int) else tuple(channel) or (-1,)
    axes: tuple[int, ...] = system.batch_shape
    if isinstance(system, StateSpace):
        axes = (*axes, system.outputs, system.inputs)
    if len(index) > len(axes) or any(not 0 <= i < n for i, n in zip(index, axes, strict=False)):
        raise ValueError(f"channel: expected an index within the channels' shape {axes}, got {channel}")
    if isinstance(system, StateSpace):
        return _select_state_space(system, index)
    if isinstance(system, ImpulseResponse):
        return ImpulseResponse(system.taps[index], system.dt)
    if isinstance(system, FrequencyResponse):
        return FrequencyResponse(system.values[index], system.omega, system.dt)
    raise ValueError(f"channel: expected a response or a state space to choose from, got {type(system).__name__}")


def _select_state_space(system: StateSpace, index: tuple[int, ...]) -> StateSpace:
    """The rows of outputs and columns of inputs that are left; they stay matrices."""
    A, B, C, D = system.A, system.B, system.C, system.D
    if system.batch_shape:
        raise ValueError(f"channel: expected a single state space to choose from, got batch {system.batch_shape}")
    rows: Any = slice(index[0], index[0] + 1)
    columns: Any = slice(index[1], index[1] + 1) if len(index) == 2 else slice(None)
    return StateSpace(A, B[:, columns], C[rows], D[rows, columns], system.dt)
