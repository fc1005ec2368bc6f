"""Ways to the state behind a prompt, ``x = sum_s lambda^(T-1-s) u_s`` (Massaroli et al. 2023, section 3.4, appendix).

With m modes, T tokens, and beside reading the prompt, of one channel of one sequence:

================  =================  =====================  ==========================================
way               operations         memory                 steps one after the other
================  =================  =====================  ==========================================
``"reduction"``   ``2 T m``          ``m T / 32`` or none   ``T / 4096`` (:mod:`ssmid.kernels.modal_state`)
``"scan"``        ``4 T m log2 T``   ``2 T m``              ``log2 T``
``"fft"``         ``T m log2 T``     ``4 T m``              ``log2 T``
``"recurrence"``  ``4 T m``          ``m``                  ``T``
================  =================  =====================  ==========================================

The last three are there to be compared.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ssmid._array import as_complex, double
from ssmid.kernels.modal_state import modal_state
from ssmid.linalg import powers
from ssmid.nn.filter import at_least_single

StateBy: TypeAlias = Literal["reduction", "scan", "fft", "recurrence"]


def prompt_state(u: Tensor, poles: Tensor, by: StateBy = "reduction", exponents: Tensor | None = None) -> Tensor:
    """Complex ``(*batch, channels, m)`` from ``u`` ``(*batch, channels, T)`` and poles ``(channels, m)``, T at least 1.

    ``exponents`` of the poles, where they are at hand, as of :func:`ssmid.kernels.modal_state.modal_state`. ValueError for an unknown way.

    >>> u, poles = torch.randn(2, 3, 100).double(), torch.rand(3, 4).to(torch.complex128)
    >>> [torch.allclose(prompt_state(u, poles), prompt_state(u, poles, by)) for by in ("scan", "fft", "recurrence")]
    [True, True, True]
    """
    flat = u if u.ndim == 3 else u.reshape(-1, *u.shape[-2:])
    if by == "reduction":
        state = modal_state(flat, poles, exponents)
    elif by in _OTHERS:
        state = _OTHERS[by](flat, poles)
    else:
        raise ValueError(f"state_by: expected one of {', '.join(('reduction', *_OTHERS))}, got {by!r}")
    return state.reshape(*u.shape[:-1], poles.shape[-1])


def _stepped(u: Tensor, poles: Tensor) -> Tensor:
    u = as_complex(at_least_single(u))
    poles, state = poles.to(u.dtype), u.new_zeros(*u.shape[:-1], poles.shape[-1])
    for t in range(u.shape[-1]):
        state = poles * state + u[..., t, None]
    return state


def _scanned(u: Tensor, poles: Tensor) -> Tensor:
    """Hillis and Steele's scan over ``(a, x) . (b, y) = (a b, b x + y)``; the first member is ``lambda^(2^k)`` for all of time."""
    wide = at_least_single(u)
    states = as_complex(wide)[..., None, :].expand(*u.shape[:-1], poles.shape[-1], u.shape[-1])
    ahead, factor = 1, double(poles)
    while ahead < u.shape[-1]:
        earlier = torch.nn.functional.pad(states[..., :-ahead], (ahead, 0))
        states = states + factor.to(states.dtype)[..., None] * earlier
        ahead, factor = 2 * ahead, factor * factor
    return states[..., -1]


def _convolved(u: Tensor, poles: Tensor) -> Tensor:
    """The convolution of the prompt with ``lambda^t``, of which the last sample is kept."""
    wide, points = as_complex(at_least_single(u)), 2 * u.shape[-1]
    responses = powers(double(poles), u.shape[-1]).to(wide.dtype)
    spectrum = torch.fft.fft(wide, n=points)[..., None, :] * torch.fft.fft(responses, n=points)
    return torch.fft.ifft(spectrum)[..., u.shape[-1] - 1]


_OTHERS = {"scan": _scanned, "fft": _convolved, "recurrence": _stepped}
