"""Parts of layers that run as one kernel where no gradient is recorded; in training, and off the GPU, as torch has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssmid.kernels.add_norm import add_norm
from ssmid.kernels.compiler import fused
from ssmid.kernels.matrix_vector import fits_one_vector, matrix_vector, normed_matrix_vector


def without_gradient(u: Tensor) -> bool:
    """Whether kernels that have no gradient may take ``u``; what torch compiles, it fuses itself.

    Not in float64, which is there to compare with: torch's own norm is off by 1e-10 there on a GPU, and so must ours be.
    """
    return fused(u) and u.dtype != torch.float64 and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def linear_of(linear: nn.Linear, u: Tensor) -> Tensor:
    """``linear(u)``; of one vector as fast as the matrix can be read."""
    return matrix_vector(linear.weight, u, linear.bias) if _one_vector(u, linear.weight) else linear(u)


def logits_of(embedding: nn.Embedding, u: Tensor) -> Tensor:
    """``u`` times each row of the embedding; of one vector as :func:`linear_of`."""
    weight = embedding.weight
    return matrix_vector(weight, u) if _one_vector(u, weight) else nn.functional.linear(u, weight)


def added_norm(
    norm: nn.LayerNorm, u: Tensor, y: Tensor | None, *, over_u: bool = False, over_y: bool = False
) -> tuple[Tensor, Tensor]:
    """``u + y`` and ``norm(u + y)``; with None for y, u and its norm.

    over_u, over_y : whether the sum may be written over ``u``, and its norm over ``y``, as they are where no gradient is recorded: whoever
    holds these two while blocks run then holds nothing that is not needed
    """
    if y is None:
        return u, norm(u)
    if without_gradient(u):
        return add_norm(u, y, norm.weight, norm.bias, norm.eps, over_u=over_u, over_y=over_y)
    total = added(u, y, over_u=over_u)
    return total, y.copy_(norm(total)) if over_y and _may_be_written(u, y) else norm(total)


def added(u: Tensor, y: Tensor, *, over_u: bool = False) -> Tensor:
    """``u + y``; ``over_u`` as of :func:`added_norm`."""
    return u.add_(y) if over_u and _may_be_written(u, y) else u + y


def _may_be_written(u: Tensor, y: Tensor) -> bool:
    return not torch.is_grad_enabled() and u.dtype == y.dtype


def gelu_of(linear: nn.Linear, u: Tensor) -> Tensor:
    """``gelu(linear(u))`` by the tanh formula; without a gradient as the end of the matrix product."""
    if without_gradient(u) and u.dtype == linear.weight.dtype:
        if _one_vector(u, linear.weight):
            return matrix_vector(linear.weight, u, linear.bias, gelu=True)
        product = torch.ops.aten._addmm_activation(linear.bias, u.flatten(0, -2), linear.weight.t(), use_gelu=True)
        return product.unflatten(0, u.shape[:-1])
    return nn.functional.gelu(linear(u), approximate="tanh")


def added_norm_linear(norm: nn.LayerNorm, linear: nn.Linear, u: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """``u + y`` and ``linear(norm(u + y))``; with None for y, of u alone."""
    if y is not None and linear.bias is not None and _one_vector(u, linear.weight):
        return normed_matrix_vector(linear.weight, u, y, norm.weight, norm.bias, norm.eps, linear.bias)
    total, normed = added_norm(norm, u, y)
    return total, linear_of(linear, normed)


def added_norm_gelu(norm: nn.LayerNorm, linear: nn.Linear, u: Tensor, y: Tensor, *, over_u: bool = False) -> tuple[Tensor, Tensor]:
    """``u + y`` and ``gelu(linear(norm(u + y)))``; ``over_u`` as of :func:`added_norm`."""
    if _one_vector(u, linear.weight):
        return normed_matrix_vector(linear.weight, u, y, norm.weight, norm.bias, norm.eps, linear.bias, gelu=True)
    total, normed = added_norm(norm, u, y, over_u=over_u)
    return total, gelu_of(linear, normed)


def _one_vector(u: Tensor, weight: Tensor) -> bool:
    return without_gradient(u) and fits_one_vector(u, weight)
