"""The bundled and generated systems against their definitions: closed forms, published tables, laws of acoustics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.signal

import ssmid
from ssmid import ImpulseResponse, datasets


def test_hyena_filters_are_every_24th_of_the_original(shared_data: Path) -> None:
    original = np.load(shared_data / "hyena_d256_l2048.npz")["filters"].reshape(-1, 2048)
    np.testing.assert_array_equal(datasets.hyena_filters().taps, original[::24])


def test_hyena_filters_are_float32_numpy() -> None:
    filters = datasets.hyena_filters()
    assert isinstance(filters.taps, np.ndarray)
    assert filters.taps.dtype == np.float32
    assert filters.taps.shape == (64, 2048)
    assert np.isfinite(filters.taps).all()


# ---------------------------------------------------------------- room


def test_direct_sound_arrives_in_time_at_its_height() -> None:
    """All walls absorb: one pulse 1 / (4 pi d) at d / c, nothing else. The energy of a unit sinc is one sample's."""
    fs, size, source, receiver = 48_000, (8.0, 7.0, 6.0), (2.0, 3.0, 3.0), (5.0, 4.0, 2.0)
    distance = np.linalg.norm(np.subtract(source, receiver))
    taps = datasets.room(size, source, receiver, absorption=1.0, fs=fs, length=4096).taps
    spectrum = np.fft.rfft(taps, 65536)
    omega = np.linspace(0, np.pi, len(spectrum))
    r, w = np.exp(-2 * np.pi * 100 / fs), 2 * np.pi * 100 / fs
    _, high_pass = scipy.signal.freqz([1, -(1 + r), r], [1, -2 * r * np.cos(w), r * r], omega)
    expected = np.exp(-1j * omega * distance * fs / datasets.SPEED_OF_SOUND) / (4 * np.pi * distance) * high_pass
    band = omega < 0.9 * np.pi
    np.testing.assert_allclose(spectrum[band], expected[band], atol=2e-3 / (4 * np.pi * distance))


def test_every_wall_gives_its_own_first_reflection() -> None:
    """One reflecting wall: the mirror image of the source behind it, and no other image."""
    fs, size, source, receiver = 48_000, np.array([8.0, 7.0, 6.0]), np.array([2.0, 3.0, 3.0]), np.array([5.0, 4.0, 2.0])
    dead = datasets.room(size, source, receiver, absorption=1.0, fs=fs, length=3000).taps
    for wall in range(6):
        absorption = np.ones(6)
        absorption[wall] = 0.36
        echo = datasets.room(size, source, receiver, absorption=absorption, fs=fs, length=3000).taps - dead
        image = source.copy()
        image[wall // 2] = (2 * size[wall // 2] if wall % 2 else 0) - source[wall // 2]
        distance = np.linalg.norm(image - receiver)
        assert abs(np.argmax(np.abs(echo)) - distance * fs / datasets.SPEED_OF_SOUND) <= 0.5
        # at high frequencies, where the high-pass is 1, the pulse is the reflection coefficient 0.8 over the spherical spreading
        level = np.abs(np.fft.rfft(echo))[700:1300]
        np.testing.assert_allclose(level, 0.8 / (4 * np.pi * distance), rtol=0.02)


def test_room_decays_as_eyring_says() -> None:
    """The energy decay of a nearly cubic room within a quarter of Eyring's formula."""
    size, absorption, fs = (6.0, 5.5, 5.0), 0.2, 8000
    taps = datasets.room(size, (1.2, 1.7, 1.9), (4.1, 3.2, 2.7), absorption=absorption, fs=fs, length=6000).taps
    decay = 10 * np.log10(np.cumsum(taps[::-1] ** 2)[::-1] / np.sum(taps**2))
    start, stop = np.argmax(decay < -5), np.argmax(decay < -25)
    measured = 3 * (stop - start) / fs
    volume, surface = np.prod(size), 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    eyring = 24 * np.log(10) * volume / (-datasets.SPEED_OF_SOUND * surface * np.log(1 - absorption))
    assert measured == pytest.approx(eyring, rel=0.25)


def test_room_is_deterministic_and_a_prefix_of_the_longer_one() -> None:
    short, long = datasets.room(length=1500), datasets.room(length=3000)
    np.testing.assert_allclose(short.taps, long.taps[:1500], rtol=0, atol=1e-15)
    assert short.dt == 1 / 16_000


def test_room_with_two_receivers_is_two_rooms() -> None:
    ends = np.array([[3.9, 1.1, 1.6], [1.0, 1.0, 1.0]])
    both = datasets.room(receiver=ends, length=700).taps
    assert both.shape == (2, 700)
    np.testing.assert_array_equal(both[1], datasets.room(receiver=ends[1], length=700).taps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (1, 2)}, "size: expected three finite numbers"),
        ({"size": (1, -2, 3)}, "size: expected three positive lengths"),
        ({"source": (9, 1, 1)}, r"source: expected a position inside the room \[5.2, 3.9, 2.6\], got \[9.0, 1.0, 1.0\]"),
        ({"receiver": (0, 1, 1)}, "receiver: expected a position inside"),
        ({"receiver": [[[1, 1, 1]]]}, r"receiver: expected shape \(3,\) or \(k, 3\), got \(1, 1, 3\)"),
        ({"absorption": 0}, "absorption: expected one number or six"),
        ({"absorption": [0.5] * 5}, "absorption: expected one number or six"),
        ({"fs": 0}, "fs: expected a positive sample rate, got 0"),
        ({"length": 0}, "length: expected at least one tap, got 0"),
    ],
)
def test_room_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        datasets.room(**arguments)


