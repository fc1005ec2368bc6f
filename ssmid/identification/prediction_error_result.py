"""What every prediction-error method returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssmid._array import Array, astype_width, from_numpy, to_numpy, width
from ssmid.analysis.conversion import to_transfer_function
from ssmid.analysis.polynomial import Host
from ssmid.identification.centering import Centering
from ssmid.identification.record import Record
from ssmid.identification.result import Fit
from ssmid.systems import StateSpace, TransferFunction

ERROR_OF_SIMULATION = "error of the free simulation over the outputs about their mean"
ERROR_OF_PREDICTION = "error of the one-step prediction over the outputs about their mean"


@dataclasses.dataclass(frozen=True, eq=False)
class Polynomials:
    """``A(q) y = B(q)/F(q) u + C(q)/D(q) e`` in powers of the delay 1/q, as :func:`scipy.signal.lfilter` takes them.

    A : ``(*batch, p, p, na+1)``   B : ``(*batch, p, m, delay+nb)``   C, D, F : ``(*batch, p, k+1)``; each output has its own
    """

    A: Array
    B: Array
    C: Array
    D: Array
    F: Array


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PredictionErrorFit(Fit):
    """A model in innovations form, ``x' = A x + B u + K e``, ``y = C x + D u + e``, with what the estimate of it is worth.

    kalman_gain : ``(*batch, n, p)`` K; zero where the noise is taken as white beside the output (output error)
    initial_state : ``(*batch, n)``, or ``(*batch, experiments, n)`` of a list of records
    noise_covariance : ``(*batch, p, p)`` of e
    parameters : ``(*batch, k)``   covariance : ``(*batch, k, k)`` of their estimates, for white e (Ljung 1999, eq. 9.11)
    sensitivity : how the matrices A ``(*batch, k, n, n)``, B, C and D, K depend on each parameter, to first order
    polynomials : of the polynomial models; None for others   centering : what was taken off the records   iterations : ``(*batch,)``
    """

    kalman_gain: Array
    initial_state: Array
    noise_covariance: Array
    parameters: Array
    covariance: Array
    sensitivity: tuple[Array, Array, Array, Array, Array]
    centering: Centering
    iterations: Array
    polynomials: Polynomials | None = None

    @property
    def transfer_function(self) -> TransferFunction:
        """``(*batch, p, m)`` from inputs to outputs; the polynomials themselves where each output has its own denominator."""
        found, system = self.polynomials, self.system
        assert isinstance(system, StateSpace)
        if found is None or system.outputs > 1:
            return to_transfer_function(system)
        num = to_numpy(found.B)
        a, f = to_numpy(found.A)[..., 0, 0, :], to_numpy(found.F)[..., 0, :]
        den = product_of_polynomials(a, f)
        length = max(num.shape[-1], den.shape[-1])
        pad = [(0, 0)] * (num.ndim - 1)
        num = np.pad(num, [*pad, (0, length - num.shape[-1])])
        den = np.broadcast_to(den[..., None, None, :], (*num.shape[:-1], den.shape[-1]))
        den = np.pad(den, [*pad, (0, length - den.shape[-1])])
        return TransferFunction(from_numpy(num, found.B), from_numpy(den, found.B), system.dt)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The model of one element, NumPy arrays of float64. ``sensitivity``: dA, dB, dC, dD, dK, parameters first."""

    matrices: tuple[Host, ...]
    states: Host
    noise: Host
    parameters: Host
    covariance: Host
    sensitivity: tuple[Host, ...]
    error: float
    condition: float
    converged: bool
    iterations: int
    polynomials: tuple[Host, ...] | None = None
    reflected: tuple[complex, ...] = ()


def product_of_polynomials(a: Host, b: Host) -> Host:
    """``(*batch, j+k-1)`` products of rows of coefficients."""
    out = np.zeros((*np.broadcast_shapes(a.shape[:-1], b.shape[:-1]), a.shape[-1] + b.shape[-1] - 1))
    for k in range(b.shape[-1]):
        out[..., k : k + a.shape[-1]] += a * b[..., k : k + 1]
    return out


def relative_error(outputs: Sequence[Host], errors: Sequence[Host]) -> float:
    """Root of the sum of squares of ``errors`` over that of the outputs about the mean of each record; arrays ``(p, T)``.

    Of outputs that do not vary, but for rounding: 0 where they are met to rounding too, infinity where not.
    """
    y = np.concatenate([o - o.mean(-1, keepdims=True) for o in outputs], -1)
    e = np.concatenate(list(errors), -1)
    whole = max(np.abs(o).max(initial=0) for o in outputs)
    scale = max(whole, np.abs(e).max(initial=0))
    # Python's max does not pass NaN on
    if not (np.isfinite(y).all() and np.isfinite(e).all()):
        return np.nan
    if scale == 0:
        return 0.0
    size, wrong = np.linalg.norm(y / scale), np.linalg.norm(e / scale)
    rounding = 1e-14 * y.size**0.5 * (whole / scale)
    if size > rounding:
        return float(wrong / size)
    return 0.0 if wrong <= 10 * rounding else np.inf


def stacked(estimates: list[Estimate], records: list[Record], batch: tuple[int, ...], listed: bool) -> dict:
    """The fields of a fit that the estimates of its elements give, as the kind, device and width of the records."""
    like = records[0].outputs

    def pack(values: Sequence) -> Array:
        host = np.stack([np.asarray(v) for v in values])
        host = host.reshape((*batch, *host.shape[1:]))
        moved = from_numpy(host, like)
        return astype_width(moved, width(like)) if host.dtype.kind == "f" else moved

    known = [e.matrices if not np.isnan(e.error) else tuple(np.full_like(M, np.nan) for M in e.matrices) for e in estimates]
    if width(like) == 32:
        known = [(_stable_in_single(M[0]), *M[1:]) for M in known]
    A, B, C, D, K = (pack(part) for part in zip(*known, strict=True))
    states = pack([e.states if listed else e.states[0] for e in estimates])
    found = estimates[0].polynomials
    return {
        "system": StateSpace(A, B, C, D, records[0].dt),
        "order": A.shape[-1],
        "kalman_gain": K,
        "initial_state": states,
        "noise_covariance": pack([e.noise for e in estimates]),
        "parameters": pack([e.parameters for e in estimates]),
        "covariance": pack([e.covariance for e in estimates]),
        "sensitivity": tuple(pack(part) for part in zip(*(e.sensitivity for e in estimates), strict=True)),
        "error": pack([e.error for e in estimates]),
        "condition": pack([e.condition for e in estimates]),
        "converged": pack([e.converged for e in estimates]),
        "iterations": pack([e.iterations for e in estimates]),
        "polynomials": None if found is None else Polynomials(*map(pack, zip(*(e.polynomials or () for e in estimates), strict=True))),
    }


def _stable_in_single(A: Host) -> Host:
    """``A``, drawn towards zero as far as a stable one needs to be stable in single precision."""
    if not len(A) or not np.isfinite(A).all() or np.abs(np.linalg.eigvals(A)).max() >= 1:
        return A
    part, drawn = 1e-7, A
    while np.abs(np.linalg.eigvals(drawn.astype(np.float32))).max() >= 1 and part < 0.1:
        drawn, part = A * (1 - part), 2 * part
    return drawn
