"""Parts of the stack of filter layers that no task's training tells apart."""

from __future__ import annotations

import pytest
import torch

from ssmid.experiments.models import _FEW, _Tokens, model_of
from tests.experiments.toy_tasks import MODEL, Toy


@pytest.mark.parametrize("mixing", ["glu", "gelu", "none"])
def test_dropout_takes_whole_channels_of_a_sequence_and_nothing_at_inference(mixing):
    torch.manual_seed(0)
    mix = model_of(Toy(), {**MODEL, "width": 64, "mixing": mixing, "dropout": 0.25}).blocks[0].mix[-1]
    u = torch.ones(40, 7, 64)
    scale = mix(u)
    assert torch.equal(scale, scale[:, :1].expand_as(u)), "of all positions alike"
    assert scale.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    dropped = (scale[:, 0] == 0).double()
    assert 0.2 < dropped.mean() < 0.3
    assert dropped.std(0).min() > 0, "of every sequence others"
    assert torch.equal(mix.eval()(u), u)


@pytest.mark.parametrize("vocabulary", [1, 17, _FEW, _FEW + 1])
@pytest.mark.parametrize("bf16", [False, True])
def test_tokens_are_looked_up_and_their_gradients_added_up(vocabulary, bf16):
    torch.manual_seed(vocabulary)
    tokens, given = torch.randint(vocabulary, (3, 50)), torch.randn(3, 50, 5)
    few, plain = _Tokens(vocabulary, 5), torch.nn.Embedding(vocabulary, 5)
    few.load_state_dict(plain.state_dict())
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found, expected = few(tokens), plain(tokens)
    assert torch.equal(found, expected)
    assert found.dtype == expected.dtype
    (found * given).sum().backward()
    (expected * given).sum().backward()
    torch.testing.assert_close(few.weight.grad, plain.weight.grad, rtol=1e-5, atol=1e-5)
