"""Controllability and observability Gramians as factors, never as products: small Hankel values live in the factors only.

One system: a Schur form shared by both Lyapunov equations, then Hammarling's method in blocks (lyapunov.py). Banks of small
systems: the same recursion on diagonal form, where every step is elementwise over the whole bank and the triangular factor is the
Takenaka-Malmquist basis of the poles, accurate entry by entry however close the poles are (Demmel, SIAM J. Matrix Anal. 21, 1999).
"""

from __future__ import annotations

from functools import partial, singledispatch

import numpy as np

from ssmid._array import (
    Array,
    as_complex,
    astype_width,
    batched_on_host,
    broadcast_batch,
    double,
    is_complex,
    namespace,
    on_host,
    to_numpy,
    width,
)
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.linalg import adjoint, eig, eigvals, inverse, transpose
from ssmid.systems import Modal, StateSpace, System

_LARGEST_DIAGONAL = 64
_WORST_EIGENVECTORS = 1e5


def gramian_factors(system: System) -> tuple[Array, Array]:
    """Factors ``R``, ``L`` of the Gramians: ``Wc = R R^H`` (controllability), ``Wo = L L^H`` (observability).

    system : StateSpace or Modal, stable, continuous or discrete. Returns two arrays ``(*batch, n, n)``; the singular values of
    ``L^H R`` are the Hankel singular values. Factors of a real StateSpace are real.

    The states of a Modal bank are those of :func:`modal_realization`: one for each pole of the bank closed under conjugation, with
    ``|B_i| = |C_i|``; its factors are complex and ``L^H R`` is real where the bank is.

    Raises ValueError for a single unstable system; an unstable or NaN element of a batch gives NaN. Not differentiable. Sources:
    Hammarling (IMA J. Numer. Anal. 2, 1982), Penzl (Adv. Comput. Math. 8, 1998), Kressner (block variants, 2008).

    >>> from ssmid import ss
    >>> R, L = gramian_factors(ss(0.5, 1, 3))
    >>> round(float(R[0, 0]) ** 2, 6), round(float(L[0, 0]) ** 2, 6)        # 1 / (1 - 1/4), 9 / (1 - 1/4)
    (1.333333, 12.0)
    """
    R, L = gramian_factors_or_nan(system)
    if R.ndim == 2 and bool(namespace(R).any(namespace(R).isnan(R))):
        poles = system.poles if isinstance(system, Modal) else eigvals(system.arrays["A"])
        reach = abs(to_numpy(poles)) if system.is_discrete else np.real(to_numpy(poles))
        boundary = "modulus 1" if system.is_discrete else "the imaginary axis"
        raise ValueError(f"expected a stable system, got the pole {to_numpy(poles)[reach.argmax()]:.6g} on or beyond {boundary}")
    return R, L


def gramians(system: StateSpace | Modal) -> tuple[Array, Array]:
    """The Gramians ``Wc`` and ``Wo``, each ``(*batch, n, n)``: ``A Wc + Wc A^H + B B^H = 0`` or ``A Wc A^H - Wc + B B^H = 0``.

    See :func:`gramian_factors`, which keeps the small Hankel values that these products round away.

    >>> from ssmid import ss
    >>> Wc, Wo = gramians(ss(-1, 1, 2, dt=0))
    >>> round(float(Wc[0, 0]), 6), round(float(Wo[0, 0]), 6)
    (0.5, 2.0)
    """
    R, L = gramian_factors(system)
    return R @ adjoint(R), L @ adjoint(L)


@singledispatch
def gramian_factors_or_nan(system: System) -> tuple[Array, Array]:
    """As :func:`gramian_factors`, with NaN for an unstable system, single or not."""
    raise TypeError(
        f"expected a StateSpace or Modal, got {type(system).__name__}: Gramians belong to states, take ssmid.to_state_space(system) first"
    )


@gramian_factors_or_nan.register
def _(system: StateSpace) -> tuple[Array, Array]:
    xp = namespace(system.A)
    batch, n = broadcast_batch(A=system.A.shape[:-2], B=system.B.shape[:-2], C=system.C.shape[:-2]), system.order
    matrices = [double(M) for M in (system.A, system.B, system.C)]
    if any(is_complex(M) for M in matrices):
        matrices = [as_complex(M) for M in matrices]
    A, B, C = (xp.broadcast_to(M, (*batch, *M.shape[-2:])) for M in matrices)
    if n == 0:
        R, L = A, A
    elif batch and n <= _LARGEST_DIAGONAL:
        R, L = _bank_factors(A, B, C, system.is_discrete)
    else:
        R, L = batched_on_host(partial(schur_gramian_factors, discrete=system.is_discrete), A, B, C)
    return astype_width(R, width(system.A)), astype_width(L, width(system.A))


