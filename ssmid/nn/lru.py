"""The linear recurrent unit: one diagonal recurrence that all channels go into and come out of (Orvieto et al., ICML 2023)."""

from __future__ import annotations

from math import ceil, pi, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssmid.nn.filter import COMPLEX, checked_state
from ssmid.nn.layer import SequenceLayer, masked
from ssmid.nn.projection import checked_sequence
from ssmid.nn.single_precision import KeepsSingle
from ssmid.parametrizations.initializations import lru_ring, pairs
from ssmid.parametrizations.lru import lru
from ssmid.systems import StateSpace

_BLOCK = 16
"""Tokens that are taken one after another, in all blocks of the sequence at once."""


class LRU(KeepsSingle, SequenceLayer):
    """``x_t = lambda x_{t-1} + e^gamma_log B u_t``, ``y_t = Re(C x_t) + D u_t`` over N = order / 2 complex states.

    order : real states, even   r_min, r_max, max_phase : the ring of the poles
    (:func:`ssmid.parametrizations.initializations.lru_ring`), at first

    Parameters, named as in the public code: ``nu_log, theta_log, gamma_log (N,)`` with ``lambda = exp(-exp(nu_log) + i exp(theta_log))``,
    always stable; ``B_re, B_im (N, width)``, ``C_re, C_im (width, N)``, ``D (width,)``. They stay float32 at least. The state is
    ``(batch, N)``, complex64, of a module in float64 complex128.

    A sequence costs O(length N) operations beside the two products with matrices, and as memory the states ``(batch, length, N)``, kept
    once: they come block by block from blocks of 16 tokens, and the gradient is the same recurrence backwards in time.

    >>> layer = LRU(3, 8)
    >>> u = torch.randn(2, 5, 3)
    >>> y, state = layer.prefill(u[:, :4])
    >>> torch.allclose(layer.step(u[:, 4], state)[0], layer(u)[:, 4], atol=1e-5)
    True
    """

    def __init__(self, width: int, order: int = 64, *, r_min: float = 0.0, r_max: float = 1.0, max_phase: float = 2 * pi) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width: expected at least 1, got {width}")
        modes = pairs(order)
        rng = np.random.default_rng(int(torch.randint(2**62, (), device="cpu")))
        self.width, self.order = width, order
        ring = lru_ring(modes, rng, r_min, r_max, max_phase)
        self.nu_log, self.theta_log, self.gamma_log = (nn.Parameter(torch.tensor(x, dtype=torch.float32)) for x in ring)
        self.B_re, self.B_im = (nn.Parameter(torch.randn(modes, width) / sqrt(2 * width)) for _ in range(2))
        self.C_re, self.C_im = (nn.Parameter(torch.randn(width, modes) / sqrt(modes)) for _ in range(2))
        self.D = nn.Parameter(torch.randn(width))

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.prefill(u, None, mask)[0]

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.order // 2, dtype=COMPLEX[self.D.dtype == torch.float64], device=self.D.device)

    def prefill(self, u: Tensor, state: Any = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        start = self.initial_state(checked_sequence(u, self.width).shape[0]) if state is None else self._checked(state, u)
        if not u.shape[1]:
            return u, start
        u = masked(u, mask)
        driven = self._driven(u)
        poles = self._poles()
        if state is not None:
            driven = torch.cat([driven[:, :1] + (poles * start)[:, None], driven[:, 1:]], dim=1)
        states = _Scan.apply(driven, poles)
        assert isinstance(states, Tensor)
        return self._seen(states, u), states[:, -1].clone()

    def step(self, u: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        u = checked_sequence(u, self.width, token=True)
        state = self._poles() * self._checked(state, u) + self._driven(u)
        return self._seen(state, u), state

    def system(self) -> StateSpace:
        """The system of ``width`` inputs and outputs and ``order`` real states, detached."""
        with torch.no_grad():
            return lru(self.nu_log, self.theta_log, self.gamma_log, self.B_re, self.B_im, self.C_re, self.C_im, self.D)

    def extra_repr(self) -> str:
        return f"width={self.width}, order={self.order}"

    def _poles(self) -> Tensor:
        return torch.exp(torch.complex(-torch.exp(self.nu_log), torch.exp(self.theta_log)))

    def _driven(self, u: Tensor) -> Tensor:
        scale = torch.exp(self.gamma_log)
        u = u.to(self.D.dtype)
        return torch.complex(u @ self.B_re.mT * scale, u @ self.B_im.mT * scale)

    def _seen(self, states: Tensor, u: Tensor) -> Tensor:
        return (states.real @ self.C_re.mT - states.imag @ self.C_im.mT + self.D * u.to(self.D.dtype)).to(u.dtype)

    def _checked(self, state: Any, u: Tensor) -> Tensor:
        return checked_state(state, ((u.shape[0], self.order // 2), (COMPLEX[self.D.dtype == torch.float64],)))


class _Scan(torch.autograd.Function):
    """``x_t = poles x_{t-1} + v_t`` from rest, of ``(batch, length, N)`` complex; keeps the states alone."""

    @staticmethod
    def forward(ctx: Any, driven: Tensor, poles: Tensor) -> Tensor:
        states = _scanned(driven, poles)
        ctx.save_for_backward(states, poles)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, poles = ctx.saved_tensors
        back = _scanned(gradients[0].flip(1), poles.conj()).flip(1)
        return back, (states[:, :-1].conj() * back[:, 1:]).sum((0, 1))


def _scanned(driven: Tensor, poles: Tensor) -> Tensor:
    """Blocks of tokens from rest, the ends of the blocks by the same function, and what each block inherits."""
    batch, length, modes = driven.shape
    if length <= _BLOCK:
        states = torch.empty_like(driven)
        before = torch.zeros_like(driven[:, 0])
        for t in range(length):
            before = torch.addcmul(driven[:, t], poles, before)
            states[:, t] = before
        return states
    blocks = ceil(length / _BLOCK)
    padded = nn.functional.pad(torch.view_as_real(driven), (0, 0, 0, 0, 0, blocks * _BLOCK - length))
    local = torch.view_as_complex(padded).reshape(batch * blocks, _BLOCK, modes)
    local = _scanned(local, poles).reshape(batch, blocks, _BLOCK, modes)
    powers = poles ** torch.arange(1, _BLOCK + 1, device=poles.device)[:, None]
    ends = _scanned(local[:, :-1, -1], powers[-1])
    local[:, 1:].addcmul_(powers, ends[:, :, None])
    return local.reshape(batch, blocks * _BLOCK, modes)[:, :length]
