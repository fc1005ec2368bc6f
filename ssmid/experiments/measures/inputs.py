"""What the filters of a language model hear: the spectra of their inputs while it reads text."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssmid.distillation.weighted import input_spectrum
from ssmid.experiments.tasks.task import Task
from ssmid.nn import LanguageModel, convert
from ssmid.nn.filter import Filter, Recurrence
from ssmid.systems import System

_SIGNALS = 32
"""Signals of each filter that its spectrum is the mean of, at most: those of MultiHyena hear as many as a head has products."""


def heard_text(task: Task, count: int, device: str) -> Tensor:
    """Windows of training text, ``(count, length)`` tokens, the same for every method and model."""
    return torch.from_numpy(task.batch("train", np.arange(count))["inputs"].copy()).to(device)


@torch.no_grad()
def input_weights(model: LanguageModel, tokens: Tensor, length: int) -> Tensor:
    """Weights over frequency ``(n, k)`` for all filters of ``model``, layer after layer, for :func:`ssmid.distill`.

    tokens : ``(sequences, T)`` that the model reads   length : of the filters
    """
    listening = convert(model, _Listener)
    listening.eval().prefill(tokens)  # pyright: ignore[reportCallIssue]
    heard = [module.heard for module in listening.modules() if isinstance(module, _Listener)]
    return torch.cat([input_spectrum(signals, length, keep=1) for signals in heard if signals is not None])


class _Listener(Recurrence):
    """A filter whose prefill keeps some of its input; its state holds nothing."""

    def __init__(self, filter: Filter) -> None:
        super().__init__()
        self.filter, self.channels = filter, filter.channels
        self.heard: Tensor | None = None

    def forward(self, length: int) -> Tensor:
        return self.filter(length)

    def system(self) -> System:
        return self.filter.system()

    def initial_state(self, *batch: int) -> Tensor:
        return torch.zeros(*batch, self.channels, 1, device=next(self.filter.parameters()).device)

    def prefill(self, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        signals = u.reshape(-1, *u.shape[-2:])
        some = signals[:: -(-len(signals) // _SIGNALS)].clone()  # a view would hold all of them
        self.heard = some if self.heard is None else torch.cat([self.heard, some])
        return self.convolve(u), self.initial_state(*u.shape[:-2])

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise ValueError("expected a text that is read at once, got a single token")
