"""Figures: what the artists hold is what was asked for; the style stays inside."""

from __future__ import annotations

import itertools
from functools import partial

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.signal

import ssmid
from ssmid import FrequencyResponse, ImpulseResponse, Modal, Reduction, StateSpace, TransferFunction, ZerosPolesGain, plot
from ssmid.analysis.hankel import HankelSpectrum

pytestmark = pytest.mark.usefixtures("style_left_as_it_was")


@pytest.fixture
def band_pass() -> ZerosPolesGain:
    return ZerosPolesGain(*scipy.signal.ellip(4, 1, 60, [0.1, 0.3], "bandpass", output="zpk"))


def labels(ax) -> list[str]:
    return ax.get_legend_handles_labels()[1]


def reduction_of(h: ImpulseResponse, order: int) -> Reduction:
    return ssmid.balanced_truncation(h, order)


@pytest.fixture
def response(rng) -> ImpulseResponse:
    t = np.arange(120)
    return ImpulseResponse(0.9**t * np.cos(0.4 * t) + 0.6**t + 1e-3 * rng.standard_normal(120) * 0.95**t)


# ---------------------------------------------------------------- frequency


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_bode_shows_the_response(band_pass, scale):
    top, bottom = plot.bode(band_pass, scale=scale)
    (line,) = top.get_lines()
    omega = line.get_xdata()
    expected = ssmid.frequency_response(band_pass, omega).values
    np.testing.assert_allclose(line.get_ydata(), 20 * np.log10(np.abs(expected)), atol=1e-9)
    (phase,) = bottom.get_lines()
    np.testing.assert_allclose(np.exp(1j * np.radians(phase.get_ydata())), expected / np.abs(expected), atol=1e-6)
    assert np.abs(np.diff(phase.get_ydata())).max() <= 180 + 1e-6
    assert (top.get_xscale(), bottom.get_xscale()) == (scale, scale)
    assert omega.max() == pytest.approx(np.pi)
    assert (top.get_xlabel(), top.get_ylabel()) == ("", "Magnitude (dB)")
    assert (bottom.get_xlabel(), bottom.get_ylabel()) == ("Angular frequency (rad/sample)", "Phase (°)")


def test_frequencies_in_hertz(band_pass):
    ax = plot.bode_magnitude(band_pass, [0.1, 0.5, np.pi], fs=48000)
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(), np.array([0.1, 0.5, np.pi]) * 48000 / (2 * np.pi))
    assert ax.get_xlabel() == "Frequency (Hz)"
    slow = ZerosPolesGain([], [0.5], 1.0, dt=0.25)
    assert plot.bode_magnitude(slow, [1.0]).get_xlabel() == "Angular frequency (rad/s)"
    np.testing.assert_allclose(plot.bode_magnitude(slow, [1.0], fs=True).get_lines()[0].get_xdata(), 1 / (2 * np.pi))
    np.testing.assert_allclose(plot.bode_magnitude(slow, [1.0], fs=8).get_lines()[0].get_xdata(), 2 / (2 * np.pi))
    continuous = TransferFunction([1.0], [1.0, 1.0], 0)
    np.testing.assert_allclose(plot.bode_magnitude(continuous, [3.0], fs=True).get_lines()[0].get_xdata(), 3 / (2 * np.pi))
    with pytest.raises(ValueError, match="expected True for a continuous-time system"):
        plot.bode_magnitude(continuous, [3.0], fs=8)
    with pytest.raises(ValueError, match="fs: expected a sample rate in Hz, got '48k'"):
        plot.bode_magnitude(ImpulseResponse([1.0, 0.5]), fs="48k")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="fs: expected a sample rate in Hz, got -1"):
        plot.bode_magnitude(slow, [1.0], fs=-1)


@pytest.mark.parametrize("dt", [0, 0.01])
def test_no_resonance_is_missed(dt):
    # a peak a millionth of its frequency wide, at an unremarkable place
    pole = -1e-5 + 7.123j
    pole = np.exp(pole * dt) if dt else pole
    system = Modal([pole, pole.conjugate()], [1.0, 1.0], dt=dt)
    peak = 20 * np.log10(np.abs(ssmid.frequency_response(system, [7.123]).values[0]))
    shown = plot.bode_magnitude(system).get_lines()[0].get_ydata().max()
    assert shown == pytest.approx(peak, abs=0.01)


