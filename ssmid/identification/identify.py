"""One call from a record to a model: candidates of several methods and orders, judged on data they were not trained on."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.identification.arguments import checked_count, checked_order
from ssmid.identification.arx import arx
from ssmid.identification.centering import CENTERS
from ssmid.identification.pem import pem
from ssmid.identification.prediction_error import armax, oe
from ssmid.identification.record import Record, experiments
from ssmid.identification.result import Fit
from ssmid.identification.subspace import cva, n4sid
from ssmid.identification.validation import fit_percent, predict
from ssmid.linalg import eigvals
from ssmid.systems import StateSpace

METHODS = ("auto", "arx", "armax", "oe", "pem", "subspace")

_ROUGHLY: dict[str, Any] = {"tol": 1e-4, "iterations": 20}
"""Where candidates stop: what is left of the descent changes no ranking, and the chosen one is trained to the end."""


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
    center : what was taken off the records
    """

    fit: Fit
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    center: str | None = None

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
        off = f"\nWithout the {self.center} of each channel." if self.center else ""
        return f"{tried}: {best.method}, order {best.order}{drift}, {best.score:.4g} % there.{off}\n{self.fit.explain()}"


def identify(
    record: Record | list[Record],
    order: int | None = None,
    *,
    max_order: int = 12,
    method: str = "auto",
    focus: str = "simulation",
    center: str | None = "mean",
    drift: bool = True,
    stable: bool = True,
    held_out: float = 0.33,
) -> Identification:
    """The model that does best on the last part of the record, trained on all of it. Not differentiable.

    record : one system (no batch); of a list of records, the last ones are held out
    order : the number of states; when left out 1 to 6 and even numbers up to ``max_order``
    method : one of "arx", "armax", "oe", "pem", "subspace"; "auto" tries all but "pem"
    focus : "simulation" judges the free simulation, its initial state fitted; "prediction" one step ahead
    center : as for :func:`ssmid.arx`, but "mean" when left out, so that the zeros of the scales of measured quantities do not matter;
        None where they do, as for the answer of a system at rest to inputs that do not change
    drift : also output error with slow disturbances as states (:func:`ssmid.oe`), which are found anew in what judges
    stable : only stable models   held_out : the part of the samples that judges, at the end

    Candidates are trained on the first part and judged on the rest; among those within a tenth of the unexplained part of the best
    the one of the lowest order is trained again on everything. A candidate whose numerics fail counts as NaN; where the chosen one
    fails on everything the next is taken.
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
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: expected a part between 0 and 1, got {held_out!r}")
    if center is not None and center not in CENTERS:
        raise ValueError(f'center: expected "mean", "trend" or None, got {center!r}')
    checked_count("max_order", max_order)
    samples = sum(map(_length, records))
    if order is not None:
        checked_order("order", order, 1, max(1, (samples - 2) // 3), f"{samples} samples")
    training, judges = _split(records, held_out)
    orders = [order] if order is not None else [*range(1, min(max_order, 6) + 1), *range(8, max_order + 1, 2)]

    def judged(recipe: _Recipe) -> tuple[Candidate, _Recipe]:
        return _judged(recipe, training, judges, focus, stable), recipe

    tried = [judged(recipe) for recipe in _recipes(orders, method, focus, center, stable)]
    if drift and method in ("auto", "oe") and focus == "simulation":
        tried += _with_drift(orders, judged, center)
    tried.sort(key=lambda pair: -pair[0].score if np.isfinite(pair[0].score) else np.inf)
    if not np.isfinite(tried[0][0].score):
        raise ValueError(f"expected records that some model can be trained on, got {samples} samples, order {order}")
    best, fit = _trained(_by_preference(tried), record, stable)
    return Identification(fit, best, tuple(candidate for candidate, _ in tried), center)


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


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """How to make one candidate: ``train(records, **roughly)``, the latter for the judging alone."""

    method: str
    order: int
    drift: int
    delay: int
    train: Callable[..., Fit]
    roughly: dict[str, Any] = dataclasses.field(default_factory=dict)


_Tried = list[tuple[Candidate, _Recipe]]


def _recipes(orders: list[int], method: str, focus: str, center: str | None, stable: bool) -> Iterator[_Recipe]:
    """All candidates but those with drift."""
    for n in orders:
        if method in ("auto", "subspace"):
            for name, subspace in (("N4SID", n4sid), ("CVA", cva)):
                yield _Recipe(name, n, 0, 0, lambda r, n=n, f=subspace: f(r, n, stable=stable, center=center))
        for d in (0, 1):
            if method in ("auto", "arx"):
                yield _Recipe("ARX", n, 0, d, lambda r, n=n, d=d: arx(r, n, n + 1 - d, d, center=center, stable=stable and _single(r)))
            if method in ("auto", "armax"):
                train = partial(_armax, n, d, center, stable)
                yield _Recipe("ARMAX", n, 0, d, train, _ROUGHLY)
            if method in ("auto", "oe") and focus == "simulation":
                yield _Recipe("OE", n, 0, d, partial(_oe, n, d, 0, center), _ROUGHLY)
        if method == "pem":
            yield _Recipe("PEM", n, 0, 0, lambda r, n=n: pem(r, n, focus=focus, stable=stable, center=center))


def _with_drift(orders: list[int], judged: Callable[[_Recipe], tuple[Candidate, _Recipe]], center: str | None) -> _Tried:
    """Output error of each order with some of its states for drift; the first lag is that which does better with the most of them."""
    tried: _Tried = []
    for n in orders:
        *fewer, most = drifts(n) or [0]
        if most:
            both = [judged(_Recipe("OE", n, most, d, partial(_oe, n, d, most, center), _ROUGHLY)) for d in (0, 1)]
            d = max((c for c, _ in both), key=lambda candidate: np.nan_to_num(candidate.score, nan=-np.inf)).delay
            tried += both + [judged(_Recipe("OE", n, k, d, partial(_oe, n, d, k, center), _ROUGHLY)) for k in fewer]
    return tried


def drifts(order: int) -> list[int]:
    """How many of ``order`` states are tried as drift: one, and what leaves two, three or four to the system."""
    return sorted({k for k in (1, order - 4, order - 3, order - 2) if 0 < k < order})


def _armax(order: int, delay: int, center: str | None, stable: bool, record: Any, **roughly: Any) -> Fit:
    return armax(record, order, order + 1 - delay, order, delay, center=center, stable=stable, **roughly)


def _oe(order: int, delay: int, drift: int, center: str | None, record: Any, **roughly: Any) -> Fit:
    poles = order - drift
    return oe(record, poles + 1 - delay, poles, delay, drift=drift, center=center, **roughly)


def _single(record: Any) -> bool:
    return experiments(record)[0].outputs.shape[-2] == 1


def _judged(recipe: _Recipe, training: list[Record], judges: list[Record], focus: str, stable: bool) -> Candidate:
    candidate = Candidate(recipe.method, recipe.order, recipe.drift, recipe.delay, np.nan, False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = recipe.train(training if len(training) > 1 else training[0], **recipe.roughly)
            system = fit.system
            assert isinstance(system, StateSpace)
            inside = bool(np.abs(to_numpy(eigvals(system.A))).max(initial=0) < 1)
            steps = None if focus == "simulation" else 1
            scores = [float(np.min(to_numpy(fit_percent(r.outputs, predict(fit, r, steps))))) for r in judges]
    except (ValueError, np.linalg.LinAlgError):
        return candidate
    score = float(np.mean(scores)) if inside or not stable else np.nan
    return dataclasses.replace(candidate, order=system.order, score=score, stable=inside)


def _trained(tried: _Tried, record: Any, stable: bool) -> tuple[Candidate, Fit]:
    """The first that can be trained on everything: one of several experiments may be too short for what the others allow."""
    for candidate, recipe in tried[:-1]:
        try:
            return candidate, _last_training(recipe, record, stable)
        except (ValueError, np.linalg.LinAlgError):
            continue
    return tried[-1][0], _last_training(tried[-1][1], record, stable)


def _last_training(recipe: _Recipe, record: Any, stable: bool) -> Fit:
    with warnings.catch_warnings():
        # what may be unstable was asked to be allowed to
        warnings.simplefilter("default" if stable else "ignore")
        return recipe.train(record)


def _by_preference(tried: _Tried) -> _Tried:
    """``tried``, best first, with those near the best before the others: these the lowest order first."""
    best = tried[0][0].score
    enough = best - 0.1 * max(100 - best, 0)
    near = [pair for pair in tried if pair[0].score >= enough]
    rest = [pair for pair in tried if pair[0].score < enough]
    return sorted(near, key=lambda pair: (pair[0].order, -pair[0].score)) + rest
