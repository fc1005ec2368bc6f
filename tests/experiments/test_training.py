"""Configurations, the schedule, groups of parameters, the order of data, and trainings to the end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ssmid.experiments.models import model_of
from ssmid.experiments.training import Configuration, loop, train
from ssmid.experiments.training.batches import indices_of
from ssmid.experiments.training.log import Log, read
from ssmid.experiments.training.objective import metrics, sums
from ssmid.experiments.training.optimizer import optimizer_of, schedule
from ssmid.io.language_models import load_model
from tests.experiments.toy_tasks import MODEL, Toy


def short(**changes) -> Configuration:
    return Configuration(**{"model": MODEL, "steps": 6, "batch": 8, "rate": 0.02, **changes})


# ---------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lrate=1", "lrate: expected a key of a configuration, got an unknown one; did you mean rate"),
        ("kernelrate=1", "did you mean kernel_rate"),
        ("xyz=1", "xyz: .* there are model, steps"),
        ("steps=0", "steps: expected a whole number of at least 1, got 0"),
        ("steps=1.5", "steps: expected a whole number"),
        ("batch=true", "batch: expected a whole number"),
        ("rate=-1", "rate: expected a number of at least 0, got -1"),
        ("rate=NaN", "rate: expected a number"),
        ("compile=1", "compile: expected true or false, got 1"),
        ("warmup=6", "warmup: expected fewer than the 6 steps, got 6"),
        ("precision=float16", "precision: expected one of float32, bf16, float64, got 'float16'"),
        ("solved=-1", "solved: expected a number of at least 0, got -1"),
        ("seed=9223372036854775808", "seed: expected a number of 63 bits, got 9223372036854775808"),
        ("keep=first", "keep: expected one of last, best"),
        ("model=3", "model: expected arguments by name"),
        ("steps.x=1", "steps.x: expected a key within a mapping"),
        ("steps", "override: expected key=value, got 'steps'"),
    ],
)
def test_wrong_overrides_say_what_is_wrong(override, message):
    with pytest.raises(ValueError, match=message):
        short().with_overrides([override])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 8}, "model.widht: expected an option of the model, got an unknown one; did you mean model.width"),
        ({"layer": "s4d", "filter": {"initial": "lin"}}, "model.filter.initial: expected an option of S4D.* mean model.filter.init"),
        ({"layer": "s4", "filter": {"denominator": "free"}}, "model.filter.denominator: expected an option of S4, got"),
        ({"width": "wide"}, "model.width: expected a whole number, got 'wide'"),
        ({"width": 1.5}, "model.width: expected a whole number, got 1.5"),
        ({"dropout": "no"}, "model.dropout: expected a number, got 'no'"),
        ({"bidirectional": "no"}, "model.bidirectional: expected true or false, got 'no'"),
        ({"filter": 3}, "model.filter: expected options by name or null, got 3"),
        ({"filter": {"num_a": "one"}}, "model.filter.num_a: expected a whole number or null, got 'one'"),
        ({"depth": 0}, "model.depth: expected at least 1, got 0"),
        ({"layer": "s5"}, "model.layer: expected one of rtf, s4, s4d, got 's5'"),
        ({"norm": "group"}, "model.norm: expected one of layer, batch, none"),
        ({"mixing": "relu"}, "model.mixing: expected one of glu, gelu, none"),
        ({"mixer": "hyena", "width": 8}, "model.depth: expected a value, got none"),
        ({"mixer": "hyena", "width": 8, "depth": 1, "norm": "layer"}, "model.norm: expected an option of the model"),
    ],
)
def test_wrong_options_of_models_say_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        model_of(Toy(), options)


def test_a_configuration_comes_back_from_json():
    given = short(clip=1.0, keep="best")
    assert Configuration.of(json.loads(json.dumps(given.as_dict()))) == given
    changed = given.with_overrides(["model.filter.init=xavier", "rate=1e-2"])
    assert changed.model["filter"] == {"init": "xavier"}
    assert changed.rate == 0.01
    assert given.model["filter"] == {"init": "montel"}, "the one that was there stays"
    with pytest.raises(ValueError, match="steps: expected a value, got none"):
        Configuration.of({"model": {}})


# ---------------------------------------------------------------- optimizer


def test_the_schedule_is_that_of_torch():
    steps, warmup, final = 50, 7, 0.1
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup, eta_min=final)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()
    np.testing.assert_allclose([schedule(step, steps, warmup, final) for step in range(steps)], expected, rtol=1e-12)
    assert schedule(0, 10, 0) == 1.0


@pytest.mark.parametrize("decay", [None, 0.05])
@pytest.mark.parametrize("model", [MODEL, {"mixer": "hyena", "width": 8, "depth": 1}])
def test_filters_have_their_own_rate_and_decay(model, decay):
    made = model_of(Toy(), model)
    groups = optimizer_of(made, short(kernel_rate=1e-4, weight_decay=0.3, kernel_decay=decay)).param_groups
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == len(list(made.parameters()))
    for name, parameter in made.named_parameters():
        expected = (1e-4, decay or 0.0) if ".filter." in name or ".filter_fn." in name else (0.02, 0.3 if parameter.ndim > 1 else 0.0)
        assert found[id(parameter)] == expected, name


# ---------------------------------------------------------------- data and counts


@pytest.mark.parametrize("fresh", [False, True])
def test_every_epoch_has_each_example_once(fresh):
    size, batch, seed = 7, 3, 5
    drawn = np.concatenate([indices_of(step, size, batch, seed, fresh) for step in range(7)])
    for epoch, found in enumerate(drawn.reshape(3, size)):
        assert sorted(found) == list(range(epoch * size * fresh, epoch * size * fresh + size))
    assert not np.array_equal(drawn[:size] % size, drawn[size : 2 * size] % size), "in another order"
    assert not np.array_equal(drawn[:3], indices_of(0, size, batch, seed + 1, fresh))


def test_only_what_the_mask_counts_is_counted():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [5.0, 0.0]]])
    targets, mask = torch.tensor([[0, 0], [0, 1]]), torch.tensor([[True, False], [True, False]])
    found = metrics("language", sums("language", logits, targets, mask))
    by_hand = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(3.0))) / 2
    assert found == pytest.approx({"loss": by_hand, "accuracy": 0.5, "bits": by_hand / np.log(2)})
    signal = torch.tensor([[[1.0, 2.0], [7.0, 7.0]]])
    found = metrics("regress", sums("regress", signal, torch.zeros_like(signal), torch.tensor([[True, False]])))
    assert found == pytest.approx({"loss": 2.5, "rmse": 2.5**0.5})
    assert np.isnan(metrics("token", sums("token", logits, targets, torch.zeros_like(mask)))["loss"])


def test_padding_leaves_no_trace_in_a_class():
    torch.manual_seed(0)
    task = Toy("classify", ragged=True)
    model = model_of(task, {**MODEL, "bidirectional": True}).double()
    batch = {name: torch.from_numpy(array) for name, array in task.batch("train", range(3)).items()}
    whole = model(batch["inputs"], batch["mask"])
    other = model(torch.where(batch["mask"], batch["inputs"], 4), batch["mask"])
    torch.testing.assert_close(whole, other, rtol=0, atol=0)
    length = int(batch["mask"][0].sum())
    torch.testing.assert_close(whole[:1], model(batch["inputs"][:1, :length], batch["mask"][:1, :length]), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- trainings


@pytest.mark.parametrize(
    ("kind", "model", "measure", "bar"),
    [
        ("token", MODEL, "accuracy", 1.0),
        ("classify", {**MODEL, "norm": "batch", "pre_norm": False, "mixing": "gelu"}, "accuracy", 0.9),
        ("regress", {**MODEL, "layer": "s4d", "filter": {}, "mixing": "none", "norm": "none", "residual": False}, "rmse", 0.1),
        ("language", {"mixer": "hyena", "width": 8, "depth": 1, "filter": "modal", "order": 2}, "bits", 0.1),
    ],
)
def test_a_toy_is_learned(kind, model, measure, bar, tmp_path):
    task = Toy(kind, ragged=kind in ("classify", "language"))
    configuration = short(model=model, steps=150, warmup=5, clip=1.0, rate=0.03, weight_decay=0.0)
    result = train(task, configuration, tmp_path)
    reached = result["valid"][measure]
    assert reached >= bar if measure == "accuracy" else reached <= bar
    assert result["steps"] == 150
    assert not result["diverged"]
    assert result["parameters"] == sum(p.numel() for p in model_of(task, model).parameters())
    lines = read(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines if line["split"] == "valid"] == list(range(15, 151, 15))
    assert lines[0]["loss"] > 3 * [line for line in lines if line["split"] == "train"][-1]["loss"]
    assert {p.name for p in tmp_path.iterdir() if p.name != ".lock"} == {"log.jsonl", "curves.png", "model.safetensors", "result.json"}
    assert json.loads((tmp_path / "result.json").read_text())["result"] == result


@pytest.mark.parametrize("layer", ["rtf", "s4"])
def test_bf16_learns_too_and_filters_stay_in_float32(layer, tmp_path, monkeypatch):
    from ssmid.experiments.training import loop

    seen = set()
    watched = loop.model_of

    def watching(task, options):
        model = watched(task, options)
        filter = model.blocks[0].layer.filter
        plain = filter.forward
        filter.forward = lambda length: (taps := plain(length), seen.add((taps.dtype, torch.is_autocast_enabled("cpu"))))[0]
        model.blocks[0].mix[2].register_forward_hook(lambda module, given, made: seen.add(made.dtype))
        return model

    monkeypatch.setattr(loop, "model_of", watching)
    filter = MODEL["filter"] if layer == "rtf" else {}
    result = train(Toy(), short(model={**MODEL, "layer": layer, "filter": filter}, steps=80, precision="bf16"), tmp_path)
    assert seen == {(torch.float32, False), torch.bfloat16}
    assert result["valid"]["loss"] < 1.2 < np.log(4)


@pytest.mark.parametrize("model", [{**MODEL, "depth": 2}, {**MODEL, "layer": "s4", "filter": {}}])
def test_compiled_it_is_the_same_training(model, tmp_path, monkeypatch):
    compile = torch.compile
    compiled = []
    # the graphs without the code that would be made of them, which takes minutes on a CPU
    monkeypatch.setattr(torch, "compile", lambda module, **options: compiled.append(module) or compile(module, backend="eager", **options))
    plain, same = (train(Toy(), short(model=model, compile=on), tmp_path / str(on)) for on in (False, True))
    assert len(compiled) == 1
    assert same["valid"] == pytest.approx(plain["valid"], rel=1e-5)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_language_model_is_loaded_as_any_other(keep, tmp_path):
    task = Toy("language")
    result = train(task, short(model={"mixer": "hyena", "width": 8, "depth": 1, "order": 4}, keep=keep), tmp_path)
    model = load_model(tmp_path / "model.safetensors")
    batch = {name: torch.from_numpy(array) for name, array in task.batch("valid", range(task.size("valid"))).items()}
    with torch.no_grad():
        found = metrics("language", sums("language", model(batch["inputs"]), batch["targets"], batch["mask"]))
    assert found["bits"] == pytest.approx(result["valid"]["bits"], rel=1e-6)


def test_pairs_are_read_both(tmp_path):
    result = train(Toy("classify", sequences=2), short(model={**MODEL, "bidirectional": True}, steps=60), tmp_path)
    assert result["valid"]["accuracy"] >= 0.8


def test_a_loss_that_is_not_finite_ends_the_training_and_is_said(tmp_path):
    result = train(Toy("regress"), short(rate=1e30, steps=20, log_every=1), tmp_path)
    assert result["diverged"]
    assert result["steps"] < 20
    assert result["test"] == {}
    assert all(np.isfinite(line["loss"] or 0) for line in read(tmp_path / "log.jsonl"))


def test_the_best_weights_are_kept_where_asked(tmp_path):
    # the rate is far too large for the end of the training, that of a cosine up to 1
    changes = {"steps": 40, "rate": 0.5, "final": 1.0, "evaluate_every": 1}
    best, last = (train(Toy(), short(**changes, keep=keep), tmp_path / keep) for keep in ("best", "last"))
    lines = [line["accuracy"] for line in read(tmp_path / "best" / "log.jsonl") if line["split"] == "valid"]
    assert best["valid"]["accuracy"] == max(lines) == lines[best["valid"]["step"] - 1]
    assert last["valid"]["step"] == 40
    weights = [(tmp_path / keep / "model.safetensors").read_bytes() for keep in ("best", "last")]
    assert weights[0] != weights[1]


def test_a_solved_task_ends_the_training_after_three_evaluations_in_a_row(tmp_path, monkeypatch):
    accuracies = iter([0.9, 1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 0.5])  # the last is of the test
    monkeypatch.setattr(loop._Trainer, "_measured", lambda trainer, split: {"loss": 0.1, "accuracy": next(accuracies)})
    result = train(Toy(), short(steps=40, evaluate_every=2, solved=0.95), tmp_path)
    assert (result["steps"], result["solved"], result["valid"]["step"]) == (14, 10, 14)
    assert result["test"]["accuracy"] == 0.5


def test_a_solved_training_that_was_stopped_goes_on_counting(tmp_path, monkeypatch):
    easy = short(steps=40, evaluate_every=1, checkpoint_every=2, solved=0.0)
    update = loop._Trainer._update

    def stopping(trainer, batch):
        if trainer.step == 2 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        return update(trainer, batch)

    monkeypatch.setattr(loop._Trainer, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(Toy(), easy, tmp_path / "run")
    result = train(Toy(), easy, tmp_path / "run")
    assert (result["steps"], result["solved"]) == (3, 1)


def test_a_training_that_is_solved_before_its_first_line_of_the_log_has_a_speed(tmp_path):
    result = train(Toy(), short(steps=40, evaluate_every=1, log_every=40, solved=0.0), tmp_path)
    assert result["tokens_per_second"] == pytest.approx(3 * 8 * 12 / result["seconds"])


def test_a_split_without_examples_is_named(tmp_path):
    with pytest.raises(ValueError, match="task: expected examples in every split, got none of toy-token in train"):
        train(Toy(train=0), short(), tmp_path)


def test_without_solved_all_steps_are_taken_and_signals_have_no_accuracy(tmp_path):
    result = train(Toy(), short(evaluate_every=1), tmp_path / "all")
    assert (result["steps"], result["solved"]) == (6, None)
    with pytest.raises(ValueError, match="solved: expected for a task that has an accuracy, got it for 'toy-regress'"):
        train(Toy("regress"), short(solved=1.0), tmp_path / "signals")


def test_on_the_way_few_examples_are_measured_and_at_the_end_all_of_the_test(tmp_path):
    few, all_of_it = (train(Toy(), short(evaluate_on=number), tmp_path / str(number)) for number in (3, None))
    assert few["test"] == all_of_it["test"]
    assert few["valid"] != all_of_it["valid"]


def test_the_global_stream_of_random_numbers_is_left_as_it_was(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(Toy(), short(steps=1), tmp_path)
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)


def test_a_log_drops_what_is_later_than_the_checkpoint_and_what_was_cut_off(tmp_path):
    log = Log(tmp_path / "log.jsonl", 0)
    for step in (1, 2, 3):
        log.add(step=step, split="train", loss=float("inf"))
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "spl')
    assert [line["step"] for line in read(tmp_path / "log.jsonl")] == [1, 2, 3]
    damaged = {'{"step": 1,\n': "expected lines of JSON data, got a damaged", "[1]\n": r"expected lines with a step .* got \[1\]"}
    for text, message in damaged.items():
        (tmp_path / "other.jsonl").write_text(text)
        with pytest.raises(ValueError, match=rf"other\.jsonl: {message}"):
            read(tmp_path / "other.jsonl")
    assert Log(tmp_path / "log.jsonl", 2).lines == [{"step": step, "split": "train", "loss": None} for step in (1, 2)]
