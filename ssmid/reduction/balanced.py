"""Balanced truncation: the states that inputs reach and outputs see least are left out, and the error is known beforehand."""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, astype_width, double, from_numpy, in_pieces, is_complex, namespace, same_field, to_numpy, width
from ssmid.analysis.conversion import to_modal, to_state_space
from ssmid.analysis.gramians import gramian_factors_or_nan, modal_realization
from ssmid.analysis.norms import norm
from ssmid.analysis.splitting import split_unstable
from ssmid.linalg import adjoint, solve, svd, transpose
from ssmid.reduction.arguments import checked_order, order_or_tolerance
from ssmid.reduction.fir import balanced_truncation_fir
from ssmid.reduction.low_rank import SparseReduction, compressed
from ssmid.reduction.result import Reduction
from ssmid.reduction.weighted import weighted_gramian_factors
from ssmid.systems import ImpulseResponse, Modal, SparseStateSpace, StateSpace, System

Matrices = tuple[Array, Array, Array, Array]


def balanced_truncation(
    system: System,
    order: int | None = None,
    *,
    tol: float | None = None,
    tol_norm: str | None = None,
    max_order: int | None = None,
    match_dc: bool = False,
    input_weight: System | None = None,
    output_weight: System | None = None,
    mimo: bool = False,
) -> Reduction:
    """The system of fewer states that balanced truncation gives, with its certificate. One system or a whole batch.

    system : a StateSpace gives a StateSpace, a Modal bank a Modal bank (each channel for itself), other representations go through
        :func:`ssmid.to_state_space`; an ImpulseResponse is taken as the finite response that it is
        (:func:`ssmid.reduction.fir.balanced_truncation_fir`); a stable SparseStateSpace goes by low-rank Gramian factors and gives a
        :class:`ssmid.reduction.low_rank.SparseReduction`, without weights. Continuous or discrete time, any inputs and outputs.
    order : states to keep, unstable ones included, or
    tol : a tolerance, met by the smallest order possible, for each element by itself (smaller ones are padded with states that no
        input reaches): ``tol_norm="bound"`` (default) is met where ``2 sum_{i > order} sigma_i <= tol * sigma_1``, a proven bound
        of the H-infinity error; "h2" where the measured relative H2 error is at most ``tol`` (default of impulse responses, where
        it is the relative l2 error). Orders up to ``max_order``. Where even the order that the system carries to rounding does
        not meet it, that order is returned with ``converged`` False and a warning.
    match_dc : keep the gain at frequency zero by singular perturbation of the states left out, instead of the feedthrough.
    input_weight, output_weight : stable systems; the error is made small where they are large (Enns 1984). ``sigma`` are then the
        weighted Hankel values, no bound is known beforehand (``bound`` and ``lower_bound`` are NaN, and so only ``order`` is
        allowed), and with both the result can be unstable: ``converged`` is False where it is.
    mimo : the last two batch axes of a Modal bank or of taps are outputs and inputs of one system.

    Unstable parts, poles on the boundary included, are split off and kept; ``sigma`` belongs to the stable part. Where
    ``sigma_order = sigma_{order+1}`` the choice among equal states is arbitrary and the bound still holds.

    By the square-root method: the singular value decomposition of the product of the Gramians' factors (Tombs & Postlethwaite,
    Int. J. Control 46, 1987; Moore 1981; bound: Enns 1984, Glover 1984, in discrete time Hinrichsen & Pritchard 1990; singular
    perturbation: Liu & Anderson, Int. J. Control 50, 1989). Not differentiable.

    Raises ValueError for an order below 1 or below the number of unstable poles, for one above what a single system carries
    to rounding (quoting it), for both or neither of ``order`` and ``tol``, and for a tolerance that is not positive. In a batch
    such elements get what they carry, or NaN, and ``converged`` False.

    >>> from ssmid import zpk
    >>> fit = balanced_truncation(zpk([-0.5], [0.9, 0.1, 0.11], 1.0), order=1)
    >>> fit.system
    StateSpace(order=1, outputs=1, inputs=1, batch=(), dt=1, float64)
    >>> bool(fit.lower_bound <= fit.measured("hinf") <= fit.bound)
    True
    """
    if isinstance(system, ImpulseResponse):
        if input_weight is not None or output_weight is not None or tol_norm not in (None, "h2"):
            raise ValueError("expected a model for weights or tol_norm='bound', got an ImpulseResponse: take ssmid.to_state_space(taps)")
        return balanced_truncation_fir(system, order, tol=tol, max_order=max_order, match_dc=match_dc, mimo=mimo)
    if isinstance(system, SparseStateSpace):
        if input_weight is not None or output_weight is not None:
            raise ValueError("expected a StateSpace for weights, got a SparseStateSpace: take ssmid.to_state_space(system)")
        small = compressed(system)
        fit = balanced_truncation(small.system, order, tol=tol, tol_norm=tol_norm, max_order=max_order, match_dc=match_dc)
        return small.certified(fit, system, SparseReduction)
    request = _Request(order, tol, tol_norm or "bound", max_order, match_dc, input_weight, output_weight)
    modal = isinstance(system, Modal) and not mimo and not request.weighted
    work = system if isinstance(system, StateSpace) or (modal and isinstance(system, Modal)) else to_state_space(system, mimo=mimo)
    if order is not None:
        request = dataclasses.replace(request, order=checked_order(order, work.order, larger=True))
    return _assembled([_reduced(piece, request) for piece in _pieces(work, request)], system, work, request)


