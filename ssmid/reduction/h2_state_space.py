"""l2-optimal approximation of scalar models: modal banks and state spaces, in discrete and continuous time."""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, as_complex, astype_width, double, from_numpy, is_complex, namespace, quiet, to_numpy, width
from ssmid.analysis.characteristics import poles as poles_of
from ssmid.analysis.conversion import to_modal
from ssmid.analysis.gramians import modal_realization
from ssmid.linalg import eig, inverse
from ssmid.reduction.balanced import balanced_truncation, flattened
from ssmid.reduction.h2_dense import SchurSource
from ssmid.reduction.h2_newton import Optimum, Source, search
from ssmid.reduction.h2_realization import cascade_realization
from ssmid.reduction.h2_request import H2Request, closed, prepared, start_of_system
from ssmid.reduction.h2_result import H2Reduction, interpolation_residual
from ssmid.reduction.h2_sources import ModalSource
from ssmid.reduction.irka import irka
from ssmid.reduction.result import Reduction
from ssmid.systems import Modal, StateSpace

_WORST_EIGENVECTORS = 1e4
_SMALL = 1e-6


def h2_of_scalars(system: StateSpace | Modal, request: H2Request) -> H2Reduction | None:
    """The reduction of each element of a bank of scalar systems; see :func:`ssmid.h2_approximation`. None where one is unstable."""
    assert request.order is not None
    batch, order = system.batch_shape, request.order
    real = not (system.is_complex if isinstance(system, StateSpace) else not system.real)
    like = as_complex(double(next(iter(system.arrays.values()))))
    flat, sound = flattened(system), to_numpy(system.is_finite()).reshape(-1)
    modes = _modes(flat, sound)
    reach = np.abs(modes.poles) if system.is_discrete else np.exp(np.real(modes.poles))
    if (reach >= 1).any():
        return None
    balanced = balanced_truncation(system, order)
    rate = None if system.is_discrete else _rates(modes.poles)
    size, source = _source(flat, modes, rate, sound, like, real=real)
    orders = np.broadcast_to(to_numpy(balanced.order) if not isinstance(balanced.order, int) else balanced.order, batch).reshape(-1)
    orders = np.where(sound, orders, 0)
    starts = []
    for start in request.starts:
        if isinstance(start, str):
            found = [_poles_of(balanced, order)]
            if isinstance(system, StateSpace) and not batch:  # a bank of 500 would take a hundred times as long
                found.append(_interpolating(system, found[0], order, request.max_iterations))
            elif modes.residues is not None:
                found.append(_dominant(modes, found[0], order, system.is_discrete, real=real))
        else:
            found = [start_of_system(start, tuple(batch), order, real=False)]
        for poles in found:
            poles = _to_disk(np.where(sound[:, None], poles, 0.5 if system.is_discrete else -1), rate)
            starts.append(prepared(closed(poles) if real else poles, orders, like, real=real))
    limits = {"max_iterations": request.max_iterations, "gtol": request.gtol}
    optimum = search(source, starts, request.restarts, real=real, **limits)
    A, B, C = cascade_realization(optimum.poles, optimum.live, source.sections(optimum.poles, optimum.live), real=real)
    A, B, C = (M[:, :order, :] if i < 2 else M[:, :, :order] for i, M in enumerate((A[:, :, :order], B, C)))
    A, B, C = _from_disk(A, B, C, rate, size)
    return _assembled(system, modes, balanced, optimum, (A, B, C), sound)


def _poles_of(balanced: Reduction, order: int) -> np.ndarray:
    """Of padded elements the padding too; NaN stays NaN."""
    system, batch = balanced.system, balanced.converged.shape
    found = to_numpy(system.poles if isinstance(system, Modal) else quiet(poles_of)(system))
    found = np.broadcast_to(found, (*batch, found.shape[-1])).reshape(prod(batch), found.shape[-1])[:, :order]
    return np.pad(found, ((0, 0), (0, order - found.shape[-1])))


