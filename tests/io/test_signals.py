"""Measured data of every kind of file come in with the right numbers, channels and sample time."""

from __future__ import annotations

import json
import struct
import wave

import numpy as np
import pytest
import scipy.io
import scipy.io.wavfile
import scipy.sparse
from safetensors.numpy import save_file

import ssmid


def taps_of(path, **options) -> np.ndarray:
    system = ssmid.read(path, **options)
    assert isinstance(system, ssmid.ImpulseResponse)
    return system.taps


# ---------------------------------------------------------------- wav


def wav_bytes(frames: bytes, bits: int, rate: int = 8000, channels: int = 1) -> bytes:
    """A PCM file by hand, so that 24 bits can be had."""
    block = channels * bits // 8
    head = b"fmt " + struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * block, block, bits)
    body = head + b"data" + struct.pack("<I", len(frames)) + frames
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_pcm_is_scaled_to_full_scale_one(tmp_path, bits):
    top = 2 ** (bits - 1)
    values = [-top, -1, 0, 1, top - 1]
    frames = bytes(v + 128 for v in values) if bits == 8 else b"".join(v.to_bytes(bits // 8, "little", signed=True) for v in values)
    (tmp_path / "x.wav").write_bytes(wav_bytes(frames, bits))
    response = ssmid.read(tmp_path / "x.wav")
    assert response.dt == 1 / 8000
    np.testing.assert_array_equal(response.arrays["taps"], np.array(values) / top)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_wav_is_taken_as_it_is_one_row_a_channel(tmp_path, rng, dtype):
    samples = (3 * rng.standard_normal((50, 2))).astype(dtype)
    scipy.io.wavfile.write(tmp_path / "x.wav", 48000, samples)
    np.testing.assert_array_equal(taps_of(tmp_path / "x.wav"), samples.T)
    np.testing.assert_array_equal(taps_of(tmp_path / "x.wav", channel=1), samples[:, 1])


def test_minutes_of_audio(tmp_path):
    samples = np.zeros((3 * 60 * 44100, 2), np.int16)
    samples[0, 0], samples[-1, 1] = 16384, -32768
    scipy.io.wavfile.write(tmp_path / "long.wav", 44100, samples)
    taps = taps_of(tmp_path / "long.wav")
    assert taps.shape == (2, 7938000)
    assert (taps[0, 0], taps[1, -1]) == (0.5, -1.0)


def test_fs_overrules_the_file(tmp_path):
    scipy.io.wavfile.write(tmp_path / "x.wav", 48000, np.ones(4, np.int16))
    assert ssmid.read(tmp_path / "x.wav", fs=96000).dt == 1 / 96000


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int16", "bool", "float16", ">f8"])
def test_npy_keeps_or_widens_the_dtype(tmp_path, dtype):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    np.save(tmp_path / "x.npy", array)
    taps = taps_of(tmp_path / "x.npy", fs=100)
    np.testing.assert_array_equal(taps, array)
    wider = {"int16": "float64", "bool": "float64", "float16": "float32", ">f8": "float64"}
    assert taps.dtype == wider.get(dtype, dtype)


def test_npz_needs_a_key_where_there_are_several_arrays(tmp_path, rng):
    filters, bias = rng.standard_normal((2, 3, 9)), rng.standard_normal((2, 3))
    np.savez(tmp_path / "x.npz", filters=filters, bias=bias, steps=np.int64(7))
    np.testing.assert_array_equal(taps_of(tmp_path / "x.npz", key="filters", channel=(1, 2)), filters[1, 2])
    np.testing.assert_array_equal(taps_of(tmp_path / "x.npz", key="filters", channel=1), filters[1])
    with pytest.raises(ValueError, match=r"expected one array, or key= to choose one, got filters \(2, 3, 9\), bias \(2, 3\)$"):
        ssmid.read(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"key: expected one of \['bias', 'filters', 'steps'\], got 'filter'"):
        ssmid.read(tmp_path / "x.npz", key="filter")


def test_one_array_beside_a_sampling_frequency(tmp_path):
    np.savez(tmp_path / "x.npz", h=np.ones(5), fs=16000)
    assert ssmid.read(tmp_path / "x.npz").dt == 1 / 16000
    scipy.io.savemat(tmp_path / "x.mat", {"h": np.ones(5), "Ts": 0.25})
    assert ssmid.read(tmp_path / "x.mat").dt == 0.25


def test_axis_names_the_time_axis(tmp_path, rng):
    array = rng.standard_normal((7, 2))
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(taps_of(tmp_path / "x.npy", axis=0), array.T)
    with pytest.raises(ValueError, match=r"axis: expected -2 to 1 for shape \(7, 2\), got 2"):
        ssmid.read(tmp_path / "x.npy", axis=2)


def test_safetensors_with_one_tensor_or_a_key(tmp_path):
    save_file({"w": np.ones((2, 4), np.float32)}, tmp_path / "x.safetensors")
    assert taps_of(tmp_path / "x.safetensors").shape == (2, 4)
    save_file({"w": np.ones((2, 4), np.float32), "v": np.ones(3)}, tmp_path / "y.safetensors")
    assert taps_of(tmp_path / "y.safetensors", key="v").shape == (3,)


def test_bfloat16_tensors_become_float32(tmp_path):
    first = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"a": first, "w": {"dtype": "BF16", "shape": [3], "data_offsets": [4, 10]}})
    data = np.float32(9).tobytes() + np.array([0x3F80, 0xC000, 0x3E80], "<u2").tobytes()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)
    taps = taps_of(tmp_path / "x.safetensors", key="w")
    assert taps.dtype == np.float32
    np.testing.assert_array_equal(taps, [1.0, -2.0, 0.25])


