"""l2-optimal approximation of taps under weights over time or over frequency: variable projection with the basis written out.

Weights leave no Gram matrix in closed form. Residues are eliminated by QR, and the poles move by Gauss-Newton steps with Kaufman's
Jacobian (BIT 15, 1975) in the charts and the trust region of the unweighted search.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssmid._array import Array, astype_width, double, from_numpy, in_threads, is_complex, namespace, quiet, to_numpy, width
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.spectrum import frequency_response
from ssmid.reduction.fir import balanced_truncation_fir
from ssmid.reduction.h2_newton import step_in_region
from ssmid.reduction.h2_poles import arranged, chart
from ssmid.reduction.h2_request import H2Request, prepared, start_of_system
from ssmid.reduction.h2_result import H2Reduction
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse, Modal, System

_FIRST_RADIUS, _LARGEST_RADIUS = 0.3, 2.0


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Not negative: ``over time`` one for each tap, else on the grid of a DFT of ``size`` points (one-sided for real responses).

    The grid has at least twice as many points as there are taps: on one of as many, a pole next to the circle and between two points
    hides the ringing of its mode, which wraps around into the taps.
    """

    values: np.ndarray
    over_time: bool
    size: int

    @classmethod
    def of(cls, response: ImpulseResponse, weights: Array | None, frequency_weights: Array | System | None) -> Weights:
        """Checked; ValueError for shapes that do not fit, for negative ones, and for those that are all zero."""
        if weights is not None and frequency_weights is not None:
            raise ValueError("expected weights or frequency_weights, got both")
        length = response.length
        if weights is not None:
            name, values, size = "weights", np.asarray(to_numpy(weights), float), length
            expected = f"(*batch, {length})"
            fits = values.ndim > 0 and values.shape[-1] == length
        elif isinstance(frequency_weights, System):
            size = 2 * (1 << (length - 1).bit_length())
            omega = 2 * np.pi * np.arange(size if response.is_complex else size // 2 + 1) / size
            step = 1.0 if frequency_weights.dt is True else float(frequency_weights.dt)
            name, values = "frequency_weights", np.abs(to_numpy(frequency_response(frequency_weights, omega / step).values))
            expected, fits = "a scalar discrete-time system", True
        else:
            name, values = "frequency_weights", np.asarray(to_numpy(frequency_weights), float)
            bins = values.shape[-1] if values.ndim else 0
            size = bins if response.is_complex else 2 * (bins - 1)
            expected = f"(*batch, k) with a grid of at least {length} points"
            fits = size >= length
        if not fits:
            raise ValueError(f"{name}: expected {expected}, got shape {values.shape}")
        bad = np.argwhere(~(np.isfinite(values) & (values >= 0)))
        if bad.size or not values[..., 1:].any(-1).all():
            got = f"{values[tuple(bad[0])]:g} at {[int(place) for place in bad[0]]}" if bad.size else "a row of zeros"
            raise ValueError(f"{name}: expected finite numbers that are not negative and not all zero, got {got}")
        if weights is None and size < 2 * length:
            values, size = _interpolated(values, size, -(-2 * length // size), periodic=response.is_complex)
        return cls(values, weights is not None, size)

    def rows(self, taps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times or points z, the weights, and the weighted target, without the first tap."""
        proper = np.concatenate([[0], taps[1:]])
        if self.over_time:
            return np.arange(len(taps) - 1.0), self.values[1:], self.values[1:] * proper[1:]
        z = np.exp(2j * np.pi * np.arange(self.size) / self.size)
        weights = self.values if np.iscomplexobj(taps) else np.concatenate([self.values, self.values[-2:0:-1]])
        weights = weights / self.size**0.5
        return z, weights, weights * np.fft.fft(proper, self.size)

    def basis(self, rows: np.ndarray, weights: np.ndarray, poles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted modes ``(K, d)`` and their derivatives by the poles."""
        if not self.over_time:
            modes = 1 / (rows[:, None] - poles)
            return weights[:, None] * modes, weights[:, None] * modes**2
        powers = poles ** rows[:, None]
        before = np.concatenate([np.zeros((1, len(poles))), powers[:-1]])
        return weights[:, None] * powers, (weights * rows)[:, None] * before


def _interpolated(values: np.ndarray, size: int, times: int, *, periodic: bool) -> tuple[np.ndarray, int]:
    """Weights ``(*batch, k)`` linearly on a grid of so many times as many points, and its size; the given points are among them."""
    ends = np.concatenate([values, values[..., :1]], axis=-1) if periodic else values
    places = np.arange(times * (ends.shape[-1] - 1) + 1) / times
    before = np.minimum(places.astype(int), ends.shape[-1] - 2)
    share = places - before
    finer = ends[..., before] * (1 - share) + ends[..., before + 1] * share
    return finer[..., :-1] if periodic else finer, times * size


@dataclasses.dataclass(frozen=True, eq=False)
class _Fit:
    poles: np.ndarray
    residues: np.ndarray
    history: list[float]
    cosine: float
    converged: bool
    condition: float


def h2_of_weighted_taps(response: ImpulseResponse, request: H2Request, weights: Weights) -> H2Reduction:
    """Each channel for itself, on the host, from balanced truncation or a given start."""
    if request.order is None or request.restarts:
        raise ValueError("expected an order and no restarts with weights")
    balanced = balanced_truncation_fir(response, request.order)
    real, taps = not response.is_complex, to_numpy(double(response.taps))
    batch, order = taps.shape[:-1], request.order
    flat = taps.reshape(-1, taps.shape[-1])
    try:
        own = np.broadcast_to(weights.values, (*batch, weights.values.shape[-1])).reshape(len(flat), -1)
    except ValueError:
        raise ValueError(f"weights: expected a batch shape that broadcasts to {batch}, got {weights.values.shape[:-1]}") from None
    orders = np.broadcast_to(to_numpy(balanced.order) if not isinstance(balanced.order, int) else balanced.order, batch).reshape(-1)
    sound = np.asarray(np.isfinite(flat).all(-1))
    starts = []
    for start in request.starts:
        given = start_of_system(balanced if isinstance(start, str) else start, batch, order, real=False)
        given = np.where(np.isfinite(given), given, 0)
        starts.append(prepared(_real_last(given, orders, real), np.where(sound, orders, 0), flat[:, :1] + 0j, real=real))

    def element(k: int) -> _Fit:
        mine = dataclasses.replace(weights, values=own[k])
        found = [_search(mine, flat[k], poles[k], live[k], real, request) for poles, live in starts]
        return min(found, key=lambda f: f.history[-1])

    fits = in_threads(element, list(range(len(flat))))
    return _assembled(response, balanced, fits, sound, batch)


def _real_last(poles: np.ndarray, orders: np.ndarray, real: bool) -> np.ndarray:
    """Of padded elements the zeros that pad them last; conjugates as neighbours."""
    out = np.zeros_like(poles, complex)
    for k, row in enumerate(poles):
        row = row[np.argsort(-np.abs(row), kind="stable")][: orders[k]]
        if real:
            upper, reals = row[row.imag > 0], row[row.imag == 0]
            row = np.concatenate([np.stack([upper, upper.conj()], -1).ravel(), reals])
        out[k, : len(row)] = row
    return out


@quiet
def _search(weights: Weights, taps: np.ndarray, poles: np.ndarray, live: np.ndarray, real: bool, request: H2Request) -> _Fit:
    scale = np.abs(taps).max(initial=0.0)
    if not live.any() or not np.isfinite(scale):
        return _Fit(poles, np.zeros(len(poles), complex), [0.0 if np.isfinite(scale) else np.nan], 0.0, bool(np.isfinite(scale)), 1.0)
    rows = weights.rows(taps / scale)
    energy = float(np.linalg.norm(rows[2]) ** 2)
    radius, cosine, turn, converged, condition = _FIRST_RADIUS * len(poles) ** 0.5, np.inf, 0, False, np.inf
    problem = _Problem(weights, *rows, live, real)
    state = problem(poles)
    history = [state.error]
    for turn in range(request.max_iterations + 1):
        if real:
            order = arranged(poles[None], live[None], turn)[0]
            poles, live = poles[order], live[order]
            problem = _Problem(weights, *rows, live, real)
            state = problem(poles)
        here = chart(poles[None], live[None], real=real)
        gradient, hessian = problem.model(state, here)
        condition = float(np.linalg.cond(hessian[:, np.diag(hessian) > 0][np.diag(hessian) > 0]))
        cosine = state.cosine
        converged = cosine <= request.gtol or energy == 0 or state.error <= 1e-28 * energy
        if converged or turn == request.max_iterations or radius < 1e-12:
            break
        step, predicted = (x[0] for x in step_in_region(gradient[None], hessian[None], np.array([radius])))
        trial = np.where(live, here.moved(step[None])[0], 0)
        new, length = problem(trial), float(np.linalg.norm(step))
        ratio = (state.error - new.error) / predicted if predicted > 0 else -1.0
        if ratio > 1e-4:
            poles, state = trial, new
            radius = min(2 * radius if ratio > 0.75 and length > 0.9 * radius else radius, _LARGEST_RADIUS * len(poles) ** 0.5)
        if not ratio > 0.25:
            radius = 0.25 * min(length, radius)
        history.append(state.error)
        if predicted <= 1e-15 * state.error:
            converged = cosine <= 1e-6
            break
    residues = np.where(live, problem.residues(poles), 0) * scale
    return _Fit(np.where(live, poles, 0), residues, [h / energy if energy else 0.0 for h in history], cosine, converged, condition)


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    error: float
    slopes: np.ndarray
    jacobian: np.ndarray
    cosine: float


class _Problem:
    """The squared weighted error at given poles, with what a Gauss-Newton step needs."""

    def __init__(self, weights: Weights, rows: np.ndarray, w: np.ndarray, target: np.ndarray, live: np.ndarray, real: bool) -> None:
        self.weights, self.rows, self.w, self.target, self.live, self.real = weights, rows, w, target, live, real

    def _solved(self, poles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        modes, slopes = self.weights.basis(self.rows, self.w, poles[self.live])
        size = np.linalg.norm(modes, axis=0)
        size = np.where(size > 0, size, 1)
        Q, R = np.linalg.qr(modes / size)
        fitted = Q.conj().T @ self.target
        residues = np.linalg.lstsq(R, fitted, rcond=1e-15)[0] / size
        return Q, slopes, self.target - Q @ fitted, residues

    def __call__(self, poles: np.ndarray) -> _State:
        Q, slopes, left, residues = self._solved(poles)
        change = slopes * residues
        change = change - Q @ (Q.conj().T @ change)
        f, jacobian = np.zeros(len(poles), complex), np.zeros((len(left), len(poles)), complex)
        f[self.live], jacobian[:, self.live] = left.conj() @ change, change
        size = np.linalg.norm(left) * np.linalg.norm(change, axis=0)
        cosine = np.abs(f[self.live]) / np.where(size > 0, size, 1)
        return _State(float(np.linalg.norm(left) ** 2), f, jacobian, float(cosine.max(initial=0.0)))

    def residues(self, poles: np.ndarray) -> np.ndarray:
        out = np.zeros(len(poles), complex)
        out[self.live] = self._solved(poles)[3]
        return out

    def model(self, state: _State, here: Any) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and Gauss-Newton Hessian in the real coordinates of a chart."""
        f, J = state.slopes, state.jacobian
        if self.real:
            gradient = -here.gradient(2 * f[None])[0]
            first = here.first[0]
            columns = [J[:, 0::2] * first[:, 0, a] + J[:, 1::2] * first[:, 1, a] for a in (0, 1)]
            J = np.stack(columns, axis=-1).reshape(len(J), -1)
        else:
            gradient = -here.gradient(f[None])[0]
            J = J * here.first[0]
            J = np.concatenate([J, 1j * J], axis=-1)
        return gradient, 2 * np.real(J.conj().T @ J)


def _assembled(response: ImpulseResponse, balanced: Reduction, fits: list[_Fit], sound: np.ndarray, batch: tuple[int, ...]) -> H2Reduction:
    like, bits = response.taps, width(response.taps)
    xp, real = namespace(like), not is_complex(like)
    longest, order = max(len(f.history) for f in fits), int(balanced.system.arrays["A"].shape[-1])

    def back(values: Any) -> Array:
        array = np.asarray(values)
        array = np.where(sound.reshape(-1, *(1,) * (array.ndim - 1)), array, np.nan).reshape((*batch, *array.shape[1:]))
        return astype_width(from_numpy(np.asarray(array, order="C"), like), bits)

    # what is not live stands last
    poles, residues = (np.stack([x[:order] for x in xs]) for xs in ([f.poles for f in fits], [f.residues for f in fits]))
    clean = Modal(np.where(sound[:, None], poles, 0), np.where(sound[:, None], residues, 0), np.zeros(len(fits)), response.dt, real)
    states = modal_state_space(clean)
    A, B, C = (to_numpy(M) for M in (states.A, states.B, states.C))
    A, B, C = back(A), back(B), back(C)
    fields = {field.name: getattr(balanced, field.name) for field in dataclasses.fields(Reduction)}
    D = balanced.system.arrays["D"]
    converged = from_numpy(np.array([f.converged for f in fits]).reshape(batch), like)
    fields |= {"system": type(states)(A, B, C, D, response.dt), "method": "weighted l2-optimal approximation"}
    fields |= {"bound": xp.full_like(balanced.bound, float("nan")), "condition": back([f.condition for f in fits])}
    return H2Reduction(
        **{**fields, "converged": balanced.converged & converged},
        interpolation_residual=back([f.cosine for f in fits]),
        iterations=from_numpy(np.array([len(f.history) - 1 for f in fits]).reshape(batch), like),
        history=back([np.sqrt(np.array(f.history + f.history[-1:] * (longest - len(f.history)))) for f in fits]),
    )
