"""Text from a language model: tokens that follow a prompt, in memory that does not grow with the context."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ssmid.nn import memory
from ssmid.nn.decoder import Decoder, Generative, device_of, sequences_at_once, start_token
from ssmid.nn.filter import Filter
from ssmid.nn.memory import largest_batch_named, memory_per_sequence
from ssmid.nn.prompts import Prompts, prompts_of
from ssmid.nn.sampling import Sampling
from ssmid.systems import ImpulseResponse

_WORTH_CAPTURING = 16
"""Tokens from which on a CUDA graph of the step pays for its making."""


def generate(
    model: Generative,
    prompt: Any,
    n: int,
    *,
    batch: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Any = None,
    pad: int | None = None,
    seed: int | Sequence[int] | None = None,
    start: int | None = None,
    prefill_chunk: int | None = None,
    graph: bool | None = None,
) -> Tensor:
    """At most ``n`` tokens after each prompt: ``(batch, tokens)``, without the prompt; ``(tokens,)`` after one ``(length,)``.

    model : :class:`ssmid.nn.LanguageModel` whose filters are recurrences (:func:`ssmid.nn.convert`), or any module that has its methods
    prompt : integers ``(length,)`` or ``(batch, length)``, or a sequence of prompts of unequal length, of which each is continued as it
        would be alone   batch : repeats one prompt
    temperature, top_k, top_p : as of :class:`ssmid.nn.Sampling`; ``temperature=0`` takes the most probable token
    stop : a token; tokens, any of which ends a sequence; or sequences of tokens, each of which ends one when generated whole. The tokens
        that end it are given; from there on it is filled up with ``pad``, or else the (last) token of the first ``stop``. When all have
        ended there are no further tokens
    seed : draws the same tokens again from the same logits. Of one integer sequence i draws from stream i; given one for each sequence,
        each draws what it draws alone with its seed, in any batch (where logits agree: sums over a batch of another size may round
        otherwise). None: from torch's global generator
    start : the token that an empty prompt begins with, if the model names none as ``start_token``
    prefill_chunk : tokens of the prompt that are read at once, so that any length takes bounded memory; the result is the same, to rounding
    graph : as of :class:`ssmid.nn.Decoder`, which is what repeated calls should use: None captures where it pays

    Keeps one state a sequence (:func:`memory_per_sequence`), and on a GPU replays one CUDA graph for every token. Not differentiable.
    ValueError for tokens outside the vocabulary, empty prompts without ``start``, and NaN weights, which are named;
    torch.OutOfMemoryError says how many sequences would fit. A prompt and answer longer than the taps of a filter that is not distilled
    warns: what lies further back than its taps is not seen.
    """
    settings = _Settings(temperature, top_k, top_p, stop, pad)
    prompts = _checked(model, prompt, n, batch, start)
    if not prompts.batch or not n:
        return prompts.tokens.new_zeros((prompts.batch, n))[0 if prompts.single else slice(None)]
    graph = False if graph is None and n < _WORTH_CAPTURING else graph
    with largest_batch_named(prompts.batch, lambda: _estimate(model, prompts, n, settings, prefill_chunk)):
        tokens = settings.decoder(model, prompts, n, graph).generate(prompts, n, seed=seed, prefill_chunk=prefill_chunk)
    return tokens[0] if prompts.single else tokens


def stream(
    model: Generative,
    prompt: Any,
    n: int | None = None,
    *,
    batch: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Any = None,
    pad: int | None = None,
    seed: int | Sequence[int] | None = None,
    start: int | None = None,
    prefill_chunk: int | None = None,
    graph: bool | None = None,
) -> Iterator[Tensor]:
    """The tokens of :func:`generate` one after another as they come: ``(batch,)`` each, or ``()`` after a prompt ``(length,)``.

    The arguments are those of :func:`generate`; prompts, ``n`` and what tokens are drawn from are checked at once, the others with the
    first token. ``n=None`` goes on until all sequences have ended, without an end where nothing stops them (not with attention, whose state
    has room for so many tokens only).
    """
    settings = _Settings(temperature, top_k, top_p, stop, pad)
    prompts = _checked(model, prompt, n, batch, start)

    def tokens() -> Iterator[Tensor]:
        if not prompts.batch or n == 0:
            return
        with largest_batch_named(prompts.batch, lambda: _estimate(model, prompts, n or 1, settings, prefill_chunk)):
            decoder = settings.decoder(model, prompts, n, False if graph is None and n is not None and n < _WORTH_CAPTURING else graph)
            for token in decoder.stream(prompts, n, seed=seed, prefill_chunk=prefill_chunk):
                yield token[0] if prompts.single else token

    return tokens()


@dataclasses.dataclass(frozen=True)
class _Settings:
    temperature: float
    top_k: int | None
    top_p: float | None
    stop: Any
    pad: int | None

    def __post_init__(self) -> None:
        Sampling(self.temperature, self.top_k, self.top_p)

    def decoder(self, model: Generative, prompts: Prompts, n: int | None, graph: bool | None) -> Decoder:
        length = None if n is None else prompts.tokens.shape[1] + n
        return Decoder(model, prompts.batch, length=length, graph=graph, **dataclasses.asdict(self))


def _checked(model: Generative, prompt: Any, n: int | None, batch: int | None, start: int | None) -> Prompts:
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
        raise ValueError(f"n: expected a whole number of tokens >= 0, got {n!r}")
    start = start_token(model, start)
    prompts = prompts_of(prompt, batch, vocabulary=model.vocabulary, start=start, device=device_of(model))
    _warn_beyond_trained(model, prompts.tokens.shape[1] + (n or 0))
    return prompts


def _warn_beyond_trained(model: Generative, length: int) -> None:
    """Once for all filters whose taps end before ``length``; a transfer function or a state goes on, whatever length it was trained on."""
    short = {
        name: trained
        for name, module in model.named_modules()
        if isinstance(module, Filter)
        and (trained := int(getattr(module, "trained_length", length))) < length
        and isinstance(module.system(), ImpulseResponse)
    }
    if short:
        name, trained = min(short.items(), key=lambda item: item[1])
        warnings.warn(
            f"prompt and answer have {length} tokens, and {len(short)} filters have fewer taps ({name}: {trained}): what lies further back "
            "than these is not seen",
            stacklevel=4,
        )


def _estimate(model: Generative, prompts: Prompts, n: int, settings: _Settings, prefill_chunk: int | None) -> tuple[int, int]:
    """The largest batch of such sequences, and the bytes of each."""
    length = prompts.tokens.shape[1]

    def run(batch: int, read: int) -> None:
        decoder = Decoder(model, batch, length=length + n, graph=False, **dataclasses.asdict(settings))
        if not read:
            decoder.step()
            return
        mask = None if prompts.mask is None else prompts.mask[:batch]
        decoder.generate(Prompts(prompts.tokens[:batch], mask, batch, False), min(n, 2), seed=0, prefill_chunk=prefill_chunk)

    rows = sequences_at_once(min(prefill_chunk or length, length), memory_per_sequence(model, length + n))
    return memory.largest_batch(run, length, rows, memory.CudaMemory(device_of(model)))
