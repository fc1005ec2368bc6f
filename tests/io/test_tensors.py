"""safetensors by the byte: what is written piece by piece is what the format's own library reads, and the other way round."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

from ssmid.io.tensors import Tensor, entries, mapped, numbers, write_tensors

RNG = np.random.default_rng(0)
ARRAYS = {
    "poles": RNG.standard_normal((7, 3, 2)),
    "order": np.arange(7),
    "converged": np.array([True, False, True, True, False, True, False]),
    "empty": np.zeros((7, 0, 2)),
    "single": RNG.standard_normal((2, 3)).astype(np.float32),
}


def in_pieces(name: str, array: np.ndarray, size: int) -> Tensor:
    return Tensor(name, array.dtype, array.shape, lambda: (array[i : i + size] for i in range(0, len(array), size)))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_file_written_in_pieces_is_what_the_library_reads(tmp_path, size):
    path = tmp_path / "a.safetensors"
    write_tensors(path, [in_pieces(name, a, size) for name, a in ARRAYS.items()], {"said": "yes"})
    found = safetensors.numpy.load_file(path)
    assert set(found) == set(ARRAYS)
    for name, a in ARRAYS.items():
        assert found[name].dtype == a.dtype
        np.testing.assert_array_equal(found[name], a)
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == {"said": "yes"}
    assert path.read_bytes()[8 + int.from_bytes(path.read_bytes()[:8], "little") - 1 :][:1] in (b" ", b"}")
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_the_library_wrote_is_mapped(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(ARRAYS, path, {"said": "yes"})
    found, metadata = entries(path)
    assert metadata == {"said": "yes"}
    for name, a in ARRAYS.items():
        np.testing.assert_array_equal(mapped(path, found[name]), a)
        assert mapped(path, found[name]).dtype == a.dtype
    assert isinstance(mapped(path, found["poles"]), np.memmap)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    values = torch.tensor([[1.0, -2.5, 3e38], [0.1, float("inf"), 0.0]], dtype=torch.bfloat16)
    path = tmp_path / "a.safetensors"
    save_file({"x": values}, path)
    entry = entries(path)[0]["x"]
    found = numbers(mapped(path, entry)[1:], entry)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values[1:].float().numpy())


@pytest.mark.parametrize("keep", [4, 40, -1])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(ARRAYS, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="expected safetensors data"):
        entries(path)


def test_pieces_that_do_not_fill_the_shape_leave_no_file(tmp_path):
    short = Tensor("x", np.dtype("f8"), (3, 2), lambda: iter([np.zeros((2, 2))]))
    with pytest.raises(ValueError, match=r"x: expected 48 bytes for shape \(3, 2\), got 32"):
        write_tensors(tmp_path / "a.safetensors", [short], {})
    assert list(tmp_path.iterdir()) == []


def test_the_header_names_places_in_order(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, [in_pieces(name, a, 2) for name, a in ARRAYS.items()], {})
    content = path.read_bytes()
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    places = [head[name]["data_offsets"] for name in ARRAYS]
    assert [p[0] for p in places] == [0, *(p[1] for p in places[:-1])]
