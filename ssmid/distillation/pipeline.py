"""Filters in, recurrences out: the stages of the distiller in their order, chunk by chunk so that memory stays bounded."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, as_array, astype_width, from_numpy, is_complex, namespace, on_gpu, width
from ssmid.distillation.bank import Bank
from ssmid.distillation.certificate import Certificate, certify
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.methods import Method, method_for
from ssmid.distillation.models import distill_system
from ssmid.distillation.options import Options
from ssmid.distillation.order_budget import Subspaces, orders_within_budget
from ssmid.distillation.order_by_tolerance import fit_to_tolerance
from ssmid.distillation.orders import fit_at_orders, of_width, orders_of_each, rounded_up
from ssmid.distillation.result import Distillation
from ssmid.distillation.shared import group_size, with_shared_poles
from ssmid.distillation.subspace import Subspace
from ssmid.distillation.weighted import flat_weights
from ssmid.systems import ImpulseResponse, Modal, System

CHUNK = {"host": 8192, "gpu": 65_536}
"""Filters that are worked on at once; each stage takes fewer where it needs more memory."""


def distill(filters: Array | System, order: int | str | Array = None, *, chunk: int | None = None, **options: Any) -> Distillation:
    """Long filters as small recurrences, each with a certificate of how near the best possible it is."""
    if isinstance(filters, System) and not isinstance(filters, ImpulseResponse):
        return distill_system(filters, Options(order=order, **options), chunk=chunk)
    taps = filters.taps if isinstance(filters, ImpulseResponse) else as_array(filters, "filters")
    if is_complex(taps) or taps.ndim == 0 or taps.shape[-1] == 0:
        raise ValueError(f"filters: expected real taps of shape (*batch, length), got {taps.dtype} of shape {tuple(taps.shape)}")
    chosen = Options(order=order, **options)
    method = method_for(chosen)
    xp = namespace(taps)
    *batch, length = taps.shape
    flat = xp.reshape(taps, (prod(batch), length))
    group, weights = group_size(chosen.shared, tuple(batch)), flat_weights(chosen, tuple(batch), length, flat)
    chunk = max(1, (chunk or CHUNK["gpu" if on_gpu(flat) else "host"]) // group) * group
    starts = range(0, max(1, flat.shape[0]), chunk)

    def bank(start: int) -> Bank:
        own = weights[start : start + chunk, :] if weights is not None and weights.shape[0] > 1 else weights
        return Bank.of(flat[start : start + chunk, :], weights=own, group=group, constrained=chosen.constrained)

    def banks() -> Iterator[Bank]:
        yield from map(bank, starts)

    subspaces, wanted = Subspaces(method, chosen), [chosen.order] * len(starts)
    if chosen.budget is not None:
        wanted = orders_within_budget(banks, subspaces, method, chosen)
    elif not isinstance(chosen.order, int | str | None):
        orders = orders_of_each(chosen.order, tuple(batch))
        wanted = [orders[i : i + chunk] for i in starts]

    def part(i: int) -> _Part:
        return _distilled(bank(starts[i]), wanted[i], subspaces.kept.get(i), method, chosen)

    parts = [part(i) for i in range(len(starts))]
    _warn_of_missed(parts, chosen)
    found = _assembled(parts, method, tuple(batch), length, width(taps), filters.dt if isinstance(filters, ImpulseResponse) else 1)
    return dataclasses.replace(found, system=with_shared_poles(found.system, chosen.shared)) if chosen.shared else found


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """A chunk: what was found in the scale of the taps. missed : how many filters do not meet the tolerance"""

    poles: Array
    residues: Array
    feedthrough: Array
    orders: np.ndarray
    condition: Array
    certificate: Certificate
    missed: int


def _distilled(bank: Bank, wanted: Any, subspace: Subspace | None, method: Method, options: Options) -> _Part:
    xp = namespace(bank.strict)
    found = fit_to_tolerance(bank, method, options) if options.tol is not None else fit_at_orders(bank, wanted, subspace, method, options)
    fitted = _ordered(found.fitted)
    fitted = of_width(fitted, rounded_up(fitted.poles.shape[-1], options.multiple))
    scale = xp.astype(bank.scale[:, None], fitted.residues.dtype)
    nan = xp.where(from_numpy(bank.kind == 1, bank.scale), xp.full_like(bank.scale, np.nan), xp.zeros_like(bank.scale))
    nan = xp.astype(nan[:, None], scale.dtype)
    certificate = certify(bank, fitted, found.sigma, beyond=options.beyond, precision=options.precision)
    certificate = dataclasses.replace(certificate, converged=certificate.converged & from_numpy(found.met, bank.scale))
    missed = int(np.sum(~found.met))
    return _Part(fitted.poles + nan, fitted.residues * scale + nan, bank.feedthrough, fitted.orders, fitted.condition, certificate, missed)


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
        fields[field.name] = host(values) if field.name in ("kind", "delay") else whole(values)
    certificate = Certificate(**fields)
    orders = host([part.orders for part in parts])
    same = orders.size and (orders == orders.flat[0]).all()
    poles, residues, feedthrough = (whole([getattr(part, name) for part in parts]) for name in ("poles", "residues", "feedthrough"))
    # also where a wider chunk has poles that this one has not
    lost = xp.isnan(certificate.l2)[..., None]
    poles, residues = (xp.where(lost, xp.full_like(x, np.nan), x) for x in (poles, residues))
    return Distillation(
        system=Modal(*(astype_width(a, bits) for a in (poles, residues, feedthrough)), dt),
        method=method.title,
        order=int(orders.flat[0]) if same else from_numpy(orders, feedthrough),
        converged=certificate.converged,
        condition=whole([part.condition for part in parts]),
        certificate=certificate,
        length=length,
    )
