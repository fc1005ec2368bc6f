"""Polynomials, roots and residues against definitions, high precision, and the classic hard cases."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmid._array import to_numpy
from ssmid.analysis.polynomial import (
    conjugate_pairs,
    expand_roots,
    finite_roots,
    paired,
    polynomial_roots,
    residues_of_product,
    root_condition,
)


def closed_roots(rng, pairs, reals, *batch):
    upper = rng.uniform(0.3, 1.2, (*batch, pairs)) * np.exp(1j * rng.uniform(0.1, 3.0, (*batch, pairs)))
    return np.concatenate([upper, upper.conj(), rng.uniform(-1.2, 1.2, (*batch, reals))], -1)


def test_expansion_is_the_product(xp, rng):
    roots = closed_roots(rng, 3, 2, 4)
    got = to_numpy(expand_roots(xp.asarray(roots), xp.asarray(np.full(4, 2.0))))
    assert got.dtype == np.float64
    for i in range(4):
        np.testing.assert_allclose(got[i], 2 * np.poly(roots[i]).real, rtol=1e-12)


def test_leja_order_keeps_coefficients_where_sorted_factors_overflow():
    """Roots of unity sorted by angle: intermediate products of 512 factors reach 1e60, and rounding with them; the result is z^512 - 1."""
    roots = np.exp(2j * np.pi * np.arange(512) / 512)
    roots[0], roots[256] = 1, -1
    got = expand_roots(roots)
    expected = np.zeros(513)
    expected[0], expected[-1] = 1, -1
    assert np.abs(got - expected).max() < 1e-11
    assert np.abs(np.poly(roots) - expected).max() > 1e3


def test_complex_roots_give_complex_coefficients():
    np.testing.assert_array_equal(expand_roots(np.array([1j, 2.0])), [1, -2 - 1j, 2j])
    assert expand_roots(np.zeros((3, 0))).shape == (3, 1)


def test_roots_of_wilkinsons_polynomial():
    """Condition 1e10 at degree 15: the roots come back as well as the data say, and the condition says how well that is."""
    c = np.poly(np.arange(1.0, 16))
    roots = polynomial_roots(c)
    error = np.abs(np.sort(roots.real) - np.arange(1, 16)).max()
    assert error <= 1e-16 * 15 * root_condition(c, roots) * 4
    assert root_condition(c, roots) > 1e10


def test_polishing_reaches_the_accuracy_of_the_data(rng):
    """Against roots in 60 digits of the same double coefficients."""
    c = np.poly(closed_roots(rng, 8, 2)).real
    got = polynomial_roots(c)
    with mpmath.workdps(60):
        exact = [complex(z) for z in mpmath.polyroots([mpmath.mpf(float(x)) for x in c], maxsteps=500, extraprec=300)]
    gaps = np.abs(got[:, None] - np.array(exact))
    assert gaps.min(1).max() <= 4e-16 * root_condition(c, got)
    assert len(set(np.argmin(gaps, axis=1))) == len(got)


def test_polishing_helps_where_coefficients_span_decades():
    """Roots from 1e-6 to 1e6: the companion matrix is accurate relative to its largest entries, a polished root relative to itself."""
    roots = np.geomspace(1e-6, 1e6, 9) * np.array([1, -1, 1, -1, 1, -1, 1, -1, 1])
    got = polynomial_roots(expand_roots(roots)).real
    np.testing.assert_allclose(np.sort(got), np.sort(roots), rtol=1e-12)


def test_double_roots_keep_their_cancelling_errors():
    """Each root of a double pair is off by 1e-8, their product is not; moving them one by one would break that."""
    c = np.poly([0.5, 0.5, 0.2])
    np.testing.assert_allclose(expand_roots(polynomial_roots(c)), c, atol=4e-16)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 4), st.integers(0, 3), st.integers(0, 999), st.sampled_from([1e-200, 1.0, 1e200]))
def test_roots_and_expansion_are_inverses(pairs, reals, seed, scale):
    rng = np.random.default_rng(seed)
    roots = closed_roots(rng, pairs, reals)
    c = scale * expand_roots(roots)
    back = expand_roots(polynomial_roots(c))
    np.testing.assert_allclose(scale * back, c, rtol=1e-9, atol=1e-10 * scale)
    ordered, closed = paired(polynomial_roots(c))
    assert closed
    assert np.array_equal(ordered[ordered.imag > 0], ordered[ordered.imag < 0].conj())


def test_zeros_at_zero_at_infinity_and_nowhere(xp):
    c = np.array([[0.0, 0, 1, -0.5, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [np.nan, 1, 1, 1, 1]])
    got = to_numpy(polynomial_roots(xp.asarray(c)))
    np.testing.assert_array_equal(got[0], [np.inf, np.inf, 0.5, 0])
    np.testing.assert_array_equal(got[1], 0)
    assert np.isnan(got[2:]).all()


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_any_scale(scale):
    np.testing.assert_allclose(np.sort(polynomial_roots(scale * np.array([1.0, -0.75, 0.125])).real), [0.25, 0.5], rtol=1e-14)


def test_a_leading_coefficient_below_rounding_is_a_far_root():
    got = polynomial_roots(np.array([1e-320, 1.0, -0.5]))
    assert np.isinf(got).sum() == 1
    assert not np.isnan(got).any()
    assert np.abs(got - 0.5).min() < 1e-15


def test_finite_roots_keep_the_function_where_elements_differ():
    roots = np.array([[0.5, np.inf], [0.5, -0.25]])
    kept, factor = finite_roots(roots, 1.0)
    z = np.exp(1j * np.linspace(0, 3, 7))
    values = factor[:, None] * np.prod(z[:, None] - kept[:, None, :], axis=-1)
    np.testing.assert_allclose(values, [z - 0.5, (z - 0.5) * (z + 0.25)], rtol=1e-15)
    assert finite_roots(np.full((2, 3), np.inf), 1.0)[0].shape == (2, 0)


def test_residues_are_those_of_the_definition(rng):
    zeros, poles = closed_roots(rng, 1, 2), closed_roots(rng, 2, 1)
    got = residues_of_product(zeros, poles, np.asarray(3.0))
    for i, p in enumerate(poles):
        expected = 3 * np.prod(p - zeros) / np.prod(p - np.delete(poles, i))
        np.testing.assert_allclose(got[i], expected, rtol=1e-13)


def test_residues_do_not_overflow_on_the_way():
    """2000 poles at distances that multiply to 1e-600: each factor of the numerator brings one back."""
    poles = 0.5 * np.exp(2j * np.pi * (np.arange(1200) + 0.5) / 1200)
    got = residues_of_product(poles * 1.01, poles, np.asarray(1.0))
    assert np.isfinite(got).all()
    ratio = (1.01**1200 - 1)  # prod (p - 1.01 p_j) over prod' (p - p_j), as (x^n - a^n) with both rings of n points
    np.testing.assert_allclose(np.abs(got), 0.5 * ratio / 1200, rtol=1e-9)


def test_pairs_of_a_filter_design_and_of_none():
    z, p, _ = scipy.signal.ellip(7, 1, 60, 0.2, output="zpk")
    for roots in (z, p):
        upper, real = conjugate_pairs(roots)
        assert 2 * len(upper) + len(real) == 7
    assert conjugate_pairs(np.array([1j, 1j, -1j])) is None
    assert conjugate_pairs(np.array([1j, -1.1j])) is None
    ordered, closed = paired(np.array([[0.5 - 1j, 2, 0.5 + 1j], [0.5 - 1j, 2, 0.5 - 1j]]))
    assert not closed
    np.testing.assert_array_equal(np.sort_complex(ordered[0]), np.sort_complex([0.5 - 1j, 2, 0.5 + 1j]))


def test_repeated_pairs_stay_paired():
    roots = np.array([1j, 1j, -1j, -1j, 0.5])
    ordered, closed = paired(roots)
    assert closed
    np.testing.assert_array_equal(ordered[:4], [1j, -1j, 1j, -1j])
