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
    free : whether it may give unstable models unless it is told not to
    """

    function: str
    takes: tuple[str, ...]
    tol: bool = True
    mimo: bool = True
    chooses: bool = True
    free: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


METHODS: dict[str, Method] = {
    "balanced": Method("balanced_truncation", (TAPS, MODEL), chooses=False),
    "hankel": Method("hankel_norm_approximation", (TAPS, MODEL), chooses=False),
    "h2": Method("h2_approximation", (TAPS, MODEL), chooses=False),
    "irka": Method("irka", (MODEL,), tol=False, mimo=False, chooses=False),
    "modal": Method("modal_truncation", (MODEL,), tol=False, mimo=False, chooses=False),
    "stochastic": Method("stochastic_truncation", (MODEL,), tol=False, mimo=False, chooses=False),
    "coprime": Method("coprime_truncation", (MODEL,), tol=False, mimo=False, chooses=False),
    "era": Method("era", (TAPS,), chooses=False, free=True),
    "prony": Method("prony", (TAPS,), tol=False, free=True),
    "matrix-pencil": Method("matrix_pencil", (TAPS,), tol=False, free=True),
    "esprit": Method("esprit", (TAPS,), tol=False, free=True),
    "aaa": Method("aaa", (SAMPLES, TAPS), options={"stable": True}),
    "vector-fitting": Method("vector_fitting", (SAMPLES, TAPS)),
    "loewner": Method("loewner", (SAMPLES, TAPS), options={"stable": True}),
    "rkfit": Method("rkfit", (SAMPLES, TAPS), tol=False, chooses=False),
    "rational": Method("rational_least_squares", (SAMPLES, TAPS), tol=False, mimo=False, chooses=False, options={"stable": True}),
    "frequency-subspace": Method("frequency_subspace", (SAMPLES, TAPS), tol=False, free=True),
    "identify": Method("identify", (RECORD,), tol=False),
    "n4sid": Method("n4sid", (RECORD,), tol=False, free=True),
    "moesp": Method("moesp", (RECORD,), tol=False, free=True),
    "cva": Method("cva", (RECORD,), tol=False, free=True),
    "arx": Method("identify", (RECORD,), tol=False, options={"method": "arx"}),
    "armax": Method("identify", (RECORD,), tol=False, options={"method": "armax"}),
    "oe": Method("identify", (RECORD,), tol=False, options={"method": "oe"}),
    "pem": Method("identify", (RECORD,), tol=False, options={"method": "pem"}),
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
        hint = "; of a record, name its --inputs and --outputs" if kind == TAPS else ""
        raise ValueError(f"method {name}: expected --order{' or --tol, got neither' if method.tol else ', got none'}{hint}")
    if mimo and not method.mimo:
        raise ValueError(f"method {name}: it fits each channel on its own, got --mimo")
    check_coupling(data, mimo)
    return name, method


def check_coupling(data: Any, mimo: bool) -> None:
    """ValueError where channels are to be coupled and there is one alone, as in a mono recording or a one-port."""
    if mimo and isinstance(data, (ImpulseResponse, FrequencyResponse)) and not data.batch_shape:
        raise ValueError("--mimo: expected several channels to couple, got one: leave it out")


def fitted(
    data: Any, method: Method, order: int | None, tol: float | None, mimo: bool, center: str | None = None, stable: bool = False
) -> Result:
    """``data`` fitted by ``method``. Taps go to methods of the frequency domain as their spectrum on the FFT grid.

    center : "none", "mean" or "trend" of a record; the method's own choice where left out
    stable : only stable models, where the method leaves the choice
    """
    if isinstance(data, ImpulseResponse) and TAPS in method.takes and SAMPLES in method.takes:
        data = frequency_response(data, points=data.length)
    options: dict[str, Any] = dict(method.options)
    if isinstance(data, (ImpulseResponse, FrequencyResponse)) and method.mimo:
        options["mimo"] = mimo
    if center is not None:
        options["center"] = None if center == "none" else center
    if stable and method.free:
        options["stable"] = True
    if tol is not None:
        options["tol"] = tol
        if method.function == "balanced_truncation":
            options["tol_norm"] = "h2"
    found = getattr(ssmid, method.function)(data, order=order, **options)
    return found.fit if isinstance(found, Identification) else found
