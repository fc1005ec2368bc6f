"""Modal truncation: the poles that are seen most are kept where they are, the others are left out."""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.linalg

from ssmid.analysis.block_diagonal import block_diagonalize, block_sizes
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.reduction.one_by_one import Element, Reduced, balancing, reduce_one_by_one
from ssmid.reduction.result import Change, Reduction
from ssmid.systems import System

_WORST_CONDITION = 1e7
"""Of the eigenvectors; poles that would make it worse stay together in one block."""


def modal_truncation(system: System, order: int, *, dominance: str = "peak", match_dc: bool = False) -> Reduction:
    """The part of ``system`` that belongs to its ``order`` most dominant poles; the poles that are kept do not move.

    system : StateSpace (single or batch, real or complex, continuous or discrete) or what :func:`ssmid.to_state_space` takes
    dominance : "peak", the contribution to the largest gain, measured as twice the Hankel norm of the pole's own part: of one pole
        ``|c| |b| / |Re pole|`` (residue ``c b^H``; in discrete time ``2 |c| |b| / (1 - |pole|^2)``), of a lightly damped pair the
        height of its resonance; or "h2", the energy of its part.
    match_dc : add what the others give at frequency zero to the feedthrough (in continuous time the H2 error is then infinite)

    Conjugate pairs are kept or left out together, and so are poles so close that separating them would need eigenvectors of a
    condition above 1e7 (:func:`ssmid.analysis.block_diagonal.block_diagonalize`). Where the most dominant of those left do not fit
    into ``order``, the next that does is taken; what remains is less than a pair, and ``order`` then says how many there are.
    ``bound`` is twice the sum of the Hankel values of all parts left out (four times with ``match_dc``), proven and usually loose.
    ``changes`` lists the poles left out; ``condition`` is that of the eigenvectors. The unstable part is kept. Not differentiable.
    Source: Davison, IEEE Trans. Automat. Control 11, 1966; dominance: Rommes & Martins, IEEE Trans. Power Syst. 21, 2006.

    Raises ValueError for an order below 1 or above what the system carries to rounding, and an unknown ``dominance``.

    >>> import numpy as np
    >>> from ssmid import ss
    >>> modal_truncation(ss(np.diag([-1.0, -3.0, -2.0]), [1.0, 1.0, 1.0], [1.0, 9.0, 1.0], dt=0), 2).system.A
    array([[-3.,  0.],
           [ 0., -1.]])
    """
    if dominance not in ("peak", "h2"):
        raise ValueError(f"dominance: expected 'peak' or 'h2', got {dominance!r}")
    return reduce_one_by_one(system, order, "modal truncation", partial(dominant_part, dominance=dominance, match_dc=match_dc), Reduction)


def dominant_part(element: Element, order: int, *, dominance: str = "peak", match_dc: bool = False) -> Reduced:
    """:func:`modal_truncation` of a stable element."""
    X, blocks, sizes = _separated(element.A)
    B, C = np.linalg.solve(X, element.B), element.C @ X
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = [slice(int(start), int(start) + size) for start, size in zip(starts, sizes, strict=True)]
    weights, tails = zip(*(_dominance(blocks[part, part], B[part], C[:, part], element.discrete, dominance) for part in parts), strict=True)
    room, chosen = order, []
    for k in np.argsort(-np.asarray(weights), kind="stable"):
        if sizes[k] <= room:
            chosen.append(int(k))
            room -= sizes[k]
    left_out = [k for k in range(len(parts)) if k not in chosen]
    keep = np.concatenate([np.arange(len(B))[parts[k]] for k in chosen]) if chosen else np.zeros(0, int)
    rest = np.concatenate([np.arange(len(B))[parts[k]] for k in left_out]) if left_out else np.zeros(0, int)
    D, bound = element.D, 2 * float(sum(tails[k] for k in left_out))
    dropped = blocks[np.ix_(rest, rest)]
    if match_dc and len(rest):
        static = np.eye(len(rest)) - dropped if element.discrete else -dropped
        D, bound = D + C[:, rest] @ np.linalg.solve(static, B[rest]), 2 * bound
    poles = tuple(complex(pole) for pole in np.linalg.eigvals(dropped)) if len(rest) else ()
    return Reduced(
        (blocks[np.ix_(keep, keep)], B[keep], C[:, keep], D),
        bound=bound,
        condition=float(np.linalg.cond(X)),
        changes=(Change("dropped", poles, f"less dominant in {'gain' if dominance == 'peak' else 'energy'}"),) if poles else (),
    )


def _separated(A: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """``X``, ``X^-1 A X`` in diagonal blocks and their sizes: one for each pole or pair where the eigenvectors allow it."""
    poles, X = np.linalg.eig(A)
    if np.linalg.cond(X, "fro") <= _WORST_CONDITION:
        if np.iscomplexobj(A) or np.isrealobj(poles):
            return X, np.diag(poles), [1] * len(poles)
        first = np.imag(poles) > 0  # LAPACK gives pairs side by side, this one first
        second = np.imag(poles) < 0
        X = np.where(second, np.imag(X), np.real(X))
        blocks = np.diag(np.real(poles))
        (k,) = np.nonzero(first)
        blocks[k, k + 1], blocks[k + 1, k] = -np.imag(poles[k]), np.imag(poles[k])
        sizes = [2 if first[j] else 1 for j in range(len(poles)) if not second[j]]
        return X, blocks, sizes
    X, blocks = block_diagonalize(A, _WORST_CONDITION)
    return X, blocks, block_sizes(blocks)


def _dominance(A: np.ndarray, B: np.ndarray, C: np.ndarray, discrete: bool, kind: str) -> tuple[float, float]:
    """The dominance of one part, and the sum of its Hankel values."""
    if len(A) == 1:
        pole = complex(A[0, 0])
        rate = 1 - abs(pole) ** 2 if discrete else -2 * pole.real
        size = float(np.linalg.norm(B) * np.linalg.norm(C))
        return 2 * size / rate if kind == "peak" else size / rate**0.5, size / rate
    R, L = schur_gramian_factors(A, B, C, discrete=discrete)
    sigma = balancing(R, L)[2]
    return float(2 * sigma[0] if kind == "peak" else scipy.linalg.norm(C @ R)), float(np.sum(sigma))
