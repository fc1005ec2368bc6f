"""Language models on disk: one safetensors file with their weights, and what they were made with as JSON in its head. No pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssmid.io.files import about, expect_content, parsing, refuse_pickle, write_whole
from ssmid.nn.filter import Filter
from ssmid.nn.language_model import LanguageModel
from ssmid.nn.recurrence import ModalRecurrence
from ssmid.systems import Modal

FORMAT, VERSION = "ssmid language model", 1
_KEY = "language_model"
"""Of the metadata; "ssmid" is that of systems."""


def save_model(model: LanguageModel, path: str | os.PathLike[str]) -> None:
    """Writes ``model`` to ``path``, a ``.safetensors`` file, whole or not at all: weights bit for bit, and ``model.configuration``.

    Filters may have become :class:`ssmid.nn.ModalRecurrence` (:func:`ssmid.nn.convert`); those are written in their place.
    :func:`load_model` gives the model back, and ``ssmid distill FILE`` finds the filters of one that is not yet converted.

    Raises TypeError for other modules, ValueError for another suffix, for filters that are neither as configured nor modal recurrences
    (exact decoding is put in by ``convert`` after loading), for mixers made by functions of the caller, and for a folder that cannot be
    written.

    >>> import tempfile, ssmid
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> save_model(LanguageModel(100, width=16, depth=2), path)
    >>> load_model(path).configuration["width"]
    16
    """
    if not isinstance(model, LanguageModel):
        raise TypeError(f"model: expected a LanguageModel, got {type(model).__name__}")
    with about(path):
        _expect_suffix(Path(path))
        tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "configuration": model.configuration,
            "recurrences": _converted(model),
        }
        metadata = {_KEY: _as_json(facts)}
        write_whole(path, lambda temporary: _write(tensors, temporary, metadata))


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> LanguageModel:
    """The model that :func:`save_model` wrote to ``path``, on ``device``, in the dtypes of its tensors and in evaluation mode.

    Raises ValueError for files that are damaged, of another kind, or of a newer version of the format.
    """
    from safetensors.torch import load_file

    with about(path):
        refuse_pickle(Path(path).suffix.lower())
        _expect_suffix(Path(path))
        facts = _facts(Path(path))
        with parsing("safetensors"):
            tensors = load_file(path, device=str(device))
        with parsing("a language model's"):
            model = LanguageModel(**facts["configuration"])
            for name in facts["recurrences"]:
                _place(model, name, tensors)
            # tensors take the place of those made: dtypes and device are theirs
            kept = model.load_state_dict(tensors, strict=False, assign=True)
        missing, left = kept.missing_keys, kept.unexpected_keys
        if missing or left:
            raise ValueError(f"expected the tensors of its configuration; missing: {missing[:4]}, left over: {left[:4]}")
        return model.to(device).eval()


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # a full disk, a folder that is not there
        raise OSError(str(error)) from error


def _as_json(facts: dict[str, Any]) -> str:
    try:
        return json.dumps(facts)
    except TypeError as error:
        odd = [name for name, value in facts["configuration"].items() if callable(value)]
        raise ValueError(f"configuration: expected numbers and names, got functions for {', '.join(odd)}: a file holds no code") from error


def _expect_suffix(path: Path) -> None:
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"expected the suffix .safetensors for a language model, got {path.suffix!r}")


def _converted(model: LanguageModel) -> list[str]:
    """The paths of modal recurrences that are not the filters that the configuration makes; ValueError for others of these."""
    with torch.device("meta"):
        made = dict(LanguageModel(**model.configuration).named_modules())
    paths = []
    for name, module in model.named_modules():
        if not isinstance(module, Filter) or type(made.get(name)) is type(module):
            continue
        owner = name.rpartition(".")[0]
        if isinstance(model.get_submodule(owner), Filter):
            continue  # within what was refused already
        if not isinstance(module, ModalRecurrence):
            raise ValueError(
                f"{name}: expected a filter as configured or a ModalRecurrence, got {type(module).__name__}: save the model as it was "
                "before, and convert it after loading"
            )
        paths.append(name)
    return paths


def _facts(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    expect_content(path, "safetensors")
    with parsing("safetensors"), safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise ValueError("expected a language model written by ssmid.save_model, got another safetensors file")
    with parsing("a language model's"):
        facts = json.loads(text)
        format, version = facts["format"], facts["version"]
    if format != FORMAT or version != VERSION:
        raise ValueError(f"expected {FORMAT!r} of version {VERSION}, got {format!r} of version {version}: a newer ssmid wrote it")
    return facts


def _place(model: nn.Module, name: str, tensors: dict[str, Tensor]) -> None:
    """A modal recurrence of the right size at ``name``; its numbers are loaded with all others."""
    poles, residues, feedthrough = (tensors[f"{name}.{part}"].cpu() for part in ("poles", "residues", "feedthrough"))
    made = ModalRecurrence(Modal(torch.view_as_complex(poles), torch.view_as_complex(residues), feedthrough))
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, made)
