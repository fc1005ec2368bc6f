"""Exact decoding of undistilled filters: cached convolution and FutureFill in both schedules, against direct sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmid.nn import CachedConvolution, ExplicitFilter, FutureFill
from ssmid.nn.future_fill import add_contribution
from tests.nn.laws import DEVICES, DTYPES, compiles, recurrence_laws, state_dict_travels, taps_are_the_response

CHANNELS, LONGEST = 3, 40


def explicit(length: int = 30, channels: int = CHANNELS) -> ExplicitFilter:
    rng = np.random.default_rng(7)
    return ExplicitFilter(torch.tensor(rng.standard_normal((channels, length)) * 0.9 ** np.arange(length)))


WAYS = {
    "cached": lambda filter, n: CachedConvolution(filter, n),
    "relaxed": lambda filter, n: FutureFill(filter, n, block=4),
    "published": lambda filter, n: FutureFill(filter, n, block=1),
    "blocks of three": lambda filter, n: FutureFill(filter, n, block=3),
    "epoched": lambda filter, n: FutureFill(filter, n, schedule="epoched"),
    "epoched by five": lambda filter, n: FutureFill(filter, n, schedule="epoched", block=5),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_laws(way, dtype, device):
    recurrence_laws(WAYS[way](explicit(), LONGEST), device, dtype, lengths=(1, 2, 7, 16, 33, LONGEST))


@pytest.mark.parametrize("way", WAYS)
def test_outputs_are_the_direct_sums(way):
    filter = explicit(length=50)  # longer than what is kept
    h = filter.taps.detach().numpy()
    u = np.random.default_rng(0).standard_normal((2, CHANNELS, LONGEST))
    expected = np.stack([[np.convolve(h[c], x[c])[:LONGEST] for c in range(CHANNELS)] for x in u])
    recurrence = WAYS[way](filter, LONGEST)
    for prompt in (0, 1, 5, 16, 39, 40):
        y, state = recurrence.prefill(torch.tensor(u[..., :prompt]))
        outputs = [y[..., t] for t in range(prompt)]
        for t in range(prompt, LONGEST):
            outputs.append(recurrence.step_(torch.tensor(u[..., t]), state))
        np.testing.assert_allclose(torch.stack(outputs, -1).numpy(), expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 20), st.sampled_from(["relaxed", "epoched"]), st.data())
def test_every_block_and_length(longest, block, schedule, data):
    """A state after steps is that after a prefill: what is pending is a function of the inputs."""
    prompt = data.draw(st.integers(0, longest))
    recurrence = FutureFill(explicit(longest, 1), longest, schedule=schedule, block=block)
    u = torch.randn(1, longest, dtype=torch.float64, generator=torch.Generator().manual_seed(longest))
    y, state = recurrence.prefill(u[:, :prompt])
    outputs = [y]
    for t in range(prompt, longest):
        outputs.append(recurrence.step_(u[:, t], state)[:, None])
    torch.testing.assert_close(torch.cat(outputs, -1), recurrence.convolve(u), rtol=0, atol=1e-11)
    assert int(state["position"]) == longest


def test_relaxed_tiles_cover_each_pair_once():
    recurrence = FutureFill(explicit(), 64, block=4)
    covered = np.zeros((64, 64), int)
    for t in range(64):
        covered[t - t % 4 : t + 1, t] += 1
    for place in range(4, 64, 4):
        first, last, end = list(recurrence._tiles(place))[-1]
        covered[first:last, last:end] += 1
    np.testing.assert_array_equal(covered, np.triu(np.ones((64, 64), int)))


def test_the_work_of_a_relaxed_schedule_is_almost_linear(monkeypatch):
    """L log^2 L and not L^2: the points transformed over a whole context, counted."""
    points = []
    rfft = torch.fft.rfft
    monkeypatch.setattr(torch.fft, "rfft", lambda x, n=None, **rest: points.append(n) or rfft(x, n=n, **rest))
    longest = 1024
    recurrence = FutureFill(explicit(8, 1), longest, block=8)
    state = recurrence.initial_state(1)
    for _ in range(longest):
        recurrence.step_(torch.ones(1, 1, dtype=torch.float64), state)
    assert len(points) // 2 == longest // 8 - 1
    assert sum(points) // 2 <= longest * np.log2(longest // 8)


@pytest.mark.parametrize("way", WAYS)
def test_beyond_the_longest_context_is_an_error_that_says_it(way):
    recurrence = WAYS[way](explicit(), LONGEST)
    words = f"expected at most {LONGEST} tokens, the max_length of this"
    with pytest.raises(ValueError, match=words):
        recurrence.prefill(torch.zeros(2, CHANNELS, LONGEST + 1, dtype=torch.float64))
    _, state = recurrence.prefill(torch.ones(2, CHANNELS, LONGEST - 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=words):
        recurrence.prefill(torch.zeros(2, CHANNELS, 2, dtype=torch.float64), state)
    _, state = recurrence.step(torch.zeros(2, CHANNELS, dtype=torch.float64), state)
    kept = {name: x.clone() for name, x in state.items()}
    with pytest.raises(ValueError, match=words):
        recurrence.step_(torch.zeros(2, CHANNELS, dtype=torch.float64), state)
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_where_it_cannot_be_seen_outputs_beyond_are_nan(monkeypatch):
    recurrence = CachedConvolution(explicit(), 4)
    _, state = recurrence.prefill(torch.ones(2, CHANNELS, 3, dtype=torch.float64))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    token = torch.ones(2, CHANNELS, dtype=torch.float64)
    assert recurrence.step_(token, state).isfinite().all()
    for _ in range(3):
        assert recurrence.step_(token, state).isnan().all()


def test_sequences_at_different_places():
    """The cache holds them side by side; FutureFill says that it cannot."""
    recurrence, u = CachedConvolution(explicit(), LONGEST), torch.randn(2, CHANNELS, 12, dtype=torch.float64)
    states = [recurrence.prefill(u[:1, :, :3])[1], recurrence.prefill(u[1:, :, :8])[1]]
    both = {name: torch.cat([state[name] for state in states]) for name in states[0]}
    y = recurrence.step(torch.stack([u[0, :, 3], u[1, :, 8]]), both)[0]
    chunk, after = recurrence.prefill(torch.stack([u[0, :, 3:6], u[1, :, 8:11]]), both)
    whole = recurrence.convolve(u)
    torch.testing.assert_close(y, torch.stack([whole[0, :, 3], whole[1, :, 8]]))
    torch.testing.assert_close(chunk, torch.stack([whole[0, :, 3:6], whole[1, :, 8:11]]))
    assert after["position"].tolist() == [6, 11]
    filled = FutureFill(explicit(), LONGEST, block=4)
    states = [filled.prefill(u[:1, :, :3])[1], filled.prefill(u[1:, :, :8])[1]]
    both = {name: torch.cat([state[name] for state in states]) for name in states[0]}
    with pytest.raises(ValueError, match="expected sequences at one place, got 3 to 8"):
        filled.step(u[..., 0], both)


@pytest.mark.parametrize("device", DEVICES)
def test_inputs_in_bf16_are_kept_exactly_in_half_the_memory(device):
    filter = explicit().float().to(device)
    wide, narrow = CachedConvolution(filter, LONGEST), CachedConvolution(filter, LONGEST, torch.bfloat16)
    u = torch.randn(2, CHANNELS, 20).to(device, torch.bfloat16)
    states = [recurrence.prefill(u)[1] for recurrence in (wide, narrow)]
    assert states[1]["history"].dtype == torch.bfloat16
    for t in range(8):
        y, z = (recurrence.step_(u[..., t], state) for recurrence, state in zip((wide, narrow), states, strict=True))
        assert torch.equal(y, z)


@pytest.mark.parametrize("way", ["cached", "relaxed"])
def test_what_is_trained_is_decoded(way, tmp_path):
    """Taps are made again after a step of training, a load and a move; the state dict is the filter's."""
    recurrence = WAYS[way](explicit(), 8)
    before = recurrence.taps().clone()
    with torch.no_grad():
        recurrence.filter.taps.mul_(2)
    torch.testing.assert_close(recurrence.taps(), 2 * before)
    assert recurrence.float().taps().dtype == torch.float32
    assert recurrence.bfloat16().taps().dtype == torch.float32
    assert list(recurrence.state_dict()) == ["filter.taps"]
    state_dict_travels(lambda: WAYS[way](explicit(), 8), tmp_path, lambda m: m.step(torch.ones(1, CHANNELS), m.initial_state(1))[0])
    taps_are_the_response(WAYS[way](explicit(), 64))


