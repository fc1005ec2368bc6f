"""Parts of the stack of filter layers that no task's training tells apart."""

from __future__ import annotations

import pytest
import torch

from ssmid.experiments.models import _FEW, _Tokens


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
