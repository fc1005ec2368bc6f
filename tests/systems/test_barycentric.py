"""Barycentric form: what it is worth at any point, its poles, and the ways out of it."""

from __future__ import annotations

import dataclasses

import mpmath as mp
import numpy as np
import pytest
import scipy.linalg

import ssmid
from ssmid import Barycentric
from ssmid.analysis.evaluation import evaluate


def some(rng, *batch, n=4, dt=1, real=True):
    """Support points in the upper half plane, with values and weights."""
    support = np.exp(1j * np.sort(rng.uniform(0.2, 3.0, (*batch, n)))) if dt else 1j * np.sort(10 ** rng.uniform(-1, 2, (*batch, n)))
    values, weights = (rng.standard_normal((*batch, n)) + 1j * rng.standard_normal((*batch, n)) for _ in range(2))
    return Barycentric(support, values, weights, dt=dt, real=real)


def by_definition(system, x):
    """The quotient at 50 digits."""
    with mp.workdps(50):
        top = bottom = mp.mpc(0)
        for z, f, w in zip(*(a.tolist() for a in (system.support, system.values, system.weights)), strict=True):
            nodes = [(z, f, w)]
            if system.real:
                nodes = [(z, f, w), (z.conjugate(), f.conjugate(), w.conjugate())] if z.imag else [(z, f.real, w.real)]
            for z_, f_, w_ in nodes:
                term = mp.mpmathify(w_) / (x - mp.mpmathify(z_))
                top, bottom = top + term * mp.mpmathify(f_), bottom + term
        return top / bottom


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("dt", [0, 1])
def test_values_and_slopes_are_those_of_the_quotient(rng, real, dt):
    system = some(rng, dt=dt, real=real)
    points = rng.standard_normal(5) + 1j * rng.standard_normal(5)
    with mp.workdps(50):
        expected = [complex(by_definition(system, mp.mpmathify(complex(x)))) for x in points]
        h = mp.mpf("1e-15")
        exact = [mp.mpmathify(complex(x)) for x in points]
        slopes = [complex((by_definition(system, x + h) - by_definition(system, x - h)) / (2 * h)) for x in exact]
    np.testing.assert_allclose(evaluate(system, points), expected, rtol=1e-12)
    np.testing.assert_allclose(evaluate(system, points, 1), slopes, rtol=1e-10)


def test_at_support_points_stand_the_values_and_the_limits_of_the_slope(rng):
    system = some(rng)
    np.testing.assert_array_equal(evaluate(system, system.support), system.values)
    near = (evaluate(system, system.support + 1e-6) - evaluate(system, system.support - 1e-6)) / 2e-6
    np.testing.assert_allclose(evaluate(system, system.support, 1), near, rtol=1e-6)
    np.testing.assert_allclose(evaluate(system, system.support.conj()), system.values.conj())


def test_a_point_on_the_real_axis_is_its_own_conjugate():
    system = Barycentric([0, 1j], [1 + 5j, 2 - 1j], [2 + 7j, 1 + 1j], dt=0)
    assert system.order == 2
    x = mp.mpc(0.3, 0.4)
    assert evaluate(system, np.array([0.3 + 0.4j]))[0] == pytest.approx(complex(by_definition(system, x)), rel=1e-13)
    assert ssmid.poles(system).shape == (2,)
    assert np.isreal(evaluate(system, np.array([0.7]))[0])


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("dt", [0, 1])
def test_poles_are_those_of_the_arrowhead_pencil(rng, real, dt):
    """The generalized eigenproblem of Nakatsukasa, Sete and Trefethen, over all support points."""
    system = some(rng, n=5, dt=dt, real=real)
    z, _, w = system.with_conjugates()
    n = len(z)
    arrow = np.zeros((n + 1, n + 1), complex)
    arrow[0, 1:], arrow[1:, 0], arrow[1:, 1:] = w, 1, np.diag(z)
    found = scipy.linalg.eigvals(arrow, np.diag([0.0] + [1.0] * n))
    expected = found[np.isfinite(found) & (np.abs(found) < 1e8 * np.abs(z).max())]
    poles = ssmid.poles(system)
    assert len(poles) == len(expected) == system.order
    distance = np.abs(poles[:, None] - expected)
    assert distance.min(0).max() < 1e-9 * np.abs(z).max()
    assert distance.min(1).max() < 1e-9 * np.abs(z).max()
    if real:
        upper = poles[poles.imag > 0]
        assert set(upper.conj().tolist()) == set(poles[poles.imag < 0].tolist())


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("dt", [0, 0.5])
def test_conversions_keep_the_response(xp, rng, real, dt):
    system = some(rng, 3, n=3, dt=dt, real=real)
    moved = system.map(xp.asarray)
    omega = np.linspace(0.11, 5, 9)
    expected = ssmid.frequency_response(system, omega).values
    got = xp.numpy(ssmid.frequency_response(moved, xp.asarray(omega)).values)
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    for other in (ssmid.to_modal(moved), ssmid.to_state_space(moved)):
        assert all(xp.owns(a) for a in other.arrays.values())
        assert other.is_complex is not real
        values = xp.numpy(ssmid.frequency_response(other, xp.asarray(omega)).values)
        np.testing.assert_allclose(values, expected, atol=1e-9 * np.abs(expected).max())


