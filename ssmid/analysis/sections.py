"""Factored systems as state spaces: a cascade of first- and second-order blocks whose poles LAPACK finds again to the last bit.

The sections stand in signal order from the bottom of the state to its top, which makes ``A`` block upper triangular. A pair of
conjugate poles ``s +- i w`` is the normal block ``[[s, w], [-w, s]]``: balancing, Hessenberg reduction and QR leave such a matrix
as it is, so its computed eigenvalues are its diagonal blocks' own. No polynomial is ever formed. Not differentiable.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmid._array import Array, as_complex, astype_width, batched_on_host, double, from_numpy, to_numpy, width
from ssmid.analysis.polynomial import Host, conjugate_pairs, finite_roots

Block = tuple[Host, Host, Host, complex]
"""A, B (vector), C (vector) and D of one section."""


def cascade_of_factors(zeros: Array, poles: Array, gain: Array, discrete: bool) -> tuple[Array, Array, Array, Array]:
    """``A, B, C, D`` of ``gain prod (z - zeros) / prod (z - poles)``, SISO, ``(*batch, n, n)`` and so on.

    Real where zeros, poles and gain of every element are closed under conjugation. Each section has a peak near one, and what
    remains of the gain is shared by input and output, so that intermediate signals have the size of the outer ones.
    """
    arrays = double(zeros), double(poles), double(gain)[..., None]
    return batched_on_host(lambda z, p, k: _cascade_of_factors(z, p, k[0], discrete), as_complex(arrays[0]), *arrays[1:], core_ndim=1)


def cascade_of_sections(sections: Array) -> tuple[Array, Array, Array, Array]:
    """``A, B, C, D`` of second-order sections ``(*batch, count, 6)``, two states each."""
    return batched_on_host(_cascade_of_sections, double(sections))


def factors_of_sections(sections: Array) -> tuple[Array, Array, Array]:
    """Zeros, poles and gain of second-order sections, each quadratic solved for itself.

    Leading zeros of a numerator are delays. As many pairs of a pole and a zero at exactly 0 (the padding of first-order sections)
    are cancelled as every element has.
    """
    host = to_numpy(double(sections))
    with np.errstate(all="ignore"):
        b, a = host[..., :3] / host[..., 3:4], host[..., 3:] / host[..., 3:4]
    zeros, poles = _roots_of_rows(b), _roots_of_rows(a)
    batch = host.shape[:-2]
    first = np.take_along_axis(b, np.argmax(b != 0, axis=-1)[..., None], -1)[..., 0]
    zeros, poles = (x.reshape(*batch, 2 * host.shape[-2]) for x in (zeros, poles))
    padding = int(np.min(np.minimum(np.sum(zeros == 0, axis=-1), np.sum(poles == 0, axis=-1)), initial=poles.shape[-1]))
    zeros, poles = (np.take_along_axis(x, np.argsort(x != 0, axis=-1, kind="stable"), -1)[..., padding:] for x in (zeros, poles))
    zeros, factor = finite_roots(zeros, 1.0)
    gain = np.prod(first, axis=-1) * factor
    return tuple(astype_width(from_numpy(x, sections), width(sections)) for x in (zeros, poles, gain))  # pyright: ignore[reportReturnType]


def second_order_sections(zeros: Array, poles: Array, gain: Array) -> Array:
    """Sections ``(*batch, max(1, ceil(n / 2)), 6)`` in powers of 1/z, paired as in scipy's ``zpk2sos``, the gain in the first.

    Missing zeros are delays (scipy's conversion drops them). ValueError for a single system that is not closed under conjugation;
    NaN for such an element of a batch. :func:`first_order_sections` are for complex systems.
    """
    single = poles.ndim == zeros.ndim == 1 and gain.ndim == 0

    def element(z: Host, p: Host, k: Host) -> Host:
        rows = max(1, (len(p) + 1) // 2)
        paired = pair_sections(z, p, True) if np.isfinite(np.concatenate([z, p, k])).all() and not np.imag(k).any() else None
        if paired is None or any(np.iscomplexobj(x) and len(x) == 1 and np.imag(x[0]) for pair in paired for x in pair):
            if single:
                raise ValueError("expected zeros, poles and gain closed under conjugation for second-order sections, got a complex system")
            return np.full((rows, 6), np.nan)
        return np.real(_in_delays(paired, k[0]))

    return batched_on_host(element, as_complex(double(zeros)), double(poles), double(gain)[..., None], core_ndim=1)


def first_order_sections(zeros: Array, poles: Array, gain: Array) -> Array:
    """Complex sections ``(*batch, max(1, n), 6)`` in powers of 1/z of one pole each, paired as :func:`second_order_sections`."""

    def element(z: Host, p: Host, k: Host) -> Host:
        return _in_delays(_single_poles(z, p, True), k[0])

    return batched_on_host(element, *(double(as_complex(x)) for x in (zeros, poles, gain[..., None])), core_ndim=1)


def pair_sections(zeros: Host, poles: Host, discrete: bool) -> list[tuple[Host, Host]]:
    """Zeros and poles grouped into sections ``(zeros, poles)`` of at most two, in signal order.

    The poles nearest to the stability boundary choose first, take the zeros nearest to them, and run last, so that their
    resonance is damped by its own zeros before it can amplify what comes before (as scipy's ``zpk2sos``). Sections of order one
    with complex numbers where the system is not closed under conjugation.
    """
    upper, pool = conjugate_pairs(poles), conjugate_pairs(zeros)
    if upper is None or pool is None:
        return _single_poles(zeros, poles, discrete)
    reals = sorted(upper[1], key=lambda p: _distance_to_boundary(p, discrete))
    groups = [np.array([p, p.conjugate()]) for p in upper[0]] + [np.array(reals[i : i + 2]) for i in range(0, len(reals), 2)]
    groups.sort(key=lambda g: (len(g) == 1, _distance_to_boundary(g[0], discrete)))
    pairs, singles = list(pool[0]), list(pool[1])
    doubles_left = sum(len(g) == 2 for g in groups)
    chosen = []
    for group in groups:
        doubles_left -= len(group) == 2
        chosen.append((_choose_zeros(group, pairs, singles, doubles_left), group))
    return chosen[::-1]


# ---------------------------------------------------------------- one element


def _single_poles(zeros: Host, poles: Host, discrete: bool) -> list[tuple[Host, Host]]:
    chosen, free = [], list(zeros)
    for pole in sorted(poles, key=lambda p: _distance_to_boundary(p, discrete)):
        chosen.append((np.array([_take_nearest(free, pole)] if free else [], complex), np.array([pole], complex)))
    return chosen[::-1]


def _choose_zeros(group: Host, pairs: list[complex], singles: list[float], doubles_left: int) -> Host:
    """The zeros of one section; a pair of zeros is left for every section that can hold it as long as there are enough."""
    pole = group[0]
    if len(group) == 2 and pairs:
        nearest_pair = min(abs(z - pole) for z in pairs)
        must_take = len(pairs) > doubles_left
        if must_take or not singles or nearest_pair <= min(abs(z - pole) for z in singles):
            z = _take_nearest(pairs, pole)
            return np.array([z, z.conjugate()])
    return np.array([_take_nearest(singles, pole) for _ in range(min(len(group), len(singles)))], float)


def _take_nearest(pool: list, pole: complex) -> complex:
    return pool.pop(int(np.argmin(np.abs(np.asarray(pool) - pole))))


def _distance_to_boundary(pole: complex, discrete: bool) -> float:
    return abs(1 - abs(pole)) if discrete else abs(pole.real) / max(abs(pole), np.finfo(float).tiny)


def _cascade_of_factors(z: Host, p: Host, k: complex, discrete: bool) -> tuple[Host, ...]:
    n = len(p)
    if not np.isfinite(np.concatenate([z, p, [k]])).all():
        return tuple(np.full(shape, np.nan) for shape in ((n, n), (n, 1), (1, n), (1, 1)))
    # in continuous time the frequencies are measured in a power of two near the largest pole: exact, and nothing overflows
    shift = 0 if discrete or n == 0 else int(np.frexp(np.max(np.abs(p)))[1])
    unit = float(np.ldexp(1.0, shift))
    z, p = z / unit, p / unit
    gain = np.ldexp(np.real(k), shift * (len(z) - n)) + (1j * np.ldexp(np.imag(k), shift * (len(z) - n)) if np.iscomplexobj(k) else 0)
    blocks = []
    for zeros, poles in pair_sections(z, p, discrete):
        peak = _peak(zeros, poles, discrete)
        A, B, C, D = _section(zeros, poles)
        blocks.append((A, B, C / peak, D / peak))
        gain = gain * peak
    A, B, C, D = _chain(blocks, gain)
    root = np.sqrt(unit)
    return unit * A, root * B, root * C, D


def _section(zeros: Host, poles: Host) -> Block:
    """``prod (s - zeros) / prod (s - poles)`` from differences of zeros and poles alone."""
    q = len(zeros)
    if len(poles) == 1:
        return poles[:, None], np.ones(1), np.array([poles[0] - zeros[0] if q else 1.0]), 1.0 if q else 0.0
    sigma, omega = poles[0].real, poles[0].imag
    A = np.array([[sigma, omega], [-omega, sigma]]) if omega else np.array([[sigma, 1.0], [0.0, poles[1].real]])
    at_sigma = np.prod(sigma - zeros).real - (omega**2 if q == 2 else 0.0)  # numerator less D times denominator, at s = sigma
    slope = (poles[0] - zeros[0] + poles[1] - zeros[1]).real if q == 2 else float(q)
    return A, np.array([0.0, 1.0]), np.array([at_sigma / A[0, 1], slope]), 1.0 if q == 2 else 0.0


def _peak(zeros: Host, poles: Host, discrete: bool) -> float:
    """A section's largest gain over a few frequencies and its own resonance; finite on the stability boundary, too."""
    if discrete:
        s = np.exp(1j * np.append(np.pi * (np.arange(16) + 0.5) / 16, np.angle(poles[0])))
    else:
        near = np.abs(poles).max() or 1.0  # an integrator has no frequency of its own: that of the fastest section
        s = 1j * near * np.append(np.geomspace(1e-3, 1e3, 16), abs(poles[0]) / near)
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = np.abs(np.prod(s[:, None] - zeros, axis=-1) / np.prod(s[:, None] - poles, axis=-1))
    gains = gains[np.isfinite(gains) & (gains > 0)]
    return float(np.clip(np.max(gains, initial=0.0), 1e-12, 1e12)) if len(gains) else 1.0


def _cascade_of_sections(sos: Host) -> tuple[Host, ...]:
    n = 2 * len(sos)
    if not np.isfinite(sos).all() or not sos[:, 3].all():
        return tuple(np.full(shape, np.nan) for shape in ((n, n), (n, 1), (1, n), (1, 1)))
    return _chain([_direct_section(*(row / row[3])) for row in sos], 1.0)


def _direct_section(b0: float, b1: float, b2: float, _: float, a1: float, a2: float) -> Block:
    p1, p2 = quadratic_roots(a1, a2)
    sigma, omega = p1.real, abs(p1.imag)
    A = np.array([[sigma, omega], [-omega, sigma]]) if omega else np.array([[sigma, 1.0], [0.0, p2.real]])
    at_sigma = (b0 * sigma + b1) * sigma + b2 - b0 * omega**2
    return A, np.array([0.0, 1.0]), np.array([at_sigma / A[0, 1], b1 - b0 * a1]), b0


def quadratic_roots(a1: float, a2: float) -> tuple[complex, complex]:
    """Roots of ``z^2 + a1 z + a2`` without cancellation, the upper one of a conjugate pair first."""
    half = -a1 / 2
    discriminant = half * half - a2
    if discriminant < 0:
        root = np.sqrt(-discriminant)
        return complex(half, root), complex(half, -root)
    larger = half + np.copysign(np.sqrt(discriminant), half)
    return complex(larger), complex(a2 / larger if larger else 0.0)


def _chain(blocks: list[Block], gain: complex) -> tuple[Host, ...]:
    """The cascade, first block at the bottom; ``gain`` shared evenly by input and output."""
    n = sum(len(b[1]) for b in blocks)
    dtype = complex if any(np.iscomplexobj(x) for b in blocks for x in b) or np.iscomplexobj(gain) else float
    A, B = np.zeros((n, n), dtype), np.zeros(n, dtype)
    signal, feed = np.zeros(n, dtype), dtype(1.0)  # what enters the next section: signal @ x + feed u
    end = n
    for a, b, c, d in blocks:
        own = slice(end - len(b), end)
        A[own, own] = a
        A[own, end:] = np.outer(b, signal[end:])
        B[own] = b * feed
        signal = d * signal
        signal[own] = c
        feed = d * feed
        end -= len(b)
    share = float(np.sqrt(np.abs(gain))) or 1.0
    return A, (share * B)[:, None], (gain / share * signal)[None, :], np.array([[gain * feed]], dtype)


def _roots_of_rows(rows: Host) -> Host:
    """Roots ``(..., 2)`` of quadratics ``(..., 3)``; infinite ones for leading zeros, all infinite for a row of zeros."""
    out = np.full((*rows.shape[:-1], 2), np.nan, complex)
    for index in np.ndindex(rows.shape[:-1]):
        b0, b1, b2 = rows[index]
        if b0:
            out[index] = quadratic_roots(b1 / b0, b2 / b0)
        elif b0 == 0:
            out[index] = (-b2 / b1 if b1 else np.inf, np.inf)
    return out


def _in_delays(pairs: list[tuple[Host, Host]], gain: complex) -> Host:
    """Rows of coefficients in powers of 1/z of sections ``(zeros, poles)``, the gain in the first; one row without sections."""
    rows = np.array([[*_delayed(z, len(p)), *_delayed(p, len(p))] for z, p in pairs or [((), ())]])
    rows = rows.astype(np.result_type(rows, gain))
    rows[0, :3] *= gain
    return rows


def _delayed(roots: Host, order: int) -> list[Any]:
    """Coefficients in powers of 1/z of ``prod (z - roots) / z^order``, padded to three."""
    c = [1.0]
    if len(roots) == 1:
        c = [1.0, -roots[0]]
    elif len(roots) == 2:
        c = [1.0, -(roots[0] + roots[1]), roots[0] * roots[1]]
    c = [0.0] * (order - len(roots)) + c
    return c + [0.0] * (3 - len(c))
