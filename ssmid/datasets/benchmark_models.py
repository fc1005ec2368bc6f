"""Benchmark models from their formulas: those of the SLICOT collection or close kin of them.

Chahlaoui & Van Dooren, SLICOT Working Note 2002-2.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ssmid.systems import StateSpace


def fom() -> StateSpace:
    """Penzl's "full-order model": n = 1006, one input, one output, continuous time, known in closed form.

    A is block diagonal: three lightly damped pairs ``[[-1, w], [-w, -1]]`` with w = 100, 200, 400, then ``-1, -2, ..., -1000``;
    B is 10 for the six states of the pairs and 1 for the others, C is its transpose.
    Source: Penzl, Linear Algebra Appl. 415 (2006) 322; the SLICOT collection's ``fom``.

    >>> fom()
    StateSpace(order=1006, outputs=1, inputs=1, batch=(), dt=0, float64)
    """
    pairs = [np.array([[-1.0, w], [-w, -1.0]]) for w in (100.0, 200.0, 400.0)]
    A = scipy.linalg.block_diag(*pairs, np.diag(-np.arange(1.0, 1001.0)))
    B = np.ones((1006, 1))
    B[:6] = 10.0
    return StateSpace(A, B, B.T.copy(), dt=0)


def heat(n: int = 200, diffusivity: float = 0.01) -> StateSpace:
    """The heat equation on a rod of unit length, in ``n`` interior points: one input, one output, continuous time.

    ``u_t = diffusivity u_xx``, zero at both ends, heated in the grid point next to x = 1/3, temperature read next to x = 2/3.
    Second-order central differences. With the defaults it is entry for entry the SLICOT collection's ``heat-cont``.
    Hankel values fall by orders of magnitude a step. Raises ValueError for fewer than 3 points.

    >>> heat().order
    200
    """
    if n < 3:
        raise ValueError(f"n: expected at least 3 points, got {n}")
    A = scipy.linalg.toeplitz(np.r_[-2.0, 1.0, np.zeros(n - 2)]) * (diffusivity * (n + 1) ** 2)
    B, C = np.zeros((n, 1)), np.zeros((1, n))
    B[round(n / 3) - 1, 0] = 1.0
    C[0, round(2 * n / 3) - 1] = 1.0
    return StateSpace(A, B, C, dt=0)


def beam(n: int = 348, mass_damping: float = 0.01, stiffness_damping: float = 1e-6) -> StateSpace:
    """A clamped beam with light proportional damping: force at the free end in, deflection there out, continuous time.

    ``w_tt + mass_damping w_t + w_xxxx + stiffness_damping w_xxxxt = f`` on the unit interval, clamped at 0, free at 1, in n / 4
    cubic (Hermite) finite elements with consistent mass, two degrees of freedom a node. The static gain is 1/3, and
    the lowest natural frequencies tend to 1.8751^2, 4.6941^2, ... (Euler-Bernoulli). A kin of the SLICOT collection's ``beam``
    (n = 348): Hankel values fall slowly in pairs, every mode being lightly damped.

    States are ``(L_K^T q, L_M^T q')`` with Cholesky factors of stiffness and mass: A is skew plus a negative semidefinite
    part, so that rounding cannot make it unstable (the natural coordinates (q, q') have norm 1e11).
    Raises ValueError unless ``n`` is a positive multiple of 4, or for negative damping.

    >>> beam().order
    348
    """
    if n < 4 or n % 4:
        raise ValueError(f"n: expected a positive multiple of 4 (four states an element), got {n}")
    if mass_damping < 0 or stiffness_damping < 0:
        raise ValueError(f"damping: expected numbers >= 0, got {mass_damping} and {stiffness_damping}")
    mass, stiffness = _beam_matrices(n // 4)
    half = n // 2
    mass_factor, stiffness_factor = np.linalg.cholesky(mass), np.linalg.cholesky(stiffness)
    G = scipy.linalg.solve_triangular(mass_factor, stiffness_factor, lower=True)
    A = np.block([[np.zeros((half, half)), G.T], [-G, -mass_damping * np.eye(half) - stiffness_damping * G @ G.T]])
    tip = np.zeros(half)
    tip[-2] = 1.0
    B, C = np.zeros((n, 1)), np.zeros((1, n))
    B[half:, 0] = scipy.linalg.solve_triangular(mass_factor, tip, lower=True)
    C[0, :half] = scipy.linalg.solve_triangular(stiffness_factor, tip, lower=True)
    return StateSpace(A, B, C, dt=0)


def _beam_matrices(elements: int) -> tuple[np.ndarray, np.ndarray]:
    """Consistent mass and stiffness matrices of Euler-Bernoulli elements (deflection, slope), clamped at the first node.

    Przemieniecki, Theory of Matrix Structural Analysis (1968), with unit length, density and bending stiffness.
    Slopes are scaled by the element's length, which evens out the matrices.
    """
    h = 1.0 / elements
    element_mass = (h / 420) * np.array([[156, 22, 54, -13], [22, 4, 13, -3], [54, 13, 156, -22], [-13, -3, -22, 4.0]])
    element_stiffness = h**-3 * np.array([[12, 6, -12, 6], [6, 4, -6, 2], [-12, -6, 12, -6], [6, 2, -6, 4.0]])
    size = 2 * (elements + 1)
    mass, stiffness = np.zeros((size, size)), np.zeros((size, size))
    for e in range(elements):
        part = slice(2 * e, 2 * e + 4)
        mass[part, part] += element_mass
        stiffness[part, part] += element_stiffness
    return mass[2:, 2:], stiffness[2:, 2:]
