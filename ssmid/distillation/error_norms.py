"""What a filter and its small recurrence differ by, and the energy and the moduli of that: many at once, tails in closed form.

The difference is made tap by tap, so that its norms are good to the rounding of the taps however small it is; energies are never
subtracted. A model whose modes are far larger than their sum loses digits in it: where that may be felt it is summed with twice as many
(double_double.py), and what may still be lost stands beside the norms. After the last tap it is the model alone, ``Re sum_k later_k p_k^t``
for ever. In the orthonormal real functions of Kautz of the poles (IRE Trans. Circuit Theory 1, 1954; gramians.py) that tail is a vector of
as many entries as there are poles, whose length is its energy, also where residues of a cluster of poles cancel.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from ssmid._array import Array, as_complex, finite_elements, from_numpy, namespace, quiet, replaced, to_numpy
from ssmid.analysis.gramians import cauchy_root
from ssmid.distillation.double_double import UNIT, without_modes
from ssmid.linalg import vandermonde_product

ACCURACY = 1e-3
"""To what the sum of moduli, the H-infinity norm and the Hankel norm may exceed the truth, relative."""
_LONGEST, _LONG = 64, 2**17
"""A tail is written out over 64 times the filter, or 131,072 taps if that is more: time enough for poles of modulus 0.9999."""
_UNIT = 2.5 * 2.0**-53
"""What a product of complex numbers loses of itself at most, in double precision, and a little more."""
_FELT, _NOTHING = 1e-6, 1e-12
"""What rounding may make of an error, or of a filter, without a second look."""
_BLOCK = 2**22
"""Taps that are written out at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    """Filters minus their models, divided by ``scale``, a power of two next to the largest entry.

    taps : ``(n, 2 N)``, of which the last N are the model's alone   length : N
    poles, later : ``(n, d)`` of what follows the first N taps, ``Re sum_k later_k poles_k^t``; d at least 1
    scale : ``(n,)``   size : ``(n,)`` zero, infinite or NaN: what to add to a norm of it, where the model is unstable or not finite
    rounding : ``(n, 2)`` what the sum of the modes may have lost, in l2 and in l1 norm, in the unit of the taps
    """

    taps: Array
    length: int
    poles: Array
    later: Array
    scale: Array
    size: Array
    rounding: Array

    @classmethod
    @quiet
    def between(cls, strict: Array, poles: Array, residues: Array, beyond: str = "zero") -> Difference:
        """Of ``strict`` ``(n, N)`` and ``Re sum_k residues_k poles_k^t``, of poles ``(n, d)`` closed under conjugation, pairs side by side.

        beyond : "free" takes the model as if it ended with the last tap; its poles may then be anywhere
        """
        xp, length = namespace(strict), strict.shape[-1]
        if poles.shape[-1] == 0:
            poles = residues = as_complex(xp.zeros_like(strict[:, :1]))
        rings = beyond == "zero"
        finite = finite_elements(xp.abs(poles) + xp.abs(residues), 1)
        poles, residues = (xp.where(finite[:, None], x, xp.zeros_like(x)) for x in (poles, residues))
        stable = xp.all(xp.abs(poles) < 1, axis=-1) | (not rings)
        poles, residues = (xp.where(stable[:, None], x, xp.zeros_like(x)) for x in (poles, residues))
        model = vandermonde_product(poles, residues, length * (2 if rings else 1), real=True)
        taps = xp.concat([strict - model[:, :length], -model[:, length:] if rings else xp.zeros_like(model)], axis=-1)
        stable = stable & finite_elements(taps, 1)
        taps = xp.where(stable[:, None], taps, xp.zeros_like(taps))
        taps, lost = _summed_again(taps, strict, poles, residues, float("inf") if rings else float(length))
        largest = xp.max(xp.abs(taps), axis=-1)
        scale = xp.pow(xp.full_like(largest, 2.0), xp.floor(xp.log2(xp.where(largest > 0, largest, xp.ones_like(largest)))))
        size = xp.where(stable, xp.zeros_like(scale), xp.full_like(scale, float("inf")))
        size = xp.where(finite, size, xp.full_like(scale, float("nan")))
        later = -residues * integer_power(poles, length) / as_complex(scale)[:, None] if rings else xp.zeros_like(poles)
        return cls(taps / scale[:, None], length, poles if rings else xp.zeros_like(poles), later, scale, size, lost)

    def take(self, places: np.ndarray) -> Difference:
        """Some of them."""
        xp, index = namespace(self.taps), from_numpy(places, self.taps)
        taps, *rest = (xp.take(getattr(self, f.name), index, axis=0) for f in dataclasses.fields(self) if f.name != "length")
        return Difference(taps, self.length, *rest)

    def measured(self, values: Array, norm: str) -> Array:
        """Norms ``(n,)`` of what is divided by ``scale`` in the unit of the taps, with what they may be too small by."""
        return values * self.scale + self.size + self.rounding[:, 0 if norm == "l2" else 1]

    @cached_property
    def root(self) -> Array:
        """``(n, d, d)``: row k holds the coordinates of ``poles_k^t``, t >= 0, in d orthonormal sequences of real numbers."""
        return cauchy_root(self.poles, discrete=True, real=True)

    @cached_property
    def tail(self) -> Array:
        """``(n, d)`` real coordinates of what follows the first N taps: the squares are its energy."""
        return namespace(self.taps).real((self.later[:, None, :] @ self.root)[:, 0, :])

    @cached_property
    def energy(self) -> Array:
        """``(n,)`` of all of it, tail and all."""
        xp = namespace(self.taps)
        return xp.sum(self.taps[:, : self.length] ** 2, axis=-1) + xp.sum(self.tail**2, axis=-1)


