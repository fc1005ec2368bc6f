"""A causal convolution of a few taps for each channel, as Hyena and H3 put it in front of their gates (Poli et al. 2023, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssmid.nn.filter import at_least_single, checked_input


class ShortConvolution(nn.Module):
    """``y_t = bias + sum_i weight_{taps-1-i} u_{t-i}`` over ``(batch, channels, length)``, channel by channel.

    The weights ``(channels, 1, taps)`` and the bias ``(channels,)`` are laid out, named and drawn as of ``nn.Conv1d(groups=channels)``,
    so that public checkpoints load. The state ``(batch, channels, taps - 1)`` is the last inputs, the latest last; as these are kept as
    they came, it has the dtype of the weights. bf16 is summed in float32 and rounded once.

    >>> layer = ShortConvolution(2, bias=False)
    >>> u = torch.randn(1, 2, 5)
    >>> y, state = layer.prefill(u[..., :4])
    >>> last, state = layer.step(u[..., 4], state)
    >>> torch.allclose(layer(u)[..., 4], last, atol=1e-6)
    True
    """

    def __init__(self, channels: int, taps: int = 3, bias: bool = True) -> None:
        super().__init__()
        if channels < 1 or taps < 1:
            raise ValueError(f"channels, taps: expected at least 1 each, got {channels} and {taps}")
        self.channels, self.taps = channels, taps
        conv = nn.Conv1d(channels, channels, taps, groups=channels, bias=bias)
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, u: Tensor) -> Tensor:
        return self._filtered(nn.functional.pad(checked_input(u, self.channels), (self.taps - 1, 0)))

    def initial_state(self, batch: int) -> Tensor:
        return self.weight.new_zeros(batch, self.channels, self.taps - 1)

    def prefill(self, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` gives for ``u`` ``(batch, channels, length)`` after ``state``, and the state behind it."""
        state = self.initial_state(checked_input(u, self.channels).shape[0]) if state is None else self.checked_state(state, u)
        window = torch.cat([state.to(u.dtype), u], dim=-1)
        return self._filtered(window), window[..., u.shape[-1] :].clone().to(state.dtype)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` ``(batch, channels)`` for one token ``u`` of that shape, and the state behind it."""
        window = torch.cat([self.checked_state(state, checked_input(u, self.channels, token=True)), u.to(state.dtype)[..., None]], dim=-1)
        y = (at_least_single(window) * at_least_single(self.weight[:, 0])).sum(-1)
        if self.bias is not None:
            y = y + self.bias
        return y.to(u.dtype), window[..., 1:].contiguous()

    def step_(self, u: Tensor, state: Tensor) -> Tensor:
        """As :meth:`step`, with the new state in the place of the old one."""
        y, new = self.step(u, state)
        state.copy_(new)
        return y

    def _filtered(self, window: Tensor) -> Tensor:
        if window.shape[-1] < self.taps:
            return window[..., :0]
        return nn.functional.conv1d(window, self.weight.to(window.dtype), self._bias(window), groups=self.channels)

    def _bias(self, like: Tensor) -> Tensor | None:
        return None if self.bias is None else self.bias.to(like.dtype)

    def checked_state(self, state: Tensor, u: Tensor) -> Tensor:
        """``state`` if it is one of as many sequences as ``u``; else ValueError."""
        wanted = (u.shape[0], self.channels, self.taps - 1)
        if tuple(state.shape) != wanted:
            raise ValueError(f"state: expected the last inputs, of shape {wanted}, got {tuple(state.shape)}")
        return state
