"""Wrong input of layers and of models: each is one error that says what was expected, what came, and where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ssmid
from ssmid.nn import (
    S4,
    CachedConvolution,
    CompanionRecurrence,
    ExplicitFilter,
    FilterLayer,
    FutureFill,
    LanguageModel,
    ModalFilter,
    ModalRecurrence,
    Recurrence,
    RTFFilter,
    ShortConvolution,
    convert,
    generate,
)
from ssmid.nn.attention import Attention
from ssmid.nn.filter import State
from ssmid.nn.h3 import H3
from ssmid.nn.hyena import Hyena
from ssmid.nn.implicit import HyenaFilter
from ssmid.nn.lru import LRU
from ssmid.nn.multihyena import MultiHyena

CHANNELS = 4


def explicit(length: int = 24) -> ExplicitFilter:
    rng = np.random.default_rng(0)
    return ExplicitFilter(torch.tensor(rng.standard_normal((CHANNELS, length)) * 0.8 ** np.arange(length)))


def modal() -> ModalRecurrence:
    return ModalRecurrence(ModalFilter(CHANNELS, 4, generator=torch.Generator().manual_seed(0)).double().system())


RECURRENCES: dict[str, Callable[[], Recurrence]] = {
    "modal": modal,
    "trained modal": lambda: ModalFilter(CHANNELS, 4).double(),
    "companion": lambda: CompanionRecurrence(ssmid.tf(np.ones((CHANNELS, 3)), np.tile([1.0, -0.5, 0.1], (CHANNELS, 1)))),
    "cached": lambda: CachedConvolution(explicit(), 16),
    "relaxed": lambda: FutureFill(explicit(), 16, block=4),
    "epoched": lambda: FutureFill(explicit(), 16, schedule="epoched"),
}
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "filter": lambda: FilterLayer(modal()),
    "cached": lambda: FilterLayer(CachedConvolution(explicit(), 16)),
    "hyena": lambda: convert(Hyena(CHANNELS, trained_length=16), CachedConvolution, max_length=32).double(),
    "hyena of order 3": lambda: convert(Hyena(CHANNELS, 3, trained_length=16), CachedConvolution, max_length=32).double(),
    "multihyena": lambda: convert(MultiHyena(CHANNELS, 2, trained_length=16), FutureFill, max_length=32).double(),
    "h3": lambda: convert(H3(CHANNELS, 4), "exact").double(),
    "lru": lambda: LRU(CHANNELS).double(),
    "attention": lambda: Attention(CHANNELS, 2, max_length=16).double(),
}


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def mapped(state: State, function: Callable[[Tensor], Tensor]) -> State:
    return function(state) if isinstance(state, Tensor) else {name: function(x) for name, x in state.items()}


# ---------------------------------------------------------------- states


@pytest.mark.parametrize("name", RECURRENCES)
class TestStatesOfRecurrences:
    def state(self, name: str, batch: int = 2) -> tuple[Recurrence, State]:
        recurrence = RECURRENCES[name]()
        return recurrence, recurrence.prefill(tokens(batch, CHANNELS, 5))[1]

    def refused(self, recurrence: Recurrence, state: State, words: str) -> None:
        """By each of the three ways in, and the state is what it was."""
        kept = mapped(state, Tensor.clone)
        for call in (
            lambda: recurrence.step(tokens(2, CHANNELS), state),
            lambda: recurrence.step_(tokens(2, CHANNELS), state),
            lambda: recurrence.prefill(tokens(2, CHANNELS, 3), state),
        ):
            with pytest.raises(ValueError, match=words):
                call()
        pairs = [(state, kept)] if isinstance(state, Tensor) else [(state[key], kept[key]) for key in state]
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_of_another_batch(self, name):
        recurrence, state = self.state(name, batch=3)
        self.refused(recurrence, state, r"state.*: expected .* of shape \(2.*got .* of shape \(3")

    def test_of_another_shape(self, name):
        recurrence, state = self.state(name)
        self.refused(recurrence, mapped(state, lambda x: x[..., :-1] if x.ndim > 1 else x), "state.*: expected .* of shape .*, got")

    def test_of_another_dtype(self, name):
        recurrence, state = self.state(name)
        integers = mapped(state, lambda x: torch.zeros_like(x, dtype=torch.int32))
        self.refused(recurrence, integers, "state.*: expected .*, got int32 of shape")

    def test_of_another_kind(self, name):
        recurrence, state = self.state(name)
        if isinstance(state, Tensor):
            self.refused(recurrence, {"state": state}, "state: expected complex128|state: expected float")
            return
        lacking = {key: x for key, x in state.items() if key != "history"}
        self.refused(recurrence, lacking, "state: expected tensors named history.*position, got tensors named")
        self.refused(recurrence, state["history"], "state: expected tensors named history.*, got one Tensor")

    def test_signals_of_another_shape(self, name):
        recurrence, state = self.state(name)
        with pytest.raises(ValueError, match=r"u: expected real numbers of shape \(\*batch, 4\), got torch.float64 of shape \(2, 3\)"):
            recurrence.step(tokens(2, 3), state)
        with pytest.raises(ValueError, match=r"u: expected real numbers of shape \(\*batch, 4, length\)"):
            recurrence.prefill(tokens(2, 7, 3))
        with pytest.raises(ValueError, match=r"u: expected real numbers .* got torch.int64"):
            recurrence.prefill(torch.ones(2, CHANNELS, 3, dtype=torch.int64))


@pytest.mark.parametrize("name", LAYERS)
class TestStatesOfLayers:
    def test_of_another_batch(self, name):
        layer = LAYERS[name]()
        _, state = layer.prefill(tokens(3, 5, CHANNELS))
        for call in (lambda: layer.step(tokens(2, CHANNELS), state), lambda: layer.prefill(tokens(2, 3, CHANNELS), state)):
            with pytest.raises(ValueError, match=r"state.*expected"):
                call()

    def test_with_a_name_missing(self, name):
        layer = LAYERS[name]()
        _, state = layer.prefill(tokens(2, 5, CHANNELS))
        with pytest.raises(ValueError, match=r"state.*expected"):
            layer.step(tokens(2, CHANNELS), mapped(state, lambda x: torch.zeros_like(x, dtype=torch.int8)))
        if isinstance(state, Tensor):
            pytest.skip("one tensor")
        for lacking in state:
            rest = {key: x for key, x in state.items() if key != lacking}
            with pytest.raises(ValueError, match="state: expected"):
                layer.step(tokens(2, CHANNELS), rest)

    def test_signals_of_another_width(self, name):
        layer = LAYERS[name]()
        with pytest.raises(ValueError, match=r"expected .*4.*, got"):
            layer.prefill(tokens(2, 5, CHANNELS + 1))
        with pytest.raises(ValueError, match=r"expected .*4.*, got"):
            layer.step(tokens(2, CHANNELS + 1), layer.initial_state(2))


# ---------------------------------------------------------------- prompts


@pytest.mark.parametrize("name", LAYERS)
def test_empty_prompts_and_batches_go_through(name):
    layer = LAYERS[name]()
    y, state = layer.prefill(tokens(2, 0, CHANNELS))
    assert y.shape == (2, 0, CHANNELS)
    u = tokens(2, 1, CHANNELS)
    torch.testing.assert_close(layer.step(u[:, 0], state)[0], layer(u)[:, 0], rtol=0, atol=1e-10)
    y, state = layer.prefill(tokens(0, 3, CHANNELS))
    assert y.shape == (0, 3, CHANNELS)
    assert layer.step(tokens(0, CHANNELS), state)[0].shape == (0, CHANNELS)


def test_prompts_longer_than_trained_work_or_say_the_maximum():
    u = tokens(2, CHANNELS, 60)
    filter = explicit(24)  # beyond its taps it is zero, as it is in training
    reference = torch.nn.functional.conv1d(torch.nn.functional.pad(u, (59, 0)), filter(60).flip(-1)[:, None], groups=CHANNELS)
    torch.testing.assert_close(filter.convolve(u), reference)
    running = modal()
    y, _ = running.prefill(u)
    torch.testing.assert_close(y[..., :24], running.convolve(u[..., :24]))
    for way in ("cached", "relaxed", "epoched"):
        with pytest.raises(ValueError, match=r"expected at most 16 tokens, the max_length of this .*, got 60: make it with a larger"):
            RECURRENCES[way]().prefill(u)


def test_filters_that_were_trained_on_fewer_taps_are_zero_beyond():
    """Never another value: the positions beyond were never asked for."""
    filter = HyenaFilter(CHANNELS, trained_length=16).double()
    assert (filter(40)[:, 16:] == 0).all()
    torch.testing.assert_close(filter(40)[:, :16], filter(16))


# ---------------------------------------------------------------- models that cannot be converted


class Two(nn.Module):
    """Two layers by name."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second


