"""States of several parts as one flat dict of tensors, named as modules are: "blocks.3.mixer.long"."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ssmid.nn.filter import State


def joined(parts: Mapping[str, State]) -> dict[str, Tensor]:
    """One flat dict: a tensor keeps the name of its part, a part of several tensors puts its name in front of theirs.

    >>> import torch
    >>> sorted(joined({"short": torch.zeros(1), "long": {"re": torch.zeros(1), "im": torch.zeros(1)}}))
    ['long.im', 'long.re', 'short']
    """
    flat: dict[str, Tensor] = {}
    for name, part in parts.items():
        flat.update({name: part} if isinstance(part, Tensor) else {f"{name}.{inner}": tensor for inner, tensor in part.items()})
    return flat


def part(state: State, name: str) -> State:
    """The part of a flat state under ``name``, the same tensors; ValueError where there is none."""
    state = by_name(state)
    if name in state:
        return state[name]
    found = {key[len(name) + 1 :]: tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
    if not found:
        raise ValueError(f"state: expected {name!r} among its names, got {', '.join(list(state)[:8]) or 'none'}")
    return found


def tensor_part(state: State, name: str) -> Tensor:
    """As :func:`part`, of a part that is one tensor."""
    found = part(state, name)
    if not isinstance(found, Tensor):
        raise ValueError(f"state: expected one tensor under {name!r}, got {', '.join(found)}")
    return found


def by_name(state: State) -> dict[str, Tensor]:
    """``state`` if it is tensors by name; else ValueError."""
    if not isinstance(state, Mapping):
        got = f"one tensor of shape {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
        raise ValueError(f"state: expected tensors by name, got {got}")
    return state  # pyright: ignore[reportReturnType]
