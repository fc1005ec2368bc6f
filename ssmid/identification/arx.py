"""ARX models: linear difference equations from records, by linear least squares.

``y[t] + A_1 y[t-1] + ... + A_na y[t-na] = B_d u[t-d] + ... + B_(d+nb-1) u[t-d-nb+1] + e[t]`` (Ljung, System Identification, 2nd ed.
1999, sec. 4.2 and 7.3), with matrices where there are several outputs. The regression begins when its past is in the record, so that
nothing is assumed of what came before.
"""

from __future__ import annotations

import numpy as np

from ssmid.analysis.polynomial import Host
from ssmid.identification.centering import centering
from ssmid.identification.polynomial_models import innovations_form, order_of, sensitivities
from ssmid.identification.prediction_error_result import ERROR_OF_PREDICTION, Estimate, PredictionErrorFit, relative_error, stacked
from ssmid.identification.record import Record, experiments, host_elements
from ssmid.identification.result import told_if_unstable
from ssmid.linalg import triangular_factor
from ssmid.reduction.result import Change

_BYTES = 2**27


def arx(
    record: Record | list[Record],
    na: int | None = None,
    nb: int | None = None,
    delay: int = 1,
    *,
    center: str | None = None,
    stable: bool = False,
    criterion: str = "bic",
    max_order: int = 20,
) -> PredictionErrorFit:
    """The ARX model nearest to a record, or to several, in one-step prediction. Not differentiable.

    record : ``(*batch, m, T)`` in and ``(*batch, p, T)`` out; a list of records is several experiments on one system
    na, nb : lags of the outputs and of the inputs. Both left out: na = nb from 1 to ``max_order`` (as the data allow), one for the
        whole batch, by ``criterion``, "bic" or "aic", from one factorization of the largest regression.
    delay : the first lag of the inputs; 0 gives the model a feedthrough
    center : "mean" or "trend" is taken off the records first (and off those that the model later predicts); None, nothing
    stable : for one output. Poles outside the circle are mirrored at it, the inputs' coefficients fitted again; said in ``changes``.

    Coefficients that the data do not show (a constant input, a noiseless record of lower order) are the smallest that do as well.
    A record with NaN in a batch gives NaN for its element. Unstable models are warned of. The order of the state space is
    p max(na, delay+nb-1); ``fit.polynomials`` holds the coefficients.
    Raises ValueError for records shorter than the regression needs, and negative numbers of lags.

    >>> from scipy.signal import lfilter
    >>> u = np.random.default_rng(0).standard_normal(200)
    >>> y = lfilter([0, 2.0, 1.0], [1, -1.2, 0.5], u)
    >>> fit = arx(Record(u, y), 2, 2)
    >>> fit.polynomials.A.round(9), fit.polynomials.B.round(9)
    (array([[[ 1. , -1.2,  0.5]]]), array([[[0., 2., 1.]]]))
    """
    records = experiments(record)
    base = centering(records, center)
    data = [host_elements(base.removed(r)) for r in records]
    batch = records[0].batch_shape
    p = records[0].outputs.shape[-2]
    if stable and p > 1:
        raise ValueError(f"stable: expected one output to mirror the poles of, got {p}: ssmid.pem(..., stable=True) keeps several stable")
    lags = _chosen(data, delay, criterion, max_order) if na is None and nb is None else (na or 0, nb or 0)
    _checked(*lags, delay)
    estimates = _regressions(data, *lags, delay)
    changes: tuple[Change, ...] = ()
    if stable:
        estimates = [mirrored(e, [(u[i], y[i]) for u, y in data], delay) for i, e in enumerate(estimates)]
        changes = mirrored_changes(estimates, batch)
    fit = PredictionErrorFit(
        **stacked(estimates, records, batch, isinstance(record, list)),
        data=record, method="ARX", centering=base, changes=changes, error_kind=ERROR_OF_PREDICTION,
    )
    return told_if_unstable(fit, "arx", "stable=True gives a stable one" if p == 1 else "ssmid.pem(..., stable=True) gives a stable one")