@gramian_factors_or_nan.register
def _(system: Modal) -> tuple[Array, Array]:
    poles, inputs, outputs = modal_realization(system)
    xp = namespace(poles)
    if poles.shape[-1] == 0:
        empty = xp.zeros((*poles.shape, 0), dtype=poles.dtype, device=poles.device)
        return empty, empty
    stable, safe = _stable(poles, system.is_discrete)
    R = _diagonal_factor(safe, xp.where(stable, inputs[..., None], xp.zeros_like(inputs[..., None])), system.is_discrete)
    if system.real:
        R = _real_columns(R, poles)
    phase = xp.where(inputs == 0, xp.ones_like(outputs), outputs / xp.where(inputs == 0, xp.ones_like(inputs), inputs))
    L = xp.conj(phase[..., None] * R)
    return tuple(astype_width(xp.where(stable, factor, xp.nan * xp.ones_like(factor)), width(system.poles)) for factor in (R, L))


def modal_realization(system: Modal) -> tuple[Array, Array, Array]:
    """Poles, inputs and outputs ``(*batch, n)``: ``h[t] = sum_i outputs_i inputs_i poles_i^(t-1)``, in double precision.

    For a real bank the poles are closed under conjugation, pairs adjacent with the positive imaginary part first: n is the order
    where the whole bank was closed already, else twice the order (a real part is half the sum of both conjugates). ``inputs`` are
    the roots of the moduli of the residues, real and not negative.
    """
    xp = namespace(system.poles)
    batch = broadcast_batch(poles=system.poles.shape[:-1], residues=system.residues.shape[:-1])
    poles, residues = (xp.broadcast_to(double(a), (*batch, system.order)) for a in (system.poles, system.residues))
    if system.real and system.order:
        poles, residues = _closed_under_conjugation(poles, residues)
    size = xp.sqrt(xp.abs(residues))
    outputs = residues / xp.where(size == 0, xp.ones_like(size), size)
    return poles, as_complex(size), outputs


def _closed_under_conjugation(poles: Array, residues: Array) -> tuple[Array, Array]:
    """Where poles come in pairs the real part of the sum is kept by the mean of each residue and the conjugate of its partner's."""
    xp = namespace(poles)
    distance = xp.abs(poles[..., :, None] - xp.conj(poles)[..., None, :])
    partner = xp.argmin(distance, axis=-1)
    index = xp.broadcast_to(xp.arange(poles.shape[-1], device=poles.device, dtype=partner.dtype), partner.shape)
    involutive = xp.take_along_axis(partner, partner, axis=-1) == index
    near = xp.abs(xp.take_along_axis(poles, partner, axis=-1) - xp.conj(poles)) <= 1e-12 * xp.abs(poles)
    if bool(xp.all(involutive & near | ~xp.isfinite(xp.abs(poles)))):
        order = xp.argsort(2 * xp.minimum(index, partner) + xp.astype(xp.imag(poles) < 0, index.dtype), axis=-1)
        both = [(v + xp.conj(xp.take_along_axis(v, partner, axis=-1))) / 2 for v in (poles, residues)]
        return xp.take_along_axis(both[0], order, axis=-1), xp.take_along_axis(both[1], order, axis=-1)
    flip = xp.imag(poles) < 0
    poles, residues = (xp.where(flip, xp.conj(v), v) for v in (poles, residues))
    shape = (*poles.shape[:-1], 2 * poles.shape[-1])
    return tuple(xp.reshape(xp.stack([v, xp.conj(v)], axis=-1), shape) for v in (poles, residues / 2))


def _stable(poles: Array, discrete: bool) -> tuple[Array, Array]:
    """Which elements are stable, ``(*batch, 1, 1)``, and their poles, with stable ones in place of all others."""
    xp = namespace(poles)
    stable = xp.all(xp.abs(poles) < 1 if discrete else xp.real(poles) < 0, axis=-1, keepdims=True)
    return stable[..., None], xp.where(stable, poles, xp.zeros_like(poles) if discrete else -xp.ones_like(poles))


def _bank_factors(A: Array, B: Array, C: Array, discrete: bool) -> tuple[Array, Array]:
    """Diagonal form for the whole bank; elements of ill-conditioned eigenvectors take the Schur form one by one."""
    xp = namespace(A)
    poles, V = eig(A)
    W = inverse(V)
    stable, safe = _stable(poles, discrete)
    found = xp.all(xp.isfinite(W), axis=(-2, -1), keepdims=True) & stable
    V, W = (xp.where(found, M, xp.zeros_like(M)) for M in (V, W))
    condition = xp.linalg.vector_norm(V, axis=(-2, -1), keepdims=True) * xp.linalg.vector_norm(W, axis=(-2, -1), keepdims=True)
    good = found & (condition < _WORST_EIGENVECTORS)
    V, W = (xp.where(good, M, xp.zeros_like(M)) for M in (V, W))
    R = _diagonal_factor(safe, W @ as_complex(B), discrete)
    L = _diagonal_factor(xp.conj(safe), adjoint(as_complex(C) @ V), discrete)
    if not is_complex(A):
        R, L = xp.real(V @ _real_columns(R, poles)), xp.real(adjoint(W) @ _real_columns(L, poles))
    else:
        R, L = V @ R, adjoint(W) @ L
    R, L = (xp.where(stable, factor, xp.nan * xp.ones_like(factor)) for factor in (R, L))
    retry = (stable & ~good)[..., 0, 0]
    if bool(xp.any(retry)):
        R, L = on_host(partial(_replaced_by_schur, discrete=discrete), R, L, A, B, C, retry)
    return R, L


