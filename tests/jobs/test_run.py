"""A job from a file to a folder: the same bytes however it was stopped, and clear words where it cannot begin."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import ssmid
from ssmid.distillation.bank import KINDS
from ssmid.distillation.models import distill_system
from ssmid.distillation.options import Options
from ssmid.distillation.overview import overview
from ssmid.jobs import run, store
from ssmid.jobs.pieces import SmallerPiecesWarning
from ssmid.jobs.run import distill_into
from ssmid.report.distillation_page import page

OPTIONS = {"order": 3, "method": "balanced"}
FINISHED = ["job.json", "job.log", "layers.csv", "model.json", "model.safetensors"]


def bank(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * 0.8 ** np.arange(shape[-1])


@pytest.fixture
def here(tmp_path) -> Path:
    """A folder with a bank whose second filter is NaN, and others that are special."""
    h = bank(2, 5, 24)
    h[0, 1, 3], h[0, 2], h[0, 3], h[1, 0, 1:], h[1, 1, :9] = np.nan, 0, 1, 0, 0
    h[1, 2] *= 1e30
    np.save(tmp_path / "h.npy", h)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "model.json", "layers.csv")}


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("chunk", [4, 1])
def test_the_folder_gives_back_what_distill_returns_bit_for_bit(here, chunk):
    found = distill_into(here / "out", here / "h.npy", OPTIONS, chunk=chunk)
    assert found is not None
    h = np.load(here / "h.npy")
    expected, model = ssmid.distill(h, **OPTIONS, chunk=chunk), ssmid.load(here / "out")
    assert isinstance(model, ssmid.DistilledModel)
    layer = model["filters"]
    assert same(layer.system.arrays["poles"], expected.system.arrays["poles"])
    assert same(layer.system.arrays["residues"], expected.system.arrays["residues"])
    assert same(layer.system.arrays["feedthrough"], expected.system.arrays["feedthrough"])
    assert same(np.asarray(layer.order), np.asarray(expected.order))
    assert same(np.asarray(layer.condition), np.asarray(expected.condition))
    for name in vars(expected.certificate):
        assert same(getattr(layer.certificate, name), np.asarray(getattr(expected.certificate, name))), name
    assert (layer.length, layer.method, layer.system.dt) == (expected.length, expected.method, expected.system.dt)
    assert layer.explain() == expected.explain()
    assert names(here / "out") == FINISHED


def test_arrays_have_the_names_and_shapes_that_other_programs_expect(here):
    distill_into(here / "out", here / "h.npy", OPTIONS, chunk=4)
    arrays = safetensors.numpy.load_file(here / "out" / "model.safetensors")
    h, poles, residues = np.load(here / "h.npy"), *(arrays[f"filters.{n}"].view(complex)[..., 0] for n in ("poles", "residues"))
    assert poles.shape == (2, 5, 3)
    assert arrays["filters.order"].dtype == np.int64
    t = np.arange(23)[:, None, None, None]
    taps = np.concatenate([arrays["filters.feedthrough"][None], np.sum(residues * poles**t, -1).real]).transpose(1, 2, 0)
    measured = np.linalg.norm((taps - h)[1, 3:], axis=-1) / np.linalg.norm(h[1, 3:, 1:], axis=-1)
    tail = arrays["filters.certificate.tail_energy"][1, 3:]
    np.testing.assert_allclose(np.sqrt(measured**2 + tail), arrays["filters.certificate.l2"][1, 3:], rtol=1e-6)


def test_every_special_filter_is_named_and_spoils_no_other(here):
    report, good = distill_into(here / "out", here / "h.npy", OPTIONS, chunk=4)  # pyright: ignore[reportGeneralTypeIssues]
    named = {row[1]: row[3] for row in report.tables[1].rows}
    assert named == {"not finite": "1", "zero": "2", "constant": "3", "tap 0 only": "5", "delayed": "6", "extreme scale": "7"}
    assert not good
    assert report.words == ["NO RESULT for 1 of 10 filters: named above. The others stand."]
    layer = ssmid.load(here / "out")["filters"]  # pyright: ignore[reportIndexIssue]
    alone = ssmid.distill(np.load(here / "h.npy")[1, 4], **OPTIONS)
    np.testing.assert_allclose(layer.certificate.l2[1, 4], alone.certificate.l2, rtol=1e-9)
    assert np.isnan(layer.system.arrays["poles"][0, 1]).all()
    rows = list(csv.DictReader((here / "out" / "layers.csv").open()))
    assert [int(rows[0][kind.replace(" ", "_")]) for kind in KINDS[1:]] == [1] * 6 + [0]


def test_the_description_says_what_it_was_made_from(here):
    distill_into(here / "out", here / "h.npy", OPTIONS, chunk=4)
    model = ssmid.load(here / "out")
    assert model.metadata["source"] == {"name": "h.npy", "sha256": hashlib.sha256((here / "h.npy").read_bytes()).hexdigest()}  # pyright: ignore
    assert model.metadata["options"]["order"] == 3  # pyright: ignore[reportAttributeAccessIssue]
    assert model.metadata["made_by"] == f"ssmid {ssmid.__version__}"  # pyright: ignore[reportAttributeAccessIssue]
    assert model.metadata["layers"]["filters"]["named"]["zero"] == 1  # pyright: ignore[reportAttributeAccessIssue]


def test_layers_of_different_orders_lengths_and_shapes(tmp_path):
    layers = {"a.filter": bank(7, 20), "b.filter": bank(2, 3, 30, seed=1)}
    layers["a.filter"][:, 3:] = 0  # two states each, so that the layers differ
    safetensors.numpy.save_file(layers, tmp_path / "m.safetensors")
    distill_into(tmp_path / "out", tmp_path / "m.safetensors", OPTIONS, chunk=4)
    model = ssmid.load(tmp_path / "out")
    assert list(model) == ["a.filter", "b.filter"]  # pyright: ignore[reportArgumentType]
    for name, h in layers.items():
        expected = ssmid.distill(h, **OPTIONS, chunk=4)
        assert same(model[name].system.arrays["poles"], expected.system.arrays["poles"])  # pyright: ignore[reportIndexIssue]
    with pytest.raises(KeyError, match=r"expected the name of a layer \(a.filter, b.filter\), got 'c'"):
        model["c"]  # pyright: ignore[reportIndexIssue]


def test_a_tolerance_that_is_missed_is_said_and_counted(here):
    np.save(here / "noise.npy", np.random.default_rng(0).standard_normal((3, 40)))
    distill_into(here / "out", here / "noise.npy", OPTIONS)
    facts = run.facts_of(ssmid.load(here / "out")["filters"], "hinf", 1e-3)  # pyright: ignore[reportIndexIssue]
    assert facts["over_tolerance"] == 3
    report, good = run.report_of("x", {"filters": facts}, {}, "hinf", 1e-3)
    assert not good
    assert "tolerance 0.001 (hinf) IS NOT MET by 3 of 3" in report.words[0]


@pytest.mark.parametrize("method", ["balanced", "l2"])
def test_a_budget_is_shared_out_over_all_layers(tmp_path, method):
    layers = {"a.filter": bank(5, 40), "b.filter": 0.1 * bank(6, 40, seed=1)}
    layers["a.filter"][1] = np.nan
    safetensors.numpy.save_file(layers, tmp_path / "m.safetensors")
    options = {"budget": 30, "max_order": 8, "method": method}
    distill_into(tmp_path / "out", tmp_path / "m.safetensors", options, chunk=3)
    model = ssmid.load(tmp_path / "out")
    expected = ssmid.distill(np.concatenate(list(layers.values())), **options)
    orders = np.concatenate([model["a.filter"].order, model["b.filter"].order])  # pyright: ignore[reportIndexIssue]
    np.testing.assert_array_equal(orders, expected.order)
    assert orders.sum() == 30
    assert names(tmp_path / "out") == FINISHED


def test_a_budget_stopped_between_its_passes_goes_on(tmp_path, monkeypatch):
    np.save(tmp_path / "h.npy", bank(6, 30))
    options = {"budget": 12, "max_order": 5}
    distill_into(tmp_path / "whole", tmp_path / "h.npy", options, chunk=2)
    curves, done = run.curves_on, []

    def stopping(*arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(curves(*arguments))
        return done[-1]

    with monkeypatch.context() as patched:
        patched.setattr(run, "curves_on", stopping)
        with pytest.raises(KeyboardInterrupt):
            distill_into(tmp_path / "out", tmp_path / "h.npy", options, chunk=2)
    again = []
    monkeypatch.setattr(run, "curves_on", lambda *arguments: again.append(1) or curves(*arguments))
    distill_into(tmp_path / "out", tmp_path / "h.npy", options, chunk=2)
    assert len(again) == 2
    assert results(tmp_path / "out") == results(tmp_path / "whole")


@pytest.mark.parametrize(("shared", "axes"), [("head", 1), ("layer", 2)])
def test_shared_poles_come_back_as_distill_gives_them(tmp_path, shared, axes):
    h = bank(4, 3, 30)
    h[1, 0] = np.nan
    np.save(tmp_path / "h.npy", h)
    distill_into(tmp_path / "out", tmp_path / "h.npy", {"order": 3, "method": "balanced", "shared": shared}, chunk=6)
    expected = ssmid.distill(h, 3, method="balanced", shared=axes, chunk=6)
    layer = ssmid.load(tmp_path / "out")["filters"]  # pyright: ignore[reportIndexIssue]
    for name in ("poles", "residues"):
        assert same(layer.system.arrays[name], expected.system.arrays[name]), name


@pytest.mark.parametrize("coupled", [False, True])
def test_layers_that_are_models_are_reduced_as_they_are(tmp_path, coupled):
    rng = np.random.default_rng(0)
    poles = rng.uniform(0.2, 0.95, (5, 6)) * rng.choice([-1, 1], (5, 6))
    if coupled:
        A = poles[:, :, None] * np.eye(6)
        model = ssmid.ss(A, rng.standard_normal((5, 6, 2)), rng.standard_normal((5, 2, 6)), np.zeros((5, 2, 2)), dt=1)
    else:
        model = ssmid.Modal(poles, rng.standard_normal((5, 6)))
    ssmid.save(model, tmp_path / "model.safetensors")
    distill_into(tmp_path / "out", tmp_path / "model.safetensors", {"order": 3, "method": "balanced"}, chunk=3)
    expected = distill_system(model, Options(order=3, method="balanced"))
    layer = ssmid.load(tmp_path / "out")["model"]  # pyright: ignore[reportIndexIssue]
    for name in ("poles", "residues", "feedthrough"):
        assert same(layer.system.arrays[name], expected.system.arrays[name]), name
    assert same(layer.certificate.tail_energy, expected.certificate.tail_energy)
    assert layer.length == expected.length


@pytest.mark.parametrize(
    ("shape", "states", "order"),
    [((5,), 6, 3), ((), 6, 2), ((2, 3), 5, 2), (None, 17, 16), (None, 20, 2), (None, 8, 8)],
    ids=["coupled", "one coupled", "a grid of coupled", "more Hankel values than the sample has", "many states", "full order"],
)
def test_whatever_distills_has_a_page(tmp_path, shape, states, order):
    rng = np.random.default_rng(0)
    poles = rng.uniform(0.2, 0.95, ((3,) if shape is None else shape) + (states,))
    if shape is None:
        poles[1, 0], poles[2, 1] = (1.5, np.nan) if order == 2 else (0.5, 0.4)
        model = ssmid.Modal(poles, rng.standard_normal(poles.shape))
    else:
        B, C = rng.standard_normal((*shape, states, 2)), rng.standard_normal((*shape, 3, states))
        model = ssmid.ss(poles[..., :, None] * np.eye(states), B, C, np.zeros((*shape, 3, 2)), dt=1)
    ssmid.save(model, tmp_path / "model.safetensors")
    options = {"order": order, "method": "balanced"}
    found = distill_into(tmp_path / "out", tmp_path / "model.safetensors", options, page=True)
    assert found is not None
    assert not any("NOT WRITTEN" in words for words in found[0].words), found[0].words
    text = (tmp_path / "out" / "report.html").read_text()
    if shape is not None:
        layer = ssmid.load(tmp_path / "out")["model"]  # pyright: ignore[reportIndexIssue]
        assert "shown from input" in text
        (row,) = overview({"model": layer})
        assert row.channels == (3, 2)
        assert np.allclose(np.sort_complex(row.poles[-1]), np.sort_complex(layer.system.poles.reshape(-1, order)[-1]))


def test_a_layer_is_read_once_for_its_page(here):
    distill_into(here / "out", here / "h.npy", OPTIONS)
    model, asked = ssmid.load(here / "out"), []
    assert isinstance(model, ssmid.DistilledModel)

    class Counted(dict):
        def __getitem__(self, name):
            asked.append(name)
            return model[name]

        def items(self):
            return ((name, self[name]) for name in self)

    page(Counted.fromkeys(model), "h", {})
    assert asked == list(model)


# ---------------------------------------------------------------- stopped and taken up again


@pytest.fixture
def whole(here) -> dict[str, bytes]:
    distill_into(here / "whole", here / "h.npy", OPTIONS, chunk=2)
    return results(here / "whole")


@pytest.mark.parametrize("after", range(5))
def test_stopped_within_any_chunk_it_loses_that_chunk_alone(here, whole, monkeypatch, after):
    distilled, done = run.distilled_on, []

    def stopping(*arguments):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(distilled(*arguments))
        return done[-1]

    monkeypatch.setattr(run, "distilled_on", stopping)
    with pytest.raises(KeyboardInterrupt, match="interrupted; what is done is kept: the same command goes on from there"):
        distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
    with pytest.raises(ValueError, match="expected a finished model, got a job under way: give the same `ssmid distill` command again"):
        ssmid.load(here / "out")
    again = []
    monkeypatch.setattr(run, "distilled_on", lambda *arguments: again.append(1) or distilled(*arguments))
    distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
    assert len(again) == 5 - after
    assert results(here / "out") == whole
    assert names(here / "out") == FINISHED


@pytest.mark.parametrize("name", ["model.safetensors", "layers.csv", "model.json", "chunks"])
def test_stopped_while_the_end_is_written_it_ends_the_same(here, whole, monkeypatch, name):
    """Just after each of the last files, and before the chunks are gone."""
    with monkeypatch.context() as patched:
        merge, write, remove = store.Store.merge, run.write_bytes, store.Store.remove

        def then_stop(function, stop):
            def done(*arguments):
                if name == "chunks":
                    Path(sorted(arguments[0].folder.iterdir())[0]).unlink()
                else:
                    function(*arguments)
                if stop(arguments):
                    raise KeyboardInterrupt

            return done

        if name == "model.safetensors":
            patched.setattr(store.Store, "merge", then_stop(merge, lambda _: True))
        elif name == "chunks":
            patched.setattr(store.Store, "remove", then_stop(remove, lambda _: True))
        else:
            patched.setattr(run, "write_bytes", then_stop(write, lambda arguments: arguments[0].name == name))
        with pytest.raises(KeyboardInterrupt):
            distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
        assert "chunks" in names(here / "out")
    distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
    assert results(here / "out") == whole
    assert names(here / "out") == FINISHED


def test_a_finished_job_is_said_again_and_not_done_again(here, whole, monkeypatch):
    first = distill_into(here / "whole", here / "h.npy", OPTIONS, chunk=2)
    monkeypatch.setattr(run, "distilled_on", None)
    second = distill_into(here / "whole", here / "h.npy", OPTIONS, chunk=2)
    assert first is not None
    assert second is not None
    assert first[0].to_json() == second[0].to_json()
    assert results(here / "whole") == whole


def test_a_finished_job_without_its_tensors_is_done_again(here, whole):
    (here / "whole" / "model.safetensors").unlink()
    distill_into(here / "whole", here / "h.npy", OPTIONS, chunk=2)
    assert results(here / "whole") == whole


@pytest.mark.parametrize("damage", [lambda c: c[:-20], lambda c: b"", lambda c: b"garbage"])
def test_a_damaged_chunk_is_done_again(here, whole, monkeypatch, damage):
    with monkeypatch.context() as patched:
        patched.setattr(store.Store, "merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
    chunk = sorted((here / "out" / "chunks").iterdir())[1]
    chunk.write_bytes(damage(chunk.read_bytes()))
    (here / "out" / "chunks" / ".00000001.abcd1234.safetensors").write_bytes(b"half")
    distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
    assert results(here / "out") == whole


@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        ({"order": 4, "method": "balanced"}, {"chunk": 2}, "order 3 there, 4 here"),
        ({"order": 3}, {"chunk": 2}, "method balanced there, not given here"),
        (OPTIONS, {"chunk": 3}, r"layers filters \(2, 5, 24\) in chunks of 2 there, filters \(2, 5, 24\) in chunks of 3 here"),
        (OPTIONS, {"chunk": 2, "length": 20}, "length not given there, 20 here"),
    ],
)
def test_a_folder_of_another_job_is_refused_with_what_differs(here, whole, options, more, words):
    with pytest.raises(ValueError, match=f"expected the same job as the one begun here, got {words}.*to start anew"):
        distill_into(here / "whole", here / "h.npy", options, **more)
    assert results(here / "whole") == whole


def test_a_folder_of_another_source_is_refused_and_a_copy_of_the_same_is_not(here, whole):
    np.save(here / "other.npy", np.nan_to_num(np.load(here / "h.npy")))
    with pytest.raises(ValueError, match=r"expected the source of the job begun here, sha256 .*, got other.npy with sha256 "):
        distill_into(here / "whole", here / "other.npy", OPTIONS, chunk=2)
    shutil.copyfile(here / "h.npy", here / "copy.npy")
    distill_into(here / "whole", here / "copy.npy", OPTIONS, chunk=2)
    assert results(here / "whole") == whole


def test_a_job_of_another_version_is_refused(here, whole):
    manifest = json.loads((here / "whole" / "job.json").read_text())
    (here / "whole" / "job.json").write_text(json.dumps({**manifest, "version": "0.0.9"}))
    with pytest.raises(ValueError, match=rf"ssmid 0\.0\.9 there, {ssmid.__version__} here"):
        distill_into(here / "whole", here / "h.npy", OPTIONS, chunk=2)


@pytest.mark.parametrize(("count", "words"), [(10, "changed"), (1, "became shorter")])
def test_a_source_that_changes_during_the_work_is_noticed(here, monkeypatch, count, words):
    distilled = run.distilled_on

    def changing(*arguments):
        np.save(here / "other.npy", bank(count, 24, seed=3))
        (here / "other.npy").replace(here / "h.npy")
        return distilled(*arguments)

    monkeypatch.setattr(run, "distilled_on", changing)
    with pytest.raises(ValueError, match=rf"h\.npy: expected the source to stay as it was, got one that {words} during the work"):
        distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
    assert not (here / "out" / "model.json").exists()


# ---------------------------------------------------------------- what stops a job, or does not


def test_out_of_memory_halves_the_pieces_says_so_and_agrees_to_rounding(here, whole, monkeypatch):
    distilled, sizes = run.distilled_on, []

    def short_of_memory(device, system, arguments, size, group):
        sizes.append(size)
        if size > 1:
            raise MemoryError("no room")
        return distilled(device, system, arguments, size, group)

    monkeypatch.setattr(run, "distilled_on", short_of_memory)
    with pytest.warns(SmallerPiecesWarning, match="out of memory with 2 filters at once: going on with 1"):
        distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
    assert sizes == [2, 1, 1, 1, 1, 1]
    found, expected = (safetensors.numpy.load_file(here / name / "model.safetensors") for name in ("out", "whole"))
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-7, atol=1e-9, equal_nan=True, err_msg=name)


def test_what_does_not_fit_at_all_says_that_it_can_go_on(here, monkeypatch):
    def never(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(run, "distilled_on", never)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallerPiecesWarning)
        with pytest.raises(MemoryError, match=r"1 filters at once do not fit \(no room\); what is done is kept"):
            distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)


def test_a_disk_without_room_is_known_before_the_work(here, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    monkeypatch.setattr(run, "distilled_on", None)
    with pytest.raises(ValueError, match=r"out: expected 6.4 kB of free disk space for results, got 1 kB"):
        distill_into(here / "out", here / "h.npy", OPTIONS)
    assert not (here / "out" / "job.json").exists()


def test_a_disk_that_fills_up_is_one_error_and_the_job_goes_on_later(here, whole, monkeypatch):
    written, write = [], store.write_bytes

    def until_full(path, content):
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_bytes", until_full)
        with pytest.raises(ValueError, match=r"00000002.safetensors: .*the disk is full; what is done is kept"):
            distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
    distill_into(here / "out", here / "h.npy", OPTIONS, chunk=2)
    assert results(here / "out") == whole


def test_a_folder_that_cannot_be_written_is_an_error_before_the_work(here, monkeypatch):
    monkeypatch.setattr(run, "distilled_on", None)
    (here / "file").write_text("")
    with pytest.raises(ValueError, match=r"file: expected a folder, got a file"):
        distill_into(here / "file", here / "h.npy", OPTIONS)
    with pytest.raises(ValueError, match=r"below: expected a file that can be opened, got"):
        distill_into(here / "file" / "below", here / "h.npy", OPTIONS)


def test_a_model_from_elsewhere_is_not_overwritten(here):
    ssmid.save(ssmid.tf([1], [1, 0.5], dt=1), here / "model.safetensors")
    with pytest.raises(ValueError, match=r"got one with another model\.safetensors"):
        distill_into(here, here / "h.npy", OPTIONS)


def test_two_jobs_do_not_work_in_one_folder(here, monkeypatch):
    with store.only_here(here / "out"), pytest.raises(ValueError, match="expected a folder that no other job works in"):
        distill_into(here / "out", here / "h.npy", OPTIONS)
    distill_into(here / "out", here / "h.npy", OPTIONS)


@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        ({}, {}, "expected one of order, tol and budget, got none"),
        ({"order": 0}, {}, "order: expected an integer of at least 1, got 0"),
        ({"order": 3, "method": "magic"}, {}, "method: expected one of .* got 'magic'"),
        ({"order": 3, "shared": "some"}, {}, "shared: expected layer, head or a whole number, got 'some'"),
        (OPTIONS, {"chunk": 0}, "chunk: expected at least 1, got 0"),
        (OPTIONS, {"device": "tpu"}, "device: expected 'cpu' or 'cuda', got 'tpu'"),
    ],
)
def test_wrong_options_are_errors_before_a_folder_is_made(here, options, more, words):
    with pytest.raises(ValueError, match=words):
        distill_into(here / "out", here / "h.npy", options, **more)
    assert not (here / "out").exists()


def test_weights_of_the_wrong_length_make_no_folder(here):
    np.save(here / "w.npy", np.ones(7))
    with pytest.raises(ValueError, match=r"weights: expected one for each of the \d+ taps of filters, got 7"):
        distill_into(here / "out", here / "h.npy", {"order": 2, "weights": here / "w.npy"})
    assert not (here / "out").exists()


@pytest.mark.parametrize("name", ["weights", "frequency_weights"])
def test_weights_that_are_none_make_no_folder(here, name, monkeypatch):
    w = np.ones((10, 24 if name == "weights" else 33))
    w[7, 3] = -1
    np.save(here / "w.npy", w)
    monkeypatch.setattr("ssmid.jobs.request._AT_ONCE", 5 * w.shape[1])
    with pytest.raises(ValueError, match=rf"{name}: expected finite numbers .*, got -1 at \[2, 3\] from row 5 on"):
        distill_into(here / "out", here / "h.npy", {"order": 2, name: here / "w.npy"})
    assert not (here / "out").exists()


def test_weights_of_each_filter_go_with_their_chunk(here):
    weights = np.random.default_rng(1).uniform(1, 2, (2, 5, 24))
    np.save(here / "w.npy", weights)
    request = run.Request.of({"order": 3, "weights": here / "w.npy"})
    source = run.open_source(here / "h.npy")
    request.expect_fit(source)
    np.testing.assert_array_equal(request.arguments(source.layers[0], run.Chunk(1, 0, 4, 3))["weights"], weights.reshape(10, 24)[4:7])
    np.save(here / "w.npy", weights[0])
    with pytest.raises(ValueError, match="weights: expected 1 row or 10, one for each filter of filters, got 5"):
        run.Request.of({"order": 3, "weights": here / "w.npy"}).expect_fit(source)


@pytest.mark.parametrize(("shared", "size"), [("layer", 10), ("head", 5), ("2", 10), ("1", 5), ("0", 4), (None, 4)])
def test_filters_that_share_poles_stay_in_one_chunk(here, shared, size):
    request = run.Request.of({**OPTIONS, "shared": shared})
    assert request.chunk_size(run.open_source(here / "h.npy").layers[0], 4) == size


def test_memory_does_not_grow_with_the_number_of_filters(tmp_path, monkeypatch):
    """What is distilled is made up here: to read, write and join nine times as many filters takes a few numbers a filter more."""
    made = ssmid.distill(bank(5, 8), 2, method="balanced")
    arrays = {name: np.tile(a, (200, *[1] * (a.ndim - 1))) for name, a in run.arrays_of(made).items()}
    monkeypatch.setattr(run, "distilled_on", lambda *_: made)
    monkeypatch.setattr(run, "arrays_of", lambda _: arrays)
    peaks = []
    for count in (3000, 27_000):
        filters = np.lib.format.open_memmap(tmp_path / "h.npy", "w+", np.float32, (count, 512))
        filters[::1000, 5] = 1
        del filters
        tracemalloc.start()
        distill_into(tmp_path / f"out{count}", tmp_path / "h.npy", {"order": 2}, chunk=1000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert ssmid.load(tmp_path / f"out{count}")["filters"].system.batch_shape == (count,)  # pyright: ignore[reportIndexIssue]
    assert peaks[1] - peaks[0] < 24_000 * 512 * 4 / 10, f"{peaks} bytes"
