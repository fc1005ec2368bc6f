"""Layouts of layers that convolve with long filters: Hyena, MultiHyena, long convolutions with weights for taps.

Names and shapes are those of HazyResearch/safari (``src/models/sequence``: ``hyena.py``, ``long_conv.py``, ``h3_conv.py``), which
HyenaDNA shares. MultiHyena (Massaroli et al., NeurIPS 2023) has no public code with implicit filters: its layout here is Hyena's with
one filter a head. That of ruke1ire/RTF (``mhyena.py``) has RTF for filters, and is read as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmid.checkpoints.layouts import REQUIRED, Context, Given, Layout, TensorSpec
from ssmid.parametrizations.hyena import hyena_filters, hyena_positions
from ssmid.parametrizations.long_convolution import long_convolution
from ssmid.systems import ImpulseResponse

_SAFARI = "HazyResearch/safari, src/models/sequence/hyena.py"
_SETTINGS = {"modulate": True, "shift": 0.0, "normalized": False, "use_bias": True, "w": None, "l_max": None, "max_seq_len": None}
"""modulate, shift, normalized : of the window   use_bias : whether the convolution adds ``bias`` times its input (safari: ``bias``)
l_max, max_seq_len : the length that positions are relative to, where they are not stored   w : the frequency of the sines, likewise"""


def _filter_tensors(at: str) -> dict[str, TensorSpec]:
    """The implicit filter: only the network is required of every training run; the last of its weights gives all channels."""
    return {
        "z": TensorSpec(f"{at}pos_emb.z", (1, "L", "embedding"), optional=True),
        "t": TensorSpec(f"{at}pos_emb.t", (1, "L", 1), optional=True),
        "weights": TensorSpec(f"{at}implicit_filter.*.weight", (None, None)),
        "biases": TensorSpec(f"{at}implicit_filter.*.bias", (None,)),
        "frequencies": TensorSpec(f"{at}implicit_filter.*.freq", (1, None), optional=True),
        "deltas": TensorSpec(f"{at}modulation.deltas", (1, 1, "filters")),
        "bypass": TensorSpec(f"{at}bias", ("filters",)),
    }


_MIXER = {"inputs": TensorSpec("in_proj.weight", ("projections", "width"))} | _filter_tensors("filter_fn.")


def _filters(given: Given, context: Context) -> ImpulseResponse:
    """``(filters,)``"""
    weights, biases, waves = (_by_number(given.get(role, {})) for role in ("weights", "biases", "frequencies"))
    hidden = list(weights)[:-1]
    if list(biases) != hidden:
        raise ValueError(f"implicit_filter: expected a bias for each weight but the last, {hidden}, got {list(biases)}")
    if not waves and context.settings["w"] is None:
        raise ValueError("expected implicit_filter.1.freq, or w (the frequency of the sines) in config.json or in settings=")
    # one activation serves all layers in the public code, and is stored under one name or under each
    shared = next(iter(waves.values()), None)
    if shared is None:
        shared = np.full(len(biases[hidden[0]]), context.number("w"))
    z, t = _positions(given, weights[hidden[0]].shape[1], context)
    return hyena_filters(
        z,
        t,
        list(weights.values()),
        list(biases.values()),
        [waves.get(place + 1, shared) for place in hidden],
        given["deltas"],
        given["bypass"] if context.flag("use_bias") else None,
        shift=context.number("shift"),
        modulate=context.flag("modulate"),
        normalized=context.flag("normalized"),
    )


def _positions(given: Given, size: int, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """As stored, and beyond that as computed, where what is stored is what would have been computed."""
    trained, length = _trained_length(context), _length(context)
    z, t = hyena_positions(length, size, trained_length=trained)
    if "z" not in given:
        return z, t
    stored = given["z"][0]
    kept = min(length, trained)
    if length > trained:
        apart = float(np.max(np.abs(stored - z[:trained])))
        if not apart <= _SAME:
            raise ValueError(
                f"length: expected at most {trained}: the stored positions were trained, {apart:.2g} away from the formula that would "
                f"continue them, got {length}"
            )
    return np.concatenate([stored[:kept], z[kept:]]), np.concatenate([given["t"][0, :kept, 0] if "t" in given else t[:kept], t[kept:]])


_SAME = 1e-2
"""Rounding of positions up to 1 in bfloat16, 4e-3, and of the angles behind them in float32."""


def _trained_length(context: Context) -> int:
    if "L" in context.sizes:
        return context.sizes["L"]
    for name in ("l_max", "max_seq_len"):
        if context.settings[name] is not None:
            return context.taps(name)
    raise ValueError("expected pos_emb.z, or l_max (the length in training) in config.json or in settings=")


def _length(context: Context) -> int:
    return _trained_length(context) if context.length is None else context.length


def _by_number(found: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    if not all(place.isdigit() for place in found):
        raise ValueError(f"implicit_filter: expected numbered layers, got {', '.join(found)}")
    return {place: found[str(place)] for place in sorted(int(text) for text in found)}


# ---------------------------------------------------------------- filters of a mixer


def _order(sizes: Mapping[str, int]) -> int:
    """Of the recurrence: the projections are ``order + 1`` times the width; 0 where they are not."""
    return sizes["projections"] // sizes["width"] - 1 if sizes["projections"] % sizes["width"] == 0 else 0


def _is_hyena(sizes: Mapping[str, int], settings: Mapping[str, Any]) -> bool:
    steps = _order(sizes) - 1
    whole = steps >= 1 and sizes["filters"] % steps == 0 and (steps * sizes["width"]) % sizes["filters"] == 0
    return whole and not _is_multihyena(sizes, settings)


def _is_multihyena(sizes: Mapping[str, int], settings: Mapping[str, Any]) -> bool:
    """Fewer filters than channels, unless ``num_heads`` says that it is a Hyena whose heads have the same filters."""
    heads, width = sizes["filters"], sizes["width"]
    return _order(sizes) == 2 and heads < width and width % heads == 0 and settings["num_heads"] in (None, heads)


def _mixer_batch(context: Context) -> tuple[int, ...]:
    steps, filters = _order(context.sizes) - 1, context.sizes["filters"]
    return (filters,) if steps == 1 else (steps, filters // steps)


def _channels_first(given: Given, context: Context) -> ImpulseResponse:
    """Filters ``(channel, step)`` of the recurrence, step fastest, to ``(step, channel)``."""
    system, batch = _filters(given, context), _mixer_batch(context)
    if len(batch) == 1:
        return system
    taps = system.taps.reshape(batch[1], batch[0], -1)
    return ImpulseResponse(np.ascontiguousarray(np.moveaxis(taps, 1, 0)))


def _steps_first(given: Given, context: Context) -> ImpulseResponse:
    system, batch = _filters(given, context), _mixer_batch(context)
    return ImpulseResponse(system.taps.reshape(*batch, -1))


HYENA = Layout(
    name="hyena",
    words="Hyena: implicit filters, (channels,), or (steps, channels) in the order of a recurrence of order 3 and more",
    source=_SAFARI,
    tensors=_MIXER,
    formula=_channels_first,
    batch=_mixer_batch,
    length=_length,
    settings={**_SETTINGS, "num_heads": None},
    accepts=_is_hyena,
)
MULTIHYENA = Layout(
    name="multihyena",
    words="MultiHyena: one implicit filter for each head, (heads,)",
    source="no public code; names as in safari's hyena.py, with as many filters as heads",
    tensors=_MIXER,
    formula=_filters,
    batch=("filters",),
    length=_length,
    settings={**_SETTINGS, "num_heads": None},
    accepts=_is_multihyena,
)
HYENA_FILTER = Layout(
    name="hyena-filter",
    words="an implicit filter of Hyena under any name, without the projections around it, (filters,)",
    source=_SAFARI,
    tensors=_filter_tensors(""),
    formula=_filters,
    batch=("filters",),
    length=_length,
    settings=_SETTINGS,
)
HYENA_STANDALONE = Layout(
    name="hyena-standalone",
    words="Hyena of safari's standalone_hyena.py, which differs at order 3 and more: filters are counted by steps, then channels",
    source="HazyResearch/safari, standalone_hyena.py",
    tensors=_MIXER,
    formula=_steps_first,
    batch=_mixer_batch,
    length=_length,
    settings={**_SETTINGS, "num_heads": None},
    accepts=_is_hyena,
    automatic=False,  # the names are those of "hyena"
)


# ---------------------------------------------------------------- taps as weights

_SQUASH = {"lam": REQUIRED, "causal": True, "use_ma_smoothing": False, "ma_window_len": 7, "smooth_freq": False}


def _squashed(given: Given, context: Context) -> ImpulseResponse:
    """``(heads, channels)``, or ``(2, heads, channels)`` of a layer that runs both ways: the second half sees what comes, from the next
    sample on."""
    if not context.flag("causal"):
        raise ValueError("causal: expected a causal kernel, got one that is not")
    window = context.taps("ma_window_len") if context.flag("use_ma_smoothing") else None
    filters = long_convolution(given["kernel"], lam=context.number("lam"), window=window, smooth_spectrum=context.flag("smooth_freq"))
    taps = filters.taps
    bypass = np.broadcast_to(given["bypass"], (context.sizes.get("heads", 1), context.sizes["channels"]))[..., None]
    if len(_squashed_batch(context)) == 2:
        taps = np.concatenate([taps[..., :1] + bypass, taps[..., 1:]], axis=-1)
    else:
        ahead, back = np.split(taps, 2)
        zero = np.zeros_like(bypass)
        taps = np.stack([np.concatenate([ahead[..., :1] + bypass, ahead[..., 1:], zero], -1), np.concatenate([zero, back], -1)])
    return ImpulseResponse(taps[..., : _squashed_length(context)])


def _squashed_batch(context: Context) -> tuple[int, ...]:
    sizes = context.sizes
    heads = sizes.get("heads", 1)
    return (heads, sizes["channels"]) if sizes["copies"] == heads else (2, heads, sizes["channels"])


def _squashed_length(context: Context) -> int:
    stored = context.sizes["L"]
    if context.flag("use_ma_smoothing") and context.flag("smooth_freq"):
        stored -= stored % 2  # the public code goes back from the spectrum to an even length
    stored += len(_squashed_batch(context)) == 3
    return stored if context.length is None else min(stored, context.length)


def _is_one_or_both_ways(sizes: Mapping[str, int], settings: Mapping[str, Any]) -> bool:
    return sizes["copies"] in (sizes.get("heads", 1), 2 * sizes.get("heads", 1))


LONG_CONVOLUTION = Layout(
    name="long-convolution",
    words="weights for taps, soft-thresholded by lam, (heads, channels)",
    source="HazyResearch/safari, src/models/sequence/long_conv.py and h3_conv.py",
    tensors={
        "kernel": TensorSpec("kernel.kernel", ("copies", "channels", "L")),
        "bypass": TensorSpec("D", [("heads", "channels"), ("channels",)]),
    },
    formula=_squashed,
    batch=_squashed_batch,
    length=_squashed_length,
    settings=_SQUASH,
    accepts=_is_one_or_both_ways,
)
H3_KEYS = Layout(
    name="h3-convolution-keys",
    words="the long convolution over keys of an H3 layer with convolutions, (1, channels)",
    source="HazyResearch/safari, src/models/sequence/h3_conv.py",
    tensors={"kernel": TensorSpec("k_kernel.kernel", ("copies", "channels", "L")), "bypass": TensorSpec("k_D", ("channels",))},
    formula=_squashed,
    batch=_squashed_batch,
    length=_squashed_length,
    settings=_SQUASH,
    accepts=_is_one_or_both_ways,
)

CONVOLUTIONS = (HYENA_FILTER, HYENA_STANDALONE, MULTIHYENA, HYENA, H3_KEYS, LONG_CONVOLUTION)
