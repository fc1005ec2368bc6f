"""Filters whose taps are the parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssmid.nn.filter import Filter
from ssmid.systems import ImpulseResponse


class ExplicitFilter(Filter):
    """Taps ``(channels, length)`` as parameters; beyond them the filter is zero.

    >>> ExplicitFilter(torch.tensor([[1.0, 0.5]]))(3)
    tensor([[1.0000, 0.5000, 0.0000]], grad_fn=<ConstantPadNdBackward0>)
    """

    def __init__(self, taps: Tensor) -> None:
        super().__init__()
        if taps.ndim != 2 or not taps.is_floating_point():
            raise ValueError(f"taps: expected real numbers of shape (channels, length), got {taps.dtype} of shape {tuple(taps.shape)}")
        self.channels = taps.shape[0]
        self.taps = nn.Parameter(taps.clone())

    @property
    def trained_length(self) -> int:
        return self.taps.shape[-1]

    def forward(self, length: int) -> Tensor:
        return torch.nn.functional.pad(self.taps, (0, length - self.taps.shape[-1]))

    def system(self) -> ImpulseResponse:
        return ImpulseResponse(self.taps.detach())
