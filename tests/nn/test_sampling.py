"""Tokens drawn by the laws that their arguments name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssmid.nn.sampling import Sampling, choose, keys, most_probable, uniform
from tests.nn.laws import DEVICES

INFINITY = math.inf


def probabilities(logits: list[float], dtype=torch.float64, **settings) -> list[float]:
    kept, tokens, _ = most_probable(torch.tensor([logits], dtype=dtype), Sampling(**settings))
    found = torch.softmax(kept, -1)
    return (found if tokens is None else torch.zeros(1, len(logits), dtype=found.dtype).scatter(1, tokens, found))[0].tolist()


def by_definition(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Sorted by hand: the k largest, of these the fewest whose probabilities reach top_p."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:top_k]
    weights = [math.exp((logits[i] - max(logits)) / temperature) for i in order]
    total, kept, mass = sum(weights), [], 0.0
    for i, weight in zip(order, weights, strict=True):
        if mass >= top_p:
            break
        kept.append(i)
        mass += weight / total
    norm = sum(weights[: len(kept)])
    return [weights[order.index(i)] / norm if i in kept else 0.0 for i in range(len(logits))]


@settings(max_examples=40, deadline=None)
@given(
    logits=st.lists(st.floats(-8, 8).map(lambda x: round(x, 1)), min_size=1, max_size=12),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.integers(1, 14),
    top_p=st.sampled_from([0.1234567, 0.5432101, 0.9012345, 1.0]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_probabilities_are_those_of_the_definition(logits, temperature, top_k, top_p, dtype):
    found = probabilities(logits, dtype, temperature=temperature, top_k=top_k, top_p=top_p)
    assert found == pytest.approx(by_definition(logits, temperature, top_k, top_p), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_of_equal_logits_the_lowest_tokens_are_kept(dtype):
    assert probabilities([1.0, 2.0, 1.0, 1.0], dtype, top_k=3) == pytest.approx(by_definition([1.0, 2.0, 1.0, 1.0], 1, 3, 1))
    assert probabilities([0.0] * 8, dtype, top_p=0.5)[:4] == pytest.approx([0.25] * 4)
    assert probabilities([0.0, -0.0] * 4, dtype, top_k=3) == pytest.approx([1 / 3] * 3 + [0.0] * 5)


def test_bf16_logits_are_taken_as_they_are_and_not_rounded_again():
    logits = torch.tensor([40.0, 0.1234, 3.456, 7.891, -0.0123]).to(torch.bfloat16).tolist()
    for top_k in (None, 4):
        found, expected = (probabilities(logits, dtype, temperature=30.0, top_k=top_k) for dtype in (torch.bfloat16, torch.float32))
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_selection_finds_what_sorting_finds():
    row = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).float()
    row[:, ::7] = -INFINITY
    for sampling in (Sampling(top_k=900), Sampling(0.4, 900, 0.95)):
        selected, sorted_ = most_probable(row, sampling), most_probable(row.double(), sampling)
        assert torch.equal(selected[1], sorted_[1])
        torch.testing.assert_close(selected[0].double(), sorted_[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.5), Sampling(top_k=4), Sampling(1.7, top_p=0.8), Sampling(0.8, 6, 0.7)])
def test_draws_follow_their_probabilities(device, sampling):
    logits = [0.3, -1.0, 2.0, 0.0, 1.5, -0.4, 0.9, -3.0]
    draws = 20_000
    row = torch.tensor(logits, device=device).expand(draws, -1)
    numbers = uniform(keys(3, draws, device), torch.full((draws,), 5, device=device))
    counts = torch.bincount(choose(row, sampling, numbers)[0].cpu(), minlength=8).double().numpy()
    expected = draws * np.array(by_definition(logits, sampling.temperature, sampling.top_k or 8, sampling.top_p or 1.0))
    assert (counts[expected == 0] == 0).all()
    assert stats.chisquare(counts[expected > 0], expected[expected > 0] * counts.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("device", DEVICES)
def test_greedy_takes_the_largest_and_the_lowest_of_several(device):
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0], [-1.0, -2.0, -INFINITY, -4.0]], device=device)
    for sampling in (Sampling(temperature=0), Sampling(top_k=1)):
        assert choose(logits, sampling)[0].tolist() == [1, 0]


def test_the_numbers_are_those_of_the_published_generator():
    """SplitMix64 from 1234567, as widely reproduced; here its five first outputs, of which 53 bits are kept."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    found = uniform(torch.tensor([1234567]), torch.arange(5))
    assert found.dtype == torch.float64
    assert found.tolist() == [(value >> 11) * 2.0**-53 for value in published]


def test_numbers_are_uniform_along_streams_across_them_and_across_seeds():
    along = uniform(keys(11, 1), torch.arange(20_000))
    across = uniform(keys(11, 20_000), torch.zeros(20_000, dtype=torch.int64))
    seeds = uniform(keys(list(range(20_000)), 20_000), torch.tensor(3))
    for numbers in (along, across, seeds):
        assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-3
        assert abs(float(torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([along, across]))[0, 1])) < 0.03


def test_a_seed_for_each_sequence_is_its_own_alone():
    assert keys([5, -9, 2**63], 3).tolist() == [int(keys(seed, 1)) for seed in (5, -9, 2**63)]
    torch.manual_seed(0)
    first = keys(None, 2)
    torch.manual_seed(0)
    assert torch.equal(first, keys(None, 2))
    assert not torch.equal(first, keys(None, 2))
    with pytest.raises(ValueError, match="seed: expected one integer, or one for each of 2 sequences, got 3"):
        keys([1, 2, 3], 2)


def test_the_ends_of_the_unit_interval_stay_inside_the_vocabulary():
    logits = torch.tensor([[-INFINITY, 0.0, 1.0, -INFINITY]]).expand(2, -1)
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert choose(logits, Sampling(), ends)[0].tolist() == [1, 2]


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(), Sampling(top_k=2), Sampling(top_p=0.5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_nan_logits_are_seen_and_leave_the_others_alone(sampling, dtype):
    logits = torch.tensor([[0.0, math.nan, 1.0], [0.0, 9.0, 1.0]], dtype=dtype)
    token, largest = choose(logits, sampling, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert largest.isnan().tolist() == [True, False]
    assert int(token[1]) == 1
    assert 0 <= int(token[0]) < 3


def test_logits_and_temperatures_of_any_scale():
    logits = torch.tensor([[1e300, -1e300, 1e300]], dtype=torch.float64)
    assert torch.softmax(most_probable(logits, Sampling(1e-300))[0], -1).tolist() == [[0.5, 0.0, 0.5]]
    assert torch.softmax(most_probable(logits * 1e-300, Sampling(1e300))[0], -1)[0].tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -0.5}, "temperature: expected a finite number >= 0, got -0.5"),
        ({"temperature": math.nan}, "temperature: expected a finite number >= 0, got nan"),
        ({"top_k": 0}, "top_k: expected a whole number >= 1, got 0"),
        ({"top_k": 1.5}, "top_k: expected a whole number >= 1, got 1.5"),
        ({"top_p": 0.0}, r"top_p: expected a number in \(0, 1\], got 0.0"),
        ({"top_p": 1.01}, r"top_p: expected a number in \(0, 1\], got 1.01"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**wrong)
