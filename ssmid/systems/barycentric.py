"""Barycentric form: a rational function by its values at support points, as AAA finds it and as nothing else evaluates so well."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from ssmid._array import Array, as_complex, harmonize, namespace
from ssmid.systems.base import System, expect_shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Barycentric(System):
    """A bank of rational functions ``r(x) = n(x) / d(x)``, ``n = sum_j weights_j values_j / (x - support_j)``, ``d`` without the values.

    support : ``(*batch, n)`` complex points of z (discrete time) or s   values, weights : ``(*batch, n)`` complex

    ``r(support_j) = values_j`` wherever the weight is not zero (Schneider & Werner, Math. Comp. 47, 1986). With ``real`` each support
    point off the real axis brings its conjugate, with conjugate value and weight, which is not listed; of values and weights on the
    axis only the real part counts. So the coefficients of r are real. The degree is at most the number of support points less one,
    conjugates counted. Batch axes of the three arrays broadcast: channels that share poles have one support and one set of weights.

    Raises ValueError for counts that differ, batch axes that do not broadcast, or NaN in a single system.

    >>> Barycentric([1j], [0.5 - 0.5j], [1 - 1j], dt=0)         # 1 / (s + 1)
    Barycentric(order=1, batch=(), dt=0, complex128)
    """

    core_ndim: ClassVar = {"support": 1, "values": 1, "weights": 1}
    support: Array
    values: Array
    weights: Array
    dt: float | bool = 1  # pyright: ignore[reportIncompatibleMethodOverride]
    real: bool = True

    def __post_init__(self) -> None:
        arrays = dict(zip(self.core_ndim, harmonize(support=self.support, values=self.values, weights=self.weights), strict=True))
        for name, array in arrays.items():
            expect_shape(name, array, 1, "(*batch, n)")
        counts = {name: array.shape[-1] for name, array in arrays.items()}
        if len(set(counts.values())) > 1 or counts["support"] == 0:
            raise ValueError(f"expected one value and one weight for each of at least one support point, got {counts}")
        self._settle(**{name: as_complex(array) for name, array in arrays.items()})

    @property
    def order(self) -> int:
        """The number of poles: support points less one, conjugates counted (the largest number of a batch)."""
        n = self.support.shape[-1]
        if self.real:
            xp = namespace(self.support)
            paired = xp.sum(xp.astype(xp.imag(self.support) != 0, xp.int64), axis=-1)
            n += int(xp.max(paired)) if all(self.support.shape) else 0
        return n - 1

    @property
    def is_complex(self) -> bool:
        """Whether conjugates are not implied, so that the impulse response is complex."""
        return not self.real

    def with_conjugates(self) -> tuple[Array, Array, Array]:
        """Support, values and weights with the conjugates that are not listed; those of points on the real axis have weight zero."""
        if not self.real:
            return self.support, self.values, self.weights
        xp = namespace(self.support)
        axis = xp.imag(self.support) == 0
        values, weights = (xp.where(axis, as_complex(xp.real(a)), a) for a in (self.values, self.weights))
        beside = xp.where(axis, xp.zeros_like(weights), xp.conj(weights))
        z, f = (xp.concat([a, xp.conj(a)], axis=-1) for a in (self.support, values))
        return z, f, xp.concat([weights, beside], axis=-1)

    def _describe(self) -> Iterator[str]:
        yield f"order={self.order}"
        if not self.real:
            yield "real=False"
