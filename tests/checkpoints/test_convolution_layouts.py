"""Filters of Hyena, MultiHyena and long convolutions read from checkpoints, against layers that were run."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ssmid
from tests.checkpoints.safari_layers import ImplicitFilter, LongConvolution, Mixer, Model, Sine, convolved

WIDTH, LENGTH = 6, 40


@pytest.fixture(autouse=True)
def float64_and_seed():
    torch.manual_seed(20261122)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def saved(module, folder, config=None, drop=()):
    state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items() if not any(d in name for d in drop)}
    save_file(state, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


@pytest.mark.parametrize("inner", [0, 1, 2, 3])
def test_hyena(tmp_path, inner):
    mixers = [Mixer(WIDTH, LENGTH, inner=inner) for _ in range(11)]
    path = saved(Model(mixers), tmp_path)
    layers = ssmid.read_checkpoint(path).layers
    assert [layer.name for layer in layers] == [f"backbone.layers.{i}.mixer" for i in range(11)]
    for layer, mixer in zip(layers, mixers, strict=True):
        assert (layer.layout, layer.batch, layer.length, layer.shape) == ("hyena", (WIDTH,), LENGTH, (WIDTH, LENGTH))
        system = layer.load()
        assert system.taps.dtype == np.float64
        np.testing.assert_allclose(system.taps, mixer.filter_fn.taps(LENGTH), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [3, 4])
def test_filters_of_a_longer_recurrence_are_those_that_the_layer_runs(tmp_path, order):
    mixer = Mixer(4, 20, order=order)
    (layer,) = ssmid.read_checkpoint(saved(mixer, tmp_path)).layers
    assert layer.batch == (order - 1, 4)
    filters = torch.asarray(layer.load().taps)
    u = torch.randn(20, 4)
    *gates, v = mixer.short_filter(mixer.in_proj(u).T[None])[0, :, :20].split(4)
    for step in range(order - 1):
        v = torch.stack([convolved(h, row) for h, row in zip(filters[step], v * gates[order - 1 - step], strict=True)])
    np.testing.assert_allclose((v * gates[0]).detach(), mixer.gated(u).detach(), atol=1e-12)


def test_standalone_counts_steps_first(tmp_path):
    mixer = Mixer(4, 20, order=3)
    path = saved(mixer, tmp_path)
    (layer,) = ssmid.read_checkpoint(path, layout="hyena-standalone").layers
    np.testing.assert_allclose(layer.load().taps, mixer.filter_fn.taps(20).reshape(2, 4, 20), atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_multihyena_has_a_filter_for_each_head(tmp_path, heads):
    mixer = Mixer(WIDTH, LENGTH, heads=heads)
    path = saved(Model([mixer]), tmp_path)
    (layer,) = ssmid.read_checkpoint(path).layers
    assert (layer.layout, layer.batch) == ("multihyena", (heads,))
    np.testing.assert_allclose(layer.load().taps, mixer.filter_fn.taps(LENGTH), atol=1e-12)


def test_heads_of_a_hyena_share_filters(tmp_path):
    """The same tensors, where the configuration says that channels were split into heads: 6 channels in 3 heads of 2 filters."""
    path = saved(Mixer(WIDTH, LENGTH, heads=2), tmp_path, {"layer": {"num_heads": 3}})
    (layer,) = ssmid.read_checkpoint(path).layers
    assert (layer.layout, layer.batch) == ("hyena", (2,))


def test_a_filter_alone_under_any_name(tmp_path):
    holder = torch.nn.Module()
    holder.anything = ImplicitFilter(3, LENGTH)
    (layer,) = ssmid.read_checkpoint(saved(holder, tmp_path)).layers
    assert (layer.name, layer.layout, layer.batch) == ("anything", "hyena-filter", (3,))
    np.testing.assert_allclose(layer.load().taps, holder.anything.taps(LENGTH), atol=1e-12)


@pytest.mark.parametrize("options", [{"shift": 0.05}, {"modulate": False}, {"normalized": True}, {"shift": 0.1, "normalized": True}])
@pytest.mark.parametrize("given", ["settings", "config"])
def test_options_that_no_tensor_says(tmp_path, options, given):
    mixer = Mixer(WIDTH, LENGTH, **options)
    path = saved(Model([mixer]), tmp_path, {"model_config": {"layer": {"_name_": "hyena", **options}}} if given == "config" else None)
    (layer,) = ssmid.read_checkpoint(path, settings=options if given == "settings" else None).layers
    np.testing.assert_allclose(layer.load().taps, mixer.filter_fn.taps(LENGTH), atol=1e-12)


def test_callers_know_better_than_config(tmp_path):
    mixer = Mixer(WIDTH, LENGTH)
    path = saved(mixer, tmp_path, {"modulate": False})
    (layer,) = ssmid.read_checkpoint(path, settings={"modulate": True}).layers
    np.testing.assert_allclose(layer.load().taps, mixer.filter_fn.taps(LENGTH), atol=1e-12)


def test_bias_can_be_unused(tmp_path):
    mixer = Mixer(WIDTH, LENGTH)
    (layer,) = ssmid.read_checkpoint(saved(mixer, tmp_path), settings={"use_bias": False}).layers
    np.testing.assert_allclose(layer.load().taps, mixer.filter_fn.filter(LENGTH).detach().T, atol=1e-12)


@pytest.mark.parametrize("drop", [("freq",), (".3.freq", ".5.freq"), ("pos_emb",), ("pos_emb.t",)])
def test_what_checkpoints_leave_out(tmp_path, drop):
    """safetensors.torch.save_model keeps one name of a shared tensor; buffers are not always stored."""
    mixer = Mixer(WIDTH, LENGTH)
    with torch.no_grad():
        mixer.filter_fn.implicit_filter[1].freq.fill_(10.0)
    path = saved(mixer, tmp_path, {"layer": {"l_max": LENGTH, "w": 10}}, drop)
    (layer,) = ssmid.read_checkpoint(path).layers
    np.testing.assert_allclose(layer.load().taps, mixer.filter_fn.taps(LENGTH), atol=1e-12)


def test_layers_with_sines_of_their_own(tmp_path):
    mixer = Mixer(WIDTH, LENGTH)
    for place in (3, 5):
        mixer.filter_fn.implicit_filter[place] = Sine(8, 1.0 * place)
    (layer,) = ssmid.read_checkpoint(saved(mixer, tmp_path)).layers
    np.testing.assert_allclose(layer.load().taps, mixer.filter_fn.taps(LENGTH), atol=1e-12)


@pytest.mark.parametrize(("drop", "said"), [("pos_emb", "l_max"), ("freq", "w \\(the frequency")])
def test_what_nobody_says_is_asked_for(tmp_path, drop, said):
    path = saved(Mixer(WIDTH, LENGTH), tmp_path, drop=(drop,))
    with pytest.raises(ValueError, match=rf"hyena: expected .*{said}"):
        ssmid.read_checkpoint(path).layers[0].load()


def test_shorter_filters_are_the_beginning(tmp_path):
    mixer = Mixer(WIDTH, LENGTH)
    (layer,) = ssmid.read_checkpoint(saved(mixer, tmp_path), length=7).layers
    assert layer.length == 7
    np.testing.assert_allclose(layer.load().taps, mixer.filter_fn.taps(LENGTH)[:, :7], atol=1e-12)


def test_longer_filters_go_on_where_the_positions_are_the_formula(tmp_path):
    mixer = Mixer(WIDTH, LENGTH)
    path = saved(mixer, tmp_path)
    (layer,) = ssmid.read_checkpoint(path, length=70).layers
    n = np.arange(70)
    phases = np.outer(2 * np.pi * n / LENGTH, np.linspace(1e-4, 1, 2))
    z = np.concatenate([n[:, None] / (LENGTH - 1), np.cos(phases), -np.sin(phases)], 1)
    h = mixer.filter_fn.implicit_filter(torch.asarray(z)).detach().numpy()
    h *= np.exp(-n[:, None] / (LENGTH - 1) * np.abs(mixer.filter_fn.modulation.deltas[0, 0].numpy()))
    h[0] += mixer.filter_fn.bias.detach().numpy()
    np.testing.assert_allclose(layer.load().taps, h.T, atol=1e-11)


def test_trained_positions_cannot_be_continued(tmp_path):
    mixer = Mixer(WIDTH, LENGTH)
    with torch.no_grad():
        mixer.filter_fn.pos_emb.z += 0.1 * torch.randn(1, LENGTH, 5)
    path = saved(mixer, tmp_path)
    np.testing.assert_allclose(ssmid.read_checkpoint(path).layers[0].load().taps, mixer.filter_fn.taps(LENGTH), atol=1e-12)
    with pytest.raises(ValueError, match="length: expected at most 40"):
        ssmid.read_checkpoint(path, length=41).layers[0].load()


def test_a_filter_that_does_not_fit_together_is_a_clear_error(tmp_path):
    mixer = Mixer(WIDTH, LENGTH)
    mixer.filter_fn.implicit_filter[2] = torch.nn.Linear(9, 8)
    (layer,) = ssmid.read_checkpoint(saved(mixer, tmp_path)).layers
    with pytest.raises(ValueError, match=r"hyena: weights\[1\]: expected shape \(any, 8\), got \(8, 9\)"):
        layer.load()


def test_one_bad_filter_leaves_the_others(tmp_path):
    mixer = Mixer(WIDTH, LENGTH)
    with torch.no_grad():
        mixer.filter_fn.modulation.deltas[0, 0, 2] = float("nan")
    (layer,) = ssmid.read_checkpoint(saved(mixer, tmp_path)).layers
    taps = layer.load().taps
    assert np.isnan(taps[2]).all()
    assert np.isfinite(np.delete(taps, 2, 0)).all()


def squashed(kernel, lam):
    return np.sign(kernel) * np.maximum(np.abs(kernel) - lam, 0)


@pytest.mark.parametrize("heads", [1, 2])
def test_long_convolution(tmp_path, heads):
    layer = LongConvolution(heads, WIDTH, LENGTH)
    (found,) = ssmid.read_checkpoint(saved(Model([layer]), tmp_path, {"layer": {"lam": 0.02}})).layers
    assert (found.layout, found.shape) == ("long-convolution", (heads, WIDTH, LENGTH))
    expected = squashed(layer.kernel.kernel.detach().numpy(), 0.02)
    expected[..., 0] += layer.D.detach().numpy()
    np.testing.assert_allclose(found.load().taps, expected, atol=1e-12)


def test_long_convolution_both_ways(tmp_path):
    """The second half of the kernels is run back in time and sees what comes, from the next sample on."""
    layer = LongConvolution(2, 3, 10, both_ways=True)
    (found,) = ssmid.read_checkpoint(saved(layer, tmp_path), settings={"lam": 0.0}).layers
    assert found.shape == (2, 2, 3, 11)
    ahead, back = found.load().taps
    u = np.random.default_rng(0).standard_normal(10)
    kernel, D = layer.kernel.kernel.detach().numpy(), layer.D.detach().numpy()
    for head in range(2):
        for channel in range(3):
            # as the layer does it: both halves side by side on a circle of twice the length
            circle = np.concatenate([kernel[head, channel], kernel[2 + head, channel, ::-1]])
            y = np.fft.irfft(np.fft.rfft(circle) * np.fft.rfft(u, 20), 20)[:10] + D[head, channel] * u
            ours = np.convolve(u, ahead[head, channel])[:10] + np.convolve(u[::-1], back[head, channel])[:10][::-1]
            np.testing.assert_allclose(ours, y, atol=1e-12)


def test_threshold_must_be_known(tmp_path):
    with pytest.raises(ValueError, match=r"expected lam in a config.json beside the checkpoint or in settings="):
        ssmid.read_checkpoint(saved(LongConvolution(1, 3, 20), tmp_path))


@pytest.mark.parametrize("length", [20, 21])
@pytest.mark.parametrize("spectrum", [False, True])
def test_smoothed_long_convolution(tmp_path, length, spectrum):
    layer = LongConvolution(1, 3, length)
    settings = {"lam": 0.01, "use_ma_smoothing": True, "ma_window_len": 5, "smooth_freq": spectrum}
    (found,) = ssmid.read_checkpoint(saved(layer, tmp_path), settings=settings).layers
    kernel = layer.kernel.kernel.detach()
    if spectrum:
        bell = torch.exp(-0.5 * (torch.arange(5) - 2) ** 2).to(torch.complex128)[None, None].expand(3, 1, 5)
        kernel = torch.fft.irfft(torch.nn.functional.conv1d(torch.fft.rfft(kernel), bell, padding="same", groups=3))
    else:
        kernel = torch.nn.AvgPool1d(5, stride=1, padding=2)(kernel)
    expected = squashed(kernel.numpy(), 0.01)
    expected[..., 0] += layer.D.detach().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.load().taps, expected, atol=1e-12)


def test_both_convolutions_of_an_h3_layer(tmp_path):
    layer = LongConvolution(1, 4, 30)
    layer.D = torch.nn.Parameter(torch.randn(4))
    other = LongConvolution(1, 4, 30)
    layer.k_kernel, layer.k_D = other.kernel, torch.nn.Parameter(torch.randn(4))
    found = ssmid.read_checkpoint(saved(Model([layer]), tmp_path), settings={"lam": 0.0}).layers
    assert [one.name for one in found] == ["backbone.layers.0.mixer.k_kernel", "backbone.layers.0.mixer.kernel"]
    for one, kernel, bypass in zip(found, (other.kernel, layer.kernel), (layer.k_D, layer.D), strict=True):
        expected = kernel.kernel.detach().numpy().copy()
        expected[0, :, 0] += bypass.detach().numpy()
        np.testing.assert_allclose(one.load().taps, expected, atol=1e-12)
