"""Transfer functions: ratios of polynomials in z or s. They stay at the edge; see the conventions page for why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from ssmid._array import Array, harmonize, namespace, to_numpy
from ssmid.systems.base import System, expect_shape


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TransferFunction(System):
    """A bank of scalar transfer functions ``num(z) / den(z)``, coefficients in descending powers of z (or s).

    num : ``(*batch, q+1)``   den : ``(*batch, n+1)``, q <= n

    A numerator shorter than the denominator has lower degree: ``num = [1]``, ``den = [1, -0.5]`` is ``1 / (z - 0.5)``.
    The denominator's first coefficient must not be zero. Use :func:`from_ba` for the powers of 1/z of ``scipy.signal.lfilter``.
    Raises ValueError for improper functions (q > n), zero denominators, and NaN in a single system.

    >>> TransferFunction([1.0], [1.0, -0.5])
    TransferFunction(order=1, batch=(), dt=1, float64)
    """

    core_ndim: ClassVar = {"num": 1, "den": 1}
    num: Array
    den: Array
    dt: float | bool = 1  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        num, den = harmonize(num=self.num, den=self.den)
        for name, array in (("num", num), ("den", den)):
            expect_shape(name, array, 1, "(*batch, coefficients)")
            if array.shape[-1] == 0:
                raise ValueError(f"{name}: expected at least one coefficient, got shape {tuple(array.shape)}")
        if num.shape[-1] > den.shape[-1]:
            raise ValueError(
                f"expected a proper transfer function (numerator degree <= denominator degree), "
                f"got degrees {num.shape[-1] - 1} and {den.shape[-1] - 1}"
            )
        if den.ndim == 1 and to_numpy(den[0]) == 0:
            raise ValueError("den: expected a first coefficient that is not zero, got 0")
        self._settle(num=num, den=den)

    @property
    def order(self) -> int:
        """The degree of the denominator."""
        return self.den.shape[-1] - 1

    def _describe(self) -> Iterator[str]:
        yield f"order={self.order}"


def tf(num: Any, den: Any, dt: float | bool = 1) -> TransferFunction:
    """A :class:`TransferFunction` as control users write it: leading zeros of a single numerator or denominator are dropped.

    >>> tf([0, 1], [1, -0.5], dt=0.1)
    TransferFunction(order=1, batch=(), dt=0.1, float64)
    """
    num, den = (_without_leading_zeros(c) for c in harmonize(num=num, den=den))
    return TransferFunction(num, den, dt)


def from_ba(b: Any, a: Any, dt: float | bool = 1) -> TransferFunction:
    """A :class:`TransferFunction` from ``b`` and ``a`` in ascending powers of 1/z, as ``scipy.signal.lfilter`` takes them.

    ``H(z) = (b0 + b1/z + ...) / (a0 + a1/z + ...)``: both are padded at the end to one length, which is a multiplication of
    numerator and denominator by one power of z.

    >>> from_ba([0.0, 1.0], [1.0]).order        # a pure delay has a pole at zero
    1
    """
    b, a = harmonize(b=b, a=a)
    xp = namespace(b)
    for name, array in (("b", b), ("a", a)):
        expect_shape(name, array, 1, "(*batch, coefficients)")
    length = max(b.shape[-1], a.shape[-1])
    b, a = (xp.concat([c, xp.zeros((*c.shape[:-1], length - c.shape[-1]), dtype=c.dtype, device=c.device)], axis=-1) for c in (b, a))
    return TransferFunction(b, a, dt)


def _without_leading_zeros(coefficients: Array) -> Array:
    if coefficients.ndim == 0:
        return namespace(coefficients).reshape(coefficients, (1,))
    if coefficients.ndim > 1 or coefficients.shape[-1] == 0:
        return coefficients
    nonzero = to_numpy(coefficients).nonzero()[0]
    return coefficients[int(nonzero[0]) if len(nonzero) else coefficients.shape[-1] - 1 :]
