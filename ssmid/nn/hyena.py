"""The Hyena operator (Poli et al., "Hyena Hierarchy", ICML 2023, section 3): long convolutions between gates.

Layout as in the public code (HazyResearch/safari, ``HyenaOperator``, one head), so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from torch import Tensor, nn

from ssmid.kernels.compiler import fused
from ssmid.kernels.hyena_gates import gated_streams, product_channels_last
from ssmid.kernels.modal_step import hyena_step_
from ssmid.nn.filter import COMPLEX, Filter, Recurrence, State, checked_state
from ssmid.nn.implicit import HyenaFilter
from ssmid.nn.inference import added_norm_linear, linear_of, without_gradient
from ssmid.nn.layer import SequenceLayer, recurrence_of
from ssmid.nn.modal_filter import ModalFilter
from ssmid.nn.projection import at_tokens, channels_first, channels_last, checked_mask, checked_sequence, product_channels_first
from ssmid.nn.recurrence import ModalRecurrence
from ssmid.nn.short_convolution import ShortConvolution
from ssmid.nn.state import joined, part, tensor_part

Filters: TypeAlias = "Filter | Sequence[Filter] | Callable[[int], Filter] | None"
"""A filter bank, several of them, what makes one of so many channels, or None for the implicit filter."""


class Hyena(SequenceLayer):
    """``x_0, ..., x_{N-1}, v = short(W_in u)``, then ``v <- h_n * (x_{N-n} v)`` for n = 1 to N - 1, ``y = W_out (x_0 v)``; N is ``order``.

    ``short`` is a depthwise causal convolution of 3 taps, ``*`` the long one of each channel; what the convolution adds of its input (the
    bypass) is part of tap 0. At order 2 with ``x_0 = q, x_1 = k`` that is ``q (h * (k v))``.

    width, order : channels, and gates; order 2 has one long convolution a channel
    filter : the bank of ``width`` channels, or one for each of the ``order - 1`` levels; or ``filter(width)`` that makes one;
        None is :class:`HyenaFilter` with ``options``
    taps : of the short convolution

    Time O(length log length) a channel, memory O(length). Projections and gates run in the dtype of the input, convolutions and states in
    float32 at least. Each level has a filter of its own and not a share of one bank: a recurrence steps all its channels at once, and the
    input of a level is the output of the one before.

    State: ``short`` ``(batch, (order + 1) width, taps - 1)`` and ``long``, that of the recurrence, above order 2
    ``long.0``, ``long.1`` ...

    >>> import torch
    >>> layer = Hyena(8, trained_length=64)
    >>> layer(torch.randn(2, 50, 8)).shape
    torch.Size([2, 50, 8])
    """

    def __init__(self, width: int, order: int = 2, filter: Filters = None, *, taps: int = 3, **options: Any) -> None:
        super().__init__()
        if width < 1 or order < 2:
            raise ValueError(f"width, order: expected at least 1 and 2, got {width} and {order}")
        self.width, self.order = width, order
        self.in_proj = nn.Linear(width, (order + 1) * width)
        self.short_filter = ShortConvolution((order + 1) * width, taps)
        filters = made_filters(filter, order - 1, width, options)
        self.filter_fn = filters[0] if order == 2 else nn.ModuleList(filters)
        self.out_proj = nn.Linear(width, width)

    @property
    def filters(self) -> list[Filter]:
        """One for each level, the first that is applied first."""
        return [self.filter_fn] if isinstance(self.filter_fn, Filter) else cast(list[Filter], list(self.filter_fn))

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.order == 2 and without_gradient(u):
            gate, v, _ = self._gated(u, None, mask)
            return self.out_proj(product_channels_last(gate, self.filters[0].convolve(v)))
        streams = self.short_filter(channels_first(self.in_proj, u, mask))
        *x, v = streams.split(self.width, dim=1)
        v = at_tokens(v, mask)
        for gate, filter in zip(reversed(x[1:]), self.filters, strict=True):
            v = filter.convolve(gate * v)
        return channels_last(self.out_proj, x[0] * v)

    def initial_state(self, batch: int) -> State:
        states = {name: recurrence.initial_state(batch) for name, recurrence in self._recurrences()}
        return joined({"short": self.short_filter.initial_state(batch), **states})

    def prefill(self, u: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, State]:
        before = None if state is None else tensor_part(state, "short")
        if self.order == 2 and without_gradient(u):
            gate, v, short = self._gated(u, before, mask)
            v, long = self._recurrences()[0][1].prefill(v, None if state is None else part(state, "long"))
            return self.out_proj(product_channels_last(gate, v)), joined({"short": short, "long": long})
        streams, short = self.short_filter.prefill(channels_first(self.in_proj, u, mask), before)
        *x, v = streams.split(self.width, dim=1)
        v, states = at_tokens(v, mask), {}
        for gate, (name, recurrence) in zip(reversed(x[1:]), self._recurrences(), strict=True):
            v, states[name] = recurrence.prefill(gate * v, None if state is None else part(state, name))
        return channels_last(self.out_proj, x[0] * v), joined({"short": short, **states})

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        streams, short = self.short_filter.step(self._projected(u), tensor_part(state, "short"))
        *x, v = streams.split(self.width, dim=1)
        states = {}
        for gate, (name, recurrence) in zip(reversed(x[1:]), self._recurrences(), strict=True):
            v, states[name] = recurrence.step(gate * v, part(state, name))
        return self.out_proj(x[0] * v), joined({"short": short, **states})

    def step_(self, u: Tensor, state: State) -> Tensor:
        return self._step_(self._projected(u), state)

    def step_of_sum_(self, norm: nn.LayerNorm, u: Tensor, y: Tensor | None, state: State) -> tuple[Tensor, Tensor]:
        total, projected = added_norm_linear(norm, self.in_proj, checked_sequence(u, self.width, token=True), y)
        return total, self._step_(projected, state)

    def _step_(self, projected: Tensor, state: State) -> Tensor:
        short = tensor_part(state, "short")
        modes = modes_of(self.filters[0]) if self.order == 2 and fused(projected) else None
        if modes is not None:
            weight, bias = self.short_filter.weight[:, 0], self.short_filter.bias
            short = self.short_filter.checked_state(short, projected)
            long = checked_state(part(state, "long"), ((projected.shape[0], *modes[0].shape[:-1]), COMPLEX))
            return linear_of(self.out_proj, hyena_step_(projected, short, weight, bias, long, *modes))
        streams = self.short_filter.step_(projected, short)
        *x, v = streams.split(self.width, dim=1)
        for gate, (name, recurrence) in zip(reversed(x[1:]), self._recurrences(), strict=True):
            v = recurrence.step_(gate * v, part(state, name))
        return self.out_proj(x[0] * v)

    def _gated(self, u: Tensor, before: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``x_0``, ``x_1 v`` and the state of the short convolution, without a gradient."""
        short = self.short_filter
        if before is not None:
            short.checked_state(before, u)
        if mask is not None:
            checked_mask(mask, *u.shape[:2])
        return gated_streams(product_channels_first(self.in_proj, u), self.in_proj.bias, short.weight[:, 0], short.bias, before, mask)

    def _projected(self, u: Tensor) -> Tensor:
        return linear_of(self.in_proj, checked_sequence(u, self.width, token=True))

    def _recurrences(self) -> list[tuple[str, Recurrence]]:
        names = ["long"] if self.order == 2 else [f"long.{level}" for level in range(self.order - 1)]
        return [(name, recurrence_of(filter, self)) for name, filter in zip(names, self.filters, strict=True)]


def modes_of(filter: Filter) -> tuple[Tensor, Tensor, Tensor] | None:
    """Poles, residues and feedthrough of a filter that runs as a modal recurrence, None of the others: what the kernels of a step take."""
    modal = filter.recurrence() if isinstance(filter, ModalFilter) else filter
    return (modal.poles, modal.residues, modal.feedthrough) if isinstance(modal, ModalRecurrence) else None


def made_filters(filter: Filters, count: int, channels: int, options: dict[str, Any]) -> list[Filter]:
    """``count`` banks of ``channels`` filters each; ValueError where what was given are others."""
    if isinstance(filter, Filter):
        filters = [filter]
    elif isinstance(filter, Sequence):
        filters = list(filter)
    else:
        make = filter or (lambda channels: HyenaFilter(channels, **options))
        filters = [make(channels) for _ in range(count)]
    if filter is not None and options:
        raise ValueError(f"expected options of the implicit filter only where there is no other, got {', '.join(options)}")
    if [f.channels for f in filters] != [channels] * count:
        raise ValueError(f"filter: expected {count} of {channels} channels, got channels {[f.channels for f in filters]}")
    return filters
