"""Greedy continuations of prompts, token by token, and whether steps say what the convolution says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssmid.experiments.tasks.task import Split, Task
from ssmid.nn import CachedConvolution, Decoder, LanguageModel, convert


def prompts_of(task: Task, split: Split, count: int, length: int, device: str) -> Tensor:
    """``(count, length)``: the beginnings of windows spread evenly over a split, its last, shorter one left out."""
    size = task.size(split) - 1
    indices = np.linspace(0, size, min(count, size), endpoint=False).astype(np.int64)
    return torch.from_numpy(task.batch(split, indices)["inputs"][:, :length].copy()).to(device)


def exact_continuations(model: LanguageModel, prompts: Tensor, new: int) -> Tensor:
    """What ``model`` itself goes on with, its filters as they are: ``(count, new)``."""
    exact = convert(model, CachedConvolution, max_length=prompts.shape[1] + new)
    return continuations(exact, prompts, new)  # pyright: ignore[reportArgumentType]


def continuations(model: LanguageModel, prompts: Tensor, new: int) -> Tensor:
    """The likeliest token after each, ``new`` times: ``(count, new)``. One run is too short for a recorded step to pay."""
    length = prompts.shape[1] + new
    return Decoder(model, len(prompts), length=length, temperature=0, graph=False).generate(prompts, new)


def agreement(theirs: Tensor, mine: Tensor) -> dict[str, float]:
    """Shares of equal tokens, and of continuations that are equal to the end.

    >>> agreement(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 2], [3, 5]]))
    {'tokens': 0.75, 'whole': 0.5}
    """
    equal = theirs == mine
    return {"tokens": float(equal.double().mean()), "whole": float(equal.all(-1).double().mean())}


@torch.no_grad()
def step_difference(model: LanguageModel, tokens: Tensor, steps: int) -> float:
    """The largest difference of the logits of the last ``steps`` of ``tokens`` ``(count, length)``: steps beside the convolution."""
    whole, first = model(tokens), tokens.shape[1] - steps
    state, largest = model.prefill(tokens[:, :first])[1], 0.0
    for t in range(first, tokens.shape[1]):
        largest = max(largest, float((model.step_(tokens[:, t], state) - whole[:, t]).abs().max()))
    return largest