def test_mat_signals_are_columns_and_vectors_either_way(tmp_path, rng):
    signal = rng.standard_normal((20, 3))
    for name, array, expected in [("m", signal, signal.T), ("c", signal[:, :1], signal[:, 0]), ("r", signal[:, :1].T, signal[:, 0])]:
        scipy.io.savemat(tmp_path / f"{name}.mat", {"data": array})
        np.testing.assert_array_equal(taps_of(tmp_path / f"{name}.mat"), expected)
    np.testing.assert_array_equal(taps_of(tmp_path / "m.mat", axis=1), signal)


@pytest.mark.parametrize("case", [str.upper, str.lower])
@pytest.mark.parametrize("version", ["5", "4"])
def test_mat_state_space_sparse_or_integer_continuous_or_not(tmp_path, rng, case, version):
    A, B, C = rng.standard_normal((3, 3)), np.array([[1], [0], [2]], np.uint8), scipy.sparse.csc_matrix([[1.0, 0, 0], [0, 0, 5]])
    matrices = {case("A"): scipy.sparse.csc_matrix(A), case("B"): B, case("C"): C, "hsv": np.ones(3)}
    scipy.io.savemat(tmp_path / "x.mat", matrices, format=version)
    system = ssmid.read(tmp_path / "x.mat")
    assert isinstance(system, ssmid.StateSpace)
    np.testing.assert_array_equal(system.A, A)
    np.testing.assert_array_equal(system.B, B)
    np.testing.assert_array_equal(system.C, C.toarray())
    np.testing.assert_array_equal(system.D, np.zeros((2, 1)))
    assert system.dt == 0
    assert ssmid.read(tmp_path / "x.mat", fs=10).dt == 0.1
    one = ssmid.read(tmp_path / "x.mat", channel=(1, 0))
    np.testing.assert_array_equal(one.arrays["C"], [[0, 0, 5]])
    assert one.arrays["D"].shape == (1, 1)


