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
from ssmid.distillation.options import Options
from ssmid.distillation.pole_fit import fit_poles
from ssmid.distillation.prony import fit_prony
from ssmid.distillation.rounding import in_its_precision
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


def method_for(options: Options) -> Method:
    """The method that is asked for, as constraints, shared poles, weights and the end of the taps have it; its fits are rounded to the
    precision of the result.

    Raises ValueError for an unknown name, and where the method cannot do what is asked.
    """
    method = _method_for(options)
    return dataclasses.replace(method, fit=in_its_precision(method.fit))


def _method_for(options: Options) -> Method:
    method, asked = method_named(options.method), _asked(options)
    able = [name for name, can in _ABLE.items() if set(asked) <= can]
    if asked and options.method not in able:
        raise ValueError(f"method: expected {' or '.join(map(repr, able))} with {' and '.join(asked)}, got {options.method!r}")
    if options.method == "balanced" and asked:
        return Method(fit_poles, "simultaneous balanced truncation", "loose")
    if options.method == "l2" and (asked or options.beyond == "free"):
        return Method(fit_poles, ", ".join([("weighted " if options.weighted else "") + method.title, *_words(options)]), "loose")
    return method


_REQUESTS = ("max_modulus", "real_poles", "shared", "weights", "frequency_weights")
_ABLE = {"l2": set(_REQUESTS), "balanced": {"shared"}, "gradient": {"max_modulus"}}


def _asked(options: Options) -> list[str]:
    return [name for name in _REQUESTS if _is_given(getattr(options, name))]


def _is_given(value: object) -> bool:
    return value is not None and value is not False and not (isinstance(value, int) and value == 0)


def _words(options: Options) -> list[str]:
    words = {
        "shared poles": options.shared > 0,
        "real poles": options.real_poles,
        f"poles up to {options.max_modulus}": options.max_modulus is not None,
        "over the taps alone": options.beyond == "free" and not options.weighted,
    }
    return [word for word, said in words.items() if said]
