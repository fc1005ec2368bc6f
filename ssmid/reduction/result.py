"""What every result says: the system, its order and error, what was done to its poles and why; and what a reduction says beside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ssmid._array import Array, batched_on_host, namespace, to_numpy
from ssmid.analysis.characteristics import is_stable
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.interconnection import subtract
from ssmid.analysis.norms import norm
from ssmid.analysis.response_error import response_error
from ssmid.analysis.splitting import split_unstable
from ssmid.systems import ImpulseResponse, Modal, SparseStateSpace, StateSpace, System
from ssmid.systems.base import same_time


@dataclasses.dataclass(frozen=True)
class Change:
    """What was done to poles on the way to a result.

    action : "dropped", "reflected", "moved", "added"   poles : as they were (as they are, for "added")   why : one clause of words
    element : the batch index of the system
    """

    action: str
    poles: tuple[complex, ...]
    why: str
    element: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """What every reduction and every identification returns. Not made by users.

    system : the model   method : its name
    order : int, or ``(*batch,)`` integers where each element has its own (smaller ones are padded with zero states)
    converged : ``(*batch,)`` boolean   condition : ``(*batch,)`` of the problem that was solved last (its docstring says which)
    changes : what was done to poles, and why; empty where nothing was
    error : ``(*batch,)`` measured   error_kind : what it is, in words
    lower_bound : ``(*batch,)`` what no system of this order gets below, in the norm that each class names; None where none is known
    """

    system: System
    method: str
    order: int | Array
    converged: Array
    condition: Array
    changes: tuple[Change, ...] = ()

    if TYPE_CHECKING:  # fields of some, measured on request by others

        @property
        def error(self) -> Array: ...

        @property
        def error_kind(self) -> str: ...

    @property
    def stable(self) -> Array:
        """``(*batch,)`` boolean: all poles inside the circle or the left half plane."""
        return is_stable(self.system)

    def explain(self) -> str:
        """Three lines: the error, how far it can be trusted, what happened to poles."""
        return "\n".join((self._words_of_error(), self._words_of_trust(), self._words_of_poles()))

    def _words_of_error(self) -> str:
        orders, error = np.unique(to_numpy(self.order) if not isinstance(self.order, int) else [self.order]), to_numpy(self.error)
        order = f"order {orders[0]}" if len(orders) == 1 else f"orders {orders.min()} to {orders.max()}" if len(orders) else "no order"
        finite = error[np.isfinite(error)]
        if finite.size == 0:
            return f"{self.method}, {order}: the {self.error_kind} is not finite."
        size = f"{finite[0]:.3g}" if error.ndim == 0 else f"{np.median(finite):.3g} in the median, {finite.max():.3g} at worst"
        return f"{self.method}, {order}: {self.error_kind} {size}{self._words_of_bound()}."

    def _words_of_bound(self) -> str:
        """What stands behind the error: how much of it no method could avoid."""
        return ""

    def _words_of_trust(self) -> str:
        converged, condition = to_numpy(self.converged), to_numpy(self.condition)
        failed = int(np.sum(~converged))
        settled = "Converged" if failed == 0 else "Not converged" if converged.ndim == 0 else f"{failed} of {converged.size} not converged"
        finite = condition[np.isfinite(condition)]
        return f"{settled}; condition {finite.max():.2g}." if finite.size else f"{settled}; condition not finite."

    def _inherited(self, stable: np.ndarray) -> bool:
        """Whether what is unstable was made from what is unstable."""
        return False

    def _words_of_poles(self) -> str:
        stable = to_numpy(self.stable)
        unstable = int(np.sum(~stable))
        words = "Stable" if unstable == 0 else "Unstable" if stable.ndim == 0 else f"{unstable} of {stable.size} unstable"
        if unstable and self._inherited(stable):
            words += " as the original"
        counts: dict[tuple[str, str], int] = {}
        for change in self.changes:
            counts[change.action, change.why] = counts.get((change.action, change.why), 0) + len(change.poles)
        done = [f"{count} {'pole' if count == 1 else 'poles'} {action} ({why})" for (action, why), count in counts.items()]
        return f"{words}, {'complex' if self.system.is_complex else 'real'}; {', '.join(done) if done else 'no pole was moved or dropped'}."


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Reduction(Result):
    """A smaller system and how near it is to the original and to the best possible.

    system : the reduced system   original : what it was made from   method : its name
    order : int, or ``(*batch,)`` integers where a tolerance gave each element its own (smaller ones are padded with zero states)
    sigma : ``(*batch, k)`` Hankel singular values of the original, descending (all of them, or the k leading ones of a long response)
    bound : ``(*batch,)`` a-priori bound of the H-infinity error, ``2 sum_{i > order} sigma_i`` (Enns 1984, Glover 1984)
    lower_bound : ``(*batch,)`` sigma_{order+1}: no stable system of this order is nearer in Hankel norm (Adamjan-Arov-Krein 1971)
    converged : ``(*batch,)`` boolean   condition : ``(*batch,)`` sigma_1 / sigma_order, of the projection, where the method says no other
    """

    original: System
    sigma: Array
    bound: Array
    lower_bound: Array
    error_kind: ClassVar[str] = "relative l2 error"  # pyright: ignore[reportIncompatibleMethodOverride]

    @cached_property
    def error(self) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(*batch,)`` relative l2 (H2) error, measured: ``norm(original - system) / norm(original)``; 0 where both are zero.

        In continuous time the feedthrough, whose norm is infinite, is left out of the norm of the original, and so is an unstable part.
        """
        proper = self.original if self.original.is_discrete else _strictly_proper(self.original)
        error, size = self.measured("h2"), norm(proper, "h2", mimo=self._coupled)
        xp = namespace(error)
        if bool(xp.any(xp.isinf(size))):
            size = norm(_stable_part(proper), "h2")
        plain = (size == 0) | xp.isinf(error)  # of an unstable system both can be infinite
        return xp.where(error == 0, xp.zeros_like(error), error / xp.where(plain, xp.ones_like(size), size))

    def measured(self, kind: str) -> Array:
        """``(*batch,)`` the norm ``kind`` ("h2", "hankel", "hinf", "l1") of ``original - system``, measured, absolute.

        Of taps reduced with ``mimo=True`` the norm is that of the coupled system. An unstable part that both share cancels and is
        left out; without that the norm would be infinite. Of a response and a state space no difference longer than needed is made
        (:func:`ssmid.analysis.response_error.response_error`).
        """
        if isinstance(self.original, ImpulseResponse) and isinstance(self.system, StateSpace):
            same_time(self.original, self.system)
            return response_error(self.original, self.system, kind)
        difference = subtract(self.original, self.system)
        value = norm(difference, kind, mimo=self._coupled)
        if isinstance(difference, StateSpace) and bool(namespace(value).any(namespace(value).isinf(value))):
            value = norm(_without_cancelled(difference), kind)
        return value

    def _words_of_bound(self) -> str:
        error, best = to_numpy(self.measured("hankel")), to_numpy(self.lower_bound)
        known = np.isfinite(error) & (best > 0)
        if not known.any():
            return ""
        times = (error[known] / best[known]).max()
        return f"; in Hankel norm {times:.3g} times sigma_(order+1), which no stable system of that order gets below"

    def _inherited(self, stable: np.ndarray) -> bool:
        if isinstance(self.original, SparseStateSpace):
            return False
        return bool((to_numpy(is_stable(self.original)).reshape(-1) <= stable.reshape(-1)).all()) if not self._coupled else False

    @property
    def _coupled(self) -> bool:
        """Whether channels of taps became one system: there are two batch axes more than models."""
        return isinstance(self.original, ImpulseResponse) and len(self.original.batch_shape) > self.converged.ndim


