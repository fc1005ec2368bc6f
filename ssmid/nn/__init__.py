"""Torch layers that mix along the sequence: trained as convolutions, run as recurrences."""

from ssmid.nn.attention import Attention
from ssmid.nn.cached_convolution import CachedConvolution
from ssmid.nn.companion import CompanionRecurrence
from ssmid.nn.convert import Conversion, conversions, convert
from ssmid.nn.convolution import long_convolution
from ssmid.nn.decoder import Decoder
from ssmid.nn.explicit import ExplicitFilter
from ssmid.nn.filter import Filter, Recurrence, State
from ssmid.nn.future_fill import FutureFill
from ssmid.nn.generation import generate, stream
from ssmid.nn.h3 import H3
from ssmid.nn.hyena import Hyena
from ssmid.nn.implicit import HyenaFilter
from ssmid.nn.language_model import LanguageModel
from ssmid.nn.layer import FilterLayer, SequenceLayer
from ssmid.nn.lru import LRU
from ssmid.nn.memory import memory_per_sequence
from ssmid.nn.modal_filter import ModalFilter
from ssmid.nn.multihyena import MultiHyena
from ssmid.nn.recurrence import ModalRecurrence, recurrence
from ssmid.nn.rtf import RTF, RTFFilter
from ssmid.nn.s4 import S4, S4Filter
from ssmid.nn.s4d import S4D, S4DFilter
from ssmid.nn.sampling import Sampling
from ssmid.nn.short_convolution import ShortConvolution

__all__ = [
    "Attention",
    "CachedConvolution",
    "CompanionRecurrence",
    "Conversion",
    "Decoder",
    "ExplicitFilter",
    "Filter",
    "FilterLayer",
    "FutureFill",
    "H3",
    "Hyena",
    "HyenaFilter",
    "LRU",
    "LanguageModel",
    "ModalFilter",
    "ModalRecurrence",
    "MultiHyena",
    "RTF",
    "RTFFilter",
    "Recurrence",
    "S4",
    "S4D",
    "S4DFilter",
    "S4Filter",
    "Sampling",
    "SequenceLayer",
    "ShortConvolution",
    "State",
    "conversions",
    "convert",
    "generate",
    "long_convolution",
    "memory_per_sequence",
    "recurrence",
    "stream",
]