def _checked(na: int, nb: int, delay: int) -> None:
    for name, value in (("na", na), ("nb", nb), ("delay", delay)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name}: expected an integer of at least 0, got {value!r}")
    if na + nb == 0:
        raise ValueError("na, nb: expected at least one lag, got 0 and 0")


def _regressors(u: Host, y: Host, na: int, nb: int, delay: int, start: int) -> Host:
    """``(N, T - start, na p + nb m)``: one lag of y and one of u after the other, so that models of lower order are leading columns."""
    T = y.shape[-1]
    parts = []
    for j in range(max(na, nb)):
        if j < na:
            parts.append(-y[..., start - 1 - j : T - 1 - j])
        if j < nb:
            parts.append(u[..., start - delay - j : T - delay - j])
    return np.swapaxes(np.concatenate(parts, -2), -1, -2)


def _columns(na: int, nb: int, p: int, m: int) -> tuple[Host, Host]:
    """Where the lags of y ``(na, p)`` and of u ``(nb, m)`` stand among the columns of :func:`_regressors`."""
    position, ys, us = 0, [], []
    for j in range(max(na, nb)):
        if j < na:
            ys.append(np.arange(position, position + p))
            position += p
        if j < nb:
            us.append(np.arange(position, position + m))
            position += m
    return np.array(ys, int).reshape(na, p), np.array(us, int).reshape(nb, m)


