"""What l2-optimal approximation needs of an original at given poles: from values and derivatives inside the disk, or from its own poles."""

from __future__ import annotations

import dataclasses
from functools import partial
from math import isqrt

import numpy as np
import scipy.signal

from ssmid._array import Array, as_complex, in_threads, is_complex, namespace, on_gpu, on_host
from ssmid.kernels.compiler import fused
from ssmid.kernels.rational_local import rational_local
from ssmid.linalg import powers, transpose
from ssmid.reduction.h2_newton import Local, mirrored

_CHUNK_BYTES = {"host": 2**26, "gpu": 2**33}
"""The cache of a processor, and a share of the memory of a GPU, which would be left waiting for small pieces."""
_EPS = 2.0**-52
_DOUBTFUL_ERROR = 1e-6
"""Where a GPU, which evaluates at points, hands an element to the host, which filters: below this share of the energy, and where
rounding is felt (:attr:`TapsSource.doubtful`)."""


@dataclasses.dataclass(frozen=True, eq=False)
class TapsSource:
    """Power series ``g(w) = sum_t taps_t w^t``.

    taps : ``(batch, length)``, of complex banks the conjugates   real : whether the poles are closed under conjugation
    doubtful : where rounding is more than this cosine between the error and a change by a pole, a GPU hands an element to the host
    """

    taps: Array
    energy: Array
    real: bool
    doubtful: float

    @classmethod
    def of(cls, taps: Array, *, real: bool, doubtful: float = 1e-8) -> TapsSource:
        """Of strictly proper ``taps`` (without the feedthrough)."""
        xp = namespace(taps)
        taps = taps if real else xp.conj(as_complex(taps))
        return cls(taps, xp.sum(xp.abs(taps) ** 2, axis=-1), real, doubtful)

    def take(self, chosen: Array) -> TapsSource:
        xp = namespace(self.taps)
        return TapsSource(xp.take(self.taps, chosen, axis=0), xp.take(self.energy, chosen, axis=0), self.real, self.doubtful)

    def __call__(self, poles: Array, live: Array) -> Local:
        if not on_gpu(poles):
            return self._by_cascade(poles, live)
        found, places = self._found_by_points(poles, live)
        if places.shape[0]:
            part = self.take(places)._by_cascade(*(namespace(poles).take(x, places, axis=0) for x in (poles, live)))
            for field in dataclasses.fields(Local):
                getattr(found, field.name)[places] = getattr(part, field.name)
        return found

    def _found_by_points(self, poles: Array, live: Array) -> tuple[Local, Array]:
        """What evaluation at points gives, and the elements for which rounding makes it doubtful."""
        found, xp = self._by_points(poles, live), namespace(poles)
        size = xp.sqrt(xp.clip(self.energy - found.error, min=0.0) * xp.abs(found.error))
        return found, xp.nonzero((found.error < _DOUBTFUL_ERROR * self.energy) | (found.blur > self.doubtful * size))[0]

    def _by_cascade(self, poles: Array, live: Array) -> Local:
        """eta as a sequence, by filtering backwards with the all-pass sections of the poles: accurate however close they stand."""
        xp = namespace(poles)
        eta, states = on_host(partial(_all_pass_cascade, real=self.real), self.taps, poles, live)
        series = series_of_real if self.real else power_series
        alpha, slope, _ = series(eta, poles)
        rho = rho_of_sections(states, poles, live, real=self.real)
        error = xp.sum(xp.abs(eta) ** 2, axis=-1)
        noise = 8 * _EPS * xp.sqrt(error * self.energy) + (32 * _EPS) ** 2 * self.energy
        none = xp.zeros_like(poles)
        return Local(error, noise, 8 * _EPS * self.energy, *(xp.where(live, v, none) for v in (rho, alpha, slope)))

    def sections(self, poles: Array, live: Array) -> Array:
        """``(batch, K, 2)`` the coefficients of the best approximation, as :func:`cascade_realization` takes them."""
        if not on_gpu(poles):
            return on_host(partial(_all_pass_cascade, real=self.real), self.taps, poles, live)[1]
        found, places = self._found_by_points(poles, live)
        z = sections_of_rho(found.rho, poles, live, real=self.real)
        if places.shape[0]:
            xp = namespace(poles)
            part = [xp.take(x, places, axis=0) for x in (self.taps, poles, live)]
            z[places] = on_host(partial(_all_pass_cascade, real=self.real), *part)[1]
        return z

    def _by_points(self, poles: Array, live: Array) -> Local:
        if self.real and fused(self.taps):
            rho, alpha, slope, fitted, least = rational_local(self.taps, poles, live)
            return Local(self.energy - fitted, 16 * _EPS * self.energy, 8 * _EPS * self.energy / least, rho, alpha, slope)
        values = series_of_real(self.taps, poles) if self.real else power_series(self.taps, poles)
        return local_of_values(values, poles, live, self.energy)


