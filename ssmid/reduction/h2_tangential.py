"""l2-optimal approximation of real systems with several inputs and outputs: poles and input directions by a quasi-Newton method.

A model is ``sum_j c_j b_j^T / (1 - p_j w)``. The c_j are eliminated; what is left depends on poles and directions, with the
gradient ``c_j^T e'(p_j) b_j`` by a pole and ``c_j^T e(p_j)`` by a direction, e the error: zero where the tangential conditions of
Meier and Luenberger hold (Gugercin, Antoulas & Beattie, SIAM J. Matrix Anal. Appl. 30, 2008; Bunse-Gerstner et al. 2010).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import scipy.linalg
import scipy.optimize

from ssmid.reduction.h2_poles import Chart, chart, spread_apart
from ssmid.reduction.h2_request import closed

Values: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``g`` and ``g'`` ``(k, p, m)`` of the original's power series at ``k`` points in the disk."""
Matrices: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

_RESTARTS, _SWEEPS = 20, 50


@dataclasses.dataclass(frozen=True, eq=False)
class Tangential:
    """matrices : the real model in the disk   error : squared   residual : of the tangential conditions   history : squared errors"""

    matrices: Matrices
    error: float
    residual: float
    iterations: int
    history: np.ndarray


def tangential_optimum(values: Values, energy: float, start: Matrices, *, max_iterations: int, gtol: float) -> Tangential:
    """A local minimum of the squared error from ``start``, the matrices ``A, B, C`` of ``g(w) = C (I - w A)^-1 B``; never a worse one."""
    poles, directions, captured = _interpolated(values, start, max_iterations)
    d, live = len(poles), np.arange(len(poles) + len(poles) % 2) < len(poles)
    pad = np.zeros(len(live) - d)
    history, steps, residual = [energy - captured], 0, np.inf
    for _ in range(_RESTARTS):
        here = chart(np.concatenate([poles, pad])[None] + 0j, live[None], real=True)
        problem = TangentialProblem(values, energy, here, directions, d)
        value, _ = problem(problem.origin)
        history.append(value * energy)
        residual = problem.residual
        # restarts move the charts along; what a restart gains below rounding is not worth one
        if residual <= gtol or steps >= max_iterations or (len(history) > 2 and history[-2] - history[-1] < 1e-13 * energy):
            break
        options = {"maxiter": max_iterations - steps, "gtol": 1e-3 * gtol}
        best = _Best(problem)
        scipy.optimize.minimize(best, problem.origin, jac=True, method="BFGS", options=options, callback=best.step)
        steps += best.steps
        if not best.value < value:
            break
        poles, directions = problem.at(best.x)
        poles, directions = _in_order(poles, directions)
    problem = TangentialProblem(values, energy, chart(np.concatenate([poles, pad])[None] + 0j, live[None], real=True), directions, d)
    value, _ = problem(problem.origin)
    return Tangential(_realized(poles, directions, problem.outputs), value * energy, problem.residual, steps, np.array(history))


