"""State space: x' = A x + B u, y = C x + D u, in continuous or discrete time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from ssmid._array import Array, harmonize, is_array, namespace
from ssmid.systems.base import System, expect_shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StateSpace(System):
    """A state-space model, or a batch of them.

    A : ``(*batch, n, n)``   B : ``(*batch, n, m)``   C : ``(*batch, p, n)``   D : ``(*batch, p, m)`` (zero when left out)

    ``m`` inputs and ``p`` outputs are always there; batch axes broadcast. ``dt``: see :class:`System`.
    Raises ValueError for shapes that do not fit, mixed array kinds, or NaN in a single system.

    >>> import numpy as np
    >>> StateSpace(np.array([[0.5]]), np.array([[1.0]]), np.array([[2.0]]))
    StateSpace(order=1, outputs=1, inputs=1, batch=(), dt=1, float64)
    """

    core_ndim: ClassVar = {"A": 2, "B": 2, "C": 2, "D": 2}
    A: Array
    B: Array
    C: Array
    D: Array = None
    dt: float | bool = 1  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        A, B, C, D = harmonize(A=self.A, B=self.B, C=self.C, D=self.D)
        for name, array in (("A", A), ("B", B), ("C", C)):
            expect_shape(name, array, 2, "(*batch, rows, columns)")
        n, m, p = A.shape[-1], B.shape[-1], C.shape[-2]
        if D is None:
            xp = namespace(A)
            D = xp.zeros((p, m), dtype=B.dtype, device=A.device)
        elif D.ndim == 0:
            D = namespace(D).reshape(D, (1, 1))
        expect_shape("D", D, 2, "(*batch, outputs, inputs)")
        expected = {"A": (n, n), "B": (n, m), "C": (p, n), "D": (p, m)}
        got = {"A": tuple(A.shape[-2:]), "B": tuple(B.shape[-2:]), "C": tuple(C.shape[-2:]), "D": tuple(D.shape[-2:])}
        if expected != got:
            raise ValueError(f"expected matrices {expected} (states {n}, inputs {m}, outputs {p}), got {got}")
        self._settle(A=A, B=B, C=C, D=D)

    @property
    def order(self) -> int:
        """The number of states."""
        return self.A.shape[-1]

    @property
    def outputs(self) -> int:
        return self.C.shape[-2]

    @property
    def inputs(self) -> int:
        return self.B.shape[-1]

    def _describe(self) -> Iterator[str]:
        yield from (f"order={self.order}", f"outputs={self.outputs}", f"inputs={self.inputs}")


def ss(A: Any, B: Any, C: Any, D: Any = None, dt: float | bool = 1) -> StateSpace:
    """A :class:`StateSpace` from matrices as control users write them: scalars, lists and vectors are made matrices.

    >>> ss(0.5, 1, 2, 0)
    StateSpace(order=1, outputs=1, inputs=1, batch=(), dt=1, float64)
    """
    matrices = harmonize(A=A, B=B, C=C, D=D)
    A, B, C, D = (_as_matrix(M, column) for M, column in zip(matrices, (False, True, False, False), strict=True))
    return StateSpace(A, B, C, D, dt)


def _as_matrix(M: Array, column: bool) -> Array:
    if M is None or not is_array(M) or M.ndim >= 2:
        return M
    return namespace(M).reshape(M, (-1, 1) if column else (1, -1))
