"""Torch layers that mix along the sequence: trained as convolutions, run as recurrences."""

from ssmid.nn.convolution import long_convolution
from ssmid.nn.explicit import ExplicitFilter
from ssmid.nn.filter import Filter, Recurrence, State
from ssmid.nn.layer import FilterLayer, SequenceLayer

__all__ = ["ExplicitFilter", "Filter", "FilterLayer", "Recurrence", "SequenceLayer", "State", "long_convolution"]
