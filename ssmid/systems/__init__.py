"""What a system is: frozen containers, one file each. What is done to them stands in the floors above."""

from ssmid.systems.barycentric import Barycentric
from ssmid.systems.base import ConversionWarning, System
from ssmid.systems.frequency_response import FrequencyResponse, frd
from ssmid.systems.impulse_response import ImpulseResponse
from ssmid.systems.modal import Modal
from ssmid.systems.sparse import SparseStateSpace
from ssmid.systems.state_space import StateSpace, ss
from ssmid.systems.transfer_function import TransferFunction, from_ba, tf
from ssmid.systems.zeros_poles_gain import SecondOrderSections, ZerosPolesGain, zpk

__all__ = [
    "Barycentric", "ConversionWarning", "FrequencyResponse", "ImpulseResponse", "Modal", "SecondOrderSections", "SparseStateSpace",
    "StateSpace", "System", "TransferFunction", "ZerosPolesGain", "frd", "from_ba", "ss", "tf", "zpk",
]
