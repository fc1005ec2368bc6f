"""S4D: diagonal state spaces, one for each channel (Gu, Gupta, Goel & Re, NeurIPS 2022)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ssmid.kernels.compiler import fused
from ssmid.nn.filter import Filter
from ssmid.nn.layer import FilterLayer
from ssmid.nn.structured import diagonal_taps, exponential_sums
from ssmid.parametrizations.diagonal import s4d, s4d_exponentials
from ssmid.parametrizations.initializations import diagonal_spectrum, log_steps
from ssmid.systems import Modal

_DISCRETIZATIONS = ("zoh", "bilinear")


class S4DFilter(Filter):
    """Filters ``h[t] = 2 Re sum_n C_n B_n (e^{A_n dt} - 1) / A_n e^{A_n dt t}``, t >= 0, and ``D`` added to tap 0.

    order : real states of a channel, even; of "real" any number   init : "lin", "inv", "legs" or "real"
    (:func:`ssmid.parametrizations.initializations.diagonal_spectrum`)   sets : how many A and B the channels share, a divisor of their
    number, by default one a channel   discretization : "zoh", or "bilinear"   dt_min, dt_max : between which the steps are drawn

    Parameters, named and laid out as the kernel of version 4 of state-spaces/s4 (``kernel.`` and the ``D`` beside it), with N = order / 2:
    ``C (1, channels, N, 2)``, ``B (1, sets, N, 2)``, ``inv_dt (channels, 1)`` the logarithm of the step, ``A_real (sets, N)``,
    ``A_imag (sets, N)`` with ``A = -exp(A_real) - i A_imag``, ``D (1, channels)``. Of "real" ``C (1, channels, order)``, ``B (1, sets,
    order)``, ``A_real (sets, order)``, no ``A_imag``. As ``-exp`` is negative, no parameters make it unstable.

    Taps cost O(order length) operations a channel; on a GPU one kernel each way, whose memory is the taps.

    >>> filter = S4DFilter(2, 4)
    >>> filter(6).shape, filter.system()
    (torch.Size([2, 6]), Modal(order=4, batch=(2,), dt=1, complex64))
    """

    A_imag: Tensor | None

    def __init__(
        self,
        channels: int,
        order: int = 64,
        init: str = "lin",
        *,
        sets: int | None = None,
        discretization: str = "zoh",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        if discretization not in _DISCRETIZATIONS:
            raise ValueError(f"discretization: expected 'zoh' or 'bilinear', got {discretization!r}")
        A, B = diagonal_spectrum(order, init)
        self.channels, self.order, self.discretization, self.real = channels, order, discretization, init == "real"
        sets = checked_sets(channels, sets)
        shape = (1, channels, len(A))
        C = torch.randn(shape) if self.real else torch.view_as_real(torch.randn(shape, dtype=torch.complex64))
        self.C = nn.Parameter(C.clone())
        self.B = shared(B, sets, heads=True)
        self.inv_dt = drawn_steps(channels, dt_min, dt_max)
        self.A_real = shared(np.log(-np.real(A)), sets)
        self.A_imag = None if self.real else shared(-np.imag(A), sets)
        self.D = nn.Parameter(torch.randn(1, channels))

    def forward(self, length: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if fused(self.C) and self.discretization == "zoh" and self.C.dtype == torch.float32:
            return diagonal_taps(self.C, self.B, self.inv_dt, self.A_real, self.A_imag, self.D, length)  # pyright: ignore[reportCallIssue]
        exponents, weights = s4d_exponentials(
            self.C[0], self.inv_dt, self.A_real, self.A_imag, self.B, discretization=self.discretization
        )
        return with_bypass(exponential_sums(weights, exponents, length, self.C.dtype), self.D[0])

    def system(self) -> Modal:
        with torch.no_grad():
            return s4d(self.C[0], self.inv_dt, self.A_real, self.A_imag, self.B, self.D[0], discretization=self.discretization)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, order={self.order}, real={self.real}, discretization={self.discretization!r}"


class S4D(FilterLayer):
    """The layer of an :class:`S4DFilter`: ``(batch, length, width)`` to the same, nonlinearity and mixing of channels left to the model.

    bidirectional : a second filter runs against time   The others as of the filter. State dict: ``filter.*``, ``backward_filter.*``.

    >>> S4D(3, order=4)(torch.randn(2, 10, 3)).shape
    torch.Size([2, 10, 3])
    """

    def __init__(
        self,
        width: int,
        order: int = 64,
        init: str = "lin",
        *,
        bidirectional: bool = False,
        sets: int | None = None,
        discretization: str = "zoh",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        def made() -> S4DFilter:
            return S4DFilter(width, order, init, sets=sets, discretization=discretization, dt_min=dt_min, dt_max=dt_max)

        super().__init__(made(), made() if bidirectional else None)


def checked_sets(channels: int, sets: int | None) -> int:
    """``sets``, or ``channels`` where it is None; ValueError where it does not divide them."""
    if channels < 1:
        raise ValueError(f"channels: expected at least 1, got {channels}")
    if sets is None:
        return channels
    if sets < 1 or channels % sets:
        raise ValueError(f"sets: expected a divisor of the {channels} channels, got {sets}")
    return sets


def shared(values: np.ndarray, sets: int, *, heads: bool = False) -> nn.Parameter:
    """``(sets, N)`` of the same values, complex ones as ``(sets, N, 2)``, with an axis in front where ``heads``; float32."""
    pairs = np.stack([np.real(values), np.imag(values)], axis=-1) if np.iscomplexobj(values) else values
    tensor = torch.tensor(pairs, dtype=torch.float32).expand(sets, *pairs.shape)
    return nn.Parameter((tensor[None] if heads else tensor).clone())


def drawn_steps(channels: int, dt_min: float, dt_max: float) -> nn.Parameter:
    """Logarithms ``(channels, 1)`` of steps; the seed is torch's."""
    rng = np.random.default_rng(int(torch.randint(2**62, (), device="cpu")))
    return nn.Parameter(torch.tensor(log_steps(channels, dt_min, dt_max, rng), dtype=torch.float32)[:, None])


def with_bypass(taps: Tensor, D: Tensor) -> Tensor:
    """``taps`` ``(channels, length)`` with ``D`` ``(channels,)`` added to tap 0."""
    return torch.cat([taps[:, :1] + D[:, None].to(taps.dtype), taps[:, 1:]], dim=-1)
