"""All filters of a language model as one bank: distilled by each method in one call, and put back in their places."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssmid._array import to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.certificate import Certificate, certify
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.gradient import gradient_distill
from ssmid.distillation.pipeline import distill
from ssmid.experiments.measures.inputs import input_weights
from ssmid.nn import ExplicitFilter, LanguageModel, convert
from ssmid.nn.filter import Filter, Recurrence
from ssmid.parametrizations.modes import with_conjugates
from ssmid.systems import Modal

BALANCED, L2, WEIGHTED, GRADIENT = "balanced", "l2-optimal", "input-weighted", "gradient"
METHODS = (BALANCED, L2, WEIGHTED, GRADIENT)
EXACT = "exact"
"""No distilling: what filters that have a few states run as."""
ERRORS = tuple(f"{name}_{end}" for name in ("l2", "hankel", "bound") for end in ("median", "worst"))
"""The names of :meth:`Fit.errors`, in the order of tables."""
_WITHOUT_EXCHANGES = 32
"""The order from which l2 optima are not sought by exchanges of poles, which take most of the time there and find little."""


@dataclasses.dataclass(frozen=True, eq=False)
class Filters:
    """The taps ``(n, length)`` of all filters of a model, layer after layer, and where each layer's are: names and ``(first, last)``."""

    taps: Tensor
    places: Mapping[str, tuple[int, int]]

    @classmethod
    @torch.no_grad()
    def of(cls, model: LanguageModel, length: int) -> Filters:
        """Those that the model has as convolutions of ``length`` taps. Raises ValueError where it has none."""
        found = dict(_filters(model))
        if not found:
            raise ValueError("model: expected filters that are no recurrences, got none")
        taps = [filter(length).detach().float() for filter in found.values()]
        ends = np.cumsum([0, *(len(t) for t in taps)]).tolist()
        return cls(torch.cat(taps), dict(zip(found, pairwise(ends), strict=True)))

    @torch.no_grad()
    def taps_of(self, model: LanguageModel) -> Tensor:
        """``(n, length)`` of another model of the same shape, whatever its filters are."""
        banks = [model.get_submodule(name)(self.taps.shape[1]) for name in self.places]
        return torch.cat(banks).float()

    def within(self, model: LanguageModel, system: Modal) -> LanguageModel:
        """A copy of ``model`` whose filters are the recurrences of ``system`` ``(n,)``."""
        banks = {name: system.map(lambda x, a=a, b=b: x[a:b]) for name, (a, b) in self.places.items()}
        return convert(model, banks).eval()  # pyright: ignore[reportReturnType]

    def with_taps(self, model: LanguageModel, taps: Tensor) -> LanguageModel:
        """A copy of ``model`` whose filters have these ``taps`` ``(n, any length)``."""
        changed = copy.deepcopy(model)
        for name, (a, b) in self.places.items():
            owner, _, attribute = name.rpartition(".")
            setattr(changed.get_submodule(owner), attribute, ExplicitFilter(taps[a:b]))
        return changed.eval()


def _filters(model: nn.Module) -> Iterator[tuple[str, Filter]]:
    return ((name, m) for name, m in model.named_modules() if isinstance(m, Filter) and not isinstance(m, Recurrence))


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """What a method made of all filters of a model at one order."""

    system: Modal
    certificate: Certificate

    def errors(self) -> dict[str, float]:
        """Medians and worst over the filters: relative l2 error; Hankel error and the bound sigma_{order+1}, both over sigma_1."""
        c = {name: to_numpy(getattr(self.certificate, name)) for name in ("l2", "hankel", "lower_bound", "sigma", "converged")}
        size = np.where(c["sigma"][:, 0] > 0, c["sigma"][:, 0], 1.0)
        values = {"l2": c["l2"], "hankel": c["hankel"] / size, "bound": c["lower_bound"] / size}
        found = {f"{name}_{end}": float(of(x)) for name, x in values.items() for end, of in (("median", np.median), ("worst", np.max))}
        return found | {"converged": float(np.mean(c["converged"]))}


def fits(
    model: LanguageModel, filters: Filters, method: str, orders: tuple[int, ...], *, heard: Tensor | None = None, steps: int = 0
) -> Iterator[tuple[int, Fit]]:
    """The filters at each order by ``method``, all layers in one call.

    method : "balanced", truncation; "l2-optimal"; "input-weighted", l2-optimal under the spectrum that each filter's input has while the
    model reads ``heard`` ``(sequences, length)``; "gradient", ``steps`` of AdamW as in Massaroli et al. 2023
    l2 optima of order 32 and more are sought without exchanges of poles. Raises ValueError for another method.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    taps, options = filters.taps, {}
    if method == WEIGHTED:
        if heard is None:
            raise ValueError("heard: expected text for input-weighted distilling, got none")
        options = {"frequency_weights": to_numpy(input_weights(model, heard, taps.shape[-1]))}
    sigma = distill(taps, min(max(orders), taps.shape[-1] - 2), method="balanced").certificate.sigma if method == GRADIENT else None
    for order in orders:
        if method == GRADIENT:
            yield order, _by_gradient(taps, sigma, order, steps)
            continue
        given: dict[str, Any] = {"method": "balanced" if method == BALANCED else "l2", **options}
        if method != BALANCED and order >= _WITHOUT_EXCHANGES:
            given["exchanges"] = 0
        found = distill(taps, order, **given)
        assert isinstance(found.system, Modal)
        yield order, Fit(found.system, found.certificate)


def _by_gradient(taps: Tensor, sigma: Any, order: int, steps: int) -> Fit:
    """As published, from the same start for all; certified as the others are."""
    bank = Bank.of(taps)
    # a step is recorded and not compiled, which would take longer than so few steps
    poles, residues, history = gradient_distill(bank.strict, order // 2, steps=steps, compile=False)
    poles, residues = with_conjugates(poles, residues)
    orders = np.full(bank.count, poles.shape[-1])
    converged = torch.from_numpy(history.flat).to(taps.device)
    fitted = Fitted(poles, residues, orders, converged, torch.ones_like(bank.scale))
    certificate = certify(bank, fitted, sigma / bank.scale[:, None])
    poles, residues = (x.to(torch.complex64) for x in (poles, residues * bank.scale[:, None]))
    return Fit(Modal(poles, residues, bank.feedthrough.float()), certificate)
