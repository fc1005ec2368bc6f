"""One call from a record to a model: candidates of several methods and orders, judged on data they were not trained on."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.identification.arx import arx
from ssmid.identification.pem import pem
from ssmid.identification.prediction_error import armax, oe
from ssmid.identification.record import Record, experiments
from ssmid.identification.result import Fit
from ssmid.identification.subspace import cva, n4sid
from ssmid.identification.validation import fit_percent, predict
from ssmid.linalg import eigvals
from ssmid.systems import StateSpace

METHODS = ("auto", "arx", "armax", "oe", "pem", "subspace")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One model that was tried. ``score``: fit in percent on the samples held out, the worst output; NaN where it failed."""

    method: str
    order: int
    drift: int
    delay: int
    score: float
    stable: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Identification:
    """What :func:`identify` found.

    fit : the chosen model, trained on the whole record   chosen : which candidate it is   candidates : all of them, the best first
    """

    fit: Fit
    chosen: Candidate
    candidates: tuple[Candidate, ...]

    @property
    def system(self) -> StateSpace:
        """The state space of the chosen model."""
        system = self.fit.system
        assert isinstance(system, StateSpace)
        return system

    def explain(self) -> str:
        """What was tried and chosen, then what the fit says of itself."""
        best = self.chosen
        drift = f" with {best.drift} states of drift" if best.drift else ""
        tried = f"Chosen of {len(self.candidates)} by the samples held out"
        return f"{tried}: {best.method}, order {best.order}{drift}, {best.score:.4g} % there.\n{self.fit.explain()}"


def identify(
    record: Record | list[Record],
    order: int | None = None,
    *,
    max_order: int = 12,
    method: str = "auto",
    focus: str = "simulation",
    center: str | None = None,
    drift: bool = True,
    stable: bool = True,
    held_out: float = 0.33,
) -> Identification:
    """The model that does best on the last part of the record, trained on all of it. Not differentiable.

    record : one system (no batch); of a list of records, the last ones are held out
    order : the number of states; when left out 1 to 6 and even numbers up to ``max_order``
    method : one of "arx", "armax", "oe", "pem", "subspace"; "auto" tries all but "pem"
    focus : "simulation" judges the free simulation, its initial state fitted; "prediction" one step ahead
    center : as for :func:`ssmid.arx`   drift : also output error with slow disturbances as states (:func:`ssmid.oe`)
    stable : only stable models   held_out : the part of the samples that judges, at the end

    Candidates are trained on the first part and judged on the rest; among those within a tenth of the unexplained part of the best
    the one of the lowest order is trained again on everything. A candidate whose numerics fail counts as NaN.
    Raises ValueError for options out of range and records too short to hold samples out.

    >>> from scipy.signal import lfilter
    >>> rng = np.random.default_rng(0)
    >>> u = rng.standard_normal(600)
    >>> y = lfilter([0, 1.0, 0.5], [1, -1.6, 0.8], u) + 0.1 * rng.standard_normal(600)
    >>> found = identify(Record(u, y), max_order=4, method="oe", drift=False)
    >>> found.chosen.order, bool(found.fit.stable)
    (2, True)
    """
    records = experiments(record)
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if focus not in ("simulation", "prediction"):
        raise ValueError(f'focus: expected "simulation" or "prediction", got {focus!r}')
    if records[0].batch_shape:
        raise ValueError(f"expected one system, got a batch of {records[0].batch_shape}: a loop identifies each")
    if not 0 < held_out < 1 or max_order < 1 or (order is not None and order < 1):
        raise ValueError(f"expected held_out in (0, 1) and orders of at least 1, got {held_out}, max_order {max_order}, order {order}")
    training, judges = _split(records, held_out)
    tried: list[tuple[Candidate, Callable[[Any], Fit]]] = []
    orders = [order] if order is not None else [*range(1, min(max_order, 6) + 1), *range(8, max_order + 1, 2)]
    for name, lags, states, first, train in _recipes(orders, method, focus, center, drift, stable, max(map(_length, records))):
        tried.append((_judged(name, lags, states, first, train, training, judges, focus, stable), train))
    tried.sort(key=lambda pair: -pair[0].score if np.isfinite(pair[0].score) else np.inf)
    if not np.isfinite(tried[0][0].score):
        raise ValueError(f"expected records that some model can be trained on, got {sum(map(_length, records))} samples, order {order}")
    best, train = _parsimonious(tried)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if not stable else "default")
        fit = train(record)
    return Identification(fit, best, tuple(candidate for candidate, _ in tried))


