"""A causal convolution of a few taps for each channel, as Hyena and H3 put it in front of their gates (Poli et al. 2023, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssmid.kernels.compiler import fused
from ssmid.kernels.short_convolution import short_convolution, short_convolution_gradients, short_convolution_step_
from ssmid.nn.filter import at_least_single, checked_input
from ssmid.nn.inference import without_gradient


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
        if _one_kernel(checked_input(u, self.channels)):
            return _convolved(u.contiguous(), self.weight[:, 0], self.bias)
        return self._filtered(nn.functional.pad(u, (self.taps - 1, 0)))

    def initial_state(self, batch: int) -> Tensor:
        return self.weight.new_zeros(batch, self.channels, self.taps - 1)

    def prefill(self, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` gives for ``u`` ``(batch, channels, length)`` after ``state``, and the state behind it."""
        state = self.initial_state(checked_input(u, self.channels).shape[0]) if state is None else self.checked_state(state, u)
        last = torch.cat([state.to(u.dtype), u[..., max(0, u.shape[-1] - self.taps + 1) :]], dim=-1)
        last = last[..., last.shape[-1] - self.taps + 1 :].contiguous().to(state.dtype)
        if _one_kernel(u) and not torch.is_grad_enabled():
            return short_convolution(u.contiguous(), self.weight[:, 0], self.bias, state.contiguous()), last
        return self._filtered(torch.cat([state.to(u.dtype), u], dim=-1)), last

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` ``(batch, channels)`` for one token ``u`` of that shape, and the state behind it."""
        window = torch.cat([self.checked_state(state, checked_input(u, self.channels, token=True)), u.to(state.dtype)[..., None]], dim=-1)
        y = (at_least_single(window) * at_least_single(self.weight[:, 0])).sum(-1)
        if self.bias is not None:
            y = y + self.bias
        return y.to(u.dtype), window[..., 1:].contiguous()

    def step_(self, u: Tensor, state: Tensor) -> Tensor:
        """As :meth:`step`, with the new state in the place of the old one."""
        if without_gradient(u) and u.ndim == 2 and u.dtype == state.dtype and state.is_contiguous():
            self.checked_state(state, checked_input(u, self.channels, token=True))
            return short_convolution_step_(u, state, self.weight[:, 0], self.bias)
        y, new = self.step(u, state)
        state.copy_(new)
        return y

    def _filtered(self, window: Tensor) -> Tensor:
        """Behind as many inputs as the state has."""
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


def _one_kernel(u: Tensor) -> bool:
    return fused(u) and u.ndim == 3 and u.dtype != torch.float64


@torch.library.custom_op("ssmid::short_convolution", mutates_args=())
def _convolved(u: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return short_convolution(u, weight, bias)


@torch.library.custom_op("ssmid::short_convolution_gradients", mutates_args=())
def _gradients(dy: Tensor, u: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return short_convolution_gradients(dy, u, weight)


@_convolved.register_fake
def _convolved_shape(u: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty_like(u)


@_gradients.register_fake
def _gradient_shapes(dy: Tensor, u: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    single = weight.new_empty(weight.shape, dtype=torch.float32)
    return torch.empty_like(u), single, single[:, 0].clone()


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    u, weight, bias = inputs
    ctx.save_for_backward(u, weight)
    ctx.bias = None if bias is None else bias.dtype


def _back(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    u, weight = ctx.saved_tensors
    du, dweight, dbias = _gradients(dy, u, weight)
    return du, dweight.to(weight.dtype), None if ctx.bias is None else dbias.to(ctx.bias)


_convolved.register_autograd(_back, setup_context=_keep)
