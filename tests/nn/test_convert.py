"""Filters of a model in the place of recurrences: by distilling, from a file, exactly, and what cannot be."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import ssmid
from ssmid.nn import (
    CachedConvolution,
    CompanionRecurrence,
    ExplicitFilter,
    Filter,
    FilterLayer,
    ModalRecurrence,
    conversions,
    convert,
)
from tests.nn.laws import layer_laws

torch.manual_seed(0)


def decaying(channels: int, length: int = 96) -> torch.Tensor:
    """Taps of order 4 in every channel, and a first tap of their own."""
    rng = np.random.default_rng(channels)
    poles = rng.uniform(0.5, 0.9, (channels, 2)) * np.exp(1j * rng.uniform(0.3, 2.5, (channels, 2)))
    taps = ssmid.impulse_response(ssmid.Modal(poles, rng.standard_normal((channels, 2)) + 0j, rng.standard_normal(channels)), length).taps
    return torch.tensor(taps, dtype=torch.float32)


class Rational(Filter):
    """A system with a few states whose taps are made from it."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.poles = nn.Parameter(torch.linspace(-0.6, 0.7, channels))

    def system(self) -> ssmid.Modal:
        poles = self.poles.detach()[:, None]
        return ssmid.Modal(poles, torch.ones_like(poles), torch.full_like(poles[:, 0], 0.5))

    def forward(self, length: int) -> torch.Tensor:
        later = self.poles[:, None] ** torch.arange(max(0, length - 1), device=self.poles.device)
        return torch.cat([0.5 * torch.ones_like(later[:, :1]), later], dim=-1)[:, :length]


def model() -> nn.Sequential:
    """Two layers that can run as recurrences, one that runs both ways, and what is no filter."""
    return nn.Sequential(
        FilterLayer(ExplicitFilter(decaying(3))),
        nn.Linear(3, 3),
        nn.ModuleDict({"mixer": FilterLayer(ExplicitFilter(decaying(3, 80)))})["mixer"],
        FilterLayer(ExplicitFilter(decaying(3)), ExplicitFilter(decaying(3))),
        nn.MultiheadAttention(3, 1),
    )


def filters_of(module: nn.Module) -> dict[str, str]:
    return {name: type(m).__name__ for name, m in module.named_modules() if isinstance(m, Filter)}


def test_every_filter_but_the_bidirectional_ones_becomes_a_recurrence():
    given = model()
    before = copy.deepcopy(given.state_dict())
    running = convert(given, ssmid.distill, order=4)
    assert filters_of(running) == {
        "0.filter": "ModalRecurrence", "2.filter": "ModalRecurrence", "3.filter": "ExplicitFilter", "3.backward_filter": "ExplicitFilter",
    }  # fmt: skip
    assert set(filters_of(given).values()) == {"ExplicitFilter"}
    assert all(torch.equal(x, before[name]) for name, x in given.state_dict().items())
    u = torch.randn(2, 60, 3)
    for at in (0, 2):
        torch.testing.assert_close(running[at](u), given[at](u), rtol=0, atol=1e-3)
        layer_laws(running[at], "cpu", torch.float32)
    notes = conversions(running)
    assert {name: (note.order, note.length) for name, note in notes.items()} == {"0.filter": (4, 96), "2.filter": (4, 80)}
    for at, name in ((0, "0.filter"), (2, "2.filter")):
        exact, found = given[at].filter(notes[name].length), running[at].filter(notes[name].length)
        error = (found - exact)[:, 1:].norm(dim=-1) / exact[:, 1:].norm(dim=-1)
        np.testing.assert_allclose(notes[name].error, error.detach(), rtol=1e-3, atol=1e-7)
        assert float(error.max()) < 1e-3
        assert torch.equal(found[:, 0], exact[:, 0])


def test_in_place_and_one_filter_in_two_places():
    shared = FilterLayer(ExplicitFilter(decaying(3)))
    given = nn.ModuleDict({"a": shared, "b": FilterLayer(shared.filter)})
    assert convert(given, ssmid.distill, order=4, inplace=True) is given
    assert given["a"].filter is given["b"].filter
    assert isinstance(given["a"].filter, ModalRecurrence)
    alone = convert(ExplicitFilter(decaying(2)), ssmid.distill, order=2, form="modal")
    assert isinstance(alone, ModalRecurrence)
    assert convert(alone, ssmid.distill, order=2) is alone


def test_a_filter_that_a_bidirectional_layer_has_too():
    shared = ExplicitFilter(decaying(3))
    model = nn.Sequential(FilterLayer(shared, shared), FilterLayer(shared))
    found, u = convert(model, ssmid.distill, order=1), torch.randn(1, 6, shared.channels)
    assert isinstance(found[1].filter, ModalRecurrence)
    torch.testing.assert_close(found[0](u), model[0](u))
    assert found[0].filter is found[0].backward_filter


