"""Where state-space layers begin: HiPPO-LegS in its normal-plus-low-rank form, the diagonal spectra of S4D, steps, LRU's ring.

HiPPO (Gu et al., NeurIPS 2020) projects the past on Legendre polynomials; its matrix is normal up to a matrix of rank 1 (Gu, Goel & Re,
ICLR 2022, theorem 1). S4D keeps the normal part, or numbers like it (Gu, Gupta, Goel & Re, NeurIPS 2022, section 4). NumPy, float64.
"""

from __future__ import annotations

import numpy as np

SPECTRA = ("lin", "inv", "legs", "real")


def hippo_legs(order: int) -> tuple[np.ndarray, np.ndarray]:
    """The continuous ``A (order, order)`` and ``B (order,)`` of HiPPO-LegS (Gu et al. 2020, theorem 2; normalized as S4 does).

    >>> A, B = hippo_legs(3)
    >>> A.round(3)
    array([[-1.   ,  0.   ,  0.   ],
           [-1.732, -2.   ,  0.   ],
           [-2.236, -3.873, -3.   ]])
    """
    B = np.sqrt(2.0 * np.arange(_at_least_one(order)) + 1)
    return np.tril(-np.outer(B, B), -1) - np.diag(np.arange(order) + 1.0), B


def legs_normal_plus_low_rank(order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(A, P, B)`` complex ``(order / 2,)``: HiPPO-LegS is ``diag(A) - P P*`` with ``B`` over these states and their conjugates.

    Of each pair the state with the negative imaginary part is kept, as in version 4 of the state-spaces code, slowest last. That code also
    clips the imaginary parts of B at 2; here B stays, and the system is HiPPO's to rounding. Raises ValueError for an odd order.

    >>> A, P, B = legs_normal_plus_low_rank(4)
    >>> A.round(4)
    array([-0.5-4.6033j, -0.5-0.5565j])
    """
    half = pairs(order)
    A, B = hippo_legs(order)
    P = np.sqrt(np.arange(order) + 0.5)
    # A + P P^T is -1/2 plus a skew-symmetric matrix, so that a Hermitian eigenproblem has the accuracy
    values, vectors = np.linalg.eigh(-1j * (A + np.outer(P, P) + 0.5 * np.eye(order)))
    basis = vectors[:, :half].conj().T
    return -0.5 + 1j * values[:half], basis @ P, basis @ B


def diagonal_spectrum(order: int, init: str = "lin") -> tuple[np.ndarray, np.ndarray]:
    """The continuous ``A`` and ``B`` that S4D begins with, one state of each pair: ``(order / 2,)`` complex, of "real" ``(order,)`` real.

    init : "lin" ``-1/2 + i pi n``, "inv" ``-1/2 + i N / pi (N / (2 n + 1) - 1)``, "legs" the normal part of HiPPO-LegS, "real"
    ``-(n + 1)`` (Gu et al. 2022, section 4). Imaginary parts are negative here, as in version 4 of the code.
    B is 1, of "legs" HiPPO's. Raises ValueError for other names, and for odd orders of complex states.

    >>> diagonal_spectrum(4, "inv")[0].round(3)
    array([-0.5-3.82j , -0.5-0.424j])
    """
    if init == "real":
        return -(np.arange(_at_least_one(order)) + 1.0), np.ones(order)
    n = np.arange(pairs(order))
    if init == "legs":
        A, _, B = legs_normal_plus_low_rank(order)
        return A, B
    if init == "lin":
        return -0.5 - 1j * np.pi * n, np.ones(len(n), complex)
    if init == "inv":
        return -0.5 - 1j * order / np.pi * (order / (2 * n + 1) - 1), np.ones(len(n), complex)
    raise ValueError(f"init: expected one of {', '.join(SPECTRA)}, got {init!r}")


def log_steps(count: int, smallest: float, largest: float, rng: np.random.Generator) -> np.ndarray:
    """Logarithms ``(count,)`` of sample times, uniform between those of ``smallest`` and ``largest``."""
    if not 0 < smallest <= largest:
        raise ValueError(f"dt: expected 0 < dt_min <= dt_max, got {smallest} and {largest}")
    return rng.uniform(np.log(smallest), np.log(largest), count)


def lru_ring(
    modes: int, rng: np.random.Generator, r_min: float = 0.0, r_max: float = 1.0, max_phase: float = 2 * np.pi
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``nu_log, theta_log, gamma_log``, each ``(modes,)``: poles ``exp(-exp(nu_log) + i exp(theta_log))`` uniform by area on a ring.

    Moduli lie between ``r_min`` and ``r_max``, angles between 0 and ``max_phase``; ``exp(gamma_log) = sqrt(1 - |pole|^2)`` makes the
    states of white noise as large as their inputs (Orvieto et al., ICML 2023, lemma 3.2 and section 3.4).

    >>> nu, theta, gamma = lru_ring(100, np.random.default_rng(0), 0.5, 0.9)
    >>> bool((np.exp(-np.exp(nu)) > 0.5).all() and np.allclose(np.exp(2 * gamma) + np.exp(-2 * np.exp(nu)), 1))
    True
    """
    if not 0 <= r_min < r_max <= 1:
        raise ValueError(f"r_min, r_max: expected 0 <= r_min < r_max <= 1, got {r_min} and {r_max}")
    if not max_phase > 0:
        raise ValueError(f"max_phase: expected an angle above 0, got {max_phase}")
    # 1 - random() lies in (0, 1]: a modulus or an angle of 0 has no logarithm
    share = np.clip(1 - rng.random(modes), None, 1 - 2.0**-24)
    squared = share * (r_max**2 - r_min**2) + r_min**2
    return np.log(-0.5 * np.log(squared)), np.log(max_phase * (1 - rng.random(modes))), 0.5 * np.log1p(-squared)


def pairs(order: int) -> int:
    """How many pairs of conjugate states make ``order`` real ones; ValueError for an odd or no order."""
    if order < 2 or order % 2:
        raise ValueError(f"order: expected an even number of real states, two for each pair of conjugates, got {order}")
    return order // 2


def _at_least_one(order: int) -> int:
    if order < 1:
        raise ValueError(f"order: expected at least 1, got {order}")
    return order
