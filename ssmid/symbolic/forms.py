"""Systems as SymPy expressions, each in the form that it has, and what is read off them."""

from __future__ import annotations

from typing import Any

import sympy

from ssmid._array import to_numpy
from ssmid.analysis.conversion import to_modal, to_state_space
from ssmid.interop import nested
from ssmid.symbolic.algebra import (
    Variable,
    as_symbol,
    degree,
    descending,
    exact,
    expect_proper,
    polynomial,
    ratio_in,
    ratio_of,
    settled,
    shortened,
    sympy_numbers,
    variable_of,
)
from ssmid.symbolic.rational import from_expression, transfer_function
from ssmid.systems import ImpulseResponse, Modal, SecondOrderSections, StateSpace, System, TransferFunction, ZerosPolesGain


def expression(system: System, variable: Variable = None, *, inverse: bool = False, rational: bool = False) -> Any:
    """The transfer function of ``system`` in the form that the system has: a ratio, factors, sections or modes.

    variable : name or symbol; "z" in discrete time and "s" in continuous time when left out
    inverse : written in powers of 1/z   rational : floats become the simplest fractions that round to them

    A system of several inputs and outputs (a StateSpace, or scalar channels of batch ``(outputs, inputs)``) gives a Matrix.
    Conjugate pairs of poles and zeros are multiplied out, so that real systems have real coefficients.
    Raises ValueError for other batches, TypeError for frequency responses, which have no expression.

    >>> expression(TransferFunction([1.0, 0.5], [1.0, -0.25, 0.125]))
    (z + 0.5)/(z**2 - 0.25*z + 0.125)
    >>> expression(TransferFunction([1.0, 0.5], [1.0, -0.25, 0.125]), inverse=True, rational=True)
    (1/z + 1/(2*z**2))/(1 - 1/(4*z) + 1/(8*z**2))
    """
    _expect_system(system)
    v = as_symbol(variable, "z" if system.is_discrete else "s")
    if isinstance(system, StateSpace):
        return transfer_function(*matrices(system, rational=rational), v, inverse=inverse)
    if type(system) not in _TERMS:
        raise TypeError(f"expected a system with a rational transfer function, got {type(system).__name__}")
    options = {"real": system.real} if isinstance(system, Modal) else {}
    return _written(system, rational, v=v, inverse=inverse, **options)


def matrices(system: System, *, rational: bool = False) -> tuple[sympy.Matrix, sympy.Matrix, sympy.Matrix, sympy.Matrix]:
    """The matrices A, B, C, D of ``system`` (of its state-space form where it has another).

    >>> from ssmid.systems import ss
    >>> matrices(ss(0.5, 1, 2, 0))
    (Matrix([[0.5]]), Matrix([[1]]), Matrix([[2]]), Matrix([[0]]))
    """
    _expect_system(system)
    state = system if isinstance(system, StateSpace) else to_state_space(system)
    if state.batch_shape:
        raise ValueError(f"expected one system, got batch {state.batch_shape}: take system.map(lambda a: a[i])")
    A, B, C, D = (sympy.Matrix(*a.shape, list(sympy_numbers(to_numpy(a), rational).flat)) for a in (state.A, state.B, state.C, state.D))
    return A, B, C, D


def partial_fractions(system: Any, variable: Variable = None, *, rational: bool = False, full: bool = False) -> Any:
    """The partial fractions of a system or of an expression.

    A system gives its modes (:func:`ssmid.to_modal`), conjugate pairs joined; ``rational=True`` goes through exact fractions
    instead. An expression of exact numbers is decomposed over the rationals (and its symbols); ``full=True`` splits down to poles.

    >>> from sympy.abc import z
    >>> partial_fractions(z / (z**2 - z + sympy.Rational(2, 9)), z)
    -1/(z - 1/3) + 2/(z - 2/3)
    """
    if isinstance(system, System):
        if not rational:
            modal = system if isinstance(system, Modal) else to_modal(system)
            v = as_symbol(variable, "z" if system.is_discrete else "s")
            return _written(modal, False, v=v, inverse=False, real=modal.real, split=full)
        variable = as_symbol(variable, "z" if system.is_discrete else "s")
        system = expression(system, variable, rational=True)
    expr = sympy.sympify(system)
    v = variable_of(expr, variable)
    if expr.has(sympy.Float):
        if expr.free_symbols - {v}:
            raise ValueError("expected exact numbers beside symbols, got floats: sympy.nsimplify(expr, rational=True) makes them exact")
        return partial_fractions(from_expression(expr, True, variable=v), v, full=full)

    def apart(channel: Any) -> Any:
        terms = sympy.apart(channel, v, full=True).doit() if full else sympy.apart(channel, v)
        return sympy.Add(*(_with_monic_denominator(term, v) for term in sympy.Add.make_args(terms)))

    return expr.applyfunc(apart) if isinstance(expr, sympy.MatrixBase) else apart(expr)


