"""Generation: every sequence as it would be alone, in memory that does not grow."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch

from ssmid.nn import (
    CachedConvolution,
    Decoder,
    ExplicitFilter,
    FutureFill,
    LanguageModel,
    RTFFilter,
    Sampling,
    convert,
    generate,
    memory_per_sequence,
    stream,
)
from ssmid.nn import memory as memory_module
from ssmid.nn.memory import largest_batch
from ssmid.nn.prompts import prompts_of
from ssmid.nn.sampling import choose, keys, uniform
from tests.nn.small_models import Growing, Tiny, by_hand

PROMPTS = [[1, 2, 3, 4, 5], [6], [7, 8, 9], [10, 0]]
MODELS = {"recurrence": Tiny, "cache": Growing}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


# ---------------------------------------------------------------- prompts


def test_each_of_unequal_prompts_is_continued_as_it_is_alone(model):
    together = generate(model, PROMPTS, 12, temperature=0)
    assert together.tolist() == [by_hand(model, prompt, 12) for prompt in PROMPTS]
    assert together.tolist() == [generate(model, prompt, 12, temperature=0).tolist() for prompt in PROMPTS]


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 9])
def test_prompts_in_chunks_equal_whole_ones(model, chunk):
    assert torch.equal(generate(model, PROMPTS, 8, temperature=0, prefill_chunk=chunk), generate(model, PROMPTS, 8, temperature=0))


def test_prompts_of_large_batches_are_read_some_at_a_time(model, monkeypatch):
    whole = generate(model, PROMPTS, 8, seed=1)
    monkeypatch.setattr("ssmid.nn.decoder.TOKENS_AT_ONCE", 11)
    sizes, prefill = [], model.prefill
    monkeypatch.setattr(model, "prefill", lambda tokens, *rest: sizes.append(tokens.numel()) or prefill(tokens, *rest))
    assert torch.equal(generate(model, PROMPTS, 8, seed=1), whole)
    assert max(sizes) <= 11
    assert len(sizes) > 1


@pytest.mark.parametrize("chunk", [None, 2])
def test_prompts_of_large_states_are_read_some_at_a_time(model, chunk, monkeypatch):
    whole, repeated = generate(model, PROMPTS, 8, seed=1), generate(model, PROMPTS[0], 8, seed=1, batch=4)
    monkeypatch.setattr("ssmid.nn.decoder.STATE_AT_ONCE", 3 * memory_per_sequence(model, len(PROMPTS[0]) + 8) + 1)
    read, prefill = [], model.prefill
    monkeypatch.setattr(model, "prefill", lambda tokens, *rest: read.append(tokens.shape) or prefill(tokens, *rest))
    assert torch.equal(generate(model, PROMPTS, 8, seed=1, prefill_chunk=chunk), whole)
    assert read == ([(3, 5), (1, 5)] if chunk is None else [(3, 2), (3, 2), (3, 1), (1, 2), (1, 2), (1, 1)])
    assert torch.equal(generate(model, PROMPTS[0], 8, seed=1, batch=4, prefill_chunk=chunk), repeated)


def test_states_of_all_tokens_may_be_one_tensor():
    class OneTensor(Growing):
        """With the number of tokens in front of them."""

        def initial_state(self, batch, length=None):
            return self.joined(super().initial_state(batch, length))

        def prefill(self, tokens, state=None, mask=None):
            logits, state = super().prefill(tokens, self.parts(state), mask)
            return logits, self.joined(state)

        def step_(self, tokens, state):
            return super().step_(tokens, self.parts(state))

        def joined(self, state):
            u = state["u"]
            return torch.cat([state["position"].to(u.dtype).expand(len(u), 1, u.shape[-1]), u], 1)

        def parts(self, state):
            return {"u": state[:, 1:], "position": state[0, 0, 0]}

    expected = [by_hand(OneTensor(), prompt, 8) for prompt in PROMPTS]
    for chunk in (None, 2):
        assert generate(OneTensor(), PROMPTS, 8, temperature=0, prefill_chunk=chunk).tolist() == expected


def test_shapes_follow_the_prompt():
    model = Tiny()
    assert generate(model, [1, 2], 3).shape == (3,)
    assert generate(model, torch.tensor([[1, 2]]), 3).shape == (1, 3)
    assert generate(model, [1, 2], 3, batch=4).shape == (4, 3)
    assert generate(model, torch.tensor([1, 2], dtype=torch.int32).numpy(), 0).shape == (0,)
    assert generate(model, torch.zeros(0, 5, dtype=torch.int64), 3).shape == generate(model, [], 3).shape == (0, 3)
    assert generate(model, [1], 3, batch=0).shape == (0, 3)
    assert [token.shape for token in stream(model, [1, 2], 2)] == [(), ()]
    assert [token.shape for token in stream(model, PROMPTS, 2)] == [(4,), (4,)]
    assert list(stream(model, [], 2)) == list(stream(model, [1], 0)) == []


def test_one_prompt_repeated_is_read_once_and_drawn_from_many_times(model):
    many = generate(model, [1, 2, 3], 10, batch=5, seed=3)
    assert torch.equal(many, generate(model, [[1, 2, 3]] * 5, 10, seed=3))
    assert len({tuple(row) for row in many.tolist()}) > 1


def test_an_empty_prompt_begins_with_the_start_token(model):
    expected = by_hand(model, [7], 6)
    assert generate(model, torch.zeros(0, dtype=torch.int64), 6, temperature=0, start=7).tolist() == expected
    assert generate(model, [[1, 2], []], 6, temperature=0, start=7).tolist() == [by_hand(model, [1, 2], 6), expected]
    model.start_token = 7
    assert generate(model, [[]], 6, temperature=0).tolist() == [expected]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[]], 3), ValueError, r"prompt: expected at least one token in each, got an empty one: .*start="),
        (([1, 11], 3), ValueError, "prompt: expected tokens from 0 to 10, got 11"),
        (([-1], 3), ValueError, "prompt: expected tokens from 0 to 10, got -1"),
        ((torch.ones(3), 3), ValueError, r"prompt: expected integers of shape \(length,\) or .* got torch.float32 of shape \(3,\)"),
        ((torch.ones(1, 1, 1, dtype=int), 3), ValueError, r"prompt: expected integers .* got torch.int64 of shape \(1, 1, 1\)"),
        (("text", 3), TypeError, "prompt: expected tokens, got str: a tokenizer"),
        ((["text", "more"], 3), TypeError, "prompt: expected tokens, got str: a tokenizer"),
        (([1], -1), ValueError, "n: expected a whole number of tokens >= 0, got -1"),
        (([1], 2.5), ValueError, "n: expected a whole number of tokens >= 0, got 2.5"),
        (([[1], [2]], 3, {"batch": 3}), ValueError, "batch: expected 2 as there are prompts, or one prompt to repeat, got 3"),
        (([1], 3, {"batch": -1}), ValueError, "batch: expected a whole number >= 0, got -1"),
        (([1], 3, {"temperature": -1.0}), ValueError, "temperature: expected a finite number >= 0, got -1.0"),
        (([1], 3, {"stop": 11}), ValueError, "stop, pad: expected tokens from 0 to 10, got 11"),
        (([1], 3, {"stop": [[]]}), ValueError, "stop: expected a token, tokens, or sequences of at least one token"),
        (([1], 3, {"stop": "end"}), TypeError, "stop: expected tokens, got str"),
        (([1], 3, {"stop": [3, "end"]}), TypeError, "stop: expected tokens, got str"),
        (([1], 3, {"stop": 3, "pad": 1.5}), ValueError, "stop, pad: expected tokens from 0 to 10, got 1.5"),
        (([1], 3, {"top_k": math.inf}), ValueError, "top_k: expected a whole number >= 1, got inf"),
        (([1], 3, {"prefill_chunk": 0}), ValueError, "prefill_chunk: expected at least 1 token, got 0"),
        (([1], 3, {"seed": [1, 2]}), ValueError, "seed: expected one integer, or one for each of 1 sequences, got 2"),
        (([1], 3, {"graph": True}), ValueError, "graph: expected a model on a GPU"),
    ],
)
def test_bad_input_is_one_error_with_what_was_expected(arguments, error, message):
    *positional, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(error, match=message):
        generate(Tiny(), *positional, **options)


# ---------------------------------------------------------------- streams, seeds, stops


def test_what_a_stream_gave_is_a_prompt(model):
    begun = list(stream(model, [1, 2], 3, temperature=0))
    assert generate(model, begun, 4, temperature=0).tolist() == by_hand(model, torch.stack(begun).tolist(), 4)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 4, "top_k": 5}, {"seed": 4, "top_p": 0.9, "stop": [3, 4]}])
def test_streams_equal_batches(model, options):
    assert torch.equal(torch.stack(list(stream(model, PROMPTS, 20, **options)), -1), generate(model, PROMPTS, 20, **options))


def test_a_stream_without_a_number_ends_where_all_sequences_do():
    tokens = torch.stack(list(stream(Tiny(), PROMPTS, seed=0, stop=3)), -1)
    assert (tokens[:, -1] == 3).all()
    assert (tokens == 3).any(-1).all()
    assert torch.equal(tokens, generate(Tiny(), PROMPTS, tokens.shape[1] + 20, seed=0, stop=3))


def test_seeds_give_the_same_tokens_again_and_others_others(model):
    first = generate(model, PROMPTS, 30, seed=1)
    assert torch.equal(first, generate(model, PROMPTS, 30, seed=1))
    assert not torch.equal(first, generate(model, PROMPTS, 30, seed=2))


def test_a_seed_for_each_sequence_makes_it_independent_of_the_batch(model):
    together = generate(model, PROMPTS, 30, seed=[5, 6, 7, 8])
    assert together[2:3].tolist() == generate(model, PROMPTS[2:3], 30, seed=7).tolist()
    assert together[1:].tolist() == generate(model, PROMPTS[1:], 30, seed=[6, 7, 8]).tolist()


def ended_by_hand(free: list[int], patterns: list[list[int]], pad: int) -> list[int]:
    for t in range(len(free)):
        if any(free[: t + 1][-len(p) :] == p for p in patterns if t + 1 >= len(p)):
            return free[: t + 1] + [pad] * (len(free) - t - 1)
    return free


@pytest.mark.parametrize(
    ("stop", "patterns", "pad"),
    [
        (3, [[3]], None),
        ([3, 8], [[3], [8]], 0),
        (torch.tensor([3, 8]), [[3], [8]], None),
        (torch.tensor([3, 8]).numpy(), [[3], [8]], None),
        ([[3, 8], [5]], [[3, 8], [5]], 2),
        ([[4, 4, 4, 4, 4, 4, 4]], [[4] * 7], None),
    ],
)
def test_sequences_end_at_their_stops_and_are_padded(model, stop, patterns, pad):
    for seed in range(6):
        free = generate(model, PROMPTS, 40, seed=seed).tolist()
        expected = [ended_by_hand(row, patterns, patterns[0][-1] if pad is None else pad) for row in free]
        found = generate(model, PROMPTS, 40, seed=seed, stop=stop, pad=pad)
        assert found.tolist() == [row[: found.shape[1]] for row in expected]
        ends = [next((t + 1 for t in range(40) if any(row[: t + 1][-len(p) :] == p for p in patterns)), 40) for row in free]
        assert found.shape[1] == max(ends)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_sequence_of_tokens_ends_where_the_last_of_them_comes(model, length):
    free = generate(model, PROMPTS, 40, seed=2).tolist()
    pattern = free[0][12 : 12 + length]
    found = generate(model, PROMPTS, 40, seed=2, stop=[pattern]).tolist()
    expected = [ended_by_hand(row, [pattern], pattern[-1]) for row in free]
    assert found == [row[: len(found[0])] for row in expected]
    assert expected[0] != free[0]


def test_all_ended_means_no_further_steps():
    model, calls = Tiny(), []
    step = model.step_
    model.step_ = lambda *arguments: calls.append(1) or step(*arguments)
    first = int(generate(model, [1], 1, temperature=0)[0])
    assert generate(model, [1], 10_000, temperature=0, stop=first).tolist() == [first]
    assert len(calls) < 20


# ---------------------------------------------------------------- memory, modes, faults


def test_memory_is_that_of_the_state_and_flat_in_the_context():
    assert memory_per_sequence(Tiny(), 10) == memory_per_sequence(Tiny(), 10**9) == 6 * 8
    assert memory_per_sequence(Growing(), 10**6) == 10**6 * 6 * 8


def test_a_decoder_keeps_its_tensors_from_token_to_token_and_from_call_to_call(model):
    decoder = Decoder(model, 4, length=64)
    places = [tensor.data_ptr() for tensor in (*decoder.state.values(), decoder.token, decoder.finished)]
    first = decoder.generate(PROMPTS, 20, seed=9)
    assert torch.equal(first, decoder.generate(PROMPTS, 20, seed=9))
    assert torch.equal(first, generate(model, PROMPTS, 20, seed=9))
    assert places == [tensor.data_ptr() for tensor in (*decoder.state.values(), decoder.token, decoder.finished)]


def test_a_decoder_forgets_which_sequences_had_ended(model):
    decoder = Decoder(model, 4, length=64, stop=[3, 8])
    for seed in (1, 2, 1):
        assert torch.equal(decoder.generate(PROMPTS, 40, seed=seed), generate(model, PROMPTS, 40, seed=seed, stop=[3, 8]))


def test_a_decoder_says_where_its_room_ends():
    decoder = Decoder(Growing(), 1, length=4)
    assert decoder.generate([1, 2], 3).shape == (1, 3)
    with pytest.raises(ValueError, match="length: expected at most 4 tokens, as this decoder was made for, got 5"):
        decoder.generate([1, 2], 4)
    with pytest.raises(ValueError, match="length: expected the most tokens of a prompt and its answer"):
        Decoder(Growing(), 1)


def test_a_decoder_reads_as_many_prompts_as_it_has_sequences_or_one(model):
    decoder = Decoder(model, 4, length=8)
    assert decoder.prefill(prompts_of([[1, 2]], vocabulary=11)).shape == (1, 11)
    with pytest.raises(ValueError, match="prompts: expected 4 as this decoder has sequences, or one for all, got 2"):
        decoder.prefill(prompts_of([[1, 2], [3, 4]], vocabulary=11))


def test_dropout_is_off_while_generating_and_on_again_afterwards(model):
    class Dropping(Tiny):
        def __init__(self):
            super().__init__()
            self.dropout, self.frozen = torch.nn.Dropout(0.9), torch.nn.Dropout(0.9).eval()

        def logits(self, state):
            return self.dropout(super().logits(state))

    dropping = Dropping()
    assert generate(dropping, [1, 2], 20, temperature=0).tolist() == by_hand(dropping, [1, 2], 20)
    assert next(stream(dropping, [1, 2], 20, temperature=0)) == by_hand(dropping, [1, 2], 1)[0]
    assert dropping.training
    assert dropping.dropout.training
    assert not dropping.frozen.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_named(model, value):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.head[2, 3] = value
    with pytest.raises(ValueError, match="weights: expected finite numbers, got NaN or infinity in head"):
        generate(broken, PROMPTS, 40, temperature=0)


def test_states_that_overflow_are_told_from_weights():
    model = Tiny()
    model.logits = lambda state: torch.where(state["x"][:, :1] == state["x"][1:2, :1], math.nan, torch.tanh(state["x"]) @ model.head)
    with pytest.raises(ValueError, match=r"logits: expected finite numbers, got .* in sequences \[1\] though all weights are finite"):
        generate(model, PROMPTS, 5)


def test_what_lies_beyond_the_taps_is_said_once():
    model = Tiny()
    model.first, model.second = ExplicitFilter(torch.ones(1, 9)), ExplicitFilter(torch.ones(1, 20))
    model.endless = RTFFilter(1, 2, length=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(model, [1, 2, 3], 6)
    with pytest.warns(UserWarning, match=r"have 22 tokens, and 2 filters have fewer taps \(first: 9\): what lies .* not seen") as seen:
        generate(model, [1, 2, 3], 19)
    assert len(seen) == 1
    assert seen[0].filename == __file__


class Device:
    """Memory that is counted by the formula of each run."""

    def __init__(self, bytes: int) -> None:
        self.bytes = bytes

    def available(self) -> int:
        return self.bytes

    def peak(self, run) -> int:
        return run()


def test_the_largest_batch_is_the_largest_that_fits():
    fixed, decoding, reading, rows = 5000, 70, 11, 100

    def held(batch, prompt):
        return fixed + decoding * batch + reading * min(batch, rows) * prompt

    for room in (7_000, 60_000, 10**6):
        found, _ = largest_batch(held, 8, rows, Device(room))
        true = max((b for b in range(100_000) if held(b, 8) <= room), default=0)
        assert 0.8 * true - 1 <= found <= true, room
    assert largest_batch(held, 8, 8, Device(4000))[0] == 0


@pytest.mark.parametrize("fits", [0, 1])
def test_a_largest_batch_of_one_or_none_is_found_too(fits):
    def held(batch, prompt):
        if batch > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 1000

    assert largest_batch(held, 8, 8, Device(1500)) == (fits, 1500)


def test_out_of_memory_names_the_batch_that_fits(monkeypatch):
    class Limited(Tiny):
        def initial_state(self, batch, length=None):
            if batch > 5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. More")
            return super().initial_state(batch)

    class Held(Device):
        def __init__(self, device):
            super().__init__(10_000)
            self.runs = iter([1100, 1100, 2100, 2100])

        def peak(self, run):
            run()
            return next(self.runs)

    monkeypatch.setattr(memory_module, "CudaMemory", Held)
    message = r"batch: expected at most about 9 sequences of 0.0 MiB, .* got 6: decode that many at a time \(CUDA out of memory\)"
    with pytest.raises(torch.OutOfMemoryError, match=message):
        generate(Limited(), [1, 2], 3, batch=6)
    with pytest.raises(torch.OutOfMemoryError, match=message):
        next(stream(Limited(), [1, 2], 3, batch=6))


def test_prompts_are_padded_on_the_left():
    prompts = prompts_of([[1, 2, 3], [4]], vocabulary=5)
    assert prompts.mask is not None
    assert prompts.mask.tolist() == [[True] * 3, [False, False, True]]
    assert prompts_of([[1, 2], [3, 4]], vocabulary=5).mask is None


# ---------------------------------------------------------------- language models


def language_model(mixer, **options):
    torch.manual_seed(1)
    model = LanguageModel(23, 16, 2, mixer, **options).double().eval()
    with torch.no_grad():  # as drawn, logits hardly differ and greedy tokens repeat
        model.embedding.weight *= 50
        for weight in model.blocks.parameters():
            weight *= 3
    return model


def undistilled(how, **options):
    return convert(language_model("hyena", length=48), how, inplace=True, **options)


LANGUAGE_MODELS = {
    "Hyena": lambda: language_model("hyena", filter="modal", order=4),
    "MultiHyena": lambda: language_model("multihyena", filter="modal", order=4, heads=4),
    "attention": lambda: language_model("attention", heads=2),
    "cached": lambda: undistilled(CachedConvolution, max_length=48),
    "FutureFill": lambda: undistilled(FutureFill, max_length=48, block=4),
}


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_language_models_generate_what_their_forward_pass_prefers(kind):
    model, n, seeds = LANGUAGE_MODELS[kind](), 12, [3, 4, 5, 6]
    greedy, drawn = model.generate(PROMPTS, n, temperature=0), model.generate(PROMPTS, n, temperature=8.0, seed=seeds)
    for i, prompt in enumerate(PROMPTS):
        for answer, sampling in ((greedy[i], Sampling(temperature=0)), (drawn[i], Sampling(temperature=8.0))):
            logits = model(torch.cat([torch.tensor(prompt), answer])[None])[0, len(prompt) - 1 : -1]
            assert answer.tolist() == choose(logits, sampling, uniform(keys(seeds[i], 1), torch.arange(n)))[0].tolist()
    assert len(set(drawn.flatten().tolist())) > 8
    drawn = model.generate(PROMPTS, n, seed=3)
    assert torch.equal(drawn, model.generate(PROMPTS, n, seed=3, prefill_chunk=2))
    assert torch.equal(drawn, torch.stack(list(model.stream(PROMPTS, n, seed=3)), -1))


def test_state_of_a_recurrence_is_flat_in_the_context_and_that_of_attention_is_not():
    hyena, attention = LANGUAGE_MODELS["Hyena"](), LANGUAGE_MODELS["attention"]()
    # Of each block: 3 * 16 channels with 2 inputs in float64, 16 channels of 2 modes in complex128.
    assert memory_per_sequence(hyena) == memory_per_sequence(hyena, 65_536) == 2 * (48 * 2 * 8 + 16 * 2 * 16)
    assert memory_per_sequence(attention, 200) - memory_per_sequence(attention, 100) == 2 * 100 * (2 * 16 * 8 + 1)


def test_nan_in_a_layer_is_named():
    model = LANGUAGE_MODELS["Hyena"]()
    with torch.no_grad():
        model.blocks[1].mixer.in_proj.weight[3, 3] = math.nan
    with pytest.raises(ValueError, match=r"got NaN or infinity in blocks\.1\.mixer\.in_proj\.weight"):
        model.generate([1, 2], 3)


def test_filters_that_are_no_recurrences_are_named():
    with pytest.raises(ValueError, match=r"ssmid.nn.convert\(model"):
        language_model("hyena", length=48).generate([1, 2], 3)


# ---------------------------------------------------------------- on a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"seed": 1}, {"seed": 1, "top_k": 4, "stop": [[3, 1], [2]]}, {"seed": 1, "top_p": 0.8}]
)
def test_a_graph_gives_what_single_steps_give_again_and_again(options):
    model = Tiny().cuda()
    eager = generate(model, PROMPTS, 50, graph=False, **options)
    assert torch.equal(eager, generate(model, PROMPTS, 50, graph=True, **options))
    settings = {name: value for name, value in options.items() if name != "seed"}
    decoder = Decoder(model, 4, graph=True, **settings)
    for _ in range(2):
        assert torch.equal(eager, decoder.generate(PROMPTS, 50, seed=options.get("seed")))
    assert torch.equal(eager.cpu(), generate(Tiny(), PROMPTS, 50, **options))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_draws_anew_at_every_token():
    flat = Tiny(sharpness=0.0).cuda()
    tokens = generate(flat, [1], 200, batch=8, seed=0, graph=True)
    counts = torch.bincount(tokens.flatten().cpu(), minlength=11)
    assert counts.min() > 90
    assert len({tuple(row) for row in tokens.tolist()}) == 8