def _length(record: Record) -> int:
    return record.length


def _split(records: list[Record], part: float) -> tuple[list[Record], list[Record]]:
    """Records to train on and records to judge by."""
    if len(records) > 1:
        kept = max(1, round(len(records) * (1 - part)))
        kept = min(kept, len(records) - 1)
        return records[:kept], records[kept:]
    cut = round(records[0].length * (1 - part))
    if cut < 8 or records[0].length - cut < 8:
        raise ValueError(f"expected at least 8 samples to train on and 8 to judge by, got {cut} and {records[0].length - cut}")
    return [records[0][:cut]], [records[0][cut:]]


def _recipes(
    orders: list[int], method: str, focus: str, center: str | None, drift: bool, stable: bool, length: int
) -> Iterator[tuple[str, int, int, int, Callable[[Any], Fit]]]:
    """Name, order, drift, first lag and the training of every candidate."""
    for n in orders:
        if method in ("auto", "subspace"):
            for name, subspace in (("N4SID", n4sid), ("CVA", cva)):
                yield name, n, 0, 0, lambda r, n=n, f=subspace: f(r, n, stable=stable, center=center)
        for d in (0, 1):
            if method in ("auto", "arx"):
                yield "ARX", n, 0, d, lambda r, n=n, d=d: arx(r, n, n + 1 - d, d, center=center, stable=stable and _single(r))
            if method in ("auto", "armax"):
                yield "ARMAX", n, 0, d, lambda r, n=n, d=d: armax(r, n, n + 1 - d, n, d, center=center, stable=stable, iterations=20)
            if method in ("auto", "oe") and focus == "simulation":
                for k in _drifts(n, drift):
                    yield "OE", n, k, d, lambda r, n=n, d=d, k=k: oe(r, n - k + 1 - d, n - k, d, drift=k, center=center)
        if method == "pem":
            yield "PEM", n, 0, 0, lambda r, n=n: pem(r, n, focus=focus, stable=stable, center=center)


def _drifts(order: int, drift: bool) -> list[int]:
    """How many of ``order`` states may be drift: none, one, or what leaves two, three or four to the system."""
    return sorted({0, *(k for k in (1, order - 4, order - 3, order - 2) if 0 < k < order)}) if drift else [0]


def _single(record: Any) -> bool:
    return experiments(record)[0].outputs.shape[-2] == 1


def _judged(
    name: str, order: int, drift: int, delay: int, train: Callable[[Any], Fit], training: list[Record], judges: list[Record],
    focus: str, stable: bool,
) -> Candidate:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = train(training if len(training) > 1 else training[0])
            system = fit.system
            assert isinstance(system, StateSpace)
            inside = bool(np.abs(to_numpy(eigvals(system.A))).max(initial=0) < 1)
            steps = None if focus == "simulation" else 1
            scores = [float(np.min(to_numpy(fit_percent(r.outputs, predict(fit, r, steps))))) for r in judges]
        score = float(np.mean(scores)) if inside or not stable else np.nan
        return Candidate(name, system.order, drift, delay, score, inside)
    except (ValueError, np.linalg.LinAlgError):
        return Candidate(name, order, drift, delay, np.nan, False)


def _parsimonious(tried: list[tuple[Candidate, Callable[[Any], Fit]]]) -> tuple[Candidate, Callable[[Any], Fit]]:
    best = tried[0][0].score
    near = [pair for pair in tried if pair[0].score >= best - 0.1 * max(100 - best, 0)]
    return min(near, key=lambda pair: (pair[0].order, -pair[0].score))
