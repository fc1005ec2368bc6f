"""Filters in, recurrences out: the stages of the distiller in their order, chunk by chunk so that memory stays bounded."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, as_array, astype_width, check_finite, from_numpy, is_complex, namespace, on_gpu, quiet, width
from ssmid.distillation.bank import Bank
from ssmid.distillation.certificate import Certificate, certify
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.methods import Method, method_for
from ssmid.distillation.models import distill_system
from ssmid.distillation.options import Options, whole_number
from ssmid.distillation.order_budget import Subspaces, orders_within_budget
from ssmid.distillation.order_by_tolerance import fit_to_tolerance
from ssmid.distillation.orders import Found, fit_at_orders, no_states, of_width, orders_of_each, rounded_up, widened
from ssmid.distillation.result import Distillation
from ssmid.distillation.rounding import Cost, cost_of, sampled, worst
from ssmid.distillation.shared import group_size, with_shared_poles
from ssmid.distillation.subspace import Subspace
from ssmid.distillation.weighted import flat_weights
from ssmid.systems import ImpulseResponse, Modal, System
from ssmid.systems.base import computed

CHUNK = {"host": 8192, "gpu": 65_536}
"""Filters that are worked on at once; each stage takes fewer where it needs more memory."""


def distill(filters: Array | System, order: int | str | Array = None, *, chunk: int | None = None, **options: Any) -> Distillation:
    """Long filters as small recurrences, each with a certificate of how near the best possible it is. docs/distilling.md explains.

    filters : real taps ``(*batch, L)`` or an :class:`ImpulseResponse`, NumPy or torch, on any device; or a discrete real system with
        states (Modal, StateSpace, TransferFunction, ...), which is reduced as it is, without taps: its response has no end

    One of

    order : states of each filter, an integer or integers that broadcast to ``(*batch,)``, or "noise": so many as Hankel values stand
        above white noise of a level that is read off the others
    tol : instead, the smallest order whose relative error in ``norm`` ("l2", "hankel", "hinf", "l1") is at most this, filter by filter
    budget : instead, states in all, shared out so that the sum of the squared relative l2 errors is small

    with

    max_order : the largest order that ``tol``, ``budget`` and "noise" may choose, 64   multiple : of which all orders are, rounded up
    method : "l2" (the default), "balanced", "hankel", and to be compared with "gradient", "rtf", "modal-truncation", "aaa", "prony"
    max_modulus : no pole is larger   real_poles : only real poles; both by "l2", the first by "gradient" too
    shared : so many of the last batch axes share one set of poles, by "l2" and "balanced"; ``chunk`` holds whole groups
    beyond : "zero", the filter is 0 after its last tap, or "free", nothing after it counts
    weights : ``(L,)`` or ``(*batch, L)``, not negative: the sum of ``|weights error|^2`` over the taps is made small, by "l2"
    frequency_weights : instead, ``(k,)`` or ``(*batch, k)`` over ``numpy.linspace(0, pi, k)`` with ``2 (k - 1) >= L``, or a scalar system
        whose gain they are; :func:`ssmid.input_spectrum` makes them of a layer's input. Interpolated where ``2 (k - 1) < 2 L``; no pole
        is nearer to the circle than the grid resolves: ``|pole|^(2 (k - 1)) <= 1/3``
    restarts : perturbed copies of each start that are tried too   exchanges : rounds in which pole pairs change places, more of them
        with the order where left out   max_iterations, gtol : of Newton's method, which stops where the cosine between the error and
        any change of it by a pole is at most ``gtol``
    precision : "float32" gives poles and residues in single precision, whatever that of the filters, and measures Hankel errors in it;
        ``cost`` says by how much that changes the errors of up to 64 of the filters, which are distilled in float64 too
    chunk : filters that are worked on at once, 8192 and on a GPU 65,536: memory is bounded by it, results do not depend on it but for
        rounding

    Returns a :class:`Distillation`: ``system``, the :class:`Modal` bank ``(*batch, d)`` of the kind, device and width of the filters, tap
    0 kept exactly (with ``shared`` poles ``(*batch, 1.., d)``); ``order`` int or ``(*batch,)``; ``error`` relative l2 of the taps after tap
    0; ``certificate``, ``converged``, ``condition``. Smaller orders are padded with zeros, filters that are zero or have only tap 0 get
    no states, and those that are not finite are NaN and not converged, without harm to the others. All numerics are in float64;
    certified are poles and residues as they are rounded to the width of the result.

    Poles start from a Hankel subspace of each filter (Kung, Asilomar 1978), to which the shift is compressed, and whose Ritz values bound
    from below what any recurrence of the order must miss (Adamjan, Arov & Krein, Math. USSR Sbornik 15, 1971). "l2" then minimizes the
    squared error over all time with the residues eliminated (Golub & Pereyra, SIAM J. Numer. Anal. 10, 1973), in the closed form of
    H2 approximation (Gugercin, Antoulas & Beattie, SIAM J. Matrix Anal. Appl. 30, 2008), by Newton's method and exchanges of pole pairs;
    a local minimum. Distilling long convolutions, and "gradient": Massaroli et al., NeurIPS 2023. Not differentiable.

    Raises ValueError for complex filters and those without taps, a single one that is not finite, none or several of ``order``, ``tol``
    and ``budget``, values out of range, shapes that do not broadcast, and what the method cannot do; TypeError for unknown arguments.
    Warns where ``tol`` is not met: the best is kept.

    >>> t = np.arange(500)
    >>> taps = np.stack([0.99**t * np.cos(0.1 * t), 0.9**t + 0.5**t, 1 / (1 + t)])
    >>> fit = distill(taps, 4)
    >>> fit.system
    Modal(order=4, batch=(3,), dt=1, complex128)
    >>> bool(abs(fit.system.poles).max() < 1), bool((fit.certificate.hankel >= fit.certificate.lower_bound).all())
    (True, True)
    >>> distill(taps, tol=1e-2).order
    array([2, 2, 9])
    """
    if chunk is not None:
        chunk = whole_number("chunk", chunk, 1)
    if isinstance(filters, System) and not isinstance(filters, ImpulseResponse):
        return distill_system(filters, Options(order=order, **options), chunk=chunk)
    taps = filters.taps if isinstance(filters, ImpulseResponse) else as_array(filters, "filters")
    if is_complex(taps) or taps.ndim == 0 or taps.shape[-1] == 0:
        raise ValueError(f"filters: expected real taps of shape (*batch, length), got {taps.dtype} of shape {tuple(taps.shape)}")
    check_finite(taps, "filters", 1)
    chosen = Options(order=order, **options)
    method = method_for(chosen)
    xp, bits = namespace(taps), 32 if chosen.precision == "float32" else width(taps)
    *batch, length = taps.shape
    flat = xp.reshape(taps, (prod(batch), length))
    group, weights = group_size(chosen.shared, tuple(batch)), flat_weights(chosen, tuple(batch), length, flat)
    chunk = max(1, (chunk or CHUNK["gpu" if on_gpu(flat) else "host"]) // group) * group
    starts = range(0, max(1, flat.shape[0]), chunk)

    def bank(start: int) -> Bank:
        own = weights[start : start + chunk, :] if weights is not None and weights.shape[0] > 1 else weights
        return Bank.of(flat[start : start + chunk, :], weights=own, group=group, constrained=chosen.constrained, bits=bits)

    def banks() -> Iterator[Bank]:
        yield from map(bank, starts)

    subspaces, wanted = Subspaces(method, chosen), [chosen.order] * len(starts)
    if chosen.budget is not None:
        wanted = orders_within_budget(banks, subspaces, method, chosen)
    elif not isinstance(chosen.order, int | str | None):
        orders = orders_of_each(chosen.order, tuple(batch))
        wanted = [orders[i : i + chunk] for i in starts]

    def part(i: int) -> _Part:
        own, stop = bank(starts[i]), min(starts[i] + chunk, flat.shape[0])
        found = _distilled(own, wanted[i], subspaces.kept.get(i), method, chosen)
        sample = sampled(starts[i], stop, flat.shape[0], group) if chosen.precision == "float32" else np.zeros(0, np.int64)
        return dataclasses.replace(found, cost=_cost(own, found, sample, method, chosen)) if sample.size else found

    parts = [part(i) for i in range(len(starts))]
    _warn_of_missed(parts, chosen)
    found = _assembled(parts, method, tuple(batch), length, bits, filters.dt if isinstance(filters, ImpulseResponse) else 1)
    if not chosen.shared or flat.shape[0] == 0:
        return found
    assert isinstance(found.system, Modal)
    return dataclasses.replace(found, system=with_shared_poles(found.system, chosen.shared))


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """A chunk: what was found in the scale of the taps. missed : how many filters do not meet the tolerance
    cost : of single precision, where that was asked for"""

    poles: Array
    residues: Array
    feedthrough: Array
    orders: np.ndarray
    condition: Array
    certificate: Certificate
    missed: int
    cost: Cost | None = None


def _distilled(bank: Bank, wanted: Any, subspace: Subspace | None, method: Method, options: Options) -> _Part:
    xp = namespace(bank.strict)
    if bank.count == 0:
        found = Found(no_states(bank), bank.strict[:, :1], np.zeros(0, bool))
    elif options.tol is not None:
        found = fit_to_tolerance(bank, method, options)
    else:
        found = fit_at_orders(bank, wanted, subspace, method, options)
    fitted = _ordered(found.fitted)
    fitted = of_width(fitted, rounded_up(fitted.poles.shape[-1], options.multiple))
    scale = xp.astype(bank.scale[:, None], fitted.residues.dtype)
    nan = xp.where(from_numpy(bank.kind == 1, bank.scale), xp.full_like(bank.scale, np.nan), xp.zeros_like(bank.scale))
    nan = xp.astype(nan[:, None], scale.dtype)
    certificate = certify(bank, fitted, found.sigma, beyond=options.beyond, precision=options.precision)
    certificate = dataclasses.replace(certificate, converged=certificate.converged & from_numpy(found.met, bank.scale))
    missed = int(np.sum(~found.met))
    residues = quiet(lambda: fitted.residues * scale + nan)()
    return _Part(fitted.poles + nan, residues, bank.feedthrough, fitted.orders, fitted.condition, certificate, missed)


def _cost(bank: Bank, found: _Part, places: np.ndarray, method: Method, options: Options) -> Cost:
    """Of the filters at ``places``, against the same distilled in float64 at the orders that were found."""
    options = dataclasses.replace(options, order=1, tol=None, budget=None, multiple=1, precision="float64")
    exact = _distilled(dataclasses.replace(bank.take(places), bits=64), found.orders[places], None, method, options).certificate
    index = from_numpy(places, bank.strict)
    measured = {f.name: getattr(found.certificate, f.name) for f in dataclasses.fields(Certificate)}
    measured = {k: x[places] if isinstance(x, np.ndarray) else namespace(x).take(x, index, axis=0) for k, x in measured.items()}
    return cost_of(Certificate(**measured), exact)


def _warn_of_missed(parts: list[_Part], options: Options) -> None:
    missed, count = sum(part.missed for part in parts), sum(len(part.orders) for part in parts)
    if missed:
        what = f"a relative {options.norm} error of {options.tol} is not met by {missed} of {count} filters"
        warnings.warn(f"tol: {what} with orders up to {options.max_order}; the best is kept", stacklevel=3)


def _ordered(fitted: Fitted) -> Fitted:
    """Zeros where there is no pole."""
    xp = namespace(fitted.poles)
    live = from_numpy(np.arange(fitted.poles.shape[-1]) < fitted.orders[:, None], fitted.poles)
    poles, residues = (xp.where(live, x, xp.zeros_like(x)) for x in (fitted.poles, fitted.residues))
    return dataclasses.replace(fitted, poles=poles, residues=residues)


@quiet
def _assembled(parts: list[_Part], method: Method, batch: tuple[int, ...], length: int, bits: int, dt: float | bool) -> Distillation:
    xp = namespace(parts[0].feedthrough)

    def whole(arrays: list[Array]) -> Array:
        size = [max(sizes) for sizes in zip(*(a.shape[1:] for a in arrays), strict=True)]
        padded = []
        for a in arrays:
            if a.ndim == 2 and a.shape[1] < size[0]:
                filler = xp.zeros((a.shape[0], size[0] - a.shape[1]), dtype=a.dtype, device=a.device)
                a = xp.concat([a, filler], axis=-1)
            padded.append(a)
        array = xp.concat(padded, axis=0)
        return xp.reshape(array, (*batch, *array.shape[1:]))

    def host(arrays: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays).reshape(batch)

    fields: dict[str, Any] = {}
    for field in dataclasses.fields(Certificate):
        values = [getattr(part.certificate, field.name) for part in parts]
        values = [widened(values, known=False)] if field.name == "sigma" else values
        fields[field.name] = host(values) if field.name in ("kind", "delay") else whole(values)
    certificate = Certificate(**fields)
    orders = host([part.orders for part in parts])
    same = orders.size and (orders == orders.flat[0]).all()
    poles, residues, first = (whole([getattr(part, name) for part in parts]) for name in ("poles", "residues", "feedthrough"))
    # also where a wider chunk has poles that this one has not
    lost = xp.isnan(certificate.l2)[..., None]
    poles, residues = (astype_width(xp.where(lost, xp.full_like(x, np.nan), x), bits) for x in (poles, residues))
    return Distillation(
        system=computed(Modal, poles=poles, residues=residues, feedthrough=astype_width(first, bits), dt=dt, real=True),
        method=method.title,
        order=int(orders.flat[0]) if same else from_numpy(orders, first),
        converged=certificate.converged,
        condition=whole([part.condition for part in parts]),
        certificate=certificate,
        length=length,
        cost=worst([part.cost for part in parts if part.cost is not None]),
    )
