"""The largest gain of the difference between a filter and a model over all frequencies, from above, with its whole tail.

``E = sum_{t<N} e_t z^-t + z^-N sum_k later_k / (1 - p_k / z)`` is rational: with ``D = N - 1 + sum_k (1 - |p_k|^2) / |1 - p_k / z|^2`` the
inequality of Bernstein and Szego for rational functions with fixed poles (Borwein & Erdelyi, Polynomials and Polynomial Inequalities,
1995, section 7.1), ``f'^2 <= D^2 (1 - f^2)`` for ``f = 2 |E|^2 / max |E|^2 - 1``, gives ``|E(y)| >= max |E| cos(Theta / 2)`` where Theta is
the integral of D from y to the maximum. So a value in the middle of a cell bounds the cell, the more tightly the narrower it is, and poles
however near to the circle only make cells narrow near their angles. For polynomials this is M. Riesz' bound (fir_peak.py).

One FFT of four points to a tap leaves a few cells in which the maximum can be; these are divided by 16 until their bounds are
within the accuracy. Flat gains, of which all cells are left, get an FFT sixteen times finer.
"""

from __future__ import annotations

from math import isqrt, pi

import numpy as np

from ssmid._array import Array, as_complex, fft_of, from_numpy, namespace, next_fast_length, on_gpu, replaced, to_numpy
from ssmid.distillation.error_norms import ACCURACY, Difference, rounded_up

_OVERSAMPLING, _PARTS = 4, 16
_FLAT = 64
"""Cells of a filter that are divided one by one; an FFT is cheaper than more."""
_DEEPEST = 14
"""Divisions by 16 after which the cells near a pole at a distance of eps from the circle are as narrow as its resonance."""
_NEGLIGIBLE = ACCURACY / 20
_MEMORY = {"host": 2**25, "gpu": 2**32}
_RTOL = ACCURACY / 2


def hinf_norm(difference: Difference) -> Array:
    """``(n,)`` H-infinity norms, at most ``ACCURACY`` above the truth; infinity where poles are too near to the circle to tell."""
    d, xp = difference, namespace(difference.taps)
    taps = d.taps[:, : d.length]
    poles, later, rest, sizes = _modes_that_matter(d, xp.sum(taps**2, axis=-1) ** 0.5)
    found = xp.zeros_like(rest)
    for size in np.unique(sizes):
        places = np.flatnonzero(sizes == size)
        index = from_numpy(places, taps)
        e = _Response(*(xp.take(x, index, axis=0) for x in (taps, poles[:, :size], later[:, :size])))
        found = replaced(found, places, e.peak())
    return found + rest


def hinf_of_taps(taps: Array) -> Array:
    """``(n,)`` as :func:`hinf_norm`, of ``taps`` ``(n, N)`` alone."""
    none = as_complex(taps[:, :0])
    return _Response(taps, none, none).peak() if taps.shape[0] else taps[:, 0]


def _modes_that_matter(d: Difference, least: Array) -> tuple[Array, Array, Array, np.ndarray]:
    """``(poles, later, rest, sizes)``: one of each conjugate pair, the largest first; sizes of them count, rest bounds the others.

    A real pole stands for itself and its conjugate, with half its residue.
    """
    xp = namespace(d.poles)
    side = xp.imag(d.poles)
    later = xp.where(side < 0, xp.zeros_like(d.later), xp.where(side > 0, d.later, d.later / 2))
    reach = 2 * xp.abs(later) / (1 - xp.abs(d.poles))
    order = xp.argsort(reach, axis=-1, descending=True, stable=True)
    poles, later, reach = (xp.take_along_axis(x, order, axis=-1) for x in (d.poles, later, reach))
    beyond = xp.flip(xp.cumulative_sum(xp.flip(reach, axis=-1), axis=-1), axis=-1)
    needed = to_numpy(xp.count_nonzero(beyond > _NEGLIGIBLE * least[:, None], axis=-1))
    sizes = rounded_up(needed, poles.shape[-1])
    beyond = xp.concat([beyond, xp.zeros_like(beyond[:, :1])], axis=-1)
    return poles, later, xp.take_along_axis(beyond, from_numpy(sizes[:, None], beyond), axis=-1)[:, 0], sizes


