"""Rational transfer functions fitted by gradient descent over their coefficients (RTF: Parnichkun et al., arXiv 2405.06147).

``(b_1 z^-1 + ... + b_d z^-d) / (1 + a_1 z^-1 + ... + a_d z^-d)`` on an FFT grid, the kernel by one inverse FFT, squared error over the
taps, AdamW with a cosine, from a denominator of 1 and a numerator next to 0. Coefficients of polynomials tell clustered poles badly (they
move by the m-th root of what a coefficient does, m of them in a cluster): at order 64 digits are lost on the way to poles and back, and
nothing keeps these stable. It stands here to be compared with.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ssmid._array import Array, from_numpy, namespace, next_fast_length, quiet, to_numpy
from ssmid.analysis.modal_form import modal_and_condition
from ssmid.distillation.bank import Bank
from ssmid.distillation.by_order import AtOrder, fit_by_order
from ssmid.distillation.descent import History, descend
from ssmid.distillation.fitted import Fitted, optimal_residues
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace
from ssmid.identification.stable_poles import held_inside
from ssmid.reduction.h2_request import closed, prepared
from ssmid.systems import ConversionWarning, TransferFunction

if TYPE_CHECKING:
    import torch

STEPS, LEARNING_RATE = 20_000, 1e-3
_SMALL = 1e-3
_MARGIN = 1e-9
"""How far inside of the unit circle a reflected pole is at least."""


def fit_rtf(
    bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options, *, steps: int = STEPS, lr: float = LEARNING_RATE
) -> Fitted:
    """Poles and residues of the rational functions that :func:`rtf_distill` ends with.

    Nothing keeps the roots of a denominator stable. Where one is not, unstable poles are reflected at the unit circle, residues are
    those of least squares, and ``converged`` is False; else it says that the loss was flat at the end (:class:`History`).
    ``condition`` is that of the roots.
    """
    return fit_by_order(bank, orders, partial(_at_order, steps=steps, lr=lr))


def _at_order(bank: Bank, order: int, steps: int, lr: float) -> AtOrder:
    xp = namespace(bank.strict)
    numerator, denominator, history = rtf_distill(bank.strict, order, steps=steps, lr=lr)
    monic = xp.concat([xp.ones_like(denominator[:, :1]), denominator], axis=-1)
    with warnings.catch_warnings():
        # the certificate measures what the conversion lost
        warnings.simplefilter("ignore", ConversionWarning)
        modal, condition = modal_and_condition(TransferFunction(numerator, monic))
    poles, residues = modal.poles, modal.residues / (1 - modal.poles ** grid_points(bank.length))
    lost = to_numpy(~(xp.all(xp.abs(poles) < 1, axis=-1) & xp.all(xp.isfinite(residues), axis=-1)))
    converged = from_numpy(history.flat & ~lost, bank.strict)
    if lost.any():
        rows = np.flatnonzero(lost & np.isfinite(to_numpy(poles)).all(-1))
        back = np.arange(bank.count)
        back[rows] = bank.count + np.arange(len(rows))
        held = _held(bank.take(rows), xp.take(poles, from_numpy(rows, poles), axis=0))
        poles, residues = (
            xp.take(xp.concat([old, new], axis=0), from_numpy(back, poles), axis=0)
            for old, new in zip((poles, residues), held, strict=True)
        )
    return AtOrder(poles, residues, converged, condition)


@quiet
def _held(bank: Bank, poles: Array) -> tuple[Array, Array]:
    """Poles with the unstable ones reflected, and the best residues; none where poles coincide."""
    order = poles.shape[-1]
    inside = to_numpy(held_inside(poles, 1, _MARGIN))
    poles, live = prepared(closed(inside), np.full(bank.count, order), bank.strict, real=True)
    residues = optimal_residues(bank, poles, live)[:, :order]
    xp = namespace(residues)
    return poles[:, :order], xp.where(xp.all(xp.isfinite(residues), axis=-1)[:, None], residues, xp.zeros_like(residues))


def rtf_distill(
    strict: Array,
    order: int,
    *,
    steps: int = STEPS,
    lr: float = LEARNING_RATE,
    weight_decay: float = 0.0,
    dtype: str = "float64",
    compile: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Array, Array, History]:
    """``numerator, denominator (n, order), history``: coefficients from ``z^-1`` on, the denominator's leading 1 left out.

    strict : ``(n, N)`` real taps from 1 on. What is fitted is the response wrapped around an FFT grid, as with every kernel that is read
    off a grid: the response itself has residues ``r / (1 - pole^grid)`` with the points of :func:`grid_points`.

    >>> numerator, denominator, history = rtf_distill(0.7 ** np.arange(50.0)[None], 1, steps=1000, lr=1e-2)
    >>> numerator.round(6), denominator.round(6)
    (array([[1.]]), array([[-0.7]]))
    """
    import torch

    taps = strict.detach() if isinstance(strict, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(to_numpy(strict)))
    with torch.no_grad():
        target = taps.to(getattr(torch, dtype))
        largest = target.abs().amax(-1, keepdim=True)
        size = torch.where(largest > 0, largest, 1.0)
        problem = _Problem(target / size, grid_points(target.shape[-1]))
        start = torch.zeros((2, target.shape[0], order), dtype=target.dtype, device=target.device)
        # from zeros alone a filter that begins with a long delay has no gradient
        start[0] += torch.from_numpy(np.random.default_rng(0).uniform(-_SMALL, _SMALL, order) / order).to(start)
        found, history = descend(
            problem.gradient,
            start,
            torch.ones_like(start),
            steps=steps,
            lr=lr,
            weight_decay=weight_decay,
            compile=compile,
            progress=progress,
        )
        numerator, denominator = found[0] * size, found[1]
    if isinstance(strict, torch.Tensor):
        return numerator, denominator, history
    return from_numpy(numerator.numpy(), strict), from_numpy(denominator.numpy(), strict), history


def grid_points(length: int) -> int:
    """Of the FFT for ``length`` taps from 1 on."""
    return next_fast_length(length + 1)


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """target : ``(n, N)``   grid : points of the FFT"""

    target: torch.Tensor
    grid: int

    def gradient(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the squared error over the taps, relative to their energy, and that error ``(n,)``.

        A coefficient moves the kernel by itself, delayed: gradients are correlations, and on the grid products.
        """
        import torch

        order, length = parameters.shape[-1], self.target.shape[-1]
        numerator, denominator = torch.fft.rfft(torch.nn.functional.pad(parameters, (1, 0)), self.grid)
        inverse = 1 / (1 + denominator)
        modelled = numerator * inverse
        energy = (self.target * self.target).sum(-1)
        energy = torch.where(energy > 0, energy, 1.0)
        error = torch.fft.irfft(modelled, self.grid)[:, 1 : length + 1] - self.target
        spectrum = torch.fft.rfft(torch.nn.functional.pad(error, (1, 0)), self.grid) * inverse.conj()
        slope = torch.fft.irfft(torch.stack([spectrum, -spectrum * modelled.conj()]), self.grid)[..., 1 : order + 1]
        return slope * (2 / energy)[:, None], (error * error).sum(-1) / energy
