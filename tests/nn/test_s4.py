"""S4: taps against powers of HiPPO's dense matrix and of the sampled one, at every length, and what the public layer loads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ssmid
from ssmid.nn import S4, S4D, FilterLayer, ModalRecurrence, S4Filter, convert
from ssmid.parametrizations.initializations import hippo_legs
from ssmid.parametrizations.s4 import s4_spectrum, trained_outputs
from tests.nn.laws import DEVICES, DTYPES, close, compiles, gradients_are_right, layer_laws, state_dict_travels, taps_are_the_response


def dense(filter: S4Filter) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """Of every channel the sampled matrix, inputs and C~ over the states and their conjugates, and D."""
    p = {name: x.detach().double().numpy() for name, x in filter.named_parameters()}
    found = []
    for h in range(filter.channels):
        s, dt = h % p["A_real"].shape[0], np.exp(p["inv_dt"][h, 0])
        a = -np.exp(p["A_real"][s]) - 1j * p["A_imag"][s]
        P, B, C = (x @ np.array([1, 1j]) for x in (p["P"][0, s], p["B"][0, s], p["C"][0, h]))
        a, P, B, C = (np.concatenate([x, x.conj()]) for x in (a, P, B, C))
        A, eye = dt * (np.diag(a) - np.outer(P, P.conj())), np.eye(len(a))
        found.append((np.linalg.solve(eye - A / 2, eye + A / 2), np.linalg.solve(eye - A / 2, dt * B), C, p["D"][0, h]))
    return found


@pytest.mark.parametrize("trained", [1, 2, 15, 16])
@pytest.mark.parametrize("sets", [None, 2])
def test_taps(trained, sets):
    filter = S4Filter(4, 6, trained, sets=sets).double()
    for length in (1, 2, 15, 16, 33):
        found = filter(length).detach().numpy()
        for h, (A, B, C, D) in enumerate(dense(filter)):
            C = np.linalg.solve((np.eye(len(A)) - np.linalg.matrix_power(A, trained)).T, C)
            expected = np.array([(C @ np.linalg.matrix_power(A, t) @ B).real + D * (t == 0) for t in range(length)])
            np.testing.assert_allclose(found[h], expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())
    taps_are_the_response(filter, tolerance=1e-9)


def test_it_begins_as_hippo():
    """With C = P as the output the taps are those of HiPPO's own matrix, sampled by the bilinear map."""
    filter, n, length = S4Filter(1, 8, 12).double(), 8, 12
    with torch.no_grad():
        B, P, steps, *rest = filter._states()
        outputs = torch.view_as_complex(P).conj().resolve_conj()
        filter.C.copy_(torch.view_as_real(trained_outputs(torch.view_as_real(outputs), B, P, steps, *rest, length)))
    A, inputs = hippo_legs(n)
    dt, eye = float(steps.detach().exp()), np.eye(n)
    sampled = np.linalg.solve(eye - dt / 2 * A, eye + dt / 2 * A)
    into = np.linalg.solve(eye - dt / 2 * A, dt * inputs)
    expected = [np.sqrt(np.arange(n) + 0.5) @ np.linalg.matrix_power(sampled, t) @ into for t in range(length)]
    expected[0] += float(filter.D.detach())
    np.testing.assert_allclose(filter(length)[0].detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 9, 10])