def test_floor_of_the_magnitude():
    ax = plot.bode_magnitude(FrequencyResponse([1.0, 1e-12, 0.0], [1.0, 2.0, 3.0]), span=100)
    low, high = ax.get_ylim()
    assert -110 < low < -100
    assert 0 < high < 10


def test_channels_are_named_and_curves_limited(rng):
    system = StateSpace(0.3 * rng.standard_normal((3, 3)), rng.standard_normal((3, 2)), rng.standard_normal((2, 3)))
    top, bottom = plot.bode(system, label="plant")
    assert labels(top) == ["plant y0 ← u0", "plant y0 ← u1", "plant y1 ← u0", "plant y1 ← u1"], "counted from 0, as everywhere"
    assert top.get_legend() is not None
    assert bottom.get_legend() is None
    styles = {(line.get_color(), line.get_linestyle()) for line in top.get_lines()}
    assert len(styles) == 4
    with pytest.raises(ValueError, match=r"at most 32 curves, got batch \(40,\): ssmid.plot.filter_bank"):
        plot.bode_magnitude(ImpulseResponse(rng.standard_normal((40, 8))))


def test_two_systems_in_one_pair_of_axes(band_pass):
    axes = plot.bode(band_pass, label="one")
    again = plot.bode(ZerosPolesGain([], [0.5], 1.0), label="two", axes=axes)
    assert again == axes
    assert labels(axes[0]) == ["one", "two"]
    low, high = axes[0].get_ylim()
    assert low < -60
    assert high > 6  # the second one's dc gain


def test_impulse_responses_and_spectra_bring_their_grid(xp):
    taps = np.array([1.0, 0.5, 0.25])
    ax = plot.bode_magnitude(ImpulseResponse(xp.asarray(taps)), scale="linear")
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), 20 * np.log10(np.abs(np.fft.rfft(taps, 1024))), atol=1e-9)
    own = plot.bode_magnitude(FrequencyResponse([1.0, 2.0], [0.5, 1.5]))
    np.testing.assert_array_equal(own.get_lines()[0].get_xdata(), [0.5, 1.5])


def test_nyquist():
    system = TransferFunction([1.0], [1.0, 1.0], 0)
    ax = plot.nyquist(system)
    curve, mirrored = ax.get_lines()[:2]
    x, y = curve.get_xdata(), curve.get_ydata()
    np.testing.assert_allclose((x - 0.5) ** 2 + y**2, 0.25, atol=1e-12)  # a half circle
    assert (y <= 0).all()
    np.testing.assert_array_equal(mirrored.get_ydata(), -y)
    assert np.hypot(np.diff(x), np.diff(y)).max() < 0.021
    assert [tuple(map(float, line.get_xydata()[0])) for line in ax.get_lines() if line.get_marker() == "+"] == [(-1.0, 0.0)]
    assert ax.get_aspect() == 1.0
    assert ax.texts, "expected an arrow"


def test_nyquist_of_an_integrator_shows_the_crossing():
    # 2 / (s (s + 1) (s + 1/2)) crosses the negative axis at -8/3
    ax = plot.nyquist(TransferFunction([2.0], [1.0, 1.5, 0.5, 0.0], 0))
    assert ax.get_xlim() == pytest.approx((-4.0, 4.0), rel=0.01)
    assert plot.nyquist(TransferFunction([2.0], [1.0, 1.5, 0.5, 0.0], 0), radius=2).get_xlim() == (-2, 2)


