"""The language models whose decoding is measured: ours with recurrences, exact ways and attention, and Hugging Face's ``generate``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ssmid.bench.decode_answers import EndToEnd
from ssmid.bench.decode_sizes import CACHED, DISTILLED, FILLED, MULTI, TRANSFORMER, Sizes, System
from ssmid.bench.device import clock_of
from ssmid.bench.peers import have
from ssmid.bench.replay import unless_out_of_memory
from ssmid.bench.timing import Timing

ORDER = 16


def systems(sizes: Sizes, device: str) -> list[System]:
    """Ours, the distilled ones first."""
    from ssmid import nn

    def hyena() -> Any:
        return _language_model("hyena", sizes, device)

    return [
        System(DISTILLED, lambda _: _distilled(hyena()), sizes.batches, prefills=True, counted=True),
        System(
            MULTI, lambda _: _distilled(_language_model("multihyena", sizes, device)), sizes.multi_batches, prefills=True, counted=True
        ),
        System(CACHED, lambda length: _exact(hyena(), nn.CachedConvolution, length), sizes.exact_batches, by_length=True, grows=True),
        System(
            FILLED,
            lambda length: _exact(hyena(), nn.FutureFill, length),
            sizes.filled_batches,
            by_length=True,
            grows=True,
            steps_differ=True,
            at_contexts=False,
        ),
        System(TRANSFORMER, lambda _: _language_model("attention", sizes, device), sizes.attention_batches, grows=True),
    ]


def _language_model(mixer: str, sizes: Sizes, device: str) -> Any:
    """Random weights, bf16; drawn on the device."""
    import torch

    from ssmid import nn

    length = max(sizes.contexts) + sizes.room if mixer == "attention" else sizes.trained_length
    with torch.device(device):
        if sizes.small:
            model = nn.LanguageModel(64, 16, 2, mixer, length=length)
        else:
            model = nn.LanguageModel.from_size("1.3B", mixer, length=length)
    return model.to(device, torch.bfloat16).eval()


def _distilled(model: Any) -> Any:
    """Every filter in ``model`` as a random bank of stable modes: distilling would change numbers, and no time."""
    from ssmid.nn import convert

    return convert(model, random_modes, inplace=True)


def random_modes(system: Any, **options: Any) -> Any:
    """A bank of conjugate pairs of modulus below one, as many filters as ``system`` has, its feedthrough kept."""
    import numpy as np

    from ssmid.systems import Modal

    rng = np.random.default_rng(20261122)
    channels, pairs = system.batch_shape[0], ORDER // 2
    poles = rng.uniform(0.5, 0.999, (channels, pairs)) * np.exp(1j * rng.uniform(0.01, 3.1, (channels, pairs)))
    residues = (rng.standard_normal((channels, pairs)) + 1j * rng.standard_normal((channels, pairs))) / 100
    poles, residues = (np.concatenate([a, a.conj()], axis=-1) for a in (poles, residues))
    return Modal(poles, residues, np.ones(channels))


def _exact(model: Any, how: Any, length: int) -> Any:
    """Inputs are kept in bf16, as they come: the least memory that is still exact."""
    import torch

    from ssmid import nn

    return nn.convert(model, how, inplace=True, max_length=length, dtype=torch.bfloat16)


# ---------------------------------------------------------------- Hugging Face


def hugging_face(sizes: Sizes, device: str) -> EndToEnd | str:
    """The best of a few batches by short answers, then a whole answer at it; why not, where transformers is not installed."""
    if not have("transformers"):
        return "transformers is not installed"
    import torch

    transformers = import_module("transformers")
    widths = (16, 2, 2, 32, 64) if sizes.small else (2048, 24, 16, 8192, 50432)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    config = transformers.GPTNeoXConfig(**dict(zip(names, widths, strict=True)), max_position_embeddings=2048)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = transformers.GPTNeoXForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)

    def answers(batch: int, new: int) -> EndToEnd:
        prompt = torch.randint(widths[-1], (batch, sizes.prompt), device=device)
        mask = torch.ones_like(prompt)

        def run() -> Any:
            with torch.no_grad():
                return model.generate(
                    prompt, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0, eos_token_id=None
                )

        seconds, tokens = clock_of(device)(run)
        made = tokens.shape[1] - sizes.prompt
        return EndToEnd(batch, batch * made, Timing.of([seconds]))

    best: EndToEnd | None = None
    answers(1, 2)
    for batch in sizes.peer_batches:
        tried = unless_out_of_memory(lambda batch=batch: answers(batch, max(2, sizes.new // 16)), device)
        if tried is None:
            break
        best = tried if best is None or tried.rate > best.rate else best
    if best is None:
        return "no batch fits into memory"
    batch = best.batch
    return unless_out_of_memory(lambda: answers(batch, sizes.new), device) or best
