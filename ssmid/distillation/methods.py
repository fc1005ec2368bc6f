"""The methods of the distiller by name."""

from __future__ import annotations

import dataclasses

from ssmid.distillation.aaa import fit_aaa
from ssmid.distillation.balanced import fit_balanced
from ssmid.distillation.fitted import Fit
from ssmid.distillation.gradient import fit_gradient
from ssmid.distillation.hankel import fit_hankel
from ssmid.distillation.l2 import fit_l2
from ssmid.distillation.modal_truncation import fit_modal_truncation
from ssmid.distillation.prony import fit_prony
from ssmid.distillation.rtf import fit_rtf


@dataclasses.dataclass(frozen=True)
class Method:
    """fit : the function   title : its name in words   subspace : the accuracy of the Hankel subspace that it starts from, "loose" for
    a start that is refined, "tight" where the subspace is the result, None where none is needed"""

    fit: Fit
    title: str
    subspace: str | None


METHODS = {
    "l2": Method(fit_l2, "l2-optimal approximation", "loose"),
    "balanced": Method(fit_balanced, "balanced truncation", "tight"),
    "hankel": Method(fit_hankel, "optimal Hankel-norm approximation", None),
    "gradient": Method(fit_gradient, "gradient descent", None),
    "rtf": Method(fit_rtf, "gradient descent over transfer functions", None),
    "modal-truncation": Method(fit_modal_truncation, "modal truncation", None),
    "aaa": Method(fit_aaa, "AAA", None),
    "prony": Method(fit_prony, "Prony", None),
}


def method_named(name: str) -> Method:
    """Raises ValueError for an unknown name."""
    if name not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]