def test_group_delay_and_its_units():
    delay = ImpulseResponse([0.0, 0.0, 0.0, 1.0])
    ax = plot.group_delay(delay)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), 3.0, atol=1e-9)
    assert ax.get_ylabel() == "Group delay (samples)"
    ax = plot.group_delay(delay, fs=1000)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), 3.0, atol=1e-9)
    assert ax.get_ylabel() == "Group delay (ms)"
    ax = plot.group_delay(ImpulseResponse([0.0, 0.0, 0.0, 1.0], dt=0.5))
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), 1.5, atol=1e-9)
    assert ax.get_ylabel() == "Group delay (s)"
    ax = plot.group_delay(TransferFunction([1.0], [1.0, 2.0], 0), [1e-6])
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), 500.0, rtol=1e-9)
    assert ax.get_ylabel() == "Group delay (ms)"


# ---------------------------------------------------------------- plane


def test_poles_and_zeros():
    system = ZerosPolesGain([-1.0, -1.0, 50.0], [0.5 + 0.5j, 0.5 - 0.5j, 1.1], 1.0)
    ax = plot.pole_zero(system)
    found = {line.get_label(): np.sort_complex(np.asarray(line.get_xdata()) + 1j * np.asarray(line.get_ydata())) for line in ax.get_lines()}
    np.testing.assert_allclose(found["zeros"], [-1, -1, 50])
    np.testing.assert_allclose(found["poles"], [0.5 - 0.5j, 0.5 + 0.5j])
    np.testing.assert_allclose(found["unstable poles"], [1.1])
    assert labels(ax) == ["zeros", "poles", "unstable poles"]
    assert {text.get_text() for text in ax.texts} == {"2", "1 outside"}
    circle = ax.get_lines()[3]
    np.testing.assert_allclose(np.hypot(circle.get_xdata(), circle.get_ydata()), 1.0)
    assert ax.get_xlim()[1] < 5


def test_numbers_below_the_complex_plane_do_not_run_into_each_other():
    figure, ax = plt.subplots(figsize=(4.8, 4.8), layout="constrained")
    plot.pole_zero(ssmid.zpk([], 5e4 * np.array([-1.0, -0.01 + 0.5j, -0.01 - 0.5j]), 1.0, dt=0), ax=ax, zeros=False)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    boxes = [box for box in boxes if ax.bbox.x0 <= (box.x0 + box.x1) / 2 <= ax.bbox.x1]
    assert len(boxes) >= 3
    assert all(left.x1 + 4 < right.x0 for left, right in itertools.pairwise(boxes))


def test_poles_in_continuous_time():
    ax = plot.pole_zero(TransferFunction([1.0, 3.0], [1.0, -1.0, -2.0], 0))
    assert labels(ax) == ["zeros", "poles", "unstable poles"]
    assert ax.get_xlabel() == "Real part (1/s)"
    with pytest.raises(ValueError, match="expected a system with poles, got ImpulseResponse: fit one first"):
        plot.pole_zero(ImpulseResponse([1.0, 0.5]))


# ---------------------------------------------------------------- time


def test_before_after_and_residual(response):
    fit = reduction_of(response, 3)
    ax = plot.impulse(fit, fs=1000)
    before, after, residual = ax.get_lines()[:3]
    np.testing.assert_array_equal(before.get_ydata(), response.taps)
    np.testing.assert_allclose(after.get_ydata(), ssmid.impulse_response(fit.system, 120).taps, atol=1e-12)
    np.testing.assert_allclose(residual.get_ydata(), before.get_ydata() - after.get_ydata(), atol=1e-15)
    share = 100 * np.linalg.norm(residual.get_ydata()) / np.linalg.norm(response.taps)
    assert labels(ax) == ["original", "reduced", f"residual ({share:.2g} % in l2)"]
    assert ax.get_xlabel() == "Time (ms)"
    assert before.get_xdata()[-1] == pytest.approx(119)
    same = plot.impulse(response, fit.system, labels=("room", "model"))
    assert labels(same)[:2] == ["room", "model"]
    assert same.get_xlabel() == "Time (samples)"


