"""Trained modes as modal banks: complex numbers stored in pairs, kernels that begin at lag 0, one pole of each conjugate pair."""

from __future__ import annotations

from typing import Any

from ssmid._array import Array, as_complex, astype_width, double, is_complex, namespace, width
from ssmid.systems import Modal


def kernel_modes(poles: Array, weights: Array, through: Array = None, *, bits: int = 64) -> Modal:
    """The bank with ``h[t] = Re sum_i weights_i poles_i^t`` for t >= 0, and ``through`` added at t = 0.

    poles, weights : ``(*batch, n)``, complex ones without their conjugates, or real   through : ``(*batch,)``

    Complex poles get their conjugates beside them, which makes 2 n modes; one that is real gets a pole at 0 that nothing reaches.
    Real arrays stay n modes. ``bits`` is the width of the result. Differentiable.

    >>> import numpy as np
    >>> kernel_modes(np.array([0.5]), np.array([3.0]))
    Modal(order=1, batch=(), dt=1, complex128)
    """
    xp = namespace(poles, weights)
    feedthrough = xp.sum(xp.real(weights) if is_complex(weights) else weights, axis=-1)
    if through is not None:
        feedthrough = feedthrough + through
    residues = weights * poles
    if is_complex(poles) or is_complex(weights):
        poles, residues = with_conjugates(as_complex(poles), as_complex(residues))
    return Modal(*(astype_width(a, bits) for a in (as_complex(poles), as_complex(residues), feedthrough)))


def trained_modes(modulus: Array, angle: Array, residues: Array, feedthrough: Array) -> Modal:
    """The bank ``(channels,)`` of :class:`ssmid.nn.ModalFilter`, in the width given: poles ``sigmoid(modulus) e^(i angle)`` and conjugates.

    modulus, angle : ``(channels, modes)``   residues : ``(channels, modes, 2)``   feedthrough : ``(channels,)``. Differentiable.

    >>> import numpy as np
    >>> trained_modes(np.array([[0.0]]), np.array([[np.pi / 2]]), np.array([[[1.0, 0.0]]]), np.zeros(1)).poles.round(3) + 0
    array([[0.+0.5j, 0.-0.5j]])
    """
    xp, angle = namespace(modulus), double(angle)
    turned = as_complex(xp.cos(angle)) + 1j * as_complex(xp.sin(angle))
    poles, residues = with_conjugates(as_complex(positive(modulus, "sigmoid")) * turned, complex_numbers(residues, "residues"))
    return Modal(*(astype_width(a, width(feedthrough)) for a in (poles, residues, feedthrough)))


def with_conjugates(poles: Array, residues: Array) -> tuple[Array, Array]:
    """Poles ``(*batch, 2 n)`` closed under conjugation, pairs side by side, whose sum is the real part of the sum of the ``n`` given."""
    xp = namespace(poles, residues)
    real = xp.imag(poles) == 0
    zero = xp.zeros_like(poles)
    partners = xp.where(real, zero, xp.conj(poles))
    first = xp.where(real, as_complex(xp.real(residues)), residues / 2)
    second = xp.where(real, zero, xp.conj(residues) / 2)
    poles, partners = xp.broadcast_arrays(poles, partners)
    shape = (*poles.shape[:-1], 2 * poles.shape[-1])
    both = xp.reshape(xp.stack([poles, partners], axis=-1), shape)
    return both, xp.reshape(xp.stack([first, second], axis=-1), (*first.shape[:-1], 2 * first.shape[-1]))


def complex_numbers(pairs: Array, name: str) -> Array:
    """``(*shape,)`` complex from real ``(*shape, 2)``; what is complex already stays. ValueError for other shapes."""
    if is_complex(pairs):
        return double(pairs)
    if pairs.ndim == 0 or pairs.shape[-1] != 2:
        raise ValueError(f"{name}: expected real and imaginary parts in the last axis, of length 2, got shape {tuple(pairs.shape)}")
    return as_complex(double(pairs[..., 0])) + 1j * as_complex(double(pairs[..., 1]))


def positive(parameter: Array, transform: str) -> Array:
    """A positive number from what a layer trains in its place: "exp", "relu", "softplus", "sigmoid" or "none" (as it is)."""
    xp = namespace(parameter)
    parameter = double(parameter)
    if transform == "exp":
        return xp.exp(parameter)
    if transform == "relu":
        return xp.maximum(parameter, xp.zeros_like(parameter)) + 1e-4
    if transform == "softplus":
        return xp.maximum(parameter, xp.zeros_like(parameter)) + xp.log1p(xp.exp(-xp.abs(parameter)))
    if transform == "sigmoid":
        return 1 / (1 + xp.exp(-parameter))
    if transform == "none":
        return parameter
    raise ValueError(f"transform: expected 'exp', 'relu', 'softplus', 'sigmoid' or 'none', got {transform!r}")


def copies(array: Array, count: int, axis: int) -> Array:
    """``array`` repeated as a whole until ``axis`` has ``count`` entries: how layers share few sets of parameters among many channels."""
    xp = namespace(array)
    size = array.shape[axis]
    if size == 0 or count % size:
        raise ValueError(f"expected a number of shared parameters that divides the {count} channels, got {size}")
    return array if size == count else xp.concat([array] * (count // size), axis=axis)


def widest(*arrays: Any) -> int:
    """32 or 64, the width of the widest."""
    return max(width(a) for a in arrays if a is not None)


def bypass(D: Array, channels: tuple[int, ...]) -> Array:
    """What a layer adds at lag 0, in the shape ``(H,)`` or ``(heads, H)`` of its ``channels``, in double precision; None stays None.

    A layer that also runs backwards has twice as many heads as numbers for them: the second half gets zeros.
    """
    if D is None:
        return None
    xp, D = namespace(D), double(D)
    if len(channels) == 2 and D.ndim == 1:
        D = D[None, :]
    missing = channels[0] - D.shape[0] if len(channels) == D.ndim == 2 else 0
    if D.ndim != len(channels) or D.shape[-1] != channels[-1] or missing not in (0, D.shape[0]):
        raise ValueError(f"D: expected one number for each of the channels {channels}, got shape {tuple(D.shape)}")
    return xp.concat([D, xp.zeros((missing, D.shape[-1]), dtype=D.dtype, device=D.device)], axis=0) if missing else D
