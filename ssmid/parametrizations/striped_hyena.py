"""Filters of StripedHyena and Evo 2: modes and short explicit filters, one for each group of channels.

StripedHyena (Together, 2023; Poli et al. 2023, Massaroli et al. 2023) stores complex poles and residues, Evo 2 (StripedHyena 2, Brixi et
al. 2025) real logarithms of poles for its long convolutions and taps for its medium and short ones. All kernels begin at lag 0, and the
layers add ``D u`` to the convolution, a bypass of each channel that is not shared with its group.
"""

from __future__ import annotations

from ssmid._array import Array, astype_width, double, harmonize, namespace
from ssmid.parametrizations.modes import complex_numbers, kernel_modes, widest
from ssmid.systems import ImpulseResponse, Modal

_REVERSED_BELOW = 128
"""Filters shorter than this are run by a cross-correlation, whose weights are the taps from the last to the first."""


def striped_hyena(poles: Array, residues: Array, D: Array = None) -> Modal:
    """The filters ``h[t] = Re sum_i residues_i poles_i^t``, t >= 0, of a StripedHyena layer.

    poles, residues : ``(groups, n, 1, 2)`` as stored, or complex ``(groups, n)``   D : ``(channels,)``, the bypass, or None

    Returns a bank ``(groups,)`` of ``2 n`` modes, or with ``D`` one of shape ``(groups, channels / groups)`` whose poles and residues are
    shared by the second axis. Differentiable. Raises ValueError where the groups do not divide the channels.

    >>> import numpy as np
    >>> striped_hyena(np.array([[[[0.5, 0.5]]]]), np.array([[[[1.0, 0.0]]]])).poles
    array([[0.5+0.5j, 0.5-0.5j]])
    """
    poles, residues, D = harmonize(poles=poles, residues=residues, D=D)
    bits = widest(poles, residues)
    poles, weights = (_squeezed(complex_numbers(a, name)) for a, name in ((poles, "poles"), (residues, "residues")))
    return _grouped(poles, weights, D, bits)


def evo2_long(log_poles: Array, residues: Array, D: Array = None) -> Modal:
    """The filters ``h[t] = sum_i residues_i exp(log_poles_i t)``, t >= 0, of a long convolution of Evo 2 ("hcl").

    log_poles : ``(groups, n, 1)`` or ``(groups, n)`` real   residues : ``(groups, n)``   D : as of :func:`striped_hyena`

    Returns a bank of ``n`` real modes. Differentiable.

    >>> import numpy as np
    >>> evo2_long(np.log([[[0.5]]]), np.array([[3.0]]), np.array([1.0, 2.0])).feedthrough
    array([[4., 5.]])
    """
    log_poles, residues, D = harmonize(log_poles=log_poles, residues=residues, D=D)
    xp = namespace(log_poles)
    bits = widest(log_poles, residues)
    return _grouped(xp.exp(_squeezed(double(log_poles))), double(residues), D, bits)


def savanna_modal(gamma: Array, R: Array, p: Array) -> Modal:
    """The same filters as Evo 2 stores them in training: ``log_poles = -exp(p + gamma)``, ``residues = R``, each ``(groups, n)``.

    >>> import numpy as np
    >>> savanna_modal(np.zeros((1, 1)), np.ones((1, 1)), np.full((1, 1), -1.0)).poles.real.round(4)
    array([[0.6922]])
    """
    gamma, R, p = harmonize(gamma=gamma, R=R, p=p)
    bits = widest(gamma, R, p)
    xp = namespace(p)
    return _grouped(xp.exp(-xp.exp(double(p) + double(gamma))), double(R), None, bits)


def evo2_taps(h: Array, D: Array = None, *, decay: Array = None) -> ImpulseResponse:
    """The taps of an explicit convolution of Evo 2: ``(groups, length)``, medium ("hcm", 128 and more) or short ("hcs").

    h : ``(groups, 1, length)`` or ``(groups, length)``; below 128 taps the layer correlates, and what it stores is turned round
    D : ``(channels,)``, added at lag 0: the result is then ``(groups, channels / groups, length)``
    decay : ``(groups, length)``, a window that the training code keeps beside ``h``; its short filters are not turned round

    >>> import numpy as np
    >>> evo2_taps(np.array([[[3.0, 2.0, 1.0]]])).taps
    array([[1., 2., 3.]])
    """
    h, D, decay = harmonize(h=h, D=D, decay=decay)
    xp = namespace(h)
    taps = h[:, 0, :] if h.ndim == 3 else h
    if decay is not None:
        taps = taps * decay
    elif taps.shape[-1] < _REVERSED_BELOW:
        taps = xp.flip(taps, axis=-1)
    if D is None:
        return ImpulseResponse(taps)
    bypass = _of_groups(D, taps.shape[0])
    first = taps[:, None, :1] + bypass[:, :, None]
    rest = xp.broadcast_to(taps[:, None, 1:], (*bypass.shape, taps.shape[-1] - 1))
    return ImpulseResponse(xp.concat([first, rest], axis=-1))


def _grouped(poles: Array, weights: Array, D: Array, bits: int) -> Modal:
    if D is None:
        return kernel_modes(poles, weights, bits=bits)
    bypass = _of_groups(astype_width(D, bits), poles.shape[0])
    if bypass.shape[1] == 1:
        return kernel_modes(poles, weights, bypass[:, 0], bits=bits)
    return kernel_modes(poles[:, None, :], weights[:, None, :], double(bypass), bits=bits)


def _of_groups(D: Array, groups: int) -> Array:
    """``(groups, channels / groups)``: neighbouring channels share a group."""
    if D.ndim != 1 or D.shape[0] % groups:
        raise ValueError(f"D: expected one number for each channel of {groups} equal groups, got shape {tuple(D.shape)}")
    return namespace(D).reshape(D, (groups, D.shape[0] // groups))


def _squeezed(array: Array) -> Array:
    """Without the axis of time, of length 1, that the layers keep for broadcasting."""
    return array[..., 0] if array.ndim == 3 else array