def _replaced_by_schur(R: np.ndarray, L: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, chosen: np.ndarray, discrete: bool):
    R, L = R.copy(), L.copy()
    for index in np.argwhere(chosen):
        k = tuple(index)
        R[k], L[k] = schur_gramian_factors(A[k], B[k], C[k], discrete=discrete)
    return R, L


def _diagonal_factor(poles: Array, B: Array, discrete: bool) -> Array:
    """``R`` ``(*batch, n, n)``, upper triangular, of the Gramian ``R R^H`` of ``A = diag(poles)`` and ``B`` ``(*batch, n, m)``.

    Hammarling's recursion (lyapunov.py) on a diagonal: no system to solve. With one input each step multiplies by a Blaschke
    factor, so that every entry has full relative accuracy.
    """
    xp = namespace(poles, B)
    n = poles.shape[-1]
    scale = xp.max(xp.abs(B), axis=(-2, -1), keepdims=True)
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    B = B / scale
    if discrete:
        beyond = xp.abs(1 + poles)
        B = B * (2**0.5 / (1 + poles))[..., None]
        poles = (xp.abs(poles) - 1) * (xp.abs(poles) + 1) / beyond**2 + 2j * xp.imag(poles) / beyond**2
    rate = xp.sqrt(xp.abs(2 * xp.real(poles)))
    columns = []
    for j in range(n - 1, -1, -1):
        b = B[..., j, :]
        size = xp.linalg.vector_norm(b, axis=-1, keepdims=True)
        unit = b / xp.where(size > 0, size, xp.ones_like(size))
        mirror = poles + xp.conj(poles[..., j : j + 1])
        blaschke = (poles - poles[..., j : j + 1]) / mirror
        along = xp.sum(B * xp.conj(unit)[..., None, :], axis=-1)
        columns.append(-along * rate[..., j : j + 1] / mirror)
        if B.shape[-1] == 1:
            # nothing of B stands beside the direction of b, exactly; where b is zero there is no direction and B stays
            B = B * xp.where(size > 0, blaschke, xp.ones_like(blaschke))[..., None]
        else:
            B = B + (along * (blaschke - 1))[..., None] * unit[..., None, :]
            B = xp.where((xp.arange(n, device=poles.device) < j)[:, None], B, xp.zeros_like(B))
    return transpose(xp.stack(columns[::-1], axis=-2)) * scale


def _real_columns(R: Array, poles: Array) -> Array:
    """The columns of each conjugate pair (adjacent, positive imaginary part first) turned so that conjugate rows are conjugates.

    A pair has the block ``[[a, x], [0, d]]`` with ``a^2 + |x|^2 = d^2``; the unitary ``Q`` wanted is the Takagi factor of the
    symmetric unitary ``[[-x, a], [a, conj(x)]] / d``, a rotation by half the angle of ``(|x|, a)`` between two phases.
    """
    xp = namespace(R)
    n = R.shape[-1]
    if n < 2:
        return R
    first = xp.imag(poles)[..., :-1] > 0
    x = xp.linalg.diagonal(R, offset=1)
    half = xp.atan2(xp.real(xp.linalg.diagonal(R))[..., :-1], xp.abs(x)) / 2
    turn = as_complex(xp.cos(xp.atan2(xp.imag(x), xp.real(x)) / 2)) + 1j * as_complex(xp.sin(xp.atan2(xp.imag(x), xp.real(x)) / 2))
    c, s = as_complex(xp.cos(half)), as_complex(xp.sin(half))
    none, one = xp.zeros_like(x), xp.ones_like(x)
    end = xp.ones_like(R[..., :1, 0])
    above, below = xp.where(first, turn * s, none), xp.where(first, -1j * s * xp.conj(turn), none)
    as_first = xp.concat([xp.where(first, 1j * turn * c, one), end], axis=-1)
    as_second = xp.concat([end, xp.where(first, c * xp.conj(turn), one)], axis=-1)
    index = xp.arange(n, device=R.device)
    offset = index[None, :] - index[:, None]
    pad = xp.zeros_like(end)
    Q = xp.where(offset == 0, (as_first * as_second)[..., None, :], xp.zeros_like(R))
    Q = xp.where(offset == 1, xp.concat([pad, above], axis=-1)[..., None, :], Q)
    return R @ xp.where(offset == -1, xp.concat([below, pad], axis=-1)[..., None, :], Q)
