"""Unstable poles are told, and what stands in their place is strictly stable and the nearest such thing."""

from __future__ import annotations

import numpy as np
import pytest

from ssmid.identification.stable_poles import are_unstable, held_inside


@pytest.mark.parametrize("dt", [0, 1, True, 1e-12])
@pytest.mark.parametrize("margin", [1e-14, 1e-9])
def test_all_poles_are_strictly_stable_afterwards(xp, rng, dt, margin):
    poles = rng.standard_normal(40) + 1j * rng.standard_normal(40)
    poles[:4] = [0, 1j, 1, -1]
    held = xp.numpy(held_inside(xp.asarray(poles), dt, margin))
    assert not are_unstable(held, dt).any()
    before = are_unstable(poles, dt)
    assert before.any()
    # the mirror image has the same modulus or angle, and stable poles stay as they are
    np.testing.assert_allclose(*((np.angle(held), np.angle(poles)) if dt else (held.imag, poles.imag)), atol=1e-12)
    inside = ~before & ((1 - np.abs(poles) > 2 * margin) if dt else (poles.real < -2 * margin))
    assert (held[inside] == poles[inside]).all()


def test_a_pole_at_zero_of_continuous_time_moves_inside():
    assert held_inside(np.array([0j]), 0).real < 0
    assert held_inside(np.array([0j]), 1) == 0
