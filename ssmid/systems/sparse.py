"""State space of sparse matrices: E x' = A x + B u, y = C x + D u, with up to some 100,000 states, on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import scipy.sparse

from ssmid._array import Array, harmonize, is_complex
from ssmid.systems.base import System
from ssmid.systems.state_space import StateSpace

LARGEST_DENSE = 5000
"""States up to which a sparse system is written out: two matrices of 200 MB."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SparseStateSpace(System):
    """One real state-space model whose ``A`` (and ``E``) are sparse; in discrete time ``E x[t+1] = A x[t] + B u[t]``.

    A : ``(n, n)`` SciPy sparse matrix (any format; kept as ``csc_array``)   E : the same, nonsingular, or None for the identity
    B : ``(n, m)``   C : ``(p, n)``   D : ``(p, m)`` (zero when left out): NumPy arrays, or sparse (written out)

    It evaluates at points by sparse LU decompositions (:func:`ssmid.frequency_response`), has low-rank Gramian factors
    (:func:`ssmid.gramian_factors`), and is reduced by :func:`ssmid.balanced_truncation` and :func:`ssmid.irka`. Everything else
    takes it as the dense state space that it is, up to 5000 states (:func:`to_dense`). No batch, no tensors, no float32 for A.
    Raises ValueError for shapes that do not fit, complex matrices, NaN; TypeError for what is neither sparse nor NumPy.

    >>> import scipy.sparse
    >>> laplacian = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(10000, 10000))
    >>> SparseStateSpace(laplacian, [[1.0]] + [[0.0]] * 9999, np.ones((1, 10000)))
    SparseStateSpace(order=10000, outputs=1, inputs=1, nonzeros=29998, batch=(), dt=0, float64)
    """

    core_ndim: ClassVar = {"B": 2, "C": 2, "D": 2}
    A: Any
    B: Array
    C: Array
    D: Array = None
    E: Any = None
    dt: float | bool = 0  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        A = _sparse("A", self.A)
        E = None if self.E is None else _sparse("E", self.E)
        n = A.shape[0]
        B, C, D = harmonize(B=_written_out(self.B), C=_written_out(self.C), D=_written_out(self.D))
        for name, array in (("B", B), ("C", C), ("D", D)):
            if array is not None and not isinstance(array, np.ndarray):
                raise TypeError(f"{name}: expected a NumPy array beside sparse matrices, got {type(array).__name__}")
        B, C = (array if array.ndim else array.reshape(1, 1) for array in (B, C))
        D = np.zeros((C.shape[0], B.shape[-1]), B.dtype) if D is None else D.reshape(1, 1) if D.ndim == 0 else D
        m, p = B.shape[-1], C.shape[0]
        expected = {"A": (n, n), "B": (n, m), "C": (p, n), "D": (p, m), "E": (n, n)}
        got = {"A": A.shape, "B": B.shape, "C": C.shape, "D": D.shape, "E": (n, n) if E is None else E.shape}
        if expected != got:
            raise ValueError(f"expected matrices {expected} (states {n}, inputs {m}, outputs {p}), got {got}")
        if any(is_complex(M) for M in (B, C, D)):
            raise ValueError("expected real matrices for a SparseStateSpace, got complex ones: take ssmid.StateSpace")
        object.__setattr__(self, "A", A)
        object.__setattr__(self, "E", E)
        self._settle(B=B, C=C, D=D)

    @property
    def order(self) -> int:
        """The number of states."""
        return self.A.shape[0]

    @property
    def outputs(self) -> int:
        return self.C.shape[0]

    @property
    def inputs(self) -> int:
        return self.B.shape[1]

    @property
    def mass(self) -> Any:
        """``E``, the identity written out where there is none."""
        return scipy.sparse.eye_array(self.order, format="csc") if self.E is None else self.E

    def _describe(self) -> Iterator[str]:
        yield from (f"order={self.order}", f"outputs={self.outputs}", f"inputs={self.inputs}", f"nonzeros={self.A.nnz}")


def to_dense(system: SparseStateSpace) -> StateSpace:
    """The same system as a StateSpace with ``E^-1 A`` and ``E^-1 B`` written out.

    Raises ValueError for more than 5000 states, and for a singular ``E``.

    >>> import scipy.sparse
    >>> to_dense(SparseStateSpace(-4.0 * scipy.sparse.eye_array(1), [[1.0]], [[1.0]], E=2.0 * scipy.sparse.eye_array(1))).A
    array([[-2.]])
    """
    if system.order > LARGEST_DENSE:
        raise ValueError(
            f"expected at most {LARGEST_DENSE} states for dense algebra, got {system.order}: reduce the system first "
            "(ssmid.balanced_truncation or ssmid.irka)"
        )
    A, B = system.A.toarray(), system.B
    if system.E is not None:
        try:
            both = np.linalg.solve(system.E.toarray(), np.hstack([A, np.asarray(B, float)]))
        except np.linalg.LinAlgError:
            raise ValueError("E: expected a nonsingular matrix, got a singular one") from None
        A, B = both[:, : system.order], both[:, system.order :].astype(B.dtype)
    return StateSpace(A.astype(B.dtype), B, system.C, system.D, system.dt)


def _sparse(name: str, matrix: Any) -> Any:
    if not scipy.sparse.issparse(matrix):
        if not isinstance(matrix, np.ndarray | list):
            raise TypeError(f"{name}: expected a SciPy sparse matrix, got {type(matrix).__name__}")
        matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name}: expected a square matrix, got shape {tuple(matrix.shape)}")
    matrix = scipy.sparse.csc_array(matrix)
    if matrix.dtype.kind == "c":
        raise ValueError(f"{name}: expected a real matrix, got dtype {matrix.dtype}: take ssmid.StateSpace")
    matrix = matrix.astype(np.float64)
    if not np.isfinite(matrix.data).all():
        raise ValueError(f"{name}: expected finite numbers, got {matrix.data[~np.isfinite(matrix.data)][0]}")
    matrix.sum_duplicates()
    return matrix


def _written_out(matrix: Any) -> Any:
    return matrix.toarray() if scipy.sparse.issparse(matrix) else matrix


