"""A step of training as one CUDA graph: a small model waits for the host, which launches hundreds of kernels a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakMethod

import torch
from torch import Tensor

from ssmid.bench.replay import GRAPH, emptied, replayed, unless_out_of_memory

Tensors = dict[str, Tensor]


class Recorded:
    """``update(batch)``, recorded with the first batch and replayed for all of its shapes, where it can be recorded; else called.

    update : works on its ``batch`` and on what the device holds, ends without gradients, and gives tensors, which the next call may
    overwrite   changed : the tensors that it changes; such as come to be with its first call, as the moments of an optimizer, begin at zero

    Both are methods of what holds this, which is not kept alive by it: in a cycle the graph's memory would wait for Python's collector.
    Numbers are those of calls: random ones follow the seed that was set before each. Where the recording, which takes memory of its own,
    finds too little of it, every step is called.
    """

    def __init__(self, update: Callable[[Tensors], Any], changed: Callable[[], Iterable[Tensor]], device: str) -> None:
        self._updated_by, self._changed_by, self._device = WeakMethod(update), WeakMethod(changed), device
        self._batch: Tensors | None = None
        self._replay: Callable[[], Any] | None = None

    def __call__(self, batch: Tensors) -> Any:
        if self._batch is None:
            self._batch = {name: tensor.clone() for name, tensor in batch.items()}
            self._replay = self._recorded(self._batch) if self._device.startswith("cuda") else None
        if self._replay is None or any(tensor.shape != batch[name].shape for name, tensor in self._batch.items()):
            return self._update(batch)
        for name, tensor in self._batch.items():
            tensor.copy_(batch[name])
        return self._replay()

    def _update(self, batch: Tensors) -> Any:
        update = self._updated_by()
        assert update is not None  # its object is what calls this
        return update(batch)

    def _changed(self) -> Iterable[Tensor]:
        changed = self._changed_by()
        assert changed is not None
        return changed()

    @torch.no_grad()
    def _recorded(self, batch: Tensors) -> Callable[[], Any] | None:
        """What repeats the update with what is in ``batch``, or None; everything is put back as it was."""
        before = {id(tensor): tensor.clone() for tensor in self._changed()}
        device = torch.device(self._device)
        # a recording is of the current device: of another's kernels it would hold none, and its replays train nothing
        with torch.cuda.device(device), torch.random.fork_rng([device]), torch.enable_grad():
            found = unless_out_of_memory(lambda: replayed(lambda: self._update(batch), self._device), self._device)
        for tensor in self._changed():
            tensor.grad = None  # of a call that was broken off
            tensor.copy_(before[id(tensor)]) if id(tensor) in before else tensor.zero_()
        if found is None:
            emptied(self._device)  # gradients of a call that was broken off lay in the memory of the recording
            return None
        replay, how = found
        return replay if how == GRAPH else None
