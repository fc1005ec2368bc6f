"""Systems on paper: the expressions evaluate to the frequency response, exact numbers stay exact, and the way back is closed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy.abc import a, b, s, z

import ssmid
from ssmid import FrequencyResponse, ImpulseResponse, Modal, SecondOrderSections, StateSpace, TransferFunction, ZerosPolesGain, symbolic

THIRD = sympy.Rational(1, 3)
OMEGA = np.linspace(0.1, 3.0, 11)


def evaluated(expr, points, variable=z):
    return np.array([complex(expr.subs(variable, complex(p)).evalf(30)) for p in points])


def systems(dt=1):
    rng = np.random.default_rng(3)
    pair = 0.5 + 0.3j
    return {
        "state-space": StateSpace(0.4 * rng.standard_normal((4, 4)), rng.standard_normal((4, 1)), rng.standard_normal((1, 4)), [[0.7]], dt),
        "modal": Modal([pair, pair.conjugate(), -0.8], [1 - 2j, 1 + 2j, 0.5], 0.25, dt),
        "half a modal": Modal([pair, -0.8 + 0.1j, 0.3], [1 - 2j, 0.5, 2 + 1j], 0.25, dt),
        "complex modal": Modal([pair, -0.8], [1 - 2j, 0.5], 0.25, dt, real=False),
        "transfer function": TransferFunction([1.0, -0.4], [2.0, 0.5, 0.3, 0.1], dt),
        "zeros": ZerosPolesGain([0.2, 1j, -1j], [pair, pair.conjugate(), -0.8, 0.1], 3.0, dt),
    }


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("rational", [False, True])
@pytest.mark.parametrize("dt", [0, 0.5])
@pytest.mark.parametrize("name", systems())
def test_expressions_evaluate_to_the_response(name, dt, rational, inverse):
    system = systems(dt)[name]
    expr = symbolic.expression(system, inverse=inverse, rational=rational)
    points = np.exp(1j * OMEGA * dt) if dt else 1j * OMEGA
    np.testing.assert_allclose(
        evaluated(expr, points, z if dt else s), ssmid.frequency_response(system, OMEGA).values, rtol=1e-12, atol=1e-13
    )
    assert expr.has(sympy.Float) != rational


def test_forms_of_discrete_time_only():
    sections = SecondOrderSections(scipy.signal.butter(4, 0.3, output="sos"))
    taps = ImpulseResponse([0.5, 1.0, -2.0, 0.25])
    for system in (sections, taps):
        expected = ssmid.frequency_response(system, OMEGA).values
        np.testing.assert_allclose(evaluated(symbolic.expression(system), np.exp(1j * OMEGA)), expected, rtol=1e-12)
    assert symbolic.expression(taps, inverse=True) == sympy.Float(0.5) + 1 / z - 2 / z**2 + sympy.Float(0.25) / z**3


def test_several_channels(rng):
    system = StateSpace(0.4 * rng.standard_normal((3, 3)), rng.standard_normal((3, 2)), rng.standard_normal((2, 3)))
    expr = symbolic.expression(system)
    assert expr.shape == (2, 2)
    values = ssmid.frequency_response(system, OMEGA).values
    for i in range(2):
        for j in range(2):
            np.testing.assert_allclose(evaluated(expr[i, j], np.exp(1j * OMEGA)), values[i, j], rtol=1e-11)
    channels = TransferFunction(rng.standard_normal((2, 3, 2)), [1.0, 0.5, 0.25])
    assert symbolic.expression(channels).shape == (2, 3)
    back = symbolic.from_expression(symbolic.expression(channels))
    np.testing.assert_allclose(back.num[..., 1:], channels.num, rtol=1e-15)


# ---------------------------------------------------------------- numbers


def test_floats_are_kept_and_integers_read_as_integers():
    system = TransferFunction([2.0], [1.0, 0.1])
    assert symbolic.expression(system) == 2 / (z + sympy.Float(0.1))
    assert symbolic.expression(system, rational=True) == 2 / (z + sympy.Rational(1, 10))


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([np.float64, np.float32]))
def test_simplest_fractions_round_to_the_float(x, dtype):
    with np.errstate(over="ignore"):
        x = dtype(x)
    if not np.isfinite(x):
        return
    fraction = symbolic.algebra.simplest_fraction(x)
    # an integer quotient rounds correctly to double; a float32 has a margin that survives the second rounding
    assert dtype(int(fraction.p) / int(fraction.q)) == x


@settings(max_examples=100, deadline=None)
@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_simplest_fractions_are_recognised(p, q):
    assert symbolic.algebra.simplest_fraction(p / q) == sympy.Rational(p, q)
    assert symbolic.algebra.simplest_fraction(np.float32(p / q)) == sympy.Rational(p, q)


def test_coefficients_of_a_state_space_are_right_to_the_last_digit():
    # poles of 20 states: in floats the determinant would keep few digits
    A = np.diag(np.linspace(0.1, 0.99, 20))
    expr = symbolic.expression(StateSpace(A, np.ones((20, 1)), np.ones((1, 20))))
    den = sympy.fraction(expr)[1]
    constant = sympy.prod(sympy.Rational(x) for x in np.diag(A))
    assert sympy.Poly(den, z).eval(0) == sympy.Float(constant)


# ---------------------------------------------------------------- SymPy in, SymPy out


def test_a_parameter_and_exact_fractions_survive_the_round_trip():
    expr = (THIRD * z**2 + a * z + 1) / (z**3 - a * b * z**2 + THIRD * z - b)
    for form in ("controllable", "observable"):
        A, B, C, D = symbolic.state_space(expr, form=form)
        assert not sympy.Matrix([A]).has(sympy.Float)
        again = symbolic.transfer_function(A, B, C, D)
        assert sympy.simplify(again - expr) == 0
        assert sympy.fraction(again)[1].as_poly(z) == sympy.fraction(expr)[1].as_poly(z)


def test_improper_and_biproper():
    A, B, C, D = symbolic.state_space((2 * z + 1) / (4 * z - a))
    assert (A[0, 0], B[0, 0], D[0, 0]) == (a / 4, 1, sympy.Rational(1, 2))
    assert sympy.simplify(C[0, 0] - (2 + a) / 8) == 0
    with pytest.raises(ValueError, match=r"expected a proper transfer function .* got 2 and 1"):
        symbolic.state_space(z**2 / (z - 1))
    with pytest.raises(ValueError, match="rational function of z"):
        symbolic.state_space(sympy.exp(z) / (z - 1))
    assert [M.shape for M in symbolic.state_space(sympy.Integer(3))] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_matrix_of_transfer_functions():
    H = sympy.Matrix([[1 / (z - a), 2], [z / ((z - a) * (z - THIRD)), 1 / z]])
    for form, states in (("controllable", 3), ("observable", 4)):
        A, B, C, D = symbolic.state_space(H, form=form)
        assert A.rows == states
        assert sympy.simplify(symbolic.transfer_function(A, B, C, D) - H) == sympy.zeros(2, 2)


def test_transfer_function_matches_the_resolvent():
    A, B, C, D = sympy.Matrix([[a, 1], [THIRD, b]]), sympy.Matrix([[1, 0], [b, 2]]), sympy.Matrix([[1, a]]), sympy.Matrix([[0, 1]])
    expected = C * (z * sympy.eye(2) - A).inv() * B + D
    assert sympy.simplify(symbolic.transfer_function(A, B, C, D) - expected) == sympy.zeros(1, 2)
    in_delays = symbolic.transfer_function(A, B, C, D, inverse=True)
    assert sympy.simplify(in_delays - expected) == sympy.zeros(1, 2)
    with pytest.raises(ValueError, match=r"expected matrices .*'B': \(2, 1\).* got .*B \(1, 1\)"):
        symbolic.transfer_function(A, [[1]], C)


def test_from_expression_with_values():
    system = symbolic.from_expression((a * z + 1) / (2 * z**2 - b), 0.1, values={"a": 3, b: 0.5})
    np.testing.assert_array_equal(system.den, [1.0, 0.0, -0.25])
    np.testing.assert_array_equal(system.num, [0.0, 1.5, 0.5])
    assert system.dt == 0.1
    continuous = symbolic.from_expression(1 / (s + 2), 0)
    np.testing.assert_array_equal(continuous.den, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"expected a number for each of \['a'\]"):
        symbolic.from_expression(a / z)
    with pytest.raises(ValueError, match="expected a proper"):
        symbolic.from_expression(z)


def test_round_trip_of_numbers():
    system = TransferFunction([0.3, 0.2, 0.1], [1.0, -0.7, 0.12])
    for inverse in (False, True):
        for rational in (False, True):
            back = symbolic.from_expression(symbolic.expression(system, inverse=inverse, rational=rational))
            np.testing.assert_array_equal(back.num, system.num)
            np.testing.assert_array_equal(back.den, system.den)


# ---------------------------------------------------------------- what is read off


def test_partial_fractions():
    expr = (z + 1) / ((z - THIRD) ** 2 * (z - a))
    parts = symbolic.partial_fractions(expr)
    assert sympy.simplify(parts - expr) == 0
    assert len(parts.args) == 3
    assert (z - THIRD) ** -2 in parts.atoms(sympy.Pow)
    assert symbolic.partial_fractions(1 / (z**2 + 1), full=True) == sympy.I / 2 / (z + sympy.I) - sympy.I / 2 / (z - sympy.I)
    exact = symbolic.partial_fractions(TransferFunction([1.0], [1.0, -1.0, 0.25]), rational=True)
    assert exact == 1 / (z - sympy.Rational(1, 2)) ** 2
    with pytest.raises(ValueError, match="exact numbers beside symbols"):
        symbolic.partial_fractions(1 / ((z - sympy.Float(0.5)) * (z - a)))


def test_partial_fractions_of_floats_are_the_modes():
    system = TransferFunction([1.0, 0.2], np.poly([0.5 + 0.3j, 0.5 - 0.3j, -0.7]))
    parts = symbolic.partial_fractions(system)
    assert len(parts.args) == 2  # one pair, one real pole
    np.testing.assert_allclose(evaluated(parts, np.exp(1j * OMEGA)), ssmid.frequency_response(system, OMEGA).values, rtol=1e-12)
    again = symbolic.partial_fractions(symbolic.expression(system))
    np.testing.assert_allclose(evaluated(again, [2.0]), evaluated(parts, [2.0]), rtol=1e-12)
    full = symbolic.partial_fractions(system, full=True)
    assert len(full.args) == 3
    np.testing.assert_allclose(evaluated(full, np.exp(1j * OMEGA)), ssmid.frequency_response(system, OMEGA).values, rtol=1e-12)
    half = Modal([0.5 + 0.3j], [1 - 2j], 0.25)
    np.testing.assert_allclose(
        evaluated(symbolic.partial_fractions(half, full=True), np.exp(1j * OMEGA)), ssmid.frequency_response(half, OMEGA).values, rtol=1e-12
    )


def test_difference_equation_runs_to_the_impulse_response():
    system = TransferFunction([2.0, 0.6, 0.2], [2.0, -0.8, 0.3])
    equation = symbolic.difference_equation(system)
    t = next(iter(equation.free_symbols))
    y, u = sympy.Function("y"), sympy.Function("u")
    assert equation.lhs == y(t)
    assert equation.rhs.coeff(u(t - 1)) == sympy.Float(0.3)
    history: dict = {}
    for n in range(6):
        step = equation.rhs.subs(t, n)
        known = {u(k): int(k == 0) for k in range(-3, n + 1)} | {y(k): history.get(k, 0) for k in range(-3, n)}
        history[n] = float(step.subs(known))
    np.testing.assert_allclose(list(history.values()), ssmid.impulse_response(system, 6).taps, rtol=1e-13)


def test_difference_equation_of_a_parameter():
    t = sympy.Symbol("k", integer=True)
    x, w = sympy.Function("x"), sympy.Function("w")
    equation = symbolic.difference_equation(z / (2 * z - a), input="w", output="x", time="k")
    assert sympy.simplify(equation.rhs - (w(t) / 2 + a * x(t - 1) / 2)) == 0
    with pytest.raises(ValueError, match="expected a scalar system, got 1 outputs and 2 inputs"):
        symbolic.difference_equation(sympy.Matrix([[1 / z, 1 / z]]))
    with pytest.raises(ValueError, match=r"ssmid.c2d"):
        symbolic.difference_equation(TransferFunction([1.0], [1.0, 1.0], 0))


def test_matrices():
    A, B, C, D = symbolic.matrices(StateSpace([[0.1, 1.0], [0.0, 1 / 3]], [[1.0], [0.0]], [[2.0, 0.5]], dt=0), rational=True)
    assert sympy.Matrix([[sympy.Rational(1, 10), 1], [0, THIRD]]) == A
    assert (sympy.Matrix([[1], [0]]), sympy.Matrix([[2, sympy.Rational(1, 2)]]), sympy.Matrix([[0]])) == (B, C, D)
    assert symbolic.matrices(TransferFunction([1.0], [1.0, -0.5]))[0].shape == (1, 1)


def test_latex():
    system = TransferFunction([1.0, 0.25], [1.0, -1 / 3])
    assert symbolic.latex(system, digits=3) == r"\frac{z + 0.25}{z - 0.333}"
    assert symbolic.latex(system, rational=True) == r"\frac{z + \frac{1}{4}}{z - \frac{1}{3}}"
    assert symbolic.latex(system, inverse=True, digits=2) == r"\frac{1 + \frac{0.25}{z}}{1 - \frac{0.33}{z}}"
    equation = symbolic.latex(system, "difference-equation", digits=3).replace(r"\left(", "(").replace(r" \right)", ")")
    assert equation == "y{(t)} = u{(t)} + 0.25 u{(t - 1)} + 0.333 y{(t - 1)}"
    state = symbolic.latex(system, "state-space", digits=3)
    assert state.startswith(r"\begin{aligned} x_{t+1} &= \left[\begin{matrix}0.333\end{matrix}\right] x_t")
    assert state.count(r"\begin{matrix}") == 4
    assert r"\dot{x}(t)" in symbolic.latex(TransferFunction([1.0], [1.0, 2.0], 0), "state-space")
    assert r"\frac{0.2}{z + 0.5}" in symbolic.latex(Modal([-0.5], [0.2], 1.0), "partial-fractions")
    assert symbolic.latex(a / b) == r"\frac{a}{b}"
    with pytest.raises(ValueError, match="form: expected one of"):
        symbolic.latex(system, "poem")


def test_variables():
    assert symbolic.expression(TransferFunction([1.0], [1.0, -0.5]), "q").free_symbols == {sympy.Symbol("q")}
    positive = sympy.Symbol("z", positive=True)
    assert symbolic.state_space(1 / (positive - 2))[0] == sympy.Matrix([[2]])
    with pytest.raises(ValueError, match="to be named"):
        symbolic.state_space(1 / (a - 2))
    with pytest.raises(ValueError, match="to be named"):
        symbolic.state_space(1 / (s - z))


def test_what_has_no_expression():
    with pytest.raises(TypeError, match="rational transfer function, got FrequencyResponse"):
        symbolic.expression(FrequencyResponse([1.0], [0.0]))
    with pytest.raises(TypeError, match="expected a System"):
        symbolic.expression([1.0])
    with pytest.raises(ValueError, match=r"channels of batch \(outputs, inputs\), got batch \(5,\)"):
        symbolic.expression(TransferFunction(np.ones((5, 1)), [1.0, 2.0]))
    with pytest.raises(ValueError, match="got batch"):
        symbolic.matrices(StateSpace(np.ones((2, 1, 1)), np.ones((1, 1)), np.ones((1, 1))))
    with pytest.raises(ValueError, match="finite numbers, got nan"):
        symbolic.expression(TransferFunction(np.full((1, 1, 1), np.nan), [1.0, 2.0]))
