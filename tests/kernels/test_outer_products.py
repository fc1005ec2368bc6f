"""What surrounds MultiHyena's long convolutions: against a loop over heads and rows; without a GPU the interpreter runs the kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmid.kernels import outer_products as module
from ssmid.kernels.outer_products import contracted, outer_products
from tests.kernels.interpreter import run_interpreted

SIZES = [(1, 1, 1, 1), (2, 3, 2, 5), (1, 2, 4, 65), (2, 1, 3, 1500)]
"""Batch, heads, rows of a head, length."""
TOLERANCES = [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2**-6)]


def worst(dtype, device) -> float:
    """The largest error of a result, of its largest number; streams are parts of one array, as in the layer."""
    found = []
    for size in SIZES:
        batch, heads, n, length = size
        draw = torch.Generator().manual_seed(length)
        streams = torch.randn((batch, 3 * heads * n, length), generator=draw, dtype=torch.float64).to(device, dtype)
        q, k, v = (x.unflatten(1, (heads, n)) for x in streams.split(heads * n, dim=1))
        a, b, c = (x.double().cpu().numpy() for x in (q, k, v))
        for rows in (slice(0, n), slice(0, 1), slice(n - 1, n)):
            z = outer_products(k, v, rows)
            exact = np.stack([[b[:, :, r] * c[:, :, j] for j in range(n)] for r in range(rows.start, rows.stop)])
            found.append(error(z, exact.transpose(2, 0, 1, 3, 4), dtype))
            filtered = torch.randn(z.shape, generator=draw, dtype=torch.float64).to(device, dtype)
            f = filtered.double().cpu().numpy()
            exact = np.stack([sum(a[:, :, rows.start + r] * f[:, r, j] for r in range(f.shape[1])) for j in range(n)], 2)
            y = contracted(q, filtered, rows)
            found.append(error(y, exact, dtype))
            found.append(error(contracted(q, filtered, rows, (2 * k).contiguous()), exact + 2 * b, dtype))
    return max(found)


def error(found, exact, dtype) -> float:
    assert found.dtype == dtype
    assert tuple(found.shape) == exact.shape
    return float(np.abs(found.double().cpu().numpy() - exact).max() / np.abs(exact).max())


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_plain(dtype, tolerance):
    assert worst(dtype, "cpu") <= tolerance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_kernels(dtype, tolerance):
    assert worst(dtype, "cuda") <= tolerance


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA"))])
def test_nothing(device):
    q = torch.zeros(2, 3, 2, 0, device=device)
    z = outer_products(q, q, slice(0, 2))
    assert z.shape == (2, 2, 2, 3, 0)
    assert contracted(q, z, slice(0, 2)).shape == q.shape


def interpreted() -> float:
    module.fused = lambda *_: True
    return worst(torch.float32, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels themselves are tested")
def test_kernels_interpreted():
    run_interpreted("from tests.kernels.test_outer_products import interpreted; worst = interpreted(); assert worst < 1e-6, worst")
