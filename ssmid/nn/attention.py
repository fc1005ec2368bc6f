"""Causal self-attention with rotary positions: the Transformer that recurrences are measured against.

Vaswani et al. 2017; rotations of Su et al. 2021 on a quarter of each head, as in GPT-NeoX (Black et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from ssmid.nn.filter import State, checked_state
from ssmid.nn.layer import SequenceLayer, masked
from ssmid.nn.projection import checked_sequence
from ssmid.nn.state import tensor_part


class Attention(SequenceLayer):
    """``softmax(q k^T / sqrt(head width)) v`` over what came before, in ``heads`` heads, with a cache of keys and values for a state.

    max_length : the most tokens of a sequence, and the room of a state that is not told another
    rotary : the share of each head that is turned by its position   base : of the turning frequencies ``base^(-2 i / r)``

    Time O(length^2 width). State, with its memory taken at the start: ``keys`` and ``values`` ``(batch, heads, room, width / heads)``,
    ``valid`` ``(batch, room)``, False where nothing or padding stands, and ``length`` ``(batch,)``, how many places are taken. A sequence
    that outgrows its room gets NaN for outputs. Every step reads all the room there is.

    >>> layer = Attention(16, heads=2, max_length=32)
    >>> y, state = layer.prefill(torch.randn(1, 5, 16))
    >>> layer.step(torch.randn(1, 16), state)[0].shape, state["keys"].shape
    (torch.Size([1, 16]), torch.Size([1, 2, 32, 8]))
    """

    def __init__(self, width: int, heads: int, *, max_length: int = 2048, rotary: float = 0.25, base: float = 10_000.0) -> None:
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(f"heads: expected a number that divides the width {width}, got {heads}")
        if max_length < 1 or not 0 <= rotary <= 1:
            raise ValueError(f"max_length, rotary: expected at least 1, and 0 to 1, got {max_length} and {rotary}")
        self.width, self.heads, self.max_length = width, heads, max_length
        self.Wqkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.rotation = _Rotation(int(rotary * (width // heads)) // 2, max_length, base)

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self._turned(masked(checked_sequence(u, self.width), mask), self._places(u))
        return self._mixed(q, k, v, mask)

    def initial_state(self, batch: int, length: int | None = None) -> dict[str, Tensor]:
        """The state of ``batch`` sequences of at most ``length`` tokens, ``max_length`` where that is None."""
        room = self._expected(self.max_length if length is None else length)
        weight, shape = self.Wqkv.weight, (batch, self.heads, room, self.width // self.heads)
        return {
            "keys": weight.new_zeros(shape),
            "values": weight.new_zeros(shape),
            "valid": weight.new_zeros((batch, room), dtype=torch.bool),
            "length": weight.new_zeros(batch, dtype=torch.int64),
        }

    def prefill(self, u: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """``mask`` may leave out any tokens. Waits for the GPU: whether the cache is empty decides what is computed."""
        batch = u.shape[0]
        before = self.initial_state(batch) if state is None else {name: x.clone() for name, x in self._parts(state, batch).items()}
        taken = 0 if state is None or not u.shape[0] else int(before["length"].max())
        room, tokens = before["keys"].shape[2], checked_sequence(u, self.width).shape[1]
        if taken + tokens > room:
            raise ValueError(f"u: expected at most {room - taken} tokens after the {taken} in a state of room for {room}, got {tokens}")
        places = before["length"][:, None] + torch.arange(tokens, device=u.device)
        q, k, v = self._turned(masked(u, mask), places)
        fresh = torch.ones_like(places, dtype=torch.bool) if mask is None else mask
        after = self._written(before, k, v, fresh, places)
        if taken == 0:
            return self._mixed(q, k, v, mask), after
        seen = torch.arange(taken + tokens, device=u.device)
        own = seen == places[..., None]
        allowed = after["valid"][:, None, : len(seen)] & (seen <= places[..., None]) | own
        keys, values = (after[name][:, :, : len(seen)] for name in ("keys", "values"))
        return self._out(_attended(q, keys, values, allowed[:, None])), after

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        state = {name: x.clone() for name, x in self._parts(state, u.shape[0]).items()}
        return self.step_(u, state), state

    def step_(self, u: Tensor, state: State) -> Tensor:
        state = self._parts(state, u.shape[0])
        room, places = state["keys"].shape[2], state["length"][:, None]
        full, places = places >= room, places.clamp(max=room - 1)
        q, k, v = self._turned(checked_sequence(u, self.width, token=True)[:, None], places)
        self._written(state, k, v, torch.ones_like(full), places)
        allowed = state["valid"][:, None, None]
        y = _attended(q, state["keys"], state["values"], allowed)
        return self._out(y)[:, 0].masked_fill(full, torch.nan)

    def _turned(self, u: Tensor, places: Tensor) -> list[Tensor]:
        """q, k, v ``(batch, heads, length, width / heads)``, the first two turned by ``places`` ``(batch, length)`` or ``(length,)``."""
        qkv = self.Wqkv(u).unflatten(-1, (3, self.heads, -1))
        turns = self.rotation.turns
        half, (cos, sin) = turns.shape[-1], turns[:, places, None, None].to(qkv.dtype)
        a, b, rest = qkv[..., :2, :, :].split([half, half, qkv.shape[-1] - 2 * half], dim=-1)
        turned = torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)
        return [x.transpose(1, 2) for x in (*turned.unbind(-3), qkv[..., 2, :, :])]

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention among tokens alone; one that is padding sees itself, so that its output is a number."""
        if mask is None:
            return self._out(_attended(q, k, v, causal=True))
        at = torch.arange(q.shape[2], device=q.device)
        allowed = (at <= at[:, None]) & mask[:, None] | (at == at[:, None])
        return self._out(_attended(q, k, v, allowed[:, None]))

    def _out(self, y: Tensor) -> Tensor:
        return self.out_proj(y.transpose(1, 2).flatten(-2))

    @staticmethod
    def _written(state: dict[str, Tensor], k: Tensor, v: Tensor, valid: Tensor, places: Tensor) -> dict[str, Tensor]:
        """``state`` with further tokens at ``places`` ``(batch, tokens)``, in place."""
        sequence = torch.arange(places.shape[0], device=places.device)[:, None]
        for name, new in (("keys", k.transpose(1, 2)), ("values", v.transpose(1, 2))):
            state[name].transpose(1, 2)[sequence, places] = new.to(state[name].dtype)
        state["valid"][sequence, places] = valid
        state["length"] += places.shape[1]
        return state

    def _places(self, u: Tensor) -> Tensor:
        return torch.arange(self._expected(u.shape[1]), device=u.device)

    def _expected(self, length: int) -> int:
        if length > self.max_length:
            raise ValueError(f"length: expected at most max_length={self.max_length} tokens, got {length}")
        return length

    def _parts(self, state: State, batch: int) -> dict[str, Tensor]:
        """The tensors of the state of ``batch`` sequences, with room for any number of tokens."""
        parts = {name: tensor_part(state, name) for name in ("keys", "values", "valid", "length")}
        room = parts["valid"].shape[-1] if parts["valid"].ndim else 0
        kept = ((batch, self.heads, room, self.width // self.heads), (self.Wqkv.weight.dtype,))
        flags, count = ((batch, room), (torch.bool,)), ((batch,), (torch.int64,))
        return checked_state(parts, {"keys": kept, "values": kept, "valid": flags, "length": count})


def _attended(q: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """One of torch's kernels for bf16 returns nothing at all where there are no queries."""
    return nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=allowed, is_causal=causal) if q.numel() else q


class _Rotation(nn.Module):
    """Cosines and sines ``(2, max_length, pairs)``, in float64 whatever the model is cast to: relative positions cancel in exact turns."""

    turns: Tensor

    def __init__(self, pairs: int, max_length: int, base: float) -> None:
        super().__init__()
        places, pair = (torch.arange(n, dtype=torch.float64) for n in (max_length, pairs))
        angles = places[:, None] * base ** (-pair / max(pairs, 1))
        self.register_buffer("turns", torch.stack([angles.cos(), angles.sin()]), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)
