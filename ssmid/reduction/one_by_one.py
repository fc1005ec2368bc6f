"""What the dense methods share: state spaces reduced one after another on the host, in units where neither gain nor time matters."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from math import frexp, ldexp, prod
from typing import Any, TypeVar

import numpy as np
import scipy.linalg

from ssmid._array import astype_width, double, from_numpy, in_threads, to_numpy, width
from ssmid.analysis.characteristics import is_stable
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.analysis.splitting import split_unstable
from ssmid.reduction.arguments import checked_order
from ssmid.reduction.result import Change, Reduction
from ssmid.systems import StateSpace, System

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
AnyReduction = TypeVar("AnyReduction", bound=Reduction)


@dataclasses.dataclass(frozen=True, eq=False)
class Element:
    """One system of NumPy matrices in float64 or complex128, scaled: the largest entries of A, B, C are about 1.

    rate : the factor by which time was slowed, so that a frequency omega (rad/s) is ``omega / rate`` here, an instant ``t * rate``
    gain : by which the response is to be multiplied
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    discrete: bool
    rate: float = 1.0
    gain: float = 1.0

    @cached_property
    def balanced(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``left``, ``right`` ``(n, n)`` and ``sigma`` with ``left^H right = diag(sigma)``: columns over ``sqrt(sigma)`` balance."""
        return balancing(*schur_gramian_factors(self.A, self.B, self.C, discrete=self.discrete))

    @property
    def sigma(self) -> np.ndarray:
        return self.balanced[2]

    @property
    def degree(self) -> int:
        """How many states there are to rounding."""
        return int(np.sum(self.sigma > len(self.A) * np.finfo(float).eps * self.sigma.max(initial=0.0)))


@dataclasses.dataclass(frozen=True, eq=False)
class Reduced:
    """What a method makes of an :class:`Element`, still scaled. ``sigma`` None: the Hankel values of the element.

    numbers : what a subclass of :class:`Reduction` says beside, by the name of its field: numbers, or vectors, filled up with zeros
    """

    matrices: Matrices
    sigma: np.ndarray | None = None
    bound: float = np.nan
    lower_bound: float | None = None
    converged: bool = True
    condition: float = 1.0
    changes: tuple[Change, ...] = ()
    numbers: Mapping[str, float | np.ndarray] = dataclasses.field(default_factory=dict)


def reduce_one_by_one(
    system: System,
    order: int | Callable[[np.ndarray], int],
    method: str,
    reduce: Callable[[Element, int], Reduced],
    kind: type[AnyReduction],
    *,
    splits: bool = True,
    least: int = 1,
    mimo: bool = False,
) -> AnyReduction:
    """The reduction of each element of ``system`` to ``order`` states by ``reduce``.

    order : one for all, or what chooses the order of a stable part from its Hankel values
    splits : unstable parts are split off, kept, and count as states; ``reduce`` sees the stable part only
    least : the smallest order that ``reduce`` takes; below it the feedthrough is what is left
    mimo : as of :func:`ssmid.to_state_space`

    Raises ValueError for an order outside what a single system carries, and what ``reduce`` raises for a single system; in a batch
    such an element gets what it carries, or NaN, and ``converged`` False. A system without states, or of which none is reached and
    seen, is its feedthrough whatever the order.
    """
    work = system if isinstance(system, StateSpace) else to_state_space(system, mimo=mimo)
    if not callable(order):
        order = checked_order(order, work.order)
    batch = work.batch_shape
    flat = [to_numpy(double(a)).reshape(prod(batch), *a.shape[-2:]) for a in work.broadcast_arrays().values()]

    def one(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> Reduced | None:
        if not all(np.isfinite(M).all() for M in (A, B, C, D)):
            return None
        try:
            return _scaled_and_back(A, B, C, D, work.is_discrete, order, reduce, single=not batch, splits=splits, least=least)
        except (ValueError, np.linalg.LinAlgError):
            if not batch:
                raise
            return None

    return _assembled(in_threads(one, *flat), system, work, None if callable(order) else order, method, kind)


def balancing(R: np.ndarray, L: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``L U``, ``R V`` and ``sigma`` of ``L^H R = U diag(sigma) V^H`` (Tombs & Postlethwaite 1987)."""
    U, sigma, Vh = scipy.linalg.svd(L.conj().T @ R, full_matrices=False, check_finite=False)
    return L @ U, R @ Vh.conj().T, sigma


def truncated(element: Element, left: np.ndarray, right: np.ndarray, sigma: np.ndarray, order: int) -> Matrices:
    """The projection on the leading columns of what :func:`balancing` gave."""
    root = np.sqrt(sigma[:order])
    left, right = (left[:, :order] / root).conj().T, right[:, :order] / root
    return left @ element.A @ right, left @ element.B, element.C @ right, element.D


# ---------------------------------------------------------------- one system


def _scaled_and_back(
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    discrete: bool,
    order: int | Callable[[np.ndarray], int],
    reduce: Callable[[Element, int], Reduced],
    *,
    single: bool,
    splits: bool,
    least: int,
) -> Reduced:
    size = float(np.abs(A).max(initial=0.0))
    rate = 1.0 if discrete or size == 0 else ldexp(1.0, 2 * (frexp(size)[1] // 2))  # powers of 2, of which nothing is rounded
    root = rate**0.5
    b, c = (ldexp(1.0, frexp(float(np.abs(M / root).max(initial=0.0)))[1]) for M in (B, C))
    gain = b * c
    A, B, C, D = A / rate, B / root / b, C / root / c, D / b / c
    unstable = (A[:0, :0], B[:0], C[:, :0])
    if splits and has_unstable(A, discrete):
        (A, B, C), unstable = split_unstable(A, B, C, discrete=discrete)
    element, kept = Element(A, B, C, D, discrete, rate, gain), len(unstable[0])
    if callable(order):
        order = kept + order(element.sigma)
    if kept > order:
        raise ValueError(f"order: expected at least {kept}, the number of unstable poles, which are kept, got {order}")
    most = kept + element.degree if splits else order if len(A) else 0
    if single and kept < most < order:
        raise ValueError(f"order: expected 1 to {most}, which is what the system carries to rounding, got {order}")
    wanted = min(order, most) - kept
    if wanted >= least and most:
        reduced = reduce(element, wanted)
    else:
        reduced = Reduced((A[:0, :0], B[:0], C[:, :0], D), bound=2 * float(np.sum(element.sigma)))
    A, B, C, D = reduced.matrices
    if kept:
        A, B, C = scipy.linalg.block_diag(A, unstable[0]), np.vstack([B, unstable[1]]), np.hstack([C, unstable[2]])
    sigma = element.sigma if reduced.sigma is None else reduced.sigma
    lower = float(np.append(sigma, 0.0)[wanted]) if reduced.lower_bound is None else reduced.lower_bound
    return dataclasses.replace(
        reduced,
        matrices=(A * rate, B * b * root, C * c * root, D * b * c),
        sigma=sigma * gain,
        bound=reduced.bound * gain,
        lower_bound=lower * gain,
        converged=most == kept or (reduced.converged and most >= order),
        changes=tuple(dataclasses.replace(change, poles=tuple(p * rate for p in change.poles)) for change in reduced.changes),
    )


def has_unstable(A: np.ndarray, discrete: bool) -> bool:
    poles = np.linalg.eigvals(A)
    return bool((np.abs(poles) >= 1 if discrete else np.real(poles) >= 0).any())


# ---------------------------------------------------------------- the result


def _assembled(
    results: list[Reduced | None], original: System, work: StateSpace, order: int | None, method: str, kind: type[AnyReduction]
) -> AnyReduction:
    batch, like, discrete = work.batch_shape, work.A, work.is_discrete
    orders = np.array([len(r.matrices[0]) if r else 0 for r in results], np.int64).reshape(batch)
    size = int(orders.max(initial=0)) if any(results) else order or 0
    if order is None and orders.size:  # chosen, and perhaps the same for all
        order = int(orders.flat[0])
    count = max((len(r.sigma) for r in results if r is not None and r.sigma is not None), default=0)
    n, p, m = size, work.outputs, work.inputs
    broken = tuple(np.full(shape, np.nan) for shape in ((n, n), (n, m), (p, n), (p, m)))
    parts = [_padded(r.matrices, size, discrete) if r else broken for r in results]

    def stacked(values: list[Any], shape: tuple[int, ...] = ()) -> Any:
        array = np.asarray(values, order="C").reshape((*batch, *shape))
        return astype_width(from_numpy(np.asarray(array, order="C"), like), width(like))

    def numbers_of(name: str) -> Any:
        return stacked([np.nan if r is None else getattr(r, name) for r in results])

    further = {field.name for field in dataclasses.fields(kind)} - {field.name for field in dataclasses.fields(Reduction)}
    return kind(
        system=StateSpace(*(stacked([part[i] for part in parts], broken[i].shape) for i in range(4)), dt=work.dt),
        original=original,
        method=method,
        order=int(orders) if not batch else order if order is not None and (orders == order).all() else from_numpy(orders, like),
        sigma=stacked([np.full(count, np.nan) if r is None else _filled(r.sigma, count) for r in results], (count,)),
        bound=numbers_of("bound"),
        lower_bound=numbers_of("lower_bound"),
        converged=from_numpy(np.array([r is not None and bool(r.converged) for r in results], bool).reshape(batch), like),
        condition=numbers_of("condition"),
        changes=tuple(
            dataclasses.replace(change, element=place)
            for r, place in zip(results, np.ndindex(*batch), strict=True)
            for change in (r.changes if r else ())
        ),
        **{name: _further(name, results, stacked) for name in further},
    )


def _further(name: str, results: list[Reduced | None], stacked: Callable[..., Any]) -> Any:
    values = [np.asarray(np.nan if r is None else r.numbers.get(name, 0.0)) for r in results]
    if all(value.ndim == 0 for value in values):
        return stacked(values)
    count = max(value.size for value in values)
    return stacked([_filled(v, count) if v.ndim else np.full(count, v if np.isnan(v) else 0.0) for v in values], (count,))


def _filled(sigma: np.ndarray | None, count: int) -> np.ndarray:
    sigma = np.zeros(0) if sigma is None else sigma
    return np.concatenate([sigma, np.zeros(count - len(sigma))])


def _padded(matrices: Matrices, size: int, discrete: bool) -> Matrices:
    """Filled up with states that decay, unreached and unseen."""
    A, B, C, D = matrices
    missing = size - len(A)
    if not missing:
        return matrices
    grown = np.zeros((size, size), A.dtype)
    grown[: len(A), : len(A)] = A
    np.fill_diagonal(grown[len(A) :, len(A) :], 0.0 if discrete else -1.0)
    return grown, np.pad(B, ((0, missing), (0, 0))), np.pad(C, ((0, 0), (0, missing))), D


def warn_if_destabilized(result: Reduction, remedy: str) -> None:
    """A warning that says how many elements became unstable and how to get stable ones. Unstable poles that were there do not count."""
    made = ~to_numpy(result.stable) & to_numpy(is_stable(result.original))
    count = int(np.sum(made))
    if count:
        which = "the reduced system is" if made.ndim == 0 else f"{count} reduced systems are"
        warnings.warn(f"{result.method}: {which} unstable; {remedy}", stacklevel=3)
