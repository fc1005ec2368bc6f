"""Frequency-domain subspace identification: a state space from samples of a transfer function, without iteration.

McKelvey, Akcay and Ljung (IEEE Trans. Autom. Control 41, 1996), algorithm 2, for points anywhere. Their powers of z are replaced by
polynomials orthonormal on the points, in which the inputs' part of the data is orthonormal too and no condition number grows with
the number of rows. Continuous time goes through the bilinear transformation.
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, astype_width, from_numpy, quiet, to_numpy
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.polynomial import Host
from ssmid.identification.arguments import checked_order, checked_orders, checked_stable, checked_weights
from ssmid.identification.least_squares import least_squares
from ssmid.identification.order import order_above_noise
from ssmid.identification.orthogonal import arnoldi
from ssmid.identification.result import Fit, told_if_unstable
from ssmid.identification.samples import RMS, Samples, samples
from ssmid.identification.subspace_core import stabilized
from ssmid.linalg import triangular_factor
from ssmid.reduction.result import Change
from ssmid.systems import StateSpace
from ssmid.systems.base import computed

_MOST_ROWS = 100


def frequency_subspace(
    data: Any,
    values: Any = None,
    order: int | None = None,
    *,
    max_order: int | None = None,
    dt: float | bool | None = None,
    weights: Any = None,
    mimo: bool = False,
    stable: bool = False,
    feedthrough: bool = True,
    rows: int | None = None,
) -> Fit:
    """A real state space of given order from samples of each transfer function. Not differentiable.

    data, values, dt : as for :func:`ssmid.identification.samples.samples`: points of s or z and values there, or a FrequencyResponse.
        The samples are one-sided: those at the conjugate points are taken as known.
    order : the number of states; that of the singular values above the noise, up to ``max_order`` (20), when left out
    mimo : the last two batch axes are the outputs and inputs of one system
    weights : ``(k,)`` or ``(*batch, k)`` positive, of the errors (not of their squares)
    rows : block rows, more than order / outputs. Left out: the best for each element of one more than needed, which suits poles outside
        of the band, twice that and at least 10, and five times as many, as far as the data go
    feedthrough : False fixes D = 0
    stable : unstable poles are mirrored at the boundary before B and D are fitted, which ``changes`` says

    ``sigma`` are the singular values of the projected data, ``condition`` is that of the least-squares problem of B and D. An element
    of a batch with NaN gives NaN. Unstable models are warned of.
    Raises ValueError for orders and rows that the samples do not allow, and what :func:`samples` raises.

    >>> omega = np.linspace(0.1, 3, 40)
    >>> z = np.exp(1j * omega)
    >>> fit = frequency_subspace(z, 1 / (z**2 - 1.2 * z + 0.5), 2, dt=1)
    >>> np.abs(np.linalg.eigvals(fit.system.A)).round(12) ** 2, float(fit.error.round(12))
    (array([0.5, 0.5]), 0.0)
    """
    given = samples(data, values, dt=dt)
    checked_stable(stable)
    (batch, ports), k = given.batch_of_channels(mimo), given.count
    p, m = ports or (1, 1)
    candidates, highest = _sizes(order, max_order, rows, p, m, k)
    bank = _Bank(given, weights, batch, (p, m), mimo)
    height = candidates[len(candidates) // 2]
    _, sigma, _ = quiet(_observability)(bank, height)
    orders = np.full(len(sigma), order) if order else _orders(sigma, height * p, 2 * k * m, max_order or min(20, highest))
    size = int(orders.max(initial=1))
    A, B, C, D = (np.full((len(sigma), *core), np.nan) for core in ((size, size), (size, m), (p, size), (p, m)))
    condition, changes = np.full(len(sigma), np.nan), []
    for n in np.unique(orders):
        places = np.flatnonzero((orders == n) & bank.sound)
        if not places.size:
            continue
        found = _nearest(bank.part(places), int(n), candidates, feedthrough=feedthrough, stable=stable)
        for matrix, part in zip((A, B, C, D), _padded((found.A, found.B, found.C, found.D), size, discrete=bank.discrete), strict=True):
            matrix[places] = part
        condition[places] = found.condition
        changes += [(places[i], poles) for i, poles in enumerate(found.moved) if poles]
    return _result(given, (A, B, C, D), (orders, sigma, condition), batch, changes, mimo, order)


class _Bank:
    """Samples as ``(elements, p, m, k)`` on the host, in points on or near the unit circle, each element in units of its largest value."""

    def __init__(self, given: Samples, weights: Any, batch: tuple[int, ...], ports: tuple[int, int], mimo: bool):
        k = given.count
        values = to_numpy(given.values).reshape(prod(batch), *ports, k)
        points = to_numpy(given.points)
        if points.ndim > 1 and mimo and points.shape[-3:-1] != (1, 1) and np.ptp(points, axis=(-3, -2)).any():
            raise ValueError("points: expected the same for all channels of one system, got points that differ")
        points = points[..., 0, 0, :] if points.ndim > 2 and mimo else points
        self.points = np.broadcast_to(points, (*batch, k)).reshape(prod(batch), k) if points.ndim > 1 else points[None]
        self.weights = None
        if weights is not None:
            own = to_numpy(checked_weights(weights, batch, 2 if mimo else 0, given.values))
            self.weights = own[None] if own.ndim == 1 else np.broadcast_to(own, (*batch, k)).reshape(prod(batch), k)
        self.sound = np.asarray(np.isfinite(values).all((1, 2, 3))) & np.asarray(np.isfinite(self.points).all(-1))
        largest = np.abs(values).max((1, 2, 3))
        self.unit = np.where((largest > 0) & self.sound, largest, 1.0)
        self.values = np.where(self.sound[:, None, None, None], values, 0) / self.unit[:, None, None, None]
        self.points = np.where(np.isfinite(self.points), self.points, 1)
        self.discrete = given.dt is True or given.dt != 0
        self.dt = given.dt
        # the middle of the band goes to a quarter of the circle
        self.alpha = np.array([1.0 if self.discrete else _middle(np.abs(row)) for row in self.points])

    def part(self, places: Host) -> _Bank:
        """The elements at ``places``."""
        chosen = object.__new__(_Bank)
        chosen.__dict__.update(self.__dict__)
        for name in ("values", "sound", "unit"):
            setattr(chosen, name, getattr(self, name)[places])
        for name in ("points", "alpha", "weights"):
            whole = getattr(self, name)
            setattr(chosen, name, whole if whole is None or len(whole) == 1 else whole[places])
        return chosen

    @property
    def on_circle(self) -> Host:
        """The points of z, or ``(alpha + s) / (alpha - s)``."""
        alpha = self.alpha[:, None]
        return self.points if self.discrete else (alpha + self.points) / (alpha - self.points)


def _middle(sizes: Host) -> float:
    """The median of what is not zero."""
    return float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 1.0


def _sizes(order: int | None, max_order: int | None, rows: int | None, p: int, m: int, k: int) -> tuple[list[int], int]:
    """Numbers of block rows to try, and the highest order that ``k`` points allow; ValueError for what is out of range."""
    # the real equations are 2 k m, of which the inputs take rows m; the states need order more
    highest = max((n for n in range(1, 2 * k * m) if (-(-n // p) + 1) * m + n <= 2 * k * m), default=0)
    checked_orders(order, None, max_order, least=1, most=highest, of=f"{k} points")
    n = order or max_order or min(20, highest)
    least, most = -(-n // p) + 1, max(2, (2 * k * m - n) // m)
    if rows is not None:
        return [checked_order("rows", rows, least, most, f"order {n} and {k} points")], highest
    tried = [least + 1, max(10, 2 * least), 5 * least]
    return sorted({max(least, min(most, r)) for r in tried if r <= max(2 * least, 10, _MOST_ROWS // p)}), highest


def _observability(bank: _Bank, rows: int) -> tuple[Host, Host, Host]:
    """Orthonormal bases ``(elements, rows p, rows p)`` of the observability matrices, singular values, and the recurrence of the rows."""
    count, p, m, k = bank.values.shape
    polynomials = arnoldi(bank.on_circle, rows - 1, real=True, weights=bank.weights)
    # fewer different points than rows: there are no more polynomials, and rows of zeros stand for them
    table = np.swapaxes(np.nan_to_num(polynomials.values, nan=0, posinf=0, neginf=0), -1, -2)
    recurrence = np.nan_to_num(polynomials.recurrence, nan=0, posinf=0, neginf=0)
    # block row j: v_j(z) G(z), columns the points and inputs
    G = (table[:, :, None, None, :] * bank.values[:, None]).reshape(count, rows * p, m, k)
    inside = np.real(np.einsum("eamk,ejk->eamj", G, np.conj(np.broadcast_to(table, (count, *table.shape[1:])))))
    G = G - inside @ np.broadcast_to(table[:, None], (count, 1, *table.shape[1:]))
    G = G.reshape(count, rows * p, m * k)
    R = triangular_factor(np.concatenate([G.real, G.imag], -1).swapaxes(-1, -2)) if 2 * m * k >= rows * p else G
    basis, sigma, _ = np.linalg.svd(R.swapaxes(-1, -2) if R is not G else np.concatenate([G.real, G.imag], -1), full_matrices=False)
    return basis, sigma, recurrence


def _orders(sigma: Host, height: int, breadth: int, most: int) -> Host:
    # an orthonormal basis of many rows leaves more rounding than the singular values alone
    sound = np.sum(sigma > 20 * np.finfo(float).eps * breadth**0.5 * sigma[:, :1], -1)
    return np.clip(np.minimum(np.asarray(order_above_noise(sigma, height, breadth)), sound), 1, most)


@dataclasses.dataclass(frozen=True)
class _Realization:
    """Matrices of a stack of elements, the condition and the weighted sum of squares of the fit of B and D, the poles that were moved."""

    A: Host
    B: Host
    C: Host
    D: Host
    condition: Host
    squares: Host
    moved: list[tuple[complex, ...]]


def _nearest(bank: _Bank, n: int, candidates: list[int], *, feedthrough: bool, stable: bool) -> _Realization:
    """Of each element the realization of order ``n`` that is nearest to its samples; an unstable one where it is ten times nearer."""
    found = [quiet(_realized)(bank, n, rows, feedthrough, stable) for rows in candidates]
    scores = [np.where(np.isnan(f.squares), np.inf, f.squares * np.where(_unstable(f.A, bank.discrete), 100, 1)) for f in found]
    best = np.argmin(np.stack(scores), axis=0)
    index = range(len(best))
    A, B, C, D, condition, squares = (
        np.stack([getattr(found[b], name)[i] for i, b in zip(index, best, strict=True)])
        for name in ("A", "B", "C", "D", "condition", "squares")
    )
    return _Realization(A, B, C, D, condition, squares, [found[b].moved[i] for i, b in zip(index, best, strict=True)])


def _unstable(A: Host, discrete: bool) -> Host:
    values = np.linalg.eigvals(np.where(np.isfinite(A), A, 0))
    return (np.abs(values) >= 1).any(-1) if discrete else (values.real >= 0).any(-1)


def _realized(bank: _Bank, n: int, rows: int, feedthrough: bool, stable: bool) -> _Realization:
    count, p = bank.values.shape[:2]
    basis, _, recurrence = _observability(bank, rows)
    gamma = basis[..., :n]
    # the row of v_j times z is that of a combination of rows: the shift equation of this basis
    shifted = np.swapaxes(recurrence, -1, -2) @ gamma.reshape(count, rows, p * n)
    A = np.stack([np.linalg.lstsq(g[:-p], s.reshape(-1, n), rcond=None)[0] for g, s in zip(gamma, shifted, strict=True)])
    C = gamma[:, :p]
    if not bank.discrete:
        A, C = _to_continuous(A, C, bank.alpha[:, None, None])
    moved: list[tuple[complex, ...]] = [()] * count
    if stable:
        for i in range(count):
            A[i], moved[i] = stabilized(A[i], bank.dt)
    B, D, condition, squares = _fit_inputs(bank, A, C, feedthrough)
    return _Realization(A, B * bank.unit[:, None, None], C, D * bank.unit[:, None, None], condition, squares, moved)


def _to_continuous(A: Host, C: Host, alpha: Host) -> tuple[Host, Host]:
    """The inverse of ``z = (alpha + s) / (alpha - s)`` for A and C; B and D are fitted in s."""
    eye = np.eye(A.shape[-1])
    # a pole at infinity, of values that grow with s, is put far away: a few units of rounding from it
    inverse = np.linalg.inv(A + (1 + 4 * np.finfo(float).eps) * eye)
    return alpha * (A - eye) @ inverse, C @ inverse


def _fit_inputs(bank: _Bank, A: Host, C: Host, feedthrough: bool) -> tuple[Host, Host, Host, Host]:
    """B and D nearest to the values, weighted, the condition of that problem, its columns scaled to length one, and the squares left."""
    count, p, m, k = bank.values.shape
    n = A.shape[-1]
    states = computed(StateSpace, A=A, B=np.broadcast_to(np.eye(n), A.shape), C=C, D=np.zeros((count, p, n)), dt=bank.dt)
    points = np.broadcast_to(bank.points, (count, k))
    X = np.asarray(evaluate(states, points)).reshape(count, p, n, k)
    columns = np.moveaxis(X, -1, 1)
    if feedthrough:
        columns = np.concatenate([columns, np.broadcast_to(np.eye(p), (count, k, p, p))], -1)
    right = np.moveaxis(bank.values, -1, 1)
    if bank.weights is not None:
        columns, right = (M * bank.weights[:, :, None, None] for M in (columns, right))
    columns, right = (M.reshape(count, k * p, -1) for M in (columns, right))
    columns, right = (np.concatenate([np.real(M), np.imag(M)], -2) for M in (columns, right))
    solved = [least_squares(M, r) for M, r in zip(columns, right, strict=True)]
    x, condition = np.stack([found for found, _ in solved]), np.array([said for _, said in solved])
    squares = ((right - columns @ x) ** 2).sum((1, 2))
    return x[:, :n], (x[:, n:] if feedthrough else np.zeros((count, p, m))), condition, squares


def _padded(matrices: tuple[Host, ...], size: int, *, discrete: bool) -> list[Host]:
    """With states that nothing drives, and that decay, up to ``size``."""
    A, B, C, D = matrices
    count, n = A.shape[:2]
    full = np.zeros((count, size, size))
    full[:, :n, :n] = A
    if not discrete:
        full[:, np.arange(n, size), np.arange(n, size)] = -np.abs(A).max(initial=0) or -1.0
    return [full, np.pad(B, ((0, 0), (0, size - n), (0, 0))), np.pad(C, ((0, 0), (0, 0), (0, size - n))), D]


def _result(
    given: Samples, matrices: tuple[Host, ...], said: tuple[Host, ...], batch: tuple[int, ...], moved: list, mimo: bool, order: int | None
) -> Fit:
    like = given.values
    orders, sigma, condition = said

    def pack(host: Host) -> Array:
        array = from_numpy(host.reshape((*batch, *host.shape[1:])), like)
        return astype_width(array, given.bits) if host.dtype.kind == "f" else array

    system = computed(StateSpace, **dict(zip("ABCD", map(pack, matrices), strict=True)), dt=given.dt)
    index = list(np.ndindex(*batch))
    changes = tuple(Change("reflected", poles, "unstable", index[i]) for i, poles in moved)
    fit = Fit(
        system=system,
        method="frequency-domain subspace",
        order=order or (int(orders[0]) if orders.size and (orders == orders[0]).all() else pack(orders)),
        converged=pack(np.isfinite(condition) & np.isfinite(matrices[1]).all((1, 2))),
        condition=pack(condition),
        changes=changes,
        data=given,
        error=quiet(given.error)(system, coupled=mimo),
        error_kind=RMS,
        sigma=pack(sigma),
    )
    return told_if_unstable(fit, "frequency_subspace", "stable=True gives stable ones", depth=1)
