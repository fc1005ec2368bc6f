"""Factored systems as cascades of sections in powers of 1/z: the form in which they run without losing their poles."""

from __future__ import annotations

import numpy as np
import scipy.signal

from ssmid._array import Array, is_complex
from ssmid.analysis.sections import first_order_sections, second_order_sections
from ssmid.systems import SecondOrderSections, ZerosPolesGain


def cascade(system: SecondOrderSections | ZerosPolesGain) -> Array:
    """Sections ``(*batch, count, 6)`` as scipy's ``sos``; complex of first order where the gain is complex. Not differentiable.

    A real gain asks for zeros and poles closed under conjugation: a ValueError for one system, NaN for an element of a batch.
    """
    if isinstance(system, SecondOrderSections):
        return system.sections
    if not is_complex(system.gain):
        return second_order_sections(system.zeros, system.poles, system.gain)
    return first_order_sections(system.zeros, system.poles, system.gain)


def cascade_filter(sections: np.ndarray, inputs: np.ndarray, state: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """``inputs`` ``(T,)`` through one cascade on the host; ``state`` ``(count, 2)``: the delays of each section, transposed form II."""
    dtype = np.result_type(sections, inputs, *([] if state is None else [state]))
    state = np.zeros((len(sections), 2), dtype) if state is None else state.astype(dtype)
    if not np.isfinite(sections).all():
        return np.full(inputs.shape, np.nan, dtype), np.full(state.shape, np.nan, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return scipy.signal.sosfilt(sections / sections[:, 3:4], inputs, zi=state)
