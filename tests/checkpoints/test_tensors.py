"""Containers of tensors: all kinds that people have, damaged ones, and ones that would like to run code."""

import builtins
import hashlib
import io
import json
import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ssmid
from ssmid.checkpoints.tensors import open_tensors, sha256_of

TAPS = torch.arange(120, dtype=torch.float32).reshape(2, 3, 20) / 7


def state(dtype=torch.float32):
    return {"blocks.0.kernel": TAPS.to(dtype), "blocks.1.kernel": -TAPS.to(dtype), "head.weight": torch.ones(4, 2)}


def expect_both(path, dtype=torch.float32):
    first, second = ssmid.read_checkpoint(path).layers
    assert (first.name, second.name) == ("blocks.0.kernel", "blocks.1.kernel")
    for layer, sign in ((first, 1), (second, -1)):
        taps = layer.load().taps
        assert taps.dtype == np.float64
        np.testing.assert_array_equal(taps, sign * TAPS.to(dtype).double().numpy())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["safetensors", "torch", "torch of before 1.6"])
def test_every_width(tmp_path, dtype, kind):
    if kind == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(state(dtype), path)
    else:
        path = tmp_path / "model.pt"
        torch.save(state(dtype), path, _use_new_zipfile_serialization=kind == "torch")
    expect_both(path, dtype)
    assert open_tensors(path)["blocks.0.kernel"].dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 0.1}]}},
        lambda s: {"model": s},
        lambda s: {"module": {"model": s}},
        lambda s: {"model_state_dict": s, "note": "text", "none": None},
        lambda s: {"blocks": {"0": {"kernel": s["blocks.0.kernel"]}, "1": {"kernel": s["blocks.1.kernel"]}}},
        lambda s: {"blocks": [{"kernel": s["blocks.0.kernel"]}, {"kernel": s["blocks.1.kernel"]}]},
    ],
    ids=["lightning", "model", "module", "state and facts", "nested", "lists"],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
def test_wrapped_dicts(tmp_path, wrap, suffix):
    torch.save(wrap(state()), tmp_path / f"model{suffix}")
    expect_both(tmp_path / f"model{suffix}")


def test_a_wrapper_stays_where_its_names_would_be_there_twice(tmp_path):
    torch.save({"model": {"kernel": TAPS}, "kernel": TAPS, "other": TAPS[:1]}, tmp_path / "m.pt")
    assert set(open_tensors(tmp_path / "m.pt")) == {"model.kernel", "kernel", "other"}


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "a.b.c."])
def test_prefixes_of_wrappers_do_no_harm(tmp_path, prefix):
    torch.save({prefix + name: tensor for name, tensor in state().items()}, tmp_path / "m.pt")
    assert [layer.name for layer in ssmid.read_checkpoint(tmp_path / "m.pt").layers] == [f"{prefix}blocks.{i}.kernel" for i in (0, 1)]


def sharded(folder, kind):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index, save = folder / "model.safetensors.index.json", save_file
    if kind == "torch":
        names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
        index, save = folder / "pytorch_model.bin.index.json", torch.save
    content = state()
    place = {name: names[i % 2] for i, name in enumerate(content)}
    for shard in names:
        save({name: tensor for name, tensor in content.items() if place[name] == shard}, folder / shard)
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": place}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_shards(tmp_path, kind):
    index = sharded(tmp_path, kind)
    expect_both(index)
    expect_both(tmp_path)
    shards = sorted(file.name for file in tmp_path.iterdir() if file != index)
    assert [file.name for file in ssmid.read_checkpoint(tmp_path).files] == [index.name, *shards]
    index.unlink()
    expect_both(tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_shards_that_are_missing(tmp_path, kind):
    index = sharded(tmp_path, kind)
    shard = sorted(p for p in tmp_path.iterdir() if p != index)[1]
    shard.rename(tmp_path / "away")
    with pytest.raises(ValueError, match=rf"{index.name}: expected all shards beside the index, got no .*00002-of-00002"):
        ssmid.read_checkpoint(tmp_path)
    index.unlink()
    with pytest.raises(ValueError, match=r"expected 2 shards, got 1: .*00001-of-00002"):
        ssmid.read_checkpoint(tmp_path)


def test_index_names_what_a_shard_lacks(tmp_path):
    index = sharded(tmp_path, "safetensors")
    content = json.loads(index.read_text())
    content["weight_map"]["blocks.7.kernel"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"index\.json: expected the 4 tensors of the index, got none named blocks\.7\.kernel"):
        ssmid.read_checkpoint(tmp_path)


def test_the_index_says_which_shard_holds_a_tensor(tmp_path):
    """Left-overs of another run in a shard are not read; without an index, the same name in two shards is an error."""
    index = sharded(tmp_path, "safetensors")
    second = tmp_path / "model-00002-of-00002.safetensors"
    save_file({"blocks.1.kernel": -TAPS, "blocks.0.kernel": TAPS + 1, "blocks.2.kernel": TAPS}, second)
    expect_both(index)
    index.unlink()
    with pytest.raises(ValueError, match=rf"{second.name}: blocks\.0\.kernel: expected every tensor once, got it in a second file"):
        ssmid.read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", ""])
def test_an_index_reads_its_own_folder_only(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="expected names of files in the same folder"):
        ssmid.read_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "\xff"])
