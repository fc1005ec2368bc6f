"""Measured signals and matrices on disk: wav, csv, npy, npz, mat, safetensors. One reader for each kind of file."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.io.wavfile
import scipy.sparse

from ssmid.io import frequency_data
from ssmid.io.files import expect_content, parsing
from ssmid.systems import FrequencyResponse, ImpulseResponse, StateSpace, ss

Variables = Mapping[str, Callable[[], np.ndarray]]
"""The arrays of a file by name, each read when it is called."""

_TIME_COLUMN = re.compile(r"(?:t|time|sampling_time)[\s_]*[(\[]?(s|ms|us|µs|ns)?[)\]]?", re.IGNORECASE)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def read_wav(path: Path, key: str | None, fs: float | None, axis: int | None) -> ImpulseResponse:
    """PCM of 8, 16, 24 or 32 bits, scaled to +-1, or floats as they are; one row a channel, float64."""
    refuse_options(key=key, axis=axis)
    expect_content(path, "WAV", signed=True)
    with parsing("WAV"), warnings.catch_warnings():
        warnings.filterwarnings("error", "Reached EOF", scipy.io.wavfile.WavFileWarning)
        warnings.filterwarnings("ignore", "Chunk", scipy.io.wavfile.WavFileWarning)
        rate, samples = scipy.io.wavfile.read(path)
    return ImpulseResponse(np.ascontiguousarray(_full_scale(samples).T), _step(fs, 1 / rate if rate else None))


def read_csv(path: Path, key: str | None, fs: float | None, axis: int | None) -> ImpulseResponse | FrequencyResponse:
    """Columns are channels. A header, also one behind a ``#``, may name them.

    A first column named t or time (with a unit) gives the sample time. A first column named f, frequency or omega (with a unit) makes
    the others pairs of a frequency response.

    ``key``: the names of the columns wanted, separated by commas.
    """
    expect_content(path, "CSV")
    with parsing("CSV"):
        written = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    lines = [line for line in written if not line.lstrip().startswith("#")]
    if not lines:
        raise ValueError("expected rows of numbers, got none")
    delimiter = next((d for d in ",;\t" if d in lines[0]), None)
    names = _names_in(lines[0], delimiter)
    rows = lines[1:] if names else lines
    if not names and (above := written.index(lines[0])):  # as numpy.savetxt writes a header: behind a #
        commented = _names_in(written[above - 1].lstrip("# "), delimiter)
        names = commented if 1 < len(commented) == len(lines[0].split(delimiter)) else []
    if not rows:
        raise ValueError("expected rows of numbers, got a header alone")
    try:
        table = np.loadtxt(rows, delimiter=delimiter, ndmin=2, comments=None)
    except ValueError as error:
        raise ValueError(f"expected rows of equally many numbers, got: {str(error).split(';')[0]}") from None
    if key is None and (response := frequency_data.of_columns(table, names, 0 if fs is None else _step(fs, None))):
        return response
    columns, step = _columns(table, names, key)
    return _response(columns, fs, step, 0 if axis is None else axis)


def read_npy(path: Path, key: str | None, fs: float | None, axis: int | None) -> ImpulseResponse:
    """One array ``(*batch, length)``; integers are taken as they are."""
    refuse_options(key=key)
    expect_content(path, "NPY", signed=True)
    with parsing("NPY"):
        array = np.load(path, allow_pickle=False)
    return _response(array, fs, None, axis)


def read_npz(path: Path, key: str | None, fs: float | None, axis: int | None) -> ImpulseResponse | FrequencyResponse | StateSpace:
    """One array, or the one named ``key``, or the matrices A, B, C, D."""
    expect_content(path, "NPZ", signed=True)
    with parsing("NPZ"):
        archive = np.load(path, allow_pickle=False)
    with archive:
        return _from_variables({name: _array_of(archive, name) for name in archive.files}, key, fs, axis)


def read_mat(path: Path, key: str | None, fs: float | None, axis: int | None) -> ImpulseResponse | FrequencyResponse | StateSpace:
    """MATLAB files to version 7: the matrices A, B, C, D (continuous unless ``dt`` or ``fs`` is there), or one array of column signals."""
    expect_content(path, "MAT")
    with parsing("MAT (version 7 or older)"):
        content = scipy.io.loadmat(path, simplify_cells=False)
    variables = {name: _const(value) for name, value in content.items() if not name.startswith("__")}
    return _from_variables(variables, key, fs, axis, column_signals=True)


def read_safetensors(path: Path, key: str | None, fs: float | None, axis: int | None) -> ImpulseResponse | FrequencyResponse | StateSpace:
    """One tensor, or the one named ``key``, or the matrices A, B, C, D."""
    expect_content(path, "safetensors")
    return _from_variables(safetensors_variables(path), key, fs, axis)


def safetensors_variables(path: Path) -> Variables:
    """The tensors of a safetensors file by name."""
    from safetensors import safe_open

    with parsing("safetensors"), safe_open(path, framework="np") as file:
        names = list(file.keys())

    def tensor(name: str) -> np.ndarray:
        with parsing("safetensors"), safe_open(path, framework="np") as file:
            return file.get_tensor(name) if file.get_slice(name).get_dtype() != "BF16" else _bfloat16(path, name)

    return {name: lambda name=name: tensor(name) for name in names}


# ---------------------------------------------------------------- which of the variables, and as what


def _from_variables(
    variables: Variables, key: str | None, fs: float | None, axis: int | None, column_signals: bool = False
) -> ImpulseResponse | FrequencyResponse | StateSpace:
    step = _step_variable(variables)
    if key is not None and key not in variables:
        raise ValueError(f"key: expected one of {sorted(variables)}, got {key!r}")
    if key is not None:
        response = frequency_data.of_variables(variables, key, 0 if fs is None and step is None else _step(fs, step))
        return response or _signal(variables[key](), fs, step, axis, column_signals)
    matrices = {name.upper(): name for name in variables if name.upper() in ("A", "B", "C", "D", "E")}
    if {"A", "B", "C"} <= set(matrices):
        if "E" in matrices:
            raise ValueError("expected A, B, C, D, got a descriptor system with E: where E is regular, solve for E^-1 A and E^-1 B")
        values = {letter: _dense(variables[name]()) for letter, name in matrices.items()}
        return ss(**values, dt=0 if fs is None and step is None else _step(fs, step))
    response = frequency_data.of_variables(variables, None, 0 if fs is None and step is None else _step(fs, step))
    if response is not None:
        return response
    candidates = ((name, array) for name, read in variables.items() if (array := _dense(read())).size > 1 and array.dtype.kind in "biufc")
    arrays = dict(islice(candidates, 4))
    if len(arrays) != 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or f"none in {sorted(variables)}"
        raise ValueError(f"expected one array, or key= to choose one, got {shapes}{' and others' if len(arrays) == 4 else ''}")
    return _signal(next(iter(arrays.values())), fs, step, axis, column_signals)


def _signal(array: np.ndarray, fs: float | None, step: float | None, axis: int | None, column_signals: bool) -> ImpulseResponse:
    array = _dense(array)
    if column_signals and array.ndim == 2:
        # MATLAB has no vectors: a row is a signal as much as a column; of a matrix the columns are.
        array = array.reshape(-1) if 1 in array.shape else array if axis is not None else array.T
    return _response(array, fs, step, axis)


def _response(array: np.ndarray, fs: float | None, step: float | None, axis: int | None) -> ImpulseResponse:
    if array.ndim == 0:
        raise ValueError("expected an array of at least one axis (*channels, samples), got a single number")
    if axis is not None:
        if not -array.ndim <= axis < array.ndim:
            raise ValueError(f"axis: expected {-array.ndim} to {array.ndim - 1} for shape {array.shape}, got {axis}")
        array = np.ascontiguousarray(np.moveaxis(array, axis, -1))
    return ImpulseResponse(array, _step(fs, step))


def _step(fs: float | None, step: float | None) -> float:
    """The sample time: ``1 / fs`` where the caller gives it, else what the file says, else 1."""
    if fs is None:
        return 1 if step is None else step
    if not isfinite(fs) or fs <= 0:
        raise ValueError(f"fs: expected a positive sampling frequency in Hz, got {fs}")
    return 1 / fs


def _step_variable(variables: Variables) -> float | None:
    """The sample time of a scalar variable named dt or Ts (seconds), fs or sample_rate (Hz)."""
    for name, read in variables.items():
        if name.lower() in ("dt", "ts", "fs", "sample_rate"):
            value = _dense(read())
            if value.size == 1 and value.dtype.kind in "iuf" and value.item() > 0:
                return float(value.item()) if name.lower() in ("dt", "ts") else 1 / float(value.item())
    return None


# ---------------------------------------------------------------- wav, csv and tensors in detail


def _full_scale(samples: np.ndarray) -> np.ndarray:
    """Samples in float64 with full scale +-1: unsigned 8-bit is offset by 128, 24-bit arrives shifted up to 32."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float64)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float64) - 128) / 128
    return samples / -float(np.iinfo(samples.dtype).min)


