"""A sum and its layer norm beside torch's; without a GPU the interpreter runs the kernel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmid.kernels import add_norm as module
from ssmid.kernels.add_norm import add_norm
from tests.kernels.interpreter import run_interpreted

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))]
SHAPES = [(1, 1), (5,), (2, 3, 5), (3, 64), (2, 1000), (2, 2048), (0, 8)]


def worst(dtype, device) -> float:
    """The largest error of a norm; sums are exact."""
    found = [0.0]
    for shape in SHAPES:
        draw = torch.Generator().manual_seed(len(shape))
        u, y = (torch.randn(shape, generator=draw, dtype=torch.float64).to(device, dtype) for _ in range(2))
        y = y + 10
        weight, bias = (torch.randn(shape[-1], generator=draw, dtype=torch.float64).to(device, dtype) for _ in range(2))
        total, normed = add_norm(u, y, weight, bias, 1e-5)
        exact = torch.nn.functional.layer_norm((u + y).double(), shape[-1:], weight.double(), bias.double())
        assert total.dtype == normed.dtype == dtype
        assert total.shape == normed.shape == u.shape
        assert torch.equal(total, u + y)
        for over in ({"over_u": True}, {"over_u": True, "over_y": True}):
            first, second = u.clone(), y.clone()
            again = add_norm(first, second, weight, bias, 1e-5, **over)
            assert torch.equal(again[0], total)
            assert torch.equal(again[1], normed)
            assert "over_y" in over or torch.equal(second, y)
        if u.numel():
            found.append(float((normed.double() - exact).abs().max() / exact.abs().max()))
    return max(found)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 3e-6), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("device", DEVICES)
def test_sum_and_norm(dtype, tolerance, device):
    assert worst(dtype, device) <= tolerance


def test_plain_over_other_arrays():
    u, y = np.random.default_rng(0).standard_normal((2, 4, 7))
    total, normed = add_norm(u, y, np.ones(7), np.zeros(7), 0.0)
    np.testing.assert_array_equal(total, u + y)
    np.testing.assert_allclose(normed, (total - total.mean(-1, keepdims=True)) / total.std(-1, keepdims=True), rtol=1e-12)


def interpreted() -> float:
    module.fused = lambda *_: True
    return worst(torch.float32, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel itself is tested")
def test_kernel_interpreted():
    run_interpreted("from tests.kernels.test_add_norm import interpreted; worst = interpreted(); assert worst < 3e-6, worst")
