"""The benchmark of decoding: rooflines, rows and bars are what they say; the whole of it runs small."""

from __future__ import annotations

import json
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from ssmid import bench
from ssmid.bench import decode as benchmark
from ssmid.bench import decode_steps, page, replay
from ssmid.bench.decode import Found
from ssmid.bench.decode_answers import EndToEnd, end_to_end
from ssmid.bench.decode_sizes import CACHED, DISTILLED, FILLED, HUGGING_FACE, MULTI, TRANSFORMER, Sizes, System
from ssmid.bench.decode_steps import Prefill, Roofline, Step
from ssmid.bench.records import OURS
from ssmid.bench.timing import Timing

torch = pytest.importorskip("torch")
CEILINGS = {"copy_bytes_per_second": 1e12, "bf16_product_flops_per_second": 1e14}


def at(seconds):
    return Timing(seconds, seconds, seconds, 1)


def a_step(batch, seconds, context=640, state=1000, roofline=None):
    return Step(batch, context, at(seconds), state, roofline)


def fabricated():
    found = Found()
    found.batches = {
        DISTILLED: [a_step(1, 1e-3, roofline=Roofline(6e8, 1e8, 1e9)), a_step(100, 2e-3, roofline=Roofline(6e8, 1e8, 3e11))],
        TRANSFORMER: [a_step(1, 8e-4), a_step(100, 5e-3)],
        CACHED: [a_step(100, 4e-3)],
        FILLED: [a_step(100, 2.5e-3)],
    }
    found.ends = {
        TRANSFORMER: EndToEnd(100, 25_600, at(3.0), 1.0),
        DISTILLED: EndToEnd(100, 25_600, at(1.0), 0.5),
        HUGGING_FACE: EndToEnd(50, 12_800, at(4.0)),
    }
    found.contexts = {
        DISTILLED: [a_step(100, 2e-3, 4096), a_step(100, 2.2e-3, 65536)],
        MULTI: [a_step(10, 2e-3, 4096), a_step(10, 2e-3, 65536, state=2000)],
        TRANSFORMER: [a_step(20, 8e-3, 4096), a_step(1, 2e-2, 65536)],
    }
    found.prefills = {DISTILLED: [Prefill(1, 2048, at(1.2), at(1.0), 105, 100), Prefill(4, 32768, at(1.0), at(1.0), None, None)]}
    return found


def reached(bars):
    return {(bar.case, bar.tool): bar for bar in bars}


# ---------------------------------------------------------------- bars


def test_answers_are_held_against_hugging_face_attention_and_the_best_exact_way():
    bars = reached(benchmark._generate_bars(fabricated()))
    alone, both = f"decoding alone: {DISTILLED}", f"prompt and answer: {DISTILLED}"
    assert set(bars) == {(alone, TRANSFORMER), (alone, FILLED), (both, TRANSFORMER), (both, HUGGING_FACE)}
    assert bars[alone, TRANSFORMER].reached == pytest.approx(2.5)
    assert not bars[alone, TRANSFORMER].met
    assert bars[alone, FILLED].reached == pytest.approx(1.25)
    assert bars[both, HUGGING_FACE].reached == pytest.approx(25_600 / 3_200)
    assert not bars[both, HUGGING_FACE].met
    assert bars[both, TRANSFORMER].met


def test_contexts_have_their_bars_and_are_flat_in_time_and_memory():
    bars = reached(benchmark._context_bars(fabricated()))
    assert bars[f"context 4096: {DISTILLED}", TRANSFORMER].reached == pytest.approx(50_000 / 2_500)
    assert bars[f"context 4096: {DISTILLED}", TRANSFORMER].met
    assert bars[f"context 65536: {DISTILLED}", TRANSFORMER].reached == pytest.approx(100 / 2.2e-3 / 50)
    assert bars[f"context 65536: {MULTI}", TRANSFORMER].required == 200
    flat = bars[f"flat in the context: {DISTILLED}", "a step at 4096 tokens"]
    assert (flat.reached, flat.met) == (pytest.approx(2.0 / 2.2), False)
    grown = bars[f"flat in the context: {MULTI}", "a step at 4096 tokens"]
    assert (grown.reached, grown.errors_no_worse, grown.met) == (1.0, False, False)