# ---------------------------------------------------------------- benchmark models


def test_fom_is_its_closed_form() -> None:
    """H(s) = sum over pairs 200 (s + 1) / ((s + 1)^2 + w^2) + sum over k of 1 / (s + k)."""
    model, s = datasets.fom(), 2.0 + 150.0j
    value = (model.C @ np.linalg.solve(s * np.eye(1006) - model.A, model.B))[0, 0]
    expected = sum(200 * (s + 1) / ((s + 1) ** 2 + w**2) for w in (100, 200, 400)) + np.sum(1 / (s + np.arange(1, 1001)))
    assert value == pytest.approx(expected, rel=1e-12)
    assert model.dt == 0


def test_heat_is_slicots(shared_data: Path) -> None:
    file = scipy.io.loadmat(shared_data / "mor" / "heat-cont.mat")
    for name in "ABC":
        stored = file[name].toarray() if scipy.sparse.issparse(file[name]) else file[name]
        np.testing.assert_array_equal(getattr(datasets.heat(), name), stored)


def test_heat_eigenvalues_are_the_discrete_sines() -> None:
    n = 60
    expected = -4 * 0.01 * (n + 1) ** 2 * np.sin(np.arange(1, n + 1) * np.pi / (2 * (n + 1))) ** 2
    np.testing.assert_allclose(np.linalg.eigvalsh(datasets.heat(n).A)[::-1], expected, rtol=1e-11)


def test_beam_has_the_deflection_and_frequencies_of_euler_and_bernoulli() -> None:
    model = datasets.beam()
    assert model.order == 348
    # Hermite elements are exact for a tip load; the condition of the stiffness matrix, 1e9, leaves 1e-8
    gain = -(model.C @ np.linalg.solve(model.A, model.B))[0, 0]
    assert gain == pytest.approx(1 / 3, rel=1e-8)
    poles = np.linalg.eigvals(model.A)
    lowest = np.sort(np.abs(poles[poles.imag > 0]))[:4]
    np.testing.assert_allclose(lowest, np.array([1.8751040687, 4.6940911330, 7.8547574382, 10.995540735]) ** 2, rtol=1e-6)


