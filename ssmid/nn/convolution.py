"""Convolution of long signals with long filters, causal ones or such as see the future too, with its own gradient.

By FFT, in O(length log length). For the backward pass nothing is kept but the signal and the taps: spectra, twice as long and complex,
are made again. On an NVIDIA GPU the kernels of :mod:`ssmid.kernels.fft_convolution` take rows of up to 131,072 samples below float64; the
functions here are their reference, and run everywhere else.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from ssmid.kernels import fft_convolution
from ssmid.kernels.cuda import CannotCompile


def long_convolution(u: Tensor, taps: Tensor, future: Tensor | None = None, *, chunk: int | None = None) -> Tensor:
    """``y_t = sum_s taps_s u_{t-s}`` over the last axis, per channel; ``u`` is zero beyond its ends.

    u : ``(*batch, channels, length)``, float64, float32, bf16 or float16   taps : ``(channels, taps)``, any number of them; those beyond
    the length do nothing. Shape, dtype and device of the result are those of ``u``; sums are float32, float64 for float64.

    future : another bank of the shape of ``taps``, which runs against time: adds ``sum_s future_s u_{t+s}``. One product with the sum of
    both responses, so that it costs the spectra of the filters more and no second pass over the signal.

    chunk : spectra of no more than ``2 * chunk`` points at a time, for signals whose own would not fit into memory; the result is the
    same to rounding. Signal and taps are cut into pieces of that length, each pair of which is one product (overlap-save, with the filter
    partitioned: Stockham 1966, Kulp 1988); a chunk no shorter than the taps costs no more than the whole. The GPU's kernels need no more
    memory than that in any case, and do not cut.

    Differentiable in all, any number of times; of the forward pass ``u`` and the taps are kept. Goes through ``torch.compile`` as one
    operator, and through CUDA graphs after a first call. ValueError: shapes or dtypes that do not fit.

    A filter known by its frequency response rather than its taps costs one inverse FFT of a row per channel before this, which
    is 1 / batch of the convolution: there is no second door for spectra.

    >>> long_convolution(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, -1.0]])).round()
    tensor([[1., 1., 1.]])
    """
    if taps.ndim != 2 or not taps.is_floating_point():
        raise ValueError(f"taps: expected real numbers of shape (channels, taps), got {taps.dtype} of shape {tuple(taps.shape)}")
    if u.ndim < 2 or u.shape[-2] != taps.shape[0] or not u.is_floating_point():
        raise ValueError(f"u: expected real numbers of shape (*batch, {taps.shape[0]}, length), got {u.dtype} of shape {tuple(u.shape)}")
    if u.device != taps.device:
        raise ValueError(f"taps: expected on {u.device} as u is, got {taps.device}")
    if future is not None and (future.shape, future.dtype, future.device) != (taps.shape, taps.dtype, taps.device):
        wanted, got = (f"{x.dtype} of shape {tuple(x.shape)} on {x.device}" for x in (taps, future))
        raise ValueError(f"future: expected {wanted} as taps are, got {got}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    sides = taps[None] if future is None else torch.stack([taps, future])
    if u.numel() == 0 or taps.shape[-1] == 0:
        return u * 0 + (sides * 0).sum().to(u.dtype)
    rows = u.reshape(-1, *u.shape[-2:])
    return _convolve(rows, sides[..., : u.shape[-1]], chunk or 0).reshape(u.shape)


@torch.library.custom_op("ssmid::long_convolution", mutates_args=())
def _convolve(u: Tensor, taps: Tensor, chunk: int) -> Tensor:
    """``u`` ``(batch, channels, length)``, taps ``(1 or 2, channels, at most length)``; a ``chunk`` of 0 is the whole."""
    if _fused(u, taps):
        with suppress(CannotCompile):  # which was said
            return fft_convolution.convolve(u, taps.float())
    return filtered(u, taps, chunk, adjoint=False)


@torch.library.custom_op("ssmid::long_convolution_backward", mutates_args=())
def _gradients(u: Tensor, taps: Tensor, dy: Tensor, chunk: int, of_u: bool, of_taps: bool) -> tuple[Tensor, Tensor]:
    """Gradients of ``u`` and ``taps`` from that of the result; one that is not asked for is empty."""
    if _fused(u, taps):
        with suppress(CannotCompile):
            if of_taps:
                du, dtaps = fft_convolution.convolve_backward(u, taps.float(), dy.to(u.dtype))
                return du if of_u else u.new_empty(0), dtaps.to(taps.dtype)
            return fft_convolution.convolve(dy.to(u.dtype), taps.float(), adjoint=True), taps.new_empty(0)
    du = filtered(dy, taps, chunk, adjoint=True).to(u.dtype) if of_u else u.new_empty(0)
    return du, correlated(u, dy, taps, chunk) if of_taps else taps.new_empty(0)


def filtered(u: Tensor, taps: Tensor, chunk: int, *, adjoint: bool) -> Tensor:
    """The convolution with ``taps`` ``(1 or 2, channels, taps)`` as plain FFTs; with ``adjoint`` past and future change places."""
    wide, length = _wide(u, taps), u.shape[-1]
    block = chunk if 0 < chunk < length else length
    if block == length:
        response = sum(_response(side.to(wide), 2 * length, future) for side, future in _sides(taps, adjoint))
        return torch.fft.irfft(torch.fft.rfft(u.to(wide), n=2 * length) * response, n=2 * length)[..., :length].to(u.dtype).contiguous()
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    for start in range(0, length, block):
        here = sum(_filtered_block(u, side.to(wide), start, block, future) for side, future in _sides(taps, adjoint))
        assert isinstance(here, Tensor)
        y[..., start : start + block] = here[..., : length - start]
    return y


def _filtered_block(u: Tensor, taps: Tensor, start: int, block: int, future: bool) -> Tensor:
    """``block`` samples of the result from ``start`` on, of taps ``(channels, taps)`` of the past or of the future."""
    product = torch.zeros((), dtype=taps.dtype, device=u.device)
    for lag in range(0, taps.shape[-1], block):
        first = start + lag if future else start - lag - block
        if first < u.shape[-1] and first + 2 * block > 0:
            signal = torch.fft.rfft(_window(u, first, 2 * block).to(taps.dtype), n=2 * block)
            product = product + signal * _response(taps[:, lag : lag + block], 2 * block, future)
    here = torch.fft.irfft(product, n=2 * block)
    return here[..., :block] if future else here[..., block:]


def correlated(u: Tensor, dy: Tensor, taps: Tensor, chunk: int) -> Tensor:
    """``sum over the batch of sum_t dy_t u_{t-j}`` for every tap ``j`` of the past, of ``dy_t u_{t+j}`` of the future, as plain FFTs."""
    wide, length = _wide(u, taps), u.shape[-1]
    block = chunk if 0 < chunk < length else length
    if block == length:
        spectrum = (torch.conj_physical(torch.fft.rfft(u.to(wide), n=2 * length)) * torch.fft.rfft(dy.to(wide), n=2 * length)).sum(0)
        both = [torch.conj_physical(spectrum) if future else spectrum for _, future in _sides(taps, False)]
        return torch.fft.irfft(torch.stack(both), n=2 * length)[..., : taps.shape[-1]].to(taps.dtype).contiguous()
    dtaps = torch.empty_like(taps, memory_format=torch.contiguous_format)
    for (_, future), dside in zip(_sides(taps, False), dtaps, strict=True):
        early, late = (dy, u) if future else (u, dy)
        for lag in range(0, taps.shape[-1], block):
            product = torch.zeros((), dtype=wide, device=u.device)
            for start in range(lag, length, block):
                signal = torch.fft.rfft(_window(early, start - lag - block, 2 * block).to(wide), n=2 * block)
                part = torch.nn.functional.pad(late[..., start : start + block].to(wide), (block, 0))
                product = product + (torch.fft.rfft(part, n=2 * block) * torch.conj_physical(signal)).sum(0)
            stop = min(lag + block, taps.shape[-1])
            dside[..., lag:stop] = torch.fft.irfft(product, n=2 * block)[..., : stop - lag].to(taps.dtype)
    return dtaps


def _sides(taps: Tensor, swapped: bool) -> list[tuple[Tensor, bool]]:
    """The banks of ``taps``, and whether each is of the future."""
    return [(side, swapped != bool(number)) for number, side in enumerate(taps)]


def _fused(u: Tensor, taps: Tensor) -> bool:
    return taps.dtype != torch.float64 and fft_convolution.fused_convolution(u)


def _wide(u: Tensor, taps: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(u.dtype, torch.float32), taps.dtype)


def _response(taps: Tensor, points: int, future: bool) -> Tensor:
    response = torch.fft.rfft(taps, n=points)
    # not conj(), whose flag is lost where torch traces an operator with the key that resolves it switched off
    return torch.conj_physical(response) if future else response


def _window(u: Tensor, first: int, size: int) -> Tensor:
    """Samples ``first`` to ``first + size`` of the last axis, with zeros before the start; those behind the end are left out."""
    return torch.nn.functional.pad(u[..., max(first, 0) : first + size], (max(-first, 0), 0))


@_convolve.register_fake
def _(u: Tensor, taps: Tensor, chunk: int) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@_gradients.register_fake
def _(u: Tensor, taps: Tensor, dy: Tensor, chunk: int, of_u: bool, of_taps: bool) -> tuple[Tensor, Tensor]:
    whole = torch.contiguous_format
    du = torch.empty_like(u, memory_format=whole) if of_u else u.new_empty(0)
    return du, torch.empty_like(taps, memory_format=whole) if of_taps else taps.new_empty(0)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.chunk = inputs[2]


def _backward(ctx, dy: Tensor):
    u, taps = ctx.saved_tensors
    of_u, of_taps = ctx.needs_input_grad[:2]
    du, dtaps = _gradients(u, taps, dy, ctx.chunk, of_u, of_taps)
    return du if of_u else None, dtaps if of_taps else None, None


def _keep_all(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _backward_of_backward(ctx, at_du: Tensor, at_dtaps: Tensor):
    """Everything is bilinear in (u, taps): the gradients are convolutions and correlations again."""
    u, taps, dy = ctx.saved_tensors
    chunk, of_u, of_taps = ctx.options
    to_u = to_taps = to_dy = None
    if of_u:
        to_dy = _convolve(at_du, taps, chunk)
        to_taps = _gradients(at_du, taps, dy, chunk, False, True)[1]
    if of_taps:
        to_u = _gradients(u, at_dtaps, dy, chunk, True, False)[0]
        more = _convolve(u, at_dtaps, chunk)
        to_dy = more if to_dy is None else to_dy + more
    return to_u, to_taps, to_dy, None, None, None


_convolve.register_autograd(_backward, setup_context=_keep)
_gradients.register_autograd(_backward_of_backward, setup_context=_keep_all)
