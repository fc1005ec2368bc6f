"""The implicit filter against its formula written out position by position."""

from __future__ import annotations

from cmath import exp as cexp
from math import exp, log, pi, sin
from pathlib import Path

import numpy as np
import pytest
import torch

import ssmid
from ssmid.nn import HyenaFilter
from tests.nn.laws import compiles, gradients_are_right, state_dict_travels, taps_are_the_response


def by_formula(filter: HyenaFilter, n: int, length: int, embedding: int, shift: float) -> list[float]:
    """Tap n of every channel (Poli et al. 2023, section 3.3)."""
    bands = (embedding - 1) // 2
    frequencies = [1e-4 + i * (bands - 1 - 1e-4) / max(bands - 1, 1) for i in range(bands)]
    turns = [cexp(-1j * f * 2 * pi * n / length) for f in frequencies]
    h = [n / (length - 1), *(x.real for x in turns), *(x.imag for x in turns)]
    state = {name: tensor.tolist() for name, tensor in filter.state_dict().items()}
    frequency = state["implicit_filter.1.freq"][0]
    for layer in (0, 2, 4):
        W, b = state[f"implicit_filter.{layer}.weight"], state[f"implicit_filter.{layer}.bias"]
        h = [sin(f * (sum(w * x for w, x in zip(row, h, strict=True)) + c)) for f, row, c in zip(frequency, W, b, strict=True)]
    taps = []
    for c, row in enumerate(state["implicit_filter.6.weight"]):
        slow, fast = log(0.01) / 1.5, log(0.01) / 0.3
        delta = slow + c * (fast - slow) / (filter.channels - 1)
        taps.append(sum(w * x for w, x in zip(row, h, strict=True)) * (exp(-n / (length - 1) * abs(delta)) + shift))
    return [tap + (bypass if n == 0 else 0) for tap, bypass in zip(taps, state["bias"], strict=True)]


@pytest.mark.parametrize(("embedding", "shift"), [(3, 0.0), (9, 0.05)])
def test_formula(embedding: int, shift: float) -> None:
    filter = HyenaFilter(3, 12, embedding=embedding, hidden=6, shift=shift).double()
    expected = np.array([by_formula(filter, n, 12, embedding, shift) for n in range(12)]).T
    np.testing.assert_allclose(filter(12).detach().numpy(), expected, atol=2e-5)
    assert np.abs(expected[:, 1:]).max() > 0.05
    assert not filter(20)[:, 12:].any()


def test_single_precision_is_enough() -> None:
    """The tolerance of layers in float32; sines of frequency 14, three of them, raise rounding 300 times."""
    filter = HyenaFilter(16, 500)
    exact = filter.double()(500).detach()
    single = filter.float()(500).detach()
    assert single.dtype == torch.float32
    error = float(torch.linalg.vector_norm(single - exact) / torch.linalg.vector_norm(exact))
    assert 1e-8 < error <= 1e-4


def test_the_response_of_its_system() -> None:
    taps_are_the_response(HyenaFilter(3, 24, hidden=8))


def test_gradients_and_compiler(tmp_path: Path) -> None:
    filter = HyenaFilter(3, 8, embedding=5, hidden=4, inner_layers=1)
    gradients_are_right(filter, function=lambda module: module(6))
    compiles(lambda: filter(6), dtype=torch.float32)
    state_dict_travels(lambda: HyenaFilter(3, 8, hidden=4), tmp_path, lambda filter: filter(8))


def test_what_is_trained() -> None:
    trained = {name for name, _ in HyenaFilter(2, 8).named_parameters()}
    assert {"pos_emb.z", "bias", "implicit_filter.1.freq"} < trained
    assert "modulation.deltas" not in trained
    assert "pos_emb.z" not in {name for name, _ in HyenaFilter(2, 8, trained_positions=False).named_parameters()}


def test_copies_of_the_frequency_in_public_checkpoints_are_passed_over() -> None:
    filter = HyenaFilter(2, 8, hidden=4)
    state = filter.state_dict()
    state |= {f"implicit_filter.{i}.freq": state["implicit_filter.1.freq"] for i in (3, 5)}
    HyenaFilter(2, 8, hidden=4).load_state_dict(state)


def test_distilled() -> None:
    """What :func:`ssmid.distill` takes: a bank of taps, detached."""
    system = HyenaFilter(2, 64, hidden=8).system()
    assert system.batch_shape == (2,)
    assert not system.taps.requires_grad
    assert ssmid.distill(system, order=4).system.batch_shape == (2,)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="size: expected an odd number of at least 3"):
        HyenaFilter(2, 8, embedding=4)
    with pytest.raises(ValueError, match="length: expected at least 1, got 0"):
        HyenaFilter(2, 0)
    with pytest.raises(ValueError, match="inner_layers: expected at least 0, got -1"):
        HyenaFilter(2, 8, inner_layers=-1)
