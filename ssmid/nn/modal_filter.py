"""Filters whose poles and residues are trained, and which run as recurrences as they are."""

from __future__ import annotations

from math import pi
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from ssmid._array import width
from ssmid.analysis.modal_blocks import one_of_each_pair
from ssmid.nn.derived import Derived
from ssmid.nn.filter import Recurrence, checked_input
from ssmid.nn.recurrence import ModalRecurrence
from ssmid.nn.structured import exponential_sums
from ssmid.parametrizations.modes import trained_modes
from ssmid.systems import Modal

_SMALLEST = 1e-30
"""Of the moduli of poles: below, a mode is one tap and no more."""


class ModalFilter(Recurrence):
    """``h[0] = D``, ``h[t] = Re sum_i R_i lambda_i^(t-1)`` with trained poles inside the unit circle (Massaroli et al. 2023, eq. 3.1).

    channels : filters   order : real states of each, an even number: half as many complex modes, one of each conjugate pair
    longest : the slowest mode at the beginning decays to 1/e in so many tokens; time constants are spread from 1 to that by their
        logarithm, angles at random over the half circle (as in the ring of Orvieto et al. 2023, section 3.3), and residues are such
        that each mode has as much energy   generator : of the random numbers

    Parameters, all real: ``modulus`` ``(channels, modes)``, of which ``|lambda|`` is the sigmoid, so that no value is unstable; ``angle``
    of the same shape, in radians; ``residues`` ``(channels, modes, 2)``, real and imaginary part; ``feedthrough`` ``(channels,)``.

    Training is a convolution with the taps: O(length modes) operations and O(sqrt(length) modes) memory, in float64; on a GPU, of
    parameters in float32, in one fused kernel each way (:func:`ssmid.nn.structured.exponential_sums`). Inference is that of
    :class:`ssmid.nn.recurrence.ModalRecurrence`, whose state it has: O(modes) a token. Taps are differentiable, steps are not. Raises
    ValueError for sizes that are none.

    >>> filter = ModalFilter(3, order=8)
    >>> filter(5).shape, filter.system()
    (torch.Size([3, 5]), Modal(order=8, batch=(3,), dt=1, complex64))
    """

    def __init__(self, channels: int, order: int, *, longest: float = 1000.0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        _expect_count("channels", channels)
        _expect_count("order", order)
        if order % 2:
            raise ValueError(f"order: expected an even number of real states (conjugate pairs), got {order}")
        if not 1 <= longest < float("inf"):
            raise ValueError(f"longest: expected a time of at least 1 token, got {longest}")
        modes = order // 2
        modulus = torch.exp(-1 / torch.logspace(0, float(np.log10(longest)), modes, dtype=torch.float64))
        scale = torch.sqrt((1 - modulus**2) / modes)[:, None]
        self._take(
            torch.logit(modulus).expand(channels, modes),
            pi * torch.rand(channels, modes, generator=generator),
            scale * torch.randn(channels, modes, 2, generator=generator),
            torch.randn(channels, generator=generator),
            torch.get_default_dtype(),
        )

    @classmethod
    def from_system(cls, system: Modal) -> Self:
        """The filter with the response of ``system`` ``(channels,)`` and parameters of its width, on its device.

        Raises TypeError for other systems (:func:`ssmid.to_modal` makes them modal), ValueError for a bank that is not ``(channels,)``, in
        continuous time, complex, or with poles on or outside of the unit circle, where no parameter leads.

        >>> bank = Modal(np.array([[0.9, 0.5j, -0.5j]]), np.array([[1.0, 1.0, 1.0]]), np.array([2.0]))
        >>> ModalFilter.from_system(bank)(4).detach().numpy().round(6)
        array([[2.  , 3.  , 0.9 , 0.31]])
        """
        if not isinstance(system, Modal):
            raise TypeError(f"system: expected a Modal, got {type(system).__name__}: ssmid.to_modal makes one")
        if len(system.batch_shape) != 1 or not system.is_discrete:
            raise ValueError(f"system: expected a discrete-time bank of batch (channels,), got {system!r}")
        (channels,) = system.batch_shape
        folded = [torch.as_tensor(x).to(torch.complex128) for x in one_of_each_pair(system)]
        poles, residues = (x.broadcast_to(channels, x.shape[-1]) for x in folded)
        largest = float(poles.abs().max()) if poles.numel() else 0.0
        if not largest < 1:
            raise ValueError(f"system: expected poles inside the unit circle, got one of modulus {largest:.6g}")
        filter = cls.__new__(cls)
        Recurrence.__init__(filter)
        through = torch.as_tensor(system.arrays["feedthrough"]).real.expand(channels)
        dtype = torch.float32 if width(system.poles) == 32 else torch.float64
        # a pole at 0 has no logarithm
        modulus = torch.logit(poles.abs().clamp(min=_SMALLEST))
        filter._take(modulus, poles.angle(), torch.view_as_real(residues.resolve_conj()), through, dtype)
        return filter

    def _take(self, modulus: Tensor, angle: Tensor, residues: Tensor, feedthrough: Tensor, dtype: torch.dtype) -> None:
        self.channels = modulus.shape[0]
        self.modulus, self.angle, self.residues, self.feedthrough = (
            nn.Parameter(x.detach().to(dtype).clone()) for x in (modulus, angle, residues, feedthrough)
        )
        self._run = Derived[ModalRecurrence]()

    def poles(self) -> Tensor:
        """``(channels, modes)``, complex128, one of each conjugate pair. Differentiable."""
        return torch.polar(torch.sigmoid(self.modulus.double()), self.angle.double())

    def forward(self, length: int) -> Tensor:
        exponents = torch.complex(nn.functional.logsigmoid(self.modulus.double()), self.angle.double())
        residues = torch.view_as_complex(self.residues.double())
        rest = exponential_sums(residues, exponents, max(length - 1, 1), self.residues.dtype)
        return torch.cat([self.feedthrough[:, None], rest], dim=-1)[:, :length]

    @torch.no_grad()
    def system(self) -> Modal:
        return trained_modes(self.modulus.detach(), self.angle.detach(), self.residues.detach(), self.feedthrough.detach())

    def initial_state(self, *batch: int) -> Tensor:
        return self.recurrence().initial_state(*batch)

    def prefill(self, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.recurrence().prefill(checked_input(u, self.channels), state)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.recurrence().step(u, state)

    def step_(self, u: Tensor, state: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.recurrence().step_(u, state)

    def recurrence(self) -> ModalRecurrence:
        """What inference runs: made once, and again when a parameter has changed."""
        return self._run.of(self, lambda: ModalRecurrence(self.system()))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, order={2 * self.modulus.shape[-1]}"


def _expect_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
