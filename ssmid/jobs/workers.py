"""One process, or the several that torchrun started, through torch.distributed: NCCL on GPUs, gloo on CPUs."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

_PATIENCE = timedelta(days=1)
"""How long a process waits for the others. One that dies is noticed by torchrun, which ends the others at once."""


class Alone:
    """The only process."""

    rank, count = 0, 1

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}

    def agree(self, value: Any) -> Any:
        """What the first process passes, in all of them."""
        return value

    def wait(self) -> None:
        """Until all have come here."""

    def dismiss(self) -> None:
        """Called by the first process at its end: where it has not agreed on anything, the others have nothing to do."""

    def add(self, name: str, amount: int) -> int:
        """Adds to a counter that all share; its new value."""
        self._counters[name] = self._counters.get(name, 0) + amount
        return self._counters[name]


class Together(Alone):
    """One of several processes. ``store`` and ``distributed`` are those of torch."""

    def __init__(self, distributed: Any, store: Any, device: Any) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._distributed, self._store, self._device = distributed, store, device
        self._agreed = False

    def dismiss(self) -> None:
        if not self._agreed:
            self.agree(None)

    def agree(self, value: Any) -> Any:
        self._agreed = True
        held = [value]
        self._distributed.broadcast_object_list(held, src=0, device=self._device)
        return held[0]

    def wait(self) -> None:
        self._distributed.barrier()

    def add(self, name: str, amount: int) -> int:
        return self._store.add(f"ssmid {name}", amount)


def is_first() -> bool:
    """Whether this process is the one that speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def are_several() -> bool:
    """Whether torchrun started this process and others beside it."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def device_of(kind: str) -> str:
    """The device of this process: "cpu", or the GPU of its place among the processes of this host; ValueError where there is none."""
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {kind!r}")
    if kind == "cpu":
        return kind
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise ValueError("device: expected torch for cuda, got an environment without it")
    import torch

    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise ValueError(f"device: expected a GPU for each process of this host, got process {place + 1} and {count or 'no'} GPUs")
    return f"cuda:{place}"


@contextmanager
def workers(device: str) -> Iterator[Alone]:
    """The processes of this job. ``device``: that of this process."""
    if not are_several():
        yield Alone()
        return
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
    store, rank, count = next(iter(rendezvous("env://", timeout=_PATIENCE)))
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=count,
        timeout=_PATIENCE,
        device_id=torch.device(device) if on_gpu else None,
    )
    yield Together(distributed, store, torch.device(device))
    # what still holds the group, such as a model in a cycle, would keep its threads until the interpreter's end, which ends in an abort
    gc.collect()
    # not after an error: it would wait for the others, whom torchrun ends when this process has gone
    distributed.destroy_process_group()
