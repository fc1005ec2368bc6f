"""Checkpoints of state-space layers: names and shapes as in the public code, kernels as it computes them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import ssmid
from ssmid.checkpoints import read_checkpoint

H, N, S, HEADS = 4, 3, 2, 2
STEPS = 12


def write(folder, tensors, prefix="model.layers.0.layer.", config=None):
    """A safetensors file in float32, with tensors of other layers beside."""
    held = {}
    for name, value in tensors.items():
        held[f"{prefix}{name}"] = np.asarray(value, np.int64 if np.asarray(value).dtype.kind == "i" else np.float32)
    save_file(held | {"decoder.weight": np.zeros((5, 7), np.float32)}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"layer": config}))
    return folder / "model.safetensors"


def loaded(path, layout, **options):
    """The layer found, and its kernel."""
    (layer,) = read_checkpoint(path, **options).layers
    assert layer.layout == layout
    system = layer.load()
    assert system.batch_shape == layer.batch
    return layer, ssmid.impulse_response(system, STEPS).taps


def numbers(x):
    x = np.asarray(x, np.float32).astype(float)
    return x[..., 0] + 1j * x[..., 1]


def single(x):
    return np.asarray(x, np.float32).astype(float)


def s4_tensors(rng, names, *, low_rank):
    step, real, imag, length = names
    tensors = {
        "C": rng.standard_normal((HEADS, H, N, 2)), "B": rng.standard_normal((1, S, N, 2)),
        step: rng.uniform(-4, -1, (H, 1) if step == "inv_dt" else H), real: rng.uniform(-1, 0, (S, N)), imag: rng.uniform(0, 6, (S, N)),
    }  # fmt: skip
    return tensors | ({"P": 0.5 * rng.standard_normal((1, S, N, 2)), length: np.array(0)} if low_rank else {})


VERSIONS = {
    "": ("kernel.", ("inv_dt", "A_real", "A_imag", "l_kernel"), -1, "zoh"),
    "-v3": ("kernel.kernel.", ("log_dt", "inv_w_real", "w_imag", "L"), 1, "bilinear"),
    "-v2": ("kernel.kernel.", ("log_dt", "log_w_real", "w_imag", "L"), 1, "bilinear"),
    "-safari": ("kernel.kernel.", ("log_dt", "inv_A_real", "A_imag", "L"), 1, "bilinear"),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_s4d(tmp_path, rng, version):
    at, names, sign, disc = VERSIONS[version]
    tensors, D = s4_tensors(rng, names, low_rank=False), rng.standard_normal((HEADS, H))
    path = write(tmp_path, {**{f"{at}{name}": value for name, value in tensors.items()}, "D": D})
    _, taps = loaded(path, f"s4d{version}")
    A = np.tile(-np.exp(single(tensors[names[1]])) + sign * 1j * single(tensors[names[2]]), (H // S, 1))
    dt = np.exp(single(tensors[names[0]])).reshape(H, 1)
    weights = numbers(tensors["C"]) * np.tile(numbers(tensors["B"])[0], (H // S, 1))
    if disc == "zoh":
        poles, weights = np.exp(A * dt), weights * (np.exp(A * dt) - 1) / A
    else:
        poles, weights = (1 + A * dt / 2) / (1 - A * dt / 2), weights * dt / (1 - A * dt / 2)
    expected = np.stack([2 * (weights * poles**t).sum(-1).real for t in range(STEPS)], axis=-1)
    expected[..., 0] += single(D)
    np.testing.assert_allclose(taps, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("length", [0, STEPS])
def test_s4(tmp_path, rng, version, length):
    """Over all 2 N complex states; a trained C is C~, whose kernel stands on the points of the unit circle."""
    at, names, sign, _ = VERSIONS[version]
    tensors, D = s4_tensors(rng, names, low_rank=True), rng.standard_normal((HEADS, H))
    tensors[names[3]] = np.array(length)
    path = write(tmp_path, {**{f"{at}{name}": value for name, value in tensors.items()}, "D": D})
    _, taps = loaded(path, f"s4{version}")
    for c, h in np.ndindex(HEADS, H):
        A = -np.exp(single(tensors[names[1]])[h % S]) + sign * 1j * single(tensors[names[2]])[h % S]
        halves = (A, numbers(tensors["B"])[0, h % S], numbers(tensors["C"])[c, h], numbers(tensors["P"])[0, h % S])
        A, B, C, P = (np.concatenate([x, x.conj()]) for x in halves)
        dt, eye = np.exp(single(tensors[names[0]])).reshape(H)[h], np.eye(2 * N)
        A = np.diag(A) - np.outer(P, P.conj())
        Ad, Bd = (np.linalg.solve(eye - dt / 2 * A, x) for x in (eye + dt / 2 * A, dt * B))
        if length:
            points = np.exp(-2j * np.pi * np.arange(length) / length)
            expected = np.fft.ifft([C @ np.linalg.solve(eye - w * Ad, Bd) for w in points]).real
        else:
            expected = np.array([(C @ np.linalg.matrix_power(Ad, t) @ Bd).real for t in range(STEPS)])
        expected[0] += single(D)[c, h]
        np.testing.assert_allclose(taps[c, h], expected, rtol=1e-8, atol=1e-10)


def test_s4d_of_safari_without_inputs(tmp_path, rng):
    """No B and a hold; with B it is another layer, sampled by the bilinear map."""
    tensors, D = s4_tensors(rng, VERSIONS["-v2"][1], low_rank=False), rng.standard_normal((HEADS, H))
    held = {f"kernel.kernel.{name}": value for name, value in tensors.items()} | {"D": D}
    assert loaded(write(tmp_path, held), "s4d-v2")[0].batch == (HEADS, H)
    del held["kernel.kernel.B"]
    _, taps = loaded(write(tmp_path, held), "s4d-safari-simple")
    A = np.tile(-np.exp(single(tensors["log_w_real"])) + 1j * single(tensors["w_imag"]), (H // S, 1))
    x = A * np.exp(single(tensors["log_dt"]))[:, None]
    expected = [2 * (numbers(tensors["C"]) * np.expm1(x) / A * np.exp(x * t)).sum(-1).real for t in range(STEPS)]
    expected[0] = expected[0] + single(D)
    np.testing.assert_allclose(taps, np.stack(expected, axis=-1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("version", ["-v3", "-safari"])
def test_real_parts_of_other_types(tmp_path, rng, version, low_rank):
    """``real_type`` of the code before version 4."""
    at, names, _, _ = VERSIONS[version]
    tensors = {f"{at}{name}": value for name, value in s4_tensors(rng, names, low_rank=low_rank).items()}
    layout = f"s4{version}" if low_rank else f"s4d{version}"
    _, expected = loaded(write(tmp_path, tensors), layout)
    real = single(tensors[f"{at}{names[1]}"])
    tensors[f"{at}{names[1]}"] = np.log(np.expm1(np.exp(real)))
    _, taps = loaded(write(tmp_path, tensors, config={"real_type": "softplus"}), layout)
    np.testing.assert_allclose(taps, expected, rtol=1e-4, atol=1e-5)


def test_options_of_s4d_that_no_tensor_says(tmp_path, rng):
    tensors = {f"kernel.{name}": value for name, value in s4_tensors(rng, VERSIONS[""][1], low_rank=False).items()}
    path = write(tmp_path, tensors, config={"disc": "bilinear", "real_transform": "softplus"})
    _, said = loaded(path, "s4d")
    (tmp_path / "config.json").unlink()
    _, given = loaded(path, "s4d", settings={"disc": "bilinear", "real_transform": "softplus"})
    _, default = loaded(path, "s4d")
    np.testing.assert_array_equal(said, given)
    assert np.abs(said - default).max() > 1e-3
    with pytest.raises(ValueError, match=r"layers\.0\.layer: length: expected the number of samples over which the softmax was taken"):
        loaded(path, "s4d", settings={"disc": "dss"})
    assert np.isfinite(loaded(path, "s4d", settings={"disc": "dss", "l_max": 64})[1]).all()


@pytest.mark.parametrize("low_rank", [False, True])
def test_fast_steps(tmp_path, rng, low_rank):
    """dt_fast: the logarithms of the steps are stored as their inverse hyperbolic sines."""
    tensors = {f"kernel.{name}": value for name, value in s4_tensors(rng, VERSIONS[""][1], low_rank=low_rank).items()}
    layout = "s4" if low_rank else "s4d"
    _, expected = loaded(write(tmp_path, tensors), layout)
    tensors["kernel.inv_dt"] = np.log(single(tensors["kernel.inv_dt"]) + np.sqrt(single(tensors["kernel.inv_dt"]) ** 2 + 1))
    _, taps = loaded(write(tmp_path, tensors, config={"dt_fast": True}), layout)
    np.testing.assert_allclose(taps, expected, rtol=1e-4, atol=1e-5)


def test_real_modes(tmp_path, rng):
    C, B = rng.standard_normal((HEADS, H, N)), rng.standard_normal((1, S, N))
    step, A_real = rng.uniform(-4, -1, (H, 1)), rng.uniform(-1, 0, (S, N))
    path = write(tmp_path, {"kernel.C": C, "kernel.B": B, "kernel.inv_dt": step, "kernel.A_real": A_real})
    _, taps = loaded(path, "s4d-real")
    A, dt = np.tile(-np.exp(single(A_real)), (H // S, 1)), np.exp(single(step))
    weights = single(C) * np.tile(single(B)[0], (H // S, 1)) * (np.exp(A * dt) - 1) / A
    np.testing.assert_allclose(taps[..., 5], 2 * (weights * np.exp(5 * A * dt)).sum(-1), rtol=1e-9)


def test_s4d_standalone(tmp_path, rng):
    tensors = {
        "kernel.C": rng.standard_normal((H, N, 2)), "kernel.log_dt": rng.uniform(-4, -1, H),
        "kernel.log_A_real": rng.uniform(-1, 0, (H, N)), "kernel.A_imag": np.pi * np.arange(N) * np.ones((H, 1)),
        "D": rng.standard_normal(H),
    }  # fmt: skip
    _, taps = loaded(write(tmp_path, tensors, "s4_layers.2."), "s4d-standalone")
    A = -np.exp(single(tensors["kernel.log_A_real"])) + 1j * single(tensors["kernel.A_imag"])
    dt = np.exp(single(tensors["kernel.log_dt"]))[:, None]
    weights = numbers(tensors["kernel.C"]) * (np.exp(A * dt) - 1) / A
    np.testing.assert_allclose(taps[:, 3], 2 * (weights * np.exp(3 * A * dt)).sum(-1).real, rtol=1e-9)
    np.testing.assert_allclose(taps[:, 0], 2 * weights.sum(-1).real + single(tensors["D"]), rtol=1e-9)


@pytest.mark.parametrize("kind", ["dss-exp", "dss"])
def test_dss(tmp_path, rng, kind):
    W, log_dt = rng.standard_normal((HEADS, H, N, 2)), rng.uniform(-4, -1, (H, 2))
    real, imag = rng.uniform(-2, 0, N), 4 * rng.standard_normal(N)
    own = {"kernel.Lambda_log_neg_re": real, "kernel.Lambda_im": imag}
    own = own if kind == "dss-exp" else {"kernel.Lambda": np.stack([real, imag], -1)}
    path = write(tmp_path, {"kernel.W": W, "kernel.log_dt": log_dt, "D": np.zeros((HEADS, H)), **own})
    _, taps = loaded(path, kind, settings={} if kind == "dss-exp" else {"l_max": STEPS})
    poles = (-np.exp(single(real)) if kind == "dss-exp" else single(real)) + 1j * single(imag)
    dt = np.exp(single(log_dt))
    x = poles.real * dt[:, :1] + 1j * poles.imag * dt[:, 1:]
    if kind == "dss-exp":
        weights = numbers(W) * (np.exp(x) - 1) / poles
    else:
        below = (np.exp(STEPS * x) - 1) * poles
        weights = numbers(W) * (np.exp(x) - 1) * below.conj() / (np.abs(below) ** 2 + 1e-7)
    expected = np.stack([(weights * np.exp(x * t)).sum(-1).real for t in range(STEPS)], axis=-1)
    np.testing.assert_allclose(taps, expected, rtol=1e-8, atol=1e-10)


def test_lru(tmp_path, rng):
    shapes = {"nu_log": (N,), "theta_log": (N,), "gamma_log": (N,)}
    shapes |= {"B_re": (N, H), "B_im": (N, H), "C_re": (H, N), "C_im": (H, N), "D": (H,)}
    tensors = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    (layer,) = read_checkpoint(write(tmp_path, tensors, "params.encoder.layers_0.seq.")).layers
    assert (layer.name, layer.layout, layer.shape) == ("params.encoder.layers_0.seq", "lru", (0,))
    taps = ssmid.impulse_response(layer.load(), 5).taps
    t = {name: single(value) for name, value in tensors.items()}
    poles = np.exp(-np.exp(t["nu_log"]) + 1j * np.exp(t["theta_log"]))
    B, C = (t["B_re"] + 1j * t["B_im"]) * np.exp(t["gamma_log"])[:, None], t["C_re"] + 1j * t["C_im"]
    for k in range(5):
        np.testing.assert_allclose(taps[:, :, k], (C * poles**k @ B).real + (np.diag(t["D"]) if k == 0 else 0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("trained", [STEPS, STEPS + 1])
def test_rtf(tmp_path, rng, trained):
    ab, h_0 = rng.uniform(-0.2, 0.2, (S + H, N)), rng.standard_normal(H)
    path = write(tmp_path, {"ab": ab, "h_0": h_0}, config={"trunc_len": trained, "rtf_class": "RTF"})
    layer, taps = loaded(path, "rtf")
    points = trained + trained % 2
    ratio = [np.fft.rfft([0, *single(ab)[S + c]], points) / np.fft.rfft([1, *single(ab)[c * S // H]], points) for c in range(H)]
    expected = np.fft.irfft(np.array(ratio) + single(h_0)[:, None], points)[:, :STEPS]
    np.testing.assert_allclose(taps, expected, rtol=1e-8, atol=1e-10)
    (layer,) = read_checkpoint(path, layout="rtf-taps").layers
    assert layer.shape == (H, trained)
    np.testing.assert_allclose(layer.load().taps[:, :STEPS], expected, rtol=1e-8, atol=1e-10)
    (tmp_path / "config.json").unlink()
    missing = r"expected trunc_len, rtf_class in a config\.json beside the checkpoint or in settings= \(--set NAME=VALUE\)"
    with pytest.raises(ValueError, match=missing + ".*rtf_class: RTF or RTF2"):
        read_checkpoint(path)


def test_both_classes_of_rtf_store_the_same_tensors(tmp_path, rng):
    """RTF2 runs ``C A^t B`` with the C that is stored, RTF with that C times the inverse of ``I - A^P``, a sample later."""
    a, c = np.array([-0.9, 0.3]), rng.standard_normal(2)
    path = write(tmp_path, {"ab": np.stack([a, c]), "h_0": np.array([0.5])}, config={"trunc_len": STEPS})
    with pytest.raises(ValueError, match=r"expected rtf_class in a config\.json"):  # never guessed
        read_checkpoint(path)
    A, C = np.array([[-single(a)[0], -single(a)[1]], [1, 0]]), single(c)
    taps = loaded(path, "rtf", settings={"rtf_class": "RTF2"})[1][0]
    powers = [np.linalg.matrix_power(A, t)[:, 0] for t in range(STEPS)]
    np.testing.assert_allclose(taps - 0.5 * (np.arange(STEPS) == 0), [C @ x for x in powers], rtol=1e-9, atol=1e-12)
    taps = loaded(path, "rtf", settings={"rtf_class": "RTF"})[1][0]
    C = np.linalg.solve((np.eye(2) - np.linalg.matrix_power(A, STEPS)).T, C)
    np.testing.assert_allclose(taps[1:], [C @ x for x in powers[:-1]], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="rtf_class: expected RTF or RTF2, got 'rtf2'"):
        loaded(path, "rtf", settings={"rtf_class": "rtf2"})


@pytest.mark.parametrize("layout", ["rtf", "rtf-taps"])
def test_rtf_as_the_filter_of_a_hyena(tmp_path, rng, layout):
    """Its convolution adds h_0 to a kernel that has it already."""
    tensors = {"ab": rng.uniform(-0.2, 0.2, (2 * H, N)), "h_0": rng.standard_normal(H)}
    found = []
    for prefix in ("model.layers.0.layer.", "backbone.layers.0.mixer.filter_fn."):
        path = write(tmp_path, tensors, prefix)
        (layer,) = read_checkpoint(path, layout=layout, settings={"trunc_len": STEPS, "rtf_class": "RTF"}).layers
        found.append(ssmid.impulse_response(layer.load(), STEPS).taps)
    alone, within = found
    np.testing.assert_allclose(within - alone, single(tensors["h_0"])[:, None] * (np.arange(STEPS) == 0), atol=1e-12)


def test_striped_hyena(tmp_path, rng):
    poles, residues, D = 0.5 * rng.standard_normal((H, N, 1, 2)), rng.standard_normal((H, N, 1, 2)), rng.standard_normal(H)
    path = write(tmp_path, {"poles": poles, "residues": residues, "D": D}, "backbone.blocks.3.filter.")
    layer, taps = loaded(path, "striped-hyena")
    assert layer.name == "backbone.blocks.3.filter"
    expected = np.stack([(numbers(residues) * numbers(poles) ** t).real.sum((1, 2)) for t in range(STEPS)], axis=-1)
    expected[:, 0] += single(D)
    np.testing.assert_allclose(taps, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("channels", [H, 3 * H])
def test_evo2(tmp_path, rng, channels):
    """A long and a medium convolution, each in its block; groups that share a filter leave the bypass to the layer."""
    log_poles, residues, D = -np.exp(rng.uniform(-4, 0, (H, N, 1))), rng.standard_normal((H, N)), rng.standard_normal(channels)
    h, short = rng.standard_normal((H, 1, 128)), rng.standard_normal((H, 1, 7))
    tensors = {"blocks.2.filter.log_poles": log_poles, "blocks.2.filter.residues": residues, "blocks.2.filter.D": D}
    tensors |= {"blocks.1.filter.h": h, "blocks.1.filter.D": D, "blocks.0.filter.h": short}
    layers = read_checkpoint(write(tmp_path, tensors, "")).layers  # 7 taps are no long convolution, and no damage to warn of
    found = [(layer.name, layer.layout, layer.shape) for layer in layers]
    assert found == [("blocks.1", "evo2-medium", (H, 128)), ("blocks.2.filter", "evo2-long", (H, 0))]
    bypass = single(D) if channels == H else np.zeros(H)
    taps = layers[0].load().taps
    np.testing.assert_allclose(taps - single(h)[:, 0], np.pad(bypass[:, None], ((0, 0), (0, 127))), atol=1e-12)
    taps = ssmid.impulse_response(layers[1].load(), STEPS).taps
    expected = np.stack([(single(residues) * np.exp(single(log_poles)[..., 0] * t)).sum(-1) for t in range(STEPS)], axis=-1)
    expected[:, 0] += bypass
    np.testing.assert_allclose(taps, expected, rtol=1e-9, atol=1e-11)


def test_short_convolutions_alone(tmp_path, rng):
    path = write(tmp_path, {"blocks.0.filter.h": rng.standard_normal((H, 1, 7))}, "")
    with pytest.raises(ValueError, match=r"evo2-medium at 'blocks\.0\.'.*7 taps, of a long convolution at least 16"):
        read_checkpoint(path)


def test_evo2_in_training(tmp_path, rng):
    gamma, R, p = (rng.standard_normal((H, N)) for _ in range(3))
    h, decay = rng.standard_normal((H, 20)), np.exp(-np.arange(20.0)) * np.ones((H, 1))
    tensors = {f"0.mixer.filter.{name}": value for name, value in (("gamma", gamma), ("R", R), ("p", p))}
    tensors |= {"1.mixer.filter.h": h, "1.mixer.filter.decay": decay}
    long, medium = read_checkpoint(write(tmp_path, tensors, "decoder.layers.")).layers
    assert (long.layout, medium.layout, medium.shape) == ("evo2-training", "evo2-training-medium", (H, 20))
    np.testing.assert_allclose(medium.load().taps, single(h) * single(decay), rtol=1e-12)
    rates = -np.exp(single(p)) * np.exp(single(gamma))
    np.testing.assert_allclose(ssmid.impulse_response(long.load(), 3).taps[:, 2], (single(R) * np.exp(2 * rates)).sum(-1), rtol=1e-9)


def test_torch_checkpoint_of_many_layers(tmp_path, rng):
    import torch

    state = {}
    for k in range(3):
        tensors = s4_tensors(rng, VERSIONS[""][1], low_rank=True)
        state |= {f"model.layers.{k}.layer.kernel.{name}": torch.as_tensor(np.asarray(value)) for name, value in tensors.items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    layers = read_checkpoint(tmp_path / "last.ckpt").layers
    assert [layer.layout for layer in layers] == 3 * ["s4"]
    assert all(layer.load().order == 2 * N for layer in layers)


def test_what_is_missing_is_said(tmp_path, rng):
    tensors = {f"kernel.{name}": value for name, value in s4_tensors(rng, VERSIONS[""][1], low_rank=True).items() if name != "B"}
    with pytest.raises(ValueError, match=r"no kernel\.B"):
        read_checkpoint(write(tmp_path, tensors))
