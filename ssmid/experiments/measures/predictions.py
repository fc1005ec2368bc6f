"""Bits per byte of a language model on held-out text, and how far the predictions of another are from its own."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

import torch
from torch import Tensor

from ssmid.experiments.tasks.task import Split, Task
from ssmid.experiments.training.batches import Batches
from ssmid.jobs.workers import Alone
from ssmid.nn import LanguageModel


class Predictions:
    """What ``teacher`` says after every token of a split, kept in float32, beside which other models are held.

    windows : at most so many of the split; None is all   batch : of them at once
    """

    @torch.no_grad()
    def __init__(
        self, teacher: LanguageModel, task: Task, split: Split, *, device: str, windows: int | None = None, batch: int = 64
    ) -> None:
        said = Batches(task, batch, 0, Alone(), device, torch.float32).evaluation(split, windows)
        self._known: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for given in said:
            logs = teacher(given["inputs"]).float().log_softmax(-1)
            self._known.append((given["inputs"], given["targets"], given["mask"], logs))
        self.bits = self._mean(_losses(logs, targets, mask) for _, targets, mask, logs in self._known) / log(2)

    @torch.no_grad()
    def beside(self, model: LanguageModel) -> dict[str, float]:
        """``bits`` a token of ``model``; ``kl``, the mean divergence of its predictions from the teacher's, teacher first, in bits;
        ``same``, the share of tokens where both hold the same next one for the likeliest."""
        bits, divergences, same = [], [], []
        for inputs, targets, mask, logs in self._known:
            mine = model(inputs).float().log_softmax(-1)
            bits.append(_losses(mine, targets, mask))
            divergences.append(((logs.exp() * (logs - mine)).sum(-1) * mask).double().sum())
            same.append(((logs.argmax(-1) == mine.argmax(-1)) & mask).double().sum())
        return {"bits": self._mean(bits) / log(2), "kl": self._mean(divergences) / log(2), "same": self._mean(same)}

    def _mean(self, sums: Iterable[Tensor]) -> float:
        """Over all tokens, of sums over those of a batch."""
        count = sum(float(mask.sum()) for _, _, mask, _ in self._known)
        return float(sum(sums)) / count


def _losses(logs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Of a batch together, in nats."""
    return -(logs.gather(-1, targets[..., None])[..., 0] * mask).double().sum()
