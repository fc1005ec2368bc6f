"""A language model small enough to read: embedding, blocks, norm, and the embedding again as the head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, sqrt
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssmid.nn.blocks import Block
from ssmid.nn.filter import State
from ssmid.nn.generation import generate, stream
from ssmid.nn.inference import added_norm, logits_of
from ssmid.nn.layer import SequenceLayer
from ssmid.nn.mixers import mixer_named
from ssmid.nn.sizes import size_named
from ssmid.nn.state import joined, part

Mixer: TypeAlias = "str | Callable[[int], SequenceLayer]"
"""The name of a mixer, or what makes one of a width."""


class LanguageModel(nn.Module):
    """Tokens to logits of the next one, with any mixer of sequences in its blocks.

    vocabulary : tokens there are; the embedding has rows up to a multiple of 64, which matrix products like, and no logits for them
    width, depth, hidden : of the stack; ``hidden`` is twice the width where it is None
    mixer : "hyena", "multihyena", "rtf", "h3", "attention", or a function that makes a :class:`SequenceLayer` of a width
    options : ``filter``, ``order``, ``length``, ``heads``, ``denominator``, as of :func:`ssmid.nn.mixers.mixer_named`
    recompute : whether blocks are computed again in the backward pass in place of kept: memory of one block, a third more time

    Weights start as in GPT-2 and Hyena: normal of deviation 0.02, those that end in the residual stream less by ``sqrt(2 depth)``.
    ``configuration`` has these arguments by name: ``LanguageModel(**model.configuration)`` is a model of the same shape.
    At inference the filters of the mixers must be recurrences (:func:`ssmid.nn.convert`). A state is one flat dict of tensors with names
    such as ``blocks.3.mixer.long``, the batch first.

    >>> model = LanguageModel(100, width=16, depth=2, mixer="hyena", filter="modal", order=4)
    >>> tokens = torch.randint(100, (1, 6))
    >>> logits, state = model.prefill(tokens)
    >>> logits, state = model.step(tokens[:, 0], state)
    >>> logits.shape, list(state)[:2]
    (torch.Size([1, 100]), ['blocks.0.mixer.short', 'blocks.0.mixer.long'])
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        depth: int,
        mixer: Mixer = "hyena",
        hidden: int | None = None,
        *,
        recompute: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        for name, number in (("vocabulary", vocabulary), ("width", width), ("depth", depth)):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        self.vocabulary, self.recompute = vocabulary, recompute
        sizes = {"vocabulary": vocabulary, "width": width, "depth": depth, "mixer": mixer, "hidden": hidden}
        self.configuration: dict[str, Any] = {**sizes, "recompute": recompute, **options}
        self.embedding = nn.Embedding(64 * ceil(vocabulary / 64), width)
        self.blocks = nn.ModuleList(Block(mixer_named(mixer, width, **options), hidden or 2 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(_start)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith(_INTO_THE_RESIDUAL):
                    weight /= sqrt(2 * depth)

    @classmethod
    def from_size(cls, size: str, mixer: Mixer = "hyena", *, vocabulary: int = 50257, **options: Any) -> Self:
        """A model of a published size, "125M", "153M", "355M" or "1.3B"; of attention "125M", "355M" or "1.3B".

        ``vocabulary`` is that of GPT-2. Raises ValueError with all sizes for another name. Takes no memory under
        ``torch.device("meta")``.

        >>> with torch.device("meta"):
        ...     model = LanguageModel.from_size("153M")
        >>> round(sum(p.numel() for p in model.parameters()) / 1e6)
        154
        """
        found = size_named(size, mixer)
        if mixer == "attention":
            options = {"heads": found.heads, **options}
        return cls(vocabulary, found.width, found.depth, mixer, found.hidden, **options)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits ``(batch, length, vocabulary)`` of ``tokens`` ``(batch, length)``; ``mask`` is False at padding, on the left."""
        u = self.embedding(_checked(tokens, 2))
        for _, block in self._blocks():
            if self.recompute and torch.is_grad_enabled():
                u = checkpoint(block, u, mask, use_reentrant=False)
            else:
                u = block(u, mask)
        return self._logits(u)

    def initial_state(self, batch: int, length: int | None = None) -> dict[str, Tensor]:
        """The state of ``batch`` sequences at rest, with room for ``length`` tokens where a mixer needs to know (attention)."""
        return joined({name: block.initial_state(batch, length) for name, block in self._blocks()})

    def prefill(
        self, tokens: Tensor, state: State | None = None, mask: Tensor | None = None, *, all_logits: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits ``(batch, vocabulary)`` after the last token, and the state behind it; ``all_logits`` gives those after each token.

        ``state`` is what came before, left as it is. Raises ValueError where there are no tokens: nothing says what follows.
        """
        if _checked(tokens, 2).shape[1] == 0:
            raise ValueError(f"tokens: expected at least one for each sequence, got shape {tuple(tokens.shape)}")
        u, y, states = self.embedding(tokens), None, {}
        for number, (name, block) in enumerate(self._blocks(), 1):
            before, only_last = None if state is None else part(state, name), number == len(self.blocks) and not all_logits
            u, y, states[name] = block.prefill_parts(u, y, before, mask, only_last=only_last)
        assert y is not None
        return (self._logits(u, y) if all_logits else self._logits(u[:, -1], y[:, -1])), joined(states)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits ``(batch, vocabulary)`` after one more token ``(batch,)`` of each sequence, and the state; ``state`` is left as it is."""
        u, states = self.embedding(_checked(tokens, 1)), {}
        for name, block in self._blocks():
            u, states[name] = block.step(u, part(state, name))
        return self._logits(u), joined(states)

    def step_(self, tokens: Tensor, state: State) -> Tensor:
        """As :meth:`step`, with the new state in the place of the old one."""
        u, y = self.embedding(_checked(tokens, 1)), None
        for name, block in self._blocks():
            u, y = block.step_parts_(u, y, part(state, name))
        return self._logits(u, y)

    def generate(self, prompt: Any, n: int, **options: Any) -> Tensor:
        """At most ``n`` tokens after each prompt, by :func:`ssmid.nn.generate`, whose arguments it takes.

        >>> model = LanguageModel(100, width=16, depth=2, mixer="hyena", filter="modal", order=4)
        >>> model.generate([[1, 2, 3], [4]], 5, temperature=0.8, top_k=10, seed=0).shape
        torch.Size([2, 5])
        """
        return generate(self, prompt, n, **options)

    def stream(self, prompt: Any, n: int | None = None, **options: Any) -> Iterator[Tensor]:
        """The tokens of :meth:`generate` one after another as they come, by :func:`ssmid.nn.stream`."""
        return stream(self, prompt, n, **options)

    def _blocks(self) -> Iterator[tuple[str, Block]]:
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            yield f"blocks.{i}.mixer", block

    def _logits(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        """Of the stream ``u + y``."""
        return logits_of(self.embedding, added_norm(self.norm, u, y)[1])[..., : self.vocabulary]


_INTO_THE_RESIDUAL = ("out_proj.weight", "output_linear.weight", "fc2.weight")


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _checked(tokens: Tensor, axes: int) -> Tensor:
    if tokens.ndim != axes or tokens.is_floating_point():
        wanted = "(batch, length)" if axes == 2 else "(batch,)"
        raise ValueError(f"tokens: expected integers of shape {wanted}, got {tokens.dtype} of shape {tuple(tokens.shape)}")
    return tokens