def _interpolating(system: StateSpace, otherwise: np.ndarray, order: int, most: int) -> np.ndarray:
    """The poles that IRKA finds, so that no optimum is worse than its result; ``otherwise`` where there are fewer than ``order``."""
    fit = irka(system, order, max_iterations=most)
    found = _poles_of(fit, order)
    whole = np.broadcast_to(to_numpy(fit.order) if not isinstance(fit.order, int) else fit.order, system.batch_shape).reshape(-1) == order
    return np.where((whole & np.isfinite(found).all(-1))[:, None], found, otherwise)


def _dominant(modes: _Modes, otherwise: np.ndarray, order: int, discrete: bool, *, real: bool) -> np.ndarray:
    """The poles of the largest contributions to the gain, as :func:`ssmid.modal_truncation` takes them; ``otherwise`` where that would
    part a conjugate pair or there are too few."""
    assert modes.residues is not None
    poles, size = modes.poles, np.abs(modes.residues)
    if poles.shape[-1] < order:
        return otherwise
    gain = size / (1 - np.abs(poles) if discrete else -np.real(poles))
    # conjugates have the same gain but for rounding, and are to stand together
    rank = np.lexsort((np.imag(poles), np.abs(np.imag(poles)), -np.round(gain / gain.max(-1, keepdims=True, initial=1e-300), 9)), axis=-1)
    chosen = np.take_along_axis(poles, rank[:, :order], axis=-1)
    parted = np.abs(np.sum(np.imag(chosen), axis=-1)) > 1e-6 * np.abs(chosen).max(-1, initial=0.0)
    return np.where((parted & real)[:, None], otherwise, chosen)


def _rates(poles: np.ndarray) -> np.ndarray:
    """``(batch,)`` the unit of frequency of each continuous system, the geometric mean of its poles."""
    return np.exp(np.mean(np.log(np.abs(poles)), axis=-1))


def _to_disk(poles: np.ndarray, rate: np.ndarray | None) -> np.ndarray:
    return poles if rate is None else (rate[:, None] + poles) / (rate[:, None] - poles)


def _source(
    flat: Any, modes: _Modes, rate: np.ndarray | None, sound: np.ndarray, like: Array, *, real: bool
) -> tuple[np.ndarray, Source]:
    """The originals divided by their sizes ``(batch,)``, in the disk; what is not sound is zero."""
    if modes.residues is not None:
        poles, residues = modes.poles, modes.residues
        if rate is not None:
            residues = residues * (2 * rate[:, None]) ** 0.5 / (rate[:, None] - poles)
        size = _power_of_two(np.abs(residues).max(-1, initial=0.0))
        poles, residues = (from_numpy(x, like) for x in (_to_disk(poles, rate), residues / size[:, None]))
        return size, ModalSource.of(poles, residues, real=real)
    A, B, C = (np.where(sound[:, None, None], to_numpy(M), 0) for M in (flat.A, flat.B, flat.C))
    if rate is not None:
        eye = np.eye(A.shape[-1])
        scale = rate[:, None, None]
        inverse_ = np.linalg.inv(scale * eye - A)
        A, B = (scale * eye + A) @ inverse_, (2 * scale) ** 0.5 * (inverse_ @ B)
    b, c = (_power_of_two(np.abs(M).max((-2, -1), initial=0.0)) for M in (B, C))
    return b * c, SchurSource.of(A, B / b[:, None, None], C / c[:, None, None], like, real=real)


def _power_of_two(size: np.ndarray) -> np.ndarray:
    return np.exp2(np.floor(np.log2(np.where(size > 0, size, 1.0))))


@dataclasses.dataclass(frozen=True, eq=False)
class _Modes:
    """poles, residues : ``(batch, n)``, harmless ones for elements that are not sound; residues None where eigenvectors lose digits"""

    poles: np.ndarray
    residues: np.ndarray | None


