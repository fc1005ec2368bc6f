"""Sums of exponentials from taps: ESPRIT, the matrix pencil, and Prony's method.

All three find the poles without a start from the low rank of the Hankel matrix of the taps (:mod:`.signal_subspace`); residues
follow by linear least squares over all taps (:mod:`.exponential_fit`). Tap 0 is the feedthrough and is kept as it is.
"""

from __future__ import annotations

from functools import partial

from ssmid._array import Array, as_complex, is_complex, namespace
from ssmid.identification.arguments import checked_count
from ssmid.identification.exponential_fit import ExponentialFit, Method, Poles, exponential_table, fit_exponentials, most_by_shift
from ssmid.identification.signal_subspace import prediction_poles, shift_matrix, signal_subspace
from ssmid.identification.tangential import fit_directions
from ssmid.linalg import eig, eigvals, svd, transpose
from ssmid.systems import ImpulseResponse

_LONGEST_PREDICTION = 255


def esprit(
    response: ImpulseResponse,
    order: int | None = None,
    *,
    max_order: int | None = None,
    rows: int | None = None,
    total: bool = True,
    stable: bool = False,
    mimo: bool = False,
) -> ExponentialFit:
    """Poles by the shift invariance of the signal subspace, in total least squares (Roy & Kailath, IEEE Trans. ASSP 37, 1989).

    order : real states (exponentials, of complex taps). None: as many as Hankel singular values stand above the noise
        (:func:`order_above_noise`), at most ``max_order`` (64). Where a response carries less to rounding the order is that.
    rows : of the Hankel matrix, of which each column is one window of the taps; None: half of the taps, where poles are most certain
    total : total least squares; False: least squares
    stable : unstable poles are reflected at the unit circle and the residues fitted again; ``changes`` say which
    mimo : the last two batch axes are the outputs and inputs of one system; of each pole one residue matrix of rank one

    Tap 0 is the feedthrough. ``sigma`` are Hankel singular values, up to the order or those that it was chosen by. ``error`` is
    the relative l2 error over the taps, tap 0 included. Complex taps give a complex system. Not differentiable. Elements of a batch
    that are not finite give NaN. Raises ValueError for an order, rows or batch axes that do not fit. Warns of unstable systems.

    >>> import numpy as np
    >>> t = np.arange(100)
    >>> fit = esprit(ImpulseResponse(np.concatenate([[2.0], 0.99**t * np.cos(0.2 * t)])))
    >>> fit.order, np.abs(fit.modal.poles).round(9), bool(fit.error < 1e-12)
    (2, array([0.99, 0.99]), True)
    """
    rows = None if rows is None else checked_count("rows", rows)
    method = Method("ESPRIT", "esprit", partial(_by_shift, total=total), rows, most_by_shift)
    return fit_exponentials(response, order, max_order, method, stable, mimo)


def matrix_pencil(
    response: ImpulseResponse,
    order: int | None = None,
    *,
    max_order: int | None = None,
    pencil: int | None = None,
    stable: bool = False,
    mimo: bool = False,
) -> ExponentialFit:
    """Poles as the eigenvalues of the pencil of the right singular vectors without their last and without their first entries.

    Hua & Sarkar, IEEE Trans. ASSP 38, 1990; with the singular value decomposition of the whole matrix, Sarkar & Pereira, IEEE
    Antennas Propag. Mag. 37, 1995. ``pencil`` is their pencil parameter, the number of columns less one; a third to two thirds of
    the taps is good, None is the half. All else as for :func:`esprit`, which it equals but for least squares in the place of total
    least squares and input directions in the place of output directions.

    >>> import numpy as np
    >>> fit = matrix_pencil(ImpulseResponse(np.concatenate([[0.0], 0.5 ** np.arange(20), ])), 1)
    >>> fit.modal.poles.real.round(12)
    array([0.5])
    """
    rows = None if pencil is None else checked_count("pencil", pencil) + 1
    method = Method("matrix pencil", "matrix_pencil", partial(_by_shift, total=False), rows, most_by_shift, from_inputs=True)
    return fit_exponentials(response, order, max_order, method, stable, mimo)


def prony(
    response: ImpulseResponse,
    order: int | None = None,
    *,
    max_order: int | None = None,
    degree: int | None = None,
    stable: bool = False,
    mimo: bool = False,
) -> ExponentialFit:
    """Poles as roots of a prediction polynomial, in total least squares (Kumaresan & Tufts, IEEE Trans. ASSP 30, 1982).

    degree : of the polynomial. ``degree=order`` is Prony's method of 1795 over all taps, exact for exact data and poor in noise. None
        takes a third of the taps, at most 255: its roots beyond the order take up the noise, and those that lie nearest to the
        signal subspace are kept.

    All else as for :func:`esprit`. With ``mimo`` all channels share one polynomial. Clustered poles lose more digits than by ESPRIT:
    a polynomial stands between the data and the poles.

    >>> import numpy as np
    >>> t = np.arange(60)
    >>> fit = prony(ImpulseResponse(np.concatenate([[0.0], 0.9**t - 0.5**t])), 2, degree=2)
    >>> np.sort(fit.modal.poles.real).round(9)
    array([0.5, 0.9])
    """
    rows = None if degree is None else checked_count("degree", degree) + 1
    if degree is not None and isinstance(order, int) and degree < order:
        raise ValueError(f"degree: expected at least the order {order}, got {degree}")
    method = Method("Prony", "prony", partial(_by_prediction, degree=degree), rows, _most_by_prediction)
    return fit_exponentials(response, order, max_order, method, stable, mimo)


# ---------------------------------------------------------------- poles, of elements with one order


def _by_shift(taps: Array, rows: int, order: int, total: bool) -> Poles:
    xp = namespace(taps)
    space = signal_subspace(taps, rows, order)
    A = shift_matrix(space.vectors, total=total)
    if taps.shape[1] == 1:
        poles = eigvals(A)
        return Poles(poles, xp.ones_like(poles)[:, None, :], space, rows)
    poles, V = eig(A)
    left = as_complex(transpose(space.vectors[..., 0])) @ V
    return Poles(poles, left, space, rows)


def _by_prediction(taps: Array, rows: int, order: int, degree: int | None) -> Poles:
    xp = namespace(taps)
    batch, p, m, length = taps.shape
    if degree is None:
        longest = length - -(-order // (p * m))
        degree = min(max(order, min(length // 3, _LONGEST_PREDICTION)), longest)
    poles, space = prediction_poles(taps, order, degree)
    left = xp.ones((batch, p, order), dtype=poles.dtype, device=poles.device)
    if p > 1:
        stacked = xp.reshape(taps, (batch, 1, p * m, length))
        table, _ = exponential_table(poles, length)
        found = fit_directions(table, poles, stacked, left[:, :1, :], real=not is_complex(taps), feedthrough=False)
        left = transpose(svd(xp.reshape(found.right, (batch, order, p, m)))[0][..., 0])
    return Poles(poles, left, space, degree + 1)


def _most_by_prediction(p: int, m: int, length: int, rows: int) -> int:
    return min(rows - 1, p * m * (length - rows + 1))
