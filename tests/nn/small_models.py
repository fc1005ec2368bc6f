"""A language model of a few lines, with all that generation asks for and nothing else, in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """Embedding, one decaying state of each channel, a nonlinearity, logits."""

    def __init__(self, vocabulary: int = 11, width: int = 6, sharpness: float = 3.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.vocabulary = vocabulary
        self.embedding = nn.Parameter(torch.randn(vocabulary, width, generator=generator, dtype=torch.float64))
        self.decay = nn.Parameter(torch.linspace(0.3, 0.95, width, dtype=torch.float64))
        self.head = nn.Parameter(sharpness * torch.randn(width, vocabulary, generator=generator, dtype=torch.float64))

    def initial_state(self, batch: int, length: int | None = None) -> dict[str, Tensor]:
        return {"x": self.decay.new_zeros(batch, self.decay.shape[0])}

    def prefill(self, tokens: Tensor, state: dict | None = None, mask: Tensor | None = None) -> tuple[Tensor, dict]:
        state = self.initial_state(len(tokens)) if state is None else {"x": state["x"].clone()}
        for t in range(tokens.shape[1]):
            u = self.embedding[tokens[:, t]]
            state["x"] = self.decay * state["x"] + (u if mask is None else u * mask[:, t, None])
        return self.logits(state), state

    def step_(self, tokens: Tensor, state: dict) -> Tensor:
        state["x"].mul_(self.decay).add_(self.embedding[tokens])
        return self.logits(state)

    def logits(self, state: dict) -> Tensor:
        return torch.tanh(state["x"]) @ self.head


class Growing(Tiny):
    """The same function of the tokens, over a cache of all of them, as attention keeps."""

    def initial_state(self, batch: int, length: int | None = None) -> dict[str, Tensor]:
        assert length is not None
        return {"u": self.decay.new_zeros(batch, length, self.decay.shape[0]), "position": torch.zeros((), dtype=torch.int64)}

    def prefill(self, tokens: Tensor, state: dict | None = None, mask: Tensor | None = None) -> tuple[Tensor, dict]:
        assert state is not None
        state = {name: tensor.clone() for name, tensor in state.items()}
        for t in range(tokens.shape[1]):
            self._append(self.embedding[tokens[:, t]] * (1 if mask is None else mask[:, t, None]), state)
        return self._read(state), state

    def step_(self, tokens: Tensor, state: dict) -> Tensor:
        self._append(self.embedding[tokens], state)
        return self._read(state)

    def _append(self, u: Tensor, state: dict) -> None:
        state["u"][:, int(state["position"])] = u
        state["position"] += 1

    def _read(self, state: dict) -> Tensor:
        seen = int(state["position"])
        powers = self.decay ** torch.arange(seen - 1, -1, -1, dtype=torch.float64)[:, None]
        return self.logits({"x": (state["u"][:, :seen] * powers).sum(1)})


def by_hand(model: Tiny, prompt: list[int], n: int) -> list[int]:
    """Greedy tokens, each from the whole sequence again."""
    tokens = list(prompt)
    for _ in range(n):
        x = sum(model.decay ** (len(tokens) - 1 - t) * model.embedding[token] for t, token in enumerate(tokens))
        tokens.append(int((torch.tanh(x) @ model.head).argmax()))
    return tokens[len(prompt) :]
