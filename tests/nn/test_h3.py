"""H3: the law, and the layer written out token by token."""

from __future__ import annotations

import pytest
import torch

from ssmid.nn import H3, ExplicitFilter, S4DFilter, convert
from tests.nn.laws import DEVICES, DTYPES, compiles, gradients_are_right, layer_laws, state_dict_travels


def run(layer: H3) -> H3:
    """The layer with a recurrence for its filter."""
    found = convert(layer.double(), lambda system, **_: system)
    assert isinstance(found, H3)
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [1, 2])
def test_laws(device, dtype, head_dim):
    layer_laws(run(H3(4, 6, head_dim=head_dim)), device, dtype)


@pytest.mark.parametrize("head_dim", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 6, 7])
def test_written_out(head_dim, length):
    """Fu et al. 2023, algorithm 1: a shift of k, the outer products with v in every head, a filter a head, contracted with q."""
    layer = H3(4, 4, head_dim=head_dim, shift=3).double()
    u = torch.randn(2, length, 4, dtype=torch.float64)
    heads, d = 4 // head_dim, head_dim
    q, k, v = layer.q_proj(u), layer.k_proj(u), layer.v_proj(u)
    shifted = torch.zeros_like(k)
    for t in range(length):
        for lag in range(min(3, t + 1)):
            shifted[:, t] += layer.shift.weight[:, 0, 2 - lag] * k[:, t - lag]
    taps, y = layer.filter(length), torch.zeros_like(q)
    for h in range(heads):
        for i in range(d):
            for j in range(d):
                product = shifted[..., h * d + i] * v[..., h * d + j]
                for t in range(length):
                    y[:, t, j * heads + h] += q[:, t, h * d + i] * sum(taps[h, t - s] * product[:, s] for s in range(t + 1))
    torch.testing.assert_close(layer(u), layer.output_linear(y))


def test_any_filter_in_its_place():
    layer = H3(2, 4, filter=ExplicitFilter(torch.tensor([[1.0], [1.0]])))
    assert layer(torch.randn(1, 5, 2)).shape == (1, 5, 2)
    with pytest.raises(ValueError, match="filter: expected 2 channels, one for each head, got 3"):
        H3(4, 4, head_dim=2, filter=ExplicitFilter(torch.ones(3, 2)))


def test_without_a_recurrence_it_says_what_to_do():
    layer = H3(2, 4)
    for call in (lambda: layer.initial_state(1), lambda: layer.prefill(torch.zeros(1, 3, 2))):
        with pytest.raises(ValueError, match="expected a H3 whose filter is a recurrence, got S4DFilter"):
            call()


def test_gradients():
    gradients_are_right(H3(2, 4, shift=2), torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True))


def test_state_dict(tmp_path):
    state_dict_travels(lambda: H3(2, 4), tmp_path, lambda layer: layer(torch.ones(1, 5, 2)))
    parts = {name.split(".")[0] for name in H3(2, 4).state_dict()}
    assert parts == {"q_proj", "k_proj", "v_proj", "output_linear", "shift", "filter"}
    assert H3(6, 8, head_dim=2, shift=3).state_dict()["shift.weight"].shape == (6, 1, 3)
    assert isinstance(H3(6, 8, head_dim=2).filter, S4DFilter)


def test_compiles():
    layer = run(H3(2, 4))
    compiles(layer.step, torch.randn(1, 2, dtype=torch.float64), layer.initial_state(1))


def test_bad_input():
    with pytest.raises(ValueError, match="head_dim: expected a divisor of the width 4, got 3"):
        H3(4, head_dim=3)
    with pytest.raises(ValueError, match=r"u: expected shape \(batch, length, 4\)"):
        H3(4, 4)(torch.zeros(1, 2, 3))
    layer = run(H3(2, 4))
    with pytest.raises(ValueError, match="state: expected tensors by name"):
        layer.step(torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2))
