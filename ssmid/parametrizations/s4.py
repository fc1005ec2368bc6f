"""S4 layers: diagonal plus low-rank state spaces, sampled by the bilinear map (Gu, Goel & Ré, ICLR 2022).

The continuous state matrix is ``diag(A) - P P*``, over one of each pair of conjugate states; the output is twice the real part of theirs.
What is trained is not C but ``C~ = C (I - Ad^L)`` with the sampled matrix Ad, because the kernel is evaluated on L points of the unit
circle: the C that runs as a recurrence is ``C~ (I - Ad^L)^-1``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any

from ssmid._array import Array, as_complex, astype_width, device, harmonize, namespace, width
from ssmid.kernels.cauchy import cauchy_sums
from ssmid.linalg import solve, transpose
from ssmid.parametrizations.modes import bypass, complex_numbers, copies, positive, widest
from ssmid.systems import StateSpace


def s4(
    C: Array,
    B: Array,
    P: Array,
    step: Array,
    A_real: Array,
    A_imag: Array,
    D: Array = None,
    *,
    trained_length: int = 0,
    transform: str = "exp",
    imaginary_transform: str = "none",
    step_transform: str = "exp",
    imaginary_sign: int = -1,
) -> StateSpace:
    """The real state spaces ``(heads, H)`` of an S4 layer, each of one input, one output and 2 N states.

    C : ``(heads, H, N, 2)``   B : ``(1, S, N, 2)`` or ``(S, N, 2)``   P : ``(rank, S, N, 2)``
    step : ``(H,)``, ``(H, 1)`` or ``(H, N)``, a logarithm unless ``step_transform`` says otherwise
    A_real, A_imag : ``(S, N)``, S dividing H; ``imaginary_sign`` is -1 in version 4 of the state-spaces code, +1 in versions 2 and 3
    D : ``(H,)`` or ``(heads, H)``, the bypass   trained_length : L as the checkpoint stores it (``l_kernel``, ``L``); 0 where C is C itself

    The kernel from lag 0 on is ``C Ad^t Bd``: hence ``C Ad`` and the feedthrough ``C Bd + D`` here. Differentiable. Raises ValueError
    for shapes that do not fit.

    >>> import numpy as np
    >>> pairs = np.array([[[[1.0, 0.5]]]])
    >>> s4(pairs, pairs[0], 0.1 * pairs, np.log([0.1]), np.log([[0.5]]), np.array([[2.0]]))
    StateSpace(order=2, outputs=1, inputs=1, batch=(1, 1), dt=1, float64)
    """
    C, B, P, step, A_real, A_imag, D = harmonize(C=C, B=B, P=P, step=step, A_real=A_real, A_imag=A_imag, D=D)
    bits = widest(C, B, P, step, A_real)
    C, B, P, A, dt = _continuous(C, B, P, step, A_real, A_imag, transform, imaginary_transform, step_transform, imaginary_sign)
    A, B = _bilinear(*_real_system(A, P, dt, B))
    xp = namespace(A)
    outputs = xp.concat([2 * xp.real(C), -2 * xp.imag(C)], axis=-1)[..., None, :]
    if trained_length:
        outputs = recurrent_outputs(outputs, A, trained_length)
    feedthrough = outputs @ B
    if D is not None:
        feedthrough = feedthrough + bypass(D, tuple(feedthrough.shape[:-2]))[..., None, None]
    return StateSpace(*(astype_width(M, bits) for M in (A, B, outputs @ A, feedthrough)))


def trained_outputs(C: Array, B: Array, P: Array, step: Array, A_real: Array, A_imag: Array, length: int, **options: Any) -> Array:
    """``C~ = C (I - Ad^length)`` ``(heads, H, N)`` complex of the ``C`` that runs as a recurrence, by which training begins.

    Arguments as of :func:`s4`, which undoes it. Differentiable.
    """
    C, B, P, step, A_real, A_imag = harmonize(C=C, B=B, P=P, step=step, A_real=A_real, A_imag=A_imag)
    C, B, P, A, dt = _continuous(C, B, P, step, A_real, A_imag, **options)
    xp, n = namespace(C), C.shape[-1]
    Ad, _ = _bilinear(*_real_system(A, P, dt, B))
    row = xp.concat([xp.real(C), -xp.imag(C)], axis=-1)
    row = row - (row[..., None, :] @ matrix_power(Ad, length))[..., 0, :]
    return as_complex(row[..., :n]) - 1j * as_complex(row[..., n:])


def s4_spectrum(
    C: Array,
    B: Array,
    P: Array,
    step: Array,
    A_real: Array,
    A_imag: Array,
    length: int,
    *,
    sums: Callable[[Array, Array, Array], Array] = cauchy_sums,
    **options: Any,
) -> Array:
    """``C~ (I - Ad / z)^-1 Bd`` at the ``length`` points of the unit circle from 1 to -1: ``(*heads, H, length // 2 + 1)`` complex.

    The real inverse transform of ``length`` samples is the kernel of the trained ``C~``, without the bypass (Gu, Goel & Re 2022, section
    3.3 and appendix C.3): by the bilinear map ``z_c = 2 i tan(omega / 2)`` the resolvent is that of the continuous matrix, whose diagonal
    part makes sums of partial fractions and whose low-rank part goes by the Woodbury identity. Where the authors divide by
    ``1 + exp(-i omega)``, which is 0 at the last point of an even length, here stands ``1 + i tan(omega / 2)``, in double precision.

    C, B, P, step, A_real, A_imag, options : as of :func:`s4`   sums : what :func:`ssmid.kernels.cauchy.cauchy_sums` computes; the
    precision of its result is that of the spectrum. Differentiable where ``sums`` is.

    >>> import numpy as np
    >>> pairs = np.array([[[[1.0, 0.5]]]])
    >>> s4_spectrum(pairs, pairs[0], 0.1 * pairs, np.log([0.1]), np.log([[0.5]]), np.array([[2.0]]), 4).shape
    (1, 1, 3)
    """
    C, B, P, step, A_real, A_imag = harmonize(C=C, B=B, P=P, step=step, A_real=A_real, A_imag=A_imag)
    C, B, P, A, dt = _continuous(C, B, P, step, A_real, A_imag, **options)
    xp, rank = namespace(C), P.shape[0]
    heads = C[None, ...] if C.ndim == 2 else C
    outputs = xp.concat([heads, xp.conj(P)], axis=0)
    inputs = dt * xp.concat([B[None, ...], P], axis=0)
    # (outputs, inputs, H, N) -> (H, outputs x inputs, N)
    products = xp.moveaxis(outputs[:, None, ...] * inputs[None, ...], 2, 0)
    channels, rows, columns, n = products.shape
    half = xp.arange(length // 2 + 1, dtype=xp.float64, device=device(C)) * (pi / length)
    points = 2 * xp.tan(half)
    found = sums(xp.reshape(products, (channels, rows * columns, n)), dt * A, points)
    found = xp.reshape(found, (channels, rows, columns, points.shape[0]))
    spectrum = _woodbury(found, heads.shape[0], rank) * astype_width(1 + 0.5j * as_complex(points), width(found))
    spectrum = xp.moveaxis(spectrum, 0, 1)
    return spectrum[0, ...] if C.ndim == 2 else spectrum


def _woodbury(sums: Array, heads: int, rank: int) -> Array:
    """``(H, heads, points)`` from the sums of every output with every input ``(H, heads + rank, 1 + rank, points)``."""
    direct, seen = sums[:, :heads, 0, :], sums[:, :heads, 1:, :]
    driven, crossed = sums[:, heads:, 0, :], sums[:, heads:, 1:, :]
    if rank == 1:
        return direct - seen[:, :, 0, :] * (driven / (1 + crossed[:, :, 0, :]))
    xp = namespace(sums)
    eye = xp.eye(rank, dtype=sums.dtype, device=device(sums))
    inner = solve(eye + xp.moveaxis(crossed, -1, 1), xp.moveaxis(driven, -1, 1)[..., None])[..., 0]
    return direct - xp.sum(seen * xp.moveaxis(inner, 1, -1)[:, None, ...], axis=2)


def recurrent_outputs(outputs: Array, A: Array, length: int) -> Array:
    """``C`` with ``C (I - A^length) = outputs``: ``(*batch, p, n)`` from ``(*batch, p, n)`` and ``(*batch, n, n)``. Differentiable.

    A kernel whose spectrum on ``length`` points is ``outputs (z I - A)^-1 B`` is the response of ``C`` to ``length`` samples.
    """
    xp = namespace(A)
    eye = xp.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    left = xp.broadcast_to(transpose(eye - matrix_power(A, length)), (*outputs.shape[:-2], *A.shape[-2:]))
    return transpose(solve(left, transpose(outputs)))


def matrix_power(A: Array, exponent: int) -> Array:
    """``A^exponent`` of square matrices, exponent >= 0, by squaring."""
    xp = namespace(A)
    power = xp.zeros_like(A) + xp.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    while exponent:
        if exponent & 1:
            power = power @ A
        exponent >>= 1
        if exponent:
            A = A @ A
    return power


def _continuous(
    C: Array,
    B: Array,
    P: Array,
    step: Array,
    A_real: Array,
    A_imag: Array,
    transform: str = "exp",
    imaginary_transform: str = "none",
    step_transform: str = "exp",
    imaginary_sign: int = -1,
) -> tuple[Array, Array, Array, Array, Array]:
    """``C (*heads, H, N)``, ``B (H, N)``, ``P (rank, H, N)``, ``A (H, N)`` and ``dt (H, 1 or N)``, complex, double, one set a channel."""
    C, B, P = (complex_numbers(x, name) for x, name in ((C, "C"), (B, "B"), (P, "P")))
    channels = C.shape[-2]
    A = -as_complex(positive(A_real, transform)) + imaginary_sign * 1j * as_complex(positive(A_imag, imaginary_transform))
    dt = positive(step, step_transform)
    dt = as_complex(dt[:, None] if dt.ndim == 1 else dt)
    A, P = copies(A, channels, -2), copies(P, channels, -2)
    return C, copies(B[0, ...] if B.ndim == 3 else B, channels, -2), P, A, dt


def _real_system(A: Array, P: Array, dt: Array, B: Array) -> tuple[Array, Array]:
    """The continuous system times the step in real and imaginary parts of the states, for which the conjugates stand implicitly.

    Of states v and their conjugates the matrix gives ``M v + N conj(v)``, ``M = diag(A) - P P*``, ``N = -P P^T``.
    """
    xp = namespace(A)
    factors = xp.moveaxis(P, 0, -1)
    low = factors @ transpose(xp.conj(factors))
    crossed = factors @ transpose(factors)
    eye = as_complex(xp.eye(A.shape[-1], dtype=xp.float64, device=A.device))
    M, N = dt[..., None] * (A[..., :, None] * eye - low), -dt[..., None] * crossed
    top = xp.concat([xp.real(M + N), xp.imag(N - M)], axis=-1)
    below = xp.concat([xp.imag(M + N), xp.real(M - N)], axis=-1)
    B = dt * B
    return xp.concat([top, below], axis=-2), xp.concat([xp.real(B), xp.imag(B)], axis=-1)[..., None]


def _bilinear(X: Array, inputs: Array) -> tuple[Array, Array]:
    """``(I - X/2)^-1 (I + X/2)`` and ``(I - X/2)^-1 inputs``."""
    xp = namespace(X)
    n = X.shape[-1]
    eye = xp.eye(n, dtype=X.dtype, device=X.device)
    both = solve(eye - X / 2, xp.concat([eye + X / 2, inputs], axis=-1))
    return both[..., :n], both[..., n:]
