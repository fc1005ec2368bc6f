"""Factors of both Gramians of one system: a Schur form shared by two Lyapunov equations, and Hammarling's method in blocks.

With ``T X + X T^H + B B^H = 0``, ``T`` upper triangular and ``X = R R^H``, the last column ``(r; rho)`` of the factor solves one
triangular system, and what is left for the leading block has a right-hand side of as many columns as before: ``B <- B - r g``
with ``g = rho^-1 b`` (Penzl, Adv. Comput. Math. 8, 1998, section 3). Several columns are taken together, because
``Y = rho^-1 T rho`` of a block is known without any inverse: its diagonal is that of ``T`` and above it stands ``-g_i g_j^H``
(Kressner 2008), so that almost all work is in matrix products. Nothing is ever squared: small Hankel values keep their digits.
"""

from __future__ import annotations

import cmath
from collections.abc import Callable
from math import atan2, copysign, cos, sin, sqrt
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import get_lapack_funcs

from ssmid._array import one_blas_thread
from ssmid.analysis.state_units import uneven_scales

_BLOCK = 48
_SMALL = 1e-100


@one_blas_thread
def schur_gramian_factors(A: np.ndarray, B: np.ndarray, C: np.ndarray, *, discrete: bool) -> tuple[np.ndarray, np.ndarray]:
    """``R``, ``L`` ``(n, n)`` with ``Wc = R R^H``, ``Wo = L L^H`` of one stable system of NumPy matrices, real for real matrices.

    Discrete time is mapped by ``T -> (T - I)(T + I)^-1``, which keeps both Gramians, from the side of the circle where no pole is
    near -1. States in uneven units are scaled for the while. NaN where the system is unstable or not finite.
    """
    dtype = np.result_type(A, B, C)
    n = A.shape[0]
    none = np.full((n, n), np.nan, dtype)
    if not all(np.isfinite(M).all() for M in (A, B, C)):
        return none, none
    units = uneven_scales(A, B, C, least=float(discrete))
    A, B, C = A * units / units[:, None], B / units[:, None], C * units
    T, Q = scipy.linalg.schur(A.astype(dtype), output="complex" if dtype.kind == "c" else "real", check_finite=False)[:2]
    B, C = Q.conj().T @ B, C @ Q
    poles = quasi_triangular_eigenvalues(T)
    if (np.abs(poles) >= 1 if discrete else np.real(poles) >= 0).any():
        return none, none
    if discrete:
        T, B, C = _bilinear(T, B, C, poles)
    R = lyapunov_factor(T, B)
    L = lyapunov_factor(T.conj().T[::-1, ::-1], C.conj().T[::-1])[::-1]
    return units[:, None] * (Q @ R), (Q @ L) / units[:, None]


