"""Exact decoding by the convolution itself, over inputs that are kept."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ssmid.kernels.cached_convolution import cached_step
from ssmid.kernels.compiler import fused
from ssmid.nn.exact_decoding import HISTORY, ExactDecoding
from ssmid.nn.filter import Expected, State, checked_input, checked_state


class CachedConvolution(ExactDecoding):
    """Any filter, decoded by ``y_t = sum_{s <= t} h_{t-s} u_s`` over a cache of its inputs: O(t) a token, exact to rounding.

    filter : any :class:`ssmid.nn.Filter`   max_length : the longest context, prompt included
    dtype : of the inputs kept; that of the taps (float32 or float64) if None. bf16 keeps bf16 inputs exactly in half the memory

    State: ``history`` ``(*batch, channels, slots)``, where ``slots`` is ``max_length`` rounded up to a multiple of 16, and ``position``
    ``(*batch,)``, int64, the tokens so far: sequences may stand at different places. A token reads the history once: ``channels *
    position`` numbers a sequence is the floor of the bytes moved. On CUDA one kernel does it, and reads no further than ``position`` in a
    CUDA graph too; without Triton a step costs ``max_length``.

    Raises ValueError for a token beyond ``max_length``. Where that cannot be seen without stopping (a CUDA graph, a compiled step) the
    outputs from there on are NaN. Differentiable in training only: taps are detached.

    >>> from ssmid.nn import ExplicitFilter
    >>> cached = CachedConvolution(ExplicitFilter(torch.tensor([[1.0, 0.5]])), max_length=4)
    >>> y, state = cached.prefill(torch.ones(1, 1, 2))
    >>> cached.step(torch.ones(1, 1), state)[0]
    tensor([[1.5000]])
    """

    def step_(self, u: Tensor, state: State) -> Tensor:
        checked_input(u, self.channels, token=True)
        parts = checked_state(state, self._expected(u.shape[:-1]))
        position = parts["position"]
        if position.numel() and not _blind(position):
            self.expect_room(int(position.max()) + 1)
        y = _cached_step(parts["history"][..., : self.max_length], self.taps(), position, u)
        position += 1
        return y.to(u.dtype)

    def _state(self, history: Tensor, position: Tensor) -> State:
        return {"history": history, "position": position}

    def _expected(self, batch: tuple[int, ...]) -> dict[str, Expected]:
        return {"history": ((*batch, self.channels, self.slots), HISTORY), "position": (batch, (torch.int64,))}


def _blind(tensor: Tensor) -> bool:
    """Whether numbers of ``tensor`` cannot be looked at: its step is being recorded."""
    return torch.compiler.is_compiling() or (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def _cached_step(history: Tensor, taps: Tensor, position: Tensor, u: Tensor) -> Tensor:
    """Of :func:`ssmid.kernels.cached_convolution.cached_step`, by the kernel or the plain function."""
    spacing = history.stride(-2)
    even = history.stride(-1) == 1 and all(history.stride(i) == spacing * prod(history.shape[i + 1 : -1]) for i in range(history.ndim - 2))
    return (cached_step if fused(history) and even else plain_cached_step)(history, taps, position, u)


def plain_cached_step(history: Tensor, taps: Tensor, position: Tensor, u: Tensor) -> Tensor:
    """What :func:`ssmid.kernels.cached_convolution.cached_step` computes, by whole arrays."""
    slots = history.shape[-1]
    if position.numel() == 1:
        position = position.reshape(()).expand(u.shape[:-1])
    places = position.clamp(max=slots - 1)[..., None, None].expand(*u.shape, 1)
    history.scatter_(-1, places, u[..., None].to(history.dtype))
    lags = position[..., None] - torch.arange(slots, device=history.device)
    window = taps[:, lags.clamp(0, slots - 1)].movedim(0, -2)
    y = torch.where((lags >= 0)[..., None, :], history.to(taps.dtype) * window, 0.0).sum(-1)
    return torch.where((position >= slots)[..., None], torch.nan, y)
