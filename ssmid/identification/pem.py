"""State-space models in innovations form by the prediction-error method.

Gauss-Newton steps with exact derivatives in data-driven local coordinates (Ljung, System Identification, 2nd ed. 1999, ch. 7 and 10;
McKelvey, Helmersson & Ribarits, Automatica 40, 2004), from a subspace model or any other start.
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import numpy as np

from ssmid._array import double, in_threads, one_blas_thread, to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.analysis.realization import balanced_realization
from ssmid.identification.centering import centering
from ssmid.identification.gauss_newton import Minimum, minimize
from ssmid.identification.initial_state import check_fits, free_motion
from ssmid.identification.innovations_gradient import Innovations, directions, errors_of, jacobian
from ssmid.identification.least_squares import least_squares
from ssmid.identification.prediction_error_result import (
    ERROR_OF_PREDICTION,
    ERROR_OF_SIMULATION,
    Estimate,
    PredictionErrorFit,
    relative_error,
    stacked,
)
from ssmid.identification.record import Record, experiments, host_elements
from ssmid.identification.result import Fit, told_if_unstable
from ssmid.identification.subspace import n4sid
from ssmid.systems import StateSpace

Data = list[tuple[Host, Host]]

_WITHIN = 1 - 1e-9


def pem(
    record: Record | list[Record],
    start: int | Fit | StateSpace | None = None,
    *,
    focus: str = "prediction",
    stable: bool = True,
    feedthrough: bool = True,
    center: str | None = None,
    iterations: int = 50,
    tol: float = 1e-8,
) -> PredictionErrorFit:
    """The state-space model with the smallest errors of prediction, nearest downhill from a start. Not differentiable.

    record : one or several experiments, ``(*batch, m, T)`` in and ``(*batch, p, T)`` out
    start : an order, at which :func:`ssmid.n4sid` makes the start; a fit of the same data, or a StateSpace, to be refined; when left
        out, n4sid chooses the order too
    focus : "prediction", one step ahead, with the Kalman gain estimated; "simulation", without looking at measured outputs: output
        error, the gain zero
    stable : keeps the poles of the system inside the circle; those of the predictor always are
    feedthrough : False keeps D as it is in the start, zero where that is an order    center : as for :func:`ssmid.arx`
    iterations, tol : steps at most; it ends where a step would take less than this part off the sum of squares

    All entries of the matrices move, but along changes that the data can see: orthogonal to changes of the coordinates of the states.
    Several outputs are weighted by the inverse covariance of their errors (prediction: maximum likelihood for Gaussian noise), or by
    the deviation of each (simulation). Initial states are estimated. ``parameters`` are coordinates along orthonormal changes of the
    matrices, of which ``sensitivity`` holds the directions.
    Raises ValueError for starts that do not fit the record or whose predictor is unstable, TypeError for other starts.

    >>> rng = np.random.default_rng(0)
    >>> u, e = rng.standard_normal((2, 1000))
    >>> from scipy.signal import lfilter
    >>> fit = pem(Record(u, lfilter([0, 1.0], [1, -0.9], u) + 0.1 * lfilter([1, 0.5], [1, -0.9], e)), 1)
    >>> fit.system.A.round(2), float(fit.noise_covariance[0, 0].round(3))
    (array([[0.9]]), 0.01)
    """
    records = experiments(record)
    if focus not in ("prediction", "simulation"):
        raise ValueError(f'focus: expected "prediction" or "simulation", got {focus!r}')
    base = centering(records, center)
    around = [base.removed(r) for r in records]
    data = [host_elements(r) for r in around]
    batch = records[0].batch_shape
    matrices = _start(around, start, focus, stable, feedthrough, batch)
    elements = list(range(len(data[0][1])))

    def one(i: int) -> Estimate:
        own = [(u[i], y[i]) for u, y in data]
        return _element(own, tuple(M[i] for M in matrices), focus == "prediction", stable, feedthrough, iterations, tol)

    estimates = in_threads(one_blas_thread(one), elements)
    fields = stacked(estimates, records, batch, isinstance(record, list))
    kind = ERROR_OF_PREDICTION if focus == "prediction" else ERROR_OF_SIMULATION
    fit = PredictionErrorFit(**fields, data=record, method="PEM", centering=base, error_kind=kind)
    return told_if_unstable(fit, "pem", "stable=True keeps it inside the circle")


def _start(records: list[Record], start: Any, focus: str, stable: bool, feedthrough: bool, batch: tuple[int, ...]) -> list[Host]:
    """A, B, C, D, K ``(elements, ...)`` to begin with."""
    if start is None or (isinstance(start, (int, np.integer)) and not isinstance(start, bool)):
        order = None if start is None else int(start)
        start = n4sid(records if len(records) > 1 else records[0], order, stable=True, feedthrough=feedthrough)
    system = getattr(start, "system", start)
    if not isinstance(system, StateSpace):
        raise TypeError(f"start: expected an order, a fit with a state space, or a StateSpace, got {type(start).__name__}")
    check_fits(system, records[0])
    gain = getattr(start, "kalman_gain", None)
    parts = [to_numpy(double(M)) for M in (system.A, system.B, system.C, system.D)]
    K = np.zeros((system.order, system.outputs)) if gain is None or focus == "simulation" else to_numpy(double(gain))
    try:
        full = [np.broadcast_to(M, (*batch, *M.shape[-2:])).reshape(prod(batch), *M.shape[-2:]) for M in (*parts, K)]
    except ValueError:
        raise ValueError(f"start: expected a batch that broadcasts to {batch}, got {system.batch_shape}") from None
    radius = _radius(full[0]) if focus == "simulation" or stable else np.zeros(len(full[0]))
    predictor = _radius(full[0] - full[4] @ full[2])
    if (np.maximum(radius, predictor) >= 1).any():
        what = "a stable system" if (radius >= 1).any() else "a stable predictor A - K C"
        raise ValueError(f"start: expected {what}, got a pole of modulus {np.nanmax(np.maximum(radius, predictor)):.6g}")
    return full


def _radius(matrices: Host) -> Host:
    """``(elements,)`` largest moduli of eigenvalues, 0 for elements that are not finite or have no states."""
    if not matrices.shape[-1]:
        return np.zeros(len(matrices))
    return np.array([np.abs(np.linalg.eigvals(M)).max() if np.isfinite(M).all() else 0.0 for M in matrices])


@dataclasses.dataclass(frozen=True)
class _Problem:
    """One element in units of the deviations of its channels."""

    data: Data
    weight: Host
    gain: bool
    stable: bool
    feedthrough: bool

    def evaluate(self, model: Innovations) -> tuple[Host, Any] | None:
        if _radius(model.predictor[None])[0] >= _WITHIN or (self.stable and self.gain and _radius(model.A[None])[0] >= _WITHIN):
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            signals = errors_of(model, self.data)
            weighted = np.concatenate([(self.weight @ e).ravel() for _, e in signals])
            size = weighted @ weighted
        return (weighted, (model, signals)) if np.isfinite(size) else None

    def derivative(self, model: Innovations, signals: list[tuple[Host, Host]], changes: tuple[Host, ...]) -> Host:
        blocks = jacobian(model, self.data, signals, changes)
        J = np.concatenate([np.tensordot(self.weight, b, 1).reshape(-1, b.shape[-1]) for b in blocks])
        # directions of an input that is zero change the errors by rounding, to which no unit belongs
        length = np.linalg.norm(J, axis=0)
        return np.where(length > 64 * np.finfo(float).eps * length.max(initial=0), J, 0.0)


def _element(
    data: Data, matrices: tuple[Host, ...], gain: bool, stable: bool, feedthrough: bool, iterations: int, tol: float
) -> Estimate:
    bad = not all(np.isfinite(M).all() for M in matrices) or not all(np.isfinite(u).all() and np.isfinite(y).all() for u, y in data)
    if bad:
        return _unknown(data, matrices, gain, feedthrough)
    levels, heights = (_deviation([pair[i] for pair in data]) for i in (0, 1))
    scaled = [(u / levels[:, None], y / heights[:, None]) for u, y in data]
    model = _prepared(matrices, scaled, levels, heights)
    p = len(heights)
    samples = sum(y.shape[-1] for _, y in data)
    problem = _Problem(scaled, np.eye(p), gain, stable, feedthrough)
    best, done = None, 0
    for _ in range(1 if p == 1 or not gain else 3):
        if p > 1 and gain:
            errors = np.concatenate([e for _, e in errors_of(model, scaled)], -1)
            problem = dataclasses.replace(problem, weight=_whitening(errors @ errors.T / samples))
        model, best = _refined(problem, model, iterations, tol)
        done += best.iterations
    assert best is not None
    return _estimate(problem, model, best, done, levels, heights, data)


def _refined(problem: _Problem, model: Innovations, iterations: int, tol: float) -> tuple[Innovations, Minimum]:
    """Steps in local coordinates, which are zero at the last accepted model and chosen anew there."""
    chart: dict[str, Any] = {}

    def settle(at: Innovations) -> int:
        chart["model"], chart["changes"] = at, directions(at, gain=problem.gain, feedthrough=problem.feedthrough)
        return len(chart["changes"][0])

    def evaluate(theta: Host) -> tuple[Host, Any] | None:
        k = len(chart["changes"][0])
        step = tuple(np.tensordot(theta[:k], d, 1) for d in chart["changes"])
        return problem.evaluate(chart["model"].moved(step, theta[k:].reshape(model.states.shape)))

    def retract(_: Host, point: Any) -> tuple[Host, Any]:
        return np.zeros(settle(point[0]) + model.states.size), point

    k = settle(model)
    best = minimize(
        np.zeros(k + model.states.size), evaluate, lambda _, point: problem.derivative(point[0], point[1], chart["changes"]),
        iterations=iterations, tol=tol, retract=retract, floor=1e-29 * sum(float(np.sum(y * y)) for _, y in problem.data),
    )
    return best.point[0], best


def _prepared(matrices: tuple[Host, ...], data: Data, levels: Host, heights: Host) -> Innovations:
    """The start in the units of the problem, in balanced coordinates, with the initial states of least squares."""
    A, B, C, D, K = matrices
    B, C, D, K = B * levels, C / heights[:, None], D * levels / heights[:, None], K * heights
    n, m = B.shape
    if n and _radius(A[None])[0] < 1:
        # the gain is an input too: what only the noise reaches has coordinates then
        wide = StateSpace(A, np.concatenate([B, K], -1), C, np.zeros((len(C), m + K.shape[-1])))
        balanced = balanced_realization(wide)
        parts = [to_numpy(M) for M in (balanced.A, balanced.B, balanced.C)]
        if parts[0].shape == A.shape and all(np.isfinite(M).all() for M in parts):
            A, C, B, K = parts[0], parts[2], parts[1][:, :m], parts[1][:, m:]
    model = Innovations(A, B, C, D, K, np.zeros((len(data), n)))
    states = []
    for (_, y), (_, e) in zip(data, errors_of(model, data), strict=True):
        motion = np.moveaxis(free_motion(model.predictor, C, y.shape[-1]), 0, 1)
        states.append(least_squares(motion.reshape(-1, n), e.reshape(-1, 1))[0][:, 0] if n else np.zeros(0))
    return dataclasses.replace(model, states=np.stack(states))


def _deviation(signals: list[Host]) -> Host:
    joined = np.concatenate(signals, -1)
    largest = np.abs(joined).max(-1, initial=0)
    largest[largest == 0] = 1
    deviation = largest * np.sqrt(np.mean((joined / largest[:, None]) ** 2, -1))
    return np.where(deviation > 0, deviation, 1.0)


def _whitening(covariance: Host) -> Host:
    """``W`` with ``W covariance W^T = I``, no direction of the errors counted as smaller than rounding of the outputs."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors / np.sqrt(np.maximum(values, max(values.max() * 1e-12, 1e-28)))).T


