"""How good a model is on a record: simulation, k-step prediction, fit in percent, and tests of what is left over.

Ljung, System Identification, 2nd ed. 1999, sec. 3.2 (prediction), 16.4 (fit), 16.5-16.6 (residual analysis).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg
import scipy.signal
import scipy.special

from ssmid._array import Array, as_array, astype_width, batched_on_host, double, harmonize, namespace, quiet, to_numpy, width
from ssmid.analysis.impulse import markov_parameters
from ssmid.analysis.simulation import causal_product
from ssmid.identification.centering import Centering
from ssmid.identification.initial_state import as_kind_of, check_fits, estimate_initial_state, estimate_state_and_line, free_simulation
from ssmid.identification.record import Record
from ssmid.identification.result import Fit
from ssmid.systems import StateSpace


def fit_percent(measured: Any, modelled: Any) -> Array:
    """``100 (1 - |y - y^| / |y - mean y|)`` of each output, in percent: ``(*batch, p)`` of ``(*batch, p, T)``, a number of ``(T,)``.

    100 is perfect, 0 no better than the mean; there is no lower end. A constant output has 100 where it is met and -inf where not.
    Differentiable. Raises ValueError for shapes that differ.

    >>> float(fit_percent([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]).round(1))
    29.3
    """
    y, model = (double(a) for a in harmonize(measured=measured, modelled=modelled))
    if y.ndim == 0 or tuple(y.shape) != tuple(model.shape) or y.shape[-1] == 0:
        raise ValueError(f"expected two signals (*batch, samples) of one shape, got {tuple(y.shape)} and {tuple(model.shape)}")
    return astype_width(quiet(_percent)(y, model), width(as_array(measured, "measured")))


def _percent(y: Array, model: Array) -> Array:
    xp = namespace(y)
    about, wrong = y - xp.mean(y, axis=-1, keepdims=True), y - model
    scale = xp.max(xp.maximum(xp.abs(about), xp.abs(wrong)), axis=-1, keepdims=True)
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    size, error = (xp.linalg.vector_norm(x / scale, axis=-1) for x in (about, wrong))
    # what is constant to rounding has no variation to explain
    constant = size * scale[..., 0] <= 8 * float(xp.finfo(y.dtype).eps) * xp.max(xp.abs(y), axis=-1) * y.shape[-1] ** 0.5
    ratio = error / xp.where(constant, xp.ones_like(size), size)
    met = error * scale[..., 0] <= 8 * float(xp.finfo(y.dtype).eps) * xp.max(xp.abs(y), axis=-1) * y.shape[-1] ** 0.5
    none = xp.where(met, xp.zeros_like(ratio), xp.full_like(ratio, xp.inf))
    return 100 * (1 - xp.where(constant & ~xp.isnan(error), none, ratio))


def predict(model: Fit | StateSpace, record: Record, steps: int | None = 1, *, state: Any = None) -> Array:
    """Outputs ``(*batch, p, T)`` that ``model`` expects, each from the inputs to its time and the outputs up to ``steps`` before.

    model : an identified fit with a Kalman gain, or a StateSpace, whose gain is zero: its predictions are its simulation
    steps : 1 and more; None or infinity is the free simulation, which never looks at the measured outputs
    state : ``(*batch, n)`` at the first sample; when left out that with which the predictions (one step, or the free simulation) are
        nearest to the record (:func:`ssmid.identification.initial_state.estimate_initial_state`)

    What the fit took off its records is taken off this one and put back: means as they were, of trends that of this record, found
    together with the initial state (with a ``state`` of your own by least squares before). The first outputs, which have fewer than
    ``steps`` before them, are predicted from ``state``. Not differentiable.
    Raises ValueError for steps below 1 and records that do not fit the model, TypeError for what is neither fit nor state space.

    >>> system = StateSpace([[0.9]], [[1.0]], [[2.0]])
    >>> record = Record(np.ones(50), free_simulation(system, np.ones((1, 50)), np.array([3.0])))
    >>> bool(np.allclose(predict(system, record, None), record.outputs))
    True
    """
    system, gain, base = _model(model)
    check_fits(system, record)
    if steps is not None and steps != float("inf") and (steps < 1 or steps != int(steps)):
        raise ValueError(f"steps: expected a whole number of at least 1, or None for the free simulation, got {steps!r}")
    around = record if base is None else base.removed(record)
    free = gain is None or steps is None or steps == float("inf")
    watcher, seen = (system, around) if free else _predictor(system, gain, around)
    line = None
    if state is not None:
        state = double(as_array(state, "state", record.outputs))
    elif base is not None and base.center == "trend":
        # the line that least squares left, whose ends the free motion had bent
        state, line = estimate_state_and_line(watcher, seen, 0 if free else record.outputs.shape[-2])
        around = Record(around.inputs, around.outputs - line, around.dt)
    else:
        state = estimate_initial_state(watcher, seen)
    outputs = free_simulation(system, around.inputs, state) if free else _predicted(system, gain, around, int(steps or 1), state)
    outputs = astype_width(outputs if line is None else outputs + line, width(record.outputs))
    return outputs if base is None else base.restored(outputs, record)


def _model(model: Any) -> tuple[StateSpace, Array, Centering | None]:
    """The system, the Kalman gain (None where there is none) and what was taken off the records."""
    if isinstance(model, StateSpace):
        return model, None, None
    system = getattr(model, "system", None)
    if not isinstance(system, StateSpace):
        raise TypeError(f"expected a fit of records or a StateSpace, got {type(model).__name__}")
    gain = getattr(model, "kalman_gain", None)
    return system, gain, getattr(model, "centering", None)


def _predictor(system: StateSpace, gain: Array, record: Record) -> tuple[StateSpace, Record]:
    """The system from inputs and measured outputs to those predicted one step ahead, and a record of it."""
    A, B, C, D, K = (as_kind_of(double(M), record.outputs) for M in (system.A, system.B, system.C, system.D, gain))
    xp = namespace(A)
    B, D, K = (xp.broadcast_to(M, (*np.broadcast_shapes(M.shape[:-2], A.shape[:-2]), *M.shape[-2:])) for M in (B, D, K))
    zero = xp.zeros((*D.shape[:-1], C.shape[-2]), dtype=D.dtype, device=D.device)
    u, y = (xp.broadcast_to(double(x), (*record.batch_shape, *x.shape[-2:])) for x in (record.inputs, record.outputs))
    predictor = StateSpace(A - K @ C, xp.concat([B - K @ D, K], axis=-1), C, xp.concat([D, zero], axis=-1), system.dt)
    return predictor, Record(xp.concat([u, y], axis=-2), y, record.dt)


def _predicted(system: StateSpace, gain: Array, record: Record, steps: int, state: Array) -> Array:
    """``C A^(k-1) x(t-k+1) + (the k first taps) * u``, x the state that the predictor has from the outputs to t-k."""
    predictor, both = _predictor(system, gain, record)
    if steps == 1:
        return free_simulation(predictor, both.inputs, state)
    A, B, C, D = (as_kind_of(double(M), record.outputs) for M in (system.A, system.B, system.C, system.D))
    xp, u, y, n = namespace(A), both.inputs[..., : system.inputs, :], both.outputs, A.shape[-1]
    none = xp.zeros((n, predictor.inputs), dtype=A.dtype, device=A.device)
    watcher = StateSpace(predictor.A, predictor.B, xp.eye(n, dtype=A.dtype, device=A.device), none, system.dt)
    states = free_simulation(watcher, both.inputs, state)
    steps = min(steps, record.length)
    power = xp.linalg.matrix_power(A, steps - 1)
    later = (C @ power) @ states[..., : record.length - steps + 1]
    if u.shape[-2]:
        taps = xp.concat([D[..., None], markov_parameters(A, B, C, steps - 1)], axis=-1) if steps > 1 else D[..., None]
        forced = xp.sum(causal_product(taps, u[..., None, :, :]), axis=-2)
        later = later + forced[..., steps - 1 :]
    if later.ndim < y.ndim:
        later = xp.broadcast_to(later, (*record.batch_shape, *later.shape[-2:]))
    early = free_simulation(system, u[..., : steps - 1], state)
    return xp.concat([xp.broadcast_to(early, (*later.shape[:-1], steps - 1)), later], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ResidualTest:
    """Whether one-step errors are white and have nothing to do with the inputs. Made by :func:`residual_test`.

    residuals : ``(*batch, p, T)``   level : confidence of all bounds, at which a right model passes each test
    autocorrelation : ``(*batch, p, lags+1)`` from lag 0, where it is 1   bound : of the other lags, one at a time
    ljung_box, p_value : ``(*batch, p)`` the statistic over all lags, and how probable one as large is for white residuals
    cross_correlation : ``(*batch, p, m, 2 lags + 1)`` of residuals with inputs that many samples before them (lag -lags to lags)
    cross_bound : ``(*batch, p, m)`` of one lag   cross_p_value : ``(*batch, p, m)`` over the lags 0 to ``lags``
    """

    residuals: Array
    lags: int
    level: float
    autocorrelation: Array
    bound: float
    ljung_box: Array
    p_value: Array
    cross_correlation: Array
    cross_bound: Array
    cross_p_value: Array

    @property
    def white(self) -> Array:
        """``(*batch, p)`` whether the residuals of each output pass for white."""
        return self.p_value > 1 - self.level

    @property
    def independent(self) -> Array:
        """``(*batch, p, m)`` whether they pass for independent of each input's past: no dynamics from there is missing."""
        return self.cross_p_value > 1 - self.level


