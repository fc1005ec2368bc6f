"""Taps of S4 and S4D as operators: on a machine without a GPU with plain functions in the place of the kernels, which Triton's
interpreter runs in a process of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import pi

import pytest
import torch
from torch import Tensor

from ssmid.nn import S4, S4D, S4DFilter, S4Filter, s4, s4d, structured
from ssmid.parametrizations.diagonal import s4d_exponentials
from ssmid.parametrizations.s4 import s4_spectrum
from tests.kernels.interpreter import run_interpreted
from tests.nn.laws import DEVICES

KINDS = {
    "s4": (S4, S4Filter, (6, 8, 20), {"sets": 3}),
    "s4d": (S4D, S4DFilter, (6, 8), {}),
    "real": (S4D, S4DFilter, (6, 5, "real"), {"sets": 2}),
}


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch) -> str:
    """Where the operators run: on a GPU by their kernels."""
    if request.param == "cpu":
        for module in (s4, s4d):
            monkeypatch.setattr(module, "fused", lambda array: True)
        for name, plain in Plain().functions().items():
            monkeypatch.setattr(structured, name, plain)
        monkeypatch.setattr(structured.vandermonde, "sums_of_prepared", sums_of_prepared)
        monkeypatch.setattr(structured.vandermonde, "gradient_sums", lambda gradient, exponent: gradient)
    return request.param


class Plain:
    """What the kernels compute, by autograd through the plain functions; between there and back it remembers nothing but sizes."""

    def functions(self):
        return {name: getattr(self, name) for name in (
            "low_rank_spectrum", "low_rank_spectrum_gradients", "diagonal_modes", "diagonal_mode_gradients",
        )}  # fmt: skip

    def low_rank_spectrum(self, C, B, P, inv_dt, A_real, A_imag, points):
        channels, n, many = C.shape[1], C.shape[2], points.shape[0]
        spectrum = low_rank(C, B, P, inv_dt, A_real, A_imag, self.length(many))
        return torch.view_as_real(spectrum).contiguous(), C.new_zeros(channels, n, 10), C.new_zeros(channels, many, 6)

    def low_rank_spectrum_gradients(self, transformed, modes, factors, points, length, parameters):
        gradient = torch.fft.irfft(torch.view_as_complex(transformed), n=length)
        return derivatives(lambda *given: torch.fft.irfft(low_rank(*given, length), n=length), parameters, gradient)

    def diagonal_modes(self, C, B, inv_dt, A_real, A_imag):
        exponents, weights = s4d_exponentials(C[0], inv_dt, A_real, A_imag, B)
        return torch.view_as_real(weights.to(torch.complex64)), torch.stack([exponents.real, exponents.imag / (2 * pi)], dim=-1)

    def diagonal_mode_gradients(self, gradient, C, B, inv_dt, A_real, A_imag):
        def taps(*given):
            weight, exponent = self.diagonal_modes(*given)
            return sums_of_prepared(weight, exponent, gradient.shape[-1])

        return derivatives(taps, (C, B, inv_dt, A_real, A_imag), gradient)

    @staticmethod
    def length(points: int) -> int:
        return 2 * (points - 1)


def low_rank(C, B, P, inv_dt, A_real, A_imag, length) -> Tensor:
    return s4_spectrum(C[0], B, P, inv_dt, A_real, A_imag, length).to(torch.complex64)


def sums_of_prepared(weight, exponent, length) -> Tensor:
    exponents = torch.complex(exponent[..., 0], 2 * pi * exponent[..., 1])
    times = torch.arange(length, dtype=torch.float64)
    return (torch.view_as_complex(weight.double())[..., None] * torch.exp(exponents[..., None] * times)).real.sum(-2).float()


def derivatives(function, parameters, gradient) -> tuple[Tensor | None, ...]:
    """In a thread: in its own an operator is below autograd."""

    def found() -> tuple[Tensor | None, ...]:
        given = [None if x is None else x.detach().requires_grad_() for x in parameters]
        each = iter(torch.autograd.grad(function(*given), [x for x in given if x is not None], gradient))
        return tuple(None if x is None else next(each) for x in given)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(found).result()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [20, 13])
def test_taps_and_gradients_are_those_of_the_plain_functions(kind, length, device):
    _, make, arguments, options = KINDS[kind]
    torch.manual_seed(0)
    filter = make(*arguments, **options).to(device)
    wide = make(*arguments, **options).double()
    wide.load_state_dict({name: x.cpu() for name, x in filter.state_dict().items()})
    weights = torch.randn(6, length, dtype=torch.float64)
    (filter(length) * weights.to(device, torch.float32)).sum().backward()
    # float64 goes another way, whatever the machine
    (_plain_taps(wide, length) * weights).sum().backward()
    torch.testing.assert_close(filter(length).detach().cpu().double(), _plain_taps(wide, length).detach(), rtol=1e-4, atol=1e-5)
    for name, parameter in filter.named_parameters():
        expected = wide.get_parameter(name).grad
        assert parameter.grad is not None
        assert expected is not None
        torch.testing.assert_close(parameter.grad.cpu().double(), expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()), msg=name)


def _plain_taps(filter, length: int) -> Tensor:
    """Of a filter in float64, by its own plain functions."""
    if isinstance(filter, S4Filter):
        spectrum = s4_spectrum(filter.C[0], *filter._states(), filter.trained_length)
        taps = torch.fft.irfft(spectrum, n=filter.trained_length)[:, :length]
    else:
        exponents, weights = s4d_exponentials(filter.C[0], filter.inv_dt, filter.A_real, filter.A_imag, filter.B)
        taps = structured.vandermonde.exponential_sums(weights, exponents, length)
    return s4d.with_bypass(taps, filter.D[0])


@pytest.mark.parametrize("kind", KINDS)
def test_compilers_take_them_whole(kind, device):
    make, _, arguments, options = KINDS[kind]
    torch.manual_seed(0)
    layer, u = make(*arguments, **options).to(device), torch.randn(2, 20, 6, device=device)

    def gradients(called) -> tuple[Tensor, ...]:
        y = called(u)
        return y, *torch.autograd.grad(y.square().sum(), tuple(layer.parameters()))

    torch._dynamo.reset()
    expected = gradients(layer)
    found = gradients(torch.compile(layer, fullgraph=True, backend="aot_eager"))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_operators_say_their_shapes(kind, device):
    _, make, arguments, options = KINDS[kind]
    say_their_shapes(kind, make(*arguments, **options).to(device))


def say_their_shapes(kind, filter) -> None:
    gradient = torch.randn(6, 13, device=filter.C.device)
    given = [filter.C, filter.B, filter.inv_dt, filter.A_real, filter.A_imag]
    if kind == "s4":
        given.insert(2, filter.P)
    detached = [None if x is None else x.detach() for x in given]
    names, sizes = ("s4", (20, 13)) if kind == "s4" else ("s4d", (13,))
    taps, back = getattr(torch.ops.ssmid, f"{names}_taps").default, getattr(torch.ops.ssmid, f"{names}_taps_gradient").default
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(taps, (*detached, filter.D.detach(), *sizes), test_utils=checks)
    _, *kept = taps(*detached, filter.D.detach(), *sizes)
    torch.library.opcheck(back, (gradient, *kept, *detached, *sizes[:-1]), test_utils=checks)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_that_are_frozen_stay_without_gradient(kind, device):
    _, make, arguments, options = KINDS[kind]
    filter = make(*arguments, **options).to(device)
    filter.inv_dt.requires_grad_(False)
    filter(13).sum().backward()
    assert filter.inv_dt.grad is None
    assert filter.C.grad is not None
    filter.requires_grad_(False)
    assert not filter(13).requires_grad


def differences(device: str) -> list[float]:
    """Relative errors of taps and gradients by the kernels; of odd lengths too, and of parameters in any order in memory."""
    found: list[float] = []
    for kind, (_, make, arguments, options) in KINDS.items():
        for length, sharing in ((20, options), (13, {**options, "sets": None})):
            torch.manual_seed(length)
            filter, wide = (make(*arguments, **sharing) for _ in range(2))
            wide.double().load_state_dict(filter.state_dict())
            for parameter in filter.to(device).parameters():
                parameter.data = torch.stack([parameter.data, parameter.data + 7], -1)[..., 0]
            weights = torch.randn(6, length, dtype=torch.float64)
            taps, exact = filter(length), _plain_taps(wide, length)
            found.append(float((taps - exact.to(device)).detach().abs().max() / exact.abs().max()))
            gradients = torch.autograd.grad(taps, tuple(filter.parameters()), weights.to(device, torch.float32))
            for one, other in zip(gradients, torch.autograd.grad(exact, tuple(wide.parameters()), weights), strict=True):
                found.append(float((one.cpu() - other).abs().max() / other.abs().max()))
        say_their_shapes(kind, filter)
    return found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels():
    assert max(differences("cuda")) < 1e-4


def interpreted() -> None:
    """To be run by Triton's interpreter."""
    s4.fused = s4d.fused = lambda array: True
    worst = max(differences("cpu"))
    assert worst < 1e-4, worst


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels themselves are tested")
def test_kernels_interpreted():
    run_interpreted("from tests.nn.test_structured import interpreted; interpreted()")