def test_beam_is_lightly_damped_and_stable_by_structure() -> None:
    model = datasets.beam(40, mass_damping=0.02, stiffness_damping=1e-5)
    assert np.linalg.eigvalsh(model.A + model.A.T).max() < 1e-9
    poles = np.linalg.eigvals(model.A)
    poles = poles[poles.imag > 0]
    # proportional damping: 2 Re = -(a + b w^2) for every mode (Rayleigh)
    np.testing.assert_allclose(-2 * poles.real, 0.02 + 1e-5 * np.abs(poles) ** 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: datasets.heat(2), "n: expected at least 3 points, got 2"),
        (lambda: datasets.beam(350), "n: expected a positive multiple of 4"),
        (lambda: datasets.beam(8, mass_damping=-1.0), "damping: expected numbers >= 0"),
    ],
)
def test_models_refuse(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- network and record


def test_the_band_pass_is_reciprocal_symmetric_and_passive():
    S = np.moveaxis(datasets.band_pass().values, -1, 0)
    np.testing.assert_allclose(S[:, 0, 1], S[:, 1, 0], atol=1e-15)
    np.testing.assert_allclose(S[:, 0, 0], S[:, 1, 1], atol=1e-12)
    assert np.linalg.norm(S, 2, axis=(1, 2)).max() < 1


def test_without_losses_it_has_the_ripple_of_its_design():
    """Chebyshev's polynomial in the frequency that the band-pass transformation makes; what does not pass is reflected."""
    response = datasets.band_pass(2001, quality=1e9)
    hertz = response.omega / (2 * np.pi)
    through = np.abs(response.values[1, 0]) ** 2
    np.testing.assert_allclose(through + np.abs(response.values[0, 0]) ** 2, 1, atol=1e-6)
    x = (hertz / np.sqrt(450e6 * 550e6) - np.sqrt(450e6 * 550e6) / hertz) * np.sqrt(450e6 * 550e6) / 100e6
    chebyshev = 4 * x**3 - 3 * x
    np.testing.assert_allclose(through, 1 / (1 + (10**0.01 - 1) * chebyshev**2), rtol=2e-3)


def test_the_band_pass_is_of_order_six_beside_its_lines():
    response = datasets.band_pass()
    fit = ssmid.rational_least_squares(ssmid.FrequencyResponse(response.values[1, 0], response.omega, 0), order=6, delay=0.6e-9)
    assert float(fit.error) < 1e-11
    assert bool(fit.stable)


def test_the_arm_is_a_system_of_order_four_in_noise():
    """The noise is the stated part of the output, and what is left after the true poles are fitted is no more."""
    noisy, clean = datasets.flexible_arm(4000), datasets.flexible_arm(4000, noise=0.0)
    part = (noisy.outputs - clean.outputs).std() / clean.outputs.std()
    assert part == pytest.approx(0.02, rel=1e-6)
    z = np.exp(0.02 * 2 * np.pi * np.array([3.1, 8.7]) * (-np.array([0.03, 0.02]) + 1j * np.sqrt(1 - np.array([0.03, 0.02]) ** 2)))
    denominator = np.poly(np.r_[z, z.conj()]).real
    delayed = lambda x, k: np.r_[np.zeros(k), x[: len(x) - k]]  # noqa: E731
    regressors = np.stack([delayed(clean.inputs[0], k) for k in range(5)], 1)
    filtered = sum(c * delayed(clean.outputs[0], k) for k, c in enumerate(denominator))
    b = np.linalg.lstsq(regressors, filtered, rcond=None)[0]
    assert np.abs(filtered - regressors @ b).max() < 1e-10


def test_drawn_filters_are_stretched_and_scaled_copies(xp) -> None:
    t = np.arange(400.0)
    source = ImpulseResponse(xp.asarray(np.stack([np.exp(-t / 40), np.exp(-t / 25) * np.cos(0.2 * t)])))
    drawn = datasets.drawn_filters(50, source, seed=3)
    taps = xp.numpy(drawn.taps)
    assert taps.shape == (50, 400)
    assert xp.owns(drawn.taps)
    # of a pure decay each copy is one again, to the error of linear interpolation, at a rate within the range of the stretch
    falls = taps[:, 20] / taps[:, 10]
    decays = falls[(taps > 0).all(-1)]
    assert len(decays) > 10
    rates = -np.log(decays) / 10 * 40
    assert ((rates > np.exp(-0.31)) & (rates < np.exp(0.31))).all()
    assert len(np.unique(taps[:, 5])) == 50
    np.testing.assert_array_equal(taps, xp.numpy(datasets.drawn_filters(50, source, seed=3).taps))


def test_drawn_filters_of_another_length_take_as_long() -> None:
    t = np.arange(300.0)
    source = ImpulseResponse(np.exp(-t / 30)[None])
    long = datasets.drawn_filters(5, source, length=1200, seed=1).taps
    short = datasets.drawn_filters(5, source, seed=1).taps
    np.testing.assert_allclose(long[:, 1::4][:, :200] / long[:, 1:2], short[:, 1:201] / short[:, 1:2], atol=0.02)


@pytest.mark.parametrize("wrong", [{"count": -1}, {"count": 3, "length": 1}])
def test_drawn_filters_refuse_what_makes_no_bank(wrong) -> None:
    with pytest.raises(ValueError, match="expected a count"):
        datasets.drawn_filters(**wrong)
