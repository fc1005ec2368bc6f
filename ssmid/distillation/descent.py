"""AdamW (Loshchilov & Hutter, ICLR 2019) with a cosine from its rate to 0, on many problems that do not see each other, as one tensor.

On a GPU a step is compiled where that pays and a compiler is there, and replayed as a CUDA graph in any case: what would be dozens of
launches of small kernels is one.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

_BETAS, _EPS = (0.9, 0.999), 1e-8
_RECORDED = 200
"""Losses of a run that are kept."""
_FLAT = 1e-2
"""How much of itself the loss may still fall over the last tenth of the steps where a run counts as converged."""

Gradient: TypeAlias = "Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]"
"""Of parameters ``(k, n, m)`` the gradient ``(k, n, m)`` and the loss ``(n,)`` of ``n`` problems."""


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """steps : ``(k,)`` after which the losses ``(k, n)`` were taken; the last are those of the parameters returned
    how : what ran: "plain", "compiled", "CUDA graph" or "compiled, CUDA graph" """

    steps: np.ndarray
    loss: np.ndarray
    how: str

    @property
    def flat(self) -> np.ndarray:
        """``(n,)`` whether the loss is finite and hardly fell over the last tenth of the steps. The schedule ends flat: no proof of a
        minimum."""
        before = self.loss[np.searchsorted(self.steps, 0.9 * self.steps[-1])]
        return np.isfinite(self.loss[-1]) & (self.loss[-1] >= (1 - _FLAT) * before)


def descend(
    gradient: Gradient,
    start: Any,
    free: Any,
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.0,
    compile: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Any, History]:
    """The parameters of least loss on the way from ``start`` ``(k, n, m)``, and the history. NaN where no loss was finite.

    free : ``(k, n, m)`` ones where a parameter may move, zeros elsewhere   compile : None compiles on a GPU that has Triton and a C
        compiler   progress : called with the steps that are done and ``steps``
    """
    import torch

    with torch.no_grad():
        run = _Descent(gradient, free, *start.new_tensor([math.pi / max(1, steps), lr, weight_decay]))
        state = run.beginning(start)
        advance, how = _advance(run, state, start.is_cuda, compile)
        every, taken, losses = max(1, steps // _RECORDED), [], []
        for k in range(steps):
            loss = advance()
            if k % every == 0:
                taken.append(k)
                losses.append(loss.clone())
                if progress is not None:
                    progress(k, steps)
        last = gradient(state[0])[1]
        best, least = _better(state[4], state[5], state[0], last)
        best = torch.where(least.isfinite()[:, None], best, torch.nan)
        losses.append(torch.where(least.isfinite(), least, torch.nan))
        if progress is not None:
            progress(steps, steps)
        return best, History(np.array([*taken, steps]), torch.stack(losses).cpu().numpy(), how)


def compiler_found() -> bool:
    """Whether ``torch.compile`` can be expected to work for a GPU: Triton, and the C compiler that it builds its launchers with."""
    named = os.environ.get("CC")
    return importlib.util.find_spec("triton") is not None and any(shutil.which(c) for c in (named, "gcc", "clang", "cc") if c)


@dataclasses.dataclass(frozen=True, eq=False)
class _Descent:
    """turn, lr, weight_decay : tensors, because of every new number a compiled step would be compiled again"""

    gradient: Gradient
    free: torch.Tensor
    turn: torch.Tensor
    lr: torch.Tensor
    weight_decay: torch.Tensor

    def beginning(self, start: torch.Tensor) -> list[torch.Tensor]:
        """Parameters, both moments, the number of steps taken, the best parameters and their loss."""
        import torch

        none = torch.full(start.shape[1:2], torch.inf, dtype=start.dtype, device=start.device)
        done = torch.zeros((), dtype=start.dtype, device=start.device)
        return [start.clone(), torch.zeros_like(start), torch.zeros_like(start), done, start.clone(), none]

    def step(
        self,
        parameters: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        done: torch.Tensor,
        best: torch.Tensor,
        least: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """The next state, and the loss of the one given."""
        gradient, loss = self.gradient(parameters)
        best, least = _better(best, least, parameters, loss)
        gradient = gradient * self.free
        rate = self.lr * (0.5 + 0.5 * (done * self.turn).cos())
        done = done + 1
        first = _BETAS[0] * first + (1 - _BETAS[0]) * gradient
        second = _BETAS[1] * second + (1 - _BETAS[1]) * gradient * gradient
        size = (second / -(done * math.log(_BETAS[1])).expm1()).sqrt() + _EPS
        move = first / -(done * math.log(_BETAS[0])).expm1() / size
        return parameters - rate * (move + self.weight_decay * self.free * parameters), first, second, done, best, least, loss


def _better(best: torch.Tensor, least: torch.Tensor, parameters: torch.Tensor, loss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    lower = loss < least
    return torch.where(lower[:, None], parameters, best), torch.where(lower, loss, least)


def _step(run: _Descent, state: list[Any], compile: bool, *, insist: bool) -> tuple[Callable[..., Any], bool]:
    """The step, and whether it is compiled: a compiler that is there may still not work, which is no reason to stop."""
    import torch

    if not compile:
        return run.step, False
    compiled = torch.compile(run.step, dynamic=False)
    try:
        compiled(*state)
    except (RuntimeError, OSError, ImportError):
        if insist:
            raise
        return run.step, False
    return compiled, True


def _advance(run: _Descent, state: list[Any], gpu: bool, compile: bool | None) -> tuple[Callable[[], Any], str]:
    """A function that takes one step in place and gives the loss before it, and what it is made of."""
    import torch

    step, compiled = _step(run, state, (gpu and compiler_found()) if compile is None else compile, insist=bool(compile))

    def in_place() -> torch.Tensor:
        *following, loss = step(*state)
        for old, new in zip(state, following, strict=True):
            old.copy_(new)
        return loss

    if not gpu:
        return in_place, "compiled" if compiled else "plain"
    before = [x.clone() for x in state]
    current = torch.cuda.current_stream(state[0].device)
    stream = torch.cuda.Stream(state[0].device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):  # what is set up at a first call cannot be recorded
        for _ in range(3):
            in_place()
    current.wait_stream(stream)
    for old, new in zip(state, before, strict=True):
        old.copy_(new)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = in_place()

    def replay() -> torch.Tensor:
        graph.replay()
        return loss

    return replay, "compiled, CUDA graph" if compiled else "CUDA graph"
