"""Taps of rational transfer functions, and their gradients, as one operator that compilers and CUDA graphs take whole.

Nothing is kept for the backward pass but the coefficients: the spectrum is computed again, which is one FFT of a few megabytes and saves
its memory. The mathematics is :func:`ssmid.analysis.rational_kernel.rational_kernel` and its gradient; on a GPU, in float32, a fused
kernel (:mod:`ssmid.kernels.rational_taps`) takes the lengths that fit into the memory of a processor.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from ssmid.analysis.rational_kernel import rational_kernel, rational_kernel_gradient
from ssmid.kernels import rational_taps as fused
from ssmid.kernels.cuda import CannotCompile
from ssmid.kernels.rational_taps import fused_rational_taps


def rational_taps(numerator: Tensor, denominator: Tensor, feedthrough: Tensor, length: int) -> Tensor:
    """The periodic kernels ``(channels, length)`` of ``h0 + b(1/z) / (1 + a(1/z))``, tap 0 the feedthrough.

    numerator : ``(channels, n)``   denominator : ``(sets, n)``, the sets dividing the channels, each shared by neighbours
    feedthrough : ``(channels,)``; all of one dtype, float64 or float32

    Differentiable, once.
    """
    return _taps(numerator, denominator, feedthrough, length)


@torch.library.custom_op("ssmid::rational_taps", mutates_args=())
def _taps(numerator: Tensor, denominator: Tensor, feedthrough: Tensor, length: int) -> Tensor:
    if fused_rational_taps(numerator, denominator, length):
        with suppress(CannotCompile):
            return fused.rational_taps(numerator, denominator, feedthrough, length)
    taps = rational_kernel(_by_set(numerator, denominator), denominator[:, None], length, _by_set(feedthrough, denominator))
    return taps.reshape(numerator.shape[0], length)


@_taps.register_fake
def _(numerator: Tensor, denominator: Tensor, feedthrough: Tensor, length: int) -> Tensor:
    return numerator.new_empty(numerator.shape[0], length)


@torch.library.custom_op("ssmid::rational_taps_gradient", mutates_args=())
def _gradient(numerator: Tensor, denominator: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    length = gradient.shape[-1]
    if fused_rational_taps(numerator, denominator, length):
        with suppress(CannotCompile):
            return fused.rational_taps_gradient(numerator, denominator, gradient)
    b, a = rational_kernel_gradient(_by_set(numerator, denominator), denominator[:, None], length, _by_set(gradient, denominator))
    return b.reshape(numerator.shape).contiguous(), a.reshape(denominator.shape).contiguous(), gradient[:, 0].clone()


@_gradient.register_fake
def _(numerator: Tensor, denominator: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return numerator.new_empty(numerator.shape), denominator.new_empty(denominator.shape), numerator.new_empty(numerator.shape[0])


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    numerator, denominator = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    return *_gradient(numerator, denominator, gradient), None


_taps.register_autograd(_backward, setup_context=_keep)


def _by_set(array: Tensor, denominator: Tensor) -> Tensor:
    """``(sets, channels / sets, ...)``"""
    sets = denominator.shape[0]
    return array.reshape(sets, array.shape[0] // sets, *array.shape[1:])
