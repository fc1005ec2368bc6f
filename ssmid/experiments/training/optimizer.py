"""AdamW with a cosine after a linear rise, and rates of their own for the parameters of filters (Loshchilov & Hutter, ICLR 2019)."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from ssmid.experiments.training.configuration import Configuration
from ssmid.nn.filter import Filter


def schedule(step: int, steps: int, warmup: int, final: float = 0.0) -> float:
    """The share of the largest rate at ``step``, counted from 0: ``(step + 1) / warmup``, then half a cosine from 1 down to ``final``.

    >>> [round(schedule(step, 6, 2), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * (1 + cos(pi * (step - warmup) / (steps - warmup))) / 2


def optimizer_of(model: nn.Module, configuration: Configuration) -> torch.optim.AdamW:
    """AdamW over three groups: matrices, which decay; norms and biases; and the parameters of filters.

    Poles and modes mean nothing at zero, where decay would draw them: of filters only what ``kernel_decay`` asks for, as RTF's authors do,
    whose coefficients are those of a finite response there. ``largest`` of a group is what :func:`schedule` scales.
    """
    kernel = {id(p) for module in model.modules() if isinstance(module, Filter) for p in module.parameters()}
    matrices, vectors, filters = [], [], []
    for parameter in model.parameters():
        group = filters if id(parameter) in kernel else matrices if parameter.ndim > 1 else vectors
        group.append(parameter)
    rate = configuration.rate
    kernel_rate = rate if configuration.kernel_rate is None else configuration.kernel_rate
    kinds = ((matrices, rate, configuration.weight_decay), (vectors, rate, 0.0), (filters, kernel_rate, configuration.kernel_decay or 0.0))
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    # where a step may be recorded, its rate is read from the device
    rates = [torch.tensor(largest, device=device) if on_gpu else largest for _, largest, _ in kinds]
    groups = [
        {"params": p, "lr": lr, "largest": largest, "weight_decay": decay}
        for (p, largest, decay), lr in zip(kinds, rates, strict=True) if p
    ]
    return torch.optim.AdamW(groups, fused=on_gpu, capturable=on_gpu)


def set_rates(optimizer: torch.optim.Optimizer, step: int, configuration: Configuration) -> float:
    """The rates of ``step``, set; that of the first group is returned."""
    share = schedule(step, configuration.steps, configuration.warmup, configuration.final)
    for group in optimizer.param_groups:
        rate = group["largest"] * share
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return optimizer.param_groups[0]["largest"] * share


def moments(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What the optimizer remembers, by the names of parameters: ``exp_avg.<name>``, ``exp_avg_sq.<name>``, ``step.<name>``."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {f"{key}.{names[id(p)]}": value for p, state in optimizer.state.items() for key, value in state.items()}


def set_moments(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`moments`: every tensor in its place, on the device of its parameter. Frozen parameters have none."""
    names = {id(p): name for name, p in model.named_parameters()}
    held: dict[str, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        key, _, name = full.partition(".")
        held.setdefault(name, {})[key] = tensor
    described: dict[str, Any] = optimizer.state_dict()
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    described["state"] = {i: held[name] for i, name in enumerate(order) if name in held}
    optimizer.load_state_dict(described)