def test_index_of_another_kind(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json: expected"):
        ssmid.read_checkpoint(tmp_path)


def test_folders(tmp_path):
    with pytest.raises(ValueError, match="expected a folder with files of tensors"):
        ssmid.read_checkpoint(tmp_path)
    torch.save({"kernel": torch.zeros(1, 20)}, tmp_path / "pytorch_model.bin")
    save_file(state(), tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text("a model")
    expect_both(tmp_path)  # safetensors before torch
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    save_file(state(), tmp_path / "b.safetensors")
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"got a\.safetensors, b\.safetensors: name one"):
        ssmid.read_checkpoint(tmp_path)


class Malicious:
    """What a pickle does when it is executed: it calls whatever it names."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib"])
@pytest.mark.parametrize("how", ["torch", "torch of before 1.6", "plain", "zip by hand"])
def test_no_pickle_is_executed(tmp_path, suffix, how):
    trace = tmp_path / "trace"
    content = {"blocks.0.kernel": TAPS, "x": Malicious(os.mkdir, str(trace))}
    path = tmp_path / f"model{suffix}"
    if how == "plain":
        path.write_bytes(pickle.dumps({"x": Malicious(os.mkdir, str(trace))}))
    elif how == "zip by hand":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Malicious(builtins.exec, f"import os; os.mkdir({str(trace)!r})"), protocol=2))
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ValueError, match=rf"model\{suffix}: expected") as caught:
        ssmid.read_checkpoint(path)
    assert "weights_only=False" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    with pytest.raises(ValueError, match="expected"):
        ssmid.read_checkpoint(tmp_path)
    assert not trace.exists()


def test_a_refusal_says_what_was_asked_for_and_what_to_do(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "m.pt")
    asked = r"m\.pt: expected tensors in dicts and lists, got a pickle that asks for torch\.nn\.modules\.linear\.Linear"
    with pytest.raises(ValueError, match=asked + r", which is never executed here: .* save model\.state_dict\(\) with safetensors"):
        ssmid.read_checkpoint(tmp_path / "m.pt")


def test_a_shard_that_is_a_pickle(tmp_path):
    trace = tmp_path / "trace"
    index = sharded(tmp_path, "torch")
    torch.save({"blocks.1.kernel": Malicious(os.mkdir, str(trace))}, tmp_path / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(ValueError, match=r"pytorch_model-00002-of-00002\.bin: expected tensors in dicts and lists"):
        ssmid.read_checkpoint(index)
    assert not trace.exists()


def test_torchscript_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"m\.pt: expected tensors in dicts and lists, got a TorchScript program"):
        ssmid.read_checkpoint(tmp_path / "m.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin", ".npz"])
@pytest.mark.parametrize("damage", ["empty", "noise", "half", "head"])
def test_damaged_files(tmp_path, suffix, damage, rng):
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_file(state(), path)
    elif suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state().items()})
    else:
        torch.save(state(), path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "noise": rng.bytes(500), "half": whole[: len(whole) // 2], "head": b"\0" * 64 + whole[64:]}[damage])
    with pytest.raises(ValueError, match=rf"model\{suffix}: expected"):
        ssmid.read_checkpoint(path).layers[0].load()


def test_bytes_changed_within(tmp_path):
    """The archive's checksum is not read by a mapped tensor: what is there is finite or not, but nothing crashes."""
    path = tmp_path / "m.pt"
    torch.save(state(), path)
    content = bytearray(path.read_bytes())
    for place in range(0, len(content), 97):
        changed = bytes(content[:place]) + bytes([content[place] ^ 0xFF]) + bytes(content[place + 1 :])
        path.write_bytes(changed)
        try:
            layers = ssmid.read_checkpoint(path).layers
        except ValueError:
            continue
        assert layers


def test_strings_of_bytes_beside_the_tensors(tmp_path):
    """As the scales of FP8 layers stand in published weights of Evo 2. What is in them is not looked at."""
    inside = io.BytesIO(pickle.dumps(Malicious(os.mkdir, str(tmp_path / "touched"))))
    torch.save(state() | {"blocks.0.projections._extra_state": inside}, tmp_path / "m.pt")
    expect_both(tmp_path / "m.pt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_file_cut_short_after_it_was_opened(tmp_path, kept):
    """Without a look at its size the process dies of a bus error."""
    path = tmp_path / "m.pt"
    torch.save({"kernel": torch.ones(3, 2**16)}, path)
    size = path.stat().st_size
    (layer,) = ssmid.read_checkpoint(path).layers
    os.truncate(path, int(kept * size))
    with pytest.raises(ValueError, match=rf"m\.pt: expected a file that stays as it was, {size} bytes, got one that became shorter"):
        layer.load()


def test_tensors_larger_than_their_file(tmp_path):
    """One number that is said to be a tensor of a terabyte."""
    torch.save({"kernel": torch.zeros(1).expand(2**20, 2**18)}, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"kernel: expected a tensor no larger than its file, got shape \(1048576, 262144\)"):
        ssmid.read_checkpoint(tmp_path / "m.pt")


def test_a_dict_that_holds_itself(tmp_path):
    loop: dict = {"kernel": TAPS}
    loop["again"] = loop
    torch.save(loop, tmp_path / "m.pt")
    with pytest.raises(ValueError, match="dicts within one another"):
        ssmid.read_checkpoint(tmp_path / "m.pt")
    loop["model"] = loop.pop("again")
    torch.save(loop, tmp_path / "m.pt")
    with pytest.raises(ValueError, match="dicts within one another"):
        ssmid.read_checkpoint(tmp_path / "m.pt")


@pytest.mark.parametrize("content", [{}, {"a": 1}, [], {"model": {}}])
def test_no_tensors_at_all(tmp_path, content):
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"m\.pt: expected a checkpoint with tensors, got none at all"):
        ssmid.read_checkpoint(tmp_path / "m.pt")


def test_empty_safetensors(tmp_path):
    save_file({}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"m\.safetensors: expected a checkpoint with tensors, got none at all"):
        ssmid.read_checkpoint(tmp_path / "m.safetensors")


def test_tensors_without_plain_numbers(tmp_path):
    torch.save({"kernel": torch.eye(30).to_sparse()}, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"m\.pt: kernel: expected a dense tensor with values, got torch.sparse_coo"):
        ssmid.read_checkpoint(tmp_path / "m.pt").layers[0].load()


def test_a_transposed_view_and_a_single_tensor(tmp_path):
    torch.save(TAPS[0].T.contiguous().T, tmp_path / "m.pt")
    (layer,) = ssmid.read_checkpoint(tmp_path / "m.pt").layers
    np.testing.assert_array_equal(layer.load().taps, TAPS[0].numpy())


def test_headers_alone_are_read(tmp_path, monkeypatch):
    """Opening a checkpoint of npz or safetensors reads no tensor."""
    save_file(state(), tmp_path / "m.safetensors")
    np.savez(tmp_path / "m.npz", kernel=TAPS.numpy())

    def never(*args, **kwargs):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("ssmid.checkpoints.tensors.mapped", never)
    monkeypatch.setattr(np, "load", never)
    assert [layer.batch for layer in ssmid.read_checkpoint(tmp_path / "m.safetensors").layers] == [(2, 3)] * 2
    assert [layer.batch for layer in ssmid.read_checkpoint(tmp_path / "m.npz").layers] == [(2, 3)]


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"1" * 5_000_000)
    (tmp_path / "b").write_bytes(b"2")
    calls = []
    one = hashlib.sha256(b"1" * 5_000_000).hexdigest()
    assert sha256_of([tmp_path / "a"], lambda *what: calls.append(what)) == one
    assert calls[-1] == ("hashing the checkpoint", 5_000_000, 5_000_000)
    lines = f"{one}  a\n{hashlib.sha256(b'2').hexdigest()}  b\n"
    assert sha256_of([tmp_path / "a", tmp_path / "b"]) == hashlib.sha256(lines.encode()).hexdigest()


def test_hash_of_a_checkpoint_and_progress(tmp_path):
    index = sharded(tmp_path, "safetensors")
    stages = []
    checkpoint = ssmid.read_checkpoint(index, stage=lambda words, done=None, total=None: stages.append(words))
    assert checkpoint.sha256 == sha256_of(checkpoint.files)
    assert stages[0] == "reading model-00001-of-00002.safetensors"
    assert stages[-1] == "hashing the checkpoint"
