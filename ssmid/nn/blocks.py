"""The block that every language model here is a stack of: a mixer along the sequence and a perceptron at each token, before norms."""

from __future__ import annotations

from torch import Tensor, nn

from ssmid.nn.attention import Attention
from ssmid.nn.filter import State
from ssmid.nn.layer import SequenceLayer


class MLP(nn.Module):
    """``fc2(gelu(fc1(u)))`` at each token, ``hidden`` wide in between; gelu by its tanh formula, as in the published models."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, u: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(u), approximate="tanh"))


class Block(SequenceLayer):
    """``v = u + mixer(norm1(u))``, then ``v + mlp(norm2(v))``. The state is that of the mixer.

    >>> import torch
    >>> from ssmid.nn import Attention
    >>> Block(Attention(8, heads=2), hidden=16)(torch.randn(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, mixer: SequenceLayer, hidden: int) -> None:
        super().__init__()
        self.width, self.mixer = mixer.width, mixer
        self.norm1, self.norm2 = nn.LayerNorm(mixer.width), nn.LayerNorm(mixer.width)
        self.mlp = MLP(mixer.width, hidden)

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._with_mlp(u + self.mixer(self.norm1(u), mask))

    def initial_state(self, batch: int, length: int | None = None) -> State:
        """``length`` as of :class:`ssmid.nn.Attention`, whose states alone depend on it."""
        return self.mixer.initial_state(batch, length) if isinstance(self.mixer, Attention) else self.mixer.initial_state(batch)

    def prefill(self, u: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, State]:
        y, state = self.mixer.prefill(self.norm1(u), state, mask)
        return self._with_mlp(u + y), state

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.mixer.step(self.norm1(u), state)
        return self._with_mlp(u + y), state

    def step_(self, u: Tensor, state: State) -> Tensor:
        return self._with_mlp(u + self.mixer.step_(self.norm1(u), state))

    def _with_mlp(self, u: Tensor) -> Tensor:
        return u + self.mlp(self.norm2(u))
