"""Which reduction for this system: every method at every order, its errors beside what no method gets below."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.hankel import hankel_singular_values
from ssmid.analysis.norms import norm
from ssmid.reduction.balanced import balanced_truncation
from ssmid.reduction.coprime import coprime_truncation
from ssmid.reduction.h2 import h2_approximation
from ssmid.reduction.hankel_norm import hankel_norm_approximation
from ssmid.reduction.irka import irka
from ssmid.reduction.low_rank import compressed
from ssmid.reduction.modal_truncation import modal_truncation
from ssmid.reduction.result import Reduction
from ssmid.reduction.stochastic import stochastic_truncation
from ssmid.systems import ImpulseResponse, SparseStateSpace, StateSpace, System

Method = Callable[[System, int], Reduction]

METHODS: Mapping[str, Method] = {
    "balanced": balanced_truncation,
    "singular perturbation": partial(balanced_truncation, match_dc=True),
    "hankel": hankel_norm_approximation,
    "h2": h2_approximation,
    "irka": irka,
    "modal": modal_truncation,
    "stochastic": stochastic_truncation,
    "coprime": coprime_truncation,
}
"""The methods that :func:`compare` knows by name."""
_OF_TAPS, _OF_STATES = ("balanced", "hankel", "h2"), ("balanced", "singular perturbation", "hankel", "h2", "irka", "modal", "stochastic")
_COLUMNS = ("method", "order", "H2", "H-infinity", "Hankel", "/ bound", "seconds", "stable")


@dataclasses.dataclass(frozen=True)
class Row:
    """One method at one order.

    order : that was asked for   states : of the result, which can be fewer
    h2 : H2 error relative to the norm of the original   hinf, hankel : these errors relative to those norms of it
    ratio : Hankel error over ``sigma_{states+1}``, at least 1   seconds : it took, without the errors
    failure : why there is no result; numbers are then NaN
    """

    method: str
    order: int
    states: int
    h2: float
    hinf: float
    hankel: float
    ratio: float
    seconds: float
    stable: bool
    converged: bool
    failure: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What :func:`compare` found. Iterating gives the rows.

    original : the system   rows : one for each method and order   results : the reductions by method and order
    sigma : Hankel singular values of the original; ``sigma[r]`` is what no stable system of r states gets below in any of the
        three norms but H2   peak, energy : the H-infinity and the H2 norm of the original
    """

    original: System
    rows: tuple[Row, ...]
    results: Mapping[tuple[str, int], Reduction]
    sigma: np.ndarray
    peak: float
    energy: float

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def best(self, order: int, kind: str = "h2") -> Row:
        """The stable row of the least error ("h2", "hinf", "hankel") at ``order``; ValueError where there is none."""
        if kind not in ("h2", "hinf", "hankel"):
            raise ValueError(f"kind: expected 'h2', 'hinf' or 'hankel', got {kind!r}")
        rows = [row for row in self.rows if row.order == order and row.stable and np.isfinite(getattr(row, kind))]
        if not rows:
            raise ValueError(f"order: expected one of {sorted({row.order for row in self.rows})} with a stable result, got {order}")
        return min(rows, key=lambda row: getattr(row, kind))

    def table(self) -> str:
        """The rows as text, and the failures in words."""
        lines: list[tuple[str, ...]] = [_COLUMNS]
        for row in self.rows:
            states = f"{row.order}" if row.states == row.order or row.failure else f"{row.order} ({row.states})"
            numbers = [f"{value:.3g}" for value in (row.h2, row.hinf, row.hankel, row.ratio, row.seconds)]
            if row.failure:
                numbers[:4] = ["-"] * 4
            lines.append((row.method, states, *numbers, "-" if row.failure else "yes" if row.stable else "no"))
        widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
        text = ["  ".join([line[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(line[1:], widths[1:], strict=True))]) for line in lines]
        return "\n".join([*text, *(f"{row.method}, order {row.order}: {row.failure}" for row in self.rows if row.failure)])


