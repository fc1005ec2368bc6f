"""Filters in, recurrences out: the stages of the distiller in their order, chunk by chunk so that memory stays bounded."""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, as_array, astype_width, from_numpy, is_complex, namespace, width
from ssmid.distillation.bank import Bank
from ssmid.distillation.certificate import Certificate, certify
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.methods import Method, method_named
from ssmid.distillation.options import Options
from ssmid.distillation.result import Distillation
from ssmid.distillation.subspace import leading_subspace
from ssmid.systems import ImpulseResponse, Modal

CHUNK = 8192
"""Filters that are worked on at once."""


def distill(filters: Array | ImpulseResponse, order: int | str | None = None, *, chunk: int = CHUNK, **options: Any) -> Distillation:
    """Long filters as small recurrences, each with a certificate of how near the best possible it is."""
    taps = filters.taps if isinstance(filters, ImpulseResponse) else as_array(filters, "filters")
    if is_complex(taps) or taps.ndim == 0 or taps.shape[-1] == 0:
        raise ValueError(f"filters: expected real taps of shape (*batch, length), got {taps.dtype} of shape {tuple(taps.shape)}")
    chosen = Options(order=order, **options)
    method = method_named(chosen.method)
    xp = namespace(taps)
    *batch, length = taps.shape
    flat = xp.reshape(taps, (prod(batch), length))
    parts = [_distilled(flat[i : i + chunk, :], method, chosen) for i in range(0, max(1, flat.shape[0]), chunk)]
    return _assembled(parts, method, tuple(batch), length, width(taps), filters.dt if isinstance(filters, ImpulseResponse) else 1)


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """A chunk: what was found in the scale of the taps."""

    poles: Array
    residues: Array
    feedthrough: Array
    orders: np.ndarray
    condition: Array
    certificate: Certificate


def _distilled(taps: Array, method: Method, options: Options) -> _Part:
    bank = Bank.of(taps)
    xp = namespace(bank.strict)
    assert isinstance(options.order, int)
    count = min(options.rounded(options.order), bank.length)
    subspace = leading_subspace(bank, count, method.subspace or "loose")
    orders = np.where(bank.empty, 0, np.minimum(count, subspace.rank))
    fitted = method.fit(bank, orders, subspace, options)
    fitted = _ordered(fitted)
    scale = xp.astype(bank.scale[:, None], fitted.residues.dtype)
    nan = xp.where(from_numpy(bank.kind == 1, bank.scale), xp.full_like(bank.scale, np.nan), xp.zeros_like(bank.scale))
    nan = xp.astype(nan[:, None], scale.dtype)
    certificate = certify(bank, fitted, subspace.sigma)
    return _Part(fitted.poles + nan, fitted.residues * scale + nan, bank.feedthrough, orders, fitted.condition, certificate)


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
    return Distillation(
        system=Modal(*(astype_width(a, bits) for a in (poles, residues, feedthrough)), dt),
        method=method.title,
        order=int(orders.flat[0]) if same else from_numpy(orders, feedthrough),
        converged=certificate.converged,
        condition=whole([part.condition for part in parts]),
        certificate=certificate,
        length=length,
    )
