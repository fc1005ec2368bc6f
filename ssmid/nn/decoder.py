"""Token after token from a language model, with all memory taken at the start.

A :class:`Decoder` owns the state of a batch of sequences and the tensors around it. ``start`` reads the prompts, ``step`` makes one token
of every sequence; on a GPU a step is one CUDA graph, captured once and replayed for every token of every call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ssmid.nn.exact_decoding import ExactDecoding
from ssmid.nn.filter import State, overwrite
from ssmid.nn.prompts import Prompts, prompts_of
from ssmid.nn.sampling import Sampling, choose, keys, uniform
from ssmid.nn.step_graph import captured
from ssmid.nn.stopping import Stopping

TOKENS_AT_ONCE = 2**16
"""Tokens of prompts that are read in one call: as many sequences at a time, so that prompts of large batches take bounded memory."""

STATE_AT_ONCE = 2**32
"""Bytes of state that are made in one call, beside those that are kept: 4 GiB."""

CHECKED_EVERY = 16
"""Steps between two looks at whether all sequences are finished, each of which waits for the GPU."""


class Generative(Protocol):
    """What is asked of a model: :class:`ssmid.nn.LanguageModel`, or any module with these.

    ``initial_state(batch, length)``: of sequences of at most ``length`` tokens, where the state depends on that. ``prefill``: the logits
    ``(batch, vocabulary)`` after the last token, and the state. ``step_``: the same for one token each, with the state in place.
    States are tensors, or dicts of tensors, whose first axis is the batch; tensors without axes belong to all sequences.
    """

    vocabulary: int
    training: bool

    def initial_state(self, batch: int, length: int | None = None) -> State: ...
    def prefill(self, tokens: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, State]: ...
    def step_(self, tokens: Tensor, state: State) -> Tensor: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...


class Decoder:
    """Decodes ``batch`` sequences at a time, call after call, in the same memory.

    model : :class:`ssmid.nn.LanguageModel` whose filters are recurrences   temperature, top_k, top_p : as of :class:`Sampling`
    stop, pad : as of :func:`generate`   length : tokens of prompt and answer together, at most; needed by attention alone, whose state
    grows   graph : whether steps run as a CUDA graph; None where they can: on a GPU, if every step does the same work

    ``state``, ``token`` ``(batch,)`` and ``finished`` ``(batch,)`` are written in place by every step. Copy them to keep them.
    """

    def __init__(
        self,
        model: Generative,
        batch: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Any = None,
        pad: int | None = None,
        length: int | None = None,
        graph: bool | None = None,
    ) -> None:
        if not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch: expected at least 1 sequence, got {batch}")
        device = device_of(model)
        can = device.type == "cuda" and all(getattr(module, "capturable", True) for module in model.modules())
        if graph and not can:
            raise ValueError(f"graph: expected a model on a GPU whose steps all do the same work, got one on {device}")
        self.model, self.batch, self.length = model, batch, length
        self.sampling = Sampling(temperature, top_k, top_p)
        self.stopping = Stopping(stop, pad, batch, model.vocabulary, device)
        try:
            self.grows = _grows(model)
        except ValueError:
            _expect_finite_weights(model)
            raise
        if self.grows and length is None:
            raise ValueError("length: expected the most tokens of a prompt and its answer, as the state of this model has room for so many")
        self.state = model.initial_state(batch, length)
        self.token = torch.zeros(batch, dtype=torch.int64, device=device)
        self.tokens_seen = 0
        exact = (module for module in model.modules() if isinstance(module, ExactDecoding))
        self._exact = min(exact, key=lambda module: module.max_length, default=None)
        self._keys, self._drawn = keys(0, batch, device), torch.zeros(batch, dtype=torch.int64, device=device)
        self._broken = torch.zeros(batch, dtype=torch.bool, device=device)
        self._replay = None
        if can and graph is not False:
            with torch.no_grad(), evaluating(model):
                self._replay = captured(self._advance, device)

    @property
    def finished(self) -> Tensor:
        """``(batch,)``, True where a ``stop`` has come."""
        return self.stopping.finished

    @torch.no_grad()
    def prefill(self, prompts: Prompts, *, prefill_chunk: int | None = None) -> Tensor:
        """Reads prompts into ``state``: logits ``(batch, vocabulary)`` after them, or ``(1, vocabulary)`` after one that is repeated."""
        if prefill_chunk is not None and prefill_chunk < 1:
            raise ValueError(f"prefill_chunk: expected at least 1 token, got {prefill_chunk}")
        sequences, length = prompts.tokens.shape
        if sequences not in (1, self.batch):
            raise ValueError(f"prompts: expected {self.batch} as this decoder has sequences, or one for all, got {sequences}")
        if self.grows:
            self._expect_room(length)
        chunk = min(prefill_chunk or length, length)
        at_once = sequences_at_once(chunk, sum(tensor[:1].nbytes for tensor in _named(self.state).values() if tensor.ndim))
        with evaluating(self.model):
            groups = [slice(first, min(first + at_once, sequences)) for first in range(0, sequences, at_once)]
            logits = [self._read(prompts, rows, chunk) for rows in groups]
        if sequences < self.batch:
            self._place(_sequences(self.state, slice(0, 1)), slice(1, self.batch))
        self.tokens_seen = length
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _read(self, prompts: Prompts, rows: slice, chunk: int) -> Tensor:
        """Logits after the prompts of ``rows``, whose states lie in their places before, between and after the chunks.

        The states of a call are thus gone when the next are made, and those at rest, which where states grow are as large, never are.
        """
        state = self._place(self.model.initial_state(1, self.length), rows) if self.grows else None
        logits = prompts.tokens.new_empty(0)
        for first in range(0, prompts.tokens.shape[1], chunk):
            part = rows, slice(first, first + chunk)
            logits, state = self.model.prefill(prompts.tokens[part], state, None if prompts.mask is None else prompts.mask[part])
            state = self._place(state, rows)
        return logits

    def _place(self, new: State, rows: slice) -> State:
        """Puts the states of some sequences, or of one for all of them, where the steps look for them: what lies there, as views."""
        mine = _sequences(self.state, rows)
        overwrite(mine, new)
        return mine

    @torch.no_grad()
    def start(
        self, prompt: Any, *, seed: int | Sequence[int] | None = None, prefill_chunk: int | None = None, start: int | None = None
    ) -> Tensor:
        """Reads the prompts, and makes the first token ``(batch,)`` of each answer; all as of :func:`generate`."""
        prompts = prompts_of(
            prompt, self.batch, vocabulary=self.model.vocabulary, start=start_token(self.model, start), device=self.token.device
        )
        self._keys.copy_(keys(seed, self.batch))
        self._drawn.zero_()
        self._broken.zero_()
        self.stopping.reset()
        self._choose(self.prefill(prompts, prefill_chunk=prefill_chunk).expand(self.batch, -1))
        return self.token

    @torch.no_grad()
    def step(self) -> Tensor:
        """The next token ``(batch,)`` of each sequence, in ``token``."""
        if self.grows:
            self._expect_room(self.tokens_seen + 1)
        if self._exact is not None:  # a step in a graph cannot look
            self._exact.expect_room(self.tokens_seen + 1)
        self.tokens_seen += 1
        if self._replay is not None:
            self._replay()
        else:
            with evaluating(self.model):
                self._advance()
        return self.token

    def _advance(self) -> None:
        self._choose(self.model.step_(self.token, self.state))

    def _choose(self, logits: Tensor) -> None:
        numbers = None if self.sampling.greedy else uniform(self._keys, self._drawn)
        token, largest = choose(logits, self.sampling, numbers)
        self.token.copy_(self.stopping.take(token))
        self._drawn.add_(1)
        self._broken.logical_or_(~largest.isfinite())

    def _expect_room(self, tokens: int) -> None:
        assert self.length is not None
        if tokens > self.length:
            raise ValueError(f"length: expected at most {self.length} tokens, as this decoder was made for, got {tokens}")

    def generate(self, prompt: Any, n: int, **options: Any) -> Tensor:
        """At most ``n`` tokens after each prompt, ``(batch, tokens)``; ``options`` are those of :meth:`start`."""
        tokens = self.token.new_full((self.batch, n), self.stopping.pad)
        for t, token in enumerate(self._tokens(prompt, n, CHECKED_EVERY, options)):
            tokens[:, t] = token
        return tokens[:, : int(self.stopping.length.max())] if n and not self.stopping.never else tokens

    def stream(self, prompt: Any, n: int | None = None, **options: Any) -> Iterator[Tensor]:
        """The tokens of :meth:`generate` as they come, ``(batch,)`` each; without ``n`` until all sequences have ended."""
        for token in self._tokens(prompt, n, 1, options):
            yield token.clone()

    def _tokens(self, prompt: Any, n: int | None, checked_every: int, options: dict[str, Any]) -> Iterator[Tensor]:
        for t in count() if n is None else range(n):
            token = self.step() if t else self.start(prompt, **options)
            looked_at = (t + 1) % checked_every == 0 or t + 1 == n
            if looked_at:
                self._expect_numbers()
            yield token
            if looked_at and not self.stopping.never and bool(self.finished.all()):
                return

    def _expect_numbers(self) -> None:
        """ValueError where logits were NaN or infinite, with the layer that they come from."""
        if not bool(self._broken.any()):
            return
        _expect_finite_weights(self.model)
        broken = self._broken.nonzero()[:, 0].tolist()
        raise ValueError(
            f"logits: expected finite numbers, got NaN or infinity in sequences {broken[:8]}{' ...' * (len(broken) > 8)} though all "
            "weights are finite: a number on the way is too large for its dtype, as in a state that grows without bound"
        )


def _expect_finite_weights(model: Generative) -> None:
    """ValueError that names the first parameter that is not finite."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ValueError(f"weights: expected finite numbers, got NaN or infinity in {name}")


