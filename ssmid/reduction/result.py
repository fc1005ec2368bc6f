"""What a reduction says: the smaller system, its certificate, and the errors that can be measured on request."""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial

import numpy as np

from ssmid._array import Array, batched_on_host, namespace
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.interconnection import subtract
from ssmid.analysis.norms import norm
from ssmid.analysis.response_error import response_error
from ssmid.analysis.splitting import split_unstable
from ssmid.systems import ImpulseResponse, Modal, StateSpace, System
from ssmid.systems.base import same_time


@dataclasses.dataclass(frozen=True, eq=False)
class Reduction:
    """A smaller system and how near it is to the original and to the best possible.

    system : the reduced system   original : what it was made from   method : its name
    order : int, or ``(*batch,)`` integers where a tolerance gave each element its own (smaller ones are padded with zero states)
    sigma : ``(*batch, k)`` Hankel singular values of the original, descending (all of them, or the k leading ones of a long response)
    bound : ``(*batch,)`` a-priori bound of the H-infinity error, ``2 sum_{i > order} sigma_i`` (Enns 1984, Glover 1984)
    lower_bound : ``(*batch,)`` sigma_{order+1}: no stable system of this order is nearer in Hankel norm (Adamjan-Arov-Krein 1971)
    converged : ``(*batch,)`` boolean   condition : ``(*batch,)`` of the projection, sigma_1 / sigma_order
    """

    system: System
    original: System
    method: str
    order: int | Array
    sigma: Array
    bound: Array
    lower_bound: Array
    converged: Array
    condition: Array

    @cached_property
    def error(self) -> Array:
        """``(*batch,)`` relative l2 (H2) error, measured: ``norm(original - system) / norm(original)``; 0 where both are zero.

        In continuous time the feedthrough, whose norm is infinite, is left out of the norm of the original.
        """
        proper = self.original if self.original.is_discrete else _strictly_proper(self.original)
        error, size = self.measured("h2"), norm(proper, "h2", mimo=self._coupled)
        xp = namespace(error)
        return xp.where(error == 0, xp.zeros_like(error), error / xp.where(size == 0, xp.ones_like(size), size))

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

    @property
    def _coupled(self) -> bool:
        """Whether channels of taps became one system: there are two batch axes more than models."""
        return isinstance(self.original, ImpulseResponse) and len(self.original.batch_shape) > self.converged.ndim


def _without_cancelled(difference: StateSpace) -> StateSpace:
    """Elements whose unstable part is zero but for rounding, without it; states that decay, unreached, stand in its place."""
    A, B, C = batched_on_host(partial(_stable_if_cancelled, discrete=difference.is_discrete), difference.A, difference.B, difference.C)
    return dataclasses.replace(difference, A=A, B=B, C=C)


def _stable_if_cancelled(A: np.ndarray, B: np.ndarray, C: np.ndarray, discrete: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not all(np.isfinite(M).all() for M in (A, B, C)):
        return A, B, C
    (A1, B1, C1), (A2, B2, C2) = split_unstable(A, B, C, discrete=discrete)
    k = len(A1)
    if k == len(A):
        return A, B, C
    # beyond all poles a strictly proper function shows itself; what cancels is compared with what it is made of
    points = 2 * np.linalg.norm(A2, 2) * np.exp(2j * np.pi * np.arange(8) / 8)[:, None, None]
    states = np.linalg.solve(points * np.eye(len(A2)) - A2, np.broadcast_to(B2 + 0j, (8, *B2.shape)))
    if np.abs(C2 @ states).max() > 1e-9 * (np.linalg.norm(C2, 2) * np.linalg.norm(states, 2, axis=(1, 2))).max():
        return A, B, C
    stable, inputs, outputs = np.zeros_like(A), np.zeros_like(B), np.zeros_like(C)
    stable[:k, :k], inputs[:k], outputs[:, :k] = A1, B1, C1
    np.fill_diagonal(stable[k:, k:], 0 if discrete else -1)
    return stable, inputs, outputs


def _strictly_proper(system: System) -> System:
    if isinstance(system, Modal):
        return dataclasses.replace(system, feedthrough=namespace(system.feedthrough).zeros_like(system.feedthrough))
    states = system if isinstance(system, StateSpace) else to_state_space(system)
    return dataclasses.replace(states, D=namespace(states.D).zeros_like(states.D))
