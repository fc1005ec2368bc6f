"""Norms of sums of modes, thousands at once: the error of a bank that was reduced from modes is such a sum itself.

The H-infinity norm is read off at points as dense as each pole is near the circle, and refined between them: a resonance is as wide as
its pole is far from the circle, and where no pole is near nothing changes quickly. Sums of moduli are of as many taps as it takes until
what follows is known to be negligible.
"""

from __future__ import annotations

from math import ceil, log, pi

import numpy as np

from ssmid._array import Array, as_complex, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.norms import norm
from ssmid.linalg import cauchy_product, vandermonde_product
from ssmid.systems import Modal

_SPREAD = np.array([[-3.0, -1.2, -0.4, 0.0, 0.7, 2.0], [-7.0, -2.0, -0.7, 0.4, 1.2, 7.0]])
"""Distances from the angle of a pole, in units of its distance from the circle, that are looked at: of one pole of a pair, of the other."""
_UNIFORM, _CANDIDATES, _ROUNDS, _INNER = 129, 4, 7, 5
_NEGLIGIBLE = 1e-9
_LONGEST, _CHUNK = 2**17, 2**24


def modal_norm(poles: Array, residues: Array, kind: str) -> Array:
    """``(n,)`` the norm ``kind`` of ``h[t] = Re sum_i residues_i poles_i^(t-1)``, t >= 1, of poles inside the circle.

    poles, residues : ``(n, d)`` complex128, closed under conjugation   kind : "h2", "hankel", "hinf" (from below, to about 1e-6),
        "l1" (from above, to 1e-9 of the l2 norm)
    Not differentiable.

    >>> import numpy as np
    >>> poles, residues = np.array([[0.5, -0.5 + 0j]]), np.array([[1.0, 1.0 + 0j]])
    >>> [float(modal_norm(poles, residues, kind)[0].round(6)) for kind in ("hinf", "l1")]     # 1 + 0 + 1/4 + 0 + ..., doubled
    [2.666667, 2.666667]
    """
    xp = namespace(poles)
    if 0 in poles.shape:
        return xp.zeros(poles.shape[:1], dtype=xp.float64, device=poles.device)
    if kind == "hinf":
        return quiet(_peak)(poles, residues)
    if kind == "l1":
        return _sum_of_moduli(poles, residues)
    return norm(Modal(poles, residues), kind)


def difference(poles: Array, residues: Array, other_poles: Array, other_residues: Array) -> tuple[Array, Array]:
    """The modes of the one minus the other."""
    xp = namespace(poles)
    return xp.concat([poles, other_poles], axis=-1), xp.concat([residues, -other_residues], axis=-1)


def energy_beyond(poles: Array, residues: Array, length: int) -> Array:
    """``(n,)`` the energy of tap ``length`` and all that follow."""
    return modal_norm(poles, residues * poles ** max(length - 1, 0), "h2") ** 2


def natural_length(radius: float) -> int:
    """Taps until a mode of this modulus has fallen to a thousandth, 16 to 65,536."""
    return 16 if radius < 1e-3 else min(max(ceil(log(1e-3) / log(min(radius, 1 - 1e-9))), 16), 65536)


# ---------------------------------------------------------------- the largest gain


