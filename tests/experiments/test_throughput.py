"""Throughput as an experiment: what is timed is what is said to be, memory that runs out is a result, tables hold what was measured."""

from __future__ import annotations

import json

import pytest

from ssmid.bench import decode_answers, replay
from ssmid.bench.decode_answers import answered
from ssmid.bench.decode_sizes import CACHED, DISTILLED, FILLED, MULTI, TRANSFORMER
from ssmid.bench.timing import Timing
from ssmid.experiments import run
from ssmid.experiments import throughput as subject
from ssmid.experiments.throughput import answers, best, tables, throughput

torch = pytest.importorskip("torch")
EVERYTHING = {DISTILLED, MULTI, TRANSFORMER, CACHED, FILLED}


def silent(description, done=None, total=None):
    pass


def small(**options):
    given = {"system": DISTILLED, "batches": [1], "prompts": [], "answers": [], "prompt": 8, "new": 4, "batch": 4, "patience": 1e9}
    return answers(**{**given, "small": True, "device": "cpu", "stage": silent, **options})["answers"]


def an_answer(over="batch", batch=1, rate=100.0, prompt=512, new=256, of=None, **more):
    times = {"seconds": batch * new / rate, "reading": 0.5, "tokens_per_second": rate, "composed_of": None}
    return {"over": over, "batch": batch, "of_batch": of or batch, "prompt": prompt, "new": new, **times,
            "peak_bytes": 2**31, "state_bytes": 2**20, **more}  # fmt: skip


def fabricated():
    out = {"over": "batch", "prompt": 512, "new": 256, "of_batch": 512, "batch": 512, "out_of_memory": True, "state_bytes": 2**21}
    hyena = [an_answer(), an_answer(batch=64, rate=1200.0, samples=3), an_answer(batch=256, rate=1100.0)]
    found = {
        DISTILLED: [*hyena, an_answer("prompt", 64, 300.0, 8192, of=64)],
        TRANSFORMER: [an_answer(batch=64, rate=400.0), out, an_answer("prompt", 16, 50.0, 8192, of=64, composed_of=16)],
        CACHED: [an_answer(batch=64, rate=600.0)],
    }
    jobs = {job.labels["system"]: job for job in throughput().runs}
    return [(jobs[name], {"answers": answers}) for name, answers in found.items()]


# ---------------------------------------------------------------- the experiment


def test_all_of_it_runs_small_and_each_system_is_kept(tmp_path):
    report = run.run_experiment("throughput", tmp_path, quick=True)
    assert report is not None
    found = json.loads((tmp_path / "throughput.json").read_text())
    assert {job["labels"]["system"] for job in found["runs"]} == EVERYTHING
    for job in found["runs"]:
        for answer in job["result"]["answers"]:
            assert answer["tokens_per_second"] == pytest.approx(answer["batch"] * answer["new"] / answer["seconds"])
            assert 0 < answer["reading"] < answer["seconds"]
            assert answer["composed_of"] is None
            assert answer["samples"] == 3
    states = {job["name"]: {(a["prompt"], a["new"]): a["state_bytes"] for a in job["result"]["answers"]} for job in found["runs"]}
    assert len(set(states["throughput/hyena"].values())) == 1, "the state of a recurrence is the same for every length"
    grows = states["throughput/transformer"]
    assert grows[16, 4] > grows[8, 4] > grows[8, 2]
    assert set(found["tables"]) == {table.title for table in report.tables}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("throughput/*/result.json")}
    assert len(before) == len(EVERYTHING)
    run.run_experiment("throughput", tmp_path, quick=True)
    assert before == {path: path.stat().st_mtime_ns for path in before}, "what is measured is not measured again"


def test_the_published_prompt_and_answer_are_measured_end_to_end_at_the_published_size():
    for job in throughput().runs:
        options = job.options
        assert (options["prompt"], options["new"], options["small"]) == (512, 256, False)
        if options["prompts"]:
            assert options["batch"] in options["batches"], "else the tables by length lack the published one"


def test_sizes_of_nothing_are_refused():
    with pytest.raises(ValueError, match="measure: expected batches, prompts and answers of at least 1, got 0"):
        small(batch=0)


def test_an_unknown_system_is_named():
    with pytest.raises(ValueError, match=f"system: expected one of {DISTILLED}, .*, got 'RWKV'"):
        small(system="RWKV")


# ---------------------------------------------------------------- end to end, composed, out of memory


@pytest.fixture
def counted(monkeypatch):
    """The steps that decoders make, by their place."""
    from ssmid.nn import Decoder

    seen, step = [], Decoder.step

    def counting(self):
        token = step(self)
        seen.append(self.tokens_seen)
        return token

    monkeypatch.setattr(Decoder, "step", counting)
    return seen


@pytest.fixture
def slow_clock(monkeypatch):
    """Ten seconds for everything."""
    monkeypatch.setattr(decode_answers, "clock_of", lambda device: lambda run: (10.0, run()))


@pytest.fixture
def model():
    from ssmid import nn

    torch.manual_seed(0)
    return nn.LanguageModel(16, 8, 1, "attention", length=200)


