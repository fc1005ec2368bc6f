"""read_checkpoint: plain banks, keys, prefixes, lengths, and what it says of checkpoints that it does not know."""

import json

import numpy as np
import pytest
import scipy.io
import torch
from safetensors.numpy import save_file

import ssmid
from ssmid.checkpoints import reading


@pytest.fixture
def taps(rng):
    return rng.standard_normal((4, 3, 50))


def test_public_names():
    assert ssmid.read_checkpoint is reading.read_checkpoint
    assert {"Checkpoint", "Layout", "register_layout"} <= set(dir(ssmid))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".safetensors", ".pt"])
def test_one_array_is_the_bank(tmp_path, taps, suffix):
    path = tmp_path / f"filters{suffix}"
    if suffix == ".npy":
        np.save(path, taps)
    elif suffix == ".npz":
        np.savez(path, anything=taps)
    elif suffix == ".mat":
        scipy.io.savemat(path, {"anything": taps})
    elif suffix == ".pt":
        torch.save(torch.asarray(taps), path)
    else:
        save_file({"anything": taps}, path)
    checkpoint = ssmid.read_checkpoint(path)
    (layer,) = checkpoint.layers
    assert (layer.layout, layer.batch, layer.length, layer.shape) == ("plain", (4, 3), 50, (4, 3, 50))
    assert (checkpoint.path, checkpoint.files, checkpoint.layouts) == (path, (path,), ("plain",))
    system = layer.load()
    assert isinstance(system, ssmid.ImpulseResponse)
    np.testing.assert_array_equal(system.taps, taps)


def test_a_model_of_ours(tmp_path):
    system = ssmid.ss(0.5, 1, 2, 0)
    for suffix in ("safetensors", "json"):
        ssmid.save(system, tmp_path / f"m.{suffix}")
        (layer,) = ssmid.read_checkpoint(tmp_path / f"m.{suffix}").layers
        assert (layer.name, layer.layout, layer.batch, layer.length) == ("model", "StateSpace", (), 0)
        np.testing.assert_array_equal(layer.load().A, system.A)


def test_names_of_filters(tmp_path, taps):
    names = ["a.filter", "a.h_filters", "b.kernel", "b.long_kernels", "c.taps", "c.impulse_response", "Kernel"]
    others = ["a.filter.weight", "b.kernelize", "embedding", "a.filter_bias"]
    few = {"short.filter": taps[..., :3], "flat.filter": taps[0, 0]}
    save_file(dict.fromkeys(names + others, taps) | few, tmp_path / "m.safetensors")
    assert sorted(layer.name for layer in ssmid.read_checkpoint(tmp_path / "m.safetensors").layers) == sorted(names)


def test_keys(tmp_path, taps):
    save_file({f"layers.{i}.weight": i * taps for i in (0, 2, 10)} | {"x": taps[0, 0]}, tmp_path / "m.safetensors")
    found = ssmid.read_checkpoint(tmp_path / "m.safetensors", key="layers.*.weight, x").layers
    assert [layer.name for layer in found] == ["layers.0.weight", "layers.2.weight", "layers.10.weight", "x"]
    assert found[-1].batch == ()
    np.testing.assert_array_equal(found[2].load().taps, 10 * taps)
    with pytest.raises(ValueError, match=r"key: expected names out of layers\.0\.weight, .*, got 'y'"):
        ssmid.read_checkpoint(tmp_path / "m.safetensors", key="y")
    with pytest.raises(ValueError, match="key: expected none with layout='hyena', got 'x'"):
        ssmid.read_checkpoint(tmp_path / "m.safetensors", key="x", layout="hyena")


