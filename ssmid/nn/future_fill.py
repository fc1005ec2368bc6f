"""Exact decoding in O(log^2 L) a token, amortized: the past's share of future outputs is added by FFT, in tiles.

Oncescu, Purandare, Idreos and Kakade, "Flash Inference" (arXiv 2410.12982, algorithm 2: relaxed tiles) and Agarwal et al., "FutureFill"
(arXiv 2410.03766, epoched). Both schedules cover every pair of an input and a later output once.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log2, prod

import torch
from torch import Tensor

from ssmid.kernels.compiler import ceil_power_of_two
from ssmid.nn.cached_convolution import _cached_step
from ssmid.nn.exact_decoding import HISTORY, ExactDecoding
from ssmid.nn.filter import REAL, Expected, Filter, State, checked_input, checked_state

_BLOCK = 64
_PIECE_BYTES = 2**30
"""Of the spectra that a fill makes at once."""


class FutureFill(ExactDecoding):
    """Any filter, decoded exactly with O(log^2 L) operations a token on average, for a context of at most L = ``max_length``.

    A token reads the inputs of its own block only. When a block is complete, one FFT adds what the last inputs do to outputs to come:

    - ``schedule="relaxed"``: the last ``U`` inputs to the next ``U`` outputs, ``U`` the largest power of two times ``block`` that divides
      the tokens so far. O(L log^2 L) in all
    - ``schedule="epoched"``: all inputs to the outputs of the next block. O(L sqrt(L log L)) in all for a block of sqrt(L log L), half the
      memory and one size of work, and on an H200 slower than the relaxed schedule at every context from 640 to 65,536

    filter, max_length, dtype : as of :class:`CachedConvolution`   block : tokens that are convolved directly; 64 when relaxed, about
    sqrt(L log L) when epoched, if None; 1 is the relaxed schedule as published

    State: ``history`` ``(*batch, channels, slots)``, where ``slots`` is ``max_length`` rounded up to a multiple of 16; ``pending`` of the
    same shape (epoched: ``(*batch, channels, block)``) in the width of the taps; and ``position`` ``(*batch,)``, int64, the tokens so far,
    on the host: the schedule follows it, and to read it off a GPU would wait. ``pending`` is a function of the others. All sequences
    stand at one place, as padding on the left makes them. Steps differ from each other, so that no CUDA graph of one stands for all
    (``capturable`` is False). Differentiable in training only: taps are detached.

    Raises ValueError for tokens beyond ``max_length``, sequences at different places, and steps that are being captured.

    >>> from ssmid.nn import ExplicitFilter
    >>> filled = FutureFill(ExplicitFilter(torch.tensor([[1.0, 0.5]])), max_length=4, block=1)
    >>> y, state = filled.prefill(torch.ones(1, 1, 2))
    >>> filled.step(torch.ones(1, 1), state)[0]
    tensor([[1.5000]])
    """

    capturable = False

    def __init__(
        self,
        filter: Filter,
        max_length: int,
        dtype: torch.dtype | None = None,
        *,
        schedule: str = "relaxed",
        block: int | None = None,
    ) -> None:
        super().__init__(filter, max_length, dtype)
        if schedule not in ("relaxed", "epoched"):
            raise ValueError(f"schedule: expected 'relaxed' or 'epoched', got {schedule!r}")
        if block is None:
            block = _BLOCK if schedule == "relaxed" else 1 << round(log2(max_length * max(log2(max_length), 1)) / 2)
        if isinstance(block, bool) or not isinstance(block, int) or block < 1:
            raise ValueError(f"block: expected a number of tokens, at least 1, got {block!r}")
        self.schedule, self.block = schedule, min(block, max_length)
        self._places: Tensor | None = None

    def step_(self, u: Tensor, state: State) -> Tensor:
        checked_input(u, self.channels, token=True)
        parts = checked_state(state, self._expected(u.shape[:-1]))
        if u.is_cuda and torch.cuda.is_current_stream_capturing():
            raise ValueError(
                "expected steps outside of a CUDA graph, got one being captured: steps of FutureFill differ from each other, "
                "those of CachedConvolution do not"
            )
        place = _one_place(parts["position"])
        self.expect_room(place + 1)
        history, pending, taps = parts["history"], parts["pending"], self.taps()
        start = place - place % self.block
        within = history[..., start : min(start + self.block, self.max_length)]
        y = _cached_step(within, taps, self._place_of_block(place - start, u.device), u)
        y = y + pending[..., place - start if self.schedule == "epoched" else place]
        parts["position"] += 1
        if (place + 1) % self.block == 0:
            self._fill(history, pending, place + 1, newest=True)
        return y.to(u.dtype)

    def _place_of_block(self, place: int, device: torch.device) -> Tensor:
        """``place`` as a tensor on ``device``, where all of a block lie already: to send it there would take longer than the step."""
        if self._places is None or self._places.device != device:
            self._places = torch.arange(self.block, device=device)
        return self._places[place : place + 1]

    def _state(self, history: Tensor, position: Tensor) -> State:
        place, taps = _one_place(position), self.taps()
        shape = history.shape if self.schedule == "relaxed" else (*history.shape[:-1], self.block)
        pending = torch.zeros(shape, dtype=taps.dtype, device=history.device)
        self._fill(history, pending, place - place % self.block)
        return {"history": history, "pending": pending, "position": position.cpu()}

    def _expected(self, batch: tuple[int, ...]) -> dict[str, Expected]:
        width = self.slots if self.schedule == "relaxed" else self.block
        return {
            "history": ((*batch, self.channels, self.slots), HISTORY),
            "pending": ((*batch, self.channels, width), REAL),
            "position": (batch, (torch.int64,)),
        }

    def _fill(self, history: Tensor, pending: Tensor, place: int, *, newest: bool = False) -> None:
        """What inputs before ``place``, the beginning of a block, do to outputs from there on; with ``newest``, of the last tile only."""
        tiles = list(self._tiles(place))
        for first, last, end in tiles[-1:] if newest else tiles:
            if last < end and self.schedule == "epoched":
                pending.zero_()
                add_contribution(history[..., first:last], self.taps()[:, : end - first], pending[..., : end - last])
            elif last < end:
                add_contribution(history[..., first:last], self.taps()[:, : end - first], pending[..., last:end])

    def _tiles(self, place: int) -> Iterator[tuple[int, int, int]]:
        """Inputs ``[first, last)`` to outputs ``[last, end)``, of the tiles that end at or before ``place`` and reach beyond it.

        The relaxed ones are as many as the number of blocks has binary digits of one, the largest first: each ends where the number of
        blocks is cut behind one of them.
        """
        blocks = place // self.block
        if self.schedule == "epoched":
            if blocks:
                yield 0, place, min(place + self.block, self.max_length)
            return
        first = 0
        for digit in reversed(range(blocks.bit_length())):
            if blocks >> digit & 1:
                last = first + (self.block << digit)
                yield first, last, min(2 * last - first, self.max_length)
                first = last


def _one_place(position: Tensor) -> int:
    """The tokens so far, of all sequences alike."""
    if position.numel() == 0:
        return 0
    least, most = (int(x) for x in position.aminmax())
    if least != most:
        raise ValueError(f"state['position']: expected sequences at one place, got {least} to {most}: pad their prompts on the left")
    return most


def add_contribution(inputs: Tensor, taps: Tensor, outputs: Tensor) -> None:
    """Adds to ``outputs`` ``(*batch, channels, b)`` what ``inputs`` ``(*batch, channels, a)`` right before them do: one cyclic FFT.

    taps : ``(channels, a + b)``. A cycle of ``a + b`` is enough: what wraps around falls on the first ``a`` places.
    """
    if inputs.numel() == 0:
        return
    points, a = _fast_length(taps.shape[-1]), inputs.shape[-1]
    per_channel = 3 * points * taps.element_size() * prod(inputs.shape[:-2])
    piece = max(1, _PIECE_BYTES // per_channel)
    for start in range(0, taps.shape[0], piece):
        part = slice(start, start + piece)
        spectrum = torch.fft.rfft(inputs[..., part, :].to(taps.dtype), n=points) * torch.fft.rfft(taps[part], n=points)
        outputs[..., part, :] += torch.fft.irfft(spectrum, n=points)[..., a : a + outputs.shape[-1]]


def _fast_length(n: int) -> int:
    """At least ``n``, a power of two or 3, 5 or 9 times one: longer lists of factors save places and take longer on a GPU."""
    return min(odd * ceil_power_of_two(-(-n // odd)) for odd in (1, 3, 5, 9))