def _estimate(
    problem: _Problem, model: Innovations, best: Minimum, done: int, levels: Host, heights: Host, data: Data
) -> Estimate:
    """The model in the units of the record."""
    changes = directions(model, gain=problem.gain, feedthrough=problem.feedthrough)
    k, p = len(changes[0]), len(heights)
    errors = [e * heights[:, None] for _, e in best.point[1]]
    joined = np.concatenate(errors, -1)
    samples = joined.shape[-1]
    with np.errstate(over="ignore", invalid="ignore"):  # variances are squares of units
        noise = joined @ joined.T / max(samples - len(best.theta) / p, 1)
    root = best.root[:k]
    variance = float(best.residuals @ best.residuals) / max(len(best.residuals) - len(best.theta), 1)
    flat = [np.concatenate([d.reshape(k, -1) for d in changes], -1), np.concatenate([M.ravel() for M in model.matrices])]

    def outside(A: Host, B: Host, C: Host, D: Host, K: Host) -> tuple[Host, ...]:
        return A, B / levels, C * heights[:, None], D * heights[:, None] / levels, K / heights

    return Estimate(
        outside(*model.matrices), model.states, noise, flat[0] @ flat[1], root @ root.T * variance, outside(*changes),
        relative_error([y for _, y in data], errors), best.condition, best.converged, done,
    )


def _unknown(data: Data, matrices: tuple[Host, ...], gain: bool, feedthrough: bool) -> Estimate:
    n, m, p = len(matrices[0]), matrices[1].shape[-1], len(matrices[2])
    k = n * (m + p) + (n * p if gain else 0) + (p * m if feedthrough else 0)
    nothing = tuple(np.full(M.shape, np.nan) for M in matrices)
    sensitivity = tuple(np.full((k, *M.shape), np.nan) for M in matrices)
    states = np.full((len(data), n), np.nan)
    unknown = np.full(k, np.nan)
    return Estimate(nothing, states, np.full((p, p), np.nan), unknown, np.full((k, k), np.nan), sensitivity, np.nan, np.nan, False, 0)
