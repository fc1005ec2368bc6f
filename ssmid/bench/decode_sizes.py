"""What is measured of decoding, how large, and what one way to decode is to the benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

DISTILLED, MULTI = "Hyena, distilled to order 16", "MultiHyena, distilled to order 16"
CACHED, FILLED = "Hyena, exact: cached convolution", "Hyena, exact: FutureFill"
TRANSFORMER, HUGGING_FACE = "Transformer, static cache", "Hugging Face generate, GPT-NeoX"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured; the models are those of the published size unless ``small``.

    prefills : sequences read at once, and tokens of each
    enough : a batch from which on larger ones are tried only while they bring more   repeats : of each measurement
    """

    prompt: int = 512
    new: int = 256
    batches: tuple[int, ...] = (1, 16, 128, 512, 1024, 2048, 4096, 8192)
    exact_batches: tuple[int, ...] = (1, 16, 128, 256, 512)
    filled_batches: tuple[int, ...] = (16, 128, 256)
    attention_batches: tuple[int, ...] = (1, 16, 128, 256, 512, 1024)
    multi_batches: tuple[int, ...] = (1, 16, 128, 512, 1024, 2048)
    peer_batches: tuple[int, ...] = (64, 256, 512)
    contexts: tuple[int, ...] = (4096, 8192, 65536)
    prefills: tuple[tuple[int, int], ...] = ((1, 2048), (16, 2048), (1, 32768), (1, 131072))
    trained_length: int = 2048
    enough: int = 512
    repeats: int = 10
    small: bool = False

    @property
    def middle(self) -> int:
        """Tokens behind the prompt and half of the answer."""
        return self.prompt + self.new // 2

    @property
    def room(self) -> int:
        """Tokens for the steps that are timed behind a context."""
        return 4 * (self.repeats + 2)

    @property
    def length(self) -> int:
        """Of prompt and answer, and no more: what grows takes as little memory as it can."""
        return max(self.prompt + self.new, self.middle + self.room)

    @classmethod
    def quick(cls) -> Sizes:
        """Every part of it in less than a minute on a GPU."""
        few = (16, 256)
        return cls(new=32, batches=(1, 256, 1024), exact_batches=(64,), filled_batches=(16,), attention_batches=few, multi_batches=(256,),
                   peer_batches=(16,), contexts=(4096, 65536), prefills=((1, 2048),), repeats=4)  # fmt: skip

    @classmethod
    def tiny(cls) -> Sizes:
        """Models of a few thousand parameters."""
        two = (1, 2)
        return cls(prompt=8, new=4, batches=two, exact_batches=two, filled_batches=two, attention_batches=two, multi_batches=two,
                   peer_batches=two, contexts=(32, 64), prefills=((1, 16), (2, 33)), trained_length=64, enough=8, repeats=2,
                   small=True)  # fmt: skip


@dataclasses.dataclass
class System:
    """One way to decode.

    build : the model for sequences of at most so many tokens   by_length : whether it depends on them
    grows : whether the state does   steps_differ : whether no step stands for all   at_contexts, prefills : whether these are measured
    counted : whether a step has a roofline here
    """

    name: str
    build: Callable[[int], Any]
    batches: tuple[int, ...]
    by_length: bool = False
    grows: bool = False
    steps_differ: bool = False
    at_contexts: bool = True
    prefills: bool = False
    counted: bool = False
    _built: tuple[int, Any] | None = None

    def model(self, length: int) -> Any:
        """Made once, or for each new length."""
        if self._built is None or (self.by_length and self._built[0] != length):
            self._built = None
            self._built = length, self.build(length)
        return self._built[1]

    def forward(self, model: Any, tokens: Any) -> Any:
        """The pass that keeps no state, up to the logits of the last token, as ``model.prefill`` gives them."""
        from torch.nn.functional import linear

        u = model.embedding(tokens)
        for block in model.blocks:
            u = block(u)
        return linear(model.norm(u[:, -1]), model.embedding.weight)

    def forget(self) -> None:
        self._built = None
