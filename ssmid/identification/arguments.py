"""What callers ask of a fit, checked in one way for all of them: orders, tolerances, weights, stability."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np

from ssmid._array import Array, as_array, as_complex, broadcast_batch, double, dtype_name, is_complex, namespace, to_numpy
from ssmid.analysis.polynomial import Host

_REAL = 1e-8
"""Relative to its modulus, the imaginary part of a pole that is meant to be real, and the distance of conjugates."""


def checked_order(name: str, order: Any, least: int, most: int, of: str) -> int:
    """``order`` as an int; ValueError unless it is a whole number from ``least`` to ``most``, which is what ``of`` tells."""
    if not _is_whole(order) or not least <= int(order) <= most:
        raise ValueError(f"{name}: expected {least} to {most} for {of}, got {order!r}")
    return int(order)


def checked_orders(order: Any, tol: Any, max_order: Any, *, least: int, most: int, of: str) -> None:
    """ValueError for an order or a largest order out of range, for a tolerance that is none, and for two of them that contradict."""
    if order is not None:
        checked_order("order", order, least, most, of)
    if max_order is not None:
        checked_order("max_order", max_order, least, most, of)
    if tol is not None:
        checked_tolerance(tol)
    refuse_both(order, tol=tol, max_order=max_order)


def checked_tolerance(tol: Any, *, zero: bool = False) -> float:
    """``tol`` as a float; ValueError unless it is a positive number (or ``zero``)."""
    if isinstance(tol, bool) or not isinstance(tol, Real) or not (float(tol) > 0 or (zero and tol == 0)):
        raise ValueError(f"tol: expected {'a number from 0 on' if zero else 'a positive number'}, got {tol!r}")
    return float(tol)


def refuse_both(order: Any, **others: Any) -> None:
    """ValueError for an order together with what an order would be found by."""
    for name, value in others.items():
        if order is not None and value is not None:
            raise ValueError(f"expected order or {name}, got both ({order} and {value})")


def checked_count(name: str, count: Any, *, zero: bool = False) -> int:
    """``count`` as an int; ValueError unless it is a whole number of at least 1 (or ``zero``)."""
    if not _is_whole(count) or int(count) < (0 if zero else 1):
        raise ValueError(f"{name}: expected a {'whole number from 0 on' if zero else 'positive integer'}, got {count!r}")
    return int(count)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def checked_stable(stable: Any, *others: str) -> None:
    """ValueError unless ``stable`` is a boolean or one of the words ``others``."""
    if not (isinstance(stable, (bool, np.bool_)) or stable in others):
        raise ValueError(f"stable: expected {', '.join(['False', 'True', *map(repr, others)])}, got {stable!r}")


def checked_weights(weights: Any, batch: tuple[int, ...], channels: int, like: Array) -> Array:
    """Weights of the errors at ``k`` points, in double precision and of largest value 1, ``(k,)`` or ``(*batch, k)``.

    batch : of the systems   channels : the number of further batch axes, of channels that share weights: of length 1, or left out
    like : the values ``(..., k)``   Raises ValueError for other shapes, and for what is not positive, finite and real.
    """
    k = like.shape[-1]
    weights = as_array(weights, "weights", like=like)
    given, full = tuple(weights.shape), (*batch, k)
    if given[-1:] != (k,) or is_complex(weights):
        raise ValueError(f"weights: expected {k} positive numbers for each system, got {dtype_name(weights)} of shape {given}")
    xp, weights = namespace(weights), double(weights)
    if weights.ndim > len(full) and set(given[-1 - channels : -1]) <= {1}:
        weights = xp.reshape(weights, (*given[: -1 - channels], k))
    if weights.ndim > len(full) or broadcast_batch(weights=weights.shape, values=full) != full:
        raise ValueError(f"weights: expected shape {(k,)} or {full}, the same for channels that share poles, got {given}")
    host = to_numpy(weights)
    if not (np.isfinite(host) & (host > 0)).all():
        bad = host[~(np.isfinite(host) & (host > 0))][0]
        raise ValueError(f"weights: expected {k} positive numbers for each system, got {bad}")
    return weights / xp.max(weights, axis=-1, keepdims=True)


def checked_poles(poles: Any, order: int | None, batch: tuple[int, ...]) -> Host:
    """Poles to start from, ``(order,)`` or ``(*batch, order)`` complex, those that are real but for rounding made real.

    Raises ValueError for other shapes or numbers of them, and for what is not finite or not closed under conjugation.
    """
    host = to_numpy(double(as_complex(as_array(poles, "poles"))))
    n = order if order is not None else host.shape[-1] if host.ndim else 0
    if host.ndim == 0 or n == 0 or host.shape[-1] != n or host.ndim - 1 > len(batch):
        raise ValueError(f"poles: expected shape {('order',) if order is None else (n,)} or {(*batch, n)}, got {host.shape}")
    if broadcast_batch(poles=host.shape[:-1], values=batch) != batch:
        raise ValueError(f"poles: expected shape {(*batch, n)}, got {host.shape}")
    host = np.where(np.abs(np.imag(host)) <= _REAL * np.abs(host), np.real(host) + 0j, host)
    apart = np.abs(host[..., :, None] - host.conj()[..., None, :]).min(axis=-1)
    unpaired = (np.sum(np.imag(host) > 0, axis=-1) != np.sum(np.imag(host) < 0, axis=-1)).any()
    if not np.isfinite(host).all() or unpaired or (apart > _REAL * np.abs(host)).any():
        raise ValueError("poles: expected a set closed under conjugation, as the poles of real systems are")
    return host
