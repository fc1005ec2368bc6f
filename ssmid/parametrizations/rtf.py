"""RTF layers: rational transfer functions trained on the unit circle (Parnichkun et al., ICML 2024, arXiv 2405.06147).

A layer stores ``a_1 .. a_n``, ``b_1 .. b_n`` and ``h_0``, and its kernel is the inverse transform of ``b(z) / a(z) + h_0`` on P points: the
response of that function wrapped around P samples. The system whose own response is that kernel has the same denominator. In state space
its C is the stored one times ``(I - A^P)^-1``, and its feedthrough is all of tap 0, on which tap P falls too. No matrix has to be inverted
for it: the numerator is the denominator convolved with the first n taps.
"""

from __future__ import annotations

from ssmid._array import Array, astype_width, double, fft_of, harmonize, namespace
from ssmid.analysis.rational_kernel import unwrap_numerator
from ssmid.parametrizations.denominators import STABLE, montel_denominator
from ssmid.parametrizations.modes import widest
from ssmid.parametrizations.s4 import matrix_power
from ssmid.systems import ImpulseResponse, TransferFunction


def rtf(ab: Array, h_0: Array, length: int, scalar: Array = None, *, recurrent: bool = False) -> TransferFunction:
    """The transfer functions ``(channels,)`` whose responses are the kernels of an RTF layer, tap for tap up to ``length``.

    ab : ``(A + channels, n)``, first the denominators, A dividing the channels, each shared by neighbours, then the numerators
    h_0 : ``(channels,)``   length : the number of taps trained with (``trunc_len``), more than n; not stored in a checkpoint
    scalar : ``(A,)``, which the layer has where it constrains denominators by ``a / (|a|_1 + |scalar| + 1e-6)`` ("l1_montel")
    recurrent : whether the numerators are the C of a recurrence read after its update, ``h_t = C A^t B``, as in the class ``RTF2`` of
        that code, which multiplies them by ``I - A^length`` before it transforms; tensors do not tell the classes apart

    Of a layer that also runs backwards there are twice as many channels, the second half of which run backwards. Nothing but that
    constraint keeps a denominator stable: :func:`rtf_kernel` has the taps of unstable ones. Differentiable. Raises ValueError for
    shapes that do not fit and a length of at most n.

    >>> import numpy as np
    >>> rtf(np.array([[-0.5], [1.0]]), np.array([3.0]), 16).num.round(4)
    array([[ 3. , -0.5]])
    """
    a, _, _, bits = _coefficients(ab, h_0, length, scalar)
    taps = _kernel(ab, h_0, length, scalar, recurrent)
    xp, n = namespace(a), a.shape[-1]
    monic = xp.concat([xp.ones_like(a[:, :1]), a], axis=-1)
    # of the product of denominator and response all terms beyond the n-th vanish; tap 0 is the feedthrough times the denominator
    strict = [xp.sum(monic[:, :j] * xp.flip(taps[:, 1 : j + 1], axis=-1), axis=-1) for j in range(1, n + 1)]
    num = taps[:, :1] * monic
    num = num + xp.concat([xp.zeros_like(num[:, :1]), xp.stack(strict, axis=-1)], axis=-1) if n else num
    return TransferFunction(*(astype_width(x, bits) for x in (num, monic)))


def rtf_kernel(ab: Array, h_0: Array, length: int, scalar: Array = None, *, recurrent: bool = False) -> ImpulseResponse:
    """The kernels ``(channels, length)`` of an RTF layer as it runs them, stable or not. Arguments as of :func:`rtf`. Differentiable.

    >>> import numpy as np
    >>> rtf_kernel(np.array([[-0.5], [1.0]]), np.array([3.0]), 16).taps[0, :3].round(4)
    array([3. , 1. , 0.5])
    """
    *_, bits = _coefficients(ab, h_0, length, scalar)
    return ImpulseResponse(astype_width(_kernel(ab, h_0, length, scalar, recurrent), bits))