def test_descriptor_systems_are_refused_by_name(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", dict.fromkeys("ABCE", np.eye(2)))
    with pytest.raises(ValueError, match="expected A, B, C, D, got a descriptor system with E"):
        ssmid.read(tmp_path / "x.mat")


# ---------------------------------------------------------------- csv


@pytest.mark.parametrize(
    ("text", "expected", "dt"),
    [
        ("1\n2\n3\n", [1, 2, 3], 1),
        ("1,4\n2,5\n3,6\n", [[1, 2, 3], [4, 5, 6]], 1),
        ("left;right\n1;4\n2;5\n", [[1, 2], [4, 5]], 1),
        ("# a comment\n1e-3 -4\n\n2 5\n", [[1e-3, 2], [-4, 5]], 1),
        ("time (ms),h\n0,1\n0.5,2\n1.0,3\n", [1, 2, 3], 5e-4),
        ('"t","h"\n10,1\n12,2\n', [1, 2], 2),
        ("\ufefft\th\n0\t7\n0.25\t8\n", [7, 8], 0.25),
    ],
)
def test_csv_with_and_without_header_time_and_delimiters(tmp_path, text, expected, dt):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    response = ssmid.read(tmp_path / "x.csv")
    np.testing.assert_array_equal(response.arrays["taps"], expected)
    assert response.dt == pytest.approx(dt, rel=1e-15)


def test_csv_columns_by_name(tmp_path):
    (tmp_path / "x.csv").write_text("sampling_time,input,y\n0,1,2\n0.1,3,4\n")
    np.testing.assert_array_equal(taps_of(tmp_path / "x.csv", key="y"), [2, 4])
    np.testing.assert_array_equal(taps_of(tmp_path / "x.csv", key="y, input"), [[2, 4], [1, 3]])
    with pytest.raises(ValueError, match=r"key: expected columns out of \['input', 'y'\], got 'z'"):
        ssmid.read(tmp_path / "x.csv", key="z")


def test_csv_time_must_run_evenly(tmp_path):
    (tmp_path / "x.csv").write_text("t,h\n0,1\n1,2\n5,3\n")
    with pytest.raises(ValueError, match="time column: expected equal positive steps, got 1 to 4"):
        ssmid.read(tmp_path / "x.csv")


# ---------------------------------------------------------------- channels, options, real files


@pytest.mark.parametrize(("channel", "got"), [(3, "3"), (-1, "-1"), ((0, 0), r"\(0, 0\)")])
def test_a_channel_that_is_not_there(tmp_path, channel, got):
    np.save(tmp_path / "x.npy", np.ones((3, 8)))
    with pytest.raises(ValueError, match=rf"channel: expected an index within the channels' shape \(3,\), got {got}$"):
        ssmid.read(tmp_path / "x.npy", channel=channel)


@pytest.mark.parametrize("fs", [0, -1.0, np.nan, np.inf])
def test_a_sampling_frequency_that_is_none(tmp_path, fs):
    np.save(tmp_path / "x.npy", np.ones(8))
    with pytest.raises(ValueError, match="fs: expected a positive sampling frequency in Hz, got"):
        ssmid.read(tmp_path / "x.npy", fs=fs)


def test_options_that_a_kind_of_file_does_not_have(tmp_path):
    scipy.io.wavfile.write(tmp_path / "x.wav", 8000, np.ones(4, np.int16))
    with pytest.raises(ValueError, match="key: expected none for this kind of file, got 'h'"):
        ssmid.read(tmp_path / "x.wav", key="h")


def test_real_files(shared_data):
    room = ssmid.read(shared_data / "ir" / "openair_living_room_1.wav")
    assert (room.arrays["taps"].shape, room.dt) == ((39431,), 1 / 44100)
    with wave.open(str(shared_data / "ir" / "openair_living_room_1.wav")) as file:
        pcm = np.frombuffer(file.readframes(39431), "<i2")
    np.testing.assert_array_equal(room.arrays["taps"], pcm / 32768)
    demo = ssmid.read(shared_data / "mor" / "MRdemo2M.mat")
    assert isinstance(demo, ssmid.StateSpace)
    assert (demo.order, demo.outputs, demo.inputs, demo.dt) == (16, 2, 2, 0)
    assert taps_of(shared_data / "hyena_d256_l2048.npz", key="filters").shape == (6, 256, 2048)
    assert ssmid.read(shared_data / "sysid" / "buck_id.csv", key="y").dt == pytest.approx(1e-5)
