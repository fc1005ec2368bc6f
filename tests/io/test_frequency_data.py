"""Frequency responses in csv, npz and mat files: units, forms, channels, and what is none."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io

import ssmid
from ssmid.io.frequency_data import radians_of

HERTZ = np.linspace(10.0, 1000.0, 25)
VALUES = 1 / (1 + 2j * np.pi * HERTZ / 700)


def write(path, header, *columns):
    np.savetxt(path, np.stack(columns, 1), delimiter=",", header=header, comments="", fmt="%.17g")
    return path


@pytest.mark.parametrize(
    ("name", "scale"),
    [("f", 1), ("Frequency (Hz)", 1), ("freq [kHz]", 1e-3), ("frequency_MHz", 1e-6), ("omega", 2 * np.pi), ("w (rad/s)", 2 * np.pi)],
)
def test_units_of_the_frequency(tmp_path, name, scale):
    response = ssmid.read(write(tmp_path / "a.csv", f"{name},re,im", scale * HERTZ, VALUES.real, VALUES.imag))
    assert isinstance(response, ssmid.FrequencyResponse)
    assert response.dt == 0
    np.testing.assert_allclose(response.omega, 2 * np.pi * HERTZ, rtol=1e-14)
    np.testing.assert_allclose(response.values, VALUES, rtol=1e-14)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ("real,imag", (VALUES.real, VALUES.imag)),
        ("mag,phase", (np.abs(VALUES), np.degrees(np.angle(VALUES)))),
        ("magnitude,phase_rad", (np.abs(VALUES), np.angle(VALUES))),
        ("db,deg", (20 * np.log10(np.abs(VALUES)), np.degrees(np.angle(VALUES)))),
        ("Magnitude (dB),Phase (deg)", (20 * np.log10(np.abs(VALUES)), np.degrees(np.angle(VALUES)))),
        ("mag,Phase (rad)", (np.abs(VALUES), np.angle(VALUES))),
    ],
)
def test_forms_of_the_values(tmp_path, names, columns):
    response = ssmid.read(write(tmp_path / "a.csv", f"f,{names}", HERTZ, *columns))
    np.testing.assert_allclose(response.values, VALUES, rtol=1e-12)


@pytest.mark.parametrize("delimiter", [",", " "])
def test_a_header_behind_a_comment_sign_is_one(tmp_path, delimiter):
    """As numpy.savetxt writes it. Without it the frequencies were taken for a channel of taps."""
    table = np.stack([HERTZ, VALUES.real, VALUES.imag], 1)
    np.savetxt(tmp_path / "a.csv", table, delimiter=delimiter, header=f"measured today\nfreq(Hz){delimiter}re{delimiter}im")
    np.testing.assert_allclose(ssmid.read(tmp_path / "a.csv").values, VALUES, rtol=1e-14)
    np.savetxt(tmp_path / "b.csv", table, delimiter=delimiter, header="three channels measured today")
    assert ssmid.read(tmp_path / "b.csv").taps.shape == (3, 25)


def test_channels_are_named_before_the_unit(tmp_path):
    columns = (np.full(25, value) for value in (0.0, 0.0, 20.0, 90.0))
    path = write(tmp_path / "a.csv", "f,S11 mag (dB),S11 phase (deg),S21_mag_db,S21_phase_deg", HERTZ, *columns)
    np.testing.assert_allclose(ssmid.read(path).values, [np.ones(25), np.full(25, 10j)], atol=1e-14)


def test_several_channels_and_a_sample_time(tmp_path):
    path = write(tmp_path / "a.csv", "f,s11_re,s11_im,S21 mag,S21 phase", HERTZ, VALUES.real, VALUES.imag, 2 * np.abs(VALUES), 0 * HERTZ)
    response = ssmid.read(path, fs=4000)
    assert response.dt == 1 / 4000
    np.testing.assert_allclose(response.values, [VALUES, 2 * np.abs(VALUES)], rtol=1e-14)
    assert ssmid.read(path, channel=1).batch_shape == ()


@pytest.mark.parametrize("kind", ["npz", "mat"])
def test_arrays_by_name(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    arrays = {"freq": HERTZ, "H": np.stack([VALUES, 2 * VALUES])}
    np.savez(path, **arrays) if kind == "npz" else scipy.io.savemat(path, arrays)
    response = ssmid.read(path)
    np.testing.assert_allclose(response.values, arrays["H"])
    np.testing.assert_allclose(response.omega, 2 * np.pi * HERTZ)


def test_the_time_axis_may_come_first_and_a_key_chooses(tmp_path):
    np.savez(tmp_path / "a.npz", omega=HERTZ, first=np.stack([VALUES] * 3, 1), second=VALUES, dt=0.001)
    assert ssmid.read(tmp_path / "a.npz", key="first").values.shape == (3, 25)
    response = ssmid.read(tmp_path / "a.npz", key="second")
    assert response.dt == 0.001
    np.testing.assert_allclose(response.omega, HERTZ)
    with pytest.raises(ValueError, match="expected one complex array beside the frequencies omega, or key="):
        ssmid.read(tmp_path / "a.npz")


def test_real_arrays_beside_frequencies_are_no_response(tmp_path):
    """A published model carries its frequencies and gains; one real array is an impulse response."""
    np.savez(tmp_path / "a.npz", w=HERTZ[:1], taps=np.ones(30))
    assert isinstance(ssmid.read(tmp_path / "a.npz"), ssmid.ImpulseResponse)
    assert radians_of("force") is None
    assert radians_of("time") is None


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("f,re,phase", "columns beside f: expected pairs re, im or mag, phase .* got re, phase alone"),
        ("f,volts,amps", "column volts: expected a name that ends with"),
        ("f,s11_re,s12_im", "columns beside f: expected pairs re, im .* got s11_re alone"),
    ],
)
def test_columns_that_are_no_pairs(tmp_path, header, message):
    with pytest.raises(ValueError, match=message):
        ssmid.read(write(tmp_path / "a.csv", header, HERTZ, HERTZ, HERTZ))


def test_a_fit_takes_the_file(tmp_path):
    path = write(tmp_path / "a.csv", "f,re,im", HERTZ, VALUES.real, VALUES.imag)
    fit = ssmid.vector_fitting(ssmid.read(path), order=1)
    np.testing.assert_allclose(fit.system.A, [[-700]], rtol=1e-9)
