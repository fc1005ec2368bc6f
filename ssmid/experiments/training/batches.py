"""The examples of every step: a function of the seed and the step, made ahead beside the step before."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ssmid.experiments.tasks.task import Split, Task
from ssmid.experiments.training.distributed import share
from ssmid.jobs.workers import Alone

Tensors = dict[str, Tensor]


def indices_of(step: int, size: int, batch: int, seed: int, fresh: bool) -> np.ndarray:
    """The examples ``(batch,)`` of ``step``: batches run through one shuffled epoch after another, without a gap between them.

    ``fresh``: epoch e has the examples from ``e * size``, none of which was seen before.

    >>> [indices_of(step, 5, 4, 0, False).tolist() for step in range(2)]
    [[2, 4, 3, 0], [1, 1, 4, 3]]
    """
    places = np.arange(step * batch, (step + 1) * batch)
    epochs = (places // size).tolist()
    drawn = [_order(size, seed, epoch)[place] for epoch, place in zip(epochs, places % size, strict=True)]
    return np.array(drawn) + (places - places % size if fresh else 0)


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


class Batches:
    """Batches of training from ``first`` on, this process's share of each, as tensors on ``device``; signals in ``dtype``."""

    def __init__(self, task: Task, batch: int, seed: int, team: Alone, device: str, dtype: torch.dtype) -> None:
        self._task, self._batch, self._seed, self._team = task, batch, seed, team
        self._device, self._dtype = device, dtype

    def training(self, first: int, last: int) -> Iterator[Tensors]:
        """Those of steps ``first`` to ``last - 1``."""
        with ThreadPoolExecutor(1) as ahead:
            coming: Future[Tensors] | None = ahead.submit(self._of_step, first) if first < last else None
            for step in range(first, last):
                assert coming is not None
                found, coming = coming.result(), ahead.submit(self._of_step, step + 1) if step + 1 < last else None
                yield self._moved(found)

    def evaluation(self, split: Split, at_most: int | None) -> Iterator[Tensors]:
        """This process's share of a split, each example once."""
        size = self._task.size(split)
        mine = share(np.arange(size if at_most is None else min(size, at_most)), self._team)
        each = max(1, self._batch // self._team.count)
        for first in range(0, len(mine), each):
            yield self._moved(self._tensors(split, mine[first : first + each]))

    def _of_step(self, step: int) -> Tensors:
        indices = indices_of(step, self._task.size("train"), self._batch, self._seed, self._task.fresh)
        return self._tensors("train", share(indices, self._team))

    def _tensors(self, split: Split, indices: np.ndarray) -> Tensors:
        found = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in self._task.batch(split, indices).items()}
        return {name: self._pinned(x.to(self._dtype) if x.is_floating_point() else x) for name, x in found.items()}

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor if self._device == "cpu" else tensor.pin_memory()

    def _moved(self, tensors: Tensors) -> Tensors:
        return {name: tensor.to(self._device, non_blocking=True) for name, tensor in tensors.items()}


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of all that is random in a step of one process, dropout above all."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
