"""What a caller of the distiller may ask for, checked in one place."""

from __future__ import annotations

import dataclasses
from typing import Any

from ssmid._array import Array

NORMS = ("l2", "hankel", "hinf", "l1")
BEYOND = ("zero", "free")
PRECISIONS = ("float64", "float32")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Options:
    """Arguments of :func:`ssmid.distill`, which says what they mean. Raises ValueError for what makes no sense."""

    order: int | str | None = None
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
    max_iterations: int = 40
    gtol: float = 1e-3
    precision: str = "float64"

    def __post_init__(self) -> None:
        asked = [name for name in ("order", "tol", "budget") if getattr(self, name) is not None]
        if len(asked) != 1:
            raise ValueError(f"expected one of order, tol and budget, got {' and '.join(asked) or 'none'}")
        if isinstance(self.order, str):
            _one_of("order", self.order, ("noise",))
        for name, least in (("order", 1), ("budget", 1), ("max_order", 1), ("multiple", 1), ("shared", 0), ("restarts", 0)):
            _whole(name, getattr(self, name), least)
        _whole("max_iterations", self.max_iterations, 0)
        for name, allowed in (("norm", NORMS), ("beyond", BEYOND), ("precision", PRECISIONS)):
            _one_of(name, getattr(self, name), allowed)
        if self.tol is not None and not self.tol > 0:
            raise ValueError(f"tol: expected a positive number, got {self.tol}")
        if not self.gtol > 0:
            raise ValueError(f"gtol: expected a positive number, got {self.gtol}")
        if self.max_modulus is not None and not 0 < self.max_modulus < 1:
            raise ValueError(f"max_modulus: expected a number between 0 and 1, got {self.max_modulus}")
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


def _whole(name: str, value: Any, least: int) -> None:
    if value is None or isinstance(value, str):
        return
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected {' or '.join(repr(a) for a in allowed)}, got {value!r}")
