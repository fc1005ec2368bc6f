"""Coordinates for poles inside the unit circle in which a Newton step is free: local charts, second derivatives included.

A real bank keeps its poles in neighbouring pairs, which are either complex conjugates or two real poles. A step must be able to
turn one into the other, and in the poles themselves that is a branch point; in sum and product of the two it is smooth. So near
pairs move in those, and all others by disk automorphisms ``(p + t) / (1 + p* t)``, in which distances to the circle are all alike.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, as_complex, namespace

_NEAR = 0.3
"""Pseudo-hyperbolic distance from the midpoint up to which a pair moves in sum and product."""
_APART = 1e-5
"""The least distance: closer poles are moved apart, which changes a response by the square of it."""
_REACH = 0.4


@dataclasses.dataclass(frozen=True, eq=False)
class Chart:
    """Poles as functions of real coordinates ``(batch, d)`` (of complex banks ``(batch, 2 d)``, real parts first), at the origin.

    first : ``(batch, d/2, 2, 2)`` derivatives of the two poles of a pair by its two coordinates; of complex banks ``(batch, d)``
    second : ``(batch, d/2, 2, 3)`` by the first twice, by both, by the second twice; of complex banks ``(batch, d)``
    """

    poles: Array
    real: bool
    first: Array
    second: Array
    near: Array
    pair: Array
    middle: Array
    spread: Array

    def moved(self, step: Array) -> Array:
        """The poles at ``step``."""
        xp = namespace(self.poles)
        if not self.real:
            d = self.poles.shape[-1]
            return _automorphism(self.poles, as_complex(step[..., :d]) + 1j * as_complex(step[..., d:]))
        x, y = step[..., 0::2], step[..., 1::2]
        upper, lower = self.poles[..., 0::2], self.poles[..., 1::2]
        complex_pair = _automorphism(upper, as_complex(x) + 1j * as_complex(y))
        total, product = _REACH * xp.tanh(x / _REACH), self.spread + _REACH * xp.tanh(y / _REACH)
        first, second = _roots(total, product)
        first, second = ((u + self.middle) / (1 + self.middle * u) for u in (first, second))
        one, two = _automorphism(upper, as_complex(x)), _automorphism(lower, as_complex(y))
        first = xp.where(self.near, first, xp.where(self.pair, complex_pair, one))
        second = xp.where(self.near, second, xp.where(self.pair, xp.conj(complex_pair), two))
        return xp.reshape(xp.stack([first, second], axis=-1), self.poles.shape)

    def slopes(self, step: Array) -> Array:
        """As ``first``, of a real bank, away from the origin."""
        xp = namespace(self.poles)
        x, y = step[..., 0::2], step[..., 1::2]
        upper, lower = self.poles[..., 0::2], self.poles[..., 1::2]
        total, product = _REACH * xp.tanh(x / _REACH), self.spread + _REACH * xp.tanh(y / _REACH)
        by_total, by_product = (1 - xp.tanh(v / _REACH) ** 2 for v in (x, y))
        near = []
        for u in _roots(total, product):
            bend = (1 - self.middle**2) / (1 + self.middle * u) ** 2 / (2 * u - total)
            near.append(xp.stack([bend * u * by_total, -bend * by_product], axis=-1))
        pair = _automorphism_slopes(upper, x, y)
        one, two = _automorphism_slopes(upper, x, 0 * x)[..., 0], _automorphism_slopes(lower, y, 0 * y)[..., 0]
        none = xp.zeros_like(one)
        alone = (xp.stack([one, none], axis=-1), xp.stack([none, two], axis=-1))
        near_mask, pair_mask = self.near[..., None], self.pair[..., None]
        both = (pair, xp.conj(pair))
        rows = [xp.where(near_mask, near[k], xp.where(pair_mask, both[k], alone[k])) for k in (0, 1)]
        return xp.stack(rows, axis=-2)

    def gradient(self, f: Array) -> Array:
        """Real gradient of a real function with the derivatives ``f`` ``(batch, d)`` by the poles."""
        xp = namespace(f)
        if not self.real:
            f = f * self.first
            return xp.concat([2 * xp.real(f), -2 * xp.imag(f)], axis=-1)
        pairs = xp.reshape(f, (*f.shape[:-1], f.shape[-1] // 2, 2))
        return xp.reshape(xp.real(xp.sum(pairs[..., None] * self.first, axis=-2)), f.shape)

    def hessian(self, f: Array, S: Array, M: Array) -> Array:
        """Real second derivatives, from those by two poles ``S`` and by a pole and a conjugate ``M`` (zero for real banks)."""
        xp = namespace(f)
        if not self.real:
            d = f.shape[-1]
            eye = xp.eye(d, dtype=S.dtype, device=S.device)
            S = self.first[..., :, None] * S * self.first[..., None, :] + eye * (f * self.second)[..., None, :]
            M = self.first[..., :, None] * M * xp.conj(self.first)[..., None, :]
            corner = xp.imag(M) - xp.imag(S)
            upper = xp.concat([xp.real(S) + xp.real(M), corner], axis=-1)
            lower = xp.concat([xp.matrix_transpose(corner), xp.real(M) - xp.real(S)], axis=-1)
            return 2 * xp.concat([upper, lower], axis=-2)
        S = _on_columns(_on_columns(S, self.first), self.first)
        curved = xp.sum(xp.reshape(f, (*f.shape[:-1], f.shape[-1] // 2, 2))[..., None] * self.second, axis=-2)
        return xp.real(S) + _block_diagonal(xp.real(curved))


def chart(poles: Array, live: Array, *, real: bool) -> Chart:
    """The chart at ``poles`` ``(batch, d)``; of a real bank d is even, and slots 2k and 2k + 1 hold a conjugate pair or two reals.

    live : ``(batch, d)`` boolean, False where an element of smaller order has no pole.
    """
    xp = namespace(poles)
    if not real:
        inside = as_complex(1 - xp.abs(poles) ** 2)
        none = xp.zeros_like(xp.real(poles))
        return Chart(poles, False, inside, -2 * xp.conj(poles) * inside, none, none, none, none)
    upper, lower = poles[..., 0::2], poles[..., 1::2]
    pair = xp.imag(upper) != 0
    middle = as_complex(_middle(upper, lower, pair))
    u = (upper - middle) / (1 - middle * upper)
    near = (xp.abs(u) < _NEAR) & live[..., 1::2]
    spread = xp.real(u * u)
    u = xp.where(near, u, xp.ones_like(u) * _NEAR)
    inside = 1 - middle**2
    poles_near = [_near_derivatives(v, middle, inside) for v in (u, -u)]
    zero = xp.zeros_like(upper)
    e_upper, e_lower = (as_complex(1 - xp.abs(p) ** 2) for p in (upper, lower))
    bend_upper, bend_lower = -2 * xp.conj(upper) * e_upper, -2 * xp.conj(lower) * e_lower
    far_pair = [
        ([e_upper, 1j * e_upper], [bend_upper, 1j * bend_upper, -bend_upper]),
        ([e_lower, -1j * e_lower], [bend_lower, -1j * bend_lower, -bend_lower]),
    ]
    far_reals = [([e_upper, zero], [bend_upper, zero, zero]), ([zero, e_lower], [zero, zero, bend_lower])]

    def chosen(which: int) -> Array:
        choices = ((poles_near, near), (far_pair, pair & ~near), (far_reals, ~pair & ~near))
        rows = []
        for k in (0, 1):
            total = 0
            for derivatives, mask in choices:
                stacked = xp.stack(derivatives[k][which], axis=-1)
                total = total + xp.where(mask[..., None], stacked, xp.zeros_like(stacked))
            rows.append(total)
        return xp.stack(rows, axis=-2)

    return Chart(poles, True, chosen(0), chosen(1), near, pair, middle, -spread)


def _near_derivatives(u: Array, middle: Array, inside: Array) -> tuple[list[Array], list[Array]]:
    """Of the root ``u`` of ``u^2 - s u + p`` at s = 0, carried to the disk by ``(u + m) / (1 + m u)``, by s and p."""
    slope, bend = inside / (1 + middle * u) ** 2, -2 * middle * inside / (1 + middle * u) ** 3
    us, up = 0.5 + 0 * u, -1 / (2 * u)
    first = [slope * us, slope * up]
    return first, [bend * us * us + slope / (4 * u), bend * us * up, bend * up * up - slope / (4 * u**3)]


def _middle(upper: Array, lower: Array, pair: Array) -> Array:
    """The real point from which both are at the same hyperbolic distance, on the line through them or across."""
    xp = namespace(upper)
    # m solves m^2 (a + b) - 2 m (1 + a b) + (a + b) = 0 for two reals, and the same for a conjugate pair
    total, product = xp.real(upper + lower), xp.real(upper * lower)
    half = 1 + product
    root = xp.sqrt(xp.clip((half - total) * (half + total), min=0.0))
    return total / (half + root)


def _automorphism(poles: Array, step: Array) -> Array:
    """``step`` from ``poles`` in the hyperbolic metric, never onto the circle."""
    xp = namespace(poles)
    size = xp.abs(step)
    safe = xp.where(size > 0, size, xp.ones_like(size))
    step = step * as_complex(xp.where(size > 0, xp.tanh(safe) / safe, xp.ones_like(size)))
    return (poles + step) / (1 + xp.conj(poles) * step)


def _automorphism_slopes(poles: Array, x: Array, y: Array) -> Array:
    """Derivatives ``(..., 2)`` of :func:`_automorphism` by the real and the imaginary part of the step."""
    xp = namespace(poles)
    size = xp.sqrt(x * x + y * y)
    small = size < 1e-4
    safe = xp.where(small, xp.ones_like(size), size)
    tanh = xp.tanh(safe)
    scale = xp.where(small, 1 - size**2 / 3, tanh / safe)
    # (tanh(r) / r)' / r
    change = xp.where(small, -2 / 3 + 8 * size**2 / 15, ((1 - tanh**2) - tanh / safe) / safe**2)
    step = as_complex(x) + 1j * as_complex(y)
    moved = (1 - xp.abs(poles) ** 2) / (1 + xp.conj(poles) * step * scale) ** 2
    return xp.stack([moved * (scale + step * change * x), moved * (1j * scale + step * change * y)], axis=-1)


def _roots(total: Array, product: Array) -> tuple[Array, Array]:
    """The roots of ``u^2 - total u + product``, at least 2e-5 apart."""
    xp = namespace(total)
    square = total**2 / 4 - product
    least = _APART**2 * xp.ones_like(square)
    square = xp.where(xp.abs(square) < _APART**2, xp.where(square < 0, -least, least), square)
    root = xp.sqrt(xp.abs(square))
    none = xp.zeros_like(root)
    half = as_complex(xp.where(square < 0, none, root)) + 1j * as_complex(xp.where(square < 0, root, none))
    return as_complex(total / 2) + half, as_complex(total / 2) - half


def _on_columns(S: Array, first: Array) -> Array:
    """``S J`` transposed, J block diagonal: twice is ``J^T S J``."""
    xp = namespace(S)
    even, odd = S[..., 0::2], S[..., 1::2]
    columns = [even * first[..., None, :, 0, a] + odd * first[..., None, :, 1, a] for a in (0, 1)]
    return xp.matrix_transpose(xp.reshape(xp.stack(columns, axis=-1), S.shape))


def _block_diagonal(curved: Array) -> Array:
    """``(batch, d, d)`` with the blocks ``[[c0, c1], [c1, c2]]`` of ``(batch, d/2, 3)``."""
    xp = namespace(curved)
    d = 2 * curved.shape[-2]

    def along(first: Array, second: Array) -> Array:
        return xp.reshape(xp.stack([first, second], axis=-1), (*curved.shape[:-2], d))

    none = xp.zeros_like(curved[..., 0])
    diagonal = along(curved[..., 0], curved[..., 2])[..., None] * xp.eye(d, dtype=curved.dtype, device=curved.device)
    above = along(curved[..., 1], none)[..., None] * xp.eye(d, k=1, dtype=curved.dtype, device=curved.device)
    return diagonal + above + xp.matrix_transpose(above)


def arranged(poles: Array, live: Array, turn: int) -> Array:
    """Indices that put the poles of a real bank in pairs: conjugates first, then reals by size, then what is not live.

    Odd ``turn`` joins each real pole with its other neighbour, so that any two that come together can leave as a pair.
    """
    xp = namespace(poles)
    d = poles.shape[-1]
    place = xp.broadcast_to(xp.arange(d, dtype=xp.float64, device=poles.device), poles.shape)
    real = live & (xp.imag(poles) == 0)
    order = xp.argsort(xp.where(real, 2 * d + xp.real(poles), xp.where(live, place, xp.full_like(place, 4.0 * d))), axis=-1, stable=True)
    if turn % 2 == 0:
        return order
    reals, others = (xp.sum(xp.astype(chosen, xp.float64), axis=-1, keepdims=True) for chosen in (real, live & ~real))
    rolled = others + (place - others + 1) % xp.where(reals > 0, reals, xp.ones_like(reals))
    index = xp.where((place >= others) & (place < others + reals), rolled, place)
    return xp.take_along_axis(order, xp.astype(index, xp.int64), axis=-1)


def spread_apart(poles: Array, *, real: bool) -> Array:
    """``(batch, d)`` poles of a start, inside the circle and no two the same; conjugates are neighbours, the upper one first."""
    xp = namespace(poles)
    size = xp.abs(poles)
    if real:
        poles = xp.where(xp.abs(xp.imag(poles)) < _APART * xp.abs(1 - size**2), as_complex(xp.real(poles)), poles)
    shrunk = poles * as_complex((1 - 1e-9) / xp.where(size > 0, size, xp.ones_like(size)))
    poles = xp.where(size > 1 - 1e-9, shrunk, poles)
    columns = [poles[:, k] for k in range(poles.shape[-1])]
    for k in range(1, len(columns)):
        own, before = columns[k], xp.stack(columns[:k], axis=-1)
        gap = xp.abs(own[:, None] - before) / xp.abs(1 - xp.conj(before) * own[:, None])
        close = xp.any(gap < _APART, axis=-1) & (xp.imag(own) >= 0)
        turn = 1.0 if real else complex(np.exp(1j * k))
        move = xp.where(close, xp.full_like(own, 3 * k * _APART * turn), xp.zeros_like(own))
        moved = (own - move) / (1 - xp.conj(own) * move)
        if real and k + 1 < len(columns):
            columns[k + 1] = xp.where(close & (xp.imag(own) > 0), xp.conj(moved), columns[k + 1])
        columns[k] = moved
    return xp.stack(columns, axis=-1) if columns else poles
