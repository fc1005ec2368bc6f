"""``ssmid bench decode``: language models of 1.3B parameters with random weights, decoding: distilled, exact, and a Transformer.

Weights are bf16, states float32. What is random says nothing about quality, and everything about speed: no step depends on what is in
the weights. Each system is measured over batches, then at its own best one; what is random in the state is said in the tables.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ssmid.bench.decode_answers import EndToEnd, end_to_end
from ssmid.bench.decode_sizes import DISTILLED, HUGGING_FACE, MULTI, TRANSFORMER, Sizes, System
from ssmid.bench.decode_steps import Prefill, Step, prefills, steps_over_batches, steps_over_contexts
from ssmid.bench.decode_systems import hugging_face, systems
from ssmid.bench.device import accelerator, ceilings_of, clock_of
from ssmid.bench.records import OURS, Bar, Case, Progress, Row, result
from ssmid.bench.replay import emptied
from ssmid.bench.timing import limits, machine, measure, versions

GENERATE_TIMES = {HUGGING_FACE: 10.0, TRANSFORMER: 3.0}
"""How many times as many tokens a second as these, each at its own best batch, after short prompts."""
EXACT_TIMES = 1.5
"""And as the best of the exact ways to decode Hyena as it is."""
CONTEXT_TIMES = {4096: 20.0, 8192: 40.0, 65536: 200.0}
"""As our own static-cache Transformer, by context."""
FLAT = 0.95
"""The least that a step at the shortest context may take of one at the longest."""
ROOFLINE_TIMES = 1.5
PREFILL_TIMES = 1.1
"""What reading a prompt into a state may take of the time and of the memory of the forward pass that keeps none."""
PARTS = ("generate", "contexts", "prefill", "huggingface")


@dataclasses.dataclass
class Found:
    """What was measured of each system, by name."""

    batches: dict[str, list[Step]] = dataclasses.field(default_factory=dict)
    ends: dict[str, EndToEnd] = dataclasses.field(default_factory=dict)
    contexts: dict[str, list[Step]] = dataclasses.field(default_factory=dict)
    prefills: dict[str, list[Prefill]] = dataclasses.field(default_factory=dict)


def decoding(
    *, quick: bool = False, progress: Progress = print, device: str = "cpu", only: str | None = None, sizes: Sizes | None = None
) -> dict[str, Any]:
    """All parts, or ``only`` one of :data:`PARTS`. Models are small on a CPU: that shows that it runs.

    Raises ValueError for an unknown part or a device that is not there.
    """
    if only not in (None, *PARTS):
        raise ValueError(f"only: expected one of {', '.join(PARTS)}, got {only!r}")
    facts = machine() | accelerator(device)
    facts["versions"] |= versions("transformers")
    gpu = device.startswith("cuda")
    sizes = sizes or (Sizes.tiny() if not gpu else Sizes.quick() if quick else Sizes())
    progress("limits of the device")
    ceilings = (ceilings_of(device, quick) if gpu else limits(True)) | {"bf16_product_flops_per_second": matrix_rate(device)}
    found = Found()
    for system in systems(sizes, device):
        if only != "huggingface":
            _measured(system, found, sizes, device, only, progress)
    if only in (None, "generate", "huggingface"):
        progress(HUGGING_FACE)
        peer = hugging_face(sizes, device)
        if isinstance(peer, str):
            facts["peers missing"] = {HUGGING_FACE: peer}
        else:
            found.ends[HUGGING_FACE] = peer
    name = "decode" if not gpu else f"decode on {device.split(':')[0]}"
    return result(name, quick, facts, ceilings, cases_of(found, sizes, ceilings), bars_of(found, ceilings) if gpu else [])


def _measured(system: System, found: Found, sizes: Sizes, device: str, only: str | None, progress: Progress) -> None:
    """Adds to ``found`` what is asked for of one system; its model is gone afterwards."""
    name = system.name
    if only in (None, "generate", "contexts"):
        progress(f"{name}: steps")
        found.batches[name] = steps_over_batches(system, sizes, device)
    best = max(found.batches.get(name, ()), key=lambda step: step.rate, default=None)
    if only in (None, "generate") and best is not None:
        progress(f"{name}: prompts and answers")
        end = end_to_end(system, best.batch, sizes, device)
        found.ends |= {} if end is None else {name: end}
    if only in (None, "contexts") and system.at_contexts and best is not None:
        progress(f"{name}: long contexts")
        found.contexts[name] = steps_over_contexts(system, best.batch, sizes, device)
    if only in (None, "prefill") and system.prefills:
        progress(f"{name}: long prompts")
        found.prefills[name] = prefills(system, sizes, device)
    system.forget()
    emptied(device)


def matrix_rate(device: str) -> float:
    """Operations a second of a large bf16 product."""
    import torch

    n = 8192 if device.startswith("cuda") else 512
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    timing = measure({"product": lambda: a @ b}, 10, 2.0, clock_of(device))["product"][0]
    return 2 * n**3 / timing.fastest


# ---------------------------------------------------------------- tables

BATCH, RATE, STEP, STATE, BYTES = "batch", "tokens/s", "ms a step", "state, MiB a sequence", "of the bytes"
_OVER_BATCH = "time: of one token of one sequence, a step over its batch"


def cases_of(found: Found, sizes: Sizes, ceilings: dict[str, float]) -> list[Case]:
    cases = [_at_batch(found, batch) for batch in sorted({step.batch for steps in found.batches.values() for step in steps})]
    best = {name: max(steps, key=lambda step: step.rate) for name, steps in found.batches.items() if steps}
    task = f"prompt {sizes.prompt}, {sizes.new} generated"
    if best:
        cases.append(Case("each at its best batch", f"decoding alone after {sizes.middle} tokens", _step_rows(best), _OVER_BATCH))
    if found.ends:
        rows = tuple(_end_row(name, end) for name, end in _ours_first(found.ends).items())
        cases.append(Case("each at its best batch", f"{task}, the prompt's reading included", rows, _OVER_BATCH))
    for context in sizes.contexts:
        at = {name: step for name, steps in found.contexts.items() for step in steps if step.context == context}
        if at:
            cases.append(Case("long contexts", f"context {context}, states drawn at random", _step_rows(at), _OVER_BATCH))
    for name, steps in found.batches.items():
        cases += [_roofline(name, step, ceilings) for step in steps if step.roofline is not None]
    for name, many in found.prefills.items():
        cases += [_prefill(name, one) for one in many]
    return cases


def _ours_first(by_name: dict[str, Any]) -> dict[str, Any]:
    return {name: by_name[name] for name in sorted(by_name, key=lambda name: name != DISTILLED)}


def _tool(name: str) -> str:
    return OURS if name == DISTILLED else name


def _at_batch(found: Found, batch: int) -> Case:
    """All that fit, in the time of a whole step."""
    at = {name: step for name, steps in found.batches.items() for step in steps if step.batch == batch}
    rows = (Row(_tool(name), step.timing, columns=_columns(step)) for name, step in _ours_first(at).items())
    return Case("a step, by batch", f"batch {batch}", tuple(rows), f"{OURS}: {DISTILLED}")


def _step_rows(steps: dict[str, Step]) -> tuple[Row, ...]:
    return tuple(Row(_tool(name), step.timing.scaled(1 / step.batch), columns=_columns(step)) for name, step in _ours_first(steps).items())


def _columns(step: Step) -> dict[str, float | str]:
    return {BATCH: step.batch, RATE: step.rate, STEP: 1e3 * step.timing.seconds, STATE: step.state_bytes / 2**20}


def _end_row(name: str, end: EndToEnd) -> Row:
    reading = {} if end.reading is None else {"of it reading": f"{end.reading:.2f} s"}
    return Row(_tool(name), end.timing.scaled(1 / end.tokens), columns={BATCH: end.batch, RATE: end.rate} | reading)


def _roofline(name: str, step: Step, ceilings: dict[str, float]) -> Case:
    """One row: a step beside its roofline; beside all its bytes alone in a column."""
    assert step.roofline is not None
    moving = (step.roofline.weights + step.roofline.state) / ceilings["copy_bytes_per_second"]
    row = Row(_tool(name), step.timing, columns={BYTES: f"{step.timing.seconds / moving:.3g} x"})
    label = f"{name}, batch {step.batch}: {step.roofline.weights / 1e9:.3g} GB of weights, {step.roofline.state / 1e9:.3g} GB of states"
    why = "weights read once, or two operations a weight and sequence, whichever is slower, and then states read and written once"
    return Case("a step and its roofline", label, (row,), "", floor=sum(step.roofline.seconds(ceilings)), floor_kind=why)


def _prefill(name: str, one: Prefill) -> Case:
    """Reading into a state beside the pass without."""
    rows = (Row(OURS, one.timing, columns=_memory(one.bytes)), Row("forward, no state", one.plain, columns=_memory(one.plain_bytes)))
    return Case("reading a prompt", f"{name}, {one.batch} x {one.tokens} tokens", rows, "")


def _memory(size: int | None) -> dict[str, float | str]:
    return {} if size is None else {"memory, MiB": size / 2**20}


# ---------------------------------------------------------------- bars


def bars_of(found: Found, ceilings: dict[str, float]) -> list[Bar]:
    """Of the distilled Hyena and MultiHyena, each at its own best batch."""
    return [*_generate_bars(found), *_context_bars(found), *_roofline_bars(found, ceilings), *_prefill_bars(found)]


def _generate_bars(found: Found) -> list[Bar]:
    alone = {name: max(step.rate for step in steps) for name, steps in found.batches.items() if steps}
    ends = {name: end.rate for name, end in found.ends.items()}
    bars = []
    for what, rates in (("decoding alone", alone), ("prompt and answer", ends)):
        exact = {name: rate for name, rate in rates.items() if name.startswith("Hyena, exact")}
        required = {name: times for name, times in GENERATE_TIMES.items() if name in rates}
        required |= dict.fromkeys([max(exact, key=lambda name: exact[name])] if exact else [], EXACT_TIMES)
        for ours in (DISTILLED, MULTI):
            if ours in rates:
                bars += [Bar(f"{what}: {ours}", other, times, rates[ours] / rates[other], None) for other, times in required.items()]
    return bars


def _context_bars(found: Found) -> list[Bar]:
    rates = {name: {step.context: step for step in steps} for name, steps in found.contexts.items()}
    bars = []
    for ours in (DISTILLED, MULTI):
        mine = rates.get(ours, {})
        for context, step in mine.items():
            if context in CONTEXT_TIMES and context in rates.get(TRANSFORMER, {}):
                reached = step.rate / rates[TRANSFORMER][context].rate
                bars.append(Bar(f"context {context}: {ours}", TRANSFORMER, CONTEXT_TIMES[context], reached, None))
        if len(mine) > 1:
            first, last = mine[min(mine)], mine[max(mine)]
            flat, same = first.timing.seconds / last.timing.seconds, first.state_bytes == last.state_bytes
            bars.append(Bar(f"flat in the context: {ours}", f"a step at {first.context} tokens", FLAT, flat, same))
    return bars


def _roofline_bars(found: Found, ceilings: dict[str, float]) -> list[Bar]:
    bars = []
    for name, steps in found.batches.items():
        for step in steps:
            if step.roofline is not None:
                reached = ROOFLINE_TIMES * sum(step.roofline.seconds(ceilings)) / step.timing.seconds
                bars.append(Bar(f"a step: {name}, batch {step.batch}", f"{ROOFLINE_TIMES} times its roofline", 1.0, reached, None))
    return bars


def _prefill_bars(found: Found) -> list[Bar]:
    bars = []
    for name, many in found.prefills.items():
        for one in many:
            where = f"reading {one.batch} x {one.tokens} tokens: {name}"
            time = PREFILL_TIMES * one.plain.seconds / one.timing.seconds
            bars.append(Bar(where, f"{PREFILL_TIMES} times the forward pass", 1.0, time, None))
            if one.bytes is not None and one.plain_bytes is not None:
                memory = PREFILL_TIMES * one.plain_bytes / one.bytes
                bars.append(Bar(where, f"{PREFILL_TIMES} times its memory", 1.0, memory, None))
    return bars


