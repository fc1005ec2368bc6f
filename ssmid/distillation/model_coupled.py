"""Distilling state spaces of several inputs and outputs: one coupled system each, reduced as such."""

from __future__ import annotations

import dataclasses
import warnings
from math import prod

import numpy as np

from ssmid._array import Array, astype_width, double, from_numpy, is_array, namespace, quiet, to_numpy, width
from ssmid.analysis.characteristics import is_stable, spectral_radius
from ssmid.analysis.conversion import to_modal
from ssmid.analysis.hankel import hankel_singular_values
from ssmid.analysis.interconnection import subtract
from ssmid.analysis.norms import norm
from ssmid.distillation.bank import NOT_FINITE, ORDINARY, TAP_0_ONLY, UNSTABLE, ZERO
from ssmid.distillation.certificate import Certificate
from ssmid.distillation.methods import METHODS
from ssmid.distillation.model_norms import natural_length
from ssmid.distillation.model_sources import REDUCTIONS, warn_of_missed
from ssmid.distillation.options import Options
from ssmid.distillation.result import Distillation
from ssmid.linalg import numerical_rank
from ssmid.parametrizations.s4 import matrix_power
from ssmid.systems import Modal, StateSpace
from ssmid.systems.base import ConversionWarning

_KINDS = {"l2": "h2", "hankel": "hankel", "hinf": "hinf", "l1": "l1"}
_QUICK = 256
"""States up to which every norm is measured unasked: the H-infinity and l1 norms of 512 states with 256 inputs and outputs take minutes."""


def distill_coupled(system: StateSpace, options: Options, length: int | None) -> Distillation:
    """As :func:`ssmid.distillation.models.distill_system`, of state spaces ``(*batch,)`` with several inputs or outputs.

    The modes of a result are shared by all channels; ``order`` counts them. Beyond 256 states ``hinf``, ``l1`` and their ``filter_``
    fields are NaN unless ``norm`` asks for them. ``l2`` is relative to the l2 norm of all channels together.
    """
    if options.budget is not None:
        raise ValueError("budget: expected a bank of scalar systems, got a coupled one: give an order or tol")
    batch, bits = system.batch_shape, width(system.A)
    arrays = system.broadcast_arrays()
    flat = {name: namespace(a).reshape(double(a), (prod(batch), *a.shape[-2:])) for name, a in arrays.items()}
    if length is None:
        radius = to_numpy(quiet(spectral_radius)(system))
        length = natural_length(float(radius[radius < 1].max(initial=0.0)))
    wanted = np.broadcast_to(to_numpy(options.order) if is_array(options.order) else np.asarray(options.order or 0), batch).reshape(-1)
    found = [
        _element(StateSpace(*(flat[name][k, ...] for name in "ABCD")) if finite else None, int(wanted[k]), options, length, system)
        for k, finite in enumerate(to_numpy(system.is_finite()).reshape(-1))
    ]
    if options.tol is not None and not all(e.met for e in found):
        warn_of_missed(sum(not e.met for e in found), len(found), options, stacklevel=3)
    return _assembled(found, system, batch, bits, options, length)


@dataclasses.dataclass(frozen=True, eq=False)
class _Element:
    """poles : ``(1, 1, d)``   residues : ``(p, m, d)``   numbers : fields of the certificate, beside ``sigma``"""

    poles: Array
    residues: Array
    order: int
    condition: float
    sigma: np.ndarray
    numbers: dict[str, float]
    converged: bool
    kind: int
    met: bool = True


def _element(system: StateSpace | None, wanted: int, options: Options, length: int, like: StateSpace) -> _Element:
    if system is None:
        return _nothing(like, NOT_FINITE)
    if not bool(to_numpy(is_stable(system))):
        return _nothing(like, UNSTABLE)
    xp = namespace(system.A)
    through = bool(xp.any(system.D != 0))
    # powers of two, of which nothing is rounded
    b, c = (_power_of_two(M) for M in (system.B, system.C))
    proper = StateSpace(system.A, system.B / b, system.C / c)
    sigma = to_numpy(hankel_singular_values(proper))
    degree = int(numerical_rank(sigma))
    if degree == 0:
        return _nothing(like, TAP_0_ONLY if through else ZERO)
    kinds = set(_KINDS.values()) if proper.order <= _QUICK else {"h2", "hankel", _KINDS[options.norm]}
    own = {kind: float(norm(proper, kind)) for kind in kinds - {"hankel"}} | {"hankel": float(sigma[0])}
    if options.tol is None:
        (small, converged, condition), met = _reduced(proper, min(options.rounded(wanted), degree), options), True
    else:
        (small, converged, condition), met = _within(proper, own[_KINDS[options.norm]], degree, options)
    rest = subtract(proper, small)
    errors = {kind: float(norm(rest, kind)) for kind in kinds}
    modal = _modal(small)
    numbers = {
        "lower_bound": float(np.append(sigma, 0.0)[small.order]) * b * c,
        "l2": errors["h2"] / own["h2"],
        **{kind: errors.get(kind, np.nan) * b * c for kind in ("hankel", "hinf", "l1")},
        **{f"filter_{kind}": own.get(kind, np.nan) * b * c for kind in ("hinf", "l1")},
        "spectral_radius": float(spectral_radius(small)),
        "tail_energy": _energy_beyond(small, length) / own["h2"] ** 2,
    }
    return _Element(modal.poles, modal.residues * (b * c), small.order, condition, sigma * b * c, numbers, converged and met, ORDINARY, met)


