"""How sure the poles and the response of an identified model are: regions from the covariance of its parameters.

To first order (the delta method; Ljung, System Identification, 2nd ed. 1999, sec. 9.4 and 9.6): a region of level .95 holds the true
value in 95 of 100 experiments, where the model can describe the system, its errors are white and the record is long.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg
import scipy.signal
import scipy.special

from ssmid._array import Array, as_array, as_complex, astype_width, double, from_numpy, quiet, to_numpy, width
from ssmid.analysis.polynomial import Host
from ssmid.identification.prediction_error_result import PredictionErrorFit
from ssmid.systems import StateSpace
from ssmid.systems.base import sample_time


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Confidence:
    """Complex estimates and the ellipses around them. Made by :func:`pole_confidence` and :func:`response_confidence`.

    values : ``(*batch, ...)`` complex   covariance : ``(*batch, ..., 2, 2)`` of real and imaginary part   level : of the ellipses
    axes : ``(*batch, ..., 2)`` half lengths of the ellipse, the longer first   angle : ``(*batch, ...)`` of the longer one, in radians
    modulus, argument : ``(*batch, ...)`` half widths of the intervals of that level for ``abs(values)`` and, in radians, their angles

    A value whose imaginary part cannot move (a real pole, zero frequency) has an interval: the ellipse of one dimension.
    """

    values: Array
    covariance: Array
    level: float
    axes: Array
    angle: Array
    modulus: Array
    argument: Array

    def contains(self, points: Any) -> Array:
        """``(*batch, ...)`` whether each of ``points`` (which broadcast with the values) lies in its region."""
        difference = to_numpy(as_complex(double(as_array(points, "points", self.values)))) - to_numpy(as_complex(double(self.values)))
        turned: Host = difference * np.exp(-1j * to_numpy(self.angle))
        axes = to_numpy(self.axes)
        with np.errstate(invalid="ignore"):
            rounding = 1e-12 * np.abs(to_numpy(self.values))[..., None]
            inside = (turned.real / np.maximum(axes[..., 0], rounding[..., 0] + 1e-300)) ** 2
            inside = inside + (turned.imag / np.maximum(axes[..., 1], rounding[..., 0] + 1e-300)) ** 2
        return from_numpy(inside <= 1, self.values)


def pole_confidence(fit: PredictionErrorFit, level: float = 0.95) -> Confidence:
    """Where the poles of the true system are, one region for each pole ``(*batch, n)`` of ``fit.system``. Not differentiable.

    ``d lambda = w^H dA v / w^H v`` with the left and right eigenvectors. Poles that the parameters do not move (the samples of a
    delay at zero, drift) have regions of size zero; of double poles the first order says nothing, and theirs come out without end.
    Raises TypeError for fits without a covariance, ValueError for a level outside (0, 1).

    >>> from ssmid.identification.arx import arx
    >>> from ssmid.identification.record import Record
    >>> rng = np.random.default_rng(1)
    >>> u, e = rng.standard_normal((2, 4000))
    >>> fit = arx(Record(u, scipy.signal.lfilter([0, 1.0], [1, -0.9], u) + scipy.signal.lfilter([1.0], [1, -0.9], e)), 1, 1)
    >>> confidence = pole_confidence(fit)
    >>> bool(confidence.contains(0.9)[0]), float(confidence.modulus[0].round(3))
    (True, 0.009)
    """
    return _confidence(fit, level, lambda A, B, C, D, changes: _poles(A, changes[0]))


def response_confidence(fit: PredictionErrorFit, omega: Any, level: float = 0.95) -> Confidence:
    """Where the true frequency response is: regions at each of ``omega`` ``(k,)``, in rad/s. Not differentiable.

    Axes are those of :func:`ssmid.frequency_response`: ``(*batch, k)`` for one input and one output, else ``(*batch, p, m, k)``.
    Raises as :func:`pole_confidence`.

    >>> from ssmid.identification.arx import arx
    >>> from ssmid.identification.record import Record
    >>> rng = np.random.default_rng(1)
    >>> u, e = rng.standard_normal((2, 4000))
    >>> fit = arx(Record(u, scipy.signal.lfilter([0, 1.0], [1, -0.9], u) + scipy.signal.lfilter([1.0], [1, -0.9], e)), 1, 1)
    >>> confidence = response_confidence(fit, [0.0])
    >>> bool(confidence.contains(10.0).all()), float(confidence.modulus[0].round(1))
    (True, 1.0)
    """
    if not isinstance(fit, PredictionErrorFit):
        raise TypeError(f"expected a fit with the covariance of its parameters (arx, armax, oe, pem), got {type(fit).__name__}")
    frequencies = np.atleast_1d(to_numpy(double(as_array(omega, "omega"))))
    if frequencies.ndim != 1 or not np.isfinite(frequencies).all():
        raise ValueError(f"omega: expected finite frequencies (k,), got shape {frequencies.shape}")
    z = np.exp(1j * frequencies * sample_time(fit.system))
    return _confidence(fit, level, lambda A, B, C, D, changes: _response(A, B, C, D, changes, z))


def _confidence(fit: Any, level: float, estimate: Any) -> Confidence:
    if not isinstance(fit, PredictionErrorFit):
        raise TypeError(f"expected a fit with the covariance of its parameters (arx, armax, oe, pem), got {type(fit).__name__}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a confidence between 0 and 1, got {level!r}")
    system = fit.system
    assert isinstance(system, StateSpace)
    matrices = [to_numpy(double(M)) for M in (system.A, system.B, system.C, system.D)]
    changes = [to_numpy(double(M)) for M in fit.sensitivity[:4]]
    covariance = to_numpy(double(fit.covariance))
    batch = system.batch_shape
    found = []
    for i in np.ndindex(*batch):
        values, derivatives = quiet(estimate)(*(M[i] for M in matrices), [M[i] for M in changes])
        found.append((values, _planar(derivatives, covariance[i])))
    values, covariances = (np.stack(part).reshape((*batch, *part[0].shape)) for part in zip(*found, strict=True))

    def pack(host: Host) -> Array:
        return astype_width(from_numpy(host, system.A), width(system.A))

    parts = _regions(values, covariances, level)
    return Confidence(
        values=as_complex(pack(values)), covariance=pack(covariances), level=level,
        **{name: pack(part) for name, part in parts.items()},
    )


def _planar(derivatives: Host, covariance: Host) -> Host:
    """``(..., 2, 2)`` covariances of real and imaginary parts from derivatives ``(..., k)`` by the parameters."""
    J = np.stack([derivatives.real, derivatives.imag], -2)
    # where all of one part is rounding of the other it is zero
    size = np.abs(J).max(-1, keepdims=True)
    J = np.where(size > 1e-12 * size.max(-2, keepdims=True), J, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # variances are squares of units
        return J @ covariance @ np.swapaxes(J, -1, -2)


def _poles(A: Host, dA: Host) -> tuple[Host, Host]:
    if not np.isfinite(A).all():
        return np.full(len(A), np.nan + 0j), np.full((len(A), len(dA)), np.nan + 0j)
    decomposed: Host = scipy.linalg.eig(A, left=True)
    values, left, right = decomposed
    moved = np.einsum("ji,kjl,li->ik", left.conj(), dA, right, optimize=True)
    return values, moved / np.sum(left.conj() * right, 0)[:, None]


def _response(A: Host, B: Host, C: Host, D: Host, changes: list[Host], z: Host) -> tuple[Host, Host]:
    n, p, m = len(A), len(C), B.shape[-1]
    if not np.isfinite(A).all():
        shape = (len(z),) if p == m == 1 else (p, m, len(z))
        return np.full(shape, np.nan + 0j), np.full((*shape, len(changes[0])), np.nan + 0j)
    pencil = z[:, None, None] * np.eye(n) - A
    right = np.linalg.solve(pencil, np.broadcast_to(B + 0j, (len(z), n, m)))
    left = np.swapaxes(np.linalg.solve(np.swapaxes(pencil, -1, -2), np.broadcast_to(C.T + 0j, (len(z), n, p))), -1, -2)
    dA, dB, dC, dD = (d[:, None] for d in changes)
    moved = left @ (dA @ right + dB) + dC @ right + dD
    values, moved = np.moveaxis(C @ right + D, 0, -1), np.moveaxis(moved, (0, 1), (-1, -2))
    return (values[0, 0], moved[0, 0]) if p == m == 1 else (values, moved)


def _regions(values: Host, covariance: Host, level: float) -> dict[str, Host]:
    safe = np.where(np.isfinite(covariance).all((-2, -1), keepdims=True), covariance, 0.0)
    variances, vectors = np.linalg.eigh(safe)
    variances = np.maximum(variances[..., ::-1], 0.0)
    longer = vectors[..., ::-1][..., 0]
    flat = variances[..., 1] <= 1e-20 * variances[..., 0]
    one, two = float(scipy.special.ndtri((1 + level) / 2)), float((-2 * np.log1p(-level)) ** 0.5)
    unknown = ~np.isfinite(covariance).all((-2, -1))
    axes = np.sqrt(variances) * np.where(flat, one, two)[..., None]
    modulus = np.abs(values)
    unit: Host = np.where(modulus > 0, values / np.where(modulus > 0, modulus, 1), 1)
    along = np.stack([unit.real, unit.imag], -1)
    across = np.stack([-unit.imag, unit.real], -1)
    spread = [np.sqrt(np.maximum(np.einsum("...i,...ij,...j->...", a, safe, a), 0)) * one for a in (along, across)]
    with np.errstate(divide="ignore", invalid="ignore"):
        argument = np.where(spread[1] > 0, spread[1] / modulus, 0.0)
    parts = {"axes": axes, "angle": np.arctan2(longer[..., 1], longer[..., 0]), "modulus": spread[0], "argument": argument}
    return {name: np.where(unknown[..., None] if name == "axes" else unknown, np.nan, part) for name, part in parts.items()}
