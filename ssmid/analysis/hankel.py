"""Hankel singular values: how small can a system become?

Of an impulse response they are the singular values of its Hankel matrix ``H[i, j] = h[1 + i + j]``, of any other
representation those of the product of its Gramian factors. Long responses are never written out as a matrix.
"""

from __future__ import annotations

import dataclasses
from functools import partial, singledispatch
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, astype_width, detach, double, finite_elements, from_numpy, is_complex, namespace, on_gpu, width
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.gramians import gramian_factors
from ssmid.analysis.krylov import Operator, Triplets, leading_triplets
from ssmid.linalg import adjoint, block_hankel_products, eigh, singular_values, svd, transpose
from ssmid.systems import FrequencyResponse, ImpulseResponse, Modal, StateSpace, System
from ssmid.systems.base import not_a_system

DENSE = 256
"""Hankel matrices up to this size are decomposed as they are: quicker than any iteration, and every value at once."""
_ALL = 1024
_LEADING = 64
_MEMORY = {"host": 2**28, "gpu": 2**34}
"""Bytes for the bases of the elements that are worked on at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class HankelSpectrum:
    """Hankel singular values with error bars and, for an impulse response, singular vectors.

    sigma : ``(*batch, count)`` descending   error : ``(*batch, count)``, some true value lies within this distance
    converged : ``(*batch, count)`` boolean
    left : ``(*batch, rows, count)``   right : ``(*batch, columns, count)``, of coupled channels ``(*batch, p, rows, count)`` and
    ``(*batch, m, columns, count)``; None for other representations
    products : to how many vectors the Hankel matrix of an element was applied, at most; 0 where it was decomposed as it is
    """

    sigma: Array
    error: Array
    converged: Array
    left: Array = None
    right: Array = None
    products: int = 0


def hankel_singular_values(
    system: System, count: int | None = None, *, padding: str = "zero", mimo: bool = False, rtol: float = 1e-8
) -> Array:
    """The ``count`` largest Hankel singular values ``(*batch, count)``, descending. Not differentiable.

    Arguments, defaults and errors: :func:`hankel_spectrum`.

    >>> import numpy as np
    >>> from ssmid import ImpulseResponse
    >>> h = ImpulseResponse(np.concatenate([[0.0], 0.5 ** np.arange(50)]))
    >>> hankel_singular_values(h, 2).round(6) + 0.0
    array([1.333333, 0.      ])
    """
    return hankel_spectrum(system, count, padding=padding, mimo=mimo, rtol=rtol).sigma


@singledispatch
def hankel_spectrum(
    system: System,
    count: int | None = None,
    *,
    padding: str = "zero",
    mimo: bool = False,
    rtol: float = 1e-8,
    max_products: int | None = None,
) -> HankelSpectrum:
    """Hankel singular values with error bars, and the singular vectors of an impulse response. Not differentiable.

    count : how many of the largest; None means all, or the leading 64 where there are more than 1024. Values beyond the order are 0.
    padding : "zero" takes the impulse response as ending with its last tap, which is exact for a FIR filter; "none" uses a Hankel
        matrix of measured samples only (half of them rows, half columns), as identification does. Impulse responses only.
    mimo : the last two batch axes of an impulse response are outputs and inputs of one system (a state space always couples them).
    rtol : error bars that count as converged, relative to the largest value of the element.
    max_products : work allowed for each element of a long response; beyond it ``converged`` is False where it is.

    Short responses are decomposed as they are; long ones by block Krylov iteration in O(length count) memory, one FFT pair a
    product (:mod:`ssmid.analysis.krylov`). A batch element that is not finite gives NaN and is marked as not converged. Other
    representations: the singular values of ``L* R`` with the Gramian factors (Moore, IEEE Trans. Autom. Control 26, 1981; Laub
    et al. 1987), accurate to rounding times the largest. Raises ValueError for a wrong ``count``, ``padding`` or batch shape,
    and for unstable systems.

    >>> import numpy as np
    >>> from ssmid import ImpulseResponse
    >>> t = np.arange(4000)
    >>> spectrum = hankel_spectrum(ImpulseResponse(0.999**t * np.cos(0.3 * t)), 4)
    >>> bool(spectrum.converged.all()), spectrum.left.shape
    (True, (3999, 4))
    """
    raise not_a_system(system)


@hankel_spectrum.register
def _of_system(system: System, count: int | None = None, *, padding: str = "zero", **_: Any) -> HankelSpectrum:
    if isinstance(system, FrequencyResponse):
        raise TypeError("expected a system, got a FrequencyResponse: make it an impulse response first with ssmid.impulse_response")
    if padding != "zero":
        raise ValueError(f"padding: only an impulse response has a choice, got {padding!r} for a {type(system).__name__}")
    R, L = gramian_factors(system if isinstance(system, (StateSpace, Modal)) else to_state_space(system))
    product = adjoint(L) @ R
    xp = namespace(product)
    sound = finite_elements(product, 2)
    sigma = singular_values(xp.where(sound[..., None, None], product, xp.zeros_like(product)))
    sigma = xp.where(sound[..., None], sigma, xp.full_like(sigma, float("nan")))
    sigma = _padded(sigma, _checked_count(count, sigma.shape[-1]))
    error = sigma[..., :1] * (float(xp.finfo(sigma.dtype).eps) * max(1, sigma.shape[-1])) + xp.zeros_like(sigma)
    return HankelSpectrum(sigma, error, xp.isfinite(sigma))


@hankel_spectrum.register
def _of_response(
    system: ImpulseResponse,
    count: int | None = None,
    *,
    padding: str = "zero",
    mimo: bool = False,
    rtol: float = 1e-8,
    max_products: int | None = None,
) -> HankelSpectrum:
    taps = channels(system, mimo)
    rows, columns = hankel_shape(taps.shape[-1], padding)
    size = min(taps.shape[-3] * rows, taps.shape[-2] * columns)
    count = _checked_count(count, size if size <= _ALL else _LEADING)
    return _of_taps(taps[..., 1:], rows, columns, count, bits=width(system.taps), mimo=mimo, rtol=rtol, max_products=max_products)


# ---------------------------------------------------------------- impulse responses


def channels(system: ImpulseResponse, mimo: bool) -> Array:
    """All taps as ``(*batch, p, m, length)`` in double precision, detached; one channel a system unless ``mimo``."""
    taps = detach(double(system.taps))
    if not mimo:
        return taps[..., None, None, :]
    if taps.ndim < 3 or 0 in taps.shape[-3:-1]:
        raise ValueError(f"mimo: expected taps of shape (*batch, outputs, inputs, length), got {tuple(taps.shape)}")
    return taps


def hankel_shape(length: int, padding: str) -> tuple[int, int]:
    """Rows and columns (blocks of channels) of the Hankel matrix of a response of ``length`` taps."""
    order = length - 1
    if padding == "zero":
        return order, order
    if padding == "none":
        return (order + 1) // 2, order - (order + 1) // 2 + (1 if order else 0)
    raise ValueError(f"padding: expected 'zero' or 'none', got {padding!r}")


def normalized(taps: Array) -> tuple[Array, Array, Array]:
    """``(taps, sound, scale)``: ``(*batch, p, m, length)`` divided by a power of two next to the largest entry, which is exact.

    sound, scale : ``(*batch,)``. Elements that are not finite are made zero; the scale of zeros is 1.
    """
    xp = namespace(taps)
    sound = finite_elements(taps, 3)
    taps = xp.where(sound[..., None, None, None], taps, xp.zeros_like(taps))
    if taps.shape[-1] == 0:
        return taps, sound, xp.ones(sound.shape, dtype=xp.float64, device=taps.device)
    largest = xp.max(xp.abs(taps), axis=(-3, -2, -1))
    scale = xp.pow(xp.full_like(largest, 2.0), xp.floor(xp.log2(xp.where(largest == 0, xp.ones_like(largest), largest))))
    return taps / xp.astype(scale, taps.dtype)[..., None, None, None], sound, scale


def hankel_triplets(
    taps: Array,
    rows: int,
    columns: int,
    count: int,
    *,
    rtol: float = 1e-8,
    tail_rtol: float = 0.0,
    max_products: int | None = None,
    dense: int = DENSE,
) -> Triplets:
    """The ``count`` leading singular triplets of the block Hankel matrix of the strictly proper ``taps`` ``(*batch, p, m, length)``.

    Batch axes as in ``taps``; vectors are rows of ``p rows`` and ``m columns`` entries, channel after channel. Values beyond the
    size of the matrix are 0 with zero vectors; elements that are not finite are NaN. Matrices up to ``dense`` are decomposed whole.
    """
    xp = namespace(taps)
    batch, (p, m, length) = taps.shape[:-3], taps.shape[-3:]
    flat, sound, scale = normalized(xp.reshape(taps, (prod(batch), p, m, length)))
    size = min(p * rows, m * columns)
    found = min(count, size)
    if found == 0 or flat.shape[0] == 0:
        parts = [_zero_triplets(flat, found, p * rows, m * columns)]
    elif size <= dense or 3 * found > size:
        per_element = 8 * (p * rows * m * columns) * (6 if is_complex(flat) else 3)
        parts = [_dense_triplets(part, rows, columns, found) for part in _chunks(flat, per_element)]
    else:
        block = max(_BLOCK, min(16, found // 16))
        basis = _basis_size(found, block, p * rows + m * columns, size)
        limits = {"rtol": rtol, "tail_rtol": tail_rtol, "max_products": max_products or 100 * (found + 20)}
        search = partial(leading_triplets, count=found, block=block, basis=basis, **limits)
        per_element = 8 * basis * (p * rows + m * columns) * (2 if is_complex(flat) else 1)
        parts = [search(_operator(part, rows, columns), like=part) for part in _chunks(flat, per_element)]
    return _assembled(parts, batch, sound, scale, count)


_BLOCK = 4
"""Vectors to a block: small blocks need the fewest products, and the FFTs of a batch are wide enough by themselves."""


def _of_taps(taps: Array, rows: int, columns: int, count: int, *, bits: int, mimo: bool, **options: Any) -> HankelSpectrum:
    """The spectrum of ``taps``, cast back to ``bits``, with vectors as columns."""
    xp = namespace(taps)
    triplets = hankel_triplets(taps, rows, columns, count, **options)
    left, right = triplets.left, triplets.right
    if mimo:
        left = xp.reshape(left, (*left.shape[:-1], taps.shape[-3], rows))
        right = xp.reshape(right, (*right.shape[:-1], taps.shape[-2], columns))
        left, right = xp.moveaxis(left, -3, -1), xp.moveaxis(right, -3, -1)
    else:
        left, right = transpose(left), transpose(right)
    sigma, error, left, right = (astype_width(a, bits) for a in (triplets.sigma, triplets.error, left, right))
    return HankelSpectrum(sigma, error, triplets.converged, left, right, triplets.products)


def _operator(taps: Array, rows: int, columns: int) -> Operator:
    product, adjoint_product = block_hankel_products(taps, rows, columns)
    p, m = taps.shape[-3:-1]
    xp = namespace(taps)
    return Operator(
        p * rows, m * columns, product, adjoint_product, lambda indices: _operator(xp.take(taps, indices, axis=0), rows, columns)
    )


def _dense_triplets(taps: Array, rows: int, columns: int, count: int) -> Triplets:
    """From the Hankel matrices themselves; of one real channel, which is symmetric, by its eigenvalues."""
    xp = namespace(taps)
    H = hankel_matrix(taps, rows, columns)
    if taps.shape[-3:-1] == (1, 1) and rows == columns and not is_complex(taps):
        values, vectors = eigh(H)
        order = xp.argsort(xp.abs(values), axis=-1, descending=True)[:, :count]
        values = xp.take_along_axis(values, order, axis=-1)
        left = xp.take_along_axis(transpose(vectors), order[:, :, None], axis=-2)
        sigma = xp.abs(values)
        right = left * xp.where(values < 0, -xp.ones_like(values), xp.ones_like(values))[:, :, None]
    else:
        U, sigma, Vh = svd(H)
        sigma, left, right = sigma[:, :count], transpose(U)[:, :count, :], xp.conj(Vh[:, :count, :]) if is_complex(Vh) else Vh[:, :count, :]
    error = xp.zeros_like(sigma) + 4 * float(xp.finfo(sigma.dtype).eps) * H.shape[-2] ** 0.5 * sigma[:, :1]
    return Triplets(sigma, error, xp.ones(sigma.shape, dtype=xp.bool, device=taps.device), left, right, 0)


def hankel_matrix(taps: Array, rows: int, columns: int) -> Array:
    """The block Hankel matrix ``(*batch, p rows, m columns)`` of ``taps`` ``(*batch, p, m, length)``, zero beyond the last tap."""
    xp = namespace(taps)
    *batch, p, m, length = taps.shape
    missing = max(0, rows + columns - 1 - length)
    taps = xp.concat([taps, xp.zeros((*batch, p, m, missing), dtype=taps.dtype, device=taps.device)], axis=-1)
    index = from_numpy(np.add.outer(np.arange(rows), np.arange(columns)).reshape(-1), taps)
    H = xp.reshape(xp.take(taps, index, axis=-1), (*batch, p, m, rows, columns))
    return xp.reshape(xp.moveaxis(H, -3, -2), (*batch, p * rows, m * columns))


def _assembled(parts: list[Triplets], batch: tuple[int, ...], sound: Array, scale: Array, count: int) -> Triplets:
    """One result of all chunks, in the batch's shape and scale, with ``count`` values."""
    xp = namespace(sound)

    def whole(name: str) -> Array:
        array = xp.concat([getattr(part, name) for part in parts], axis=0)
        missing = count - array.shape[1]
        if missing:
            rest = xp.zeros((array.shape[0], missing, *array.shape[2:]), dtype=array.dtype, device=array.device)
            array = xp.concat([array, rest if name != "converged" else ~rest], axis=1)
        keep = xp.reshape(sound, (-1, *(1,) * (array.ndim - 1)))
        if name == "converged":
            array = array & keep
        else:
            array = xp.where(keep, array, xp.full_like(array, float("nan")))
        if name in ("sigma", "error"):
            array = array * scale[:, None]
        return xp.reshape(array, (*batch, *array.shape[1:]))

    return Triplets(
        whole("sigma"), whole("error"), whole("converged"), whole("left"), whole("right"), max(part.products for part in parts)
    )


