"""Where the coefficients of RTF filters come from: draws, systems, checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from math import log, pi, sqrt
from typing import Any
from warnings import warn

import numpy as np
import torch
from torch import Tensor

from ssmid._array import as_array
from ssmid.analysis.characteristics import poles
from ssmid.analysis.conversion import to_transfer_function
from ssmid.analysis.rational_kernel import rational_spectrum, wrap_numerator
from ssmid.parametrizations.denominators import (
    MONTEL_MARGIN,
    is_stable_denominator,
    lattice_parameters,
    montel_denominator,
    polar_parameters,
    section_parameters,
    spread_order,
)
from ssmid.parametrizations.rtf import recurrent_numerator
from ssmid.reduction.balanced import balanced_truncation
from ssmid.systems import ImpulseResponse, System

INITS = ("zeros", "montel", "xavier")
_LEVEL = 0.5
"""Where poles begin: at the roots of ``1 + _LEVEL / z^n``, evenly spaced, so that no coefficient is large at any order."""


@dataclasses.dataclass(frozen=True, eq=False)
class Coefficients:
    """Parameters of an RTF filter by name: ``numerator (channels, n)``, ``denominator (num_a, n)``, ``feedthrough (channels,)``,
    ``scalar (num_a,)`` or None."""

    numerator: Tensor
    denominator: Tensor
    feedthrough: Tensor
    scalar: Tensor | None = None


def drawn(init: str, rows: int, order: int) -> Tensor:
    """Coefficients ``(rows, order)`` by the name of their distribution (arXiv 2405.06147, section 3.5)."""
    limit = {"zeros": 0.0, "montel": 1 / order, "xavier": 1 / sqrt(order)}[init]
    return torch.empty(rows, order).uniform_(-limit, limit)


def first_denominator(kind: str, init: str, sets: int, order: int) -> Tensor:
    """Parameters of ``sets`` denominators: drawn, but for products of pairs, which begin apart."""
    if kind not in ("sections", "poles"):
        return drawn(init, sets, order)
    angles = torch.arange(1, order, 2, dtype=torch.float64)[torch.tensor(spread_order(order // 2), dtype=torch.long)] * (pi / order)
    if kind == "poles":
        pairs = torch.stack([torch.full_like(angles, log(-log(_LEVEL) / order)), angles], dim=-1)
    else:
        square = torch.tensor(_LEVEL ** (2 / order), dtype=torch.float64)
        first = -2 * square.sqrt() * angles.cos() / (1 + square)
        pairs = torch.stack([first, square.expand_as(first)], dim=-1).atanh()
    # the real root of an odd order is negative
    last = [torch.tensor([_LEVEL ** (1 / order)], dtype=torch.float64).atanh() * (1 if kind == "sections" else -1)] * (order % 2)
    return torch.cat([pairs.flatten(), *last]).float().repeat(sets, 1)


def warn_of_unstable(a: Tensor) -> None:
    """Says how many of the denominators ``(sets, n)`` are unstable, if some are."""
    count = int((~is_stable_denominator(a.detach())).sum())
    if count:
        warn(
            f"{count} of {a.shape[0]} denominators that were drawn are unstable: their recurrences blow up, and so may training. "
            "init='montel' or denominator='sections', 'lattice' or 'poles' are stable",
            stacklevel=3,
        )


def of_system(system: System, order: int | None, kind: str, wrapped_length: int) -> Coefficients:
    """Parameters of the filter with the response of ``system`` ``(channels,)``; ``wrapped_length`` 0 for the numerator of C itself."""
    if len(system.batch_shape) != 1 or not system.is_discrete or system.is_complex:
        raise ValueError(f"system: expected real discrete-time systems of batch shape (channels,), got {system!r}")
    if isinstance(system, ImpulseResponse) and order is not None and order < system.taps.shape[-1] - 1:
        system = balanced_truncation(system, order=order).system
    system = system.map(lambda x: x if isinstance(x, Tensor) else torch.from_numpy(np.array(x)))
    function = to_transfer_function(system)
    if order is not None and function.order > order:
        raise ValueError(f"order: expected at least the order {function.order} of the system, got {order}: reduce it first")
    den = torch.as_tensor(function.den).double()
    num = torch.nn.functional.pad(torch.as_tensor(function.num).double(), (den.shape[-1] - function.num.shape[-1], 0))
    num, den = (x.broadcast_to(*system.batch_shape, x.shape[-1]) for x in (num / den[..., :1], den / den[..., :1]))
    a, feedthrough = den[:, 1:], num[:, 0]
    b = num[:, 1:] - feedthrough[:, None] * a
    if wrapped_length:
        b = wrap_numerator(b, a, wrapped_length)
    if kind == "montel":
        scalar = 1 - MONTEL_MARGIN - a.abs().sum(-1)
        if bool((scalar < 0).any()):
            raise ValueError(f"system: expected absolute sums of the coefficients below 1 for 'montel', got {1 - float(scalar.min()):.4g}")
        return Coefficients(b, a, feedthrough, scalar)
    if kind == "lattice":
        return Coefficients(b, lattice_parameters(a), feedthrough)
    if kind in ("sections", "poles"):
        of_poles = section_parameters if kind == "sections" else polar_parameters
        return Coefficients(b, of_poles(poles(system)).double(), feedthrough)
    return Coefficients(b, a, feedthrough)


def of_checkpoint(tensors: Mapping[str, Any], length: int, rtf_class: str) -> Coefficients:
    """Parameters of the filter on an even number of points whose taps are the kernels of the authors' layer."""
    if rtf_class not in ("RTF", "RTF2"):
        raise ValueError(f"rtf_class: expected RTF or RTF2, got {rtf_class!r}")
    missing = {"ab", "h_0"} - set(tensors)
    if missing:
        raise ValueError(f"tensors: expected 'ab' and 'h_0', got {sorted(tensors)}")
    ab, h_0 = (torch.as_tensor(as_array(tensors[name], name)) for name in ("ab", "h_0"))
    scalar = torch.as_tensor(as_array(tensors["scalar"], "scalar")) if "scalar" in tensors else None
    sets = ab.shape[0] - h_0.shape[0] if ab.ndim == 2 and h_0.ndim == 1 else 0
    if sets < 1 or h_0.shape[0] % sets:
        raise ValueError(
            f"ab: expected shape (denominators + {tuple(h_0.shape)}, n), denominators dividing the channels, got {tuple(ab.shape)}"
        )
    raw, b = ab[:sets], ab[sets:].double()
    a = raw.double() if scalar is None else montel_denominator(raw.double(), scalar.double())
    a = a.repeat_interleave(h_0.shape[0] // sets, dim=0)
    through, points = h_0.double(), length + length % 2
    if rtf_class == "RTF2":
        # of c_0 + c_1/z + ... over the denominator, c_0 is a feedthrough
        b = recurrent_numerator(a, b, length)
        through, b = through + b[:, 0], torch.nn.functional.pad(b[:, 1:], (0, 1)) - b[:, :1] * a
    return Coefficients(b.to(ab.dtype), raw, (through + _on_tap_0(b, a, points)).to(ab.dtype), scalar)


def halves(b: Tensor, a: Tensor, feedthrough: Tensor) -> tuple[Coefficients, Coefficients]:
    """The channels that run with time, and those that run against it."""
    if b.shape[0] % 2 or a.shape[0] % 2:
        raise ValueError(f"ab: expected two banks of as many channels and denominators, got {b.shape[0]} and {a.shape[0]}")
    ahead, back = zip(*(x.chunk(2) for x in (b, a, feedthrough)), strict=True)
    return Coefficients(*ahead), Coefficients(*back)


def _on_tap_0(b: Tensor, a: Tensor, points: int) -> Tensor:
    """``(channels,)`` what the periodic kernel of ``b`` has at tap 0: tap ``points``, wrapped."""
    pad = torch.nn.functional.pad
    spectrum = rational_spectrum(pad(b, (1, 0)), pad(a, (1, 0), value=1.0), points)
    return torch.fft.irfft(spectrum, n=points)[:, 0]
