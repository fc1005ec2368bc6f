"""Diagonal state-space layers: S4D in its versions, and DSS.

A continuous system ``x' = A x + B u``, ``y = Re(C x)`` with diagonal A, sampled with a trained step: by a hold or the bilinear map
(Gu, Gupta, Goel & Re, NeurIPS 2022), or with weights that make the kernel a softmax over its length (DSS; Gupta, Gu & Berant, NeurIPS
2022). The kernels of the public code are ``2 Re sum_i`` over one pole of each conjugate pair in S4D and ``Re sum_i`` in DSS, and begin at
lag 0: the sample that comes in is seen at once.
"""

from __future__ import annotations

from typing import Any

from ssmid._array import Array, as_complex, double, harmonize, namespace
from ssmid.analysis.substitution import phi1
from ssmid.linalg import principal_log
from ssmid.parametrizations.modes import bypass, complex_numbers, copies, kernel_modes, positive, widest
from ssmid.systems import Modal

_DISCRETIZATIONS = ("zoh", "bilinear", "dss")
_EPSILON = 1e-7
"""What the public code adds to squares that it divides by."""


def s4d(
    C: Array,
    step: Array,
    A_real: Array,
    A_imag: Array = None,
    B: Array = None,
    D: Array = None,
    *,
    discretization: str = "zoh",
    transform: str = "exp",
    imaginary_transform: str = "none",
    step_transform: str = "exp",
    imaginary_sign: int = -1,
    bandlimit: float | None = None,
    length: int | None = None,
) -> Modal:
    """The bank of an S4D layer; channels are ``(H,)``, or ``(heads, H)`` where ``C`` has that axis.

    C : ``(heads, H, N, 2)`` or ``(H, N, 2)``; without ``A_imag`` real, ``(heads, H, N)`` (an exponential moving average)
    step : ``(H,)``, ``(H, 1)`` or ``(H, N)``, a logarithm unless ``step_transform`` says otherwise (:func:`positive`)
    A_real, A_imag : ``(S, N)``, S dividing H: ``A = -transform(A_real) + imaginary_sign i A_imag``; the sign is -1 in version 4 of the
        state-spaces code and +1 in versions 2 and 3 and in the stand-alone file
    B : ``(1, S, N, 2)`` or ``(S, N, 2)``, ones where left out   D : ``(H,)`` or ``(heads, H)``, the bypass; for a layer that also runs
        backwards there are twice as many heads in C as in D, and the second half has none
    discretization : "zoh", "bilinear", or "dss", whose kernel is not doubled and depends on its ``length``; none of it is stored in a
        checkpoint. The public default is "zoh" in version 4 and in the stand-alone file, "bilinear" before.
    bandlimit : modes faster than this half, in cycles a sample, are left out, as by that option of the layer

    Differentiable. Raises ValueError for shapes that do not fit.

    >>> import numpy as np
    >>> from ssmid import impulse_response
    >>> bank = s4d(np.array([[[1.0, 0.0]]]), np.log([0.1]), np.log([[0.5]]), np.array([[0.0]]))
    >>> impulse_response(bank, 3).taps.round(4)
    array([[0.1951, 0.1856, 0.1765]])
    """
    C, step, A_real, A_imag, B, D = harmonize(C=C, step=step, A_real=A_real, A_imag=A_imag, B=B, D=D)
    bits = widest(C, step, A_real)
    A, dt, weights = _continuous(
        C, step, A_real, A_imag, B, transform=transform, imaginary_transform=imaginary_transform, step_transform=step_transform,
        imaginary_sign=imaginary_sign, bandlimit=bandlimit,
    )  # fmt: skip
    if discretization == "dss":
        poles, weights = _softmax(as_complex(A), as_complex(dt * A), as_complex(weights), length)
    else:
        poles, weights = sampled(A, dt, weights, discretization)
        weights = 2 * weights
    return kernel_modes(poles, weights, bypass(D, weights.shape[:-1]), bits=bits)


def s4d_exponentials(
    C: Array, step: Array, A_real: Array, A_imag: Array = None, B: Array = None, *, discretization: str = "zoh", **options: Any
) -> tuple[Array, Array]:
    """``(exponents, weights)`` of the same kernel, ``h[t] = Re sum_i weights_i exp(exponents_i t)``, t >= 0, without the bypass.

    Complex, double precision, ``(H, N)`` and ``(*heads, H, N)``, one of each conjugate pair: what a kernel of many taps is summed from.
    Arguments as of :func:`s4d`, but no "dss". Exponents keep their accuracy however slow the mode. Differentiable.

    >>> import numpy as np
    >>> exponents, weights = s4d_exponentials(np.array([[[1.0, 0.0]]]), np.log([0.1]), np.log([[0.5]]), np.array([[0.0]]))
    >>> (weights * np.exp(exponents)).real.round(4)
    array([[0.1856]])
    """
    A, dt, weights = _continuous(C, step, A_real, A_imag, B, **options)
    if discretization == "dss":
        raise ValueError("discretization: expected 'zoh' or 'bilinear', got 'dss'")
    _, weights = sampled(A, dt, weights, discretization)
    x = as_complex(dt * A)
    if discretization == "bilinear":
        x = principal_log((1 + x / 2) / (1 - x / 2))
    return x, as_complex(2 * weights)