def test_a_roofline_is_that_of_the_products_and_then_of_the_states():
    bars = reached(benchmark._roofline_bars(fabricated(), CEILINGS))
    assert bars[f"a step: {DISTILLED}, batch 1", "1.5 times its roofline"].reached == pytest.approx(1.5 * 7e-4 / 1e-3)
    assert bars[f"a step: {DISTILLED}, batch 100", "1.5 times its roofline"].reached == pytest.approx(1.5 * 3.1e-3 / 2e-3)


def test_reading_is_held_against_the_forward_pass_in_time_and_memory():
    bars = reached(benchmark._prefill_bars(fabricated()))
    assert len(bars) == 3
    assert bars[f"reading 1 x 2048 tokens: {DISTILLED}", "1.1 times the forward pass"].reached == pytest.approx(1.1 / 1.2)
    assert bars[f"reading 1 x 2048 tokens: {DISTILLED}", "1.1 times its memory"].reached == pytest.approx(1.1 * 100 / 105)
    assert bars[f"reading 4 x 32768 tokens: {DISTILLED}", "1.1 times the forward pass"].met


# ---------------------------------------------------------------- tables


def test_tables_have_every_system_at_every_size():
    sizes = Sizes(contexts=(4096, 65536))
    cases = benchmark.cases_of(fabricated(), sizes, CEILINGS)
    rows = {(case.section, case.name): [row.tool for row in case.rows] for case in cases}
    assert rows["a step, by batch", "batch 100"] == [OURS, TRANSFORMER, CACHED, FILLED]
    assert rows["each at its best batch", "prompt 512, 256 generated, the prompt's reading included"] == [OURS, TRANSFORMER, HUGGING_FACE]
    assert rows["long contexts", "context 65536, states drawn at random"] == [OURS, MULTI, TRANSFORMER]
    alone = next(case for case in cases if case.name.startswith("decoding alone"))
    assert alone.row(OURS).timing.seconds == pytest.approx(2e-5)
    assert alone.ratio(TRANSFORMER) == pytest.approx(2.5)
    assert alone.row(OURS).columns[benchmark.RATE] == pytest.approx(50_000)
    small = next(case for case in cases if case.name == "batch 1")
    assert small.ratio(TRANSFORMER) == pytest.approx(0.8)  # where we lose
    roof = next(case for case in cases if case.section == "a step and its roofline" and "batch 100:" in case.name)
    assert roof.floor == pytest.approx(3.1e-3)
    assert roof.rows[0].columns[benchmark.BYTES] == f"{2e-3 / 7e-4:.3g} x"
    assert "0.6 GB of weights, 0.1 GB of states" in roof.name
    reading = [case for case in cases if case.section == "reading a prompt"]
    assert reading[0].ratio("forward, no state") == pytest.approx(1 / 1.2)
    figures = {"cases": [case.as_dict() for case in cases], "bars": []}
    assert len(list(page.tables(json.loads(json.dumps(figures))))) == 5


# ---------------------------------------------------------------- what is timed


def test_the_weights_of_a_step_are_read_once_and_looked_up_rows_are_not():
    class Model(torch.nn.Module):
        vocabulary = 10

        def __init__(self, tied):
            super().__init__()
            self.embedding = torch.nn.Embedding(10, 4)
            self.layer = torch.nn.Linear(4, 3, bias=False)
            self.twice = self.layer
            self.register_buffer("poles", torch.zeros(3, 2, dtype=torch.complex64))
            if not tied:
                self.head = torch.nn.Linear(4, 10, bias=False)

    untied, tied = (decode_steps.roofline(Model(tied), 5, 7) for tied in (False, True))
    assert untied == Roofline(4 * (12 + 40) + 8 * 6, 2.0 * 7 * 5, 2.0 * (12 + 40) * 5)
    assert tied == untied  # the embedding in the head's place
    for flops, products in ((52.0, 10.0), (5200.0, 1.0)):  # bound by operations, by bytes
        assert untied.seconds({"copy_bytes_per_second": 256.0, "bf16_product_flops_per_second": flops}) == (products, 70 / 256)


