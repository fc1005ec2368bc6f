"""Whole answers of a language model: prompts read and tokens generated, end to end or composed of a few steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ssmid.bench.decode_sizes import Sizes, System
from ssmid.bench.decode_steps import settle
from ssmid.bench.device import clock_of
from ssmid.bench.replay import unless_out_of_memory
from ssmid.bench.timing import Timing

_TRIED = 16
"""Steps that say how long all of them would take; and of which a composed time is made."""


@dataclasses.dataclass(frozen=True)
class EndToEnd:
    """Prompts read and ``tokens`` generated in all; ``reading``: seconds of the first of it.

    composed_of : of how many steps the time of all is made; None where all were made
    """

    batch: int
    tokens: int
    timing: Timing
    reading: float | None = None
    composed_of: int | None = None

    @property
    def rate(self) -> float:
        return self.tokens / self.timing.seconds


def end_to_end(system: System, batch: int, sizes: Sizes, device: str) -> EndToEnd | None:
    """Whole answers to prompts at ``batch``, or at half of it where reading the prompts takes too much memory besides."""
    model = system.model(sizes.length)

    def measured() -> EndToEnd:
        warm_up(model, batch, sizes.prompt, device, length=sizes.length)
        return answered(model, batch, sizes.prompt, sizes.new, device, length=sizes.length)

    found = unless_out_of_memory(measured, device)
    return found if found is not None or batch == 1 else end_to_end(system, batch // 2, sizes, device)


def warm_up(model: Any, batch: int, prompt: int, device: str, *, length: int) -> None:
    """Kernels are compiled, and products chosen, at their first call of each size."""
    import torch

    from ssmid.nn import Decoder

    decoder = Decoder(model, batch, length=length, temperature=0, graph=False)
    decoder.start(torch.zeros((batch, prompt), dtype=torch.int64, device=device))
    decoder.step()


def answered(
    model: Any, batch: int, prompt: int, new: int, device: str, *, length: int | None = None, patience: float = math.inf
) -> EndToEnd:
    """``new`` tokens behind each of ``batch`` random prompts of ``prompt`` tokens, from the first token read to the last one made.

    length : what there is room for, by default prompt and answer
    patience : seconds; where all steps would take longer, the reading is measured, and of the steps 16 behind the prompt and half of the
        answer: those of recurrences and of static caches are all alike, and those of cached convolutions take longer in proportion to
        what they look back on
    """
    import torch

    from ssmid.nn import Decoder

    clock = clock_of(device)
    decoder = Decoder(model, batch, length=length or prompt + new, temperature=0)
    tokens = torch.randint(model.vocabulary, (batch, prompt), device=device)
    reading, _ = clock(lambda: decoder.start(tokens, seed=0))

    def steps(count: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(count):
                decoder.step()

        return run

    left, begun = new - 1, 0.0
    if math.isfinite(patience) and left > 2 * _TRIED:
        begun, left = clock(steps(_TRIED))[0], left - _TRIED
        if begun / _TRIED * left > patience:
            settle(decoder, prompt + new // 2)
            step = clock(steps(_TRIED))[0] / _TRIED
            return EndToEnd(batch, batch * new, Timing.of([reading + (new - 1) * step]), reading, _TRIED)
    return EndToEnd(batch, batch * new, Timing.of([reading + begun + clock(steps(left))[0]]), reading)
