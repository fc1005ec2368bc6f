"""Numbers, symbols and polynomials: floats into SymPy and back without loss, and ratios of polynomials in one variable."""

from __future__ import annotations

from fractions import Fraction
from math import floor, nextafter
from typing import Any

import numpy as np
import sympy

Variable = str | sympy.Symbol | None


# ---------------------------------------------------------------- numbers


def sympy_numbers(array: np.ndarray, rational: bool) -> np.ndarray:
    """``array`` as an object array of SymPy numbers; ValueError where one is not finite."""
    if not np.isfinite(array).all():
        raise ValueError(f"expected finite numbers, got {array[~np.isfinite(array)][0]}")
    convert = simplest_fraction if rational else exact_float
    made = np.empty(array.shape, dtype=object)
    for index, x in np.ndenumerate(array):
        made[index] = convert(x.real) + (convert(x.imag) * sympy.I if np.iscomplexobj(array) else 0)
    return made


def exact(expr: Any) -> Any:
    """``expr`` with every Float as the binary fraction that it is."""
    return expr.xreplace({f: sympy.Rational(f) for f in expr.atoms(sympy.Float)})


def settled(expr: Any, rounded: bool) -> Any:
    """``expr``, its fractions rounded to floats where floats went in; integers stay."""
    expr = sympy.sympify(expr)
    if not rounded:
        return expr
    if isinstance(expr, sympy.MatrixBase):
        return expr.applyfunc(lambda e: settled(e, True))
    fractions = {r: sympy.Float(r, 15) for r in expr.atoms(sympy.Rational) if not r.is_Integer or abs(r) >= 2**53}
    return expr.xreplace(fractions)


def floats(poly: sympy.Poly, length: int) -> np.ndarray:
    coefficients = [complex(sympy.N(c, 17)) for c in descending(poly, length)]
    return np.array(coefficients) if any(c.imag for c in coefficients) else np.array([c.real for c in coefficients])


def shortened(expr: Any, digits: int) -> Any:
    return expr.xreplace({f: sympy.Float(f, digits) for f in expr.atoms(sympy.Float)})


def exact_float(x: Any) -> sympy.Number:
    """A Float of 53 bits, or an Integer where ``x`` is one: nothing is lost and ``1.0*z`` reads ``z``."""
    x = float(x)
    return sympy.Integer(int(x)) if x == int(x) and abs(x) < 2**53 else sympy.Float(x)


def simplest_fraction(x: Any) -> Any:
    """The fraction of smallest denominator that rounds to the float ``x`` (Stern-Brocot search by continued fractions)."""
    if x == 0:
        return sympy.Integer(0)
    size = abs(x)
    below = np.nextafter(size, size.dtype.type(0)) if isinstance(size, np.floating) else nextafter(size, 0)
    value, below = Fraction(float(size)), Fraction(float(below))
    # slightly less than half the gap: at the midpoint itself rounding to even could go the other way
    reach = (value - below) * Fraction(499, 1000)
    simple = _between(value - reach, value + reach)
    return sympy.Rational(simple.numerator, simple.denominator) * (1 if x > 0 else -1)


def _between(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of smallest denominator in a positive interval."""
    terms = []
    while floor(low) != low and floor(low) == floor(high):
        terms.append(floor(low))
        low, high = 1 / (high - terms[-1]), 1 / (low - terms[-1])
    value = Fraction(floor(low) + (floor(low) != low))
    for term in reversed(terms):
        value = term + 1 / value
    return value


# ---------------------------------------------------------------- symbols


def as_symbol(variable: Variable, default: str) -> sympy.Symbol:
    return sympy.Symbol(default) if variable is None else sympy.Symbol(variable) if isinstance(variable, str) else variable


def variable_of(expr: Any, variable: Variable, values: dict[Any, float] | None = None) -> sympy.Symbol:
    """``variable``, matched by name to a symbol of ``expr`` (which may carry assumptions); z or s where it is not given."""
    free = {s for s in expr.free_symbols if s not in (values or {}) and s.name not in (values or {})}
    if variable is None:
        candidates = [s for s in free if s.name in ("z", "s")]
        if len(candidates) > 1 or (free and not candidates):
            raise ValueError(f"variable: expected one of the symbols {sorted(map(str, free))} to be named, got None")
        return candidates[0] if candidates else sympy.Symbol("z")
    v = as_symbol(variable, "z")
    return next((s for s in free if s == v), next((s for s in free if s.name == v.name), v))


# ---------------------------------------------------------------- ratios of polynomials


def ratio_in(num: list[Any], den: list[Any], v: sympy.Symbol, inverse: bool) -> Any:
    """``num / den`` of equally many coefficients, in descending powers of ``v`` or ascending powers of ``1/v``."""
    return polynomial(num, v, inverse) / polynomial(den, v, inverse)


def polynomial(coefficients: list[Any], v: sympy.Symbol, inverse: bool) -> Any:
    degree = len(coefficients) - 1
    return sympy.Add(*(c * (v**-k if inverse else v ** (degree - k)) for k, c in enumerate(coefficients)))


def ratio_of(expr: Any, v: sympy.Symbol) -> tuple[sympy.Poly, sympy.Poly]:
    """Numerator and denominator of an expression as polynomials in ``v`` over one exact field."""
    num, den = sympy.fraction(sympy.together(exact(expr)))
    try:
        return sympy.Poly(num, v, field=True).unify(sympy.Poly(den, v, field=True))
    except sympy.PolynomialError:
        raise ValueError(f"expected a rational function of {v}, got {expr}") from None


def degree(poly: sympy.Poly) -> int:
    return -1 if poly.is_zero else len(poly.all_coeffs()) - 1


def expect_proper(num: sympy.Poly, den: sympy.Poly) -> None:
    if degree(num) > degree(den):
        raise ValueError(f"expected a proper transfer function (degree of numerator <= denominator), got {degree(num)} and {degree(den)}")


def descending(poly: sympy.Poly, length: int) -> list[Any]:
    """Coefficients in descending powers, filled up with leading zeros."""
    coefficients = [] if poly.is_zero else poly.all_coeffs()
    return [sympy.Integer(0)] * (length - len(coefficients)) + coefficients


def common_denominator(ratios: list[tuple[sympy.Poly, sympy.Poly]]) -> Any:
    """The least common multiple of the denominators."""
    common: Any = ratios[0][1]
    for _, den in ratios[1:]:
        common = sympy.lcm(common, den)
    return common
