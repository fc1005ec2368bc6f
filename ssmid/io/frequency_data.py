"""Frequency responses among the columns of a csv file and the arrays of npz, mat and safetensors files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from ssmid.systems import FrequencyResponse

_AXIS = re.compile(r"(f|freq|frequency|hz|omega|w)[\s_]*[(\[]?(hz|khz|mhz|ghz|rad/s|rad_s)?[)\]]?", re.IGNORECASE)
_RADIANS = {"hz": 2 * np.pi, "khz": 2e3 * np.pi, "mhz": 2e6 * np.pi, "ghz": 2e9 * np.pi, "rad/s": 1.0, "rad_s": 1.0}
_PARTS = {
    "re": "re", "real": "re", "im": "im", "imag": "im", "mag": "mag", "magnitude": "mag", "abs": "mag", "db": "db", "mag_db": "db",
    "phase": "deg", "deg": "deg", "degrees": "deg", "phase_deg": "deg", "angle": "deg", "rad": "rad", "phase_rad": "rad",
}  # fmt: skip
_QUANTITY = re.compile(r"(?:^|[\s_.]+)(?:mag|magnitude|phase|angle)$")
"""What stands before a unit and names no channel: the first word of ``magnitude (dB)`` and of ``phase (deg)``."""
_PAIRS = {("re", "im"), ("mag", "deg"), ("mag", "rad"), ("db", "deg"), ("db", "rad")}


def radians_of(name: str) -> float | None:
    """The rad/s that one unit of an axis called ``name`` is: f, freq, frequency, Hz, omega or w, with a unit; None for other names."""
    found = _AXIS.fullmatch(name.strip())
    if found is None:
        return None
    unit = found[2] or ("rad/s" if found[1].lower() in ("omega", "w") else "hz")
    return _RADIANS[unit.lower()]


def of_columns(table: np.ndarray, names: list[str], dt: float) -> FrequencyResponse | None:
    """The response in a table whose first column is a frequency; None where it is not.

    The other columns are pairs, of several channels with their name before: ``re, im``, ``mag, phase`` (degrees), ``db, phase``,
    ``phase_rad`` for radians; ``magnitude (dB)`` is ``db``. Raises ValueError for columns that are no pairs.
    """
    unit = radians_of(names[0]) if names else None
    if unit is None:
        return None
    channels: dict[str, dict[str, np.ndarray]] = {}
    called: dict[str, list[str]] = {}
    for name, column in zip(names[1:], table[:, 1:].T, strict=True):
        channel, part = _parted(name)
        channels.setdefault(channel, {})[part] = column
        called.setdefault(channel, []).append(name)
    values = []
    for channel, parts in channels.items():
        pair = tuple(parts)
        if pair not in _PAIRS:
            got = ", ".join(called[channel])
            raise ValueError(f"columns beside {names[0]}: expected pairs re, im or mag, phase or db, phase of a channel, got {got} alone")
        values.append(_complex(pair, *parts.values()))
    if not values:
        raise ValueError("expected columns of values beside the frequency, got none")
    return FrequencyResponse(values[0] if len(values) == 1 else np.stack(values), unit * table[:, 0], dt)


def of_variables(variables: Mapping[str, Callable[[], np.ndarray]], key: str | None, dt: float) -> FrequencyResponse | None:
    """The response of a complex array ``(*channels, k)`` beside an array of ``k`` frequencies; None where there are not both.

    The frequencies are called as in :func:`radians_of`; ``key`` names the values where several arrays are complex.
    """
    axis = next((name for name in variables if name != key and radians_of(name) is not None), None)
    if axis is None:
        return None
    frequencies = np.ravel(variables[axis]())
    if frequencies.dtype.kind not in "iuf" or frequencies.size < 2:
        return None
    found = {name: np.asarray(read()) for name, read in variables.items() if name != axis and key in (None, name)}
    found = {name: array for name, array in found.items() if array.dtype.kind == "c" and frequencies.size in array.shape}
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"expected one complex array beside the frequencies {axis}, or key= to choose one, got {', '.join(found)}")
    values = next(iter(found.values()))
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()  # MATLAB has no vectors
    if values.shape[-1] != frequencies.size:
        values = np.moveaxis(values, values.shape.index(frequencies.size), -1)
    unit = radians_of(axis)
    assert unit is not None
    return FrequencyResponse(values, unit * frequencies, dt)


def _parted(name: str) -> tuple[str, str]:
    """Channel and part of a column's name: ``s11_re`` is ("s11", "re"), ``phase`` is ("", "deg")."""
    lower = name.strip().lower()
    for part in sorted(_PARTS, key=len, reverse=True):
        found = re.fullmatch(rf"(.*?)[\s_.(\[]*{part}[)\]]?", lower)
        if found and (found[1] == "" or lower != found[1] + part or lower == part):
            return _QUANTITY.sub("", found[1]), _PARTS[part]
    raise ValueError(f"column {name}: expected a name that ends with one of {', '.join(_PARTS)}")


def _complex(pair: tuple[str, ...], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if pair == ("re", "im"):
        return first + 1j * second
    modulus = 10 ** (first / 20) if pair[0] == "db" else first
    return modulus * np.exp(1j * (np.radians(second) if pair[1] == "deg" else second))
