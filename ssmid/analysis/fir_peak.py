"""The largest gain of FIR filters over all frequencies, with a proof: an FFT grid, and zooms only where the maximum can still be.

A trigonometric polynomial of degree ``n`` with the maximum M at ``x`` is at least ``M cos(n (y - x))`` at ``y`` near ``x`` (M. Riesz
1914). ``|H|`` of ``L`` taps has degree ``(L - 1)/2``: on a grid of step ``h`` the point nearest to the maximum shows at least
``M cos((L - 1) h / 4)``, so all other points can be dropped, and the grid maximum divided by that cosine bounds M from above.
Of coupled channels the same holds: with the singular vectors u, v of the maximum, ``u* H v`` is such a polynomial, and no larger.
"""

from __future__ import annotations

from math import pi, prod, sin

import numpy as np

from ssmid._array import Array, as_complex, fft_of, finite_elements, from_numpy, is_complex, namespace, next_fast_length, to_numpy
from ssmid.linalg import svd

_OVERSAMPLING = 32
_LARGEST_GRID, _LEAST_OVERSAMPLING = 2**22, 4
_ZOOM = 64
_MOST_ZOOMS = 64
_CHUNK = 2**22


def fir_peak(taps: Array, rtol: float = 1e-6) -> tuple[Array, Array]:
    """Largest singular value of ``H`` and its frequency in rad/sample, each ``(*batch,)``.

    taps : ``(*batch, p, m, length)``, float64 or complex128. Relative error at most ``rtol``, proven. Frequencies in [0, pi] for real
    taps, in [0, 2 pi) for complex ones. NaN gives NaN. Not differentiable.
    """
    xp = namespace(taps)
    *batch, p, m, length = taps.shape
    flat = xp.reshape(taps, (prod(batch), p, m, length))
    scale = xp.max(xp.abs(flat), axis=(-3, -2, -1), keepdims=True)
    flat = flat / xp.where(scale > 0, scale, xp.ones_like(scale))
    # a fine grid spares zooms; of millions of taps it costs more than they do
    size = next_fast_length(max(min(_OVERSAMPLING * length, _LARGEST_GRID), _LEAST_OVERSAMPLING * length))
    rows = max(1, _CHUNK // (size * p * m))
    parts = [_peaks(flat[start : min(start + rows, flat.shape[0]), ...], size, rtol / 2) for start in range(0, flat.shape[0], rows)]
    gain, omega = (np.concatenate([p[k] for p in parts]) if parts else np.zeros(0) for k in (0, 1))
    omega = omega if is_complex(taps) else np.where(omega > pi, 2 * pi - omega, np.abs(omega))
    gain = from_numpy(gain, taps) * scale[:, 0, 0, 0]
    return xp.reshape(gain, tuple(batch)), xp.reshape(from_numpy(omega % (2 * pi), taps), tuple(batch))


def _gains(values: Array) -> Array:
    """The largest singular value of ``values`` ``(filters, p, m, k)`` at each of k points; NaN where they are not finite."""
    xp = namespace(values)
    if values.shape[-3:-1] == (1, 1):
        return xp.abs(values[:, 0, 0, :])
    matrices = xp.moveaxis(values, -1, -3)
    sound = finite_elements(matrices, 2)
    sigma = svd(xp.where(sound[..., None, None], matrices, xp.zeros_like(matrices)))[1][..., 0]
    return xp.where(sound, sigma, xp.full_like(sigma, float("nan")))


def _peaks(taps: Array, size: int, relative: float) -> tuple[np.ndarray, np.ndarray]:
    """Gains and frequencies on the host: the spectra stay where they are, what can still hold a maximum is a handful of points."""
    xp = namespace(taps)
    step = 2 * pi / size
    transform = fft_of(taps)
    gains = _gains((transform.fft if is_complex(taps) else transform.rfft)(taps, n=size, axis=-1))
    best, omega = to_numpy(xp.max(gains, axis=-1)).copy(), step * to_numpy(xp.argmax(gains, axis=-1))
    threshold = xp.max(gains, axis=-1, keepdims=True) * (1 - _shortfall(taps, step))
    filters, points = to_numpy(gains >= threshold).nonzero()
    flat = np.bincount(filters, minlength=len(best)) > _MOST_ZOOMS
    centres = step * points
    while _shortfall(taps, step) > relative and len(filters):
        zoomed = ~flat[filters]
        filters, centres = filters[zoomed], centres[zoomed]
        gains, points = _zoom(taps, filters, centres, step)
        step /= _ZOOM
        _keep_larger(best, omega, filters, gains, points)
        pair, offset = (gains >= (best * (1 - _shortfall(taps, step)))[filters][:, None]).nonzero()
        filters, centres = filters[pair], points[pair, offset]
    for index in np.flatnonzero(flat):
        _search_fine_grid(taps[int(index) : int(index) + 1, ...], size, relative, int(index), best, omega)
    return best, omega


def _shortfall(taps: Array, step: float) -> float:
    """How much of the maximum the nearest point of a grid of ``step`` can miss, relative."""
    return 2 * sin((taps.shape[-1] - 1) * step / 8) ** 2


def _zoom(taps: Array, filters: np.ndarray, centres: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Gains at ``_ZOOM`` points of the cell of width ``step`` around each centre, ``(cells, _ZOOM)``, and those points."""
    xp = namespace(taps)
    p, m, length = taps.shape[1:]
    offsets = step * ((np.arange(_ZOOM) + 0.5) / _ZOOM - 0.5)
    # a long sum goes by pieces of the taps, so that the table of the fine exponentials stays small
    piece = min(length, _CHUNK // _ZOOM)
    t = np.arange(piece) * 1.0
    fine = from_numpy(np.exp(-1j * t[:, None] * offsets), taps)
    gains = np.empty((len(filters), _ZOOM))
    rows = max(1, _CHUNK // (p * m * piece))
    for start in range(0, len(filters), rows):
        cells = slice(start, min(start + rows, len(filters)))
        chosen = xp.take(taps, from_numpy(filters[cells], taps), axis=0)
        values = 0.0
        for first in range(0, length, piece):
            part = chosen[..., first : min(first + piece, length)]
            angle = from_numpy(centres[cells], taps)[:, None] * (from_numpy(t[: part.shape[-1]], taps) + first)
            turn = (as_complex(xp.cos(angle)) - 1j * as_complex(xp.sin(angle)))[:, None, None, :]
            values = values + (part * turn) @ fine[: part.shape[-1], :] * from_numpy(np.exp(-1j * first * offsets), taps)
        gains[cells] = to_numpy(_gains(values))
    return gains, centres[:, None] + offsets


def _search_fine_grid(taps: Array, size: int, relative: float, index: int, best: np.ndarray, omega: np.ndarray) -> None:
    """For a flat gain, where every point is a candidate: the whole fine grid, one FFT for each shift of the coarse one."""
    step = 2 * pi / size
    shifts = int(np.ceil(np.sqrt(_shortfall(taps, step) / relative)))
    t = np.arange(taps.shape[-1])
    for k in range(1, shifts):
        shift = k * step / shifts
        gains = to_numpy(_gains(fft_of(taps).fft(taps * from_numpy(np.exp(-1j * shift * t), taps), n=size, axis=-1)))
        _keep_larger(best, omega, np.array([index]), gains, shift + step * np.arange(size)[None])


def _keep_larger(best: np.ndarray, omega: np.ndarray, filters: np.ndarray, gains: np.ndarray, points: np.ndarray) -> None:
    """Raises ``best`` and ``omega`` of each filter to the largest of its rows of ``gains``, in place."""
    where = gains.argmax(axis=-1)
    for filter_index, gain, point in zip(filters, gains.max(axis=-1), points[np.arange(len(where)), where], strict=True):
        if gain > best[filter_index]:
            best[filter_index], omega[filter_index] = gain, point