def _modes(flat: Any, sound: np.ndarray) -> _Modes:
    harmless = 0.5 if flat.is_discrete else -1.0
    if isinstance(flat, Modal):
        poles, inputs, outputs = (to_numpy(x) for x in modal_realization(flat.map(lambda a: _cleaned(a, sound))))
        residues = inputs * outputs
    else:
        xp = namespace(flat.A)
        flat = flat.map(lambda a: _cleaned(a, sound))
        found, V = eig(flat.A)
        W = quiet(inverse)(V)
        condition = to_numpy(quiet(xp.linalg.vector_norm)(W, axis=(-2, -1))) if W.shape[-1] else np.zeros(len(sound))
        poles, residues = to_numpy(found), None
        if (condition[sound] < _WORST_EIGENVECTORS).all():
            residues = to_numpy((as_complex(flat.C) @ V)[:, 0, :] * (W @ as_complex(flat.B))[:, :, 0])
            residues = np.where(sound[:, None], residues, 0)
    return _Modes(np.where(sound[:, None], poles, harmless), residues)


def _cleaned(array: Array, sound: np.ndarray) -> Array:
    xp = namespace(array)
    return xp.where(xp.reshape(from_numpy(sound, array), (-1, *(1,) * (array.ndim - 1))), array, xp.zeros_like(array))


def _from_disk(A: Array, B: Array, C: Array, rate: np.ndarray | None, size: np.ndarray) -> tuple[Array, Array, Array]:
    xp = namespace(A)
    root = from_numpy(np.sqrt(size), A)[:, None, None]
    B, C = B * xp.astype(root, B.dtype), C * xp.astype(root, C.dtype)
    if rate is None:
        return A, B, C
    eye = xp.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    n = A.shape[-1]
    back = xp.linalg.solve(A + eye, xp.concat([A - eye, B], axis=-1))
    scale = from_numpy(rate, A)[:, None, None]
    return xp.astype(scale, A.dtype) * back[..., :n], xp.astype((2 * scale) ** 0.5, A.dtype) * back[..., n:], C


def _assembled(
    original: StateSpace | Modal,
    modes: _Modes,
    balanced: Reduction,
    optimum: Optimum,
    matrices: tuple[Array, Array, Array],
    sound: np.ndarray,
) -> H2Reduction:
    batch = balanced.converged.shape
    like = next(iter(original.arrays.values()))
    xp, bits = namespace(like), width(like)
    invalid = from_numpy(np.where(sound, 0.0, np.nan), like)

    def whole(array: Array) -> Array:
        spoiled = array + xp.astype(xp.reshape(invalid, (-1, *(1,) * (array.ndim - 1))), array.dtype)
        return astype_width(xp.reshape(spoiled, (*batch, *array.shape[1:])), bits)

    A, B, C = (whole(M) for M in matrices)
    D = original.feedthrough[..., None, None] if isinstance(original, Modal) else original.D
    D = xp.broadcast_to(D, (*batch, 1, 1))
    if isinstance(original, Modal) and original.real and is_complex(D):
        D = xp.real(D)
    states = StateSpace(A, B, C, D, original.dt)
    system = dataclasses.replace(to_modal(states), real=original.real) if isinstance(original, Modal) else states
    scale = xp.where(optimum.energy > 0, optimum.energy, xp.ones_like(optimum.energy))[:, None]
    residual = interpolation_residual(_seen_as_modes(original, modes), system, _model_poles(system))
    fit = {field.name: getattr(balanced, field.name) for field in dataclasses.fields(Reduction)}
    fit |= {"system": system, "original": original, "method": "l2-optimal approximation"}
    fit |= {"bound": xp.full_like(balanced.bound, float("nan")), "condition": whole(optimum.condition)}
    return H2Reduction(
        **{**fit, "converged": balanced.converged & xp.reshape(optimum.converged & from_numpy(sound, like), batch)},
        interpolation_residual=residual,
        iterations=xp.reshape(optimum.iterations, batch),
        history=whole(xp.sqrt(xp.clip(optimum.history / scale, min=0.0))),
    )


def _seen_as_modes(original: StateSpace | Modal, modes: _Modes) -> StateSpace | Modal:
    """The original in the form that is evaluated fastest."""
    if isinstance(original, Modal) or modes.residues is None:
        return original
    batch = original.batch_shape
    poles, residues = (from_numpy(x.reshape(*batch, x.shape[-1]), original.A) for x in (modes.poles, modes.residues))
    return Modal(poles, residues, original.D[..., 0, 0], original.dt, real=False)


def _model_poles(system: StateSpace | Modal) -> Array:
    return system.poles if isinstance(system, Modal) else quiet(poles_of)(system)
