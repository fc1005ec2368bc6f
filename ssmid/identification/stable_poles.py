"""Which poles are unstable, and what stands in their place: the mirror image at the boundary of stability, strictly inside."""

from __future__ import annotations

from ssmid._array import Array, as_complex, namespace
from ssmid.identification.partial_fractions import reflected

ROUNDING = 1e-14
"""How far inside of the boundary a pole stays, relative to its modulus: what rounding on its way through matrices may take."""


def are_unstable(poles: Array, dt: float | bool) -> Array:
    """Boolean, of each pole; those on the boundary are unstable, NaN is not."""
    xp = namespace(poles)
    return xp.abs(poles) >= 1 if dt is True or dt != 0 else xp.real(poles) >= 0


def held_inside(poles: Array, dt: float | bool, margin: float = ROUNDING) -> Array:
    """Poles, in units of the largest point, with the unstable ones mirrored and those within ``margin`` of the boundary moved inside."""
    xp, poles = namespace(poles), reflected(poles, dt)
    size = xp.abs(poles)
    if dt is True or dt != 0:
        return xp.where(size > 1 - margin, poles * as_complex((1 - margin) / xp.where(size > 1 - margin, size, xp.ones_like(size))), poles)
    least = margin * xp.where(size > 0, size, xp.ones_like(size))
    return xp.where(xp.real(poles) > -least, 1j * as_complex(xp.imag(poles)) - as_complex(least), poles)