def test_channels_share_support_and_weights(rng):
    one = some(rng, n=3)
    values = rng.standard_normal((2, 2, 3)) + 1j * rng.standard_normal((2, 2, 3))
    shared = Barycentric(one.support[None, None], values, one.weights[None, None])
    assert shared.batch_shape == (2, 2)
    points = np.exp(1j * np.linspace(0.1, 3, 7))
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(evaluate(shared, points)[i, j], evaluate(Barycentric(one.support, values[i, j], one.weights), points))
    np.testing.assert_allclose(ssmid.poles(shared)[0, 0], ssmid.poles(one))
    states = ssmid.to_state_space(ssmid.to_modal(shared), mimo=True)
    np.testing.assert_allclose(evaluate(states, points), evaluate(shared, points), atol=1e-9)


def test_support_points_of_weight_zero_are_none(rng):
    one = some(rng, n=3)
    more = Barycentric(*(np.append(a, b) for a, b in ((one.support, 1j), (one.values, 7.0), (one.weights, 0.0))))
    points = np.append(np.exp(1j * np.linspace(0.1, 3, 7)), 1j)
    np.testing.assert_allclose(evaluate(more, points), evaluate(one, points), rtol=1e-12)
    poles = ssmid.poles(more)
    np.testing.assert_allclose(poles[np.isfinite(poles)], ssmid.poles(one))


def test_a_smaller_degree_gives_infinite_poles_which_the_modal_form_lacks():
    z = 1j * np.array([1.0, 2.0, 4.0])
    # weights of a denominator of degree four over all six points, which allow five
    full = np.concatenate([z, z.conj()])
    a = np.poly([-0.5 + 2j, -0.5 - 2j, -1 + 1j, -1 - 1j]).real
    w = np.array([np.polyval(a, x) / np.prod([x - y for y in full if y != x]) for x in z])
    system = Barycentric(z, (z + 2) / np.polyval(a, z), w, dt=0)
    poles = ssmid.poles(system)
    assert np.sum(np.isinf(poles)) == 1
    np.testing.assert_allclose(np.sort_complex(poles[np.isfinite(poles)]), np.sort_complex(np.roots(a)), rtol=1e-10)
    modal = ssmid.to_modal(system)
    np.testing.assert_allclose(evaluate(modal, 1j * np.arange(5.0)), (1j * np.arange(5) + 2) / np.polyval(a, 1j * np.arange(5)), rtol=1e-9)


def test_it_is_frozen_and_says_what_it_is(rng):
    system = some(rng, 5)
    assert repr(system) == "Barycentric(order=7, batch=(5,), dt=1, complex128)"
    assert "real=False" in repr(some(rng, real=False))
    with pytest.raises(dataclasses.FrozenInstanceError):
        system.dt = 2  # pyright: ignore


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([1j, 2j], [1.0], [1.0, 1.0]), "one value and one weight"),
        (([], [], []), "at least one support point"),
        (([1j], [np.nan], [1.0]), "values: expected finite numbers"),
        ((np.ones((2, 1)), np.ones((3, 1)), np.ones((1, 1))), "batch shapes that broadcast"),
        ((1j, 1.0, 1.0), "support: expected shape"),
    ],
)
def test_wrong_arguments_are_quoted(arrays, message):
    with pytest.raises(ValueError, match=message):
        Barycentric(*arrays)
