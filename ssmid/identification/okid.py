"""Observer/Kalman filter identification: an impulse response from records of any inputs, for :func:`ssmid.era` to realize.

Juang, Phan, Horta and Longman (J. Guidance 16, 1993): the outputs are regressed on the last inputs and outputs, an observer of finite
memory whose impulse response has ended, and the impulse response of the system follows from the observer's by recursion.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from ssmid._array import astype_width, from_numpy, in_threads, one_blas_thread, quiet, width
from ssmid.analysis.polynomial import Host
from ssmid.identification.record import Record, experiments, host_elements
from ssmid.linalg import triangular_factor
from ssmid.systems import ImpulseResponse
from ssmid.systems.base import computed

_CHUNK = 8192
_ROUNDING = 1e-13
"""Relative error of a regression that counts as none."""


def okid(
    data: Record | list[Record], length: int | None = None, *, order: int | None = None, max_order: int | None = None, center: bool = False
) -> ImpulseResponse:
    """The impulse response of the system behind each record, or list of records of it: ``(*batch, length)``, one input and one output.

    With several of either ``(*batch, p, m, length)``, for ``ssmid.era(response, mimo=True)``. Not differentiable.

    length : taps; 4 order + 1 when left out. Beyond the first order + 1 they follow by the recursion of the observer
    order : lags of inputs and outputs in the observer, at least the number of states over the number of outputs, and many more where
        there is noise; the one of Akaike's criterion up to ``max_order`` when left out (50, or a quarter of what the samples allow)
    center : True estimates a level of the outputs beside the response

    All orders are compared in one triangular factor, lag after lag. The smallest of all solutions is taken where the data leave
    several, as they do without noise. Elements with NaN give NaN; of inputs that do not excite the lags a warning is given.
    Raises ValueError for orders and lengths out of range, TypeError for anything but records.

    >>> rng = np.random.default_rng(0)
    >>> u = rng.standard_normal(200)
    >>> y = 2 * u + np.concatenate([[0.0], u[:-1]])
    >>> okid(Record(u, y), 4).taps.round(9) + 0
    array([2., 1., 0., 0.])
    """
    records = experiments(data)
    m, p = records[0].inputs.shape[-2], records[0].outputs.shape[-2]
    batch, like = records[0].batch_shape, records[0].outputs
    if m == 0:
        raise ValueError("inputs: expected at least one, got a time series")
    settings = _checked(records, length, order, max_order, center)
    hosts = [host_elements(record) for record in records]
    find = one_blas_thread(lambda i: quiet(_observer)([(u[i], y[i]) for u, y in hosts], settings))
    found = in_threads(find, list(range(len(hosts[0][0]))))
    longest = length or max(4 * observer.shape[-1] + 1 for _, observer, _ in found)
    taps = np.stack([quiet(_markov)(driven, observer, longest) for driven, observer, _ in found])
    idle = sum(not excited for _, _, excited in found)
    if idle:
        some = "the inputs do" if len(found) == 1 else f"the inputs of {idle} of {len(found)} records do"
        warnings.warn(f"okid: {some} not excite all lags of the observer: of many responses that fit the smallest is taken", stacklevel=2)
    taps = taps.reshape((*batch, p, m, longest) if (p, m) != (1, 1) else (*batch, longest))
    return computed(ImpulseResponse, taps=astype_width(from_numpy(taps, like), width(like)), dt=records[0].dt)


@dataclasses.dataclass(frozen=True)
class _Settings:
    length: int | None
    order: int | None
    highest: int
    center: bool


def _checked(records: list[Record], length: int | None, order: int | None, highest: int | None, center: bool) -> _Settings:
    m, p = records[0].inputs.shape[-2], records[0].outputs.shape[-2]
    # as many equations as unknowns: sum(T - q) >= m + q (m + p) + 1
    most = (sum(record.length for record in records) - m - 1) // (m + p + len(records))
    most = min(most, min(record.length for record in records) - 1)
    for name, value in (("order", order), ("max_order", highest)):
        if value is not None and not 1 <= value <= most:
            raise ValueError(f"{name}: expected 1 to {most} for records of {[record.length for record in records]} samples, got {value}")
    if most < 1:
        raise ValueError(f"expected more samples of {m} inputs and {p} outputs, got {[record.length for record in records]}")
    if length is not None and length < 1:
        raise ValueError(f"length: expected at least 1, got {length}")
    return _Settings(length, order, order or highest or max(1, min(50, most // 4)), bool(center))


def _observer(records: Sequence[tuple[Host, Host]], settings: _Settings) -> tuple[Host, Host, bool]:
    """``(p, m, q + 1)`` and ``(p, p, q)``: how the observer answers inputs and past outputs; whether the inputs excite all lags."""
    m, p = len(records[0][0]), len(records[0][1])
    if not all(np.isfinite(u).all() and np.isfinite(y).all() for u, y in records):
        lags = settings.order or 1
        return np.full((p, m, lags + 1), np.nan), np.full((p, p, lags), np.nan), True
    units = [_unit([signals[side] for signals in records]) for side in (0, 1)]
    scaled = [(u / units[0], y / units[1]) for u, y in records]
    R = _factor(scaled, settings.highest, settings.center)
    lead, step = m + settings.center, m + p
    rows = sum(u.shape[-1] - settings.highest for u, _ in records)
    q = settings.order or _akaike(R[:, -p:], lead, step, settings.highest, rows)
    width = lead + q * step
    left, right = R[:width, :width], R[:width, -p:]
    U, s, Vh = np.linalg.svd(left)
    kept = s > 10 * width * np.finfo(float).eps * s.max(initial=0)
    x = (Vh[kept].T / s[kept]) @ (U[:, kept].T @ right)
    coefficients = np.moveaxis(x[lead:].reshape(q, step, p), 0, -1)
    observer, driven = coefficients[m:].swapaxes(0, 1), coefficients[:m].swapaxes(0, 1)
    driven = np.concatenate([x[settings.center : lead].T[..., None], driven], -1)
    (input_unit, output_unit), excited = units, _excited(scaled, q, settings.center)
    return driven * (output_unit / input_unit.T)[..., None], observer * (output_unit / output_unit.T)[..., None], excited


def _factor(records: Sequence[tuple[Host, Host]], lags: int, center: bool) -> Host:
    """The triangular factor of ``[1, u_t, (u, y)_(t-1), ..., (u, y)_(t-lags), y_t]``, made chunk by chunk."""
    R = None
    for u, y in records:
        both, length = np.concatenate([u, y]), u.shape[-1]
        for start in range(lags, length, _CHUNK):
            t = np.arange(start, min(start + _CHUNK, length))
            parts = [np.ones((len(t), 1))] if center else []
            parts += [u[:, t].T, *(both[:, t - k].T for k in range(1, lags + 1)), y[:, t].T]
            piece = np.concatenate(parts, -1)
            R = triangular_factor(piece if R is None else np.concatenate([R, piece]))
    assert R is not None
    missing = R.shape[-1] - len(R)
    return R if missing <= 0 else np.concatenate([R, np.zeros((missing, R.shape[-1]))])


def _akaike(right: Host, lead: int, step: int, highest: int, rows: int) -> int:
    """The order of the least ``rows log det V + 2 parameters``: V of each order are the rows of the factor that it leaves."""
    p = right.shape[-1]
    total, best, least = float(np.sum(right**2)), 1, np.inf
    for q in range(1, highest + 1):
        left = right[lead + q * step :]
        values = np.linalg.eigvalsh(left.T @ left) / max(total, np.finfo(float).tiny)
        length = rows * np.sum(np.log(np.maximum(values, _ROUNDING**2))) + 2 * p * (lead + q * step)
        if length < least:
            best, least = q, length
    return best


def _markov(driven: Host, observer: Host, length: int) -> Host:
    """Taps ``h_k = driven_k + sum_i observer_i h_(k-i)``."""
    p, m, known = driven.shape
    taps = np.zeros((p, m, length))
    taps[..., : min(known, length)] = driven[..., :length]
    for k in range(1, length):
        back = min(k, observer.shape[-1])
        past = taps[..., k - back : k][..., ::-1]
        taps[..., k] += np.einsum("abk,bmk->am", observer[..., :back], past)
    return taps


def _excited(records: Sequence[tuple[Host, Host]], lags: int, center: bool) -> bool:
    """Whether the present and ``lags`` last inputs are independent over the records."""
    R = _factor([(u, u[:0]) for u, _ in records], lags, center)
    size = np.linalg.norm(R, axis=0)
    s = np.linalg.svd(R / np.where(size > 0, size, 1), compute_uv=False)
    return bool(s[-1] > 10 * len(s) * np.finfo(float).eps * s[0])


def _unit(signals: list[Host]) -> Host:
    """``(channels, 1)`` root mean square, 1 for what is zero."""
    joined = np.concatenate(signals, -1)
    largest = np.abs(joined).max(-1, keepdims=True)
    largest = np.where(largest > 0, largest, 1.0)
    size = np.sqrt(np.mean((joined / largest) ** 2, -1, keepdims=True))
    return np.where(size > 0, size, 1.0) * largest
