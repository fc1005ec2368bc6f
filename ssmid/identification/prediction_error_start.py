"""Starts for prediction-error methods by linear least squares.

Steiglitz and McBride (IEEE Trans. AC 10, 1965) for output error, Hannan and Rissanen (Biometrika 69, 1982) where there is a noise
polynomial. Roots outside the unit circle are mirrored into it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid.analysis.polynomial import Host
from ssmid.identification.least_squares import least_squares
from ssmid.identification.polynomial_gradient import (
    Coefficients,
    Degrees,
    Experiments,
    errors_of,
    filtered,
    jacobian,
    linear_columns,
    unpack,
)

WITHIN = 1 - 1e-9
"""The largest modulus of roots that count as inside the circle."""

_ONE = np.ones(1)


def start_of_output(data: Experiments, g: Degrees) -> Coefficients:
    """Steiglitz and McBride: equation errors of the record filtered by the last denominator; the best of ten, from an ARX model."""
    f, best, least = np.ones(1), None, np.inf
    for _ in range(10):
        x = replaced(_rest(data, g), f=np.concatenate([f, np.zeros(g.nf + 1 - len(f))]))
        columns = -jacobian(x, g, data, [(y, y, y) for _, y in data])
        right = np.concatenate([filtered(_ONE, f, y) for _, y in data])
        theta = least_squares(columns, right[:, None])[0][:, 0]
        f = _inside(unpack(theta, g, len(data)).f)
        x = solved(replaced(_rest(data, g), f=f), g, data)
        cost = sum(float(e @ e) for _, _, e in errors_of(x, g, data))
        if cost < least:
            settled = cost > (1 - 1e-3) * least
            best, least = x, cost
            if settled:
                break
    assert best is not None
    return best


def solved(x: Coefficients, g: Degrees, data: Experiments) -> Coefficients:
    """``x`` with B, the starts and the drift of least squares for its F, C and D, where there is no A."""
    columns = -linear_columns(x, g, data)
    right = np.concatenate([filtered(x.d, x.c, y) for _, y in data])
    theta = least_squares(columns, right[:, None])[0][:, 0]
    b, starts = np.split(theta, [g.nb * g.inputs])
    return unpack(np.concatenate([b, x.f[1:], x.c[1:], x.d[1:], starts]), g, len(data))


def start_of_noise(data: Experiments, g: Degrees, stable: bool) -> Coefficients:
    """Hannan and Rissanen: the errors of a long ARX model stand for the noise in a second regression.

    With F the first regression gives way to the output-error model, and what that leaves is regressed on itself.
    """
    lags = max(g.na, g.nb + g.delay, g.nc, g.nd)
    samples = sum(len(y) for _, y in data)
    long = max(1, min(3 * lags + 10, samples // (4 * (1 + g.inputs)) - 1))
    if g.nf or g.nd:
        plain = dataclasses.replace(g, nc=0, nd=0)
        starts = [start_of_output(data, plain) if g.nf else solved(_rest(data, plain), plain, data)]
        if g.nf:
            # where the noise is slow output error takes it for the system, and an ARX model does not
            first = dataclasses.replace(g, na=g.nf, nf=0, nc=0, nd=0, drift=0)
            f = _inside(_linear(data, first, [y for _, y in data]).a)
            starts.append(solved(replaced(_rest(data, plain), f=f), plain, data))
        found = [_with_noise(x, plain, g, data, long) for x in starts]
        return min(found, key=lambda x: sum(float(e @ e) for _, _, e in errors_of(x, g, data)))
    return _regressed(data, g, long, stable)


def _with_noise(x: Coefficients, plain: Degrees, g: Degrees, data: Experiments, long: int) -> Coefficients:
    """``x`` with the noise polynomials of what it leaves."""
    left = [(np.zeros((0, len(y))), e) for (_, y), (_, _, e) in zip(data, errors_of(x, plain, data), strict=True)]
    noise = _regressed(left, Degrees(g.nd, 0, g.nc, 0, 0, 0, 0), long, True)
    return solved(replaced(x, c=noise.c, d=noise.a), g, data)


def _regressed(data: Experiments, g: Degrees, long: int, stable: bool) -> Coefficients:
    guess = [np.zeros(len(y)) for _, y in data]
    if g.nc:
        first = Degrees(long, long if g.inputs else 0, 0, 0, 0, g.delay, g.inputs)
        guess = [e for _, _, e in errors_of(_linear(data, first, guess), first, data)]
    x = _linear(data, g, guess)
    c, a = _inside(x.c), _inside(x.a) if stable else x.a
    if c is x.c and a is x.a:
        return x
    # the errors of the mirrored polynomials are linear in what remains
    seen = [(np.stack([filtered(_ONE, c, s) for s in u]) if len(u) else u, filtered(a, c, y)) for u, y in data]
    plain = Degrees(0, g.nb, 0, 0, 0, g.delay, g.inputs)
    return replaced(x, a=a, c=c, b=solved(_rest(seen, plain), plain, seen).b)


def _linear(data: Experiments, g: Degrees, guess: list[Host]) -> Coefficients:
    """Least squares of ``A y - B u - (C - 1) guess``, with the starts free."""
    x = _rest(data, g)
    columns = -jacobian(x, g, data, [(y, y, e) for (_, y), e in zip(data, guess, strict=True)])
    right = np.concatenate([y for _, y in data])[:, None]
    return unpack(least_squares(columns, right)[0][:, 0], g, len(data))


def replaced(x: Coefficients, **changed: Host) -> Coefficients:
    return Coefficients(**{**x.__dict__, **changed})


def root_radius(polynomial: Host) -> float:
    return float(np.abs(np.roots(polynomial)).max(initial=0)) if np.isfinite(polynomial).all() else np.inf


def _inside(polynomial: Host) -> Host:
    """``polynomial`` with the roots outside the circle mirrored into it; itself where there are none."""
    if len(polynomial) == 1 or root_radius(polynomial) < WITHIN:
        return polynomial
    roots = np.roots(polynomial)
    outside = np.abs(roots) > 1
    roots[outside] = 1 / roots[outside].conj()
    found, part = np.poly(roots).real, 1 - WITHIN
    # roots on the circle, and clusters that rounding of the coefficients throws out of it again
    while root_radius(found) >= WITHIN and part < 0.1:
        found, part = np.poly(roots).real * (1 - part) ** np.arange(len(found)), 4 * part
    return found


def _rest(data: Experiments, g: Degrees) -> Coefficients:
    """All coefficients zero."""
    return unpack(np.zeros(g.model + len(data) * g.free), g, len(data))
