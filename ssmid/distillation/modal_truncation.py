"""Modal truncation of a large model of every filter: what Massaroli et al. (arXiv 2310.18780) compare their distiller with."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import from_numpy, namespace, to_numpy
from ssmid.distillation.balanced import fit_balanced
from ssmid.distillation.bank import Bank
from ssmid.distillation.by_order import closed_residues, replaced_fits, stateless
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace, leading_subspace

_TIMES, _LEAST = 4, 64
_CARRIED = 1e-8
"""Of the largest Hankel value: a large model has no states of less."""
_WORST_CONDITION = 1e3
"""Of the eigenvectors. Filters of few taps have large models that are close to a delay line, whose poles are all 0."""


def fit_modal_truncation(bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options) -> Fitted:
    """The most dominant poles of balanced truncation at four times the order (64 at least), with their residues as they were.

    Dominance is the Hankel norm ``|r| / (1 - |p|^2)`` of a pole's own part. Pairs stay together: where only one place is left the most
    dominant real pole takes it, and without one the order is one less. The large model is halved, down to the order itself, as long as
    its eigenvectors have a condition above 1e3. ``converged`` and ``condition`` are those of the large model.
    """
    if not orders.any():
        return stateless(bank)
    large = np.minimum(np.where(orders > 0, np.maximum(_TIMES * orders, _LEAST), 0), bank.length)
    space = leading_subspace(bank, int(large.max()), "tight")
    sigma = to_numpy(space.sigma)
    large = np.maximum(np.minimum(large, (sigma > _CARRIED * sigma[:, :1]).sum(-1)), orders)
    full = fit_balanced(bank, large, space, options)
    while True:
        rows = np.flatnonzero(~(to_numpy(full.condition) <= _WORST_CONDITION) & (large > orders))
        if not len(rows):
            break
        large[rows] = np.maximum(large[rows] // 2, orders[rows])
        full = replaced_fits(full, rows, fit_balanced(bank.take(rows), large[rows], space.take(rows), options))
    return _truncated(full, orders)


def _truncated(full: Fitted, orders: np.ndarray) -> Fitted:
    """With the dominant poles alone."""
    chosen = _dominant(to_numpy(full.poles), to_numpy(full.residues), orders)
    found, most = chosen.sum(-1), int(orders.max())
    # those that stay, in their order, then others, which are made zero
    place = from_numpy(np.argsort(~chosen, axis=-1, kind="stable")[:, :most], full.poles)
    xp = namespace(full.poles)
    live = from_numpy(np.arange(most) < found[:, None], full.poles)
    poles, residues = (xp.take_along_axis(x, place, axis=-1) for x in (full.poles, full.residues))
    poles, residues = (xp.where(live, x, xp.zeros_like(x)) for x in (poles, residues))
    return dataclasses.replace(full, poles=poles, residues=closed_residues(poles, residues), orders=found)


def _dominant(poles: np.ndarray, residues: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """``(n, d)`` boolean: which poles stay."""
    live = residues != 0
    first, second = live & (np.imag(poles) > 0), live & (np.imag(poles) < 0)
    size = np.where(live, 1 + first - second, 0)  # of a pair both places, at its first
    weight = np.where(size > 0, np.abs(residues) / (1 - np.abs(poles) ** 2), -1.0)
    chosen, room, rows = np.zeros(poles.shape, bool), orders.copy(), np.arange(len(poles))
    for k in np.argsort(-weight, axis=-1, kind="stable").T:
        taken = (size[rows, k] > 0) & (size[rows, k] <= room)
        room -= np.where(taken, size[rows, k], 0)
        chosen[rows, k] = taken
    return chosen | (np.roll(chosen, 1, axis=-1) & second)
