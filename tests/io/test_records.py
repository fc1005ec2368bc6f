"""Records from files: the right columns, the right step, and errors that name the file."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io

from ssmid.io import read_record


@pytest.fixture
def csv(tmp_path):
    t = np.arange(20) * 0.05
    table = np.stack([t, np.sin(t), np.cos(t), t**2], 1)
    path = tmp_path / "motor.csv"
    np.savetxt(path, table, delimiter=",", header="time,volts,load,speed", comments="")
    return path, table


def test_columns_by_name(csv):
    path, table = csv
    record = read_record(path, inputs="load, volts", outputs="speed")
    np.testing.assert_allclose(record.inputs, table[:, [2, 1]].T)
    np.testing.assert_allclose(record.outputs, table[:, [3]].T)
    assert record.dt == pytest.approx(0.05)


def test_columns_by_position_and_time_series(csv):
    path, table = csv
    record = read_record(path, inputs=0, outputs="2,1")
    np.testing.assert_allclose(record.inputs, table[:, [1]].T)
    np.testing.assert_allclose(record.outputs, table[:, [3, 2]].T)
    assert read_record(path, outputs="2").inputs.shape == (0, 20)


def test_matlab_columns(tmp_path):
    data = np.arange(12.0).reshape(6, 2)
    scipy.io.savemat(tmp_path / "arm.mat", {"arm": data})
    record = read_record(tmp_path / "arm.mat", inputs="0", outputs="1", fs=10)
    np.testing.assert_allclose(record.inputs[0], data[:, 0])
    np.testing.assert_allclose(record.outputs[0], data[:, 1])
    assert record.dt == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "volts", "outputs": ""}, "motor.csv.*outputs: expected"),
        ({"inputs": "volts", "outputs": "torque"}, "motor.csv.*expected columns out of"),
        ({"inputs": "0", "outputs": "7"}, "motor.csv.*expected positions 0 to 2, got 7"),
        ({"inputs": "volts", "outputs": "speed", "key": "volts"}, "motor.csv.*expected positions from 0 beside key"),
    ],
)
def test_wrong_channels_name_the_file(csv, options, message):
    with pytest.raises(ValueError, match=message):
        read_record(csv[0], **options)


def test_what_holds_no_signals_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "plant.mat", {"A": np.eye(2), "B": np.ones((2, 1)), "C": np.ones((1, 2))})
    with pytest.raises(ValueError, match=r"plant\.mat.*expected signals"):
        read_record(tmp_path / "plant.mat", inputs="0", outputs="1")
