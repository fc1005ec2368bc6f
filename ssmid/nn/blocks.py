"""The block that every language model here is a stack of: a mixer along the sequence and a perceptron at each token, before norms."""

from __future__ import annotations

from torch import Tensor, nn

from ssmid.nn.attention import Attention
from ssmid.nn.filter import State
from ssmid.nn.inference import added, added_norm, added_norm_gelu, gelu_of, linear_of, without_gradient
from ssmid.nn.layer import SequenceLayer


class MLP(nn.Module):
    """``fc2(gelu(fc1(u)))`` at each token, ``hidden`` wide in between; gelu by its tanh formula, as in the published models."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, u: Tensor) -> Tensor:
        return linear_of(self.fc2, gelu_of(self.fc1, u))

    def of_sum(self, norm: nn.LayerNorm, u: Tensor, y: Tensor, *, over_u: bool = False) -> tuple[Tensor, Tensor]:
        """``u + y``, written over ``u`` where it may be, and what :meth:`forward` gives for its norm."""
        total, hidden = added_norm_gelu(norm, self.fc1, u, y, over_u=over_u)
        return total, linear_of(self.fc2, hidden)


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
        u, y = self._with_mlp(u, self.mixer(self.norm1(u), mask))
        return u + y

    def initial_state(self, batch: int, length: int | None = None) -> State:
        """``length`` as of :class:`ssmid.nn.Attention`, whose states alone depend on it."""
        return self.mixer.initial_state(batch, length) if isinstance(self.mixer, Attention) else self.mixer.initial_state(batch)

    def prefill(self, u: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, State]:
        u, y, state = self.prefill_parts(u, None, state, mask)
        return u + y, state

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        mixed, state = self.mixer.step(self.norm1(u), state)
        u, y = self._with_mlp(u, mixed)
        return u + y, state

    def step_(self, u: Tensor, state: State) -> Tensor:
        u, y = self.step_parts_(u, None, state)
        return u + y

    def prefill_parts(
        self, u: Tensor, y: Tensor | None, state: State | None = None, mask: Tensor | None = None, *, only_last: bool = False
    ) -> tuple[Tensor, Tensor, State]:
        """As :meth:`prefill` from ``u + y`` to the sum of the first two results: blocks in a row add where they take the next norm.

        ``u`` and ``y`` are written over, so that whoever has them holds no more than one that calls :meth:`forward`; not ``u`` alone.
        only_last : gives the last token alone, ``(batch, 1, width)``; tokens do not meet in the perceptron, which is then that of one
        """
        ours = y is not None
        u, normed = added_norm(self.norm1, u, y, over_u=True, over_y=True)
        mixed, state = self.mixer.prefill(normed, state, mask)
        del normed
        if only_last:
            u, mixed = u[:, -1:].contiguous(), mixed[:, -1:].contiguous()
        return *self._with_mlp(u, mixed, over_u=ours), state

    def step_parts_(self, u: Tensor, y: Tensor | None, state: State) -> tuple[Tensor, Tensor]:
        """As :meth:`step_` from ``u + y`` to the sum of both results."""
        return self._with_mlp(*self.mixer.step_of_sum_(self.norm1, u, y, state))

    def _with_mlp(self, u: Tensor, mixed: Tensor, *, over_u: bool = False) -> tuple[Tensor, Tensor]:
        if without_gradient(u):
            return self.mlp.of_sum(self.norm2, u, mixed, over_u=over_u)
        u = added(u, mixed, over_u=over_u)
        return u, self.mlp(self.norm2(u))
