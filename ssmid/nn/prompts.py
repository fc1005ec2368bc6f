"""Prompts as people write them, as one tensor of tokens with its mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from numbers import Number
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompts of one length, padded on the left.

    tokens : ``(batch, length)``, or ``(1, length)`` of one prompt for all   mask : as ``tokens``, True at tokens; None without padding
    batch : sequences to generate   single : whether one prompt without a batch was given, so that results have no batch axis
    """

    tokens: Tensor
    mask: Tensor | None
    batch: int
    single: bool


def prompts_of(prompt: Any, batch: int | None = None, *, vocabulary: int, start: int | None = None, device: Any = None) -> Prompts:
    """``prompt`` checked, padded and on ``device``.

    prompt : integers ``(length,)`` or ``(batch, length)``, as tensor, array or sequence, or a sequence of prompts of unequal length;
        ``[]`` is no prompt, ``[[]]`` is one of no tokens   batch : repeats one prompt
    start : the token that an empty prompt begins with

    >>> prompts_of([[1, 2, 3], [4]], vocabulary=5).tokens
    tensor([[1, 2, 3],
            [0, 0, 4]])
    >>> prompts_of([9], vocabulary=5)
    Traceback (most recent call last):
    ...
    ValueError: prompt: expected tokens from 0 to 4, got 9
    """
    if isinstance(prompt, Prompts):
        rows, mask, single = prompt.tokens, prompt.mask, prompt.single
        batch = prompt.batch if batch is None else batch
    else:
        rows, mask, single = _padded(_rows(prompt), start)
        single = single and batch is None
    if batch is None:
        batch = rows.shape[0]
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 0:
        raise ValueError(f"batch: expected a whole number >= 0, got {batch}")
    if rows.shape[0] not in (batch, 1):
        raise ValueError(f"batch: expected {rows.shape[0]} as there are prompts, or one prompt to repeat, got {batch}")
    if rows.numel():
        least, most = (int(limit) for limit in torch.aminmax(rows))
        if least < 0 or most >= vocabulary:
            raise ValueError(f"prompt: expected tokens from 0 to {vocabulary - 1}, got {least if least < 0 else most}")
    return Prompts(rows.to(device), None if mask is None else mask.to(device), batch, single)


def _rows(prompt: Any) -> Tensor | list[Tensor]:
    """Tokens ``(length,)`` or ``(batch, length)``, or a list of such ``(length,)``."""
    items: list[Any] | None = list(prompt) if isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes) else None
    for text in (item for item in ([prompt] if items is None else items) if isinstance(item, str | bytes)):
        raise TypeError(f"prompt: expected tokens, got {type(text).__name__}: a tokenizer makes tokens of text")
    if items is None or any(isinstance(item, Number) or getattr(item, "ndim", None) == 0 for item in items):
        return _checked(torch.as_tensor(prompt), (1, 2))
    return [_checked(torch.as_tensor(item, dtype=None if len(item) else torch.int64), (1,)) for item in items]


def _checked(tokens: Tensor, axes: tuple[int, ...]) -> Tensor:
    if tokens.ndim not in axes or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        wanted = "(length,) or (batch, length)" if 2 in axes else "(length,)"
        raise ValueError(f"prompt: expected integers of shape {wanted}, got {tokens.dtype} of shape {tuple(tokens.shape)}")
    return tokens.long()


def _padded(rows: Tensor | list[Tensor], start: int | None) -> tuple[Tensor, Tensor | None, bool]:
    single = isinstance(rows, Tensor) and rows.ndim == 1
    if isinstance(rows, Tensor) and rows.shape[-1]:
        return torch.atleast_2d(rows), None, single
    sequences: list[Tensor] = list(torch.atleast_2d(rows)) if isinstance(rows, Tensor) else rows
    if any(len(row) == 0 for row in sequences) and start is None:
        raise ValueError("prompt: expected at least one token in each, got an empty one: name the token it begins with (start=...)")
    sequences = [row if len(row) else row.new_tensor([start]) for row in sequences]
    if not sequences:
        return torch.zeros(0, 1, dtype=torch.int64), None, False
    lengths = torch.tensor([len(row) for row in sequences])
    longest = int(lengths.max())
    padded = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0)) for row in sequences])
    mask = torch.arange(longest) >= (longest - lengths)[:, None]
    return padded, None if bool(mask.all()) else mask.to(padded.device), single