def rho_of_sections(states: Array, poles: Array, live: Array, *, real: bool) -> Array:
    """``rho`` ``(batch, d)`` from the coefficients of a cascade, section after section by Horner's rule."""
    xp = namespace(poles)
    rho, size = xp.zeros_like(poles), 2 if real else 1
    for k in range(poles.shape[-1] // size):
        own, used = (v[:, size * k : size * (k + 1)] for v in (poles, live))
        numerator, denominator, factor = as_complex(states[:, k, :1]), xp.ones_like(poles), xp.ones_like(poles)
        numerator = numerator + as_complex(states[:, k, 1:]) * poles if real else xp.conj(numerator)
        for i in range(size):
            on = used[:, i : i + 1]
            reflected = xp.where(on, 1 - xp.conj(own[:, i : i + 1]) * poles, xp.ones_like(poles))
            denominator = denominator * reflected
            factor = factor * xp.where(on, poles - own[:, i : i + 1], xp.ones_like(poles)) / reflected
        rho = rho * factor + numerator / denominator
    return rho


def sections_of_rho(rho: Array, poles: Array, live: Array, *, real: bool) -> Array:
    """The way back of :func:`rho_of_sections`, from the last section to the first: a divided difference each."""
    xp = namespace(poles)
    size, one, found = 2 if real else 1, xp.ones_like(poles), []
    for k in reversed(range(poles.shape[-1] // size)):
        here = slice(size * k, size * (k + 1))
        own, used = poles[:, here], live[:, here]
        denominator, factor = one, one
        for i in range(size):
            on, zero = used[:, i : i + 1], own[:, i : i + 1]
            reflected = xp.where(on, 1 - xp.conj(zero) * poles, one)
            denominator, factor = denominator * reflected, factor * xp.where(on, poles - zero, one) / reflected
        value = (rho * denominator)[:, here]
        first, slope = value[:, :1], 0 * value[:, :1]
        if real:
            gap, both = own[:, :1] - own[:, 1:], used[:, 1:]
            slope = xp.where(both, (value[:, :1] - value[:, 1:]) / xp.where(both, gap, xp.ones_like(gap)), slope)
            first = first - slope * own[:, :1]
        z = xp.where(used[:, :1], xp.concat([first, slope], axis=-1), xp.zeros_like(xp.concat([first, slope], axis=-1)))
        found.append(xp.real(z) if real else xp.conj(z))
        numerator = z[:, :1] + z[:, 1:] * poles
        rho = (rho - numerator / denominator) / xp.where(factor == 0, one, factor)
    return xp.stack(found[::-1], axis=-2)


def _all_pass_cascade(taps: np.ndarray, poles: np.ndarray, live: np.ndarray, real: bool) -> tuple[np.ndarray, np.ndarray]:
    """``eta = P_+ (B* g)`` ``(batch, length)`` and the last states of the sections: their parts of the best approximation.

    Run backwards in time a section ``b_k(w) = (w^2 - s w + p) / (1 - s w + p w^2)`` ends in the states z with
    ``g = (z1 + z0 w) / (1 - s w + p w^2) + b_k eta_k``, whose two terms are orthogonal.
    """
    batch = len(poles)
    if real:
        first, second = poles[:, 0::2], np.where(live[:, 1::2], poles[:, 1::2], 0)
        total, product = np.real(first + second), np.real(first * second)
        one, none = np.ones_like(total), np.zeros_like(total)
        # a section of a single pole is one of two poles without the zero and the pole at 0
        single = ~live[:, 1::2]
        rows = [np.where(single, -total, product), np.where(single, one, -total), np.where(single, none, one), one, -total, product]
        on = live[:, 0::2]
    else:
        one, none = np.ones_like(poles), np.zeros_like(poles)
        rows, on = [-np.conj(poles), one, none, one, -poles, none], live
    sections = np.stack(rows, axis=-1)
    sections[~on] = [1, 0, 0, 1, 0, 0]
    backwards = np.ascontiguousarray(taps[:, ::-1])
    start = np.zeros((sections.shape[1], 2), sections.dtype)

    def element(own: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not (np.isfinite(own).all() and np.isfinite(x).all()):
            return np.full_like(x, np.nan), np.full_like(start, np.nan)
        return scipy.signal.sosfilt(own, x, zi=start)

    if batch == 0 or sections.shape[1] == 0:
        return taps, np.zeros((batch, sections.shape[1], 2), sections.dtype)
    eta, states = zip(*in_threads(element, sections, backwards), strict=True)
    return np.stack(eta)[:, ::-1], np.stack(states)


def series_of_real(taps: Array, points: Array) -> tuple[Array, Array, Array]:
    """:func:`power_series` of real ``taps`` at points closed under conjugation: those of the upper half plane are enough."""
    xp = namespace(taps)
    lower = xp.imag(points) < 0
    order = xp.argsort(xp.astype(lower, xp.int64), axis=-1, stable=True)
    count = int(xp.max(xp.sum(xp.astype(~lower, xp.int64), axis=-1)))
    found = power_series(taps, xp.take_along_axis(points, order, axis=-1)[..., :count])
    # the lower member of a pair stands beside the upper one, on either side
    place = xp.argsort(order, axis=-1, stable=True)
    pair = xp.imag(points) != 0
    partner = _neighbours(place)
    source = xp.where(lower, partner, place)
    source = xp.clip(source, max=count - 1)
    values = []
    for value in found:
        value = xp.take_along_axis(value, source, axis=-1)
        values.append(xp.where(lower & pair, xp.conj(value), value))
    return values[0], values[1], values[2]


def _neighbours(x: Array) -> Array:
    """The entries of slots 2k and 2k + 1 exchanged."""
    xp = namespace(x)
    return xp.reshape(xp.stack([x[..., 1::2], x[..., 0::2]], axis=-1), x.shape)


def power_series(taps: Array, points: Array) -> tuple[Array, Array, Array]:
    """``sum_t taps_t x^t`` ``(batch, k)`` and its first two derivatives at ``points`` ``(batch, k)`` in the unit disk.

    With ``t = q K + s``, K about the square root of the length, powers and their derivatives make two small tables, and all sums
    over s one product of real matrices: no ``k x length`` matrix, and O(length k) operations for all three.
    """
    xp = namespace(taps, points)
    batch, length = taps.shape
    inner = isqrt(max(length, 1) - 1) + 1
    outer = -(-length // inner)
    chunk = max(1, _CHUNK_BYTES["gpu" if on_gpu(taps) else "host"] // (96 * (inner + outer) * max(1, points.shape[-1])))
    parts = []
    for start in range(0, batch, chunk):
        parts.append(_power_series(taps[start : min(start + chunk, batch), :], points[start : min(start + chunk, batch), :], inner, outer))
    return tuple(xp.concat([p[i] for p in parts], axis=0) for i in range(3))  # pyright: ignore[reportReturnType]


def _power_series(taps: Array, points: Array, inner: int, outer: int) -> tuple[Array, Array, Array]:
    xp = namespace(taps)
    batch, length = taps.shape
    k = points.shape[-1]
    padding = xp.zeros((batch, inner * outer - length), dtype=taps.dtype, device=taps.device)
    table = xp.reshape(xp.concat([taps, padding], axis=-1), (batch, outer, inner))
    fine = powers(points, inner)
    ramp = xp.astype(xp.arange(inner, dtype=xp.float64, device=taps.device), fine.dtype)
    none = xp.zeros_like(fine[..., :1])
    fine1 = xp.concat([none, ramp[1:] * fine[..., :-1]], axis=-1)
    fine2 = xp.concat([none, ramp[1:] * fine1[..., :-1]], axis=-1)
    step, step1 = fine[..., -1:] * points[..., None], inner * fine[..., -1:]
    step2 = inner * (inner - 1) * (fine[..., -2:-1] if inner > 1 else none)
    coarse = powers(step[..., 0], outer)
    count = xp.astype(xp.arange(outer, dtype=xp.float64, device=taps.device), fine.dtype)
    none = xp.zeros_like(coarse[..., :1])
    # derivatives of y^q for y = x^K
    by_y = xp.concat([none, count[1:] * coarse[..., :-1]], axis=-1)
    by_yy = xp.concat([none, count[1:] * by_y[..., :-1]], axis=-1)
    coarse1, coarse2 = by_y * step1, by_yy * step1**2 + by_y * step2
    tables = xp.concat([fine, fine1, fine2], axis=-2)
    if is_complex(taps):
        sums = tables @ transpose(table)
    else:
        both = xp.concat([xp.real(tables), xp.imag(tables)], axis=-2) @ transpose(table)
        sums = as_complex(both[:, : 3 * k, :]) + 1j * as_complex(both[:, 3 * k :, :])
    f0, f1, f2 = sums[:, :k, :], sums[:, k : 2 * k, :], sums[:, 2 * k :, :]
    value = xp.sum(coarse * f0, axis=-1)
    first = xp.sum(coarse * f1 + coarse1 * f0, axis=-1)
    second = xp.sum(coarse * f2 + 2 * coarse1 * f1 + coarse2 * f0, axis=-1)
    return value, first, second


def local_of_values(values: tuple[Array, Array, Array], poles: Array, live: Array, energy: Array) -> Local:
    """From the values of g at the poles and its first two derivatives, by divided differences in the disk (Nevanlinna's algorithm).

    Pole after pole the interpolant is taken off and the zero divided out, ``x(w) <- (x(w) (1 - p* w) - x(p) (1 - |p|^2)) / (w - p)``:
    what is taken off are the coefficients of the Takenaka-Malmquist functions, orthonormal, what is left is eta. Through the Gram
    matrix rounding would grow by its condition; so it grows by the root of that, in Leja's order of the poles.
    """
    xp = namespace(poles)
    order = _leja(poles, live)
    back = xp.argsort(order, axis=-1)
    p, on = (xp.take_along_axis(v, order, axis=-1) for v in (poles, live))
    x, x1, x2 = (xp.take_along_axis(v, order, axis=-1) for v in values)
    inside, mirror, place = 1 - xp.abs(p) ** 2, xp.conj(p), xp.arange(p.shape[-1], device=p.device)
    fitted = xp.zeros_like(energy)
    sigma, apart = xp.zeros_like(p), xp.ones_like(p)
    for k in range(p.shape[-1]):
        own, used = place == k, on[:, k : k + 1]
        q, e = 1 - mirror[:, k : k + 1] * p, as_complex(inside[:, k : k + 1])
        taken = x[:, k : k + 1]
        fitted = fitted + xp.where(used, xp.abs(taken) ** 2 * inside[:, k : k + 1], 0.0 * inside[:, k : k + 1])[:, 0]
        difference = xp.where(own, xp.ones_like(p), p - p[:, k : k + 1])
        n, n1, n2 = x * q - taken * e, x1 * q - mirror[:, k : k + 1] * x, x2 * q - 2 * mirror[:, k : k + 1] * x1
        y = xp.where(own, n1, n / difference)
        y1 = xp.where(own, n2 / 2, (n1 - y) / difference)
        y2 = (n2 - 2 * y1) / difference
        x, x1, x2 = (xp.where(used, new, old) for new, old in ((y, x), (y1, x1), (y2, x2)))
        factor = xp.where(used, xp.where(own, 0 * p, (p - p[:, k : k + 1]) / q), xp.ones_like(p))
        sigma = sigma * xp.conj(factor) + xp.where(used, taken * e / xp.conj(q), 0 * p)
        apart = apart * xp.where(own, xp.ones_like(p), factor)
    least = xp.min(xp.where(live, xp.abs(xp.take_along_axis(apart, back, axis=-1)), xp.ones_like(energy)[:, None]), axis=-1)
    rho, alpha, slope = (xp.where(live, xp.take_along_axis(v, back, axis=-1), 0 * poles) for v in (xp.conj(sigma), x, x1))
    return Local(energy - fitted, 16 * _EPS * energy, 8 * _EPS * energy / least, rho, alpha, slope)


def _leja(poles: Array, live: Array) -> Array:
    """Indices: each pole is the one farthest from those before, as a product of pseudo-hyperbolic distances; not live ones last."""
    xp = namespace(poles)
    tiny = float(xp.finfo(xp.float64).smallest_normal)
    gaps = xp.abs(poles[..., :, None] - poles[..., None, :]) / xp.abs(1 - poles[..., :, None] * xp.conj(poles)[..., None, :])
    gaps = xp.log(xp.clip(gaps, min=tiny))
    score = xp.where(live, xp.abs(poles), xp.full_like(xp.abs(poles), -1e6))
    order = []
    for _ in range(poles.shape[-1]):
        best = xp.argmax(score, axis=-1, keepdims=True)
        order.append(best)
        gap = xp.take_along_axis(gaps, best[..., None], axis=-2)[..., 0, :]
        score = (score if len(order) > 1 else xp.where(live, xp.zeros_like(score), score)) + gap
        taken = xp.arange(poles.shape[-1], device=poles.device) == best
        score = xp.where(taken, xp.full_like(score, -1e300), score)
    return xp.concat(order, axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class ModalSource:
    """Sums of modes ``g(w) = sum_i residues_i / (1 - own_i w)``, to full relative accuracy of the error however small.

    A Toeplitz operator with the symbol conj(B) multiplies each mode by a number, the conjugate of B at its pole, so that eta is
    known as a sum of modes: ``eta(w) = sum_i residues_i B~(own_i) / (1 - own_i w)``.

    own, residues : ``(batch, n)``, of complex banks the conjugates
    """

    own: Array
    residues: Array
    energy: Array
    real: bool

    @classmethod
    def of(cls, own: Array, residues: Array, *, real: bool) -> ModalSource:
        own, residues = (mirrored(x, real) for x in (own, residues))
        return cls(own, residues, _norm_squared(own, residues, real), real)

    def take(self, chosen: Array) -> ModalSource:
        xp = namespace(self.own)
        own, residues, energy = (xp.take(a, chosen, axis=0) for a in (self.own, self.residues, self.energy))
        return ModalSource(own, residues, energy, self.real)

    def __call__(self, poles: Array, live: Array) -> Local:
        xp = namespace(poles)
        own = self.own
        one = xp.ones((), dtype=poles.dtype, device=poles.device)
        mirror = mirrored(poles, self.real)
        reach = xp.where(live[..., None, :], 1 - own[..., :, None] * poles[..., None, :], one)
        factors = xp.where(live[..., None, :], (own[..., :, None] - mirror[..., None, :]) / reach, one)
        before, after = _products(factors)
        left = self.residues * before[..., -1] * factors[..., -1]
        kernel = xp.where(live[..., None, :], left[..., :, None] / reach, 0 * one)
        alpha = xp.sum(kernel, axis=-2)
        slope = xp.sum(kernel * own[..., :, None] / reach, axis=-2)
        others = self.residues[..., :, None] * before * after
        sigma = xp.where(live, xp.sum(xp.where(live[..., None, :], others / reach, 0 * one), axis=-2), 0 * one)
        error = _norm_squared(own, left, self.real)
        noise = 8 * _EPS * xp.sqrt(error * self.energy) + (32 * _EPS) ** 2 * self.energy
        return Local(error, noise, 8 * _EPS * self.energy, mirrored(sigma, self.real), alpha, slope)


    def sections(self, poles: Array, live: Array) -> Array:
        """As of taps: mode by mode in closed form, from ``R (1 - s w + p w^2) = (z1 + z0 w) (1 - own w) + (w^2 - s w + p) K R``."""
        xp = namespace(poles)
        left, own, found = self.residues, self.own, []
        for k in range(0, poles.shape[-1], 2 if self.real else 1):
            p, on = poles[:, k : k + 1], live[:, k : k + 1]
            if self.real:
                q, both = poles[:, k + 1 : k + 2], live[:, k + 1 : k + 2]
                s, product = xp.where(both, p + q, p), xp.where(both, p * q, 0 * p)
                numerator = xp.where(both, (own - p) * (own - q), own - p)
                factor = numerator / xp.where(both, (1 - own * p) * (1 - own * q), 1 - own * p)
                rest = 1 - product * factor
                z1, z0 = left * rest, left * (own * rest - s * (1 - factor))
                one = left * (1 + s * factor)
                z0, z1 = xp.where(both, z0, one), xp.where(both, z1, 0 * z1)
            else:
                factor = (own - xp.conj(p)) / (1 - own * p)
                z0, z1 = left * (1 + p * factor), 0 * left
            z = xp.stack([xp.sum(z0, axis=-1), xp.sum(z1, axis=-1)], axis=-1)
            z = xp.where(on, z, xp.zeros_like(z))
            found.append(xp.real(z) if self.real else z)
            left = xp.where(on, left * factor, left)
        return xp.stack(found, axis=-2)


def _products(factors: Array) -> tuple[Array, Array]:
    """Products ``(batch, n, d)`` of the factors before each and after each."""
    xp = namespace(factors)
    one = xp.ones_like(factors[..., :1])
    before = xp.cumulative_prod(xp.concat([one, factors[..., :-1]], axis=-1), axis=-1)
    after = xp.flip(xp.cumulative_prod(xp.concat([one, xp.flip(factors[..., 1:], axis=-1)], axis=-1), axis=-1), axis=-1)
    return before, after


def _norm_squared(own: Array, residues: Array, real: bool) -> Array:
    xp = namespace(own)
    gram = 1 / (1 - own[..., :, None] * mirrored(own, real)[..., None, :])
    return xp.real(xp.sum(residues * (gram @ mirrored(residues, real)[..., None])[..., 0], axis=-1))