def _summed_again(taps: Array, strict: Array, poles: Array, residues: Array, ends: float) -> tuple[Array, Array]:
    """The difference, with twice as many digits where what it may have lost is felt, and ``(n, 2)`` what it may have lost then."""
    xp, length = namespace(taps), strict.shape[-1]
    lost, own, error = _rounding(poles, residues, ends), _both_norms(strict), _both_norms(taps)
    rows = np.flatnonzero(to_numpy(xp.any((lost > _FELT * error) & (lost > _NOTHING * own), axis=-1)))
    if not rows.size:
        return taps, lost
    given, own_poles, own_residues, plainly = (xp.take(x, from_numpy(rows, x), axis=0) for x in (strict, poles, residues, lost))
    silence = xp.zeros((rows.size, taps.shape[-1] - length), dtype=taps.dtype, device=taps.device)
    left = UNIT / _UNIT * plainly
    if ends < float("inf"):
        found = xp.concat([without_modes(given, own_poles, own_residues), silence], axis=-1)
    else:
        found = without_modes(xp.concat([given, silence], axis=-1), own_poles, own_residues)
        left = left + _rounding(own_poles, own_residues * integer_power(own_poles, length), ends, length)
    left = left + 8 * _UNIT * _both_norms(found)
    good = np.flatnonzero(to_numpy(finite_elements(found, 1)))
    found, left = (xp.take(x, from_numpy(good, x), axis=0) for x in (found, left))
    return replaced(taps, rows[good], found), replaced(lost, rows[good], left)


def _both_norms(taps: Array) -> Array:
    xp = namespace(taps)
    return xp.stack([xp.sum(taps**2, axis=-1) ** 0.5, xp.sum(xp.abs(taps), axis=-1)], axis=-1)


def _rounding(poles: Array, residues: Array, ends: float, since: int = 0) -> Array:
    """``(n, 2)`` bounds of the l2 and l1 norm of the rounding of the modes, which comes in units of ``|residues_k| |poles_k|^t``.

    A power ``p^t`` loses ``5^(1/2)`` units for each of its t products, however they are grouped (Brent, Percival & Zimmermann, Math. Comp.
    76, 2007), and so do the poles of a tail. A sum of d modes loses 2 d (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
    section 3.1). ``ends`` : after so many taps, infinite where the model rings for ever   ``since`` : products of which residues are made
    """
    xp, modulus = namespace(poles), namespace(poles).abs(poles)
    terms = 1 + since + xp.sum(xp.astype(residues != 0, modulus.dtype), axis=-1, keepdims=True)
    norms = []
    for power in (2, 1):
        size = modulus**power
        inside = size < 1
        lasting = 1 / (1 - xp.where(inside, size, xp.zeros_like(size)))
        times = 1.5 * modulus * lasting  # the norm of t |p|^t is at most so many times that of |p|^t
        if ends < float("inf"):
            # outside of the circle the last tap is the largest
            grown = ends * xp.abs(integer_power(as_complex(xp.where(inside, xp.ones_like(size), size)), int(ends)))
            lasting = xp.where(inside, xp.clip(lasting, max=ends), grown)
            times = xp.where(inside, xp.clip(times, max=ends), xp.full_like(times, ends))
        norms.append(_UNIT * xp.sum(xp.abs(residues) * lasting ** (1 / power) * (terms + times), axis=-1))
    return xp.stack(norms, axis=-1)


