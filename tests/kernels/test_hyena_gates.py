"""What surrounds Hyena's long convolution: against a loop over the definition; without a GPU the interpreter runs the kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmid.kernels import hyena_gates
from ssmid.kernels.hyena_gates import gated_streams, product_channels_last
from tests.kernels.interpreter import run_interpreted

SIZES = [(1, 1, 1), (2, 3, 2), (3, 2, 3), (2, 5, 64), (2, 3, 65), (1, 2, 1500)]
OPTIONS = [(1, 1, 1, 1), (0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0), (1, 1, 0, 0)]
"""Whether there is an offset, a bias, a history, a mask."""
TOLERANCES = [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2**-8)]


def given(size, options, dtype, device="cpu", taps=3):
    """Arguments; what the mask leaves out is NaN."""
    draw = torch.Generator().manual_seed(size[-1])
    batch, channels, length = size
    shapes = (batch, 3 * channels, length), (3 * channels,), (3 * channels, taps), (3 * channels,), (batch, 3 * channels, taps - 1)
    projected, offset, weight, bias, history = (torch.randn(s, generator=draw, dtype=torch.float64).to(device, dtype) for s in shapes)
    mask = (torch.rand(batch, length, generator=draw) < 0.7).to(device)
    offset, bias, history, mask = (x if wanted else None for x, wanted in zip((offset, bias, history, mask), options, strict=True))
    return (projected if mask is None else projected.masked_fill(~mask[:, None], torch.nan)), offset, weight, bias, history, mask


def by_definition(projected, offset, weight, bias, history, mask):
    """In float64, sample by sample, of all rows at once."""
    p, o, w, b, h = (None if x is None else x.double().cpu().numpy() for x in (projected, offset, weight, bias, history))
    batch, rows, length = p.shape
    kept = np.ones((batch, length), bool) if mask is None else mask.cpu().numpy()
    u = np.where(kept[:, None], p + (0 if o is None else o[:, None]), 0)
    taps, third = w.shape[-1], rows // 3
    whole = np.concatenate([np.zeros((batch, rows, taps - 1)) if h is None else h, u], -1)
    streams = np.empty_like(u)
    for t in range(length):
        streams[..., t] = (whole[..., t : t + taps] * w).sum(-1) + (0 if b is None else b)
    product = np.where(kept[:, None], streams[:, third : 2 * third] * streams[:, 2 * third :], 0)
    return streams[:, :third], product, whole[..., whole.shape[-1] - taps + 1 :]


def worst(dtype, device, options=OPTIONS, sizes=SIZES, taps=3) -> float:
    """The largest error of a result, of its largest number."""
    found = []
    for size in sizes:
        for chosen in options:
            arguments = given(size, chosen, dtype, device, taps)
            for one, exact in zip(gated_streams(*arguments), by_definition(*arguments), strict=True):
                assert one.dtype == dtype
                found.append(float(np.abs(one.double().cpu().numpy() - exact).max(initial=0) / np.abs(exact).max(initial=1e-30)))
        x, y = (torch.randn(size, generator=torch.Generator().manual_seed(i)).to(device, dtype) for i in (1, 2))
        turned, exact = product_channels_last(x, y), (x.double() * y.double()).transpose(1, 2)
        assert turned.dtype == dtype
        found.append(float((turned.double() - exact).abs().max() / exact.abs().max()))
    return max(found)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("taps", [1, 3, 4])
def test_plain(dtype, tolerance, taps):
    assert worst(dtype, "cpu", taps=taps) <= tolerance


def test_no_tokens_leave_the_history_as_it_was():
    projected, offset, weight, bias, history, _ = given((2, 3, 0), (1, 1, 1, 0), torch.float32)
    gate, product, last = gated_streams(projected, offset, weight, bias, history)
    assert gate.shape == product.shape == (2, 3, 0)
    assert torch.equal(last, history)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [*TOLERANCES, (torch.float16, 2**-10)])
def test_kernels(dtype, tolerance):
    assert worst(dtype, "cuda", sizes=[*SIZES, (2, 65, 513), (4, 128, 1024)]) <= tolerance


def interpreted() -> float:
    hyena_gates.fused = lambda *_: True
    return worst(torch.float32, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels themselves are tested")
def test_kernels_interpreted():
    run_interpreted("from tests.kernels.test_hyena_gates import interpreted; worst = interpreted(); assert worst < 1e-6, worst")
