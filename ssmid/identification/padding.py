"""Batches whose elements differ in size: filled up with zeros, and elements whose states are given otherwise."""

from __future__ import annotations

import numpy as np

from ssmid._array import Array, from_numpy, namespace, to_numpy
from ssmid.systems import StateSpace


def grown(array: Array, sizes: tuple[int, ...], batch: int = 1, fill: float = 0.0) -> Array:
    """``array`` ``(*batch, ...)`` filled up at the ends to ``(*batch, *sizes)``."""
    xp = namespace(array)
    for axis, size in enumerate(sizes, batch):
        missing = (*array.shape[:axis], size - array.shape[axis], *array.shape[axis + 1 :])
        if missing[axis]:
            array = xp.concat([array, xp.full(missing, fill, dtype=array.dtype, device=array.device)], axis=axis)
    return array


def with_states(system: StateSpace, chosen: Array, A: Array, B: Array, C: Array, D: Array) -> StateSpace:
    """``system`` with other matrices in the ``chosen`` ``(*batch,)`` elements; zero states where these need fewer, or more."""
    xp, batch = namespace(chosen), chosen.ndim
    if not bool(xp.any(chosen)):
        return system
    n, mask = max(system.order, A.shape[-1]), chosen[..., None, None]
    A, B, C = (
        xp.where(mask, grown(other, size, batch), grown(own, size, batch))
        for own, other, size in (
            (system.A, A, (n, n)),
            (system.B, B, (n, system.inputs)),
            (system.C, C, (system.outputs, n)),
        )
    )
    return StateSpace(A, B, C, xp.where(mask, D, system.D), system.dt)


def states_in_use(system: StateSpace) -> int | Array:
    """The number of states of each element, ``(*batch,)``, without those that fill it up: that nothing enters, and nothing leaves."""
    A, B, C = (to_numpy(M) != 0 for M in (system.A, system.B, system.C))
    beside = A & ~np.eye(A.shape[-1], dtype=bool)
    used = (beside.any(-1) | beside.any(-2) | B.any(-1) | C.any(-2)).sum(-1)
    return int(used) if used.ndim == 0 else from_numpy(used, system.A)