def difference_equation(
    system: Any, variable: Variable = None, *, input: str = "u", output: str = "y", time: str = "t", rational: bool = False
) -> Any:
    """The difference equation of a discrete-time scalar system or expression, solved for the output now.

    >>> difference_equation(TransferFunction([1.0, 0.0], [1.0, -0.5]))
    Eq(y(t), u(t) + 0.5*y(t - 1))
    """
    if isinstance(system, System):
        if not system.is_discrete:
            raise ValueError("expected a discrete-time system, got dt=0: discretize it first with ssmid.c2d(system, dt)")
        variable = as_symbol(variable, "z")
        system = expression(system, variable, rational=rational)
    expr = sympy.sympify(system)
    if isinstance(expr, sympy.MatrixBase):
        raise ValueError(f"expected a scalar system, got {expr.shape[0]} outputs and {expr.shape[1]} inputs")
    v = variable_of(expr, variable)
    num, den = ratio_of(expr, v)
    expect_proper(num, den)
    t, y, u = sympy.Symbol(time, integer=True), sympy.Function(output), sympy.Function(input)
    b, a = descending(num, degree(den) + 1), den.all_coeffs()
    rounded = expr.has(sympy.Float)
    feed = [settled(c / a[0], rounded) * u(t - k) for k, c in enumerate(b)]
    back = [settled(-c / a[0], rounded) * y(t - k) for k, c in enumerate(a) if k]
    return sympy.Eq(y(t), sympy.Add(*feed, *back), evaluate=False)


def latex(system: Any, form: str = "transfer-function", *, digits: int = 6, inverse: bool = False, rational: bool = False) -> str:
    r"""LaTeX of a system (or of any SymPy object), floats rounded to ``digits`` significant digits.

    form : "transfer-function", "partial-fractions", "difference-equation" or "state-space"

    >>> latex(TransferFunction([1.0], [1.0, -1 / 3]), digits=3)
    '\\frac{1}{z - 0.333}'
    """
    if not isinstance(system, System):
        return sympy.latex(shortened(sympy.sympify(system), digits))
    if form == "state-space":
        A, B, C, D = (sympy.latex(shortened(M, digits)) for M in matrices(system, rational=rational))
        now, then = ("_t", "x_{t+1}") if system.is_discrete else ("(t)", r"\dot{x}(t)")
        return rf"\begin{{aligned}} {then} &= {A} x{now} + {B} u{now} \\ y{now} &= {C} x{now} + {D} u{now} \end{{aligned}}"
    made = {
        "transfer-function": lambda: expression(system, inverse=inverse, rational=rational),
        "partial-fractions": lambda: partial_fractions(system, rational=rational),
        "difference-equation": lambda: difference_equation(system, rational=rational),
    }
    if form not in made:
        raise ValueError(f"form: expected one of {[*made, 'state-space']}, got {form!r}")
    return sympy.latex(shortened(made[form](), digits))


# ---------------------------------------------------------------- each form's own expression


def _written(system: System, rational: bool, **options: Any) -> Any:
    """The expression of one system, or a Matrix of those of its channels."""
    shape = system.batch_shape
    if len(shape) not in (0, 2):
        raise ValueError(f"expected one system or channels of batch (outputs, inputs), got batch {shape}: take system.map(lambda a: a[i])")
    terms = _TERMS[type(system)]
    rows = nested(system, lambda **arrays: terms(**{name: sympy_numbers(a, rational) for name, a in arrays.items()}, **options))
    return sympy.Matrix(rows) if shape else rows


