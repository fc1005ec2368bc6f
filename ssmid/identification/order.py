"""How many singular values stand above the noise.

The noise is taken as white, of a level that nobody knows: it is read off what lies beyond the values that are kept. The largest
singular value that noise of this level has with the probability ``false_alarm`` is the threshold. For a matrix of independent
entries it stands at the edge ``sqrt(rows) + sqrt(columns)`` (Gavish & Donoho, IEEE Trans. Inf. Theory 60, 2014, take it for the
same purpose). The entries of a Hankel matrix of noise are not independent, and its largest value lies well above that edge: the
matrix is a part of a circulant one, whose singular values are the moduli of the Fourier transform of the samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import gamma

from ssmid._array import Array, double, from_numpy, to_numpy

_EPS = float(np.finfo(np.float64).eps)


def order_above_noise(
    sigma: Array,
    rows: int,
    columns: int,
    *,
    energy: Any = None,
    noise: str = "independent",
    ports: tuple[int, int] = (1, 1),
    false_alarm: float = 0.01,
    may_be_exact: bool = True,
) -> Array:
    """``(*batch,)`` integers: how many of the singular values ``sigma`` ``(*batch, k)``, descending, are no noise.

    rows, columns : of the matrix; of a block Hankel matrix the numbers of blocks, each of ``ports`` (outputs, inputs)
    energy : ``(*batch,)`` the squared Frobenius norm; needed where ``sigma`` are only the leading values
    noise : "independent" entries, or a "hankel" matrix of independent samples
    false_alarm : the probability that noise alone counts as a state
    may_be_exact : whether values at rounding mean that there is no noise. False for matrices that have such of noise too, as
        triangular ones do

    Values at the rounding of the largest never count; where there are such and the matrix ``may_be_exact``, all others do. At most two
    thirds of the values count otherwise: the rest is what the level of the noise is read off. NaN gives 0. Raises ValueError for an
    unknown ``noise``, and for leading values without ``energy``. Not differentiable.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> t = np.arange(399)
    >>> taps = 0.98**t * np.cos(0.5 * t) + 0.9**t + 1e-3 * rng.standard_normal(399)
    >>> sigma = np.linalg.svd(taps[np.add.outer(np.arange(200), np.arange(200))], compute_uv=False)
    >>> int(order_above_noise(sigma, 200, 200, noise="hankel"))
    3
    """
    if noise not in ("independent", "hankel"):
        raise ValueError(f"noise: expected 'independent' or 'hankel', got {noise!r}")
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm: expected a probability, got {false_alarm}")
    values = to_numpy(double(sigma))
    height, breadth = ports[0] * rows, ports[1] * columns
    size, known = min(height, breadth), values.shape[-1]
    if known < size and energy is None:
        raise ValueError(f"energy: expected the squared Frobenius norm beside {known} of {size} singular values, got none")
    if known == 0:
        return from_numpy(np.zeros(values.shape[:-1], np.int64), sigma)
    values = np.where(np.isfinite(values).all(-1, keepdims=True), values, 0.0)
    values, peak = values[..., :size], values[..., :1]
    values = values / np.where(peak > 0, peak, 1.0)
    rest = np.zeros(values.shape[:-1])
    if known < size:
        rest = _rest(values, to_numpy(double(energy) if hasattr(energy, "dtype") else np.asarray(energy)) / _squared(peak), size)
    beyond = np.cumsum(values[..., ::-1] ** 2, axis=-1)[..., ::-1] - values**2 + rest[..., None]
    r = np.arange(1, values.shape[-1] + 1)
    freedom = np.maximum((height - r) * (breadth - r), 1)
    edge = _hankel_edge(rows + columns - 1, ports, false_alarm) if noise == "hankel" else _edge(height, breadth, false_alarm)
    loud = (values > edge * np.sqrt(beyond / freedom)) & (r <= max(1, 2 * size // 3))
    rounding = 2 * _EPS * (height + breadth)  # of taps that were computed as powers: their phase drifts by eps a step
    sound = values > rounding
    by_noise = np.max(np.where(loud & sound, r, 0), axis=-1)
    orders = np.where(sound.all(-1) | (not may_be_exact), by_noise, sound.sum(-1))
    return from_numpy(orders.astype(np.int64), sigma)


def _squared(peak: np.ndarray) -> np.ndarray:
    return np.where(peak[..., 0] > 0, peak[..., 0], 1.0) ** 2


def _rest(values: np.ndarray, energy: np.ndarray, size: int) -> np.ndarray:
    """The energy of the values that are not known: at most that of as many as the last known one, which stands where subtraction fails."""
    most = (size - values.shape[-1]) * values[..., -1] ** 2
    left = energy - np.sum(values**2, axis=-1)
    return np.where(left > 1e-13 * energy, np.minimum(left, most), most)


def _edge(height: int, breadth: int, false_alarm: float) -> float:
    """Of independent normal entries: exceeded with at most the given probability (Davidson & Szarek 2001, theorem II.13)."""
    return height**0.5 + breadth**0.5 + (-2 * np.log(false_alarm)) ** 0.5


def _hankel_edge(samples: int, ports: tuple[int, int], false_alarm: float) -> float:
    """Of a Hankel matrix of unit noise: the largest norm of the Fourier transform of its samples, by the union bound.

    Each matrix of the transform has a squared Frobenius norm of a gamma distribution; that norm bounds the spectral one.
    """
    frequencies = samples // 2 + 1
    return float(np.sqrt(samples * gamma.isf(false_alarm / frequencies, ports[0] * ports[1])))