@pytest.mark.parametrize("array", [np.float64(3.0), np.ones((3, 0)), np.ones((0, 3)), np.ones((3, 9)) > 0])
def test_keys_of_what_holds_no_filters(tmp_path, array):
    save_file({"x": np.asarray(array), "y": np.ones(3)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"x: expected real filters of shape \(\*batch, length\), got"):
        ssmid.read_checkpoint(tmp_path / "m.safetensors", key="x")


def test_integers_are_filters_where_they_are_named(tmp_path):
    np.savez(tmp_path / "m.npz", x=np.arange(6).reshape(2, 3))
    (layer,) = ssmid.read_checkpoint(tmp_path / "m.npz", key="x").layers
    assert layer.load().taps.dtype == np.float64


def test_length_cuts_what_is_stored(tmp_path, taps):
    np.save(tmp_path / "f.npy", taps)
    np.savez(tmp_path / "f.npz", filters=taps)
    for suffix in ("npy", "npz"):
        for length, kept in ((7, 7), (500, 50)):
            (layer,) = ssmid.read_checkpoint(tmp_path / f"f.{suffix}", length=length).layers
            assert layer.length == kept
            np.testing.assert_array_equal(layer.load().taps, taps[..., :kept])


@pytest.mark.parametrize("length", [0, -3, 2.5, True, "9"])
def test_lengths_that_are_none(tmp_path, length):
    with pytest.raises(ValueError, match=r"length: expected a number of taps, at least 1, got"):
        ssmid.read_checkpoint(tmp_path, length=length)


def test_prefix(tmp_path, taps):
    np.savez(tmp_path / "m.npz", **{"a.kernel": taps, "b.kernel": taps})
    assert [layer.name for layer in ssmid.read_checkpoint(tmp_path / "m.npz", prefix="b.").layers] == ["b.kernel"]
    with pytest.raises(ValueError, match=r"prefix: expected the beginning of a\.kernel, b\.kernel, got 'c'"):
        ssmid.read_checkpoint(tmp_path / "m.npz", prefix="c")


@pytest.mark.parametrize("name", ["nothing.safetensors", "nothing", "no.npy"])
def test_what_is_not_there(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: expected a file or a folder, got none of that name"):
        ssmid.read_checkpoint(tmp_path / name)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"something")
    with pytest.raises(ValueError, match=r"m\.onnx: expected a file of kind"):
        ssmid.read_checkpoint(tmp_path / "m.onnx")


def test_data_that_are_no_filters(tmp_path):
    np.save(tmp_path / "f.npy", np.ones((3, 9), complex))
    ssmid.save(ssmid.frd([1, 2j], [0.1, 0.2], 1), tmp_path / "r.json")
    for name in ("f.npy", "r.json"):
        with pytest.raises(ValueError, match=rf"{name}: expected real filters or a model, got"):
            ssmid.read_checkpoint(tmp_path / name)


def hyena_shapes(width=6, length=40):
    """Names and shapes of a Hyena layer."""
    return {
        "in_proj.weight": (3 * width, width), "filter_fn.bias": (width,), "filter_fn.pos_emb.z": (1, length, 5),
        "filter_fn.pos_emb.t": (1, length, 1), "filter_fn.implicit_filter.0.weight": (8, 5), "filter_fn.implicit_filter.0.bias": (8,),
        "filter_fn.implicit_filter.1.freq": (1, 8), "filter_fn.implicit_filter.2.weight": (width, 8),
        "filter_fn.modulation.deltas": (1, 1, width),
    }  # fmt: skip


def write(path, shapes, prefix="backbone.layers.0.mixer."):
    save_file({prefix + name: np.ones(shape, np.float32) for name, shape in shapes.items()}, path)
    return path


def test_a_missing_tensor_is_named(tmp_path):
    shapes = hyena_shapes()
    del shapes["filter_fn.modulation.deltas"]
    with pytest.raises(ValueError) as caught:
        ssmid.read_checkpoint(write(tmp_path / "m.safetensors", shapes))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'm.safetensors'}: expected layers of a known layout, got none")
    assert "hyena at 'backbone.layers.0.mixer.': found " in message
    assert "; no filter_fn.modulation.deltas" in message
    assert "got none among 8 tensors" in message
    assert "key='...' (--key)" in message
    assert "register_layout" in message
    assert "\n" not in message


