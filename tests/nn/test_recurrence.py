"""Modal and companion recurrences: the laws, prompts of a hundred thousand tokens, forms that would lose digits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import ssmid
from ssmid.nn import CompanionRecurrence, ExplicitFilter, FilterLayer, ModalRecurrence, recurrence
from ssmid.nn.prompt_state import prompt_state
from ssmid.nn.recurrence import run_error
from ssmid.systems import ConversionWarning
from tests.nn.laws import DEVICES, DTYPES, LENGTHS, compiles, layer_laws, recurrence_laws, state_dict_travels, taps_are_the_response


def bank(channels: int = 4, radius: float = 0.97) -> ssmid.Modal:
    """Three pairs and a real pole a channel; one channel of smaller order, padded with zeros, and one with a delay (a pole at 0)."""
    rng = np.random.default_rng(3)
    pair = rng.uniform(0.3, radius, (channels, 3)) * np.exp(1j * rng.uniform(0.1, 3.0, (channels, 3)))
    residues = rng.standard_normal((channels, 3)) + 1j * rng.standard_normal((channels, 3))
    poles = np.concatenate([pair, pair.conj(), rng.uniform(-radius, radius, (channels, 1))], -1)
    residues = np.concatenate([residues, residues.conj(), rng.standard_normal((channels, 1))], -1)
    poles[1, [0, 3]] = residues[1, [0, 3]] = 0
    poles[2, -1], residues[2, -1] = 0, 1.5
    return ssmid.Modal(poles, residues, rng.standard_normal(channels))


def made(form: str) -> ModalRecurrence | CompanionRecurrence:
    return ModalRecurrence(bank()) if form == "modal" else CompanionRecurrence(ssmid.to_transfer_function(bank(radius=0.8)))


def by_hand(poles: np.ndarray, residues: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(outputs less the feedthrough, state)``, token by token in complex128, of full modal banks ``(channels, d)``."""
    state, outputs = np.zeros(poles.shape, complex), []
    for t in range(u.shape[-1]):
        outputs.append((residues * state).sum(-1).real)
        state = poles * state + u[..., t, None]
    return np.stack(outputs, -1), state


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["modal", "companion"])
def test_laws(form, dtype, device):
    recurrence_laws(made(form), device, dtype, (*LENGTHS, 300))
    layer_laws(FilterLayer(made(form)), device, dtype)


@pytest.mark.parametrize("form", ["modal", "companion"])
def test_taps_are_those_of_the_system(form):
    module = made(form)
    taps_are_the_response(module)
    given = bank() if form == "modal" else bank(radius=0.8)
    np.testing.assert_allclose(module(60), ssmid.impulse_response(given, 60).taps, atol=1e-9)
    assert module(0).shape == (4, 0)


def test_one_pole_of_each_pair_is_kept_and_padding_is_dropped():
    module = ModalRecurrence(bank())
    assert module.modes == 4
    assert module.initial_state(2, 3).shape == (2, 3, 4, 4)
    assert module.initial_state(1).dtype == torch.complex128
    assert (torch.view_as_complex(module.poles).imag >= 0).all()
    assert (module.poles[1, 3:] == 0).all()
    assert (module.residues[1, 3:] == 0).all()


