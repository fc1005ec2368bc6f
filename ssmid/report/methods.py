"""Which method takes which data: the names that ``ssmid fit --method`` knows, each of one public function."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import ssmid
from ssmid.analysis.spectrum import frequency_response
from ssmid.identification.identify import Identification
from ssmid.identification.record import Record
from ssmid.reduction.result import Result
from ssmid.systems import FrequencyResponse, ImpulseResponse

TAPS, SAMPLES, RECORD, MODEL = "an impulse response", "a frequency response", "a record (--inputs, --outputs)", "a model"


@dataclasses.dataclass(frozen=True)
class Method:
    """``function``: the public name   takes : kinds of data   tol : whether the order may be left to a tolerance
    mimo : whether channels may be coupled   chooses : whether it finds an order itself   options : further arguments
    """

    function: str
    takes: tuple[str, ...]
    tol: bool = True
    mimo: bool = True
    chooses: bool = True
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


METHODS: dict[str, Method] = {
    "balanced": Method("balanced_truncation", (TAPS, MODEL), chooses=False),
    "hankel": Method("hankel_norm_approximation", (TAPS, MODEL), chooses=False),
    "h2": Method("h2_approximation", (TAPS, MODEL), chooses=False),
    "irka": Method("irka", (MODEL,), tol=False, mimo=False, chooses=False),
    "era": Method("era", (TAPS,), chooses=False),
    "prony": Method("prony", (TAPS,), tol=False),
    "matrix-pencil": Method("matrix_pencil", (TAPS,), tol=False),
    "esprit": Method("esprit", (TAPS,), tol=False),
    "aaa": Method("aaa", (SAMPLES, TAPS), options={"stable": True}),
    "vector-fitting": Method("vector_fitting", (SAMPLES, TAPS)),
    "loewner": Method("loewner", (SAMPLES, TAPS), options={"stable": True}),
    "rkfit": Method("rkfit", (SAMPLES, TAPS), tol=False, chooses=False),
    "rational": Method("rational_least_squares", (SAMPLES, TAPS), tol=False, mimo=False, chooses=False, options={"stable": True}),
    "frequency-subspace": Method("frequency_subspace", (SAMPLES, TAPS), tol=False),
    "n4sid": Method("n4sid", (RECORD,), tol=False),
    "moesp": Method("moesp", (RECORD,), tol=False),
    "cva": Method("cva", (RECORD,), tol=False),
    "identify": Method("identify", (RECORD,), tol=False),
}
_USUAL = {TAPS: "balanced", MODEL: "balanced", SAMPLES: "aaa", RECORD: "identify"}


def kind_of(data: Any) -> str:
    """What ``data`` are, in words."""
    if isinstance(data, (Record, Sequence)):
        return RECORD
    return {ImpulseResponse: TAPS, FrequencyResponse: SAMPLES}.get(type(data), MODEL)


def checked_method(name: str | None, data: Any, order: int | None, tol: float | None, mimo: bool) -> tuple[str, Method]:
    """The method called ``name``, or the usual one for ``data``; ValueError where it does not take them, or what was asked for."""
    kind = kind_of(data)
    name = _USUAL[kind] if name is None else name
    if name not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {name!r}")
    method = METHODS[name]
    fitting = ", ".join(other for other, candidate in METHODS.items() if kind in candidate.takes)
    if kind not in method.takes:
        raise ValueError(f"method {name}: expected {' or '.join(method.takes)}, got {kind}; methods for that: {fitting}")
    if tol is not None and order is not None:
        raise ValueError("expected --order or --tol, got both")
    if tol is not None and not method.tol:
        raise ValueError(f"method {name}: expected --order, got --tol, which it does not know")
    if order is None and tol is None and not method.chooses:
        raise ValueError(f"method {name}: expected --order{' or --tol' if method.tol else ''}, got neither")
    if mimo and not method.mimo:
        raise ValueError(f"method {name}: it fits each channel on its own, got --mimo")
    return name, method


def fitted(data: Any, method: Method, order: int | None, tol: float | None, mimo: bool) -> Result:
    """``data`` fitted by ``method``. Taps go to methods of the frequency domain as their spectrum on the FFT grid."""
    if isinstance(data, ImpulseResponse) and TAPS in method.takes and SAMPLES in method.takes:
        data = frequency_response(data, points=data.length)
    options: dict[str, Any] = dict(method.options)
    if isinstance(data, (ImpulseResponse, FrequencyResponse)) and method.mimo:
        options["mimo"] = mimo
    if tol is not None:
        options["tol"] = tol
        if method.function == "balanced_truncation":
            options["tol_norm"] = "h2"
    found = getattr(ssmid, method.function)(data, order=order, **options)
    return found.fit if isinstance(found, Identification) else found