def _rational_function(num: Any, den: Any, v: sympy.Symbol, inverse: bool) -> Any:
    return ratio_in([sympy.Integer(0)] * (len(den) - len(num)) + list(num), list(den), v, inverse)


def _fir(taps: Any, v: sympy.Symbol, inverse: bool) -> Any:
    return ratio_in(list(taps), [sympy.Integer(1)] + [sympy.Integer(0)] * (len(taps) - 1), v, inverse)


def _cascade(sections: Any, v: sympy.Symbol, inverse: bool) -> Any:
    return sympy.Mul(*(ratio_in(list(row[:3]), list(row[3:]), v, inverse) for row in sections))


def _factored(zeros: Any, poles: Any, gain: Any, v: sympy.Symbol, inverse: bool) -> Any:
    top = sympy.Mul(*(polynomial(factor, v, inverse) for factor in _real_factors(list(zeros))))
    bottom = sympy.Mul(*(polynomial(factor, v, inverse) for factor in _real_factors(list(poles))))
    return gain[()] * top / bottom * (v ** (len(zeros) - len(poles)) if inverse else 1)


def _modes(
    poles: Any, residues: Any, feedthrough: Any, v: sympy.Symbol, inverse: bool, real: bool, split: bool = False
) -> Any:
    """The sum of the modes; where the response is a real part, each pole and its mirror image make one real fraction (or two)."""
    modes = list(zip(poles, residues, strict=True))
    if real:
        upper: dict[Any, Any] = {}
        for pole, residue in modes:
            flip = sympy.im(pole) < 0
            pole, residue = (sympy.conjugate(x) if flip else x for x in (pole, residue))
            upper[pole] = upper.get(pole, 0) + residue
        modes = [(pole, residue) if sympy.im(pole) else (pole, sympy.re(residue)) for pole, residue in upper.items()]
    if real and split:
        halves = [(pole, residue / 2) for pole, residue in modes if sympy.im(pole)]
        mirrored = [(sympy.conjugate(pole), sympy.conjugate(half)) for pole, half in halves]
        modes = [*((pole, residue) for pole, residue in modes if not sympy.im(pole)), *halves, *mirrored]
    terms = [_pair(pole, residue) if real and not split and sympy.im(pole) else ([0, residue], [1, -pole]) for pole, residue in modes]
    return sympy.Add(feedthrough[()], *(ratio_in(num, den, v, inverse) for num, den in terms))


def _pair(pole: Any, residue: Any) -> tuple[list[Any], list[Any]]:
    """Coefficients of the real part's fraction ``(r / (z - p) + conj) / 2``."""
    (a, b), (c, d) = exact(pole).as_real_imag(), exact(residue).as_real_imag()
    rounded = pole.has(sympy.Float) or residue.has(sympy.Float)
    num, den = [0, c, -(a * c + b * d)], [1, -2 * a, a**2 + b**2]
    return [settled(x, rounded) for x in num], [settled(x, rounded) for x in den]


_TERMS = {
    TransferFunction: _rational_function,
    ImpulseResponse: _fir,
    SecondOrderSections: _cascade,
    ZerosPolesGain: _factored,
    Modal: _modes,
}


def _real_factors(roots: list[Any]) -> list[list[Any]]:
    """Monic factors with these roots: a quadratic for each conjugate pair, linear ones for the others."""
    factors = []
    while roots:
        root = roots.pop(0)
        mirrored = sympy.conjugate(root)
        if root != mirrored and mirrored in roots:
            roots.remove(mirrored)
            factors.append(_pair(root, sympy.Integer(0))[1])
        else:
            factors.append([sympy.Integer(1), -root])
    return factors


def _with_monic_denominator(term: Any, v: sympy.Symbol) -> Any:
    """``r / (z - p)^k`` instead of ``r q^k / (q z - p q)^k``: the residue and the pole can be read off."""
    num, den = sympy.fraction(term)
    for factor in sympy.Mul.make_args(den):
        base, power = factor.as_base_exp()
        if base.has(v):
            base = sympy.Poly(base, v)
            num, factor = num / base.LC() ** power, base.monic().as_expr() ** power
        num = num / factor
    return num


def _expect_system(system: Any) -> None:
    if not isinstance(system, System):
        raise TypeError(f"expected a System (StateSpace, TransferFunction, ...), got {type(system).__name__}")
