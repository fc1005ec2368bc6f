"""Controllability and observability Gramians as factors, never as products: small Hankel values live in the factors only.

One system: a Schur form shared by both Lyapunov equations, then Hammarling's method in blocks (lyapunov.py). Banks of small
systems: diagonal form, where the Gramian is a Cauchy matrix between the inputs of the modes, and the orthonormal functions of
Takenaka, Malmquist and Kautz give its factor elementwise, both Gramians and every input from one, accurate entry by entry however
close the poles are (Demmel, SIAM J. Matrix Anal. 21, 1999).
"""

from __future__ import annotations

from functools import partial, singledispatch
from math import prod

import numpy as np

from ssmid._array import (
    Array,
    as_complex,
    astype_width,
    batched_on_host,
    broadcast_batch,
    double,
    in_pieces,
    is_complex,
    namespace,
    on_host,
    quiet,
    to_numpy,
    width,
)
from ssmid.analysis.adi import low_rank_gramians
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.analysis.state_units import uneven_scales
from ssmid.linalg import adjoint, eig, eigvals, inverse, transpose, triangular_factor
from ssmid.systems import Modal, SparseStateSpace, StateSpace, System
from ssmid.systems.base import not_a_system

_LARGEST_DIAGONAL, _WIDEST_DIAGONAL = 64, 512
"""States, and columns of a factor (states times inputs), up to which the diagonal form beats the Schur form."""
_PIECE = 64
"""Elements of a bank whose matrices stay in the cache."""
_WORST_EIGENVECTORS = 1e5


