"""Sums of partial fractions against the definition, term by term, and near to a pole against mpmath."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from ssmid.kernels import cauchy
from ssmid.kernels.cauchy import cauchy_gradients, cauchy_sums, fused_cauchy_gradients, fused_cauchy_sums

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SHAPES = [(1, 1, 1, 1), (2, 4, 3, 9), (2, 2, 20, 30)]


def problem(channels: int, many: int, n: int, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numerators, nodes left of the axis as near as those of slow modes, and points from 0 to what stands for infinity."""
    rng = np.random.default_rng(n)
    nodes = -rng.uniform(5e-4, 0.05, (channels, n)) + 1j * rng.uniform(-3, 3, (channels, n))
    numerators = rng.standard_normal((channels, many, n, 2)) @ np.array([1, 1j])
    return numerators, nodes, 2 * np.tan(np.pi / 2 * np.arange(points) / max(points - 1, 1))


def test_sums_term_by_term(xp):
    for shape in SHAPES:
        v, a, y = problem(*shape)
        expected = np.zeros((*v.shape[:2], len(y)), complex)
        for h, m, n, k in np.ndindex(*v.shape, len(y)):
            expected[h, m, k] += v[h, m, n] / (1j * y[k] - a[h, n]) + v[h, m, n].conj() / (1j * y[k] - a[h, n].conj())
        found = xp.numpy(cauchy_sums(*(xp.asarray(x) for x in (v, a, y))))
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13 * np.abs(expected).max())


def test_gradients_by_differences(monkeypatch):
    """Of ``Re sum conj(g) r``, by real and imaginary part of every number; also where the points come in several chunks."""
    v, a, y = problem(2, 2, 3, 7)
    g = np.random.default_rng(0).standard_normal((2, 2, 7, 2)) @ np.array([1, 1j])
    g[..., -1] = 0  # there the sums are 1e-16 of the others

    def value(v, a):
        return (g.conj() * cauchy_sums(v, a, y)).real.sum()

    for chunks in (1, 3):
        if chunks > 1:
            monkeypatch.setattr(cauchy, "_BYTES", 64 * v.size * chunks)
        for which, found in enumerate(cauchy_gradients(g, v, a, y)):
            for place in np.ndindex(found.shape):
                for unit in (1, 1j):
                    step = np.zeros(found.shape, complex)
                    step[place] = 1e-7 * unit
                    up, down = ([v, a] for _ in range(2))
                    up[which], down[which] = up[which] + step, down[which] - step
                    slope = (value(*up) - value(*down)) / 2e-7
                    assert abs((found[place].conjugate() * unit).real - slope) < 1e-5 * np.abs(found).max()


def test_strict_arrays_have_gradients(xp):
    v, a, y = problem(2, 2, 3, 7)
    g = np.ones((2, 2, 7)) + 0j
    for one, other in zip(cauchy_gradients(*(xp.asarray(x) for x in (g, v, a, y))), cauchy_gradients(g, v, a, y), strict=True):
        np.testing.assert_allclose(xp.numpy(one), other, rtol=1e-10)


@on_gpu
@pytest.mark.parametrize("shape", [*SHAPES, (2, 9, 5, 7), (3, 4, 32, 1025), (2, 4, 512, 3000)])
def test_fused(shape):
    v, a, y = (torch.as_tensor(x, device="cuda") for x in problem(*shape))
    g = torch.randn(*v.shape[:2], len(y), dtype=torch.complex64, device="cuda")
    found, expected = fused_cauchy_sums(v, a, y), cauchy_sums(v, a, y)
    assert found.dtype == torch.complex64
    assert float((found - expected).abs().max() / expected.abs().max()) < 5e-6
    exact = cauchy_gradients(g.to(torch.complex128), v, a, y)
    for one, other in zip(fused_cauchy_gradients(g, v, a, y), exact, strict=True):
        assert float((one - other).abs().max() / other.abs().max()) < 5e-6


@on_gpu
def test_a_node_nearer_than_single_precision_resolves():
    """A point 1e-4 beside a node of height 1000: the distance of the two rounded numbers would be off by a third."""
    a, y = np.array([[-1e-5 + 1000.00007j]]), np.array([1000.00017])
    with mpmath.workdps(30):
        at = mpmath.mpc(0, y[0])
        expected = complex(1 / (at - mpmath.mpc(a[0, 0])) + 1 / (at - mpmath.mpc(a[0, 0].conjugate())))
    found = fused_cauchy_sums(*(torch.as_tensor(x, device="cuda") for x in (np.ones((1, 1, 1), complex), a, y)))
    assert abs(complex(found[0, 0, 0]) - expected) < 1e-5 * abs(expected)