@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_a_damaged_layer_among_others_is_left_out_aloud(tmp_path, fault):
    shapes = {f"layers.{i}.{name}": shape for i in range(3) for name, shape in hyena_shapes().items()}
    if fault == "missing":
        del shapes["layers.1.filter_fn.modulation.deltas"]
    else:
        shapes["layers.1.filter_fn.bias"] = (7,)
    path = write(tmp_path / "m.safetensors", shapes, "")
    words = r"m\.safetensors: left out: hyena at 'layers\.1\.': found .*; (no |filter_fn\.bias has)"
    with pytest.warns(reading.LeftOutWarning, match=words):
        found = ssmid.read_checkpoint(path)
    assert [layer.name for layer in found.layers] == ["layers.0", "layers.2"]
    assert len(found.skipped) == 1
    assert ssmid.read_checkpoint(path, prefix="layers.2").skipped == ()


def test_settings_and_layouts_are_for_filters_that_are_made(tmp_path, taps):
    np.save(tmp_path / "h.npy", taps)
    save_file({"layers.0.filter": taps, "bias": taps[0]}, tmp_path / "h.safetensors")
    with pytest.raises(ValueError, match=r"h\.npy: layout: expected none for a file without named tensors, .*, got 'hyena'"):
        ssmid.read_checkpoint(tmp_path / "h.npy", layout="hyena")
    for name, key in (("h.npy", None), ("h.safetensors", "bias"), ("h.safetensors", None)):
        with pytest.raises(ValueError, match=r"settings: expected .*, got (shift|a)"):
            ssmid.read_checkpoint(tmp_path / name, key=key, settings={"shift" if name == "h.safetensors" else "a": 1})


def test_other_kinds_of_layers_are_not_damaged_ones(tmp_path, recwarn):
    shapes = {f"layers.0.{name}": shape for name, shape in hyena_shapes().items()}
    shapes |= {"layers.1.in_proj.weight": (12, 6), "layers.1.D": (6,)}
    assert ssmid.read_checkpoint(write(tmp_path / "m.safetensors", shapes, "")).skipped == ()
    assert not recwarn.list


def test_a_wrong_shape_is_named(tmp_path):
    shapes = hyena_shapes() | {"filter_fn.bias": (7,)}
    fault = r"hyena at 'backbone\.layers\.0\.mixer\.': .*; filter_fn\.bias has shape \(7,\) instead of \(filters=6,\)"
    with pytest.raises(ValueError, match=fault):
        ssmid.read_checkpoint(write(tmp_path / "m.safetensors", shapes))


def test_a_named_layout_says_what_it_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"expected layers of layout 'long-convolution', got none among 9 tensors\. They are back"):
        ssmid.read_checkpoint(write(tmp_path / "m.safetensors", hyena_shapes()), layout="long-convolution")
    with pytest.raises(ValueError, match=r"layout: expected one of .*hyena.*, plain, got 'other'"):
        ssmid.read_checkpoint(tmp_path / "m.safetensors", layout="other")


def test_an_unknown_checkpoint_lists_what_it_holds(tmp_path):
    with pytest.raises(ValueError, match=r"They are attention\.weight \(4, 4\), mlp\.weight \(4, 8\)\. Filters that are stored"):
        ssmid.read_checkpoint(write(tmp_path / "m.safetensors", {"attention.weight": (4, 4), "mlp.weight": (4, 8)}, ""))


def test_plain_asked_for_by_name(tmp_path, taps):
    shapes = hyena_shapes()
    path = tmp_path / "m.safetensors"
    save_file({name: np.ones(shape) for name, shape in shapes.items()} | {"room.filters": taps}, path)
    assert ssmid.read_checkpoint(path).layouts == ("hyena",)
    assert [layer.name for layer in ssmid.read_checkpoint(path, layout="plain").layers] == ["room.filters"]
    with pytest.raises(ValueError, match="expected layers of layout 'plain'"):
        ssmid.read_checkpoint(write(tmp_path / "n.safetensors", shapes), layout="plain")


