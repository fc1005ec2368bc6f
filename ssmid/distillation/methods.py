"""The methods of the distiller by name."""

from __future__ import annotations

import dataclasses

from ssmid.distillation.balanced import fit_balanced
from ssmid.distillation.fitted import Fit
from ssmid.distillation.gradient import fit_gradient
from ssmid.distillation.l2 import fit_l2


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
    "gradient": Method(fit_gradient, "gradient descent", None),
}


def method_named(name: str) -> Method:
    """Raises ValueError for an unknown name."""
    if name not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]
