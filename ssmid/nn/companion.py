"""Transfer functions run as they are, with real states: the companion form of RTF at inference."""

from __future__ import annotations

import torch
from torch import Tensor

from ssmid.analysis.rational_kernel import power_series
from ssmid.nn.convolution import long_convolution
from ssmid.nn.filter import REAL, Expected, Recurrence, at_least_single, checked_input, checked_state
from ssmid.systems import TransferFunction


class CompanionRecurrence(Recurrence):
    """``w_t = u_t - sum_k a_k w_{t-k}``, ``y_t = b_0 u_t + sum_k c_k w_{t-k}``: n real numbers and O(n) operations a channel and token.

    system : real discrete :class:`ssmid.TransferFunction` ``(channels,)`` of order n; ``c_k = b_k - b_0 a_k``

    Buffers: ``denominator`` (a_1 .. a_n) and ``numerator`` (c_1 .. c_n), ``(channels, n)`` in powers of 1/z, and ``feedthrough`` b_0
    ``(channels,)``, in single precision at least. The state ``(*batch, channels, n)`` holds ``w_{t-1} .. w_{t-n}``. A prompt is filtered
    by 1 / denominator, of which the last n samples are the state (Massaroli et al. 2023; Parnichkun et al., arXiv 2405.06147).

    Coefficients carry poles that are close to each other to ``eps^(1/k)`` only, and w is larger than y by the factor that the numerator
    takes back. Errors of 256 outputs, relative, in single precision (in double):

    ==============================================  ===================  ==================
    poles                                           companion            modal
    ==============================================  ===================  ==================
    8 pairs of modulus .99, angles .2 to 2.9        1.3e-7 (4.7e-15)     1.2e-6 (1.5e-15)
    2 pairs of modulus .99, angles .10 and .12      8.6e-3 (1.6e-11)     5.3e-7 (6.4e-16)
    4 pairs of modulus .95, angles .1 to .4         .32 (8.1e-10)        1.8e-7 (3.3e-16)
    8 real poles from .9 to .99                     unstable (9.9e-6)    2.8e-7 (2.7e-16)
    ==============================================  ===================  ==================

    :func:`ssmid.nn.recurrence` measures that and refuses what is off by more than 1e-4 (1e-6); made by hand, this class does not.
    Raises ValueError for another batch shape, continuous time, complex coefficients, and channels that are not finite.

    >>> import ssmid
    >>> bank = CompanionRecurrence(ssmid.from_ba([[1.0, 0.0]], [[1.0, -0.5]]))
    >>> y, state = bank.prefill(torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64))
    >>> y, state
    (tensor([[[1.0000, 0.5000, 0.2500]]], dtype=torch.float64), tensor([[[0.2500]]], dtype=torch.float64))
    """

    denominator: Tensor
    numerator: Tensor
    feedthrough: Tensor

    def __init__(self, system: TransferFunction) -> None:
        super().__init__()
        if not isinstance(system, TransferFunction):
            raise TypeError(f"expected a TransferFunction, got {type(system).__name__}: ssmid.to_transfer_function makes one")
        channels = system.batch_shape
        if len(channels) != 1 or system.is_complex or not system.is_discrete:
            raise ValueError(f"expected a real discrete bank of batch shape (channels,), got {system!r}")
        arrays = {name: x if isinstance(x, Tensor) else torch.tensor(x) for name, x in system.broadcast_arrays().items()}
        lead = arrays["den"][:, :1].double()
        den, num = arrays["den"].double() / lead, arrays["num"].double() / lead
        num = torch.nn.functional.pad(num, (den.shape[-1] - num.shape[-1], 0))
        proper = num - num[:, :1] * den
        if not bool((torch.isfinite(den) & torch.isfinite(proper)).all()):
            raise ValueError("expected finite coefficients and leading ones that are not zero, got NaN or infinity")
        self.channels, dtype = channels[0], arrays["den"].dtype
        self.register_buffer("denominator", den[:, 1:].detach().to(dtype))
        self.register_buffer("numerator", proper[:, 1:].detach().to(dtype))
        self.register_buffer("feedthrough", num[:, 0].detach().to(dtype))

    @property
    def order(self) -> int:
        """Real numbers of the state of one channel."""
        return self.denominator.shape[-1]

    def forward(self, length: int) -> Tensor:
        if length == 0:
            return self.feedthrough[:, None][:, :0]
        system = self.system()
        return power_series(system.num.double(), system.den.double(), length).to(self.feedthrough.dtype)

    def system(self) -> TransferFunction:
        den = torch.cat([torch.ones_like(self.denominator[:, :1]), self.denominator], dim=-1).double()
        through = self.feedthrough[:, None].double()
        return TransferFunction(torch.cat([through, self.numerator + through * den[:, 1:]], dim=-1).detach(), den.detach())

    def initial_state(self, *batch: int) -> Tensor:
        return self.denominator.new_zeros(*batch, self.channels, self.order)

    def prefill(self, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        batch, length = checked_input(u, self.channels).shape[:-2], u.shape[-1]
        before = self.initial_state(*batch) if state is None else checked_state(state, self._expected(batch))
        if u.numel() == 0:
            return torch.zeros_like(u), before
        driven = at_least_single(u).to(self.denominator.dtype)
        history = min(length, self.order)
        if state is None or not self.order:
            y = self.convolve(u)
        else:
            # what was there before acts on the first n tokens, as an input of its own
            past = torch.cat([before.flip(-1), before.new_zeros(*batch, self.channels, history)], dim=-1)
            windows = past.unfold(-1, self.order, 1)[..., :history, :]
            recent = (windows * self.denominator.flip(-1)[:, None, :]).sum(-1)
            onward = (windows * self.numerator.flip(-1)[:, None, :]).sum(-1)
            driven = driven - torch.nn.functional.pad(recent, (0, length - history))
            direct = torch.nn.functional.pad(onward + self.feedthrough[:, None] * recent, (0, length - history))
            y = (long_convolution(driven, self(length)) + direct).to(u.dtype)
        inverse = power_series(torch.ones_like(self.denominator[:, :1]).double(), self.system().den, length)
        w = torch.cat([before.flip(-1), long_convolution(driven, inverse.to(driven.dtype))], dim=-1)
        return y, w[..., w.shape[-1] - self.order :].flip(-1)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        checked_state(state, self._expected(checked_input(u, self.channels, token=True).shape[:-1]))
        token = u.to(state.dtype)
        w = token - (self.denominator * state).sum(-1)
        y = self.feedthrough * token + (self.numerator * state).sum(-1)
        return y.to(u.dtype), torch.cat([w[..., None], state], dim=-1)[..., : self.order]

    def _expected(self, batch: tuple[int, ...]) -> Expected:
        return (*batch, self.channels, self.order), (REAL[self.denominator.dtype == torch.float64],)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, order={self.order}"
