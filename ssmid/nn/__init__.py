"""Torch layers that mix along the sequence: trained as convolutions, run as recurrences."""

from ssmid.nn.cached_convolution import CachedConvolution
from ssmid.nn.convolution import long_convolution
from ssmid.nn.explicit import ExplicitFilter
from ssmid.nn.filter import Filter, Recurrence, State
from ssmid.nn.future_fill import FutureFill
from ssmid.nn.layer import FilterLayer, SequenceLayer
from ssmid.nn.short_convolution import ShortConvolution

__all__ = [
    "CachedConvolution",
    "ExplicitFilter",
    "Filter",
    "FilterLayer",
    "FutureFill",
    "Recurrence",
    "SequenceLayer",
    "ShortConvolution",
    "State",
    "long_convolution",
]
