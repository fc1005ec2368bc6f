"""The Loewner pencil of samples of a transfer function, made real, compressed, and its eigenvalues.

With right points lambda_j and directions r_j, left points mu_i and directions l_i, the Loewner and the shifted Loewner matrix are
``(l_i H(mu_i) r_j - l_i H(lambda_j) r_j) / (mu_i - lambda_j)`` and the same of ``s H(s)`` (Mayo & Antoulas, Linear Algebra Appl.
425, 2007). Of a system of order n they have the rank n, and n plus that of the feedthrough; the eigenvalues of the pencil are its
poles, and infinity for the feedthrough. Data at the conjugate points make the matrices real (Antoulas, Lefteriu & Ionita 2017,
sec. 8.2.3.1). On NumPy arrays.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssmid.analysis.polynomial import Host
from ssmid.linalg import svd

_COLUMNS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Tangents:
    """Points that are interpolated, each in one direction: right ones ``(c,)`` and ``(c, m)``, left ones ``(r,)`` and ``(r, p)``.

    right, left : indices of the points   inputs, outputs : the directions, real
    """

    right: Host
    inputs: Host
    left: Host
    outputs: Host


@dataclasses.dataclass(frozen=True, eq=False)
class Pencil:
    """Projected on its leading singular vectors: the pencil of order n is made of the leading n rows and columns.

    E, A : ``(batch, n, n)``, the Loewner matrix and the shifted one   C : ``(batch, p, n)`` the values, projected likewise
    sigma : ``(batch, n)`` singular values of the two matrices side by side
    """

    E: Host
    A: Host
    C: Host
    sigma: Host


def tangents(count: int, p: int, m: int, partition: Any, directions: Any) -> Tangents:
    """Which points stand on which side; ValueError for a partition or directions that do not fit.

    partition : "alternate", "half", or (left indices, right indices)   directions : "ports", "cycle", or (left, right) arrays
    """
    if isinstance(partition, str):
        if partition not in ("alternate", "half"):
            raise ValueError(f"partition: expected 'alternate', 'half' or (left, right) indices, got {partition!r}")
        all_points = np.arange(count)
        right = all_points[::2] if partition == "alternate" else all_points[: (count + 1) // 2]
        most = max(2, _COLUMNS // (2 * (m if directions == "ports" else 1)))
        if len(right) > most:  # a tall pencil: the rows keep every point, columns need to span no more than the states
            right = right[np.round(np.linspace(0, len(right) - 1, most)).astype(int)]
        left = np.setdiff1d(all_points, right)
    else:
        left, right = (np.asarray(side, int).reshape(-1) for side in partition)
        both = np.concatenate([left, right])
        if len(left) == 0 or len(right) == 0 or both.min() < 0 or both.max() >= count or len(np.unique(both)) < len(both):
            raise ValueError(f"partition: expected distinct indices from 0 to {count - 1} on both sides, got {partition!r}")
    if isinstance(directions, str):
        if directions not in ("ports", "cycle"):
            raise ValueError(f"directions: expected 'ports', 'cycle' or (left, right) arrays, got {directions!r}")
        if directions == "cycle":
            return Tangents(right, np.eye(m)[np.arange(len(right)) % m], left, np.eye(p)[np.arange(len(left)) % p])
        sides = (np.repeat(right, m), np.tile(np.eye(m), (len(right), 1)), np.repeat(left, p), np.tile(np.eye(p), (len(left), 1)))
        return Tangents(*sides)
    outputs, inputs = (np.asarray(side, float) for side in directions)
    if outputs.shape != (len(left), p) or inputs.shape != (len(right), m):
        expected = f"arrays {(len(left), p)} and {(len(right), m)}"
        raise ValueError(f"directions: expected {expected}, one row for each left and right point, got {outputs.shape} and {inputs.shape}")
    return Tangents(right, inputs, left, outputs)


def loewner_pencil(points: Host, values: Host, sides: Tangents, real: bool, largest: int) -> Pencil:
    """Of ``values`` ``(batch, p, m, k)`` at ``points`` ``(k,)``, projected for all orders up to ``largest``.

    With ``real`` the values at the conjugate points are added; points are in the closed upper half plane.
    """
    L, S, C = _real_matrices(points, values, sides) if real else _matrices(points, values, sides)
    wide: Host = np.concatenate([L, S], axis=-1)
    columns = L.shape[-1]
    if wide.shape[-2] > 2 * wide.shape[-1]:
        wide = np.linalg.qr(wide, mode="r")
        L, S = wide[..., :columns], wide[..., columns:]
    U, sigma, _ = svd(wide)
    _, _, Vh = svd(np.concatenate([L, S], axis=-2))
    n = min(largest, U.shape[-1], Vh.shape[-2])
    Y, X = np.swapaxes(U[..., :n].conj(), -1, -2), np.swapaxes(Vh[..., :n, :].conj(), -1, -2)
    return Pencil(Y @ L @ X, Y @ S @ X, C @ X, sigma)


def _matrices(points: Host, values: Host, sides: Tangents, conjugate: bool = False) -> tuple[Host, ...]:
    """The Loewner matrix, the shifted one ``(batch, r, c)``, the right values ``(batch, p, c)``; right points conjugated if asked for."""
    mu, lam = points[sides.left, None], points[None, sides.right]
    right = np.einsum("bpmj,jm->bpj", values[..., sides.right], sides.inputs)
    if conjugate:
        lam, right = lam.conj(), right.conj()
    left = np.einsum("bpmi,ip->bmi", values[..., sides.left], sides.outputs)
    first, second = np.swapaxes(left, -1, -2) @ sides.inputs.T, sides.outputs @ right
    gap = mu - lam
    if not gap.all():
        raise ValueError("partition: expected left points apart from the right ones, got one that stands on both sides")
    return (first - second) / gap, (mu * first - lam * second) / gap, right


def _real_matrices(points: Host, values: Host, sides: Tangents) -> tuple[Host, ...]:
    """With the conjugate points and the unitary ``[[1, -i], [1, i]] / sqrt 2`` on each pair: four real matrices for each complex one."""
    C = _matrices(points, values, sides)[2]
    plain, mirrored = _matrices(points, values, sides), _matrices(points, values, sides, conjugate=True)
    rows, columns = (np.abs(points[side].imag) > 0 for side in (sides.left, sides.right))
    found = []
    for a, b in zip(plain[:2], mirrored[:2], strict=True):
        whole = np.stack([np.stack([(a + b).real, (a - b).imag], -1), np.stack([-(a + b).imag, (a - b).real], -1)], -3)
        found.append(whole.reshape(len(a), 2 * a.shape[-2], 2 * a.shape[-1]))
    C = (np.stack([C.real, C.imag], -1) * 2**0.5).reshape(*C.shape[:-1], 2 * C.shape[-1])
    # a real point is its own conjugate: it stands once, and what counted it twice is undone
    (keep_rows, weight_rows), (keep_columns, weight_columns) = _kept(rows), _kept(columns)
    L, S = (M[:, keep_rows][:, :, keep_columns] * weight_rows[:, None] * weight_columns for M in found)
    return L, S, C[..., keep_columns] * weight_columns


def _kept(pairs: Host) -> tuple[Host, Host]:
    """Which of two rows for each point stay, and their weights."""
    stay = np.stack([np.ones(len(pairs), bool), pairs], -1).reshape(-1)
    weight = np.repeat(np.where(pairs, 1.0, 0.5**0.5), 2)
    return np.flatnonzero(stay), weight[stay]


def pencil_poles(pencil: Pencil, order: int, infinite: int, shift: float) -> tuple[Host, Host]:
    """``order`` poles ``(batch, order)`` and their output directions ``(batch, p, order)``, the ``infinite`` largest left out.

    Conjugates are neighbours, the upper one first. NaN where the pencil is too small, or where leaving out would part a pair.
    Eigenvalues of ``(A - shift E)^-1 E``, the inverses of their distances from the shift: infinity is the plain eigenvalue 0.
    """
    n = order + infinite
    batch = len(pencil.E)
    if n > pencil.E.shape[-1]:
        return np.full((batch, order), np.nan + 0j), np.full((batch, pencil.C.shape[1], order), np.nan + 0j)
    E, A, C = pencil.E[:, :n, :n], pencil.A[:, :n, :n], pencil.C[:, :, :n]
    with np.errstate(all="ignore"):
        M = _solve_or_nan(A - shift * E, E)
        sound = np.isfinite(M).all((-2, -1))
        theta, V = np.linalg.eig(np.where(sound[:, None, None], M, np.eye(n)))
        rank = np.argsort(-np.abs(theta), axis=-1, kind="stable")[:, :order]
        theta = np.take_along_axis(theta.astype(complex), rank, -1)
        directions = C @ np.take_along_axis(V.astype(complex), rank[:, None, :], -1)
        # inversion has turned the pairs round
        poles, directions = (shift + 1 / theta).conj(), directions.conj()
    if not np.iscomplexobj(M) and order:
        sound &= ~(poles[:, -1].imag > 0)
    poles, directions = np.where(sound[:, None], poles, np.nan), np.where(sound[:, None, None], directions, np.nan)
    return poles if not np.iscomplexobj(M) else poles.conj(), directions if not np.iscomplexobj(M) else directions.conj()


def _solve_or_nan(A: Host, B: Host) -> Host:
    try:
        return np.linalg.solve(A, B)
    except np.linalg.LinAlgError:
        if len(A) == 1:
            return np.full_like(B, np.nan)
        return np.concatenate([_solve_or_nan(a[None], b[None]) for a, b in zip(A, B, strict=True)])
