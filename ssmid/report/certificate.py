"""The certificate of a reduction: numbers for each channel, and what they mean in words that somebody can act on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.characteristics import is_stable
from ssmid.analysis.norms import norm
from ssmid.analysis.response_error import response_error
from ssmid.reduction.h2_result import H2Reduction
from ssmid.reduction.irka import InterpolatoryReduction
from ssmid.reduction.result import Reduction
from ssmid.report.progress import Stage
from ssmid.report.tables import Report, Table, percent
from ssmid.systems import ImpulseResponse, StateSpace

_RTOL = 1e-2
"""To what Hankel and H-infinity norms of the error of a response are measured: two digits of how near it is to the best."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How good a reduction is, for each channel. Arrays have one flat axis.

    channels : the batch index of each   order : int   error : relative l2   hankel : Hankel-norm error, measured
    best : sigma_{order+1}, what no stable model of the order gets below   peak : the largest error at any frequency, measured
    bound : of the peak, known beforehand; NaN where not all Hankel values are known, because then it says little
    scale : sigma_1, the Hankel norm of the original   converged, stable : boolean   tol : the relative l2 error asked for, if any
    searched : whether what converges is a search for the optimum   rough : whether the original is unstable, so that the model may be
    """

    channels: list[tuple[int, ...]]
    order: np.ndarray
    error: np.ndarray
    hankel: np.ndarray
    best: np.ndarray
    peak: np.ndarray
    bound: np.ndarray
    scale: np.ndarray
    converged: np.ndarray
    stable: np.ndarray
    tol: float | None = None
    searched: bool = False
    rough: bool = False

    @property
    def times_best(self) -> np.ndarray:
        """Hankel error over the least that any stable model of the order can have; NaN where the model is exact to rounding."""
        exact = self.best <= 1e-12 * self.scale
        return np.where(exact, np.nan, self.hankel / np.where(exact, 1.0, self.best))

    @property
    def met(self) -> np.ndarray:
        """Whether the tolerance holds; True where none was asked for. A channel that is zero has no error."""
        return np.ones(len(self.order), bool) if self.tol is None else (self.error <= self.tol) | (self.scale == 0)

    @property
    def good(self) -> bool:
        return bool(np.all(self.converged & self.met & (self.stable | self.rough)))


def certify(reduction: Reduction, tol: float | None = None, stage: Stage | None = None) -> Certificate:
    """Measures the errors of ``reduction``; of a response the Hankel and H-infinity norms to a per cent.

    A model that extrapolates (ERA, which has no a-priori bound) is held to the samples; every other one to all time.
    """
    stage = stage or (lambda description, done=None, total=None: None)
    batch = tuple(reduction.converged.shape)
    original, model, bound = reduction.original, reduction.system, to_numpy(reduction.bound)
    extrapolates = bound.size > 0 and not np.isfinite(bound[~np.isnan(bound)]).any()
    coupled = isinstance(original, ImpulseResponse) and len(original.batch_shape) > len(batch)

    def flat(value: Any) -> np.ndarray:
        return np.broadcast_to(to_numpy(value) if not isinstance(value, int) else np.asarray(value), batch).reshape(-1)

    def measured(kind: str, name: str) -> np.ndarray:
        stage(f"error: {name}")
        if isinstance(original, ImpulseResponse) and isinstance(model, StateSpace):
            return flat(response_error(original, model, kind, rtol=_RTOL, extrapolates=extrapolates)).astype(float)
        return flat(reduction.measured(kind)).astype(float)

    errors = {kind: measured(kind, name) for kind, name in (("h2", "energy"), ("hankel", "Hankel norm"), ("hinf", "largest gain"))}
    with np.errstate(invalid="ignore", divide="ignore"):
        error = errors["h2"] / flat(norm(original, "h2", mimo=coupled)).astype(float)
    sigma, best = to_numpy(reduction.sigma), flat(reduction.lower_bound)
    largest = sigma[..., 0] if sigma.shape[-1] else np.zeros(batch)
    return Certificate(
        channels=list(np.ndindex(*batch)),
        order=flat(reduction.order),
        error=error,
        hankel=np.maximum(errors["hankel"], best),  # a Ritz value and sigma_{order+1} both are lower bounds
        best=best,
        peak=errors["hinf"],
        bound=np.where(_knows_all_values(reduction), flat(bound), np.nan),
        scale=flat(largest),
        converged=flat(reduction.converged),
        stable=flat(is_stable(reduction.system)),
        tol=tol,
        searched=isinstance(reduction, (H2Reduction, InterpolatoryReduction)),
        rough=not isinstance(original, ImpulseResponse) and not bool(np.all(to_numpy(is_stable(original)))),
    )


def _knows_all_values(reduction: Reduction) -> bool:
    """Whether the a-priori bound is a sum of known Hankel values; of a long response the sum of the others is a bound itself."""
    original = reduction.original
    if not isinstance(original, ImpulseResponse):
        return True
    channels = original.taps.shape[-3:-1] if len(original.batch_shape) > reduction.converged.ndim else (1, 1)
    return reduction.sigma.shape[-1] >= min(channels) * (original.length - 1)


def certificate_report(reduction: Reduction, certificate: Certificate, title: str) -> Report:
    """Facts, a table with the worst channel first, and words."""
    c = certificate
    facts: dict[str, Any] = {"method": reduction.method, "model": repr(reduction.system), "channels": len(c.order)}
    if c.tol is not None:
        facts["tolerance"], facts["tolerance met"] = c.tol, bool(np.all(c.met))
    facts["converged"] = bool(np.all(c.converged))
    worst_first = np.argsort(np.where(np.isnan(c.error), np.inf, c.error), kind="stable")[::-1]
    columns = ["channel", "order", "relative l2 error", "Hankel error", "best possible", "times best", "H-infinity error", "bound"]
    columns += ["stable", "converged"]
    numbers = (c.order, c.error, c.hankel, c.best, c.times_best, c.peak, c.bound, c.stable, c.converged)
    rows = [[_name(c.channels[i]), *(column[i].item() for column in numbers)] for i in worst_first]
    if not np.isfinite(c.bound).any():
        bound = columns.index("bound")
        columns, rows = columns[:bound] + columns[bound + 1 :], [row[:bound] + row[bound + 1 :] for row in rows]
    if len(rows) > 1:
        facts["median relative l2 error"] = _nanmedian(c.error)
        facts["worst relative l2 error"] = _nanmax(c.error)
    return Report(title, facts, [Table("Errors, worst first" if len(rows) > 1 else "Errors", columns, rows)], words(c))


def words(certificate: Certificate) -> list[str]:
    """The certificate in sentences."""
    c = certificate
    sentences = _words_of_one(c) if len(c.order) == 1 else _words_of_many(c)
    missed = ~c.met & np.isfinite(c.error)  # a reduction counts these as not converged, whatever its Hankel values are
    failed = [_name(c.channels[i]) for i in np.flatnonzero(~c.converged & ~missed)]
    if failed and len(c.order) > 1:
        listed = ", ".join(failed[:8]) + (", ..." if len(failed) > 8 else "")
        sentences.append(f"{len(failed)} of {len(c.order)} channels failed or have not converged: {listed}. The others stand.")
    elif failed and c.searched:
        sentences.append("NOT CONVERGED: the search ended before the optimum was confirmed. The errors are those of the model as it is.")
    elif failed:
        sentences.append("NOT CONVERGED: the Hankel values are lower bounds. A lower order, or fewer samples, may converge.")
    unstable = [_name(c.channels[i]) for i in np.flatnonzero(~c.stable & np.isfinite(c.error))]
    if unstable and c.rough:
        sentences.append("UNSTABLE, as the original is: its unstable poles are kept.")
    elif unstable:
        which = "The model is" if len(c.order) == 1 else f"{len(unstable)} of {len(c.order)} models ({', '.join(unstable[:8])}) are"
        sentences.append(f"UNSTABLE: {which} unstable and good for the samples that were given only. --stable gives another.")
    if c.tol is not None and not np.all(c.met):
        missed = int(np.sum(~c.met))
        of = "" if len(c.order) == 1 else f" by {missed} of {len(c.order)} channels"
        sentences.append(f"The tolerance {c.tol:g} is not met{of}: ask for a larger one, or for a larger order.")
    return sentences


def _words_of_one(c: Certificate) -> list[str]:
    order, error, times = int(c.order[0]), float(c.error[0]), float(c.times_best[0])
    if c.scale[0] == 0:
        return ["The response is zero beyond its first tap: order 0 holds it exactly."]
    if not np.isfinite(error) and np.isfinite(c.bound[0]) and not c.stable[0]:
        return [f"The unstable poles are kept; what was left out of the stable part is at most {c.bound[0]:.3g} at any frequency."]
    if not np.isfinite(c.hankel[0] + c.scale[0]):
        return ["No model was found: the numbers are not finite."]
    sentences = [f"A model of order {order} leaves a relative l2 error of {percent(error)}."]
    if not np.isfinite(error):
        sentences = [f"A model of order {order}. In continuous time a feedthrough has infinite energy: there is no relative l2 error."]
    if np.isnan(times):
        sentences.append("It is exact to rounding: no larger order is of use, and a smaller one may do.")
        return sentences
    share = percent(float(c.hankel[0] / c.scale[0]))
    sentences.append(
        f"In Hankel norm the error is {times:.2g} times the best that any stable model of order {order} can reach; "
        f"it is {share} of the norm of the original."
    )
    if times < 2:
        sentences.append("In that norm no method gains more than that factor at this order: for a much smaller error take a larger order.")
    else:
        sentences.append(f"In that norm another method may gain up to a factor of {times:.2g} at this order.")
    known = f" (known beforehand to be at most {c.bound[0]:.3g})" if np.isfinite(c.bound[0]) else ""
    sentences.append(f"The largest error at any frequency is {c.peak[0]:.3g}{known}.")
    return sentences


def _words_of_many(c: Certificate) -> list[str]:
    sound = np.isfinite(c.error)
    if not sound.any():
        return ["No channel has a model: the numbers are zero or not finite."]
    orders = c.order[sound]
    span = f"order {orders.min()}" if orders.min() == orders.max() else f"orders {orders.min()} to {orders.max()}"
    sentences = [
        f"Models of {span} leave a relative l2 error of {percent(_nanmedian(c.error))} in the median "
        f"and {percent(_nanmax(c.error))} in the worst channel."
    ]
    times = c.times_best[sound]
    if np.isfinite(times).any():
        sentences.append(
            f"In Hankel norm the error is {_nanmedian(times):.2g} times (worst channel {_nanmax(times):.2g} times) "
            "the best that any stable model of its order can reach."
        )
    return sentences


def _name(index: tuple[int, ...]) -> str:
    return ",".join(str(i) for i in index) or "0"


def _nanmedian(values: np.ndarray) -> float:
    return float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else float("nan")


def _nanmax(values: np.ndarray) -> float:
    return float(np.max(values[np.isfinite(values)])) if np.isfinite(values).any() else float("nan")
