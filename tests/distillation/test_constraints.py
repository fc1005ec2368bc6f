"""Poles held to a modulus or to the real line: optima found by other means, and laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from ssmid.datasets import hyena_filters
from ssmid.distillation.bank import Bank
from ssmid.distillation.constraints import OverAllTime
from ssmid.distillation.pipeline import distill
from ssmid.distillation.pole_search import Region, Repelled
from ssmid.systems import Modal


def sums(poles: Any, residues: Any, length: int) -> np.ndarray:
    """Taps: a zero, then the real sum of the modes."""
    modes = np.asarray(poles)[..., None] ** np.arange(length - 1)
    taps = np.real(np.sum(np.asarray(residues)[..., None] * modes, axis=-2))
    return np.concatenate([np.zeros((*taps.shape[:-1], 1)), taps], axis=-1)


def decaying(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Taps that no small recurrence meets."""
    t = np.arange(length)
    smooth = rng.standard_normal((count, 12, 1)) * np.exp(-t / rng.uniform(2, 25, (count, 12, 1))) * np.cos(
        rng.uniform(0, 3, (count, 12, 1)) * t
    )
    return smooth.sum(1) + 0.02 * rng.standard_normal((count, length)) * np.exp(-t / 30)


def residual(taps: np.ndarray, poles: np.ndarray) -> np.ndarray:
    """The least-squares residual of ``taps`` with what rings on for a long while, poles given."""
    g = np.concatenate([taps[1:], np.zeros(500)])
    modes = poles ** np.arange(len(g))[:, None]
    columns = np.concatenate([modes.real, modes.imag[:, poles.imag > 0]], axis=1) if (poles.imag != 0).any() else modes.real
    return g - columns @ np.linalg.lstsq(columns, g, rcond=1e-13)[0]


def best(taps: np.ndarray, of: Any, starts: list[np.ndarray], low: Any, high: Any) -> float:
    """The least relative error over several starts by SciPy, over the coordinates that ``of`` makes poles from."""
    ends = [least_squares(lambda x: residual(taps, of(x)), start, bounds=(low, high), xtol=1e-12, ftol=1e-12).cost for start in starts]
    return (2 * min(ends)) ** 0.5 / np.linalg.norm(taps[1:])