def _continuous(
    C: Array,
    step: Array,
    A_real: Array,
    A_imag: Array = None,
    B: Array = None,
    *,
    transform: str = "exp",
    imaginary_transform: str = "none",
    step_transform: str = "exp",
    imaginary_sign: int = -1,
    bandlimit: float | None = None,
) -> tuple[Array, Array, Array]:
    """``A (H, N)``, ``dt (H, 1 or N)`` and the products of outputs and inputs ``(*heads, H, N)``, before sampling."""
    C, step, A_real, A_imag, B = harmonize(C=C, step=step, A_real=A_real, A_imag=A_imag, B=B)
    real = A_imag is None
    C = double(C) if real else complex_numbers(C, "C")
    channels = C.shape[-2]
    A = -positive(A_real, transform)
    if not real:
        A = as_complex(A) + imaginary_sign * 1j * as_complex(positive(A_imag, imaginary_transform))
    weights = C
    if B is not None:
        B = double(B) if real else complex_numbers(B, "B")
        weights = C * copies(B[0, ...] if B.ndim == 3 else B, channels, -2)
    dt = positive(step, step_transform)
    dt = dt[:, None] if dt.ndim == 1 else dt
    A = copies(A, channels, -2)
    if bandlimit is not None and not real:
        xp = namespace(A)
        slow = dt * xp.abs(xp.imag(A)) < bandlimit * xp.pi
        weights = xp.where(slow, weights, xp.zeros_like(weights))
    return A, dt if real else as_complex(dt), weights


def dss(
    W: Array,
    log_dt: Array,
    Lambda: Array,
    D: Array = None,
    *,
    version: str = "exp",
    length: int | None = None,
    max_real: float = 1e-4,
) -> Modal:
    """The bank of a DSS layer: ``h[t] = Re sum_i w_i exp(lambda_i dt t)``, t >= 0.

    W : ``(heads, H, N, 2)`` or ``(H, N, 2)``   log_dt : ``(H,)``, or ``(H, 2)`` with steps of their own for real and imaginary part
    Lambda : ``(N, 2)`` or complex ``(N,)``, as it is: of the "exp" version ``-exp(Lambda_log_neg_re) + i Lambda_im``
    D : ``(H,)`` or ``(heads, H)``, the bypass
    version : "exp" weights by the hold, ``W (exp(lambda dt) - 1) / lambda``; "softmax" by ``W`` over lambda and the sum of the
        exponentials over ``length`` samples (real parts may be positive, and a system is then unstable); "clip" as "exp" with real
        parts of at most ``max_real``; "exp-no-scale" and "clip-no-scale" by ``W`` alone

    Poles come with their conjugates: 2 N modes. Differentiable. Raises ValueError for an unknown version, or "softmax" without a length.

    >>> import numpy as np
    >>> dss(np.array([[[1.0, 0.0]]]), np.log([0.1]), np.array([[-0.5, 2.0]])).order
    2
    """
    W, log_dt, Lambda, D = harmonize(W=W, log_dt=log_dt, Lambda=Lambda, D=D)
    xp = namespace(W)
    bits = widest(W, log_dt, Lambda)
    weights, poles = complex_numbers(W, "W"), complex_numbers(Lambda, "Lambda")
    if version not in ("exp", "softmax", "clip", "exp-no-scale", "clip-no-scale"):
        raise ValueError(f"version: expected exp, softmax, clip, exp-no-scale or clip-no-scale, got {version!r}")
    if version.startswith("clip"):
        poles = as_complex(xp.clip(xp.real(poles), max=max_real)) + 1j * as_complex(xp.imag(poles))
    steps = xp.exp(double(log_dt))
    steps = xp.stack([steps, steps], axis=-1) if steps.ndim == 1 else steps
    moved = as_complex(steps[:, :1] * xp.real(poles)) + 1j * as_complex(steps[:, 1:] * xp.imag(poles))
    if version == "softmax":
        found, weights = _softmax(poles, moved, weights, length)
    else:
        found = xp.exp(moved)
        if "no-scale" not in version:
            square = xp.abs(poles) ** 2
            inverse = xp.conj(poles) / as_complex(xp.where(square > _EPSILON, square, _EPSILON * xp.ones_like(square)))
            weights = weights * (moved * phi1(moved)) * inverse
    return kernel_modes(found, weights, bypass(D, weights.shape[:-1]), bits=bits)


def sampled(A: Array, dt: Array, weights: Array, discretization: str) -> tuple[Array, Array]:
    """Poles and weights of the kernel from lag 0 on: ``weights`` are the products of outputs and inputs of the modes of ``A``."""
    if discretization not in _DISCRETIZATIONS:
        raise ValueError(f"discretization: expected 'zoh', 'bilinear' or 'dss', got {discretization!r}")
    xp = namespace(A)
    x = A * dt
    if discretization == "zoh":
        return xp.exp(x), weights * (dt * phi1(x))
    w = 1 / (1 - x / 2)
    return w * (1 + x / 2), weights * (dt * w)


def _softmax(A: Array, x: Array, weights: Array, length: int | None) -> tuple[Array, Array]:
    """Weights divided by A and by the sum of the powers over ``length`` samples; rising ones are counted from the last sample."""
    if length is None or length < 1:
        raise ValueError(f"length: expected the number of samples over which the softmax was taken, got {length}")
    xp = namespace(A, x)
    rising = xp.real(A) > 0
    falling = xp.where(rising, -x, x)
    size = as_complex(xp.where(rising, xp.real(A) * 0 + (length - 1), xp.real(A) * 0))
    denominator = (xp.exp(length * falling) - 1) * A
    inverse = xp.conj(denominator) / as_complex(xp.abs(denominator) ** 2 + _EPSILON)
    return xp.exp(x), weights * (xp.exp(falling) - 1) * inverse * xp.exp(-size * x)
