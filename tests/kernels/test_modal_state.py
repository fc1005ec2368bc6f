"""The state behind a prompt: against a loop over the tokens."""

from __future__ import annotations

import numpy as np
import pytest

from ssmid.kernels import modal_state as module
from ssmid.kernels.modal_state import modal_state, plain_modal_state
from tests.kernels.interpreter import run_interpreted

torch = pytest.importorskip("torch")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SIZES = [(1, 1, 1, 1), (2, 3, 63, 3), (2, 3, 64, 8), (1, 2, 65, 2), (2, 5, 2048, 8), (1, 3, 5001, 5), (1, 2, 9000, 40)]
SEVERAL = [(40, 3, 64, 8), (33, 2, 65, 2), (9, 2, 512, 8), (70, 1, 130, 40), (3, 1, 1025, 8)]
"""Sequences, channels, tokens, modes; then of those that share a table."""


def poles_near_the_circle(channels: int, modes: int) -> np.ndarray:
    rng = np.random.default_rng(modes)
    poles = (1 - 10 ** -rng.uniform(0, 4, (channels, modes))) * np.exp(1j * rng.uniform(-3, 3, (channels, modes)))
    poles[0, 0] = 0
    return poles


def token_by_token(u: np.ndarray, poles: np.ndarray) -> np.ndarray:
    state = np.zeros((*u.shape[:-1], poles.shape[-1]), complex)
    for t in range(u.shape[-1]):
        state = poles * state + u[..., t, None]
    return state


def check(function, size, dtype, device, tolerance, transposed=False):
    batch, channels, tokens, modes = size
    poles = poles_near_the_circle(channels, modes)
    u = torch.tensor(np.random.default_rng(0).standard_normal((batch, channels, tokens)), dtype=dtype, device=device)
    exact = token_by_token(u.double().cpu().numpy(), poles)
    given = u.transpose(1, 2).contiguous().transpose(1, 2) if transposed else u
    found = function(given, torch.tensor(poles, device=device))
    assert found.dtype == (torch.complex128 if dtype == torch.float64 else torch.complex64)
    assert np.abs(found.cpu().numpy() - exact).max() <= tolerance * np.abs(exact).max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-6)])
def test_plain(size, dtype, tolerance):
    check(plain_modal_state, size, dtype, "cpu", tolerance)
    check(modal_state, size, dtype, "cpu", tolerance, transposed=True)


def test_plain_over_other_arrays():
    poles, u = poles_near_the_circle(3, 4), np.random.default_rng(0).standard_normal((2, 3, 200))
    np.testing.assert_allclose(plain_modal_state(u, poles), token_by_token(u, poles), rtol=1e-10, atol=1e-12)


def test_no_tokens_and_no_sequences():
    poles = torch.tensor(poles_near_the_circle(3, 4))
    assert torch.equal(modal_state(torch.zeros(2, 3, 0), poles), torch.zeros(2, 3, 4, dtype=torch.complex64))
    assert modal_state(torch.zeros(0, 3, 9), poles).shape == (0, 3, 4)


def test_plain_is_differentiable():
    poles = torch.tensor(poles_near_the_circle(2, 3))[:, 1:].clone().requires_grad_()
    u = torch.randn(1, 2, 130, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, poles: torch.view_as_real(modal_state(u, poles)), (u, poles))


@on_gpu
@pytest.mark.parametrize("size", [*SIZES, *SEVERAL, (2, 4, 131_072, 8), (600, 40, 64, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernel(size, dtype):
    check(modal_state, size, dtype, "cuda", 5e-6)
    check(modal_state, size, dtype, "cuda", 5e-6, transposed=True)


@on_gpu
def test_rows_of_a_larger_array():
    whole = torch.randn(2, 6, 300, device="cuda")
    poles = torch.tensor(poles_near_the_circle(3, 4), device="cuda")
    part = whole[:, 1:4, 17:290]
    torch.testing.assert_close(modal_state(part, poles), plain_modal_state(part, poles), rtol=0, atol=1e-4)


def interpreted() -> None:
    module.fused = lambda *_: True
    for programs in (1, 8192):
        module._PROGRAMS = programs
        for size in (*SIZES[:-2], *SEVERAL):
            check(modal_state, size, torch.float32, "cpu", 5e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels themselves are tested")
def test_kernels_interpreted():
    """Of bf16 the interpreter has no products."""
    run_interpreted("from tests.kernels.test_modal_state import interpreted; interpreted()")