def test_levels_in_decibel(response):
    ax = plot.impulse(response, scale="db", span=50)
    level = ax.get_lines()[0].get_ydata()
    np.testing.assert_allclose(level, 20 * np.log10(np.abs(response.taps) / np.abs(response.taps).max()))
    assert -55 < ax.get_ylim()[0] < -50
    assert ax.get_ylabel() == "Level (dB re peak)"
    long = ImpulseResponse(np.r_[np.zeros(9999), 1.0, np.zeros(10_001)])
    # bins keep the one sample that counts
    assert plot.impulse(long, scale="db").get_lines()[0].get_ydata().max() == 0.0


def test_systems_are_shown_until_they_have_died_away():
    ax = plot.impulse(TransferFunction([1.0], [1.0, -0.9]))
    y = ax.get_lines()[0].get_ydata()
    assert 60 < len(y) < 70  # 0.9^66 = 1e-3
    assert len(plot.impulse(TransferFunction([1.0], [1.0, -1.1])).get_lines()[0].get_ydata()) == 256
    assert len(plot.impulse(TransferFunction([1.0], [1.0, -0.9]), length=5).get_lines()[0].get_ydata()) == 5


def test_one_response_at_a_time(rng):
    with pytest.raises(ValueError, match=r"expected one response, got batch \(3,\)"):
        plot.impulse(ImpulseResponse(rng.standard_normal((3, 8))))
    with pytest.raises(ValueError, match='scale: expected "linear" or "db", got \'log\''):
        plot.impulse(ImpulseResponse([1.0]), scale="log")


# ---------------------------------------------------------------- reduction


def test_a_bound_that_says_nothing_is_not_drawn(rng):
    """Noise: a few known Hankel values, and a bound of the others that outweighs them."""
    fit = ssmid.balanced_truncation(ImpulseResponse(rng.standard_normal(600)), 3)
    assert float(fit.bound) > 2 * float(fit.sigma.sum())
    assert not [name for name in labels(plot.hankel_spectrum(fit)) if "bound" in name]


def test_hankel_spectrum_with_the_cut_and_the_bound(response):
    fit = reduction_of(response, 3)
    ax = plot.hankel_spectrum(fit)
    values = next(line for line in ax.get_lines() if line.get_label() == "Hankel singular values")
    positive = fit.sigma > 0
    np.testing.assert_allclose(values.get_ydata(), fit.sigma[positive])
    bound = next(line for line in ax.get_lines() if line.get_label().startswith("error bound"))
    np.testing.assert_array_equal(bound.get_xdata(), [1, 2, 3])
    expected = fit.bound + 2 * np.array([fit.sigma[1] + fit.sigma[2], fit.sigma[2], 0])
    np.testing.assert_allclose(bound.get_ydata(), expected)
    assert f"bound, order 3: {float(fit.bound):.3g}" in labels(ax)
    assert [text.get_text() for text in ax.texts] == ["order 3"]
    assert "truncated" in labels(ax)
    assert ax.get_yscale() == "log"


def test_error_bars_and_values_that_have_not_converged():
    sigma, error = np.geomspace(1, 1e-4, 5), np.array([1e-9, 1e-8, 1e-7, 1e-5, 1e-3])
    ax = plot.hankel_spectrum(HankelSpectrum(sigma, error, np.array([True, True, True, False, False])))
    named = {line.get_label(): line for line in ax.get_lines()}
    done, open_ = named["Hankel singular values"], named["not converged"]
    np.testing.assert_array_equal(done.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(open_.get_xdata(), [4, 5])
    assert open_.get_markerfacecolor() == "white"
    (bars,) = ax.collections
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends[:, 1], sigma + error)
    np.testing.assert_allclose(ends[:4, 0], (sigma - error)[:4])
    assert ends[4, 0] > 0


def test_hankel_spectra_of_systems_arrays_and_banks(rng):
    system = TransferFunction([1.0], [1.0, -0.5])
    ax = plot.hankel_spectrum(system)
    np.testing.assert_allclose(ax.get_lines()[-1].get_ydata(), ssmid.hankel_singular_values(system))
    assert len(plot.hankel_spectrum(np.array([1.0, 0.1, 0.0])).get_lines()[-1].get_ydata()) == 2
    sigma = np.sort(rng.uniform(0.1, 1, (20, 6)))[:, ::-1]
    ax = plot.hankel_spectrum(sigma, 4)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), np.median(sigma / sigma[:, :1], 0))
    assert labels(ax) == ["middle 80 %", "Hankel values, median of 20", "truncated"]