def _peak(poles: Array, residues: Array) -> Array:
    xp = namespace(poles)
    rows = max(1, _CHUNK // (poles.shape[-1] * (_SPREAD.shape[1] * poles.shape[-1] + _UNIFORM)))
    pieces = [slice(i, min(i + rows, poles.shape[0])) for i in range(0, poles.shape[0], rows)]
    parts = [_peak_of_chunk(poles[piece, :], residues[piece, :]) for piece in pieces]
    return xp.concat(parts, axis=0)


def _peak_of_chunk(poles: Array, residues: Array) -> Array:
    """Of the upper half circle, which mirrors the lower: the best of all points, then of smaller and smaller steps around the best few."""
    xp = namespace(poles)
    angle = xp.abs(xp.atan2(xp.imag(poles), xp.real(poles)))
    width = xp.clip(1 - xp.abs(poles), min=1e-15)
    steps = xp.where(xp.imag(poles)[:, :, None] < 0, from_numpy(_SPREAD[1], angle), from_numpy(_SPREAD[0], angle))
    near = angle[:, :, None] + width[:, :, None] * steps
    near = xp.reshape(near, (near.shape[0], near.shape[1] * near.shape[2]))
    even = xp.broadcast_to(from_numpy(np.linspace(0, pi, _UNIFORM), angle), (angle.shape[0], _UNIFORM))
    omega = xp.sort(xp.clip(xp.concat([near, even], axis=-1), min=0.0, max=pi), axis=-1)
    gain = _gain(poles, residues, omega)
    best = xp.max(gain, axis=-1)
    chosen = xp.argsort(_local_maxima(gain), axis=-1, descending=True)[:, :_CANDIDATES]
    last = omega.shape[-1] - 1
    low = xp.take_along_axis(omega, xp.clip(chosen - 1, min=0), axis=-1)
    high = xp.take_along_axis(omega, xp.clip(chosen + 1, max=last), axis=-1)
    share = from_numpy(np.linspace(0, 1, _INNER + 2), angle)
    for _ in range(_ROUNDS):
        points = low[:, :, None] + (high - low)[:, :, None] * share
        flat = xp.reshape(points, (points.shape[0], points.shape[1] * points.shape[2]))
        values = xp.reshape(_gain(poles, residues, flat), points.shape)
        best = xp.maximum(best, xp.max(values, axis=(-2, -1)))
        top = xp.argmax(values, axis=-1)[:, :, None]
        low = xp.take_along_axis(points, xp.clip(top - 1, min=0), axis=-1)[:, :, 0]
        high = xp.take_along_axis(points, xp.clip(top + 1, max=_INNER + 1), axis=-1)[:, :, 0]
    return best


def _gain(poles: Array, residues: Array, omega: Array) -> Array:
    xp = namespace(poles)
    return xp.abs(cauchy_product(xp.exp(1j * as_complex(omega)), poles, residues))


def _local_maxima(gain: Array) -> Array:
    """The gain where no neighbour is larger, -1 elsewhere."""
    xp = namespace(gain)
    edge = xp.full_like(gain[:, :1], -1.0)
    before, after = xp.concat([edge, gain[:, :-1]], axis=-1), xp.concat([gain[:, 1:], edge], axis=-1)
    return xp.where((gain >= before) & (gain >= after), gain, xp.full_like(gain, -1.0))


# ---------------------------------------------------------------- the sum of moduli


def _sum_of_moduli(poles: Array, residues: Array) -> Array:
    """Elements of about the same length together; the few that would need very many taps go one by one."""
    xp = namespace(poles)
    lengths = _lengths(poles, residues)
    found = np.zeros(poles.shape[0])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        step = max(1, _CHUNK // int(length)) if length <= _LONGEST else len(rows)
        for start in range(0, len(rows), step):
            index = from_numpy(rows[start : start + step], poles)
            own, weights = (xp.take(x, index, axis=0) for x in (poles, residues))
            if length > _LONGEST:
                found[rows] = to_numpy(norm(modal_state_space(Modal(own, weights)), "l1"))
            else:
                taps = vandermonde_product(own, weights, int(length), real=True)
                total = xp.sum(xp.abs(taps), axis=-1) + _beyond(own, weights, int(length))
                found[rows[start : start + step]] = to_numpy(total)
    return from_numpy(found, poles)


def _lengths(poles: Array, residues: Array) -> np.ndarray:
    """Powers of two of taps beyond which the moduli sum to less than 1e-9 of the l2 norm, or than the rounding of modes that cancel."""
    size, decay = np.abs(to_numpy(residues)), np.abs(to_numpy(poles))
    rounding = 4 * np.finfo(np.float64).eps * (size / (1 - decay)).sum(-1)
    wanted = _NEGLIGIBLE * to_numpy(modal_norm(poles, residues, "h2"))
    allowed = np.maximum(wanted, rounding)
    # each of the modes gets its share of what is allowed
    with np.errstate(divide="ignore", invalid="ignore"):
        share = allowed[:, None] / size.shape[-1] * (1 - decay) / size
        needed = np.where((size > 0) & (decay > 0), np.log(share) / np.log(decay), 0.0)
    needed = np.max(np.where(np.isnan(needed), np.inf, needed), axis=-1)
    # where all is rounding the bound of the rest will do: there is no state space of such a difference to go by
    needed = np.minimum(needed, np.where(wanted <= rounding, _LONGEST, 2 * _LONGEST))
    exponents = [6 if n <= 64 else ceil(log(n, 2)) for n in needed]
    return 2 ** np.array(exponents, dtype=np.int64)


def _beyond(poles: Array, residues: Array, length: int) -> Array:
    xp = namespace(poles)
    decay = xp.abs(poles)
    return xp.sum(xp.abs(residues) * decay**length / (1 - decay), axis=-1)
