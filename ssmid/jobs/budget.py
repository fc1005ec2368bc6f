"""A number of states shared out over all layers of a model: what each order would leave of each filter, chunk by chunk, then the orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssmid.distillation.bank import Bank
from ssmid.distillation.curves import error_curves
from ssmid.distillation.methods import method_for
from ssmid.distillation.options import Options
from ssmid.distillation.order_budget import measured_curves
from ssmid.distillation.subspace import leading_subspace
from ssmid.distillation.weighted import flat_weights
from ssmid.systems import ImpulseResponse, System

PASSES = ("truncation", "measured")
"""What is known first: the errors of truncations. Then, around the orders that these give, those of the method itself."""


def passes(options: Options) -> tuple[str, ...]:
    """Of balanced truncation the first pass says all."""
    return PASSES[:1] if method_for(options).subspace == "tight" else PASSES


def curves_of(system: System, arguments: Mapping[str, Any], group: int, size: int, guess: np.ndarray | None) -> np.ndarray:
    """``(n, max_order + 1)`` relative l2 errors of the filters of a chunk at each order, ``size`` filters at once.

    guess : ``(n,)`` orders around which the method's own errors are measured; None for those of truncations
    Raises ValueError for models, of which only single banks are shared out (:func:`ssmid.distill`).
    """
    if not isinstance(system, ImpulseResponse):
        raise ValueError(f"budget: expected layers of filters to share it out among, got one of {type(system).__name__} models")
    options = Options(**arguments)
    method, taps = method_for(options), system.taps
    count, length = taps.shape
    batch = (count // group, group) if group > 1 else (count,)
    weights = flat_weights(options, batch, length, taps)
    found = np.empty((count, options.max_order + 1))
    for i in range(0, count, size):
        own = weights[i : i + size, :] if weights is not None and weights.shape[0] > 1 else weights
        bank = Bank.of(taps[i : i + size, :], weights=own, group=group, bits=32 if options.precision == "float32" else None)
        subspace = leading_subspace(bank, options.max_order, method.subspace or "loose")
        part = error_curves(bank, subspace) if guess is None else measured_curves(bank, subspace, guess[i : i + size], method, options)
        found[i : i + size] = np.pad(part, ((0, 0), (0, found.shape[1] - part.shape[1])), mode="edge")
    return found


def common_group(groups: Sequence[int]) -> int:
    """How many filters share poles, the same in every layer; ValueError where layers differ in that."""
    if len(set(groups)) > 1:
        sizes = " and ".join(map(str, sorted(set(groups))))
        raise ValueError(f"budget: expected layers in which equally many filters share their poles, got {sizes}")
    return groups[0]
