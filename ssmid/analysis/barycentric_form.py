"""Out of barycentric form: poles and residues.

Poles are the zeros of the denominator ``sum_j w_j / (x - z_j) = c (x I - A)^-1 b``. Seen from a real point x0 where it is not zero,
``1 / (x0 - x)`` are the eigenvalues of ``K - K b c K / (c K b)``, ``K = (x0 I - A)^-1``, beside one zero whose eigenvector is b: a
standard eigenproblem in the arithmetic of the system, where the usual one is generalized and complex.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ssmid._array import Array, as_complex, double, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.linalg import cauchy_product, eigvals
from ssmid.systems import Barycentric, Modal


def barycentric_poles(system: Barycentric) -> Array:
    """``(*batch, order)`` poles; infinite where the degree is smaller. Of a real system conjugates are exact neighbours."""
    z, w = (to_numpy(double(a)) for a in (system.support, system.weights))
    batch = np.broadcast_shapes(z.shape[:-1], w.shape[:-1])
    z, w = (np.broadcast_to(a, (*batch, a.shape[-1])).reshape(prod(batch), a.shape[-1]) for a in (z, w))
    found = np.full((len(z), system.order), np.inf, complex)
    pattern = np.where(w == 0, 0, 1 + ((np.imag(z) != 0) & system.real))
    for kind in np.unique(pattern, axis=0):
        rows, there = np.flatnonzero((pattern == kind).all(-1)), np.flatnonzero(kind)
        poles = denominator_zeros(z[rows[:, None], there], w[rows[:, None], there], real=system.real)
        found[rows[:, None], np.arange(poles.shape[-1])] = poles
    found = found.reshape(*batch, found.shape[-1])
    return from_numpy(found.astype(to_numpy(system.support).dtype), system.support)


@quiet
def denominator_zeros(z: Host, w: Host, *, real: bool) -> Host:
    """``(b, order)`` zeros of ``sum_j w_j / (x - z_j)`` for ``(b, n)`` each; ``real``: rows have their real points at the same places."""
    unit = np.abs(z).max(-1, initial=0)
    unit = np.where(unit > 0, unit, 1.0)[:, None]
    z, size = z / unit, np.abs(w).max(-1, keepdims=True)
    w = w / np.where(size > 0, size, 1)
    x0, K, b, c = _shifted(z, w, real)
    n = K.shape[-1]
    left, right = (K @ b[..., None]), (c[:, None, :] @ K)
    M = K - left * right / (c[:, None, :] @ left)
    # Householder: b becomes the first axis, on which M is zero
    v = b.copy()
    norm = np.linalg.norm(b, axis=-1)
    phase = np.where(v[:, 0] == 0, 1, v[:, 0] / np.where(v[:, 0] == 0, 1, np.abs(v[:, 0])))
    v[:, 0] += phase * norm
    v = v / np.linalg.norm(v, axis=-1, keepdims=True)
    M = M - 2 * v[:, :, None] * (v.conj()[:, None, :] @ M)
    M = M - 2 * (M @ v[:, :, None]) * v.conj()[:, None, :]
    mu = eigvals(M[:, 1:, 1:]) if n > 1 else np.zeros((len(z), 0), complex)
    poles = np.where(np.abs(mu) > 1e-14 * np.abs(K).max((-2, -1))[:, None], x0 - 1 / np.where(mu == 0, 1, mu), np.inf)
    return poles * unit


def _shifted(z: Host, w: Host, real: bool) -> tuple[Host, Host, Host, Host]:
    """x0 ``(b, 1)``, ``K = (x0 - A)^-1`` ``(b, m, m)`` and b, c ``(b, m)``, with blocks ``[[re, im], [-im, re]]`` for pairs."""
    log = np.log(np.where(z == 0, 1, np.abs(z)))
    middle = np.exp(log.mean(-1, keepdims=True))
    candidates = np.concatenate([f * middle for f in (1.017, -1.017)] + [np.full_like(middle, f) for f in (1.37, -1.37)], axis=-1)
    pair = z.imag != 0 if real else np.zeros(z.shape, bool)
    terms = w[:, None, :] / (candidates[..., None] - z[:, None, :])
    terms = np.where(pair[:, None, :], 2 * terms.real, terms.real) if real else terms
    share = np.abs(terms.sum(-1)) / np.abs(w[:, None, :] / (candidates[..., None] - z[:, None, :])).sum(-1)
    best = np.argmax(np.where(np.isfinite(share), share, -1), axis=-1)[:, None]
    x0 = np.take_along_axis(candidates, best, -1)
    if not real:
        root = np.sqrt(np.abs(w)) + 0j
        return x0, np.eye(z.shape[-1]) * (1 / (x0 - z))[:, None, :], root, np.where(root == 0, 0, w / np.where(root == 0, 1, root))
    both = pair[0]
    first = np.cumsum(1 + both) - 1 - both
    m = len(both) + int(both.sum())
    K, b, c = np.zeros((len(z), m, m)), np.zeros((len(z), m)), np.zeros((len(z), m))
    k = 1 / (x0 - z)
    root = np.sqrt(np.abs(w) * np.where(both, 2, 1))
    share = np.where(root == 0, 0, w * np.where(both, 2, 1) / np.where(root == 0, 1, root))
    K[:, first, first], b[:, first], c[:, first] = np.real(k), root, np.real(share)
    i, j = first[both], first[both] + 1
    # 1 / (x0 - z) has the sign of Im z: conj(x0 - z) = x0 - conj(z)
    K[:, j, j], c[:, j] = np.real(k)[:, both], np.imag(share)[:, both]
    K[:, i, j], K[:, j, i] = np.imag(k)[:, both], -np.imag(k)[:, both]
    return x0, K, b, c


@quiet
def barycentric_modal(system: Barycentric) -> Modal:
    """Residues ``n(p) / d'(p)`` over the poles. Infinite poles are left out; a double pole gives infinite residues."""
    xp = namespace(system.support)
    z, f, w = (double(a) for a in system.with_conjugates())
    poles = double(barycentric_poles(system))
    finite = xp.isfinite(xp.real(poles)) & xp.isfinite(xp.imag(poles))
    outside = -xp.max(xp.abs(z), axis=-1, keepdims=True) if not system.is_discrete else 0 * xp.abs(z[..., :1])
    poles = xp.where(finite, poles, as_complex(outside))
    inverse = 1 / (poles[..., :, None] - z[..., None, :])
    top = xp.sum(inverse * (w * f)[..., None, :], axis=-1)
    bottom = -xp.sum(inverse**2 * w[..., None, :], axis=-1)
    residues = xp.where(finite, top / bottom, xp.zeros_like(top))
    # sum w f / sum w is 0 / 0 where the degree is smaller than it could be
    there = xp.astype(w != 0, w.dtype)
    D = xp.sum(there * (f + cauchy_product(z, poles, -residues)), axis=-1) / xp.sum(there, axis=-1)
    return Modal(poles, residues, xp.real(D) if system.real else D, system.dt, system.real)
