"""S4: state spaces that are diagonal plus low-rank, one for each channel (Gu, Goel & Re, ICLR 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssmid.analysis.impulse import impulse_response
from ssmid.kernels.compiler import fused
from ssmid.nn.filter import Filter
from ssmid.nn.layer import FilterLayer
from ssmid.nn.s4d import checked_sets, drawn_steps, shared, with_bypass
from ssmid.nn.structured import cauchy_sums, low_rank_taps
from ssmid.parametrizations.initializations import legs_normal_plus_low_rank
from ssmid.parametrizations.s4 import s4, s4_spectrum, trained_outputs
from ssmid.systems import StateSpace


class S4Filter(Filter):
    """Filters ``h[t] = C Ad^t Bd``, t >= 0, and ``D`` added to tap 0; Ad, Bd by the bilinear map of ``diag(A) - P P*`` and B.

    order : real states of a channel, even   length : the number of taps to train with, L   rank : of the low-rank part, whose ranks
    beyond the first begin at zero   sets, dt_min, dt_max : as of :class:`ssmid.nn.S4DFilter`. A, P and B begin as HiPPO-LegS, C as noise.

    Parameters, named and laid out as the kernel of version 4 of state-spaces/s4 (``kernel.`` and the ``D`` beside it), with N = order / 2:
    ``C (1, channels, N, 2)``, which is ``C~ = C (I - Ad^L)``; ``B (1, sets, N, 2)``, ``P (rank, sets, N, 2)``, ``inv_dt (channels, 1)`` the
    logarithm of the step, ``A_real, A_imag (sets, N)`` with ``A = -exp(A_real) - i A_imag``, ``D (1, channels)``. The buffer ``l_kernel``
    is L; 0, in a checkpoint that was never run, means that C is C itself. As ``-exp`` is negative and ``-P P*`` takes energy, no parameters
    make it unstable.

    Up to L taps come from the spectrum on L points: O(order length) operations a channel, on a GPU one kernel each way. More than L are
    the response of the system with the C that C~ stands for, through dense powers of Ad: exact and differentiable, and slow.

    >>> filter = S4Filter(2, 4, length=16)
    >>> filter(16).shape, filter(20).shape, filter.system()
    (torch.Size([2, 16]), torch.Size([2, 20]), StateSpace(order=4, outputs=1, inputs=1, batch=(2,), dt=1, float32))
    """

    l_kernel: Tensor

    def __init__(
        self,
        channels: int,
        order: int = 64,
        length: int = 1024,
        *,
        rank: int = 1,
        sets: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"length: expected the number of taps to train with, at least 1, got {length}")
        if rank < 1:
            raise ValueError(f"rank: expected at least 1, got {rank}")
        A, P, B = legs_normal_plus_low_rank(order)
        self.channels, self.order, self.trained_length = channels, order, length
        sets = checked_sets(channels, sets)
        self.B = shared(B, sets, heads=True)
        self.P = nn.Parameter(torch.cat([shared(P, sets, heads=True), torch.zeros(rank - 1, sets, order // 2, 2)]).detach())
        self.inv_dt = drawn_steps(channels, dt_min, dt_max)
        self.A_real, self.A_imag = shared(np.log(-np.real(A)), sets), shared(-np.imag(A), sets)
        C = torch.view_as_real(torch.randn(1, channels, order // 2, dtype=torch.complex64))
        self.D = nn.Parameter(torch.randn(1, channels))
        self.register_buffer("l_kernel", torch.tensor(length))
        with torch.no_grad():
            self.C = nn.Parameter(torch.view_as_real(trained_outputs(C, *self._states(), length)).float())

    def forward(self, length: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if length > self.trained_length:
            return self._continued(length)  # pyright: ignore[reportArgumentType, reportCallIssue, reportReturnType]
        if len(self.P) == 1 and fused(self.C) and self.C.dtype == torch.float32:
            return low_rank_taps(self.C, *self._states(), self.D, self.trained_length, length)  # pyright: ignore[reportCallIssue]
        dtype = self.C.dtype
        spectrum = s4_spectrum(
            self.C[0], *self._states(), self.trained_length, sums=lambda v, nodes, points: cauchy_sums(v, nodes, points, dtype)
        )
        taps = torch.fft.irfft(spectrum, n=self.trained_length)[:, :length]
        return with_bypass(taps, self.D[0])

    # how the powers of A are taken depends on A
    @torch.compiler.disable
    def _continued(self, length: int) -> Tensor:
        system = s4(self.C[0], *self._states(), self.D[0], trained_length=self.trained_length)
        return impulse_response(system, length).taps

    def system(self) -> StateSpace:
        with torch.no_grad():
            return s4(self.C[0], *self._states(), self.D[0], trained_length=self.trained_length)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, order={self.order}, trained_length={self.trained_length}"

    def _states(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.B, self.P, self.inv_dt, self.A_real, self.A_imag

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.trained_length = int(self.l_kernel)


class S4(FilterLayer):
    """The layer of an :class:`S4Filter`: ``(batch, length, width)`` to the same, nonlinearity and mixing of channels left to the model.

    bidirectional : a second filter runs against time   The others as of the filter. State dict: ``filter.*``, ``backward_filter.*``.

    >>> S4(3, order=4, length=10)(torch.randn(2, 10, 3)).shape
    torch.Size([2, 10, 3])
    """

    def __init__(
        self,
        width: int,
        order: int = 64,
        length: int = 1024,
        *,
        bidirectional: bool = False,
        rank: int = 1,
        sets: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        def made() -> S4Filter:
            return S4Filter(width, order, length, rank=rank, sets=sets, dt_min=dt_min, dt_max=dt_max)

        super().__init__(made(), made() if bidirectional else None)
