"""Sums that cancel against the same numbers in sixty digits."""

import numpy as np
import pytest

from ssmid._array import from_numpy, to_numpy
from ssmid.distillation.double_double import without_modes
from ssmid.linalg import vandermonde_product


def exact(mpmath, taps, poles, residues):
    """What is left of the taps without the modes, of the very numbers, in 60 digits."""
    mpmath.mp.dps = 60
    poles, states = ([mpmath.mpc(complex(x)) for x in values] for values in (poles, residues))
    left = []
    for tap in taps:
        left.append(mpmath.mpf(float(tap)) - sum(x.real for x in states))
        states = [x * p for x, p in zip(states, poles, strict=True)]
    return left


@pytest.mark.parametrize("length", [1, 2, 3, 10, 64, 300])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_what_plain_sums_lose_is_kept(rng, length, kind):
    mpmath = pytest.importorskip("mpmath")
    like = pytest.importorskip("torch").zeros(1) if kind == "torch" else np.zeros(1)
    poles = rng.uniform(0.3, 0.9999, (3, 4)) * np.exp(1j * rng.uniform(-3, 3, (3, 4)))
    residues = 1e15 * (rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4)))
    taps = vandermonde_product(poles, residues, length, real=True)
    found = to_numpy(without_modes(*(from_numpy(x, like) for x in (taps, poles, residues))))
    wanted = np.array([exact(mpmath, *one) for one in zip(taps, poles, residues, strict=True)], float)
    assert np.abs(found - wanted).max() <= 1e-15 * max(np.abs(wanted).max(), 1)


def test_poles_outside_of_the_circle_and_none_at_all():
    mpmath = pytest.importorskip("mpmath")
    poles, residues = np.array([[1.25, 0.0, 1.5]]) + 0j, np.array([[1e3, 2.0, -1e3]]) + 0j
    taps = vandermonde_product(poles, residues, 90, real=True)
    wanted = np.array(exact(mpmath, taps[0], poles[0], residues[0]), float)
    assert np.allclose(without_modes(taps, poles, residues)[0], wanted, rtol=1e-14, atol=0)
    assert (without_modes(taps, poles[:, :0], residues[:, :0]) == taps).all()


def test_filters_do_not_depend_on_those_beside_them(rng, monkeypatch):
    poles, residues = rng.uniform(-0.9, 0.9, (5, 3)) + 0j, rng.standard_normal((5, 3)) + 0j
    taps = rng.standard_normal((5, 40))
    together = without_modes(taps, poles, residues)
    monkeypatch.setitem(without_modes.__globals__["_BLOCK"], "host", 1)
    assert (without_modes(taps, poles, residues) == together).all()
