"""The kernel of short convolutions beside a loop over taps; without a GPU, Triton's interpreter runs it in a process of its own."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.interpreter import run_interpreted

pytest.importorskip("triton")

CASES = [(1, 1, 1, 3, True), (3, 5, 40, 3, True), (2, 3, 33, 4, False), (2, 4, 7, 1, True)]


def differences(device: str) -> list[float]:
    """Relative errors of outputs, with and without history, and of all gradients; operators say to compilers what they return."""
    from ssmid.kernels.short_convolution import short_convolution, short_convolution_gradients, short_convolution_step_
    from ssmid.nn.short_convolution import _convolved, _gradients

    found: list[float] = []
    for batch, channels, length, taps, bias in CASES:
        draw = torch.Generator().manual_seed(length)
        u, w, b, h, g = (
            torch.randn(shape, generator=draw, dtype=torch.float64)
            for shape in ((batch, channels, length), (channels, taps), (channels,), (batch, channels, taps - 1), (batch, channels, length))
        )
        leaves = [x.requires_grad_() for x in (u, w, b)]
        offset = b[:, None] if bias else 0 * b[:, None]
        plain = [sum(w[:, taps - 1 - i, None] * x[..., taps - 1 - i :][..., :length] for i in range(taps)) + offset
                 for x in (torch.nn.functional.pad(u, (taps - 1, 0)), torch.cat([h, u], -1))]  # fmt: skip
        gradients = torch.autograd.grad(plain[0], leaves, g)
        u, w, b, h, g = (x.detach().float().to(device) for x in (u, w, b, h, g))
        b = torch.stack([b, b + 7], -1)[:, 0]  # not next to each other
        for operator, arguments in ((_convolved, (u, w, b if bias else None)), (_gradients, (g, u, w))):
            torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
        ours = [short_convolution(u, w, b if bias else None), short_convolution(u, w, b if bias else None, h)]
        ours += short_convolution_gradients(g, u, w)
        for one, other in zip(ours, [*plain, *(gradients if bias else gradients[:2])], strict=False):
            found.append(float(torch.linalg.vector_norm(one.double().cpu() - other) / torch.linalg.vector_norm(other)))
        whole = torch.cat([h, u], -1)
        steps = torch.stack([short_convolution_step_(u[..., t], h, w, b if bias else None) for t in range(length)], -1)
        found.append(float(torch.linalg.vector_norm(steps.double().cpu() - plain[1]) / torch.linalg.vector_norm(plain[1])))
        assert torch.equal(h, whole[..., length:])
    return found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernel() -> None:
    assert max(differences("cuda")) < 1e-5


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel itself is tested")
def test_kernel_interpreted() -> None:
    call = "from tests.kernels.test_short_convolution import differences; worst = max(differences('cpu')); assert worst < 1e-5, worst"
    run_interpreted(call)