def test_weights_that_are_nan_are_named_with_their_layer():
    model = Two(FilterLayer(explicit()), FilterLayer(explicit()))
    with torch.no_grad():
        model.second.filter.taps[2, 3] = torch.nan  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    for how, options in ((ssmid.distill, {"order": 2}), (CachedConvolution, {"max_length": 8})):
        with pytest.raises(ValueError, match=r"second\.filter.*NaN"):
            convert(model, how, **options)
    poles = ModalFilter(CHANNELS, 4)
    with torch.no_grad():
        poles.angle[1] = torch.inf
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 of 4 channels: 1"):
        poles.prefill(tokens(2, CHANNELS, 3).float())


def test_layers_that_cannot_be_distilled_say_why():
    with pytest.raises(ValueError, match=r"first.filter, a ExplicitFilter of 4 channels: order: expected"):
        convert(Two(FilterLayer(explicit()), FilterLayer(explicit())), ssmid.distill, order=0)
    with pytest.raises(ValueError, match=r"first.filter.*expected a system with a few states for 'exact', got 24 taps"):
        convert(Two(FilterLayer(explicit()), nn.Linear(2, 2)), "exact")
    bidirectional = FilterLayer(explicit(), explicit())
    with pytest.raises(ValueError, match="expected a causal layer, got a bidirectional one"):
        convert(bidirectional, ssmid.distill, order=2).prefill(tokens(2, 5, CHANNELS))  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match=r"expected a FilterLayer whose filter is a recurrence, got ExplicitFilter: ssmid\.nn\.convert"):
        FilterLayer(explicit()).initial_state(2)


