"""Rational fits in a basis that is orthonormal on the points: no digits lost where poles repeat or cluster.

Partial fractions over poles that are a gap g apart cancel: an r-fold pole has residues of 1 / g^(r-1), and as many digits are gone. The
functions of a rational Arnoldi decomposition ``x V K = V H`` (Ruhe, Linear Algebra Appl. 197, 1994; Berljafa & Güttel, SIAM J. Matrix
Anal. 36, 2015) span the same space and have condition one, and the decomposition is their state space. The poles themselves are known to
eps^(1/r) only, which moves them together and leaves the function alone: it is the response that this file is exact about. One step
of RKFIT (rkfit.py) in that basis brings poles that were found by partial fractions to where the function is exact.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from ssmid._array import quiet
from ssmid.analysis.polynomial import Host
from ssmid.identification.partial_fractions import basis, closed, reflected
from ssmid.linalg import scaled_least_squares

_STEPS = 3
_EXACT = 1e-15
_GAIN = 0.5
_ZERO, _SAME = 1e-12, 1e-13
_PARTS = 10.0 ** np.arange(-15, -4)


@dataclasses.dataclass(frozen=True, eq=False)
class States:
    """``C (x I - A)^-1 B + D``: channels of one element, which have A and B in common.

    A : ``(n, n)``   B : ``(n,)``   C : ``(c, n)``   D : ``(c,)``   poles : ``(n,)`` that the basis has
    misfit : weighted rms over points and channels   condition : of the least-squares problem of C and D
    """

    A: Host
    B: Host
    C: Host
    D: Host
    poles: Host
    misfit: float
    condition: float

    def at(self, points: Host) -> Host:
        """``(c, k)`` values."""
        return self.C @ _resolvents(self.A, self.B, points).T + self.D[:, None]


@quiet
def orthonormal_states(
    points: Host, values: Host, weights: Host, poles: Host, dt: float | bool, *, feedthrough: bool, stable: bool, steps: int = _STEPS
) -> States | None:
    """The states nearest to values ``(c, k)`` over ``poles``, or over those that up to ``steps`` steps of RKFIT make of them.

    points : ``(k,)``, and poles ``(n,)`` closed under conjugation, in units of the largest point   weights : ``(c, k)`` of the errors
    stable : poles that a step moves out of stability are mirrored, and unstable states are none

    None where the basis has no values or no independent functions on the points. Each step has to halve the misfit.
    """
    best: States | None = None
    poles = closed(poles)
    for left in range(steps, -1, -1):
        try:
            found = _over(points, values, weights, poles, feedthrough)
            if found is None or (stable and not _is_stable(found.A, dt)):
                break
            enough = best is not None and not found.misfit < _GAIN * best.misfit
            best = found if best is None or found.misfit < best.misfit else best
            if enough or found.misfit <= _EXACT or not left:
                break
            moved = closed(relocated_poles(points, values, weights, poles))
        except np.linalg.LinAlgError:
            break
        if len(moved) != len(poles) or not np.isfinite(moved).all():
            break
        poles = closed(reflected(moved, dt)) if stable else moved
    return best


@quiet
def with_fewer_poles(
    points: Host, values: Host, weights: Host, found: States, dt: float | bool, *, feedthrough: bool, stable: bool
) -> States | None:
    """States over as few poles as exact samples of a function have, none where ``found`` has no more.

    For more than these the function v of :func:`relocated_poles` is not unique: each pole too many adds a singular value that is zero
    (Berljafa & Güttel 2017, sec. 4). One step from any poles of the right number is then exact.
    """
    try:
        V = rational_basis(points, found.poles)[0]
        sigma = np.linalg.svd(np.concatenate(_outside(V, values, weights)), compute_uv=False)
        surplus = int(np.sum(sigma <= _ZERO * np.max(weights * np.abs(values)))) - 1
    except np.linalg.LinAlgError:
        return None
    for n in range(max(1, len(found.poles) - surplus), min(len(found.poles), len(found.poles) - surplus + 3)):
        start = found.poles[:n]
        if start[-1].imag > 0:  # its conjugate is left out
            start = np.append(start[:-1], start[-1].real)
        fewer = orthonormal_states(points, values, weights, start, dt, feedthrough=feedthrough, stable=stable)
        if fewer is not None and fewer.misfit <= max(_SAME, found.misfit):
            return fewer
    return None


def _over(points: Host, values: Host, weights: Host, poles: Host, feedthrough: bool) -> States | None:
    V, K, H = rational_basis(points, poles)
    if not np.isfinite(V).all():
        return None
    A, B = _state_space(V, K, H)
    columns = _resolvents(A, B, points)
    if feedthrough:
        columns = np.concatenate([columns, np.ones((len(points), 1))], axis=1)
    if not np.isfinite(columns).all():
        return None
    # C from values of the states as they came out: what rounding did to A and B is fitted too
    x, condition, rest = [], [], 0.0
    for value, weight in zip(values, weights, strict=True):
        left, right = real_rows(weight[:, None] * columns), real_rows((weight * value)[:, None])
        first, cond = scaled_least_squares(left, right)
        again = first + scaled_least_squares(left, right - left @ first)[0]
        x.append(again[:, 0])
        condition.append(float(cond))
        rest += float(np.sum((right - left @ again) ** 2))
    C, n = np.stack(x), len(poles)
    D = C[:, n] if feedthrough else np.zeros(len(C))
    return States(A, B, C[:, :n], D, poles, (rest / values.size) ** 0.5, max(condition))


def _state_space(V: Host, K: Host, H: Host) -> tuple[Host, Host]:
    """A and B of the functions beside the constant v0, up to constants.

    The rows of ``x V K = V H`` are ``(x E - F) w = (h - x k) v0`` for the other functions w, with ``E, F`` the transposed rows of K
    and H from the second on, ``k, h`` the first: ``w = (x I - A)^-1 B - E^-1 k v0``, ``A = E^-1 F``, ``B = E^-1 h v0 - A E^-1 k v0``.
    """
    solved = np.linalg.solve(K[1:].T, np.concatenate([H[1:].T, H[:1].T, K[:1].T], axis=1))
    A, h, k = solved[:, :-2], solved[:, -2], solved[:, -1]
    return A, (h - A @ k) * V[0, 0].real


def _resolvents(A: Host, B: Host, points: Host) -> Host:
    """``(k, n)`` values of ``(x I - A)^-1 B``."""
    eye = np.eye(len(A))
    return np.linalg.solve(points[:, None, None] * eye - A, np.broadcast_to(B[:, None] + 0j, (len(points), len(B), 1)))[..., 0]


def _is_stable(A: Host, dt: float | bool) -> bool:
    at = np.linalg.eigvals(A)
    return bool((np.abs(at) < 1).all() if dt is True or dt != 0 else (at.real < 0).all())


@quiet
def poles_apart(states: States, points: Host, values: Host, weights: Host, dt: float | bool) -> Host:
    """``(n,)`` poles of a system nearby whose partial fractions are the nearest to the samples.

    A change of A by a part e of its norm moves an r-fold pole by e^(1/r), all over a circle, and the function by e only: of several e
    the one is taken where that meets what the terms lose by cancelling. Stable poles stay stable.
    """
    change = np.random.default_rng(0).standard_normal(states.A.shape)
    change *= np.linalg.norm(states.A, 2) / np.linalg.norm(change, 2)
    stable, best, least = bool(np.all(reflected(states.poles, dt) == states.poles)), states.poles, np.inf
    for part in np.r_[0.0, _PARTS]:
        poles = closed(np.linalg.eigvals(states.A + part * change))
        if len(poles) != len(states.poles) or (stable and np.any(reflected(poles, dt) != poles)):
            continue
        columns = basis(points, poles, real=True)
        columns = np.concatenate([columns, np.ones((len(points), 1))], axis=1)
        misfit = 0.0
        for value, weight in zip(values, weights, strict=True):
            left, right = real_rows(weight[:, None] * columns), real_rows((weight * value)[:, None])
            misfit += float(np.sum((right - left @ scaled_least_squares(left, right)[0]) ** 2))
        if misfit < least:
            best, least = poles, misfit
    return best


# ---------------------------------------------------------------- the basis, and better poles


def relocated_poles(points: Host, values: Host, weights: Host, poles: Host) -> Host:
    """The zeros of the function v over ``poles`` for which ``F v`` is nearest to such functions, all channels together.

    A step of RKFIT (Berljafa & Güttel, SIAM J. Sci. Comput. 39, 2017). values, weights : ``(c, k)``
    """
    V, K, H = rational_basis(points, poles)
    c = np.linalg.svd(np.concatenate(_outside(V, values, weights)))[2][-1]
    # an orthogonal transformation that makes v the first function: what is left of the pencil has the zeros of v as eigenvalues
    G = np.linalg.qr(c[:, None], mode="complete")[0].T
    zeros = np.asarray(scipy.linalg.eigvals((G @ H)[1:], (G @ K)[1:]))
    return closed(zeros) if len(closed(zeros)) == len(poles) else zeros


def _outside(V: Host, values: Host, weights: Host) -> list[Host]:
    """Of each channel the triangular factor of what of ``F V`` is not in the span of V."""
    factors = []
    for value, weight in zip(values, weights, strict=True):
        columns, product = real_rows(weight[:, None] * V), real_rows((weight * value)[:, None] * V)
        Q = np.linalg.qr(columns)[0]
        factors.append(np.linalg.qr(product - Q @ (Q.T @ product), mode="r"))
    return factors


def real_rows(columns: Host) -> Host:
    """Real equations of complex ones with real unknowns."""
    return np.concatenate([columns.real, columns.imag])


def rational_basis(points: Host, poles: Host) -> tuple[Host, Host, Host]:
    """``V (k, n+1)``, K and H ``(n+1, n)`` real with ``x V K = V H``: functions over ``poles``, orthonormal on points and conjugates.

    The rational Arnoldi decomposition (Ruhe 1994) in real arithmetic (Berljafa & Güttel, SIAM J. Matrix Anal. 36, 2015, sec. 4): a
    pair p, p* gives ``x u`` and ``u = w / ((x-p)(x-p*))``, where ``x (x u) = w + 2 Re p (x u) - |p|^2 u``. In this order: the last
    function is divided by the next poles, and what is left of ``x u`` may have a zero at a pole, as it has where poles are near 0.
    """
    V = np.ones((len(points), 1), complex) / len(points) ** 0.5
    K, H, i = [], [], 0
    while i < len(poles):
        p, pair = poles[i], poles[i].imag != 0
        w = np.zeros(len(poles) + 1)
        w[V.shape[1] - 1] = 1.0
        u = V[:, -1] / ((points - p) * (points - p.conjugate()) if pair else points - p)
        if not pair:
            V, own = _appended(V, u, len(poles) + 1)
            K, H, i = [*K, own], [*H, w + p.real * own], i + 1
            continue
        V, times_x = _appended(V, points * u, len(poles) + 1)
        V, own = _appended(V, u, len(poles) + 1)
        K, H, i = [*K, times_x, own], [*H, w + 2 * p.real * times_x - abs(p) ** 2 * own, times_x], i + 2
    return V, np.stack(K, 1), np.stack(H, 1)


def _appended(V: Host, u: Host, size: int) -> tuple[Host, Host]:
    """V with the normalized rest of ``u``, and the coordinates ``(size,)`` of u in it."""
    coordinates = np.zeros(size)
    n = V.shape[1]
    rest = u
    for _ in range(2):
        inner = (V.conj().T @ rest).real
        rest, coordinates[:n] = rest - V @ inner, coordinates[:n] + inner
    coordinates[n] = np.linalg.norm(rest)
    return np.concatenate([V, rest[:, None] / coordinates[n]], 1), coordinates