def test_a_state_is_settled_behind_a_context():
    state = {
        "x": torch.zeros(2, 3, dtype=torch.complex64),
        "keys": torch.zeros(2, 8, dtype=torch.bfloat16),
        "valid": torch.ones(2, 8, dtype=torch.bool),
        "length": torch.zeros(2, dtype=torch.int64),
    }
    decoder = SimpleNamespace(state=state, tokens_seen=0)
    decode_steps.settle(decoder, 5)
    assert decoder.tokens_seen == 5
    assert state["length"].tolist() == [5, 5]
    assert state["valid"].tolist() == [[True] * 5 + [False] * 3] * 2
    assert (state["x"].real != 0).all()
    assert (state["x"].imag != 0).all()
    assert 0 < state["keys"].abs().max() < 0.1


def test_what_the_first_prompt_compiles_is_not_counted_as_its_reading(monkeypatch):
    from ssmid.nn import LanguageModel

    model, read = LanguageModel(16, 8, 1, "attention", length=64), []
    prefill = model.prefill
    monkeypatch.setattr(model, "prefill", lambda *given: read.append(given[0].shape) or prefill(*given))
    monkeypatch.setattr("ssmid.bench.decode_answers.clock_of", lambda device: lambda run: (10.0 if not read else 1.0, run()))
    end = end_to_end(System("any", lambda length: model, (2,)), 2, Sizes.tiny(), "cpu")
    assert end is not None
    assert (end.reading, read) == (1.0, [(2, 8), (2, 8)])


def test_no_batch_is_tried_beyond_the_memory():
    def too_much():
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert replay.unless_out_of_memory(too_much, "cpu") is None
    with pytest.raises(ZeroDivisionError):
        replay.unless_out_of_memory(lambda: 1 / 0, "cpu")


# ---------------------------------------------------------------- the whole of it


def test_decoding_runs_small(tmp_path):
    out = StringIO()
    figures = bench.run("decode", json_path=tmp_path / "decode.json", console=Console(file=out, width=200))
    assert json.loads((tmp_path / "decode.json").read_text()) == json.loads(json.dumps(figures))
    tools = {}
    for case in figures["cases"]:
        tools.setdefault(case["section"], set()).update(tool["tool"] for tool in case["tools"])
        assert all(tool["seconds"] > 0 for tool in case["tools"])
    ours = {OURS, MULTI, CACHED, FILLED, TRANSFORMER}
    assert tools["a step, by batch"] == ours
    assert tools["each at its best batch"] >= ours
    assert tools["long contexts"] == ours - {FILLED}
    assert tools["a step and its roofline"] == {OURS, MULTI}
    states = {
        (case["case"], tool["tool"]): tool["columns"][benchmark.STATE]
        for case in figures["cases"]
        if case["section"] == "long contexts"
        for tool in case["tools"]
    }
    short, long = "context 32, states drawn at random", "context 64, states drawn at random"
    assert states[short, OURS] == states[long, OURS]
    assert states[short, TRANSFORMER] < states[long, TRANSFORMER]
    assert (HUGGING_FACE in figures["machine"].get("peers missing", {})) != (HUGGING_FACE in tools["each at its best batch"])
    assert DISTILLED in out.getvalue()


def test_one_part_is_run_alone_and_unknown_ones_are_refused():
    figures = bench.run("decode", only="prefill", console=Console(file=StringIO()))
    assert {case["section"] for case in figures["cases"]} == {"reading a prompt"}
    assert [case["case"] for case in figures["cases"]][:2] == [f"{DISTILLED}, 1 x 16 tokens", f"{DISTILLED}, 2 x 33 tokens"]
    with pytest.raises(ValueError, match="only: expected one of generate, contexts, prefill, huggingface, got 'all'"):
        bench.run("decode", only="all")
