"""The next token from logits: greedy, or drawn from the most probable tokens.

A draw inverts the distribution function at one uniform number. That number is a function of a key of the sequence and of how many were
drawn before, not of a generator shared by the batch: a sequence draws the same numbers alone, in any batch, on any device, and in a
replayed CUDA graph. Everything here is tensor operations without a look at the values, so that it can be captured in one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    temperature : divides the logits; 0 takes the most probable token (the lowest one of several)
    top_k : the number of most probable tokens to draw from (Fan, Lewis, Dauphin 2018, section 5.1), of equal ones the lowest
    top_p : draw from the nucleus, the fewest most probable tokens whose probabilities sum up to at least ``top_p`` (Holtzman et al. 2020,
        eq. 2-3). It comes after the temperature and ``top_k``, of probabilities that sum up to 1 again.

    >>> Sampling(temperature=-1)
    Traceback (most recent call last):
    ...
    ValueError: temperature: expected a finite number >= 0, got -1
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature: expected a finite number >= 0, got {self.temperature}")
        if self.top_k is not None and not (self.top_k >= 1 and self.top_k % 1 == 0):
            raise ValueError(f"top_k: expected a whole number >= 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected a number in (0, 1], got {self.top_p}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Tokens ``(batch,)`` chosen from ``logits`` ``(batch, vocabulary)``, and numbers ``(batch,)`` that are NaN where logits are.

    uniform : ``(batch,)`` numbers in [0, 1), float64, one for each token that is drawn; greedy needs none. Not differentiable.

    >>> logits = torch.tensor([[0.0, 2.0, 1.0]])
    >>> choose(logits, Sampling(temperature=0))[0]
    tensor([1])
    >>> choose(logits, Sampling(), torch.tensor([0.95], dtype=torch.float64))[0]
    tensor([2])
    """
    if sampling.greedy:
        largest, token = logits.max(-1)
        return token, largest
    if uniform is None:
        raise ValueError("uniform: expected a number in [0, 1) for each sequence to draw with, got None")
    kept, tokens, largest = most_probable(logits, sampling)
    probabilities = torch.softmax(kept, -1)
    # In double precision, for float32 sums over a vocabulary of 50,000 are wrong by more than the rare tokens weigh.
    distribution = probabilities.cumsum(-1, dtype=torch.float64)
    drawn = torch.searchsorted(distribution, (uniform * distribution[:, -1])[:, None], right=True).clamp(max=kept.shape[-1] - 1)
    return (drawn if tokens is None else tokens.gather(-1, drawn))[:, 0], largest


def most_probable(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None, Tensor]:
    """Logits over the temperature, less the largest, -inf outside the nucleus; the tokens they belong to; the largest, NaN where one is.

    The first two are ``(batch, top_k)``, the most probable first, or ``(batch, vocabulary)``; tokens are None where all are kept, in order.
    """
    vocabulary, largest = logits.shape[-1], logits.amax(-1)
    # Less the largest first: logits of 1e30 at a temperature of 1e-30 would overflow.
    wide = torch.promote_types(logits.dtype, torch.float32)
    scaled = (logits.to(wide) - largest[:, None]) / sampling.temperature
    k = vocabulary if sampling.top_k is None else min(int(sampling.top_k), vocabulary)
    top_p = 1.0 if sampling.top_p is None else sampling.top_p
    if k == vocabulary and top_p == 1:
        return scaled, None, largest
    leading, tokens = _leading(scaled, k)
    if top_p < 1:
        probabilities = torch.softmax(leading, -1)
        before = probabilities.cumsum(-1, dtype=torch.float64) - probabilities
        before[:, 0] = 0
        leading = leading.masked_fill(before >= top_p, -math.inf)
    return leading, tokens, largest


def _leading(scaled: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest numbers of each row, none above 0, in descending order, of equal ones the first; and where they stand."""
    if scaled.dtype != torch.float32 or k > _FEW:
        leading, tokens = scaled.sort(dim=-1, descending=True, stable=True)
        return leading[:, :k], tokens[:, :k]
    # topk() takes any of equal numbers. Moduli of floats are ordered as their bits are; with the place behind, no two are equal.
    bits = scaled.contiguous().view(torch.int32).long() & 0x7FFFFFFF
    places = torch.arange(scaled.shape[-1], device=scaled.device)
    tokens = (bits << 32 | places).topk(k, -1, largest=False)[0] & 0xFFFFFFFF
    return scaled.gather(-1, tokens), tokens


_FEW = 2048
"""Up to here a selection is faster than sorting the vocabulary."""

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def keys(seed: int | Sequence[int] | None, batch: int, device: torch.device | str | None = None) -> Tensor:
    """A key ``(batch,)`` for each sequence.

    seed : an integer: sequence i draws from stream i of it. One for each sequence: each draws as it would alone with that seed.
        None: a seed from torch's global generator.

    >>> torch.equal(keys([7, 8], 2)[1:], keys(8, 1))
    True
    """
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    if isinstance(seed, Sequence):
        if len(seed) != batch:
            raise ValueError(f"seed: expected one integer, or one for each of {batch} sequences, got {len(seed)}")
        seeds, streams = [_signed(s) for s in seed], torch.zeros(batch, dtype=torch.int64)
    else:
        seeds, streams = [_signed(seed)] * batch, torch.arange(batch)
    mixed = _mixed(torch.tensor(seeds, dtype=torch.int64) + _signed(_GOLDEN))
    return _mixed(mixed + streams * _signed(_SECOND)).to(device)


def uniform(keys: Tensor, drawn: Tensor) -> Tensor:
    """The number in [0, 1), float64, that comes after ``drawn`` others in the stream of each of ``keys``: SplitMix64.

    Steele, Lea, Flood, Fast splittable pseudorandom number generators (2014), with the constants of its reference code; 53 bits.
    """
    return (_mixed(keys + (drawn + 1) * _signed(_GOLDEN)) >> 11 & (1 << 53) - 1).double() * 2.0**-53


def _mixed(z: Tensor) -> Tensor:
    # int64 products wrap as unsigned ones do; its right shift drags the sign along, which the masks take off.
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * _signed(_FIRST)
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * _signed(_SECOND)
    return z ^ (z >> 31 & (1 << 33) - 1)


def _signed(value: int) -> int:
    if value != int(value):
        raise ValueError(f"seed: expected whole numbers, got {value}")
    value = int(value) & (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
