"""Long convolutions whose taps are weights, squashed to be sparse (Fu et al., "Simple Hardware-Efficient Long Convolutions", ICML 2023)."""

from __future__ import annotations

from ssmid._array import Array, astype_width, double, fft_of, harmonize, namespace, width
from ssmid.systems import ImpulseResponse


def long_convolution(
    kernel: Array, bypass: Array = None, *, lam: float, window: int | None = None, smooth_spectrum: bool = False
) -> ImpulseResponse:
    """The filters ``sign(k) max(|k| - lam, 0)``, as in the public code (HazyResearch/safari, ``LongConvKernel``).

    kernel : ``(*batch, L)``   bypass : ``(*batch,)``, what the convolution adds of its input: part of tap 0   lam : not negative
    window : odd; first each tap is made the mean of so many around it, zeros beyond the ends; with ``smooth_spectrum`` each point of
        the spectrum a sum of those around it with weights ``exp(-m^2 / 2)``, m points away

    Differentiable. Raises ValueError for a window that is not odd, or a negative ``lam``.

    >>> import numpy as np
    >>> long_convolution(np.array([0.5, -0.3, 0.1]), lam=0.2).taps.round(3)
    array([ 0.3, -0.1,  0. ])
    """
    if not lam >= 0:
        raise ValueError(f"lam: expected a number of at least 0, got {lam}")
    if window is not None and (window < 1 or window % 2 == 0):
        raise ValueError(f"window: expected an odd number of taps, got {window}")
    kernel, bypass = harmonize(kernel=kernel, bypass=bypass)
    bits, taps = width(kernel), double(kernel)
    xp = namespace(taps)
    if window is not None and smooth_spectrum:
        fft = fft_of(taps)
        spread = [float(xp.exp(xp.asarray(-0.5 * (m - window // 2) ** 2, dtype=taps.dtype))) for m in range(window)]
        taps = fft.irfft(_moving(fft.rfft(taps), spread), n=2 * (taps.shape[-1] // 2))
    elif window is not None:
        taps = _moving(taps, [1 / window] * window)
    size = xp.abs(taps) - lam
    taps = xp.sign(taps) * xp.where(size > 0, size, xp.zeros_like(size))
    if bypass is not None:
        taps = xp.concat([taps[..., :1] + double(bypass)[..., None], taps[..., 1:]], axis=-1)
    return ImpulseResponse(astype_width(taps, bits))


def _moving(values: Array, weights: list[float]) -> Array:
    """Weighted sums over as many neighbours as there are weights, zeros beyond the ends."""
    xp = namespace(values)
    half, n = len(weights) // 2, values.shape[-1]
    zeros = xp.zeros((*values.shape[:-1], half), dtype=values.dtype, device=values.device)
    wide = xp.concat([zeros, values, zeros], axis=-1)
    total = xp.zeros_like(values)
    for place, weight in enumerate(weights):
        total = total + weight * wide[..., place : place + n]
    return total