def _interpolated(values: Values, start: Matrices, max_iterations: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The best of the iterates of TF-IRKA (Beattie & Gugercin, Automatica 48, 2012): Hermite interpolation at the mirrored poles.

    Poles, directions, and the energy that the poles and directions of the start capture.
    """
    poles, b = best = _modes(*start)
    captured, first = -np.inf, None
    for _ in range(min(max_iterations, _SWEEPS) + 1):
        g, g1 = _by_symmetry(values, poles)
        c = _outputs(poles, b, g)
        fitted = float(np.real(np.sum(c * (g @ b[:, :, None])[:, :, 0])))
        first = fitted if first is None else first
        if fitted > captured:
            best, gained, captured = (poles, b), fitted - captured, fitted
            if gained < 1e-12 * fitted:
                break
        z = 1 / np.where(np.abs(poles) < 1e-8, 1e-8, poles)
        H, slope = g / z[:, None, None], -(g + g1 / z[:, None, None]) / z[:, None, None] ** 2
        gap = z[:, None] - z + np.eye(len(z))
        left = np.einsum("ip,ipm,jm->ij", c, H, b)
        right = np.einsum("ip,jpm,jm->ij", c, H, b)
        own = np.einsum("jp,jpm,jm->j", c, slope, b)
        E = (left - right) / gap + np.diag(own - np.diag(left - right))
        A = (z[:, None] * left - z * right) / gap
        A = A + np.diag(np.diag(left) + z * own - np.diag(A))
        new, X = (np.asarray(x) for x in scipy.linalg.eig(A, E)[:2])
        if not (np.isfinite(new).all() and np.isfinite(X).all()):
            break
        # the model is (c^T H)(z E - A)^-1 (H b): its input vectors are rows of the inverse of E X
        inputs = np.linalg.lstsq(E @ X, np.einsum("ip,ipm->im", c, H), rcond=None)[0]
        new = np.where(np.abs(new) >= 1, 1 / np.where(np.abs(new) > 0, np.conj(new), 1), new)
        try:
            poles, b = _closed_modes(new, inputs)
        except ValueError:
            break
    return *best, first or 0.0


def _outputs(poles: np.ndarray, b: np.ndarray, g: np.ndarray) -> np.ndarray:
    gram = (b @ b.T) / (1 - poles[:, None] * poles)
    return _solved(gram, (g @ b[:, :, None])[:, :, 0])


class _Best:
    """Counts steps and keeps the best point: line searches end where rounding rules."""

    def __init__(self, problem: TangentialProblem) -> None:
        self.problem, self.steps, self.value, self.x = problem, 0, np.inf, problem.origin

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.problem(x)
        if value < self.value:
            self.value, self.x = value, x.copy()
        return value, gradient

    def step(self, _: np.ndarray) -> None:
        self.steps += 1


class TangentialProblem:
    """The squared error over the energy as a function of the chart's coordinates and of the real parameters of the directions."""

    def __init__(self, values: Values, energy: float, here: Chart, directions: np.ndarray, d: int) -> None:
        self.values, self.energy, self.here, self.d = values, energy, here, d
        self.m = directions.shape[1]
        self.pair = np.imag(here.poles[0, :d]) != 0
        self.directions = directions
        self.size = here.poles.shape[-1]
        self.origin = np.zeros(self.size + self._packed(directions).size)
        self.base = self._packed(directions)
        self.outputs = np.zeros((d, 0), complex)
        self.residual = np.inf

    def _packed(self, directions: np.ndarray) -> np.ndarray:
        """Real and imaginary parts in two rows of each pair of slots; of real poles the imaginary parts are not used."""
        return np.concatenate([np.real(directions).ravel(), np.imag(directions).ravel()])

    def at(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poles ``(d,)`` and directions ``(d, m)`` at coordinates."""
        poles = self.here.moved(x[None, : self.size])[0, : self.d]
        packed = self.base + x[self.size :]
        half = len(packed) // 2
        b = (packed[:half] + 1j * packed[half:]).reshape(self.d, self.m)
        for k in range(0, self.d - 1, 2):
            if np.imag(poles[k]) != 0:
                upper = (b[k] + np.conj(b[k + 1])) / 2
                b[k], b[k + 1] = upper, np.conj(upper)
        real = np.imag(poles) == 0
        b[real] = np.real(b[real])
        return poles, b

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        poles, b = self.at(x)
        length = np.linalg.norm(b, axis=1, keepdims=True)
        b = b / np.where(length > 0, length, 1)
        g, g1 = _by_symmetry(self.values, poles)
        inside = 1 / (1 - poles[:, None] * poles)
        gram = (b @ b.T) * inside
        V = (g @ b[:, :, None])[:, :, 0]
        c = _solved(gram, V)
        self.outputs = c / np.where(length > 0, length, 1)
        fitted = float(np.real(np.sum(c * V)))
        slope = inside**2 * poles[None, :]
        e = g - np.einsum("jk,kp,km->jpm", inside, c, b)
        e1 = g1 - np.einsum("jk,kp,km->jpm", slope, c, b)
        by_pole = 2 * np.einsum("jp,jpm,jm->j", c, e1, b)
        by_direction = 2 * np.einsum("jp,jpm->jm", c, e) / np.where(length > 0, length, 1)
        self._measure(poles, by_pole, c, b, g, g1, e, e1)
        return (self.energy - fitted) / self.energy, -self._real(x, poles, by_pole, by_direction) / self.energy

    def _real(self, x: np.ndarray, poles: np.ndarray, by_pole: np.ndarray, by_direction: np.ndarray) -> np.ndarray:
        """The gradient by real coordinates; those of the poles by differences of the chart, which is known in closed form."""
        padded = np.concatenate([by_pole, np.zeros(self.size - self.d)])
        first = self.here.slopes(x[None, : self.size])[0]
        pairs = padded.reshape(-1, 2)
        of_poles = np.real(np.sum(pairs[:, :, None] * first, axis=1)).ravel()
        real, imag = np.zeros((self.d, self.m)), np.zeros((self.d, self.m))
        k = 0
        while k < self.d:
            if k + 1 < self.d and np.imag(poles[k]) != 0:
                # the upper direction is the mean of the upper and the conjugate of the lower parameters
                whole = by_direction[k]
                real[k] = real[k + 1] = np.real(whole)
                imag[k], imag[k + 1] = -np.imag(whole), np.imag(whole)
                k += 2
            else:
                real[k] = np.real(by_direction[k])
                k += 1
        return np.concatenate([of_poles, real.ravel(), imag.ravel()])

    def _measure(self, poles, by_pole, c, b, g, g1, e, e1) -> None:
        distance = 1 - np.abs(poles) ** 2
        size = np.linalg.norm(c, axis=1)
        safe = np.where(size > 0, size, 1)

        def relative(off: np.ndarray, whole: np.ndarray, power: float) -> float:
            scale = (whole * distance**power).max()
            return float((off * distance**power).max() / (scale if scale > 0 else 1))

        left = np.linalg.norm(np.einsum("jp,jpm->jm", c, e), axis=1) / safe
        slope = np.abs(np.einsum("jp,jpm,jm->j", c, e1, b)) / safe
        norms = (np.linalg.norm(x, axis=(1, 2)) for x in (g, g1))
        self.residual = max(relative(left, next(norms), 0.5), relative(slope, next(norms), 1.5))


def _by_symmetry(values: Values, poles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    upper = np.flatnonzero(np.imag(poles) >= 0)
    g, g1 = values(poles[upper])
    out = [np.zeros((len(poles), *g.shape[1:]), complex) for _ in (g, g1)]
    for whole, part in zip(out, (g, g1), strict=True):
        whole[upper] = part
        for k in np.flatnonzero(np.imag(poles) < 0):
            partner = k - 1 if k % 2 else k + 1
            whole[k] = np.conj(whole[partner])
    return out[0], out[1]


def _solved(gram: np.ndarray, V: np.ndarray) -> np.ndarray:
    """``c`` ``(d, p)`` with ``gram c = V``, columns scaled."""
    size = 1 / np.sqrt(np.abs(np.diag(gram)))
    scaled = gram * size[:, None] * size
    return size[:, None] * np.linalg.lstsq(scaled, size[:, None] * V, rcond=1e-15)[0]


def _modes(A: np.ndarray, B: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    poles, X = np.linalg.eig(A)
    return _closed_modes(poles, np.linalg.solve(X, B.astype(complex)))


def _closed_modes(poles: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poles in pairs with directions of length one, conjugate as they are."""
    ordered = spread_apart(closed(poles[None]), real=True)[0]
    ordered = ordered[np.lexsort((-np.real(ordered) * (np.imag(ordered) == 0), np.imag(ordered) == 0))]
    nearest = scipy.optimize.linear_sum_assignment(np.abs(ordered[:, None] - poles))[1]
    b = b[nearest]
    upper = np.imag(ordered) > 0
    b[np.flatnonzero(upper) + 1] = np.conj(b[upper])
    b[np.imag(ordered) == 0] = np.real(b[np.imag(ordered) == 0] * _phase(b[np.imag(ordered) == 0]))
    length = np.linalg.norm(b, axis=1, keepdims=True)
    return ordered, np.where(length > 0, b / np.where(length > 0, length, 1), 1 / b.shape[1] ** 0.5)


def _phase(b: np.ndarray) -> np.ndarray:
    """What makes the largest entry of each row real."""
    if not len(b):
        return np.ones((0, 1))
    largest = np.take_along_axis(b, np.argmax(np.abs(b), axis=1)[:, None], axis=1)
    return np.conj(largest) / np.where(np.abs(largest) > 0, np.abs(largest), 1)


def _in_order(poles: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs first, the upper pole first, then reals by size."""
    upper = np.flatnonzero(np.imag(poles) > 0)
    lower = np.array([k - 1 if k % 2 else k + 1 for k in upper], int)
    reals = np.flatnonzero(np.imag(poles) == 0)
    reals = reals[np.argsort(-np.real(poles[reals]))]  # the order in which a chart returns the roots of a pair
    order = np.concatenate([np.stack([upper, lower], -1).ravel(), reals]).astype(int)
    return spread_apart(poles[order][None], real=True)[0], b[order]


def _realized(poles: np.ndarray, b: np.ndarray, c: np.ndarray) -> Matrices:
    """Real blocks ``[[re, im], [-im, re]]`` of pairs, with input and output of equal size."""
    d = len(poles)
    A, B, C = np.zeros((d, d)), np.zeros((d, b.shape[1])), np.zeros((c.shape[1], d))
    k = 0
    while k < d:
        scale = np.sqrt(np.linalg.norm(c[k]) / (np.linalg.norm(b[k]) or 1)) or 1.0
        own, out = b[k] * scale, c[k] / scale
        if k + 1 < d and np.imag(poles[k]) != 0:
            re, im = np.real(poles[k]), np.imag(poles[k])
            A[k : k + 2, k : k + 2] = [[re, im], [-im, re]]
            B[k], B[k + 1] = 2**0.5 * np.real(own), -(2**0.5) * np.imag(own)
            C[:, k], C[:, k + 1] = 2**0.5 * np.real(out), 2**0.5 * np.imag(out)
            k += 2
        else:
            A[k, k], B[k], C[:, k] = np.real(poles[k]), np.real(own), np.real(out)
            k += 1
    return A, B, C
