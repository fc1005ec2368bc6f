"""Complex least squares in real numbers: equations by real and imaginary part, unknowns of conjugate neighbours as two real ones.

Of an upper pole with the column f the real unknowns stand for ``f + f*``, of its lower neighbour for ``i (f - f*)``; their solutions
are the real and the imaginary part of the coefficient of f (Gustavsen & Semlyen, IEEE Trans. Power Delivery 14, 1999).
"""

from __future__ import annotations

from ssmid._array import Array, as_complex, namespace
from ssmid.analysis.polynomial import Host


def real_rows(columns: Array) -> Array:
    """``(..., 2 k, n)`` real equations of ``(..., k, n)`` complex ones whose unknowns are real."""
    xp = namespace(columns)
    return xp.concat([xp.real(columns), xp.imag(columns)], axis=-2)


def real_columns(columns: Array, poles: Array) -> Array:
    """Columns with real coefficients from complex ones ``(..., n)``, of which those of conjugate neighbours are conjugate functions.

    poles : broadcast to the columns, conjugates as neighbours, the upper one first
    """
    xp = namespace(columns)
    imag = xp.imag(poles)
    upper, lower = columns + xp.roll(columns, -1, axis=-1), 1j * (xp.roll(columns, 1, axis=-1) - columns)
    return xp.where(imag > 0, upper, xp.where(imag < 0, lower, columns))


def complex_coefficients(x: Array, poles: Array) -> Array:
    """The coefficients ``(..., n)`` of the complex columns from the real ones ``x`` of :func:`real_columns`."""
    xp, imag = namespace(x), namespace(poles).imag(poles)
    after, before = xp.roll(x, -1, axis=-1), xp.roll(x, 1, axis=-1)
    second = xp.where(imag > 0, after, xp.where(imag < 0, -x, xp.zeros_like(x)))
    return as_complex(xp.where(imag < 0, before, x)) + 1j * as_complex(second)


def neighbours(slots: Host) -> Host:
    """``(b, n)`` poles with those of a pair side by side, the upper one first, from the slots of pole_relocation.py."""
    xp, half = namespace(slots), slots.shape[-1] // 2
    pairs = xp.stack([slots[:, :half], slots[:, half : 2 * half]], axis=-1)
    return xp.concat([xp.reshape(pairs, (slots.shape[0], 2 * half)), slots[:, 2 * half :]], axis=-1)
