"""Exact decoding of filters that have no small recurrence: what its two ways have in common, and when to distill instead.

The state holds all inputs so far. With the state of a distilled filter of ``d`` real modes beside them, one token of one channel of one
sequence costs, at context ``t``, of at most ``L`` tokens, in blocks of ``K``:

=============================  ========================  ==================================  =======================
way to decode                  operations                bytes that must move (float32)      state in bytes
=============================  ========================  ==================================  =======================
:class:`CachedConvolution`     ``2 t``                   ``4 t``                             ``4 L``
:class:`FutureFill` relaxed    ``K + 5 log2(L)^2``       ``2 K + 20 log2(L / K)``            ``8 L``
:class:`FutureFill` epoched    ``K + 10 t log2(t) / K``  ``2 K + 20 t / K``                  ``4 L + 4 K``
:class:`ModalRecurrence`       ``6 d``                   ``8 d``                             ``4 d``
=============================  ========================  ==================================  =======================

(averages over a block; the FFTs of the fills are counted as five passes over their inputs, the least that they take when these are too
large for a cache.) Distilling changes the model a little, and work and memory are then flat in the context: at order 16 a token moves 128
bytes where the cached convolution moves 16 kB at context 4096. Below a context of some 32 tokens the cached convolution moves less.
Where the model may not change at all, FutureFill bounds the work, and the memory still grows: at width 2048 a sequence of 65,536 tokens
holds 512 MiB of inputs a layer, half of it with ``dtype=torch.bfloat16``, which keeps bf16 inputs exactly.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from ssmid.nn.convolution import long_convolution
from ssmid.nn.derived import Derived
from ssmid.nn.filter import REAL, Expected, Filter, Recurrence, State, at_least_single, checked_input, checked_state
from ssmid.systems import System

HISTORY = (*REAL, torch.bfloat16, torch.float16)
"""What inputs may be kept in."""
_ALIGNED = 16


class ExactDecoding(Recurrence):
    """A filter that is decoded as it is, up to a context of ``max_length`` tokens; more are a ValueError that says so.

    Training goes through to the filter. Its first ``max_length`` taps are made at the first step or prefill, in float32 or float64, and
    again when its parameters have changed.
    """

    def __init__(self, filter: Filter, max_length: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if not isinstance(filter, Filter):
            raise TypeError(f"filter: expected a Filter, got {type(filter).__name__}")
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
            raise ValueError(f"max_length: expected a number of tokens, at least 1, got {max_length!r}")
        if dtype not in (None, *HISTORY):
            raise ValueError(f"dtype: expected a floating-point dtype of torch, got {dtype!r}")
        self.filter, self.channels, self.max_length, self.dtype = filter, filter.channels, max_length, dtype
        self._taps = Derived[Tensor]()

    def forward(self, length: int) -> Tensor:
        return self.filter(length)

    def system(self) -> System:
        return self.filter.system()

    def convolve(self, u: Tensor) -> Tensor:
        return self.filter.convolve(u)

    @torch.no_grad()
    def taps(self) -> Tensor:
        """The taps ``(channels, max_length)``, detached, in float32 or float64."""
        return self._taps.of(self.filter, lambda: at_least_single(self.filter(self.max_length).detach()).contiguous())

    def initial_state(self, *batch: int) -> State:
        taps = self.taps()
        history = taps.new_zeros((*batch, self.channels, self.slots), dtype=self.dtype or taps.dtype)
        return self._state(history, torch.zeros(batch, dtype=torch.int64, device=taps.device))

    def prefill(self, u: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        checked_input(u, self.channels)
        batch, tokens = u.shape[:-2], u.shape[-1]
        if state is None:
            taps = self.taps()
            self.expect_room(tokens)
            kept = u.to(self.dtype or torch.promote_types(taps.dtype, at_least_single(u[..., :0]).dtype))
            history = torch.nn.functional.pad(kept, (0, self.slots - tokens))
            position = torch.full(batch, tokens, dtype=torch.int64, device=u.device)
            y = long_convolution(kept.to(u.dtype), taps) if u.numel() else torch.zeros_like(u)
            return y, self._state(history, position)
        before = checked_state(state, self._expected(batch))
        if u.numel() == 0:
            return torch.zeros_like(u), state
        position = before["position"]
        self.expect_room(tokens + (int(position.max()) if position.numel() else 0))
        # sequences may stand at different places
        places = (position.to(u.device)[..., None] + torch.arange(tokens, device=u.device))[..., None, :].expand(u.shape)
        history = before["history"].scatter(-1, places, u.to(before["history"].dtype))
        y = long_convolution(at_least_single(history[..., : self.max_length]), self.taps()).gather(-1, places)
        return y.to(u.dtype), self._state(history, position + tokens)

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        checked_input(u, self.channels, token=True)
        state = {name: tensor.clone() for name, tensor in checked_state(state, self._expected(u.shape[:-1])).items()}
        return self.step_(u, state), state

    @property
    def slots(self) -> int:
        """Places of the history: ``max_length``, and a few more where that makes rows begin where vectors can be read."""
        return -(-self.max_length // _ALIGNED) * _ALIGNED

    def expect_room(self, tokens: int) -> None:
        """ValueError where a context of ``tokens`` is longer than what is kept."""
        if tokens > self.max_length:
            raise ValueError(
                f"expected at most {self.max_length} tokens, the max_length of this {type(self).__name__}, got {tokens}: "
                "make it with a larger max_length"
            )

    def extra_repr(self) -> str:
        return f"max_length={self.max_length}"

    @abstractmethod
    def _state(self, history: Tensor, position: Tensor) -> State:
        """The state of inputs ``history``, zero from ``position`` ``(*batch,)`` on."""

    @abstractmethod
    def _expected(self, batch: tuple[int, ...]) -> dict[str, Expected]:
        """What the tensors of a state look like."""
