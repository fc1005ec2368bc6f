"""Touchstone: every option line, the two-port order, versions 1 and 2."""

from __future__ import annotations

import numpy as np
import pytest

import ssmid


def response(tmp_path, suffix: str, text: str) -> ssmid.FrequencyResponse:
    path = tmp_path / f"x{suffix}"
    path.write_text(text)
    system = ssmid.read(path)
    assert isinstance(system, ssmid.FrequencyResponse)
    return system


@pytest.mark.parametrize(("unit", "hertz"), [("Hz", 1.0), ("kHz", 1e3), ("MHz", 1e6), ("GHZ", 1e9), ("thz", 1e12)])
@pytest.mark.parametrize(("form", "pair"), [("RI", "0 -0.5"), ("MA", "0.5 -90"), ("dB", "-6.020599913279624 -90")])
def test_units_and_formats(tmp_path, unit, hertz, form, pair):
    got = response(tmp_path, ".s1p", f"! a comment\n# {unit} S {form} R 50 ! and another\n1.5 {pair}\n2 {pair}\n")
    np.testing.assert_allclose(got.values, [-0.5j, -0.5j], atol=1e-15)
    np.testing.assert_allclose(got.omega, 2 * np.pi * hertz * np.array([1.5, 2]), rtol=1e-15)
    assert got.dt == 0


def test_an_empty_option_line_means_ghz_s_ma_50(tmp_path):
    got = response(tmp_path, ".s1p", "#\n1 2 180\n")
    np.testing.assert_allclose(got.values, [-2])
    np.testing.assert_allclose(got.omega, [2e9 * np.pi])


def test_two_ports_run_11_21_12_22_and_noise_is_passed_over(tmp_path):
    got = response(tmp_path, ".s2p", "# Hz S RI\n1 11 0 21 0 12 0 22 0\n2 11 1 21 1 12 1 22 1\n! noise\n1 2 0.5 30 0.4\n2 2 0.5 30 0.4\n")
    np.testing.assert_array_equal(got.values[:, :, 0], [[11, 12], [21, 22]])
    np.testing.assert_array_equal(got.values[:, :, 1], [[11 + 1j, 12 + 1j], [21 + 1j, 22 + 1j]])
    assert ssmid.read(tmp_path / "x.s2p", channel=(1, 0)).arrays["values"].tolist() == [21, 21 + 1j]


def test_more_ports_run_by_rows_over_several_lines(tmp_path):
    S = np.arange(25).reshape(5, 5)
    rows = "".join(f"{' '.join(f'{x} 0' for x in row[:4])}\n{' '.join(f'{x} 0' for x in row[4:])}\n" for row in S)
    got = response(tmp_path, ".s5p", f"# Hz S RI\n1 {rows}2 {rows}")
    np.testing.assert_array_equal(got.values[..., 1], S)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("S", [[1, 1], [1, 1]]),
        ("Z", [[10, 10], [10, 10]]),
        ("Y", [[0.1, 0.1], [0.1, 0.1]]),
        ("H", [[10, 1], [1, 0.1]]),
        ("G", [[0.1, 1], [1, 10]]),
    ],
)
def test_version_1_normalization_is_undone(tmp_path, parameter, expected):
    got = response(tmp_path, ".s2p", f"# Hz {parameter} RI R 10\n1 1 0 1 0 1 0 1 0\n")
    np.testing.assert_allclose(got.values[..., 0], expected)