def _without_cancelled(difference: StateSpace) -> StateSpace:
    """Elements whose unstable part is zero but for rounding, without it; states that decay, unreached, stand in its place."""
    return _by_elements(_stable_if_cancelled, difference)


def _by_elements(function: Callable[..., Any], system: StateSpace) -> StateSpace:
    A, B, C = batched_on_host(partial(function, discrete=system.is_discrete), system.A, system.B, system.C)
    return dataclasses.replace(system, A=A, B=B, C=C)


def _stable_if_cancelled(A: np.ndarray, B: np.ndarray, C: np.ndarray, discrete: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not all(np.isfinite(M).all() for M in (A, B, C)):
        return A, B, C
    (A1, B1, C1), (A2, B2, C2) = split_unstable(A, B, C, discrete=discrete)
    k = len(A1)
    if k == len(A):
        return A, B, C
    # beyond all poles a strictly proper function shows itself; what cancels is compared with what it is made of
    points = 2 * (np.linalg.norm(A2, 2) or 1.0) * np.exp(2j * np.pi * np.arange(8) / 8)[:, None, None]
    states = np.linalg.solve(points * np.eye(len(A2)) - A2, np.broadcast_to(B2 + 0j, (8, *B2.shape)))
    if np.abs(C2 @ states).max() > 1e-9 * (np.linalg.norm(C2, 2) * np.linalg.norm(states, 2, axis=(1, 2))).max():
        return A, B, C
    return _filled_up((A1, B1, C1), A, B, C, discrete)


def _filled_up(
    part: tuple[np.ndarray, np.ndarray, np.ndarray], A: np.ndarray, B: np.ndarray, C: np.ndarray, discrete: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``part`` with states that decay, unreached and unseen, up to the sizes of ``A``, ``B``, ``C``."""
    k = len(part[0])
    stable, inputs, outputs = np.zeros_like(A), np.zeros_like(B), np.zeros_like(C)
    stable[:k, :k], inputs[:k], outputs[:, :k] = part
    np.fill_diagonal(stable[k:, k:], 0 if discrete else -1)
    return stable, inputs, outputs


def _stable_part(system: System) -> StateSpace:
    """With states that decay, unreached and unseen, in place of the unstable ones."""
    states = system if isinstance(system, StateSpace) else to_state_space(system)
    return _by_elements(_with_stable_part, dataclasses.replace(states, **states.broadcast_arrays()))


def _with_stable_part(A: np.ndarray, B: np.ndarray, C: np.ndarray, discrete: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not all(np.isfinite(M).all() for M in (A, B, C)):
        return A, B, C
    return _filled_up(split_unstable(A, B, C, discrete=discrete)[0], A, B, C, discrete)


def _strictly_proper(system: System) -> System:
    if isinstance(system, Modal):
        return dataclasses.replace(system, feedthrough=namespace(system.feedthrough).zeros_like(system.feedthrough))
    states = system if isinstance(system, StateSpace) else to_state_space(system)
    return dataclasses.replace(states, D=namespace(states.D).zeros_like(states.D))
