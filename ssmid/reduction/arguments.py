"""What callers ask for: an order or a tolerance, checked in one place with one wording."""

from __future__ import annotations

from typing import Any

import numpy as np


def order_or_tolerance(order: Any, tol: float | None, max_order: Any = None) -> None:
    """ValueError unless one of ``order`` and ``tol`` is given, ``tol`` is positive, and ``max_order`` a positive whole number or None."""
    if (order is None) == (tol is None):
        raise ValueError(f"expected either order or tol, got order={order} and tol={tol}")
    if tol is not None and not tol > 0:
        raise ValueError(f"tol: expected a positive number, got {tol}")
    if max_order is not None and not (_is_whole(max_order) and max_order >= 1):
        raise ValueError(f"max_order: expected a positive integer, got {max_order}")


def checked_order(order: Any, most: int, *, larger: bool = False) -> int:
    """``order``, a whole number from 1 to ``most`` (or 1, where that is less), or ``larger``: else ValueError."""
    if not _is_whole(order) or order < 1 or (order > max(1, most) and not larger):
        raise ValueError(f"order: expected 1 to {max(1, most)}, got {order!r}")
    return int(order)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and float(value).is_integer()
