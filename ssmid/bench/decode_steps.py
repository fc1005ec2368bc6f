"""What is timed of a language model that decodes: its steps, and the reading of long prompts."""

from __future__ import annotations

import dataclasses
from typing import Any

from ssmid.bench.decode_sizes import Sizes, System
from ssmid.bench.device import clock_of
from ssmid.bench.replay import emptied, peak_bytes, unless_out_of_memory
from ssmid.bench.timing import Timing, measure

_TOGETHER = 4
"""Steps between two looks at the clock."""
_WORTH = 1.03
"""A batch of twice the size is tried while the last one brought that many times as many tokens."""

_PATIENCE = 10.0


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Bytes of weights that a step reads, of states that it reads and writes, and operations of its products.

    The least time of a step is that of its products (their bytes or their operations, whichever takes longer) and then of moving the
    states: what a state gives depends on a product before it, and goes into one after it.
    """

    weights: float
    state: float
    operations: float

    def seconds(self, ceilings: dict[str, float]) -> tuple[float, float]:
        """Of the products, and of the states."""
        speed = ceilings["copy_bytes_per_second"]
        return max(self.weights / speed, self.operations / ceilings["bf16_product_flops_per_second"]), self.state / speed


@dataclasses.dataclass(frozen=True)
class Step:
    """One token of each of ``batch`` sequences behind ``context`` tokens."""

    batch: int
    context: int
    timing: Timing
    state_bytes: int
    roofline: Roofline | None = None

    @property
    def rate(self) -> float:
        """Tokens a second of all sequences together."""
        return self.batch / self.timing.seconds


@dataclasses.dataclass(frozen=True)
class Prefill:
    """Reading ``batch`` prompts of ``tokens``, and the pass over them that keeps no state; bytes at the peak where a GPU counts them."""

    batch: int
    tokens: int
    timing: Timing
    plain: Timing
    bytes: int | None
    plain_bytes: int | None


def steps_over_batches(system: System, sizes: Sizes, device: str) -> list[Step]:
    """Every batch that fits, up to where more sequences bring no more tokens."""
    found: list[Step] = []
    for batch in system.batches or sizes.batches:
        step = step_at(system, batch, sizes.middle, sizes, device, sizes.length)
        if step is None:
            break
        found.append(step)
        if len(found) > 1 and batch >= sizes.enough and found[-1].rate < _WORTH * found[-2].rate:
            break
    return found


def steps_over_contexts(system: System, batch: int, sizes: Sizes, device: str) -> list[Step]:
    """At each long context: recurrences at ``batch``; what grows, at the best of the two largest powers of two that fit."""
    found = []
    for context in sizes.contexts:
        if not system.grows:
            tried = [step_at(system, batch, context, sizes, device)]
        else:
            largest = largest_that_fits(system, context + sizes.room, device, batch)
            tried = [step_at(system, size, context, sizes, device) for size in (largest, largest // 2) if size]
        found += sorted((step for step in tried if step is not None), key=lambda step: -step.rate)[:1]
    return found


def step_at(system: System, batch: int, context: int, sizes: Sizes, device: str, length: int | None = None) -> Step | None:
    """None where the memory does not hold it. ``length``: what there is room for, by default the context and the steps that are timed."""
    from ssmid.nn import Decoder, memory_per_sequence

    length = length or context + sizes.room
    model = system.model(length)

    def measured() -> Step:
        decoder = Decoder(model, batch, length=length, temperature=0)
        settle(decoder, context)
        timing = _timed_steps(decoder, system.steps_differ, sizes, device)
        size = memory_per_sequence(model, length)
        return Step(batch, context, timing, size, roofline(model, batch, size) if system.counted else None)

    return unless_out_of_memory(measured, device)


def _timed_steps(decoder: Any, differ: bool, sizes: Sizes, device: str) -> Timing:
    """Where steps differ (tiles of many sizes), the mean over the answer to a prompt; else medians over a few."""
    together = sizes.new if differ else _TOGETHER

    def run() -> None:
        for _ in range(together):
            decoder.step()

    if differ:
        for _ in range(_TOGETHER):
            decoder.step()
        settle(decoder, sizes.prompt)
        return Timing.of([clock_of(device)(run)[0]]).scaled(1 / together)
    return measure({"steps": run}, sizes.repeats, 2.0, clock_of(device))["steps"][0].scaled(1 / together)


def settle(decoder: Any, context: int) -> None:
    """As behind ``context`` tokens: numbers of the state drawn at random (small, and the same for any context), places set."""
    import torch

    state = decoder.state
    for tensor in [state] if torch.is_tensor(state) else state.values():
        if tensor.is_complex():
            torch.view_as_real(tensor).normal_(0, 0.01)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.01)
        elif tensor.dtype == torch.bool:  # what a cache holds
            tensor.fill_(False)
            tensor[..., :context] = True
        else:
            tensor.fill_(context)
    decoder.tokens_seen = context


def prefills(system: System, sizes: Sizes, device: str) -> list[Prefill]:
    """Those of ``sizes.prefills``, as far as a pass is not expected to take longer than ten seconds."""
    import torch

    found: list[Prefill] = []
    for batch, tokens in sizes.prefills:
        if found and found[-1].plain.seconds * batch * tokens / (found[-1].batch * found[-1].tokens) > _PATIENCE:
            break
        model = system.model(tokens)
        prompt = torch.randint(model.vocabulary, (batch, tokens), device=device)

        def reading(model: Any = model, prompt: Any = prompt) -> Any:
            with torch.no_grad():
                return model.prefill(prompt)

        def plain(model: Any = model, prompt: Any = prompt) -> Any:
            with torch.no_grad():
                return system.forward(model, prompt)

        def both(reading: Any = reading, plain: Any = plain, size: tuple[int, int] = (batch, tokens)) -> Prefill:
            reading()
            plain()
            peaks = peak_bytes(reading, device), peak_bytes(plain, device)
            timed = measure({"reading": reading, "plain": plain}, sizes.repeats, 1.5, clock_of(device))
            return Prefill(*size, timed["reading"][0], timed["plain"][0], *peaks)

        one = unless_out_of_memory(both, device)
        found += [] if one is None else [one]
    return found


# ---------------------------------------------------------------- memory


def largest_that_fits(system: System, length: int, device: str, otherwise: int) -> int:
    """The largest power of two whose states fit into nine tenths of the free memory; ``otherwise`` where there is no GPU."""
    import torch

    from ssmid.nn import memory_per_sequence

    if not device.startswith("cuda"):
        return otherwise
    emptied(device)
    room = 0.9 * torch.cuda.mem_get_info(device)[0]
    fits = int(room // memory_per_sequence(system.model(length), length))
    return 1 << (fits.bit_length() - 1) if fits else 0


# ---------------------------------------------------------------- bytes and operations


def roofline(model: Any, batch: int, state_bytes: int) -> Roofline:
    """Of an embedding that is no head too only the rows of the tokens are read; products take two operations a weight."""
    from torch import nn

    weights = {tensor.data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}
    heads = {module.weight.data_ptr() for module in model.modules() if isinstance(module, nn.Linear)}
    looked_up = [module.weight for module in model.modules() if isinstance(module, nn.Embedding) and module.weight.data_ptr() not in heads]
    for tensor in () if system_ties(model) else looked_up:
        weights.pop(tensor.data_ptr(), None)
    read = sum(tensor.nbytes for tensor in weights.values())
    products = sum(tensor.numel() for tensor in weights.values() if tensor.ndim == 2 and not tensor.is_complex())
    return Roofline(read, 2.0 * state_bytes * batch, 2.0 * products * batch)


def system_ties(model: Any) -> bool:
    """Whether the embedding is the head: a model without a linear layer of as many outputs as it has tokens."""
    from torch import nn

    return not any(isinstance(module, nn.Linear) and module.out_features >= model.vocabulary for module in model.modules())
