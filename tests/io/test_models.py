"""Models on disk come back bit for bit, or a ValueError says why not."""

from __future__ import annotations

import json
import os

import control
import numpy as np
import pytest

import ssmid
from ssmid._array import dtype_name, to_numpy
from ssmid.io import metadata
from ssmid.io.files import write_whole

SUFFIXES = (".safetensors", ".json")


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers of every size, with the ones that a careless writer would round."""
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30, shape)
    values = values + 1j * rng.standard_normal(shape) if dtype.startswith("complex") else values
    values = values.astype(dtype)
    if values.size > 2:
        info = np.finfo(dtype)
        values.flat[:3] = [info.smallest_subnormal, info.max, -0.0]
    return values


def systems(rng: np.random.Generator, dtype: str, batch: tuple[int, ...], dt: float | bool) -> list[ssmid.System]:
    def draw(*core: int) -> np.ndarray:
        return numbers(rng, (*batch, *core), dtype)

    made: list[ssmid.System] = [
        ssmid.StateSpace(draw(3, 3), draw(3, 2), draw(1, 3), draw(1, 2), dt),
        ssmid.Modal(draw(4), draw(4), draw(), dt, real=False),
        ssmid.Modal(draw(4), draw(4), None, dt),
        ssmid.Modal(draw(0), draw(0), draw(), dt),
        ssmid.TransferFunction(draw(2), draw(3) + 1, dt),
        ssmid.ZerosPolesGain(draw(1), draw(2), draw(), dt),
        ssmid.FrequencyResponse(draw(5), np.abs(numbers(rng, (5,), dtype)), dt),
    ]
    if dt != 0:
        made += [ssmid.ImpulseResponse(draw(7), dt), ssmid.SecondOrderSections(draw(2, 6), dt)]
    return made


def assert_identical(got: ssmid.System, expected: ssmid.System) -> None:
    assert type(got) is type(expected)
    assert type(got.dt) is type(expected.dt)
    assert got.dt == expected.dt
    assert getattr(got, "real", None) == getattr(expected, "real", None)
    for name, array in expected.arrays.items():
        mine = got.arrays[name]
        assert (dtype_name(mine), mine.shape) == (dtype_name(array), tuple(array.shape)), name
        assert mine.tobytes() == to_numpy(array).tobytes(), name


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("batch", [(), (2, 3), (0,)])
@pytest.mark.parametrize("dt", [True, 0, 1, 0.1, 1 / 44100])
def test_every_representation_comes_back_bit_for_bit(tmp_path, rng, suffix, dtype, batch, dt):
    for system in systems(rng, dtype, batch, dt):
        path = tmp_path / f"model{suffix}"
        ssmid.save(system, path)
        assert_identical(ssmid.load(path), system)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_torch_tensors_strides_and_conjugate_views(tmp_path, suffix):
    torch = pytest.importorskip("torch")
    poles = torch.tensor([0.5 + 0.1j, 0.5 - 0.1j], dtype=torch.complex128)
    system = ssmid.Modal(poles.conj(), torch.arange(4.0, dtype=torch.float64)[::2].requires_grad_(), torch.tensor(1.0, dtype=torch.float64))
    ssmid.save(system, tmp_path / f"m{suffix}")
    assert_identical(ssmid.load(tmp_path / f"m{suffix}"), system)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_element_of_a_batch_is_kept_as_it_is(tmp_path, suffix):
    taps = np.array([[1.0, 2.0], [np.nan, np.inf], [-np.inf, 0.1]])
    ssmid.save(ssmid.ImpulseResponse(taps), tmp_path / f"m{suffix}")
    np.testing.assert_array_equal(ssmid.load(tmp_path / f"m{suffix}").arrays["taps"], taps)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_and_read_know_model_files(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    note = {"source": "room.wav", "order": 16, "error": 0.25, "channels": [0, 1]}
    system = ssmid.ss([[0.5]], [[1.0]], [[2.0]], dt=0.1)
    ssmid.save(system, path, note)
    assert metadata(path) == note
    assert_identical(ssmid.read(path), system)


def test_the_json_is_standard_and_has_matrix_rows_on_lines(tmp_path):
    ssmid.save(ssmid.ss(np.array([[0.5, 0.25], [0.0, 0.1]]), [[1.0], [1]], [[1.0, 2]]), tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert "[[0.5, 0.25],\n" in text
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["class"] == "StateSpace"
    assert content["arrays"]["A"] == {"dtype": "float64", "shape": [2, 2], "data": [[0.5, 0.25], [0.0, 0.1]]}


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "model.json"
    ssmid.save(ssmid.ss(0.5, 1, 1), path)
    before = path.read_bytes()

    def fail(temporary):
        temporary.write_bytes(b"half of")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.json"]


def test_a_saved_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    ssmid.save(ssmid.ss(0.5, 1, 1), tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_load_of_a_measurement_names_the_function_for_it(tmp_path):
    with pytest.raises(ValueError, match=r"room\.wav: expected the suffix .* got '\.wav': ssmid\.read takes measurements"):
        ssmid.load(tmp_path / "room.wav")


def test_save_refuses_what_is_no_system_or_no_model_suffix(tmp_path):
    with pytest.raises(TypeError, match=r"expected a System \(StateSpace, .*got ndarray"):
        ssmid.save(np.ones(3), tmp_path / "m.json")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"got TransferFunction of control: ssmid\.from_control makes one"):
        ssmid.save(control.tf([1], [1, 0.5]), tmp_path / "m.json")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"got Reduction: save its \.system"):
        ssmid.save(ssmid.balanced_truncation(ssmid.ss(0.5, 1, 1), 1), tmp_path / "m.json")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"expected the suffix \.safetensors or \.json for a model, got '\.npz'"):
        ssmid.save(ssmid.ss(0.5, 1, 1), tmp_path / "m.npz")
    with pytest.raises(ValueError, match=r"no/m\.json: expected a file that can be opened, got: No such file"):
        ssmid.save(ssmid.ss(0.5, 1, 1), tmp_path / "no" / "m.json")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_is_a_value_error(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    ssmid.save(ssmid.Modal(np.array([0.5, 0.25]), np.array([1.0, 2.0])), path, {"a": 1})
    whole = path.read_bytes().rstrip()
    for stop in range(len(whole)):
        path.write_bytes(whole[:stop])
        with pytest.raises(ValueError, match="expected"):
            ssmid.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "expected format version 1, got 2"),
        ({"format": "other"}, r"expected a model written by ssmid\.save, got another file"),
        ({"class": "Popen"}, "class: expected one of StateSpace, .*, got 'Popen'"),
        ({"dt": "soon"}, "expected 0 .continuous., a positive sample time, or True .unspecified., got 'soon'"),
        ({"arrays": {}}, "expected StateSpace model data, got"),
        ({"arrays": {"A": {"dtype": "object", "shape": [1], "data": [1]}}}, "expected a dtype of .*, got 'object'"),
        ({"arrays": {"A": {"dtype": "float64", "shape": [3], "data": [1]}}}, "got a damaged or truncated file"),
    ],
)
def test_a_changed_model_is_refused(tmp_path, change, message):
    path = tmp_path / "m.json"
    ssmid.save(ssmid.ss(0.5, 1, 1), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        ssmid.load(path)


def test_plain_tensors_are_not_a_model(tmp_path):
    from safetensors.numpy import save_file

    save_file({"taps": np.ones(4)}, tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match=r"expected a model written by ssmid\.save, got another file: ssmid\.read takes plain tensors"):
        ssmid.load(tmp_path / "t.safetensors")
