"""Trained filters: those that the package carries, and banks of any size made of them.

``data/hyena_filters_64.npz`` holds 64 of the 1536 long-convolution filters of a byte-level language model that this project trained on the
Python standard library (6 Hyena layers, width 256, length 2048, Poli et al. 2023). Every 24th filter in the order (layer, channel) was
taken, from the first: no filter was looked at first, and each layer gave 10 or 11. Arrays of the file: ``filters`` (64, 2048) float32,
``layer`` and ``channel`` (64,).
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from ssmid._array import from_numpy, namespace
from ssmid.systems import ImpulseResponse


def hyena_filters() -> ImpulseResponse:
    """64 long-convolution filters of a trained language model: taps ``(64, 2048)``, float32.

    A smooth part of low order plus a broadband noise floor: real, and not flattering to any reduction. How they were
    chosen stands at the top of :mod:`ssmid.datasets.filters`. The pass-through that the model adds to tap 0 is not included.

    >>> hyena_filters()
    ImpulseResponse(length=2048, batch=(64,), dt=1, float32)
    """
    with files("ssmid").joinpath("data/hyena_filters_64.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return ImpulseResponse(archive["filters"])


def drawn_filters(count: int, source: ImpulseResponse | None = None, *, length: int | None = None, seed: int = 0) -> ImpulseResponse:
    """``count`` filters made from those of ``source`` (the bundled ones when left out): drawn, stretched in time and scaled.

    source : taps ``(n, L)``   length : taps of the result, L when left out   seed : of NumPy's generator

    Each is a filter drawn with replacement, its taps after tap 0 read at times stretched by a factor of .74 to 1.35 (linear
    interpolation, zero after its end; over ``length / L`` more where that differs), times a factor with a log-normal law of sigma 1.
    For banks of any size whose filters are no copies of each other. Same kind, device and precision as the source's.

    >>> drawn_filters(1000)
    ImpulseResponse(length=2048, batch=(1000,), dt=1, float32)
    """
    taps = (hyena_filters() if source is None else source).taps
    if taps.ndim != 2 or taps.shape[-1] < 3:
        raise ValueError(f"source: expected taps of shape (n, length), length at least 3, got {tuple(taps.shape)}")
    if count < 0 or (length is not None and length < 2):
        raise ValueError(f"expected a count of at least 0 and a length of at least 2, got {count} and {length}")
    xp, known = namespace(taps), taps.shape[-1]
    size = known if length is None else length
    random = np.random.default_rng(seed)
    chosen = from_numpy(random.integers(0, taps.shape[0], count), taps)
    stretch = from_numpy((np.exp(random.uniform(-0.3, 0.3, count)) * (known - 1) / (size - 1)).astype(np.float32), taps)
    scale = from_numpy(np.exp(random.standard_normal(count)).astype(np.float32), taps)
    times = xp.arange(size - 1, dtype=stretch.dtype, device=taps.device) * stretch[:, None]
    before = xp.clip(xp.floor(times), max=float(known - 3))
    share = xp.astype(xp.clip(times - before, max=1.0), taps.dtype)
    index = xp.astype(before, xp.int64) + 1
    drawn = xp.take(taps, chosen, axis=0)
    after = xp.take_along_axis(drawn, index, axis=-1) * (1 - share) + xp.take_along_axis(drawn, index + 1, axis=-1) * share
    after = xp.where(times <= known - 2, after, xp.zeros_like(after))
    return ImpulseResponse(xp.concat([drawn[:, :1], after], axis=-1) * xp.astype(scale, taps.dtype)[:, None])
