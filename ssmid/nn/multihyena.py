"""MultiHyena (Massaroli et al., "Laughing Hyena Distillery", NeurIPS 2023, section 4): one long convolution a head, over outer products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssmid.kernels.compiler import fused
from ssmid.kernels.modal_step import multihyena_step_
from ssmid.kernels.outer_products import contracted, outer_products, plain_contracted, plain_outer_products
from ssmid.nn.convolution import long_convolution
from ssmid.nn.filter import COMPLEX, Recurrence, State, checked_state, overwrite
from ssmid.nn.hyena import Filters, made_filters, modes_of
from ssmid.nn.inference import added_norm_linear, linear_of, without_gradient
from ssmid.nn.layer import SequenceLayer, recurrence_of
from ssmid.nn.projection import at_tokens, channels_first, channels_last, checked_sequence
from ssmid.nn.short_convolution import ShortConvolution
from ssmid.nn.state import by_name, joined, part, tensor_part

NUMBERS_AT_ONCE = 2**26
"""Entries of products ``k v`` that are convolved at once: 256 MB in float32, and about four times that in the FFTs."""


class MultiHyena(SequenceLayer):
    """``q, k, v = short(W_in u)`` in M heads of N channels; ``y_t = (h^m * k v^T)_t^T q_t`` in head m; ``W_out y``.

    Every entry of the N x N products ``k_t v_t^T`` is convolved with the one filter of its head, so that a layer has M filters in place of
    ``width``; a head with an h that is 1 everywhere is linear attention.

    width, heads : ``width = M N``   filter : a bank of ``heads`` channels, or ``filter(heads)`` that makes one; None is
    :class:`HyenaFilter` with ``options``   taps : of the short convolution

    Time O(N width length log length): N times that of Hyena. Rows of the products are convolved a few at a time and computed again in the
    backward pass, so that memory is that of a few Hyenas. State of a sequence: N^2 M times that of one filter, in ``long``, with axes
    ``(batch, heads, N of k, N of v, ...)``; and ``short`` ``(batch, 3 width, taps - 1)``.

    >>> layer = MultiHyena(8, heads=4, trained_length=64)
    >>> layer(torch.randn(2, 50, 8)).shape
    torch.Size([2, 50, 8])
    """

    def __init__(self, width: int, heads: int = 8, filter: Filters = None, *, taps: int = 3, **options: Any) -> None:
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(f"heads: expected a number that divides the width {width}, got {heads}")
        self.width, self.heads, self.rows = width, heads, width // heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.short_filter = ShortConvolution(3 * width, taps)
        (self.filter_fn,) = made_filters(filter, 1, heads, options)
        self.out_proj = nn.Linear(width, width)

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        streams = self.short_filter(channels_first(self.in_proj, u, mask))
        taps = self.filter_fn(u.shape[1])
        if not torch.is_grad_enabled():
            return self._out(self._filtered(streams, mask, lambda z, rows: long_convolution(z, taps)))
        q, k, v = self._by_rows(streams, mask)
        y = torch.zeros_like(v)
        for rows in self._pieces(v):
            y = y + checkpoint(_convolved, q[:, rows], k[:, rows], v, taps, use_reentrant=False, preserve_rng_state=False)
        return self._out(y.transpose(1, 2))

    def initial_state(self, batch: int) -> State:
        long = _heads_first(self._recurrence().initial_state(batch, self.rows, self.rows))
        return joined({"short": self.short_filter.initial_state(batch), "long": long})

    def prefill(self, u: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, State]:
        given = state is not None
        after = {name: x.clone() for name, x in by_name(state).items()} if given else by_name(self.initial_state(u.shape[0]))
        streams, after["short"] = self.short_filter.prefill(channels_first(self.in_proj, u, mask), tensor_part(after, "short"))
        recurrence = self._recurrence()

        def filtered(products: Tensor, rows: slice) -> Tensor:
            long = _rows(part(after, "long"), rows)
            convolved, behind = recurrence.prefill(products, long if given else None)
            overwrite(long, behind)
            return convolved

        return self._out(self._filtered(streams, mask, filtered)), after

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        streams, short = self.short_filter.step(self._projected(u), tensor_part(state, "short"))
        q, k, v = self._by_rows(streams[..., None])
        convolved, long = self._recurrence().step(_products(k, v), _rows(part(state, "long")))
        return self._contracted(q, convolved), joined({"short": short, "long": _heads_first(long)})

    def step_(self, u: Tensor, state: State) -> Tensor:
        return self._step_(self._projected(u), state)

    def step_of_sum_(self, norm: nn.LayerNorm, u: Tensor, y: Tensor | None, state: State) -> tuple[Tensor, Tensor]:
        total, projected = added_norm_linear(norm, self.in_proj, checked_sequence(u, self.width, token=True), y)
        return total, self._step_(projected, state)

    def _step_(self, projected: Tensor, state: State) -> Tensor:
        streams = self.short_filter.step_(projected, tensor_part(state, "short"))
        long, modes = part(state, "long"), modes_of(self.filter_fn) if fused(streams) else None
        if modes is not None:
            long = checked_state(long, ((streams.shape[0], self.heads, self.rows, self.rows, modes[0].shape[1]), COMPLEX))
            q, k, v = (x.unflatten(1, (self.heads, self.rows)) for x in streams.split(self.width, dim=1))
            return linear_of(self.out_proj, multihyena_step_(q, k, v, long, *modes).flatten(1))
        q, k, v = self._by_rows(streams[..., None])
        return self._contracted(q, self._recurrence().step_(_products(k, v), _rows(long)))

    def _recurrence(self) -> Recurrence:
        return recurrence_of(self.filter_fn, self)

    def _projected(self, u: Tensor) -> Tensor:
        return linear_of(self.in_proj, checked_sequence(u, self.width, token=True))

    def _filtered(self, streams: Tensor, mask: Tensor | None, filtered: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """``filtered`` products between their gates, a few rows at a time: ``(batch, heads, N, length)``.

        What is made for one piece has no name here, and is gone when the next is made.
        """
        q, k, v = streams.split(self.width, dim=1)
        q, k, v = (x.unflatten(1, (self.heads, self.rows)) for x in (q, k, at_tokens(v, mask)))
        before, behind = (outer_products, contracted) if without_gradient(streams) else (plain_outer_products, plain_contracted)
        y = None
        for rows in self._pieces(v):
            y = behind(q, filtered(before(k, v, rows), rows), rows, y)
        return torch.zeros_like(v) if y is None else y

    def _by_rows(self, streams: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """q, k, v as ``(batch, N, heads, length)``; channel ``m N + i`` is row i of head m."""
        q, k, v = streams.split(self.width, dim=1)
        return [x.unflatten(1, (self.heads, self.rows)).transpose(1, 2) for x in (q, k, at_tokens(v, mask))]

    def _pieces(self, v: Tensor) -> list[slice]:
        at_once = max(1, NUMBERS_AT_ONCE // max(1, v.numel()))
        return [slice(start, min(start + at_once, self.rows)) for start in range(0, self.rows, at_once)]

    def _out(self, y: Tensor) -> Tensor:
        """Of ``(batch, heads, N, length)``."""
        return channels_last(self.out_proj, y.flatten(1, 2))

    def _contracted(self, q: Tensor, convolved: Tensor) -> Tensor:
        y = (q[:, :, None, :, 0] * convolved).sum(1)
        return self.out_proj(y.transpose(1, 2).flatten(1))


def _convolved(q: Tensor, k: Tensor, v: Tensor, taps: Tensor) -> Tensor:
    """What some rows of k add to the output ``(batch, N, heads, length)``."""
    return (q[:, :, None] * long_convolution(k[:, :, None] * v[:, None], taps)).sum(1)


def _products(k: Tensor, v: Tensor) -> Tensor:
    """``(batch, N of k, N of v, heads)`` of one token"""
    return k[:, :, None, :, 0] * v[:, None, :, :, 0]


def _heads_first(state: State) -> State:
    """A state of sequences ``(batch, N, N)`` of ``heads`` filters, each tensor of it with its heads behind the batch."""
    if isinstance(state, Tensor):
        return state.movedim(3, 1).contiguous() if state.ndim > 3 else state
    return {name: tensor for name, part in state.items() for tensor in [_heads_first(part)] if isinstance(tensor, Tensor)}


def _rows(state: State, rows: slice = slice(None)) -> State:
    """The way back, of some rows: views of the same memory."""
    if isinstance(state, Tensor):
        return state[:, :, rows].movedim(1, 3) if state.ndim > 3 else state[:, rows]
    return {name: tensor for name, part in state.items() for tensor in [_rows(part, rows)] if isinstance(tensor, Tensor)}
