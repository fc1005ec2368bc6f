"""The fused convolution against the plain one, on the device; and its plan, which any machine can look at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import pytest
import torch

from ssmid.kernels import fft_convolution
from ssmid.kernels.cuda import has_clusters
from ssmid.kernels.fft_convolution import _Plan, fused_convolution
from ssmid.nn import long_convolution
from ssmid.nn.convolution import correlated, filtered

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LENGTHS = [1, 2, 31, 32, 33, 64, 100, 128, 250, 500, 512, 1024, 1500, 2048, 4096, 5000, 8192, 10000, 16384, 65536, 131072]


def signals(batch: int, channels: int, length: int, taps: int, dtype: torch.dtype = torch.float32, sides: int = 1):
    generator = torch.Generator("cuda").manual_seed(length)
    u, dy = (torch.randn(batch, channels, length, device="cuda", generator=generator).to(dtype) for _ in range(2))
    fading = torch.exp(-3 * torch.arange(taps, device="cuda") / length)
    return u, torch.randn(sides, channels, taps, device="cuda", generator=generator) * fading, dy


def relative(found, exact) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("clusters", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_plan_holds_the_row_and_fits_the_chip(length, clusters):
    plan = _Plan.of(length, clusters)
    assert not plan.cluster or (clusters and 2 <= plan.radix <= 8)  # the most blocks of a cluster on any device that has them
    assert 2 * length <= plan.total <= max(4 * length, 64)
    assert plan.radix in (1, 2, 4, 8, 16)
    assert 64 <= plan.points <= 16384
    groups, threads = plan._groups, plan._threads
    assert 128 <= groups * threads <= 1024
    assert plan.fits(227 * 1024)  # Hopper's
    assert plan.fits(99 * 1024) == (plan.points <= 4096)  # that of graphics cards


def test_slabs_are_all_channels_once_and_stay_small():
    u = torch.empty(16, 256, 65536, device="meta")
    for streams in (1, 2):
        slabs = _Plan.of(65536).slabs(u, streams)
        assert [first for first, _ in slabs] == [sum(count for _, count in slabs[:i]) for i in range(len(slabs))]
        assert sum(count for _, count in slabs) == 256
        rows = max(count for _, count in slabs) * streams * 9 * 131072 * 8
        assert rows <= u.numel() * 4 * (streams + 1) / 10


def test_only_narrow_numbers_on_a_gpu_are_taken():
    assert not fused_convolution(torch.ones(1, 1, 8))
    assert "__global__" in files("ssmid.kernels").joinpath("fft_convolution.cu").read_text()


@on_gpu
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("clusters", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_convolution_and_gradients(length, clusters, sides, monkeypatch):
    device = torch.device("cuda", torch.cuda.current_device())
    if clusters and not has_clusters(device):
        pytest.skip("needs clusters")
    monkeypatch.setattr(fft_convolution, "has_clusters", lambda device: clusters)
    u, taps, dy = signals(3, 5, length, length, sides=sides)
    assert fused_convolution(u)
    wide = [x.double() for x in (u, taps, dy)]
    assert relative(fft_convolution.convolve(u, taps), filtered(wide[0], wide[1], 0, adjoint=False)) < 2e-6
    exact = filtered(wide[2], wide[1], 0, adjoint=True)
    assert relative(fft_convolution.convolve(dy, taps, adjoint=True), exact) < 2e-6
    du, dtaps = fft_convolution.convolve_backward(u, taps, dy)
    assert relative(du, exact) < 2e-6
    assert relative(dtaps, correlated(wide[0], wide[2], wide[1], 0)) < 2e-6


@on_gpu
@pytest.mark.parametrize(("batch", "channels", "length", "taps"), [
    (1, 1, 77, 5), (33, 3, 60, 60), (5, 300, 100, 7), (70, 2, 2048, 2048), (2, 40, 12000, 300),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sides", [1, 2])
def test_batches_and_dtypes(batch, channels, length, taps, dtype, sides):
    u, h, dy = signals(batch, channels, length, taps, dtype, sides)
    width = {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 6e-4}[dtype]
    assert relative(fft_convolution.convolve(u, h), filtered(u.double(), h.double(), 0, adjoint=False)) < width
    du, dtaps = fft_convolution.convolve_backward(u, h, dy)
    assert du.dtype == dtype
    assert relative(du, filtered(dy.double(), h.double(), 0, adjoint=True)) < width
    assert relative(dtaps, correlated(u.double(), dy.double(), h.double(), 0)) < 2e-6


@on_gpu
@pytest.mark.parametrize(("length", "times"), [(2048, 1.1), (16384, 1.1), (65536, 1.1)])
def test_memory_of_forward_and_backward(length, times):
    """Beside the input nothing but outputs and at most a tenth of it all: spectra are never whole."""
    batch, channels = 16, 256
    u, taps, dy = signals(batch, channels, length, length)
    u.requires_grad_(), taps.requires_grad_()
    row = u.numel() * 4
    torch.autograd.grad(long_convolution(u, *taps), (u, taps), dy)  # what is made once
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = long_convolution(u, *taps)
    forward = torch.cuda.max_memory_allocated() - before
    torch.autograd.grad(y, (u, taps), dy)
    both = torch.cuda.max_memory_allocated() - before
    assert row + forward <= times * 2 * row + taps.numel() * 16
    assert 2 * row + both <= times * 4 * row + taps.numel() * 24


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "channels", "length"), [(1, 1, 1), (2, 3, 70), (3, 130, 65), (2, 64, 128), (2, 70, 9000)])
def test_channels_next_to_each_other(batch, channels, length, dtype):
    u, taps, dy = signals(batch, channels, length, length, dtype)
    turned = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in (u, dy)]
    assert torch.equal(fft_convolution.convolve(turned[0], taps), fft_convolution.convolve(u, taps))
    found, expected = fft_convolution.convolve_backward(turned[0], taps, turned[1]), fft_convolution.convolve_backward(u, taps, dy)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@on_gpu
def test_runs_in_a_thread_that_has_used_no_gpu():
    """As autograd's are, when nothing of torch has run there."""
    u, taps, _ = signals(2, 3, 50, 50)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(fft_convolution.convolve, u, taps).result()
    torch.testing.assert_close(found, fft_convolution.convolve(u, taps))


@on_gpu
def test_goes_into_a_graph():
    u, taps, dy = signals(4, 8, 700, 700)
    u.requires_grad_(), taps.requires_grad_()
    expected = torch.autograd.grad(long_convolution(u, *taps), (u, taps), dy)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.autograd.grad(long_convolution(u, *taps), (u, taps), dy)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = torch.autograd.grad(long_convolution(u, *taps), (u, taps), dy)
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
