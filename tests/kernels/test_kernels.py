"""Each kernel against the plain function that it stands for, on the device."""

from __future__ import annotations

import numpy as np
import pytest

from ssmid.distillation.error_hankel import narrowed
from ssmid.kernels.compiler import fused
from ssmid.kernels.lanczos_bounds import lanczos_bounds
from ssmid.kernels.rational_derivatives import rational_derivatives
from ssmid.kernels.rational_local import rational_local
from ssmid.kernels.trust_region import shifted_step as fused_step
from ssmid.reduction.h2_newton import Local, derivatives, shifted_step
from ssmid.reduction.h2_poles import arranged, chart
from ssmid.reduction.h2_sources import local_of_values, power_series

torch = pytest.importorskip("torch")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def bank(batch: int, d: int, length: int):
    """Taps, poles in pairs and which of them are live: pairs, real poles, and slots that no pole fills."""
    rng = np.random.default_rng(d)
    # side by side: where poles are close both ways lose digits
    angles = np.linspace(0.1, 3.0, d // 2) + rng.uniform(-0.4, 0.4, (batch, d // 2)) / d
    upper = rng.uniform(0.8, 0.99, (batch, d // 2)) * np.exp(1j * angles)
    poles = np.stack([upper, upper.conj()], -1).reshape(batch, d)
    poles[::3, -2:] = np.array([-0.5, 0.3])
    live = np.ones((batch, d), bool)
    live[::3, -1] = False
    live[1::5, -2:] = False
    taps = rng.standard_normal((batch, length)) * 0.97 ** np.arange(length)
    taps, poles, live = (torch.asarray(x, device="cuda") for x in (taps, np.where(live, poles, 0), live))
    order = arranged(poles, live, 0)
    return taps, poles.gather(1, order), live.gather(1, order)


def close(found, exact, rtol):
    assert float((found - exact).abs().max()) <= rtol * float(exact.abs().max())


def test_no_kernel_takes_what_is_not_on_a_gpu():
    assert not fused(np.zeros(3))
    assert not fused(torch.zeros(3))


@on_gpu
@pytest.mark.parametrize(("batch", "d", "length"), [(1, 2, 5), (37, 6, 100), (64, 16, 2047), (33, 22, 513), (5, 64, 300)])
def test_local_quantities(batch, d, length):
    taps, poles, live = bank(batch, d, length)
    energy = (taps**2).sum(-1)
    exact = local_of_values(power_series(taps, poles), poles, live, energy)
    rho, alpha, slope, fitted, least = rational_local(taps, poles, live)
    for found, other in ((rho, exact.rho), (alpha, exact.alpha), (slope, exact.slope), (energy - fitted, exact.error)):
        close(found, other, 1e-6)
    close(1 / least, exact.blur / (8 * 2.0**-52 * energy), 1e-6)
    assert bool((alpha == 0).logical_or(live).all())


@on_gpu
def test_lanczos_bounds():
    rng = np.random.default_rng(1)
    alpha, beta = (torch.asarray(rng.uniform(size=(40, 50)) * s, device="cuda") for s in (0.2, 0.5))
    beta[:, 0] = 0
    low, high = (torch.full((50,), v, dtype=torch.float64, device="cuda") for v in (0.3, 3.0))
    low[1] = 0
    for found, exact in zip(lanczos_bounds(alpha, beta, low, high, 1e7), narrowed(alpha, beta, low, high, 1e7), strict=True):
        close(found, exact, 1e-12)
        assert bool((found[2:] > 0.3).logical_and(found[2:] < 3.0).all())


@on_gpu
@pytest.mark.parametrize("d", [2, 6, 16, 22, 32])
def test_derivatives_and_the_step(d, monkeypatch):
    taps, poles, live = bank(40, d, 400)
    local = local_of_values(power_series(taps, poles), poles, live, (taps**2).sum(-1))
    here = chart(poles, live, real=True)
    gradient, hessian = rational_derivatives(poles, local.rho, local.alpha, local.slope, here.first, here.second)
    monkeypatch.setattr("ssmid.reduction.h2_newton.fused", lambda *_: False)  # the plain functions from here on
    exact = derivatives(here, Local(**{name: getattr(local, name) for name in ("error", "noise", "blur", "rho", "alpha", "slope")}))
    close(gradient, exact[0], 1e-12)
    close(hessian, exact[1], 1e-10)
    values, vectors = torch.linalg.eigh(exact[1])
    for radius in (1e-3, 0.3, 10.0):
        reach = torch.full_like(values[:, 0], radius)
        step, predicted = fused_step(values, vectors, exact[0], reach)
        plain, promised = shifted_step(values, vectors, exact[0], reach)
        close(step, plain, 1e-9)
        close(predicted, promised, 1e-9)
