"""What a caller of l2-optimal approximation wants, and where the search starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ssmid._array import Array, from_numpy, namespace, to_numpy
from ssmid.analysis.characteristics import poles as poles_of
from ssmid.reduction.arguments import order_or_tolerance
from ssmid.reduction.h2_poles import spread_apart
from ssmid.reduction.result import Result
from ssmid.systems import System

Start: TypeAlias = "str | System | Result"


@dataclasses.dataclass(frozen=True, eq=False)
class H2Request:
    """An order or a tolerance, the starts, and when to stop."""

    order: int | None
    tol: float | None
    max_order: int | None
    starts: tuple[Start, ...]
    max_iterations: int
    gtol: float
    restarts: int
    exchanges: int = 0

    @classmethod
    def of(
        cls,
        order: int | None,
        tol: float | None,
        max_order: int | None,
        start: Start | Sequence[Start],
        max_iterations: int,
        gtol: float,
        restarts: int,
        exchanges: int = 0,
    ) -> H2Request:
        starts: tuple[Any, ...] = tuple(start) if isinstance(start, (list, tuple)) else (start,)
        for one in starts:
            if isinstance(one, str) and one != "balanced":
                raise ValueError(f"start: expected 'balanced', a system or a result, got {one!r}")
            if not isinstance(one, (str, System, Result)):
                raise TypeError(f"start: expected 'balanced', a System or a Result (or several of these), got {type(one).__name__}")
        if not starts:
            raise ValueError("start: expected at least one, got none")
        for name, value in (("max_iterations", max_iterations), ("restarts", restarts), ("exchanges", exchanges)):
            if isinstance(value, bool) or int(value) != value or value < 0:
                raise ValueError(f"{name}: expected an integer of at least 0, got {value}")
        if not gtol > 0:
            raise ValueError(f"gtol: expected a positive number, got {gtol}")
        order_or_tolerance(order, tol, max_order)
        if tol is not None and any(not isinstance(s, str) for s in starts):
            raise ValueError("start: expected 'balanced' with tol, whose order is not known beforehand")
        return cls(order, tol, max_order, starts, int(max_iterations), float(gtol), int(restarts), int(exchanges))


def start_of_system(start: System | Result, batch: tuple[int, ...], order: int, *, real: bool) -> np.ndarray:
    """``(size, order)`` the poles of a given start for each element of ``batch``, in the domain of ``start``."""
    system = start.system if isinstance(start, Result) else start
    found = to_numpy(poles_of(system))
    if found.shape[-1] != order:
        raise ValueError(f"start: expected a system of order {order}, got {found.shape[-1]}")
    try:
        found = np.broadcast_to(found, (*batch, order)).reshape(-1, order)
    except ValueError:
        raise ValueError(f"start: expected a batch shape that broadcasts to {batch}, got {found.shape[:-1]}") from None
    return closed(found) if real else found.copy()


def closed(poles: np.ndarray) -> np.ndarray:
    """``(batch, d)`` poles of real systems with conjugates as exact neighbours, the upper one first, and reals last."""
    out = np.zeros(poles.shape, complex)
    for k, row in enumerate(poles):
        size = 1e-9 * (np.abs(row) + 1e-300)
        upper, reals = row[row.imag > size], np.sort(row[np.abs(row.imag) <= size].real)
        joined = np.concatenate([np.stack([upper, upper.conj()], -1).ravel(), reals])
        if len(joined) != len(row):
            raise ValueError("start: expected poles closed under conjugation for a real system")
        out[k] = joined
    return out


def prepared(poles: np.ndarray, orders: np.ndarray, like: Array, *, real: bool) -> tuple[Array, Array]:
    """Poles ``(batch, d)`` and which of them are live, as :func:`optimal_poles` takes them: of real banks d is even."""
    d = poles.shape[-1]
    size = d + d % 2 if real else d
    live = np.arange(size) < orders[:, None]
    padded = np.zeros((len(poles), size), complex)
    padded[:, :d] = poles
    poles, live = from_numpy(np.where(live & np.isfinite(padded), padded, 0), like), from_numpy(live, like)
    # slots that are not live stand at 0, behind all others: where they move nothing else does
    poles = spread_apart(poles, real=real)
    return namespace(poles).where(live, poles, namespace(poles).zeros_like(poles)), live
