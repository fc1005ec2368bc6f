"""Tensors in checkpoints by name, with shapes, read when they are asked for: safetensors and torch files, sharded or not.

No pickle is executed: files of torch.save are read with ``weights_only=True``, which builds tensors, dicts, lists and numbers and refuses
everything else, and what it refuses is refused here. One more kind is let through, ``io.BytesIO``, a string of bytes that stays unread:
published weights of Evo 2 have the scales of their FP8 layers in such (Zymrael/vortex, ``custom_load_state_dict``).

Files of torch.save are mapped into memory. One that another program cuts short is told by its size before its tensors are read; where
that happens while they are read, the operating system ends the process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ssmid.io.files import about, expect_content, one_line, parsing
from ssmid.io.tensors import entries, mapped, numbers

TORCH = frozenset({".pt", ".pth", ".bin", ".ckpt"})
"""Suffixes of what torch.save writes."""
TENSORS = TORCH | {".safetensors", ".npz"}
"""Suffixes of files of named tensors."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Names under which training programs keep the weights in a dict beside optimizers and counters."""

_BLOCK = 2**22
_DEEPEST = 64
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.(safetensors|bin|pt|pth)")
_TO_DO = "in the program that made it, save model.state_dict() with safetensors.torch.save_file, or with torch.save"


class Progress(Protocol):
    """A :class:`ssmid.report.progress.Stage`."""

    def __call__(self, description: str, done: float | None = None, total: float | None = None) -> None: ...


@dataclasses.dataclass(frozen=True, eq=False)
class StoredTensor:
    """shape, dtype : "float32", "bfloat16", ... as stored   read : -> the values, float64 (complex128; integers as they are)"""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class TensorFiles(Mapping[str, StoredTensor]):
    """A mapping from names to :class:`StoredTensor`.

    files : those that hold them, after the index   config : what the ``config.json`` beside them says, empty where there is none
    """

    tensors: Mapping[str, StoredTensor]
    files: tuple[Path, ...]
    config: Mapping[str, Any]
    config_file: Path | None

    def __getitem__(self, name: str) -> StoredTensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def open_tensors(path: Path, stage: Progress | None = None) -> TensorFiles:
    """The tensors of a file, of the shards that an index names, or of a folder that holds either.

    Nested dicts in torch files are joined with dots; the usual wrappers (``state_dict``, ``model``) are left out of the names.
    Raises ValueError that names the file for what is missing, damaged, empty or would have to be unpickled.
    """
    index, parts = _parts(path)
    tensors: dict[str, StoredTensor] = {}
    listed = _weight_map(index) if index else None
    for place, part in enumerate(parts):
        if stage is not None:
            stage(f"reading {part.name}", place, len(parts))
        with about(part):
            for name, tensor in _opened(part).items():
                if listed is not None and listed.get(name) != part:
                    continue
                if name in tensors:
                    raise ValueError(f"{name}: expected every tensor once, got it in a second file")
                tensors[name] = tensor
    with about(index or path):
        missing = sorted(set(listed or ()) - set(tensors))
        if missing:
            raise ValueError(f"expected the {len(listed or ())} tensors of the index, got none named {', '.join(missing[:4])}")
        if not tensors:
            raise ValueError("expected a checkpoint with tensors, got none at all")
    beside = (path if path.is_dir() else path.parent) / "config.json"
    file = beside if beside.is_file() else None
    return TensorFiles(tensors, (*([index] if index else ()), *parts), _config(file) if file else {}, file)


