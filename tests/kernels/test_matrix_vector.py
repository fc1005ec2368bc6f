"""A matrix times one vector, beside torch's products; without a GPU the interpreter runs the kernel."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear

from ssmid.kernels.matrix_vector import fits_one_vector, matrix_vector, normed_matrix_vector
from tests.kernels.interpreter import run_interpreted

SIZES = [(1, 1), (5, 3), (7, 64), (130, 100), (33, 2048), (9, 5000)]
"""Rows and columns; the last are more than a program holds."""


def worst(dtype, device) -> float:
    """The largest error of an output, of the largest output; sums are exact."""
    found = []
    for rows, columns in SIZES:
        draw = torch.Generator().manual_seed(rows)
        shapes = (rows, columns), (1, columns), (rows,), (1, columns), (columns,), (columns,)
        weight, u, bias, y, scale, shift = (torch.randn(s, generator=draw).to(device, dtype) for s in shapes)
        exact = linear(u.double(), weight.double(), bias.double())
        total, normed = normed_matrix_vector(weight, u, y, scale, shift, 1e-5, bias, gelu=True)
        assert torch.equal(total, u + y)
        # rounded where a norm that stands alone is
        between = layer_norm((u + y).double(), (columns,), scale.double(), shift.double()).to(dtype).double()
        pairs = [
            (matrix_vector(weight, u, bias), exact),
            (matrix_vector(weight, u), exact - bias.double()),
            (matrix_vector(weight, u, bias, gelu=True), gelu(exact, approximate="tanh")),
            (normed, gelu(linear(between, weight.double(), bias.double()), approximate="tanh")),
        ]
        for one, other in pairs:
            assert one.dtype == dtype
            assert one.shape == (1, rows)
            found.append(float((one.double() - other).abs().max() / other.abs().max()))
    return max(found)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-6)])
def test_kernel(dtype, tolerance):
    assert worst(dtype, "cuda") <= tolerance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_fits():
    weight = torch.zeros(4, 3, device="cuda")
    assert fits_one_vector(weight[:1], weight)
    assert fits_one_vector(weight[None, :1], weight)
    assert not fits_one_vector(weight[:2], weight)
    assert not fits_one_vector(weight[:1].double(), weight.double())
    assert not fits_one_vector(weight[:1].bfloat16(), weight)
    assert not fits_one_vector(weight.T[:1], weight.T)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel itself is tested")
def test_kernel_interpreted():
    """Exp of large numbers is infinite there as on a GPU."""
    call = (
        "import torch, numpy; numpy.seterr(over='ignore'); from tests.kernels.test_matrix_vector import worst; "
        "found = worst(torch.float32, 'cpu'); assert found < 1e-5, found"
    )
    run_interpreted(call)
