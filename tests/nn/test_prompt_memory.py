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
from ssmid.nn import LanguageModel, convert

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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mixer", ["hyena", "multihyena"])
@pytest.mark.parametrize(("batch", "tokens"), TOKENS)
def test_on_a_gpu(mixer: str, batch: int, tokens: int) -> None:
    reading, forward, state = peaks(distilled(mixer).cuda(), batch, tokens, lambda run: peak_bytes(run, "cuda") or 0)
    assert reading - state <= 1.01 * forward + turned(mixer, state)
