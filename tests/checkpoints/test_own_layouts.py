"""What the layers and language models of this package save is read back as the systems that they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ssmid
from ssmid.nn import H3, S4, FilterLayer, Hyena, LanguageModel, ModalFilter, RTFFilter, S4DFilter, convert
from ssmid.nn.filter import Filter
from tests.nn.laws import close


def saved(model, path):
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


FILTERS = {
    "rtf-filter free": (lambda: RTFFilter(4, 3, length=9, num_a=2, init="montel"), {"denominator": "free"}),
    "rtf-filter montel": (lambda: RTFFilter(4, 3, length=9, denominator="montel", init="montel"), {"denominator": "montel"}),
    "rtf-filter sections": (lambda: RTFFilter(4, 3, length=8, denominator="sections", init="xavier"), {"denominator": "sections"}),
    "rtf-filter lattice": (
        lambda: RTFFilter(4, 3, length=8, denominator="lattice", numerator="causal", init="xavier"),
        {"denominator": "lattice", "numerator": "causal"},
    ),
    "rtf-filter poles": (lambda: RTFFilter(4, 3, length=8, denominator="poles", init="xavier"), {"denominator": "poles"}),
    "modal-filter": (lambda: ModalFilter(4, 6), {}),
    "s4-filter": (lambda: S4(4, 8, 16, sets=2).filter, {}),
    "s4d-filter zoh": (lambda: S4DFilter(4, 6), {"disc": "zoh"}),
    "s4d-filter bilinear": (lambda: S4DFilter(4, 6, discretization="bilinear", sets=2), {"disc": "bilinear"}),
    "s4d-filter real": (lambda: S4DFilter(4, 3, "real"), {"disc": "zoh"}),
}


@pytest.mark.parametrize("kind", FILTERS)
def test_filters(tmp_path, kind):
    make, settings = FILTERS[kind]
    filter: Filter = make()
    path = saved(FilterLayer(filter), tmp_path / "model.safetensors")
    (layer,) = ssmid.read_checkpoint(path, settings=settings).layers
    assert (layer.name, layer.layout, layer.batch) == ("filter", kind.split()[0], (4,))
    taps = filter.double()(20).detach()
    np.testing.assert_allclose(ssmid.impulse_response(layer.load(), 20).taps, taps, rtol=0, atol=1e-9 * float(taps.abs().max()))


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"mixer": "rtf", "order": 4}, {"denominator": "sections"}),
        ({"filter": "modal", "order": 4}, {}),
        ({"filter": "explicit"}, {}),
        ({"filter": "implicit"}, {}),
        ({"mixer": "multihyena", "heads": 2, "filter": "implicit"}, {}),
        ({"mixer": "h3", "order": 4}, {"disc": "bilinear"}),
        ({"mixer": lambda width: Hyena(width, 3, trained_length=32)}, {}),
        ({"mixer": lambda width: H3(width, 4, head_dim=2)}, {"disc": "bilinear"}),
    ],
)
def test_language_models_run_from_what_was_read(tmp_path, options, settings):
    """The layers by the names that ``convert`` asks for: read, distilled without loss or nearly so, and put in the place of the filters."""
    model = LanguageModel(10, 8, 2, **{"length": 32, **options})
    checkpoint = ssmid.read_checkpoint(saved(model, tmp_path / "model.safetensors"), settings=settings)
    filters = {name: module for name, module in model.named_modules() if isinstance(module, Filter)}
    assert len(checkpoint.layers) == len(filters)
    for layer, filter in zip(checkpoint.layers, filters.values(), strict=True):
        close(torch.as_tensor(ssmid.impulse_response(layer.load(), 32).taps), filter(32), torch.float32)
    fits = {layer.name: ssmid.distill(layer.load(), order=4) for layer in checkpoint.layers}
    if any(isinstance(filter, ModalFilter) for filter in filters.values()):
        return
    assert convert(model, fits).generate([1, 2], 3).shape == (3,)


def test_what_no_tensor_says_is_asked_for(tmp_path):
    path = saved(FilterLayer(RTFFilter(2, 2, length=8)), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="denominator"):
        ssmid.read_checkpoint(path)
    with pytest.raises(ValueError, match=r"denominator: expected free, montel .*got 'section'"):
        ssmid.read_checkpoint(path, settings={"denominator": "section"}).layers[0].load()
    with pytest.raises(ValueError, match="numerator: expected wrapped or causal, got 'other'"):
        ssmid.read_checkpoint(path, settings={"denominator": "free", "numerator": "other"}).layers[0].load()