def gramian_factors(system: System) -> tuple[Array, Array]:
    """Factors ``R``, ``L`` of the Gramians: ``Wc = R R^H`` (controllability), ``Wo = L L^H`` (observability).

    system : StateSpace, SparseStateSpace or Modal, stable, continuous or discrete. Returns two arrays ``(*batch, n, n)``; the
    singular values of ``L^H R`` are the Hankel singular values. Factors of a real StateSpace are real.

    Those of a SparseStateSpace are of low rank, ``(n, k)``, by alternating directions (Benner, Kürschner & Saak 2013): they carry the
    Gramians to 1e-12 of the right-hand sides; unstable ones raise ValueError as far as that shows.

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
    if not isinstance(system, System):
        raise not_a_system(system)
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
    elif batch and n <= _LARGEST_DIAGONAL and n * min(n, max(system.inputs, system.outputs)) <= _WIDEST_DIAGONAL:
        R, L = in_pieces(partial(_bank_factors, discrete=system.is_discrete), prod(batch) // _PIECE, A, B, C)
    else:
        R, L = batched_on_host(partial(schur_gramian_factors, discrete=system.is_discrete), A, B, C)
    return astype_width(R, width(system.A)), astype_width(L, width(system.A))


@gramian_factors_or_nan.register
def _(system: Modal) -> tuple[Array, Array]:
    poles, inputs, outputs = modal_realization(system)
    xp = namespace(poles)
    if poles.shape[-1] == 0:
        empty = astype_width(xp.zeros((*poles.shape, 0), dtype=poles.dtype, device=poles.device), width(system.poles))
        return empty, empty
    stable, safe = _stable(poles, system.is_discrete)
    root = cauchy_root(safe, discrete=system.is_discrete, real=system.real)
    R, L = inputs[..., None] * root, xp.conj(outputs[..., None] * root)
    return tuple(astype_width(xp.where(stable, factor, xp.nan * xp.ones_like(factor)), width(system.poles)) for factor in (R, L))


@gramian_factors_or_nan.register
def _(system: SparseStateSpace) -> tuple[Array, Array]:
    found = low_rank_gramians(system)
    return astype_width(found.R, width(system.B)), astype_width(system.mass.T @ found.L, width(system.B))


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


@quiet
def _bank_factors(A: Array, B: Array, C: Array, *, discrete: bool) -> tuple[Array, Array]:
    """Diagonal form for the whole bank; elements of ill-conditioned eigenvectors take the Schur form one by one."""
    xp, real = namespace(A), not is_complex(A)
    units = uneven_scales(A, B, C, least=float(discrete))[..., None]
    A, B, C = A * transpose(units) / units, B / units, C * transpose(units)
    poles, V = eig(A)
    if real:
        V = xp.where(xp.imag(poles)[..., None, :] < 0, xp.imag(V), xp.real(V))  # (Re v, -Im v) for v and its conjugate
    W = inverse(V)
    stable, safe = _stable(poles, discrete)
    condition = A.shape[-1] ** 0.5 * xp.linalg.vector_norm(W, axis=(-2, -1), keepdims=True)  # eigenvectors have length 1
    good = stable & (condition < _WORST_EIGENVECTORS)
    V, W = (xp.where(good, M, xp.zeros_like(M)) for M in (V, W))
    root = cauchy_root(safe, discrete=discrete, real=real)
    R = _square_root(V @ _mode_rows(W @ _square_root(B), root, poles))
    L = _square_root(adjoint(W) @ _mode_rows(adjoint(V) @ _square_root(adjoint(C)), xp.conj(root), poles))
    R, L = (xp.where(stable, factor, xp.nan * xp.ones_like(factor)) for factor in (R, L))
    retry = (stable & ~good)[..., 0, 0]
    if bool(xp.any(retry)):
        R, L = on_host(partial(_replaced_by_schur, discrete=discrete), R, L, A, B, C, retry)
    return units * R, L / units


def _replaced_by_schur(R: np.ndarray, L: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, chosen: np.ndarray, discrete: bool):
    R, L = R.copy(), L.copy()
    for index in np.argwhere(chosen):
        k = tuple(index)
        R[k], L[k] = schur_gramian_factors(A[k], B[k], C[k], discrete=discrete)
    return R, L


def cauchy_root(poles: Array, *, discrete: bool, real: bool) -> Array:
    """``F`` ``(*batch, n, n)`` with ``F F^H`` the Gramian of ``A = diag(poles)`` and ``B`` all ones, a Cauchy matrix.

    Column ``j`` is the ``j``-th Takenaka-Malmquist function of the poles, ``sqrt(-2 Re p_j) / (s - p_j)`` behind the Blaschke
    factors of those before, at the mirror images of the poles: products and quotients only, so that every entry has full relative
    accuracy. ``real``, for poles closed under conjugation: conjugate poles have conjugate rows, by the real functions of Kautz
    (IRE Trans. Circuit Theory 1, 1954) of two poles at a time, ``sqrt(2a) s / q`` and ``sqrt(2ac) / q``, ``q = s^2 + a s + c``.
    """
    xp, n = namespace(poles), poles.shape[-1]
    tail = as_complex(xp.ones_like(xp.real(poles)))
    if discrete:
        beyond = xp.abs(1 + poles)
        tail = 2**0.5 / (1 + poles)
        poles = (xp.abs(poles) - 1) * (xp.abs(poles) + 1) / beyond**2 + 2j * xp.imag(poles) / beyond**2
    taken = poles
    if real:  # pairs first, so that what is taken together is closed under conjugation
        taken = xp.take_along_axis(poles, xp.argsort(xp.astype(xp.imag(poles) == 0, xp.int64), axis=-1, stable=True), axis=-1)
    columns = []
    while len(columns) < n:
        p, q = (taken[..., k : k + 1] for k in (len(columns), min(len(columns) + 1, n - 1)))
        over_p, over_q = 1 / (poles + xp.conj(p)), 1 / (poles + xp.conj(q))
        if real and len(columns) + 1 < n:
            both = tail * over_q * xp.sqrt(2 * xp.abs(xp.real(p) + xp.real(q)))
            columns += [both * (poles * over_p), both * (xp.sqrt(xp.abs(p)) * xp.sqrt(xp.abs(q)) * over_p)]
            tail = tail * ((poles - p) * over_p) * ((poles - q) * over_q)
        else:
            columns.append(tail * over_p * xp.sqrt(2 * xp.abs(xp.real(p))))
            tail = tail * ((poles - p) * over_p)
    return xp.stack(columns, axis=-1)


def _mode_rows(weights: Array, root: Array, poles: Array) -> Array:
    """The factor ``(*batch, n, m n)`` of diagonal form, input by input; real ``weights`` are those of (Re z, Im z) of each pair z."""
    xp = namespace(weights, root)
    real, side = not is_complex(weights), xp.imag(poles)[..., None]
    if real:
        above, below = xp.roll(weights, 1, axis=-2), xp.roll(weights, -1, axis=-2)
        imag = xp.where(side < 0, -weights, xp.where(side > 0, below, xp.zeros_like(weights)))
        weights = as_complex(xp.where(side < 0, above, weights)) + 1j * as_complex(imag)
    rows = weights[..., None] * root[..., None, :]
    if real:
        rows = xp.where(side[..., None] < 0, -xp.imag(rows), xp.real(rows))
    return xp.reshape(rows, (*root.shape[:-1], weights.shape[-1] * root.shape[-1]))


def _square_root(R: Array) -> Array:
    """``R R^H`` by no more columns than rows."""
    return R if R.shape[-1] <= R.shape[-2] else adjoint(triangular_factor(adjoint(R)))
