"""Factored systems as cascades of sections in powers of 1/z: the form in which they run without losing their poles."""

from __future__ import annotations

import numpy as np
import scipy.signal

from ssmid._array import Array, batched_on_host, is_complex
from ssmid.systems import SecondOrderSections, ZerosPolesGain


def cascade(system: SecondOrderSections | ZerosPolesGain) -> Array:
    """Sections ``(*batch, count, 6)`` as scipy's ``sos``; complex of first order where the gain is complex. Not differentiable.

    A real gain asks for zeros and poles closed under conjugation, or a ValueError. Each zero lacking beside the poles is a
    delay of one sample, which scipy's ``zpk2sos`` drops; here it is a section ``1/z`` or ``1/z^2``.
    """
    if isinstance(system, SecondOrderSections):
        return system.sections
    lacking = system.poles.shape[-1] - system.zeros.shape[-1]
    to_sections = _first_order if is_complex(system.gain) else _second_order
    arrays = system.zeros, system.poles, system.gain[..., None]
    return batched_on_host(lambda z, p, k: to_sections(z, p, k[0], lacking), *arrays, core_ndim=1)


def cascade_filter(sections: np.ndarray, inputs: np.ndarray, state: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """``inputs`` ``(T,)`` through one cascade on the host; ``state`` ``(count, 2)``: the delays of each section, transposed form II."""
    dtype = np.result_type(sections, inputs, *([] if state is None else [state]))
    state = np.zeros((len(sections), 2), dtype) if state is None else state.astype(dtype)
    if not np.isfinite(sections).all():
        return np.full(inputs.shape, np.nan, dtype), np.full(state.shape, np.nan, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return scipy.signal.sosfilt(sections / sections[:, 3:4], inputs, zi=state)


def _second_order(z: np.ndarray, p: np.ndarray, k: float, lacking: int) -> np.ndarray:
    delays = np.array([[0, 0, 1, 1, 0, 0]] * (lacking // 2) + [[0, 1, 0, 1, 0, 0]] * (lacking % 2), float).reshape(-1, 6)
    if not np.isfinite(np.concatenate([z, p, [k]])).all():
        return np.full((max(1, (len(p) + 1) // 2) + len(delays), 6), np.nan)
    try:
        sections = scipy.signal.zpk2sos(z, p, k)
    except ValueError:
        raise ValueError(
            f"expected zeros and poles closed under conjugation with a real gain, got zeros {z} and poles {p}: pass a complex gain"
        ) from None
    return np.concatenate([sections, delays])


def _first_order(z: np.ndarray, p: np.ndarray, k: complex, lacking: int) -> np.ndarray:
    """Each pole with the zero nearest to it, those nearest to the unit circle paired first and run last."""
    rows, z = [], list(z)
    for pole in sorted(p, key=lambda pole: abs(1 - abs(pole))):
        if z:
            zero = z.pop(int(np.argmin(np.abs(np.array(z) - pole))))
            rows.insert(0, [1, -zero, 0, 1, -pole, 0])
        else:
            rows.insert(0, [0, 1, 0, 1, -pole, 0])
    rows = np.array(rows or [[1, 0, 0, 1, 0, 0]], complex)
    rows[0, :3] *= k
    return rows