def test_error_over_the_order(response):
    made = [reduction_of(response, r) for r in (3, 1, 2)]
    ax = plot.error_vs_order(made)
    curves = {line.get_label(): line for line in ax.get_lines()}
    measured, upper, lower = curves.values()
    np.testing.assert_array_equal(measured.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(measured.get_ydata()[2], made[0].measured("hinf"))
    np.testing.assert_allclose(upper.get_ydata()[0], made[1].bound)
    np.testing.assert_allclose(lower.get_ydata()[1], made[2].lower_bound)
    assert (lower.get_ydata() <= measured.get_ydata()).all()
    assert (measured.get_ydata() <= upper.get_ydata()).all()
    relative = plot.error_vs_order(made, "h2")
    np.testing.assert_allclose(relative.get_lines()[0].get_ydata()[0], made[1].error)
    assert len(relative.get_lines()) == 1
    with pytest.raises(ValueError, match="at least one Reduction"):
        plot.error_vs_order([])
    with pytest.raises(ValueError, match='kind: expected "hinf"'):
        plot.error_vs_order(made, "l7")
    with pytest.raises(TypeError, match="reductions: expected results of reductions, which know their bounds, got StateSpace"):
        plot.error_vs_order([*made, made[0].system])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"found: expected what ssmid\.compare returns, got Reduction"):
        plot.comparison(made[0])  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- banks


def test_filter_bank_of_taps(rng):
    decay = np.array([0.99, 0.5, 0.9])
    bank = ImpulseResponse(decay[:, None] ** np.arange(40) * np.array([1.0, 100.0, 1e-3])[:, None])
    ax = plot.filter_bank(bank, span=30)
    (mesh,) = ax.collections
    level = np.ma.getdata(mesh.get_array()).reshape(3, 40)
    expected = np.maximum(20 * np.log10(np.sort(decay)[:, None] ** np.arange(40)), -30)  # short ones first, each below its own peak
    np.testing.assert_allclose(level, expected, atol=1e-9)
    assert mesh.get_clim() == (-30, 0)
    assert ax.get_ylim() == (3.5, 0.5)
    unsorted = plot.filter_bank(bank, sort=False, relative=False, span=1000)
    level = np.ma.getdata(unsorted.collections[0].get_array()).reshape(3, 40)
    np.testing.assert_allclose(level[:, 0], [-40, 0, -100], atol=1e-9)


def test_a_bad_filter_is_grey_and_comes_last(rng):
    taps = rng.standard_normal((4, 16))
    taps[1, 3] = np.nan
    taps[2] = 0.0
    (mesh,) = plot.filter_bank(ImpulseResponse(taps)).collections
    mask = np.ma.getmaskarray(mesh.get_array()).reshape(4, 16)
    assert mask[3].all()
    assert not mask[:3].any()


def test_spectra_of_a_bank_and_narrow_peaks():
    tone = np.cos(2 * np.pi * 0.2 * np.arange(20_000))
    ax = plot.filter_bank(ImpulseResponse(np.stack([tone, np.eye(1, 20_000)[0]]), dt=1), of="spectrum", fs=1000)
    (mesh,) = ax.collections
    rows = np.ma.getdata(mesh.get_array()).reshape(2, -1)
    assert rows.shape[1] == 600
    edges = mesh.get_coordinates()[0, :, 0]
    at = int(np.searchsorted(edges, 200.0) - 1)
    assert rows[0].argmax() in (at - 1, at, at + 1)
    clicks = np.stack([np.eye(1, 20_000, k)[0] for k in (10_001, 10_010, 10_023)])  # whatever the bins, each is in one
    (mesh,) = plot.filter_bank(ImpulseResponse(clicks)).collections
    np.testing.assert_array_equal((np.ma.getdata(mesh.get_array()).reshape(3, -1) == 0).sum(-1), 1)
    assert ax.get_xlabel() == "Frequency (Hz)"
    assert edges[-1] == pytest.approx(500, abs=1)


