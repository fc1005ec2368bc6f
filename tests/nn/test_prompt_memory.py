"""Reading a prompt into a state holds no more than the pass that keeps none, and the state: bytes counted as they come and go.

Beside the layers as they run here, the way of a GPU is counted without one: with kernels that do nothing, whose results are any numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ssmid.bench.decode_sizes import System
from ssmid.bench.decode_systems import random_modes
from ssmid.bench.replay import peak_bytes
from ssmid.kernels import fft_convolution
from ssmid.nn import CachedConvolution, Decoder, FutureFill, LanguageModel, convert, generate, memory_per_sequence
from ssmid.nn.prompts import prompts_of

WIDTH, DEPTH, TOKENS = 64, 3, [(1, 2048), (16, 128), (2, 1001)]


def most_bytes(run: Callable[[], Any]) -> int:
    """The most bytes that ``run`` holds at a time, with what it returns."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = run()
    assert profiler.profiler is not None
    # the public list leaves out what comes and goes within an operator
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    del kept
    return most


def peaks(model: LanguageModel, batch: int, tokens: int, count: Callable[[Callable[[], Any]], int]) -> tuple[int, int, int]:
    """Of reading, of the forward pass, and of the state that one leaves and the other does not."""
    prompt = torch.randint(model.vocabulary, (batch, tokens), device=model.norm.weight.device)
    plain = System("", lambda _: model, ())
    with torch.no_grad():
        state = sum(x.numel() * x.element_size() for x in model.prefill(prompt)[1].values())
        plain.forward(model, prompt)
        return count(lambda: model.prefill(prompt)), count(lambda: plain.forward(model, prompt)), state


def distilled(mixer: str) -> LanguageModel:
    options = {"heads": WIDTH // 4} if mixer == "multihyena" else {}
    model = LanguageModel(64, WIDTH, DEPTH, mixer, length=64, **options)
    return convert(model.bfloat16().eval(), random_modes, inplace=True)


def turned(mixer: str, state: int) -> int:
    """MultiHyena has the state of a block twice for a moment, as its reduction leaves it and with heads first."""
    return state // DEPTH if mixer == "multihyena" else 0


@pytest.fixture
def silent_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes the way of a GPU, and kernels are not run."""
    jit = pytest.importorskip("triton.runtime.jit")

    class Silent:
        def __getitem__(self, grid: Any) -> Callable[..., None]:
            return lambda *arguments, **options: None

    for name, module in list(sys.modules.items()):
        if name.startswith("ssmid."):
            for key, value in list(vars(module).items()):
                if isinstance(value, jit.JITFunction):
                    monkeypatch.setattr(module, key, Silent())
                elif key == "fused":
                    monkeypatch.setattr(module, key, lambda *_: True)
    facts = {"can_compile": True, "has_clusters": True, "multiprocessors": 132, "shared_memory": 232_448, "launch": None}
    for key, value in facts.items():
        monkeypatch.setattr(fft_convolution, key, lambda *_, value=value, **__: value)


@pytest.mark.parametrize("mixer", ["hyena", "multihyena"])
@pytest.mark.parametrize(("batch", "tokens"), TOKENS)
def test_on_the_way_of_a_gpu(mixer: str, batch: int, tokens: int, silent_kernels: None) -> None:
    reading, forward, state = peaks(distilled(mixer), batch, tokens, most_bytes)
    assert reading - state <= 1.01 * forward + turned(mixer, state)


@pytest.mark.parametrize("mixer", ["hyena", "multihyena", "rtf", "h3"])
def test_in_array_operations(mixer: str) -> None:
    reading, forward, state = peaks(distilled(mixer), 2, 1001, most_bytes)
    assert reading - state <= 1.01 * forward


ROOM = 192
DECODED: dict[str, Callable[[], LanguageModel]] = {
    "attention": lambda: LanguageModel(64, WIDTH, DEPTH, "attention", heads=4, length=ROOM).bfloat16().eval(),
    "cached": lambda: exact(CachedConvolution),
    "FutureFill": lambda: exact(FutureFill),
    "Hyena": lambda: distilled("hyena"),
    "MultiHyena": lambda: distilled("multihyena"),
}


def exact(how: Any) -> LanguageModel:
    model = LanguageModel(64, WIDTH, DEPTH, "hyena", length=64).bfloat16().eval()
    return convert(model, how, inplace=True, max_length=ROOM, dtype=torch.bfloat16)


@pytest.mark.parametrize("tokens", [128, 4])
@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("kind", DECODED)
def test_a_large_batch_takes_no_more_than_a_few_of_its_sequences(
    kind: str, pieces: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the states that are kept: what one call takes that reads a few prompts behind other tokens, and the logits of all."""
    model, batch, few, chunk = DECODED[kind](), 32, 4, tokens // pieces
    monkeypatch.setattr("ssmid.nn.decoder.STATE_AT_ONCE", few * memory_per_sequence(model, ROOM) + 1)
    decoder, prompts = Decoder(model, batch, length=ROOM), prompts_of(torch.randint(64, (batch, tokens)), vocabulary=64)
    first = prompts.tokens[:few]
    with torch.no_grad():
        _, begun = model.prefill(first[:, : tokens // 2], model.initial_state(few, ROOM))
        one_call = most_bytes(lambda: model.prefill(first[:, :chunk], begun))
    logits = decoder.prefill(prompts, prefill_chunk=chunk)
    assert most_bytes(lambda: decoder.prefill(prompts, prefill_chunk=chunk)) <= 1.05 * one_call + logits.nbytes


@pytest.mark.parametrize("given", ["many", "ragged", "one"])
def test_the_batch_that_is_said_to_fit_does(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, room = LanguageModel(64, WIDTH, DEPTH, "attention", heads=4, length=128).eval(), 64, 128
    monkeypatch.setattr("ssmid.nn.decoder.STATE_AT_ONCE", 4 * memory_per_sequence(model, room) + 1)
    rows = [[1] * (tokens - i % 2 * (given == "ragged")) for i in range(64)]

    def run(batch: int) -> Any:
        prompt, options = (rows[0], {"batch": batch}) if given == "one" else (rows[:batch], {})
        return generate(model, prompt, room - tokens, **options)

    class Counted:
        def __init__(self, device: torch.device) -> None:
            pass

        def available(self) -> int:
            return memory

        def peak(self, run: Callable[[], object]) -> int:
            return most_bytes(run)

    def fails(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    memory = most_bytes(lambda: run(48))
    with monkeypatch.context() as broken:
        broken.setattr("ssmid.nn.memory.CudaMemory", Counted)
        broken.setattr("ssmid.nn.generation._Settings.decoder", fails)
        with pytest.raises(torch.OutOfMemoryError, match=r"at most about \d+ sequences") as error:
            run(64)
    named = int(str(error.value).split("about ")[1].split()[0])
    assert 0.9 * 48 <= named <= 48
    assert most_bytes(lambda: run(named)) <= memory


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mixer", ["hyena", "multihyena"])
@pytest.mark.parametrize(("batch", "tokens"), TOKENS)
def test_on_a_gpu(mixer: str, batch: int, tokens: int) -> None:
    reading, forward, state = peaks(distilled(mixer).cuda(), batch, tokens, lambda run: peak_bytes(run, "cuda") or 0)
    assert reading - state <= 1.01 * forward + turned(mixer, state)