def test_spectrum(xp, rank, length):
    """``C~ (I - w Ad)^-1 Bd`` by dense solves, of any rank of the low-rank part."""
    rng, n = np.random.default_rng(rank), 3
    C, B, P = rng.standard_normal((2, 4, n, 2)), rng.standard_normal((1, 2, n, 2)), 0.5 * rng.standard_normal((rank, 2, n, 2))
    step, real, imag = rng.uniform(-3, -1, (4, 1)), rng.standard_normal((2, n)), 4 * rng.random((2, n))
    found = xp.numpy(s4_spectrum(*(xp.asarray(x) for x in (C, B, P, step, real, imag)), length))
    assert found.shape == (2, 4, length // 2 + 1)
    one = np.array([1, 1j])
    for head, h in np.ndindex(2, 4):
        a, b, p, c = -np.exp(real[h % 2]) - 1j * imag[h % 2], B[0, h % 2] @ one, P[:, h % 2] @ one, C[head, h] @ one
        a, b, p, c = (np.concatenate([x, x.conj()], axis=-1) for x in (a, b, p, c))
        A, eye = np.exp(step[h, 0]) * (np.diag(a) - p.T @ p.conj()), np.eye(2 * n)
        A, b = np.linalg.solve(eye - A / 2, eye + A / 2), np.linalg.solve(eye - A / 2, np.exp(step[h, 0]) * b)
        expected = [c @ np.linalg.solve(eye - np.exp(-2j * np.pi * k / length) * A, b) for k in range(length // 2 + 1)]
        np.testing.assert_allclose(found[head, h], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("rank", "sets", "length"), [(1, None, 1000), (1, 2, 999), (2, None, 40)])
def test_single_precision(device, rank, sets, length):
    """On a GPU this is the fused kernel beside the formula: of rank 1 the whole spectrum, of others the sums.

    The gradient by the step is a sum over the states that cancels, by up to 80 times in 200 draws; there the formula in array operations
    is off by up to 3e-4 of it in single precision, and by less than 5e-5 of the terms. All draws are made on the host: the same numbers
    on every device.
    """
    torch.manual_seed(length)
    filter = S4Filter(4, 32, 1000, rank=rank, sets=sets)
    with torch.no_grad():
        filter.P += 0.1 * torch.randn_like(filter.P)
    gradient = torch.randn(4, length).to(device)
    filter = filter.to(device)
    exact = S4Filter(4, 32, 1, rank=rank, sets=sets).double().to(device)
    exact.load_state_dict(filter.state_dict())
    found, expected = filter(length), exact(length)
    assert found.dtype == torch.float32
    assert float((found - expected).detach().abs().max() / expected.detach().abs().max()) < 1e-5
    found.backward(gradient)
    expected.backward(gradient.double())
    terms = terms_by_the_step(exact)
    of_sets = exact.inv_dt.grad.reshape(-1, filter.A_real.shape[0]).sum(0)
    torch.testing.assert_close(terms.sum(-1), of_sets, rtol=0, atol=1e-12 * float(terms.abs().sum(-1).max()))
    for (name, one), other in zip(filter.named_parameters(), exact.parameters(), strict=True):
        scale = terms.abs().sum(-1).max() if name == "inv_dt" else other.grad.abs().max()
        assert float((one.grad - other.grad).abs().max()) <= 1e-4 * float(scale), name


def terms_by_the_step(filter: S4Filter) -> torch.Tensor:
    """What each state adds to the gradient by the logarithm of the step, ``(sets, ...)``: steps scale A and B, and both sides of P P*."""
    with torch.no_grad():
        parts = [filter.A_real.grad, filter.A_imag.grad * filter.A_imag]
        parts += [share * (x.grad * x).sum((0, -1)) for share, x in ((1, filter.B), (0.5, filter.P))]
        return torch.cat(parts, -1)


def test_always_stable():
    filter = S4Filter(3, 6, 32)
    with torch.no_grad():
        for parameter in filter.parameters():
            parameter.normal_(0, 3)
    poles = np.linalg.eigvals(filter.double().system().A.numpy())
    assert np.abs(poles).max() <= 1 + 1e-12


def test_gradients():
    gradients_are_right(S4Filter(2, 4, 7), function=lambda f: f(7))
    gradients_are_right(S4Filter(2, 4, 8), function=lambda f: f(5))
    gradients_are_right(S4Filter(1, 4, 3), function=lambda f: f(6))
    gradients_are_right(S4(2, 4, 5), torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("make", [lambda: S4(3, 8, 64), lambda: S4D(3, 8)], ids=["s4", "s4d"])
def test_training_goes_through_a_cuda_graph(make):
    layer, u = make().cuda(), torch.randn(2, 64, 3, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            layer(u).square().sum().backward()
    torch.cuda.current_stream().wait_stream(stream)
    expected = [p.grad.clone() / 2 for p in layer.parameters()]
    graph = torch.cuda.CUDAGraph()
    layer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        layer(u).square().sum().backward()
    graph.replay()
    for p, other in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_laws_of_its_recurrence(device, dtype):
    # of four states: the modes of HiPPO's matrix of eight cancel to 1e-4 in single precision
    layer = S4(3, 4, 16).double()
    run = convert(layer, ssmid.to_modal)
    layer_laws(run, device, dtype)
    u = torch.randn(2, 40, 3, dtype=torch.float64)
    torch.testing.assert_close(run(u), layer(u), rtol=0, atol=1e-9 * float(layer(u).abs().max()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", [16, 64])
def test_exact_in_single_precision(order, dtype, device):
    """Residues of HiPPO's matrix cancel to 1e-7 of themselves: states in double precision hold what is left, those in single do not."""
    torch.manual_seed(0)
    layer = S4(3, order, 40)
    run = convert(layer, "exact")
    layer_laws(run, device, dtype)
    assert repr(run.filter) == f"ModalRecurrence(channels=3, modes={run.filter.modes}, keeps_double=True)"
    assert run.to(torch.bfloat16).filter.poles.dtype == torch.float64
    u = torch.randn(2, 90, 3)
    y, state = run.float().prefill(u[:, :50])
    rest = []
    for t in range(50, 90):
        rest.append(run.step_(u[:, t], state))
    close(torch.cat([y, torch.stack(rest, 1)], 1), layer(u), torch.float32)
    modal = ssmid.to_modal(layer.filter.system().map(lambda x: x.double()))
    single = FilterLayer(ModalRecurrence(modal.map(lambda x: x.to(torch.complex64 if x.is_complex() else torch.float32))))
    assert float((single(u) - layer(u)).norm() / layer(u).norm()) > 1e-4


def test_longer_than_trained_is_not_periodic():
    """The inverse transform of the spectrum repeats itself after the trained length; the system does not."""
    filter = S4Filter(1, 4, 8).double()
    taps = filter(16)[0]
    assert float((taps[8:] - taps[:8]).abs().max()) > 0.1 * float(taps.abs().max())


def test_state_dict(tmp_path):
    state_dict_travels(lambda: S4(2, 4, 6), tmp_path, lambda layer: layer(torch.ones(1, 9, 2)))
    shapes = {name: tuple(x.shape) for name, x in S4Filter(6, 8, 5, sets=3).state_dict().items()}
    pairs = {"C": (1, 6, 4, 2), "B": (1, 3, 4, 2), "P": (1, 3, 4, 2)}
    assert shapes == {**pairs, "inv_dt": (6, 1), "A_real": (3, 4), "A_imag": (3, 4), "D": (1, 6), "l_kernel": ()}


def test_the_trained_length_is_loaded_and_zero_means_that_C_is_C():
    first, second = S4Filter(2, 4, 6), S4Filter(2, 4, 20)
    second.load_state_dict(first.state_dict())
    assert second.trained_length == 6
    torch.testing.assert_close(second(9), first(9))
    never = {**first.state_dict(), "l_kernel": torch.tensor(0)}
    second.double().load_state_dict(never)
    for h, (A, B, C, D) in enumerate(dense(second)):
        expected = [(C @ np.linalg.matrix_power(A, t) @ B).real + float(D) * (t == 0) for t in range(5)]
        np.testing.assert_allclose(second(5)[h].detach(), expected, rtol=1e-9, atol=1e-10)


def test_compiles():
    layer, u = S4(2, 4, 8).double(), torch.randn(1, 12, 2, dtype=torch.float64)
    for length in (7, 8):
        compiles(layer, u[:, :length])
    compiles(layer, u, fullgraph=False)
    compiles(S4(2, 4, 8, rank=2).double(), u[:, :8])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 7}, "order: expected an even number of real states"),
        ({"length": 0}, "length: expected the number of taps to train with, at least 1, got 0"),
        ({"rank": 0}, "rank: expected at least 1, got 0"),
        ({"sets": 5}, "sets: expected a divisor of the 4 channels, got 5"),
        ({"dt_max": 1e-4}, "dt: expected 0 < dt_min <= dt_max"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        S4Filter(**{"channels": 4, "order": 4, **arguments})