@dataclasses.dataclass(frozen=True)
class _Request:
    order: int | None
    tol: float | None
    tol_norm: str
    max_order: int | None
    match_dc: bool
    input_weight: System | None
    output_weight: System | None

    def __post_init__(self) -> None:
        order_or_tolerance(self.order, self.tol, self.max_order)
        if self.tol_norm not in ("bound", "h2"):
            raise ValueError(f"tol_norm: expected 'bound' or 'h2', got {self.tol_norm!r}")
        if self.weighted and self.tol is not None and self.tol_norm == "bound":
            raise ValueError("tol: expected an order or tol_norm='h2' with frequency weights, which have no bound beforehand")

    @property
    def weighted(self) -> bool:
        return self.input_weight is not None or self.output_weight is not None


@dataclasses.dataclass(frozen=True, eq=False)
class _Piece:
    """Elements of the batch that are reduced together, and what balances them.

    places : where they stand in the flattened batch   system : their stable part, batch ``(k,)``
    left, right : ``(k, n, s)`` with ``left^H right = diag(sigma)``   sigma : ``(k, s)``
    unstable : the matrices ``A, B, C`` of the part that is kept   single : whether this is all there is
    """

    places: np.ndarray
    system: StateSpace | Modal
    left: Array
    right: Array
    sigma: Array
    unstable: tuple[Array, Array, Array] | None
    single: bool

    @property
    def kept(self) -> int:
        return 0 if self.unstable is None else self.unstable[0].shape[-1]

    def degrees(self) -> np.ndarray:
        """How many states each element carries to rounding."""
        sigma = to_numpy(self.sigma)
        return self.kept + (sigma > self.left.shape[-2] * np.finfo(float).eps * sigma.max(axis=-1, keepdims=True, initial=0.0)).sum(-1)


# ---------------------------------------------------------------- balancing


def _pieces(system: StateSpace | Modal, request: _Request) -> list[_Piece]:
    """All stable elements in one piece; each unstable one by itself, with its unstable part split off."""
    batch = system.batch_shape
    flat = flattened(system)
    size = prod(batch)
    piece = _balanced(np.arange(size), flat, request, None, single=not batch)
    lost = np.flatnonzero(~np.isfinite(to_numpy(piece.sigma)).all(-1))
    broken = [k for k in lost if all(np.isfinite(to_numpy(a[int(k), ...])).all() for a in flat.arrays.values())]
    if not broken:
        return [piece]
    pieces = []
    sound = np.setdiff1d(np.arange(size), broken)
    if len(sound):
        pieces.append(_balanced(sound, flat.map(lambda a: namespace(a).take(a, from_numpy(sound, a), axis=0)), request, None, single=False))
    for k in broken:
        element = flat.map(lambda a, k=k: a[int(k) : int(k) + 1, ...])
        states = element if isinstance(element, StateSpace) else to_state_space(element)
        hosts = [to_numpy(double(M))[0] for M in (states.A, states.B, states.C)]
        stable, unstable = ([from_numpy(M[None], states.A) for M in part] for part in split_unstable(*hosts, discrete=states.is_discrete))
        rest = StateSpace(stable[0], stable[1], stable[2], states.D, states.dt)
        pieces.append(_balanced(np.array([k]), rest, request, tuple(unstable), single=not batch))
    return pieces


def flattened(system: StateSpace | Modal) -> Any:
    """The same elements in one batch axis, in double precision."""
    size = prod(system.batch_shape)
    arrays = {
        name: namespace(a).reshape(double(a), (size, *a.shape[a.ndim - system.core_ndim[name] :]))
        for name, a in system.broadcast_arrays().items()
    }
    return dataclasses.replace(system, **arrays)


