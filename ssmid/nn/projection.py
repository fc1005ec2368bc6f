"""Linear maps over the width of a sequence that leave it with its channels first, as convolutions take it, and back.

``weight @ u^T`` in place of ``(u @ weight^T)^T``: the product is written where the convolution reads it, and nothing is transposed. In
the backward pass the gradient of the weight is one product a sequence, summed: ``batch`` times the weight in memory for a moment.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def channels_first(linear: nn.Linear, u: Tensor, mask: Tensor | None = None) -> Tensor:
    """``linear(u)`` of ``u`` ``(batch, length, width)`` as ``(batch, features, length)``; zeros where ``mask`` is False."""
    if linear.bias is None:
        return at_tokens(product_channels_first(linear, u), mask)
    weight = linear.weight.expand(checked_sequence(u, linear.in_features).shape[0], -1, -1)
    return at_tokens(torch.baddbmm(linear.bias[:, None], weight, u.transpose(1, 2)), mask)


def product_channels_first(linear: nn.Linear, u: Tensor) -> Tensor:
    """:func:`channels_first` but for the bias, which as a part of this product is written, and read, at the size of the result."""
    return torch.bmm(linear.weight.expand(checked_sequence(u, linear.in_features).shape[0], -1, -1), u.transpose(1, 2))


def channels_last(linear: nn.Linear, y: Tensor) -> Tensor:
    """``linear`` over the channels of ``y`` ``(batch, channels, length)`` as ``(batch, length, features)``."""
    weight = linear.weight.t().expand(y.shape[0], -1, -1)
    transposed = y.transpose(1, 2)
    return torch.bmm(transposed, weight) if linear.bias is None else torch.baddbmm(linear.bias, transposed, weight)


def at_tokens(u: Tensor, mask: Tensor | None) -> Tensor:
    """``u`` ``(batch, channels, length)`` with zeros where ``mask`` ``(batch, length)`` is False, whatever stood there."""
    return u if mask is None else u.masked_fill(~checked_mask(mask, u.shape[0], u.shape[-1])[:, None], 0)


def checked_mask(mask: Tensor, batch: int, length: int) -> Tensor:
    """``mask`` if it is booleans ``(batch, length)``; else ValueError. Of numbers, 0 and 1 would be read as their bits."""
    if mask.dtype != torch.bool or tuple(mask.shape) != (batch, length):
        wanted, got = (batch, length), tuple(mask.shape)
        raise ValueError(f"mask: expected torch.bool of shape {wanted}, True at tokens, got {mask.dtype} of shape {got}")
    return mask


def checked_sequence(u: Tensor, width: int, *, token: bool = False) -> Tensor:
    """``u`` if its shape is ``(batch, length, width)``, or ``(batch, width)`` of one token; else ValueError."""
    if u.ndim != 3 - token or u.shape[-1] != width:
        raise ValueError(f"u: expected shape (batch, {'' if token else 'length, '}{width}), got {tuple(u.shape)}")
    return u
