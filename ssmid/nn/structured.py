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


@torch.compiler.disable
def diagonal_taps(C: Tensor, B: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor | None, D: Tensor, length: int) -> Tensor:
    """Taps ``(channels, length)`` of S4D by the hold from its parameters, float32 on a GPU: two launches, and two backwards."""
    return _DiagonalTaps.apply(C, B, inv_dt, A_real, A_imag, D, length)  # pyright: ignore[reportReturnType]


class _DiagonalTaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, C: Tensor, B: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Any, D: Tensor, length: int) -> Tensor:
        weight, exponent = diagonal_modes(C, B, inv_dt, A_real, A_imag)
        ctx.save_for_backward(C, B, inv_dt, A_real, A_imag, exponent)
        taps = vandermonde.sums_of_prepared(weight, exponent, length)
        taps[:, :1] += D.mT
        return taps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *parameters, exponent = ctx.saved_tensors
        sums = vandermonde.gradient_sums(gradients[0], exponent)
        return *diagonal_mode_gradients(sums, *parameters), gradients[0][:, :1].mT, None


@torch.compiler.disable
def low_rank_taps(
    C: Tensor, B: Tensor, P: Tensor, inv_dt: Tensor, A_real: Tensor, A_imag: Tensor, D: Tensor, trained_length: int, length: int
) -> Tensor:
    """Taps ``(channels, length)``, at most the trained length, of S4 from its parameters, float32 on a GPU: three launches each way."""
    return _LowRankTaps.apply(C, B, P, inv_dt, A_real, A_imag, D, trained_length, length)  # pyright: ignore[reportReturnType]


class _LowRankTaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        *parameters, D, trained_length, length = given
        points = _points(trained_length, D.device)
        C, B, P, inv_dt, A_real, A_imag = parameters
        spectrum, modes, factors = low_rank_spectrum(C, B, P, inv_dt, A_real, A_imag, points)
        ctx.save_for_backward(modes, factors, points, *parameters)
        ctx.trained_length = trained_length
        taps = torch.fft.irfft(torch.view_as_complex(spectrum), n=trained_length)[:, :length].contiguous()
        taps[:, :1] += D.mT
        return taps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        modes, factors, points, *parameters = ctx.saved_tensors
        length = ctx.trained_length
        transformed = torch.view_as_real(torch.fft.rfft(gradients[0], n=length)).contiguous()
        found = low_rank_spectrum_gradients(transformed, modes, factors, points, length, tuple(parameters))
        return *found, gradients[0][:, :1].mT, None, None


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