def energy_of_modes(poles: Array, residues: Array) -> Array:
    """``(n,)`` energy of ``Re sum_k residues_k poles_k^t``, t >= 0, of poles closed under conjugation, less than 1 in modulus."""
    xp = namespace(poles)
    return xp.sum(xp.real((residues[:, None, :] @ cauchy_root(poles, discrete=True, real=True))[:, 0, :]) ** 2, axis=-1)


def integer_power(base: Array, exponent: int) -> Array:
    """``base ** exponent`` by squaring: torch's power of a complex zero is NaN."""
    xp = namespace(base)
    result = xp.ones_like(base)
    while exponent:
        if exponent & 1:
            result = result * base
        base, exponent = base * base, exponent >> 1
    return result


def l1_norm(difference: Difference) -> Array:
    """``(n,)`` sums of moduli, from above: at most ``ACCURACY`` above the truth where the tail dies out within what is written out.

    After 2N taps the tail is bounded by ``sum_k |later_k| / (1 - |p_k|)``. Where that still counts more taps are written out. Poles
    nearer to the circle than about 1e-4 are left with a bound: the lesser of that and of :func:`_by_energy`, which is exact for one
    real pole and 1.6 times too large for one pair.
    """
    xp, d = namespace(difference.taps), difference
    total, steps = xp.sum(xp.abs(d.taps), axis=-1), d.length
    poles, later = d.poles, d.later * integer_power(d.poles, steps)
    rest = _by_moduli(poles, later)
    known, most = 2 * d.length, max(_LONGEST * d.length, _LONG)
    found, places = total + rest, np.arange(total.shape[0])
    while places.size:
        still = np.flatnonzero(to_numpy(rest > ACCURACY / 2 * total))
        places = places[still]
        poles, later, total, rest = (xp.take(x, from_numpy(still, x), axis=0) for x in (poles, later, total, rest))
        if not places.size or known >= most:
            break
        total = total + _moduli(poles, later, known)
        later, known = later * integer_power(poles, known), 2 * known
        rest = _by_moduli(poles, later)
        found = replaced(found, places, total + rest)
    if not places.size:
        return found
    least = _by_energy(poles, later)  # unknown where a pole is within rounding of the circle
    return replaced(found, places, total + xp.where(least < rest, least, rest))


def _moduli(poles: Array, residues: Array, length: int) -> Array:
    """``(n,)`` sums of the moduli of the first ``length`` taps."""
    xp, rows = namespace(poles), max(1, _BLOCK // length)
    parts = []
    for start in range(0, poles.shape[0], rows):
        block = slice(start, min(start + rows, poles.shape[0]))
        parts.append(xp.sum(xp.abs(vandermonde_product(poles[block, :], residues[block, :], length, real=True)), axis=-1))
    return xp.concat(parts)


def _by_moduli(poles: Array, residues: Array) -> Array:
    xp = namespace(poles)
    return xp.sum(xp.abs(residues) / (1 - xp.abs(poles)), axis=-1)


def _by_energy(poles: Array, residues: Array) -> Array:
    """A bound of ``sum_t |f_t|`` that knows of cancellation: ``(sum_t a^t)^(1/2) (sum_t f_t^2 a^-t)^(1/2)``, a the spectral radius."""
    xp = namespace(poles)
    radius = xp.max(xp.abs(poles), axis=-1, keepdims=True)
    grown = poles / as_complex(xp.where(radius > 0, radius, xp.ones_like(radius)) ** 0.5)
    return energy_of_modes(grown, residues) ** 0.5 / (1 - radius[:, 0]) ** 0.5


def rounded_up(needed: np.ndarray, most: int) -> np.ndarray:
    """The next of a few sizes, so that what is done to an element does not depend on the others."""
    allowed = np.array([0, *(4**k for k in range(1, most.bit_length()) if 4**k < most), most])
    return allowed[np.searchsorted(allowed, needed)]
