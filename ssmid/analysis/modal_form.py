"""Into modal form: poles and residues of every representation.

A residue of a state space is ``(C v_i)(w_i B)`` with right and left eigenvectors ``w_i v_i = 1`` (Kailath, Linear Systems, 1980,
sec. 1.2.5). Where poles repeat there is no diagonal form; near that, eigenvectors are nearly dependent and residues cancel. The
condition says how nearly, the response is measured against the original, and a warning says what was lost.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from ssmid._array import Array, as_complex, astype_width, double, from_numpy, is_complex, namespace, on_host, quiet, to_numpy, width
from ssmid.analysis.barycentric_form import barycentric_modal
from ssmid.analysis.evaluation import horner
from ssmid.analysis.loss import warn_of_loss
from ssmid.analysis.polynomial import Host, paired, polynomial_roots, residues_of_product, root_condition
from ssmid.analysis.sections import factors_of_sections
from ssmid.analysis.state_units import uneven_scales
from ssmid.linalg import eig, inverse, transpose
from ssmid.systems import (
    Barycentric,
    FrequencyResponse,
    ImpulseResponse,
    Modal,
    SecondOrderSections,
    StateSpace,
    System,
    TransferFunction,
    ZerosPolesGain,
)
from ssmid.systems.base import not_a_system

_DEFECTIVE = 1e10
_HARMLESS = 1e6


def to_modal(system: System) -> Modal:
    """Poles and residues of ``system``, conjugate pairs exact. A MIMO state space gives residues ``(*batch, p, m, n)``.

    Factored forms go by the product formula, never through polynomials. Emits :class:`ConversionWarning` where poles are so
    clustered that the response of the result is off by more than 1e-6 of its peak, or repeated: a repeated pole has no diagonal
    form, and the nearest one with poles apart is returned (response to about 1e-8). :func:`ssmid.modal_realization` keeps such
    poles together in one block. Not differentiable.

    Raises ValueError for impulse responses of more than two taps and frequency responses: those are fitted, not converted.

    >>> from ssmid import tf
    >>> to_modal(tf([1, 0], [1, -0.75, 0.125])).residues.real        # z / ((z - 1/2)(z - 1/4))
    array([ 2., -1.])
    """
    return modal_and_condition(system)[0]


def modal_and_condition(system: System) -> tuple[Modal, Array]:
    """:func:`to_modal` and the condition ``(*batch,)`` of its poles.

    Of a state space the largest eigenvalue condition number ``|w_i| |v_i|``, of a transfer function that of the roots, of
    factored forms how much larger the modes are than their sum.
    """
    modal, condition, apart = _modal(system)
    if modal is system:
        return modal, condition
    known = to_numpy(condition)
    worst = float(np.max(np.where(np.isnan(known), 1.0, known), initial=1.0))
    if worst > _HARMLESS or apart.any():
        advice = f"repeated or clustered poles (condition {worst:.1e}{', taken apart' if apart.any() else ''})"
        advice = f"{advice}; ssmid.modal_realization keeps such poles in one block"
        warn_of_loss("to_modal", system, modal, modal.poles, advice, apart, stacklevel=4)
    return modal, condition


# ---------------------------------------------------------------- into modal form


@singledispatch
def _modal(system: System) -> tuple[Modal, Array, Host]:
    """The modal form, its condition, and where repeated poles were taken apart."""
    raise not_a_system(system)


@_modal.register
def _(system: Modal) -> tuple[Modal, Array, Host]:
    return system, _ones(system), np.zeros(system.batch_shape, bool)


@_modal.register
def _(system: Barycentric) -> tuple[Modal, Array, Host]:
    modal = barycentric_modal(system)
    return modal, _ones(modal), np.zeros(modal.batch_shape, bool)


@_modal.register
def _(system: StateSpace) -> tuple[Modal, Array, Host]:
    A, B, C, D = (double(M) for M in (system.A, system.B, system.C, system.D))
    real = not any(is_complex(M) for M in (A, B, C, D))
    units = uneven_scales(A, B, C, least=float(system.is_discrete))[..., None]
    A, B, C = A * transpose(units) / units, B / units, C * transpose(units)
    poles, V, W, condition, apart = _eigensystem(A)
    left, right = as_complex(C) @ V, W @ as_complex(B)
    if system.outputs == system.inputs == 1:
        residues, feedthrough = left[..., 0, :] * right[..., :, 0], D[..., 0, 0]
    else:
        residues, feedthrough = left[..., :, None, :] * transpose(right)[..., None, :, :], D
        poles = poles[..., None, None, :]
    residues = _conjugate_neighbours(poles, residues) if real else residues
    return _as_wide(system, poles, residues, feedthrough, real), condition, np.broadcast_to(apart, system.batch_shape)


@_modal.register
def _(system: TransferFunction) -> tuple[Modal, Array, Host]:
    real = not (is_complex(system.num) or is_complex(system.den))
    num, den = double(system.num), double(system.den)
    poles = polynomial_roots(den)
    feedthrough, residues, condition = on_host(_residues_of_ratio, num, den, poles)
    residues = _conjugate_neighbours(poles, residues) if real else residues
    modal = _as_wide(system, poles, residues, feedthrough, real)
    return modal, condition, np.zeros(system.batch_shape, bool)


@_modal.register
def _(system: ZerosPolesGain) -> tuple[Modal, Array, Host]:
    zeros, poles, gain = double(system.zeros), double(system.poles), double(system.gain)
    ordered, closed = paired(to_numpy(poles))
    real = closed and paired(to_numpy(zeros))[1] and not is_complex(gain)
    spread, apart = taken_apart(ordered, system.is_discrete)
    with np.errstate(all="ignore"):
        found = residues_of_product(to_numpy(zeros), spread, to_numpy(gain))
    poles, residues = from_numpy(spread, poles), from_numpy(found, poles)
    residues = _conjugate_neighbours(poles, residues) if real else residues
    feedthrough = gain if zeros.shape[-1] == poles.shape[-1] else namespace(gain).zeros_like(gain)
    modal = _as_wide(system, poles, residues, feedthrough, real)
    return modal, _cancellation(modal), np.broadcast_to(apart, system.batch_shape)


@_modal.register
def _(system: SecondOrderSections) -> tuple[Modal, Array, Host]:
    return _modal(ZerosPolesGain(*factors_of_sections(system.sections), system.dt))


@_modal.register
def _(system: ImpulseResponse) -> tuple[Modal, Array, Host]:
    if system.length > 2:
        raise ValueError(
            f"expected a system with a diagonal form, got {system.length} taps: the poles of a FIR filter all stand at 0; "
            "fit it with ssmid.balanced_truncation(response, order) or ssmid.era(response, order)"
        )
    taps = system.taps
    modal = Modal(0 * taps[..., 1:], taps[..., 1:], taps[..., 0], system.dt, not is_complex(taps))
    return modal, _ones(modal), np.zeros(system.batch_shape, bool)


@_modal.register
def _(system: FrequencyResponse) -> tuple[Modal, Array, Host]:
    raise ValueError(SAMPLES.format(system.points))


SAMPLES = "expected a system with states, got a frequency response of {} samples: fit a model to it first (ssmid.identification)"


def _residues_of_ratio(num: Host, den: Host, poles: Host) -> tuple[Host, ...]:
    """Feedthrough, residues and root condition: the strictly proper numerator over the product of the differences of poles."""
    with np.errstate(all="ignore"):
        num, den = num / den[..., :1], den / den[..., :1]
        num = np.concatenate([np.zeros((*num.shape[:-1], den.shape[-1] - num.shape[-1])), num], axis=-1)
        feedthrough = num[..., 0]
        if den.shape[-1] == 1:
            return feedthrough, np.zeros((*feedthrough.shape, 0), complex), np.ones(feedthrough.shape)
        proper = (num - feedthrough[..., None] * den)[..., 1:]
        spread = residues_of_product(np.zeros(0), poles, np.ones(()))
        return feedthrough, horner(proper, poles) * spread, root_condition(den, poles)


def _eigensystem(A: Array) -> tuple[Array, Array, Array, Array, Host]:
    """Poles, right eigenvectors as columns, left ones as rows, the largest ``|w_i| |v_i|``, and which elements were defective.

    A defective matrix has no basis of eigenvectors, but one within 1e-9 of it has a good one (Davies, SIAM J. Matrix Anal. 29,
    2007, "Approximate diagonalization"): with it the response is right to about 1e-8 where cancellation would leave nothing.
    """
    xp = namespace(A)
    n, batch = A.shape[-1], A.shape[:-2]
    if n == 0:
        empty = as_complex(A)
        return xp.sum(empty, axis=-1), empty, empty, xp.ones(batch, dtype=xp.float64, device=A.device), np.zeros(batch, bool)
    poles, V, W, condition = _eigenvectors(A)
    host = to_numpy(condition)
    defective = ~(host < _DEFECTIVE) & np.isfinite(to_numpy(A)).all((-2, -1))
    if defective.any():
        noise = from_numpy(np.random.default_rng(0).standard_normal((n, n)) / n, A)
        size = xp.max(xp.abs(A), axis=(-2, -1), keepdims=True)
        near = _eigenvectors(A + 1e-9 * xp.where(size > 0, size, xp.ones_like(size)) * noise)
        mask = from_numpy(defective, A)
        poles = xp.where(mask[..., None], near[0], poles)
        V, W = (xp.where(mask[..., None, None], a, b) for a, b in ((near[1], V), (near[2], W)))
    return poles, V, W, condition, defective


@quiet
def _eigenvectors(A: Array) -> tuple[Array, Array, Array, Array]:
    xp = namespace(A)
    poles, V = eig(A)
    W = inverse(V)
    return poles, V, W, xp.max(xp.linalg.vector_norm(W, axis=-1), axis=-1)


def taken_apart(poles: Host, discrete: bool) -> tuple[Host, Host]:
    """``poles`` with equal ones moved onto a small circle round them, and which elements that touched.

    m equal poles on a circle of relative radius ``eps^(1 / (2 m - 1))`` change the response by ``eps^(m / (2 m - 1))``, as much as
    their cancelling residues round off: 4e-11 for a double pole, never more than about 1e-8.
    """
    n = poles.shape[-1]
    with np.errstate(invalid="ignore"):
        equal = (np.abs(poles[..., :, None] - poles[..., None, :]) <= 1e-9 * np.abs(poles[..., :, None])) & ~np.eye(n, dtype=bool)
    apart = equal.any((-2, -1))
    poles = poles.copy()
    for index in zip(*np.nonzero(apart), strict=True) if apart.ndim else [()] * int(apart):
        row, touched = poles[index], np.zeros(n, bool)
        for i in range(n):
            cluster = np.flatnonzero(equal[index][i] | (np.arange(n) == i))
            if touched[i] or len(cluster) == 1:
                continue
            touched[cluster] = True
            center, m = row[i], len(cluster)
            distance = abs(1 - abs(center)) if discrete else abs(center.real)
            radius = max(distance, 1e-3 * max(abs(center), float(discrete))) * np.finfo(float).eps ** (1 / (2 * m - 1))
            turn = np.exp(2j * np.pi * np.arange(m) / m)
            row[cluster] = center + radius * (turn if center.imag >= 0 else turn.conj())
        poles[index] = paired(row)[0]
    return poles, apart


def _conjugate_neighbours(poles: Array, residues: Array) -> Array:
    """Residues whose pairs are exact conjugates, as their poles (neighbours, the upper one first) already are."""
    xp = namespace(poles, residues)
    upper, lower = xp.imag(poles) > 0, xp.imag(poles) < 0
    mean = (residues + xp.conj(xp.roll(residues, -1, axis=-1))) / 2
    real = as_complex(xp.real(residues))
    return xp.where(upper, mean, xp.where(lower, xp.conj(xp.roll(mean, 1, axis=-1)), real))


def _cancellation(modal: Modal) -> Array:
    """How much larger the modes are than their sum, on the unit circle or the imaginary axis at each pole's own distance."""
    xp = namespace(modal.poles)
    poles, residues = double(modal.poles), double(modal.residues)
    if modal.order == 0:
        return _ones(modal)
    size = xp.abs(poles)
    tiny = xp.finfo(size.dtype).smallest_normal
    if modal.is_discrete:
        boundary = poles / xp.where(size > tiny, as_complex(size), xp.ones_like(poles))
    else:
        boundary = 1j * as_complex(xp.where(xp.imag(poles) == 0, size, xp.imag(poles)))
    with np.errstate(divide="ignore", invalid="ignore"):
        modes = residues[..., None, :] / (boundary[..., :, None] - poles[..., None, :])
    modes = xp.where(xp.isfinite(modes), modes, xp.zeros_like(modes))
    together = xp.max(xp.abs(xp.sum(modes, axis=-1) + as_complex(double(modal.feedthrough))[..., None]), axis=-1)
    alone = xp.max(xp.sum(xp.abs(modes), axis=-1), axis=-1)
    ratio = alone / xp.where(together > 0, together, xp.ones_like(together))
    return xp.maximum(ratio, xp.ones_like(ratio))


def _as_wide(system: System, poles: Array, residues: Array, feedthrough: Array, real: bool) -> Modal:
    bits = width(next(iter(system.arrays.values())))
    return Modal(*(astype_width(x, bits) for x in (poles, residues, feedthrough)), dt=system.dt, real=real)


def _ones(modal: Modal) -> Array:
    xp = namespace(modal.poles)
    return xp.ones(modal.batch_shape, dtype=xp.float64, device=modal.device)
