"""One token through recurrences: the plain functions against loops over the formulas, the kernels against the plain functions."""

from __future__ import annotations

import numpy as np
import pytest

from ssmid.kernels import modal_step as module
from ssmid.kernels.modal_step import hyena_step, hyena_step_, modal_step, modal_step_, multihyena_step, multihyena_step_
from tests.kernels.interpreter import run_interpreted

torch = pytest.importorskip("torch")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SIZES = [(1, 1, 1, 1), (3, 5, 3, 3), (2, 130, 8, 8), (70, 64, 1, 4), (2, 7, 16, 5), (3, 20, 32, 16)]
"""Sequences, channels (heads), modes, channels of a head."""


def numbers(channels: int, modes: int, device: str = "cpu", dtype=torch.float64):
    generator = torch.Generator().manual_seed(modes)
    poles, residues = (0.5 * torch.randn(channels, modes, 2, generator=generator, dtype=dtype) for _ in range(2))
    return poles.to(device), residues.to(device), torch.randn(channels, generator=generator, dtype=dtype).to(device)


def normal(*shape: int, device: str = "cpu", dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64).to(device, dtype)


def near(found, exact, dtype, wide: float = 1e-5):
    tolerance = {torch.float64: 1e-12, torch.float32: wide, torch.bfloat16: 1.6e-2}[dtype]
    assert found.dtype == exact.dtype
    found, exact = found.to(torch.complex128), exact.to(torch.complex128)
    assert float((found - exact).abs().max()) <= tolerance * float(exact.abs().max())


def test_modal_step_is_the_formula():
    poles, residues, through = numbers(3, 4)
    u, state = normal(2, 3), torch.view_as_complex(normal(2, 3, 4, 2))
    y, after = modal_step(u, state, poles, residues, through)
    for b, c in np.ndindex(2, 3):
        total = float(through[c] * u[b, c])
        for i in range(4):
            pole, residue, x = complex(*poles[c, i]), complex(*residues[c, i]), complex(state[b, c, i])
            total += (residue * x).real
            assert abs(complex(after[b, c, i]) - (pole * x + float(u[b, c]))) < 1e-14
        assert abs(total - float(y[b, c])) < 1e-13


def test_hyena_step_is_a_short_convolution_two_gates_and_a_recurrence():
    poles, residues, through = numbers(3, 4)
    projected, weight, bias, state = normal(1, 9, 5), normal(9, 3), normal(9), torch.zeros(1, 3, 4, dtype=torch.complex128)
    short = torch.nn.functional.conv1d(torch.nn.functional.pad(projected, (2, 0)), weight[:, None], bias, groups=9)
    history, kept = torch.zeros(1, 9, 2, dtype=torch.float64), state
    for t in range(5):
        y, history, state = hyena_step(projected[..., t], history, weight, bias, state, poles, residues, through)
        inner, kept = modal_step(short[:, 3:6, t] * short[:, 6:, t], kept, poles, residues, through)
        near(y, short[:, :3, t] * inner, torch.float64)
    assert torch.equal(history, projected[..., 3:])


def test_multihyena_step_runs_every_entry_of_the_outer_product():
    poles, residues, through = numbers(2, 3)
    q, k, v = (normal(4, 2, 3) + i for i in range(3))
    state = torch.view_as_complex(normal(4, 2, 3, 3, 3, 2))
    y, after = multihyena_step(q, k, v, state, poles, residues, through)
    expected = torch.zeros_like(y)
    for i, j in np.ndindex(3, 3):
        out, new = modal_step(k[..., i] * v[..., j], state[:, :, i, j], poles, residues, through)
        expected[..., j] += q[..., i] * out
        near(after[:, :, i, j], new, torch.float64)
    near(y, expected, torch.float64)


@pytest.mark.parametrize("name", ["modal", "hyena", "multihyena"])
def test_in_place_is_the_same_in_the_same_place(name):
    call, _, states, plain = steps(name, 3, 5, 4, 3, torch.float64, "cpu")
    places = [x.data_ptr() for x in states]
    y = call()
    assert places == [x.data_ptr() for x in states]
    for found, exact in zip((y, *states), plain, strict=True):
        near(found, exact, torch.float64)


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["modal", "hyena", "hyena without bias", "multihyena"])
def test_kernels(name, size, dtype):
    call, _, states, plain = steps(name, *size, dtype, "cuda")
    found = (call(), *states)
    for one, exact in zip(found, plain, strict=True):
        near(one, exact, torch.float32 if one.is_complex() else dtype)


