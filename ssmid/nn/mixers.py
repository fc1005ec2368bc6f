"""Mixers and filters of language models by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssmid.nn.attention import Attention
from ssmid.nn.explicit import ExplicitFilter
from ssmid.nn.filter import Filter
from ssmid.nn.h3 import H3
from ssmid.nn.hyena import Hyena
from ssmid.nn.implicit import HyenaFilter
from ssmid.nn.layer import SequenceLayer
from ssmid.nn.modal_filter import ModalFilter
from ssmid.nn.multihyena import MultiHyena
from ssmid.nn.rtf import RTFFilter

ROWS = 8
"""Channels of a head of MultiHyena, unless ``heads`` is given: the state of a sequence is as many times that of Hyena."""


def filter_named(name: str | Callable[[int], Filter], order: int, length: int, denominator: str = "sections") -> Callable[[int], Filter]:
    """What makes a bank of so many channels, for sequences of ``length`` tokens; a function is given back.

    "implicit" : :class:`HyenaFilter`   "rtf" : :class:`RTFFilter` of ``order`` and with that ``denominator``,
    "montel" in the published language model. Coefficients are drawn by Xavier's rule as there, but of "free" by Montel's: most of
    Xavier's would be unstable
    "modal" : :class:`ModalFilter` of ``order``, that runs as a recurrence as it is   "explicit" : ``length`` taps, small and random
    """
    init = "montel" if denominator == "free" else "xavier"
    made: dict[str, Callable[[int], Filter]] = {
        "implicit": lambda channels: HyenaFilter(channels, length),
        "rtf": lambda channels: RTFFilter(channels, order, length=length, denominator=denominator, init=init),
        "modal": lambda channels: ModalFilter(channels, order),
        "explicit": lambda channels: ExplicitFilter(torch.randn(channels, length) / length),
    }
    if callable(name):
        return name
    if name not in made:
        raise ValueError(f"filter: expected a function of the number of channels or one of {', '.join(made)}, got {name!r}")
    return made[name]


def mixer_named(
    name: str | Callable[[int], SequenceLayer],
    width: int,
    *,
    filter: str | Callable[[int], Filter] = "implicit",
    order: int = 16,
    length: int = 2048,
    heads: int | None = None,
    denominator: str = "sections",
) -> SequenceLayer:
    """A mixer ``width`` wide; a function ``name(width)`` makes its own.

    "hyena" : :class:`Hyena` of order 2   "multihyena" : :class:`MultiHyena` of ``heads`` heads, ``width / 8`` where that is None
    "rtf" : Hyena with rational filters, as in the paper of RTF   "h3" : :class:`H3`, of state ``order``
    "attention" : :class:`Attention` of ``heads`` heads, of 64 channels where that is None, and at most ``length`` tokens

    filter, order, denominator : as of :func:`filter_named`   length : of the sequences in training
    """

    def bank(name: str | Callable[[int], Filter]) -> Callable[[int], Filter]:
        return filter_named(name, order, length, denominator)

    made: dict[str, Callable[[], SequenceLayer]] = {
        "hyena": lambda: Hyena(width, filter=bank(filter)),
        "multihyena": lambda: MultiHyena(width, heads or max(1, width // ROWS), filter=bank(filter)),
        "rtf": lambda: Hyena(width, filter=bank("rtf")),
        "h3": lambda: H3(width, order),
        "attention": lambda: Attention(width, heads or max(1, width // 64), max_length=length),
    }
    if callable(name):
        return name(width)
    if name not in made:
        raise ValueError(f"mixer: expected a function of the width or one of {', '.join(made)}, got {name!r}")
    return made[name]()
