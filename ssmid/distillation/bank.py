"""Filters as the numerics of the distiller see them: flat, in double precision, of one scale, and what is special about each named."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, detach, double, finite_elements, from_numpy, namespace, to_numpy, width

ORDINARY, NOT_FINITE, ZERO, TAP_0_ONLY, CONSTANT, DELAYED, EXTREME, UNSTABLE = range(8)
KINDS = ("ordinary", "not finite", "zero", "tap 0 only", "constant", "delayed", "extreme scale", "unstable")
"""What is special about a filter: the first that applies. The three after "ordinary" need no recurrence; the last is of models only."""
USUAL = (2.0**-60, 2.0**60)


@dataclasses.dataclass(frozen=True, eq=False)
class Bank:
    """``n`` filters of one length.

    strict : ``(n, N)`` float64, the taps from 1 on, divided by ``scale``; zeros where a filter is not finite
    feedthrough : ``(n,)`` tap 0, as it was   scale : ``(n,)`` a power of two next to the largest tap after the first, 1 where that is 0
    kind : ``(n,)`` indices of :data:`KINDS`, on the host   delay : ``(n,)`` taps after tap 0 that are zero before the first that is not
    weights : ``(n, K)`` or ``(1, K)``, over the taps or over frequency, where there are any
    group : so many neighbours share their poles   constrained : whether poles are held to less than the unit disk
    bits : 32 or 64, the precision that poles and residues will be rounded to
    """

    strict: Array
    feedthrough: Array
    scale: Array
    kind: np.ndarray
    delay: np.ndarray
    weights: Array = None
    group: int = 1
    constrained: bool = False
    bits: int = 64

    @classmethod
    def of(cls, taps: Array, *, weights: Array = None, group: int = 1, constrained: bool = False, bits: int | None = None) -> Bank:
        """Of real ``taps`` ``(n, L)``, L at least 1; ``bits`` are theirs where none are given."""
        bits, taps = bits or width(taps), detach(double(taps))
        xp = namespace(taps)
        sound = finite_elements(taps, 1)
        clean = xp.where(sound[:, None], taps, xp.zeros_like(taps))
        strict = clean[:, 1:] if taps.shape[-1] > 1 else xp.zeros_like(clean)
        largest = xp.max(xp.abs(strict), axis=-1)
        scale = xp.pow(xp.full_like(largest, 2.0), xp.floor(xp.log2(xp.where(largest == 0, xp.ones_like(largest), largest))))
        strict = strict / scale[:, None]
        kind, delay = _kinds(clean, strict, largest, sound)
        first = xp.where(sound, taps[:, 0], xp.full_like(taps[:, 0], float("nan")))
        return cls(strict, first, scale, kind, delay, weights, group, constrained, bits)

    @property
    def count(self) -> int:
        return self.strict.shape[0]

    @property
    def length(self) -> int:
        """The number of taps after the first."""
        return self.strict.shape[1]

    @property
    def empty(self) -> np.ndarray:
        """``(n,)`` boolean: filters that are approximated by no state at all."""
        return np.isin(self.kind, (NOT_FINITE, ZERO, TAP_0_ONLY))

    def take(self, places: np.ndarray) -> Bank:
        """Some of the filters; of those that share poles whole groups."""
        index = from_numpy(places, self.strict)
        strict, first, scale = (namespace(self.strict).take(a, index, axis=0) for a in (self.strict, self.feedthrough, self.scale))
        weights = self.weights
        if weights is not None and weights.shape[0] > 1:
            weights = namespace(weights).take(weights, index, axis=0)
        return dataclasses.replace(
            self, strict=strict, feedthrough=first, scale=scale, kind=self.kind[places], delay=self.delay[places], weights=weights
        )


def _kinds(taps: Array, strict: Array, largest: Array, sound: Array) -> tuple[np.ndarray, np.ndarray]:
    xp = namespace(taps)
    delay = to_numpy(xp.argmax(xp.astype(strict != 0, xp.int64), axis=-1))
    constant = to_numpy(xp.all(taps == taps[:, :1], axis=-1))
    nothing, through, good, size = (to_numpy(x) for x in (largest == 0, taps[:, 0] == 0, sound, largest))
    choices = [~good, nothing & through, nothing, constant, delay > 0, (size < USUAL[0]) | (size > USUAL[1])]
    return np.select(choices, range(1, EXTREME + 1), ORDINARY), delay