def balanced_cut(
    A: np.ndarray, B: np.ndarray, C: np.ndarray, *, discrete: bool, negligible: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The balanced realization of a stable system without its last states, and the Hankel values that it keeps.

    As many states go as change the H-infinity norm by at most ``negligible`` of itself: that norm is at least ``sigma_1``, and
    removing states changes it by at most twice the sum of their Hankel values (Enns 1984, Glover 1984). Values that are zero to
    rounding always go. Raises LinAlgError where a pole is on the boundary of stability to rounding, or beyond.
    """
    R, L = schur_gramian_factors(A, B, C, discrete=discrete)
    if not (np.isfinite(R).all() and np.isfinite(L).all()):
        raise np.linalg.LinAlgError("expected a stable system, got a pole on or beyond the boundary of stability")
    U, sigma, Vh = scipy.linalg.svd(L.conj().T @ R, check_finite=False)
    tails = 2 * np.append(np.cumsum(sigma[::-1])[::-1], 0.0)
    largest = sigma.max(initial=0.0)
    k = min(int(np.argmax(tails <= negligible * largest)), int(np.sum(sigma > len(A) * np.finfo(float).eps * largest)))
    root = np.sqrt(sigma[:k])
    left, right = L @ (U[:, :k] / root), R @ (Vh[:k].conj().T / root)
    return left.conj().T @ A @ right, left.conj().T @ B, C @ right, sigma[:k]


def quasi_triangular_eigenvalues(T: np.ndarray) -> np.ndarray:
    """The eigenvalues of a (real, standardized) Schur form, read off its diagonal blocks."""
    poles = np.diag(T).astype(complex)
    if T.dtype.kind != "c":
        (pairs,) = np.nonzero(np.diag(T, -1))
        omega = np.sqrt(np.abs(T[pairs, pairs + 1])) * np.sqrt(np.abs(T[pairs + 1, pairs]))
        poles[pairs] += 1j * omega
        poles[pairs + 1] -= 1j * omega
    return poles


def lyapunov_factor(T: np.ndarray, B: np.ndarray) -> np.ndarray:
    """``R`` with ``T R R^H + R R^H T^H + B B^H = 0`` for ``T`` in (real) Schur form, stable: ``(n, n)``, block upper triangular."""
    scale = np.abs(B).max(initial=0.0)
    n = T.shape[0]
    R = np.zeros((n, n), T.dtype)
    if scale == 0:
        return R
    B = B / scale
    starts = _block_starts(T)
    for start, stop in zip(reversed(starts), reversed([*starts[1:], n]), strict=True):
        block = slice(start, stop)
        R[block, block], g, Y = _hammarling(T[block, block], B[block].copy())
        if start:
            F = -(B[:start] @ g.conj().T + T[:start, block] @ R[block, block])
            R[:start, block] = _quasi_triangular_sylvester(T, Y, F, [s for s in starts if s < start])
            B[:start] -= R[:start, block] @ g
    return R * scale


def _hammarling(T: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The factor of one diagonal block, column by column, with ``g = R^-1 B`` and ``Y = R^-1 T R`` found on the way."""
    n = T.shape[0]
    (trsyl,) = get_lapack_funcs(("trsyl",), (T,))
    R, g, Y = np.zeros_like(T), np.zeros_like(B), np.zeros_like(T)
    stop = n
    while stop:
        pair = stop > 1 and T[stop - 1, stop - 2] != 0
        start = stop - 2 if pair else stop - 1
        last = slice(start, stop)
        R[last, last], g[last], Y[last, last] = _scaled(_factor_pair if pair else _factor_single, T[last, last], B[last])
        Y[last, stop:] = -g[last] @ g[stop:].conj().T
        if start:
            F = -(B[:start] @ g[last].conj().T + T[:start, last] @ R[last, last])
            r, scale, _ = trsyl(T[:start, :start], Y[last, last], F, tranb="C")
            R[:start, last] = r / scale
            B[:start] -= R[:start, last] @ g[last]
        stop = start
    return R, g, Y


def _scaled(factor: Callable[..., Any], T: np.ndarray, b: np.ndarray) -> Any:
    """``factor(T, b)``, of ``b`` scaled where its squares would underflow: ``g`` has the size of ``T``, however small ``b`` is."""
    size = np.abs(b).max(initial=0.0)
    if not 0 < size < _SMALL:
        return factor(T, b)
    R, g, Y = factor(T, b / size)
    return R * size, g, Y


def _factor_single(T: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, complex]:
    size, rate = np.linalg.norm(b), np.sqrt(-2 * np.real(T[0, 0]))
    return size / rate, b * (rate / size if size else 0.0), T[0, 0]


def _factor_pair(T: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The factor of a standardized 2 x 2 block ``[[alpha, beta], [gamma, alpha]]``, ``beta gamma < 0``.

    Scaled by the roots of ``|beta|`` and ``|gamma|`` the block is normal, so its modal coordinates cost no accuracy; there the two
    scalar steps give the factor ``[[a, x], [0, d]]``, ``a^2 + |x|^2 = d^2``. It is made real by the unitary Takagi factor of
    ``[[-x, a], [a, conj(x)]] / d``: a rotation by half the angle of ``(|x|, a)`` between two phases. In scalars, because it is
    done for every pair of poles.
    """
    (alpha, beta), (gamma, _) = T.tolist()
    roots = sqrt(2 * abs(beta)), copysign(sqrt(2 * abs(gamma)), beta)
    pole, rate = complex(alpha, roots[0] * abs(roots[1]) / 2), sqrt(-2 * alpha)
    (uu, uv), (_, vv) = (b @ b.T).tolist()
    uu, uv, vv = uu / roots[0] / roots[0], uv / roots[0] / roots[1], vv / roots[1] / roots[1]
    size = sqrt(uu + vv)
    if size == 0:
        return np.zeros((2, 2)), np.zeros_like(b), T
    # the modes have the inputs u - i v and u + i v, u = b[0] / roots[0], v = b[1] / roots[1]; rest is what the second step leaves
    # of the first of them, as its real and imaginary rows
    along = complex(uu - vv, -2 * uv) / size
    beside = 1 if b.shape[1] > 1 else 0
    turned = along / size * (1j * pole.imag / pole - beside)
    rest = np.array([[(turned.real + beside) / roots[0], -turned.imag / roots[1]],
                     [turned.imag / roots[0], (turned.real - beside) / roots[1]]]) @ b  # fmt: skip
    last = sqrt(np.vdot(rest, rest))
    x, d, a = -along * rate / (2 * pole), size / rate, last / rate
    half, turn = atan2(a, abs(x)) / 2, cmath.exp(0.5j * cmath.phase(x))
    c, s = cos(half), sin(half)
    q11, q12, q21, q22 = 1j * turn * c, turn * s, -1j * s / turn, c / turn
    p1, p2, r1, r2 = a * q11 + x * q21, a * q12 + x * q22, d * q21, d * q22
    rho = np.array([[(p1 + r1).real * roots[0] / 2, (p2 + r2).real * roots[0] / 2],
                    [(r1 - p1).imag * roots[1] / 2, (r2 - p2).imag * roots[1] / 2]])  # fmt: skip
    up, low = rate / last if last else 0.0, rate / size
    g = up * np.array([[q11.real, q11.imag], [q12.real, q12.imag]]) @ rest
    g += low * np.array([[q21.real / roots[0], q21.imag / roots[1]], [q22.real / roots[0], q22.imag / roots[1]]]) @ b
    (ru, rv), (iu, iv) = (rest @ b.T).tolist()
    y = -up * low * complex(ru / roots[0] + iv / roots[1], iu / roots[0] - rv / roots[1])
    t1, t2, mirror = pole * q11 + y * q21, pole * q12 + y * q22, pole.conjugate()
    Y = np.array([[(u.conjugate() * t + v.conjugate() * mirror * z).real for t, z in ((t1, q21), (t2, q22))]
                  for u, v in ((q11, q21), (q12, q22))])  # fmt: skip
    return rho, g, Y


def _quasi_triangular_sylvester(T: np.ndarray, Y: np.ndarray, F: np.ndarray, starts: list[int]) -> np.ndarray:
    """``r`` with ``T r + r Y^H = F`` for the leading rows of ``T``: back substitution over blocks, the rest is matrix products."""
    (trsyl,) = get_lapack_funcs(("trsyl",), (T,))
    for start, stop in zip(reversed(starts), reversed([*starts[1:], F.shape[0]]), strict=True):
        x, scale, _ = trsyl(T[start:stop, start:stop], Y, F[start:stop], tranb="C")
        F[start:stop] = x / scale
        F[:start] -= T[:start, start:stop] @ F[start:stop]
    return F


def _block_starts(T: np.ndarray) -> list[int]:
    """Where the blocks start: about every ``_BLOCK`` rows, never inside a 2 x 2 block."""
    starts = range(0, T.shape[0], _BLOCK)
    return [s + 1 if s and T[s, s - 1] != 0 else s for s in starts if s + 1 < T.shape[0] or not s or T[s, s - 1] == 0]


def _bilinear(T: np.ndarray, B: np.ndarray, C: np.ndarray, poles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The continuous system of the same Gramians. ``-T`` has them too, which keeps the pole of the map away from those of ``T``."""
    if np.abs(poles + 1).min(initial=2.0) < np.abs(poles - 1).min(initial=2.0):
        T = -T
    eye = np.eye(T.shape[0])
    inner = np.linalg.solve(T + eye, np.hstack([T - eye, np.sqrt(2) * B]))
    mapped, n = inner[:, : T.shape[0]], T.shape[0]
    keep = np.triu(np.ones((n, n), bool)) | (T != 0)
    return np.where(keep, mapped, 0), inner[:, n:], np.linalg.solve((T + eye).T, np.sqrt(2) * C.T).T
