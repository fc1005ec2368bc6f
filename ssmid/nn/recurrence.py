"""Filters of a few states, run token by token: what distilling leaves, and what layers with states are at inference.

A prompt of T tokens needs all outputs, a convolution, but one state only, the last. ``prefill`` therefore costs the convolution that
training runs and one weighted reduction (Massaroli et al. 2023, section 3.4; :mod:`ssmid.nn.prompt_state` has the other ways).
"""

from __future__ import annotations

import warnings
from math import isqrt, pi
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ssmid._array import double, needs_gradient, to_numpy, width
from ssmid.analysis.conversion import to_modal, to_transfer_function
from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.modal_blocks import one_of_each_pair
from ssmid.kernels.compiler import fused
from ssmid.kernels.modal_state import exponents_of
from ssmid.kernels.modal_step import modal_step, modal_step_
from ssmid.kernels.vandermonde import sums_of_prepared
from ssmid.linalg import powers
from ssmid.nn.companion import CompanionRecurrence
from ssmid.nn.convolution import long_convolution
from ssmid.nn.derived import Derived
from ssmid.nn.filter import COMPLEX, Expected, Recurrence, checked_input, checked_state
from ssmid.nn.prompt_state import StateBy, prompt_state
from ssmid.nn.structured import exponential_sums
from ssmid.parametrizations.modes import with_conjugates
from ssmid.systems import ConversionWarning, ImpulseResponse, Modal, System, TransferFunction

Form: TypeAlias = Literal["modal", "companion"]
WORST = {torch.float64: 1e-6, torch.float32: 1e-4}
"""The largest relative error of the outputs that a form may bring."""
_STEPS = 256


