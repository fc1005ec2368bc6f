"""Models made passive by the smallest change of their residues: poles stay, and the feedthrough unless it is too large itself.

Singular values above one (eigenvalues below zero) are perturbed to first order at the frequencies where they stand, with the l2 norm
of the change of the response as the measure of size, weighted by the controllability Gramian (Grivet-Talocia, IEEE Trans. Circuits
Syst. I 51, 2004; Gustavsen, IEEE Trans. Power Delivery 23, 2008). That is a quadratic program with linear inequalities, solved as
one of least distance (Lawson & Hanson, Solving Least Squares Problems, 1974, ch. 23). It is repeated until the eigenvalue test
(:func:`ssmid.passivity`) finds no violation left.
"""

from __future__ import annotations

import dataclasses
import warnings
from math import prod

import numpy as np
import scipy.optimize

from ssmid._array import Array, astype_width, double, from_numpy, in_threads, namespace, to_numpy, width
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.lyapunov import schur_gramian_factors
from ssmid.analysis.norms import norm
from ssmid.analysis.polynomial import Host
from ssmid.identification.arguments import checked_count
from ssmid.identification.passivity import Matrices, Measure, Passivity, as_states, normalized, passivity, resonances, used_states
from ssmid.identification.result import Fit
from ssmid.identification.samples import RMS, Samples, samples
from ssmid.reduction.result import Result
from ssmid.systems import FrequencyResponse, StateSpace, System
from ssmid.systems.base import sample_time

