"""Scalar models as the distiller sees them: of one scale, in modes where their eigenvectors allow it, and what a fit misses of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ssmid._array import Array, as_complex, double, from_numpy, namespace, quiet, to_numpy
from ssmid.analysis.gramians import modal_realization
from ssmid.analysis.hankel import hankel_singular_values
from ssmid.analysis.interconnection import subtract
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.norms import norm
from ssmid.distillation.bank import EXTREME, NOT_FINITE, ORDINARY, TAP_0_ONLY, UNSTABLE, USUAL, ZERO
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.model_norms import difference, modal_norm
from ssmid.distillation.options import Options
from ssmid.linalg import eig, eigvals, inverse, numerical_rank
from ssmid.reduction.balanced import balanced_truncation
from ssmid.reduction.h2 import h2_approximation
from ssmid.reduction.hankel_norm import hankel_norm_approximation
from ssmid.reduction.modal_truncation import modal_truncation
from ssmid.reduction.result import Reduction
from ssmid.systems import Modal, StateSpace
from ssmid.systems.base import ConversionWarning

Scalars = Modal | StateSpace
Reduce = Callable[[Scalars, int, Options], Reduction]
REDUCTIONS: dict[str, Reduce] = {
    "l2": lambda system, order, options: h2_approximation(
        system, order, restarts=options.restarts, max_iterations=options.max_iterations, gtol=options.gtol
    ),
    "balanced": lambda system, order, options: balanced_truncation(system, order),
    "hankel": lambda system, order, options: hankel_norm_approximation(system, order, feedthrough="keep"),
    "modal-truncation": lambda system, order, options: modal_truncation(system, order),
}
"""The methods that need no taps."""
_WORST_EIGENVECTORS = 1e4
"""Of a state space that is taken apart into modes."""
_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class ModelSource:
    """Some elements of a flat batch of models without feedthrough, divided by their ``scale``; zero where there is nothing to reduce.

    places : ``(n,)`` where they stand in the batch   system : batch ``(n,)``   scale : ``(n,)`` powers of two
    sigma : ``(n, k)`` Hankel values   kind : ``(n,)`` indices of KINDS
    """

    places: np.ndarray
    system: Scalars
    scale: Array
    sigma: Array
    kind: np.ndarray

    @property
    def count(self) -> int:
        return len(self.places)

    @property
    def degree(self) -> np.ndarray:
        """``(n,)`` how many states each carries to rounding."""
        return numerical_rank(to_numpy(self.sigma))

    @property
    def radius(self) -> np.ndarray:
        """``(n,)`` the modulus of the slowest mode."""
        poles = self.system.poles if isinstance(self.system, Modal) else eigvals(self.system.A)
        return np.abs(to_numpy(poles)).max(-1, initial=0.0)

    def take(self, rows: np.ndarray) -> ModelSource:
        scale, sigma = (_rows(a, rows) for a in (self.scale, self.sigma))
        return ModelSource(self.places[rows], self.system.map(lambda a: _rows(a, rows)), scale, sigma, self.kind[rows])

    def fit(self, orders: np.ndarray, options: Options) -> Fitted:
        """By the method of ``options``, all elements of one order together. ``orders`` ``(n,)``, at most :attr:`degree`."""
        size = int(orders.max(initial=0))
        groups = [np.flatnonzero(orders == order) for order in np.unique(orders)]
        parts = [self._at(rows, int(orders[rows[0]]), size, options) for rows in groups]
        back = from_numpy(np.argsort(np.concatenate([*groups, np.zeros(0, np.int64)])), self.scale)
        xp = namespace(self.scale)
        poles, residues, converged, condition = (xp.take(xp.concat(list(x), axis=0), back, axis=0) for x in zip(*parts, strict=True))
        return Fitted(poles, residues, to_numpy(residues != 0).sum(-1), converged, condition)

    def _at(self, rows: np.ndarray, order: int, size: int, options: Options) -> tuple[Array, Array, Array, Array]:
        """Poles and residues ``(k, size)``, whether they are what was asked for, and their condition, at one order."""
        xp, scale = namespace(self.scale), _rows(self.scale, rows)
        none = xp.zeros((len(rows), size), dtype=xp.complex128, device=scale.device)
        if order == 0:
            return none, none, scale > 0, xp.ones_like(scale)
        with warnings.catch_warnings():
            # what clustered poles cost shows in the error, which is measured
            warnings.simplefilter("ignore", ConversionWarning)
            fit = REDUCTIONS[options.method](self.take(rows).system, order, options)
            assert isinstance(fit.system, Scalars)
            poles, residues, _ = modes_of(fit.system)
        live = residues != 0
        first = xp.argsort(xp.astype(~live, xp.int64), axis=-1, stable=True)
        poles, residues = (xp.take_along_axis(xp.where(live, x, xp.zeros_like(x)), first, axis=-1) for x in (poles, residues))
        poles, residues = (xp.concat([x, none], axis=-1)[:, :size] for x in (poles, residues))
        return poles, residues, fit.converged, fit.condition

    def errors(self, fitted: Fitted, kinds: Sequence[str]) -> dict[str, Array]:
        """``(n,)`` each, norms of the model minus the fit, in the scale of the source."""
        if isinstance(self.system, Modal):
            apart = difference(self.system.poles, self.system.residues, fitted.poles, fitted.residues)
            return {kind: modal_norm(*apart, kind) for kind in kinds}
        rest = subtract(self.system, modal_state_space(Modal(fitted.poles, fitted.residues)))
        return {kind: norm(rest, kind) for kind in kinds}

    def sizes(self, kinds: Sequence[str]) -> dict[str, Array]:
        """The norms of the model itself."""
        xp = namespace(self.scale)
        none = xp.zeros((self.count, 0), dtype=xp.complex128, device=self.scale.device)
        found = {kind: self.sigma[:, 0] for kind in kinds if kind == "hankel"}
        nothing = Fitted(none, none, np.zeros(self.count, int), self.scale > 0, self.scale)
        return found | self.errors(nothing, [kind for kind in kinds if kind != "hankel"])


def sources_of(system: Scalars, chunk: int | None) -> list[ModelSource]:
    """The elements of a flat bank ``(n,)`` of real scalar models in pieces of ``chunk``, those with good eigenvectors as modes."""
    found, step = [], min(chunk or _AT_ONCE, _AT_ONCE)
    for start in range(0, prod(system.batch_shape), step):
        rows = np.arange(start, min(start + step, prod(system.batch_shape)))
        piece = system.map(lambda a, rows=rows: _rows(double(a), rows))
        kind = _kinds(piece)
        clean = _cleaned(piece, np.isin(kind, (NOT_FINITE, UNSTABLE)))
        poles, residues, condition = modes_of(clean)
        modal = to_numpy(condition) < _WORST_EIGENVECTORS
        through = namespace(condition).zeros_like(condition)
        for part, chosen in ((Modal(poles, residues, through), modal), (clean, ~modal)):
            here = np.flatnonzero(chosen)
            if len(here):
                found.append(_scaled(rows[here], part.map(lambda a, here=here: _rows(a, here)), kind[here]))
    return found


def warn_of_missed(missed: int, count: int, options: Options, stacklevel: int) -> None:
    what = f"a relative {options.norm} error of {options.tol} is not met by {missed} of {count} models"
    warnings.warn(f"tol: {what} with orders up to {options.max_order}; the best is kept", stacklevel=stacklevel + 1)


def modes_of(system: Scalars) -> tuple[Array, Array, Array]:
    """Poles and residues ``(n, d)`` of a flat bank, and the condition ``(n,)`` of the eigenvectors; 1 of modes."""
    xp = namespace(next(iter(system.arrays.values())))
    if isinstance(system, Modal):
        arrays = system.broadcast_arrays()
        poles, residues = (double(arrays[name]) for name in ("poles", "residues"))
        return poles, residues, xp.ones(poles.shape[0], dtype=xp.float64, device=poles.device)
    A, B, C = (double(M) for M in (system.A, system.B, system.C))
    poles, V = eig(A)
    W = quiet(inverse)(V)
    residues = (as_complex(C) @ V)[:, 0, :] * (W @ as_complex(B))[:, :, 0]
    condition = quiet(xp.linalg.vector_norm)(W, axis=(-2, -1)) if A.shape[-1] else xp.ones(A.shape[0], dtype=xp.float64, device=A.device)
    return poles, residues, condition


def _kinds(system: Scalars) -> np.ndarray:
    """What is special about each element, before it is scaled."""
    finite = to_numpy(system.is_finite())
    if isinstance(system, Modal):
        poles, through = system.poles, to_numpy(system.feedthrough)
        size = np.abs(to_numpy(system.residues)).max(-1, initial=0.0)
    else:
        poles, through = quiet(eigvals)(system.A), to_numpy(system.D)[:, 0, 0]
        size = np.prod([np.abs(to_numpy(M)).max((-2, -1), initial=0.0) for M in (system.B, system.C)], axis=0)
    unstable = (np.abs(to_numpy(poles)) >= 1).any(-1)
    choices = [~finite, (size == 0) & (through == 0), size == 0, unstable, (size < USUAL[0]) | (size > USUAL[1])]
    return np.select(choices, [NOT_FINITE, ZERO, TAP_0_ONLY, UNSTABLE, EXTREME], ORDINARY)


def _cleaned(system: Scalars, bad: np.ndarray) -> Scalars:
    """Zeros in the place of what cannot be reduced."""
    if not bad.any():
        return system

    def zero(array: Array) -> Array:
        xp = namespace(array)
        mask = xp.reshape(from_numpy(bad, array), (-1, *(1,) * (array.ndim - 1)))
        return xp.where(mask, xp.zeros_like(array), array)

    return system.map(zero)


def _scaled(places: np.ndarray, system: Scalars, kind: np.ndarray) -> ModelSource:
    """Without the feedthrough, closed under conjugation, and divided by powers of two."""
    xp = namespace(next(iter(system.arrays.values())))
    if isinstance(system, Modal):
        poles, inputs, outputs = modal_realization(system)
        scale = _power_of_two(system.residues)
        system = Modal(poles, inputs * outputs / as_complex(scale)[:, None], xp.zeros_like(scale))
    else:
        b, c = (_power_of_two(xp.reshape(M, (M.shape[0], -1))) for M in (system.B, system.C))
        scale = b * c
        system = StateSpace(system.A, system.B / b[:, None, None], system.C / c[:, None, None], 0 * system.D)
    return ModelSource(places, system, scale, hankel_singular_values(system), kind)


def _power_of_two(entries: Array) -> Array:
    xp = namespace(entries)
    if entries.shape[-1] == 0:
        return xp.ones(entries.shape[:1], dtype=xp.float64, device=entries.device)
    largest = xp.max(xp.abs(entries), axis=-1)
    return xp.pow(xp.full_like(largest, 2.0), xp.floor(xp.log2(xp.where(largest > 0, largest, xp.ones_like(largest)))))


def _rows(array: Array, rows: np.ndarray) -> Array:
    return namespace(array).take(array, from_numpy(rows, array), axis=0)
