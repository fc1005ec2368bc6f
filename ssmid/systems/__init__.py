"""What a system is: frozen containers, one file each. What is done to them stands in the floors above."""

from ssmid.systems.base import ConversionWarning, System
from ssmid.systems.frequency_response import FrequencyResponse, frd
from ssmid.systems.impulse_response import ImpulseResponse
from ssmid.systems.modal import Modal
from ssmid.systems.state_space import StateSpace, ss
from ssmid.systems.transfer_function import TransferFunction, from_ba, tf
from ssmid.systems.zeros_poles_gain import SecondOrderSections, ZerosPolesGain, zpk

__all__ = [
    "ConversionWarning", "FrequencyResponse", "ImpulseResponse", "Modal", "SecondOrderSections", "StateSpace", "System", "TransferFunction",
    "ZerosPolesGain", "frd", "from_ba", "ss", "tf", "zpk",
]
