"""Out of a local minimum: pole pairs are added where the error says that they do most, and those that then do least are taken away.

An l2-optimal approximation of given poles leaves the error ``B eta``, B the Blaschke product of the poles (h2_newton.py). A further
pair p, p* takes from the squared error what the two kernels ``1 / (1 - p* w)``, ``1 / (1 - p w)`` span of eta: known from ``eta(p)`` alone,
and so on a grid of the whole disk by a few FFTs. A few Newton steps let the new pairs settle among the old; then, pair by pair, the
one goes whose loss, in closed form too, is least. This is orthogonal matching pursuit with replacement (Pati, Rezaiifar &
Krishnaprasad, Asilomar 1993, for the pursuit) over the dictionary of all decaying oscillations, with atoms that move.
"""

from __future__ import annotations

import numpy as np

from ssmid._array import Array, as_complex, astype_width, fft_of, from_numpy, namespace, on_gpu, quiet, to_numpy
from ssmid.reduction.h2_newton import Local, Optimum, optimal_poles
from ssmid.reduction.h2_poles import spread_apart
from ssmid.reduction.h2_sources import TapsSource

_LEAST_PAIRS, _SETTLING = 3, 4
"""Pairs added and taken away in a round, and Newton steps between the two: of 128 trained filters at order 16 one round took 96 % to a
better minimum than 20,000 steps of gradient descent from a ring of poles, where Newton's method alone took 66 %."""
_WORTHWHILE = 1e-4
"""The relative fall of a squared error in a round after which another is tried."""
_WIDEST, _RADII = 0.3, 7
"""Distances of the grid to the circle: from this one down to two over the number of taps."""
_KNOWN = 1e-8
"""Squared relative errors below which single precision does not know eta."""
_APART = 1e-6
"""Of the Gram determinant: closer to the real axis the two kernels are one."""
_MEMORY = {"host": 2**26, "gpu": 2**33}


