"""Modules whose numbers are kept in single precision at least, whatever a model is cast to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class KeepsSingle(nn.Module):
    """A module whose floating-point numbers become no narrower than ``narrowest``, float32, and whose complex numbers stay complex.

    A pole of modulus 0.9999 is 1 in bf16. ``model.bfloat16()``, ``.half()`` and ``.to(...)`` move such numbers where the others go, and
    leave them in float32, or in complex64.
    """

    narrowest: torch.dtype = torch.float32

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def kept(tensor: Tensor) -> Tensor:
            if not (tensor.is_floating_point() or tensor.is_complex()):
                return fn(tensor)
            real = tensor.dtype.to_real() if tensor.is_complex() else tensor.dtype
            trial = fn(torch.empty(0, dtype=real, device=tensor.device))
            if trial.dtype == tensor.dtype:
                return fn(tensor)
            wanted = max(trial.dtype, min(real, self.narrowest, key=_bits), key=_bits)
            return tensor.to(trial.device, wanted.to_complex() if tensor.is_complex() else wanted)

        return super()._apply(kept, recurse)


def _bits(dtype: torch.dtype) -> int:
    return torch.finfo(dtype).bits
