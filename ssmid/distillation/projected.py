"""Squared errors that leave no Gram matrix in closed form: under weights over time or over frequency, or over the taps alone.

Variable projection with the exponentials written out (Golub and Pereyra, SIAM J. Numer. Anal. 10, 1973): residues by an orthonormal
basis of their span, first and second derivatives in full. With the weighted exponentials ``V = Q R``, their derivatives ``V'`` by the
poles, ``C = V' diag(r)`` and the error ``e``,

    dE/dp_j = -2 r_j a_j,   a_j = v'_j . e,   b_j = v''_j . e
    d2E/dp2 = 2 (C_o^T C_o + K^T Y + Y^T K - Y^T Y - diag(r b)),   C_o = C - Q K,   K = Q^T C,   Y = R^-T diag(a)

of which the first term is Gauss and Newton's (Kaufman, BIT 15, 1975); the others cost nothing beside it. No conjugates: conjugate poles
both count as variables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import isqrt
from typing import Protocol

import numpy as np

from ssmid._array import Array, as_complex, cores, in_threads, namespace, on_gpu
from ssmid.distillation.pole_search import Misfit
from ssmid.linalg import adjoint, orthonormalize, powers, solve, transpose
from ssmid.reduction.h2_sources import power_series

_ROUNDING = 2.0**-43
"""Of thousands of powers of a pole, relative to the largest."""
_PIECE_BYTES = {"host": 2**25, "gpu": 2**32}


class Rows(Protocol):
    """What the error is made of: ``N`` real numbers for each filter."""

    @property
    def target(self) -> Array:
        """``(n, N)`` those of the filter itself."""
        ...

    def take(self, chosen: Array) -> Rows: ...

    def tables(self, poles: Array) -> tuple[Array, Array]:
        """``(n, d, N)`` real: weighted exponentials and their derivatives by the poles; of conjugate neighbours real and imaginary part."""
        ...

    def bend(self, poles: Array, error: Array) -> Array:
        """``(n, d)`` products of the second derivatives of the exponentials with ``error (n, N)``."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Projected:
    """The squared error in the numbers of some rows."""

    rows: Rows
    energy: Array

    @classmethod
    def of(cls, rows: Rows) -> Projected:
        return cls(rows, namespace(rows.target).sum(rows.target**2, axis=-1))

    def take(self, chosen: Array) -> Projected:
        return Projected(self.rows.take(chosen), namespace(chosen).take(self.energy, chosen, axis=0))

    def __call__(self, poles: Array, live: Array) -> Misfit:
        return Misfit(*self._in_pieces(_misfit, poles, live))

    def residues(self, poles: Array, live: Array) -> Array:
        """``(n, d)`` those of least error at given poles, pairs side by side."""
        return self._in_pieces(lambda *a: (_Solved.of(*a).residues,), poles, live)[0]

    def eased(self, poles: Array, live: Array, ridge: Array) -> tuple[Array, Array]:
        """``(n, d)`` residues of least error plus ``sum (ridge |r|)^2``, ridge ``(n, d)``, and that error ``(n,)`` without the ridge."""
        found = self._in_pieces(_eased, poles, live, ridge)
        return found[0], found[1]

    def joined(self, squares: Array) -> Array:
        return squares

    def _in_pieces(self, function: Callable[..., tuple[Array, ...]], poles: Array, *more: Array) -> tuple[Array, ...]:
        """The tables of a part of the filters at a time: small enough for a cache, in threads, or as large as a GPU takes them."""
        xp, (n, d) = namespace(poles), poles.shape
        room = _PIECE_BYTES["gpu" if on_gpu(poles) else "host"]
        step = max(1, room // (64 * max(1, d) * max(1, self.rows.target.shape[-1])))
        if n <= step:
            return function(self.rows, poles, *more)
        edges = list(range(0, n, step))
        parts = [xp.arange(i, min(i + step, n), device=poles.device) for i in edges]

        def piece(part: Array) -> tuple[Array, ...]:
            return function(self.rows.take(part), *(xp.take(x, part, axis=0) for x in (poles, *more)))

        threaded = isinstance(poles, np.ndarray) and cores() > 1
        found = in_threads(piece, parts) if threaded else [piece(part) for part in parts]
        return tuple(xp.concat([f[i] for f in found], axis=0) for i in range(len(found[0])))


def _eased(rows: Rows, poles: Array, live: Array, ridge: Array) -> tuple[Array, Array]:
    xp = namespace(poles)
    mask = xp.astype(live, rows.target.dtype)[:, :, None]
    eye = xp.eye(poles.shape[-1], dtype=rows.target.dtype, device=poles.device)
    halves = xp.where(xp.imag(poles) != 0, 0.5**0.5 + 0 * ridge, 1 + 0 * ridge)  # of x, whose residues are half as large
    table = rows.tables(poles)[0] * mask
    whole = xp.concat([table, eye * (halves * ridge)[:, :, None]], axis=-1)
    size = xp.linalg.vector_norm(whole, axis=-1)
    shrink = 1 / xp.where(size > 0, size, xp.ones_like(size))
    scaled = whole * shrink[:, :, None]
    Q = adjoint(orthonormalize(transpose(scaled)))
    R = xp.triu(Q @ transpose(scaled))
    x = solve(R, Q[..., : table.shape[-1]] @ rows.target[..., None])[..., 0] * shrink
    left = rows.target - (transpose(table) @ x[..., None])[..., 0]
    residues = transpose(_unmixed(poles, as_complex(eye) + 0 * as_complex(R))) @ as_complex(x)[..., None]
    return xp.where(live, residues[..., 0], xp.zeros_like(poles)), xp.sum(left**2, axis=-1)


def _misfit(rows: Rows, poles: Array, live: Array) -> tuple[Array, Array, Array, Array]:
    xp, s = namespace(poles), _Solved.of(rows, poles, live)
    error = xp.sum(s.left**2, axis=-1)
    energy = xp.sum(rows.target**2, axis=-1)
    noise = _ROUNDING * xp.sqrt(error * energy) + _ROUNDING**2 * energy
    inner = s.slopes @ transpose(s.Q)  # (n, d, d): derivatives by basis
    outside = s.slopes - inner @ s.Q
    a = _mixed(poles, as_complex((s.slopes @ s.left[..., None])[..., 0]))
    b = rows.bend(poles, s.left)
    r = xp.where(live, s.residues, xp.zeros_like(s.residues))
    gauss = _congruent(poles, as_complex(outside @ transpose(outside))) * r[:, :, None] * r[:, None, :]
    K = transpose(_mixed(poles, as_complex(inner)) * r[:, :, None])
    eye = xp.eye(poles.shape[-1], dtype=poles.dtype, device=poles.device)
    Y = solve(as_complex(transpose(s.R)), as_complex(s.shrink)[:, :, None] * _unmixed(poles, eye + 0 * gauss)) * a[:, None, :]
    Y = xp.where(live[:, :, None] & live[:, None, :], Y, xp.zeros_like(Y))
    cross = transpose(K) @ Y
    second = 2 * (gauss + cross + transpose(cross) - transpose(Y) @ Y - eye * (r * b)[:, :, None])
    both = live[:, :, None] & live[:, None, :]
    return error, noise, -2 * r * a, xp.where(both, second, xp.zeros_like(second))


@dataclasses.dataclass(frozen=True, eq=False)
class _Solved:
    """Q : ``(n, d, N)`` orthonormal rows   R : ``(n, d, d)`` with ``table * shrink = R^T Q``   left : ``(n, N)`` the error"""

    Q: Array
    R: Array
    shrink: Array
    slopes: Array
    left: Array
    residues: Array

    @classmethod
    def of(cls, rows: Rows, poles: Array, live: Array) -> _Solved:
        xp = namespace(poles)
        mask = xp.astype(live, rows.target.dtype)[:, :, None]
        table, slopes = (x * mask for x in rows.tables(poles))
        size = xp.linalg.vector_norm(table, axis=-1)
        shrink = 1 / xp.where(size > 0, size, xp.ones_like(size))
        scaled = table * shrink[:, :, None]
        Q = adjoint(orthonormalize(transpose(_widened(scaled))))[..., : scaled.shape[-1]] * mask
        eye = xp.eye(poles.shape[-1], dtype=Q.dtype, device=poles.device)
        R = xp.triu(Q @ transpose(scaled)) + eye * (1 - mask)
        fitted = (Q @ rows.target[..., None])[..., 0]
        left = rows.target - (transpose(Q) @ fitted[..., None])[..., 0]
        again = (Q @ left[..., None])[..., 0]  # what rounding left of it in the span
        left = left - (transpose(Q) @ again[..., None])[..., 0]
        real = as_complex(solve(R, (fitted + again)[..., None])[..., 0] * shrink)
        # sum_j r_j v_j = table . x with v = T table: x = T^T r
        residues = transpose(_unmixed(poles, xp.eye(poles.shape[-1], dtype=poles.dtype, device=poles.device) + 0 * as_complex(R)))
        residues = (residues @ real[..., None])[..., 0]
        return cls(Q, R, shrink, slopes, left, xp.where(live, residues, xp.zeros_like(residues)))


def _widened(table: Array) -> Array:
    """With zeros up to as many columns as rows."""
    xp, (n, d, length) = namespace(table), table.shape
    return xp.concat([table, xp.zeros((n, d, max(0, d - length)), dtype=table.dtype, device=table.device)], axis=-1)


def _mixed(poles: Array, x: Array) -> Array:
    """``T x`` along axis 1: from real and imaginary parts of the upper of two conjugates to both; of two reals nothing."""
    xp = namespace(poles)
    pair = xp.reshape(xp.imag(poles[:, 0::2]) != 0, (poles.shape[0], -1) + (1,) * (x.ndim - 2))
    first, second = x[:, 0::2, ...], x[:, 1::2, ...]
    both = xp.stack([xp.where(pair, first + 1j * second, first), xp.where(pair, first - 1j * second, second)], axis=2)
    return xp.reshape(both, x.shape)


def _unmixed(poles: Array, x: Array) -> Array:
    """``T^-1 x`` along axis 1."""
    xp = namespace(poles)
    pair = xp.reshape(xp.imag(poles[:, 0::2]) != 0, (poles.shape[0], -1) + (1,) * (x.ndim - 2))
    first, second = x[:, 0::2, ...], x[:, 1::2, ...]
    both = [xp.where(pair, (first + second) / 2, first), xp.where(pair, (first - second) * -0.5j, second)]
    return xp.reshape(xp.stack(both, axis=2), x.shape)


def _congruent(poles: Array, G: Array) -> Array:
    """``T G T^T``."""
    return transpose(_mixed(poles, transpose(_mixed(poles, G))))


@dataclasses.dataclass(frozen=True, eq=False)
class Taps:
    """Weighted taps ``weights_t (strict_t - sum_j r_j p_j^t)``, weights ``(n, N)`` or ``(1, N)``, or None for ones."""

    target: Array
    weights: Array = None

    @classmethod
    def of(cls, strict: Array, weights: Array = None) -> Taps:
        return cls(strict if weights is None else strict * weights, weights)

    def take(self, chosen: Array) -> Taps:
        xp = namespace(self.target)
        return Taps(xp.take(self.target, chosen, axis=0), chosen_rows(self.weights, chosen))

    def tables(self, poles: Array) -> tuple[Array, Array]:
        xp, (n, length) = namespace(poles), self.target.shape
        upper, lower = poles[:, 0::2], poles[:, 1::2]
        first = _power_table(upper, length)
        second = xp.where((xp.imag(upper) != 0)[:, :, None], xp.imag(first), _power_table(xp.real(lower), length))
        table = xp.reshape(xp.stack([xp.real(first), second], axis=2), (n, poles.shape[1], length))
        ramp = xp.arange(1, length, dtype=table.dtype, device=table.device)
        slopes = xp.concat([xp.zeros_like(table[..., :1]), ramp * table[..., :-1]], axis=-1)
        if self.weights is None:
            return table, slopes
        return table * self.weights[:, None, :], slopes * self.weights[:, None, :]

    def bend(self, poles: Array, error: Array) -> Array:
        return power_series(error if self.weights is None else error * self.weights, poles)[2]


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """Weighted errors ``weights_k (G(z_k) - sum_j r_j / (z_k - p_j))`` on the grid of a DFT, real parts before imaginary ones.

    weights : ``(n, K)`` or ``(1, K)``, those of both halves of the circle in one   z : ``(K,)``
    """

    target: Array
    weights: Array
    z: Array

    @classmethod
    def of(cls, strict: Array, weights: Array) -> Spectrum:
        """Of one-sided weights on the grid of ``2 (K - 1)`` points, which must hold all taps."""
        xp, points = namespace(strict), weights.shape[-1]
        size = 2 * (points - 1)
        place = xp.arange(points, dtype=strict.dtype, device=strict.device)
        twice = xp.where((place > 0) & (place < points - 1), 2 + 0 * place, 1 + 0 * place)
        weights = weights * xp.sqrt(twice / size)
        turn = 2 * np.pi * place / size
        z = as_complex(xp.cos(turn)) + 1j * as_complex(xp.sin(turn))
        transform = xp.fft.rfft(strict, n=size, axis=-1) / z
        return cls(_parts(as_complex(weights) * transform), weights, z)

    def take(self, chosen: Array) -> Spectrum:
        return Spectrum(namespace(self.z).take(self.target, chosen, axis=0), chosen_rows(self.weights, chosen), self.z)

    def tables(self, poles: Array) -> tuple[Array, Array]:
        modes = 1 / (self.z - poles[:, :, None])
        weighted = as_complex(self.weights)[:, None, :] * modes
        return _parts(_unmixed(poles, weighted)), _parts(_unmixed(poles, weighted * modes))

    def bend(self, poles: Array, error: Array) -> Array:
        modes = 1 / (self.z - poles[:, :, None])
        second = _parts(_unmixed(poles, 2 * as_complex(self.weights)[:, None, :] * modes**3))
        return _mixed(poles, as_complex((second @ error[..., None])[..., 0]))


def _parts(x: Array) -> Array:
    xp = namespace(x)
    return xp.concat([xp.real(x), xp.imag(x)], axis=-1)


def chosen_rows(weights: Array, chosen: Array) -> Array:
    """Those of some filters; weights that all share stay one row."""
    if weights is None or weights.shape[0] == 1:
        return weights
    return namespace(weights).take(weights, chosen, axis=0)


def _power_table(nodes: Array, length: int) -> Array:
    """``(n, d, length)`` powers, as products of two small tables."""
    xp = namespace(nodes)
    inner = isqrt(max(length, 1) - 1) + 1
    outer = -(-length // inner)
    fine = powers(nodes, inner)
    coarse = powers(fine[..., -1] * nodes, outer)
    table = coarse[..., :, None] * fine[..., None, :]
    return xp.reshape(table, (*nodes.shape, outer * inner))[..., :length]
