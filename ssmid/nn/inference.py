"""Parts of layers that run as one kernel where no gradient is recorded; in training, and off the GPU, as torch has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssmid.kernels.add_norm import add_norm
from ssmid.kernels.compiler import fused


def without_gradient(u: Tensor) -> bool:
    """Whether kernels that have no gradient may take ``u``; what torch compiles, it fuses itself."""
    return fused(u) and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def added_norm(norm: nn.LayerNorm, u: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """``u + y`` and ``norm(u + y)``; with None for y, u and its norm."""
    if y is None:
        return u, norm(u)
    if without_gradient(u):
        return add_norm(u, y, norm.weight, norm.bias, norm.eps)
    total = u + y
    return total, norm(total)


def gelu_of(linear: nn.Linear, u: Tensor) -> Tensor:
    """``gelu(linear(u))`` by the tanh formula; without a gradient as the end of the matrix product."""
    if without_gradient(u) and u.dtype == linear.weight.dtype:
        product = torch.ops.aten._addmm_activation(linear.bias, u.flatten(0, -2), linear.weight.t(), use_gelu=True)
        return product.unflatten(0, u.shape[:-1])
    return nn.functional.gelu(linear(u), approximate="tanh")
