"""What a training minimizes and an evaluation counts, for each kind of task: sums, which processes can add up."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, nan, sqrt

import torch
from torch import Tensor, nn

from ssmid.experiments.tasks.task import Kind


def sums(kind: Kind, outputs: Tensor, targets: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """``loss``, summed over ``count`` targets, and how many were ``correct`` but for ``"regress"``. ``loss`` is differentiable.

    outputs : logits ``(batch, outputs)`` of ``"classify"``, ``(batch, length, outputs)`` of ``"token"`` and ``"language"``, and a signal
    of that shape of ``"regress"``   targets, mask : as of :class:`ssmid.experiments.tasks.task.Task`

    The loss of classes and tokens is the cross entropy in nats, that of signals the squared error.
    """
    outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
    if kind == "regress":
        squares = (outputs - targets).square() * mask[..., None]
        return {"loss": squares.sum(), "count": mask.sum() * outputs.shape[-1]}
    counted = torch.ones_like(targets, dtype=torch.bool) if kind == "classify" else mask
    losses = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none").unflatten(0, targets.shape)
    right = (outputs.argmax(-1) == targets) & counted
    return {"loss": torch.where(counted, losses, 0.0).sum(), "count": counted.sum(), "correct": right.sum()}


def metrics(kind: Kind, summed: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean ``loss``; ``rmse`` of ``"regress"``, else ``accuracy``; of ``"language"`` ``bits`` a token. NaN where nothing counts.

    >>> metrics("classify", {"loss": torch.tensor(2.0), "count": torch.tensor(4), "correct": torch.tensor(3)})
    {'loss': 0.5, 'accuracy': 0.75}
    """
    count = float(summed["count"])
    loss = float(summed["loss"]) / count if count else nan
    if kind == "regress":
        return {"loss": loss, "rmse": sqrt(loss)}
    found = {"loss": loss, "accuracy": float(summed["correct"]) / count if count else nan}
    return found | {"bits": loss / log(2)} if kind == "language" else found


def score(kind: Kind, found: Mapping[str, float]) -> float:
    """What a larger number of means better weights."""
    return found["accuracy"] if kind in ("classify", "token") else -found["loss"]
