"""Layouts of the filters of :mod:`ssmid.nn` whose state dicts are not laid out as those of other code: RTF, modal, S4, S4D."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssmid.checkpoints.layouts import REQUIRED, Context, Given, Layout, TensorSpec
from ssmid.parametrizations.diagonal import s4d
from ssmid.parametrizations.modes import trained_modes
from ssmid.parametrizations.rtf import rtf_of_coefficients, trained_denominators
from ssmid.parametrizations.s4 import s4
from ssmid.systems import Modal, StateSpace, TransferFunction


def _shared(sizes: Mapping[str, int], settings: Mapping[str, Any]) -> bool:
    return sizes["sets"] > 0 and sizes["channels"] % sizes["sets"] == 0


def _rtf(given: Given, context: Context) -> TransferFunction:
    numerator = context.settings["numerator"]
    if numerator not in ("wrapped", "causal"):
        raise ValueError(f"numerator: expected wrapped or causal, got {numerator!r}")
    a = trained_denominators(given["denominator"], context.settings["denominator"], given.get("scalar"))
    return rtf_of_coefficients(given["numerator"], a, given["feedthrough"], int(given["length"]) if numerator == "wrapped" else 0)


RTF_FILTER = Layout(
    name="rtf-filter",
    words="RTFFilter, (channels,); denominator: free, montel, sections, lattice or poles, numerator: wrapped or causal",
    source="ssmid.nn.RTFFilter",
    tensors={
        "numerator": TensorSpec("numerator", ("channels", "order")),
        "denominator": TensorSpec("denominator", ("sets", "order")),
        "feedthrough": TensorSpec("feedthrough", ("channels",)),
        "length": TensorSpec("trained_length", ()),
        "scalar": TensorSpec("scalar", ("sets",), optional=True),
    },
    formula=_rtf,
    batch=("channels",),
    settings={"denominator": REQUIRED, "numerator": "wrapped"},
    accepts=_shared,
)
MODAL_FILTER = Layout(
    name="modal-filter",
    words="ModalFilter, (channels,)",
    source="ssmid.nn.ModalFilter",
    tensors={
        "modulus": TensorSpec("modulus", ("channels", "modes")),
        "angle": TensorSpec("angle", ("channels", "modes")),
        "residues": TensorSpec("residues", ("channels", "modes", 2)),
        "feedthrough": TensorSpec("feedthrough", ("channels",)),
    },
    formula=lambda given, context: trained_modes(**given),
    batch=("channels",),
)

# of S4 and S4D other code has the D one level above: there the layouts named after it fit

_DIAGONAL = {
    "C": TensorSpec("C", [(1, "channels", "modes", 2), (1, "channels", "modes")]),
    "B": TensorSpec("B", [(1, "sets", "modes", 2), (1, "sets", "modes")]),
    "step": TensorSpec("inv_dt", ("channels", 1)),
    "A_real": TensorSpec("A_real", ("sets", "modes")),
    "D": TensorSpec("D", (1, "channels")),
}


def _one_head(given: Given) -> Given:
    return {**given, "C": given["C"][0], "D": given["D"][0]}


def _s4(given: Given, context: Context) -> StateSpace:
    return s4(**_one_head({role: array for role, array in given.items() if role != "length"}), trained_length=int(given["length"]))


def _s4d(given: Given, context: Context) -> Modal:
    return s4d(**_one_head(given), discretization=context.settings["disc"])


S4_FILTER = Layout(
    name="s4-filter",
    words="S4Filter, (channels,)",
    source="ssmid.nn.S4Filter",
    tensors={
        **_DIAGONAL,
        "A_imag": TensorSpec("A_imag", ("sets", "modes")),
        "P": TensorSpec("P", (None, "sets", "modes", 2)),
        "length": TensorSpec("l_kernel", ()),
    },
    formula=_s4,
    batch=("channels",),
    accepts=_shared,
)
S4D_FILTER = Layout(
    name="s4d-filter",
    words="S4DFilter, (channels,); disc: zoh, or bilinear, as in H3",
    source="ssmid.nn.S4DFilter",
    tensors={**_DIAGONAL, "A_imag": TensorSpec("A_imag", ("sets", "modes"), optional=True)},
    formula=_s4d,
    batch=("channels",),
    settings={"disc": REQUIRED},
    accepts=_shared,
)

OWN = (S4D_FILTER, S4_FILTER, MODAL_FILTER, RTF_FILTER)
