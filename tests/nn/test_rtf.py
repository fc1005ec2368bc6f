"""RTF filters: against powers of dense companion matrices, and a test for each fault that the authors' code has."""

import copy
import warnings

import numpy as np
import pytest
import torch

import ssmid
from ssmid.analysis.rational_kernel import wrap_numerator
from ssmid.kernels.rational_taps import fused_rational_taps
from ssmid.nn import RTF, RTFFilter, convert
from ssmid.nn.rational_taps import rational_taps
from ssmid.parametrizations.denominators import lattice_denominator
from tests.nn.laws import DEVICES, DTYPES, compiles, gradients_are_right, layer_laws, state_dict_travels, taps_are_the_response

KINDS = ["free", "montel", "sections", "lattice", "poles"]


def companion(a):
    A = np.diag(np.ones(len(a) - 1), -1)
    A[0] = -a
    return A


def dense_taps(b, a, h0, length, trained=None):
    """Taps by powers of the companion matrix; C from the trained row, C (I - A^trained), by a linear system with the transpose."""
    A, C = companion(a), b
    if trained:
        C = np.linalg.solve((np.eye(len(a)) - np.linalg.matrix_power(A, trained)).T, b)
    B = np.eye(len(a))[0]
    return np.array([h0] + [C @ np.linalg.matrix_power(A, t - 1) @ B for t in range(1, length)])[:length]


def made(kind="free", channels=4, order=6, length=16, spread=0.3, **options):
    torch.manual_seed(3)
    filter = RTFFilter(channels, order, length=length, denominator=kind, **options).double()
    with torch.no_grad():
        filter.numerator.normal_()
        filter.denominator.add_(spread * torch.randn_like(filter.denominator) / (order if kind == "free" else 1))
    return filter


