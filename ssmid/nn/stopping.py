"""Where sequences end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Stopping:
    """Which of ``batch`` sequences are finished, as tensors that are only ever written in place, so that a CUDA graph can hold them.

    stop : a token; tokens, any of which ends a sequence; or sequences of tokens, each of which ends one when it has been generated whole.
        None ends none   pad : what a finished sequence goes on with; without it the (last) token of the first ``stop``

    ``finished`` ``(batch,)``; ``length`` ``(batch,)``: tokens up to the end, with the one that ends it.
    """

    def __init__(self, stop: Any, pad: int | None, batch: int, vocabulary: int, device: torch.device | str) -> None:
        patterns = _patterns(stop)
        for token in [token for pattern in patterns for token in pattern] + ([] if pad is None else [pad]):
            if token not in range(vocabulary):
                raise ValueError(f"stop, pad: expected tokens from 0 to {vocabulary - 1}, got {token}")
        self.never = not patterns
        self.pad = pad if pad is not None else (patterns[0][-1] if patterns else 0)
        self.finished = torch.zeros(batch, dtype=torch.bool, device=device)
        self.length = torch.zeros(batch, dtype=torch.int64, device=device)
        self._patterns = [torch.tensor(pattern, device=device) for pattern in patterns]
        # No token is -1: nothing matches before as many tokens as a pattern has were generated.
        self._recent = torch.full((batch, max([len(p) for p in patterns], default=1)), -1, dtype=torch.int64, device=device)

    def reset(self) -> None:
        self.finished.zero_()
        self.length.zero_()
        self._recent.fill_(-1)

    def take(self, token: Tensor) -> Tensor:
        """``token`` ``(batch,)``, or the pad where a sequence was finished before it."""
        if self.never:
            self.length.add_(1)
            return token
        token = token.masked_fill(self.finished, self.pad)
        self.length.add_(~self.finished)
        self._recent.copy_(torch.cat([self._recent[:, 1:], token[:, None]], -1))
        for pattern in self._patterns:
            self.finished.logical_or_((self._recent[:, -len(pattern) :] == pattern).all(-1))
        return token


def _patterns(stop: Any) -> list[list[int]]:
    if stop is None:
        return []
    entries = stop.tolist() if hasattr(stop, "tolist") else stop
    entries = list(entries) if isinstance(entries, Sequence) and not isinstance(entries, str | bytes) else [entries]
    for text in (entry for entry in entries if isinstance(entry, str | bytes)):
        raise TypeError(f"stop: expected tokens, got {type(text).__name__}: a tokenizer makes tokens of text")
    patterns = [torch.as_tensor(entry).reshape(-1).tolist() for entry in entries]
    if not all(patterns) or not all(isinstance(token, int) for pattern in patterns for token in pattern):
        raise ValueError(f"stop: expected a token, tokens, or sequences of at least one token, got {stop}")
    return patterns