@pytest.mark.parametrize("radius", [0.97, 0.85])
def test_optimum_within_a_circle(rng: np.random.Generator, radius: float) -> None:
    """SciPy finds nothing better from there, and of one pair nothing better from anywhere."""
    taps = decaying(rng, 3, 150)

    def pairs(x: np.ndarray) -> np.ndarray:
        upper = x[::2] * np.exp(1j * x[1::2])
        return np.concatenate([upper, upper.conj()])

    for order in (2, 4):
        found = distill(taps, order, max_modulus=radius, restarts=3, gtol=1e-6)
        assert (np.abs(found.system.poles) <= radius).all()
        assert found.converged.all()
        for k in range(3):
            upper = found.system.poles[k][found.system.poles[k].imag > 0]
            if len(upper) < order // 2:
                continue
            starts = [np.stack([np.minimum(np.abs(upper), radius - 1e-9), np.clip(np.angle(upper), 2e-3, np.pi - 2e-3)], -1).ravel()]
            if order == 2:
                starts += [np.array([0.7 * radius, angle]) for angle in np.linspace(0.1, 3, 8)]
            limits = [np.tile(x, order // 2) for x in ([0, 1e-3], [radius, np.pi - 1e-3])]
            assert found.error[k] <= best(taps[k], pairs, starts, *limits) * (1 + 1e-4)


def test_a_pole_that_would_be_larger_ends_at_the_circle() -> None:
    taps = sums([0.95], [1.0], 300)
    found = distill(taps, 1, max_modulus=0.8, gtol=1e-9)
    # of a single mode the best residue within the circle has the pole nearest to its own
    overlap = (1 - 0.95**2) * (1 - 0.8**2) / (1 - 0.95 * 0.8) ** 2
    assert 0.8 * (1 - 1e-6) < found.system.poles[0].real <= 0.8
    assert abs(found.error - (1 - overlap) ** 0.5) < 1e-6


def test_optimum_on_the_real_line(rng: np.random.Generator) -> None:
    taps = decaying(rng, 3, 200)
    found = distill(taps, 3, real_poles=True, restarts=4)
    assert (found.system.poles.imag == 0).all()
    assert found.converged.all()
    for k in range(3):
        starts = [np.sort(rng.uniform(-0.95, 0.99, 3)) for _ in range(6)]
        reference = best(taps[k], lambda x: x + 0j, starts, [-0.99] * 3, [0.99] * 3)
        assert found.error[k] <= reference * (1 + 1e-3) + 1e-9


def test_real_poles_of_a_real_spectrum_are_recovered(rng: np.random.Generator) -> None:
    poles = np.array([0.99, 0.95, 0.8, 0.4, -0.3, -0.9])
    taps = sums(poles, rng.uniform(0.5, 1, (4, 6)) * np.array([1, -1, 1, 1, -1, 1]), 3000)
    found = distill(taps, 6, real_poles=True, gtol=1e-10)
    assert (found.error < 1e-10).all()
    assert found.converged.all()
    assert np.allclose(np.sort(found.system.poles.real), np.sort(poles), atol=1e-7)


def test_poles_that_need_no_constraint_are_those_without_it() -> None:
    taps = hyena_filters().taps[:8]
    free = distill(taps.astype(float), 12)
    held = distill(taps.astype(float), 12, max_modulus=min(0.9999, np.abs(free.system.poles).max() + 1e-4))
    assert (held.error <= free.error * (1 + 1e-3)).all()


def test_never_worse_than_the_start_and_tighter_circles_cost(shared_taps: np.ndarray) -> None:
    radii = [0.999, 0.97, 0.9]
    errors = [np.median(distill(shared_taps, 8, max_modulus=r).error) for r in radii]
    starts = [np.median(distill(shared_taps, 8, max_modulus=r, max_iterations=0).error) for r in radii]
    assert errors == sorted(errors)
    assert (np.array(errors) < starts).all()


@pytest.fixture(scope="module")
def shared_taps() -> np.ndarray:
    return np.asarray(hyena_filters().taps, float).reshape(-1, 2048)[::8]


@pytest.mark.parametrize("options", [{"max_modulus": 0.9}, {"real_poles": True}, {"real_poles": True, "max_modulus": 0.95}])
def test_kinds_and_constraints_are_kept(xp: Any, options: dict[str, Any]) -> None:
    if xp.name == "strict":
        pytest.skip("the Hankel subspace of a bank is worked on in place")
    taps = np.asarray(hyena_filters().taps[:4, :512], np.float32)
    found = distill(xp.asarray(taps), 6, **options)
    assert xp.owns(found.system.poles)
    assert xp.owns(found.certificate.l2)
    poles = xp.numpy(found.system.poles)
    # rounding to single precision is that of the result
    assert np.abs(poles).max() <= options.get("max_modulus", 1) * (1 + 2e-7)
    if "real_poles" in options:
        assert (poles.imag == 0).all()
    model = sums(poles.astype(complex), xp.numpy(found.system.residues).astype(complex), 512)
    measured = np.linalg.norm((model - taps)[:, 1:], axis=-1) / np.linalg.norm(taps[:, 1:], axis=-1)
    assert np.allclose(xp.numpy(found.error), measured, rtol=1e-2)


def test_residues_survive_single_precision() -> None:
    """Poles that pile up at the circle would have residues that cancel to nothing."""
    taps = np.asarray(hyena_filters().taps[:8], np.float32)
    found = distill(taps, 12, max_modulus=0.9)
    assert found.system.residues.dtype == np.complex64
    modes = found.system.poles.astype(np.complex128)[..., None] ** np.arange(taps.shape[-1] - 1)
    model = np.real(np.sum(found.system.residues[..., None] * modes, axis=-2))
    measured = np.linalg.norm(model - taps[:, 1:], axis=-1) / np.linalg.norm(taps[:, 1:], axis=-1)
    assert np.allclose(measured, found.error, rtol=1e-2)


@settings(max_examples=6, deadline=None)
@given(power=st.integers(-900, 900), shift=st.integers(0, 3), order=st.integers(1, 5))
def test_scale_changes_nothing(power: int, shift: int, order: int) -> None:
    taps = np.roll(decaying(np.random.default_rng(order), 1, 120)[0], shift)
    one, other = (distill(x, order, max_modulus=0.9) for x in (taps, taps * 2.0**power))
    assert np.array_equal(one.system.poles, other.system.poles)
    assert np.allclose(one.system.residues * 2.0**power, other.system.residues, rtol=1e-12)


@pytest.mark.parametrize("options", [{"max_modulus": 0.9}, {"real_poles": True}])
def test_a_batch_is_its_filters_and_bad_ones_stay_alone(rng: np.random.Generator, options: dict[str, Any]) -> None:
    taps = decaying(rng, 5, 150)
    taps[1, 40] = np.nan
    taps[3] = 0
    taps[4, 1:] = 0
    found = distill(taps, 2, **options)
    assert np.isnan(found.system.poles[1]).all()
    assert np.isnan(found.error[1])
    assert not found.converged[1]
    assert (found.system.poles[3:] == 0).all()
    assert (found.order[3:] == 0).all()
    assert found.converged[[0, 2, 3, 4]].all()
    for k in (0, 2):
        alone = distill(taps[k], 2, **options)
        assert np.isclose(alone.error, found.error[k], rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize("options", [{"max_modulus": 0.5}, {"real_poles": True}])
def test_short_filters(rng: np.random.Generator, length: int, options: dict[str, Any]) -> None:
    found = distill(rng.standard_normal((2, length)), 3, **options)
    assert np.isfinite(found.error).all()
    assert np.abs(found.system.poles).max(initial=0) <= options.get("max_modulus", 1)


def test_what_other_methods_cannot_do_is_an_error() -> None:
    with pytest.raises(ValueError, match="method: expected 'l2' or 'gradient' with max_modulus, got 'balanced'"):
        distill(np.ones((2, 20)), 2, method="balanced", max_modulus=0.9)
    with pytest.raises(ValueError, match="method: expected 'l2' with real_poles, got 'aaa'"):
        distill(np.ones((2, 20)), 2, method="aaa", real_poles=True)


def test_derivatives_are_those_of_the_error(rng: np.random.Generator) -> None:
    """Of the closed form and of the repulsion, by finite differences along conjugate directions."""
    bank = Bank.of(decaying(rng, 2, 60))
    poles = np.array([[0.8 + 0.3j, 0.8 - 0.3j, 0.5, -0.2], [0.6 + 0.1j, 0.6 - 0.1j, 0.9, 0.3]])
    live = np.ones(poles.shape, bool)
    problem = Repelled(OverAllTime.of(bank), np.array([0.01, 0.5]))
    directions = np.array([[1, 1, 0, 0], [1j, -1j, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    found, h = problem(poles, live), 1e-5
    for u in directions:
        above, below = problem(poles + h * u, live), problem(poles - h * u, live)
        assert np.allclose((found.first @ u).real, (above.error - below.error) / (2 * h), rtol=1e-5, atol=1e-7)
        assert np.allclose(((found.second @ u) @ directions.T).real, ((above.first - below.first) @ directions.T).real / (2 * h), atol=1e-4)


def test_real_poles_are_never_the_same() -> None:
    region, live = Region(0.9, True), np.array([[True, True, True, False]])
    poles = np.array([[0.5, 0.5, 0.5, 0.0]], complex)
    moved = region.moved(region.chart(poles, live), np.zeros((1, 4)), live)
    assert len(np.unique(moved[0, :3])) == 3
    assert moved[0, 3] == 0
    assert np.allclose(moved[0, :3], 0.5, atol=1e-4)


def test_repulsion_is_what_keeps_poles_apart(rng: np.random.Generator) -> None:
    """The optimum for an oscillation on the real line is a multiple pole, which the modal form cannot hold."""
    taps = sums([0.8 * np.exp(0.9j), 0.8 * np.exp(-0.9j)], [1, 1], 200)
    found = distill(taps, 6, real_poles=True)
    direct = sums(found.system.poles, found.system.residues, 200)
    assert np.isclose(np.linalg.norm(direct - taps) / np.linalg.norm(taps), found.error, rtol=1e-2)
    assert isinstance(found.system, Modal)
    assert found.error < 0.2


@pytest.mark.parametrize("region", [Region(), Region(0.85), Region(0.85, True)])
def test_coordinates_have_the_derivatives_they_say(rng: np.random.Generator, region: Region) -> None:
    """Of a pair at the circle, one within, one near the line, and reals, through the steps themselves."""
    upper = np.array([0.84 * np.exp(2.1j), 0.2 + 0.1j, 0.5 + 0.02j])
    poles = np.concatenate([np.stack([upper, upper.conj()], -1).ravel(), [0.3, -0.7]])[None]
    if region.real:
        poles = np.array([[-0.8, -0.6, -0.3, 0.1, 0.3, 0.5, 0.7, 0.84]], complex)
    live = np.ones(poles.shape, bool)
    problem = OverAllTime.of(Bank.of(decaying(rng, 1, 60)))
    here = region.chart(poles, live)
    gradient, hessian = region.derivatives(here, problem(poles, live))
    h = 1e-4

    def error(step: np.ndarray) -> float:
        return problem(region.moved(here, step[None], live), live).error[0]

    steps = h * np.eye(8)
    middle = error(np.zeros(8))
    for i in range(8):
        assert np.isclose(gradient[0, i], (error(steps[i]) - error(-steps[i])) / (2 * h), rtol=1e-4, atol=1e-6 * middle)
        for j in range(8):
            corners = error(steps[i] + steps[j]) - error(steps[i] - steps[j]) - error(steps[j] - steps[i]) + error(-steps[i] - steps[j])
            assert np.isclose(hessian[0, i, j], corners / (4 * h**2), rtol=1e-3, atol=1e-4 * middle)


def test_many_real_poles_are_still_of_use() -> None:
    """Real exponentials are nearly dependent: residues by the closed form alone would be rounding."""
    taps = np.asarray(hyena_filters().taps, float)[:2, :1024]
    few, many = (distill(taps, order, real_poles=True) for order in (8, 48))
    assert (many.error < few.error).all()
