"""What must hold for every representation of a system, written once.

A test class inherits :class:`SystemLaws` and says how to make a random stable system of its kind; pytest then runs every law
over it, for NumPy, torch and array_api_strict (and CUDA where there is one).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pytest

import ssmid
from ssmid._array import astype_width, dtype_name

ORDER = 4
RADIUS = 0.8
LENGTH = 256  # RADIUS ** LENGTH is 1e-25: the tail is below rounding


def random_poles(rng: np.random.Generator, *batch: int) -> np.ndarray:
    """``(*batch, ORDER)`` poles inside RADIUS: one conjugate pair and two real ones, apart from each other."""
    pair = rng.uniform(0.4, RADIUS, batch) * np.exp(1j * rng.uniform(0.5, 2.6, batch))
    return np.stack([pair, pair.conj(), rng.uniform(0.2, RADIUS, batch) + 0j, -rng.uniform(0.2, RADIUS, batch) + 0j], -1)


def random_residues(rng: np.random.Generator, *batch: int) -> np.ndarray:
    """``(*batch, ORDER)`` residues with the conjugacy of :func:`random_poles`."""
    pair = rng.standard_normal(batch) + 1j * rng.standard_normal(batch)
    return np.stack([pair, pair.conj(), rng.standard_normal(batch) + 0j, rng.standard_normal(batch) + 0j], -1)


def taps_of(poles: np.ndarray, residues: np.ndarray, feedthrough: np.ndarray, length: int) -> np.ndarray:
    """The impulse response by its definition, one power at a time."""
    strictly_proper = (residues[..., None, :] * poles[..., None, :] ** np.arange(length - 1)[:, None]).sum(-1).real
    return np.concatenate([feedthrough[..., None], strictly_proper], -1)


def response_of(system: ssmid.System, points: int = LENGTH) -> Any:
    return ssmid.frequency_response(system, points=points).values


class SystemLaws:
    """Inherit, name the class ``Test...``, and define ``make``."""

    targets: ClassVar[tuple[str, ...]] = ("state-space", "modal", "transfer-function", "zpk", "sos", "companion", "balanced")
    tolerance: ClassVar[float] = 1e-10
    single: ClassVar[float] = 2e-3

    def make(self, rng: np.random.Generator, *batch: int, dt: float = 1) -> ssmid.System:
        """A random stable discrete-time system with NumPy arrays of float64 that all carry the batch axes."""
        raise TypeError("a test class says how to make its system")

    def scaled(self, system: ssmid.System, factor: float) -> ssmid.System:
        """The system with ``factor`` times the response."""
        raise TypeError("a test class says how its system is scaled")

    def on(self, xp, system, bits: int = 64):
        return system.map(lambda a: astype_width(xp.asarray(a), bits))

    def test_spectrum_is_the_fft_of_the_impulse_response(self, xp, rng):
        system = self.on(xp, self.make(rng, 3))
        taps = ssmid.impulse_response(system, LENGTH).taps
        got = xp.numpy(response_of(system))
        assert got.shape[-1] == LENGTH // 2 + 1
        np.testing.assert_allclose(got, np.fft.rfft(xp.numpy(taps)), atol=self.tolerance * np.abs(got).max())

    @pytest.mark.parametrize("length", [1, 2, 9, 16])
    def test_periodic_taps_are_the_inverse_fft_of_the_spectrum(self, xp, rng, length):
        system = self.on(xp, self.make(rng, 2))
        taps = xp.numpy(ssmid.impulse_response(system, length, wrap="periodic").taps)
        spectrum = xp.numpy(response_of(system, length))
        np.testing.assert_allclose(taps, np.fft.irfft(spectrum, n=length), atol=self.tolerance * np.abs(spectrum).max())

    def test_a_batch_equals_a_loop_of_singles(self, xp, rng):
        system = self.make(rng, 2, 3)
        whole = xp.numpy(response_of(self.on(xp, system)))
        for index in np.ndindex(2, 3):
            single = self.on(xp, system.map(lambda a, i=index: a[i]))
            assert single.batch_shape == system.batch_shape[2:]
            np.testing.assert_allclose(xp.numpy(response_of(single)), whole[index], rtol=1e-12, atol=1e-12 * np.abs(whole).max())

    @pytest.mark.parametrize("bits", [32, 64])
    def test_kind_width_and_device_are_kept(self, xp, rng, bits):
        system = self.on(xp, self.make(rng, 2), bits)
        for result in (ssmid.frequency_response(system, points=16), ssmid.impulse_response(system, 16)):
            for array in result.arrays.values():
                assert xp.owns(array)
                assert dtype_name(array) in {32: ("float32", "complex64"), 64: ("float64", "complex128")}[bits]

    def test_single_precision_is_near(self, xp, rng):
        system = self.make(rng, 2)
        exact, got = response_of(system), xp.numpy(response_of(self.on(xp, system, 32)))
        np.testing.assert_allclose(got, exact, atol=self.single * np.abs(exact).max())

    @pytest.mark.parametrize("factor", [1e-140, -3.0, 1e140])
    def test_responses_scale(self, rng, factor):
        system = self.make(rng)
        expected = factor * response_of(system)
        np.testing.assert_allclose(response_of(self.scaled(system, factor)), expected, rtol=1e-9, atol=1e-12 * abs(factor))

    def test_time_scales(self, rng):
        """The same arrays with another sample time have the same response at frequencies scaled alike."""
        system = self.make(rng)
        slow = dataclasses.replace(system, dt=4.0)
        omega = np.linspace(0, np.pi, 65)
        if isinstance(system, ssmid.FrequencyResponse):
            slow = dataclasses.replace(slow, omega=system.omega / 4)
            omega = system.omega
        np.testing.assert_allclose(
            ssmid.frequency_response(slow, omega / 4).values, ssmid.frequency_response(system, omega).values, rtol=1e-9, atol=1e-12
        )

    def test_conversions_keep_the_response(self, xp, rng):
        system = self.make(rng, 2)
        expected = response_of(system)
        for target in self.targets:
            conversion = ssmid.convert(self.on(xp, system), target)
            got = xp.numpy(response_of(conversion.system))
            np.testing.assert_allclose(got, expected, atol=1e-8 * np.abs(expected).max(), err_msg=target)
            assert conversion.system.dt == system.dt
            assert np.all(xp.numpy(conversion.backward_error) < 1e-8), target
            assert all(xp.owns(a) for a in conversion.system.arrays.values()), target

    def test_one_bad_element_spoils_no_other(self, rng):
        """NaN in one element of a batch stays there."""
        system = self.make(rng, 3)
        expected = response_of(system)

        def spoil(array):
            array = array.copy()
            array[1] = np.nan
            return array

        got = response_of(system.map(spoil))
        assert np.isnan(got[1]).all()
        np.testing.assert_allclose(got[[0, 2]], expected[[0, 2]], rtol=1e-12, atol=1e-12)

    def test_containers_are_frozen_and_say_what_they_are(self, rng):
        system = self.make(rng, 5)
        assert "batch=(5" in repr(system)
        assert type(system).__name__ in repr(system)
        with pytest.raises(dataclasses.FrozenInstanceError):
            system.dt = 2  # pyright: ignore

    @pytest.mark.parametrize("dt", [-1, float("nan"), "fast", None, False])
    def test_a_wrong_sample_time_is_refused(self, rng, dt):
        with pytest.raises(ValueError, match=r"dt: expected .* got"):
            dataclasses.replace(self.make(rng), dt=dt)