_MARGIN = 1e-7
_TANGENTS = 4
_OVERSHOOT = 0.3
_LARGEST_MARGIN = 1e-2
_CLIP = 1e-4
_RIDGE = 1e-4
_GUARD = 0.02
_MOST_CONSTRAINTS = 400
_BAND_SAMPLES = 9
_ELSEWHERE = 1e-3
"""The part of the Gramian over all frequencies beside that over the points of the data."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PassiveFit(Fit):
    """A model made passive, and what that cost.

    before, after : the :class:`Passivity` of the given and of the new model   error_before : of the given one
    change : ``(*batch,)`` the l2 norm of the change of the strictly proper response, relative to that of the response
    feedthrough_change : ``(*batch,)`` the largest singular value of the change of the feedthrough
    iterations : ``(*batch,)`` quadratic programs solved
    """

    before: Passivity
    after: Passivity
    error_before: Array
    change: Array
    feedthrough_change: Array
    iterations: Array

    def _words_of_trust(self) -> str:
        passive, size = to_numpy(self.after.passive), to_numpy(self.change)
        some = "Not passive" if passive.ndim == 0 else f"{int((~passive).sum())} of {passive.size} not passive"
        words = "Passive" if passive.all() else some
        known = size[np.isfinite(size)]
        return f"{words}; residues changed by {known.max(initial=0.0):.2g} of the response, poles not at all."


def enforce_passivity(fit: System | Result, kind: str = "scattering", *, tol: float = 1e-9, iterations: int = 30) -> PassiveFit:
    """The passive model nearest to a fit or a system. Not differentiable.

    fit : a fit (of :func:`ssmid.vector_fitting`, ``mimo=True`` for several ports) or a system, stable
    kind : "scattering" or "immittance", tol : as of :func:`ssmid.passivity`   iterations : at most

    A fit to samples is changed where the samples do not mind: the change is measured over their points (and a thousandth over all
    frequencies); any other system by its controllability Gramian. A feedthrough that is not passive itself is clipped, and the
    residues take over what they can of it. A violation left after all ``iterations`` is taken from the whole response: by a factor (an
    immittance gets a resistance in series). Elements that are passive stay as they are. ``error`` and ``error_before`` are measured
    on the samples; without samples they are the change, and 0. ``converged`` says whether the result is passive, and a warning where
    one is not.

    Raises TypeError and ValueError as :func:`ssmid.passivity`, and ValueError for a single unstable system.

    >>> import ssmid
    >>> passive = enforce_passivity(ssmid.tf([0.12], [1, 0.1, 1], dt=0))
    >>> bool(passive.after.passive), round(float(passive.after.worst), 4)
    (True, 1.0)
    """
    states, iterations = as_states(fit), checked_count("iterations", iterations, zero=True)
    before = passivity(fit, kind, tol=tol)
    if not states.batch_shape and not np.isfinite(to_numpy(before.worst)):
        raise ValueError("expected a stable system, got an unstable one: residues cannot make it passive")
    batch, bits = states.batch_shape, width(states.A)
    given = _samples_of(fit)
    step = sample_time(states) if states.is_discrete else 0.0
    full = [to_numpy(double(M)) for M in states.broadcast_arrays().values()]
    flat = [M.reshape(prod(batch), *M.shape[len(batch) :]) for M in full]
    points = _points_of(given, batch, len(flat[0]))
    todo = ~to_numpy(before.passive).reshape(-1) & np.isfinite(to_numpy(before.worst).reshape(-1))

    def one(work: bool, at: Host | None, *matrices: Host) -> tuple[Host, Host, int]:
        return _Enforcement(matrices, kind, step, tol, at).run(iterations) if work else (matrices[2], matrices[3], 0)

    results = in_threads(one, todo, points, *flat)
    new = states
    if todo.any():
        C, D = (np.stack([r[i] for r in results]).reshape(*batch, *full[i + 2].shape[len(batch) :]) for i in (0, 1))
        new = dataclasses.replace(states, C=from_numpy(C, states.A), D=from_numpy(D, states.A))
    new = new.map(lambda a: astype_width(a, bits))
    after = passivity(new, kind, tol=tol)
    left = int(np.sum(~to_numpy(after.passive).reshape(-1) & todo))
    if left:
        some = "the model is" if not batch else f"{left} of {len(todo)} models are"
        warnings.warn(f"enforce_passivity: {some} not passive", stacklevel=2)
    return _stated(fit, states, new, given, before, after, np.array([r[2] for r in results], int).reshape(batch))


# ---------------------------------------------------------------- one system


class _Enforcement:
    """One system in units of its fastest pole, with the metric in which its output matrix moves."""

    def __init__(self, G: Matrices, kind: str, step: float, tol: float, points: Host | None) -> None:
        self.kind, self.discrete, self.original = kind, bool(step), G
        self.used = used_states(G)
        (self.A, self.B, self.C, self.D), self.unit, self.gain = normalized(G, self.used, bool(step))
        poles = np.linalg.eigvals(self.A)
        self.inner = resonances(poles, self.discrete)
        self.limit = tol / 2 + (1.0 if kind == "scattering" else 0.0)
        if points is None:
            slowest, fastest = np.abs(poles).min(initial=1.0) / 10, np.abs(poles).max(initial=1.0) * 3
            omega = np.linspace(0, np.pi, 200) if self.discrete else np.geomspace(slowest, fastest, 200)
            at = np.exp(1j * omega) if self.discrete else 1j * omega
        else:
            at = points if self.discrete else points / self.unit
        self.omega = np.abs(np.angle(at)) if self.discrete else np.abs(np.imag(at))
        self.states = self._states(at)
        everywhere = schur_gramian_factors(self.A, self.B, self.C, discrete=self.discrete)[0]
        P, Q = everywhere @ everywhere.T, np.einsum("knm,klm->nl", self.states, self.states.conj()).real
        # both as mean squares over a band
        P = Q / len(at) + _ELSEWHERE * P * (1 if self.discrete else np.pi / self.omega.max())
        e, V = np.linalg.eigh((P + P.T) / 2)
        kept = e > 1e-14 * e.max(initial=0.0)
        self.root = V[:, kept] / np.sqrt(e[kept])

    def _states(self, points: Host) -> Host:
        """``(k, n, m)`` the states at each of the points, per unit of each input."""
        system = StateSpace(self.A, self.B, np.eye(len(self.A)), np.zeros_like(self.B), dt=1 if self.discrete else 0)
        values = np.asarray(evaluate(system, points + 0j)).reshape(*self.B.shape, len(points))
        return np.moveaxis(values, -1, 0)

    def run(self, iterations: int) -> tuple[Host, Host, int]:
        """The output matrix and the feedthrough of a passive system, and how many quadratic programs that took."""
        self._clip()
        rows, bound, start = np.zeros((0, self.C.shape[0] * self.root.shape[1])), np.zeros(0), self.C
        count = 0
        for count in range(iterations + 1):
            measure = Measure((self.A, self.B, self.C, self.D), self.kind, self.discrete)
            bands = measure.bands(self.limit, self.inner)
            if not bands:
                break
            if count == iterations:
                self._shrink(measure.worst(self.inner)[0])
                break
            excess = max(most for _, _, most, _ in bands) - (1.0 if self.kind == "scattering" else 0.0)
            # tangents of a curved set leave a rest that is a part of the violation: deeper, where that goes on
            deeper = _OVERSHOOT * excess if count >= _TANGENTS else 0.0
            margin = min(_MARGIN * 2**count + deeper, _LARGEST_MARGIN, self._room())
            new_rows, new_bound = self._cuts(self._frequencies(bands), start)
            rows, bound = np.vstack([rows, new_rows]), np.concatenate([bound, new_bound])
            x, active = _least_distance(rows, bound + margin)
            rows, bound = rows[active], bound[active]
            self.C = start + x.reshape(len(start), -1) @ self.root.T
        C = self.original[2].copy()
        C[:, self.used] = self.C * self.gain
        return C, self.D, count

    def _frequencies(self, bands: list[tuple[float, float, float, float]]) -> Host:
        """Where violations stand, the bands around them, and where others might come up."""
        ramp = np.linspace(0, 1, _BAND_SAMPLES + 2)[1:-1]
        inside = [low + ramp * (high - low) if np.isfinite(high) else low + (low + 1) * ramp / (1 - ramp) for low, high, _, _ in bands]
        peaks = np.array([at for *_, at in bands if np.isfinite(at)])
        omega = np.concatenate([peaks, *inside, self.inner, self.omega])
        return np.unique(omega)

    def _shrink(self, worst: float) -> None:
        """What is left of a violation is taken from the whole response."""
        if self.kind == "scattering":
            factor = (1 - _MARGIN) / worst
            self.C, self.D = self.C * factor, self.D * factor
        else:
            self.D = self.D + (1 + _MARGIN) * worst * np.eye(len(self.D))

    def _room(self) -> float:
        """Half of what the feedthrough, which stays, leaves to a margin."""
        if self.kind == "scattering":
            return max(0.0, (1 - float(np.linalg.norm(self.D, 2))) / 2)
        return max(0.0, float(np.linalg.eigvalsh((self.D + self.D.T) / 2)[0]) / 2)

    def _cuts(self, omega: Host, start: Host) -> tuple[Host, Host]:
        """Half spaces ``rows x >= bound`` that hold all passive systems, for ``C = start + x root^T``, from the worst at ``omega``.

        The passive output matrices are a convex set: ``Re u* G v`` is at most the largest singular value for any unit vectors.
        """
        states = self._states(np.exp(1j * omega) if self.discrete else 1j * omega)
        values, given = self.C @ states + self.D, start @ states + self.D
        if self.kind == "scattering":
            left, s, Vh = np.linalg.svd(values, full_matrices=False)
            excess, right = s - 1, np.swapaxes(Vh, -1, -2).conj()
        else:
            e, right = np.linalg.eigh((values + np.swapaxes(values, -1, -2).conj()) / 2)
            excess, left = -e, -right
        neighbours = np.pad(excess, ((1, 1), (0, 0)), constant_values=-np.inf)
        peak = (excess >= neighbours[:-2]) & (excess >= neighbours[2:])
        where, which = np.nonzero((excess > 0) | (peak & (excess > -_GUARD)))
        most = np.argsort(-excess[where, which])[:_MOST_CONSTRAINTS]
        where, which = where[most], which[most]
        u, v = left[where, :, which], right[where, :, which]
        w = np.einsum("qrm,qm->qr", (self.root.T @ states)[where], v)
        rows = (u.conj()[:, :, None] * w[:, None, :]).real.reshape(len(where), -1)
        at_start = np.einsum("qp,qpm,qm->q", u.conj(), given[where], v).real
        return -rows, at_start - (1.0 if self.kind == "scattering" else 0.0)

    def _clip(self) -> None:
        """Makes the feedthrough passive; the residues take over, by least squares over the points, what was taken off it."""
        if self.kind == "scattering":
            U, s, Vh = np.linalg.svd(self.D, full_matrices=False)
            clipped = (U * np.where(s > 1, 1 - _CLIP, s)) @ Vh if s.max(initial=0) > 1 else self.D
        else:
            e, V = np.linalg.eigh((self.D + self.D.T) / 2)
            size = np.linalg.norm(self.C @ self.states + self.D, 2, axis=(-2, -1)).max()
            clipped = self.D + (V * np.maximum(_MARGIN * size - e, 0)) @ V.T if e.min(initial=np.inf) < _MARGIN * size else self.D
        if clipped is self.D:
            return
        driven = np.moveaxis(self.root.T @ self.states, 0, 1).reshape(self.root.shape[1], len(self.states) * self.B.shape[1])
        rows = np.hstack([driven.real, driven.imag]).T
        taken = np.tile(self.D - clipped, (1, len(self.states)))
        right = np.hstack([taken, np.zeros_like(taken)]).T
        # a ridge keeps the responses between and beyond the points bounded
        ridge = np.sqrt(len(self.states)) * _RIDGE * np.eye(rows.shape[1])
        x = np.linalg.lstsq(np.vstack([rows, ridge]), np.vstack([right, np.zeros((len(ridge), len(self.D)))]), rcond=None)[0]
        self.C, self.D = self.C + x.T @ self.root.T, clipped


def _least_distance(F: Host, h: Host) -> tuple[Host, Host]:
    """The shortest ``x`` with ``F x >= h``, and which rows hold it; where there is none, least squares for the rows with ``h > 0``."""
    size = np.abs(h).max() or 1.0
    E = np.vstack([F.T, h / size])
    target = np.append(np.zeros(F.shape[1]), 1.0)
    multipliers, _ = scipy.optimize.nnls(E, target, maxiter=30 * len(h))
    residual = E @ multipliers - target
    if abs(residual[-1]) > 1e-12:
        return -residual[:-1] / residual[-1] * size, multipliers > 0
    needed = h > 0
    return np.linalg.lstsq(F[needed], h[needed], rcond=None)[0], needed


# ---------------------------------------------------------------- the result


def _samples_of(fit: System | Result) -> Samples | None:
    """What a fit was made to, where that are samples."""
    data = fit.data if isinstance(fit, Fit) else None
    return samples(data) if isinstance(data, FrequencyResponse) else data if isinstance(data, Samples) else None


def _points_of(given: Samples | None, batch: tuple[int, ...], count: int) -> list[Host | None]:
    """Of each of ``count`` elements the points of its samples."""
    if given is None:
        return [None] * count
    points = to_numpy(given.points)
    if points.ndim == 1:
        return [points] * count
    shape = (*given.values.shape[: len(batch)], *(1,) * (given.values.ndim - 1 - len(batch)), points.shape[-1])
    full = np.broadcast_to(points, np.broadcast_shapes(points.shape, shape)).reshape(*batch, -1, points.shape[-1])
    return list(full[..., 0, :].reshape(count, -1))


def _stated(
    fit: System | Result,
    old: StateSpace,
    new: StateSpace,
    given: Samples | None,
    before: Passivity,
    after: Passivity,
    iterations: Host,
) -> PassiveFit:
    xp = namespace(old.A)
    first, second = (s.map(lambda a: to_numpy(double(a))) for s in (old, new))
    moved = dataclasses.replace(first, C=second.C - first.C, D=0 * first.D)
    size, change = (np.asarray(norm(s, "h2")) for s in (dataclasses.replace(first, D=0 * first.D), moved))
    change = from_numpy(change / np.where(size > 0, size, 1.0), old.A)
    if given is None:
        error, error_before, what = change, xp.zeros_like(change), "relative l2 change"
    else:
        coupled = given.values.ndim - 1 > len(old.batch_shape)
        error, error_before, what = given.error(new, coupled), given.error(old, coupled), RMS
    result = fit if isinstance(fit, Result) else None
    return PassiveFit(
        system=new,
        method=f"{result.method}, made passive" if result else "passivity enforcement",
        order=result.order if result else old.order,
        converged=after.passive,
        condition=result.condition if result else xp.ones_like(change),
        changes=result.changes if result else (),
        data=fit.data if isinstance(fit, Fit) else fit,
        error=error,
        error_kind=what,
        before=before,
        after=after,
        error_before=error_before,
        change=change,
        feedthrough_change=xp.linalg.matrix_norm(double(new.D) - double(old.D), ord=2),
        iterations=from_numpy(iterations, old.A),
    )