def residual_test(
    fit: Fit | StateSpace, record: Record, *, lags: int | None = None, level: float = 0.99, state: Any = None
) -> ResidualTest:
    """Whiteness of the one-step errors of ``fit`` on ``record``, and their correlation with the inputs. Not differentiable.

    lags : 25 when left out, fewer where the record is short   level : of confidence   state : as for :func:`predict`

    Whiteness over all lags is tested by Ljung and Box (Biometrika 65, 1978), with as many degrees of freedom as lags; on the record
    that a noise model was fitted to these are its parameters too many. The correlation with the inputs at lags 0 to ``lags`` is
    tested with its covariance for the colours that both have (Ljung 1999, eq. 16.55-16.57): an output-error model, whose
    residuals are not white, can pass. Lags below zero that stand out tell of feedback in the data.
    Raises ValueError for a level outside (0, 1) and fewer than 8 samples; otherwise as :func:`predict`.

    >>> rng = np.random.default_rng(1)
    >>> u = rng.standard_normal((1, 500))
    >>> system = StateSpace([[0.9]], [[1.0]], [[2.0]])
    >>> test = residual_test(system, Record(u, free_simulation(system, u) + rng.standard_normal((1, 500))))
    >>> bool(test.white[0]), bool(test.independent[0, 0])
    (True, True)
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a confidence between 0 and 1, got {level!r}")
    T = record.length if isinstance(record, Record) else 8
    lags = min(25, T // 4) if lags is None else lags
    if T < 8 or not 1 <= lags < T:
        raise ValueError(f"lags: expected 1 to {max(T - 1, 1)} for a record of at least 8 samples, got {lags} and {T} samples")
    residuals = record.outputs - predict(fit, record, 1, state=state)
    xp = namespace(residuals)
    inputs = xp.broadcast_to(record.inputs, (*residuals.shape[:-2], *record.inputs.shape[-2:]))
    names = ("autocorrelation", "ljung_box", "p_value", "cross_correlation", "cross_bound", "cross_p_value")
    values = batched_on_host(quiet(lambda e, u: _statistics(e, u, lags, level)), double(residuals), double(inputs))
    narrow = {name: astype_width(value, width(residuals)) for name, value in zip(names, values, strict=True)}
    bound = float(scipy.special.ndtri((1 + level) / 2)) / T**0.5
    return ResidualTest(residuals=residuals, lags=lags, level=level, bound=bound, **narrow)


def _statistics(e: np.ndarray, u: np.ndarray, lags: int, level: float) -> tuple[np.ndarray, ...]:
    T = e.shape[-1]
    e, u = (_unit(x - x.mean(-1, keepdims=True)) for x in (e, u))
    auto = np.stack([_correlation(x, x) for x in e])[:, T - 1 :]
    rho = auto[:, : lags + 1]
    statistic = T * (T + 2) * np.sum(rho[:, 1:] ** 2 / (T - np.arange(1, lags + 1)), -1)
    p_value = scipy.special.chdtrc(lags, statistic)
    inputs = np.stack([_correlation(x, x) for x in u])[:, T - 1 :] if len(u) else np.zeros((0, T))
    shape = (len(e), len(u))
    cross, bound, probability = np.zeros((*shape, 2 * lags + 1)), np.zeros(shape), np.zeros(shape)
    for i in range(len(e)):
        for j in range(len(u)):
            cross[i, j] = _correlation(e[i], u[j])[T - 1 - lags : T + lags]
            # the covariance of two sample correlations d lags apart, times T: sum_k rho_e(k) rho_u(k + d) (Bartlett), k up to sqrt T
            far = min(T - 1, max(lags, int(T**0.5)))
            window = np.r_[auto[i, far:0:-1], auto[i, : far + 1]]
            own = np.r_[inputs[j, :0:-1], inputs[j]]
            covariance = np.array([window @ own[T - 1 - far + d : T + far + d] if far + d < T else 0.0 for d in range(lags + 1)])
            r = cross[i, j, lags:]
            bound[i, j] = scipy.special.ndtri((1 + level) / 2) * (max(covariance[0], 0) / T) ** 0.5
            probability[i, j] = _chi_square(r * T**0.5, scipy.linalg.toeplitz(covariance))
    return rho, statistic, p_value, cross, bound, probability


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``sum_t a[t] b[t - k]`` for k = -(T-1) .. T-1."""
    return scipy.signal.correlate(a, b, method="fft" if len(a) > 500 else "direct")