def trained_denominators(parameters: Array, kind: str, scalar: Array = None) -> Array:
    """``a_1 .. a_n`` of :class:`ssmid.nn.RTFFilter` from what it trains in their place, in the precision of the parameters.

    kind : "free" (as they are), "montel" with its ``scalar``, or one of :data:`ssmid.parametrizations.denominators.STABLE`; ValueError
    for another, and for "montel" without a scalar. Differentiable.
    """
    if kind == "free":
        return parameters
    if kind == "montel" and scalar is not None:
        return montel_denominator(parameters, scalar)
    if kind not in STABLE:
        raise ValueError(f"denominator: expected free, montel (with its scalar), {', '.join(STABLE)}, got {kind!r}")
    return STABLE[kind](parameters)


def rtf_of_coefficients(b: Array, a: Array, feedthrough: Array, wrapped: int = 0) -> TransferFunction:
    """``h0 + b(1/z) / (1 + a(1/z))`` ``(channels,)`` of the coefficients of :class:`ssmid.nn.RTFFilter`.

    b : ``(channels, n)``   a : ``(A, n)``, each shared by ``channels / A`` neighbours   feedthrough : ``(channels,)``
    wrapped : the length that ``b`` is wrapped around, 0 where it is that of C itself. Differentiable.

    >>> import numpy as np
    >>> rtf_of_coefficients(np.array([[1.0]]), np.array([[-0.5]]), np.array([3.0])).num
    array([[ 3. , -0.5]])
    """
    xp, (channels, n) = namespace(b), b.shape
    sets = a.shape[0]
    a = xp.reshape(xp.broadcast_to(a[:, None, :], (sets, channels // sets, n)), (channels, n))
    if wrapped:
        b = unwrap_numerator(b, a, wrapped)
    monic = xp.concat([xp.ones_like(a[:, :1]), a], axis=-1)
    return TransferFunction(feedthrough[:, None] * monic + xp.concat([xp.zeros_like(b[:, :1]), b], axis=-1), monic)


def _kernel(ab: Array, h_0: Array, length: int, scalar: Array, recurrent: bool) -> Array:
    a, b, h_0, _ = _coefficients(ab, h_0, length, scalar)
    xp, transform = namespace(a), fft_of(a)
    points = length + length % 2  # the public code pads odd lengths by one
    zero, one = xp.zeros_like(a[:, :1]), xp.ones_like(a[:, :1])
    numerator = xp.concat([recurrent_numerator(a, b, length), zero] if recurrent else [zero, b], axis=-1)
    num, den = (transform.rfft(x, n=points, axis=-1) for x in (numerator, xp.concat([one, a], axis=-1)))
    return transform.irfft(num / den + h_0[:, None], n=points, axis=-1)[:, :length]


def recurrent_numerator(a: Array, b: Array, length: int) -> Array:
    """``b (I - A^length)`` for the companion matrices A with the denominators, negative, in the first row."""
    xp, n = namespace(a), a.shape[-1]
    eye = xp.eye(n, dtype=a.dtype, device=a.device)
    below = xp.broadcast_to(eye[: n - 1, :], (a.shape[0], n - 1, n))
    A = xp.concat([-a[:, None, :], below], axis=-2)
    return b - (b[:, None, :] @ matrix_power(A, length))[:, 0, :]


def _coefficients(ab: Array, h_0: Array, length: int, scalar: Array) -> tuple[Array, Array, Array, int]:
    """Denominators and numerators ``(channels, n)``, ``h_0``, all in double precision, and the width of what was given."""
    ab, h_0, scalar = harmonize(ab=ab, h_0=h_0, scalar=scalar)
    bits = widest(ab, h_0)
    xp = namespace(ab)
    ab, h_0 = double(ab), double(h_0)
    channels, n = h_0.shape[0], ab.shape[-1]
    sets = ab.shape[0] - channels
    if ab.ndim != 2 or sets < 1 or channels % sets:
        raise ValueError(f"ab: expected shape (denominators + {channels}, n), denominators dividing {channels}, got {tuple(ab.shape)}")
    if length <= n:
        raise ValueError(f"length: expected more than the order {n}, got {length}")
    a = ab[:sets, :]
    if scalar is not None:
        a = montel_denominator(a, double(scalar))
    shared = channels // sets
    a = xp.reshape(xp.broadcast_to(a[:, None, :], (sets, shared, n)), (channels, n))
    return a, ab[sets:, :], h_0, bits
