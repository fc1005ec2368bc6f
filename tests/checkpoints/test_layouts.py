"""Layouts as tables: which prefixes match, which nearly do and why, and layouts that users add."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import ssmid
from ssmid.checkpoints import LAYOUTS, REQUIRED, Layout, TensorSpec, forget_layout, register_layout
from ssmid.checkpoints.layouts import find_layers, resolved
from ssmid.checkpoints.tensors import StoredTensor


def stored(**shapes):
    return {name.replace("__", "."): StoredTensor(shape, "float64", lambda shape=shape: np.ones(shape)) for name, shape in shapes.items()}


def layout(name="test-layout", **changes):
    table = {"taps": TensorSpec("conv.taps", ("H", "L")), "gain": TensorSpec("gain", ("H",))}
    fields = {"formula": amplified, "batch": ("H",), "length": "L"}
    return Layout(**{"name": name, "words": "", "source": "", "tensors": table, **fields, **changes})


def amplified(given, context):
    return ssmid.ImpulseResponse(given["taps"] * given["gain"][:, None])


def as_they_are(given, context):
    return ssmid.ImpulseResponse(given["taps"])


@pytest.fixture
def registered():
    """A function that registers layouts for the length of a test."""
    before = dict(LAYOUTS)
    yield register_layout
    LAYOUTS.clear()
    LAYOUTS.update(before)


def test_all_prefixes_at_once():
    tensors = stored(a__0__conv__taps=(3, 9), a__0__gain=(3,), a__1__conv__taps=(4, 7), a__1__gain=(4,))
    matches, misses = find_layers(layout(), tensors | stored(conv__taps=(2, 5), gain=(2,), b__gain=(3,)))
    found = {match.prefix: dict(match.sizes) for match in matches}
    assert found == {"a.0.": {"H": 3, "L": 9}, "a.1.": {"H": 4, "L": 7}, "": {"H": 2, "L": 5}}
    assert [miss.prefix for miss in misses] == ["b."]
    assert misses[0].words() == "test-layout at 'b.': found gain; no conv.taps"


def test_sizes_must_agree():
    matches, (miss,) = find_layers(layout(), stored(x__conv__taps=(3, 9), x__gain=(4,)))
    assert not matches
    assert miss.words() == "test-layout at 'x.': found conv.taps; gain has shape (4,) instead of (H=3,)"


def test_names_match_whole_parts():
    """``again`` does not end in ``gain``, nor ``preconv.taps`` in ``conv.taps``."""
    assert find_layers(layout(), stored(x__preconv__taps=(3, 9), x__again=(3,))) == ([], [])


@pytest.mark.parametrize(
    ("shape", "actual", "fits"),
    [
        (("H", "L"), (3, 4), True),
        (("H", "H"), (3, 4), False),
        (("H", "H"), (3, 3), True),
        ((None, 2), (7, 2), True),
        ((None, 2), (7, 3), False),
        (("3*H", "H"), (12, 4), True),
        (("3*H", "H"), (13, 4), False),
        (("3*H",), (12,), True),
        (("3*H",), (13,), False),
        (("H",), (3, 1), False),
        ((), (), True),
        ([("H", 2), ("H",)], (5,), True),
        ([("H", 2), ("H",)], (5, 2), True),
        ([("H", 2), ("H",)], (5, 3), False),
        (None, (1, 2, 3, 4), True),
    ],
)
def test_shapes(shape, actual, fits):
    matches, misses = find_layers(layout(tensors={"x": TensorSpec("x", shape)}), stored(x=actual))
    assert (len(matches), len(misses)) == ((1, 0) if fits else (0, 1))


def test_multiples_and_names_agree_in_any_order():
    table = {"first": TensorSpec("first", ("2*H",)), "second": TensorSpec("second", ("H",))}
    (match,), _ = find_layers(layout(tensors=table), stored(first=(6,), second=(3,)))
    assert match.sizes == {"H": 3}
    assert not find_layers(layout(tensors=table), stored(first=(6,), second=(2,)))[0]
    assert not find_layers(layout(tensors=table), stored(first=(7,), second=(3,)))[0]


def test_optional_tensors_bind_only_where_they_are():
    table = {"x": TensorSpec("x", ("H",)), "y": TensorSpec("y", ("H", "N"), optional=True)}
    (match,), _ = find_layers(layout(tensors=table), stored(x=(2,)))
    assert dict(match.names) == {"x": "x"}
    (match,), _ = find_layers(layout(tensors=table), stored(x=(2,), y=(2, 5)))
    assert match.sizes == {"H": 2, "N": 5}
    assert find_layers(layout(tensors=table), stored(x=(2,), y=(3, 5)))[1][0].faults == ("y has shape (3, 5) instead of (H=2, N)",)
    assert not find_layers(layout(tensors=table), stored(a__y=(3, 5)))[0]


def test_a_star_gathers_what_stands_there():
    table = {"w": TensorSpec("net.*.weight", (None, "H"))}
    (match,), _ = find_layers(layout(tensors=table), stored(a__net__0__weight=(3, 4), a__net__2__weight=(5, 4), a__net__2__bias=(5,)))
    assert match.names["w"] == {"0": "a.net.0.weight", "2": "a.net.2.weight"}
    assert find_layers(layout(tensors=table), stored(net__0__weight=(3, 4), net__2__weight=(5, 6)))[0] == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "layers", "0", "17", "conv", "gain"]), max_size=6), st.integers(0, 5), st.integers(1, 5))
def test_any_prefix(parts, channels, length):
    prefix = "".join(f"{part}." for part in parts)
    shapes = {"conv.taps": (channels, length), "gain": (channels,)}
    tensors = {prefix + name: StoredTensor(shape, "float32", list) for name, shape in shapes.items()}
    (match,), misses = find_layers(layout(), tensors)
    assert (match.prefix, misses) == (prefix, [])


def test_settings_from_caller_config_and_default():
    table = layout(settings={"lam": REQUIRED, "shift": 0.5, "w": 1})
    config = {"a": {"lam": 3, "deeper": {"w": 7}}, "lam": {"not": "a number"}}
    assert resolved(table, {"model": {"lam": 3}}, {}) == {"lam": 3, "shift": 0.5, "w": 1}
    assert resolved(table, config, {"lam": 4}) == {"lam": 4, "shift": 0.5, "w": 7}
    assert resolved(table, {"b": {"c": {"shift": 1}}, "shift": 2}, {"lam": 0})["shift"] == 2
    assert resolved(table, {}, {})["lam"] is REQUIRED


def test_users_add_layouts(registered, tmp_path, rng):
    registered(layout())
    taps, gain = rng.standard_normal((3, 9)), rng.standard_normal(3)
    save_file({"x.conv.taps": taps, "x.gain": gain}, tmp_path / "m.safetensors")
    (found,) = ssmid.read_checkpoint(tmp_path / "m.safetensors").layers
    assert (found.layout, found.tensors) == ("test-layout", ("x.conv.taps", "x.gain"))
    np.testing.assert_array_equal(found.load().taps, taps * gain[:, None])
    registered(layout(formula=lambda given, context: ssmid.ImpulseResponse(2 * given["taps"])))
    (found,) = ssmid.read_checkpoint(tmp_path / "m.safetensors").layers
    np.testing.assert_array_equal(found.load().taps, 2 * taps)
    forget_layout("test-layout")
    assert "test-layout" not in LAYOUTS


def test_layouts_of_users_come_first(registered, tmp_path):
    registered(layout("one"))
    registered(layout("two"))
    save_file({"conv.taps": np.ones((3, 9)), "gain": np.ones(3)}, tmp_path / "m.safetensors")
    assert ssmid.read_checkpoint(tmp_path / "m.safetensors").layouts == ("two",)
    assert ssmid.read_checkpoint(tmp_path / "m.safetensors", layout="one").layouts == ("one",)


def test_a_tensor_belongs_to_the_layout_that_explains_more(registered, tmp_path):
    more = {**layout().tensors, "extra": TensorSpec("extra", None)}
    registered(layout("more", tensors=more))
    registered(layout("less"))
    save_file({"conv.taps": np.ones((3, 9)), "gain": np.ones(3), "extra": np.ones(1)}, tmp_path / "m.safetensors")
    assert ssmid.read_checkpoint(tmp_path / "m.safetensors").layouts == ("more",)


def test_two_layers_at_one_prefix_have_names_of_their_own(registered, tmp_path):
    for name in ("conv", "back"):
        registered(layout(name, tensors={"taps": TensorSpec(f"{name}.taps", ("H", "L"))}, formula=as_they_are))
    save_file({"x.conv.taps": np.ones((3, 9)), "x.back.taps": np.ones((3, 9))}, tmp_path / "m.safetensors")
    assert [found.name for found in ssmid.read_checkpoint(tmp_path / "m.safetensors").layers] == ["x.back", "x.conv"]


def test_refused_sizes_are_candidates(registered, tmp_path):
    registered(layout(accepts=lambda sizes, settings: sizes["H"] < 3))
    save_file({"conv.taps": np.ones((3, 9)), "gain": np.ones(3)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"test-layout at the top: found conv\.taps, gain; H=3, L=9 do not go together"):
        ssmid.read_checkpoint(tmp_path / "m.safetensors")


def test_what_is_no_layout():
    with pytest.raises(TypeError, match="expected a Layout, got dict"):
        register_layout({})
    with pytest.raises(ValueError, match="expected at least one that is required in layout 'test-layout', got none"):
        register_layout(layout(tensors={"x": TensorSpec("x", None, optional=True)}))
    with pytest.raises(ValueError, match=r"expected one of .*hyena.*, got 'nothing'"):
        forget_layout("nothing")


def test_formulas_that_give_another_shape_are_named(registered, tmp_path):
    registered(layout(batch=("L",)))
    save_file({"conv.taps": np.ones((3, 9)), "gain": np.ones(3)}, tmp_path / "m.safetensors")
    (found,) = ssmid.read_checkpoint(tmp_path / "m.safetensors").layers
    with pytest.raises(ValueError, match=r"test-layout: expected systems of batch \(9,\) from layout 'test-layout', got \(3,\)"):
        found.load()


@pytest.mark.parametrize("known", LAYOUTS.values(), ids=lambda known: known.name)
def test_tables_are_complete(known):
    """Every axis that batch and length name is the size of a required tensor or the work of a function; every one says whose it is."""
    assert known.words
    assert known.source
    axes = set()
    for spec in (spec for spec in known.tensors.values() if not spec.optional):
        shapes = spec.shape if isinstance(spec.shape, list) else [spec.shape or ()]
        axes |= set.intersection(*({a.split("*")[-1] for a in shape if isinstance(a, str)} for shape in shapes))
    if not callable(known.batch):
        assert {axis for axis in known.batch if isinstance(axis, str)} <= axes
    if isinstance(known.length, str):
        assert known.length in axes
    assert dataclasses.is_dataclass(known)