def _names_in(line: str, delimiter: str | None) -> list[str]:
    """The names of columns in a line that is a header; none in a row of numbers."""
    names = [name.strip().strip('"') for name in line.split(delimiter)]
    return [] if any(_is_number(name) for name in names) else names


def _columns(table: np.ndarray, names: list[str], key: str | None) -> tuple[np.ndarray, float | None]:
    """The columns asked for ``(samples,)`` or ``(samples, channels)``, and the step that a time column gives."""
    step = None
    time = _TIME_COLUMN.fullmatch(names[0]) if names else None
    if time and len(names) > 1:
        step = _uniform_step(table[:, 0]) * _SECONDS[(time[1] or "s").lower()]
        table, names = table[:, 1:], names[1:]
    if key is not None:
        wanted = [name.strip() for name in key.split(",")]
        if not set(wanted) <= set(names):
            raise ValueError(f"key: expected columns out of {names or 'a header that names them'}, got {key!r}")
        table = table[:, [names.index(name) for name in wanted]]
    return (table[:, 0] if table.shape[1] == 1 else table), step


def _uniform_step(time: np.ndarray) -> float:
    steps = np.diff(time)
    if len(steps) == 0 or not (steps.min() > 0 and np.ptp(steps) <= 1e-2 * steps.mean()):
        extremes = f"{steps.min():g} to {steps.max():g}" if len(steps) else "a single one"
        raise ValueError(f"time column: expected equal positive steps, got {extremes}")
    return float((time[-1] - time[0]) / len(steps))


def _bfloat16(path: Path, name: str) -> np.ndarray:
    """A bfloat16 tensor as float32: its bits are the upper half. NumPy has no such type, so the bytes are read from the file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
        start, stop = entry["data_offsets"]
        file.seek(8 + size + start)
        bits = np.frombuffer(file.read(stop - start), "<u2").astype(np.uint32) << 16
    return bits.view(np.float32).reshape(entry["shape"])


def _array_of(archive: Any, name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with parsing("NPZ"):
            return archive[name]

    return read


def _const(value: Any) -> Callable[[], np.ndarray]:
    return lambda: value


def _dense(array: Any) -> np.ndarray:
    return array.toarray() if scipy.sparse.issparse(array) else np.asarray(array)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def refuse_options(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: expected none for this kind of file, got {value!r}")
