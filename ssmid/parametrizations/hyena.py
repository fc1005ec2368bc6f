"""Hyena's implicit filters: a small network of sines over positions, under exponential windows.

Poli et al., "Hyena Hierarchy", ICML 2023, section 3.3, and the public code (HazyResearch/safari, ``HyenaFilter``), whose options and
order of axes these are. MultiHyena (Massaroli et al., NeurIPS 2023, section 4) has the same network with one output per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmid._array import Array, astype_width, double, from_numpy, harmonize, namespace, quiet, width
from ssmid.systems import ImpulseResponse


def hyena_positions(length: int, size: int, *, trained_length: int | None = None, like: Array = None) -> tuple[Array, Array]:
    """The positional embedding of taps ``0 .. length-1``: ``z`` ``(length, size)`` and the time ``t`` ``(length,)``.

    ``t_n = n / (L - 1)``, and ``z_n = [t_n, cos(f_k w_n), -sin(f_k w_n)]`` with ``w_n = 2 pi n / L`` and ``(size - 1) / 2`` frequencies
    ``f_k`` from 1e-4 to ``(size - 1) / 2 - 1``, where L is ``trained_length`` (``length`` if None): beyond it, the same functions go on.
    ``like``: an array that says which kind and device. Raises ValueError for a size that is not odd and at least 3.

    >>> hyena_positions(3, 3)[0].round(3)
    array([[ 0. ,  1. , -0. ],
           [ 0.5,  1. , -0. ],
           [ 1. ,  1. , -0. ]])
    """
    if size < 3 or size % 2 == 0:
        raise ValueError(f"size: expected an odd number of at least 3 (time, cosines, sines), got {size}")
    trained = length if trained_length is None else trained_length
    if length < 1 or trained < 1:
        raise ValueError(f"length: expected at least 1, got {min(length, trained)}")
    bands = (size - 1) // 2
    steps = np.arange(length, dtype=np.float64)
    t = steps / max(trained - 1, 1)
    angles = (2 * np.pi / trained * steps)[:, None] * np.linspace(1e-4, bands - 1, bands)
    z = np.concatenate([t[:, None], np.cos(angles), -np.sin(angles)], axis=-1)
    return (z, t) if like is None else (from_numpy(z, like), from_numpy(t, like))


def hyena_filters(
    z: Array,
    t: Array,
    weights: Sequence[Array],
    biases: Sequence[Array],
    frequencies: Sequence[Array],
    deltas: Array,
    bypass: Array = None,
    *,
    shift: float = 0.0,
    modulate: bool = True,
    normalized: bool = False,
) -> ImpulseResponse:
    """The filters ``(channels,)`` of ``z.shape[-2]`` taps, bypass included.

    z : ``(L, size)`` embedding of the positions   t : ``(L,)`` their times (:func:`hyena_positions`); both also as ``(1, L, ...)``
    weights : ``(width, size)``, ``(width, width)`` as often as there are inner layers, and ``(channels, width)``
    biases : ``(width,)`` of all layers but the last   frequencies : ``(width,)`` or ``(1, width)`` for each bias, or one for all:
        ``x -> sin(frequency x)`` follows the layer
    deltas : ``(channels,)`` or ``(1, 1, channels)``: the window is ``exp(-t |delta|) + shift``, left out with ``modulate=False``
    bypass : ``(channels,)``, what the convolution adds of its input: part of tap 0
    normalized : whether each tap is divided by the sum of its absolute values over the channels (as the public code does it); NaN where
        that is 0

    Differentiable in every array. Raises ValueError for shapes that do not fit.

    >>> import numpy as np
    >>> z, t = hyena_positions(100, 5)
    >>> one, two = np.ones((8, 5)), np.ones((3, 8))
    >>> hyena_filters(z, t, [one, two], [np.zeros(8)], [np.ones(8)], np.array([3.0, 6.0, 15.0]))
    ImpulseResponse(length=100, batch=(3,), dt=1, float64)
    """
    network = {f"weights[{i}]": a for i, a in enumerate(weights)} | {f"biases[{i}]": a for i, a in enumerate(biases)}
    network |= {f"frequencies[{i}]": a for i, a in enumerate(frequencies)}
    arrays = harmonize(z=z, t=t, deltas=deltas, bypass=bypass, **network)
    z, t, deltas, bypass, *rest = (None if a is None else double(a) for a in arrays)
    layers, sizes = rest[: len(weights)], len(weights) + len(biases)
    xp, bits = namespace(z), width(arrays[0])
    z, t = xp.reshape(z, (-1, z.shape[-1])), xp.reshape(t, (-1,))
    deltas = xp.reshape(deltas, (-1,))
    biases, frequencies = rest[len(weights) : sizes], rest[sizes:]
    _check(z, t, layers, biases, frequencies, deltas, bypass)
    frequencies = [xp.reshape(f, (-1,)) for f in frequencies]
    taps = hyena_taps(z, t, layers, biases, frequencies, deltas, bypass, shift=shift, modulate=modulate, normalized=normalized)
    return ImpulseResponse(astype_width(taps, bits))


def hyena_taps(
    z: Array,
    t: Array,
    weights: Sequence[Array],
    biases: Sequence[Array],
    frequencies: Sequence[Array],
    deltas: Array,
    bypass: Array = None,
    *,
    shift: float = 0.0,
    modulate: bool = True,
    normalized: bool = False,
) -> Array:
    """The taps ``(channels, L)`` of :func:`hyena_filters` in the precision that the arrays have, and unchecked: what training runs.

    z : ``(L, size)``   t : ``(L,)``   frequencies : ``(width,)`` for each bias, or one for all   deltas : ``(channels,)``

    Sines of frequency 14 raise rounding by up to 14 a layer: in float32 the taps of Hyena's network as it starts keep 2e-5 of their norm.
    """
    xp, h = namespace(z), z
    for i, (W, b) in enumerate(zip(weights[:-1], biases, strict=True)):
        h = xp.sin(frequencies[i if len(frequencies) > 1 else 0] * (h @ xp.permute_dims(W, (1, 0)) + b))
    taps = weights[-1] @ xp.permute_dims(h, (1, 0))
    if modulate:
        taps = taps * (xp.exp(-xp.abs(deltas)[:, None] * t) + shift)
    if normalized:
        taps = _divided(taps, xp.sum(xp.abs(taps), axis=0, keepdims=True))
    if bypass is not None:
        taps = xp.concat([taps[:, :1] + bypass[:, None], taps[:, 1:]], axis=-1)
    return taps


@quiet
def _divided(h: Array, sums: Array) -> Array:
    return h / sums


def _check(z: Array, t: Array, weights: Any, biases: Any, frequencies: Any, deltas: Array, bypass: Array) -> None:
    if len(weights) < 2 or len(biases) != len(weights) - 1 or len(frequencies) not in (1, len(biases)):
        counts = f"{len(weights)}, {len(biases)} and {len(frequencies)}"
        raise ValueError(f"expected n+1 weights (n at least 1), n biases and n or 1 frequencies, got {counts}")
    if t.shape[0] != z.shape[0]:
        raise ValueError(f"t: expected the {z.shape[0]} times of the rows of z, got {t.shape[0]}")
    before = z.shape[-1]
    for i, W in enumerate(weights):
        if W.ndim != 2 or W.shape[1] != before:
            raise ValueError(f"weights[{i}]: expected shape (any, {before}), got {tuple(W.shape)}")
        before = W.shape[0]
        if i < len(biases) and tuple(biases[i].shape) != (before,):
            raise ValueError(f"biases[{i}]: expected shape ({before},), got {tuple(biases[i].shape)}")
        frequency = frequencies[min(i, len(frequencies) - 1)]
        if i < len(biases) and tuple(frequency.shape) not in ((before,), (1, before)):
            raise ValueError(f"frequencies: expected shape ({before},), got {tuple(frequency.shape)}")
    for name, array in (("deltas", deltas), ("bypass", bypass)):
        if array is not None and tuple(array.shape) != (before,):
            raise ValueError(f"{name}: expected shape ({before},), got {tuple(array.shape)}")
