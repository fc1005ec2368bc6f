"""Norms of the difference between a finite response and a model, from little more than the taps of the response.

The model rings on after the last tap L, for ever; that tail is never written out. After L taps the model is left in the states
``A^(L-1) B``, so that the tail's energy is known from the observability Gramian, and its gain and the sum of its moduli are at
most twice the sum of its Hankel values ``svd(L_o* A^(L-1) R_c)`` (Glover 1984; Boyd & Doyle, Systems & Control Letters 9, 1987).
To the Hankel operator it adds a border of as many rows and columns as there are states, because both factors of the model's own
Hankel operator beyond L taps are isometries times ``A^(L-1) R_c`` and ``L_o* A^(L-1)``.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial
from math import prod

import numpy as np

from ssmid._array import (
    Array,
    astype_width,
    batched_on_host,
    detach,
    double,
    from_numpy,
    is_complex,
    namespace,
    same_field,
    to_numpy,
    width,
)
from ssmid.analysis.fir_peak import fir_peak
from ssmid.analysis.gramians import gramian_factors_or_nan
from ssmid.analysis.hankel import DENSE, channels, hankel_matrix, normalized
from ssmid.analysis.impulse import markov_parameters
from ssmid.analysis.krylov import Operator, leading_triplets
from ssmid.analysis.l1 import l1_norm
from ssmid.linalg import adjoint, block_hankel_products, eigvals, svd, transpose
from ssmid.systems import ImpulseResponse, StateSpace

RTOL = {"h2": 0.0, "hankel": 1e-8, "hinf": 1e-6, "l1": 0.0}
"""To what each norm is measured, relative to itself, where nothing else is asked for; 0 is to rounding."""
_NEGLIGIBLE = 1e-12
_LONGEST, _LONG = 16, 65536
_BASIS, _MEMORY, _PRODUCTS = 40, 2**30, 2000


def response_error(
    response: ImpulseResponse, model: StateSpace, kind: str, *, rtol: float | None = None, extrapolates: bool = False
) -> Array:
    """``(*batch,)`` the norm ``kind`` ("h2", "hankel", "hinf", "l1") of ``response - model``. Not differentiable.

    Where the model's batch lacks the last two axes of the response, these are the outputs and inputs of one system.
    rtol : relative accuracy of a Hankel or H-infinity norm (1e-8 of a singular value's residual, 1e-6 of a gain); what is dropped
        of a tail is at most a fifth of it, and 1e-12 where nothing is asked for.
    extrapolates : leave out what the model does beyond the last tap.

    Energy, Hankel norm and l1 norm count the whole tail. The H-infinity norm is that of the first N taps, N doubled until the
    bound of the rest is negligible or N is 16 times the response (65,536 taps if that is more); the bound is added.
    Infinite for an unstable model (unless it extrapolates), NaN for NaN.

    >>> import numpy as np
    >>> from ssmid import ss
    >>> h = ImpulseResponse([0.0, 1.0, 0.5])                     # a pole at 1/2, cut after three taps
    >>> round(float(response_error(h, ss(0.5, 1.0, 1.0), "h2")) ** 2, 12), round(1 / 16 / (1 - 1 / 4), 12)
    (0.083333333333, 0.083333333333)
    >>> round(float(response_error(h, ss(0.5, 1.0, 1.0), "l1")), 12)
    0.5
    """
    coupled = len(response.batch_shape) > len(model.batch_shape)
    taps = channels(response, coupled)
    batch = taps.shape[:-3]
    xp = namespace(taps)
    flat, sound, scale = normalized(xp.reshape(taps, (prod(batch), *taps.shape[-3:])))
    difference = _Difference.between(flat, model, batch, scale, extrapolates)
    rtol = RTOL[kind] if rtol is None else rtol
    with np.errstate(over="ignore", invalid="ignore"):
        size = {"h2": _energy, "hankel": _hankel, "hinf": _peak, "l1": _moduli}[kind](difference, rtol)
    size = xp.where(difference.stable, size, xp.full_like(size, float("inf")))
    size = xp.where(sound & difference.finite, size, xp.full_like(size, float("nan"))) * scale
    return astype_width(xp.reshape(size, batch), width(response.taps))


@dataclasses.dataclass(frozen=True, eq=False)
class _Difference:
    """``taps`` ``(batch, p, m, L)`` of response minus model, and the model; unstable and broken elements are made zero.

    stable, finite : ``(batch,)``   extrapolates : whether the tail does not count
    """

    taps: Array
    A: Array
    B: Array
    C: Array
    stable: Array
    finite: Array
    extrapolates: bool

    @staticmethod
    def between(taps: Array, model: StateSpace, batch: tuple[int, ...], scale: Array, extrapolates: bool) -> _Difference:
        xp = namespace(taps)
        matrices = [detach(double(M)) for M in (model.A, model.B, model.C, model.D)]
        matrices = [xp.reshape(xp.broadcast_to(M, (*batch, *M.shape[-2:])), (prod(batch), *M.shape[-2:])) for M in matrices]
        taps, *matrices = same_field(taps, *matrices)
        finite = xp.all(xp.stack([xp.all(xp.isfinite(M), axis=(-2, -1)) for M in matrices]), axis=0)
        stable = xp.ones_like(finite) if extrapolates else finite & (_spectral_radius(matrices[0]) < 1)
        root = xp.astype(scale**0.5, taps.dtype)[:, None, None]
        A, B, C, D = (xp.where((stable & finite)[:, None, None], M, xp.zeros_like(M)) for M in matrices)
        B, C, D = B / root, C / root, D / root / root
        modelled = [D[..., None]] if taps.shape[-1] == 1 else [D[..., None], markov_parameters(A, B, C, taps.shape[-1] - 1)]
        taps = taps - xp.concat(modelled, axis=-1)
        return _Difference(taps, A, B, C, stable | ~finite, finite, extrapolates)

    @property
    def order(self) -> int:
        return 0 if self.extrapolates else self.A.shape[-1]

    @cached_property
    def factors(self) -> tuple[Array, Array]:
        R, L, _ = same_field(*gramian_factors_or_nan(StateSpace(self.A, self.B, self.C)), self.A)
        return R, L

    @cached_property
    def size(self) -> Array:
        """``(batch,)`` root of the energy of the taps: no norm of the difference but the Hankel norm is less."""
        xp = namespace(self.taps)
        return xp.sqrt(xp.sum(xp.abs(self.taps) ** 2, axis=(-3, -2, -1)))

    def power(self, steps: int) -> Array:
        return namespace(self.A).linalg.matrix_power(self.A, steps)

    def tail(self, steps: int) -> Array:
        """``(batch,)`` twice the sum of the Hankel values of the model after ``steps``, the bound of all that comes later."""
        xp = namespace(self.size)
        if self.order == 0:
            return xp.zeros_like(self.size)
        R, L = self.factors
        return 2 * xp.sum(svd(adjoint(L) @ self.power(steps) @ R)[1], axis=-1)

    def extended(self, length: int) -> Array:
        """The taps up to ``length``: beyond those of the response they are the model's alone."""
        xp, known = namespace(self.taps), self.taps.shape[-1]
        if length <= known or self.order == 0:
            return self.taps
        later = markov_parameters(self.A, self.power(known - 1) @ self.B, self.C, length - known)
        return xp.concat([self.taps, -later], axis=-1)


# ---------------------------------------------------------------- energy and moduli


def _energy(e: _Difference, rtol: float) -> Array:
    xp = namespace(e.size)
    if e.order == 0:
        return e.size
    left = adjoint(e.factors[1]) @ e.power(e.taps.shape[-1] - 1) @ e.B
    return xp.hypot(e.size, xp.sqrt(xp.sum(xp.abs(left) ** 2, axis=(-2, -1))))


def _moduli(e: _Difference, rtol: float) -> Array:
    xp = namespace(e.size)
    moduli = xp.sum(xp.abs(e.taps), axis=-1)
    if e.order:
        left = xp.matrix_transpose(e.power(e.taps.shape[-1] - 1) @ e.B)[:, None, :, :, None]
        A, C = e.A[:, None, None, :, :], e.C[:, :, None, None, :]
        later = batched_on_host(partial(l1_norm, discrete=True), A, left, C, xp.zeros_like(left[..., :1, :]))
        moduli = moduli + xp.real(later)
    return xp.max(xp.sum(moduli, axis=-1), axis=-1)


# ---------------------------------------------------------------- H-infinity norm


def _peak(e: _Difference, rtol: float) -> Array:
    xp = namespace(e.size)
    negligible = _negligible("hinf", rtol)
    length = e.taps.shape[-1]
    most = max(_LONGEST * length, _LONG)
    rest = e.tail(length - 1)
    while e.order and length < most and bool(xp.any(rest > negligible * e.size)):
        length = min(2 * length, most)
        rest = e.tail(length - 1)
    return fir_peak(_without_end(e.extended(length), negligible), rtol)[0] + rest


def _without_end(taps: Array, negligible: float) -> Array:
    """``taps`` ``(batch, p, m, length)`` without the last ones that a gain or a Hankel norm feels by ``negligible`` of itself at most.

    What is cut changes either norm by at most the sum of its moduli; either is at least the root of the energy after tap 0.
    """
    xp = namespace(taps)
    p, m, length = taps.shape[-3:]
    if length < 3:
        return taps
    size = xp.sqrt(xp.sum(xp.abs(taps) ** 2, axis=(-3, -2)))
    least = xp.sqrt(xp.sum(size[:, 1:] ** 2, axis=-1, keepdims=True) / min(p, m))
    cut = xp.flip(xp.cumulative_sum(xp.flip(size, axis=-1), axis=-1), axis=-1)
    felt = to_numpy(xp.count_nonzero(cut > negligible * least, axis=-1))
    return taps[..., : max(2, int(felt.max(initial=0)))]


# ---------------------------------------------------------------- Hankel norm


def _hankel(e: _Difference, rtol: float) -> Array:
    xp = namespace(e.size)
    *_, p, m, length = e.taps.shape
    negligible = _negligible("hankel", rtol)
    least = xp.sqrt(xp.sum(xp.abs(e.taps[..., 1:]) ** 2, axis=(-3, -2, -1)) / min(p, m))
    if not bool(xp.any(e.tail(length - 1) > negligible * least)):
        taps = _without_end(e.taps, negligible)[..., 1:]
        if taps.shape[-1] == 0:
            return xp.zeros_like(e.size)
        none = taps[:, 0, :0, :0]
        return _largest(_Bordered(taps, taps.shape[-1], none, none, none), rtol)
    if length < 2:
        return svd(adjoint(e.factors[1]) @ e.factors[0])[1][..., 0]
    return _largest(_bordered(e), rtol)


@dataclasses.dataclass(frozen=True, eq=False)
class _Bordered:
    """The matrices ``[[H, F^T], [G, K]]`` with ``size`` block rows and columns of the Hankel matrix H of strictly proper ``taps``.

    F, G : ``(batch, q, p size)`` and ``(batch, q, m size)``   K : ``(batch, q, q)``
    """

    taps: Array
    size: int
    F: Array
    G: Array
    K: Array

    @property
    def shape(self) -> tuple[int, int]:
        p, m = self.taps.shape[-3:-1]
        return p * self.size + self.K.shape[-1], m * self.size + self.K.shape[-1]

    def take(self, indices: Array) -> _Bordered:
        xp = namespace(self.taps)
        return _Bordered(xp.take(self.taps, indices, axis=0), self.size, *(xp.take(M, indices, axis=0) for M in (self.F, self.G, self.K)))

    def dense(self) -> Array:
        xp, H = namespace(self.taps), hankel_matrix(self.taps, self.size, self.size)
        if self.K.shape[-1] == 0:
            return H
        return xp.concat([xp.concat([H, transpose(self.F)], axis=-1), xp.concat([self.G, self.K], axis=-1)], axis=-2)

    def operator(self) -> Operator:
        xp = namespace(self.taps)
        product, adjoint_product = block_hankel_products(self.taps, self.size, self.size)
        (rows, columns), q = self.shape, self.K.shape[-1]

        def apply(x: Array) -> Array:
            inner, outer = x[..., : columns - q], x[..., columns - q :]
            return xp.concat([product(inner) + outer @ self.F, inner @ transpose(self.G) + outer @ transpose(self.K)], axis=-1)

        def back(y: Array) -> Array:
            inner, outer = y[..., : rows - q], y[..., rows - q :]
            x = adjoint_product(inner) + outer @ adjoint(transpose(self.G))
            return xp.concat([x, inner @ adjoint(self.F) + outer @ adjoint(transpose(self.K))], axis=-1)

        functions = (apply, back) if q else (product, adjoint_product)
        return Operator(rows, columns, *functions, lambda indices: self.take(indices).operator())


def _bordered(e: _Difference) -> _Bordered:
    """The whole Hankel operator of the difference, in orthonormal coordinates of what lies beyond the taps.

    With ``L_o* A^N R_c = U S V*``: inputs more than N steps ago reach the states ``A^N R_c V w`` with ``|w|`` at most their norm,
    and the output from N steps on has the energy of ``U* L_o* A^N x``. Directions whose S is rounding are left out.
    """
    xp, N = namespace(e.taps), e.taps.shape[-1] - 1
    p, m = e.taps.shape[-3:-1]
    R, L = e.factors
    power = e.power(N)
    U, S, Vh = svd(adjoint(L) @ power @ R)
    q = max(1, int(to_numpy(xp.count_nonzero(_NEGLIGIBLE / 8 * e.size[:, None] < S, axis=-1)).max(initial=0)))
    reached, observed = power @ R @ adjoint(Vh[:, :q, :]), adjoint(U[:, :, :q]) @ adjoint(L) @ power
    F = xp.moveaxis(markov_parameters(e.A, reached, e.C, N), -2, -3)
    G = markov_parameters(e.A, e.B, observed, N)
    F, G = xp.reshape(F, (-1, q, p * N)), xp.reshape(G, (-1, q, m * N))
    return _Bordered(e.extended(2 * N)[..., 1 : 2 * N], N, -F, -G, -(observed @ reached))


def _largest(matrix: _Bordered, rtol: float) -> Array:
    """``(batch,)`` the largest singular value: dense where small, else by Lanczos with single vectors, which need the fewest products."""
    xp, (rows, columns) = namespace(matrix.taps), matrix.shape
    batch = matrix.taps.shape[0]
    if min(rows, columns) <= DENSE:
        return svd(matrix.dense())[1][..., 0]
    entries = (rows + columns) * (2 if is_complex(matrix.taps) else 1)
    basis = min(_BASIS, rows, columns, max(_BASIS // 5, _MEMORY // (8 * entries)))
    step = max(1, _MEMORY // (8 * entries * basis))
    found = []
    for start in range(0, batch, step):
        part = matrix if step >= batch else matrix.take(from_numpy(np.arange(start, min(start + step, batch)), matrix.taps))
        triplets = leading_triplets(part.operator(), 1, part.taps, rtol=rtol, block=1, basis=basis, max_products=_PRODUCTS)
        found.append(triplets.sigma[:, 0])
    return xp.concat(found)


def _negligible(kind: str, rtol: float) -> float:
    """What may be dropped of a norm: nothing that counts, or a fifth of the accuracy where less was asked for than usual."""
    return rtol / 5 if rtol > RTOL[kind] else _NEGLIGIBLE


def _spectral_radius(A: Array) -> Array:
    xp = namespace(A)
    if A.shape[-1] == 0:
        return xp.zeros(A.shape[:-2], dtype=xp.float64, device=A.device)
    sound = xp.isfinite(xp.sum(xp.abs(A), axis=(-2, -1)))
    return xp.max(xp.abs(eigvals(xp.where(sound[:, None, None], A, xp.zeros_like(A)))), axis=-1)
