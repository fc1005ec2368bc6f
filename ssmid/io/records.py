"""Records in files: which columns went in, which came out."""

from __future__ import annotations

import os

from ssmid._array import namespace
from ssmid.identification.record import Record
from ssmid.io.files import about
from ssmid.io.reading import read
from ssmid.systems import ImpulseResponse


def read_record(
    path: str | os.PathLike[str],
    *,
    outputs: str | int,
    inputs: str | int | None = None,
    key: str | None = None,
    fs: float | None = None,
    axis: int | None = None,
) -> Record:
    """The input-output record in a file that :func:`ssmid.read` takes for an array of signals.

    inputs, outputs : the channels of each: names of csv columns, or positions from 0 (a time column named so is not counted), several
        separated by commas; without inputs the record is a time series
    key, fs, axis : as of :func:`ssmid.read`

    Raises ValueError that names the file for channels that are not there and for files that hold no signals.

    >>> import os, tempfile, numpy as np
    >>> path = os.path.join(tempfile.mkdtemp(), "motor.csv")
    >>> with open(path, "w") as file: _ = file.write("time,volts,speed\\n" + "\\n".join(f"{0.1 * t:.1f},{t % 5},{t}" for t in range(50)))
    >>> read_record(path, inputs="volts", outputs="speed")
    Record(outputs=1, inputs=1, length=50, batch=(), dt=0.1)
    """
    wanted = {"inputs": _names(inputs), "outputs": _names(outputs)}
    names = [name for some in wanted.values() for name in some]
    by_position = all(name.isdigit() for name in names)
    with about(path):
        if not wanted["outputs"]:
            raise ValueError(f"outputs: expected the channels that were measured, got {outputs!r}")
    if not by_position and key is not None:
        with about(path):
            raise ValueError(f"inputs, outputs: expected positions from 0 beside key={key!r}, got {', '.join(names)}")
    try:
        signals = read(path, key=key if by_position else ",".join(names), fs=fs, axis=axis)
    except ValueError as error:
        if by_position:
            raise
        raise ValueError(str(error).replace("key: expected columns", "inputs, outputs: expected columns")) from None
    with about(path):
        if not isinstance(signals, ImpulseResponse) or signals.taps.ndim > 2:
            raise ValueError(f"expected signals (channels, samples), got {signals!r}")
        taps = signals.taps if signals.taps.ndim == 2 else signals.taps[None, :]
        count = taps.shape[0]
        rows = {kind: [int(n) if by_position else names.index(n) for n in some] for kind, some in wanted.items()}
        beyond = [row for some in rows.values() for row in some if row >= count]
        if beyond:
            raise ValueError(f"inputs, outputs: expected positions 0 to {count - 1}, got {beyond[0]}")
        xp = namespace(taps)
        chosen = {kind: xp.take(taps, xp.asarray(some, dtype=xp.int64), axis=0) for kind, some in rows.items()}
        return Record(chosen["inputs"], chosen["outputs"], signals.dt)


def _names(channels: str | int | None) -> list[str]:
    if channels is None:
        return []
    return [name.strip() for name in str(channels).split(",") if name.strip()]
