"""Gradient descent over poles and residues: the distiller of Massaroli et al. (Laughing Hyena Distillery, arXiv 2310.18780, section 3.2).

``h[t] = Re sum_i R_i lambda_i^(t-1)`` with poles in polar form, angle and modulus real parameters, residues by real and imaginary part,
tap 0 kept, squared error over the taps alone (not over what the model does after the last), AdamW with a cosine, in float32. The paper
leaves the modulus free; here it is ``exp(-exp(nu))`` (Orvieto et al., ICML 2023), which is stable wherever a step ends and lets one
rate of learning serve slow and fast poles alike.

The steps are those of automatic differentiation, written out. With ``t = q K + s`` the taps are one product of small tables, and with
``e`` the error both ``sum_t e_t lambda^t`` and ``sum_t t e_t lambda^t``, of which the whole gradient is made, are one more: no array of
filters x modes x taps exists. The steps themselves: descent.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmid._array import Array, from_numpy, namespace, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.by_order import stateless
from ssmid.distillation.descent import History, descend
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import Subspace

if TYPE_CHECKING:
    import torch

STEPS, LEARNING_RATE, WEIGHT_DECAY = 20_000, 1e-2, 1e-2
_LEAST_DECAY = 2.0**-30


def fit_gradient(
    bank: Bank, orders: np.ndarray, subspace: Subspace | None, options: Options, *, steps: int = STEPS, lr: float = LEARNING_RATE
) -> Fitted:
    """Poles and residues as :func:`gradient_distill` leaves them. An odd order has one real pole.

    ``max_modulus`` is kept by the parametrization. ``converged`` says that the loss was flat at the end (:class:`History`).
    """
    if not orders.any():
        return stateless(bank)
    real = orders % 2 == 1
    modes = (orders + 1) // 2
    poles, residues, history = gradient_distill(bank.strict, modes, real=real, steps=steps, lr=lr, max_modulus=options.max_modulus)
    pairs = [np.stack([x, x.conj()], axis=-1).reshape(bank.count, -1) for x in (to_numpy(poles), to_numpy(residues) / 2)]
    # the one real mode of an odd order has no conjugate to share its residue with
    last = np.arange(pairs[0].shape[1]) == orders[:, None] - 1
    pairs[1] = np.where(last & real[:, None], 2 * pairs[1].real, pairs[1])
    live = np.arange(pairs[0].shape[1]) < orders[:, None]
    size = int(orders.max(initial=0))
    found, shares = (from_numpy(np.where(live, x, 0)[:, :size], bank.strict) for x in pairs)
    one = namespace(bank.strict).ones_like(bank.scale)
    return Fitted(found, shares, orders, from_numpy(history.flat | (orders == 0), bank.strict), one)


def gradient_distill(
    strict: Array,
    modes: int | np.ndarray,
    *,
    real: np.ndarray | None = None,
    steps: int = STEPS,
    lr: float = LEARNING_RATE,
    weight_decay: float = WEIGHT_DECAY,
    max_modulus: float | None = None,
    seed: int = 0,
    dtype: str = "float32",
    compile: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Array, Array, History]:
    """``poles, residues (n, m), history`` of ``strict[t] = Re sum_i residues_i poles_i^t``, t >= 0. Poles have imaginary part >= 0.

    strict : ``(n, N)`` real taps from 1 on, of any scale   modes : m, or ``(n,)``: complex modes of each filter, each of them two real
        states; zeros beyond   real : ``(n,)`` filters whose last mode is one real pole, of the sign in which the filter is larger
    weight_decay : 1e-2 is AdamW's own. It keeps an exact fit about 1e-3 away and helps a little on trained filters
    dtype : of the descent   compile : None compiles on a GPU that has Triton and a C compiler
    progress : called with the steps that are done and ``steps``

    All filters start from the same poles: squared moduli uniform in a ring from the time constant of four taps to that of all of
    them, angles uniform over the upper half, drawn mode by mode; filters do not see each other (AdamW is elementwise). A filter that
    is not finite comes back NaN, the others as without it. Runs on the device of ``strict``; NumPy arrays on the CPU.

    >>> strict = 0.9 ** np.arange(99) * np.cos(0.4 * np.arange(99))
    >>> poles, residues, history = gradient_distill(strict[None], 1, steps=1000)
    >>> np.abs(poles).round(2), np.angle(poles).round(2), bool(history.loss[-1, 0] < 1e-4)
    (array([[0.9]]), array([[0.4]]), True)
    """
    import torch

    taps = strict.detach() if isinstance(strict, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(to_numpy(strict)))
    count = taps.shape[0]
    counts = np.broadcast_to(np.asarray(modes), (count,))
    real = np.zeros(count, bool) if real is None else real
    kind = getattr(torch, dtype)
    with torch.no_grad():
        taps = taps.to(torch.float64)
        largest = taps.abs().amax(-1, keepdim=True)
        size = torch.where(largest > 0, largest, 1.0)
        problem = _Problem.of((taps / size).to(kind), counts, real, max_modulus)
        found, history = descend(
            problem.gradient,
            problem.start(seed),
            problem.free,
            steps=steps,
            lr=lr,
            weight_decay=weight_decay,
            compile=compile,
            progress=progress,
        )
        nu, angle, a, b = found.double()
        poles = torch.polar(torch.exp(-problem.decay(nu)), angle)
        # the lower one of a pair stands for the upper
        lower = poles.imag < 0
        residues = torch.complex(a, b) * size
        poles, residues = (torch.where(lower, x.conj(), x) * problem.live for x in (poles, residues))
        poles = torch.where(problem.last, torch.complex(poles.real, torch.zeros_like(poles.real)), poles)
    if isinstance(strict, torch.Tensor):
        return poles, residues, history
    return from_numpy(poles.numpy(), strict), from_numpy(residues.numpy(), strict), history


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """What a step needs besides the state.

    target : ``(n, Q, K)`` taps, padded   valid : ``(Q, K)``   energy : ``(n,)``   free : ``(4, n, m)`` ones where a parameter may move
    live, last : ``(n, m)`` modes of a filter, and the real one
    """

    target: torch.Tensor
    valid: torch.Tensor
    energy: torch.Tensor
    free: torch.Tensor
    live: torch.Tensor
    last: torch.Tensor
    length: int
    least: float  # of -log |pole|

    @classmethod
    def of(cls, taps: Any, counts: np.ndarray, real: np.ndarray, max_modulus: float | None) -> _Problem:
        import torch

        n, length = taps.shape
        # a power of two: the products are of whole tiles
        inner = 1 << max(0, math.ceil(math.log2(max(1, length)) / 2))
        outer = -(-length // inner)
        target = torch.nn.functional.pad(taps, (0, outer * inner - length)).reshape(n, outer, inner)
        valid = (torch.arange(outer * inner, device=taps.device) < length).reshape(outer, inner)
        energy = (taps.double() ** 2).sum(-1)
        place = np.arange(int(counts.max(initial=0)))
        live, last = place < counts[:, None], real[:, None] & (place == counts[:, None] - 1)
        free = np.stack([live, live & ~last, live, live & ~last])
        live, last, free = (torch.from_numpy(x).to(taps.device) for x in (live, last, free))
        least = _LEAST_DECAY if max_modulus is None else -math.log(max_modulus)
        energy = torch.where(energy > 0, energy, 1.0).to(taps.dtype)
        return cls(target, valid, energy, free.to(taps.dtype), live, last, length, least)

    def decay(self, nu: torch.Tensor) -> torch.Tensor:
        """``-log`` of the modulus."""
        return self.least + nu.exp()

    def start(self, seed: int) -> torch.Tensor:
        import torch

        _, n, m = self.free.shape
        draws = np.random.default_rng(seed).random((m, 4))
        # squared moduli of a ring, as of points that are uniform over it (LRU)
        inner, outer = np.exp(-2 / min(4, self.length)), np.exp(-2 / self.length)
        modulus = np.sqrt(inner + (outer - inner) * draws[:, 0])
        start = np.stack([np.log(-np.log(modulus)), np.pi * draws[:, 1], *(0.1 * (2 * draws[:, 2:] - 1).T)])
        parameters = torch.from_numpy(start).to(self.target)[:, None, :].repeat(1, n, 1)
        parameters[2:] *= self.free[2:]
        flat = self.target.flatten(1)
        turned = flat * (1 - 2 * (torch.arange(flat.shape[1], device=flat.device) % 2))
        sign = torch.where(flat.sum(-1).abs() < turned.sum(-1).abs(), torch.pi, 0.0)
        parameters[1] = torch.where(self.last, sign[:, None].to(parameters), parameters[1])
        return parameters

    def gradient(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the squared error over the taps, relative to their energy, and that error ``(n,)``."""
        import torch

        outer, inner = self.valid.shape
        m = parameters.shape[-1]
        nu, angle, a, b = parameters
        fine = torch.arange(inner, device=nu.device, dtype=nu.dtype)
        coarse = inner * torch.arange(outer, device=nu.device, dtype=nu.dtype)
        decay = self.decay(nu)
        fine_re, fine_im = _powers(decay, angle, fine)
        re, im = _powers(decay, angle, coarse)
        table = torch.cat([fine_re, fine_im, fine * fine_re, fine * fine_im], 1)
        a, b = a[..., None], b[..., None]
        weighted_re, weighted_im = a * re - b * im, a * im + b * re
        modelled = torch.cat([weighted_re, -weighted_im], 1).mT @ table[:, : 2 * m]
        error = torch.where(self.valid, modelled - self.target, 0.0)
        loss = (error * error).sum((1, 2)) / self.energy
        # over s, of lambda^s and of s lambda^s
        plain_re, plain_im, ramp_re, ramp_im = (table @ error.mT).chunk(4, 1)
        ramp_re, ramp_im = coarse * plain_re + ramp_re, coarse * plain_im + ramp_im
        slope = torch.stack(
            [
                -nu.exp() * (weighted_re * ramp_re - weighted_im * ramp_im).sum(-1),
                -(weighted_re * ramp_im + weighted_im * ramp_re).sum(-1),
                (re * plain_re - im * plain_im).sum(-1),
                -(re * plain_im + im * plain_re).sum(-1),
            ]
        )
        return slope * (2 / self.energy)[:, None], loss


def _powers(decay: torch.Tensor, angle: torch.Tensor, exponents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    modulus = (-decay[..., None] * exponents).exp()
    phase = angle[..., None] * exponents
    return modulus * phase.cos(), modulus * phase.sin()
