"""Denominators that are stable for every parameter: against products of roots, Levinson's recursion step by step, and mpmath."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ssmid.parametrizations.denominators import (
    LARGEST_MODULUS,
    is_stable_denominator,
    lattice_denominator,
    lattice_parameters,
    montel_denominator,
    polar_denominator,
    polar_parameters,
    section_denominator,
    section_parameters,
)

GUARANTEED = [section_denominator, lattice_denominator, polar_denominator]
ALL = pytest.mark.parametrize("denominator", GUARANTEED, ids=["sections", "lattice", "poles"])


def section_polynomials(p):
    pairs = [[1, (1 + np.tanh(q)) * np.tanh(f), np.tanh(q)] for f, q in np.reshape(p[: len(p) // 2 * 2], (-1, 2))]
    return pairs + [[1, np.tanh(p[-1])]] * (len(p) % 2)


def polar_polynomials(p):
    pairs = []
    for nu, theta in np.reshape(p[: len(p) // 2 * 2], (-1, 2)):
        pole = np.exp(-np.exp(nu) + 1j * theta)
        pairs.append(np.poly([pole, pole.conjugate()]).real)
    return pairs + [[1, -np.tanh(p[-1])]] * (len(p) % 2)


def multiplied(polynomials):
    product = np.ones(1)
    for one in polynomials:
        product = np.convolve(product, one)
    return product[1:]


def stepped_up(p):
    a = np.ones(1)
    for k in np.tanh(p):
        a = np.append(a, 0.0)
        a = a + k * a[::-1]
    return a[1:]


REFERENCE = {
    section_denominator: lambda p: multiplied(section_polynomials(p)),
    polar_denominator: lambda p: multiplied(polar_polynomials(p)),
    lattice_denominator: stepped_up,
}


@ALL
@pytest.mark.parametrize("order", [1, 2, 3, 8, 13, 64])
def test_coefficients(xp, rng, denominator, order):
    p = rng.standard_normal((2, 3, order)) * 0.7
    a = denominator(xp.asarray(p))
    assert xp.owns(a)
    a = xp.numpy(a)
    for i in np.ndindex(2, 3):
        expected = REFERENCE[denominator](p[i]) * LARGEST_MODULUS ** np.arange(1, order + 1)
        np.testing.assert_allclose(a[i], expected, atol=1e-13 * max(1, np.abs(expected).max()))
    single = denominator(xp.asarray(p, "float32"))
    assert "float32" in str(single.dtype)
    np.testing.assert_allclose(xp.numpy(single), a, atol=1e-5 * np.abs(a).max())


def test_long_lattice(rng):
    p = rng.standard_normal(1024) / 32
    np.testing.assert_allclose(lattice_denominator(p), stepped_up(p) * LARGEST_MODULUS ** np.arange(1, 1025), atol=1e-13)


@ALL
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_stable_whatever_the_parameters(denominator, data):
    order = data.draw(st.integers(1, 6))
    p = data.draw(arrays(float, order, elements=st.floats(-2, 2)))
    radius = np.abs(np.roots([1, *denominator(p)])).max(initial=0)
    assert radius < 1
    # the coefficients of one pair are exact to rounding at any size of the parameters
    far = data.draw(arrays(float, 2, elements=st.floats(-1e300, 1e300)))
    a = denominator(far)
    assert np.isfinite(a).all()
    assert np.abs(a[1]) < 1
    assert np.abs(a[0]) < 1 + a[1]
    assert is_stable_denominator(a)


@ALL
def test_clustered_poles(denominator):
    """Eight parameters of one value: the exact coefficients, in 60 digits."""
    p = np.full(8, 1.3 if denominator is not polar_denominator else -3.0)
    with mpmath.workdps(60):
        R, t = mpmath.mpf(LARGEST_MODULUS), mpmath.tanh(mpmath.mpf(1.3))
        if denominator is section_denominator:
            leaf = [1, (1 + t) * t, t]
        elif denominator is polar_denominator:
            modulus = mpmath.exp(-mpmath.exp(mpmath.mpf(-3)))
            leaf = [1, -2 * modulus * mpmath.cos(mpmath.mpf(-3)), modulus**2]
        exact = [mpmath.mpf(1)]
        for _ in range(8 if denominator is lattice_denominator else 4):
            if denominator is lattice_denominator:
                exact = [x + t * y for x, y in zip([*exact, 0], [0, *exact[::-1]], strict=True)]
            else:
                exact = [sum(leaf[j] * exact[i - j] for j in range(3) if 0 <= i - j < len(exact)) for i in range(len(exact) + 2)]
        exact = np.array([float(x * R**i) for i, x in enumerate(exact)])[1:]
    np.testing.assert_allclose(denominator(p), exact, atol=4e-15 * np.abs(exact).max())


@ALL
def test_long_memory(denominator):
    """Moduli up to 1 - 1e-6, of a pair at a small angle, where an absolute sum below 1 ends at 0.414."""
    big = {section_denominator: [-20.0, 40.0], lattice_denominator: [-20.0, 40.0], polar_denominator: [-40.0, 1e-3]}[denominator]
    np.testing.assert_allclose(np.abs(np.roots([1, *denominator(np.array(big))])).max(), LARGEST_MODULUS, atol=1e-9)
    montel = montel_denominator(np.array([-2 * (np.sqrt(2) - 1) * 1e9, (np.sqrt(2) - 1) ** 2 * 1e9]), 0.0)
    assert np.abs(np.roots([1, *montel])).max() < 0.4143


def test_montel(xp, rng):
    a, scalar = rng.standard_normal((5, 4)), rng.standard_normal(5)
    found = xp.numpy(montel_denominator(xp.asarray(a), xp.asarray(scalar)))
    np.testing.assert_allclose(found, [x / (np.abs(x).sum() + abs(s) + 1e-6) for x, s in zip(a, scalar, strict=True)], rtol=1e-14)


@pytest.mark.parametrize("order", [1, 2, 5, 8])
def test_parameters_back(xp, rng, order):
    upper = rng.uniform(0.1, 0.99, (3, order // 2)) * np.exp(1j * rng.uniform(0.1, 3, (3, order // 2)))
    real = rng.uniform(-0.9, 0.9, (3, order % 2))
    poles = np.concatenate([upper, upper.conj(), real], axis=-1)
    a = np.array([np.poly(row).real[1:] for row in poles])
    given = xp.asarray(poles + 0j)
    for back, denominator in ((section_parameters, section_denominator), (polar_parameters, polar_denominator)):
        np.testing.assert_allclose(xp.numpy(denominator(back(given))), a, atol=1e-12)
    np.testing.assert_allclose(xp.numpy(lattice_denominator(lattice_parameters(xp.asarray(a)))), a, atol=1e-10)
    two_real = np.array([0.9, -0.3, 0.5, 0.2])
    np.testing.assert_allclose(section_denominator(section_parameters(two_real)), np.poly(two_real)[1:], atol=1e-12)


def test_stability(xp, rng):
    a = rng.uniform(-1, 1, (200, 5)) * 0.6
    expected = [np.abs(np.roots([1, *row])).max() < 1 for row in a]
    assert 0 < sum(expected) < 200
    assert xp.numpy(is_stable_denominator(xp.asarray(a))).tolist() == expected
    a[3, 2] = np.nan
    assert xp.numpy(is_stable_denominator(xp.asarray(a))).tolist() == [*expected[:3], False, *expected[4:]]


@ALL
def test_gradients(rng, denominator):
    import torch

    for order in (1, 4, 7):
        p = torch.tensor(rng.standard_normal((2, order)), requires_grad=True)
        assert torch.autograd.gradcheck(denominator, (p,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: section_parameters(np.array([0.5 + 0.5j, 0.1])), "closed under conjugation"),
        (lambda: section_parameters(np.array([1.0, 0.1])), "expected moduli below 0.999999, got 1"),
        (lambda: polar_parameters(np.array([0.5, 0.1])), "expected conjugate pairs for polar poles, got 2 real ones"),
        (lambda: lattice_parameters(np.array([0.0, 1.5])), "all poles inside the unit circle"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
