"""Files as such: what a file really holds, and writing it whole or not at all."""

from __future__ import annotations

import os
import secrets
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PICKLES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib"})
"""Suffixes of formats that run code when they are read."""

_ADVICE = "never unpickled here: save plain tensors with safetensors.torch.save_file or safetensors.numpy.save_file"
_PICKLE_STARTS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_SIGNATURES = {
    b"RIFF": "WAV", b"RIFX": "WAV", b"RF64": "WAV", b"\x93NUMPY": "NPY", b"PK\x03\x04": "NPZ", b"MATLAB 5.0": "MAT", b"MATLAB 7.3": "HDF5",
    b"\x89HDF\r\n\x1a\n": "HDF5", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"\x89PNG": "PNG", b"%PDF": "PDF", b"\x1f\x8b": "gzip",
}  # fmt: skip


def expect_content(path: Path, kind: str, *, signed: bool = False) -> None:
    """ValueError unless the file at ``path`` holds ``kind`` ("WAV", "NPY", ...): the name says so, this asks the bytes.

    ``signed``: such data always begin with their signature, so that a file without it is refused too.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise ValueError(f"expected {kind} data, got an empty file")
    if head.startswith(_PICKLE_STARTS) or (head.startswith(b"PK\x03\x04") and _is_torch_archive(path)):
        raise ValueError(f"expected {kind} data, got a pickle ({_ADVICE})")
    found = next((name for start, name in _SIGNATURES.items() if head.startswith(start)), None)
    if found is None and signed:
        raise ValueError(f"expected {kind} data, got bytes that begin with {head!r}")
    if found not in (None, kind):
        raise ValueError(f"expected {kind} data, as the file's name says, got {found} data")


def refuse_pickle(suffix: str) -> None:
    """ValueError for file names of formats that hold pickles."""
    if suffix in PICKLES:
        raise ValueError(f"expected a tensor file (.safetensors, .npz, .npy, .mat), got a pickle format {suffix} ({_ADVICE})")


@contextmanager
def parsing(kind: str) -> Iterator[None]:
    """Whatever a foreign parser raises on bytes that nobody vouches for becomes one ValueError."""
    try:
        yield
    except Exception as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise ValueError(f"expected arrays of numbers, got pickled objects ({_ADVICE})") from error
        raise ValueError(f"expected {kind} data, got a damaged or truncated file ({one_line(error)})") from error


@contextmanager
def about(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors within name the file, in one line; a file that cannot be opened is a ValueError as well."""
    name = f"{os.fspath(path)}: "
    try:
        yield
    except OSError as error:
        raise ValueError(f"{name}expected a file that can be opened, got: {error.strerror or one_line(error)}") from error
    except ValueError as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name}{one_line(error)}") from error


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a temporary name in the folder of ``path`` and moves the finished file there.

    A reader sees the old file or the new one, never a part; after an error or a power cut no damaged file carries the name.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """The new name outlives a power cut only when the folder is on the disk too. Not every system and file system can do that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """``content`` at ``path``, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def one_line(error: BaseException) -> str:
    """The message of ``error`` without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_torch_archive(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())