def test_outputs_are_those_of_the_recurrence_by_hand():
    u, system = np.random.default_rng(0).standard_normal((4, 50)), bank()
    expected, _ = by_hand(system.poles, system.residues, u)
    y, _ = ModalRecurrence(system).prefill(torch.tensor(u)[None])
    np.testing.assert_allclose(y[0], expected + system.feedthrough[:, None] * u, atol=1e-10)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("by", ["reduction", "scan", "fft", "recurrence"])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_all_ways_lead_to_the_same_state(by, length, device):
    rng = np.random.default_rng(length)
    poles = np.sqrt(rng.uniform(0, 1, (3, 5))) * np.exp(1j * rng.uniform(-3, 3, (3, 5)))
    u = rng.standard_normal((3, length))
    _, expected = by_hand(poles, poles, u)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        found = prompt_state(torch.tensor(u, dtype=dtype, device=device)[None], torch.tensor(poles, device=device), by)
        assert np.abs(found[0].cpu().numpy() - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("device", DEVICES)
def test_a_hundred_thousand_tokens_in_single_precision(device):
    """Poles of modulus 0.9999: the state, and the outputs that follow, beside those in double precision of the same numbers."""
    tokens = 100_000
    poles = 0.9999 * np.exp(1j * np.array([[0.0, 1e-4, 1e-2, 1.0, 3.1]]))
    system = ssmid.Modal(poles.astype(np.complex64), np.ones_like(poles, np.complex64))
    module = ModalRecurrence(system).to(device)
    exact = ModalRecurrence(ssmid.Modal(np.asarray(system.poles, complex), np.ones_like(poles), np.zeros(1)))
    u = torch.randn(1, 1, tokens, generator=torch.Generator().manual_seed(1))
    _, state = module.prefill(u.to(device))
    expected = prompt_state(u.double(), torch.view_as_complex(exact.poles))
    stepped = prompt_state(u.double(), torch.view_as_complex(exact.poles), "recurrence")
    assert torch.linalg.vector_norm(expected - stepped) <= 1e-10 * torch.linalg.vector_norm(stepped)
    error = torch.linalg.vector_norm(state.cpu() - expected, dim=-1) / torch.linalg.vector_norm(expected, dim=-1)
    assert float(error.max()) < 3e-6
    _, halves = module.prefill(u[..., 40_001:].to(device), module.prefill(u[..., :40_001].to(device))[1])
    assert torch.linalg.vector_norm(halves - state) <= 3e-6 * torch.linalg.vector_norm(state)


def test_real_and_imaginary_parts_move_at_once():
    """A public decoder writes Re(state) before Im(state) is computed from it; another takes powers of the parts one by one."""
    pole, u = 0.9 * np.exp(0.5j), np.random.default_rng(0).standard_normal(20)
    module = ModalRecurrence(ssmid.Modal(np.array([[pole]]), np.array([[1.0 + 0.5j]])))
    _, state = module.prefill(torch.tensor(u)[None, None])
    weights = pole ** np.arange(19, -1, -1)
    np.testing.assert_allclose(state[0, 0, 0], (weights * u).sum(), rtol=1e-12)
    apart = (pole.real ** np.arange(19, -1, -1) * u).sum() + 1j * (pole.imag ** np.arange(19, -1, -1) * u).sum()
    assert abs(state[0, 0, 0].item() - apart) > 0.1 * abs(apart)
    inside = state.clone()
    module.step_(torch.zeros(1, 1, dtype=torch.float64), inside)
    np.testing.assert_allclose(inside[0, 0, 0], pole * state[0, 0, 0], rtol=1e-14)
    overwritten = pole.real * state.real - pole.imag * state.imag
    assert abs(float(inside.imag - (pole.real * state.imag + pole.imag * overwritten))) > 1e-2


def test_poles_stay_in_single_precision_whatever_the_model_is_cast_to():
    module = ModalRecurrence(ssmid.Modal(np.array([[0.9999]]), np.array([[1.0]])))
    for cast in (module.bfloat16(), module.half(), module.to(torch.bfloat16)):
        assert cast.poles.dtype == torch.float32
        assert float(cast.poles[0, 0, 0]) == np.float32(0.9999)
    assert module.double().poles.dtype == torch.float64
    y, state = module.float().prefill(torch.ones(1, 1, 3, dtype=torch.bfloat16))
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.complex64)


def test_double_precision_is_kept_where_residues_cancel():
    poles, residues = np.array([[0.9, 0.9 + 1e-6]], np.float32), np.array([[1e6, -1e6]], np.float32)
    module = ModalRecurrence(ssmid.Modal(poles, residues), keeps_double=True)
    for cast in (module.bfloat16(), module.half(), module.to(torch.float32), module.to("cpu", torch.bfloat16)):
        assert cast.poles.dtype == cast.residues.dtype == cast.feedthrough.dtype == torch.float64
    y, state = module.prefill(torch.ones(1, 1, 3, dtype=torch.bfloat16))
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.complex128)
    assert module.step(torch.ones(1, 1), state)[0].dtype == torch.float32
    u = torch.randn(1, 1, 50, dtype=torch.float64)
    expected, _ = by_hand(poles.astype(complex), residues.astype(complex), u[0].numpy())
    np.testing.assert_allclose(module.convolve(u)[0], expected, atol=1e-10)


@pytest.mark.parametrize("form", ["modal", "companion"])
def test_state_dict_and_compilation(form, tmp_path):
    state_dict_travels(lambda: made(form), tmp_path, lambda module: module(9))
    module = made(form)
    u, state = torch.randn(2, 4).double(), module.prefill(torch.randn(2, 4, 7).double())[1]
    compiles(module.step, u, state)
    compiles(lambda u, state: (module.step_(u, state := state.clone()), state), u, state)
    if form == "modal":  # coefficients become taps on the host
        compiles(module.prefill, torch.randn(2, 4, 7).double(), fullgraph=False)


