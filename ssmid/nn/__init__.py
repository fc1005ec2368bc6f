"""Torch layers that mix along the sequence: trained as convolutions, run as recurrences."""

from ssmid.nn.convolution import long_convolution
from ssmid.nn.explicit import ExplicitFilter
from ssmid.nn.filter import Filter, Recurrence, State
from ssmid.nn.layer import FilterLayer, SequenceLayer
from ssmid.nn.short_convolution import ShortConvolution

__all__ = ["ExplicitFilter", "Filter", "FilterLayer", "Recurrence", "SequenceLayer", "ShortConvolution", "State", "long_convolution"]
