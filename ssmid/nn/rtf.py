"""RTF: filters that are rational transfer functions, trained without a state (Parnichkun et al., ICML 2024, arXiv 2405.06147).

Every channel is ``H(z) = h0 + (b_1/z + ... + b_n/z^n) / (1 + a_1/z + ... + a_n/z^n)``, and its taps are one inverse FFT of the quotient of
two FFTs of the coefficients: time O(L log L) and memory O(L) for any order n. What is read off L points is the response wrapped around
L. As published, what is trained is therefore the numerator of ``C (I - A^L)``, whose wrapped response is the response itself; that of
C is found without forming a power of A (:func:`ssmid.analysis.rational_kernel.unwrap_numerator`), for lengths odd and even.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ssmid.analysis.rational_kernel import rational_kernel, unwrap_numerator
from ssmid.nn.filter import Filter, at_least_single
from ssmid.nn.layer import FilterLayer
from ssmid.nn.rational_taps import rational_taps
from ssmid.nn.rtf_initialization import (
    INITS,
    Coefficients,
    drawn,
    first_denominator,
    halves,
    of_checkpoint,
    of_system,
    warn_of_unstable,
)
from ssmid.parametrizations.denominators import STABLE, is_stable_denominator, montel_denominator
from ssmid.parametrizations.rtf import rtf_of_coefficients
from ssmid.systems import System, TransferFunction

DENOMINATORS = ("free", "montel", *STABLE)


class RTFFilter(Filter):
    """A bank of ``channels`` rational transfer functions of one order.

    length : the length that the numerators are trained for, L above. Any other length gives the same response, cut off or continued;
        those beyond it pay for a longer series, O(length n). On a GPU powers of two are one kernel each way, others are tens.
    num_a : how many denominators there are, each shared by ``channels / num_a`` neighbours; None is one for each channel
    denominator : what is trained in its place. "free": the coefficients, as published; nothing keeps them stable. "montel": the authors'
        constraint. "sections", "lattice" and "poles" are stable for every value of the parameters and may ring for a million
        samples (:mod:`ssmid.parametrizations.denominators`); their coefficients and spectra are computed in float64.
    numerator : "wrapped", the published one, or "causal", that of C, the same for every length, for O(length n) a forward pass
    init : "zeros", "montel" U(-1/n, 1/n) or "xavier" U(-1/sqrt n, 1/sqrt n), of numerators and of free, constrained and reflection
        coefficients. Pairs of poles and sections, which would stay equal if they began equal, begin at the roots of
        ``1 + 1 / (2 z^n)``. Unstable draws of "xavier" are warned of. ``h0`` is standard normal, as published.

    Parameters: ``numerator (channels, n)``, ``denominator (num_a, n)``, ``feedthrough (channels,)``, with "montel" ``scalar (num_a,)``.
    The buffer ``trained_length`` holds L, without which a state dict would not say what it means; loading one sets it.

    >>> filter = RTFFilter(2, 4, length=16, denominator="lattice")
    >>> filter(20).shape, filter.system()
    (torch.Size([2, 20]), TransferFunction(order=4, batch=(2,), dt=1, float64))
    """

    def __init__(
        self,
        channels: int,
        order: int,
        *,
        length: int,
        num_a: int | None = None,
        denominator: str = "free",
        numerator: Literal["wrapped", "causal"] = "wrapped",
        init: str = "zeros",
    ) -> None:
        super().__init__()
        sets = channels if num_a is None else num_a
        for name, number in (("channels", channels), ("order", order), ("length", length)):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        if sets < 1 or channels % sets:
            raise ValueError(f"num_a: expected a number of denominators that divides the {channels} channels, got {num_a}")
        _among("denominator", denominator, DENOMINATORS)
        _among("numerator", numerator, ("wrapped", "causal"))
        _among("init", init, INITS)
        self.channels, self.order, self.length = channels, order, length
        self.denominator_kind, self.numerator_kind = denominator, numerator
        self.numerator = nn.Parameter(drawn(init, channels, order))
        self.denominator = nn.Parameter(first_denominator(denominator, init, sets, order))
        self.feedthrough = nn.Parameter(torch.randn(channels))
        if denominator == "montel":
            self.scalar = nn.Parameter(torch.rand(sets))
        self.register_buffer("trained_length", torch.tensor(length))
        if denominator == "free" and init == "xavier":
            warn_of_unstable(self.denominator)

    @classmethod
    def from_system(
        cls,
        system: System,
        length: int,
        *,
        order: int | None = None,
        denominator: str = "free",
        numerator: Literal["wrapped", "causal"] = "wrapped",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """The filter whose response is that of ``system`` ``(channels,)``, scalar, real and discrete.

        An impulse response is first reduced to ``order`` states by balanced truncation; any other system keeps its own order. Raises
        ValueError for systems that the parametrization does not hold: unstable ones for "sections", "lattice" and "poles", different
        real poles for "poles", absolute sums of 1 and more for "montel".
        """
        _among("denominator", denominator, DENOMINATORS)
        found = of_system(system, order, denominator, length if numerator == "wrapped" else 0)
        return cls._of(found, length, denominator, numerator, dtype)

    @classmethod
    def from_checkpoint(cls, tensors: Mapping[str, Any], length: int, *, rtf_class: str = "RTF") -> Self:
        """The filter whose taps are the kernel of a trained layer of ruke1ire/RTF, tap for tap up to ``length``.

        tensors : ``ab`` and ``h_0``, and ``scalar`` where denominators were constrained   length : its ``trunc_len``, not stored there
        rtf_class : "RTF" or "RTF2", which mean another numerator by the same names

        Tap 0 of that code carries what wraps around onto it, which is part of ``feedthrough`` here; an odd length is trained on
        one point more. Of a layer that runs both ways this is all ``2 width`` channels: see :meth:`RTF.from_checkpoint`.
        """
        kind = "montel" if "scalar" in tensors else "free"
        found = of_checkpoint(tensors, length, rtf_class)
        return cls._of(found, length + length % 2, kind, "wrapped", found.numerator.dtype)

    @classmethod
    def _of(cls, found: Coefficients, length: int, denominator: str, numerator: Any, dtype: torch.dtype) -> Self:
        channels, order = found.numerator.shape
        made = cls(channels, order, length=length, num_a=found.denominator.shape[0], denominator=denominator, numerator=numerator)
        made.to(device=found.numerator.device, dtype=dtype)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                parameter.copy_(getattr(found, name))
        return made

    def forward(self, length: int) -> Tensor:
        b, a, feedthrough = self.coefficients()
        if self.numerator_kind == "causal":
            taps = _continued(b, self._of_channels(a), feedthrough, length, 0)
        else:
            taps = rational_taps(b, a, feedthrough, self.length)
            if length > self.length:
                # what an unstable filter grows to later would drown its first taps in rounding
                later = _continued(b, self._of_channels(a), feedthrough, length, self.length)[:, self.length :]
                taps = torch.cat([taps, later], dim=-1)
            elif length < self.length:  # a slice of all would cost two passes over the gradient
                taps = taps[:, :length]
        return taps.to(self.numerator.dtype)

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """``b`` ``(channels, n)`` as trained, ``a`` ``(num_a, n)`` and ``h0`` ``(channels,)``, of one dtype: float64 where ``a`` is
        computed, else that of the parameters, at least float32. Differentiable."""
        parameters = at_least_single(self.denominator)
        if self.denominator_kind in STABLE:
            a = _stable(parameters.double(), self.denominator_kind)
        elif self.denominator_kind == "montel":
            a = _montel(parameters, at_least_single(self.scalar))
        else:
            a = parameters
        return self.numerator.to(a.dtype), a, self.feedthrough.to(a.dtype)

    def system(self) -> TransferFunction:
        """The transfer functions in float64, with the numerators of C: their response is the filter at every length."""
        with torch.no_grad():
            b, a, feedthrough = (x.double() for x in self.coefficients())
            return rtf_of_coefficients(b, a, feedthrough, self.length if self.numerator_kind == "wrapped" else 0)

    def stable(self) -> Tensor:
        """``(num_a,)`` whether the poles of each denominator lie inside the unit circle."""
        return is_stable_denominator(self.coefficients()[1].detach())

    def extra_repr(self) -> str:
        facts = f"channels={self.channels}, order={self.order}, length={self.length}, num_a={self.denominator.shape[0]}"
        return f"{facts}, denominator={self.denominator_kind!r}, numerator={self.numerator_kind!r}"

    def _of_channels(self, a: Tensor) -> Tensor:
        return a.repeat_interleave(self.channels // a.shape[0], dim=0)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any, **named: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)
        self.length = int(self.get_buffer("trained_length"))


class RTF(FilterLayer):
    """The layer of one :class:`RTFFilter` a channel, ``(batch, length, width)`` to the same; ``options`` are those of the filter.

    bidirectional : a second bank runs against time: ``y_t = sum_s h_s u_{t-s} + sum_s g_s u_{t+1+s}``, for lengths odd and even

    >>> layer = RTF(8, 4, length=32, bidirectional=True)
    >>> layer(torch.randn(2, 31, 8)).shape
    torch.Size([2, 31, 8])
    """

    def __init__(self, width: int, order: int, *, length: int, bidirectional: bool = False, **options: Any) -> None:
        backward = RTFFilter(width, order, length=length, **options) if bidirectional else None
        super().__init__(RTFFilter(width, order, length=length, **options), backward)

    @staticmethod
    def from_checkpoint(tensors: Mapping[str, Any], length: int, *, rtf_class: str = "RTF", bidirectional: bool = False) -> FilterLayer:
        """The layer of a checkpoint of ruke1ire/RTF: arguments of :meth:`RTFFilter.from_checkpoint`. One that runs both ways has free
        coefficients, whatever they were constrained by."""
        both = RTFFilter.from_checkpoint(tensors, length, rtf_class=rtf_class)
        if not bidirectional:
            return FilterLayer(both)
        banks = halves(*(x.detach() for x in both.coefficients()))
        return FilterLayer(*(RTFFilter._of(bank, both.length, "free", "wrapped", both.numerator.dtype) for bank in banks))


# compilers take what is written over the array API as it is, and look into what it calls


@torch.compiler.allow_in_graph
def _stable(parameters: Tensor, kind: str) -> Tensor:
    return STABLE[kind](parameters)


@torch.compiler.allow_in_graph
def _montel(a: Tensor, scalar: Tensor) -> Tensor:
    return montel_denominator(a, scalar)


@torch.compiler.allow_in_graph
def _continued(b: Tensor, a: Tensor, feedthrough: Tensor, length: int, trained: int) -> Tensor:
    """The causal response; ``trained`` is the length that ``b`` is wrapped around, or 0."""
    if length == 0:
        return b[:, :0]
    if trained:
        b = unwrap_numerator(b, a, trained)
    return rational_kernel(b, a, length, feedthrough, wrap="causal")


def _among(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")


