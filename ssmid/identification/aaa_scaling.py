"""Samples as one flat batch of channels with points and values of modulus up to one, and partial fractions over it back in their units."""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, as_complex, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.identification.arguments import checked_weights
from ssmid.identification.padding import states_in_use
from ssmid.identification.partial_fractions import fit_residues
from ssmid.identification.pole_refinement import Problem
from ssmid.identification.samples import Samples
from ssmid.reduction.result import Change
from ssmid.systems import Modal, StateSpace


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """problem : flat and scaled; elements that are not finite hold zeros   sound : ``(b,)`` host boolean, which are finite
    batch, channels : shapes   scale : of the points   size : ``(b, c)`` of the values   mimo : whether channels are one system's
    """

    problem: Problem
    sound: Host
    batch: tuple[int, ...]
    channels: tuple[int, ...]
    scale: float
    size: Array
    mimo: bool

    @staticmethod
    @quiet
    def of(given: Samples, weights: Any, mimo: bool, shared: int, real: bool) -> Task:
        """Channels are the outputs and inputs of one system, all in units of the largest value (``mimo``), or else what shares poles in
        the last ``shared`` batch axes, each in units of its own."""
        xp, k = namespace(given.values), given.count
        batch, channels = given.batch_of_channels(mimo, shared)
        b = prod(batch)
        values = xp.reshape(given.values, (b, prod(channels), k))
        points = _of_elements(given.points, batch, len(channels), k) / given.scale
        if weights is not None:
            weights = checked_weights(weights, batch, len(channels), given.values)
            weights = xp.reshape(xp.broadcast_to(weights, (*batch, k)), (b, k))
            weights = weights / xp.sqrt(xp.mean(weights**2, axis=-1, keepdims=True))
        sound = xp.all(xp.isfinite(values), axis=(-2, -1)) & xp.all(xp.isfinite(points), axis=-1)
        values = xp.where(sound[:, None, None], values, xp.zeros_like(values))
        points = xp.where(sound[:, None], points, 1j * as_complex(xp.arange(1, k + 1, dtype=xp.float64, device=values.device)) / k)
        size = xp.max(xp.maximum(xp.abs(xp.real(values)), xp.abs(xp.imag(values))), axis=-1)
        if mimo:
            size = xp.zeros_like(size) + xp.max(size, axis=-1, keepdims=True)
        size = xp.where(size > 0, size, xp.ones_like(size))
        values = values / as_complex(size)[..., None]
        if real:
            below = xp.imag(points) < 0
            points = xp.where(below, xp.conj(points), points)
            values = xp.where(below[:, None, :], xp.conj(values), values)
        return Task(Problem(points, values, weights, real, given.dt), to_numpy(sound), batch, channels, given.scale, size, mimo)

    @quiet
    def fitted(self, poles: list[Host], weights: list[Array | None]) -> tuple[Modal, Array]:
        """Residues by least squares over the poles of each element, flat and scaled, ``(b, c, d)``, and the condition ``(b,)``.

        Where elements have fewer poles than others, poles within stability with residues zero stand in.
        """
        b, c, _ = self.problem.values.shape
        counts = np.array([len(p) for p in poles], int)
        d = int(counts.max(initial=0))
        all_poles = np.full((b, 1, d), 0 if self.problem.dt is True or self.problem.dt != 0 else -1, complex)
        residues, D = np.zeros((b, c, d), complex), np.zeros((b, c), float if self.problem.real else complex)
        condition = np.ones(b)
        for n in np.unique(counts):
            rows = np.flatnonzero(counts == n)
            index = from_numpy(rows, self.problem.values)
            problem = self.problem if len(rows) == b else self.problem.take(index)
            P = from_numpy(np.stack([poles[i] for i in rows]).astype(complex), problem.values)
            own = problem.weights if weights[0] is None else namespace(P).stack([weights[i] for i in rows], axis=0)
            given = Samples(problem.points[:, None, :], problem.values, problem.dt)
            modal, found = fit_residues(given, P, weights=own, real=problem.real, shared=1)
            all_poles[rows, 0, :n], residues[rows, :, :n] = to_numpy(P), to_numpy(modal.residues)
            D[rows], condition[rows] = to_numpy(modal.feedthrough), to_numpy(found)
        for a in (all_poles, residues, D, condition):
            a[~self.sound] = np.nan
        like = self.problem.values
        arrays = (from_numpy(a, like) for a in (all_poles, residues, D))
        return Modal(*arrays, dt=self.problem.dt, real=self.problem.real), from_numpy(condition, like)

    def restored(self, modal: Modal) -> Modal:
        """A flat and scaled modal bank in the shape and the units of the samples."""
        xp = namespace(modal.poles)
        size, d = as_complex(self.size), modal.order
        full = (*self.batch, *self.channels)
        poles = xp.reshape(modal.poles * self.scale, (*self.batch, *(1,) * len(self.channels), d))
        residues = xp.reshape(modal.residues * size[..., None] * self.scale, (*full, d))
        D = xp.reshape(modal.feedthrough * (self.size if self.problem.real else size), full)
        return Modal(poles, residues, D, self.problem.dt, self.problem.real)

    def element(self, i: int, weights: Array | None = None) -> tuple[Host, Host, Host]:
        """Points ``(k,)``, values ``(c, k)`` and weights ``(c, k)`` of a flat element; ``weights`` ``(k,)`` in place of its own."""
        points, values = to_numpy(self.problem.points[i, :]), to_numpy(self.problem.values[i, :, :])
        if weights is None and self.problem.weights is not None:
            weights = self.problem.weights[i, :]
        return points, values, np.broadcast_to(1.0 if weights is None else to_numpy(weights), values.shape)

    def errors(self, error: Host) -> Array:
        """Errors ``(b, c)`` of channels, each relative to its largest value, in the shape of the results: of coupled ones together."""
        if self.mimo:
            xp = namespace(self.problem.values)
            largest = to_numpy(xp.max(xp.abs(self.problem.values), axis=-1))
            square = np.mean((error * np.where(largest > 0, largest, 1.0)) ** 2, axis=-1)
            most = largest.max(axis=-1, initial=0.0)
            error = np.sqrt(square) / np.where(most > 0, most, 1.0)
        return from_numpy(error.reshape(self.shape), self.problem.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch shape of the results."""
        return self.batch if self.mimo else (*self.batch, *self.channels)

    def spread(self, host: Host) -> Array:
        """``(b,)`` facts of elements, in the shape of the results: channels that share poles have them in common."""
        xp, ones = namespace(self.size), (1,) * (len(self.shape) - len(self.batch))
        return xp.broadcast_to(from_numpy(host.reshape((*self.batch, *ones)), self.size), self.shape)

    def order(self, system: StateSpace, counts: Host) -> int | Array:
        """The number of real states of each element, of ``counts`` poles ``(b,)``."""
        if self.mimo:
            return states_in_use(system)
        return int(counts[0]) if len(counts) and (counts == counts[0]).all() else self.spread(counts)

    def stated(self, change: Change) -> Change:
        """A change of a flat and scaled element in the units of the samples."""
        index = np.unravel_index(change.element[0], self.batch) if self.batch else ()
        return dataclasses.replace(change, poles=tuple(p * self.scale for p in change.poles), element=tuple(int(i) for i in index))


def _of_elements(array: Array, batch: tuple[int, ...], shared: int, k: int) -> Array:
    """``(b, k)`` of points that broadcast to ``(*batch, *channels, k)`` and are the same for all channels."""
    xp = namespace(array)
    if shared and array.ndim > 1:
        own = tuple(array.shape[max(0, array.ndim - 1 - shared) : -1])
        if any(n != 1 for n in own):
            raise ValueError(f"points: expected the same for all channels that share poles, got shape {tuple(array.shape)}")
        array = xp.reshape(array, (*array.shape[: max(0, array.ndim - 1 - shared)], k))
    return xp.reshape(xp.broadcast_to(array, (*batch, k)), (prod(batch), k))