class ModalRecurrence(Recurrence):
    """A bank of diagonal recurrences: ``y_t = D u_t + Re sum_i r_i x_i``, ``x_i <- lambda_i x_i + u_t``, m complex numbers a channel.

    system : real discrete :class:`ssmid.Modal` ``(channels,)``, NumPy or torch; of each pair of poles one is kept, a real pole is a mode
        of its own, and channels of smaller order are padded with zeros, which do nothing
    keeps_double : whether its numbers and states are double precision whatever a model is cast to, and whatever comes in, for residues
        that cancel each other: twice the memory and, on a GPU, steps without the fused kernel

    Buffers, with complex numbers as pairs of reals on the last axis: ``poles`` and ``residues`` ``(channels, m, 2)``, ``feedthrough``
    ``(channels,)``, in single precision at least: ``module.bfloat16()`` leaves them as they are. A state is one tensor ``(*batch,
    channels, m)``, complex64, of a module in float64 complex128. Cost of a token: O(m) a channel; ``step_`` is one kernel on a GPU.

    Raises ValueError for another batch shape, continuous time, complex responses, and channels that are not finite.

    >>> import numpy as np, ssmid
    >>> bank = ModalRecurrence(ssmid.Modal(np.array([[0.5j, -0.5j]]), np.array([[1, 1]]), np.array([0.25])))
    >>> bank(4)
    tensor([[ 0.2500,  2.0000,  0.0000, -0.5000]], dtype=torch.float64)
    >>> y, state = bank.prefill(torch.ones(1, 1, 3, dtype=torch.float64))
    >>> bank.step(torch.ones(1, 1, dtype=torch.float64), state)[0]
    tensor([[1.7500]], dtype=torch.float64)
    """

    poles: Tensor
    residues: Tensor
    feedthrough: Tensor

    def __init__(self, system: Modal, *, keeps_double: bool = False) -> None:
        super().__init__()
        if not isinstance(system, Modal):
            raise TypeError(f"expected a Modal bank, got {type(system).__name__}: ssmid.nn.recurrence takes any system with a few states")
        system = as_bank(system)
        if keeps_double:
            self.narrowest, system = torch.float64, system.map(double)
        poles, residues = one_of_each_pair(system)
        self.channels = system.batch_shape[0]
        self.register_buffer("poles", torch.view_as_real(poles.resolve_conj()).contiguous())
        self.register_buffer("residues", torch.view_as_real(residues.resolve_conj()).contiguous())
        self.register_buffer("feedthrough", system.feedthrough.expand(self.channels).clone())
        self._made = Derived[Tensor]()

    @property
    def modes(self) -> int:
        """Complex numbers of the state of one channel."""
        return self.poles.shape[-2]

    def forward(self, length: int) -> Tensor:
        return self._taps(length, self._exponents())

    def convolve(self, u: Tensor) -> Tensor:
        return self._convolved(u, self._exponents())

    def system(self) -> Modal:
        poles, residues = with_conjugates(torch.view_as_complex(self.poles), torch.view_as_complex(self.residues))
        return Modal(poles.detach(), residues.detach(), self.feedthrough.detach())

    def initial_state(self, *batch: int) -> Tensor:
        dtype = COMPLEX[self.poles.dtype == torch.float64]
        return torch.zeros(*batch, self.channels, self.modes, dtype=dtype, device=self.poles.device)

    def prefill(self, u: Tensor, state: Tensor | None = None, *, state_by: StateBy = "reduction") -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As of :class:`Recurrence`; ``state_by`` is the way to the last state, by which cost differs and results do not."""
        batch, length = checked_input(u, self.channels).shape[:-2], u.shape[-1]
        if state is not None:
            checked_state(state, self._expected(batch))
        if u.numel() == 0:
            return torch.zeros_like(u), self.initial_state(*batch) if state is None else state
        poles = torch.view_as_complex(self.poles)
        exponents = self._exponents()
        y = self._convolved(u, exponents)
        after = prompt_state(u.double() if self._is_double else u, poles, state_by, exponents).to(COMPLEX[self._is_double])
        if state is not None:
            y = (y + modal_taps(poles, torch.view_as_complex(self.residues) * state, length)).to(u.dtype)
            after = after + (double(poles) ** length).to(state.dtype) * state
        return y, after

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._check_token(u, state)
        return modal_step(u, state, self.poles, self.residues, self.feedthrough)

    def step_(self, u: Tensor, state: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._check_token(u, state)
        if u.ndim != 2:
            y, new = modal_step(u, state, self.poles, self.residues, self.feedthrough)
            state.copy_(new)
            return y
        return modal_step_(u, state, self.poles, self.residues, self.feedthrough)

    def _taps(self, length: int, exponents: Tensor) -> Tensor:
        if length == 0:
            return self.feedthrough[:, None][:, :0]
        if fused(self.poles) and self.poles.dtype == torch.float32 and not needs_gradient(self.poles, self.residues):
            taps = sums_of_prepared(self.residues.contiguous(), exponents, length - 1, ahead=1)
            taps[:, 0] = self.feedthrough
            return taps
        poles, residues = torch.view_as_complex(self.poles), torch.view_as_complex(self.residues)
        return torch.cat([self.feedthrough[:, None], modal_taps(poles, residues, length - 1, exponents)], dim=-1)

    def _convolved(self, u: Tensor, exponents: Tensor) -> Tensor:
        # sums are as wide as the signal: only states need the digits that double precision has beyond it
        return long_convolution(u, self._taps(u.shape[-1], exponents).to(torch.promote_types(u.dtype, torch.float32)))

    def _exponents(self) -> Tensor:
        return self._made.of(self, lambda: exponents_of(torch.view_as_complex(self.poles)))

    @property
    def _is_double(self) -> bool:
        return self.poles.dtype == torch.float64

    def _check_token(self, u: Tensor, state: Tensor) -> None:
        checked_state(state, self._expected(checked_input(u, self.channels, token=True).shape[:-1]))

    def _expected(self, batch: tuple[int, ...]) -> Expected:
        return (*batch, self.channels, self.modes), (COMPLEX[self._is_double],)

    def extra_repr(self) -> str:
        kept = ", keeps_double=True" if self.narrowest == torch.float64 else ""
        return f"channels={self.channels}, modes={self.modes}{kept}"


def modal_taps(poles: Tensor, weights: Tensor, length: int, exponents: Tensor | None = None) -> Tensor:
    """``Re sum_i weights_i poles_i^t`` for t = 0 .. length-1: real ``(*batch, channels, length)`` of the width of ``weights``.

    Powers in double precision, of a long and a short part of ``t``; their product in that of the weights. Differentiable.
    ``exponents``: :func:`ssmid.kernels.modal_state.exponents_of` the poles, where they are at hand.
    """
    if fused(poles) and weights.ndim == 2 and weights.dtype == torch.complex64:
        given = exponents_of(poles) if exponents is None else exponents
        if not needs_gradient(given, weights):
            return sums_of_prepared(torch.view_as_real(weights.resolve_conj()).contiguous(), given.contiguous(), length)
        rate, turns = given.unbind(-1)
        return exponential_sums(weights.to(torch.complex128), torch.complex(rate, 2 * pi * turns), length, torch.float32)
    poles = double(poles)
    inner = max(1, isqrt(length))
    outer = -(-length // inner)
    fine = powers(poles, inner)
    coarse = powers(fine[..., -1] * poles, outer).to(weights.dtype) * weights[..., None]
    table = torch.cat([coarse.real, -coarse.imag], dim=-2).transpose(-1, -2)
    product = table @ torch.cat([fine.real, fine.imag], dim=-2).to(table.dtype)
    return product.reshape(*weights.shape[:-1], outer * inner)[..., :length]


# ---------------------------------------------------------------- any system


def recurrence(system: System, form: Form = "modal") -> Recurrence:
    """The recurrence of a real discrete ``system`` ``(channels,)`` with states: :class:`ModalRecurrence` or :class:`CompanionRecurrence`.

    A :class:`ssmid.Modal` bank runs as it is. Any other is converted, and run for 256 tokens in its own precision beside its taps: where
    the outputs of the modal form are off by more than 1e-6 of their norm (repeated poles; single precision: 1e-4) a companion form
    takes its place, with a :class:`ssmid.ConversionWarning`; and where that is too, of a system in single precision, the modal form in
    double precision (``keeps_double``). S4 as it begins is such a case: residues of sampled HiPPO-LegS reach 3e3 at order 8 and 1e7 at
    64 and cancel, which leaves outputs off by 7e-4 and by .9 with numbers in single precision, by 1e-7 at most in double. "companion"
    asks for that form: its states are real, and it loses digits where poles are close to each other and to the circle. Raises
    ValueError, with the error, where no form holds that bound; for taps, which have no small state (:func:`ssmid.distill` finds one);
    for complex systems, and for several inputs or outputs.

    >>> import ssmid
    >>> type(recurrence(ssmid.tf([[1.0, 0.0]], [[1.0, -0.5]]))).__name__
    'ModalRecurrence'
    """
    if form not in ("modal", "companion"):
        raise ValueError(f"form: expected 'modal' or 'companion', got {form!r}")
    if not isinstance(system, System):
        raise TypeError(f"expected a System (Modal, TransferFunction, StateSpace, ...), got {type(system).__name__}")
    if isinstance(system, ImpulseResponse) and system.length > 2:
        raise ValueError(
            f"expected a system with a few states, got {system.length} taps: ssmid.distill finds one, and "
            "ssmid.nn.CachedConvolution runs the taps as they are"
        )
    system = as_bank(system)
    worst = WORST[torch.float64 if width(next(iter(system.arrays.values()))) == 64 else torch.float32]
    if form == "modal" and isinstance(system, Modal):
        return ModalRecurrence(system)
    errors = {}
    kinds = ("modal", "companion", "modal in double precision") if worst > WORST[torch.float64] else ("modal", "companion")
    for kind in kinds if form == "modal" else ("companion",):
        made = _converted(system, kind)
        errors[kind] = error = float("nan") if made is None else run_error(made, system)
        if made is not None and error <= worst:
            if form == "modal" and kind == "companion":
                warnings.warn(
                    f"recurrence: companion form, as poles repeat or nearly so: the modal form is off by {errors['modal']:.1e}, "
                    f"this one by {error:.1e} of the outputs",
                    ConversionWarning,
                    stacklevel=2,
                )
            return made
    found = ", ".join(f"{kind} {error:.1e}" for kind, error in errors.items())
    advice = "pass float64, or reduce it with ssmid.balanced_truncation first"
    raise ValueError(f"expected a system that a recurrence represents to {worst:.0e} of its outputs, got errors {found}: {advice}")


def as_bank(system: Any) -> Any:
    """A copy of ``system`` with torch arrays, if it is real, discrete, of batch shape ``(channels,)`` and finite; else ValueError."""
    if not system.is_discrete:
        raise ValueError("expected a discrete-time system, got dt=0: discretize it first with ssmid.c2d(system, dt)")
    if system.is_complex:
        raise ValueError("expected a real system, got one with a complex response")
    if len(system.batch_shape) != 1:
        raise ValueError(f"expected a bank of batch shape (channels,), got {system.batch_shape}")
    finite = to_numpy(system.is_finite())
    if not finite.all():
        wrong = np.flatnonzero(~finite)
        which = ", ".join(map(str, wrong[:5])) + (", ..." if wrong.size > 5 else "")
        raise ValueError(f"expected finite numbers, got NaN or infinity in {wrong.size} of {finite.size} channels: {which}")
    return system.map(lambda a: a.detach() if isinstance(a, Tensor) else torch.tensor(a))


def _converted(system: System, form: str) -> Any:
    """The recurrence in that form; None where the conversion leaves the range of the numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        try:
            if form == "modal":
                return ModalRecurrence(to_modal(system))
            if form != "companion":
                return ModalRecurrence(to_modal(system.map(double)), keeps_double=True)
            return CompanionRecurrence(system if isinstance(system, TransferFunction) else to_transfer_function(system))
        except (ValueError, OverflowError):
            return None


@torch.no_grad()
def run_error(made: Any, system: System) -> float:
    """How far the outputs of the running recurrence are from the convolution with the taps of ``system``, relative, the worst channel."""
    taps = double(impulse_response(system, _STEPS).taps)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(1, made.channels, _STEPS, generator=generator, dtype=torch.float64).to(made.feedthrough)
    state, outputs = made.initial_state(1), []
    for t in range(_STEPS):
        y, state = made.step(u[..., t], state)
        outputs.append(y)
    points = 2 * _STEPS
    exact = torch.fft.irfft(torch.fft.rfft(double(u), n=points) * torch.fft.rfft(taps, n=points), n=points)[..., :_STEPS]
    off, size = (torch.linalg.vector_norm(x, dim=-1) for x in (torch.stack(outputs, -1) - exact, exact))
    return float(torch.where(size > 0, off / size.clamp_min(1e-300), off).amax()) if off.numel() else 0.0