def _balanced(places: np.ndarray, system: StateSpace | Modal, request: _Request, unstable: Any, *, single: bool) -> _Piece:
    if request.weighted and isinstance(system, StateSpace):
        R, L = weighted_gramian_factors(system, request.input_weight, request.output_weight)
    else:
        R, L = gramian_factors_or_nan(system)
    if 0 in R.shape:
        xp = namespace(R)
        return _Piece(places, system, L, R, xp.zeros((*R.shape[:-2], 0), dtype=xp.float64), unstable, single)
    real = not is_complex(R) or (isinstance(system, Modal) and system.real)
    left, right, sigma = in_pieces(partial(_directions, real=real), len(places) // 64, L, R)
    return _Piece(places, system, left, right, sigma, unstable, single)


def _directions(L: Array, R: Array, *, real: bool) -> tuple[Array, Array, Array]:
    """``L U``, ``R V`` and ``sigma`` of ``L^H R = U diag(sigma) V^H``, NaN where that is not finite."""
    xp = namespace(R)
    product = adjoint(L) @ R
    product = xp.real(product) if real and is_complex(product) else product
    lost = ~xp.all(xp.isfinite(product), axis=(-2, -1))
    U, sigma, Vh = svd(xp.where(lost[:, None, None], xp.zeros_like(product), product))
    return L @ xp.astype(U, L.dtype), R @ xp.astype(adjoint(Vh), R.dtype), xp.where(lost[:, None], xp.nan, sigma)


# ---------------------------------------------------------------- choosing orders


def _orders(piece: _Piece, request: _Request) -> tuple[np.ndarray, np.ndarray]:
    """The order of each element and whether it is what was asked for."""
    sigma, degrees = to_numpy(piece.sigma), piece.degrees()
    if request.order is not None:
        if piece.single and request.order < piece.kept:
            raise ValueError(f"order: expected at least {piece.kept}, the number of unstable poles, which are kept, got {request.order}")
        if piece.single and 0 < degrees[0] < request.order:
            raise ValueError(f"order: expected 1 to {degrees[0]}, which is what the system carries to rounding, got {request.order}")
        return np.clip(request.order, piece.kept, degrees), (request.order <= degrees) & (request.order >= piece.kept) | (degrees == 0)
    largest = np.minimum(degrees, max(piece.kept, request.max_order or degrees.max(initial=0)))
    if request.tol_norm == "h2":
        orders, met = _orders_by_error(piece, request, largest)
    else:
        tails = 2 * np.concatenate([np.cumsum(sigma[:, ::-1], axis=-1)[:, ::-1], np.zeros((len(sigma), 1))], axis=-1)
        enough = tails <= request.tol * sigma.max(axis=-1, keepdims=True, initial=0.0)
        orders = np.minimum(piece.kept + np.argmax(enough, axis=-1), largest)
        met = np.take_along_axis(enough, (orders - piece.kept)[:, None], axis=-1)[:, 0]
    if not (met | ~np.isfinite(sigma).all(-1)).all():
        unmet = f"{(~met).sum()} of {len(met)} systems"
        warnings.warn(f"tol: {request.tol} is not met by {unmet}, whose largest order that carries anything is returned", stacklevel=5)
    return orders, met


def _orders_by_error(piece: _Piece, request: _Request, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By bisection between orders whose measured relative H2 error is too large and orders where it is not."""
    whole = piece.system if isinstance(piece.system, StateSpace) else to_state_space(piece.system)
    size = to_numpy(norm(StateSpace(whole.A, whole.B, whole.C, dt=whole.dt), "h2"))

    def error(orders: np.ndarray) -> np.ndarray:
        A, B, C, D = _projected(piece, orders, request.match_dc)
        xp = namespace(A)
        n, r = whole.A.shape[-1], A.shape[-1]
        corner = xp.zeros((A.shape[0], n, r), dtype=A.dtype, device=A.device)
        both = xp.concat([xp.concat([whole.A, corner], axis=-1), xp.concat([xp.zeros_like(transpose(corner)), A], axis=-1)], axis=-2)
        difference = StateSpace(both, xp.concat([whole.B, B], axis=-2), xp.concat([whole.C, -C], axis=-1), whole.D - D, whole.dt)
        return to_numpy(norm(difference, "h2")) / np.where(size > 0, size, 1.0)

    met = error(largest) <= request.tol
    high, low = largest.copy(), np.where(met, piece.kept - 1, largest)
    while (high - low > 1).any():
        middle = np.where(high - low > 1, (low + high) // 2, high)
        good = error(middle) <= request.tol
        low, high = np.where(good, low, middle), np.where(good, middle, high)
        low = np.where(met, low, high)
    return high, met


# ---------------------------------------------------------------- reducing


def _reduced(piece: _Piece, request: _Request) -> dict[str, Any]:
    """The reduced elements of a piece and what is said of them, still in the order of the piece."""
    orders, converged = _orders(piece, request)
    xp = namespace(piece.sigma)
    sigma = to_numpy(piece.sigma)
    tails = np.concatenate([np.cumsum(sigma[:, ::-1], axis=-1)[:, ::-1], np.zeros((len(sigma), 1))], axis=-1)
    following = np.concatenate([sigma, np.zeros((len(sigma), 1))], axis=-1)
    at = np.maximum(orders - piece.kept, 0)[:, None]
    last = np.take_along_axis(np.concatenate([following[:, :1], sigma], axis=-1), at, axis=-1)[:, 0]
    facts = {
        "bound": 2 * np.take_along_axis(tails, at, axis=-1)[:, 0],
        "lower_bound": np.take_along_axis(following, at, axis=-1)[:, 0],
        "condition": np.where(last > 0, following[:, 0] / np.where(last > 0, last, 1), 1.0),
    }
    sound = np.isfinite(sigma).all(axis=-1)
    if request.weighted:
        facts["bound"], facts["lower_bound"] = np.full(len(sigma), np.nan), np.full(len(sigma), np.nan)
    for name in facts:
        facts[name] = np.where(sound, facts[name], np.nan)
    matrices = _projected(piece, np.where(sound, orders, 0), request.match_dc)
    invalid = from_numpy(np.where(sound & (orders >= piece.kept), 0.0, np.nan), piece.sigma)[:, None, None]
    A, B, C, D = (M + xp.astype(invalid, M.dtype) for M in matrices)
    return {"places": piece.places, "orders": orders, "converged": converged & sound, "sigma": sigma, "system": (A, B, C, D), **facts}


def _projected(piece: _Piece, orders: np.ndarray, match_dc: bool) -> Matrices:
    """The matrices of each element at its order, padded to the largest with states that decay, unreached and unseen."""
    if not len(orders):
        return _group(piece, np.arange(0), 0, 0)
    degrees = piece.degrees()
    groups, member = np.unique(np.stack([orders, degrees if match_dc else orders]), axis=1, return_inverse=True)
    member = member.reshape(-1)
    parts = [_group(piece, np.flatnonzero(member == k), *(int(v) - piece.kept for v in groups[:, k])) for k in range(groups.shape[1])]
    size = int(orders.max(initial=0))
    padded = [_padded(part, size, discrete=piece.system.is_discrete) for part in parts]
    back = np.argsort(np.argsort(member, kind="stable"), kind="stable")
    xp = namespace(piece.sigma)
    return tuple(xp.take(xp.concat(list(M), axis=0), from_numpy(back, piece.sigma), axis=0) for M in zip(*padded, strict=True))  # pyright: ignore[reportReturnType]


def _group(piece: _Piece, members: np.ndarray, order: int, through: int) -> Matrices:
    """Elements of one order: truncation, or with ``through > order`` truncation there and singular perturbation down to ``order``."""
    xp = namespace(piece.sigma)
    index = from_numpy(members, piece.sigma)
    states = max(order, through)

    def chosen(M: Array) -> Array:
        return M if len(members) == M.shape[0] else xp.take(M, index, axis=0)

    values = chosen(piece.sigma)[:, :states]
    root = xp.sqrt(xp.where(values > 0, values, xp.ones_like(values)))[:, None, :]
    left, right = (chosen(M)[:, :, :states] / xp.astype(root, M.dtype) for M in (piece.left, piece.right))
    if isinstance(piece.system, Modal):
        poles, inputs, outputs = modal_realization(piece.system)
        A = adjoint(left) @ (chosen(poles)[..., None] * right)
        B, C = adjoint(left) @ chosen(inputs)[..., None], chosen(outputs)[:, None, :] @ right
        D = chosen(piece.system.feedthrough)[:, None, None]
        if piece.system.real:
            A, B, C = xp.real(A), xp.real(B), xp.real(C)
    else:
        A, B, C, D, left, right = same_field(*(chosen(M) for M in piece.system.arrays.values()), left, right)
        A, B, C = adjoint(left) @ A @ right, adjoint(left) @ B, C @ right
    if states > order:
        A, B, C, D = _perturbed(A, B, C, D, order, discrete=piece.system.is_discrete)
    if piece.unstable is not None:
        A2, B2, C2 = piece.unstable
        above = xp.zeros((1, order, piece.kept), dtype=A.dtype, device=A.device)
        A = xp.concat([xp.concat([A, above], axis=-1), xp.concat([xp.zeros_like(transpose(above)), A2], axis=-1)], axis=-2)
        B, C = xp.concat([B, B2], axis=-2), xp.concat([C, C2], axis=-1)
    return A, B, C, D


def _perturbed(A: Array, B: Array, C: Array, D: Array, order: int, *, discrete: bool) -> Matrices:
    """The states beyond ``order`` replaced by their steady state, which keeps the gain at frequency zero."""
    xp = namespace(A)
    k = order
    rest = A[:, k:, k:]
    if discrete:
        rest = rest - xp.eye(rest.shape[-1], dtype=A.dtype, device=A.device)
    K = solve(rest, xp.concat([A[:, k:, :k], B[:, k:, :]], axis=-1))
    Ka, Kb = K[..., :k], K[..., k:]
    return A[:, :k, :k] - A[:, :k, k:] @ Ka, B[:, :k, :] - A[:, :k, k:] @ Kb, C[..., :k] - C[..., k:] @ Ka, D - C[..., k:] @ Kb


def _padded(matrices: Matrices, size: int, *, discrete: bool) -> Matrices:
    A, B, C, D = matrices
    xp = namespace(A)
    k, missing = A.shape[0], size - A.shape[-1]
    if not missing:
        return matrices

    def zeros(rows: int, columns: int) -> Array:
        return xp.zeros((k, rows, columns), dtype=A.dtype, device=A.device)

    corner = zeros(missing, missing) - (0 if discrete else 1) * xp.eye(missing, dtype=A.dtype, device=A.device)
    n = A.shape[-1]
    A = xp.concat([xp.concat([A, zeros(n, missing)], axis=-1), xp.concat([zeros(missing, n), corner], axis=-1)], axis=-2)
    return A, xp.concat([B, zeros(missing, B.shape[-1])], axis=-2), xp.concat([C, zeros(C.shape[-2], missing)], axis=-1), D


# ---------------------------------------------------------------- the result


def _assembled(pieces: list[dict[str, Any]], original: System, work: StateSpace | Modal, request: _Request) -> Reduction:
    batch = work.batch_shape
    like = next(iter(work.arrays.values()))
    bits, xp = width(like), namespace(like)
    back = np.argsort(np.concatenate([p["places"] for p in pieces]))
    discrete = work.is_discrete

    def joined(name: str) -> np.ndarray:
        return np.concatenate([p[name] for p in pieces])[back].reshape(batch)

    def real(values: np.ndarray) -> Array:
        return astype_width(from_numpy(np.asarray(values, order="C"), like), bits)

    size = int(max(p["orders"].max(initial=0) for p in pieces))
    padded = [_padded(p["system"], size, discrete=discrete) for p in pieces]
    matrices = []
    for parts in zip(*padded, strict=True):
        if any(is_complex(M) for M in parts):
            parts = [M if is_complex(M) else xp.astype(M, xp.complex128) for M in parts]
        joint = xp.take(xp.concat(list(parts), axis=0), from_numpy(back, like), axis=0)
        matrices.append(astype_width(xp.reshape(joint, (*batch, *joint.shape[1:])), bits))
    count = max(p["sigma"].shape[-1] for p in pieces)
    sigma = np.concatenate([np.pad(p["sigma"], ((0, 0), (0, count - p["sigma"].shape[-1]))) for p in pieces])[back].reshape(*batch, count)
    orders, converged = joined("orders"), joined("converged")
    A, B, C, D = matrices
    states = StateSpace(A, B, C, D, work.dt)
    result = _modal(states, work) if isinstance(work, Modal) else states
    uniform = not batch or (request.order is not None and bool((orders == request.order).all()))
    return Reduction(
        system=result,
        original=original,
        method="singular perturbation" if request.match_dc else "balanced truncation",
        order=int(orders.reshape(-1)[0]) if uniform and orders.size else from_numpy(orders, like),
        sigma=real(sigma),
        bound=real(joined("bound")),
        lower_bound=real(joined("lower_bound")),
        converged=from_numpy(converged & _stable_where_weighted(result, request, batch), like),
        condition=real(joined("condition")),
    )


def _stable_where_weighted(system: System, request: _Request, batch: tuple[int, ...]) -> np.ndarray:
    if not request.weighted or not isinstance(system, StateSpace):
        return np.ones(batch, dtype=bool)
    return np.isfinite(to_numpy(norm(system, "hankel")))


def _modal(states: StateSpace, bank: Modal) -> Modal:
    """The modal form of a reduced bank: real banks have conjugate pairs."""
    modal = to_modal(states)
    return dataclasses.replace(modal, real=bank.real)