def test_settings_that_nobody_takes(tmp_path):
    path = write(tmp_path / "m.safetensors", hyena_shapes())
    with pytest.raises(ValueError, match=r"settings: expected names out of l_max, max_seq_len, modulate, .*, got modulated"):
        ssmid.read_checkpoint(path, layout="hyena", settings={"modulated": True})


@pytest.mark.parametrize("huge", [10**12, 10**18, 10**30])
def test_huge_lengths_are_refused_before_memory_is_asked_for(tmp_path, huge):
    path = write(tmp_path / "m.safetensors", hyena_shapes())
    with pytest.raises(ValueError, match=r"backbone\.layers\.0\.mixer: expected filters that the memory of \d+ bytes holds"):
        ssmid.read_checkpoint(path, length=huge).layers[0].load()
    shapes = {name: shape for name, shape in hyena_shapes().items() if "pos_emb" not in name}
    path = write(tmp_path / "n.safetensors", shapes)
    (tmp_path / "config.json").write_text(json.dumps({"l_max": huge}))
    with pytest.raises(ValueError, match="expected filters that the memory"):
        ssmid.read_checkpoint(path).layers[0].load()


@pytest.mark.parametrize("length", ["many", -1, 0, 2.5, [3]])
def test_lengths_in_a_config_that_are_none(tmp_path, length):
    shapes = {name: shape for name, shape in hyena_shapes().items() if "pos_emb" not in name}
    path = write(tmp_path / "n.safetensors", shapes)
    (tmp_path / "config.json").write_text(json.dumps({"l_max": length}))
    with pytest.raises(ValueError, match=r"mixer: l_max: expected a number of taps, at least 1, got"):
        ssmid.read_checkpoint(path)


@pytest.mark.parametrize(("setting", "said"), [({"modulate": "false"}, "modulate: expected true"), ({"shift": None}, "shift: exp")])
def test_settings_of_the_wrong_type(tmp_path, setting, said):
    path = write(tmp_path / "m.safetensors", hyena_shapes())
    with pytest.raises(ValueError, match=rf"backbone\.layers\.0\.mixer: {said}"):
        ssmid.read_checkpoint(path, settings=setting).layers[0].load()


@pytest.mark.parametrize("text", ["{", "\xff\xfe", "[1, 2]"])
def test_config_of_another_kind(tmp_path, text):
    path = write(tmp_path / "m.safetensors", hyena_shapes())
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    if text == "[1, 2]":
        assert len(ssmid.read_checkpoint(path).layers) == 1
    else:
        with pytest.raises(ValueError, match=r"config\.json: expected JSON data"):
            ssmid.read_checkpoint(path)


def test_a_config_belongs_to_layers_that_it_has_a_say_in(tmp_path, taps):
    path = write(tmp_path / "m.safetensors", hyena_shapes())
    without = ssmid.read_checkpoint(path).sha256
    (tmp_path / "config.json").write_text("{}")
    found = ssmid.read_checkpoint(path)
    assert found.files == (path, tmp_path / "config.json")
    assert found.sha256 != without
    np.savez(tmp_path / "f.npz", taps)
    assert ssmid.read_checkpoint(tmp_path / "f.npz").files == (tmp_path / "f.npz",)


def test_layers_are_ready_for_the_distiller(tmp_path):
    """From a checkpoint to poles: a filter of two poles, found."""
    t = np.arange(64)
    save_file({"blocks.0.kernel": (0.9**t + 0.5 * (-0.7) ** t)[None]}, tmp_path / "m.safetensors")
    (layer,) = ssmid.read_checkpoint(tmp_path / "m.safetensors").layers
    bank = ssmid.distill(layer.load(), 2)
    np.testing.assert_allclose(np.sort(bank.system.poles.real[0]), [-0.7, 0.9], atol=1e-3)
