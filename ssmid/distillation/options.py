"""What a caller of the distiller may ask for, checked in one place."""

from __future__ import annotations

import dataclasses
from math import inf
from numbers import Real
from typing import Any

import numpy as np

from ssmid._array import Array, is_array, to_numpy

NORMS = ("l2", "hankel", "hinf", "l1")
BEYOND = ("zero", "free")
PRECISIONS = ("float64", "float32")
_LEAST = {"max_order": 1, "multiple": 1, "shared": 0, "restarts": 0, "max_iterations": 0}
"""Whole numbers, and the smallest that makes sense."""
_LEAST_OR_NONE = {"budget": 1, "exchanges": 0}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Options:
    """Arguments of :func:`ssmid.distill`, which says what they mean. Raises ValueError for what makes no sense."""

    order: int | str | Array = None
    tol: float | None = None
    norm: str = "l2"
    budget: int | None = None
    max_order: int = 64
    multiple: int = 1
    method: str = "l2"
    max_modulus: float | None = None
    real_poles: bool = False
    shared: int = 0
    beyond: str = "zero"
    weights: Array = None
    frequency_weights: Array = None
    restarts: int = 0
    exchanges: int | None = None
    max_iterations: int = 40
    gtol: float = 1e-3
    precision: str = "float64"

    def __post_init__(self) -> None:
        asked = [name for name in ("order", "tol", "budget") if getattr(self, name) is not None]
        if len(asked) != 1:
            raise ValueError(f"expected one of order, tol and budget, got {' and '.join(asked) or 'none'}")
        if isinstance(self.order, str):
            if self.order != "noise":
                raise ValueError(f"order: expected a whole number or 'noise', got {self.order!r}")
        elif is_array(self.order) and not isinstance(self.order, np.generic):
            _whole_numbers("order", to_numpy(self.order))
        elif self.order is not None:
            object.__setattr__(self, "order", whole_number("order", self.order, 1))
        given = {name: least for name, least in _LEAST_OR_NONE.items() if getattr(self, name) is not None}
        for name, least in (_LEAST | given).items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        for name, allowed in (("norm", NORMS), ("beyond", BEYOND), ("precision", PRECISIONS)):
            _one_of(name, getattr(self, name), allowed)
        if self.multiple > self.max_order and (self.order is None or isinstance(self.order, str)):
            raise ValueError(f"multiple: expected at most max_order = {self.max_order}, got {self.multiple}")
        if self.tol is not None:
            _expect_between("tol", self.tol, inf, "a positive number")
        _expect_between("gtol", self.gtol, inf, "a positive number")
        if self.max_modulus is not None:
            _expect_between("max_modulus", self.max_modulus, 1.0, "a number between 0 and 1")
        if self.weights is not None and self.frequency_weights is not None:
            raise ValueError("expected weights or frequency_weights, got both")

    @property
    def constrained(self) -> bool:
        """Whether poles are held to more than the unit circle."""
        return self.max_modulus is not None or self.real_poles

    @property
    def weighted(self) -> bool:
        return self.weights is not None or self.frequency_weights is not None

    def rounded(self, order: int) -> int:
        """``order`` as the hardware wants it: the next multiple, at most ``max_order`` where that was not the order asked for."""
        return -(-order // self.multiple) * self.multiple


def whole_number(name: str, value: Any, least: int) -> int:
    """``value`` as an int, or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or value != value // 1 or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return int(value)


def _expect_between(name: str, value: Any, most: float, words: str) -> None:
    """ValueError unless ``0 < value < most``."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < most:
        raise ValueError(f"{name}: expected {words}, got {value!r}")


def _whole_numbers(name: str, values: np.ndarray) -> None:
    bad = values[(values != np.floor(values)) | ~(values >= 0) | np.isinf(values)] if values.dtype.kind in "iuf" else values.ravel()
    if bad.size:
        raise ValueError(f"{name}: expected integers of at least 0, got {bad[0]}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected {' or '.join(repr(a) for a in allowed)}, got {value!r}")