def test_all_steps_are_made_where_there_is_patience(model, counted, slow_clock):
    end = answered(model, 2, 8, 100, "cpu")
    assert counted == [*range(9, 108)], "the first token comes from the prompt"
    assert (end.tokens, end.composed_of, end.timing.seconds) == (200, None, 20.0)


def test_time_is_composed_where_there_is_none(model, counted, slow_clock):
    end = answered(model, 2, 8, 100, "cpu", patience=3.0)
    assert counted == [*range(9, 25), *range(8 + 50 + 1, 8 + 50 + 17)], "16 to see how long they take, and 16 in the middle"
    assert end.composed_of == 16
    assert end.timing.seconds == pytest.approx(10 + 99 * 10 / 16)


@pytest.mark.parametrize(
    ("seconds", "expected"), [([1.0, 1.4, 1.2], (1.2, 1.4, 3)), ([1.4, 9.0, 1.2], (1.4, 9.0, 3)), ([1.6], (1.6, 1.6, 1))]
)
def test_what_is_over_soon_is_the_median_of_three(seconds, expected, monkeypatch):
    made = iter(seconds)

    def timed(model, batch, prompt, new, device, patience):
        total = next(made)
        return decode_answers.EndToEnd(batch, batch * new, Timing.of([total]), reading=total / 4)

    monkeypatch.setattr(subject, "answered", timed)
    (found,) = small()
    assert (found["seconds"], found["slowest"], found["samples"]) == expected
    assert found["reading"] == found["seconds"] / 4, "of the same sample"
    assert found["tokens_per_second"] == pytest.approx(4 / found["seconds"])
    assert next(made, None) is None


def test_what_is_composed_is_made_once(monkeypatch):
    calls = []

    def timed(model, batch, prompt, new, device, patience):
        calls.append(batch)
        return decode_answers.EndToEnd(batch, batch * new, Timing.of([0.5]), 0.1, composed_of=16)

    monkeypatch.setattr(subject, "answered", timed)
    (found,) = small()
    assert (found["samples"], len(calls)) == (1, 1)


def test_short_answers_are_never_composed(model, counted, slow_clock):
    assert answered(model, 2, 8, 30, "cpu", patience=3.0).composed_of is None
    assert len(counted) == 29


def test_only_longer_prompts_and_answers_are_composed(slow_clock):
    found = small(system=TRANSFORMER, prompt=8, new=40, answers=[60], prompts=[16], patience=3.0)
    assert {a["over"]: a["composed_of"] for a in found} == {"batch": None, "generated": 16, "prompt": 16}
    filled = small(system=FILLED, new=40, answers=[60], patience=3.0)
    assert {a["composed_of"] for a in filled} == {None}, "no step of FutureFill stands for all"


def test_memory_that_runs_out_is_a_result_and_other_lengths_take_half_the_batch(monkeypatch):
    def scarce(model, batch, prompt, new, device, patience):
        if batch * (prompt + new) > 60:  # three sequences of the longer prompt would fit
            raise torch.OutOfMemoryError
        return answered(model, batch, prompt, new, device, patience=patience)

    monkeypatch.setattr(subject, "answered", scarce)
    monkeypatch.setattr(replay, "emptied", lambda device: None)
    found = small(batches=[4, 8], prompts=[16], answers=[64])
    at = {(a["over"], a["of_batch"]): a for a in found}
    assert at["batch", 4]["batch"] == 4
    assert at["batch", 8]["out_of_memory"]
    assert at["prompt", 4]["batch"] == 2
    assert at["generated", 4]["out_of_memory"], "not even one sequence fits"
    assert best(found) is at["batch", 4]


# ---------------------------------------------------------------- tables


def test_tables_say_what_was_measured_how_and_what_did_not_fit():
    by_batch, at_best, by_prompt, by_generated, memory = tables(fabricated())
    assert by_batch.title == "Tokens a second by batch, end to end: prompt 512, 256 generated"
    assert by_batch.columns == ["batch", DISTILLED, TRANSFORMER, CACHED]
    assert by_batch.rows == [[1, 100, None, None], [64, 1200, 400, 600], [256, 1100, None, None], [512, None, "-", None]]
    assert [[row[0], row[1], *row[-4:]] for row in at_best.rows] == [
        [DISTILLED, 64, 3.0, 2.0, 10.0, 1.5],
        [TRANSFORMER, 64, 1.0, pytest.approx(2 / 3), None, None],
        [CACHED, 64, 1.5, 1.0, None, None],
    ]
    assert [row[5] for row in at_best.rows] == ["end to end, median of 3", "end to end, once", "end to end, once"]
    assert [[row[0], row[1], row[3], row[4], row[-1]] for row in by_prompt.rows] == [
        [DISTILLED, 512, 64, 1200, "end to end, median of 3"],
        [DISTILLED, 8192, 64, 300, "end to end, once"],
        [TRANSFORMER, 512, 64, 400, "end to end, once"],
        [TRANSFORMER, 8192, 16, 50, "composed: prompt read, 16 of 255 steps timed"],
    ]
    assert by_generated.rows == []
    assert [row[3:] for row in memory.rows if row[0] == TRANSFORMER] == [[64, 2.0, 1.0], [512, "-", 2.0], [16, 2.0, 1.0]]


def test_there_are_no_tables_of_nothing():
    assert tables([]) == []
