"""A penalty that keeps filters near to those of low order: the share of their squared Hankel singular values beyond an order.

No system of order d is nearer to a filter, in Hankel norm, than its singular value d + 1 (Adamyan, Arov & Krein, 1971), and none nearer in
Frobenius norm of the Hankel matrix than the root of the sum of their squares beyond d. That sum is what the matrix holds outside of its
best subspace of d dimensions, ``|H|^2 - max_V |H V|^2``. The subspace is kept from step to step and improved by one subspace iteration in
each, as the filters move little; by the envelope theorem the gradient at that fixed V is that of the maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssmid.linalg import hankel_operator, orthonormalize
from ssmid.nn.filter import Filter


class HankelPenalty:
    """Of all long filters of ``model`` together, at ``length`` taps.

    ``basis`` ``(filters, length - 1, order)`` are the subspaces, float64; they go on from a checkpoint. Raises ValueError for a model that
    has no long filter, and for an order that their Hankel matrices do not have.

    >>> from ssmid.nn import ModalFilter
    >>> penalty = HankelPenalty(ModalFilter(3, order=2), 2, length=32)
    >>> bool(penalty() < 1e-9), penalty.basis.shape
    (True, torch.Size([3, 31, 2]))
    """

    def __init__(self, model: nn.Module, order: int, length: int) -> None:
        self._filters = [module for module in model.modules() if isinstance(module, Filter)]
        if not self._filters:
            raise ValueError("hankel_order: expected for a model with long filters, got it for one without")
        if not 1 <= order < length:
            raise ValueError(f"hankel_order: expected 1 to {length - 1}, the order of a filter of {length} taps, got {order}")
        self._length = length
        count = sum(filter.channels for filter in self._filters)
        first = torch.randn(length - 1, order, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        device = next(self._filters[0].parameters()).device
        self.basis = orthonormalize(first).expand(count, -1, -1).to(device, copy=True)

    def __call__(self) -> Tensor:
        """The mean share over the filters, between 0 and 1, differentiable in their parameters; the subspaces are improved before it.

        Double precision, as the share is a difference of sums that agree in all but its own digits. A filter that is zero has none.
        """
        size = self._length - 1
        taps = torch.cat([filter(self._length) for filter in self._filters])[:, 1:].double()
        weights = torch.arange(1, size + 1, dtype=torch.float64, device=taps.device)
        scale = (weights * taps.detach().square()).sum(-1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        taps = taps / scale
        product = hankel_operator(taps, size, size)
        with torch.no_grad():
            self.basis = orthonormalize(product(product(self.basis)))
        whole = (weights * taps.square()).sum(-1)
        return ((whole - product(self.basis).square().sum((-2, -1))) / whole.clamp_min(0.5)).mean()
