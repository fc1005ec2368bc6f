"""H3: a shift and a diagonal state space between gates (Fu et al., "Hungry Hungry Hippos", ICLR 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssmid.nn.convolution import long_convolution
from ssmid.nn.filter import Filter, State
from ssmid.nn.layer import SequenceLayer, recurrence_of
from ssmid.nn.projection import channels_first, channels_last, checked_sequence
from ssmid.nn.s4d import S4DFilter
from ssmid.nn.short_convolution import ShortConvolution
from ssmid.nn.state import joined, part, tensor_part


class H3(SequenceLayer):
    """``output_linear(q * S4D(shift(k) v))``, with ``q, k, v`` linear in the input; of heads, the outer products of k and v.

    order : real states of a channel of the diagonal state space, and taps of the shift unless ``shift`` says how many
    head_dim : channels of a head, d; k and v make d x d products of ``width / d`` heads each, which share a filter, and q contracts them
    filter : any :class:`ssmid.nn.Filter` of ``width / head_dim`` channels in the place of S4D, "lin", bilinear, as in the public code

    The shift state space of the paper remembers the last inputs, and is a filter of ``shift`` taps; both of its D are added to tap 0.
    State dict: ``q_proj``, ``k_proj``, ``v_proj``, ``output_linear`` (``weight``, ``bias``), ``shift.weight (width, 1, shift)``, longest
    lag first and lag 0 last, and ``filter.*``. Public checkpoints have ``ssm_k_kernel.kernel.C`` with ``ssm_k_D``, and
    ``kernel.kernel.*`` with ``D``, in their places.
    State: ``shift (batch, width, shift - 1)``, the last k, and ``filter``, of sequences ``(batch, d, d, width / d)``.

    >>> H3(4, order=8)(torch.randn(2, 10, 4)).shape
    torch.Size([2, 10, 4])
    """

    def __init__(self, width: int, order: int = 64, *, head_dim: int = 1, shift: int | None = None, filter: Filter | None = None) -> None:
        super().__init__()
        if head_dim < 1 or width < 1 or width % head_dim:
            raise ValueError(f"head_dim: expected a divisor of the width {width}, got {head_dim}")
        heads = width // head_dim
        filter = S4DFilter(heads, order, discretization="bilinear") if filter is None else filter
        if filter.channels != heads:
            raise ValueError(f"filter: expected {heads} channels, one for each head, got {filter.channels}")
        self.width, self.head_dim = width, head_dim
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.shift = ShortConvolution(width, order if shift is None else shift, bias=False)
        with torch.no_grad():
            self.shift.weight[:, 0, -1] += torch.randn(width)
        self.filter = filter
        self.output_linear = nn.Linear(width, width)

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self._projected(u, mask)
        k = long_convolution(k, self.shift.weight[:, 0].flip(-1))
        return channels_last(self.output_linear, self._read(q, self.filter.convolve(self._products(k, v))))

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        state = recurrence_of(self.filter, self).initial_state(batch, self.head_dim, self.head_dim)
        return joined({"shift": self.shift.initial_state(batch), "filter": state})

    def prefill(self, u: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        filter = recurrence_of(self.filter, self)
        q, k, v = self._projected(u, mask)
        k, last = self.shift.prefill(k, None if state is None else tensor_part(state, "shift"))
        y, after = filter.prefill(self._products(k, v), None if state is None else part(state, "filter"))
        return channels_last(self.output_linear, self._read(q, y)), joined({"shift": last, "filter": after})

    def step(self, u: Tensor, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        filter = recurrence_of(self.filter, self)
        q, k, v = self._token(u)
        k, last = self.shift.step(k, tensor_part(state, "shift"))
        y, after = filter.step(self._products(k[..., None], v)[..., 0], part(state, "filter"))
        return self._written(q, y), joined({"shift": last, "filter": after})

    def step_(self, u: Tensor, state: State) -> Tensor:
        filter = recurrence_of(self.filter, self)
        q, k, v = self._token(u)
        k = self.shift.step_(k, tensor_part(state, "shift"))
        y = filter.step_(self._products(k[..., None], v)[..., 0], part(state, "filter"))
        return self._written(q, y)

    def _projected(self, u: Tensor, mask: Tensor | None) -> list[Tensor]:
        return [channels_first(linear, checked_sequence(u, self.width), mask) for linear in (self.q_proj, self.k_proj, self.v_proj)]

    def _token(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u = checked_sequence(u, self.width, token=True)
        return self.q_proj(u)[..., None], self.k_proj(u), self.v_proj(u)[..., None]

    def _products(self, k: Tensor, v: Tensor) -> Tensor:
        """``(batch, d, d, heads, length)``: channel ``h d + i`` of k and ``h d + j`` of v."""
        k, v = (x.unflatten(1, (-1, self.head_dim)).transpose(1, 2) for x in (k, v))
        return k[:, :, None] * v[:, None]

    def _read(self, q: Tensor, y: Tensor) -> Tensor:
        """``(batch, width, length)``, channel ``j heads + h``: the sum over i of ``q`` at ``h d + i`` and ``y`` at ``(i, j, h)``."""
        q = q.unflatten(1, (-1, self.head_dim)).transpose(1, 2)
        return (q[:, :, None] * y).sum(1).flatten(1, 2)

    def _written(self, q: Tensor, y: Tensor) -> Tensor:
        return self.output_linear(self._read(q, y[..., None])[..., 0])
