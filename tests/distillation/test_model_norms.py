"""Norms of sums of modes, against the responses written out, level sets and dense Hankel matrices."""

import numpy as np
import pytest
import scipy.linalg

import ssmid
from ssmid.distillation.model_norms import energy_beyond, modal_norm, natural_length


def modes(rng, count, pairs, radius=0.95):
    poles = radius * np.sqrt(rng.uniform(0, 1, (count, pairs))) * np.exp(1j * rng.uniform(0, np.pi, (count, pairs)))
    residues = rng.standard_normal((count, pairs)) + 1j * rng.standard_normal((count, pairs))
    return np.concatenate([poles, poles.conj()], axis=-1), np.concatenate([residues, residues.conj()], axis=-1)


def taps(poles, residues, length):
    return np.einsum("nd,ndt->nt", residues, poles[:, :, None] ** np.arange(length)).real


def test_against_the_response(xp, rng):
    poles, residues = modes(rng, 12, 4)
    h = taps(poles, residues, 1500)
    gains = np.abs(np.fft.rfft(h, 2**20)).max(-1)
    hankel = [np.linalg.norm(scipy.linalg.hankel(row[:600]), 2) for row in h]
    expected = {"h2": np.linalg.norm(h, axis=-1), "hankel": hankel, "hinf": gains, "l1": np.abs(h).sum(-1)}
    for kind, value in expected.items():
        found = modal_norm(xp.asarray(poles), xp.asarray(residues), kind)
        assert xp.owns(found)
        np.testing.assert_allclose(xp.numpy(found), value, rtol=1e-8)


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7])
def test_a_resonance_as_narrow_as_its_pole_is_near_the_circle(distance):
    """1 / (z - p) + 1 / (z - p*): the peak is within 1e-3 of 1 / distance, and the sums of moduli go one by one."""
    pole = (1 - distance) * np.exp(0.3j)
    poles, residues = np.array([[pole, pole.conjugate(), 0.5]]), np.array([[1, 1, 0.1 + 0j]])
    exact = ssmid.norm(ssmid.Modal(poles, residues), "hinf")
    np.testing.assert_allclose(modal_norm(poles, residues, "hinf"), exact, rtol=2e-6)
    # sum |2 r^t cos(0.3 t)| is about 4/pi sum r^t
    if distance > 1e-6:
        np.testing.assert_allclose(modal_norm(poles, residues, "l1"), 4 / np.pi / distance, rtol=5e-3)


def test_peaks_of_many_banks_against_level_sets(rng):
    for pairs in (1, 3, 10):
        poles, residues = modes(rng, 15, pairs, radius=0.999)
        np.testing.assert_allclose(modal_norm(poles, residues, "hinf"), ssmid.norm(ssmid.Modal(poles, residues), "hinf"), rtol=2e-6)


def test_peaks_at_both_ends_of_the_band():
    """Of one real pole: at 0 for a positive one, at pi for a negative one."""
    poles, residues = np.array([[0.9 + 0j], [-0.9]]), np.ones((2, 1), complex)
    np.testing.assert_allclose(modal_norm(poles, residues, "hinf"), 10, rtol=1e-12)


def test_energy_beyond(rng):
    poles, residues = modes(rng, 3, 2)
    h = np.concatenate([np.zeros((3, 1)), taps(poles, residues, 1000)], axis=-1)
    for length in (1, 2, 7):
        np.testing.assert_allclose(energy_beyond(poles, residues, length), (h[:, length:] ** 2).sum(-1), rtol=1e-10)


def test_scale_and_nothing(rng):
    poles, residues = modes(rng, 2, 2)
    for kind in ("h2", "hankel", "hinf", "l1"):
        np.testing.assert_allclose(modal_norm(poles, 1e-140 * residues, kind), 1e-140 * modal_norm(poles, residues, kind), rtol=1e-9)
        assert modal_norm(poles[:, :0], residues[:, :0], kind).tolist() == [0, 0]
        assert modal_norm(poles, 0 * residues, kind).tolist() == [0, 0]


def test_modes_that_cancel_to_rounding(rng):
    """Of a system minus itself but for rounding the norms are rounding, and found as quickly."""
    poles, residues = modes(rng, 3, 8, radius=0.9999)
    apart = np.concatenate([poles, poles * (1 - 1e-16)], axis=-1), np.concatenate([residues, -residues * (1 + 1e-15)], axis=-1)
    for kind in ("h2", "hankel", "hinf", "l1"):
        assert (modal_norm(*apart, kind) <= 1e-11 * modal_norm(poles, residues, kind)).all()


def test_natural_length():
    assert [natural_length(radius) for radius in (0.0, 0.5, 0.99, 1.0)] == [16, 16, 688, 65536]