def exchanged(source: TapsSource, optimum: Optimum, rounds: int, *, max_iterations: int, gtol: float) -> Optimum:
    """The optimum of real taps after up to ``rounds`` exchanges, with Newton steps after each. The error never rises.

    Elements that a round did not improve take no further part. Pairs may be two real poles; a single pole stays.
    """
    xp = namespace(optimum.poles)
    places = np.flatnonzero(to_numpy((optimum.error > _KNOWN * optimum.energy) & xp.any(optimum.live[:, 1::2], axis=-1)))
    pairs = max(_LEAST_PAIRS, optimum.poles.shape[-1] // 16)
    for _ in range(rounds):
        if len(places) == 0:
            break
        index = from_numpy(places, optimum.poles)
        own, poles, live, before = source.take(index), *(xp.take(x, index, axis=0) for x in (optimum.poles, optimum.live, optimum.error))
        poles, live = _with_new_pairs(own, poles, live, pairs)
        settled = optimal_poles(own, poles, live, real=True, max_iterations=_SETTLING, gtol=gtol)
        poles, live = settled.poles, settled.live
        for _ in range(pairs):
            poles, live = _without_weakest(own, poles, live)
        found = optimal_poles(own, poles, live, real=True, max_iterations=max_iterations, gtol=gtol)
        optimum = replaced(optimum, found, places)
        places = places[to_numpy(found.error < (1 - _WORTHWHILE) * before)]
    return optimum


def _with_new_pairs(source: TapsSource, poles: Array, live: Array, pairs: int) -> tuple[Array, Array]:
    """Poles and mask with ``pairs`` pairs more, the best of their neighbourhoods."""
    xp = namespace(poles)
    step = max(1, _MEMORY["gpu" if on_gpu(poles) else "host"] // (256 * source.taps.shape[-1]))
    pieces = [slice(i, min(i + step, poles.shape[0])) for i in range(0, poles.shape[0], step)]
    new = xp.concat([_most_gaining(source.taps[piece, :], poles[piece, :], live[piece, :], pairs) for piece in pieces], axis=0)
    both = xp.reshape(xp.stack([new, xp.conj(new)], axis=-1), (poles.shape[0], 2 * pairs))
    return spread_apart(xp.concat([poles, both], axis=-1), real=True), xp.concat([live, xp.abs(both) > 0], axis=-1)


@quiet
def _without_weakest(source: TapsSource, poles: Array, live: Array) -> tuple[Array, Array]:
    """Poles and mask ``(batch, d - 2)`` without the pair that does least."""
    xp, d = namespace(poles), poles.shape[-1]
    losses = _losses(poles, source(poles, live))
    losses = xp.where(xp.isfinite(losses), losses, xp.zeros_like(losses))
    losses = xp.where(live[:, 0::2] & live[:, 1::2], losses, xp.full_like(losses, float("inf")))
    weakest = xp.argmin(losses, axis=-1)[:, None]
    slot = xp.arange(d // 2 - 1, device=poles.device)[None, :]
    kept = slot + xp.astype(slot >= weakest, slot.dtype)
    kept = xp.reshape(xp.stack([2 * kept, 2 * kept + 1], axis=-1), (poles.shape[0], d - 2))
    return xp.take_along_axis(poles, kept, axis=-1), xp.take_along_axis(live, kept, axis=-1)


def _losses(poles: Array, local: Local) -> Array:
    """``(batch, d / 2)`` by how much the squared error rises without a pair: ``rho* K^-1 rho``, ``K_ij = 1 / (1 - p_i p_j*)``."""
    xp = namespace(poles)
    (p, q), (a, b) = ((x[:, 0::2], x[:, 1::2]) for x in (poles, local.rho))
    first, second = (1 / (1 - xp.abs(x) ** 2) for x in (p, q))
    between = 1 / (1 - p * xp.conj(q))
    determinant = first * second - xp.abs(between) ** 2
    return (second * xp.abs(a) ** 2 + first * xp.abs(b) ** 2 - 2 * xp.real(xp.conj(a) * between * b)) / determinant


@quiet
def _most_gaining(taps: Array, poles: Array, live: Array, pairs: int) -> Array:
    """``(batch, pairs)`` points of the upper half disk where a pair takes most from the error, on a grid, one of each neighbourhood."""
    xp, N = namespace(taps), taps.shape[-1]
    size = 1 << (2 * N - 1).bit_length()
    eta = _eta(astype_width(taps, 32), poles, live, 2 * size)
    transform = fft_of(eta)
    z = from_numpy(np.exp(2j * np.pi / size * np.arange(size // 2 + 1)).astype(np.complex64), eta)
    time = from_numpy(np.arange(N, dtype=np.float32), eta)
    best = xp.zeros((taps.shape[0], size // 2 + 1), dtype=eta.dtype, device=eta.device)
    radius_of = xp.zeros_like(best)
    for radius in (float(r) for r in 1 - np.geomspace(_WIDEST, min(_WIDEST / 2, 2 / N), _RADII)):
        v = transform.rfft(eta * radius**time, n=size, axis=-1)
        alone, between = 1 / (1 - radius**2), 1 / (1 - radius**2 * z * z)
        determinant = alone**2 - xp.abs(between) ** 2
        usable = determinant > _APART * alone**2
        determinant = xp.where(usable, determinant, xp.full_like(determinant, float("inf")))
        gain = 2 * (alone * xp.abs(v) ** 2 - xp.real(v * v * between)) / determinant
        better = gain > best
        best, radius_of = xp.where(better, gain, best), xp.where(better, xp.full_like(best, radius), radius_of)
    found, place = [], xp.arange(size // 2 + 1, device=eta.device)[None, :]
    for _ in range(pairs):
        at = xp.argmax(best, axis=-1)[:, None]
        radius = xp.take_along_axis(radius_of, at, axis=-1)
        found.append(xp.astype(radius, poles.dtype) * xp.take(astype_width(z, 64), at[:, 0], axis=0)[:, None])
        width = xp.astype(xp.clip((1 - radius) * size / (2 * np.pi), min=3.0), at.dtype)
        best = xp.where(xp.abs(place - at) <= width, xp.zeros_like(best), best)
    return xp.concat(found, axis=-1)


def _eta(taps: Array, poles: Array, live: Array, size: int) -> Array:
    """``(batch, N)`` the causal part of ``conj(B) g``: ``conj(B) = w^-d D / conj(D)``, D the product of the factors ``1 - s w + p w^2``."""
    xp, N = namespace(taps), taps.shape[-1]
    transform = fft_of(taps)
    w = from_numpy(np.exp(2j * np.pi / size * np.arange(size // 2 + 1)).astype(np.complex64), taps)
    found = xp.conj(transform.rfft(taps, n=size, axis=-1))
    zero = xp.zeros_like(poles)
    poles = xp.where(live, poles, zero)
    total, product = (xp.real(x)[:, :, None] for x in (poles[:, 0::2] + poles[:, 1::2], poles[:, 0::2] * poles[:, 1::2]))
    total, product = astype_width(total, 32), astype_width(product, 32)
    for k in range(total.shape[1]):
        factor = 1 - total[:, k, ...] * w + product[:, k, ...] * w**2
        size_of = xp.abs(factor)
        unit = factor / xp.where(size_of > 0, size_of, xp.ones_like(size_of))
        found = found * (unit * unit)
    count = xp.astype(xp.sum(xp.astype(live, xp.int64), axis=-1), xp.float32)[:, None]
    angle = from_numpy((2 * np.pi / size * np.arange(size // 2 + 1)).astype(np.float32), taps)
    found = found * xp.exp(-1j * as_complex(count * angle))
    return transform.irfft(xp.conj(found), n=size, axis=-1)[:, :N]


def replaced(optimum: Optimum, found: Optimum, places: np.ndarray) -> Optimum:
    """``optimum`` with ``found``, of the elements at ``places``, where that is no worse."""
    index = np.zeros(optimum.poles.shape[0], np.int64)
    index[places] = np.arange(len(places))
    chosen = np.zeros(len(index), bool)
    chosen[places] = True
    spread = found.take(from_numpy(index, optimum.poles))
    return spread.where(from_numpy(chosen, optimum.poles) & (spread.error <= optimum.error), optimum)
