"""Layouts of state-space layers: S4 and S4D in the versions of their code, DSS, LRU, RTF, StripedHyena, Evo 2.

Formulas stand in :mod:`ssmid.parametrizations`. What a layer adds to its convolution at lag 0 (``D``) is part of the system where every
channel has a filter of its own; where channels share one it stays with the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmid.checkpoints.layouts import REQUIRED, Context, Given, Layout, TensorSpec
from ssmid.parametrizations.diagonal import dss, s4d
from ssmid.parametrizations.lru import lru
from ssmid.parametrizations.rtf import rtf, rtf_kernel
from ssmid.parametrizations.s4 import s4
from ssmid.parametrizations.striped_hyena import evo2_long, evo2_taps, savanna_modal, striped_hyena
from ssmid.systems import ImpulseResponse, Modal, StateSpace, TransferFunction

_S4_CODE = "state-spaces/s4"
_LEAST_TAPS = 16
"""Shorter explicit filters are those of the short convolutions beside the long ones."""

# ---------------------------------------------------------------- S4 and S4D

_TRANSFORMS = {"real_transform": "exp", "imag_transform": "none", "dt_transform": "exp", "dt_fast": False}


def _tensors(at: str, step: str, real: str, imag: str) -> dict[str, TensorSpec]:
    return {
        "C": TensorSpec(f"{at}C", ("heads", "channels", "modes", 2)),
        "B": TensorSpec(f"{at}B", [(1, "sets", "modes", 2), ("sets", "modes", 2)]),
        "step": TensorSpec(f"{at}{step}", [("channels",), ("channels", 1), ("channels", "modes")]),
        "A_real": TensorSpec(f"{at}{real}", ("sets", "modes")),
        "A_imag": TensorSpec(f"{at}{imag}", ("sets", "modes")),
        "D": TensorSpec("D", [(None, "channels"), ("channels",)], optional=True),
    }


def _low_rank(at: str, length: str) -> dict[str, TensorSpec]:
    return {"P": TensorSpec(f"{at}P", (None, "sets", "modes", 2)), "length": TensorSpec(f"{at}{length}", [(), (1,)], optional=True)}


def _s4(given: Given, context: Context, sign: int) -> StateSpace:
    given = _steps(given, context)
    trained = given.pop("length", None)
    transforms = _transforms(context)
    return s4(**given, trained_length=0 if trained is None else int(np.asarray(trained).reshape(-1)[0]), imaginary_sign=sign, **transforms)


def _s4d(given: Given, context: Context, sign: int) -> Modal:
    limit = context.settings["bandlimit"]
    return s4d(
        **_steps(given, context),
        discretization=context.settings["disc"],
        imaginary_sign=sign,
        bandlimit=None if limit is None else context.number("bandlimit"),
        length=_length(context),
        **_transforms(context),
    )


def _steps(given: Given, context: Context) -> Given:
    """With ``dt_fast`` the hyperbolic sine is taken of what is stored, before the transform."""
    fast = "dt_fast" in context.settings and context.flag("dt_fast")
    return {**given, "step": np.sinh(given["step"])} if fast else dict(given)


def _transforms(context: Context) -> dict[str, Any]:
    names = {
        "real_type": "transform", "real_transform": "transform", "imag_transform": "imaginary_transform", "dt_transform": "step_transform",
    }  # fmt: skip
    return {ours: context.settings[theirs] for theirs, ours in names.items() if theirs in context.settings}


def _length(context: Context) -> int | None:
    """The length in training, of those layers whose systems depend on it."""
    return context.length if context.settings["l_max"] is None else context.taps("l_max")


def _version(name: str, words: str, source: str, at: str, names: tuple[str, str, str], length: str, sign: int, disc: str) -> list[Layout]:
    """S4 and S4D of one version of the code: S4 has a low-rank part beside all that S4D has."""
    settings: dict[str, Any] = _TRANSFORMS if sign < 0 else {"real_type": "exp"}
    diagonal = {**settings, "disc": disc, "bandlimit": None, "l_max": None}
    plain = _tensors(at, *names)
    batch = ("heads", "channels")
    return [
        Layout(f"s4d{name}", f"S4D{words}, (heads, channels)", source, plain, lambda g, c: _s4d(g, c, sign), batch, settings=diagonal),
        Layout(
            f"s4{name}", f"S4{words}, (heads, channels)", source, {**plain, **_low_rank(at, length)}, lambda g, c: _s4(g, c, sign), batch,
            settings=settings,
        ),
    ]  # fmt: skip


S4_LAYOUTS = [
    *_version("", " of version 4", f"{_S4_CODE}, models/s4/s4.py", "kernel.", ("inv_dt", "A_real", "A_imag"), "l_kernel", -1, "zoh"),
    *_version("-v3", " of version 3", f"{_S4_CODE} v3, src/models/sequence/ss/kernel.py", "kernel.kernel.",
              ("log_dt", "inv_w_real", "w_imag"), "L", 1, "bilinear"),
    *_version("-v2", " of version 2", f"{_S4_CODE} v2, src/models/sequence/ss/kernel.py", "kernel.kernel.",
              ("log_dt", "log_w_real", "w_imag"), "L", 1, "bilinear"),
    *_version("-safari", " of safari and H3, and of version 3", "HazyResearch/safari, src/models/sequence/ssm/ss_kernel_diag.py",
              "kernel.kernel.",
              ("log_dt", "inv_A_real", "A_imag"), "L", 1, "bilinear"),
]  # fmt: skip
"""settings of S4D: ``disc``, the discretization; ``l_max`` for "dss"; ``bandlimit``; transforms and ``dt_fast`` from
version 4 on, ``real_type`` before"""

S4D_SAFARI_SIMPLE = Layout(
    name="s4d-safari-simple",
    words="S4D of safari's own file, without B, (heads, channels)",
    source="HazyResearch/safari, src/models/sequence/ssm/s4d.py",
    tensors={
        "C": TensorSpec("kernel.kernel.C", ("heads", "channels", "modes", 2)),
        "step": TensorSpec("kernel.kernel.log_dt", ("channels",)),
        "A_real": TensorSpec("kernel.kernel.log_w_real", ("sets", "modes")),
        "A_imag": TensorSpec("kernel.kernel.w_imag", ("sets", "modes")),
        "D": TensorSpec("D", [(None, "channels"), ("channels",)], optional=True),
    },
    formula=lambda given, context: s4d(**given, imaginary_sign=1),
    batch=("heads", "channels"),
)

S4D_REAL = Layout(
    name="s4d-real",
    words="S4D of version 4 with real modes, an exponential moving average, (heads, channels)",
    source=f"{_S4_CODE}, models/s4/s4.py, is_real=True",
    tensors={
        "C": TensorSpec("kernel.C", ("heads", "channels", "modes")),
        "B": TensorSpec("kernel.B", [(1, "sets", "modes"), ("sets", "modes")]),
        "step": TensorSpec("kernel.inv_dt", [("channels", 1), ("channels", "modes")]),
        "A_real": TensorSpec("kernel.A_real", ("sets", "modes")),
        "D": TensorSpec("D", [(None, "channels"), ("channels",)], optional=True),
    },
    formula=lambda given, context: _s4d(given, context, -1),
    batch=("heads", "channels"),
    settings={**_TRANSFORMS, "disc": "zoh", "bandlimit": None, "l_max": None},
)
S4D_STANDALONE = Layout(
    name="s4d-standalone",
    words="S4D of the stand-alone file, (channels,)",
    source=f"{_S4_CODE}, models/s4/s4d.py",
    tensors={
        "C": TensorSpec("kernel.C", ("channels", "modes", 2)),
        "step": TensorSpec("kernel.log_dt", ("channels",)),
        "A_real": TensorSpec("kernel.log_A_real", ("channels", "modes")),
        "A_imag": TensorSpec("kernel.A_imag", ("channels", "modes")),
        "D": TensorSpec("D", ("channels",), optional=True),
    },
    formula=lambda given, context: s4d(**given, imaginary_sign=1),
    batch=("channels",),
)

# ---------------------------------------------------------------- DSS, LRU, RTF

_DSS_CODE = "ag1988/dss, src/models/sequence/ss/standalone/dss.py"
_DSS = {
    "W": TensorSpec("kernel.W", ("heads", "channels", "modes", 2)),
    "log_dt": TensorSpec("kernel.log_dt", [("channels",), ("channels", 2)]),
    "D": TensorSpec("D", (None, "channels"), optional=True),
}


def _dss_exp(given: Given, context: Context) -> Modal:
    imag = given["imag"] if "imag" in given else np.exp(given["log_imag"]) if "log_imag" in given else None
    if imag is None:
        raise ValueError("expected kernel.Lambda_im or kernel.Lambda_log_im, got neither")
    poles = -np.exp(given["real"]) + 1j * imag
    return dss(given["W"], given["log_dt"], poles, given.get("D"), version=context.settings["version"])


DSS_EXP = Layout(
    name="dss-exp",
    words="DSS weighted by exponentials, (heads, channels); version: exp or exp-no-scale",
    source=_DSS_CODE,
    tensors={
        **_DSS,
        "real": TensorSpec("kernel.Lambda_log_neg_re", ("modes",)),
        "imag": TensorSpec("kernel.Lambda_im", ("modes",), optional=True),
        "log_imag": TensorSpec("kernel.Lambda_log_im", ("modes",), optional=True),
    },
    formula=_dss_exp,
    batch=("heads", "channels"),
    settings={"version": "exp"},
)
DSS = Layout(
    name="dss",
    words="DSS, (heads, channels); version: softmax over l_max samples, clip or clip-no-scale",
    source=_DSS_CODE,
    tensors={**_DSS, "Lambda": TensorSpec("kernel.Lambda", ("modes", 2))},
    formula=lambda given, context: dss(**given, version=context.settings["version"], length=_length(context)),
    batch=("heads", "channels"),
    settings={"version": "softmax", "l_max": None},
)
LRU = Layout(
    name="lru",
    words="LRU: one system of all channels",
    source="NicolasZucchet/minimal-LRU, lru/model.py",
    tensors={
        **{name: TensorSpec(name, ("modes",)) for name in ("nu_log", "theta_log", "gamma_log")},
        **{name: TensorSpec(name, ("modes", "inputs")) for name in ("B_re", "B_im")},
        **{name: TensorSpec(name, ("outputs", "modes")) for name in ("C_re", "C_im")},
        "D": TensorSpec("D", ("inputs",), optional=True),
    },
    formula=lambda given, context: lru(**given),
    batch=(),
)
_RTF = {
    "ab": TensorSpec("ab", ("rows", "order")),
    "h_0": TensorSpec("h_0", ("channels",)),
    "scalar": TensorSpec("scalar", (None,), optional=True),
}


def _is_rtf(sizes: Mapping[str, int], settings: Mapping[str, Any]) -> bool:
    sets = sizes["rows"] - sizes["channels"]
    return sets > 0 and sizes["channels"] % sets == 0


def _rtf(given: Given, context: Context) -> TransferFunction:
    return rtf(given["ab"], _bypass(given, context), context.taps("trunc_len"), given.get("scalar"), recurrent=_is_rtf2(context))


def _rtf_taps(given: Given, context: Context) -> ImpulseResponse:
    kernel = rtf_kernel(given["ab"], _bypass(given, context), context.taps("trunc_len"), given.get("scalar"), recurrent=_is_rtf2(context))
    return ImpulseResponse(kernel.taps[:, : _rtf_length(context)])


def _bypass(given: Given, context: Context) -> np.ndarray:
    """Where RTF makes the filters of a Hyena, ``h_0`` is part of its kernel and also the bias that the convolution adds
    (experiments/safari/src/models/sequence/ssm/rtf_wrapper.py)."""
    return 2 * given["h_0"] if context.prefix.endswith("filter_fn.") else given["h_0"]


def _is_rtf2(context: Context) -> bool:
    """Both classes store the same names and shapes, and mean another numerator."""
    if context.settings["rtf_class"] not in ("RTF", "RTF2"):
        raise ValueError(f"rtf_class: expected RTF or RTF2, got {context.settings['rtf_class']!r}")
    return context.settings["rtf_class"] == "RTF2"


def _rtf_length(context: Context) -> int:
    trained = context.taps("trunc_len")
    return trained if context.length is None else min(trained, context.length)


_RTF_WORDS = "(channels,), of a layer that runs both ways (2 channels,); rtf_class: RTF or RTF2, trunc_len: the length in training"
_RTF_SETTINGS = {"trunc_len": REQUIRED, "rtf_class": REQUIRED}
RTF = Layout(
    "rtf", f"RTF as transfer functions, {_RTF_WORDS}", "ruke1ire/RTF, rtf.py", _RTF, _rtf, ("channels",),
    settings=_RTF_SETTINGS, accepts=_is_rtf,
)  # fmt: skip
RTF_TAPS = Layout(
    "rtf-taps", f"RTF as taps, for denominators that are not stable, {_RTF_WORDS}", "ruke1ire/RTF, rtf.py", _RTF, _rtf_taps, ("channels",),
    length=_rtf_length, settings=_RTF_SETTINGS, accepts=_is_rtf, automatic=False,
)  # fmt: skip

# ---------------------------------------------------------------- StripedHyena and Evo 2

_VORTEX = "Zymrael/vortex, vortex/model/model.py"
_TRAINING = "ImplicitModalFilter and ExplicitSingleDecayFilter of the training code of Evo 2"


def _own(given: Given, filters: int) -> Any:
    """The bypass, where each channel has its own filter."""
    D = given.get("D")
    return D if D is not None and D.shape[0] == filters else None


STRIPED_HYENA = Layout(
    name="striped-hyena",
    words="StripedHyena: complex poles and residues, (filters,)",
    source="togethercomputer/stripedhyena, stripedhyena/model.py",
    tensors={
        "poles": TensorSpec("poles", ("filters", "modes", 1, 2)),
        "residues": TensorSpec("residues", ("filters", "modes", 1, 2)),
        "D": TensorSpec("D", (None,), optional=True),
    },
    formula=lambda given, context: striped_hyena(given["poles"], given["residues"], _own(given, context.sizes["filters"])),
    batch=("filters",),
)
EVO2_LONG = Layout(
    name="evo2-long",
    words="Evo 2, long convolutions: real poles by their logarithms, (filters,)",
    source=_VORTEX,
    tensors={
        "log_poles": TensorSpec("log_poles", ("filters", "modes", 1)),
        "residues": TensorSpec("residues", ("filters", "modes")),
        "D": TensorSpec("D", (None,), optional=True),
    },
    formula=lambda given, context: evo2_long(given["log_poles"], given["residues"], _own(given, context.sizes["filters"])),
    batch=("filters",),
)


def _explicit(given: Given, context: Context) -> ImpulseResponse:
    filters = context.sizes["filters"]
    taps = evo2_taps(given["h"], _own(given, filters), decay=given.get("decay")).taps.reshape(filters, context.sizes["L"])
    return ImpulseResponse(taps[:, : context.length])


EVO2_MEDIUM = Layout(
    name="evo2-medium",
    words="Evo 2, medium convolutions: taps, (filters,)",
    source=_VORTEX,
    tensors={"h": TensorSpec("filter.h", ("filters", 1, "L")), "D": TensorSpec("filter.D", (None,), optional=True)},
    formula=_explicit,
    batch=("filters",),
    length="L",
    least=_LEAST_TAPS,
)
EVO2_TRAINING = Layout(
    name="evo2-training",
    words="Evo 2 as its training code stores long convolutions, (filters,)",
    source=_TRAINING,
    tensors={name: TensorSpec(f"filter.{name}", ("filters", "modes")) for name in ("gamma", "R", "p")},
    formula=lambda given, context: savanna_modal(**given),
    batch=("filters",),
)
EVO2_TRAINING_MEDIUM = Layout(
    name="evo2-training-medium",
    words="Evo 2 as its training code stores medium convolutions: taps under a window, (filters,)",
    source=_TRAINING,
    tensors={name: TensorSpec(f"filter.{name}", ("filters", "L")) for name in ("h", "decay")},
    formula=_explicit,
    batch=("filters",),
    length="L",
    least=_LEAST_TAPS,
)

STATE_SPACES = (
    S4D_SAFARI_SIMPLE, *S4_LAYOUTS, S4D_REAL, S4D_STANDALONE, DSS_EXP, DSS, LRU, RTF, RTF_TAPS, STRIPED_HYENA, EVO2_LONG, EVO2_MEDIUM,
    EVO2_TRAINING, EVO2_TRAINING_MEDIUM,
)  # fmt: skip
