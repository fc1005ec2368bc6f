"""Modules whose numbers are kept in single precision at least, whatever a model is cast to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class KeepsSingle(nn.Module):
    """A module whose floating-point numbers become no narrower than float32.

    A pole of modulus 0.9999 is 1 in bf16. ``model.bfloat16()`` moves such numbers where the others go and leaves them as they are.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def kept(tensor: Tensor) -> Any:
            moved = fn(tensor)
            narrow = moved.dtype in (torch.bfloat16, torch.float16) and tensor.dtype in (torch.float32, torch.float64)
            return tensor.to(moved.device, torch.float32) if narrow else moved

        return super()._apply(kept, recurse)