def device_of(model: Generative) -> torch.device:
    return next(parameter for _, parameter in model.named_parameters()).device


def start_token(model: Generative, start: int | None) -> int | None:
    """``start``, or the token that the model begins with, if it has one."""
    return getattr(model, "start_token", None) if start is None else start


@contextmanager
def evaluating(model: Generative) -> Iterator[None]:
    """``model`` as at inference (without dropout); each module trains on afterwards if it did before."""
    training = [module for module in model.modules() if module.training] if model.training else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _grows(model: Generative) -> bool:
    """Whether states have room for a number of tokens, as those of attention have."""
    short, long = (_named(model.initial_state(0, length)) for length in (1, 2))
    return any(long[name].shape != tensor.shape for name, tensor in short.items())


def sequences_at_once(tokens: int, state: int) -> int:
    """How many prompts are read in one call, of ``tokens`` tokens and ``state`` bytes of state each.

    A 1.3B Transformer with room for 768 tokens makes 144 MiB of state a sequence, Hyena of order 16 makes 5.3 MiB.

    >>> [sequences_at_once(512, 144 * 2**20), sequences_at_once(512, 5_603_328), sequences_at_once(1, 5_603_328)]
    [28, 128, 766]
    """
    return max(1, min(TOKENS_AT_ONCE // tokens, STATE_AT_ONCE // max(state, 1)))


def _sequences(state: State, rows: slice) -> State:
    """Those of ``rows``, as views; what has no axes belongs to all."""
    if isinstance(state, Tensor):
        return state[rows] if state.ndim else state
    return {name: tensor[rows] if tensor.ndim else tensor for name, tensor in state.items()}


def _named(state: State) -> dict[str, Tensor]:
    return {"": state} if isinstance(state, Tensor) else state
