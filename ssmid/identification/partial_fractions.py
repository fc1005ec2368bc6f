"""Residues and feedthrough of given poles by linear least squares, and the systems that they make."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, as_complex, namespace, quiet
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.polynomial import Host
from ssmid.identification.result import Fit
from ssmid.identification.samples import Samples
from ssmid.linalg import scaled_least_squares
from ssmid.systems import Modal, StateSpace


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RationalFit(Fit):
    """A fit that was found as poles and residues.

    modal : the same system in poles and residues; poles that channels share stand once, ``(*batch, 1, 1, d)``. Where poles repeat or
        cluster, partial fractions cancel and are an approximation only: of poles apart, to the digits that are left, half or fewer of
        them. ``system`` then has states in an orthonormal basis (orthonormal_fit.py), and ``error`` is that of ``system``.
    """

    modal: Modal


def fit_residues(
    samples: Samples, poles: Array, *, weights: Array | None = None, feedthrough: bool = True, real: bool = True, shared: int = 0
) -> tuple[Modal, Array]:
    """The partial fractions over ``poles`` nearest to the samples, and the condition ``(*batch,)`` of the problem.

    poles : ``(*batch, d)`` complex; closed under conjugation where ``real``. With ``shared`` the last ``shared`` batch axes of the
        samples have the same poles, and ``poles`` lacks these axes.
    weights : ``(*batch, k)`` or ``(k,)`` positive, of the errors (not of their squares)
    real : residues closed under conjugation, so that the samples at the conjugate points are fitted too

    Columns are scaled to length one; then QR. Poles on a point give NaN for that element. Differentiable.
    """
    xp = namespace(samples.values)
    poles = as_complex(poles)
    values = samples.values
    batch = values.shape[: values.ndim - 1 - shared]
    channels = values.shape[values.ndim - 1 - shared : -1]
    count, d = samples.count, poles.shape[-1]
    points = samples.points[(..., *(0,) * min(shared, samples.points.ndim - 1), slice(None))]
    columns = basis(points, poles, real=real)
    if feedthrough:
        ones = xp.ones((*columns.shape[:-1], 1), dtype=columns.dtype, device=columns.device)
        columns = xp.concat([columns, ones], axis=-1)
    right = xp.matrix_transpose(xp.reshape(values, (*batch, int(np.prod(channels)), count)))
    if weights is not None:
        w = as_complex(weights)[..., None]
        columns, right = columns * w, right * w
    columns = xp.broadcast_to(columns, (*batch, *columns.shape[-2:]))
    if real:
        columns, right = (xp.concat([xp.real(M), xp.imag(M)], axis=-2) for M in (columns, right))
    x, condition = scaled_least_squares(columns, right)
    x = xp.matrix_transpose(x)
    x = xp.reshape(x, (*batch, *channels, x.shape[-1]))
    residues = _residues(x[..., :d], poles, shared) if real else x[..., :d]
    D = x[..., -1] if feedthrough else xp.zeros_like(x[..., 0])
    poles = xp.reshape(poles, (*poles.shape[:-1], *(1,) * shared, d))
    return Modal(poles, residues, D, samples.dt, real), condition


@quiet
def basis(points: Array, poles: Array, *, real: bool) -> Array:
    """``(*batch, k, d)`` partial fractions at ``points`` ``(*batch, k)``.

    ``real``: those of a pair ``p, p*`` (anywhere in the row) are ``1/(x-p) + 1/(x-p*)`` for the upper and ``i/(x-p) - i/(x-p*)``
    for the lower member, whose coefficients are the real and imaginary part of the residue of the upper one (Gustavsen &
    Semlyen, IEEE Trans. Power Delivery 14, 1999).
    """
    xp = namespace(points)
    x, p = points[..., :, None], poles[..., None, :]
    first = 1 / (x - p)
    if not real:
        return first
    second, imag = 1 / (x - xp.conj(p)), xp.imag(p) + 0 * xp.real(x)
    return xp.where(imag > 0, first + second, xp.where(imag < 0, 1j * (second - first), first))


def _residues(x: Array, poles: Array, shared: int) -> Array:
    """Complex residues from the real coefficients of :func:`basis`; each lower pole finds its upper partner by its value."""
    xp = namespace(x)
    upper = xp.reshape(poles, (*poles.shape[:-1], *(1,) * shared, poles.shape[-1]))
    same = xp.conj(upper[..., :, None]) == upper[..., None, :]
    pairs = xp.astype(same & (xp.imag(upper)[..., :, None] != 0), x.dtype)
    partner = (pairs @ x[..., None])[..., 0]
    sign = xp.imag(upper)
    real = xp.where(sign < 0, partner, x)
    imag = xp.where(sign > 0, partner, xp.where(sign < 0, -x, xp.zeros_like(x)))
    return as_complex(real) + 1j * as_complex(imag)


def as_state_space(modal: Modal, *, mimo: bool) -> StateSpace:
    """The real state space of partial fractions; with ``mimo`` of as many states as the residue matrices have rank."""
    return modal_state_space(modal, mimo=mimo)


def reflected(poles: Array, dt: float | bool) -> Array:
    """``poles`` with the unstable ones mirrored at the boundary of stability, which keeps the modulus of ``1/(x - pole)`` on it."""
    xp = namespace(poles)
    if dt is True or dt != 0:
        outside = xp.abs(poles) > 1
        return xp.where(outside, 1 / xp.conj(xp.where(outside, poles, xp.ones_like(poles))), poles)
    return xp.where(xp.real(poles) > 0, -xp.conj(poles), poles)


def closed(poles: Host) -> Host:
    """``(n,)`` poles of a real polynomial, rounding apart, with exact conjugates as neighbours, the upper one first."""
    near = 1e-12 * np.abs(poles)
    upper = poles[poles.imag > near]
    return np.concatenate([np.stack([upper, upper.conj()], -1).ravel(), poles[np.abs(poles.imag) <= near].real + 0j])
