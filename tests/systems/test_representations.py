"""Every representation obeys the laws of :mod:`tests.laws`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import ssmid
from tests.laws import LENGTH, SystemLaws, random_poles, random_residues, taps_of


def random_modal(rng, *batch, dt=1):
    return ssmid.Modal(random_poles(rng, *batch), random_residues(rng, *batch), rng.standard_normal(batch), dt)


def monic(roots):
    """Coefficients of the monic polynomials with the given roots ``(*batch, n)``."""
    out = np.ones((*roots.shape[:-1], 1), complex)
    for i in range(roots.shape[-1]):
        zero = np.zeros_like(out[..., :1])
        out = np.concatenate([out, zero], -1) - roots[..., i : i + 1] * np.concatenate([zero, out], -1)
    return out.real


class TestStateSpace(SystemLaws):
    def make(self, rng, *batch, dt=1):
        A = rng.standard_normal((*batch, 5, 5))
        A *= 0.8 / np.abs(np.linalg.eigvals(A)).max(-1)[..., None, None]
        return ssmid.StateSpace(A, *(rng.standard_normal((*batch, *shape)) for shape in ((5, 1), (1, 5), (1, 1))), dt)

    def scaled(self, system, factor):
        return dataclasses.replace(system, C=factor * system.C, D=factor * system.D)


class TestMultivariableStateSpace(TestStateSpace):
    targets = ("state-space", "modal", "transfer-function", "balanced")

    def make(self, rng, *batch, dt=1):
        A = rng.standard_normal((*batch, 4, 4))
        A *= 0.8 / np.abs(np.linalg.eigvals(A)).max(-1)[..., None, None]
        return ssmid.StateSpace(A, *(rng.standard_normal((*batch, *shape)) for shape in ((4, 2), (3, 4), (3, 2))), dt)

    def test_a_batch_equals_a_loop_of_singles(self, xp, rng):
        system = self.make(rng, 2)
        whole = ssmid.frequency_response(self.on(xp, system), points=8).values
        assert tuple(whole.shape) == (2, 3, 2, 5)
        for i in range(2):
            single = ssmid.frequency_response(self.on(xp, system.map(lambda a, i=i: a[i])), points=8).values
            np.testing.assert_allclose(xp.numpy(single), xp.numpy(whole)[i], rtol=1e-12)


class TestModal(SystemLaws):
    make = staticmethod(random_modal)

    def scaled(self, system, factor):
        return dataclasses.replace(system, residues=factor * system.residues, feedthrough=factor * system.feedthrough)

    def test_half_of_each_pair_with_twice_the_residue_is_the_same_system(self, rng):
        system = random_modal(rng, 3)
        half = ssmid.Modal(system.poles[:, [0, 2, 3]], system.residues[:, [0, 2, 3]] * [2, 1, 1], system.feedthrough)
        np.testing.assert_allclose(ssmid.impulse_response(half, 50).taps, ssmid.impulse_response(system, 50).taps, atol=1e-13)
        got, expected = (ssmid.frequency_response(s, points=50).values for s in (half, system))
        np.testing.assert_allclose(got, expected, atol=1e-12)

    def test_channels_share_poles_by_broadcasting(self, rng):
        shared = ssmid.Modal(random_poles(rng)[None], random_residues(rng, 3))
        assert shared.batch_shape == (3,)
        single = ssmid.Modal(shared.poles[0], shared.residues[2])
        np.testing.assert_allclose(ssmid.impulse_response(shared, 20).taps[2], ssmid.impulse_response(single, 20).taps, atol=1e-14)


class TestTransferFunction(SystemLaws):
    def make(self, rng, *batch, dt=1):
        return ssmid.TransferFunction(rng.standard_normal((*batch, 5)), monic(random_poles(rng, *batch)), dt)

    def scaled(self, system, factor):
        return dataclasses.replace(system, num=factor * system.num)

    def test_two_ways_to_write_a_filter_differ_by_a_delay(self):
        in_z, in_delays = ssmid.tf([1.0], [1.0, -0.5]), ssmid.from_ba([1.0], [1.0, -0.5])
        np.testing.assert_allclose(ssmid.impulse_response(in_z, 5).taps[1:], ssmid.impulse_response(in_delays, 4).taps)


class TestZerosPolesGain(SystemLaws):
    def make(self, rng, *batch, dt=1):
        return ssmid.ZerosPolesGain(1.2 * random_poles(rng, *batch)[..., :3], random_poles(rng, *batch), 1 + rng.uniform(size=batch), dt)

    def scaled(self, system, factor):
        return dataclasses.replace(system, gain=factor * system.gain)


class TestSecondOrderSections(SystemLaws):
    def make(self, rng, *batch, dt=1):
        poles = random_poles(rng, *batch)
        den = np.stack([monic(poles[..., :2]), monic(poles[..., 2:])], -2)
        return ssmid.SecondOrderSections(np.concatenate([rng.standard_normal((*batch, 2, 3)), den], -1), dt)

    def scaled(self, system, factor):
        sections = system.sections.copy()
        sections[..., 0, :3] *= factor
        return ssmid.SecondOrderSections(sections, system.dt)


class TestImpulseResponse(SystemLaws):
    targets = ("state-space", "transfer-function")

    def make(self, rng, *batch, dt=1):
        taps = taps_of(random_poles(rng, *batch), random_residues(rng, *batch), rng.standard_normal(batch), 24)
        return ssmid.ImpulseResponse(taps, dt)

    def scaled(self, system, factor):
        return ssmid.ImpulseResponse(factor * system.taps, system.dt)

    @pytest.mark.parametrize("length", [1, 2, 23, 24])
    def test_to_the_spectrum_and_back(self, xp, rng, length):
        taps = xp.asarray(rng.standard_normal((2, length)))
        spectrum = ssmid.convert(ssmid.ImpulseResponse(taps), "frequency-response").system
        np.testing.assert_allclose(xp.numpy(ssmid.impulse_response(spectrum).taps), xp.numpy(taps), atol=1e-14)


class TestFrequencyResponse(SystemLaws):
    targets = ("impulse-response",)

    def make(self, rng, *batch, dt=1):
        taps = taps_of(random_poles(rng, *batch), random_residues(rng, *batch), rng.standard_normal(batch), LENGTH)
        omega = 2 * np.pi * np.fft.rfftfreq(LENGTH)
        return ssmid.FrequencyResponse(np.fft.rfft(taps), np.broadcast_to(omega, (*batch, len(omega))) / dt, dt)

    def scaled(self, system, factor):
        return ssmid.FrequencyResponse(factor * system.values, system.omega, system.dt)

    @pytest.mark.parametrize("length", [1, 2, 9, 16])
    def test_periodic_taps_are_the_inverse_fft_of_the_spectrum(self, xp, rng, length):
        """A response on one grid says nothing of a coarser one that is not part of it: only its own length is asked for."""
        super().test_periodic_taps_are_the_inverse_fft_of_the_spectrum(xp, rng, LENGTH)
        if LENGTH % length:
            with pytest.raises(ValueError, match=r"expected .* got"):
                ssmid.frequency_response(self.make(rng), points=length)

    def test_kind_width_and_device_are_kept(self, xp, rng):
        system = self.on(xp, self.make(rng, 2), 32)
        assert xp.owns(ssmid.impulse_response(system, LENGTH).taps)


def test_the_batch_is_that_of_all_arrays(xp):
    """Arrays that share their batch are broadcast; an element is finite where all of its numbers are, in whichever array."""
    residues = np.ones((2, 3, 4))
    residues[1, 2, 0] = np.nan
    modal = ssmid.Modal(xp.asarray(np.full(4, 0.5)), xp.asarray(residues), xp.asarray(np.array([[1.0], [np.inf]])))
    assert modal.batch_shape == (2, 3)
    assert {name: tuple(a.shape) for name, a in modal.broadcast_arrays().items()} == {
        "poles": (2, 3, 4), "residues": (2, 3, 4), "feedthrough": (2, 3),
    }  # fmt: skip
    assert xp.numpy(modal.is_finite()).tolist() == [[True] * 3, [False] * 3]
    single = ssmid.StateSpace(*(xp.asarray(np.ones((2, 2))) for _ in range(3)))
    assert xp.numpy(single.is_finite()) == np.True_


def test_a_real_bank_keeps_the_real_part_of_its_feedthrough(xp):
    """Norms, taps and state space of one bank speak of one system."""
    modal = ssmid.Modal(xp.asarray(np.array([0.5, 0.3])), xp.asarray(np.array([1.0, 2.0])), xp.asarray(np.array(1 + 1j)))
    assert xp.numpy(modal.feedthrough) == 1.0
    taps = ssmid.impulse_response(modal, 100)
    for kind in ("h2", "hinf", "l1"):
        np.testing.assert_allclose(xp.numpy(ssmid.norm(modal, kind)), xp.numpy(ssmid.norm(taps, kind)), rtol=2e-6)
    assert ssmid.Modal([0.5], [1.0], 1 + 1j, real=False).feedthrough == 1 + 1j
