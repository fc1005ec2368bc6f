"""Filters read some at a time from files of any kind."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import safetensors.numpy

import ssmid
from ssmid.jobs.sources import elements, open_source

BANK = np.random.default_rng(0).standard_normal((3, 4, 10))


def taken(path, first, count, layer=0, **options):
    system = open_source(path, **options).layers[layer].take(first, count)
    assert isinstance(system, ssmid.ImpulseResponse)
    return system.taps


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(10,), (12, 10), (3, 4, 10)])
def test_rows_of_npy(tmp_path, order, shape):
    bank = np.asarray(BANK.ravel()[: np.prod(shape)].reshape(shape), order=order)
    np.save(tmp_path / "h.npy", bank)
    (layer,) = open_source(tmp_path / "h.npy").layers
    assert (layer.name, layer.shape, layer.count) == ("filters", shape, np.prod(shape[:-1]))
    count = min(5, layer.count)
    np.testing.assert_array_equal(taken(tmp_path / "h.npy", layer.count - count, count), bank.reshape(-1, 10)[-count:])


@pytest.mark.parametrize("dtype", ["float16", "float32", "int16", ">f8"])
def test_numbers_of_any_width(tmp_path, dtype):
    bank = (10 * BANK).astype(dtype)
    np.save(tmp_path / "h.npy", bank)
    np.testing.assert_array_equal(taken(tmp_path / "h.npy", 5, 2), bank.reshape(12, 10)[5:7])


def test_tensors_of_safetensors_are_layers_of_their_own(tmp_path):
    path = tmp_path / "m.safetensors"
    bank = np.tile(BANK, 2)
    safetensors.numpy.save_file({"layers.1.filter": bank, "layers.0.filter": bank.astype(np.float32), "bias": np.zeros(3)}, path)
    source = open_source(path)
    assert [(layer.name, layer.shape) for layer in source.layers] == [("layers.0.filter", (3, 4, 20)), ("layers.1.filter", (3, 4, 20))]
    np.testing.assert_array_equal(taken(path, 7, 3, layer=1), bank.reshape(12, 20)[7:10])
    np.testing.assert_array_equal(taken(path, 7, 3, key="layers.1.filter", length=6), bank.reshape(12, 20)[7:10, :6])


def test_bfloat16_rows(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    bank = torch.from_numpy(BANK.reshape(12, 10)).to(torch.bfloat16)
    save_file({"filters": bank}, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(taken(tmp_path / "m.safetensors", 4, 2), bank[4:6].float().numpy())


def test_archives_and_models(tmp_path):
    np.savez(tmp_path / "h.npz", filters=BANK, bias=np.zeros(12))
    np.testing.assert_array_equal(taken(tmp_path / "h.npz", 2, 3, key="filters"), BANK.reshape(12, 10)[2:5])
    model = ssmid.Modal(np.array([[0.9, -0.5], [0.3, 0.1]]), np.ones((2, 2)))
    ssmid.save(model, tmp_path / "model.safetensors")
    one = open_source(tmp_path / "model.safetensors").layers[0].take(1, 1)
    np.testing.assert_array_equal(one.arrays["poles"], [[0.3, 0.1]])


def test_elements_of_systems_whose_batches_broadcast():
    system = ssmid.Modal(np.array([[[0.9, -0.5]]]), np.arange(12.0).reshape(2, 3, 2))
    some = elements(system, 2, 3)
    np.testing.assert_array_equal(some.arrays["residues"], np.arange(12.0).reshape(6, 2)[2:5])
    np.testing.assert_array_equal(some.arrays["poles"], np.tile([0.9, -0.5], (3, 1)))


def test_the_digest_is_that_of_sha256sum(tmp_path):
    np.save(tmp_path / "h.npy", BANK)
    assert open_source(tmp_path / "h.npy").sha256() == hashlib.sha256((tmp_path / "h.npy").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("array", "options", "words"),
    [
        (BANK + 1j, {}, "expected real filters of shape .* got complex128"),
        (np.zeros((0, 5)), {}, "at least one, got float64 of shape"),
        (np.float64(1), {}, "expected real filters"),
        (BANK, {"key": "x"}, "key: expected none for a file of one array, got 'x'"),
        (BANK, {"length": 0}, "length: expected at least 1, got 0"),
    ],
)
def test_what_holds_no_filters_is_refused_by_name(tmp_path, array, options, words):
    np.save(tmp_path / "h.npy", array)
    with pytest.raises(ValueError, match=words) as caught:
        open_source(tmp_path / "h.npy", **options)
    assert "h.npy" in str(caught.value)


def test_a_file_that_is_not_there_or_holds_a_pickle(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.npy"):
        open_source(tmp_path / "absent.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects\.npy: expected arrays of numbers, got pickled objects"):
        open_source(tmp_path / "objects.npy")
