"""One training over the processes of torchrun: sums of all, and a model whose gradients are those of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssmid.jobs.workers import Alone


def summed(values: Mapping[str, Tensor], team: Alone) -> dict[str, Tensor]:
    """Sums over all processes, in one message, in float64: counts and sums of losses add up, means do not."""
    stacked = torch.stack([value.detach().double() for value in values.values()])
    if team.count > 1:
        torch.distributed.all_reduce(stacked)
    return dict(zip(values, stacked.unbind(), strict=True))


def replicated(model: nn.Module, team: Alone, device: str) -> Any:
    """``model`` as it is called in training: alone itself, else with gradients averaged over the processes.

    Batch norms become norms over the batch of all processes, which torch has for GPUs alone: elsewhere ValueError.
    """
    if team.count == 1:
        return model
    if device == "cpu" and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        raise ValueError("norm: expected 'layer' or 'none' on several processes without GPUs, got 'batch', which torch cannot share there")
    model = model if device == "cpu" else nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return nn.parallel.DistributedDataParallel(model, device_ids=None if device == "cpu" else [torch.device(device)])


def share(values: Any, team: Alone) -> Any:
    """This process's part of a sequence: every ``team.count``-th."""
    return values[team.rank :: team.count]