def test_the_form_fits_the_system():
    whole = bank(radius=0.8)
    system = ssmid.Modal(whole.poles[[0, 3]], whole.residues[[0, 3]], whole.feedthrough[[0, 3]])
    taps = ssmid.impulse_response(system, 40).taps
    for other in (system, ssmid.to_state_space(system), ssmid.to_transfer_function(system), ssmid.to_zpk(system)):
        found = recurrence(other)
        assert isinstance(found, ModalRecurrence)
        np.testing.assert_allclose(found(40), taps, atol=1e-9)
    assert isinstance(recurrence(ssmid.to_state_space(system), "companion"), CompanionRecurrence)


def test_repeated_poles_run_in_companion_form_and_say_so():
    double_pole = ssmid.tf([[0.0, 0.0, 0.0, 1.0]], [np.poly([0.5, 0.5, 0.5])])
    with pytest.warns(ConversionWarning, match="companion form, as poles repeat"):
        found = recurrence(double_pole)
    assert isinstance(found, CompanionRecurrence)
    t = np.arange(1, 30)
    np.testing.assert_allclose(found(30)[0, 1:], (t - 1) * (t - 2) / 2 * 0.5 ** (t - 3.0), atol=1e-12)


@pytest.mark.parametrize(
    ("upper", "companion", "modal"),
    [
        (0.99 * np.exp(1j * np.linspace(0.2, 2.9, 8)), (0, 1e-6), (0, 1e-5)),
        (0.99 * np.exp(1j * np.array([0.1, 0.12])), (1e-3, 1e-1), (0, 2e-6)),
        (0.95 * np.exp(1j * np.linspace(0.1, 0.4, 4)), (0.1, 1), (0, 2e-6)),
    ],
)
def test_what_each_form_loses_in_single_precision(upper, companion, modal):
    """The table of CompanionRecurrence: no loss where poles are apart, all digits where they are close."""
    poles = np.concatenate([upper, upper.conj()])[None]
    exact = ssmid.Modal(poles, np.ones_like(poles))
    coefficients = ssmid.to_transfer_function(exact)
    single = [
        (CompanionRecurrence(ssmid.TransferFunction(coefficients.num.astype(np.float32), coefficients.den.astype(np.float32))), companion),
        (ModalRecurrence(ssmid.Modal(poles.astype(np.complex64), np.ones_like(poles, np.complex64))), modal),
    ]
    for module, (low, high) in single:
        assert low <= run_error(module, exact.map(torch.tensor)) < high


def test_a_form_that_loses_digits_is_refused_with_its_error():
    """Eight poles between 0.9 and 0.99 in single precision: nothing is left of a companion form, and modal residues cancel."""
    close = ssmid.zpk(np.zeros((1, 0)), np.linspace(0.9, 0.99, 8)[None], np.array([1e-9]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        coefficients = ssmid.to_transfer_function(close)
    single = ssmid.TransferFunction(coefficients.num.astype(np.float32), coefficients.den.astype(np.float32))
    with pytest.raises(ValueError, match=r"represents to 1e-04 of its outputs, got errors companion .*e.*pass float64"):
        recurrence(single, "companion")


def test_bad_input():
    good = bank()
    poles = np.array(good.poles)
    poles[2, 0] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 of 4 channels: 2"):
        ModalRecurrence(ssmid.Modal(poles, good.residues))
    with pytest.raises(ValueError, match=r"batch shape \(channels,\), got \(\)"):
        ModalRecurrence(ssmid.Modal(np.array([0.5]), np.array([1.0])))
    with pytest.raises(ValueError, match="real"):
        ModalRecurrence(ssmid.Modal(np.array([[0.5j]]), np.array([[1.0]]), real=False))
    with pytest.raises(ValueError, match="c2d"):
        recurrence(ssmid.Modal(np.array([[-0.5]]), np.array([[1.0]]), dt=0))
    with pytest.raises(ValueError, match=r"ssmid\.distill finds one"):
        recurrence(ExplicitFilter(torch.ones(2, 9)).system())
    with pytest.raises(TypeError, match="System"):
        recurrence(np.ones((2, 9)))
    with pytest.raises(ValueError, match="form: expected"):
        recurrence(good, "diagonal")
    module = ModalRecurrence(good)
    with pytest.raises(ValueError, match=r"state: expected complex128 of shape \(2, 4, 4\), got complex128 of shape \(1, 4, 4\)"):
        module.step(torch.zeros(2, 4), module.initial_state(1))
    with pytest.raises(ValueError, match="u: expected"):
        module.prefill(torch.zeros(2, 5, 7))
    with pytest.raises(ValueError, match="state_by: expected"):
        module.prefill(torch.zeros(2, 4, 7), state_by="magic")