@on_gpu
def test_kernels_under_a_cuda_graph():
    call, reset, states, _ = steps("hyena", 3, 64, 8, 1, torch.float32, "cuda")
    expected = [call().clone() for _ in range(4)]
    reset()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = call()
    for exact in expected:
        graph.replay()
        assert torch.equal(y, exact)
    assert len(states) == 2


def steps(name: str, batch: int, channels: int, modes: int, N: int, dtype, device: str):
    """``call()`` in place, ``reset()``, the states that it changes, and what the plain function gives."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    poles, residues, through = numbers(channels, modes, device, wide)
    inner = (N, N) if name == "multihyena" else ()
    state = torch.view_as_complex(normal(batch, channels, *inner, modes, 2, device=device, dtype=wide))
    if name == "modal":
        inputs, states, plain, fused = (normal(batch, channels, device=device, dtype=dtype),), [state], modal_step, modal_step_
    elif name == "multihyena":
        inputs = tuple((normal(batch, channels, N) + i).to(device, dtype) for i in range(3))
        states, plain, fused = [state], multihyena_step, multihyena_step_
    else:
        history, bias = (normal(*shape, device=device, dtype=dtype) for shape in ((batch, 3 * channels, 2), (3 * channels,)))
        fixed = normal(3 * channels, 3, device=device, dtype=dtype), None if name == "hyena without bias" else bias
        projected, states = normal(batch, 3 * channels, device=device, dtype=dtype), [history, state]
        before = [x.clone() for x in states]

        def reset() -> None:
            for tensor, kept in zip(states, before, strict=True):
                tensor.copy_(kept)

        expected = hyena_step(projected, history, *fixed, state, poles, residues, through)
        return lambda: hyena_step_(projected, history, *fixed, state, poles, residues, through), reset, states, expected
    expected = plain(*inputs, state, poles, residues, through)
    return lambda: fused(*inputs, state, poles, residues, through), None, states, expected


def parts_of_one_array(device: str) -> float:
    """The largest difference of MultiHyena's step from streams that lie side by side, as its layer gives them."""
    found = []
    for batch, heads, modes, n in SIZES[1:]:
        poles, residues, through = numbers(heads, modes, device, torch.float32)
        state = torch.view_as_complex(normal(batch, heads, n, n, modes, 2, device=device, dtype=torch.float32))
        streams = normal(batch, 3 * heads * n, device=device, dtype=torch.float32)
        q, k, v = (x.unflatten(1, (heads, n)) for x in streams.split(heads * n, dim=1))
        expected = multihyena_step(q, k, v, state, poles, residues, through)
        y = multihyena_step_(q, k, v, state, poles, residues, through)
        found += [float((one - other).abs().max() / other.abs().max()) for one, other in zip((y, state), expected, strict=True)]
    return max(found)


def sequences_next_to_each_other(device: str) -> float:
    """The largest difference of a step from a token whose channels are not, as products with matrices on the left give it."""
    poles, residues, through = numbers(5, 4, device, torch.float32)
    state = torch.view_as_complex(normal(3, 5, 4, 2, device=device, dtype=torch.float32))
    u = normal(5, 3, device=device, dtype=torch.float32).T
    expected = modal_step(u, state, poles, residues, through)
    y = modal_step_(u, state, poles, residues, through)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in zip((y, state), expected, strict=True))


@on_gpu
def test_any_strides():
    assert max(parts_of_one_array("cuda"), sequences_next_to_each_other("cuda")) < 1e-5


def interpreted() -> float:
    module.fused = lambda *_: True
    return max(parts_of_one_array("cpu"), sequences_next_to_each_other("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels themselves are tested")
def test_any_strides_interpreted():
    run_interpreted("from tests.kernels.test_modal_step import interpreted; worst = interpreted(); assert worst < 1e-5, worst")