def test_a_mapping_of_other_layers():
    fits = {"third": ssmid.distill(explicit().system(), order=2)}
    with pytest.raises(ValueError, match=r"missing: first\.filter; left over: third"):
        convert(Two(FilterLayer(explicit()), nn.Linear(2, 2)), fits)


# ---------------------------------------------------------------- language models


def language_model(mixer: str = "hyena") -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(13, width=8, depth=2, mixer=mixer, length=16).eval()


def running(mixer: str = "hyena", **options: int) -> LanguageModel:
    return convert(language_model(mixer), CachedConvolution, **{"max_length": 32, **options})  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("mixer", ["hyena", "multihyena", "rtf", "h3"])
class TestLanguageModels:
    def test_that_have_no_recurrences_name_the_way_there(self, mixer):
        with pytest.raises(ValueError, match=r"expected a .* whose filter is a recurrence, got .*: ssmid\.nn\.convert\(model, \.\.\.\)"):
            generate(language_model(mixer), torch.ones(2, 3, dtype=torch.int64), 2)

    def test_empty_prompts_and_no_sequences(self, mixer):
        model = running(mixer)
        with pytest.raises(ValueError, match="prompt: expected at least one token in each, got an empty one"):
            generate(model, torch.zeros(2, 0, dtype=torch.int64), 2)
        with pytest.raises(ValueError, match=r"tokens: expected at least one for each sequence, got shape \(2, 0\)"):
            model.prefill(torch.zeros(2, 0, dtype=torch.int64))
        assert generate(model, torch.zeros(0, 3, dtype=torch.int64), 2).shape == (0, 2)

    def test_a_context_beyond_the_longest_says_the_longest(self, mixer):
        model = running(mixer, max_length=8)
        assert generate(model, torch.ones(2, 6, dtype=torch.int64), 3).shape == (2, 3)
        with pytest.raises(ValueError, match="expected at most 8 tokens, the max_length of this CachedConvolution, got 9"):
            generate(model, torch.ones(2, 6, dtype=torch.int64), 4)
        with pytest.raises(ValueError, match="expected at most 8 tokens, the max_length of this CachedConvolution, got 9"):
            generate(model, torch.ones(2, 9, dtype=torch.int64), 1)

    def test_a_state_of_another_batch_or_model(self, mixer):
        model = running(mixer)
        _, state = model.prefill(torch.ones(3, 4, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"state.*expected"):
            model.step(torch.ones(2, dtype=torch.int64), state)
        rest = {name: x for name, x in state.items() if not name.startswith("blocks.1")}
        with pytest.raises(ValueError, match=r"state: expected 'blocks\.1.*' among its names"):
            model.step(torch.ones(3, dtype=torch.int64), rest)
        assert set(running("attention").initial_state(1)) != set(state)


def test_weights_that_are_nan_are_named_when_generating():
    model = running()
    with torch.no_grad():
        model.blocks[1].mixer.out_proj.weight[2, 3] = torch.nan  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    with pytest.raises(ValueError, match=r"NaN or infinity in blocks\.1\.mixer\.out_proj\.weight"):
        generate(model, torch.ones(2, 3, dtype=torch.int64), 2)


def test_weights_that_make_no_state_are_named_when_generating():
    model = LanguageModel(13, width=8, depth=2, filter="modal", order=4)
    with torch.no_grad():
        model.blocks[1].mixer.filter_fn.angle[2, 1] = torch.nan  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    with pytest.raises(ValueError, match=r"weights: expected finite numbers, got NaN or infinity in blocks\.1\.mixer\.filter_fn\.angle"):
        generate(model, torch.ones(2, 3, dtype=torch.int64), 2)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.tensor([[0, 1, 1], [1, 1, 1]]), r"torch\.int64 of shape \(2, 3\)"),
        (torch.tensor([[0.0, 1, 1], [1, 1, 1]]), r"torch\.float32 of shape \(2, 3\)"),
        (torch.tensor([[False, True, True]]), r"torch\.bool of shape \(1, 3\)"),
        (torch.tensor([[True], [True]]), r"torch\.bool of shape \(2, 1\)"),
    ],
)
@pytest.mark.parametrize("mixer", ["hyena", "multihyena", "h3", "attention", lambda width: LRU(width, 4), lambda width: S4(width, 4, 8)])
def test_masks_are_booleans_of_every_token(mixer, mask, words):
    model = LanguageModel(13, 8, 1, mixer=mixer)
    with pytest.raises(ValueError, match=rf"mask: expected torch\.bool of shape \(2, 3\), True at tokens, got {words}"):
        model(torch.ones(2, 3, dtype=torch.int64), mask)