@pytest.mark.parametrize("matrix", ["Full", "Lower", "Upper"])
def test_version_2(tmp_path, matrix):
    row = "1 11 0 12 0 21 0 22 0" if matrix == "Full" else "1 11 0 12 0 22 0"
    text = f"""[Version] 2.0
# Hz Z RI R 50
[Number of Ports] 2
[Two-Port Data Order] 12_21
[Number of Frequencies] 1
[Reference] 50
75
[Matrix Format] {matrix}
[Network Data]
{row}
[Noise Data]
4 .7 .64 69 19
[End]
"""
    got = response(tmp_path, ".ts", text)
    np.testing.assert_array_equal(got.values[..., 0], [[11, 12], [21 if matrix == "Full" else 12, 22]])


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".s2p", "1 2 3\n", r"expected a Touchstone option line \('# GHz S MA R 50'\), got none"),
        (".s2p", "# Hz S RI\n", "expected rows of network data, got none"),
        (".s2p", "# Hz S RI\n1 1 0 1 0 1 0\n", "line 2: expected 9 numbers for a frequency of 2 ports, got 7"),
        (".s3p", "# Hz S RI\n1 1 0 1 0 1 0\n1 0 1 0 1 0\n", "line 2: expected 19 numbers for a frequency of 3 ports, got 13"),
        (".s1p", "# Hz S RI\n1 1 0\n0.5 1 0\n", "line 3: expected rising frequencies, got 0.5 after 1"),
        (".s1p", "# Hz S RI\n1 1 zero\n", "line 2: expected a number, got 'zero'"),
        (".s1p", "# Hz S RI\n1 0\n", "line 2: expected a frequency and pairs of numbers, got 2 numbers"),
        (".s1p", "# Hertz S RI\n1 1 0\n", "line 1: expected a unit .* got 'HERTZ'"),
        (".s1p", "# Hz S RI R\n1 1 0\n", "line 1: expected a number, got 'nothing'"),
        (".s1p", "# Hz S RI\n1 nan 0\n", "expected finite numbers, got .*nan.* at index"),
        (".s0p", "# Hz S RI\n1 1 0\n", "expected at least one port, got .s0p"),
        (".ts", "# Hz S RI\n1 1 0\n", r"expected the number of ports in the suffix \(.s2p\) or in \[Number of Ports\], got .ts"),
        (".s2p", "[Number of Ports] 3\n# Hz S RI\n1 1 0\n", r"expected 2 ports, as the suffix .s2p says, got \[Number of Ports\] 3"),
        (".s1p", "[Number of Frequencies] 2\n# Hz S RI\n1 1 0\n", r"expected 2 frequencies, as \[Number of Frequencies\] says, got 1"),
        (".s1p", "[Matrix Format] Round\n# Hz S RI\n1 1 0\n", r"\[Matrix Format\]: expected Full, Lower or Upper, got round"),
    ],
)
def test_damaged_files_are_refused_with_the_line(tmp_path, suffix, text, message):
    with pytest.raises(ValueError, match=message):
        response(tmp_path, suffix, text)


def test_a_four_port_under_a_two_port_name(shared_data, tmp_path):
    path = tmp_path / "x.s2p"
    path.write_bytes((shared_data / "freq" / "skrf_cst_example_4ports.s4p").read_bytes())
    with pytest.raises(ValueError, match="expected 9 numbers for a frequency of 2 ports, got 33"):
        ssmid.read(path)


@pytest.mark.parametrize(
    ("name", "shape", "lowest", "highest", "largest"),
    [
        ("milan_3port.s3p", (3, 3, 250), 1e6, 1e11, 0.723), ("skrf_Agilent_E5071B.s4p", (4, 4, 205), 5e8, 4.5e9, 0.974),
        ("skrf_cst_example_4ports.s4p", (4, 4, 601), 0, 6e7, 1.0), ("skrf_designer_bandpass.s2p", (2, 2, 1000), 1e6, 1e9, 1.0),
        ("skrf_ring_slot_measured.s1p", (101,), 7.5e10, 1.1e11, 0.917),
    ],
)  # fmt: skip
def test_real_files(shared_data, name, shape, lowest, highest, largest):
    system = ssmid.read(shared_data / "freq" / name)
    assert system.arrays["values"].shape == shape
    np.testing.assert_allclose(system.arrays["omega"][[0, -1]] / (2 * np.pi), [lowest, highest], rtol=1e-9)
    assert np.abs(system.arrays["values"]).max() == pytest.approx(largest, abs=1e-3)
