"""What a reduction says: the smaller system, its certificate, and the errors that can be measured on request."""

from __future__ import annotations

import dataclasses
from functools import cached_property

from ssmid._array import Array, namespace
from ssmid.analysis.conversion import to_state_space
from ssmid.analysis.interconnection import subtract
from ssmid.analysis.norms import norm
from ssmid.systems import Modal, StateSpace, System


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
        error, size = self.measured("h2"), norm(_strictly_proper(self.original) if not self.original.is_discrete else self.original, "h2")
        xp = namespace(error)
        return xp.where(error == 0, xp.zeros_like(error), error / xp.where(size == 0, xp.ones_like(size), size))

    def measured(self, kind: str) -> Array:
        """``(*batch,)`` the norm ``kind`` ("h2", "hankel", "hinf", "l1") of ``original - system``, measured, absolute."""
        return norm(subtract(self.original, self.system), kind)


def _strictly_proper(system: System) -> System:
    if isinstance(system, Modal):
        return dataclasses.replace(system, feedthrough=namespace(system.feedthrough).zeros_like(system.feedthrough))
    states = system if isinstance(system, StateSpace) else to_state_space(system)
    return dataclasses.replace(states, D=namespace(states.D).zeros_like(states.D))