@pytest.mark.parametrize("numerator", ["wrapped", "causal"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_a", [1, 2, 4])
def test_taps_are_those_of_the_companion_form(kind, num_a, numerator):
    for length in (15, 16):  # the exponent of A is the trained length, odd ones too
        filter = made(kind, length=length, num_a=num_a, numerator=numerator)
        b, a, h0 = (x.detach().numpy() for x in filter.coefficients())
        assert filter.stable().all()
        for wanted in (1, 2, 9, 15, 16, 17, 40):
            expected = [
                dense_taps(b[c], a[c * num_a // 4], h0[c], wanted, length if numerator == "wrapped" else None) for c in range(4)
            ]
            np.testing.assert_allclose(filter(wanted).detach(), expected, atol=1e-10 * np.abs(expected).max())
        assert filter(0).shape == (4, 0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 5, 16, 31])
def test_response(device, kind, length):
    """Orders below and above the trained length."""
    taps_are_the_response(made(kind, length=length).to(device), 40)


def test_slow_poles_show_every_shortcut():
    """With poles next to the circle the response goes round the trained length many times: a missing transpose, an even exponent for
    an odd length, or h_L on tap 0 would each be of the size of the taps."""
    a = np.poly([0.99, -0.985, 0.98 * np.exp(0.5j), 0.98 * np.exp(-0.5j)]).real[1:]
    for length in (31, 32):
        filter = RTFFilter(1, 4, length=length).double()
        with torch.no_grad():
            filter.denominator.copy_(torch.tensor(a)[None])
            filter.numerator.copy_(torch.tensor([[1.0, -0.4, 0.3, 2.0]], dtype=torch.float64))
            filter.feedthrough.fill_(0.5)
        expected = dense_taps(np.array([1.0, -0.4, 0.3, 2.0]), a, 0.5, 100, length)
        system = filter.system()
        np.testing.assert_allclose(filter(100).detach()[0], expected, rtol=1e-9)
        np.testing.assert_allclose(ssmid.impulse_response(system, 100).taps[0], expected, rtol=1e-9)
        assert filter(5)[0, 0] == 0.5
        assert abs(expected[length]) > 0.1  # what would fall on tap 0
        without_transpose = np.linalg.solve(np.eye(4) - np.linalg.matrix_power(companion(a), length), [1.0, -0.4, 0.3, 2.0])
        assert np.abs(without_transpose - (system.num - 0.5 * system.den)[0, 1:].numpy()).max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_an_unstable_filter_grows_to_leaves_its_first_taps_alone(dtype):
    filter = RTFFilter(2, 2, length=64, init="montel").to(dtype)
    with torch.no_grad():
        filter.denominator.copy_(torch.tensor([[-0.2, -1.06], [0.3, 0.5]]))
    taps = filter(512).detach()
    assert taps[0, 64:].abs().max() > 1e6, "that of a pole of modulus 1.13"
    assert torch.equal(taps[:, :64], filter(64).detach())
    b, a, h0 = (x.detach().double().numpy()[1] for x in filter.coefficients())
    np.testing.assert_allclose(taps[1], dense_taps(b, a, h0, 512, 64), atol=1e-6)


def test_clustered_poles():
    """A six-fold pole at 0.9, against 50 digits."""
    import mpmath

    a = np.poly([0.9] * 6)[1:]
    with mpmath.workdps(50):
        h = [mpmath.mpf(0)]
        for t in range(1, 64):
            h.append((1 if t == 1 else 0) - sum(mpmath.mpf(a[j]) * h[t - 1 - j] for j in range(min(6, t))))
    exact = np.array([float(x) for x in h])
    b = np.eye(6)[:1]
    filter = RTFFilter(1, 6, length=48).double()
    with torch.no_grad():
        filter.denominator.copy_(torch.tensor(a)[None])
        filter.numerator.copy_(torch.tensor(wrap_numerator(b, a[None], 48)))
        filter.feedthrough.zero_()
    np.testing.assert_allclose(filter(64).detach()[0], exact, atol=1e-8 * np.abs(exact).max())


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17])
def test_bidirectional(length):
    """Against two dense matrices; odd lengths too."""
    torch.manual_seed(0)
    layer = RTF(3, 4, length=16, bidirectional=True, init="montel").double()
    u = torch.randn(2, length, 3, dtype=torch.float64)
    forward, backward = layer.filter(length), layer.backward_filter(length)
    expected = torch.zeros_like(u)
    for t in range(length):
        for s in range(length):
            expected[:, t] += (forward[:, t - s] if s <= t else backward[:, s - t - 1]) * u[:, s]
    torch.testing.assert_close(layer(u), expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="bidirectional"):
        layer.initial_state(1)


@pytest.mark.parametrize("kind", KINDS)
def test_laws(kind, tmp_path):
    filter = made(kind, channels=2, order=3, length=9, num_a=1)
    for length in (1, 8, 9, 12):
        gradients_are_right(filter, torch.tensor(length), function=lambda f, n: f(int(n)))
    layer = RTF(2, 3, length=9, denominator=kind).double()
    compiles(layer, torch.randn(2, 9, 2, dtype=torch.float64))
    state_dict_travels(lambda: RTF(2, 3, length=9, denominator=kind), tmp_path, lambda m: m(torch.ones(1, 11, 2)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["modal", "companion"])
def test_runs_as_a_recurrence(device, dtype, form):
    """Trained on an odd length; steps, prefill and chunks give the convolution, at lengths above it too, and no step solves anything."""
    torch.manual_seed(1)
    for kind in ("free", "lattice"):
        layer = RTF(4, 4, length=21, denominator=kind, num_a=2).double()
        with torch.no_grad():
            layer.filter.numerator.normal_()
            layer.filter.denominator.copy_(0.5 * torch.randn(2, 4))
            if kind == "free":
                layer.filter.denominator.copy_(lattice_denominator(layer.filter.denominator))
        running = convert(layer, "exact", form=form)
        layer_laws(running, device, dtype, lengths=(1, 2, 7, 21, 40))
        u = torch.randn(2, 40, 4, dtype=torch.float64)
        torch.testing.assert_close(running(u), layer(u), rtol=0, atol=1e-9)


def test_single_precision():
    for kind in KINDS:
        double = made(kind, length=64)
        single = copy.deepcopy(double).float()
        assert single(64).dtype == torch.float32
        torch.testing.assert_close(single(64).double(), double(64), rtol=0, atol=1e-4 * double(64).abs().max().item())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("length", [64, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536])
@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_fused_kernel(length, sets, size):
    """Taps and gradients against the plain functions in float64, numerators of any size; twice under a CUDA graph."""
    torch.manual_seed(0)
    n = min(length // 4, 256)
    b, a, h0 = size * torch.randn(6, n), (2 * torch.rand(sets, n) - 1) / n, torch.randn(6)
    b, a, h0 = ((x.cuda()).requires_grad_() for x in (b, a, h0))
    assert fused_rational_taps(b, a, length)
    gradient = torch.randn(6, length, device="cuda")
    exact = [x.detach().cpu().double().requires_grad_() for x in (b, a, h0)]
    reference = rational_taps(*exact, length)
    expected = torch.autograd.grad(reference, exact, gradient.cpu().double())

    def found():
        taps = rational_taps(b, a, h0, length)
        return [taps, *torch.autograd.grad(taps, (b, a, h0), gradient)]

    found()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = found()
    graph.replay()
    for results in (found(), captured):
        for one, other in zip(results, (reference, *expected), strict=True):
            error = torch.linalg.vector_norm(one.cpu().double() - other) / torch.linalg.vector_norm(other)
            assert error < 2e-5


def test_operators_say_what_they_return():
    """Of coefficients in any order in memory, too: compilers hold an operator to the strides that it promised."""
    b, a, through = torch.randn(6, 4).mT, 0.1 * torch.randn(6, 2).mT, torch.randn(4)
    for operator, arguments in (("rational_taps", (b, a, through, 16)), ("rational_taps_gradient", (b, a, torch.randn(16, 4).mT))):
        torch.library.opcheck(getattr(torch.ops.ssmid, operator).default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_training_finds_a_system():
    """Poles of modulus 0.95 and 0.9, from zeros; gradients reach every parameter."""
    torch.manual_seed(0)
    target = dense_taps(np.array([1.0, -0.3]), np.poly([0.9, -0.95])[1:], 0.2, 64)
    for kind in ("free", "sections", "lattice"):
        filter = RTFFilter(1, 2, length=64, denominator=kind).double()
        optimizer = torch.optim.Adam(filter.parameters(), lr=0.03)
        for _ in range(400):
            optimizer.zero_grad()
            loss = (filter(64) - torch.tensor(target)[None]).square().sum()
            loss.backward()
            optimizer.step()
        assert loss < 1e-2 * (target**2).sum(), kind
        assert filter.stable().all()


def test_unstable_draws_are_told():
    """U(+-1/sqrt n) is unstable in about 22 % of draws at n = 16; all other starts are stable."""
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"\d+ of 400 denominators that were drawn are unstable") as caught:
        filter = RTFFilter(400, 16, length=64, init="xavier")
    radii = np.array([np.abs(np.roots([1, *row])).max() for row in filter.denominator.detach().double().numpy()])
    assert 0.15 < (radii > 1).mean() < 0.3
    assert f"{(radii > 1).sum()} of 400" in str(caught[0].message)
    assert filter.stable().tolist() == (radii < 1).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            for init in ("zeros", "montel", "xavier"):
                if (kind, init) != ("free", "xavier"):
                    assert RTFFilter(50, 16, length=64, denominator=kind, init=init).stable().all()


@pytest.mark.parametrize("order", [1, 2, 5, 64, 256])
def test_products_begin_evenly_spaced(order):
    for kind in ("sections", "poles"):
        a = RTFFilter(2, order, length=512, denominator=kind).double().coefficients()[1].detach()
        expected = torch.zeros_like(a)
        expected[:, -1] = 0.5
        torch.testing.assert_close(a, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("numerator", ["wrapped", "causal"])
@pytest.mark.parametrize("kind", KINDS)
def test_from_systems(rng, kind, numerator):
    poles = np.array([0.6 * np.exp(1j), 0.3j]) if kind != "montel" else np.array([0.2 * np.exp(1j), 0.3j])
    poles = np.concatenate([poles, poles.conj()])
    residues = rng.standard_normal((3, 2)) + 1j * rng.standard_normal((3, 2))
    bank = ssmid.Modal(np.tile(poles, (3, 1)), np.concatenate([residues, residues.conj()], axis=-1), rng.standard_normal(3))
    expected = ssmid.impulse_response(bank, 50).taps
    for system in (bank, ssmid.to_state_space(bank), ssmid.to_transfer_function(bank)):
        filter = RTFFilter.from_system(system, 21, denominator=kind, numerator=numerator, dtype=torch.float64)
        np.testing.assert_allclose(filter(50).detach(), expected, atol=1e-9)
    taps = ssmid.ImpulseResponse(ssmid.impulse_response(bank, 200).taps)
    filter = RTFFilter.from_system(taps, 21, order=4, denominator=kind, numerator=numerator, dtype=torch.float64)
    np.testing.assert_allclose(filter(50).detach(), expected, atol=1e-8)


@pytest.mark.parametrize("length", [12, 13])
@pytest.mark.parametrize(("constrained", "rtf_class"), [(False, "RTF"), (True, "RTF"), (False, "RTF2"), (True, "RTF2")])
def test_checkpoints(rng, length, constrained, rtf_class):
    """Against a circular division, written out: the published kernel with what wraps onto tap 0."""
    ab, h_0 = rng.uniform(-0.4, 0.4, (2 + 6, 3)), rng.standard_normal(6)
    tensors = {"ab": torch.tensor(ab), "h_0": torch.tensor(h_0)}
    tensors |= {"scalar": torch.tensor([0.3, -0.2], dtype=torch.float64)} if constrained else {}
    filter = RTFFilter.from_checkpoint(tensors, length, rtf_class=rtf_class)
    points = length + length % 2
    for c in range(6):
        a, b = ab[c // 3], ab[2 + c]
        a = a / (np.abs(a).sum() + (0.3, 0.2)[c // 3] + 1e-6) if constrained else a
        if rtf_class == "RTF":
            numerator = np.r_[0, b]
        else:
            numerator = np.r_[b @ (np.eye(3) - np.linalg.matrix_power(companion(a), length)), 0]
        denominator, right = (np.r_[x, np.zeros(points - 4)] for x in (np.r_[1, a], numerator))
        kernel = np.linalg.solve(np.array([np.roll(denominator, j) for j in range(points)]).T, right)
        kernel[0] += h_0[c]
        np.testing.assert_allclose(filter(length)[c].detach(), kernel[:length], atol=1e-12)
    assert filter.denominator_kind == ("montel" if constrained else "free")
    layer = RTF.from_checkpoint(tensors, length, rtf_class=rtf_class, bidirectional=True)
    u = torch.randn(2, length, 3, dtype=torch.float64)
    k, g = filter(length)[:3].detach(), filter(length)[3:].detach()
    expected = torch.zeros_like(u)
    for t in range(length):
        for s in range(length):
            expected[:, t] += (k[:, t - s] if s <= t else g[:, s - t - 1]) * u[:, s]
    torch.testing.assert_close(layer(u), expected, rtol=0, atol=1e-12)


def test_a_state_dict_says_for_which_length(tmp_path):
    first, second = made(length=16), RTFFilter(4, 6, length=99).double()
    second.load_state_dict(first.state_dict())
    assert second.length == 16
    assert torch.equal(first(30), second(30))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RTFFilter(4, 0, length=8), "order: expected at least 1, got 0"),
        (lambda: RTFFilter(4, 2, length=0), "length: expected at least 1, got 0"),
        (lambda: RTFFilter(4, 2, length=8, num_a=3), "divides the 4 channels, got 3"),
        (lambda: RTFFilter(4, 2, length=8, denominator="none"), "denominator: expected one of free, montel, sections"),
        (lambda: RTFFilter(4, 2, length=8, init="ones"), "init: expected one of zeros, montel, xavier, got 'ones'"),
        (lambda: RTFFilter.from_system(ssmid.tf([1.0], [1, -0.5]), 8), r"batch shape \(channels,\)"),
        (lambda: RTFFilter.from_system(ssmid.from_ba([[0.0, 1.0]], [[1, -1.5]]), 8, denominator="lattice"), "inside the unit circle"),
        (lambda: RTFFilter.from_system(ssmid.from_ba([[0.0, 1, 0]], [[1, -1.5, 0.6]]), 8, denominator="montel"), "'montel', got 2.1"),
        (lambda: RTFFilter.from_checkpoint({"ab": torch.zeros(3, 2)}, 8), "expected 'ab' and 'h_0', got"),
        (lambda: RTFFilter.from_checkpoint({"ab": torch.zeros(3, 2), "h_0": torch.zeros(3)}, 8), "denominators dividing the channels"),
        (lambda: RTFFilter.from_checkpoint({}, 8, rtf_class="RTF3"), "rtf_class: expected RTF or RTF2"),
    ],
)  # fmt: skip
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
