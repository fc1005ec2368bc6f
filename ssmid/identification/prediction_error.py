"""Prediction-error methods for polynomial models: ARMAX, output error, Box-Jenkins.

The coefficients that leave the smallest errors of one-step prediction (Ljung, System Identification, 2nd ed. 1999, ch. 7 and 10), by
Gauss-Newton steps with exact derivatives from a start by linear least squares: Hannan and Rissanen (Biometrika 69, 1982) where
there is a noise polynomial, Steiglitz and McBride (IEEE Trans. AC 10, 1965) for output error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmid._array import in_threads, one_blas_thread
from ssmid.analysis.polynomial import Host
from ssmid.identification.centering import centering
from ssmid.identification.gauss_newton import Minimum, minimize
from ssmid.identification.polynomial_gradient import (
    Coefficients,
    Degrees,
    Experiments,
    drift_poles,
    errors_of,
    jacobian,
    pack,
    unpack,
)
from ssmid.identification.polynomial_models import beside_drift, diagonal, innovations_form, sensitivities, widened
from ssmid.identification.prediction_error_result import (
    ERROR_OF_PREDICTION,
    ERROR_OF_SIMULATION,
    Estimate,
    PredictionErrorFit,
    relative_error,
    stacked,
)
from ssmid.identification.prediction_error_start import WITHIN, replaced, root_radius, solved, start_of_noise, start_of_output
from ssmid.identification.record import Record, experiments, host_elements
from ssmid.identification.result import told_if_unstable


def armax(
    record: Record | list[Record],
    na: int,
    nb: int,
    nc: int,
    delay: int = 1,
    *,
    center: str | None = None,
    stable: bool = False,
    iterations: int = 50,
    tol: float = 1e-8,
) -> PredictionErrorFit:
    """``A(q) y = B(q) u + C(q) e``: noise that enters with the dynamics of the system, itself a moving average. Not differentiable.

    record, center : as for :func:`ssmid.arx`   na, nb, nc : lags of A, B and C of each output   delay : the first lag of the inputs
    stable : A inside the unit circle (C is always; otherwise nothing could be predicted)
    iterations, tol : Gauss-Newton steps at most; it ends where a step would take less than this part off the sum of squares

    Each output has its own polynomials. What came before a record is estimated with them (``fit.initial_state``), so that nothing is
    assumed about it. Unstable models are warned of. Raises ValueError for records with fewer samples than there are parameters.

    >>> from scipy.signal import lfilter
    >>> rng = np.random.default_rng(0)
    >>> u, e = rng.standard_normal((2, 2000))
    >>> fit = armax(Record(u, lfilter([0, 1.0], [1, -0.9], u) + 0.1 * lfilter([1, 0.5], [1, -0.9], e)), 1, 1, 1)
    >>> fit.polynomials.A[0, 0].round(2), fit.polynomials.B[0, 0].round(2), fit.polynomials.C[0].round(1)
    (array([ 1. , -0.9]), array([0., 1.]), array([1. , 0.5]))
    """
    fit = _fitted(record, (na, nb, nc, 0, 0), delay, "ARMAX", center, stable, iterations, tol)
    return told_if_unstable(fit, "armax", "stable=True keeps it inside the circle")


def oe(
    record: Record | list[Record],
    nb: int,
    nf: int,
    delay: int = 1,
    *,
    drift: int = 0,
    noise: int = 0,
    center: str | None = None,
    iterations: int = 50,
    tol: float = 1e-8,
) -> PredictionErrorFit:
    """``y = B(q)/F(q) u + e``: the model whose free simulation is nearest to the outputs, always stable. Not differentiable.

    record, center, delay, iterations, tol : as for :func:`armax`   nb, nf : lags of B and F; the inputs of an output share F
    drift : so many states more for each output, which no input drives: slow oscillations with ``drift`` frequencies one turn per (longest)
        record apart about zero, that is levels, ramps and wander which the input does not explain (friction, temperature, a feedback that
        was closed around the system). Their amplitudes are the initial state, found anew for every record.
    noise : the errors of the simulation are weighted as an autoregression of this order, estimated with the model, that is by the
        inverse of their own spectrum; 0 weighs all frequencies alike. What the noise is like is in ``fit.polynomials.D``, not in the
        system, whose states it does not add to

    The initial state of each record is estimated with the coefficients. The Kalman gain is zero: one-step prediction is simulation.

    >>> from scipy.signal import lfilter
    >>> u = np.random.default_rng(0).standard_normal(300)
    >>> fit = oe(Record(u, lfilter([0, 1.0, 0.5], [1, -1.6, 0.8], u)), 2, 2)
    >>> fit.polynomials.F[0].round(9), float(fit.error) < 1e-12
    (array([ 1. , -1.6,  0.8]), True)
    """
    return _fitted(record, (0, nb, 0, noise, nf), delay, "OE", center, True, iterations, tol, drift)


def box_jenkins(
    record: Record | list[Record],
    nb: int,
    nc: int,
    nd: int,
    nf: int,
    delay: int = 1,
    *,
    center: str | None = None,
    iterations: int = 50,
    tol: float = 1e-8,
) -> PredictionErrorFit:
    """``y = B(q)/F(q) u + C(q)/D(q) e``: the system and its noise with dynamics of their own, always stable. Not differentiable.

    As :func:`oe`, with the noise a filter of white noise that starts from rest. The states are those of B/F, then those of C/D.

    >>> from scipy.signal import lfilter
    >>> rng = np.random.default_rng(0)
    >>> u, e = rng.standard_normal((2, 3000))
    >>> fit = box_jenkins(Record(u, lfilter([0, 1.0], [1, -0.5], u) + lfilter([1.0], [1, -0.9], e)), 1, 0, 1, 1)
    >>> fit.polynomials.F[0].round(1), fit.polynomials.D[0].round(1)
    (array([ 1. , -0.5]), array([ 1. , -0.9]))
    """
    return _fitted(record, (0, nb, nc, nd, nf), delay, "Box-Jenkins", center, True, iterations, tol)


def _fitted(
    record: Any,
    lags: tuple[int, ...],
    delay: int,
    method: str,
    center: str | None,
    stable: bool,
    iterations: int,
    tol: float,
    drift: int = 0,
) -> PredictionErrorFit:
    records = experiments(record)
    for name, value in zip(("na", "nb", "nc", "nd", "nf", "delay", "drift"), (*lags, delay, drift), strict=True):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name}: expected an integer of at least 0, got {value!r}")
    m = records[0].inputs.shape[-2]
    degrees = Degrees(lags[0], lags[1] if m else 0, lags[2], lags[3], lags[4], delay, m, drift, max(r.length for r in records))
    needed, length = degrees.model + degrees.free * len(records), sum(r.length for r in records)
    if length < needed or degrees.model == 0:
        raise ValueError(f"expected at least {max(needed, 1)} samples for {needed} parameters (at least 1), got {length}")
    base = centering(records, center)
    data = [host_elements(base.removed(r)) for r in records]
    elements = [[(u[i], y[i]) for u, y in data] for i in range(len(data[0][1]))]
    simulated = method == "OE"
    estimates = in_threads(lambda element: _element(element, degrees, stable, simulated, iterations, tol), elements)
    kind = ERROR_OF_SIMULATION if simulated else ERROR_OF_PREDICTION
    fields = stacked(estimates, records, records[0].batch_shape, isinstance(record, list))
    return PredictionErrorFit(**fields, data=record, method=method, centering=base, error_kind=kind)


@one_blas_thread
def _element(data: Experiments, degrees: Degrees, stable: bool, simulated: bool, iterations: int, tol: float) -> Estimate:
    """The outputs of one system, each by itself."""
    found = []
    for i in range(len(data[0][1])):
        own = [(u, y[i]) for u, y in data]
        bad = not all(np.isfinite(u).all() and np.isfinite(y).all() for u, y in own)
        found.append(_unknown(degrees, own) if bad else _output(own, degrees, stable, iterations, tol))
    return _joined(found, data, degrees, simulated)


def _output(data: Experiments, degrees: Degrees, stable: bool, iterations: int, tol: float) -> tuple[Minimum, Coefficients, Host]:
    """The minimum for one output, in units in which all signals have a largest value of 1; what these do to each parameter."""
    height = max(max(np.abs(y).max() for _, y in data), 0) or 1.0
    levels = np.max([np.abs(u).max(-1, initial=0) for u, _ in data], axis=0)
    levels[levels == 0] = 1
    scaled = [(u / levels[:, None], y / height) for u, y in data]
    g = degrees

    best = None
    if stable and g.na:
        # the way to a stable minimum may lead from an unstable start: the boundary counts only where it was not left behind
        best = _descended(scaled, g, False, iterations, tol)
        best = best if _companion_radius(unpack(best.theta, g, len(data)).a, g.start) < WITHIN else None
    best = best or _descended(scaled, g, stable, iterations, tol)
    units = np.ones(len(best.theta))
    units[g.na : g.na + g.nb * g.inputs] = np.repeat(height / levels, g.nb)
    units[g.model :] = height
    return best, unpack(best.theta * units, g, len(data)), units


def _descended(data: Experiments, g: Degrees, stable: bool, iterations: int, tol: float) -> Minimum:
    # without A the coefficients of B, the starts and the drift are linear: solved for anew at each F, C and D, which is the variable
    # projection of Golub and Pereyra with Kaufman's derivative, the full Gauss-Newton step being taken where their gradient is zero
    projected = g.nf > 0 and g.na == 0

    def evaluate(theta: Host) -> tuple[Host, Any] | None:
        x = unpack(theta, g, len(data))
        watched = (x.a, x.c, x.d, x.f) if stable else (x.c, x.f)
        if any(root_radius(p) >= WITHIN for p in watched if len(p) > 1):
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            x = solved(x, g, data) if projected else x
            signals = errors_of(x, g, data)
            errors = np.concatenate([e for _, _, e in signals])
            return (errors, (x, signals)) if np.isfinite(errors @ errors) else None

    start = start_of_noise(data, g, stable) if g.nc or g.nd or not g.nf else start_of_output(data, g)
    best = minimize(
        pack(start, g), evaluate, lambda _, point: jacobian(point[0], g, data, point[1]), iterations=iterations, tol=tol,
        retract=lambda _, point: (pack(point[0], g), point), floor=1e-29 * sum(float(y @ y) for _, y in data),
    )
    return _settled(best, g, evaluate, len(data)) if stable else best


def _settled(best: Minimum, g: Degrees, evaluate: Any, experiments: int) -> Minimum:
    """``best`` with A and F drawn towards zero as far as the state space needs to be stable to rounding, where roots lie in clusters."""
    x, part = unpack(best.theta, g, experiments), 1e-9
    while max(_companion_radius(x.a, g.start), _companion_radius(x.f, g.start), _companion_radius(x.d, g.start)) >= WITHIN and part < 0.1:
        shrunk = {name: getattr(x, name) * (1 - part) ** np.arange(len(getattr(x, name))) for name in ("a", "f", "d")}
        again = evaluate(pack(replaced(x, **shrunk), g))
        if again is not None:
            residuals, point = again
            x = point[0]
            best = Minimum(pack(x, g), residuals, point, best.root, best.condition, best.converged, best.iterations)
        part *= 4
    return best


def _companion_radius(polynomial: Host, size: int) -> float:
    """The largest pole modulus of the observer companion form of ``size`` states, as rounding gives it there."""
    n = max(len(polynomial) - 1, size)
    if len(polynomial) == 1 or not np.isfinite(polynomial).all():
        return 0.0
    A = np.eye(n, k=1)
    A[: len(polynomial) - 1, 0] = -polynomial[1:]
    return float(np.abs(np.linalg.eigvals(A)).max())


def _unknown(g: Degrees, data: Experiments) -> tuple[Minimum, Coefficients, Host]:
    """What is said of a record with NaN."""
    theta = np.full(g.model + len(data) * g.free, np.nan)
    errors = np.full(sum(len(y) for _, y in data), np.nan)
    return Minimum(theta, errors, None, np.full((len(theta), len(theta)), np.nan), np.nan, False, 0), unpack(theta, g, len(data)), theta


def _joined(found: list[tuple[Minimum, Coefficients, Host]], data: Experiments, g: Degrees, simulated: bool) -> Estimate:
    """One state space of all outputs. The covariance takes their errors as unrelated where parameters of two outputs meet."""
    p, k = len(found), g.model
    x = [c for _, c, _ in found]
    polynomials = (
        diagonal(np.stack([c.a for c in x])), np.stack([c.b for c in x]),
        *(np.stack([getattr(c, name) for c in x]) for name in ("c", "d", "f")),
    )
    shown, moved = polynomials, _directions(g, p)
    if simulated:
        # the noise model weighs the errors and is no part of the system
        shown, moved = (*polynomials[:2], *_ones(2, p), polynomials[4]), (*moved[:2], *(0 * d[..., :1] for d in moved[2:4]), moved[4])
    matrices = innovations_form(*shown)
    changes = sensitivities(shown, moved)
    n = len(matrices[0])
    if g.drift:
        matrices = beside_drift(matrices, drift_poles(g.drift, g.period))
        changes = widened(changes, p * g.drift)
    lengths = [y.shape[-1] for _, y in data]
    heights = [np.abs(np.concatenate([y[i] for _, y in data])).max() or 1.0 for i in range(p)]
    free = max(sum(lengths) - k - len(data) * g.free, 1)
    errors = np.stack([_left(best, simulated) * h for (best, _, _), h in zip(found, heights, strict=True)])
    covariance = np.zeros((p * k, p * k))
    with np.errstate(over="ignore", invalid="ignore"):  # variances are squares of units
        noise = errors @ errors.T / free
        for i, (best, _, units) in enumerate(found):
            root = (best.root * units[:, None])[:k] * np.sqrt(best.residuals @ best.residuals / free)
            covariance[i * k : (i + 1) * k, i * k : (i + 1) * k] = root @ root.T
    starts = np.stack([c.starts for c in x], -1)
    states = np.zeros((len(data), len(matrices[0])))
    states[:, : g.start * p] = starts[:, : g.start].reshape(len(data), -1)
    states[:, n:] = starts[:, g.start :].reshape(len(data), -1)
    pieces = np.split(errors, np.cumsum(lengths)[:-1], axis=-1)
    conditions = [best.condition for best, _, _ in found]
    return Estimate(
        matrices, states, noise, np.concatenate([pack(c, g)[:k] for c in x]), covariance, changes,
        relative_error([y for _, y in data], pieces), max(conditions), all(b.converged for b, _, _ in found),
        max(b.iterations for b, _, _ in found), polynomials,
    )


def _left(best: Minimum, simulated: bool) -> Host:
    """The errors of the simulation where that is asked for, of the prediction otherwise."""
    return np.concatenate([v for _, v, _ in best.point[1]]) if simulated and best.point is not None else best.residuals


def _ones(count: int, p: int) -> list[Host]:
    return [np.ones((p, 1))] * count


def _directions(g: Degrees, p: int) -> tuple[Host, ...]:
    """Unit changes of A, B, C, D and F by each parameter, those of the first output first."""
    basis = np.eye(g.model)
    zero = unpack(np.zeros(g.model), g, 0)
    each = [unpack(row, g, 0) for row in basis]
    out = []
    for i in range(p):
        parts = []
        for name in ("a", "b", "c", "d", "f"):
            change = np.stack([getattr(e, name) - getattr(zero, name) for e in each])
            wide = np.zeros((len(each), p, *change.shape[1:]))
            wide[:, i] = change
            parts.append(diagonal(wide) if name == "a" else wide)
        out.append(parts)
    return tuple(np.concatenate(parts) for parts in zip(*out, strict=True))