def sha256_of(files: Sequence[Path], stage: Progress | None = None) -> str:
    """Of one file what ``sha256sum FILE`` says; of several, the sum of the lines that it says of them."""
    sums = []
    total = sum(path.stat().st_size for path in files)
    done = 0
    for path in files:
        digest = hashlib.sha256()
        with about(path), path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                done += len(block)
                if stage is not None:
                    stage("hashing the checkpoint", done, total)
        sums.append(f"{digest.hexdigest()}  {path.name}\n")
    return sums[0].split()[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


# ---------------------------------------------------------------- which files


def _parts(path: Path) -> tuple[Path | None, list[Path]]:
    """The index, where there is one, and the files of tensors."""
    with about(path):
        if path.is_dir():
            return _of_folder(path)
        if path.name.endswith(".index.json"):
            return path, sorted(set(_weight_map(path).values()))
        return None, [path]


def _of_folder(folder: Path) -> tuple[Path | None, list[Path]]:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    indices = [file for file in files if file.name.endswith(".index.json")]
    for kind in ("safetensors", ""):  # safetensors before torch where a folder holds both
        chosen = [file for file in indices if kind in file.name]
        if chosen:
            return chosen[0], sorted(set(_weight_map(chosen[0]).values()))
    held = [file for file in files if file.suffix.lower() in TENSORS]
    usual = [file for name in ("model.safetensors", "pytorch_model.bin") for file in held if file.name == name]
    held = usual[:1] or [file for file in held if file.suffix.lower() == ".safetensors"] or held
    if not held:
        raise ValueError(f"expected a folder with files of tensors ({' '.join(sorted(TENSORS))}), got none")
    shards = {(found[1], found[3], found[4]) for found in map(_SHARD.fullmatch, (file.name for file in held)) if found}
    if len(shards) == 1 and all(_SHARD.fullmatch(file.name) for file in held):
        (_, count, _) = shards.pop()
        if len(held) != int(count):
            raise ValueError(f"expected {int(count)} shards, got {len(held)}: {held[0].name}{' ...' if len(held) > 1 else ''}")
        return None, held
    if len(held) == 1:
        return None, held
    names = ", ".join(file.name for file in held[:6])
    raise ValueError(f"expected one file of tensors, shards of one, or an index, got {names}{' ...' if len(held) > 6 else ''}: name one")


def _weight_map(index: Path) -> dict[str, Path]:
    with about(index):
        with parsing("an index of shards, JSON"):
            content = json.loads(index.read_text(encoding="utf-8"))
        found = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
            raise ValueError("expected a weight_map from names of tensors to names of files, got another kind of JSON")
        for name in sorted(set(found.values())):
            if Path(name).name != name or name in ("", ".", ".."):
                raise ValueError(f"expected names of files in the same folder, got {name!r}")
            if not (index.parent / name).is_file():
                raise ValueError(f"expected all shards beside the index, got no {name}")
        return {tensor: index.parent / name for tensor, name in found.items()}


def _config(file: Path) -> Mapping[str, Any]:
    with about(file), parsing("JSON"):
        content = json.loads(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


# ---------------------------------------------------------------- one file


def _opened(path: Path) -> dict[str, StoredTensor]:
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        found, _ = entries(path)
        return {name: StoredTensor(e.shape, _DTYPES.get(e.dtype, e.dtype.lower()), _mapped(path, e)) for name, e in found.items()}
    return _of_npz(path) if suffix == ".npz" else _of_torch(path)


def _mapped(path: Path, entry: Any) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with about(path):
            return _double(numbers(mapped(path, entry), entry))

    return read


def _of_npz(path: Path) -> dict[str, StoredTensor]:
    """Headers alone are read here."""
    expect_content(path, "NPZ", signed=True)
    found = {}
    with parsing("NPZ"), zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if not member.endswith(".npy"):
                continue
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = header(file)
            if dtype.kind in "biufc":
                name = member.removesuffix(".npy")
                found[name] = StoredTensor(shape, dtype.name, _unpacked(path, name))
    return found


def _unpacked(path: Path, name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with about(path), parsing("NPZ"), np.load(path, allow_pickle=False) as archive:
            return _double(archive[name])

    return read


def _of_torch(path: Path) -> dict[str, StoredTensor]:
    import torch

    size = path.stat().st_size
    if size == 0:
        raise ValueError("expected a checkpoint, got an empty file")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([io.BytesIO]):
            warnings.simplefilter("ignore", UserWarning)
            # files of before torch 1.6 are no archives, and cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True if zipfile.is_zipfile(path) else None)
    except Exception as error:  # whatever an unpickler raises on bytes that nobody vouches for
        raise ValueError(_refusal(error)) from error
    found: dict[str, StoredTensor] = {}
    for name, tensor in _flat(_unwrapped(content), ""):
        if tensor.layout == torch.strided and tensor.numel() * tensor.element_size() > size:
            raise ValueError(f"{name}: expected a tensor no larger than its file, got shape {tuple(tensor.shape)} in {size} bytes")
        dtype = str(tensor.dtype).removeprefix("torch.")
        found[name or "tensor"] = StoredTensor(tuple(tensor.shape), dtype, _values(path, size, name, tensor))
    return found


def _refusal(error: Exception) -> str:
    text = one_line(error)
    blocked = re.search(r"(?:GLOBAL|global:?) ([\w.]+\.[\w.]+)", text)
    if blocked:
        return f"expected tensors in dicts and lists, got a pickle that asks for {blocked[1]}, which is never executed here: {_TO_DO}"
    if "TorchScript" in text:
        return f"expected tensors in dicts and lists, got a TorchScript program, which is never executed here: {_TO_DO}"
    return f"expected a file of torch.save, got one that is damaged, cut short or of another kind ({text[:120]}): {_TO_DO}"


def _unwrapped(content: Any) -> Any:
    """The dict below the usual wrappers takes their place, unless a name would be there twice."""
    for _ in range(len(WRAPPERS)):
        if not isinstance(content, Mapping):
            break
        wrapper = next((w for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if wrapper is None:
            break
        rest = {key: value for key, value in content.items() if key != wrapper}
        if set(rest) & set(content[wrapper]):
            break
        content = {**content[wrapper], **rest}
    return content


def _flat(content: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The tensors of nested dicts and lists, under names joined with dots."""
    import torch

    if isinstance(content, torch.Tensor):
        yield name, content
    elif isinstance(content, Mapping | list | tuple):
        if name.count(".") > _DEEPEST:  # dicts may hold themselves
            raise ValueError(f"expected at most {_DEEPEST} dicts within one another, got more at {name[:60]}")
        pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in pairs:
            yield from _flat(value, f"{name}.{key}" if name else str(key))


def _values(path: Path, size: int, name: str, tensor: Any) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        import torch

        if not path.is_file() or path.stat().st_size < size:
            raise ValueError(f"{path}: expected a file that stays as it was, {size} bytes, got one that became shorter")

        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise ValueError(f"{path}: {name}: expected a dense tensor with values, got {tensor.layout} on {tensor.device}")
        value = tensor.detach().resolve_conj().resolve_neg()
        if value.is_floating_point():
            value = value.to(torch.float64)  # NumPy has no bfloat16
        return _double(value.numpy())

    return read


def _double(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "fc":
        return np.array(array, np.float64 if array.dtype.kind == "f" else np.complex128)
    return np.array(array)


def taps_fit(shape: tuple[int, ...]) -> None:
    """ValueError where float64 numbers of ``shape`` are more than the memory of this machine."""
    needed = 8 * prod(shape)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else needed
    if needed > there:
        raise ValueError(f"expected filters that the memory of {there} bytes holds, got {shape}: {needed} bytes")
