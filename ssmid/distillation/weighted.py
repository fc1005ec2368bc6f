"""l2 optima under weights over time or over frequency, and the weights that make of an input spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.signal

from ssmid._array import Array, as_array, astype_width, double, from_numpy, namespace, to_numpy, width
from ssmid.distillation.bank import Bank
from ssmid.distillation.options import Options
from ssmid.distillation.projected import Projected, Spectrum, Taps
from ssmid.reduction.h2_weighted import Weights
from ssmid.systems import ImpulseResponse


def weighted_problem(bank: Bank, options: Options) -> Projected:
    """The squared error under the weights of a bank.

    Over time, each tap after tap 0 by its weight; what the model does after the last tap has none. Over frequency, the difference
    of the transfer functions on the grid, which knows what rings on as far as :func:`largest_resolved` goes.
    """
    xp, weights = namespace(bank.strict), bank.weights
    largest = xp.max(weights[:, 1:] if options.weights is not None else weights, axis=-1, keepdims=True)
    weights = weights / xp.where(largest > 0, largest, xp.ones_like(largest))
    if options.weights is not None:
        return Projected.of(Taps.of(bank.strict, weights[:, 1:] if bank.length < weights.shape[-1] else 0 * weights))
    return Projected.of(Spectrum.of(bank.strict, weights))


def largest_resolved(points: int) -> float:
    """The modulus up to which the sum over a grid of so many points of the circle is the energy of a mode to a factor of two.

    On the grid a mode r p^t is wrapped around: r p^t / (1 - p^M), whose energy is between (1 - q) / (1 + q) and (1 + q) / (1 - q) times
    its own, q = |p|^M. Without a limit a search finds poles on the circle, half way between two points, that cost next to nothing
    there and ring for ever.

    >>> round(largest_resolved(1024) ** 1024, 12)
    0.333333333333
    """
    return 3.0 ** (-1 / points)


def flat_weights(options: Options, batch: tuple[int, ...], length: int, like: Array) -> Array:
    """``(n, K)``, or ``(1, K)`` where all filters share them, on the device of ``like``; None without weights.

    Raises ValueError for shapes that do not fit, negative weights and those that are all zero.
    """
    if not options.weighted:
        return None
    given = Weights.of(ImpulseResponse(np.zeros(length)), options.weights, options.frequency_weights).values
    if given.ndim > 1:
        try:
            given = np.broadcast_to(given, (*batch, given.shape[-1]))
        except ValueError:
            raise ValueError(f"weights: expected a batch shape that broadcasts to {batch}, got {given.shape[:-1]}") from None
    return from_numpy(given.reshape(-1, given.shape[-1]).copy(), like)


def input_spectrum(signals: Array, length: int, *, keep: int = 0) -> Array:
    """Weights ``(*kept, k)`` over frequency from what a layer sees as its input: the error at its output is what they make small.

    signals : ``(*batch, T)``, sequences; all axes but the last ``keep`` before time are averaged over, so that ``(sequences,
        channels, T)`` and ``keep=1`` give the weights of each channel
    length : of the filters, which the grid must hold: ``k = m // 2 + 1``, m the next power of two

    The root of the power spectral density, by Welch's method (IEEE Trans. Audio Electroacoust. 15, 1967; Hann windows of m samples that
    overlap by half): with white noise e through a shaping filter of that gain, the mean square of the error filter's output is its
    weighted norm. Of unit mean square over frequency. Not differentiable. Raises ValueError for shapes that do not fit and for
    signals that are not finite or zero.

    >>> import numpy as np
    >>> noise = np.random.default_rng(0).standard_normal((4, 3, 4096))
    >>> low = np.cumsum(noise, axis=-1) * 0.01 + noise
    >>> weights = input_spectrum(low, 256, keep=1)
    >>> weights.shape, bool(weights[0, 1] > 1.3 * weights[0, -1])
    ((3, 129), True)
    """
    signals = as_array(signals, "signals")
    if signals.ndim == 0 or signals.shape[-1] < 2:
        raise ValueError(f"signals: expected at least two samples (*batch, T), got shape {tuple(signals.shape)}")
    if isinstance(keep, bool) or int(keep) != keep or not 0 <= keep < signals.ndim:
        raise ValueError(f"keep: expected an integer from 0 to {signals.ndim - 1}, got {keep}")
    if isinstance(length, bool) or int(length) != length or length < 1:
        raise ValueError(f"length: expected an integer of at least 1, got {length}")
    values: Any = to_numpy(double(signals))
    size = 1 << max(1, (int(length) - 1).bit_length())
    limits = {"nperseg": min(size, values.shape[-1]), "nfft": size, "detrend": False, "return_onesided": False}
    density = np.real(scipy.signal.welch(values, **limits)[1])[..., : size // 2 + 1]
    density = density.mean(axis=tuple(range(density.ndim - 1 - keep)))
    total = (density.sum(-1, keepdims=True) * 2 - density[..., :1] - density[..., -1:]) / size
    if not (np.isfinite(total).all() and (total > 0).all()):
        raise ValueError("signals: expected finite numbers that are not all zero")
    return astype_width(from_numpy(np.sqrt(density / total), signals), width(signals))
