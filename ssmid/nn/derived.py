"""What inference makes of the numbers of a module once: taps of an implicit filter, a recurrence of trained poles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import nn

Value = TypeVar("Value")


class Derived(Generic[Value]):
    """A value made of a module's parameters and buffers, and made again when one of them was changed, replaced, cast or moved.

    A step of an optimizer, ``load_state_dict`` and ``to`` are all seen. Within a compiled function the value that stands is taken, and
    made there if there is none.

    >>> module, derived = nn.Linear(1, 1), Derived[float]()
    >>> with torch.no_grad():
    ...     _ = module.weight.fill_(2)
    ...     first = derived.of(module, lambda: float(module.weight))
    ...     _ = module.weight.fill_(3)
    ...     first, derived.of(module, lambda: float(module.weight))
    (2.0, 3.0)
    """

    def __init__(self) -> None:
        self._made: tuple[list[Any], Value] | None = None
        self._kept: list[torch.Tensor] = []

    def of(self, module: nn.Module, make: Callable[[], Value]) -> Value:
        if torch.compiler.is_compiling():
            return make() if self._made is None else self._made[1]
        made_of: list[Any] = []
        _note(module, made_of)
        if self._made is None or self._made[0] != made_of:
            self._made = (made_of, make())
            # as long as these are held, no other numbers can come to lie in their place
            self._kept = [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
        return self._made[1]


def _note(module: nn.Module, noted: list[Any]) -> None:
    """Where each tensor of ``module`` lies, its dtype, and how often it was written to. ``parameters()`` takes ten times as long."""
    for tensors in (module._parameters, module._buffers):
        for tensor in tensors.values():
            if tensor is not None:
                noted += (tensor.data_ptr(), tensor.dtype, -1 if tensor.is_inference() else tensor._version)
    for child in module._modules.values():
        if child is not None:
            _note(child, noted)
