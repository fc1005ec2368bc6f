"""The step of vector fitting: from trial poles to the zeros of the denominator that fits best over them, for a bank at once.

Poles stand in slots, so that all elements of a bank have one shape whatever their poles are: the first half of the row holds the
first members of pairs (conjugate, or two real poles), the second half their partners, and a last real one stands alone where the
order is odd. Over a pair ``u, v`` the basis is that of a real block of two states, ``1/(x-u)`` and a multiple of
``1/((x-u)(x-v))``: unlike partial fractions it does not degenerate where two real poles meet, on their way to a conjugate pair.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from ssmid._array import Array, from_numpy, in_threads, namespace, on_gpu, quiet, to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.identification.stable_poles import held_inside
from ssmid.linalg import adjoint, eigvals, orthonormalize, triangular_factor

_FLOOR = 2e-15
"""A residual below this part of the data is rounding: nothing is gained by another step."""
_REST = 0.01
_GAIN = 1e-3
_RESTLESS = 20
_DAMPING = -0.01
_HIGHEST = 3.1
_SMALLEST_CONSTANT = 1e-8
_CHUNK_BYTES = 2**26
_MANY = 32
"""From so many elements on, Gram matrices and threads are faster than a QR each."""
PIECE = 64
_SHIFT = 1e-13
_FAITHFUL = 1e-4
"""The smallest pivot, of columns of length one, that a Gram matrix has to five digits."""


@dataclasses.dataclass(frozen=True)
class Bank:
    """A bank of fits, scaled, in real numbers: ``points`` ``(1 or B, 2, k)`` and ``values`` ``(B, channels, 2, k)`` as real and imaginary
    part, ``weights`` ``(1 or B, k)`` or None."""

    points: Array
    values: Array
    weights: Array | None
    dt: float | bool
    feedthrough: bool = True
    relaxed: bool = True
    stable: bool = True

    @property
    def is_discrete(self) -> bool:
        return self.dt is True or self.dt != 0

    @property
    def size(self) -> Host:
        """``(B,)`` the weighted rms value."""
        values = self.values if self.weights is None else self.values * self.weights[:, None, None, :]
        return np.sqrt(2 * np.mean(to_numpy(values) ** 2, axis=(-3, -2, -1)))

    def piece(self, start: int, stop: int) -> Bank:
        """The elements from ``start`` to ``stop``, as views."""
        points, weights = (x if x is None or x.shape[0] == 1 else x[start:stop, ...] for x in (self.points, self.weights))
        return dataclasses.replace(self, points=points, values=self.values[start:stop, ...], weights=weights)

    def take(self, index: Host) -> Bank:
        """The elements ``index``."""
        xp, where = namespace(self.values), from_numpy(index, self.values)

        def pick(x: Array) -> Array:
            return x if x is None or x.shape[0] == 1 else xp.take(x, where, axis=0)

        return dataclasses.replace(self, points=pick(self.points), values=xp.take(self.values, where, axis=0), weights=pick(self.weights))


    def on_host(self) -> Bank:
        """The same in NumPy arrays."""
        points, values, weights = (None if x is None else to_numpy(x) for x in (self.points, self.values, self.weights))
        return dataclasses.replace(self, points=points, values=values, weights=weights)


class Relocation(NamedTuple):
    """poles : ``(B, n)`` the best met, in slots   raw : where the step from them led, unreflected
    misfit : ``(B,)`` the weighted rms error   converged : ``(B,)``"""

    poles: Host
    raw: Host
    misfit: Host
    converged: Host


def relocated(bank: Bank, poles: Host, iterations: int) -> Relocation:
    """The poles that vector fitting arrives at from the initial ``poles`` ``(B, n)`` (in slots).

    On the host a large bank is taken in pieces that stay in the cache, by as many threads as there are cores.
    """
    B = poles.shape[0]
    if on_gpu(bank.values) or B <= PIECE:
        return _relocated(bank, poles, iterations)
    starts = range(0, B, PIECE)
    parts = in_threads(lambda i: _relocated(bank.piece(i, i + PIECE), poles[i : i + PIECE], iterations), starts)
    return Relocation(*(np.concatenate(x) for x in zip(*parts, strict=True)))


@quiet
def _relocated(bank: Bank, poles: Host, iterations: int) -> Relocation:
    """Element by element at its own pace.

    The best iterate is kept, by the residual of its least-squares residues. An element is done when its denominator has become
    constant, when the residual is rounding, or when the residual has not become smaller for some steps; that is convergence too
    where the poles have come to rest.
    """
    B = poles.shape[0]
    best, raw, misfit, converged = poles.copy(), poles.copy(), np.full(B, np.inf), np.zeros(B, bool)
    floor = _FLOOR * bank.size
    active, current, part = np.arange(B), poles, bank
    stalled, step = np.zeros(B, int), 0
    while len(active) and step < iterations:
        step += 1
        moved, size = _step(part, current)
        new = held_inside(moved, bank.dt) if bank.stable else moved
        motion = (np.abs(new - current) / np.abs(current)).max(axis=-1, initial=0.0)
        better, gained = size < misfit[active], size < (1 - _GAIN) * misfit[active]
        chosen = active[better]
        best[chosen], raw[chosen], misfit[chosen] = current[better], moved[better], size[better]
        stalled[active] = np.where(gained, 0, stalled[active] + 1)
        resting = (stalled[active] > 0) & (motion <= _REST * stalled[active])
        done = (size <= floor[active]) | resting
        converged[active] = done
        going = ~done & np.isfinite(new).all(axis=-1) & (stalled[active] < _RESTLESS)
        if not going.all():
            active, new = active[going], new[going]
            part = bank.take(active) if len(active) else part
            # the last to settle are too few to keep a GPU busy between launches
            part = part.on_host() if on_gpu(part.values) and len(active) <= PIECE else part
        current = new
    return Relocation(best, raw, misfit, converged)


def _step(bank: Bank, poles: Host) -> tuple[Host, Host]:
    """The zeros of the denominator over ``poles``, and the rms error of the fit with ``poles``."""
    xp, k = namespace(bank.values), bank.points.shape[-1]
    rows = slot_basis(bank.points, poles)
    one = from_numpy(np.repeat([1.0, 0.0], k), rows) + xp.zeros_like(rows[:, :1, :])
    right = xp.concat([rows, one], axis=-2)
    R = to_numpy(_eliminated(bank, right if bank.feedthrough else rows, right))
    y = _denominator(R, to_numpy(xp.mean(right[..., :k], axis=-1)), bank.relaxed)
    c, d = y[..., :-1], y[..., -1:]
    # a denominator without constant has a pole at infinity (Gustavsen 2006, section IV)
    least = _SMALLEST_CONSTANT * np.abs(c).max(axis=-1, keepdims=True, initial=0.0)
    d = np.where(np.abs(d) < least, np.where(d < 0, -least, least), d)
    A, b = _slot_states(poles)
    misfit = np.linalg.norm(R[..., -1], axis=-1) / np.sqrt(bank.values.shape[1] * k)
    return slots(_eigenvalues(A - b[..., :, None] * (c / d)[..., None, :])), misfit


def _eliminated(bank: Bank, left: Array, right: Array) -> Array:
    """The triangular ``R`` ``(B, n+1, n+1)`` of the problem of the denominator, the residues eliminated; the last column is the data's.

    left, right : ``(B, p or q, 2k)`` the rows of the numerators and of the denominator
    """
    xp, values = namespace(left), bank.values
    if bank.weights is not None:
        w = bank.weights[:, None, :]
        values, left = values * w[:, None, :, :], left * xp.concat([w, w], axis=-1)
    B, channels, _, k = values.shape
    p, q = left.shape[-2], right.shape[-2]
    if channels == 1:
        return _factor(xp.concat([left, _times(right, values[:, 0, :, :])], axis=-2))[..., p:, p:]
    Q = orthonormalize(xp.matrix_transpose(left))[:, None, :, :]
    share = max(1, _CHUNK_BYTES // (16 * B * k * q))
    parts = []
    for start in range(0, channels, share):
        rows = _times(right[:, None, :, :], values[:, start : min(start + share, channels), :, :])
        rows = rows - (rows @ Q) @ adjoint(Q)
        columns = xp.reshape(xp.matrix_transpose(rows), (B, rows.shape[1] * 2 * k, q))
        parts.append(triangular_factor(columns))
    return parts[0] if len(parts) == 1 else triangular_factor(xp.concat(parts, axis=-2))


def _times(rows: Array, values: Array) -> Array:
    """``(..., q, 2k)`` real and imaginary parts beside each other, times ``values`` ``(..., 2, k)``."""
    k = values.shape[-1]
    a, b, re, im = rows[..., :k], rows[..., k:], values[..., :1, :], values[..., 1:, :]
    return namespace(rows).concat([a * re - b * im, a * im + b * re], axis=-1)


def _factor(rows: Array) -> Array:
    """The triangular factor of the columns ``(B, q, 2k)``: of many by Cholesky of the Gram matrix, by QR where that loses digits."""
    columns = namespace(rows).matrix_transpose(rows)
    if rows.shape[0] < _MANY:
        return triangular_factor(columns)
    gram = to_numpy(rows @ columns)
    size = np.sqrt(np.einsum("bii->bi", gram))
    size = np.where(size > 0, size, 1.0)
    gram = gram / (size[:, :, None] * size[:, None, :])
    sound = np.asarray(np.isfinite(gram).all(axis=(-2, -1)))
    eye = np.eye(gram.shape[-1])
    R = np.swapaxes(np.linalg.cholesky(np.where(sound[:, None, None], gram, eye) + _SHIFT * eye), -1, -2)
    rest = np.flatnonzero(np.einsum("bii->bi", R).min(axis=-1) < _FAITHFUL)
    R = np.where(sound[:, None, None], R * size[:, None, :], np.nan)
    if len(rest):
        R[rest] = to_numpy(triangular_factor(namespace(rows).take(columns, from_numpy(rest, rows), axis=0)))
    return from_numpy(R, rows)


def _denominator(R: Host, level: Host, relaxed: bool) -> Host:
    """Coefficients ``(B, n+1)`` of the denominator, its constant last, by least squares over the triangular ``R``.

    Relaxed: with the mean over the points fixed, ``R^T R y`` is a multiple of the means ``level`` of the basis, whatever the weight of
    that one equation is. Otherwise the constant is 1.
    """
    n = R.shape[-1] - 1
    # an exact fit makes R singular; the solution is its null vector, which an invisible shift of zero pivots finds
    pivots = np.einsum("bii->bi", R)
    tiny = 1e-18 * np.linalg.norm(R, axis=-2) + np.finfo(float).tiny
    R = R + np.where(np.abs(pivots) <= tiny, tiny, 0.0)[:, None, :] * np.eye(n + 1)
    inverse = np.linalg.inv(R if relaxed else R[:, :n, :n])
    if relaxed:
        return (inverse @ (np.swapaxes(inverse, -1, -2) @ level[..., None]))[..., 0]
    return np.concatenate([-(inverse @ R[:, :n, n:])[..., 0], np.ones((len(R), 1))], axis=-1)


# ---------------------------------------------------------------- slots


def slot_basis(points: Array, poles: Host) -> Array:
    """``(B, n, 2k)`` real and imaginary parts of the basis at ``points`` ``(1 or B, 2, k)``.

    Over a pair ``a +- ib`` it is ``(x-a)/((x-a)^2+b^2)`` and ``b/((x-a)^2+b^2)``, over two real poles ``1/(x-u)`` and ``v/((x-u)(x-v))``.
    """
    xp, n2 = namespace(points), poles.shape[-1] // 2
    re, im = points[:, :1, :], points[:, 1:, :]
    u, v, b, coupling, rest = (
        from_numpy(np.ascontiguousarray(a)[..., None], points)
        for a in (poles[:, :n2].real, poles[:, n2 : 2 * n2].real, poles[:, :n2].imag, _coupling(poles), poles[:, 2 * n2 :].real)
    )
    second = re - v
    # (x-u)(x-v) from differences, which keep the digits next to a lightly damped pole
    x, y = (re - u) * second + (b - im) * (b + im), im * ((re - u) + second)
    size = x * x + y * y
    x, y = x / size, -y / size
    rows = [xp.concat([second * x - im * y, second * y + im * x], axis=-1), xp.concat([coupling * x, coupling * y], axis=-1)]
    if rest.shape[-2]:
        x = re - rest
        size = x * x + im * im
        rows.append(xp.concat([x / size, -im / size], axis=-1))
    return xp.concat(rows, axis=-2)


def _coupling(poles: Host) -> Host:
    n2 = poles.shape[-1] // 2
    u, v = poles[:, :n2], poles[:, n2 : 2 * n2]
    size = np.where(u.imag > 0, u.imag, np.abs(v))
    return np.where(size > 0, size, 1.0)


def _slot_states(poles: Host) -> tuple[Host, Host]:
    """``A`` and ``b`` with ``(x I - A)^-1 b`` the basis of :func:`slot_basis`."""
    B, n = poles.shape
    n2 = n // 2
    A, b = np.zeros((B, n, n)), np.ones((B, n))
    i, j = np.arange(n2), np.arange(n2, 2 * n2)
    A[:, np.arange(n), np.arange(n)] = poles.real
    coupling, imag = _coupling(poles), poles[:, :n2].imag
    A[:, j, i] = coupling
    A[:, i, j] = np.where(imag > 0, -imag, 0.0)
    b[:, n2 : 2 * n2] = 0
    return A, b


def _eigenvalues(A: Host) -> Host:
    sound = np.isfinite(A).all(axis=(-2, -1))
    if not sound.all():
        A = np.where(sound[:, None, None], A, 0.0)
    # the detour through threads costs more than a few small matrices
    values = np.linalg.eigvals(A) + 0j if len(A) < _MANY else np.asarray(eigvals(A))
    return np.where(sound[:, None], values, np.nan)


def slots(poles: Host) -> Host:
    """``(B, n)`` poles, exactly closed under conjugation, in slots; real ones are paired with their neighbours on the line."""
    n, rows = poles.shape[-1], np.arange(len(poles))[:, None]
    sign = np.sign(poles.imag)
    poles = poles[rows, np.lexsort((poles.real, -sign), axis=-1)]
    pairs = np.sum(sign > 0, axis=-1, keepdims=True)
    j = np.arange(n // 2)
    conjugate, real = j < pairs, 2 * j - pairs
    u = poles[rows, np.where(conjugate, j, real)]
    v = np.where(conjugate, u.conj(), poles[rows, np.minimum(real + 1, n - 1)])
    return np.concatenate([u, v, poles[rows, n - 1 - pairs]] if n % 2 else [u, v], axis=-1)


def initial_poles(points: Host, order: int, discrete: bool) -> Host:
    """``(B, order)`` lightly damped pairs at quantiles of the frequencies of ``points`` ``(B, 2, k)``, in slots.

    Quantiles follow any grid: poles lie evenly on a linear one, at even ratios on a logarithmic one.
    """
    x = points[:, 0] + 1j * points[:, 1]
    omega = np.abs(np.angle(x)) if discrete else np.abs(x)
    lowest = np.where(omega > 0, omega, np.inf).min(axis=-1)
    lowest = np.where(np.isfinite(lowest), lowest, 1.0)
    levels = np.append(np.linspace(0, 1, order // 2) if order > 3 else np.full(order // 2, 0.5), 0.5)
    at = np.maximum(np.sort(omega, axis=-1)[:, np.rint(levels * (omega.shape[-1] - 1)).astype(int)], lowest[:, None])
    pairs, middle = (np.minimum(at, _HIGHEST) if discrete else at) * (_DAMPING + 1j), at[:, -1:]
    s = np.concatenate([pairs[:, :-1], pairs[:, :-1].conj(), -middle[:, : order % 2]], axis=-1)
    return np.exp(s) if discrete else s
