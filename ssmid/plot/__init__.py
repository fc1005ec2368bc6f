"""Figures: every function draws into an ``Axes`` (a new one where none is given) and returns it.

One style: colours that colour-blind readers tell apart (Okabe and Ito, jfly.uni-koeln.de/color, 2008), lines that differ in
print, units on every axis, legends beside the data. ``with ssmid.plot.style():`` puts figures of your own in the same
style; nothing is changed outside. Frequencies are in rad/s, or in Hz with ``fs=``.
"""

from ssmid.plot.bank import filter_bank
from ssmid.plot.comparison import comparison
from ssmid.plot.distillation import (
    distilled_channels,
    distilled_cost,
    distilled_filter,
    distilled_orders,
    distilled_poles,
    distilled_spectrum,
)
from ssmid.plot.experiments import learning_curves, sweep
from ssmid.plot.frequency import bode, bode_magnitude, bode_phase, group_delay, nyquist
from ssmid.plot.identification import frequency_fit, residual_correlation, simulation
from ssmid.plot.plane import pole_zero
from ssmid.plot.reduction import error_vs_order, hankel_spectrum
from ssmid.plot.style import style
from ssmid.plot.time import impulse
from ssmid.plot.training import training_curves

__all__ = [
    "bode", "bode_magnitude", "bode_phase", "comparison", "distilled_channels", "distilled_cost", "distilled_filter", "distilled_orders",
    "distilled_poles", "distilled_spectrum", "error_vs_order", "filter_bank", "frequency_fit", "group_delay", "hankel_spectrum",
    "impulse", "learning_curves", "nyquist", "pole_zero", "residual_correlation", "simulation", "style", "sweep", "training_curves",
]
