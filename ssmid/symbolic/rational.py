"""Transfer functions and state spaces of SymPy objects, each into the other, exactly; and back to numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy
from sympy.polys.matrices import DomainMatrix

from ssmid.symbolic.algebra import (
    Variable,
    as_symbol,
    common_denominator,
    degree,
    descending,
    exact,
    expect_proper,
    floats,
    ratio_in,
    ratio_of,
    settled,
    variable_of,
)
from ssmid.systems import TransferFunction


def transfer_function(A: Any, B: Any, C: Any, D: Any = None, variable: Variable = "z", *, inverse: bool = False) -> Any:
    """``C (z I - A)^-1 B + D`` of SymPy matrices, exactly: an expression, or a Matrix where there are several channels.

    The characteristic polynomial ``z^n + a_1 z^(n-1) + ...`` and the vectors ``R_k B = A R_(k-1) B + a_k B`` give the
    numerators ``C R_k B`` (Faddeev and Leverrier; Kailath, Linear Systems, 1980, appendix A.7). Floats are taken as the binary
    fractions that they are, and rounded once at the end. Common factors are not cancelled: ``sympy.cancel`` does that.

    >>> from sympy.abc import a
    >>> transfer_function([[a]], [[1]], [[2]], [[3]])
    (-3*a + 3*z + 2)/(-a + z)
    """
    A, B, C = (sympy.Matrix(M) for M in (A, B, C))
    D = sympy.zeros(C.rows, B.cols) if D is None else sympy.Matrix(D)
    shapes = {"A": (A.rows, A.rows), "B": (A.rows, B.cols), "C": (C.rows, A.rows), "D": (C.rows, B.cols)}
    if shapes != {"A": A.shape, "B": B.shape, "C": C.shape, "D": D.shape}:
        raise ValueError(f"expected matrices {shapes}, got A {A.shape}, B {B.shape}, C {C.shape}, D {D.shape}")
    v = as_symbol(variable, "z")
    rounded = any(M.has(sympy.Float) for M in (A, B, C, D))
    A, B, C, D = DomainMatrix.unify(*(DomainMatrix.from_Matrix(exact(M)).to_dense() for M in (A, B, C, D)))
    den = A.charpoly()
    nums = [D]
    state = B
    for k in range(1, len(den)):
        nums.append(C * state + D.scalarmul(den[k]))
        state = A * state + B.scalarmul(den[k])
    to_sympy = A.domain.to_sympy
    den = [settled(to_sympy(c), rounded) for c in den]
    nums = [settled(N.to_Matrix(), rounded) for N in nums]
    result = sympy.Matrix(D.shape[0], D.shape[1], lambda i, j: ratio_in([N[i, j] for N in nums], den, v, inverse))
    return result[0, 0] if result.shape == (1, 1) else result


def state_space(
    expr: Any, variable: Variable = None, *, form: str = "controllable"
) -> tuple[sympy.Matrix, sympy.Matrix, sympy.Matrix, sympy.Matrix]:
    """Companion matrices A, B, C, D of a proper rational expression in z or s.

    form : "controllable" (coefficients of the denominator in the first row, as scipy's ``tf2ss``) or "observable" (its transpose)

    A Matrix of expressions gives one companion block for each input (each output in the observable form), over the common
    denominator of its column (row). Raises ValueError for improper expressions.

    >>> from sympy.abc import a, z
    >>> state_space((z + 2) / (z**2 + a * z + 3))
    (Matrix([
    [-a, -3],
    [ 1,  0]]), Matrix([
    [1],
    [0]]), Matrix([[1, 2]]), Matrix([[0]]))
    """
    expr = sympy.sympify(expr)
    v = variable_of(expr, variable)
    channels = expr if isinstance(expr, sympy.MatrixBase) else sympy.Matrix([[expr]])
    if form == "observable":
        A, B, C, D = state_space(channels.T, v)
        return A.T, C.T, B.T, D.T
    if form != "controllable":
        raise ValueError(f'form: expected "controllable" or "observable", got {form!r}')
    blocks = [_controllable_column(channels[:, j], v) for j in range(channels.cols)]
    return (
        sympy.diag(*(b[0] for b in blocks)),
        sympy.diag(*(b[1] for b in blocks)),
        sympy.Matrix.hstack(*(b[2] for b in blocks)),
        sympy.Matrix.hstack(*(b[3] for b in blocks)),
    )


def from_expression(
    expr: Any, dt: float | bool = 1, *, variable: Variable = None, values: dict[Any, float] | None = None
) -> TransferFunction:
    """A :class:`TransferFunction` from a SymPy expression in z or s, with ``values`` for its other symbols.

    A Matrix gives channels of batch ``(outputs, inputs)`` over their common denominator, made monic.
    Raises ValueError for improper functions and for symbols without a value.

    >>> from sympy.abc import a, z
    >>> from_expression(1 / (z - a), values={a: 0.5}).den
    array([ 1. , -0.5])
    """
    expr = sympy.sympify(expr)
    v = variable_of(expr, as_symbol(variable, "s" if dt is not True and dt == 0 else "z"), values)
    expr = expr.subs(values or {})
    unknown = expr.free_symbols - {v}
    if unknown:
        raise ValueError(f"values: expected a number for each of {sorted(map(str, unknown))}, got {values}")
    channels = expr if isinstance(expr, sympy.MatrixBase) else sympy.Matrix([[expr]])
    ratios = [ratio_of(channel, v) for channel in channels]
    for ratio in ratios:
        expect_proper(*ratio)
    common = common_denominator(ratios).monic()
    num = np.array([floats(num * common.quo(den), degree(common) + 1) for num, den in ratios])
    den = floats(common, degree(common) + 1)
    single = not isinstance(expr, sympy.MatrixBase)
    return TransferFunction(num[0] if single else num.reshape(*channels.shape, -1), den, dt)


def _controllable_column(column: Any, v: sympy.Symbol) -> tuple[sympy.Matrix, ...]:
    """Companion realization of transfer functions of one input over their common denominator."""
    ratios = [ratio_of(channel, v) for channel in column]
    for ratio in ratios:
        expect_proper(*ratio)
    den = common_denominator(ratios)
    nums = [descending(num * den.quo(own), degree(den) + 1) for num, own in ratios]
    lead, *tail = den.all_coeffs()
    n = len(tail)
    rounded = column.has(sympy.Float)
    A = sympy.Matrix(n, n, lambda i, j: -tail[j] / lead if i == 0 else sympy.Integer(i == j + 1))
    B = sympy.Matrix(n, 1, lambda i, _: sympy.Integer(i == 0))
    D = sympy.Matrix([b[0] / lead for b in nums])
    C = sympy.Matrix(len(nums), n, lambda i, j: (nums[i][j + 1] - D[i] * tail[j]) / lead)
    return tuple(settled(M, rounded) for M in (A, B, C, D))