def test_a_step_compiles():
    recurrence = CachedConvolution(explicit(), 8)
    _, state = recurrence.prefill(torch.ones(2, CHANNELS, 3, dtype=torch.float64))
    compiles(recurrence.step, torch.ones(2, CHANNELS, dtype=torch.float64), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_of_one_step_stands_for_all():
    recurrence = CachedConvolution(explicit().float().cuda(), 4096)
    u = torch.randn(5, CHANNELS, 200, device="cuda")
    y, state = recurrence.prefill(u[..., :100])
    token = u[..., 100].clone()
    recurrence.step(token, state)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = recurrence.step_(token, state)
    outputs = []
    for t in range(100, 200):
        token.copy_(u[..., t])
        graph.replay()
        outputs.append(out.clone())
    torch.testing.assert_close(torch.cat([y, torch.stack(outputs, -1)], -1), recurrence.convolve(u), rtol=0, atol=1e-4)
    filled = FutureFill(explicit().float().cuda(), 64)
    state = filled.initial_state(1)
    with pytest.raises(ValueError, match="outside of a CUDA graph"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        filled.step_(torch.ones(1, CHANNELS, device="cuda"), state)


def test_contributions_of_any_sizes():
    rng = np.random.default_rng(3)
    for a, b in ((1, 1), (1, 7), (7, 1), (8, 8), (13, 6)):
        x, h = rng.standard_normal((2, 3, a)), rng.standard_normal((3, a + b))
        out = torch.zeros(2, 3, b, dtype=torch.float64)
        add_contribution(torch.tensor(x), torch.tensor(h), out)
        for i in range(b):
            expected = sum(h[:, a + i - s] * x[..., s] for s in range(a))
            np.testing.assert_allclose(out[..., i], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: CachedConvolution(f, 0), "max_length: expected a number of tokens, at least 1, got 0"),
        (lambda f: CachedConvolution(f, 2.5), "max_length: expected a number of tokens, at least 1, got 2.5"),
        (lambda f: CachedConvolution(f, 8, torch.int32), "dtype: expected a floating-point dtype"),
        (lambda f: FutureFill(f, 8, schedule="greedy"), "schedule: expected 'relaxed' or 'epoched', got 'greedy'"),
        (lambda f: FutureFill(f, 8, block=0), "block: expected a number of tokens, at least 1, got 0"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make(explicit())


def test_not_a_filter():
    with pytest.raises(TypeError, match="filter: expected a Filter, got Linear"):
        CachedConvolution(torch.nn.Linear(2, 2), 8)  # pyright: ignore[reportArgumentType]
