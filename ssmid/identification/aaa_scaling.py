"""Samples as one flat batch of channels with points and values of modulus up to one, and partial fractions over it back in their units."""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, as_array, as_complex, double, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.polynomial import Host
from ssmid.identification.partial_fractions import fit_residues
from ssmid.identification.pole_refinement import Problem
from ssmid.identification.samples import Samples
from ssmid.reduction.result import Change
from ssmid.systems import Modal


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """problem : flat and scaled; elements that are not finite hold zeros   sound : ``(b,)`` host boolean, which are finite
    batch, channels : shapes   scale : of the points   size : ``(b, c)`` of the values
    """

    problem: Problem
    sound: Host
    batch: tuple[int, ...]
    channels: tuple[int, ...]
    scale: float
    size: Array

    @staticmethod
    @quiet
    def of(given: Samples, weights: Any, shared: int, real: bool, *, each: bool) -> Task:
        """``shared`` batch axes of the values are channels, scaled each by its own largest value or (not ``each``) all by one."""
        xp, values = namespace(given.values), given.values
        if not 0 <= shared < values.ndim:
            raise ValueError(f"expected values (*batch, {'outputs, inputs' if not each else 'channels'}, k), got {tuple(values.shape)}")
        k, split = given.count, values.ndim - 1 - shared
        batch, channels = tuple(values.shape[:split]), tuple(values.shape[split:-1])
        b, c = prod(batch), prod(channels)
        values = xp.reshape(values, (b, c, k))
        points = _of_elements(given.points, "points", batch, shared, k) / given.scale
        if weights is not None:
            weights = double(as_array(weights, "weights", like=values))
            if weights.shape[-1:] != (k,) or not bool(xp.all(weights > 0)):
                raise ValueError(f"weights: expected {k} positive numbers, got shape {tuple(weights.shape)}")
            weights = _of_elements(weights, "weights", batch, shared, k)
            weights = weights / xp.sqrt(xp.mean(weights**2, axis=-1, keepdims=True))
        sound = xp.all(xp.isfinite(values), axis=(-2, -1)) & xp.all(xp.isfinite(points), axis=-1)
        values = xp.where(sound[:, None, None], values, xp.zeros_like(values))
        points = xp.where(sound[:, None], points, 1j * as_complex(xp.arange(1, k + 1, dtype=xp.float64, device=values.device)) / k)
        size = xp.max(xp.maximum(xp.abs(xp.real(values)), xp.abs(xp.imag(values))), axis=-1)
        if not each:
            size = xp.zeros_like(size) + xp.max(size, axis=-1, keepdims=True)
        size = xp.where(size > 0, size, xp.ones_like(size))
        values = values / as_complex(size)[..., None]
        if real:
            below = xp.imag(points) < 0
            points = xp.where(below, xp.conj(points), points)
            values = xp.where(below[:, None, :], xp.conj(values), values)
        return Task(Problem(points, values, weights, real, given.dt), to_numpy(sound), batch, channels, given.scale, size)

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

    def stated(self, change: Change) -> Change:
        """A change of a flat and scaled element in the units of the samples."""
        index = np.unravel_index(change.element[0], self.batch) if self.batch else ()
        return dataclasses.replace(change, poles=tuple(p * self.scale for p in change.poles), element=tuple(int(i) for i in index))


def _of_elements(array: Array, name: str, batch: tuple[int, ...], shared: int, k: int) -> Array:
    """``(b, k)`` of an array that broadcasts to ``(*batch, *channels, k)`` and is the same for all channels."""
    xp = namespace(array)
    if shared and array.ndim > 1:
        own = tuple(array.shape[max(0, array.ndim - 1 - shared) : -1])
        if any(n != 1 for n in own):
            raise ValueError(f"{name}: expected the same for all channels that share poles, got shape {tuple(array.shape)}")
        array = xp.reshape(array, (*array.shape[: max(0, array.ndim - 1 - shared)], k))
    return xp.reshape(xp.broadcast_to(array, (*batch, k)), (prod(batch), k))