def _factor(data: list[tuple[Host, Host]], na: int, nb: int, delay: int) -> tuple[Host, Host, int, int]:
    """The triangular factor ``(N, k+p, k+p)`` of regressors beside outputs, columns scaled to length one; scales; rows; k."""
    p, m = data[0][1].shape[-2], data[0][0].shape[-2]
    start, k = order_of(na, nb + delay if nb else 0, 0), na * p + nb * m
    rows = sum(max(y.shape[-1] - start, 0) for _, y in data)
    if rows < k:
        length = sum(y.shape[-1] for _, y in data)
        raise ValueError(f"expected at least {k + start * len(data)} samples for {k} coefficients of each output, got {length}")
    count = len(data[0][1])
    R, scale = np.empty((count, k + p, k + p)), np.empty((count, k + p))
    step = max(1, _BYTES // (8 * rows * (k + p)))
    for first in range(0, count, step):
        some = slice(first, first + step)
        tables = [_table(u[some], y[some], na, nb, delay, start) for u, y in data if y.shape[-1] > start]
        table = np.concatenate(tables, -2)
        largest = np.abs(table).max(-2, keepdims=True)
        largest[largest == 0] = 1
        table /= largest
        length = np.sqrt(np.sum(table * table, -2, keepdims=True))
        length[length == 0] = 1
        table /= length
        scale[some] = (largest * length)[:, 0]
        if rows < k + p:
            table = np.concatenate([table, np.zeros((len(table), k + p - rows, k + p))], -2)
        R[some] = triangular_factor(table)
    return R, scale, rows, k


def _table(u: Host, y: Host, na: int, nb: int, delay: int, start: int) -> Host:
    return np.concatenate([_regressors(u, y, na, nb, delay, start), np.swapaxes(y[..., start:], -1, -2)], -1)


def _chosen(data: list[tuple[Host, Host]], delay: int, criterion: str, max_order: int) -> tuple[int, int]:
    """na = nb by the criterion, summed over the batch: all orders from the factor of the largest (Ljung 1999, sec. 16.4)."""
    if criterion not in ("aic", "bic"):
        raise ValueError(f'criterion: expected "aic" or "bic", got {criterion!r}')
    p, m = data[0][1].shape[-2], data[0][0].shape[-2]
    length = sum(y.shape[-1] for _, y in data)
    most = max_order
    while most > 1 and length - order_of(most, most + delay, 0) * len(data) < 2 * most * (p + m):
        most -= 1
    _checked(most, most if m else 0, delay)
    R, _, rows, _ = _factor(data, most, most if m else 0, delay)
    R = R[np.isfinite(R).all((-2, -1))]
    penalty = 2.0 if criterion == "aic" else np.log(rows)
    # outputs are columns of length one: what is left of one below rounding is nothing
    floor = (rows * np.finfo(float).eps) ** 2
    left = [np.maximum(np.sum(R[:, n * (p + m) :, -p:] ** 2, -2), floor) for n in range(1, most + 1)]
    score = [rows * np.sum(np.log(r)) + penalty * n * (p + m) * p * len(R) for n, r in enumerate(left, 1)]
    best = 1 + int(np.argmin(score))
    return best, best if m else 0


def _regressions(data: list[tuple[Host, Host]], na: int, nb: int, delay: int) -> list[Estimate]:
    p, m = data[0][1].shape[-2], data[0][0].shape[-2]
    if m == 0:
        nb = 0
    R, scale, rows, k = _factor(data, na, nb, delay)
    bad = ~(np.isfinite(R).all((-2, -1)) & np.isfinite(scale).all(-1))
    R, scale = np.where(bad[:, None, None], 0.0, R), np.where(bad[:, None], 1.0, scale)
    U, s, Vh = np.linalg.svd(R[:, :k, :k])
    sound = s > max(rows, k) * np.finfo(float).eps * s.max(-1, initial=0)[:, None]
    inverse = np.divide(1, s, out=np.zeros_like(s), where=sound)
    root = np.swapaxes(Vh, -1, -2) * inverse[:, None, :]
    theta = root @ (np.swapaxes(U, -1, -2) @ R[:, :k, k:])
    theta = theta / scale[:, :k, None] * scale[:, None, k:]
    left, root = R[:, k:, k:] * scale[:, None, k:], root / scale[:, :k, None]
    with np.errstate(over="ignore", invalid="ignore"):  # variances are squares of units
        noise = np.swapaxes(left, -1, -2) @ left / max(rows - k, 1)
        gram = root @ np.swapaxes(root, -1, -2)
    condition = np.where(sound.all(-1), s.max(-1, initial=0) / np.where(sound, s, 1).min(-1, initial=np.inf), np.inf)
    for array in (theta, noise, gram):
        array[bad] = np.nan
    condition[bad] = np.nan
    columns = _columns(na, nb, p, m)
    size = 8 * k * p * (p * order_of(na, nb + delay if nb else 0, 0)) ** 2
    step = max(1, _BYTES // max(size, 1))
    found = []
    for first in range(0, len(R), step):
        some = slice(first, first + step)
        found += _estimates(theta[some], noise[some], gram[some], condition[some], [(u[some], y[some]) for u, y in data], columns, delay)
    return found


def _estimates(
    theta: Host, noise: Host, gram: Host, condition: Host, data: list[tuple[Host, Host]], columns: tuple[Host, Host], delay: int
) -> list[Estimate]:
    """Models with coefficients ``theta`` (N, columns, p); parameters are those of the first output, then of the second, ..."""
    count, k, p = theta.shape
    polynomials = _polynomials(theta, columns, delay)
    basis = np.eye(k * p).reshape(k * p, p, k).swapaxes(-1, -2)
    directions = _polynomials(basis, columns, delay)
    directions = (directions[0] - _polynomials(0 * basis, columns, delay)[0], directions[1], *(0 * d for d in directions[2:]))
    matrices = innovations_form(*polynomials)
    changes = sensitivities(polynomials, directions)
    A, B = polynomials[:2]
    residuals = [multiplied(A, y) - multiplied(B, u) for u, y in data]
    n = matrices[0].shape[-1] // p if p else 0
    states = np.stack([_padded(e[..., :n], n).swapaxes(-1, -2).reshape(count, -1) for e in residuals], 1)
    errors = [np.concatenate([np.zeros_like(e[..., :n]), e[..., n:]], -1) for e in residuals]
    with np.errstate(over="ignore", invalid="ignore"):  # variances are squares of units
        covariance = (noise[:, :, None, :, None] * gram[:, None, :, None, :]).reshape(count, k * p, k * p)
    parameters = theta.swapaxes(-1, -2).reshape(count, -1)
    sound = np.isfinite(theta).all((-2, -1))
    return [
        Estimate(
            tuple(M[i] for M in matrices), states[i], noise[i], parameters[i], covariance[i], tuple(d[i] for d in changes),
            relative_error([y[i] for _, y in data], [e[i] for e in errors]), condition[i], bool(sound[i]), 0,
            tuple(P[i] for P in polynomials),
        )
        for i in range(count)
    ]


def _padded(start: Host, n: int) -> Host:
    return np.concatenate([start, np.zeros((*start.shape[:-1], n - start.shape[-1]))], -1)


def _polynomials(theta: Host, columns: tuple[Host, Host], delay: int) -> tuple[Host, ...]:
    """A, B, C, D, F of coefficients ``(N, columns, p)``."""
    count, p = len(theta), theta.shape[-1]
    ys, us = columns
    A = np.zeros((count, p, p, len(ys) + 1))
    A[..., 0] = np.eye(p)
    A[..., 1:] = np.transpose(theta[:, ys, :], (0, 3, 2, 1))
    B = np.zeros((count, p, us.shape[1], delay + len(us) if len(us) else 1))
    if len(us):
        B[..., delay:] = np.transpose(theta[:, us, :], (0, 3, 2, 1))
    one = np.ones((count, p, 1))
    return A, B, one, one, one


def multiplied(P: Host, signal: Host) -> Host:
    """``sum_k P[:, :, k] signal[:, t-k]`` from rest: polynomials ``(*batch, p, m, k)`` of the delay on signals ``(*batch, m, T)``."""
    out = np.zeros((*signal.shape[:-2], P.shape[-3], signal.shape[-1]))
    for k in range(min(P.shape[-1], signal.shape[-1])):
        out[..., k:] += P[..., k] @ signal[..., : signal.shape[-1] - k]
    return out


def mirrored(estimate: Estimate, data: list, delay: int) -> Estimate:
    """``estimate`` of one output with its poles inside the circle, B fitted again to the regression with A given."""
    assert estimate.polynomials is not None
    A, B = estimate.polynomials[:2]
    if not np.isfinite(A).all():
        return estimate
    roots = np.roots(A[0, 0])
    outside = np.abs(roots) >= 1
    if not outside.any():
        return estimate
    inside = roots.copy()
    inside[outside] = 1 / roots[outside].conj()
    inside[np.abs(inside) >= 1] *= 1 - 1e-9
    a = np.poly(inside).real[None, None]
    na, nb = A.shape[-1] - 1, max(B.shape[-1] - delay, 0) * (B.shape[1] > 0)
    filtered = [(u[None], multiplied(a, y)[None]) for u, y in data]
    start = order_of(na, B.shape[-1], 0)
    theta = np.concatenate([a[0, 0, 1:], np.zeros(nb * B.shape[1])])[:, None]
    columns = _columns(na, nb, 1, B.shape[1])
    ordered = np.empty_like(theta)
    ordered[columns[0].ravel()] = theta[:na]
    if nb:
        ordered[columns[1].ravel()] = _inputs_only(filtered, nb, delay, start)
    gram = np.full((len(theta), len(theta)), np.nan)
    alone = [(u[None], y[None]) for u, y in data]
    again = _estimates(ordered[None], estimate.noise[None], gram[None], np.array([estimate.condition]), alone, columns, delay)[0]
    return Estimate(**{**again.__dict__, "reflected": tuple(complex(r) for r in roots[outside])})


def _inputs_only(filtered: list, nb: int, delay: int, start: int) -> Host:
    tables = [_table(u, y, 0, nb, delay, start)[0] for u, y in filtered if y.shape[-1] > start]
    table = np.concatenate(tables)
    return np.linalg.lstsq(table[:, :-1], table[:, -1:], rcond=None)[0]


def mirrored_changes(estimates: list[Estimate], batch: tuple[int, ...]) -> tuple[Change, ...]:
    """What was mirrored in each element."""
    places = list(np.ndindex(*batch))
    return tuple(Change("reflected", e.reflected, "outside the unit circle", places[i]) for i, e in enumerate(estimates) if e.reflected)
