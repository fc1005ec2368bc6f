"""What l2-optimal approximation needs of dense state spaces, by products of matrix functions: no eigenvectors, however defective."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from ssmid._array import Array, from_numpy, in_threads, to_numpy
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.reduction.h2_newton import Local
from ssmid.reduction.h2_sources import rho_of_sections

_EPS = 2.0**-52


@dataclasses.dataclass(frozen=True, eq=False)
class SchurSource:
    """Scalar systems ``g(w) = C (I - w A)^-1 B`` in Schur form, of complex ones the conjugate series, on the host.

    As of modes, with matrices in place of numbers: ``eta(w) = C B~(A) (I - w A)^-1 B``, one triangular solve a pole.

    A, B, C : of each element, upper triangular, ``(n,)`` and ``(n,)``   root : factors of the controllability Gramians
    """

    A: list[np.ndarray]
    B: list[np.ndarray]
    C: list[np.ndarray]
    root: list[np.ndarray]
    energy: Array
    real: bool

    @classmethod
    def of(cls, A: np.ndarray, B: np.ndarray, C: np.ndarray, like: Array, *, real: bool) -> SchurSource:
        """Of matrices ``(batch, n, n)``, ``(batch, n, 1)``, ``(batch, 1, n)``."""

        def element(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ...]:
            if not real:
                a, b, c = a.conj(), b.conj(), c.conj()
            T, Z = scipy.linalg.schur(a.astype(complex), check_finite=False)[:2]
            b, c = Z.conj().T @ b, c @ Z
            root = schur_gramian_factors(T, b, c, discrete=True)[0]
            return T, b[:, 0], c[0], root

        T, b, c, root = (list(x) for x in zip(*(element(*m) for m in zip(A, B, C, strict=True)), strict=True))
        energy = np.array([np.linalg.norm(c_ @ r) ** 2 for c_, r in zip(c, root, strict=True)])
        return cls(T, b, c, root, from_numpy(energy, like), real)

    def take(self, chosen: Array) -> SchurSource:
        places = to_numpy(chosen)
        A, B, C, root = ([x[i] for i in places] for x in (self.A, self.B, self.C, self.root))
        return SchurSource(A, B, C, root, from_numpy(to_numpy(self.energy)[places], self.energy), self.real)

    def __call__(self, poles: Array, live: Array) -> Local:
        rows = list(zip(*self._elements(poles, live), strict=True))
        error, alpha, slope, states = (from_numpy(np.stack(x), poles) for x in rows)
        noise = 8 * _EPS * (error * self.energy) ** 0.5 + (32 * _EPS) ** 2 * self.energy
        return Local(error, noise, 8 * _EPS * self.energy, rho_of_sections(states, poles, live, real=self.real), alpha, slope)

    def sections(self, poles: Array, live: Array) -> Array:
        """As of taps: the coefficients of the cascade."""
        states = np.stack([element[3] for element in self._elements(poles, live)])
        return from_numpy(np.real(states) if self.real else states, poles)

    def _elements(self, poles: Array, live: Array) -> list[tuple[np.ndarray, ...]]:
        return in_threads(self._element, self.A, self.B, self.C, self.root, list(to_numpy(poles)), list(to_numpy(live)))

    def _element(
        self, A: np.ndarray, B: np.ndarray, C: np.ndarray, root: np.ndarray, poles: np.ndarray, live: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        size, eye, AB = 2 if self.real else 1, np.eye(len(A)), A @ B
        states = np.zeros((len(poles) // size, 2), complex)
        left = C
        for k in range(len(states)):
            own = [p for p, on in zip(poles[size * k : size * (k + 1)], live[size * k : size * (k + 1)], strict=True) if on]
            if not own:
                continue
            after = left
            for p in own:
                after = after @ A - (p if self.real else np.conj(p)) * after
                after = scipy.linalg.solve_triangular(eye - p * A, after, trans=1, check_finite=False)
            if len(own) == 2:
                total, product = own[0] + own[1], own[0] * own[1]
                rest = left - product * after
                states[k] = rest @ AB - total * ((left - after) @ B), rest @ B
            else:
                states[k, 0] = left @ B + own[0] * (after @ B)
            left = after
        alpha, slope = np.zeros(len(poles), complex), np.zeros(len(poles), complex)
        for j in np.flatnonzero(live):
            reached = scipy.linalg.solve_triangular(eye - poles[j] * A, B, check_finite=False)
            alpha[j] = left @ reached
            slope[j] = left @ (A @ scipy.linalg.solve_triangular(eye - poles[j] * A, reached, check_finite=False))
        return np.asarray(np.linalg.norm(left @ root) ** 2), alpha, slope, states