def _zero_triplets(flat: Array, count: int, rows: int, columns: int) -> Triplets:
    xp = namespace(flat)
    batch = flat.shape[0]
    sigma = xp.zeros((batch, count), dtype=xp.float64, device=flat.device)
    left, right = (xp.zeros((batch, count, n), dtype=flat.dtype, device=flat.device) for n in (rows, columns))
    return Triplets(sigma, sigma, sigma == 0, left, right, 0)


def _basis_size(count: int, block: int, entries: int, size: int) -> int:
    """Vectors in each basis: three times what is wanted where memory allows; fewer only mean more restarts."""
    affordable = 2**30 // (8 * entries)
    least = count + max(block, count // 2) + 2 * block
    return min(size, max(least, min(affordable, max(3 * count, count + 64))))


def _chunks(flat: Array, per_element: int) -> list[Array]:
    """``flat`` in pieces that fit the memory set aside for them."""
    step = max(1, _MEMORY["gpu" if on_gpu(flat) else "host"] // max(1, per_element))
    return [flat[i : min(i + step, flat.shape[0]), ...] for i in range(0, flat.shape[0], step)]


def _checked_count(count: int | None, default: int) -> int:
    if count is None:
        return default
    if int(count) != count or count < 1:
        raise ValueError(f"count: expected a positive integer, got {count!r}")
    return int(count)


def _padded(sigma: Array, count: int) -> Array:
    """The ``count`` leading values, zeros beyond the last."""
    xp = namespace(sigma)
    missing = max(0, count - sigma.shape[-1])
    zeros = xp.zeros((*sigma.shape[:-1], missing), dtype=sigma.dtype, device=sigma.device)
    zeros = xp.where(xp.isfinite(sigma[..., :1]), zeros, xp.full_like(zeros, float("nan"))) if sigma.shape[-1] else zeros
    return xp.concat([sigma, zeros], axis=-1)[..., :count]