def _reduced(system: StateSpace, order: int, options: Options) -> tuple[StateSpace, bool, float]:
    fit = REDUCTIONS[options.method](system, order, options)
    assert isinstance(fit.system, StateSpace)
    return fit.system, bool(fit.converged), float(to_numpy(fit.condition))


def _within(system: StateSpace, size: float, degree: int, options: Options) -> tuple[tuple[StateSpace, bool, float], bool]:
    """The smallest order that meets the tolerance, by bisection, and whether any does."""
    kind, most = _KINDS[options.norm], min(degree, options.max_order)
    assert options.tol is not None
    limit = options.tol * size

    def at(order: int) -> tuple[StateSpace, bool, float]:
        return _reduced(system, min(options.rounded(order), degree), options)

    best, low, high = at(most), 0, most
    if float(norm(subtract(system, best[0]), kind)) > limit:
        return best, False
    while high - low > 1:
        middle = (low + high) // 2
        found = at(middle)
        good = float(norm(subtract(system, found[0]), kind)) <= limit
        low, high, best = (low, middle, found) if good else (middle, high, best)
    return best, True


def _modal(small: StateSpace) -> Modal:
    with warnings.catch_warnings():
        # what clustered poles cost shows in the responses, and such systems keep their states with ssmid.balanced_truncation
        warnings.simplefilter("ignore", ConversionWarning)
        return to_modal(small)


def _energy_beyond(system: StateSpace, length: int) -> float:
    later = matrix_power(system.A, max(length - 1, 0)) @ system.B
    return float(norm(StateSpace(system.A, later, system.C), "h2")) ** 2


def _power_of_two(M: Array) -> float:
    largest = float(namespace(M).max(namespace(M).abs(M))) if 0 not in M.shape else 0.0
    return float(np.exp2(np.floor(np.log2(largest)))) if largest > 0 else 1.0


def _nothing(like: StateSpace, kind: int) -> _Element:
    """No modes; NaN where there would have been some to find."""
    xp, lost = namespace(like.A), kind in (NOT_FINITE, UNSTABLE)
    value = np.nan if lost else 0.0
    poles, residues = (
        xp.full(shape, complex(value), dtype=xp.complex128, device=like.A.device)
        for shape in ((1, 1, int(lost)), (like.outputs, like.inputs, int(lost)))
    )
    numbers = {field.name: value for field in dataclasses.fields(Certificate)}
    return _Element(poles, residues, 0, np.nan if lost else 1.0, np.full(1, value), numbers, not lost, kind)


def _assembled(
    found: list[_Element], original: StateSpace, batch: tuple[int, ...], bits: int, options: Options, length: int
) -> Distillation:
    xp, like = namespace(original.A), double(original.A)
    p, m = original.outputs, original.inputs

    def filled(arrays: list[Array], rows: int, columns: int) -> Array:
        """``(*batch, rows, columns, d)``, filled up with zeros."""
        size = max((a.shape[-1] for a in arrays), default=0)
        zeros = xp.zeros((rows, columns, size), dtype=xp.complex128, device=like.device)
        arrays = [xp.concat([a, zeros[..., a.shape[-1] :]], axis=-1) for a in arrays]
        return xp.reshape(xp.stack(arrays, axis=0) if arrays else zeros[None, ...][:0, ...], (*batch, rows, columns, size))

    def real(values: list[float] | np.ndarray) -> Array:
        return from_numpy(np.asarray(values, dtype=np.float64).reshape(batch), like)

    count = max((len(e.sigma) for e in found), default=0)
    sigma = np.array([np.concatenate([e.sigma, np.zeros(count - len(e.sigma))]) for e in found]).reshape(*batch, count)
    numbers = [f.name for f in dataclasses.fields(Certificate) if f.name not in ("sigma", "converged", "kind", "delay")]
    certificate = Certificate(
        sigma=from_numpy(sigma, like),
        converged=from_numpy(np.array([e.converged for e in found], bool).reshape(batch), like),
        kind=np.array([e.kind for e in found], np.int64).reshape(batch),
        delay=np.zeros(batch, np.int64),
        **{name: real([e.numbers[name] for e in found]) for name in numbers},
    )
    orders = np.array([e.order for e in found], np.int64).reshape(batch)
    same = orders.size and (orders == orders.flat[0]).all()
    poles, residues = filled([e.poles for e in found], 1, 1), filled([e.residues for e in found], p, m)
    feedthrough = xp.broadcast_to(double(original.D), (*batch, p, m))
    poles, residues, feedthrough = (astype_width(a, bits) for a in (poles, residues, feedthrough))
    return Distillation(
        system=Modal(poles, residues, feedthrough, original.dt),
        method=METHODS[options.method].title,
        order=int(orders.flat[0]) if same else from_numpy(orders, like),
        converged=certificate.converged,
        condition=real([e.condition for e in found]),
        certificate=certificate,
        length=length,
    )
