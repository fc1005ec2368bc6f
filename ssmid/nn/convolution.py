"""Causal convolution of long signals with long filters."""

from __future__ import annotations

import torch
from torch import Tensor


def long_convolution(u: Tensor, taps: Tensor) -> Tensor:
    """``y_t = sum_{s <= t} taps_s u_{t-s}`` over the last axis, per channel.

    u : ``(*batch, channels, length)``, float64, float32, bf16 or float16   taps : ``(channels, taps)``, any number of them; those beyond
    the length do nothing. Shape, dtype and device of the result are those of ``u``; sums are float32, float64 for float64.
    """
    length = u.shape[-1]
    wide = torch.promote_types(torch.promote_types(u.dtype, torch.float32), taps.dtype)
    points = 2 * max(length, 1)
    spectrum = torch.fft.rfft(u.to(wide), n=points) * torch.fft.rfft(taps[..., :length].to(wide), n=points)
    return torch.fft.irfft(spectrum, n=points)[..., :length].to(u.dtype)
