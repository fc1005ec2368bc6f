"""What part of its filters a model uses: their ends cut off, and what a small recurrence misses of them replaced by other noise."""

from __future__ import annotations

import torch
from torch import Tensor

SIGNS, PHASES = "other signs", "other phases"
"""Of the residual: each tap keeps its size and gets a random sign; each frequency keeps its gain and gets a random phase."""


def cut(taps: Tensor, length: int) -> Tensor:
    """The first ``length`` taps; zeros beyond."""
    return torch.cat([taps[:, :length], torch.zeros_like(taps[:, length:])], dim=-1)


def replaced(taps: Tensor, smooth: Tensor, how: str, seed: int = 0) -> Tensor:
    """``smooth`` and noise in the place of the residual ``taps - smooth``, both ``(n, length)``. Tap 0 stays.

    Noise has as much energy in each filter, and as much at each tap ("other signs") or at each frequency ("other phases"). Raises
    ValueError for another way.

    >>> noisy = replaced(torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3), SIGNS)
    >>> noisy.abs()
    tensor([[1., 2., 3.]])
    """
    residual, draw = (taps - smooth)[:, 1:], torch.Generator().manual_seed(seed)
    if how == SIGNS:
        signs = torch.randint(2, residual.shape, generator=draw, dtype=torch.int8).to(residual) * 2 - 1
        other = residual * signs
    elif how == PHASES:
        spectrum = torch.fft.rfft(residual)
        angles = (2 * torch.pi * torch.rand(spectrum.shape, generator=draw)).to(residual)
        # what is real stays real
        angles[:, 0] = 0
        if residual.shape[-1] % 2 == 0:
            angles[:, -1] = 0
        other = torch.fft.irfft(spectrum * torch.polar(torch.ones_like(angles), angles), n=residual.shape[-1])
    else:
        raise ValueError(f"how: expected {SIGNS!r} or {PHASES!r}, got {how!r}")
    return torch.cat([taps[:, :1], smooth[:, 1:] + other], dim=-1)
