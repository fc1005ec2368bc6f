"""The long convolution: what it computes, what it keeps, its gradient; on the device the kernels are what runs below float64."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmid.kernels import cuda, fft_convolution
from ssmid.kernels.cuda import CannotCompile
from ssmid.nn import convolution, long_convolution
from tests.nn.laws import DEVICES

NARROW = {torch.float32: 3e-6, torch.bfloat16: 6e-3, torch.float16: 8e-4}


def signals(batch: tuple[int, ...], channels: int, length: int, taps: int, device: str = "cpu", dtype: torch.dtype = torch.float64):
    rng = np.random.default_rng(length + 1000 * taps)
    u = torch.asarray(rng.standard_normal((*batch, channels, length)), device=device).to(dtype)
    h = torch.asarray(rng.standard_normal((channels, taps)) * 0.99 ** np.arange(taps), device=device)
    return u, h if dtype == torch.float64 else h.float()


def convolved(u: torch.Tensor, taps: torch.Tensor) -> np.ndarray:
    """One row at a time by NumPy, without FFT."""
    rows, filters = u.detach().double().cpu().numpy(), taps.detach().double().cpu().numpy()
    flat = [
        [np.convolve(x, h)[: rows.shape[-1]] for x, h in zip(row, filters, strict=True)] for row in rows.reshape(-1, *rows.shape[-2:])
    ]
    return np.array(flat).reshape(rows.shape)


def relative(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found.detach().double().cpu().numpy() - expected) / max(np.linalg.norm(expected), 1e-300))


shapes = {
    "batch": st.lists(st.integers(1, 3), max_size=2).map(tuple),
    "channels": st.integers(1, 3),
    "length": st.integers(1, 70),
    "taps": st.integers(1, 90),
}


@given(**shapes, chunk=st.none() | st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_it_is_the_convolution_in_whole_and_in_chunks(batch, channels, length, taps, chunk):
    u, h = signals(batch, channels, length, taps)
    y = long_convolution(u, h, chunk=chunk)
    assert y.shape == u.shape
    assert y.dtype == u.dtype
    assert relative(y, convolved(u, h)) < 1e-12


@given(**shapes, chunk=st.none() | st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_taps_of_the_future_run_against_time(batch, channels, length, taps, chunk):
    u, h = signals(batch, channels, length, taps)
    g = torch.flip(h, (0,)) + 0.5
    y = long_convolution(u, h, g, chunk=chunk)
    assert y.shape == u.shape
    assert relative(y, convolved(u, h) + convolved(u.flip(-1), g)[..., ::-1]) < 1e-12


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("length", "taps"), [(1, 1), (33, 64), (2048, 2048), (20000, 300)])
def test_past_and_future_of_narrow_numbers(device, dtype, length, taps):
    """As two convolutions are, of which one runs on the signal turned around; so are the gradients."""
    u, h = signals((3,), 2, length, taps, device, dtype)
    both = [x.requires_grad_() for x in (u, h, torch.flip(h, (0,)) - 0.1 * h)]
    y = long_convolution(*both)
    wide = [x.detach().double().requires_grad_() for x in both]
    expected = long_convolution(wide[0], wide[1]) + long_convolution(wide[0].flip(-1), wide[2]).flip(-1)
    assert relative(y, expected.detach().cpu().numpy()) < NARROW[dtype]
    dy = torch.flip(u.detach(), (1,)).contiguous()
    found, exact = torch.autograd.grad(y, both, dy), torch.autograd.grad(expected, wide, dy.double())
    for gradient, other, width in zip(found, exact, (NARROW[dtype], 3e-6, 3e-6), strict=True):
        assert relative(gradient, other.cpu().numpy()) < width


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("length", "taps"), [(1, 1), (33, 64), (257, 100), (2048, 2048)])
def test_narrow_numbers_are_summed_wide(device, dtype, length, taps):
    u, h = signals((3,), 2, length, taps, device, dtype)
    y = long_convolution(u, h)
    assert (y.dtype, y.device, y.shape) == (u.dtype, u.device, u.shape)
    # as good as the one rounding of the result
    assert relative(y, convolved(u, h)) < NARROW[dtype]


@pytest.mark.parametrize("device", DEVICES)
def test_laws_of_convolution(device):
    u, h = signals((2,), 3, 50, 50, device, torch.float32)
    v = torch.flip(u, (-1,)).contiguous()
    y = long_convolution(u, h)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(long_convolution(2 * u - 3 * v, h), 2 * y - 3 * long_convolution(v, h), **close)
    torch.testing.assert_close(long_convolution(u, 2 * h), 2 * y, **close)
    # causal: what comes later changes nothing before; a shift in, a shift out
    later = u.clone()
    later[..., 30:] = 7.0
    torch.testing.assert_close(long_convolution(later, h)[..., :30], y[..., :30], **close)
    torch.testing.assert_close(long_convolution(torch.nn.functional.pad(u, (9, 0))[..., :50], h)[..., 9:], y[..., :41], **close)
    # the rows of a pair do not see each other
    alone = torch.zeros_like(u)
    alone[0] = u[0]
    out = long_convolution(alone, h)
    torch.testing.assert_close(out[0], y[0], **close)
    assert float(out[1].abs().max()) < 1e-5
    # a batch is its rows
    torch.testing.assert_close(torch.stack([long_convolution(row, h) for row in u]), y, **close)


def test_any_strides_and_leading_axes():
    u, h = signals((2, 3), 4, 21, 21)
    y = long_convolution(u, h)
    turned = u.transpose(-1, -2).contiguous().transpose(-1, -2)
    torch.testing.assert_close(long_convolution(turned, h), y)
    torch.testing.assert_close(long_convolution(u[0, 0], h), y[0, 0])
    torch.testing.assert_close(long_convolution(u, h.t().contiguous().t()), y)


@pytest.mark.parametrize("shape", [(0, 2, 5), (3, 2, 0), (3, 0, 5)])
def test_nothing_in_nothing_out(shape):
    u, h = torch.ones(shape, requires_grad=True), torch.ones(shape[1], 4, requires_grad=True)
    y = long_convolution(u, h)
    assert y.shape == shape
    y.sum().backward()
    assert u.grad is not None
    assert not h.grad.any()


def test_no_taps_are_a_filter_of_zero():
    assert not long_convolution(torch.ones(2, 3, 4), torch.ones(3, 0)).any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("batch", "length", "taps", "chunk"), [
    ((3,), 1, 1, None), ((), 8, 3, None), ((2, 2), 7, 12, None), ((2,), 9, 9, 2), ((2,), 9, 5, 4), ((1,), 6, 2, 5),
])  # fmt: skip
def test_gradient(device, batch, length, taps, chunk):
    u, h = (x.requires_grad_() for x in signals(batch, 2, length, taps, device))

    def function(u, h):
        return long_convolution(u, h, chunk=chunk)

    assert torch.autograd.gradcheck(function, (u, h))
    assert torch.autograd.gradgradcheck(function, (u, h))

    def both(u, h):
        return long_convolution(u, h, h.flip(0).square(), chunk=chunk)

    assert torch.autograd.gradcheck(both, (u, h))
    assert torch.autograd.gradgradcheck(both, (u, h))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("batch", "length", "taps"), [((1,), 40, 40), ((5,), 300, 77), ((2, 2), 64, 100)])
def test_gradient_of_narrow_numbers(device, dtype, batch, length, taps):
    u, h = (x.requires_grad_() for x in signals(batch, 3, length, taps, device, dtype))
    dy = torch.flip(u.detach(), (-1,)).contiguous()
    found = torch.autograd.grad(long_convolution(u, h), (u, h), dy)
    wide = [x.detach().double().requires_grad_() for x in (u, h)]
    expected = torch.autograd.grad(long_convolution(*wide), wide, dy.double())
    assert [g.dtype for g in found] == [dtype, torch.float32]
    assert relative(found[0], expected[0].cpu().numpy()) < NARROW[dtype]
    assert relative(found[1], expected[1].cpu().numpy()) < 3e-6
    # and each alone
    torch.testing.assert_close(torch.autograd.grad(long_convolution(u, h.detach()), u, dy)[0], found[0], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(torch.autograd.grad(long_convolution(u.detach(), h), h, dy)[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_signal_and_taps_are_all_that_is_kept(device):
    u, h = (x.requires_grad_() for x in signals((4,), 2, 64, 64, device, torch.float32))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        long_convolution(u, h)
        assert {x.data_ptr() for x in kept} == {u.data_ptr(), h.data_ptr()}
        kept.clear()
        with torch.no_grad():
            assert not long_convolution(u, h).requires_grad
        assert not kept


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_whole(device):
    u, h = (x.requires_grad_() for x in signals((2,), 3, 16, 5, device, torch.float32))

    def function(u, h):
        return torch.sin(long_convolution(u, h)).sum()

    expected = torch.autograd.grad(function(u, h), (u, h))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for found, other in zip(torch.autograd.grad(compiled(u, h), (u, h)), expected, strict=True):
        torch.testing.assert_close(found, other)
    u, h = u.detach(), h.detach()
    for chunk, taps in ((0, h[None]), (4, h[None]), (0, torch.stack([h, -h])), (4, torch.stack([h, -h]))):
        torch.library.opcheck(torch.ops.ssmid.long_convolution.default, (u, taps, chunk))
        torch.library.opcheck(torch.ops.ssmid.long_convolution_backward.default, (u, taps, u, chunk, True, True))


@pytest.mark.parametrize(("length", "taps"), [(4096, 300), (1000, 1000)])
def test_chunks_bound_the_spectra(length, taps, monkeypatch):
    """No transform is longer than twice the chunk, on the way there and back."""
    seen = []
    rfft = torch.fft.rfft

    def watched(*args, **options):
        seen.append(options["n"])
        return rfft(*args, **options)

    monkeypatch.setattr(torch.fft, "rfft", watched)
    u, h = (x.requires_grad_() for x in signals((2,), 1, length, taps))
    chunked = torch.autograd.grad(long_convolution(u, h, chunk=256).square().sum(), (u, h))
    assert set(seen) == {512}
    for found, other in zip(chunked, torch.autograd.grad(long_convolution(u, h).square().sum(), (u, h)), strict=True):
        torch.testing.assert_close(found, other)


@pytest.mark.parametrize(("u", "taps", "chunk", "message"), [
    (torch.ones(2, 3, 4), torch.ones(2, 4), None, r"u: expected .* shape \(\*batch, 2, length\), got torch.float32 of shape \(2, 3, 4\)"),
    (torch.ones(4), torch.ones(4, 4), None, r"u: expected .*got torch.float32 of shape \(4,\)"),
    (torch.ones(2, 3, 4, dtype=torch.int64), torch.ones(3, 4), None, "u: expected real numbers .*got torch.int64"),
    (torch.ones(2, 3, 4), torch.ones(3, 4, dtype=torch.int64), None, "taps: expected real numbers .*got torch.int64"),
    (torch.ones(2, 3, 4), torch.ones(4), None, r"taps: expected .* shape \(channels, taps\), got torch.float32 of shape \(4,\)"),
    (torch.ones(2, 3, 4), torch.ones(3, 4, device="meta"), None, "taps: expected on cpu as u is, got meta"),
    (torch.ones(2, 3, 4), torch.ones(3, 4), 0, "chunk: expected at least 1, got 0"),
])  # fmt: skip
def test_bad_input(u, taps, chunk, message):
    with pytest.raises(ValueError, match=message):
        long_convolution(u, taps, chunk=chunk)


def test_taps_of_the_future_are_as_many():
    with pytest.raises(ValueError, match=r"future: expected torch.float32 of shape \(3, 4\) on cpu as taps are, got .* \(3, 5\) on cpu"):
        long_convolution(torch.ones(2, 3, 9), torch.ones(3, 4), torch.ones(3, 5))


def test_one_bad_row_stays_alone():
    """In a batch a NaN spoils its own row, and in a transform of a pair of rows that one too, never another."""
    u, h = signals((6,), 2, 40, 40, dtype=torch.float32)
    u[2, 1, 7] = torch.nan
    good = long_convolution(u, h).isfinite().all(-1)
    assert not good[2, 1]
    assert good[[0, 1, 4, 5]].all()
    assert good[:, 0].all()


def test_the_reference_runs_where_nothing_compiles(monkeypatch):
    def refuse(*_, **__):
        raise CannotCompile("convolve")

    u, h = (x.requires_grad_() for x in signals((3,), 2, 30, 30, dtype=torch.float32))
    expected = torch.autograd.grad(long_convolution(u, h).sum(), (u, h))
    monkeypatch.setattr(convolution, "_fused", lambda u, taps: True)
    monkeypatch.setattr(fft_convolution, "launch", refuse)
    monkeypatch.setattr(fft_convolution, "multiprocessors", lambda device: 1)
    monkeypatch.setattr(fft_convolution, "has_clusters", lambda device: False)
    for found, other in zip(torch.autograd.grad(long_convolution(u, h).sum(), (u, h)), expected, strict=True):
        torch.testing.assert_close(found, other)


def test_a_refusal_is_said_once(monkeypatch):
    def refuse(*_):
        raise RuntimeError("Kernel compilation failed:\nno such architecture")

    monkeypatch.setattr(cuda, "_refused", [])
    monkeypatch.setattr(torch.cuda, "_compile_kernel", refuse)
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext())

    def compiled():
        with pytest.raises(CannotCompile):
            cuda._compiled("fft_convolution.cu", "convolve<64, float>", 0, 0)

    with pytest.warns(UserWarning, match=r"convolve<64, float> cannot be compiled, the plain functions run .*no such architecture"):
        compiled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled()
    assert not cuda.can_compile(torch.ones(1, device="cuda" if torch.cuda.is_available() else "cpu"))