def _chi_square(x: np.ndarray, covariance: np.ndarray) -> float:
    """How probable ``x^T covariance^-1 x`` or more is, over the directions that the covariance holds."""
    if not (np.isfinite(x).all() and np.isfinite(covariance).all()):
        return np.nan
    values, vectors = np.linalg.eigh(covariance)
    sound = values > 1e-8 * max(values.max(initial=0), np.finfo(float).tiny)
    if not sound.any():
        return 1.0
    return float(scipy.special.chdtrc(sound.sum(), np.sum((vectors.T @ x)[sound] ** 2 / values[sound])))


def _unit(x: np.ndarray) -> np.ndarray:
    """Rows of length one; rows of zeros stay, rows with NaN are NaN."""
    largest = np.abs(x).max(-1, keepdims=True)
    x = x / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length > 0, length, 1.0)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Validation:
    """What :func:`validate` says. ``simulation``, ``prediction``: fit in percent ``(*batch, p)``; ``residuals``: their test."""

    simulation: Array
    prediction: Array
    residuals: ResidualTest

    def explain(self) -> str:
        """Two lines of words."""
        worst, one = (float(np.min(to_numpy(x))) for x in (self.simulation, self.prediction))
        white, apart = bool(np.all(to_numpy(self.residuals.white))), bool(np.all(to_numpy(self.residuals.independent)))
        left = "white" if white else "not white: a noise model (prediction, higher order) would predict better"
        cross = "unrelated to the inputs" if apart else "related to the inputs: the system is not fully described"
        return f"Fit {worst:.4g} % in free simulation, {one:.4g} % one step ahead.\nResiduals {left}; {cross}."


def validate(fit: Fit | StateSpace, record: Record, *, lags: int | None = None, level: float = 0.99) -> Validation:
    """Fit in free simulation and one step ahead, and the test of the residuals, on a record that the model was not fitted to.

    >>> system = StateSpace([[0.9]], [[1.0]], [[2.0]])
    >>> u = np.random.default_rng(1).standard_normal((1, 500))
    >>> noise = np.random.default_rng(2).standard_normal((1, 500))
    >>> print(validate(system, Record(u, free_simulation(system, u) + noise)).explain())
    Fit 74.44 % in free simulation, 74.44 % one step ahead.
    Residuals white; unrelated to the inputs.
    """
    test = residual_test(fit, record, lags=lags, level=level)
    return Validation(
        simulation=fit_percent(record.outputs, predict(fit, record, None)),
        prediction=fit_percent(record.outputs, record.outputs - test.residuals),
        residuals=test,
    )
