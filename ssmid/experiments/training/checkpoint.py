"""Where a training stands, in one file that is written whole or not at all, so that it goes on exactly.

Tensors are safetensors; what is no tensor is JSON in the file's head. Nothing random is part of it: the order of data, dropout and fresh
examples are functions of the seed, the step and the process, so that there is no stream to be continued.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssmid.experiments.training.optimizer import moments, set_moments
from ssmid.io.files import about, expect_content, parsing, write_whole
from ssmid.io.language_models import save_model
from ssmid.nn.language_model import LanguageModel

NAME = "checkpoint.safetensors"
_KEY = "ssmid_training"
_MODEL, _OPTIMIZER, _SUMS = "model.", "optimizer.", "sums."
_NAMED = 3
"""Tensors of another model that are named; of more the number is."""


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, sums: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Weights, the optimizer's moments, ``sums`` (those that the next line of the log will hold, and what else there is by name), and
    ``facts``, which JSON can hold."""
    tensors = {
        **_prefixed(_MODEL, model.state_dict()),
        **_prefixed(_OPTIMIZER, moments(optimizer, model)),
        **_prefixed(_SUMS, sums),
    }
    _write(path, tensors, facts)


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Puts weights and moments back, bit for bit; the sums and the facts that were written with them.

    Raises ValueError for a file that is none of a training, and for one of another model.
    """
    from safetensors.torch import load_file

    facts = read_facts(path)
    with about(path):
        with parsing("safetensors"):
            tensors = load_file(path, device=device)
        _load(model, _within(_MODEL, tensors))
        set_moments(optimizer, model, _within(_OPTIMIZER, tensors))
    return _within(_SUMS, tensors), facts


def read_facts(path: Path) -> dict[str, Any]:
    """What a checkpoint says besides its tensors; ValueError for a file that is none of a training."""
    from safetensors import safe_open

    with about(path):
        expect_content(path, "safetensors")
        with parsing("safetensors"), safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        if text is None:
            raise ValueError("expected a file that a training wrote, got another safetensors file")
        with parsing("a training's"):
            return json.loads(text)


def save_weights(path: Path, model: nn.Module, facts: Mapping[str, Any]) -> None:
    """Weights alone: of a language model as :func:`ssmid.save_model` writes them, of others with ``facts``."""
    if isinstance(model, LanguageModel):
        save_model(model, path)
    else:
        _write(path, model.state_dict(), facts)


def best_weights(folder: Path, step: int) -> Path:
    """Where the weights of the best evaluation, that after ``step`` steps, are kept on the way."""
    return folder / f"best-{step}.safetensors"


def forget_but(folder: Path, step: int | None) -> None:
    """Takes away all weights of evaluations but those of ``step``."""
    for path in folder.glob("best-*.safetensors"):
        if step is None or path != best_weights(folder, step):
            path.unlink(missing_ok=True)


def load_weights(path: Path, model: nn.Module) -> None:
    """Puts weights that :func:`save_weights` wrote into ``model``; ValueError for those of another model."""
    from safetensors.torch import load_file

    with about(path):
        expect_content(path, "safetensors")
        with parsing("safetensors"):
            tensors = load_file(path)
        _load(model, tensors)


def _load(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """ValueError that names the first few tensors that differ."""
    here, there = ({name: tuple(x.shape) for name, x in of.items()} for of in (model.state_dict(), tensors))
    odd = [f"{n} {there.get(n, 'none')} in place of {here.get(n, 'none')}" for n in {**here, **there} if here.get(n) != there.get(n)]
    if odd:
        more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
        raise ValueError(f"expected the tensors of this model, got {', '.join(odd[:_NAMED])}{more}")
    model.load_state_dict(dict(tensors))


def _write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def written(temporary: Path) -> None:
        try:
            save_file(held, temporary, metadata)
        except SafetensorError as error:  # a full disk
            raise OSError(f"{path}: {error}") from error

    held = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    metadata = {_KEY: json.dumps(facts)}
    write_whole(path, written)


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _within(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