class _Response:
    """Gains of taps ``(n, N)`` and of modes ``(n, q)`` that follow them, each with its conjugate."""

    def __init__(self, taps: Array, poles: Array, later: Array) -> None:
        self.taps, self.poles, self.later = taps, poles, later
        self.length, self.modes = taps.shape[-1], poles.shape[-1]
        self.memory = _MEMORY["gpu" if on_gpu(taps) else "host"]

    def take(self, index: Array) -> _Response:
        return _Response(*(namespace(self.taps).take(x, index, axis=0) for x in (self.taps, self.poles, self.later)))

    def peak(self) -> Array:
        """``(n,)`` largest gains, from above."""
        n, size = self.taps.shape[0], 2 * next_fast_length(_OVERSAMPLING // 2 * self.length)
        best, cells, centres = self._on_grid(size)
        flat = np.flatnonzero(np.bincount(to_numpy(cells), minlength=n) > _FLAT)
        if flat.size:
            keep = from_numpy(np.flatnonzero(~np.isin(to_numpy(cells), flat)), cells)
            cells, centres = (namespace(cells).take(x, keep, axis=0) for x in (cells, centres))
        best = self._divided(best, cells, centres, 2 * pi / size)
        if flat.size:
            finer = self.take(from_numpy(flat, best))
            best = replaced(best, flat, finer._divided(*finer._on_grid(_PARTS * size), 2 * pi / size / _PARTS))
        return best * (1 + _RTOL)

    def _on_grid(self, size: int) -> tuple[Array, Array, Array]:
        """``(best, cells, centres)``: the largest gains ``(n,)`` at ``size`` points of the circle, and the points, by filter and
        frequency, around which there may be larger ones."""
        xp, half = namespace(self.taps), size // 2 + 1
        points = np.arange(half)
        omega = from_numpy(2 * pi / size * points, self.taps)
        turn = from_numpy(np.exp(-2j * pi / size * np.stack([points, points * self.length % size])), self.taps)
        rows = max(1, self.memory // (16 * half * (3 + 4 * self.modes)))
        best, cells, centres = [], [], []
        for start in range(0, self.taps.shape[0], rows):
            part = self.take(xp.arange(start, min(start + rows, self.taps.shape[0]), device=self.taps.device))
            values = fft_of(self.taps).rfft(part.taps, n=size, axis=-1)
            gains, bounds = part._gains(values[:, None, :], turn[:1, None, :], turn[1:, None, :], 2 * pi / size)
            gains, bounds = gains[:, 0, :], bounds[:, 0, :]
            largest = xp.max(gains, axis=-1)
            filters, places = xp.nonzero(bounds > largest[:, None] * (1 + _RTOL))
            best.append(largest)
            cells.append(filters + start)
            centres.append(xp.take(omega, places, axis=0))
        return xp.concat(best), xp.concat(cells), xp.concat(centres)

    def _gains(self, values: Array, turn: Array, shift: Array, width: float) -> tuple[Array, Array]:
        """``|E|`` and what it is at most within half a ``width``, ``(n, 1, k)``, from the values of the taps alone.

        turn, shift : ``(n, 1, k)`` or less, ``1 / z`` and ``z^-N``   width : of the cells
        """
        xp = namespace(values)
        degree = float(self.length - 1)
        if self.modes:
            p, later = self.poles[:, :, None], self.later[:, :, None]
            inside = 1 - xp.abs(p)
            tail, poisson = 0.0, 0.0
            for mode, weight in ((p, later), (xp.conj(p), xp.conj(later))):
                apart = 1 - mode * turn
                tail = tail + xp.sum(weight / apart, axis=-2, keepdims=True)
                nearest = xp.maximum(inside, xp.abs(apart) - width / 2)
                poisson = poisson + xp.sum(inside * (2 - inside) / nearest**2, axis=-2, keepdims=True)
            values, degree = values + shift * tail, degree + poisson
        gains = xp.abs(values)
        phase = width / 4 * degree + xp.zeros_like(gains)
        known = phase < pi / 2 - 1e-3
        bounds = gains / xp.cos(xp.where(known, phase, xp.zeros_like(phase)))
        return gains, xp.where(known, bounds, xp.full_like(bounds, float("inf")))

    def _divided(self, best: Array, cells: Array, centres: Array, width: float) -> Array:
        """The largest gains, after the cells of that width around ``centres`` are divided until they are known to hold no larger ones."""
        xp = namespace(best)
        for _ in range(_DEEPEST):
            if cells.shape[0] == 0:
                return best
            width /= _PARTS
            points = centres[:, None] + from_numpy(width * (np.arange(_PARTS) - (_PARTS - 1) / 2), centres)
            parts, rows = [], max(1, self.memory // (8 * (self.length + 3 * _PARTS * (2 * isqrt(self.length) + 8 * self.modes + 8))))
            for start in range(0, cells.shape[0], rows):
                block = slice(start, min(start + rows, cells.shape[0]))
                parts.append(self.take(cells[block])._at(points[block, :], width))
            gains, bounds = (xp.concat([part[i] for part in parts], axis=0) for i in (0, 1))
            best = _raised(best, cells, xp.max(gains, axis=-1))
            where, which = xp.nonzero(bounds > (1 + _RTOL) * xp.take(best, cells, axis=0)[:, None])
            cells = xp.take(cells, where, axis=0)
            centres = xp.take(xp.reshape(points, (-1,)), where * _PARTS + which, axis=0)
        return _raised(best, cells, xp.full_like(centres, float("inf")))

    def _at(self, omega: Array, width: float) -> tuple[Array, Array]:
        """Gains and bounds ``(n, k)`` at ``omega`` ``(n, k)``: sums over the taps in two levels, ``t = q K + s``."""
        xp = namespace(omega)
        inner = isqrt(max(1, self.length - 1)) + 1
        outer = -(-self.length // inner)
        n, k = omega.shape
        table = xp.concat([self.taps, xp.zeros((n, inner * outer - self.length), dtype=xp.float64, device=omega.device)], axis=-1)
        table = xp.matrix_transpose(xp.reshape(table, (n, outer, inner)))
        angle = omega[:, :, None] * from_numpy(np.arange(inner) * 1.0, omega)
        sums = xp.concat([xp.cos(angle), -xp.sin(angle)], axis=1) @ table
        angle = omega[:, :, None] * from_numpy(np.arange(outer) * (1.0 * inner), omega)
        values = xp.sum(_unit(angle) * (as_complex(sums[:, :k, :]) + 1j * as_complex(sums[:, k:, :])), axis=-1)
        gains, bounds = self._gains(values[:, None, :], _unit(omega)[:, None, :], _unit(self.length * omega)[:, None, :], width)
        return gains[:, 0, :], bounds[:, 0, :]


def _unit(angle: Array) -> Array:
    """``exp(-i angle)``"""
    xp = namespace(angle)
    return as_complex(xp.cos(angle)) - 1j * as_complex(xp.sin(angle))


def _raised(best: Array, cells: Array, values: Array) -> Array:
    """``best`` ``(n,)`` raised to the largest of the ``values`` of its cells; ``cells`` ascend."""
    xp = namespace(best)
    if cells.shape[0] == 0:
        return best
    every = xp.arange(best.shape[0], device=best.device, dtype=cells.dtype)
    first, last = xp.searchsorted(cells, every), xp.searchsorted(cells, every, side="right")
    place = xp.arange(int(xp.max(last - first)), device=best.device, dtype=first.dtype) + first[:, None]
    own = xp.take(values, xp.reshape(xp.clip(place, max=cells.shape[0] - 1), (-1,)), axis=0)
    own = xp.where(place < last[:, None], xp.reshape(own, place.shape), best[:, None])
    return xp.maximum(best, xp.max(own, axis=-1))