def test_banks_of_models_and_long_axes(rng):
    poles = rng.uniform(0.1, 0.9, (5, 2))
    ax = plot.filter_bank(Modal(poles, np.ones((5, 2))), length=64, scale="log")
    assert ax.get_xscale() == "log"
    assert ax.get_xlim()[0] > 0
    ax = plot.filter_bank(Modal(poles, np.ones((5, 2))), of="spectrum", length=64)
    assert ax.collections[0].get_array().size == 5 * 33
    with pytest.raises(ValueError, match='expected of "taps"'):
        plot.filter_bank(Modal(poles, np.ones((5, 2))), of="phase")


# ---------------------------------------------------------------- style


def test_axes_are_taken_and_returned(band_pass, response):
    drawn = [plot.bode_magnitude, plot.bode_phase, plot.nyquist, plot.pole_zero, plot.group_delay, plot.impulse, plot.hankel_spectrum]
    _, pieces = plt.subplots(3, 3)
    for draw, ax in zip(drawn, pieces.flat, strict=False):
        assert draw(band_pass, ax=ax) is ax
        assert ax.has_data()
    assert plot.filter_bank(response, ax=pieces[2, 1]) is pieces[2, 1]
    assert plot.error_vs_order([reduction_of(response, 2)], ax=pieces[2, 2]) is pieces[2, 2]
    assert len(plt.get_fignums()) == 1


def test_legends_stand_beside_the_data(response):
    ax = plot.impulse(response, response)
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    assert box.x0 >= ax.get_window_extent().x1
    assert box.x1 <= ax.figure.bbox.x1
    _, own = plt.subplots()  # no room made beside the axes: inside
    plot.impulse(response, response, ax=own)
    assert own.get_legend().get_window_extent().x1 <= own.get_window_extent().x1


def test_banks_without_filters_or_without_numbers():
    """No warning of matplotlib or NumPy, and no message of the insides."""
    empty = ImpulseResponse(np.zeros((0, 20)))
    for draw in (plot.bode, plot.bode_magnitude, plot.nyquist, plot.group_delay):
        with pytest.raises(ValueError, match=r"expected at least one channel to draw, got batch \(0,\)"):
            draw(empty)
    with pytest.raises(ValueError, match=r"expected at least one filter to draw, got batch \(0,\)"):
        plot.filter_bank(empty)
    with pytest.raises(ValueError, match=r"expected at least one spectrum to draw, got batch \(0,\)"):
        plot.hankel_spectrum(ssmid.balanced_truncation(empty, 2))
    silent = plot.filter_bank(ImpulseResponse(np.full((2, 20), np.nan)), relative=False)
    assert np.ma.getmaskarray(silent.collections[0].get_array()).all()


def test_style_is_a_context():
    with plot.style():
        assert matplotlib.rcParams["image.cmap"] == "viridis"
    assert matplotlib.rcParams["axes.grid"] is False


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "system",
    [
        StateSpace(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), [[2.0]]),
        TransferFunction([2.0], [1.0], 0),
        TransferFunction([0.0], [1.0, 0.5]),
        TransferFunction([1.0], [1.0, 0.0, 1.0], 0),
        TransferFunction([1.0], [1.0, -1.0]),
        TransferFunction([1e300], [1.0, -0.5]),
        TransferFunction([1e-300], [1.0, -0.5]),
        ssmid.from_ba([0.0, 0.0, 1.0], [1.0]),
    ],
    ids=["gain", "continuous gain", "zero", "oscillator", "integrator", "huge", "tiny", "delay"],
)
def test_edges(system):
    for draw in (plot.bode, plot.nyquist, plot.pole_zero, plot.group_delay, partial(plot.bode, scale="linear")):
        made = draw(system)
        (made[0] if isinstance(made, tuple) else made).figure.canvas.draw()
    if system.is_discrete:
        plot.impulse(system).figure.canvas.draw()
        plot.filter_bank(system).figure.canvas.draw()
