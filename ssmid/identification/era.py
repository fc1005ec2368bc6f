"""The eigensystem realization algorithm: a state-space model from a measured impulse response.

Ho and Kalman (Regelungstechnik 14, 1966) with the singular value decomposition of Kung (Asilomar, 1978) and the name of Juang and
Pappa (J. Guidance 8, 1985), over all samples: the Hankel matrix is never formed, so that a minute of audio is no obstacle.
"""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial

import numpy as np

from ssmid._array import Array, from_numpy, namespace, to_numpy
from ssmid.analysis.hankel import hankel_shape
from ssmid.linalg import adjoint, eigvals
from ssmid.reduction.fir import a_priori_bound, truncated
from ssmid.reduction.hankel_projection import Matrices, Projection, Request, kept, realize
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse, StateSpace


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Realization(Reduction):
    """A reduction that may be unstable.

    spectral_radius : ``(*batch,)`` the largest modulus of the poles   stable : ``(*batch,)`` whether it is below 1
    """

    spectral_radius: Array

    @property
    def stable(self) -> Array:
        return self.spectral_radius < 1


def era(
    response: ImpulseResponse,
    order: int | None = None,
    *,
    tol: float | None = None,
    max_order: int | None = None,
    padding: str = "none",
    rows: int | None = None,
    columns: int | None = None,
    stable: bool = False,
    mimo: bool = False,
) -> Realization:
    """A state-space model of each measured impulse response. Not differentiable.

    order, tol, max_order : as for :func:`ssmid.balanced_truncation` of an impulse response; the l2 error is that over the samples.
    padding : "none" realizes a Hankel matrix of measured samples and extrapolates them, which recovers a system of finite order
        exactly and may give an unstable model; "zero" takes the response as ending with its last sample, which is stable always
        and near the best in Hankel norm, the choice for responses that have died out (rooms, filters).
    rows, columns : blocks of the Hankel matrix with padding "none"; all samples in a matrix as square as can be when left out.
    stable : models that come out unstable are made stable by letting the observability matrix end with zeros (Maciejowski, Syst.
        Control Lett. 26, 1995), at the price of their accuracy.
    mimo : the last two batch axes are the outputs and inputs of one system.

    Instability is reported: a warning, and ``fit.stable`` and ``fit.spectral_radius`` for each element. The state matrix solves the
    shift equation of the observability matrix in the least-squares sense (Kung 1978). ``sigma`` are the singular values of the
    Hankel matrix used. ``lower_bound`` is sigma_{order+1}: no system of this order has a Hankel matrix nearer to that one.
    ``bound`` is that of balanced truncation with padding "zero"; none is known for "none", which gives infinity.

    >>> import numpy as np
    >>> t = np.arange(100)
    >>> fit = era(ImpulseResponse(np.concatenate([[2.0], 0.99**t * np.cos(0.2 * t)])), order=2)
    >>> np.abs(np.linalg.eigvals(fit.system.A)).round(9), bool(fit.stable)
    (array([0.99, 0.99]), True)
    """
    if not isinstance(response, ImpulseResponse):
        raise TypeError(f"expected an ImpulseResponse, got {type(response).__name__}: wrap taps in ssmid.ImpulseResponse(taps)")
    request = Request(order, tol, max_order, *_shape(response.length, padding, rows, columns), truncated, a_priori_bound)
    if padding == "none":
        request = dataclasses.replace(request, realize=partial(_extrapolated, stable=stable), certify=_no_bound, extrapolates=True)
    fit = realize(response, request, "ERA", mimo=mimo)
    assert isinstance(fit.system, StateSpace)
    radius = _spectral_radius(fit.system.A)
    unstable = int(np.sum(to_numpy(radius) >= 1))
    if unstable:
        some = "the model is" if radius.ndim == 0 else f"{unstable} of {to_numpy(radius).size} models are"
        worst = f"largest pole modulus {np.nanmax(to_numpy(radius)):.6g}"
        warnings.warn(f"era: {some} unstable ({worst}); stable=True or padding='zero' gives stable ones", stacklevel=2)
    return Realization(**{f.name: getattr(fit, f.name) for f in dataclasses.fields(fit)}, spectral_radius=radius)


def _shape(length: int, padding: str, rows: int | None, columns: int | None) -> tuple[int, int]:
    """Rows and columns of the Hankel matrix; ValueError where they do not fit the samples."""
    default = hankel_shape(length, padding)
    if rows is None and columns is None:
        return default
    if padding == "zero":
        raise ValueError(f"rows, columns: padding 'zero' uses all samples in {default[0]} of each, got rows={rows}, columns={columns}")
    rows = length - columns if rows is None and columns is not None else rows
    columns = length - rows if columns is None and rows is not None else columns
    if rows is None or columns is None or rows < 1 or columns < 1 or rows + columns > length:
        raise ValueError(f"rows, columns: expected positive numbers with a sum of at most {length} samples, got {rows} and {columns}")
    return rows, columns


def _extrapolated(projection: Projection, orders: np.ndarray, stable: bool) -> Matrices:
    """The state matrix by least squares from the shift invariance ``U_up A = U_down`` (all block rows but the last, but the first).

    ``U_up* U_down = U* Z U``, and ``U_up* U_up = I - l* l`` with the last block row l, so that the normal equations are small and
    their condition is that of the problem: it is singular only where a state is seen in the last row alone.
    """
    xp = namespace(projection.A)
    keep = kept(projection, orders)
    A, B, C, D = truncated(projection, orders)
    last = xp.matrix_transpose(projection.vectors[..., -1]) * keep[:, None, :]
    gram = xp.eye(keep.shape[-1], dtype=keep.dtype, device=keep.device) - adjoint(last) @ last
    shifted = xp.linalg.solve(gram, A)
    if stable:
        unstable = _spectral_radius(shifted) >= 1
        shifted = xp.where(unstable[:, None, None], A, shifted)
    return shifted, B, C, D


def _spectral_radius(A: Array) -> Array:
    """``(*batch,)`` the largest modulus of the eigenvalues; 0 for systems without states."""
    xp = namespace(A)
    moduli = xp.abs(eigvals(A)) if A.shape[-1] else xp.zeros((*A.shape[:-2], 1), dtype=xp.float64, device=A.device)
    return xp.max(moduli, axis=-1)


def _no_bound(projection: Projection, orders: np.ndarray) -> Array:
    return from_numpy(np.full(orders.shape, np.inf), projection.sigma)
