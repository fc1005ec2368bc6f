"""Sums of exponentials and of partial fractions with a backward of their own: nothing of the size modes x length is kept.

On a GPU, for results in single precision, the fused kernels of :mod:`ssmid.kernels`; the plain functions beside them otherwise. What
is kernels alone, compilers take as it is.
"""

from __future__ import annotations

from functools import cache
from math import pi
from typing import Any

import torch
from torch import Tensor

from ssmid.kernels import cauchy, vandermonde
from ssmid.kernels.compiler import fused
from ssmid.kernels.diagonal_modes import diagonal_mode_gradients, diagonal_modes
from ssmid.kernels.low_rank_spectrum import low_rank_spectrum, low_rank_spectrum_gradients


def exponential_sums(weights: Tensor, exponents: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Taps ``(channels, length)`` of ``h[t] = Re sum_n weights_n exp(exponents_n t)``, ``(channels, N)`` complex128 each."""
    return _ExponentialSums.apply(weights, exponents, length, dtype)  # pyright: ignore[reportReturnType]


def cauchy_sums(numerators: Tensor, nodes: Tensor, points: Tensor, dtype: torch.dtype) -> Tensor:
    """``(channels, M, K)`` of ``sum_n v_n / (i y - a_n)`` and its conjugate partners; arguments as of the plain function, complex128.

    dtype : the real dtype of the precision of the result
    """
    return _CauchySums.apply(numerators, nodes, points, dtype)  # pyright: ignore[reportReturnType]


def diagonal_taps(C: Tensor, B: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor | None, D: Tensor, length: int) -> Tensor:
    """Taps ``(channels, length)`` of S4D by the hold from its parameters, float32 on a GPU: two launches, and two backwards.

    Differentiable, once; one operator for compilers, as :func:`low_rank_taps` is.
    """
    return _diagonal(C, B, inv_dt, A_real, A_imag, D, length)[0]


@torch.library.custom_op("ssmid::s4d_taps", mutates_args=())
def _diagonal(
    C: Tensor, B: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor | None, D: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """The taps, and the exponents, which the gradient needs."""
    weight, exponent = diagonal_modes(C, B, inv_dt, A_real, A_imag)
    taps = vandermonde.sums_of_prepared(weight, exponent, length)
    taps[:, :1] += D.mT
    return taps, exponent


@torch.library.custom_op("ssmid::s4d_taps_gradient", mutates_args=())
def _diagonal_gradient(
    gradient: Tensor, exponent: Tensor, C: Tensor, B: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """By the parameters in their order, and by D; that by an ``A_imag`` of None is empty."""
    sums = vandermonde.gradient_sums(gradient, exponent)
    by_C, by_B, by_step, by_real, by_imag = diagonal_mode_gradients(sums, C, B, inv_dt, A_real, A_imag)
    return by_C, by_B, by_step, by_real.clone(), C.new_empty(0) if by_imag is None else by_imag.clone(), gradient[:, :1].mT.clone()


@_diagonal.register_fake
def _(C: Tensor, B: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor | None, D: Tensor, length: int) -> tuple[Tensor, Tensor]:
    return C.new_empty((C.shape[1], length)), inv_dt.new_empty((*C.shape[1:3], 2), dtype=torch.float64)


@_diagonal_gradient.register_fake
def _(
    gradient: Tensor, exponent: Tensor, C: Tensor, B: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor | None
) -> tuple[Tensor, ...]:
    found = [x.new_empty(x.shape) for x in (C, B, inv_dt, A_real)]
    return *found, C.new_empty(0 if A_imag is None else A_imag.shape), C.new_empty((1, C.shape[1]))


def _keep_diagonal(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], *inputs[:5])


def _backward_of_diagonal(ctx: Any, gradient: Tensor | None, _exponent: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 7
    *found, by_imag, by_D = _diagonal_gradient(gradient, *ctx.saved_tensors)
    return *found, None if ctx.saved_tensors[-1] is None else by_imag, by_D, None


_diagonal.register_autograd(_backward_of_diagonal, setup_context=_keep_diagonal)


def low_rank_taps(
    C: Tensor, B: Tensor, P: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor, D: Tensor, trained_length: int, length: int
) -> Tensor:
    """Taps ``(channels, length)``, at most the trained length, of S4 from its parameters, float32 on a GPU: three launches each way.

    Differentiable, once; one operator for compilers, which cannot look into kernels that are launched by hand.
    """
    return _low_rank(C, B, P, inv_dt, A_real, A_imag, D, trained_length, length)[0]


@torch.library.custom_op("ssmid::s4_taps", mutates_args=())
def _low_rank(
    C: Tensor, B: Tensor, P: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor, D: Tensor, trained_length: int, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The taps, and modes and factors of the spectrum, which the gradient needs."""
    spectrum, modes, factors = low_rank_spectrum(C, B, P, inv_dt, A_real, A_imag, _points(trained_length, D.device))
    taps = torch.fft.irfft(torch.view_as_complex(spectrum), n=trained_length)[:, :length].contiguous()
    taps[:, :1] += D.mT
    return taps, modes, factors


@torch.library.custom_op("ssmid::s4_taps_gradient", mutates_args=())
def _low_rank_gradient(
    gradient: Tensor, modes: Tensor, factors: Tensor, C: Tensor, B: Tensor, P: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor,
    trained_length: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """By the parameters in their order, and by D."""
    transformed = torch.view_as_real(torch.fft.rfft(gradient, n=trained_length)).contiguous()
    parameters = (C, B, P, inv_dt, A_real, A_imag)
    *found, by_real, by_imag = low_rank_spectrum_gradients(
        transformed, modes, factors, _points(trained_length, C.device), trained_length, parameters
    )
    return *found, by_real.clone(), by_imag.clone(), gradient[:, :1].mT.clone()


@_low_rank.register_fake
def _(
    C: Tensor, B: Tensor, P: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor, D: Tensor, trained_length: int, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    channels, n = C.shape[1:3]
    return C.new_empty((channels, length)), C.new_empty((channels, n, 10)), C.new_empty((channels, trained_length // 2 + 1, 6))


@_low_rank_gradient.register_fake
def _(
    gradient: Tensor, modes: Tensor, factors: Tensor, C: Tensor, B: Tensor, P: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor,
    trained_length: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    return *(x.new_empty(x.shape) for x in (C, B, P, inv_dt, A_real, A_imag)), C.new_empty((1, C.shape[1]))


def _keep_low_rank(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:], *inputs[:6])
    ctx.trained_length = inputs[7]


def _backward_of_low_rank(ctx: Any, gradient: Tensor | None, _modes: None, _factors: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 9
    return *_low_rank_gradient(gradient, *ctx.saved_tensors, ctx.trained_length), None, None


_low_rank.register_autograd(_backward_of_low_rank, setup_context=_keep_low_rank)


@cache
def _points(length: int, device: torch.device) -> Tensor:
    """``2 tan(omega / 2)`` ``(length // 2 + 1, 2)`` in two parts, made once: a CUDA graph may not copy from the host."""
    exact = 2 * torch.tan(torch.arange(length // 2 + 1, dtype=torch.float64) * (pi / length))
    high = exact.float()
    return torch.stack([high, (exact - high).float()], dim=-1).to(device)


class _ExponentialSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, exponents: Tensor, length: int, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(weights, exponents)
        ctx.fused = fused(exponents) and dtype == torch.float32
        sums = vandermonde.fused_exponential_sums if ctx.fused else vandermonde.exponential_sums
        return sums(weights, exponents, length).to(dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weights, exponents = ctx.saved_tensors
        if ctx.fused:
            return *vandermonde.fused_exponential_gradients(gradients[0], weights, exponents), None, None
        return *vandermonde.exponential_gradients(gradients[0].to(weights.real.dtype), weights, exponents), None, None


class _CauchySums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, numerators: Tensor, nodes: Tensor, points: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(numerators, nodes, points)
        ctx.fused = fused(nodes) and dtype == torch.float32
        sums = cauchy.fused_cauchy_sums if ctx.fused else cauchy.cauchy_sums
        return sums(numerators, nodes, points).to(torch.complex128 if dtype == torch.float64 else torch.complex64)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        numerators, nodes, points = ctx.saved_tensors
        found = cauchy.fused_cauchy_gradients if ctx.fused else cauchy.cauchy_gradients
        given = gradients[0] if ctx.fused else gradients[0].to(numerators.dtype)
        by_numerators, by_nodes = found(given, numerators, nodes, points)
        return by_numerators.to(numerators.dtype), by_nodes, None, None
