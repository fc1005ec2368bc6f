"""One set of poles for many filters, a head or a layer: simultaneous balanced truncation, and the sum of their squared errors."""

from __future__ import annotations

import dataclasses
from math import prod

import numpy as np

from ssmid._array import Array, from_numpy, namespace, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.pole_search import Misfit, Problem
from ssmid.linalg import eigvals, numerical_rank
from ssmid.reduction.h2_request import closed
from ssmid.reduction.hankel_projection import project
from ssmid.systems import Modal

_ACCURACY = {"loose": (1e-2, 1e-1), "tight": (1e-10, 1e-7)}


def group_size(shared: int, batch: tuple[int, ...]) -> int:
    """How many filters share their poles where the last ``shared`` batch axes do. ValueError where there are fewer axes."""
    if shared > len(batch):
        raise ValueError(f"shared: expected at most {len(batch)}, the batch axes of the filters, got {shared}")
    return max(1, prod(batch[len(batch) - shared :]))


def with_shared_poles(bank: Modal, shared: int) -> Modal:
    """One set of poles ``(*batch, 1.., d)`` for the filters of each group: those of its first that has any."""
    xp, d = namespace(bank.poles), bank.poles.shape[-1]
    outer, inner = bank.poles.shape[: bank.poles.ndim - 1 - shared], bank.poles.shape[bank.poles.ndim - 1 - shared : -1]
    poles = xp.reshape(bank.poles, (prod(outer), prod(inner), d))
    size = xp.abs(poles)
    count = xp.sum(xp.astype(size > 0, xp.int64), axis=-1)  # none where not a number
    first = xp.argmax(count, axis=-1, keepdims=True)
    own = xp.take_along_axis(poles, first[:, :, None] + xp.zeros((1, 1, d), dtype=first.dtype, device=first.device), axis=1)
    return dataclasses.replace(bank, poles=xp.reshape(own, (*outer, *(1 for _ in inner), d)))


def stacked_poles(bank: Bank, orders: np.ndarray, accuracy: str) -> tuple[np.ndarray, np.ndarray, Array]:
    """Poles ``(n, d)`` of each group, its order where it carries no more, and whether all Hankel vectors were found.

    Simultaneous balanced truncation: the left singular vectors of the Hankel matrices of a group, side by side, each filter of energy
    one, span the subspace that the shift is compressed to. A compression of a contraction, hence stable. The zero-padded matrices
    have as rows the filters' futures, which all start from the same states (Kung, Asilomar 1978, with one input for each filter).

    orders : ``(n,)`` that are asked for
    """
    xp, (n, k) = namespace(bank.strict), (len(orders), bank.group)
    unit = of_energy_one(bank)
    taps = xp.reshape(xp.concat([xp.zeros_like(unit[:, :1]), unit], axis=-1), (n, 1, k, bank.length + 1))
    most = int(orders.max(initial=0))
    rtol, tail_rtol = _ACCURACY[accuracy]
    found = project(taps, max(1, min(most, bank.length)), bank.length, bank.length, rtol=rtol, tail_rtol=tail_rtol)
    sigma = to_numpy(found.sigma)
    orders = np.minimum(orders, numerical_rank(sigma))
    poles = np.zeros((n, int(orders.max(initial=0))), complex)
    for order in np.unique(orders[orders > 0]):
        rows = np.flatnonzero(orders == order)
        blocks = xp.take(found.A, from_numpy(rows, found.A), axis=0)[:, :order, :order]
        poles[rows, :order] = closed(to_numpy(eigvals(blocks)))
    return poles, orders, xp.all(found.found, axis=-1)


def of_energy_one(bank: Bank) -> Array:
    """The filters of a group as they count: each of energy one, or zero."""
    xp = namespace(bank.strict)
    energy = xp.sum(bank.strict**2, axis=-1, keepdims=True)
    return bank.strict / xp.sqrt(xp.where(energy > 0, energy, xp.ones_like(energy)))


@dataclasses.dataclass(frozen=True, eq=False)
class Grouped:
    """The sum of the squared relative errors of neighbours that share their poles.

    Relative, because what scales a channel stands outside of the filter, in the projections of its layer: a gain moved from there into
    the filter must not change the poles. A channel that matters more can be given larger weights. Filters that are zero do not count.
    """

    problem: Problem
    group: int
    unit: Array
    """``(m,)`` the squared error that counts as one; 0 where a filter does not count."""

    @classmethod
    def of(cls, problem: Problem, group: int) -> Grouped:
        return cls(problem, group, problem.energy)

    @property
    def energy(self) -> Array:
        return self.joined(self.unit)

    def joined(self, squares: Array) -> Array:
        return self._sum(squares)

    def take(self, chosen: Array) -> Grouped:
        xp = namespace(chosen)
        every = xp.reshape(chosen[:, None] * self.group + xp.arange(self.group, dtype=chosen.dtype, device=chosen.device), (-1,))
        return Grouped(self.problem.take(every), self.group, xp.take(self.unit, every, axis=0))

    def __call__(self, poles: Array, live: Array) -> Misfit:
        found = self.problem(*self._each(poles, live))
        return Misfit(*(self._sum(getattr(found, field.name)) for field in dataclasses.fields(Misfit)))

    def residues(self, poles: Array, live: Array) -> Array:
        return self.problem.residues(*self._each(poles, live))  # pyright: ignore[reportAttributeAccessIssue]

    def _each(self, poles: Array, live: Array) -> tuple[Array, Array]:
        xp = namespace(poles)
        return xp.repeat(poles, self.group, axis=0), xp.repeat(live, self.group, axis=0)

    def _sum(self, x: Array) -> Array:
        xp = namespace(x)
        shape = (-1,) + (1,) * (x.ndim - 1)
        counts = xp.reshape(self.unit > 0, shape)
        unit = xp.astype(xp.reshape(xp.where(self.unit > 0, self.unit, xp.ones_like(self.unit)), shape), x.dtype)
        return xp.sum(xp.reshape(xp.where(counts, x / unit, xp.zeros_like(x)), (-1, self.group, *x.shape[1:])), axis=1)