def compare(
    system: System, orders: int | Sequence[int], methods: Sequence[str | Method] | Mapping[str, Method] | None = None
) -> Comparison:
    """Reduces ``system`` to each of ``orders`` by each of ``methods``, and measures every error in the same way.

    system : a single StateSpace, ImpulseResponse or other model; a SparseStateSpace is compared by its balanced realization to
        rounding, which all methods start from
    methods : names ("balanced", "singular perturbation", "hankel", "h2", "irka", "modal", "stochastic", "coprime"), or functions
        ``(system, order) -> Reduction`` such as :func:`ssmid.era` or a ``functools.partial``, under their own names, or such functions
        by names of yours; when left out, all that suit the system (of taps: "balanced", "hankel", "h2")

    A method that refuses an order is a row with its reason, and stops no other. Errors are those of :meth:`Reduction.measured`,
    relative to the norms of the original (infinite where a feedthrough in continuous time makes the H2 norm so).
    Raises ValueError for a batch, an unknown method, and an unstable system.

    >>> from ssmid import zpk
    >>> found = compare(zpk([-0.5], [0.9, 0.1, 0.11], 1.0), [1, 2], ["balanced", "hankel"])
    >>> [(row.method, row.order) for row in found], found.best(1, "hankel").method
    ([('balanced', 1), ('balanced', 2), ('hankel', 1), ('hankel', 2)], 'hankel')
    """
    if not isinstance(system, System):
        raise TypeError(f"expected a System (StateSpace, ImpulseResponse, ...), got {type(system).__name__}")
    if system.batch_shape:
        raise ValueError(f"expected a single system, got a batch {system.batch_shape}: compare its elements one by one")
    wanted = [orders] if isinstance(orders, int) else list(orders)
    if not wanted:
        raise ValueError("orders: expected at least one, got none")
    work = compressed(system).system if isinstance(system, SparseStateSpace) else system
    if methods is None:
        methods = _OF_TAPS if isinstance(work, ImpulseResponse) else _OF_STATES
    named = dict(methods) if isinstance(methods, Mapping) else dict(map(_named, methods))
    count = min(max(wanted) + 1, work.length - 1) if isinstance(work, ImpulseResponse) else None
    sigma = to_numpy(hankel_singular_values(work, count))
    peak = float(norm(work, "hinf"))
    if not np.isfinite(peak):
        raise ValueError("expected a stable system, got one of infinite gain: split its unstable part off first")
    proper = work if work.is_discrete else _strictly_proper(work)
    found = Comparison(system, (), {}, sigma, peak, float(norm(proper, "h2")))
    rows, results = [], {}
    for name, method in named.items():
        for order in wanted:
            row, result = _row(name, method, work, order, found)
            rows.append(row)
            if result is not None:
                results[name, order] = result
    return dataclasses.replace(found, rows=tuple(rows), results=results)


def _named(method: str | Method) -> tuple[str, Method]:
    if not isinstance(method, str):
        inner = method.func if isinstance(method, partial) else method
        return getattr(inner, "__name__", type(inner).__name__), method
    if method not in METHODS:
        raise ValueError(f"methods: expected functions or some of {', '.join(METHODS)}, got {method!r}")
    return method, METHODS[method]


def _row(name: str, method: Method, system: System, order: int, about: Comparison) -> tuple[Row, Reduction | None]:
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what is unstable or not converged stands in the table
            result = method(system, order)
    except ValueError as error:
        nothing = float("nan")
        return Row(name, order, 0, nothing, nothing, nothing, nothing, time.perf_counter() - start, False, False, str(error)), None
    seconds = time.perf_counter() - start
    states = result.order if isinstance(result.order, int) else int(to_numpy(result.order))
    h2, hinf, hankel = (float(result.measured(kind)) for kind in ("h2", "hinf", "hankel"))
    best = float(np.append(about.sigma, 0.0)[min(states, len(about.sigma))])
    return Row(
        name,
        order,
        states,
        _over(h2, about.energy),
        _over(hinf, about.peak),
        _over(hankel, float(about.sigma[0]) if len(about.sigma) else 0.0),
        _over(hankel, best),
        seconds,
        bool(to_numpy(result.stable)),
        bool(to_numpy(result.converged)),
    ), result


def _over(error: float, size: float) -> float:
    return error / size if size > 0 else 0.0 if error == 0 else np.inf


def _strictly_proper(system: System) -> StateSpace:
    states = to_state_space(system)
    return StateSpace(states.A, states.B, states.C, dt=states.dt)