@pytest.mark.parametrize("name", ["0", "1.filter"])
def test_a_filter_in_two_places_is_found_under_one_name(name):
    """Files of safetensors hold it once."""
    shared = ExplicitFilter(decaying(3))
    found = convert(nn.Sequential(FilterLayer(shared), FilterLayer(shared)), {name: ssmid.distill(shared.system(), order=1)})
    assert isinstance(found[0].filter, ModalRecurrence)
    assert found[0].filter is found[1].filter


def test_exactly_where_a_filter_has_a_few_states():
    given = nn.ModuleDict({"m": FilterLayer(Rational())})
    for form, kind in (("modal", ModalRecurrence), ("companion", CompanionRecurrence)):
        running = convert(given, "exact", form=form)
        assert isinstance(running["m"].filter, kind)
        torch.testing.assert_close(running["m"].filter(40), given["m"].filter(40).detach(), rtol=0, atol=1e-6)
        assert float(conversions(running)["m.filter"].error.max()) < 1e-6
        assert conversions(running)["m.filter"].order == 1
    with pytest.raises(ValueError, match=r"0\.filter, a ExplicitFilter of 3 channels: expected a system with a few states for 'exact'"):
        convert(model(), "exact")


def test_from_a_mapping_and_from_what_distill_wrote(tmp_path):
    given = model()
    fits = {name: ssmid.distill(given.get_submodule(name).system(), 4) for name in ("0.filter", "2.filter")}
    running = convert(given, fits)
    torch.testing.assert_close(running[0].filter(96), given[0].filter(96).detach(), rtol=0, atol=1e-3)
    numpy = {name: ssmid.distill(given.get_submodule(name).system().taps.numpy(), 4).system for name in fits}
    from_numpy = convert(given, numpy)
    assert from_numpy[0].filter.poles.dtype == torch.float32
    torch.testing.assert_close(from_numpy[0].filter(96), given[0].filter(96).detach(), rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match=r"missing: 2\.filter; left over: 9\.filter"):
        convert(given, {"0.filter": fits["0.filter"], "9.filter": fits["2.filter"]})
    other_bypass = {name: ssmid.Modal(f.poles, f.residues, f.feedthrough + 5) for name, f in numpy.items()}
    for form in ("modal", "companion"):
        assert torch.equal(convert(given, other_bypass, form=form)[0].filter(1), given[0].filter(1))
    narrow = ssmid.Modal(np.array([[0.5], [0.6]]), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"2\.filter, .*expected a bank of 3 channels, got batch shape \(2,\)"):
        convert(given, {**fits, "2.filter": narrow})


def test_recurrences_that_keep_all_inputs():
    given = FilterLayer(ExplicitFilter(decaying(3)))
    running = convert(given, CachedConvolution, max_length=128)
    assert isinstance(running.filter, CachedConvolution)
    assert conversions(running)["filter"].order is None
    assert float(conversions(running)["filter"].error.max()) == 0.0
    layer_laws(running, "cpu", torch.float64)


def test_taps_of_a_length_are_distilled_where_it_is_given():
    seen = []

    def how(system, order):
        seen.append(system)
        return ssmid.distill(system, order)

    running = convert(FilterLayer(Rational()), how, length=50, order=1)
    assert isinstance(seen[0], ssmid.ImpulseResponse)
    assert seen[0].length == 50 == conversions(running)["filter"].length
    convert(FilterLayer(Rational()), how, order=1)
    assert isinstance(seen[1], ssmid.Modal)


def test_what_cannot_be_converted_names_the_layer_and_says_why():
    spoiled = model()
    with torch.no_grad():
        spoiled[2].filter.taps[1, 5] = float("nan")
    with pytest.raises(ValueError, match=r"2\.filter, a ExplicitFilter of 3 channels: .*NaN.* in 1 channels \(1\), parameters taps"):
        convert(spoiled, ssmid.distill, order=4)
    with pytest.raises(ValueError, match=r"0\.filter, .*order"):
        convert(model(), ssmid.distill, order=-3)
    with pytest.raises(TypeError, match=r"0\.filter, .*expected a system, or a result that has one, got int"):
        convert(model(), lambda system: 3)
    with pytest.raises(TypeError, match="how: expected a function"):
        convert(model(), 16)
    with pytest.raises(TypeError, match="model: expected a torch module"):
        convert(np.ones(3), ssmid.distill)


def test_models_in_half_precision_and_evaluation_mode():
    given = FilterLayer(ExplicitFilter(decaying(3))).bfloat16().eval()
    running = convert(given, ssmid.distill, order=4)
    assert running.filter.poles.dtype == torch.float32
    assert not running.filter.training
    y, state = running.prefill(torch.randn(2, 9, 3, dtype=torch.bfloat16))
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.complex64)


def test_a_model_without_filters_is_said_to_stay_as_it_is(recwarn):
    with pytest.warns(UserWarning, match="expected filters of ssmid.nn, found none in MultiheadAttention: nothing is converted"):
        same = convert(nn.MultiheadAttention(4, 2), ssmid.distill, order=4)
    assert conversions(same) == {}
    recwarn.clear()
    convert(convert(FilterLayer(Rational()), "exact"), "exact")
    assert not recwarn, "a recurrence is a filter"
