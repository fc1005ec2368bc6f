"""Touchstone files of frequency data, versions 1.1 and 2.0 (EIA/IBIS Open Forum, Touchstone File Format Specification, 2009)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssmid.io.files import expect_content
from ssmid.systems import FrequencyResponse

_HERTZ = {"HZ": 1.0, "KHZ": 1e3, "MHZ": 1e6, "GHZ": 1e9, "THZ": 1e12}
_PARAMETERS = ("S", "Y", "Z", "H", "G")
_FORMATS = ("RI", "MA", "DB")


def read_touchstone(path: Path) -> FrequencyResponse:
    """Network parameters ``(p, p, k)``, or ``(k,)`` for one port, over omega = 2 pi f in rad/s; continuous time.

    Parameters S, Y, Z, H, G are returned as the file has them, with the normalization of version 1 undone (ohms and siemens).
    Noise data are passed over. Raises ValueError with the number of the line.
    """
    expect_content(path, "Touchstone")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    header, rows = _sections(lines)
    ports = _ports(path.suffix, header)
    option = _option_line(header.option)
    per_row = 1 + 2 * (ports * ports if header.matrix == "full" else ports * (ports + 1) // 2)
    records = _records(rows, per_row, ports)
    expected = header.frequencies
    if expected is not None and expected != len(records):
        raise ValueError(f"expected {expected} frequencies, as [Number of Frequencies] says, got {len(records)}")
    data = np.array(records)
    values = _matrices(_complex(data[:, 1:], option.format), ports, header)
    values = _denormalized(values, option) if header.version == 1 else values
    omega = 2 * np.pi * option.hertz * data[:, 0]
    return FrequencyResponse(values[:, 0, 0] if ports == 1 else np.moveaxis(values, 0, -1).copy(), omega, dt=0)


# ---------------------------------------------------------------- the lines


class _Header(NamedTuple):
    option: tuple[int, str]
    version: int
    ports: int | None
    frequencies: int | None
    matrix: str
    order_12_21: bool


class _Option(NamedTuple):
    hertz: float
    parameter: str
    format: str
    resistance: float


def _sections(lines: list[str]) -> tuple[_Header, list[tuple[int, list[str]]]]:
    """The header, and the rows of network data as (line number, words)."""
    option: tuple[int, str] | None = None
    keywords: dict[str, str] = {}
    rows: list[tuple[int, list[str]]] = []
    within = True
    for number, raw in enumerate(lines, start=1):
        line = raw.split("!", 1)[0].strip()
        if line.startswith("#"):
            option = option or (number, line)
        elif line.startswith("["):
            name, _, value = line[1:].partition("]")
            name = " ".join(name.lower().split())
            keywords[name] = value.strip()
            # [Reference] may go on over several lines, which are not network data
            within = name not in ("reference", "noise data", "end", "begin information")
        elif line and within:
            rows.append((number, line.split()))
    if option is None:
        raise ValueError("expected a Touchstone option line ('# GHz S MA R 50'), got none")
    if not rows:
        raise ValueError("expected rows of network data, got none")
    version = 2 if keywords.get("version", "1").startswith("2") else 1
    matrix = keywords.get("matrix format", "full").lower()
    if matrix not in ("full", "lower", "upper"):
        raise ValueError(f"[Matrix Format]: expected Full, Lower or Upper, got {matrix}")
    header = _Header(
        option, version, _count(keywords, "number of ports"), _count(keywords, "number of frequencies"), matrix,
        keywords.get("two-port data order", "21_12") == "12_21",
    )  # fmt: skip
    return header, rows


def _count(keywords: dict[str, str], name: str) -> int | None:
    if name not in keywords:
        return None
    if not keywords[name].isdigit() or int(keywords[name]) == 0:
        raise ValueError(f"[{name}]: expected a positive integer, got {keywords[name]!r}")
    return int(keywords[name])


def _ports(suffix: str, header: _Header) -> int:
    named = re.fullmatch(r"\.s(\d+)p", suffix.lower())
    if header.ports is None and named is None:
        raise ValueError(f"expected the number of ports in the suffix (.s2p) or in [Number of Ports], got {suffix}")
    if header.ports is not None and named is not None and int(named[1]) != header.ports:
        raise ValueError(f"expected {named[1]} ports, as the suffix {suffix} says, got [Number of Ports] {header.ports}")
    ports = header.ports or (int(named[1]) if named else 0)
    if ports < 1:
        raise ValueError(f"expected at least one port, got {suffix}")
    return ports


def _option_line(option: tuple[int, str]) -> _Option:
    """Unit, parameter, format and reference resistance, in any order; GHz S MA R 50 where left out."""
    number, line = option
    hertz, parameter, form, resistance = 1e9, "S", "MA", 50.0
    words = iter(line[1:].upper().split())
    for word in words:
        if word in _HERTZ:
            hertz = _HERTZ[word]
        elif word in _PARAMETERS:
            parameter = word
        elif word in _FORMATS:
            form = word
        elif word == "R":
            resistance = _number(next(words, "nothing"), number)
        else:
            raise ValueError(f"line {number}: expected a unit (Hz to THz), S Y Z H G, RI MA DB, or R and ohms, got {word!r}")
    return _Option(hertz, parameter, form, resistance)


def _records(rows: list[tuple[int, list[str]]], per_row: int, ports: int) -> list[list[float]]:
    """One list of numbers for each frequency.

    Values come in pairs, so a line with an odd count of numbers is one that begins with a frequency. Where the frequency of a
    two-port falls back, version 1 has its noise data: the end.
    """
    records: list[list[float]] = []
    started = 0
    for number, words in rows:
        values = [_number(word, number) for word in words]
        if len(values) % 2:
            _expect_complete(records, per_row, started, ports)
            if records and values[0] <= records[-1][0]:
                if ports == 2 and len(values) == 5:
                    return records
                raise ValueError(f"line {number}: expected rising frequencies, got {values[0]:g} after {records[-1][0]:g}")
            records.append([])
            started = number
        elif not records:
            raise ValueError(f"line {number}: expected a frequency and pairs of numbers, got {len(values)} numbers")
        records[-1] += values
    _expect_complete(records, per_row, started, ports)
    return records


def _expect_complete(records: list[list[float]], per_row: int, number: int, ports: int) -> None:
    if records and len(records[-1]) != per_row:
        raise ValueError(f"line {number}: expected {per_row} numbers for a frequency of {ports} ports, got {len(records[-1])}")


def _number(word: str, number: int) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"line {number}: expected a number, got {word!r}") from None


# ---------------------------------------------------------------- the numbers


def _complex(pairs: np.ndarray, form: str) -> np.ndarray:
    first, second = pairs[:, 0::2], pairs[:, 1::2]
    if form == "RI":
        return first + 1j * second
    magnitude = first if form == "MA" else 10 ** (first / 20)
    return magnitude * np.exp(1j * np.deg2rad(second))


def _matrices(values: np.ndarray, ports: int, header: _Header) -> np.ndarray:
    """``(k, p, p)`` from one row for each frequency. Two-port rows run 11, 21, 12, 22 unless the header says otherwise."""
    if header.matrix != "full":
        out = np.empty((len(values), ports, ports), complex)
        rows, columns = np.tril_indices(ports) if header.matrix == "lower" else np.triu_indices(ports)
        out[:, rows, columns] = out[:, columns, rows] = values
        return out
    out = values.reshape(-1, ports, ports)
    return out.transpose(0, 2, 1) if ports == 2 and not header.order_12_21 else out


def _denormalized(values: np.ndarray, option: _Option) -> np.ndarray:
    """Version 1 divides impedances by R and multiplies admittances by it (specification, rules for version 1.0 files)."""
    R = option.resistance
    if option.parameter in ("Z", "Y"):
        return values * (R if option.parameter == "Z" else 1 / R)
    if option.parameter in ("H", "G"):
        r = R if option.parameter == "H" else 1 / R
        return values * np.array([[r, 1], [1, 1 / r]])
    return values
