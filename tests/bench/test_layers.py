"""The benchmark of layers: rows, bars and what is missing are what they say; the whole of it runs small."""

from __future__ import annotations

import dataclasses
import json
import sys
from io import StringIO

import pytest
from rich.console import Console

from ssmid import bench
from ssmid.bench import layers as benchmark
from ssmid.bench.peer_layers import AUTHORS_RTF, AUTHORS_S4, AUTHORS_S4D, VARIABLE, peer_layers
from ssmid.bench.records import OURS, Case, Row
from ssmid.bench.timing import Timing

torch = pytest.importorskip("torch")
POINT = benchmark.Point(2, 4, 64)


def a_case(seconds, memory, section=benchmark.LAYERS):
    rows = [Row(tool, Timing(s, s, s, 1), columns={benchmark.MEMORY: memory.get(tool, 1.0)}) for tool, s in seconds.items()]
    return Case(section, "a point", tuple(rows), "")


def by_tool(bars):
    return {bar.tool: bar for bar in bars}


# ---------------------------------------------------------------- bars


def test_the_convolution_is_held_against_the_three_lines():
    (bar,) = benchmark.convolution_bars(a_case({OURS: 2.0, benchmark.THREE_LINES: 2.5}, {}, benchmark.ALONE))
    assert (bar.required, bar.reached, bar.met) == (1.3, 1.25, False)


def test_rtf_is_held_against_the_convolution_and_the_authors():
    alone = a_case({OURS: 2.0, benchmark.THREE_LINES: 3.0}, {OURS: 10.0}, benchmark.ALONE)
    seconds = {OURS: 2.2, benchmark.S4: 1.0, AUTHORS_S4: 2.9, AUTHORS_S4D: 2.2, AUTHORS_RTF: 4.41}
    bars = by_tool(benchmark.layer_bars(alone, a_case(seconds, {OURS: 11.5})))
    assert len(bars) == 5
    assert bars["1.15 times the convolution alone"].reached == pytest.approx(1.15 * 2.0 / 2.2)
    assert bars["1.15 times the convolution alone"].met
    assert bars["1.1 times the memory of the convolution alone"].reached == pytest.approx(11.0 / 11.5)
    assert not bars["1.1 times the memory of the convolution alone"].met
    assert bars[AUTHORS_S4].reached == pytest.approx(2.9 / 2.2)
    assert not bars[AUTHORS_S4].met  # 1.32 of 1.35
    assert bars[AUTHORS_S4D].met
    assert bars[AUTHORS_RTF].met


def test_peers_and_memory_that_are_not_there_set_no_bar():
    rows = (Row(OURS, Timing(1, 1, 1, 1)),)
    alone = a_case({OURS: 1.0, benchmark.THREE_LINES: 2.0}, {}, benchmark.ALONE)
    bars = benchmark.layer_bars(alone, Case(benchmark.LAYERS, "p", rows, ""))
    assert [bar.tool for bar in bars] == ["1.15 times the convolution alone"]


# ---------------------------------------------------------------- peers


def test_a_folder_that_is_not_given_or_empty_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert set(peer_layers(None, "cpu").missing) == {AUTHORS_S4, AUTHORS_S4D, AUTHORS_RTF}
    found = peer_layers(tmp_path, "cpu")
    assert found.missing[AUTHORS_RTF] == "no checkout 'RTF' in the folder"
    assert found.build == {}
    with pytest.raises(ValueError, match="peers: expected a folder"):
        peer_layers(tmp_path / "none", "cpu")


def test_a_checkout_is_found_by_the_variable_and_timed_beside_ours(tmp_path, monkeypatch):
    """A layer of the published name and arguments, which is a sum; the checkout leaves the path again."""
    (tmp_path / "RTF").mkdir()
    (tmp_path / "RTF" / "rtf.py").write_text(
        "import torch\n\n\nclass RTF(torch.nn.Module):\n"
        "    def __init__(self, width, state, length, init):\n"
        "        super().__init__()\n        self.h = torch.nn.Parameter(torch.ones(width))\n\n"
        "    def forward(self, u):\n        assert u.shape == (2, 64, 4)\n        return u * self.h\n"
    )
    (tmp_path / "s4").mkdir()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    before = list(sys.path)
    found = peer_layers(None, "cpu")
    assert sys.path == before
    assert list(found.build) == [AUTHORS_RTF]
    assert "models" in found.missing[AUTHORS_S4]
    case = benchmark._layers(POINT, 4, "cpu", 1e9, found)
    assert [row.tool for row in case.rows] == [OURS, benchmark.STABLE, benchmark.S4, benchmark.S4D, AUTHORS_RTF]
    assert case.row(AUTHORS_RTF).error is None
    long = benchmark._layers(POINT, 64, "cpu", 1e9, found)
    assert AUTHORS_RTF in long.name
    assert long.row(AUTHORS_RTF) is None


# ---------------------------------------------------------------- the whole of it


def test_layers_run_small_and_are_right(tmp_path):
    figures = benchmark.layers(progress=lambda step: None, grid=(POINT, dataclasses.replace(POINT, length=33)), states=(4, 16))
    assert [case["section"] for case in figures["cases"]] == [benchmark.ALONE] * 2 + [benchmark.LAYERS] * 4
    for case in figures["cases"]:
        for tool in case["tools"]:
            assert tool["seconds"] > 0
            assert tool["error"] < 1e-4
            assert tool["columns"] == {benchmark.TIMED: "clock"}
    names = [case["case"] for case in figures["cases"]]
    assert sum("sets no bar" in name for name in names) == 1  # 16 states, 33 samples
    assert figures["cases"][0]["floor_seconds"] == pytest.approx(
        (5 * 4 * 2 * 4 * 64 + 3 * 4 * 4 * 64) / figures["limits"]["copy_bytes_per_second"]
    )
    assert figures["bars"] == []  # those of a GPU
    assert json.loads(json.dumps(figures)) == figures


def test_the_command_writes_what_it_prints(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(benchmark, "_SMALL", (POINT,))
    out = StringIO()
    figures = bench.run("layers", quick=True, json_path=tmp_path / "layers.json", console=Console(file=out, width=200))
    assert json.loads((tmp_path / "layers.json").read_text()) == json.loads(json.dumps(figures))
    assert AUTHORS_S4 in figures["machine"]["peers missing"]
    for text in (str(POINT), "timed by", benchmark.THREE_LINES):
        assert text in out.getvalue()