@pytest.mark.parametrize("state", [None, [torch.zeros(1)], torch.zeros(2, 3)])
def test_states_that_are_none(state):
    model = LanguageModel(13, width=8, depth=1, filter="modal", order=4)
    with pytest.raises(ValueError, match=r"state: expected tensors by name, got (NoneType|list|one tensor of shape \(2, 3\))"):
        model.step(torch.ones(2, dtype=torch.int64), state)


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ([1.5, 2.0], {}, r"prompt: expected integers of shape .*, got torch\.float32"),
        ([True, False], {}, r"prompt: expected integers of shape .*, got torch\.bool"),
        ([1], {"batch": True}, "batch: expected a whole number >= 0, got True"),
        ([1], {"seed": 1.5}, "seed: expected whole numbers, got 1.5"),
        ([1], {"stop": 1.5}, "stop: expected a token, tokens, or sequences of at least one token, got 1.5"),
    ],
)
def test_numbers_that_are_no_tokens(prompt, options, words):
    with pytest.raises(ValueError, match=words):
        generate(running(), prompt, 2, **options)
    assert generate(running(), [np.int64(1), np.int64(2)], 2, seed=2.0, batch=2).shape == (2, 2)


def test_options_that_nothing_takes():
    with pytest.raises(TypeError, match="expected options of a function alone, which 'exact' and mappings are not, got order"):
        convert(S4(2, 4), "exact", order=2)
    with pytest.raises(ValueError, match="length: expected at least 2 taps to compare, got 0"):
        convert(S4(2, 4), "exact", length=0)


def test_the_exact_context_is_checked_where_steps_cannot_look(monkeypatch):
    """As in a CUDA graph: the decoder counts."""
    model = running(max_length=6)
    monkeypatch.setattr("ssmid.nn.cached_convolution._blind", lambda _: True)
    with pytest.raises(ValueError, match="expected at most 6 tokens, the max_length of this CachedConvolution, got 7"):
        generate(model, torch.ones(2, 5, dtype=torch.int64), 4)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Hyena(0), "width, order: expected at least 1 and 2, got 0 and 2"),
        (lambda: Hyena(4, 1), "width, order: expected at least 1 and 2, got 4 and 1"),
        (lambda: Hyena(4, filter=explicit(), trained_length=8), "expected options of the implicit filter only where there is no other"),
        (lambda: Hyena(6, filter=explicit()), r"filter: expected 1 of 6 channels, got channels \[4\]"),
        (lambda: MultiHyena(6, 4), "heads: expected a number that divides the width 6, got 4"),
        (lambda: FilterLayer(explicit(), ExplicitFilter(torch.ones(3, 2))), "backward: expected 4 channels as the filter has, got 3"),
        (lambda: ExplicitFilter(torch.ones(3)), r"taps: expected real numbers of shape \(channels, length\), got .* of shape \(3,\)"),
        (lambda: RTFFilter(4, 0, length=16), "order"),
        (lambda: LanguageModel.from_size("7B"), "size: expected one of 125M, 153M, 355M, 1.3B, got '7B'"),
        (lambda: LanguageModel(0, 8, 2), "vocabulary: expected at least 1, got 0"),
        (lambda: LanguageModel(13, 8, 2, "mamba"), "mixer: expected a function of the width or one of hyena, .*, got 'mamba'"),
        (lambda: LanguageModel(13, 8, 2, filter="fir"), "filter: expected a function of the number of channels or one of .*, got 'fir'"),
        (lambda: ShortConvolution(4, 0), "taps"),
    ],
)
def test_sizes_that_are_none(make, words):
    with pytest.raises(ValueError, match=words):
        make()
